//! One open segment, as the stage thread sees it: frames go in, files come out.
//!
//! Packets become retrievable in one of three ways, and are counted `stored` at that moment: their
//! blocks are in the journal (`cover`), their frame is recorded in it (`record`), or the segment is
//! sealed. Whatever none of them reaches is counted `write_error`. After a failed write the segment
//! takes no more bytes; frames that still come for it are covered by the journal, if that still works,
//! and recovery makes a whole segment of what there is.
//!
//! Must never: record a frame whose bytes are neither in the file nor in the journal.

use crate::buffer::Pool;
use crate::counters::{ChainCounters, Sum};
use crate::disk;
use crate::journal::JournalFile;
use crate::output::Output;
use crate::seconds::{BySecond, Runs};
use crate::sink::{Durable, Sink, to_u64};
use crate::stage::FrameJob;
use crate::sync::Watch;
use std::collections::{HashMap, VecDeque};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tapedeck_index::frame::{FrameError, compress_bound};
use tapedeck_index::name::SegmentName;
use tapedeck_index::rows::FrameRows;
use tapedeck_index::sidecar::{FrameMeta, SidecarBuilder};
use tapedeck_packet::Timestamp;

/// What worker and stage tell each other about a segment while it is open.
#[derive(Debug, Default)]
pub(crate) struct Link {
    /// Set by stage or sync thread, read by the worker: start another segment. Relaxed: a hint.
    pub(crate) failed: AtomicBool,
    /// Set by the stage before `failed`: not the disk failed, the files were taken away. Relaxed: a hint.
    pub(crate) lost: AtomicBool,
    /// Stored bytes of the frames compressed so far, the header included. Written by the stage.
    pub(crate) stored_bytes: AtomicU64,
    /// What these frames could have taken at most, without the header. Written by the stage after
    /// `stored_bytes`, read by the worker before it (Release and Acquire): a frame is never in neither.
    pub(crate) bound_bytes: AtomicU64,
}

/// Where the files of an open segment are.
#[derive(Clone, Debug)]
pub(crate) struct Paths {
    pub(crate) store: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) open: PathBuf,
    pub(crate) journal: PathBuf,
}

/// A frame as it comes from the worker, without its bytes.
#[derive(Debug)]
pub(crate) struct FrameInfo {
    /// Number in its segment; frame 0 is the header.
    pub(crate) number: u32,
    /// `offset` and the lengths are filled in here.
    pub(crate) meta: FrameMeta,
    pub(crate) rows: FrameRows,
    pub(crate) runs: Runs,
}

/// A compressed frame that the journal does not know yet.
#[derive(Debug)]
struct Unrecorded {
    info: FrameInfo,
    end: u64,
    /// Packets not covered by journalled blocks.
    uncovered: Runs,
    /// It existed at the last tick: now it must be recorded, or it grows too old.
    known: bool,
}

/// Which frames are to be recorded although their bytes are not in the file yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reach {
    /// Those that existed at the last tick.
    Old,
    /// All.
    All,
    /// None.
    InFile,
}

/// Blocks in the journal of a frame that is not compressed yet.
#[derive(Clone, Copy, Debug, Default)]
struct Covered {
    bytes: usize,
    sum: Sum,
}

/// What is needed to begin a segment.
pub(crate) struct SegmentParts {
    pub(crate) name: SegmentName,
    pub(crate) paths: Paths,
    pub(crate) link: Arc<Link>,
    pub(crate) sink: Box<dyn Sink>,
    pub(crate) lock: Arc<File>,
    pub(crate) journal: JournalFile,
    pub(crate) block: usize,
}

/// An open segment.
pub(crate) struct Segment {
    parts: SegmentParts,
    builder: SidecarBuilder,
    output: Output,
    unrecorded: VecDeque<Unrecorded>,
    covered: HashMap<u32, Covered>,
    /// The file's bytes up to here can be had from the journal where the file lacks them.
    tail_end: u64,
    t0: Option<Timestamp>,
    next_number: u32,
    failed: bool,
    /// Its files are no longer where readers and recovery look.
    lost: bool,
    /// Its packets that were counted `stored`.
    stored: BySecond,
}

/// A segment whose bytes are all in its file.
pub(crate) struct Complete {
    pub(crate) name: SegmentName,
    pub(crate) paths: Paths,
    pub(crate) durable: Arc<dyn Durable>,
    /// The open file; closing it gives the lock back.
    pub(crate) lock: Arc<File>,
    pub(crate) len: u64,
    pub(crate) builder: SidecarBuilder,
    /// Packets that only the seal makes retrievable: the journal could not take them.
    pub(crate) unrecorded: Runs,
    /// As many of them as no reader sees before the seal.
    pub(crate) hidden: u64,
    /// Packets counted `stored`.
    pub(crate) stored: BySecond,
}

/// A segment that ended in a failed write: recovery makes of it what can be made.
pub(crate) struct Broken {
    pub(crate) name: SegmentName,
    pub(crate) paths: Paths,
    /// The open file; closing it gives the lock back.
    pub(crate) lock: Arc<File>,
    /// Packets counted `stored`.
    pub(crate) stored: BySecond,
}

/// How a segment ended.
pub(crate) enum Ended {
    Complete(Box<Complete>),
    Broken(Broken),
    /// No packet ever came.
    Empty(Broken),
    /// Its files were taken away; its packets are counted as lost.
    Lost,
}

impl Segment {
    pub(crate) fn new(parts: SegmentParts) -> Self {
        Self {
            parts,
            builder: SidecarBuilder::default(),
            output: Output::default(),
            unrecorded: VecDeque::new(),
            covered: HashMap::new(),
            tail_end: 0,
            t0: None,
            next_number: 0,
            failed: false,
            lost: false,
            stored: BySecond::default(),
        }
    }

    /// Sequence number within the run.
    pub(crate) fn seq(&self) -> u32 {
        self.parts.name.seq
    }

    /// Number of the next frame.
    pub(crate) fn next_number(&self) -> u32 {
        self.next_number
    }

    /// What the sync thread needs to keep it durable.
    pub(crate) fn watch(&self) -> Watch {
        Watch {
            store: self.parts.paths.store.clone(),
            folder: self.parts.paths.folder.clone(),
            durable: self.parts.sink.durable(),
            journal: self.parts.journal.file(),
            link: Arc::clone(&self.parts.link),
            fresh: true,
        }
    }

    /// Whether a frame can be taken without waiting for the disk. Takes notice of failed writes.
    pub(crate) fn ready(&mut self, counters: &ChainCounters, done: &mut dyn FnMut(FrameRows)) -> bool {
        self.parts.sink.reap();
        if self.parts.sink.failure().is_some() && !self.failed {
            self.fail(counters, done);
        }
        self.failed || self.parts.sink.has_room()
    }

    /// Waits for a write to complete, at most `timeout`.
    pub(crate) fn wait(&mut self, timeout: Duration) {
        self.parts.sink.wait(timeout);
    }

    /// The first place in this segment from which on not every packet can be read or is counted as
    /// lost; `waiting` are its frames that are not compressed yet, in order. The last part of the answer:
    /// nothing that came for the segment stands behind that place.
    pub(crate) fn readable<'a>(&self, waiting: impl Iterator<Item = &'a FrameJob>) -> (u32, usize, bool) {
        if let Some(frame) = self.unrecorded.iter().find(|frame| frame.uncovered.sum().packets > 0) {
            return (frame.info.number, 0, false);
        }
        let covered = |number: u32| self.covered.get(&number).map_or(0, |covered| covered.bytes);
        let mut next = self.next_number;
        for job in waiting {
            if covered(job.info.number) < job.raw.len() {
                return (job.info.number, covered(job.info.number), false);
            }
            next = job.info.number.saturating_add(1);
        }
        (next, covered(next), true)
    }

    /// Whether this segment takes no more bytes.
    pub(crate) fn failed(&self) -> bool {
        self.failed
    }

    /// Puts raw blocks of a frame that is not compressed yet into the journal: `bytes` begin at
    /// `offset` of the frame and hold the packets of `runs`. `false` if the journal did not take them.
    pub(crate) fn cover(
        &mut self,
        number: u32,
        offset: usize,
        bytes: &[u8],
        runs: &Runs,
        counters: &ChainCounters,
    ) -> bool {
        let known = self.covered.get(&number).copied().unwrap_or_default();
        // A hole would hide what follows: once blocks are missing, the rest waits for the frame.
        if known.bytes != offset || self.parts.journal.is_dead() {
            return false;
        }
        self.parts.journal.open_blocks(number, offset, bytes);
        if let Err(error) = self.parts.journal.commit() {
            self.journal_failed(&error);
            return false;
        }
        let covered = Covered { bytes: offset + bytes.len(), sum: known.sum.plus(runs.sum()) };
        self.covered.insert(number, covered);
        self.book(runs, counters);
        true
    }

    /// Covers what is still uncovered of a whole raw frame. `false` if the journal did not take it.
    pub(crate) fn cover_rest(&mut self, info: &FrameInfo, raw: &[u8], counters: &ChainCounters) -> bool {
        let known = self.covered.get(&info.number).copied().unwrap_or_default();
        let rest = raw.get(known.bytes..).unwrap_or_default();
        rest.is_empty() || self.cover(info.number, known.bytes, rest, &info.runs.behind(known.sum), counters)
    }

    /// A frame for a segment that takes no more bytes: the journal, or nothing.
    pub(crate) fn salvage(&mut self, info: &FrameInfo, raw: &[u8], counters: &ChainCounters) {
        if !self.cover_rest(info, raw, counters) {
            let known = self.covered.get(&info.number).copied().unwrap_or_default();
            self.fail_packets(&info.runs.behind(known.sum), counters);
        }
        self.note_packets(info);
        self.next_number = info.number.saturating_add(1);
    }

    fn book(&mut self, runs: &Runs, counters: &ChainCounters) {
        self.stored.add(runs);
        counters.store(runs);
    }

    /// Recovery may find some of them all the same.
    fn fail_packets(&mut self, runs: &Runs, counters: &ChainCounters) {
        self.stored.touch(runs);
        counters.fail(runs);
    }

    fn note_packets(&mut self, info: &FrameInfo) {
        if info.runs.sum().packets > 0 {
            let t_min = info.meta.t_min;
            self.t0 = Some(self.t0.map_or(t_min, |t0| t0.min(t_min)));
        }
    }

    /// Takes a frame of `raw_len` bytes, of which `append` gives the stored bytes, part by part, and their number.
    ///
    /// # Errors
    /// Those of `append`, which then has given nothing; with the frame.
    pub(crate) fn add(
        &mut self,
        mut info: FrameInfo,
        raw_len: usize,
        pool: &Pool,
        append: impl FnOnce(&mut dyn FnMut(&[u8])) -> Result<usize, FrameError>,
    ) -> Result<usize, Box<(FrameInfo, FrameError)>> {
        let number = info.number;
        info.meta.offset = self.output.end();
        let Self { output, parts, .. } = self;
        let stored_len = match append(&mut |part| output.append(pool, &mut *parts.sink, part)) {
            Ok(len) => len,
            Err(error) => return Err(Box::new((info, error))),
        };
        info.meta.stored_len = u32::try_from(stored_len).unwrap_or(u32::MAX);
        info.meta.raw_len = u32::try_from(raw_len).unwrap_or(u32::MAX);
        self.builder.frame(info.meta, &info.rows);
        self.note_packets(&info);
        self.next_number = info.number.saturating_add(1);
        let covered = self.covered.remove(&info.number).unwrap_or_default();
        let uncovered = info.runs.behind(covered.sum);
        self.unrecorded.push_back(Unrecorded { info, end: self.output.end(), uncovered, known: false });
        self.parts.link.stored_bytes.store(self.output.end(), Ordering::Relaxed);
        if number > 0 {
            // Release: partner is the Acquire load in `OpenSegment::stored_at_most` (chain/open.rs).
            self.parts.link.bound_bytes.fetch_add(to_u64(compress_bound(raw_len)), Ordering::Release);
        }
        Ok(stored_len)
    }

    /// The journal's turn: whole blocks go to the sink, what is in the file is recorded, and what has
    /// been waiting since the last tick is recorded with its bytes. Gives used rows to `done`.
    pub(crate) fn tick(&mut self, counters: &ChainCounters, done: &mut dyn FnMut(FrameRows)) {
        self.look(counters, done);
        if self.failed {
            return;
        }
        self.output.flush_blocks(&mut *self.parts.sink, self.parts.block);
        self.output.release(&mut *self.parts.sink);
        if self.parts.sink.failure().is_some() {
            self.fail(counters, done);
            return;
        }
        self.record(Reach::Old, counters, done);
        for frame in &mut self.unrecorded {
            frame.known = true;
        }
    }

    /// Looks whether the files are still where readers and recovery look for them.
    fn look(&mut self, counters: &ChainCounters, done: &mut dyn FnMut(FrameRows)) {
        if self.lost {
            return;
        }
        let Paths { open, journal, .. } = &self.parts.paths;
        if !disk::is_at(&self.parts.lock, open) {
            self.lose(counters, done);
        } else if !self.parts.journal.is_dead() && !disk::is_at(&self.parts.journal.file(), journal) {
            let path = journal.display();
            tracing::warn!(journal = %path, "the journal is gone: deleted or replaced; the segment will be cut");
            // What it alone had is in frames that are on their way to the segment.
            self.parts.journal.give_up();
            self.parts.link.failed.store(true, Ordering::Relaxed);
        }
    }

    /// The files are gone: nothing of this segment can be retrieved, now or later.
    fn lose(&mut self, counters: &ChainCounters, done: &mut dyn FnMut(FrameRows)) {
        (self.failed, self.lost) = (true, true);
        self.parts.journal.give_up();
        self.parts.link.lost.store(true, Ordering::Relaxed);
        self.parts.link.failed.store(true, Ordering::Relaxed);
        counters.segments_failed.fetch_add(1, Ordering::Relaxed);
        for frame in self.unrecorded.drain(..) {
            counters.fail(&frame.uncovered);
            done(frame.info.rows);
        }
        let stored = std::mem::take(&mut self.stored);
        counters.lose(&stored);
        say_lost(&self.parts.paths.open, stored.sum());
    }

    /// Journals frames whose bytes can be had, and those that `reach` names with their bytes.
    fn record(&mut self, reach: Reach, counters: &ChainCounters, done: &mut dyn FnMut(FrameRows)) {
        if self.parts.journal.is_dead() {
            return;
        }
        let in_file = self.parts.sink.completed().min(self.output.end());
        let mut end = in_file.max(self.tail_end);
        let reached = |frame: &Unrecorded| match reach {
            Reach::Old => frame.known,
            Reach::All => true,
            Reach::InFile => false,
        };
        if self.unrecorded.iter().any(|frame| frame.end > end && reached(frame)) {
            let mut tail = Vec::new();
            self.output.copy_from(end, &mut tail);
            self.parts.journal.tail(end, &tail);
            end = end.saturating_add(to_u64(tail.len()));
        }
        let count = self.unrecorded.iter().take_while(|frame| frame.end <= end).count();
        if count == 0 {
            self.parts.journal.discard();
            return;
        }
        for frame in self.unrecorded.iter().take(count) {
            self.parts.journal.frame(&frame.info.meta, &frame.info.rows);
        }
        if let Err(error) = self.parts.journal.commit() {
            self.journal_failed(&error);
            return;
        }
        self.tail_end = self.tail_end.max(end);
        let mut recorded = Runs::default();
        for frame in self.unrecorded.drain(..count) {
            recorded.join(&frame.uncovered);
            done(frame.info.rows);
        }
        self.book(&recorded, counters);
    }

    fn journal_failed(&mut self, error: &std::io::Error) {
        let path = self.parts.paths.journal.display();
        tracing::warn!(%error, journal = %path, "journal write failed; the segment will be cut");
        self.parts.link.failed.store(true, Ordering::Relaxed);
    }

    /// A write has failed: keeps what is whole, journals what can be, counts the rest as lost.
    fn fail(&mut self, counters: &ChainCounters, done: &mut dyn FnMut(FrameRows)) {
        self.failed = true;
        self.parts.link.failed.store(true, Ordering::Relaxed);
        counters.segments_failed.fetch_add(1, Ordering::Relaxed);
        while self.parts.sink.in_flight() > 0 {
            self.parts.sink.wait(Duration::from_secs(1));
        }
        if let Some(failure) = self.parts.sink.failure() {
            tracing::warn!(error = %failure.source, "{failure}: {}", self.parts.paths.open.display());
        }
        self.record(Reach::All, counters, done);
        // If the journal is full too: at least what needs no bytes in it.
        self.record(Reach::InFile, counters, done);
        let whole = self.unrecorded.front().map_or(self.output.end(), |frame| frame.info.meta.offset);
        for frame in std::mem::take(&mut self.unrecorded) {
            self.fail_packets(&frame.uncovered, counters);
            done(frame.info.rows);
        }
        // What was counted as lost must not come back: it would stand in two lines of the ledger.
        if let Err(error) = self.parts.sink.durable().truncate(whole) {
            tracing::warn!(%error, "cannot cut {} to its whole frames", self.parts.paths.open.display());
        }
    }

    /// Ends the file: no frame comes after this. Then [`Segment::poll_end`] until it has ended.
    pub(crate) fn finish(&mut self) {
        if !self.failed {
            self.output.flush_padded(&mut *self.parts.sink, self.parts.block);
        }
    }

    /// Whether every write has returned; after it, [`Segment::end`].
    pub(crate) fn drained(&mut self) -> bool {
        self.output.release(&mut *self.parts.sink);
        self.parts.sink.in_flight() == 0
    }

    /// Gives back what the disk keeps free for this segment: it may wait long for its seal, which does the same.
    pub(crate) fn trim(&self) {
        if !self.failed
            && self.parts.sink.failure().is_none()
            && let Err(error) = self.parts.sink.durable().truncate(self.output.end())
        {
            tracing::debug!(%error, "cannot cut {} yet", self.parts.paths.open.display());
        }
    }

    /// Takes the segment apart. Everything has been written or has failed.
    pub(crate) fn end(mut self, counters: &ChainCounters, done: &mut dyn FnMut(FrameRows)) -> Ended {
        self.look(counters, done);
        if self.lost {
            return Ended::Lost;
        }
        if self.parts.sink.failure().is_some() && !self.failed {
            self.fail(counters, done);
        }
        if !self.failed {
            self.record(Reach::All, counters, done);
        }
        let mut unrecorded = Runs::default();
        for frame in self.unrecorded.drain(..) {
            unrecorded.join(&frame.uncovered);
            done(frame.info.rows);
        }
        let SegmentParts { mut name, paths, sink, lock, .. } = self.parts;
        let stored = self.stored;
        let Some(t0) = self.t0 else { return Ended::Empty(Broken { name, paths, lock, stored }) };
        if self.failed {
            return Ended::Broken(Broken { name, paths, lock, stored });
        }
        name.t0 = t0;
        let (durable, len, builder) = (sink.durable(), self.output.end(), self.builder);
        Ended::Complete(Box::new(Complete {
            name,
            paths,
            durable,
            lock,
            len,
            builder,
            hidden: unrecorded.sum().packets,
            unrecorded,
            stored,
        }))
    }
}

/// Says that a segment is gone, with what it held.
pub(crate) fn say_lost(open: &Path, stored: Sum) {
    let (path, packets) = (open.display(), stored.packets);
    tracing::warn!(
        %path,
        packets,
        "an open segment is gone: deleted, moved or replaced while it was written; its packets count as write_error"
    );
}
