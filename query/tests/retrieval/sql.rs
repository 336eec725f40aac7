//! `taperead sql`: the tables of a store in SQL.

use crate::support::records::{LeftTable, SEC, long, named, record, write};
use crate::support::{Store, files};
use tapedeck_session::{Record, RecordKind};

fn sql(store: &Store, query: &str) -> crate::support::Answer {
    store.taperead(&["sql", query, "--format", "json"])
}

/// Sessions of three hours, one each second of the first minute, sealed.
fn hours(store: &Store) {
    let records: Vec<Record> = (0..3u64)
        .flat_map(|hour| (0..60).map(move |n| record(hour * 60 + n, hour * 3600 * SEC + n * SEC, 1, 9)))
        .collect();
    write(store.path(), 1, &records, LeftTable::Sealed);
}

#[test]
fn rows_of_files_journals_and_live_journals_are_one_table() {
    let store = Store::new();
    hours(&store);
    let open = Record { kind: RecordKind::Open, ..record(900, 70 * SEC, 3, 9) };
    let records = [open, record(901, 71 * SEC, 2, 9), named(record(902, 72 * SEC, 2, 9), "x.example")];
    write(store.path(), 2, &records, LeftTable::Open);
    let answer = sql(
        &store,
        "SELECT record_type, count(*) AS n, count(DISTINCT uid) AS u, max(as_of) AS a FROM sessions GROUP BY 1 ORDER BY 1",
    );
    assert_eq!(
        answer.text(),
        "{\"record_type\":\"final\",\"n\":182,\"u\":182}\n{\"record_type\":\"open\",\"n\":1,\"u\":1,\"a\":\"2026-11-21T18:00:07Z\"}\n",
        "{}",
        answer.stderr
    );
    assert_eq!(answer.code, 0);
    let answer = sql(&store, "SELECT uid FROM sessions WHERE sni = 'x.example'");
    assert_eq!((answer.text().lines().count(), answer.code), (1, 0));
    assert_eq!(sql(&store, "SELECT uid FROM sessions WHERE sni = 'y.example'").code, 1);
}

#[test]
fn times_prune_files_and_row_groups() {
    let store = Store::new();
    hours(&store);
    let all = files(store.path(), ".parquet");
    assert_eq!(all.len(), 3);
    let files_in = |query: &str| {
        let plan = store.taperead(&["sql", &format!("EXPLAIN {query}"), "--format", "csv"]);
        assert_eq!(plan.code, 0, "{}", plan.stderr);
        let named =
            |path: &&std::path::PathBuf| plan.text().contains(path.file_name().unwrap().to_str().unwrap());
        all.iter().filter(named).count()
    };
    assert_eq!(files_in("SELECT uid FROM sessions"), 3);
    assert_eq!(files_in("SELECT uid FROM sessions WHERE ts_last >= '2026-11-21T19:00:00Z'"), 2);
    assert_eq!(files_in("SELECT uid FROM sessions WHERE ts >= '2026-11-21T20:00:00Z'"), 1);
    assert_eq!(
        files_in(
            "SELECT uid FROM sessions WHERE ts_last BETWEEN '2026-11-21T19:00:00Z' AND '2026-11-21T19:30:00Z'"
        ),
        1
    );
    assert_eq!(
        files_in("SELECT uid FROM sessions WHERE ts_interval < '2026-11-21T18:30:00Z' AND proto = 6"),
        1
    );
    // Not a bound: either side may hold.
    assert_eq!(files_in("SELECT uid FROM sessions WHERE ts_last >= '2026-11-21T20:00:00Z' OR proto = 6"), 3);
    let count = |query: &str| sql(&store, query).text().to_owned();
    assert_eq!(
        count("SELECT count(*) AS n FROM sessions WHERE ts_last >= '2026-11-21T19:00:00Z'"),
        "{\"n\":120}\n"
    );
}

#[test]
fn a_bloom_filter_skips_the_row_groups_of_another_address() {
    let store = Store::new();
    hours(&store);
    // Between the smallest and the largest address of the file, so statistics do not exclude it.
    write(store.path(), 2, &[record(500, 0, 1, 9), record(501, 0, 200, 9)], LeftTable::Sealed);
    let analyze = |address: &str| {
        let query = format!("EXPLAIN ANALYZE SELECT uid FROM sessions WHERE src_ip = '{address}'");
        store.taperead(&["sql", &query, "--format", "csv"]).text().to_owned()
    };
    let plan = analyze("10.0.0.150");
    let pruned = plan.split("row_groups_pruned_bloom_filter=").nth(1).unwrap();
    assert!(!pruned.starts_with('0'), "{plan}");
}

#[test]
fn a_long_session_is_one_row_by_its_last_record() {
    let store = Store::new();
    write(store.path(), 1, &long(4, 10 * SEC, 4, 8), LeftTable::Sealed);
    let answer = sql(
        &store,
        "SELECT sum(orig_pkts) AS deltas, max(orig_pkts_total) AS total, count(*) AS records FROM sessions GROUP BY uid",
    );
    assert_eq!(answer.text(), "{\"deltas\":30,\"total\":30,\"records\":3}\n");
    let refs = sql(
        &store,
        "SELECT r['segment'] AS s FROM (SELECT unnest(packet_refs) AS r FROM sessions) ORDER BY s",
    );
    assert_eq!(refs.text(), "{\"s\":0}\n{\"s\":1}\n{\"s\":2}\n", "{}", refs.stderr);
}

#[test]
fn only_reading_is_answered_and_errors_help() {
    let store = Store::new();
    hours(&store);
    let before = files(store.path(), "");
    let target = store.path().join("x.parquet");
    let copy = format!("COPY sessions TO '{}'", target.display());
    for (query, word) in [
        ("CREATE TABLE t AS SELECT 1", "SELECT"),
        ("DROP TABLE sessions", "SELECT"),
        ("INSERT INTO sessions SELECT * FROM sessions", "SELECT"),
        ("SET datafusion.execution.batch_size = 1", "SELECT"),
        (copy.as_str(), "SELECT"),
        ("SELECT scr_ip FROM sessions", "`src_ip`"),
        ("SELECT 1 FROM session", "sessions"),
        ("SELEC 1", "docs/sql.md"),
        ("SELECT * FROM '/etc/passwd'", "sessions"),
    ] {
        let answer = store.taperead(&["sql", query]);
        assert_eq!((answer.code, answer.text()), (2, ""), "{query}");
        assert!(answer.stderr.contains(word), "{query}: {}", answer.stderr);
        assert!(answer.stderr.starts_with("error: "), "{}", answer.stderr);
    }
    assert_eq!(files(store.path(), ""), before);
}

#[test]
fn a_file_without_a_footer_is_named_and_the_rest_is_answered() {
    let store = Store::new();
    hours(&store);
    let bad = &files(store.path(), ".parquet")[0];
    let bytes = std::fs::read(bad).unwrap();
    std::fs::write(bad, &bytes[..bytes.len() - 100]).unwrap();
    let answer = sql(&store, "SELECT count(*) AS n FROM sessions");
    assert_eq!((answer.text(), answer.code), ("{\"n\":120}\n", 3));
    assert!(answer.stderr.contains(bad.file_name().unwrap().to_str().unwrap()), "{}", answer.stderr);
}

#[test]
fn every_form_of_an_answer_says_the_same() {
    let store = Store::new();
    write(store.path(), 1, &[named(record(1, 0, 1, 9), "www.example.org")], LeftTable::Sealed);
    let query = "SELECT ts, src_ip, sni, src_ip16 FROM sessions";
    let form = |format: &str| store.taperead(&["sql", query, "--format", format]);
    let json = form("json");
    let row: serde_json::Value = serde_json::from_str(json.text()).unwrap();
    assert_eq!(row["ts"], "2026-11-21T18:00:00Z");
    assert_eq!(row["src_ip16"], "00000000000000000000ffff0a000001");
    let table = form("table");
    assert!(table.text().contains("| 10.0.0.1 | www.example.org |"), "{}", table.text());
    let csv = store.taperead(&["sql", "SELECT src_ip, sni FROM sessions", "--format", "csv"]);
    assert_eq!(csv.text(), "src_ip,sni\n10.0.0.1,www.example.org\n");
    let parquet = form("parquet").stdout;
    assert!(parquet.starts_with(b"PAR1") && parquet.ends_with(b"PAR1"));
}
