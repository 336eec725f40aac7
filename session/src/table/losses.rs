//! When packets were lost before they reached the table.

use std::collections::VecDeque;

/// Losses closer than this are one stretch, ns.
const JOIN_NS: u64 = 1_000_000_000;
/// Stretches remembered: more than a record lasts at one a second; beyond, the two oldest become one.
const STRETCHES: usize = 512;

/// Stretches of time with losses, in the order in which they were told.
#[derive(Debug, Default)]
pub(super) struct Losses {
    stretches: VecDeque<(u64, u64)>,
}

impl Losses {
    /// Packets were lost from `from` to `until`, ns.
    pub(super) fn note(&mut self, from: u64, until: u64) {
        if let Some((_, end)) = self.stretches.back_mut()
            && from >= *end
            && from - *end <= JOIN_NS
        {
            *end = until.max(*end);
            return;
        }
        if self.stretches.len() >= STRETCHES
            && let Some((from, end)) = self.stretches.pop_front()
            && let Some(next) = self.stretches.front_mut()
        {
            *next = (next.0.min(from), next.1.max(end));
        }
        self.stretches.push_back((from, until));
    }

    /// Whether any packet was lost from `from` to `until`, ns.
    pub(super) fn any(&self, from: u64, until: u64) -> bool {
        self.stretches.iter().rev().any(|(first, last)| *first <= until && from <= *last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_are_remembered_as_stretches() {
        let mut losses = Losses::default();
        assert!(!losses.any(0, u64::MAX));
        losses.note(10 * JOIN_NS, 10 * JOIN_NS);
        losses.note(11 * JOIN_NS, 11 * JOIN_NS);
        losses.note(20 * JOIN_NS, 21 * JOIN_NS);
        assert_eq!(losses.stretches.len(), 2);
        assert!(losses.any(0, 10 * JOIN_NS) && losses.any(11 * JOIN_NS, 12 * JOIN_NS));
        assert!(!losses.any(11 * JOIN_NS + 1, 20 * JOIN_NS - 1) && !losses.any(21 * JOIN_NS + 1, u64::MAX));
    }

    #[test]
    fn what_is_forgotten_widens_what_is_kept() {
        let mut losses = Losses::default();
        let count = STRETCHES as u64 * 3;
        for number in 0..count {
            losses.note(number * 10 * JOIN_NS, number * 10 * JOIN_NS);
        }
        assert_eq!(losses.stretches.len(), STRETCHES);
        assert!((0..count).all(|number| losses.any(number * 10 * JOIN_NS, number * 10 * JOIN_NS)));
    }
}
