//! Classic pcap: both byte orders, micro- and nanoseconds, the modified dialect of old Linux patches.
//!
//! Sources: <https://www.ietf.org/archive/id/draft-ietf-opsawg-pcap-04.html>, libpcap `sf-pcap.c`,
//! wiretap `libpcap.c`.

use super::input::Input;
use super::{CaptureError, Found, PACKET_BYTES_MAX, unnamed};
use crate::pcapng::InterfaceInfo;
use tapedeck_packet::LinkType;

/// What a magic number says about the records.
#[derive(Clone, Copy, Debug)]
pub(super) struct Dialect {
    big_endian: bool,
    nanos_per_unit: u32,
    /// Bytes of a record header: 16, or 24 with ifindex, protocol and type (Kuznetzov's patch).
    header: usize,
    /// Old versions wrote the two lengths the other way round.
    swapped: Swapped,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Swapped {
    No,
    /// Version 2.3: either way; the kept length is the smaller one.
    Maybe,
    Yes,
}

impl Dialect {
    pub(super) fn of(magic: &[u8]) -> Option<Self> {
        let (big_endian, magic) = match *magic.get(..4)? {
            [0xa1, 0xb2, c, d] => (true, [c, d]),
            [d, c, 0xb2, 0xa1] => (false, [c, d]),
            _ => return None,
        };
        let (nanos_per_unit, header) = match magic {
            [0xc3, 0xd4] => (1_000, 16),
            [0x3c, 0x4d] => (1, 16),
            [0xcd, 0x34] => (1_000, 24),
            _ => return None,
        };
        Some(Self { big_endian, nanos_per_unit, header, swapped: Swapped::No })
    }

    /// Reads the file header; the interface is the only one of the file.
    pub(super) fn header(mut self, input: &mut Input<'_>) -> Result<(Self, InterfaceInfo), CaptureError> {
        let bytes = input.need(24, "the pcap file header")?;
        let (version, snaplen, network) = (self.u32(bytes, 4), self.u32(bytes, 16), self.u32(bytes, 20));
        let (major, minor) = if self.big_endian {
            (version >> 16, version & 0xffff)
        } else {
            (version & 0xffff, version >> 16)
        };
        if !matches!(major, 2 | 543) {
            return Err(CaptureError::Damaged {
                what: "the major version",
                offset: 4,
                got: major.into(),
                expected: "2",
            });
        }
        self.swapped = match (major, minor) {
            (2, 0..=2) | (543, _) => Swapped::Yes,
            (2, 3) => Swapped::Maybe,
            _ => Swapped::No,
        };
        input.consume(24);
        // The upper bits are flags: length of the FCS and whether it is there.
        let link_type = LinkType(u16::try_from(network & 0xffff).unwrap_or_default());
        Ok((self, interface(unnamed(0), link_type, snaplen)))
    }

    pub(super) fn next(self, input: &mut Input<'_>) -> Result<Option<Found>, CaptureError> {
        if input.want(1)? == 0 {
            return Ok(None);
        }
        let offset = input.offset();
        let bytes = input.need(self.header, "a packet's header")?;
        let (seconds, fraction) = (self.u32(bytes, 0), self.u32(bytes, 4));
        let (first, second) = (self.u32(bytes, 8), self.u32(bytes, 12));
        let swap = self.swapped == Swapped::Yes || (self.swapped == Swapped::Maybe && first > second);
        let (kept, orig_len) = if swap { (second, first) } else { (first, second) };
        if kept > PACKET_BYTES_MAX {
            let expected = "at most 16 MiB";
            return Err(CaptureError::Damaged {
                what: "a packet's length",
                offset: offset + 8,
                got: kept.into(),
                expected,
            });
        }
        let item = self.header + usize::try_from(kept).unwrap_or(usize::MAX);
        input.need(item, "a packet")?;
        Ok(Some(Found {
            interface: 0,
            offset,
            // A fraction of a second or more carries over.
            nanos: i128::from(seconds) * 1_000_000_000
                + i128::from(fraction) * i128::from(self.nanos_per_unit),
            rounded: false,
            orig_len,
            dropped: 0,
            flags: None,
            bytes: self.header..item,
            item,
        }))
    }

    fn u32(self, bytes: &[u8], at: usize) -> u32 {
        let word = bytes.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok()).unwrap_or_default();
        if self.big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
    }
}

/// An interface of which nothing more is known.
pub(super) fn interface(name: String, link_type: LinkType, snaplen: u32) -> InterfaceInfo {
    InterfaceInfo { snaplen, ..InterfaceInfo::named(name, link_type) }
}
