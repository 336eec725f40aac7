//! Sums over a range: what each minute and each key came to.

use super::human::float;
use crate::range::Span;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tapedeck_index::table::stats::StatsRow;
use tapedeck_packet::Timestamp;
use tapedeck_session::stats::{Dimension, Hosts, NANOS_PER_MINUTE, SIZES};

/// What something came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    pub(super) packets: u64,
    pub(super) bytes: u64,
    pub(super) sessions: u64,
    pub(super) failed: u64,
    pub(super) resets: u64,
    pub(super) broadcast: u64,
    pub(super) multicast: u64,
    pub(super) fragments: u64,
    pub(super) non_ip: u64,
    pub(super) sessionless: u64,
    /// By how much the number that orders a top list may be too large.
    error: u64,
    /// What the lists that this key is in say of keys that are not in them.
    unlisted: u64,
}

impl Sum {
    fn add(&mut self, row: &StatsRow) {
        let [
            packets,
            bytes,
            sessions,
            _,
            resets,
            failed,
            broadcast,
            multicast,
            fragments,
            non_ip,
            sessionless,
            error,
            unlisted,
        ] = row.counts.map(Option::unwrap_or_default);
        self.packets += packets;
        self.bytes += bytes;
        self.sessions += sessions;
        self.failed += failed;
        self.resets += resets;
        self.broadcast += broadcast;
        self.multicast += multicast;
        self.fragments += fragments;
        self.non_ip += non_ip;
        self.sessionless += sessionless;
        self.error += error;
        self.unlisted += unlisted;
    }

    pub(super) fn merge(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.sessions += other.sessions;
        self.failed += other.failed;
        self.resets += other.resets;
    }
}

/// A line of a table. The number that orders it lies between two bounds; where it is exact they are equal.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Line {
    pub(super) key: String,
    pub(super) sum: Sum,
    pub(super) at_least: u64,
    pub(super) at_most: u64,
}

/// Sums over a range.
#[derive(Debug, Default)]
pub(super) struct Summary {
    protocol: Option<u8>,
    /// Interface and sensor.
    pub(super) interfaces: BTreeSet<(String, String)>,
    minutes: BTreeMap<Timestamp, Sum>,
    watched: BTreeSet<Timestamp>,
    pub(super) total: Sum,
    keys: HashMap<(Dimension, String), Sum>,
    /// Of each list: the greatest number that a key can have in the minutes in which it is not listed.
    unlisted: HashMap<(Dimension, Timestamp, String), u64>,
    sources: Hosts,
    destinations: Hosts,
}

impl Summary {
    /// Of one protocol, or of all.
    pub(super) fn new(protocol: Option<u8>) -> Self {
        Self { protocol, ..Self::default() }
    }

    pub(super) fn add(&mut self, row: &StatsRow) {
        let Some(dimension) = Dimension::parse(&row.dimension) else { return };
        if dimension == Dimension::Total {
            self.interfaces.insert((row.interface.clone(), row.sensor.clone()));
            self.watched.insert(row.ts);
            let [sources, destinations] = &row.sketches;
            let sketch = |bytes: &Option<Vec<u8>>| bytes.as_deref().and_then(Hosts::from_bytes);
            sketch(sources).iter().for_each(|hosts| self.sources.merge(hosts));
            sketch(destinations).iter().for_each(|hosts| self.destinations.merge(hosts));
        }
        let is_measure = match self.protocol {
            None => dimension == Dimension::Total,
            Some(number) => {
                dimension == Dimension::Protocol && row.key.as_deref() == Some(&number.to_string())
            }
        };
        if is_measure {
            self.minutes.entry(row.ts).or_default().add(row);
            self.total.add(row);
        }
        let (Some(key), true) = (&row.key, self.shows(dimension, row.key.as_deref())) else { return };
        self.keys.entry((dimension, key.clone())).or_default().add(row);
        let [.., unlisted] = row.counts;
        if let Some(unlisted) = unlisted {
            let list = (dimension, row.ts, format!("{} {}", row.interface, row.sensor));
            let most = self.unlisted.entry(list).or_default();
            *most = unlisted.max(*most);
        }
    }

    /// Is this part of the answer? What cannot be told apart by protocol is not, if one is asked for.
    fn shows(&self, dimension: Dimension, key: Option<&str>) -> bool {
        let suffix = match self.protocol {
            None => return true,
            Some(6) => "/tcp",
            Some(17) => "/udp",
            Some(132) => "/sctp",
            Some(_) => return false,
        };
        dimension == Dimension::ServerPort && key.is_some_and(|key| key.ends_with(suffix))
    }

    /// Minutes that were watched on at least one interface.
    pub(super) fn watched_minutes(&self) -> u64 {
        u64::try_from(self.watched.len()).unwrap_or(u64::MAX)
    }

    pub(super) fn minutes(&self) -> impl Iterator<Item = Timestamp> {
        self.watched.iter().copied()
    }

    /// First to last minute that was watched.
    pub(super) fn span(&self) -> Option<Span> {
        let (first, last) = (self.watched.first()?, self.watched.last()?);
        Some(Span { from: *first, to: last.saturating_add(NANOS_PER_MINUTE) })
    }

    /// Estimated sources and destinations, over the whole range.
    pub(super) fn hosts(&self) -> (f64, f64) {
        (self.sources.estimate(), self.destinations.estimate())
    }

    /// The greatest keys of a dimension, in the number that orders it, `n` of them, and how many there are.
    pub(super) fn lines(&self, dimension: Dimension, n: usize) -> (Vec<Line>, usize) {
        let unlisted: u64 =
            self.unlisted.iter().filter(|((of, _, _), _)| *of == dimension).map(|(_, most)| most).sum();
        let line = |(_, key): &(Dimension, String), sum: &Sum| {
            let number = measure(dimension, sum);
            let elsewhere = unlisted.saturating_sub(sum.unlisted);
            let (at_least, at_most) = (number.saturating_sub(sum.error), number + elsewhere);
            Line { key: key.clone(), sum: *sum, at_least, at_most }
        };
        let own = self.keys.iter().filter(|((of, _), _)| *of == dimension);
        let mut lines: Vec<Line> = own.map(|(key, sum)| line(key, sum)).collect();
        let all = lines.len();
        if dimension == Dimension::Size {
            // A histogram: whole, and in order of size.
            let place = |line: &Line| SIZES.iter().position(|(_, name)| *name == line.key);
            lines.sort_by_key(place);
            return (lines, all);
        }
        lines.sort_by(|a, b| b.at_least.cmp(&a.at_least).then_with(|| a.key.cmp(&b.key)));
        lines.truncate(n);
        (lines, all)
    }

    /// The range in pieces of `minutes`, from the first to the last minute that was watched; `None` for pieces
    /// that nobody watched, else the sum and the minutes watched.
    pub(super) fn bins(&self, minutes: u64) -> Vec<(Span, Option<(Sum, u64)>)> {
        let Some(span) = self.span() else { return Vec::new() };
        let width = minutes.max(1) * NANOS_PER_MINUTE;
        let mut from = Timestamp::from_nanos_saturating(span.from.nanos() / width * width);
        let mut bins = Vec::new();
        while from < span.to {
            let to = from.saturating_add(width);
            let watched = u64::try_from(self.watched.range(from..to).count()).unwrap_or_default();
            let mut sum = Sum::default();
            self.minutes.range(from..to).for_each(|(_, minute)| sum.merge(minute));
            bins.push((Span { from, to }, (watched > 0).then_some((sum, watched))));
            from = to;
        }
        bins
    }
}

/// The number that orders a dimension.
pub(super) fn measure(dimension: Dimension, sum: &Sum) -> u64 {
    match dimension {
        Dimension::TopOpener => sum.sessions,
        Dimension::TopFailing => sum.failed,
        Dimension::EtherType | Dimension::Size => sum.packets,
        _ => sum.bytes,
    }
}

/// Per second of the time that was watched.
pub(super) fn per_second(count: u64, watched_minutes: u64) -> f64 {
    float(count) / (60.0 * float(watched_minutes.max(1)))
}
