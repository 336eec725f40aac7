//! The frames of a segment whose sidecar is missing or damaged: found by walking the file.
//!
//! Looks only at frame and block headers; contents are checked when the frames are read. Behind damage it
//! looks for the next frame, so one bad byte does not hide the rest of a segment.

use crate::segment::{Opened, len64};
use std::io;
use tapedeck_index::frame::{FrameLenError, RAW_BYTES_MAX, compress_bound, frame_len};

/// Arrival numbers set aside for a frame whose first one is not known; more than a frame has packets.
pub(crate) const ARRIVALS_PER_FRAME: u64 = 1 << 20;

/// First four bytes of a zstd frame.
const MAGIC: [u8; 4] = 0xFD2F_B528u32.to_le_bytes();
/// Read at first; nearly every frame fits.
const WINDOW_BYTES: usize = 1024 * 1024;

/// A stretch of a segment file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Byte offset.
    pub(crate) offset: u64,
    /// Bytes.
    pub(crate) len: u64,
    /// A frame, as far as its headers say; else damage.
    pub(crate) is_frame: bool,
}

/// All of a file's bytes as frames and damage, in order.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn walk(file: &Opened) -> io::Result<Vec<Stretch>> {
    let mut window = Window::new(file)?;
    let end = window.end;
    let mut stretches: Vec<Stretch> = Vec::new();
    let mut at = 0;
    while at < end {
        let frame = window.frame_at(at)?;
        let len = match frame {
            Some(len) => len,
            None => window.next_magic(at.saturating_add(1))?.saturating_sub(at),
        };
        match stretches.last_mut() {
            Some(last) if !last.is_frame && frame.is_none() => last.len = last.len.saturating_add(len),
            _ => stretches.push(Stretch { offset: at, len, is_frame: frame.is_some() }),
        }
        at = at.saturating_add(len);
    }
    Ok(stretches)
}

/// Stored bytes of the frame at the beginning of the file, if one begins and ends there.
///
/// # Errors
/// When the file cannot be read.
pub(crate) fn first(file: &Opened) -> io::Result<Option<u32>> {
    let mut window = Window::new(file)?;
    Ok(window.frame_at(0)?.and_then(|len| u32::try_from(len).ok()))
}

/// A part of the file in memory.
pub(crate) struct Window<'a> {
    file: &'a Opened,
    end: u64,
    offset: u64,
    bytes: Vec<u8>,
}

impl<'a> Window<'a> {
    /// A window on a file, as long as it is now.
    pub(crate) fn new(file: &'a Opened) -> io::Result<Self> {
        Ok(Self { file, end: file.file_len()?, offset: 0, bytes: Vec::new() })
    }

    /// The bytes from `at` on: at least `want` of them, unless the file ends before.
    fn from(&mut self, at: u64, want: usize) -> io::Result<&[u8]> {
        let left = usize::try_from(self.end.saturating_sub(at)).unwrap_or(usize::MAX);
        let inside = usize::try_from(at.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        let held = at >= self.offset && self.bytes.len().saturating_sub(inside) >= want.min(left);
        if !held {
            self.bytes.resize(want.max(WINDOW_BYTES).min(left), 0);
            self.file.read_at(&mut self.bytes, at)?;
            self.offset = at;
        }
        let inside = usize::try_from(at.saturating_sub(self.offset)).unwrap_or(usize::MAX);
        Ok(self.bytes.get(inside..).unwrap_or_default())
    }

    /// Length of the frame at `at`, if one begins and ends there.
    pub(crate) fn frame_at(&mut self, at: u64) -> io::Result<Option<u64>> {
        let longest = compress_bound(RAW_BYTES_MAX);
        let mut want = 64 * 1024;
        loop {
            let bytes = self.from(at, want)?;
            let all = bytes.len() < want;
            match frame_len(bytes) {
                Ok(len) => return Ok(Some(len64(len))),
                Err(FrameLenError::Incomplete) if !all && want < longest => want = want.saturating_mul(4),
                Err(_) => return Ok(None),
            }
        }
    }

    /// Where the next frame may begin, from `at` on; the end of the file if nowhere.
    fn next_magic(&mut self, mut at: u64) -> io::Result<u64> {
        while at < self.end {
            let bytes = self.from(at, 64 * 1024)?;
            if let Some(found) = bytes.windows(MAGIC.len()).position(|w| w == MAGIC) {
                return Ok(at.saturating_add(len64(found)));
            }
            // A magic number may straddle the windows.
            let step = len64(bytes.len().saturating_sub(MAGIC.len() - 1)).max(1);
            at = at.saturating_add(step);
        }
        Ok(self.end)
    }
}
