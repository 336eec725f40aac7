//! Timestamps of packets: nanoseconds since the Unix epoch, and the UTC hour a segment belongs to.
//!
//! Never asks the clock: a `now` is always a parameter.

use std::fmt;

/// Nanoseconds in a second.
pub const NANOS_PER_SEC: u64 = 1_000_000_000;
/// Nanoseconds in an hour.
pub const NANOS_PER_HOUR: u64 = 3_600 * NANOS_PER_SEC;

/// Time of a packet: nanoseconds since 1970-01-01T00:00:00Z, below 2^63 (the year 2262).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The epoch itself.
    pub const ZERO: Self = Self(0);
    /// The last representable time, 2^63 - 1 ns.
    pub const MAX: Self = Self(i64::MAX as u64);

    /// A time from nanoseconds since the epoch; `None` at 2^63 ns and beyond.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Option<Self> {
        if nanos <= Self::MAX.0 { Some(Self(nanos)) } else { None }
    }

    /// A time from nanoseconds since the epoch, cut to [`Timestamp::MAX`].
    #[must_use]
    pub const fn from_nanos_saturating(nanos: u64) -> Self {
        if nanos <= Self::MAX.0 { Self(nanos) } else { Self::MAX }
    }

    /// Nanoseconds since the epoch.
    #[must_use]
    pub const fn nanos(self) -> u64 {
        self.0
    }

    /// The UTC hour this time lies in.
    #[must_use]
    pub const fn hour(self) -> UtcHour {
        UtcHour(self.0 / NANOS_PER_HOUR)
    }

    /// This time plus `nanos`, cut to [`Timestamp::MAX`].
    #[must_use]
    pub const fn saturating_add(self, nanos: u64) -> Self {
        Self::from_nanos_saturating(self.0.saturating_add(nanos))
    }

    /// This time minus `nanos`, cut to the epoch.
    #[must_use]
    pub const fn saturating_sub(self, nanos: u64) -> Self {
        Self(self.0.saturating_sub(nanos))
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with nine digits: `2026-11-21T18:00:00.000000000Z`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_nanosecond(i128::from(self.0)) {
            Ok(t) => write!(f, "{t:.9}"),
            // Cannot happen: every value below 2^63 ns lies inside jiff's range. Say the number anyway.
            Err(_) => write!(f, "{} ns", self.0),
        }
    }
}

/// An hour of UTC, counted from the epoch; names the folder `dt=YYYY-MM-DD/hr=HH`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UtcHour(u64);

impl UtcHour {
    /// The hour that is `hours` hours after the epoch.
    #[must_use]
    pub const fn from_hours(hours: u64) -> Self {
        Self(hours)
    }

    /// Hours since the epoch.
    #[must_use]
    pub const fn hours(self) -> u64 {
        self.0
    }

    /// First nanosecond of the hour.
    #[must_use]
    pub const fn start(self) -> Timestamp {
        Timestamp::from_nanos_saturating(self.0.saturating_mul(NANOS_PER_HOUR))
    }

    /// First nanosecond after the hour.
    #[must_use]
    pub const fn end(self) -> Timestamp {
        Timestamp::from_nanos_saturating(self.0.saturating_add(1).saturating_mul(NANOS_PER_HOUR))
    }

    /// The date part of the folder name, `YYYY-MM-DD`.
    #[must_use]
    pub fn date(self) -> String {
        self.start().to_string().chars().take(10).collect()
    }

    /// Hour of the day, 0..=23.
    #[must_use]
    pub const fn hour_of_day(self) -> u64 {
        self.0 % 24
    }
}
