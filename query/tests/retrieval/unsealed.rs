//! Segments that are being written, or whose writers have died: what is shown of them, and how far the
//! answer vouches.

use crate::answers::{ports, steady};
use crate::support::{Left, Packet, Spec, Store, T, Writer, files};
use std::fs;
use tapedeck_index::name::SegmentName;
use tapedeck_packet::Timestamp;
use tapedeck_writer::{RecoverOptions, recover};

const SECOND: u64 = 1_000_000_000;

fn recorded(recorded: usize, until: u64) -> Left {
    Left::Open { recorded, writer: Writer::Recorder(until) }
}

/// Both forms of the verdict on everything in the store.
fn everything(store: &Store) -> (Vec<u16>, serde_json::Value, i32) {
    let text = store.taperead(&["packets"]);
    let json = store.taperead(&["packets", "--count", "--json"]);
    assert_eq!(text.code, json.code);
    (ports(text.text()), json.verdict(), json.code)
}

#[test]
fn a_live_segment_is_shown_as_far_as_it_is_whole() {
    // Frames of four packets: two recorded, the third in blocks; then fewer.
    for frames in 0..3 {
        let mut store = Store::new();
        let until = T + 5 * SECOND;
        store.segment(&Spec { left: recorded(frames, until), ..Spec::default() }, &steady(9));
        let (shown, verdict, code) = everything(&store);
        assert_eq!((shown, code), ((1000..=1005).collect(), 0), "{frames}");
        assert_eq!(verdict["range"]["to"], "2026-11-21T18:00:05.000000001Z");
        assert_eq!(verdict["coverage"][0]["to"], "2026-11-21T18:00:05.000000001Z");
        assert_eq!((&verdict["complete"], verdict["gaps"].as_array().unwrap().len()), (&true.into(), 0));
        // Also where more is asked for: nobody vouches for it yet.
        let later = store.taperead(&["packets", "--count", "--json", "--to", "2026-11-21 18:00:08"]);
        assert_eq!(later.verdict()["range"]["to"], "2026-11-21T18:00:05.000000001Z");
        let plan = store.taperead(&["packets", "--explain"]);
        assert!(
            plan.text().contains("live      whole before 2026-11-21T18:00:05.000000001Z\n"),
            "{}",
            plan.text()
        );
    }
}

#[test]
fn an_idle_queue_bounds_what_is_vouched_for_too() {
    let mut store = Store::new();
    store.segment(&Spec { left: recorded(1, T + 7 * SECOND), ..Spec::default() }, &steady(9));
    let idle = SegmentName {
        t0: Timestamp::ZERO,
        sensor: "lab".into(),
        interface: "eth2".into(),
        queue: 0,
        run: 0xabcd,
        seq: 0,
    };
    store.live(&idle, T + 4 * SECOND);
    let (shown, verdict, code) = everything(&store);
    assert_eq!((shown.len(), code), (8, 0));
    assert_eq!(verdict["range"]["to"], "2026-11-21T18:00:04.000000001Z");
    // A live file that cannot be read vouches for nothing.
    let path = files(store.path(), "eth2-q0-0000abcd.live").remove(0);
    fs::write(path, b"tapelive").unwrap();
    let verdict = everything(&store).1;
    assert_eq!(verdict["range"]["from"], verdict["range"]["to"]);
}

#[test]
fn a_live_store_vouches_for_its_silence() {
    let mut store = Store::new();
    store.segment(&Spec { left: recorded(1, T + 100 * SECOND), ..Spec::default() }, &steady(9));
    let (shown, verdict, code) = everything(&store);
    assert_eq!((shown.len(), code), (9, 0));
    assert_eq!(verdict["range"]["to"], "2026-11-21T18:01:40.000000001Z");
    let silent = store.taperead(&["packets", "--count", "--json", "--from", "2026-11-21 18:00:30"]);
    assert_eq!(silent.code, 1);
    assert_eq!(silent.verdict()["range"]["from"], "2026-11-21T18:00:30.000000000Z");
}

#[test]
fn the_live_file_of_a_dead_recorder_bounds_nothing() {
    let mut store = Store::new();
    store.segment(&Spec { left: recorded(1, T + SECOND), ..Spec::default() }, &steady(9));
    store.locks.clear();
    let (shown, verdict, code) = everything(&store);
    assert_eq!((shown.len(), code), (9, 0));
    assert_eq!(verdict["range"]["to"], "2026-11-21T18:00:08.000000001Z");
}

#[test]
fn the_slowest_queue_bounds_what_is_vouched_for() {
    let mut store = Store::new();
    let left = |until| recorded(1, T + until * SECOND);
    store.segment(&Spec { left: left(7), ..Spec::default() }, &steady(9));
    store.segment(&Spec { left: left(3), queue: 1, ..Spec::default() }, &steady(9));
    let (shown, verdict, code) = everything(&store);
    assert_eq!((shown.len(), code), (8 + 4, 0));
    assert_eq!(verdict["range"]["to"], "2026-11-21T18:00:03.000000001Z");
    // A queue that has nothing in the range bounds it all the same.
    let mut store = Store::new();
    let later: Vec<Packet> = steady(9).into_iter().map(|p| Packet { ts: p.ts + 100 * SECOND, ..p }).collect();
    store.segment(&Spec { left: left(108), ..Spec::default() }, &later);
    store.segment(&Spec { left: left(50), queue: 1, ..Spec::default() }, &steady(9));
    let answer = store.taperead(&["packets", "--json", "--from", "2026-11-21 18:00:30"]);
    assert_eq!((ports(answer.text()).len(), answer.code), (9, 0));
    assert_eq!(answer.verdict()["range"]["to"], "2026-11-21T18:00:50.000000001Z");
}

#[test]
fn an_import_that_runs_is_a_gap_of_its_hour() {
    let mut store = Store::new();
    let left = Left::Open { recorded: 1, writer: Writer::Import };
    store.segment(&Spec { left, ..Spec::default() }, &steady(9));
    let answer = store.taperead(&["packets", "--count"]);
    insta::assert_snapshot!(answer.shown(store.path()), @r"
    9
    --- stderr, exit 3
    9 packets; the answer is NOT WHOLE, 2026-11-21T18:00:00.000000000Z to 2026-11-21T18:00:08.000000001Z
      missing: 2026-11-21T17:59:58.000000000Z to 2026-11-21T19:00:02.000000000Z, an import that is still running, packets unknown
    ");
    let hours_later = store.taperead(&["packets", "--count", "--from", "2026-11-21 21:00"]);
    assert_eq!(hours_later.code, 1, "{}", hours_later.stderr);
}

#[test]
fn a_dead_writers_segment_is_read_as_recovery_reads_it() {
    for whole in 1..4 {
        for recorded in 0..=whole {
            let mut store = Store::new();
            let left = Left::Open { recorded, writer: Writer::Dead { whole } };
            store.segment(&Spec { left, ..Spec::default() }, &steady(11));
            let before = store.taperead(&["packets"]);
            assert_eq!(
                (ports(before.text()), before.code),
                ((1000..1011).collect(), 0),
                "{whole} {recorded}"
            );
            assert!(before.stderr.contains("its writer is gone"), "{}", before.stderr);
            let report = recover(store.path(), &RecoverOptions::default());
            assert!(report.errors.is_empty() && report.segments.len() == 1, "{report:?}");
            let after = store.taperead(&["packets"]);
            assert_eq!((after.text(), after.code), (before.text(), 0));
        }
    }
}

#[test]
fn behind_a_torn_frame_the_journal_goes_on() {
    let mut store = Store::new();
    let left = Left::Open { recorded: 1, writer: Writer::Dead { whole: 2 } };
    let path = store.segment(&Spec { left, ..Spec::default() }, &steady(11));
    // The last frame in the file, half written: its blocks are in the journal.
    let mut bytes = fs::read(&path).unwrap();
    let end = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[end - 10..=end].fill(0);
    fs::write(&path, bytes).unwrap();
    let before = store.taperead(&["packets"]);
    assert_eq!((ports(before.text()), before.code), ((1000..1011).collect(), 0), "{}", before.stderr);
    assert!(recover(store.path(), &RecoverOptions::default()).errors.is_empty());
    assert_eq!(store.taperead(&["packets"]).text(), before.text());
}

#[test]
fn a_dead_writers_empty_journal_hides_no_frame() {
    let mut store = Store::new();
    store.segment(
        &Spec { left: Left::Open { recorded: 1, writer: Writer::Dead { whole: 3 } }, ..Spec::default() },
        &steady(9),
    );
    fs::write(files(store.path(), ".journal").remove(0), b"").unwrap();
    let answer = store.taperead(&["packets"]);
    assert_eq!((ports(answer.text()), answer.code), ((1000..1009).collect(), 0), "{}", answer.stderr);
}

#[test]
fn of_an_open_segment_only_what_can_match_is_read() {
    // Frames of four packets, one of each second and port.
    let mut store = Store::new();
    store.segment(&Spec { left: recorded(3, T + 20 * SECOND), ..Spec::default() }, &steady(12));
    let from = ["--from", "2026-11-21 18:00:05"];
    let ask = |what: &[&str]| store.taperead(&[&["packets", "port 1006"], what].concat());
    let plan = ask(&["--explain"]);
    assert!(
        plan.text().contains("(open): 1 of 3 frames, 119 of 482 bytes; 1 of 12 rows can match\n"),
        "{}",
        plan.text()
    );
    // Of the frames before that time not even the rows are looked at.
    let plan = ask(&[&["--explain"], &from[..]].concat());
    assert!(
        plan.text().contains("(open): 1 of 3 frames, 119 of 482 bytes; 1 of 8 rows can match\n"),
        "{}",
        plan.text()
    );
    let answer = ask(&from);
    assert_eq!((ports(answer.text()), answer.code), (vec![1006], 0), "{}", answer.stderr);
}
