//! Which payloads carry another layer, and where that layer begins.
//!
//! Recognised by IP protocol or UDP port and then by the tunnel's own header; where that header is weak
//! (GTP-U, Teredo) the content must look like IP too. Must never be asked about a later fragment.

use super::ip::proto;
use super::link::ethertype;
use super::{Enter, Start, Tunnel, after, be16, be32};
use crate::link::LinkType;

mod port {
    //! UDP ports of tunnels, as IANA has them, and 8472: Linux's VXLAN before 2013.
    pub(super) const L2TP: u16 = 1701;
    pub(super) const GTP_U: u16 = 2152;
    pub(super) const TEREDO: u16 = 3544;
    pub(super) const GRE: u16 = 4754;
    pub(super) const VXLAN: u16 = 4789;
    pub(super) const VXLAN_GPE: u16 = 4790;
    pub(super) const AYIYA: u16 = 5072;
    pub(super) const GENEVE: u16 = 6081;
    pub(super) const MPLS: u16 = 6635;
    pub(super) const VXLAN_OLD: u16 = 8472;
}

/// GRE protocol types that are no EtherTypes of ours.
mod gre_type {
    pub(super) const TRANSPARENT_ETHERNET: u16 = 0x6558;
    /// Aruba's: access points send whole 802.11 frames under these.
    pub(super) const ARUBA_FIRST: u16 = 0x8200;
    pub(super) const ARUBA_LAST: u16 = 0x83ff;
    pub(super) const PPP: u16 = 0x880b;
    pub(super) const ERSPAN_1_2: u16 = 0x88be;
    pub(super) const ERSPAN_3: u16 = 0x22eb;
}

/// The layer inside an IP payload of protocol `number`.
pub(super) fn in_ip(number: u8, payload: &[u8]) -> Option<Enter<'_>> {
    let enter = |tunnel, start, bytes| Some(Enter { tunnel, tunnel_id: None, start, bytes });
    match number {
        proto::IPV4 | proto::IPV6 => enter(Tunnel::IpIp, Start::Ip, payload),
        proto::GRE => gre(payload),
        // RFC 3378: version 3 in the first nibble, twelve reserved bits.
        proto::ETHERIP if payload.first()? >> 4 == 3 => {
            enter(Tunnel::EtherIp, Start::Ethernet, after(payload, 2)?)
        }
        proto::MPLS => enter(Tunnel::Other, Start::EtherType(ethertype::MPLS), payload),
        _ => None,
    }
}

/// The layer inside a UDP packet (`datagram` begins with the UDP header).
#[inline]
pub(super) fn in_udp((sport, dport): (u16, u16), datagram: &[u8]) -> Option<Enter<'_>> {
    known(dport, datagram).or_else(|| known(sport, datagram))
}

#[inline]
fn known(port: u16, datagram: &[u8]) -> Option<Enter<'_>> {
    match port {
        port::VXLAN | port::VXLAN_OLD => vxlan(udp_payload(datagram)?),
        port::VXLAN_GPE => vxlan_gpe(udp_payload(datagram)?),
        port::GENEVE => geneve(udp_payload(datagram)?),
        port::GTP_U => gtp_u(udp_payload(datagram)?),
        port::TEREDO => teredo(udp_payload(datagram)?),
        port::GRE => gre(udp_payload(datagram)?),
        port::L2TP => l2tp(udp_payload(datagram)?),
        port::AYIYA => ayiya(udp_payload(datagram)?),
        port::MPLS => Some(Enter {
            tunnel: Tunnel::Other,
            tunnel_id: None,
            start: Start::EtherType(ethertype::MPLS),
            bytes: udp_payload(datagram)?,
        }),
        _ => None,
    }
}

fn udp_payload(datagram: &[u8]) -> Option<&[u8]> {
    let announced = usize::from(be16(datagram, 4)?);
    let whole = if announced < 8 { datagram } else { datagram.get(..announced).unwrap_or(datagram) };
    after(whole, 8)
}

/// RFC 7348: the I flag, then the 24-bit network identifier.
fn vxlan(payload: &[u8]) -> Option<Enter<'_>> {
    let head: &[u8; 8] = payload.first_chunk()?;
    if head[0] & 0x08 == 0 {
        return None;
    }
    let id = u32::from_be_bytes([0, head[4], head[5], head[6]]);
    Some(Enter {
        tunnel: Tunnel::Vxlan,
        tunnel_id: Some(id),
        start: Start::Ethernet,
        bytes: after(payload, 8)?,
    })
}

/// draft-ietf-nvo3-vxlan-gpe: the P flag says that byte 3 names the content.
fn vxlan_gpe(payload: &[u8]) -> Option<Enter<'_>> {
    let head: &[u8; 8] = payload.first_chunk()?;
    let start = match (head[0] & 0x04 != 0, head[3]) {
        (true, 1) => Start::EtherType(ethertype::IPV4),
        (true, 2) => Start::EtherType(ethertype::IPV6),
        (true, 3) | (false, _) => Start::Ethernet,
        (true, 5) => Start::EtherType(ethertype::MPLS),
        (true, _) => return None,
    };
    Some(Enter { start, ..vxlan(payload)? })
}

/// RFC 8926: version 0, options in words, EtherType, 24-bit network identifier.
fn geneve(payload: &[u8]) -> Option<Enter<'_>> {
    let head: &[u8; 8] = payload.first_chunk()?;
    if head[0] >> 6 != 0 {
        return None;
    }
    let start = match u16::from_be_bytes([head[2], head[3]]) {
        gre_type::TRANSPARENT_ETHERNET => Start::Ethernet,
        other => Start::EtherType(other),
    };
    let id = u32::from_be_bytes([0, head[4], head[5], head[6]]);
    let bytes = after(payload, 8 + usize::from(head[0] & 0x3f) * 4)?;
    Some(Enter { tunnel: Tunnel::Geneve, tunnel_id: Some(id), start, bytes })
}

/// 3GPP TS 29.281: version 1, protocol type 1, message type 255 (G-PDU); the content must be IP.
fn gtp_u(payload: &[u8]) -> Option<Enter<'_>> {
    const G_PDU: u8 = 255;
    const MAX_EXTENSIONS: usize = 8;
    let head: &[u8; 8] = payload.first_chunk()?;
    if head[0] >> 4 != 0b0011 || head[1] != G_PDU {
        return None;
    }
    let id = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    let mut bytes = after(payload, 8)?;
    if head[0] & 0x07 != 0 {
        let optional: &[u8; 4] = bytes.first_chunk()?;
        let mut next = if head[0] & 0x04 != 0 { optional[3] } else { 0 };
        bytes = after(bytes, 4)?;
        for _ in 0..MAX_EXTENSIONS {
            if next == 0 {
                break;
            }
            let words = usize::from(*bytes.first()?);
            // The length counts itself and the next type: 0 is malformed.
            next = *bytes.get((words * 4).checked_sub(1)?)?;
            bytes = after(bytes, words * 4)?;
        }
    }
    let start = ip_start(bytes)?;
    Some(Enter { tunnel: Tunnel::Gtp, tunnel_id: Some(id), start, bytes })
}

/// RFC 4380: optional authentication and origin indications, then IPv6 whose length must fit.
fn teredo(payload: &[u8]) -> Option<Enter<'_>> {
    const IPV6_HEADER: usize = 40;
    let mut bytes = payload;
    if be16(bytes, 0)? == 0x0001 {
        let (id_bytes, auth_bytes) = (usize::from(*bytes.get(2)?), usize::from(*bytes.get(3)?));
        bytes = after(bytes, 4 + id_bytes + auth_bytes + 9)?;
    }
    if be16(bytes, 0)? == 0x0000 {
        bytes = after(bytes, 8)?;
    }
    let fits = usize::from(be16(bytes, 4)?) + IPV6_HEADER <= bytes.len();
    (bytes.first()? >> 4 == 6 && fits).then_some(Enter {
        tunnel: Tunnel::Teredo,
        tunnel_id: None,
        start: Start::Ip,
        bytes,
    })
}

/// RFC 2661 version 2 data messages: PPP behind a header of optional fields.
fn l2tp(payload: &[u8]) -> Option<Enter<'_>> {
    let flags = be16(payload, 0)?;
    if flags & 0x000f != 2 || flags & 0x8000 != 0 {
        return None;
    }
    let ids = 2 + if flags & 0x4000 != 0 { 2 } else { 0 };
    let id = be32(payload, ids)?;
    let mut at = ids + 4 + if flags & 0x0800 != 0 { 4 } else { 0 };
    if flags & 0x0200 != 0 {
        at += 2 + usize::from(be16(payload, at)?);
    }
    let bytes = after(payload, at)?;
    Some(Enter { tunnel: Tunnel::Other, tunnel_id: Some(id), start: Start::Ppp, bytes })
}

/// draft-massar-v6ops-ayiya: lengths of identity and signature, methods, operation 1 (forward), protocol, epoch;
/// identity and signature precede the content.
fn ayiya(payload: &[u8]) -> Option<Enter<'_>> {
    const FORWARD: u8 = 1;
    let &[lengths, signature, methods, next] = payload.first_chunk()?;
    if methods & 0x0f != FORWARD || !matches!(next, proto::IPV4 | proto::IPV6) {
        return None;
    }
    let identity_bytes = 1_usize << (lengths >> 4);
    let bytes = after(payload, 8 + identity_bytes + usize::from(signature >> 4) * 4)?;
    Some(Enter { tunnel: Tunnel::Other, tunnel_id: None, start: ip_start(bytes)?, bytes })
}

/// RFC 2784 and 2890, version 0; RFC 2637 (PPTP), version 1.
fn gre(payload: &[u8]) -> Option<Enter<'_>> {
    let &[f0, f1, p0, p1] = payload.first_chunk()?;
    let (flags, version, kind) = (f0, f1 & 0x07, u16::from_be_bytes([p0, p1]));
    let has = |bit: u8| flags & bit != 0;
    // Source routes (RFC 1701) are of variable length and extinct.
    if version > 1 || has(0x40) {
        return None;
    }
    let mut at = if has(0x80) { 8 } else { 4 };
    let key = if has(0x20) {
        at += 4;
        be32(payload, at - 4)
    } else {
        None
    };
    at += if has(0x10) { 4 } else { 0 };
    // PPTP: half of the key is a length, the other the call; acknowledgements may follow.
    at += if version == 1 && f1 & 0x80 != 0 { 4 } else { 0 };
    let id = if version == 1 { key.map(|key| key & 0xffff) } else { key };
    let bytes = after(payload, at)?;
    let enter = |start| Some(Enter { tunnel: Tunnel::Gre, tunnel_id: id, start, bytes });
    match kind {
        gre_type::ERSPAN_1_2 if has(0x10) => erspan(bytes, 8),
        gre_type::ERSPAN_1_2 => {
            Some(Enter { tunnel: Tunnel::Erspan, tunnel_id: None, start: Start::Ethernet, bytes })
        }
        gre_type::ERSPAN_3 => erspan(bytes, 12),
        // A PPTP acknowledgement carries nothing.
        gre_type::PPP if bytes.is_empty() => None,
        gre_type::PPP => enter(Start::Ppp),
        gre_type::TRANSPARENT_ETHERNET => enter(Start::Ethernet),
        gre_type::ARUBA_FIRST..=gre_type::ARUBA_LAST => enter(Start::Link(LinkType::IEEE802_11)),
        other => enter(Start::EtherType(other)),
    }
}

/// draft-foschiano-erspan: types II (8 bytes) and III (12, and 8 more when the O bit is set).
fn erspan(bytes: &[u8], header_bytes: usize) -> Option<Enter<'_>> {
    let session = be16(bytes, 2)? & 0x03ff;
    let flags = if header_bytes == 12 { be16(bytes, 10)? } else { 0 };
    let more = if flags & 1 != 0 { 8 } else { 0 };
    // Type III names what was mirrored: 0 Ethernet, 2 IP.
    let start = if (flags >> 10) & 0x1f == 2 { Start::Ip } else { Start::Ethernet };
    Some(Enter {
        tunnel: Tunnel::Erspan,
        tunnel_id: Some(u32::from(session)),
        start,
        bytes: after(bytes, header_bytes + more)?,
    })
}

/// `Start::Ip` if the bytes can be IP.
fn ip_start(bytes: &[u8]) -> Option<Start> {
    matches!(bytes.first()? >> 4, 4 | 6).then_some(Start::Ip)
}
