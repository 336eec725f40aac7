//! Building a pack: its shape from the numbers of keys, then its bits, segment by segment.
//!
//! A segment with more keys than a column is made for gets several; each key then stands in one of them.

use super::key::Key;
use super::layout::{
    ALWAYS, BLOCK_ROWS, COLUMN_BITS_PER_KEY, HIGH_PORTS, Header, MATRIX_BYTES_MAX, MEMBERS_MAX,
    encode_member, encode_text,
};
use super::name::PackName;
use super::read::Member;
use crate::bytes::{index, len32, len64};
use crate::name::SegmentName;
use crate::sidecar::{KeyNotes, Sidecar, SidecarError};
use std::collections::BTreeMap;
use tapedeck_packet::{Timestamp, UtcHour};
use xxhash_rust::xxh3::xxh3_64;

/// Capacities of a column that are tried for a shape.
const CAPACITIES: usize = 48;

/// How large a pack will be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackShape {
    /// Segments, from the first on.
    pub members: usize,
    /// Keys that a column is made for.
    pub capacity: u64,
    /// Columns.
    pub columns: u32,
    /// Blocks.
    pub blocks: u32,
}

impl PackShape {
    /// The shape for segments with these numbers of keys: as many of them, from the first on, as pay. A
    /// flood among small segments takes more columns instead of making all of them as long as its own.
    /// Of the capacities tried, the one with the least bytes over members squared. `None` where there is no
    /// segment, or the first one has more keys than a pack takes.
    #[must_use]
    pub fn of(keys: &[u64]) -> Option<Self> {
        let mut sorted: Vec<u64> = keys.iter().take(MEMBERS_MAX).map(|n| (*n).max(1)).collect();
        sorted.sort_unstable();
        let largest = *sorted.last()?;
        let step = sorted.len().div_ceil(CAPACITIES / 2).max(1);
        let quantiles = sorted.iter().copied().rev().step_by(step);
        let parts = (0..=10).map(|halvings| (largest >> halvings).max(1));
        let shapes = quantiles.chain(parts).map(|capacity| Self::with_capacity(keys, capacity));
        shapes.filter(|shape| shape.members > 0).min_by_key(Self::cost)
    }

    fn with_capacity(keys: &[u64], capacity: u64) -> Self {
        let blocks = (capacity * COLUMN_BITS_PER_KEY).div_ceil(BLOCK_ROWS.into()).max(1);
        let blocks = u32::try_from(blocks).unwrap_or(u32::MAX);
        let mut shape = Self { members: 0, capacity, columns: 0, blocks };
        for keys in keys.iter().take(MEMBERS_MAX) {
            let columns = u64::from(shape.columns) + columns_for(*keys, capacity);
            let Ok(columns) = u32::try_from(columns) else { break };
            let next = Self { members: shape.members + 1, columns, ..shape };
            if index(columns) > MEMBERS_MAX || next.bytes() > MATRIX_BYTES_MAX {
                break;
            }
            shape = next;
        }
        shape
    }

    /// Bytes of all blocks.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        u64::from(self.blocks) * u64::from(BLOCK_ROWS) * u64::from(self.columns.div_ceil(64)) * 8
    }

    /// Bytes over members squared, scaled.
    fn cost(&self) -> u128 {
        let members = u128::from(len64(self.members));
        (u128::from(self.bytes()) << 32).checked_div(members * members).unwrap_or(u128::MAX)
    }
}

fn columns_for(keys: u64, capacity: u64) -> u64 {
    keys.div_ceil(capacity.max(1)).max(1)
}

/// What a pack keeps of a segment besides its keys.
#[derive(Clone, Debug)]
pub struct MemberFacts {
    name: SegmentName,
    hour: UtcHour,
    times: (Timestamp, Timestamp),
    segment_len: u64,
    sidecar_len: u64,
    fingerprint: u64,
    frames: u32,
    /// Keys of the segment, for the shape.
    pub keys: u64,
}

impl MemberFacts {
    /// The facts of a sealed segment by its sidecar. `None` for one without packets, and where the sidecar is
    /// another segment's.
    ///
    /// # Errors
    /// [`SidecarError`]: the sidecar cannot be believed, so its segment cannot be packed.
    pub fn of(name: &SegmentName, hour: UtcHour, sidecar: &Sidecar) -> Result<Option<Self>, SidecarError> {
        let summary = sidecar.summary();
        let Some(times) = summary.times else { return Ok(None) };
        if (summary.run, summary.seq) != (name.run, name.seq) {
            return Ok(None);
        }
        let frames = sidecar.frames()?;
        // What a pack excludes is never looked at again: all of the sidecar must hold.
        sidecar.check()?;
        let mut keys = 0;
        sidecar.keys(&mut |_| keys += 1)?;
        Ok(Some(Self {
            name: name.clone(),
            hour,
            times,
            segment_len: summary.segment_len,
            sidecar_len: sidecar.byte_len(),
            fingerprint: sidecar.fingerprint(),
            frames: len32(frames.iter().filter(|meta| meta.packets > 0).count()),
            keys,
        }))
    }

    /// The segment's name.
    #[must_use]
    pub fn name(&self) -> &SegmentName {
        &self.name
    }

    /// Whether these are the facts of this sidecar.
    #[must_use]
    pub fn are_of(&self, sidecar: &Sidecar) -> bool {
        (self.sidecar_len, self.fingerprint) == (sidecar.byte_len(), sidecar.fingerprint())
    }
}

/// Builds a pack segment by segment.
#[derive(Debug)]
pub struct PackBuilder {
    header: Header,
    members: Vec<Member>,
    matrix: Vec<u8>,
    capacity: u64,
}

/// A pack's bytes, to be written one after the other, and its name.
#[derive(Debug)]
pub struct PackBytes {
    /// Name of the file.
    pub name: PackName,
    /// What stands before the blocks, padded.
    pub front: Vec<u8>,
    /// The blocks.
    pub blocks: Vec<u8>,
}

impl PackBuilder {
    /// A builder for a pack of this shape; `full` = it will not be built again into a larger one.
    #[must_use]
    pub fn new(shape: &PackShape, full: bool) -> Self {
        let members = len32(shape.members);
        let (columns, blocks) = (shape.columns.max(members), shape.blocks.max(1));
        let header = Header { members, columns, blocks, texts_len: 0, full, keys: 0 };
        let matrix = vec![0; header.block_bytes() * index(blocks)];
        Self { header, members: Vec::with_capacity(shape.members), matrix, capacity: shape.capacity }
    }

    /// Adds a segment. False where it does not fit into the shape, or the sidecar is not the one that the
    /// facts were taken from.
    ///
    /// # Errors
    /// [`SidecarError`]: the pack is worthless then.
    pub fn add(&mut self, facts: MemberFacts, sidecar: &Sidecar) -> Result<bool, SidecarError> {
        let first = self.members.last().map_or(0, |last| last.first_column + last.columns);
        let columns = u16::try_from(columns_for(facts.keys, self.capacity)).unwrap_or(u16::MAX);
        let fits = u32::from(first) + u32::from(columns) <= self.header.columns
            && len32(self.members.len()) < self.header.members;
        if !fits || !facts.are_of(sidecar) {
            return Ok(false);
        }
        let KeyNotes { always, high_ports } = sidecar.keys(&mut |key| self.set(key, first, columns))?;
        self.header.keys += facts.keys;
        let MemberFacts { name, hour, times, segment_len, sidecar_len, fingerprint, frames, .. } = facts;
        self.members.push(Member {
            name,
            hour,
            t_min: times.0,
            t_max: times.1,
            segment_len,
            sidecar_len,
            fingerprint,
            frames,
            first_column: first,
            columns,
            flags: if always { ALWAYS } else { 0 } | if high_ports { HIGH_PORTS } else { 0 },
        });
        Ok(true)
    }

    fn set(&mut self, key: Key, first: u16, columns: u16) {
        let probe = key.probe();
        let column = usize::from(first) + probe.column(columns);
        let (row_bytes, block_bytes) = (self.header.row_bytes(), self.header.block_bytes());
        let block = index(probe.block(self.header.blocks)) * block_bytes;
        for row in probe.rows {
            let at = block + usize::from(row) * row_bytes + column / 8;
            if let Some(byte) = self.matrix.get_mut(at) {
                *byte |= 1 << (column % 8);
            }
        }
    }

    /// The pack; `None` if not as many segments were added as its shape has, or none.
    #[must_use]
    pub fn finish(mut self) -> Option<PackBytes> {
        if self.members.is_empty() || len32(self.members.len()) != self.header.members {
            return None;
        }
        let mut numbers: BTreeMap<String, u16> = BTreeMap::new();
        for member in &self.members {
            for text in [&member.name.sensor, &member.name.interface] {
                let next = u16::try_from(numbers.len()).ok()?;
                numbers.entry(text.clone()).or_insert(next);
            }
        }
        let number = |text: &String| numbers.get(text).copied();
        let mut rest = Vec::new();
        for member in &self.members {
            let texts = [number(&member.name.sensor)?, number(&member.name.interface)?];
            encode_member(member, texts, &mut rest);
        }
        let members_len = rest.len();
        let mut texts: Vec<(&u16, &String)> = numbers.iter().map(|(text, number)| (number, text)).collect();
        texts.sort_unstable();
        texts.iter().for_each(|(_, text)| encode_text(text, &mut rest));
        self.header.texts_len = len32(rest.len() - members_len);
        for block in self.matrix.chunks_exact(self.header.block_bytes()) {
            rest.extend_from_slice(&xxh3_64(block).to_le_bytes());
        }
        let mut front = self.header.encode(&rest);
        front.append(&mut rest);
        let name = PackName {
            from: self.members.iter().map(|member| member.t_min).min()?,
            last: self.members.iter().map(|member| member.t_max).max()?,
            content: xxh3_64(&front),
        };
        front.resize(usize::try_from(self.header.blocks_at()).ok()?, 0);
        Some(PackBytes { name, front, blocks: self.matrix })
    }
}
