//! A sink takes the bytes of one file, in order, and says how far they have got.
//!
//! The stage submits pieces of its write buffers, each beginning where the one before ended. A sink
//! completes them in any order but reports only the contiguous prefix, because that is all a journal
//! record may claim. The first failed write is kept; nothing after it counts.
//!
//! Must never: write a byte twice on purpose, report a byte before its write has returned.

#[cfg(test)]
pub(crate) mod double;
pub(crate) mod null;
pub(crate) mod plain;
pub(crate) mod uring;

use crate::buffer::View;
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::sync::Arc;
use std::time::Duration;

/// How much a file is preallocated ahead of its writes, bytes: extending writes serialise on ext4.
pub(crate) const PREALLOCATE_BYTES: u64 = 64 << 20;

/// Which sink runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SinkKind {
    /// io_uring with O_DIRECT.
    Uring,
    /// `pwrite` through the page cache.
    Plain,
    /// Nowhere.
    Null,
}

impl SinkKind {
    /// As status and messages call it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Uring => "io_uring",
            Self::Plain => "plain",
            Self::Null => "null",
        }
    }
}

/// A part of a buffer on its way to a file.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    /// The buffer.
    pub(crate) view: View,
    /// First byte within the buffer.
    pub(crate) start: usize,
    /// Bytes.
    pub(crate) len: usize,
    /// Where in the file.
    pub(crate) offset: u64,
}

impl Piece {
    /// The bytes to write; empty if the range is not published.
    #[must_use]
    pub(crate) fn bytes(&self) -> &[u8] {
        self.view.bytes().get(self.start..self.start.saturating_add(self.len)).unwrap_or_default()
    }

    /// Offset of the first byte behind this piece.
    #[must_use]
    pub(crate) fn end(&self) -> u64 {
        self.offset.saturating_add(to_u64(self.len))
    }
}

/// A write that failed.
#[derive(Debug, thiserror::Error)]
#[error("write of {len} bytes at offset {offset} failed")]
pub(crate) struct WriteFailure {
    /// Offset in the file.
    pub(crate) offset: u64,
    /// Bytes that were to be written there.
    pub(crate) len: usize,
    /// What the system said.
    pub(crate) source: io::Error,
}

/// Append-only bytes of one file. Used by one thread, the one that made it.
pub(crate) trait Sink {
    /// Which kind this is, for status.
    fn kind(&self) -> SinkKind;

    /// Whether [`Sink::submit`] would return at once.
    fn has_room(&self) -> bool;

    /// Starts writing `piece`, which begins where the last one ended; waits for room if there is none.
    /// A failure shows in [`Sink::failure`], perhaps later; after one, pieces are dropped unwritten.
    fn submit(&mut self, piece: Piece);

    /// Takes notice of writes that have completed. Never blocks.
    fn reap(&mut self);

    /// Blocks until a write completes or `timeout` has passed; returns at once if none is in flight.
    fn wait(&mut self, timeout: Duration);

    /// Writes not yet completed.
    fn in_flight(&self) -> usize;

    /// Bytes of the file, from its beginning, that have been written without a hole.
    fn completed(&self) -> u64;

    /// The first write that failed.
    fn failure(&self) -> Option<&WriteFailure>;

    /// A handle for making durable what is written; usable from another thread, also after the sink.
    fn durable(&self) -> Arc<dyn Durable>;
}

/// The slow calls on a file that is being written: for the sync thread.
pub(crate) trait Durable: Send + Sync {
    /// fdatasync.
    ///
    /// # Errors
    /// Whatever the system says; after an error nothing since the last success may be believed.
    fn sync(&self) -> io::Result<()>;

    /// Cuts the file to `len` bytes: drops preallocation and the padding of the last block.
    ///
    /// # Errors
    /// Whatever ftruncate says.
    fn truncate(&self, len: u64) -> io::Result<()>;
}

impl Durable for File {
    fn sync(&self) -> io::Result<()> {
        self.sync_data()
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.set_len(len)
    }
}

/// The contiguous prefix of writes that complete in any order.
#[derive(Debug, Default)]
pub(crate) struct Prefix {
    end: u64,
    /// (end offset, done), in file order.
    open: VecDeque<(u64, bool)>,
}

impl Prefix {
    /// Notes a write that ends at `end`.
    pub(crate) fn begin(&mut self, end: u64) {
        self.open.push_back((end, false));
    }

    /// The write that ends at `end` has completed.
    pub(crate) fn complete(&mut self, end: u64) {
        for slot in self.open.iter_mut().filter(|slot| slot.0 == end) {
            slot.1 = true;
        }
        while let Some((end, true)) = self.open.front().copied() {
            self.end = end;
            self.open.pop_front();
        }
    }

    /// Bytes from the beginning of the file without a hole.
    pub(crate) fn end(&self) -> u64 {
        self.end
    }
}

/// Preallocation in steps, up to a limit; a refusal ends it.
#[derive(Debug)]
pub(crate) struct Preallocate {
    done: u64,
    limit: u64,
}

impl Preallocate {
    /// Nothing yet, and never more than `limit` bytes.
    pub(crate) fn new(limit: u64) -> Self {
        Self { done: 0, limit }
    }

    /// Sees to it that a write up to `end` meets allocated blocks. Failing is no error: the write then
    /// extends the file itself, slower, or fails and says so.
    pub(crate) fn reach(&mut self, file: &File, end: u64) {
        if end <= self.done || self.done >= self.limit {
            return;
        }
        let target = end.saturating_add(PREALLOCATE_BYTES - 1) / PREALLOCATE_BYTES * PREALLOCATE_BYTES;
        let target = target.min(self.limit).max(end);
        let (Ok(from), Ok(len)) = (i64::try_from(self.done), i64::try_from(target - self.done)) else {
            return;
        };
        let mode = nix::fcntl::FallocateFlags::empty();
        match nix::fcntl::fallocate(file, mode, from, len) {
            Ok(()) => self.done = target,
            Err(errno) => {
                tracing::debug!(%errno, "no preallocation");
                self.limit = 0;
            }
        }
    }
}

/// Lossless on every platform Linux runs on.
pub(crate) fn to_u64(n: usize) -> u64 {
    u64::try_from(n).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
