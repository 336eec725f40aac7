//! Packs as a user meets them: an import makes them, searches use them, verify and reindex look after them.

use crate::made;
use crate::tools::{bin, files_with, run, stderr, stdout, together};
use std::path::Path;

#[test]
fn an_import_of_many_segments_can_be_searched_through_packs() {
    let _turn = together();
    let dir = tempfile::tempdir().unwrap();
    // A packet in the middle of each hour: each hour is a segment of its own.
    let hour = 1_700_000_000 / 3600 * 3600 + 1800;
    let packets: Vec<_> = (0..150u16).map(|i| (hour + 3600 * u32::from(i), 0, made::udp(i, 40))).collect();
    let file = dir.path().join("made.pcap");
    std::fs::write(&file, made::pcap(0xa1b2_c3d4, 1, &packets)).unwrap();
    let store = dir.path().join("store").to_str().unwrap().to_owned();
    let import = run(bin("tapedeck"), &["import", "--store", &store, file.to_str().unwrap()]);
    assert_eq!(import.status.code(), Some(0), "{}", stderr(&import));
    let packs = || files_with(Path::new(&store), ".pack");
    assert_eq!(packs().len(), 1);
    let explain = || {
        let plan = run(bin("taperead"), &["packets", "host 192.0.2.250", "--explain", "--store", &store]);
        stdout(&plan).lines().find(|line| line.starts_with("segments")).unwrap().to_owned()
    };
    assert!(explain().contains("150 without a match by 1 packs"), "{}", explain());
    let absent = run(bin("taperead"), &["packets", "host 192.0.2.250", "--store", &store]);
    assert_eq!(absent.status.code(), Some(1), "{}", stderr(&absent));
    assert!(stderr(&absent).contains("whole answer from 150 segments"), "{}", stderr(&absent));
    let verify = || run(bin("tapedeck"), &["verify", "--store", &store]);
    assert!(stderr(&verify()).contains("1 packs"), "{}", stderr(&verify()));
    // Damaged: said by verify and by an answer, which is whole all the same; mended by reindex.
    let mut bytes = std::fs::read(&packs()[0]).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    bytes[85] ^= 1;
    std::fs::write(&packs()[0], bytes).unwrap();
    let damaged = verify();
    assert_eq!(damaged.status.code(), Some(3));
    let said = stderr(&damaged);
    let line = said.lines().find(|line| line.starts_with("damaged: ")).unwrap();
    assert_eq!(line.matches("are damaged").count(), 1, "{line}");
    let absent = run(bin("taperead"), &["packets", "host 192.0.2.250", "--store", &store]);
    assert_eq!(absent.status.code(), Some(1), "{}", stderr(&absent));
    assert!(stderr(&absent).contains(".pack: ") && stderr(&absent).contains("tapedeck reindex"));
    assert_eq!(run(bin("tapedeck"), &["reindex", "--store", &store]).status.code(), Some(0));
    assert_eq!(verify().status.code(), Some(0), "{}", stderr(&verify()));
    assert!(explain().contains("150 without a match by 1 packs"), "{}", explain());
}
