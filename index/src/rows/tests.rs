//! Rows: packing is exact, the table is a set in packet order.

use super::*;
use proptest::prelude::*;
use std::collections::HashMap;
use std::net::Ipv6Addr;
use tapedeck_packet::{LinkType, Walk};

/// Any row; a small world, so that rows repeat and share addresses, ports and tags.
pub(crate) fn row() -> impl Strategy<Value = Row> {
    let v4 =
        || prop_oneof![Just(0u32), 0x0A00_0000..0x0A00_0010u32, any::<u32>()].prop_map(Ipv4Addr::from_bits);
    let v6 = || {
        prop_oneof![(0..4u128).prop_map(|n| n + (0xFE80 << 112)), any::<u128>()].prop_map(Ipv6Addr::from_bits)
    };
    let addresses = prop_oneof![
        (v4(), v4()).prop_map(|(a, b)| (IpAddr::V4(a), IpAddr::V4(b))),
        (v6(), v6()).prop_map(|(a, b)| (IpAddr::V6(a), IpAddr::V6(b))),
    ];
    let port = || prop_oneof![Just(0u16), Just(53), Just(443), any::<u16>()];
    let proto = prop_oneof![Just(6u8), Just(17), Just(1), Just(58), any::<u8>()];
    let mac = || prop_oneof![Just([0xFF; 6]), any::<[u8; 6]>()];
    let subject = prop_oneof![
        8 => (addresses, port(), port(), proto, any::<bool>(), any::<bool>()).prop_map(
            |((a, b), sport, dport, proto, ports_known, later_fragment)| {
                let ports = if ports_known { (sport, dport) } else { (0, 0) };
                let (key, _) = FlowKey::new((a, ports.0), (b, ports.1), proto, false);
                Subject::Ip { key, ports_known, later_fragment }
            }
        ),
        1 => (v4(), v4()).prop_map(|(a, b)| Subject::Arp { a: a.min(b), b: a.max(b) }),
        1 => prop::option::of((mac(), mac())).prop_map(|macs| Subject::Link {
            macs: macs.map(|(a, b)| (a.min(b), a.max(b)))
        }),
        1 => Just(Subject::Opaque),
    ];
    let tags = (prop::collection::vec(0..4096u16, 0..=4), prop::collection::vec(0..1u32 << 20, 0..=4));
    let tags = prop_oneof![3 => Just((vec![], vec![])), 1 => tags];
    let tunnel = (0..10u8).prop_map(|code| pack::tunnel_of(code).unwrap());
    let carried = prop_oneof![
        3 => Just((None, false, Tunnel::None, None)),
        1 => (any::<Option<u16>>(), any::<bool>(), tunnel, any::<Option<u32>>())
    ];
    (subject, any::<Option<u16>>(), tags, carried).prop_map(
        |(subject, ethertype, (vlans, labels), (pppoe, inner, tunnel, tunnel_id))| Row {
            subject,
            ethertype,
            tags: Tags::new(&vlans, &labels),
            pppoe,
            inner,
            tunnel,
            tunnel_id,
        },
    )
}

/// Frames of rows as a table hands them over: the rows of the pool in some order.
pub(crate) fn frames() -> impl Strategy<Value = Vec<FrameRows>> {
    let pool = prop::collection::vec(row(), 1..40);
    let order =
        prop::collection::vec(prop::collection::vec((any::<prop::sample::Index>(), 1..4u8), 0..30), 0..12);
    (pool, order, 1..60u32).prop_map(|(pool, order, cap)| {
        let mut table = RowTable::with_rows_max(cap);
        let mut frames = Vec::new();
        for frame in order {
            for (pick, bits) in frame {
                table.add_row(pick.get(&pool), bits);
            }
            let mut rows = FrameRows::default();
            table.cut_frame(&mut rows);
            frames.push(rows);
        }
        frames
    })
}

proptest! {
    #[test]
    fn packing_is_exact(row in row()) {
        let packed = PackedRow::of(&row);
        prop_assert_eq!(packed.row(), Some(row));
        let mut bytes = Vec::new();
        packed.put(&mut bytes);
        bytes.push(0xAA);
        let mut rest = bytes.as_slice();
        prop_assert_eq!(PackedRow::take(&mut rest), Some(packed));
        prop_assert_eq!(rest, &[0xAA]);
    }

    #[test]
    fn any_words_pack_one_row_or_none(words: [u64; pack::WORDS]) {
        if let Some(row) = PackedRow(words).row() {
            prop_assert_eq!(PackedRow::of(&row), PackedRow(words));
        }
    }

    #[test]
    fn table_is_a_set_in_packet_order(
        pool in prop::collection::vec(row(), 1..20),
        picks in prop::collection::vec((any::<prop::sample::Index>(), 1..4u8, any::<bool>()), 0..120),
        cap in 1..25u32,
    ) {
        let mut table = RowTable::with_rows_max(cap);
        for _segment in 0..3 {
            let mut ids: HashMap<Row, u32> = HashMap::new();
            let mut frame: Vec<(u32, u8)> = Vec::new();
            let (mut new, mut coarse) = (Vec::new(), false);
            for (pick, bits, cut) in &picks {
                let row = *pick.get(&pool);
                table.add_row(&row, *bits);
                let next = u32::try_from(ids.len()).unwrap();
                let id = match ids.get(&row) {
                    Some(id) => *id,
                    None if next < cap => { ids.insert(row, next); new.push(PackedRow::of(&row)); next }
                    None => { if !coarse { new.push(PackedRow::of(&Row::COARSE)); } coarse = true; cap }
                };
                match frame.iter_mut().find(|(seen, _)| *seen == id) {
                    Some((_, seen)) => *seen |= bits,
                    None => frame.push((id, *bits)),
                }
                if *cut {
                    let mut rows = FrameRows::default();
                    table.cut_frame(&mut rows);
                    prop_assert_eq!(&rows.new_rows, &new);
                    prop_assert_eq!(&rows.present, &frame);
                    new.clear();
                    frame.clear();
                }
            }
            prop_assert_eq!(table.rows(), u32::try_from(ids.len()).unwrap() + u32::from(coarse));
            table.clear();
        }
    }
}

#[test]
fn generations_come_round() {
    let mut table = RowTable::with_rows_max(4);
    let row = Row { inner: true, ..Row::COARSE };
    for segment in 0..70_000u32 {
        assert_eq!(table.rows(), 0, "segment {segment}");
        table.add_row(&row, A_TO_B);
        table.add_row(&row, A_TO_B);
        assert_eq!(table.rows(), 1, "segment {segment}");
        table.clear();
    }
}

/// An Ethernet frame with a UDP datagram, ports 1000 and 53.
fn udp(src: u8, dst: u8, sport: u16, dport: u16) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, dst, 2, 0, 0, 0, 0, src, 8, 0];
    bytes.extend([0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, src, 10, 0, 0, dst]);
    bytes.extend(sport.to_be_bytes());
    bytes.extend(dport.to_be_bytes());
    bytes.extend([0, 8, 0, 0]);
    bytes
}

#[test]
fn both_directions_are_one_row() {
    let mut table = RowTable::with_rows_max(9);
    let mut walk = Walk::new();
    for bytes in [udp(1, 2, 1000, 53), udp(1, 2, 1000, 53), udp(2, 1, 53, 1000), udp(3, 1, 53, 1000)] {
        walk.run(LinkType::ETHERNET, &bytes);
        table.add(&walk);
    }
    let mut rows = FrameRows::default();
    table.cut_frame(&mut rows);
    assert_eq!(rows.present, [(0, A_TO_B | B_TO_A), (1, B_TO_A)]);
    let row = rows.new_rows[0].row().unwrap();
    assert_eq!((row.ports(), row.ethertype), (Some((1000, 53)), Some(0x800)));
    assert_eq!(row.hash64(), row.community_id().unwrap().prefix64());
    walk.run(LinkType::ETHERNET, &udp(1, 2, 1000, 53));
    assert_eq!(walk.layers()[0].community_id(0), row.community_id());
    table.add(&walk);
    table.cut_frame(&mut rows);
    assert_eq!((rows.new_rows.len(), rows.present.as_slice()), (0, [(0, A_TO_B)].as_slice()));
}
