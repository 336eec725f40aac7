//! Protocols in binary: tests that chance does not pass.

use super::cursor::{Cursor, be16, be32};
use super::hints::Hints;

/// PostgreSQL: a request for TLS, GSSAPI or a cancel, or a startup message of version 3 with a user.
pub(super) fn is_postgresql(head: &[u8]) -> bool {
    let (Some(len), Some(code)) = (be32(head, 0), be32(head, 4)) else { return false };
    match code {
        // 1234.5679 TLS, 1234.5680 GSSAPI
        0x04d2_162f | 0x04d2_1630 => len == 8,
        // 1234.5678 cancel, with process and key
        0x04d2_162e => len == 16,
        0x0003_0000..=0x0003_0002 => {
            (16..10_000).contains(&len)
                && head.get(8..).unwrap_or_default().windows(5).any(|w| w == b"user\0")
        }
        _ => false,
    }
}

/// RDP: a connection request or confirmation of X.224 in a TPKT, with the cookie or the negotiation of RDP
/// (MS-RDPBCGR 2.2.1.1, 2.2.1.2). Without one it may be any protocol on ISO transport.
pub(super) fn is_rdp(head: &[u8]) -> bool {
    let look = || {
        let mut cursor = Cursor(head);
        let (version, _, len) = (cursor.u8()?, cursor.u8()?, cursor.len16()?);
        let header = usize::from(cursor.u8()?);
        let kind = cursor.u8()?;
        let addresses = cursor.take(5)?;
        if version != 3 || header + 5 != len || addresses.get(..2)? != [0, 0] && kind == 0xe0 {
            return None;
        }
        let user = cursor.rest();
        match kind {
            0xe0 => Some(
                user.starts_with(b"Cookie: mstshash=")
                    || user.starts_with(b"Cookie: msts=")
                    || matches!(user, [1, _, 8, 0, _, 0, 0, 0, ..]),
            ),
            0xd0 => Some(len == 19 && matches!(user, [2 | 3, _, 8, 0, _, 0, 0, 0])),
            _ => None,
        }
    };
    look() == Some(true)
}

/// A link frame of DNP3 (IEEE 1815): start bytes, length, and a header checksum that is right.
pub(super) fn is_dnp3(head: &[u8]) -> bool {
    let Some(([0x05, 0x64, len, .., low, high], _)) = head.split_first_chunk::<10>() else { return false };
    *len >= 5 && head.get(..8).map(dnp3_crc) == Some(u16::from_le_bytes([*low, *high]))
}

/// CRC-16 of DNP3: polynomial 0x3d65, reflected, complemented.
fn dnp3_crc(bytes: &[u8]) -> u16 {
    !bytes.iter().fold(0_u16, |crc, byte| {
        (0..8)
            .fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xa6bc } else { crc >> 1 })
    })
}

/// A bind, or its answer, of DCE/RPC version 5 over TCP (C706, 12.6.4), whole.
pub(super) fn is_dce_rpc(head: &[u8]) -> bool {
    let look = || {
        let mut cursor = Cursor(head);
        let [version, minor, kind, flags] = *cursor.take(4)?.first_chunk()?;
        let order = cursor.u32()?;
        let bytes: [u8; 2] = *cursor.take(2)?.first_chunk()?;
        let len = if order >> 24 == 0x10 { u16::from_le_bytes(bytes) } else { u16::from_be_bytes(bytes) };
        let known = version == 5 && minor <= 1 && matches!(kind, 11..=15) && flags & 3 == 3;
        Some(known && matches!(order, 0x1000_0000 | 0) && usize::from(len) == head.len())
    };
    look() == Some(true)
}

/// SOCKS 4 and 5 (RFC 1928): one side alone is no proof.
pub(super) fn socks(head: &[u8]) -> Option<Hints> {
    match *head {
        [5, methods, ..] if usize::from(methods) + 2 == head.len() && (1..=10).contains(&methods) => {
            let known = head.get(2..)?.iter().all(|method| matches!(method, 0..=9 | 0x80..=0xfe));
            // `05 01 00` may be a reply cut short as well as a request; `05 00` is not a request.
            known.then_some(Hints::SOCKS5_REQUEST)
        }
        [5, 0..=9 | 0xff] => Some(Hints::SOCKS5_REPLY),
        [4, 1 | 2, high, low, ..] if (high, low) != (0, 0) => {
            let tail = head.get(8..)?;
            (tail.len() <= 512 && tail.last() == Some(&0)).then_some(Hints::SOCKS4_REQUEST)
        }
        [0, 0x5a..=0x5d, _, _, _, _, _, _] => Some(Hints::SOCKS4_REPLY),
        _ => None,
    }
}

/// CONNECT of MQTT 3.1, 3.1.1 and 5 (OASIS MQTT 5.0, 3.1).
pub(super) fn is_mqtt(head: &[u8]) -> bool {
    let Some(rest) = head.strip_prefix(&[0x10]) else { return false };
    // The length that remains has one to four bytes, all but the last with the upper bit.
    let more = rest.iter().take(3).take_while(|byte| **byte >= 0x80).count();
    let rest = rest.get(more + 1..).unwrap_or_default();
    matches!(rest, [0, 4, b'M', b'Q', b'T', b'T', 3..=5, ..]) || rest.starts_with(b"\x00\x06MQIsdp\x03")
}

/// STUN with its magic cookie (RFC 5389, 6); over TCP too.
pub(super) fn is_stun(message: &[u8]) -> bool {
    let (Some(kind), Some(len), Some(cookie)) = (be16(message, 0), be16(message, 2), be32(message, 4)) else {
        return false;
    };
    kind < 0x4000 && len % 4 == 0 && cookie == 0x2112_a442 && usize::from(len) + 20 == message.len()
}

/// STUN before it had a cookie (RFC 3489): a type there was, and attributes to the end; at home also without any.
pub(super) fn is_old_stun(datagram: &[u8], at_home: bool) -> bool {
    let look = || {
        let mut cursor = Cursor(datagram);
        let (kind, len) = (cursor.u16()?, cursor.len16()?);
        cursor.take(16)?;
        let known = matches!(kind, 0x0001 | 0x0101 | 0x0111 | 0x0002 | 0x0102 | 0x0112);
        if !known || cursor.rest().len() != len || (len == 0 && !at_home) {
            return None;
        }
        while !cursor.is_empty() {
            // The types of that time: 1 to 11, and server name.
            let kind = cursor.u16()?;
            (matches!(kind, 1..=11) || kind >= 0x8000).then_some(())?;
            cursor.vec16()?;
        }
        Some(true)
    };
    look() == Some(true)
}

/// What a MySQL server says first: protocol 10 and its version, or why it refuses.
pub(super) fn is_mysql_greeting(head: &[u8]) -> bool {
    let Some(([low, middle, high, 0, kind, rest @ ..], tail)) = head.split_first_chunk::<9>() else {
        return false;
    };
    let len = usize::try_from(u32::from_le_bytes([*low, *middle, *high, 0])).unwrap_or(usize::MAX);
    if len + 4 != head.len() {
        return false;
    }
    match kind {
        10 => {
            let [first, second, ..] = rest;
            let version = tail.iter().take(64).position(|byte| *byte == 0);
            // The number of the connection and eight bytes of challenge follow, then a zero.
            let filler = version.and_then(|end| tail.get(end + 13));
            first.is_ascii_digit() && matches!(second, b'.' | b'0'..=b'9') && filler == Some(&0)
        }
        0xff => {
            let errno = u16::from_le_bytes([rest[0], rest[1]]);
            (1000..2000).contains(&errno)
                && rest[2..].iter().chain(tail).all(|byte| (b' '..127).contains(byte))
        }
        _ => false,
    }
}

/// The first message of OpenVPN's control channel, or its answer, without the length that TCP puts before it; plain or
/// with an HMAC. Whatever stands between, the first one ends in a count of no acknowledgements and packet 0; the
/// answer in one acknowledgement, of packet 0, the client's session and packet 0. Wrapped messages (tls-crypt)
/// cannot be told from chance.
pub(super) fn openvpn(message: &[u8], from_orig: bool) -> Option<Hints> {
    const LENGTHS: std::ops::RangeInclusive<usize> = 14..=128;
    let fits = LENGTHS.contains(&message.len());
    match (message.first()?, from_orig) {
        // P_CONTROL_HARD_RESET_CLIENT_V2, key 0
        (0x38, true) if fits && message.ends_with(&[0; 5]) => Some(Hints::VPN_REQUEST),
        // P_CONTROL_HARD_RESET_SERVER_V2, key 0
        (0x40, false) if fits && message.ends_with(&[0; 4]) => {
            let tail = message.get(message.len().checked_sub(17)?..)?;
            tail.starts_with(&[1, 0, 0, 0, 0]).then_some(Hints::VPN_REPLY)
        }
        _ => None,
    }
}

/// A request or an answer of Modbus/TCP: protocol 0, a length that is right, a function there is.
pub(super) fn is_modbus(head: &[u8]) -> bool {
    let (Some(0), Some(len)) = (be16(head, 2), be16(head, 4)) else { return false };
    let function = head.get(7).copied().unwrap_or_default();
    let known = matches!(function & 0x7f, 1..=8 | 11 | 12 | 15..=17 | 20..=24 | 43 | 90);
    (3..=254).contains(&len) && usize::from(len) + 6 <= head.len() && known
}

/// A message of DHCP or BOOTP with its magic cookie (RFC 2131).
pub(super) fn is_dhcp(datagram: &[u8]) -> bool {
    let head = matches!(datagram, [1 | 2, _, ..=16, _, ..]);
    head && be32(datagram, 236) == Some(0x6382_5363)
}

/// NTP (RFC 5905), or its control and private messages, on its port.
pub(super) fn is_ntp(datagram: &[u8]) -> bool {
    let Some(first) = datagram.first() else { return false };
    let (version, mode) = ((first >> 3) & 7, first & 7);
    let long = match mode {
        1..=5 => datagram.len() >= 48 && datagram.len().is_multiple_of(4),
        6 => datagram.len() >= 12,
        7 => datagram.len() >= 8,
        _ => false,
    };
    long && (1..=4).contains(&version)
}

/// RADIUS (RFC 2865): a known code, a length that is right, attributes to the end.
pub(super) fn is_radius(datagram: &[u8]) -> bool {
    let look = || {
        let mut cursor = Cursor(datagram);
        let (code, _, len) = (cursor.u8()?, cursor.u8()?, cursor.len16()?);
        cursor.take(16)?;
        if len > datagram.len() || !matches!(code, 1..=5 | 11..=13 | 40..=45) {
            return None;
        }
        let mut attributes = Cursor(cursor.take(len.checked_sub(20)?)?);
        while !attributes.is_empty() {
            attributes.u8()?;
            let len = usize::from(attributes.u8()?);
            attributes.take(len.checked_sub(2)?)?;
        }
        Some(true)
    };
    look() == Some(true)
}

/// A request to read or write a file (RFC 1350).
pub(super) fn is_tftp(datagram: &[u8]) -> bool {
    let Some(rest) = datagram.strip_prefix(&[0, 1]).or_else(|| datagram.strip_prefix(&[0, 2])) else {
        return false;
    };
    let mut words = rest.split(|byte| *byte == 0);
    let name = words.next().unwrap_or_default();
    let mode = words.next().unwrap_or_default();
    let known = [&b"octet"[..], b"netascii", b"mail"].iter().any(|known| mode.eq_ignore_ascii_case(known));
    !name.is_empty() && name.iter().all(|byte| !byte.is_ascii_control()) && known && words.next().is_some()
}

/// A message of WireGuard: one side alone is no proof. A handshake says which side it comes from; in a tunnel that
/// began before, data goes both ways.
pub(super) fn wireguard(datagram: &[u8], from_orig: bool) -> Option<Hints> {
    let request = match (datagram.len(), be32(datagram, 0)?) {
        (148, 0x0100_0000) => true,
        (92, 0x0200_0000) => false,
        // Padded to 16 bytes; the upper bytes of its counter are zero for as long as a key lives.
        (len, 0x0400_0000) if len >= 32 && len.is_multiple_of(16) && datagram.get(13..16)? == [0; 3] => {
            from_orig
        }
        _ => return None,
    };
    Some(if request { Hints::WIREGUARD_REQUEST } else { Hints::WIREGUARD_REPLY })
}

/// The first datagram of RDP over UDP (MS-RDPEUDP 2.2.2.1): SYN, padded to its full size.
pub(super) fn is_rdp_udp(datagram: &[u8]) -> bool {
    datagram.len() == 1232
        && be32(datagram, 0) == Some(u32::MAX)
        && be16(datagram, 6).is_some_and(|f| f & 1 == 1)
}

/// A message of DHCPv6 (RFC 8415) between its ports.
pub(super) fn is_dhcpv6(datagram: &[u8]) -> bool {
    let look = || {
        let mut cursor = Cursor(datagram);
        let head = match cursor.u8()? {
            1..=11 => 3,
            12 | 13 => 33,
            _ => return None,
        };
        cursor.take(head)?;
        while !cursor.is_empty() {
            cursor.u16()?;
            cursor.vec16()?;
        }
        Some(true)
    };
    look() == Some(true)
}
