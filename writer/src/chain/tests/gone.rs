//! Files that are taken away under a chain: what cannot be retrieved any more is not called stored.

use super::*;
use crate::config::SEGMENT_BYTES_MIN;
use crate::level::Level;
use crate::sink::double::{Doubles, Trouble};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use tapedeck_index::catalog::StoreFile;

/// A store below a folder, described as such.
fn store() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().join("store");
    StoreFile::read_or_create(&store, "sensor-1").unwrap();
    (dir, store)
}

/// Appends packets and waits until all the chain has taken are counted `stored`.
fn fill(chain: &mut Chain, ids: std::ops::Range<u64>) {
    let counters = chain.counters();
    let before = counters.snapshot().stored.packets;
    let count = ids.end - ids.start;
    ids.for_each(|id| insist(chain, id, T18 + id * 1000, 500));
    wait_for("the journal", || {
        chain.tick(at(T18 + 1_000_000), Counters::default());
        counters.snapshot().stored.packets == before + count
    });
}

fn wait_for_loss(chain: &mut Chain, packets: u64) {
    let counters = chain.counters();
    wait_for("the loss", || {
        chain.tick(at(T18 + 1_000_000), Counters::default());
        counters.snapshot().write_error.packets == packets
    });
    assert_eq!(counters.snapshot().stored.packets, 0);
}

/// Ids in the sealed segments of a store with a description.
fn found(store: &Path) -> Vec<u64> {
    std::fs::remove_file(store.join("store.json")).unwrap();
    ids(store)
}

fn path_with(store: &Path, ending: &str) -> PathBuf {
    files(store).into_iter().find(|path| path.to_str().unwrap().ends_with(ending)).unwrap()
}

#[test]
fn a_deleted_store_is_made_anew_and_its_packets_count_as_lost() {
    let (_dir, store) = store();
    let mut chain = Chain::start(config(&store, SinkChoice::Auto)).unwrap();
    fill(&mut chain, 0..100);
    std::fs::remove_dir_all(&store).unwrap();
    wait_for_loss(&mut chain, 100);
    fill(&mut chain, 100..150);
    let report = finished(chain);
    let c = report.counters;
    assert_eq!((c.stored.packets, c.write_error.packets, c.segments_failed), (50, 100, 1));
    assert_eq!((c.stored.bytes, c.write_error.bytes), (50 * 500, 100 * 500));
    assert!(report.unsealed.is_empty(), "{report:?}");
    assert_eq!(StoreFile::read(&store).unwrap().sensor, "sensor-1");
    assert_eq!(found(&store), (100..150).collect::<Vec<u64>>());
}

#[test]
fn sealed_segments_that_go_with_their_store_are_lost_too() {
    let (_dir, store) = store();
    let base = config(&store, SinkChoice::Auto);
    let mut chain = Chain::start(ChainConfig { segment_age: Some(Duration::ZERO), ..base }).unwrap();
    let counters = chain.counters();
    for id in 0..3 {
        insist(&mut chain, id, T18 + id, 500);
        wait_for("the seal", || {
            chain.tick(at(T18 + id), Counters::default());
            counters.snapshot().segments_sealed == id + 1
        });
    }
    assert_eq!(counters.snapshot().stored.packets, 3);
    // One segment alone: somebody has moved it away. It was stored.
    let first = sealed_in(&store).remove(0);
    std::fs::remove_file(first).unwrap();
    std::thread::sleep(Duration::from_millis(900));
    assert_eq!(counters.snapshot().stored.packets, 3);
    std::fs::remove_dir_all(&store).unwrap();
    let report = finished(chain);
    assert_eq!((report.counters.stored.packets, report.counters.write_error.packets), (1, 2));
}

fn sealed_in(store: &Path) -> Vec<PathBuf> {
    files(store).into_iter().filter(|path| path.to_str().unwrap().ends_with(".zst")).collect()
}

#[test]
fn a_segment_that_is_gone_at_the_last_seal_is_lost() {
    for (at_end, ending) in [(false, ".open"), (true, ".open"), (true, "")] {
        let (_dir, store) = store();
        let mut chain = Chain::start(config(&store, SinkChoice::Plain)).unwrap();
        fill(&mut chain, 0..100);
        if ending.is_empty() {
            std::fs::rename(&store, store.with_file_name("elsewhere")).unwrap();
        } else {
            std::fs::remove_file(path_with(&store, ending)).unwrap();
        }
        if !at_end {
            wait_for_loss(&mut chain, 100);
        }
        let report = finished(chain);
        assert_eq!((report.counters.stored.packets, report.counters.write_error.packets), (0, 100));
        assert!(report.unsealed.is_empty(), "nothing is promised that cannot be: {report:?}");
    }
}

#[test]
fn a_file_put_in_place_of_an_open_segment_is_left_alone() {
    let (dir, store) = store();
    let mut chain = Chain::start(config(&store, SinkChoice::Plain)).unwrap();
    fill(&mut chain, 0..100);
    let open = path_with(&store, ".open");
    let other = dir.path().join("other");
    std::fs::write(&other, b"not ours").unwrap();
    std::fs::rename(&other, &open).unwrap();
    let report = finished(chain);
    assert_eq!((report.counters.stored.packets, report.counters.write_error.packets), (0, 100));
    assert_eq!(std::fs::read(&open).unwrap(), b"not ours");
}

#[test]
fn without_its_journal_a_segment_is_sealed_and_another_begins() {
    let (_dir, store) = store();
    let mut chain = Chain::start(config(&store, SinkChoice::Auto)).unwrap();
    let counters = chain.counters();
    fill(&mut chain, 0..100);
    std::fs::remove_file(path_with(&store, ".journal")).unwrap();
    wait_for("the seal", || {
        chain.tick(at(T18 + 1_000_000), Counters::default());
        counters.snapshot().segments_sealed == 1
    });
    wait_for("another segment", || append(&mut chain, 100, T18 + 100_000, 500) == Appended::Stored);
    let report = finished(chain);
    let stored = report.counters.stored.packets;
    assert_eq!(u64::try_from(found(&store).len()).unwrap(), stored);
    assert_eq!(stored, 101);
}

#[test]
fn what_only_a_lost_journal_had_is_counted_by_what_recovery_finds() {
    let (_dir, store) = store();
    let trouble = Arc::new(Trouble::default());
    trouble.stuck.store(true, Ordering::SeqCst);
    let base = config(&store, SinkChoice::Plain);
    let mut chain =
        Chain::start_with(base, Box::new(Doubles(Arc::clone(&trouble))), SinkKind::Plain, None).unwrap();
    fill(&mut chain, 0..100);
    std::fs::remove_file(path_with(&store, ".journal")).unwrap();
    // The write that would have brought the packets into the file fails.
    trouble.disk_bytes.store(1, Ordering::SeqCst);
    trouble.stuck.store(false, Ordering::SeqCst);
    let report = finished(chain);
    let stored = report.counters.stored.packets;
    assert_eq!(u64::try_from(found(&store).len()).unwrap(), stored);
    assert_eq!(stored, 0, "{report:?}");
}

#[test]
fn the_least_segment_size_holds_whatever_comes() {
    for level in [Level::Off, Level::Fixed(1)] {
        let dir = tempfile::tempdir().unwrap();
        let base = config(dir.path(), SinkChoice::Plain);
        let least =
            ChainConfig { segment_bytes: SEGMENT_BYTES_MIN, when_full: WhenFull::Wait, level, ..base };
        let mut chain = Chain::start(least).unwrap();
        for id in 0..5000 {
            append(&mut chain, id, T18 + id, if id % 2 == 0 { 60 } else { 1514 });
        }
        // A packet that nearly fills a frame.
        append(&mut chain, 5000, T18 + 5000, FRAME_BYTES_MAX - 100);
        finished(chain);
        let lens: Vec<u64> = sealed(dir.path()).iter().map(|s| s.path.metadata().unwrap().len()).collect();
        assert!(lens.len() > 2 && lens.iter().all(|len| *len <= SEGMENT_BYTES_MIN), "{level:?}: {lens:?}");
        assert_eq!(ids(dir.path()).len(), 5001);
    }
}
