//! The rows of a table in a range of time: Parquet files and journals, batch by batch.
//!
//! Row groups that cannot hold an overlapping row, by the times in their statistics, or none of the keys
//! asked for, by their Bloom filters, are not read. A file that is gone or damaged is told, with the span it
//! would have covered, and the others are read.

use crate::range::{Span, TimeRange};
use crate::tables::{self, FileTrouble, ReadError};
use crate::verdict::{Cause, Gap};
use arrow_array::RecordBatch;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;
use std::collections::HashSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use tapedeck_index::catalog::CatalogError;
use tapedeck_index::table::{Found, Kind, LiveFound, State, encode, list};
use tapedeck_packet::Timestamp;

/// Rows of a batch.
const BATCH_ROWS: usize = 8192;
/// How often the table is listed again because a file moved.
const LISTINGS_MAX: u32 = 5;

/// A key that a matching row must hold in one of some columns, for Bloom filters.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Need {
    /// Columns, one of which holds the key.
    pub columns: Vec<&'static str>,
    /// The key's bytes.
    pub key: Vec<u8>,
}

/// What was read, beside the rows.
#[derive(Debug, Default)]
pub struct Read {
    /// Files and journals read.
    pub files: u64,
    /// Row groups read, of how many.
    pub groups: (u64, u64),
    /// Bytes read from disk.
    pub bytes: u64,
    /// Spans of the files read.
    pub asked: Vec<Span>,
    /// Where rows may be missing.
    pub gaps: Vec<Gap>,
    /// What went wrong.
    pub troubles: Vec<FileTrouble>,
}

/// Live rows of `kind`: what is not over yet, newest word each. Read these before the table: rows move from
/// here to there.
///
/// # Errors
/// A folder cannot be listed.
pub fn live(
    kind: &Kind,
    stores: &[PathBuf],
    range: &TimeRange,
    read: &mut Read,
) -> Result<Vec<RecordBatch>, CatalogError> {
    let listing = list(kind, stores, range.from, range.to)?;
    Ok(listing.live.iter().filter_map(|found| live_rows(kind, found, read)).collect())
}

fn live_rows(kind: &Kind, found: &LiveFound, read: &mut Read) -> Option<RecordBatch> {
    let rows = match tables::live(kind, &found.path) {
        Ok(rows) => rows,
        // Its writer has ended: everything is in the table.
        Err(error) if error.is_gone() => return None,
        Err(error) => {
            read.troubles.push(FileTrouble { path: found.path.clone(), what: error.to_string() });
            return None;
        }
    };
    read.bytes += rows.bytes;
    if let Some(damage) = rows.damage() {
        read.troubles.push(FileTrouble { path: found.path.clone(), what: damage.to_string() });
    }
    rows.batches.into_iter().next()
}

/// Gives every batch of `kind` with rows that may overlap `range` and hold all `needs` to `take`. A `take`
/// that says false ends it.
///
/// # Errors
/// A folder cannot be listed.
pub fn table(
    kind: &Kind,
    stores: &[PathBuf],
    range: &TimeRange,
    needs: &[Need],
    read: &mut Read,
    take: &mut dyn FnMut(&RecordBatch) -> bool,
) -> Result<(), CatalogError> {
    let mut done: HashSet<(String, u32, u32)> = HashSet::new();
    for left in (0..LISTINGS_MAX).rev() {
        let mut moved = false;
        for found in list(kind, stores, range.from, range.to)?.files {
            let (sensor, run, seq) = found.name.key();
            let key = (sensor.to_owned(), run, seq);
            if done.contains(&key) {
                continue;
            }
            let asked = Asked { kind, range, needs };
            match asked.file(&found, read, take) {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                // Sealed meanwhile, or removed by retention: list again.
                Err(error) if error.is_gone() && left > 0 => {
                    moved = true;
                    continue;
                }
                Err(error) => missing(&found, &error, range, read),
            }
            done.insert(key);
        }
        if !moved {
            break;
        }
    }
    Ok(())
}

/// Tells of a file that could not be read to its end.
fn missing(found: &Found, error: &ReadError, range: &TimeRange, read: &mut Read) {
    let cause = match error {
        error if error.is_gone() => Cause::Vanished,
        ReadError::Io(_) => Cause::Unreadable,
        _ => Cause::CorruptFile,
    };
    read.troubles.push(FileTrouble { path: found.path.clone(), what: error.to_string() });
    // An open file may hold anything of its slot.
    let last = match found.state {
        State::Sealed => found.name.t1,
        State::Open => found.hour.end(),
    };
    if let Some(span) = Span::of_packets(found.name.t0, last).within(range) {
        read.gaps.push(Gap { span, cause, packets: None });
    }
}

/// What is asked of each file.
#[derive(Clone, Copy)]
struct Asked<'a> {
    kind: &'a Kind,
    range: &'a TimeRange,
    needs: &'a [Need],
}

impl Asked<'_> {
    fn file(
        &self,
        found: &Found,
        read: &mut Read,
        take: &mut dyn FnMut(&RecordBatch) -> bool,
    ) -> Result<bool, ReadError> {
        read.files += 1;
        match found.state {
            State::Sealed => {
                read.asked.push(Span::of_packets(found.name.t0, found.name.t1));
                self.sealed(&found.path, read, take)
            }
            State::Open => self.journal(&found.path, read, take),
        }
    }

    fn journal(
        &self,
        path: &Path,
        read: &mut Read,
        take: &mut dyn FnMut(&RecordBatch) -> bool,
    ) -> Result<bool, ReadError> {
        let rows = tables::journal(path)?;
        read.bytes += rows.bytes;
        for batch in &rows.batches {
            if let Ok(Some((t0, t1))) = encode::extent(self.kind, batch) {
                read.asked.push(Span::of_packets(t0, t1));
            }
            if !take(batch) {
                return Ok(false);
            }
        }
        rows.whole().map(|_| true)
    }

    fn sealed(
        &self,
        path: &Path,
        read: &mut Read,
        take: &mut dyn FnMut(&RecordBatch) -> bool,
    ) -> Result<bool, ReadError> {
        let options = ArrowReaderOptions::new();
        let mut builder = ParquetRecordBatchReaderBuilder::try_new_with_options(File::open(path)?, options)?;
        let mut groups = Vec::new();
        for at in 0..builder.metadata().num_row_groups() {
            read.groups.1 += 1;
            if self.group(&mut builder, at)? {
                groups.push(at);
                let bytes = builder.metadata().row_group(at).compressed_size();
                read.bytes += u64::try_from(bytes).unwrap_or(0);
            }
        }
        read.groups.0 += crate::segment::len64(groups.len());
        let reader = builder.with_row_groups(groups).with_batch_size(BATCH_ROWS).build()?;
        for batch in reader {
            if !take(&batch?) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Whether a row group may hold a row that is asked for.
    fn group(
        &self,
        builder: &mut ParquetRecordBatchReaderBuilder<File>,
        at: usize,
    ) -> Result<bool, ReadError> {
        let group = builder.metadata().row_group(at).clone();
        let first = times(&group, self.kind.start).map(|(min, _)| min);
        let last = times(&group, self.kind.end).map(|(_, max)| max);
        if let (Some(first), Some(last)) = (first, last)
            && !self.range.overlaps(first, last)
        {
            return Ok(false);
        }
        for need in self.needs {
            let mut possible = false;
            for name in &need.columns {
                possible |= match leaf(&group, name) {
                    Some(column) => builder
                        .get_row_group_column_bloom_filter(at, column)?
                        .is_none_or(|bloom| bloom.check(need.key.as_slice())),
                    None => true,
                };
            }
            if !possible {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// Number of a column among the leaves of a row group.
fn leaf(group: &RowGroupMetaData, name: &str) -> Option<usize> {
    group.columns().iter().position(|column| column.column_path().string() == name)
}

/// Smallest and largest value of a column of times.
fn times(group: &RowGroupMetaData, name: &str) -> Option<(Timestamp, Timestamp)> {
    match group.column(leaf(group, name)?).statistics()? {
        Statistics::Int64(values) => {
            Some((encode::time(*values.min_opt()?), encode::time(*values.max_opt()?)))
        }
        _ => None,
    }
}
