//! What departs, as a table, JSON lines or CSV: each with the query that shows its sessions.

use super::human::minute;
use super::records::{amount, csv_lines, json, rounded};
use super::{Judged, Page, StatsAsk, StatsFormat, cut};
use crate::failure::Failure;
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use tapedeck_session::unusual::judge::Reason;
use tapedeck_session::unusual::{Family, Finding, Habits, Kind, Subject};

pub(super) fn show(ask: &StatsAsk, judged: &Judged, page: Page) -> Result<String, Failure> {
    match ask.format {
        StatsFormat::Table => Ok(table(ask, judged, page)),
        StatsFormat::Json => json(&records(ask, judged)),
        StatsFormat::Csv => Ok(csv(&records(ask, judged), page)),
    }
}

fn table(ask: &StatsAsk, judged: &Judged, page: Page) -> String {
    let head = head(judged);
    let lines = head.lines().flat_map(|line| wrap(line, page.width));
    let mut text: String = lines.map(|line| line + "\n").collect();
    for (rank, finding) in (1..).zip(&judged.answer.findings) {
        let _ = write!(text, "\n{rank}. {}", cut(&sentence(finding), page.width.saturating_sub(4), page));
        let when = format!(
            "{} to {} UTC, {}",
            minute(finding.from.start()),
            minute(finding.to.start()),
            finding.interface
        );
        let _ = write!(text, "\n   {}", cut(&when, page.width.saturating_sub(3), page));
        for line in wrap(&expected(finding), page.width.saturating_sub(3)) {
            let _ = write!(text, "\n   {}", cut(&line, page.width, page));
        }
        if !finding.also.is_empty() {
            let also: Vec<String> = finding.also.iter().map(|a| subject(&a.subject)).collect();
            for line in
                wrap(&format!("also more than usual: {}", also.join("; ")), page.width.saturating_sub(3))
            {
                let _ = write!(text, "\n   {}", cut(&line, page.width, page));
            }
        }
        // Never cut: it is there to be copied.
        let _ = writeln!(
            text,
            "\n   {}",
            tapedeck_packet::escape::Foreign::new(&query(ask, finding), page.for_terminal)
        );
    }
    text
}

/// What was judged, and what was not.
pub(super) fn head(judged: &Judged) -> String {
    let (found, hours) = (judged.answer.findings.len(), judged.answer.judged_hours);
    let mut text = match (found, hours) {
        (_, 0) => "nothing could be judged".to_owned(),
        (0, hours) => format!("nothing departs from the habits, in {hours} hours judged"),
        (1, hours) => format!("1 departure from the habits, in {hours} hours judged"),
        (n, hours) => format!("{n} departures from the habits, in {hours} hours judged, most unusual first"),
    };
    let _ = write!(text, ", {} to {} UTC", minute(judged.span.from), minute(judged.span.to));
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for (_, _, reason) in &judged.answer.unjudged {
        let why = match reason {
            Reason::HardlyWatched => "fewer than 30 of their minutes were watched",
            Reason::ShortHistory { .. } => "their history is too short",
        };
        *reasons.entry(why).or_default() += 1;
    }
    for (why, hours) in reasons {
        let _ = write!(text, "\n{hours} hours not judged: {why}");
    }
    if judged.answer.unjudged.iter().any(|(_, _, reason)| matches!(reason, Reason::ShortHistory { .. })) {
        let _ = write!(
            text,
            "\n(an hour is judged when the same hour was watched on {} earlier days at least, one of them {} days, or \
             weeks, before)",
            Habits::MIN_DAYS,
            Habits::MIN_REACH
        );
    }
    text
}

fn subject(subject: &Subject) -> String {
    let key = match subject.kind {
        Kind::ProtocolBytes | Kind::ProtocolSessions => super::human::protocol(&subject.key),
        Kind::EtherType => super::human::ethertype(&subject.key),
        Kind::PairBytes => subject.key.replacen(' ', " and ", 1),
        Kind::Recurring => subject.key.replacen(' ', " to ", 1),
        _ => subject.key.clone(),
    };
    if key.is_empty() { subject.kind.as_str().to_owned() } else { format!("{} {key}", subject.kind.as_str()) }
}

/// What, in short.
pub(super) fn sentence(finding: &Finding) -> String {
    let what = subject(&finding.subject);
    match (finding.subject.kind, finding.regularity) {
        (Kind::Recurring, Some(r)) => format!("{what}: every {} s", r.period_s),
        (kind, _) => format!("{what}: {}", amount(finding.observed, kind.unit())),
    }
}

/// What was to be expected instead.
pub(super) fn expected(finding: &Finding) -> String {
    let kind = finding.subject.kind;
    let unit = kind.unit();
    let peak = minute(finding.peak.start());
    match (kind.family(), finding.regularity) {
        (Family::Recurring, Some(r)) => format!(
            "in the hour from {peak} {} of {} intervals are within a quarter of {} s; the pair was not seen to do so on \
             earlier days",
            r.regular, r.intervals, r.period_s
        ),
        (Family::Quiet, _) if kind == Kind::QuietMinutes => format!(
            "minutes with less than a tenth of the usual packets, in the hour from {peak}; usual at this hour: {}",
            amount(finding.usual, unit)
        ),
        (Family::Quiet, _) => format!(
            "in the hour from {peak}; usual at this hour: {}, at least {} was to be expected",
            amount(finding.usual, unit),
            amount(finding.expected, unit)
        ),
        _ => format!(
            "in the hour from {peak}{}; usual at this hour: {}, at most {} was to be expected",
            if kind.is_sketched() { " (a lower bound)" } else { "" },
            amount(finding.usual, unit),
            amount(finding.expected, unit)
        ),
    }
}

/// The command that shows what is behind it.
pub(super) fn query(ask: &StatsAsk, finding: &Finding) -> String {
    let stores: Vec<String> = ask.stores.iter().map(|store| format!("--store {}", quoted(store))).collect();
    let short = |text: String| text.replace(".000000000Z", "Z");
    let (from, to) = (short(finding.from.start().to_string()), short(finding.to.start().to_string()));
    let range = format!("{} --from {from} --to {to}", stores.join(" "));
    match finding.filter() {
        Some(filter) if filter.is_empty() => format!("taperead sessions {range}"),
        Some(filter) => format!("taperead sessions '{filter}' {range}"),
        // Not IP: no sessions.
        None => format!("taperead packets 'not ip and not ip6' {range}"),
    }
}

/// For a shell.
fn quoted(path: &Path) -> String {
    let text = path.display().to_string();
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+,:@%".contains(c);
    if text.chars().all(is_plain) && !text.is_empty() {
        text
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// Words in lines of at most `width` characters.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = vec![String::new()];
    for word in text.split(' ') {
        let Some(line) = lines.last_mut() else { break };
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}

/// A finding for programs.
#[derive(Debug, Serialize)]
struct Record {
    rank: usize,
    from: String,
    to: String,
    peak_hour: String,
    interface: String,
    what: &'static str,
    key: Option<String>,
    unit: &'static str,
    observed: f64,
    usual: f64,
    expected: f64,
    severity: f64,
    period_s: Option<u32>,
    also: Vec<String>,
    query: String,
}

fn records(ask: &StatsAsk, judged: &Judged) -> Vec<Record> {
    let record = |(rank, f): (usize, &Finding)| Record {
        rank,
        from: f.from.start().to_string(),
        to: f.to.start().to_string(),
        peak_hour: f.peak.start().to_string(),
        interface: f.interface.clone(),
        what: f.subject.kind.as_str(),
        key: Some(f.subject.key.clone()).filter(|key| !key.is_empty()),
        unit: f.subject.kind.unit(),
        observed: rounded(f.observed),
        usual: rounded(f.usual),
        expected: rounded(f.expected),
        severity: rounded(f.severity),
        period_s: f.regularity.map(|r| r.period_s),
        also: f.also.iter().map(|also| subject(&also.subject)).collect(),
        query: query(ask, f),
    };
    (1..).zip(&judged.answer.findings).map(record).collect()
}

fn csv(records: &[Record], page: Page) -> String {
    let names = [
        "rank",
        "from",
        "to",
        "peak_hour",
        "interface",
        "what",
        "key",
        "unit",
        "observed",
        "usual",
        "expected",
        "severity",
        "period_s",
        "also",
        "query",
    ];
    let mut rows = vec![names.map(str::to_owned).to_vec()];
    rows.extend(records.iter().map(|r| {
        vec![
            r.rank.to_string(),
            r.from.clone(),
            r.to.clone(),
            r.peak_hour.clone(),
            r.interface.clone(),
            r.what.to_owned(),
            r.key.clone().unwrap_or_default(),
            r.unit.to_owned(),
            r.observed.to_string(),
            r.usual.to_string(),
            r.expected.to_string(),
            r.severity.to_string(),
            r.period_s.map(|s| s.to_string()).unwrap_or_default(),
            r.also.join("; "),
            r.query.clone(),
        ]
    }));
    csv_lines(&rows, page.for_terminal)
}
