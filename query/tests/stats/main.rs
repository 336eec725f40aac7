//! `taperead stats` on stores that the recorder's own statistics writer has written.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing unwrap or index in a test is the report"
)]

#[path = "../../../session/tests/history/mod.rs"]
#[expect(dead_code, reason = "the tests of other crates use the rest")]
mod history;

use history::{Insert, SHAPES, START_S, Shape, closed_history};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tapedeck_capture::statistics::{Statistics, StatisticsCounts};
use tapedeck_index::catalog::StoreFile;
use tapedeck_packet::Timestamp;
use tapedeck_session::stats::Closed;
use tapedeck_writer::TableConfig;
use tempfile::TempDir;

const DAY: u32 = 1_440;

/// Exact sums of what went into a store.
#[derive(Debug, Default, PartialEq, Eq)]
struct Sums {
    packets: u64,
    bytes: u64,
    sessions: u64,
}

struct Store {
    folder: TempDir,
    sums: Sums,
    counts: StatisticsCounts,
}

fn store(shape: Shape, seed: u64, days: u32, inserts: &[Insert]) -> Store {
    let folder = TempDir::new().unwrap();
    StoreFile::read_or_create(folder.path(), "s1").unwrap();
    let config = TableConfig::new(folder.path().to_owned(), "s1".to_owned(), 7);
    let mut statistics = Statistics::start(config).unwrap();
    let reporter = statistics.watch("eth1", 1);
    let mut sums = Sums::default();
    closed_history(shape, seed, days, inserts, |closed| {
        if let Closed::Minute(minute) = &closed {
            sums.packets += minute.totals.counts.packets;
            sums.bytes += minute.totals.counts.bytes;
            sums.sessions += minute.totals.counts.new;
        }
        reporter.report_all(vec![closed]);
    });
    drop(reporter);
    Store { folder, sums, counts: statistics.finish() }
}

impl Store {
    fn stats(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_taperead"))
            .args(["stats", "--store"])
            .arg(self.folder.path())
            .args(arguments)
            .env("COLUMNS", "80")
            .env("LC_ALL", "C.UTF-8")
            .output()
            .unwrap()
    }

    fn parquet(&self) -> Vec<PathBuf> {
        let mut files = Vec::new();
        let mut folders = vec![self.folder.path().join("stats")];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { folders.push(path) } else { files.push(path) }
            }
        }
        files.sort();
        files
    }
}

fn shape(name: &str) -> Shape {
    SHAPES.into_iter().find(|shape| shape.name == name).unwrap()
}

fn time(minute: u32) -> String {
    Timestamp::from_nanos_saturating((START_S + u64::from(minute) * 60) * 1_000_000_000).to_string()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

fn json_lines(output: &Output) -> Vec<serde_json::Value> {
    text(&output.stdout).lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn what_was_counted_is_what_is_shown() {
    let store = store(shape("small"), 5, 2, &[]);
    assert_eq!((store.counts.reports_lost, store.counts.table.rows_lost), (0, 0));
    assert_eq!(store.counts.table.rows, store.counts.table.rows_sealed);
    let output = store.stats(&["--format", "json"]);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let lines = json_lines(&output);
    let sum = |dimension: &str, column: &str| {
        let of = lines.iter().filter(|line| line["dimension"] == dimension);
        of.map(|line| line[column].as_u64().unwrap()).sum::<u64>()
    };
    let shown = Sums {
        packets: sum("total", "packets"),
        bytes: sum("total", "bytes"),
        sessions: sum("total", "sessions_new"),
    };
    assert_eq!(shown, store.sums);
    assert_eq!(sum("total", "watched_minutes"), u64::from(2 * DAY));
    assert_eq!(sum("protocol", "bytes"), store.sums.bytes);
    assert_eq!(sum("size", "packets"), store.sums.packets);
    // A range is exact to the minute.
    let (from, to) = (time(600), time(660));
    let hour = json_lines(&store.stats(&["--from", &from, "--to", &to, "--format", "json"]));
    let watched: u64 = hour.iter().filter_map(|line| line["watched_minutes"].as_u64()).sum();
    assert_eq!(watched, 60);
    let csv = text(&store.stats(&["--from", &from, "--to", &to, "--format", "csv"]).stdout);
    assert_eq!(csv.lines().count(), hour.len() + 1);
}

#[test]
fn the_table_fits_and_protocol_and_interface_choose() {
    let store = store(shape("small"), 6, 1, &[]);
    for arguments in [&[][..], &["--ascii"], &["--protocol", "udp"], &["--top", "3"]] {
        let output = store.stats(arguments);
        let table = text(&output.stdout);
        assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
        assert!(table.contains("all 1440 minutes watched"), "{table}");
        assert_eq!(table.is_ascii(), arguments == ["--ascii"], "{table}");
    }
    let udp = json_lines(&store.stats(&["--protocol", "udp", "--format", "json"]));
    let all = json_lines(&store.stats(&["--format", "json"]));
    let of_udp: u64 =
        udp.iter().filter(|l| l["dimension"] == "total").map(|l| l["bytes"].as_u64().unwrap()).sum();
    let line = all.iter().find(|l| l["dimension"] == "protocol" && l["key"] == "17").unwrap();
    assert_eq!(line["bytes"].as_u64(), Some(of_udp));
    let other = store.stats(&["--interface", "eth9"]);
    assert_eq!((other.status.code(), other.stdout.len()), (Some(1), 0));
    assert!(text(&other.stderr).contains("no statistics in this range"));
    assert_eq!(store.stats(&["--protocol", "tpc"]).status.code(), Some(2));
}

#[test]
fn a_scan_is_found_with_the_query_that_shows_it() {
    let inserts = [Insert::Scan { from: 8 * DAY + 14 * 60 + 20, minutes: 10, ports: 1_000 }];
    let site = Shape { hosts: 12, sessions: 6.0, ..shape("flat") };
    let store = store(site, 9, 9, &inserts);
    let (from, to) = (time(8 * DAY), time(9 * DAY));
    let range = ["--from", &from, "--to", &to, "--unusual"];
    let output = store.stats(&range);
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(table.contains(". failed handshakes of 10.1.0.7: 1.00k"), "{table}");
    assert!(table.contains("taperead sessions 'host 10.1.0.7 and tcp and (state S0"), "{table}");
    let page =
        store.folder.path().parent().unwrap().join(format!("tapedeck-page-{}.html", std::process::id()));
    let html = store.stats(&["--from", &from, "--to", &to, "--html", page.to_str().unwrap()]);
    let text_of_page = std::fs::read_to_string(&page).unwrap();
    std::fs::remove_file(&page).unwrap();
    assert_eq!(html.status.code(), Some(0), "{}", text(&html.stderr));
    assert!(text_of_page.contains("<svg") && text_of_page.contains("10.1.0.7"));
    for foreign in ["http:", "https:", "src=", "url(", "<script", "<link"] {
        assert!(!text_of_page.contains(foreign), "{foreign}");
    }
    // A file that cannot be read is no silent hole.
    let broken = store.parquet().into_iter().find(|path| path.to_string_lossy().contains("hr=13")).unwrap();
    damage(&broken);
    let output = store.stats(&[&range[..], &["--format", "json", "--json"]].concat());
    assert_eq!(output.status.code(), Some(3));
    let lines = json_lines(&output);
    let scan = lines.iter().find(|line| line["key"] == "10.1.0.7").unwrap();
    assert_eq!(scan["from"].as_str(), Some(time(8 * DAY + 14 * 60).as_str()));
    assert!(scan["rank"].as_u64().unwrap() <= 2, "{scan}");
    let verdict: serde_json::Value =
        serde_json::from_str(text(&output.stderr).lines().last().unwrap()).unwrap();
    assert_eq!(verdict["gaps"][0]["cause"], "unreadable");
}

fn damage(path: &Path) {
    let bytes = std::fs::read(path).unwrap();
    std::fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
}

#[test]
fn too_short_a_history_judges_nothing_and_says_so() {
    let store = store(shape("small"), 10, 2, &[]);
    let output = store.stats(&["--unusual"]);
    let table = text(&output.stdout);
    assert_eq!(output.status.code(), Some(3));
    assert!(table.contains("nothing could be judged") && table.contains("48 hours not judged"), "{table}");
}
