//! Snoop, the capture format of Solaris (RFC 1761): version 2, Ethernet.

use super::input::Input;
use super::{CaptureError, Found, PACKET_BYTES_MAX, pcap, unnamed};
use crate::pcapng::InterfaceInfo;
use tapedeck_packet::LinkType;

pub(super) fn header(input: &mut Input<'_>) -> Result<InterfaceInfo, CaptureError> {
    let bytes = input.need(16, "the snoop file header")?;
    if bytes.get(..8) != Some(b"snoop\0\0\0") {
        return Err(super::foreign(bytes));
    }
    let (version, datalink) = (u32_at(bytes, 8), u32_at(bytes, 12));
    if version != 2 {
        return Err(CaptureError::Damaged {
            what: "the snoop version",
            offset: 8,
            got: version.into(),
            expected: "2",
        });
    }
    // 0 is IEEE 802.3, 4 is Ethernet: the same frames.
    if !matches!(datalink, 0 | 4) {
        let expected = "0 or 4: of snoop files only Ethernet is read; convert it with `editcap -F pcapng`";
        return Err(CaptureError::Damaged {
            what: "the snoop datalink type",
            offset: 12,
            got: datalink.into(),
            expected,
        });
    }
    input.consume(16);
    Ok(pcap::interface(unnamed(0), LinkType::ETHERNET, 0))
}

pub(super) fn next(input: &mut Input<'_>) -> Result<Option<Found>, CaptureError> {
    if input.want(1)? == 0 {
        return Ok(None);
    }
    let offset = input.offset();
    let bytes = input.need(24, "a packet's header")?;
    let [orig_len, kept, record, _drops, seconds, micros] = [0, 4, 8, 12, 16, 20].map(|at| u32_at(bytes, at));
    if kept > PACKET_BYTES_MAX || record < kept.saturating_add(24) || record > PACKET_BYTES_MAX {
        let expected = "a packet's length and header, at most 16 MiB";
        return Err(CaptureError::Damaged {
            what: "a record's length",
            offset: offset + 8,
            got: record.into(),
            expected,
        });
    }
    let item = usize::try_from(record).unwrap_or(usize::MAX);
    input.need(item, "a packet")?;
    Ok(Some(Found {
        interface: 0,
        offset,
        nanos: i128::from(seconds) * 1_000_000_000 + i128::from(micros) * 1_000,
        rounded: false,
        orig_len,
        // The drop counter is cumulative and of the whole file: not a count before this packet.
        dropped: 0,
        flags: None,
        bytes: 24..24 + usize::try_from(kept).unwrap_or_default(),
        item,
    }))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|b| <[u8; 4]>::try_from(b).ok()).map_or(0, u32::from_be_bytes)
}
