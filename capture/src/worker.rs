//! The worker: one thread per (interface, queue), from ring to chain.
//!
//! Batch -> filter, where no program has asked it -> time -> walk -> [`Shedder::keep`], which under pressure asks
//! the session table and shortens it -> [`Chain::append`], the one copy -> session table, all of the batch at once;
//! then the batch is dropped and its chunks go back. Between taking a batch and appending its packets there is no
//! lock, no allocation and no system call. While the chain is behind, no batch is taken: packets wait in packet memory
//! for as long as [`Shedder::press`] says. A worker with an empty ring sleeps: a moment while packets come often enough
//! for several to gather, else in poll() until one comes. Every 25 ms or so it ticks its chain, also when nothing comes.
//!
//! It must never exit while packets may still be in its ring: it ends when the supervisor says so.

use crate::clock::{self, Clock, Conversion, Reading};
use crate::filtering::{Handover, Judge};
use crate::sessions::Tracker;
use crate::shed::{ShedPayload, Shedder, Turn};
use crate::source::{PacketBatch, RawPacket, Source, Stamp};
use crate::xsk::ChunkSize;
use nix::sched::{CpuSet, sched_setaffinity};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::Pid;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;
use tapedeck_ebpf::{CARD_AHEAD_NS, CARD_BEHIND_NS};
use tapedeck_index::pcapng::{Counters, PacketRecord};
use tapedeck_packet::time::NANOS_PER_SEC;
use tapedeck_packet::{LinkType, Timestamp, Walk};
use tapedeck_session::{Packet, Place};
use tapedeck_writer::{Appended, Chain, ChainReport, WriteError};

/// Ring entries taken at once.
const BATCH: u32 = 256;
/// Packets since the last sleep from which on another short one is worth it: to be woken costs as much as some packets.
const NAP_WORTH: u64 = 4;
/// A short sleep: longer while few packets gather meanwhile, shorter while many do.
const NAP_MIN: Duration = Duration::from_micros(200);
const NAP_MAX: Duration = Duration::from_millis(4);
/// Few and many.
const NAP_FEW: u64 = 2048;
const NAP_MANY: u64 = 8192;
/// The smallest packets at 10 Gbit/s, in a millisecond.
const PACKETS_PER_MS: u64 = 14_881;

/// The longest sleep while packets come: the smallest ones at 10 Gbit/s fill half of the packet memory meanwhile.
#[must_use]
pub fn nap_max(packet_bytes: u64) -> Duration {
    let half = packet_bytes / u64::from(ChunkSize::Small.bytes()) / 2;
    Duration::from_micros(1_000 * half / PACKETS_PER_MS).clamp(NAP_MIN, NAP_MAX)
}
/// Longest sleep, and the least time between two ticks. The chain wants one every 50 ms.
const TICK: Duration = Duration::from_millis(25);
/// A packet can be seen in the ring this long after its stamp at the latest: above the time for which
/// AF_PACKET holds back a block that is not full (20 ms), with room for a busy CPU.
const SETTLE_NS: u64 = 100_000_000;
/// Packets of one queue that the system's clock stamps overtake each other by less than this.
pub(crate) const OVERTAKE_NS: u64 = 1_000_000;
/// And those that card and program stamp by turns.
pub(crate) const CARD_OVERTAKE_NS: u64 = CARD_BEHIND_NS + CARD_AHEAD_NS + OVERTAKE_NS;
const _: () = assert!(CARD_OVERTAKE_NS < SETTLE_NS);
/// Behind the description in segments of a clock that is not believed.
const QUARANTINED: &str = "; clock: quarantined";
/// A sleep while packets wait for the chain. The smallest packets at 10 Gbit/s fill a sixteenth of packet memory
/// meanwhile: less than what is left when nothing waits any more.
const WAIT_NAPS: u32 = 8;
const WAIT_NAP_MIN: Duration = Duration::from_micros(50);
const WAIT_NAP_MAX: Duration = Duration::from_millis(1);
/// Sleep while the rings are drained at the end.
const DRAIN_NAP: Duration = Duration::from_millis(2);

/// What the supervisor has told the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Phase {
    /// Read.
    Run = 0,
    /// The intake is closed: read what is left, report the source's counters often.
    Drain = 1,
    /// Nothing more can be in the rings: finish the chain and end.
    Finish = 2,
}

/// What supervisor and worker tell each other. Each number has one writer; all are read on their own,
/// so Relaxed is enough everywhere but for the phase.
#[derive(Debug, Default)]
pub struct Shared {
    phase: AtomicU8,
    /// No packet of this time or before comes out of the ring any more, and all that came are in the chain's books
    /// by second. Nanoseconds; Release and Acquire: who reads it sees those books.
    pub settled: AtomicU64,
    /// Packets taken from the ring. Written by the worker.
    pub received: AtomicU64,
    /// Of these, packets whose ring entries were given back.
    pub released: AtomicU64,
    /// Bytes on the wire of the packets received.
    pub received_bytes: AtomicU64,
    /// Of the packets received, those the worker left out by the filter.
    pub filtered: AtomicU64,
    /// The next filter, if there is one.
    pub next_filter: Handover,
    /// Packets taken into the store shorter than they were on the wire.
    pub cut_packets: AtomicU64,
    /// Bytes they lost.
    pub cut_bytes: AtomicU64,
    /// Of these, packets whose payload was shed.
    pub shed_packets: AtomicU64,
    /// Bytes they lost by that.
    pub shed_bytes: AtomicU64,
    /// Payload is being shed.
    pub shedding: AtomicBool,
    /// Packets wait in packet memory for the compressor and the disk.
    pub waiting: AtomicBool,
    /// Packets whose time lay before that of the packet before them.
    pub regressions: AtomicU64,
    /// Packets without a time of their own.
    pub unstamped: AtomicU64,
    /// Sequence numbers that never came.
    pub missing: AtomicU64,
    /// The source's own counters, as of the last tick.
    pub source_seen: AtomicU64,
    /// Its ring was full.
    pub source_ring_full: AtomicU64,
    /// It had no chunk, or the packet was too long.
    pub source_dropped: AtomicU64,
    /// Ring entries that made no sense.
    pub misfits: AtomicU64,
    /// The interface reports an error, such as being down.
    pub failing: AtomicBool,
    /// Packets seen on this queue, for `isb_ifrecv`. Written by the supervisor.
    pub seen: AtomicU64,
    /// Lost between the program and the worker, for `isb_osdrop`.
    pub lost: AtomicU64,
}

impl Shared {
    /// Tells the worker. Phases only move forward.
    pub fn advance(&self, phase: Phase) {
        // Release: partner is the Acquire load in `phase`; what the supervisor wrote before is visible.
        self.phase.store(phase as u8, Ordering::Release);
    }

    /// What the worker was told last.
    #[must_use]
    pub fn phase(&self) -> Phase {
        // Acquire: partner is the Release store in `advance`.
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Run,
            1 => Phase::Drain,
            _ => Phase::Finish,
        }
    }
}

/// Adds to a number that only the calling thread writes.
fn add(to: &AtomicU64, value: u64) {
    to.store(to.load(Ordering::Relaxed).wrapping_add(value), Ordering::Relaxed);
}

/// Where and for whom a worker runs.
#[derive(Clone, Debug)]
pub struct Post {
    /// Interface, for messages.
    pub interface: String,
    /// Queue, for messages.
    pub queue: u32,
    /// `if_description` of its segments while the clock is believed.
    pub description: String,
    /// CPU it is pinned to; `None` = where the scheduler likes.
    pub cpu: Option<usize>,
    /// Bytes kept of a packet.
    pub snaplen: usize,
    /// Stamps of its packets may go back by so much, nanoseconds: less than [`SETTLE_NS`].
    pub overtake_ns: u64,
    /// Longest sleep while packets come; [`nap_max`].
    pub nap_max: Duration,
    /// What is kept of it under pressure.
    pub shed: ShedPayload,
    /// UTC.
    pub clock: Arc<Clock>,
    /// The filter it begins with.
    pub judge: Judge,
    /// Its talk with the supervisor.
    pub shared: Arc<Shared>,
}

/// How a worker ended.
pub type Ended = Result<ChainReport, WriteError>;

/// Starts a worker on `source`.
///
/// # Errors
/// The system has no thread left.
pub fn spawn<S: Source + 'static>(
    post: Post,
    source: S,
    chain: Chain,
    tracker: Tracker,
) -> io::Result<JoinHandle<Ended>> {
    // Thread names have 15 characters.
    let name: String = format!("q{}-{}", post.queue, post.interface).chars().take(15).collect();
    std::thread::Builder::new().name(name).spawn(move || {
        if let Some(cpu) = post.cpu
            && let Err(errno) = pin(cpu)
        {
            tracing::warn!(interface = post.interface, queue = post.queue, cpu, %errno, "cannot pin the worker");
        }
        let shared = Arc::clone(&post.shared);
        Worker {
            shedder: Shedder::new(post.shed),
            post,
            shared,
            source,
            chain,
            tracker,
            filter_settled: 0,
            walk: Walk::new(),
            last: Timestamp::ZERO,
            next_sequence: None,
            ticked_ns: monotonic_ns(),
            clock_turns: 0,
            reported: Timestamp::ZERO,
            since_rest: 0,
            nap: NAP_MIN,
        }
        .run()
    })
}

/// Binds the calling thread to a CPU.
fn pin(cpu: usize) -> nix::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu)?;
    sched_setaffinity(Pid::from_raw(0), &set)
}

struct Worker<S> {
    post: Post,
    shared: Arc<Shared>,
    source: S,
    chain: Chain,
    tracker: Tracker,
    /// Generation of the filter that judges all that comes into the ring.
    filter_settled: u32,
    shedder: Shedder,
    walk: Walk,
    /// Time of the packet before.
    last: Timestamp,
    /// Sequence number the next packet should have.
    next_sequence: Option<u64>,
    /// CLOCK_MONOTONIC of the last tick.
    ticked_ns: u64,
    /// [`Clock::turns`] that the segments know of.
    clock_turns: u64,
    /// When the source's counters were read last.
    reported: Timestamp,
    /// Packets since the worker slept.
    since_rest: u64,
    /// How long it sleeps next while packets come.
    nap: Duration,
}

impl<S: Source> Worker<S> {
    fn run(mut self) -> Ended {
        loop {
            // Read before the ring is: once it says Finish, nothing can be put in any more.
            let phase = self.shared.phase();
            self.filter_settled = self.shared.next_filter.settled();
            if self.turn(phase) == Turn::Wait {
                self.wait(phase);
                continue;
            }
            let got = self.batch();
            if got == 0 && phase == Phase::Finish {
                break;
            }
            if got == 0 {
                // The ring was empty: what the former filter let through has all come.
                self.post.judge.idle(self.filter_settled, &mut self.chain);
            }
            self.since_rest += got;
            self.tick(phase, got == 0);
            if got == 0 {
                self.rest(phase);
            }
        }
        self.shared.shedding.store(false, Ordering::Relaxed);
        self.shared.waiting.store(false, Ordering::Relaxed);
        self.report_source();
        self.tick_chain();
        let _ = self.tracker.finish();
        let ended = self.chain.finish();
        self.shared.settled.store(Timestamp::MAX.nanos(), Ordering::Release);
        ended
    }

    /// Whether the next batch may be taken: while the chain is behind, packets wait where they are.
    fn turn(&mut self, phase: Phase) -> Turn {
        if phase == Phase::Drain {
            self.shedder.relax();
        }
        let (free, buffers) = self.chain.room();
        let turn = self.shedder.press(free, buffers, || match phase {
            Phase::Run => self.source.waiting_percent(),
            // Nothing comes any more: what waits may wait.
            Phase::Drain => 0,
            // It has waited for as long as the supervisor was willing to.
            Phase::Finish => 100,
        });
        self.shared.shedding.store(self.shedder.pressed(), Ordering::Relaxed);
        self.shared.waiting.store(turn == Turn::Wait, Ordering::Relaxed);
        turn
    }

    /// What goes on while packets wait.
    fn wait(&mut self, phase: Phase) {
        self.tick(phase, false);
        self.post.judge.hear_of(&self.shared.next_filter);
        if phase == Phase::Run {
            std::thread::sleep((self.post.nap_max / WAIT_NAPS).clamp(WAIT_NAP_MIN, WAIT_NAP_MAX));
        } else {
            // What came before the intake was closed is to be waited for, all of it: its counters are read here, too.
            self.rest(phase);
        }
    }

    /// A clock that was stepped, or is not believed any more, or again, ends the open segments; those that follow
    /// say whether it is believed.
    fn heed_clock(&mut self) {
        let turns = self.post.clock.turns();
        if turns != self.clock_turns {
            self.clock_turns = turns;
            let doubt = if self.post.clock.quarantined() { QUARANTINED } else { "" };
            self.chain.set_description(Some(format!("{}{doubt}", self.post.description)));
        }
    }

    /// Takes what is in the ring, up to [`BATCH`] entries. Returns the number of packets.
    fn batch(&mut self) -> u64 {
        self.heed_clock();
        let Self { post, source, chain, tracker, shedder, walk, shared, last, next_sequence, .. } = self;
        let (shared, snaplen) = (&**shared, post.snaplen);
        let mut times = Times::new(post.clock.conversion(), self.ticked_ns);
        let judge = &mut post.judge;
        let mut batch = source.peek(BATCH);
        // After the look at the ring: a filter is announced before it lets the first packet through.
        judge.hear(&shared.next_filter, chain);
        let packets = batch.packets();
        let mut got = 0;
        tracker.batch(|sessions| {
            for mut packet in packets {
                got += 1;
                if !judge.takes(&packet, chain) {
                    leave_out(shared, &packet);
                    let ts = times.of(&packet).unwrap_or(*last);
                    chain.leave_out(ts.nanos() / NANOS_PER_SEC, packet.orig_len);
                    continue;
                }
                packet.bytes = packet.bytes.get(..snaplen).unwrap_or(packet.bytes);
                let before = *last;
                let ts = times.of(&packet).unwrap_or_else(|| {
                    add(&shared.unstamped, 1);
                    before
                });
                if ts < before {
                    add(&shared.regressions, 1);
                }
                *last = ts;
                let dropped = gap(next_sequence, packet.sequence);
                add(&shared.missing, dropped);
                note(shared, &packet);
                let RawPacket { mut bytes, orig_len, .. } = packet;
                walk.run(LinkType::ETHERNET, bytes);
                let whole = bytes.len();
                let kept = shedder.keep(walk, bytes, |first| sessions.has_had(walk, ts, first));
                if kept < whole {
                    bytes = bytes.get(..kept).unwrap_or(bytes);
                    // The index knows what is stored, and nothing else.
                    walk.run(LinkType::ETHERNET, bytes);
                }
                let record = PacketRecord { ts, bytes, orig_len, dropped, flags: None };
                // Stored, shed and failed are counted by the chain.
                let second = packet.second.unwrap_or(ts.nanos() / NANOS_PER_SEC);
                let stored = chain.append_in(second, &record, walk) == Appended::Stored;
                if stored {
                    note_cut(shared, orig_len, whole, kept);
                }
                if dropped > 0 || !stored {
                    sessions.lost(if dropped > 0 { before.min(ts) } else { ts }, ts);
                }
                let (segment, frame) = chain.position();
                let place = Place::new(segment, frame);
                sessions.push(walk, &Packet { ts, bytes, original_bytes: orig_len, place, stored });
            }
        });
        drop(batch);
        shared.released.store(shared.received.load(Ordering::Relaxed), Ordering::Relaxed);
        if got > 0 {
            tracker.pass(last.saturating_sub(post.overtake_ns));
        }
        got
    }

    /// Sleeps: a moment if many have come since the last sleep, else until a packet comes.
    fn rest(&mut self, phase: Phase) {
        if phase != Phase::Run {
            self.report_source();
            std::thread::sleep(DRAIN_NAP);
            return;
        }
        let gathered = std::mem::take(&mut self.since_rest);
        if gathered >= NAP_WORTH {
            // Who sleeps in poll() is woken by the first packet, at the cost of whoever delivers it, too.
            self.nap = match gathered {
                ..NAP_FEW => (self.nap * 2).min(self.post.nap_max),
                NAP_MANY.. => (self.nap / 2).max(NAP_MIN),
                _ => self.nap,
            };
            std::thread::sleep(self.nap);
            return;
        }
        let failing = match self.source.wait(TICK) {
            Ok(()) => false,
            Err(error) => {
                if !self.shared.failing.load(Ordering::Relaxed) {
                    let Post { interface, queue, .. } = &self.post;
                    tracing::warn!(interface, queue, %error, "the interface does not answer; waiting for it");
                }
                std::thread::sleep(TICK);
                true
            }
        };
        self.shared.failing.store(failing, Ordering::Relaxed);
    }

    /// Ticks the chain when it is time. `drained`: the ring was empty just now.
    fn tick(&mut self, phase: Phase, drained: bool) {
        let now = monotonic_ns();
        if now.wrapping_sub(self.ticked_ns) < TICK.as_nanos().try_into().unwrap_or(u64::MAX) {
            return;
        }
        self.ticked_ns = now;
        if phase == Phase::Run {
            self.report_source();
        }
        let (last, utc) = (self.last, self.post.clock.conversion().utc(now));
        let until = settled(last, self.post.overtake_ns, utc, drained);
        self.chain.settle(until);
        self.tick_chain();
        // Release: partner is the Acquire load in `ledger_rows::facts`.
        self.shared.settled.store(until.nanos(), Ordering::Release);
        self.tracker.tick(until);
    }

    fn tick_chain(&mut self) {
        let counters = Counters {
            received: self.shared.seen.load(Ordering::Relaxed),
            interface_dropped: 0,
            os_dropped: self.shared.lost.load(Ordering::Relaxed),
            // The chain counts these itself.
            delivered: 0,
        };
        let now = self.post.clock.conversion().utc(monotonic_ns());
        self.chain.tick(now, counters);
    }

    /// Publishes the source's own counters.
    fn report_source(&mut self) {
        // A failed read leaves the last values standing; the next one may succeed.
        if let Ok(stats) = self.source.stats() {
            let now = self.post.clock.conversion().utc(monotonic_ns());
            let from = std::mem::replace(&mut self.reported, now);
            if stats.ring_full > self.shared.source_ring_full.load(Ordering::Relaxed) {
                self.tracker.lost(from, now);
            }
            self.shared.source_ring_full.store(stats.ring_full, Ordering::Relaxed);
            self.shared.source_dropped.store(stats.dropped, Ordering::Relaxed);
            self.shared.misfits.store(stats.misfits, Ordering::Relaxed);
            self.shared.source_seen.store(stats.seen, Ordering::Relaxed);
        }
    }
}

/// Time up to which no packet will come any more: a little before the last one (the ring keeps the order
/// of arrival), or before `now` if the ring was empty.
fn settled(last: Timestamp, overtake_ns: u64, now: Timestamp, drained: bool) -> Timestamp {
    let by_packets = last.saturating_sub(overtake_ns);
    let by_clock = if drained { now.saturating_sub(SETTLE_NS) } else { Timestamp::ZERO };
    // After a step of the clock the last packet may lie ahead.
    by_packets.max(by_clock).min(now)
}

/// Times of the packets of a batch.
struct Times {
    conversion: Conversion,
    /// Some time of now.
    about: Timestamp,
    /// The clocks, read if a stamp is not believed.
    reading: Option<Reading>,
}

impl Times {
    fn new(conversion: Conversion, monotonic_ns: u64) -> Self {
        Self { conversion, about: conversion.utc(monotonic_ns), reading: None }
    }

    /// When a packet came; `None` if it does not say, or says what cannot be.
    #[inline]
    fn of(&mut self, packet: &RawPacket<'_>) -> Option<Timestamp> {
        match packet.stamp {
            Stamp::Monotonic(ns) => Some(self.conversion.utc(ns)),
            Stamp::Utc(ns) => self.conversion.believed(ns, self.about, || {
                self.reading = self.reading.or_else(|| clock::read().ok());
                self.reading
            }),
            Stamp::Missing => None,
        }
    }
}

/// Sequence numbers missing before this packet.
fn gap(next: &mut Option<u64>, sequence: Option<u64>) -> u64 {
    let Some(sequence) = sequence else { return 0 };
    // A number from before the expected one comes out as 0: in generic mode two CPUs may overtake.
    let missing = next.map_or(0, |expected| sequence.saturating_sub(expected));
    *next = Some(sequence.saturating_add(1).max(next.unwrap_or(0)));
    missing
}

/// Counts a packet as received and left out.
fn leave_out(shared: &Shared, packet: &RawPacket<'_>) {
    note(shared, packet);
    add(&shared.filtered, 1);
}

/// Counts a packet as received.
fn note(shared: &Shared, packet: &RawPacket<'_>) {
    add(&shared.received, 1);
    add(&shared.received_bytes, u64::from(packet.orig_len));
}

/// Counts what is missing of a packet that was taken into the store: `whole` bytes came of it, `kept` are there.
fn note_cut(shared: &Shared, orig_len: u32, whole: usize, kept: usize) {
    let missing = u64::from(orig_len).saturating_sub(kept as u64);
    if missing > 0 {
        add(&shared.cut_packets, 1);
        add(&shared.cut_bytes, missing);
    }
    if kept < whole {
        add(&shared.shed_packets, 1);
        add(&shared.shed_bytes, (whole - kept) as u64);
    }
}

/// CLOCK_MONOTONIC for ticks, never for packets.
pub(crate) fn monotonic_ns() -> u64 {
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |time| {
        let sec = u64::try_from(time.tv_sec()).unwrap_or(0);
        sec.wrapping_mul(1_000_000_000).wrapping_add(u64::try_from(time.tv_nsec()).unwrap_or(0))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_ring_settles_by_its_packets_and_an_empty_one_by_the_clock() {
        let at = |ms: u64| Timestamp::from_nanos_saturating(ms * 1_000_000);
        let settled = |last, now, drained| settled(last, OVERTAKE_NS, now, drained);
        assert_eq!(settled(at(5_000), at(9_000), false), at(4_999));
        assert_eq!(settled(at(5_000), at(9_000), true), at(8_900));
        assert_eq!(settled(at(5_000), at(5_020), true), at(4_999));
        // The clock was stepped back.
        assert_eq!(settled(at(5_000), at(1_000), true), at(1_000));
    }

    #[test]
    fn gaps_are_counted_once() {
        let mut next = None;
        let gaps: Vec<u64> = [5, 6, 9, 8, 10, 10].into_iter().map(|n| gap(&mut next, Some(n))).collect();
        assert_eq!(gaps, [0, 0, 2, 0, 0, 0]);
        assert_eq!(gap(&mut next, None), 0);
        assert_eq!(next, Some(11));
    }
}
