//! A minute as rows: what stands in `stats/`, before it becomes Parquet.
//!
//! Long, not wide: one row a minute, interface, dimension and key. All numbers of a row add up over minutes,
//! interfaces and sensors, except where the column says otherwise (`sessions_active`, the numbers of hosts).

use super::merge::Merged;
use super::minute::{Counts, Minute, Port, SIZES, Totals};
use super::recurring::{Activity, PairKey, Recurring};
use super::top::Summary;
use std::cmp::Reverse;
use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::net::IpAddr;
use tapedeck_packet::Timestamp;

/// Entries of a top list that become rows.
pub const LISTED: usize = 20;
/// Server ports of most bytes, and of most new sessions, that become rows of their own.
pub const LISTED_PORTS: usize = 100;
/// Recurring pairs of an hour that become rows.
pub const LISTED_PAIRS: usize = 512;
/// Steps a pair needs to be listed as recurring.
pub const RECURRING_STEPS: u32 = 4;

/// What a row counts by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Dimension {
    /// Everything; one row a minute in which the interface was watched, also of silence. No key.
    Total,
    /// IP protocol; key: its number.
    Protocol,
    /// Service; key: Zeek's name.
    Service,
    /// Server port; key: `443/tcp`, or `other`.
    ServerPort,
    /// Non-IP packets; key: EtherType as `0x0806`, `llc` for none, or `other`.
    EtherType,
    /// Packet size; key: bytes from-to.
    Size,
    /// Sources by bytes sent; key: address.
    TopSource,
    /// Destinations by bytes received; key: address.
    TopDestination,
    /// Pairs by bytes both ways; key: both addresses, the smaller first, a blank between them.
    TopPair,
    /// Originators by sessions opened; key: address.
    TopOpener,
    /// Originators by failed handshakes; key: address.
    TopFailing,
    /// Pairs that talk again and again in an hour; key: originator, responder, port/protocol.
    Recurring,
}

impl Dimension {
    /// All of them.
    pub const ALL: [Self; 12] = [
        Self::Total,
        Self::Protocol,
        Self::Service,
        Self::ServerPort,
        Self::EtherType,
        Self::Size,
        Self::TopSource,
        Self::TopDestination,
        Self::TopPair,
        Self::TopOpener,
        Self::TopFailing,
        Self::Recurring,
    ];

    /// As in the column `dimension`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Total => "total",
            Self::Protocol => "protocol",
            Self::Service => "service",
            Self::ServerPort => "server_port",
            Self::EtherType => "ethertype",
            Self::Size => "size",
            Self::TopSource => "top_source",
            Self::TopDestination => "top_destination",
            Self::TopPair => "top_pair",
            Self::TopOpener => "top_opener",
            Self::TopFailing => "top_failing",
            Self::Recurring => "recurring",
        }
    }

    /// Reads [`Dimension::as_str`]; `None` for anything else.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|dimension| dimension.as_str() == text)
    }
}

/// A row of `stats/`. `None` = null: the number is not counted by this dimension.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Row {
    /// First nanosecond of the minute; of the hour for `recurring`.
    pub ts: Timestamp,
    /// Dimension, see [`Dimension::as_str`].
    pub dimension: &'static str,
    /// Which of the dimension; `None` for `total`.
    pub key: Option<String>,
    /// Packets; in top lists at least so many.
    pub packets: Option<u64>,
    /// Bytes on the wire; in top lists at most so many (see `error`).
    pub bytes: Option<u64>,
    /// Sessions that began; for `recurring`: sessions that began and silences of ten seconds that ended.
    pub sessions_new: Option<u64>,
    /// Sessions with a packet in the minute. Does not add up over minutes.
    pub sessions_active: Option<u64>,
    /// TCP packets with RST.
    pub tcp_resets: Option<u64>,
    /// TCP sessions that ended without a handshake.
    pub failed_handshakes: Option<u64>,
    /// Broadcast packets.
    pub broadcast_packets: Option<u64>,
    /// Multicast packets.
    pub multicast_packets: Option<u64>,
    /// Fragments.
    pub fragment_packets: Option<u64>,
    /// Packets that are not IP.
    pub non_ip_packets: Option<u64>,
    /// IP packets without room for a session.
    pub sessionless_packets: Option<u64>,
    /// Estimated number of sources. Does not add up.
    pub source_hosts: Option<f64>,
    /// Estimated number of destinations. Does not add up.
    pub destination_hosts: Option<f64>,
    /// [`super::hosts::Hosts::to_bytes`] of the sources.
    pub source_sketch: Option<Vec<u8>>,
    /// The same of the destinations.
    pub destination_sketch: Option<Vec<u8>>,
    /// Top lists: the true number is at most so much less than the one that the list is ordered by.
    pub error: Option<u64>,
    /// Top lists: the greatest number a key that is not listed can have in this minute.
    pub unlisted_max: Option<u64>,
    /// Recurring: [`Activity::to_bytes`].
    pub activity: Option<Vec<u8>>,
}

/// The rows of a minute or an hour.
#[must_use]
pub fn rows(merged: &Merged) -> Vec<Row> {
    match merged {
        Merged::Minute(minute) => minute_rows(minute),
        Merged::Hour(hour) => hour_rows(hour),
    }
}

fn minute_rows(minute: &Minute) -> Vec<Row> {
    let ts = minute.start;
    let mut rows = vec![total(minute)];
    let counted = |dimension: Dimension, key: String, counts: &Counts| counted(ts, dimension, key, counts);
    rows.extend(
        minute
            .protocols
            .iter()
            .map(|(number, counts)| counted(Dimension::Protocol, number.to_string(), counts)),
    );
    rows.extend(
        minute.services.iter().map(|(name, counts)| counted(Dimension::Service, (*name).to_owned(), counts)),
    );
    rows.extend(port_rows(minute));
    for (ethertype, counts) in &minute.ethertypes {
        let key = ethertype.map_or_else(|| "llc".to_owned(), |number| format!("0x{number:04x}"));
        rows.push(unsessioned(ts, Dimension::EtherType, key, counts));
    }
    if !minute.other_ethertypes.is_zero() {
        rows.push(unsessioned(ts, Dimension::EtherType, "other".to_owned(), &minute.other_ethertypes));
    }
    for ((_, name), counts) in SIZES.iter().zip(&minute.sizes).filter(|(_, counts)| !counts.is_zero()) {
        rows.push(unsessioned(ts, Dimension::Size, (*name).to_owned(), counts));
    }
    rows.extend(top(ts, Dimension::TopSource, &minute.sources, IpAddr::to_string));
    rows.extend(top(ts, Dimension::TopDestination, &minute.destinations, IpAddr::to_string));
    rows.extend(top(ts, Dimension::TopPair, &minute.pairs, |(a, b)| format!("{a} {b}")));
    rows.extend(top(ts, Dimension::TopOpener, &minute.openers, IpAddr::to_string));
    rows.extend(top(ts, Dimension::TopFailing, &minute.failing, IpAddr::to_string));
    rows
}

fn total(minute: &Minute) -> Row {
    let Totals {
        counts,
        tcp_resets,
        failed_handshakes,
        broadcast,
        multicast,
        fragments,
        non_ip,
        sessionless,
    } = minute.totals;
    Row {
        ts: minute.start,
        dimension: Dimension::Total.as_str(),
        packets: Some(counts.packets),
        bytes: Some(counts.bytes),
        sessions_new: Some(counts.new),
        sessions_active: Some(counts.active),
        tcp_resets: Some(tcp_resets),
        failed_handshakes: Some(failed_handshakes),
        broadcast_packets: Some(broadcast),
        multicast_packets: Some(multicast),
        fragment_packets: Some(fragments),
        non_ip_packets: Some(non_ip),
        sessionless_packets: Some(sessionless),
        source_hosts: Some(minute.src_hosts.estimate()),
        destination_hosts: Some(minute.dst_hosts.estimate()),
        source_sketch: Some(minute.src_hosts.to_bytes()),
        destination_sketch: Some(minute.dst_hosts.to_bytes()),
        ..Row::default()
    }
}

fn counted(ts: Timestamp, dimension: Dimension, key: String, counts: &Counts) -> Row {
    Row {
        sessions_new: Some(counts.new),
        sessions_active: Some(counts.active),
        ..unsessioned(ts, dimension, key, counts)
    }
}

fn unsessioned(ts: Timestamp, dimension: Dimension, key: String, counts: &Counts) -> Row {
    Row {
        ts,
        dimension: dimension.as_str(),
        key: Some(key),
        packets: Some(counts.packets),
        bytes: Some(counts.bytes),
        ..Row::default()
    }
}

/// The ports of most bytes and those of most new sessions; the others as one row, so that the sum is whole.
fn port_rows(minute: &Minute) -> Vec<Row> {
    let mut ports: Vec<(&Port, &Counts)> = minute.ports.iter().collect();
    let mut listed: BTreeSet<Port> = BTreeSet::new();
    ports.sort_unstable_by_key(|(port, counts)| (Reverse(counts.bytes), **port));
    listed.extend(ports.iter().take(LISTED_PORTS).map(|(port, _)| **port));
    ports.sort_unstable_by_key(|(port, counts)| (Reverse(counts.new), **port));
    listed.extend(ports.iter().take(LISTED_PORTS).map(|(port, _)| **port));
    let mut other = minute.other_ports;
    let mut rows = Vec::new();
    for (port, counts) in &minute.ports {
        if listed.contains(port) {
            rows.push(counted(minute.start, Dimension::ServerPort, port.to_string(), counts));
        } else {
            other.add(counts);
        }
    }
    if !other.is_zero() {
        rows.push(counted(minute.start, Dimension::ServerPort, "other".to_owned(), &other));
    }
    rows
}

fn top<K: Copy + Eq + std::hash::Hash + Ord>(
    ts: Timestamp,
    dimension: Dimension,
    summary: &Summary<K>,
    text: impl Fn(&K) -> String,
) -> Vec<Row> {
    let (entries, unlisted_max) = summary.clone().first(LISTED);
    let row = |entry: &super::top::Entry<K>| {
        let row = Row {
            ts,
            dimension: dimension.as_str(),
            key: Some(text(&entry.key)),
            error: Some(entry.error),
            unlisted_max: Some(unlisted_max),
            ..Row::default()
        };
        match dimension {
            Dimension::TopOpener => Row { sessions_new: Some(entry.count), ..row },
            Dimension::TopFailing => Row { failed_handshakes: Some(entry.count), ..row },
            _ => Row { bytes: Some(entry.count), packets: Some(entry.packets), ..row },
        }
    };
    entries.iter().map(row).collect()
}

/// The pairs that talked most often in different steps. The limit is the last resort: it is far above what a
/// site has of pairs that talk at four different times of each hour and are not listed in full.
fn hour_rows(hour: &Recurring) -> Vec<Row> {
    let mut pairs: Vec<_> =
        hour.pairs.iter().filter(|pair| pair.activity.count() >= RECURRING_STEPS).collect();
    let regularity = |activity: &Activity| Reverse(Regularity::of(activity).map_or(0, |r| r.rank()));
    pairs.sort_by_cached_key(|pair| (regularity(&pair.activity), Reverse(pair.activity.count()), pair.key));
    let unlisted = pairs.get(LISTED_PAIRS).map_or(0, |pair| pair.activity.count());
    let row = |pair: &super::recurring::RecurringPair| Row {
        ts: hour.hour.start(),
        dimension: Dimension::Recurring.as_str(),
        key: Some(PairText(&pair.key).to_string()),
        sessions_new: Some(pair.starts),
        error: Some(u64::from(pair.inherited)),
        unlisted_max: Some(u64::from(unlisted)),
        activity: Some(pair.activity.to_bytes()),
        ..Row::default()
    };
    pairs.into_iter().take(LISTED_PAIRS).map(row).collect()
}

struct PairText<'a>(&'a PairKey);

impl Display for PairText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PairKey { orig, resp, port, proto } = self.0;
        match port {
            Some(port) => write!(f, "{orig} {resp} {port}"),
            None => write!(f, "{orig} {resp} proto-{proto}"),
        }
    }
}

/// How regularly a pair began to talk.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Regularity {
    /// Median of the intervals, seconds.
    pub period_s: u32,
    /// Intervals, and those within a quarter of the median.
    pub intervals: u32,
    /// Of these, the ones within a quarter of the median (at least one step).
    pub regular: u32,
    /// How many standard deviations that is above what starts at random would give.
    pub deviations: f64,
}

impl Regularity {
    /// Of the steps in `activity`; `None` with fewer than three intervals.
    #[must_use]
    pub fn of(activity: &Activity) -> Option<Self> {
        let steps = activity.steps();
        let mut intervals: Vec<u32> = steps.iter().zip(steps.iter().skip(1)).map(|(a, b)| b - a).collect();
        if intervals.len() < 3 {
            return None;
        }
        intervals.sort_unstable();
        let median = intervals.get(intervals.len() / 2).copied()?;
        let slack = if median < 3 { 0 } else { (median / 4).max(1) };
        let (low, high) = (median - slack, median + slack);
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let regular = count(intervals.iter().filter(|i| (low..=high).contains(i)).count());
        let n = count(intervals.len());
        // Starts at random have geometric intervals; of those with this median, the share between low and high.
        let survive = |steps: u32| 0.5_f64.powf(f64::from(steps) / f64::from(median));
        let by_chance = survive(low.saturating_sub(1)) - survive(high);
        let spread = (by_chance * (1.0 - by_chance) / f64::from(n)).sqrt();
        let deviations = (f64::from(regular) / f64::from(n) - by_chance) / spread.max(f64::MIN_POSITIVE);
        Some(Self { period_s: median * 10, intervals: n, regular, deviations })
    }

    /// Orders pairs of an hour by regularity, in hundredths of a standard deviation.
    fn rank(&self) -> u32 {
        let hundredths = (self.deviations * 100.0).clamp(0.0, 1e6);
        // Found by halving: there is no conversion from float to integer that cannot lose something.
        (0..20).rev().fold(
            0,
            |rank, bit| if f64::from(rank | 1 << bit) <= hundredths { rank | 1 << bit } else { rank },
        )
    }
}
