//! The answer for programs: flat records, the same as JSON lines and as CSV.

use super::StatsAsk;
use super::chart::step;
use super::summary::{Sum, Summary};
use super::text::TABLES;
use super::{Page, human};
use crate::failure::Failure;
use crate::range::Span;
use serde::Serialize;
use tapedeck_packet::escape::Foreign;
use tapedeck_session::stats::{Dimension, NANOS_PER_MINUTE};

/// Pieces of the range, at most.
const PIECES: usize = 400;

/// A line of the answer: a piece of time (`dimension` is `total`), or a key over the whole range.
#[derive(Debug, Serialize)]
pub(super) struct Record {
    from: String,
    to: String,
    dimension: &'static str,
    key: Option<String>,
    /// Null where nobody watched.
    packets: Option<u64>,
    bytes: Option<u64>,
    sessions_new: Option<u64>,
    failed_handshakes: Option<u64>,
    tcp_resets: Option<u64>,
    /// Bounds of the number that orders a top table; null where it is exact.
    at_least: Option<u64>,
    at_most: Option<u64>,
    /// Of a piece of time: minutes that were watched.
    watched_minutes: Option<u64>,
}

pub(super) fn of_summary(ask: &StatsAsk, summary: &Summary) -> Vec<Record> {
    let Some(span) = summary.span() else { return Vec::new() };
    let minutes = (span.to.nanos() - span.from.nanos()) / NANOS_PER_MINUTE;
    // Not by the terminal: the same question has the same answer everywhere.
    let page = Page { width: PIECES, ascii: true, for_terminal: false };
    let of_protocol = ask.protocol.is_some();
    let mut records: Vec<Record> = Vec::new();
    for (piece, bin) in summary.bins(step(minutes, page)) {
        let watched = bin.map_or(0, |(_, watched)| watched);
        let sum = bin.map(|(sum, _)| sum);
        records.push(Record {
            watched_minutes: Some(watched),
            ..record(piece, Dimension::Total, None, sum.as_ref(), of_protocol)
        });
    }
    for (dimension, _, _) in TABLES {
        for line in summary.lines(dimension, ask.top).0 {
            let mut record = record(span, dimension, Some(line.key), Some(&line.sum), true);
            let is_opener = dimension == Dimension::TopOpener;
            let is_failing = dimension == Dimension::TopFailing;
            if is_opener || is_failing {
                (record.packets, record.bytes) = (None, None);
            }
            record.sessions_new = record.sessions_new.filter(|_| {
                is_opener
                    || matches!(dimension, Dimension::Protocol | Dimension::Service | Dimension::ServerPort)
            });
            record.failed_handshakes = is_failing.then_some(line.sum.failed);
            if is_opener
                || is_failing
                || matches!(dimension, Dimension::TopSource | Dimension::TopDestination | Dimension::TopPair)
            {
                (record.at_least, record.at_most) = (Some(line.at_least), Some(line.at_most));
            }
            records.push(record);
        }
    }
    records
}

fn record(span: Span, dimension: Dimension, key: Option<String>, sum: Option<&Sum>, of_part: bool) -> Record {
    Record {
        from: span.from.to_string(),
        to: span.to.to_string(),
        dimension: dimension.as_str(),
        key,
        packets: sum.map(|sum| sum.packets),
        bytes: sum.map(|sum| sum.bytes),
        sessions_new: sum.map(|sum| sum.sessions),
        failed_handshakes: sum.filter(|_| !of_part).map(|sum| sum.failed),
        tcp_resets: sum.filter(|_| !of_part).map(|sum| sum.resets),
        at_least: None,
        at_most: None,
        watched_minutes: None,
    }
}

/// One object a line.
pub(super) fn json<T: Serialize>(records: &[T]) -> Result<String, Failure> {
    let mut text = String::new();
    for record in records {
        let line = serde_json::to_string(record).map_err(|e| Failure::because("cannot write JSON", &e))?;
        text.push_str(&line);
        text.push('\n');
    }
    Ok(text)
}

pub(super) fn csv(records: &[Record], for_terminal: bool) -> String {
    let number = |n: &Option<u64>| n.map(|n| n.to_string()).unwrap_or_default();
    let mut rows = vec![
        [
            "from",
            "to",
            "dimension",
            "key",
            "packets",
            "bytes",
            "sessions_new",
            "failed_handshakes",
            "tcp_resets",
            "at_least",
            "at_most",
            "watched_minutes",
        ]
        .map(str::to_owned)
        .to_vec(),
    ];
    for r in records {
        let mut row =
            vec![r.from.clone(), r.to.clone(), r.dimension.to_owned(), r.key.clone().unwrap_or_default()];
        let numbers = [
            &r.packets,
            &r.bytes,
            &r.sessions_new,
            &r.failed_handshakes,
            &r.tcp_resets,
            &r.at_least,
            &r.at_most,
        ];
        row.extend(numbers.map(number));
        row.push(number(&r.watched_minutes));
        rows.push(row);
    }
    csv_lines(&rows, for_terminal)
}

/// RFC 4180, with plain line ends.
pub(super) fn csv_lines(rows: &[Vec<String>], for_terminal: bool) -> String {
    let cell = |text: &String| {
        let text = Foreign::new(text, for_terminal).to_string();
        if text.contains([',', '"', '\n', '\r']) {
            format!("\"{}\"", text.replace('"', "\"\""))
        } else {
            text
        }
    };
    let line = |row: &Vec<String>| row.iter().map(cell).collect::<Vec<_>>().join(",") + "\n";
    rows.iter().map(line).collect()
}

/// A number of a finding: whole, if it is.
pub(super) fn rounded(value: f64) -> f64 {
    if value >= 100.0 { value.round() } else { (value * 100.0).round() / 100.0 }
}

/// Minutes and the like are shown as they are, counts with an SI prefix.
pub(super) fn amount(value: f64, unit: &str) -> String {
    match unit {
        "bytes" => format!("{}B", human::si(value)),
        "minutes" => format!("{value:.0} min"),
        _ => human::si(value),
    }
}
