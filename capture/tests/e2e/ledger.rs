//! The ledger in SQL: what an import's rows add up to, and how soon the rows of a recording are there.

use crate::tools::{alone, bin, captures, need_root, run, stderr, stdout, together, traces};
use serde_json::Value;
use std::path::Path;
use std::time::{Duration, Instant};
use tapedeck_bench::link::Link;
use tapedeck_bench::probe::{Sender, now_ns};
use tapedeck_bench::recorder::Recorder;

/// The rows of an answer.
fn sql(store: &Path, query: &str) -> Vec<Value> {
    let answer =
        run(bin("taperead"), &["sql", query, "--format", "json", "--store", store.to_str().unwrap()]);
    assert!(matches!(answer.status.code(), Some(0 | 1)), "{query}: {}", stderr(&answer));
    stdout(&answer).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// Every number of a queue by its name in the final ledger, as SQL.
const SUMS: &str = "sum(seen) AS seen, sum(seen_bytes) AS seen_bytes, sum(filtered) AS filtered, sum(stored) AS stored, \
    sum(stored_bytes) AS stored_bytes, sum(pending) AS pending, sum(cut_packets) AS cut_packets, \
    sum(cut_bytes) AS cut_bytes, sum(unaccounted) AS unaccounted, sum(dropped_ring_full) AS ring_full, \
    sum(dropped_fill_empty) AS fill_empty, sum(dropped_unbound) AS unbound, sum(dropped_wrong_queue) AS wrong_queue, \
    sum(dropped_oversize) AS oversize, sum(dropped_program) AS program, sum(dropped_shed) AS shed, \
    sum(dropped_write_error) AS write_error, sum(dropped_crash) AS crash, sum(dropped_down) AS down";

fn assert_sums_are_the_ledger(store: &Path, ledger: &Value) {
    let run = ledger["run"].as_str().unwrap();
    let rows = sql(store, &format!("SELECT {SUMS} FROM ledger WHERE run = '{run}'"));
    let total = &ledger["total"];
    for (name, sum) in rows[0].as_object().unwrap() {
        let told = if total["dropped"][name].is_null() { &total[name] } else { &total["dropped"][name] };
        assert_eq!(sum, told, "{name}: {ledger}");
    }
    let unbalanced = sql(store, "SELECT * FROM ledger WHERE unaccounted <> 0 OR pending <> 0");
    assert!(unbalanced.is_empty(), "{unbalanced:?}");
}

#[test]
fn the_rows_of_an_import_add_up_to_its_ledger() {
    let _turn = together();
    let Some(folder) = traces("rows of an import") else { return };
    let dir = tempfile::tempdir().unwrap();
    let files: Vec<_> = captures(&folder).into_iter().take(60).collect();
    let mut command = std::process::Command::new(bin("tapedeck"));
    let answer = command.args(["import", "--store"]).arg(dir.path()).args(&files).output().unwrap();
    let ledger: Value = serde_json::from_slice(&answer.stdout).unwrap();
    assert!(ledger["total"]["stored"].as_u64().unwrap() > 1000, "{ledger}");
    assert_sums_are_the_ledger(dir.path(), &ledger);
    // Each packet in the second of its time.
    let seconds = sql(
        dir.path(),
        "SELECT count(*) AS n FROM ledger WHERE kind = 'second' AND (date_trunc('second', ts) <> ts OR seen = 0)",
    );
    assert_eq!(seconds[0]["n"], 0);
}

#[test]
fn the_newest_seconds_of_a_recording_are_in_sql_at_once() {
    let _turn = alone();
    if !need_root("ledger of a recording in SQL") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let link = Link::make(2, 1500).unwrap();
    let recorder = Recorder::start(&link, &store, &[]).unwrap();
    let sender = Sender::open(&link.path(), "tx0").unwrap();
    let mut sent = 0;
    sender.send(0, 5_000, 2_000, 300, |_| sent += 1).unwrap();
    let began = Instant::now();
    loop {
        let rows = sql(&store, "SELECT sum(seen) AS seen, sum(stored) AS stored FROM ledger");
        if rows[0]["seen"] == 5_000 && rows[0]["stored"] == 5_000 {
            break;
        }
        assert!(began.elapsed() < Duration::from_secs(30), "{rows:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    println!("ledger: all rows were there {:?} after the last packet", began.elapsed());
    let ledger = recorder.stop().unwrap();
    assert_sums_are_the_ledger(&store, &ledger);
    let clock = sql(&store, "SELECT clock_source, utc_offset_ns FROM ledger WHERE kind = 'clock'");
    assert_eq!(clock[0]["clock_source"], "system");
}

/// Exit status and verdict of a question about packets of a range.
fn packets(store: &Path, from_ns: u64, to_ns: u64) -> (i32, Value) {
    let time = |ns: u64| format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
    let (from, to, store) = (time(from_ns), time(to_ns), store.to_str().unwrap());
    let answer = run(
        bin("taperead"),
        &["packets", "--json", "--count", "--from", &from, "--to", &to, "--store", store],
    );
    let said = stderr(&answer);
    (answer.status.code().unwrap(), serde_json::from_str(said.lines().last().unwrap()).unwrap())
}

#[test]
fn a_range_inside_an_outage_is_not_whole() {
    let _turn = alone();
    if !need_root("a range inside an outage") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let link = Link::make(1, 1500).unwrap();
    let recorder = Recorder::start(&link, &store, &[]).unwrap();
    let sender = Sender::open(&link.path(), "tx0").unwrap();
    sender.send(0, 1_000, 2_000, 300, |_| {}).unwrap();
    let whole = now_ns().unwrap();
    // Rows of these seconds are on disk, so that they are not part of the crash.
    std::thread::sleep(Duration::from_millis(3_500));
    recorder.kill().unwrap();
    std::thread::sleep(Duration::from_millis(1_500));
    let from = now_ns().unwrap();
    sender.send(1_000, 500, 2_000, 300, |_| {}).unwrap();
    std::thread::sleep(Duration::from_millis(200));
    let to = now_ns().unwrap();
    std::thread::sleep(Duration::from_millis(300));
    let recorder = Recorder::start(&link, &store, &[]).unwrap();
    // At once, and after the next end.
    let ask = || {
        let (code, verdict) = packets(&store, from, to);
        assert_eq!(
            (code, &verdict["complete"], &verdict["matched"]),
            (3, &false.into(), &0.into()),
            "{verdict}"
        );
        let gaps = verdict["gaps"].as_array().unwrap();
        assert_eq!(gaps.len(), 1, "{verdict}");
        assert_eq!((&gaps[0]["cause"], &gaps[0]["packets"]), (&"down".into(), &500.into()), "{verdict}");
        // All of the range: nobody watched any of it.
        assert_eq!((&gaps[0]["from"], &gaps[0]["to"]), (&verdict["range"]["from"], &verdict["range"]["to"]));
        let (code, verdict) = packets(&store, whole - 200_000_000, whole);
        assert_eq!((code, &verdict["gaps"]), (0, &serde_json::json!([])), "{verdict}");
    };
    ask();
    let ledger = recorder.stop().unwrap();
    assert_eq!(ledger["total"]["dropped"]["down"], 500, "{ledger}");
    ask();
    let rows =
        sql(&store, "SELECT sum(seen) AS seen, sum(stored) AS stored, sum(dropped_down) AS down FROM ledger");
    assert_eq!(rows[0], serde_json::json!({"seen": 1_500, "stored": 1_000, "down": 500}));
}
