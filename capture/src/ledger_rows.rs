//! The ledger by second: one row per UTC second, interface and queue in the table `ledger`.
//!
//! The supervisor looks once a second: at the counts of the program by second, at what each chain booked by
//! second, at what the card lost. An [`Account`] per queue makes rows of it; the [thread](table) behind it puts
//! them on disk. When a recording ends, the sums over its rows are the numbers of its final ledger: what should
//! be missing is booked as a correction, never left out.

pub(crate) mod account;
mod clock;
pub(crate) mod file;
mod table;
#[cfg(test)]
mod tests;

use crate::books::{InterfaceBooks, QueueBooks};
use crate::ladder::Intake;
use crate::ledger::{Ledger, QueueEntry};
use crate::nic;
use account::{Account, Draft, Drafts, Facts, Origin};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use table::{LedgerTable, Rows};
use tapedeck_ebpf::ProgramError;
use tapedeck_index::table::ledger::{LedgerCounts, LedgerRow, RowKind};
use tapedeck_packet::Timestamp;
use tapedeck_packet::time::NANOS_PER_SEC;
use tapedeck_writer::{SecondBooks, WriteError};

pub(crate) use clock::ClockRows;

/// Rows that wait for a thread that is stuck, at most; some 100 MiB.
const WAITING_MAX: usize = 256 * 1024;
/// A queue without a worker has no one to say when a second is settled: this long after its end.
const UNHEARD_SETTLE_NS: u64 = NANOS_PER_SEC;

/// Which queue.
type Place = (String, u32);

/// The rows of a run on their way to the disk, and their sums.
#[derive(Debug)]
pub(crate) struct LedgerRows {
    run: String,
    /// Sensor of each store.
    sensors: Vec<String>,
    table: LedgerTable,
    accounts: BTreeMap<Place, Account>,
    /// Sums over all rows of a queue.
    booked: BTreeMap<Place, LedgerCounts>,
    /// Losses of the card that are in rows, by interface.
    nic: BTreeMap<String, u64>,
    /// Steps of the clock before there was an account.
    early_steps: Vec<(Timestamp, Timestamp)>,
    /// Rows for the next hand-over, by store.
    waiting: Vec<Rows>,
    /// Number of the next row.
    number: u32,
    rows_lost: u64,
}

/// An interface at a look.
pub(crate) struct Look<'a> {
    pub(crate) books: &'a InterfaceBooks,
    pub(crate) intake: &'a Intake,
    /// Time of the packets' clock.
    pub(crate) now: Timestamp,
}

impl LedgerRows {
    /// Starts the thread for stores (folder, sensor).
    ///
    /// # Errors
    /// The system has no thread left.
    pub(crate) fn start(stores: Vec<(PathBuf, String)>, run: u32) -> Result<Self, WriteError> {
        let sensors: Vec<String> = stores.iter().map(|(_, sensor)| sensor.clone()).collect();
        let waiting = empty(sensors.len());
        Ok(Self {
            run: format!("{run:08x}"),
            sensors,
            table: LedgerTable::start(stores, run)?,
            accounts: BTreeMap::new(),
            booked: BTreeMap::new(),
            nic: BTreeMap::new(),
            early_steps: Vec::new(),
            waiting,
            number: 0,
            rows_lost: 0,
        })
    }

    /// Books a row for the store of this number: sensor, run, number and remainder are filled in here. One that
    /// names interface and queue is in the sums of that queue.
    pub(crate) fn book(&mut self, store: usize, row: LedgerRow) {
        if let (Some(interface), Some(queue)) = (&row.interface, row.queue) {
            let sum = self.booked.entry((interface.clone(), queue)).or_default();
            *sum = sum.plus(&row.counts.settled());
        }
        let row = self.named(store, row);
        let Some(waiting) = self.waiting.get_mut(store) else { return };
        if waiting.rows.len() < WAITING_MAX {
            waiting.rows.push(row);
        } else {
            self.rows_lost += 1;
        }
    }

    /// A row with what is the same for all of a store.
    fn named(&mut self, store: usize, row: LedgerRow) -> LedgerRow {
        let number = self.number;
        self.number = self.number.wrapping_add(1);
        let sensor = self.sensors.get(store).cloned().unwrap_or_default();
        LedgerRow { sensor, run: self.run.clone(), number, counts: row.counts.settled(), ..row }
    }

    /// The row of a draft.
    fn row(&self, (interface, queue): &Place, mode: &str, draft: Draft) -> LedgerRow {
        let Draft { kind, ts, ts_end, counts } = draft;
        let second = ts.nanos() / NANOS_PER_SEC;
        let (run, queue) = (&self.run, *queue);
        let uid = match kind {
            RowKind::Second => format!("{run}-{interface}-{queue}-{second}"),
            other => format!(
                "{run}-{interface}-{queue}-{}-{second}-{}",
                other.name(),
                ts_end.nanos() / NANOS_PER_SEC
            ),
        };
        LedgerRow {
            ts,
            ts_end,
            kind,
            interface: Some(interface.clone()),
            queue: Some(queue),
            mode: Some(mode.to_owned()),
            uid,
            counts,
            ..LedgerRow::default()
        }
    }

    fn take(&mut self, store: usize, place: &Place, mode: &str, drafts: Drafts) {
        for draft in drafts.rows {
            let row = self.row(place, mode, draft);
            self.book(store, row);
        }
        for draft in drafts.live {
            let row = self.row(place, mode, draft);
            let row = self.named(store, row);
            if let Some(waiting) =
                self.waiting.get_mut(store).filter(|waiting| waiting.live.len() < WAITING_MAX)
            {
                waiting.live.push(row);
            }
        }
    }

    /// The clock was stepped, as seen in the times of packets.
    pub(crate) fn stepped(&mut self, before: Timestamp, after: Timestamp) {
        self.accounts.values_mut().for_each(|account| account.stepped(before, after));
        if self.accounts.is_empty() {
            self.early_steps.push((before, after));
        }
    }

    /// Looks at all queues of an interface, and at those that the ledger knows without a worker.
    ///
    /// # Errors
    /// The program's maps cannot be read.
    pub(crate) fn look(&mut self, look: &Look<'_>, ledger: &Ledger) -> Result<(), ProgramError> {
        let Look { books, intake, now } = *look;
        let mode = books.mode.name();
        for queue in &books.queues {
            let place = (books.interface.clone(), queue.queue);
            let facts = facts(queue, intake, now)?;
            let origin = if intake.program().is_some() { Origin::Program } else { Origin::Socket };
            let steps = &self.early_steps;
            let new = || {
                let mut account = Account::new(origin, true, books.began);
                // Before the first look at it.
                let since = steps.iter().filter(|(before, _)| books.began <= *before);
                since.for_each(|(before, after)| account.stepped(*before, *after));
                account
            };
            let drafts = self.accounts.entry(place.clone()).or_insert_with(new).look(facts, books.closed);
            self.take(queue.store, &place, mode, drafts);
        }
        let heard = |queue: u32| books.queues.iter().any(|ours| ours.queue == queue);
        let unheard = ledger.queues.iter().filter(|e| e.interface == books.interface && !heard(e.queue));
        for entry in unheard {
            let Some(program) = intake.program() else { continue };
            let place = (books.interface.clone(), entry.queue);
            let (settled, chain) = (now.saturating_sub(UNHEARD_SETTLE_NS), SecondBooks::default());
            let settled = if books.closed.is_some() { Timestamp::MAX } else { settled };
            let program = Some(program.total_and_seconds(entry.queue)?);
            let facts = Facts { now, settled, program, chain, socket: (0, 0) };
            let new = || Account::new(Origin::Program, false, now);
            let drafts = self.accounts.entry(place.clone()).or_insert_with(new).look(facts, None);
            self.take(0, &place, mode, drafts);
        }
        if let Some(entry) = ledger.interfaces.iter().find(|entry| entry.interface == books.interface) {
            self.book_nic(books, entry.dropped.nic, now);
        }
        Ok(())
    }

    /// Losses of a card, in the second in which they were noticed.
    fn book_nic(&mut self, books: &InterfaceBooks, lost: u64, now: Timestamp) {
        let interface = &books.interface;
        let before = self.nic.insert(interface.clone(), lost).unwrap_or(0);
        let Some(news) = lost.checked_sub(before).filter(|news| *news > 0) else { return };
        let nic = i64::try_from(news).unwrap_or(i64::MAX);
        let second = now.nanos() / NANOS_PER_SEC;
        let start = |second: u64| Timestamp::from_nanos_saturating(second.saturating_mul(NANOS_PER_SEC));
        self.book(
            0,
            LedgerRow {
                ts: start(second),
                ts_end: start(second + 1),
                kind: RowKind::Nic,
                interface: Some(interface.clone()),
                uid: format!("{}-{interface}-nic-{second}", self.run),
                counts: LedgerCounts { seen: nic, nic, ..LedgerCounts::default() },
                detail: Some(nic::text(&books.nic.losses())),
                ..LedgerRow::default()
            },
        );
    }

    /// Hands over what there is; what finds no room waits.
    pub(crate) fn hand_over(&mut self) {
        if self.waiting.iter().all(|rows| rows.rows.is_empty() && rows.live.is_empty()) {
            return;
        }
        let rows = std::mem::replace(&mut self.waiting, empty(self.sensors.len()));
        if let Err(rows) = self.table.hand_over(rows) {
            self.waiting = rows;
        }
    }

    /// The same where waiting costs nothing.
    fn hand_over_waiting(&mut self) {
        let rows = std::mem::replace(&mut self.waiting, empty(self.sensors.len()));
        if !self.table.hand_over_waiting(rows) {
            tracing::error!("rows of the ledger are not written: their thread has died");
        }
    }

    /// Books what the rows of each queue lack of its final entry. Whatever has no second is of `from` to `to`.
    fn close(
        &mut self,
        queues: &[QueueEntry],
        store_of: impl Fn(&Place) -> usize,
        from: Timestamp,
        to: Timestamp,
    ) {
        let mut entries: BTreeMap<Place, (&str, LedgerCounts)> = BTreeMap::new();
        for entry in queues {
            // Files may have several interfaces of one name.
            let none = (entry.mode.as_str(), LedgerCounts::default());
            let (_, sum) = entries.entry((entry.interface.clone(), entry.queue)).or_insert(none);
            *sum = sum.plus(&entry.numbers());
        }
        for (place, (mode, counts)) in entries {
            let store = store_of(&place);
            let rows = self.accounts.remove(&place).map(|mut account| account.close()).unwrap_or_default();
            self.take(store, &place, mode, Drafts { rows, live: Vec::new() });
            let booked = self.booked.get(&place).copied().unwrap_or_default();
            let counts = counts.minus(&booked).settled();
            if counts != LedgerCounts::default() {
                let rows = vec![Draft { kind: RowKind::Correction, ts: from, ts_end: to, counts }];
                self.take(store, &place, mode, Drafts { rows, live: Vec::new() });
            }
        }
    }

    /// The end: whatever the final ledger has and no row yet is booked, and all is sealed. `books` are all
    /// interfaces of the recording.
    pub(crate) fn finish<'b>(
        mut self,
        ledger: &Ledger,
        books: impl Iterator<Item = &'b InterfaceBooks>,
        from: Timestamp,
        to: Timestamp,
    ) {
        let stores: BTreeMap<Place, usize> = books
            .flat_map(|books| {
                books.queues.iter().map(|queue| ((books.interface.clone(), queue.queue), queue.store))
            })
            .collect();
        self.close(&ledger.queues, |place| stores.get(place).copied().unwrap_or(0), from, to);
        self.end();
    }

    fn end(mut self) {
        self.hand_over_waiting();
        let counts = self.table.finish();
        let lost = self.rows_lost + counts.iter().map(|table| table.rows_lost).sum::<u64>();
        if lost > 0 {
            tracing::error!(rows = lost, "rows of the ledger are missing: the disk did not keep up");
        }
        for table in counts.iter().filter(|table| table.rows_held > 0) {
            let rows = table.rows_held;
            tracing::warn!(
                table = "ledger",
                rows,
                "rows could not be sealed; they are in a journal, and the next start recovers them"
            );
        }
    }
}

fn empty(stores: usize) -> Vec<Rows> {
    (0..stores).map(|store| Rows { store, ..Rows::default() }).collect()
}

/// What is known of a queue with a worker.
fn facts(books: &QueueBooks, intake: &Intake, now: Timestamp) -> Result<Facts, ProgramError> {
    // Before the counters: what was settled then has been counted.
    let settled = Timestamp::from_nanos_saturating(books.shared.settled.load(Ordering::Acquire));
    let chain = books.chain.take_seconds();
    let of_socket = || {
        let read = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
        (read(&books.shared.source_ring_full), read(&books.shared.source_dropped))
    };
    let (program, socket) = match intake.program() {
        Some(program) => {
            let inexact = program.without_refusals().is_some();
            (Some(program.total_and_seconds(books.queue)?), if inexact { of_socket() } else { (0, 0) })
        }
        None => (None, of_socket()),
    };
    Ok(Facts { now, settled, program, chain, socket })
}
