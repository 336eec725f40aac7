//! From hash to slot: open addressing with linear probing and backward-shift deletion.
//!
//! An entry is eight bytes, the low half of the hash and a slot number, so that a probe seldom leaves one
//! cache line. It never grows: there are twice as many entries as slots.

use std::ops::Range;

/// No slot.
pub(crate) const NONE: u32 = u32::MAX;

/// Slot numbers by hash.
#[derive(Debug)]
pub(crate) struct Index {
    /// Low 32 bits of the hash, then the slot plus one; 0 is empty.
    entries: Box<[u64]>,
    mask: u32,
}

impl Index {
    /// Room for `slots` slots, at most 2^30.
    pub(crate) fn new(slots: u32) -> Self {
        let length = Self::length(slots);
        Self { entries: vec![0; usize::try_from(length).unwrap_or(usize::MAX)].into(), mask: length - 1 }
    }

    fn length(slots: u32) -> u32 {
        slots.clamp(4, 1 << 30).saturating_mul(2).checked_next_power_of_two().unwrap_or(1 << 31)
    }

    /// Bytes an index of `slots` slots takes.
    pub(crate) fn bytes(slots: u32) -> u64 {
        u64::from(Self::length(slots)) * 8
    }

    /// Bytes reserved now.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        u64::try_from(self.entries.len()).unwrap_or(0).saturating_mul(8)
    }

    /// Addresses of the entries.
    pub(crate) fn memory(&self) -> Range<usize> {
        let start = self.entries.as_ptr().addr();
        start..start + size_of_val(&*self.entries)
    }

    fn at(&self, place: u32) -> u64 {
        usize::try_from(place).ok().and_then(|place| self.entries.get(place)).copied().unwrap_or(0)
    }

    fn put(&mut self, place: u32, entry: u64) {
        if let Some(slot) = usize::try_from(place).ok().and_then(|place| self.entries.get_mut(place)) {
            *slot = entry;
        }
    }

    /// Reads where a search for `hash` begins, so that it is in the cache then. The value says nothing.
    #[inline]
    pub(crate) fn touch(&self, hash: u64) -> u64 {
        self.at(low(hash) & self.mask)
    }

    /// The first slot under `hash` that `is` accepts; [`NONE`] if there is none.
    #[inline]
    pub(crate) fn find(&self, hash: u64, mut is: impl FnMut(u32) -> bool) -> u32 {
        let tag = low(hash);
        let mut place = tag & self.mask;
        loop {
            let entry = self.at(place);
            if entry == 0 {
                return NONE;
            }
            if low(entry) == tag && is(low(entry >> 32) - 1) {
                return low(entry >> 32) - 1;
            }
            place = place.wrapping_add(1) & self.mask;
        }
    }

    /// Adds a slot. There must be room, and it must not be there yet.
    pub(crate) fn insert(&mut self, hash: u64, slot: u32) {
        let tag = low(hash);
        let mut place = tag & self.mask;
        while self.at(place) != 0 {
            place = place.wrapping_add(1) & self.mask;
        }
        self.put(place, u64::from(slot + 1) << 32 | u64::from(tag));
    }

    /// Takes a slot out, if it is there.
    pub(crate) fn remove(&mut self, hash: u64, slot: u32) {
        let wanted = u64::from(slot + 1) << 32 | u64::from(low(hash));
        let mut hole = low(hash) & self.mask;
        loop {
            match self.at(hole) {
                0 => return,
                entry if entry == wanted => break,
                _ => hole = hole.wrapping_add(1) & self.mask,
            }
        }
        // Entries behind the hole move into it unless that is before their home.
        let mut place = hole;
        loop {
            place = place.wrapping_add(1) & self.mask;
            let entry = self.at(place);
            if entry == 0 {
                break;
            }
            let home = low(entry) & self.mask;
            let from_home = place.wrapping_sub(home) & self.mask;
            if from_home >= place.wrapping_sub(hole) & self.mask {
                self.put(hole, entry);
                hole = place;
            }
        }
        self.put(hole, 0);
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the low half is what is asked for")]
fn low(word: u64) -> u32 {
    word as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    proptest! {
        #[test]
        fn behaves_like_a_map(operations in proptest::collection::vec((any::<bool>(), 0_u32..24, 0_u64..12), 1..400)) {
            let mut index = Index::new(24);
            let mut model: HashMap<u32, u64> = HashMap::new();
            for (add, slot, hash) in operations {
                // Few homes, at the end of the array too: long runs that wrap.
                let hash = hash * 11;
                match (add, model.get(&slot).copied()) {
                    (true, None) => {
                        index.insert(hash, slot);
                        model.insert(slot, hash);
                    }
                    (false, Some(hash)) => {
                        index.remove(hash, slot);
                        model.remove(&slot);
                    }
                    _ => {}
                }
                for slot in 0..24 {
                    let found = model.get(&slot).map_or(NONE, |hash| index.find(*hash, |s| s == slot));
                    prop_assert_eq!(found == slot, model.contains_key(&slot));
                }
            }
        }
    }
}
