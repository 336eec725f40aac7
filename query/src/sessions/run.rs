//! Runs `taperead sessions`: finds, writes, says how whole the answer is.

use super::packets;
use super::read::Read;
use super::{Found, Question, find, out};
use crate::answer::Answer;
use crate::ask::{Deliver, DeliverSessions, SessionsAsk};
use crate::cli::SessionFormat;
use crate::failure::Failure;
use crate::out::Sink;
use crate::plan::Plan;
use crate::run::{Clock, Stdout, Talk, cut_to_life, print};
use crate::verdict::{EXIT_MATCHES, Verdict};
use std::fmt::{self, Display};
use std::io;

/// Answers `ask`; the exit status.
pub(crate) fn sessions(
    ask: &SessionsAsk,
    clock: &Clock<'_>,
    (mut out, stdout): (Sink<'_>, Stdout),
    talk: &mut Talk<'_>,
) -> Result<u8, Failure> {
    if let DeliverSessions::Packets(deliver) = &ask.deliver {
        crate::run::check_target(deliver, &ask.stores, stdout.is_terminal)?;
    }
    let question = Question {
        filter: &ask.filter,
        range: ask.range,
        limit: ask.limit,
        count_only: ask.deliver == DeliverSessions::Count,
    };
    let found = find(&ask.stores, question).map_err(|e| Failure::of(&e))?;
    let mut verdict = verdict(ask, &found, clock)?;
    let mut closed = false;
    let mut packets = None;
    match &ask.deliver {
        DeliverSessions::Count => print(&mut out, &format_args!("{}\n", verdict.matched))?,
        DeliverSessions::Stdout(format) => {
            closed = write(*format, &found, &mut out, stdout, clock)?;
        }
        DeliverSessions::Packets(deliver) => {
            let answer = export(ask, &found, deliver, (out, stdout), talk)?;
            closed = answer.closed;
            verdict.gaps.extend(answer.verdict.gaps.iter().copied());
            verdict.scanned_frames += answer.verdict.scanned_frames;
            verdict.scanned_bytes += answer.verdict.scanned_bytes;
            packets = Some(answer.verdict.matched);
        }
    }
    verdict.elapsed_ms = (clock.elapsed_ms)();
    Ok(conclude(&verdict, &found.read, packets, closed, ask.verdict_json, talk))
}

fn verdict(ask: &SessionsAsk, found: &Found, clock: &Clock<'_>) -> Result<Verdict, Failure> {
    let plan = Plan { range: ask.range, ..Plan::default() };
    let life = crate::gather::life(&ask.stores, &plan).map_err(|e| Failure::of(&e))?;
    let matched = ask.limit.map_or(found.matched, |limit| found.matched.min(limit));
    Ok(Verdict {
        range: Some(cut_to_life(ask.range, life, None, clock.now)),
        limited: matched < found.matched,
        asked: found.read.asked.clone(),
        gaps: found.read.gaps.clone(),
        matched,
        scanned_bytes: found.read.bytes,
        ..Verdict::default()
    })
}

/// Writes the sessions; whether the reader of a pipe went away.
fn write(
    format: SessionFormat,
    found: &Found,
    out: &mut Sink<'_>,
    stdout: Stdout,
    clock: &Clock<'_>,
) -> Result<bool, Failure> {
    let sessions = &found.sessions;
    let written = match format {
        SessionFormat::Table => out::table(sessions, out, stdout.width, stdout.is_terminal),
        SessionFormat::Json => out::json(sessions, out),
        SessionFormat::Csv => out::csv(sessions, out, stdout.is_terminal),
        SessionFormat::Zeek => out::zeek(sessions, out, clock.now),
    };
    match written {
        Ok(()) => Ok(false),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(true),
        Err(error) => Err(Failure::because("cannot write to stdout", &error)),
    }
}

/// Writes the packets of the sessions.
fn export(
    ask: &SessionsAsk,
    found: &Found,
    deliver: &Deliver,
    (out, stdout): (Sink<'_>, Stdout),
    talk: &mut Talk<'_>,
) -> Result<Answer, Failure> {
    let ways = packets::plan(&ask.stores, &found.sessions)?;
    let answer = match deliver {
        Deliver::File(path, format) => {
            crate::run::into_file(path, *format, talk, |output| ways.give(output, Some(path)))?
        }
        Deliver::Stdout(format) => {
            let mut output = crate::run::output(*format, out, stdout.is_terminal)
                .map_err(|e| crate::run::output_failure(&e, None))?;
            let answer = ways.give(output.as_mut(), None)?;
            crate::run::note_link_types(output.as_ref(), talk);
            answer
        }
        Deliver::Count | Deliver::Explain => Answer::default(),
    };
    for trouble in &answer.troubles {
        talk.warn(&trouble.path, &trouble.error);
    }
    Ok(answer)
}

/// Tells troubles and verdict; the exit status.
fn conclude(
    verdict: &Verdict,
    read: &Read,
    packets: Option<u64>,
    closed: bool,
    json: bool,
    talk: &mut Talk<'_>,
) -> u8 {
    for trouble in &read.troubles {
        talk.warn(&trouble.path, &trouble.what);
    }
    if json {
        talk.line(&verdict.to_json());
    } else if !closed {
        talk.line(&Summary { verdict, read, packets });
    }
    if closed { EXIT_MATCHES } else { verdict.exit_status() }
}

/// The verdict in a line for a person.
struct Summary<'a> {
    verdict: &'a Verdict,
    read: &'a Read,
    packets: Option<u64>,
}

impl Display for Summary<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.verdict.matched {
            0 => f.write_str("no match")?,
            1 => f.write_str("1 session")?,
            n => write!(f, "{n} sessions")?,
        }
        if let Some(packets) = self.packets {
            write!(f, ", {packets} packets")?;
        }
        match (self.verdict.is_complete(), self.read.files) {
            (false, _) => f.write_str("; the answer is NOT WHOLE")?,
            (true, _) if self.verdict.limited => {
                f.write_str("; stopped at the limit, whole as far as it goes")?
            }
            (true, 0) => f.write_str("; the store holds no sessions in this range")?,
            (true, 1) => f.write_str("; whole answer from 1 file")?,
            (true, n) => write!(f, "; whole answer from {n} files")?,
        }
        for gap in &self.verdict.gaps {
            write!(f, "\n  missing: {} to {}, {}", gap.span.from, gap.span.to, gap.cause)?;
        }
        Ok(())
    }
}
