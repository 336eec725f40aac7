//! What a filter sees of a packet: tags, addresses, protocol and ports of its outermost layer.
//!
//! The same walk as in `filter.h`, step by step. It must never read behind the window, and never take for
//! absent what it could not read.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Bytes of a packet the filter looks at (`TD_FILTER_WINDOW`).
pub const WINDOW: usize = 256;

const IPV4: u16 = 0x0800;
const ARP: u16 = 0x0806;
const RARP: u16 = 0x8035;
const VLAN: u16 = 0x8100;
const IPV6: u16 = 0x86dd;
const MPLS: u16 = 0x8847;
const MPLS_UPSTREAM: u16 = 0x8848;
const PPPOE: u16 = 0x8864;
const SERVICE_VLAN: u16 = 0x88a8;
const MACSEC: u16 = 0x88e5;
const FABRIC_PATH: u16 = 0x8903;
const CISCO_METADATA: u16 = 0x8909;
const OLD_QINQ: u16 = 0x9100;
const LENGTH_MAX: u16 = 1500;

const FRAGMENT: u8 = 44;
const AUTHENTICATION: u8 = 51;
const NONE: u8 = 59;

/// Tags and labels walked, IPv6 extension headers, authentication headers of IPv4: as in `filter.h`.
const TAGS_MAX: usize = 8;
const EXTENSIONS_MAX: usize = 8;
const AUTHENTICATIONS_MAX: usize = 4;

/// The answer to a question about a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    No,
    /// It cannot be told.
    Unknown,
    Yes,
}

impl Answer {
    pub(super) fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::No, _) | (_, Self::No) => Self::No,
            (Self::Yes, Self::Yes) => Self::Yes,
            _ => Self::Unknown,
        }
    }

    /// Yes if something was found, else what there is to say of what was not seen.
    fn of(found: bool, unknown: bool) -> Self {
        match (found, unknown) {
            (true, _) => Self::Yes,
            (false, true) => Self::Unknown,
            (false, false) => Self::No,
        }
    }
}

/// What was read of a packet, and of what it is not known whether there is more.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Heads {
    vlans: [Option<u16>; TAGS_MAX],
    vlan_unknown: bool,
    addresses: Option<(IpAddr, IpAddr)>,
    address_unknown: bool,
    /// IPv6, protocol.
    proto: Option<(bool, u8)>,
    proto_unknown: bool,
    ports: Option<(u16, u16)>,
    port_unknown: bool,
}

/// What comes behind the link header.
enum Next {
    Nothing,
    Unknown,
    Arp,
    Ipv4,
    Ipv6,
}

impl Heads {
    /// Walks a packet.
    pub(super) fn of(packet: &[u8]) -> Self {
        let window = packet.get(..WINDOW).unwrap_or(packet);
        let mut heads = Self::default();
        let (next, at) = heads.link(window);
        let rest = window.get(at..).unwrap_or_default();
        match next {
            Next::Nothing => {}
            Next::Unknown => {
                heads.vlan_unknown = true;
                heads.network_unknown();
            }
            Next::Arp => heads.arp(rest),
            Next::Ipv4 => heads.ipv4(rest),
            Next::Ipv6 => heads.ipv6(rest),
        }
        heads
    }

    pub(super) fn address(&self, is: impl Fn(IpAddr) -> bool) -> Answer {
        let found = self.addresses.is_some_and(|(one, other)| is(one) || is(other));
        Answer::of(found, self.address_unknown)
    }

    pub(super) fn vlan(&self, is: impl Fn(u16) -> bool) -> Answer {
        Answer::of(self.vlans.iter().flatten().any(|tag| is(*tag)), self.vlan_unknown)
    }

    pub(super) fn proto(&self, is: impl Fn(bool, u8) -> bool) -> Answer {
        Answer::of(self.proto.is_some_and(|(six, proto)| is(six, proto)), self.proto_unknown)
    }

    pub(super) fn port(&self, is: impl Fn(u16) -> bool) -> Answer {
        Answer::of(self.ports.is_some_and(|(one, other)| is(one) || is(other)), self.port_unknown)
    }

    fn network_unknown(&mut self) {
        self.address_unknown = true;
        self.transport_unknown();
    }

    fn transport_unknown(&mut self) {
        (self.proto_unknown, self.port_unknown) = (true, true);
    }

    /// What comes behind link header, tags, labels and PPPoE, and where.
    fn link(&mut self, window: &[u8]) -> (Next, usize) {
        let mut at = 14;
        let Some(mut kind) = half(window, 12) else { return (Next::Unknown, at) };
        for tag in 0..TAGS_MAX {
            let rest = window.get(at..).unwrap_or_default();
            let step = match kind {
                IPV4 => return (Next::Ipv4, at),
                IPV6 => return (Next::Ipv6, at),
                ARP | RARP => return (Next::Arp, at),
                VLAN | SERVICE_VLAN | OLD_QINQ => match (half(rest, 0), half(rest, 2)) {
                    (Some(id), Some(kind)) => {
                        if let Some(slot) = self.vlans.get_mut(tag) {
                            *slot = Some(id & 0x0fff);
                        }
                        Step::To(kind, 4)
                    }
                    _ => Step::Cut,
                },
                MPLS | MPLS_UPSTREAM => label(rest, kind),
                PPPOE => pppoe(rest),
                MACSEC | FABRIC_PATH | CISCO_METADATA => Step::Cut,
                0..=LENGTH_MAX => llc(rest),
                _ => Step::Nothing,
            };
            match step {
                Step::To(next, bytes) => (kind, at) = (next, at + bytes),
                Step::Nothing => return (Next::Nothing, at),
                Step::Cut => break,
            }
        }
        (Next::Unknown, at)
    }

    fn arp(&mut self, bytes: &[u8]) {
        let Some(head) = bytes.first_chunk::<28>() else {
            self.address_unknown = true;
            return;
        };
        if head[2..6] == [0x08, 0x00, 6, 4] {
            let sender = Ipv4Addr::new(head[14], head[15], head[16], head[17]);
            let target = Ipv4Addr::new(head[24], head[25], head[26], head[27]);
            self.addresses = Some((sender.into(), target.into()));
        }
    }

    fn ipv4(&mut self, bytes: &[u8]) {
        let Some(head) = bytes.first_chunk::<20>() else {
            self.network_unknown();
            return;
        };
        if head[0] >> 4 != 4 {
            return;
        }
        let source = Ipv4Addr::new(head[12], head[13], head[14], head[15]);
        let target = Ipv4Addr::new(head[16], head[17], head[18], head[19]);
        self.addresses = Some((source.into(), target.into()));
        let words = usize::from(head[0] & 0x0f);
        let later = u16::from_be_bytes([head[6], head[7]]) & 0x1fff != 0;
        let reachable = !later && words >= 5;
        let (mut proto, mut at) = (head[9], words.max(5) * 4);
        for _ in 0..AUTHENTICATIONS_MAX {
            if proto != AUTHENTICATION || !reachable {
                break;
            }
            let (Some(next), Some(words)) = (bytes.get(at), bytes.get(at + 1)) else { break };
            (proto, at) = (*next, at + (usize::from(*words) + 2) * 4);
        }
        if proto == AUTHENTICATION {
            self.transport_unknown();
        } else {
            self.transport(false, proto, reachable.then(|| bytes.get(at..)).flatten());
        }
    }

    fn ipv6(&mut self, bytes: &[u8]) {
        let Some(head) = bytes.first_chunk::<40>() else {
            self.network_unknown();
            return;
        };
        if head[0] >> 4 != 6 {
            return;
        }
        let address = |at: usize| bytes.get(at..)?.first_chunk::<16>().copied().map(Ipv6Addr::from);
        self.addresses = address(8).zip(address(24)).map(|(one, other)| (one.into(), other.into()));
        let (mut proto, mut at, mut later) = (head[6], 40, false);
        for _ in 0..EXTENSIONS_MAX {
            let Some(header) = bytes.get(at..).and_then(|rest| rest.first_chunk::<8>()) else { break };
            if !is_extension(proto) || later {
                break;
            }
            // A message ends the chain: it is the content itself.
            if is_message(proto) && header[0] == NONE {
                self.transport(true, proto, None);
                return;
            }
            at += match proto {
                FRAGMENT => {
                    later = u16::from_be_bytes([header[2], header[3]]) & 0xfff8 != 0;
                    8
                }
                AUTHENTICATION => (usize::from(header[1]) + 2) * 4,
                _ => (usize::from(header[1]) + 1) * 8,
            };
            proto = header[0];
        }
        if is_extension(proto) {
            self.transport_unknown();
        } else {
            self.transport(true, proto, (!later).then(|| bytes.get(at..)).flatten());
        }
    }

    /// `payload`: what the transport header begins, where it can be reached.
    fn transport(&mut self, six: bool, proto: u8, payload: Option<&[u8]>) {
        self.proto = Some((six, proto));
        if !matches!(proto, 6 | 17 | 33 | 132 | 136) {
            return;
        }
        self.ports = payload.and_then(|payload| Some((half(payload, 0)?, half(payload, 2)?)));
        self.port_unknown = self.ports.is_none();
    }
}

/// What a tag or label leads to.
enum Step {
    /// This EtherType, so many bytes on.
    To(u16, usize),
    Nothing,
    /// Cut, or of a form that is not looked into.
    Cut,
}

/// A label; `kind` is what it stands behind.
fn label(rest: &[u8], kind: u16) -> Step {
    let Some(&[_, _, low, _, next]) = rest.first_chunk() else { return Step::Cut };
    match (low & 1, next >> 4) {
        (0, _) => Step::To(kind, 4),
        (_, 4) => Step::To(IPV4, 4),
        (_, 6) => Step::To(IPV6, 4),
        _ => Step::Nothing,
    }
}

fn pppoe(rest: &[u8]) -> Step {
    let Some(&[.., first, second]) = rest.first_chunk::<8>() else { return Step::Cut };
    let (protocol, bytes) =
        if first & 1 == 1 { (u16::from(first), 7) } else { (u16::from_be_bytes([first, second]), 8) };
    match protocol {
        0x0021 => Step::To(IPV4, bytes),
        0x0057 => Step::To(IPV6, bytes),
        0x0281 | 0x0283 => Step::To(MPLS, bytes),
        _ => Step::Nothing,
    }
}

/// LLC; with SNAP an EtherType follows.
fn llc(rest: &[u8]) -> Step {
    let Some(&[0xaa, 0xaa, 0x03, 0, 0, 0 | 0xf8, high, low]) = rest.first_chunk() else {
        return Step::Nothing;
    };
    match u16::from_be_bytes([high, low]) {
        0..=LENGTH_MAX => Step::Nothing,
        kind => Step::To(kind, 8),
    }
}

fn is_message(proto: u8) -> bool {
    matches!(proto, 135 | 139 | 140)
}

fn is_extension(proto: u8) -> bool {
    matches!(proto, 0 | 43 | FRAGMENT | AUTHENTICATION | 60) || is_message(proto)
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|half| u16::from_be_bytes(*half))
}
