//! The header walk: link layer to transport, through tags, labels and tunnels.
//!
//! A [`Walk`] is a reusable, fixed-size result: layer 0 is what is on the wire, each further layer is
//! what a tunnel carries. VLAN, QinQ, MPLS and PPPoE are looked through inside one layer. The walk
//! reads only bytes that are there: a truncated header leaves the fields it could not read empty.

use crate::flow::{Direction, FlowKey};
use crate::link::LinkType;
use std::net::{IpAddr, Ipv4Addr};

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
    /// (source, destination) ports of TCP, UDP, SCTP, DCCP and UDP-Lite; `None` when the protocol has
    /// none, in later fragments and where the header is cut.
    pub ports: Option<(u16, u16)>,
    /// (type, code) of ICMP and ICMPv6; `None` otherwise and where the header is cut.
    pub icmp: Option<(u8, u8)>,
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
}

impl Layer {
    /// 12-bit VLAN ids, outermost first.
    #[must_use]
    pub fn vlans(&self) -> &[u16] {
        self.vlans.get(..usize::from(self.vlan_count)).unwrap_or_default()
    }

    /// 20-bit MPLS labels, top of stack first.
    #[must_use]
    pub fn labels(&self) -> &[u32] {
        self.labels.get(..usize::from(self.label_count)).unwrap_or_default()
    }

    /// Canonical flow key and direction, for IP layers. Ports are 0 where they are unknown.
    #[must_use]
    pub fn flow(&self) -> Option<(FlowKey, Direction)> {
        let Net::Ip(ip) = self.net else { return None };
        // ICMP type and code as ports: the Community ID specification's mapping.
        let (sport, dport) = ip.ports.unwrap_or((0, 0));
        Some(FlowKey::new((ip.src, sport), (ip.dst, dport), ip.proto, false))
    }
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
    pub fn run(&mut self, _link: LinkType, _bytes: &[u8]) {
        self.len = 1;
    }

    /// The layers, outermost first; never empty after [`Walk::run`].
    #[must_use]
    pub fn layers(&self) -> &[Layer] {
        self.layers.get(..usize::from(self.len)).unwrap_or_default()
    }
}
