//! Where things stand in a pack (docs/format.md): header, members, texts, checksums, blocks.

use crate::bytes::{array_at, index, len32, len64, take, u16_at, u32_at, u64_at};
use crate::name::SegmentName;
use crate::pack::read::Member;
use tapedeck_packet::{Timestamp, UtcHour};
use xxhash_rust::xxh3::xxh3_64;

/// First eight bytes of a pack.
pub const MAGIC: [u8; 8] = *b"tapepack";
/// Version of the format; a reader refuses every other one.
pub const PACK_VERSION: u32 = 1;
/// Segments of a pack at most, and its columns at most.
pub const MEMBERS_MAX: usize = 1024;
/// Bytes of the blocks of a pack at most: who builds one holds them in memory.
pub const MATRIX_BYTES_MAX: u64 = 64 << 20;
/// Rows of a block: bits that a key's own are taken from.
pub const BLOCK_ROWS: u16 = 512;
/// Bits set for a key.
pub(super) const BITS_PER_KEY: usize = 8;
/// Bits of a column for each key that it is made for.
pub(super) const COLUMN_BITS_PER_KEY: u64 = 12;

/// Key hash (1 = XXH3-128), checksum (1 = XXH3-64), bits a key, reserved.
const ALGORITHMS: [u8; 4] = [1, 1, 8, 0];
/// Bytes of the header.
pub(super) const HEADER_LEN: usize = 80;
/// Bytes of a member's entry.
pub(super) const MEMBER_LEN: usize = 80;
/// Blocks begin at a multiple of it.
const ALIGNMENT: usize = 4096;
/// A reader refuses a front beyond this: no shape of a pack comes near.
pub(super) const FRONT_BYTES_MAX: u64 = 32 << 20;

/// Flag of a member: it has rows that no key can exclude.
pub(super) const ALWAYS: u16 = 1;
/// Flag of a member: its ports from [`HIGH_PORT`](super::HIGH_PORT) on are left out.
pub(super) const HIGH_PORTS: u16 = 2;

const _: () = assert!(BITS_PER_KEY == ALGORITHMS[2] as usize && BLOCK_ROWS == 1 << 9);
// One read of 64 KiB.
const _: () = assert!(BLOCK_ROWS as usize * (MEMBERS_MAX / 8) == 64 << 10);

/// The fixed part of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) members: u32,
    pub(super) columns: u32,
    pub(super) blocks: u32,
    pub(super) texts_len: u32,
    /// A pack of the final size; the others are built again into one.
    pub(super) full: bool,
    pub(super) keys: u64,
}

impl Header {
    /// Bytes of a row of a block.
    pub(super) fn row_bytes(&self) -> usize {
        index(self.columns).div_ceil(64) * 8
    }

    /// Bytes of a block.
    pub(super) fn block_bytes(&self) -> usize {
        usize::from(BLOCK_ROWS) * self.row_bytes()
    }

    /// Bytes of header, members, texts and checksums.
    pub(super) fn front_len(&self) -> u64 {
        len64(HEADER_LEN)
            + u64::from(self.members) * len64(MEMBER_LEN)
            + u64::from(self.texts_len)
            + u64::from(self.blocks) * 8
    }

    /// Offset of the first block.
    pub(super) fn blocks_at(&self) -> u64 {
        self.front_len().next_multiple_of(len64(ALIGNMENT))
    }

    /// Bytes of the file.
    pub(super) fn file_len(&self) -> u64 {
        self.blocks_at() + u64::from(self.blocks) * len64(self.block_bytes())
    }

    /// The header's bytes; `rest` is the rest of the front.
    pub(super) fn encode(&self, rest: &[u8]) -> Vec<u8> {
        let mut out = Vec::with_capacity(HEADER_LEN + rest.len());
        out.extend_from_slice(&MAGIC);
        let full = u32::from(self.full);
        for word in
            [PACK_VERSION, len32(HEADER_LEN), self.members, self.columns, self.blocks, self.texts_len, full]
        {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(&ALGORITHMS);
        for word in [self.keys, self.file_len(), 0, xxh3_64(rest)] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        let own = xxh3_64(&out);
        out.extend_from_slice(&own.to_le_bytes());
        out
    }

    /// The header, and the checksum of the rest of the front. The magic, version and own checksum have been
    /// checked. `None` where it says what no pack can be.
    pub(super) fn decode(bytes: &[u8], file_len: u64) -> Option<(Self, u64)> {
        let word = |at| u32_at(bytes, at);
        let header = Self {
            members: word(16)?,
            columns: word(20)?,
            blocks: word(24)?,
            texts_len: word(28)?,
            full: word(32)? == 1,
            keys: u64_at(bytes, 40)?,
        };
        let known = array_at(bytes, 36)? == ALGORITHMS && index(word(12)?) == HEADER_LEN && word(32)? <= 1;
        let sizes = (1..=len32(MEMBERS_MAX)).contains(&header.members)
            && (header.members..=len32(MEMBERS_MAX)).contains(&header.columns)
            && header.blocks >= 1
            && u64::from(header.blocks) * len64(header.block_bytes()) <= MATRIX_BYTES_MAX
            && header.front_len() <= FRONT_BYTES_MAX;
        let fits = sizes && u64_at(bytes, 48)? == file_len && header.file_len() == file_len;
        (known && fits).then_some((header, u64_at(bytes, 64)?))
    }
}

/// The checksum that a header states of itself.
pub(super) fn header_holds(bytes: &[u8]) -> bool {
    let own = HEADER_LEN - 8;
    bytes.get(..own).map(xxh3_64) == u64_at(bytes, own)
}

/// Appends a member's entry. `texts` numbers sensor and interface.
pub(super) fn encode_member(member: &Member, [sensor, interface]: [u16; 2], out: &mut Vec<u8>) {
    let SegmentName { t0, queue, run, seq, .. } = &member.name;
    out.extend_from_slice(&t0.nanos().to_le_bytes());
    for word in [*run, *seq, *queue] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    for half in [sensor, interface] {
        out.extend_from_slice(&half.to_le_bytes());
    }
    let times = [member.t_min.nanos(), member.t_max.nanos()];
    for word in times.into_iter().chain([member.segment_len, member.sidecar_len, member.fingerprint]) {
        out.extend_from_slice(&word.to_le_bytes());
    }
    let hour = u32::try_from(member.hour.hours()).unwrap_or(u32::MAX);
    for word in [member.frames, hour] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    for half in [member.first_column, member.columns, member.flags, 0] {
        out.extend_from_slice(&half.to_le_bytes());
    }
}

/// A member from its entry; `None` where it makes no sense in a pack of `columns`.
pub(super) fn decode_member(entry: &[u8], texts: &[String], columns: u32) -> Option<Member> {
    let (word, half) = (|at| u32_at(entry, at), |at| u16_at(entry, at));
    let time = |at| Timestamp::from_nanos(u64_at(entry, at)?);
    let text = |at| texts.get(usize::from(half(at)?)).cloned();
    let member = Member {
        name: SegmentName {
            t0: time(0)?,
            run: word(8)?,
            seq: word(12)?,
            queue: word(16)?,
            sensor: text(20)?,
            interface: text(22)?,
        },
        t_min: time(24)?,
        t_max: time(32)?,
        segment_len: u64_at(entry, 40)?,
        sidecar_len: u64_at(entry, 48)?,
        fingerprint: u64_at(entry, 56)?,
        frames: word(64)?,
        hour: UtcHour::from_hours(word(68)?.into()),
        first_column: half(72)?,
        columns: half(74)?,
        flags: half(76)?,
    };
    let end = u32::from(member.first_column) + u32::from(member.columns);
    (member.columns >= 1 && end <= columns && member.t_min <= member.t_max).then_some(member)
}

/// Appends a text: its length in two bytes, its bytes.
pub(super) fn encode_text(text: &str, out: &mut Vec<u8>) {
    // Parts of a file name: far below 64 KiB.
    out.extend_from_slice(&u16::try_from(text.len()).unwrap_or_default().to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

/// All texts of a section.
pub(super) fn decode_texts(mut bytes: &[u8]) -> Option<Vec<String>> {
    let mut texts = Vec::new();
    while !bytes.is_empty() {
        let len = u16_at(take(&mut bytes, 2)?, 0)?;
        texts.push(String::from_utf8(take(&mut bytes, len.into())?.to_vec()).ok()?);
    }
    Some(texts)
}
