//! `segments` and `inspect`, and files that change or vanish while they are asked.

use crate::answers::steady;
use crate::support::{Left, Packet, Spec, Store, T, files, taperead};
use std::fs;
use std::path::PathBuf;
use tapedeck_query::answer::{Question, answer};
use tapedeck_query::filter::Filter;
use tapedeck_query::gather::gather;
use tapedeck_query::out::CountOnly;
use tapedeck_query::range::TimeRange;
use tapedeck_query::verdict::Cause;

fn two() -> Store {
    let mut store = Store::new();
    store.segment(&Spec::default(), &steady(9));
    let later: Vec<Packet> =
        steady(3).into_iter().map(|p| Packet { ts: p.ts + 3_600_000_000_000, ..p }).collect();
    store.segment(&Spec { interface: "eth2", left: Left::live(1), per_frame: 2, ..Spec::default() }, &later);
    store
}

#[test]
fn segments_are_listed_in_order_of_time() {
    let store = two();
    insta::assert_snapshot!(store.taperead(&["segments"]).shown(store.path()), @r#"
    state    from                            to                                 packets           raw        stored   ratio      rows       index  segment
    sealed   2026-11-21T18:00:00.000000000Z  2026-11-21T18:00:08.000000000Z           9          1060           538    1.97         9        1018  STORE/packets/dt=2026-11-21/hr=18/01795284000000000000-lab-eth1-q0-0000abcd-0.pcapng.zst
    open     2026-11-21T19:00:00.000000000Z  2026-11-21T19:00:02.000000000Z           3           368           227    1.62         2         796  STORE/packets/dt=2026-11-21/hr=19/.01795287600000000000-lab-eth2-q0-0000abcd-1.open
    --- stderr, exit 0
    "#);
    let answer = store.taperead(&["segments", "--from", "2026-11-21 18:30", "--json"]);
    insta::assert_snapshot!(answer.shown(store.path()), @r#"
    {"path":"STORE/packets/dt=2026-11-21/hr=19/.01795287600000000000-lab-eth2-q0-0000abcd-1.open","state":"open","sensor":"lab","interface":"eth2","queue":0,"run":"0000abcd","seq":1,"stored_bytes":227,"from":"2026-11-21T19:00:00.000000000Z","to":"2026-11-21T19:00:02.000000000Z","packets":3,"frames":2,"raw_bytes":368,"rows":2,"index_bytes":796}
    --- stderr, exit 0
    "#);
    fs::remove_file(files(store.path(), ".idx").remove(0)).unwrap();
    insta::assert_snapshot!(store.taperead(&["segments", "--to", "2026-11-21 19:00"]).shown(store.path()), @r#"
    state    from                            to                                 packets           raw        stored   ratio      rows       index  segment
    sealed                                                                                                      538                                STORE/packets/dt=2026-11-21/hr=18/01795284000000000000-lab-eth1-q0-0000abcd-0.pcapng.zst  (index: No such file or directory (os error 2))
    --- stderr, exit 0
    "#);
}

#[test]
fn inspect_shows_every_kind_of_file() {
    let store = two();
    for (suffix, parts) in [
        (
            ".pcapng.zst",
            &["segment, ", "sensor lab", "eth1, EN10MB", "4 packets", "in all     5 frames, 9 packets"][..],
        ),
        (".idx", &["index, ", "9 packets", "2026-11-21T18:00:08.000000000Z"]),
        (".open", &["open segment, ", "not written yet"]),
        (".journal", &["journal, ", "start, segment", "eth2, EN10MB", "blocks of frame 2"]),
    ] {
        let file = files(store.path(), suffix).remove(0);
        let answer = taperead(&["inspect", file.to_str().unwrap()]);
        assert_eq!(answer.code, 0, "{}", answer.text());
        for part in parts {
            assert!(answer.text().contains(part), "{part} in\n{}", answer.text());
        }
        // Also under another name, where the bytes say what it is; and never a panic on any half of it.
        let bytes = fs::read(&file).unwrap();
        for len in (0..bytes.len()).step_by(37) {
            fs::write(&file, &bytes[..len]).unwrap();
            let code = taperead(&["inspect", file.to_str().unwrap()]).code;
            assert!(code == 0 || code == 3, "{code}");
        }
    }
}

#[test]
fn inspect_finds_the_place_of_the_damage() {
    let store = two();
    let file = files(store.path(), ".pcapng.zst").remove(0);
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, bytes).unwrap();
    let answer = taperead(&["inspect", file.to_str().unwrap()]);
    insta::assert_snapshot!(answer.shown(store.path()), @r#"
    STORE/packets/dt=2026-11-21/hr=18/01795284000000000000-lab-eth1-q0-0000abcd-0.pcapng.zst: segment, 538 bytes
      named      sensor lab, interface eth1, queue 0, run 0000abcd, number 0, from 2026-11-21T18:00:00.000000000Z
      section    written by tapedeck test on Linux
      interface  eth1, EN10MB, snaplen 0, queue 0
      frame     0  at          0  stored      127  raw      192  0 packets, 1 statistics
      frame     1  at        127  stored      117  raw      352  4 packets, 2026-11-21T18:00:00.000000000Z to 2026-11-21T18:00:03.000000000Z
      frame     2  at        244  stored      119  raw      352  4 packets, 2026-11-21T18:00:04.000000000Z to 2026-11-21T18:00:07.000000000Z
      frame     3  at        363  stored       82  raw       88  1 packets, 2026-11-21T18:00:08.000000000Z to 2026-11-21T18:00:08.000000000Z
      damaged at byte 445: frame 4, 93 bytes: zstd: Restored data doesn't match checksum
      in all     5 frames, 9 packets, 984 bytes uncompressed
    --- stderr, exit 3
    "#);
}

#[test]
fn inspect_refuses_what_is_not_ours() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("holiday.jpg");
    fs::write(&file, "not a capture").unwrap();
    insta::assert_snapshot!(taperead(&["inspect", file.to_str().unwrap()]).shown(dir.path()), @r#"
    --- stderr, exit 2
    error: 'STORE/holiday.jpg' is no file of a tapedeck store

    hint: inspect reads .pcapng.zst, .idx, .open and .journal files; 'capinfos' reads other captures
    "#);
    assert_eq!(taperead(&["inspect", "/nowhere"]).code, 2);
}

/// Plans, lets `change` happen, answers.
fn meanwhile(store: &Store, change: impl FnOnce()) -> (u64, Vec<Cause>) {
    let filter = Filter::parse("").unwrap();
    let stores: Vec<PathBuf> = vec![store.path().to_owned()];
    let plan = gather(&stores, &filter, TimeRange::ALL).unwrap();
    change();
    let answer = answer(&plan, &Question::new(&filter, TimeRange::ALL), &mut CountOnly).unwrap();
    (answer.verdict.matched, answer.verdict.gaps.iter().map(|g| g.cause).collect())
}

#[test]
fn a_segment_that_goes_while_reading_is_one_gap() {
    let store = two();
    let path = files(store.path(), ".pcapng.zst").remove(0);
    let got = meanwhile(&store, || fs::remove_file(path).unwrap());
    assert_eq!(got, (3, vec![Cause::Vanished]));
}

#[test]
fn a_segment_that_is_sealed_while_reading_is_read_on() {
    let mut store = Store::new();
    store.segment(&Spec { left: Left::live(2), ..Spec::default() }, &steady(9));
    let (open, journal) = (files(store.path(), ".open").remove(0), files(store.path(), ".journal").remove(0));
    let got = meanwhile(&store, || {
        fs::rename(&open, open.with_file_name("sealed")).unwrap();
        fs::remove_file(journal).unwrap();
    });
    assert_eq!(got, (9, vec![]));
}

#[test]
fn an_open_and_a_sealed_name_of_one_segment_count_once() {
    let mut store = Store::new();
    store.segment(&Spec::default(), &steady(9));
    // The same run and number, still there as an open file: sealing renames, a reader may see both.
    let mut other = Store::new();
    other.segment(&Spec { left: Left::live(2), ..Spec::default() }, &steady(9));
    let folder = files(store.path(), ".idx")[0].parent().unwrap().to_owned();
    for file in [files(other.path(), ".open"), files(other.path(), ".journal")].concat() {
        fs::copy(&file, folder.join(file.file_name().unwrap())).unwrap();
    }
    assert_eq!(store.taperead(&["packets", "--count"]).text(), "9\n");
}

#[test]
fn a_damaged_journal_is_a_gap_behind_what_it_told() {
    let mut store = Store::new();
    store.segment(&Spec { left: Left::live(1), ..Spec::default() }, &steady(9));
    let journal = files(store.path(), ".journal").remove(0);
    let mut bytes = fs::read(&journal).unwrap();
    // Blocks of the last frame; zeros are what a power loss leaves.
    let len = bytes.len();
    bytes[len - 40..].fill(0);
    fs::write(journal, bytes).unwrap();
    let answer = store.taperead(&["packets", "--count"]);
    insta::assert_snapshot!(answer.shown(store.path()), @r#"
    8
    --- stderr, exit 3
    warning: STORE/packets/dt=2026-11-21/hr=18/.01795284000000000000-lab-eth1-q0-0000abcd-0.open: its journal is damaged at byte 1129: what came later is not known before 'tapedeck recover'
    8 packets; the answer is NOT WHOLE, 2026-11-21T18:00:00.000000000Z to 2026-11-21T22:00:00.000000001Z (being recorded: what came later is not vouched for yet)
      missing: 2026-11-21T18:00:07.000000000Z to 2026-11-21T19:00:02.000000001Z, damaged frame, packets unknown
    hint: 'tapedeck verify' lists all damage in a store
    "#);
    assert_eq!(store.taperead(&["packets", "--count", "--to", "2026-11-21 18:00:03"]).code, 0);
}

#[test]
fn a_segment_just_made_is_no_trouble() {
    let mut store = Store::new();
    store.segment(&Spec { left: Left::live(0), ..Spec::default() }, &steady(1));
    let journal = files(store.path(), ".journal").remove(0);
    fs::write(journal, b"").unwrap();
    let answer = store.taperead(&["packets", "--count"]);
    assert_eq!((answer.code, answer.text()), (1, "0\n"), "{}", answer.stderr);
    assert_eq!(T % 3_600_000_000_000, 0);
}
