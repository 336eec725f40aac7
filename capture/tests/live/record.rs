//! `tapedeck record` on a veth: what was sent is in the segments, and the ledger says so.

use crate::support::recorder::{Ended, Recorder, packets, segments};
use crate::support::{Net, live, number_of, numbered, run};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Sends `each` packets of `flows` flows, slowly enough for any machine.
fn send_paced(net: &Net, flows: u16, each: u64, len: usize, tags: &[u16]) {
    let sender = net.sender();
    for number in 0..each {
        for flow in 0..flows {
            assert!(sender.send(&numbered(flow, number, len, tags)));
        }
        std::thread::sleep(Duration::from_micros(300));
    }
}

/// Numbers per flow in the order they stand in the store.
fn stored(store: &Path, tags: usize) -> BTreeMap<u16, Vec<u64>> {
    let mut found: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
    for segment in segments(store) {
        let packets = packets(&segment);
        for (flow, number) in packets.iter().filter_map(|packet| number_of(&packet.1, tags)) {
            found.entry(flow).or_default().push(number);
        }
    }
    found
}

fn whole(flows: u16, each: u64) -> BTreeMap<u16, Vec<u64>> {
    (0..flows).map(|flow| (flow, (0..each).collect())).collect()
}

fn each_packet_is_stored_once(mode: &str, queues: u32) {
    let net = Net::new(4, 1500);
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&net, dir.path(), &["--mode", mode]);
    assert_eq!(
        recorder.said.lines().last().unwrap(),
        format!("ready: {} queues={queues} mode={mode}", net.rx)
    );
    send_paced(&net, 16, 250, 60, &[]);
    let ended = recorder.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(stored(dir.path(), 0), whole(16, 250), "{ended:?}");
    for segment in segments(dir.path()) {
        assert!(
            packets(&segment).is_sorted_by_key(|packet| packet.0),
            "{}: time goes back",
            segment.display()
        );
    }
    assert_eq!((ended.total("seen"), ended.total("stored")), (4000, 4000), "{ended:?}");
    assert_eq!((ended.total("stored_bytes"), ended.total("pending")), (60 * 4000, 0));
    assert_eq!(ended.total("unaccounted"), 0);
}

/// Long packets are cut where `--snaplen` says, short ones are not; the lengths on the wire and the counts stay.
#[test]
fn cut_packets_keep_their_lengths_and_are_counted() {
    live!();
    const SNAPLEN: usize = 96;
    for mode in ["copy", "packet"] {
        let net = Net::new(1, 1500);
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(&net, dir.path(), &["--mode", mode, "--snaplen", "96"]);
        send_paced(&net, 2, 100, 300, &[]);
        send_paced(&net, 1, 50, 60, &[]);
        let ended = recorder.stop();
        assert_eq!(ended.code, Some(0), "{mode}: {}", ended.stderr);
        let total = |key| ended.total(key);
        assert_eq!(
            (total("seen"), total("stored"), total("unaccounted")),
            (250, 250, 0),
            "{mode}: {ended:?}"
        );
        assert_eq!((total("cut_packets"), total("cut_bytes")), (200, 200 * (300 - 96)), "{mode}: {ended:?}");
        assert_eq!(total("stored_bytes"), 200 * 96 + 50 * 60, "{mode}: {ended:?}");
        let mut lengths: BTreeMap<(usize, u32), u32> = BTreeMap::new();
        for segment in segments(dir.path()) {
            let raw = Command::new("zstd").arg("-dcq").arg(&segment).output().unwrap().stdout;
            for (captured, original) in lengths_of(&raw) {
                assert!(captured <= SNAPLEN);
                *lengths.entry((captured, original)).or_default() += 1;
            }
        }
        assert_eq!(lengths, BTreeMap::from([((96, 300), 200), ((60, 60), 50)]), "{mode}");
    }
}

/// Captured and original length of every packet of a pcapng file.
fn lengths_of(mut rest: &[u8]) -> Vec<(usize, u32)> {
    let mut found = Vec::new();
    while rest.len() >= 12 {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        if word(0) == 6 {
            found.push((word(20) as usize, word(24)));
        }
        rest = &rest[word(4) as usize..];
    }
    found
}

#[test]
fn copy_mode_stores_each_packet_once() {
    live!();
    each_packet_is_stored_once("copy", 4);
}

#[test]
fn skb_mode_stores_each_packet_once() {
    live!();
    each_packet_is_stored_once("skb", 4);
}

#[test]
fn packet_mode_stores_each_packet_once() {
    live!();
    each_packet_is_stored_once("packet", 1);
}

/// Everything seen is stored or has a cause, and nothing is stored twice.
fn books_balance(ended: &Ended, store: &Path, tags: usize) {
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!((ended.total("unaccounted"), ended.total("pending")), (0, 0), "{ended:?}");
    let queues = ended.ledger["queues"].as_array().unwrap();
    assert!(queues.iter().all(|queue| queue["unaccounted"] == 0), "{ended:?}");
    let mut on_disk = 0;
    for (flow, numbers) in stored(store, tags) {
        assert!(numbers.is_sorted_by(|a, b| a < b), "flow {flow} has a packet twice or out of order");
        on_disk += numbers.len();
    }
    assert_eq!(ended.total("stored"), i64::try_from(on_disk).unwrap(), "{ended:?}");
}

fn a_stopped_recorder_loses_by_the_book(mode: &str, count: u64, len: usize) {
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&net, dir.path(), &["--mode", mode, "--packet-memory", "16MiB"]);
    recorder.signal(Signal::SIGSTOP);
    let sender = net.sender();
    for number in 0..count {
        assert!(sender.send(&numbered(0, number, len, &[])));
        // The veth's own ring has 256 places.
        if number % 64 == 0 {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
    recorder.signal(Signal::SIGCONT);
    let ended = recorder.stop();
    books_balance(&ended, dir.path(), 0);
    assert!(ended.total("dropped/ring_full") > 0, "{ended:?}");
    assert!(ended.total("seen") > i64::try_from(count).unwrap() * 9 / 10, "{ended:?}");
}

#[test]
fn a_stopped_recorder_loses_by_the_book_in_copy_mode() {
    live!();
    a_stopped_recorder_loses_by_the_book("copy", 12_000, 60);
}

#[test]
fn a_stopped_recorder_loses_by_the_book_in_skb_mode() {
    live!();
    a_stopped_recorder_loses_by_the_book("skb", 12_000, 60);
}

#[test]
fn a_stopped_recorder_loses_by_the_book_in_packet_mode() {
    live!();
    a_stopped_recorder_loses_by_the_book("packet", 60_000, 1400);
}

/// A flood from several threads, which goes on while the recorder stops.
fn a_flood_is_accounted_for(mode: &str) {
    let net = Net::new(4, 1500);
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&net, dir.path(), &["--mode", mode]);
    let stop = AtomicBool::new(false);
    let ended = std::thread::scope(|scope| {
        for thread in 0..2u16 {
            let (sender, stop) = (net.sender(), &stop);
            scope.spawn(move || {
                for number in 0.. {
                    if stop.load(Ordering::Relaxed) {
                        break;
                    }
                    for flow in 0..8 {
                        sender.send(&numbered(thread * 8 + flow, number, 300, &[]));
                    }
                }
            });
        }
        std::thread::sleep(Duration::from_millis(1500));
        let ended = recorder.stop();
        stop.store(true, Ordering::Relaxed);
        ended
    });
    books_balance(&ended, dir.path(), 0);
    assert!(ended.total("stored") > 1000, "{ended:?}");
}

#[test]
fn a_flood_is_accounted_for_in_copy_mode() {
    live!();
    a_flood_is_accounted_for("copy");
}

#[test]
fn a_flood_is_accounted_for_in_skb_mode() {
    live!();
    a_flood_is_accounted_for("skb");
}

#[test]
fn a_flood_is_accounted_for_in_packet_mode() {
    live!();
    a_flood_is_accounted_for("packet");
}

#[test]
fn tags_and_jumbo_packets_are_stored_whole() {
    live!();
    for mode in ["copy", "skb", "packet"] {
        for (len, tags) in [(9018, 1), (9014, 0), (1000, 2)] {
            let net = Net::new(1, 9000);
            let dir = tempfile::tempdir().unwrap();
            let recorder = Recorder::start(&net, dir.path(), &["--mode", mode]);
            let ids = &[7, 8][..tags];
            send_paced(&net, 1, 50, len, ids);
            let ended = recorder.stop();
            books_balance(&ended, dir.path(), tags);
            let got: Vec<_> = segments(dir.path()).iter().flat_map(|path| packets(path)).collect();
            assert_eq!(got.len(), 50, "{mode} {len} {tags}: {ended:?}");
            assert!(
                (0..50).zip(&got).all(|(n, packet)| packet.1 == numbered(0, n, len, ids)),
                "{mode} {len}"
            );
        }
    }
}

/// The sending end pushes tag 42 in the packet's metadata, as a VLAN interface would.
#[test]
fn tags_that_travel_beside_the_packet_are_put_back() {
    live!();
    const PROGRAM: &str = "#include <linux/bpf.h>\n\
        static long (*vlan_push)(struct __sk_buff *, __be16, __u16) = (void *)18;\n\
        __attribute__((section(\"classifier\"), used))\n\
        int push(struct __sk_buff *skb) { vlan_push(skb, 0x0081, 42); return 0; }\n\
        __attribute__((section(\"license\"), used)) char LICENSE[] = \"Dual MIT/GPL\";\n";
    for (mode, in_metadata) in [("copy", false), ("skb", false), ("packet", false), ("packet", true)] {
        let net = Net::new(1, 1500);
        net.vlan_offload(in_metadata);
        let dir = tempfile::tempdir().unwrap();
        let (source, object) = (dir.path().join("push.c"), dir.path().join("push.o"));
        std::fs::write(&source, PROGRAM).unwrap();
        let headers = format!("-I/usr/include/{}-linux-gnu", std::env::consts::ARCH);
        let (source, object) = (source.to_str().unwrap(), object.to_str().unwrap());
        run("clang", &["-O2", "-target", "bpf", &headers, "-c", source, "-o", object]);
        run("tc", &["qdisc", "add", "dev", &net.tx, "clsact"]);
        run(
            "tc",
            &["filter", "add", "dev", &net.tx, "egress", "bpf", "da", "obj", object, "sec", "classifier"],
        );
        let recorder = Recorder::start(&net, dir.path(), &["--mode", mode]);
        send_paced(&net, 2, 50, 100, &[]);
        let ended = recorder.stop();
        let got: Vec<_> = segments(dir.path()).iter().flat_map(|path| packets(path)).collect();
        assert_eq!(got.len(), 100, "{mode}: {ended:?}");
        for (_, packet) in &got {
            let (flow, number) = number_of(packet, 1).expect("one tag");
            assert_eq!(*packet, numbered(flow, number, 104, &[42]), "{mode}, metadata: {in_metadata}");
        }
    }
}

#[test]
fn an_interface_that_goes_down_and_comes_back_is_recorded_on() {
    live!();
    for mode in ["copy", "skb", "packet"] {
        let net = Net::new(1, 1500);
        let dir = tempfile::tempdir().unwrap();
        let recorder = Recorder::start(&net, dir.path(), &["--mode", mode]);
        let sender = net.sender();
        let send = |numbers: std::ops::Range<u64>| {
            for number in numbers {
                assert!(sender.send(&numbered(0, number, 60, &[])));
            }
            std::thread::sleep(Duration::from_millis(100));
        };
        send(0..100);
        run("ip", &["link", "set", &net.rx, "down"]);
        std::thread::sleep(Duration::from_millis(100));
        run("ip", &["link", "set", &net.rx, "up"]);
        // The sending end learns of its carrier later; until then it drops in silence.
        let carrier = || run("ip", &["link", "show", &net.tx]).contains("LOWER_UP");
        let active = || run("ip", &["link", "show", &net.tx]).contains("qdisc noqueue state UP");
        let ready = (0..400).any(|_| {
            std::thread::sleep(Duration::from_millis(10));
            carrier() && active()
        });
        assert!(ready, "the link did not come back");
        send(100..200);
        let ended = recorder.stop();
        books_balance(&ended, dir.path(), 0);
        assert_eq!(stored(dir.path(), 0)[&0], (0..200).collect::<Vec<_>>(), "{mode}: {ended:?}");
    }
}

#[test]
fn a_killed_recorder_is_recovered_by_the_next() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&net, dir.path(), &["--mode", "copy"]);
    send_paced(&net, 2, 100, 60, &[]);
    let deadline = std::time::Instant::now() + Duration::from_secs(20);
    while status_total(dir.path(), "stored") != Some(200) && std::time::Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(100));
    }
    recorder.signal(Signal::SIGKILL);
    drop(recorder);
    let next = Recorder::start(&net, dir.path(), &["--mode", "copy"]);
    assert!(next.said.contains("recovered ") && next.said.contains(": 200 packets"), "{}", next.said);
    let ended = next.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_eq!(stored(dir.path(), 0), whole(2, 100));
}

/// A number of the live ledger's total; `None` when no recorder says that it runs.
fn status_total(store: &Path, key: &str) -> Option<i64> {
    let out = Command::new(env!("CARGO_BIN_EXE_tapedeck"))
        .args(["status", "--json", "--store"])
        .arg(store)
        .output()
        .unwrap();
    let ledger: serde_json::Value = serde_json::from_slice(&out.stdout).ok()?;
    assert_eq!(out.status.code(), Some(0));
    ledger["total"][key].as_i64()
}
