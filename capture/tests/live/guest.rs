//! What is checked on other kernels, in a guest of `cargo xtask vm`: kinds of packets, and modes of a real
//! card. The clock is in `clock.rs`.
//!
//! `cargo xtask vm` sets TAPEDECK_GUEST_TX and TAPEDECK_GUEST_RX, the guest's two cards, which it joins.
//! Tests that need no card run everywhere.

use super::ledger::rows_add_up;
use super::takeover::with_pins;
use crate::support::recorder::{Ended, Recorder, packets, pins, record_on, segments};
use crate::support::{Net, Sender, Unpin, live, number_of, numbered, run};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};
use tapedeck_bench::recorder::binary;
use tapedeck_capture::xsk::{BindMode, ChunkSize, XskConfig, XskSocket};
use tapedeck_ebpf::{Mode, Program};

/// The guest's cards: (sender, recorder).
pub(super) fn in_guest() -> Option<(String, String)> {
    let card = |name: &str| std::env::var(name).ok();
    Some((card("TAPEDECK_GUEST_TX")?, card("TAPEDECK_GUEST_RX")?))
}

/// The guest's cards, or the end of the test with a printed reason.
macro_rules! cards {
    () => {
        match $crate::guest::in_guest() {
            Some(cards) => cards,
            None => {
                println!("SKIPPED 1: not in a guest of `cargo xtask vm`");
                return;
            }
        }
    };
}
pub(super) use cards;

/// Sends packet `number` of flows 0..`flows` for each number, and waits where the card has no room.
pub(super) fn send(sender: &Sender, flows: u16, numbers: std::ops::Range<u64>, len: usize, tags: &[u16]) {
    for number in numbers {
        for flow in 0..flows {
            let packet = numbered(flow, number, len, tags);
            while !sender.send(&packet) {
                std::thread::sleep(Duration::from_micros(100));
            }
        }
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// What `taperead packets` counts, how it ends, and what it says.
fn answer(store: &Path, filter: &str) -> (u64, i32, String) {
    let mut command = Command::new(binary("taperead"));
    command.args(["packets", filter, "--count", "--store"]).arg(store);
    let out = command.output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    let count = String::from_utf8(out.stdout).unwrap().trim().parse();
    (count.unwrap_or_else(|_| panic!("{filter}: {said}")), out.status.code().unwrap(), said)
}

/// What `taperead packets` counts; the answer must be whole.
pub(super) fn count(store: &Path, filter: &str) -> u64 {
    let (count, code, said) = answer(store, filter);
    assert!(matches!(code, 0 | 1), "{filter}: {said}");
    count
}

pub(super) fn verify(store: &Path) {
    let out = Command::new(env!("CARGO_BIN_EXE_tapedeck")).args(["verify", "--store"]).arg(store).output();
    let out = out.unwrap();
    assert_eq!(out.status.code(), Some(0), "{out:?}");
}

/// Waits until `filter` finds `wanted` packets.
fn wait_for(store: &Path, filter: &str, wanted: u64) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while count(store, filter) != wanted {
        assert!(Instant::now() < deadline, "{filter}: {} of {wanted}", count(store, filter));
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Everything that was seen is stored, or stands in the ledger with a cause.
pub(super) fn balances(ended: &Ended) {
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!((ended.total("unaccounted"), ended.total("pending")), (0, 0), "{ended:?}");
}

/// Numbers per flow in the order they stand in the store.
pub(super) fn stored(store: &Path, tags: usize) -> BTreeMap<u16, Vec<u64>> {
    let mut found: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
    for segment in segments(store) {
        for (_, packet) in packets(&segment) {
            if let Some((flow, number)) = number_of(&packet, tags) {
                found.entry(flow).or_default().push(number);
            }
        }
    }
    found
}

/// The store holds packets 0..`each` of each of so many flows, in their order.
fn holds_all(store: &Path, flows: u16, each: u64) {
    let stored = stored(store, 0);
    assert!(stored.keys().copied().eq(0..flows), "flows {:?}", stored.keys());
    for (flow, numbers) in stored {
        assert!(numbers.iter().copied().eq(0..each), "flow {flow}: {numbers:?}");
    }
}

#[test]
fn what_is_recorded_is_retrieved() {
    live!();
    let net = Net::new(2, 1500);
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&net, dir.path(), &["--mode", "copy"]);
    send(&net.sender(), 8, 0..100, 200, &[]);
    wait_for(dir.path(), "udp and src port 10003", 100);
    let ended = recorder.stop();
    balances(&ended);
    assert_eq!(ended.total("stored"), 800, "{ended:?}");
    for (filter, wanted) in [("udp", 800), ("src port 10003", 100), ("host 10.9.9.9", 0)] {
        assert_eq!(count(dir.path(), filter), wanted, "{filter}");
    }
    verify(dir.path());
    holds_all(dir.path(), 8, 100);
}

#[test]
fn tags_are_stored() {
    live!();
    kept_whole(1500, &[(1000, &[7]), (1000, &[7, 8])]);
}

#[test]
fn jumbo_packets_are_stored_whole() {
    live!();
    kept_whole(9000, &[(9014, &[]), (9018, &[7])]);
}

/// Records packets of these lengths and tags in every mode, and compares each byte.
fn kept_whole(mtu: u32, kinds: &[(usize, &[u16])]) {
    for mode in ["copy", "skb", "packet"] {
        for (len, tags) in kinds {
            let net = Net::new(1, mtu);
            let dir = tempfile::tempdir().unwrap();
            let recorder = Recorder::start(&net, dir.path(), &["--mode", mode]);
            send(&net.sender(), 1, 0..20, *len, tags);
            let ended = recorder.stop();
            balances(&ended);
            let got: Vec<_> = segments(dir.path()).iter().flat_map(|path| packets(path)).collect();
            assert_eq!(got.len(), 20, "{mode} {len}: {ended:?}");
            assert!(
                (0..20).zip(&got).all(|(n, packet)| packet.1 == numbered(0, n, *len, tags)),
                "{mode} {len}"
            );
        }
    }
}

/// On a kernel whose AF_XDP takes no packet in several pieces.
#[test]
fn jumbo_packets_in_one_buffer_are_counted() {
    let _ = cards!();
    for mode in ["copy", "skb"] {
        let net = Net::new(1, 9000);
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(&net, dir.path(), &["--mode", mode]);
        let sender = net.sender();
        send(&sender, 1, 0..50, 9014, &[]);
        send(&sender, 1, 50..100, 1000, &[]);
        let ended = recorder.stop();
        balances(&ended);
        let counts = (ended.total("seen"), ended.total("stored"), ended.total("dropped/oversize"));
        assert_eq!(counts, (100, 50, 50), "{mode}: {ended:?}");
        assert_eq!(stored(dir.path(), 0)[&0], (50..100).collect::<Vec<_>>(), "{mode}");
    }
    // The last resort takes them whole.
    kept_whole_in_packet_mode();
}

fn kept_whole_in_packet_mode() {
    let net = Net::new(1, 9000);
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&net, dir.path(), &["--mode", "packet"]);
    send(&net.sender(), 1, 0..20, 9014, &[]);
    let ended = recorder.stop();
    balances(&ended);
    holds_all(dir.path(), 1, 20);
}

/// How `ss` says that the sockets of an interface are bound: one `true` for each with zero-copy. Empty where
/// the kernel does not tell.
fn zero_copy_by_ss() -> Vec<bool> {
    run("ss", &["--xdp", "-e"])
        .lines()
        .filter_map(|line| line.split_once("zc:"))
        .map(|(_, rest)| rest.starts_with('1'))
        .collect()
}

#[test]
fn zero_copy_stores_each_packet_once() {
    let (tx, rx) = cards!();
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::spawn(&mut record_on(&rx, dir.path(), &["--mode", "zerocopy"]));
    is_zero_copy(&recorder, &rx);
    let sender = Sender::on(&tx);
    send(&sender, 16, 0..200, 60, &[]);
    send(&sender, 16, 200..250, 1514, &[]);
    wait_for(dir.path(), "udp", 16 * 250);
    let ended = recorder.stop();
    balances(&ended);
    assert_eq!((ended.total("seen"), ended.total("stored")), (4000, 4000), "{ended:?}");
    let by_queue = ended.ledger["queues"].as_array().unwrap();
    assert!(by_queue.iter().all(|queue| queue["mode"] == "zerocopy"), "{ended:?}");
    assert!(by_queue.iter().filter(|queue| queue["stored"].as_i64() > Some(0)).count() > 1, "{ended:?}");
    holds_all(dir.path(), 16, 250);
    assert_eq!(count(dir.path(), "udp"), 4000);
    verify(dir.path());
    rows_add_up(dir.path(), &ended);
}

/// Recorder and kernel say so of each of several queues.
fn is_zero_copy(recorder: &Recorder, rx: &str) {
    let ready = recorder.said.lines().last().unwrap();
    let queues: usize = ready
        .strip_prefix(&format!("ready: {rx} queues="))
        .and_then(|rest| rest.strip_suffix(" mode=zerocopy"))
        .and_then(|queues| queues.parse().ok())
        .unwrap_or_else(|| panic!("{}", recorder.said));
    assert!(queues > 1, "{ready}");
    assert_eq!(zero_copy_by_ss(), vec![true; queues], "{}", run("ss", &["--xdp", "-e"]));
}

#[test]
fn zero_copy_leaves_out_by_the_filter() {
    let (tx, rx) = cards!();
    let dir = tempfile::tempdir().unwrap();
    let rules = ["--mode", "zerocopy", "--skip", "port 10001"];
    let recorder = Recorder::spawn(&mut record_on(&rx, dir.path(), &rules));
    is_zero_copy(&recorder, &rx);
    send(&Sender::on(&tx), 8, 0..100, 200, &[]);
    wait_for(dir.path(), "udp", 700);
    let ended = recorder.stop();
    balances(&ended);
    let counts = ["seen", "stored", "filtered"].map(|key| ended.total(key));
    assert_eq!(counts, [800, 700, 100], "{ended:?}");
    let mut by_flow = stored(dir.path(), 0);
    assert_eq!(by_flow.remove(&1), None);
    assert!(by_flow.len() == 7 && by_flow.values().all(|numbers| numbers.iter().copied().eq(0..100)));
    rows_add_up(dir.path(), &ended);
}

/// The program stays on the card, which has left zero-copy with the dead process; the next recorder takes it over
/// and binds anew.
#[test]
fn a_killed_zero_copy_recorder_is_taken_over() {
    let (tx, rx) = cards!();
    let _unpin = Unpin;
    // The numbered packets are addressed to nobody, also while nobody records.
    run("ip", &["link", "set", "dev", &rx, "promisc", "on"]);
    let dir = tempfile::tempdir().unwrap();
    let start = || Recorder::spawn(&mut record_on(&rx, dir.path(), &["--mode", "zerocopy"]));
    let sender = Sender::on(&tx);
    let recorder = start();
    send(&sender, 16, 0..100, 60, &[]);
    wait_for(dir.path(), "udp", 1600);
    recorder.kill();
    // The card's queues go back to the stack: what comes meanwhile is lost before any program.
    std::thread::sleep(Duration::from_secs(1));
    send(&sender, 16, 100..150, 60, &[]);
    // All have come before the next one takes the card's queues over.
    let deadline = Instant::now() + Duration::from_secs(30);
    let status = || with_pins(&["status", "--store", dir.path().to_str().unwrap()]);
    while !status().2.contains(": 800 packets have passed") {
        assert!(Instant::now() < deadline, "{:?}", status());
        std::thread::sleep(Duration::from_millis(100));
    }
    let next = start();
    is_zero_copy(&next, &rx);
    send(&sender, 16, 150..200, 60, &[]);
    let deadline = Instant::now() + Duration::from_secs(30);
    while answer(dir.path(), "udp").0 != 2400 {
        assert!(Instant::now() < deadline, "{:?}", answer(dir.path(), "udp"));
        std::thread::sleep(Duration::from_millis(100));
    }
    let ended = next.stop();
    let (_, code, said) = answer(dir.path(), "udp");
    assert!(code == 3 && said.contains("(down), 800 packets"), "{code}: {said}");
    balances(&ended);
    let counts = ["seen", "stored", "dropped/down"].map(|key| ended.total(key));
    assert_eq!(counts, [1600, 800, 800], "{ended:?}");
    rows_add_up(dir.path(), &ended);
    let expected: Vec<u64> = (0..100).chain(150..200).collect();
    let by_flow = stored(dir.path(), 0);
    assert!(by_flow.keys().copied().eq(0..16) && by_flow.values().all(|n| *n == expected), "{by_flow:?}");
    assert!(pins().is_empty(), "{:?}", pins());
    verify(dir.path());
}

/// More packets than the RX ring takes, while nobody reads it.
#[test]
fn zero_copy_loses_by_the_book() {
    let (tx, rx) = cards!();
    let dir = tempfile::tempdir().unwrap();
    let recorder =
        Recorder::spawn(&mut record_on(&rx, dir.path(), &["--mode", "zerocopy", "--packet-memory", "16MiB"]));
    recorder.signal(Signal::SIGSTOP);
    let sender = Sender::on(&tx);
    send(&sender, 64, 0..160, 60, &[]);
    // One flow, so one queue, is more than its ring takes.
    send_burst(&sender, 10_000);
    recorder.signal(Signal::SIGCONT);
    let ended = recorder.stop();
    balances(&ended);
    assert!(ended.total("dropped/ring_full") > 0, "{ended:?}");
    let on_disk: usize = stored(dir.path(), 0).values().map(Vec::len).sum();
    assert_eq!(ended.total("stored"), i64::try_from(on_disk).unwrap(), "{ended:?}");
    // Readers get what is there, and are told what is not.
    let (found, code, said) = answer(dir.path(), "udp");
    assert_eq!((found, code), (u64::try_from(on_disk).unwrap(), 3), "{said}");
    assert!(said.contains("NOT WHOLE") && said.contains("(ring_full)"), "{said}");
    verify(dir.path());
    let rows = rows_add_up(dir.path(), &ended);
    let lost: i64 = rows.iter().map(|row| row.counts.ring_full).sum();
    assert_eq!(lost, ended.total("dropped/ring_full"), "{rows:#?}");
}

fn send_burst(sender: &Sender, count: u64) {
    for number in 0..count {
        let packet = numbered(99, number, 60, &[]);
        while !sender.send(&packet) {
            std::thread::sleep(Duration::from_micros(100));
        }
        if number % 64 == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// Fewer chunks than packets, and a reader that gives none back for a while: the card waits for chunks, the
/// program sees what it delivers, and nothing of that is lost.
#[test]
fn zero_copy_with_an_empty_fill_ring_is_accounted() {
    const CHUNKS: u32 = 64;
    let (tx, rx) = cards!();
    let ifindex = nix::net::if_::if_nametoindex(rx.as_str()).unwrap();
    // The numbered packets are addressed to nobody.
    run("ip", &["link", "set", "dev", &rx, "promisc", "on"]);
    let mut program = Program::load(0).unwrap();
    program.attach(ifindex, Mode::Native).unwrap();
    let config = XskConfig {
        ifindex,
        queue: 0,
        chunk: ChunkSize::Small,
        fragments: false,
        rx_entries: CHUNKS,
        chunks: CHUNKS,
    };
    let mut socket = XskSocket::open(config).unwrap();
    socket.bind(BindMode::ZeroCopy).unwrap();
    program.set_socket(0, socket.as_fd()).unwrap();
    let sender = Sender::on(&tx);
    // Flows enough for many on queue 0.
    send(&sender, 64, 0..10, 60, &[]);
    let deadline = Instant::now() + Duration::from_secs(20);
    while program.totals(0).unwrap().packets < u64::from(CHUNKS) && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(10));
    }
    std::thread::sleep(Duration::from_millis(200));
    let starved = program.totals(0).unwrap();
    let others = program.totals(1).unwrap();
    let wanted = (u64::from(CHUNKS), u64::from(CHUNKS));
    assert_eq!((starved.packets, starved.delivered()), wanted, "{starved:?}, queue 1: {others:?}");
    let stats = socket.stats().unwrap();
    assert!(stats.fill_ring_empty > 0, "{stats:?}");
    let mut arrived = Vec::new();
    let mut last = Instant::now();
    while last.elapsed() < Duration::from_secs(1) {
        let mut batch = socket.peek(CHUNKS);
        for packet in batch.packets() {
            let meta = packet.meta.expect("metadata");
            assert_eq!(meta.sequence, arrived.len() as u64, "a gap");
            arrived.push(number_of(packet.bytes, 0).expect("a numbered packet"));
            last = Instant::now();
        }
    }
    let totals = program.totals(0).unwrap();
    assert!(totals.packets > u64::from(CHUNKS), "nothing came after the chunks were back: {totals:?}");
    assert_eq!(
        (totals.packets, totals.delivered()),
        (arrived.len() as u64, arrived.len() as u64),
        "{totals:?}"
    );
    let mut by_flow: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
    for (flow, number) in arrived {
        by_flow.entry(flow).or_default().push(number);
    }
    assert!(by_flow.values().all(|numbers| numbers.is_sorted_by(|a, b| a < b)), "{by_flow:?}");
}

/// On a kernel whose virtio-net has none.
#[test]
fn without_zero_copy_the_card_is_copied() {
    let (tx, rx) = cards!();
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::spawn(&mut record_on(&rx, dir.path(), &[]));
    assert!(recorder.said.contains("no mode zerocopy, trying copy"), "{}", recorder.said);
    assert!(recorder.said.trim_end().ends_with("mode=copy"), "{}", recorder.said);
    send(&Sender::on(&tx), 16, 0..100, 60, &[]);
    wait_for(dir.path(), "udp", 1600);
    let ended = recorder.stop();
    balances(&ended);
    assert_eq!((ended.total("seen"), ended.total("stored")), (1600, 1600), "{ended:?}");
    holds_all(dir.path(), 16, 100);
}
