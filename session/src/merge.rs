//! Joins sessions whose two directions reached two tables.
//!
//! With `Config::split` a table gives the records of one-sided sessions a [`Half`]: their packets in runs. The
//! merger takes the records of all tables. What has no half passes. Halves wait until their other half must
//! have come; then the runs of both, in order of time, go through a table of the merger's own, which makes of
//! them the record that one table would have made. So nothing of the logic is here a second time.
//!
//! How long a half waits: two halves that have both closed (FIN on both sides, or a RST), or that both end at
//! about the same time without TCP, do not wait; a SYN without more waits [`SHORT_WAIT`], for an answer to it
//! lives no longer; all others wait until the other side must have written at least an interim record.

use crate::config::Config;
use crate::input::{flag, proto};
use crate::key::Key;
use crate::pair::{End, Pair};
use crate::record::{PacketRef, Record, RecordKind, Service, Uid};
use crate::table::{Sink, Table};
use std::collections::HashMap;
use tapedeck_packet::Timestamp;

mod open;
mod steps;

pub(crate) use crate::table::log::Run;
use open::States;
use steps::Steps;

const SECOND: u64 = 1_000_000_000;
/// How long a half waits whose other half cannot live long, ns.
pub const SHORT_WAIT: u64 = 15 * SECOND;
/// Beyond a table's own delays: batches, queues, the expiry's own steps. ns.
const SLACK: u64 = 10 * SECOND;
/// Ends of two halves that count as the same, ns.
const SAME_END: u64 = 5 * SECOND;

/// One direction of a session, since its last record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Half {
    pub(crate) key: Key,
    pub(crate) from: End,
    pub(crate) runs: Vec<Run>,
    /// It had more packets than its log has room for: the joined record may differ from what one table
    /// would have made, but for its sums.
    pub inexact: bool,
}

/// A half that waits.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) record: Record,
    pub(crate) half: Half,
}

/// The halves of one key.
#[derive(Debug, Default)]
struct Waiting {
    pieces: Vec<Piece>,
    ready: u64,
}

/// What the merger's table does not make.
#[derive(Debug, Default)]
struct Extra {
    service: Service,
    /// Those of the halves replayed last: they hold all packets, and may hold some of a record before.
    refs: Vec<PacketRef>,
    refs_incomplete: bool,
    queue: u32,
    queue_known: bool,
    /// Packets of the halves that are not in the store; not yet said.
    unstored: u64,
    loss_during: bool,
    counted: bool,
    /// A record has been written since `refs` were set.
    used: bool,
}

/// Joins halves.
#[derive(Debug)]
pub struct Merger {
    table: Table,
    waiting: HashMap<Key, Waiting>,
    pieces: usize,
    max_pieces: usize,
    /// Within this time after a packet, ns, the other side has a packet that belongs to the same session, and
    /// its table has written a record of that.
    long_wait: u64,
    /// What belongs to the records of joined sessions, until the last is written.
    extras: HashMap<Key, Extra>,
    /// What was told last of halves that go on.
    open: HashMap<Key, States>,
    /// The sessions of these, by the uids that their tables gave them.
    told: HashMap<Uid, Key>,
    /// Sessions all of whose halves have ended: written as soon as their own time is over.
    ending: Vec<Key>,
    now: u64,
}

impl Merger {
    /// A merger; `config` is that of the tables, with a chain number of its own. At most
    /// `config.max_sessions` halves wait; then those that have waited longest go on alone.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let times = config.timeouts;
        Self {
            max_pieces: usize::try_from(config.max_sessions).unwrap_or(usize::MAX),
            long_wait: times.tcp_inactivity.saturating_add(times.interim).saturating_add(SLACK),
            table: Table::keyed(Config { split: false, max_inspectors: 0, ..config }),
            waiting: HashMap::new(),
            pieces: 0,
            extras: HashMap::new(),
            open: HashMap::new(),
            told: HashMap::new(),
            ending: Vec::new(),
            now: 0,
        }
    }

    /// Takes a record of a table.
    pub fn push(&mut self, mut record: Record, sink: Sink<'_>) {
        let Some(half) = record.half.take() else {
            if !self.told.is_empty() {
                self.is_whole(&record, sink);
            }
            sink(record);
            return;
        };
        if record.kind == RecordKind::Open {
            self.tell(record, &half, sink);
            return;
        }
        let last = record.ts_last.nanos();
        let wait = if only_syn(&half) { SHORT_WAIT } else { self.long_wait };
        let key = half.key;
        let waiting = self.waiting.entry(key).or_default();
        waiting.ready = waiting.ready.max(last.saturating_add(wait));
        waiting.pieces.push(Piece { record, half: *half });
        self.pieces += 1;
        if whole(&waiting.pieces) {
            self.join(&key, sink);
        }
        if self.pieces > self.max_pieces {
            // Those that have waited longest go on alone: many at once, for they must be looked for.
            let mut all: Vec<(u64, Key)> = self.waiting.iter().map(|(key, w)| (w.ready, *key)).collect();
            all.sort_unstable_by_key(|(ready, _)| *ready);
            for (_, key) in all.iter().take(all.len() / 16 + 1) {
                self.join(key, sink);
            }
        }
    }

    /// Joins what has waited long enough at `now`.
    pub fn expire(&mut self, now: Timestamp, sink: Sink<'_>) {
        self.now = self.now.max(now.nanos());
        let mut ready: Vec<(u64, Key)> = self
            .waiting
            .iter()
            .filter(|(_, waiting)| waiting.ready <= self.now)
            .map(|(key, waiting)| (waiting.ready, *key))
            .collect();
        ready.sort_unstable_by_key(|(ready, _)| *ready);
        for (_, key) in ready {
            self.join(&key, sink);
        }
        self.end(sink);
        let horizon = Timestamp::from_nanos_saturating(self.now.saturating_sub(self.long_wait));
        let (table, extras) = (&mut self.table, &mut self.extras);
        while table.expire(horizon, 1_000, &mut |record| sink(finish(record, extras))) {}
        if self.open.len() > self.max_pieces / 2 {
            // Halves whose records were lost on the way: nothing will end them.
            let oldest = self.now.saturating_sub(self.long_wait);
            self.open.retain(|_, states| states.last() >= oldest);
            let open = &self.open;
            self.told.retain(|_, key| open.contains_key(key));
        }
        if self.extras.len() > self.max_pieces {
            let (table, waiting) = (&self.table, &self.waiting);
            self.extras.retain(|key, _| table.holds(key) || waiting.contains_key(key));
        }
    }

    /// Joins all there is: the recorder ends.
    pub fn finish(&mut self, sink: Sink<'_>) {
        let mut keys: Vec<(Timestamp, Key)> = self
            .waiting
            .iter()
            .filter_map(|(key, waiting)| Some((waiting.pieces.iter().map(|p| p.record.ts).min()?, *key)))
            .collect();
        keys.sort_unstable_by_key(|(first, _)| *first);
        for (_, key) in keys {
            self.join(&key, sink);
        }
        let (table, extras) = (&mut self.table, &mut self.extras);
        table.pass_time(self.now);
        table.finish(&mut |record| sink(finish(record, extras)));
    }

    /// Halves that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.pieces
    }

    /// Replays all halves of a key. If they have all ended, so will its session.
    fn join(&mut self, key: &Key, sink: Sink<'_>) {
        let ended = self.waiting.get(key).is_some_and(|waiting| {
            let last = |end| waiting.pieces.iter().rfind(|piece| piece.half.from == end);
            [last(End::A), last(End::B)].into_iter().flatten().all(|p| p.record.kind == RecordKind::Final)
        });
        self.replay(key, sink);
        if ended {
            self.ending.push(*key);
        }
    }

    /// Writes the sessions all of whose halves have ended and whose time is over.
    fn end(&mut self, sink: Sink<'_>) {
        let (table, extras, waiting, now) = (&mut self.table, &mut self.extras, &self.waiting, self.now);
        self.ending.retain(|key| {
            if waiting.contains_key(key) {
                return false;
            }
            let over = table.end_key(key, now, &mut |record| sink(finish(record, extras)));
            if over {
                extras.remove(key);
            }
            !over
        });
    }

    fn replay(&mut self, key: &Key, sink: Sink<'_>) {
        let Some(waiting) = self.waiting.remove(key) else { return };
        self.pieces -= waiting.pieces.len();
        let states = self.open.remove(key).unwrap_or_default();
        let mut reserved = states.number;
        let extra = self.extras.entry(*key).or_default();
        // An end without packets leaves those of the record before it.
        if waiting.pieces.iter().any(|piece| !piece.half.runs.is_empty()) && std::mem::take(&mut extra.used) {
            extra.refs.clear();
        }
        for piece in &waiting.pieces {
            extra.take(&piece.record);
        }
        let (table, extras) = (&mut self.table, &mut self.extras);
        for step in Steps::new(&waiting.pieces) {
            let parent = step.piece.record.parent;
            table.replay(step.facts(), parent, &mut reserved, &mut |record| sink(finish(record, extras)));
        }
        self.settle(*key, states, &waiting.pieces, reserved, sink);
    }
}

impl Extra {
    /// Takes what a half's record says.
    fn take(&mut self, record: &Record) {
        let better =
            self.service.name.is_none() || (self.service.sni.is_none() && record.service.sni.is_some());
        if better && record.service.name.is_some() {
            self.service = record.service.clone();
        }
        self.refs.extend_from_slice(&record.refs);
        self.refs.sort_unstable();
        self.refs.dedup();
        self.refs_incomplete |= record.refs_incomplete;
        let packets = record.orig.volume.packets + record.resp.volume.packets;
        self.unstored += packets.saturating_sub(record.stored_packets);
        self.loss_during |= record.loss_during;
        self.counted |= record.counted;
        let from_orig = record.orig.volume.packets > 0;
        if !self.queue_known || from_orig {
            (self.queue, self.queue_known) = (record.queue, true);
        }
    }
}

/// A record of the merger's table on its way out.
fn finish(mut record: Record, extras: &mut HashMap<Key, Extra>) -> Record {
    record.split = record.orig.total.packets > 0 && record.resp.total.packets > 0;
    let Some(key) = record.half.take().map(|half| half.key) else { return record };
    let Some(extra) = extras.get_mut(&key) else { return record };
    extra.used = true;
    record.service = extra.service.clone();
    record.refs.clone_from(&extra.refs);
    record.refs_incomplete = extra.refs_incomplete;
    record.queue = extra.queue;
    record.counted = extra.counted;
    // What a record has no room for goes on to the next.
    let unstored = extra.unstored.min(record.stored_packets);
    record.stored_packets -= unstored;
    extra.unstored -= unstored;
    record.loss_during |= std::mem::take(&mut extra.loss_during);
    if record.kind == RecordKind::Final {
        extra.service = Service::default();
    }
    record
}

/// Only SYN packets: if the peer has answered, its half does not live longer.
fn only_syn(half: &Half) -> bool {
    half.runs.iter().all(|run| {
        run.tcp.is_some_and(|tcp| tcp.flags & (flag::SYN | flag::ACK | flag::RST | flag::FIN) == flag::SYN)
    })
}

/// Both directions are there, and nothing more can come.
fn whole(pieces: &[Piece]) -> bool {
    let last = |end| {
        let of_end = pieces.iter().filter(|piece| piece.half.from == end);
        of_end.filter(|piece| piece.record.kind == RecordKind::Final).max_by_key(|piece| piece.record.ts_last)
    };
    let (Some(a), Some(b)) = (last(End::A), last(End::B)) else { return false };
    if a.record.ts_last.nanos().abs_diff(b.record.ts_last.nanos()) > SAME_END {
        return false;
    }
    let flags = Pair { a: a.record.flags(), b: b.record.flags() };
    let reset = (flags.a | flags.b) & flag::RST != 0;
    a.record.proto != proto::TCP || reset || flags.a & flags.b & flag::FIN != 0
}

impl Record {
    /// TCP flags of both sides.
    fn flags(&self) -> u8 {
        self.orig.tcp_flags | self.resp.tcp_flags
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::Uid;

    #[test]
    fn a_record_without_half_passes() {
        let mut merger = Merger::new(Config { max_sessions: 16, ..Config::default() });
        let mut out: Vec<Uid> = Vec::new();
        merger.expire(Timestamp::ZERO, &mut |record| out.push(record.uid));
        merger.finish(&mut |record| out.push(record.uid));
        assert_eq!((out.len(), merger.waiting()), (0, 0));
    }
}
