//! What the rows of a dead run's ledger say: the sums in its note, and the rows after those.
//!
//! Recovery has run, as far as it could; what it could not take is read where it lies. It must never count a row
//! twice: those with a number below the note's are in the note's sums.

use super::Note;
use super::note::counts;
use crate::identity::existing_store;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use tapedeck_index::table::journal::Replay;
use tapedeck_index::table::ledger::{LedgerCounts, LedgerRow, RowKind, from_batch};
use tapedeck_index::table::live::{LiveReplay, without_replaced};
use tapedeck_index::table::{Found, LEDGER, State, list};
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

type Failed = Box<dyn Error + Send + Sync>;

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
        let rows = rows_of(store, run, from, say).unwrap_or_else(|error| {
            say(&format!(
                "warning: {}: {error}: the ledger of run {} may count twice",
                store.display(),
                note.run
            ));
            Vec::new()
        });
        for (seq, row) in rows {
            // Those of live journals are in no sums.
            let is_new = seq >= LIVE_SEQ || row.number >= note.ledger_number;
            all.take(note, is_new, row, &mut open);
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

/// The rows of a run in a store, of files from a number on, with the numbers of their files.
fn rows_of(
    store: &Path,
    run: u32,
    from: u32,
    say: &mut dyn FnMut(&str),
) -> Result<Vec<(u32, LedgerRow)>, Failed> {
    let listing = list(&LEDGER, &[PathBuf::from(store)], Timestamp::ZERO, None)?;
    let (mut rows, mut open) = (Vec::new(), Vec::new());
    for found in listing.files.iter().filter(|found| found.name.run == run && found.name.seq >= from) {
        match batches(found) {
            Ok(batches) => {
                for batch in &batches {
                    rows.extend(from_batch(batch)?.into_iter().map(|row| (found.name.seq, row)));
                }
                if found.state == State::Open {
                    open.extend(batches);
                }
            }
            // Nobody else can read it either.
            Err(error) => {
                let path = found.path.display();
                say(&format!(
                    "warning: {path}: {error}: the rows in it are booked anew, with those of the crash"
                ));
            }
        }
    }
    for live in listing.live.iter().filter(|live| live.run == run) {
        let replay = LiveReplay::read(&LEDGER, &fs::read(&live.path)?)?;
        let left = match LEDGER.live {
            Some(key) => without_replaced(key, &replay.rows, open.iter())?,
            None => replay.rows,
        };
        rows.extend(from_batch(&left)?.into_iter().map(|row| (LIVE_SEQ, row)));
    }
    Ok(rows)
}

fn batches(found: &Found) -> Result<Vec<arrow_array::RecordBatch>, Failed> {
    if found.state == State::Open {
        return Ok(Replay::read(&fs::read(&found.path)?)?.batches);
    }
    let reader = ParquetRecordBatchReaderBuilder::try_new(File::open(&found.path)?)?.build()?;
    Ok(reader.collect::<Result<_, _>>()?)
}
