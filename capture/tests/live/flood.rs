//! Floods: more packets than can be kept, for seconds (`soak`: for minutes). Every one that reached the
//! interface stands in the ledger once, what is stored is what is on disk, and nothing is there twice.
//!
//! Live frames come from one CPU each and so on one queue each; a packet socket reaches more queues. What the
//! sender could not place, the veth itself counts.

use crate::disk::{status_when, tapedeck};
use crate::ledger::rows_are_the_ledger;
use crate::support::recorder::{Ended, Recorder, segments};
use crate::support::{Net, live, numbered, run};
use std::io::{BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tapedeck_capture::ladder::{Mode, packet_memory_bytes};
use tapedeck_capture::plan::{PACKET_BYTES, QUEUE_BYTES};
use tapedeck_ebpf::generator::Flood;

/// Flows of a lane.
pub(super) const FLOWS: u16 = 16;
const LEN: usize = 1514;

/// What is poured.
struct Load {
    /// Generators, each on a CPU and a queue of its own.
    lanes: u16,
    seconds: u64,
    random: bool,
    gap: Duration,
}

const FULL: Load = Load { lanes: 1, seconds: 3, random: false, gap: Duration::ZERO };

/// A number of the veth's own counters, summed over its queues.
pub(super) fn counted(interface: &str, end: &str) -> u64 {
    let text = run("ethtool", &["-S", interface]);
    let counters = text.lines().filter_map(|line| line.trim().split_once(": "));
    counters.filter(|(name, _)| name.ends_with(end)).map(|(_, value)| value.parse::<u64>().unwrap()).sum()
}

/// Packets that an interface was given and did not pass on.
fn dropped(interface: &str) -> u64 {
    let text = run("ip", &["-j", "-s", "link", "show", "dev", interface]);
    let links: serde_json::Value = serde_json::from_str(&text).unwrap();
    links.pointer("/0/stats64/tx/dropped").and_then(serde_json::Value::as_u64).unwrap()
}

/// Ends a load also when a test fails.
pub(super) struct EndOfLoad<'a>(pub(super) &'a AtomicBool);

impl Drop for EndOfLoad<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Looks at the ledger each second: a recorder under load reports, and what it has seen only grows.
fn watch(store: &Path, seconds: u64) {
    let end = Instant::now() + Duration::from_secs(seconds);
    let mut before = 0;
    while let Some(left) = end.checked_duration_since(Instant::now()) {
        std::thread::sleep(left.min(Duration::from_secs(1)));
        let ledger =
            status_when(store.to_str().unwrap(), |ledger| ledger["total"]["seen"].as_u64().is_some());
        let seen = ledger["total"]["seen"].as_u64().unwrap();
        assert!(seen >= before, "{before} packets were seen before: {ledger}");
        before = seen;
    }
}

/// Waits until the recorder has counted this many packets, or says how many it has.
fn wait_seen(store: &Path, wanted: u64) {
    let (mut seen, deadline) = (0, Instant::now() + Duration::from_secs(20));
    while Instant::now() < deadline {
        let (_, text, _) = tapedeck(&["status", "--json", "--store", store.to_str().unwrap()]);
        let ledger: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        seen = ledger["total"]["seen"].as_u64().unwrap_or(seen);
        if seen >= wanted {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    panic!("{seen} of {wanted} packets were seen");
}

/// Sends on the calling thread's CPU.
pub(super) fn pin(cpu: usize) {
    let cpus = std::thread::available_parallelism().unwrap().get();
    tapedeck_bench::sender::pin(&[cpu % cpus]).unwrap();
}

/// Pours, judges, and says what came of it.
fn pour(load: &Load) -> String {
    let net = Net::new(load.lanes.into(), 1500);
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&net, dir.path(), &["--mode", "copy"]);
    let ifindex = nix::net::if_::if_nametoindex(net.tx.as_str()).unwrap();
    let stop = AtomicBool::new(false);
    let began = Instant::now();
    let sent: Vec<u64> = std::thread::scope(|scope| {
        let lane = |lane: u16| {
            let flood = Flood {
                ifindex,
                template: numbered(0, 0, LEN, &[]),
                count: u64::MAX,
                gap: load.gap,
                first_flow: lane * FLOWS,
                flows: FLOWS,
                random: load.random.then_some(u64::from(lane) + 1),
            };
            let stop = &stop;
            scope.spawn(move || {
                pin(lane.into());
                flood.send(stop).unwrap()
            })
        };
        let lanes: Vec<_> = (0..load.lanes).map(lane).collect();
        let end = EndOfLoad(&stop);
        watch(dir.path(), load.seconds);
        drop(end);
        lanes.into_iter().map(|lane| lane.join().unwrap()).collect()
    });
    let took = began.elapsed();
    let refused = counted(&net.tx, "xdp_xmit_errors");
    let placed = sent.iter().sum::<u64>() - refused;
    assert_eq!(counted(&net.tx, "_xdp_xmit"), placed, "{sent:?} sent, {refused} refused");
    wait_seen(dir.path(), placed);
    bounded(&recorder, load.lanes.into());
    let ended = recorder.stop();
    let rate = sent.iter().sum::<u64>() / took.as_secs().max(1);
    let words = format!(
        "{} lanes, random {}: {sent:?} sent ({rate}/s), {refused} not placed; {}",
        load.lanes, load.random, ended.ledger["total"]
    );
    judge(dir.path(), &ended, placed);
    let there = on_disk(dir.path(), &sent);
    assert_eq!(ended.total("stored"), i64::try_from(there).unwrap(), "{ended:?}");
    words
}

/// What the recorder has had resident is no more than the formula of docs/operations.md says, with tables for the
/// sessions that there are.
fn bounded(recorder: &Recorder, queues: u64) {
    let status = std::fs::read_to_string(format!("/proc/{}/status", recorder.pid())).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    let most: u64 = most.trim().strip_suffix(" kB").unwrap().parse().unwrap();
    let queue = packet_memory_bytes(Mode::Copy, 1500, PACKET_BYTES) + QUEUE_BYTES;
    // Code, and 16 flows of each lane: some thousand sessions, were each counted for each table, are nothing.
    let bound = queues * queue + (64 << 20);
    assert!(most * 1024 <= bound, "{} MiB resident, the formula says {}", most >> 10, bound >> 20);
}

/// The final books, by themselves and against what was placed; and those of each second.
fn judge(store: &Path, ended: &Ended, placed: u64) {
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(ended.total("seen"), i64::try_from(placed).unwrap(), "{ended:?}");
    assert_eq!((ended.total("pending"), ended.total("unaccounted")), (0, 0), "{ended:?}");
    let queues = ended.ledger["queues"].as_array().unwrap();
    assert!(queues.iter().all(|queue| queue["unaccounted"] == 0 && queue["pending"] == 0), "{ended:?}");
    for key in ["seen", "stored", "cut_packets", "cut_bytes"] {
        let sum: i64 = queues.iter().map(|queue| queue[key].as_i64().unwrap()).sum();
        assert_eq!(sum, ended.total(key), "{key}: {ended:?}");
    }
    assert!(ended.total("stored") > 10_000, "{ended:?}");
    let whole = ended.total("stored") * i64::try_from(LEN).unwrap();
    assert_eq!(ended.total("stored_bytes") + ended.total("cut_bytes"), whole, "{ended:?}");
    let rows = rows_are_the_ledger(store, ended);
    let seen: i64 = rows.iter().map(|row| row.counts.seen).sum();
    assert_eq!(seen, i64::try_from(placed).unwrap(), "{ended:?}");
}

/// Which packets were found. None may be there twice, or be one that was not sent.
pub(super) struct Numbers<'a> {
    /// How many each lane has sent.
    sent: &'a [u64],
    seen: Vec<Vec<u64>>,
    pub(super) found: usize,
}

impl<'a> Numbers<'a> {
    pub(super) fn new(sent: &'a [u64]) -> Self {
        let seen = sent.iter().map(|count| vec![0; usize::try_from(count / 64).unwrap() + 1]);
        Self { sent, seen: seen.collect(), found: 0 }
    }

    pub(super) fn take(&mut self, packet: &[u8]) {
        let number = u32::from_be_bytes(packet[8..12].try_into().unwrap());
        let lane = usize::from((u16::from_be_bytes([packet[34], packet[35]]) - 10_000) / FLOWS);
        assert!(u64::from(number) < self.sent[lane], "packet {number} of lane {lane} was never sent");
        let (place, bit) = (number as usize / 64, 1 << (number % 64));
        assert!(self.seen[lane][place] & bit == 0, "packet {number} of lane {lane} twice");
        self.seen[lane][place] |= bit;
        self.found += 1;
    }
}

/// Packets on disk: `sent` says how many each lane has.
fn on_disk(store: &Path, sent: &[u64]) -> usize {
    let mut numbers = Numbers::new(sent);
    for segment in segments(store) {
        let mut child =
            Command::new("zstd").arg("-dcq").arg(&segment).stdout(Stdio::piped()).spawn().unwrap();
        let mut blocks = BufReader::with_capacity(1 << 20, child.stdout.take().unwrap());
        let mut head = [0; 8];
        let mut body = Vec::new();
        while blocks.read_exact(&mut head).is_ok() {
            let word = |bytes: &[u8]| u32::from_le_bytes(bytes.try_into().unwrap());
            body.resize(word(&head[4..]) as usize - 8, 0);
            blocks.read_exact(&mut body).unwrap();
            if word(&head[..4]) != 6 {
                continue;
            }
            numbers.take(&body[20..20 + word(&body[12..16]) as usize]);
        }
        assert!(child.wait().unwrap().success(), "{}", segment.display());
    }
    numbers.found
}

/// More queues than live frames reach: packet sockets, one thread a CPU.
fn pour_by_socket(queues: u32, seconds: u64) -> String {
    let net = Net::new(queues, 1500);
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&net, dir.path(), &["--mode", "copy"]);
    let stop = AtomicBool::new(false);
    let (sent, failed): (Vec<u64>, Vec<u64>) = std::thread::scope(|scope| {
        let lane = |lane: u16| {
            let (sender, stop) = (net.sender(), &stop);
            scope.spawn(move || {
                let mut packets: Vec<_> =
                    (0..FLOWS).map(|n| numbered(lane * FLOWS + n, 0, LEN, &[])).collect();
                let (mut number, mut failed) = (0_u32, 0);
                while !stop.load(Ordering::Relaxed) {
                    for packet in &mut packets {
                        packet[8..12].copy_from_slice(&number.to_be_bytes());
                        failed += u64::from(!sender.send(packet));
                        number += 1;
                    }
                }
                (u64::from(number), failed)
            })
        };
        let lanes: Vec<_> = (0..2).map(lane).collect();
        let end = EndOfLoad(&stop);
        watch(dir.path(), seconds);
        drop(end);
        lanes.into_iter().map(|lane| lane.join().unwrap()).unzip()
    });
    let refused = dropped(&net.tx);
    let placed = sent.iter().sum::<u64>() - refused;
    wait_seen(dir.path(), placed);
    let ended = recorder.stop();
    let words = format!(
        "{queues} queues: {sent:?} sent, {failed:?} failed, {refused} dropped; {}",
        ended.ledger["total"]
    );
    judge(dir.path(), &ended, placed);
    let busy =
        ended.ledger["queues"].as_array().unwrap().iter().filter(|queue| queue["seen"].as_i64() > Some(0));
    assert!(busy.count() > 2, "{ended:?}");
    let there = on_disk(dir.path(), &sent);
    assert_eq!(ended.total("stored"), i64::try_from(there).unwrap(), "{ended:?}");
    words
}

#[test]
fn live_frames_on_one_queue() {
    live!();
    println!("{}", pour(&FULL));
}

#[test]
fn live_frames_on_two_queues() {
    live!();
    println!("{}", pour(&Load { lanes: 2, ..FULL }));
}

/// What does not shrink: at most a gigabyte of it.
#[test]
fn random_payload() {
    live!();
    println!("{}", pour(&Load { seconds: 2, random: true, gap: Duration::from_micros(3), ..FULL }));
}

#[test]
fn packet_sockets_on_four_queues() {
    live!();
    println!("{}", pour_by_socket(4, 3));
}

mod soak {
    use super::*;

    #[test]
    fn five_minutes_on_one_queue() {
        live!();
        println!("{}", pour(&Load { seconds: 300, ..FULL }));
    }

    #[test]
    fn one_minute_on_two_queues() {
        live!();
        println!("{}", pour(&Load { lanes: 2, seconds: 60, ..FULL }));
    }

    /// Some nine gigabytes.
    #[test]
    fn half_a_minute_of_random_payload() {
        live!();
        println!("{}", pour(&Load { seconds: 30, random: true, gap: Duration::from_micros(5), ..FULL }));
    }

    #[test]
    fn one_minute_of_packet_sockets() {
        live!();
        println!("{}", pour_by_socket(4, 60));
    }
}
