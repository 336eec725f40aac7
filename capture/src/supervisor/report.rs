//! What is done each second of a recording: the clock sampled, the books looked at, the status written.
//!
//! It must never stop a recording for a status that cannot be written.

use super::{Active, Crew, RecordError, Run, Session};
use crate::books;
use crate::card::CardState;
use crate::clock::{self, Change};
use crate::identity;
use crate::ledger::{Ledger, SessionEntry};
use crate::ledger_rows::{ClockRows, Kept, LedgerRows, Look};
use crate::nic::Loss;
use crate::status::{Status, WorkerStatus};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// The books by second.
pub(super) struct Books {
    pub(super) rows: LedgerRows,
    pub(super) clock: ClockRows,
}

impl Books {
    fn look(&mut self, run: &Run, active: &[Active], ledger: &Ledger) -> Result<(), RecordError> {
        let now = super::now(run);
        let due = self.clock.look(&run.clock, now, &mut self.rows);
        for one in active {
            if due && let Some(state) = card(run, one) {
                self.clock.card(&one.books.interface, now, &state, &mut self.rows);
            }
            let look = Look { books: &one.books, intake: &one.intake, now };
            self.rows.look(&look, ledger)?;
        }
        self.rows.hand_over();
        Ok(())
    }

    /// When all workers have ended and the last books are closed.
    pub(super) fn finish(
        mut self,
        run: &Run,
        active: &[Active],
        ledger: &Ledger,
    ) -> Result<Kept, RecordError> {
        self.look(run, active, ledger)?;
        let books = active.iter().map(|one| &one.books);
        Ok(self.rows.finish(ledger, books, run.start, super::now(run)))
    }
}

/// Samples the clock and says when it jumps.
pub(super) fn sample_clock(run: &Run, active: &mut [Active], books: &mut Books) {
    let (before, quarantined) = (super::now(run), run.clock.quarantined());
    let change = match clock::read() {
        Ok(reading) => run.clock.sample(reading),
        Err(error) => {
            tracing::warn!(%error, "cannot read the clock; the last offset stays");
            return;
        }
    };
    match change {
        Change::Slewed => {}
        Change::Believed { from_ns, to_ns } => {
            tracing::warn!("clock: the system clock is back, and believed again");
            books.clock.stepped(&run.clock, before, (from_ns, to_ns), &mut books.rows);
        }
        Change::Stepped { from_ns, to_ns } => {
            let seconds = Duration::from_nanos(to_ns.abs_diff(from_ns)).as_secs_f64();
            let way = if to_ns > from_ns { "forward" } else { "back" };
            tracing::warn!("the system clock was stepped {way} by {seconds:.3} s; packet times follow");
            let now = super::now(run);
            books.clock.stepped(&run.clock, now, (from_ns, to_ns), &mut books.rows);
            books.rows.stepped(before, now);
        }
        Change::Quarantined { from_ns, to_ns } if !quarantined => {
            let hours = Duration::from_nanos(to_ns.abs_diff(from_ns)).as_secs() / 3600;
            tracing::warn!(
                "clock: quarantined: the system clock jumped by {hours} h; packet times do not follow. If it is right \
                 now: with --config write `accept-clock = true` into that file and send SIGHUP; without, start again with \
                 --accept-clock (SIGHUP would end this recording)"
            );
            books.clock.stepped(&run.clock, before, (from_ns, to_ns), &mut books.rows);
        }
        Change::Quarantined { .. } => {}
    }
    tell_programs(run, active);
}

/// Tells the programs how the clocks run.
pub(super) fn tell_programs(run: &Run, active: &mut [Active]) {
    let offset = run.clock.conversion().offset_ns();
    for one in active {
        let Some(program) = one.intake.program() else { continue };
        let told = match &mut one.card {
            Some(card) => card.tell(program, offset),
            None => program.set_utc_offset(offset),
        };
        if let Err(error) = told {
            tracing::warn!(%error, "the program counts in seconds of the old offset");
        }
    }
}

impl Session<'_> {
    /// Tells workers what they cannot count themselves, books the seconds, and writes the status.
    ///
    /// # Errors
    /// The counters of a program cannot be read.
    pub(super) fn report(&mut self) -> Result<(), RecordError> {
        let sessions = self.desk.entry(&super::sessions(&self.active));
        let ledger = ledger(&self.run, &self.active, sessions)?;
        self.rows.look(&self.run, &self.active, &ledger)?;
        complain_of_unheard(&self.active, &ledger, &mut self.unheard);
        let mut workers = Vec::new();
        for one in &self.active {
            for (books, crew) in one.books.queues.iter().zip(&one.workers) {
                books::tell_worker(books, &one.intake)?;
                workers.push(worker_status(&one.books.interface, books, crew));
            }
        }
        let status = Status {
            version: 1,
            pid: std::process::id(),
            updated_ns: identity::now().nanos(),
            stores: self.plan.stores.clone(),
            clock: self.run.clock.quarantined().then(|| "quarantined".to_owned()),
            filter: self.run.filter.text().map(str::to_owned),
            ledger,
            workers,
            nic: self.active.iter().filter_map(nic).collect(),
            cards: self
                .active
                .iter()
                .filter_map(|one| Some((one.books.interface.clone(), card(&self.run, one)?)))
                .collect(),
        };
        if let Err(error) = self.files.write(&status) {
            // A full disk is no reason to stop looking.
            tracing::debug!(%error, "cannot write the status anywhere");
        }
        Ok(())
    }
}

/// What is known of the card that stamps the packets of an interface.
fn card(run: &Run, one: &Active) -> Option<CardState> {
    let (card, program) = (one.card.as_ref()?, one.intake.program()?);
    match card.state(program, run.clock.conversion().offset_ns()) {
        Ok(state) => Some(state),
        Err(error) => {
            tracing::debug!(%error, "nobody knows what the card stamped");
            None
        }
    }
}

/// What the card of an interface lost, if anything.
fn nic(active: &Active) -> Option<(String, Vec<Loss>)> {
    let losses = active.books.nic.losses();
    (!losses.is_empty()).then(|| (active.books.interface.clone(), losses))
}

/// Says once of each interface that packets arrive on queues that nobody listens on.
fn complain_of_unheard(active: &[Active], ledger: &Ledger, told: &mut BTreeSet<String>) {
    for books in active.iter().map(|one| &one.books) {
        let interface = &books.interface;
        let heard = |queue: u32| books.queues.iter().any(|ours| ours.queue == queue);
        let unheard = ledger
            .queues
            .iter()
            .any(|entry| entry.interface == *interface && entry.counts.seen > 0 && !heard(entry.queue));
        if unheard && told.insert(interface.clone()) {
            tracing::error!(
                interface,
                "packets arrive on queues that the card opened after the recording began; they count as \
                 `unbound`. Mend: end the recording, `ethtool -L {interface} combined N` with the largest N that \
                 `ethtool -l {interface}` shows, begin again"
            );
        }
    }
}

fn worker_status(interface: &str, books: &books::QueueBooks, crew: &Crew) -> WorkerStatus {
    let chain = books.chain.snapshot();
    let shared = &books.shared;
    let read = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
    WorkerStatus {
        interface: interface.to_owned(),
        queue: crew.queue,
        cpu: crew.cpu,
        store: crew.store.clone(),
        sink: chain.sink.map(|sink| sink.name().to_owned()),
        level: chain.level,
        regressions: read(&shared.regressions),
        oddities: read(&shared.unstamped) + read(&shared.misfits),
        missing: read(&shared.missing),
        segments: chain.segments_sealed,
        shedding: shared.shedding.load(Ordering::Relaxed),
        shed_packets: read(&shared.shed_packets),
        shed_bytes: read(&shared.shed_bytes),
    }
}

/// The books as they stand.
pub(super) fn ledger(run: &Run, active: &[Active], sessions: SessionEntry) -> Result<Ledger, RecordError> {
    let mut queues = Vec::new();
    for one in active {
        queues.extend(one.books.queues(&one.intake)?);
    }
    let interfaces = active.iter().map(|one| one.books.entry()).collect();
    Ok(Ledger::close(run.run, run.start, identity::now(), interfaces, queues, sessions))
}
