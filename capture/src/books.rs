//! From the counters of all stages to the entries of the ledger.
//!
//! `seen` and the causes before the ring come from the XDP program, `pending` from the ring, the worker
//! and the chain, `stored` and the causes after the ring from the chain. Each is counted where it happens;
//! only the ledger computes a remainder. A live look reads the stages one after the other, from the disk
//! backwards; it is taken again while packets come in between, and is exact once they do not.

use crate::ladder::{Intake, Mode};
use crate::ledger::{BeforeQueues, Counts, Dropped, InterfaceEntry, QueueEntry};
use crate::nic::Nic;
use crate::pins::RowNote;
use crate::sessions::{SessionBooks, SessionCounts};
use crate::worker::{Phase, Shared};
use crate::xsk::Gauge;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use tapedeck_ebpf::{Counts as ProgramCounts, Program, ProgramError, QUEUES_MAX, Refusal};
use tapedeck_index::table::ledger::LedgerCounts;
use tapedeck_packet::Timestamp;
use tapedeck_packet::time::NANOS_PER_SEC;
use tapedeck_writer::ChainCounters;

/// Looks at a queue this often for one without traffic in between.
const LOOKS: usize = 16;

/// The counters of one queue.
#[derive(Debug)]
pub(crate) struct QueueBooks {
    pub(crate) queue: u32,
    /// Number of the store that its packets go to.
    pub(crate) store: usize,
    pub(crate) shared: Arc<Shared>,
    pub(crate) gauge: Option<Gauge>,
    pub(crate) chain: Arc<ChainCounters>,
    pub(crate) sessions: Arc<SessionBooks>,
}

/// The counters of one interface.
#[derive(Debug)]
pub(crate) struct InterfaceBooks {
    pub(crate) interface: String,
    pub(crate) ifindex: u32,
    pub(crate) mode: Mode,
    pub(crate) queues: Vec<QueueBooks>,
    /// Since when packets come in, and until when they did, by the packets' clock.
    pub(crate) began: Timestamp,
    pub(crate) closed: Option<Timestamp>,
    /// Just before the first packet could come: it may be of an earlier second than `began`.
    pub(crate) opening: Timestamp,
    /// Losses of recorders that died before this run, which no ledger has told yet, by queue. They are part
    /// of this run's ledger, with as many packets seen.
    pub(crate) carried: BTreeMap<u32, Carried>,
    /// Rows of the ledger that tell of the dead, for this run to book.
    pub(crate) inherited: Vec<RowNote>,
    /// What the card loses.
    pub(crate) nic: Nic,
}

/// Losses of the dead.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Carried {
    pub(crate) dropped: Dropped,
    /// Bytes of these packets, of those of which they are known.
    pub(crate) bytes: u64,
}

impl Carried {
    pub(crate) fn add(&mut self, dropped: &Dropped, bytes: u64) {
        self.dropped.add(dropped);
        self.bytes += bytes;
    }

    /// As the numbers of a row.
    pub(crate) fn counts(&self) -> LedgerCounts {
        let n = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let (seen, seen_bytes) = (n(self.dropped.sum()), n(self.bytes));
        LedgerCounts { seen, seen_bytes, ..self.dropped.numbers() }
    }
}

impl InterfaceBooks {
    /// Something of the dead is this run's to tell.
    pub(crate) fn inherits(&self) -> bool {
        !(self.carried.is_empty() && self.inherited.is_empty())
    }

    /// When the recording of a queue began whose first packet is of the second `first`.
    pub(crate) fn began_at(&self, first: Option<u64>) -> Timestamp {
        began_at(self.opening, self.began, first)
    }

    /// What the card lost before any program.
    pub(crate) fn entry(&self) -> InterfaceEntry {
        InterfaceEntry { interface: self.interface.clone(), dropped: BeforeQueues { nic: self.nic.read() } }
    }

    /// An entry per queue, and one per queue without a worker that saw packets all the same, or of which
    /// losses were carried over.
    ///
    /// # Errors
    /// The program's maps cannot be read.
    pub(crate) fn queues(&self, intake: &Intake) -> Result<Vec<QueueEntry>, ProgramError> {
        let mut entries = Vec::with_capacity(self.queues.len());
        for books in &self.queues {
            entries.push(self.look(books, intake)?);
        }
        if let Some(program) = intake.program() {
            self.unheard(program, &mut entries)?;
        }
        for (queue, carried) in &self.carried {
            if !entries.iter().any(|entry| entry.queue == *queue) {
                entries.push(self.empty_entry(*queue));
            }
            for entry in entries.iter_mut().filter(|entry| entry.queue == *queue) {
                entry.dropped.add(&carried.dropped);
                entry.counts.seen += carried.dropped.sum();
                entry.counts.seen_bytes += carried.bytes;
            }
        }
        Ok(entries)
    }

    /// Queues without a worker that saw packets all the same.
    fn unheard(&self, program: &Program, entries: &mut Vec<QueueEntry>) -> Result<(), ProgramError> {
        let first = u32::try_from(self.queues.len()).unwrap_or(u32::MAX);
        for queue in first..=QUEUES_MAX {
            let counts = program.totals(queue)?;
            if counts.packets > 0 {
                let mut entry = self.empty_entry(queue);
                book_program(&mut entry, &counts);
                entries.push(entry);
            }
        }
        Ok(())
    }

    /// The sessions of all queues.
    pub(crate) fn sessions(&self) -> SessionCounts {
        let mut sum = SessionCounts::default();
        for queue in &self.queues {
            sum.add(&queue.sessions.counts());
        }
        sum
    }

    fn empty_entry(&self, queue: u32) -> QueueEntry {
        QueueEntry {
            interface: self.interface.clone(),
            queue,
            mode: self.mode.name().to_owned(),
            ..QueueEntry::default()
        }
    }

    /// A look at one queue, if possible one during which no packet came.
    fn look(&self, books: &QueueBooks, intake: &Intake) -> Result<QueueEntry, ProgramError> {
        let mut entry = self.empty_entry(books.queue);
        for _ in 0..LOOKS {
            let before = program_counts(books, intake)?;
            let chain = books.chain.snapshot();
            let received = books.shared.received.load(Ordering::Relaxed);
            let filtered = books.shared.filtered.load(Ordering::Relaxed);
            let waiting = waiting(books, received);
            entry = self.empty_entry(books.queue);
            entry.counts.stored = chain.stored.packets;
            entry.counts.stored_bytes = chain.stored.bytes;
            entry.dropped.shed = chain.shed.packets;
            entry.dropped.write_error = chain.write_error.packets;
            entry.counts.filtered = filtered;
            let in_worker = received.saturating_sub(chain.appended.packets).saturating_sub(filtered);
            entry.counts.pending = chain.pending.packets + in_worker + waiting;
            entry.counts.cut_packets = books.shared.cut_packets.load(Ordering::Relaxed);
            entry.counts.cut_bytes = books.shared.cut_bytes.load(Ordering::Relaxed);
            let after = program_counts(books, intake)?;
            match after {
                Some(counts) => book_program(&mut entry, &counts),
                None => book_packet(&mut entry, &books.shared),
            }
            if before == after && entry.clone().settled().unaccounted == 0 {
                break;
            }
        }
        Ok(entry)
    }
}

fn began_at(opening: Timestamp, began: Timestamp, first: Option<u64>) -> Timestamp {
    let second = |ts: Timestamp| ts.nanos() / NANOS_PER_SEC;
    let earlier = second(opening)..second(began);
    if first.is_some_and(|first| earlier.contains(&first)) { opening } else { began }
}

/// Packets in the ring: put in by the kernel, not taken out by the worker.
fn waiting(books: &QueueBooks, received: u64) -> u64 {
    match &books.gauge {
        // Entries of the batch in hand are given back together: those already taken are not waiting.
        Some(gauge) => {
            let in_hand = received.saturating_sub(books.shared.released.load(Ordering::Relaxed));
            u64::from(gauge.backlog()).saturating_sub(in_hand)
        }
        None => seen_by_packet(&books.shared)
            .saturating_sub(books.shared.source_ring_full.load(Ordering::Relaxed))
            .saturating_sub(received),
    }
}

/// The kernel's count of AF_PACKET is read some times a second; what came out since was seen as well. At
/// the end the kernel's count alone holds.
fn seen_by_packet(shared: &Shared) -> u64 {
    if shared.phase() == Phase::Finish {
        return shared.source_seen.load(Ordering::Relaxed);
    }
    let out = shared.received.load(Ordering::Relaxed) + shared.source_ring_full.load(Ordering::Relaxed);
    shared.source_seen.load(Ordering::Relaxed).max(out)
}

/// What the program counted, with the socket's own statistics where the error tracepoint is missing.
fn program_counts(books: &QueueBooks, intake: &Intake) -> Result<Option<ProgramCounts>, ProgramError> {
    let Some(program) = intake.program() else { return Ok(None) };
    let mut counts = program.totals(books.queue)?;
    if program.without_refusals().is_some() {
        let [ring_full, fill_empty, ..] = &mut counts.refused;
        *ring_full = books.shared.source_ring_full.load(Ordering::Relaxed);
        *fill_empty = books.shared.source_dropped.load(Ordering::Relaxed);
    }
    Ok(Some(counts))
}

/// Packets that must come out of a queue's ring, as far as is known now.
pub(crate) fn expected(books: &QueueBooks, intake: &Intake) -> Result<u64, ProgramError> {
    Ok(match program_counts(books, intake)? {
        Some(counts) => counts.delivered(),
        None => {
            let seen = books.shared.source_seen.load(Ordering::Relaxed);
            seen.saturating_sub(books.shared.source_ring_full.load(Ordering::Relaxed))
        }
    })
}

/// Tells a worker what statistics blocks say of its queue.
pub(crate) fn tell_worker(books: &QueueBooks, intake: &Intake) -> Result<(), ProgramError> {
    let (seen, wanted, delivered) = match program_counts(books, intake)? {
        Some(counts) => (counts.packets, counts.packets.saturating_sub(counts.filtered), counts.delivered()),
        None => {
            let seen = books.shared.source_seen.load(Ordering::Relaxed);
            (seen, seen, expected(books, intake)?)
        }
    };
    books.shared.seen.store(seen, Ordering::Relaxed);
    books.shared.lost.store(wanted.saturating_sub(delivered), Ordering::Relaxed);
    Ok(())
}

/// What the program counted, as numbers of a row.
pub(crate) fn of_program(counts: &ProgramCounts) -> LedgerCounts {
    let mut entry = QueueEntry::default();
    book_program(&mut entry, counts);
    entry.numbers()
}

fn book_program(entry: &mut QueueEntry, counts: &ProgramCounts) {
    entry.counts =
        Counts { seen: counts.packets, seen_bytes: counts.bytes, filtered: counts.filtered, ..entry.counts };
    entry.dropped = Dropped {
        ring_full: counts.refused(Refusal::RingFull),
        fill_empty: counts.refused(Refusal::FillEmpty),
        oversize: counts.refused(Refusal::Oversize),
        unbound: counts.slot_empty.saturating_add(counts.refused(Refusal::Unbound)),
        wrong_queue: counts.refused(Refusal::WrongQueue),
        program: counts.failed.saturating_add(counts.refused(Refusal::Other)),
        ..entry.dropped
    };
}

/// AF_PACKET knows the number of packets it dropped, not their bytes.
fn book_packet(entry: &mut QueueEntry, shared: &Shared) {
    entry.counts.seen_bytes = shared.received_bytes.load(Ordering::Relaxed);
    entry.counts.seen = seen_by_packet(shared);
    entry.dropped.ring_full = shared.source_ring_full.load(Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recording_that_opens_at_the_turn_of_a_second_began_before_its_first_packet() {
        let at = |millis: u64| Timestamp::from_nanos_saturating(millis * 1_000_000);
        let (opening, began) = (at(743_980), at(744_027));
        assert_eq!(began_at(opening, began, Some(743)), opening, "no row says more than was watched");
        for first in [None, Some(744), Some(750), Some(700)] {
            assert_eq!(began_at(opening, began, first), began, "{first:?}");
        }
    }
}
