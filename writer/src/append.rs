//! An append-only file of records: whole records or none.
//!
//! A reader stops at the first record that does not hold, so a torn one must not stay: after a failed
//! write the file is cut back to its last good length. If that fails too, the file is dead.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::sync::Arc;

/// An append-only file.
#[derive(Debug)]
pub(crate) struct AppendFile {
    file: Arc<File>,
    len: u64,
    dead: bool,
}

impl AppendFile {
    /// Appends to an empty file.
    pub(crate) fn new(file: File) -> Self {
        Self { file: Arc::new(file), len: 0, dead: false }
    }

    /// The file, for the sync thread.
    pub(crate) fn file(&self) -> Arc<File> {
        Arc::clone(&self.file)
    }

    /// Bytes appended.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Nothing can be appended any more.
    pub(crate) fn is_dead(&self) -> bool {
        self.dead
    }

    /// Nothing more goes into it: nobody would find it.
    pub(crate) fn give_up(&mut self) {
        self.dead = true;
    }

    /// Appends whole records. After an error none of them is in the file.
    pub(crate) fn append(&mut self, records: &[u8]) -> io::Result<()> {
        if self.dead {
            return Err(io::Error::from(io::ErrorKind::BrokenPipe));
        }
        let result = self.file.write_all_at(records, self.len);
        match &result {
            Ok(()) => self.len += crate::sink::to_u64(records.len()),
            Err(_) => self.dead = self.file.set_len(self.len).is_err(),
        }
        result
    }
}
