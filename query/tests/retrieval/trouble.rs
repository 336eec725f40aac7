//! What goes wrong, and how it is said: damage, loss, misuse. The real binary, exit status and words.

use crate::answers::steady;
use crate::support::{Packet, Spec, Store, T, damage, files, taperead};
use std::fs;
use tapedeck_packet::LinkType;

/// Four frames of two packets.
fn store() -> (Store, std::path::PathBuf) {
    let mut store = Store::new();
    let path = store.segment(&Spec { per_frame: 2, ..Spec::default() }, &steady(8));
    (store, path)
}

/// Flips a bit at `at` of the way through a file.
fn flip(path: &std::path::Path, at: f64) {
    let mut bytes = fs::read(path).unwrap();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a place in a test file"
    )]
    let at = (bytes.len() as f64 * at) as usize;
    bytes[at] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

#[test]
fn a_damaged_frame_is_named_and_the_rest_is_given() {
    let (store, path) = store();
    damage(&path, 3);
    let answer = store.taperead(&["packets", "--count"]);
    insta::assert_snapshot!(answer.shown(store.path()), @r#"
    6
    --- stderr, exit 3
    warning: STORE/packets/dt=2026-11-21/hr=18/01795284000000000000-lab-eth1-q0-0000abcd-0.pcapng.zst: damaged frame at byte 325: zstd: Restored data doesn't match checksum
    6 packets; the answer is NOT WHOLE, 2026-11-21T18:00:00.000000000Z to 2026-11-21T18:00:07.000000001Z
      missing: 2026-11-21T18:00:04.000000000Z to 2026-11-21T18:00:05.000000001Z, damaged frame, 2 packets before filtering
    hint: 'tapedeck verify' lists all damage in a store
    "#);
    let verdict = store.taperead(&["packets", "--json"]).verdict();
    assert_eq!(
        (&verdict["complete"], &verdict["gaps"][0]["cause"]),
        (&false.into(), &"corrupt_frame".into())
    );
    assert_eq!(verdict["gaps"][0]["packets"], 2);
    // A question that the index answers without that frame is whole.
    assert_eq!(store.taperead(&["packets", "port", "1000", "--count"]).code, 0);
}

#[test]
fn a_damaged_first_frame_hides_nothing() {
    let (store, path) = store();
    damage(&path, 0);
    // The index says what the packets begin with; frame 0 is not read.
    let answer = store.taperead(&["packets", "--count"]);
    assert_eq!((answer.code, answer.text()), (0, "8\n"), "{}", answer.stderr);
    fs::remove_file(files(store.path(), ".idx").remove(0)).unwrap();
    let answer = store.taperead(&["packets", "--count"]);
    insta::assert_snapshot!(answer.shown(store.path()), @r#"
    0
    --- stderr, exit 3
    warning: STORE/packets/dt=2026-11-21/hr=18/01795284000000000000-lab-eth1-q0-0000abcd-0.pcapng.zst: it has no index; all its frames are read ('tapedeck reindex' mends that)
    warning: STORE/packets/dt=2026-11-21/hr=18/01795284000000000000-lab-eth1-q0-0000abcd-0.pcapng.zst: damaged frame at byte 0: zstd: Restored data doesn't match checksum
    no match; the answer is NOT WHOLE, 2026-11-21T18:00:00.000000000Z to 2026-11-21T19:00:02.000000000Z
      missing: 2026-11-21T18:00:00.000000000Z to 2026-11-21T19:00:02.000000000Z, damaged frame, packets unknown
    hint: 'tapedeck verify' lists all damage in a store
    "#);
}

#[test]
fn a_sister_tells_what_a_damaged_first_frame_would() {
    let (mut store, path) = store();
    let later = steady(8).into_iter().map(|p| Packet { ts: p.ts + 60_000_000_000, ..p });
    store.segment(&Spec::default(), &later.collect::<Vec<_>>());
    damage(&path, 0);
    fs::remove_file(files(store.path(), ".idx").remove(0)).unwrap();
    let answer = store.taperead(&["packets", "port", "1003", "--count"]);
    assert_eq!((answer.code, answer.text()), (3, "2\n"));
    let verdict = store.taperead(&["packets", "--json"]).verdict();
    assert_eq!((&verdict["matched"], &verdict["gaps"][0]["packets"]), (&16.into(), &0.into()));
    // A sister outside the asked range helps, too.
    let answer = store.taperead(&["packets", "--count", "--to", "2026-11-21 18:00:30"]);
    assert_eq!((answer.code, answer.text()), (3, "8\n"), "{}", answer.stderr);
    // Sidecars all gone: the sister's own frame 0.
    fs::remove_file(files(store.path(), ".idx").remove(0)).unwrap();
    assert_eq!(store.taperead(&["packets", "--count"]).text(), "16\n");
}

#[test]
fn without_an_index_everything_is_read() {
    let (store, _) = store();
    let idx = files(store.path(), ".idx").remove(0);
    let whole = fs::read(&idx).unwrap();
    fs::remove_file(&idx).unwrap();
    let answer = store.taperead(&["packets", "port", "1003", "--count"]);
    insta::assert_snapshot!(answer.shown(store.path()), @r#"
    1
    --- stderr, exit 0
    warning: STORE/packets/dt=2026-11-21/hr=18/01795284000000000000-lab-eth1-q0-0000abcd-0.pcapng.zst: it has no index; all its frames are read ('tapedeck reindex' mends that)
    1 packet; whole answer from 1 segment, 2026-11-21T18:00:00.000000000Z to 2026-11-21T19:00:02.000000000Z
    "#);
    fs::write(&idx, &whole).unwrap();
    flip(&idx, 0.99);
    let answer = store.taperead(&["packets", "port", "1003", "--count"]);
    insta::assert_snapshot!(answer.shown(store.path()), @r#"
    1
    --- stderr, exit 0
    warning: STORE/packets/dt=2026-11-21/hr=18/01795284000000000000-lab-eth1-q0-0000abcd-0.pcapng.zst: its index cannot be believed: section Head at byte 895 is damaged; all its frames are read ('tapedeck reindex' mends that)
    1 packet; whole answer from 1 segment, 2026-11-21T18:00:00.000000000Z to 2026-11-21T19:00:02.000000000Z
    "#);
    // A future format is not guessed at.
    let mut future = whole;
    future[8] = 9;
    fs::write(&idx, future).unwrap();
    let answer = store.taperead(&["packets", "port", "1003", "--count"]);
    assert_eq!((answer.code, answer.text()), (0, "1\n"));
    assert!(answer.stderr.contains("format version 9"), "{}", answer.stderr);
}

#[test]
fn without_an_index_damage_is_still_passed_over() {
    let (store, path) = store();
    fs::remove_file(files(store.path(), ".idx").remove(0)).unwrap();
    for at in [0.25, 0.45, 0.6, 0.75] {
        let whole = fs::read(&path).unwrap();
        flip(&path, at);
        let answer = store.taperead(&["packets", "--count"]);
        assert_eq!((answer.code, answer.text()), (3, "6\n"), "{at}\n{}", answer.stderr);
        fs::write(&path, whole).unwrap();
    }
}

#[test]
fn an_index_of_another_segment_is_not_believed() {
    let mut store = Store::new();
    store.segment(&Spec::default(), &steady(1));
    store.segment(&Spec::default(), &steady(8));
    let [first, second] = files(store.path(), ".idx").try_into().unwrap();
    fs::copy(first, second).unwrap();
    assert_eq!(store.taperead(&["packets", "--count"]).text(), "9\n");
}

/// Command lines that mean nothing.
const MISUSE: [&[&str]; 8] = [
    &["packets", "--from", "yesterday"],
    &["packets", "--last", "soon"],
    &["packets", "--to", "2h"],
    &["packets", "--from", "2026-11-21", "--to", "2026-11-20"],
    &["packets", "host"],
    &["packets", "prot", "443"],
    &["packets", "--us"],
    &["packets", "-w", "/nowhere/at/all.pcapng"],
];

#[test]
fn misuse_is_answered_with_what_to_do() {
    let (store, _) = store();
    let mut shown = String::new();
    for args in MISUSE {
        let answer = store.taperead(args);
        shown.push_str(&format!("$ taperead {}\n{}\n", args.join(" "), answer.shown(store.path())));
        assert_eq!(answer.code, 2);
    }
    insta::assert_snapshot!(shown, @r#"
    $ taperead packets --from yesterday
    --- stderr, exit 2
    error: --from needs a time
    Caused by: 'yesterday' is not a time

    hint: a time is one of 2026-11-21T18:00:00Z, '2026-11-21 18:00', '2026-11-21 18:00:05.25', 2026-11-21, 1795284000.5 (Unix time), '2h ago' or now

    $ taperead packets --last soon
    --- stderr, exit 2
    error: --last needs a duration
    Caused by: 'soon' is not a duration

    hint: a duration is a number and a unit: 90s, 15m, 2h, 1h30m, 7d

    $ taperead packets --to 2h
    --- stderr, exit 2
    error: --to needs a time
    Caused by: '2h' is a duration, not a time

    hint: a time so long before now is '2h ago'

    $ taperead packets --from 2026-11-21 --to 2026-11-20
    --- stderr, exit 2
    error: the range is empty: --from 2026-11-21T00:00:00.000000000Z is not before --to 2026-11-20T00:00:00.000000000Z

    hint: --from is inclusive, --to exclusive; a time without a zone is UTC

    $ taperead packets host
    --- stderr, exit 2
    error: cannot read the filter: the filter ends where an address should follow
      host
          ^

    hint: 'taperead packets --help' lists the filter language

    $ taperead packets prot 443
    --- stderr, exit 2
    error: cannot read the filter: unknown word `prot`
      prot 443
      ^^^^

    hint: did you mean `port`?

    $ taperead packets --us
    --- stderr, exit 2
    error: --us is for pcap only

    hint: add --format pcap, or leave --us out: pcapng keeps nanoseconds

    $ taperead packets -w /nowhere/at/all.pcapng
    --- stderr, exit 2
    error: cannot write '/nowhere/at/all.pcapng'
    Caused by: No such file or directory (os error 2)

    hint: -w makes the file, not the folder it is in: make that first
    "#);
}

#[test]
fn a_store_must_be_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    let mut shown = String::new();
    for store in [format!("{path}/absent"), path.to_owned(), format!("{path}/*")] {
        let answer = taperead(&["packets", "--store", &store]);
        assert_eq!(answer.code, 2);
        shown.push_str(&answer.shown(dir.path()));
    }
    fs::write(dir.path().join("store.json"), r#"{"version":7,"sensor":"lab"}"#).unwrap();
    shown.push_str(&taperead(&["packets", "--store", path]).shown(dir.path()));
    insta::assert_snapshot!(shown, @r#"
    --- stderr, exit 2
    error: no store at 'STORE/absent'
    Caused by: No such file or directory (os error 2)

    hint: --store takes the folder given to 'tapedeck record --store'
    --- stderr, exit 2
    error: no store at 'STORE'
    Caused by: it has neither store.json nor packets/

    hint: --store takes the folder given to 'tapedeck record --store'
    --- stderr, exit 2
    error: no store matches 'STORE/*'

    hint: a store is a folder with store.json or packets/ in it, as 'tapedeck record' makes it
    --- stderr, exit 2
    error: cannot use the store at 'STORE'
    Caused by: STORE/store.json: store version 7; this program knows version 1
    "#);
}

#[test]
fn a_failed_export_leaves_nothing_and_keeps_what_was_there() {
    let mut store = Store::new();
    store.segment(&Spec::default(), &steady(1));
    let packet = Packet::new(T + 1, steady(1)[0].bytes[14..].to_vec());
    store.segment(&Spec { interface: "tun0", link: LinkType::RAW, ..Spec::default() }, &[packet]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("case.pcap");
    fs::write(&file, "precious").unwrap();
    let answer = store.taperead(&["packets", "-w", file.to_str().unwrap()]);
    insta::assert_snapshot!(answer.shown(dir.path()), @r#"
    --- stderr, exit 2
    error: cannot write 'STORE/case.pcap'
    Caused by: the packets have several link types (EN10MB and RAW), a pcap file holds one

    hint: pcapng holds them all: use --format pcapng or a name ending in .pcapng
    "#);
    assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    let both = dir.path().join("case.pcapng");
    let answer = store.taperead(&["packets", "-w", both.to_str().unwrap()]);
    insta::assert_snapshot!(answer.shown(dir.path()), @r#"
    --- stderr, exit 0
    warning: the answer has several link types: Wireshark opens it, tcpdump will refuse it
    2 packets; whole answer from 2 segments, 2026-11-21T18:00:00.000000000Z to 2026-11-21T18:00:00.000000002Z
    "#);
    // Only the matches count, not what lies beside them.
    assert_eq!(
        store.taperead(&["packets", "ether", "src", "02:00:00:00:00:01", "-w", file.to_str().unwrap()]).code,
        0
    );
}

#[test]
fn an_answer_that_cannot_be_written_says_why_and_what_to_do() {
    let (store, _) = store();
    let dir = tempfile::tempdir().unwrap();
    let folder = dir.path().to_str().unwrap();
    let mut shown = String::new();
    for target in [folder, "/dev/full"] {
        let answer = store.taperead(&["packets", "-w", target]);
        assert_eq!(answer.code, 2);
        shown.push_str(&answer.shown(dir.path()));
    }
    insta::assert_snapshot!(shown, @r#"
    --- stderr, exit 2
    error: cannot write 'STORE'
    Caused by: is a directory

    hint: -w names the file itself, such as case17.pcapng in that folder
    --- stderr, exit 2
    error: cannot write '/dev/full'
    Caused by: No space left on device (os error 28)

    hint: make room there, or write to a place that has some
    "#);
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_taperead"));
    let said =
        command.args(["packets", "--store", store.path().to_str().unwrap()]).stdout(full).output().unwrap();
    assert_eq!(said.status.code(), Some(2));
    insta::assert_snapshot!(String::from_utf8(said.stderr).unwrap(), @r#"
    error: cannot write to stdout
    Caused by: No space left on device (os error 28)

    hint: make room there, or write to a place that has some
    "#);
}

#[test]
fn with_json_an_error_ends_in_a_verdict_too() {
    let (store, _) = store();
    let cases: [(&[&str], &str); 6] = [
        (&["packets", "--json", "port", "x"], "cannot read the filter"),
        (&["packets", "--json", "--from", "soon"], "--from needs a time: 'soon' is not a time"),
        (&["packets", "--json", "-w", "/dev/full"], "cannot write '/dev/full': No space left"),
        (&["packets", "--json", "--limit", "0"], "invalid value '0' for '--limit <N>'"),
        (&["packets", "--json", "--nonsense"], "unexpected argument '--nonsense' found"),
        (&["segments", "--json", "--from", "soon"], "--from needs a time"),
    ];
    for (args, want) in cases {
        let answer = store.taperead(args);
        let verdict = answer.verdict();
        assert_eq!((answer.code, &verdict["complete"]), (2, &false.into()), "{args:?} {}", answer.stderr);
        assert!(verdict["error"].as_str().unwrap().starts_with(want), "{verdict}");
        let mut keys: Vec<&String> = verdict.as_object().unwrap().keys().collect();
        keys.retain(|key| *key != "error");
        let whole = store.taperead(&["packets", "--json"]).verdict();
        assert_eq!(keys, whole.as_object().unwrap().keys().collect::<Vec<_>>());
    }
}
