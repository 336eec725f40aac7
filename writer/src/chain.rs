//! A chain: what the worker of one queue calls, and the two threads behind it.
//!
//! The worker side decides where a packet goes: which segment (its UTC hour, give or take two
//! seconds), which frame (cut at 512 KiB, at an age, when another segment takes over), when a segment
//! ends (size, age, hour). It copies the packet once, into the open frame, and notes its flow rows. The
//! stage thread (`stage`) compresses and journals, the sync thread (`sync`) syncs and seals.
//!
//! Between a packet's arrival and its place in a frame there is no lock and no allocation; with
//! [`WhenFull::Shed`] nothing waits. Must never: lose a packet that is not counted.

mod open;
mod place;
#[cfg(test)]
mod tests;

use crate::config::{ChainConfig, WhenFull};
use crate::counters::{ChainCounters, CounterSnapshot, Sum};
use crate::error::WriteError;
use crate::home::{Home, Root};
use crate::level::LevelPolicy;
use crate::live::LiveFile;
use crate::seconds::{Delta, Slots};
use crate::settle::{self, Mark, Marks, Place, Slot};
use crate::sink::SinkKind;
use crate::sinks::{self, SinkMaker};
use crate::stage::{self, Job, Press, Returns, Stage, StageParts};
use crate::sync::{SyncReport, Syncer};
use crossbeam_channel::{Receiver, Sender, bounded};
use open::{OpenFrame, OpenSegment, fits_hour};
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tapedeck_index::frame::FRAME_BYTES_MAX;
use tapedeck_index::pcapng::{self, Counters, InterfaceInfo, PacketRecord};
use tapedeck_index::rows::{FrameRows, RowTable};
use tapedeck_packet::time::NANOS_PER_SEC;
use tapedeck_packet::{Timestamp, Walk};

/// Fewest frame buffers a chain works with.
const FRAME_BUFFERS_MIN: usize = 4;
/// Copies of the open frame's new blocks under way to the journal at most.
const COPIES: usize = 4;
/// New blocks up to this many bytes are journalled at once; more only if the frame is slow to fill.
const COPY_AT_ONCE_BYTES: usize = 64 * 1024;
/// Time before another segment is tried after one failed, doubling up to the maximum.
const BACK_OFF: Duration = Duration::from_millis(100);
/// Longest such time.
const BACK_OFF_MAX: Duration = Duration::from_secs(5);
/// Jobs of the sync thread that may wait; more and the stage waits.
const SYNC_JOBS: usize = 1024;
/// The same for a source that waits: each segment that is to be sealed holds files open.
const SYNC_JOBS_WAITING: usize = 16;

/// What became of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// Taken in; it will be counted `stored`, or `write_error` if the disk fails it.
    Stored,
    /// Dropped for want of a free frame buffer; counted `shed`.
    Shed,
    /// Dropped because the last segment failed a moment ago; counted `write_error`.
    Failed,
}

/// How a chain ended.
#[derive(Clone, Debug)]
pub struct ChainReport {
    /// The final counters; `pending` is 0.
    pub counters: CounterSnapshot,
    /// Open segments that could not be sealed: hidden, with their journals, for recovery.
    pub unsealed: Vec<PathBuf>,
}

/// The writing end of a store for one queue of one interface. Belongs to one worker thread.
pub struct Chain {
    config: ChainConfig,
    /// What the headers of the next segments say of the interface.
    interface: Arc<InterfaceInfo>,
    counters: Arc<ChainCounters>,
    sink: SinkKind,
    sink_reason: Option<String>,
    jobs: Sender<Job>,
    raw: Receiver<Vec<u8>>,
    /// Frame buffers that lie ready, the one that came back last on top.
    spare_raw: Vec<Vec<u8>>,
    copies: Receiver<Vec<u8>>,
    rows: Receiver<FrameRows>,
    marks: Slot,
    /// The latest segment.
    latest_seq: Option<u32>,
    /// Open segments; the last one takes the packets, the first one has been unused for longest.
    open: Vec<OpenSegment>,
    /// The frame being filled; of the last segment.
    frame: Option<OpenFrame>,
    spare_tables: Vec<RowTable>,
    /// Most bytes the header of a segment takes.
    header_bytes: u64,
    /// Counters of the latest tick, for statistics blocks.
    latest: Counters,
    /// Clock of the latest tick.
    wall: Instant,
    /// Packets by second since the last tick.
    seconds: Slots,
    /// Packets copied into frames, for `isb_usrdeliv`.
    delivered: u64,
    /// Packets lost since the last one that was taken, for `epb_dropcount`.
    lost: u64,
    back_off: Duration,
    retry_at: Option<Instant>,
    threads: Option<Threads>,
}

struct Threads {
    stage: JoinHandle<Option<LiveFile>>,
    sync: JoinHandle<SyncReport>,
}

/// A table for the rows of a segment.
fn row_table() -> RowTable {
    let table = RowTable::new();
    crate::sys::prefer_huge_pages(&table.memory());
    table
}

/// Why a packet is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Refused {
    Full,
    Failing,
}

impl Chain {
    /// Starts the threads of a chain. Creates no segment: the first packet does.
    ///
    /// # Errors
    /// [`WriteError`]: the store cannot be written, the demanded sink does not work, memory or threads
    /// cannot be had.
    pub fn start(config: ChainConfig) -> Result<Self, WriteError> {
        sinks::check_store(&config.store)?;
        let sinks = sinks::choose(&config.store, config.sink)?;
        let (kind, reason) = (sinks.kind, sinks.reason.clone());
        Self::start_with(config, Box::new(sinks), kind, reason)
    }

    /// As [`Chain::start`], with sinks of the caller's making.
    fn start_with(
        mut config: ChainConfig,
        sinks: Box<dyn SinkMaker>,
        sink: SinkKind,
        sink_reason: Option<String>,
    ) -> Result<Self, WriteError> {
        config.frame_buffers = config.frame_buffers.max(FRAME_BUFFERS_MIN);
        config.open_segments = config.open_segments.max(1);
        let counters = Arc::new(ChainCounters::default());
        let (raw_home, raw) = frame_buffers(config.frame_buffers)?;
        let (copies_home, copies) = bounded(COPIES);
        for _ in 0..COPIES {
            copies_home.try_send(Vec::new()).map_err(|_| WriteError::Memory(COPIES))?;
        }
        let (rows_home, rows) = bounded(config.frame_buffers);
        // Per frame buffer: a segment may begin with it, be covered, be full, and the segment end.
        // With this bound a send never waits: buffers run out first.
        let (jobs, job_queue) = bounded(4 * config.frame_buffers + COPIES + 2 * config.open_segments + 8);
        let waits = config.when_full == WhenFull::Wait;
        let (sync, sync_queue) = bounded(if waits { SYNC_JOBS_WAITING } else { SYNC_JOBS });
        let policy = LevelPolicy::new(config.level, !waits);
        let press = Press::new(policy, config.frame_buffers, config.open_segments, sinks.block())?;
        let marks = Slot::default();
        let parts = StageParts {
            live: config.live.then(|| LiveFile::create(&config)).transpose()?,
            marks: Marks::new(Arc::clone(&marks)),
            store: config.store.clone(),
            home: Home::of(&config.store)?,
            section: config.section.clone(),
            segment_bytes: config.segment_bytes,
            waits,
            sinks,
            jobs: job_queue,
            sync,
            returns: Returns { raw: raw_home, copies: copies_home, rows: rows_home },
            counters: Arc::clone(&counters),
            press,
        };
        let (root, spare) = (Root::of(&config.store), config.frame_buffers);
        let header_bytes = stage::header_bytes(&config.section, &config.interface);
        let syncer = Syncer::new(sync_queue, Arc::clone(&counters), config.sync_interval, root);
        let threads = spawn(parts, syncer, config.stage_cpu)?;
        Ok(Self {
            spare_tables: vec![row_table()],
            interface: Arc::new(config.interface.clone()),
            config,
            counters,
            sink,
            sink_reason,
            jobs,
            raw,
            spare_raw: Vec::with_capacity(spare),
            copies,
            rows,
            marks,
            latest_seq: None,
            open: Vec::new(),
            frame: None,
            header_bytes,
            latest: Counters::default(),
            wall: Instant::now(),
            seconds: Slots::default(),
            delivered: 0,
            lost: 0,
            back_off: BACK_OFF,
            retry_at: None,
            threads: Some(threads),
        })
    }

    /// The live counters.
    #[must_use]
    pub fn counters(&self) -> Arc<ChainCounters> {
        Arc::clone(&self.counters)
    }

    /// Frame buffers that are free now, and how many there are: what is left before packets are shed.
    #[must_use]
    pub fn room(&self) -> (usize, usize) {
        (self.raw.len() + self.spare_raw.len(), self.config.frame_buffers)
    }

    /// The sink that runs, and why it is the plain one where it is.
    #[must_use]
    pub fn sink(&self) -> (SinkKind, Option<&str>) {
        (self.sink, self.sink_reason.as_deref())
    }

    /// Takes a packet: copies it into the open frame and notes the layers of its `walk`.
    ///
    /// With [`WhenFull::Shed`] it never waits. `packet.dropped` is written as `epb_dropcount`; packets
    /// that this chain had to drop since the last one are added to it.
    ///
    /// It is booked in the second of its time; see [`Chain::append_in`].
    pub fn append(&mut self, packet: &PacketRecord<'_>, walk: &Walk) -> Appended {
        self.append_in(packet.ts.nanos() / NANOS_PER_SEC, packet, walk)
    }

    /// As [`Chain::append`], for a source that has counted the packet in a UTC second already: it is booked in
    /// that one, so that both add up.
    pub fn append_in(&mut self, second: u64, packet: &PacketRecord<'_>, walk: &Walk) -> Appended {
        let bytes = crate::sink::to_u64(packet.bytes.len());
        self.counters.appended.add_single(1, bytes);
        // Nearly never: a copy of each packet's record would stall on fields that were just written in halves.
        let counted;
        let packet = if self.lost == 0 {
            packet
        } else {
            counted = PacketRecord { dropped: packet.dropped.saturating_add(self.lost), ..*packet };
            &counted
        };
        let placed = self.place(packet);
        let books = self.seconds.of(second, &self.counters);
        let (one, wire) = (Sum { packets: 1, bytes }.into(), u64::from(packet.orig_len));
        books.appended += one;
        books.wire_bytes = books.wire_bytes.wrapping_add(i64::from(packet.orig_len));
        let Err(refused) = placed else {
            if bytes < wire {
                books.short += Sum { packets: 1, bytes: wire - bytes }.into();
            }
            books.entered += one;
            self.put(packet, second, walk);
            self.counters.entered.add_single(1, bytes);
            self.lost = 0;
            return Appended::Stored;
        };
        self.lost = packet.dropped.saturating_add(1);
        if refused == Refused::Full {
            books.shed += one;
            self.counters.shed.add_single(1, bytes);
            Appended::Shed
        } else {
            books.refused += one;
            self.counters.refused.add_single(1, bytes);
            Appended::Failed
        }
    }

    /// Books a packet that a filter left out, of `wire_bytes` on the wire, in a UTC second. It is in no other
    /// count of the chain.
    pub fn leave_out(&mut self, second: u64, wire_bytes: u32) {
        let books = self.seconds.of(second, &self.counters);
        books.filtered += Delta { packets: 1, bytes: i64::from(wire_bytes) };
    }

    /// Where the packet stands that was taken last: number of the segment in the run, of the frame in the
    /// segment.
    #[must_use]
    pub fn position(&self) -> (u32, u32) {
        let segment = self.open.last().map_or(u32::MAX, |segment| segment.seq);
        (segment, self.frame.as_ref().map_or(u32::MAX, |frame| frame.number))
    }

    /// Copies a packet into the open frame, after a statistics block if one is due.
    fn put(&mut self, packet: &PacketRecord<'_>, second: u64, walk: &Walk) {
        self.delivered += 1;
        let due = self.statistics_len(packet.ts) > 0;
        let counters = self.statistics();
        let (Some(segment), Some(frame)) = (self.open.last_mut(), self.frame.as_mut()) else { return };
        // A packet larger than a frame has its frame to itself.
        let alone = pcapng::packet_block_len(packet) > FRAME_BYTES_MAX / 2;
        if due && !alone {
            pcapng::encode_statistics(&mut frame.raw, packet.ts, &counters);
            segment.last_statistics = packet.ts;
        }
        pcapng::encode_packet(&mut frame.raw, packet);
        segment.last_packet = segment.last_packet.max(packet.ts);
        segment.rows.add(walk);
        frame.note(packet.ts, second, crate::sink::to_u64(packet.bytes.len()));
    }

    /// Bytes of the statistics block that is due before a packet of this time; 0 if none is.
    fn statistics_len(&self, ts: Timestamp) -> usize {
        let due = |s: &OpenSegment| ts.nanos() >= s.last_statistics.nanos().saturating_add(NANOS_PER_SEC);
        if self.open.last().is_some_and(due) { open::STATISTICS_BYTES } else { 0 }
    }

    /// Counters for a statistics block written now.
    fn statistics(&self) -> Counters {
        Counters { delivered: self.delivered, ..self.latest }
    }

    /// Another filter decides which packets come from here on: the open segments end, and those that follow
    /// say so in their header (`if_filter`).
    pub fn set_filter(&mut self, filter: Option<String>) {
        if self.interface.filter != filter {
            self.begin_anew(InterfaceInfo { filter, ..InterfaceInfo::clone(&self.interface) });
        }
    }

    /// Something has changed that segments should not mix, such as the clock: the open ones end, and those that
    /// follow have this `if_description`.
    pub fn set_description(&mut self, description: Option<String>) {
        self.begin_anew(InterfaceInfo { description, ..InterfaceInfo::clone(&self.interface) });
    }

    fn begin_anew(&mut self, interface: InterfaceInfo) {
        self.cut_frame();
        self.end_all_segments();
        self.interface = Arc::new(interface);
        self.header_bytes = stage::header_bytes(&self.config.section, &self.interface);
    }

    /// Says that no packet of time `until` or before will be appended any more; a live source calls it
    /// before [`Chain::tick`]. Readers see packets of an open segment up to the time said last, once
    /// every packet appended before that call can be read: so what they see has no hole.
    pub fn settle(&mut self, until: Timestamp) {
        let place = match (self.open.last(), &self.frame) {
            (Some(segment), Some(frame)) => {
                Place { seq: segment.seq, frame: frame.number, bytes: frame.raw.len() }
            }
            (Some(segment), None) => Place { seq: segment.seq, frame: segment.next_number, bytes: 0 },
            (None, _) => self.latest_seq.map_or(Place::START, Place::behind),
        };
        settle::leave(&self.marks, Mark { until, place });
    }

    /// The worker's clock: call it at least every 50 ms, also when no packet comes. `now` is UTC;
    /// `counters` go into the statistics blocks, except `delivered`, which the chain counts itself.
    ///
    /// Journals new packets, cuts frames and segments by age, writes statistics each second.
    pub fn tick(&mut self, now: Timestamp, counters: Counters) {
        self.tick_at(now, counters, Instant::now());
    }

    pub(crate) fn tick_at(&mut self, now: Timestamp, counters: Counters, wall: Instant) {
        self.latest = counters;
        self.wall = wall;
        self.seconds.try_hand_over(&self.counters);
        self.end_failed_segments();
        if self.config.live {
            self.live_statistics(now);
        }
        if self.frame.as_ref().is_some_and(|f| wall.duration_since(f.opened) >= self.config.frame_age) {
            self.cut_frame();
        }
        self.end_old_segments(now);
        self.journal_frame();
    }

    /// Statistics each second of an open segment, also when it is idle.
    fn live_statistics(&mut self, now: Timestamp) {
        let Some(segment) = self.open.last() else { return };
        if self.statistics_len(now) == 0 || !fits_hour(segment.hour, now) {
            return;
        }
        let room = |f: &OpenFrame| f.raw.len() + open::STATISTICS_BYTES <= FRAME_BYTES_MAX;
        if !self.frame.as_ref().is_some_and(room) {
            self.cut_frame();
            self.end_full_segment(0);
            if self.open.is_empty() {
                return;
            }
            // No buffer: the stage has more than enough to do; the next tick will do.
            let Some(raw) = self.spare_raw() else { return };
            self.begin_frame(raw);
        }
        let counters = self.statistics();
        if let (Some(segment), Some(frame)) = (self.open.last_mut(), self.frame.as_mut()) {
            pcapng::encode_statistics(&mut frame.raw, now, &counters);
            segment.last_statistics = now;
        }
    }

    /// Sends the open frame's new blocks to the journal: at once if they are few, or if the frame was
    /// open at the last tick already. A frame that fills faster reaches the stage by itself.
    fn journal_frame(&mut self) {
        let (Some(segment), Some(frame)) = (self.open.last(), self.frame.as_mut()) else { return };
        let new = frame.raw.get(frame.copied..).unwrap_or_default();
        if new.is_empty() || (!frame.slow && new.len() > COPY_AT_ONCE_BYTES) {
            frame.slow = true;
            return;
        }
        // All copies under way: the stage is behind; the next tick sends more at once.
        let Ok(mut bytes) = self.copies.try_recv() else { return };
        bytes.clear();
        bytes.extend_from_slice(new);
        let job = Job::Blocks {
            seq: segment.seq,
            number: frame.number,
            offset: frame.copied,
            bytes,
            runs: frame.runs.behind(frame.copied_sum),
        };
        (frame.copied, frame.copied_sum, frame.slow) = (frame.raw.len(), frame.runs.sum(), true);
        let _ = self.jobs.send(job);
    }

    /// Drains everything, seals, ends the threads.
    ///
    /// # Errors
    /// [`WriteError::Died`] if a thread has panicked.
    pub fn finish(mut self) -> Result<ChainReport, WriteError> {
        self.cut_frame();
        self.end_all_segments();
        self.seconds.hand_over(&self.counters);
        let Some(threads) = self.threads.take() else { return Err(WriteError::Died("stage")) };
        let counters = Arc::clone(&self.counters);
        // The stage ends when the worker hangs up, the sync thread when the stage does.
        drop(self);
        let live = threads.stage.join().map_err(|_| WriteError::Died("stage"))?;
        let report = threads.sync.join().map_err(|_| WriteError::Died("sync"))?;
        drop(live);
        Ok(ChainReport { counters: counters.snapshot(), unsealed: report.unsealed })
    }
}

/// Both ends of a bounded queue.
type Pipe<T> = (Sender<T>, Receiver<T>);

/// A pool of empty frame buffers.
fn frame_buffers(count: usize) -> Result<Pipe<Vec<u8>>, WriteError> {
    let (home, buffers) = bounded(count);
    let all: Vec<Vec<u8>> = (0..count).map(|_| Vec::with_capacity(FRAME_BYTES_MAX)).collect();
    let place = |buffer: &Vec<u8>| buffer.as_ptr().addr()..buffer.as_ptr().addr() + buffer.capacity();
    crate::sys::prefer_huge_pages(&all.iter().map(place).collect::<Vec<_>>());
    for mut buffer in all {
        // Written once, so that no page fault is left for the hot path.
        buffer.resize(FRAME_BYTES_MAX, 0);
        buffer.clear();
        home.try_send(buffer).map_err(|_| WriteError::Memory(count))?;
    }
    Ok((home, buffers))
}

/// Starts both threads.
fn spawn(parts: StageParts, syncer: Syncer, cpu: Option<usize>) -> Result<Threads, WriteError> {
    let thread = |name: &str| std::thread::Builder::new().name(name.to_owned());
    let sync = thread("tapedeck-sync").spawn(move || {
        pin(cpu);
        syncer.run()
    });
    let sync = sync.map_err(|source| WriteError::Thread { name: "sync", source })?;
    let stage = thread("tapedeck-stage").spawn(move || {
        pin(cpu);
        Stage::new(parts).run()
    });
    let stage = stage.map_err(|source| WriteError::Thread { name: "stage", source })?;
    Ok(Threads { stage, sync })
}

/// Binds the calling thread to a CPU; not being allowed to is no reason not to run.
fn pin(cpu: Option<usize>) {
    use nix::sched::{CpuSet, sched_setaffinity};
    let Some(cpu) = cpu else { return };
    let mut set = CpuSet::new();
    let result = set.set(cpu).and_then(|()| sched_setaffinity(nix::unistd::Pid::from_raw(0), &set));
    if let Err(errno) = result {
        tracing::warn!(%errno, cpu, "cannot pin the stage thread");
    }
}
