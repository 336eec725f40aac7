//! The tables of a store, read with the parquet crate.

use crate::tools::files_with;
use arrow_array::cast::AsArray as _;
use arrow_array::types::Int64Type;
use arrow_array::{Array as _, RecordBatch};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::fs::File;
use std::path::Path;

/// All rows of a kind, `sessions` or `stats`.
pub(crate) fn rows(store: &Path, kind: &str) -> Vec<RecordBatch> {
    let folder = store.join(kind);
    if !folder.is_dir() {
        return Vec::new();
    }
    let open = |path| ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    let files = files_with(&folder, ".parquet").into_iter();
    files.flat_map(|path| open(path).build().unwrap()).map(Result::unwrap).collect()
}

/// A counter of a row; null counts as 0.
pub(crate) fn number(batch: &RecordBatch, column: &str, row: usize) -> i64 {
    let array = batch.column_by_name(column).unwrap().as_primitive::<Int64Type>();
    if array.is_null(row) { 0 } else { array.value(row) }
}

/// A text of a row.
pub(crate) fn text<'b>(batch: &'b RecordBatch, column: &str, row: usize) -> Option<&'b str> {
    let array = batch.column_by_name(column).unwrap().as_string::<i32>();
    (!array.is_null(row)).then(|| array.value(row))
}

/// Packets as the tables count them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Packets {
    /// In sessions that travel in no other.
    pub(crate) in_sessions: i64,
    /// Of these, said to be in the store.
    pub(crate) stored: i64,
    /// In the minutes.
    pub(crate) in_minutes: i64,
    /// Of these, without an IP header.
    pub(crate) not_ip: i64,
}

impl Packets {
    pub(crate) fn of(store: &Path) -> Self {
        let mut sum = Self::default();
        for batch in rows(store, "sessions") {
            for row in (0..batch.num_rows()).filter(|row| text(&batch, "parent_uid", *row).is_none()) {
                sum.in_sessions += number(&batch, "orig_pkts", row) + number(&batch, "resp_pkts", row);
                sum.stored += number(&batch, "stored_pkts", row);
            }
        }
        for batch in rows(store, "stats") {
            let total = |row: &usize| text(&batch, "dimension", *row) == Some("total");
            for row in (0..batch.num_rows()).filter(total) {
                sum.in_minutes += number(&batch, "packets", row);
                sum.not_ip += number(&batch, "non_ip_packets", row);
            }
        }
        sum
    }
}
