//! Carries out a plan: frames -> matching packets -> one order -> an output.
//!
//! Two workers read and test frames in order of their earliest possible packet; the merge gives a packet
//! out only when no unread frame can hold an earlier one. With a limit one reader takes frame after
//! frame instead, so that none is read that the first packets do not need. Damage is counted and told
//! when its frame's turn comes, so the same question always gives the same answer.

use crate::filter::Filter;
use crate::framewalk::{self, ARRIVALS_PER_FRAME, Stretch};
use crate::merge::{Batch, Key, MERGE_BYTES, Merge};
use crate::out::{Output, OutputError};
use crate::plan::{Plan, PlannedSegment};
use crate::pool::ordered;
use crate::range::{Span, TimeRange};
use crate::scan::{Context, Piece, ScanError, Scanner, Task};
use crate::sources::Sources;
use crate::verdict::{Cause, Gap, Verdict};
use std::borrow::Cow;
use std::collections::{BTreeSet, VecDeque};
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
    run.answer.verdict.asked = plan.spans().collect();
    run.answer.verdict.gaps.extend(plan.filling.iter().map(|span| Gap {
        span: *span,
        cause: Cause::Importing,
        packets: None,
    }));
    let (sources, mut tasks) = run.prepare();
    let scan = |scanner: &mut Scanner<'_>, task: &Task| {
        match (plan.segments.get(task.segment), sources.context(task.segment)) {
            (Some(segment), Some(context)) => scanner.scan(&segment.handle, task, context, segment.until),
            // Only tasks of segments with a known source are in the list.
            _ => Err(ScanError::Gone),
        }
    };
    let result = if question.limit.is_some() {
        let mut scanner = Scanner::new(question.filter, question.range);
        run.deliver(&tasks, &mut |task| Some(scan(&mut scanner, task)), &sources, output)
    } else {
        tasks = tasks.into_iter().flat_map(|task| run.walked(task)).collect();
        std::thread::scope(|scope| {
            let start = || Scanner::new(question.filter, question.range);
            let mut results = ordered(scope, WORKERS, &tasks, start, scan);
            run.deliver(&tasks, &mut |_| results.next(), &sources, output)
        })
    };
    match result.and_then(|()| Ok(output.finish()?)) {
        Err(AnswerError::Output(e)) if e.is_closed_pipe() => {
            run.answer.closed = true;
            run.answer.verdict.limited = true;
        }
        Err(e) => return Err(e),
        Ok(()) => {}
    }
    run.answer.forget_beyond_end();
    run.answer.verdict.gaps.sort_by_key(|gap| gap.span);
    Ok(run.answer)
}

impl Answer {
    /// Drops the gaps that begin behind the last packet of an answer that was stopped: it is whole
    /// without them.
    fn forget_beyond_end(&mut self) {
        if !self.verdict.limited {
            self.verdict.until = None;
            return;
        }
        let until = *self.verdict.until.get_or_insert_default();
        let before: Vec<bool> = self.verdict.gaps.iter().map(|gap| gap.span.from <= until).collect();
        // Each gap has its trouble.
        let mut keep = before.iter().copied();
        self.verdict.gaps.retain(|_| keep.next().unwrap_or(true));
        let mut keep = before.iter().copied();
        self.troubles.retain(|_| keep.next().unwrap_or(true));
    }
}

struct Run<'a> {
    plan: &'a Plan,
    question: &'a Question<'a>,
    answer: Answer,
    /// Segments already told to be gone.
    lost: BTreeSet<usize>,
}

impl Run<'_> {
    /// Finds out what the packets of each segment are: sources by number, and all tasks in order of their
    /// earliest possible packet.
    fn prepare(&mut self) -> (Sources, Vec<Task>) {
        let plan = self.plan;
        let read: Vec<usize> =
            plan.segments.iter().enumerate().filter(|(_, s)| s.is_read()).map(|(number, _)| number).collect();
        let (sources, failed) = Sources::find(&plan.segments, &read);
        self.answer.verdict.scanned_frames = sources.frames;
        self.answer.verdict.scanned_bytes = sources.bytes;
        for (number, error) in failed {
            let Some(segment) = plan.segments.get(number) else { continue };
            let offset = matches!(error.cause(), Cause::CorruptFrame).then_some(0);
            if sources.context(number).is_none() {
                let packets = segment.tasks.iter().map(Task::packets).sum();
                self.lost.insert(number);
                self.lose(segment, segment.span, packets, offset, error);
            } else if !matches!(error, ScanError::NoEnd) {
                // Damage without a packet in it: an empty gap.
                let span = Span { from: segment.span.from, to: segment.span.from };
                self.lose(segment, span, Some(0), offset, error);
            }
        }
        let mut tasks: Vec<(Key, Task)> = Vec::new();
        for number in read {
            let (Some(segment), Some(context)) = (plan.segments.get(number), sources.context(number)) else {
                continue;
            };
            tasks.extend(segment.tasks.iter().map(|task| {
                let task = Task { segment: number, ..task.clone() };
                (earliest(&task, context), task)
            }));
        }
        tasks.sort_by_key(|(key, _)| *key);
        (sources, tasks.into_iter().map(|(_, task)| task).collect())
    }

    /// Gives out packets in order, reading with `read` what must be read before each.
    fn deliver(
        &mut self,
        tasks: &[Task],
        read: &mut dyn FnMut(&Task) -> Option<Result<Batch, ScanError>>,
        sources: &Sources,
        output: &mut dyn Output,
    ) -> Result<(), AnswerError> {
        let mut merge = Merge::new(self.question.merge_bytes);
        let unordered = self.question.count_only && self.question.limit.is_none();
        let mut upcoming: VecDeque<Cow<'_, Task>> = tasks.iter().map(Cow::Borrowed).collect();
        let mut source = None;
        // Where the next task begins, looked up once a task and not for every packet before it.
        let mut begins: Option<Option<Key>> = None;
        loop {
            while let Some(task) = upcoming.front() {
                let next = merge.peek().map_err(AnswerError::Merge)?;
                let first = *begins.get_or_insert_with(|| {
                    sources.context(task.segment).map(|context| earliest(task, context))
                });
                if next.is_some_and(|next| first.is_some_and(|first| next < first)) {
                    break;
                }
                begins = None;
                let Some(task) = upcoming.pop_front() else { break };
                if matches!(task.piece, Piece::Walk) {
                    let found = self.walked(task.into_owned());
                    found.into_iter().rev().for_each(|task| upcoming.push_front(Cow::Owned(task)));
                    continue;
                }
                let result = read(&task).ok_or(AnswerError::Worker)?;
                match self.take(&task, result) {
                    Some(batch) if unordered => {
                        self.answer.verdict.matched += crate::segment::len64(batch.items.len());
                    }
                    Some(batch) => merge.add(batch).map_err(AnswerError::Merge)?,
                    None => {}
                }
            }
            let Some((found, bytes)) = merge.pop().map_err(AnswerError::Merge)? else { return Ok(()) };
            let rank = found.key.segment;
            if source.is_none_or(|(known, _): (u32, _)| known != rank) {
                source = sources.source(rank).map(|source| (rank, source));
            }
            let Some((_, source)) = source else { continue };
            let (ts, orig_len, flags) = (found.key.ts, found.orig_len, found.flags);
            self.answer.verdict.until = Some(ts);
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
        if task.piece.is_frame() && !matches!(result, Err(ScanError::Gone | ScanError::Open(_))) {
            self.answer.verdict.scanned_frames += 1;
            self.answer.verdict.scanned_bytes += task.piece.stored_bytes();
        }
        let inside = Span::of_packets(task.t_min, task.t_max.min(last_inside(segment.span)));
        match result {
            Ok(batch) => {
                if batch.packets > 0 && matches!(task.piece, Piece::LastFrame { .. }) {
                    self.lose(segment, inside, None, None, ScanError::NoEnd);
                }
                Some(batch)
            }
            Err(error @ (ScanError::Gone | ScanError::Open(_))) => {
                if self.lost.insert(task.segment) {
                    self.lose(segment, segment.span, None, None, error);
                }
                None
            }
            Err(error) => {
                self.lose(segment, inside, task.packets(), task.piece.offset(), error);
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

    /// What a walk through a file finds, in order; any other task stays what it is.
    fn walked(&mut self, task: Task) -> Vec<Task> {
        let Some(segment) = self.plan.segments.get(task.segment) else { return Vec::new() };
        if !matches!(task.piece, Piece::Walk) {
            return vec![task];
        }
        let pieces = segment.handle.open().map_err(ScanError::of_open);
        match pieces.and_then(|file| framewalk::walk(&file).map_err(ScanError::Read)) {
            Ok(stretches) => pieces_of(segment.state, &stretches)
                .into_iter()
                .map(|(first_arrival, piece)| Task { piece, first_arrival, ..task })
                .collect(),
            Err(error) => {
                if self.lost.insert(task.segment) {
                    self.lose(segment, segment.span, None, None, error);
                }
                Vec::new()
            }
        }
    }
}

/// No packet of `task` stands before this place in the answer.
fn earliest(task: &Task, context: Context) -> Key {
    let Context { interface, segment, .. } = context;
    Key { ts: task.t_min, interface, segment, arrival: task.first_arrival }
}

/// The last time inside a span.
fn last_inside(span: Span) -> Timestamp {
    span.to.saturating_sub(1).max(span.from)
}

/// What to read of a segment without an index, each with the arrival number it begins with. Frame 0 has
/// been read for its interface and holds no packet.
fn pieces_of(state: State, stretches: &[Stretch]) -> Vec<(u64, Piece)> {
    let mut pieces = Vec::new();
    let last = stretches.len().saturating_sub(1);
    for (number, Stretch { offset, len, is_frame }) in stretches.iter().copied().enumerate() {
        let first_arrival = crate::segment::len64(number).saturating_mul(ARRIVALS_PER_FRAME);
        let piece = match u32::try_from(len) {
            Ok(_) if is_frame && offset == 0 => continue,
            Ok(stored_len) if is_frame && number == last && state == State::Sealed => {
                Piece::LastFrame { offset, stored_len }
            }
            Ok(stored_len) if is_frame => Piece::Frame { offset, stored_len },
            // The unwritten rest of an open segment is no damage.
            _ if state == State::Open => continue,
            _ => Piece::Damage { offset, len },
        };
        pieces.push((first_arrival, piece));
    }
    // Nothing at all, or frame 0 alone: a segment is sealed only with packets in it.
    if pieces.is_empty() && state == State::Sealed {
        pieces.push((0, Piece::NoEnd));
    }
    pieces
}
