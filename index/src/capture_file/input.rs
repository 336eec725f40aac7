//! The bytes of a capture: unpacked, buffered, with the offset at hand.
//!
//! The buffer grows only by what was read, so a hostile length costs nothing.

use super::{CaptureError, foreign};
use std::io::{self, Chain, Cursor, Read};

const STEP: usize = 64 * 1024;

pub(super) struct Input<'r> {
    source: Box<dyn Read + 'r>,
    buffer: Vec<u8>,
    start: usize,
    offset: u64,
    /// An error met while reading ahead; reported when the bytes before it are used up.
    error: Option<io::Error>,
    ended: bool,
}

impl<'r> Input<'r> {
    pub(super) fn open(mut source: Box<dyn Read + 'r>) -> Result<Self, CaptureError> {
        let mut magic = Vec::new();
        source
            .by_ref()
            .take(4)
            .read_to_end(&mut magic)
            .map_err(|source| CaptureError::Io { offset: 0, source })?;
        if magic.is_empty() {
            return Err(foreign(&[]));
        }
        let whole: Chain<Cursor<Vec<u8>>, Box<dyn Read + 'r>> = Cursor::new(magic.clone()).chain(source);
        let source: Box<dyn Read + 'r> = match magic.as_slice() {
            [0x1f, 0x8b, ..] => Box::new(flate2::read::MultiGzDecoder::new(whole)),
            [0x28, 0xb5, 0x2f, 0xfd] => Box::new(
                zstd::stream::read::Decoder::new(whole)
                    .map_err(|source| CaptureError::Io { offset: 0, source })?,
            ),
            [0x04, 0x22, 0x4d, 0x18] => {
                Box::new(Lz4Frames { decoder: lz4_flex::frame::FrameDecoder::new(whole), idle: 0 })
            }
            _ => Box::new(whole),
        };
        Ok(Self { source, buffer: Vec::new(), start: 0, offset: 0, error: None, ended: false })
    }

    /// The bytes at hand, from the current position.
    pub(super) fn bytes(&self) -> &[u8] {
        self.buffer.get(self.start..).unwrap_or_default()
    }

    /// Offset of the current position.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Reads ahead until `len` bytes are at hand or the input ends; returns how many of them are.
    pub(super) fn want(&mut self, len: usize) -> Result<usize, CaptureError> {
        while self.buffer.len() - self.start < len && !self.ended {
            if self.start > 0 {
                self.buffer.drain(..self.start);
                self.start = 0;
            }
            let held = self.buffer.len();
            let step = u64::try_from(STEP.max((len - held).min(4 * STEP))).unwrap_or(u64::MAX);
            match self.source.by_ref().take(step).read_to_end(&mut self.buffer) {
                Ok(0) => self.ended = true,
                Ok(_) => {}
                Err(error) => {
                    self.ended = true;
                    self.error = Some(error);
                }
            }
        }
        let held = self.buffer.len() - self.start;
        match self.error.take() {
            Some(source) if held < len => Err(CaptureError::Io {
                offset: self.offset + u64::try_from(held).unwrap_or(u64::MAX),
                source,
            }),
            error => {
                self.error = error;
                Ok(held.min(len))
            }
        }
    }

    /// As [`Input::want`], but fewer bytes are an error.
    pub(super) fn need(&mut self, len: usize, what: &'static str) -> Result<&[u8], CaptureError> {
        let held = self.want(len)?;
        if held < len {
            let wide = |n: usize| u64::try_from(n).unwrap_or(u64::MAX);
            return Err(CaptureError::Cut { what, offset: self.offset, needed: wide(len), left: wide(held) });
        }
        Ok(self.bytes().get(..len).unwrap_or_default())
    }

    /// Steps over `len` bytes that are at hand.
    pub(super) fn consume(&mut self, len: usize) {
        let len = len.min(self.buffer.len() - self.start);
        self.start += len;
        self.offset += u64::try_from(len).unwrap_or(u64::MAX);
    }

    /// Steps over `len` bytes without holding them.
    pub(super) fn skip(&mut self, len: u64, what: &'static str) -> Result<(), CaptureError> {
        let (offset, mut left) = (self.offset, len);
        while left > 0 {
            let step = usize::try_from(left).unwrap_or(STEP).min(STEP);
            let held = self.want(step)?;
            if held == 0 {
                return Err(CaptureError::Cut { what, offset, needed: len, left: len - left });
            }
            self.consume(held);
            left -= u64::try_from(held).unwrap_or(u64::MAX);
        }
        Ok(())
    }
}

/// All frames of an lz4 stream: the decoder ends a read at each frame's end.
struct Lz4Frames<R: Read> {
    decoder: lz4_flex::frame::FrameDecoder<R>,
    idle: u8,
}

impl<R: Read> Read for Lz4Frames<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        // One empty read is the end of a frame, two in a row are the end of the stream.
        while self.idle < 2 {
            match self.decoder.read(buffer)? {
                0 => self.idle += 1,
                n => {
                    self.idle = 0;
                    return Ok(n);
                }
            }
        }
        Ok(0)
    }
}
