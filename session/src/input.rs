//! What the table takes from a packet: one [`Facts`] for each IP layer.
//!
//! The header walk has found the layers; here only the fields behind its offsets are read. Nothing here
//! trusts a length beyond the bytes that are there.

use crate::key::{Key, Parts};
use crate::pair::End;
use crate::stats;
use std::net::IpAddr;
use tapedeck_packet::{Fragment, Ip, Layer, Macs, Net, Timestamp, Tunnel, Walk};

pub(crate) mod proto {
    //! IP protocols with a logic of their own.
    pub(crate) const ICMP: u8 = 1;
    pub(crate) const TCP: u8 = 6;
    pub(crate) const UDP: u8 = 17;
    pub(crate) const ICMPV6: u8 = 58;
}

/// The shortest Ethernet frame, with its check sequence, and a tag that was taken off.
const PADDED_BYTES: u32 = 64;
const IPV6_HEADER_BYTES: u32 = 40;

pub(crate) mod flag {
    //! TCP flags.
    pub(crate) const FIN: u8 = 0x01;
    pub(crate) const SYN: u8 = 0x02;
    pub(crate) const RST: u8 = 0x04;
    pub(crate) const ACK: u8 = 0x10;
}

/// Where a packet is stored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Number of the segment in the run.
    pub segment: u32,
    /// Number of the frame in the segment.
    pub frame: u32,
}

impl Place {
    /// In no segment.
    pub(crate) const NOWHERE: Self = Self { segment: u32::MAX, frame: u32::MAX };
}

/// A packet, as the table takes it.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// Its time.
    pub ts: Timestamp,
    /// Its bytes, as far as captured.
    pub bytes: &'a [u8],
    /// Its length on the wire, bytes.
    pub original_bytes: u32,
    /// Where it is stored; where it would be, if it is not.
    pub place: Place,
    /// It was taken into the store.
    pub stored: bool,
}

/// Link and tunnel of a layer: what a session keeps of its first packet.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Origin {
    pub(crate) macs: Option<Macs>,
    pub(crate) vlans: [Option<u16>; 2],
    pub(crate) mpls: Option<u32>,
    pub(crate) tunnel: Tunnel,
    pub(crate) tunnel_id: Option<u32>,
}

/// The TCP header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct TcpHeader {
    pub(crate) seq: u32,
    pub(crate) ack: u32,
    pub(crate) flags: u8,
    pub(crate) zero_window: bool,
}

/// What of the transport could be read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Transport {
    /// A TCP segment with a whole header.
    Tcp(TcpHeader),
    /// In a replay: data and acknowledgement of the last packet of a run.
    Tail {
        /// Sequence number of its data.
        seq: u32,
        /// Acknowledgement.
        ack: u32,
        /// Its data, bytes.
        len: u32,
    },
    /// A later fragment of a datagram: its sender stands in the key, its ports are unknown.
    Fragment {
        /// Identification.
        id: u32,
        /// Where its bytes belong in the datagram.
        offset: u16,
    },
    /// Anything else.
    #[default]
    Other,
}

/// One layer of a packet, without its payload: that is borrowed, and these live on from batch to batch.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Facts {
    pub(crate) key: Key,
    pub(crate) hash: u64,
    /// The sender's side of the key.
    pub(crate) from: End,
    /// 0 for the outermost IP layer.
    pub(crate) depth: u8,
    pub(crate) ts: u64,
    /// Packets it stands for: 1, but in a replay.
    pub(crate) packets: u32,
    /// TCP flags of the others of them.
    pub(crate) more_flags: u8,
    pub(crate) ip_bytes: u32,
    pub(crate) wire_bytes: u32,
    /// Bytes of the packet that are missing in the store, if it is there.
    pub(crate) cut_bytes: u32,
    /// Another layer of this packet follows.
    pub(crate) has_inner: bool,
    /// The innermost IP layer, under which statistics count the packet.
    pub(crate) innermost: bool,
    /// Of the innermost layer: the packet, for statistics.
    pub(crate) counted: stats::Packet,
    /// The packet is in the store.
    pub(crate) stored: bool,
    /// Transport header, bytes.
    pub(crate) header_bytes: u32,
    /// Payload on the wire, bytes.
    pub(crate) payload_bytes: u32,
    pub(crate) transport: Transport,
    /// Identification, if this is the first fragment of a datagram.
    pub(crate) first_fragment: Option<u32>,
    pub(crate) ttl: u8,
    /// The message has a counterpart and asks for it (ICMP).
    pub(crate) request: bool,
    pub(crate) place: Place,
    pub(crate) origin: Origin,
    /// Where the first pass found a session with this hash.
    pub(crate) likely_slot: u32,
}

/// Makes facts of packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader {
    pub(crate) vlan_in_key: bool,
    pub(crate) hash_seed: u64,
}

impl Reader {
    /// Writes the facts of each IP layer into the next of `places`, outermost first, and its payload into
    /// `payloads`; says how many.
    #[inline]
    pub(crate) fn read<'a>(
        self,
        walk: &Walk,
        packet: &Packet<'a>,
        places: &mut [Facts],
        payloads: &mut [&'a [u8]],
    ) -> usize {
        let mut places = places.iter_mut().zip(payloads);
        let (mut depth, layers) = (0, walk.layers());
        for (number, layer) in layers.iter().enumerate() {
            if let Net::Ip(ip) = &layer.net
                && let Some((place, payload)) = places.next()
            {
                *payload = self.layer(place, layer, ip, packet, depth);
                place.has_inner = number + 1 < layers.len();
                depth += 1;
            }
        }
        usize::from(depth)
    }

    /// The key of the session of a layer, on which of its sides the sender stands, and whether the message asks for
    /// an answer. `inner`: another IP layer stands before it.
    #[inline]
    pub(crate) fn key(self, layer: &Layer, ip: &Ip, inner: bool) -> (Key, End, bool) {
        let (sport, dport, one_way, request) = ports(ip);
        let vlan = if self.vlan_in_key { layer.vlans().first().copied() } else { None };
        let no_ports = ip.ports.is_none() && has_ports(ip.proto);
        let (src, dst, proto) = (ip.src, ip.dst, ip.proto);
        let (key, from) = Key::new(&Parts { src, dst, sport, dport, proto, one_way, inner, no_ports, vlan });
        (key, from, request)
    }

    /// Writes every field in its place: a value returned would be copied, 250 bytes a packet. Returns the
    /// payload, as far as captured.
    #[inline]
    fn layer<'a>(
        self,
        facts: &mut Facts,
        layer: &Layer,
        ip: &Ip,
        packet: &Packet<'a>,
        depth: u8,
    ) -> &'a [u8] {
        (facts.key, facts.from, facts.request) = self.key(layer, ip, depth > 0);
        facts.hash = facts.key.hash(self.hash_seed);
        facts.depth = depth;
        facts.ts = packet.ts.nanos();
        (facts.packets, facts.more_flags) = (1, 0);
        facts.ip_bytes = match ip.total_bytes {
            // An IPv6 packet without payload, padded to the least that Ethernet carries.
            0 if ip.src.is_ipv6() && packet.original_bytes <= PADDED_BYTES => IPV6_HEADER_BYTES,
            0 => packet.original_bytes.saturating_sub(ip.start),
            bytes => bytes,
        };
        facts.wire_bytes = packet.original_bytes;
        facts.cut_bytes =
            if packet.stored { packet.original_bytes.saturating_sub(length(packet.bytes)) } else { 0 };
        facts.first_fragment = (ip.fragment == Fragment::First).then_some(ip.fragment_id);
        facts.ttl = ip.ttl;
        facts.place = packet.place;
        (facts.stored, facts.innermost) = (packet.stored, false);
        facts.origin.macs = layer.macs;
        let vlans = layer.vlans();
        facts.origin.vlans = [vlans.first().copied(), vlans.get(1).copied()];
        facts.origin.mpls = layer.labels().first().copied();
        facts.origin.tunnel = layer.tunnel;
        facts.origin.tunnel_id = layer.tunnel_id;
        facts.transport = Transport::Other;
        transport(facts, ip, packet.bytes)
    }
}

/// Ports as Zeek has them, whether the message stands alone, whether it is a request.
#[inline]
fn ports(ip: &Ip) -> (u16, u16, bool, bool) {
    match (ip.ports, ip.icmp) {
        (Some((sport, dport)), _) => (sport, dport, false, false),
        (None, Some((kind, code))) => {
            let (sport, dport, one_way) = tapedeck_packet::icmp_ports(ip.proto, kind, code);
            (sport, dport, one_way, is_request(ip.proto, sport))
        }
        (None, None) => (0, 0, false, false),
    }
}

/// An ICMP message of this type asks for an answer.
pub(crate) fn is_request(number: u8, kind: u16) -> bool {
    match number {
        proto::ICMP => matches!(kind, 8 | 10 | 13 | 15 | 17),
        proto::ICMPV6 => matches!(kind, 128 | 130 | 133 | 135 | 139 | 144),
        _ => false,
    }
}

pub(crate) fn has_ports(number: u8) -> bool {
    matches!(number, proto::TCP | proto::UDP | proto::ICMP | proto::ICMPV6 | 33 | 132 | 136)
}

/// Reads the transport header; returns the payload.
#[inline]
fn transport<'a>(facts: &mut Facts, ip: &Ip, bytes: &'a [u8]) -> &'a [u8] {
    let at = usize::try_from(ip.transport).unwrap_or(usize::MAX);
    let content = bytes.get(at..).unwrap_or_default();
    let content_bytes = facts.ip_bytes.saturating_sub(ip.transport.saturating_sub(ip.start));
    let mut header_bytes = 0;
    match ip.proto {
        _ if ip.fragment == Fragment::Later => {
            facts.transport = Transport::Fragment { id: ip.fragment_id, offset: ip.fragment_offset };
        }
        proto::TCP => {
            header_bytes = content_bytes;
            if let Some(head) = content.first_chunk::<20>() {
                let bytes = u32::from(head[12] >> 4) * 4;
                if bytes >= 20 && bytes <= content_bytes && bytes <= length(content) {
                    header_bytes = bytes;
                    facts.transport = Transport::Tcp(tcp_header(head));
                }
            }
        }
        proto::UDP => {
            header_bytes = 8;
            // The first fragment stands for the whole datagram: its header says how long that is.
            let announced = content.first_chunk::<6>().map_or(0, |h| u16::from_be_bytes([h[4], h[5]]));
            let payload = u32::from(announced).saturating_sub(8);
            facts.payload_bytes = if announced < 8 { content_bytes.saturating_sub(8) } else { payload };
        }
        proto::ICMP | proto::ICMPV6 => header_bytes = 8,
        _ => {}
    }
    if ip.proto != proto::UDP || ip.fragment == Fragment::Later {
        facts.payload_bytes = content_bytes.saturating_sub(header_bytes);
    }
    facts.header_bytes = header_bytes;
    let payload = content.get(usize::try_from(header_bytes).unwrap_or(usize::MAX)..).unwrap_or_default();
    let within = usize::try_from(content_bytes.saturating_sub(header_bytes)).unwrap_or(usize::MAX);
    payload.get(..within).unwrap_or(payload)
}

#[inline]
fn tcp_header(head: &[u8; 20]) -> TcpHeader {
    TcpHeader {
        seq: u32::from_be_bytes([head[4], head[5], head[6], head[7]]),
        ack: u32::from_be_bytes([head[8], head[9], head[10], head[11]]),
        flags: head[13],
        zero_window: head[14] == 0 && head[15] == 0,
    }
}

fn length(bytes: &[u8]) -> u32 {
    u32::try_from(bytes.len()).unwrap_or(u32::MAX)
}

/// The limited broadcast address: nobody answers from it.
pub(crate) fn is_broadcast(address: IpAddr) -> bool {
    matches!(address, IpAddr::V4(v4) if v4.is_broadcast())
}
