//! The row table of an open segment: which row a layer is, without allocation per packet.
//!
//! A row that its predecessor at this depth does not equal (bursts do) waits until some have gathered: with many rows
//! each look-up is a cache miss or two, and those of several rows can be under way at a time. Then two steps, each
//! verified on the whole row: a small direct-mapped cache of row ids (what is hot stays in the first-level cache), and
//! open addressing over 2^21 slots (for [`ROWS_MAX`] rows), at most half of them taken. A slot holds generation, hash tag
//! and row id; emptying the table is one more generation: the worker thread never clears megabytes between two packets.
//! The hash seed is random per table, so that nobody can send packets that all fall into one chain of slots; row ids
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
/// Rows in the cache: 16 KiB.
const CACHED: usize = 2048;
/// Rows that are looked up together.
const WAITING: usize = 16;

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

/// A row of the current frame that is not looked up yet.
#[derive(Clone, Copy, Debug)]
struct Waiting {
    row: PackedRow,
    hash: u64,
    bits: u8,
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
    waiting: Vec<Waiting>,
    /// Where in `waiting` the last row of each depth stands; behind its end if it is not there any more.
    newest: [usize; MAX_LAYERS],
    /// 32 bits of a hash, and a row id. A stale id fails the comparison of rows.
    cache: Vec<(u32, u32)>,
    rows_max: u32,
}

impl Default for RowTable {
    fn default() -> Self {
        Self::new()
    }
}

/// What a slot of this hash has above its row id.
#[inline]
fn slot_tag(generation: u64, hash: u64) -> u64 {
    (generation << TAG_BITS) | (hash & ((1 << TAG_BITS) - 1))
}

/// The row id of a slot.
#[inline]
fn row_id(slot: u64) -> u32 {
    u32::try_from(slot & ((1 << ROW_BITS) - 1)).unwrap_or(u32::MAX)
}

/// The place of a hash in the cache, by its lowest bits (the table takes its slot from the highest), and what stands
/// there with the row id.
#[inline]
fn cached(hash: u64) -> (usize, u32) {
    let place = usize::try_from(hash & 0xffff).unwrap_or(0) % CACHED;
    (place, u32::try_from((hash >> 16) & 0xffff_ffff).unwrap_or(0))
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
            waiting: Vec::with_capacity(WAITING),
            newest: [WAITING; MAX_LAYERS],
            cache: vec![(0, 0); CACHED],
            rows_max,
        }
    }

    /// Notes the layers of a packet for the current frame.
    #[inline]
    pub fn add(&mut self, walk: &Walk) {
        for (depth, layer) in walk.layers().iter().enumerate() {
            let (row, bits) = PackedRow::of_layer(layer, depth > 0);
            let newest = self.newest.get(depth).and_then(|at| self.waiting.get_mut(*at));
            if let Some(newest) = newest.filter(|newest| newest.row.same(&row)) {
                newest.bits |= bits;
                continue;
            }
            self.wait(row, bits);
            if let Some(newest) = self.newest.get_mut(depth) {
                *newest = self.waiting.len() - 1;
            }
        }
    }

    /// Notes one row, which need not be a layer's.
    #[cfg(test)]
    pub(crate) fn add_row(&mut self, row: &Row, bits: u8) {
        self.wait(PackedRow::of(row), bits);
    }

    /// Ends the current frame: moves its rows into `out` (cleared first).
    pub fn cut_frame(&mut self, out: &mut FrameRows) {
        self.resolve();
        out.clear();
        std::mem::swap(&mut out.present, &mut self.present);
        let new = self.entries.get(self.handed_over..).unwrap_or_default();
        out.new_rows.extend(new.iter().map(|entry| entry.row));
        self.handed_over = self.entries.len();
        self.frame = self.frame.wrapping_add(1);
    }

    /// Distinct rows of the segment so far.
    #[cfg(test)]
    pub(crate) fn rows(&mut self) -> u32 {
        self.resolve();
        len32(self.entries.len())
    }

    /// Forgets all rows, for the next segment. Keeps its memory.
    pub fn clear(&mut self) {
        self.waiting.clear();
        self.newest = [WAITING; MAX_LAYERS];
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

    #[inline]
    fn wait(&mut self, row: PackedRow, bits: u8) {
        if self.waiting.len() == WAITING {
            self.resolve();
        }
        let hash = self.hash(&row);
        self.waiting.push(Waiting { row, hash, bits });
    }

    /// Looks up what waits, in the order in which it came. The first two passes only read, and no row's reads hang on
    /// those of another; what they do not find, the third one does.
    fn resolve(&mut self) {
        let mut ids = [u32::MAX; WAITING];
        let generation = u64::from(self.generation);
        for (id, waiting) in ids.iter_mut().zip(&self.waiting) {
            let (place, tag) = cached(waiting.hash);
            *id = match self.cache.get(place) {
                Some((seen, id)) if *seen == tag => *id,
                _ => {
                    let slot = usize::try_from(waiting.hash >> self.shift).unwrap_or(0);
                    let word = self.slots.get(slot).copied().unwrap_or_default();
                    let same = word >> ROW_BITS == slot_tag(generation, waiting.hash);
                    if same { row_id(word) } else { u32::MAX }
                }
            };
        }
        for (id, waiting) in ids.iter_mut().zip(&self.waiting) {
            *id = if self.is_row(*id, &waiting.row) { *id } else { u32::MAX };
        }
        for (id, at) in ids.into_iter().zip(0..self.waiting.len()) {
            let Some(Waiting { row, hash, bits }) = self.waiting.get(at).copied() else { break };
            let id = if id == u32::MAX { self.find_or_insert(&row, hash) } else { id };
            let (place, tag) = cached(hash);
            if let Some(slot) = self.cache.get_mut(place) {
                *slot = (tag, id);
            }
            self.note(id, bits);
        }
        self.waiting.clear();
        self.newest = [WAITING; MAX_LAYERS];
    }

    fn find_or_insert(&mut self, row: &PackedRow, hash: u64) -> u32 {
        let tag = slot_tag(self.generation.into(), hash);
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
                let id = row_id(*word);
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
