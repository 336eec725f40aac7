//! The thread that writes the rows of the ledger: one table a store, each with its journal.
//!
//! The supervisor never waits for it: rows that find no room in the queue stay with the supervisor for the next
//! time. A row is in a journal, where readers see it and a `kill -9` leaves it, a quarter of a second after it
//! was handed over.

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tapedeck_index::table::LEDGER;
use tapedeck_index::table::ledger::{LedgerRow, to_batch};
use tapedeck_writer::WriteError;
use tapedeck_writer::table::{TableConfig, TableCounts, TableWriter};

/// Hand-overs that may wait; there is one a second.
const QUEUE: usize = 64;
/// Time between two commits to the journals.
const COMMIT: Duration = Duration::from_millis(250);
/// Time between two syncs.
const SYNC: Duration = Duration::from_secs(1);

/// Rows for one store.
#[derive(Debug, Default)]
pub(super) struct Rows {
    pub(super) store: usize,
    /// Final: each stands for itself.
    pub(super) rows: Vec<LedgerRow>,
    /// Of seconds of which something is under way: each replaces the one before it.
    pub(super) live: Vec<LedgerRow>,
}

/// What is surely on disk.
#[derive(Clone, Debug, Default)]
pub(super) struct Committed {
    /// Every row of the hand-overs up to this one.
    pub(super) serial: u64,
    /// By store: rows of later ones are in files from this number on.
    pub(super) from: Vec<u32>,
}

/// The thread.
#[derive(Debug)]
pub(super) struct LedgerTable {
    to: Sender<(u64, Vec<Rows>)>,
    committed: Arc<Mutex<Committed>>,
    thread: JoinHandle<Vec<TableCounts>>,
}

impl LedgerTable {
    /// Starts it for stores (folder, sensor).
    ///
    /// # Errors
    /// The system has no thread left.
    pub(super) fn start(stores: Vec<(PathBuf, String)>, run: u32) -> Result<Self, WriteError> {
        const NAME: &str = "ledger";
        let (to, from) = bounded(QUEUE);
        let config = |(path, sensor)| TableConfig::new(path, sensor, run);
        let tables = stores.into_iter().map(|store| TableWriter::new(&LEDGER, config(store)));
        let tables = tables.collect::<Result<Vec<_>, _>>()?;
        let committed = Arc::new(Mutex::new(Committed::default()));
        let told = Arc::clone(&committed);
        let thread = std::thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(move || run_tables(tables, &from, &told))
            .map_err(|source| WriteError::Thread { name: NAME, source })?;
        Ok(Self { to, committed, thread })
    }

    /// What is on disk by now.
    pub(super) fn committed(&self) -> Committed {
        self.committed.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Hands rows over as the hand-over of this number, if there is room. Else they come back.
    pub(super) fn hand_over(&self, serial: u64, rows: Vec<Rows>) -> Result<(), Vec<Rows>> {
        self.to.try_send((serial, rows)).map_err(|refused| match refused {
            TrySendError::Full((_, rows)) | TrySendError::Disconnected((_, rows)) => rows,
        })
    }

    /// The same where waiting costs nothing. False: the thread has died.
    pub(super) fn hand_over_waiting(&self, serial: u64, rows: Vec<Rows>) -> bool {
        self.to.send((serial, rows)).is_ok()
    }

    /// Seals everything. `None`: the thread has died.
    pub(super) fn finish(self) -> Option<Vec<TableCounts>> {
        drop(self.to);
        let counts = self.thread.join().ok();
        if counts.is_none() {
            tracing::error!(
                "the thread that writes the ledger has panicked; rows that are in its journal are recovered"
            );
        }
        counts
    }
}

fn run_tables(
    mut tables: Vec<TableWriter>,
    from: &Receiver<(u64, Vec<Rows>)>,
    committed_to: &Mutex<Committed>,
) -> Vec<TableCounts> {
    let mut taken = 0;
    let (mut committed, mut synced) = (Instant::now(), Instant::now());
    loop {
        match from.recv_timeout(COMMIT) {
            Ok((serial, all)) => {
                all.iter().for_each(|rows| take(&mut tables, rows));
                taken = serial;
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => break,
        }
        if committed.elapsed() >= COMMIT {
            committed = Instant::now();
            for table in &mut tables {
                table.commit();
                table.tick(committed);
            }
            if let Some(from) = tables.iter().map(TableWriter::committed).collect() {
                *committed_to.lock().unwrap_or_else(PoisonError::into_inner) =
                    Committed { serial: taken, from };
            }
        }
        if synced.elapsed() >= SYNC {
            synced = Instant::now();
            tables.iter_mut().for_each(TableWriter::sync);
        }
    }
    tables.into_iter().map(TableWriter::finish).collect()
}

fn take(tables: &mut [TableWriter], rows: &Rows) {
    let Some(table) = tables.get_mut(rows.store) else { return };
    match to_batch(&rows.rows) {
        Ok(batch) if batch.num_rows() > 0 => table.append(&batch, Instant::now()),
        Ok(_) => {}
        Err(error) => tracing::error!(%error, "rows of the ledger make no batch"),
    }
    match to_batch(&rows.live) {
        Ok(batch) => table.append_live(&batch),
        Err(error) => tracing::error!(%error, "rows of the ledger make no batch"),
    }
}
