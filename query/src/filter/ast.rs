//! The filter language as a tree, and the tree as text.
//!
//! A tree prints itself so that reading the text gives the same tree. Trees are kept in one form: a
//! chain of the same operator is one node, and no node nests deeper than the parser allows.

use super::session::SessionAtom;
use std::fmt;
use std::net::IpAddr;
use tapedeck_packet::{CommunityId, Mac};

/// A filter expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expr {
    /// The empty filter: every packet. Only as a whole filter, never inside one.
    All,
    /// One question to a layer.
    Atom(Atom),
    /// One question that only a session can answer.
    Session(SessionAtom),
    /// Negation.
    Not(Box<Expr>),
    /// All of these; two or more, and the first is no `And`.
    And(Vec<Expr>),
    /// Any of these; two or more, and the first is no `Or`.
    Or(Vec<Expr>),
    /// One layer of the packet, the outermost or one inside a tunnel, satisfies all of this.
    Inner(Box<Expr>),
}

impl Expr {
    /// `self and other`.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        match self {
            Self::And(mut all) => {
                all.push(other);
                Self::And(all)
            }
            first => Self::And(vec![first, other]),
        }
    }

    /// `self or other`.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        match self {
            Self::Or(mut any) => {
                any.push(other);
                Self::Or(any)
            }
            first => Self::Or(vec![first, other]),
        }
    }

    /// The first part, in order of the text, for which `test` has an answer.
    pub fn find<T>(&self, test: &impl Fn(&Self) -> Option<T>) -> Option<T> {
        test(self).or_else(|| match self {
            Self::All | Self::Atom(_) | Self::Session(_) => None,
            Self::Not(inner) | Self::Inner(inner) => inner.find(test),
            Self::And(parts) | Self::Or(parts) => parts.iter().find_map(|part| part.find(test)),
        })
    }

    /// `not self`.
    #[must_use]
    pub fn negated(self) -> Self {
        Self::Not(Box::new(self))
    }
}

/// Which end of a packet is meant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dir {
    /// Source or destination (no qualifier, `src or dst`).
    #[default]
    Either,
    /// `src and dst`.
    Both,
    /// `src`.
    Source,
    /// `dst`.
    Destination,
}

/// Which network protocol an address is looked for in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Family {
    /// IPv4, ARP and RARP for an IPv4 address; IPv6 for an IPv6 address.
    #[default]
    Any,
    /// `ip`
    Ip,
    /// `ip6`
    Ip6,
    /// `arp`
    Arp,
    /// `rarp`
    Rarp,
}

/// Which transport a port is looked for in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Transport {
    /// TCP, UDP and SCTP.
    #[default]
    Any,
    /// `tcp`
    Tcp,
    /// `udp`
    Udp,
    /// `sctp`
    Sctp,
}

/// Which IP version a protocol number is looked for in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Version {
    /// Both.
    #[default]
    Any,
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

/// A network: the first `bits` bits of `addr`. The other bits are 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    addr: IpAddr,
    bits: u8,
}

impl Prefix {
    /// A network; `None` if `bits` is more than the address has, or if bits behind them are set.
    #[must_use]
    pub fn new(addr: IpAddr, bits: u8) -> Option<Self> {
        let prefix = Self { addr, bits };
        (bits <= Self::width(addr) && masked(addr, bits) == addr).then_some(prefix)
    }

    /// The network of one address.
    #[must_use]
    pub fn host(addr: IpAddr) -> Self {
        Self { addr, bits: Self::width(addr) }
    }

    /// First address.
    #[must_use]
    pub fn addr(&self) -> IpAddr {
        self.addr
    }

    /// Length in bits.
    #[must_use]
    pub fn bits(&self) -> u8 {
        self.bits
    }

    /// Whether it is a single address.
    #[must_use]
    pub fn is_host(&self) -> bool {
        self.bits == Self::width(self.addr)
    }

    /// Whether `addr` lies in it.
    #[must_use]
    pub fn contains(&self, addr: IpAddr) -> bool {
        match (self.addr, addr) {
            (IpAddr::V4(net), IpAddr::V4(addr)) => {
                let differ = u32::from(net) ^ u32::from(addr);
                differ.checked_shr(32 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            (IpAddr::V6(net), IpAddr::V6(addr)) => {
                let differ = u128::from(net) ^ u128::from(addr);
                differ.checked_shr(128 - u32::from(self.bits)).unwrap_or(0) == 0
            }
            _ => false,
        }
    }

    fn width(addr: IpAddr) -> u8 {
        if addr.is_ipv4() { 32 } else { 128 }
    }
}

/// `addr` with all but its first `bits` bits cleared.
fn masked(addr: IpAddr, bits: u8) -> IpAddr {
    match addr {
        IpAddr::V4(v4) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            IpAddr::V4((u32::from(v4) & mask).into())
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            IpAddr::V6((u128::from(v6) & mask).into())
        }
    }
}

/// One question to a layer of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Atom {
    /// `host`, `net`: an address lies in a network.
    Addr {
        /// Where addresses are looked for.
        family: Family,
        /// Which end.
        dir: Dir,
        /// The network; a host is one of full length.
        net: Prefix,
    },
    /// `port`, `portrange`: a known port lies in a range, both ends included.
    Port {
        /// Of which transport.
        transport: Transport,
        /// Which end.
        dir: Dir,
        /// First and last port, in order.
        range: (u16, u16),
    },
    /// `ether host`: a link-layer address.
    Mac {
        /// Which end.
        dir: Dir,
        /// The address.
        mac: [u8; 6],
    },
    /// `ip`, `arp`, `ether proto N`: the EtherType behind all tags and labels.
    EtherType(u16),
    /// `tcp`, `icmp6`, `ip proto N`: the transport protocol, behind extension headers.
    Proto {
        /// In which IP version.
        version: Version,
        /// Protocol number.
        number: u8,
    },
    /// `vlan`: any tag, or one with this id.
    Vlan(Option<u16>),
    /// `mpls`: any label, or this one.
    Mpls(Option<u32>),
    /// `pppoes`: any PPPoE session, or this one.
    Pppoe(Option<u16>),
    /// `less N`: the packet was at most N bytes long on the wire.
    AtMost(u32),
    /// `greater N`: the packet was at least N bytes long on the wire.
    AtLeast(u32),
    /// `ether broadcast`.
    Broadcast,
    /// `ether multicast`.
    Multicast,
    /// `ip multicast`, `ip6 multicast`: the destination is a multicast (or the broadcast) address.
    IpMulticast(Version),
    /// `community-id`: Community ID v1 with seed 0.
    CommunityId(CommunityId),
    /// `flow`: a conversation in either direction.
    Flow {
        /// One end.
        a: (IpAddr, u16),
        /// The other end.
        b: (IpAddr, u16),
        /// IP protocol number.
        proto: u8,
    },
}

impl fmt::Display for Expr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => Ok(()),
            Self::Atom(atom) => write!(f, "{atom}"),
            Self::Session(atom) => write!(f, "{atom}"),
            Self::Not(inner) => write!(f, "not {}", Operand(inner)),
            Self::Inner(inner) => write!(f, "inner ({inner})"),
            Self::And(all) => chain(f, all, " and "),
            Self::Or(any) => chain(f, any, " or "),
        }
    }
}

/// Operators are of equal rank and group from the left, so only the first operand stands bare.
fn chain(f: &mut fmt::Formatter<'_>, operands: &[Expr], operator: &str) -> fmt::Result {
    for (at, operand) in operands.iter().enumerate() {
        match at {
            0 => write!(f, "{operand}")?,
            _ => write!(f, "{operator}{}", Operand(operand))?,
        }
    }
    Ok(())
}

/// An expression in brackets where it is not one word to its neighbours.
struct Operand<'a>(&'a Expr);

impl fmt::Display for Operand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Expr::And(_) | Expr::Or(_) => write!(f, "({})", self.0),
            other => write!(f, "{other}"),
        }
    }
}

impl fmt::Display for Dir {
    /// With a blank behind, or nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Either => "",
            Self::Both => "src and dst ",
            Self::Source => "src ",
            Self::Destination => "dst ",
        })
    }
}

impl fmt::Display for Family {
    /// With a blank behind, or nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "",
            Self::Ip => "ip ",
            Self::Ip6 => "ip6 ",
            Self::Arp => "arp ",
            Self::Rarp => "rarp ",
        })
    }
}

impl fmt::Display for Transport {
    /// With a blank behind, or nothing.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Any => "",
            Self::Tcp => "tcp ",
            Self::Udp => "udp ",
            Self::Sctp => "sctp ",
        })
    }
}

impl fmt::Display for Atom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Addr { family, dir, net } if net.is_host() => write!(f, "{family}{dir}host {}", net.addr),
            Self::Addr { family, dir, net } => write!(f, "{family}{dir}net {}/{}", net.addr, net.bits),
            Self::Port { transport, dir, range: (first, last) } if first == last => {
                write!(f, "{transport}{dir}port {first}")
            }
            Self::Port { transport, dir, range: (first, last) } => {
                write!(f, "{transport}{dir}portrange {first}-{last}")
            }
            Self::Mac { dir, mac } => write!(f, "ether {dir}host {}", Mac(mac)),
            Self::EtherType(0x0800) => f.write_str("ip"),
            Self::EtherType(0x86dd) => f.write_str("ip6"),
            Self::EtherType(0x0806) => f.write_str("arp"),
            Self::EtherType(0x8035) => f.write_str("rarp"),
            Self::EtherType(0x8863) => f.write_str("pppoed"),
            Self::EtherType(other) => write!(f, "ether proto 0x{other:04x}"),
            Self::Proto { version, number } => proto(f, version, number),
            Self::Vlan(id) => optional(f, "vlan", id),
            Self::Mpls(label) => optional(f, "mpls", label),
            Self::Pppoe(session) => optional(f, "pppoes", session),
            Self::AtMost(bytes) => write!(f, "less {bytes}"),
            Self::AtLeast(bytes) => write!(f, "greater {bytes}"),
            Self::Broadcast => f.write_str("ether broadcast"),
            Self::Multicast => f.write_str("ether multicast"),
            Self::IpMulticast(Version::V6) => f.write_str("ip6 multicast"),
            Self::IpMulticast(_) => f.write_str("ip multicast"),
            Self::CommunityId(id) => write!(f, "community-id {id}"),
            Self::Flow { a, b, proto } => {
                write!(f, "flow {} {} ", End(a), End(b))?;
                match proto {
                    6 => f.write_str("tcp"),
                    17 => f.write_str("udp"),
                    132 => f.write_str("sctp"),
                    other => write!(f, "{other}"),
                }
            }
        }
    }
}

fn proto(f: &mut fmt::Formatter<'_>, version: Version, number: u8) -> fmt::Result {
    match (version, number) {
        (Version::Any, 6) => f.write_str("tcp"),
        (Version::Any, 17) => f.write_str("udp"),
        (Version::Any, 132) => f.write_str("sctp"),
        (Version::V4, 1) => f.write_str("icmp"),
        (Version::V6, 58) => f.write_str("icmp6"),
        (Version::Any, _) => write!(f, "proto {number}"),
        (Version::V4, _) => write!(f, "ip proto {number}"),
        (Version::V6, _) => write!(f, "ip6 proto {number}"),
    }
}

fn optional(f: &mut fmt::Formatter<'_>, word: &str, number: Option<impl fmt::Display>) -> fmt::Result {
    match number {
        Some(number) => write!(f, "{word} {number}"),
        None => f.write_str(word),
    }
}

/// An address and port as `flow` takes them.
struct End((IpAddr, u16));

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", std::net::SocketAddr::from(self.0))
    }
}
