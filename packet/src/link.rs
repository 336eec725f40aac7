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
    /// PPP in HDLC-like framing (LINKTYPE_PPP_HDLC).
    pub const PPP_HDLC: Self = Self(50);
    /// Raw IP, version by the first nibble (LINKTYPE_RAW).
    pub const RAW: Self = Self(101);
    /// Cisco HDLC (LINKTYPE_C_HDLC).
    pub const C_HDLC: Self = Self(104);
    /// OpenBSD loopback, big-endian family (LINKTYPE_LOOP).
    pub const LOOP: Self = Self(108);
    /// Linux cooked capture v1 (LINKTYPE_LINUX_SLL).
    pub const LINUX_SLL: Self = Self(113);
    /// Raw IPv4 (LINKTYPE_IPV4).
    pub const IPV4: Self = Self(228);
    /// Raw IPv6 (LINKTYPE_IPV6).
    pub const IPV6: Self = Self(229);
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
            Self::RAW => "RAW",
            Self::C_HDLC => "C_HDLC",
            Self::LOOP => "LOOP",
            Self::LINUX_SLL => "LINUX_SLL",
            Self::IPV4 => "IPV4",
            Self::IPV6 => "IPV6",
            Self::LINUX_SLL2 => "LINUX_SLL2",
            Self(other) => return write!(f, "LINKTYPE_{other}"),
        };
        f.write_str(name)
    }
}
