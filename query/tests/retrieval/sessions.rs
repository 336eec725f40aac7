//! `taperead sessions`: files, journals and live journals give one row a session.

use crate::support::packets::{ethernet, ipv4, tcp};
use crate::support::records::{LeftTable, SEC, long, named, record, write};
use crate::support::{Answer, Packet, Spec, Store, T, files};
use tapedeck_session::{ConnState, PacketRef, Record, RecordKind};

fn json(answer: &Answer) -> Vec<serde_json::Value> {
    answer.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn sources(answer: &Answer) -> Vec<String> {
    json(answer).iter().map(|row| row["src_ip"].as_str().unwrap().to_owned()).collect()
}

/// Three short sessions and one of a quarter of an hour.
fn some() -> Vec<Record> {
    let mut records = vec![
        named(record(1, 0, 1, 9), "www.example.org"),
        Record { conn_state: ConnState::S0, history: "S".into(), ..record(2, 2 * SEC, 2, 9) },
        named(record(3, 3 * SEC, 3, 8), "mail.example.net"),
    ];
    records.extend(long(4, 10 * SEC, 4, 8));
    records
}

#[test]
fn sessions_are_found_by_what_they_are() {
    let store = Store::new();
    write(store.path(), 1, &some(), LeftTable::Sealed);
    for (filter, want) in [
        ("", &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"][..]),
        ("host 10.0.0.9", &["10.0.0.1", "10.0.0.2"]),
        ("src host 10.0.0.9", &[]),
        ("dst net 10.0.0.8/31 and not host 10.0.0.8", &["10.0.0.1", "10.0.0.2"]),
        ("tcp and dst port 443 and src port 40000", &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]),
        ("udp", &[]),
        ("state S0", &["10.0.0.2"]),
        ("state S*", &["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4"]),
        ("service ssl and sni *.example.org", &["10.0.0.1"]),
        ("sni WWW.*", &["10.0.0.1"]),
        ("not sni *", &["10.0.0.2", "10.0.0.4"]),
        ("duration > 5m", &["10.0.0.4"]),
        ("packets >= 32", &["10.0.0.4"]),
        ("bytes > 1k", &[]),
        ("bytes >= 500 and bytes < 501 and not state SF", &["10.0.0.2"]),
        ("history S", &["10.0.0.2"]),
        ("flow 10.0.0.9:443 10.0.0.1:40000 tcp", &["10.0.0.1"]),
        ("ether host 02:00:00:00:00:03", &["10.0.0.3"]),
        ("vlan", &[]),
        ("inner (tcp)", &[]),
    ] {
        let words: Vec<&str> = filter.split(' ').filter(|word| !word.is_empty()).collect();
        let answer = store.taperead(&[&["sessions", "--format", "json"], words.as_slice()].concat());
        assert_eq!(sources(&answer), want, "{filter}: {}", answer.stderr);
        assert_eq!(answer.code, if want.is_empty() { 1 } else { 0 }, "{filter}");
        let answer = store.taperead(&[&["sessions", "--count"], words.as_slice()].concat());
        assert_eq!(answer.text(), format!("{}\n", want.len()), "{filter}");
    }
}

#[test]
fn a_community_id_is_found_by_its_bloom_filter_or_not_at_all() {
    let store = Store::new();
    write(store.path(), 1, &some(), LeftTable::Sealed);
    let all = json(&store.taperead(&["sessions", "--format", "json"]));
    let id = all[0]["community_id"].as_str().unwrap();
    let found = store.taperead(&["sessions", "community-id", id, "--format", "json"]);
    assert_eq!(sources(&found), ["10.0.0.1"]);
    // The published vector of another conversation: its row groups are skipped.
    let other = "1:LQU9qZlK+B5F3KDmev6m5PMibrg=";
    let none = store.taperead(&["sessions", "community-id", other, "--json"]);
    assert_eq!((none.code, none.text()), (1, ""));
    assert_eq!(none.verdict()["scanned_bytes"], 0);
    assert_eq!(none.verdict()["complete"], true);
}

#[test]
fn the_range_decides_by_overlap_and_what_a_session_looked_like_in_it() {
    let store = Store::new();
    write(store.path(), 1, &some(), LeftTable::Sealed);
    let at = |seconds: u64| format!("{}.5", T / SEC + seconds);
    let ask =
        |from: &str, to: &str| store.taperead(&["sessions", "--format", "json", "--from", from, "--to", to]);
    // Between the records' ends: the session of 10.0.0.1 ended at second 1.
    assert_eq!(sources(&ask(&at(1), &at(2))), ["10.0.0.2"]);
    assert_eq!(sources(&ask(&at(0), &at(0).replace(".5", ".6"))), ["10.0.0.1"]);
    // A quarter of an hour in one row; within the second record it was not over.
    let row = |answer: Answer| json(&answer).pop().unwrap();
    let whole = row(ask(&at(0), &at(2000)));
    assert_eq!(
        (&whole["orig_pkts"], &whole["records"], &whole["record_type"]),
        (&30.into(), &3.into(), &"final".into())
    );
    let part = row(ask(&at(400), &at(401)));
    assert_eq!(
        (&part["orig_pkts"], &part["records"], &part["record_type"]),
        (&20.into(), &1.into(), &"interim".into())
    );
    assert_eq!(part["conn_state"], "S1");
    // What it was then decides, not what it became.
    let state = |from: &str, to: &str| {
        store
            .taperead(&["sessions", "state", "SF", "and", "host", "10.0.0.4", "--from", from, "--to", to])
            .code
    };
    assert_eq!(state(&at(400), &at(401)), 1);
    assert_eq!(state(&at(400), &at(700)), 0);
}

#[test]
fn journals_of_living_and_dead_writers_are_read_and_no_session_stands_twice() {
    let store = Store::new();
    write(store.path(), 1, &some()[..1], LeftTable::Sealed);
    let open = |number, from, src| Record { kind: RecordKind::Open, ..record(number, from, src, 9) };
    // One is over by now, one goes on: both have an open row.
    let records = [
        open(20, 5 * SEC, 20),
        open(21, 6 * SEC, 21),
        record(20, 5 * SEC, 20, 9),
        record(22, 7 * SEC, 22, 9),
    ];
    write(store.path(), 2, &records, LeftTable::Open);
    let answer = store.taperead(&["sessions", "--format", "json"]);
    assert_eq!(sources(&answer), ["10.0.0.1", "10.0.0.20", "10.0.0.21", "10.0.0.22"]);
    let rows = json(&answer);
    let kinds: Vec<&str> = rows.iter().map(|row| row["record_type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["final", "final", "open", "final"]);
    assert_eq!(rows[2]["as_of"], "2026-11-21T18:00:07.000000000Z");
    assert!(rows[1]["as_of"].is_null());
    // Recovery changes where the rows are, not what they say.
    let report = tapedeck_writer::recover(store.path(), &tapedeck_writer::RecoverOptions::default());
    assert!(report.errors.is_empty(), "{report:?}");
    assert_eq!(files(store.path(), ".journal").len() + files(store.path(), ".live").len(), 0);
    assert_eq!(store.taperead(&["sessions", "--format", "json"]).text(), answer.text());
}

#[test]
fn a_damaged_file_is_a_gap_and_the_rest_is_answered() {
    let store = Store::new();
    write(store.path(), 1, &some()[..1], LeftTable::Sealed);
    let good = files(store.path(), ".parquet");
    write(store.path(), 2, &some()[1..3], LeftTable::Sealed);
    let bad = files(store.path(), ".parquet").into_iter().find(|path| !good.contains(path)).unwrap();
    let bytes = std::fs::read(&bad).unwrap();
    std::fs::write(&bad, &bytes[..bytes.len() / 2]).unwrap();
    let answer = store.taperead(&["sessions", "--format", "json", "--json"]);
    assert_eq!((sources(&answer), answer.code), (vec!["10.0.0.1".to_owned()], 3));
    let gap = &answer.verdict()["gaps"][0];
    assert_eq!(
        (&gap["cause"], &gap["from"]),
        (&"corrupt_file".into(), &"2026-11-21T18:00:02.000000000Z".into())
    );
    assert!(answer.stderr.contains(bad.file_name().unwrap().to_str().unwrap()), "{}", answer.stderr);
}

#[test]
fn what_sessions_and_packets_cannot_be_asked_is_said() {
    let store = Store::new();
    for (args, word) in [
        (&["sessions", "greater", "100"][..], "bytes"),
        (&["sessions", "host", "10.0.0.1", "and", "arp"], "IP only"),
        (&["sessions", "not", "ether", "broadcast"], "ip multicast"),
        (&["packets", "state", "S0"], "taperead sessions"),
        (&["packets", "host", "10.0.0.1", "and", "not", "bytes", ">", "5"], "taperead sessions"),
        (&["sessions", "bytes", ">", "ten"], "10M"),
        (&["sessions", "duration", ">", "5"], "duration"),
        (&["sessions", "state"], "text"),
    ] {
        let answer = store.taperead(args);
        assert_eq!((answer.code, answer.text()), (2, ""), "{args:?}");
        assert!(answer.stderr.contains(word), "{args:?}: {}", answer.stderr);
    }
}

/// A segment of the packets of two conversations, four a frame, alternating.
fn with_packets(store: &mut Store) -> Vec<Packet> {
    let packet = |n: u64| {
        let src = if n.is_multiple_of(2) { 1 } else { 2 };
        let bytes = ethernet(src, 9, &[], 0x0800, &ipv4(src, 9, 6, 0, &tcp(40_000, 443, 0x10)));
        Packet::new(T + n * SEC / 10, bytes)
    };
    let packets: Vec<Packet> = (0..40).map(packet).collect();
    store.segment(&Spec { run: 1, ..Spec::default() }, &packets);
    packets
}

#[test]
fn packets_of_sessions_come_by_reference_and_each_belongs() {
    let mut store = Store::new();
    let packets = with_packets(&mut store);
    // 10.0.0.1 from packet 0 to 10: frames 1 to 3. The frames hold later packets of it, and others'.
    let refs = vec![PacketRef { segment: 0, first_frame: 1, last_frame: 3 }];
    let session = Record { refs, ..record(1, 0, 1, 9) };
    write(store.path(), 1, &[session.clone(), record(2, 0, 2, 9)], LeftTable::Sealed);
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("out.pcapng");
    let export = |store: &Store, filter: &str| {
        let words: Vec<&str> = filter.split(' ').collect();
        let file = ["--packets", "-w", out.to_str().unwrap(), "--json"];
        store.taperead(&[&["sessions"], words.as_slice(), &file].concat())
    };
    let want: Vec<u64> = packets
        .iter()
        .map(|p| p.ts)
        .filter(|ts| (ts - T).is_multiple_of(SEC / 5) && *ts <= T + SEC)
        .collect();
    let answer = export(&store, "host 10.0.0.1");
    assert_eq!(answer.code, 0, "{}", answer.stderr);
    assert_eq!(times(&out), want);
    // Three of ten; the segment's index says what the interface is.
    assert_eq!(answer.verdict()["scanned_frames"], 3);
    // Without all references the index finds them.
    let store2 = &mut Store::new();
    with_packets(store2);
    write(store2.path(), 1, &[Record { refs_incomplete: true, refs: vec![], ..session }], LeftTable::Sealed);
    let answer = export(store2, "host 10.0.0.1");
    assert_eq!((answer.code, times(&out)), (0, want));
}

/// Times of the packets of a pcapng file.
fn times(path: &std::path::Path) -> Vec<u64> {
    use tapedeck_index::pcapng::{Block, Blocks};
    let bytes = std::fs::read(path).unwrap();
    Blocks::new(&bytes)
        .filter_map(|block| match block.unwrap().1 {
            Block::Packet(packet) => Some(packet.ts.nanos()),
            _ => None,
        })
        .collect()
}

#[test]
fn the_first_in_order_of_time_come_first() {
    let store = Store::new();
    write(store.path(), 1, &some(), LeftTable::Sealed);
    let answer = store.taperead(&["sessions", "--limit", "2", "--format", "json", "--json"]);
    assert_eq!((sources(&answer), answer.code), (vec!["10.0.0.1".to_owned(), "10.0.0.2".to_owned()], 0));
    assert_eq!((&answer.verdict()["limited"], &answer.verdict()["matched"]), (&true.into(), &2.into()));
}

#[test]
fn zeek_reads_its_own_format() {
    let store = Store::new();
    let hostile = named(record(1, 0, 1, 9), "tab\there\\x,y\u{1b}[31m");
    let dns = Record {
        service: tapedeck_session::Service { name: Some("a,b"), ..Default::default() },
        ..record(2, SEC, 2, 9)
    };
    write(store.path(), 1, &[hostile, dns], LeftTable::Sealed);
    let answer = store.taperead(&["sessions", "--format", "zeek"]);
    let lines: Vec<&str> = answer.text().lines().collect();
    assert_eq!(lines[0], "#separator \\x09");
    let fields: Vec<&str> =
        lines.iter().find_map(|l| l.strip_prefix("#fields\t")).unwrap().split('\t').collect();
    let types: Vec<&str> =
        lines.iter().find_map(|l| l.strip_prefix("#types\t")).unwrap().split('\t').collect();
    assert_eq!(fields.len(), types.len());
    let rows: Vec<Vec<&str>> =
        lines.iter().filter(|l| !l.starts_with('#')).map(|l| l.split('\t').collect()).collect();
    let get = |row: &[&str], name: &str| row[fields.iter().position(|f| *f == name).unwrap()].to_owned();
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row.len() == fields.len()));
    assert_eq!(get(&rows[0], "ts"), format!("{}.000000000", T / SEC));
    assert_eq!(get(&rows[0], "id.resp_p"), "443");
    assert_eq!(get(&rows[0], "duration"), "1.000000000");
    assert_eq!(get(&rows[0], "history"), "ShADadFf");
    assert_eq!(get(&rows[0], "local_orig"), "-");
    assert_eq!(get(&rows[1], "service"), "a\\x2cb");
    assert!(lines.last().unwrap().starts_with("#close\t"));
}

#[test]
fn csv_has_a_line_of_names_and_quotes_what_needs_it() {
    let store = Store::new();
    write(store.path(), 1, &[named(record(1, 0, 1, 9), "a,\"b\"")], LeftTable::Sealed);
    let answer = store.taperead(&["sessions", "--format", "csv"]);
    let (names, row) = answer.text().split_once('\n').unwrap();
    assert!(names.starts_with("ts,ts_last,duration_ns,uid,record_type,"), "{names}");
    assert!(
        row.starts_with("2026-11-21T18:00:00.000000000Z,2026-11-21T18:00:01.000000000Z,1000000000,C"),
        "{row}"
    );
    assert!(row.contains(",\"a,\"\"b\"\"\","), "{row}");
}
