//! The answer for people: a chart and tables that fit the width.

use super::chart::{chart, step};
use super::human::{ethertype, float, minute, protocol, si};
use super::summary::{Line, Sum, Summary, per_second};
use super::{Page, StatsAsk, cut};
use std::fmt::Write as _;
use tapedeck_packet::Timestamp;
use tapedeck_session::stats::{Dimension, NANOS_PER_MINUTE};

/// A table of a dimension: title, and what its number is called.
pub(super) const TABLES: [(Dimension, &str, &str); 10] = [
    (Dimension::Protocol, "IP protocols", "bytes"),
    (Dimension::Service, "services", "bytes"),
    (Dimension::ServerPort, "server ports", "bytes"),
    (Dimension::TopSource, "sources", "bytes sent"),
    (Dimension::TopDestination, "destinations", "bytes received"),
    (Dimension::TopPair, "pairs", "bytes both ways"),
    (Dimension::TopOpener, "hosts that open sessions", "sessions"),
    (Dimension::TopFailing, "hosts whose handshakes fail", "failed handshakes"),
    (Dimension::EtherType, "not IP", "packets"),
    (Dimension::Size, "packet sizes", "packets"),
];

/// The whole answer.
pub(super) fn table(ask: &StatsAsk, summary: &Summary, page: Page) -> String {
    let Some(span) = summary.span() else { return String::new() };
    let mut text = String::new();
    let minutes = (span.to.nanos() - span.from.nanos()) / NANOS_PER_MINUTE;
    let names: Vec<String> =
        summary.interfaces.iter().map(|(name, sensor)| format!("{name} on {sensor}")).collect();
    let of =
        ask.protocol.map(|number| format!(", {} only", protocol(&number.to_string()))).unwrap_or_default();
    let _ = writeln!(text, "{}{of}", cut(&names.join(", "), page.width.saturating_sub(of.len()), page));
    let watched = summary.watched_minutes();
    let _ = write!(text, "{} to {} UTC", minute(span.from), minute(span.to));
    let _ = match minutes.saturating_sub(watched) {
        0 => writeln!(text, ", all {minutes} minutes watched"),
        missing => {
            writeln!(text, ", {watched} of {minutes} minutes watched: {missing} are unknown (? in the chart)")
        }
    };
    let step = step(minutes, page);
    let bins = summary.bins(step);
    let title = format!("\nbytes per second, {} a column", length(step));
    let bars: Vec<(Timestamp, Option<f64>)> = bins
        .iter()
        .map(|(span, bin)| (span.from, bin.map(|(sum, watched)| per_second(sum.bytes, watched))))
        .collect();
    text.push_str(&chart(&title, &bars, page));
    text.push_str(&totals(summary, ask.protocol.is_some()));
    for (dimension, title, unit) in TABLES {
        let (lines, all) = summary.lines(dimension, ask.top);
        if !lines.is_empty() {
            text.push_str(&top(dimension, title, unit, &lines, all, summary, page));
        }
    }
    text
}

/// `15 min`, `2 h`.
pub(super) fn length(minutes: u64) -> String {
    match minutes {
        m if m.is_multiple_of(1_440) => format!("{} d", m / 1_440),
        m if m.is_multiple_of(60) => format!("{} h", m / 60),
        m => format!("{m} min"),
    }
}

fn totals(summary: &Summary, of_protocol: bool) -> String {
    let Sum {
        packets,
        bytes,
        sessions,
        failed,
        resets,
        broadcast,
        multicast,
        fragments,
        non_ip,
        sessionless,
        ..
    } = summary.total;
    let mut text = format!(
        "\n{} packets, {}B, {} new sessions",
        si(float(packets)),
        si(float(bytes)),
        si(float(sessions))
    );
    if !of_protocol {
        let share = |part: u64| 100.0 * float(part) / float(packets.max(1));
        let (sources, destinations) = summary.hosts();
        let _ = write!(text, "\n{} failed handshakes, {} TCP resets", si(float(failed)), si(float(resets)));
        let _ = write!(
            text,
            "\nabout {} sources, {} destinations (standard error 1.6 %)",
            si(sources.round()),
            si(destinations.round())
        );
        let _ = write!(
            text,
            "\nbroadcast {:.2} %, multicast {:.2} %, fragments {:.2} %, not IP {:.2} % of packets",
            share(broadcast),
            share(multicast),
            share(fragments),
            share(non_ip)
        );
        if sessionless > 0 {
            let _ = write!(text, "\n{} packets found no room for their session", si(float(sessionless)));
        }
    }
    text.push('\n');
    text
}

/// What a key is called.
pub(super) fn name(dimension: Dimension, key: &str) -> String {
    match dimension {
        Dimension::Protocol => protocol(key),
        Dimension::EtherType => ethertype(key),
        Dimension::TopPair => key.replace(' ', " - "),
        Dimension::Size => format!("{key} bytes"),
        _ => key.to_owned(),
    }
}

/// The share that a line has of all, in percent; of a top list at least.
fn share(dimension: Dimension, line: &Line, total: &Sum) -> f64 {
    let all = match dimension {
        Dimension::TopOpener => total.sessions,
        Dimension::TopFailing => total.failed,
        Dimension::EtherType => total.non_ip,
        Dimension::Size => total.packets,
        _ => total.bytes,
    };
    100.0 * float(line.at_least) / float(all.max(1))
}

fn top(
    dimension: Dimension,
    title: &str,
    unit: &str,
    lines: &[Line],
    all: usize,
    summary: &Summary,
    page: Page,
) -> String {
    const NUMBERS: usize = 40;
    let name_width = page.width.saturating_sub(NUMBERS).clamp(15, 60);
    let is_list = lines.iter().any(|line| line.at_least != line.at_most);
    let mut text = format!("\n{title}, by {unit}");
    if all > lines.len() {
        let _ = write!(text, ": {} of {all}{}", lines.len(), if is_list { " listed" } else { "" });
    }
    text.push('\n');
    for line in lines {
        let name = cut(&name(dimension, &line.key), name_width, page);
        let pad = name_width.saturating_sub(name.chars().count());
        let _ = write!(
            text,
            "  {name}{:pad$}  {:>7}  {:>5.1} %",
            "",
            si(float(line.at_least)),
            share(dimension, line, &summary.total)
        );
        if line.at_most > line.at_least {
            let _ = write!(text, "  at most {:>7}", si(float(line.at_most)));
        } else if matches!(dimension, Dimension::Service | Dimension::ServerPort | Dimension::Protocol) {
            let _ = write!(text, "  {:>7} new", si(float(line.sum.sessions)));
        }
        text.push('\n');
    }
    text
}
