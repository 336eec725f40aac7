//! How many packets of a dead run are in its stores.
//!
//! Its note says how many were in sealed segments when it was written; the segments after those are looked
//! at, one index each. Recovery must have run. It must never guess: what cannot be looked at is said, and
//! not counted.

use super::Note;
use crate::identity::existing_store;
use crate::maintain;
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;
use tapedeck_index::catalog::{self, Found, State};
use tapedeck_index::mapped;
use tapedeck_writer::RecoverOptions;

/// Longest wait for the locks of a killed recorder, once its successor needs to know.
const PATIENCE: Duration = Duration::from_secs(10);

/// Packets in the stores, by queue of the note.
pub(crate) fn packets(note: &Note, say: &mut dyn FnMut(&str)) -> BTreeMap<u32, u64> {
    let Some(run) = note.run_number() else { return BTreeMap::new() };
    let gone: BTreeSet<&PathBuf> =
        note.stores.iter().filter(|store| existing_store(store).is_err()).collect();
    for store in &gone {
        say(&format!(
            "warning: the store {} of run {} is not there: what was delivered to it counts as `crash`",
            store.display(),
            note.run
        ));
    }
    let mut found = BTreeMap::new();
    for entry in &note.queues {
        let at = usize::try_from(entry.queue).unwrap_or(usize::MAX) % note.stores.len().max(1);
        let there = note.stores.get(at).is_some_and(|store| !gone.contains(store));
        found.insert(entry.queue, if there { entry.sealed } else { 0 });
    }
    let stores = note.stores.iter().filter(|store| !gone.contains(store)).cloned().collect::<Vec<_>>();
    let is_ours = |found: &Found| found.name.run == run && found.name.interface == note.interface;
    for segment in segments(&stores, is_ours, note, say) {
        let queue = segment.name.queue;
        if segment.name.seq >= note.known(queue).below {
            *found.entry(queue).or_default() += count(&segment, say);
        }
    }
    found
}

/// The sealed segments of the run.
fn segments(
    stores: &[PathBuf],
    is_ours: impl Fn(&Found) -> bool,
    note: &Note,
    say: &mut dyn FnMut(&str),
) -> Vec<Found> {
    for attempt in 0..2 {
        let listing = match catalog::all(stores) {
            Ok(listing) => listing,
            Err(error) => {
                say(&format!("warning: {error}: what run {} stored last counts as `crash`", note.run));
                return Vec::new();
            }
        };
        let (open, sealed): (Vec<_>, Vec<_>) =
            listing.segments.into_iter().filter(|found| is_ours(found)).partition(|f| f.state == State::Open);
        if open.is_empty() || attempt > 0 {
            for segment in open {
                let path = segment.packets_path();
                say(&format!("warning: {}: not recovered; its packets count as `crash`", path.display()));
            }
            return sealed;
        }
        // Of a store that this recorder does not write to, or still locked by the kernel for the dead.
        for store in stores {
            let options = RecoverOptions { patience: PATIENCE };
            maintain::say_recovered(&tapedeck_writer::recover(store, &options), say);
        }
    }
    Vec::new()
}

/// Packets of a sealed segment, from its index; a missing or damaged one is made anew.
fn count(segment: &Found, say: &mut dyn FnMut(&str)) -> u64 {
    let index = segment.index_path();
    if let Ok(sidecar) = mapped::open(&index) {
        return sidecar.summary().packets;
    }
    // packets/dt=../hr=..
    let store = segment.folder.ancestors().nth(3).unwrap_or(&segment.folder);
    let _ = tapedeck_writer::reindex(store, &[segment.packets_path()]);
    match mapped::open(&index) {
        Ok(sidecar) => sidecar.summary().packets,
        Err(error) => {
            say(&format!("warning: {error}: the packets of its segment count as `crash`"));
            0
        }
    }
}
