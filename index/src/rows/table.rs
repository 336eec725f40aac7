//! The row table of an open segment: which row a layer is, without allocation per packet.
//!
//! Three steps, each verified on the whole row: the row last seen at this depth (bursts), a small
//! direct-mapped cache of row ids (what is hot stays in the first-level cache), then open addressing over
//! 2^21 slots (for [`ROWS_MAX`] rows), at most half of them taken. A slot holds generation, hash tag and row id; emptying the table
//! is one more generation: the worker thread never clears megabytes between two packets. The hash seed is
//! random per table, so that nobody can send packets that all fall into one chain of slots; row ids
//! follow from packet order alone and do not depend on it.

use super::pack::{PackedRow, WORDS};
use super::{FrameRows, ROWS_MAX, Row};
use crate::bytes::{index, len32};
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;
use tapedeck_packet::Walk;
use tapedeck_packet::hash::fold;
use tapedeck_packet::walk::MAX_LAYERS;

/// Bits of a row id in a slot; one id more than [`ROWS_MAX`] exists (the coarse row).
const ROW_BITS: u32 = 22;
/// Bits of the hash tag in a slot.
const TAG_BITS: u32 = 26;
/// Row ids in the cache: 16 KiB.
const CACHED: usize = 4096;

const _: () = assert!(ROWS_MAX < (1 << ROW_BITS) - 1 && ROW_BITS + TAG_BITS + 16 == 64);

/// A row and the last frame that noted it.
#[derive(Clone, Copy, Debug)]
struct Entry {
    row: PackedRow,
    /// Frame counter when the row was last noted.
    frame: u32,
    /// Where in `present` it then stands.
    place: u32,
}

/// Rows of the segment being written; allocated once (virtual memory; pages are touched as rows come),
/// reused for the next segment.
#[derive(Debug)]
pub struct RowTable {
    /// A power of two, at least twice the rows, which keeps chains short.
    slots: Vec<u64>,
    /// Right shift that leaves a slot number of a hash.
    shift: u32,
    entries: Vec<Entry>,
    present: Vec<(u32, u8)>,
    /// Rows that earlier frames have handed over.
    handed_over: usize,
    frame: u32,
    generation: u16,
    seeds: [u64; WORDS + 1],
    /// Row last seen at each depth. A stale id, here and in the cache, fails the comparison.
    last: [u32; MAX_LAYERS],
    cache: Vec<u32>,
    rows_max: u32,
}

impl Default for RowTable {
    fn default() -> Self {
        Self::new()
    }
}

/// Addresses of what a vector has reserved.
fn reserved<T>(vec: &Vec<T>) -> Range<usize> {
    let start = vec.as_ptr().addr();
    start..start + vec.capacity() * size_of::<T>()
}

impl RowTable {
    /// Addresses of its large arrays, which are read at random.
    #[must_use]
    pub fn memory(&self) -> Vec<Range<usize>> {
        vec![reserved(&self.slots), reserved(&self.entries), reserved(&self.cache)]
    }

    /// An empty table. Reserves about 100 MB of address space, and touches nearly none of it.
    #[must_use]
    pub fn new() -> Self {
        Self::with_rows_max(ROWS_MAX)
    }

    /// A table with a lower cap, for tests.
    pub(crate) fn with_rows_max(rows_max: u32) -> Self {
        let state = RandomState::new();
        let slot_bits = rows_max.max(1).next_power_of_two().trailing_zeros() + 1;
        Self {
            slots: vec![0; 1 << slot_bits],
            shift: 64 - slot_bits,
            entries: Vec::with_capacity(index(rows_max) + 1),
            present: Vec::new(),
            handed_over: 0,
            frame: 0,
            generation: 1,
            seeds: std::array::from_fn(|i| state.hash_one(i)),
            last: [0; MAX_LAYERS],
            cache: vec![0; CACHED],
            rows_max,
        }
    }

    /// Notes the layers of a packet for the current frame.
    #[inline]
    pub fn add(&mut self, walk: &Walk) {
        for (depth, layer) in walk.layers().iter().enumerate() {
            let (row, bits) = PackedRow::of_layer(layer, depth > 0);
            let last = self.last.get(depth).copied().unwrap_or_default();
            let id = if self.is_row(last, &row) { last } else { self.id_of(&row) };
            if let Some(slot) = self.last.get_mut(depth) {
                *slot = id;
            }
            self.note(id, bits);
        }
    }

    /// Notes one row; what [`RowTable::add`] does for each layer.
    #[cfg(test)]
    pub(crate) fn add_row(&mut self, row: &Row, bits: u8) {
        let id = self.id_of(&PackedRow::of(row));
        self.note(id, bits);
    }

    /// Ends the current frame: moves its rows into `out` (cleared first).
    pub fn cut_frame(&mut self, out: &mut FrameRows) {
        out.clear();
        std::mem::swap(&mut out.present, &mut self.present);
        let new = self.entries.get(self.handed_over..).unwrap_or_default();
        out.new_rows.extend(new.iter().map(|entry| entry.row));
        self.handed_over = self.entries.len();
        self.frame = self.frame.wrapping_add(1);
    }

    /// Distinct rows of the segment so far.
    #[must_use]
    pub fn rows(&self) -> u32 {
        len32(self.entries.len())
    }

    /// Forgets all rows, for the next segment. Keeps its memory.
    pub fn clear(&mut self) {
        self.entries.clear();
        self.present.clear();
        self.handed_over = 0;
        self.generation = self.generation.wrapping_add(1);
        if self.generation == 0 {
            // Once in 65,535 segments the old generations come round again.
            self.slots.fill(0);
            self.generation = 1;
        }
    }

    #[inline]
    fn note(&mut self, id: u32, bits: u8) {
        let Some(entry) = self.entries.get_mut(index(id)) else { return };
        if entry.frame == self.frame
            && let Some((_, seen)) = self.present.get_mut(index(entry.place))
        {
            *seen |= bits;
            return;
        }
        entry.frame = self.frame;
        entry.place = len32(self.present.len());
        self.present.push((id, bits));
    }

    #[inline]
    fn is_row(&self, id: u32, row: &PackedRow) -> bool {
        self.entries.get(index(id)).is_some_and(|entry| entry.row.same(row))
    }

    /// The id of a row, by way of the cache.
    #[inline]
    fn id_of(&mut self, row: &PackedRow) -> u32 {
        let hash = self.hash(row);
        // The lowest bits; the table takes its slot from the highest.
        let place = usize::try_from(hash).unwrap_or(0) % CACHED;
        let cached = self.cache.get(place).copied().unwrap_or_default();
        if self.is_row(cached, row) {
            return cached;
        }
        let id = self.find_or_insert(row, hash);
        if let Some(slot) = self.cache.get_mut(place) {
            *slot = id;
        }
        id
    }

    fn find_or_insert(&mut self, row: &PackedRow, hash: u64) -> u32 {
        let tag = (u64::from(self.generation) << TAG_BITS) | (hash & ((1 << TAG_BITS) - 1));
        let mut slot = usize::try_from(hash >> self.shift).unwrap_or(0);
        // At most half of the slots are taken, so an empty one ends every chain.
        while let Some(word) = self.slots.get_mut(slot) {
            let found = *word >> ROW_BITS;
            if found >> TAG_BITS != u64::from(self.generation) {
                let id = len32(self.entries.len());
                if id >= self.rows_max {
                    return self.coarse();
                }
                *word = (tag << ROW_BITS) | u64::from(id);
                self.push(*row);
                return id;
            }
            if found == tag {
                let id = u32::try_from(*word & ((1 << ROW_BITS) - 1)).unwrap_or(u32::MAX);
                if self.is_row(id, row) {
                    return id;
                }
            }
            slot = (slot + 1) & (self.slots.len() - 1);
        }
        self.coarse()
    }

    /// The coarse row's id; it is the one behind the cap.
    fn coarse(&mut self) -> u32 {
        if len32(self.entries.len()) == self.rows_max {
            self.push(PackedRow::of(&Row::COARSE));
        }
        self.rows_max
    }

    fn push(&mut self, row: PackedRow) {
        // Not noted in any frame yet.
        self.entries.push(Entry { row, frame: self.frame.wrapping_sub(1), place: 0 });
    }

    /// Folded multiplication over the words, as foldhash and wyhash do.
    #[inline]
    fn hash(&self, row: &PackedRow) -> u64 {
        let [w0, w1, w2, w3, w4, w5, w6, w7, w8] = row.0;
        let [s0, s1, s2, s3, s4, s5, s6, s7, s8, s9] = self.seeds;
        let mixed = fold(w0 ^ s0, w1 ^ s1)
            ^ fold(w2 ^ s2, w3 ^ s3).rotate_left(13)
            ^ fold(w4 ^ s4, w5 ^ s5).rotate_left(29)
            ^ fold(w6 ^ s6, w7 ^ s7).rotate_left(43);
        fold(mixed ^ s9, w8 ^ s8 ^ mixed.rotate_left(32))
    }
}
