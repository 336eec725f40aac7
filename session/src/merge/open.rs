//! What is said of sessions that go on, before their halves are joined.
//!
//! The state of a half comes without its packets: nothing is replayed, the two are laid side by side. The uid is
//! the one that the joined record will have.

use super::{Half, Merger};
use crate::input::{flag, proto};
use crate::pair::Pair;
use crate::record::{ConnState, Record};
use crate::table::Sink;

/// What was told last of the halves of a session.
#[derive(Debug, Default)]
pub(super) struct States {
    records: Pair<Option<Box<Record>>>,
    /// Number promised to the session, where the merger's table does not hold it.
    pub(super) number: Option<u64>,
}

impl States {
    /// The last packet that was told of, ns.
    pub(super) fn last(&self) -> u64 {
        let Pair { a, b } = &self.records;
        [a, b].into_iter().flatten().map(|record| record.ts_last.nanos()).max().unwrap_or(0)
    }
}

impl Merger {
    /// Takes the state of a half that goes on.
    pub(super) fn tell(&mut self, record: Record, half: &Half, sink: Sink<'_>) {
        if self.open.len() >= self.max_pieces && !self.open.contains_key(&half.key) {
            return;
        }
        let states = self.open.entry(half.key).or_default();
        *states.records.of_mut(half.from) = Some(Box::new(record));
        let (uid, number) = self.table.identity(&half.key).unwrap_or_else(|| {
            let number = *states.number.get_or_insert_with(|| self.table.number());
            (self.table.uid(number), 0)
        });
        let Pair { a, b } = &states.records;
        let joined = match (a.as_deref(), b.as_deref()) {
            (Some(a), Some(b)) => Some(side_by_side(a, b)),
            (one, other) => one.or(other).cloned(),
        };
        if let Some(mut record) = joined {
            (record.uid, record.number) = (uid, number);
            sink(record);
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
