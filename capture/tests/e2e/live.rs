//! Real traces replayed through a four-queue veth pair into a running recorder.

use crate::reference::{RefPacket, read, read_bytes};
use crate::tools::{alone, bin, need_root, run, segments, stderr, traces, unzstd};
use serde_json::Value;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tapedeck_bench::link::Link;
use tapedeck_bench::recorder::Recorder;

/// (trace, what it brings, MTU the link needs).
const TRACES: &[(&str, &str, u32)] = &[
    ("large/mix_home_iot_A.pcap", "large; ARP, LLC, IPv6", 1500),
    ("large/mix_apps_A.pcap", "large; VLAN, QinQ, GTP", 1500),
    ("large/lan_2010_snap96.pcap", "large; cut packets", 1500),
];

/// Folders whose Ethernet traces are added to the list, with how many of each.
const FOLDERS: &[(&str, usize)] =
    &[("zeek-traces", 14), ("ics", 4), ("arkime-sessions", 6), ("ndpi-flows", 6)];

/// Replays at 50 kpps what `tcpreplay` is told.
const PACED: &[&str] = &["--pps=50000", "--quiet"];

struct Outcome {
    ledger: Value,
    answer: Vec<RefPacket>,
    sent: usize,
    not_placed: u64,
    segments: Vec<PathBuf>,
    _dir: tempfile::TempDir,
}

/// Records while `tcpreplay` sends `file`, stops, retrieves everything.
fn replay(file: &Path, mtu: u32, speed: &[&str], loops: usize) -> Outcome {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let link = Link::make(4, mtu).unwrap();
    let recorder = Recorder::start(&link, &store, &[]).unwrap();
    assert!(recorder.ready.contains("rx0 queues=4 mode=copy"), "{}", recorder.ready);
    let sender = link
        .command("tcpreplay".as_ref())
        .args(["--intf1=tx0", &format!("--loop={loops}")])
        .args(speed)
        .arg(file)
        .output()
        .unwrap();
    assert!(sender.status.success(), "{}: {}", file.display(), String::from_utf8_lossy(&sender.stderr));
    let not_placed = link.not_placed().unwrap();
    let ledger = recorder.stop().unwrap();
    let answer = run(bin("taperead"), &["packets", "--store", store.to_str().unwrap(), "-w", "-"]);
    // What was lost makes an answer less than whole.
    let wanted: &[i32] = if dropped(&ledger) > 0 { &[3] } else { &[0, 1] };
    assert!(wanted.contains(&answer.status.code().unwrap()), "{}", stderr(&answer));
    let segments = segments(&store);
    Outcome {
        ledger,
        answer: read_bytes(&answer.stdout),
        sent: read(file).len() * loops,
        not_placed,
        segments,
        _dir: dir,
    }
}

fn multiset<'a>(packets: impl Iterator<Item = &'a RefPacket>) -> HashMap<&'a [u8], usize> {
    let mut counts = HashMap::new();
    for packet in packets {
        *counts.entry(packet.bytes.as_slice()).or_default() += 1;
    }
    counts
}

fn total(ledger: &Value, key: &str) -> u64 {
    ledger["total"][key].as_u64().unwrap_or_else(|| panic!("no total.{key} in {ledger}"))
}

fn dropped(ledger: &Value) -> u64 {
    ledger["total"]["dropped"].as_object().unwrap().values().map(|v| v.as_u64().unwrap()).sum()
}

/// No stamp of a queue stands before the one in front of it, but for steps back under 1 us.
fn assert_times_per_queue(what: &str, segments: &[PathBuf]) {
    for segment in segments {
        let packets = read_bytes(&unzstd(segment));
        for pair in packets.windows(2) {
            assert!(pair[0].ts_ns < pair[1].ts_ns + 1_000, "{what}: {} goes back", segment.display());
        }
    }
}

fn assert_paced(file: &Path, mtu: u32) -> usize {
    let what = file.display().to_string();
    let outcome = replay(file, mtu, PACED, 1);
    let original = read(file);
    assert_eq!(dropped(&outcome.ledger), 0, "{what}: {}", outcome.ledger);
    assert_eq!(outcome.not_placed, 0, "{what}: the sender itself lost frames");
    assert_eq!(outcome.ledger["total"]["unaccounted"], 0, "{what}: {}", outcome.ledger);
    assert_eq!(total(&outcome.ledger, "stored"), outcome.sent as u64, "{what}: {}", outcome.ledger);
    assert!(multiset(original.iter()) == multiset(outcome.answer.iter()), "{what}: other frames came back");
    assert_times_per_queue(&what, &outcome.segments);
    original.len()
}

/// Only Ethernet, no frame over 1514 + 4 bytes, at least 14 bytes each, not empty; no pcapng, of which
/// tcpreplay reads only files with one kind of interface.
fn fits(file: &Path) -> bool {
    let packets = read(file);
    let pcapng = std::fs::read(file).unwrap().starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]);
    !packets.is_empty()
        && !pcapng
        && packets.iter().all(|p| p.link_type == 1 && (14..=1518).contains(&p.bytes.len()))
        && packets.iter().all(|p| p.bytes.len() <= 1514 || p.bytes[12..14] == [0x81, 0])
}

#[test]
fn traces_at_50_kpps_are_stored_exactly_once() {
    let _turn = alone();
    let Some(folder) = traces("live replay") else { return };
    if !need_root("live replay") {
        return;
    }
    let (mut files, mut packets) = (0, 0);
    for (trace, _, mtu) in TRACES {
        packets += assert_paced(&folder.join(trace), *mtu);
        files += 1;
    }
    for (name, most) in FOLDERS {
        let captures = crate::tools::captures(&folder.join(name));
        for file in captures.iter().filter(|f| fits(f)).step_by(5).take(*most) {
            packets += assert_paced(file, 1500);
            files += 1;
        }
    }
    println!("live at 50 kpps: {files} traces, {packets} packets, each stored exactly once");
    assert!(files >= 20, "only {files} traces fit");
}

/// Ethernet frames only, of which one is longer than `longer` and none than `longest` bytes with tags; what tcpreplay
/// reads.
fn has_longest(file: &Path, longer: usize, longest: usize) -> bool {
    let pcapng = std::fs::read(file).unwrap().starts_with(&[0x0a, 0x0d, 0x0d, 0x0a]);
    let packets = read(file);
    let max = packets.iter().map(|p| p.bytes.len()).max().unwrap_or(0);
    let whole = |p: &RefPacket| p.link_type == 1 && p.bytes.len() >= 14;
    !pcapng && (longer + 1..=longest).contains(&max) && packets.iter().all(whole)
}

/// Captures with jumbo frames, and with frames as segmentation offload makes them, up to 64 KiB: whole.
#[test]
fn jumbo_and_super_size_frames_arrive_whole() {
    let _turn = alone();
    let Some(folder) = traces("live replay of long frames") else { return };
    if !need_root("live replay of long frames") {
        return;
    }
    // Not the folder of odd formats: tcpreplay refuses what fuzzers made.
    let folders = ["zeek-traces", "arkime-sessions", "ndpi-flows", "ics"];
    let captures: Vec<_> =
        folders.iter().flat_map(|name| crate::tools::captures(&folder.join(name))).collect();
    for (what, longer, longest, mtu, at_least) in
        [("jumbo", 1_522, 9_014, 9_000, 4), ("super-size", 9_014, 65_535, 65_535, 4)]
    {
        let (mut files, mut packets) = (0, 0);
        for file in captures.iter().filter(|file| has_longest(file, longer, longest)).take(12) {
            packets += assert_paced(file, mtu);
            files += 1;
        }
        println!("live, {what}: {files} traces, {packets} packets, each stored exactly once and whole");
        assert!(files >= at_least, "{what}: only {files} traces");
    }
}

#[test]
fn vlan_tags_arrive_intact() {
    let _turn = alone();
    let Some(folder) = traces("live VLAN replay") else { return };
    if !need_root("live VLAN replay") {
        return;
    }
    let tagged = |p: &RefPacket| matches!(p.bytes.get(12..14), Some([0x81, 0] | [0x88, 0xa8]));
    let files: Vec<_> = crate::tools::captures(&folder.join("zeek-traces"))
        .into_iter()
        .chain(crate::tools::captures(&folder.join("arkime-sessions")))
        .filter(|f| fits(f) && read(f).iter().any(tagged))
        .take(6)
        .collect();
    assert!(!files.is_empty());
    for file in &files {
        assert_paced(file, 1500);
    }
    let two = |p: &RefPacket| tagged(p) && matches!(p.bytes.get(16..18), Some([0x81, 0] | [0x88, 0xa8]));
    let qinq = ["zeek-traces", "arkime-sessions", "ndpi-flows", "formats"];
    let qinq = qinq.iter().flat_map(|name| crate::tools::captures(&folder.join(name)));
    // Four bytes more than the one tag for which the link has room.
    let qinq: Vec<_> =
        qinq.filter(|file| has_longest(file, 13, 1_518) && read(file).iter().any(two)).take(4).collect();
    assert!(!qinq.is_empty());
    for file in qinq {
        assert_paced(&file, 1504);
    }
}

/// All three large traces at the sender's top speed, `loops` times each.
fn top_speed(loops: usize) {
    let Some(folder) = traces("live at top speed") else { return };
    if !need_root("live at top speed") {
        return;
    }
    for (trace, _, mtu) in TRACES {
        assert_top_speed(trace, &folder.join(trace), *mtu, loops);
    }
}

fn assert_top_speed(trace: &str, file: &Path, mtu: u32, loops: usize) {
    let outcome = replay(file, mtu, &["--topspeed", "--quiet"], loops);
    let (stored, dropped) = (total(&outcome.ledger, "stored"), dropped(&outcome.ledger));
    println!(
        "{trace}: sent {} stored {stored} dropped {dropped} not placed by the sender {}",
        outcome.sent, outcome.not_placed
    );
    assert_eq!(outcome.ledger["total"]["unaccounted"], 0, "{trace}: {}", outcome.ledger);
    assert_eq!(stored + dropped + outcome.not_placed, outcome.sent as u64, "{trace}: {}", outcome.ledger);
    assert_eq!(stored, outcome.answer.len() as u64, "{trace}");
    let original = read(file);
    let expected = multiset(original.iter());
    for (frame, count) in multiset(outcome.answer.iter()) {
        let most = expected.get(frame).copied().unwrap_or(0) * loops;
        assert!(count <= most, "{trace}: a frame sent {most} times is stored {count} times");
    }
    assert_times_per_queue(trace, &outcome.segments);
}

#[test]
fn at_top_speed_every_frame_is_stored_or_counted() {
    let _turn = alone();
    top_speed(4);
}

mod soak {
    #[test]
    fn at_top_speed_for_minutes_every_frame_is_stored_or_counted() {
        let _turn = super::alone();
        super::top_speed(40);
    }
}
