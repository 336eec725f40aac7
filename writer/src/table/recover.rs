//! Recovery of tables: what a dead writer left in journals becomes Parquet files.
//!
//! First each live journal: its rows that no journal of the same run replaces go into one file per slot,
//! numbered by the slot, so that a recovery that is killed and run again makes the same files. Then each
//! journal of an open file. Each journal is removed when its file is durable; a file that is there
//! already was made by whoever died between. Must never: touch a file whose writer lives.

use super::open::publish;
use crate::disk;
use crate::error::FileError;
use crate::recover::{JournalState, RecoverError, RecoverReport};
use arrow_array::RecordBatch;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use tapedeck_index::journal::Stop;
use tapedeck_index::name::hour_folder_of;
use tapedeck_index::table::journal::{Replay, ReplayError};
use tapedeck_index::table::live::{LiveReplay, without_replaced};
use tapedeck_index::table::read::replacing;
use tapedeck_index::table::{
    Found, KINDS, Kind, Listing, LiveFound, State, TableError, TableFile, TableName, encode, list, slot_hour,
};
use tapedeck_packet::Timestamp;

/// Files of rows from a live journal are numbered from here on, by slot.
pub const LIVE_SEQ: u32 = 1 << 31;

/// A journal of a table that was left behind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecoveredTable {
    /// Kind of the table.
    pub kind: &'static str,
    /// The journal.
    pub journal: PathBuf,
    /// The files its rows are in now.
    pub sealed: Vec<PathBuf>,
    /// Rows.
    pub rows: u64,
    /// How the journal was found.
    pub state: JournalState,
    /// Offset behind the last record that holds, and how many bytes were left behind it.
    pub cut: Option<(u64, u64)>,
}

/// Recovers the tables of the store at `store` as far as their locks can be had. Whether a writer was
/// still there: the caller may try again.
pub(crate) fn recover_tables(store: &Path, report: &mut RecoverReport) -> Vec<PathBuf> {
    let mut busy = Vec::new();
    for kind in KINDS {
        recover_kind(kind, store, report, &mut busy);
    }
    busy
}

/// As [`recover_tables`], of one kind.
pub(crate) fn recover_kind(
    kind: &'static Kind,
    store: &Path,
    report: &mut RecoverReport,
    busy: &mut Vec<PathBuf>,
) {
    let listing = match list(kind, &[store.to_owned()], Timestamp::ZERO, None) {
        Ok(listing) => listing,
        Err(error) => return report.errors.push(error.into()),
    };
    let mut locked = |path: &Path, report: &mut RecoverReport| match disk::adopt(path) {
        Ok(Some(lock)) => Some(lock),
        Ok(None) => {
            // Else it has been sealed meanwhile.
            busy.extend(path.exists().then(|| path.to_owned()));
            None
        }
        Err(error) => {
            report.errors.push(error.into());
            None
        }
    };
    let mut orphaned = Vec::new();
    for live in &listing.live {
        let Some(_lock) = locked(&live.path, report) else { continue };
        match recover_live(kind, store, live, &listing) {
            Ok(recovered) => report.tables.push(recovered),
            Err(error) => {
                orphaned.push((live.sensor.clone(), live.run));
                report.errors.push(error);
            }
        }
    }
    // A live journal that could not be read still needs the journals of its run beside it.
    let needed = |name: &TableName| orphaned.contains(&(name.sensor.clone(), name.run));
    for open in listing.files.iter().filter(|f| f.state == State::Open && !needed(&f.name)) {
        let Some(_lock) = locked(&open.path, report) else { continue };
        match recover_open(kind, store, open) {
            Ok(recovered) => report.tables.push(recovered),
            Err(error) => report.errors.push(error),
        }
    }
    if let Err(error) = clean(kind, store, report) {
        report.errors.push(error.into());
    }
}

fn read(path: &Path) -> Result<Vec<u8>, FileError> {
    std::fs::read(path).map_err(FileError::at("read", path))
}

fn state(stop: Stop) -> JournalState {
    match stop {
        Stop::End => JournalState::Whole,
        Stop::Cut => JournalState::Cut,
        Stop::Damaged => JournalState::Damaged,
    }
}

/// What lies behind the last good record; zeros are no loss: a file system may leave them.
fn cut(bytes: &[u8], good: usize) -> Option<(u64, u64)> {
    let rest = bytes.get(good..).unwrap_or_default();
    let lost = rest.iter().rposition(|byte| *byte != 0).map_or(0, |at| at + 1);
    (lost > 0).then(|| (crate::sink::to_u64(good), crate::sink::to_u64(lost)))
}

fn foreign(path: &Path, source: ReplayError) -> RecoverError {
    RecoverError::Table { path: path.to_owned(), source }
}

/// Rows of what was not over when its writer died.
fn recover_live(
    kind: &'static Kind,
    store: &Path,
    live: &LiveFound,
    listing: &Listing,
) -> Result<RecoveredTable, RecoverError> {
    let bytes = read(&live.path)?;
    let mut recovered = RecoveredTable {
        kind: kind.name,
        journal: live.path.clone(),
        sealed: Vec::new(),
        rows: 0,
        state: JournalState::Missing,
        cut: None,
    };
    let replay = match LiveReplay::read(kind, &bytes) {
        Ok(replay) => replay,
        Err(ReplayError::NoStart(Stop::End | Stop::Cut)) => {
            disk::remove(&live.path)?;
            return Ok(recovered);
        }
        Err(source) => return Err(foreign(&live.path, source)),
    };
    let damaged = replay.stop == Stop::Damaged;
    let table = replacing(kind, live, &replay.rows, damaged, &listing.files)
        .map_err(|source| RecoverError::Read { path: live.path.clone(), source })?;
    let rows = match kind.live {
        Some(key) => without_replaced(key, &replay.rows, table.iter()).map_err(TableError::from)?,
        None => replay.rows,
    };
    (recovered.state, recovered.cut) = (state(replay.stop), cut(&bytes, replay.good_len));
    for (slot, part) in encode::by_slot(kind, &rows)?.into_iter().filter(|(_, part)| part.num_rows() > 0) {
        let seq = LIVE_SEQ | u32::try_from(slot).unwrap_or(u32::MAX);
        let name = (live.sensor.clone(), live.run, seq);
        let folder = store.join(hour_folder_of(kind.name, slot_hour(slot)));
        recovered.rows += crate::sink::to_u64(part.num_rows());
        recovered.sealed.push(publish_rows(kind, store, &folder, name, &[part])?);
    }
    disk::remove(&live.path)?;
    Ok(recovered)
}

/// The rows of an open file.
fn recover_open(kind: &'static Kind, store: &Path, open: &Found) -> Result<RecoveredTable, RecoverError> {
    let bytes = read(&open.path)?;
    let replay = match Replay::read(&bytes) {
        Ok(replay) => replay,
        Err(source) => return Err(foreign(&open.path, source)),
    };
    let mut recovered = RecoveredTable {
        kind: kind.name,
        journal: open.path.clone(),
        sealed: Vec::new(),
        rows: replay.batches.iter().map(|batch| crate::sink::to_u64(batch.num_rows())).sum(),
        state: state(replay.stop),
        cut: cut(&bytes, replay.good_len),
    };
    let folder = open.path.parent().unwrap_or(store);
    if recovered.rows > 0 {
        let name = (replay.name.sensor, replay.name.run, replay.name.seq);
        recovered.sealed.push(publish_rows(kind, store, folder, name, &replay.batches)?);
    }
    disk::remove(&open.path)?;
    Ok(recovered)
}

/// A sealed file of these rows; one that is there under this run and number is left as it is.
fn publish_rows(
    kind: &Kind,
    store: &Path,
    folder: &Path,
    (sensor, run, seq): (String, u32, u32),
    batches: &[RecordBatch],
) -> Result<PathBuf, RecoverError> {
    disk::make_folder(folder)?;
    for path in crate::recover::listing(folder)? {
        let there = path.file_name().and_then(OsStr::to_str).and_then(TableName::parse_file);
        if there.is_some_and(|(name, file)| {
            file == TableFile::Sealed && name.key() == (sensor.as_str(), run, seq)
        }) {
            disk::sync_folders(store, folder)?;
            return Ok(path);
        }
    }
    let (mut t0, mut t1) = (Timestamp::MAX, Timestamp::ZERO);
    for batch in batches {
        if let Some((first, last)) = encode::extent(kind, batch)? {
            (t0, t1) = (t0.min(first), t1.max(last));
        }
    }
    let name = TableName { t0, t1, sensor, run, seq };
    publish(kind, store, folder, &name, batches)?;
    Ok(folder.join(name.file(TableFile::Sealed)))
}

/// Removes hidden files that belong to no journal: Parquet files that were being written, journals that
/// were being made.
fn clean(kind: &Kind, store: &Path, report: &mut RecoverReport) -> Result<(), FileError> {
    let top = store.join(kind.name);
    let mut folders = vec![top.clone()];
    for day in crate::recover::listing(&top)? {
        folders.extend(crate::recover::listing(&day)?);
    }
    for folder in folders {
        // Hidden Parquet files first, journals second: a living writer has a journal all the while.
        let files = crate::recover::listing(&folder)?;
        let hidden = |path: &PathBuf| parsed(path).filter(|(_, file)| *file == TableFile::Hidden);
        let written: Vec<PathBuf> = files.iter().filter(|path| hidden(path).is_some()).cloned().collect();
        let journals: Vec<TableName> = crate::recover::listing(&folder)?
            .iter()
            .filter_map(|path| parsed(path))
            .filter(|(_, file)| *file == TableFile::Journal)
            .map(|(name, _)| name)
            .collect();
        let orphan = |path: &PathBuf| {
            hidden(path).is_some_and(|(name, _)| !journals.iter().any(|journal| journal.key() == name.key()))
        };
        let mut removable: Vec<PathBuf> = written.into_iter().filter(orphan).collect();
        for path in files {
            let new = path.extension().and_then(OsStr::to_str) == Some(disk::NEW_EXTENSION);
            if new && crate::recover::is_hidden(&path) && disk::adopt(&path)?.is_some() {
                removable.push(path);
            }
        }
        for path in removable {
            disk::remove(&path)?;
            report.removed.push(path);
        }
    }
    Ok(())
}

fn parsed(path: &Path) -> Option<(TableName, TableFile)> {
    path.file_name().and_then(OsStr::to_str).and_then(TableName::parse_file)
}
