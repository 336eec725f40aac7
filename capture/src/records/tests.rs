//! Records through the thread and back out of the files.

use super::*;
use arrow_array::RecordBatch;
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int64Type, UInt16Type, UInt32Type};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::fs::File;
use tapedeck_index::table::{State, list};
use tapedeck_packet::Tunnel;
use tapedeck_session::{ConnState, EndReason, PacketRef, Service, ServiceSource, Side, Uid, Volume};

/// 2026-11-21T18:00:00Z.
const T18: u64 = 1_795_284_000 * 1_000_000_000;

fn at(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(T18 + nanos).unwrap()
}

fn record(number: u64) -> Record {
    let volume = |n: u64| Volume {
        packets: n,
        ip_bytes: n * 100,
        payload_bytes: n * 10,
        wire_bytes: n * 114,
        retransmissions: 1,
        cut_bytes: 5,
    };
    let side = |address: &str, port, n: u64, ttl, mac| Side {
        address: address.parse().unwrap(),
        port,
        volume: volume(n),
        total: volume(2 * n),
        tcp_flags: 0x12,
        ttl,
        mac,
    };
    Record {
        kind: RecordKind::Final,
        number: 3,
        uid: Uid { run: 0x9f, chain: 1, number },
        parent: Some(Uid { run: 0x9f, chain: 1, number: 99 }),
        ts: at(0),
        ts_interval: at(5),
        ts_last: at(1_000_000_007),
        proto: 6,
        orig: side("128.232.110.120", 34855, 3, Some(64), Some([2, 0, 0, 0, 0, 0xab])),
        resp: side("66.35.250.204", 80, 4, None, None),
        originator_known: true,
        conn_state: ConnState::Rstos0,
        history: "SR".into(),
        missed_bytes: 17,
        end_reason: EndReason::EndOfFlow,
        service: Service {
            name: Some("http"),
            source: ServiceSource::Port,
            http_host: Some("a\u{1b}[0mb".into()),
            ..Service::default()
        },
        syn_rtt_ns: Some(123),
        vlans: [Some(100), None],
        mpls: Some(7),
        tunnel: Tunnel::Vxlan,
        tunnel_id: Some(42),
        queue: 2,
        split: true,
        stored_packets: 6,
        loss_during: true,
        counted: false,
        refs: vec![
            PacketRef { segment: 1, first_frame: 2, last_frame: 3 },
            PacketRef { segment: 4, first_frame: 0, last_frame: 9 },
        ],
        refs_incomplete: true,
        inner: false,
        half: None,
    }
}

fn sealed(store: &Path) -> Vec<RecordBatch> {
    let listing = list(&SESSIONS, &[store.to_owned()], Timestamp::ZERO, None).unwrap();
    assert!(listing.files.iter().all(|found| found.state == State::Sealed) && listing.live.is_empty());
    let read =
        |path| ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap().build().unwrap();
    listing.files.iter().flat_map(|found| read(&found.path)).map(Result::unwrap).collect()
}

fn text(batch: &RecordBatch, name: &str) -> Option<String> {
    let array = batch.column_by_name(name).unwrap().as_string::<i32>();
    array.iter().next().unwrap().map(str::to_owned)
}

#[test]
fn a_record_is_read_back_field_by_field() {
    let dir = tempfile::tempdir().unwrap();
    let thread = RecordThread::start(dir.path(), "lab", 0x9f).unwrap();
    let sink = thread.sink("eth1");
    sink.send(vec![record(1)], at(9));
    drop(sink);
    let counts = thread.finish().unwrap();
    assert_eq!((counts.table.rows, counts.table.rows_sealed, counts.overflow), (1, 1, 0));
    let batch = sealed(dir.path()).remove(0);
    assert_eq!(batch.schema().fields(), SESSIONS.schema().fields());
    for (name, want) in [
        ("uid", Some(record(1).uid.to_string())),
        ("parent_uid", Some(Uid { run: 0x9f, chain: 1, number: 99 }.to_string())),
        ("record_type", Some("final".into())),
        // The published vector of this conversation.
        ("community_id", Some("1:LQU9qZlK+B5F3KDmev6m5PMibrg=".into())),
        ("src_ip", Some("128.232.110.120".into())),
        ("dst_ip", Some("66.35.250.204".into())),
        ("conn_state", Some("RSTOS0".into())),
        ("history", Some("SR".into())),
        ("service", Some("http".into())),
        ("service_source", Some("port".into())),
        ("sni", None),
        ("http_host", Some("a\u{1b}[0mb".into())),
        ("tunnel_type", Some("vxlan".into())),
        ("src_mac", Some("02:00:00:00:00:ab".into())),
        ("dst_mac", None),
        ("sensor", Some("lab".into())),
        ("interface", Some("eth1".into())),
        ("run", Some("0000009f".into())),
    ] {
        assert_eq!(text(&batch, name), want, "{name}");
    }
    for (name, want) in [
        ("duration_ns", 1_000_000_007),
        ("orig_pkts", 3),
        ("resp_pkts", 4),
        ("orig_ip_bytes", 300),
        ("resp_bytes", 40),
        ("orig_wire_bytes", 342),
        ("cut_bytes", 10),
        ("orig_pkts_total", 6),
        ("resp_ip_bytes_total", 800),
        ("missed_bytes", 17),
        ("syn_rtt_ns", 123),
        ("stored_pkts", 6),
    ] {
        assert_eq!(batch.column_by_name(name).unwrap().as_primitive::<Int64Type>().value(0), want, "{name}");
    }
    let address = batch.column_by_name("src_ip16").unwrap().as_fixed_size_binary().value(0);
    assert_eq!(address, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 128, 232, 110, 120]);
    assert_eq!(batch.column_by_name("vlan").unwrap().as_primitive::<UInt16Type>().value(0), 100);
    assert!(batch.column_by_name("inner_vlan").unwrap().is_null(0));
    assert!(batch.column_by_name("as_of").unwrap().is_null(0));
    let refs = batch.column_by_name("packet_refs").unwrap().as_list::<i32>().value(0);
    let column =
        |name| refs.as_struct().column_by_name(name).unwrap().as_primitive::<UInt32Type>().values().to_vec();
    assert_eq!(
        (column("segment"), column("first_frame"), column("last_frame")),
        (vec![1, 4], vec![2, 0], vec![3, 9])
    );
}

#[test]
fn every_record_is_a_row_or_counted() {
    let dir = tempfile::tempdir().unwrap();
    let thread = RecordThread::start(dir.path(), "lab", 1).unwrap();
    let sink = thread.sink("eth1");
    let lists = 20_000u64;
    for number in 0..lists {
        let open = Record { kind: RecordKind::Open, number: 0, ..record(number) };
        sink.send(vec![Record { number: 0, ..record(number) }, open], at(number));
    }
    sink.send_waiting(vec![record(lists)], at(lists));
    drop(sink);
    let counts = thread.finish().unwrap();
    assert_eq!(counts.table.rows + counts.overflow, lists + 1);
    assert_eq!(counts.overflow, counts.overflow_open);
    assert_eq!((counts.table.rows_sealed, counts.table.rows_lost), (counts.table.rows, 0));
    let rows: usize = sealed(dir.path()).iter().map(RecordBatch::num_rows).sum();
    assert_eq!(u64::try_from(rows).unwrap(), counts.table.rows);
}
