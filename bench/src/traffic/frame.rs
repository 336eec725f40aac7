//! Frames of Ethernet, IPv4 and UDP or TCP, with right checksums. They carry no number yet.

use super::Payload;
use super::random::Random;

/// Headers of Ethernet, IPv4 and UDP.
pub(super) const UDP_HEADERS: usize = 42;
/// Headers of Ethernet, IPv4 and TCP.
pub(super) const TCP_HEADERS: usize = 54;
/// Shortest frame without its checksum.
pub(super) const SHORTEST: usize = 60;

/// FIN, SYN and so on.
pub(super) mod flag {
    pub(in super::super) const FIN: u8 = 1;
    pub(in super::super) const SYN: u8 = 2;
    pub(in super::super) const PSH: u8 = 8;
    pub(in super::super) const ACK: u8 = 16;
}

/// An address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct End {
    pub(super) address: [u8; 4],
    pub(super) port: u16,
}

/// What TCP says.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tcp {
    pub(super) seq: u32,
    pub(super) ack: u32,
    pub(super) flags: u8,
}

/// A frame of `len` bytes, 60 to 9,014; UDP where TCP says nothing. A TCP frame of 60 bytes has no payload, but
/// padding.
pub(super) fn frame(
    [from, to]: [End; 2],
    tcp: Option<Tcp>,
    len: usize,
    payload: Payload,
    random: &mut Random,
) -> Vec<u8> {
    let headers = if tcp.is_some() { TCP_HEADERS } else { UDP_HEADERS };
    let padded = tcp.is_some() && len <= SHORTEST;
    let whole = if padded { headers } else { len };
    let mut out = vec![0; 12];
    out.extend([8, 0, 0x45, 0]);
    out.extend(word(whole - 14));
    out.extend([0, 0, 0x40, 0, 64, if tcp.is_some() { 6 } else { 17 }, 0, 0]);
    out.extend(from.address);
    out.extend(to.address);
    let check = !sum(0, out.get(14..).unwrap_or_default());
    put(&mut out, 24, check);
    out.extend(from.port.to_be_bytes());
    out.extend(to.port.to_be_bytes());
    let check_at = match tcp {
        Some(tcp) => {
            out.extend(tcp.seq.to_be_bytes());
            out.extend(tcp.ack.to_be_bytes());
            out.extend([0x50, tcp.flags, 0xff, 0xff, 0, 0, 0, 0]);
            50
        }
        None => {
            out.extend(word(whole - 34));
            out.extend([0, 0]);
            40
        }
    };
    if !padded {
        fill(&mut out, len, payload, random);
    }
    let protocol = u32::from(if tcp.is_some() { 6_u8 } else { 17 });
    let pseudo = protocol + u32::try_from(whole - 34).unwrap_or(0);
    let sum = !sum(pseudo, out.get(26..).unwrap_or_default());
    // A UDP checksum of 0 would say that there is none (RFC 768).
    put(&mut out, check_at, if sum == 0 && tcp.is_none() { 0xffff } else { sum });
    out.resize(len, 0);
    out
}

fn word(value: usize) -> [u8; 2] {
    u16::try_from(value).unwrap_or(u16::MAX).to_be_bytes()
}

fn put(out: &mut [u8], at: usize, value: u16) {
    if let Some(place) = out.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<2>) {
        *place = value.to_be_bytes();
    }
}

/// The Internet checksum (RFC 1071), before its complement.
pub(super) fn sum(start: u32, bytes: &[u8]) -> u16 {
    let (words, rest) = bytes.as_chunks::<2>();
    let mut all = words.iter().fold(start, |all, word| all + u32::from(u16::from_be_bytes(*word)));
    all += rest.first().map_or(0, |last| u32::from(*last) << 8);
    while all > 0xffff {
        all = (all & 0xffff) + (all >> 16);
    }
    u16::try_from(all).unwrap_or(0)
}

/// Fills up to `len` bytes.
fn fill(out: &mut Vec<u8>, len: usize, payload: Payload, random: &mut Random) {
    match payload {
        Payload::Zero => {}
        Payload::Random => {
            while out.len() < len {
                out.extend(random.next().to_le_bytes());
            }
        }
        Payload::Text => {
            while out.len() < len {
                // Short words more often than long ones, as in any language.
                let rank = random.below(WORDS.len()) * random.below(WORDS.len()) / WORDS.len();
                out.extend(WORDS.get(rank).unwrap_or(&"").bytes());
                out.push(b' ');
            }
        }
    }
    out.resize(len, 0);
}

const WORDS: [&str; 48] = [
    "the",
    "of",
    "and",
    "to",
    "in",
    "a",
    "is",
    "that",
    "for",
    "it",
    "as",
    "was",
    "with",
    "be",
    "by",
    "on",
    "not",
    "are",
    "from",
    "this",
    "at",
    "or",
    "which",
    "have",
    "an",
    "had",
    "they",
    "you",
    "were",
    "their",
    "there",
    "packet",
    "content",
    "length",
    "network",
    "request",
    "response",
    "session",
    "monitor",
    "analysis",
    "evidence",
    "interface",
    "recorder",
    "connection",
    "application",
    "description",
    "availability",
    "characteristics",
];
