//! The words of the language: keywords, names of services and protocols, and words of tcpdump's that
//! we do not have, each with what to write instead. Nothing is looked up on the machine.

use super::ast::Transport;
use super::error::Problem;

/// Every keyword, for suggestions.
const KEYWORDS: &[&str] = &[
    "and",
    "or",
    "not",
    "inner",
    "flow",
    "community-id",
    "host",
    "net",
    "mask",
    "port",
    "portrange",
    "proto",
    "src",
    "dst",
    "ip",
    "ip6",
    "arp",
    "rarp",
    "tcp",
    "udp",
    "sctp",
    "icmp",
    "icmp6",
    "igmp",
    "igrp",
    "pim",
    "vrrp",
    "carp",
    "esp",
    "ether",
    "vlan",
    "mpls",
    "pppoes",
    "pppoed",
    "less",
    "greater",
    "len",
    "broadcast",
    "multicast",
    "aarp",
    "decnet",
    "lat",
    "moprc",
    "mopdl",
    "sca",
    "state",
    "history",
    "service",
    "sni",
    "alpn",
    "ja4",
    "http-host",
    "dns",
    "uid",
    "bytes",
    "packets",
    "duration",
];

/// Whether `word` is a keyword of the language or of tcpdump's.
pub(super) fn is_keyword(word: &str) -> bool {
    KEYWORDS.contains(&word) || unsupported(word).is_some()
}

/// The keyword that `word` most resembles, if it resembles one.
pub(super) fn nearest(word: &str) -> Option<&'static str> {
    let word = word.to_ascii_lowercase();
    let close = |keyword: &&&str| distance(&word, keyword) <= if word.len() < 4 { 1 } else { 2 };
    KEYWORDS.iter().filter(close).min_by_key(|keyword| distance(&word, keyword)).copied()
}

/// Edit distance, with a swap of neighbours counted as one; long words are far from everything.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    const LONGEST: usize = 24;
    if a.len() > LONGEST {
        return usize::MAX;
    }
    let (a, b): (Vec<u8>, Vec<u8>) = (a.bytes().collect(), b.bytes().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.iter().enumerate() {
        let mut next = vec![i + 1];
        for (j, y) in b.iter().enumerate() {
            let at = |cells: &[usize], k: usize| cells.get(k).copied().unwrap_or(usize::MAX - 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(y) && b.get(j - 1) == Some(x);
            let swap = if swapped { at(&before, j - 1) + 1 } else { usize::MAX };
            let change = at(&row, j) + usize::from(x != y);
            next.push(change.min(at(&row, j + 1) + 1).min(at(&next, j) + 1).min(swap));
        }
        (before, row) = (row, next);
    }
    row.last().copied().unwrap_or(usize::MAX)
}

/// A keyword of tcpdump's language that we do not have.
pub(super) fn unsupported(word: &str) -> Option<Problem> {
    let hint = match word {
        "gateway" => "write `ether host MAC and not host ADDRESS`",
        "protochain" => "write `proto`: extension headers are looked through",
        "geneve" => "write `inner (EXPR)` to look inside tunnels",
        "ah" => "authentication headers are looked through: ask for what is behind them",
        "byte" => "byte offsets are not in the language",
        "inbound" | "outbound" | "ifindex" => "the direction of a packet at the interface is not recorded",
        "llc" | "stp" | "iso" | "clnp" | "esis" | "es-is" | "isis" | "is-is" | "l1" | "l2" | "iih"
        | "lsp" | "snp" | "csnp" | "psnp" | "netbeui" | "ipx" | "atalk" => {
            "LLC protocols are not indexed; `not ip and not ip6 and not arp` narrows the search"
        }
        "radio" | "type" | "subtype" | "direction" | "dir" | "address1" | "addr1" | "address2" | "addr2"
        | "address3" | "addr3" | "address4" | "addr4" | "ra" | "ta" => "fields of 802.11 are not indexed",
        "on" | "ifname" | "rset" | "ruleset" | "rnr" | "rulenum" | "srnr" | "subrulenum" | "reason"
        | "action" => "fields of packet filter logs are not indexed",
        "lane" | "metac" | "bcc" | "oam" | "oamf4" | "oamf4ec" | "oamf4sc" | "sc" | "ilmic" | "vpi"
        | "vci" | "connectmsg" | "metaconnect" => "ATM is not indexed",
        "fisu" | "lssu" | "lsu" | "msu" | "hfisu" | "hlssu" | "hmsu" | "sio" | "opc" | "dpc" | "sls"
        | "hsio" | "hopc" | "hdpc" | "hsls" => "SS7 is not indexed",
        _ => return None,
    };
    Some(Problem::new(format!("`{word}` of tcpdump's language is not supported")).hint(hint))
}

/// Port and transport of a service name.
pub(super) fn service(name: &str) -> Option<(u16, Transport)> {
    include_str!("services.txt").lines().find_map(|line| {
        let (service, port) = line.split_once(' ')?;
        if service != name {
            return None;
        }
        let (port, transport) = match port.split_once('/') {
            Some((port, "tcp")) => (port, Transport::Tcp),
            Some((port, "udp")) => (port, Transport::Udp),
            Some((port, _)) => (port, Transport::Sctp),
            None => (port, Transport::Any),
        };
        Some((port.parse().ok()?, transport))
    })
}

/// Number of an IP protocol's name.
pub(super) fn ip_protocol(name: &str) -> Option<u8> {
    Some(match name {
        "icmp" => 1,
        "igmp" => 2,
        "ipencap" => 4,
        "tcp" => 6,
        "egp" => 8,
        "igp" | "igrp" => 9,
        "udp" => 17,
        "dccp" => 33,
        "ipv6" => 41,
        "rsvp" => 46,
        "gre" => 47,
        "esp" => 50,
        "ipv6-icmp" | "icmp6" => 58,
        "eigrp" => 88,
        "ospf" => 89,
        "etherip" => 97,
        "pim" => 103,
        "ipcomp" => 108,
        "vrrp" | "carp" => 112,
        "l2tp" => 115,
        "sctp" => 132,
        "mobility-header" => 135,
        "udplite" => 136,
        "mpls-in-ip" => 137,
        _ => return None,
    })
}

/// EtherType of a protocol's name.
pub(super) fn ethertype(name: &str) -> Option<u16> {
    Some(match name {
        "ip" => 0x0800,
        "arp" => 0x0806,
        "rarp" => 0x8035,
        "ip6" => 0x86dd,
        "mopdl" => 0x6001,
        "moprc" => 0x6002,
        "decnet" => 0x6003,
        "lat" => 0x6004,
        "sca" => 0x6007,
        "aarp" => 0x80f3,
        "loopback" => 0x9000,
        _ => return None,
    })
}
