//! The stage thread of a chain: full frames in, compressed bytes to the sink, the journal between.
//!
//! Jobs come in order. Opening a segment and journalling blocks of the open frame happen as they
//! arrive; frames and seals wait their turn in `work`, which the frame buffers bound. Between any two
//! frames the thread looks at the clock: at each tick every packet that existed at the tick before is
//! covered, so none is older than two ticks when a `kill -9` strikes. While the disk has no room for
//! another write nothing is compressed, but ticks go on.
//!
//! Must never: wait for the worker, end because a write failed.

use crate::buffer::Pool;
use crate::counters::ChainCounters;
use crate::disk;
use crate::error::{FileError, WriteError};
use crate::home::Home;
use crate::journal::JournalFile;
use crate::level::{Effort, LevelPolicy};
use crate::live::LiveFile;
use crate::output::WRITE_BYTES;
use crate::seconds::Runs;
use crate::segment::{Ended, FrameInfo, Link, Paths, Segment, SegmentParts};
use crate::settle::{Marks, Place};
use crate::sink::to_u64;
use crate::sinks::SinkMaker;
use crate::sync::SyncJob;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tapedeck_index::frame::{self, Encoder, FRAME_BYTES_MAX, FrameError};
use tapedeck_index::journal::Start;
use tapedeck_index::name::{FileKind, SegmentName, hour_folder};
use tapedeck_index::pcapng::{self, Counters, InterfaceInfo, SectionInfo};
use tapedeck_index::rows::FrameRows;
use tapedeck_index::sidecar::FrameMeta;
use tapedeck_packet::{Timestamp, UtcHour};

/// Time between two ticks of the journal.
pub(crate) const TICK: Duration = Duration::from_millis(80);
/// Time between two looks at segments that wait for their last writes.
const DRAIN_POLL: Duration = Duration::from_millis(5);
/// As many such segments of a source that waits; each holds files open, and 64 MiB of the disk.
const ENDING_WAITING: usize = 2;

/// What the worker sends.
#[expect(clippy::large_enum_variant, reason = "sent by value, so that the worker allocates nothing")]
pub(crate) enum Job {
    /// A segment begins.
    Open(Box<OpenJob>),
    /// New blocks of the open frame, for the journal.
    Blocks { seq: u32, number: u32, offset: usize, bytes: Vec<u8>, runs: Runs },
    /// A frame is full.
    Frame(Box<FrameJob>),
    /// A segment ends; its last statistics.
    Seal { seq: u32, ts: Timestamp, counters: Counters },
}

/// A segment that begins.
pub(crate) struct OpenJob {
    pub(crate) link: Arc<Link>,
    pub(crate) name: SegmentName,
    pub(crate) hour: UtcHour,
    /// What its header says of the interface.
    pub(crate) interface: Arc<InterfaceInfo>,
    pub(crate) counters: Counters,
}

/// A full frame.
pub(crate) struct FrameJob {
    pub(crate) seq: u32,
    pub(crate) info: FrameInfo,
    pub(crate) raw: Vec<u8>,
    /// It waited already at the last tick.
    pub(crate) known: bool,
}

/// Buffers on their way back to the worker.
pub(crate) struct Returns {
    pub(crate) raw: Sender<Vec<u8>>,
    pub(crate) copies: Sender<Vec<u8>>,
    pub(crate) rows: Sender<FrameRows>,
}

impl Returns {
    /// Gives a frame buffer back; one that grew for a huge packet shrinks first.
    fn raw(&self, mut raw: Vec<u8>) {
        raw.clear();
        if raw.capacity() > 2 * FRAME_BYTES_MAX {
            raw.shrink_to(FRAME_BYTES_MAX);
        }
        let _ = self.raw.try_send(raw);
    }

    fn rows(&self, rows: FrameRows) {
        let _ = self.rows.try_send(rows);
    }
}

/// What a stage is made of.
pub(crate) struct StageParts {
    pub(crate) store: PathBuf,
    pub(crate) home: Home,
    pub(crate) section: SectionInfo,
    /// Where a live chain states how far it is whole.
    pub(crate) live: Option<LiveFile>,
    pub(crate) marks: Marks,
    pub(crate) segment_bytes: u64,
    /// The source waits when there is too much to do.
    pub(crate) waits: bool,
    pub(crate) sinks: Box<dyn SinkMaker>,
    pub(crate) jobs: Receiver<Job>,
    pub(crate) sync: Sender<SyncJob>,
    pub(crate) returns: Returns,
    pub(crate) counters: Arc<ChainCounters>,
    pub(crate) press: Press,
}

/// The stage thread's state.
pub(crate) struct Stage {
    parts: StageParts,
    open: Vec<Segment>,
    /// Segments whose last writes are in flight.
    ending: Vec<Segment>,
    work: VecDeque<Job>,
    next_tick: Instant,
    /// The latest segment that was to be opened.
    latest: Option<u32>,
}

impl Stage {
    pub(crate) fn new(parts: StageParts) -> Self {
        Self {
            parts,
            open: Vec::new(),
            ending: Vec::new(),
            work: VecDeque::new(),
            next_tick: Instant::now() + TICK,
            latest: None,
        }
    }

    /// Runs until the worker hangs up, then ends every segment. The live file must outlast the seals.
    pub(crate) fn run(mut self) -> Option<LiveFile> {
        loop {
            let hung_up = self.intake();
            let worked = self.work_once();
            self.tick_if_due();
            self.poll_ending();
            if hung_up && !worked && self.work.is_empty() {
                break;
            }
        }
        while let Some(segment) = self.open.pop() {
            self.end_segment(segment);
        }
        while !self.ending.is_empty() {
            self.wait_ending();
        }
        self.parts.live.take()
    }

    /// Takes in what has come; waits for something only if there is nothing to do.
    fn intake(&mut self) -> bool {
        let mut hung_up = false;
        if self.work.is_empty() {
            let idle = if self.ending.is_empty() { TICK } else { DRAIN_POLL };
            let until_tick = self.next_tick.saturating_duration_since(Instant::now());
            match self.parts.jobs.recv_timeout(until_tick.min(idle)) {
                Ok(job) => self.accept(job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => hung_up = true,
            }
        }
        while let Ok(job) = self.parts.jobs.try_recv() {
            self.accept(job);
        }
        hung_up
    }

    fn accept(&mut self, job: Job) {
        match job {
            Job::Open(job) => self.open_segment(&job),
            Job::Blocks { seq, number, offset, mut bytes, runs } => {
                if let Some(segment) = self.open.iter_mut().find(|s| s.seq() == seq) {
                    segment.cover(number, offset, &bytes, &runs, &self.parts.counters);
                }
                bytes.clear();
                let _ = self.parts.returns.copies.try_send(bytes);
            }
            job => self.work.push_back(job),
        }
    }

    /// Does one frame or seal, if there is one and the disk has room; waits a little for room.
    fn work_once(&mut self) -> bool {
        let seq = match self.work.front() {
            Some(Job::Frame(job)) => job.seq,
            Some(Job::Seal { seq, .. }) => *seq,
            _ => return false,
        };
        let until_tick = self.next_tick.saturating_duration_since(Instant::now());
        let (counters, returns) = (&self.parts.counters, &self.parts.returns);
        if let Some(segment) = self.open.iter_mut().find(|s| s.seq() == seq)
            && !segment.ready(counters, &mut |rows| returns.rows(rows))
        {
            segment.wait(until_tick);
            return true;
        }
        match self.work.pop_front() {
            Some(Job::Frame(job)) => self.frame(*job),
            Some(Job::Seal { seq, ts, counters }) => self.seal(seq, ts, &counters),
            _ => {}
        }
        true
    }

    fn frame(&mut self, job: FrameJob) {
        let FrameJob { seq, info, raw, .. } = job;
        let waiting = self.work.len() + self.parts.jobs.len();
        let rows = match self.open.iter_mut().find(|s| s.seq() == seq) {
            Some(segment) => self.parts.press.frame(segment, info, &raw, waiting, &self.parts.counters),
            // The segment could not be opened.
            None => {
                self.parts.counters.fail(&info.runs);
                Some(info.rows)
            }
        };
        if let Some(rows) = rows {
            self.parts.returns.rows(rows);
        }
        self.parts.returns.raw(raw);
    }

    fn seal(&mut self, seq: u32, ts: Timestamp, counters: &Counters) {
        let Some(at) = self.open.iter().position(|s| s.seq() == seq) else { return };
        let mut segment = self.open.remove(at);
        let mut raw = Vec::new();
        pcapng::encode_statistics(&mut raw, ts, counters);
        let info = bare_frame(segment.next_number());
        self.parts.press.frame(&mut segment, info, &raw, 0, &self.parts.counters);
        self.end_segment(segment);
    }

    fn end_segment(&mut self, mut segment: Segment) {
        segment.finish();
        self.ending.push(segment);
        while self.parts.waits && self.ending.len() > ENDING_WAITING {
            self.wait_ending();
        }
    }

    /// Waits a little for last writes.
    fn wait_ending(&mut self) {
        for segment in &mut self.ending {
            segment.wait(DRAIN_POLL);
        }
        self.poll_ending();
    }

    /// Hands over the segments whose last write has returned.
    fn poll_ending(&mut self) {
        let mut at = 0;
        while let Some(segment) = self.ending.get_mut(at) {
            if !segment.drained() {
                at += 1;
                continue;
            }
            let segment = self.ending.remove(at);
            if self.parts.waits {
                segment.trim();
            }
            let seq = segment.seq();
            let returns = &self.parts.returns;
            let job = match segment.end(&self.parts.counters, &mut |rows| returns.rows(rows)) {
                Ended::Complete(complete) => {
                    self.parts.counters.hidden.fetch_add(complete.hidden, Ordering::Relaxed);
                    SyncJob::Seal(seq, complete)
                }
                Ended::Broken(broken) => SyncJob::Recover(seq, broken),
                Ended::Empty(empty) => SyncJob::Discard(seq, empty),
                Ended::Lost => SyncJob::Lost(seq),
            };
            let _ = self.parts.sync.send(job);
        }
    }

    fn tick_if_due(&mut self) {
        let now = Instant::now();
        if now < self.next_tick {
            return;
        }
        self.next_tick = now + TICK;
        let (counters, returns) = (&self.parts.counters, &self.parts.returns);
        for job in &mut self.work {
            let Job::Frame(job) = job else { continue };
            if job.known
                && let Some(segment) = self.open.iter_mut().find(|s| s.seq() == job.seq)
            {
                segment.cover_rest(&job.info, &job.raw, counters);
            }
            job.known = true;
        }
        for segment in self.open.iter_mut().chain(&mut self.ending) {
            segment.tick(counters, &mut |rows| returns.rows(rows));
        }
        self.settle();
    }

    /// States how far the chain is whole.
    fn settle(&mut self) {
        let Some(frontier) = self.frontier() else { return };
        let Some(until) = self.parts.marks.reached(frontier) else { return };
        if let Some(live) = &mut self.parts.live {
            live.state(until);
        }
    }

    /// The first place of the chain from which on not every packet can be read or is counted as lost.
    /// Segments of a live source follow each other; `None` where that cannot be told.
    fn frontier(&self) -> Option<Place> {
        if self.parts.counters.hidden.load(Ordering::Relaxed) > 0 {
            return None;
        }
        // Nothing of a segment that has ended or could not be opened is left to wait for.
        let mut frontier = self.latest.map_or(Place::START, Place::behind);
        for (segment, ended) in
            self.open.iter().map(|s| (s, false)).chain(self.ending.iter().map(|s| (s, true)))
        {
            let frames = self.work.iter().filter_map(|job| match job {
                Job::Frame(job) if job.seq == segment.seq() => Some(&**job),
                _ => None,
            });
            let (frame, bytes, all) = segment.readable(frames);
            if !(ended && all) {
                frontier = frontier.min(Place { seq: segment.seq(), frame, bytes });
            }
        }
        Some(frontier)
    }

    fn open_segment(&mut self, job: &OpenJob) {
        self.latest = Some(job.name.seq);
        let folder = self.parts.store.join(hour_folder(job.hour));
        let paths = Paths {
            store: self.parts.store.clone(),
            open: folder.join(job.name.file(FileKind::Open)),
            journal: folder.join(job.name.file(FileKind::Journal)),
            folder,
        };
        match self.create(job, &paths) {
            Ok(segment) => {
                // The sync thread ends only after this one.
                let _ = self.parts.sync.send(SyncJob::Watch(segment.seq(), segment.watch()));
                self.open.push(segment);
            }
            Err(error) => {
                tracing::warn!(error = %error.source, "cannot {} {}", error.act, error.path.display());
                job.link.failed.store(true, Ordering::Relaxed);
                self.parts.counters.segments_failed.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The files of a new segment, its journal with the header frame in it, and that frame.
    fn create(&mut self, job: &OpenJob, paths: &Paths) -> Result<Segment, FileError> {
        self.parts.home.renew()?;
        disk::make_folder(&paths.folder)?;
        let new = paths.open.with_extension(disk::NEW_EXTENSION);
        let lock = Arc::new(disk::create_locked(&new, self.parts.sinks.direct())?);
        let result = self.create_locked(job, paths, &lock);
        let result = result.and_then(|segment| disk::rename_new(&new, &paths.open).map(|()| segment));
        if result.is_err() {
            // Nothing of it may stay: the name is never used again.
            let _ = disk::remove(&paths.journal).and_then(|()| disk::remove(&new));
        }
        let mut segment = result?;
        let mut raw = Vec::new();
        header_blocks(&mut raw, &self.parts.section, &job.interface, job.name.t0, &job.counters);
        let counters = &self.parts.counters;
        // From here on the journal alone makes a segment of what comes.
        segment.cover(0, 0, &raw, &Runs::default(), counters);
        self.parts.press.frame(&mut segment, bare_frame(0), &raw, 0, counters);
        Ok(segment)
    }

    fn create_locked(
        &self,
        job: &OpenJob,
        paths: &Paths,
        lock: &Arc<std::fs::File>,
    ) -> Result<Segment, FileError> {
        let sink =
            self.parts.sinks.make(Arc::clone(lock), self.parts.segment_bytes, self.parts.press.pool.arena());
        let sink = sink.map_err(FileError::at("set up writing of", &paths.open))?;
        self.parts.counters.set_sink(sink.kind());
        let file = disk::create_locked(&paths.journal, false)?;
        let mut journal = JournalFile::new(file);
        journal.start(&Start {
            name: job.name.clone(),
            section: self.parts.section.clone(),
            interface: InterfaceInfo::clone(&job.interface),
            first_arrival: job.counters.delivered,
        });
        journal.commit().map_err(FileError::at("write", &paths.journal))?;
        Ok(Segment::new(SegmentParts {
            name: job.name.clone(),
            paths: paths.clone(),
            link: Arc::clone(&job.link),
            sink,
            lock: Arc::clone(lock),
            journal,
            block: self.parts.sinks.block(),
        }))
    }
}

/// Compresses frames into segments.
pub(crate) struct Press {
    policy: LevelPolicy,
    encoder: Encoder,
    frame_buffers: usize,
    pool: Pool,
    scratch: Vec<u8>,
}

impl Press {
    /// `open_segments` at once, written in blocks of `align` bytes.
    pub(crate) fn new(
        policy: LevelPolicy,
        frame_buffers: usize,
        open_segments: usize,
        align: usize,
    ) -> Result<Self, WriteError> {
        // As many as can be in flight, and one being filled per open segment.
        let depth = usize::try_from(crate::sink::uring::DEPTH).unwrap_or(8);
        let pool = Pool::new(depth + 1 + open_segments, WRITE_BYTES, align);
        let pool = pool.ok_or(WriteError::Memory(depth + 1 + open_segments))?;
        Ok(Self { policy, encoder: Encoder::new()?, frame_buffers, pool, scratch: Vec::new() })
    }

    /// Compresses a frame into `segment`, or salvages it if that has failed. Gives back rows that
    /// nobody needs any more.
    fn frame(
        &mut self,
        segment: &mut Segment,
        info: FrameInfo,
        raw: &[u8],
        waiting: usize,
        counters: &ChainCounters,
    ) -> Option<FrameRows> {
        if segment.failed() {
            segment.salvage(&info, raw, counters);
            return Some(info.rows);
        }
        let effort = self.policy.next(waiting, self.frame_buffers);
        let Self { encoder, pool, scratch, .. } = self;
        let packets = info.runs.sum().packets;
        let added = segment.add(info, raw.len(), pool, |append| store(encoder, effort, raw, scratch, append));
        let stored_len = match added {
            Ok(len) => len,
            Err(refused) => {
                let (info, error) = *refused;
                // Only a packet of over 4 GiB could get here.
                tracing::error!(%error, "frame cannot be stored");
                counters.fail(&info.runs);
                return Some(info.rows);
            }
        };
        self.policy.observe(effort, raw.len(), stored_len);
        if packets > 0 {
            counters.set_level(effort);
        }
        counters.raw_bytes.fetch_add(to_u64(raw.len()), Ordering::Relaxed);
        counters.file_bytes.fetch_add(to_u64(stored_len), Ordering::Relaxed);
        None
    }
}

/// Makes a frame and gives it on; returns its length. What is not compressed is not copied to `scratch` first.
fn store(
    encoder: &mut Encoder,
    effort: Effort,
    raw: &[u8],
    scratch: &mut Vec<u8>,
    append: &mut dyn FnMut(&[u8]),
) -> Result<usize, FrameError> {
    if let Effort::Zstd(level) = effort {
        scratch.clear();
        if let Ok(len) = encoder.compress(level, raw, scratch) {
            append(scratch);
            return Ok(len);
        }
    }
    frame::store_raw_with(raw, append)
}

/// Section, interface and first statistics: all of frame 0.
fn header_blocks(
    raw: &mut Vec<u8>,
    section: &SectionInfo,
    interface: &InterfaceInfo,
    ts: Timestamp,
    counters: &Counters,
) {
    pcapng::encode_section(raw, section);
    pcapng::encode_interface(raw, interface);
    pcapng::encode_statistics(raw, ts, counters);
}

/// Most stored bytes of frame 0.
pub(crate) fn header_bytes(section: &SectionInfo, interface: &InterfaceInfo) -> u64 {
    let mut raw = Vec::new();
    header_blocks(&mut raw, section, interface, Timestamp::ZERO, &Counters::default());
    to_u64(frame::compress_bound(raw.len()))
}

/// A frame without packets.
fn bare_frame(number: u32) -> FrameInfo {
    FrameInfo {
        number,
        meta: FrameMeta {
            offset: 0,
            stored_len: 0,
            raw_len: 0,
            packets: 0,
            t_min: Timestamp::ZERO,
            t_max: Timestamp::ZERO,
            first_arrival: 0,
            sorted: true,
        },
        rows: FrameRows::default(),
        runs: Runs::default(),
    }
}
