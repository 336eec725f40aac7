//! Link types: the LINKTYPE_ numbers of pcap and pcapng files.

use std::fmt;

/// A LINKTYPE_ value (<https://www.tcpdump.org/linktypes.html>), as in pcap headers and pcapng IDBs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkType(pub u16);

impl LinkType {
    /// BSD loopback, host byte order family (LINKTYPE_NULL).
    pub const NULL: Self = Self(0);
    /// Ethernet (LINKTYPE_ETHERNET).
    pub const ETHERNET: Self = Self(1);
    /// PPP (LINKTYPE_PPP).
    pub const PPP: Self = Self(9);
    /// FDDI (LINKTYPE_FDDI).
    pub const FDDI: Self = Self(10);
    /// Raw IP under the number that some systems gave it (12).
    pub const RAW_BSD: Self = Self(12);
    /// Raw IP under OpenBSD's number (14).
    pub const RAW_OPENBSD: Self = Self(14);
    /// PPP in HDLC-like framing (LINKTYPE_PPP_HDLC).
    pub const PPP_HDLC: Self = Self(50);
    /// PPPoE session, from its own header on (LINKTYPE_PPP_ETHER).
    pub const PPP_ETHER: Self = Self(51);
    /// LLC over ATM (LINKTYPE_ATM_RFC1483).
    pub const ATM_LLC: Self = Self(100);
    /// Raw IP, version by the first nibble (LINKTYPE_RAW).
    pub const RAW: Self = Self(101);
    /// Cisco HDLC (LINKTYPE_C_HDLC).
    pub const C_HDLC: Self = Self(104);
    /// IEEE 802.11 (LINKTYPE_IEEE802_11).
    pub const IEEE802_11: Self = Self(105);
    /// Frame Relay (LINKTYPE_FRELAY).
    pub const FRAME_RELAY: Self = Self(107);
    /// OpenBSD loopback, big-endian family (LINKTYPE_LOOP).
    pub const LOOP: Self = Self(108);
    /// Linux cooked capture v1 (LINKTYPE_LINUX_SLL).
    pub const LINUX_SLL: Self = Self(113);
    /// OpenBSD's packet filter log (LINKTYPE_PFLOG).
    pub const PFLOG: Self = Self(117);
    /// IEEE 802.11 behind radiotap (LINKTYPE_IEEE802_11_RADIOTAP).
    pub const IEEE802_11_RADIOTAP: Self = Self(127);
    /// Per-Packet Information (LINKTYPE_PPI).
    pub const PPI: Self = Self(192);
    /// MPLS label stack (LINKTYPE_MPLS).
    pub const MPLS: Self = Self(219);
    /// Raw IPv4 (LINKTYPE_IPV4).
    pub const IPV4: Self = Self(228);
    /// Raw IPv6 (LINKTYPE_IPV6).
    pub const IPV6: Self = Self(229);
    /// Linux netfilter log (LINKTYPE_NFLOG).
    pub const NFLOG: Self = Self(239);
    /// Linux cooked capture v2 (LINKTYPE_LINUX_SLL2).
    pub const LINUX_SLL2: Self = Self(276);
}

impl fmt::Display for LinkType {
    /// The usual short name where we know one, else the number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = match *self {
            Self::NULL => "NULL",
            Self::ETHERNET => "EN10MB",
            Self::PPP => "PPP",
            Self::PPP_HDLC => "PPP_SERIAL",
            Self::RAW | Self::RAW_BSD | Self::RAW_OPENBSD => "RAW",
            Self::C_HDLC => "C_HDLC",
            Self::LOOP => "LOOP",
            Self::LINUX_SLL => "LINUX_SLL",
            Self::IPV4 => "IPV4",
            Self::IPV6 => "IPV6",
            Self::LINUX_SLL2 => "LINUX_SLL2",
            Self::FDDI => "FDDI",
            Self::PPP_ETHER => "PPP_ETHER",
            Self::ATM_LLC => "ATM_RFC1483",
            Self::IEEE802_11 => "IEEE802_11",
            Self::FRAME_RELAY => "FRELAY",
            Self::PFLOG => "PFLOG",
            Self::IEEE802_11_RADIOTAP => "IEEE802_11_RADIO",
            Self::PPI => "PPI",
            Self::MPLS => "MPLS",
            Self::NFLOG => "NFLOG",
            Self(other) => return write!(f, "LINKTYPE_{other}"),
        };
        f.write_str(name)
    }
}
