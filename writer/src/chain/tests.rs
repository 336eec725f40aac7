//! Chains from append to sealed segment, over both sinks.

use super::*;
use crate::config::SinkChoice;
use crate::counters::Sum;
use crate::recover::RecoverOptions;
use crate::seconds::{Delta, Second, SecondBooks, Shift};
use crate::testing::{T18, append, at, clean, config, files, ids, sealed, tool, wait_for};
use crate::{recover, verify};
use std::path::Path;
use std::process::{Command, Stdio};
use tapedeck_index::journal::Replay;

mod filter;
mod gone;
mod property;
mod rotation;
mod settled;
mod trouble;

const SECOND: u64 = NANOS_PER_SEC;

/// A store on the usual disk with io_uring (where the host lets us), and one in memory with the plain
/// sink.
fn stores() -> Vec<(tempfile::TempDir, SinkChoice)> {
    let disk = (tempfile::tempdir().unwrap(), SinkChoice::Auto);
    let memory = (tempfile::tempdir_in("/dev/shm").unwrap(), SinkChoice::Plain);
    vec![disk, memory]
}

/// The books balance and nothing is on the way.
fn balanced(report: &ChainReport) {
    let c = report.counters;
    let out = c.stored.plus(c.pending).plus(c.shed).plus(c.write_error);
    assert_eq!(c.appended, out, "{c:?}");
    assert_eq!(c.pending, Sum::default(), "{c:?}");
}

/// Ends a chain whose books balance, in all and by second.
fn finished(chain: Chain) -> ChainReport {
    finished_by_second(chain).0
}

/// The same, with the books by second.
fn finished_by_second(chain: Chain) -> (ChainReport, SecondBooks) {
    let counters = chain.counters();
    let report = chain.finish().unwrap();
    balanced(&report);
    let books = counters.take_seconds();
    let mut sum = Second::default();
    for second in books.seconds.values() {
        sum += *second;
        assert_eq!((second.entered, second.entered.packets), (second.left, second.left.packets), "{books:?}");
        let (Second { shed, refused, .. }, mut all) = (*second, second.left);
        all += shed;
        all += refused;
        assert_eq!(second.appended, all, "{books:?}");
    }
    for Shift { stored, .. } in &books.shifts {
        sum.stored += *stored;
        sum.failed += -*stored;
    }
    let c = report.counters;
    sum.failed += sum.refused;
    let want = [c.appended, c.stored, c.shed, c.write_error].map(Delta::from);
    assert_eq!([sum.appended, sum.stored, sum.shed, sum.failed], want, "{books:?}");
    assert_eq!(counters.take_seconds(), SecondBooks::default());
    (report, books)
}

/// Appends until it is taken.
fn insist(chain: &mut Chain, id: u64, ts: u64, len: usize) {
    wait_for("a free buffer", || append(chain, id, ts, len) == Appended::Stored);
}

#[test]
fn packets_come_back_from_sealed_segments() {
    for (dir, sink) in stores() {
        let mut chain =
            Chain::start(ChainConfig { when_full: WhenFull::Wait, ..config(dir.path(), sink) }).unwrap();
        let mut expected = Vec::new();
        for id in 0..20_000 {
            let ts = T18 + id * 1_000_000;
            assert_eq!(
                append(&mut chain, id, ts, 60 + usize::try_from(id % 1400).unwrap()),
                Appended::Stored
            );
            expected.push((id, ts));
        }
        let report = finished(chain);
        assert_eq!(report.counters.stored.packets, 20_000);
        let segments = sealed(dir.path());
        assert_eq!(segments.len(), 1);
        let segment = &segments[0];
        let got: Vec<_> = segment.packets.iter().map(|p| (p.0, p.1)).collect();
        assert!(got == expected, "{} of {} packets", got.len(), expected.len());
        assert_eq!(segment.name.t0, at(T18));
        assert_eq!(segment.hour_folder, "packets/dt=2026-11-21/hr=18");
        assert!(segment.statistics_last);
        assert!(segment.statistics.windows(2).all(|pair| pair[1].0 - pair[0].0 <= SECOND + 1_000_000));
        assert_eq!(segment.statistics.last().unwrap().1, 20_000);
        assert_eq!(report.counters.segments_sealed, 1);
        clean(dir.path());
        read_by_others(&segment.path, 20_000);
    }
}

/// What programs that know nothing of us make of a segment.
fn read_by_others(path: &Path, packets: usize) {
    let path = path.to_str().unwrap();
    tool("zstd", &["-q", "-t", path], None);
    let mut cat = Command::new("zstd").args(["-q", "-dc", path]).stdout(Stdio::piped()).spawn().unwrap();
    let lines = tool("tcpdump", &["-nr", "-"], cat.stdout.take().map(Stdio::from));
    assert!(cat.wait().unwrap().success());
    assert_eq!(lines.lines().count(), packets);
    // Wireshark before 4.4 reads no file of several frames: give it the pcapng inside.
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("plain.pcapng");
    let plain = plain.to_str().unwrap();
    tool("zstd", &["-q", "-dc", path, "-o", plain], None);
    let info = tool("capinfos", &["-Mc", plain], None);
    let count = info.lines().find(|line| line.starts_with("Number of packets")).unwrap();
    assert_eq!(count.split_whitespace().last(), Some(packets.to_string().as_str()), "{info}");
}

#[test]
fn a_packet_larger_than_a_frame_has_one_to_itself() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = Chain::start(config(dir.path(), SinkChoice::Auto)).unwrap();
    let lens = [100, 700_000, 100, 400_000, 400_000, 15 << 20, 60];
    for (id, len) in (0..).zip(lens) {
        insist(&mut chain, id, T18 + id * SECOND * 2, len);
    }
    finished(chain);
    assert_eq!(ids(dir.path()), (0..7).collect::<Vec<u64>>());
    clean(dir.path());
}

/// (time relative to 19:00, expected: which segment, in order of opening).
fn check_hours(config: ChainConfig, packets: &[(i64, u32)]) {
    let hour = i64::try_from(T18).unwrap() + 3600 * 1_000_000_000;
    let store = config.store.clone();
    let mut chain = Chain::start(config).unwrap();
    for (id, (millis, _)) in (0..).zip(packets) {
        insist(&mut chain, id, u64::try_from(hour + millis * 1_000_000).unwrap(), 100);
    }
    finished(chain);
    let segments = sealed(&store);
    for (id, (millis, seq)) in (0..).zip(packets) {
        let homes: Vec<_> = segments.iter().filter(|s| s.packets.iter().any(|p| p.0 == id)).collect();
        assert_eq!(homes.len(), 1, "packet {id}");
        assert_eq!(homes[0].name.seq, *seq, "packet {id} at {millis} ms");
    }
    for segment in &segments {
        let first = segment.packets.iter().map(|p| p.1).min().unwrap();
        assert_eq!(segment.name.t0, at(first));
    }
    clean(&store);
}

#[test]
fn a_segment_holds_one_hour_give_or_take_two_seconds() {
    let dir = tempfile::tempdir().unwrap();
    let live = config(dir.path(), SinkChoice::Auto);
    let packets = [(-100, 0), (1_999, 0), (-3_599_000, 0), (2_000, 1), (-2_000, 1), (-2_001, 2), (0, 2)];
    check_hours(live, &packets);
}

#[test]
fn a_file_that_jumps_between_hours_keeps_their_segments_open() {
    let dir = tempfile::tempdir().unwrap();
    let base = config(dir.path(), SinkChoice::Plain);
    let file = ChainConfig { open_segments: 3, live: false, when_full: WhenFull::Wait, ..base };
    let hour = 3_600_000;
    // Three stay open; the fourth seals the one unused for longest, whose hour then begins anew.
    let packets = [
        (0, 0),
        (hour + 10_000, 1),
        (2 * hour + 10_000, 2),
        (20_000, 0),
        (3 * hour + 10_000, 3),
        (30_000, 0),
        (hour + 20_000, 4),
        (2 * hour + 20_000, 5),
    ];
    check_hours(file, &packets);
}

#[test]
fn segments_are_cut_by_stored_size() {
    for (dir, sink) in stores() {
        let base = config(dir.path(), sink);
        let small = ChainConfig { segment_bytes: 2 << 20, when_full: WhenFull::Wait, ..base };
        let mut chain = Chain::start(small).unwrap();
        for id in 0..12_000 {
            append(&mut chain, id, T18 + id, 1500);
        }
        finished(chain);
        let segments = sealed(dir.path());
        assert!(segments.len() >= 3, "{} segments", segments.len());
        for segment in &segments {
            assert!(std::fs::metadata(&segment.path).unwrap().len() <= 2 << 20);
        }
        assert_eq!(ids(dir.path()), (0..12_000).collect::<Vec<u64>>());
        clean(dir.path());
    }
}

#[test]
fn age_cuts_frames_and_segments_of_an_idle_queue() {
    let dir = tempfile::tempdir().unwrap();
    // Enough buffers for all frames: the test's seconds are over before the stage has looked.
    let base = ChainConfig { frame_buffers: 32, ..config(dir.path(), SinkChoice::Auto) };
    let mut chain = Chain::start(ChainConfig { segment_age: Some(Duration::from_secs(60)), ..base }).unwrap();
    let start = Instant::now();
    let tick = |chain: &mut Chain, seconds: u64| {
        let counters = Counters { received: seconds, ..Counters::default() };
        chain.tick_at(at(T18 + seconds * SECOND), counters, start + Duration::from_secs(seconds));
    };
    tick(&mut chain, 0);
    append(&mut chain, 0, T18, 100);
    for seconds in 0..60 {
        tick(&mut chain, seconds);
    }
    assert!(chain.open.len() == 1);
    tick(&mut chain, 60);
    assert!(chain.open.is_empty());
    let counters = chain.counters();
    wait_for("the seal", || counters.snapshot().segments_sealed == 1);
    // An idle queue writes no segment.
    for seconds in 61..200 {
        tick(&mut chain, seconds);
    }
    finished(chain);
    let segments = sealed(dir.path());
    assert_eq!(segments.len(), 1);
    // Header, ten frames of 5 s each and a second until the next begins, the one of the last second, the
    // last statistics.
    assert_eq!(segments[0].frames, 13);
    // One in the header, one a second, the last.
    assert_eq!(segments[0].statistics.len(), 62);
    clean(dir.path());
}

#[test]
fn a_live_segment_ends_with_its_hour() {
    let dir = tempfile::tempdir().unwrap();
    let mut chain = Chain::start(config(dir.path(), SinkChoice::Auto)).unwrap();
    let late = T18 + 3599 * SECOND;
    append(&mut chain, 0, late, 100);
    chain.tick(at(late + 2 * SECOND), Counters::default());
    assert_eq!(chain.open.len(), 1);
    chain.tick(at(late + 3 * SECOND), Counters::default());
    assert!(chain.open.is_empty());
    finished(chain);
    clean(dir.path());
}

#[test]
fn open_packets_are_in_the_journal() {
    for (dir, sink) in stores() {
        let mut chain = Chain::start(config(dir.path(), sink)).unwrap();
        let counters = chain.counters();
        let mut appended = 0;
        for round in 0..5 {
            for _ in 0..400 {
                insist(&mut chain, appended, T18 + appended * 1000, 1000);
                appended += 1;
            }
            wait_for("the journal", || {
                chain.tick(at(T18 + appended * 1000), Counters::default());
                counters.snapshot().stored.packets == appended
            });
            assert_eq!(journalled(dir.path()), appended, "round {round}");
        }
        let report = finished(chain);
        assert_eq!(report.counters.stored.packets, appended);
        assert_eq!(ids(dir.path()), (0..appended).collect::<Vec<u64>>());
        clean(dir.path());
    }
}

/// Packets that the journals of a store vouch for.
fn journalled(store: &Path) -> u64 {
    let mut packets = 0;
    for path in files(store).iter().filter(|p| p.extension().is_some_and(|e| e == "journal")) {
        let replay = Replay::read(&std::fs::read(path).unwrap()).unwrap();
        packets += replay.frames().iter().map(|meta| u64::from(meta.packets)).sum::<u64>();
        for (_, blocks) in replay.open_blocks() {
            let blocks = pcapng::Blocks::new(blocks).map(|block| block.unwrap().1);
            packets += blocks.filter(|b| matches!(b, pcapng::Block::Packet(_))).map(|_| 1).sum::<u64>();
        }
    }
    packets
}

#[test]
fn a_living_writer_is_left_alone_and_several_share_a_store() {
    let dir = tempfile::tempdir().unwrap();
    let base = config(dir.path(), SinkChoice::Auto);
    let mut chains: Vec<_> = (0..3)
        .map(|queue| {
            let seq = Arc::clone(&base.seq);
            Chain::start(ChainConfig { queue, seq, ..base.clone() }).unwrap()
        })
        .collect();
    for id in 0..300 {
        for (chain, offset) in chains.iter_mut().zip([0, 1000, 2000]) {
            insist(chain, offset + id, T18 + id, 200);
        }
    }
    wait_for("three open segments", || {
        recover::recover(dir.path(), &RecoverOptions { patience: Duration::ZERO }).busy.len() == 3
    });
    let report = recover::recover(dir.path(), &RecoverOptions { patience: Duration::ZERO });
    assert!(
        report.segments.is_empty() && report.errors.is_empty() && report.removed.is_empty(),
        "{report:?}"
    );
    assert_eq!(verify::verify(dir.path()).unwrap().unsealed.len(), 3);
    chains.into_iter().for_each(|chain| balanced(&chain.finish().unwrap()));
    let mut expected: Vec<u64> = (0..300).chain(1000..1300).chain(2000..2300).collect();
    expected.sort_unstable();
    assert_eq!(ids(dir.path()), expected);
    clean(dir.path());
}
