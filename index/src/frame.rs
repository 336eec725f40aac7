//! Independent zstd frames: the storage unit of a segment.
//!
//! Every frame carries its content size and an XXH64 checksum, is a plain RFC 8878 frame, and holds
//! whole pcapng blocks. Never a skippable frame: Wireshark reads its bytes as packet data.

use crate::bytes::{array_at, index, len32, len64, u16_at, u32_at, u64_at};
use std::io::Cursor;
use xxhash_rust::xxh64::Xxh64;
use zstd_safe::{CCtx, CParameter, DCtx};

#[cfg(test)]
mod tests;

/// Most uncompressed bytes in a frame, unless one packet alone is larger.
pub const FRAME_BYTES_MAX: usize = 512 * 1024;
/// Most uncompressed bytes in any frame: one packet of the greatest length.
pub const RAW_BYTES_MAX: usize = 16 * 1024 * 1024;

/// Most bytes in a block of a frame (RFC 8878, Block_Maximum_Size).
const BLOCK_BYTES_MAX: usize = 128 * 1024;
/// Magic number of a frame.
const MAGIC: u32 = 0xFD2F_B528;
/// Frame header descriptor of [`store_raw`]: content size in 4 bytes, window descriptor, checksum.
const RAW_DESCRIPTOR: u8 = 0b1000_0100;
/// Window descriptor of [`store_raw`]: 128 KiB, as much as a block; exponent 7 over 2^10.
const RAW_WINDOW: u8 = 7 << 3;
/// Bytes that the nearest cache holds beside what else is needed.
const NEAR_BYTES: usize = 16 * 1024;
/// Header of a stored frame: magic, descriptor, window, content size.
const RAW_HEAD: usize = 10;

/// A frame that cannot be made or believed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// The codec could not get its memory.
    #[error("no memory for the zstd context")]
    Memory,
    /// libzstd refused.
    #[error("zstd: {0}")]
    Codec(&'static str),
    /// The frame ends before its last block.
    #[error("the frame is cut after {len} bytes")]
    Incomplete {
        /// Bytes that are there.
        len: usize,
    },
    /// Not a zstd frame, or one with impossible headers.
    #[error("not a whole zstd frame of {len} bytes")]
    Damaged {
        /// Bytes that were given.
        len: usize,
    },
    /// No content size or no checksum, or a dictionary: not a frame of ours.
    #[error("the frame lacks a content size or a checksum")]
    Profile,
    /// More content than the caller allows.
    #[error("the frame holds {size} bytes, {max} are allowed")]
    TooLarge {
        /// Content size in the header.
        size: u64,
        /// The caller's bound.
        max: usize,
    },
    /// Content longer than a frame can say, or shorter than its header says.
    #[error("the frame holds {actual} bytes, its header says {expected}")]
    Size {
        /// Content size in the header.
        expected: u64,
        /// Bytes that came out.
        actual: usize,
    },
}

/// Why the length of a frame cannot be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameLenError {
    /// A good beginning of a frame whose end is missing.
    #[error("the frame is incomplete")]
    Incomplete,
    /// These bytes begin no frame, whatever follows.
    #[error("not a zstd frame")]
    Damaged,
}

/// Most bytes [`Encoder::compress`] and [`store_raw`] append for `raw_len` bytes.
#[must_use]
pub fn compress_bound(raw_len: usize) -> usize {
    zstd_safe::compress_bound(raw_len).max(stored_len(raw_len))
}

/// Bytes [`store_raw`] appends for `raw_len` bytes.
#[must_use]
pub fn stored_len(raw_len: usize) -> usize {
    let blocks = raw_len.div_ceil(BLOCK_BYTES_MAX).max(1);
    RAW_HEAD + 3 * blocks + raw_len + 4
}

/// Compresses frames with one context that is kept.
pub struct Encoder {
    context: CCtx<'static>,
    level: Option<i32>,
}

impl Encoder {
    /// An encoder with content size and checksum on.
    ///
    /// # Errors
    /// [`FrameError::Memory`], and [`FrameError::Codec`] if libzstd knows a parameter no longer.
    pub fn new() -> Result<Self, FrameError> {
        let mut context = CCtx::try_create().ok_or(FrameError::Memory)?;
        context.set_parameter(CParameter::ContentSizeFlag(true)).map_err(codec)?;
        context.set_parameter(CParameter::ChecksumFlag(true)).map_err(codec)?;
        Ok(Self { context, level: None })
    }

    /// Appends one frame with the whole of `raw` to `out` and returns its length. Does not allocate
    /// when `out` has [`compress_bound`] bytes of spare capacity (but the context may, once a level).
    ///
    /// # Errors
    /// [`FrameError::Codec`]; `out` is then unchanged.
    pub fn compress(&mut self, level: i32, raw: &[u8], out: &mut Vec<u8>) -> Result<usize, FrameError> {
        self.set_level(level)?;
        out.reserve(zstd_safe::compress_bound(raw.len()));
        let start = out.len();
        let mut cursor = Cursor::new(&mut *out);
        cursor.set_position(len64(start));
        let result = self.context.compress2(&mut cursor, raw).map_err(codec);
        if result.is_err() {
            out.truncate(start);
        }
        result
    }

    /// Writes one frame with the whole of `raw` to the front of `out` and returns its length.
    ///
    /// # Errors
    /// [`FrameError::Codec`], also when `out` is too small; [`compress_bound`] bytes always do.
    pub fn compress_into(&mut self, level: i32, raw: &[u8], out: &mut [u8]) -> Result<usize, FrameError> {
        self.set_level(level)?;
        self.context.compress2(out, raw).map_err(codec)
    }

    fn set_level(&mut self, level: i32) -> Result<(), FrameError> {
        if self.level != Some(level) {
            self.context.set_parameter(CParameter::CompressionLevel(level)).map_err(codec)?;
            // 0 is the level's own. Below 0 speed is all: a table of 16 KiB leaves room in the nearest cache, and short
            // matches cost more than they save (docs/performance.md).
            let (hash_log, min_match) = if level < 0 { (12, 7) } else { (0, 0) };
            self.context.set_parameter(CParameter::HashLog(hash_log)).map_err(codec)?;
            self.context.set_parameter(CParameter::MinMatch(min_match)).map_err(codec)?;
            self.level = Some(level);
        }
        Ok(())
    }
}

impl std::fmt::Debug for Encoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Encoder").field("level", &self.level).finish_non_exhaustive()
    }
}

/// Appends `raw` to `out` as a frame of raw blocks: no compression, any decoder reads it. Returns the
/// frame's length, [`stored_len`].
///
/// # Errors
/// [`FrameError::Size`] above 4 GiB.
pub fn store_raw(raw: &[u8], out: &mut Vec<u8>) -> Result<usize, FrameError> {
    out.reserve(stored_len(raw.len()));
    store_raw_with(raw, |part| out.extend_from_slice(part))
}

/// As [`store_raw`], part by part: each is to be appended behind those before it. Bytes of `raw` are given on
/// while they are in the nearest cache, so that checksum and copy fetch them once.
///
/// # Errors
/// [`FrameError::Size`] above 4 GiB; nothing has been appended then.
pub fn store_raw_with(raw: &[u8], mut append: impl FnMut(&[u8])) -> Result<usize, FrameError> {
    let size = u32::try_from(raw.len())
        .map_err(|_| FrameError::Size { expected: u64::from(u32::MAX), actual: raw.len() })?;
    append(&MAGIC.to_le_bytes());
    append(&[RAW_DESCRIPTOR, RAW_WINDOW]);
    append(&size.to_le_bytes());
    let (mut rest, mut checksum) = (raw, Xxh64::new(0));
    loop {
        let (block, after) = rest.split_at(rest.len().min(BLOCK_BYTES_MAX));
        let last = u32::from(after.is_empty());
        let [a, b, c, _] = ((len32(block.len()) << 3) | last).to_le_bytes();
        append(&[a, b, c]);
        for part in block.chunks(NEAR_BYTES) {
            checksum.update(part);
            append(part);
        }
        rest = after;
        if last == 1 {
            break;
        }
    }
    let [a, b, c, d, ..] = checksum.digest().to_le_bytes();
    append(&[a, b, c, d]);
    Ok(stored_len(raw.len()))
}

/// Inflates frames with one context that is kept.
pub struct Decoder {
    context: DCtx<'static>,
}

impl Decoder {
    /// A decoder.
    ///
    /// # Errors
    /// [`FrameError::Memory`].
    pub fn new() -> Result<Self, FrameError> {
        Ok(Self { context: DCtx::try_create().ok_or(FrameError::Memory)? })
    }

    /// Replaces the contents of `out` with those of `frame`, which must be exactly one frame. Checksum
    /// and content size are verified. Takes no more memory than `max_raw` bytes, whatever the frame.
    ///
    /// # Errors
    /// Every [`FrameError`] but `Memory`; `out` is then empty.
    pub fn decompress(&mut self, frame: &[u8], out: &mut Vec<u8>, max_raw: usize) -> Result<(), FrameError> {
        out.clear();
        let head = parse(frame).map_err(|error| match error {
            FrameLenError::Incomplete => FrameError::Incomplete { len: frame.len() },
            FrameLenError::Damaged => FrameError::Damaged { len: frame.len() },
        })?;
        if head.len != frame.len() {
            return Err(FrameError::Damaged { len: frame.len() });
        }
        let size =
            head.content_size.filter(|_| head.checksum && !head.dictionary).ok_or(FrameError::Profile)?;
        let bytes = usize::try_from(size)
            .ok()
            .filter(|bytes| *bytes <= max_raw)
            .ok_or(FrameError::TooLarge { size, max: max_raw })?;
        out.reserve(bytes);
        let result = self.context.decompress(out, frame).map_err(codec).and_then(|actual| {
            if actual == bytes { Ok(()) } else { Err(FrameError::Size { expected: size, actual }) }
        });
        if result.is_err() {
            out.clear();
        }
        result
    }
}

impl std::fmt::Debug for Decoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Decoder").finish_non_exhaustive()
    }
}

/// Length of the frame that `bytes` begin with, from its headers alone: the content is not looked at.
///
/// # Errors
/// [`FrameLenError`]; skippable frames are damage.
pub fn frame_len(bytes: &[u8]) -> Result<usize, FrameLenError> {
    parse(bytes).map(|head| head.len)
}

/// What the headers of a frame say.
struct Head {
    len: usize,
    content_size: Option<u64>,
    checksum: bool,
    dictionary: bool,
}

/// Walks the frame header and the block headers (RFC 8878, 3.1.1).
fn parse(bytes: &[u8]) -> Result<Head, FrameLenError> {
    let magic = MAGIC.to_le_bytes();
    if bytes.len() < magic.len() && magic.starts_with(bytes) {
        return Err(FrameLenError::Incomplete);
    }
    if !bytes.starts_with(&magic) {
        return Err(FrameLenError::Damaged);
    }
    let descriptor = *bytes.get(4).ok_or(FrameLenError::Incomplete)?;
    if descriptor & 0b1000 != 0 {
        return Err(FrameLenError::Damaged);
    }
    let single_segment = descriptor & 0b10_0000 != 0;
    let dictionary_len = [0, 1, 2, 4].get(usize::from(descriptor & 3)).copied().unwrap_or_default();
    let size_at = 5 + usize::from(!single_segment) + dictionary_len;
    let short = FrameLenError::Incomplete;
    let (size_len, content_size) = match (descriptor >> 6, single_segment) {
        (0, false) => (0, None),
        (0, true) => (1, Some(u64::from(*bytes.get(size_at).ok_or(short)?))),
        (1, _) => (2, Some(u64::from(u16_at(bytes, size_at).ok_or(short)?) + 256)),
        (2, _) => (4, Some(u64::from(u32_at(bytes, size_at).ok_or(short)?))),
        _ => (8, Some(u64_at(bytes, size_at).ok_or(short)?)),
    };
    let checksum = descriptor & 0b100 != 0;
    let end = blocks_end(bytes, size_at + size_len)? + if checksum { 4 } else { 0 };
    if end > bytes.len() {
        return Err(short);
    }
    Ok(Head { len: end, content_size, checksum, dictionary: dictionary_len > 0 })
}

/// Offset behind the last block; `at` is the first block's.
fn blocks_end(bytes: &[u8], mut at: usize) -> Result<usize, FrameLenError> {
    loop {
        let [a, b, c] = array_at(bytes, at).ok_or(FrameLenError::Incomplete)?;
        let head = u32::from_le_bytes([a, b, c, 0]);
        let size = index(head >> 3);
        let content = match (head >> 1) & 3 {
            // Raw and compressed blocks store `size` bytes; a run stores the byte it repeats.
            0 | 2 => size,
            1 => 1,
            _ => return Err(FrameLenError::Damaged),
        };
        if size > BLOCK_BYTES_MAX {
            return Err(FrameLenError::Damaged);
        }
        at += 3 + content;
        if at > bytes.len() {
            return Err(FrameLenError::Incomplete);
        }
        if head & 1 == 1 {
            return Ok(at);
        }
    }
}

fn codec(code: usize) -> FrameError {
    FrameError::Codec(zstd_safe::get_error_name(code))
}
