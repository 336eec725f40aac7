//! The columns of `stats`, and its rows from and to Arrow batches.
//!
//! Long, not wide: one row a minute, interface, dimension and key; why stands in decision 0008.

use super::ColumnType::{Bytes, F64, I64, Text, Time};
use super::{Column, Kind, TableError};
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Float64Type, Int64Type, TimestampNanosecondType};
use arrow_array::{
    Array, ArrayRef, BinaryArray, Float64Array, Int64Array, RecordBatch, StringArray,
    TimestampNanosecondArray,
};
use arrow_schema::ArrowError;
use std::sync::Arc;
use tapedeck_packet::Timestamp;
use tapedeck_packet::time::NANOS_PER_HOUR;

/// A row of `stats/`: one number space of one minute.
pub static STATS: Kind = Kind {
    name: "stats",
    doc: "What a minute of an interface comes to, by dimension and key. Rows of one minute, interface, dimension \
          and key add up: a minute that packets came late for has several. A minute with a `total` row was \
          watched, also if it counts nothing; one without was not.",
    columns: COLUMNS,
    start: "ts",
    end: "ts",
    sort: &["dimension", "ts", "interface", "key"],
    bloom: &[],
    span_nanos: 0,
    long: false,
    live: None,
};

/// Longest stretch of time that a row is of, ns: an hour, for `recurring`. The others are of a minute.
pub const ROW_SPAN_NANOS: u64 = NANOS_PER_HOUR;

/// The columns that count, in their order in [`StatsRow::counts`].
pub const COUNTS: [&str; 13] = [
    "packets",
    "bytes",
    "sessions_new",
    "sessions_active",
    "tcp_resets",
    "failed_handshakes",
    "broadcast_packets",
    "multicast_packets",
    "fragment_packets",
    "non_ip_packets",
    "sessionless_packets",
    "error",
    "unlisted_max",
];

const fn col(name: &'static str, kind: super::ColumnType, doc: &'static str) -> Column {
    Column::new(name, kind, doc)
}

const COLUMNS: &[Column] = &[
    col("ts", Time, "First nanosecond of the minute; of the hour where `dimension` is `recurring`."),
    col("interface", Text, "Interface."),
    col("sensor", Text, "The recording sensor."),
    col(
        "dimension",
        Text,
        "What the row counts by: `total`, `protocol`, `service`, `server_port`, `ethertype`, `size`; the top lists \
         `top_source`, `top_destination`, `top_pair` (by bytes), `top_opener` (by new sessions), `top_failing` (by \
         failed handshakes); `recurring`.",
    ),
    col(
        "key",
        Text,
        "Which of the dimension: IP protocol number; Zeek's service name; `443/tcp`; EtherType as `0x0806` or `llc`; \
         bytes from-to; address; two addresses with a blank between; originator, responder and port. `other`: all \
         that have no row of their own. Null for `total`.",
    )
    .or_null(),
    col("packets", I64, "Packets; in a top list at least so many.").or_null(),
    col("bytes", I64, "Bytes on the wire without frame check sequences; in a top list at most so many, see `error`.")
        .or_null(),
    col(
        "sessions_new",
        I64,
        "Sessions that began (of a service: whose service was found); in `top_opener` at most so many; in `recurring` \
         sessions that began and silences of ten seconds that ended.",
    )
    .or_null(),
    col("sessions_active", I64, "Sessions with a packet in the minute. Does not add up over minutes.").or_null(),
    col("tcp_resets", I64, "TCP packets with RST. `total` only.").or_null(),
    col(
        "failed_handshakes",
        I64,
        "TCP sessions found to have ended without a handshake (S0, REJ, RSTOS0, RSTRH, SH, SHR). `total`, and in \
         `top_failing` at most so many.",
    )
    .or_null(),
    col("broadcast_packets", I64, "Packets for all stations. `total` only.").or_null(),
    col("multicast_packets", I64, "Packets for a group. `total` only.").or_null(),
    col("fragment_packets", I64, "Fragments of IP packets. `total` only.").or_null(),
    col("non_ip_packets", I64, "Packets without an IP header that could be read. `total` only.").or_null(),
    col("sessionless_packets", I64, "IP packets for whose session there was no room. `total` only.").or_null(),
    col(
        "error",
        I64,
        "Top lists: the number that orders the list is at most so much above the truth, and never below it. \
         `recurring`: so many ten-second steps may have gone unseen.",
    )
    .or_null(),
    col("unlisted_max", I64, "Top lists: what is not listed in this minute has at most so much.").or_null(),
    col("source_hosts", F64, "Estimated number of hosts that sent; standard error 1.6 %. Does not add up.").or_null(),
    col("destination_hosts", F64, "Estimated number of hosts that were sent to. Does not add up.").or_null(),
    col("source_sketch", Bytes, "HyperLogLog of the sources; see the page on statistics.").or_null(),
    col("destination_sketch", Bytes, "HyperLogLog of the destinations.").or_null(),
    col(
        "activity",
        Bytes,
        "`recurring`: 360 bits, one for each ten seconds of the hour in which the pair began to talk; bit n is bit \
         n % 8 of byte n / 8.",
    )
    .or_null(),
];

/// A row of `stats`, as it lies on disk.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct StatsRow {
    /// `ts`.
    pub ts: Timestamp,
    /// `interface`.
    pub interface: String,
    /// `sensor`.
    pub sensor: String,
    /// `dimension`.
    pub dimension: String,
    /// `key`.
    pub key: Option<String>,
    /// The columns of [`COUNTS`].
    pub counts: [Option<u64>; COUNTS.len()],
    /// `source_hosts`, `destination_hosts`.
    pub hosts: [Option<f64>; 2],
    /// `source_sketch`, `destination_sketch`.
    pub sketches: [Option<Vec<u8>>; 2],
    /// `activity`.
    pub activity: Option<Vec<u8>>,
}

/// Rows as a batch of [`STATS`].
///
/// # Errors
/// None is known: the columns are all of one length and of the schema's types.
pub fn to_batch(rows: &[StatsRow]) -> Result<RecordBatch, ArrowError> {
    fn text<'a>(rows: &'a [StatsRow], of: impl Fn(&'a StatsRow) -> &'a str) -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(of)))
    }
    fn bytes<'a>(rows: &'a [StatsRow], of: impl Fn(&'a StatsRow) -> Option<&'a [u8]>) -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<BinaryArray>())
    }
    let nanos = rows.iter().map(|row| i64::try_from(row.ts.nanos()).unwrap_or(i64::MAX));
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(TimestampNanosecondArray::from_iter_values(nanos).with_timezone("UTC")),
        text(rows, |row| &row.interface),
        text(rows, |row| &row.sensor),
        text(rows, |row| &row.dimension),
        Arc::new(rows.iter().map(|row| row.key.as_deref()).collect::<StringArray>()),
    ];
    let signed = |count: &Option<u64>| count.map(|n| i64::try_from(n).unwrap_or(i64::MAX));
    for at in 0..COUNTS.len() {
        let counts = rows.iter().map(|row| row.counts.get(at).and_then(signed));
        columns.push(Arc::new(counts.collect::<Int64Array>()));
    }
    for side in 0..2 {
        columns.push(Arc::new(
            rows.iter().map(|row| row.hosts.get(side).copied().flatten()).collect::<Float64Array>(),
        ));
    }
    for side in 0..2 {
        columns.push(bytes(rows, |row| row.sketches.get(side)?.as_deref()));
    }
    columns.push(bytes(rows, |row| row.activity.as_deref()));
    RecordBatch::try_new(STATS.schema(), columns)
}

/// The rows of a batch. A column that is missing, as in a file of an older version or when it was not asked for,
/// is null; others than those of [`STATS`] are left out.
///
/// # Errors
/// A column that there has to be is missing or of another type.
pub fn from_batch(batch: &RecordBatch) -> Result<Vec<StatsRow>, TableError> {
    let wrong = |column| TableError::NoTime { table: STATS.name, column };
    let ts = batch.column_by_name("ts").and_then(|c| c.as_primitive_opt::<TimestampNanosecondType>());
    let ts = ts.ok_or_else(|| wrong("ts"))?;
    let text = |column| {
        let array = batch.column_by_name(column).and_then(|c| c.as_string_opt::<i32>().cloned());
        array.ok_or_else(|| TableError::Arrow(ArrowError::SchemaError(format!("no text column `{column}`"))))
    };
    let (interface, sensor, dimension, key) =
        (text("interface")?, text("sensor")?, text("dimension")?, text("key")?);
    let counts =
        COUNTS.map(|name| batch.column_by_name(name).and_then(|c| c.as_primitive_opt::<Int64Type>()));
    let float = |name| batch.column_by_name(name).and_then(|c| c.as_primitive_opt::<Float64Type>());
    let hosts = ["source_hosts", "destination_hosts"].map(float);
    let binary = |name| batch.column_by_name(name).and_then(|c| c.as_binary_opt::<i32>());
    let sketches = ["source_sketch", "destination_sketch"].map(binary);
    let activity = binary("activity");
    let bytes = |array: Option<&BinaryArray>, at: usize| {
        array.filter(|array| array.is_valid(at)).map(|array| array.value(at).to_vec())
    };
    let row = |at: usize| StatsRow {
        ts: super::encode::time(ts.value(at)),
        interface: interface.value(at).to_owned(),
        sensor: sensor.value(at).to_owned(),
        dimension: dimension.value(at).to_owned(),
        key: key.is_valid(at).then(|| key.value(at).to_owned()),
        counts: counts.map(|array| {
            array.filter(|array| array.is_valid(at)).map(|array| u64::try_from(array.value(at)).unwrap_or(0))
        }),
        hosts: hosts.map(|array| array.filter(|array| array.is_valid(at)).map(|array| array.value(at))),
        sketches: sketches.map(|array| bytes(array, at)),
        activity: bytes(activity, at),
    };
    Ok((0..batch.num_rows()).map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_a_batch_and_a_file() {
        let total = StatsRow {
            ts: Timestamp::from_nanos_saturating(1_795_284_060_000_000_000),
            interface: "eth1".to_owned(),
            sensor: "s".to_owned(),
            dimension: "total".to_owned(),
            key: None,
            counts: std::array::from_fn(|n| (n != 3).then_some(n as u64)),
            hosts: [Some(1.5), None],
            sketches: [Some(vec![1, 12]), Some(Vec::new())],
            activity: None,
        };
        let pair = StatsRow {
            dimension: "recurring".to_owned(),
            key: Some("a b".to_owned()),
            counts: [None; COUNTS.len()],
            sketches: [None, None],
            activity: Some(vec![7; 45]),
            ..total.clone()
        };
        let rows = [total, pair];
        let batch = to_batch(&rows).unwrap();
        assert_eq!(from_batch(&batch).unwrap(), rows);
        let mut file = Vec::new();
        super::super::encode::write(&STATS, &[batch], &mut file).unwrap();
        assert!(file.starts_with(b"PAR1"));
    }
}
