//! Synthetic packets: few addresses, ports and tags, so that filters hit.

use tapedeck_packet::LinkType;

/// An IPv4 header without options and with a zero checksum, which nothing here looks at.
pub(crate) fn ipv4(src: u8, dst: u8, proto: u8, fragment: u16, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + payload.len()).unwrap();
    let mut out = vec![0x45, 0];
    out.extend(total.to_be_bytes());
    out.extend([0, 7]);
    out.extend(fragment.to_be_bytes());
    out.extend([64, proto, 0, 0, 10, 0, 0, src, 10, 0, 0, dst]);
    out.extend(payload);
    out
}

pub(crate) fn ipv6(src: u8, dst: u8, next: u8, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x60, 0, 0, 0];
    out.extend(u16::try_from(payload.len()).unwrap().to_be_bytes());
    out.extend([next, 64]);
    for last in [src, dst] {
        out.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    out.extend(payload);
    out
}

pub(crate) fn udp(src: u16, dst: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    out.extend(u16::try_from(8 + payload.len()).unwrap().to_be_bytes());
    out.extend([0, 0]);
    out.extend(payload);
    out
}

pub(crate) fn tcp(src: u16, dst: u16, flags: u8) -> Vec<u8> {
    let mut out = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    out.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    out
}

/// Ethernet between two hosts of a small net, with VLAN tags outermost first.
pub(crate) fn ethernet(src: u8, dst: u8, vlans: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![2, 0, 0, 0, 0, dst, 2, 0, 0, 0, 0, src];
    for vlan in vlans {
        out.extend([0x81, 0]);
        out.extend(vlan.to_be_bytes());
    }
    out.extend(ethertype.to_be_bytes());
    out.extend(payload);
    out
}

pub(crate) fn arp(src: u8, dst: u8) -> Vec<u8> {
    let mut out = vec![0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, src, 10, 0, 0, src];
    out.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, dst]);
    ethernet(src, dst, &[], 0x0806, &out)
}

/// A plain TCP packet.
pub(crate) fn tcp4(src: u8, sport: u16, dst: u8, dport: u16) -> Vec<u8> {
    ethernet(src, dst, &[], 0x0800, &ipv4(src, dst, 6, 0, &tcp(sport, dport, 0x10)))
}

pub(crate) fn vxlan(vni: u32, inside: &[u8]) -> Vec<u8> {
    let mut out = vec![8, 0, 0, 0];
    out.extend((vni << 8).to_be_bytes());
    out.extend(inside);
    out
}

/// A packet chosen by numbers, for generators: kinds that differ in how the index sees them.
pub(crate) fn chosen(kind: u8, src: u8, dst: u8, sport: u16, dport: u16, vlan: u16) -> Vec<u8> {
    let plain = |vlans: &[u16], payload: &[u8]| ethernet(src, dst, vlans, 0x0800, payload);
    let datagram = udp(sport, dport, b"data");
    match kind {
        0 => plain(&[], &ipv4(src, dst, 6, 0, &tcp(sport, dport, 0x12))),
        1 => plain(&[vlan], &ipv4(src, dst, 17, 0, &datagram)),
        2 => plain(&[vlan, 7], &ipv4(src, dst, 6, 0, &tcp(sport, dport, 0x10))),
        3 => ethernet(src, dst, &[], 0x86dd, &ipv6(src, dst, 17, &datagram)),
        4 => arp(src, dst),
        5 => plain(&[], &ipv4(src, dst, 1, 0, &[if src < dst { 8 } else { 0 }, 0, 0, 0, 0, 1, 0, 1])),
        6 => plain(&[], &ipv4(src, dst, 17, 0x2000, &datagram)),
        7 => plain(&[], &ipv4(src, dst, 17, 0x0010, b"a later fragment")),
        8 => ethernet(src, dst, &[vlan], 0x88cc, b"neighbours"),
        9 => {
            let inside = plain(&[vlan], &ipv4(dst, src, 6, 0, &tcp(dport, sport, 2)));
            let outside = udp(50_000, 4789, &vxlan(u32::from(vlan), &inside));
            plain(&[], &ipv4(src, 200, 17, 0, &outside))
        }
        10 => plain(&[], &ipv4(src, dst, 4, 0, &ipv4(dst, 9, 17, 0, &datagram))),
        11 => plain(&[], &ipv4(src, dst, 6, 0, &tcp(sport, dport, 2)[..2])),
        12 => vec![1, 2, 3],
        _ => ethernet(src, dst, &[vlan], 0x0800, &[]),
    }
}

/// Number of kinds that [`chosen`] makes.
pub(crate) const KINDS: u8 = 14;

/// The link type of all of them.
pub(crate) const LINK: LinkType = LinkType::ETHERNET;
