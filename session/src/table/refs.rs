//! Where a session's packets are: a bounded list of frame ranges.

use crate::input::Place;
use crate::record::PacketRef;

/// Ranges a session keeps between two records.
pub(crate) const MAX_REFS: usize = 8;
/// The widest gap: more frames than a segment has.
const GAP_MAX: u32 = u32::MAX >> 1;

/// The ranges, in order of arrival.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Refs {
    ranges: [PacketRef; MAX_REFS],
    length: u8,
    /// Some were left out.
    pub(crate) incomplete: bool,
}

impl Refs {
    /// Begins a range at `place`, or widens the last one when there is no room.
    pub(crate) fn open(&mut self, place: Place) {
        if usize::from(self.length) == MAX_REFS {
            if let Some(last) = self.ranges.last_mut()
                && last.segment == place.segment()
            {
                last.first_frame = last.first_frame.min(place.frame());
                last.last_frame = last.last_frame.max(place.frame());
                return;
            }
            if !self.join_nearest() {
                self.incomplete = true;
                return;
            }
        }
        if let Some(free) = self.ranges.get_mut(usize::from(self.length)) {
            *free =
                PacketRef { segment: place.segment(), first_frame: place.frame(), last_frame: place.frame() };
            self.length += 1;
        }
    }

    /// Reads what [`Refs::open`] writes.
    pub(crate) fn touch(&self) -> u64 {
        let [first, .., last] = &self.ranges;
        u64::from(self.length) ^ u64::from(first.segment) ^ u64::from(last.segment)
    }

    /// Ranges there are.
    pub(crate) const fn count(&self) -> u8 {
        self.length
    }

    /// The last range goes up to the frame at `place`, if that is its segment.
    pub(crate) fn extend(&mut self, place: Place) {
        if let Some(last) = usize::from(self.length).checked_sub(1).and_then(|last| self.ranges.get_mut(last))
            && last.segment == place.segment()
        {
            last.last_frame = last.last_frame.max(place.frame());
        }
    }

    /// Joins the two neighbours of one segment that lie closest; `false` if all are of different segments.
    fn join_nearest(&mut self) -> bool {
        let near = self.ranges.windows(2).enumerate().filter_map(|(at, pair)| match pair {
            [a, b] if a.segment == b.segment => Some((b.first_frame.abs_diff(a.last_frame), at)),
            _ => None,
        });
        let Some((_, at)) = near.min() else { return false };
        let Some([first, second, ..]) = self.ranges.get_mut(at..) else { return false };
        first.first_frame = first.first_frame.min(second.first_frame);
        first.last_frame = first.last_frame.max(second.last_frame);
        if let Some(rest) = self.ranges.get_mut(at + 1..) {
            rest.rotate_left(1);
        }
        self.length = self.length.saturating_sub(1);
        true
    }

    /// All ranges, in order of segment and frame.
    pub(crate) fn to_vec(self) -> Vec<PacketRef> {
        let mut refs = self.ranges.get(..usize::from(self.length)).unwrap_or_default().to_vec();
        refs.sort_unstable();
        refs
    }
}

/// The gap that a session with `refs` ranges bridges: four times as wide with each, for who has many ranges
/// already has its packets all over the segment. With a full list it takes all of a segment.
pub(crate) fn wider(gap: u32, refs: u8) -> u32 {
    if usize::from(refs) >= MAX_REFS {
        return GAP_MAX;
    }
    gap.saturating_mul(1_u32 << (2 * u32::from(refs.saturating_sub(1)))).min(GAP_MAX)
}

/// Whether the range whose last frame is at `last` may go on to `place`.
pub(crate) fn near(last: Place, place: Place, gap: u32) -> bool {
    // A frame before the last one is further on than any gap.
    last.segment() == place.segment() && place.frame().wrapping_sub(last.frame()) <= gap
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_place_lies_in_a_range(places in proptest::collection::vec((0_u32..6, 0_u32..2_000), 1..200)) {
            let mut refs = Refs::default();
            let mut open: Option<Place> = None;
            for (segment, frame) in &places {
                let place = Place::new(*segment, *frame);
                match open {
                    Some(last) if near(last, place, wider(16, refs.count())) => open = Some(place),
                    last => {
                        if let Some(last) = last {
                            refs.extend(last);
                        }
                        refs.open(place);
                        open = Some(place);
                    }
                }
            }
            refs.extend(open.unwrap());
            let (ranges, incomplete) = (refs.to_vec(), refs.incomplete);
            prop_assert!(ranges.len() <= MAX_REFS);
            for (segment, frame) in places {
                let within = |r: &PacketRef| r.segment == segment && r.first_frame <= frame && frame <= r.last_frame;
                prop_assert!(incomplete || ranges.iter().any(within));
            }
        }
    }
}
