//! The journal beside an open segment: append-only, checksummed records.
//!
//! The writer appends [`encode_start`] once, then frames, tails and open blocks as they come. A reader
//! or a recovery replays the bytes into a [`Replay`]: the segment as far as it can be vouched for.
//! Reading stops at the first bad record; nothing behind it is believed.

use crate::bytes::{len32, put_varint, take, take_varint, take_varint32, u32_at, u64_at};
use crate::framing::{self, record};
use crate::name::SegmentName;
use crate::pcapng::{Block, Blocks, InterfaceInfo, SectionInfo, encode_interface, encode_section};
use crate::rows::{FrameRows, PackedRow};
use crate::sidecar::FrameMeta;
use tapedeck_packet::Timestamp;

mod replay;
#[cfg(test)]
mod tests;

pub use crate::framing::Stop;
pub use replay::{Replay, ReplayError};

/// Version of the journal's format; a reader refuses every other one.
pub const JOURNAL_VERSION: u32 = 1;

const START: u32 = 1;
const FRAME: u32 = 2;
const TAIL: u32 = 3;
const OPEN_BLOCKS: u32 = 4;

/// What is needed to seal the segment without its writer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Start {
    /// The open segment's name; `t0` is the first packet's time.
    pub name: SegmentName,
    /// Section Header Block of frame 0.
    pub section: SectionInfo,
    /// Interface Description Block of frame 0.
    pub interface: InterfaceInfo,
    /// Arrival number, in its chain, of the segment's first packet.
    pub first_arrival: u64,
}

/// A record of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record<'a> {
    /// The first record, and only the first.
    Start(Start),
    /// The next frame of the segment: all before it are recorded, and its bytes are in the file or in
    /// tails before it.
    Frame(FrameMeta, FrameRows),
    /// Stored bytes of the segment at `offset`, not (all) written to the segment file yet.
    Tail {
        /// Offset in the segment file.
        offset: u64,
        /// The bytes.
        bytes: &'a [u8],
    },
    /// Raw pcapng blocks of a frame that was not recorded yet.
    OpenBlocks {
        /// Number of the frame in the segment.
        frame: u32,
        /// Offset of the blocks in the uncompressed frame.
        offset: u32,
        /// Whole blocks.
        bytes: &'a [u8],
    },
}

/// Appends the first record. Journal version and packed names of the segment.
pub fn encode_start(out: &mut Vec<u8>, start: &Start) {
    record(out, START, |out| {
        out.extend_from_slice(&JOURNAL_VERSION.to_le_bytes());
        let name = &start.name;
        put_varint(out, name.t0.nanos());
        for number in [name.queue, name.run, name.seq] {
            put_varint(out, number.into());
        }
        put_varint(out, start.first_arrival);
        for text in [&name.sensor, &name.interface] {
            put_varint(out, len32(text.len()).into());
            out.extend_from_slice(text.as_bytes());
        }
        encode_section(out, &start.section);
        encode_interface(out, &start.interface);
    });
}

/// Appends a frame of the contiguous completed prefix, with its rows.
pub fn encode_frame(out: &mut Vec<u8>, meta: &FrameMeta, rows: &FrameRows) {
    record(out, FRAME, |out| {
        put_varint(out, meta.offset);
        for number in [meta.stored_len, meta.raw_len, meta.packets, u32::from(meta.sorted)] {
            put_varint(out, number.into());
        }
        for number in [meta.t_min.nanos(), meta.t_max.nanos(), meta.first_arrival] {
            put_varint(out, number);
        }
        put_varint(out, len32(rows.new_rows.len()).into());
        rows.new_rows.iter().for_each(|row| row.put(out));
        put_varint(out, len32(rows.present.len()).into());
        for (row, bits) in &rows.present {
            put_varint(out, (u64::from(*row) << 2) | u64::from(bits & 3));
        }
    });
}

/// Appends stored bytes of the segment that the segment file may not have yet.
pub fn encode_tail(out: &mut Vec<u8>, offset: u64, bytes: &[u8]) {
    record(out, TAIL, |out| {
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(bytes);
    });
}

/// Appends raw blocks of a frame that is not recorded yet: whole blocks, from `offset` in the raw frame.
pub fn encode_open_blocks(out: &mut Vec<u8>, frame: u32, offset: u32, bytes: &[u8]) {
    record(out, OPEN_BLOCKS, |out| {
        out.extend_from_slice(&frame.to_le_bytes());
        out.extend_from_slice(&offset.to_le_bytes());
        out.extend_from_slice(bytes);
    });
}

/// The records of a journal, up to the first bad one.
#[derive(Clone, Debug)]
pub struct Records<'a> {
    rest: &'a [u8],
    good: usize,
    stop: Option<Stop>,
}

impl<'a> Records<'a> {
    /// The records in `bytes`.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, good: 0, stop: None }
    }

    /// Bytes of the records given out so far.
    #[must_use]
    pub fn good_len(&self) -> usize {
        self.good
    }

    /// Why the records ended; `None` while they go on.
    #[must_use]
    pub fn stop(&self) -> Option<Stop> {
        self.stop
    }

    fn read(&self) -> Result<(usize, Record<'a>), Stop> {
        let raw = framing::first(self.rest)?;
        Ok((raw.len, decode(raw.kind, raw.payload).ok_or(Stop::Damaged)?))
    }
}

impl<'a> Iterator for Records<'a> {
    type Item = Record<'a>;

    fn next(&mut self) -> Option<Record<'a>> {
        if self.stop.is_some() {
            return None;
        }
        match self.read() {
            Ok((len, record)) => {
                self.rest = self.rest.get(len..).unwrap_or_default();
                self.good += len;
                Some(record)
            }
            Err(stop) => {
                self.stop = Some(stop);
                None
            }
        }
    }
}

fn decode(kind: u32, mut payload: &[u8]) -> Option<Record<'_>> {
    match kind {
        START => decode_start(payload).map(Record::Start),
        FRAME => decode_frame(payload),
        TAIL => {
            let offset = u64_at(payload, 0)?;
            Some(Record::Tail { offset, bytes: payload.get(8..)? })
        }
        OPEN_BLOCKS => {
            let head = take(&mut payload, 8)?;
            Some(Record::OpenBlocks { frame: u32_at(head, 0)?, offset: u32_at(head, 4)?, bytes: payload })
        }
        _ => None,
    }
}

fn decode_start(mut payload: &[u8]) -> Option<Start> {
    if u32_at(take(&mut payload, 4)?, 0)? != JOURNAL_VERSION {
        return None;
    }
    let t0 = Timestamp::from_nanos(take_varint(&mut payload)?)?;
    let [queue, run, seq] = [(); 3].map(|()| take_varint32(&mut payload));
    let first_arrival = take_varint(&mut payload)?;
    let [sensor, interface] = [(); 2].map(|()| {
        let len = crate::bytes::index(take_varint32(&mut payload)?);
        String::from_utf8(take(&mut payload, len)?.to_vec()).ok()
    });
    let name =
        SegmentName { t0, sensor: sensor?, interface: interface?, queue: queue?, run: run?, seq: seq? };
    let mut blocks = Blocks::new(payload);
    let (_, Block::Section(section)) = blocks.next()?.ok()? else { return None };
    let (_, Block::Interface(interface)) = blocks.next()?.ok()? else { return None };
    Some(Start { name, section, interface, first_arrival })
}

/// Version a journal states, where its first record is whole; for saying which one is unknown.
fn stated_version(bytes: &[u8]) -> Option<u32> {
    let raw = framing::first(bytes).ok()?;
    (raw.kind == START).then(|| u32_at(raw.payload, 0))?
}

fn decode_frame<'a>(mut payload: &[u8]) -> Option<Record<'a>> {
    let offset = take_varint(&mut payload)?;
    let [stored_len, raw_len, packets, sorted] = [(); 4].map(|()| take_varint32(&mut payload));
    let [t_min, t_max, first_arrival] = [(); 3].map(|()| take_varint(&mut payload));
    let meta = FrameMeta {
        offset,
        stored_len: stored_len?,
        raw_len: raw_len?,
        packets: packets?,
        sorted: sorted? == 1,
        t_min: Timestamp::from_nanos(t_min?)?,
        t_max: Timestamp::from_nanos(t_max?)?,
        first_arrival: first_arrival?,
    };
    let mut rows = FrameRows::default();
    // Nothing is reserved by a stated count: a list is as long as its bytes.
    for _ in 0..take_varint32(&mut payload)? {
        rows.new_rows.push(PackedRow::take(&mut payload).filter(|row| row.row().is_some())?);
    }
    for _ in 0..take_varint32(&mut payload)? {
        let packed = take_varint(&mut payload)?;
        let bits = u8::try_from(packed & 3).ok()?;
        rows.present.push((u32::try_from(packed >> 2).ok()?, bits));
    }
    payload.is_empty().then_some(Record::Frame(meta, rows))
}
