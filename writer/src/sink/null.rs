//! The null sink: bytes go nowhere, at once. For measuring what comes before the disk.
//!
//! Must never be what a recording runs on: only a caller of this library can ask for it.

use super::{Durable, Piece, Sink, SinkKind, WriteFailure};
use std::fs::File;
use std::sync::Arc;
use std::time::Duration;

/// Counts bytes.
#[derive(Debug)]
pub(crate) struct NullSink {
    file: Arc<File>,
    end: u64,
}

impl NullSink {
    /// A sink beside `file`, which stays empty until it is cut to its length.
    pub(crate) fn new(file: Arc<File>) -> Self {
        Self { file, end: 0 }
    }
}

impl Sink for NullSink {
    fn kind(&self) -> SinkKind {
        SinkKind::Null
    }

    fn has_room(&self) -> bool {
        true
    }

    fn submit(&mut self, piece: Piece) {
        self.end = piece.end();
    }

    fn reap(&mut self) {}

    fn wait(&mut self, _timeout: Duration) {}

    fn in_flight(&self) -> usize {
        0
    }

    fn completed(&self) -> u64 {
        self.end
    }

    fn failure(&self) -> Option<&WriteFailure> {
        None
    }

    fn durable(&self) -> Arc<dyn Durable> {
        Arc::clone(&self.file) as Arc<dyn Durable>
    }
}
