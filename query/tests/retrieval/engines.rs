//! The tables in engines that nobody here wrote: DuckDB and PyArrow read what the recorder's writer wrote.
//!
//! `cargo xtask test` installs them into target/python; without them this prints SKIPPED.

use crate::support::records::{LeftTable, SEC, named, record, write};
use crate::support::{Store, files};
use std::path::{Path, PathBuf};
use std::process::Command;
use tapedeck_session::Record;

/// The interpreter with the engines; `None` where it is not installed.
#[expect(clippy::print_stdout, reason = "what is skipped is said")]
fn python() -> Option<PathBuf> {
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/python/bin/python3");
    let there = python.is_file();
    if !there {
        println!("SKIPPED 1 reading of tables by DuckDB and PyArrow: target/python is not there");
    }
    there.then_some(python)
}

/// Output of a script, with the store as its argument.
fn run(python: &Path, script: &str, store: &Store) -> String {
    let output = Command::new(python).args(["-c", script]).arg(store.path()).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Enough rows of three hours for several row groups in the first.
fn store() -> (Store, Vec<Record>) {
    let store = Store::new();
    let record_of = |n: u64| {
        let mut record = record(n, n * SEC / 1000, u8::try_from(n % 200).unwrap(), 9);
        if n % 2 == 1 {
            record = named(record, &format!("host{n}.example.org"));
        }
        record
    };
    let mut records: Vec<Record> = (0..200_000).map(record_of).collect();
    records.extend((1..3u64).map(|hour| record(300_000 + hour, hour * 3600 * SEC, 250, 251)));
    write(store.path(), 1, &records, LeftTable::Sealed);
    (store, records)
}

const READ: &str = r#"
import duckdb, pyarrow.dataset, pyarrow.parquet, sys, json, glob
store = sys.argv[1]
files = f"{store}/sessions/*/*/*.parquet"
duck = duckdb.connect()
duck.execute("SET TimeZone = 'UTC'")
row = duck.execute(f"""SELECT count(*), count(DISTINCT uid), sum(orig_pkts), sum(resp_ip_bytes), count(sni),
    epoch_ns(min(ts)), epoch_ns(max(ts_last)), min(dt), max(hr::int), min(src_ip), max(octet_length(src_ip16))
    FROM read_parquet('{files}', hive_partitioning = true)""").fetchone()
print(json.dumps([str(v) for v in row]))
data = pyarrow.dataset.dataset(f"{store}/sessions", partitioning="hive", format="parquet")
table = data.to_table(columns=["uid", "orig_pkts", "resp_ip_bytes", "sni", "ts"])
print(table.num_rows, len(set(table["uid"].to_pylist())), sum(table["orig_pkts"].to_pylist()),
    sum(v is not None for v in table["sni"].to_pylist()), table.schema.field("ts").type)
some = pyarrow.parquet.read_schema(glob.glob(files)[0])
print(some.field("orig_ip_bytes").metadata[b"doc"].decode())
"#;

#[test]
fn duckdb_and_pyarrow_read_the_same_values() {
    let Some(python) = python() else { return };
    let (store, records) = store();
    let out = run(&python, READ, &store);
    let lines: Vec<&str> = out.lines().collect();
    let duck: Vec<String> = serde_json::from_str(lines[0]).unwrap();
    let (rows, named) = (records.len(), records.iter().filter(|r| r.service.sni.is_some()).count());
    let packets: u64 = records.iter().map(|r| r.orig.volume.packets).sum();
    let bytes: u64 = records.iter().map(|r| r.resp.volume.ip_bytes).sum();
    let first = records.iter().map(|r| r.ts.nanos()).min().unwrap();
    let last = records.iter().map(|r| r.ts_last.nanos()).max().unwrap();
    let want = [
        rows.to_string(),
        rows.to_string(),
        packets.to_string(),
        bytes.to_string(),
        named.to_string(),
        first.to_string(),
        last.to_string(),
        "2026-11-21".into(),
        "20".into(),
        "10.0.0.0".into(),
        "16".into(),
    ];
    assert_eq!(duck, want);
    assert_eq!(lines[1], format!("{rows} {rows} {packets} {named} timestamp[ns, tz=UTC]"));
    assert!(lines[2].contains("IP header"), "{}", lines[2]);
}

const PRUNE: &str = r#"
import duckdb, sys, glob
store = sys.argv[1]
files = f"{store}/sessions/*/*/*.parquet"
duck = duckdb.connect()
duck.execute("SET TimeZone = 'UTC'")
largest = max(glob.glob(files), key=lambda f: duck.execute(f"SELECT num_rows FROM parquet_file_metadata('{f}')").fetchone()[0])
groups = duck.execute(f"""SELECT row_group_id, stats_min_value, stats_max_value, bloom_filter_offset
    FROM parquet_metadata('{largest}') WHERE path_in_schema = 'ts' ORDER BY 1""").fetchall()
print(len(groups), all(a[2] < b[1] for a, b in zip(groups, groups[1:])))
def hit(column, value):
    rows = duck.execute(f"SELECT row_group_id, bloom_filter_excludes FROM parquet_bloom_probe('{largest}', '{column}', '{value}')").fetchall()
    return [excludes for _, excludes in sorted(rows)]
uid = duck.execute(f"SELECT uid FROM '{largest}' ORDER BY ts LIMIT 1").fetchone()[0]
print(hit("uid", uid))
print(hit("src_ip", "10.0.0.230"), hit("src_ip", "10.0.0.1"))
"#;

#[test]
fn duckdb_skips_row_groups_by_time_and_by_bloom_filter() {
    let Some(python) = python() else { return };
    let (store, _) = store();
    assert_eq!(files(store.path(), ".parquet").len(), 3);
    let out = run(&python, PRUNE, &store);
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines[0], "2 True", "row groups of the largest file, in order of time");
    assert_eq!(lines[1], "[False, True]", "only the first row group may hold the first uid");
    assert_eq!(lines[2], "[True, True] [False, False]");
}
