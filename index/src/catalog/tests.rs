//! Listing by hour, open before sealed, foreign files set aside.

use super::*;
use crate::name::hour_folder;
use tempfile::TempDir;

fn at(text_hour: u64, nanos: u64) -> Timestamp {
    UtcHour::from_hours(text_hour).start().saturating_add(nanos)
}

fn name(t0: Timestamp, interface: &str, seq: u32) -> SegmentName {
    SegmentName { t0, sensor: "lab-1".into(), interface: interface.into(), queue: 0, run: 1, seq }
}

fn put(store: &Path, hour: u64, file: &str) {
    let folder = store.join(hour_folder(UtcHour::from_hours(hour)));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join(file), b"").unwrap();
}

fn seqs(listing: &Listing) -> Vec<(u32, State)> {
    listing.segments.iter().map(|found| (found.name.seq, found.state)).collect()
}

#[test]
fn lists_the_hours_asked_for() {
    let dir = TempDir::new().unwrap();
    let hour = 473_000;
    for (seq, at_hour) in [(1, hour), (2, hour + 1), (3, hour + 2), (4, hour + 24)] {
        put(dir.path(), at_hour, &name(at(at_hour, 5), "eth0", seq).file(FileKind::Sealed));
    }
    let stores = [dir.path().to_path_buf()];
    let listed =
        |from, to| seqs(&list(&stores, from, to).unwrap()).iter().map(|(seq, _)| *seq).collect::<Vec<_>>();
    let second = NANOS_PER_SEC;
    assert_eq!(listed(at(hour + 1, 10 * second), at(hour + 1, 20 * second)), [2]);
    assert_eq!(listed(at(hour + 1, 2 * second - 1), at(hour + 1, 20 * second)), [1, 2]);
    assert_eq!(listed(at(hour + 1, 2 * second), at(hour + 2, 0).saturating_sub(2 * second)), [2]);
    assert_eq!(listed(at(hour + 1, 2 * second), at(hour + 2, 1).saturating_sub(2 * second)), [2, 3]);
    assert_eq!(listed(at(hour, 0), at(hour, 0)), [0; 0]);
    assert_eq!(listed(Timestamp::ZERO, Timestamp::MAX), [1, 2, 3, 4]);
    assert_eq!(seqs(&all(&stores).unwrap()).len(), 4);
}

#[test]
fn sealed_replaces_open_and_foreign_is_reported() {
    let dir = TempDir::new().unwrap();
    let hour = 473_000;
    put(dir.path(), hour, &name(at(hour, 50), "eth1", 1).file(FileKind::Open));
    put(dir.path(), hour, &name(at(hour, 50), "eth1", 1).file(FileKind::Journal));
    put(dir.path(), hour, &name(at(hour, 40), "eth1", 1).file(FileKind::Sealed));
    put(dir.path(), hour, &name(at(hour, 40), "eth1", 1).file(FileKind::Index));
    put(dir.path(), hour, &name(at(hour, 40), "eth0", 3).file(FileKind::Open));
    for foreign in ["notes.txt", ".hidden", "x.pcapng.zst"] {
        put(dir.path(), hour, foreign);
    }
    let packets = dir.path().join(PACKETS_FOLDER);
    for foreign in ["dt=2023-02-30", "dt=1-1-1", "lost+found"] {
        fs::create_dir(packets.join(foreign)).unwrap();
    }
    let day = hour_folder(UtcHour::from_hours(hour)).parent().unwrap().to_path_buf();
    fs::create_dir(dir.path().join(day).join("hr=24")).unwrap();
    // A folder or a dead link named like a segment is none.
    let posing = |seq| {
        let file = name(at(hour, 60), "eth0", seq).file(FileKind::Sealed);
        dir.path().join(hour_folder(UtcHour::from_hours(hour))).join(file)
    };
    fs::create_dir(posing(9)).unwrap();
    std::os::unix::fs::symlink("/nowhere/at/all", posing(10)).unwrap();
    let missing = dir.path().join("none");
    let listing = list(&[dir.path().to_path_buf(), missing], at(hour, 0), at(hour, 1)).unwrap();
    assert_eq!(seqs(&listing), [(3, State::Open), (1, State::Sealed)]);
    assert_eq!(listing.foreign.len(), 9, "{:?}", listing.foreign);
    let [open, sealed] = listing.segments.as_slice() else { panic!() };
    assert!(open.packets_path().exists() && !open.index_path().exists());
    assert!(sealed.packets_path().exists() && sealed.index_path().exists());
    assert_eq!(sealed.hour.hours(), hour);
}

#[test]
fn a_sidecar_alone_tells_of_missing_packets() {
    let dir = TempDir::new().unwrap();
    let hour = 473_000;
    let stores = [dir.path().to_path_buf()];
    let lost = name(at(hour, 40), "eth0", 1);
    put(dir.path(), hour, &lost.file(FileKind::Index));
    // Being sealed: the sidecar is there before its packets, whose open file has another t0.
    put(dir.path(), hour, &name(at(hour, 50), "eth0", 2).file(FileKind::Open));
    put(dir.path(), hour, &name(at(hour, 45), "eth0", 2).file(FileKind::Index));
    let listing = all(&stores).unwrap();
    assert_eq!(seqs(&listing), [(2, State::Open)]);
    let [missing] = listing.missing.as_slice() else { panic!("{:?}", listing.missing) };
    assert_eq!(missing.name, lost);
    assert!(missing.index_path().exists() && !missing.packets_path().exists());
    assert!(list(&stores, at(hour + 9, 0), at(hour + 10, 0)).unwrap().missing.is_empty());
    // The other half of a removal comes a moment later.
    let index = missing.index_path();
    let late = std::thread::spawn(move || {
        std::thread::sleep(CONFIRM_PAUSE / 5);
        fs::remove_file(index).unwrap();
    });
    assert!(all(&stores).unwrap().missing.is_empty());
    late.join().unwrap();
}

#[test]
fn every_day_of_the_calendar_parses() {
    for day in (0..106_751).step_by(7) {
        let hour = UtcHour::from_hours(day * 24);
        assert_eq!(parse_day(&format!("dt={}", hour.date())), Some(hour));
    }
    for bad in [
        "dt=1969-12-31",
        "dt=2024-13-01",
        "dt=2024-02-30",
        "dt=24-02-03",
        "2024-02-03",
        "dt=18446744073709551615-01-01",
        "dt=9999-00-00",
        "dt=2262-04-12",
    ] {
        assert_eq!(parse_day(bad), None, "{bad}");
    }
}

#[test]
fn a_store_says_what_it_is() {
    let dir = TempDir::new().unwrap();
    let store = dir.path().join("new");
    assert!(matches!(StoreFile::read(&store), Err(StoreFileError::Absent { .. })));
    let made = StoreFile::read_or_create(&store, "lab \u{e9}").unwrap();
    assert_eq!(made, StoreFile { version: 1, sensor: "lab \u{e9}".into() });
    assert_eq!(StoreFile::read_or_create(&store, "other").unwrap(), made);
    assert_eq!(fs::read_dir(&store).unwrap().count(), 1);
    fs::write(store.join("store.json"), br#"{"version":2,"sensors":[]}"#).unwrap();
    assert!(matches!(StoreFile::read(&store), Err(StoreFileError::Version { found: 2, .. })));
    fs::write(store.join("store.json"), b"{").unwrap();
    assert!(matches!(StoreFile::read_or_create(&store, "x"), Err(StoreFileError::Json { .. })));
}
