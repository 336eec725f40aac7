//! IEEE 802.11 data frames, bare or behind radiotap and PPI headers.
//!
//! Only unencrypted data frames have a network header; management, control and protected frames end
//! here. A-MSDU aggregates are not taken apart.

use super::link::{self, llc};
use super::{Enter, Layer, Macs, Start, after};
use crate::link::LinkType;

/// Radiotap: the header's length stands in bytes 2 and 3, little-endian.
pub(super) fn radiotap<'a>(layer: &mut Layer, bytes: &'a [u8]) -> Option<Enter<'a>> {
    frame(layer, after(bytes, le16(bytes, 2)?)?)
}

/// PPI: like radiotap, and it names the link type of what follows.
pub(super) fn ppi<'a>(layer: &mut Layer, bytes: &'a [u8]) -> Option<Enter<'a>> {
    let inside = LinkType(u16::try_from(le16(bytes, 4)?).ok()?);
    // PPI in PPI would be a recursion; nobody writes it.
    if inside == LinkType::PPI {
        return None;
    }
    link::walk(layer, Start::Link(inside), after(bytes, le16(bytes, 2)?)?)
}

fn le16(bytes: &[u8], at: usize) -> Option<usize> {
    after(bytes, at)?.first_chunk().map(|b| usize::from(u16::from_le_bytes(*b)))
}

/// A MAC header (IEEE 802.11-2020, 9.2 and 9.3.2.1).
pub(super) fn frame<'a>(layer: &mut Layer, bytes: &'a [u8]) -> Option<Enter<'a>> {
    let head: &[u8; 24] = bytes.first_chunk()?;
    let [control, flags, ..] = *head;
    let (data, no_content, qos) = (control & 0x0c == 0x08, control & 0x40 != 0, control & 0x80 != 0);
    let (to_ds, from_ds, protected) = (flags & 1 != 0, flags & 2 != 0, flags & 0x40 != 0);
    if !data {
        return None;
    }
    let address = |at: usize| after(bytes, at)?.first_chunk::<6>().copied();
    let (dst, src) = match (to_ds, from_ds) {
        (false, false) => (address(4)?, address(10)?),
        (false, true) => (address(4)?, address(16)?),
        (true, false) => (address(16)?, address(10)?),
        (true, true) => (address(16)?, address(24)?),
    };
    layer.macs = Some(Macs { src, dst });
    let mut at = if to_ds && from_ds { 30 } else { 24 };
    let aggregate = qos && bytes.get(at)? & 0x80 != 0;
    at += if qos { 2 } else { 0 };
    // With QoS the order bit announces an HT control field.
    at += if qos && flags & 0x80 != 0 { 4 } else { 0 };
    if no_content || protected || aggregate {
        return None;
    }
    llc(layer, after(bytes, at)?)
}
