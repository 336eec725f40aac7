//! `tapedeck record` on a veth: what was sent is in the segments, and the ledger says so.

mod support;

use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;
use support::{Net, Recorder, number_of, numbered, packets, segments};

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

/// Numbers per flow in the order they stand in the store; times of each segment must not go back.
fn stored(store: &Path, tags: usize) -> BTreeMap<u16, Vec<u64>> {
    let mut found: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
    for segment in segments(store) {
        let packets = packets(&segment);
        assert!(packets.is_sorted_by_key(|packet| packet.0), "{}: time goes back", segment.display());
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
    assert_eq!((ended.total("seen"), ended.total("stored")), (4000, 4000), "{ended:?}");
    assert_eq!((ended.total("stored_bytes"), ended.total("pending")), (60 * 4000, 0));
    assert_eq!(ended.total("unaccounted"), 0);
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
