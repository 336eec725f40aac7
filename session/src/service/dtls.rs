//! DTLS 1.0 and 1.2 (RFC 6347; the first flight of 1.3 looks the same): the client hello, in fragments if need be.

use super::cursor::Cursor;
use super::gather::Gather;
use super::hello::{self, Carrier, Hello};

const HANDSHAKE: u8 = 22;
const CLIENT_HELLO: u8 = 1;
const SERVER_HELLO: u8 = 2;
const HELLO_VERIFY: u8 = 3;

/// A handshake record that is not encrypted.
struct Record<'a> {
    kind: u8,
    /// Length of the whole message.
    len: usize,
    /// Number of the message.
    number: u16,
    /// Where the fragment belongs in the message.
    offset: u32,
    fragment: &'a [u8],
}

impl<'a> Record<'a> {
    /// The record at the start of `cursor`, which moves behind it. `None`: no such record.
    fn read(cursor: &mut Cursor<'a>) -> Option<Self> {
        let (kind, version, epoch) = (cursor.u8()?, cursor.u16()?, cursor.u16()?);
        cursor.take(6)?;
        let mut body = Cursor(cursor.vec16()?);
        // 0x0100 is what OpenSSL sent before the RFC, and Cisco's clients still do.
        if kind != HANDSHAKE || !matches!(version, 0xfeff | 0xfefd | 0xfefc | 0x0100) || epoch != 0 {
            return None;
        }
        let kind = body.u8()?;
        let len = body.u24()?;
        let number = body.u16()?;
        let (offset, fragment_len) = (body.u24()?, body.u24()?);
        let fragment = body.take(usize::try_from(fragment_len).ok()?)?;
        if offset.checked_add(fragment_len)? > len {
            return None;
        }
        Some(Self { kind, len: usize::try_from(len).ok()?, number, offset, fragment })
    }
}

/// Whether a datagram begins with a hello, or a request to repeat it.
pub(super) fn is_hello(datagram: &[u8]) -> bool {
    Record::read(&mut Cursor(datagram)).is_some_and(|record| {
        let numbers = record.number <= 1 && record.len >= 3;
        numbers && matches!(record.kind, CLIENT_HELLO | SERVER_HELLO | HELLO_VERIFY)
    })
}

/// The client hello of one session.
#[derive(Clone, Debug)]
pub(super) struct Dtls {
    number: Option<u16>,
    hello: Gather,
}

impl Dtls {
    /// Nothing gathered.
    pub(super) const fn new() -> Self {
        Self { number: None, hello: Gather::new(0, 1) }
    }

    /// Takes the fragments in a datagram. The hello, once it is whole.
    pub(super) fn datagram(&mut self, datagram: &[u8]) -> Option<Hello> {
        let mut cursor = Cursor(datagram);
        while let Some(record) = Record::read(&mut cursor) {
            if record.kind != CLIENT_HELLO {
                continue;
            }
            // The client repeats its hello with a cookie, under another number.
            if self.number != Some(record.number) {
                *self = Self { number: Some(record.number), hello: Gather::new(0, record.len) };
            }
            if self.hello.add(record.offset, record.fragment) {
                return Some(self.partial());
            }
        }
        None
    }

    /// No more can be gathered.
    pub(super) fn hopeless(&self) -> bool {
        self.hello.hopeless()
    }

    /// What is there of the hello.
    pub(super) fn partial(&self) -> Hello {
        hello::read(self.hello.prefix(), self.hello.wanted, Carrier::Dtls)
    }
}
