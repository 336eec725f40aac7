//! From frames and their rows to the bytes of a sidecar.
//!
//! [`SidecarBuilder::frame`] only appends; all sorting happens once, in [`SidecarBuilder::finish`].

use super::FrameMeta;
use super::entry::{RowEntry, encode_frame, encode_stack};
use super::layout::{HEADER_LEN, Header, PACKETS_MAX, STACK_LEN, Section};
use super::lists::{KeyKind, encode, put_gaps};
use crate::bytes::{index, len32};
use crate::name::SegmentName;
use crate::rows::{FrameRows, Packed, Row, Subject};
use std::net::IpAddr;
use tapedeck_packet::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

/// Frames or rows that a sidecar cannot hold. The segment itself is not concerned: readers scan it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BuildError {
    /// A frame does not begin where the one before it ends.
    #[error("frame {frame} begins at byte {got}, expected {expected}")]
    Hole {
        /// Number of the frame.
        frame: u32,
        /// End of the frame before.
        expected: u64,
        /// Its offset.
        got: u64,
    },
    /// More packets in a frame than its entry can count.
    #[error("frame {frame} holds {packets} packets, {PACKETS_MAX} are possible")]
    Packets {
        /// Number of the frame.
        frame: u32,
        /// Its packets.
        packets: u32,
    },
    /// A frame names a row that no frame up to it has introduced.
    #[error("frame {frame} names row {row}, {rows} are known")]
    UnknownRow {
        /// Number of the frame.
        frame: u32,
        /// The row it names.
        row: u32,
        /// Rows known.
        rows: u32,
    },
    /// A section beyond 4 GiB.
    #[error("section {0:?} is too long")]
    TooLong(Section),
}

/// Builds a sidecar frame by frame.
#[derive(Clone, Debug, Default)]
pub struct SidecarBuilder {
    frames: Vec<FrameMeta>,
    /// Row ids of all frames, one frame after the other; `ends` says where each frame's end.
    present: Vec<u32>,
    ends: Vec<usize>,
    rows: Vec<Packed>,
    directions: Vec<u8>,
    packets: u64,
    error: Option<BuildError>,
}

impl SidecarBuilder {
    /// A builder without frames.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds the next frame. What does not fit is reported by [`SidecarBuilder::finish`].
    pub fn frame(&mut self, meta: FrameMeta, rows: &FrameRows) {
        let frame = len32(self.frames.len());
        let expected = self.stored_len();
        if meta.offset != expected {
            self.fail(BuildError::Hole { frame, expected, got: meta.offset });
        }
        if meta.packets > PACKETS_MAX {
            self.fail(BuildError::Packets { frame, packets: meta.packets });
        }
        let normal = if meta.packets == 0 {
            FrameMeta { t_min: Timestamp::ZERO, t_max: Timestamp::ZERO, sorted: true, ..meta }
        } else {
            FrameMeta { t_max: meta.t_max.max(meta.t_min), ..meta }
        };
        self.frames.push(FrameMeta { first_arrival: self.packets, ..normal });
        self.packets += u64::from(meta.packets);
        self.rows.extend(rows.new_rows.iter().map(Packed::of));
        self.directions.resize(self.rows.len(), 0);
        for (row, bits) in &rows.present {
            match self.directions.get_mut(index(*row)) {
                Some(seen) => *seen |= bits,
                None => self.fail(BuildError::UnknownRow { frame, row: *row, rows: len32(self.rows.len()) }),
            }
        }
        self.present.extend(rows.present.iter().map(|(row, _)| *row));
        self.ends.push(self.present.len());
    }

    /// The frames so far, with `first_arrival` as the sidecar will have it.
    #[must_use]
    pub fn frames(&self) -> &[FrameMeta] {
        &self.frames
    }

    /// Stored bytes of the frames so far: where the next one begins.
    #[must_use]
    pub fn stored_len(&self) -> u64 {
        self.frames.last().map_or(0, |meta| meta.offset + u64::from(meta.stored_len))
    }

    /// Forgets all frames, keeps the memory.
    pub fn clear(&mut self) {
        let Self { frames, present, ends, rows, directions, packets, error } = self;
        frames.clear();
        present.clear();
        ends.clear();
        rows.clear();
        directions.clear();
        *packets = 0;
        *error = None;
    }

    /// The bytes of the sidecar. The same frames and rows in the same order give the same bytes.
    ///
    /// # Errors
    /// The first [`BuildError`] of any frame.
    pub fn finish(&self, name: &SegmentName) -> Result<Vec<u8>, BuildError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let sorted = SortedRows::new(self);
        let dictionary = Dictionary::new(&sorted);
        let (rows, postings) = self.rows_and_postings(&sorted, &dictionary)?;
        let (fences, lists) = encode(&pairs(&sorted, &dictionary));
        let mut frames = Vec::with_capacity(self.frames.len() * 32);
        self.frames.iter().for_each(|meta| encode_frame(meta, &mut frames));
        let Dictionary { v4, v6, macs, stacks } = dictionary;
        let sections = [
            frames,
            rows,
            fences,
            v4.iter().flat_map(|addr| addr.to_le_bytes()).collect(),
            stacks.concat(),
            v6.iter().flat_map(|addr| addr.to_be_bytes()).collect(),
            macs.concat(),
            postings,
            lists,
        ];
        self.assemble(name, &sections)
    }

    fn assemble(&self, name: &SegmentName, sections: &[Vec<u8>; 9]) -> Result<Vec<u8>, BuildError> {
        let holding = || self.frames.iter().filter(|meta| meta.packets > 0);
        let mut header = Header {
            run: name.run,
            seq: name.seq,
            queue: name.queue,
            frames: len32(self.frames.len()),
            rows: len32(self.rows.len()),
            segment_len: self.stored_len(),
            packets: self.packets,
            t_min: holding().map(|meta| meta.t_min.nanos()).min().unwrap_or(0),
            t_max: holding().map(|meta| meta.t_max.nanos()).max().unwrap_or(0),
            ..Header::default()
        };
        let mut end = HEADER_LEN;
        for ((slot, bytes), section) in header.sections.iter_mut().zip(sections).zip(Section::ALL) {
            if u32::try_from(bytes.len()).is_err() {
                return Err(BuildError::TooLong(section));
            }
            *slot = (end..end + bytes.len(), xxh3_64(bytes));
            end += bytes.len();
        }
        let mut out = header.encode();
        out.reserve(end - out.len());
        sections.iter().for_each(|bytes| out.extend_from_slice(bytes));
        Ok(out)
    }

    fn rows_and_postings(
        &self,
        sorted: &SortedRows,
        dictionary: &Dictionary,
    ) -> Result<(Vec<u8>, Vec<u8>), BuildError> {
        let frames_of = FramesOfRows::new(self);
        let (mut rows, mut postings) = (Vec::with_capacity(sorted.rows.len() * 32), Vec::new());
        for (hash, id, row) in &sorted.rows {
            let directions = self.directions.get(index(*id)).copied().unwrap_or(0);
            let (a, b) = dictionary.addresses(row);
            let mut entry = RowEntry::of(row, *hash, directions);
            entry.a = a.unwrap_or(entry.a);
            entry.b = b.unwrap_or(entry.b);
            entry.stack = place(&dictionary.stacks, &encode_stack(row)).unwrap_or(0);
            entry.postings =
                u32::try_from(postings.len()).map_err(|_| BuildError::TooLong(Section::Postings))?;
            entry.encode(&mut rows);
            put_gaps(&mut postings, frames_of.of(*id));
        }
        Ok((rows, postings))
    }

    fn fail(&mut self, error: BuildError) {
        self.error.get_or_insert(error);
    }
}

/// Rows in sidecar order: by hash, then by packed words. (hash, id in packet order, row)
struct SortedRows {
    rows: Vec<(u64, u32, Row)>,
}

impl SortedRows {
    fn new(builder: &SidecarBuilder) -> Self {
        // Every packed row was made from a row, so none is left out.
        let rows = builder.rows.iter().zip(0u32..).filter_map(|(packed, id)| Some((packed.row()?, id)));
        let mut keyed = rows.map(|(row, id)| (row.hash64(), id, row)).collect::<Vec<_>>();
        let words = |id: u32| builder.rows.get(index(id)).map(|packed| packed.0);
        keyed.sort_unstable_by_key(|(hash, id, _)| (*hash, words(*id), *id));
        Self { rows: keyed }
    }
}

/// Sorted distinct addresses and stacks.
struct Dictionary {
    v4: Vec<u32>,
    v6: Vec<u128>,
    macs: Vec<[u8; 6]>,
    stacks: Vec<[u8; STACK_LEN]>,
}

impl Dictionary {
    fn new(sorted: &SortedRows) -> Self {
        let mut new = Self { v4: Vec::new(), v6: Vec::new(), macs: Vec::new(), stacks: Vec::new() };
        for (_, _, row) in &sorted.rows {
            for addr in row.addresses().into_iter().flat_map(|(a, b)| [a, b]) {
                match addr {
                    IpAddr::V4(v4) => new.v4.push(v4.to_bits()),
                    IpAddr::V6(v6) => new.v6.push(v6.to_bits()),
                }
            }
            if let Subject::Link { macs: Some((a, b)) } = row.subject {
                new.macs.extend([a, b]);
            }
            new.stacks.push(encode_stack(row));
        }
        distinct(&mut new.v4);
        distinct(&mut new.v6);
        distinct(&mut new.macs);
        distinct(&mut new.stacks);
        new
    }

    /// Numbers of a row's addresses over all three kinds.
    fn addresses(&self, row: &Row) -> (Option<u32>, Option<u32>) {
        let (v4, v6) = (len32(self.v4.len()), len32(self.v6.len()));
        let ip = |addr: IpAddr| match addr {
            IpAddr::V4(addr) => place(&self.v4, &addr.to_bits()),
            IpAddr::V6(addr) => Some(v4 + place(&self.v6, &addr.to_bits())?),
        };
        let mac = |mac: [u8; 6]| Some(v4 + v6 + place(&self.macs, &mac)?);
        match (row.addresses(), row.subject) {
            (Some((a, b)), _) => (ip(a), ip(b)),
            (_, Subject::Link { macs: Some((a, b)) }) => (mac(a), mac(b)),
            _ => (None, None),
        }
    }
}

/// All (key, row) pairs of the lists, ascending.
fn pairs(sorted: &SortedRows, dictionary: &Dictionary) -> Vec<(u64, u32)> {
    let mut pairs = Vec::with_capacity(sorted.rows.len() * 4);
    for ((_, _, row), number) in sorted.rows.iter().zip(0u32..) {
        let mut add = |kind: KeyKind, value: u32| pairs.push((kind.key(value), number));
        let (a, b) = dictionary.addresses(row);
        a.into_iter().chain(b).for_each(|address| add(KeyKind::Address, address));
        let ports = row.ports().into_iter().flat_map(|(a, b)| [a, b]);
        ports.for_each(|port| add(KeyKind::Port, port.into()));
        row.tags.vlans().iter().for_each(|vlan| add(KeyKind::Vlan, (*vlan).into()));
        row.tags.labels().iter().for_each(|label| add(KeyKind::Label, *label));
        row.tunnel_id.into_iter().for_each(|id| add(KeyKind::TunnelId, id));
        row.pppoe.into_iter().for_each(|session| add(KeyKind::Pppoe, session.into()));
        if matches!(row.subject, Subject::Coarse | Subject::Opaque) {
            add(KeyKind::Always, 0);
        }
    }
    distinct(&mut pairs);
    pairs
}

/// The frames of each row, by counting sort: rows in packet order, frames ascending.
struct FramesOfRows {
    starts: Vec<usize>,
    frames: Vec<u32>,
}

impl FramesOfRows {
    fn new(builder: &SidecarBuilder) -> Self {
        let mut starts = vec![0usize; builder.rows.len() + 1];
        for row in &builder.present {
            if let Some(count) = starts.get_mut(index(*row) + 1) {
                *count += 1;
            }
        }
        let mut sum = 0;
        for start in &mut starts {
            sum += *start;
            *start = sum;
        }
        let mut next = starts.clone();
        let mut frames = vec![0u32; builder.present.len()];
        let mut start = 0;
        for (end, frame) in builder.ends.iter().zip(0u32..) {
            for row in builder.present.get(start..*end).unwrap_or_default() {
                if let Some(place) = next.get_mut(index(*row))
                    && let Some(slot) = frames.get_mut(*place)
                {
                    *slot = frame;
                    *place += 1;
                }
            }
            start = *end;
        }
        Self { starts, frames }
    }

    fn of(&self, row: u32) -> impl Iterator<Item = u32> {
        let at = |number: usize| self.starts.get(number).copied().unwrap_or(0);
        let range = at(index(row))..at(index(row) + 1);
        let mut previous = None;
        // A frame that named a row twice counts once.
        let frames = self.frames.get(range).unwrap_or_default().iter().copied();
        frames.filter(move |frame| previous.replace(*frame) != Some(*frame))
    }
}

fn distinct<T: Ord>(items: &mut Vec<T>) {
    items.sort_unstable();
    items.dedup();
}

/// Place of an item in a sorted slice.
fn place<T: Ord>(items: &[T], item: &T) -> Option<u32> {
    items.binary_search(item).ok().map(len32)
}
