//! Chains whose segments are over as soon as they begin: what waits to be sealed has a bound.

use super::*;
use crate::sink::double::{Doubles, Trouble};
use std::sync::atomic::Ordering;

/// A source that waits, and begins a segment for each packet.
fn small_segments(chain: &mut Chain, count: u64) {
    for id in 0..count {
        chain.set_description(Some(format!("segment {id}")));
        assert_eq!(append(chain, id, T18 + id * 1_000_000, 100), Appended::Stored);
    }
}

#[test]
fn a_source_that_waits_does_not_run_ahead_of_the_seals() {
    const SEGMENTS: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    let trouble = Arc::new(Trouble::default());
    trouble.sync_us.store(2_000, Ordering::SeqCst);
    let interface = config(dir.path(), SinkChoice::Plain).interface;
    let import = ChainConfig {
        frame_buffers: 4,
        open_segments: 1,
        ..ChainConfig::import(dir.path().to_owned(), "sensor-1".to_owned(), interface)
    };
    let doubles = Box::new(Doubles(Arc::clone(&trouble)));
    let mut chain = Chain::start_with(import, doubles, SinkKind::Plain, None).unwrap();
    small_segments(&mut chain, SEGMENTS);
    let report = finished(chain);
    assert_eq!((report.counters.segments_sealed, report.unsealed.len()), (SEGMENTS, 0));
    assert_eq!(ids(dir.path()), (0..SEGMENTS).collect::<Vec<u64>>());
    // Each holds files open; until it is cut, the disk keeps 64 MiB free for it.
    let (open, uncut) = trouble.most_open();
    assert!(open <= 32 && uncut <= 10, "{open} segments at once, {uncut} of them not cut");
    clean(dir.path());
}
