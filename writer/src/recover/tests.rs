//! Recovery of what a killed writer leaves, and of what a killed recovery leaves.

use super::*;
use crate::chain::{Appended, Chain};
use crate::config::{ChainConfig, SinkChoice};
use crate::testing::{Sealed, T18, append, clean, config, files, ids, sealed, wait_for};
use crate::verify::{Damage, Fault, verify};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::sync::LazyLock;
use tapedeck_index::frame::frame_len;
use tapedeck_index::pcapng::Counters;

mod kill;

/// The files of a store, to be laid down again.
type Snapshot = BTreeMap<PathBuf, Vec<u8>>;

fn snapshot(store: &Path) -> Snapshot {
    let relative = |path: PathBuf| path.strip_prefix(store).unwrap().to_owned();
    let evidence = files(store).into_iter().filter(|path| path.starts_with(store.join("packets")));
    evidence.map(|path| (relative(path.clone()), std::fs::read(path).unwrap())).collect()
}

fn lay_down(snapshot: &Snapshot) -> tempfile::TempDir {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    for (path, bytes) in snapshot {
        let path = dir.path().join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, bytes).unwrap();
    }
    dir
}

/// A store as it looks while its writer is in the middle: some frames in the file, some blocks in the
/// journal. All `count` packets are retrievable.
fn open_store(count: u64, len: usize) -> Snapshot {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let base = config(dir.path(), SinkChoice::Plain);
    let mut chain =
        Chain::start(ChainConfig { frame_age: Duration::from_secs(1), segment_bytes: 16 << 20, ..base })
            .unwrap();
    let (counters, start) = (chain.counters(), Instant::now());
    for id in 0..count {
        wait_for("a buffer", || append(&mut chain, id, T18 + id * 1000, len) == Appended::Stored);
        if id == count / 2 {
            // Cuts the frame by age.
            let wall = start + Duration::from_secs(3600);
            chain.tick_at(crate::testing::at(T18), Counters::default(), wall);
        }
    }
    wait_for("the journal", || {
        chain.tick(crate::testing::at(T18), Counters::default());
        counters.snapshot().stored.packets == count
    });
    let taken = snapshot(dir.path());
    chain.finish().unwrap();
    taken
}

fn file_of<'a>(snapshot: &'a mut Snapshot, extension: &str) -> &'a mut Vec<u8> {
    let found = snapshot.iter_mut().find(|(path, _)| path.extension().is_some_and(|e| e == extension));
    found.unwrap().1
}

/// Recovers, and again; the second time there is nothing to do.
fn recover_twice(store: &Path) -> RecoverReport {
    let report = recover(store, &RecoverOptions::default());
    let before = snapshot(store);
    let again = recover(store, &RecoverOptions::default());
    assert!(again.segments.is_empty() && again.removed.is_empty() && again.errors.is_empty(), "{again:?}");
    assert_eq!(snapshot(store), before);
    report
}

/// Recovers without an error.
fn recover_clean(store: &Path) {
    let report = recover(store, &RecoverOptions::default());
    assert!(report.errors.is_empty(), "{report:?}");
}

#[test]
fn what_was_retrievable_is_sealed() {
    for (count, len) in [(1, 100), (20, 100), (3000, 1400)] {
        let dir = lay_down(&open_store(count, len));
        let report = recover_twice(dir.path());
        assert!(report.errors.is_empty() && report.busy.is_empty(), "{report:?}");
        assert_eq!(report.segments.len(), 1);
        assert_eq!(report.segments[0].packets, count);
        assert_eq!(report.segments[0].journal, JournalState::Whole);
        assert_eq!(ids(dir.path()), (0..count).collect::<Vec<u64>>());
        clean(dir.path());
    }
}

#[test]
fn without_a_journal_the_frames_alone_are_sealed() {
    let mut open = open_store(3000, 1400);
    file_of(&mut open, "journal").clear();
    let dir = lay_down(&open);
    let report = recover_twice(dir.path());
    let packets = report.segments[0].packets;
    assert_eq!(report.segments[0].journal, JournalState::Missing);
    assert!(packets > 300, "{packets}");
    assert_eq!(ids(dir.path()), (0..packets).collect::<Vec<u64>>());
    clean(dir.path());
}

#[test]
fn bytes_without_any_header_are_left_alone() {
    let mut open = open_store(100, 1400);
    file_of(&mut open, "journal").clear();
    let bytes = file_of(&mut open, "open");
    bytes.clear();
    bytes.extend([1; 100]);
    bytes.extend([0; 9000]);
    let dir = lay_down(&open);
    let report = recover(dir.path(), &RecoverOptions::default());
    assert!(matches!(report.errors[..], [RecoverError::NoHeader { bytes: 100, .. }]), "{report:?}");
    assert_eq!(snapshot(dir.path()), open);
}

#[test]
fn a_segment_without_packets_is_removed() {
    let mut open = open_store(1, 100);
    file_of(&mut open, "journal").clear();
    file_of(&mut open, "open").fill(0);
    let dir = lay_down(&open);
    let report = recover_twice(dir.path());
    assert!(report.segments[0].sealed.is_none() && report.segments[0].cut.is_none());
    assert!(files(dir.path()).is_empty());
}

/// Length of the open file up to its last byte that is not zero.
fn bytes_up_to_last(open: &Snapshot) -> u64 {
    let (_, bytes) = open.iter().find(|(path, _)| path.extension().is_some_and(|e| e == "open")).unwrap();
    let last = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    u64::try_from(last + 1).unwrap()
}

#[test]
fn a_torn_frame_is_cut_and_its_place_reported() {
    let mut open = open_store(3000, 1400);
    file_of(&mut open, "journal").clear();
    let bytes = file_of(&mut open, "open");
    let (mut last, mut end) = (0, 0);
    while let Ok(len) = frame_len(&bytes[end..]) {
        (last, end) = (end, end + len);
    }
    // The last frame loses its last byte.
    bytes.truncate(end - 1);
    let dir = lay_down(&open);
    let report = recover_twice(dir.path());
    let (offset, lost) = report.segments[0].cut.unwrap();
    assert_eq!(report.segments[0].fault, Some(FrameFault::Cut));
    assert_eq!(offset, u64::try_from(last).unwrap());
    // Up to the last byte that is not zero.
    let left = bytes_up_to_last(&open);
    assert_eq!(offset + lost, left);
    clean(dir.path());
}

#[test]
fn leftovers_of_a_dead_writer_are_removed() {
    let dir = lay_down(&open_store(50, 100));
    recover_clean(dir.path());
    let segment = &sealed(dir.path())[0];
    let folder = segment.path.parent().unwrap();
    let other = SegmentName { seq: 77, ..segment.name.clone() };
    let leftovers = [
        folder.join(segment.name.file(FileKind::Journal)),
        folder.join(format!(".{}", segment.name.file(FileKind::Index))),
        folder.join(SegmentName { t0: Timestamp::ZERO, ..segment.name.clone() }.file(FileKind::Index)),
        folder.join(other.file(FileKind::Journal)),
        folder.join(other.file(FileKind::Open)).with_extension("new"),
    ];
    leftovers.iter().for_each(|path| std::fs::write(path, b"left").unwrap());
    let report = recover(dir.path(), &RecoverOptions::default());
    assert_eq!(report.removed.len(), 4, "{report:?}");
    assert!(leftovers.iter().all(|path| !path.exists()));
    assert_eq!(ids(dir.path()).len(), 50);
    recover_twice(dir.path());
    clean(dir.path());
}

#[test]
fn the_sidecar_of_lost_packets_is_kept_and_reported() {
    let dir = lay_down(&open_store(50, 100));
    recover_clean(dir.path());
    let packets = sealed(dir.path())[0].path.clone();
    std::fs::remove_file(&packets).unwrap();
    let report = recover(dir.path(), &RecoverOptions::default());
    assert!(report.removed.is_empty() && report.errors.is_empty(), "{report:?}");
    let report = verify(dir.path()).unwrap();
    let [Damage { path, what: Fault::Missing { packets: Some(50), .. } }] = report.damage.as_slice() else {
        panic!("{report:?}");
    };
    assert!(path.exists());
    // Without a sidecar that can be read nothing is known but that something is lost.
    std::fs::write(path, b"").unwrap();
    let report = verify(dir.path()).unwrap();
    assert!(matches!(report.damage[0].what, Fault::Missing { packets: None, .. }), "{report:?}");
}

/// What verification and reindexing say of a segment that is cut at `len`, with and without its sidecar.
fn cut_at(len: impl Fn(&Sealed, usize) -> usize) -> (Vec<String>, Vec<String>, usize) {
    let dir = lay_down(&open_store(3000, 1400));
    recover_clean(dir.path());
    let segment = &sealed(dir.path())[0];
    let bytes = std::fs::read(&segment.path).unwrap();
    std::fs::write(&segment.path, &bytes[..len(segment, bytes.len())]).unwrap();
    let said = || verify(dir.path()).unwrap().damage.iter().map(|d| d.what.to_string()).collect::<Vec<_>>();
    let with = said();
    std::fs::remove_file(segment.path.with_file_name(segment.name.file(FileKind::Index))).unwrap();
    let without = said();
    let refused = crate::reindex::reindex(dir.path(), &[]).errors.len();
    (with, without, refused)
}

#[test]
fn a_cut_segment_is_never_whole() {
    let (with, without, refused) = cut_at(|_, _| 0);
    assert!(with.iter().any(|what| what.contains("0 bytes are there")), "{with:?}");
    assert!(without.contains(&Fault::Empty.to_string()), "{without:?}");
    assert_eq!(refused, 1);
    // Anywhere inside a frame.
    let (with, without, refused) = cut_at(|_, len| len / 2);
    assert!(with.len() == 1 && without.len() == 1 && refused == 1, "{with:?} {without:?}");
    // Where a frame ends: only the statistics that a seal writes last are missing.
    let frame_ends = |segment: &Sealed, len: usize| {
        let bytes = std::fs::read(&segment.path).unwrap();
        let mut ends = vec![0];
        while *ends.last().unwrap() < len {
            ends.push(ends.last().unwrap() + frame_len(&bytes[*ends.last().unwrap()..]).unwrap());
        }
        ends[ends.len() - 2]
    };
    let (with, without, refused) = cut_at(frame_ends);
    assert!(with.iter().any(|what| what.contains("are there, its index knows of")), "{with:?}");
    assert!(without.contains(&Fault::NoEnd.to_string()), "{without:?}");
    assert_eq!(refused, 1);
}

/// Every state that a recovery passes through on disk, by its steps.
fn states_within(open: &Snapshot) -> Vec<Snapshot> {
    let dir = lay_down(open);
    recover_clean(dir.path());
    let done = snapshot(dir.path());
    let find =
        |s: &Snapshot, e: &str| s.keys().find(|p| p.extension().is_some_and(|x| x == e)).unwrap().clone();
    let (journal, hidden) = (find(open, "journal"), find(open, "open"));
    let (index, packets) = (find(&done, "idx"), find(&done, "zst"));
    let hidden_index = index.with_file_name(format!(".{}", index.file_name().unwrap().to_str().unwrap()));
    let before = &open[&hidden];
    let sealed = &done[&packets];
    let mut states = Vec::new();
    // The file in the making: cut, then growing by new frames, torn anywhere.
    let common = before.iter().zip(sealed).take_while(|(a, b)| a == b).count();
    for len in (common..=sealed.len()).step_by(((sealed.len() - common) / 16).max(1)) {
        let mut state = open.clone();
        state.insert(hidden.clone(), sealed[..len].to_vec());
        states.push(state);
    }
    let mut mended = open.clone();
    mended.insert(hidden.clone(), sealed.clone());
    let with = |state: &Snapshot, path: &PathBuf, bytes: &[u8]| {
        let mut state = state.clone();
        state.insert(path.clone(), bytes.to_vec());
        state
    };
    states.push(with(&mended, &hidden_index, &done[&index][..10]));
    states.push(with(&mended, &hidden_index, &done[&index]));
    states.push(with(&mended, &index, &done[&index]));
    states.push(with(&done, &journal, &open[&journal]));
    states.push(mended);
    states.push(done);
    states
}

#[test]
fn a_recovery_killed_anywhere_is_finished_by_the_next() {
    for (count, len) in [(1, 100), (700, 1400), (2000, 1400)] {
        let open = open_store(count, len);
        for (number, state) in states_within(&open).iter().enumerate() {
            let dir = lay_down(state);
            let report = recover_twice(dir.path());
            assert!(report.errors.is_empty(), "state {number}: {report:?}");
            assert_eq!(ids(dir.path()), (0..count).collect::<Vec<u64>>(), "state {number}");
            clean(dir.path());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// Whatever happens to file and journal: no packet twice, what is sealed holds, and a journal cut
    /// or damaged costs at most what only it had.
    #[test]
    fn damage_never_doubles_a_packet(
        at in any::<prop::sample::Index>(),
        bit in 0..8_u32,
        cut: bool,
        of_journal: bool,
    ) {
        static OPEN: LazyLock<Snapshot> = LazyLock::new(|| open_store(400, 1400));
        let mut open = OPEN.clone();
        let bytes = file_of(&mut open, if of_journal { "journal" } else { "open" });
        let place = at.index(bytes.len());
        if cut {
            bytes.truncate(place);
        } else {
            bytes[place] ^= 1 << bit;
        }
        let dir = lay_down(&open);
        let report = recover(dir.path(), &RecoverOptions::default());
        if report.errors.is_empty() {
            let found = ids(dir.path());
            prop_assert!(found.windows(2).all(|pair| pair[0] < pair[1]));
            prop_assert!(verify(dir.path()).unwrap().damage.is_empty());
        }
    }
}

#[test]
fn sidecars_are_made_again_to_the_byte() {
    let dir = lay_down(&open_store(3000, 1400));
    recover_clean(dir.path());
    let sealed_state = snapshot(dir.path());
    let report = crate::reindex::reindex(dir.path(), &[]);
    assert!(report.written.is_empty() && report.errors.is_empty() && report.unchanged == 1, "{report:?}");
    for damage in [&b"nonsense"[..], b""] {
        let index = sealed(dir.path())[0].path.clone();
        let name = index.file_name().unwrap().to_str().unwrap().replace(".pcapng.zst", ".idx");
        std::fs::write(index.with_file_name(name), damage).unwrap();
        assert_eq!(verify(dir.path()).unwrap().damage.len(), 1);
        let report = crate::reindex::reindex(dir.path(), &[]);
        assert_eq!(report.written.len(), 1);
        assert_eq!(snapshot(dir.path()), sealed_state);
    }
    clean(dir.path());
}

#[test]
fn verification_finds_every_flipped_byte() {
    let dir = lay_down(&open_store(300, 1400));
    recover_clean(dir.path());
    let path = sealed(dir.path())[0].path.clone();
    let good = std::fs::read(&path).unwrap();
    for place in (0..good.len()).step_by((good.len() / 50).max(1)) {
        let mut bad = good.clone();
        bad[place] ^= 1;
        std::fs::write(&path, bad).unwrap();
        let report = verify(dir.path()).unwrap();
        assert!(!report.damage.is_empty(), "byte {place}");
        assert!(report.damage.iter().all(|damage| !damage.to_string().is_empty()));
    }
}
