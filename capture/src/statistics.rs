//! The way of statistics from the workers to the disk: closed minutes are joined per interface, become rows, and go
//! through the table writer, in a thread of their own.
//!
//! The workers never wait for it: what finds no room in the queue is counted, and the books say so. A minute is in
//! a journal, where readers see it, a quarter of a second after the last of its queues has closed it.

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tapedeck_index::table::STATS;
use tapedeck_index::table::stats::{StatsRow, to_batch};
use tapedeck_packet::Timestamp;
use tapedeck_session::stats::row::rows;
use tapedeck_session::stats::{Closed, Merged, Merger, NANOS_PER_MINUTE, Row};
use tapedeck_writer::WriteError;
use tapedeck_writer::table::{TableConfig, TableCounts, TableWriter};

/// Closed minutes that may wait; a queue closes one a minute.
const QUEUE: usize = 1_024;
/// Time between two commits to the journal.
const COMMIT: Duration = Duration::from_millis(250);
/// Time between two syncs.
const SYNC: Duration = Duration::from_secs(1);
/// How much later than a minute's last report another queue's may come.
const PATIENCE_NS: u64 = 2 * NANOS_PER_MINUTE;

/// What the thread is told.
#[derive(Debug)]
enum Told {
    /// Minutes of an interface, that so many queues report, will come under the next number.
    Watch { interface: String, queues: u32 },
    /// A queue of the interface of this number has closed something.
    Closed(usize, Closed),
}

/// The books of the statistics.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StatisticsCounts {
    /// The table's.
    pub table: TableCounts,
    /// Closed minutes and hours that found no room in the queue.
    pub reports_lost: u64,
}

/// Takes closed minutes from the workers of one interface.
#[derive(Clone, Debug)]
pub struct Reporter {
    interface: usize,
    to: Sender<Told>,
    lost: Arc<AtomicU64>,
}

impl Reporter {
    /// Hands on what a queue has closed. Never waits.
    pub fn report(&self, closed: Vec<Closed>) {
        for closed in closed {
            if let Err(TrySendError::Full(_) | TrySendError::Disconnected(_)) =
                self.to.try_send(Told::Closed(self.interface, closed))
            {
                // Relaxed: a number on its own.
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }

    /// The same where waiting costs nothing: a file does not run away.
    pub fn report_all(&self, closed: Vec<Closed>) {
        for closed in closed {
            if self.to.send(Told::Closed(self.interface, closed)).is_err() {
                self.lost.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

/// The thread that writes statistics.
#[derive(Debug)]
pub struct Statistics {
    to: Sender<Told>,
    /// Interfaces that are watched.
    watched: usize,
    thread: JoinHandle<TableCounts>,
    lost: Arc<AtomicU64>,
}

impl Statistics {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(config: TableConfig) -> Result<Self, WriteError> {
        const NAME: &str = "statistics";
        let (to, from) = bounded(QUEUE);
        let lost = Arc::new(AtomicU64::new(0));
        let writer = Scribe {
            sensor: config.sensor.clone(),
            mergers: Vec::new(),
            table: TableWriter::new(&STATS, config)?,
            latest: Timestamp::ZERO,
        };
        let failed = |source: io::Error| WriteError::Thread { name: NAME, source };
        let thread = std::thread::Builder::new()
            .name(NAME.to_owned())
            .spawn(move || writer.run(&from))
            .map_err(failed)?;
        Ok(Self { to, watched: 0, thread, lost })
    }

    /// The end for the queues of `interface`, so many of which will report.
    pub fn watch(&mut self, interface: &str, queues: u32) -> Reporter {
        // An error means that the thread is gone; then reports are counted as lost.
        let _ = self.to.send(Told::Watch { interface: interface.to_owned(), queues });
        let number = self.watched;
        self.watched += 1;
        Reporter { interface: number, to: self.to.clone(), lost: Arc::clone(&self.lost) }
    }

    /// Closed minutes and hours that found no room so far.
    #[must_use]
    pub fn reports_lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until all that was reported is written. All reporters have to be gone.
    #[must_use]
    pub fn finish(self) -> StatisticsCounts {
        drop(self.to);
        let table = self.thread.join().unwrap_or_else(|_| {
            tracing::error!(
                "the thread that writes statistics has panicked; its last rows are in its journal"
            );
            TableCounts::default()
        });
        StatisticsCounts { table, reports_lost: self.lost.load(Ordering::Relaxed) }
    }
}

struct Scribe {
    sensor: String,
    mergers: Vec<(Merger, String)>,
    table: TableWriter,
    /// End of the latest minute that was reported.
    latest: Timestamp,
}

impl Scribe {
    fn run(mut self, from: &Receiver<Told>) -> TableCounts {
        let mut committed = Instant::now();
        let mut synced = committed;
        loop {
            match from.recv_timeout(COMMIT) {
                Ok(Told::Watch { interface, queues }) => self.mergers.push((Merger::new(queues), interface)),
                Ok(Told::Closed(interface, closed)) => self.take(interface, closed),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if committed.elapsed() >= COMMIT {
                committed = Instant::now();
                self.write(self.latest.saturating_sub(PATIENCE_NS));
                self.table.commit();
                self.table.tick(committed);
            }
            if synced.elapsed() >= SYNC {
                synced = Instant::now();
                self.table.sync();
            }
        }
        self.write(Timestamp::MAX);
        self.table.finish()
    }

    fn take(&mut self, interface: usize, closed: Closed) {
        if let Closed::Minute(minute) = &closed {
            self.latest = self.latest.max(minute.start.saturating_add(NANOS_PER_MINUTE));
        }
        if let Closed::Idle { from, minutes } = closed {
            self.latest = self.latest.max(from.saturating_add(u64::from(minutes) * NANOS_PER_MINUTE));
        }
        if let Some((merger, _)) = self.mergers.get_mut(interface) {
            merger.add(closed);
        }
    }

    /// Writes what is complete, or ended before `patience`.
    fn write(&mut self, patience: Timestamp) {
        for (merger, interface) in &mut self.mergers {
            let merged: Vec<Merged> = merger.take(patience);
            let stored: Vec<StatsRow> =
                merged.iter().flat_map(rows).map(|row| stored(row, interface, &self.sensor)).collect();
            if stored.is_empty() {
                continue;
            }
            match to_batch(&stored) {
                Ok(batch) => self.table.append(&batch, Instant::now()),
                Err(error) => tracing::error!(%error, interface, "statistics make no batch"),
            }
        }
    }
}

/// A row as it lies on disk.
#[must_use]
pub fn stored(row: Row, interface: &str, sensor: &str) -> StatsRow {
    StatsRow {
        ts: row.ts,
        interface: interface.to_owned(),
        sensor: sensor.to_owned(),
        dimension: row.dimension.to_owned(),
        key: row.key,
        counts: [
            row.packets,
            row.bytes,
            row.sessions_new,
            row.sessions_active,
            row.tcp_resets,
            row.failed_handshakes,
            row.broadcast_packets,
            row.multicast_packets,
            row.fragment_packets,
            row.non_ip_packets,
            row.sessionless_packets,
            row.error,
            row.unlisted_max,
        ],
        hosts: [row.source_hosts, row.destination_hosts],
        sketches: [row.source_sketch, row.destination_sketch],
        activity: row.activity,
    }
}
