//! Reading, printing and answering, without captures: generated trees, generated text, made packets.

use super::*;
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use tapedeck_packet::{CommunityId, LinkType};

fn addr() -> impl Strategy<Value = IpAddr> {
    prop_oneof![
        any::<u32>().prop_map(|bits| IpAddr::V4(Ipv4Addr::from(bits))),
        any::<u128>().prop_map(|bits| IpAddr::V6(Ipv6Addr::from(bits))),
    ]
}

fn prefix() -> impl Strategy<Value = Prefix> {
    // Bits behind the length are cleared by trying shorter and shorter masks.
    (addr(), 0u8..=128).prop_map(|(addr, bits)| match addr {
        IpAddr::V4(v4) => {
            let bits = bits.min(32);
            let mask = u32::MAX.checked_shl(32 - u32::from(bits)).unwrap_or(0);
            Prefix::new(Ipv4Addr::from(u32::from(v4) & mask).into(), bits).unwrap()
        }
        IpAddr::V6(v6) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits)).unwrap_or(0);
            Prefix::new(Ipv6Addr::from(u128::from(v6) & mask).into(), bits).unwrap()
        }
    })
}

fn dir() -> impl Strategy<Value = Dir> {
    prop_oneof![Just(Dir::Either), Just(Dir::Both), Just(Dir::Source), Just(Dir::Destination)]
}

fn transport() -> impl Strategy<Value = Transport> {
    prop_oneof![Just(Transport::Any), Just(Transport::Tcp), Just(Transport::Udp), Just(Transport::Sctp)]
}

fn version() -> impl Strategy<Value = Version> {
    prop_oneof![Just(Version::Any), Just(Version::V4), Just(Version::V6)]
}

fn address_atom() -> impl Strategy<Value = Atom> {
    (prefix(), dir(), 0..4).prop_map(|(net, dir, family)| {
        let family = match (family, net.addr().is_ipv4()) {
            (0, _) => Family::Any,
            (_, false) => Family::Ip6,
            (1, _) => Family::Ip,
            (2, _) => Family::Arp,
            _ => Family::Rarp,
        };
        Atom::Addr { family, dir, net }
    })
}

fn atom() -> impl Strategy<Value = Atom> {
    let is_tag = |kind: &u16| matches!(kind, 0..=1500 | 0x8100 | 0x88a8 | 0x9100 | 0x8847 | 0x8848 | 0x8864);
    let port = (transport(), dir(), any::<u16>(), any::<u16>());
    prop_oneof![
        address_atom(),
        port.prop_map(|(transport, dir, a, b)| Atom::Port { transport, dir, range: (a.min(b), a.max(b)) }),
        (dir(), any::<[u8; 6]>()).prop_map(|(dir, mac)| Atom::Mac { dir, mac }),
        any::<u16>().prop_filter("a tag", move |kind| !is_tag(kind)).prop_map(Atom::EtherType),
        (version(), any::<u8>()).prop_map(|(version, number)| Atom::Proto { version, number }),
        prop::option::of(0u16..4096).prop_map(Atom::Vlan),
        prop::option::of(0u32..0x10_0000).prop_map(Atom::Mpls),
        prop::option::of(any::<u16>()).prop_map(Atom::Pppoe),
        any::<u32>().prop_map(Atom::AtMost),
        any::<u32>().prop_map(Atom::AtLeast),
        Just(Atom::Broadcast),
        Just(Atom::Multicast),
        Just(Atom::IpMulticast(Version::V4)),
        Just(Atom::IpMulticast(Version::V6)),
        any::<[u8; 20]>().prop_map(|id| Atom::CommunityId(CommunityId(id))),
        (addr(), any::<u16>(), addr(), any::<u16>(), prop::sample::select(vec![6u8, 17, 33, 132, 136]))
            .prop_map(|(a, p, b, q, proto)| Atom::Flow { a: (a, p), b: (b, q), proto }),
    ]
}

fn expr() -> impl Strategy<Value = Expr> {
    let layer = |leaf: BoxedStrategy<Expr>| {
        leaf.prop_recursive(4, 24, 4, |inner| {
            let chain = prop::collection::vec(inner.clone(), 2..4);
            prop_oneof![
                inner.prop_map(Expr::negated),
                chain.clone().prop_map(|all| all.into_iter().reduce(Expr::and).unwrap()),
                chain.prop_map(|any| any.into_iter().reduce(Expr::or).unwrap()),
            ]
        })
        .boxed()
    };
    let plain = layer(atom().prop_map(Expr::Atom).boxed());
    let inner = plain.clone().prop_map(|expr| Expr::Inner(Box::new(expr)));
    layer(prop_oneof![3 => plain, 1 => inner].boxed())
}

proptest! {
    #[test]
    fn a_tree_printed_and_read_is_the_same_tree(expr in expr()) {
        let text = expr.to_string();
        let read = Filter::parse(&text).map_err(|error| TestCaseError::fail(format!("{error}")))?;
        prop_assert_eq!(read.expr(), &expr, "{}", text);
    }

    #[test]
    fn any_text_is_read_or_refused(text in ".{0,80}") {
        check(&text)?;
    }

    #[test]
    fn any_words_of_the_language_are_read_or_refused(words in prop::collection::vec(prop::sample::select(vec![
        "host", "net", "port", "portrange", "src", "dst", "and", "or", "not", "(", ")", "!", "tcp", "udp", "ip",
        "ip6", "arp", "ether", "proto", "vlan", "mpls", "inner", "flow", "less", "len", "<=", "10.0.0.1", "10.1",
        "80", "http", "1-5", "::1", "mask", "255.0.0.0", "community-id", "[::1]:5", "10.0.0.1:80", "broadcast",
        "\\", "[", "]", "&", "1:LQU9qZlK+B5F3KDmev6m5PMibrg=", "0x86dd", "00:11:22:33:44:55", "/8",
    ]), 0..12)) {
        check(&words.join(" "))?;
    }
}

/// What is read prints as something that is read the same; what is refused says why, on one screen.
fn check(text: &str) -> Result<(), TestCaseError> {
    match Filter::parse(text) {
        Ok(filter) => {
            let again = Filter::parse(&filter.to_string());
            prop_assert_eq!(again.as_ref(), Ok(&filter), "{}", filter);
        }
        Err(error) => {
            prop_assert!(error.to_string().lines().count() <= 4);
            prop_assert!(text.get(error.span()).is_some());
        }
    }
    Ok(())
}

#[test]
fn depth_is_bounded_and_length_is_not() {
    let n = 100_000;
    for deep in [
        "(".repeat(n) + "tcp" + &")".repeat(n),
        "not ".repeat(n) + "tcp",
        "!".repeat(n),
        "host (".repeat(n),
        "tcp".to_owned() + &" and udp or tcp".repeat(n),
        "not (tcp and ".repeat(n),
    ] {
        let error = Filter::parse(&deep).unwrap_err();
        assert!(error.message().contains("deeper than 128"), "{}", error.message());
    }
    let wide = "port 80".to_owned() + &" or 443".repeat(n);
    let filter = Filter::parse(&wide).unwrap();
    assert!(!filter.matches(&walked(&tcp(1, 2)), 54));
}

/// (filter, message begins with, text at the caret, hint contains)
const REFUSED: &[(&str, &str, &str, &str)] = &[
    ("hosst 10.0.0.1", "unknown word `hosst`", "hosst", "did you mean `host`?"),
    ("tpc port 80", "unknown word `tpc`", "tpc", "`tcp`"),
    ("host 10.0.0.300", "`10.0.0.300` is not an IP address", "10.0.0.300", ""),
    ("host example.com", "`example.com` is not an IP address", "example.com", "names are not resolved"),
    ("host 10.0.0.0/8", "`10.0.0.0/8` is not an IP address", "10.0.0.0/8", "net ADDRESS/LENGTH"),
    ("host 00:11:22:33:44:55", "`00:11:22:33:44:55` is not", "00:11:22:33:44:55", "ether host"),
    ("10.0.0.1", "unknown word `10.0.0.1`", "10.0.0.1", "host 10.0.0.1"),
    ("10.0.0.0/8", "unknown word `10.0.0.0/8`", "10.0.0.0/8", "net 10.0.0.0/8"),
    ("tcp 80", "`and` or `or` is missing", "80", "host A and port 80"),
    ("host 10.0.0.1 port 80", "`and` or `or` is missing", "port", ""),
    ("tcp or 80", "unknown word `80`", "80", "port 80"),
    ("(tcp or udp", "this `(` is never closed", "(", ""),
    ("tcp)", "there is no `(` for this `)`", ")", ""),
    ("()", "`)` stands where an expression should", ")", ""),
    ("tcp and", "the filter ends where an expression should follow", "", ""),
    ("host", "the filter ends where an address should follow", "", ""),
    ("and tcp", "an operator stands where an expression should", "and", ""),
    ("tcp[13] & 2 != 0", "byte offsets", "[", "tcpdump -r -"),
    ("tcp [13] = 2", "byte offsets", "[13]", ""),
    ("ip[6:2] = 0", "byte offsets", "[", ""),
    ("gateway 10.0.0.1", "`gateway` of tcpdump's language", "gateway", "ether host"),
    ("ip protochain 6", "`protochain` of tcpdump's language", "protochain", "proto"),
    ("geneve 5", "`geneve` of tcpdump's language", "geneve", "inner (EXPR)"),
    ("ip broadcast", "`ip broadcast` needs the network's mask", "broadcast", "255.255.255.255"),
    ("inbound", "`inbound` of tcpdump's language", "inbound", ""),
    ("net 10.1.2.3/8", "`10.1.2.3/8` has bits set behind the first 8", "10.1.2.3/8", "host 10.1.2.3"),
    ("net 10.0.0.0 mask 255.0.255.0", "mask `255.0.255.0` has gaps", "10.0.0.0", ""),
    ("net 10.0.0.0/33", "prefix length `33` is above 32", "10.0.0.0/33", ""),
    ("port 65536", "port `65536` is above 65535", "65536", ""),
    ("port 080", "`080` is not a number", "080", "octal"),
    ("port htpp", "`htpp` is not a port", "htpp", "number"),
    ("udp port http", "service `http` is tcp only, not udp", "http", "number"),
    (
        "tcp host 10.0.0.1",
        "a transport or link protocol cannot qualify an address",
        "10.0.0.1",
        "tcp and host",
    ),
    ("ip port 80", "only tcp, udp and sctp can qualify a port", "80", "ip and port 80"),
    ("ip host ::1", "an IPv6 address cannot be in `ip`", "::1", ""),
    ("ip6 host 1.2.3.4", "an IPv4 address cannot be in `ip6`", "1.2.3.4", ""),
    ("vlan 4096", "VLAN id `4096` is above 4095", "4096", ""),
    ("ether proto 64", "`64` is no EtherType", "64", "1500"),
    ("ether proto stp", "`stp` of tcpdump's language", "stp", ""),
    ("ether", "something should follow `ether`", "ether", ""),
    ("community-id 1:abc", "this is not a Community ID", "1:abc", "1:LQU9"),
    ("flow 10.0.0.1 10.0.0.2 tcp", "`10.0.0.1` is not an address and port", "10.0.0.1", "flow 10.0.0.1:123"),
    ("flow 10.0.0.1:1 10.0.0.2:2 icmp", "`icmp` has no ports", "icmp", ""),
    ("inner tcp", "`(` should stand here", "tcp", "inner ("),
    ("inner (inner (tcp))", "`inner` inside `inner`", "inner", "two"),
    ("80 = 80", "unknown word `80`", "80", ""),
    ("len + 1 > 60", "arithmetic", "+", "len >= 60"),
    ("host and 10.0.0.1", "an operator stands where an address should", "and", ""),
    ("port src 80", "`src` stands where a port should", "src", ""),
    ("tcp ; udp", "unexpected character ';'", ";", ""),
    ("tcp and \u{e9}", "unexpected character '\u{e9}'", "\u{e9}", ""),
];

#[test]
fn errors_say_what_where_and_what_instead() {
    for (text, message, place, hint) in REFUSED {
        let error = match Filter::parse(text) {
            Ok(filter) => panic!("`{text}` was read as `{filter}`"),
            Err(error) => error,
        };
        assert!(error.message().starts_with(message), "`{text}`: {}", error.message());
        assert_eq!(&text[error.span()], *place, "`{text}`");
        assert!(error.hint().unwrap_or_default().contains(hint), "`{text}`: {:?}", error.hint());
    }
}

#[test]
fn an_error_points_at_its_place() {
    let error = Filter::parse("tcp and hots 10.0.0.1").unwrap_err();
    let expected = "unknown word `hots`\n  tcp and hots 10.0.0.1\n          ^^^^\nhint: did you mean `host`?";
    assert_eq!(error.to_string(), expected);
    let long = format!("{}hots 10.0.0.1", "port 80 or ".repeat(30));
    let shown = Filter::parse(&long).unwrap_err().to_string();
    let lines: Vec<&str> = shown.lines().collect();
    assert!(lines[1].len() < 200 && lines[1].starts_with("  ..."), "{shown}");
    assert_eq!(lines[1].find("hots"), lines[2].find('^'), "{shown}");
}

/// (as typed, in full)
const READ: &[(&str, &str)] = &[
    ("", ""),
    ("  \t ", ""),
    ("host 10.0.0.1 or 10.0.0.2 and 10.0.0.3", "host 10.0.0.1 or host 10.0.0.2 and host 10.0.0.3"),
    ("tcp or udp and icmp", "tcp or udp and icmp"),
    ("tcp or (udp and icmp)", "tcp or (udp and icmp)"),
    ("(tcp or udp) and icmp", "tcp or udp and icmp"),
    ("not tcp and udp", "not tcp and udp"),
    ("not (tcp and udp)", "not (tcp and udp)"),
    ("!tcp&&udp||icmp", "not tcp and udp or icmp"),
    ("src or dst port 53", "port 53"),
    ("src and dst host ::1", "src and dst host ::1"),
    ("src net 10 and 192.168", "src net 10.0.0.0/8 and src net 192.168.0.0/16"),
    ("host (10.0.0.1 or not 10.0.0.2) and port 80", "host 10.0.0.1 or not host 10.0.0.2 and port 80"),
    ("host 10.0.0.1 and (port 80) and 10.0.0.2", "host 10.0.0.1 and port 80 and host 10.0.0.2"),
    ("tcp dst port ftp or ftp-data or domain", "tcp dst port 21 or tcp dst port 20 or tcp dst port 53"),
    ("portrange ftp-data-ssh", "tcp portrange 20-22"),
    ("port https", "port 443"),
    ("ether proto 0x8100", "vlan"),
    ("ether proto 34984", "vlan"),
    ("len > 60", "not less 60"),
    ("proto gre or icmp6", "proto 47 or icmp6"),
    ("community-id \"1:LQU9qZlK+B5F3KDmev6m5PMibrg=\"", "community-id 1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
    ("(community-id 1:LQU9qZlK+B5F3KDmev6m5PMibrg=)", "community-id 1:LQU9qZlK+B5F3KDmev6m5PMibrg="),
    ("flow 10.0.0.1:123 [2001:db8::1]:443 tcp", "flow 10.0.0.1:123 [2001:db8::1]:443 tcp"),
    (
        "inner (vlan 5 and host 10.0.0.1) and not inner (arp)",
        "inner (vlan 5 and host 10.0.0.1) and not inner (arp)",
    ),
];

#[test]
fn filters_are_read_as_meant() {
    for (text, full) in READ {
        let filter = Filter::parse(text).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(filter.to_string(), *full, "`{text}`");
    }
}

fn ipv4(proto: u8, payload: &[u8]) -> Vec<u8> {
    let total = u8::try_from(20 + payload.len()).unwrap();
    let mut bytes = vec![0x45, 0, 0, total, 0, 0, 0, 0, 64, proto, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    bytes.extend(payload);
    bytes
}

fn ethernet(tags: &[u16], ethertype: u16, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
    for tag in tags {
        bytes.extend([0x81, 0x00]);
        bytes.extend(tag.to_be_bytes());
    }
    bytes.extend(ethertype.to_be_bytes());
    bytes.extend(payload);
    bytes
}

fn tcp(sport: u16, dport: u16) -> Vec<u8> {
    let mut segment = [sport.to_be_bytes(), dport.to_be_bytes()].concat();
    segment.resize(20, 0);
    ethernet(&[], 0x0800, &ipv4(6, &segment))
}

fn walked(bytes: &[u8]) -> Walk {
    let mut walk = Walk::new();
    walk.run(LinkType::ETHERNET, bytes);
    walk
}

fn vxlan(inside: &[u8]) -> Vec<u8> {
    let length = u8::try_from(16 + inside.len()).unwrap();
    let mut datagram = vec![0xc0, 0, 0x12, 0xb5, 0, length, 0, 0, 8, 0, 0, 0, 0, 0, 7, 0];
    datagram.extend(inside);
    ethernet(&[5, 7], 0x0800, &ipv4(17, &datagram))
}

#[test]
fn made_packets_answer() {
    let arp = [0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 0, 1, 10, 0, 0, 9, 0, 0, 0, 0, 0, 0, 10, 0, 0, 8];
    let nested = vxlan(&tcp(40000, 443));
    let cases: &[(&[u8], &str, bool)] = &[
        (&tcp(40000, 443), "", true),
        (&tcp(40000, 443), "tcp dst port 443 and src host 10.0.0.1", true),
        (&tcp(40000, 443), "src and dst net 10.0.0.0/8 and not dst host 10.0.0.1", true),
        (&tcp(40000, 443), "flow 10.0.0.2:443 10.0.0.1:40000 tcp", true),
        (&tcp(40000, 443), "flow 10.0.0.2:40000 10.0.0.1:443 tcp", false),
        (&tcp(40000, 443), "inner (tcp)", true),
        (&tcp(40000, 443), "vlan or mpls or pppoes", false),
        (&tcp(40000, 443), "less 54 and greater 54 and len = 54", true),
        (&tcp(40000, 443), "ether src 02:00:00:00:00:01 and not ether multicast", true),
        (&ethernet(&[], 0x0806, &arp), "arp and host 10.0.0.9 and arp dst host 10.0.0.8", true),
        (&ethernet(&[], 0x0806, &arp), "ip host 10.0.0.9", false),
        (&nested, "vlan 5 and vlan 7 and udp port 4789", true),
        (&nested, "tcp", false),
        (&nested, "inner (tcp port 443)", true),
        (&nested, "inner (tcp port 443 and vlan 5)", false),
        (&nested, "inner (tcp port 443) and vlan 5", true),
        (&nested, "inner (tcp and udp)", false),
        (&nested[..44], "udp", true),
        (&nested[..44], "port 4789 or not port 4789", true),
        (&[], "not tcp", true),
    ];
    for (bytes, text, expected) in cases {
        let filter = Filter::parse(text).unwrap();
        assert_eq!(filter.matches(&walked(bytes), 54), *expected, "`{text}`");
    }
}

#[test]
fn the_community_id_of_a_packet_finds_it() {
    let walk = walked(&tcp(40000, 443));
    let id = walk.layers()[0].community_id(0).unwrap();
    assert!(Filter::parse(&format!("community-id {id}")).unwrap().matches(&walk, 54));
    let other = walked(&tcp(40001, 443));
    assert!(!Filter::parse(&format!("community-id {id}")).unwrap().matches(&other, 54));
}

/// Facts that know nothing: the index's answer for a coarse row.
struct Unknown;

impl Facts for Unknown {
    fn ask(&self, _: &Atom) -> Tri {
        Tri::Maybe
    }

    fn inner(&self, _: &Expr) -> Tri {
        Tri::Maybe
    }
}

proptest! {
    #[test]
    fn what_is_unknown_stays_open(expr in expr()) {
        prop_assert_eq!(expr.eval(&Unknown), Tri::Maybe);
    }

    #[test]
    fn a_packet_gets_an_exact_answer_and_its_opposite(expr in expr(), bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        let walk = walked(&bytes);
        let filter = Filter { expr: expr.clone() };
        let opposite = Filter { expr: expr.negated() };
        prop_assert_ne!(filter.matches(&walk, 99), opposite.matches(&walk, 99));
    }
}
