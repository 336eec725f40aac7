//! Bytes to blocks: strict for our own profile, total on any bytes.

use super::{
    BYTE_ORDER, Counters, INTERFACE, InterfaceInfo, PACKET, PacketRecord, SECTION, STATISTICS, SectionInfo,
    TSRESOL_NANOS, option,
};
use crate::bytes::{array_at, index, u16_at, u32_at, u64_at};
use tapedeck_packet::{LinkType, Timestamp};

/// A block of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Block<'a> {
    /// Section Header Block.
    Section(SectionInfo),
    /// Interface Description Block.
    Interface(InterfaceInfo),
    /// Enhanced Packet Block of interface 0.
    Packet(PacketRecord<'a>),
    /// Interface Statistics Block of interface 0; counters it does not carry are 0.
    Statistics(Timestamp, Counters),
    /// A block of another type, skipped.
    Other(u32),
}

/// What is wrong with a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BlockProblem {
    /// Fewer bytes are left than the block needs.
    #[error("the block needs {needed} bytes, {left} are left")]
    Cut {
        /// Bytes needed.
        needed: u64,
        /// Bytes left.
        left: u64,
    },
    /// A total length below 12 or not a multiple of 4.
    #[error("impossible block length {0}")]
    Length(u32),
    /// The length after the block differs from the one before it.
    #[error("block length {head} at the head, {tail} at the tail")]
    Lengths {
        /// Total length at the head of the block.
        head: u32,
        /// Total length at its end.
        tail: u32,
    },
    /// Not a little-endian section of version 1.
    #[error("not a little-endian pcapng 1.x section")]
    Section,
    /// `if_tsresol` is not 9.
    #[error("timestamps are not in nanoseconds")]
    Resolution,
    /// An interface other than the one of the segment.
    #[error("interface {0}; a segment has only interface 0")]
    Interface(u32),
    /// A time of 2^63 ns or later.
    #[error("time {0} ns is out of range")]
    Time(u64),
    /// A field or option that does not fit into its block, or has the wrong length.
    #[error("a field or option does not fit its block")]
    Field,
    /// A text that is not UTF-8.
    #[error("a text is not UTF-8")]
    Text,
}

/// A block that is not of our profile.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("pcapng block at byte {offset}: {problem}")]
pub struct BlockError {
    /// Offset of the block in the slice given to [`Blocks::new`].
    pub offset: usize,
    /// What is wrong.
    pub problem: BlockProblem,
}

/// The blocks of a frame, in order, each with its offset. Ends after the first error.
#[derive(Clone, Debug)]
pub struct Blocks<'a> {
    bytes: &'a [u8],
    offset: usize,
}

impl<'a> Blocks<'a> {
    /// The blocks in `bytes`, which must begin with a block.
    #[must_use]
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, offset: 0 }
    }

    /// Offset behind the last whole block that was given out.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }
}

impl<'a> Iterator for Blocks<'a> {
    type Item = Result<(usize, Block<'a>), BlockError>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let offset = self.offset;
        let rest = self.bytes.get(offset..).filter(|rest| !rest.is_empty())?;
        let result = split(rest).and_then(|(kind, body)| Ok((body.len() + 12, decode(kind, body)?)));
        Some(match result {
            Ok((len, block)) => {
                self.offset += len;
                Ok((offset, block))
            }
            Err(problem) => {
                self.bytes = &[];
                Err(BlockError { offset, problem })
            }
        })
    }
}

/// Type and body of the block at the front of `rest`.
fn split(rest: &[u8]) -> Result<(u32, &[u8]), BlockProblem> {
    let left = crate::bytes::len64(rest.len());
    let cut = |needed: u64| BlockProblem::Cut { needed, left };
    let (Some(kind), Some(total)) = (u32_at(rest, 0), u32_at(rest, 4)) else { return Err(cut(12)) };
    if total < 12 || total % 4 != 0 {
        return Err(BlockProblem::Length(total));
    }
    let whole = rest.get(..index(total)).ok_or_else(|| cut(u64::from(total)))?;
    let body = whole.get(8..whole.len() - 4).unwrap_or_default();
    let tail = u32_at(whole, whole.len() - 4).unwrap_or_default();
    if tail == total { Ok((kind, body)) } else { Err(BlockProblem::Lengths { head: total, tail }) }
}

#[inline]
fn decode(kind: u32, body: &[u8]) -> Result<Block<'_>, BlockProblem> {
    match kind {
        PACKET => packet(body).map(Block::Packet),
        STATISTICS => statistics(body),
        INTERFACE => interface(body).map(Block::Interface),
        SECTION => section(body).map(Block::Section),
        other => Ok(Block::Other(other)),
    }
}

fn packet(body: &[u8]) -> Result<PacketRecord<'_>, BlockProblem> {
    let word = |offset| u32_at(body, offset).ok_or(BlockProblem::Field);
    interface_zero(word(0)?)?;
    let ts = time(word(4)?, word(8)?)?;
    let kept = index(word(12)?);
    let orig_len = word(16)?;
    let data = body.get(20..).unwrap_or_default();
    let bytes = data.get(..kept).ok_or(BlockProblem::Field)?;
    let mut record = PacketRecord { ts, bytes, orig_len, dropped: 0, flags: None };
    for option in Options::new(data.get(kept.next_multiple_of(4)..).ok_or(BlockProblem::Field)?) {
        let (code, value) = option?;
        match code {
            option::EPB_FLAGS => record.flags = Some(u32::from_le_bytes(exact(value)?)),
            option::EPB_DROPCOUNT => record.dropped = u64::from_le_bytes(exact(value)?),
            _ => {}
        }
    }
    Ok(record)
}

fn statistics(body: &[u8]) -> Result<Block<'static>, BlockProblem> {
    let word = |offset| u32_at(body, offset).ok_or(BlockProblem::Field);
    interface_zero(word(0)?)?;
    let ts = time(word(4)?, word(8)?)?;
    let mut counters = Counters::default();
    for option in Options::new(body.get(12..).unwrap_or_default()) {
        let (code, value) = option?;
        let counter = match code {
            option::ISB_IFRECV => &mut counters.received,
            option::ISB_IFDROP => &mut counters.interface_dropped,
            option::ISB_OSDROP => &mut counters.os_dropped,
            option::ISB_USRDELIV => &mut counters.delivered,
            _ => continue,
        };
        *counter = u64::from_le_bytes(exact(value)?);
    }
    Ok(Block::Statistics(ts, counters))
}

fn section(body: &[u8]) -> Result<SectionInfo, BlockProblem> {
    if u32_at(body, 0) != Some(BYTE_ORDER) || u16_at(body, 4) != Some(1) || u64_at(body, 8).is_none() {
        return Err(BlockProblem::Section);
    }
    let mut info = SectionInfo::default();
    for option in Options::new(body.get(16..).unwrap_or_default()) {
        let (code, value) = option?;
        match code {
            option::SHB_HARDWARE => info.hardware = Some(text(value)?),
            option::SHB_OS => info.os = Some(text(value)?),
            option::SHB_USERAPPL => info.application = Some(text(value)?),
            _ => {}
        }
    }
    Ok(info)
}

fn interface(body: &[u8]) -> Result<InterfaceInfo, BlockProblem> {
    let mut info = InterfaceInfo {
        name: String::new(),
        link_type: LinkType(u16_at(body, 0).ok_or(BlockProblem::Field)?),
        snaplen: u32_at(body, 4).ok_or(BlockProblem::Field)?,
        description: None,
        filter: None,
        hardware: None,
        speed_bps: None,
    };
    let mut resolution = None;
    for option in Options::new(body.get(8..).unwrap_or_default()) {
        let (code, value) = option?;
        match code {
            option::IF_NAME => info.name = text(value)?,
            option::IF_DESCRIPTION => info.description = Some(text(value)?),
            option::IF_SPEED => info.speed_bps = Some(u64::from_le_bytes(exact(value)?)),
            option::IF_TSRESOL => resolution = value.first().copied(),
            // First byte 0 = text; any other kind of filter is not ours and not kept.
            option::IF_FILTER => info.filter = value.strip_prefix(&[0]).map(text).transpose()?,
            option::IF_HARDWARE => info.hardware = Some(text(value)?),
            _ => {}
        }
    }
    if resolution == Some(TSRESOL_NANOS) { Ok(info) } else { Err(BlockProblem::Resolution) }
}

fn interface_zero(id: u32) -> Result<(), BlockProblem> {
    if id == 0 { Ok(()) } else { Err(BlockProblem::Interface(id)) }
}

fn time(high: u32, low: u32) -> Result<Timestamp, BlockProblem> {
    let nanos = (u64::from(high) << 32) | u64::from(low);
    Timestamp::from_nanos(nanos).ok_or(BlockProblem::Time(nanos))
}

fn exact<const N: usize>(value: &[u8]) -> Result<[u8; N], BlockProblem> {
    value.try_into().map_err(|_| BlockProblem::Field)
}

fn text(value: &[u8]) -> Result<String, BlockProblem> {
    std::str::from_utf8(value).map(str::to_owned).map_err(|_| BlockProblem::Text)
}

/// The options of a block: (code, value) up to `opt_endofopt` or the end of the block.
struct Options<'a> {
    rest: &'a [u8],
}

impl<'a> Options<'a> {
    fn new(rest: &'a [u8]) -> Self {
        Self { rest }
    }
}

impl<'a> Iterator for Options<'a> {
    type Item = Result<(u16, &'a [u8]), BlockProblem>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let head: Option<[u8; 4]> = array_at(self.rest, 0);
        let Some([c0, c1, l0, l1]) = head else {
            self.rest = &[];
            return Some(Err(BlockProblem::Field));
        };
        let code = u16::from_le_bytes([c0, c1]);
        if code == option::END {
            self.rest = &[];
            return None;
        }
        let len = usize::from(u16::from_le_bytes([l0, l1]));
        let value = self.rest.get(4..4 + len);
        self.rest = self.rest.get(4 + len.next_multiple_of(4)..).unwrap_or_default();
        Some(value.map(|value| (code, value)).ok_or(BlockProblem::Field))
    }
}
