//! The TLS client hello, as TLS, DTLS and QUIC carry it: server name, ALPN, JA4.
//!
//! JA4 is the fingerprint of the TLS client by FoxIO (BSD 3-Clause); its specification is
//! `technical_details/JA4.md` of <https://github.com/FoxIO-LLC/ja4>.

use super::cursor::{Cursor, text};
use sha2::{Digest as _, Sha256};
use std::fmt::Write as _;

const SERVER_NAME: u16 = 0;
const SIGNATURE_ALGORITHMS: u16 = 13;
const ALPN: u16 = 16;
const SUPPORTED_VERSIONS: u16 = 43;

/// What carries the hello: JA4's first letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    Tcp,
    Quic,
    Dtls,
}

/// What a client hello tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Hello {
    pub(super) sni: Option<Box<str>>,
    pub(super) alpn: Option<Box<str>>,
    /// Only of a hello that is all there.
    pub(super) ja4: Option<Box<str>>,
}

/// The fields that JA4 is made of.
#[derive(Debug, Default)]
struct Fields<'a> {
    legacy_version: u16,
    version: Option<u16>,
    ciphers: Vec<u16>,
    extensions: Vec<u16>,
    signatures: Vec<u16>,
    sni: Option<&'a [u8]>,
    alpn: Option<&'a [u8]>,
}

/// Reads the body of a client hello (what follows the handshake header), `len` bytes as the header says. A hello
/// whose end is missing still gives the names that stand before it, but no JA4.
pub(super) fn read(body: &[u8], len: usize, carrier: Carrier) -> Hello {
    let mut fields = Fields::default();
    let there = body.get(..len);
    let whole = fields.read(there.unwrap_or(body), carrier).is_some() && there.is_some();
    Hello {
        sni: fields.sni.filter(|name| !name.is_empty()).map(text),
        alpn: fields.alpn.filter(|name| !name.is_empty()).map(text),
        ja4: whole.then(|| fields.ja4(carrier)),
    }
}

/// Values that clients send to keep servers tolerant (RFC 8701): both bytes alike, `xA`.
const fn is_grease(value: u16) -> bool {
    value & 0x0f0f == 0x0a0a && value >> 8 == value & 0xff
}

/// The values of a list of `u16`, without GREASE. An odd last byte is not read.
fn values(list: &[u8]) -> impl Iterator<Item = u16> + '_ {
    list.as_chunks().0.iter().map(|pair| u16::from_be_bytes(*pair)).filter(|value| !is_grease(*value))
}

impl<'a> Fields<'a> {
    /// `Some` if all of it is there.
    fn read(&mut self, body: &'a [u8], carrier: Carrier) -> Option<()> {
        let mut cursor = Cursor(body);
        self.legacy_version = cursor.u16()?;
        cursor.take(32)?;
        cursor.vec8()?;
        if carrier == Carrier::Dtls {
            cursor.vec8()?;
        }
        self.ciphers = values(cursor.vec16()?).collect();
        cursor.vec8()?;
        // SSL 3.0 and TLS 1.0 may end here.
        if cursor.is_empty() {
            return Some(());
        }
        let len = cursor.len16()?;
        let mut extensions = Cursor(cursor.take_up_to(len));
        let cut = extensions.rest().len() < len;
        while !extensions.is_empty() {
            let kind = extensions.u16()?;
            let data = extensions.vec16()?;
            if !is_grease(kind) {
                self.extensions.push(kind);
            }
            self.extension(kind, data);
        }
        (!cut).then_some(())
    }

    /// Notes what an extension says; one that cannot be read says nothing.
    fn extension(&mut self, kind: u16, data: &'a [u8]) {
        let mut cursor = Cursor(data);
        match kind {
            SERVER_NAME if self.sni.is_none() => self.sni = host_name(data),
            ALPN if self.alpn.is_none() => {
                self.alpn = cursor.vec16().and_then(|list| Cursor(list).vec8());
            }
            SUPPORTED_VERSIONS => self.version = cursor.vec8().and_then(|list| values(list).max()),
            SIGNATURE_ALGORITHMS => {
                self.signatures = cursor.vec16().map(|list| values(list).collect()).unwrap_or_default();
            }
            _ => {}
        }
    }

    fn ja4(&self, carrier: Carrier) -> Box<str> {
        let letter = match carrier {
            Carrier::Tcp => 't',
            Carrier::Quic => 'q',
            Carrier::Dtls => 'd',
        };
        let name = if self.extensions.contains(&SERVER_NAME) { 'd' } else { 'i' };
        let (first, last) = alpn_ends(self.alpn.unwrap_or_default());
        let mut ciphers = self.ciphers.clone();
        ciphers.sort_unstable();
        let mut extensions = self.extensions.clone();
        extensions.retain(|kind| !matches!(*kind, SERVER_NAME | ALPN));
        extensions.sort_unstable();
        let mut tail = hex_list(&extensions);
        if !extensions.is_empty() && !self.signatures.is_empty() {
            tail.push('_');
            tail.push_str(&hex_list(&self.signatures));
        }
        format!(
            "{letter}{}{name}{:02}{:02}{first}{last}_{}_{}",
            version_text(self.version.unwrap_or(self.legacy_version)),
            self.ciphers.len().min(99),
            self.extensions.len().min(99),
            hash12(&hex_list(&ciphers)),
            hash12(&tail),
        )
        .into()
    }
}

/// The first host name of a server name extension (RFC 6066, 3).
fn host_name(data: &[u8]) -> Option<&[u8]> {
    let mut list = Cursor(Cursor(data).vec16()?);
    loop {
        let kind = list.u8()?;
        let name = list.vec16()?;
        if kind == 0 {
            return Some(name);
        }
    }
}

const fn version_text(version: u16) -> &'static str {
    match version {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        0xfeff => "d1",
        0xfefd => "d2",
        0xfefc => "d3",
        _ => "00",
    }
}

/// First and last character of the ALPN value; of its hexadecimal form if either is not alphanumeric.
fn alpn_ends(alpn: &[u8]) -> (char, char) {
    let (Some(first), Some(last)) = (alpn.first(), alpn.last()) else { return ('0', '0') };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        return (char::from(*first), char::from(*last));
    }
    let digit = |nibble: u8| char::from_digit(u32::from(nibble), 16).unwrap_or('0');
    (digit(first >> 4), digit(last & 0xf))
}

fn hex_list(values: &[u16]) -> String {
    let mut text = String::with_capacity(values.len() * 5);
    for value in values {
        let comma = if text.is_empty() { "" } else { "," };
        // Writing to a String does not fail.
        let _ = write!(text, "{comma}{value:04x}");
    }
    text
}

/// The first twelve digits of the SHA-256; zeros for an empty list, so that one sees that it is empty.
fn hash12(list: &str) -> String {
    if list.is_empty() {
        return "0".repeat(12);
    }
    let mut text = String::with_capacity(12);
    for byte in Sha256::digest(list.as_bytes()).iter().take(6) {
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
pub(super) mod tests;
