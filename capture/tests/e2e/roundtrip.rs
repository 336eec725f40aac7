//! Import, retrieve everything, compare packet by packet with the original.

use crate::reference::{RefPacket, answer_order, read, read_bytes};
use crate::tables::Packets;
use crate::tools::{bin, captures, run, stderr, together, traces};
use std::path::{Path, PathBuf};

/// One file through `import` and `packets -w -`; what is wrong with it, or nothing.
fn round_trip(file: &Path) -> Result<usize, String> {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let store = store.to_str().unwrap();
    let import = run(bin("tapedeck"), &["import", "--store", store, file.to_str().unwrap()]);
    let (expected, refused): (Vec<_>, Vec<_>) = read(file).into_iter().partition(|p| p.ts_ns < 1 << 63);
    let expected = answer_order(expected);
    let code = import.status.code().ok_or("import was killed")?;
    if !refused.is_empty()
        && !stderr(&import).contains(&format!("{} packets with a time out of range", refused.len()))
    {
        return Err(format!("{} refused times are not reported: {}", refused.len(), stderr(&import)));
    }
    match (code, expected.is_empty()) {
        (0 | 3, _) => {}
        (2, true) => return Ok(0),
        _ => return Err(format!("import exits {code}: {}", stderr(&import))),
    }
    if code == 3 && !stderr(&import).contains("offset") {
        return Err(format!("import exits 3 without naming an offset: {}", stderr(&import)));
    }
    let answer = run(bin("taperead"), &["packets", "--store", store, "-w", "-"]);
    let wanted_code = if expected.is_empty() { 1 } else { 0 };
    if answer.status.code() != Some(wanted_code) {
        return Err(format!("packets exits {:?}: {}", answer.status.code(), stderr(&answer)));
    }
    compare(&expected, &read_bytes(&answer.stdout))?;
    counted(Path::new(store), i64::try_from(expected.len()).unwrap())?;
    Ok(expected.len())
}

/// Sessions and minutes add up to the packets.
fn counted(store: &Path, expected: i64) -> Result<(), String> {
    let packets = Packets::of(store);
    let Packets { in_sessions, stored, in_minutes, not_ip } = packets;
    if in_minutes != expected || in_sessions + not_ip != expected || stored != in_sessions {
        return Err(format!("{expected} packets are counted as {packets:?}"));
    }
    Ok(())
}

/// The first difference, in words.
fn compare(expected: &[RefPacket], got: &[RefPacket]) -> Result<(), String> {
    for (i, (e, g)) in expected.iter().zip(got).enumerate() {
        if e != g {
            let brief = |p: &RefPacket| {
                format!("{} {} lt{} {}/{}", p.ts_ns, p.interface, p.link_type, p.bytes.len(), p.orig_len)
            };
            return Err(format!("packet {i}: expected {}, got {}", brief(e), brief(g)));
        }
    }
    if expected.len() != got.len() {
        return Err(format!("{} packets, expected {}", got.len(), expected.len()));
    }
    Ok(())
}

fn round_trip_all(files: &[PathBuf]) {
    let mut packets = 0;
    let mut failures = Vec::new();
    for file in files {
        match round_trip(file) {
            Ok(n) => packets += n,
            Err(why) => failures.push(format!("{}: {why}", file.display())),
        }
    }
    println!("round trip: {} files, {packets} packets, {} failures", files.len(), failures.len());
    assert!(failures.is_empty(), "{} of {}:\n{}", failures.len(), files.len(), failures.join("\n"));
}

/// All captures of the traces folder whose place in the sorted list is `part` modulo 4, so that the
/// test runner can use its cores.
fn every_trace(part: usize) {
    let Some(folder) = traces("round trip of every trace") else { return };
    let files: Vec<_> = captures(&folder).into_iter().skip(part).step_by(4).collect();
    assert!(!files.is_empty(), "no captures in {}", folder.display());
    round_trip_all(&files);
}

#[test]
fn every_trace_comes_back_part_0() {
    let _turn = together();
    every_trace(0);
}

#[test]
fn every_trace_comes_back_part_1() {
    let _turn = together();
    every_trace(1);
}

#[test]
fn every_trace_comes_back_part_2() {
    let _turn = together();
    every_trace(2);
}

#[test]
fn every_trace_comes_back_part_3() {
    let _turn = together();
    every_trace(3);
}

#[test]
fn made_captures_come_back() {
    let _turn = together();
    let dir = tempfile::tempdir().unwrap();
    round_trip_all(&crate::made::all(dir.path()));
}
