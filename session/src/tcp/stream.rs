//! What of a side's stream has been seen: Zeek's `TCP_Reassembler`, without the data.
//!
//! A stream is followed as "delivered up to here" and, while there are holes, a short list of the ranges
//! above. Lists come from a pool of fixed size; a stream that finds none, or needs more ranges than a list
//! has, closes its lowest hole as a gap at once. Numbers are relative: 1 is the first byte of data.

use super::{Conversation, State, full};
use crate::pair::End;
use crate::table::vec_bytes;

/// Zeek's `tcp_max_initial_window` and `tcp_max_above_hole_without_any_acks`.
const MAX_WITHOUT_ACKS: u64 = 16_384;
/// Zeek's `tcp_excessive_data_without_further_acks`.
pub(super) const MAX_UNACKED: u64 = 10 * 1024 * 1024;
/// Ranges a list holds.
const RANGES: usize = 8;
/// No list.
const NONE: u32 = u32::MAX;

/// How far a stream has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stream {
    /// All before this has been seen or given up: `last_reassem_seq`.
    pub(crate) delivered: u64,
    /// All before this has been acknowledged: `trim_seq`.
    pub(super) trim: u64,
    /// One past the highest byte seen.
    pub(super) top: u64,
    list: u32,
}

impl Default for Stream {
    fn default() -> Self {
        Self { delivered: 1, trim: 1, top: 0, list: NONE }
    }
}

impl Stream {
    /// Ranges above a hole are kept.
    pub(super) const fn has_holes(&self) -> bool {
        self.list != NONE
    }

    /// Zeek's `HasBlocks`: bytes that are seen and not acknowledged.
    const fn has_blocks(&self) -> bool {
        self.top > self.trim
    }
}

/// Ranges above a hole, in order, apart from each other.
#[derive(Clone, Copy, Debug, Default)]
struct Ranges {
    ranges: [(u64, u64); RANGES],
    length: u8,
}

impl Ranges {
    fn all(&self) -> &[(u64, u64)] {
        self.ranges.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// Adds `[from, to)`; `false` if there is no room, and then nothing is changed.
    fn add(&mut self, mut from: u64, mut to: u64) -> bool {
        let mut next = Self::default();
        let mut placed = false;
        for &(start, end) in self.all() {
            if end < from {
                if !next.push(start, end) {
                    return false;
                }
            } else if to < start {
                if !placed && !next.push(from, to) {
                    return false;
                }
                placed = true;
                if !next.push(start, end) {
                    return false;
                }
            } else {
                (from, to) = (from.min(start), to.max(end));
            }
        }
        if !placed && !next.push(from, to) {
            return false;
        }
        *self = next;
        true
    }

    fn push(&mut self, from: u64, to: u64) -> bool {
        let Some(place) = self.ranges.get_mut(usize::from(self.length)) else { return false };
        *place = (from, to);
        self.length += 1;
        true
    }

    fn first(&self) -> Option<(u64, u64)> {
        self.all().first().copied()
    }

    fn remove_first(&mut self) {
        self.ranges.rotate_left(1);
        self.length = self.length.saturating_sub(1);
    }

    fn bytes(&self) -> u64 {
        self.all().iter().map(|(from, to)| to - from).sum()
    }
}

/// The pool of lists.
#[derive(Debug)]
pub(crate) struct Holes {
    lists: Vec<Ranges>,
    free: Vec<u32>,
    max: usize,
    /// Holes that were closed for want of room.
    pub(crate) forced: u64,
}

impl Holes {
    pub(crate) fn new(max: u32) -> Self {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        Self { lists: Vec::with_capacity(max), free: Vec::with_capacity(max), max, forced: 0 }
    }

    /// Bytes a pool of `max` lists takes at most.
    pub(crate) const fn bytes(max: u64) -> u64 {
        max * (size_of::<Ranges>() as u64 + size_of::<u32>() as u64)
    }

    /// Bytes reserved now.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        vec_bytes(&self.lists) + vec_bytes(&self.free)
    }

    fn take(&mut self) -> u32 {
        if let Some(list) = self.free.pop() {
            return list;
        }
        let Ok(list) = u32::try_from(self.lists.len()) else { return NONE };
        if self.lists.len() >= self.max {
            return NONE;
        }
        self.lists.push(Ranges::default());
        list
    }

    fn get(&mut self, list: u32) -> Option<&mut Ranges> {
        self.lists.get_mut(usize::try_from(list).ok()?)
    }

    fn first(&mut self, list: u32) -> Option<(u64, u64)> {
        self.get(list)?.first()
    }

    /// Gives the list of a stream back.
    pub(crate) fn give_back(&mut self, stream: &mut Stream) {
        let list = std::mem::replace(&mut stream.list, NONE);
        if let Some(ranges) = self.get(list) {
            *ranges = Ranges::default();
            self.free.push(list);
        }
    }
}

impl Conversation<'_> {
    /// Data of `from` at `seq`: Zeek's `TCP_Reassembler::DataSent`.
    pub(super) fn data_sent(&mut self, from: End, seq: u64, len: u32) {
        if self.tcp.ends.of(from).skip_deliveries {
            return;
        }
        self.new_block(from, seq, seq.saturating_add(u64::from(len)));
        let own = self.tcp.ends.of(from);
        let pending =
            if own.stream.has_blocks() { own.stream.top.saturating_sub(own.stream.delivered) } else { 0 };
        if (own.no_data_acked() && pending > MAX_WITHOUT_ACKS) || self.unacked(from) > MAX_UNACKED {
            let stream = &mut self.tcp.ends.of_mut(from).stream;
            stream.top = 0;
            self.holes.give_back(stream);
            self.end(from).skip_deliveries = true;
        }
    }

    fn unacked(&mut self, from: End) -> u64 {
        let stream = self.tcp.ends.of(from).stream;
        let above = self.holes.get(stream.list).map_or(0, |ranges| ranges.bytes());
        stream.delivered.min(stream.top).saturating_sub(stream.trim) + above
    }

    fn new_block(&mut self, from: End, seq: u64, upper: u64) {
        let stream = &mut self.tcp.ends.of_mut(from).stream;
        if upper <= stream.trim {
            return;
        }
        let seq = seq.max(stream.trim);
        stream.top = stream.top.max(upper);
        if seq > stream.delivered {
            self.keep_above(from, seq, upper);
        } else if upper > stream.delivered {
            stream.delivered = upper;
            self.deliver_joined(from);
        }
    }

    /// Keeps a range that lies above a hole.
    fn keep_above(&mut self, from: End, seq: u64, upper: u64) {
        let stream = &mut self.tcp.ends.of_mut(from).stream;
        if stream.list == NONE {
            stream.list = self.holes.take();
        }
        let list = stream.list;
        if self.holes.get(list).is_some_and(|ranges| ranges.add(seq, upper)) {
            return;
        }
        // No room: the lowest hole is given up, then this range is looked at again.
        self.holes.forced += 1;
        let first = self.holes.first(list).map_or(seq, |(start, _)| start.min(seq));
        let delivered = self.tcp.ends.of(from).stream.delivered;
        self.gap(from, first.saturating_sub(delivered));
        self.end(from).stream.delivered = first;
        self.deliver_joined(from);
        self.new_block(from, seq, upper);
    }

    /// Goes on over ranges that begin where the stream has come to.
    fn deliver_joined(&mut self, from: End) {
        let stream = &mut self.tcp.ends.of_mut(from).stream;
        if stream.list != NONE {
            while let Some((start, end)) = self.holes.first(stream.list)
                && start <= stream.delivered
            {
                stream.delivered = stream.delivered.max(end);
                if let Some(ranges) = self.holes.get(stream.list) {
                    ranges.remove_first();
                }
            }
            if self.holes.first(stream.list).is_none() {
                self.holes.give_back(stream);
            }
        }
        // Nobody seems to acknowledge: Zeek does not hold on to the data, so nor do we wait for it.
        let (own, peer) = (self.tcp.ends.of(from), self.tcp.ends.of(from.other()));
        if own.no_data_acked() && own.size(peer) > MAX_WITHOUT_ACKS {
            let stream = &mut self.end(from).stream;
            stream.trim = stream.trim.max(stream.delivered);
        }
    }

    /// Zeek's `TCP_Reassembler::AckReceived`.
    pub(super) fn ack_received(&mut self, end: End, mut seq: u64) {
        let own = self.tcp.ends.of(end);
        if own.fin_seen {
            let fin_seq = self.trail.repeats.of(end).fin_seq;
            seq = if seq >= fin_seq { fin_seq.wrapping_sub(1) } else { seq };
        }
        if seq <= own.stream.trim {
            return;
        }
        self.trim_to(end, seq);
        self.check_eof(end);
    }

    fn trim_to(&mut self, end: End, seq: u64) {
        if seq > self.tcp.ends.of(end).stream.delivered {
            self.undelivered(end, seq);
        }
        let stream = &mut self.tcp.ends.of_mut(end).stream;
        stream.trim = stream.trim.max(seq);
        if stream.list != NONE {
            self.deliver_joined(end);
        }
    }

    /// Acknowledged, not seen: Zeek's `TCP_Reassembler::Undelivered`.
    fn undelivered(&mut self, end: End, up_to: u64) {
        if up_to <= 2 && self.tcp.is_partial {
            // The numbers were made up; a keep-alive that began the connection looks like this.
            return;
        }
        if !self.tcp.ends.of(end).skip_deliveries {
            while let Some((start, _)) = self.holes.first(self.tcp.ends.of(end).stream.list)
                && start < up_to
            {
                let delivered = self.tcp.ends.of(end).stream.delivered;
                if start > delivered {
                    self.gap(end, start - delivered);
                    self.end(end).stream.delivered = start;
                }
                self.deliver_joined(end);
            }
            let delivered = self.tcp.ends.of(end).stream.delivered;
            if up_to > delivered {
                self.gap(end, up_to - delivered);
            }
        }
        let stream = &mut self.end(end).stream;
        stream.delivered = stream.delivered.max(up_to);
    }

    /// A content gap; only believed where both sides are established or closing in order.
    fn gap(&mut self, end: End, bytes: u64) {
        let clean = |end: &super::Endpoint| {
            end.state == State::Established
                || (end.state == State::Closed && end.prev_state == State::Established)
        };
        if bytes == 0 || !clean(&self.tcp.ends.a) || !clean(&self.tcp.ends.b) {
            return;
        }
        self.trail.missed_bytes = self.trail.missed_bytes.saturating_add(bytes);
        if self.trail.repeats.of_mut(end).gaps.count() {
            self.trail.history.add(b'G', end, *self.orig);
        }
    }

    /// Zeek's `TCP_Reassembler::DataPending`: something before the end of the stream is still to come.
    pub(super) fn data_pending(&self, end: End) -> bool {
        let own = self.tcp.ends.of(end);
        if own.skip_deliveries {
            return false;
        }
        let delivered = u64::from(own.start_seq).wrapping_add(own.stream.delivered);
        let last = full(own.last_seq, own.seq_wraps);
        if last < delivered {
            return false;
        }
        if delivered != last && delivered.wrapping_add(1) != last {
            return true;
        }
        own.state != State::Reset && self.tcp.ends.of(end.other()).stream.has_blocks()
    }
}
