//! Sessions and statistics beside a chain: what a worker or an import does for them.
//!
//! A [`Tracker`] has the session table of one chain. It is given each packet with the place it was stored
//! at, and told what time it is; it hands on records, states of sessions that go on, and closed minutes.
//! Where an interface has several queues, records go by way of [`merging`].
//!
//! It must never make a worker wait: what the threads behind it have no room for is counted.

use crate::records::RecordSink;
use crate::statistics::Reporter;
use merging::MergeSink;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tapedeck_packet::Timestamp;
use tapedeck_session::{Config, Probe, Record, Stage, Table, Timeouts};

pub mod desk;
pub mod merging;

/// Sessions that are looked at after a batch, at most: twice as many as it has packets.
const EXPIRE_BATCH: usize = 512;
/// Records handed on at once, at least, between two ticks.
const HAND_ON: usize = 256;
/// New sessions told of in a tick, at most: 40,000 a second.
const FRESH_TICK: usize = 1_024;
/// Ticks in which all open sessions are told of: a minute at 25 ms.
const ROUND_TICKS: u32 = 2_400;
/// Open sessions looked at in a tick, at most: with more than 120,000 a round takes longer than a minute, but
/// what it costs a packet does not grow. Interim records come at their time all the same.
const ROUND_SLOTS: u32 = 50;
/// A file that begins so much before the end of the last one is another recording, ns.
const OTHER_RECORDING_NS: u64 = 60_000_000_000;

/// How sessions are kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionOptions {
    /// Open sessions of a queue at once, at most.
    pub max_sessions: u32,
    /// Packets that differ only in their VLAN tags are of two sessions.
    pub separate_vlans: bool,
    /// How long sessions may be silent.
    pub timeouts: Timeouts,
}

impl Default for SessionOptions {
    fn default() -> Self {
        let Config { max_sessions, vlan_in_key, timeouts, .. } = Config::default();
        Self { max_sessions, separate_vlans: vlan_in_key, timeouts }
    }
}

impl SessionOptions {
    /// The configuration of a table.
    #[must_use]
    pub fn config(&self, run: u32, chain: u16, queue: u32, hash_seed: u64) -> Config {
        Config {
            run,
            chain,
            queue,
            hash_seed,
            max_sessions: self.max_sessions,
            vlan_in_key: self.separate_vlans,
            timeouts: self.timeouts,
            ..Config::default()
        }
    }
}

/// The counters of a tracker, for the books. Written by its thread, each on its own: Relaxed.
#[derive(Debug, Default)]
pub struct SessionBooks {
    open: AtomicU64,
    begun: AtomicU64,
    evicted: AtomicU64,
    coarse_packets: AtomicU64,
    uninspected: AtomicU64,
}

/// What they say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SessionCounts {
    /// Sessions open.
    pub open: u64,
    /// Sessions begun.
    pub begun: u64,
    /// Sessions that had to go because the table was full.
    pub evicted: u64,
    /// Packets that are in coarse records.
    pub coarse_packets: u64,
    /// Sessions whose payload nobody could look at.
    pub uninspected: u64,
}

impl SessionCounts {
    /// Adds those of another table.
    pub fn add(&mut self, other: &Self) {
        self.open += other.open;
        self.begun += other.begun;
        self.evicted += other.evicted;
        self.coarse_packets += other.coarse_packets;
        self.uninspected += other.uninspected;
    }
}

impl SessionBooks {
    /// The counters now.
    #[must_use]
    pub fn counts(&self) -> SessionCounts {
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        SessionCounts {
            open: read(&self.open),
            begun: read(&self.begun),
            evicted: read(&self.evicted),
            coarse_packets: read(&self.coarse_packets),
            uninspected: read(&self.uninspected),
        }
    }

    fn publish(&self, table: &Table<Probe>) {
        let write = |counter: &AtomicU64, value| counter.store(value, Ordering::Relaxed);
        let counters = table.counters();
        write(&self.open, u64::try_from(table.len()).unwrap_or(u64::MAX));
        write(&self.begun, counters.sessions);
        write(&self.evicted, counters.evicted);
        write(&self.coarse_packets, counters.coarse_packets);
        write(&self.uninspected, counters.uninspected);
    }
}

/// Where records go.
#[derive(Debug)]
pub enum Outlet {
    /// To the table, at once.
    Live(RecordSink),
    /// To the table; waits for room.
    File(RecordSink),
    /// To the merger of the interface.
    Merge(MergeSink),
}

/// The sessions and statistics of one chain.
#[derive(Debug)]
pub struct Tracker {
    table: Table<Probe>,
    records: Vec<Record>,
    outlet: Outlet,
    reporter: Reporter,
    books: Arc<SessionBooks>,
    /// Latest time told.
    now: Timestamp,
    /// The next packet is the first of a file.
    file_begins: bool,
}

impl Tracker {
    /// A tracker without sessions. `fill_minutes`: see [`tapedeck_session::stats::Config`].
    #[must_use]
    pub fn new(config: Config, fill_minutes: u32, outlet: Outlet, reporter: Reporter) -> Self {
        let split = matches!(outlet, Outlet::Merge(_));
        let table = Table::with_statistics(Config { split, ..config }, fill_minutes);
        tapedeck_writer::prefer_huge_pages(&table.memory());
        Self {
            table,
            records: Vec::with_capacity(HAND_ON),
            outlet,
            reporter,
            books: Arc::default(),
            now: Timestamp::ZERO,
            file_begins: false,
        }
    }

    /// Its counters.
    #[must_use]
    pub fn books(&self) -> Arc<SessionBooks> {
        Arc::clone(&self.books)
    }

    /// Takes the packets that `work` pushes, all at once; they live until it is done.
    pub fn batch<'p>(&mut self, work: impl FnOnce(&mut Stage<'_, '_, 'p, Probe>)) {
        let Self { table, records, .. } = self;
        let mut sink = |record| records.push(record);
        work(&mut table.stage(&mut sink));
    }

    /// Packets were lost before they reached the table.
    pub fn lost(&mut self, from: Timestamp, until: Timestamp) {
        self.table.lost(from, until);
    }

    /// It is `now`, after a batch: ends some of the sessions that are over.
    pub fn pass(&mut self, now: Timestamp) {
        self.now = now;
        let Self { table, records, .. } = self;
        table.expire(now, EXPIRE_BATCH, &mut |record| records.push(record));
        if self.records.len() >= HAND_ON {
            self.hand_on();
        }
    }

    /// It is `now`: everything that is due is handed on. Some forty times a second.
    pub fn tick(&mut self, now: Timestamp) {
        if now == Timestamp::ZERO {
            // Nothing has come, and the source cannot say how late it is.
            return;
        }
        self.pass(now);
        if !matches!(self.outlet, Outlet::File(_)) {
            let Self { table, records, .. } = self;
            let slots = (table.slots() / ROUND_TICKS + 1).min(ROUND_SLOTS);
            table.news(FRESH_TICK, slots, &mut |record| records.push(record));
        }
        self.hand_on();
        let closed = self.table.close_minutes(now);
        self.report(closed);
        self.books.publish(&self.table);
    }

    /// Another file begins. If it is of an earlier time, its packets continue no session.
    pub fn file(&mut self) {
        self.file_begins = true;
    }

    /// A packet of a file comes, with this time: to be told before it is pushed.
    pub fn arrives(&mut self, ts: Timestamp) {
        if std::mem::take(&mut self.file_begins) && ts.saturating_add(OTHER_RECORDING_NS) < self.now {
            self.end_all();
            self.table.restart();
        }
        self.now = ts;
    }

    /// Latest time told.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        self.now
    }

    /// Ends all sessions, hands everything on.
    #[must_use]
    pub fn finish(mut self) -> SessionCounts {
        self.end_all();
        self.books.publish(&self.table);
        self.books.counts()
    }

    fn end_all(&mut self) {
        let Self { table, records, .. } = self;
        table.finish(&mut |record| records.push(record));
        let records = std::mem::take(&mut self.records);
        match &self.outlet {
            Outlet::Live(sink) | Outlet::File(sink) => sink.send_waiting(records, self.now),
            Outlet::Merge(sink) => sink.send_waiting(records, self.now),
        }
        let closed = self.table.close_all_minutes();
        self.reporter.report_all(closed);
    }

    fn hand_on(&mut self) {
        let records = if self.records.is_empty() {
            Vec::new()
        } else {
            std::mem::replace(&mut self.records, Vec::with_capacity(HAND_ON))
        };
        match &self.outlet {
            Outlet::Live(sink) => sink.send(records, self.now),
            Outlet::File(sink) => sink.send_waiting(records, self.now),
            Outlet::Merge(sink) => sink.send(records, self.now),
        }
    }

    fn report(&self, closed: Vec<tapedeck_session::stats::Closed>) {
        match self.outlet {
            Outlet::File(_) => self.reporter.report_all(closed),
            Outlet::Live(_) | Outlet::Merge(_) => self.reporter.report(closed),
        }
    }
}
