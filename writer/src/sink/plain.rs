//! The plain sink: `pwrite` through the page cache, for filesystems and hosts that refuse the fast way.
//!
//! Each submit blocks until the kernel has the bytes. Must never: call fsync, that is the sync thread's.

use super::{Durable, Piece, Preallocate, Prefix, Sink, SinkKind, WriteFailure};
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use std::time::Duration;

/// Writes with `pwrite`, one at a time.
#[derive(Debug)]
pub(crate) struct PlainSink {
    file: Arc<File>,
    prefix: Prefix,
    preallocate: Preallocate,
    failure: Option<WriteFailure>,
}

impl PlainSink {
    /// A sink for the empty `file`; preallocates up to `limit_bytes`.
    #[must_use]
    pub(crate) fn new(file: Arc<File>, limit_bytes: u64) -> Self {
        Self { file, prefix: Prefix::default(), preallocate: Preallocate::new(limit_bytes), failure: None }
    }
}

impl Sink for PlainSink {
    fn kind(&self) -> SinkKind {
        SinkKind::Plain
    }

    fn has_room(&self) -> bool {
        true
    }

    fn submit(&mut self, piece: Piece) {
        if self.failure.is_some() {
            return;
        }
        self.preallocate.reach(&self.file, piece.end());
        self.prefix.begin(piece.end());
        // write_all_at continues short writes and retries EINTR.
        match self.file.write_all_at(piece.bytes(), piece.offset) {
            Ok(()) => self.prefix.complete(piece.end()),
            Err(source) => {
                self.failure = Some(WriteFailure { offset: piece.offset, len: piece.len, source });
            }
        }
    }

    fn reap(&mut self) {}

    fn wait(&mut self, _timeout: Duration) {}

    fn in_flight(&self) -> usize {
        0
    }

    fn completed(&self) -> u64 {
        self.prefix.end()
    }

    fn failure(&self) -> Option<&WriteFailure> {
        self.failure.as_ref()
    }

    fn durable(&self) -> Arc<dyn Durable> {
        Arc::clone(&self.file) as Arc<dyn Durable>
    }
}
