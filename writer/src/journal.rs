//! The journal file beside an open segment: whole records or none.
//!
//! A reader stops at the first record that does not hold, so a torn one must not stay: after a failed
//! write the file is cut back to its last good length. If that fails too, the journal is dead.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;
use tapedeck_index::journal::{self, Start};
use tapedeck_index::rows::FrameRows;
use tapedeck_index::sidecar::FrameMeta;

/// An append-only file of records.
#[derive(Debug)]
pub(crate) struct JournalFile {
    file: Arc<File>,
    len: u64,
    dead: bool,
    /// Records of the next commit.
    records: Vec<u8>,
}

impl JournalFile {
    /// An empty journal.
    pub(crate) fn new(file: File) -> Self {
        Self { file: Arc::new(file), len: 0, dead: false, records: Vec::new() }
    }

    /// The file, for the sync thread.
    pub(crate) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Nothing more goes into it: nobody would find it.
    pub(crate) fn give_up(&mut self) {
        self.dead = true;
    }

    /// Whether it takes no more records.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead
    }

    /// Adds the first record.
    pub(crate) fn start(&mut self, start: &Start) {
        journal::encode_start(&mut self.records, start);
    }

    /// Adds a frame whose bytes are in the file or in tails.
    pub(crate) fn frame(&mut self, meta: &FrameMeta, rows: &FrameRows) {
        journal::encode_frame(&mut self.records, meta, rows);
    }

    /// Adds stored bytes that the file may lack.
    pub(crate) fn tail(&mut self, offset: u64, bytes: &[u8]) {
        journal::encode_tail(&mut self.records, offset, bytes);
    }

    /// Adds raw blocks of a frame that is not recorded.
    pub(crate) fn open_blocks(&mut self, frame: u32, offset: usize, bytes: &[u8]) {
        // A raw frame has at most 16 MiB.
        let offset = u32::try_from(offset).unwrap_or(u32::MAX);
        journal::encode_open_blocks(&mut self.records, frame, offset, bytes);
    }

    /// Forgets the collected records.
    pub(crate) fn discard(&mut self) {
        self.records.clear();
    }

    /// Writes the collected records and forgets them. After an error none of them is in the journal.
    pub(crate) fn commit(&mut self) -> io::Result<()> {
        let result = if self.dead {
            Err(io::Error::from(io::ErrorKind::BrokenPipe))
        } else {
            self.file.write_all_at(&self.records, self.len)
        };
        match &result {
            Ok(()) => self.len += crate::sink::to_u64(self.records.len()),
            Err(_) if !self.dead => self.dead = self.file.set_len(self.len).is_err(),
            Err(_) => {}
        }
        self.records.clear();
        result
    }
}
