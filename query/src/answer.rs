//! Carries out a plan: frames -> matching packets -> one order -> an output.
//!
//! Two workers read and test frames in order of their earliest possible packet; the merge gives a packet
//! out only when no unread frame can hold an earlier one. `--limit` ends it all early. Damage is counted
//! and told when its frame's turn comes, so the same question always gives the same answer.

use crate::filter::Filter;
use crate::framewalk::{self, ARRIVALS_PER_FRAME, Stretch};
use crate::merge::{Batch, MERGE_BYTES, Merge};
use crate::out::{Output, OutputError};
use crate::plan::{Plan, PlannedSegment, Prologue};
use crate::pool::ordered;
use crate::range::{Span, TimeRange};
use crate::scan::{Piece, ScanError, Scanner, Task};
use crate::sources::Sources;
use crate::verdict::{Cause, Gap, Verdict};
use std::collections::BTreeSet;
use std::io;
use std::path::PathBuf;
use tapedeck_index::catalog::State;
use tapedeck_index::pcapng::PacketRecord;
use tapedeck_packet::Timestamp;

/// Threads that read and test frames.
const WORKERS: usize = 2;

/// What is asked of a plan.
#[derive(Clone, Copy, Debug)]
pub struct Question<'a> {
    /// Which packets.
    pub filter: &'a Filter,
    /// When.
    pub range: TimeRange,
    /// At most so many, the first in order of time.
    pub limit: Option<u64>,
    /// Only the number of matches is wanted.
    pub count_only: bool,
    /// Memory for matches, see [`MERGE_BYTES`].
    pub merge_bytes: usize,
}

impl<'a> Question<'a> {
    /// All packets that match `filter` inside `range`.
    #[must_use]
    pub fn new(filter: &'a Filter, range: TimeRange) -> Self {
        Self { filter, range, limit: None, count_only: false, merge_bytes: MERGE_BYTES }
    }
}

/// An answer that cannot be finished.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    /// It cannot be written.
    #[error("cannot write the answer")]
    Output(#[from] OutputError),
    /// The temporary file of the merge cannot be used.
    #[error("cannot use a temporary file for sorting")]
    Merge(#[source] io::Error),
    /// A reading thread died; that is a bug.
    #[error("a reading thread ended early")]
    Worker,
}

/// Something that went wrong with a part of the answer.
#[derive(Debug)]
pub struct Trouble {
    /// The file.
    pub path: PathBuf,
    /// Byte offset of the frame, where it is one.
    pub offset: Option<u64>,
    /// What.
    pub error: ScanError,
}

/// A finished answer.
#[derive(Debug, Default)]
pub struct Answer {
    /// Matches, gaps, what was read; range and time are the caller's to fill in.
    pub verdict: Verdict,
    /// What went wrong, in the order in which it was met.
    pub troubles: Vec<Trouble>,
    /// The reader of the output went away.
    pub closed: bool,
}

/// Answers `question` from `plan` into `output`.
///
/// # Errors
/// [`AnswerError`]: the output is worthless then. Damaged or missing data is no error but part of the answer.
pub fn answer(plan: &Plan, question: &Question<'_>, output: &mut dyn Output) -> Result<Answer, AnswerError> {
    let mut run = Run { plan, question, answer: Answer::default(), lost: BTreeSet::new() };
    run.answer.verdict.asked = plan.segments.iter().map(|s| s.span).collect();
    let (sources, tasks) = run.prepare();
    let result = std::thread::scope(|scope| {
        let start = || Scanner::new(question.filter, question.range);
        let work = |scanner: &mut Scanner<'_>, task: &Task| {
            let (segment, context) = (plan.segments.get(task.segment), sources.context(task.segment));
            match (segment, context) {
                (Some(segment), Some(context)) => scanner.scan(&segment.handle, task, context),
                // Only tasks of segments with a known source are in the list.
                _ => Err(ScanError::Gone),
            }
        };
        let mut results = ordered(scope, WORKERS, &tasks, start, work);
        run.deliver(&tasks, &mut results, &sources, output)
    });
    match result.and_then(|()| Ok(output.finish()?)) {
        Err(AnswerError::Output(e)) if e.is_closed_pipe() => {
            run.answer.closed = true;
            run.answer.verdict.limited = true;
        }
        Err(e) => return Err(e),
        Ok(()) => {}
    }
    Ok(run.answer)
}

struct Run<'a> {
    plan: &'a Plan,
    question: &'a Question<'a>,
    answer: Answer,
    /// Segments already told to be gone.
    lost: BTreeSet<usize>,
}

impl Run<'_> {
    /// Finds what to read of each segment, and what its packets are: sources by number, and all tasks in
    /// order of their earliest possible packet.
    fn prepare(&mut self) -> (Sources, Vec<Task>) {
        let (mut prologues, mut tasks) = (Vec::new(), Vec::new());
        let plan = self.plan;
        for (number, segment) in plan.segments.iter().enumerate().filter(|(_, s)| s.is_read()) {
            match pieces(segment) {
                Ok((Some(prologue), pieces)) => {
                    prologues.push((number, prologue));
                    tasks.extend(pieces.into_iter().map(|task| Task { segment: number, ..task }));
                }
                Ok((None, _)) => {}
                Err(error) => {
                    self.lost.insert(number);
                    self.lose(segment, segment.span, None, None, error);
                }
            }
        }
        let (sources, failed) = Sources::read(&plan.segments, prologues);
        self.answer.verdict.scanned_frames = sources.frames;
        self.answer.verdict.scanned_bytes = sources.bytes;
        for (number, error) in failed {
            let Some(segment) = plan.segments.get(number) else { continue };
            if sources.context(number).is_some() {
                // Damage without a packet in it: an empty gap.
                let span = Span { from: segment.span.from, to: segment.span.from };
                self.lose(segment, span, Some(0), Some(0), error);
            } else {
                let lost = tasks.iter().filter(|t| t.segment == number);
                let packets = lost.map(|t| t.packets.map(u64::from)).sum();
                let offset = matches!(error.cause(), Cause::CorruptFrame).then_some(0);
                self.lost.insert(number);
                self.lose(segment, segment.span, packets, offset, error);
            }
        }
        tasks.retain(|task| sources.context(task.segment).is_some());
        tasks.sort_by_key(|t| (t.t_min, t.segment, t.first_arrival));
        (sources, tasks)
    }

    fn deliver(
        &mut self,
        tasks: &[Task],
        results: &mut dyn Iterator<Item = Result<Batch, ScanError>>,
        sources: &Sources,
        output: &mut dyn Output,
    ) -> Result<(), AnswerError> {
        let mut merge = Merge::new(self.question.merge_bytes);
        let unordered = self.question.count_only && self.question.limit.is_none();
        let mut upcoming = tasks.iter().peekable();
        loop {
            while let Some(task) = upcoming.peek() {
                if merge.peek().map_err(AnswerError::Merge)?.is_some_and(|key| key.ts < task.t_min) {
                    break;
                }
                let result = results.next().ok_or(AnswerError::Worker)?;
                match self.take(task, result) {
                    Some(batch) if unordered => {
                        self.answer.verdict.matched += crate::segment::len64(batch.items.len());
                    }
                    Some(batch) => merge.add(batch).map_err(AnswerError::Merge)?,
                    None => {}
                }
                upcoming.next();
            }
            let Some((found, bytes)) = merge.pop().map_err(AnswerError::Merge)? else { return Ok(()) };
            let Some(source) = sources.source(found.key.segment) else { continue };
            let (ts, orig_len, flags) = (found.key.ts, found.orig_len, found.flags);
            output.packet(source, &PacketRecord { ts, bytes, orig_len, dropped: 0, flags })?;
            self.answer.verdict.matched += 1;
            if self.question.limit == Some(self.answer.verdict.matched) {
                self.answer.verdict.limited = true;
                return Ok(());
            }
        }
    }

    /// Books a piece that was read, or why it could not be.
    fn take(&mut self, task: &Task, result: Result<Batch, ScanError>) -> Option<Batch> {
        let segment = self.plan.segments.get(task.segment)?;
        match result {
            Ok(batch) => {
                self.answer.verdict.scanned_frames += 1;
                self.answer.verdict.scanned_bytes += task.piece.stored_bytes();
                Some(batch)
            }
            Err(error @ (ScanError::Gone | ScanError::Open(_))) => {
                if self.lost.insert(task.segment) {
                    self.lose(segment, segment.span, None, None, error);
                }
                None
            }
            Err(error) => {
                self.answer.verdict.scanned_frames += 1;
                self.answer.verdict.scanned_bytes += task.piece.stored_bytes();
                let span = Span::of_packets(task.t_min, task.t_max.min(last_inside(segment.span)));
                let packets = task.packets.map(u64::from);
                self.lose(segment, span, packets, task.piece.offset(), error);
                None
            }
        }
    }

    /// Books a gap and what made it.
    fn lose(
        &mut self,
        segment: &PlannedSegment,
        span: Span,
        packets: Option<u64>,
        offset: Option<u64>,
        error: ScanError,
    ) {
        self.answer.verdict.gaps.push(Gap { span, cause: error.cause(), packets });
        let path = segment.handle.path().to_owned();
        self.answer.troubles.push(Trouble { path, offset, error });
    }
}

/// The last time inside a span.
fn last_inside(span: Span) -> Timestamp {
    span.to.saturating_sub(1).max(span.from)
}

/// What to read of a segment, and where its interface is described; `None` if the file holds nothing.
fn pieces(segment: &PlannedSegment) -> Result<(Option<Prologue>, Vec<Task>), ScanError> {
    if !segment.is_walked() {
        return Ok((Some(segment.prologue.clone()), segment.tasks.clone()));
    }
    let file = segment.handle.open().map_err(ScanError::of_open)?;
    let stretches = framewalk::walk(&file).map_err(ScanError::Read)?;
    let mut prologue = None;
    let mut tasks = Vec::new();
    for (number, Stretch { offset, len, is_frame }) in (0u64..).zip(stretches) {
        let piece = match u32::try_from(len) {
            Ok(stored_len) if is_frame => Piece::Frame { offset, stored_len },
            // The unwritten rest of an open segment is no damage.
            _ if segment.state == State::Open => continue,
            _ => Piece::Damage { offset, len },
        };
        if let Piece::Frame { offset, stored_len } = piece
            && prologue.is_none()
        {
            prologue = Some(Prologue::Frame { offset, stored_len });
        }
        tasks.push(Task {
            segment: 0,
            piece,
            t_min: segment.span.from,
            t_max: last_inside(segment.span),
            packets: None,
            first_arrival: number.saturating_mul(ARRIVALS_PER_FRAME),
            frame: None,
        });
    }
    match prologue {
        None if !tasks.is_empty() => Err(ScanError::NoInterface),
        _ => Ok((prologue, tasks)),
    }
}
