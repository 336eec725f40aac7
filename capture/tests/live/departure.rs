//! Interfaces that leave, recorders that are killed or told twice to stop.

use crate::support::recorder::{Recorder, packets, record_command, segments};
use crate::support::{Net, Sender, join, live, numbered, run};
use nix::sys::signal::Signal;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// `seen = filtered + stored + pending + dropped + unaccounted`, and nothing unaccounted.
fn assert_balanced(ledger: &serde_json::Value) {
    for entry in ledger["queues"].as_array().unwrap() {
        let number = |key: &str| entry[key].as_i64().unwrap();
        let dropped: i64 = entry["dropped"].as_object().unwrap().values().map(|n| n.as_i64().unwrap()).sum();
        let sum = number("filtered") + number("stored") + number("pending") + dropped;
        assert_eq!((number("unaccounted"), number("seen")), (0, sum), "{entry}");
    }
}

fn send(sender: &Sender, numbers: std::ops::Range<u64>) {
    for number in numbers {
        assert!(sender.send(&numbered(0, number, 100, &[])));
    }
}

/// Packets in the sealed segments of a store.
fn in_segments(store: &Path) -> usize {
    segments(store).iter().map(|segment| packets(segment).len()).sum()
}

/// A process in a network namespace of its own, gone with this value.
struct Elsewhere(Child);

impl Elsewhere {
    fn new() -> Self {
        let child = Command::new("unshare").args(["-n", "sleep", "600"]).stdin(Stdio::null()).spawn();
        let elsewhere = Self(child.unwrap());
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let link = format!("/proc/{}/ns/net", elsewhere.0.id());
        // unshare(1) needs a moment.
        while std::fs::read_link(&link).unwrap() == own {
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        elsewhere
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_recording_whose_interface_leaves_ends_in_order() {
    live!();
    for mode in ["copy", "skb", "packet"] {
        for moved in [false, true] {
            let net = Net::new(2, 1500);
            let dir = tempfile::tempdir().unwrap();
            let recorder = Recorder::start(&net, dir.path(), &["--mode", mode]);
            send(&net.sender(), 0..100);
            std::thread::sleep(std::time::Duration::from_millis(100));
            let elsewhere = moved.then(Elsewhere::new);
            match &elsewhere {
                Some(elsewhere) => {
                    let pid = elsewhere.0.id().to_string();
                    run("ip", &["link", "set", &net.rx, "netns", &pid]);
                }
                None => drop(run("ip", &["link", "del", &net.rx])),
            }
            let ended = recorder.wait();
            assert_eq!(ended.code, Some(2), "{mode}: {}", ended.stderr);
            let how = if moved { "was moved to another network namespace" } else { "was deleted" };
            let what = format!("error: no interface is left to record: {} {how}", net.rx);
            assert!(ended.stderr.contains(&what) && ended.stderr.contains("\n\nhint: "), "{}", ended.stderr);
            assert_balanced(&ended.ledger);
            assert_eq!(ended.total("pending"), 0);
            assert_eq!(i64::try_from(in_segments(dir.path())).unwrap(), ended.total("stored"), "{ended:?}");
            assert_eq!(ended.total("stored"), 100, "{ended:?}");
        }
    }
}

#[test]
fn the_other_interfaces_go_on_and_the_ledger_keeps_the_lost_one() {
    live!();
    let net = Net::new(1, 1500);
    join("tx-b", "rx-b");
    let dir = tempfile::tempdir().unwrap();
    let mut recorder = Recorder::start(&net, dir.path(), &["--mode", "copy", "--interface", "rx-b"]);
    let other = Sender::on("tx-b");
    send(&net.sender(), 0..50);
    send(&other, 0..20);
    run("ip", &["link", "del", &net.rx]);
    recorder.wait_for_words("was deleted; its recording ends");
    send(&other, 20..60);
    // A link that is only down is waited for.
    run("ip", &["link", "set", "rx-b", "down"]);
    std::thread::sleep(std::time::Duration::from_millis(300));
    run("ip", &["link", "set", "rx-b", "up"]);
    run("ip", &["link", "set", "tx-b", "up"]);
    send(&other, 60..80);
    let ended = recorder.stop();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert_balanced(&ended.ledger);
    let of = |name: &str| {
        let queues = ended.ledger["queues"].as_array().unwrap();
        queues.iter().filter(|q| q["interface"] == name).map(|q| q["stored"].as_i64().unwrap()).sum::<i64>()
    };
    assert_eq!((of(&net.rx), of("rx-b")), (50, 80), "{ended:?}");
    assert_eq!(ended.ledger["interfaces"].as_array().unwrap().len(), 2);
}

#[test]
fn a_recorder_after_kill_9_puts_back_what_the_killed_one_changed() {
    live!();
    let net = Net::new(1, 1500);
    net.vlan_offload(true);
    let rxvlan = || run("ethtool", &["-k", &net.rx]).contains("rx-vlan-offload: on");
    let dir = tempfile::tempdir().unwrap();
    let notes = dir.path().join("notes");
    let store = dir.path().join("store");
    let start = || {
        let mut command = record_command(&net, &store, &["--mode", "copy"]);
        Recorder::spawn(command.env("TAPEDECK_STATE_DIR", &notes))
    };
    let noted = || std::fs::read_dir(&notes).unwrap().count();
    for _ in 0..2 {
        let recorder = start();
        assert!(!rxvlan());
        recorder.kill();
        assert!(!rxvlan());
        assert_eq!(noted(), 1);
    }
    let recorder = start();
    assert!(recorder.said.contains("puts back what was before"), "{}", recorder.said);
    assert!(!rxvlan());
    assert_eq!(recorder.stop().code, Some(0));
    assert!(rxvlan(), "the next clean stop sets back what the killed one found");
    assert_eq!(noted(), 0);
    // What the operator has off stays off.
    net.vlan_offload(false);
    let recorder = start();
    assert_eq!((noted(), recorder.stop().code), (0, Some(0)));
    assert!(!rxvlan());
}

#[test]
fn a_second_signal_ends_without_sealing_and_recovery_finds_what_was_stored() {
    live!();
    // The drain may be over before the second signal is sent; then it was in order.
    let cut = (0..10).any(|_| {
        let net = Net::new(1, 1500);
        net.vlan_offload(true);
        let dir = tempfile::tempdir().unwrap();
        let mut recorder = Recorder::start(&net, dir.path(), &["--mode", "copy"]);
        send(&net.sender(), 0..200);
        std::thread::sleep(std::time::Duration::from_millis(500));
        recorder.signal(Signal::SIGINT);
        recorder.wait_for_words("stopping: ");
        recorder.signal(Signal::SIGTERM);
        let ended = recorder.wait();
        assert!(run("ethtool", &["-k", &net.rx]).contains("rx-vlan-offload: on"));
        if ended.code == Some(0) {
            return false;
        }
        assert_eq!(ended.code, Some(2), "{}", ended.stderr);
        assert!(ended.stderr.contains("error: ended by a second signal"), "{}", ended.stderr);
        assert!(ended.stderr.contains("up to 0 packets in memory are lost"), "{}", ended.stderr);
        assert!(ended.stderr.contains("tapedeck recover"), "{}", ended.stderr);
        assert!(ended.ledger.is_null(), "books that are not closed are not printed: {ended:?}");
        let store = dir.path().to_str().unwrap();
        run(env!("CARGO_BIN_EXE_tapedeck"), &["recover", "--store", store]);
        assert_eq!(in_segments(dir.path()), 200);
        true
    });
    assert!(cut, "no second signal came in time");
}
