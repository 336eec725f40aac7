//! What the rows of a dead run's ledger say: the sums in its note, and the rows after those.
//!
//! Recovery has run, as far as it could; what it could not take is read where it lies. It must never count a row
//! twice: those with a number below the note's are in the note's sums.

use super::Note;
use super::note::counts;
use crate::identity::existing_store;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use tapedeck_index::table::ledger::{LedgerCounts, LedgerRow, RowKind, from_batch};
use tapedeck_index::table::read::{self, ReadError, Rows as FileRows};
use tapedeck_index::table::{Found, LEDGER, list};
use tapedeck_packet::Timestamp;
use tapedeck_writer::table::LIVE_SEQ;

/// What its rows say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rows {
    /// By queue.
    pub(crate) queues: BTreeMap<u32, Booked>,
    /// Rows of the dead before it that it has booked, by what tells them apart.
    pub(crate) told: BTreeSet<String>,
}

/// What the rows of a queue say.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Booked {
    /// Their sums.
    pub(crate) counts: LedgerCounts,
    /// Up to when nothing is missing or under way in them, nanoseconds since the epoch; 0: no second has a row.
    pub(crate) end_ns: u64,
}

/// Reads what is there.
pub(crate) fn read(note: &Note, say: &mut dyn FnMut(&str)) -> Rows {
    let mut all = Rows::default();
    let Some(run) = note.run_number() else { return all };
    let there: Vec<bool> = note.stores.iter().map(|store| existing_store(store).is_ok()).collect();
    for queue in note.queues.iter().filter(|queue| there.get(queue.home) == Some(&true)) {
        let booked = Booked { counts: counts(&queue.booked), end_ns: queue.booked_end_ns };
        all.queues.insert(queue.queue, booked);
    }
    let mut open = BTreeMap::new();
    for (at, store) in note.stores.iter().enumerate().filter(|(at, _)| there.get(*at) == Some(&true)) {
        let from = note.ledger_from.get(at).copied().unwrap_or(0);
        let mut take = |seq: u32, row: LedgerRow| {
            // Those of live journals are in no sums.
            let is_new = seq >= LIVE_SEQ || row.number >= note.ledger_number;
            all.take(note, is_new, row, &mut open);
        };
        for trouble in each_row(store, run, from, &mut take) {
            say(&trouble.text(&note.run));
        }
    }
    for (queue, from) in open {
        let booked = all.queues.entry(queue).or_default();
        booked.end_ns = if booked.end_ns == 0 { from } else { booked.end_ns.min(from) };
    }
    all
}

impl Rows {
    /// `open`: where the first second begins of which something was under way.
    fn take(&mut self, note: &Note, is_new: bool, row: LedgerRow, open: &mut BTreeMap<u32, u64>) {
        if matches!(row.kind, RowKind::Crash | RowKind::Down) {
            self.told.insert(row.uid);
            return;
        }
        let Some(queue) = row.queue.filter(|_| row.interface.as_ref() == Some(&note.interface)) else {
            return;
        };
        let booked = self.queues.entry(queue).or_default();
        if row.counts.pending == 0 && row.kind == RowKind::Second {
            booked.end_ns = booked.end_ns.max(row.ts_end.nanos());
        } else if row.counts.pending != 0 {
            let first = open.entry(queue).or_insert(u64::MAX);
            *first = row.ts.nanos().min(*first);
        }
        if is_new {
            booked.counts = booked.counts.plus(&row.counts);
        }
    }
}

/// A file whose rows are not all known.
#[derive(Debug)]
struct Trouble {
    path: PathBuf,
    error: ReadError,
}

impl Trouble {
    /// What is damaged is so for every reader: the rows in it are in no table any more.
    fn text(&self, run: &str) -> String {
        let Self { path, error } = self;
        let path = path.display();
        if matches!(error, ReadError::Io(_)) {
            return format!(
                "warning: {path}: {error}: should it be read again, the ledger of run {run} counts its rows twice"
            );
        }
        format!(
            "warning: {path}: {error}: what they told of run {run} since its last note is told by its `crash` row, \
             what they told before is in no row"
        )
    }
}

/// Gives the rows of a run in a store, of files from a number on, with the numbers of their files. What cannot be read
/// of one file keeps no other from being read.
fn each_row(store: &Path, run: u32, from: u32, take: &mut dyn FnMut(u32, LedgerRow)) -> Vec<Trouble> {
    let listing = match list(&LEDGER, &[PathBuf::from(store)], Timestamp::ZERO, None) {
        Ok(listing) => listing,
        Err(error) => {
            let error = ReadError::Io(std::io::Error::other(error));
            return vec![Trouble { path: store.to_owned(), error }];
        }
    };
    let mut troubles = Vec::new();
    let mut rows = |path: &Path, seq: u32, rows: Result<FileRows, ReadError>| {
        let mut all = |rows: FileRows| {
            for batch in &rows.batches {
                from_batch(batch)?.into_iter().for_each(|row| take(seq, row));
            }
            rows.damage().map_or(Ok(()), Err)
        };
        let done: Result<(), ReadError> = rows.and_then(&mut all);
        troubles.extend(done.err().map(|error| Trouble { path: path.to_owned(), error }));
    };
    let ours = |found: &&Found| found.name.run == run && found.name.seq >= from;
    for found in listing.files.iter().filter(ours) {
        rows(&found.path, found.name.seq, read::file(found));
    }
    for live in listing.live.iter().filter(|live| live.run == run) {
        rows(&live.path, LIVE_SEQ, read::unreplaced(&LEDGER, live, &listing.files));
    }
    troubles
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;
    use tapedeck_index::table::ledger::to_batch;
    use tapedeck_packet::time::NANOS_PER_SEC;
    use tapedeck_writer::table::{TableConfig, TableWriter};

    const RUN: u32 = 7;

    /// A second in which ten packets came.
    fn row(number: u32) -> LedgerRow {
        let at = |second: u32| Timestamp::from_nanos_saturating(u64::from(second) * NANOS_PER_SEC);
        LedgerRow {
            ts: at(number),
            ts_end: at(number + 1),
            run: format!("{RUN:08x}"),
            interface: Some("eth1".to_owned()),
            queue: Some(0),
            uid: number.to_string(),
            number,
            counts: LedgerCounts { seen: 10, stored: 10, ..LedgerCounts::default() },
            ..LedgerRow::default()
        }
    }

    /// What is read of three rows in a journal, each a record, and one in a live journal, after `harm`: packets seen, and
    /// what is said.
    fn after(harm: impl Fn(&Path, &Path)) -> (i64, Vec<String>) {
        let dir = tempfile::tempdir().unwrap();
        crate::identity::open_store(dir.path()).unwrap();
        let mut table =
            TableWriter::new(&LEDGER, TableConfig::new(dir.path().into(), "s".into(), RUN)).unwrap();
        for number in 0..3 {
            table.append(&to_batch(&[row(number)]).unwrap(), Instant::now());
            table.commit();
        }
        let mut live = row(3);
        (live.counts.stored, live.counts.pending) = (0, 10);
        table.append_live(&to_batch(&[live]).unwrap());
        table.commit();
        drop(table);
        let listing = list(&LEDGER, &[dir.path().to_owned()], Timestamp::ZERO, None).unwrap();
        harm(&listing.files[0].path, &listing.live[0].path);
        let note = Note {
            run: format!("{RUN:08x}"),
            interface: "eth1".to_owned(),
            stores: vec![dir.path().to_owned()],
            ..Note::default()
        };
        let mut said = Vec::new();
        let rows =
            read(&note, &mut |line| said.push(line.replace(&dir.path().display().to_string(), "STORE")));
        (rows.queues.get(&0).map_or(0, |booked| booked.counts.seen), said)
    }

    fn flip(path: &Path, at: impl Fn(usize) -> usize) {
        let mut bytes = std::fs::read(path).unwrap();
        let at = at(bytes.len());
        bytes[at] ^= 1;
        std::fs::write(path, bytes).unwrap();
    }

    #[test]
    fn what_holds_of_damaged_files_is_read_and_the_rest_is_named() {
        assert_eq!(after(|_, _| {}), (40, vec![]));
        // Only the last record of the journal.
        let (seen, said) = after(|journal, _| flip(journal, |len| len - 1));
        assert_eq!((seen, said.len()), (30, 1), "{said:?}");
        let named = said[0].starts_with("warning: STORE/ledger/") && said[0].contains("bad record, at byte ");
        assert!(named && said[0].contains("run 00000007"), "{said:?}");
        // All of the one or the other.
        let (seen, said) = after(|journal, _| flip(journal, |_| 20));
        assert_eq!((seen, said.len()), (10, 1), "{said:?}");
        for harm in [|len: usize| len - 1, |_: usize| 20] {
            let (seen, said) = after(|_, live| flip(live, harm));
            assert_eq!((seen, said.len()), (30, 1), "{said:?}");
        }
        let (seen, said) = after(|journal, live| {
            flip(journal, |len| len - 1);
            flip(live, |_| 20);
        });
        assert_eq!((seen, said.len()), (20, 2), "{said:?}");
    }
}
