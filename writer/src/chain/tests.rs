//! Chains from append to sealed segment, over both sinks.

use super::*;
use crate::config::SinkChoice;
use crate::testing::{T18, append, at, config, sealed, tool};
use std::path::Path;
use std::process::{Command, Stdio};

const SECOND: u64 = NANOS_PER_SEC;

/// A store on the usual disk with io_uring (where the host lets us), and one in memory with the plain
/// sink.
fn stores() -> Vec<(tempfile::TempDir, SinkChoice)> {
    let disk = (tempfile::tempdir().unwrap(), SinkChoice::Auto);
    let memory = (tempfile::tempdir_in("/dev/shm").unwrap(), SinkChoice::Plain);
    vec![disk, memory]
}

fn balanced(report: &ChainReport) {
    let c = report.counters;
    let out = c.stored.plus(c.pending).plus(c.shed).plus(c.write_error);
    assert_eq!(c.appended, out, "{c:?}");
    assert_eq!(c.pending, Sum::default(), "{c:?}");
}

use crate::counters::Sum;

#[test]
fn packets_come_back_from_sealed_segments() {
    for (dir, sink) in stores() {
        let mut chain = Chain::start(config(dir.path(), sink)).unwrap();
        let mut expected = Vec::new();
        for id in 0..20_000 {
            let ts = T18 + id * 1_000_000;
            while append(&mut chain, id, ts, 60 + usize::try_from(id % 1400).unwrap()) == Appended::Shed {
                std::thread::yield_now();
            }
            expected.push((id, ts));
        }
        let report = chain.finish().unwrap();
        balanced(&report);
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
