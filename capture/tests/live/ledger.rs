//! The ledger by second: rows that balance, add up to the final ledger, and name the seconds of what is lost.

use crate::support::recorder::{Ended, Recorder, packets, segments};
use crate::support::{Net, live, number_of, numbered, run};
use nix::sys::signal::Signal;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tapedeck_index::table::journal::Replay;
use tapedeck_index::table::ledger::{COUNTS, LedgerCounts, LedgerRow, RowKind, from_batch};
use tapedeck_index::table::{LEDGER, State, list};
use tapedeck_packet::Timestamp;

const SECOND: u64 = 1_000_000_000;

/// All rows of a store, those of journals too.
pub(super) fn rows(store: &Path) -> Vec<LedgerRow> {
    let listing = list(&LEDGER, &[store.to_owned()], Timestamp::ZERO, None).unwrap();
    let mut rows = Vec::new();
    for found in listing.files {
        let batches: Vec<_> = match found.state {
            State::Open => Replay::read(&std::fs::read(&found.path).unwrap()).unwrap().batches,
            State::Sealed => {
                let reader =
                    ParquetRecordBatchReaderBuilder::try_new(File::open(&found.path).unwrap()).unwrap();
                reader.build().unwrap().map(Result::unwrap).collect()
            }
        };
        batches.iter().for_each(|batch| rows.extend(from_batch(batch).unwrap()));
    }
    rows.sort_by_key(|row| (row.interface.clone(), row.queue, row.ts, row.number));
    rows
}

/// What the final ledger says of a queue, as a row would.
fn of_json(queue: &serde_json::Value) -> [i64; COUNTS.len()] {
    COUNTS.map(|name| {
        let value = match name.strip_prefix("dropped_") {
            Some("nic") => return 0,
            Some(cause) => &queue["dropped"][cause],
            None => &queue[name],
        };
        value.as_i64().unwrap_or_else(|| panic!("{name} in {queue}"))
    })
}

/// Every row of a run balances, and their sums are those of its final ledger.
pub(super) fn rows_add_up(store: &Path, ended: &Ended) -> Vec<LedgerRow> {
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    let run = ended.ledger["run"].as_str().unwrap();
    let rows: Vec<_> = rows(store).into_iter().filter(|row| row.run == run).collect();
    assert!(rows.iter().all(|row| row.counts.unaccounted == 0 && row.counts.pending == 0), "{rows:#?}");
    assert_eq!(rows.iter().map(|row| row.number).collect::<BTreeSet<_>>().len(), rows.len());
    for queue in ended.ledger["queues"].as_array().unwrap() {
        let number = u32::try_from(queue["queue"].as_u64().unwrap()).unwrap();
        let of_queue: Vec<_> = rows.iter().filter(|row| row.queue == Some(number)).collect();
        let sum = of_queue.iter().fold(LedgerCounts::default(), |sum, row| sum.plus(&row.counts));
        assert_eq!(sum.list(), of_json(queue), "queue {number}: {queue}\n{of_queue:#?}");
    }
    assert!(rows.iter().any(|row| row.kind == RowKind::Clock && row.clock.is_some()));
    rows
}

/// The same without a correction, and the rows of a queue follow each other without a hole.
pub(super) fn rows_are_the_ledger(store: &Path, ended: &Ended) -> Vec<LedgerRow> {
    let rows = rows_add_up(store, ended);
    for queue in ended.ledger["queues"].as_array().unwrap() {
        let number = u32::try_from(queue["queue"].as_u64().unwrap()).unwrap();
        let of_queue: Vec<_> = rows.iter().filter(|row| row.queue == Some(number)).collect();
        assert!(of_queue.iter().all(|row| row.kind == RowKind::Second), "{of_queue:#?}");
        no_hole(&of_queue);
    }
    rows
}

/// The table after kills, over all runs in these stores: every row balances and nothing stays under way, no second is
/// missing, each run's rows say what it stored, and all of them that `sent` packets came and which were lost for
/// which cause, as the ledger tells that was printed last.
pub(super) fn table_tells(stores: &[&Path], ledger: &serde_json::Value, sent: u64) -> Vec<LedgerRow> {
    let rows: Vec<_> = stores.iter().flat_map(|store| rows(store)).collect();
    let line = |row: &LedgerRow| {
        let counts = COUNTS.into_iter().zip(row.counts.list()).filter(|(_, count)| *count != 0);
        let span = format!("{} to {}", row.ts, row.ts_end);
        format!("{span} {} {} {:?} {:?}\n", row.kind.name(), row.run, row.queue, counts.collect::<Vec<_>>())
    };
    let said = |what: &str| format!("{what}:\n{}{ledger}", rows.iter().map(line).collect::<String>());
    let balances = |row: &&LedgerRow| row.counts.settled() == row.counts && row.counts.unaccounted == 0;
    assert!(rows.iter().all(|row| balances(&row)), "{}", said("a row does not balance"));
    let sum = |of: &dyn Fn(&LedgerRow) -> bool| {
        let rows = rows.iter().filter(|row| of(row));
        rows.fold(LedgerCounts::default(), |sum, row| sum.plus(&row.counts))
    };
    let mut on_disk: BTreeMap<String, i64> = BTreeMap::new();
    for segment in stores.iter().flat_map(|store| segments(store)) {
        let name = segment.file_name().unwrap().to_str().unwrap();
        let run = name.rsplit('-').nth(1).unwrap().to_owned();
        let index = segment.with_file_name(name.replace(".pcapng.zst", ".idx"));
        let packets = tapedeck_index::mapped::open(&index).unwrap().summary().packets;
        *on_disk.entry(run).or_default() += i64::try_from(packets).unwrap();
    }
    let runs: BTreeSet<_> = rows.iter().map(|row| row.run.clone()).chain(on_disk.keys().cloned()).collect();
    for run in &runs {
        let of_run = sum(&|row| row.run == *run);
        let stored = on_disk.get(run).copied().unwrap_or(0);
        assert_eq!((of_run.stored, of_run.pending), (stored, 0), "{}", said(run));
        let seconds = rows.iter().filter(|row| row.run == *run && row.kind == RowKind::Second);
        let places: BTreeSet<_> =
            seconds.clone().map(|row| (row.interface.clone().unwrap(), row.queue.unwrap())).collect();
        for (interface, queue) in places {
            let of =
                |row: &&LedgerRow| (row.interface.as_ref(), row.queue) == (Some(&interface), Some(queue));
            no_hole(&seconds.clone().filter(of).collect::<Vec<_>>());
        }
    }
    let all = sum(&|_| true);
    let causes = all.dropped().into_iter().filter(|(cause, _)| *cause != "nic");
    for (cause, packets) in causes {
        assert_eq!(ledger["total"]["dropped"][cause], packets, "{}", said(cause));
    }
    assert_eq!(all.seen, i64::try_from(sent).unwrap(), "{}", said("seen"));
    rows
}

/// Rows of seconds follow each other. A second may have two rows, where something was noticed late.
fn no_hole(rows: &[&LedgerRow]) {
    let stretches: BTreeSet<_> = rows.iter().map(|row| (row.ts, row.ts_end)).collect();
    for (one, next) in stretches.iter().zip(stretches.iter().skip(1)) {
        assert_eq!(one.1, next.0, "{rows:#?}");
    }
}

/// Packets by the second of a time.
fn by_second(times: impl Iterator<Item = u64>) -> BTreeMap<u64, i64> {
    let mut seconds = BTreeMap::new();
    times.for_each(|ns| *seconds.entry(ns / SECOND).or_default() += 1);
    seconds
}

fn numbers(rows: &[LedgerRow], of: impl Fn(&LedgerCounts) -> i64) -> BTreeMap<u64, i64> {
    let mut seconds = BTreeMap::new();
    for row in rows.iter().filter(|row| row.queue.is_some() && of(&row.counts) != 0) {
        *seconds.entry(row.ts.nanos() / SECOND).or_default() += of(&row.counts);
    }
    seconds
}

pub(super) fn utc_ns() -> u64 {
    u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap()
}

/// Sends numbered packets of one flow, none within 20 ms of the turn of a second; when each was sent.
fn send(net: &Net, from: u64, count: u64, pause: Duration) -> BTreeMap<u64, u64> {
    let sender = net.sender();
    let mut sent = BTreeMap::new();
    for number in from..from + count {
        while !(20_000_000..980_000_000).contains(&(utc_ns() % SECOND)) {
            std::thread::sleep(Duration::from_millis(1));
        }
        sent.insert(number, utc_ns());
        assert!(sender.send(&numbered(0, number, 60, &[])));
        // The veth's own ring has 256 places.
        if number % 64 == 0 {
            std::thread::sleep(pause);
        }
    }
    sent
}

/// Numbers that are in the store, with their times.
fn stored(store: &Path) -> BTreeMap<u64, u64> {
    let all = segments(store).into_iter().flat_map(|segment| packets(&segment));
    all.filter_map(|(ts, bytes)| Some((number_of(&bytes, 0)?.1, ts))).collect()
}

#[test]
fn every_second_of_every_queue_has_a_row_that_says_what_came() {
    live!();
    for (mode, queues) in [("copy", 4), ("skb", 4), ("packet", 1)] {
        let net = Net::new(4, 1500);
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(&net, dir.path(), &["--mode", mode]);
        let sender = net.sender();
        for number in 0..3000 {
            for flow in 0..4 {
                assert!(sender.send(&numbered(flow, number, 60, &[])));
            }
            std::thread::sleep(Duration::from_millis(1));
        }
        let ended = recorder.stop();
        let rows = rows_are_the_ledger(dir.path(), &ended);
        assert_eq!(ended.total("stored"), 12_000, "{mode}: {ended:?}");
        let times =
            segments(dir.path()).into_iter().flat_map(|segment| packets(&segment)).map(|packet| packet.0);
        assert_eq!(numbers(&rows, |counts| counts.stored), by_second(times), "{mode}");
        let of_queues: BTreeSet<_> = rows.iter().filter_map(|row| row.queue).collect();
        assert_eq!(of_queues.len(), queues, "{mode}");
    }
}

#[test]
fn lost_packets_stand_in_the_seconds_in_which_they_were_sent() {
    live!();
    for mode in ["copy", "skb"] {
        let net = Net::new(1, 1500);
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(&net, dir.path(), &["--mode", mode, "--packet-memory", "16MiB"]);
        recorder.signal(Signal::SIGSTOP);
        let mut sent = send(&net, 0, 16_000, Duration::from_millis(12));
        recorder.signal(Signal::SIGCONT);
        std::thread::sleep(Duration::from_millis(500));
        sent.extend(send(&net, 16_000, 100, Duration::from_millis(1)));
        let ended = recorder.stop();
        let rows = rows_are_the_ledger(dir.path(), &ended);
        let there = stored(dir.path());
        let missing = sent.iter().filter(|(number, _)| !there.contains_key(number)).map(|(_, ns)| *ns);
        let missing = by_second(missing);
        assert!(missing.len() > 1, "{mode}: {missing:?}");
        assert_eq!(numbers(&rows, |counts| counts.ring_full), missing, "{mode}: {ended:?}");
        assert_eq!(numbers(&rows, |counts| counts.seen), by_second(sent.values().copied()), "{mode}");
        let (dropcounts, statistics) = blocks(dir.path());
        assert_eq!(dropcounts, ended.total("dropped/ring_full"), "{mode}: epb_dropcount");
        let told = [ended.total("seen"), ended.total("dropped/ring_full"), ended.total("stored")];
        assert_eq!(statistics, told, "{mode}: the last statistics: ifrecv, osdrop, usrdeliv");
    }
}

#[test]
fn drops_of_a_packet_socket_stand_where_they_were_noticed() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&net, dir.path(), &["--mode", "packet"]);
    recorder.signal(Signal::SIGSTOP);
    let sender = net.sender();
    for number in 0..60_000 {
        assert!(sender.send(&numbered(0, number, 1400, &[])));
        if number % 64 == 0 {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    recorder.signal(Signal::SIGCONT);
    let ended = recorder.stop();
    assert!(ended.total("dropped/ring_full") > 0, "{ended:?}");
    rows_are_the_ledger(dir.path(), &ended);
}

/// Sum of all `epb_dropcount`, and the last statistics block's ifrecv, osdrop, usrdeliv.
fn blocks(store: &Path) -> (i64, [i64; 3]) {
    let (mut dropcounts, mut statistics) = (0, [0; 3]);
    for segment in segments(store) {
        let raw = Command::new("zstd").arg("-dcq").arg(&segment).output().unwrap().stdout;
        let mut rest = raw.as_slice();
        while rest.len() >= 12 {
            let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
            let len = word(4) as usize;
            let options = match word(0) {
                6 => 28 + (word(20) as usize).next_multiple_of(4),
                5 => 20,
                _ => len,
            };
            let mut at = options;
            while at + 8 <= len {
                let half = |at: usize| u16::from_le_bytes(rest[at..at + 2].try_into().unwrap());
                let (code, size) = (half(at), usize::from(half(at + 2)));
                let value = || i64::from_le_bytes(rest[at + 4..at + 12].try_into().unwrap());
                match (word(0), code) {
                    (6, 4) => dropcounts += value(),
                    (5, 4) => statistics[0] = value(),
                    (5, 7) => statistics[1] = value(),
                    (5, 8) => statistics[2] = value(),
                    (_, 0) => break,
                    _ => {}
                }
                at += 4 + size.next_multiple_of(4);
            }
            rest = &rest[len..];
        }
    }
    (dropcounts, statistics)
}

#[test]
fn rows_of_finished_seconds_survive_a_kill() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&net, dir.path(), &["--mode", "copy"]);
    let sent = send(&net, 0, 12_000, Duration::from_millis(15));
    // A row is there within some two seconds of its second's end.
    std::thread::sleep(Duration::from_millis(3500));
    recorder.kill();
    let before = rows(dir.path());
    let seen = by_second(sent.values().copied());
    assert!(seen.len() > 2, "{seen:?}");
    assert_eq!(numbers(&before, |counts| counts.seen), seen);
    assert_eq!(numbers(&before, |counts| counts.stored), seen);
    run(env!("CARGO_BIN_EXE_tapedeck"), &["recover", "--store", dir.path().to_str().unwrap()]);
    let hidden = list(&LEDGER, &[dir.path().to_owned()], Timestamp::ZERO, None).unwrap();
    assert!(
        hidden.files.iter().all(|found| found.state == State::Sealed) && hidden.live.is_empty(),
        "{hidden:?}"
    );
    assert_eq!(rows(dir.path()), before);
}
