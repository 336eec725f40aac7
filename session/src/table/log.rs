//! What a one-sided session keeps for the merger: its packets in runs.
//!
//! A run is packets of one direction that a replay may treat as one: no flags, in order, close in time. Runs stand
//! in chained blocks from a pool of fixed size. A session that would need more than its share adds to its last
//! run whatever comes; the half says then that it is not exact. Must never be written for a session whose
//! both directions are here.

use super::index::NONE;
use super::vec_bytes;
use crate::input::{Facts, Place, TcpHeader, Transport, flag};

/// Runs of a session between two records.
const MAX_RUNS: u32 = 64;
/// Longest pause within a run, ns. Shorter than any timer that could fire in it.
const PAUSE: u64 = 4_000_000_000;
/// Most payload in a run: less than Zeek lets pile up without acknowledgement.
const MAX_PAYLOAD: u32 = 4 << 20;
/// An acknowledgement that jumps further begins a new run, so that a gap is found where it is.
const ACK_JUMP: u32 = 1 << 16;
const RUNS: usize = 4;

/// Packets of one direction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Run {
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) first_place: Place,
    pub(crate) last_place: Place,
    pub(crate) packets: u32,
    pub(crate) ip_bytes: u32,
    pub(crate) wire_bytes: u32,
    pub(crate) cut_bytes: u32,
    pub(crate) payload_bytes: u32,
    /// Payload of its last packet, if it has several.
    pub(crate) last_payload_bytes: u32,
    /// TTL of the first packet.
    pub(crate) ttl: u8,
    /// Header of the first packet, if it is TCP.
    pub(crate) tcp: Option<TcpHeader>,
    /// Sequence number that continues it.
    pub(crate) next_seq: u32,
    /// Latest acknowledgement.
    pub(crate) last_ack: u32,
    /// Flags of all its packets.
    pub(crate) all_flags: u8,
    /// It has flags, or was sent before: nothing continues it.
    alone: bool,
    /// The side had shown both data and bare ACKs before: which of the two comes tells nothing any more.
    mixed: bool,
}

impl Run {
    /// A run of one packet. `again`: its data had been sent before. `mixed`: the side had shown both data and
    /// bare ACKs before it.
    pub(crate) fn new(facts: &Facts, again: bool, mixed: bool) -> Self {
        let tcp = match facts.transport {
            Transport::Tcp(header) => Some(header),
            _ => None,
        };
        let header = tcp.unwrap_or_default();
        Self {
            first: facts.ts,
            last: facts.ts,
            first_place: facts.place,
            last_place: facts.place,
            packets: 1,
            ip_bytes: facts.ip_bytes,
            wire_bytes: facts.wire_bytes,
            cut_bytes: facts.cut_bytes,
            payload_bytes: facts.payload_bytes,
            last_payload_bytes: 0,
            ttl: facts.ttl,
            tcp,
            next_seq: header.seq.wrapping_add(facts.payload_bytes),
            last_ack: header.ack,
            all_flags: header.flags,
            mixed,
            alone: again || header.zero_window || header.flags & (flag::SYN | flag::FIN | flag::RST) != 0,
        }
    }

    /// Whether `other`, one packet, continues this run. No run goes over `border` (ns).
    fn takes(&self, other: &Self, border: u64) -> bool {
        let fits = other.first >= self.last
            && other.first_place.segment() == self.last_place.segment()
            && other.first - self.last <= PAUSE
            && !(self.last < border && border <= other.first)
            && self.wire_bytes.checked_add(other.wire_bytes).is_some()
            && self.ip_bytes.checked_add(other.ip_bytes).is_some()
            && self.payload_bytes.saturating_add(other.payload_bytes) <= MAX_PAYLOAD;
        match (&self.tcp, &other.tcp) {
            (None, None) => fits,
            (Some(first), Some(header)) => {
                fits && !self.alone
                    && !other.alone
                    && header.seq == self.next_seq
                    && (first.flags ^ header.flags) & flag::ACK == 0
                    && (self.mixed || (self.payload_bytes > 0) == (other.payload_bytes > 0))
                    && header.ack.wrapping_sub(self.last_ack) <= ACK_JUMP
            }
            _ => false,
        }
    }

    /// Adds one packet.
    fn add(&mut self, other: &Self) {
        self.last = self.last.max(other.last);
        self.last_place = other.last_place;
        self.packets = self.packets.saturating_add(1);
        self.ip_bytes = self.ip_bytes.saturating_add(other.ip_bytes);
        self.wire_bytes = self.wire_bytes.saturating_add(other.wire_bytes);
        self.cut_bytes = self.cut_bytes.saturating_add(other.cut_bytes);
        self.payload_bytes = self.payload_bytes.saturating_add(other.payload_bytes);
        self.last_payload_bytes = other.payload_bytes;
        self.next_seq = other.next_seq;
        self.last_ack = other.last_ack;
        self.all_flags |= other.all_flags;
    }
}

#[derive(Clone, Copy, Debug)]
struct Block {
    runs: [Run; RUNS],
    length: u8,
    next: u32,
}

/// The log of one session.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Log {
    head: u32,
    tail: u32,
    runs: u32,
    /// Packets were added to a run that they do not continue.
    pub(crate) inexact: bool,
    /// What the side has shown since the last border (`history::seen`).
    pub(crate) seen: u8,
    /// The last packet, ns.
    pub(crate) last: u64,
    /// Retransmissions noted.
    pub(crate) retransmissions: u64,
}

impl Log {
    /// No packet is in it.
    pub(crate) const fn is_empty(&self) -> bool {
        self.head == NONE
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { head: NONE, tail: NONE, runs: 0, inexact: false, seen: 0, last: 0, retransmissions: 0 }
    }
}

/// The pool of blocks.
#[derive(Debug)]
pub(crate) struct Logs {
    blocks: Vec<Block>,
    free: Vec<u32>,
    max: usize,
}

impl Logs {
    pub(crate) fn new(max: u32) -> Self {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        Self { blocks: Vec::with_capacity(max), free: Vec::with_capacity(max), max }
    }

    /// Bytes for `max` blocks.
    pub(crate) const fn bytes(max: u64) -> u64 {
        max * (size_of::<Block>() as u64 + size_of::<u32>() as u64)
    }

    /// Bytes reserved now.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        vec_bytes(&self.blocks) + vec_bytes(&self.free)
    }

    fn block(&mut self, block: u32) -> Option<&mut Block> {
        self.blocks.get_mut(usize::try_from(block).ok()?)
    }

    /// Adds a packet to a log; `false` if there is no room at all for it.
    pub(crate) fn add(&mut self, log: &mut Log, one: &Run, border: u64) -> bool {
        let full = log.runs >= MAX_RUNS;
        if let Some(block) = self.block(log.tail)
            && let Some(run) = usize::from(block.length).checked_sub(1).and_then(|at| block.runs.get_mut(at))
        {
            let takes = run.takes(one, border);
            if takes || full {
                run.add(one);
                log.inexact |= !takes;
                return true;
            }
            if let Some(free) = block.runs.get_mut(usize::from(block.length)) {
                *free = *one;
                block.length += 1;
                log.runs += 1;
                return true;
            }
        }
        let Some(new) = self.take() else {
            log.inexact = true;
            return match self.block(log.tail) {
                Some(block) => block.runs.last_mut().is_some_and(|run| {
                    run.add(one);
                    true
                }),
                None => false,
            };
        };
        let mut runs = [Run::default(); RUNS];
        runs[0] = *one;
        if let Some(block) = self.block(new) {
            *block = Block { runs, length: 1, next: NONE };
        }
        match self.block(log.tail) {
            Some(tail) => tail.next = new,
            None => log.head = new,
        }
        (log.tail, log.runs) = (new, log.runs + 1);
        true
    }

    fn take(&mut self) -> Option<u32> {
        if let Some(block) = self.free.pop() {
            return Some(block);
        }
        let block = u32::try_from(self.blocks.len()).ok()?;
        if self.blocks.len() >= self.max {
            return None;
        }
        self.blocks.push(Block { runs: [Run::default(); RUNS], length: 0, next: NONE });
        Some(block)
    }

    /// Empties a log: its runs, in order.
    pub(crate) fn drain(&mut self, log: &mut Log) -> Vec<Run> {
        let mut runs = Vec::with_capacity(usize::try_from(log.runs).unwrap_or(0));
        let mut next = log.head;
        while let Some(block) = self.block(next) {
            let block = *block;
            runs.extend_from_slice(block.runs.get(..usize::from(block.length)).unwrap_or_default());
            self.free.push(next);
            next = block.next;
        }
        *log = Log { seen: log.seen, last: log.last, retransmissions: log.retransmissions, ..Log::default() };
        runs
    }
}
