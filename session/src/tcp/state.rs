//! The states of the two sides: Zeek's `UpdateStateMachine`.
//!
//! Decides from flags and states alone. Each function says whether the sender's side has now closed.

use super::{Conversation, Segment, State};
use crate::input::flag;

impl Conversation<'_> {
    pub(super) fn update_state(&mut self, s: &Segment) -> bool {
        match self.state(s.from) {
            State::Inactive => self.in_inactive(s),
            State::SynSent | State::SynAckSent => self.in_syn_sent(s),
            State::Established | State::Partial => self.in_established(s),
            State::Closed => self.in_closed(s),
            State::Reset => false,
        }
    }

    pub(super) fn set_state(&mut self, end: crate::pair::End, state: State) {
        let handshake = |state| matches!(state, State::Inactive | State::SynSent | State::SynAckSent);
        let (old, peer) = (self.state(end), self.state(end.other()));
        if old != state && !handshake(state) && handshake(old) && handshake(peer) {
            self.tcp.established_timeout = true;
        }
        self.end(end).set_state(state);
    }

    fn in_inactive(&mut self, s: &Segment) -> bool {
        let mut close = false;
        if s.has(flag::SYN) {
            if s.from == *self.orig {
                let state = if s.has(flag::ACK) { State::SynAckSent } else { State::SynSent };
                self.set_state(s.from, state);
                self.trail.timers.attempt_at = s.ts.saturating_add(self.times.tcp_attempt_delay);
            } else {
                self.syn_of_responder(s);
            }
        }
        if s.has(flag::FIN) {
            self.set_state(s.from, State::Closed);
            close = true;
        }
        if s.has(flag::RST) {
            self.set_state(s.from, State::Reset);
            close = true;
        }
        if self.state(s.from) == State::Inactive {
            self.no_flags(s);
        }
        close
    }

    fn syn_of_responder(&mut self, s: &Segment) {
        let (own, peer) = (s.from, s.from.other());
        let reversed = self.state(peer) == State::SynAckSent
            && s.header.seq == self.tcp.ends.of(own).start_seq
            && !s.has(flag::ACK)
            && !self.trail.roles_fixed;
        if reversed {
            // SYN and SYN-ACK came in the wrong order.
            self.tcp.is_partial = false;
            *self.orig = own;
            self.trail.history.flip();
            self.set_state(peer, State::Established);
        }
        if self.state(peer) == State::SynSent {
            self.set_state(peer, State::Established);
        }
        self.set_state(own, State::Established);
    }

    /// No flag changes the state: midstream, or the first word of a side whose SYN was missed.
    fn no_flags(&mut self, s: &Segment) {
        let peer = self.state(s.from.other());
        let orig = self.state(*self.orig);
        if s.from != *self.orig && s.len == 0 && orig == State::SynSent {
            // Some answer a SYN with an ACK before their SYN.
        } else if s.has(flag::ACK) && peer == State::Established {
            self.set_state(s.from, State::Established);
            self.tcp.is_partial = false;
        } else {
            self.set_state(s.from, State::Partial);
        }
    }

    fn in_syn_sent(&mut self, s: &Segment) -> bool {
        if s.has(flag::FIN) {
            self.set_state(s.from, State::Closed);
        }
        if s.has(flag::RST) {
            self.set_state(s.from, State::Reset);
            self.tcp.is_active = false;
        }
        s.has(flag::FIN) || s.has(flag::RST)
    }

    fn in_established(&mut self, s: &Segment) -> bool {
        let peer = s.from.other();
        let alone = self.state(s.from) == State::Partial && self.state(peer) == State::Inactive;
        if s.has(flag::SYN) && alone && !s.has(flag::ACK) {
            self.set_state(s.from, State::SynSent);
        }
        if s.has(flag::FIN) && !s.has(flag::RST) {
            self.set_state(s.from, State::Closed);
            let other = self.end(peer);
            if other.state == State::Reset && other.prev_state == State::Closed {
                // FIN, then RST: that was an ordinary end.
                self.set_state(peer, State::Closed);
            }
            return true;
        }
        if s.has(flag::RST) {
            self.set_state(s.from, State::Reset);
            let other = self.end(peer);
            if other.state != State::Reset || other.prev_state != State::Established {
                self.tcp.is_active = false;
            }
            return true;
        }
        false
    }

    fn in_closed(&mut self, s: &Segment) -> bool {
        if s.has(flag::RST) && self.state(s.from.other()) != State::Closed {
            self.set_state(s.from, State::Reset);
            return !self.tcp.ends.of(s.from).did_close;
        }
        false
    }
}
