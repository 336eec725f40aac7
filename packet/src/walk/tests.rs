//! Hand-made packets for what the given traces lack, and any bytes at all.

use super::*;
use proptest::prelude::*;

/// Bytes from hex digits; blanks are for the reader.
fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|c| c.to_digit(16)).map(|d| u8::try_from(d).unwrap()).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// UDP from 1.2.3.4:4660 to 5.6.7.8:22136.
const UDP4: &str = "4500001c 00000000 40110000 01020304 05060708 12345678 00080000";
/// An Ethernet header; the EtherType follows.
const MACS: &str = "0a0000000002 0a0000000001";

fn walk(link: LinkType, text: &str) -> Walk {
    let mut walk = Walk::new();
    walk.run(link, &hex(text));
    walk
}

fn has_udp4(layer: &Layer) -> bool {
    let Net::Ip(ip) = layer.net else { return false };
    let ends = (Ipv4Addr::new(1, 2, 3, 4).into(), Ipv4Addr::new(5, 6, 7, 8).into());
    (ip.src, ip.dst) == ends && ip.ports == Some((0x1234, 0x5678)) && layer.ethertype == Some(0x0800)
}

/// Link headers before [`UDP4`].
const LINKS: &[(LinkType, &str)] = &[
    (LinkType::NULL, "02000000"),
    (LinkType::NULL, "00000002"),
    (LinkType::LOOP, "00000002"),
    (LinkType::RAW, ""),
    (LinkType::RAW_BSD, ""),
    (LinkType::RAW_OPENBSD, ""),
    (LinkType::IPV4, ""),
    (LinkType::PPP, "ff030021"),
    (LinkType::PPP, "0021"),
    (LinkType::PPP, "21"),
    (LinkType::PPP_HDLC, "ff030021"),
    (LinkType::PPP_HDLC, "0f000800"),
    (LinkType::C_HDLC, "8f000800"),
    (LinkType::PPP_ETHER, "11000007 001e 0021"),
    (LinkType::LINUX_SLL, "0000 0001 0006 0a00000000010000 0800"),
    (LinkType::LINUX_SLL2, "0800 0000 00000003 0001 00 06 0a00000000010000"),
    (LinkType::FRAME_RELAY, "1841 03 cc"),
    (LinkType::FRAME_RELAY, "1841 03 00 80 000000 0800"),
    (LinkType::FRAME_RELAY, "1841 0800"),
    (LinkType::MPLS, "00010140"),
    (LinkType::ATM_LLC, "aaaa03 000000 0800"),
    (LinkType::FDDI, "50 0a0000000002 0a0000000001 aaaa03 000000 0800"),
    (LinkType::PFLOG, "05020000 00000000"),
    (LinkType::NFLOG, "02000000 08000500 00000001 20000900"),
    (LinkType::IEEE802_11, "0801 0000 0a0000000003 0a0000000001 0a0000000002 0000 aaaa03 000000 0800"),
    (
        LinkType::IEEE802_11,
        "8803 0000 0a0000000003 0a0000000004 0a0000000002 0000 0a0000000001 0000 aaaa03 000000 0800",
    ),
    (
        LinkType::IEEE802_11_RADIOTAP,
        "00000800 00000000 0800 0000 0a0000000002 0a0000000001 0a0000000003 0000 aaaa03 000000 0800",
    ),
    (LinkType::PPI, "00000800 01000000 0a0000000002 0a0000000001 0800"),
];

#[test]
fn link_headers_lead_to_ip() {
    for (link, header) in LINKS {
        let walk = walk(*link, &format!("{header}{UDP4}"));
        assert!(has_udp4(&walk.layers()[0]), "{link} {header} {:?}", walk.layers());
        assert_eq!(walk.layers().len(), 1);
    }
    let macs = Macs { dst: [10, 0, 0, 0, 0, 2], src: [10, 0, 0, 0, 0, 1] };
    for (link, header) in LINKS.iter().filter(|(link, _)| matches!(link.0, 10 | 105 | 127 | 192)) {
        assert_eq!(walk(*link, &format!("{header}{UDP4}")).layers()[0].macs, Some(macs), "{link} {header}");
    }
}

/// (behind the MAC addresses and before [`UDP4`]; VLANs; labels; PPPoE session)
type Tagged = (&'static str, &'static [u16], &'static [u32], Option<u16>);

const TAGS: &[Tagged] = &[
    ("0800", &[], &[], None),
    ("8100 0005 0800", &[5], &[], None),
    ("8100 b005 0800", &[5], &[], None),
    ("88a8 0064 8100 00c8 0800", &[100, 200], &[], None),
    ("9100 0001 8100 0002 8100 0003 8100 0004 8100 0005 0800", &[1, 2, 3, 4], &[], None),
    ("8847 00010140", &[], &[16], None),
    ("8847 00010040 00011040 fffff140", &[], &[16, 17, 0xf_ffff], None),
    ("8848 00010140", &[], &[16], None),
    ("8864 1100 0007 001e 0021", &[], &[], Some(7)),
    ("8100 0005 8864 1100 0007 001e 21", &[5], &[], Some(7)),
    ("8864 1100 0007 0022 0281 00010140", &[], &[16], Some(7)),
    ("0024 aaaa03 000000 0800", &[], &[], None),
    ("8100 0005 0024 aaaa03 0000f8 0800", &[5], &[], None),
    ("8909 01010001 0064 0800", &[], &[], None),
    ("88e5 0000 00000001 0800", &[], &[], None),
    ("88e5 2000 00000001 0a00000000010001 0800", &[], &[], None),
];

#[test]
fn tags_and_labels_are_kept_and_looked_through() {
    for (header, vlans, labels, pppoe) in TAGS {
        let walk = walk(LinkType::ETHERNET, &format!("{MACS}{header}{UDP4}"));
        let layer = &walk.layers()[0];
        assert!(has_udp4(layer), "{header} {layer:?}");
        assert_eq!((layer.vlans(), layer.labels(), layer.pppoe), (*vlans, *labels, *pppoe), "{header}");
    }
}

/// What stops the walk, and the EtherType it stops at.
const STOPS: &[(&str, Option<u16>)] = &[
    ("0026 424203 0000", None),
    ("0026 aaaa03 00000c 2000", None),
    ("88cc 0207", Some(0x88cc)),
    ("8100 00", Some(0x8100)),
    ("8847 0001", Some(0x8847)),
    ("8863 11090000", Some(0x8863)),
    ("8864 1100 0007 0004 c021 0101", Some(0x8864)),
    ("88e5 0c00 00000001 0800", Some(0x88e5)),
    ("0800 45", Some(0x0800)),
    ("86dd 60", Some(0x86dd)),
    ("0806 0001 0800 06", Some(0x0806)),
];

#[test]
fn what_cannot_be_read_is_not_guessed() {
    for (header, ethertype) in STOPS {
        let walk = walk(LinkType::ETHERNET, &format!("{MACS}{header}"));
        assert_eq!(walk.layers().len(), 1, "{header}");
        let layer = &walk.layers()[0];
        assert_eq!((layer.ethertype, layer.net), (*ethertype, Net::Unknown), "{header}");
    }
}

/// An IPv4 header of a protocol (in hex), without lengths, and what follows it.
fn ip4(proto: &str, payload: &str) -> String {
    format!("0800 45000000 00000000 40{proto}0000 09090901 09090902 {payload}")
}

#[test]
fn tunnels_are_entered() {
    let inside = format!("{MACS}0800{UDP4}");
    let udp = |port: &str, payload: &str| ip4("11", &format!("c000 {port} 0000 0000 {payload}"));
    let cases = [
        (ip4("04", UDP4), Tunnel::IpIp, None),
        (ip4("2f", &format!("0000 0800 {UDP4}")), Tunnel::Gre, None),
        (ip4("2f", &format!("b000 0800 0000 0000 0000002a 00000001 {UDP4}")), Tunnel::Gre, Some(42)),
        (ip4("2f", &format!("3081 880b 0020 0007 00000001 00000002 ff030021 {UDP4}")), Tunnel::Gre, Some(7)),
        (ip4("2f", &format!("0000 6558 {inside}")), Tunnel::Gre, None),
        (ip4("2f", &format!("0000 8847 00010140 {UDP4}")), Tunnel::Gre, None),
        (ip4("2f", &format!("0000 88be {inside}")), Tunnel::Erspan, None),
        (ip4("2f", &format!("1000 88be 00000001 10010003 00000000 {inside}")), Tunnel::Erspan, Some(3)),
        (
            ip4("2f", &format!("1000 22eb 00000001 20010003 00000000 00000000 {inside}")),
            Tunnel::Erspan,
            Some(3),
        ),
        (ip4("61", &format!("3000 {inside}")), Tunnel::EtherIp, None),
        (ip4("89", &format!("00010140 {UDP4}")), Tunnel::Other, None),
        (udp("12b5", &format!("08000000 00000700 {inside}")), Tunnel::Vxlan, Some(7)),
        (udp("2118", &format!("08000000 00000700 {inside}")), Tunnel::Vxlan, Some(7)),
        (udp("12b6", &format!("0c000001 00000700 {UDP4}")), Tunnel::Vxlan, Some(7)),
        (udp("12b6", &format!("0c000003 00000700 {inside}")), Tunnel::Vxlan, Some(7)),
        (udp("17c1", &format!("02006558 00000700 01020300 aabbccdd {inside}")), Tunnel::Geneve, Some(7)),
        (udp("17c1", &format!("00000800 00000700 {UDP4}")), Tunnel::Geneve, Some(7)),
        (udp("0868", &format!("30ff001c 00000007 {UDP4}")), Tunnel::Gtp, Some(7)),
        (udp("0868", &format!("34ff001c 00000007 00000085 01001000 {UDP4}")), Tunnel::Gtp, Some(7)),
        (udp("1292", &format!("0000 0800 {UDP4}")), Tunnel::Gre, None),
        (udp("19eb", &format!("00010140 {UDP4}")), Tunnel::Other, None),
        (udp("06a5", &format!("0002 0001 0002 ff030021 {UDP4}")), Tunnel::Other, Some(0x1_0002)),
        (udp("06a5", &format!("4202 0030 0001 0002 0002 0000 0021 {UDP4}")), Tunnel::Other, Some(0x1_0002)),
        (udp("13d0", &format!("1111 0104 00000000 aabb 01020304 {UDP4}")), Tunnel::Other, None),
        (format!("88e7 00000007 {inside}"), Tunnel::Other, Some(7)),
        (format!("8847 00010140 00000000 {inside}"), Tunnel::Other, None),
        (format!("8847 00010140 {inside}"), Tunnel::Other, None),
    ];
    for (packet, tunnel, id) in cases {
        let walk = walk(LinkType::ETHERNET, &format!("{MACS}{packet}"));
        let [_, layer] = walk.layers() else { panic!("{packet}: {:?}", walk.layers()) };
        assert!(has_udp4(layer), "{packet} {layer:?}");
        assert_eq!((layer.tunnel, layer.tunnel_id), (tunnel, id), "{packet}");
    }
}

#[test]
fn tunnels_are_not_imagined() {
    let later = "0800 45000000 00002001 40040000 09090901 09090902";
    let packets = [
        format!("{later}{UDP4}"),
        ip4("2f", &format!("4000 0800 00000000 {UDP4}")),
        ip4("2f", &format!("0002 0800 {UDP4}")),
        ip4("11", &format!("c000 12b5 0000 0000 00000000 00000700 {MACS}0800{UDP4}")),
        ip4("11", &format!("c000 0868 0000 0000 3001001c 00000007 {UDP4}")),
        ip4("11", "c000 0868 0000 0000 30ff001c 00000007 ffff"),
        ip4("11", &format!("c000 0dd8 0000 0000 {UDP4}")),
        // The UDP length says that nothing follows.
        ip4("11", &format!("c000 12b5 0008 0000 08000000 00000700 {MACS}0800{UDP4}")),
    ];
    for packet in packets {
        assert_eq!(walk(LinkType::ETHERNET, &format!("{MACS}{packet}")).layers().len(), 1, "{packet}");
    }
    // The content of an IP packet ends where its length says; padding is not looked at.
    let padded = format!("{MACS}0800 45000014 00000000 40040000 09090901 09090902 {UDP4}");
    assert_eq!(walk(LinkType::ETHERNET, &padded).layers()[1].net, Net::Unknown);
}

#[test]
fn nesting_is_bounded() {
    let deep = "45000000 00000000 40040000 09090901 09090902".repeat(20);
    assert_eq!(walk(LinkType::RAW, &deep).layers().len(), MAX_LAYERS);
    let tags = "8100 0001".repeat(500);
    let walk = walk(LinkType::ETHERNET, &format!("{MACS}{tags}0800{UDP4}"));
    assert_eq!((walk.layers()[0].vlans(), walk.layers()[0].net), (&[1, 1, 1, 1][..], Net::Unknown));
}

#[test]
fn a_reused_walk_forgets() {
    let mut walk = Walk::new();
    walk.run(LinkType::ETHERNET, &hex(&format!("{MACS}8100 0005 {}", ip4("04", UDP4))));
    assert_eq!(walk.layers().len(), 2);
    walk.run(LinkType::RAW, &[]);
    assert_eq!(walk.layers(), &[Layer::default()]);
}

#[test]
fn ipv6_extension_headers_and_fragments() {
    let v6 = |next: &str, rest: &str| {
        format!(
            "86dd 60000000 0000{next}40 20010db8000000000000000000000001 20010db8000000000000000000000002 {rest}"
        )
    };
    let udp = "12345678 00080000";
    let cases = [
        (v6("11", udp), 17, Fragment::Whole, true),
        (v6("00", &format!("3c00010400000000 1100010400000000 {udp}")), 17, Fragment::Whole, true),
        (v6("33", &format!("1101000000000000 00000000 {udp}")), 17, Fragment::Whole, true),
        (v6("2c", &format!("1100000000000001 {udp}")), 17, Fragment::Whole, true),
        (v6("2c", &format!("1100000100000001 {udp}")), 17, Fragment::First, true),
        (v6("2c", &format!("1100000800000001 {udp}")), 17, Fragment::Later, false),
        (v6("87", "3b000000 00000000"), 135, Fragment::Whole, false),
        (v6("2b", "11020000"), 17, Fragment::Whole, false),
        (v6("00", &"0000010400000000".repeat(300)), 0, Fragment::Whole, false),
    ];
    for (packet, proto, fragment, ports) in cases {
        let walk = walk(LinkType::ETHERNET, &format!("{MACS}{packet}"));
        let Net::Ip(ip) = walk.layers()[0].net else { panic!("{packet}") };
        assert_eq!((ip.proto, ip.fragment, ip.ports.is_some()), (proto, fragment, ports), "{packet}");
    }
}

#[test]
fn community_ids_need_known_ports() {
    let id = |packet: &str| walk(LinkType::ETHERNET, &format!("{MACS}{packet}")).layers()[0].community_id(0);
    assert!(id(&format!("0800{UDP4}")).is_some());
    assert!(id(&ip4("2e", "")).is_some());
    assert_eq!(id(&ip4("11", "12")), None);
    assert_eq!(id(&ip4("01", "08")), None);
    assert_eq!(id("0806"), None);
}

/// A plausible packet with some bytes changed: reaches deeper than noise does.
fn mutated() -> impl Strategy<Value = (u16, Vec<u8>)> {
    let start = prop::sample::select(vec![
        format!("{MACS}8100 0005 8847 00010140 {}", UDP4),
        format!("{MACS}{}", ip4("11", &format!("c000 12b5 0000 0000 08000000 00000700 {MACS}0800{UDP4}"))),
        format!("{MACS}{}", ip4("2f", &format!("3081 880b 0020 0007 00000001 00000002 ff030021 {UDP4}"))),
        format!(
            "{MACS}{}",
            ip4("11", &format!("c000 0868 0000 0000 34ff001c 00000007 00000085 01001000 {UDP4}"))
        ),
    ]);
    let changes = prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8);
    (start, changes, prop::sample::select(vec![1u16, 1, 1, 0, 9, 50, 107, 113, 127, 192, 239, 276])).prop_map(
        |(start, changes, link)| {
            let mut bytes = hex(&start);
            for (at, value) in changes {
                let at = at.index(bytes.len());
                bytes[at] = value;
            }
            (link, bytes)
        },
    )
}

fn sound(link: u16, bytes: &[u8]) -> Result<(), TestCaseError> {
    let mut walk = Walk::new();
    walk.run(LinkType(link), bytes);
    prop_assert!(!walk.layers().is_empty() && walk.layers().len() <= MAX_LAYERS);
    for (number, layer) in walk.layers().iter().enumerate() {
        prop_assert_eq!(layer.tunnel == Tunnel::None, number == 0);
        prop_assert_eq!(layer.flow().is_some(), matches!(layer.net, Net::Ip(_)));
        let _ = layer.community_id(0);
    }
    Ok(())
}

proptest! {
    #[test]
    fn any_bytes_give_layers_and_no_panic(link in 0u16..300, bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        sound(link, &bytes)?;
    }

    #[test]
    fn changed_packets_give_layers_and_no_panic((link, bytes) in mutated()) {
        sound(link, &bytes)?;
    }
}
