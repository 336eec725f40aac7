//! `kill -9` under load: the next start seals what was open, and nothing older than 250 ms is lost.

use crate::bad_input::Seeded;
use crate::reference::read_bytes;
use crate::tools::{alone, bin, need_root, run, stderr, stdout};
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tapedeck_bench::link::Link;
use tapedeck_bench::probe::{Probe, Sender, now_ns};
use tapedeck_bench::recorder::Recorder;

const RATE_PPS: u32 = 50_000;
/// What survives `kill -9`: everything that arrived longer ago than this.
const PROMISE_NS: u64 = 250_000_000;
/// Before an orderly stop: a frame may still be on its way through the kernel.
const SLACK_NS: u64 = 100_000_000;

/// From ready to killed (or stopped): in here, up to the promise, no packet may be missing.
struct Life {
    ready_ns: u64,
    end_ns: u64,
    killed: bool,
}

/// Sends without end until told to stop; returns when each probe was sent, by number.
fn keep_sending(link: &Link, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<Vec<u64>> {
    let (namespace, stop) = (link.path(), Arc::clone(stop));
    std::thread::spawn(move || {
        let sender = Sender::open(&namespace, "tx0").unwrap();
        let slice = u64::from(RATE_PPS / 20);
        let mut times = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            let first = times.len() as u64;
            sender.send(first, slice, RATE_PPS, 300, |probe| times.push(probe.sent_ns)).unwrap();
        }
        times
    })
}

fn lives(link: &Link, store: &std::path::Path, rounds: usize, seed: u64) -> Vec<Life> {
    let mut random = Seeded::new(seed);
    let mut lives = Vec::new();
    for round in 0..=rounds {
        let recorder = Recorder::start(link, store, &[]).unwrap();
        let ready_ns = now_ns().unwrap();
        std::thread::sleep(Duration::from_millis(400 + random.below(1200) as u64));
        let killed = round < rounds;
        lives.push(Life { ready_ns, end_ns: now_ns().unwrap(), killed });
        if killed {
            recorder.kill().unwrap();
        } else {
            let ledger = recorder.stop().unwrap();
            assert_eq!(ledger["total"]["unaccounted"], 0, "{ledger}");
        }
    }
    lives
}

/// Probes of the whole store by number; fails on one that stands there twice.
fn stored(store: &std::path::Path) -> HashMap<u64, Probe> {
    let answer = run(bin("taperead"), &["packets", "--store", store.to_str().unwrap(), "-w", "-"]);
    // Packets passed between a kill and the next start, and the answer says so.
    assert_eq!(answer.status.code(), Some(3), "{}", stderr(&answer));
    assert!(stderr(&answer).contains("passed while no recorder ran (down)"), "{}", stderr(&answer));
    let mut probes = HashMap::new();
    for packet in read_bytes(&answer.stdout) {
        let probe = Probe::decode(&packet.bytes).expect("only probes travel on this link");
        assert!(probes.insert(probe.number, probe).is_none(), "probe {} is stored twice", probe.number);
    }
    probes
}

/// Every probe sent inside a life (and, if it was killed, before the promise) must be stored. Returns
/// how many were owed.
fn assert_nothing_owed(stored: &HashMap<u64, Probe>, sent: &[u64], lives: &[Life], seed: u64) -> usize {
    let mut owed_in_all = 0;
    for (round, life) in lives.iter().enumerate() {
        let until = life.end_ns - if life.killed { PROMISE_NS } else { SLACK_NS };
        let owed = sent.iter().zip(0_u64..).filter(|(ns, _)| (life.ready_ns..until).contains(ns));
        let (mut count, mut missing) = (0, Vec::new());
        for (ns, number) in owed {
            count += 1;
            if !stored.contains_key(&number) {
                missing.push((number, until - ns));
            }
        }
        assert!(count > 0, "seed {seed}: nothing was sent in life {round}");
        assert!(
            missing.is_empty(),
            "seed {seed}: life {round} lost {} of {count}; the last one {} ns before the promise",
            missing.len(),
            missing.last().unwrap().1
        );
        owed_in_all += count;
    }
    owed_in_all
}

fn kill_rounds(rounds: usize, seed: u64) {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    let link = Link::make(1, 1500).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let sender = keep_sending(&link, &stop);
    let lives = lives(&link, &store, rounds, seed);
    stop.store(true, Ordering::Relaxed);
    let sent = sender.join().unwrap();
    let verify = run(bin("tapedeck"), &["verify", "--store", store.to_str().unwrap()]);
    assert_eq!(verify.status.code(), Some(0), "seed {seed}: {}{}", stdout(&verify), stderr(&verify));
    let probes = stored(&store);
    let owed = assert_nothing_owed(&probes, &sent, &lives, seed);
    println!("kill -9: {rounds} times, {} packets sent, {} stored, {owed} owed", sent.len(), probes.len());
}

#[test]
fn twenty_kills_lose_nothing_older_than_250_ms() {
    let _turn = alone();
    if need_root("kill -9 under load") {
        kill_rounds(20, 4711);
    }
}

mod soak {
    use super::{alone, kill_rounds, need_root};

    #[test]
    fn two_hundred_kills_lose_nothing_older_than_250_ms() {
        let _turn = alone();
        if need_root("kill -9 under load, long") {
            for seed in 1..=4 {
                kill_rounds(50, seed);
            }
        }
    }
}
