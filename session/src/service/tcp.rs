//! What a TCP stream begins with.

use super::app::App;
use super::cursor::{Cursor, be16, be32};
use super::hints::Hints;
use super::{Ends, ber, binary, dns, http, lines, tls};

/// Streams shorter than this may be anything: one waits for the rest.
const LEAST: usize = 8;

/// What the beginning of one side's stream says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// Nothing we know.
    No,
    /// More of it is needed: so many bytes.
    Need(usize),
    /// Not enough on its own.
    Hint(Hints),
    /// This protocol.
    Is(App),
    /// DNS, with the first name asked for.
    Dns(dns::Message),
}

/// Looks at the beginning of one side's stream.
pub(super) fn look(facts: Ends, from_orig: bool, head: &[u8]) -> Look {
    let Some(first) = head.first() else { return Look::No };
    match tls::start(head) {
        tls::Start::ClientHello | tls::Start::ServerHello | tls::Start::OldClientHello => {
            return Look::Is(App::Ssl);
        }
        tls::Start::Short if *first == 0x16 => return Look::Need(tls::certain()),
        tls::Start::Short | tls::Start::No => {}
    }
    if (first.is_ascii_graphic() || first.is_ascii_whitespace())
        && let found @ (Look::Is(_) | Look::Need(_) | Look::Hint(_)) = text(head)
    {
        return found;
    }
    if let found @ (Look::Is(_) | Look::Need(_) | Look::Hint(_)) = binary(from_orig, head) {
        return found;
    }
    match dns::stream(head, [facts.orig_port, facts.resp_port]) {
        dns::Stream::Is(message) => Look::Dns(message),
        dns::Stream::Need(len) => Look::Need(len),
        dns::Stream::No if head.len() < LEAST => Look::Need(LEAST),
        dns::Stream::No => Look::No,
    }
}

/// A client's stream without what a relay puts before it (the PROXY protocol of HAProxy, versions 1 and 2).
///
/// # Errors
/// So many bytes it takes to say what stands behind it.
pub(super) fn behind_relay(stream: &[u8]) -> Result<&[u8], usize> {
    let Some(len) = relay_header(stream)? else { return Ok(stream) };
    stream.get(len..).filter(|head| !head.is_empty()).ok_or(len + 1)
}

/// Length of a relay's header, if there is one; the error is as above.
fn relay_header(head: &[u8]) -> Result<Option<usize>, usize> {
    /// Longest line of version 1, its end included.
    const LINE_MAX: usize = 107;
    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
    if [&b"PROXY TCP4 "[..], b"PROXY TCP6 ", b"PROXY UNKNOWN"].iter().any(|start| head.starts_with(start)) {
        let line = head.get(..LINE_MAX.min(head.len())).unwrap_or_default();
        return match line.iter().position(|byte| *byte == b'\n') {
            Some(end) => Ok(Some(end + 1)),
            None if head.len() < LINE_MAX => Err(head.len() + 1),
            None => Ok(None),
        };
    }
    let Some(rest) = head.strip_prefix(SIGNATURE) else { return Ok(None) };
    let mut cursor = Cursor(rest);
    let (Some(version), Some(_), Some(len)) = (cursor.u8(), cursor.u8(), cursor.len16()) else {
        return Err(SIGNATURE.len() + 4);
    };
    Ok((version >> 4 == 2).then_some(SIGNATURE.len() + 4 + len))
}

fn text(head: &[u8]) -> Look {
    match http::start(head) {
        http::Start::Request | http::Start::Response => Look::Is(App::Http),
        http::Start::Preface => Look::Is(App::Http2),
        http::Start::Short => match lines::tcp(head) {
            Look::No => Look::Need(head.len() + 1),
            found => found,
        },
        http::Start::No => lines::tcp(head),
    }
}

fn binary(from_orig: bool, head: &[u8]) -> Look {
    let is = |test: bool, app: App| test.then_some(Look::Is(app));
    let first = head.first().copied().unwrap_or_default();
    let found = match first {
        0x00 => netbios(head).or_else(|| is(binary::is_postgresql(head), App::Postgresql)),
        0x03 => is(binary::is_rdp(head), App::Rdp),
        0x04 | 0x05 => is(binary::is_dnp3(head), App::Dnp3Tcp)
            .or_else(|| is(binary::is_dce_rpc(head), App::DceRpc))
            .or_else(|| binary::socks(head).map(Look::Hint)),
        0x10 => is(binary::is_mqtt(head), App::Mqtt),
        0x13 => is(head.starts_with(b"\x13BitTorrent protocol"), App::BitTorrent),
        0x30 => is(ber::is_ldap(head), App::LdapTcp),
        0x81 => netbios(head),
        _ => None,
    };
    found
        .or_else(|| is(binary::is_stun(head), App::Stun))
        .or_else(|| is(binary::is_mysql_greeting(head), App::Mysql))
        .or_else(|| is(length_first(head).is_some_and(ber::is_kerberos), App::KerberosTcp))
        .or_else(|| is(lines::is_syslog_stream(head), App::Syslog))
        .or_else(|| tls_record(head, from_orig))
        .or_else(|| openvpn(head, from_orig))
        .or_else(|| modbus(head, from_orig))
        .or_else(|| is(binary::is_postgresql(head), App::Postgresql))
        .or_else(|| (first == 0).then(|| binary::socks(head).map(Look::Hint)).flatten())
        .unwrap_or(Look::No)
}

/// SMB in its NetBIOS session: a length, then the message; on the old port a request for a session before it.
fn netbios(head: &[u8]) -> Option<Look> {
    let mut cursor = Cursor(head);
    let kind = cursor.u8()?;
    let len = usize::try_from(cursor.u24()?).ok()?;
    match kind {
        // Called and calling name, each 34 bytes with its length and its end.
        0x81 if len == 68 && head.get(4) == Some(&32) => match cursor.take(68) {
            Some(_) if cursor.rest().len() < LEAST => Some(Look::Need(4 + 68 + LEAST)),
            Some(_) => netbios(cursor.rest()),
            None => Some(Look::Need(4 + 68 + LEAST)),
        },
        0x00 if len >= 32 && matches!(be32(head, 4)?, 0xff53_4d42 | 0xfe53_4d42 | 0xfd53_4d42) => {
            Some(Look::Is(App::Smb))
        }
        _ => None,
    }
}

/// What follows a length of four bytes that is right.
fn length_first(head: &[u8]) -> Option<&[u8]> {
    let mut cursor = Cursor(head);
    let len = usize::try_from(cursor.u32()?).ok()?;
    // A ticket may be longer than the first segment.
    (len >= cursor.rest().len() && len < 1 << 20).then_some(cursor.rest())
}

fn openvpn(head: &[u8], from_orig: bool) -> Option<Look> {
    let message = head.get(2..)?;
    let exact = usize::from(be16(head, 0)?) == message.len();
    binary::openvpn(message, from_orig).filter(|_| exact).map(Look::Hint)
}

/// A record of a TLS session that began before we saw it.
fn tls_record(head: &[u8], from_orig: bool) -> Option<Look> {
    let hint = if from_orig { Hints::TLS_ONE } else { Hints::TLS_OTHER };
    tls::is_later_record(head).then_some(Look::Hint(hint))
}

fn modbus(head: &[u8], from_orig: bool) -> Option<Look> {
    let hint = if from_orig { Hints::MODBUS_ONE } else { Hints::MODBUS_OTHER };
    binary::is_modbus(head).then_some(Look::Hint(hint))
}
