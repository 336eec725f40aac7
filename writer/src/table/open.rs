//! One open file of a table: its rows in memory and in its journal, until they are a Parquet file.

use super::TableWriteError;
use crate::append::AppendFile;
use crate::disk;
use crate::error::FileError;
use arrow_array::RecordBatch;
use arrow_schema::Schema;
use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::time::Instant;
use tapedeck_index::name::hour_folder_of;
use tapedeck_index::table::journal::{self, BatchEncoder};
use tapedeck_index::table::{Kind, TableError, TableFile, TableName, encode, slot_hour};
use tapedeck_packet::Timestamp;

/// Bytes that the Parquet encoder collects before a write.
const WRITE_BYTES: usize = 1 << 20;

/// An open file.
#[derive(Debug)]
pub(super) struct OpenTable {
    slot: u64,
    folder: PathBuf,
    /// As its journal is called.
    name: TableName,
    extent: (Timestamp, Timestamp),
    opened: Instant,
    encoder: BatchEncoder,
    batches: Vec<RecordBatch>,
    rows: usize,
    /// Rows that are in no journal yet.
    uncommitted: usize,
    /// Records of the next commit.
    records: Vec<u8>,
    journal: Option<AppendFile>,
    /// The journal's name has not been made durable yet.
    fresh: bool,
}

impl OpenTable {
    /// A file without rows, nothing on disk yet.
    pub(super) fn new(
        kind: &Kind,
        store: &Path,
        slot: u64,
        name: TableName,
        schema: &Schema,
        opened: Instant,
    ) -> Result<Self, TableWriteError> {
        let (encoder, head) = BatchEncoder::new(schema).map_err(TableError::from)?;
        let mut records = Vec::new();
        journal::encode_start(&mut records, kind.name, &name, &head);
        Ok(Self {
            slot,
            folder: store.join(hour_folder_of(kind.name, slot_hour(slot))),
            extent: (name.t0, name.t1),
            name,
            opened,
            encoder,
            batches: Vec::new(),
            rows: 0,
            uncommitted: 0,
            records,
            journal: None,
            fresh: true,
        })
    }

    pub(super) fn seq(&self) -> u32 {
        self.name.seq
    }

    pub(super) fn slot(&self) -> u64 {
        self.slot
    }

    pub(super) fn opened(&self) -> Instant {
        self.opened
    }

    pub(super) fn rows(&self) -> usize {
        self.rows
    }

    /// Rows that are in memory alone.
    pub(super) fn uncommitted_rows(&self) -> usize {
        self.uncommitted
    }

    pub(super) fn journal_is_dead(&self) -> bool {
        self.journal.as_ref().is_some_and(AppendFile::is_dead)
    }

    fn path(&self, kind: TableFile) -> PathBuf {
        self.folder.join(self.name.file(kind))
    }

    /// Takes rows of this slot.
    pub(super) fn push(&mut self, kind: &Kind, batch: &RecordBatch) -> Result<(), TableWriteError> {
        let message = self.encoder.encode(batch).map_err(TableError::from)?;
        if let Some((t0, t1)) = encode::extent(kind, batch)? {
            self.extent = (self.extent.0.min(t0), self.extent.1.max(t1));
        }
        journal::encode_rows(&mut self.records, &message);
        self.batches.push(batch.clone());
        self.rows += batch.num_rows();
        self.uncommitted += batch.num_rows();
        Ok(())
    }

    /// Appends what is new to the journal, which is made when there is something to put in it.
    pub(super) fn commit(&mut self) -> Result<(), TableWriteError> {
        if self.uncommitted == 0 {
            return Ok(());
        }
        match &mut self.journal {
            Some(journal) => {
                journal
                    .append(&self.records)
                    .map_err(FileError::at("append to", &self.path(TableFile::Journal)))?;
            }
            None => self.journal = Some(self.make_journal()?),
        }
        self.records.clear();
        self.uncommitted = 0;
        Ok(())
    }

    /// A journal appears under its name only when it is locked and its first rows are in it.
    fn make_journal(&self) -> Result<AppendFile, FileError> {
        let path = self.path(TableFile::Journal);
        let new = path.with_extension(disk::NEW_EXTENSION);
        disk::make_folder(&self.folder)?;
        // Nobody else can be at this name: it holds our run and number.
        disk::remove(&new)?;
        let mut file = AppendFile::new(disk::create_locked(&new, false)?);
        file.append(&self.records).map_err(FileError::at("append to", &new))?;
        disk::rename_new(&new, &path)?;
        Ok(file)
    }

    /// Makes what was committed durable.
    pub(super) fn sync(&mut self, store: &Path) -> Result<(), FileError> {
        let Some(journal) = &self.journal else { return Ok(()) };
        journal.file().sync_data().map_err(FileError::at("sync", &self.path(TableFile::Journal)))?;
        if self.fresh {
            disk::sync_folders(store, &self.folder)?;
            self.fresh = false;
        }
        Ok(())
    }

    /// Makes the Parquet file of all rows, visible and durable, and removes the journal. Done again after
    /// a failure it goes on where it stopped.
    pub(super) fn seal(&mut self, kind: &Kind, store: &Path) -> Result<encode::Encoded, TableWriteError> {
        let name = TableName { t0: self.extent.0, t1: self.extent.1, ..self.name.clone() };
        disk::make_folder(&self.folder)?;
        let encoded = publish(kind, store, &self.folder, &name, &self.batches)?;
        disk::remove(&self.path(TableFile::Journal))?;
        Ok(encoded)
    }
}

/// Writes `batches` as the file `name` in `folder`: hidden, synced, renamed, the folders synced. A file
/// that is there already is ours, made by an attempt that failed behind the rename.
pub(super) fn publish(
    kind: &Kind,
    store: &Path,
    folder: &Path,
    name: &TableName,
    batches: &[RecordBatch],
) -> Result<encode::Encoded, TableWriteError> {
    let sealed = folder.join(name.file(TableFile::Sealed));
    let encoded = if sealed.exists() {
        let rows = batches.iter().map(RecordBatch::num_rows).sum();
        let bytes = std::fs::metadata(&sealed).map_err(FileError::at("stat", &sealed))?.len();
        encode::Encoded { rows: crate::sink::to_u64(rows), bytes }
    } else {
        let hidden = folder.join(name.file(TableFile::Hidden));
        let encoded = write_hidden(kind, &hidden, batches)?;
        disk::rename_new(&hidden, &sealed)?;
        encoded
    };
    disk::sync_folders(store, folder)?;
    Ok(encoded)
}

fn write_hidden(
    kind: &Kind,
    hidden: &Path,
    batches: &[RecordBatch],
) -> Result<encode::Encoded, TableWriteError> {
    let file = File::create(hidden).map_err(FileError::at("create", hidden))?;
    let mut out = BufWriter::with_capacity(WRITE_BYTES, &file);
    let encoded = encode::write(kind, batches, &mut out)?;
    out.flush().map_err(FileError::at("write", hidden))?;
    drop(out);
    file.sync_all().map_err(FileError::at("sync", hidden))?;
    Ok(encoded)
}
