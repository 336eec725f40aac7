//! pcapng of any writer: both byte orders, sections, interfaces, resolutions
//! (draft-ietf-opsawg-pcapng). Blocks that hold no packets are stepped over.

use super::input::Input;
use super::{CaptureError, Found, PACKET_BYTES_MAX, unnamed};
use crate::pcapng::InterfaceInfo;
use tapedeck_packet::LinkType;

const SECTION: u32 = 0x0a0d_0d0a;
const INTERFACE: u32 = 1;
const OBSOLETE_PACKET: u32 = 2;
const SIMPLE_PACKET: u32 = 3;
const ENHANCED_PACKET: u32 = 6;
/// Longest option list or text read from an Interface Description Block.
const DESCRIPTION_MAX: u32 = 1024 * 1024;

/// The section being read.
#[derive(Debug, Default)]
pub(super) struct Section {
    big_endian: bool,
    clocks: Vec<Clock>,
    /// Number of the section's first interface over the whole file.
    first: usize,
}

/// How an interface counts time.
#[derive(Clone, Copy, Debug)]
struct Clock {
    resolution: u8,
    offset_s: i64,
    snaplen: u32,
}

impl Clock {
    /// Nanoseconds since the epoch, and whether something finer was cut off.
    fn nanos(self, high: u32, low: u32) -> (i128, bool) {
        let units = (u128::from(high) << 32) | u128::from(low);
        let exponent = u32::from(self.resolution & 0x7f);
        let (ns, rounded) = if self.resolution & 0x80 != 0 {
            let scaled = units * 1_000_000_000;
            let ns = scaled >> exponent;
            (ns, scaled != ns << exponent)
        } else if exponent <= 9 {
            (units * 10_u128.pow(9 - exponent), false)
        } else {
            // Above 10^38 no count of units makes a nanosecond.
            10_u128.checked_pow(exponent - 9).map_or((0, units != 0), |d| (units / d, units % d != 0))
        };
        let ns = i128::try_from(ns).unwrap_or(i128::MAX);
        (ns.saturating_add(i128::from(self.offset_s) * 1_000_000_000), rounded)
    }
}

/// Head of a block: its type and whole length.
struct Head {
    kind: u32,
    length: u32,
    offset: u64,
}

impl Section {
    /// Reads the Section Header Block at the current position.
    pub(super) fn begin(&mut self, input: &mut Input<'_>) -> Result<(), CaptureError> {
        let offset = input.offset();
        let bytes = input.need(24, "a section header")?;
        self.big_endian = match bytes.get(8..12) {
            Some([0x1a, 0x2b, 0x3c, 0x4d]) => true,
            Some([0x4d, 0x3c, 0x2b, 0x1a]) => false,
            other => {
                let got = other.and_then(|b| b.try_into().ok()).map_or(0, u32::from_be_bytes);
                let expected = "0x1a2b3c4d in either byte order";
                return Err(CaptureError::Damaged {
                    what: "the byte-order magic",
                    offset: offset + 8,
                    got: got.into(),
                    expected,
                });
            }
        };
        let (length, major) = (self.u32(bytes, 4), self.u16(bytes, 12));
        if major != 1 {
            return Err(CaptureError::Damaged {
                what: "the major version",
                offset: offset + 12,
                got: major.into(),
                expected: "1",
            });
        }
        let head = Head { kind: SECTION, length, offset };
        self.check(&head, 28)?;
        self.clocks.clear();
        self.step_over(input, &head)
    }

    pub(super) fn next(
        &mut self,
        input: &mut Input<'_>,
        interfaces: &mut Vec<InterfaceInfo>,
    ) -> Result<Option<Found>, CaptureError> {
        loop {
            if input.want(1)? == 0 {
                return Ok(None);
            }
            let offset = input.offset();
            let bytes = input.need(8, "a block's header")?;
            let head = Head { kind: self.u32(bytes, 0), length: self.u32(bytes, 4), offset };
            match head.kind {
                SECTION => {
                    self.first = interfaces.len();
                    self.begin(input)?;
                }
                INTERFACE => self.describe(input, &head, interfaces)?,
                ENHANCED_PACKET => return self.enhanced(input, &head).map(Some),
                OBSOLETE_PACKET => return self.obsolete(input, &head).map(Some),
                SIMPLE_PACKET => return self.simple(input, &head).map(Some),
                _ => {
                    self.check(&head, 12)?;
                    self.step_over(input, &head)?;
                }
            }
        }
    }

    /// A whole block in the buffer, with both its lengths checked.
    fn block<'i>(
        &self,
        input: &'i mut Input<'_>,
        head: &Head,
        least: u32,
        most: u32,
    ) -> Result<&'i [u8], CaptureError> {
        self.check(head, least)?;
        if head.length > most {
            let expected = "a block of at most 16 MiB (1 MiB for an interface)";
            return Err(CaptureError::Damaged {
                what: "a block's length",
                offset: head.offset + 4,
                got: head.length.into(),
                expected,
            });
        }
        let length = usize::try_from(head.length).unwrap_or(usize::MAX);
        let bytes = input.need(length, "a block")?;
        self.check_tail(head, bytes.get(length - 4..).unwrap_or_default())?;
        Ok(bytes)
    }

    /// Steps over a block of any length, checking the length behind it.
    fn step_over(&self, input: &mut Input<'_>, head: &Head) -> Result<(), CaptureError> {
        input.skip(u64::from(head.length) - 4, "a block")?;
        let tail = input.need(4, "the end of a block")?;
        self.check_tail(head, tail)?;
        input.consume(4);
        Ok(())
    }

    fn check(&self, head: &Head, least: u32) -> Result<(), CaptureError> {
        if head.length >= least && head.length.is_multiple_of(4) {
            return Ok(());
        }
        let expected = "a multiple of 4 that holds the block's fields";
        Err(CaptureError::Damaged {
            what: "a block's length",
            offset: head.offset + 4,
            got: head.length.into(),
            expected,
        })
    }

    fn check_tail(&self, head: &Head, tail: &[u8]) -> Result<(), CaptureError> {
        let again = self.u32(tail, 0);
        if again == head.length {
            return Ok(());
        }
        let offset = head.offset + u64::from(head.length) - 4;
        let expected = "the length at the block's head";
        Err(CaptureError::Damaged { what: "the length behind a block", offset, got: again.into(), expected })
    }

    fn describe(
        &mut self,
        input: &mut Input<'_>,
        head: &Head,
        interfaces: &mut Vec<InterfaceInfo>,
    ) -> Result<(), CaptureError> {
        let block = self.block(input, head, 20, DESCRIPTION_MAX)?;
        let snaplen = self.u32(block, 12);
        let name = unnamed(self.clocks.len());
        let mut info = super::pcap::interface(name, LinkType(self.u16(block, 8)), snaplen);
        let mut clock = Clock { resolution: 6, offset_s: 0, snaplen };
        for (code, value) in self.options(block.get(16..block.len() - 4).unwrap_or_default()) {
            match code {
                // An empty name names nothing.
                2 if !text(value).is_empty() => info.name = text(value),
                3 => info.description = Some(text(value)),
                8 => info.speed_bps = self.u64(value),
                9 => clock.resolution = value.first().copied().unwrap_or(6),
                // First byte 0: a filter as text.
                11 => info.filter = value.strip_prefix(&[0]).map(text),
                14 => clock.offset_s = self.u64(value).map_or(0, u64::cast_signed),
                15 => info.hardware = Some(text(value)),
                _ => {}
            }
        }
        self.clocks.push(clock);
        interfaces.push(info);
        input.consume(usize::try_from(head.length).unwrap_or(usize::MAX));
        Ok(())
    }

    fn enhanced(&self, input: &mut Input<'_>, head: &Head) -> Result<Found, CaptureError> {
        let block = self.block(input, head, 32, PACKET_BYTES_MAX + 4096)?;
        let words = [8, 12, 16, 20, 24].map(|at| self.u32(block, at));
        self.packet(block, head, 28, words, None)
    }

    fn obsolete(&self, input: &mut Input<'_>, head: &Head) -> Result<Found, CaptureError> {
        let block = self.block(input, head, 32, PACKET_BYTES_MAX + 4096)?;
        let [high, low, kept, orig_len] = [12, 16, 20, 24].map(|at| self.u32(block, at));
        // 0xffff: the number of drops is not known.
        let dropped = Some(self.u16(block, 10)).filter(|drops| *drops != 0xffff);
        self.packet(block, head, 28, [self.u16(block, 8).into(), high, low, kept, orig_len], dropped)
    }

    /// A packet whose `words` are interface, time high, time low, kept length, original length.
    fn packet(
        &self,
        block: &[u8],
        head: &Head,
        at: usize,
        words: [u32; 5],
        dropped: Option<u16>,
    ) -> Result<Found, CaptureError> {
        let [interface, high, low, kept, orig_len] = words;
        let clock = self.clock(interface, head)?;
        let body = block.len() - at - 4;
        let kept_bytes = usize::try_from(kept).unwrap_or(usize::MAX);
        if kept_bytes > body {
            let expected = "at most what its block holds";
            return Err(CaptureError::Damaged {
                what: "a packet's length",
                offset: head.offset,
                got: kept.into(),
                expected,
            });
        }
        let (nanos, rounded) = clock.nanos(high, low);
        let mut found = Found {
            interface: self.first + usize::try_from(interface).unwrap_or(usize::MAX),
            offset: head.offset,
            nanos,
            rounded,
            orig_len,
            dropped: dropped.map_or(0, u64::from),
            flags: None,
            bytes: at..at + kept_bytes,
            item: block.len(),
        };
        let options = block.get(at + kept_bytes.next_multiple_of(4)..block.len() - 4).unwrap_or_default();
        for (code, value) in self.options(options) {
            match (code, value.len()) {
                (2, 4) => found.flags = Some(self.u32(value, 0)),
                (4, 8) => found.dropped = self.u64(value).unwrap_or_default(),
                _ => {}
            }
        }
        Ok(found)
    }

    fn simple(&self, input: &mut Input<'_>, head: &Head) -> Result<Found, CaptureError> {
        let clock = self.clock(0, head)?;
        let block = self.block(input, head, 16, PACKET_BYTES_MAX + 4096)?;
        let orig_len = self.u32(block, 8);
        let limit = if clock.snaplen == 0 { u32::MAX } else { clock.snaplen };
        let kept = usize::try_from(orig_len.min(limit)).unwrap_or(usize::MAX);
        if kept > block.len() - 16 {
            let expected = "at most what its block holds";
            return Err(CaptureError::Damaged {
                what: "a packet's length",
                offset: head.offset + 8,
                got: orig_len.into(),
                expected,
            });
        }
        Ok(Found {
            interface: self.first,
            offset: head.offset,
            nanos: 0,
            rounded: false,
            orig_len,
            dropped: 0,
            flags: None,
            bytes: 12..12 + kept,
            item: block.len(),
        })
    }

    fn clock(&self, interface: u32, head: &Head) -> Result<Clock, CaptureError> {
        let clock = self.clocks.get(usize::try_from(interface).unwrap_or(usize::MAX));
        clock.copied().ok_or(CaptureError::Damaged {
            what: "a packet's interface",
            offset: head.offset + 8,
            got: interface.into(),
            expected: "the number of an interface described before it",
        })
    }

    /// The options in `bytes`, up to the end mark or the first one that does not fit.
    fn options<'b>(&self, bytes: &'b [u8]) -> impl Iterator<Item = (u16, &'b [u8])> + use<'b> {
        let big_endian = self.big_endian;
        let mut rest = bytes;
        std::iter::from_fn(move || {
            let word = |at: usize| {
                let bytes = <[u8; 2]>::try_from(rest.get(at..at + 2)?).ok()?;
                Some(if big_endian { u16::from_be_bytes(bytes) } else { u16::from_le_bytes(bytes) })
            };
            let (code, length) = (word(0)?, usize::from(word(2)?));
            let value = rest.get(4..4 + length)?;
            rest = rest.get(4 + length.next_multiple_of(4)..).unwrap_or_default();
            (code != 0).then_some((code, value))
        })
    }

    fn u16(&self, bytes: &[u8], at: usize) -> u16 {
        let word = bytes.get(at..at + 2).and_then(|b| <[u8; 2]>::try_from(b).ok()).unwrap_or_default();
        if self.big_endian { u16::from_be_bytes(word) } else { u16::from_le_bytes(word) }
    }

    fn u32(&self, bytes: &[u8], at: usize) -> u32 {
        let word = bytes.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok()).unwrap_or_default();
        if self.big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
    }

    /// An option's value of eight bytes.
    fn u64(&self, value: &[u8]) -> Option<u64> {
        let word = <[u8; 8]>::try_from(value).ok()?;
        Some(if self.big_endian { u64::from_be_bytes(word) } else { u64::from_le_bytes(word) })
    }
}

/// A text option; writers end some with a zero byte.
fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).trim_end_matches('\0').to_owned()
}
