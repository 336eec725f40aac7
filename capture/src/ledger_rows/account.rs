//! The account of one queue: from what was counted by second to the rows of the ledger.
//!
//! A second gets its row once it is over, its packets have been handled by the worker, and nothing of them is under
//! way in the recorder. Until then it has a live row, replaced each time it changes. What becomes known of a second
//! later is a further row: rows add up. It must never make a number up: a second of which nothing is known gets
//! no row, and what cannot be told by second stands in a correction.

use crate::books;
use std::collections::BTreeMap;
use tapedeck_ebpf::{Counts as ProgramCounts, SECONDS, Spot};
use tapedeck_index::table::ledger::{LedgerCounts, RowKind};
use tapedeck_packet::Timestamp;
use tapedeck_packet::time::NANOS_PER_SEC;
use tapedeck_writer::{Second, SecondBooks, Shift};

/// Looks at a second that is over and does not balance until it gets its row all the same.
const PATIENCE: u32 = 10;
/// Seconds that may pass between two looks before the program has used slots twice, with some to spare.
const REMEMBERED: u64 = SECONDS as u64 - 4;

/// Where the packets of the queue come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// The XDP program counts by second.
    Program,
    /// A packet socket: it counts what the worker receives and, in all, what it dropped.
    Socket,
    /// A file: nothing is lost before the chain.
    File,
}

/// What is known at a look.
#[derive(Debug)]
pub(crate) struct Facts {
    /// The time packets would have that came now.
    pub(crate) now: Timestamp,
    /// No packet of this time or before comes out of the ring any more.
    pub(crate) settled: Timestamp,
    /// Counts of the program: in all, and by second for the last [`SECONDS`] with packets.
    pub(crate) program: Option<(ProgramCounts, BTreeMap<Spot, ProgramCounts>)>,
    /// What the chain booked since the last look.
    pub(crate) chain: SecondBooks,
    /// Drops as the socket itself counts them, where nobody knows their second: (ring full, no chunk).
    pub(crate) socket: (u64, u64),
}

/// A row to be, without the names of its queue.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Draft {
    pub(crate) kind: RowKind,
    pub(crate) ts: Timestamp,
    pub(crate) ts_end: Timestamp,
    pub(crate) counts: LedgerCounts,
}

/// What a look brings.
#[derive(Debug, Default)]
pub(crate) struct Drafts {
    pub(crate) rows: Vec<Draft>,
    pub(crate) live: Vec<Draft>,
}

/// What of a second is in no row yet.
#[derive(Clone, Copy, Debug, Default)]
struct Open {
    program: LedgerCounts,
    chain: Second,
    /// Drops noticed in this second.
    drops: i64,
    /// The live row that stands for it.
    live: Option<LedgerCounts>,
    /// Looks at which it was over and did not balance.
    looks: u32,
}

/// The account of one queue.
#[derive(Debug)]
pub(crate) struct Account {
    origin: Origin,
    /// Each second gets a row, also one without packets.
    watched: bool,
    began: Timestamp,
    /// First second without a row.
    next: u64,
    open: BTreeMap<u64, Open>,
    /// What the program said of each second last.
    read: BTreeMap<Spot, LedgerCounts>,
    /// The sum of all that it said.
    read_sum: LedgerCounts,
    /// Seconds that were not there or not seen: [from, to).
    skipped: Vec<(u64, u64)>,
    looked: Option<u64>,
    socket: (u64, u64),
    /// Of these, drops that are not assigned to a second yet: without the tracepoint only.
    unassigned: (i64, i64),
}

fn second_of(ts: Timestamp) -> u64 {
    ts.nanos() / NANOS_PER_SEC
}

fn start_of(second: u64) -> Timestamp {
    Timestamp::from_nanos_saturating(second.saturating_mul(NANOS_PER_SEC))
}

impl Account {
    /// The account of a queue that packets come to since `began`. `watched`: a worker listens.
    pub(crate) fn new(origin: Origin, watched: bool, began: Timestamp) -> Self {
        Self {
            origin,
            watched,
            began,
            next: second_of(began),
            open: BTreeMap::new(),
            read: BTreeMap::new(),
            read_sum: LedgerCounts::default(),
            skipped: Vec::new(),
            looked: None,
            socket: (0, 0),
            unassigned: (0, 0),
        }
    }

    /// The clock of the packets was stepped: the seconds between were never there.
    pub(crate) fn stepped(&mut self, before: Timestamp, after: Timestamp) {
        let (from, to) = (second_of(before) + 1, second_of(after));
        if from < to {
            self.skipped.push((from, to));
        }
        // No time has passed in which the program could have used its slots twice.
        self.looked = self.looked.map(|_| second_of(after));
    }

    /// Takes in what was counted and drafts the rows that are due.
    pub(crate) fn look(&mut self, facts: Facts, until: Option<Timestamp>) -> Drafts {
        let mut drafts = Drafts::default();
        let end = until.unwrap_or(facts.now).min(facts.now);
        let (now, settled) = (second_of(end), facts.settled);
        self.absorb(facts, now, &mut drafts);
        // Of the latest second more may come, until the queue is closed.
        let over = if until.is_some() { now } else { now.saturating_sub(1) };
        self.late_seconds(settled, &mut drafts);
        while self.watched && self.next <= over {
            let skip = self.skipped.iter().find(|(from, to)| (*from..*to).contains(&self.next));
            if let Some((_, to)) = skip.copied() {
                self.next = to;
                continue;
            }
            if start_of(self.next + 1).min(end) > settled {
                break;
            }
            let Some(counts) = self.balanced(self.next) else { break };
            self.open.remove(&self.next);
            drafts.rows.push(self.draft(self.next, counts, until));
            self.next += 1;
        }
        self.skipped.retain(|(_, to)| *to > self.next);
        self.live_rows(over, until, &mut drafts);
        drafts
    }

    /// Seconds that have a row already, or get one only because packets came.
    fn late_seconds(&mut self, settled: Timestamp, drafts: &mut Drafts) {
        let seconds: Vec<u64> = self.open.keys().copied().collect();
        for second in seconds {
            let due = if self.watched { second < self.next } else { start_of(second + 1) <= settled };
            if due && let Some(counts) = self.balanced(second) {
                self.open.remove(&second);
                let mut draft = self.draft(second, counts, None);
                if self.watched && counts.seen == 0 {
                    draft.kind = RowKind::Correction;
                }
                drafts.rows.push(draft);
            }
        }
    }

    /// Live rows of what is over and has no row, where they have changed.
    fn live_rows(&mut self, over: u64, until: Option<Timestamp>, drafts: &mut Drafts) {
        if self.origin == Origin::File {
            return;
        }
        let seconds: Vec<u64> = self.open.range(..=over).map(|(second, _)| *second).collect();
        for second in seconds {
            let Some(open) = self.open.get_mut(&second) else { continue };
            let (mut counts, under_way) = open.counts(self.origin);
            let Some(pending) = under_way.pending() else { continue };
            counts.pending = pending;
            let counts = counts.settled();
            if open.live.replace(counts) != Some(counts) {
                drafts.live.push(self.draft(second, counts, until));
            }
        }
    }

    fn draft(&self, second: u64, counts: LedgerCounts, until: Option<Timestamp>) -> Draft {
        let (ts, ts_end) = (start_of(second), start_of(second + 1));
        if self.origin == Origin::File {
            return Draft { kind: RowKind::Second, ts, ts_end, counts };
        }
        let ts = if second == second_of(self.began) { self.began } else { ts };
        let ts_end = until.filter(|until| second_of(*until) == second).unwrap_or(ts_end).max(ts);
        Draft { kind: RowKind::Second, ts, ts_end, counts }
    }

    /// The counts of a second, if nothing of it is under way, or if it has been waited for long enough.
    fn balanced(&mut self, second: u64) -> Option<LedgerCounts> {
        let Some(open) = self.open.get_mut(&second) else { return Some(LedgerCounts::default()) };
        let (_, under_way) = open.counts(self.origin);
        if under_way.ring > 0 && self.unassigned != (0, 0) {
            // Losses that the kernel counted, but not by second: they are missing here.
            let full = self.unassigned.0.min(under_way.ring);
            let empty = self.unassigned.1.min(under_way.ring - full);
            self.unassigned = (self.unassigned.0 - full, self.unassigned.1 - empty);
            open.program.ring_full += full;
            open.program.fill_empty += empty;
        }
        let (counts, under_way) = open.counts(self.origin);
        if under_way != UnderWay::default() {
            // What is in the chain leaves it in any case.
            open.looks += u32::from(under_way.chain == 0);
            if open.looks < PATIENCE {
                return None;
            }
        }
        Some(counts.settled())
    }

    /// `latest`: the second in which what has none was noticed.
    fn absorb(&mut self, facts: Facts, latest: u64, drafts: &mut Drafts) {
        let now = second_of(facts.now);
        if let Some((total, seconds)) = facts.program {
            let blind = self.looked.filter(|looked| now > looked + REMEMBERED);
            self.absorb_program(&seconds);
            if let Some(from) = blind.filter(|_| self.watched) {
                let to = now - REMEMBERED;
                let counts = books::of_program(&total).minus(&self.read_sum).settled();
                self.read_sum = self.read_sum.plus(&counts);
                let (ts, ts_end) = (start_of(from), start_of(to));
                drafts.rows.push(Draft { kind: RowKind::Correction, ts, ts_end, counts });
                self.skipped.push((from, to));
            }
        }
        self.looked = Some(now);
        for (second, books) in facts.chain.seconds {
            self.open.entry(second).or_default().chain += books;
        }
        for Shift { seconds: (from, to), stored } in facts.chain.shifts {
            let counts = LedgerCounts {
                stored: stored.packets,
                stored_bytes: stored.bytes,
                write_error: stored.packets.wrapping_neg(),
                ..LedgerCounts::default()
            };
            let (ts, ts_end) = (start_of(from), start_of(to.saturating_add(1)));
            drafts.rows.push(Draft { kind: RowKind::Correction, ts, ts_end, counts });
        }
        let since = |now: u64, before: u64| i64::try_from(now.saturating_sub(before)).unwrap_or(i64::MAX);
        let (full, empty) = (since(facts.socket.0, self.socket.0), since(facts.socket.1, self.socket.1));
        self.socket = facts.socket;
        match self.origin {
            Origin::Socket if full > 0 => self.open.entry(latest).or_default().drops += full,
            Origin::Program => self.unassigned = (self.unassigned.0 + full, self.unassigned.1 + empty),
            Origin::Socket | Origin::File => {}
        }
    }

    fn absorb_program(&mut self, seconds: &BTreeMap<Spot, ProgramCounts>) {
        let mut read = BTreeMap::new();
        for (spot, counts) in seconds {
            let counts = books::of_program(counts);
            let before = self.read.get(spot).copied().unwrap_or_default();
            // Fewer than before: a second that the clock had met twice has lost its older slot.
            let news =
                if counts.seen < before.seen { LedgerCounts::default() } else { counts.minus(&before) };
            if news != LedgerCounts::default() {
                let open = self.open.entry(spot.second).or_default();
                open.program = open.program.plus(&news);
                self.read_sum = self.read_sum.plus(&news);
            }
            read.insert(*spot, counts);
        }
        self.read = read;
    }

    /// Everything that is left, when nothing more can come.
    pub(crate) fn close(&mut self) -> Vec<Draft> {
        let open = std::mem::take(&mut self.open);
        open.into_iter()
            .map(|(second, open)| self.draft(second, open.counts(self.origin).0.settled(), None))
            .collect()
    }
}

/// Packets between the stages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct UnderWay {
    /// Put into the ring, not handed to the chain by the worker.
    ring: i64,
    /// Handed to the chain, which has not said yet what becomes of them.
    chain: i64,
}

impl UnderWay {
    /// Their number; `None` while the stages were read at different moments.
    fn pending(self) -> Option<i64> {
        (self.ring >= 0 && self.chain >= 0).then(|| self.ring + self.chain)
    }
}

impl Open {
    /// The numbers of the second without `pending`, and what is under way.
    fn counts(&self, origin: Origin) -> (LedgerCounts, UnderWay) {
        let Self { program, chain, drops, .. } = self;
        let Second { appended, wire_bytes, short, filtered, shed, refused, stored, failed, left, .. } = chain;
        let mut counts = *program;
        if origin != Origin::Program {
            counts.seen = appended.packets + filtered.packets + drops;
            counts.seen_bytes = *wire_bytes + filtered.bytes;
            counts.filtered = filtered.packets;
            counts.ring_full = *drops;
        }
        let before_ring = counts.dropped().iter().map(|(_, packets)| packets).sum::<i64>() + counts.filtered;
        let under_way = UnderWay {
            ring: counts.seen - before_ring - appended.packets,
            chain: appended.packets - shed.packets - refused.packets - left.packets,
        };
        counts.stored = stored.packets;
        counts.stored_bytes = stored.bytes;
        counts.shed = shed.packets;
        counts.write_error = failed.packets + refused.packets;
        if origin != Origin::File {
            counts.cut_packets = short.packets;
            counts.cut_bytes = short.bytes;
        }
        (counts, under_way)
    }
}
