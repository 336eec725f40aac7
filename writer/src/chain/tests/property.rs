//! Any packets in any order: each comes back once, in order of arrival within its segment.

use super::*;
use proptest::prelude::*;

#[derive(Clone, Debug)]
enum Step {
    /// Milliseconds from the packet before, and a length.
    Packet(i64, usize),
    /// Seconds on the wall clock.
    Tick(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let jump = prop_oneof![6 => -50..500_i64, 2 => -5_000..5_000_i64, 1 => -9_000_000..9_000_000_i64];
    let len = prop_oneof![6 => 50..1600_usize, 1 => 50..70_000_usize];
    let packet = (jump, len).prop_map(|(jump, len)| Step::Packet(jump, len));
    prop_oneof![20 => packet, 1 => (0..40_u64).prop_map(Step::Tick)]
}

fn run(steps: &[Step], config: ChainConfig) {
    let store = config.store.clone();
    let mut chain = Chain::start(config).unwrap();
    let (mut now, start, mut wall) = (i64::try_from(T18).unwrap(), Instant::now(), Duration::ZERO);
    let mut expected = Vec::new();
    for step in steps {
        match step {
            Step::Packet(jump, len) => {
                now += jump * 1_000_000;
                let ts = u64::try_from(now).unwrap();
                let id = u64::try_from(expected.len()).unwrap();
                assert_eq!(append(&mut chain, id, ts, *len), Appended::Stored);
                expected.push((id, ts));
            }
            Step::Tick(seconds) => {
                wall += Duration::from_secs(*seconds);
                chain.tick_at(at(u64::try_from(now).unwrap()), Counters::default(), start + wall);
            }
        }
    }
    let (_, books) = finished_by_second(chain);
    let mut seconds = std::collections::BTreeMap::new();
    for (_, ts) in &expected {
        *seconds.entry(ts / SECOND).or_insert(0) += 1;
    }
    let stored: std::collections::BTreeMap<u64, i64> =
        books.seconds.iter().map(|(second, books)| (*second, books.stored.packets)).collect();
    assert_eq!(stored, seconds, "by second");
    let segments = sealed(&store);
    let mut got = Vec::new();
    for segment in &segments {
        assert!(segment.packets.windows(2).all(|pair| pair[0].0 < pair[1].0), "order of arrival");
        got.extend(segment.packets.iter().map(|p| (p.0, p.1)));
    }
    got.sort_unstable();
    assert!(got == expected, "{} of {} packets", got.len(), expected.len());
    clean(&store);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_packet_comes_back_once(
        steps in proptest::collection::vec(step(), 1..400),
        live: bool,
        open_segments in 1..4_usize,
        segment_kib in 1..600_u64,
    ) {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let base = config(dir.path(), SinkChoice::Auto);
        run(&steps, ChainConfig {
            live,
            open_segments,
            segment_bytes: segment_kib << 10,
            segment_age: live.then_some(Duration::from_secs(60)),
            when_full: WhenFull::Wait,
            ..base
        });
    }
}
