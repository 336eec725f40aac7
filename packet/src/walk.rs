//! The header walk: link layer to transport, through tags, labels and tunnels.
//!
//! A [`Walk`] is a reusable, fixed-size result: layer 0 is what is on the wire, each further layer is
//! what a tunnel carries. VLAN, QinQ, MPLS and PPPoE are looked through inside one layer. The walk
//! reads only bytes that are there: a truncated header leaves the fields it could not read empty.
//!
//! One loop in [`Walk::run`] goes from layer to layer: `link` reads what stands before the network
//! header, `ip` the network and transport header, `tunnel` says whether the payload carries another
//! layer and how that one begins. Nothing here allocates, clears what it does not use, or trusts a
//! length field beyond the bytes that are there.

use crate::flow::{CommunityId, Direction, FlowKey};
use crate::link::LinkType;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

pub(crate) mod icmp;
mod ip;
mod link;
#[cfg(test)]
mod tests;
mod tunnel;
mod wifi;

pub use icmp::as_ports as icmp_ports;

/// Layers a walk keeps: the outermost and seven nested tunnels. Deeper ones are not looked at.
pub const MAX_LAYERS: usize = 8;
/// VLAN tags kept per layer, outermost first; further tags are walked through but not kept.
pub const MAX_VLANS: usize = 4;
/// MPLS labels kept per layer, top of stack first; further labels are walked through but not kept.
pub const MAX_LABELS: usize = 4;

/// Source and destination of a link-layer header with 48-bit addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Macs {
    /// Source address.
    pub src: [u8; 6],
    /// Destination address.
    pub dst: [u8; 6],
}

/// A hardware address as everyone writes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mac(pub [u8; 6]);

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [a, b, c, d, e, g] = self.0;
        write!(f, "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{g:02x}")
    }
}

impl Tunnel {
    /// Short name, as in the filter language's documentation.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::IpIp => "ipip",
            Self::Gre => "gre",
            Self::Erspan => "erspan",
            Self::Vxlan => "vxlan",
            Self::Geneve => "geneve",
            Self::Gtp => "gtp",
            Self::Teredo => "teredo",
            Self::EtherIp => "etherip",
            Self::Other => "tunnel",
        }
    }
}

/// The encapsulation that carried a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Tunnel {
    /// None: the outermost layer.
    #[default]
    None,
    /// IP in IP (protocols 4 and 41).
    IpIp,
    /// GRE (RFC 2784), without ERSPAN.
    Gre,
    /// ERSPAN types I, II and III.
    Erspan,
    /// VXLAN (RFC 7348).
    Vxlan,
    /// Geneve (RFC 8926).
    Geneve,
    /// GTP-U (3GPP TS 29.281).
    Gtp,
    /// Teredo (RFC 4380).
    Teredo,
    /// EtherIP (RFC 3378).
    EtherIp,
    /// Anything else that the walk can enter; docs/filter.md lists them.
    Other,
}

/// IP fragmentation as far as one packet shows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Fragment {
    /// Not fragmented.
    #[default]
    Whole,
    /// First fragment: has the transport header.
    First,
    /// A later fragment: ports are unknown.
    Later,
}

/// The IP header of a layer and what follows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ip {
    /// Source address.
    pub src: IpAddr,
    /// Destination address.
    pub dst: IpAddr,
    /// Transport protocol: IPv4's protocol field; for IPv6 the last next-header value after the
    /// extension headers that could be walked.
    pub proto: u8,
    /// Fragmentation.
    pub fragment: Fragment,
    /// Where in the datagram a fragment belongs, bytes; 0 unless it is a later fragment.
    pub fragment_offset: u16,
    /// Identification that the fragments of a datagram share; 0 in IPv6 without a fragment header.
    pub fragment_id: u32,
    /// Time to live, hop limit.
    pub ttl: u8,
    /// Bytes from the IP header on, as the header says (IPv6: its payload length and 40); 0 where the
    /// header says nothing, as segmentation offload and jumbograms do.
    pub total_bytes: u32,
    /// Where in the packet the IP header begins, bytes.
    pub start: u32,
    /// Where in the packet the transport header (in later fragments: the payload) begins, bytes; where
    /// the walk ended, if it did not get there. Never behind the end of the packet.
    pub transport: u32,
    /// (source, destination) ports of TCP, UDP, SCTP, DCCP and UDP-Lite; `None` when the protocol has
    /// none, in later fragments and where the header is cut.
    pub ports: Option<(u16, u16)>,
    /// (type, code) of ICMP and ICMPv6; `None` otherwise and where the header is cut.
    pub icmp: Option<(u8, u8)>,
    /// Flags of TCP, CWR (0x80) to FIN (0x01); `None` otherwise and where the header is cut.
    pub tcp_flags: Option<u8>,
}

/// ARP or RARP for IPv4 over 48-bit hardware addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arp {
    /// Sender protocol address.
    pub sender: Ipv4Addr,
    /// Target protocol address.
    pub target: Ipv4Addr,
}

/// The network header of a layer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Net {
    /// Nothing we know, or cut before it could be read; `Layer::ethertype` may still say what it is.
    #[default]
    Unknown,
    /// IPv4 or IPv6.
    Ip(Ip),
    /// ARP and RARP.
    Arp(Arp),
}

/// One layer of a packet: link header, tags and labels, network header, transport ports.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Layer {
    /// Link-layer addresses, where this layer begins with Ethernet.
    pub macs: Option<Macs>,
    /// How this layer was carried; [`Tunnel::None`] for layer 0.
    pub tunnel: Tunnel,
    /// Identifier of the tunnel that carried it: VXLAN/Geneve VNI, GRE key, GTP TEID, ERSPAN session.
    pub tunnel_id: Option<u32>,
    /// EtherType behind all tags and labels (0x0800 for raw IPv4 links and so on); `None` for LLC
    /// frames and links without one.
    pub ethertype: Option<u16>,
    /// PPPoE session.
    pub pppoe: Option<u16>,
    /// Network header.
    pub net: Net,
    vlans: [u16; MAX_VLANS],
    vlan_count: u8,
    labels: [u32; MAX_LABELS],
    label_count: u8,
    /// Address of the packet's first byte while the layer is walked, to tell offsets by; 0 afterwards.
    origin: usize,
}

impl Layer {
    /// 12-bit VLAN ids, outermost first.
    #[must_use]
    pub fn vlans(&self) -> &[u16] {
        self.vlans.get(..usize::from(self.vlan_count)).unwrap_or_default()
    }

    /// It has tags or labels, or a tunnel carried it.
    #[inline]
    #[must_use]
    pub fn is_tagged(&self) -> bool {
        self.vlan_count | self.label_count != 0 || self.tunnel != Tunnel::None
    }

    /// 20-bit MPLS labels, top of stack first.
    #[must_use]
    pub fn labels(&self) -> &[u32] {
        self.labels.get(..usize::from(self.label_count)).unwrap_or_default()
    }

    /// Canonical flow key and direction, for IP layers. ICMP types and codes stand in for ports as the
    /// Community ID specification maps them; ports are 0 where they are unknown.
    #[must_use]
    pub fn flow(&self) -> Option<(FlowKey, Direction)> {
        let Net::Ip(ip) = self.net else { return None };
        let (sport, dport, one_way) = match (ip.ports, ip.icmp) {
            (Some((sport, dport)), _) => (sport, dport, false),
            (None, Some((kind, code))) => icmp::as_ports(ip.proto, kind, code),
            (None, None) => (0, 0, false),
        };
        Some(FlowKey::new((ip.src, sport), (ip.dst, dport), ip.proto, one_way))
    }

    /// Community ID v1 of this layer with the site's `seed` (0 unless it has chosen another). `None`
    /// for what is not IP, and where the protocol hashes ports but this packet does not show them
    /// (later fragments, cut headers).
    #[must_use]
    pub fn community_id(&self, seed: u16) -> Option<CommunityId> {
        let Net::Ip(ip) = self.net else { return None };
        let with_ports = CommunityId::hashes_ports(ip.proto);
        if with_ports && ip.ports.is_none() && ip.icmp.is_none() {
            return None;
        }
        self.flow().map(|(key, _)| key.community_id(with_ports, seed))
    }

    /// Offset in the packet of the first of `bytes`, which are a part of it.
    fn offset_of(&self, bytes: &[u8]) -> u32 {
        u32::try_from(bytes.as_ptr().addr().wrapping_sub(self.origin)).unwrap_or(u32::MAX)
    }

    fn push_vlan(&mut self, id: u16) {
        if let Some(slot) = self.vlans.get_mut(usize::from(self.vlan_count)) {
            *slot = id;
            self.vlan_count += 1;
        }
    }

    fn push_label(&mut self, label: u32) {
        if let Some(slot) = self.labels.get_mut(usize::from(self.label_count)) {
            *slot = label;
            self.label_count += 1;
        }
    }
}

/// What the bytes of a layer begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Start {
    /// The link header of a capture.
    Link(LinkType),
    /// An Ethernet header.
    Ethernet,
    /// What this EtherType announces.
    EtherType(u16),
    /// An IP header, version by the first nibble.
    Ip,
    /// A PPP header, with or without address and control bytes.
    Ppp,
}

/// A layer to go on with: how it was carried, how it begins, its bytes.
#[derive(Clone, Copy, Debug)]
struct Enter<'a> {
    tunnel: Tunnel,
    tunnel_id: Option<u32>,
    start: Start,
    bytes: &'a [u8],
}

/// The layers of one packet. Reuse one value for many packets: it holds no heap memory.
#[derive(Clone, Debug, Default)]
pub struct Walk {
    layers: [Layer; MAX_LAYERS],
    len: u8,
}

impl Walk {
    /// An empty walk.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Walks the headers of `bytes`, a packet of link type `link`. Afterwards there is at least layer 0.
    pub fn run(&mut self, link: LinkType, bytes: &[u8]) {
        self.len = 0;
        let origin = bytes.as_ptr().addr();
        let mut next = Some(Enter { tunnel: Tunnel::None, tunnel_id: None, start: Start::Link(link), bytes });
        // The array's end bounds the nesting; a layer that is not entered is not even cleared.
        while let Some(enter) = next
            && let Some(layer) = self.layers.get_mut(usize::from(self.len))
        {
            *layer = Layer { tunnel: enter.tunnel, tunnel_id: enter.tunnel_id, origin, ..Layer::default() };
            self.len += 1;
            next = link::walk(layer, enter.start, enter.bytes);
            layer.origin = 0;
        }
    }

    /// The layers, outermost first; never empty after [`Walk::run`].
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        self.layers.get(..usize::from(self.len)).unwrap_or_default()
    }
}

/// The big-endian `u16` at `at`.
fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

/// The big-endian `u32` at `at`.
fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}

/// The bytes from `from` on; `None` if there are fewer.
fn after(bytes: &[u8], from: usize) -> Option<&[u8]> {
    bytes.get(from..)
}
