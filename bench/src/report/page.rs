//! The page. All text of results and plans passes [`escaped`]; the page may load and run nothing.

use super::Named;
use super::plot::{Axis, Bar, Scale, Series, bars, lines};
use crate::machine::ratio;
use crate::plan::Plan;
use crate::plan::units::{capacity, si};
use crate::result::{Distribution, Document, Trial, cut_packets};
use crate::tools::Kind;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use tapedeck_packet::escape::html as escaped;

const STYLE: &str = include_str!("page.css");

/// The whole page.
pub(super) fn page(results: &[Named], plan: Option<&Plan>) -> String {
    let mut out = format!(
        "<!DOCTYPE html>\n<html lang=\"en\" xmlns=\"http://www.w3.org/1999/xhtml\"><head><meta charset=\"utf-8\"/><meta \
         http-equiv=\"Content-Security-Policy\" content=\"default-src &#39;none&#39;; style-src &#39;unsafe-inline&#39;\"/>\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"/><title>What this box records</title>\
         <style>{STYLE}</style></head><body>\n<h1>What this box records</h1>\n<p class=\"dim\">Rates are of packets placed on \
         the link, losses of packets that are not on disk, whatever a tool says of itself.</p>\n"
    );
    if let Some(plan) = plan {
        planned(&mut out, plan);
    }
    outcomes(&mut out, results);
    out.push_str(&loss(results));
    out.push_str(&cpu(results));
    out.push_str(&disk(results));
    out.push_str(&latency(results));
    for named in results {
        result(&mut out, named);
    }
    let _ = write!(
        out,
        "<p class=\"dim\">Made by tapebench {}.</p>\n</body></html>\n",
        env!("CARGO_PKG_VERSION")
    );
    out
}

/// A table; cells are text.
fn table(out: &mut String, class: &str, head: &[&str], rows: &[Vec<String>]) {
    let _ = write!(out, "<div class=\"wide\"><table class=\"{class}\">");
    if !head.is_empty() {
        let cells: String = head.iter().map(|cell| format!("<th>{}</th>", escaped(cell))).collect();
        let _ = write!(out, "<tr>{cells}</tr>");
    }
    for row in rows {
        let cells: String = row.iter().map(|cell| format!("<td>{}</td>", escaped(cell))).collect();
        let _ = writeln!(out, "<tr>{cells}</tr>");
    }
    out.push_str("</table></div>\n");
}

/// The plan as its command says it.
fn planned(out: &mut String, plan: &Plan) {
    let disks = &plan.disks;
    let _ = write!(
        out,
        "<h2>Plan</h2>\n<p><strong>{:.0} CPUs, {:.0} queues, {:.1} GiB of memory, {:.0} disks of {} for {:.1} days</strong></p>\n",
        plan.cores.buy,
        plan.cores.queues.likely,
        plan.memory.all / f64::exp2(30.0),
        disks.count,
        escaped(&capacity(disks.disk)),
        disks.holds_days.likely
    );
    if let Some(first) = plan.limits.first() {
        let short = first.times < 1.0;
        let _ = writeln!(
            out,
            "<p{}>{}: {}, at {:.2} times the planned load.</p>",
            if short { " class=\"bad\"" } else { "" },
            if short { "It does not hold" } else { "What ends first" },
            escaped(&first.what),
            first.times
        );
    }
    let _ = writeln!(out, "<pre>{}</pre>", lines_of(&plan.words()));
    let _ = writeln!(out, "<p class=\"dim\">By <code>{}</code></p>", escaped(&plan.command.join(" ")));
}

/// Text of several lines.
fn lines_of(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", escaped(line))).collect()
}

fn outcomes(out: &mut String, results: &[Named]) {
    let mut rows = Vec::new();
    for named in results {
        for of in &named.document.outcomes {
            let [low, high] = of.spread_pps;
            let mut notes = Vec::new();
            if of.zero_loss_pps.is_empty() {
                notes.push("the search is not over");
            }
            for (is, note) in
                [(of.generator_bound, "the generator makes no more"), (of.short, "short trials")]
            {
                if is {
                    notes.push(note);
                }
            }
            let percent =
                |share: Option<f64>| share.map_or_else(|| "-".to_owned(), |s| format!("{:.1} %", 100.0 * s));
            rows.push(vec![
                format!("{} in {}", of.tool, named.name),
                named.document.setup.traffic.model.clone(),
                format!("{}pps", si(of.median_pps)),
                format!("{}bit/s", si(of.median_bits_per_second)),
                format!("{}pps to {}pps", si(low), si(high)),
                of.zero_loss_pps.len().to_string(),
                percent(of.idle),
                percent(of.kept_at_limit),
                of.common_cpu_ns.map_or_else(|| "-".to_owned(), |ns| format!("{ns:.0}")),
                notes.join(", "),
            ]);
        }
    }
    out.push_str("<h2>The highest rate without loss</h2>\n");
    let head = [
        "tool",
        "traffic",
        "median",
        "",
        "spread",
        "searches",
        "its CPU idle",
        "kept at the generator's limit",
        "ns of CPU a packet, common load",
        "",
    ];
    table(out, "", &head, &rows);
}

fn cut(trial: &Trial) -> u64 {
    cut_packets(trial.ledger.as_ref())
}

/// Tool and file, where there are several.
fn name_of(tool: &str, named: &Named, results: &[Named]) -> String {
    if results.len() > 1 { format!("{tool}, {}", named.name) } else { tool.to_owned() }
}

fn tools(document: &Document) -> BTreeSet<&str> {
    document.trials.iter().map(|trial| trial.tool.as_str()).collect()
}

fn loss(results: &[Named]) -> String {
    let mut all = Vec::new();
    for named in results {
        for tool in tools(&named.document) {
            let mut points: Vec<(f64, f64, String)> = named
                .document
                .trials
                .iter()
                .filter(|trial| trial.tool == tool)
                .map(|trial| {
                    let cut = match cut(trial) {
                        0 => String::new(),
                        cut => format!(", {cut} cut"),
                    };
                    let said = format!(
                        "{tool}: {:.0} packets/s, {} of {} missing{cut}",
                        trial.pps, trial.missing, trial.placed
                    );
                    (trial.pps, 100.0 * ratio(trial.missing, trial.placed), said)
                })
                .collect();
            points.sort_by(|a, b| a.0.total_cmp(&b.0));
            all.push(Series { name: name_of(tool, named, results), points, marks: true });
        }
    }
    let most = |of: fn(&(f64, f64, String)) -> f64| {
        all.iter().flat_map(|one| &one.points).map(of).fold(0.0, f64::max)
    };
    let (x, y) = (Scale::linear(most(|p| p.0)), Scale::linear(most(|p| p.1).max(1.0)));
    let title = "Packets missing on disk, per cent of those placed, over packets placed a second; each mark is a trial";
    lines(title, Axis { scale: x, unit: "pps" }, Axis { scale: y, unit: "%" }, &all)
}

/// Of each tool of each result the fastest trial without loss.
fn fastest(results: &[Named]) -> Vec<(String, &Trial)> {
    let mut all = Vec::new();
    for named in results {
        for tool in tools(&named.document) {
            let whole = named.document.trials.iter().filter(|trial| {
                trial.tool == tool
                    && !trial.lost()
                    && trial.problems.is_empty()
                    && trial.on_disk > 0
                    && cut(trial) == 0
            });
            if let Some(trial) = whole.max_by(|a, b| a.pps.total_cmp(&b.pps)) {
                let name = name_of(tool, named, results);
                all.push((
                    format!("{name}, {}, {}pps", named.document.setup.traffic.model, si(trial.pps)),
                    trial,
                ));
            }
        }
    }
    all
}

fn cpu(results: &[Named]) -> String {
    let all = fastest(results);
    if all.is_empty() {
        return "<p class=\"dim\">No trial stored all packets whole: no costs are drawn.</p>\n".to_owned();
    }
    // The dearest threads have a colour each, the others one together.
    let mut sums: Vec<(String, f64)> = Vec::new();
    for thread in all.iter().flat_map(|(_, trial)| &trial.threads) {
        match sums.iter_mut().find(|(name, _)| *name == thread.name) {
            Some((_, sum)) => *sum += thread.ns_per_packet,
            None => sums.push((thread.name.clone(), thread.ns_per_packet)),
        }
    }
    sums.sort_by(|a, b| b.1.total_cmp(&a.1));
    let mut names: Vec<String> = sums.iter().take(7).map(|(name, _)| name.clone()).collect();
    let rest = names.len();
    if sums.len() > rest {
        names.push("others".to_owned());
    }
    let rows: Vec<Bar> = all
        .iter()
        .map(|(name, trial)| {
            let part = |which: usize| {
                let of = |thread: &&crate::result::ThreadTime| {
                    names.iter().take(rest).position(|name| *name == thread.name).unwrap_or(rest) == which
                };
                (which, trial.threads.iter().filter(of).map(|thread| thread.ns_per_packet).sum::<f64>())
            };
            Bar { name: name.clone(), parts: (0..names.len()).map(part).collect() }
        })
        .collect();
    bars(
        "CPU time of a packet by thread, in the fastest trial that stored all packets whole",
        |ns| format!("{ns:.0} ns"),
        &names,
        &rows,
    )
}

fn disk(results: &[Named]) -> String {
    let all = fastest(results);
    if all.is_empty() {
        return String::new();
    }
    let written = all.iter().map(|(name, trial)| {
        let share = ratio(trial.file_bytes, trial.placed_bytes);
        let mut name = format!("{name}: {share:.3} bytes stored a byte of traffic");
        let segments = trial.files.get("segments").copied().unwrap_or(0);
        let beside =
            trial.files.iter().filter(|(kind, bytes)| *kind != "segments" && **bytes * 10_000 > segments);
        for (kind, bytes) in beside {
            let _ = write!(name, ", {kind} {:.2} % of the segments", 100.0 * ratio(*bytes, segments));
        }
        Bar { name, parts: vec![(0, trial.disk_bytes_per_second)] }
    });
    let names = ["written".to_owned()];
    bars(
        "Bytes written to disk a second, in the same trials",
        |bytes| format!("{}B/s", si(bytes)),
        &names,
        &written.collect::<Vec<_>>(),
    )
}

fn latency(results: &[Named]) -> String {
    let mut all = Vec::new();
    for named in results {
        let Some(latency) = &named.document.latency else { continue };
        let load = si(latency.load_pps);
        let mut add = |what: &str, of: &Distribution| {
            let point = |(share, value): &(f64, f64)| {
                // So many packets for one that took longer; the last one of all stands at their number.
                let one_in = (1.0 / (1.0 - share).max(0.0)).min(ratio(of.count.max(2), 1));
                let ms = *value / 1e3;
                (one_in, ms, format!("{:.3} % within {ms:.1} ms", 100.0 * share))
            };
            let lost =
                if latency.lost > 0 { format!(", {} packets lost", latency.lost) } else { String::new() };
            let name = format!("{what} at {load}pps, {} of {} probes found{lost}", of.count, latency.probes);
            let name = name_of(&name, named, results);
            all.push(Series { name, points: of.points.iter().map(point).collect(), marks: true });
        };
        add("wire to searchable", &latency.searchable);
        if let Some(durable) = &latency.durable {
            add("wire to durable", durable);
        }
    }
    if all.is_empty() {
        return String::new();
    }
    let points = || all.iter().flat_map(|one| &one.points);
    let x = Scale::log(points().map(|point| point.0));
    let y = Scale::log(points().map(|point| point.1));
    let title = "Time until a packet is found, milliseconds; over: of so many packets one took longer (100 = 99th percentile)";
    lines(title, Axis { scale: x, unit: "" }, Axis { scale: y, unit: "" }, &all)
}

/// All of a result.
fn result(out: &mut String, named: &Named) {
    let document = &named.document;
    let (machine, setup) = (&document.machine, &document.setup);
    let _ = writeln!(out, "<h2>{}</h2>", escaped(&named.name));
    let list = |cpus: &[usize]| cpus.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let link = &setup.link;
    let about = &setup.traffic;
    let mut rows = vec![
        ["command", &document.command.join(" ")].map(str::to_owned).to_vec(),
        vec!["begun".to_owned(), document.started.clone()],
        vec![
            "machine".to_owned(),
            format!(
                "{} CPUs ({}), {:.1} GiB of memory, dirty limit {:.2} GiB, load before {:.1}",
                machine.cpus,
                machine.cpu_model,
                ratio(machine.memory_bytes, 1 << 30),
                ratio(machine.dirty_limit_bytes, 1 << 30),
                machine.load_before
            ),
        ],
        vec!["kernel".to_owned(), machine.kernel.clone()],
        vec![
            "link".to_owned(),
            format!(
                "{} (sent on {}), driver {}, {} queues, MTU {}{}",
                link.interface,
                link.peer,
                link.driver,
                link.queues,
                link.mtu,
                if link.made { ", made for it" } else { "" }
            ),
        ],
        vec![
            "traffic".to_owned(),
            format!(
                "{}: {} packets in turn, {:.0} bytes each, {} flows ({} new each time), payload {:?}, seed {}",
                about.model,
                about.packets,
                about.mean_bytes,
                about.flows,
                about.renewed,
                setup.payload,
                setup.seed
            ),
        ],
        vec!["sender".to_owned(), format!("{} on CPU {}", setup.sender, list(&setup.sender_cpus))],
        vec!["tools on CPU".to_owned(), list(&setup.tool_cpus)],
        vec!["modes".to_owned(), modes(document)],
    ];
    let ours = document.trials.iter().filter(|trial| trial.tool == Kind::Tapedeck.name());
    if let Some(most) = ours.filter_map(|trial| trial.resident_max_bytes).max() {
        rows.push(vec!["memory".to_owned(), format!("{:.0} MiB resident at most", ratio(most, 1 << 20))]);
    }
    for tool in &setup.tools {
        rows.push(vec![tool.name.clone(), format!("{}: {}", tool.version, tool.command.join(" "))]);
    }
    table(out, "words", &[], &rows);
    trials(out, document);
}

/// Modes of the queues of our recorder.
fn modes(document: &Document) -> String {
    let queues =
        document.trials.iter().filter_map(|trial| trial.ledger.as_ref()?.get("queues")?.as_array()).flatten();
    let modes: BTreeSet<&str> = queues.filter_map(|queue| queue.get("mode")?.as_str()).collect();
    if modes.is_empty() { "-".to_owned() } else { modes.into_iter().collect::<Vec<_>>().join(", ") }
}

fn trials(out: &mut String, document: &Document) {
    let _ = writeln!(out, "<h3>Trials, in the order in which they ran</h3>");
    let head = [
        "tool",
        "search",
        "asked, pps",
        "placed, pps",
        "Gbit/s",
        "s",
        "placed",
        "on disk",
        "missing",
        "cut",
        "tool says",
        "ns of CPU a packet",
        "disk, MB/s",
        "99 % late, us",
        "",
    ];
    let row = |trial: &Trial| {
        let mut notes = Vec::new();
        if trial.short {
            notes.push("short".to_owned());
        }
        if trial.purpose != "search" {
            notes.push(trial.purpose.clone());
        }
        for (count, what) in [
            (trial.not_placed, "not placed"),
            (trial.twice, "twice"),
            (trial.out_of_order, "out of order"),
            (trial.strangers, "strangers"),
        ] {
            if count > 0 {
                notes.push(format!("{count} {what}"));
            }
        }
        notes.extend(trial.own.causes.iter().map(|(cause, count)| format!("{cause} {count}")));
        notes.extend(trial.problems.iter().map(|problem| format!("PROBLEM: {problem}")));
        let dash = || "-".to_owned();
        vec![
            trial.tool.clone(),
            trial.round.to_string(),
            trial.wanted_pps.map_or_else(|| "unpaced".to_owned(), |pps| format!("{pps:.0}")),
            format!("{:.0}", trial.pps),
            format!("{:.2}", trial.bits_per_second / 1e9),
            format!("{:.1}", trial.seconds),
            trial.placed.to_string(),
            trial.on_disk.to_string(),
            trial.missing.to_string(),
            cut(trial).to_string(),
            trial.own.lost.map_or_else(dash, |lost| lost.to_string()),
            format!("{:.0}", trial.cpu_ns_per_packet),
            format!("{:.0}", trial.disk_bytes_per_second / 1e6),
            trial.pacing.map_or_else(dash, |pacing| format!("{:.0}", pacing.p99_us)),
            notes.join("; "),
        ]
    };
    table(out, "trials", &head, &document.trials.iter().map(row).collect::<Vec<_>>());
}
