//! What is said of sessions that go on, before their halves are joined.
//!
//! The state of a half comes without its packets: nothing is replayed, the two are laid side by side. As long as
//! only one is known it may turn out to be no half at all (a SYN whose answer comes to the same table): its state
//! goes on under its own uid, which its record replaces. Once both are known, the uid is the one that the joined
//! record will have, and the state under the own uid is withdrawn.

use super::{Half, Merger, Piece};
use crate::input::{flag, proto};
use crate::key::Key;
use crate::pair::{End, Pair};
use crate::record::{ConnState, Record, RecordKind, Uid};
use crate::table::Sink;

/// What was told last of the halves of a session.
#[derive(Debug, Default)]
pub(super) struct States {
    records: Pair<Option<Box<Record>>>,
    /// The half whose state stands under its own uid.
    alone: Option<End>,
    /// Under what both stand together, where they do: uid and number of the record.
    joined: Option<(Uid, u32)>,
    /// Number promised to the session, where the merger's table does not hold it.
    pub(super) number: Option<u64>,
}

impl States {
    /// The last packet that was told of, ns.
    pub(super) fn last(&self) -> u64 {
        let Pair { a, b } = &self.records;
        [a, b].into_iter().flatten().map(|record| record.ts_last.nanos()).max().unwrap_or(0)
    }

    /// Withdraws the state that stands under a half's own uid.
    fn withdraw(&mut self, sink: Sink<'_>) {
        let alone = self.alone.take().and_then(|end| self.records.of(end).as_deref());
        if let Some(record) = alone {
            sink(withdrawn(record));
        }
    }
}

impl Half {
    /// A half without its packets, as it comes with a state.
    fn told(key: Key, from: End) -> Self {
        Self { key, from, runs: Vec::new(), inexact: false }
    }
}

fn withdrawn(record: &Record) -> Record {
    Record { kind: RecordKind::Withdrawn, ..record.clone() }
}

impl Merger {
    /// Takes the state of a half that goes on.
    pub(super) fn tell(&mut self, record: Record, half: &Half, sink: Sink<'_>) {
        let (key, from) = (half.key, half.from);
        if self.open.len() >= self.max_pieces && !self.open.contains_key(&key) {
            return;
        }
        let states = self.open.entry(key).or_default();
        if let Some(before) = states.records.of(from).as_ref().filter(|before| before.uid != record.uid) {
            // That session is over, and its record on its way.
            self.told.remove(&before.uid);
            if states.alone == Some(from) {
                states.withdraw(sink);
            }
        }
        self.told.insert(record.uid, key);
        let joined = match states.records.of(from.other()) {
            Some(other) if from == End::A => Some(side_by_side(&record, other)),
            Some(other) => Some(side_by_side(other, &record)),
            None => None,
        };
        let known = self.table.identity(&key);
        let mut told = record.clone();
        *states.records.of_mut(from) = Some(Box::new(record));
        if joined.is_none() && known.is_none() && states.number.is_none() {
            states.alone = Some(from);
            sink(told);
            return;
        }
        if let Some(joined) = joined {
            told = joined;
        }
        (told.uid, told.number) = known.unwrap_or_else(|| {
            let number = *states.number.get_or_insert_with(|| self.table.number());
            (self.table.uid(number), 0)
        });
        states.joined = Some((told.uid, told.number));
        sink(told);
        states.withdraw(sink);
    }

    /// Takes note that a session which was told of as a half has both directions in its table: what it says
    /// goes on under its own uid, and what stands under another one no longer counts it.
    pub(super) fn is_whole(&mut self, record: &Record, sink: Sink<'_>) {
        let Some(key) = self.told.remove(&record.uid) else { return };
        let Some(mut states) = self.open.remove(&key) else { return };
        for end in [End::A, End::B] {
            if states.records.of(end).as_ref().is_some_and(|state| state.uid == record.uid) {
                *states.records.of_mut(end) = None;
                states.alone = states.alone.filter(|alone| *alone != end);
            }
        }
        if let Some((uid, number)) = states.joined.take() {
            sink(withdrawn(&Record { uid, number, ..record.clone() }));
        }
        self.tell_again(key, states, sink);
    }

    /// After the halves of these pieces were replayed: their states are told by records now, and a promise that was
    /// not kept is taken back.
    pub(super) fn settle(
        &mut self,
        key: Key,
        mut states: States,
        pieces: &[Piece],
        unused: Option<u64>,
        sink: Sink<'_>,
    ) {
        if let (Some(number), Some(piece)) = (unused, pieces.first()) {
            sink(withdrawn(&Record { uid: self.table.uid(number), number: 0, ..piece.record.clone() }));
        }
        for end in [End::A, End::B] {
            let Some(uid) = states.records.of(end).as_ref().map(|state| state.uid) else { continue };
            if pieces.iter().any(|piece| piece.record.uid == uid) {
                self.told.remove(&uid);
                let state = states.records.of_mut(end).take();
                if let Some(state) = state.filter(|_| states.alone == Some(end)) {
                    states.alone = None;
                    // The merger's record comes later: until then what was told stands under its uid.
                    if let Some((uid, number)) = self.table.identity(&key) {
                        sink(Record { uid, number, ..(*state).clone() });
                    }
                    sink(withdrawn(&state));
                }
            }
        }
        // What stood under a uid together, its record has replaced.
        states.joined = None;
        self.tell_again(key, states, sink);
    }

    /// Tells of what is left of states some of which have gone.
    fn tell_again(&mut self, key: Key, states: States, sink: Sink<'_>) {
        let alone = states.alone;
        for (end, state) in [(End::A, states.records.a), (End::B, states.records.b)] {
            let Some(state) = state else { continue };
            if alone == Some(end) {
                // It stands as it should.
                let kept = self.open.entry(key).or_default();
                kept.alone = alone;
                *kept.records.of_mut(end) = Some(state);
            } else {
                self.tell(*state, &Half::told(key, end), sink);
            }
        }
    }
}

/// One state of two halves. Who knows the originator says who it is, else who came first.
fn side_by_side(a: &Record, b: &Record) -> Record {
    let b_leads = (b.originator_known, a.ts) > (a.originator_known, b.ts);
    let (lead, other) = if b_leads { (b, a) } else { (a, b) };
    let mut joined = lead.clone();
    for side in [&mut joined.orig, &mut joined.resp] {
        let same = |theirs: &&crate::record::Side| {
            (theirs.address, theirs.port) == (side.address, side.port) && theirs.total.packets > 0
        };
        if let Some(theirs) = [&other.orig, &other.resp].into_iter().find(same)
            && side.total.packets == 0
        {
            *side = *theirs;
        }
    }
    joined.split = true;
    joined.ts = lead.ts.min(other.ts);
    joined.ts_interval = lead.ts_interval.min(other.ts_interval);
    joined.ts_last = lead.ts_last.max(other.ts_last);
    joined.stored_packets += other.stored_packets;
    joined.loss_during |= other.loss_during;
    joined.refs.extend_from_slice(&other.refs);
    joined.refs.sort_unstable();
    joined.refs_incomplete |= other.refs_incomplete;
    if joined.service.name.is_none() {
        joined.service = other.service.clone();
    }
    let (opened, answered) = (joined.orig.tcp_flags & flag::SYN != 0, joined.resp.tcp_flags & flag::SYN != 0);
    joined.conn_state = match joined.proto {
        proto::TCP if opened && answered => ConnState::S1,
        proto::UDP => ConnState::Sf,
        _ => ConnState::Oth,
    };
    joined
}
