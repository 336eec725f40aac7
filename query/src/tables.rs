//! Files of tables, one by one: the rows of journals as far as they hold, and why a file cannot be read. Sessions,
//! statistics, the ledger and SQL read through here.
//!
//! Rows only ever move forward: live journal, journal, sealed file. A file that is gone has moved on, or was removed.
//! It must never take a damaged file for a whole one, nor one that was just made for a damaged one.

use crate::segment::len64;
use arrow_array::RecordBatch;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use tapedeck_index::catalog::CatalogError;
use tapedeck_index::journal::Stop;
use tapedeck_index::table::journal::{Replay, ReplayError};
use tapedeck_index::table::live::LiveReplay;
use tapedeck_index::table::{Found, Kind, Listing, State};

/// Something that went wrong with a file.
#[derive(Debug)]
pub struct FileTrouble {
    /// The file.
    pub path: PathBuf,
    /// What, and what to do about it.
    pub what: String,
}

/// Why a file of a table cannot be read, or not to its end.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("damaged, or no Parquet file: {0}")]
    Parquet(#[from] parquet::errors::ParquetError),
    #[error("damaged: {0}")]
    Arrow(#[from] arrow_schema::ArrowError),
    #[error("damaged, or no journal: {0}")]
    Journal(#[from] ReplayError),
    #[error("damaged: rows behind the first bad record are missing")]
    Cut,
    #[error("damaged: {0}")]
    Table(#[from] tapedeck_index::table::TableError),
    #[error("a column is missing")]
    Column,
}

impl ReadError {
    /// The file is not there any more.
    pub(crate) fn is_gone(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == ErrorKind::NotFound)
    }

    /// In words, with what is `lost` for it.
    pub(crate) fn told(&self, lost: &str) -> String {
        if self.is_gone() { "gone while reading".to_owned() } else { format!("{self}; {lost}") }
    }
}

/// The rows of a journal.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    /// As far as they hold.
    pub(crate) batches: Vec<RecordBatch>,
    /// Bytes of the journal.
    pub(crate) bytes: u64,
    /// Rows behind these are missing. One that was cut is none: its writer goes on, or died, and its last record is
    /// not there yet.
    damaged: bool,
}

impl Rows {
    /// What is missing of them.
    pub(crate) fn damage(&self) -> Option<ReadError> {
        self.damaged.then_some(ReadError::Cut)
    }

    /// All rows.
    ///
    /// # Errors
    /// Some are missing.
    pub(crate) fn whole(self) -> Result<Vec<RecordBatch>, ReadError> {
        self.damage().map_or(Ok(self.batches), Err)
    }

    fn of(bytes: usize, replay: Result<(Vec<RecordBatch>, Stop), ReplayError>) -> Result<Self, ReadError> {
        let (batches, stop) = match replay {
            Ok(replay) => replay,
            // Just made: it holds nothing yet.
            Err(ReplayError::NoStart(stop)) if stop != Stop::Damaged => (Vec::new(), stop),
            Err(error) => return Err(error.into()),
        };
        Ok(Self { batches, bytes: len64(bytes), damaged: stop == Stop::Damaged })
    }
}

/// The rows of the journal of an open file.
///
/// # Errors
/// It is gone, cannot be read or is none.
pub(crate) fn journal(path: &Path) -> Result<Rows, ReadError> {
    let bytes = fs::read(path)?;
    Rows::of(bytes.len(), Replay::read(&bytes).map(|replay| (replay.batches, replay.stop)))
}

/// The rows of a live journal of `kind`: of what is not over yet, the newest word each.
///
/// # Errors
/// As [`journal`]; one that is gone has ended in order: its rows are in the table.
pub(crate) fn live(kind: &Kind, path: &Path) -> Result<Rows, ReadError> {
    let bytes = fs::read(path)?;
    Rows::of(bytes.len(), LiveReplay::read(kind, &bytes).map(|replay| (vec![replay.rows], replay.stop)))
}

/// Reads a file. One that was sealed meanwhile is looked for once more.
pub(crate) fn following<T>(
    found: &Found,
    find: &impl Fn() -> Result<Listing, CatalogError>,
    mut read: impl FnMut(&Found) -> Result<T, ReadError>,
) -> Result<T, ReadError> {
    match read(found) {
        Err(gone) if gone.is_gone() && found.state == State::Open => {
            let files = find().map(|listing| listing.files).unwrap_or_default();
            let again = files.into_iter().find(|other| other.name.key() == found.name.key());
            again.map_or(Err(gone), |found| read(&found))
        }
        result => result,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapedeck_index::table::journal::{BatchEncoder, encode_rows, encode_start};
    use tapedeck_index::table::ledger::{LedgerRow, to_batch};
    use tapedeck_index::table::{LEDGER, TableName};
    use tapedeck_packet::Timestamp;

    #[test]
    fn a_journal_that_is_damaged_is_not_taken_for_a_whole_one() {
        let batch = to_batch(&[LedgerRow::default()]).unwrap();
        let (mut encoder, head) = BatchEncoder::new(&batch.schema()).unwrap();
        let t0 = Timestamp::ZERO;
        let name = TableName { t0, t1: t0, sensor: "s".to_owned(), run: 7, seq: 0 };
        let mut bytes = Vec::new();
        encode_start(&mut bytes, LEDGER.name, &name, &head);
        let start = bytes.len();
        encode_rows(&mut bytes, &encoder.encode(&batch).unwrap());
        let first = bytes.len();
        encode_rows(&mut bytes, &encoder.encode(&batch).unwrap());
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let batches = |bytes: &[u8]| {
            fs::write(&path, bytes).unwrap();
            let rows = journal(&path).unwrap();
            let there = rows.batches.len();
            (there, rows.whole().ok().map(|batches| batches.len()))
        };
        assert_eq!(batches(&bytes), (2, Some(2)));
        assert_eq!((batches(&[]), batches(&bytes[..start - 1])), ((0, Some(0)), (0, Some(0))));
        // Cut: its writer goes on, or died. Its last record is not there yet.
        assert_eq!(batches(&bytes[..bytes.len() - 1]), (1, Some(1)));
        bytes[first + 20] ^= 1;
        assert_eq!(batches(&bytes), (1, None));
        bytes[20] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(journal(&path), Err(ReadError::Journal(_))));
        fs::remove_file(&path).unwrap();
        assert!(journal(&path).unwrap_err().is_gone());
    }
}
