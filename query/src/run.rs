//! Runs a command: asks, plans, answers, and says how whole the answer is.
//!
//! stdout is data, stderr is talk. Clock, streams and terminals are parameters.

use crate::answer::{Answer, AnswerError, Question, Trouble, answer};
use crate::ask::{self, Deliver, Format, PacketsAsk, SegmentsAsk, SessionsAsk, SqlAsk};
use crate::cli::{Cli, Command};
use crate::failure::Failure;
use crate::gather::gather;
use crate::ledger;
use crate::out::json::Json;
use crate::out::pcap::Pcap;
use crate::out::pcapng::Pcapng;
use crate::out::target::HiddenFile;
use crate::out::text::Text;
use crate::out::{CountOnly, Output, OutputError, Sink, write_hint};
use crate::plan::{Choice, PackTrouble, Plan};
use crate::range::{Span, TimeRange};
use crate::stats::StatsAsk;
use crate::tables::FileTrouble;
use crate::verdict::{EXIT_ERROR, EXIT_MATCHES, Verdict};
use std::fmt::Display;
use std::fs;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use tapedeck_packet::Timestamp;
use tapedeck_packet::escape::Foreign;

/// The streams of a command, and what is at their other ends.
pub struct Console<'a> {
    /// Data.
    pub out: Sink<'a>,
    /// Talk.
    pub err: Sink<'a>,
    /// stdout is a terminal.
    pub out_is_terminal: bool,
    /// stderr is a terminal.
    pub err_is_terminal: bool,
    /// Characters in a line of that terminal, where there is one.
    pub out_width: Option<usize>,
}

/// What is known of stdout.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stdout {
    /// It is a terminal.
    pub(crate) is_terminal: bool,
    /// Characters in a line of it.
    pub(crate) width: Option<usize>,
}

/// The clock, read by `main`.
pub struct Clock<'a> {
    /// When the command began.
    pub now: Timestamp,
    /// Milliseconds since then.
    pub elapsed_ms: &'a dyn Fn() -> u64,
}

/// Runs `cli`; the exit status.
pub fn run(cli: Cli, clock: &Clock<'_>, console: Console<'_>) -> u8 {
    let Console { out, mut err, out_is_terminal, err_is_terminal, out_width } = console;
    let stdout = Stdout { is_terminal: out_is_terminal, width: out_width };
    let mut talk = Talk { err: &mut err, for_terminal: err_is_terminal };
    let json = match &cli.command {
        Command::Packets(args) => args.json,
        Command::Segments(args) => args.json,
        Command::Sessions(args) => args.json,
        Command::Stats(args) => args.json,
        Command::Sql(_) | Command::Inspect(_) => false,
    };
    let result = match cli.command {
        Command::Packets(args) => PacketsAsk::new(*args, clock.now)
            .and_then(|ask| packets(&ask, clock, out, out_is_terminal, &mut talk)),
        Command::Sessions(args) => SessionsAsk::new(*args, clock.now)
            .and_then(|ask| crate::sessions::run::sessions(&ask, clock, (out, stdout), &mut talk)),
        Command::Sql(args) => {
            SqlAsk::new(args).and_then(|ask| crate::sql::sql(&ask, (out, stdout), &mut talk))
        }
        Command::Segments(args) => SegmentsAsk::new(&args, clock.now)
            .and_then(|ask| crate::segments::segments(&ask, out, out_is_terminal, &mut talk)),
        Command::Stats(args) => StatsAsk::new(*args, clock.now)
            .and_then(|ask| crate::stats::stats(&ask, clock, out, out_is_terminal, &mut talk)),
        Command::Inspect(args) => {
            crate::inspect::inspect(&ask::inspect(args), out, out_is_terminal, &mut talk)
        }
    };
    result.unwrap_or_else(|failure| {
        talk.say(&failure);
        if json {
            talk.line(&no_answer(failure.told(), (clock.elapsed_ms)()));
        }
        EXIT_ERROR
    })
}

/// The verdict of a command that ended in an error, as JSON.
#[must_use]
pub fn no_answer(error: String, elapsed_ms: u64) -> String {
    Verdict { error: Some(error), elapsed_ms, ..Verdict::default() }.to_json()
}

/// `failure`, and what to do about it where that is known.
fn with_hint(failure: Failure, hint: Option<&'static str>) -> Failure {
    match hint {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// stderr, where a failure to write has nowhere to be told.
pub(crate) struct Talk<'a> {
    err: &'a mut dyn Write,
    for_terminal: bool,
}

impl Talk<'_> {
    /// Says `what`, which ends its own lines.
    fn say(&mut self, what: &dyn Display) {
        let _ = write!(self.err, "{what}");
    }

    /// A line that begins with `warning: ` and the file it is about.
    pub(crate) fn warn(&mut self, path: &Path, what: &dyn Display) {
        let path = path.to_string_lossy();
        let path = Foreign::new(&path, self.for_terminal);
        let _ = writeln!(self.err, "warning: {path}: {what}");
    }

    pub(crate) fn line(&mut self, what: &dyn Display) {
        let _ = writeln!(self.err, "{what}");
    }
}

/// Whether a file of this name would lie in the folder `store` or below it.
pub(crate) fn lies_inside(file: &Path, store: &Path) -> bool {
    let file = fs::canonicalize(file).unwrap_or_else(|_| {
        let folder = file.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::canonicalize(folder).unwrap_or_default()
    });
    fs::canonicalize(store).is_ok_and(|store| file.starts_with(store))
}

/// Refuses a capture file on a terminal, and one inside a store.
pub(crate) fn check_target(
    deliver: &Deliver,
    stores: &[PathBuf],
    out_is_terminal: bool,
) -> Result<(), Failure> {
    if let Deliver::Stdout(format) = deliver
        && format.is_binary()
        && out_is_terminal
    {
        return Err(Failure::new("a capture file on a terminal is no use to anyone")
            .hint("-w FILE writes it to a file, '-w - | tcpdump -n -r -' hands it on"));
    }
    if let Deliver::File(path, _) = deliver
        && let Some(store) = stores.iter().find(|store| lies_inside(path, store))
    {
        return Err(Failure::new(format!(
            "'{}' lies inside the store '{}'",
            path.display(),
            store.display()
        ))
        .hint("name a file outside of it: what a store holds is evidence and is never replaced"));
    }
    Ok(())
}

fn packets(
    ask: &PacketsAsk,
    clock: &Clock<'_>,
    mut out: Sink<'_>,
    out_is_terminal: bool,
    talk: &mut Talk<'_>,
) -> Result<u8, Failure> {
    check_target(&ask.deliver, &ask.stores, out_is_terminal)?;
    let mut plan = gather(&ask.stores, &ask.filter, ask.range).map_err(|e| Failure::of(&e))?;
    let asked = ledger::bounded(ask.range, ask.is_open, plan.life);
    let mut witness = ledger::witness(&ask.stores, asked)?;
    witness.compare(&ask.stores, &plan, asked)?;
    plan.edge = witness.edge(&plan);
    for FileTrouble { path, what } in &witness.troubles {
        talk.warn(path, what);
    }
    for PackTrouble { path, why, mends } in &plan.packed.troubles {
        let hint = if *mends { " ('tapedeck reindex' mends that)" } else { "" };
        talk.warn(path, &format_args!("{why}; its segments are asked themselves{hint}"));
    }
    if ask.deliver == Deliver::Explain {
        return print(&mut out, &format_args!("{plan}{witness}")).map(|()| EXIT_MATCHES);
    }
    for segment in &plan.segments {
        if let Choice::Unindexed { why } = &segment.choice {
            talk.warn(
                segment.handle.path(),
                &format_args!("{why}; all its frames are read ('tapedeck reindex' mends that)"),
            );
        }
    }
    for path in &plan.abandoned {
        talk.warn(
            path,
            &"its writer is gone; it is read as far as it is whole ('tapedeck recover' seals it)",
        );
    }
    let question = Question {
        limit: ask.limit,
        count_only: ask.deliver == Deliver::Count,
        ..Question::new(&ask.filter, ask.range)
    };
    let mut answer = match &ask.deliver {
        Deliver::File(path, format) => to_file(&plan, &question, path, *format, talk)?,
        Deliver::Stdout(format) => {
            let mut output = output(*format, out, out_is_terminal).map_err(|e| output_failure(&e, None))?;
            let answer = answer_into(&plan, &question, output.as_mut(), None)?;
            note_link_types(output.as_ref(), talk);
            answer
        }
        Deliver::Count | Deliver::Explain => {
            let answer = answer_into(&plan, &question, &mut CountOnly, None)?;
            print(&mut out, &format_args!("{}\n", answer.verdict.matched))?;
            answer
        }
    };
    let life = ledger::life(plan.life, witness.life());
    answer.verdict.range = Some(cut_to_life(ask.range, life, plan.edge, clock.now));
    witness.tell(&mut answer.verdict);
    answer.verdict.elapsed_ms = (clock.elapsed_ms)();
    Ok(conclude(&plan, &answer, ask.verdict_json, talk))
}

/// Tells troubles and verdict; the exit status.
fn conclude(plan: &Plan, answer: &Answer, json: bool, talk: &mut Talk<'_>) -> u8 {
    let mut several = false;
    for Trouble { path, offset, error } in &answer.troubles {
        several = true;
        match offset {
            Some(offset) => talk.warn(path, &format_args!("damaged frame at byte {offset}: {error}")),
            None => talk.warn(path, error),
        }
    }
    let verdict = &answer.verdict;
    if json {
        talk.line(&verdict.to_json());
    } else if !answer.closed {
        talk.line(&Summary { verdict, plan });
        if several {
            talk.line(&"hint: 'tapedeck verify' lists all damage in a store");
        }
    }
    if answer.closed { EXIT_MATCHES } else { verdict.exit_status() }
}

/// The verdict in a line for a person.
struct Summary<'a> {
    verdict: &'a Verdict,
    plan: &'a Plan,
}

impl Display for Summary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Verdict { matched, limited, .. } = self.verdict;
        match matched {
            0 => f.write_str("no match")?,
            1 => f.write_str("1 packet")?,
            n => write!(f, "{n} packets")?,
        }
        match (self.verdict.is_complete(), self.plan.segments_asked()) {
            (false, _) => f.write_str("; the answer is NOT WHOLE")?,
            (true, _) if *limited => f.write_str("; stopped at the limit, whole as far as it goes")?,
            (true, 0) => f.write_str("; the store holds nothing in this range")?,
            (true, 1) => f.write_str("; whole answer from 1 segment")?,
            (true, n) => write!(f, "; whole answer from {n} segments")?,
        }
        if let Some(range) = self.verdict.range.filter(|_| !limited && self.plan.segments_asked() > 0) {
            write!(f, ", {} to {}", range.from, range.to)?;
            if self.plan.edge.is_some_and(|edge| edge >= range.to) {
                f.write_str(" (being recorded: what came later is not vouched for yet)")?;
            }
        }
        for gap in &self.verdict.gaps {
            write!(f, "\n  missing: {} to {}, {}", gap.span.from, gap.span.to, gap.cause)?;
            match gap.packets {
                Some(packets) => write!(f, ", {packets} packets before filtering")?,
                None => f.write_str(", packets unknown")?,
            }
        }
        Ok(())
    }
}

fn to_file(
    plan: &Plan,
    question: &Question<'_>,
    path: &Path,
    format: Format,
    talk: &mut Talk<'_>,
) -> Result<Answer, Failure> {
    into_file(path, format, talk, |output| answer_into(plan, question, output, Some(path)))
}

/// Writes what `give` gives into a file that is hidden until it is whole.
pub(crate) fn into_file<T>(
    path: &Path,
    format: Format,
    talk: &mut Talk<'_>,
    give: impl FnOnce(&mut dyn Output) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let failed = |e: &io::Error| {
        with_hint(Failure::because(format!("cannot write '{}'", path.display()), e), write_hint(e))
    };
    let (file, writer) = HiddenFile::create(path).map_err(|e| failed(&e))?;
    let mut output = output(format, Box::new(writer), false).map_err(|e| output_failure(&e, Some(path)))?;
    let answer = give(output.as_mut())?;
    note_link_types(output.as_ref(), talk);
    drop(output);
    file.publish().map_err(|e| failed(&e))?;
    Ok(answer)
}

pub(crate) fn answer_into(
    plan: &Plan,
    question: &Question<'_>,
    output: &mut dyn Output,
    path: Option<&Path>,
) -> Result<Answer, Failure> {
    answer(plan, question, output).map_err(|e| match &e {
        AnswerError::Output(output) => output_failure(output, path),
        AnswerError::Merge(_) => Failure::of(&e)
            .hint("TMPDIR names the folder for temporary files; --limit or a shorter range needs less"),
        AnswerError::Worker => Failure::of(&e),
    })
}

pub(crate) fn output_failure(error: &OutputError, path: Option<&Path>) -> Failure {
    let what = match path {
        Some(path) => format!("cannot write '{}'", path.display()),
        None => "cannot write to stdout".to_owned(),
    };
    with_hint(Failure::because(what, error), error.hint())
}

pub(crate) fn output<'a>(
    format: Format,
    out: Sink<'a>,
    for_terminal: bool,
) -> Result<Box<dyn Output + 'a>, OutputError> {
    Ok(match format {
        Format::Text => Box::new(Text::new(out, for_terminal)),
        Format::Json => Box::new(Json::new(out)),
        Format::Pcapng => Box::new(Pcapng::new(out)?),
        Format::Pcap { micros } => Box::new(Pcap::new(out, micros)),
    })
}

pub(crate) fn note_link_types(output: &dyn Output, talk: &mut Talk<'_>) {
    if output.has_several_link_types() {
        talk.line(&"warning: the answer has several link types: Wireshark opens it, tcpdump will refuse it");
    }
}

/// Writes data to stdout; a closed pipe is success.
pub(crate) fn print(out: &mut Sink<'_>, what: &dyn Display) -> Result<(), Failure> {
    match write!(out, "{what}").and_then(|()| out.flush()) {
        Err(e) if e.kind() != io::ErrorKind::BrokenPipe => {
            Err(with_hint(Failure::because("cannot write to stdout", &e), write_hint(&e)))
        }
        _ => Ok(()),
    }
}

/// The asked range without what lies before and behind the life of the store: from its first packet to
/// its last or, while it is being recorded into, to the time up to which every queue is whole.
pub(crate) fn cut_to_life(
    range: TimeRange,
    life: Option<Span>,
    edge: Option<Timestamp>,
    now: Timestamp,
) -> Span {
    let Some(life) = life else {
        let to = range.to.unwrap_or(now).min(edge.unwrap_or(Timestamp::MAX));
        return Span { from: range.from, to: to.max(range.from) };
    };
    let life = Span { from: life.from, to: edge.unwrap_or(life.to).max(life.from) };
    let from = range.from.clamp(life.from, life.to);
    let to = range.to.unwrap_or(life.to).clamp(from, life.to.max(from));
    Span { from, to }
}
