//! Answers that are given while recording runs: nothing is missing before the time they vouch for.

use crate::reference::{RefPacket, read_bytes};
use crate::tools::{alone, bin, need_root, run, stderr, traces};
use serde_json::Value;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::ops::Range;
use std::path::Path;
use tapedeck_bench::link::Link;
use tapedeck_bench::recorder::Recorder;

/// Everything in the store, and the range that the verdict vouches for, ns.
fn ask(store: &Path) -> (Vec<RefPacket>, Range<u128>) {
    let answer = run(bin("taperead"), &["packets", "--json", "--store", store.to_str().unwrap(), "-w", "-"]);
    let said = stderr(&answer);
    let verdict: Value = serde_json::from_str(said.lines().last().unwrap()).unwrap();
    // What never reached the store is told; nothing else may be missing.
    let gaps = verdict["gaps"].as_array().unwrap();
    let lost = |gap: &Value| matches!(gap["cause"].as_str(), Some("ring_full" | "fill_empty" | "shed"));
    assert!(gaps.iter().all(lost), "{verdict}");
    let wanted: &[i32] = if gaps.is_empty() { &[0, 1] } else { &[3] };
    assert!(wanted.contains(&answer.status.code().unwrap()), "{said}");
    let nanos = |end: &str| {
        let time = verdict["range"][end].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
        u128::try_from(time.as_nanosecond()).unwrap()
    };
    (read_bytes(&answer.stdout), nanos("from")..nanos("to"))
}

/// How many packets stand in `range`, and a digest of them in their order.
fn inside(packets: &[RefPacket], range: &Range<u128>) -> (usize, u64) {
    let (mut count, mut digest) = (0, DefaultHasher::new());
    for packet in packets.iter().filter(|packet| range.contains(&packet.ts_ns)) {
        count += 1;
        (packet.ts_ns, &packet.bytes).hash(&mut digest);
    }
    (count, digest.finish())
}

#[test]
fn live_answers_have_no_holes() {
    let _turn = alone();
    let Some(folder) = traces("live answers") else { return };
    if !need_root("live answers") {
        return;
    }
    // Small frames at a pace that keeps the compressor behind, then a quiet one.
    for pace in ["--topspeed", "--pps=20000", "--pps=400"] {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        let link = Link::make(4, 1500).unwrap();
        // Segments of a few seconds: answers fall on their seams.
        let recorder = Recorder::start(&link, &store, &["--segment-age".into(), "1s".into()]).unwrap();
        let file = folder.join("large/mix_home_iot_A.pcap");
        let mut sender = link
            .command("tcpreplay".as_ref())
            .args(["--intf1=tx0", "--loop=60", "--duration=6", "--quiet", pace])
            .arg(file)
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        let mut answers = Vec::new();
        while sender.try_wait().unwrap().is_none() {
            let (packets, range) = ask(&store);
            let got = inside(&packets, &range);
            answers.push((range, got));
        }
        let ledger = recorder.stop().unwrap();
        assert_eq!(ledger["total"]["unaccounted"], 0, "{ledger}");
        let (all, _) = ask(&store);
        let mut vouched = 0;
        for (number, (range, got)) in answers.iter().enumerate() {
            assert_eq!(*got, inside(&all, range), "{pace}: answer {number} in {range:?}");
            vouched += usize::from(got.0 > 0);
        }
        println!("{pace}: {vouched} of {} answers vouch for packets; {} in all", answers.len(), all.len());
        assert!(vouched > 2, "{pace}: no answer vouched for anything");
    }
}
