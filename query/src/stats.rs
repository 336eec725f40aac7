//! `taperead stats`: traffic over time, top tables, and what departs from the habits of the network.
//!
//! The way of an answer: [`read`] (files and journals of `stats/` to rows) -> [`summary`] (sums over the range) or
//! the judgement of `tapedeck_session::unusual` with [`odd`] -> [`text`] with [`chart`], [`records`] (JSON lines,
//! CSV), [`html`]. Reads no packets. A number that is an estimate or a bound is shown as one.

use crate::cli::StatsArgs;
use crate::failure::Failure;
use crate::out::Sink;
use crate::range::{Span, TimeRange, union};
use crate::run::{Clock, Talk, lies_inside, print};
use crate::verdict::{Cause, EXIT_MATCHES, EXIT_NONE, EXIT_NOT_WHOLE, Gap, Verdict};
use std::path::{Path, PathBuf};
use tapedeck_packet::escape::Foreign;
use tapedeck_packet::time::NANOS_PER_HOUR;
use tapedeck_packet::{Timestamp, UtcHour};
use tapedeck_session::stats::NANOS_PER_MINUTE;
use tapedeck_session::unusual::{Hours, Unusual, baseline, unusual};

mod chart;
mod html;
mod human;
mod odd;
mod read;
mod records;
mod summary;
mod text;

use read::{Read, Reading};
use summary::Summary;

/// The form of the answer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum StatsFormat {
    /// A chart and tables for people
    #[default]
    Table,
    /// One JSON object a line
    Json,
    /// Comma-separated, with a line of column names
    Csv,
}

/// `taperead stats`, understood.
#[derive(Debug)]
pub struct StatsAsk {
    /// Store folders, each once.
    pub stores: Vec<PathBuf>,
    /// When.
    pub range: TimeRange,
    /// Which interfaces; none = all.
    pub interfaces: Vec<String>,
    /// Only this IP protocol.
    pub protocol: Option<u8>,
    /// Form of the answer.
    pub format: StatsFormat,
    /// Lines of each top table.
    pub top: usize,
    /// What departs from the habits, instead of what was.
    pub unusual: bool,
    /// A page of all of it.
    pub html: Option<PathBuf>,
    /// No characters beyond ASCII.
    pub ascii: bool,
    /// The verdict as JSON on stderr.
    pub verdict_json: bool,
}

impl StatsAsk {
    /// Works out what `args` mean.
    ///
    /// # Errors
    /// The first thing that means nothing.
    pub fn new(args: StatsArgs, now: Timestamp) -> Result<Self, Failure> {
        let (range, stores) = crate::ask::range_and_stores(&args.range, now)?;
        let protocol = args.protocol.as_deref().map(protocol).transpose()?;
        let StatsArgs { interface: interfaces, format, top, unusual, html, ascii, json, .. } = args;
        if protocol.is_some() && (unusual || html.is_some()) {
            return Err(Failure::new("--protocol goes with neither --unusual nor --html")
                .hint("leave it out: both show what stands out of every protocol"));
        }
        Ok(Self {
            stores,
            range,
            interfaces,
            protocol,
            format,
            top,
            unusual,
            html,
            ascii,
            verdict_json: json,
        })
    }
}

fn protocol(text: &str) -> Result<u8, Failure> {
    let number = match text.to_ascii_lowercase().as_str() {
        "icmp" => Some(1),
        "tcp" => Some(6),
        "udp" => Some(17),
        "icmp6" => Some(58),
        "sctp" => Some(132),
        number => number.parse().ok(),
    };
    number.ok_or_else(|| {
        Failure::new(format!("'{text}' is no IP protocol"))
            .hint("tcp, udp, icmp, icmp6, sctp, or a number from 0 to 255")
    })
}

/// Where the answer is looked at.
#[derive(Clone, Copy, Debug)]
struct Page {
    /// Columns.
    width: usize,
    /// No characters beyond ASCII.
    ascii: bool,
    /// Text from packets has to be escaped.
    for_terminal: bool,
}

impl Page {
    fn new(ask: &StatsAsk, for_terminal: bool) -> Self {
        let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
        let terminal =
            terminal_size::terminal_size().filter(|_| for_terminal).map(|(width, _)| usize::from(width.0));
        let width = terminal.or_else(|| variable("COLUMNS")?.parse().ok()).unwrap_or(100);
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(variable).unwrap_or_default();
        let is_utf8 = locale.to_ascii_lowercase().replace('-', "").contains("utf8");
        Self { width: width.clamp(40, 400), ascii: ask.ascii || !is_utf8, for_terminal }
    }
}

/// Runs the command; the exit status.
pub(crate) fn stats(
    ask: &StatsAsk,
    clock: &Clock<'_>,
    mut out: Sink<'_>,
    out_is_terminal: bool,
    talk: &mut Talk<'_>,
) -> Result<u8, Failure> {
    if let Some(path) = &ask.html
        && let Some(store) = ask.stores.iter().find(|store| lies_inside(path, store))
    {
        return Err(Failure::new(format!(
            "'{}' lies inside the store '{}'",
            path.display(),
            store.display()
        ))
        .hint("name a file outside of it"));
    }
    let page = Page::new(ask, out_is_terminal);
    let mut verdict = Verdict::default();
    let judged =
        (ask.unusual || ask.html.is_some()).then(|| judge(ask, clock.now, &mut verdict, talk)).transpose()?;
    let summary =
        (!ask.unusual || ask.html.is_some()).then(|| summarise(ask, &mut verdict, talk)).transpose()?;
    let rows = match (&ask.html, &summary, &judged) {
        (Some(path), Some(summary), Some(judged)) => {
            let text = html::page(ask, summary, judged);
            write_file(path, &text)?;
            talk.line(&format_args!("wrote {}", path.display()));
            u64::from(summary.watched_minutes() > 0)
        }
        (_, Some(summary), _) => {
            print(&mut out, &summarised(ask, summary, page)?)?;
            summary.watched_minutes()
        }
        (_, _, Some(judged)) => {
            print(&mut out, &odd::show(ask, judged, page)?)?;
            u64::try_from(judged.answer.findings.len()).unwrap_or(u64::MAX)
        }
        _ => 0,
    };
    verdict.matched = rows;
    verdict.elapsed_ms = (clock.elapsed_ms)();
    conclude(ask, &verdict, talk);
    Ok(match (verdict.is_complete(), rows) {
        (false, _) => EXIT_NOT_WHOLE,
        (true, 0) => EXIT_NONE,
        (true, _) => EXIT_MATCHES,
    })
}

fn conclude(ask: &StatsAsk, verdict: &Verdict, talk: &mut Talk<'_>) {
    if ask.verdict_json {
        talk.line(&verdict.to_json());
    } else if verdict.matched == 0 && !ask.unusual {
        talk.line(&"no statistics in this range: nobody watched, or the recorder was older than they are");
    }
}

/// A form of the summary.
fn summarised(ask: &StatsAsk, summary: &Summary, page: Page) -> Result<String, Failure> {
    match ask.format {
        StatsFormat::Table => Ok(text::table(ask, summary, page)),
        StatsFormat::Json => records::json(&records::of_summary(ask, summary)),
        StatsFormat::Csv => Ok(records::csv(&records::of_summary(ask, summary), page.for_terminal)),
    }
}

fn write_file(path: &Path, text: &str) -> Result<(), Failure> {
    let failed = |e: &std::io::Error| Failure::because(format!("cannot write '{}'", path.display()), e);
    let (file, mut writer) = crate::out::target::HiddenFile::create(path).map_err(|e| failed(&e))?;
    std::io::Write::write_all(&mut writer, text.as_bytes()).map_err(|e| failed(&e))?;
    std::io::Write::flush(&mut writer).map_err(|e| failed(&e))?;
    drop(writer);
    file.publish().map_err(|e| failed(&e))
}

/// Reads the rows of the asked range; what cannot be read is a gap.
fn reading(
    ask: &StatsAsk,
    range: TimeRange,
    verdict: &mut Verdict,
    talk: &mut Talk<'_>,
    rows: Read<'_>,
) -> Result<(), Failure> {
    let Reading { troubles, bytes } = read::read(&ask.stores, range, &ask.interfaces, rows)?;
    verdict.scanned_bytes += bytes;
    for trouble in troubles {
        talk.warn(&trouble.path, &trouble.why);
        if let Some(span) = trouble.span {
            verdict.gaps.push(Gap { span, cause: Cause::Unreadable, packets: None });
        }
    }
    Ok(())
}

fn summarise(ask: &StatsAsk, verdict: &mut Verdict, talk: &mut Talk<'_>) -> Result<Summary, Failure> {
    let mut summary = Summary::new(ask.protocol);
    reading(ask, ask.range, verdict, talk, &mut |stored| summary.add(&stored))?;
    let watched =
        summary.minutes().map(|start| Span { from: start, to: start.saturating_add(NANOS_PER_MINUTE) });
    verdict.asked = union(watched.collect());
    verdict.range = summary.span().map(|span| span.within(&ask.range).unwrap_or(span));
    Ok(summary)
}

/// The hours that were asked for, and what departs in them.
struct Judged {
    span: Span,
    answer: Unusual,
}

fn judge(
    ask: &StatsAsk,
    now: Timestamp,
    verdict: &mut Verdict,
    talk: &mut Talk<'_>,
) -> Result<Judged, Failure> {
    let history = baseline::DAYS * 24 * NANOS_PER_HOUR;
    let range = TimeRange { from: ask.range.from.saturating_sub(history), to: ask.range.to };
    let mut hours = Hours::default();
    reading(ask, range, verdict, talk, &mut |stored| {
        let row = read::counted(&stored);
        hours.add(&format!("{} on {}", stored.interface, stored.sensor), &row);
    })?;
    // The hour that goes on now cannot be judged yet.
    let end = ask.range.to.map_or(now, |to| to.min(now)).hour();
    let all = hours.all();
    let first = all.first().copied().unwrap_or(end).max(ask.range.from.hour());
    let last = all.last().map_or(end, |hour| UtcHour::from_hours(hour.hours() + 1)).min(end).max(first);
    let answer = unusual(&hours, first, last);
    let span = Span { from: first.start(), to: last.start() };
    let unjudged = answer.unjudged.iter().map(|(_, hour, _)| Span { from: hour.start(), to: hour.end() });
    let gap = |span| Gap { span, cause: Cause::ShortHistory, packets: None };
    verdict.gaps.extend(union(unjudged.collect()).into_iter().map(gap));
    verdict.range = Some(span);
    verdict.asked.push(span);
    Ok(Judged { span, answer })
}

/// Text from packets or files, cut to `width` characters.
fn cut(text: &str, width: usize, page: Page) -> String {
    let text = Foreign::new(text, page.for_terminal).to_string();
    if text.chars().count() <= width {
        return text;
    }
    let kept: String = text.chars().take(width.saturating_sub(1)).collect();
    format!("{kept}{}", if page.ascii { '~' } else { '\u{2026}' })
}
