//! Hours of an interface, put together from rows of statistics.

use super::kind::Kind;
use crate::stats::recurring::Activity;
use crate::stats::{Dimension, Hosts, NANOS_PER_MINUTE, Row};
use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tapedeck_packet::UtcHour;

/// Minutes of an hour that have to be covered before it is judged or compared with.
pub const MIN_MINUTES: u32 = 30;

/// Number of a key: the same for the same text.
pub type KeyId = u32;
/// The key of what has none.
pub const NO_KEY: KeyId = 0;

/// A value between two bounds; exact if they are equal.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Bounds {
    /// At least.
    pub low: f64,
    /// At most.
    pub high: f64,
}

#[derive(Clone, Copy, Debug, Default)]
struct Sum {
    low: f64,
    high: f64,
    /// What the lists of the minutes that this key is in say about keys that are not in them.
    unlisted: f64,
}

/// A pair's hour.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The pair's key.
    pub key: KeyId,
    /// When it began to talk.
    pub activity: Activity,
    /// How often.
    pub starts: u64,
}

/// An hour of an interface.
#[derive(Clone, Debug)]
pub struct Hour {
    /// Packets by minute; `None` where nobody watched.
    minutes: [Option<u64>; 60],
    sums: HashMap<(Kind, KeyId), Sum>,
    /// Of each minute: the most a key that is not listed can have.
    unlisted: BTreeMap<Kind, [f64; 60]>,
    sources: Hosts,
    destinations: Hosts,
    /// Their estimates, once asked for.
    estimates: OnceCell<(f64, f64)>,
    pairs: BTreeMap<KeyId, Pair>,
}

impl Default for Hour {
    fn default() -> Self {
        Self {
            minutes: [None; 60],
            sums: HashMap::new(),
            unlisted: BTreeMap::new(),
            sources: Hosts::default(),
            destinations: Hosts::default(),
            estimates: OnceCell::new(),
            pairs: BTreeMap::new(),
        }
    }
}

impl Hour {
    /// Minutes that were watched.
    #[must_use]
    pub fn covered(&self) -> u32 {
        u32::try_from(self.minutes.iter().flatten().count()).unwrap_or_default()
    }

    /// Packets by minute; `None` where nobody watched.
    #[must_use]
    pub fn minutes(&self) -> &[Option<u64>; 60] {
        &self.minutes
    }

    /// What `kind` of `key` came to.
    #[must_use]
    pub fn value(&self, kind: Kind, key: KeyId) -> Bounds {
        match kind {
            Kind::SourceHosts => exactly(self.hosts().0),
            Kind::DestinationHosts => exactly(self.hosts().1),
            _ => {
                let sum = self.sums.get(&(kind, key)).copied().unwrap_or_default();
                let unlisted: f64 = self.unlisted.get(&kind).map_or(0.0, |minutes| minutes.iter().sum());
                Bounds { low: sum.low, high: sum.high + (unlisted - sum.unlisted).max(0.0) }
            }
        }
    }

    /// Estimated sources and destinations.
    fn hosts(&self) -> (f64, f64) {
        *self.estimates.get_or_init(|| (self.sources.estimate(), self.destinations.estimate()))
    }

    /// The keys that occur, with their kinds.
    pub fn keys(&self) -> impl Iterator<Item = (Kind, KeyId)> {
        let of_hosts = [(Kind::SourceHosts, NO_KEY), (Kind::DestinationHosts, NO_KEY)];
        self.sums.keys().copied().chain(of_hosts)
    }

    /// Pairs that talked at four different times or more.
    pub fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.pairs.values()
    }

    pub(super) fn pair(&self, key: KeyId) -> Option<&Pair> {
        self.pairs.get(&key)
    }
}

fn exactly(value: f64) -> Bounds {
    Bounds { low: value, high: value }
}

/// Hours of all interfaces.
#[derive(Clone, Debug)]
pub struct Hours {
    numbers: HashMap<String, KeyId>,
    texts: Vec<String>,
    interfaces: BTreeMap<String, BTreeMap<UtcHour, Hour>>,
}

impl Default for Hours {
    fn default() -> Self {
        Self { numbers: HashMap::new(), texts: vec![String::new()], interfaces: BTreeMap::new() }
    }
}

impl Hours {
    /// Adds a row of an interface. Rows may come in any order; rows of one minute add up. Rows of a dimension
    /// that is not known are left out.
    pub fn add(&mut self, interface: &str, row: &Row) {
        let Some(dimension) = Dimension::parse(row.dimension) else { return };
        let key = row.key.as_deref().map_or(NO_KEY, |key| self.number(key));
        let hour = match self.interfaces.get_mut(interface) {
            Some(hours) => hours,
            None => self.interfaces.entry(interface.to_owned()).or_default(),
        };
        let hour = hour.entry(row.ts.hour()).or_default();
        let minute = (row.ts.nanos() - row.ts.hour().start().nanos()) / NANOS_PER_MINUTE;
        let minute = usize::try_from(minute).unwrap_or_default();
        match dimension {
            Dimension::Total => {
                if let Some(packets) = hour.minutes.get_mut(minute) {
                    *packets = Some(packets.unwrap_or_default() + row.packets.unwrap_or_default());
                }
                let sketch = |bytes: &Option<Vec<u8>>| bytes.as_deref().and_then(Hosts::from_bytes);
                hour.estimates.take();
                sketch(&row.source_sketch).iter().for_each(|hosts| hour.sources.merge(hosts));
                sketch(&row.destination_sketch).iter().for_each(|hosts| hour.destinations.merge(hosts));
            }
            Dimension::Recurring => hour.add_pair(key, row),
            _ => {}
        }
        for (kind, value) in Kind::of_row(dimension, row) {
            hour.add_value(kind, key, minute, value, row);
        }
    }

    fn number(&mut self, text: &str) -> KeyId {
        if let Some(number) = self.numbers.get(text) {
            return *number;
        }
        let number = KeyId::try_from(self.texts.len()).unwrap_or(KeyId::MAX);
        self.texts.push(text.to_owned());
        self.numbers.insert(text.to_owned(), number);
        number
    }

    /// The text of a key; empty for none.
    #[must_use]
    pub fn text(&self, key: KeyId) -> &str {
        let at = usize::try_from(key).unwrap_or(usize::MAX);
        self.texts.get(at).map_or("", String::as_str)
    }

    /// The interfaces and their hours.
    pub fn interfaces(&self) -> impl Iterator<Item = (&str, &BTreeMap<UtcHour, Hour>)> {
        self.interfaces.iter().map(|(name, hours)| (name.as_str(), hours))
    }

    /// All hours for which there is a row of any interface.
    #[must_use]
    pub fn all(&self) -> BTreeSet<UtcHour> {
        self.interfaces.values().flat_map(|hours| hours.keys().copied()).collect()
    }
}

impl Hour {
    fn add_value(&mut self, kind: Kind, key: KeyId, minute: usize, value: u64, row: &Row) {
        if value == 0 {
            return;
        }
        let sum = self.sums.entry((kind, key)).or_default();
        let high = to_float(value);
        sum.high += high;
        sum.low += high - to_float(row.error.unwrap_or_default().min(value));
        if let Some(unlisted) = row.unlisted_max.map(to_float) {
            sum.unlisted += unlisted;
            let minutes = self.unlisted.entry(kind).or_insert([0.0; 60]);
            if let Some(most) = minutes.get_mut(minute) {
                *most = most.max(unlisted);
            }
        }
    }

    fn add_pair(&mut self, key: KeyId, row: &Row) {
        let Some(activity) = row.activity.as_deref().and_then(Activity::from_bytes) else { return };
        let pair = self.pairs.entry(key).or_insert(Pair { key, activity: Activity::default(), starts: 0 });
        pair.activity.merge(&activity);
        pair.starts += row.sessions_new.unwrap_or_default();
    }
}

/// Exact up to 2^53, which is more bytes than an hour of the fastest link has.
#[expect(clippy::cast_precision_loss, reason = "what is lost is far below the accuracy of any comparison")]
pub(super) fn to_float(value: u64) -> f64 {
    value as f64
}
