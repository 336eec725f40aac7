//! The fixed-size entries of a sidecar's sections (docs/format.md).

use super::layout::STACK_LEN;
use crate::bytes::{array_at, u16_at, u32_at, u64_at};
use crate::rows::{Row, Subject, Tags, tunnel_code, tunnel_of};
use crate::sidecar::FrameMeta;
use tapedeck_packet::Timestamp;

/// "No address" in a row.
pub(super) const NO_ADDRESS: u32 = u32::MAX;
/// Bit of a frame's packet count that says: in order of time.
const SORTED: u16 = 1 << 15;

/// A frame's entry. `stored_len` is not in it: it follows from the next frame's offset.
pub(super) fn encode_frame(meta: &FrameMeta, out: &mut Vec<u8>) {
    let span_us = meta.t_max.nanos().saturating_sub(meta.t_min.nanos()).div_ceil(1000);
    let [a, b, c, d, e, f, ..] = meta.first_arrival.to_le_bytes();
    let packets = u16::try_from(meta.packets).unwrap_or(u16::MAX) | if meta.sorted { SORTED } else { 0 };
    out.extend_from_slice(&meta.offset.to_le_bytes());
    out.extend_from_slice(&meta.t_min.nanos().to_le_bytes());
    out.extend_from_slice(&u32::try_from(span_us).unwrap_or(u32::MAX).to_le_bytes());
    out.extend_from_slice(&meta.raw_len.to_le_bytes());
    out.extend_from_slice(&[a, b, c, d, e, f]);
    out.extend_from_slice(&packets.to_le_bytes());
}

/// Reads a frame's entry; `end` is the next frame's offset, or the segment's length.
pub(super) fn decode_frame(entry: &[u8], end: u64) -> Option<FrameMeta> {
    let offset = u64_at(entry, 0)?;
    let t_min = Timestamp::from_nanos(u64_at(entry, 8)?)?;
    let span_us = u32_at(entry, 16)?;
    let [a, b, c, d, e, f] = array_at(entry, 24)?;
    let packets = u16_at(entry, 30)?;
    Some(FrameMeta {
        offset,
        stored_len: u32::try_from(end.checked_sub(offset)?).ok()?,
        raw_len: u32_at(entry, 20)?,
        packets: u32::from(packets & !SORTED),
        t_min,
        // A span that did not fit says nothing about the end.
        t_max: if span_us == u32::MAX {
            Timestamp::MAX
        } else {
            t_min.saturating_add(u64::from(span_us) * 1000)
        },
        first_arrival: u64::from_le_bytes([a, b, c, d, e, f, 0, 0]),
        sorted: packets & SORTED != 0,
    })
}

/// A row's entry, its addresses and stack by number.
#[derive(Clone, Copy, Debug)]
pub(super) struct RowEntry {
    pub(super) hash: u64,
    pub(super) a: u32,
    pub(super) b: u32,
    pub(super) port_a: u16,
    pub(super) port_b: u16,
    pub(super) proto: u8,
    /// Bits 0-2 kind, 3 ports known, 4 later fragment, 5 has EtherType, 6-7 directions.
    pub(super) flags: u8,
    pub(super) ethertype: u16,
    pub(super) stack: u32,
    pub(super) postings: u32,
}

impl RowEntry {
    pub(super) const OPAQUE: u8 = 0;
    pub(super) const IPV4: u8 = 1;
    pub(super) const IPV6: u8 = 2;
    pub(super) const ARP: u8 = 3;
    pub(super) const LINK: u8 = 4;
    pub(super) const COARSE: u8 = 5;
    pub(super) const KIND: u8 = 7;
    pub(super) const PORTS_KNOWN: u8 = 1 << 3;
    pub(super) const LATER: u8 = 1 << 4;
    pub(super) const HAS_ETHERTYPE: u8 = 1 << 5;
    pub(super) const DIRECTIONS_AT: u8 = 6;

    /// A row's entry, with the number of its stack and the offset of its postings; without its addresses.
    pub(super) fn of(row: &Row, hash: u64, directions: u8, stack: u32, postings: u32) -> Self {
        let (kind, ports, proto) = match row.subject {
            Subject::Ip { key, ports_known, later_fragment } => {
                let kind = if key.addr_a.is_ipv4() && key.addr_b.is_ipv4() { Self::IPV4 } else { Self::IPV6 };
                let known = if ports_known { Self::PORTS_KNOWN } else { 0 };
                let later = if later_fragment { Self::LATER } else { 0 };
                (kind | known | later, (key.port_a, key.port_b), key.proto)
            }
            Subject::Arp { .. } => (Self::ARP, (0, 0), 0),
            Subject::Link { .. } => (Self::LINK, (0, 0), 0),
            Subject::Opaque => (Self::OPAQUE, (0, 0), 0),
            Subject::Coarse => (Self::COARSE, (0, 0), 0),
        };
        let typed = if row.ethertype.is_some() { Self::HAS_ETHERTYPE } else { 0 };
        Self {
            hash,
            a: NO_ADDRESS,
            b: NO_ADDRESS,
            port_a: ports.0,
            port_b: ports.1,
            proto,
            flags: kind | typed | ((directions & 3) << Self::DIRECTIONS_AT),
            ethertype: row.ethertype.unwrap_or(0),
            stack,
            postings,
        }
    }

    pub(super) fn encode(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.hash.to_le_bytes());
        out.extend_from_slice(&self.a.to_le_bytes());
        out.extend_from_slice(&self.b.to_le_bytes());
        out.extend_from_slice(&self.port_a.to_le_bytes());
        out.extend_from_slice(&self.port_b.to_le_bytes());
        out.extend_from_slice(&[self.proto, self.flags]);
        out.extend_from_slice(&self.ethertype.to_le_bytes());
        out.extend_from_slice(&self.stack.to_le_bytes());
        out.extend_from_slice(&self.postings.to_le_bytes());
    }

    pub(super) fn decode(entry: &[u8]) -> Option<Self> {
        let [proto, flags] = array_at(entry, 20)?;
        Some(Self {
            hash: u64_at(entry, 0)?,
            a: u32_at(entry, 8)?,
            b: u32_at(entry, 12)?,
            port_a: u16_at(entry, 16)?,
            port_b: u16_at(entry, 18)?,
            proto,
            flags,
            ethertype: u16_at(entry, 22)?,
            stack: u32_at(entry, 24)?,
            postings: u32_at(entry, 28)?,
        })
    }
}

const STACK_INNER: u8 = 1;
const STACK_HAS_PPPOE: u8 = 2;
const STACK_HAS_ID: u8 = 4;
/// "No VLAN here" in a stack; an id has 12 bits.
const NO_VLAN: u16 = u16::MAX;
/// "No label here" in a stack; a label has 20 bits.
const NO_LABEL: u32 = 0xFF_FFFF;

/// The stack of a row: tunnel id, VLANs, PPPoE session, tunnel, flags, labels.
pub(super) fn encode_stack(row: &Row) -> [u8; STACK_LEN] {
    let mut vlans = [NO_VLAN; 4];
    vlans.iter_mut().zip(row.tags.vlans()).for_each(|(slot, vlan)| *slot = *vlan);
    let mut labels = [NO_LABEL; 4];
    labels.iter_mut().zip(row.tags.labels()).for_each(|(slot, label)| *slot = *label);
    let bit = |set: bool, bit: u8| if set { bit } else { 0 };
    let flags = bit(row.inner, STACK_INNER)
        | bit(row.pppoe.is_some(), STACK_HAS_PPPOE)
        | bit(row.tunnel_id.is_some(), STACK_HAS_ID);
    let [v0, v1, v2, v3] = vlans.map(u16::to_le_bytes);
    let [l0, l1, l2, l3] = labels.map(u32::to_le_bytes);
    let [i0, i1, i2, i3] = row.tunnel_id.unwrap_or(0).to_le_bytes();
    let [p0, p1] = row.pppoe.unwrap_or(0).to_le_bytes();
    [
        [i0, i1, i2, i3],
        [v0[0], v0[1], v1[0], v1[1]],
        [v2[0], v2[1], v3[0], v3[1]],
        [p0, p1, tunnel_code(row.tunnel), flags],
        [l0[0], l0[1], l0[2], l1[0]],
        [l1[1], l1[2], l2[0], l2[1]],
        [l2[2], l3[0], l3[1], l3[2]],
    ]
    .as_flattened()
    .try_into()
    .unwrap_or([0; STACK_LEN])
}

/// Puts a stack into `row`; `None` for a tunnel that this version does not know.
pub(super) fn decode_stack(entry: &[u8], row: &mut Row) -> Option<()> {
    let [tunnel, flags] = array_at(entry, 14)?;
    row.tunnel = tunnel_of(tunnel)?;
    row.inner = flags & STACK_INNER != 0;
    row.tunnel_id = (flags & STACK_HAS_ID != 0).then_some(u32_at(entry, 0)?);
    row.pppoe = (flags & STACK_HAS_PPPOE != 0).then_some(u16_at(entry, 12)?);
    let vlans: [u16; 4] =
        array_at::<8>(entry, 4).map(|b| std::array::from_fn(|i| u16_at(&b, 2 * i).unwrap_or(NO_VLAN)))?;
    let labels: [u32; 4] = array_at::<12>(entry, 16).map(|b| {
        std::array::from_fn(|i| {
            array_at(&b, 3 * i).map_or(NO_LABEL, |[x, y, z]| u32::from_le_bytes([x, y, z, 0]))
        })
    })?;
    let vlan_count = vlans.iter().take_while(|vlan| **vlan != NO_VLAN).count();
    let label_count = labels.iter().take_while(|label| **label != NO_LABEL).count();
    row.tags = Tags::new(vlans.get(..vlan_count)?, labels.get(..label_count)?);
    Some(())
}
