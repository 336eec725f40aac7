//! Nothing is lost: the records of every capture add up to its packets.

use crate::common::{self, Captured, place};
use std::collections::HashMap;
use tapedeck_packet::{Net, Walk};
use tapedeck_session::{Config, Record, RecordKind, Table, Uid, Volume};

/// The records of `packets` add up, and hold them; `table` made them.
fn check(name: &str, table: &Table, packets: &[Captured], records: &[Record]) {
    check_sums(name, table, packets, records);
    refs_cover(name, packets, records);
}

/// The records of `packets` add up; `table` made them.
pub(crate) fn check_sums(name: &str, table: &Table, packets: &[Captured], records: &[Record]) {
    let counters = table.counters();
    let outer = records.iter().filter(|record| !record.inner);
    let sum = outer.fold(Volume::default(), |sum, r| sum.plus(&r.orig.volume).plus(&r.resp.volume));
    let wire: u64 = packets.iter().map(|packet| u64::from(packet.original_bytes)).sum();
    assert_eq!(sum.packets + counters.non_ip_packets, packets.len() as u64, "{name}");
    assert_eq!(sum.wire_bytes + counters.non_ip_bytes, wire, "{name}");
    assert_eq!((counters.packets, counters.wire_bytes), (packets.len() as u64, wire), "{name}");
    deltas_add_up(name, records);
}

fn deltas_add_up(name: &str, records: &[Record]) {
    let mut sums: HashMap<Uid, (Volume, Volume, u32)> = HashMap::new();
    for record in records {
        let (orig, resp, number) = sums.entry(record.uid).or_default();
        assert_eq!(record.number, *number, "{name} {record:?}");
        *orig = orig.plus(&record.orig.volume);
        *resp = resp.plus(&record.resp.volume);
        assert_eq!((*orig, *resp), (record.orig.total, record.resp.total), "{name} {record:?}");
        *number += 1;
        assert!(record.ts <= record.ts_interval && record.ts_interval <= record.ts_last, "{name} {record:?}");
        let minutes = record.ts_last.nanos() - record.ts_interval.nanos();
        assert!(minutes <= 300_000_000_000, "{name} {record:?}");
        let packets = record.orig.volume.packets + record.resp.volume.packets;
        assert_eq!(record.stored_packets, packets, "{name}");
    }
    let finals = records.iter().filter(|r| r.kind == RecordKind::Final).count();
    assert!(finals <= sums.len());
}

/// Every packet's place lies in a reference of each session with its addresses.
fn refs_cover(name: &str, packets: &[Captured], records: &[Record]) {
    let mut by_ends: HashMap<_, Vec<&Record>> = HashMap::new();
    for record in records {
        let (a, b) = (record.orig.address, record.resp.address);
        by_ends.entry((a.min(b), a.max(b), record.proto)).or_default().push(record);
    }
    let mut walk = Walk::new();
    for (number, packet) in packets.iter().enumerate() {
        walk.run(packet.link, &packet.bytes);
        for layer in walk.layers() {
            let Net::Ip(ip) = layer.net else { continue };
            let place = place(number);
            let held = by_ends[&(ip.src.min(ip.dst), ip.src.max(ip.dst), ip.proto)].iter().any(|record| {
                record.refs_incomplete
                    || record.refs.iter().any(|range| {
                        range.segment == place.segment()
                            && (range.first_frame..=range.last_frame).contains(&place.frame())
                    })
            });
            assert!(held, "{name}: packet {number} of {} {}", ip.src, ip.dst);
        }
    }
}

#[test]
fn the_records_of_every_capture_add_up_to_its_packets() {
    let Some(folder) = common::traces() else {
        println!("SKIPPED 1");
        return;
    };
    let (mut files, mut all, mut sessions) = (0, 0, 0);
    for path in common::captures(&folder) {
        let packets = common::packets(&path);
        let mut table: Table = Table::new(Config::default());
        let records = common::run(&mut table, &packets);
        check(&path.display().to_string(), &table, &packets, &records);
        assert!(table.is_empty());
        files += 1;
        all += packets.len();
        sessions += table.counters().sessions;
    }
    println!("{files} captures, {all} packets, {sessions} sessions: all add up");
    assert!(files > 1_000 && all > 250_000);
}
