//! Puts the matches of many frames into one order, in bounded memory.
//!
//! Frames are handed in as sorted [`Batch`]es; [`Merge::pop`] gives the smallest packet of all of them.
//! It does not know what is still unread: the caller hands in every frame that could hold an earlier
//! packet before it asks for the next. What does not fit the budget goes, sorted, to an unlinked
//! temporary file and is read back in pieces (an external merge sort).

use crate::spill::{Run, Spill};
use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::collections::binary_heap::PeekMut;
use std::io;
use tapedeck_packet::Timestamp;

/// Matched packets held in memory before they go to the temporary file, bytes.
pub const MERGE_BYTES: usize = 256 * 1024 * 1024;

/// The order of an answer: time, interface in order of name, arrival. Arrival numbers count from 0 in each
/// segment, so the segments' order (that of their chain) comes first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// Time of the packet.
    pub ts: Timestamp,
    /// Rank of the interface's name among those of the answer.
    pub interface: u32,
    /// Rank of the segment in the order of its chain.
    pub segment: u32,
    /// Arrival number in its segment.
    pub arrival: u64,
}

/// A packet of the answer; its bytes lie in the batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Found {
    /// Its place in the answer.
    pub key: Key,
    /// Length on the wire, bytes.
    pub orig_len: u32,
    /// `epb_flags`, where the recorder knew them.
    pub flags: Option<u32>,
    /// Where its bytes begin in [`Batch::bytes`].
    pub start: usize,
    /// Bytes kept.
    pub len: usize,
}

/// The matches of one frame.
#[derive(Debug, Default)]
pub struct Batch {
    /// The packets; sorted by [`Key`] once [`Batch::sort`] has run.
    pub items: Vec<Found>,
    /// The bytes they point into.
    pub bytes: Vec<u8>,
    /// Packets in the frame, matching or not.
    pub packets: u64,
}

impl Batch {
    /// Sorts the packets; cheap when they are sorted already.
    pub fn sort(&mut self) {
        if !self.items.is_sorted_by_key(|i| i.key) {
            self.items.sort_by_key(|i| i.key);
        }
    }

    /// Memory this batch holds, bytes.
    fn held(&self) -> usize {
        self.bytes.capacity().saturating_add(self.items.capacity().saturating_mul(size_of::<Found>()))
    }

    fn get(&self, at: usize) -> Option<(Found, &[u8])> {
        let found = self.items.get(at)?;
        Some((*found, self.bytes.get(found.start..found.start.checked_add(found.len)?)?))
    }
}

enum Cursor {
    Memory { batch: Batch, at: usize },
    File(Run),
}

impl Cursor {
    fn key(&self) -> Option<Key> {
        match self {
            Self::Memory { batch, at } => batch.items.get(*at).map(|i| i.key),
            Self::File(run) => run.key(),
        }
    }

    fn entry(&self) -> Option<(Found, &[u8])> {
        match self {
            Self::Memory { batch, at } => batch.get(*at),
            Self::File(run) => run.entry(),
        }
    }

    fn held(&self) -> usize {
        match self {
            Self::Memory { batch, .. } => batch.held(),
            Self::File(_) => 0,
        }
    }
}

/// The merge of all batches handed in so far.
pub struct Merge {
    heap: BinaryHeap<Reverse<(Key, usize)>>,
    slots: Vec<Option<Cursor>>,
    free: Vec<usize>,
    /// The slot whose entry was given out last and has not moved on yet; on top of the heap.
    given: Option<usize>,
    held: usize,
    budget: usize,
    spill: Option<Spill>,
}

impl Merge {
    /// An empty merge that keeps at most about `budget` bytes of matches in memory.
    #[must_use]
    pub fn new(budget: usize) -> Self {
        Self {
            heap: BinaryHeap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            given: None,
            held: 0,
            budget,
            spill: None,
        }
    }

    /// Takes the matches of one more frame, in any order of frames.
    ///
    /// # Errors
    /// When the budget is used up and the temporary file cannot be written.
    pub fn add(&mut self, mut batch: Batch) -> io::Result<()> {
        self.settle()?;
        batch.sort();
        self.insert(Cursor::Memory { batch, at: 0 });
        if self.held > self.budget {
            self.spill_all()?;
        }
        Ok(())
    }

    /// Where the next packet stands; `None` when nothing is held.
    ///
    /// # Errors
    /// When the temporary file cannot be read.
    pub fn peek(&mut self) -> io::Result<Option<Key>> {
        self.settle()?;
        Ok(self.heap.peek().map(|Reverse((key, _))| *key))
    }

    /// Takes the smallest packet out.
    ///
    /// # Errors
    /// When the temporary file cannot be read.
    pub fn pop(&mut self) -> io::Result<Option<(Found, &[u8])>> {
        self.settle()?;
        // It stays on top until it moves on, which is to its place in the heap at once: most often the top again.
        let Some(Reverse((_, slot))) = self.heap.peek().copied() else { return Ok(None) };
        self.given = Some(slot);
        Ok(self.slots.get(slot).and_then(Option::as_ref).and_then(Cursor::entry))
    }

    /// Moves the cursor that gave the last packet on, or forgets it.
    fn settle(&mut self) -> io::Result<()> {
        let Some(slot) = self.given.take() else { return Ok(()) };
        let Some(cursor) = self.slots.get_mut(slot).and_then(Option::as_mut) else { return Ok(()) };
        match cursor {
            Cursor::Memory { at, .. } => *at += 1,
            Cursor::File(run) => {
                if let Some(spill) = &self.spill {
                    run.advance(spill)?;
                }
            }
        }
        let next = cursor.key();
        let Some(mut top) = self.heap.peek_mut() else { return Ok(()) };
        match next {
            Some(key) => *top = Reverse((key, slot)),
            None => {
                PeekMut::pop(top);
                self.remove(slot);
            }
        }
        Ok(())
    }

    fn insert(&mut self, cursor: Cursor) {
        let Some(key) = cursor.key() else { return };
        self.held = self.held.saturating_add(cursor.held());
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        if let Some(place) = self.slots.get_mut(slot) {
            *place = Some(cursor);
        }
        self.heap.push(Reverse((key, slot)));
    }

    fn remove(&mut self, slot: usize) -> Option<Cursor> {
        let cursor = self.slots.get_mut(slot)?.take()?;
        self.held = self.held.saturating_sub(cursor.held());
        self.free.push(slot);
        Some(cursor)
    }

    /// Writes everything held in memory, in order, to the temporary file as one run.
    fn spill_all(&mut self) -> io::Result<()> {
        let mut part = Self::new(usize::MAX);
        let all = std::mem::take(&mut self.heap);
        for Reverse((key, slot)) in all {
            match self.slots.get(slot) {
                Some(Some(Cursor::Memory { .. })) => {
                    if let Some(cursor) = self.remove(slot) {
                        part.insert(cursor);
                    }
                }
                _ => self.heap.push(Reverse((key, slot))),
            }
        }
        let mut spill = match self.spill.take() {
            Some(spill) => spill,
            None => Spill::create()?,
        };
        let mut writer = spill.run()?;
        while let Some((found, bytes)) = part.pop()? {
            writer.put(&found, bytes)?;
        }
        let run = writer.finish()?;
        let run = Run::open(&spill, run)?;
        self.spill = Some(spill);
        self.insert(Cursor::File(run));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    //! The merge against a plain sort of everything.

    use super::*;
    use proptest::prelude::*;

    fn batch_of(keys: &[(u64, u32, u64)]) -> Batch {
        let mut batch = Batch::default();
        for (ts, interface, arrival) in keys {
            let ts = Timestamp::from_nanos_saturating(*ts);
            let key = Key { ts, interface: *interface, arrival: *arrival, segment: 0 };
            let bytes = format!("{ts}/{interface}/{arrival}").into_bytes();
            let (start, len) = (batch.bytes.len(), bytes.len());
            batch.bytes.extend(bytes);
            let flags = (interface % 2 == 1).then_some(*interface);
            batch.items.push(Found { key, orig_len: 77, flags, start, len });
        }
        batch
    }

    fn drain(merge: &mut Merge) -> Vec<(Key, Option<u32>, String)> {
        let mut out = Vec::new();
        while let Some((found, bytes)) = merge.pop().unwrap() {
            assert_eq!(found.orig_len, 77);
            out.push((found.key, found.flags, String::from_utf8(bytes.to_vec()).unwrap()));
        }
        out
    }

    proptest! {
        /// In memory, spilled after every batch, and anything between give the same order.
        #[test]
        fn order_is_that_of_a_sort(
            batches in prop::collection::vec(prop::collection::vec((0u64..9, 0u32..3, 0u64..9), 0..9), 0..9),
            budget in prop::sample::select(vec![0usize, 700, 3_000, usize::MAX]),
        ) {
            let mut merge = Merge::new(budget);
            let mut want: Vec<_> = batches.iter().flatten().copied().collect();
            want.sort_unstable();
            for batch in &batches {
                merge.add(batch_of(batch)).unwrap();
            }
            let got = drain(&mut merge);
            let keys: Vec<_> = got.iter().map(|(k, ..)| (k.ts.nanos(), k.interface, k.arrival)).collect();
            prop_assert_eq!(keys, want);
            for (key, flags, text) in got {
                prop_assert_eq!(text, format!("{}/{}/{}", key.ts, key.interface, key.arrival));
                prop_assert_eq!(flags, (key.interface % 2 == 1).then_some(key.interface));
            }
        }
    }

    #[test]
    fn batches_may_come_while_packets_go() {
        let mut merge = Merge::new(0);
        merge.add(batch_of(&[(5, 0, 0), (1, 0, 1)])).unwrap();
        assert_eq!(merge.pop().unwrap().unwrap().0.key.ts.nanos(), 1);
        merge.add(batch_of(&[(3, 0, 2)])).unwrap();
        assert_eq!(merge.peek().unwrap().unwrap().ts.nanos(), 3);
        let rest: Vec<u64> = drain(&mut merge).iter().map(|(k, ..)| k.ts.nanos()).collect();
        assert_eq!(rest, [3, 5]);
        assert_eq!(merge.peek().unwrap(), None);
    }
}
