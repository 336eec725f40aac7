//! `kill -9` at random points under load: every packet that was placed is stored once or stands in one line of the
//! ledger that is printed last, and in one row of the table.

use crate::flood::{counted, on_disk, pin};
use crate::ledger::table_tells;
use crate::support::recorder::{Ended, Recorder, pins};
use crate::support::{Net, live, numbered};
use crate::takeover::{balances, dropped, not_placed, stored, verify};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tapedeck_ebpf::generator::Flood;
use tapedeck_index::table::ledger::RowKind;

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

/// The books after it, of so many packets that were `placed`.
fn judge(store: &Path, ended: &Ended, placed: u64, said: &str) {
    balances(ended);
    verify(store);
    let rows = table_tells(&[store], &ended.ledger, placed);
    let stored: i64 = rows.iter().map(|row| row.counts.stored).sum();
    let told = u64::try_from(stored).unwrap() + dropped(&ended.ledger);
    assert_eq!(placed, told, "{stored} stored; {said}");
    assert!(rows.iter().any(|row| row.kind == RowKind::Crash), "{said}");
    assert!(ended.total("dropped/down") > 0 && pins().is_empty(), "{said}");
}

/// Live frames, paced to `rate` a second.
fn under_live_frames(rounds: usize, seed: u64, rate: u64) -> String {
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    // The first one is there before the first packet.
    let first = Recorder::start(&net, dir.path(), &["--mode", "copy"]);
    let flood = Flood {
        ifindex: nix::net::if_::if_nametoindex(net.tx.as_str()).unwrap(),
        template: numbered(0, 0, 100, &[]),
        count: u64::MAX,
        gap: Duration::from_nanos(1_000_000_000 / rate),
        first_flow: 0,
        flows: 16,
        random: None,
    };
    let stop = AtomicBool::new(false);
    let (ended, sent, took) = std::thread::scope(|scope| {
        let stop = &stop;
        let sending = scope.spawn(move || {
            pin(0);
            let began = Instant::now();
            (flood.send(stop).unwrap(), began.elapsed())
        });
        let end = crate::flood::EndOfLoad(stop);
        let last = kill_and_restart(&net, dir.path(), "copy", (rounds, seed), first);
        drop(end);
        let (sent, took) = sending.join().unwrap();
        (last.stop(), sent, took)
    });
    let refused = counted(&net.tx, "xdp_xmit_errors");
    let said = format!("seed {seed}: {sent} sent, {refused} not placed; {ended:?}");
    judge(dir.path(), &ended, sent - refused, &said);
    let there = on_disk(dir.path(), &[sent]);
    format!(
        "{rounds} kills under live frames: {sent} sent in {took:?}, {:.0}/s, {refused} not placed, {there} stored, \
         lost {}",
        sent as f64 / took.as_secs_f64(),
        ended.ledger["total"]["dropped"]
    )
}

/// A packet socket, eight packets at a time.
fn under_a_socket(rounds: usize, seed: u64, mode: &str) -> String {
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let first = Recorder::start(&net, dir.path(), &["--mode", mode]);
    let stop = AtomicBool::new(false);
    let (ended, sent) = std::thread::scope(|scope| {
        let (sender, stop) = (net.sender(), &stop);
        let sending = scope.spawn(move || {
            let mut number = 0;
            while !stop.load(Ordering::Relaxed) {
                for flow in 0..8 {
                    while !sender.send(&numbered(flow, number, 100, &[])) {}
                }
                number += 1;
                std::thread::sleep(Duration::from_micros(300));
            }
            8 * number
        });
        let end = crate::flood::EndOfLoad(stop);
        let last = kill_and_restart(&net, dir.path(), mode, (rounds, seed), first);
        drop(end);
        let sent = sending.join().unwrap();
        (last.stop(), sent)
    });
    let unplaced = not_placed(&net);
    judge(dir.path(), &ended, sent - unplaced, &format!("seed {seed}, {mode}: {ended:?}"));
    let there = stored(&[dir.path()]).len();
    format!("{rounds} kills, {mode}: {sent} sent, {unplaced} not placed, {there} stored")
}

#[test]
fn five_kills_under_load_leave_no_packet_unaccounted() {
    live!();
    println!("{}", under_live_frames(5, 4711, 200_000));
}

#[test]
fn two_kills_in_skb_mode_leave_no_packet_unaccounted() {
    live!();
    println!("{}", under_a_socket(2, 4712, "skb"));
}

mod soak {
    use super::{live, under_live_frames};

    #[test]
    fn fifty_kills_under_load_leave_no_packet_unaccounted() {
        live!();
        for seed in 1..=5 {
            println!("{}", under_live_frames(10, seed, 200_000));
        }
    }
}
