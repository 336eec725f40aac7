//! A plan in words, for a terminal or a file. Text from results is hostile: controls are escaped.

use super::doubts::causes_of;
use super::fit::{How, Range};
use super::sizing::{Limit, SESSIONS_DEFAULT};
use super::units::{capacity, si};
use super::{Here, Plan};
use std::fmt::Write as _;
use tapedeck_packet::escape::Foreign;

/// The whole plan.
pub(super) fn text(plan: &Plan) -> String {
    let mut out = String::new();
    head(&mut out, plan);
    basis(&mut out, plan);
    cores(&mut out, plan);
    disks(&mut out, plan);
    memory(&mut out, plan);
    out.push_str("\nWhat ends first, on such a machine (times the planned load):\n");
    limits(&mut out, &plan.limits);
    here(&mut out, &plan.here);
    out.push_str("\nWhat these figures do not know:\n");
    for doubt in &plan.doubts {
        let _ = writeln!(out, "  - {}", plain(doubt));
    }
    out
}

/// Of a result, which anyone may have written, for a terminal.
fn plain(text: &str) -> String {
    Foreign::new(text, true).to_string()
}

/// Two digits behind the point while they say something.
fn number(value: f64) -> String {
    let digits = if value >= 100.0 {
        0
    } else if value >= 10.0 {
        1
    } else {
        2
    };
    format!("{value:.digits$}")
}

/// `12.3 (10.1 to 15.0)`, or only the figure where there is no range.
fn ranged(range: Range, say: impl Fn(f64) -> String) -> String {
    let (low, likely, high) = (say(range.low), say(range.likely), say(range.high));
    if low == likely && likely == high { likely } else { format!("{likely} ({low} to {high})") }
}

fn count(value: f64) -> String {
    format!("{value:.0}")
}

fn head(out: &mut String, plan: &Plan) {
    let load = plan.load;
    let _ = writeln!(
        out,
        "Link of {}bit/s, {:.0} % used, {:.0} % in its busiest seconds; traffic {}, {:.0} bytes a packet",
        si(load.link),
        100.0 * load.utilisation,
        100.0 * load.peak,
        plain(&plan.traffic),
        load.bytes
    );
    for (name, pps) in [("average", load.mean_pps()), ("peak", load.peak_pps())] {
        let bytes = pps * load.bytes;
        let _ = writeln!(out, "  {name:<8} {:>8}pps  {:>8}B/s", si(pps), si(bytes));
    }
}

fn basis(out: &mut String, plan: &Plan) {
    let machine = &plan.here.machine;
    let _ = writeln!(
        out,
        "\nMeasured on {} CPUs ({}), Linux {}:",
        machine.cpus,
        plain(&machine.cpu_model),
        plain(&machine.kernel)
    );
    for of in &plan.basis {
        let _ = writeln!(
            out,
            "  {}, {}: traffic {}, {:.0} bytes; nothing lost or cut up to {}pps, {} ns of CPU a packet, {:.3} \
             bytes stored a byte",
            plain(&of.name),
            plain(&of.started),
            plain(&of.model),
            of.bytes,
            si(of.rate_pps),
            ranged(of.ns, count),
            of.stored_share
        );
    }
    let how = match plan.how {
        How::Measured => "costs as measured at this size",
        How::Between => "costs by a line through the sizes measured (so much a packet, so much a byte)",
        How::Beyond => "costs by a line through the sizes measured, drawn out beyond them",
        How::OneSize => "costs from one other size: between all of it a packet and all of it a byte",
    };
    let _ = writeln!(out, "  {how}");
}

fn cores(out: &mut String, plan: &Plan) {
    let _ = writeln!(
        out,
        "\nCPUs at the peak, each used to {:.0} %:\n  {:<14} {:<14} {:<26} CPUs",
        100.0 * plan.cpu_share,
        "thread",
        "one in each",
        "ns a packet"
    );
    for kind in &plan.kinds {
        let each = if kind.per_queue { "queue" } else { "recorder" };
        let (ns, cores) = (ranged(kind.ns, number), ranged(kind.cores, number));
        let _ = writeln!(out, "  {:<14} {each:<14} {ns:<26} {cores}", plain(&kind.name));
    }
    let cores = plan.cores;
    let _ = writeln!(
        out,
        "  in all {}: {} CPU(s), {} queue(s), {} recorder(s)",
        ranged(cores.need, number),
        count(cores.buy),
        ranged(cores.queues, count),
        count(cores.recorders)
    );
    let one = plan.kinds.iter().filter(|kind| kind.per_queue).map(|kind| kind.ns.likely).fold(0.0, f64::max);
    if one > 0.0 {
        let pps = plan.cpu_share * 1e9 / one;
        let _ = writeln!(
            out,
            "  a queue, and so a single flow, may carry {}pps, {}bit/s",
            si(pps),
            si(8.0 * pps * plan.load.bytes)
        );
    }
}

fn disks(out: &mut String, plan: &Plan) {
    let disks = &plan.disks;
    let (low, high) = (capacity(disks.per_day.low), capacity(disks.per_day.high));
    let days = if low == high { String::new() } else { format!(", from {low} to {high}") };
    let _ = writeln!(
        out,
        "\nDisks of {}, {:.0} % of each kept free:\n  stored {} bytes a packet, {} a day{}",
        capacity(disks.disk),
        100.0 * disks.reserve,
        ranged(disks.stored, number),
        capacity(disks.per_day.likely),
        days
    );
    let _ = writeln!(out, "  by space, for {} days: {} disks", disks.days, ranged(disks.by_capacity, count));
    let write = ranged(disks.write, |bytes| format!("{}B/s", si(bytes)));
    match (disks.by_write, disks.disk_write) {
        (Some(by), Some(rate)) => {
            let _ = writeln!(
                out,
                "  by writing, {write} at the peak, {}B/s each used to {:.0} %: {} disks",
                si(rate),
                100.0 * plan.disk_share,
                ranged(by, count)
            );
        }
        _ => {
            let each = disks.write.likely / disks.count.max(1.0);
            let _ = writeln!(out, "  by writing: {write} at the peak, {}B/s on each disk", si(each));
        }
    }
    let _ = writeln!(
        out,
        "  {} disks hold {} days",
        count(disks.count),
        ranged(disks.holds_days, |days| format!("{days:.1}"))
    );
}

fn memory(out: &mut String, plan: &Plan) {
    let (memory, paper) = (plan.memory, plan.paper);
    let gib = |bytes: f64| match bytes / f64::exp2(30.0) {
        gib if gib >= 1.0 => format!("{gib:.1} GiB"),
        gib => format!("{:.0} MiB", gib * 1024.0),
    };
    let _ = writeln!(
        out,
        "\nMemory {}: packets {} ({} huge pages of 2 MiB), queues {}, sessions {} ({} in each queue), rows while a disk \
         refuses {}",
        gib(memory.all),
        gib(memory.packets),
        count((memory.packets / f64::exp2(21.0)).ceil()),
        gib(memory.queues),
        gib(memory.sessions),
        count(memory.max_sessions),
        gib(memory.rows)
    );
    if memory.max_sessions > SESSIONS_DEFAULT {
        let _ = writeln!(out, "  tapedeck record --max-sessions {:.0}", memory.max_sessions);
    }
    let _ = writeln!(
        out,
        "On paper: {}B/s of memory, {} channel(s) of DDR5-4800 at half their rate; PCIe 4.0: {} lane(s) for cards, {} for \
         disks",
        si(paper.memory),
        count(paper.channels),
        count(paper.card_lanes),
        count(paper.disk_lanes)
    );
}

fn limits(out: &mut String, limits: &[Limit]) {
    for limit in limits {
        let paper = if limit.paper { " (on paper)" } else { "" };
        let short = if limit.times < 1.0 { "  DOES NOT HOLD" } else { "" };
        let times = if limit.times < 1e3 { number(limit.times) } else { "> 1000".to_owned() };
        let _ = writeln!(out, "  {times:>6}  {}{paper}; then: {}{short}", plain(&limit.what), limit.remedy);
    }
}

fn here(out: &mut String, here: &Here) {
    let holds = if here.holds { "holds" } else { "does not hold" };
    let _ = writeln!(out, "\nThe machine of the results {holds} this peak; what ends first there:");
    limits(out, here.limits.get(..3).unwrap_or(&here.limits));
    if let Some((pps, causes)) = &here.loss {
        let _ = writeln!(
            out,
            "  the slowest trial that lost or cut anything: {}pps, {}",
            si(*pps),
            plain(&causes_of(causes))
        );
    }
}
