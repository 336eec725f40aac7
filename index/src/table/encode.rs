//! Rows to Parquet: zstd, row groups in order of time, page index, Bloom filters.
//!
//! The bytes are a pure function of the rows and their order: recovery makes the file that the writer
//! would have made.

use super::{Kind, TableError, TableName, slot};
use arrow_array::cast::AsArray as _;
use arrow_array::types::TimestampNanosecondType;
use arrow_array::{Array as _, RecordBatch, TimestampNanosecondArray, UInt32Array};
use arrow_ord::sort::{SortColumn, lexsort_to_indices};
use arrow_schema::ArrowError;
use arrow_select::concat::concat_batches;
use arrow_select::take::take_record_batch;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::ParquetError;
use parquet::file::metadata::{KeyValue, SortingColumn};
use parquet::file::properties::{EnabledStatistics, WriterProperties, WriterVersion};
use parquet::schema::types::ColumnPath;
use std::collections::BTreeMap;
use std::io::{self, Write};
use tapedeck_packet::Timestamp;
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Rows of a row group at most: as many as DuckDB puts in one, and fine enough to prune a file by time.
pub const GROUP_ROWS: usize = 122_880;
/// Rows of a page at most.
const PAGE_ROWS: usize = 20_000;
/// Wrong answers of a Bloom filter, as a fraction.
const BLOOM_FPP: f64 = 0.01;
/// Level of zstd: sessions are some hundredth of the traffic, so the better ratio is cheap.
const ZSTD_LEVEL: i32 = 3;

/// Key in a file's metadata: how many bytes its row groups end behind, and the XXH3-64 of those, in hexadecimal.
pub const SUM_KEY: &str = "tapedeck.xxh3";

/// What a file of rows turned out to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded {
    /// Rows.
    pub rows: u64,
    /// Bytes.
    pub bytes: u64,
}

/// The times of a batch: first and last time of each row.
///
/// # Errors
/// [`TableError::NoTime`] where a column is missing, of another type, or null.
pub fn times<'a>(
    kind: &Kind,
    batch: &'a RecordBatch,
) -> Result<(&'a TimestampNanosecondArray, &'a TimestampNanosecondArray), TableError> {
    let column = |column| {
        batch
            .column_by_name(column)
            .and_then(|array| array.as_primitive_opt::<TimestampNanosecondType>())
            .filter(|array| array.null_count() == 0)
            .ok_or(TableError::NoTime { table: kind.name, column })
    };
    Ok((column(kind.start)?, column(kind.end)?))
}

/// A time of a column. Times are below 2^63 by type; a negative one reads as the epoch.
#[must_use]
pub fn time(nanos: i64) -> Timestamp {
    Timestamp::from_nanos_saturating(u64::try_from(nanos).unwrap_or(0))
}

/// Smallest first and largest last time of a batch; `None` without rows.
///
/// # Errors
/// As [`times`].
pub fn extent(kind: &Kind, batch: &RecordBatch) -> Result<Option<(Timestamp, Timestamp)>, TableError> {
    let (start, end) = times(kind, batch)?;
    let first = start.values().iter().min().copied().map(time);
    Ok(first.zip(end.values().iter().max().copied().map(time)))
}

/// The rows of a batch by the slot of their last time.
///
/// # Errors
/// As [`times`].
pub fn by_slot(kind: &Kind, batch: &RecordBatch) -> Result<BTreeMap<u64, RecordBatch>, TableError> {
    let (_, end) = times(kind, batch)?;
    let mut rows: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
    for (row, nanos) in (0u32..).zip(end.values()) {
        rows.entry(slot(time(*nanos))).or_default().push(row);
    }
    if rows.len() == 1 {
        return Ok(rows.into_keys().map(|slot| (slot, batch.clone())).collect());
    }
    let part =
        |(slot, rows): (u64, Vec<u32>)| Ok((slot, take_record_batch(batch, &UInt32Array::from(rows))?));
    rows.into_iter().map(part).collect()
}

/// All rows in one batch, sorted as the kind sorts them. Rows of equal keys keep their order.
///
/// # Errors
/// [`TableError`] where the batches do not fit each other.
pub fn sorted(kind: &Kind, batches: &[RecordBatch]) -> Result<RecordBatch, TableError> {
    let schema = batches.first().map_or_else(|| kind.schema(), RecordBatch::schema);
    let all = concat_batches(&schema, batches)?;
    let columns: Vec<SortColumn> = kind
        .sort
        .iter()
        .filter_map(|name| all.column_by_name(name))
        .map(|values| SortColumn { values: values.clone(), options: None })
        .collect();
    if columns.is_empty() || all.num_rows() < 2 {
        return Ok(all);
    }
    Ok(take_record_batch(&all, &lexsort_to_indices(&columns, None)?)?)
}

/// Writes `batches` as one Parquet file into `out`.
///
/// # Errors
/// [`TableError`]; what was written so far is no file.
pub fn write(kind: &Kind, batches: &[RecordBatch], out: impl Write + Send) -> Result<Encoded, TableError> {
    let rows = sorted(kind, batches)?;
    let out = Hashed { out, sum: Xxh3::new(), len: 0 };
    let mut writer = ArrowWriter::try_new(out, rows.schema(), Some(properties(kind, &rows)))?;
    writer.write(&rows)?;
    // All row groups are out now: what follows are filters, indexes and the footer.
    writer.flush()?;
    writer.sync().map_err(ParquetError::from)?;
    let (len, sum) = (writer.inner().len, writer.inner().sum.digest());
    writer.append_key_value_metadata(KeyValue::new(SUM_KEY.to_owned(), format!("{len} {sum:016x}")));
    writer.finish()?;
    Ok(Encoded {
        rows: u64::try_from(rows.num_rows()).unwrap_or(u64::MAX),
        bytes: u64::try_from(writer.bytes_written()).unwrap_or(u64::MAX),
    })
}

/// Hashes what is written.
struct Hashed<W> {
    out: W,
    sum: Xxh3,
    len: u64,
}

impl<W: Write> Write for Hashed<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let taken = self.out.write(bytes)?;
        self.sum.update(bytes.get(..taken).unwrap_or_default());
        self.len += crate::bytes::len64(taken);
        Ok(taken)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// What is wrong with a file of a table.
#[derive(Debug, thiserror::Error)]
pub enum FileFault {
    /// It is no Parquet file, or a page of it cannot be decoded.
    #[error(transparent)]
    Parquet(#[from] ParquetError),
    /// Rows cannot be decoded.
    #[error(transparent)]
    Rows(#[from] ArrowError),
    /// Bytes of its rows are not those that were written.
    #[error("the checksum of its first {len} bytes does not hold")]
    Sum {
        /// Bytes that the checksum covers.
        len: u64,
    },
    /// Rows are not those that the name tells.
    #[error("its rows are of {first} to {last}, its name says otherwise")]
    Name {
        /// Smallest first time.
        first: Timestamp,
        /// Largest last time.
        last: Timestamp,
    },
    /// No columns of times.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// Looks at every byte of a file's rows: checksum, each row decoded, times against the name. The rows.
///
/// # Errors
/// [`FileFault`]: the first thing that does not hold.
pub fn check(kind: &Kind, name: &TableName, bytes: bytes::Bytes) -> Result<u64, FileFault> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(bytes.clone())?;
    let stated = builder.metadata().file_metadata().key_value_metadata().and_then(|pairs| {
        let value = pairs.iter().find(|pair| pair.key == SUM_KEY)?.value.as_deref()?;
        let (len, sum) = value.split_once(' ')?;
        Some((len.parse::<usize>().ok()?, u64::from_str_radix(sum, 16).ok()?))
    });
    // A file of another writer has none.
    if let Some((len, sum)) = stated
        && bytes.get(..len).map(xxh3_64) != Some(sum)
    {
        return Err(FileFault::Sum { len: crate::bytes::len64(len) });
    }
    let (mut rows, mut times) = (0, None::<(Timestamp, Timestamp)>);
    for batch in builder.build()? {
        let batch = batch?;
        rows += crate::bytes::len64(batch.num_rows());
        if let Some((first, last)) = extent(kind, &batch)? {
            times = Some(times.map_or((first, last), |(a, b)| (a.min(first), b.max(last))));
        }
    }
    match times {
        Some((first, last)) if (first, last) != (name.t0, name.t1) => Err(FileFault::Name { first, last }),
        _ => Ok(rows),
    }
}

fn properties(kind: &Kind, rows: &RecordBatch) -> WriterProperties {
    let schema = rows.schema();
    let sorting = kind.sort.iter().filter_map(|name| leaf(rows, name)).map(|column_idx| SortingColumn {
        column_idx,
        descending: false,
        nulls_first: true,
    });
    let ndv = u64::try_from(rows.num_rows().clamp(1, GROUP_ROWS)).unwrap_or(1);
    let mut builder = WriterProperties::builder()
        .set_created_by(concat!("tapedeck ", env!("CARGO_PKG_VERSION")).to_owned())
        .set_writer_version(WriterVersion::PARQUET_1_0)
        .set_compression(Compression::ZSTD(ZstdLevel::try_new(ZSTD_LEVEL).unwrap_or_default()))
        .set_max_row_group_row_count(Some(GROUP_ROWS))
        .set_data_page_row_count_limit(PAGE_ROWS)
        .set_statistics_enabled(EnabledStatistics::Page)
        .set_sorting_columns(Some(sorting.collect()));
    for name in kind.bloom.iter().filter(|name| schema.column_with_name(name).is_some()) {
        let path = || ColumnPath::from(*name);
        builder = builder
            .set_column_bloom_filter_enabled(path(), true)
            .set_column_bloom_filter_fpp(path(), BLOOM_FPP)
            .set_column_bloom_filter_max_ndv(path(), ndv);
    }
    builder.build()
}

/// Number of a flat column among the leaves of the Parquet schema. Sort columns stand before nested ones.
fn leaf(rows: &RecordBatch, name: &str) -> Option<i32> {
    let at = rows.schema().fields().iter().position(|field| field.name() == name)?;
    let flat = rows.schema().fields().iter().take(at).all(|field| !field.data_type().is_nested());
    i32::try_from(at).ok().filter(|_| flat)
}
