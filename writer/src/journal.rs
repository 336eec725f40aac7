//! The journal file beside an open segment.

use crate::append::AppendFile;
use std::fs::File;
use std::io;
use std::sync::Arc;
use tapedeck_index::journal::{self, Start};
use tapedeck_index::rows::FrameRows;
use tapedeck_index::sidecar::FrameMeta;

/// An append-only file of records.
#[derive(Debug)]
pub(crate) struct JournalFile {
    file: AppendFile,
    /// Records of the next commit.
    records: Vec<u8>,
}

impl JournalFile {
    /// An empty journal.
    pub(crate) fn new(file: File) -> Self {
        Self { file: AppendFile::new(file), records: Vec::new() }
    }

    /// The file, for the sync thread.
    pub(crate) fn file(&self) -> Arc<File> {
        self.file.file()
    }

    /// Nothing more goes into it: nobody would find it.
    pub(crate) fn give_up(&mut self) {
        self.file.give_up();
    }

    /// Whether it takes no more records.
    pub(crate) fn is_dead(&self) -> bool {
        self.file.is_dead()
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
        let result = self.file.append(&self.records);
        self.records.clear();
        result
    }
}
