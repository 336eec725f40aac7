//! Bad input at every entry: one clear error, the exit code of the contract, no panic, nothing lost.

use crate::made;
use crate::tools::{bin, files_with, run, stderr, stdout, together};
use std::path::Path;

/// A small deterministic generator (xorshift64*): the seed is in every failure message.
pub(crate) struct Seeded(u64);

impl Seeded {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.max(1))
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let word = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(word).unwrap() % bound.max(1)
    }
}

struct Imported {
    _dir: tempfile::TempDir,
    store: String,
    packets: usize,
}

/// A store with a few hundred made packets in one segment.
fn imported() -> Imported {
    let dir = tempfile::tempdir().unwrap();
    let packets: Vec<_> =
        (0..400u16).map(|i| (1_700_000_000, u32::from(i), made::udp(i % 7, 10 + usize::from(i)))).collect();
    let file = dir.path().join("made.pcap");
    std::fs::write(&file, made::pcap(0xa1b2_c3d4, 1, &packets)).unwrap();
    let store = dir.path().join("store").to_str().unwrap().to_owned();
    let import = run(bin("tapedeck"), &["import", "--store", &store, file.to_str().unwrap()]);
    assert_eq!(import.status.code(), Some(0), "{}", stderr(&import));
    Imported { _dir: dir, store, packets: packets.len() }
}

/// An error is `error: what`, with no panic and no backtrace behind it.
fn assert_one_clear_error(what: &str, text: &str) {
    assert!(text.starts_with("error: "), "{what}: no clear error:\n{text}");
    assert_eq!(text.matches("error: ").count(), 1, "{what}: more than one error:\n{text}");
    assert!(!text.contains("panicked"), "{what}: panicked:\n{text}");
}

#[test]
fn each_wrong_call_gets_one_clear_error() {
    let _turn = together();
    let made = imported();
    let store = made.store.as_str();
    let dir = tempfile::tempdir().unwrap();
    let foreign = dir.path().join("letter.txt");
    std::fs::write(&foreign, "Dear reader, this is no capture. ".repeat(20)).unwrap();
    let foreign = foreign.to_str().unwrap();
    let absent = dir.path().join("absent").to_str().unwrap().to_owned();
    let inside = format!("{store}/packets/inside.pcapng");
    // (binary, arguments, what the error must name)
    let calls: Vec<(&str, Vec<&str>, Vec<&str>)> = vec![
        ("taperead", vec!["packets", "--store", &absent], vec!["absent"]),
        ("taperead", vec!["packets", "--store", foreign], vec!["letter.txt"]),
        ("taperead", vec!["packets", "--store", store, "host"], vec!["hint: "]),
        ("taperead", vec!["packets", "--store", store, "hsot 10.0.0.1"], vec!["host"]),
        ("taperead", vec!["packets", "--store", store, "host 10.0.0.256"], vec!["10.0.0.256"]),
        ("taperead", vec!["packets", "--store", store, "port 70000"], vec!["70000"]),
        ("taperead", vec!["packets", "--store", store, "(tcp"], vec!["hint: "]),
        ("taperead", vec!["packets", "--store", store, "tcp[13] & 2 != 0"], vec!["hint: "]),
        ("taperead", vec!["packets", "--store", store, "--from", "yesterday-ish"], vec!["yesterday-ish"]),
        ("taperead", vec!["packets", "--store", store, "--from", "2024-13-01"], vec!["2024-13-01"]),
        (
            "taperead",
            vec!["packets", "--store", store, "-w", &inside],
            vec!["inside.pcapng", "never replaced"],
        ),
        ("taperead", vec!["inspect", foreign], vec!["letter.txt"]),
        ("taperead", vec!["inspect", &absent], vec!["absent"]),
        ("tapedeck", vec!["import", "--store", &absent, foreign], vec!["letter.txt", "offset 0"]),
        ("tapedeck", vec!["import", "--store", store, &absent], vec!["absent"]),
        ("tapedeck", vec!["verify", "--store", &absent], vec!["absent"]),
        ("tapedeck", vec!["reindex", "--store", &absent], vec!["absent"]),
        ("tapedeck", vec!["recover", "--store", &absent], vec!["absent"]),
        ("tapedeck", vec!["record", "--store", store, "--interface", "tdnone0"], vec!["tdnone0", "hint: "]),
    ];
    for (program, arguments, named) in calls {
        let what = format!("{program} {}", arguments.join(" "));
        let output = run(bin(program), &arguments);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{what}: {text}");
        assert_one_clear_error(&what, &text);
        for name in named {
            assert!(text.contains(name), "{what}: does not name `{name}`:\n{text}");
        }
        assert_eq!(stdout(&output), "", "{what}: wrote to stdout");
    }
}

/// Runs `check` on a file with one seeded bit flipped, then puts the byte back.
fn with_flips(file: &Path, seed: u64, rounds: usize, mut check: impl FnMut(&str)) {
    let original = std::fs::read(file).unwrap();
    let mut random = Seeded::new(seed);
    for _ in 0..rounds {
        let at = random.below(original.len());
        let bit = random.below(8);
        let mut damaged = original.clone();
        *damaged.get_mut(at).unwrap() ^= 1 << bit;
        std::fs::write(file, &damaged).unwrap();
        check(&format!("seed {seed}: {} byte {at} bit {bit}", file.display()));
    }
    std::fs::write(file, &original).unwrap();
}

#[test]
fn a_flipped_bit_in_a_segment_is_never_a_silent_gap() {
    let _turn = together();
    let made = imported();
    let segment = files_with(made.store.as_ref(), ".pcapng.zst").pop().unwrap();
    with_flips(&segment, 11, 150, |what| {
        let output = run(bin("taperead"), &["packets", "--store", &made.store, "--count"]);
        let count: usize = stdout(&output).trim().parse().unwrap_or(0);
        match output.status.code() {
            Some(0) => assert_eq!(count, made.packets, "{what}: short answer called whole"),
            Some(3) => assert!(stderr(&output).contains("at byte"), "{what}: {}", stderr(&output)),
            other => panic!("{what}: exit {other:?}: {}", stderr(&output)),
        }
    });
}

#[test]
fn a_flipped_bit_in_a_sidecar_costs_time_but_no_packet() {
    let _turn = together();
    let made = imported();
    let sidecar = files_with(made.store.as_ref(), ".idx").pop().unwrap();
    let arguments = ["packets", "--store", &made.store, "--count", "udp src port 3"];
    let wanted = stdout(&run(bin("taperead"), &arguments));
    assert_ne!(wanted.trim(), "0");
    with_flips(&sidecar, 12, 150, |what| {
        let output = run(bin("taperead"), &arguments);
        assert_eq!(output.status.code(), Some(0), "{what}: {}", stderr(&output));
        assert_eq!(stdout(&output), wanted, "{what}");
    });
}

#[test]
fn verify_finds_a_flipped_bit() {
    let _turn = together();
    let made = imported();
    for ending in [".pcapng.zst", ".idx"] {
        let file = files_with(made.store.as_ref(), ending).pop().unwrap();
        with_flips(&file, 13, 40, |what| {
            let output = run(bin("tapedeck"), &["verify", "--store", &made.store]);
            assert_eq!(output.status.code(), Some(3), "{what}: {}{}", stdout(&output), stderr(&output));
        });
    }
    let output = run(bin("tapedeck"), &["verify", "--store", &made.store]);
    assert_eq!(output.status.code(), Some(0), "{}{}", stdout(&output), stderr(&output));
}

#[test]
fn reindex_keeps_the_index_that_knows_what_is_missing() {
    let _turn = together();
    let made = imported();
    let segment = files_with(made.store.as_ref(), ".pcapng.zst").pop().unwrap();
    let sidecar = files_with(made.store.as_ref(), ".idx").pop().unwrap();
    let before = std::fs::read(&sidecar).unwrap();
    std::fs::write(&segment, b"").unwrap();
    let reindex = run(bin("tapedeck"), &["reindex", "--store", &made.store]);
    assert_eq!(reindex.status.code(), Some(3), "{}", stderr(&reindex));
    assert_eq!(std::fs::read(&sidecar).unwrap(), before);
    let answer = run(bin("taperead"), &["packets", "--store", &made.store, "--count"]);
    assert_eq!(answer.status.code(), Some(3), "{}", stderr(&answer));
}

#[test]
fn a_damaged_capture_is_imported_as_far_as_it_is_whole() {
    let _turn = together();
    let dir = tempfile::tempdir().unwrap();
    let file = made::all(dir.path()).swap_remove(0);
    let original = std::fs::read(&file).unwrap();
    let mut round = 0;
    let mut import = |what: &str| {
        round += 1;
        let store = dir.path().join(format!("store{round}"));
        let output =
            run(bin("tapedeck"), &["import", "--store", store.to_str().unwrap(), file.to_str().unwrap()]);
        let code = output.status.code().unwrap_or(-1);
        assert!([0, 2, 3].contains(&code), "{what}: exit {code}: {}", stderr(&output));
        assert!(!stderr(&output).contains("panicked"), "{what}: {}", stderr(&output));
        if code != 0 {
            assert!(stderr(&output).contains("offset"), "{what}: names no offset: {}", stderr(&output));
        }
        std::fs::remove_dir_all(store).ok();
    };
    with_flips(&file, 14, 60, &mut import);
    let mut random = Seeded::new(15);
    for _ in 0..40 {
        let len = random.below(original.len());
        std::fs::write(&file, original.get(..len).unwrap()).unwrap();
        import(&format!("seed 15: cut to {len} bytes"));
    }
}
