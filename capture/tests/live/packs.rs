//! Packs beside a recording: the hours that are over are packed while others are written, and no packet is hidden.

use crate::support::recorder::{Recorder, segments};
use crate::support::{Net, live, numbered};
use std::path::Path;
use std::process::{Command, Output};
use std::time::{Duration, Instant};
use tapedeck_bench::recorder::binary;

/// 2023-11-14T22:00:00Z, long over.
const FIRST_HOUR: u32 = 1_700_000_000 / 3600 * 3600;
/// Hours with a packet, and so segments; more than a pack needs.
const HOURS: u16 = 150;

/// A capture with a packet in each of these hours, of a flow of its own.
fn old_packets() -> Vec<u8> {
    let mut out = Vec::new();
    let mut words = |words: &[u32], bytes: &[u8]| {
        words.iter().for_each(|word| out.extend_from_slice(&word.to_le_bytes()));
        out.extend_from_slice(bytes);
    };
    words(&[0xa1b2_c3d4, 0x0004_0002, 0, 0, 262_144, 1], &[]);
    for hour in 0..HOURS {
        let second = FIRST_HOUR + 3600 * u32::from(hour) + 1800;
        words(&[second, 0, 60, 60], &numbered(hour, 0, 60, &[]));
    }
    out
}

fn taperead(store: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(binary("taperead"));
    command.args(args).arg("--store").arg(store).output().unwrap()
}

/// How many packets there are of a flow of [`numbered`]; the answer must be whole.
fn count(store: &Path, flow: u16) -> u64 {
    let filter = format!("udp port {}", 10_000 + flow);
    let out = taperead(store, &["packets", &filter, "--count"]);
    let said = String::from_utf8_lossy(&out.stderr).into_owned();
    assert!(matches!(out.status.code(), Some(0 | 1)), "{said}");
    assert!(!said.contains(".pack"), "{said}");
    String::from_utf8(out.stdout).unwrap().trim().parse().unwrap()
}

/// What a plan says of the segments.
fn plan(store: &Path, flow: u16) -> String {
    let filter = format!("udp port {}", 10_000 + flow);
    let out = taperead(store, &["packets", &filter, "--explain"]);
    let text = String::from_utf8(out.stdout).unwrap();
    text.lines().find(|line| line.starts_with("segments")).unwrap_or_else(|| panic!("{text}")).to_owned()
}

/// Packs that are whole.
fn packs(store: &Path) -> usize {
    let entries = std::fs::read_dir(store.join("packs")).into_iter().flatten().flatten();
    let names = entries.map(|entry| entry.file_name().into_string().unwrap());
    names.filter(|name| name.ends_with(".pack") && !name.starts_with('.')).count()
}

/// The builder runs only when nobody else wants a processor.
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_mins(2);
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn a_recorder_packs_the_hours_that_are_over_and_hides_no_packet() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let (store, file) = (dir.path().join("store"), dir.path().join("old.pcap"));
    std::fs::write(&file, old_packets()).unwrap();
    let mut import = Command::new(env!("CARGO_BIN_EXE_tapedeck"));
    let import = import.arg("import").arg(&file).arg("--store").arg(&store).output().unwrap();
    assert!(import.status.success(), "{}", String::from_utf8_lossy(&import.stderr));
    // What the import has packed is not what is tried here.
    std::fs::remove_dir_all(store.join("packs")).unwrap();
    assert!(!plan(&store, 7).contains("packs"), "{}", plan(&store, 7));

    let recorder = Recorder::start(&net, &store, &["--mode", "copy"]);
    let sender = net.sender();
    let new = HOURS + 50;
    // Flow 7 is in an old segment, too; the other one is new.
    for number in 0..10 {
        assert!(sender.send(&numbered(7, number, 60, &[])) && sender.send(&numbered(new, number, 60, &[])));
    }
    wait_until("a pack of the hours that are over", || packs(&store) == 1);
    wait_until("the new packets", || count(&store, new) == 10);
    let told = plan(&store, new);
    assert!(told.contains(" 150 without a match by 1 packs, "), "{told}");
    assert_eq!((count(&store, 7), count(&store, 8), count(&store, HOURS)), (11, 1, 0));
    let told = plan(&store, 7);
    assert!(told.contains(" 149 without a match by 1 packs, "), "{told}");

    // Retention removes the oldest segments, while the pack still speaks of them.
    for segment in segments(&store).iter().take(8) {
        std::fs::remove_file(segment).unwrap();
        let index = segment.to_string_lossy().replace(".pcapng.zst", ".idx");
        std::fs::remove_file(index).unwrap();
    }
    assert_eq!((count(&store, 7), count(&store, 8), count(&store, new)), (10, 1, 10));
    let told = plan(&store, new);
    assert!(told.contains(" 142 without a match by 1 packs, "), "{told}");

    let ended = recorder.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!((ended.total("stored"), ended.total("unaccounted")), (20, 0));
    assert_eq!((packs(&store), count(&store, 7), count(&store, new)), (1, 10, 10));
    let verify =
        Command::new(env!("CARGO_BIN_EXE_tapedeck")).args(["verify", "--store"]).arg(&store).output();
    let verify = verify.unwrap();
    assert!(verify.status.success(), "{}", String::from_utf8_lossy(&verify.stderr));
}
