//! The live journal of a writer: one file in the kind's folder, made anew when it has grown.

use super::{TableConfig, TableWriteError};
use crate::append::AppendFile;
use crate::disk;
use crate::error::FileError;
use arrow_array::RecordBatch;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tapedeck_index::table::journal::BatchEncoder;
use tapedeck_index::table::live::{self, LiveReplay};
use tapedeck_index::table::{Kind, LiveKey, TableError, live_file};

/// Bytes that a live journal may grow before it is made anew, beyond twice what it began with.
const GROWTH: u64 = 8 << 20;

/// The rows of what is not over yet.
#[derive(Debug)]
pub(super) struct LiveJournal {
    kind: &'static Kind,
    key: LiveKey,
    sensor: String,
    run: u32,
    path: PathBuf,
    file: Option<AppendFile>,
    /// Bytes it began with.
    base: u64,
    encoder: Option<BatchEncoder>,
    records: Vec<u8>,
    /// Keys with a row in the journal, and its number.
    known: HashMap<Box<str>, u32>,
    fresh: bool,
}

impl LiveJournal {
    /// A live journal; nothing on disk before there are rows.
    pub(super) fn new(kind: &'static Kind, key: LiveKey, config: &TableConfig) -> Self {
        Self {
            kind,
            key,
            sensor: config.sensor.clone(),
            run: config.run,
            path: config.store.join(kind.name).join(live_file(&config.sensor, config.run)),
            file: None,
            base: 0,
            encoder: None,
            records: Vec::new(),
            known: HashMap::new(),
            fresh: true,
        }
    }

    /// Rows of what is not over yet.
    pub(super) fn rows(&mut self, batch: &RecordBatch) -> Result<(), TableWriteError> {
        let Some((keys, numbers)) = live::keys(self.key, batch).filter(|_| batch.num_rows() > 0) else {
            return Ok(());
        };
        let message = match &mut self.encoder {
            Some(encoder) => encoder.encode(batch).map_err(TableError::from)?,
            None => {
                let (mut encoder, head) = BatchEncoder::new(&batch.schema()).map_err(TableError::from)?;
                live::encode_start(&mut self.records, self.kind.name, &self.sensor, self.run, &head);
                let message = encoder.encode(batch).map_err(TableError::from)?;
                self.encoder = Some(encoder);
                message
            }
        };
        live::encode_rows(&mut self.records, &message);
        for (key, number) in keys.iter().zip(numbers.values()) {
            self.known.insert(key.unwrap_or_default().into(), *number);
        }
        Ok(())
    }

    /// Rows of the table: they replace those of the same keys here.
    pub(super) fn gone(&mut self, batch: &RecordBatch) {
        let Some((keys, numbers)) = live::keys(self.key, batch) else { return };
        let gone: Vec<(&str, u32)> = keys
            .iter()
            .zip(numbers.values())
            .filter_map(|(key, number)| Some((key?, *number)))
            .filter(|(key, number)| self.known.get(*key).is_some_and(|known| known <= number))
            .collect();
        if gone.is_empty() {
            return;
        }
        live::encode_gone(&mut self.records, gone.iter().copied());
        for (key, _) in gone {
            self.known.remove(key);
        }
    }

    /// Appends what is new, and makes the journal anew when it has grown enough.
    pub(super) fn commit(&mut self) -> Result<(), TableWriteError> {
        if self.records.is_empty() {
            return Ok(());
        }
        match &mut self.file {
            Some(file) => file.append(&self.records).map_err(FileError::at("append to", &self.path))?,
            None => self.file = Some(make(&self.path, &self.records)?),
        }
        self.records.clear();
        if self.file.as_ref().is_some_and(|file| file.len() > 2 * self.base + GROWTH) {
            self.renew()?;
        }
        Ok(())
    }

    /// Makes a new journal of the rows that nothing has replaced, in the place of the old one.
    fn renew(&mut self) -> Result<(), TableWriteError> {
        let bytes = std::fs::read(&self.path).map_err(FileError::at("read", &self.path))?;
        let unreadable = |error| FileError::at("read", &self.path)(std::io::Error::other(error));
        let replay = LiveReplay::read(self.kind, &bytes).map_err(unreadable)?;
        let mut records = Vec::new();
        let (mut encoder, head) = BatchEncoder::new(&replay.rows.schema()).map_err(TableError::from)?;
        live::encode_start(&mut records, self.kind.name, &self.sensor, self.run, &head);
        let message = encoder.encode(&replay.rows).map_err(TableError::from)?;
        live::encode_rows(&mut records, &message);
        let file = make(&self.path, &records)?;
        self.base = file.len();
        (self.file, self.encoder, self.fresh) = (Some(file), Some(encoder), true);
        Ok(())
    }

    /// Makes what was committed durable.
    pub(super) fn sync(&mut self, store: &Path) -> Result<(), FileError> {
        let Some(file) = &self.file else { return Ok(()) };
        file.file().sync_data().map_err(FileError::at("sync", &self.path))?;
        if self.fresh {
            disk::sync_folders(store, self.path.parent().unwrap_or(store))?;
            self.fresh = false;
        }
        Ok(())
    }

    /// Ends the journal. With rows left it stays, for recovery to make table rows of.
    pub(super) fn finish(self) -> Result<(), TableWriteError> {
        if self.known.is_empty() && self.file.is_some() {
            disk::remove(&self.path)?;
        }
        Ok(())
    }
}

/// A locked journal of `records` at `path`, in the place of what was there.
fn make(path: &Path, records: &[u8]) -> Result<AppendFile, FileError> {
    let new = path.with_extension(disk::NEW_EXTENSION);
    if let Some(folder) = path.parent() {
        disk::make_folder(folder)?;
    }
    // Nobody else can be at this name: it holds our run.
    disk::remove(&new)?;
    let mut file = AppendFile::new(disk::create_locked(&new, false)?);
    file.append(records).map_err(FileError::at("append to", &new))?;
    // Before the rename: the old one is as durable as it is until the new one is too.
    file.file().sync_data().map_err(FileError::at("sync", &new))?;
    std::fs::rename(&new, path).map_err(FileError::at("rename to", path))?;
    Ok(file)
}
