//! ICMP types and codes in the place of ports, as Community ID v1 maps them (and Zeek before it).
//!
//! A request and its reply get the same pair, mirrored; a message without a counterpart is one-way and
//! keeps its code. Must never look at more than type and code.

const ICMP: u8 = 1;
const ICMPV6: u8 = 58;

/// (port of the source, port of the destination, one-way) for a message of type `kind`.
pub(crate) fn as_ports(proto: u8, kind: u8, code: u8) -> (u16, u16, bool) {
    let counterpart = match proto {
        ICMP => v4_counterpart(kind),
        ICMPV6 => v6_counterpart(kind),
        _ => None,
    };
    match counterpart {
        Some(other) => (u16::from(kind), u16::from(other), false),
        None => (u16::from(kind), u16::from(code), true),
    }
}

/// RFC 792 echo, timestamp, information; RFC 1256 router; RFC 950 mask.
fn v4_counterpart(kind: u8) -> Option<u8> {
    Some(match kind {
        0 => 8,
        8 => 0,
        9 => 10,
        10 => 9,
        13 => 14,
        14 => 13,
        15 => 16,
        16 => 15,
        17 => 18,
        18 => 17,
        _ => return None,
    })
}

/// RFC 4443 echo, RFC 2710 listener, RFC 4861 router and neighbour, RFC 4620 node information,
/// RFC 6275 home agent address discovery.
fn v6_counterpart(kind: u8) -> Option<u8> {
    Some(match kind {
        128 => 129,
        129 => 128,
        130 => 131,
        131 => 130,
        133 => 134,
        134 => 133,
        135 => 136,
        136 => 135,
        139 => 140,
        140 => 139,
        144 => 145,
        145 => 144,
        _ => return None,
    })
}
