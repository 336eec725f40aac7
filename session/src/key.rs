//! The key of a session in the table: compact, canonical, hashed in a few multiplications.
//!
//! The order is that of [`tapedeck_packet::FlowKey`]: the smaller (address, port) first, except for ICMP
//! messages that have no counterpart, where the source is first.

use crate::pair::{End, Pair};
use std::hint::select_unpredictable;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tapedeck_packet::hash::{FACTORS, fold};

/// Addresses, ports, protocol, and what else tells two sessions apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    addresses: [u64; 4],
    /// Protocol in bits 0-7, flags in 8-11, VLAN id in 16-27, port of b in 32-47, of a in 48-63. One word: a key is
    /// written and at once read, and fields that are written in halves and read as one stall the reader.
    rest: u64,
}

const IPV6: u64 = 1 << 8;
/// Inside a tunnel.
const INNER: u64 = 1 << 9;
/// The packets do not show their ports.
const NO_PORTS: u64 = 1 << 10;
const WITH_VLAN: u64 = 1 << 11;

/// What a key is made of, as the packet has it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Parts {
    pub(crate) src: IpAddr,
    pub(crate) dst: IpAddr,
    pub(crate) sport: u16,
    pub(crate) dport: u16,
    pub(crate) proto: u8,
    /// The source comes first, whatever the order.
    pub(crate) one_way: bool,
    pub(crate) inner: bool,
    pub(crate) no_ports: bool,
    pub(crate) vlan: Option<u16>,
}

impl Key {
    /// The key, and on which of its sides the sender stands.
    #[inline]
    pub(crate) fn new(parts: &Parts) -> (Self, End) {
        let (src, v6) = words(parts.src);
        let (dst, _) = words(parts.dst);
        let mut kind = u64::from(parts.proto);
        kind |= if v6 { IPV6 } else { 0 };
        kind |= if parts.inner { INNER } else { 0 };
        kind |= if parts.no_ports { NO_PORTS } else { 0 };
        if let Some(vlan) = parts.vlan {
            kind |= WITH_VLAN | u64::from(vlan & 0x0fff) << 16;
        }
        // Without a branch: which side sends cannot be predicted.
        let (number_a, number_b) = (number(src), number(dst));
        let first = (number_a < number_b) | ((number_a == number_b) & (parts.sport <= parts.dport));
        let forward = first | parts.one_way;
        let pick = |a: u64, b: u64| select_unpredictable(forward, a, b);
        let addresses =
            [pick(src[0], dst[0]), pick(src[1], dst[1]), pick(dst[0], src[0]), pick(dst[1], src[1])];
        let end = select_unpredictable(forward, End::A, End::B);
        let (sport, dport) = (u64::from(parts.sport), u64::from(parts.dport));
        let ports = pick(sport << 48 | dport << 32, dport << 48 | sport << 32);
        (Self { addresses, rest: ports | kind }, end)
    }

    #[inline]
    pub(crate) fn hash(&self, seed: u64) -> u64 {
        let [a0, a1, b0, b1] = self.addresses;
        let mut hash = fold(a1 ^ seed, b1 ^ FACTORS[0]);
        if self.rest & IPV6 != 0 {
            hash ^= fold(a0 ^ seed.rotate_left(32), b0 ^ FACTORS[1]);
        }
        fold(hash ^ self.rest, FACTORS[2] ^ seed)
    }

    pub(crate) const fn proto(&self) -> u8 {
        self.rest.to_le_bytes()[0]
    }

    /// TCP, with its ports.
    #[inline]
    pub(crate) const fn is_tcp(&self) -> bool {
        const TCP: u64 = crate::input::proto::TCP as u64;
        self.rest & (0xff | NO_PORTS) == TCP
    }

    pub(crate) const fn inner(&self) -> bool {
        self.rest & INNER != 0
    }

    pub(crate) const fn no_ports(&self) -> bool {
        self.rest & NO_PORTS != 0
    }

    pub(crate) fn vlan(&self) -> Option<u16> {
        let [_, _, low, high, ..] = self.rest.to_le_bytes();
        (self.rest & WITH_VLAN != 0).then_some(u16::from_le_bytes([low, high]))
    }

    pub(crate) fn addresses(&self) -> Pair<IpAddr> {
        let [a0, a1, b0, b1] = self.addresses;
        Pair { a: self.address(a0, a1), b: self.address(b0, b1) }
    }

    pub(crate) const fn ports(&self) -> Pair<u16> {
        let [_, _, _, _, b0, b1, a0, a1] = self.rest.to_le_bytes();
        Pair { a: u16::from_le_bytes([a0, a1]), b: u16::from_le_bytes([b0, b1]) }
    }

    fn address(&self, high: u64, low: u64) -> IpAddr {
        let bits = u128::from(high) << 64 | u128::from(low);
        match u32::try_from(bits) {
            Ok(v4) if self.rest & IPV6 == 0 => IpAddr::V4(Ipv4Addr::from_bits(v4)),
            _ => IpAddr::V6(Ipv6Addr::from_bits(bits)),
        }
    }
}

fn number([high, low]: [u64; 2]) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

#[inline]
fn words(address: IpAddr) -> ([u64; 2], bool) {
    match address {
        IpAddr::V4(v4) => ([0, u64::from(v4.to_bits())], false),
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = v6.octets();
            let high = u64::from_be_bytes([a, b, c, d, e, f, g, h]);
            ([high, u64::from_be_bytes([i, j, k, l, m, n, o, p])], true)
        }
    }
}
