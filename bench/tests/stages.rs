//! `tapebench stages` as its user runs it, with measurements of a moment: figures mean nothing here, but each part runs,
//! checks what it was answered, and leaves nothing behind.

#![expect(clippy::unwrap_used, reason = "a test may be direct: a panic is its report")]

use serde_json::Value;
use std::process::{Command, Stdio};

/// Runs `tapebench stages` with few packets; stdout, stderr, exit code.
fn stages(words: &[&str]) -> (String, String, Option<i32>) {
    let tiny = ["stages", "--packets", "20000", "--sessions", "100", "--rounds", "1"];
    let output = Command::new(env!("CARGO_BIN_EXE_tapebench")).args(tiny).args(words).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

fn json(words: &[&str]) -> Value {
    let (stdout, stderr, code) = stages(&[words, &["--json"]].concat());
    assert_eq!(code, Some(0), "{words:?}: {stderr}");
    serde_json::from_str(&stdout).unwrap()
}

/// Whether a program can be started.
fn is_there(program: &str) -> bool {
    let version = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// A folder of a disk: the one of temporary files may lie in memory.
fn disk() -> tempfile::TempDir {
    tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap()
}

/// The names of rows, and that each has a rate.
fn names(rows: &Value, name: &str) -> Vec<String> {
    let of = |row: &Value| {
        assert!(row["gb_per_s"].as_f64().unwrap() > 0.0, "{row}");
        row[name].as_str().unwrap().to_owned()
    };
    rows.as_array().unwrap().iter().map(of).collect()
}

#[test]
fn a_sink_is_held_against_fio_and_its_files_are_gone() {
    let folder = disk();
    let path = folder.path().to_str().unwrap();
    let result = json(&["--only", "sink", "--folder", path, "--disk-bytes", "64MiB"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let sink = &result["sink"];
    assert_eq!((sink["bytes"].as_u64(), sink["block"].as_u64()), (Some(64 << 20), Some(1 << 20)));
    let names = names(&sink["rows"], "sink");
    assert!(names.ends_with(&["plain".to_owned(), "null".to_owned()]), "{sink}");
    if !names.contains(&"io_uring".to_owned()) {
        println!("SKIPPED 1 comparison with fio: {}", sink["notes"]);
        return;
    }
    if is_there("fio") {
        assert!(names.contains(&"fio".to_owned()) && sink["ratio_to_fio"].as_f64().unwrap() > 0.0, "{sink}");
        assert!(sink["fio"][1].as_str().unwrap().contains("--direct=1"), "{sink}");
    } else {
        println!("SKIPPED 1 comparison with fio: it is not installed");
        assert!(
            sink["ratio_to_fio"].is_null() && sink["notes"][0].as_str().unwrap().contains("apt"),
            "{sink}"
        );
    }
}

#[test]
fn a_query_is_held_against_inflating_alone() {
    let folder = disk();
    let path = folder.path().to_str().unwrap();
    let (_, stderr, code) = stages(&["--only", "scan", "--folder", path, "--disk-bytes", "16MiB"]);
    if code == Some(2) && stderr.contains("taperead lies neither") {
        println!("SKIPPED 1 query: taperead was not built");
        return;
    }
    let result = json(&["--only", "scan", "--folder", path, "--disk-bytes", "16MiB"]);
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0);
    let scan = &result["scan"];
    let packets = scan["store"]["packets"].as_u64().unwrap();
    // Blocks of 332 bytes.
    assert!(packets >= (16 << 20) / 332 && scan["in_order"].as_u64() == Some(packets), "{scan}");
    assert_eq!((scan["matches"].as_u64(), scan["store"]["segments"].as_u64()), (Some(packets), Some(2)));
    let names = names(&scan["rows"], "stage");
    assert_eq!((names[0].as_str(), names.len()), ("inflate, one core", 3 + usize::from(is_there("zstd"))));
    for row in scan["rows"].as_array().unwrap() {
        assert!(row["of_inflate"].as_f64().unwrap() > 0.0 && row["cpu_ns"].as_f64().unwrap() > 0.0, "{row}");
    }
}

#[test]
fn memory_and_sidecar_are_of_both_contents() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("capture.pcap");
    let mut capture = [0xa1b2_3c4d_u32, 0x0004_0002, 0, 0, 65_535, 1].map(u32::to_le_bytes).concat();
    for number in 0..3_000_u32 {
        capture.extend([number, 0, 100, 100].map(u32::to_le_bytes).concat());
        let mut packet = [7_u8; 100];
        packet[12..14].copy_from_slice(&[0x88, 0xb5]);
        capture.extend(packet);
    }
    std::fs::write(&path, capture).unwrap();
    let path = path.to_str().unwrap();
    let (text, stderr, code) = stages(&["--only", "memory,sidecar", "--traffic", path]);
    assert_eq!(code, Some(0), "{stderr}");
    for part in ["under pressure auto goes down to level -8", "synthetic", path, "the sidecar of a segment"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    let result = json(&["--only", "sidecar", "--traffic", path]);
    let [synthetic, capture] = result["sidecar"].as_array().unwrap().as_slice() else { panic!("{result}") };
    assert_eq!((synthetic["rows"].as_u64(), synthetic["content"].as_str()), (Some(1_000), Some("synthetic")));
    // One pair of addresses, 3,000 packets in one frame behind frame 0.
    let numbers = ["packets", "rows", "postings", "frames"].map(|name| capture[name].as_u64().unwrap());
    assert_eq!(numbers, [3_000, 1, 1, 2], "{capture}");
}

#[test]
fn instructions_are_counted_where_valgrind_is() {
    if !is_there("valgrind") {
        println!("SKIPPED 1 count of instructions: valgrind is not installed");
        let (_, stderr, code) = stages(&["--only", "sidecar", "--callgrind"]);
        assert!(code == Some(2) && stderr.contains("apt install valgrind"), "{code:?} {stderr}");
        return;
    }
    let result = json(&["--only", "sidecar", "--callgrind"]);
    let rows = result["instructions"]["rows"].as_array().unwrap();
    let counts: Vec<(&str, f64)> =
        rows.iter().map(|row| (row["stage"].as_str().unwrap(), row["worker"].as_f64().unwrap())).collect();
    let [("rows", rows), ("sidecar", build)] = counts.as_slice() else { panic!("{counts:?}") };
    // A row table that takes no instruction, or thousands a packet, was not counted.
    assert!((10.0..5_000.0).contains(rows) && (0.0..5_000.0).contains(build), "{counts:?}");
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (words, why) in [
        (&["--only", "scan"][..], "--folder DIR"),
        (&["--folder", "/nowhere"], "/nowhere"),
        (&["--folder", "/tmp", "--disk-bytes", "1k"], "16MiB"),
        (&["--folder", "/tmp", "--only", "sink", "--disk-bytes", "1000TB"], "MiB free"),
        (&["--alone", "nothing"], "no stage nothing"),
    ] {
        let (_, stderr, code) = stages(words);
        assert!(code == Some(2) && stderr.contains(why), "{words:?}: {code:?} {stderr}");
    }
}
