//! Rows of `stats/`: from sealed files and from the journals of open ones.
//!
//! A file that is sealed while it is read as open is looked for again; one that cannot be read is a trouble with
//! the time it may hold, never left out in silence.

use crate::failure::Failure;
use crate::range::{Span, TimeRange};
use crate::tables::{ReadError, following, journal};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::fs::File;
use std::path::PathBuf;
use tapedeck_index::table::stats::{ROW_SPAN_NANOS, StatsRow, from_batch};
use tapedeck_index::table::{Found, STATS, State, list};
use tapedeck_packet::Timestamp;
use tapedeck_session::stats::{Dimension, NANOS_PER_MINUTE, Row};

/// Takes rows.
pub(super) type Read<'a> = &'a mut dyn FnMut(StatsRow);

/// A file that could not be read.
#[derive(Debug)]
pub(super) struct Trouble {
    pub(super) path: PathBuf,
    pub(super) why: String,
    /// What it may have held.
    pub(super) span: Option<Span>,
}

/// How reading went.
#[derive(Debug, Default)]
pub(super) struct Reading {
    pub(super) troubles: Vec<Trouble>,
    /// Bytes of the files that were read.
    pub(super) bytes: u64,
}

/// Gives the rows that touch `range` to `rows`, those of the named `interfaces` or of all.
pub(super) fn read(
    stores: &[PathBuf],
    range: TimeRange,
    interfaces: &[String],
    rows: Read<'_>,
) -> Result<Reading, Failure> {
    let mut reading = Reading::default();
    // A row begins up to an hour before what it tells of.
    let from = range.from.saturating_sub(ROW_SPAN_NANOS);
    let find = || list(&STATS, stores, from, range.to);
    let listing = find().map_err(|e| Failure::of(&e))?;
    for path in listing.foreign {
        reading.troubles.push(Trouble { path, why: "not a file of a store, ignored".to_owned(), span: None });
    }
    let mut wanted = |row: StatsRow| {
        let is_named = interfaces.is_empty() || interfaces.contains(&row.interface);
        if is_named && touches(&row, &range) {
            rows(row);
        }
    };
    for found in &listing.files {
        let result = following(found, &find, |found| one(found, &mut wanted));
        match result {
            Ok(bytes) => reading.bytes += bytes,
            Err(error) => reading.troubles.push(trouble(found, &error)),
        }
    }
    Ok(reading)
}

fn trouble(found: &Found, error: &ReadError) -> Trouble {
    let why = error.told("its statistics are missing from the answer");
    let to = found.name.t1.max(found.name.t0).saturating_add(NANOS_PER_MINUTE);
    Trouble { path: found.path.clone(), why, span: Some(Span { from: found.name.t0, to }) }
}

/// Reads a file; its bytes. Rows are handed on only when all of it could be read.
fn one(found: &Found, rows: Read<'_>) -> Result<u64, ReadError> {
    let mut all = Vec::new();
    let bytes = match found.state {
        State::Open => {
            let rows = journal(&found.path)?;
            let bytes = rows.bytes;
            for batch in &rows.whole()? {
                all.extend(from_batch(batch)?);
            }
            bytes
        }
        State::Sealed => {
            let file = File::open(&found.path)?;
            let bytes = file.metadata()?.len();
            for batch in ParquetRecordBatchReaderBuilder::try_new(file)?.build()? {
                all.extend(from_batch(&batch?)?);
            }
            bytes
        }
    };
    all.into_iter().for_each(rows);
    Ok(bytes)
}

fn touches(row: &StatsRow, range: &TimeRange) -> bool {
    let span = if row.dimension == Dimension::Recurring.as_str() { ROW_SPAN_NANOS } else { NANOS_PER_MINUTE };
    range.overlaps(row.ts, last(row.ts, span))
}

fn last(ts: Timestamp, span_nanos: u64) -> Timestamp {
    ts.saturating_add(span_nanos.saturating_sub(1))
}

/// A row as it was counted. A dimension that is not known has no name here.
pub(super) fn counted(stored: &StatsRow) -> Row {
    let [
        packets,
        bytes,
        sessions_new,
        sessions_active,
        tcp_resets,
        failed_handshakes,
        broadcast_packets,
        multicast_packets,
        fragment_packets,
        non_ip_packets,
        sessionless_packets,
        error,
        unlisted_max,
    ] = stored.counts;
    let [source_hosts, destination_hosts] = stored.hosts;
    let [source_sketch, destination_sketch] = stored.sketches.clone();
    Row {
        ts: stored.ts,
        dimension: Dimension::parse(&stored.dimension).map_or("", Dimension::as_str),
        key: stored.key.clone(),
        packets,
        bytes,
        sessions_new,
        sessions_active,
        tcp_resets,
        failed_handshakes,
        broadcast_packets,
        multicast_packets,
        fragment_packets,
        non_ip_packets,
        sessionless_packets,
        source_hosts,
        destination_hosts,
        source_sketch,
        destination_sketch,
        error,
        unlisted_max,
        activity: stored.activity.clone(),
    }
}
