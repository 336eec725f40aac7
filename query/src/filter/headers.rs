//! What the headers of a layer say, in the form both a real layer and an index row can give it.
//!
//! Rows and layers answer through this one function, so the index cannot disagree with the packets.

use super::ast::{Atom, Dir, Family, Prefix, Transport, Version};
use std::net::IpAddr;
use tapedeck_packet::{Layer, Net};

/// EtherTypes whose atoms ask for the network header as well.
mod ethertype {
    pub(super) const ARP: u16 = 0x0806;
    pub(super) const RARP: u16 = 0x8035;
    pub(super) const MPLS: [u16; 2] = [0x8847, 0x8848];
    pub(super) const PPPOE: u16 = 0x8864;
    pub(super) const VLAN: [u16; 3] = [0x8100, 0x88a8, 0x9100];
}

/// The headers of one layer, in the direction a packet went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Headers<'a> {
    /// EtherType behind all tags and labels.
    pub ethertype: Option<u16>,
    /// VLAN ids.
    pub vlans: &'a [u16],
    /// MPLS labels.
    pub labels: &'a [u32],
    /// PPPoE session.
    pub pppoe: Option<u16>,
    /// Source and destination address of IP, sender and target of ARP and RARP.
    pub ends: Option<(IpAddr, IpAddr)>,
    /// IP protocol behind extension headers; `None` for what is not IP.
    pub proto: Option<u8>,
    /// Source and destination port, where there are ports and they are known. Not ICMP's types.
    pub ports: Option<(u16, u16)>,
}

impl<'a> Headers<'a> {
    /// The headers of a real layer.
    #[must_use]
    pub fn of(layer: &'a Layer) -> Self {
        let (ends, proto, ports) = match layer.net {
            Net::Ip(ip) => (Some((ip.src, ip.dst)), Some(ip.proto), ip.ports),
            Net::Arp(arp) => (Some((arp.sender.into(), arp.target.into())), None, None),
            Net::Unknown => (None, None, None),
        };
        Self {
            ethertype: layer.ethertype,
            vlans: layer.vlans(),
            labels: layer.labels(),
            pppoe: layer.pppoe,
            ends,
            proto,
            ports,
        }
    }

    /// The answer to `atom`. False for what headers in this form cannot say: link-layer addresses,
    /// lengths, Community IDs ([`Headers::can_answer`]).
    #[must_use]
    pub fn answer(&self, atom: &Atom) -> bool {
        match *atom {
            Atom::Addr { family, dir, net } => self.address(family, dir, net),
            Atom::Port { transport, dir, range } => self.port(transport, dir, range),
            Atom::EtherType(asked) => self.ethertype == Some(asked),
            Atom::Proto { version, number } => self.proto == Some(number) && self.version(version),
            Atom::Vlan(None) => !self.vlans.is_empty() || self.cut_before(&ethertype::VLAN),
            Atom::Vlan(Some(id)) => self.vlans.contains(&id),
            Atom::Mpls(None) => !self.labels.is_empty() || self.cut_before(&ethertype::MPLS),
            Atom::Mpls(Some(label)) => self.labels.contains(&label),
            Atom::Pppoe(None) => self.pppoe.is_some() || self.cut_before(&[ethertype::PPPOE]),
            Atom::Pppoe(Some(session)) => self.pppoe == Some(session),
            Atom::IpMulticast(version) => self.multicast(version),
            Atom::Flow { a, b, proto } => self.flow(a, b, proto),
            Atom::Mac { .. }
            | Atom::Broadcast
            | Atom::Multicast
            | Atom::AtMost(_)
            | Atom::AtLeast(_)
            | Atom::CommunityId(_) => false,
        }
    }

    /// Whether [`Headers::answer`] answers this atom.
    #[must_use]
    pub fn can_answer(atom: &Atom) -> bool {
        !matches!(
            atom,
            Atom::Mac { .. }
                | Atom::Broadcast
                | Atom::Multicast
                | Atom::AtMost(_)
                | Atom::AtLeast(_)
                | Atom::CommunityId(_)
        )
    }

    /// A tag that was announced but is cut: the tag is there, its number is not.
    fn cut_before(&self, ethertypes: &[u16]) -> bool {
        self.ethertype.is_some_and(|ethertype| ethertypes.contains(&ethertype))
    }

    fn address(&self, family: Family, dir: Dir, net: Prefix) -> bool {
        let Some((src, dst)) = self.ends else { return false };
        let family_fits = match family {
            Family::Any => true,
            Family::Ip => self.proto.is_some() && src.is_ipv4(),
            Family::Ip6 => self.proto.is_some() && src.is_ipv6(),
            Family::Arp => self.ethertype == Some(ethertype::ARP),
            Family::Rarp => self.ethertype == Some(ethertype::RARP),
        };
        family_fits && dir.holds(net.contains(src), net.contains(dst))
    }

    fn port(&self, transport: Transport, dir: Dir, (first, last): (u16, u16)) -> bool {
        const TCP: u8 = 6;
        const UDP: u8 = 17;
        const SCTP: u8 = 132;
        let Some((src, dst)) = self.ports else { return false };
        let transport_fits = match (transport, self.proto) {
            (Transport::Any, Some(TCP | UDP | SCTP))
            | (Transport::Tcp, Some(TCP))
            | (Transport::Udp, Some(UDP))
            | (Transport::Sctp, Some(SCTP)) => true,
            (_, _) => false,
        };
        let within = |port| first <= port && port <= last;
        transport_fits && dir.holds(within(src), within(dst))
    }

    fn version(&self, version: Version) -> bool {
        self.ends.is_some_and(|(src, _)| match version {
            Version::Any => true,
            Version::V4 => src.is_ipv4(),
            Version::V6 => src.is_ipv6(),
        })
    }

    /// As in tcpdump: 224.0.0.0 and above, the broadcast address among them; ff00::/8.
    fn multicast(&self, version: Version) -> bool {
        let Some((_, dst)) = self.ends else { return false };
        self.proto.is_some()
            && match (version, dst) {
                (Version::V4 | Version::Any, IpAddr::V4(dst)) => {
                    dst.octets().first().is_some_and(|b| *b >= 224)
                }
                (Version::V6 | Version::Any, IpAddr::V6(dst)) => dst.is_multicast(),
                _ => false,
            }
    }

    fn flow(&self, a: (IpAddr, u16), b: (IpAddr, u16), proto: u8) -> bool {
        let (Some((src, dst)), Some((sport, dport))) = (self.ends, self.ports) else { return false };
        let ends = ((src, sport), (dst, dport));
        self.proto == Some(proto) && (ends == (a, b) || ends == (b, a))
    }
}

impl Dir {
    /// Whether the end or ends meant hold.
    #[must_use]
    pub fn holds(self, source: bool, destination: bool) -> bool {
        match self {
            Self::Either => source || destination,
            Self::Both => source && destination,
            Self::Source => source,
            Self::Destination => destination,
        }
    }
}
