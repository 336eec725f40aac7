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
use crate::pins::RowNote;
use account::{Account, Draft, Drafts, Facts, Origin};
use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
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

/// Sums of hand-overs that are not on disk yet: more than a disk that works ever has.
const HANDED_MAX: usize = 16;
/// What was lost in a crash is told before a recording says that it is ready, unless the disk takes longer than this.
const INHERITED_WAIT: Duration = Duration::from_secs(2);
const INHERITED_LOOK: Duration = Duration::from_millis(5);

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
    booked: BTreeMap<Place, Booked>,
    /// Losses of the card that are in rows, by interface.
    nic: BTreeMap<String, u64>,
    /// Steps of the clock before there was an account.
    early_steps: Vec<(Timestamp, Timestamp)>,
    /// Rows for the next hand-over, by store.
    waiting: Vec<Rows>,
    /// Number of the next row.
    number: u32,
    rows_lost: u64,
    /// Number of the last hand-over.
    serial: u64,
    /// What will be sure once hand-overs are on disk.
    handed: VecDeque<(u64, Sure)>,
    sure: Sure,
}

/// Rows that survive this process, for a successor that must know which are there.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sure {
    /// All rows with a smaller number are on disk.
    pub(crate) number: u32,
    /// By store: the others, if they are there, are in files from this number on.
    pub(crate) from: Vec<u32>,
    /// What these rows say, by queue.
    pub(crate) booked: BTreeMap<Place, Booked>,
}

/// What the rows of a queue say, but for those that tell of the dead.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Booked {
    /// Number of their store.
    pub(crate) store: usize,
    /// Their sums.
    pub(crate) counts: LedgerCounts,
    /// End of the last second that has a row.
    pub(crate) end: Timestamp,
}

/// What became of the rows once all was sealed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Kept {
    /// Rows that are on no disk.
    pub(crate) lost: u64,
    /// All rows with a smaller number are on disk.
    sure: u32,
}

impl Kept {
    /// Rows that tell of the dead and may not be on disk. One that is there all the same is known by its uid.
    pub(crate) fn untold(&self, inherited: &[RowNote]) -> Vec<RowNote> {
        let untold = |row: &&RowNote| self.lost > 0 && row.number.is_none_or(|number| number >= self.sure);
        inherited.iter().filter(untold).cloned().collect()
    }
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
            serial: 0,
            handed: VecDeque::new(),
            sure: Sure::default(),
        })
    }

    /// Books a row for the store of this number: sensor, run, number and remainder are filled in here. One that
    /// names interface and queue is in the sums of that queue.
    pub(crate) fn book(&mut self, store: usize, row: LedgerRow) {
        let row = self.named(store, row);
        let Some(waiting) = self.waiting.get_mut(store).filter(|waiting| waiting.rows.len() < WAITING_MAX)
        else {
            // Not in the sums: a correction makes up for it.
            self.rows_lost += 1;
            return;
        };
        let of_dead = matches!(row.kind, RowKind::Crash | RowKind::Down);
        if let (Some(interface), Some(queue), false) = (&row.interface, row.queue, of_dead) {
            let new = || Booked { store, ..Booked::default() };
            let booked = self.booked.entry((interface.clone(), queue)).or_insert_with(new);
            booked.counts = booked.counts.plus(&row.counts);
            if row.kind == RowKind::Second {
                booked.end = booked.end.max(row.ts_end);
            }
        }
        waiting.rows.push(row);
    }

    /// A row with what is the same for all of a store.
    fn named(&mut self, store: usize, row: LedgerRow) -> LedgerRow {
        let number = self.number;
        self.number = self.number.wrapping_add(1);
        let sensor = self.sensors.get(store).cloned().unwrap_or_default();
        // One that tells of the dead has their number.
        let run = if row.run.is_empty() { self.run.clone() } else { row.run };
        LedgerRow { sensor, run, number, counts: row.counts.settled(), ..row }
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
            let (steps, began) = (&self.early_steps, books.began_at(first_second(&facts)));
            let new = || {
                let mut account = Account::new(origin, true, began);
                // Before the first look at it.
                let since = steps.iter().filter(|(before, _)| began <= *before);
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
        if let Err(rows) = self.table.hand_over(self.serial + 1, rows) {
            self.waiting = rows;
            return;
        }
        self.serial += 1;
        let sure = Sure { number: self.number, from: Vec::new(), booked: self.booked.clone() };
        // While a disk takes nothing they would be more and more; a later one covers the former.
        if self.handed.len() >= HANDED_MAX {
            self.handed.pop_back();
        }
        self.handed.push_back((self.serial, sure));
    }

    /// Which rows are surely on disk by now.
    pub(crate) fn sure(&mut self) -> &Sure {
        let committed = self.table.committed();
        while let Some((_, sure)) = self.handed.pop_front_if(|(serial, _)| *serial <= committed.serial) {
            self.sure = sure;
        }
        self.sure.from = committed.from;
        &self.sure
    }

    /// Books what is told of the dead; each row is given its number. Waits until readers see it, unless the disk
    /// does not take it soon.
    pub(crate) fn book_inherited<'b>(&mut self, all: impl Iterator<Item = &'b mut InterfaceBooks>) {
        let before = self.number;
        for InterfaceBooks { queues, inherited, .. } in all {
            for note in inherited.iter_mut().filter(|note| note.number.is_none()) {
                let Some(row) = note.row() else { continue };
                let of = |queue: &&QueueBooks| queue.queue == note.queue;
                let store = queues.iter().find(of).map_or(0, |queue| queue.store);
                note.number = Some(self.number);
                self.book(store, row);
            }
        }
        self.hand_over();
        let deadline = Instant::now() + INHERITED_WAIT;
        while self.number > before && self.sure().number < self.number {
            if Instant::now() >= deadline {
                tracing::warn!(
                    "the rows of the ledger that tell of the dead are not on the disk yet: until they are, answers about \
                     that time do not know of them"
                );
                break;
            }
            std::thread::sleep(INHERITED_LOOK);
            self.hand_over();
        }
    }

    /// Writes rows that tell of the dead, and nothing else. How many of them are on no disk.
    pub(crate) fn only(mut self, notes: &[RowNote]) -> u64 {
        for row in notes.iter().filter_map(RowNote::row) {
            self.book(0, row);
        }
        self.end().lost
    }

    /// The same where waiting costs nothing.
    fn hand_over_waiting(&mut self) {
        let rows = std::mem::replace(&mut self.waiting, empty(self.sensors.len()));
        self.serial += 1;
        if !self.table.hand_over_waiting(self.serial, rows) {
            tracing::error!("rows of the ledger are not written: their thread has died");
        }
    }

    /// Books what the rows of each queue lack of its final entry without what was `carried` into that: other rows
    /// tell of it. Whatever has no second is of `from` to `to`.
    fn close(
        &mut self,
        queues: &[QueueEntry],
        carried: &BTreeMap<Place, LedgerCounts>,
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
            let carried = carried.get(&place).copied().unwrap_or_default();
            let counts = counts.minus(&carried).minus(&booked.counts).settled();
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
    ) -> Kept {
        let (mut stores, mut carried) = (BTreeMap::<Place, usize>::new(), BTreeMap::new());
        for books in books {
            let place = |queue: u32| (books.interface.clone(), queue);
            stores.extend(books.queues.iter().map(|queue| (place(queue.queue), queue.store)));
            carried.extend(books.carried.iter().map(|(queue, carried)| (place(*queue), carried.counts())));
        }
        self.close(&ledger.queues, &carried, |place| stores.get(place).copied().unwrap_or(0), from, to);
        self.end()
    }

    fn end(mut self) -> Kept {
        self.hand_over_waiting();
        let (sure, all) = (self.sure().number, self.number);
        let Some(counts) = self.table.finish() else {
            // Nobody knows how far its thread came.
            return Kept { lost: all.wrapping_sub(sure).max(1).into(), sure };
        };
        let lost = self.rows_lost + counts.iter().map(|table| table.rows_lost).sum::<u64>();
        if lost > 0 {
            tracing::error!(rows = lost, "rows of the ledger are missing: the disk did not take them");
        }
        for table in counts.iter().filter(|table| table.rows_held > 0) {
            let rows = table.rows_held;
            tracing::warn!(
                table = "ledger",
                rows,
                "rows could not be sealed; they are in a journal, and the next start recovers them"
            );
        }
        Kept { lost, sure }
    }
}

fn empty(stores: usize) -> Vec<Rows> {
    (0..stores).map(|store| Rows { store, ..Rows::default() }).collect()
}

/// First second of which packets are known.
fn first_second(facts: &Facts) -> Option<u64> {
    let program = facts.program.iter().flat_map(|(_, seconds)| seconds);
    let program = program.filter(|(_, counts)| counts.packets > 0).map(|(spot, _)| spot.second);
    program.chain(facts.chain.seconds.keys().copied()).min()
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
