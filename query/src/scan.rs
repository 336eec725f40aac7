//! From a stored frame to its matching packets: read, decompress and verify, test time and filter.
//!
//! A frame that cannot be believed gives a [`Damage`], never a part of its packets.

use crate::filter::Filter;
use crate::merge::{Batch, Found, Key};
use crate::range::TimeRange;
use crate::segment::{Handle, Opened};
use crate::verdict::Cause;
use std::io;
use std::path::PathBuf;
use tapedeck_index::frame::{Decoder, FrameError, RAW_BYTES_MAX};
use tapedeck_index::pcapng::{Block, BlockError, Blocks};
use tapedeck_packet::{LinkType, Timestamp, Walk};

/// Fixed part of an Enhanced Packet Block before the packet's bytes (pcapng, section 4.3).
const EPB_HEAD_BYTES: usize = 28;
/// Open files a worker keeps; conversations touch few segments at a time.
const FILES_MAX: usize = 16;

/// A piece of a segment to be read.
#[derive(Clone, Debug)]
pub struct Task {
    /// Number of the segment in the plan.
    pub segment: usize,
    /// What to read.
    pub piece: Piece,
    /// No packet of it is earlier.
    pub t_min: Timestamp,
    /// No packet of it is later.
    pub t_max: Timestamp,
    /// Its packets, where known.
    pub packets: Option<u32>,
    /// Arrival number of its first packet.
    pub first_arrival: u64,
    /// Number of the frame in its segment, where known.
    pub frame: Option<u32>,
}

/// What a task reads.
#[derive(Clone, Debug)]
pub enum Piece {
    /// A zstd frame of the file.
    Frame {
        /// Byte offset in the segment.
        offset: u64,
        /// Compressed bytes.
        stored_len: u32,
    },
    /// The last frame of a sealed segment without an index: if it holds packets, the end is missing.
    LastFrame {
        /// Byte offset in the segment.
        offset: u64,
        /// Compressed bytes.
        stored_len: u32,
    },
    /// Blocks of a frame that is not written yet, from the journal.
    Blocks(Vec<u8>),
    /// All of a segment without an index, whose frames are found by walking the file.
    Walk,
    /// Bytes of the file that are no frame.
    Damage {
        /// Byte offset in the segment.
        offset: u64,
        /// How many.
        len: u64,
    },
    /// Frames that the index knows and that lie behind the end of the file.
    CutOff {
        /// Bytes of the file.
        len: u64,
        /// Bytes of the segment when it was sealed.
        expected: u64,
        /// Packets in these frames, where known.
        packets: Option<u64>,
    },
    /// The end of a segment that has neither an index nor the frame that a seal writes last.
    NoEnd,
    /// A segment of which only the index is left.
    Missing {
        /// Its packets; `None` where the index cannot be read.
        packets: Option<u64>,
    },
    /// What a damaged journal would have told.
    TornJournal {
        /// Byte offset in the journal.
        at: u64,
    },
}

impl Piece {
    /// Bytes to be read from disk.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        match self {
            Self::Frame { stored_len, .. } | Self::LastFrame { stored_len, .. } => u64::from(*stored_len),
            _ => 0,
        }
    }

    /// Where it begins in the segment's file, if it is there.
    #[must_use]
    pub fn offset(&self) -> Option<u64> {
        match self {
            Self::Frame { offset, .. } | Self::LastFrame { offset, .. } | Self::Damage { offset, .. } => {
                Some(*offset)
            }
            _ => None,
        }
    }

    /// Is a frame read for it?
    #[must_use]
    pub fn is_frame(&self) -> bool {
        matches!(self, Self::Frame { .. } | Self::LastFrame { .. } | Self::Blocks(_) | Self::Damage { .. })
    }
}

impl Task {
    /// Packets in what it reads, matching or not, where known.
    #[must_use]
    pub fn packets(&self) -> Option<u64> {
        match self.piece {
            Piece::CutOff { packets, .. } | Piece::Missing { packets } => packets,
            _ => self.packets.map(u64::from),
        }
    }
}

/// What a scan needs to know about the segment of a task.
#[derive(Clone, Copy, Debug)]
pub struct Context {
    /// How the packets begin.
    pub link: LinkType,
    /// Rank of the interface's name in the answer.
    pub interface: u32,
    /// Rank of the segment's name in the answer.
    pub segment: u32,
}

/// Why a piece could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    /// The file is not there (any more).
    #[error("the file is gone")]
    Gone,
    /// The operating system does not let us open it.
    #[error("cannot open the file: {0}")]
    Open(io::Error),
    /// The bytes are not there or the disk does not give them.
    #[error("cannot read the frame: {0}")]
    Read(io::Error),
    /// Not the frame that was written.
    #[error(transparent)]
    Frame(#[from] FrameError),
    /// Not the blocks that were written.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// Bytes that are no frame.
    #[error("{len} bytes are no frame")]
    NoFrame {
        /// How many.
        len: u64,
    },
    /// The journal of an open segment is damaged.
    #[error("its journal is damaged at byte {at}: what came later is not known before 'tapedeck recover'")]
    TornJournal {
        /// Byte offset in the journal.
        at: u64,
    },
    /// The file is shorter than its index says.
    #[error("the segment is cut: {len} of {expected} bytes are there")]
    CutOff {
        /// Bytes of the file.
        len: u64,
        /// Bytes of the segment when it was sealed.
        expected: u64,
    },
    /// A segment without an index that does not end as a seal ends it.
    #[error("the segment is cut: its end is not there")]
    NoEnd,
    /// Only the index is left.
    #[error("the segment is missing; {}", match packets {
        Some(packets) => format!("its index says that it held {packets} packets"),
        None => "its index cannot be read".to_owned(),
    })]
    Missing {
        /// Its packets, where known.
        packets: Option<u64>,
    },
    /// The first frame describes no interface, so the packets cannot be read.
    #[error("the first frame describes no interface")]
    NoInterface,
}

impl ScanError {
    /// A file that could not be opened.
    #[must_use]
    pub fn of_open(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::NotFound { Self::Gone } else { Self::Open(error) }
    }

    /// What the verdict calls it.
    #[must_use]
    pub fn cause(&self) -> Cause {
        match self {
            Self::Gone => Cause::Vanished,
            Self::Open(_) => Cause::Unreadable,
            Self::CutOff { .. } | Self::NoEnd => Cause::SegmentCut,
            Self::Missing { .. } => Cause::SegmentMissing,
            Self::Read(_)
            | Self::Frame(_)
            | Self::Block(_)
            | Self::NoFrame { .. }
            | Self::TornJournal { .. }
            | Self::NoInterface => Cause::CorruptFrame,
        }
    }
}

/// Reads frames; keeps its buffers, its decoder and some open files.
pub struct FrameReader {
    decoder: Result<Decoder, FrameError>,
    files: Vec<(PathBuf, Opened)>,
    stored: Vec<u8>,
    raw: Vec<u8>,
}

impl Default for FrameReader {
    fn default() -> Self {
        Self { decoder: Decoder::new(), files: Vec::new(), stored: Vec::new(), raw: Vec::new() }
    }
}

impl FrameReader {
    /// The uncompressed bytes of a frame.
    ///
    /// # Errors
    /// [`ScanError`] of the file or the frame.
    pub fn read(&mut self, handle: &Handle, offset: u64, stored_len: u32) -> Result<&[u8], ScanError> {
        let len = usize::try_from(stored_len).map_err(|e| ScanError::Read(io::Error::other(e)))?;
        if self.stored.len() < len {
            self.stored.resize(len, 0);
        }
        if self.files.first().is_none_or(|(path, _)| path != handle.path()) {
            self.bring_forward(handle)?;
        }
        let stored = self.stored.get_mut(..len).unwrap_or_default();
        if let Some((_, opened)) = self.files.first() {
            opened.read_at(stored, offset).map_err(ScanError::Read)?;
        }
        let decoder = self.decoder.as_mut().map_err(|e| e.clone())?;
        decoder.decompress(stored, &mut self.raw, RAW_BYTES_MAX)?;
        Ok(&self.raw)
    }

    /// Puts the open file of `handle` first.
    fn bring_forward(&mut self, handle: &Handle) -> Result<(), ScanError> {
        let opened = match self.files.iter().position(|(path, _)| path == handle.path()) {
            Some(at) => self.files.remove(at),
            None => (handle.path().to_owned(), handle.open().map_err(ScanError::of_open)?),
        };
        self.files.truncate(FILES_MAX - 1);
        self.files.insert(0, opened);
        Ok(())
    }
}

/// Finds the matching packets of frames.
pub struct Scanner<'a> {
    filter: &'a Filter,
    range: TimeRange,
    reader: FrameReader,
    walk: Walk,
}

impl<'a> Scanner<'a> {
    /// A scanner for packets that match `filter` inside `range`.
    #[must_use]
    pub fn new(filter: &'a Filter, range: TimeRange) -> Self {
        Self { filter, range, reader: FrameReader::default(), walk: Walk::new() }
    }

    /// The matching packets of a piece of `handle`, sorted; none behind `until`.
    ///
    /// # Errors
    /// [`ScanError`]; nothing of the piece is believed then.
    pub fn scan(
        &mut self,
        handle: &Handle,
        task: &Task,
        context: Context,
        until: Option<Timestamp>,
    ) -> Result<Batch, ScanError> {
        match &task.piece {
            Piece::Frame { offset, stored_len } | Piece::LastFrame { offset, stored_len } => {
                self.reader.read(handle, *offset, *stored_len)?;
            }
            Piece::Blocks(bytes) => self.reader.raw.clone_from(bytes),
            Piece::Damage { len, .. } => return Err(ScanError::NoFrame { len: *len }),
            Piece::TornJournal { at } => return Err(ScanError::TornJournal { at: *at }),
            Piece::CutOff { len, expected, .. } => {
                return Err(ScanError::CutOff { len: *len, expected: *expected });
            }
            Piece::NoEnd => return Err(ScanError::NoEnd),
            Piece::Missing { packets } => return Err(ScanError::Missing { packets: *packets }),
            // A walk gives other pieces; it is none itself.
            Piece::Walk => return Ok(Batch::default()),
        }
        let until = until.unwrap_or(Timestamp::MAX);
        let (mut items, packets) = self.select(task.first_arrival, context, until)?;
        let kept: usize = items.iter().map(|i| i.len).sum();
        let raw = &mut self.reader.raw;
        let bytes = if kept.saturating_mul(2) >= raw.len() {
            std::mem::take(raw)
        } else {
            compact(&mut items, raw, kept)
        };
        let mut batch = Batch { items, bytes, packets };
        batch.sort();
        Ok(batch)
    }

    /// The matches in the frame, and how many packets it holds in all.
    fn select(
        &mut self,
        first_arrival: u64,
        context: Context,
        until: Timestamp,
    ) -> Result<(Vec<Found>, u64), ScanError> {
        let mut items = Vec::new();
        let mut arrival = first_arrival;
        for block in Blocks::new(&self.reader.raw) {
            let (offset, Block::Packet(packet)) = block? else { continue };
            let this = arrival;
            arrival = arrival.saturating_add(1);
            if packet.ts > until || !self.range.contains(packet.ts) {
                continue;
            }
            if !self.filter.is_everything() {
                self.walk.run(context.link, packet.bytes);
                if !self.filter.matches(&self.walk, packet.orig_len) {
                    continue;
                }
            }
            let Context { interface, segment, .. } = context;
            items.push(Found {
                key: Key { ts: packet.ts, interface, arrival: this, segment },
                orig_len: packet.orig_len,
                flags: packet.flags,
                start: offset.saturating_add(EPB_HEAD_BYTES),
                len: packet.bytes.len(),
            });
        }
        Ok((items, arrival.saturating_sub(first_arrival)))
    }
}

/// Copies the packets out of `raw` and points `items` at the copies.
fn compact(items: &mut [Found], raw: &[u8], total: usize) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(total);
    for item in items {
        let packet = raw.get(item.start..item.start.saturating_add(item.len)).unwrap_or_default();
        item.start = bytes.len();
        bytes.extend_from_slice(packet);
    }
    bytes
}
