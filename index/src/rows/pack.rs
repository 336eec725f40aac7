//! Rows packed into nine words: the one encoding behind hashing, equality and the journal.
//!
//! The bits are those of docs/format.md ("Packed row"). A packed row that [`PackedRow::of`] does not
//! make is refused by [`PackedRow::row`].

use super::{A_TO_B, B_TO_A, Row, Subject, Tags};
use crate::bytes::{put_varint, take, take_varint32};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tapedeck_packet::{Direction, FlowKey, Fragment, Ip, Layer, Net, Tunnel};

/// Words of a packed row.
pub(crate) const WORDS: usize = 9;

const OPAQUE: u64 = 0;
const IPV4: u64 = 1;
const IPV6: u64 = 2;
const ARP: u64 = 3;
const LINK: u64 = 4;
const COARSE: u64 = 5;

const PORTS_KNOWN: u64 = 1 << 3;
const LATER: u64 = 1 << 4;
const HAS_ETHERTYPE: u64 = 1 << 5;
const INNER: u64 = 1 << 6;
const HAS_TUNNEL_ID: u64 = 1 << 7;
const HAS_PPPOE: u64 = 1 << 8;
const HAS_MACS: u64 = 1 << 9;
const TUNNEL_AT: u32 = 12;
const PROTO_AT: u32 = 16;
const VLANS_AT: u32 = 24;
const LABELS_AT: u32 = 28;
const ETHERTYPE_AT: u32 = 32;
const PPPOE_AT: u32 = 48;

/// Tunnels in the order of their numbers on disk.
const TUNNELS: [Tunnel; 10] = [
    Tunnel::None,
    Tunnel::IpIp,
    Tunnel::Gre,
    Tunnel::Erspan,
    Tunnel::Vxlan,
    Tunnel::Geneve,
    Tunnel::Gtp,
    Tunnel::Teredo,
    Tunnel::EtherIp,
    Tunnel::Other,
];

/// A tunnel's number on disk.
pub(crate) const fn tunnel_code(tunnel: Tunnel) -> u8 {
    match tunnel {
        Tunnel::None => 0,
        Tunnel::IpIp => 1,
        Tunnel::Gre => 2,
        Tunnel::Erspan => 3,
        Tunnel::Vxlan => 4,
        Tunnel::Geneve => 5,
        Tunnel::Gtp => 6,
        Tunnel::Teredo => 7,
        Tunnel::EtherIp => 8,
        Tunnel::Other => 9,
    }
}

/// The tunnel of a number on disk.
pub(crate) fn tunnel_of(code: u8) -> Option<Tunnel> {
    TUNNELS.get(usize::from(code)).copied()
}

/// A row as nine words: what the recorder hands on, compared and hashed in a few instructions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PackedRow(pub(crate) [u64; WORDS]);

impl PackedRow {
    /// The packed row of a layer, and its direction bit: [`Row::of`] and [`PackedRow::of`] in one, once
    /// for each layer of each packet.
    #[inline]
    pub(crate) fn of_layer(layer: &Layer, inner: bool) -> (Self, u8) {
        let (subject, [a0, a1, b0, b1], ports, direction) = match layer.net {
            Net::Ip(ip) => ip_words(layer, &ip),
            _ => {
                let (subject, direction) = Row::subject_of(layer);
                let (head, addresses, ports) = subject_words(&subject);
                (head, addresses, ports, direction)
            }
        };
        let mut head = subject | (u64::from(tunnel_code(layer.tunnel)) << TUNNEL_AT);
        let mut ids = ports << 32;
        if let Some(ethertype) = layer.ethertype {
            head |= HAS_ETHERTYPE | (u64::from(ethertype) << ETHERTYPE_AT);
        }
        if let Some(session) = layer.pppoe {
            head |= HAS_PPPOE | (u64::from(session) << PPPOE_AT);
        }
        if inner {
            head |= INNER;
        }
        if let Some(id) = layer.tunnel_id {
            head |= HAS_TUNNEL_ID;
            ids |= u64::from(id);
        }
        let (mut vlans, mut labels) = (0, [0; 2]);
        if !layer.vlans().is_empty() || !layer.labels().is_empty() {
            let tags = Tags::new(layer.vlans(), layer.labels());
            let (counts, v, l) = tag_words(&tags);
            head |= counts;
            (vlans, labels) = (v, l);
        }
        let [l01, l23] = labels;
        (Self([head, ids, a0, a1, b0, b1, vlans, l01, l23]), direction)
    }

    /// Packs a row.
    #[must_use]
    pub fn of(row: &Row) -> Self {
        let (subject, [a0, a1, b0, b1], ports) = subject_words(&row.subject);
        let mut head = subject;
        if let Some(ethertype) = row.ethertype {
            head |= HAS_ETHERTYPE | (u64::from(ethertype) << ETHERTYPE_AT);
        }
        if let Some(session) = row.pppoe {
            head |= HAS_PPPOE | (u64::from(session) << PPPOE_AT);
        }
        if row.inner {
            head |= INNER;
        }
        let mut ids = ports << 32;
        if let Some(id) = row.tunnel_id {
            head |= HAS_TUNNEL_ID;
            ids |= u64::from(id);
        }
        head |= u64::from(tunnel_code(row.tunnel)) << TUNNEL_AT;
        let (counts, vlans, [l01, l23]) = tag_words(&row.tags);
        Self([head | counts, ids, a0, a1, b0, b1, vlans, l01, l23])
    }

    /// The row; `None` for words that pack no row.
    #[must_use]
    pub fn row(&self) -> Option<Row> {
        // Stray bits would make two spellings of one row.
        self.known_row().filter(|row| Self::of(row) == *self)
    }

    /// As [`PackedRow::row`], of words that are known to pack one: without the look at stray bits.
    pub(crate) fn known_row(&self) -> Option<Row> {
        let [head, ids, a0, a1, b0, b1, vlans, l01, l23] = self.0;
        let has = |bit: u64| head & bit != 0;
        let half = |word: u64, at: u32| low16(word >> at);
        let count = |at: u32| usize::from(low16(head >> at) & 15);
        let ports = (half(ids, 32), half(ids, 48));
        let vlans = [0, 16, 32, 48].map(|at| half(vlans, at));
        let labels = [low32(l01), low32(l01 >> 32), low32(l23), low32(l23 >> 32)];
        Some(Row {
            subject: subject_of(head, [a0, a1, b0, b1], ports)?,
            ethertype: has(HAS_ETHERTYPE).then_some(half(head, ETHERTYPE_AT)),
            tags: Tags::new(vlans.get(..count(VLANS_AT))?, labels.get(..count(LABELS_AT))?),
            pppoe: has(HAS_PPPOE).then_some(half(head, PPPOE_AT)),
            inner: has(INNER),
            tunnel: tunnel_of(low8(head >> TUNNEL_AT) & 15)?,
            tunnel_id: has(HAS_TUNNEL_ID).then_some(low32(ids)),
        })
    }

    /// Equality in straight-line code: a call of memcmp costs more than the nine words.
    #[inline]
    pub(crate) fn same(&self, other: &Self) -> bool {
        self.0.iter().zip(&other.0).fold(0, |differ, (x, y)| differ | (x ^ y)) == 0
    }

    /// The words, little-endian.
    pub(crate) fn to_bytes(self) -> [u8; 8 * WORDS] {
        let mut bytes = [0; 8 * WORDS];
        for (slot, word) in bytes.chunks_exact_mut(8).zip(self.0) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        bytes
    }

    /// Appends the short form: a varint with a bit for each word that is not 0, then those words.
    pub(crate) fn put(&self, out: &mut Vec<u8>) {
        let mask = self.0.iter().enumerate().fold(0, |mask, (i, word)| mask | (u64::from(*word != 0) << i));
        put_varint(out, mask);
        for word in self.0.iter().filter(|word| **word != 0) {
            out.extend_from_slice(&word.to_le_bytes());
        }
    }

    /// Takes a short form off the front of `bytes`.
    pub(crate) fn take(bytes: &mut &[u8]) -> Option<Self> {
        let mask = take_varint32(bytes)?;
        if mask >> WORDS != 0 {
            return None;
        }
        let mut words = [0; WORDS];
        for (i, word) in words.iter_mut().enumerate() {
            if mask & (1 << i) != 0 {
                *word = u64::from_le_bytes(take(bytes, 8)?.try_into().ok()?);
            }
        }
        Some(Self(words))
    }
}

/// Counts, VLAN ids and labels.
fn tag_words(tags: &Tags) -> (u64, u64, [u64; 2]) {
    let counts = (u64::from(tags.vlan_count) << VLANS_AT) | (u64::from(tags.label_count) << LABELS_AT);
    let [v0, v1, v2, v3] = tags.vlans.map(u64::from);
    let [l0, l1, l2, l3] = tags.labels.map(u64::from);
    (counts, v0 | (v1 << 16) | (v2 << 32) | (v3 << 48), [l0 | (l1 << 32), l2 | (l3 << 32)])
}

/// What [`subject_words`] gives for an IP layer, and the direction bit, without a flow key on the way:
/// the canonical order of [`FlowKey::new`] on plain integers.
#[inline]
fn ip_words(layer: &Layer, ip: &Ip) -> (u64, [u64; 4], u64, u8) {
    let (mut sport, mut dport, mut one_way) = (0, 0, false);
    let mut head = u64::from(ip.proto) << PROTO_AT;
    if let Some(ports) = ip.ports {
        head |= PORTS_KNOWN;
        (sport, dport) = ports;
    } else if ip.icmp.is_some() {
        head |= PORTS_KNOWN;
        if let Some((key, direction)) = layer.flow() {
            // The mapping of types to ports is the packet crate's; undo only the order.
            let forward = direction == Direction::AtoB;
            (sport, dport) = if forward { (key.port_a, key.port_b) } else { (key.port_b, key.port_a) };
            one_way = forward;
        }
    }
    if ip.fragment == Fragment::Later {
        head |= LATER;
    }
    let (source, target) = (u64::from(sport), u64::from(dport));
    match (ip.src, ip.dst) {
        (IpAddr::V4(src), IpAddr::V4(dst)) => {
            let (src, dst) = (u64::from(src.to_bits()), u64::from(dst.to_bits()));
            if one_way || (src << 16 | source) <= (dst << 16 | target) {
                (head | IPV4, [src | (dst << 32), 0, 0, 0], source | (target << 16), A_TO_B)
            } else {
                (head | IPV4, [dst | (src << 32), 0, 0, 0], target | (source << 16), B_TO_A)
            }
        }
        (src, dst) => {
            let ([s0, s1], [d0, d1]) = (v6_words(src), v6_words(dst));
            if one_way || (s0, s1, source) <= (d0, d1, target) {
                (head | IPV6, [s0, s1, d0, d1], source | (target << 16), A_TO_B)
            } else {
                (head | IPV6, [d0, d1, s0, s1], target | (source << 16), B_TO_A)
            }
        }
    }
}

/// Kind, flags and protocol; the four address words; the two ports.
fn subject_words(subject: &Subject) -> (u64, [u64; 4], u64) {
    let v4 = |a: Ipv4Addr, b: Ipv4Addr| {
        let (a, b) = (u64::from(a.to_bits()), u64::from(b.to_bits()));
        [a | (b << 32), 0, 0, 0]
    };
    match *subject {
        Subject::Ip { key, ports_known, later_fragment } => {
            let (kind, words) = match (key.addr_a, key.addr_b) {
                (IpAddr::V4(a), IpAddr::V4(b)) => (IPV4, v4(a, b)),
                (a, b) => {
                    let ([a0, a1], [b0, b1]) = (v6_words(a), v6_words(b));
                    (IPV6, [a0, a1, b0, b1])
                }
            };
            let mut head = kind | (u64::from(key.proto) << PROTO_AT);
            if ports_known {
                head |= PORTS_KNOWN;
            }
            if later_fragment {
                head |= LATER;
            }
            (head, words, u64::from(key.port_a) | (u64::from(key.port_b) << 16))
        }
        Subject::Arp { a, b } => (ARP, v4(a, b), 0),
        Subject::Link { macs: Some((a, b)) } => (LINK | HAS_MACS, [mac_word(a), mac_word(b), 0, 0], 0),
        Subject::Link { macs: None } => (LINK, [0; 4], 0),
        Subject::Opaque => (OPAQUE, [0; 4], 0),
        Subject::Coarse => (COARSE, [0; 4], 0),
    }
}

fn subject_of(head: u64, words: [u64; 4], (port_a, port_b): (u16, u16)) -> Option<Subject> {
    let [a0, a1, b0, b1] = words;
    let (a4, b4) = (Ipv4Addr::from_bits(low32(a0)), Ipv4Addr::from_bits(low32(a0 >> 32)));
    let ip = |addr_a: IpAddr, addr_b: IpAddr| Subject::Ip {
        key: FlowKey { addr_a, addr_b, port_a, port_b, proto: low8(head >> PROTO_AT) },
        ports_known: head & PORTS_KNOWN != 0,
        later_fragment: head & LATER != 0,
    };
    Some(match head & 7 {
        OPAQUE => Subject::Opaque,
        IPV4 => ip(a4.into(), b4.into()),
        IPV6 => ip(v6_of(a0, a1).into(), v6_of(b0, b1).into()),
        ARP => Subject::Arp { a: a4, b: b4 },
        LINK => Subject::Link { macs: (head & HAS_MACS != 0).then_some((mac_of(a0), mac_of(a1))) },
        COARSE => Subject::Coarse,
        _ => return None,
    })
}

/// Upper and lower half of an IPv6 address; an IPv4 one is mapped, which no walk ever asks for.
fn v6_words(addr: IpAddr) -> [u64; 2] {
    let bits = match addr {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().to_bits(),
        IpAddr::V6(v6) => v6.to_bits(),
    };
    let [low, high] = [bits, bits >> 64].map(|part| part & u128::from(u64::MAX));
    [u64::try_from(high).unwrap_or_default(), u64::try_from(low).unwrap_or_default()]
}

fn v6_of(high: u64, low: u64) -> Ipv6Addr {
    Ipv6Addr::from_bits((u128::from(high) << 64) | u128::from(low))
}

fn mac_word([a, b, c, d, e, f]: [u8; 6]) -> u64 {
    u64::from_be_bytes([0, 0, a, b, c, d, e, f])
}

fn mac_of(word: u64) -> [u8; 6] {
    let [_, _, mac @ ..] = word.to_be_bytes();
    mac
}

fn low32(word: u64) -> u32 {
    let [a, b, c, d, ..] = word.to_le_bytes();
    u32::from_le_bytes([a, b, c, d])
}

fn low16(word: u64) -> u16 {
    let [a, b, ..] = word.to_le_bytes();
    u16::from_le_bytes([a, b])
}

fn low8(word: u64) -> u8 {
    let [a, ..] = word.to_le_bytes();
    a
}
