//! The threads behind the trackers of a run: records and their table for each store, statistics, mergers.

use super::merging::MergeThread;
use super::{Outlet, SessionCounts, SessionOptions, Tracker};
use crate::ledger::SessionEntry;
use crate::records::{RecordCounts, RecordThread};
use crate::statistics::{Statistics, StatisticsCounts};
use std::path::Path;
use tapedeck_writer::{TableConfig, WriteError};

/// Silent minutes between two packets of a file that count as watched. What lies in a longer gap, the file
/// does not say.
const FILE_FILL_MINUTES: u32 = 60;

/// What the packets come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// An interface: nothing waits.
    Live,
    /// Files: they wait.
    File,
}

/// The threads of a run.
#[derive(Debug)]
pub struct Desk {
    run: u32,
    kind: Kind,
    options: SessionOptions,
    /// Secret of the hashes, the same for all chains.
    hash_seed: u64,
    /// One for each store.
    records: Vec<RecordThread>,
    /// Of all interfaces, in the first store.
    statistics: Statistics,
    mergers: Vec<MergeThread>,
    /// Number of the next chain.
    next_chain: u16,
}

impl Desk {
    /// Starts the threads for stores (folder, sensor), at least one. `hash_seed` is to be random.
    ///
    /// # Errors
    /// The system has no thread left; there is no store.
    pub fn start(
        stores: &[(&Path, &str)],
        run: u32,
        kind: Kind,
        options: SessionOptions,
        hash_seed: u64,
    ) -> Result<Self, WriteError> {
        let records: Result<Vec<_>, _> =
            stores.iter().map(|(path, sensor)| RecordThread::start(path, sensor, run)).collect();
        let (path, sensor) = stores.first().copied().ok_or(WriteError::Died("records"))?;
        let statistics = Statistics::start(TableConfig::new(path.to_owned(), sensor.to_owned(), run))?;
        Ok(Self {
            run,
            kind,
            options,
            hash_seed,
            records: records?,
            statistics,
            mergers: Vec::new(),
            next_chain: 0,
        })
    }

    /// A tracker for each queue of an interface. `stores` says for each queue the number of its store.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn trackers(&mut self, interface: &str, stores: &[usize]) -> Result<Vec<Tracker>, WriteError> {
        let queues = u32::try_from(stores.len()).unwrap_or(u32::MAX);
        let split = queues > 1;
        // The merger reports as another queue.
        let reporter = self.statistics.watch(interface, queues + u32::from(split));
        let sinks: Vec<_> =
            stores.iter().filter_map(|store| Some(self.records.get(*store)?.sink(interface))).collect();
        let outlets: Vec<Outlet> = match (sinks.first(), self.kind) {
            (Some(first), _) if split => {
                let config = self.config(0);
                let (thread, to) = MergeThread::start(config, queues, first.clone(), reporter.clone())
                    .map_err(|source| WriteError::Thread { name: "merger", source })?;
                self.mergers.push(thread);
                to.into_iter().map(Outlet::Merge).collect()
            }
            (_, Kind::Live) => sinks.into_iter().map(Outlet::Live).collect(),
            (_, Kind::File) => sinks.into_iter().map(Outlet::File).collect(),
        };
        let fill_minutes = if self.kind == Kind::File { FILE_FILL_MINUTES } else { 0 };
        let mut trackers = Vec::with_capacity(outlets.len());
        for (outlet, queue) in outlets.into_iter().zip(0..) {
            trackers.push(Tracker::new(self.config(queue), fill_minutes, outlet, reporter.clone()));
        }
        Ok(trackers)
    }

    /// The configuration of the next table.
    fn config(&mut self, queue: u32) -> tapedeck_session::Config {
        let chain = self.next_chain;
        self.next_chain = self.next_chain.wrapping_add(1);
        self.options.config(self.run, chain, queue, self.hash_seed)
    }

    /// The books while it runs; `tables` are the trackers'.
    #[must_use]
    pub fn entry(&self, tables: &SessionCounts) -> SessionEntry {
        let records = self.records.iter().map(RecordThread::counts);
        let lost = self.statistics.reports_lost();
        let split = self.mergers.iter().map(MergeThread::split).sum();
        SessionEntry { split, ..entry(tables, records, lost) }
    }

    /// Writes everything; all trackers must be gone. The last word on the books.
    #[must_use]
    pub fn finish(self, tables: &SessionCounts) -> SessionEntry {
        let split = self.mergers.into_iter().map(MergeThread::finish).sum();
        let counts = self.records.into_iter().map(|thread| {
            thread.finish().unwrap_or_else(|error| {
                tracing::error!(%error, "session records may be missing; those in a journal are recovered");
                RecordCounts::default()
            })
        });
        let counts: Vec<_> = counts.collect();
        let StatisticsCounts { table, reports_lost } = self.statistics.finish();
        for (name, table) in
            counts.iter().map(|counts| ("sessions", &counts.table)).chain([("stats", &table)])
        {
            if table.rows_held > 0 {
                let rows = table.rows_held;
                tracing::warn!(
                    table = name,
                    rows,
                    "rows could not be sealed; they are in a journal, and the next start recovers them"
                );
            }
        }
        SessionEntry { split, ..entry(tables, counts.into_iter(), reports_lost + table.rows_lost) }
    }
}

fn entry(
    tables: &SessionCounts,
    records: impl Iterator<Item = RecordCounts>,
    minutes_lost: u64,
) -> SessionEntry {
    let mut entry = SessionEntry {
        sessions: tables.begun,
        open: tables.open,
        evicted: tables.evicted,
        coarse_packets: tables.coarse_packets,
        uninspected: tables.uninspected,
        minutes_lost,
        ..SessionEntry::default()
    };
    for counts in records {
        entry.records += counts.table.rows;
        entry.records_lost += counts.overflow + counts.table.rows_lost;
    }
    entry
}
