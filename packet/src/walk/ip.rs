//! IPv4, IPv6 with its extension headers, ports and ICMP types, ARP.
//!
//! Addresses are kept as soon as their bytes are there; whatever follows may be cut. Length fields are
//! used only to keep a tunnel's content off the padding behind it, never to reach further.

use super::{Arp, Enter, Fragment, Ip, Layer, Net, after, be16, be32, tunnel};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub(super) mod proto {
    //! IP protocol numbers the walk acts on.
    pub(crate) const HOP_BY_HOP: u8 = 0;
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const IPV4: u8 = 4;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const DCCP: u8 = 33;
    pub(crate) const IPV6: u8 = 41;
    pub(crate) const ROUTING: u8 = 43;
    pub(crate) const FRAGMENT: u8 = 44;
    pub(crate) const GRE: u8 = 47;
    pub(crate) const AH: u8 = 51;
    pub(crate) const ICMPV6: u8 = 58;
    pub(crate) const NONE: u8 = 59;
    pub(crate) const DEST_OPTIONS: u8 = 60;
    pub(crate) const ETHERIP: u8 = 97;
    pub(crate) const SCTP: u8 = 132;
    pub(crate) const MOBILITY: u8 = 135;
    pub(crate) const UDP_LITE: u8 = 136;
    pub(crate) const MPLS: u8 = 137;
    pub(crate) const HIP: u8 = 139;
    pub(crate) const SHIM6: u8 = 140;
}

/// Extension headers walked in one packet. RFC 8200 needs a handful, test suites have a hundred; a chain
/// of thousands is an attack.
const MAX_EXTENSIONS: usize = 128;

/// An IPv4 header and what follows it.
pub(super) fn v4<'a>(layer: &mut Layer, bytes: &'a [u8]) -> Option<Enter<'a>> {
    let head: &[u8; 20] = bytes.first_chunk()?;
    if head[0] >> 4 != 4 {
        return None;
    }
    let field = u16::from_be_bytes([head[6], head[7]]);
    let fragment = match field {
        f if f & 0x1fff != 0 => Fragment::Later,
        f if f & 0x2000 != 0 => Fragment::First,
        _ => Fragment::Whole,
    };
    let (src, dst) = ([head[12], head[13], head[14], head[15]], [head[16], head[17], head[18], head[19]]);
    let header_bytes = usize::from(head[0] & 0x0f) * 4;
    let total_bytes = usize::from(u16::from_be_bytes([head[2], head[3]]));
    let mut proto = head[9];
    let mut content = Content::default();
    let start = layer.offset_of(bytes);
    let mut payload = after(bytes, header_bytes.max(20)).unwrap_or_default();
    let mut at = start + u32::try_from(bytes.len() - payload.len()).unwrap_or(0);
    if header_bytes >= 20 && fragment != Fragment::Later && header_bytes <= bytes.len() {
        if proto == proto::AH {
            (proto, payload) = authentication(proto, payload);
            at = layer.offset_of(payload);
        }
        content = transport(proto, proto::ICMP, payload, trailer(bytes, total_bytes));
    }
    let Content { ports, icmp, tcp_flags, next } = content;
    layer.net = Net::Ip(Ip {
        src: IpAddr::V4(Ipv4Addr::from(src)),
        dst: IpAddr::V4(Ipv4Addr::from(dst)),
        proto,
        fragment,
        fragment_offset: (field & 0x1fff).wrapping_mul(8),
        fragment_id: u32::from(u16::from_be_bytes([head[4], head[5]])),
        ttl: head[8],
        total_bytes: u32::from(u16::from_be_bytes([head[2], head[3]])),
        start,
        transport: at,
        ports,
        icmp,
        tcp_flags,
    });
    next
}

/// Bytes of padding behind the `total_bytes` an IP header announces; 0 when it announces more than
/// there is, or nothing (segmentation offload writes 0).
fn trailer(bytes: &[u8], total_bytes: usize) -> usize {
    if total_bytes == 0 { 0 } else { bytes.len().saturating_sub(total_bytes) }
}

/// Steps over authentication headers: the protocol behind them and its bytes.
fn authentication(mut next: u8, mut bytes: &[u8]) -> (u8, &[u8]) {
    for _ in 0..MAX_EXTENSIONS {
        if next != proto::AH {
            break;
        }
        let Some(&[inner, words]) = bytes.first_chunk() else { break };
        let Some(rest) = after(bytes, (usize::from(words) + 2) * 4) else { break };
        (next, bytes) = (inner, rest);
    }
    (next, bytes)
}

/// An IPv6 header, its extension headers and what follows them.
pub(super) fn v6<'a>(layer: &mut Layer, bytes: &'a [u8]) -> Option<Enter<'a>> {
    let head: &[u8; 40] = bytes.first_chunk()?;
    if head[0] >> 4 != 6 {
        return None;
    }
    let (addresses, payload) = (after(head, 8)?, after(bytes, 40)?);
    let (src, rest) = addresses.split_first_chunk::<16>()?;
    let dst = rest.first_chunk::<16>()?;
    let payload_bytes = usize::from(u16::from_be_bytes([head[4], head[5]]));
    let total_bytes = if payload_bytes == 0 { 0 } else { payload_bytes + 40 };
    let Extensions { proto, fragment, fragment_field, fragment_id, payload, rest } =
        extensions(head[6], payload);
    let Content { ports, icmp, tcp_flags, next } = match payload {
        Some(payload) => transport(proto, proto::ICMPV6, payload, trailer(bytes, total_bytes)),
        None => Content::default(),
    };
    layer.net = Net::Ip(Ip {
        src: IpAddr::V6(Ipv6Addr::from(*src)),
        dst: IpAddr::V6(Ipv6Addr::from(*dst)),
        proto,
        fragment,
        fragment_offset: fragment_field & 0xfff8,
        fragment_id,
        ttl: head[7],
        total_bytes: u32::try_from(total_bytes).unwrap_or(0),
        start: layer.offset_of(bytes),
        transport: layer.offset_of(rest),
        ports,
        icmp,
        tcp_flags,
    });
    next
}

/// Where a chain of extension headers ends.
struct Extensions<'a> {
    proto: u8,
    fragment: Fragment,
    /// Offset and flags of the fragment header.
    fragment_field: u16,
    fragment_id: u32,
    /// `None` where the transport cannot be reached: cut, a later fragment, or too many headers.
    payload: Option<&'a [u8]>,
    /// What is behind the headers that were walked.
    rest: &'a [u8],
}

/// Walks the extension headers from the one of type `proto`, at the beginning of `bytes`.
#[inline]
fn extensions(proto: u8, bytes: &[u8]) -> Extensions<'_> {
    let mut walked = Extensions {
        proto,
        fragment: Fragment::Whole,
        fragment_field: 0,
        fragment_id: 0,
        payload: None,
        rest: bytes,
    };
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(walked.proto) {
            walked.payload = Some(walked.rest);
            return walked;
        }
        let Some(header) = extension(walked.proto, walked.rest) else { break };
        // A mobility or HIP message ends the chain with "no next header": then it is the content itself.
        if is_message(walked.proto) && header.next == proto::NONE {
            break;
        }
        if let Some(field) = header.fragment {
            walked.fragment = match (field & 0xfff8, field & 1) {
                (0, 0) => Fragment::Whole,
                (0, _) => Fragment::First,
                _ => Fragment::Later,
            };
            (walked.fragment_field, walked.fragment_id) = (field, be32(walked.rest, 4).unwrap_or(0));
        }
        walked.proto = header.next;
        let Some(rest) = after(walked.rest, header.bytes) else { break };
        walked.rest = rest;
        if walked.fragment == Fragment::Later {
            break;
        }
    }
    walked
}

fn is_extension(proto: u8) -> bool {
    matches!(
        proto,
        proto::HOP_BY_HOP
            | proto::ROUTING
            | proto::FRAGMENT
            | proto::AH
            | proto::DEST_OPTIONS
            | proto::MOBILITY
            | proto::HIP
            | proto::SHIM6
    )
}

fn is_message(proto: u8) -> bool {
    matches!(proto, proto::MOBILITY | proto::HIP | proto::SHIM6)
}

/// One extension header.
struct Extension {
    next: u8,
    bytes: usize,
    /// Offset and flags, of a fragment header.
    fragment: Option<u16>,
}

fn extension(proto: u8, bytes: &[u8]) -> Option<Extension> {
    let &[next, length] = bytes.first_chunk()?;
    Some(match proto {
        proto::AH => Extension { next, bytes: (usize::from(length) + 2) * 4, fragment: None },
        proto::FRAGMENT => Extension { next, bytes: 8, fragment: Some(be16(bytes, 2)?) },
        _ => Extension { next, bytes: (usize::from(length) + 1) * 8, fragment: None },
    })
}

/// What an IP packet carries.
#[derive(Default)]
struct Content<'a> {
    ports: Option<(u16, u16)>,
    icmp: Option<(u8, u8)>,
    tcp_flags: Option<u8>,
    next: Option<Enter<'a>>,
}

/// Ports or ICMP type and code; then the tunnel, if the payload carries one. `icmp` is the number of
/// this IP version's ICMP; `trailer_bytes` at the end of `payload` lie outside the IP packet.
///
/// Inlined by force: as a call its result goes through memory, a quarter of a plain TCP packet's walk.
#[inline(always)]
fn transport(number: u8, icmp: u8, payload: &[u8], trailer_bytes: usize) -> Content<'_> {
    match number {
        proto::TCP => {
            Content { ports: ports(payload), tcp_flags: payload.get(13).copied(), ..Content::default() }
        }
        proto::SCTP | proto::DCCP | proto::UDP_LITE => {
            Content { ports: ports(payload), ..Content::default() }
        }
        proto::UDP => {
            let ports = ports(payload);
            let next = ports.and_then(|ports| tunnel::in_udp(ports, within(payload, trailer_bytes)));
            Content { ports, next, ..Content::default() }
        }
        number if number == icmp => {
            let icmp = payload.first_chunk().map(|&[kind, code]| (kind, code));
            Content { icmp, ..Content::default() }
        }
        number => {
            Content { next: tunnel::in_ip(number, within(payload, trailer_bytes)), ..Content::default() }
        }
    }
}

#[inline]
fn ports(payload: &[u8]) -> Option<(u16, u16)> {
    let &[a, b, c, d] = payload.first_chunk()?;
    Some((u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])))
}

fn within(payload: &[u8], trailer_bytes: usize) -> &[u8] {
    payload.get(..payload.len().saturating_sub(trailer_bytes)).unwrap_or_default()
}

/// ARP and RARP (RFC 826) for IPv4 over 48-bit hardware addresses.
pub(super) fn arp(layer: &mut Layer, bytes: &[u8]) {
    let Some(head) = bytes.first_chunk::<28>() else { return };
    // Hardware type is left open: Ethernet, 802 and 802.11 all use the same layout.
    if head[2..6] == [0x08, 0x00, 6, 4] {
        layer.net = Net::Arp(Arp {
            sender: Ipv4Addr::new(head[14], head[15], head[16], head[17]),
            target: Ipv4Addr::new(head[24], head[25], head[26], head[27]),
        });
    }
}
