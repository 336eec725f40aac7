//! QUIC (RFC 9000, 9001, 9369): the client's Initial packets, opened with the keys that anyone on the way can
//! derive, and the client hello in their CRYPTO frames.
//!
//! Opened are versions 1 and 2 and the drafts from 23 on; of others, of Google's QUIC and of packets that are
//! cut only the header is read.

mod keys;

use super::cursor::Cursor;
use super::gather::Gather;
use super::hello::{self, Carrier, Hello};
use keys::{Keys, Suite};

const CLIENT_HELLO: u8 = 1;
/// Longest connection id of the versions we know.
const CID_MAX: usize = 20;
/// Packets of a connection that we try to open: keys cost microseconds, and any datagram may claim to be many.
const TRIES: u8 = 32;
/// Length of the tag of AES-128-GCM.
const TAG: usize = 16;

/// What a datagram is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Not QUIC, as far as one can see.
    No,
    /// QUIC whose handshake we cannot open, or not of the client.
    Quic,
    /// It begins with an Initial packet that may be opened.
    Initial,
}

/// Google's versions before the standard: `Q` or `T` and three digits.
fn is_google(version: u32) -> bool {
    let [letter, digits @ ..] = version.to_be_bytes();
    matches!(letter, b'Q' | b'T') && digits.iter().all(u8::is_ascii_digit)
}

/// Versions whose long header is the standard's: the standard, its drafts, Facebook's, Google's last ones.
fn is_version(version: u32) -> bool {
    Suite::of(version).is_some()
        || (0xff00_0001..=0xff00_0022).contains(&version)
        || (0xface_b000..=0xface_b00f).contains(&version)
        || (is_google(version) && version >= u32::from_be_bytes(*b"Q050"))
}

/// The long header of a packet.
struct Header<'a> {
    first: u8,
    version: u32,
    dcid: &'a [u8],
    scid: &'a [u8],
}

impl<'a> Header<'a> {
    fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        let first = cursor.u8()?;
        (first & 0x80 != 0).then_some(())?;
        let version = cursor.u32()?;
        let (dcid, scid) = (cursor.vec8()?, cursor.vec8()?);
        (dcid.len() <= CID_MAX && scid.len() <= CID_MAX).then_some(Self { first, version, dcid, scid })
    }
}

/// Looks at the first bytes of a datagram.
pub(super) fn look(datagram: &[u8]) -> Look {
    if old_google(datagram) {
        return Look::Quic;
    }
    let mut cursor = Cursor(datagram);
    let Some(head) = Header::read(&mut cursor) else { return Look::No };
    if head.version == 0 {
        return if versions_offered(cursor) { Look::Quic } else { Look::No };
    }
    let fixed = head.first & 0x40 != 0;
    // A client may try a version that is reserved for being refused, in a datagram of full size.
    let reserved = head.version & 0x0f0f_0f0f == 0x0a0a_0a0a && datagram.len() >= 1200;
    // Each packet with a long header has at least one id and is longer than a header.
    if !fixed
        || !(is_version(head.version) || reserved)
        || head.dcid.len() + head.scid.len() == 0
        || datagram.len() < 21
    {
        return Look::No;
    }
    match Suite::of(head.version) {
        Some(suite) if (head.first >> 4) & 3 == suite.initial => Look::Initial,
        _ => Look::Quic,
    }
}

/// Google's own headers. Before Q046: flags with version and an eight-byte id, the id, the version. From then
/// to Q049 a long header with the lengths of both ids in one byte, one of them eight.
fn old_google(datagram: &[u8]) -> bool {
    let Some(([flags, rest @ ..], _)) = datagram.split_first_chunk::<13>() else { return false };
    if flags & 0xc0 == 0xc0 {
        let [a, b, c, d, lengths, ..] = *rest;
        return [a, b, c] == *b"Q04" && (b'6'..=b'9').contains(&d) && matches!(lengths, 0x50 | 0x05);
    }
    let [.., a, b, c, d] = *rest;
    flags & 0xc9 == 0x09 && flags & 0x02 == 0 && a == b'Q' && is_google(u32::from_be_bytes([a, b, c, d]))
}

/// A version negotiation packet: a list of versions, one of which we know.
fn versions_offered(cursor: Cursor<'_>) -> bool {
    let (list, rest) = cursor.rest().as_chunks();
    rest.is_empty() && list.iter().any(|version| is_version(u32::from_be_bytes(*version)))
}

/// The client hello of one connection, as its Initial packets come in.
#[derive(Clone, Debug)]
pub(super) struct Quic {
    /// The destination id of the client's first packet: the keys come from it, also after the server has named another.
    first_dcid: Option<Box<[u8]>>,
    crypto: Gather,
    tries: u8,
}

impl Quic {
    /// Nothing gathered.
    pub(super) const fn new() -> Self {
        Self { first_dcid: None, crypto: Gather::new(0, 4), tries: TRIES }
    }

    /// Takes the Initial packets of a datagram. The hello, once it is whole.
    pub(super) fn datagram(&mut self, datagram: &[u8]) -> Option<Hello> {
        let mut rest = datagram;
        while let Some((packet, behind)) = Packet::split(rest) {
            if packet.initial
                && let Some(plain) = self.open(&packet)
                && self.frames(&plain)
            {
                return Some(self.partial());
            }
            rest = behind;
        }
        None
    }

    /// No more can be gathered.
    pub(super) fn hopeless(&self) -> bool {
        self.tries == 0 || self.crypto.hopeless()
    }

    fn open(&mut self, packet: &Packet<'_>) -> Option<Vec<u8>> {
        self.tries = self.tries.checked_sub(1)?;
        let suite = Suite::of(packet.version)?;
        let try_with = |dcid: &[u8]| Keys::of_client(&suite, dcid)?.open(packet.bytes, packet.number_at);
        if let Some(plain) = self.first_dcid.as_deref().and_then(try_with) {
            return Some(plain);
        }
        let plain = try_with(packet.dcid)?;
        self.first_dcid = Some(packet.dcid.into());
        Some(plain)
    }

    /// Takes the CRYPTO frames of an opened packet. Whether the hello is whole.
    fn frames(&mut self, plain: &[u8]) -> bool {
        let mut cursor = Cursor(plain);
        let mut read = || {
            while let Some(kind) = cursor.u8() {
                match kind {
                    // PADDING, PING
                    0 | 1 => {}
                    // ACK: largest, delay, ranges, first range; gap and length of each; ECN counts.
                    2 | 3 => {
                        cursor.varint()?;
                        cursor.varint()?;
                        let ranges = cursor.varint()?;
                        cursor.varint()?;
                        let ecn = if kind == 3 { 3 } else { 0 };
                        for _ in 0..ranges.checked_mul(2)?.checked_add(ecn)? {
                            cursor.varint()?;
                        }
                    }
                    6 => {
                        let offset = cursor.varint()?;
                        let len = cursor.varlen()?;
                        self.crypto.add(u32::try_from(offset).ok()?, cursor.take(len)?);
                    }
                    _ => return None,
                }
            }
            Some(())
        };
        // What stood before a frame that cannot be read has been taken.
        let _ = read();
        let Some(len) = message_len(self.crypto.prefix()) else { return false };
        self.crypto.wanted = len;
        self.crypto.prefix().len() >= len
    }

    /// What is there of the hello.
    pub(super) fn partial(&self) -> Hello {
        match self.crypto.prefix().split_first_chunk::<4>() {
            Some(([CLIENT_HELLO, a, b, c], body)) => {
                let len = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).unwrap_or(usize::MAX);
                hello::read(body, len, Carrier::Quic)
            }
            _ => Hello::default(),
        }
    }
}

/// Length of the handshake message that begins here, with its header.
fn message_len(prefix: &[u8]) -> Option<usize> {
    let mut cursor = Cursor(prefix);
    cursor.u8()?;
    Some(usize::try_from(cursor.u24()?).ok()?.saturating_add(4))
}

/// A packet with a long header and a length.
struct Packet<'a> {
    version: u32,
    initial: bool,
    dcid: &'a [u8],
    /// The packet from its first byte to its end.
    bytes: &'a [u8],
    /// Where the protected packet number stands in it.
    number_at: usize,
}

impl<'a> Packet<'a> {
    /// The first packet of a datagram and what follows it.
    fn split(datagram: &'a [u8]) -> Option<(Self, &'a [u8])> {
        let mut cursor = Cursor(datagram);
        let head = Header::read(&mut cursor)?;
        let suite = Suite::of(head.version)?;
        let kind = (head.first >> 4) & 3;
        if kind == suite.retry {
            return None;
        }
        let initial = kind == suite.initial;
        if initial {
            let token = cursor.varlen()?;
            cursor.take(token)?;
        }
        let len = cursor.varlen()?;
        let number_at = datagram.len() - cursor.rest().len();
        let (bytes, rest) = datagram.split_at_checked(number_at.checked_add(len)?)?;
        Some((Self { version: head.version, initial, dcid: head.dcid, bytes, number_at }, rest))
    }
}

#[cfg(test)]
pub(super) mod tests;
