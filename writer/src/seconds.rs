//! The books of a chain by UTC second: what became of the packets of each, for the rows of the ledger.
//!
//! The second of a packet is given with it. The worker counts in a few slots of its own and hands them over
//! at a tick ([`Slots`]); packets on their way carry their seconds along ([`Runs`]), so that whoever books
//! them later, in another thread, books each in its own. Everything meets in one map behind a lock that is
//! held for a few additions, never while a packet is taken: the worker waits for it only where a single tick
//! met more seconds than there are slots.
//!
//! All numbers are differences since they were [taken](ChainCounters::take_seconds) last, and signed: what
//! was stored may be lost. Their sums are those of the [`CounterSnapshot`](crate::CounterSnapshot). Must never:
//! book a packet in two seconds, or in none.

use crate::counters::{ChainCounters, Sum};
use smallvec::SmallVec;
use std::collections::BTreeMap;
use std::ops::AddAssign;
use std::sync::PoisonError;

/// Seconds that a frame of a live source holds without memory of its own; a frame is cut at five seconds.
const RUNS: usize = 8;
/// Seconds between two ticks that the worker counts without the lock.
const SLOTS: usize = 8;

/// A signed count of packets and their captured bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Delta {
    /// Packets.
    pub packets: i64,
    /// Captured bytes of these packets.
    pub bytes: i64,
}

impl AddAssign for Delta {
    fn add_assign(&mut self, other: Self) {
        self.packets = self.packets.wrapping_add(other.packets);
        self.bytes = self.bytes.wrapping_add(other.bytes);
    }
}

impl From<Sum> for Delta {
    fn from(sum: Sum) -> Self {
        Self { packets: signed(sum.packets), bytes: signed(sum.bytes) }
    }
}

impl std::ops::Neg for Delta {
    type Output = Self;

    fn neg(self) -> Self {
        Self { packets: self.packets.wrapping_neg(), bytes: self.bytes.wrapping_neg() }
    }
}

fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// What became of the packets of one second. The same lines as in the books of the chain.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    /// Given to the chain.
    pub appended: Delta,
    /// Their bytes on the wire.
    pub wire_bytes: i64,
    /// Packets that entered a frame shorter than they were on the wire, and the bytes they lack.
    pub short: Delta,
    /// Left out by a filter, and their bytes on the wire; in no other count.
    pub filtered: Delta,
    /// Copied into a frame.
    pub entered: Delta,
    /// Dropped for want of a frame buffer.
    pub shed: Delta,
    /// Dropped because no segment could be opened just now.
    pub refused: Delta,
    /// Became retrievable, less those that are not any more.
    pub stored: Delta,
    /// Entered a frame and could not be made retrievable.
    pub failed: Delta,
    /// Left the pipeline, one way or the other: `entered - left` is under way.
    pub left: Delta,
}

impl AddAssign for Second {
    fn add_assign(&mut self, other: Self) {
        self.appended += other.appended;
        self.wire_bytes = self.wire_bytes.wrapping_add(other.wire_bytes);
        self.short += other.short;
        self.filtered += other.filtered;
        self.entered += other.entered;
        self.shed += other.shed;
        self.refused += other.refused;
        self.stored += other.stored;
        self.failed += other.failed;
        self.left += other.left;
    }
}

/// Packets that moved between `stored` and `failed` after the fact, of which only this is known: a segment
/// that is gone, or of which recovery found more or less than was booked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shift {
    /// First and last second of the segment's packets.
    pub seconds: (u64, u64),
    /// Added to `stored`; `failed` changes by the opposite.
    pub stored: Delta,
}

/// Everything booked since the last time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SecondBooks {
    /// By second since the epoch.
    pub seconds: BTreeMap<u64, Second>,
    /// What no single second can be named for.
    pub shifts: Vec<Shift>,
}

impl SecondBooks {
    fn of(&mut self, second: u64) -> &mut Second {
        self.seconds.entry(second).or_default()
    }
}

impl ChainCounters {
    /// What was booked by second since this was called last. To be called every few seconds: the books grow
    /// by one entry for each second that has packets.
    #[must_use]
    pub fn take_seconds(&self) -> SecondBooks {
        std::mem::take(&mut *self.seconds.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn by_second(&self, runs: &Runs, book: impl Fn(&mut Second, Delta)) {
        if runs.sum.packets == 0 {
            return;
        }
        let mut books = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        runs.runs.iter().for_each(|run| book(books.of(run.second), run.sum.into()));
    }

    /// Books packets as retrievable.
    pub(crate) fn store(&self, runs: &Runs) {
        self.stored.add(runs.sum);
        self.left.add(runs.sum);
        self.by_second(runs, |second, delta| {
            second.stored += delta;
            second.left += delta;
        });
    }

    /// Books packets as lost in writing.
    pub(crate) fn fail(&self, runs: &Runs) {
        self.failed.add(runs.sum);
        self.left.add(runs.sum);
        self.by_second(runs, |second, delta| {
            second.failed += delta;
            second.left += delta;
        });
    }

    /// Moves packets that were booked as retrievable, and are not any more, to those lost in writing.
    pub(crate) fn lose(&self, stored: &BySecond) {
        self.move_to_failed(stored.sum());
        let mut books = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        for (second, sum) in &stored.sums {
            let delta = Delta::from(*sum);
            let second = books.of(*second);
            second.stored += -delta;
            second.failed += delta;
        }
    }

    /// As [`ChainCounters::lose`], of a sealed segment: its packets are known by their span alone.
    pub(crate) fn lose_sealed(&self, sum: Sum, seconds: Option<(u64, u64)>) {
        self.move_to_failed(sum);
        self.shift(seconds, -Delta::from(sum));
    }

    /// Of a segment, `counted` packets were booked as retrievable and `found` are: corrects the books.
    pub(crate) fn settle(&self, counted: &BySecond, found: Sum) {
        let sum = counted.sum();
        self.move_to_failed(sum.minus(found));
        self.move_to_stored(found.minus(sum));
        let mut change = Delta::from(found);
        change += -Delta::from(sum);
        self.shift(counted.span, change);
    }

    fn shift(&self, seconds: Option<(u64, u64)>, stored: Delta) {
        if stored != Delta::default() {
            let shift = Shift { seconds: seconds.unwrap_or_default(), stored };
            self.seconds.lock().unwrap_or_else(PoisonError::into_inner).shifts.push(shift);
        }
    }
}

/// Packets of one second that follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Run {
    second: u64,
    sum: Sum,
}

/// Packets in the order in which they came, as runs of one second each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Runs {
    sum: Sum,
    runs: SmallVec<[Run; RUNS]>,
}

impl Runs {
    /// All of them.
    pub(crate) fn sum(&self) -> Sum {
        self.sum
    }

    /// One more packet.
    pub(crate) fn note(&mut self, second: u64, bytes: u64) {
        self.push(second, Sum { packets: 1, bytes });
    }

    fn push(&mut self, second: u64, sum: Sum) {
        self.sum = self.sum.plus(sum);
        match self.runs.last_mut() {
            Some(run) if run.second == second => run.sum = run.sum.plus(sum),
            _ => self.runs.push(Run { second, sum }),
        }
    }

    /// Without the first ones, which come to `first`.
    pub(crate) fn behind(&self, first: Sum) -> Self {
        let (mut skip, mut rest) = (first, Self::default());
        for run in &self.runs {
            let skipped = if skip.packets < run.sum.packets { skip } else { run.sum };
            skip = skip.minus(skipped);
            let left = run.sum.minus(skipped);
            if left.packets > 0 {
                rest.push(run.second, left);
            }
        }
        rest
    }

    /// The packets of `other` behind these.
    pub(crate) fn join(&mut self, other: &Self) {
        other.runs.iter().for_each(|run| self.push(run.second, run.sum));
    }
}

/// Packets of a segment by second: at most those of an hour.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct BySecond {
    sums: BTreeMap<u64, Sum>,
    /// First and last second of all that came for the segment, also of what is not in `sums`.
    span: Option<(u64, u64)>,
}

impl BySecond {
    pub(crate) fn add(&mut self, runs: &Runs) {
        self.touch(runs);
        for run in &runs.runs {
            let sum = self.sums.entry(run.second).or_default();
            *sum = sum.plus(run.sum);
        }
    }

    /// Takes the seconds of packets to be within the span.
    pub(crate) fn touch(&mut self, runs: &Runs) {
        for Run { second, .. } in &runs.runs {
            let (first, last) = self.span.unwrap_or((*second, *second));
            self.span = Some((first.min(*second), last.max(*second)));
        }
    }

    pub(crate) fn sum(&self) -> Sum {
        self.sums.values().fold(Sum::default(), |all, sum| all.plus(*sum))
    }

    pub(crate) fn span(&self) -> Option<(u64, u64)> {
        self.span
    }
}

/// What the worker counts between two ticks.
#[derive(Debug, Default)]
pub(crate) struct Slots {
    slots: [(u64, Second); SLOTS],
    used: usize,
    /// The slot of the packet before.
    latest: usize,
}

impl Slots {
    /// The slot of a second. Where all are taken by others, they are handed over first.
    pub(crate) fn of(&mut self, second: u64, counters: &ChainCounters) -> &mut Second {
        let used = self.slots.get(..self.used).unwrap_or_default();
        let known = match used.get(self.latest) {
            Some((latest, _)) if *latest == second => Some(self.latest),
            _ => used.iter().position(|(known, _)| *known == second),
        };
        self.latest = known.unwrap_or_else(|| {
            if self.used == SLOTS {
                self.hand_over(counters);
            }
            self.used += 1;
            self.used - 1
        });
        let [first, others @ ..] = &mut self.slots;
        // `latest` is below SLOTS, so one of the two it is.
        let slot = self.latest.checked_sub(1).and_then(|at| others.get_mut(at)).unwrap_or(first);
        slot.0 = second;
        &mut slot.1
    }

    /// Adds everything to the books; waits for whoever adds to them just now.
    pub(crate) fn hand_over(&mut self, counters: &ChainCounters) {
        let mut books = counters.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        self.empty_into(&mut books);
    }

    /// The same if nobody does.
    pub(crate) fn try_hand_over(&mut self, counters: &ChainCounters) {
        if self.used > 0
            && let Ok(mut books) = counters.seconds.try_lock()
        {
            self.empty_into(&mut books);
        }
    }

    fn empty_into(&mut self, books: &mut SecondBooks) {
        for (second, slot) in self.slots.iter_mut().take(self.used) {
            *books.of(*second) += std::mem::take(slot);
        }
        (self.used, self.latest) = (0, 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sum(packets: u64, bytes: u64) -> Sum {
        Sum { packets, bytes }
    }

    #[test]
    fn what_is_behind_a_place_keeps_its_seconds() {
        let mut runs = Runs::default();
        for (second, bytes) in [(7, 10), (7, 20), (8, 30), (7, 40)] {
            runs.note(second, bytes);
        }
        assert_eq!(runs.sum(), sum(4, 100));
        assert_eq!(runs.behind(Sum::default()), runs);
        let rest = runs.behind(sum(1, 10));
        assert_eq!((rest.sum(), rest.runs.len()), (sum(3, 90), 3));
        let rest = runs.behind(sum(3, 60));
        assert_eq!(rest.runs.as_slice(), [Run { second: 7, sum: sum(1, 40) }]);
        assert_eq!(runs.behind(runs.sum()), Runs::default());
    }

    proptest! {
        #[test]
        fn a_prefix_and_the_rest_are_all(packets in prop::collection::vec((0u64..4, 1u64..100), 0..60), at in 0usize..60) {
            let (mut all, mut first) = (Runs::default(), Runs::default());
            for (number, (second, bytes)) in packets.iter().enumerate() {
                all.note(*second, *bytes);
                if number < at {
                    first.note(*second, *bytes);
                }
            }
            let rest = all.behind(first.sum());
            first.join(&rest);
            prop_assert_eq!(first, all);
        }

        #[test]
        fn slots_lose_nothing(packets in prop::collection::vec((0u64..30, any::<bool>()), 0..200)) {
            let counters = ChainCounters::default();
            let mut slots = Slots::default();
            let mut expected: BTreeMap<u64, i64> = BTreeMap::new();
            let mut got: BTreeMap<u64, i64> = BTreeMap::new();
            let mut take = || {
                for (second, books) in counters.take_seconds().seconds {
                    *got.entry(second).or_default() += books.appended.packets;
                }
            };
            for (second, tick) in packets {
                slots.of(second, &counters).appended += sum(1, 1).into();
                *expected.entry(second).or_default() += 1;
                if tick {
                    slots.try_hand_over(&counters);
                    take();
                }
            }
            slots.hand_over(&counters);
            take();
            prop_assert_eq!(got, expected);
        }
    }
}
