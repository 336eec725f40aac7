//! Rules, what they take, and what is said of what is none. The program itself is asked in `tests/filter.rs`.

use super::*;

fn filter(keep: &[&str], skip: &[&str]) -> Filter {
    let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    Filter::new(rules(keep), rules(skip)).unwrap()
}

/// A UDP packet over IPv4 behind these tags.
fn udp(source: [u8; 4], target: [u8; 4], ports: (u16, u16), tags: &[u16]) -> Vec<u8> {
    let mut packet = vec![2; 12];
    for tag in tags {
        packet.extend([0x81, 0]);
        packet.extend(tag.to_be_bytes());
    }
    packet.extend([8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
    packet.extend(source);
    packet.extend(target);
    packet.extend(ports.0.to_be_bytes());
    packet.extend(ports.1.to_be_bytes());
    packet.extend([0, 8, 0, 0]);
    packet
}

#[test]
fn rules_are_read_as_tcpdump_reads_them() {
    for (text, canonical) in [
        ("net 10.0.0.0/8", "net 10.0.0.0/8"),
        (
            "host 10.0.0.1 and tcp port 9000 and host 10.0.0.2",
            "host 10.0.0.1 and host 10.0.0.2 and tcp port 9000",
        ),
        ("net 2001:db8::/32", "net 2001:db8::/32"),
        ("vlan && udp", "vlan and udp"),
        ("vlan 12 and vlan 7", "vlan 7 and vlan 12"),
        ("proto 50", "proto 50"),
        ("proto 6", "tcp"),
        ("proto 47 and portrange 1-2", "proto 47 and portrange 1-2"),
        ("host 10.0.0.1/8", ""),
    ] {
        let rule = text.parse::<Rule>();
        assert_eq!(rule.map(|rule| rule.to_string()).unwrap_or_default(), canonical, "{text}");
    }
}

#[test]
fn what_is_no_rule_is_told_what_to_write() {
    for (text, said) in [
        ("", "a rule is one or more of"),
        ("10.0.0.0/8", "write `net 10.0.0.0/8`"),
        ("10.0.0.1", "write `host 10.0.0.1`"),
        ("net 10.1.0.0/8", "write `net 10.0.0.0/8`"),
        ("net 10.0.0.0", "such as `net 10.0.0.0/24`"),
        ("net 10.0.0.0/33", "`/33` is not a length from 0 to 32"),
        ("host example.org", "names are not looked up"),
        ("port 80-90", "write `portrange 80-90`"),
        ("portrange 90-80", "the first port is the smaller one"),
        ("port 80 or port 81", "make two of it"),
        ("not port 80", "put it into the other list"),
        ("src net 10.0.0.0/8", "both directions"),
        ("port 80 port 81", "`and` is missing before `port`"),
        ("port 80 and port 81", "one port a rule"),
        ("tcp and udp", "one protocol a rule"),
        ("icmp and port 7", "ICMP has no ports"),
        ("vlan 4096", "not a VLAN id"),
        ("port", "`port` wants a value"),
        ("tcp and", "a rule is one or more of"),
        ("hots 1.2.3.4", "`hots` is not understood"),
    ] {
        let error = text.parse::<Rule>().unwrap_err();
        assert!(error.to_string().contains(said), "{text}: {error}");
    }
}

#[test]
fn keeping_and_skipping() {
    let packet = udp([10, 0, 0, 1], [192, 168, 0, 1], (5000, 53), &[100, 7]);
    for (keep, skip, taken) in [
        (&[][..], &[][..], true),
        (&["net 10.0.0.0/8"], &[], true),
        (&["net 11.0.0.0/8"], &[], false),
        (&["net 11.0.0.0/8", "udp port 53"], &[], true),
        (&["net 10.0.0.0/8"], &["port 53"], false),
        (&[], &["net 10.0.0.0/8 and net 192.168.0.0/16"], false),
        (&[], &["host 10.0.0.1 and host 10.0.0.2"], true),
        (&[], &["tcp port 53"], true),
        (&["vlan 7"], &[], true),
        (&["vlan 100 and vlan 7"], &[], true),
        (&["vlan 100 and vlan 8"], &[], false),
        (&[], &["vlan"], false),
        (&[], &["icmp", "proto 17 and portrange 4999-5001"], false),
    ] {
        assert_eq!(filter(keep, skip).takes(&packet), taken, "keep {keep:?} skip {skip:?}");
    }
}

/// In doubt a packet is recorded.
#[test]
fn what_cannot_be_known_is_taken() {
    let mut later = udp([10, 0, 0, 1], [10, 0, 0, 2], (5000, 53), &[]);
    later[20] = 0x01;
    let cut = udp([10, 0, 0, 1], [10, 0, 0, 2], (5000, 53), &[])[..30].to_vec();
    let deep = udp([10, 0, 0, 1], [10, 0, 0, 2], (5000, 53), &[1; 9]);
    for packet in [&later, &cut, &deep] {
        assert!(filter(&["port 99"], &[]).takes(packet), "{packet:x?}");
        assert!(filter(&[], &["port 53"]).takes(packet), "{packet:x?}");
    }
    // What is known of them decides.
    assert!(!filter(&["net 11.0.0.0/8 and port 99"], &[]).takes(&later));
    assert!(!filter(&[], &["net 10.0.0.0/8"]).takes(&later));
    assert!(!filter(&[], &["vlan 1"]).takes(&deep));
    // Nothing but what was asked for.
    let mut unknown = vec![0; 60];
    unknown[12..14].copy_from_slice(&[0x88, 0xcc]);
    assert!(!filter(&["net 0.0.0.0/0"], &[]).takes(&unknown));
    assert!(filter(&[], &["net 0.0.0.0/0"]).takes(&unknown));
}

#[test]
fn the_text_of_a_filter_is_one_expression() {
    let text = |keep: &[&str], skip: &[&str]| filter(keep, skip).to_string();
    assert_eq!(text(&[], &[]), "");
    assert_eq!(text(&["net 10.0.0.0/8", "net 10.0.0.0/8"], &[]), "(net 10.0.0.0/8)");
    assert_eq!(text(&[], &["tcp port 443", "vlan 12"]), "not (tcp port 443 or vlan 12)");
    assert_eq!(
        text(&["net 10.0.0.0/8 and vlan 3", "udp"], &["port 1"]),
        "((vlan 3 and net 10.0.0.0/8) or udp) and not (port 1)"
    );
}

#[test]
fn many_rules_of_one_kind_are_one_clause_and_too_many_kinds_are_refused() {
    let nets = (0..1000).map(|n: u32| format!("net 10.{}.{}.0/24", n / 256, n % 256).parse().unwrap());
    let nets: Vec<Rule> = nets.collect();
    assert_eq!(tables::clauses(&nets).len(), 1);
    assert!(Filter::new(nets.clone(), Vec::new()).is_ok());
    let pairs = |count: u16| {
        let rule = |n: u16| format!("port {n} and net 10.{n}.0.0/16").parse().unwrap();
        Filter::new((0..count).map(rule).collect(), Vec::new())
    };
    assert!(pairs(64).is_ok());
    assert_eq!(pairs(65), Err(FilterError::Clauses(65)));
    let many = (0..=1024).map(|n: u32| format!("port {n}").parse().unwrap()).collect();
    assert_eq!(Filter::new(many, Vec::new()), Err(FilterError::Rules(1025)));
    let long =
        (0..1000).map(|n: u32| format!("net 2001:db8:aaaa:bbbb:cccc:dddd:{n:x}::/112").parse().unwrap());
    assert!(matches!(Filter::new(long.collect(), Vec::new()), Err(FilterError::Text(_))));
}
