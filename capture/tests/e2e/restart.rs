//! `kill -9` under load: the next start seals what was open, and nothing older than 250 ms is lost.

use crate::bad_input::Seeded;
use crate::reference::read_bytes;
use crate::tools::{bin, need_root, run, stderr, stdout};
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
/// Frames in flight between the sender's stamp and the recorder's readiness.
const SLACK_NS: u64 = 20_000_000;

/// From ready to killed (or stopped): in here, up to the promise, no packet may be missing.
struct Life {
    ready_ns: u64,
    end_ns: u64,
    killed: bool,
}

/// Sends without end until told to stop; returns how many.
fn keep_sending(link: &Link, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<u64> {
    let (namespace, stop) = (link.path(), Arc::clone(stop));
    std::thread::spawn(move || {
        let sender = Sender::open(&namespace, "tx0").unwrap();
        let slice = u64::from(RATE_PPS / 20);
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            sender.send(number, slice, RATE_PPS, 300).unwrap();
            number += slice;
        }
        number
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
    assert_eq!(answer.status.code(), Some(0), "{}", stderr(&answer));
    let mut probes = HashMap::new();
    for packet in read_bytes(&answer.stdout) {
        let probe = Probe::decode(&packet.bytes).expect("only probes travel on this link");
        assert!(probes.insert(probe.number, probe).is_none(), "probe {} is stored twice", probe.number);
    }
    probes
}

/// Probe numbers that must be there: sent inside a life and, if it was killed, before the promise.
/// Times of numbers that are missing are read off their neighbours.
fn assert_nothing_owed(probes: &HashMap<u64, Probe>, lives: &[Life], seed: u64) {
    for (round, life) in lives.iter().enumerate() {
        let until = life.end_ns - if life.killed { PROMISE_NS } else { SLACK_NS };
        let mut inside: Vec<u64> = probes
            .values()
            .filter(|p| (life.ready_ns + SLACK_NS..until).contains(&p.sent_ns))
            .map(|p| p.number)
            .collect();
        inside.sort_unstable();
        let (first, last) = (inside.first().copied(), inside.last().copied());
        let (first, last) =
            first.zip(last).unwrap_or_else(|| panic!("seed {seed}: life {round} left nothing"));
        assert_eq!(last - first + 1, inside.len() as u64, "seed {seed}: life {round} has a hole");
        let span_ns = until - (life.ready_ns + SLACK_NS);
        let owed = span_ns * u64::from(RATE_PPS) / 1_000_000_000;
        assert!(
            inside.len() as u64 * 10 > owed * 8,
            "seed {seed}: life {round}: {} of about {owed}",
            inside.len()
        );
        let newest = probes.get(&last).unwrap().sent_ns;
        assert!(until - newest < SLACK_NS, "seed {seed}: life {round} ends {} ns early", until - newest);
    }
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
    println!("kill -9: {rounds} times, {sent} packets sent, {} stored", probes.len());
    assert_nothing_owed(&probes, &lives, seed);
}

#[test]
fn twenty_kills_lose_nothing_older_than_250_ms() {
    if need_root("kill -9 under load") {
        kill_rounds(20, 4711);
    }
}
