//! Times and durations as an analyst types them.
//!
//! Exact to the nanosecond: no floating point anywhere. Never asks the clock: `now` is a parameter.

use std::fmt;
use tapedeck_packet::Timestamp;
use tapedeck_packet::time::NANOS_PER_SEC;

/// The forms of a time, for error messages and help.
pub const TIME_FORMS: &str = "2026-11-21T18:00:00Z, '2026-11-21 18:00', '2026-11-21 18:00:05.25', 2026-11-21, \
     1795284000.5 (Unix time), '2h ago' or now";

/// Why a text is not a time or a duration. Displays as a clause that follows the text.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' {why}")]
pub struct TimeError {
    /// What was typed.
    pub text: String,
    /// What is wrong with it.
    pub why: TimeProblem,
}

/// What is wrong with a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TimeProblem {
    /// None of the forms.
    Form,
    /// Looks like a duration without `ago`.
    NoAgo,
    /// More than nine digits after the point.
    TooFine,
    /// No such day or hour.
    NoSuchTime,
    /// Before 1970.
    BeforeEpoch,
    /// 2^63 ns after 1970 or later.
    TooLate,
    /// A whole number far beyond any date: milli-, micro- or nanoseconds.
    NotSeconds,
    /// Asked for a duration, got something else.
    Duration,
}

impl fmt::Display for TimeProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Form => "is not a time",
            Self::NoAgo => "is a duration, not a time",
            Self::TooFine => "is finer than a nanosecond",
            Self::NoSuchTime => "is not in the calendar or not on the clock",
            Self::BeforeEpoch => "is before 1970",
            Self::TooLate => "is after the year 2262",
            Self::NotSeconds => "is too large for a Unix time in seconds",
            Self::Duration => "is not a duration",
        })
    }
}

impl TimeError {
    fn new(text: &str, why: TimeProblem) -> Self {
        Self { text: text.to_owned(), why }
    }

    /// What to type instead.
    #[must_use]
    pub fn hint(&self) -> String {
        match self.why {
            TimeProblem::NoAgo => format!("a time so long before now is '{} ago'", self.text.trim()),
            TimeProblem::TooFine => "nine digits after the point are a nanosecond; drop the rest".to_owned(),
            TimeProblem::NotSeconds => "milliseconds or nanoseconds? put the point after the seconds, \
                                        e.g. 1795284000.123"
                .to_owned(),
            TimeProblem::Duration => "a duration is a number and a unit: 90s, 15m, 2h, 1h30m, 7d".to_owned(),
            _ => format!("a time is one of {TIME_FORMS}"),
        }
    }
}

/// Reads a time. Without a zone it is UTC.
///
/// # Errors
/// [`TimeError`] when `text` has none of the [`TIME_FORMS`] or names no time between 1970 and 2262.
pub fn parse_time(text: &str, now: Timestamp) -> Result<Timestamp, TimeError> {
    let fail = |why| TimeError::new(text, why);
    let t = text.trim();
    if t.eq_ignore_ascii_case("now") {
        return Ok(now);
    }
    if let Some(age) = strip_ago(t) {
        let nanos = duration_nanos(age).ok_or_else(|| fail(TimeProblem::Form))?;
        let at = now.nanos().checked_sub(nanos).ok_or_else(|| fail(TimeProblem::BeforeEpoch))?;
        return Timestamp::from_nanos(at).ok_or_else(|| fail(TimeProblem::TooLate));
    }
    if t.as_bytes().get(4) == Some(&b'-') {
        return calendar(t).map_err(fail);
    }
    if t.starts_with(|c: char| c.is_ascii_digit()) && t.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return unix(t).map_err(fail);
    }
    if t.starts_with('-') && t.len() > 1 && t.chars().skip(1).all(|c| c.is_ascii_digit() || c == '.') {
        return Err(fail(TimeProblem::BeforeEpoch));
    }
    Err(fail(if duration_nanos(t).is_some() { TimeProblem::NoAgo } else { TimeProblem::Form }))
}

/// Reads a duration such as `90s`, `2h` or `1h30m`, in nanoseconds.
///
/// # Errors
/// [`TimeError`] when `text` is no duration or is longer than 292 years.
pub fn parse_duration_ns(text: &str) -> Result<u64, TimeError> {
    duration_nanos(text.trim()).ok_or_else(|| TimeError::new(text, TimeProblem::Duration))
}

/// `2h ago` -> `2h`.
fn strip_ago(t: &str) -> Option<&str> {
    let (head, tail) = t.split_at_checked(t.len().checked_sub(3)?)?;
    (tail.eq_ignore_ascii_case("ago")).then(|| head.trim_end()).filter(|h| !h.is_empty())
}

/// Components of number and unit, largest unit first or not; `None` for anything else.
fn duration_nanos(text: &str) -> Option<u64> {
    if text.is_empty() {
        return None;
    }
    let mut rest = text;
    let mut total = 0u64;
    while !rest.is_empty() {
        let number_len = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at_checked(number_len)?;
        let tail = tail.trim_start();
        let unit_len = tail.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at_checked(unit_len)?;
        total = total.checked_add(scaled(number, unit_nanos(unit)?)?)?;
        rest = tail.trim_start();
    }
    (total <= Timestamp::MAX.nanos()).then_some(total)
}

fn unit_nanos(unit: &str) -> Option<u64> {
    Some(match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" | "sec" | "secs" | "second" | "seconds" => NANOS_PER_SEC,
        "m" | "min" | "mins" | "minute" | "minutes" => 60 * NANOS_PER_SEC,
        "h" | "hour" | "hours" => 3_600 * NANOS_PER_SEC,
        "d" | "day" | "days" => 86_400 * NANOS_PER_SEC,
        "w" | "week" | "weeks" => 7 * 86_400 * NANOS_PER_SEC,
        _ => return None,
    })
}

/// `1.5` times `unit`, exact; `None` if it is no number, overflows or is finer than a nanosecond.
fn scaled(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if number.ends_with('.') || !all_digits(whole) || !fraction.chars().all(|c| c.is_ascii_digit()) {
        return None;
    }
    let mut total = whole.parse::<u64>().ok()?.checked_mul(unit)?;
    let mut place = unit;
    for digit in fraction.chars() {
        if !place.is_multiple_of(10) && digit != '0' {
            return None;
        }
        place /= 10;
        total = total.checked_add(place.checked_mul(u64::from(digit.to_digit(10)?))?)?;
    }
    Some(total)
}

fn all_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Seconds since the epoch, with a fraction of at most nine digits.
fn unix(text: &str) -> Result<Timestamp, TimeProblem> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
    if !all_digits(whole) || !all_digits(fraction) {
        return Err(TimeProblem::Form);
    }
    let seconds = whole.parse::<u64>().map_err(|_| TimeProblem::NotSeconds)?;
    let nanos = seconds
        .checked_mul(NANOS_PER_SEC)
        .and_then(Timestamp::from_nanos)
        .ok_or(TimeProblem::NotSeconds)?
        .nanos()
        .checked_add(fraction_nanos(fraction)?);
    nanos.and_then(Timestamp::from_nanos).ok_or(TimeProblem::TooLate)
}

/// The digits behind a decimal point as nanoseconds. Further zeros are harmless.
fn fraction_nanos(digits: &str) -> Result<u64, TimeProblem> {
    let trimmed = digits.trim_end_matches('0');
    if trimmed.len() > 9 {
        return Err(TimeProblem::TooFine);
    }
    let padded = format!("{trimmed:0<9}");
    padded.parse().map_err(|_| TimeProblem::Form)
}

/// `YYYY-MM-DD[(T| )HH:MM[:SS[.frac]][Z|+HH:MM|-HH:MM]]`.
fn calendar(text: &str) -> Result<Timestamp, TimeProblem> {
    let (date, clock) = text.split_at_checked(10).ok_or(TimeProblem::Form)?;
    let [year, month, day] = numbers::<3>(date, '-', &[4, 2, 2]).ok_or(TimeProblem::Form)?;
    let mut seconds = days_from_epoch(year, month, day)?.checked_mul(86_400).ok_or(TimeProblem::TooLate)?;
    let mut nanos = 0;
    if !clock.is_empty() {
        let clock = clock.strip_prefix(['T', 't', ' ']).ok_or(TimeProblem::Form)?;
        let (clock, offset_s) = zone(clock)?;
        let (second, fraction) = time_of_day(clock)?;
        seconds = seconds + second - offset_s;
        nanos = fraction;
    }
    let seconds = u64::try_from(seconds).map_err(|_| TimeProblem::BeforeEpoch)?;
    let total = seconds.checked_mul(NANOS_PER_SEC).and_then(|s| s.checked_add(nanos));
    total.and_then(Timestamp::from_nanos).ok_or(TimeProblem::TooLate)
}

/// Days from 1970-01-01 to a date of the proleptic Gregorian calendar; may be negative.
fn days_from_epoch(year: i64, month: i64, day: i64) -> Result<i64, TimeProblem> {
    let small = |n: i64| i8::try_from(n).map_err(|_| TimeProblem::NoSuchTime);
    let year = i16::try_from(year).map_err(|_| TimeProblem::NoSuchTime)?;
    let date =
        jiff::civil::Date::new(year, small(month)?, small(day)?).map_err(|_| TimeProblem::NoSuchTime)?;
    let since = date.since(jiff::civil::date(1970, 1, 1)).map_err(|_| TimeProblem::NoSuchTime)?;
    Ok(i64::from(since.get_days()))
}

/// Splits the zone off a clock time; its offset east of Greenwich in seconds.
fn zone(clock: &str) -> Result<(&str, i64), TimeProblem> {
    if let Some(head) = clock.strip_suffix(['Z', 'z']) {
        return Ok((head, 0));
    }
    let Some(at) = clock.rfind(['+', '-']) else { return Ok((clock, 0)) };
    let (head, offset) = clock.split_at_checked(at).ok_or(TimeProblem::Form)?;
    let sign = if offset.starts_with('-') { -1 } else { 1 };
    let digits = offset.trim_start_matches(['+', '-']);
    let [hour, minute] = numbers::<2>(digits, ':', &[2, 2]).ok_or(TimeProblem::Form)?;
    if hour > 23 || minute > 59 {
        return Err(TimeProblem::NoSuchTime);
    }
    Ok((head, sign * (hour * 3_600 + minute * 60)))
}

/// `HH:MM[:SS[.frac]]` as (seconds of the day, nanoseconds).
fn time_of_day(clock: &str) -> Result<(i64, u64), TimeProblem> {
    let (clock, fraction) = match clock.split_once('.') {
        Some((head, digits)) if all_digits(digits) => (head, Some(fraction_nanos(digits)?)),
        Some(_) => return Err(TimeProblem::Form),
        None => (clock, None),
    };
    let [hour, minute, second] = match numbers::<3>(clock, ':', &[2, 2, 2]) {
        Some(all) => all,
        None if fraction.is_none() => {
            let [hour, minute] = numbers::<2>(clock, ':', &[2, 2]).ok_or(TimeProblem::Form)?;
            [hour, minute, 0]
        }
        None => return Err(TimeProblem::Form),
    };
    if hour > 23 || minute > 59 || second > 59 {
        return Err(TimeProblem::NoSuchTime);
    }
    Ok((hour * 3_600 + minute * 60 + second, fraction.unwrap_or(0)))
}

/// Exactly `N` numbers of the given widths between `separator`s.
fn numbers<const N: usize>(text: &str, separator: char, widths: &[usize; N]) -> Option<[i64; N]> {
    let mut out = [0; N];
    let mut parts = text.split(separator);
    for (slot, width) in out.iter_mut().zip(widths) {
        let part = parts.next().filter(|p| p.len() == *width && all_digits(p))?;
        *slot = part.parse().ok()?;
    }
    parts.next().is_none().then_some(out)
}

#[cfg(test)]
mod tests;
