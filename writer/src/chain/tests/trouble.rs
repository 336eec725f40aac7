//! Chains on disks that are slow, full or broken: every packet stands in exactly one counter.

use super::*;
use crate::sink::double::{Doubles, Trouble};
use std::sync::atomic::Ordering;

fn troubled(config: ChainConfig, trouble: &Arc<Trouble>) -> Chain {
    Chain::start_with(config, Box::new(Doubles(Arc::clone(trouble))), SinkKind::Plain, None).unwrap()
}

/// Appends packets and says what became of them: (taken, shed, failed).
fn pour(chain: &mut Chain, ids: std::ops::Range<u64>, len: usize) -> (u64, u64, u64) {
    let mut sums = (0, 0, 0);
    for id in ids {
        match append(chain, id, T18 + id * 1000, len) {
            Appended::Stored => sums.0 += 1,
            Appended::Shed => sums.1 += 1,
            Appended::Failed => sums.2 += 1,
        }
    }
    sums
}

#[test]
fn without_a_free_buffer_packets_are_shed_and_counted() {
    let dir = tempfile::tempdir().unwrap();
    let trouble = Arc::new(Trouble::default());
    trouble.stuck.store(true, Ordering::SeqCst);
    let base = config(dir.path(), SinkChoice::Plain);
    let mut chain = troubled(ChainConfig { frame_buffers: 4, ..base }, &trouble);
    let (taken, shed, failed) = pour(&mut chain, 0..4000, 1400);
    // Four buffers of packets with their 32 bytes of block; the rest is shed.
    let per_frame = u64::try_from(FRAME_BYTES_MAX / 1432).unwrap();
    assert_eq!((taken, shed, failed), (4 * per_frame, 4000 - 4 * per_frame, 0));
    let now = chain.counters().snapshot();
    assert_eq!(now.shed, Sum { packets: shed, bytes: shed * 1400 });
    assert_eq!(now.stored.plus(now.pending).packets, taken);
    trouble.stuck.store(false, Ordering::SeqCst);
    wait_for("a buffer", || append(&mut chain, 9999, T18 + 9_999_000, 1400) == Appended::Stored);
    let report = finished(chain);
    assert_eq!(report.counters.stored.packets, taken + 1);
    let segments = sealed(dir.path());
    let packets: Vec<_> = segments.iter().flat_map(|s| s.packets.clone()).collect();
    assert_eq!(packets.len(), usize::try_from(taken + 1).unwrap());
    // The packet after the loss says how many were lost before it.
    assert_eq!(packets.last().unwrap().2, report.counters.shed.packets);
    clean(dir.path());
}

#[test]
fn while_the_disk_is_stuck_the_journal_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let trouble = Arc::new(Trouble::default());
    let mut chain = troubled(config(dir.path(), SinkChoice::Plain), &trouble);
    pour(&mut chain, 0..1, 100);
    wait_for("the segment", || !files(dir.path()).is_empty());
    trouble.stuck.store(true, Ordering::SeqCst);
    pour(&mut chain, 1..1000, 1400);
    let counters = chain.counters();
    wait_for("the journal", || {
        chain.tick(at(T18), Counters::default());
        counters.snapshot().stored.packets == 1000
    });
    trouble.stuck.store(false, Ordering::SeqCst);
    finished(chain);
    assert_eq!(ids(dir.path()), (0..1000).collect::<Vec<u64>>());
    clean(dir.path());
}

/// Runs a chain in trouble; what is counted stored must be there, the rest must be counted lost.
fn check_trouble(trouble: &Arc<Trouble>, packets: u64) -> CounterSnapshot {
    let dir = tempfile::tempdir().unwrap();
    let base = config(dir.path(), SinkChoice::Plain);
    let wait = ChainConfig { when_full: WhenFull::Wait, segment_bytes: 3 << 20, ..base };
    let mut chain = troubled(wait, trouble);
    for id in 0..packets {
        // A thousand packets a second.
        append(&mut chain, id, T18 + id * 1_000_000, 1400);
        if id % 500 == 0 {
            chain.tick(at(T18 + id * 1_000_000), Counters::default());
        }
    }
    let (report, books) = finished_by_second(chain);
    let recovered = recover::recover(dir.path(), &RecoverOptions::default());
    assert!(recovered.errors.is_empty(), "{recovered:?}");
    let found = ids(dir.path());
    assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "a packet came back twice");
    assert_eq!(u64::try_from(found.len()).unwrap(), report.counters.stored.packets, "{trouble:?}");
    // Where no correction came after the fact, each second says exactly which packets it has.
    if books.shifts.is_empty() {
        for second in 0..packets.div_ceil(1000) {
            let there = found.iter().filter(|id| **id / 1000 == second).count();
            let Second { appended, stored, failed, refused, .. } = books.seconds[&(T18 / SECOND + second)];
            assert_eq!(stored.packets, i64::try_from(there).unwrap(), "second {second}: {books:?}");
            let lost = failed.packets + refused.packets;
            assert_eq!((appended.packets, lost), (1000, 1000 - stored.packets), "second {second}");
        }
    }
    clean(dir.path());
    report.counters
}

#[test]
fn a_failed_write_costs_counted_packets_and_a_new_segment_begins() {
    for tear in [false, true] {
        for fail_after in 1..8 {
            let trouble = Arc::new(Trouble::default());
            trouble.fail_after.store(fail_after, Ordering::SeqCst);
            trouble.tear.store(tear, Ordering::SeqCst);
            // Twice what seven writes hold, however they are put together.
            let counters = check_trouble(&trouble, 16_000);
            assert_eq!(counters.segments_failed, 1, "write {fail_after}");
            assert!(counters.segments_sealed >= 2);
        }
    }
}

#[test]
fn a_full_disk_is_a_state_that_is_counted() {
    let trouble = Arc::new(Trouble::default());
    trouble.disk_bytes.store(4 << 20, Ordering::SeqCst);
    let counters = check_trouble(&trouble, 8000);
    assert!(counters.segments_failed >= 1);
}

#[test]
fn a_segment_that_cannot_be_made_loses_its_packets_and_a_later_one_is_made() {
    let dir = tempfile::tempdir().unwrap();
    let trouble = Arc::new(Trouble::default());
    trouble.refuse.store(true, Ordering::SeqCst);
    let mut chain = troubled(config(dir.path(), SinkChoice::Plain), &trouble);
    pour(&mut chain, 0..10, 100);
    let counters = chain.counters();
    wait_for("the failure", || counters.snapshot().segments_failed == 1);
    chain.tick(at(T18), Counters::default());
    assert!(chain.open.is_empty());
    // In the back-off nothing is tried.
    assert_eq!(pour(&mut chain, 10..20, 100), (0, 0, 10));
    trouble.refuse.store(false, Ordering::SeqCst);
    wait_for("the next attempt", || append(&mut chain, 99, T18 + 99, 100) == Appended::Stored);
    let report = finished(chain);
    assert_eq!(report.counters.stored.packets, 1);
    assert_eq!(ids(dir.path()), [99]);
    clean(dir.path());
}

/// Tells this test binary that it runs on a small disk of its own.
const SMALL_DISK: &str = "TAPEDECK_TEST_SMALL_DISK";

/// Not a test by itself: runs on the small disk that [`a_disk_that_is_really_full`] makes.
#[test]
fn small_disk_process() {
    let Ok(store) = std::env::var(SMALL_DISK) else { return };
    let store = Path::new(&store);
    for sink in [SinkChoice::Plain, SinkChoice::Auto] {
        let base = config(store, sink);
        let small = ChainConfig { when_full: WhenFull::Wait, segment_bytes: 3 << 20, ..base };
        let mut chain = Chain::start(small).unwrap();
        for id in 0..16_000 {
            append(&mut chain, id, T18 + id * 1000, 1400);
            if id % 200 == 0 {
                chain.tick(at(T18 + id * 1000), Counters::default());
            }
        }
        let report = finished(chain);
        assert!(report.counters.write_error.packets > 0, "the disk was not small enough");
        // Someone makes room; what waited for it is sealed.
        tool("mount", &["-o", "remount,size=64m", store.to_str().unwrap()], None);
        let recovered = recover::recover(store, &RecoverOptions::default());
        assert!(recovered.errors.is_empty(), "{recovered:?}");
        let found = ids(store);
        assert!(found.windows(2).all(|pair| pair[0] < pair[1]), "a packet came back twice");
        assert_eq!(u64::try_from(found.len()).unwrap(), report.counters.stored.packets);
        clean(store);
        println!("{sink:?}: {:?}", report.counters);
        std::fs::remove_dir_all(store.join("packets")).unwrap();
        tool("mount", &["-o", "remount,size=9m", store.to_str().unwrap()], None);
    }
}

#[test]
fn a_disk_that_is_really_full() {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().to_str().unwrap();
    // A mount namespace of its own: the small disk is gone with the process.
    let probe = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "none", store]).output();
    if !probe.is_ok_and(|probe| probe.status.success()) {
        println!("SKIPPED 1: no mount namespaces here");
        return;
    }
    let script = format!("mount -t tmpfs -o size=9m none {store} && exec \"$0\" \"$@\"");
    let binary = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(["-m", "sh", "-c", &script])
        .arg(binary)
        .args(["--exact", "chain::tests::trouble::small_disk_process", "--nocapture"])
        .env(SMALL_DISK, store)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    println!("{text}");
    assert!(output.status.success() && text.contains("1 passed"), "{text}");
}
