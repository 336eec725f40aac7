//! Segments that are cut, empty or not there at all: a gap with what is known of it, never a whole answer.

use crate::answers::steady;
use crate::support::{Answer, Left, Packet, Spec, Store, damage, files, taperead};
use std::fs;
use std::path::PathBuf;

/// Two segments of four frames of two packets, a minute apart.
fn store() -> (Store, [PathBuf; 2]) {
    let mut store = Store::new();
    let spec = Spec { per_frame: 2, ..Spec::default() };
    let first = store.segment(&spec, &steady(8));
    let later = steady(8).into_iter().map(|p| Packet { ts: p.ts + 60_000_000_000, ..p });
    let second = store.segment(&spec, &later.collect::<Vec<_>>());
    (store, [first, second])
}

/// (exit status, matches, cause and packets of each gap).
fn told(answer: &Answer) -> (i32, u64, Vec<(String, Option<u64>)>) {
    let verdict = answer.verdict();
    let gaps = verdict["gaps"].as_array().unwrap().iter();
    let gaps = gaps.map(|g| (g["cause"].as_str().unwrap().to_owned(), g["packets"].as_u64()));
    (answer.code, verdict["matched"].as_u64().unwrap(), gaps.collect())
}

fn gap(cause: &str, packets: impl Into<Option<u64>>) -> Vec<(String, Option<u64>)> {
    vec![(cause.to_owned(), packets.into())]
}

#[test]
fn an_index_without_its_segment_is_a_gap() {
    let (store, [_, second]) = store();
    fs::remove_file(&second).unwrap();
    let answer = store.taperead(&["packets", "--count"]);
    insta::assert_snapshot!(answer.shown(store.path()), @r#"
    8
    --- stderr, exit 3
    warning: STORE/packets/dt=2026-11-21/hr=18/01795284060000000000-lab-eth1-q0-0000abcd-1.pcapng.zst: the segment is missing; its index says that it held 8 packets
    8 packets; the answer is NOT WHOLE, 2026-11-21T18:00:00.000000000Z to 2026-11-21T18:01:07.000000001Z
      missing: 2026-11-21T18:01:00.000000000Z to 2026-11-21T18:01:07.000000001Z, missing segment, 8 packets before filtering
    hint: 'tapedeck verify' lists all damage in a store
    "#);
    let answer = store.taperead(&["packets", "--json"]);
    assert_eq!(told(&answer), (3, 8, gap("segment_missing", 8)));
    let span = &answer.verdict()["gaps"][0];
    assert_eq!(span["from"], "2026-11-21T18:01:00.000000000Z");
    assert_eq!(span["to"], "2026-11-21T18:01:07.000000001Z");
    // Neither for a question about another time, nor beyond the last packet of a limited one.
    for args in [&["--to", "2026-11-21 18:01:00"][..], &["--from", "2026-11-21 18:01:08"], &["--limit", "8"]]
    {
        let answer = store.taperead(&[&["packets", "--json"], args].concat());
        assert_eq!(told(&answer).2, [], "{args:?}");
    }
    // One that needs it is not whole before it comes to the end.
    assert_eq!(told(&store.taperead(&["packets", "--json", "--limit", "9"])).0, 3);
    // Without a sidecar that can be read the number is not known, but something is lost.
    fs::write(files(store.path(), ".idx").remove(1), b"").unwrap();
    assert_eq!(told(&store.taperead(&["packets", "--json"])), (3, 8, gap("segment_missing", None)));
}

#[test]
fn a_seal_and_a_removal_are_no_loss() {
    // The sidecar is there, its packets have not got their name yet.
    let mut open = Store::new();
    open.segment(&Spec { left: Left::live(2), ..Spec::default() }, &steady(9));
    let mut sealed = Store::new();
    sealed.segment(&Spec::default(), &steady(9));
    let index = files(sealed.path(), ".idx").remove(0);
    let beside = files(open.path(), ".open").remove(0).with_file_name(index.file_name().unwrap());
    fs::copy(&index, &beside).unwrap();
    assert_eq!(told(&open.taperead(&["packets", "--json"])), (0, 9, vec![]));
    assert_eq!(open.taperead(&["segments"]).stderr, "");
    // A segment and its sidecar go one after the other, while readers ask: before or behind, never between.
    let removed = std::thread::spawn({
        let segment = files(sealed.path(), ".zst").remove(0);
        move || {
            std::thread::sleep(std::time::Duration::from_millis(30));
            fs::remove_file(segment).unwrap();
            fs::remove_file(index).unwrap();
        }
    });
    while !removed.is_finished() {
        let (code, matched, gaps) = told(&sealed.taperead(&["packets", "--json"]));
        let gone_while_read = gap("vanished", None);
        assert!(gaps.is_empty() || gaps == gone_while_read, "{code} {matched} {gaps:?}");
    }
    removed.join().unwrap();
    assert_eq!(told(&sealed.taperead(&["packets", "--json"])), (1, 0, vec![]));
}

#[test]
fn a_missing_segment_alone_is_no_empty_store() {
    let (store, paths) = store();
    paths.iter().for_each(|path| fs::remove_file(path).unwrap());
    let answer = store.taperead(&["packets", "--json"]);
    assert_eq!((answer.code, answer.verdict()["gaps"].as_array().unwrap().len()), (3, 2));
    assert_eq!(answer.verdict()["range"]["from"], "2026-11-21T18:00:00.000000000Z");
    assert_eq!(answer.verdict()["coverage"], serde_json::json!([]));
    insta::assert_snapshot!(store.taperead(&["packets", "--explain"]).shown(store.path()), @r#"
    filter    all packets
    range     1970-01-01T00:00:00.000000000Z to the end
    store     2026-11-21T18:00:00.000000000Z to 2026-11-21T18:01:07.000000001Z
    segments  2 considered: 0 outside the range, 0 without a match by the index, 0 to read, 2 MISSING
    frames    0 of 0
    bytes     0 of 0
      STORE/packets/dt=2026-11-21/hr=18/01795284000000000000-lab-eth1-q0-0000abcd-0.pcapng.zst: MISSING, only its index is left: 8 packets are lost
      STORE/packets/dt=2026-11-21/hr=18/01795284060000000000-lab-eth1-q0-0000abcd-1.pcapng.zst: MISSING, only its index is left: 8 packets are lost
    --- stderr, exit 0
    "#);
}

#[test]
fn a_cut_segment_gives_its_whole_frames_and_a_gap() {
    let (store, [_, second]) = store();
    let bytes = fs::read(&second).unwrap();
    let frames = {
        let sidecar = tapedeck_index::mapped::open(&files(store.path(), ".idx").remove(1)).unwrap();
        sidecar.frames().unwrap()
    };
    let end =
        |frame: usize| usize::try_from(frames[frame].offset).unwrap() + frames[frame].stored_len as usize;
    // (length, packets that are left of it with an index)
    let cuts =
        [(0, 0), (end(0), 0), (end(0) + 5, 0), (end(2), 4), (end(4) - 1, 6), (end(4), 8), (end(4) + 9, 8)];
    for (len, left) in cuts {
        fs::write(&second, &bytes[..len]).unwrap();
        let whole = told(&store.taperead(&["packets", "--json"]));
        assert_eq!(whole, (3, 8 + left, gap("segment_cut", 8 - left)), "{len}");
        // Also for a question that no packet matches: what is not there cannot be excluded.
        assert_eq!(store.taperead(&["packets", "port", "7"]).code, 3, "{len}");
        // But for one that ends before.
        assert_eq!(store.taperead(&["packets", "--count", "--to", "2026-11-21 18:01"]).code, 0, "{len}");
    }
    fs::remove_file(files(store.path(), ".idx").remove(1)).unwrap();
    for (len, _) in cuts {
        fs::write(&second, &bytes[..len]).unwrap();
        let (code, _, gaps) = told(&store.taperead(&["packets", "--json"]));
        assert_eq!((code, gaps.last().map(|(_, packets)| *packets)), (3, Some(None)), "{len} {gaps:?}");
    }
    fs::write(&second, &bytes).unwrap();
    assert_eq!(told(&store.taperead(&["packets", "--json"])), (0, 16, vec![]));
}

#[test]
fn an_empty_segment_says_what_it_held() {
    let (store, [first, _]) = store();
    fs::write(&first, b"").unwrap();
    insta::assert_snapshot!(store.taperead(&["packets", "--count"]).shown(store.path()), @r#"
    8
    --- stderr, exit 3
    warning: STORE/packets/dt=2026-11-21/hr=18/01795284000000000000-lab-eth1-q0-0000abcd-0.pcapng.zst: the segment is cut: 0 of 618 bytes are there
    8 packets; the answer is NOT WHOLE, 2026-11-21T18:00:00.000000000Z to 2026-11-21T18:01:07.000000001Z
      missing: 2026-11-21T18:00:00.000000000Z to 2026-11-21T18:00:07.000000001Z, cut segment, 8 packets before filtering
    hint: 'tapedeck verify' lists all damage in a store
    "#);
    fs::remove_file(files(store.path(), ".idx").remove(0)).unwrap();
    insta::assert_snapshot!(store.taperead(&["packets", "--count"]).shown(store.path()), @r#"
    8
    --- stderr, exit 3
    warning: STORE/packets/dt=2026-11-21/hr=18/01795284000000000000-lab-eth1-q0-0000abcd-0.pcapng.zst: it has no index; all its frames are read ('tapedeck reindex' mends that)
    warning: STORE/packets/dt=2026-11-21/hr=18/01795284000000000000-lab-eth1-q0-0000abcd-0.pcapng.zst: the segment is cut: its end is not there
    8 packets; the answer is NOT WHOLE, 2026-11-21T18:00:00.000000000Z to 2026-11-21T19:00:02.000000000Z
      missing: 2026-11-21T18:00:00.000000000Z to 2026-11-21T19:00:02.000000000Z, cut segment, packets unknown
    hint: 'tapedeck verify' lists all damage in a store
    "#);
}

#[test]
fn a_segment_longer_than_its_index_says_is_read_through() {
    let (store, [first, _]) = store();
    let mut bytes = fs::read(&first).unwrap();
    bytes.extend_from_slice(b"what is this");
    fs::write(&first, bytes).unwrap();
    let answer = store.taperead(&["packets", "--json"]);
    assert_eq!(told(&answer), (3, 16, gap("corrupt_frame", None)), "{}", answer.stderr);
}

#[test]
fn a_limit_vouches_for_what_it_looked_at() {
    let (store, [_, second]) = store();
    for (limit, frames, until) in [(1u64, 1, "00:00"), (2, 1, "00:01"), (3, 2, "00:02"), (9, 5, "01:00")] {
        let answer = store.taperead(&["packets", "--json", "--limit", &limit.to_string()]);
        let verdict = answer.verdict();
        assert_eq!((answer.code, &verdict["limited"], &verdict["matched"]), (0, &true.into(), &limit.into()));
        assert_eq!(verdict["scanned_frames"], frames, "{limit}");
        let end = verdict["coverage"].as_array().unwrap().last().map(|span| span["to"].clone());
        let until = (limit > 1).then(|| format!("2026-11-21T18:{until}.000000000Z").into());
        // The second segment's part of the coverage is empty at its first packet.
        let until = if limit == 9 { Some("2026-11-21T18:00:07.000000001Z".into()) } else { until };
        assert_eq!(end, until, "{limit}");
    }
    // Damage that lies behind the last packet is not looked at; before it, it is a gap.
    damage(&second, 1);
    assert_eq!(told(&store.taperead(&["packets", "--json", "--limit", "8"])), (0, 8, vec![]));
    assert_eq!(
        told(&store.taperead(&["packets", "--json", "--limit", "9"])),
        (3, 9, gap("corrupt_frame", 2))
    );
    // A limit that is not reached is none.
    let answer = store.taperead(&["packets", "--json", "--limit", "99"]);
    assert_eq!((answer.verdict()["limited"].clone(), answer.code), (false.into(), 3));
}

#[test]
fn a_limit_walks_no_file_that_it_does_not_need() {
    let (store, [first, second]) = store();
    files(store.path(), ".idx").iter().for_each(|index| fs::remove_file(index).unwrap());
    // Frame 0 of each, and the frames of the first: where its packets are is not known.
    let verdict = store.taperead(&["packets", "--json", "--limit", "3"]).verdict();
    assert_eq!((&verdict["matched"], &verdict["scanned_frames"]), (&3.into(), &(2 + 5).into()));
    let bytes = fs::read(&second).unwrap();
    fs::write(&second, &bytes[..bytes.len() - 100]).unwrap();
    assert_eq!(told(&store.taperead(&["packets", "--json", "--limit", "8"])).0, 0);
    assert_eq!(told(&store.taperead(&["packets", "--json", "--limit", "10"])).0, 3);
    fs::write(&first, b"").unwrap();
    assert_eq!(told(&store.taperead(&["packets", "--json", "--limit", "1"])).0, 3);
}

#[test]
fn segments_marks_what_is_lost() {
    let (mut store, [first, second]) = store();
    let latest = steady(1).into_iter().map(|p| Packet { ts: p.ts + 120_000_000_000, ..p });
    let third = store.segment(&Spec::default(), &latest.collect::<Vec<_>>());
    fs::remove_file(&first).unwrap();
    fs::write(&second, b"").unwrap();
    fs::write(&third, b"").unwrap();
    fs::remove_file(files(store.path(), ".idx").remove(2)).unwrap();
    insta::assert_snapshot!(store.taperead(&["segments"]).shown(store.path()), @r#"
    state    from                            to                                 packets           raw        stored   ratio      rows       index  segment
    missing  2026-11-21T18:00:00.000000000Z  2026-11-21T18:00:07.000000000Z           8           972             0       -         8        1011  STORE/packets/dt=2026-11-21/hr=18/01795284000000000000-lab-eth1-q0-0000abcd-0.pcapng.zst  (the segment is missing; only its index is left)
    sealed   2026-11-21T18:01:00.000000000Z  2026-11-21T18:01:07.000000000Z           8           972             0       -         8        1011  STORE/packets/dt=2026-11-21/hr=18/01795284060000000000-lab-eth1-q0-0000abcd-1.pcapng.zst  (cut: 0 of 621 bytes are there)
    sealed                                                                                                        0                                STORE/packets/dt=2026-11-21/hr=18/01795284120000000000-lab-eth1-q0-0000abcd-2.pcapng.zst  (cut: the segment is empty)
    --- stderr, exit 0
    warning: STORE/packets/dt=2026-11-21/hr=18/01795284000000000000-lab-eth1-q0-0000abcd-0.pcapng.zst: the segment is missing; only its index is left
    warning: STORE/packets/dt=2026-11-21/hr=18/01795284060000000000-lab-eth1-q0-0000abcd-1.pcapng.zst: cut: 0 of 621 bytes are there
    warning: STORE/packets/dt=2026-11-21/hr=18/01795284120000000000-lab-eth1-q0-0000abcd-2.pcapng.zst: cut: the segment is empty
    "#);
    let answer = store.taperead(&["segments", "--json", "--to", "2026-11-21 18:01"]);
    let listed: serde_json::Value = serde_json::from_str(answer.text().lines().next().unwrap()).unwrap();
    assert_eq!((&listed["state"], &listed["packets"]), (&"missing".into(), &8.into()));
    // The missing one is in no other range.
    assert!(!store.taperead(&["segments", "--from", "2026-11-21 18:00:30"]).text().contains("missing"));
}

#[test]
fn inspect_tells_of_losses() {
    let (store, [first, second]) = store();
    let inspect = |path: &std::path::Path| taperead(&["inspect", path.to_str().unwrap()]);
    let [idx, second_idx] = files(store.path(), ".idx").try_into().unwrap();
    assert!(inspect(&idx).text().contains("interface  eth1, EN10MB"));
    fs::remove_file(&first).unwrap();
    assert!(inspect(&idx).text().contains("MISSING: only this index is left"));
    let answer = inspect(&first);
    assert!(answer.code == 2 && answer.stderr.contains("its index is there"), "{}", answer.stderr);
    fs::write(&second, b"").unwrap();
    assert!(inspect(&second_idx).text().contains("CUT: 0 of 621 bytes are there"));
    let answer = inspect(&second);
    assert!(answer.code == 3 && answer.text().contains("its end is missing"), "{}", answer.text());
}
