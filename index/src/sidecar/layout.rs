//! Where things stand in a sidecar: header and directory (docs/format.md).

use crate::bytes::{array_at, index, len32, len64, u32_at, u64_at};
use crate::frame::FRAME_BYTES_MAX;
use std::ops::Range;
use xxhash_rust::xxh3::xxh3_64;

/// First eight bytes of a sidecar.
pub const MAGIC: [u8; 8] = *b"tapedidx";
/// Version of the format; a reader refuses every other one.
pub const FORMAT_VERSION: u32 = 2;
/// Algorithms, one byte each: row hash (1 = Community ID v1 / XXH3-64), checksum (1 = XXH3-64), lists
/// (1 = LEB128 gaps), reserved (0).
pub(super) const ALGORITHMS: [u8; 4] = [1, 1, 1, 0];

/// Bytes before the directory.
const FIXED_LEN: usize = 80;
/// Bytes of a directory entry: offset, length, checksum.
const DIRECTORY_ENTRY: usize = 24;
/// Bytes of the header: fixed part, directory, checksum.
pub(super) const HEADER_LEN: usize = FIXED_LEN + Section::ALL.len() * DIRECTORY_ENTRY + 8;
/// Bytes of a frame's entry.
pub(super) const FRAME_LEN: usize = 32;
/// Bytes of a row's entry.
pub(super) const ROW_LEN: usize = 32;
/// Bytes of a fence: key and offset.
pub(super) const FENCE_LEN: usize = 16;
/// Bytes of a stack: what a row says of tags and tunnel.
pub(super) const STACK_LEN: usize = 28;
/// Most packets in a frame.
pub(super) const PACKETS_MAX: u32 = 0x7FFF;

// An Enhanced Packet Block has at least 32 bytes.
const _: () = assert!(FRAME_BYTES_MAX / 32 <= PACKETS_MAX as usize);
const _: () = assert!(HEADER_LEN == 328 && HEADER_LEN.is_multiple_of(8));

/// The sections of a sidecar, in file order: descending alignment, so that none needs padding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Section {
    /// One entry per frame.
    Frames,
    /// One entry per row, sorted by row hash.
    Rows,
    /// Every 64th key of the lists.
    Fences,
    /// IPv4 addresses, ascending.
    Addresses4,
    /// Tags and tunnels, ascending.
    Stacks,
    /// IPv6 addresses, ascending.
    Addresses6,
    /// MAC addresses, ascending.
    Macs,
    /// Per row: its frames.
    Postings,
    /// Per address, port, tag: its rows.
    Lists,
    /// Section and interface, as frame 0 begins.
    Head,
}

impl Section {
    /// All sections in file order.
    pub const ALL: [Self; 10] = [
        Self::Frames,
        Self::Rows,
        Self::Fences,
        Self::Addresses4,
        Self::Stacks,
        Self::Addresses6,
        Self::Macs,
        Self::Postings,
        Self::Lists,
        Self::Head,
    ];

    /// Position in the directory.
    pub(super) const fn number(self) -> usize {
        match self {
            Self::Frames => 0,
            Self::Rows => 1,
            Self::Fences => 2,
            Self::Addresses4 => 3,
            Self::Stacks => 4,
            Self::Addresses6 => 5,
            Self::Macs => 6,
            Self::Postings => 7,
            Self::Lists => 8,
            Self::Head => 9,
        }
    }

    /// Bytes of an element; section lengths are multiples of it.
    pub(super) const fn element(self) -> usize {
        match self {
            Self::Frames => FRAME_LEN,
            Self::Rows => ROW_LEN,
            Self::Fences => FENCE_LEN,
            Self::Addresses4 => 4,
            Self::Stacks => STACK_LEN,
            Self::Addresses6 => 16,
            Self::Macs => 6,
            Self::Postings | Self::Lists | Self::Head => 1,
        }
    }
}

/// The header without its checksum.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) run: u32,
    pub(super) seq: u32,
    pub(super) queue: u32,
    pub(super) frames: u32,
    pub(super) rows: u32,
    pub(super) segment_len: u64,
    pub(super) packets: u64,
    pub(super) t_min: u64,
    pub(super) t_max: u64,
    /// Where each section lies, and its checksum.
    pub(super) sections: [(Range<usize>, u64); Section::ALL.len()],
}

impl Header {
    /// The header's bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN);
        out.extend_from_slice(&MAGIC);
        for word in
            [FORMAT_VERSION, len32(HEADER_LEN), self.run, self.seq, self.queue, self.frames, self.rows]
        {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&ALGORITHMS);
        for word in [self.segment_len, self.packets, self.t_min, self.t_max] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&len64(Section::ALL.len()).to_le_bytes());
        for (range, checksum) in &self.sections {
            for word in [len64(range.start), len64(range.len()), *checksum] {
                out.extend_from_slice(&word.to_le_bytes());
            }
        }
        out.extend_from_slice(&xxh3_64(&out).to_le_bytes());
        out
    }

    /// Reads the fields of a header whose magic, version and checksum have been checked. `None` where a
    /// section lies outside the file, overlaps its predecessor, or is no whole number of elements.
    pub(super) fn decode(file: &[u8]) -> Option<Self> {
        let word = |at| u32_at(file, at);
        let long = |at| u64_at(file, at);
        let mut header = Self {
            run: word(16)?,
            seq: word(20)?,
            queue: word(24)?,
            frames: word(28)?,
            rows: word(32)?,
            segment_len: long(40)?,
            packets: long(48)?,
            t_min: long(56)?,
            t_max: long(64)?,
            ..Self::default()
        };
        let known = array_at(file, 36)? == ALGORITHMS && long(72)? == len64(Section::ALL.len());
        let mut end = HEADER_LEN;
        for (slot, section) in header.sections.iter_mut().zip(Section::ALL) {
            let at = FIXED_LEN + section.number() * DIRECTORY_ENTRY;
            let start = usize::try_from(long(at)?).ok()?;
            let len = usize::try_from(long(at + 8)?).ok()?;
            let stop = start.checked_add(len)?;
            if start != end || stop > file.len() || len % section.element() != 0 {
                return None;
            }
            *slot = (start..stop, long(at + 16)?);
            end = stop;
        }
        let count = |section: Section| {
            header.sections.get(section.number()).map_or(0, |(range, _)| range.len() / section.element())
        };
        let counts =
            count(Section::Frames) == index(header.frames) && count(Section::Rows) == index(header.rows);
        (known && counts && end == file.len()).then_some(header)
    }
}
