//! The ordinary segment of an established connection: next in order, acknowledging nothing unseen.
//!
//! Nine in ten segments are that, and for them only a handful of numbers move. What is done here is exactly what
//! the long way would do; whatever is not certain goes the long way. A property test holds the two together.

use super::stream::MAX_UNACKED;
use super::{Endpoint, Segment, State, Tcp, full, seq_delta};
use crate::history::seen;
use crate::input::flag;

impl Endpoint {
    /// Established, and nothing has happened that needs the long way.
    fn is_plain(&self) -> bool {
        self.state == State::Established
            && !(self.did_close || self.fin_seen || self.skip_deliveries)
            && !self.stream.has_holes()
    }

    /// What it sends next is the next of its stream: all it sent has been seen in order, some of it is
    /// acknowledged. An ordinary segment leaves that so.
    fn is_in_order(&self) -> bool {
        let last = self.plain_relative(self.last_seq, self.last_seq, self.seq_wraps);
        last.is_some_and(|last| last > 0 && last == self.stream.delivered)
            && self.stream.top <= self.stream.delivered
            && !self.no_data_acked()
    }

    /// `seq`, not before `from` and not over the end of the numbers, counted from the side's first.
    #[inline]
    fn plain_relative(&self, seq: u32, from: u32, wraps: u16) -> Option<u64> {
        let ahead = seq_delta(seq, from) >= 0 && seq >= from;
        let counted = wraps > 0 || seq_delta(seq, self.start_seq) >= 0;
        (ahead && counted).then(|| full(seq, wraps).wrapping_sub(u64::from(self.start_seq)))
    }
}

impl Tcp {
    /// After the long way: says which segments may go the short one.
    pub(super) fn settle(&mut self) {
        let calm = !(self.timing || self.close_deferred);
        let met = self.first_packet_seen;
        for (end, met) in [(&mut self.ends.a, met.a), (&mut self.ends.b, met.b)] {
            end.plain = calm && end.is_plain();
            end.smooth = end.plain && met && end.is_in_order();
        }
    }

    /// Takes `s` if it is ordinary: where its data begins in its stream. `seen`: what its side has shown
    /// (`history::seen`).
    #[inline]
    pub(crate) fn ordinary(&mut self, s: &Segment, shown: u8) -> Option<u64> {
        const CONTROL: u8 = flag::SYN | flag::FIN | flag::RST | flag::ACK;
        const UNWRAPPED: u64 = 1 << 31;
        let kind = if s.len > 0 { seen::DATA } else { seen::ACK };
        if s.header.flags & CONTROL != flag::ACK || s.header.zero_window || shown & kind == 0 {
            return None;
        }
        let (own, peer) = self.ends.both_mut(s.from);
        if !(own.smooth && peer.plain && s.header.seq == own.last_seq) {
            return None;
        }
        let (past, rel_seq) = (s.header.seq.checked_add(s.len)?, own.stream.delivered);
        let rel_ack = peer.plain_relative(s.header.ack, peer.ack_seq, peer.ack_wraps)?;
        let upper = rel_seq.wrapping_add(u64::from(s.len));
        if (s.len > 0 && upper.saturating_sub(own.stream.trim) > MAX_UNACKED)
            || rel_ack > peer.stream.delivered
        {
            return None;
        }
        // Something of what the peer sent may be acknowledged for the first time.
        let news = !peer.smooth && peer.ack_seq != s.header.ack;
        peer.ack_seq = s.header.ack;
        peer.stream.trim = peer.stream.trim.max(rel_ack);
        if s.len > 0 {
            own.last_seq = past;
            (own.stream.delivered, own.stream.top) = (upper, upper);
            own.smooth = upper < UNWRAPPED || own.seq_wraps > 0;
        }
        self.activity = self.activity.max(s.ts);
        if news {
            self.settle();
        }
        Some(rel_seq - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::super::Conversation;
    use super::super::stream::Holes;
    use super::*;
    use crate::config::Timeouts;
    use crate::history::Trail;
    use crate::input::TcpHeader;
    use crate::pair::{End, Pair};
    use proptest::prelude::*;

    /// A connection with all it owns.
    struct Whole {
        orig: End,
        seen: Pair<u8>,
        tcp: Tcp,
        trail: Trail,
        holes: Holes,
    }

    impl Whole {
        fn new() -> Self {
            let (tcp, holes) = (Tcp::new(0), Holes::new(2));
            Self { orig: End::A, seen: Pair::default(), tcp, trail: Trail::default(), holes }
        }

        fn conversation<'c>(&'c mut self, times: &'c Timeouts) -> Conversation<'c> {
            Conversation {
                orig: &mut self.orig,
                seen: &mut self.seen,
                tcp: &mut self.tcp,
                trail: &mut self.trail,
                holes: &mut self.holes,
                times,
            }
        }

        fn take(&mut self, s: &Segment, long_way: bool) -> Option<u64> {
            let times = Timeouts::default();
            let shown = *self.seen.of(s.from);
            let short = if long_way { None } else { self.tcp.ordinary(s, shown) };
            short.or_else(|| self.conversation(&times).segment(s))
        }

        fn state(&self) -> String {
            format!("{:?} {:?} {:?} {:?}", self.orig, self.seen, self.tcp, self.trail)
        }
    }

    /// Mostly what would come next, sometimes anything.
    fn segment() -> impl Strategy<Value = (bool, u8, i64, i64, u32, bool)> {
        let near = prop_oneof![8 => Just(0_i64), 1 => -40_i64..40, 1 => any::<i32>().prop_map(i64::from)];
        let flags = prop_oneof![12 => Just(0x10_u8), 4 => Just(0x18), 1 => any::<u8>()];
        let len = prop_oneof![3 => Just(0_u32), 4 => 1_u32..2_000, 1 => 0_u32..9_000_000];
        (any::<bool>(), flags, near.clone(), near, len, prop::bool::weighted(0.03))
    }

    #[test]
    fn ordinary_segments_go_the_short_way() {
        let mut whole = Whole::new();
        let ordinary = [
            (End::A, 2, 99, 0, 0),
            (End::B, 0x12, 499, 100, 0),
            (End::A, 0x10, 100, 500, 0),
            (End::A, 0x18, 100, 500, 10),
            (End::B, 0x10, 500, 110, 20),
            (End::B, 0x10, 520, 110, 0),
            // From here on both sides have shown data and ACKs, and had some acknowledged.
            (End::A, 0x10, 110, 520, 0),
            (End::A, 0x18, 110, 520, 30),
            (End::B, 0x10, 520, 140, 0),
            (End::B, 0x10, 520, 140, 1_000),
        ];
        let times = Timeouts::default();
        let mut short = Vec::new();
        for (ts, (from, flags, seq, ack, len)) in (0..).zip(ordinary) {
            let header = TcpHeader { seq, ack, flags, zero_window: false };
            let s = Segment { ts, from, header, len };
            let shown = *whole.seen.of(from);
            let taken = whole.tcp.ordinary(&s, shown);
            short.push(taken.is_some());
            if taken.is_none() {
                whole.conversation(&times).segment(&s);
            }
        }
        assert_eq!(short, [false, false, false, false, false, false, true, true, true, true]);
    }

    /// Streams of more than 2 GiB, whose numbers go round, and what is not a segment in between.
    #[test]
    fn the_short_way_is_the_long_way_far_into_a_stream() {
        const LEN: u32 = 9_000_000;
        for first in [0_u32, 1 << 31, u32::MAX - 5] {
            let (mut short, mut long) = (Whole::new(), Whole::new());
            let times = Timeouts::default();
            let (mut next, mut ways, mut ts) = (Pair { a: first, b: 7_u32 }, 0, 0);
            let mut step = |short: &mut Whole, long: &mut Whole, from, flags, seq, ack, len| {
                ts += 1;
                let header = TcpHeader { seq, ack, flags, zero_window: false };
                let s = Segment { ts, from, header, len };
                let before = short.tcp.ordinary(&s, *short.seen.of(from));
                ways += u32::from(before.is_some());
                let taken = before.or_else(|| short.conversation(&times).segment(&s));
                assert_eq!(taken, long.take(&s, true), "{first}: segment {ts}");
                assert_eq!(short.state(), long.state(), "{first}: segment {ts}");
            };
            step(&mut short, &mut long, End::A, 2, next.a, 0, 0);
            step(&mut short, &mut long, End::B, 0x12, next.b, next.a.wrapping_add(1), 0);
            (next.a, next.b) = (next.a.wrapping_add(1), next.b + 1);
            for round in 0..1_000_u32 {
                if round % 100 == 99 {
                    // The rest of a segment in fragments, and what the last packet of a run acknowledges.
                    for whole in [&mut short, &mut long] {
                        let mut conversation = whole.conversation(&times);
                        conversation.more_data(End::A, u64::from(round), next.a, 500);
                        conversation.ack_only(End::B, u64::from(round), next.a.wrapping_add(500));
                    }
                    next.a = next.a.wrapping_add(500);
                }
                step(&mut short, &mut long, End::A, 0x10, next.a, next.b, LEN);
                next.a = next.a.wrapping_add(LEN);
                step(&mut short, &mut long, End::B, 0x10, next.b, next.a, 20);
                next.b += 20;
            }
            assert!(ways > 400, "{first}: {ways} of 2,002 went the short way");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn the_short_way_is_the_long_way(
            first in any::<u32>(),
            second in any::<u32>(),
            segments in proptest::collection::vec(segment(), 1..60),
        ) {
            let (mut short, mut long) = (Whole::new(), Whole::new());
            let mut next = Pair { a: first, b: second };
            let syn = [(End::A, 2, first, 0), (End::B, 0x12, second, first.wrapping_add(1))];
            let syn = syn.into_iter().map(|(from, flags, seq, ack)| (from, flags, seq, ack, 0, false));
            let mut all: Vec<_> = syn.collect();
            (next.a, next.b) = (first.wrapping_add(1), second.wrapping_add(1));
            all.push((End::A, 0x10, next.a, next.b, 0, false));
            for (from_a, flags, seq_off, ack_off, len, zero_window) in segments {
                let from = if from_a { End::A } else { End::B };
                let off = |base: u32, by: i64| base.wrapping_add_signed(i32::try_from(by).unwrap());
                let (seq, ack) = (off(*next.of(from), seq_off), off(*next.of(from.other()), ack_off));
                all.push((from, flags, seq, ack, len, zero_window));
                if seq_off == 0 {
                    *next.of_mut(from) = seq.wrapping_add(len);
                }
            }
            for (ts, (from, flags, seq, ack, len, zero_window)) in (0..).zip(all) {
                let header = TcpHeader { seq, ack, flags, zero_window };
                let s = Segment { ts, from, header, len };
                prop_assert_eq!(short.take(&s, false), long.take(&s, true));
                prop_assert_eq!(short.state(), long.state());
            }
        }
    }
}
