//! What the same hour of other days lets one expect of a number.

use super::hours::{Hour, KeyId, MIN_MINUTES};
use super::kind::Kind;
use std::collections::BTreeMap;
use tapedeck_packet::UtcHour;

/// Days back that are compared with.
pub const DAYS: u64 = 28;
/// A habit that varies by less than this share is taken to vary so much: the limit of what one wants to hear.
const LEAST_SPREAD: f64 = 0.10;
/// The median absolute deviation of a normal distribution, as its standard deviation.
const MAD_TO_SIGMA: f64 = 1.4826;
/// Growth or decline that is believed, per day, as a logarithm.
const STEEPEST: f64 = 0.12;
/// Days that a trend needs.
const TREND_DAYS: usize = 7;

/// The days whose hours may be compared with: all before `end` but `except`.
#[derive(Clone, Copy, Debug)]
pub struct Days {
    /// First day that may not, since the epoch.
    pub end: u64,
    /// One more that may not: the one that is judged.
    pub except: u64,
}

/// What to expect of a number in an hour, if nothing is unusual.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Expectation {
    /// The median of the same hour of other days.
    pub usual: f64,
    /// The least that would be expected by one of the comparisons.
    pub low: f64,
    /// The most.
    pub high: f64,
    /// By how much it varies from day to day.
    pub spread: f64,
    /// Days that this rests on.
    pub days: usize,
}

/// The day of an hour, since the epoch; and its weekday by its remainder of seven.
#[must_use]
pub const fn day(hour: UtcHour) -> u64 {
    hour.hours() / 24
}

/// A number on another day.
#[derive(Clone, Copy, Debug)]
struct Sample {
    days_ago: f64,
    value: f64,
    same_weekday: bool,
}

/// What `hours` let one expect of `kind` of `key` in `hour`. `None` without a day to compare with.
#[must_use]
pub fn expect(
    hours: &BTreeMap<UtcHour, Hour>,
    hour: UtcHour,
    days: Days,
    kind: Kind,
    key: KeyId,
) -> Option<Expectation> {
    let value = |hour: &Hour| hour.value(kind, key).high * 60.0 / f64::from(hour.covered());
    expect_with(hours, hour, days, kind.floor(), value)
}

/// The same of any number of an hour; `floor` as [`Kind::floor`].
#[must_use]
pub fn expect_with(
    hours: &BTreeMap<UtcHour, Hour>,
    hour: UtcHour,
    days: Days,
    floor: f64,
    value: impl Fn(&Hour) -> f64,
) -> Option<Expectation> {
    let own = samples(hours, hour, 0, days, &value);
    let usual = median(own.iter().map(|s| s.value))?;
    let (mut low, mut high) = (usual, usual);
    for beside in [-1, 0, 1] {
        let beside = if beside == 0 { own.clone() } else { samples(hours, hour, beside, days, &value) };
        let same_weekday = beside.iter().filter(|s| s.same_weekday).map(|s| s.value);
        for level in [median(beside.iter().map(|s| s.value)), median(same_weekday), trend(&beside)]
            .into_iter()
            .flatten()
        {
            (low, high) = (low.min(level), high.max(level));
        }
    }
    let deviation = median(own.iter().map(|s| (s.value - usual).abs())).unwrap_or_default();
    let spread = (MAD_TO_SIGMA * deviation).max(LEAST_SPREAD * usual).max((floor * usual).sqrt()).max(floor);
    Some(Expectation { usual, low, high, spread, days: own.len() })
}

/// The hours of other days that may be compared with, `beside` hours off.
fn samples(
    hours: &BTreeMap<UtcHour, Hour>,
    hour: UtcHour,
    beside: i64,
    days: Days,
    value: &impl Fn(&Hour) -> f64,
) -> Vec<Sample> {
    let today = day(hour);
    let mut samples = Vec::new();
    for other in today.saturating_sub(DAYS)..days.end.min(today + DAYS) {
        let moved = (other * 24 + hour.hour_of_day()).checked_add_signed(beside).map(UtcHour::from_hours);
        if other == days.except {
            continue;
        }
        if let Some(there) =
            moved.and_then(|hour| hours.get(&hour)).filter(|hour| hour.covered() >= MIN_MINUTES)
        {
            let same_weekday = today.abs_diff(other).is_multiple_of(7);
            let days_ago = super::hours::to_float(today) - super::hours::to_float(other);
            samples.push(Sample { days_ago, value: value(there), same_weekday });
        }
    }
    samples
}

/// The median of `values`; of an even number the mean of the two in the middle.
#[must_use]
pub fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.collect();
    values.sort_unstable_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len().is_multiple_of(2) {
        return Some(f64::midpoint(*values.get(middle - 1)?, upper));
    }
    Some(upper)
}

/// The median after every day was carried to today by the growth between the days (Theil and Sen: the median of
/// the slopes of all pairs of days, of the logarithm). `None` with too few days or days of nothing.
fn trend(samples: &[Sample]) -> Option<f64> {
    if samples.len() < TREND_DAYS || samples.iter().any(|s| s.value <= 0.0) {
        return None;
    }
    let pairs =
        samples.iter().enumerate().flat_map(|(at, a)| samples.iter().skip(at + 1).map(move |b| (a, b)));
    let slope = median(pairs.map(|(a, b)| (a.value / b.value).ln() / (b.days_ago - a.days_ago)))?;
    let slope = slope.clamp(-STEEPEST, STEEPEST);
    median(samples.iter().map(|s| s.value * (slope * s.days_ago).exp()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), Some(2.5));
        assert_eq!(median([].into_iter()), None);
    }

    #[test]
    fn a_steady_growth_is_carried_on_despite_two_days_that_fall_out() {
        let mut samples: Vec<Sample> = (1..=14)
            .map(|day| Sample {
                days_ago: f64::from(day),
                value: 1000.0 * (-0.05 * f64::from(day)).exp(),
                same_weekday: false,
            })
            .collect();
        samples[3].value *= 20.0;
        samples[9].value /= 20.0;
        let level = trend(&samples).unwrap();
        assert!((950.0..1050.0).contains(&level), "{level}");
    }
}
