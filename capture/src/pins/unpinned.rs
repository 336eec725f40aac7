//! Recorders that died and left nothing pinned that counts: in mode `packet`, where there is no BPF file system, after a
//! power cut. That they were there, and up to when they vouched, their live files say.
//!
//! Nobody knows what passed since: the ledger gets a row of kind `down` that counts nothing. It must never tell of a
//! recorder that lives, nor of one whose counters are pinned.

use super::rows::{self, Booked};
use super::{Note, RowNote, heirs};
use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use tapedeck_index::live::{self, RUN_FOLDER};
use tapedeck_index::name::SegmentName;
use tapedeck_index::table::ledger::RowKind;
use tapedeck_index::table::{LEDGER, list};
use tapedeck_packet::Timestamp;
use tapedeck_packet::time::NANOS_PER_SEC;

/// So far before its last word lie the rows that say up to when its seconds are known: a file spans half of it.
const REACH_NANOS: u64 = 600 * NANOS_PER_SEC;

/// A queue of a dead recorder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Unpinned {
    store: PathBuf,
    interface: String,
    pub(crate) run: u32,
    queue: u32,
    /// Up to here every packet is stored or counted as lost.
    pub(crate) until: Timestamp,
}

/// Those of all interfaces whose live files lie in `stores`. To be asked before recovery, which clears them away.
pub(crate) fn find(stores: &[PathBuf]) -> Vec<Unpinned> {
    let mut found: Vec<Unpinned> = stores.iter().flat_map(|store| in_store(store)).collect();
    found.sort_by(|a, b| (&a.interface, a.run, a.queue).cmp(&(&b.interface, b.run, b.queue)));
    found
}

fn in_store(store: &Path) -> Vec<Unpinned> {
    let entries = fs::read_dir(store.join(RUN_FOLDER)).into_iter().flatten().flatten();
    let dead = |path: PathBuf| {
        let SegmentName { interface, queue, run, .. } = live::parse_file(path.file_name()?.to_str()?)?;
        let file = File::open(&path).ok()?;
        match file.try_lock_shared() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock | TryLockError::Error(_)) => return None,
        }
        let until = live::decode(&fs::read(&path).ok()?)?;
        Some(Unpinned { store: store.to_owned(), interface, run, queue, until })
    };
    entries.filter_map(|entry| dead(entry.path())).collect()
}

/// The rows that say that nobody knows what came on `interface` from their last known seconds to `now`: told by `run`.
/// `counted`: runs whose counters are pinned.
pub(super) fn rows(
    all: &[Unpinned],
    interface: &str,
    counted: &[String],
    heir: &Note,
    now: u64,
) -> Vec<RowNote> {
    let ours = all.iter().filter(|one| one.interface == interface);
    let unknown = ours.filter(|one| !counted.contains(&format!("{:08x}", one.run)));
    let row = |one: &Unpinned| {
        let (run, dead) = (&heir.run, format!("{:08x}", one.run));
        tracing::warn!(
            interface,
            queue = one.queue,
            "run {dead} ended without a ledger after {}; no program counted for it, so nobody knows what passed since",
            one.until
        );
        RowNote {
            kind: RowKind::Down.name().to_owned(),
            queue: one.queue,
            mode: heir.mode.clone(),
            span_ns: (known_until(one).min(now.saturating_sub(1)), now),
            uid: heirs::uid(run, interface, one.queue, RowKind::Down, Some(&dead)),
            run: run.clone(),
            interface: interface.to_owned(),
            ..RowNote::default()
        }
    };
    unknown.map(row).collect()
}

/// Up to when its losses are known: the end of its last settled row, or where it has none near its end, its last word.
fn known_until(one: &Unpinned) -> u64 {
    let until = one.until.nanos();
    let from = Timestamp::from_nanos_saturating(until.saturating_sub(REACH_NANOS));
    let listing = list(&LEDGER, std::slice::from_ref(&one.store), from, None).unwrap_or_default();
    let seqs = listing.files.iter().filter(|found| found.name.run == one.run).map(|found| found.name.seq);
    let note = Note {
        run: format!("{:08x}", one.run),
        interface: one.interface.clone(),
        stores: vec![one.store.clone()],
        ledger_from: vec![seqs.min().unwrap_or(u32::MAX)],
        ..Note::default()
    };
    // What cannot be read was said by recovery.
    let rows = rows::read(&note, &mut |_| {});
    let Booked { end_ns, .. } = rows.queues.get(&one.queue).copied().unwrap_or_default();
    if end_ns == 0 { until } else { end_ns.min(until) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dead_are_found_by_their_live_files_and_the_living_are_not() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join(RUN_FOLDER);
        fs::create_dir(&folder).unwrap();
        let until = Timestamp::from_nanos(1_795_284_000_000_000_000).unwrap();
        for name in ["lab-eth1-q3-0000abcd.live", "lab-eth1-q4-0000abce.live", "lab-eth2-q0-0000abcd.live"] {
            fs::write(folder.join(name), live::encode(until)).unwrap();
        }
        fs::write(folder.join("0000abcd.json"), "{}").unwrap();
        fs::write(folder.join("strange.live"), live::encode(until)).unwrap();
        let living = File::open(folder.join("lab-eth1-q4-0000abce.live")).unwrap();
        living.lock().unwrap();
        let all = find(&[dir.path().to_owned()]);
        let told: Vec<_> = all.iter().map(|one| (one.interface.as_str(), one.run, one.queue)).collect();
        assert_eq!(told, [("eth1", 0xabcd, 3), ("eth2", 0xabcd, 0)]);
        let heir = Note { run: "00000007".to_owned(), ..Note::default() };
        let now = until.nanos() + 5;
        let [row] = rows(&all, "eth1", &[], &heir, now).try_into().unwrap();
        assert_eq!((row.span_ns, row.queue, row.counts.len()), ((until.nanos(), now), 3, 0));
        assert_eq!(rows(&all, "eth1", &["0000abcd".to_owned()], &heir, now), []);
    }
}
