//! The journal of a table file that is not sealed: its rows so far, append-only, checksummed.
//!
//! The first record names the file and gives the Arrow schema; each further one is a batch of rows, as a
//! message of an Arrow IPC stream. Reading stops at the first bad record; nothing behind it is believed.

use super::TableName;
use crate::bytes::{len32, put_varint, take, take_varint, take_varint32, u32_at};
use crate::framing::{self, Stop, record};
use arrow_array::RecordBatch;
use arrow_buffer::Buffer;
use arrow_ipc::convert::fb_to_schema;
use arrow_ipc::reader::read_record_batch;
use arrow_ipc::writer::{IpcWriteOptions, StreamWriter};
use arrow_ipc::{Message, MetadataVersion, root_as_message};
use arrow_schema::{ArrowError, Schema, SchemaRef};
use std::collections::HashMap;
use std::sync::Arc;
use tapedeck_packet::Timestamp;

/// Version of the format of table journals and live journals; a reader refuses every other one.
pub const TABLE_JOURNAL_VERSION: u32 = 1;

const START: u32 = 16;
const ROWS: u32 = 17;

/// Turns batches into messages of one Arrow IPC stream.
pub struct BatchEncoder {
    stream: StreamWriter<Vec<u8>>,
}

impl std::fmt::Debug for BatchEncoder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("BatchEncoder")
    }
}

impl BatchEncoder {
    /// An encoder for batches of `schema`, and the message that the stream begins with.
    ///
    /// # Errors
    /// The schema has what no stream can hold.
    pub fn new(schema: &Schema) -> Result<(Self, Vec<u8>), ArrowError> {
        let options = IpcWriteOptions::try_new(8, false, MetadataVersion::V5)?;
        let mut stream = StreamWriter::try_new_with_options(Vec::new(), schema, options)?;
        let head = std::mem::take(stream.get_mut());
        Ok((Self { stream }, head))
    }

    /// The message of `batch`.
    ///
    /// # Errors
    /// The batch has another schema.
    pub fn encode(&mut self, batch: &RecordBatch) -> Result<Vec<u8>, ArrowError> {
        let result = self.stream.write(batch);
        let message = std::mem::take(self.stream.get_mut());
        result.map(|()| message)
    }
}

/// Turns messages of an Arrow IPC stream into batches.
#[derive(Debug)]
pub(crate) struct BatchDecoder {
    schema: SchemaRef,
}

impl BatchDecoder {
    /// A decoder from the stream's first message; `None` where it is none.
    pub(crate) fn new(head: &[u8]) -> Option<Self> {
        let buffer = Buffer::from(head);
        let (message, _) = message(&buffer)?;
        Some(Self { schema: Arc::new(fb_to_schema(message.header_as_schema()?)) })
    }

    /// The columns.
    pub(crate) fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    /// The batch of one message; `None` where it is none.
    pub(crate) fn batch(&self, bytes: &[u8]) -> Option<RecordBatch> {
        let buffer = Buffer::from(bytes);
        let (message, body_at) = message(&buffer)?;
        let batch = message.header_as_record_batch()?;
        let body = buffer.slice(body_at);
        read_record_batch(&body, batch, self.schema(), &HashMap::new(), None, &message.version()).ok()
    }
}

/// The encapsulated message of a buffer, and where its body begins: `FF FF FF FF`, length u32, flatbuffer,
/// body (Arrow columnar format, "Encapsulated message format").
fn message(buffer: &Buffer) -> Option<(Message<'_>, usize)> {
    if u32_at(buffer, 0)? != u32::MAX {
        return None;
    }
    let body_at = 8usize.checked_add(crate::bytes::index(u32_at(buffer, 4)?))?;
    let message = root_as_message(buffer.get(8..body_at)?).ok()?;
    let body = usize::try_from(message.bodyLength()).ok()?;
    (buffer.len() == body_at.checked_add(body)?).then_some((message, body_at))
}

/// Appends the first record: version, kind and name of the file, schema of its rows.
pub fn encode_start(out: &mut Vec<u8>, kind: &str, name: &TableName, head: &[u8]) {
    record(out, START, |out| {
        out.extend_from_slice(&TABLE_JOURNAL_VERSION.to_le_bytes());
        put_text(out, kind);
        put_text(out, &name.sensor);
        for number in [name.t0.nanos(), name.t1.nanos(), name.run.into(), name.seq.into()] {
            put_varint(out, number);
        }
        out.extend_from_slice(head);
    });
}

/// Appends a batch of rows, as [`BatchEncoder::encode`] made it.
pub fn encode_rows(out: &mut Vec<u8>, message: &[u8]) {
    record(out, ROWS, |out| out.extend_from_slice(message));
}

pub(super) fn put_text(out: &mut Vec<u8>, text: &str) {
    put_varint(out, len32(text.len()).into());
    out.extend_from_slice(text.as_bytes());
}

pub(super) fn take_text(payload: &mut &[u8]) -> Option<String> {
    let len = crate::bytes::index(take_varint32(payload)?);
    String::from_utf8(take(payload, len)?.to_vec()).ok()
}

/// A journal that says nothing of its file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The first record is no start record: the journal was just made, or is no journal.
    #[error("the journal has no start record; reading stopped: {0:?}")]
    NoStart(Stop),
    /// Written in a version of the format that this program does not know.
    #[error("journal version {found}; this program reads version {TABLE_JOURNAL_VERSION}")]
    Version {
        /// Version in the journal.
        found: u32,
    },
}

/// The rows of a journal, as far as they hold.
#[derive(Clone, Debug)]
pub struct Replay {
    /// Which kind of table.
    pub kind: String,
    /// The open file's name.
    pub name: TableName,
    /// Columns of its rows.
    pub schema: SchemaRef,
    /// Its rows, in the order they came.
    pub batches: Vec<RecordBatch>,
    /// Bytes of the journal that hold.
    pub good_len: usize,
    /// Why reading stopped.
    pub stop: Stop,
}

impl Replay {
    /// Replays the bytes of a journal up to the first bad record.
    ///
    /// # Errors
    /// [`ReplayError`] where not even the first record holds.
    pub fn read(bytes: &[u8]) -> Result<Self, ReplayError> {
        let raw = framing::first(bytes).map_err(ReplayError::NoStart)?;
        check_version(&raw, START)?;
        let (kind, name, decoder) = start(raw.payload).ok_or(ReplayError::NoStart(Stop::Damaged))?;
        let schema = decoder.schema();
        let mut replay = Self { kind, name, schema, batches: Vec::new(), good_len: raw.len, stop: Stop::End };
        loop {
            let rest = bytes.get(replay.good_len..).unwrap_or_default();
            let read = framing::first(rest).and_then(|raw| match raw.kind {
                ROWS => decoder.batch(raw.payload).map(|batch| (raw.len, batch)).ok_or(Stop::Damaged),
                _ => Err(Stop::Damaged),
            });
            match read {
                Ok((len, batch)) => {
                    replay.good_len += len;
                    replay.batches.push(batch);
                }
                Err(stop) => {
                    replay.stop = stop;
                    return Ok(replay);
                }
            }
        }
    }
}

/// Checks that a journal begins with a record of `kind` in our version.
pub(super) fn check_version(raw: &framing::Raw<'_>, kind: u32) -> Result<(), ReplayError> {
    match u32_at(raw.payload, 0) {
        _ if raw.kind != kind => Err(ReplayError::NoStart(Stop::Damaged)),
        Some(TABLE_JOURNAL_VERSION) => Ok(()),
        Some(found) => Err(ReplayError::Version { found }),
        None => Err(ReplayError::NoStart(Stop::Damaged)),
    }
}

fn start(mut payload: &[u8]) -> Option<(String, TableName, BatchDecoder)> {
    take(&mut payload, 4)?;
    let kind = take_text(&mut payload)?;
    let sensor = take_text(&mut payload)?;
    let [t0, t1] = [(); 2].map(|()| take_varint(&mut payload).and_then(Timestamp::from_nanos));
    let [run, seq] = [(); 2].map(|()| take_varint32(&mut payload));
    let name = TableName { t0: t0?, t1: t1?, sensor, run: run?, seq: seq? };
    Some((kind, name, BatchDecoder::new(payload)?))
}
