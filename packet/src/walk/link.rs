//! Link headers, and the tags and labels between them and the network header.
//!
//! Everything here belongs to one layer: VLAN tags, MPLS labels and a PPPoE session are noted in the
//! layer and looked through. Unknown link types and EtherTypes end the walk, they are not guessed at.

use super::{Enter, Layer, Macs, Start, Tunnel, after, be16, be32, ip, wifi};
use crate::link::LinkType;

pub(super) mod ethertype {
    //! EtherTypes the walk acts on.
    pub(crate) const IPV4: u16 = 0x0800;
    pub(crate) const ARP: u16 = 0x0806;
    pub(crate) const RARP: u16 = 0x8035;
    pub(crate) const VLAN: u16 = 0x8100;
    pub(crate) const IPV6: u16 = 0x86dd;
    pub(crate) const MPLS: u16 = 0x8847;
    pub(crate) const MPLS_UPSTREAM: u16 = 0x8848;
    pub(crate) const PPPOE_DISCOVERY: u16 = 0x8863;
    pub(crate) const PPPOE_SESSION: u16 = 0x8864;
    pub(crate) const SERVICE_VLAN: u16 = 0x88a8;
    pub(crate) const MACSEC: u16 = 0x88e5;
    pub(crate) const BACKBONE: u16 = 0x88e7;
    pub(crate) const FABRIC_PATH: u16 = 0x8903;
    pub(crate) const CISCO_METADATA: u16 = 0x8909;
    pub(crate) const OLD_QINQ: u16 = 0x9100;
    /// Up to here the field is an 802.3 length and LLC follows.
    pub(crate) const MAX_LENGTH: u16 = 1500;
}

/// Tags and labels walked in one layer, each kind. Real stacks have a handful; the rest is an attack.
const MAX_TAGS: usize = 32;

/// Reads one layer from its beginning. Returns the layer it carries, if it carries one.
#[inline]
pub(super) fn walk<'a>(layer: &mut Layer, start: Start, bytes: &'a [u8]) -> Option<Enter<'a>> {
    match start {
        Start::Link(LinkType::ETHERNET) | Start::Ethernet => ethernet(layer, bytes),
        Start::Link(link) => other_link(layer, link, bytes),
        Start::EtherType(ethertype) => typed(layer, ethertype, bytes),
        Start::Ip => by_nibble(layer, bytes),
        Start::Ppp => ppp(layer, bytes),
    }
}

#[inline]
fn ethernet<'a>(layer: &mut Layer, bytes: &'a [u8]) -> Option<Enter<'a>> {
    let ([d0, d1, d2, d3, d4, d5, s0, s1, s2, s3, s4, s5, t0, t1], rest) = bytes.split_first_chunk::<14>()?;
    layer.macs = Some(Macs { dst: [*d0, *d1, *d2, *d3, *d4, *d5], src: [*s0, *s1, *s2, *s3, *s4, *s5] });
    typed(layer, u16::from_be_bytes([*t0, *t1]), rest)
}

/// What EtherType (or 802.3 length) `ethertype` announces, through tags and labels.
#[inline]
pub(super) fn typed<'a>(layer: &mut Layer, ethertype: u16, bytes: &'a [u8]) -> Option<Enter<'a>> {
    match ethertype {
        ethertype::IPV4 => {
            layer.ethertype = Some(ethertype::IPV4);
            ip::v4(layer, bytes)
        }
        ethertype::IPV6 => {
            layer.ethertype = Some(ethertype::IPV6);
            ip::v6(layer, bytes)
        }
        _ => tagged(layer, ethertype, bytes),
    }
}

fn tagged<'a>(layer: &mut Layer, mut ethertype: u16, mut bytes: &'a [u8]) -> Option<Enter<'a>> {
    for _ in 0..MAX_TAGS {
        layer.ethertype = Some(ethertype);
        match ethertype {
            ethertype::IPV4 => return ip::v4(layer, bytes),
            ethertype::IPV6 => return ip::v6(layer, bytes),
            ethertype::ARP | ethertype::RARP => {
                ip::arp(layer, bytes);
                return None;
            }
            ethertype::VLAN | ethertype::SERVICE_VLAN | ethertype::OLD_QINQ => {
                layer.push_vlan(be16(bytes, 0)? & 0x0fff);
                (ethertype, bytes) = (be16(bytes, 2)?, after(bytes, 4)?);
            }
            ethertype::MPLS | ethertype::MPLS_UPSTREAM => return mpls(layer, bytes),
            ethertype::PPPOE_SESSION => return pppoe(layer, bytes),
            // Version and length, one option of four bytes, then the EtherType.
            ethertype::CISCO_METADATA => (ethertype, bytes) = (be16(bytes, 6)?, after(bytes, 8)?),
            ethertype::MACSEC => (ethertype, bytes) = macsec(bytes)?,
            // A 2-byte tag; the original frame follows whole.
            ethertype::FABRIC_PATH => return ethernet(layer, after(bytes, 2)?),
            ethertype::BACKBONE => return backbone(bytes),
            0..=ethertype::MAX_LENGTH => return llc(layer, bytes),
            _ => return None,
        }
    }
    None
}

/// IEEE 802.1AE: a tag with a 4-byte packet number and perhaps an 8-byte channel identifier. Behind it
/// stands an EtherType, unless the E or C bit says that the data is encrypted or changed.
fn macsec(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let control = *bytes.first()?;
    if control & 0x0c != 0 {
        return None;
    }
    let tag_bytes = if control & 0x20 != 0 { 14 } else { 6 };
    Some((be16(bytes, tag_bytes)?, after(bytes, tag_bytes + 2)?))
}

/// 802.1ah: a service tag of four bytes, then the customer's frame.
fn backbone(bytes: &[u8]) -> Option<Enter<'_>> {
    let id = be32(bytes, 0)? & 0x00ff_ffff;
    let bytes = after(bytes, 4)?;
    Some(Enter { tunnel: Tunnel::Other, tunnel_id: Some(id), start: Start::Ethernet, bytes })
}

/// LLC: SNAP with an EtherType counts as that EtherType, everything else has none.
pub(super) fn llc<'a>(layer: &mut Layer, bytes: &'a [u8]) -> Option<Enter<'a>> {
    layer.ethertype = None;
    let (&[dsap, ssap, control, o0, o1, o2, t0, t1], rest) = bytes.split_first_chunk::<8>()?;
    let snap = [dsap, ssap, control] == [0xaa, 0xaa, 0x03];
    // RFC 1042, and 802.1H's bridge-tunnel code for protocols that RFC 1042 does not carry.
    if !(snap && matches!([o0, o1, o2], [0, 0, 0] | [0, 0, 0xf8])) {
        return None;
    }
    match u16::from_be_bytes([t0, t1]) {
        0..=ethertype::MAX_LENGTH => None,
        ethertype => tagged(layer, ethertype, rest),
    }
}

/// A label stack (RFC 3032). What follows says by its first nibble that it is IP; else an Ethernet
/// pseudo-wire, with or without control word, is recognised by a known EtherType.
fn mpls<'a>(layer: &mut Layer, mut bytes: &'a [u8]) -> Option<Enter<'a>> {
    for _ in 0..MAX_TAGS {
        let entry = be32(bytes, 0)?;
        layer.push_label(entry >> 12);
        bytes = after(bytes, 4)?;
        if entry & 0x100 != 0 {
            return if matches!(bytes.first()? >> 4, 4 | 6) {
                by_nibble(layer, bytes)
            } else {
                pseudo_wire(bytes)
            };
        }
    }
    None
}

fn pseudo_wire(bytes: &[u8]) -> Option<Enter<'_>> {
    let ethernet_at = |at: usize| {
        matches!(
            be16(bytes, at + 12)?,
            ethertype::IPV4
                | ethertype::IPV6
                | ethertype::ARP
                | ethertype::VLAN
                | ethertype::SERVICE_VLAN
                | ethertype::MPLS
                | ethertype::PPPOE_DISCOVERY
                | ethertype::PPPOE_SESSION
        )
        .then(|| after(bytes, at))?
    };
    let control_word = if bytes.first()? >> 4 == 0 { ethernet_at(4) } else { None };
    let bytes = control_word.or_else(|| ethernet_at(0))?;
    Some(Enter { tunnel: Tunnel::Other, tunnel_id: None, start: Start::Ethernet, bytes })
}

/// PPPoE session (RFC 2516): version and type, code, session, length, PPP.
fn pppoe<'a>(layer: &mut Layer, bytes: &'a [u8]) -> Option<Enter<'a>> {
    layer.pppoe = Some(be16(bytes, 2)?);
    let protocol = ppp_protocol(after(bytes, 6)?)?;
    ppp_content(layer, protocol)
}

/// PPP (RFC 1661, 1662): address and control bytes may be there, the protocol may be one byte.
fn ppp<'a>(layer: &mut Layer, bytes: &'a [u8]) -> Option<Enter<'a>> {
    let bytes = if bytes.starts_with(&[0xff, 0x03]) { after(bytes, 2)? } else { bytes };
    let protocol = ppp_protocol(bytes)?;
    ppp_content(layer, protocol)
}

fn ppp_protocol(bytes: &[u8]) -> Option<(u16, &[u8])> {
    let &short = bytes.first()?;
    if short & 1 == 1 {
        Some((u16::from(short), after(bytes, 1)?))
    } else {
        Some((be16(bytes, 0)?, after(bytes, 2)?))
    }
}

fn ppp_content<'a>(layer: &mut Layer, (protocol, bytes): (u16, &'a [u8])) -> Option<Enter<'a>> {
    match protocol {
        0x0021 => typed(layer, ethertype::IPV4, bytes),
        0x0057 => typed(layer, ethertype::IPV6, bytes),
        0x0281 => typed(layer, ethertype::MPLS, bytes),
        0x0283 => typed(layer, ethertype::MPLS_UPSTREAM, bytes),
        _ => None,
    }
}

/// IP by the version nibble; sets the EtherType that says the same.
fn by_nibble<'a>(layer: &mut Layer, bytes: &'a [u8]) -> Option<Enter<'a>> {
    match bytes.first()? >> 4 {
        4 => typed(layer, ethertype::IPV4, bytes),
        6 => typed(layer, ethertype::IPV6, bytes),
        _ => None,
    }
}

/// Every link type but Ethernet. Unknown ones give an empty layer.
fn other_link<'a>(layer: &mut Layer, link: LinkType, bytes: &'a [u8]) -> Option<Enter<'a>> {
    match link {
        LinkType::NULL | LinkType::LOOP => loopback(layer, bytes),
        LinkType::RAW | LinkType::RAW_BSD | LinkType::RAW_OPENBSD => by_nibble(layer, bytes),
        LinkType::IPV4 => typed(layer, ethertype::IPV4, bytes),
        LinkType::IPV6 => typed(layer, ethertype::IPV6, bytes),
        LinkType::LINUX_SLL => cooked(layer, be16(bytes, 2)?, be16(bytes, 14)?, after(bytes, 16)?),
        LinkType::LINUX_SLL2 => cooked(layer, be16(bytes, 8)?, be16(bytes, 0)?, after(bytes, 20)?),
        // 0x0f and 0x8f are Cisco's unicast and multicast addresses, in files that say PPP.
        LinkType::PPP | LinkType::PPP_HDLC if matches!(bytes.first()?, 0x0f | 0x8f) => c_hdlc(layer, bytes),
        LinkType::PPP | LinkType::PPP_HDLC => ppp(layer, bytes),
        LinkType::PPP_ETHER => tagged(layer, ethertype::PPPOE_SESSION, bytes),
        LinkType::C_HDLC => c_hdlc(layer, bytes),
        LinkType::FRAME_RELAY => frame_relay(layer, bytes),
        LinkType::MPLS => tagged(layer, ethertype::MPLS, bytes),
        LinkType::FDDI => fddi(layer, bytes),
        LinkType::ATM_LLC => llc(layer, bytes),
        // Header length in byte 0, without the padding to four bytes.
        LinkType::PFLOG => by_nibble(layer, after(bytes, usize::from(*bytes.first()?).next_multiple_of(4))?),
        LinkType::NFLOG => nflog(layer, bytes),
        LinkType::IEEE802_11 => wifi::frame(layer, bytes),
        LinkType::IEEE802_11_RADIOTAP => wifi::radiotap(layer, bytes),
        LinkType::PPI => wifi::ppi(layer, bytes),
        _ => None,
    }
}

fn c_hdlc<'a>(layer: &mut Layer, bytes: &'a [u8]) -> Option<Enter<'a>> {
    typed(layer, be16(bytes, 2)?, after(bytes, 4)?)
}

/// BSD loopback: a family number in whichever byte order the host had. AF_INET6 differs by system.
fn loopback<'a>(layer: &mut Layer, bytes: &'a [u8]) -> Option<Enter<'a>> {
    let (family, rest) = bytes.split_first_chunk::<4>()?;
    // Families are small: the order that gives the smaller number is the right one.
    match u32::from_le_bytes(*family).min(u32::from_be_bytes(*family)) {
        2 => typed(layer, ethertype::IPV4, rest),
        // Linux 10, Windows 23, NetBSD and OpenBSD 24, FreeBSD 28, Darwin 30.
        10 | 23 | 24 | 28 | 30 => typed(layer, ethertype::IPV6, rest),
        _ => None,
    }
}

/// Linux cooked capture: `protocol` is an EtherType unless the hardware type or a small number says otherwise.
fn cooked<'a>(layer: &mut Layer, hardware: u16, protocol: u16, bytes: &'a [u8]) -> Option<Enter<'a>> {
    const FRAME_RELAY: u16 = 770;
    const RADIOTAP: u16 = 803;
    const NETLINK: u16 = 824;
    const LLC: u16 = 4;
    match (hardware, protocol) {
        (FRAME_RELAY | RADIOTAP | NETLINK, _) => None,
        (_, LLC) => llc(layer, bytes),
        (_, 0..=ethertype::MAX_LENGTH) => None,
        _ => typed(layer, protocol, bytes),
    }
}

/// Frame Relay (RFC 2427): an address of two to four bytes, then NLPID or, from Cisco, an EtherType.
fn frame_relay<'a>(layer: &mut Layer, bytes: &'a [u8]) -> Option<Enter<'a>> {
    const UNNUMBERED: u8 = 0x03;
    let address = 1 + bytes.iter().take(4).position(|byte| byte & 1 == 1)?;
    let rest = after(bytes, address)?;
    let (control, nlpid) = (*rest.first()?, *rest.get(1)?);
    if control != UNNUMBERED {
        return typed(layer, be16(rest, 0).filter(|kind| *kind > ethertype::MAX_LENGTH)?, after(rest, 2)?);
    }
    match nlpid {
        0xcc => typed(layer, ethertype::IPV4, after(rest, 2)?),
        0x8e => typed(layer, ethertype::IPV6, after(rest, 2)?),
        // A zero pads the header to an even length; SNAP without its LLC bytes.
        0x00 if rest.get(2) == Some(&0x80) => snap(layer, after(rest, 3)?),
        0x80 => snap(layer, after(rest, 2)?),
        _ => None,
    }
}

fn snap<'a>(layer: &mut Layer, bytes: &'a [u8]) -> Option<Enter<'a>> {
    let ([0, 0, 0, t0, t1], rest) = bytes.split_first_chunk::<5>()? else { return None };
    typed(layer, u16::from_be_bytes([*t0, *t1]), rest)
}

/// FDDI: frame control, destination, source, LLC.
fn fddi<'a>(layer: &mut Layer, bytes: &'a [u8]) -> Option<Enter<'a>> {
    let (dst, rest) = after(bytes, 1)?.split_first_chunk::<6>()?;
    let (src, rest) = rest.split_first_chunk::<6>()?;
    layer.macs = Some(Macs { src: *src, dst: *dst });
    llc(layer, rest)
}

/// Linux netfilter log: family, version, resource, then TLVs; the one of type 9 is the packet.
fn nflog<'a>(layer: &mut Layer, bytes: &'a [u8]) -> Option<Enter<'a>> {
    const MAX_TLVS: usize = 64;
    const PAYLOAD: u16 = 9;
    let mut bytes = after(bytes, 4)?;
    for _ in 0..MAX_TLVS {
        let &[l0, l1, k0, k1] = bytes.first_chunk()?;
        // Host byte order of the recording machine; every one we have seen is little-endian.
        let (length, kind) = (usize::from(u16::from_le_bytes([l0, l1])), u16::from_le_bytes([k0, k1]));
        if kind == PAYLOAD {
            return by_nibble(layer, after(bytes.get(..length).unwrap_or(bytes), 4)?);
        }
        bytes = after(bytes, length.max(4).next_multiple_of(4))?;
    }
    None
}
