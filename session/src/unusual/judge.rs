//! Which numbers of an hour stand out, from their expectation and from what the past did of itself.

use super::baseline::{Days, Expectation, day, expect, expect_with, median};
use super::fold::{Finding, fold, join};
use super::hours::{Bounds, Hour, Hours, KeyId, MIN_MINUTES, NO_KEY, Pair, to_float};
use super::kind::Kind;
use crate::stats::row::Regularity;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tapedeck_packet::UtcHour;

/// Deviations from the expectation that a number has to reach, whatever the past did.
const LEAST_DEVIATIONS: f64 = 6.0;
/// The same for the regularity of a pair.
const LEAST_REGULARITY: f64 = 4.5;
/// Share of a pair's intervals that have to be alike.
const LEAST_ALIKE: f64 = 0.75;
/// A pair is known if it talked on more than this share of the other days.
const KNOWN_PAIR: f64 = 0.2;
/// Quiet minutes in a row, more than usual.
const LEAST_QUIET_MINUTES: f64 = 5.0;
/// A minute with less than this share of the usual packets is quiet.
const QUIET: f64 = 0.1;
/// Minutes of fewer packets than this are too seldom or too small to be missed.
const LEAST_MINUTE: f64 = 5.0;
/// Packets of an hour are few below this share of what was expected.
const FEW: f64 = 0.5;
/// A service is missing below this share of its sessions, if so many were expected.
const MISSING: f64 = 0.1;
const LEAST_SESSIONS: f64 = 30.0;
/// What stood out most in the past, and how much further one has to stand out: the second, since the greatest
/// may itself have been unusual.
const BAR_RANK: usize = 2;
const BAR_MARGIN: f64 = 1.3;
/// Findings of a day that only have to stand out, and how far, as a multiple of that, further ones have to.
const FREE_FINDINGS: usize = 2;
const FURTHER_SEVERITY: f64 = 2.0;
/// Hours that are one event.
const EVENT_HOURS: u64 = 6;

/// What is known of the past.
#[derive(Clone, Copy, Debug)]
pub struct Habits;

impl Habits {
    /// Earlier days in which the hour was covered, before it is judged.
    pub const MIN_DAYS: usize = 5;
    /// Days back that the history has to reach: a week, so that there is one of the same weekday.
    pub const MIN_REACH: u64 = 7;
}

/// A number that stands out.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// Which.
    pub kind: Kind,
    /// Of what.
    pub key: KeyId,
    /// What it was in the hour.
    pub observed: Bounds,
    /// What was usual.
    pub usual: f64,
    /// What would have been the most (or, for what is missing, the least) to expect.
    pub expected: f64,
    /// How far it stands out, as a multiple of what it takes to be listed.
    pub severity: f64,
}

/// The answer.
#[derive(Clone, Debug, Default)]
pub struct Unusual {
    /// What departs, most unusual first.
    pub findings: Vec<Finding>,
    /// Hours that were judged, over all interfaces.
    pub judged_hours: u64,
    /// Interface and hours that were not judged, since too little of them or of their past was recorded.
    pub unjudged: Vec<(String, UtcHour, Reason)>,
}

/// Why an hour was not judged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Fewer than half of its minutes were watched.
    HardlyWatched,
    /// The history does not reach back far enough, or has too few days with this hour.
    ShortHistory {
        /// Earlier days with this hour.
        days: usize,
    },
}

/// Judges the hours `from` to `to` (not included) of all interfaces.
#[must_use]
pub fn unusual(hours: &Hours, from: UtcHour, to: UtcHour) -> Unusual {
    let mut answer = Unusual::default();
    for (interface, own) in hours.interfaces() {
        let past = Past::of(own);
        let mut bars: HashMap<u64, Bars> = HashMap::new();
        let mut found: Vec<Finding> = Vec::new();
        // Hours without a row are asked for too: from its first on, an interface was to be watched.
        let begin = own.keys().next().copied().unwrap_or(to).max(from);
        for hour in (begin.hours()..to.hours()).map(UtcHour::from_hours) {
            let what = match judgeable(own, hour) {
                Ok(what) => what,
                Err(reason) => {
                    answer.unjudged.push((interface.to_owned(), hour, reason));
                    continue;
                }
            };
            answer.judged_hours += 1;
            let bars = bars.entry(day(hour)).or_insert_with(|| Bars::of(&past, day(hour)));
            let days = Days { end: day(hour), except: day(hour) };
            let mut candidates = Vec::new();
            for mark in marks(&past, hour, what, days) {
                let bar = bars.bar(mark.kind, mark.key);
                if mark.score > bar {
                    candidates.push(Candidate { severity: mark.score / bar, ..mark.candidate() });
                }
            }
            found.extend(fold(hours, interface, hour, candidates));
        }
        answer.findings.extend(spare(join(found)));
    }
    answer.findings.sort_by(|a, b| b.severity.total_cmp(&a.severity).then_with(|| a.from.cmp(&b.from)));
    answer
}

/// Leaves out what hardly stands out on a day on which other things do: the more numbers are looked at, the
/// more of them stand out by chance, and who gets ten rows a day reads none.
fn spare(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by(|a, b| b.severity.total_cmp(&a.severity).then_with(|| a.from.cmp(&b.from)));
    let mut of_day: HashMap<u64, usize> = HashMap::new();
    findings.retain(|finding| {
        let earlier = of_day.entry(day(finding.from)).or_default();
        let kept = *earlier < FREE_FINDINGS || finding.severity >= FURTHER_SEVERITY;
        *earlier += usize::from(kept);
        kept
    });
    findings
}

fn judgeable(own: &BTreeMap<UtcHour, Hour>, hour: UtcHour) -> Result<&Hour, Reason> {
    let what = own.get(&hour).filter(|what| what.covered() >= MIN_MINUTES).ok_or(Reason::HardlyWatched)?;
    let back = |days: u64| hour.hours().checked_sub(days * 24).and_then(|h| own.get(&UtcHour::from_hours(h)));
    let watched = |days: &u64| back(*days).is_some_and(|hour| hour.covered() >= MIN_MINUTES);
    let days: Vec<u64> = (1..=super::baseline::DAYS).filter(watched).collect();
    let same_weekday = days.iter().any(|days| days.is_multiple_of(Habits::MIN_REACH));
    if days.len() < Habits::MIN_DAYS || !same_weekday {
        return Err(Reason::ShortHistory { days: days.len() });
    }
    Ok(what)
}

/// How far each kind has to stand out in an interface: the least that is always asked for, or more than what
/// the past did of itself.
#[derive(Clone, Debug, Default)]
pub struct Bars(HashMap<Kind, Vec<Peak>>);

/// The two keys that stood out most in an hour of the past.
#[derive(Clone, Copy, Debug, Default)]
struct Peak {
    hour: u64,
    first: (f64, KeyId),
    second: f64,
}

impl Peak {
    fn add(&mut self, mark: &Mark) {
        if mark.score > self.first.0 {
            self.second = if mark.key == self.first.1 { self.second } else { self.first.0 };
            self.first = (mark.score, mark.key);
        } else if mark.key != self.first.1 {
            self.second = self.second.max(mark.score);
        }
    }

    /// Of other pairs: that a pair has talked by the clock since yesterday is no excuse for it. Bytes and
    /// sessions are different: who had many at odd times before has a habit that no median shows.
    fn without(&self, kind: Kind, key: KeyId) -> f64 {
        let (score, of) = self.first;
        if kind == Kind::Recurring && of == key { self.second } else { score }
    }
}

impl Bars {
    /// From the hours of the days before `end`.
    fn of(past: &Past<'_>, end: u64) -> Self {
        let mut peaks: HashMap<Kind, Vec<Peak>> = HashMap::new();
        let first = end.saturating_sub(super::baseline::DAYS);
        let range = UtcHour::from_hours(first * 24)..UtcHour::from_hours(end * 24);
        for (&hour, what) in past.hours.range(range).filter(|(_, what)| what.covered() >= MIN_MINUTES) {
            let mut of_hour: HashMap<Kind, Peak> = HashMap::new();
            for mark in marks(past, hour, what, Days { end, except: day(hour) }) {
                let fresh = Peak { hour: hour.hours(), ..Peak::default() };
                of_hour.entry(mark.kind).or_insert(fresh).add(&mark);
            }
            for (kind, peak) in of_hour {
                peaks.entry(kind).or_default().push(peak);
            }
        }
        Self(peaks)
    }

    /// The bar of a kind, for a key.
    #[must_use]
    pub fn bar(&self, kind: Kind, key: KeyId) -> f64 {
        let least = match kind {
            Kind::Recurring => LEAST_REGULARITY,
            Kind::QuietMinutes => LEAST_QUIET_MINUTES,
            _ => LEAST_DEVIATIONS,
        };
        let past = self.0.get(&kind).map(Vec::as_slice).unwrap_or_default();
        let scores: Vec<(u64, f64)> = past.iter().map(|peak| (peak.hour, peak.without(kind, key))).collect();
        (BAR_MARGIN * height(scores)).max(least)
    }
}

/// The score of the event of rank [`BAR_RANK`]; hours near each other are one event.
fn height(mut scores: Vec<(u64, f64)>) -> f64 {
    scores.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    let mut events: Vec<u64> = Vec::new();
    for (hour, score) in scores {
        if events.iter().all(|event| event.abs_diff(hour) > EVENT_HOURS) {
            events.push(hour);
            if events.len() == BAR_RANK {
                return score;
            }
        }
    }
    0.0
}

/// A number that may stand out, before the bars.
#[derive(Clone, Copy, Debug)]
struct Mark {
    kind: Kind,
    key: KeyId,
    observed: Bounds,
    usual: f64,
    expected: f64,
    score: f64,
}

impl Mark {
    fn candidate(&self) -> Candidate {
        let Self { kind, key, observed, usual, expected, .. } = *self;
        Candidate { kind, key, observed, usual, expected, severity: 0.0 }
    }
}

/// What stands out of `hour`, by however little.
fn marks(past: &Past<'_>, hour: UtcHour, what: &Hour, days: Days) -> Vec<Mark> {
    let own = past.hours;
    let mut marks = Vec::new();
    for (kind, key) in what.keys() {
        marks.extend(upward(own, hour, what, days, kind, key));
    }
    marks.extend(few_packets(own, hour, what, days));
    marks.extend(quiet_minutes(own, hour, what, days));
    marks.extend(missing_services(own, hour, what, days));
    marks.extend(recurring(past, hour, what, days));
    marks
}

fn upward(
    own: &BTreeMap<UtcHour, Hour>,
    hour: UtcHour,
    what: &Hour,
    days: Days,
    kind: Kind,
    key: KeyId,
) -> Option<Mark> {
    let observed = what.value(kind, key);
    let least = LEAST_DEVIATIONS / BAR_MARGIN;
    // The spread is at least the floor: most keys are too small to be worth a look back.
    if observed.low < least * kind.floor() {
        return None;
    }
    let Expectation { usual, high, spread, .. } = expect(own, hour, days, kind, key)?;
    let score = (observed.low - high) / spread;
    (score >= least).then_some(Mark { kind, key, observed, usual, expected: high, score })
}

/// The hour as a whole has too few packets.
fn few_packets(own: &BTreeMap<UtcHour, Hour>, hour: UtcHour, what: &Hour, days: Days) -> Option<Mark> {
    let kind = Kind::FewPackets;
    let packets = |hour: &Hour| hour.value(Kind::Packets, NO_KEY).high * 60.0 / f64::from(hour.covered());
    let Expectation { usual, low, spread, .. } = expect_with(own, hour, days, kind.floor(), packets)?;
    let now = packets(what);
    let is_few = now < FEW * low && low > 60.0 * LEAST_MINUTE;
    let observed = what.value(Kind::Packets, NO_KEY);
    is_few.then_some(Mark { kind, key: NO_KEY, observed, usual, expected: low, score: (low - now) / spread })
}

/// Minutes in a row in which hardly a packet came, more of them than usual at this time of day.
fn quiet_minutes(own: &BTreeMap<UtcHour, Hour>, hour: UtcHour, what: &Hour, days: Days) -> Option<Mark> {
    let kind = Kind::QuietMinutes;
    let minute =
        |hour: &Hour| median(hour.minutes().iter().flatten().map(|n| to_float(*n))).unwrap_or_default();
    let level = expect_with(own, hour, days, LEAST_MINUTE, minute)?.low;
    if level < LEAST_MINUTE {
        return None;
    }
    let longest = |hour: &Hour| longest_run(hour, QUIET * level);
    let run = longest(what);
    if run < 1.0 {
        return None;
    }
    let Expectation { usual, high, .. } = expect_with(own, hour, days, kind.floor(), longest)?;
    let observed = Bounds { low: run, high: run };
    Some(Mark { kind, key: NO_KEY, observed, usual, expected: high, score: run - high })
}

/// Watched minutes in a row with fewer packets than `level`.
fn longest_run(hour: &Hour, level: f64) -> f64 {
    let (mut run, mut longest) = (0.0_f64, 0.0_f64);
    for packets in hour.minutes() {
        run = if packets.is_some_and(|n| to_float(n) < level) { run + 1.0 } else { 0.0 };
        longest = longest.max(run);
    }
    longest
}

/// Services that should have had sessions.
fn missing_services(own: &BTreeMap<UtcHour, Hour>, hour: UtcHour, what: &Hour, days: Days) -> Vec<Mark> {
    let kind = Kind::ServiceMissing;
    let yesterday = |days: u64| own.get(&UtcHour::from_hours(hour.hours().checked_sub(days * 24)?));
    let before = [1, 2, 7].into_iter().filter_map(yesterday);
    let services: BTreeSet<KeyId> = before
        .flat_map(Hour::keys)
        .filter(|(kind, _)| *kind == Kind::ServiceSessions)
        .map(|(_, key)| key)
        .collect();
    let mut marks = Vec::new();
    for key in services {
        let sessions =
            |hour: &Hour| hour.value(Kind::ServiceSessions, key).high * 60.0 / f64::from(hour.covered());
        let now = sessions(what);
        if let Some(Expectation { usual, low, spread, .. }) =
            expect_with(own, hour, days, kind.floor(), sessions)
            && low >= LEAST_SESSIONS
            && now < MISSING * low
        {
            let observed = what.value(Kind::ServiceSessions, key);
            marks.push(Mark { kind, key, observed, usual, expected: low, score: (low - now) / spread });
        }
    }
    marks
}

/// Pairs that talk regularly and did not on other days.
fn recurring(past: &Past<'_>, hour: UtcHour, what: &Hour, days: Days) -> Vec<Mark> {
    let regular = |pair: &&Pair| {
        let regularity = Regularity::of(&pair.activity)?;
        let alike = f64::from(regularity.regular) / f64::from(regularity.intervals);
        (alike >= LEAST_ALIKE && regularity.deviations >= LEAST_REGULARITY / BAR_MARGIN).then_some(regularity)
    };
    let mut marks = Vec::new();
    for (pair, regularity) in what.pairs().filter_map(|pair| Some((pair, regular(&pair)?))) {
        if past.knows(hour, days, pair.key) {
            continue;
        }
        let starts = to_float(pair.starts);
        let observed = Bounds { low: starts, high: starts };
        let (kind, key, score) = (Kind::Recurring, pair.key, regularity.deviations);
        marks.push(Mark { kind, key, observed, usual: 0.0, expected: 0.0, score });
    }
    marks
}

/// The hours of an interface, and on which days a pair is in one of them.
struct Past<'a> {
    hours: &'a BTreeMap<UtcHour, Hour>,
    watched: BTreeSet<u64>,
    pairs: HashMap<KeyId, BTreeSet<u64>>,
}

impl<'a> Past<'a> {
    fn of(hours: &'a BTreeMap<UtcHour, Hour>) -> Self {
        let mut pairs: HashMap<KeyId, BTreeSet<u64>> = HashMap::new();
        for (hour, what) in hours {
            for pair in what.pairs() {
                pairs.entry(pair.key).or_default().insert(day(*hour));
            }
        }
        Self { hours, watched: hours.keys().map(|hour| day(*hour)).collect(), pairs }
    }

    /// Did the pair talk again and again on more than a few of the other days? Without other days: yes.
    fn knows(&self, hour: UtcHour, days: Days, pair: KeyId) -> bool {
        let from = day(hour).saturating_sub(super::baseline::DAYS);
        let count =
            |set: &BTreeSet<u64>| set.range(from..days.end).filter(|day| **day != days.except).count();
        let (known, watched) = (self.pairs.get(&pair).map_or(0, count), count(&self.watched));
        let float = |n: usize| to_float(u64::try_from(n).unwrap_or(u64::MAX));
        watched == 0 || float(known) > KNOWN_PAIR * float(watched)
    }
}
