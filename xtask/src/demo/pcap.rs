//! Reads what tcpdump makes of an answer: classic pcap, Ethernet, and the TCP bytes inside.
//!
//! It shares no code with the product: the demo believes tcpdump and etherparse, not us. It must never guess
//! at a link type it does not know.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, Result, bail};
use etherparse::{LaxNetSlice, LaxSlicedPacket, TransportSlice};

const LITTLE_US: u32 = 0xa1b2_c3d4;
const LITTLE_NS: u32 = 0xa1b2_3c4d;
const ETHERNET: u32 = 1;
const FILE_HEADER_BYTES: usize = 24;
const RECORD_HEADER_BYTES: usize = 16;

/// The frames of a classic pcap in the byte order of this machine, as tcpdump writes it.
pub(crate) fn frames(pcap: &[u8]) -> Result<Vec<&[u8]>> {
    let magic = word(pcap, 0).context("no pcap header")?;
    if ![LITTLE_US, LITTLE_NS].contains(&magic) {
        bail!("not a pcap of this machine's byte order: {magic:08x}");
    }
    let link_type = word(pcap, 20).context("pcap header is cut")?;
    if link_type != ETHERNET {
        bail!("link type {link_type}; only Ethernet (1) can be played onto a link");
    }
    let mut frames = Vec::new();
    let mut rest = pcap.get(FILE_HEADER_BYTES..).unwrap_or_default();
    while !rest.is_empty() {
        let len = word(rest, 8).context("a record header is cut")?;
        let end = RECORD_HEADER_BYTES + usize::try_from(len)?;
        frames.push(rest.get(RECORD_HEADER_BYTES..end).context("a packet is cut")?);
        rest = rest.get(end..).unwrap_or_default();
    }
    Ok(frames)
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_ne_bytes(bytes.try_into().ok()?))
}

/// Transport protocols that have ports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Proto {
    Tcp,
    Udp,
}

impl Proto {
    /// The name in the filter language.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tcp => "tcp",
            Self::Udp => "udp",
        }
    }
}

/// Who sent a frame to whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Path {
    pub(crate) proto: Proto,
    pub(crate) from: SocketAddr,
    pub(crate) to: SocketAddr,
}

impl Path {
    /// The same for both directions of a conversation.
    pub(crate) fn conversation(self) -> Self {
        if self.from <= self.to { self } else { Self { from: self.to, to: self.from, ..self } }
    }
}

/// The path of a TCP or UDP frame; `None` for everything else, fragments included.
pub(crate) fn path(frame: &[u8]) -> Option<Path> {
    let packet = LaxSlicedPacket::from_ethernet(frame).ok()?;
    let (from, to): (IpAddr, IpAddr) = match packet.net.as_ref()? {
        LaxNetSlice::Ipv4(ip) if !ip.payload().fragmented => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        LaxNetSlice::Ipv6(ip) if !ip.payload().fragmented => {
            (ip.header().source_addr().into(), ip.header().destination_addr().into())
        }
        _ => return None,
    };
    let (proto, from_port, to_port) = match packet.transport.as_ref()? {
        TransportSlice::Tcp(tcp) => (Proto::Tcp, tcp.source_port(), tcp.destination_port()),
        TransportSlice::Udp(udp) => (Proto::Udp, udp.source_port(), udp.destination_port()),
        _ => return None,
    };
    Some(Path { proto, from: SocketAddr::new(from, from_port), to: SocketAddr::new(to, to_port) })
}

/// One direction of a TCP connection, put together from its frames.
#[derive(Debug, Default)]
struct Stream {
    first_seq: Option<u32>,
    bytes: Vec<u8>,
    have: Vec<bool>,
}

impl Stream {
    fn add(&mut self, at: usize, payload: &[u8]) {
        let end = at + payload.len();
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
            self.have.resize(end, false);
        }
        // Retransmissions repeat bytes; the last copy counts.
        for (place, byte) in self.bytes.iter_mut().skip(at).zip(payload) {
            *place = *byte;
        }
        self.have.iter_mut().skip(at).take(payload.len()).for_each(|have| *have = true);
    }
}

/// The bytes that `from` sent to `to` over TCP, from the SYN on. An error names the first hole.
pub(crate) fn tcp_bytes(frames: &[&[u8]], from: SocketAddr, to: SocketAddr) -> Result<Vec<u8>> {
    let mut stream = Stream::default();
    for frame in frames.iter().filter(|f| path(f).is_some_and(|p| p.from == from && p.to == to)) {
        let Ok(packet) = LaxSlicedPacket::from_ethernet(frame) else { continue };
        let Some(TransportSlice::Tcp(tcp)) = packet.transport else { continue };
        if tcp.syn() {
            stream.first_seq = Some(tcp.sequence_number().wrapping_add(1));
        }
        if !tcp.payload().is_empty() {
            let first = stream.first_seq.with_context(|| format!("no SYN from {from}"))?;
            let at = tcp.sequence_number().wrapping_sub(first);
            stream.add(usize::try_from(at)?, tcp.payload());
        }
    }
    stream.first_seq.with_context(|| format!("no SYN from {from}"))?;
    if let Some(hole) = stream.have.iter().position(|have| !have) {
        bail!("byte {hole} from {from} is missing");
    }
    Ok(stream.bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use etherparse::PacketBuilder;

    const A: &str = "10.0.0.1:1000";
    const B: &str = "10.0.0.2:80";

    fn tcp(seq: u32, syn: bool, payload: &[u8]) -> Vec<u8> {
        let builder = PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
            .tcp(1000, 80, seq, 100);
        let builder = if syn { builder.syn() } else { builder };
        let mut frame = Vec::new();
        builder.write(&mut frame, payload).unwrap();
        frame
    }

    fn bytes(frames: &[Vec<u8>]) -> Result<Vec<u8>> {
        let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
        tcp_bytes(&frames, A.parse().unwrap(), B.parse().unwrap())
    }

    #[test]
    fn a_stream_is_put_together_across_disorder_and_the_wrap_of_its_numbers() {
        let first = u32::MAX - 1;
        let frames = [
            tcp(first, true, b""),
            tcp(first.wrapping_add(4), false, b"defg"),
            tcp(first.wrapping_add(1), false, b"abc"),
            tcp(first.wrapping_add(1), false, b"abc"),
        ];
        assert_eq!(bytes(&frames).unwrap(), b"abcdefg");
    }

    #[test]
    fn a_missing_segment_or_start_is_an_error() {
        let hole = [tcp(0, true, b""), tcp(1, false, b"ab"), tcp(5, false, b"ef")];
        assert!(bytes(&hole).unwrap_err().to_string().contains("byte 2"));
        assert!(bytes(&[tcp(1, false, b"ab")]).is_err());
        assert!(bytes(&[]).is_err());
    }

    #[test]
    fn both_directions_are_one_conversation() {
        let there = path(&tcp(0, true, b"")).unwrap();
        let back = Path { from: there.to, to: there.from, ..there };
        assert_eq!(there.conversation(), back.conversation());
        assert_eq!(there.proto.name(), "tcp");
    }

    #[test]
    fn a_pcap_is_read_and_a_cut_or_foreign_one_refused() {
        let mut pcap = Vec::new();
        for word in [LITTLE_US, 0, 0, 0, 65535, ETHERNET] {
            pcap.extend(word.to_ne_bytes());
        }
        for word in [0, 0, 3, 3_u32] {
            pcap.extend(word.to_ne_bytes());
        }
        pcap.extend(b"abc");
        assert_eq!(frames(&pcap).unwrap(), [b"abc"]);
        assert!(frames(&pcap[..pcap.len() - 1]).is_err());
        pcap[20] = 101;
        assert!(frames(&pcap).is_err());
    }
}
