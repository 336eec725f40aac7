//! When to look at a session again: a lazy timer wheel.
//!
//! Each session stands in one list of one tick. A packet does not move it; when its tick comes, whoever
//! looks decides by its true deadline whether it goes or is put under a later tick. Lists are doubly linked
//! through an array, so nothing is allocated and any session can leave at once.

use super::index::NONE;
use super::{vec_bytes, vec_memory};
use std::ops::Range;

/// Length of a tick, ns.
const TICK: u64 = 100_000_000;
/// Ticks of the wheel: 409.6 s, more than the longest wait. Later deadlines are looked at early.
const TICKS: u64 = 4_096;
const WORDS: usize = 64;

#[derive(Clone, Copy, Debug)]
struct Link {
    previous: u32,
    next: u32,
    tick: u32,
}

/// The wheel.
#[derive(Debug)]
pub(crate) struct Wheel {
    heads: Box<[u32]>,
    /// Which lists are not empty.
    filled: [u64; WORDS],
    links: Vec<Link>,
    /// First tick whose list has not been looked at, since the epoch.
    now: u64,
}

impl Wheel {
    pub(crate) fn new(slots: usize) -> Self {
        let heads = vec![NONE; usize::try_from(TICKS).unwrap_or(0)].into();
        Self { heads, filled: [0; WORDS], links: Vec::with_capacity(slots), now: 0 }
    }

    /// Bytes a wheel for `slots` sessions takes.
    pub(crate) const fn bytes(slots: u64) -> u64 {
        TICKS * 4 + slots * size_of::<Link>() as u64
    }

    /// Addresses of the links.
    pub(crate) fn memory(&self) -> Range<usize> {
        vec_memory(&self.links)
    }

    /// Bytes reserved now.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        TICKS * 4 + vec_bytes(&self.links)
    }

    /// Puts `slot`, which stands nowhere, where it is looked at when `deadline` (ns) has passed. `time` (ns)
    /// is now.
    pub(crate) fn put(&mut self, slot: u32, deadline: u64, time: u64) {
        if self.now == 0 {
            self.now = (time / TICK).max(1);
        }
        let tick = (deadline / TICK + 1).clamp(self.now, self.now.saturating_add(TICKS - 1)) % TICKS;
        let tick = u32::try_from(tick).unwrap_or(0);
        let next = self.head(tick);
        let link = Link { previous: NONE, next, tick };
        let place = usize::try_from(slot).unwrap_or(usize::MAX);
        if place >= self.links.len() {
            self.links.resize(place + 1, Link { previous: NONE, next: NONE, tick: 0 });
        }
        self.set(slot, link);
        if let Some(link) = self.link(next) {
            self.set(next, Link { previous: slot, ..link });
        }
        self.set_head(tick, slot);
    }

    /// Takes `slot` out.
    pub(crate) fn remove(&mut self, slot: u32) {
        let Some(Link { previous, next, tick }) = self.link(slot) else { return };
        match self.link(previous) {
            Some(link) => self.set(previous, Link { next, ..link }),
            None => self.set_head(tick, next),
        }
        if let Some(link) = self.link(next) {
            self.set(next, Link { previous, ..link });
        }
    }

    /// A session under a tick that ended before `time` (ns); it stays where it is. `None` when there is
    /// none left.
    pub(crate) fn due(&mut self, time: u64) -> Option<u32> {
        let end = time / TICK;
        // After a revolution every list has been met.
        self.now = self.now.max(end.saturating_sub(TICKS));
        while self.now <= end {
            let tick = u32::try_from(self.now % TICKS).unwrap_or(0);
            let head = self.head(tick);
            if head != NONE {
                return Some(head);
            }
            self.now += 1;
        }
        None
    }

    /// The session whose tick comes next.
    pub(crate) fn next(&self) -> Option<u32> {
        let start = usize::try_from(self.now % TICKS).unwrap_or(0);
        let ahead = (0..=WORDS).find_map(|step| {
            let word = (start / 64 + step) % WORDS;
            let mut bits = self.filled.get(word).copied().unwrap_or(0);
            if step == 0 {
                bits &= u64::MAX << (start % 64);
            }
            (bits != 0).then(|| u64::try_from(word).unwrap_or(0) * 64 + u64::from(bits.trailing_zeros()))
        });
        ahead.map(|tick| self.head(u32::try_from(tick).unwrap_or(0))).filter(|slot| *slot != NONE)
    }

    fn head(&self, tick: u32) -> u32 {
        usize::try_from(tick).ok().and_then(|tick| self.heads.get(tick)).copied().unwrap_or(NONE)
    }

    fn set_head(&mut self, tick: u32, slot: u32) {
        let Ok(place) = usize::try_from(tick) else { return };
        if let Some(head) = self.heads.get_mut(place) {
            *head = slot;
        }
        if let Some(word) = self.filled.get_mut(place / 64) {
            let bit = 1 << (place % 64);
            *word = if slot == NONE { *word & !bit } else { *word | bit };
        }
    }

    fn link(&self, slot: u32) -> Option<Link> {
        self.links.get(usize::try_from(slot).ok()?).copied()
    }

    fn set(&mut self, slot: u32, link: Link) {
        if let Some(place) = usize::try_from(slot).ok().and_then(|place| self.links.get_mut(place)) {
            *place = link;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn drain(wheel: &mut Wheel, time: u64) -> Vec<u32> {
        let mut due = Vec::new();
        while let Some(slot) = wheel.due(time) {
            wheel.remove(slot);
            due.push(slot);
        }
        due.sort_unstable();
        due
    }

    #[test]
    fn sessions_are_due_after_their_deadline_not_before() {
        let start = 1_700_000_000_000_000_000;
        let mut wheel = Wheel::new(8);
        for slot in 0..4 {
            wheel.put(slot, start + u64::from(slot) * 60_000_000_000, start);
        }
        wheel.remove(1);
        assert_eq!(wheel.next(), Some(0));
        assert_eq!(drain(&mut wheel, start), [0_u32; 0]);
        assert_eq!(drain(&mut wheel, start + TICK), [0]);
        assert_eq!(wheel.next(), Some(2));
        assert_eq!(drain(&mut wheel, start + 150_000_000_000), [2]);
        // Years later.
        assert_eq!(drain(&mut wheel, start * 2), [3]);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn far_deadlines_are_met_early_and_late_ones_at_once() {
        let start = 1_700_000_000_000_000_000;
        let mut wheel = Wheel::new(8);
        wheel.put(0, start, start);
        assert_eq!(drain(&mut wheel, start + TICK), [0]);
        wheel.put(1, start + 10_000 * TICK, start);
        wheel.put(2, start - 10_000 * TICK, start);
        assert_eq!(drain(&mut wheel, start + 2 * TICK), [2]);
        assert_eq!(drain(&mut wheel, start + 5_000 * TICK), [1]);
    }
}
