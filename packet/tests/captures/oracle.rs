//! The walk against `etherparse` over every Ethernet packet of the given traces: whatever etherparse
//! reads, we read the same. (We read more: labels, tunnels, cut headers, first fragments.)

use crate::common;
use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};
use std::collections::BTreeMap;
use std::net::IpAddr;
use tapedeck_packet::{Fragment, Layer, LinkType, Net, Walk};

/// What etherparse can say of a packet; compared field by field where it says something.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    vlans: Vec<u16>,
    ends: Option<(IpAddr, IpAddr)>,
    proto: Option<u8>,
    ports: Option<(u16, u16)>,
    icmp: Option<(u8, u8)>,
}

fn theirs(bytes: &[u8]) -> Option<Seen> {
    let packet = LaxSlicedPacket::from_ethernet(bytes).ok()?;
    let vlans = packet.vlan_ids().iter().map(|id| id.value()).collect();
    let mut seen = Seen { vlans, ..Seen::default() };
    match &packet.net {
        Some(LaxNetSlice::Ipv4(ip)) => {
            let header = ip.header();
            seen.ends = Some((header.source_addr().into(), header.destination_addr().into()));
            seen.proto = Some(ip.payload().ip_number.0);
        }
        Some(LaxNetSlice::Ipv6(ip)) => {
            let header = ip.header();
            seen.ends = Some((header.source_addr().into(), header.destination_addr().into()));
            seen.proto = Some(ip.payload().ip_number.0);
        }
        Some(LaxNetSlice::Arp(_)) | None => {}
    }
    match &packet.transport {
        Some(TransportSlice::Tcp(tcp)) => seen.ports = Some((tcp.source_port(), tcp.destination_port())),
        Some(TransportSlice::Udp(udp)) => seen.ports = Some((udp.source_port(), udp.destination_port())),
        Some(TransportSlice::Icmpv4(icmp)) => seen.icmp = Some((icmp.type_u8(), icmp.code_u8())),
        Some(TransportSlice::Icmpv6(icmp)) => seen.icmp = Some((icmp.type_u8(), icmp.code_u8())),
        Some(TransportSlice::Igmp(_)) | None => {}
    }
    Some(seen)
}

fn ours(layer: &Layer) -> Seen {
    let mut seen = Seen { vlans: layer.vlans().to_vec(), ..Seen::default() };
    if let Net::Ip(ip) = layer.net {
        seen.ends = Some((ip.src, ip.dst));
        (seen.proto, seen.ports, seen.icmp) = (Some(ip.proto), ip.ports, ip.icmp);
    }
    seen
}

/// Whether they agree in everything that etherparse says.
fn agree(theirs: &Seen, ours: &Seen) -> bool {
    theirs.vlans == ours.vlans
        && (theirs.ends.is_none() || theirs.ends == ours.ends)
        && (theirs.proto.is_none() || theirs.proto == ours.proto)
        && (theirs.ports.is_none() || theirs.ports == ours.ports)
        && (theirs.icmp.is_none() || theirs.icmp == ours.icmp)
}

/// Why they may differ.
fn excuse(bytes: &[u8], layer: &Layer, theirs: &Seen) -> Option<&'static str> {
    let Net::Ip(ip) = layer.net else { return None };
    match theirs.proto {
        None if bytes[12..14] == [0x89, 0x03] => Some("etherparse does not know FabricPath"),
        Some(0 | 43 | 44 | 51 | 60 | 135) if ip.src.is_ipv6() => {
            Some("etherparse stops at an extension header that is cut, odd or there twice")
        }
        Some(_) if ip.fragment == Fragment::Later && ip.proto == 51 => {
            Some("etherparse takes the middle of a fragmented AH for its beginning")
        }
        _ => None,
    }
}

#[test]
fn the_walk_reads_what_etherparse_reads() {
    let Some(folder) = common::traces() else {
        println!("SKIPPED 1");
        return;
    };
    let (mut compared, mut walk) = (0_u32, Walk::new());
    let (mut excused, mut wrong) = (BTreeMap::<_, u32>::new(), Vec::new());
    for file in common::capture_files(&folder) {
        let packets = common::packets(&file);
        for (number, packet) in packets.iter().enumerate().filter(|(_, p)| p.link == LinkType::ETHERNET) {
            let Some(theirs) = theirs(&packet.bytes) else { continue };
            walk.run(packet.link, &packet.bytes);
            compared += 1;
            let ours = ours(&walk.layers()[0]);
            if agree(&theirs, &ours) {
                continue;
            }
            match excuse(&packet.bytes, &walk.layers()[0], &theirs) {
                Some(reason) => *excused.entry(reason).or_default() += 1,
                None => wrong.push(format!("{} #{}: {theirs:?} {ours:?}", file.display(), number + 1)),
            }
        }
    }
    println!("{compared} packets compared, not counting: {excused:#?}");
    assert!(wrong.is_empty(), "{} {:#?}", wrong.len(), wrong.first());
    assert!(compared > 200_000 && excused.values().sum::<u32>() < 30);
}
