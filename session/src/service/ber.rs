//! Protocols in BER: SNMP, LDAP, Kerberos.

use super::cursor::Cursor;

/// SNMP (RFC 1157, 3416, 3412): a sequence of version, community or header, PDU; nothing behind it.
pub(super) fn is_snmp(datagram: &[u8]) -> bool {
    let look = || {
        let mut cursor = Cursor(datagram);
        let (0x30, message) = cursor.ber()? else { return None };
        let mut message = Cursor(message);
        let (2, [version]) = message.ber()? else { return None };
        let (kind, _) = message.ber()?;
        let right = match (version, kind) {
            (0 | 1, 4) => {
                let (pdu, body) = message.ber()?;
                (0xa0..=0xa8).contains(&pdu) && body.first().is_some_and(|tag| matches!(tag, 2 | 6))
            }
            (3, 0x30) => message.ber()?.0 == 4,
            _ => false,
        };
        Some(right && cursor.is_empty())
    };
    look() == Some(true)
}

/// LDAP (RFC 4511): a message with a number and an operation, whose length is right.
pub(super) fn is_ldap(head: &[u8]) -> bool {
    let look = || {
        let mut cursor = Cursor(head);
        let (0x30, len) = cursor.ber_head()? else { return None };
        let there = cursor.rest().len();
        let mut message = Cursor(cursor.take_up_to(len));
        let (2, number) = message.ber()? else { return None };
        let numbered = (1..=4).contains(&number.len()) && number.first().is_some_and(|byte| *byte < 0x80);
        let (operation, inner) = message.ber_head()?;
        // Bind, unbind, search, modify, add, delete, rename, compare, abandon, extended and the answers.
        let known = matches!(operation, 0x60..=0x6f | 0x42 | 0x4a | 0x50 | 0x73 | 0x77 | 0x78);
        let next = message.rest().first().copied();
        let begins = match operation {
            // Bind: a version; search: a name; answers: a result code.
            0x60 => next == Some(2),
            0x63 | 0x64 => next == Some(4),
            0x61 | 0x65 => next == Some(10),
            0x77 => next == Some(0x80),
            _ => len == there || inner == message.rest().len(),
        };
        Some(numbered && known && begins && inner <= len)
    };
    look() == Some(true)
}

/// Kerberos 5 (RFC 4120): an application tag whose message has the version and the type it should have.
pub(super) fn is_kerberos(message: &[u8]) -> bool {
    let look = || {
        let mut cursor = Cursor(message);
        let (tag, _) = cursor.ber_head()?;
        let (0x30, _) = cursor.ber_head()? else { return None };
        let (version_tag, version) = cursor.ber()?;
        let (type_tag, kind) = cursor.ber()?;
        // Requests number their fields from 1, the others from 0.
        let first = if matches!(tag, 0x6a | 0x6c) { 0xa1 } else { 0xa0 };
        let known = matches!(tag, 0x6a | 0x6b | 0x6c | 0x6d | 0x6e | 0x6f | 0x74 | 0x75 | 0x76 | 0x7e);
        let right = version_tag == first && type_tag == first + 1;
        // The type is the tag's number.
        Some(known && right && version == [2, 1, 5] && kind == [2, 1, tag & 0x1f])
    };
    look() == Some(true)
}
