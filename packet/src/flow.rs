//! Flow keys and the Community ID.
//!
//! A flow key is canonical: both directions of a conversation give the same one. Its order is that of
//! the Community ID v1 specification (<https://github.com/corelight/community-id-spec>), so one SHA-1
//! serves the identifier that analysts exchange and the order of rows in the index.

use crate::walk::icmp::as_ports;
use base64::Engine as _;
use sha1::{Digest as _, Sha1};
use std::fmt;
use std::net::IpAddr;

/// Which way a packet travels over its canonical [`FlowKey`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// Source is `addr_a`.
    AtoB,
    /// Source is `addr_b`.
    BtoA,
}

/// Canonical 5-tuple. `a` is the smaller (address, port) pair, except for one-way ICMP messages,
/// where `a` is the source (Community ID v1). For ICMP the ports are (type, counterpart type or
/// code) as that specification maps them; 0 where the protocol has no ports or they are unknown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FlowKey {
    /// Address of side a.
    pub addr_a: IpAddr,
    /// Address of side b; same family as `addr_a`.
    pub addr_b: IpAddr,
    /// Port of side a.
    pub port_a: u16,
    /// Port of side b.
    pub port_b: u16,
    /// IP protocol number.
    pub proto: u8,
}

impl FlowKey {
    /// The canonical key of a packet from `src` to `dst`, and the packet's direction over it.
    /// `one_way` suppresses the ordering, for ICMP messages without a counterpart.
    #[must_use]
    pub fn new(src: (IpAddr, u16), dst: (IpAddr, u16), proto: u8, one_way: bool) -> (Self, Direction) {
        let forward = one_way || (src <= dst);
        let (a, b, dir) = if forward { (src, dst, Direction::AtoB) } else { (dst, src, Direction::BtoA) };
        (Self { addr_a: a.0, addr_b: b.0, port_a: a.1, port_b: b.1, proto }, dir)
    }

    /// The key of a conversation between `orig`, who began it, and `resp`: that of each of its packets. The
    /// ports of ICMP are the type and code of its first message.
    #[must_use]
    pub fn of_session(orig: (IpAddr, u16), resp: (IpAddr, u16), proto: u8) -> Self {
        let (sport, dport, one_way) = match (u8::try_from(orig.1), u8::try_from(resp.1)) {
            (Ok(kind), Ok(code)) if is_icmp(proto) => as_ports(proto, kind, code),
            _ => (orig.1, resp.1, false),
        };
        Self::new((orig.0, sport), (resp.0, dport), proto, one_way).0
    }

    /// Community ID v1 of this flow. `with_ports` is false for protocols that have none (they hash
    /// without the port fields); `seed` is 0 unless a site has chosen another.
    #[must_use]
    pub fn community_id(&self, with_ports: bool, seed: u16) -> CommunityId {
        let ([s0, s1], [a0, a1], [b0, b1]) =
            (seed.to_be_bytes(), self.port_a.to_be_bytes(), self.port_b.to_be_bytes());
        let ports = if with_ports { &[a0, a1, b0, b1][..] } else { &[] };
        let mut sha = Sha1::new();
        match (self.addr_a, self.addr_b) {
            // One call each, not six: millions of rows are hashed when a segment ends.
            (IpAddr::V4(a), IpAddr::V4(b)) => {
                let ([i0, i1, i2, i3], [j0, j1, j2, j3]) = (a.octets(), b.octets());
                sha.update([s0, s1, i0, i1, i2, i3, j0, j1, j2, j3, self.proto, 0]);
            }
            (a, b) => {
                sha.update([s0, s1]);
                for addr in [a, b] {
                    match addr {
                        IpAddr::V4(v4) => sha.update(v4.octets()),
                        IpAddr::V6(v6) => sha.update(v6.octets()),
                    }
                }
                sha.update([self.proto, 0]);
            }
        }
        sha.update(ports);
        CommunityId(sha.finalize().into())
    }
}

fn is_icmp(proto: u8) -> bool {
    matches!(proto, 1 | 58)
}

/// A Community ID v1: the SHA-1 behind the text form `1:<base64>`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CommunityId(pub [u8; 20]);

impl CommunityId {
    /// Whether Community ID v1 hashes ports for this IP protocol: TCP, UDP, SCTP and, with type and
    /// code in their place, ICMP and ICMPv6.
    #[must_use]
    pub const fn hashes_ports(proto: u8) -> bool {
        matches!(proto, 1 | 6 | 17 | 58 | 132)
    }

    /// The Community ID, seed 0, of a conversation between `orig`, who began it, and `resp`. The ports of
    /// ICMP are the type and code of its first message. `None` where the protocol has ports and both are 0:
    /// they are unknown then.
    #[must_use]
    pub fn of_session(orig: (IpAddr, u16), resp: (IpAddr, u16), proto: u8) -> Option<Self> {
        let with_ports = Self::hashes_ports(proto);
        if with_ports && !is_icmp(proto) && orig.1 == 0 && resp.1 == 0 {
            return None;
        }
        Some(FlowKey::of_session(orig, resp, proto).community_id(with_ports, 0))
    }

    /// Reads the text form `1:<base64 of 20 bytes>`; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let b64 = text.strip_prefix("1:")?;
        let bytes = base64::engine::general_purpose::STANDARD.decode(b64).ok()?;
        Some(Self(bytes.try_into().ok()?))
    }

    /// The first eight bytes, big-endian: what the index sorts flow rows by.
    #[must_use]
    pub fn prefix64(&self) -> u64 {
        self.0.iter().take(8).fold(0, |acc, b| (acc << 8) | u64::from(*b))
    }
}

impl fmt::Display for CommunityId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1:{}", base64::engine::general_purpose::STANDARD.encode(self.0))
    }
}
