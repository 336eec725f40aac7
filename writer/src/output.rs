//! The stored bytes of one segment on their way to its sink: cut into aligned writes, and still
//! readable until they are known to be in the file, for the journal.
//!
//! Must never: submit a range that is not a multiple of the block, but for the padded end.

use crate::buffer::{Buf, Pool};
use crate::sink::{Piece, Sink, SinkKind, to_u64};
use std::collections::VecDeque;
use std::time::Duration;

/// Size of a write buffer, and so of the largest write, bytes.
pub(crate) const WRITE_BYTES: usize = 1 << 20;

/// Collects bytes and submits them.
#[derive(Debug, Default)]
pub(crate) struct Output {
    current: Option<Buf>,
    /// File offset of the current buffer's first byte.
    base: u64,
    /// Bytes of the current buffer that have been submitted; a multiple of the block.
    submitted: usize,
    /// Bytes appended in all: where the next one goes.
    end: u64,
    /// Submitted pieces that may not be in the file yet.
    flying: VecDeque<Piece>,
}

impl Output {
    /// File offset behind the last appended byte.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }

    /// Appends `bytes`; each full buffer goes to the sink.
    pub(crate) fn append(&mut self, pool: &Pool, sink: &mut dyn Sink, mut bytes: &[u8]) {
        // Without a page cache no CPU reads them any more.
        let direct = sink.kind() == SinkKind::Uring;
        while !bytes.is_empty() {
            let Some(buf) = self.buffer(pool, sink) else { return };
            let taken = if direct { buf.fill_past_caches(bytes) } else { buf.fill(bytes) };
            let full = buf.len() == buf.capacity();
            self.end += to_u64(taken);
            bytes = bytes.get(taken..).unwrap_or_default();
            if full {
                self.submit_to(sink, usize::MAX);
            }
        }
    }

    /// The buffer to fill, from the pool if possible.
    fn buffer(&mut self, pool: &Pool, sink: &mut dyn Sink) -> Option<&mut Buf> {
        if self.current.is_none() {
            let buf = loop {
                self.release(sink);
                match pool.try_take() {
                    Some(buf) => break Some(buf),
                    None if sink.in_flight() > 0 => sink.wait(Duration::from_secs(1)),
                    // Other segments hold the whole pool: one more buffer, rather than wait for them.
                    None => break Buf::single(WRITE_BYTES),
                }
            };
            self.base = self.end;
            self.submitted = 0;
            self.current = buf;
        }
        self.current.as_mut()
    }

    /// Submits the whole blocks of `block` bytes that are there.
    pub(crate) fn flush_blocks(&mut self, sink: &mut dyn Sink, block: usize) {
        let whole = self.current.as_ref().map_or(0, |buf| buf.len() / block.max(1) * block.max(1));
        self.submit_to(sink, whole);
    }

    /// Submits everything, padded with zeros to a whole block: the end of the segment.
    pub(crate) fn flush_padded(&mut self, sink: &mut dyn Sink, block: usize) {
        if let Some(buf) = self.current.as_mut() {
            // The capacity is a multiple of the block, so there is room.
            let pad = buf.len().next_multiple_of(block.max(1)) - buf.len();
            for byte in buf.spare().iter_mut().take(pad) {
                *byte = 0;
            }
            buf.publish(pad);
        }
        self.submit_to(sink, usize::MAX);
    }

    /// Submits the current buffer up to `to`; a buffer that is used up leaves.
    fn submit_to(&mut self, sink: &mut dyn Sink, to: usize) {
        let Some(buf) = self.current.as_ref() else { return };
        let to = to.min(buf.len());
        if to > self.submitted {
            let piece = Piece {
                view: buf.view(),
                start: self.submitted,
                len: to - self.submitted,
                offset: self.base + to_u64(self.submitted),
            };
            self.flying.push_back(piece.clone());
            sink.submit(piece);
            self.submitted = to;
        }
        if to == buf.capacity() {
            self.current = None;
        }
    }

    /// Lets go of pieces that are in the file.
    pub(crate) fn release(&mut self, sink: &mut dyn Sink) {
        sink.reap();
        while self.flying.front().is_some_and(|piece| piece.end() <= sink.completed()) {
            self.flying.pop_front();
        }
    }

    /// The bytes from file offset `from` to the end, as far as they have not been released.
    pub(crate) fn copy_from(&self, from: u64, out: &mut Vec<u8>) {
        let rest = self.current.as_ref().map(|buf| {
            let bytes = buf.bytes().get(self.submitted..).unwrap_or_default();
            (self.base + to_u64(self.submitted), bytes)
        });
        let pieces = self.flying.iter().map(|piece| (piece.offset, piece.bytes()));
        for (offset, bytes) in pieces.chain(rest) {
            let skip = usize::try_from(from.saturating_sub(offset)).unwrap_or(usize::MAX);
            // The padded end belongs to the file, not to the stored bytes.
            let keep =
                usize::try_from(self.end.saturating_sub(offset)).unwrap_or(usize::MAX).min(bytes.len());
            out.extend_from_slice(bytes.get(skip..keep).unwrap_or_default());
        }
    }
}
