//! Packs are built when they are due, mean what the sidecars mean, and yield to everything.

use super::*;
use crate::testing::T18;
use crate::verify::{Damage, Fault, verify};
use crate::{RecoverOptions, recover, reindex};
use std::net::Ipv4Addr;
use std::process::Command;
use tapedeck_index::frame::store_raw;
use tapedeck_index::name::{FileKind, PACKETS_FOLDER, hour_folder};
use tapedeck_index::pcapng::{
    Counters, InterfaceInfo, PacketRecord, SectionInfo, encode_packet, encode_statistics,
};
use tapedeck_index::rows::{FrameRows, RowTable};
use tapedeck_index::sidecar::{FrameMeta, Head, SidecarBuilder};
use tapedeck_packet::{LinkType, Walk};

fn name(seq: u32) -> SegmentName {
    let t0 = Timestamp::from_nanos_saturating(T18 + u64::from(seq) * 1_000_000_000);
    SegmentName { t0, sensor: "lab".into(), interface: "eth0".into(), queue: 0, run: 7, seq }
}

/// A packet from 10.0.x.y, where x.y is `host`, to 192.0.2.1.
fn packet(host: u32) -> Vec<u8> {
    let mut bytes = crate::testing::udp(1, 60);
    bytes[26..30].copy_from_slice(&(0x0a00_0000 + host).to_be_bytes());
    bytes[30..34].copy_from_slice(&[192, 0, 2, 1]);
    bytes
}

/// A sealed segment of one packet, as a recorder leaves it.
fn segment(store: &Path, seq: u32, host: u32) {
    let name = name(seq);
    let interface = InterfaceInfo::named("eth0", LinkType::ETHERNET);
    let head = Head::encode(&SectionInfo::default(), &interface);
    let (mut walk, mut rows, mut builder) = (Walk::new(), RowTable::new(), SidecarBuilder::new());
    let (mut file, mut offset, mut frame_rows) = (Vec::new(), 0, FrameRows::default());
    let bytes = packet(host);
    let mut body = Vec::new();
    let record = PacketRecord { ts: name.t0, bytes: &bytes, orig_len: 60, dropped: 0, flags: None };
    encode_packet(&mut body, &record);
    let mut tail = Vec::new();
    encode_statistics(&mut tail, name.t0, &Counters::default());
    for (blocks, packets) in [(&head, 0), (&body, 1), (&tail, 0)] {
        if packets > 0 {
            walk.run(LinkType::ETHERNET, &bytes);
            rows.add(&walk);
        }
        let stored_len = u32::try_from(store_raw(blocks, &mut file).unwrap()).unwrap();
        let raw_len = u32::try_from(blocks.len()).unwrap();
        let (t_min, t_max) = (name.t0, name.t0);
        let (first_arrival, sorted) = (0, true);
        let meta = FrameMeta { offset, stored_len, raw_len, packets, t_min, t_max, first_arrival, sorted };
        rows.cut_frame(&mut frame_rows);
        builder.frame(meta, &frame_rows);
        offset += u64::from(stored_len);
    }
    let folder = store.join(hour_folder(name.t0.hour()));
    std::fs::create_dir_all(&folder).unwrap();
    std::fs::write(folder.join(name.file(FileKind::Index)), builder.finish(&name, &head).unwrap()).unwrap();
    std::fs::write(folder.join(name.file(FileKind::Sealed)), file).unwrap();
}

fn store(count: u32) -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    (0..count).for_each(|seq| segment(dir.path(), seq, seq));
    dir
}

fn build(store: &Path) -> PacksReport {
    let report = build_packs(store, None, &AtomicBool::new(false));
    assert!(report.errors.is_empty(), "{report:?}");
    report
}

fn packs(store: &Path) -> Vec<Pack> {
    list(store).unwrap().into_iter().map(|(path, _)| Pack::open(&path).unwrap()).collect()
}

fn index(store: &Path, seq: u32) -> PathBuf {
    store.join(hour_folder(name(seq).t0.hour())).join(name(seq).file(FileKind::Index))
}

#[test]
fn small_packs_become_full_ones() {
    let dir = store(127);
    assert!(build(dir.path()).written.is_empty());
    assert!(!dir.path().join(PACKS_FOLDER).exists());
    segment(dir.path(), 127, 127);
    assert_eq!(build(dir.path()).written.len(), 1);
    assert!(!packs(dir.path())[0].is_full());
    (128..1_160).for_each(|seq| segment(dir.path(), seq, seq));
    let report = build(dir.path());
    assert_eq!((report.written.len(), report.removed.len()), (2, 1), "{report:?}");
    let mut sizes: Vec<_> =
        packs(dir.path()).iter().map(|pack| (pack.members().len(), pack.is_full())).collect();
    sizes.sort_unstable();
    assert_eq!(sizes, [(136, false), (1_024, true)]);
    assert!(build(dir.path()).written.is_empty());
    for pack in packs(dir.path()) {
        for (number, member) in pack.members().iter().enumerate() {
            let own = pack.with(&Key::v4(Ipv4Addr::from_bits(0x0a00_0000 + member.name.seq))).unwrap();
            assert!(own.contains(number));
        }
    }
    let report = verify(dir.path()).unwrap();
    assert_eq!((report.packs, report.damage.len()), (2, 0), "{:?}", report.damage);
}

#[test]
fn young_segments_wait_and_a_stopped_builder_leaves_nothing() {
    let dir = store(150);
    // In the next hour.
    (4_000..4_140).for_each(|seq| segment(dir.path(), seq, seq));
    let before = Some(name(4_500).t0);
    let stopped = build_packs(dir.path(), before, &AtomicBool::new(true));
    assert!(stopped.written.is_empty() && list(dir.path()).unwrap().is_empty());
    assert_eq!(build_packs(dir.path(), before, &AtomicBool::new(false)).written.len(), 1);
    assert_eq!(packs(dir.path())[0].members().len(), 150);
    // A pack of segments that this builder does not look at stays.
    assert_eq!(build(dir.path()).written.len(), 1);
    let late = build_packs(dir.path(), Some(name(100).t0), &AtomicBool::new(false));
    assert_eq!((late.written.len(), late.removed.len()), (0, 0), "{late:?}");
}

#[test]
fn one_builder_at_a_time_and_a_killed_one_is_cleaned_up() {
    let dir = store(130);
    let folder = dir.path().join(PACKS_FOLDER);
    let held = lock(&folder).unwrap().unwrap();
    assert!(build_packs(dir.path(), None, &AtomicBool::new(false)).busy);
    let half = folder.join(".x.pack.new");
    std::fs::write(&half, b"half").unwrap();
    assert!(recover(dir.path(), &RecoverOptions::default()).removed.is_empty());
    drop(held);
    assert_eq!(recover(dir.path(), &RecoverOptions::default()).removed, [half]);
    assert_eq!(build(dir.path()).written.len(), 1);
}

#[test]
fn segments_without_a_whole_index_are_left_out() {
    let dir = store(131);
    std::fs::remove_file(index(dir.path(), 3)).unwrap();
    let mut bytes = std::fs::read(index(dir.path(), 9)).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(index(dir.path(), 9), bytes).unwrap();
    build(dir.path());
    let members: Vec<u32> = packs(dir.path())[0].members().iter().map(|member| member.name.seq).collect();
    assert_eq!(members, (0..131).filter(|seq| ![3, 9].contains(seq)).collect::<Vec<_>>());
}

#[test]
fn a_pack_without_segments_and_a_damaged_one_go() {
    let dir = store(130);
    let written = build(dir.path()).written;
    let mut bytes = std::fs::read(&written[0]).unwrap();
    bytes[100] ^= 1;
    std::fs::write(&written[0], &bytes).unwrap();
    let report = build(dir.path());
    assert_eq!((report.removed, report.written), (written.clone(), written));
    std::fs::remove_dir_all(dir.path().join(PACKETS_FOLDER)).unwrap();
    assert_eq!(build(dir.path()).removed.len(), 1);
    assert!(packs(dir.path()).is_empty());
}

#[test]
fn verify_finds_a_pack_of_another_index_and_reindex_mends_it() {
    let dir = store(130);
    let written = build(dir.path()).written;
    // The same name, other packets: as if the pack had been made from something else.
    segment(dir.path(), 5, 70_000);
    let damage = verify(dir.path()).unwrap().damage;
    assert_eq!(damage.len(), 1, "{damage:?}");
    assert_eq!(damage[0].path, written[0]);
    assert!(matches!(damage[0].what, Fault::Pack(PackFault::Sidecar(_))), "{damage:?}");
    let report = reindex(dir.path(), &[]);
    assert_eq!(report.packs.removed, written);
    assert_eq!(report.packs.written.len(), 1);
    assert!(verify(dir.path()).unwrap().damage.is_empty());
    // A block that does not hold is found, too.
    let path = &report.packs.written[0];
    let mut bytes = std::fs::read(path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    std::fs::write(path, bytes).unwrap();
    let damage = verify(dir.path()).unwrap().damage;
    assert!(matches!(
        damage[..],
        [Damage { what: Fault::Pack(PackFault::Pack(PackError::Block { .. })), .. }]
    ));
    assert_eq!(reindex(dir.path(), &[]).packs.written.len(), 1);
    assert!(verify(dir.path()).unwrap().damage.is_empty());
}

#[test]
fn a_single_new_index_takes_its_pack_with_it() {
    let dir = store(130);
    let written = build(dir.path()).written;
    let segment_path = |seq| index(dir.path(), seq).with_file_name(name(seq).file(FileKind::Sealed));
    // Right already: no pack is looked at.
    let report = reindex(dir.path(), &[segment_path(4)]);
    assert_eq!((report.unchanged, report.packs.removed.len()), (1, 0));
    std::fs::remove_file(index(dir.path(), 4)).unwrap();
    let report = reindex(dir.path(), &[segment_path(4)]);
    assert_eq!((report.written.len(), report.packs.removed.len()), (1, 0), "the same index: {report:?}");
    assert_eq!(list(dir.path()).unwrap().len(), 1);
    assert!(written[0].exists());
}

#[test]
fn a_pack_goes_before_the_sidecar_that_it_was_not_made_from_comes() {
    let dir = store(130);
    let written = build(dir.path()).written;
    let old = std::fs::read(index(dir.path(), 5)).unwrap();
    let other = store(6);
    segment(other.path(), 5, 70_000);
    let new = std::fs::read(index(other.path(), 5)).unwrap();
    assert_ne!(old, new);
    let mut held = Held::take(dir.path()).unwrap();
    // While sidecars are made anew no builder looks at them.
    assert!(build_packs(dir.path(), None, &AtomicBool::new(false)).busy);
    held.before(&name(5), &old).unwrap();
    held.before(&name(1_000), &new).unwrap();
    assert!(written[0].exists());
    held.before(&name(5), &new).unwrap();
    assert!(!written[0].exists());
    let report = held.rebuild(Some(&HashSet::new()));
    assert_eq!((report.removed, report.written.len()), (written, 1));
    assert!(!build(dir.path()).busy);
}

#[test]
fn no_folder_is_made_for_packs_of_a_small_store() {
    let dir = store(3);
    std::fs::remove_file(index(dir.path(), 1)).unwrap();
    let report = reindex(dir.path(), &[]);
    assert_eq!((report.written.len(), report.unchanged, report.packs.errors.len()), (1, 2, 0));
    assert!(!dir.path().join(PACKS_FOLDER).exists());
}

#[test]
fn packs_of_other_versions_and_what_is_no_pack() {
    let dir = store(130);
    let written = build(dir.path()).written;
    let whole = std::fs::read(&written[0]).unwrap();
    let of_version = |version: u32| {
        let mut bytes = whole.clone();
        bytes[8..12].copy_from_slice(&version.to_le_bytes());
        std::fs::write(&written[0], bytes).unwrap();
    };
    // An old one is made anew, a newer program's stays and excludes nothing.
    of_version(PACK_VERSION - 1);
    let report = build(dir.path());
    assert_eq!((&report.removed, &report.written), (&written, &written));
    of_version(PACK_VERSION + 1);
    let report = build(dir.path());
    assert_eq!((report.removed.len(), &report.written), (0, &written));
    // Same name, so it is not replaced.
    assert_ne!(std::fs::read(&written[0]).unwrap(), whole);
    std::fs::remove_file(&written[0]).unwrap();
    // A pipe of a pack's name: opening it would never end.
    let pipe = Command::new("mkfifo").arg(&written[0]).status().unwrap();
    assert!(pipe.success());
    assert_eq!(verify(dir.path()).unwrap().packs, 0);
    assert!(reindex(dir.path(), &[]).packs.errors.is_empty());
}
