//! What we write opens in anyone's tools: `zstd`, `tcpdump`, `capinfos`.

use crate::tools::{bin, captures, run, segments, stderr, stdout, together, traces, unzstd};
use std::path::Path;

/// Packets of a capture on disk, by capinfos.
fn capinfos_count(file: &Path) -> u64 {
    let output = run("capinfos", &["-TrcM".as_ref(), file.as_os_str()]);
    let text = stdout(&output);
    let count = text.trim().rsplit('\t').next().and_then(|n| n.parse().ok());
    count.unwrap_or_else(|| panic!("capinfos {}: {text}{}", file.display(), stderr(&output)))
}

/// Packets of a capture on disk, by tcpdump.
fn tcpdump_count(file: &Path) -> u64 {
    let output = run("tcpdump", &["-nn".as_ref(), "--count".as_ref(), "-r".as_ref(), file.as_os_str()]);
    let text = stdout(&output);
    let count = text.split_whitespace().next().and_then(|n| n.parse().ok());
    count.unwrap_or_else(|| panic!("tcpdump {}: {text}{}", file.display(), stderr(&output)))
}

/// Every segment of a store through the tools; returns (segments, packets).
fn check_store(store: &Path) -> (usize, u64) {
    let found = segments(store);
    let mut packets = 0;
    for segment in &found {
        let test = run("zstd", &["-tq".as_ref(), segment.as_os_str()]);
        assert!(test.status.success(), "zstd -t {}: {}", segment.display(), stderr(&test));
        let plain = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(plain.path(), unzstd(segment)).unwrap();
        let (a, b) = (tcpdump_count(plain.path()), capinfos_count(plain.path()));
        assert_eq!(a, b, "{}: tcpdump and capinfos disagree", segment.display());
        packets += a;
    }
    (found.len(), packets)
}

#[test]
fn every_segment_opens_in_zstd_tcpdump_and_capinfos() {
    let _turn = together();
    let Some(folder) = traces("standard tools on segments") else { return };
    let (mut files, mut segments, mut packets) = (0, 0, 0);
    for file in captures(&folder).iter().step_by(12) {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let import =
            run(bin("tapedeck"), &["import", "--store", store.to_str().unwrap(), file.to_str().unwrap()]);
        assert!(matches!(import.status.code(), Some(0 | 3)), "{}: {}", file.display(), stderr(&import));
        let ledger: serde_json::Value = serde_json::from_str(&stdout(&import)).unwrap();
        let (s, p) = check_store(&store);
        assert_eq!(ledger["total"]["stored"], p, "{}", file.display());
        (files, segments, packets) = (files + 1, segments + s, packets + p);
    }
    println!("standard tools: {files} files, {segments} segments, {packets} packets");
}
