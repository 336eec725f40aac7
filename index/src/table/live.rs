//! The live journal of a writer: the last word on everything that is not over yet.
//!
//! Append-only like every journal, but a later row replaces an earlier one of the same key, and a `gone`
//! record says that a key's rows up to a number stand in the table itself by now. The writer makes a new
//! journal of what is left when the old one has grown.

use super::journal::{BatchDecoder, ReplayError, TABLE_JOURNAL_VERSION, check_version, put_text, take_text};
use super::{Kind, LiveKey};
use crate::bytes::{len32, put_varint, take, take_varint32};
use crate::framing::{self, Stop, record};
use arrow_array::cast::AsArray as _;
use arrow_array::types::UInt32Type;
use arrow_array::{Array as _, RecordBatch, StringArray, UInt32Array};
use arrow_schema::{ArrowError, SchemaRef};
use arrow_select::concat::concat_batches;
use arrow_select::take::take_record_batch;
use std::collections::HashMap;

const START: u32 = 32;
const ROWS: u32 = 33;
const GONE: u32 = 34;

/// Appends the first record: version, kind, sensor, run, schema of the rows.
pub fn encode_start(out: &mut Vec<u8>, kind: &str, sensor: &str, run: u32, head: &[u8]) {
    record(out, START, |out| {
        out.extend_from_slice(&TABLE_JOURNAL_VERSION.to_le_bytes());
        put_text(out, kind);
        put_text(out, sensor);
        put_varint(out, run.into());
        out.extend_from_slice(head);
    });
}

/// Appends rows of what is not over yet.
pub fn encode_rows(out: &mut Vec<u8>, message: &[u8]) {
    record(out, ROWS, |out| out.extend_from_slice(message));
}

/// Appends that the rows of these keys, up to these numbers, are in the table.
pub fn encode_gone<'a>(out: &mut Vec<u8>, gone: impl ExactSizeIterator<Item = (&'a str, u32)>) {
    record(out, GONE, |out| {
        put_varint(out, len32(gone.len()).into());
        for (key, number) in gone {
            put_text(out, key);
            put_varint(out, number.into());
        }
    });
}

/// Key and number of each row of a batch; `None` where the columns are missing or null.
#[must_use]
pub fn keys(live: LiveKey, batch: &RecordBatch) -> Option<(&StringArray, &UInt32Array)> {
    let keys = batch.column_by_name(live.key)?.as_string_opt::<i32>()?;
    let numbers = batch.column_by_name(live.number)?.as_primitive_opt::<UInt32Type>()?;
    (keys.null_count() == 0 && numbers.null_count() == 0).then_some((keys, numbers))
}

/// What a live journal says.
#[derive(Clone, Debug)]
pub struct LiveReplay {
    /// Which kind of table.
    pub kind: String,
    /// Sensor of the writer.
    pub sensor: String,
    /// Run of the writer.
    pub run: u32,
    /// The rows that nothing has replaced, in no order.
    pub rows: RecordBatch,
    /// Bytes of the journal that hold.
    pub good_len: usize,
    /// Why reading stopped.
    pub stop: Stop,
}

/// What is known of a key.
#[derive(Clone, Copy, Default)]
struct Known {
    /// Batch and row of the last word; `None` once it is in the table.
    row: Option<(usize, usize)>,
    number: u32,
}

impl LiveReplay {
    /// Replays the bytes of a live journal of `kind` up to the first bad record.
    ///
    /// # Errors
    /// [`ReplayError`] where not even the first record holds.
    pub fn read(kind: &Kind, bytes: &[u8]) -> Result<Self, ReplayError> {
        let damaged = ReplayError::NoStart(Stop::Damaged);
        let live = kind.live.ok_or(damaged)?;
        let raw = framing::first(bytes).map_err(ReplayError::NoStart)?;
        check_version(&raw, START)?;
        let (name, sensor, run, decoder) = start(raw.payload).ok_or(damaged)?;
        let mut batches: Vec<RecordBatch> = Vec::new();
        let mut known: HashMap<String, Known> = HashMap::new();
        let mut good_len = raw.len;
        let stop = loop {
            let rest = bytes.get(good_len..).unwrap_or_default();
            let raw = match framing::first(rest) {
                Ok(raw) => raw,
                Err(stop) => break stop,
            };
            let applied = match raw.kind {
                ROWS => decoder.batch(raw.payload).and_then(|batch| {
                    learn(live, &batch, batches.len(), &mut known)?;
                    batches.push(batch);
                    Some(())
                }),
                GONE => forget(raw.payload, &mut known),
                _ => None,
            };
            if applied.is_none() {
                break Stop::Damaged;
            }
            good_len += raw.len;
        };
        let rows = survivors(&decoder.schema(), &batches, &known).map_err(|_| damaged)?;
        Ok(Self { kind: name, sensor, run, rows, good_len, stop })
    }
}

fn start(mut payload: &[u8]) -> Option<(String, String, u32, BatchDecoder)> {
    take(&mut payload, 4)?;
    let (kind, sensor) = (take_text(&mut payload)?, take_text(&mut payload)?);
    let run = take_varint32(&mut payload)?;
    Some((kind, sensor, run, BatchDecoder::new(payload)?))
}

fn learn(live: LiveKey, batch: &RecordBatch, at: usize, known: &mut HashMap<String, Known>) -> Option<()> {
    let (keys, numbers) = keys(live, batch)?;
    for (row, (key, number)) in keys.iter().zip(numbers.values()).enumerate() {
        let word = Known { row: Some((at, row)), number: *number };
        match known.get_mut(key?) {
            Some(old) if old.row.is_none() && old.number >= *number => {}
            Some(old) if old.number > *number => {}
            Some(old) => *old = word,
            None => {
                known.insert(key?.to_owned(), word);
            }
        }
    }
    Some(())
}

fn forget(mut payload: &[u8], known: &mut HashMap<String, Known>) -> Option<()> {
    for _ in 0..take_varint32(&mut payload)? {
        let key = take_text(&mut payload)?;
        let number = take_varint32(&mut payload)?;
        let old = known.entry(key).or_default();
        if old.row.is_none() || old.number <= number {
            *old = Known { row: None, number: number.max(old.number) };
        }
    }
    payload.is_empty().then_some(())
}

fn survivors(
    schema: &SchemaRef,
    batches: &[RecordBatch],
    known: &HashMap<String, Known>,
) -> Result<RecordBatch, ArrowError> {
    let mut rows: Vec<Vec<u32>> = vec![Vec::new(); batches.len()];
    for (batch, row) in known.values().filter_map(|known| known.row) {
        if let Some(rows) = rows.get_mut(batch) {
            rows.push(u32::try_from(row).unwrap_or(u32::MAX));
        }
    }
    let mut parts = Vec::new();
    for (batch, mut rows) in batches.iter().zip(rows).filter(|(_, rows)| !rows.is_empty()) {
        rows.sort_unstable();
        parts.push(take_record_batch(batch, &UInt32Array::from(rows))?);
    }
    concat_batches(schema, &parts)
}

/// The rows of `open` that no row of `table` replaces: those whose key has no row in the table with the
/// same or a larger number. Batches without the key columns replace nothing.
///
/// # Errors
/// Rows cannot be taken out of their batch.
pub fn without_replaced<'a>(
    live: LiveKey,
    open: &RecordBatch,
    table: impl Iterator<Item = &'a RecordBatch>,
) -> Result<RecordBatch, ArrowError> {
    let Some((open_keys, open_numbers)) = keys(live, open) else { return Ok(open.clone()) };
    let mut left: HashMap<&str, (u32, u32)> = HashMap::new();
    for (row, (key, number)) in (0u32..).zip(open_keys.iter().zip(open_numbers.values())) {
        left.insert(key.unwrap_or_default(), (row, *number));
    }
    for batch in table {
        let Some((keys, numbers)) = keys(live, batch) else { continue };
        for (key, number) in keys.iter().zip(numbers.values()) {
            let key = key.unwrap_or_default();
            if left.get(key).is_some_and(|(_, open)| open <= number) {
                left.remove(key);
            }
        }
    }
    let mut rows: Vec<u32> = left.into_values().map(|(row, _)| row).collect();
    rows.sort_unstable();
    take_record_batch(open, &UInt32Array::from(rows))
}
