//! Reads a segment frame by frame, believing nothing, and rebuilds its sidecar on the way.
//!
//! Recovery, verification and reindexing are the same walk: frames by their headers, contents by their
//! checksum, blocks by their structure, rows by the same calls that the recorder makes. Holds one frame
//! in memory. Must never: change a file.

use crate::error::FileError;
use crate::sink::to_u64;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use tapedeck_index::frame::{Decoder, FrameError, FrameLenError, RAW_BYTES_MAX, frame_len};
use tapedeck_index::journal::Replay;
use tapedeck_index::name::SegmentName;
use tapedeck_index::pcapng::{Block, BlockError, Blocks, Counters};
use tapedeck_index::rows::{FrameRows, RowTable};
use tapedeck_index::sidecar::{BuildError, FrameMeta, Head, SidecarBuilder};
use tapedeck_packet::{LinkType, Timestamp, Walk};

/// Bytes read at once; several frames.
const WINDOW_BYTES: usize = 4 << 20;
/// Most stored bytes a frame can have: raw blocks of the largest packet, and their headers.
const STORED_BYTES_MAX: usize = RAW_BYTES_MAX + (1 << 16);

/// What is wrong with a frame.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameFault {
    /// The file ends within it.
    #[error("the frame is cut")]
    Cut,
    /// No frame begins here.
    #[error("no frame begins here")]
    NoFrame,
    /// It does not decompress to what its checksum says.
    #[error(transparent)]
    Content(#[from] FrameError),
    /// Its content is no sequence of our blocks.
    #[error(transparent)]
    Block(#[from] BlockError),
    /// Frame 0 does not begin with section and interface, or holds a packet.
    #[error("frame 0 is no segment header")]
    Header,
    /// A section or interface in a later frame, or a block of a type that segments do not hold.
    #[error("a block that does not belong into a segment's frame")]
    Foreign,
}

/// The bytes of a segment: a file, and over it what its journal holds of it.
pub(crate) struct SegmentBytes<'a> {
    file: File,
    path: PathBuf,
    len: u64,
    overlay: Option<&'a Replay>,
    window: Vec<u8>,
    at: u64,
    /// What the journal has and the file has not: (offset, bytes).
    patches: Vec<(u64, Vec<u8>)>,
}

impl<'a> SegmentBytes<'a> {
    /// Opens the file at `path`.
    pub(crate) fn open(path: &Path, overlay: Option<&'a Replay>) -> Result<Self, FileError> {
        let file = File::open(path).map_err(FileError::at("open", path))?;
        let in_file = file.metadata().map_err(FileError::at("stat", path))?.len();
        let len = in_file.max(overlay.map_or(0, Replay::stored_len));
        Ok(Self { file, path: path.to_owned(), len, overlay, window: Vec::new(), at: 0, patches: Vec::new() })
    }

    /// Bytes in all; an open segment's may end in zeros.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Reads `len` bytes at `offset` into the window, fewer at the end.
    fn fill(&mut self, offset: u64, len: usize) -> Result<(), FileError> {
        let left = usize::try_from(self.len.saturating_sub(offset)).unwrap_or(usize::MAX);
        self.window.clear();
        self.window.resize(len.min(left), 0);
        self.at = offset;
        let mut filled = 0;
        while let Some(rest) = self.window.get_mut(filled..).filter(|rest| !rest.is_empty()) {
            match self.file.read_at(rest, offset.saturating_add(to_u64(filled))) {
                // The file ends here; tails may go on over the zeros.
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(FileError::at("read", &self.path)(error)),
            }
        }
        if let Some(replay) = self.overlay {
            let in_file = self.window.clone();
            replay.overlay(offset, &mut self.window);
            self.note_patch(&in_file);
        }
        Ok(())
    }

    /// Keeps the part of the window in which the journal knew better than the file.
    fn note_patch(&mut self, in_file: &[u8]) {
        let differ = |(old, new): (&u8, &u8)| old != new;
        let Some(start) = in_file.iter().zip(&self.window).position(differ) else { return };
        let end = in_file.iter().zip(&self.window).rposition(differ).unwrap_or(start);
        let bytes = self.window.get(start..=end).unwrap_or_default().to_vec();
        self.patches.push((self.at.saturating_add(to_u64(start)), bytes));
    }

    /// The bytes, among those read so far, that only the journal has.
    pub(crate) fn patches(&self) -> &[(u64, Vec<u8>)] {
        &self.patches
    }

    /// The bytes from `offset` to `end`, with what the journal knows of them.
    pub(crate) fn range(&mut self, offset: u64, end: u64) -> Result<&[u8], FileError> {
        self.fill(offset, usize::try_from(end.saturating_sub(offset)).unwrap_or(usize::MAX))?;
        Ok(&self.window)
    }

    /// The stored bytes of the frame at `offset`; `None` at the end of the file.
    pub(crate) fn frame(&mut self, offset: u64) -> Result<Option<Result<&[u8], FrameFault>>, FileError> {
        if offset >= self.len {
            return Ok(None);
        }
        let mut size = WINDOW_BYTES;
        loop {
            let skip = usize::try_from(offset.saturating_sub(self.at)).unwrap_or(usize::MAX);
            let known = if offset >= self.at { self.window.get(skip..) } else { None };
            let at_end = self.at.saturating_add(to_u64(self.window.len())) >= self.len;
            match frame_len(known.unwrap_or_default()) {
                Ok(len) => {
                    let bytes = self.window.get(skip..skip + len).unwrap_or_default();
                    return Ok(Some(Ok(bytes)));
                }
                Err(FrameLenError::Damaged) if known.is_some_and(|k| !k.is_empty()) => {
                    return Ok(Some(Err(FrameFault::NoFrame)));
                }
                Err(_) if at_end && known.is_some() => return Ok(Some(Err(FrameFault::Cut))),
                Err(_) if known.is_some_and(|k| k.len() >= STORED_BYTES_MAX) => {
                    return Ok(Some(Err(FrameFault::NoFrame)));
                }
                Err(_) => {}
            }
            self.fill(offset, size)?;
            size = size.saturating_mul(4).min(STORED_BYTES_MAX);
        }
    }
}

/// Rebuilds sidecar and facts of a segment from its frames.
pub(crate) struct Scan {
    decoder: Decoder,
    raw: Vec<u8>,
    walk: Walk,
    table: RowTable,
    rows: FrameRows,
    builder: SidecarBuilder,
    /// Section and interface, as frame 0 has them.
    head: Vec<u8>,
    link: LinkType,
    facts: Facts,
}

/// What a scan has found so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    /// Frames, the header frame included.
    pub(crate) frames: u32,
    pub(crate) packets: u64,
    /// Captured bytes of these packets.
    pub(crate) bytes: u64,
    /// Smallest and largest packet time.
    pub(crate) times: Option<(Timestamp, Timestamp)>,
    /// The last statistics block.
    pub(crate) statistics: Option<(Timestamp, Counters)>,
    /// Stored bytes.
    pub(crate) stored_len: u64,
    /// The last frame holds statistics and no packet: what a seal writes last.
    pub(crate) ended: bool,
}

impl Scan {
    pub(crate) fn new() -> Result<Self, FrameError> {
        Ok(Self {
            decoder: Decoder::new()?,
            raw: Vec::new(),
            walk: Walk::new(),
            table: RowTable::new(),
            rows: FrameRows::default(),
            builder: SidecarBuilder::new(),
            head: Vec::new(),
            link: LinkType::NULL,
            facts: Facts::default(),
        })
    }

    /// Forgets the segment, keeps the memory.
    pub(crate) fn clear(&mut self) {
        self.table.clear();
        self.builder.clear();
        self.facts = Facts::default();
    }

    pub(crate) fn facts(&self) -> &Facts {
        &self.facts
    }

    /// The sidecar of the frames so far.
    pub(crate) fn sidecar(&self, name: &SegmentName) -> Result<Vec<u8>, BuildError> {
        self.builder.finish(name, &self.head)
    }

    /// Takes the next frame. A frame at fault changes nothing.
    pub(crate) fn frame(&mut self, stored: &[u8]) -> Result<(), FrameFault> {
        let mut raw = std::mem::take(&mut self.raw);
        let result = self.decoder.decompress(stored, &mut raw, RAW_BYTES_MAX).map_err(FrameFault::from);
        let result = result.and_then(|()| self.blocks(&raw, stored.len()));
        self.raw = raw;
        result
    }

    /// Takes the next frame by its blocks; it is stored in `stored_len` bytes.
    pub(crate) fn blocks(&mut self, raw: &[u8], stored_len: usize) -> Result<(), FrameFault> {
        check_blocks(raw, self.facts.frames == 0)?;
        if self.facts.frames == 0 {
            self.head = Head::bytes_of(raw).to_vec();
        }
        let mut meta = FrameMeta {
            offset: self.facts.stored_len,
            stored_len: u32::try_from(stored_len).unwrap_or(u32::MAX),
            raw_len: u32::try_from(raw.len()).unwrap_or(u32::MAX),
            packets: 0,
            t_min: Timestamp::MAX,
            t_max: Timestamp::ZERO,
            first_arrival: 0,
            sorted: true,
        };
        let mut last = Timestamp::ZERO;
        let mut bytes = 0;
        for (_, block) in Blocks::new(raw).flatten() {
            match block {
                Block::Packet(packet) => {
                    self.walk.run(self.link, packet.bytes);
                    self.table.add(&self.walk);
                    meta.packets += 1;
                    bytes += to_u64(packet.bytes.len());
                    meta.t_min = meta.t_min.min(packet.ts);
                    meta.t_max = meta.t_max.max(packet.ts);
                    meta.sorted &= packet.ts >= last;
                    last = packet.ts;
                }
                Block::Interface(interface) => self.link = interface.link_type,
                Block::Statistics(ts, counters) => self.facts.statistics = Some((ts, counters)),
                Block::Section(_) | Block::Other(_) => {}
            }
        }
        self.table.cut_frame(&mut self.rows);
        self.builder.frame(meta, &self.rows);
        self.facts.frames += 1;
        self.facts.packets += u64::from(meta.packets);
        self.facts.bytes += bytes;
        self.facts.ended = self.facts.frames > 1 && meta.packets == 0;
        self.facts.stored_len += to_u64(stored_len);
        if meta.packets > 0 {
            let (low, high) = self.facts.times.unwrap_or((meta.t_min, meta.t_max));
            self.facts.times = Some((low.min(meta.t_min), high.max(meta.t_max)));
        }
        Ok(())
    }

    /// Scans frames from where the scan stands until the file ends or a frame is at fault.
    pub(crate) fn run(&mut self, bytes: &mut SegmentBytes<'_>) -> Result<Option<FrameFault>, FileError> {
        while let Some(frame) = bytes.frame(self.facts.stored_len)? {
            if let Err(fault) = frame.and_then(|stored| self.frame(stored)) {
                return Ok(Some(fault));
            }
        }
        Ok(None)
    }
}

/// Whether `raw` is what frame 0, or a later frame, may hold.
fn check_blocks(raw: &[u8], header: bool) -> Result<(), FrameFault> {
    for (number, block) in Blocks::new(raw).enumerate() {
        match (block?.1, header, number) {
            (Block::Section(_), true, 0) | (Block::Interface(_), true, 1) => {}
            (_, true, 0 | 1) | (Block::Packet(_), true, _) => return Err(FrameFault::Header),
            (Block::Statistics(..), _, _) | (Block::Packet(_), false, _) => {}
            _ => return Err(FrameFault::Foreign),
        }
    }
    if header && Blocks::new(raw).count() < 2 { Err(FrameFault::Header) } else { Ok(()) }
}
