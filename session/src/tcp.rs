//! TCP as Zeek follows it: sequence numbers, states, history, gaps, close.
//!
//! A port of what decides a conn.log entry in Zeek's `src/packet_analysis/protocol/tcp/TCPSessionAdapter.cc`,
//! `src/analyzer/protocol/tcp/{TCP_Endpoint,TCP_Reassembler}.cc` and `src/Reassem.cc`; names are kept so that
//! the two can be read side by side. A segment goes through [`Conversation::segment`] in Zeek's order: history,
//! acknowledgement, last sequence number, state (`state`), stream (`stream`), close (`close`). No payload is
//! kept: of a stream with holes only the ranges that are there.

use crate::config::Timeouts;
use crate::history::{Trail, seen};
use crate::input::{TcpHeader, flag};
use crate::pair::{End, Pair};
use crate::record::ConnState;

mod close;
mod ordinary;
mod state;
pub(crate) mod stream;

use stream::Holes;

const _: () = assert!(size_of::<Tcp>() == 128, "two cache lines");

/// A sequence number further away than this is not believed in SYN and RST.
const TOO_LARGE_SEQ_DELTA: i32 = 1_048_576;

/// State of one side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum State {
    /// Nothing seen.
    #[default]
    Inactive,
    /// SYN seen, no answer.
    SynSent,
    /// SYN-ACK seen without its SYN.
    SynAckSent,
    /// Data seen, no SYN.
    Partial,
    /// Handshake done.
    Established,
    /// FIN seen.
    Closed,
    /// RST seen.
    Reset,
}

/// One side.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Endpoint {
    pub(crate) start_seq: u32,
    pub(crate) last_seq: u32,
    pub(crate) ack_seq: u32,
    seq_wraps: u16,
    ack_wraps: u16,
    pub(crate) state: State,
    pub(crate) prev_state: State,
    pub(crate) did_close: bool,
    fin_seen: bool,
    did_eof: bool,
    /// Too much is missing: the stream is not followed any more.
    skip_deliveries: bool,
    /// Only ordinary things have happened to it, and to the connection.
    plain: bool,
    /// Besides, what it sends next goes on where its stream has come.
    smooth: bool,
    pub(crate) stream: stream::Stream,
}

/// Times that seldom count, ns; 0: none. They stand with the cold part of a session.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Timers {
    /// When the session is removed, whatever happens.
    delete_at: u64,
    /// When an unanswered SYN is given up.
    attempt_at: u64,
    /// Beginnings of the regular looks for half closed connections.
    looks: [u64; 2],
}

impl Timers {
    /// Those of a connection whose first packet comes at `ts`.
    pub(crate) fn new(ts: u64, times: &Timeouts) -> Self {
        Self { looks: [ts.saturating_add(times.tcp_syn_timeout), 0], ..Self::default() }
    }
}

/// Both sides, in two cache lines.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
pub(crate) struct Tcp {
    pub(crate) ends: Pair<Endpoint>,
    /// Zeek's `last_time`: of the last packet before both sides had closed, ns.
    pub(crate) activity: u64,
    /// `Timers::delete_at` is set.
    closing: bool,
    /// Nothing has ended it yet.
    is_active: bool,
    is_partial: bool,
    established_timeout: bool,
    close_deferred: bool,
    /// A SYN has been seen, its round trip not yet.
    timing: bool,
    first_packet_seen: Pair<bool>,
}

/// A segment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Segment {
    pub(crate) ts: u64,
    pub(crate) from: End,
    pub(crate) header: TcpHeader,
    /// Payload bytes.
    pub(crate) len: u32,
}

impl Segment {
    const fn has(&self, flag: u8) -> bool {
        self.header.flags & flag != 0
    }

    /// What it takes of the sequence space. The data of a RST is not part of the stream.
    fn seq_len(&self) -> u32 {
        let data = if self.has(flag::RST) { 0 } else { self.len };
        data.wrapping_add(u32::from(self.has(flag::SYN))).wrapping_add(u32::from(self.has(flag::FIN)))
    }
}

/// A connection under a segment, in its parts.
pub(crate) struct Conversation<'a> {
    pub(crate) orig: &'a mut End,
    /// What each side has shown (`history::seen`).
    pub(crate) seen: &'a mut Pair<u8>,
    pub(crate) tcp: &'a mut Tcp,
    pub(crate) trail: &'a mut Trail,
    pub(crate) holes: &'a mut Holes,
    pub(crate) times: &'a Timeouts,
}

fn seq_delta(a: u32, b: u32) -> i32 {
    a.wrapping_sub(b).cast_signed()
}

fn full(seq: u32, wraps: u16) -> u64 {
    u64::from(wraps) << 32 | u64::from(seq)
}

impl Endpoint {
    /// Payload bytes by the sequence numbers: Zeek's `size`.
    fn size(&self, peer: &Self) -> u64 {
        let aborted = self.prev_state == State::SynSent && self.state == State::Reset;
        if aborted && peer.state == State::Inactive && !self.no_data_acked() {
            return 0;
        }
        let last = full(self.last_seq, self.seq_wraps).max(full(self.ack_seq, self.ack_wraps));
        // A SYN, real or supposed, and a FIN take one number each.
        let size = last.saturating_sub(u64::from(self.start_seq)).saturating_sub(1);
        size.saturating_sub(u64::from(self.fin_seen))
    }

    /// At most the SYN has been acknowledged.
    fn no_data_acked(&self) -> bool {
        let (ack, start) = (full(self.ack_seq, self.ack_wraps), u64::from(self.start_seq));
        ack == start || ack == start + 1
    }

    fn init(&mut self, start: u32, last: u32) {
        (self.start_seq, self.ack_seq, self.last_seq) = (start, start, last);
    }

    fn update_last_seq(&mut self, seq: u32) {
        self.seq_wraps = self.seq_wraps.saturating_add(u16::from(seq < self.last_seq));
        self.last_seq = seq;
    }

    fn update_ack_seq(&mut self, seq: u32) {
        let delta = seq_delta(seq, self.ack_seq);
        // An acknowledgement of 0 is more often broken than right.
        if delta > 0 && !(seq == 0 && delta > TOO_LARGE_SEQ_DELTA) {
            self.ack_wraps = self.ack_wraps.saturating_add(u16::from(seq < self.ack_seq));
            self.ack_seq = seq;
        }
    }

    /// `seq` counted from the side's first; `None` if it lies before that. Zeek's `get_relative_seq`.
    fn relative(&self, seq: u32, last: u32, mut wraps: u16) -> (u64, bool) {
        let delta = seq_delta(seq, last);
        if delta < 0 && wraps > 0 && seq > last {
            wraps -= 1;
        } else if delta > 0 && seq < last {
            wraps = wraps.saturating_add(1);
        }
        if wraps == 0 {
            let delta = seq_delta(seq, self.start_seq);
            return (i64::from(delta).cast_unsigned(), delta < 0);
        }
        (full(seq, wraps).wrapping_sub(u64::from(self.start_seq)), false)
    }

    pub(crate) fn set_state(&mut self, state: State) {
        if self.state != state {
            self.prev_state = self.state;
            self.state = state;
        }
    }
}

impl Tcp {
    /// A connection whose first packet comes at `ts`.
    pub(crate) fn new(ts: u64) -> Self {
        Self { activity: ts, is_active: true, ..Self::default() }
    }

    /// In a session of another protocol: the payload bytes of side `end` since its last record.
    pub(crate) const fn other_payload(&mut self, end: End) -> &mut u64 {
        &mut self.ends.of_mut(end).stream.delivered
    }

    /// Reads from both cache lines.
    #[inline]
    pub(crate) fn touch(&self) -> u64 {
        self.ends.a.stream.delivered
            ^ u64::from(self.ends.a.start_seq)
            ^ self.activity
            ^ self.ends.b.stream.delivered
    }

    /// Payload bytes of side `end`, by its sequence numbers.
    pub(crate) fn size(&self, end: End) -> u64 {
        self.ends.of(end).size(self.ends.of(end.other()))
    }

    /// Zeek's `conn_state` (`scripts/base/protocols/conn/main.zeek`).
    pub(crate) fn conn_state(&self, orig: End, history: &str) -> ConnState {
        let (os, rs) = (self.ends.of(orig).state, self.ends.of(orig.other()).state);
        let inactive = |state| matches!(state, State::Inactive | State::Partial);
        match (os, rs) {
            (State::SynSent | State::SynAckSent, State::Reset) => ConnState::Rej,
            (State::Reset, State::Reset) if self.size(End::A) == 0 && self.size(End::B) == 0 => {
                ConnState::Rej
            }
            (os, State::Reset) if inactive(os) => ConnState::Rstrh,
            (_, State::Reset) => ConnState::Rstr,
            (State::Reset, rs) if !inactive(rs) => ConnState::Rsto,
            (State::Reset, _) if syn_then_reset(history) => ConnState::Rstos0,
            (State::Reset, _) => ConnState::Oth,
            (State::Closed, State::Closed) => ConnState::Sf,
            (State::Closed, rs) if inactive(rs) => ConnState::Sh,
            (State::Closed, _) => ConnState::S2,
            (os, State::Closed) if inactive(os) => ConnState::Shr,
            (_, State::Closed) => ConnState::S3,
            (State::SynSent, State::Inactive) => ConnState::S0,
            (State::Established, State::Established) => ConnState::S1,
            _ => ConnState::Oth,
        }
    }

    /// Its end has been seen: FIN on both sides, or a RST.
    pub(crate) fn has_ended(&self) -> bool {
        let (a, b) = (self.ends.a.state, self.ends.b.state);
        a == State::Reset || b == State::Reset || (a == State::Closed && b == State::Closed)
    }
}

/// Zeek's `/\^?S[^HAFGIQ]*R.*/`.
fn syn_then_reset(history: &str) -> bool {
    let history = history.strip_prefix('^').unwrap_or(history);
    let Some(rest) = history.strip_prefix('S') else { return false };
    let upper = rest.find(['H', 'A', 'F', 'G', 'I', 'Q']).unwrap_or(rest.len());
    rest.get(..upper).is_some_and(|before| before.contains('R'))
}

impl Conversation<'_> {
    fn end(&mut self, end: End) -> &mut Endpoint {
        self.tcp.ends.of_mut(end)
    }

    fn state(&self, end: End) -> State {
        self.tcp.ends.of(end).state
    }

    /// Takes a segment that is not [ordinary](Tcp::ordinary). Returns where its data begins in its stream (0:
    /// the first byte), unless that cannot be said.
    pub(crate) fn segment(&mut self, s: &Segment) -> Option<u64> {
        let (from, to) = (s.from, s.from.other());
        self.flip_syn_ack(s);
        self.set_partial(s);
        let past = s.header.seq.wrapping_add(s.seq_len());
        self.init_endpoint(s, past);
        let own = self.tcp.ends.of(from);
        let (rel_seq, underflow) = own.relative(s.header.seq, own.last_seq, own.seq_wraps);
        self.update_history(s, rel_seq);
        self.update_window(s);
        if !(self.tcp.ends.a.did_close && self.tcp.ends.b.did_close) {
            self.tcp.activity = self.tcp.activity.max(s.ts);
        }
        if s.has(flag::FIN) {
            let fin_seq = rel_seq.wrapping_add(u64::from(s.seq_len()));
            self.end(from).fin_seen = true;
            self.trail.repeats.of_mut(from).fin_seq = fin_seq;
        }
        let rel_ack = self.take_ack(s);
        self.time_handshake(s, rel_ack);
        self.update_last_seq(s, past);
        let close = self.update_state(s);
        if let Some(rel_ack) = rel_ack {
            self.ack_received(to, rel_ack);
        }
        *self.tcp.first_packet_seen.of_mut(from) = true;
        let data_seq = rel_seq.wrapping_add(u64::from(s.has(flag::SYN)));
        if s.len > 0 && !s.has(flag::RST) && !underflow {
            self.data_sent(from, data_seq, s.len);
        }
        self.check_eof(from);
        if close {
            self.connection_closed(from);
        }
        self.tcp.settle();
        (!underflow && data_seq > 0).then(|| data_seq.wrapping_sub(1))
    }

    /// What the last packet of a run acknowledges.
    pub(crate) fn ack_only(&mut self, from: End, ts: u64, ack: u32) {
        let header = TcpHeader { ack, flags: flag::ACK, ..TcpHeader::default() };
        let segment = Segment { ts, from, header, len: 0 };
        if !(self.tcp.ends.a.did_close && self.tcp.ends.b.did_close) {
            self.tcp.activity = self.tcp.activity.max(ts);
        }
        if let Some(rel_ack) = self.take_ack(&segment) {
            self.ack_received(from.other(), rel_ack);
        }
        self.tcp.settle();
    }

    /// The rest of a segment that came in fragments: data alone.
    pub(crate) fn more_data(&mut self, from: End, ts: u64, seq: u32, len: u32) {
        self.tcp.activity = self.tcp.activity.max(ts);
        let own = self.tcp.ends.of(from);
        let (rel_seq, underflow) = own.relative(seq, own.last_seq, own.seq_wraps);
        let past = seq.wrapping_add(len);
        if seq_delta(past, own.last_seq) > 0 && own.state != State::Reset {
            self.end(from).update_last_seq(past);
        }
        if !underflow && len > 0 {
            self.data_sent(from, rel_seq, len);
        }
        self.tcp.settle();
    }

    /// A connection that begins with a SYN-ACK: when an ACK or data follows, that was no scan, and who sent
    /// it is the responder (Zeek since 5.1).
    fn flip_syn_ack(&mut self, s: &Segment) {
        let orig = *self.orig;
        let plain = !(s.has(flag::SYN) || s.has(flag::FIN) || s.has(flag::RST));
        let answered = self.state(orig) == State::SynAckSent && plain && (s.len > 0 || s.has(flag::ACK));
        if answered && !self.trail.roles_fixed {
            *self.orig = orig.other();
            self.trail.history.flip_all();
            self.tcp.is_partial = false;
            self.set_state(orig, State::Established);
        }
    }

    fn set_partial(&mut self, s: &Segment) {
        if *self.tcp.first_packet_seen.of(s.from) {
            return;
        }
        if s.from == *self.orig {
            self.tcp.is_partial = !s.has(flag::SYN) || s.has(flag::ACK);
        } else if !self.tcp.is_partial {
            self.tcp.is_partial = !s.has(flag::SYN);
        }
    }

    fn init_endpoint(&mut self, s: &Segment, past: u32) {
        let (seq, syn) = (s.header.seq, s.has(flag::SYN));
        let own = self.end(s.from);
        match own.state {
            // Without a SYN the numbers are set as if there had been one; the first packet repeats nothing.
            State::Inactive if !syn => own.init(seq.wrapping_sub(1), seq),
            State::Inactive => own.init(seq, past),
            State::SynSent | State::SynAckSent if syn && seq != own.start_seq => own.init(seq, past),
            // A guess: the connection had not been established, and this SYN will do it.
            State::Established | State::Partial if syn => own.init(seq, past),
            State::Reset if syn && own.prev_state == State::Inactive => own.init(seq, past),
            _ => {}
        }
    }

    /// Writes a letter unless it is there; says whether it was.
    fn check_history(&mut self, from: End, mask: u8, code: u8) -> bool {
        let seen = self.seen.of_mut(from);
        if *seen & mask != 0 {
            return true;
        }
        *seen |= mask;
        self.trail.history.add(code, from, *self.orig);
        false
    }

    fn update_history(&mut self, s: &Segment, rel_seq: u64) {
        let from = s.from;
        let (syn, fin, rst) = (s.has(flag::SYN), s.has(flag::FIN), s.has(flag::RST));
        match (syn, fin, rst) {
            (false, false, false) if s.len > 0 => {
                self.check_history(from, seen::DATA, b'D');
            }
            (false, false, false) => {
                if s.has(flag::ACK) {
                    self.check_history(from, seen::ACK, b'A');
                }
            }
            (true, false, false) => {
                let code = if s.has(flag::ACK) { b'H' } else { b'S' };
                let again = self.check_history(from, seen::SYN, code);
                let last = &mut self.trail.repeats.of_mut(from).last_syn;
                let changed = std::mem::replace(last, rel_seq) != rel_seq;
                self.add_if(again && changed, code, from);
            }
            (false, true, false) => {
                let again = self.check_history(from, seen::FIN, b'F');
                let seq = rel_seq.wrapping_add(u64::from(s.len));
                let last = &mut self.trail.repeats.of_mut(from).last_fin;
                let changed = std::mem::replace(last, seq) != seq;
                self.add_if(again && changed, b'F', from);
            }
            (false, false, true) => {
                let again = self.check_history(from, seen::RST, b'R');
                let last = &mut self.trail.repeats.of_mut(from).last_rst;
                let changed = std::mem::replace(last, rel_seq) != rel_seq;
                self.add_if(again && changed, b'R', from);
            }
            (_, true, true) => {
                self.check_history(from, seen::FIN_RST, b'I');
            }
            _ => {
                self.check_history(from, seen::MULTI_FLAG, b'Q');
            }
        }
    }

    fn add_if(&mut self, changed: bool, code: u8, from: End) {
        if changed {
            self.trail.history.add(code, from, *self.orig);
        }
    }

    /// A zero window is boring with or after a RST, and after the peer's FIN.
    fn update_window(&mut self, s: &Segment) {
        let boring = s.has(flag::RST)
            || self.state(s.from.other()) == State::Closed
            || self.state(s.from) == State::Reset;
        if s.header.zero_window && !boring && self.trail.repeats.of_mut(s.from).zero_windows.count() {
            self.trail.history.add(b'W', s.from, *self.orig);
        }
    }

    /// What the acknowledgement says of the peer; the number relative to the peer's first.
    fn take_ack(&mut self, s: &Segment) -> Option<u64> {
        if !s.has(flag::ACK) {
            return None;
        }
        let peer = self.end(s.from.other());
        if peer.state == State::Inactive {
            // As if there had been a SYN.
            let start = s.header.ack.wrapping_sub(1);
            peer.init(start, start);
            return Some(1);
        }
        let (rel_ack, underflow) = peer.relative(s.header.ack, peer.ack_seq, peer.ack_wraps);
        if underflow {
            return Some(0);
        }
        if !s.has(flag::RST) {
            peer.update_ack_seq(s.header.ack);
        }
        Some(rel_ack)
    }

    /// SYN to the acknowledgement of the SYN-ACK.
    fn time_handshake(&mut self, s: &Segment, rel_ack: Option<u64>) {
        if s.from != *self.orig {
            return;
        }
        if s.has(flag::SYN) && !s.has(flag::ACK) {
            self.tcp.timing = true;
            (self.trail.syn_ts, self.trail.syn_rtt_ns) = (s.ts, None);
        } else if self.tcp.timing && rel_ack == Some(1) && *self.seen.of(s.from.other()) & seen::SYN != 0 {
            self.tcp.timing = false;
            self.trail.syn_rtt_ns = s.ts.checked_sub(self.trail.syn_ts);
        }
    }

    fn update_last_seq(&mut self, s: &Segment, past: u32) {
        let own = self.end(s.from);
        let delta = seq_delta(past, own.last_seq);
        let far = !(-TOO_LARGE_SEQ_DELTA..=TOO_LARGE_SEQ_DELTA).contains(&delta);
        if (s.has(flag::SYN) || s.has(flag::RST)) && far {
            // Not believed.
        } else if s.has(flag::FIN) && own.last_seq == own.start_seq.wrapping_add(1) {
            // Over 2 GiB of which only SYN and FIN were seen.
            own.update_last_seq(past);
        } else if own.state == State::Reset {
            // Nor is anything after a RST.
        } else if delta > 0 {
            own.update_last_seq(past);
        } else if s.len > 0 {
            *self.trail.retransmissions.of_mut(s.from) += 1;
            if self.trail.repeats.of_mut(s.from).retransmissions.count() {
                self.trail.history.add(b'T', s.from, *self.orig);
            }
        }
    }
}
