//! From frames and their rows to the bytes of a sidecar.
//!
//! [`SidecarBuilder::frame`] only appends; all sorting happens once, in [`SidecarBuilder::finish`].

use super::FrameMeta;
use super::entry::{RowEntry, encode_frame};
use super::head::HEAD_BYTES_MAX;
use super::layout::{FRAME_LEN, HEADER_LEN, Header, PACKETS_MAX, ROW_LEN, Section};
use super::lists::{encode, put_gaps};
use super::row_index::{RowIndex, RowKeys};
use crate::bytes::{index, len32};
use crate::name::SegmentName;
use crate::rows::{FrameRows, PackedRow, Row};
use std::ops::Range;
use tapedeck_packet::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

/// Rows that are fetched together: in sidecar order each is a cache miss, and so many can be under way at a time.
const GATHERED: usize = 32;

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
    rows: Vec<PackedRow>,
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
        self.rows.extend_from_slice(&rows.new_rows);
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

    /// What keeps these frames from being a sidecar, if anything.
    #[must_use]
    pub fn error(&self) -> Option<BuildError> {
        self.error
    }

    /// Rows of all frames so far.
    #[must_use]
    pub fn row_count(&self) -> u32 {
        len32(self.rows.len())
    }

    /// Ids of the rows that frame number `frame` names; none where there is no such frame.
    #[must_use]
    pub fn rows_of(&self, frame: usize) -> &[u32] {
        let end_of = |frame: usize| self.ends.get(frame).copied();
        let start = frame.checked_sub(1).and_then(end_of).unwrap_or(0);
        end_of(frame).and_then(|end| self.present.get(start..end)).unwrap_or_default()
    }

    /// A row by its id, and the directions in which its packets went in any frame so far; `None` for an unknown id.
    #[must_use]
    pub fn row_seen(&self, id: u32) -> Option<(Row, u8)> {
        Some((self.row(id)?, *self.directions.get(index(id))?))
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

    /// The bytes of the sidecar. The same head, frames and rows in the same order give the same bytes.
    /// `head` is [`Head::bytes_of`](super::Head::bytes_of) frame 0; one over [`HEAD_BYTES_MAX`] is left out.
    ///
    /// # Errors
    /// The first [`BuildError`] of any frame.
    pub fn finish(&self, name: &SegmentName, head: &[u8]) -> Result<Vec<u8>, BuildError> {
        if let Some(error) = self.error {
            return Err(error);
        }
        let (entries, postings, keys) = self.entries()?;
        let index = keys.index();
        let rows = numbered(entries, &index);
        let (fences, lists) = encode(&index.pairs);
        let mut frames = Vec::with_capacity(self.frames.len() * FRAME_LEN);
        self.frames.iter().for_each(|meta| encode_frame(meta, &mut frames));
        let stacks = index.stacks.concat();
        let RowIndex { v4, v6, macs, .. } = index;
        let head = if head.len() <= HEAD_BYTES_MAX { head.to_vec() } else { Vec::new() };
        self.assemble(name, &[frames, rows, fences, v4, stacks, v6, macs, postings, lists, head])
    }

    /// Row ids in sidecar order: by hash, then by packed words. (hash, id in packet order)
    fn order(&self) -> Vec<(u64, u32)> {
        let ids = (0..len32(self.rows.len())).filter_map(|id| Some((self.row(id)?.hash64(), id)));
        let mut order = ids.collect::<Vec<_>>();
        let words = |id: u32| self.rows.get(index(id));
        order.sort_unstable_by(|x, y| {
            x.0.cmp(&y.0).then_with(|| words(x.1).cmp(&words(y.1))).then(x.1.cmp(&y.1))
        });
        order
    }

    /// A row by its id in packet order. Every packed row was made from a row, so none is missing.
    fn row(&self, id: u32) -> Option<Row> {
        self.rows.get(index(id))?.known_row()
    }

    fn assemble(
        &self,
        name: &SegmentName,
        sections: &[Vec<u8>; Section::ALL.len()],
    ) -> Result<Vec<u8>, BuildError> {
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

    /// The rows' entries in sidecar order, their postings, and what they can be found by. Addresses are not in the
    /// entries yet, and stacks by the number that [`RowKeys::add`] gave them: rows are unpacked only once here.
    fn entries(&self) -> Result<(Vec<RowEntry>, Vec<u8>, RowKeys), BuildError> {
        let (order, frames_of) = (self.order(), FramesOfRows::new(self));
        let (mut entries, mut postings) = (Vec::with_capacity(order.len()), Vec::new());
        let (mut keys, mut gathered) = (RowKeys::default(), Vec::with_capacity(GATHERED));
        for some in order.chunks(GATHERED) {
            gathered.clear();
            gathered.extend(some.iter().filter_map(|(hash, id)| {
                let (row, directions) = (self.rows.get(index(*id))?, self.directions.get(index(*id))?);
                Some((*hash, *row, *directions, frames_of.range(*id), 0))
            }));
            for (.., range, first) in &mut gathered {
                *first = frames_of.frames.get(range.start).copied().unwrap_or(0);
            }
            for (hash, row, directions, range, first) in &gathered {
                let Some(row) = row.known_row() else { continue };
                let stack = keys.add(&row);
                let place =
                    u32::try_from(postings.len()).map_err(|_| BuildError::TooLong(Section::Postings))?;
                entries.push(RowEntry::of(&row, *hash, *directions, stack, place));
                put_gaps(&mut postings, frames_of.within(range, *first));
            }
        }
        Ok((entries, postings, keys))
    }

    fn fail(&mut self, error: BuildError) {
        self.error.get_or_insert(error);
    }
}

/// The section Rows: `entries` with the places of their addresses and stacks.
fn numbered(entries: Vec<RowEntry>, index_of: &RowIndex) -> Vec<u8> {
    let mut rows = Vec::with_capacity(entries.len() * ROW_LEN);
    for (entry, [a, b]) in entries.into_iter().zip(&index_of.addresses) {
        let stack = index_of.places.get(index(entry.stack)).copied().unwrap_or(0);
        RowEntry { a: *a, b: *b, stack, ..entry }.encode(&mut rows);
    }
    rows
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

    /// Where the frames of a row are.
    fn range(&self, row: u32) -> Range<usize> {
        let at = |number: usize| self.starts.get(number).copied().unwrap_or(0);
        at(index(row))..at(index(row) + 1)
    }

    /// The frames of a row, the first of which is known.
    fn within(&self, range: &Range<usize>, first: u32) -> impl Iterator<Item = u32> {
        let rest = self.frames.get(range.start.saturating_add(1)..range.end).unwrap_or_default();
        let mut previous = None;
        // A frame that named a row twice counts once.
        let frames = (!range.is_empty()).then_some(first).into_iter().chain(rest.iter().copied());
        frames.filter(move |frame| previous.replace(*frame) != Some(*frame))
    }
}
