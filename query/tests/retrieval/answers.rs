//! Whole answers of the real binary over small stores: time edges, order, limit, stores, plan.

use crate::support::packets::{arp, tcp4};
use crate::support::{Left, Packet, Spec, Store, T, damage, taperead};

/// `n` packets a second apart; source ports count up from 1000.
pub(crate) fn steady(n: u16) -> Vec<Packet> {
    (0..n).map(|i| Packet::new(T + u64::from(i) * 1_000_000_000, tcp4(1, 1000 + i, 2, 443))).collect()
}

/// Source ports of a text answer, in order.
pub(crate) fn ports(text: &str) -> Vec<u16> {
    let port = |line: &str| line.split(" > ").next()?.rsplit('.').next()?.parse().ok();
    text.lines().filter_map(port).collect()
}

#[test]
fn text_of_everything() {
    let mut store = Store::new();
    store.segment(&Spec { per_frame: 2, ..Spec::default() }, &steady(3));
    insta::assert_snapshot!(store.taperead(&["packets"]).shown(store.path()), @r#"
    2026-11-21T18:00:00.000000000Z eth1 IP 10.0.0.1.1000 > 10.0.0.2.443: tcp [.], length 54
    2026-11-21T18:00:01.000000000Z eth1 IP 10.0.0.1.1001 > 10.0.0.2.443: tcp [.], length 54
    2026-11-21T18:00:02.000000000Z eth1 IP 10.0.0.1.1002 > 10.0.0.2.443: tcp [.], length 54
    --- stderr, exit 0
    3 packets; whole answer from 1 segment, 2026-11-21T18:00:00.000000000Z to 2026-11-21T18:00:02.000000001Z
    "#);
}

#[test]
fn explain_reads_nothing() {
    let mut store = Store::new();
    let path = store.segment(&Spec { per_frame: 2, ..Spec::default() }, &steady(30));
    let mut later = steady(3);
    later.iter_mut().for_each(|p| p.ts += 60_000_000_000);
    store.segment(&Spec::default(), &later);
    store.segment(&Spec { interface: "eth2", ..Spec::default() }, &[Packet::new(T, arp(1, 2))]);
    // None of its frames can be read.
    std::fs::write(&path, vec![0; usize::try_from(std::fs::metadata(&path).unwrap().len()).unwrap()])
        .unwrap();
    let args = ["packets", "port", "1003", "or", "vlan", "--to", "2026-11-21 18:00:30", "--explain"];
    insta::assert_snapshot!(store.taperead(&args).shown(store.path()), @r#"
    filter    port 1003 or vlan
    range     1970-01-01T00:00:00.000000000Z to 2026-11-21T18:00:30.000000000Z
    store     2026-11-21T18:00:00.000000000Z to 2026-11-21T18:01:02.000000001Z
    segments  3 considered: 1 outside the range, 1 without a match by the index, 1 to read
    frames    1 of 16
    bytes     99 of 2017
      STORE/packets/dt=2026-11-21/hr=18/01795284000000000000-lab-eth1-q0-0000abcd-0.pcapng.zst: 1 of 15 frames, 99 of 1716 bytes; 1 of 30 rows can match
      STORE/packets/dt=2026-11-21/hr=18/01795284000000000000-lab-eth2-q0-0000abcd-2.pcapng.zst: 0 of 1 frames, 0 of 301 bytes; 0 of 1 rows can match
    --- stderr, exit 0
    "#);
}

#[test]
fn from_is_inclusive_and_to_exclusive_at_every_edge() {
    let mut store = Store::new();
    let spec = Spec { per_frame: 2, ..Spec::default() };
    let packets = steady(8);
    // Two segments of two frames of two packets.
    store.segment(&spec, &packets[..4]);
    store.segment(&spec, &packets[4..]);
    for first in 0..9u64 {
        for last in first..9 {
            // Exactly on a packet, and one nanosecond before and after.
            for (shift_from, shift_to) in [(0i64, 0i64), (1, 1), (-1, -1), (0, 1), (1, 0)] {
                let from = T.wrapping_add(first * 1_000_000_000).wrapping_add_signed(shift_from);
                let to = T.wrapping_add(last * 1_000_000_000).wrapping_add_signed(shift_to);
                let want = packets.iter().filter(|p| from <= p.ts && p.ts < to).count();
                let unix = |ns: u64| format!("{}.{:09}", ns / 1_000_000_000, ns % 1_000_000_000);
                let answer =
                    store.taperead(&["packets", "--count", "--from", &unix(from), "--to", &unix(to)]);
                let code = if from >= to { 2 } else { i32::from(want == 0) };
                assert_eq!(answer.code, code, "{from} {to} {}", answer.stderr);
                if code != 2 {
                    assert_eq!(answer.text(), format!("{want}\n"), "{from} {to}");
                }
            }
        }
    }
}

#[test]
fn equal_and_backward_times_keep_the_order_of_arrival() {
    let mut store = Store::new();
    let at = |offset: u64, port: u16| Packet::new(T + offset, tcp4(1, port, 2, 443));
    // 1..=3 and 5 at one time, over a frame edge and a segment edge; 4 arrived late.
    store.segment(&Spec { per_frame: 2, ..Spec::default() }, &[at(5, 1), at(5, 2), at(5, 3), at(2, 4)]);
    store.segment(&Spec { per_frame: 2, ..Spec::default() }, &[at(5, 5), at(9, 6), at(7, 7)]);
    assert_eq!(ports(store.taperead(&["packets"]).text()), [4, 1, 2, 3, 5, 7, 6]);
}

#[test]
fn interfaces_come_in_order_of_name_at_equal_times() {
    let mut store = Store::new();
    let packets: Vec<Packet> = (0..3).map(|i| Packet::new(T + i, arp(1, 2))).collect();
    for (interface, queue) in [("eth2", 0), ("eth10", 0), ("eth1", 1), ("eth1", 0)] {
        let spec = Spec { interface, queue, per_frame: 1, ..Spec::default() };
        store.segment(&spec, &packets);
    }
    let answer = store.taperead(&["packets", "--format", "json"]);
    let lines = answer.text().lines().map(|l| serde_json::from_str::<serde_json::Value>(l).unwrap());
    let got: Vec<(String, String, u64)> = lines
        .map(|v| {
            let text = |key: &str| v[key].as_str().unwrap().to_owned();
            (text("ts"), text("interface"), v["queue"].as_u64().unwrap())
        })
        .collect();
    let mut want = got.clone();
    want.sort();
    assert_eq!(got, want);
    assert_eq!(got.len(), 12);
    assert_eq!(
        got.iter().take(4).map(|g| g.1.as_str()).collect::<Vec<_>>(),
        ["eth1", "eth1", "eth10", "eth2"]
    );
}

#[test]
fn limit_gives_the_first_in_order_of_time() {
    let mut store = Store::new();
    let mut packets = steady(9);
    packets.reverse();
    let spec = Spec { per_frame: 2, ..Spec::default() };
    store.segment(&spec, &packets);
    let answer = store.taperead(&["packets", "--limit", "3", "--json"]);
    assert_eq!((answer.code, ports(answer.text())), (0, vec![1000, 1001, 1002]));
    let verdict = answer.verdict();
    assert_eq!((&verdict["limited"], &verdict["complete"]), (&true.into(), &true.into()));
    assert_eq!(verdict["matched"], 3);
    // Frames run backward in time: the first three packets are in the last two of five.
    assert_eq!(verdict["scanned_frames"], 2);
    assert_eq!(store.taperead(&["packets", "--limit", "4", "--count"]).text(), "4\n");
    assert_eq!(store.taperead(&["packets", "--limit", "40", "--count"]).text(), "9\n");
}

#[test]
fn a_limit_before_the_damage_is_a_whole_answer() {
    let mut store = Store::new();
    let path = store.segment(&Spec { per_frame: 2, ..Spec::default() }, &steady(8));
    damage(&path, 4);
    assert_eq!(store.taperead(&["packets", "--limit", "6", "--count"]).code, 0);
    assert_eq!(store.taperead(&["packets", "--limit", "7", "--count"]).code, 3);
}

#[test]
fn no_match_is_proof_of_absence() {
    let mut store = Store::new();
    store.segment(&Spec::default(), &steady(3));
    let answer = store.taperead(&["packets", "host", "192.0.2.1"]);
    insta::assert_snapshot!(answer.shown(store.path()), @r#"
    --- stderr, exit 1
    no match; whole answer from 1 segment, 2026-11-21T18:00:00.000000000Z to 2026-11-21T18:00:02.000000001Z
    "#);
    let answer = store.taperead(&["packets", "--from", "2027-01-01", "--json"]);
    let verdict = answer.verdict();
    assert_eq!((answer.code, &verdict["complete"]), (1, &true.into()));
    assert_eq!(verdict["range"]["from"], verdict["range"]["to"]);
}

#[test]
fn the_verdict_is_the_last_line_of_stderr() {
    let mut store = Store::new();
    store.segment(&Spec { per_frame: 1, ..Spec::default() }, &steady(3));
    let args = ["packets", "port", "1001", "--count", "--json", "--from", "2026-11-21 17:00"];
    let answer = store.taperead(&args);
    let mut verdict = answer.verdict();
    for key in ["elapsed_ms", "scanned_bytes"] {
        verdict[key] = serde_json::Value::Null;
    }
    insta::assert_snapshot!(verdict.to_string(), @r#"{"complete":true,"coverage":[{"from":"2026-11-21T18:00:00.000000000Z","to":"2026-11-21T18:00:02.000000001Z"}],"elapsed_ms":null,"gaps":[],"limited":false,"matched":1,"range":{"from":"2026-11-21T18:00:00.000000000Z","to":"2026-11-21T18:00:02.000000001Z"},"scanned_bytes":null,"scanned_frames":1,"version":1}"#);
}

#[test]
fn an_open_segment_answers_before_it_is_sealed() {
    let packets = steady(9);
    let mut sealed = Store::new();
    sealed.segment(&Spec::default(), &packets);
    let want = sealed.taperead(&["packets", "port", "1002", "or", "port", "1008"]);
    assert_eq!(ports(want.text()), [1002, 1008]);
    for recorded in 0..4 {
        let mut open = Store::new();
        open.segment(&Spec { left: Left::live(recorded), ..Spec::default() }, &packets);
        let got = open.taperead(&["packets", "port", "1002", "or", "port", "1008"]);
        let live = " (being recorded: what came later is not vouched for yet)";
        assert_eq!((got.text(), got.code), (want.text(), 0), "{recorded}");
        assert_eq!(got.stderr.replace(live, "").replace("22:00:00", "18:00:08"), want.stderr, "{recorded}");
        assert!(got.stderr.contains(live));
    }
}

#[test]
fn several_stores_give_one_answer() {
    let (mut a, mut b) = (Store::new(), Store::new());
    let packets = steady(4);
    a.segment(&Spec::default(), &[packets[0].clone(), packets[2].clone()]);
    b.segment(&Spec { run: 1, ..Spec::default() }, &[packets[1].clone(), packets[3].clone()]);
    let (a, b) = (a.path().to_str().unwrap(), b.path().to_str().unwrap());
    let answer = taperead(&["packets", "--store", a, "--store", b, "--store", a]);
    assert_eq!(ports(answer.text()), [1000, 1001, 1002, 1003]);
    let both = tempfile::tempdir().unwrap();
    for (name, target) in [("tape1", a), ("tape2", b), ("other", a)] {
        std::os::unix::fs::symlink(target, both.path().join(name)).unwrap();
    }
    let pattern = both.path().join("tape?");
    let answer = taperead(&["packets", "--store", pattern.to_str().unwrap()]);
    assert_eq!(ports(answer.text()), [1000, 1001, 1002, 1003]);
}

#[test]
fn an_empty_store_is_an_answer() {
    let store = Store::new();
    let answer = store.taperead(&["packets", "--from", "2026-11-21", "--to", "2026-11-22", "--json"]);
    assert_eq!((answer.code, answer.text()), (1, ""));
    assert_eq!(answer.verdict()["range"]["to"], "2026-11-22T00:00:00.000000000Z");
    assert_eq!(store.taperead(&["segments"]).code, 1);
}
