//! DNS messages (RFC 1035), and those of mDNS, LLMNR and the NetBIOS name service, which look the same.

use super::cursor::{Cursor, cut};
use std::fmt::Write as _;

/// Header of a message.
const HEADER: usize = 12;
/// Pointers followed for one name: an encoder needs one.
const JUMPS_MAX: u32 = 16;
/// Longest name, root included (RFC 1035, 2.3.4).
const NAME_MAX: usize = 255;
const NETBIOS: u16 = 137;

/// A DNS message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    /// The first name asked for.
    pub(super) query: Option<Box<str>>,
}

/// Whether a port is one of DNS (53), the NetBIOS name service, mDNS, LLMNR.
pub(super) const fn is_port(port: u16) -> bool {
    matches!(port, 53 | NETBIOS | 5353 | 5355)
}

/// Reads a datagram. On a port of DNS it must look like a message; on any other it must be one beyond doubt:
/// one question of a known kind and nothing behind what the header counts.
pub(super) fn datagram(bytes: &[u8], ports: [u16; 2]) -> Option<Message> {
    let at_home = ports.iter().any(|port| is_port(*port));
    let header = Header::read(&mut Cursor(bytes))?;
    let netbios = ports.contains(&NETBIOS);
    if at_home {
        return header.plausible(netbios).then(|| Message { query: header.query(bytes, netbios) });
    }
    header.certain(bytes).then(|| Message { query: header.query(bytes, false) })
}

/// What a TCP stream that may be DNS begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stream {
    No,
    /// More of it is needed: so many bytes.
    Need(usize),
    Is(Message),
}

/// Reads the first message of a stream: a length, then the message.
pub(super) fn stream(bytes: &[u8], ports: [u16; 2]) -> Stream {
    let mut cursor = Cursor(bytes);
    let Some(len) = cursor.len16() else { return Stream::No };
    let at_home = ports.iter().any(|port| is_port(*port));
    let Some(header) = Header::read(&mut Cursor(cursor.rest())) else {
        return if at_home && len > HEADER { Stream::Need(2 + HEADER) } else { Stream::No };
    };
    // The length alone says nothing; with a sane header behind it, it does.
    if len <= HEADER || !header.plausible(false) || header.counts.iter().all(|count| *count == 0) {
        return Stream::No;
    }
    match cursor.take(len) {
        Some(message) if at_home || header.certain(message) => {
            Stream::Is(Message { query: header.query(message, false) })
        }
        None if at_home || header.counts[0] == 1 && header.query(cursor.rest(), false).is_some() => {
            Stream::Need(2 + len)
        }
        _ => Stream::No,
    }
}

/// What is there of a message that did not come whole.
pub(super) fn partial(bytes: &[u8]) -> Option<Box<str>> {
    let message = bytes.get(2..)?;
    let header = Header::read(&mut Cursor(message))?;
    header.plausible(false).then(|| header.query(message, false))?
}

struct Header {
    flags: u16,
    counts: [u16; 4],
}

impl Header {
    fn read(cursor: &mut Cursor<'_>) -> Option<Self> {
        cursor.u16()?;
        let flags = cursor.u16()?;
        Some(Self { flags, counts: [cursor.u16()?, cursor.u16()?, cursor.u16()?, cursor.u16()?] })
    }

    const fn is_response(&self) -> bool {
        self.flags & 0x8000 != 0
    }

    /// Operation and counts are such as one meets.
    fn plausible(&self, netbios: bool) -> bool {
        let operation = (self.flags >> 11) & 0xf;
        let known = matches!(operation, 0..=2 | 4..=6) || (netbios && operation <= 9);
        let total: u32 = self.counts.iter().map(|count| u32::from(*count)).sum();
        // A question takes five bytes at least, a record eleven; no message holds more than 64 KiB.
        known && total < 6000 && self.counts[0] <= 512 && (total > 0 || self.is_response())
    }

    /// Beyond doubt a message: a question of a kind that exists, whole to the last byte.
    fn certain(&self, message: &[u8]) -> bool {
        let look = || {
            let mut cursor = Cursor(message.get(HEADER..)?);
            name_bytes(&mut cursor, message)?;
            let (kind, class) = (cursor.u16()?, cursor.u16()?);
            let known = matches!(kind, 1..=65 | 99..=109 | 128 | 249..=259 | 32768 | 32769);
            let class_known = matches!(class & 0x7fff, 1 | 3 | 4 | 255);
            let records = self.counts.iter().skip(1).map(|count| usize::from(*count)).sum::<usize>();
            for _ in 0..records {
                name_bytes(&mut cursor, message)?;
                cursor.take(8)?;
                cursor.vec16()?;
            }
            Some(known && class_known && cursor.is_empty())
        };
        let query = !self.is_response() && self.counts[1] == 0 && self.flags & 0x8f == 0;
        let response = self.is_response() && self.flags & 0xf <= 11;
        self.plausible(false) && self.counts[0] == 1 && (query || response) && look() == Some(true)
    }

    /// The first question's name, in presentation form.
    fn query(&self, message: &[u8], netbios: bool) -> Option<Box<str>> {
        if self.counts[0] == 0 {
            return None;
        }
        let name = name_bytes(&mut Cursor(message.get(HEADER..)?), message)?;
        if netbios && let Some(text) = netbios_name(&name) {
            return Some(text);
        }
        Some(presentation(&name))
    }
}

/// A name as labels with their lengths, without the root; `cursor` moves behind it. Pointers may only go
/// back, and the whole is at most 255 bytes.
fn name_bytes<'a>(cursor: &mut Cursor<'a>, message: &'a [u8]) -> Option<Vec<u8>> {
    let mut name = Vec::new();
    // Once a pointer has been followed, `cursor` stays behind it and a copy reads on.
    let mut at = *cursor;
    let mut jumps = 0;
    let mut limit = message.len() - cursor.rest().len().min(message.len());
    loop {
        let len = at.u8()?;
        match len >> 6 {
            0 if len == 0 => break,
            0 => {
                let label = at.take(usize::from(len))?;
                if name.len() + label.len() + 2 > NAME_MAX {
                    return None;
                }
                name.push(len);
                name.extend_from_slice(label);
            }
            3 => {
                let target = usize::from(u16::from_be_bytes([len & 0x3f, at.u8()?]));
                if target >= limit || jumps == JUMPS_MAX {
                    return None;
                }
                if jumps == 0 {
                    *cursor = at;
                }
                jumps += 1;
                limit = target;
                at = Cursor(message.get(target..)?);
            }
            _ => return None,
        }
    }
    if jumps == 0 {
        *cursor = at;
    }
    Some(name)
}

/// Labels joined by dots. A dot or a backslash in a label is escaped by a backslash; a byte that is neither
/// printable ASCII nor part of UTF-8 text stands as `\DDD` (RFC 4343, 2.1). The root is `.`.
fn presentation(name: &[u8]) -> Box<str> {
    let mut text = String::new();
    let mut cursor = Cursor(name);
    while let Some(label) = cursor.vec8() {
        if !text.is_empty() {
            text.push('.');
        }
        for chunk in label.utf8_chunks() {
            for letter in chunk.valid().chars() {
                match letter {
                    '.' | '\\' => text.extend(['\\', letter]),
                    _ if letter.is_control() => escape(&mut text, letter.encode_utf8(&mut [0; 4]).as_bytes()),
                    _ => text.push(letter),
                }
            }
            escape(&mut text, chunk.invalid());
        }
    }
    if text.is_empty() {
        text.push('.');
    }
    cut(&text)
}

fn escape(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        // Writing to a String does not fail.
        let _ = write!(text, "\\{byte:03}");
    }
}

/// A NetBIOS name out of its first-level encoding (RFC 1001, 14.1), without padding and type byte.
fn netbios_name(name: &[u8]) -> Option<Box<str>> {
    let label = Cursor(name).vec8()?;
    if label.len() != 32 {
        return None;
    }
    let mut decoded = Vec::with_capacity(16);
    for pair in label.as_chunks::<2>().0 {
        let [high, low] = pair.map(|letter| letter.wrapping_sub(b'A'));
        if high > 15 || low > 15 {
            return None;
        }
        decoded.push((high << 4) | low);
    }
    decoded.truncate(15);
    let end = decoded.iter().rposition(|byte| !matches!(byte, b' ' | 0)).map_or(0, |at| at + 1);
    Some(super::cursor::text(decoded.get(..end).unwrap_or_default()))
}
