//! The states of sessions that go on, for the session journal: of new ones soon, of all others now and then.
//!
//! A call does a bounded piece of work, so that a table with a million sessions stalls no worker. What begins
//! faster than calls can tell of is told of by the round over all slots, or by its record.

use super::{Sink, Table};
use crate::inspect::Inspector;

/// New sessions that may wait to be told of.
pub(super) const FRESH: usize = 1 << 14;

/// A round over all slots.
#[derive(Debug, Default)]
pub(super) struct Round {
    /// The next slot.
    next: u32,
    /// When it began, and when the one before did: latest packet then, ns.
    began: u64,
    before: u64,
}

impl<P: Inspector> Table<P> {
    /// Tells, as records of kind [`Open`](crate::RecordKind::Open), of at most `fresh` sessions that have begun,
    /// and of those among the next `slots` slots that have had packets in the last round. Nothing is changed.
    pub fn news(&mut self, fresh: usize, slots: u32, sink: Sink<'_>) {
        for _ in 0..fresh {
            let Some(slot) = self.fresh.pop_front() else { break };
            self.tell(slot, 0, sink);
        }
        let end = self.slots.end();
        for _ in 0..slots.min(end) {
            if self.round.next >= end {
                let before = std::mem::replace(&mut self.round.began, self.now);
                (self.round.next, self.round.before) = (0, before);
            }
            self.tell(self.round.next, self.round.before, sink);
            self.round.next += 1;
        }
    }

    /// Tells of the session in `slot`, if it has had a packet at `since` or later that is in no record.
    fn tell(&self, slot: u32, since: u64, sink: Sink<'_>) {
        let lives = self
            .slots
            .hot(slot)
            .is_some_and(|hot| hot.deadline != 0 && hot.last >= since && hot.packets() > 0);
        if let Some(mut record) = lives.then(|| self.snapshot(slot)).flatten() {
            record.half = self.open_half(slot);
            sink(record);
        }
    }

    /// Slots that a round goes over.
    #[must_use]
    pub fn slots(&self) -> u32 {
        self.slots.end()
    }
}
