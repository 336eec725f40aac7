//! Floods, odd packets and any bytes at all: bounded, total, and every packet counted.

use crate::common::{self, Captured};
use crate::conservation;
use crate::packets::{at, ethernet, ip4, tcp, udp};
use proptest::prelude::*;
use tapedeck_packet::{LinkType, Timestamp, Walk};
use tapedeck_session::{Config, Packet, Place, RecordKind, Table, Volume};

/// A SYN flood of tuples that never come again, among them one connection that goes on.
#[test]
fn a_flood_stays_inside_the_bound_and_loses_no_count() {
    const FLOOD: u32 = 10_000_000;
    let config = Config { max_sessions: 50_000, max_evictions_per_second: 20_000, ..Config::default() };
    let bound = config.memory_bytes();
    let mut table: Table = Table::new(config);
    let mut walk = Walk::new();
    let (mut sum, mut kinds, mut most) = (Volume::default(), [0_u64; 3], 0);
    let mut long_lived = 0;
    let mut ts = 1_700_000_000_000_000_000_u64;
    let established = ethernet(&ip4([10, 9, 9, 9], [10, 8, 8, 8], 6, 0, 0, &tcp((4, 5), 0x10, 1, 1, 9, 0)));
    let syn = ethernet(&ip4([1, 1, 1, 1], [2, 2, 2, 2], 6, 0, 0, &tcp((4, 5), 2, 1, 1, 9, 0)));
    for batch in 0..FLOOD / 64 {
        let mut sink = |record: tapedeck_session::Record| {
            sum = sum.plus(&record.orig.volume).plus(&record.resp.volume);
            kinds[match record.kind {
                RecordKind::Interim | RecordKind::Open | RecordKind::Withdrawn => 0,
                RecordKind::Final => 1,
                RecordKind::Coarse => 2,
            }] += 1;
            let key = [10, 9, 9, 9].map(u8::from);
            long_lived += u32::from(record.orig.address == std::net::IpAddr::from(key));
        };
        let flood: Vec<Vec<u8>> = (0..64)
            .map(|n| {
                let mut bytes = syn.clone();
                bytes[26..30].copy_from_slice(&(batch * 64 + n).to_be_bytes());
                bytes
            })
            .collect();
        let mut stage = table.stage(&mut sink);
        // 1 Mpps, and one packet of the connection in each batch.
        for bytes in flood.iter().chain([&established]) {
            ts += 1_000;
            walk.run(LinkType::ETHERNET, bytes);
            let place = Place::new(0, batch);
            let ts = Timestamp::from_nanos(ts).unwrap();
            stage.push(&walk, &Packet { ts, bytes, original_bytes: 60, place, stored: true });
        }
        drop(stage);
        table.expire(Timestamp::from_nanos(ts).unwrap(), 64, &mut sink);
        most = most.max(table.len());
    }
    let counters = table.counters();
    table.finish(&mut |record| {
        sum = sum.plus(&record.orig.volume).plus(&record.resp.volume);
        long_lived += u32::from(record.orig.address.to_string() == "10.9.9.9");
    });
    println!("{counters:?} {kinds:?} {most} sessions at most, {} MiB at most", bound >> 20);
    assert_eq!(sum.packets, counters.packets);
    assert_eq!(sum.wire_bytes, counters.wire_bytes);
    assert_eq!(counters.packets, u64::from(FLOOD / 64 * 65));
    assert!(most <= 50_000 && counters.evicted > 0 && counters.coarse_packets > 0);
    // The flood did not push out the connection that was alive.
    assert_eq!(long_lived, 1);
    assert!(table.reserved_bytes() <= bound, "{} > {bound}", table.reserved_bytes());
}

#[test]
fn the_formula_bounds_what_a_table_reserves() {
    for (max_sessions, split) in [(1, false), (1_000, true), (100_000, false), (300_000, true)] {
        let config = Config { max_sessions, split, ..Config::default() };
        let bound = config.memory_bytes();
        let reserved = Table::<()>::new(config).reserved_bytes();
        assert!(reserved <= bound && reserved * 2 > bound, "{reserved} {bound}");
    }
}

/// Many holes in many streams: lists run out, and no byte is counted twice or not at all.
#[test]
fn holes_beyond_the_pool_are_gaps_at_once() {
    let config = Config { max_holes: 2, ..Config::default() };
    let mut packets = Vec::new();
    for stream in 0..6_u16 {
        let ends =
            |forward| if forward { ([10, 0, 0, 1], [10, 0, 0, 2]) } else { ([10, 0, 0, 2], [10, 0, 0, 1]) };
        let mut send = |forward: bool, flags, seq, ack, len| {
            let (src, dst) = ends(forward);
            let ports = if forward { (1_000 + stream, 9_999) } else { (9_999, 1_000 + stream) };
            let time = 0.001 * packets.len() as f64;
            let bytes = ethernet(&ip4(src, dst, 6, 0, 0, &tcp(ports, flags, seq, ack, 9, len)));
            packets.push(at(time, bytes));
        };
        send(true, 2, 100, 0, 0);
        send(false, 0x12, 500, 101, 0);
        // Twelve ranges of ten bytes with holes of ten between them.
        for range in 0..12 {
            send(true, 0x10, 111 + range * 20, 501, 10);
        }
        send(false, 0x10, 501, 341, 0);
    }
    let mut table: Table = Table::new(config);
    let records = common::run(&mut table, &packets);
    assert_eq!(records.len(), 6);
    assert!(table.counters().forced_gaps > 0);
    for record in &records {
        assert_eq!((record.orig.total.payload_bytes, record.missed_bytes), (240, 120), "{record:?}");
    }
}

/// A packet: now and then any bytes, else something of IP between few ends.
pub(crate) fn packet() -> impl Strategy<Value = Captured> {
    let ends = (0_u8..3, 0_u8..3, 0_u16..3, 0_u16..3);
    let tcp_part = (any::<u8>(), 0_u32..400, 0_u32..400, 0_u16..2, 0_usize..60);
    let time = 0_u64..2_000_000_000_000;
    (ends, tcp_part, any::<u8>(), proptest::collection::vec(any::<u8>(), 0..90), time, 0_usize..120).prop_map(
        |((a, b, sport, dport), (flags, seq, ack, window, len), choice, noise, time, cut)| {
            let (src, dst) = ([10, 0, 0, a], [10, 0, 0, b]);
            let ports = (sport, dport);
            let ip = match choice % 16 {
                0..=7 => ip4(src, dst, 6, 0, 0, &tcp(ports, flags, seq, ack, window, len)),
                8 | 9 => ip4(src, dst, 17, 0, 0, &udp(ports, len)),
                10 => ip4(src, dst, 1, 0, 0, &[flags % 20, a, 0, 0, 0, 0, 0, 0]),
                11 => ip4(src, dst, 17, 0x2000, u16::from(a), &udp(ports, len)),
                12 => ip4(src, dst, 17, 3, u16::from(a), &noise),
                13 => ip4(src, dst, 4, 0, 0, &ip4(dst, src, 17, 0, 0, &udp(ports, len))),
                14 => ip4(src, dst, choice, 0, 0, &noise),
                _ => noise,
            };
            let mut captured = at(0.0, ethernet(&ip));
            captured.ts = captured.ts.saturating_add(time);
            if choice % 5 == 0 {
                captured.bytes.truncate(cut);
            }
            captured
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_500, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_packets_add_up(mut packets in proptest::collection::vec(packet(), 1..300), sorted: bool, small: bool) {
        if sorted {
            packets.sort_by_key(|packet| packet.ts);
        }
        let max_sessions = if small { 4 } else { 1_000 };
        let config = Config { max_sessions, max_evictions_per_second: 3, max_holes: 3, ..Config::default() };
        let mut table: Table = Table::new(config);
        let records = common::run(&mut table, &packets);
        conservation::check_sums("random", &table, &packets, &records);
    }

    #[test]
    fn any_bytes_are_counted(bytes in proptest::collection::vec(any::<u8>(), 0..200), link in 0_u16..300) {
        let packets = [Captured { link: LinkType(link), ..at(0.0, bytes) }];
        let mut table: Table = Table::new(Config { max_sessions: 100, max_datagrams: 100, ..Config::default() });
        let records = common::run(&mut table, &packets);
        conservation::check_sums("bytes", &table, &packets, &records);
    }
}
