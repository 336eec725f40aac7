//! The session table: packets in, records out.
//!
//! A worker opens a [`Stage`] for each batch and pushes the walked packets. `push` takes from a packet what the
//! table needs; when the stage is full or dropped, its packets are applied: a first pass finds their slots and
//! reads them, so that the cache misses of a batch overlap, a second one updates them in order. Records leave
//! through the closure that the caller gives, and so does everything that [`Table::expire`] and
//! [`Table::finish`] end.
//!
//! Exactness does not hang on the timer wheel: a packet that finds a session beyond its deadline ends it
//! first. The wheel only sees to it that records come when no packet does.
//!
//! Memory is bounded and reserved at start. When the table is full, the session that would end next goes
//! ([`EndReason::LackOfResources`]); more evictions than `Config::max_evictions_per_second`, and the newcomer
//! is counted in a [`RecordKind::Coarse`] record instead. So the records always add up to the packets.

use crate::config::Config;
use crate::input::{Facts, Packet, Reader};
use crate::inspect::Inspector;
use crate::key::Key;
use crate::pair::Pair;
use crate::record::{EndReason, Record, Uid};
use crate::stats::{self, Closed, Collector};
use crate::tcp::stream::Holes;
use std::collections::VecDeque;
use std::ops::Range;
use tapedeck_packet::{Ip, Layer, Net, Timestamp, Walk};

mod coarse;
mod datagrams;
mod emit;
mod index;
mod inspectors;
pub(crate) mod log;
mod losses;
mod news;
mod refs;
mod slots;
mod so_far;
mod update;
mod wheel;

use coarse::Coarse;
use datagrams::Datagrams;
use index::{Index, NONE};
use inspectors::Inspectors;
use log::Logs;
use losses::Losses;
use slots::Slots;
use wheel::Wheel;

/// Packets applied at once.
const STAGE: usize = 40;

/// Who takes the records.
pub type Sink<'a> = &'a mut dyn FnMut(Record);

/// What a table has counted, since its start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Packets pushed.
    pub packets: u64,
    /// Their bytes on the wire.
    pub wire_bytes: u64,
    /// Packets without an IP layer: in no session.
    pub non_ip_packets: u64,
    /// Their bytes on the wire.
    pub non_ip_bytes: u64,
    /// Sessions begun.
    pub sessions: u64,
    /// Sessions that had to go because the table was full.
    pub evicted: u64,
    /// Packets of the outermost IP layer that are in coarse records.
    pub coarse_packets: u64,
    /// TCP streams whose lowest hole was given up for want of room.
    pub forced_gaps: u64,
    /// Sessions that found no payload inspector free.
    pub uninspected: u64,
    /// Packets of one-sided sessions that found no room in a log for the merger.
    pub unlogged: u64,
}

/// Sessions by their addresses, ports and protocol. `P` looks at payload.
#[derive(Debug)]
pub struct Table<P = ()> {
    config: Config,
    reader: Reader,
    index: Index,
    slots: Slots,
    wheel: Wheel,
    holes: Holes,
    datagrams: Datagrams,
    inspectors: Inspectors<P>,
    coarse: Coarse,
    logs: Logs,
    /// Each record says its key, for the merger.
    keyed: bool,
    /// Counts packets and sessions by the minute.
    statistics: Option<Box<Collector>>,
    losses: Losses,
    /// Sessions begun, for [`Table::news`].
    fresh: VecDeque<u32>,
    round: news::Round,
    /// Facts of the packets of a stage; nothing is in them between two stages.
    staged: Vec<Facts>,
    counters: Counters,
    /// Number of the next session.
    next_number: u64,
    /// Number that was promised to the session that begins next.
    reserved: Option<u64>,
    /// Latest packet or `expire`, ns.
    now: u64,
    /// The second that `evictions` counts, and how many.
    evictions: (u64, u32),
    /// Keeps the reads of the first pass from being optimised away.
    touched: u64,
}

impl Config {
    /// Bytes a table of this configuration takes at most, without statistics and what its inspectors allocate.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        let sessions = u64::from(self.max_sessions.clamp(1, 1 << 30));
        Slots::bytes(sessions)
            + Wheel::bytes(sessions)
            + Index::bytes(self.max_sessions)
            + Holes::bytes(u64::from(self.max_holes))
            + Datagrams::bytes(self.max_datagrams)
            + if self.split { Logs::bytes(u64::from(self.max_log_blocks)) } else { 0 }
    }
}

impl<P: Inspector> Table<P> {
    /// An empty table.
    #[must_use]
    pub fn new(mut config: Config) -> Self {
        config.max_sessions = config.max_sessions.clamp(1, 1 << 30);
        let slots = Slots::new(config.max_sessions);
        Self {
            reader: Reader { vlan_in_key: config.vlan_in_key, hash_seed: config.hash_seed },
            index: Index::new(config.max_sessions),
            wheel: Wheel::new(usize::try_from(config.max_sessions).unwrap_or(0)),
            slots,
            holes: Holes::new(config.max_holes),
            datagrams: Datagrams::new(config.max_datagrams, config.timeouts.fragment),
            inspectors: Inspectors::new(config.max_inspectors),
            coarse: Coarse::default(),
            logs: Logs::new(if config.split { config.max_log_blocks } else { 0 }),
            keyed: false,
            statistics: None,
            losses: Losses::default(),
            fresh: VecDeque::with_capacity(news::FRESH),
            round: news::Round::default(),
            staged: vec![Facts::default(); STAGE],
            counters: Counters::default(),
            next_number: 0,
            reserved: None,
            now: 0,
            evictions: (0, 0),
            touched: 0,
            config,
        }
    }

    /// An empty table that also counts for statistics; see [`stats::Config::fill_minutes`]. With
    /// `Config::split` it leaves the sessions to those who see the joined records ([`Collector::record`]).
    #[must_use]
    pub fn with_statistics(config: Config, fill_minutes: u32) -> Self {
        let table = Self::new(config);
        let (sessions, seed) = (table.config.max_sessions, table.config.hash_seed);
        let collector = Collector::new(stats::Config { sessions, fill_minutes, seed });
        Self { statistics: Some(Box::new(collector)), ..table }
    }

    /// Packets were lost before they reached the table, from `from` to `until`: the records of sessions that
    /// lived then say so.
    pub fn lost(&mut self, from: Timestamp, until: Timestamp) {
        self.losses.note(from.nanos(), until.nanos());
    }

    /// Time passes for the statistics: after each batch, and some times a second when none comes. `now` is the
    /// clock's time for a live source, the last packet's for a file. Returns the minutes that are over.
    pub fn close_minutes(&mut self, now: Timestamp) -> Vec<Closed> {
        let Some(statistics) = &mut self.statistics else { return Vec::new() };
        statistics.tick(now, &mut self.slots);
        statistics.take_closed()
    }

    /// Closes all minutes: the recorder ends. Comes after [`Table::finish`].
    pub fn close_all_minutes(&mut self) -> Vec<Closed> {
        let Some(statistics) = &mut self.statistics else { return Vec::new() };
        statistics.finish(&mut self.slots);
        statistics.take_closed()
    }

    /// A table for the merger.
    pub(crate) fn keyed(config: Config) -> Self {
        Self { keyed: true, ..Self::new(config) }
    }

    /// Takes the packets of a run.
    ///
    /// A session that begins with it gets the number in `reserved`, if there is one.
    pub(crate) fn replay(
        &mut self,
        mut facts: Facts,
        parent: Option<Uid>,
        reserved: &mut Option<u64>,
        sink: Sink<'_>,
    ) {
        self.reserved = reserved.take();
        facts.hash = facts.key.hash(self.config.hash_seed);
        facts.likely_slot = NONE;
        self.now = self.now.max(facts.ts);
        self.packet(&mut facts, &[], parent, sink);
        *reserved = self.reserved.take();
    }

    /// It is at least `time` (ns).
    pub(crate) fn pass_time(&mut self, time: u64) {
        self.now = self.now.max(time);
    }

    /// The session with this key is open.
    pub(crate) fn holds(&self, key: &Key) -> bool {
        self.find(key) != NONE
    }

    /// Ends the session with this key, if it has run out by `time` (ns). Says whether there is none now.
    pub(crate) fn end_key(&mut self, key: &Key, time: u64, sink: Sink<'_>) -> bool {
        let slot = self.find(key);
        if slot != NONE && self.expiry(slot) <= time {
            self.end(slot, self.reason(slot), sink);
            return true;
        }
        slot == NONE
    }

    fn find(&self, key: &Key) -> u32 {
        let is = |slot| self.slots.hot(slot).is_some_and(|hot| hot.key == *key && hot.deadline != 0);
        self.index.find(key.hash(self.config.hash_seed), is)
    }

    /// Begins a batch. Records go to `sink`.
    pub fn stage<'t, 's, 'p>(&'t mut self, sink: Sink<'s>) -> Stage<'t, 's, 'p, P> {
        Stage { table: self, sink, packets: [&[]; STAGE], used: 0 }
    }

    /// Ends what has ended by `now`, and writes the interim records that are due: at most `limit` sessions
    /// are looked at. Says whether more are due.
    pub fn expire(&mut self, now: Timestamp, limit: usize, sink: Sink<'_>) -> bool {
        // Not the latest packet: one with a time far ahead ends nothing but what is behind `now`.
        let time = now.nanos();
        self.now = self.now.max(time);
        self.emit_coarse(time.saturating_sub(self.config.timeouts.interim), sink);
        for _ in 0..limit {
            let Some(slot) = self.wheel.due(time) else { return false };
            self.look(slot, time, sink);
        }
        true
    }

    /// Ends all sessions: the recorder ends. The table is empty afterwards and can go on.
    pub fn finish(&mut self, sink: Sink<'_>) {
        let now = self.now;
        let all: Vec<u32> = self.slots.used().collect();
        for slot in all {
            let reason = match self.reason(slot) {
                EndReason::IdleTimeout if self.expiry(slot) > now => EndReason::Forced,
                reason => reason,
            };
            self.end(slot, reason, sink);
        }
        self.emit_coarse(u64::MAX, sink);
    }

    /// Forgets the time, after [`Table::finish`]: what comes next may be of any time, and continues nothing.
    pub fn restart(&mut self) {
        self.wheel = Wheel::new(usize::try_from(self.config.max_sessions).unwrap_or(0));
        self.datagrams = Datagrams::new(self.config.max_datagrams, self.config.timeouts.fragment);
        (self.now, self.evictions, self.round) = (0, (0, 0), news::Round::default());
        self.losses = Losses::default();
        self.fresh.clear();
    }

    /// Addresses of its large arrays, which are read at random.
    #[must_use]
    pub fn memory(&self) -> Vec<Range<usize>> {
        let mut all = self.slots.memory().to_vec();
        all.extend([self.index.memory(), self.wheel.memory()]);
        all
    }

    /// Sessions open.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slots.len()
    }

    /// No session is open.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slots.len() == 0
    }

    /// Bytes reserved now, without what its inspectors have allocated: at most [`Config::memory_bytes`].
    #[must_use]
    pub fn reserved_bytes(&self) -> u64 {
        self.slots.reserved_bytes()
            + self.index.reserved_bytes()
            + self.wheel.reserved_bytes()
            + self.holes.reserved_bytes()
            + self.datagrams.reserved_bytes()
            + self.logs.reserved_bytes()
    }

    /// What it has counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        Counters { forced_gaps: self.holes.forced, ..self.counters }
    }

    /// The session with this key: its uid, and the records that were written of it.
    pub(crate) fn identity(&self, key: &Key) -> Option<(Uid, u32)> {
        let cold = self.slots.cold(self.find(key))?;
        Some((self.uid(cold.number), cold.records))
    }

    pub(crate) fn uid(&self, number: u64) -> Uid {
        Uid { run: self.config.run, chain: self.config.chain, number }
    }

    pub(crate) fn number(&mut self) -> u64 {
        let number = self.next_number;
        self.next_number += 1;
        number
    }

    /// Applies the packets of a stage. What the caches must fetch is asked for in three waves, each of which
    /// needs what the one before has brought: index entries, hot parts, and cold parts that will be written.
    fn apply(&mut self, used: usize, packets: &[&[u8]], sink: Sink<'_>) {
        // Taken out, so that the table can be borrowed beside them.
        let mut staged = std::mem::take(&mut self.staged);
        let facts = staged.get_mut(..used).unwrap_or_default();
        let mut touched = 0;
        for one in facts.iter() {
            touched ^= self.index.touch(one.hash);
        }
        for one in facts.iter_mut() {
            // By hash alone: the wrong slot now and then costs a read, comparing keys would wait for one.
            one.likely_slot = self.index.find(one.hash, |_| true);
            touched ^= self.slots.touch(one.likely_slot);
        }
        for one in facts.iter() {
            touched ^= self.slots.touch_cold(one.likely_slot, one.place);
        }
        self.touched ^= touched;
        let mut outer = None;
        for (one, bytes) in facts.iter_mut().zip(packets) {
            if !one.inner {
                outer = None;
                self.now = self.now.max(one.ts);
            }
            outer = self.packet(one, bytes, outer, sink);
        }
        self.staged = staged;
    }
}

/// A batch on its way into the table. What has been pushed is applied at the latest when it is dropped.
pub struct Stage<'t, 's, 'p, P: Inspector = ()> {
    table: &'t mut Table<P>,
    sink: Sink<'s>,
    /// Bytes of the packet of each layer.
    packets: [&'p [u8]; STAGE],
    used: usize,
}

impl<P: Inspector> std::fmt::Debug for Stage<'_, '_, '_, P> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage").field("used", &self.used).finish_non_exhaustive()
    }
}

impl<'p, P: Inspector> Stage<'_, '_, 'p, P> {
    /// As [`Table::lost`].
    pub fn lost(&mut self, from: Timestamp, until: Timestamp) {
        self.table.lost(from, until);
    }

    /// Takes a packet; `walk` is the walk of its bytes.
    #[inline]
    pub fn push(&mut self, walk: &Walk, packet: &Packet<'p>) {
        // All layers of a packet stay in one stage, so that an inner one finds its outer one.
        if self.used + tapedeck_packet::walk::MAX_LAYERS > STAGE {
            self.apply();
        }
        self.table.counters.packets += 1;
        self.table.counters.wire_bytes += u64::from(packet.original_bytes);
        let began = self.used;
        // Nearly all packets have one layer.
        if let [layer] = walk.layers() {
            if let Net::Ip(ip) = &layer.net {
                self.layer(layer, ip, packet, false);
            }
        } else {
            self.layers(walk, packet);
        }
        if self.used == began {
            self.not_ip(walk, packet);
        } else if let Some(layer) = self.table.staged.get_mut(self.used - 1) {
            layer.innermost = true;
            layer.marks = stats::Marks::of(walk.layers());
        }
    }

    #[inline]
    fn layer(&mut self, layer: &Layer, ip: &Ip, packet: &Packet<'p>, inner: bool) {
        let Self { table, packets, used, .. } = self;
        let (Some(facts), Some(bytes)) = (table.staged.get_mut(*used), packets.get_mut(*used)) else {
            return;
        };
        table.reader.read(facts, layer, ip, packet, inner);
        *bytes = packet.bytes;
        *used += 1;
    }

    /// The same for each IP layer.
    #[inline(never)]
    fn layers(&mut self, walk: &Walk, packet: &Packet<'p>) {
        let began = self.used;
        for layer in walk.layers() {
            let Net::Ip(ip) = &layer.net else { continue };
            let inner = self.used > began;
            if inner && let Some(outer) = self.table.staged.get_mut(self.used - 1) {
                outer.has_inner = true;
            }
            self.layer(layer, ip, packet, inner);
        }
    }

    #[cold]
    fn not_ip(&mut self, walk: &Walk, packet: &Packet<'p>) {
        let table = &mut *self.table;
        table.counters.non_ip_packets += 1;
        table.counters.non_ip_bytes += u64::from(packet.original_bytes);
        table.now = table.now.max(packet.ts.nanos());
        if let Some(statistics) = &mut table.statistics {
            statistics.packet(&stats::Packet::new(walk, packet.ts, packet.original_bytes), None);
        }
    }

    fn apply(&mut self) {
        let used = std::mem::take(&mut self.used);
        self.table.apply(used, &self.packets, self.sink);
    }
}

impl<P: Inspector> Drop for Stage<'_, '_, '_, P> {
    fn drop(&mut self) {
        Stage::apply(self);
    }
}

/// Bytes that a vector has reserved.
pub(crate) fn vec_bytes<T>(vec: &Vec<T>) -> u64 {
    u64::try_from(vec.capacity().saturating_mul(size_of::<T>())).unwrap_or(u64::MAX)
}

/// Addresses of what a vector has reserved.
pub(crate) fn vec_memory<T>(vec: &Vec<T>) -> Range<usize> {
    let start = vec.as_ptr().addr();
    start..start + vec.capacity() * size_of::<T>()
}

/// Both sides by role.
fn by_role<T: Copy>(pair: &Pair<T>, orig: crate::pair::End) -> (T, T) {
    (*pair.of(orig), *pair.of(orig.other()))
}
