//! `kill -9` at random points under load: every packet that was placed is stored once or stands in one line of the
//! ledger that is printed last, and in one row of the table.

use crate::flood::{FLOWS, Numbers, counted, pin};
use crate::ledger::{table_tells, utc_ns};
use crate::support::recorder::{Ended, Recorder, pins};
use crate::support::{Net, live, number_of, numbered};
use crate::takeover::{balances, dropped, not_placed, verify};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{BufReader, Read as _};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tapedeck_bench::recorder::binary;
use tapedeck_ebpf::generator::Flood;
use tapedeck_index::table::ledger::{LedgerCounts, RowKind};

/// Kills recorders at random points and starts them anew; the last one lives.
fn kill_and_restart(
    net: &Net,
    store: &Path,
    mode: &str,
    (rounds, seed): (usize, u64),
    first: Recorder,
) -> Recorder {
    let mut state = seed;
    let mut recorder = first;
    for _ in 0..rounds {
        // Knuth's MMIX generator is random enough.
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        // Some die before their first rows are on disk.
        std::thread::sleep(Duration::from_millis(100 + (state >> 33) % 2900));
        recorder.kill();
        std::thread::sleep(Duration::from_millis((state >> 13) % 200));
        recorder = Recorder::start(net, store, &["--mode", mode]);
    }
    std::thread::sleep(Duration::from_millis(300));
    recorder
}

/// Gives every packet that `taperead` finds to `take`; what it says of the answer.
fn read_back(store: &Path, mut take: impl FnMut(&[u8])) -> serde_json::Value {
    let mut command = Command::new(binary("taperead"));
    command.args(["packets", "--json", "-w", "-", "--format", "pcap", "--store"]).arg(store);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut packets = BufReader::with_capacity(1 << 20, child.stdout.take().unwrap());
    packets.read_exact(&mut [0; 24]).unwrap();
    // Seconds, fraction, captured length, original length.
    let (mut head, mut packet) = ([0; 16], Vec::new());
    while packets.read_exact(&mut head).is_ok() {
        packet.resize(u32::from_le_bytes(head[8..12].try_into().unwrap()) as usize, 0);
        packets.read_exact(&mut packet).unwrap();
        take(&packet);
    }
    let out = child.wait_with_output().unwrap();
    let said = String::from_utf8(out.stderr).unwrap();
    // It has gaps: what was lost in the crashes, and meanwhile.
    assert_eq!(out.status.code(), Some(3), "{said}");
    serde_json::from_str(said.lines().last().unwrap()).unwrap()
}

/// The books after it, of so many packets that were `placed` and `there` that were read back, each once.
fn judge(store: &Path, ended: &Ended, (placed, there): (u64, usize), said: &str) {
    balances(ended);
    verify(store);
    let rows = table_tells(&[store], &ended.ledger, placed);
    let stored: i64 = rows.iter().map(|row| row.counts.stored).sum();
    let told = u64::try_from(stored).unwrap() + dropped(&ended.ledger);
    assert_eq!(placed, told, "{stored} stored; {said}");
    assert_eq!(usize::try_from(stored).unwrap(), there, "read back; {said}");
    assert!(rows.iter().any(|row| row.kind == RowKind::Crash), "{said}");
    assert!(ended.total("dropped/down") > 0 && pins().is_empty(), "{said}");
}

/// Live frames, paced to `rate` a second on each of so many queues.
fn under_live_frames(lanes: u16, rounds: usize, seed: u64, rate: u64) -> String {
    let net = Net::new(lanes.into(), 1500);
    let dir = tempfile::tempdir().unwrap();
    // The first one is there before the first packet.
    let first = Recorder::start(&net, dir.path(), &["--mode", "copy"]);
    let flood = |lane: u16| Flood {
        ifindex: nix::net::if_::if_nametoindex(net.tx.as_str()).unwrap(),
        template: numbered(0, 0, 100, &[]),
        count: u64::MAX,
        gap: Duration::from_nanos(1_000_000_000 / rate),
        first_flow: lane * FLOWS,
        flows: FLOWS,
        random: None,
    };
    let stop = AtomicBool::new(false);
    let (ended, sent, took) = std::thread::scope(|scope| {
        let (stop, began) = (&stop, Instant::now());
        let sending = |lane: u16| {
            let flood = flood(lane);
            scope.spawn(move || {
                pin(lane.into());
                flood.send(stop).unwrap()
            })
        };
        let sending: Vec<_> = (0..lanes).map(sending).collect();
        let end = crate::flood::EndOfLoad(stop);
        let last = kill_and_restart(&net, dir.path(), "copy", (rounds, seed), first);
        drop(end);
        let sent: Vec<u64> = sending.into_iter().map(|lane| lane.join().unwrap()).collect();
        let took = began.elapsed();
        (last.stop(), sent, took)
    });
    let refused = counted(&net.tx, "xdp_xmit_errors");
    let said = format!("seed {seed}: {sent:?} sent, {refused} not placed; {ended:?}");
    let mut numbers = Numbers::new(&sent);
    read_back(dir.path(), |packet| numbers.take(packet));
    let (there, sent) = (numbers.found, sent.iter().sum::<u64>());
    judge(dir.path(), &ended, (sent - refused, there), &said);
    format!(
        "{rounds} kills under live frames on {lanes} queues: {sent} sent in {took:?}, {:.0}/s, {refused} not placed, {there} \
         read back, lost {}",
        sent as f64 / took.as_secs_f64(),
        ended.ledger["total"]["dropped"]
    )
}

/// Sends eight packets at a time through a packet socket while recorders are killed; when each was sent, in nanoseconds
/// since the epoch.
fn under_a_socket(
    net: &Net,
    store: &Path,
    mode: &str,
    (rounds, seed): (usize, u64),
) -> (Ended, BTreeMap<(u16, u64), u64>) {
    let first = Recorder::start(net, store, &["--mode", mode]);
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (sender, stop) = (net.sender(), &stop);
        let sending = scope.spawn(move || {
            let (mut number, mut sent) = (0, BTreeMap::new());
            while !stop.load(Ordering::Relaxed) {
                for flow in 0..8 {
                    sent.insert((flow, number), utc_ns());
                    while !sender.send(&numbered(flow, number, 100, &[])) {}
                }
                number += 1;
                std::thread::sleep(Duration::from_micros(300));
            }
            sent
        });
        let end = crate::flood::EndOfLoad(stop);
        let last = kill_and_restart(net, store, mode, (rounds, seed), first);
        drop(end);
        let sent = sending.join().unwrap();
        (last.stop(), sent)
    })
}

/// The numbered packets that `taperead` finds, each once, and what it says of the answer.
fn found(store: &Path) -> (BTreeSet<(u16, u64)>, serde_json::Value) {
    let mut found = BTreeSet::new();
    let verdict = read_back(store, |packet| {
        let number = number_of(packet, 0).expect("only numbered packets travel here");
        assert!(found.insert(number), "{number:?} is read twice");
    });
    (found, verdict)
}

#[test]
fn five_kills_under_load_leave_no_packet_unaccounted() {
    live!();
    println!("{}", under_live_frames(1, 5, 4711, 200_000));
}

#[test]
fn three_kills_under_load_on_two_queues_leave_no_packet_unaccounted() {
    live!();
    println!("{}", under_live_frames(2, 3, 4713, 100_000));
}

#[test]
fn two_kills_in_skb_mode_leave_no_packet_unaccounted() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let (ended, sent) = under_a_socket(&net, dir.path(), "skb", (2, 4712));
    let placed = u64::try_from(sent.len()).unwrap() - not_placed(&net);
    let there = found(dir.path()).0.len();
    judge(dir.path(), &ended, (placed, there), &format!("{ended:?}"));
    println!("2 kills, skb: {} sent, {there} read back", sent.len());
}

/// Nobody counts for a dead recorder there: what an answer vouches for has no packet that is missing.
#[test]
fn after_two_kills_in_packet_mode_no_answer_vouches_for_what_is_missing() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let (ended, sent) = under_a_socket(&net, dir.path(), "packet", (2, 4714));
    balances(&ended);
    verify(dir.path());
    assert_eq!(not_placed(&net), 0);
    let (there, verdict) = found(dir.path());
    let time = |text: &serde_json::Value| {
        let time: jiff::Timestamp = text.as_str().unwrap().parse().unwrap();
        u64::try_from(time.as_nanosecond()).unwrap()
    };
    let covered = verdict["coverage"].as_array().unwrap().iter();
    let covered: Vec<_> = covered.map(|span| (time(&span["from"]), time(&span["to"]))).collect();
    // A stamp comes a little after the clock is read for it.
    let late = 20_000_000;
    let vouched = |sent: u64| covered.iter().any(|(from, to)| *from <= sent && sent + late < *to);
    let missing: Vec<_> = sent.iter().filter(|(number, _)| !there.contains(number)).collect();
    let wrong: Vec<_> = missing.iter().filter(|(_, at)| vouched(**at)).collect();
    assert!(wrong.is_empty(), "{} of {} missing: {wrong:?}\n{verdict}", wrong.len(), missing.len());
    assert!(!missing.is_empty() && there.iter().all(|number| sent.contains_key(number)));
    // Not by vouching for nothing. How much it is depends on how long the seconds between the kills were.
    let sure = sent.values().filter(|at| vouched(**at)).count();
    assert!(sure > 0, "{verdict}");
    // What rows call stored is there; what was under way may be.
    let rows = crate::ledger::rows(dir.path());
    let sum = |of: fn(&LedgerCounts) -> i64| rows.iter().map(|row| of(&row.counts)).sum::<i64>();
    let there = i64::try_from(there.len()).unwrap();
    assert!(sum(|counts| counts.stored) <= there, "{there}: {rows:#?}");
    println!("2 kills, packet: {} sent, {there} read back, {} missing", sent.len(), missing.len());
}

mod soak {
    use super::{live, under_live_frames};

    #[test]
    fn fifty_kills_under_load_leave_no_packet_unaccounted() {
        live!();
        for seed in 1..=5 {
            println!("{}", under_live_frames(1, 10, seed, 200_000));
        }
    }
}
