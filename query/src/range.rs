//! Half-open ranges of time: what was asked, what was covered, what is missing.

use tapedeck_packet::Timestamp;

/// Times from `from` (inclusive) to `to` (exclusive); without `to` there is no end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TimeRange {
    /// First time inside.
    pub from: Timestamp,
    /// First time behind the end; `None` = no end, so that [`Timestamp::MAX`] can be inside.
    pub to: Option<Timestamp>,
}

impl TimeRange {
    /// All of time.
    pub const ALL: Self = Self { from: Timestamp::ZERO, to: None };

    /// Is `ts` inside?
    #[must_use]
    pub fn contains(&self, ts: Timestamp) -> bool {
        ts >= self.from && self.to.is_none_or(|to| ts < to)
    }

    /// Can something between `min` and `max`, both inclusive, be inside?
    #[must_use]
    pub fn overlaps(&self, min: Timestamp, max: Timestamp) -> bool {
        max >= self.from && self.to.is_none_or(|to| min < to)
    }

    /// Is all of `min` to `max`, both inclusive, inside?
    #[must_use]
    pub fn covers(&self, min: Timestamp, max: Timestamp) -> bool {
        self.contains(min) && self.contains(max)
    }
}

/// A closed-open span with both ends known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    /// First time inside.
    pub from: Timestamp,
    /// First time behind.
    pub to: Timestamp,
}

impl Span {
    /// The span of packets whose times lie between `min` and `max`, both inclusive.
    #[must_use]
    pub fn of_packets(min: Timestamp, max: Timestamp) -> Self {
        Self { from: min, to: max.saturating_add(1) }
    }

    /// The part inside `range`; `None` when nothing is left.
    #[must_use]
    pub fn within(self, range: &TimeRange) -> Option<Self> {
        let from = self.from.max(range.from);
        let to = range.to.map_or(self.to, |to| self.to.min(to));
        (from < to).then_some(Self { from, to })
    }
}

/// The union of spans, sorted, without overlaps; touching spans become one.
#[must_use]
pub fn union(mut spans: Vec<Span>) -> Vec<Span> {
    spans.sort_unstable();
    let mut out: Vec<Span> = Vec::new();
    for span in spans {
        match out.last_mut() {
            Some(last) if span.from <= last.to => last.to = last.to.max(span.to),
            _ => out.push(span),
        }
    }
    out
}

/// `spans` (sorted, disjoint) without `holes`.
#[must_use]
pub fn subtract(spans: &[Span], holes: &[Span]) -> Vec<Span> {
    let holes = union(holes.to_vec());
    let mut out = Vec::new();
    for span in spans {
        let mut from = span.from;
        for hole in holes.iter().filter(|h| h.to > span.from && h.from < span.to) {
            if hole.from > from {
                out.push(Span { from, to: hole.from });
            }
            from = from.max(hole.to);
        }
        if from < span.to {
            out.push(Span { from, to: span.to });
        }
    }
    out
}

#[cfg(test)]
mod tests {
    //! Ranges against the plainest oracle: a set of nanoseconds.

    use super::*;
    use proptest::prelude::*;

    fn ts(nanos: u64) -> Timestamp {
        Timestamp::from_nanos_saturating(nanos)
    }

    fn members(spans: &[Span]) -> Vec<u64> {
        (0..70).filter(|n| spans.iter().any(|s| s.from <= ts(*n) && ts(*n) < s.to)).collect()
    }

    fn some_spans() -> impl Strategy<Value = Vec<Span>> {
        prop::collection::vec((0u64..60, 1u64..9), 0..8).prop_map(|v| {
            v.into_iter().map(|(from, len)| Span { from: ts(from), to: ts(from + len) }).collect()
        })
    }

    #[test]
    fn the_last_nanosecond_of_time_is_reachable() {
        assert!(TimeRange::ALL.contains(Timestamp::MAX));
        assert!(!TimeRange { from: ts(0), to: Some(Timestamp::MAX) }.contains(Timestamp::MAX));
    }

    #[test]
    fn overlap_is_inclusive_at_from_and_exclusive_at_to() {
        let range = TimeRange { from: ts(10), to: Some(ts(20)) };
        assert!(range.overlaps(ts(0), ts(10)));
        assert!(!range.overlaps(ts(0), ts(9)));
        assert!(range.overlaps(ts(19), ts(30)));
        assert!(!range.overlaps(ts(20), ts(30)));
    }

    proptest! {
        #[test]
        fn union_and_subtract_are_those_of_sets(a in some_spans(), b in some_spans()) {
            let union_a = union(a.clone());
            prop_assert_eq!(members(&union_a), members(&a));
            prop_assert!(union_a.windows(2).all(|w| w[0].to < w[1].from));
            let left = subtract(&union_a, &b);
            let holes = members(&b);
            let want: Vec<u64> = members(&a).into_iter().filter(|n| !holes.contains(n)).collect();
            prop_assert_eq!(members(&left), want);
        }
    }
}
