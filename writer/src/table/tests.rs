//! A small kind of table, written, killed, recovered, and read by what shares no code with the writer.

use super::recover::recover_kind;
use super::*;
use crate::recover::RecoverReport;
use arrow_array::cast::AsArray as _;
use arrow_array::types::UInt32Type;
use arrow_array::{StringArray, TimestampNanosecondArray, UInt32Array};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use tapedeck_index::table::journal::Replay;
use tapedeck_index::table::live::{LiveReplay, without_replaced};
use tapedeck_index::table::{Column, ColumnType, Listing, LiveKey, State, list, slot_hour};
use tapedeck_packet::Timestamp;

static SMALL: Kind = Kind {
    name: "small",
    doc: "A row of a test.",
    columns: &[
        Column::new("ts", ColumnType::Time, "First time."),
        Column::new("ts_last", ColumnType::Time, "Last time."),
        Column::new("uid", ColumnType::Text, "What it is about."),
        Column::new("number", ColumnType::U32, "Which row of it."),
    ],
    start: "ts",
    end: "ts_last",
    sort: &["ts", "ts_last"],
    bloom: &["uid"],
    span_nanos: 300_000_000_000,
    long: false,
    live: Some(LiveKey { key: "uid", number: "number" }),
};

/// 2026-11-21T18:00:00Z.
const T18: i64 = 1_795_284_000 * 1_000_000_000;
const SEC: i64 = 1_000_000_000;

/// Rows (ts = ts_last, uid, number).
fn batch(rows: &[(i64, u32, u32)]) -> RecordBatch {
    let time =
        Arc::new(TimestampNanosecondArray::from_iter_values(rows.iter().map(|r| r.0)).with_timezone("UTC"));
    let uid = StringArray::from_iter_values(rows.iter().map(|r| format!("C{}", r.1)));
    let number = UInt32Array::from_iter_values(rows.iter().map(|r| r.2));
    RecordBatch::try_new(SMALL.schema(), vec![time.clone(), time, Arc::new(uid), Arc::new(number)]).unwrap()
}

fn config(store: &Path) -> TableConfig {
    TableConfig::new(store.to_owned(), "lab".into(), 0xabc)
}

fn writer(store: &Path) -> TableWriter {
    TableWriter::new(&SMALL, config(store)).unwrap()
}

fn listing(store: &Path) -> Listing {
    list(&SMALL, &[store.to_owned()], Timestamp::ZERO, None).unwrap()
}

fn parquet(path: &Path) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(path).unwrap()).unwrap();
    reader.build().unwrap().map(Result::unwrap).collect()
}

/// The (uid, number) of some batches.
fn keys<'a>(batches: impl IntoIterator<Item = &'a RecordBatch>) -> Keys {
    let mut keys = Vec::new();
    for batch in batches {
        let uids = batch.column(2).as_string::<i32>().iter().flatten().map(str::to_owned);
        keys.extend(uids.zip(batch.column(3).as_primitive::<UInt32Type>().values().iter().copied()));
    }
    keys.sort();
    keys
}

/// (uid, number) of rows, sorted.
type Keys = Vec<(String, u32)>;

/// All rows of the table as a reader sees them: sealed and open, and live.
fn read(store: &Path) -> (Keys, Keys) {
    let listing = listing(store);
    let mut table = Vec::new();
    for found in &listing.files {
        match found.state {
            State::Sealed => table.extend(parquet(&found.path)),
            State::Open => table.extend(Replay::read(&std::fs::read(&found.path).unwrap()).unwrap().batches),
        }
    }
    let mut live = Vec::new();
    for found in &listing.live {
        let rows = LiveReplay::read(&SMALL, &std::fs::read(&found.path).unwrap()).unwrap().rows;
        live.push(without_replaced(SMALL.live.unwrap(), &rows, table.iter()).unwrap());
    }
    (keys(&table), keys(&live))
}

fn recover(store: &Path) -> (RecoverReport, Vec<PathBuf>) {
    let (mut report, mut busy) = (RecoverReport::default(), Vec::new());
    recover_kind(&SMALL, store, &mut report, &mut busy);
    (report, busy)
}

fn key(uid: u32, number: u32) -> (String, u32) {
    (format!("C{uid}"), number)
}

#[test]
fn committed_rows_are_seen_and_sealed_ones_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, now) = (writer(dir.path()), Instant::now());
    writer.append(&batch(&[(T18, 1, 0), (T18 + 300 * SEC, 2, 0), (T18 + 1, 3, 0)]), now);
    assert_eq!(listing(dir.path()).files, []);
    writer.commit();
    writer.sync();
    let all = vec![key(1, 0), key(2, 0), key(3, 0)];
    assert_eq!(read(dir.path()).0, all);
    assert!(listing(dir.path()).files.iter().all(|found| found.state == State::Open));
    writer.tick(now + FILE_AGE);
    writer.commit();
    let counts = writer.finish();
    assert_eq!((counts.rows, counts.rows_sealed, counts.rows_held, counts.files), (3, 3, 0, 2));
    assert_eq!((counts.rows_lost, counts.write_errors), (0, 0), "{counts:?}");
    assert_eq!(read(dir.path()).0, all);
    let files = listing(dir.path()).files;
    assert!(files.iter().all(|found| found.state == State::Sealed));
    for found in &files {
        let slot = tapedeck_index::table::slot(found.name.t1);
        assert_eq!(found.hour, slot_hour(slot));
    }
    let bytes: u64 = files.iter().map(|found| std::fs::metadata(&found.path).unwrap().len()).sum();
    assert_eq!(bytes, counts.bytes);
}

#[test]
fn the_largest_file_is_sealed_when_memory_is_full_and_the_oldest_when_there_are_too_many() {
    let dir = tempfile::tempdir().unwrap();
    let config = TableConfig { file_rows: 10, ..config(dir.path()) };
    let (mut writer, now) = (TableWriter::new(&SMALL, config).unwrap(), Instant::now());
    writer.append(&batch(&[(T18, 0, 0), (T18 + 300 * SEC, 1, 0)]), now);
    let rows: Vec<_> = (2..11).map(|uid| (T18 + 1, uid, 0)).collect();
    writer.append(&batch(&rows), now);
    assert_eq!(writer.open.iter().map(|table| table.rows()).collect::<Vec<_>>(), [1]);
    for slot in 2..12 {
        writer.append(
            &batch(&[(T18 + slot * 300 * SEC, 11, 0)]),
            now + Duration::from_nanos(u64::try_from(slot).unwrap()),
        );
        writer.commit();
    }
    assert!(writer.open.len() <= OPEN_FILES);
    let counts = writer.finish();
    assert_eq!((counts.rows_sealed, counts.rows_lost), (21, 0));
    assert_eq!(read(dir.path()).0.len(), 21);
}

#[test]
fn live_rows_stand_until_the_table_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, now) = (writer(dir.path()), Instant::now());
    writer.append_live(&batch(&[(T18, 1, 0), (T18, 2, 0)]));
    writer.commit();
    assert_eq!(read(dir.path()), (vec![], vec![key(1, 0), key(2, 0)]));
    writer.append(&batch(&[(T18, 1, 0)]), now);
    writer.append_live(&batch(&[(T18 + 5, 1, 1), (T18 + 5, 2, 0)]));
    writer.commit();
    assert_eq!(read(dir.path()), (vec![key(1, 0)], vec![key(1, 1), key(2, 0)]));
    writer.append(&batch(&[(T18 + 9, 1, 1), (T18 + 9, 2, 0)]), now);
    let counts = writer.finish();
    assert_eq!((counts.rows_sealed, counts.write_errors), (3, 0));
    assert_eq!(read(dir.path()), (vec![key(1, 0), key(1, 1), key(2, 0)], vec![]));
    assert_eq!(listing(dir.path()).live, []);
}

#[test]
fn a_live_journal_is_made_anew_when_it_has_grown() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(dir.path());
    let rows: Vec<_> = (0..5000).map(|uid| (T18, uid, 0)).collect();
    let mut largest = 0;
    for round in 0..200 {
        let rows: Vec<_> = rows.iter().map(|r| (r.0 + round, r.1, 0)).collect();
        writer.append_live(&batch(&rows));
        writer.commit();
        largest = largest.max(std::fs::metadata(&listing(dir.path()).live[0].path).unwrap().len());
    }
    assert!(largest < 12 << 20, "{largest}");
    assert_eq!(read(dir.path()).1.len(), 5000);
    // Its lock moved with it.
    assert_eq!(recover(dir.path()).1.len(), 1);
}

#[test]
fn what_a_disk_refuses_is_held_tried_again_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    // A file where the folder should be: nothing can be made below it.
    let blocked = dir.path().join("small");
    std::fs::write(&blocked, "").unwrap();
    let (mut writer, now) = (
        TableWriter::new(&SMALL, TableConfig { held_rows: 3, ..config(dir.path()) }).unwrap(),
        Instant::now(),
    );
    writer.append(&batch(&[(T18, 1, 0), (T18, 2, 0)]), now);
    writer.append_live(&batch(&[(T18, 9, 0)]));
    writer.commit();
    let counts = writer.counts();
    assert_eq!((counts.rows_held, counts.rows_lost, counts.write_errors), (2, 0, 1));
    assert!(counts.last_error.unwrap().contains("small"));
    // No room in memory: counted, and the books hold.
    writer.append(&batch(&[(T18, 3, 0), (T18, 4, 0)]), now);
    assert_eq!(writer.counts().rows_lost, 2);
    std::fs::remove_file(&blocked).unwrap();
    writer.commit();
    assert_eq!(read(dir.path()), (vec![key(1, 0), key(2, 0)], vec![key(9, 0)]));
    let counts = writer.finish();
    assert_eq!((counts.rows, counts.rows_sealed, counts.rows_held, counts.rows_lost), (4, 2, 0, 2));
}

#[test]
fn a_table_that_cannot_be_sealed_stays_in_its_journal() {
    let dir = tempfile::tempdir().unwrap();
    let (mut writer, now) = (writer(dir.path()), Instant::now());
    writer.append(&batch(&[(T18, 1, 0)]), now);
    writer.commit();
    // A folder at the hidden name: the file cannot be created.
    let journal = listing(dir.path()).files.remove(0).path;
    let hidden = PathBuf::from(journal.to_str().unwrap().replace(".journal", ".parquet"));
    std::fs::create_dir(&hidden).unwrap();
    let counts = writer.finish();
    assert_eq!((counts.rows_sealed, counts.rows_held, counts.rows_lost), (0, 1, 0));
    assert!(counts.write_errors >= 1);
    assert_eq!(read(dir.path()).0, [key(1, 0)]);
    std::fs::remove_dir(&hidden).unwrap();
    let (report, _) = recover(dir.path());
    assert_eq!((report.tables[0].rows, report.errors.len()), (1, 0));
    assert_eq!(read(dir.path()).0, [key(1, 0)]);
}

#[test]
fn recovery_at_every_point_of_a_seal_gives_each_row_once() {
    let make = || {
        let dir = tempfile::tempdir().unwrap();
        let mut writer = writer(dir.path());
        writer.append(&batch(&[(T18 + 7, 1, 0), (T18, 2, 0)]), Instant::now());
        writer.append_live(&batch(&[(T18 + 8, 1, 0), (T18 + 8, 3, 0), (T18 + 900 * SEC, 4, 1)]));
        writer.commit();
        // As if killed: no seal, and the locks go with the files.
        writer.open.clear();
        writer.live = None;
        dir
    };
    let all = vec![key(1, 0), key(2, 0), key(3, 0), key(4, 1)];
    let check = |dir: &Path| {
        let (report, busy) = recover(dir);
        assert!(report.errors.is_empty() && busy.is_empty(), "{report:?} {busy:?}");
        assert_eq!(read(dir), (all.clone(), vec![]));
        let (again, _) = recover(dir);
        assert!(again.tables.is_empty() && again.removed.is_empty(), "{again:?}");
    };
    let dir = make();
    let journal = listing(dir.path()).files.remove(0).path;
    let live = listing(dir.path()).live.remove(0).path;
    let (journal_bytes, live_bytes) = (std::fs::read(&journal).unwrap(), std::fs::read(&live).unwrap());
    check(dir.path());

    // Killed before any of the removals: journals are back beside the files.
    std::fs::write(&journal, &journal_bytes).unwrap();
    std::fs::write(&live, &live_bytes).unwrap();
    check(dir.path());
    std::fs::write(&journal, &journal_bytes).unwrap();
    check(dir.path());
    // Killed while a Parquet file was being written, or a journal made.
    let dir = make();
    let journal = listing(dir.path()).files.remove(0).path;
    std::fs::write(journal.to_str().unwrap().replace(".journal", ".parquet"), "PAR1 torn").unwrap();
    std::fs::write(journal.with_extension("new"), "torn").unwrap();
    check(dir.path());
    let left = listing(dir.path());
    assert_eq!(left.foreign, Vec::<PathBuf>::new());
    assert_eq!(
        std::fs::read_dir(journal.parent().unwrap()).unwrap().count(),
        left.files.iter().filter(|f| f.path.parent() == journal.parent()).count()
    );
}

#[test]
fn a_live_journal_that_lost_its_end_brings_no_row_back_that_is_sealed() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer =
        TableWriter::new(&SMALL, TableConfig { file_age: Duration::ZERO, ..config(dir.path()) }).unwrap();
    writer.append_live(&batch(&[(T18, 1, 0), (T18, 2, 0)]));
    writer.commit();
    let now = Instant::now();
    writer.append(&batch(&[(T18, 1, 1)]), now);
    writer.commit();
    while writer.counts().files == 0 {
        writer.tick(now);
    }
    drop(writer);
    // Its last record says that the row of 1 is in the table.
    let live = listing(dir.path()).live.remove(0).path;
    let mut bytes = std::fs::read(&live).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&live, bytes).unwrap();
    let (report, _) = recover(dir.path());
    assert_eq!(report.tables[0].state, crate::recover::JournalState::Damaged);
    assert_eq!(read(dir.path()), (vec![key(1, 1), key(2, 0)], vec![]));
}

#[test]
fn a_journal_of_another_version_is_named_and_left() {
    let dir = tempfile::tempdir().unwrap();
    let mut writer = writer(dir.path());
    writer.append(&batch(&[(T18, 1, 0)]), Instant::now());
    writer.commit();
    writer.open.clear();
    let journal = listing(dir.path()).files.remove(0).path;
    std::fs::write(&journal, "no journal at all, but some bytes of something else").unwrap();
    let (report, _) = recover(dir.path());
    assert!(report.errors[0].to_string().contains(journal.file_name().unwrap().to_str().unwrap()));
    assert!(journal.exists());
}

/// Tells this test binary to be the writer.
const STORE: &str = "TAPEDECK_TEST_TABLE_STORE";

/// Not a test by itself: the writer, when [`nothing_committed_is_lost_or_doubled_by_kill_9`] starts it.
/// Each round opens a session, ends an older one, commits, and says so.
#[test]
fn table_process() {
    let Ok(store) = std::env::var(STORE) else { return };
    let age = Duration::from_millis(40);
    let config = TableConfig { file_age: age, file_rows: 300, ..config(Path::new(&store)) };
    let mut writer = TableWriter::new(&SMALL, config).unwrap();
    let mut out = std::io::stdout();
    for round in 0u32.. {
        let now = Instant::now();
        writer.append_live(&batch(&[(T18 + i64::from(round), round, 0)]));
        if let Some(ended) = round.checked_sub(50) {
            writer.append(&batch(&[(T18 + i64::from(round) * SEC, ended, 0)]), now);
        }
        writer.commit();
        writer.tick(now);
        if writeln!(out, "round {round}").and_then(|()| out.flush()).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_micros(300));
    }
}

#[test]
fn nothing_committed_is_lost_or_doubled_by_kill_9() {
    let seed = u64::from(std::process::id());
    for round in 1..=8u64 {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "table::tests::table_process", "--nocapture"])
            .env(STORE, dir.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let parse = |line: &str| line.split("round ").last().and_then(|n| n.parse::<u32>().ok());
        let life = Duration::from_millis(50 + seed.wrapping_mul(round * 7919) % 700);
        let mut said = Vec::new();
        let mut until = None;
        while let Some(Ok(line)) = lines.next() {
            said.extend(parse(&line));
            if Instant::now() >= *until.get_or_insert_with(|| Instant::now() + life) {
                break;
            }
        }
        child.kill().unwrap();
        child.wait().unwrap();
        said.extend(lines.map_while(Result::ok).filter_map(|line| parse(&line)));
        let last = *said.last().unwrap();

        let (report, busy) = recover(dir.path());
        assert!(report.errors.is_empty() && busy.is_empty(), "{report:?} {busy:?} (seed {seed})");
        let (table, live) = read(dir.path());
        assert_eq!(live, []);
        let mut times: BTreeMap<String, u32> = BTreeMap::new();
        for (uid, _) in table {
            *times.entry(uid).or_default() += 1;
        }
        assert!(times.values().all(|n| *n == 1), "a row twice (seed {seed}, round {round})");
        for uid in 0..=last {
            assert!(
                times.contains_key(&format!("C{uid}")),
                "C{uid} of {last} lost (seed {seed}, round {round})"
            );
        }
    }
}
