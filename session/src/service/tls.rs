//! TLS over a byte stream: records, the handshake message in them, the client hello in that.

use super::cursor::Cursor;
use super::hello::{self, Carrier, Hello};

/// Largest record of TLS 1.2: 2^14 bytes and what protection may add.
const RECORD_MAX: usize = 16_384 + 2048;
const RECORD_HEAD: usize = 5;
const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
/// Bytes from which on the first handshake message can be told from chance: record header, handshake
/// header, version.
const CERTAIN: usize = RECORD_HEAD + 6;

/// What a stream begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Start {
    ClientHello,
    ServerHello,
    /// A hello in the form of SSL 2.0 that offers SSL 3.0 or later (RFC 5246, E.2).
    OldClientHello,
    /// Could be one of them: fewer bytes than it takes to say so.
    Short,
    No,
}

/// Looks at the first bytes of a stream.
pub(super) fn start(head: &[u8]) -> Start {
    let mut cursor = Cursor(head);
    match record(&mut cursor) {
        Some(true) => {}
        Some(false) => return old_hello(head),
        None => return Start::Short,
    }
    let (Some(kind), Some(len)) = (cursor.u8(), cursor.u24()) else { return Start::Short };
    let Some(version) = cursor.u16() else { return Start::Short };
    // A hello has at least a version, a random and three lengths, and no sane one has 64 KiB.
    let sane = (38..65_536).contains(&len) && (0x0300..=0x0304).contains(&version);
    match kind {
        CLIENT_HELLO if sane => Start::ClientHello,
        SERVER_HELLO if sane => Start::ServerHello,
        _ => Start::No,
    }
}

/// Whether a record header of a handshake stands here; `None` if it is cut but right so far.
fn record(cursor: &mut Cursor<'_>) -> Option<bool> {
    if cursor.u8()? != HANDSHAKE || cursor.u8()? != 3 {
        return Some(false);
    }
    Some(cursor.u8()? <= 4 && (1..=RECORD_MAX).contains(&cursor.len16()?))
}

/// Whether a stream begins with a record that is no hello: of a session that began before.
pub(super) fn is_later_record(head: &[u8]) -> bool {
    let Some(([kind, 3, 0..=3, high, low], _)) = head.split_first_chunk::<RECORD_HEAD>() else {
        return false;
    };
    let len = usize::from(u16::from_be_bytes([*high, *low]));
    match kind {
        // Change of cipher: one byte. Alert: two, or with protection.
        20 => len == 1,
        21 => len == 2 || (18..=64).contains(&len),
        22 | 23 => (17..=RECORD_MAX).contains(&len),
        _ => false,
    }
}

fn old_hello(head: &[u8]) -> Start {
    let mut cursor = Cursor(head);
    let mut look = || {
        let len = cursor.u16()?;
        let fits = (0x8000 + 9..0x8000 + 512).contains(&len) && cursor.u8()? == CLIENT_HELLO;
        let version = cursor.u16()?;
        let [ciphers, session, challenge] = [cursor.len16()?, cursor.len16()?, cursor.len16()?];
        let whole = 9 + ciphers + session + challenge == usize::from(len & 0x7fff);
        Some(
            fits && (0x0300..=0x0303).contains(&version)
                && ciphers > 0
                && ciphers % 3 == 0
                && matches!(session, 0 | 16)
                && (16..=32).contains(&challenge)
                && whole,
        )
    };
    if look() == Some(true) { Start::OldClientHello } else { Start::No }
}

/// A client hello in a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Read {
    /// All of it.
    Whole(Hello),
    /// What is there of it; it may be whole with so many bytes of the stream.
    Part(Hello, usize),
    /// Not a client hello, or not to be understood from here on: what was found before.
    Broken(Hello),
}

/// Reads the client hello that `stream` begins with. It may stand in several records.
pub(super) fn client_hello(stream: &[u8]) -> Read {
    let mut cursor = Cursor(stream);
    let mut message = Vec::new();
    loop {
        let at = stream.len() - cursor.rest().len();
        match record(&mut cursor) {
            Some(true) => {}
            Some(false) => return Read::Broken(partial(&message)),
            None => return Read::Part(partial(&message), at + RECORD_HEAD),
        }
        // The header has been read: its length stands in its last two bytes.
        let len = usize::from(super::cursor::be16(stream, at + 3).unwrap_or_default());
        let body = cursor.take_up_to(len);
        // Nearly always one record holds it all; then nothing is copied.
        let so_far = if message.is_empty() {
            body
        } else {
            message.extend_from_slice(body);
            &message
        };
        match hello_len(so_far) {
            Some(total) if so_far.len() >= total => {
                return Read::Whole(partial(so_far));
            }
            Some(total) if body.len() < len => {
                // Counts the bytes of this record only: a further record asks again.
                let wanted = stream.len() + (len - body.len()).min(total - so_far.len());
                return Read::Part(partial(so_far), wanted);
            }
            None if body.len() < len => return Read::Part(Hello::default(), stream.len() + 4),
            _ => {}
        }
        if message.is_empty() {
            message = body.to_vec();
        }
    }
}

/// Length of the handshake message that begins here, its header included.
fn hello_len(message: &[u8]) -> Option<usize> {
    let mut cursor = Cursor(message);
    cursor.u8()?;
    Some(usize::try_from(cursor.u24()?).ok()?.saturating_add(4))
}

/// What a handshake message says if it is a client hello.
fn partial(message: &[u8]) -> Hello {
    match message.split_first_chunk::<4>() {
        Some(([CLIENT_HELLO, a, b, c], body)) => {
            let len = usize::try_from(u32::from_be_bytes([0, *a, *b, *c])).unwrap_or(usize::MAX);
            hello::read(body, len, Carrier::Tcp)
        }
        _ => Hello::default(),
    }
}

/// Bytes that [`start`] needs to be sure.
pub(super) const fn certain() -> usize {
    CERTAIN
}
