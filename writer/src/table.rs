//! Writes tables: batches of rows in, Parquet files out, and nothing lost between.
//!
//! The way of a row: [`TableWriter::append`] puts it into the open file of its 300-second slot;
//! [`TableWriter::commit`], several times a second, appends it to that file's journal, from where readers
//! see it and a recovery takes it; [`TableWriter::sync`] makes the journal durable; when the file is five
//! minutes old or full its rows go, sorted, into a Parquet file: hidden until whole, synced, renamed, the
//! journal deleted last. A thread of its own writes it, so that commits keep their pace.
//!
//! Rows of what is not over yet ([`TableWriter::append_live`]) stand in the writer's live journal until a
//! row of the table replaces them, or they are withdrawn.
//!
//! A full disk and a failed write are states: the rows stay in memory and are tried again; what finds no
//! room there is counted `rows_lost`. Must never: panic, block on a reader, replace a sealed file.

use crate::error::FileError;
use arrow_array::RecordBatch;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tapedeck_index::table::{Kind, TableError, TableName, encode};

mod live;
mod open;
pub(crate) mod recover;
#[cfg(test)]
mod tests;

use live::LiveJournal;
use open::OpenTable;
pub use recover::{LIVE_SEQ, RecoveredTable};

/// Rows of a file, and of all open files together, at most; then the largest is sealed.
pub const FILE_ROWS: usize = 512 * 1024;
/// Rows in memory at most, those waiting for a disk included; beyond, rows are lost and counted.
pub const HELD_ROWS: usize = 4 * FILE_ROWS;
/// Age of an open file at most.
pub const FILE_AGE: Duration = Duration::from_secs(300);
/// Open files at most: an import may meet any slot.
pub const OPEN_FILES: usize = 8;
/// Time between two attempts at what failed.
const RETRY: Duration = Duration::from_secs(5);
/// Seals that may wait for the sealing thread.
const SEAL_QUEUE: usize = 4;

/// How a table is written.
#[derive(Clone, Debug)]
pub struct TableConfig {
    /// The store.
    pub store: PathBuf,
    /// Sensor id, unescaped.
    pub sensor: String,
    /// Random number of this process.
    pub run: u32,
    /// Age of an open file at which it is sealed.
    pub file_age: Duration,
    /// Rows of a file, and of all open files, at most.
    pub file_rows: usize,
    /// Rows in memory at most.
    pub held_rows: usize,
}

impl TableConfig {
    /// The configuration of `record` and `import`.
    #[must_use]
    pub fn new(store: PathBuf, sensor: String, run: u32) -> Self {
        Self { store, sensor, run, file_age: FILE_AGE, file_rows: FILE_ROWS, held_rows: HELD_ROWS }
    }
}

/// The books of a table: `rows = rows_sealed + rows_held + rows_lost`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TableCounts {
    /// Rows given to the writer.
    pub rows: u64,
    /// Rows in sealed files.
    pub rows_sealed: u64,
    /// Rows in open files, counted where they lie.
    pub rows_held: u64,
    /// Rows that found no room in memory while the disk refused.
    pub rows_lost: u64,
    /// Sealed files.
    pub files: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Steps on files that failed, each tried again.
    pub write_errors: u64,
    /// The last of them.
    pub last_error: Option<String>,
}

/// What a step of the writer may meet.
#[derive(Debug, thiserror::Error)]
pub enum TableWriteError {
    /// A step on a file failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// Rows cannot be encoded.
    #[error(transparent)]
    Table(#[from] TableError),
}

/// What the sealing thread gives back.
type Sealed = (OpenTable, Result<encode::Encoded, TableWriteError>);

/// Writes the files of one kind of table for one run. Used by one thread.
#[derive(Debug)]
pub struct TableWriter {
    kind: &'static Kind,
    config: TableConfig,
    open: Vec<OpenTable>,
    /// Files that are full or old, for the sealing thread.
    ended: VecDeque<OpenTable>,
    /// Files at the sealing thread.
    sealing: usize,
    sealing_rows: usize,
    /// Files at the sealing thread with rows that are in no journal.
    sealing_unsure: usize,
    jobs: Option<Sender<OpenTable>>,
    done: Receiver<Sealed>,
    sealer: Option<JoinHandle<()>>,
    live: Option<LiveJournal>,
    next_seq: u32,
    retry_at: Option<Instant>,
    counts: TableCounts,
}

impl TableWriter {
    /// A writer of `kind`. Nothing is created on disk before there are rows.
    ///
    /// # Errors
    /// The thread that seals cannot be started, or the schema is no Arrow stream.
    pub fn new(kind: &'static Kind, config: TableConfig) -> Result<Self, crate::WriteError> {
        let (jobs, work) = bounded::<OpenTable>(SEAL_QUEUE);
        let (result, done) = bounded::<Sealed>(SEAL_QUEUE + 1);
        let store = config.store.clone();
        let seal_all = move || {
            for mut table in work {
                let sealed = table.seal(kind, &store);
                if result.send((table, sealed)).is_err() {
                    return;
                }
            }
        };
        const NAME: &str = "table-seal";
        let sealer = std::thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(seal_all)
            .map_err(|source| crate::WriteError::Thread { name: NAME, source })?;
        let live = kind.live.map(|key| LiveJournal::new(kind, key, &config));
        Ok(Self {
            kind,
            config,
            open: Vec::new(),
            ended: VecDeque::new(),
            sealing: 0,
            sealing_rows: 0,
            sealing_unsure: 0,
            jobs: Some(jobs),
            done,
            sealer: Some(sealer),
            live,
            next_seq: 0,
            retry_at: None,
            counts: TableCounts::default(),
        })
    }

    /// Takes rows of the table. They are on disk after the next [`TableWriter::commit`].
    pub fn append(&mut self, batch: &RecordBatch, now: Instant) {
        let rows = batch.num_rows();
        self.counts.rows += count(rows);
        if rows == 0 {
            return;
        }
        if self.held() + rows > self.config.held_rows {
            self.counts.rows_lost += count(rows);
            return;
        }
        match encode::by_slot(self.kind, batch) {
            Ok(parts) => {
                for (slot, part) in parts {
                    self.append_to(slot, &part, now);
                }
                if let Some(live) = &mut self.live {
                    live.gone(batch);
                }
            }
            Err(error) => {
                self.counts.rows_lost += count(rows);
                self.failed(&error.into());
            }
        }
        self.end_full();
    }

    /// Takes rows of what is not over yet: each replaces the former one of its key.
    pub fn append_live(&mut self, batch: &RecordBatch) {
        if let Some(live) = &mut self.live
            && let Err(error) = live.rows(batch)
        {
            self.failed(&error);
        }
    }

    /// Takes away rows of what is not over yet: others, of other keys, say the same by now.
    pub fn withdraw_live(&mut self, batch: &RecordBatch) {
        if let Some(live) = &mut self.live {
            live.gone(batch);
        }
    }

    fn append_to(&mut self, slot: u64, part: &RecordBatch, now: Instant) {
        let at = self.open.iter().position(|table| table.slot() == slot);
        let table = match at {
            Some(at) => self.open.get_mut(at),
            None => match self.open_table(slot, part, now) {
                Ok(table) => {
                    self.open.push(table);
                    self.open.last_mut()
                }
                Err(error) => {
                    self.counts.rows_lost += count(part.num_rows());
                    return self.failed(&error);
                }
            },
        };
        let result = table.map_or(Ok(()), |table| table.push(self.kind, part));
        if let Err(error) = result {
            self.counts.rows_lost += count(part.num_rows());
            self.failed(&error);
        }
    }

    fn open_table(
        &mut self,
        slot: u64,
        part: &RecordBatch,
        now: Instant,
    ) -> Result<OpenTable, TableWriteError> {
        let (t0, t1) = encode::extent(self.kind, part)?.unwrap_or_default();
        let TableConfig { sensor, run, .. } = &self.config;
        let name = TableName { t0, t1, sensor: sensor.clone(), run: *run, seq: self.next_seq };
        self.next_seq += 1;
        OpenTable::new(self.kind, &self.config.store, slot, name, &part.schema(), now)
    }

    /// Ends the largest open files until all together, and each, are small enough, and the oldest until
    /// there are few enough.
    fn end_full(&mut self) {
        loop {
            let rows: usize = self.open.iter().map(|table| table.rows()).sum();
            let which = if rows >= self.config.file_rows {
                (0..self.open.len()).max_by_key(|at| self.open.get(*at).map(|table| table.rows()))
            } else if self.open.len() > OPEN_FILES {
                (0..self.open.len()).min_by_key(|at| self.open.get(*at).map(|table| table.opened()))
            } else {
                None
            };
            let Some(at) = which else { break };
            self.ended.push_back(self.open.swap_remove(at));
        }
    }

    /// Writes what came since the last commit to the journals: readers see it now, and it survives this
    /// process. What fails is tried again at the next commit.
    pub fn commit(&mut self) {
        let mut whole = self.sealing_unsure == 0;
        let mut errors = Vec::new();
        for table in self.open.iter_mut().chain(&mut self.ended) {
            if let Err(error) = table.commit() {
                whole = false;
                errors.push(error);
            }
        }
        // Not before the rows that replace its own are in a journal.
        if let Some(live) = self.live.as_mut().filter(|_| whole)
            && let Err(error) = live.commit()
        {
            errors.push(error);
        }
        errors.iter().for_each(|error| self.failed(error));
        self.hand_over();
    }

    /// Makes everything committed durable.
    pub fn sync(&mut self) {
        let mut errors = Vec::new();
        for table in self.open.iter_mut().chain(&mut self.ended) {
            errors.extend(table.sync(&self.config.store).err());
        }
        if let Some(live) = &mut self.live {
            errors.extend(live.sync(&self.config.store).err());
        }
        errors.into_iter().for_each(|error| self.failed(&error.into()));
    }

    /// Seals what is old at `now`.
    pub fn tick(&mut self, now: Instant) {
        let age = self.config.file_age;
        let mut at = 0;
        while let Some(table) = self.open.get(at) {
            if now.saturating_duration_since(table.opened()) >= age || table.journal_is_dead() {
                self.ended.push_back(self.open.swap_remove(at));
            } else {
                at += 1;
            }
        }
        self.take_done(now);
        if self.retry_at.is_none_or(|at| now >= at) {
            self.hand_over();
        }
    }

    /// Gives ended files to the sealing thread, as far as it takes them.
    fn hand_over(&mut self) {
        let Some(jobs) = self.jobs.as_ref().filter(|_| self.retry_at.is_none_or(|at| Instant::now() >= at))
        else {
            return;
        };
        self.retry_at = None;
        while let Some(mut table) = self.ended.pop_front() {
            // The last rows may not be in its journal yet; if they cannot be, the Parquet file has them.
            let _ = table.commit();
            let (rows, unsure) = (table.rows(), table.uncommitted_rows() > 0);
            match jobs.try_send(table) {
                Ok(()) => {
                    self.sealing += 1;
                    self.sealing_rows += rows;
                    self.sealing_unsure += usize::from(unsure);
                }
                Err(refused) => {
                    self.ended.push_front(refused.into_inner());
                    break;
                }
            }
        }
    }

    fn take_done(&mut self, now: Instant) {
        while let Ok(sealed) = self.done.try_recv() {
            self.account(sealed, now);
        }
    }

    fn account(&mut self, (table, result): Sealed, now: Instant) {
        self.sealing -= 1;
        self.sealing_rows -= table.rows();
        self.sealing_unsure -= usize::from(table.uncommitted_rows() > 0);
        match result {
            Ok(encoded) => {
                self.counts.rows_sealed += count(table.rows());
                self.counts.files += 1;
                self.counts.bytes += encoded.bytes;
            }
            Err(error) => {
                self.ended.push_back(table);
                self.retry_at = Some(now + RETRY);
                self.failed(&error);
            }
        }
    }

    /// Seals everything; the last word on the books. What cannot be sealed stays in its journal for
    /// recovery, and is counted `rows_held`; what is in no journal either is counted `rows_lost`.
    pub fn finish(mut self) -> TableCounts {
        self.commit();
        self.ended.extend(self.open.drain(..));
        // Each file once more: those that failed and those that were never tried.
        let mut tries = self.ended.len() + self.sealing;
        self.retry_at = None;
        while tries > 0 && (self.sealing > 0 || !self.ended.is_empty()) {
            self.retry_at = None;
            self.hand_over();
            let Ok(sealed) = self.done.recv() else { break };
            self.account(sealed, Instant::now());
            tries -= 1;
        }
        drop(self.jobs.take());
        if let Some(sealer) = self.sealer.take()
            && sealer.join().is_err()
        {
            self.counts.write_errors += 1;
        }
        self.sync();
        for table in &self.ended {
            self.counts.rows_lost += count(table.uncommitted_rows());
        }
        if self.ended.is_empty()
            && let Some(live) = self.live.take()
            && let Err(error) = live.finish()
        {
            self.failed(&error);
        }
        let mut counts = self.counts();
        counts.rows_held = counts
            .rows_held
            .saturating_sub(self.ended.iter().map(|table| count(table.uncommitted_rows())).sum());
        counts
    }

    /// Whether every row that was ever taken is in a journal or a file, where it survives this process: then the
    /// smallest number of a file that further rows may go to. `None`: some are in memory alone, or lost.
    #[must_use]
    pub fn committed(&self) -> Option<u32> {
        let mut held = self.open.iter().chain(&self.ended);
        let whole = self.sealing_unsure == 0
            && self.counts.rows_lost == 0
            && held.all(|table| table.uncommitted_rows() == 0);
        whole.then(|| self.open.iter().map(OpenTable::seq).min().unwrap_or(self.next_seq))
    }

    fn held(&self) -> usize {
        let open: usize = self.open.iter().chain(&self.ended).map(|table| table.rows()).sum();
        open + self.sealing_rows
    }

    /// The books now.
    #[must_use]
    pub fn counts(&self) -> TableCounts {
        TableCounts { rows_held: count(self.held()), ..self.counts.clone() }
    }

    fn failed(&mut self, error: &TableWriteError) {
        let text = with_causes(error);
        tracing::warn!(table = self.kind.name, error = text, "a table cannot be written; it is tried again");
        self.counts.write_errors += 1;
        self.counts.last_error = Some(text);
    }
}

fn count(rows: usize) -> u64 {
    crate::sink::to_u64(rows)
}

/// An error and what caused it, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
