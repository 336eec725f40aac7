//! Flow rows: what the index remembers of a packet, one row per distinct flow and segment.
//!
//! Each layer of a packet maps to one [`Row`], the complete image of what a filter can ask of a layer
//! except lengths and the MAC addresses of IP and ARP layers. Two layers with the same row are the
//! same to the index. Must never depend on anything but the packets and their order.

use std::net::{IpAddr, Ipv4Addr};
use tapedeck_packet::walk::{MAX_LABELS, MAX_VLANS};
use tapedeck_packet::{CommunityId, Direction, FlowKey, Fragment, Layer, Net, Tunnel};
use xxhash_rust::xxh3::xxh3_64;

mod pack;
mod table;
#[cfg(test)]
pub(crate) mod tests;

pub use pack::PackedRow;
pub(crate) use pack::{tunnel_code, tunnel_of};
pub use table::RowTable;

/// Distinct rows of a segment, in packet order; a constant of the format. All further distinct rows
/// become the one [`Subject::Coarse`] row.
pub const ROWS_MAX: u32 = 1 << 20;

/// Direction bit: a layer went from `a` to `b` (and what has no direction).
pub const A_TO_B: u8 = 1;
/// Direction bit: a layer went from `b` to `a`.
pub const B_TO_A: u8 = 2;

/// What a layer is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Subject {
    /// IPv4 or IPv6.
    Ip {
        /// Canonical flow key; both addresses of one family. ICMP types stand in for ports.
        key: FlowKey,
        /// The layer showed its ports, or its ICMP type; else they are 0 in the key.
        ports_known: bool,
        /// A fragment other than the first.
        later_fragment: bool,
    },
    /// ARP or RARP: the two protocol addresses, `a` not above `b`; `a` sent if the bit is [`A_TO_B`].
    Arp {
        /// The smaller address.
        a: Ipv4Addr,
        /// The greater address.
        b: Ipv4Addr,
    },
    /// Neither; known by EtherType (none = LLC) and, where the link has them, MAC addresses.
    Link {
        /// The two MAC addresses, the smaller first.
        macs: Option<([u8; 6], [u8; 6])>,
    },
    /// The walk could say nothing.
    Opaque,
    /// Any layer beyond [`ROWS_MAX`] distinct rows.
    Coarse,
}

/// A VLAN id has 12 bits.
const VLAN_MASK: u16 = 0xFFF;
/// An MPLS label has 20 bits.
const LABEL_MASK: u32 = 0xF_FFFF;

/// VLAN ids and MPLS labels of a layer, outermost first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tags {
    vlans: [u16; MAX_VLANS],
    labels: [u32; MAX_LABELS],
    vlan_count: u8,
    label_count: u8,
}

impl Tags {
    /// Tags of these ids and labels; those beyond what a walk keeps are left out.
    #[must_use]
    pub fn new(vlans: &[u16], labels: &[u32]) -> Self {
        let mut tags = Self::default();
        for (slot, vlan) in tags.vlans.iter_mut().zip(vlans) {
            *slot = vlan & VLAN_MASK;
            tags.vlan_count += 1;
        }
        for (slot, label) in tags.labels.iter_mut().zip(labels) {
            *slot = label & LABEL_MASK;
            tags.label_count += 1;
        }
        tags
    }

    /// VLAN ids.
    #[must_use]
    pub fn vlans(&self) -> &[u16] {
        self.vlans.get(..usize::from(self.vlan_count)).unwrap_or_default()
    }

    /// MPLS labels.
    #[must_use]
    pub fn labels(&self) -> &[u32] {
        self.labels.get(..usize::from(self.label_count)).unwrap_or_default()
    }
}

/// One row: the identity of a layer. Directions seen are kept beside it, not in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Row {
    /// What the layer is about.
    pub subject: Subject,
    /// EtherType behind tags and labels.
    pub ethertype: Option<u16>,
    /// VLAN ids and MPLS labels.
    pub tags: Tags,
    /// PPPoE session.
    pub pppoe: Option<u16>,
    /// Not the outermost layer of its packet.
    pub inner: bool,
    /// What carried the layer.
    pub tunnel: Tunnel,
    /// Identifier of that tunnel.
    pub tunnel_id: Option<u32>,
}

impl Row {
    /// The row for all layers beyond the cap.
    pub const COARSE: Self = Self {
        subject: Subject::Coarse,
        ethertype: None,
        tags: Tags { vlans: [0; MAX_VLANS], labels: [0; MAX_LABELS], vlan_count: 0, label_count: 0 },
        pppoe: None,
        inner: false,
        tunnel: Tunnel::None,
        tunnel_id: None,
    };

    /// The row of a layer, and its direction bit. `inner` is false for a packet's outermost layer only.
    #[must_use]
    pub fn of(layer: &Layer, inner: bool) -> (Self, u8) {
        let (subject, direction) = Self::subject_of(layer);
        let row = Self {
            subject,
            ethertype: layer.ethertype,
            tags: Tags::new(layer.vlans(), layer.labels()),
            pppoe: layer.pppoe,
            inner,
            tunnel: layer.tunnel,
            tunnel_id: layer.tunnel_id,
        };
        (row, direction)
    }

    fn subject_of(layer: &Layer) -> (Subject, u8) {
        match (layer.net, layer.flow()) {
            (Net::Ip(ip), Some((key, direction))) => {
                let ports_known = ip.ports.is_some() || ip.icmp.is_some();
                let later_fragment = ip.fragment == Fragment::Later;
                let bit = if direction == Direction::AtoB { A_TO_B } else { B_TO_A };
                (Subject::Ip { key, ports_known, later_fragment }, bit)
            }
            (Net::Arp(arp), _) => {
                let (a, b, bit) = ordered(arp.sender, arp.target);
                (Subject::Arp { a, b }, bit)
            }
            _ => match layer.macs {
                Some(macs) => {
                    let (a, b, bit) = ordered(macs.src, macs.dst);
                    (Subject::Link { macs: Some((a, b)) }, bit)
                }
                None if layer.ethertype.is_some() => (Subject::Link { macs: None }, A_TO_B),
                None => (Subject::Opaque, A_TO_B),
            },
        }
    }

    /// Community ID v1, seed 0, as [`Layer::community_id`] gives it for every layer of this row.
    #[must_use]
    pub fn community_id(&self) -> Option<CommunityId> {
        let Subject::Ip { key, ports_known, .. } = self.subject else { return None };
        let with_ports = CommunityId::hashes_ports(key.proto);
        (ports_known || !with_ports).then(|| key.community_id(with_ports, 0))
    }

    /// What a sidecar sorts its rows by: for IP subjects the first eight bytes of the Community ID v1
    /// (seed 0; hashed without ports where they are unknown), for others XXH3-64 of the packed row.
    #[must_use]
    pub fn hash64(&self) -> u64 {
        match self.subject {
            Subject::Ip { key, ports_known, .. } => {
                key.community_id(ports_known && CommunityId::hashes_ports(key.proto), 0).prefix64()
            }
            _ => xxh3_64(&PackedRow::of(self).to_bytes()),
        }
    }

    /// The two IP addresses the row is about.
    #[must_use]
    pub fn addresses(&self) -> Option<(IpAddr, IpAddr)> {
        match self.subject {
            Subject::Ip { key, .. } => Some((key.addr_a, key.addr_b)),
            Subject::Arp { a, b } => Some((a.into(), b.into())),
            _ => None,
        }
    }

    /// The two transport ports, where the layer has ports and shows them (ICMP has none).
    #[must_use]
    pub fn ports(&self) -> Option<(u16, u16)> {
        const ICMP: u8 = 1;
        const ICMPV6: u8 = 58;
        match self.subject {
            Subject::Ip { key, ports_known: true, .. } if !matches!(key.proto, ICMP | ICMPV6) => {
                Some((key.port_a, key.port_b))
            }
            _ => None,
        }
    }
}

/// The smaller first, and the direction bit.
fn ordered<T: Ord>(src: T, dst: T) -> (T, T, u8) {
    if src <= dst { (src, dst, A_TO_B) } else { (dst, src, B_TO_A) }
}

/// The rows of one frame, as the worker hands them over with the frame's bytes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FrameRows {
    /// Rows seen for the first time in this segment; their ids follow on from earlier frames.
    pub new_rows: Vec<PackedRow>,
    /// Every row with a packet in this frame, each once, in order of first appearance:
    /// (row id, direction bits seen in this frame).
    pub present: Vec<(u32, u8)>,
}

impl FrameRows {
    /// Forgets the rows, keeps the memory.
    pub fn clear(&mut self) {
        self.new_rows.clear();
        self.present.clear();
    }
}
