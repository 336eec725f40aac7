//! A table as wide as the terminal: columns are dropped, the least telling first, until the rest fits.
//!
//! Addresses are never cut: they are what is looked for. Where even they do not fit beside each other, the
//! responder stands on a line of its own.

use super::end;
use crate::out::text::proto_name;
use crate::sessions::row::{Session, sum};
use std::io::{self, Write};
use tapedeck_packet::escape::Foreign;

/// A column: its heading, how soon it is dropped (0 = never), whether numbers are set right.
struct Column {
    name: &'static str,
    rank: u8,
    right: bool,
    cell: fn(&Session, &Style) -> String,
}

/// How cells are written.
struct Style {
    for_terminal: bool,
    /// Times with milliseconds.
    precise: bool,
}

const COLUMNS: [Column; 12] = [
    Column { name: "TIME", rank: 0, right: false, cell: |s, style| time(s, style) },
    Column { name: "DURATION", rank: 5, right: true, cell: |s, _| duration(s.duration_ns) },
    Column { name: "PROTO", rank: 0, right: false, cell: |s, _| proto(s) },
    Column { name: "SOURCE", rank: 0, right: false, cell: |s, _| end(s.src_ip, s.src_port, has_ports(s)) },
    Column {
        name: "DESTINATION",
        rank: 0,
        right: false,
        cell: |s, _| end(s.dst_ip, s.dst_port, has_ports(s)),
    },
    Column { name: "SERVICE", rank: 4, right: false, cell: |s, style| foreign(s.service.as_deref(), style) },
    Column { name: "STATE", rank: 2, right: false, cell: |s, _| state(s) },
    Column { name: "PACKETS", rank: 6, right: true, cell: |s, _| sum(s.orig_pkts, s.resp_pkts).to_string() },
    Column { name: "BYTES", rank: 3, right: true, cell: |s, _| s.bytes().to_string() },
    Column { name: "NAME", rank: 7, right: false, cell: |s, style| foreign(name(s), style) },
    Column { name: "HISTORY", rank: 9, right: false, cell: |s, style| foreign(Some(&s.history), style) },
    Column { name: "UID", rank: 8, right: false, cell: |s, style| foreign(Some(&s.uid), style) },
];

/// Columns of names are cut to this many characters; the whole name is in `--format json`.
const NAME_MAX: usize = 40;
/// From this width on times have milliseconds.
const PRECISE_FROM: usize = 110;

/// Writes the table; `width` is that of the terminal, `None` where there is none: then nothing is dropped.
///
/// # Errors
/// `out` cannot be written.
pub fn table(
    sessions: &[Session],
    out: &mut dyn Write,
    width: Option<usize>,
    for_terminal: bool,
) -> io::Result<()> {
    if sessions.is_empty() {
        return out.flush();
    }
    let style = Style { for_terminal, precise: width.is_none_or(|width| width >= PRECISE_FROM) };
    let cells: Vec<Vec<String>> =
        sessions.iter().map(|s| COLUMNS.iter().map(|column| (column.cell)(s, &style)).collect()).collect();
    let widths: Vec<usize> = COLUMNS
        .iter()
        .enumerate()
        .map(|(at, column)| {
            let widest = cells.iter().filter_map(|row| row.get(at)).map(|cell| length(cell)).max();
            widest.unwrap_or(0).max(column.name.len())
        })
        .collect();
    let shown = fit(&widths, width);
    let fits = width.is_none_or(|width| total(&widths, &shown) <= width);
    let heading: Vec<String> = COLUMNS.iter().map(|column| column.name.to_owned()).collect();
    for row in std::iter::once(&heading).chain(&cells) {
        line(row, &widths, &shown, fits, out)?;
    }
    out.flush()
}

/// Numbers of the columns that fit, in order.
fn fit(widths: &[usize], width: Option<usize>) -> Vec<usize> {
    let mut shown: Vec<usize> = (0..widths.len()).collect();
    let Some(width) = width else { return shown };
    while total(widths, &shown) > width {
        let rank = |at: &usize| COLUMNS.get(*at).map_or(0, |column| column.rank);
        let Some(least) = shown.iter().copied().filter(|at| rank(at) > 0).max_by_key(rank) else { break };
        shown.retain(|at| *at != least);
    }
    shown
}

fn total(widths: &[usize], shown: &[usize]) -> usize {
    let cells: usize = shown.iter().filter_map(|at| widths.get(*at)).sum();
    cells + 2 * shown.len().saturating_sub(1)
}

fn line(
    row: &[String],
    widths: &[usize],
    shown: &[usize],
    fits: bool,
    out: &mut dyn Write,
) -> io::Result<()> {
    let mut text = String::new();
    for at in shown {
        let (Some(cell), Some(width), Some(column)) = (row.get(*at), widths.get(*at), COLUMNS.get(*at))
        else {
            continue;
        };
        if column.name == "DESTINATION" && !fits {
            text.truncate(text.trim_end().len());
            text.push_str("\n    > ");
        }
        let pad = " ".repeat(width.saturating_sub(length(cell)));
        if column.right {
            text.push_str(&pad);
            text.push_str(cell);
        } else {
            text.push_str(cell);
            text.push_str(&pad);
        }
        text.push_str("  ");
    }
    writeln!(out, "{}", text.trim_end())
}

fn length(cell: &str) -> usize {
    cell.chars().count()
}

fn time(session: &Session, style: &Style) -> String {
    let text = session.ts.to_string().replace('T', " ");
    text.chars().take(if style.precise { 23 } else { 19 }).collect()
}

/// Seconds with milliseconds, minutes or hours from where those read better.
fn duration(nanos: u64) -> String {
    let seconds = nanos / 1_000_000_000;
    match seconds {
        0..60 => format!("{seconds}.{:03}s", nanos / 1_000_000 % 1_000),
        60..3600 => format!("{}m{:02}s", seconds / 60, seconds % 60),
        _ => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
    }
}

fn has_ports(session: &Session) -> bool {
    matches!(session.proto, 6 | 17 | 33 | 132 | 136)
}

fn proto(session: &Session) -> String {
    proto_name(session.proto).map_or_else(|| session.proto.to_string(), str::to_owned)
}

/// The state, with a mark where the session goes on.
fn state(session: &Session) -> String {
    let mark = match session.record_type.as_str() {
        "final" => "",
        "coarse" => " coarse",
        _ => "+",
    };
    format!("{}{mark}", Foreign::new(&session.conn_state, true))
}

/// What the client called the server, as far as it said.
fn name(session: &Session) -> Option<&str> {
    session.sni.as_deref().or(session.http_host.as_deref()).or(session.dns_query.as_deref())
}

fn foreign(text: Option<&str>, style: &Style) -> String {
    // A line is a session: what would break it is escaped on a pipe too.
    let breaks = text.is_some_and(|text| text.contains(['\n', '\r', '\t']));
    let text = Foreign::new(text.unwrap_or_default(), style.for_terminal || breaks).to_string();
    if length(&text) <= NAME_MAX {
        return text;
    }
    text.chars().take(NAME_MAX - 3).chain("...".chars()).collect()
}
