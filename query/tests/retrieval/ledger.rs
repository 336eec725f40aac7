//! What the ledger says of a range: rows of any length, and seconds that are not over yet.

use crate::answers::steady;
use crate::support::{Packet, Spec, Store, T};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tapedeck_index::table::ledger::{LedgerCounts, LedgerRow, RowKind, to_batch};
use tapedeck_index::table::{LEDGER, list};
use tapedeck_packet::Timestamp;
use tapedeck_writer::{TableConfig, TableWriter};

const SECOND: u64 = 1_000_000_000;
const DAY: u64 = 86_400 * SECOND;

/// A row of seconds after [`T`].
fn row(kind: RowKind, number: u32, (from, to): (u64, u64), counts: LedgerCounts) -> LedgerRow {
    let at = |ns: u64| Timestamp::from_nanos(T + ns).unwrap();
    LedgerRow {
        ts: at(from),
        ts_end: at(to),
        kind,
        run: "0000abcd".to_owned(),
        interface: Some("eth1".to_owned()),
        queue: Some(0),
        mode: Some("copy".to_owned()),
        uid: format!("{}-{from}", kind.name()),
        number,
        counts: counts.settled(),
        ..LedgerRow::default()
    }
}

fn seconds(from: u64, count: u64) -> Vec<LedgerRow> {
    let row = |at: u64| {
        let number = u32::try_from(at % 1_000_000).unwrap();
        row(RowKind::Second, number, (at * SECOND, (at + 1) * SECOND), LedgerCounts::default())
    };
    (from..from + count).map(row).collect()
}

fn writer(store: &Path, run: u32) -> TableWriter {
    TableWriter::new(&LEDGER, TableConfig::new(store.to_owned(), "lab".into(), run)).unwrap()
}

fn append(writer: &mut TableWriter, rows: &[LedgerRow]) {
    writer.append(&to_batch(rows).unwrap(), Instant::now());
    writer.commit();
}

/// A gap: cause, packets, begin and end in nanoseconds after [`T`].
type Told = (String, Option<u64>, u64, u64);

/// Exit status and gaps.
fn told(store: &Store, from: u64, to: u64) -> (i32, Vec<Told>) {
    let time = |ns: u64| format!("{}.{:09}", (T + ns) / SECOND, (T + ns) % SECOND);
    let answer = store.taperead(&["packets", "--json", "--count", "--from", &time(from), "--to", &time(to)]);
    let verdict = answer.verdict();
    let ns = |text: &serde_json::Value| {
        let time: jiff::Timestamp = text.as_str().unwrap().parse().unwrap();
        u64::try_from(time.as_nanosecond()).unwrap() - T
    };
    let gaps = verdict["gaps"].as_array().unwrap().iter();
    let gaps = gaps.map(|gap| {
        let cause = gap["cause"].as_str().unwrap().to_owned();
        (cause, gap["packets"].as_u64(), ns(&gap["from"]), ns(&gap["to"]))
    });
    (answer.code, gaps.collect())
}

#[test]
fn an_outage_of_days_is_found_from_anywhere_inside_it() {
    let mut store = Store::new();
    store.segment(&Spec::default(), &steady(8));
    let mut table = writer(store.path(), 0xabcd);
    append(&mut table, &seconds(0, 8));
    let down = LedgerCounts { seen: 500, down: 500, ..LedgerCounts::default() };
    append(&mut table, &[row(RowKind::Down, 99, (8 * SECOND, 3 * DAY + SECOND / 2), down)]);
    append(&mut table, &seconds(3 * 86_400 + 1, 5));
    for sealed in [false, true] {
        let hour = DAY / 24;
        for from in [8 * SECOND, hour, DAY, 3 * DAY - hour, 3 * DAY] {
            let to = from + SECOND / 4;
            assert_eq!(
                told(&store, from, to),
                (3, vec![("down".to_owned(), Some(500), from, to)]),
                "{sealed} {from}"
            );
        }
        assert_eq!(told(&store, 0, 8 * SECOND), (0, vec![]));
        assert_eq!(told(&store, 3 * DAY + SECOND, 3 * DAY + 5 * SECOND), (1, vec![]));
        // All of it, but no more.
        let all = vec![("down".to_owned(), Some(500), 8 * SECOND, 3 * DAY + SECOND / 2)];
        assert_eq!(told(&store, 0, 9 * DAY), (3, all));
        if !sealed {
            table.finish();
            table = writer(store.path(), 0xabce);
        }
    }
}

#[test]
fn losses_of_the_newest_seconds_are_gaps_before_their_rows_are_final() {
    let mut store = Store::new();
    store.segment(&Spec { left: crate::support::Left::live(2), ..Spec::default() }, &steady(9));
    let mut table = writer(store.path(), 0xabcd);
    append(&mut table, &seconds(0, 3));
    let span = (3 * SECOND, 4 * SECOND);
    let counts = |ring_full, pending| LedgerCounts {
        seen: 9,
        ring_full,
        pending,
        stored: 9 - ring_full - pending,
        ..LedgerCounts::default()
    };
    let gap = |packets| vec![("ring_full".to_owned(), Some(packets), span.0, span.1)];
    let live = |number, counts| to_batch(&[row(RowKind::Second, number, span, counts)]).unwrap();
    assert_eq!(told(&store, span.0, span.1), (0, vec![]));
    table.append_live(&live(50, counts(2, 4)));
    table.commit();
    assert_eq!(told(&store, span.0, span.1), (3, gap(2)));
    // Not of another second.
    assert_eq!(told(&store, 0, span.0), (0, vec![]));
    table.append_live(&live(51, counts(5, 1)));
    table.commit();
    assert_eq!(told(&store, span.0, span.1), (3, gap(5)), "the newest word counts, once");
    append(&mut table, &[row(RowKind::Second, 52, span, counts(6, 0))]);
    assert_eq!(told(&store, span.0, span.1), (3, gap(6)), "the final row stands in its place");
    table.finish();
    assert_eq!(told(&store, span.0, span.1), (3, gap(6)));
}

/// Changes the byte at `at`, counted from the end where it is negative. The file was written to last `secs` after [`T`].
fn flip(path: &Path, at: isize, secs: u64) {
    let mut bytes = std::fs::read(path).unwrap();
    let at = if at < 0 { bytes.len().checked_add_signed(at).unwrap() } else { at.unsigned_abs() };
    bytes[at] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + Duration::from_nanos(T + secs * SECOND)).unwrap();
}

/// [`told`] of seconds.
fn told_of(store: &Store, from: u64, to: u64) -> (i32, Vec<Told>) {
    let (code, gaps) = told(store, from * SECOND, to * SECOND);
    (
        code,
        gaps.into_iter().map(|(cause, lost, from, to)| (cause, lost, from / SECOND, to / SECOND)).collect(),
    )
}

#[test]
fn a_live_journal_that_is_damaged_says_what_holds_and_the_rest_is_a_gap() {
    let torn = |from, to| ("corrupt_file".to_owned(), None, from, to);
    // Its last record, or its first: then nothing holds.
    for (at, holds) in [(-1, true), (20, false)] {
        let mut store = Store::new();
        store.segment(&Spec { left: crate::support::Left::live(2), ..Spec::default() }, &steady(9));
        let mut table = writer(store.path(), 0xabcd);
        append(&mut table, &seconds(0, 30));
        let span = (30 * SECOND, 31 * SECOND);
        for (number, ring_full) in [(50, 2), (51, 5)] {
            let counts =
                LedgerCounts { seen: 9, ring_full, pending: 9 - ring_full, ..LedgerCounts::default() };
            table.append_live(&to_batch(&[row(RowKind::Second, number, span, counts)]).unwrap());
            table.commit();
        }
        let listing = list(&LEDGER, &[store.path().to_owned()], Timestamp::ZERO, None).unwrap();
        flip(&listing.live[0].path, at, 40);
        let known = ("ring_full".to_owned(), Some(2), 30, 31);
        let known = if holds { vec![known] } else { vec![] };
        assert_eq!(told_of(&store, 30, 31), (3, [vec![torn(30, 31)], known].concat()), "{holds}");
        // Up to when it was written to last, and from where every second surely has its row.
        assert_eq!(told_of(&store, 40, 50), (3, vec![torn(40, 41)]), "{holds}");
        assert_eq!(told_of(&store, 41, 50), (1, vec![]), "{holds}");
        assert_eq!(told_of(&store, 14, 16), (3, vec![torn(15, 16)]), "{holds}");
        assert_eq!(told_of(&store, 0, 15).1, vec![], "{holds}");
    }
}

#[test]
fn a_journal_that_is_damaged_says_what_holds_and_the_rest_is_a_gap() {
    let torn = |from, to| ("corrupt_file".to_owned(), None, from, to);
    for (at, holds) in [(-1, true), (20, false)] {
        let mut store = Store::new();
        store.segment(&Spec::default(), &steady(9));
        let mut table = writer(store.path(), 0xabcd);
        let lost = LedgerCounts { seen: 7, shed: 7, ..LedgerCounts::default() };
        append(&mut table, &[row(RowKind::Second, 99, (0, SECOND), lost)]);
        append(&mut table, &seconds(1, 29));
        append(&mut table, &seconds(30, 5));
        let listing = list(&LEDGER, &[store.path().to_owned()], Timestamp::ZERO, None).unwrap();
        flip(&listing.files[0].path, at, 40);
        let known = ("shed".to_owned(), Some(7), 0, 1);
        let first = if holds { known } else { torn(0, 1) };
        assert_eq!(told_of(&store, 0, 1), (3, vec![first]), "{holds}");
        assert_eq!(told_of(&store, 33, 50), (3, vec![torn(33, 41)]), "{holds}");
    }
}

#[test]
fn what_is_recorded_is_vouched_for_as_far_as_the_ledger_knows_what_was_lost() {
    let mut store = Store::new();
    store.segment(&Spec { left: crate::support::Left::live(2), ..Spec::default() }, &steady(20));
    let answer = |store: &Store| {
        let verdict = store.taperead(&["packets", "--json", "--count"]).verdict();
        (verdict["matched"].clone(), verdict["range"]["to"].as_str().unwrap()[17..19].to_owned())
    };
    let mut table = writer(store.path(), 0xabce);
    append(&mut table, &seconds(0, 3));
    // The ledger of another run says nothing of this one.
    let without = answer(&store);
    assert_ne!(without.1, "05");
    let mut table = writer(store.path(), 0xabcd);
    append(&mut table, &seconds(0, 5));
    assert_eq!(answer(&store), (20.into(), "05".to_owned()), "all is found, not all is vouched for");
    let pending = LedgerCounts { seen: 1, pending: 1, ..LedgerCounts::default() };
    let live = row(RowKind::Second, 50, (5 * SECOND, 6 * SECOND), pending);
    table.append_live(&to_batch(&[live]).unwrap());
    table.commit();
    assert_eq!(answer(&store), (20.into(), "06".to_owned()));
}

#[test]
fn an_outage_in_which_nobody_counted_is_a_gap_of_an_unknown_number() {
    let mut store = Store::new();
    store.segment(&Spec::default(), &steady(8));
    let mut table = writer(store.path(), 0xabcd);
    append(&mut table, &seconds(0, 8));
    append(&mut table, &[row(RowKind::Down, 99, (8 * SECOND, 20 * SECOND), LedgerCounts::default())]);
    append(&mut table, &seconds(20, 5));
    for sealed in [false, true] {
        assert_eq!(told_of(&store, 0, 25), (3, vec![("down".to_owned(), None, 8, 20)]), "{sealed}");
        assert_eq!(told_of(&store, 0, 8), (0, vec![]), "{sealed}");
        if !sealed {
            table.finish();
            table = writer(store.path(), 0xabce);
        }
    }
}

/// Two queues with a packet a second for a minute, in segments of twenty seconds, and the rows that say so.
fn three_segments() -> (Store, TableWriter, [[PathBuf; 3]; 2]) {
    let mut store = Store::new();
    let mut table = writer(store.path(), 0xabcd);
    let paths = [0, 1].map(|queue| {
        let counts = LedgerCounts { seen: 1, stored: 1, ..LedgerCounts::default() };
        let of_second = |at: u64| {
            let row = row(RowKind::Second, 0, (at * SECOND, (at + 1) * SECOND), counts);
            LedgerRow { queue: Some(queue), uid: format!("{queue}-{at}"), ..row }
        };
        append(&mut table, &(0..60).map(of_second).collect::<Vec<_>>());
        let packets = steady(60);
        [0, 20, 40].map(|from| store.segment(&Spec { queue, ..Spec::default() }, &packets[from..from + 20]))
    });
    (store, table, paths)
}

fn delete(segment: &Path) {
    let name = segment.to_str().unwrap().replace(".pcapng.zst", ".idx");
    std::fs::remove_file(name).unwrap();
    std::fs::remove_file(segment).unwrap();
}

#[test]
fn a_segment_that_was_stored_and_is_gone_is_a_gap() {
    let vanished = |from, to| vec![("vanished".to_owned(), None, from, to)];
    let (store, mut table, [one, _]) = three_segments();
    assert_eq!(told_of(&store, 0, 60), (0, vec![]));
    // A part of a second in which no packet is.
    let quiet = (10 * SECOND + SECOND / 4, 10 * SECOND + SECOND / 2);
    assert_eq!(told(&store, quiet.0, quiet.1), (1, vec![]));
    delete(&one[1]);
    // Rows are of whole seconds: what could be of the next segment is not called gone.
    assert_eq!(told_of(&store, 0, 60), (3, vanished(22, 38)));
    assert_eq!(told_of(&store, 25, 30), (3, vanished(25, 30)), "the other queue has packets there");
    assert_eq!((told_of(&store, 0, 20), told_of(&store, 40, 60)), ((0, vec![]), (0, vec![])));
    // The rows of one that is taken over by a correction are told there.
    let counts = LedgerCounts { stored: -20, write_error: 20, ..LedgerCounts::default() };
    append(&mut table, &[row(RowKind::Correction, 999, (20 * SECOND, 40 * SECOND), counts)]);
    assert_eq!(told_of(&store, 0, 60), (3, vec![("write_error".to_owned(), Some(20), 20, 40)]));
}

#[test]
fn a_segment_that_a_pack_excludes_is_there_until_it_is_deleted() {
    let (store, table, [one, _]) = three_segments();
    table.finish();
    crate::packs::pack_all(store.path());
    let absent = || store.taperead(&["packets", "host 192.0.2.9", "--json"]);
    let explained = store.taperead(&["packets", "host 192.0.2.9", "--explain"]);
    assert!(explained.text().contains("6 without a match by 1 packs"), "{}", explained.text());
    let answer = absent();
    assert_eq!(
        (answer.code, answer.verdict()["gaps"].as_array().unwrap().len()),
        (1, 0),
        "{}",
        answer.stderr
    );
    delete(&one[1]);
    let answer = absent();
    assert_eq!((answer.code, &answer.verdict()["gaps"][0]["cause"]), (3, &"vanished".into()));
}

#[test]
fn what_is_older_than_every_segment_is_not_retained_and_not_watched() {
    let begin = |store: &Store, from: &str| {
        let answer = store.taperead(&["packets", "--json", "--count", "--from", from]);
        let verdict = answer.verdict();
        (answer.code, verdict["range"]["from"].clone(), verdict["coverage"][0]["from"].clone())
    };
    let at = |text: &str| serde_json::Value::from(format!("2026-11-21T18:00:{text}.000000000Z"));
    let from = format!("{}", T / SECOND);
    let (store, table, [one, other]) = three_segments();
    table.finish();
    assert_eq!(begin(&store, &from), (0, at("00"), at("00")));
    delete(&one[0]);
    delete(&other[0]);
    assert_eq!(begin(&store, &from), (0, at("20"), at("20")));
    assert_eq!(begin(&store, "1970-01-01"), (0, at("20"), at("20")));
    // One queue's is gone further than the other's.
    delete(&one[1]);
    assert_eq!(told_of(&store, 0, 60), (3, vec![("vanished".to_owned(), None, 20, 38)]));
    // Nothing at all is left.
    [&one[2], &other[1], &other[2]].into_iter().for_each(|segment| delete(segment));
    assert_eq!(told_of(&store, 0, 60), (3, vec![("vanished".to_owned(), None, 0, 60)]));
}

#[test]
fn without_a_begin_the_ledger_is_asked_from_the_day_of_the_first_packet_on() {
    let lost = LedgerCounts { seen: 7, shed: 7, ..LedgerCounts::default() };
    let of_second = |at: u64| row(RowKind::Second, 0, (at * SECOND, (at + 1) * SECOND), lost);
    let shed = |at: u64| ("shed".to_owned(), Some(7), at * SECOND, (at + 1) * SECOND);
    // Packets of the third day; something was lost on the first one, and an hour before them.
    let (first, third) = (100, 2 * 86_400);
    let rows = [of_second(first), of_second(third - 3600)];
    let later = steady(8).into_iter().map(|p| Packet { ts: p.ts + third * SECOND, ..p });
    let later = later.collect::<Vec<_>>();
    let (mut store, empty) = (Store::new(), Store::new());
    for store in [&store, &empty] {
        let mut table = writer(store.path(), 0xabcd);
        append(&mut table, &rows);
        table.finish();
    }
    store.segment(&Spec::default(), &later);
    let all = |store: &Store| {
        let verdict = store.taperead(&["packets", "--json", "--count"]).verdict();
        let causes = verdict["gaps"].as_array().unwrap().len();
        (causes, verdict["range"]["from"].clone())
    };
    assert_eq!(all(&store), (1, "2026-11-23T17:00:00.000000000Z".into()));
    // Who names the begin is told all.
    assert_eq!(told(&store, first * SECOND, third * SECOND), (3, vec![shed(first), shed(third - 3600)]));
    // Also who names the epoch.
    let epoch = store.taperead(&["packets", "--json", "--count", "--from", "1970-01-01"]).verdict();
    assert_eq!(epoch["gaps"].as_array().unwrap().len(), 2, "{epoch}");
    // There the ledger is everything.
    assert_eq!(all(&empty), (2, "2026-11-21T18:01:40.000000000Z".into()));
}

mod soak {
    //! What the ledger costs a question, in a store of thirty days.

    use super::*;

    /// Thirty days, a file for each five minutes of two queues; in one second of a hundred something was lost in
    /// every hundredth file, and one outage of three days.
    #[test]
    fn a_question_about_minutes_does_not_read_thirty_days() {
        const FILES: u64 = 30 * 24 * 12;
        let mut store = Store::new();
        let (mut number, mut files, mut bytes) = (0, 0, 0);
        let mut end = |table: TableWriter| {
            let counts = table.finish();
            assert_eq!((counts.rows_lost, counts.rows_held), (0, 0));
            (files, bytes) = (files + counts.files, bytes + counts.bytes);
        };
        let mut table = writer(store.path(), 0);
        for file in 0..FILES {
            if file > 0 && file % 288 == 0 {
                end(std::mem::replace(&mut table, writer(store.path(), u32::try_from(file).unwrap())));
            }
            let mut rows = Vec::new();
            for second in file * 300..(file + 1) * 300 {
                for queue in 0..2 {
                    let lost = i64::from(file % 100 == 7 && second % 100 == 3);
                    let counts = LedgerCounts {
                        seen: 150_000 + i64::try_from(second % 977).unwrap(),
                        seen_bytes: 120_000_000,
                        stored: 150_000 + i64::try_from(second % 977).unwrap() - lost,
                        ring_full: lost,
                        ..LedgerCounts::default()
                    };
                    let span = (second * SECOND, (second + 1) * SECOND);
                    let queue = Some(queue);
                    rows.push(LedgerRow { queue, ..row(RowKind::Second, number, span, counts) });
                    number += 1;
                }
            }
            append(&mut table, &rows);
        }
        let outage = (20 * DAY, 23 * DAY);
        append(&mut table, &[row(RowKind::Down, number, outage, LedgerCounts::default())]);
        end(table);
        println!("{files} files, {bytes} bytes");
        let time = |ns: u64| format!("{}", (T + ns) / SECOND);
        let minute = [time(10 * DAY), time(10 * DAY + 60 * SECOND)];
        let hour = [time(29 * DAY), time(29 * DAY + DAY / 24)];
        let questions: [(&str, Vec<&str>); 4] = [
            ("a minute twenty days ago", vec!["--from", &minute[0], "--to", &minute[1]]),
            ("an hour of the last day", vec!["--from", &hour[0], "--to", &hour[1]]),
            ("from the last day on", vec!["--from", &hour[0]]),
            ("all", vec![]),
        ];
        let ask = |store: &Store, name: &str, range: &[&str]| {
            for _ in 0..3 {
                let answer = store.taperead(&[&["packets", "--json", "--count"], range].concat());
                let verdict = answer.verdict();
                let gaps = verdict["gaps"].as_array().unwrap().len();
                println!("{name}: {} ms, {gaps} gaps, exit {}", verdict["elapsed_ms"], answer.code);
            }
        };
        questions.iter().for_each(|(name, range)| ask(&store, name, range));
        let last = steady(8).into_iter().map(|p| Packet { ts: p.ts + 29 * DAY + DAY / 2, ..p });
        store.segment(&Spec::default(), &last.collect::<Vec<_>>());
        ask(&store, "all, where packets are kept for a day", &[]);
    }
}
