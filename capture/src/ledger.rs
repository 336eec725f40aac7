//! The ledger: what became of every packet, and its JSON (the same for `record`, `import`, `status`).
//!
//! `seen = filtered + stored + pending + sum(dropped) + unaccounted` holds by construction, because
//! `unaccounted` is the one number here that is computed as a remainder. It is signed: negative means
//! that packets were counted twice. Nothing else may ever be derived by subtraction.

use serde::{Deserialize, Serialize};
use tapedeck_index::table::ledger::LedgerCounts;
use tapedeck_packet::Timestamp;

/// Packets that were seen and not stored, by cause. Every key is always present in the JSON.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Dropped {
    /// The socket's receive ring was full: the worker is too slow.
    pub ring_full: u64,
    /// The fill ring was empty: no chunk to put the packet in.
    pub fill_empty: u64,
    /// No socket in the queue's slot, or a socket that was not bound, while a recorder lived.
    pub unbound: u64,
    /// Redirected to a socket of another queue or interface.
    pub wrong_queue: u64,
    /// Longer than the socket takes.
    pub oversize: u64,
    /// The XDP program could not handle it; of a file: its time cannot be stored.
    pub program: u64,
    /// No free buffer: nothing of the packet was kept.
    pub shed: u64,
    /// Writing it to the store failed.
    pub write_error: u64,
    /// Delivered to a recorder that died before the packet was recoverable.
    pub crash: u64,
    /// Passed while no recorder was there.
    pub down: u64,
}

impl Dropped {
    /// All causes together.
    #[must_use]
    pub fn sum(&self) -> u64 {
        let Self {
            ring_full,
            fill_empty,
            unbound,
            wrong_queue,
            oversize,
            program,
            shed,
            write_error,
            crash,
            down,
        } = *self;
        ring_full
            + fill_empty
            + unbound
            + wrong_queue
            + oversize
            + program
            + shed
            + write_error
            + crash
            + down
    }

    /// The same as the numbers of a row of the table `ledger`.
    pub(crate) fn numbers(&self) -> LedgerCounts {
        let n = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        LedgerCounts {
            ring_full: n(self.ring_full),
            fill_empty: n(self.fill_empty),
            unbound: n(self.unbound),
            wrong_queue: n(self.wrong_queue),
            oversize: n(self.oversize),
            program: n(self.program),
            shed: n(self.shed),
            write_error: n(self.write_error),
            crash: n(self.crash),
            down: n(self.down),
            ..LedgerCounts::default()
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.ring_full += other.ring_full;
        self.fill_empty += other.fill_empty;
        self.unbound += other.unbound;
        self.wrong_queue += other.wrong_queue;
        self.oversize += other.oversize;
        self.program += other.program;
        self.shed += other.shed;
        self.write_error += other.write_error;
        self.crash += other.crash;
        self.down += other.down;
    }
}

/// The counts of one queue, or their sum. Packets and bytes since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Packets that reached the program (or the file reader).
    pub seen: u64,
    /// Their bytes on the wire.
    pub seen_bytes: u64,
    /// Left out by a filter.
    pub filtered: u64,
    /// Retrievable now.
    pub stored: u64,
    /// Captured bytes of the packets stored.
    pub stored_bytes: u64,
    /// Inside the recorder, not retrievable yet; counted by the stages.
    pub pending: u64,
    /// Stored packets that were shortened by the recorder.
    pub cut_packets: u64,
    /// Bytes taken off them.
    pub cut_bytes: u64,
}

/// One queue of one interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct QueueEntry {
    /// Interface name.
    pub interface: String,
    /// Queue number; 0 for `import`.
    pub queue: u32,
    /// `zerocopy`, `copy`, `skb`, `packet` or `file`.
    pub mode: String,
    /// The counts.
    #[serde(flatten)]
    pub counts: Counts,
    /// What was lost, by cause.
    pub dropped: Dropped,
    /// The remainder; 0 unless there is a bug.
    pub unaccounted: i64,
}

impl QueueEntry {
    /// The same as the numbers of a row of the table `ledger`.
    pub(crate) fn numbers(&self) -> LedgerCounts {
        let n = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        let counts = &self.counts;
        LedgerCounts {
            seen: n(counts.seen),
            seen_bytes: n(counts.seen_bytes),
            filtered: n(counts.filtered),
            stored: n(counts.stored),
            stored_bytes: n(counts.stored_bytes),
            pending: n(counts.pending),
            cut_packets: n(counts.cut_packets),
            cut_bytes: n(counts.cut_bytes),
            unaccounted: self.unaccounted,
            ..self.dropped.numbers()
        }
    }

    /// Computes `unaccounted` from everything else.
    #[must_use]
    pub fn settled(mut self) -> Self {
        self.unaccounted = remainder(&self.counts, self.dropped.sum());
        self
    }
}

/// Losses of an interface before any queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct BeforeQueues {
    /// Lost by the network card before XDP.
    pub nic: u64,
}

/// One interface.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceEntry {
    /// Interface name.
    pub interface: String,
    /// Losses before XDP.
    pub dropped: BeforeQueues,
}

/// Causes of the total: those of the queues and of the interfaces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TotalDropped {
    /// Sum over the interfaces.
    pub nic: u64,
    /// Sum over the queues.
    #[serde(flatten)]
    pub queues: Dropped,
}

/// Everything together. `seen` also contains `nic`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// The counts.
    #[serde(flatten)]
    pub counts: Counts,
    /// What was lost, by cause.
    pub dropped: TotalDropped,
    /// The remainder over everything.
    pub unaccounted: i64,
}

/// The sessions of a run, and what there is of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionEntry {
    /// Sessions begun; one whose directions came to two queues counts for each.
    pub sessions: u64,
    /// Sessions open now.
    pub open: u64,
    /// Sessions that have ended whose directions came to two queues and were joined.
    pub split: u64,
    /// Records written, without the states of open sessions.
    pub records: u64,
    /// Sessions that were ended early because their table was full.
    pub evicted: u64,
    /// Packets that are in no session's record but in one of many (`record_type` `coarse`): the table was full.
    pub coarse_packets: u64,
    /// Sessions whose payload was not looked at for want of room.
    pub uninspected: u64,
    /// Records that are missing: the disk or the thread that writes them did not keep up.
    pub records_lost: u64,
    /// Minutes of statistics that are missing for the same reason.
    pub minutes_lost: u64,
}

/// The books of one run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ledger {
    /// Version of this JSON: 1.
    pub version: u32,
    /// The run, 8 hexadecimal digits.
    pub run: String,
    /// When the run began, RFC 3339.
    pub start: String,
    /// When these books were closed (or looked at), RFC 3339.
    pub end: String,
    /// The sums.
    pub total: Total,
    /// Per interface.
    pub interfaces: Vec<InterfaceEntry>,
    /// Per queue, settled.
    pub queues: Vec<QueueEntry>,
    /// The sessions.
    pub sessions: SessionEntry,
}

impl Ledger {
    /// Adds the queues up. They are settled here; the total's remainder is computed from the sums, not
    /// from the queues' remainders, so that the two check each other.
    #[must_use]
    pub fn close(
        run: u32,
        start: Timestamp,
        end: Timestamp,
        interfaces: Vec<InterfaceEntry>,
        queues: Vec<QueueEntry>,
        sessions: SessionEntry,
    ) -> Self {
        let queues: Vec<_> = queues.into_iter().map(QueueEntry::settled).collect();
        let mut total = Total::default();
        for queue in &queues {
            total.counts.add(&queue.counts);
            total.dropped.queues.add(&queue.dropped);
        }
        total.dropped.nic = interfaces.iter().map(|i| i.dropped.nic).sum();
        total.counts.seen += total.dropped.nic;
        total.unaccounted = remainder(&total.counts, total.dropped.nic + total.dropped.queues.sum());
        let (start, end) = (start.to_string(), end.to_string());
        Self { version: 1, run: format!("{run:08x}"), start, end, total, interfaces, queues, sessions }
    }

    /// What to say, loudly, of books that do not balance; `None` if they do.
    #[must_use]
    pub fn imbalance(&self) -> Option<String> {
        let queues = self.queues.iter().filter(|queue| queue.unaccounted != 0);
        let places: Vec<_> =
            queues.map(|q| format!("{} queue {}: {}", q.interface, q.queue, q.unaccounted)).collect();
        if places.is_empty() && self.total.unaccounted == 0 {
            return None;
        }
        Some(format!(
            "WARNING: the ledger does not balance: unaccounted {} ({}); negative means counted twice. \
             This is a defect of tapedeck: please report it with the ledger of run {}",
            self.total.unaccounted,
            places.join(", "),
            self.run
        ))
    }

    /// The JSON line that ends a run.
    ///
    /// # Errors
    /// None in practice: the types hold nothing that JSON cannot.
    pub fn to_json(&self) -> Result<String, serde_json::Error> {
        serde_json::to_string(self)
    }
}

impl Counts {
    fn add(&mut self, other: &Self) {
        self.seen += other.seen;
        self.seen_bytes += other.seen_bytes;
        self.filtered += other.filtered;
        self.stored += other.stored;
        self.stored_bytes += other.stored_bytes;
        self.pending += other.pending;
        self.cut_packets += other.cut_packets;
        self.cut_bytes += other.cut_bytes;
    }
}

/// `seen` minus everything that is accounted for.
fn remainder(counts: &Counts, dropped: u64) -> i64 {
    let accounted = i128::from(counts.filtered)
        + i128::from(counts.stored)
        + i128::from(counts.pending)
        + i128::from(dropped);
    i64::try_from(i128::from(counts.seen) - accounted).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_books_balance_and_the_keys_are_those_of_the_contract() {
        let queue = |seen, stored, shed| QueueEntry {
            interface: "eth1".into(),
            mode: "copy".into(),
            counts: Counts { seen, stored, ..Counts::default() },
            dropped: Dropped { shed, ..Dropped::default() },
            ..QueueEntry::default()
        };
        let nic = InterfaceEntry { interface: "eth1".into(), dropped: BeforeQueues { nic: 3 } };
        let second = Timestamp::from_nanos_saturating(1_000_000_000);
        let ledger = Ledger::close(
            0x9f,
            Timestamp::ZERO,
            second,
            vec![nic],
            vec![queue(10, 7, 2), queue(4, 5, 0)],
            SessionEntry::default(),
        );
        assert_eq!(ledger.queues.iter().map(|q| q.unaccounted).collect::<Vec<_>>(), [1, -1]);
        assert_eq!((ledger.total.counts.seen, ledger.total.unaccounted), (17, 0));
        // Two queues that cancel each other out are no balance.
        let said = ledger.imbalance().unwrap();
        assert!(said.contains("unaccounted 0 (eth1 queue 0: 1, eth1 queue 0: -1)"), "{said}");
        let whole = Ledger::close(
            1,
            Timestamp::ZERO,
            second,
            Vec::new(),
            vec![queue(10, 8, 2)],
            SessionEntry::default(),
        );
        assert_eq!(whole.imbalance(), None);
        let json = ledger.to_json().unwrap();
        let head = r#"{"version":1,"run":"0000009f","start":"1970-01-01T00:00:00.000000000Z","end":"1970-01-01T00:00:01.000000000Z","total":{"seen":17,"#;
        assert!(json.starts_with(head), "{json}");
        let entry = r#"{"interface":"eth1","queue":0,"mode":"copy","seen":10,"seen_bytes":0,"filtered":0,"stored":7,"stored_bytes":0,"pending":0,"cut_packets":0,"cut_bytes":0,"dropped":{"ring_full":0,"fill_empty":0,"unbound":0,"wrong_queue":0,"oversize":0,"program":0,"shed":2,"write_error":0,"crash":0,"down":0},"unaccounted":1}"#;
        assert!(json.contains(entry), "{json}");
        assert!(json.contains(r#""interfaces":[{"interface":"eth1","dropped":{"nic":3}}]"#), "{json}");
        assert_eq!(serde_json::from_str::<Ledger>(&json).unwrap(), ledger);
    }
}
