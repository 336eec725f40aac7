//! Pairs that talk again and again: when in the hour a host began to talk to a server.
//!
//! For each (originator, responder, port, protocol) an hour has 360 bits of ten seconds. A bit is set when a
//! session opens, or when one goes on after at least ten seconds of silence. From the bits a reader sees how
//! regular a pair is, whether the sessions are new or one long one, and bits of several queues are joined by OR.
//!
//! Bounded: buckets of eight; in a full one the pair with the fewest bits goes, among equals the one that is
//! silent longest. What takes its place inherits its number of bits as `inherited`: so many of its own may have
//! gone unseen. Bits that are set were seen: nothing is made up.

use super::facts::Flow;
use super::minute::Port;
use std::collections::BTreeMap;
use std::net::IpAddr;
use tapedeck_packet::{Timestamp, UtcHour};

const WAYS: usize = 8;
/// Bits of the hash that name the bucket.
const BUCKET_BITS: u32 = 10;
/// Pairs held in an hour.
pub const PAIRS: usize = WAYS << BUCKET_BITS;
/// Steps of ten seconds in an hour.
pub const STEPS: u32 = 360;
/// Bytes of the bits.
pub const ACTIVITY_BYTES: usize = STEPS as usize / 8;

/// The ten-second steps of an hour in which a pair began to talk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activity([u64; 6]);

impl Activity {
    /// Sets the bit of a step; steps from 360 on are none.
    pub fn set(&mut self, step: u32) {
        let word = usize::try_from(step / 64).unwrap_or(usize::MAX);
        if let Some(word) = self.0.get_mut(word).filter(|_| step < STEPS) {
            *word |= 1 << (step % 64);
        }
    }

    /// Makes it the union of both.
    pub fn merge(&mut self, other: &Self) {
        self.0.iter_mut().zip(other.0).for_each(|(mine, theirs)| *mine |= theirs);
    }

    /// Steps that are set.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.0.iter().map(|word| word.count_ones()).sum()
    }

    /// The steps that are set, ascending.
    #[must_use]
    pub fn steps(&self) -> Vec<u32> {
        let is_set = |step: &u32| {
            let word = usize::try_from(step / 64).unwrap_or(usize::MAX);
            self.0.get(word).is_some_and(|word| (word >> (step % 64)) & 1 != 0)
        };
        (0..STEPS).filter(is_set).collect()
    }

    fn last(&self) -> u32 {
        let last = (0_u32..).zip(self.0).filter(|(_, word)| *word != 0).last();
        last.map_or(0, |(at, word)| at * 64 + word.ilog2())
    }

    /// 45 bytes; step `n` is bit `n % 8` of byte `n / 8`.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.0.iter().flat_map(|word| word.to_le_bytes()).take(ACTIVITY_BYTES).collect()
    }

    /// Reads what [`Activity::to_bytes`] writes; `None` for anything else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; ACTIVITY_BYTES] = bytes.try_into().ok()?;
        let mut activity = Self::default();
        for (word, eight) in activity.0.iter_mut().zip(bytes.chunks(8)) {
            *word = eight.iter().rev().fold(0, |word, byte| (word << 8) | u64::from(*byte));
        }
        Some(activity)
    }
}

/// Who talks to which service of whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PairKey {
    /// Originator.
    pub orig: IpAddr,
    /// Responder.
    pub resp: IpAddr,
    /// Its port; `None` where the protocol has none.
    pub port: Option<Port>,
    /// IP protocol.
    pub proto: u8,
}

impl PairKey {
    /// The pair of a session.
    #[must_use]
    pub fn of(flow: &Flow) -> Self {
        Self { orig: flow.orig, resp: flow.resp, port: Port::of(flow), proto: flow.proto }
    }
}

/// A pair and its hour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecurringPair {
    /// The pair.
    pub key: PairKey,
    /// When it began to talk.
    pub activity: Activity,
    /// How often: sessions opened and silences ended.
    pub starts: u64,
    /// Up to so many steps of it may have gone unseen.
    pub inherited: u32,
}

impl RecurringPair {
    fn weight(&self) -> u32 {
        self.activity.count() + self.inherited
    }
}

/// The pairs of an hour.
#[derive(Clone, Debug)]
pub(super) struct Table {
    hour: UtcHour,
    buckets: Vec<[Option<RecurringPair>; WAYS]>,
    seed: u64,
}

impl Table {
    pub(super) fn new(seed: u64) -> Self {
        Self { hour: UtcHour::from_hours(0), buckets: vec![[None; WAYS]; 1 << BUCKET_BITS], seed }
    }

    /// Bytes it takes at most, which is always.
    pub(super) const fn bytes() -> usize {
        PAIRS * size_of::<Option<RecurringPair>>()
    }

    /// Notes that a pair began to talk. If that is in another hour, the hour so far comes out.
    pub(super) fn start(&mut self, ts: Timestamp, flow: &Flow, hash: u64) -> Option<Recurring> {
        let closed = if ts.hour() == self.hour { None } else { self.close(ts.hour()) };
        let seconds = (ts.nanos() - self.hour.start().nanos()) / tapedeck_packet::time::NANOS_PER_SEC;
        let step = u32::try_from(seconds / 10).unwrap_or(STEPS);
        let port = u64::from(flow.server_port.unwrap_or_default());
        let key = PairKey::of(flow);
        let mixed =
            (hash ^ self.seed ^ (port << 8) ^ u64::from(flow.proto)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let number = usize::try_from(mixed >> (64 - BUCKET_BITS)).unwrap_or_default();
        if let Some(pair) = self.buckets.get_mut(number).and_then(|bucket| place(bucket, key)) {
            pair.activity.set(step);
            pair.starts += 1;
        }
        closed
    }

    /// Empties it for another hour; what it held comes out, unless that is nothing.
    pub(super) fn close(&mut self, next: UtcHour) -> Option<Recurring> {
        let pairs: Vec<RecurringPair> = self.buckets.iter().flatten().flatten().copied().collect();
        let hour = std::mem::replace(&mut self.hour, next);
        if pairs.is_empty() {
            return None;
        }
        self.buckets.fill([None; WAYS]);
        Some(Recurring { hour, pairs })
    }
}

/// The place of `key`, which is made where there is none; `None` never comes.
fn place(bucket: &mut [Option<RecurringPair>; WAYS], key: PairKey) -> Option<&mut RecurringPair> {
    let found = bucket.iter().position(|place| place.as_ref().is_some_and(|pair| pair.key == key));
    if let Some(at) = found {
        return bucket.get_mut(at)?.as_mut();
    }
    // A free place ranks below all others.
    let rank =
        |place: &Option<RecurringPair>| place.as_ref().map(|pair| (pair.weight(), pair.activity.last()));
    let place = bucket.iter_mut().min_by_key(|place| rank(place))?;
    let inherited = place.as_ref().map_or(0, RecurringPair::weight);
    Some(place.insert(RecurringPair { key, activity: Activity::default(), starts: 0, inherited }))
}

/// The pairs of an hour, closed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recurring {
    /// The hour.
    pub hour: UtcHour,
    /// Its pairs, each once.
    pub pairs: Vec<RecurringPair>,
}

impl Recurring {
    /// Adds what another queue saw in the same hour.
    pub fn merge(&mut self, other: &Self) {
        let mut joined: BTreeMap<PairKey, RecurringPair> = self.pairs.iter().map(|p| (p.key, *p)).collect();
        for pair in &other.pairs {
            let own = joined.entry(pair.key).or_insert(RecurringPair {
                activity: Activity::default(),
                starts: 0,
                inherited: 0,
                ..*pair
            });
            own.activity.merge(&pair.activity);
            own.starts += pair.starts;
            own.inherited += pair.inherited;
        }
        self.pairs = joined.into_values().collect();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::Ipv4Addr;

    fn flow(host: u32) -> Flow {
        Flow {
            orig: IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + host)),
            resp: IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)),
            proto: 6,
            server_port: Some(443),
            service: None,
        }
    }

    fn at(second: u64) -> Timestamp {
        Timestamp::from_nanos_saturating(second * 1_000_000_000)
    }

    #[test]
    fn a_beacon_among_ten_thousand_passing_pairs_keeps_its_place() {
        let mut table = Table::new(1);
        for minute in 0..60_u64 {
            table.start(at(minute * 60 + 5), &flow(0), super::super::hosts::hash(flow(0).orig));
            for other in 0..170_u32 {
                let other = flow(1 + other + u32::try_from(minute).unwrap() * 170);
                table.start(at(minute * 60 + 20), &other, super::super::hosts::hash(other.orig));
            }
        }
        let hour = table.close(UtcHour::from_hours(1)).unwrap();
        assert!(hour.pairs.len() <= PAIRS);
        let beacon = hour.pairs.iter().find(|p| p.key == PairKey::of(&flow(0))).unwrap();
        assert_eq!(beacon.activity.steps(), (0..60).map(|m| m * 6).collect::<Vec<u32>>());
    }

    #[test]
    fn an_hour_comes_out_when_the_next_begins() {
        let mut table = Table::new(1);
        assert_eq!(table.start(at(10), &flow(1), 5), None);
        let hour = table.start(at(3_600), &flow(2), 6).unwrap();
        assert_eq!((hour.hour.hours(), hour.pairs.len()), (0, 1));
        assert_eq!(table.close(UtcHour::from_hours(2)).map(|h| h.hour.hours()), Some(1));
        assert_eq!(table.close(UtcHour::from_hours(3)), None);
    }

    proptest! {
        #[test]
        fn activity_survives_its_bytes(steps in prop::collection::btree_set(0_u32..STEPS, 0..200)) {
            let mut activity = Activity::default();
            steps.iter().for_each(|step| activity.set(*step));
            prop_assert_eq!(activity.last(), steps.last().copied().unwrap_or_default());
            prop_assert_eq!(usize::try_from(activity.count()).unwrap(), steps.len());
            let again = Activity::from_bytes(&activity.to_bytes()).unwrap();
            prop_assert_eq!(again.steps(), steps.into_iter().collect::<Vec<_>>());
        }

        #[test]
        fn bits_that_are_set_were_seen(starts in prop::collection::vec((0_u32..40, 0_u64..3_600), 0..600)) {
            // All in one bucket: eight places for forty pairs.
            let mut table = Table::new(1);
            for (host, second) in &starts {
                table.start(at(*second), &flow(*host), 0);
            }
            for pair in table.close(UtcHour::from_hours(1)).map(|h| h.pairs).unwrap_or_default() {
                let seen = |step: &u32| starts.iter().any(|(host, second)| PairKey::of(&flow(*host)) == pair.key && second / 10 == u64::from(*step));
                prop_assert!(pair.activity.steps().iter().all(seen));
                let mut truth = Activity::default();
                starts.iter().filter(|(host, _)| PairKey::of(&flow(*host)) == pair.key).for_each(|(_, second)| truth.set(u32::try_from(second / 10).unwrap()));
                prop_assert!(truth.count() <= pair.weight());
            }
        }
    }
}
