//! How far the segments of a chain are sealed, in order of their numbers: what a recorder notes beside its
//! counters, so that its successor need not read every segment to know how many packets it has.
//!
//! It must never count a packet whose segment is not sealed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

/// All segments of the chain with a number below `below` are sealed; together they got `packets`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SealedPrefix {
    /// The first number about which this says nothing.
    pub below: u32,
    /// Packets in the segments before it, with those that were removed since on purpose.
    pub packets: u64,
}

/// Kept by the sync thread, read by whoever reports. Neither is on the way of a packet.
#[derive(Debug, Default)]
pub(crate) struct Prefix(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    prefix: SealedPrefix,
    open: BTreeSet<u32>,
    /// Sealed before one with a smaller number.
    ahead: BTreeMap<u32, u64>,
}

impl Prefix {
    /// A segment is open. Numbers of a chain only grow.
    pub(crate) fn open(&self, seq: u32) {
        self.with(|state| {
            state.open.insert(seq);
        });
    }

    /// It is over, with so many packets sealed.
    pub(crate) fn close(&self, seq: u32, packets: u64) {
        self.with(|state| {
            state.open.remove(&seq);
            state.ahead.insert(seq, packets);
            let first_open = state.open.first().copied().unwrap_or(u32::MAX);
            while let Some(entry) = state.ahead.first_entry().filter(|entry| *entry.key() < first_open) {
                state.prefix.below = entry.key().saturating_add(1);
                state.prefix.packets += entry.remove();
            }
        });
    }

    /// A segment that was sealed is gone, with so many packets.
    pub(crate) fn lose(&self, seq: u32, packets: u64) {
        self.with(|state| {
            if state.ahead.remove(&seq).is_none() {
                state.prefix.packets = state.prefix.packets.saturating_sub(packets);
            }
        });
    }

    pub(crate) fn get(&self) -> SealedPrefix {
        self.with(|state| state.prefix)
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        // Whoever panicked had changed numbers only.
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_nothing_open_precedes_is_in_the_prefix() {
        let prefix = Prefix::default();
        let is = |below, packets| assert_eq!(prefix.get(), SealedPrefix { below, packets });
        is(0, 0);
        // Other chains of the run have the numbers between.
        for seq in [2, 5, 9] {
            prefix.open(seq);
        }
        prefix.close(5, 50);
        is(0, 0);
        prefix.close(2, 20);
        is(6, 70);
        prefix.open(11);
        prefix.close(11, 110);
        prefix.lose(11, 110);
        is(6, 70);
        prefix.close(9, 90);
        is(10, 160);
        prefix.lose(2, 20);
        is(10, 140);
    }
}
