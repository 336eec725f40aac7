//! From session records to the table `sessions`: one thread beside the workers.
//!
//! A worker hands over what its session table gave ([`RecordSink::send`]) and goes on; the thread turns
//! records into rows, and the table writer does the rest. Records that find the queue full are counted
//! where they fell, by kind: a worker never waits (a file source may, [`RecordSink::send_waiting`]).
//!
//! It must never: lock, block or allocate on a worker beyond the list it was given.

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use std::collections::HashMap;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tapedeck_index::table::SESSIONS;
use tapedeck_packet::Timestamp;
use tapedeck_session::{Record, RecordKind, Uid};
use tapedeck_writer::{TableConfig, TableCounts, TableWriter, WriteError};

pub mod rows;
#[cfg(test)]
mod tests;

/// Lists of records that may wait for the thread.
pub const QUEUE_LISTS: usize = 1024;
/// Rows are on disk this long after they came, at most.
const COMMIT: Duration = Duration::from_millis(250);
/// And durable.
const SYNC: Duration = Duration::from_secs(1);
/// Records that become rows at once, at most.
const BATCH_RECORDS: usize = 8192;

/// Records of one interface, and when they were given.
#[derive(Debug)]
struct Given {
    interface: Arc<str>,
    now: Timestamp,
    records: Vec<Record>,
}

/// Records that found the queue full. Written by the workers, read by reports: Relaxed, each on its own.
#[derive(Debug, Default)]
struct Overflow {
    records: AtomicU64,
    open: AtomicU64,
}

/// The books of the records: those of the table, and what did not reach it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecordCounts {
    /// The table's books; `rows` are records that reached the thread, without `open` ones.
    pub table: TableCounts,
    /// Records that found the queue full: each a row that is missing from `sessions`.
    pub overflow: u64,
    /// States of sessions that go on, which found the queue full: the next one replaces them.
    pub overflow_open: u64,
}

/// A worker's end: takes the records of one interface.
#[derive(Clone, Debug)]
pub struct RecordSink {
    interface: Arc<str>,
    queue: Sender<Given>,
    overflow: Arc<Overflow>,
}

impl RecordSink {
    /// Hands `records` over, as they are at `now`; never waits. What finds no room is counted.
    pub fn send(&self, records: Vec<Record>, now: Timestamp) {
        if let Err(records) = self.try_send(records, now) {
            self.lost(&records);
        }
    }

    /// As [`RecordSink::send`], but gives back what finds no room.
    ///
    /// # Errors
    /// The records, not counted.
    pub fn try_send(&self, records: Vec<Record>, now: Timestamp) -> Result<(), Vec<Record>> {
        if records.is_empty() {
            return Ok(());
        }
        let given = Given { interface: Arc::clone(&self.interface), now, records };
        match self.queue.try_send(given) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(given) | TrySendError::Disconnected(given)) => Err(given.records),
        }
    }

    /// As [`RecordSink::send`], but waits for room: for a source that can wait.
    pub fn send_waiting(&self, records: Vec<Record>, now: Timestamp) {
        if records.is_empty() {
            return;
        }
        let given = Given { interface: Arc::clone(&self.interface), now, records };
        if let Err(refused) = self.queue.send(given) {
            self.lost(&refused.into_inner().records);
        }
    }

    /// Counts records that could not be handed over.
    pub fn lost(&self, records: &[Record]) {
        let open = records.iter().filter(|record| !is_row(record)).count();
        let add = |counter: &AtomicU64, n: usize| {
            counter.fetch_add(u64::try_from(n).unwrap_or(u64::MAX), Ordering::Relaxed);
        };
        add(&self.overflow.open, open);
        add(&self.overflow.records, records.len() - open);
    }
}

/// The thread, and the way to its workers' ends.
#[derive(Debug)]
pub struct RecordThread {
    queue: Sender<Given>,
    overflow: Arc<Overflow>,
    counts: Arc<Mutex<TableCounts>>,
    thread: JoinHandle<TableCounts>,
}

impl RecordThread {
    /// Starts the thread for the store at `store`, as `sensor` in `run`.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn start(store: &Path, sensor: &str, run: u32) -> Result<Self, WriteError> {
        Self::with_config(TableConfig::new(store.to_owned(), sensor.to_owned(), run))
    }

    /// As [`RecordThread::start`], with all limits.
    ///
    /// # Errors
    /// A thread cannot be started.
    pub fn with_config(config: TableConfig) -> Result<Self, WriteError> {
        const NAME: &str = "records";
        let context = rows::Context { sensor: config.sensor.clone(), run: config.run };
        let writer = TableWriter::new(&SESSIONS, config)?;
        let (queue, given) = bounded(QUEUE_LISTS);
        let counts = Arc::new(Mutex::new(TableCounts::default()));
        let worker = Worker { given, writer, context, counts: Arc::clone(&counts) };
        let thread = std::thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(move || worker.run())
            .map_err(|source| WriteError::Thread { name: NAME, source })?;
        Ok(Self { queue, overflow: Arc::default(), counts, thread })
    }

    /// The end for a worker of `interface`.
    #[must_use]
    pub fn sink(&self, interface: &str) -> RecordSink {
        RecordSink {
            interface: interface.into(),
            queue: self.queue.clone(),
            overflow: Arc::clone(&self.overflow),
        }
    }

    /// The books as of the last commit.
    #[must_use]
    pub fn counts(&self) -> RecordCounts {
        let table = self.counts.lock().unwrap_or_else(PoisonError::into_inner).clone();
        self.with_overflow(table)
    }

    /// Seals everything and ends. Every sink must be gone by now, or this waits for it.
    ///
    /// # Errors
    /// The thread died; its last rows are in journals, for recovery.
    pub fn finish(self) -> Result<RecordCounts, WriteError> {
        let Self { queue, overflow, thread, .. } = self;
        drop(queue);
        let table = thread.join().map_err(|_| WriteError::Died("records"))?;
        Ok(RecordCounts {
            table,
            overflow: overflow.records.load(Ordering::Relaxed),
            overflow_open: overflow.open.load(Ordering::Relaxed),
        })
    }

    fn with_overflow(&self, table: TableCounts) -> RecordCounts {
        RecordCounts {
            table,
            overflow: self.overflow.records.load(Ordering::Relaxed),
            overflow_open: self.overflow.open.load(Ordering::Relaxed),
        }
    }
}

/// Whether a record is a row of the table: the others only tell of one to come.
fn is_row(record: &Record) -> bool {
    !matches!(record.kind, RecordKind::Open | RecordKind::Withdrawn)
}

/// The thread's side.
struct Worker {
    given: Receiver<Given>,
    writer: TableWriter,
    context: rows::Context,
    counts: Arc<Mutex<TableCounts>>,
}

impl Worker {
    fn run(mut self) -> TableCounts {
        let (mut next_commit, mut next_sync) = (Instant::now() + COMMIT, Instant::now() + SYNC);
        let mut waiting: Vec<Given> = Vec::new();
        let mut records = 0;
        loop {
            match self.given.recv_timeout(next_commit.saturating_duration_since(Instant::now())) {
                Ok(given) => {
                    records += given.records.len();
                    waiting.push(given);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            let now = Instant::now();
            if records >= BATCH_RECORDS || now >= next_commit {
                self.append(&mut waiting, now);
                records = 0;
            }
            if now >= next_commit {
                self.writer.commit();
                self.writer.tick(now);
                next_commit = now + COMMIT;
                *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = self.writer.counts();
            }
            if now >= next_sync {
                self.writer.sync();
                next_sync = now + SYNC;
            }
        }
        self.append(&mut waiting, Instant::now());
        self.writer.finish()
    }

    /// Turns lists into rows: states of open sessions go the live way, and away again; records into the table.
    fn append(&mut self, waiting: &mut Vec<Given>, now: Instant) {
        if waiting.is_empty() {
            return;
        }
        let rows = |which: &dyn Fn(&Record) -> bool| {
            let given = waiting.iter().flat_map(|given| {
                let row = |record| rows::Row { record, interface: &given.interface, now: given.now };
                given.records.iter().filter(move |record| which(record)).map(row)
            });
            rows::batch(&self.context, given.collect())
        };
        // The last word on each uid of which a state is withdrawn: it may be told again.
        let mut last: HashMap<Uid, RecordKind> = HashMap::new();
        let all = || waiting.iter().flat_map(|given| &given.records);
        for record in all().filter(|record| record.kind == RecordKind::Withdrawn) {
            last.insert(record.uid, record.kind);
        }
        if !last.is_empty() {
            for record in all().filter(|record| !is_row(record)) {
                last.entry(record.uid).and_modify(|kind| *kind = record.kind);
            }
        }
        let open = rows(&|record| record.kind == RecordKind::Open);
        let withdrawn = rows(&|record| {
            record.kind == RecordKind::Withdrawn && last.get(&record.uid) == Some(&RecordKind::Withdrawn)
        });
        // Open ones first: a session's record of the same list replaces its open state.
        match (open, rows(&is_row), withdrawn) {
            (Ok(open), Ok(table), Ok(withdrawn)) => {
                self.writer.append_live(&open);
                self.writer.append(&table, now);
                self.writer.withdraw_live(&withdrawn);
            }
            (Err(error), ..) | (_, Err(error), _) | (.., Err(error)) => {
                tracing::error!(%error, "records do not fit the table `sessions`");
            }
        }
        waiting.clear();
    }
}
