//! Reads the files of tables, one by one: the rows of journals as far as they hold, and why a file cannot be read.
//! Queries, recovery and whoever closes the books of the dead read through here.
//!
//! It must never take a damaged file for a whole one, nor one that was just made for a damaged one.

use super::journal::{Replay, ReplayError};
use super::live::{LiveReplay, without_replaced};
use super::{Found, Kind, LiveFound, State, TableError, encode};
use crate::framing::Stop;
use arrow_array::RecordBatch;
use arrow_schema::ArrowError;
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::errors::ParquetError;
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::Path;

/// Why a file of a table cannot be read, or not to its end.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each says what it is")]
pub enum ReadError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("damaged, or no Parquet file: {0}")]
    Parquet(#[from] ParquetError),
    #[error("damaged: {0}")]
    Arrow(#[from] ArrowError),
    #[error("damaged, or no journal: {0}")]
    Journal(#[from] ReplayError),
    #[error("damaged: rows behind the first bad record, at byte {at}, are missing")]
    Cut { at: u64 },
    #[error("damaged: {0}")]
    Table(#[from] TableError),
    #[error("a column is missing")]
    Column,
}

impl ReadError {
    /// The file is not there any more.
    #[must_use]
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Io(error) if error.kind() == ErrorKind::NotFound)
    }

    /// In words, with what is `lost` for it.
    #[must_use]
    pub fn told(&self, lost: &str) -> String {
        if self.is_gone() { "gone while reading".to_owned() } else { format!("{self}; {lost}") }
    }
}

/// The rows of a file.
#[derive(Debug, Default)]
pub struct Rows {
    /// As far as they hold.
    pub batches: Vec<RecordBatch>,
    /// Bytes of the file.
    pub bytes: u64,
    /// Rows from this byte on are missing. A record that was cut is no damage: its writer goes on, or died, and its
    /// last record is not there yet.
    damaged: Option<u64>,
}

impl Rows {
    /// What is missing of them.
    #[must_use]
    pub fn damage(&self) -> Option<ReadError> {
        self.damaged.map(|at| ReadError::Cut { at })
    }

    /// All rows.
    ///
    /// # Errors
    /// Some are missing.
    pub fn whole(self) -> Result<Vec<RecordBatch>, ReadError> {
        self.damage().map_or(Ok(self.batches), Err)
    }

    fn of(
        bytes: usize,
        replay: Result<(Vec<RecordBatch>, usize, Stop), ReplayError>,
    ) -> Result<Self, ReadError> {
        let (batches, good, stop) = match replay {
            Ok(replay) => replay,
            // Just made: it holds nothing yet.
            Err(ReplayError::NoStart(stop)) if stop != Stop::Damaged => (Vec::new(), 0, stop),
            Err(error) => return Err(error.into()),
        };
        let number = |count: usize| u64::try_from(count).unwrap_or(u64::MAX);
        let damaged = (stop == Stop::Damaged).then(|| number(good));
        Ok(Self { batches, bytes: number(bytes), damaged })
    }
}

/// The rows of the journal of an open file.
///
/// # Errors
/// It is gone, cannot be read or is none.
pub fn journal(path: &Path) -> Result<Rows, ReadError> {
    let bytes = fs::read(path)?;
    let replay = Replay::read(&bytes).map(|replay| (replay.batches, replay.good_len, replay.stop));
    Rows::of(bytes.len(), replay)
}

/// The rows of a live journal of `kind`: of what is not over yet, the newest word each.
///
/// # Errors
/// As [`journal`]; one that is gone has ended in order: its rows are in the table.
pub fn live(kind: &Kind, path: &Path) -> Result<Rows, ReadError> {
    let bytes = fs::read(path)?;
    let replay = LiveReplay::read(kind, &bytes);
    Rows::of(bytes.len(), replay.map(|replay| (vec![replay.rows], replay.good_len, replay.stop)))
}

/// The rows of a sealed file: all or none.
///
/// # Errors
/// It is gone or cannot be read.
pub fn sealed(path: &Path) -> Result<Rows, ReadError> {
    let file = File::open(path)?;
    let bytes = file.metadata()?.len();
    let reader = ParquetRecordBatchReaderBuilder::try_new(file)?.build()?;
    Ok(Rows { batches: reader.collect::<Result<_, _>>()?, bytes, damaged: None })
}

/// The rows of a file, open or sealed.
///
/// # Errors
/// As [`journal`] and [`sealed`].
pub fn file(found: &Found) -> Result<Rows, ReadError> {
    match found.state {
        State::Open => journal(&found.path),
        State::Sealed => sealed(&found.path),
    }
}

/// Rows that may replace `open`, the rows of a live journal: those in the journals of its run, among `files`. A live
/// journal that is `damaged` does not say any more which of its rows stand in files: then the sealed ones are asked,
/// too. A damaged file replaces nothing: nobody can read its rows.
///
/// # Errors
/// `open` has no times, or the system does not let a file be read.
pub fn replacing(
    kind: &Kind,
    of: &LiveFound,
    open: &RecordBatch,
    damaged: bool,
    files: &[Found],
) -> Result<Vec<RecordBatch>, ReadError> {
    let (Some(key), Some((first, _))) = (kind.live, encode::extent(kind, open)?) else {
        return Ok(Vec::new());
    };
    let keys = |found: &Found| -> Result<Vec<RecordBatch>, ReadError> {
        let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(&found.path)?)?;
        let mask = ProjectionMask::columns(builder.parquet_schema(), [key.key, key.number]);
        Ok(builder.with_projection(mask).build()?.collect::<Result<_, _>>()?)
    };
    let ours = |found: &&Found| (&found.name.sensor, found.name.run) == (&of.sensor, of.run);
    let mut all = Vec::new();
    for found in files.iter().filter(ours) {
        match found.state {
            State::Open => all.extend(unless_damaged(journal(&found.path).map(|rows| rows.batches))?),
            State::Sealed if damaged && found.name.t1 >= first => all.extend(unless_damaged(keys(found))?),
            State::Sealed => {}
        }
    }
    Ok(all)
}

/// A damaged file has no rows, nor has one that is gone.
fn unless_damaged(rows: Result<Vec<RecordBatch>, ReadError>) -> Result<Vec<RecordBatch>, ReadError> {
    match rows {
        Err(error) if error.is_gone() || !matches!(error, ReadError::Io(_)) => Ok(Vec::new()),
        rows => rows,
    }
}

/// The rows of a live journal that no row in `files` replaces.
///
/// # Errors
/// As [`live`].
pub fn unreplaced(kind: &Kind, of: &LiveFound, files: &[Found]) -> Result<Rows, ReadError> {
    let mut rows = live(kind, &of.path)?;
    let damaged = rows.damaged.is_some();
    if let Some(key) = kind.live {
        for open in &mut rows.batches {
            let table = replacing(kind, of, open, damaged, files)?;
            *open = without_replaced(key, open, table.iter())?;
        }
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::journal::{BatchEncoder, encode_rows, encode_start};
    use crate::table::ledger::{LedgerRow, to_batch};
    use crate::table::{LEDGER, TableName};
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
            (there, rows.whole().map(|batches| batches.len()).map_err(|error| error.to_string()))
        };
        assert_eq!(batches(&bytes), (2, Ok(2)));
        assert_eq!((batches(&[]), batches(&bytes[..start - 1])), ((0, Ok(0)), (0, Ok(0))));
        // Cut: its writer goes on, or died. Its last record is not there yet.
        assert_eq!(batches(&bytes[..bytes.len() - 1]), (1, Ok(1)));
        bytes[first + 20] ^= 1;
        let words = format!("damaged: rows behind the first bad record, at byte {first}, are missing");
        assert_eq!(batches(&bytes), (1, Err(words)));
        bytes[20] ^= 1;
        fs::write(&path, &bytes).unwrap();
        assert!(matches!(journal(&path), Err(ReadError::Journal(_))));
        fs::remove_file(&path).unwrap();
        assert!(journal(&path).unwrap_err().is_gone());
    }
}
