//! When a connection has closed, and when it is removed: Zeek's `ConnectionClosed` and its timers.
//!
//! Zeek sets timers; here [`Tcp::deadline`] says from the state when the next of them would remove the
//! connection. Must never ask a clock.

use super::{Conversation, State, Tcp, Timers};
use crate::config::Timeouts;
use crate::history::Trail;
use crate::input::{TcpHeader, flag};
use crate::pair::End;

impl Conversation<'_> {
    /// Zeek's `TCPSessionAdapter::ConnectionClosed`.
    pub(super) fn connection_closed(&mut self, end: End) {
        if self.data_pending(end) {
            self.tcp.close_deferred = true;
            return;
        }
        self.tcp.close_deferred = false;
        let (own, peer) = (*self.tcp.ends.of(end), *self.tcp.ends.of(end.other()));
        if own.did_close {
            return;
        }
        self.end(end).did_close = true;
        if own.state == State::Reset || peer.did_close || peer.state == State::Inactive {
            let delete_at = self.tcp.activity.saturating_add(self.times.tcp_close_delay);
            self.trail.timers = Timers { delete_at, ..Timers::default() };
            self.tcp.closing = true;
        } else if own.prev_state != State::Inactive {
            self.trail.timers.looks[1] = self.tcp.activity.saturating_add(self.times.tcp_session_timer);
        }
    }

    /// Zeek's `TCP_Reassembler::CheckEOF`.
    pub(super) fn check_eof(&mut self, end: End) {
        let own = self.tcp.ends.of(end);
        let ended = own.fin_seen || matches!(own.state, State::Closed | State::Reset);
        if own.did_eof || !ended || self.data_pending(end) {
            return;
        }
        self.end(end).did_eof = true;
        if self.tcp.close_deferred {
            self.connection_closed(end);
            self.tcp.close_deferred = false;
        }
    }
}

impl Tcp {
    /// When the connection is removed if nothing more comes, ns.
    #[inline]
    pub(crate) fn deadline(&self, orig: End, trail: &Trail, times: &Timeouts) -> u64 {
        let silence = if self.established_timeout { times.tcp_inactivity } else { times.udp_inactivity };
        let deadline = self.activity.saturating_add(silence);
        if self.ends.a.plain && self.ends.b.plain {
            return deadline;
        }
        self.early_deadline(deadline, orig, trail, times)
    }

    /// Timers that end a connection before it has been silent long enough. Apart from the common case, so
    /// that this does not read the cold part of the session.
    #[cold]
    #[inline(never)]
    fn early_deadline(&self, mut deadline: u64, orig: End, trail: &Trail, times: &Timeouts) -> u64 {
        if self.closing {
            deadline = deadline.min(trail.timers.delete_at);
        }
        let (os, rs) = (self.ends.of(orig).state, self.ends.of(orig.other()).state);
        let unanswered = matches!(os, State::SynSent | State::SynAckSent) && rs == State::Inactive;
        if unanswered && self.is_active && trail.timers.attempt_at != 0 {
            deadline = deadline.min(trail.timers.attempt_at);
        }
        deadline.min(self.next_look(trail, times))
    }

    /// Zeek's `ExpireTimer`: the first look that finds a half closed connection silent.
    fn next_look(&self, trail: &Trail, times: &Timeouts) -> u64 {
        let (a, b) = (&self.ends.a, &self.ends.b);
        let any = |state| a.state == state || b.state == state;
        let half = (a.did_close || b.did_close)
            && ((a.did_close && b.did_close) || any(State::Reset) || any(State::Inactive));
        if !half || !self.is_active {
            return u64::MAX;
        }
        let silent = self.activity.saturating_add(times.tcp_connection_linger);
        let step = times.tcp_session_timer.max(1);
        let looks = trail.timers.looks.iter().filter(|first| **first != 0);
        looks
            .map(|first| match silent.checked_sub(*first) {
                None => *first,
                Some(late) => first.saturating_add((late / step + 1).saturating_mul(step)),
            })
            .min()
            .unwrap_or(u64::MAX)
    }

    /// Zeek's `IsReuse`: a SYN that begins another connection between the same ports.
    pub(crate) fn is_reuse(&self, orig: End, header: &TcpHeader) -> bool {
        if header.flags & flag::SYN == 0 {
            return false;
        }
        let (own, resp) = (self.ends.of(orig), self.ends.of(orig.other()));
        let syn_ack = header.flags & flag::ACK != 0;
        if syn_ack && own.state != State::Inactive {
            return false;
        }
        if own.did_close || resp.did_close {
            return true;
        }
        let beginner = if syn_ack { resp } else { own };
        let reversed = !syn_ack
            && own.state == State::SynAckSent
            && resp.state == State::Inactive
            && header.seq == resp.start_seq;
        header.seq != beginner.start_seq && !reversed
    }
}
