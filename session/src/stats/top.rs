//! Top lists: a space-saving sketch in buckets of eight, and its summary, which can be merged.
//!
//! A key has one bucket. In a full bucket a new key takes the place of the one with the least count, inherits
//! that count and notes it as its error: a count is never below the truth, and at most `error` above it. What
//! is not listed has at most its bucket's floor. Both are proven bounds, not probabilities; with `n` buckets the
//! floor is about the total divided by `8 n`, and more only in a bucket that several large keys share.
//!
//! Which bucket a key has depends on a seed of the run, so nobody can crowd a large talker out by chosen
//! addresses. (Metwally, Agrawal, El Abbadi: Efficient Computation of Frequent and Top-k Elements, 2005;
//! merging: Agarwal et al., Mergeable Summaries, 2012.)

use std::cmp::Reverse;
use std::collections::HashMap;
use std::hash::Hash;

/// Places in a bucket.
const WAYS: usize = 8;
/// Buckets.
const BUCKETS: usize = 64;
/// Keys a sketch holds.
pub const KEYS: usize = WAYS * BUCKETS;

/// A key and what is known of its weight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry<K> {
    /// The key.
    pub key: K,
    /// Its weight is at most this,
    pub count: u64,
    /// and at least `count - error`.
    pub error: u64,
    /// Packets counted since the key has its place: at least so many.
    pub packets: u64,
    bucket: u8,
}

impl<K> Entry<K> {
    /// The weight it has at least.
    #[must_use]
    pub fn at_least(&self) -> u64 {
        self.count.saturating_sub(self.error)
    }
}

/// The keys of greatest weight, in bounded memory.
#[derive(Clone, Debug)]
pub struct Top<K> {
    buckets: Vec<[Option<Entry<K>>; WAYS]>,
    seed: u64,
}

impl<K: Copy + Eq + Hash> Top<K> {
    /// An empty sketch; only those of one `seed` can be merged.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self { buckets: vec![[None; WAYS]; BUCKETS], seed }
    }

    /// Adds `weight` to `key`, whose hash is `hash`.
    #[inline]
    pub fn add(&mut self, key: K, hash: u64, weight: u64, packets: u64) {
        if weight == 0 {
            return;
        }
        // A product's upper bits depend on all bits of the hash.
        let mixed = (hash ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let number = u8::try_from(mixed >> 58).unwrap_or_default();
        let Some(bucket) = self.buckets.get_mut(usize::from(number)) else { return };
        let mut least = 0;
        let mut least_count = u64::MAX;
        for (at, place) in bucket.iter_mut().enumerate() {
            match place {
                Some(entry) if entry.key == key => {
                    entry.count += weight;
                    entry.packets += packets;
                    return;
                }
                Some(entry) if entry.count < least_count => (least, least_count) = (at, entry.count),
                Some(_) => {}
                None => {
                    *place = Some(Entry { key, count: weight, error: 0, packets, bucket: number });
                    return;
                }
            }
        }
        if let Some(place) = bucket.get_mut(least) {
            let count = least_count.saturating_add(weight);
            *place = Some(Entry { key, count, error: least_count, packets, bucket: number });
        }
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.buckets.fill([None; WAYS]);
    }

    /// What it knows, in a form that can be merged.
    #[must_use]
    pub fn summary(&self) -> Summary<K> {
        let mut floors = [0; BUCKETS];
        for (floor, bucket) in floors.iter_mut().zip(&self.buckets) {
            let counts = bucket.iter().map(|place| place.as_ref().map_or(0, |entry| entry.count));
            *floor = counts.min().unwrap_or_default();
        }
        Summary { entries: self.buckets.iter().flatten().flatten().copied().collect(), floors }
    }
}

/// What a sketch knew, or several of one seed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary<K> {
    entries: Vec<Entry<K>>,
    floors: [u64; BUCKETS],
}

impl<K> Default for Summary<K> {
    fn default() -> Self {
        Self { entries: Vec::new(), floors: [0; BUCKETS] }
    }
}

impl<K: Copy + Eq + Hash + Ord> Summary<K> {
    /// Nothing was added.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Adds what `other` knows; the bounds hold for the sum. At most twice [`KEYS`] keys are kept.
    pub fn merge(&mut self, other: &Self) {
        let mut joined: HashMap<K, Entry<K>> =
            HashMap::with_capacity(self.entries.len() + other.entries.len());
        let in_both = |a: &Entry<K>, b: &Entry<K>| Entry {
            count: a.count.saturating_add(b.count),
            error: a.error.saturating_add(b.error),
            packets: a.packets.saturating_add(b.packets),
            ..*a
        };
        joined.extend(self.entries.iter().map(|entry| (entry.key, raised(entry, &other.floors))));
        let mine: HashMap<K, Entry<K>> = self.entries.iter().map(|entry| (entry.key, *entry)).collect();
        for entry in &other.entries {
            let entry = match mine.get(&entry.key) {
                Some(own) => in_both(own, entry),
                None => raised(entry, &self.floors),
            };
            joined.insert(entry.key, entry);
        }
        for (floor, more) in self.floors.iter_mut().zip(other.floors) {
            *floor = floor.saturating_add(more);
        }
        self.entries = joined.into_values().collect();
        self.sort();
        for dropped in self.entries.split_off((2 * KEYS).min(self.entries.len())) {
            if let Some(floor) = self.floors.get_mut(usize::from(dropped.bucket)) {
                *floor = dropped.count.max(*floor);
            }
        }
    }

    fn sort(&mut self) {
        self.entries.sort_unstable_by_key(|entry| (Reverse(entry.count), entry.key));
    }

    /// The `n` keys of greatest count, greatest first, and the greatest weight that any other key can have.
    #[must_use]
    pub fn first(mut self, n: usize) -> (Vec<Entry<K>>, u64) {
        self.sort();
        let rest = self.entries.split_off(n.min(self.entries.len()));
        let unlisted = rest.first().map_or(0, |entry| entry.count);
        (self.entries, self.floors.into_iter().max().unwrap_or_default().max(unlisted))
    }
}

/// `entry`, which the sketch with these floors does not list.
fn raised<K: Copy>(entry: &Entry<K>, floors: &[u64; BUCKETS]) -> Entry<K> {
    let floor = floors.get(usize::from(entry.bucket)).copied().unwrap_or_default();
    Entry { count: entry.count.saturating_add(floor), error: entry.error.saturating_add(floor), ..*entry }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use xxhash_rust::xxh3::xxh3_64;

    type Stream = Vec<(u16, u32)>;

    fn sketch(stream: &Stream) -> (Summary<u16>, HashMap<u16, u64>) {
        let (mut top, mut exact) = (Top::new(7), HashMap::new());
        for (key, weight) in stream {
            top.add(*key, xxh3_64(&key.to_le_bytes()), u64::from(*weight), 1);
            *exact.entry(*key).or_insert(0) += u64::from(*weight);
        }
        (top.summary(), exact)
    }

    fn check(summary: Summary<u16>, exact: &HashMap<u16, u64>, n: usize) -> Result<(), TestCaseError> {
        let (listed, unlisted) = summary.first(n);
        for entry in &listed {
            let truth = exact.get(&entry.key).copied().unwrap_or_default();
            prop_assert!(entry.at_least() <= truth && truth <= entry.count, "{entry:?}, truth {truth}");
        }
        for (key, truth) in exact.iter().filter(|(key, _)| listed.iter().all(|e| e.key != **key)) {
            prop_assert!(*truth <= unlisted, "{key}: {truth}, but unlisted keys have at most {unlisted}");
        }
        Ok(())
    }

    fn streams() -> impl Strategy<Value = Stream> {
        prop::collection::vec((prop_oneof![0_u16..9, 0_u16..3_000], 1_u32..5_000), 0..4_000)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]
        #[test]
        fn every_bound_holds(stream in streams(), n in 0_usize..700) {
            let (summary, exact) = sketch(&stream);
            check(summary, &exact, n)?;
        }

        #[test]
        fn every_bound_holds_for_merged_sketches(a in streams(), b in streams(), c in streams()) {
            let ((mut merged, mut exact), others) = (sketch(&a), [sketch(&b), sketch(&c)]);
            for (summary, counts) in others {
                merged.merge(&summary);
                counts.into_iter().for_each(|(key, count)| *exact.entry(key).or_insert(0) += count);
            }
            check(merged, &exact, 20)?;
        }
    }

    #[test]
    fn a_key_with_a_large_share_is_listed_among_very_many() {
        let mut stream: Stream = (0..60_000).map(|n| (n, 100)).collect();
        stream.extend((0..100).map(|_| (60_001, 1_500)));
        let (listed, _) = sketch(&stream).0.first(5);
        assert_eq!(listed.first().map(|e| e.key), Some(60_001));
    }
}
