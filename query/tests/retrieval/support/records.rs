//! Records of sessions, and stores with them, written by the recorder's own table writer.

use super::T;
use std::path::Path;
use std::time::Instant;
use tapedeck_capture::records::rows::{Context, Row, batch};
use tapedeck_index::table::SESSIONS;
use tapedeck_packet::Timestamp;
use tapedeck_packet::Tunnel;
use tapedeck_session::{
    ConnState, EndReason, PacketRef, Record, RecordKind, Service, ServiceSource, Side, Uid, Volume,
};
use tapedeck_writer::{TableConfig, TableWriter};

pub(crate) const SEC: u64 = 1_000_000_000;

/// A finished TCP session of one second between 10.0.0.`src` and 10.0.0.`dst`, which began `from`
/// nanoseconds after [`T`].
pub(crate) fn record(number: u64, from: u64, src: u8, dst: u8) -> Record {
    let volume = |packets| Volume {
        packets,
        ip_bytes: packets * 100,
        payload_bytes: packets * 60,
        wire_bytes: packets * 114,
        retransmissions: 0,
        cut_bytes: 0,
    };
    let side = |last: u8, port, packets| Side {
        address: std::net::Ipv4Addr::new(10, 0, 0, last).into(),
        port,
        volume: volume(packets),
        total: volume(packets),
        tcp_flags: 0x1b,
        ttl: Some(64),
        mac: Some([2, 0, 0, 0, 0, last]),
    };
    Record {
        kind: RecordKind::Final,
        number: 0,
        uid: Uid { run: 0xabcd, chain: 0, number },
        parent: None,
        ts: at(from),
        ts_interval: at(from),
        ts_last: at(from + SEC),
        proto: 6,
        orig: side(src, 40_000, 3),
        resp: side(dst, 443, 2),
        originator_known: true,
        conn_state: ConnState::Sf,
        history: "ShADadFf".into(),
        missed_bytes: 0,
        end_reason: EndReason::EndOfFlow,
        service: Service::default(),
        syn_rtt_ns: Some(1_500_000),
        vlans: [None; 2],
        mpls: None,
        tunnel: Tunnel::None,
        tunnel_id: None,
        queue: 0,
        split: false,
        stored_packets: 5,
        loss_during: false,
        counted: false,
        refs: Vec::new(),
        refs_incomplete: false,
        inner: false,
        half: None,
    }
}

/// The same with a TLS server name.
pub(crate) fn named(record: Record, sni: &str) -> Record {
    let service = Service {
        name: Some("ssl"),
        source: ServiceSource::Payload,
        sni: Some(sni.into()),
        ..Service::default()
    };
    Record { service, ..record }
}

/// A session of three records, five minutes each: 10 packets of the originator in each.
pub(crate) fn long(number: u64, from: u64, src: u8, dst: u8) -> Vec<Record> {
    (0u32..3)
        .map(|n| {
            let base = record(number, from, src, dst);
            let start = from + u64::from(n) * 300 * SEC;
            let mut orig = base.orig;
            orig.volume.packets = 10;
            orig.total.packets = 10 * u64::from(n + 1);
            let kind = if n == 2 { RecordKind::Final } else { RecordKind::Interim };
            let conn_state = if n == 2 { ConnState::Sf } else { ConnState::S1 };
            let refs = vec![PacketRef { segment: n, first_frame: 1, last_frame: 1 }];
            let (ts_interval, ts_last) = (at(start), at(start + 299 * SEC));
            Record { kind, number: n, ts_interval, ts_last, orig, conn_state, refs, ..base }
        })
        .collect()
}

pub(crate) fn at(after: u64) -> Timestamp {
    Timestamp::from_nanos(T + after).unwrap()
}

/// How the records are left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LeftTable {
    /// In files.
    Sealed,
    /// In journals, their writer dead.
    Open,
}

/// Writes records; open ones go the live way.
pub(crate) fn write(store: &Path, run: u32, records: &[Record], left: LeftTable) {
    let mut writer =
        TableWriter::new(&SESSIONS, TableConfig::new(store.to_owned(), "lab".into(), run)).unwrap();
    let context = Context { sensor: "lab".into(), run };
    let rows = |open: bool| {
        let chosen = records.iter().filter(|record| (record.kind == RecordKind::Open) == open);
        let rows = chosen.map(|record| Row { record, interface: "eth1", now: at(7 * SEC) });
        batch(&context, rows.collect()).unwrap()
    };
    writer.append_live(&rows(true));
    writer.append(&rows(false), Instant::now());
    writer.commit();
    match left {
        LeftTable::Sealed => {
            let counts = writer.finish();
            assert_eq!((counts.rows_lost, counts.rows_held, counts.write_errors), (0, 0, 0), "{counts:?}");
        }
        LeftTable::Open => drop(writer),
    }
}
