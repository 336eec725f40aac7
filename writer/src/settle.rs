//! How far a chain can vouch: the time up to which every packet that came can be read.
//!
//! Packets of a chain become readable out of order: blocks of the frame being filled reach the journal
//! while the frame before it still waits for the compressor. So the worker now and then leaves a
//! [`Mark`] (nothing before this time will come any more, and all that came stands before this place),
//! and the stage states its time in the chain's live file once everything before the place can be read or
//! is counted as lost. Readers show nothing of a live segment beyond the time stated last.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};
use tapedeck_packet::Timestamp;

/// Marks that wait for their place; at one a tick these are five seconds. More are not taken.
const MARKS_MAX: usize = 64;

/// A place in the order in which a chain takes its packets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Place {
    /// Segment, within the run.
    pub(crate) seq: u32,
    /// Frame, within the segment.
    pub(crate) frame: u32,
    /// Bytes of the uncompressed frame.
    pub(crate) bytes: usize,
}

impl Place {
    /// Before the first packet of a chain.
    pub(crate) const START: Self = Self { seq: 0, frame: 0, bytes: 0 };

    /// Behind the last packet of this segment.
    pub(crate) const fn behind(seq: u32) -> Self {
        Self { seq, frame: u32::MAX, bytes: usize::MAX }
    }
}

/// What the worker knows of its source.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Mark {
    /// No packet of this time or before it will come any more.
    pub(crate) until: Timestamp,
    /// Those that came stand before it.
    pub(crate) place: Place,
}

/// The way of the latest mark from worker to stage. Locked some ten times a second, never for a packet.
pub(crate) type Slot = Arc<Mutex<Option<Mark>>>;

/// Leaves a mark; one that was not fetched is replaced.
pub(crate) fn leave(slot: &Slot, mark: Mark) {
    if let Ok(mut slot) = slot.lock() {
        *slot = Some(mark);
    }
}

/// The marks whose places are not reached.
#[derive(Debug)]
pub(crate) struct Marks {
    slot: Slot,
    waiting: VecDeque<Mark>,
}

impl Marks {
    pub(crate) fn new(slot: Slot) -> Self {
        Self { slot, waiting: VecDeque::with_capacity(MARKS_MAX) }
    }

    /// Fetches the latest mark; then the time up to which the chain is whole, if that is news, when
    /// everything before `frontier` can be read.
    pub(crate) fn reached(&mut self, frontier: Place) -> Option<Timestamp> {
        let latest = self.slot.lock().ok().and_then(|mut slot| slot.take());
        if self.waiting.len() < MARKS_MAX {
            self.waiting.extend(latest);
        }
        let mut until = None;
        while let Some(mark) = self.waiting.front().filter(|mark| mark.place <= frontier) {
            until = Some(mark.until);
            self.waiting.pop_front();
        }
        until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(seq: u32, frame: u32, bytes: usize) -> Place {
        Place { seq, frame, bytes }
    }

    #[test]
    fn a_time_is_stated_once_its_place_is_reached() {
        let slot = Slot::default();
        let mut marks = Marks::new(Arc::clone(&slot));
        let at = Timestamp::from_nanos_saturating;
        assert_eq!(marks.reached(place(9, 9, 9)), None);
        leave(&slot, Mark { until: at(10), place: place(1, 2, 30) });
        assert_eq!(marks.reached(place(1, 2, 29)), None);
        leave(&slot, Mark { until: at(20), place: place(1, 3, 0) });
        assert_eq!(marks.reached(place(1, 2, 30)), Some(at(10)));
        assert_eq!(marks.reached(place(1, 2, 99)), None);
        assert_eq!(marks.reached(place(2, 0, 0)), Some(at(20)));
    }

    #[test]
    fn too_many_marks_are_bounded_and_do_not_stop_the_clock() {
        let slot = Slot::default();
        let mut marks = Marks::new(Arc::clone(&slot));
        for n in 0..1_000 {
            let until = Timestamp::from_nanos_saturating(n);
            leave(&slot, Mark { until, place: place(1, 1, 1) });
            assert_eq!(marks.reached(place(0, 0, 0)), None);
        }
        assert_eq!(marks.waiting.len(), MARKS_MAX);
        let last = Timestamp::from_nanos_saturating(1_000);
        assert!(marks.reached(place(1, 1, 1)).is_some());
        leave(&slot, Mark { until: last, place: place(1, 1, 1) });
        assert_eq!(marks.reached(place(1, 1, 1)), Some(last));
    }
}
