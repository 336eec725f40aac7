//! What the table takes from a packet: one [`Facts`] for each IP layer.
//!
//! The header walk has found the layers; here only the fields behind its offsets are read. Nothing here
//! trusts a length beyond the bytes that are there.

use crate::key::{Key, Parts};
use crate::pair::End;
use crate::stats;
use std::net::IpAddr;
use tapedeck_packet::{Fragment, Ip, Layer, Macs, Timestamp, Tunnel};

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

/// Where a packet is stored. One word: written in halves and read whole, a packet's would stall the reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place(u64);

impl Place {
    /// In no segment.
    pub(crate) const NOWHERE: Self = Self(u64::MAX);

    /// Numbers of the segment in the run and of the frame in the segment.
    #[inline]
    #[must_use]
    pub const fn new(segment: u32, frame: u32) -> Self {
        // Widening; `From` is not const.
        Self((segment as u64) << 32 | frame as u64)
    }

    /// Number of the segment in the run.
    #[inline]
    #[must_use]
    pub const fn segment(self) -> u32 {
        let [a, b, c, d, ..] = self.0.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }

    /// Number of the frame in the segment.
    #[inline]
    #[must_use]
    pub const fn frame(self) -> u32 {
        let [.., a, b, c, d] = self.0.to_be_bytes();
        u32::from_be_bytes([a, b, c, d])
    }
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
    /// Inside a tunnel, so not the outermost IP layer.
    pub(crate) inner: bool,
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
    /// Of the innermost layer: the packet's, for statistics.
    pub(crate) marks: stats::Marks,
    /// The packet is in the store.
    pub(crate) stored: bool,
    /// Transport header, bytes.
    pub(crate) header_bytes: u32,
    /// Payload on the wire, bytes.
    pub(crate) payload_bytes: u32,
    /// Where in the packet what follows the transport header begins, and its bytes on the wire.
    pub(crate) content_at: u32,
    pub(crate) content_bytes: u32,
    pub(crate) transport: Transport,
    /// Identification, if this is the first fragment of a datagram.
    pub(crate) first_fragment: Option<u32>,
    pub(crate) ttl: u8,
    /// The message has a counterpart and asks for it (ICMP).
    pub(crate) request: bool,
    pub(crate) place: Place,
    /// Its tags, labels and tunnel count if it is `tagged`.
    pub(crate) origin: Origin,
    pub(crate) tagged: bool,
    /// Where the first pass found a session with this hash.
    pub(crate) likely_slot: u32,
}

impl Facts {
    /// Its link and tunnel.
    pub(crate) fn origin(&self) -> Origin {
        if self.tagged { self.origin } else { Origin { macs: self.origin.macs, ..Origin::default() } }
    }

    /// Payload of the packet with these bytes, as far as captured.
    pub(crate) fn payload<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        let payload = bytes.get(usize::try_from(self.content_at).unwrap_or(usize::MAX)..).unwrap_or_default();
        payload.get(..usize::try_from(self.content_bytes).unwrap_or(usize::MAX)).unwrap_or(payload)
    }

    pub(crate) fn time(&self) -> Timestamp {
        Timestamp::from_nanos_saturating(self.ts)
    }

    /// The packet, for statistics.
    #[inline]
    pub(crate) fn counted(&self) -> stats::Packet {
        stats::Packet { ts: self.time(), wire_bytes: self.wire_bytes, marks: self.marks, ethertype: None }
    }
}

/// Makes facts of packets.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader {
    pub(crate) vlan_in_key: bool,
    pub(crate) hash_seed: u64,
}

impl Reader {
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

    /// Writes the facts of a layer, every field in its place: a value returned would be copied, 250 bytes a packet.
    #[inline]
    pub(crate) fn read(self, facts: &mut Facts, layer: &Layer, ip: &Ip, packet: &Packet<'_>, inner: bool) {
        (facts.key, facts.from, facts.request) = self.key(layer, ip, inner);
        facts.hash = facts.key.hash(self.hash_seed);
        facts.inner = inner;
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
        (facts.stored, facts.innermost, facts.has_inner) = (packet.stored, false, false);
        facts.origin.macs = layer.macs;
        facts.tagged = layer.is_tagged();
        if facts.tagged {
            let vlans = layer.vlans();
            facts.origin.vlans = [vlans.first().copied(), vlans.get(1).copied()];
            facts.origin.mpls = layer.labels().first().copied();
            facts.origin.tunnel = layer.tunnel;
            facts.origin.tunnel_id = layer.tunnel_id;
        }
        facts.transport = Transport::Other;
        transport(facts, ip, packet.bytes);
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

/// Reads the transport header.
#[inline]
fn transport(facts: &mut Facts, ip: &Ip, bytes: &[u8]) {
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
        proto::UDP | proto::ICMP | proto::ICMPV6 => header_bytes = 8,
        _ => {}
    }
    facts.header_bytes = header_bytes;
    facts.content_bytes = content_bytes.saturating_sub(header_bytes);
    facts.content_at = ip.transport.saturating_add(header_bytes);
    facts.payload_bytes = facts.content_bytes;
    if ip.proto == proto::UDP && ip.fragment != Fragment::Later {
        // The first fragment stands for the whole datagram: its header says how long that is.
        let announced = content.first_chunk::<6>().map_or(0, |h| u16::from_be_bytes([h[4], h[5]]));
        facts.payload_bytes = u32::from(announced).checked_sub(8).unwrap_or(facts.content_bytes);
    }
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
