//! The clock of a network card: read beside CLOCK_MONOTONIC each second, so that the XDP program can bring the
//! card's stamps to that clock.
//!
//! Whether the card's clock runs free, on TAI or on UTC does not matter: only how it runs beside CLOCK_MONOTONIC, which
//! the system's clock takes to UTC as it does the program's own stamps. A clock that was stepped, or that runs wildly, says
//! nothing until two readings agree again. It must never be asked for the time of a packet.

use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use tapedeck_ebpf::{CARD_AHEAD_NS, CardCounts, CardSample, Program, ProgramError};

/// Readings per sample; the one with the narrowest bracket counts.
const READINGS: usize = 8;
/// Two readings that are nearer say too little of the rate.
const APART_NS: u64 = 100_000_000;
/// No clock of a card runs wronger than one part in so many, also while it is being steered.
const WILD: u64 = 1000;
/// A rate of 1 in [`CardSample::rate`].
const UNIT: i128 = 1 << 30;

/// Both clocks at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CardReading {
    /// The card's, nanoseconds.
    pub card_ns: u64,
    /// CLOCK_MONOTONIC, nanoseconds.
    pub monotonic_ns: u64,
    /// The two are of the same moment up to half of this, nanoseconds.
    pub width_ns: u64,
}

/// Reads both clocks several times and keeps the reading with the narrowest bracket.
///
/// # Errors
/// The kernel's answer.
pub fn read(clock: ClockId) -> io::Result<CardReading> {
    let nanos = |clock: ClockId| -> io::Result<u64> {
        let time = clock_gettime(clock)?;
        let sec = u64::try_from(time.tv_sec()).unwrap_or(0);
        Ok(sec.wrapping_mul(1_000_000_000).wrapping_add(u64::try_from(time.tv_nsec()).unwrap_or(0)))
    };
    let mut best: Option<CardReading> = None;
    for _ in 0..READINGS {
        let before = nanos(ClockId::CLOCK_MONOTONIC)?;
        let card_ns = nanos(clock)?;
        let width_ns = nanos(ClockId::CLOCK_MONOTONIC)?.wrapping_sub(before);
        if best.is_none_or(|best| width_ns < best.width_ns) {
            best = Some(CardReading { card_ns, monotonic_ns: before.wrapping_add(width_ns / 2), width_ns });
        }
    }
    best.ok_or_else(|| io::Error::from(io::ErrorKind::Other))
}

/// How a card's clock runs beside CLOCK_MONOTONIC.
#[derive(Clone, Copy, Debug, Default)]
pub struct Pace {
    last: Option<CardReading>,
    sample: Option<CardSample>,
    jumps: u64,
}

impl Pace {
    /// Takes a reading in, about one a second. `None`: nobody knows yet how the clock runs, or not any more.
    pub fn take(&mut self, reading: CardReading) -> Option<CardSample> {
        // A reading that took too long says less than the one before; the program forgets that by itself.
        if reading.width_ns > CARD_AHEAD_NS {
            return self.sample;
        }
        let Some(last) = self.last else {
            self.last = Some(reading);
            return None;
        };
        let monotonic = reading.monotonic_ns.saturating_sub(last.monotonic_ns);
        if monotonic < APART_NS {
            return self.sample;
        }
        self.last = Some(reading);
        let card = i128::from(reading.card_ns) - i128::from(last.card_ns);
        let gained = i128::from(monotonic) - card;
        let slack = monotonic / WILD + reading.width_ns + last.width_ns;
        self.sample = if card > 0 && gained.unsigned_abs() <= u128::from(slack) {
            let (card_ns, ktime_ns) = (reading.card_ns, reading.monotonic_ns);
            i64::try_from(gained * UNIT / card).ok().map(|rate| CardSample { card_ns, ktime_ns, rate })
        } else {
            self.jumps += 1;
            None
        };
        self.sample
    }

    /// How often the clock has jumped, or run wildly.
    #[must_use]
    pub fn jumps(&self) -> u64 {
        self.jumps
    }
}

/// What is known of a card that stamps packets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CardState {
    /// Its clock, as in /dev.
    pub clock: String,
    /// Packets that it stamped.
    pub stamped: u64,
    /// Packets that the program stamped: the card gave no stamp, or its clock was not known.
    pub absent: u64,
    /// Packets that the program stamped, because the card's stamp could not be.
    pub refused: u64,
    /// UTC minus its clock, nanoseconds, by the system's clock; `None` while nobody knows how it runs.
    pub utc_offset_ns: Option<i64>,
    /// What it gains on CLOCK_MONOTONIC, parts in a thousand million.
    pub rate_ppb: i64,
    /// Both clocks were read within this time, nanoseconds.
    pub width_ns: u64,
    /// How often it jumped.
    pub jumps: u64,
}

impl CardState {
    /// For people.
    #[must_use]
    pub fn text(&self) -> String {
        let Self { clock, stamped, absent, refused, rate_ppb, width_ns, jumps, .. } = self;
        format!(
            "{clock}: {stamped} packets stamped by the card; by the program {absent} without its stamp, {refused} whose \
             stamp cannot be; rate {rate_ppb} ppb, read within {width_ns} ns, jumped {jumps} times"
        )
    }
}

/// The clock of the card of an interface in use.
#[derive(Debug)]
pub(crate) struct Card {
    number: u32,
    device: File,
    pace: Pace,
    reading: Option<CardReading>,
    failed: bool,
}

impl Card {
    /// The clock /dev/ptp`number`.
    ///
    /// # Errors
    /// There is no such device, or it cannot be read.
    pub(crate) fn open(number: u32) -> io::Result<Self> {
        let device = File::open(format!("/dev/ptp{number}"))?;
        let mut card = Self { number, device, pace: Pace::default(), reading: None, failed: false };
        let first = read(card.id())?;
        card.pace.take(first);
        Ok(card)
    }

    /// `FD_TO_CLOCKID` (clock_getres(2)).
    fn id(&self) -> ClockId {
        ClockId::from_raw((!self.device.as_raw_fd() << 3) | 3)
    }

    /// The number of its clock.
    pub(crate) fn number(&self) -> u32 {
        self.number
    }

    /// Reads the clock and tells the program, with UTC minus CLOCK_MONOTONIC.
    pub(crate) fn tell(&mut self, program: &Program, utc_offset_ns: u64) -> Result<(), ProgramError> {
        let sample = match read(self.id()) {
            Ok(reading) => {
                self.failed = false;
                self.reading = Some(reading);
                let before = self.pace.sample;
                let sample = self.pace.take(reading);
                // Once, also of a clock that does not run.
                if before.is_some() && sample.is_none() {
                    tracing::warn!(
                        "the clock ptp{} jumped: packets are stamped by the program meanwhile",
                        self.number
                    );
                }
                sample
            }
            Err(error) => {
                if !std::mem::replace(&mut self.failed, true) {
                    tracing::warn!(%error, "the clock ptp{} cannot be read: packets are stamped by the program", self.number);
                }
                None
            }
        };
        program.set_card(sample, utc_offset_ns)
    }

    /// What is known of it; `utc_offset_ns` is UTC minus CLOCK_MONOTONIC.
    pub(crate) fn state(&self, program: &Program, utc_offset_ns: u64) -> Result<CardState, ProgramError> {
        let CardCounts { stamped, absent, refused } = program.card_counts()?.unwrap_or_default();
        let sample = self.pace.sample;
        let offset = |sample: CardSample| {
            let utc = i128::from(sample.ktime_ns) + i128::from(utc_offset_ns);
            i64::try_from(utc - i128::from(sample.card_ns)).ok()
        };
        let rate = sample.map_or(0, |sample| i128::from(-sample.rate) * 1_000_000_000 / UNIT);
        Ok(CardState {
            clock: format!("ptp{}", self.number),
            stamped,
            absent,
            refused,
            utc_offset_ns: sample.and_then(offset),
            rate_ppb: i64::try_from(rate).unwrap_or(0),
            width_ns: self.reading.map_or(0, |reading| reading.width_ns),
            jumps: self.pace.jumps(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn reading(card_ns: u64, monotonic_ns: u64) -> CardReading {
        CardReading { card_ns, monotonic_ns, width_ns: 800 }
    }

    const SECOND: u64 = 1_000_000_000;

    #[test]
    fn two_readings_say_how_it_runs() {
        let mut pace = Pace::default();
        assert_eq!(pace.take(reading(5, 7 * SECOND)), None);
        // 50 ppm fast.
        let sample = pace.take(reading(5 + SECOND + 50_000, 8 * SECOND)).unwrap();
        assert_eq!((sample.card_ns, sample.ktime_ns), (5 + SECOND + 50_000, 8 * SECOND));
        assert_eq!(sample.rate, -53_684);
        assert_eq!(pace.jumps(), 0);
    }

    #[test]
    fn a_jump_says_nothing_until_two_readings_agree_again() {
        let mut pace = Pace::default();
        pace.take(reading(SECOND, SECOND));
        assert!(pace.take(reading(2 * SECOND, 2 * SECOND)).is_some());
        // To TAI, back by more than it ran, and into the past by less.
        for (at, to) in [(3, 40 * SECOND), (5, 5 * SECOND), (7, 6_900_000_000)] {
            assert_eq!(pace.take(reading(to, at * SECOND)), None);
            assert!(pace.take(reading(to + SECOND, (at + 1) * SECOND)).is_some());
        }
        assert_eq!(pace.jumps(), 3);
    }

    #[test]
    fn a_reading_that_took_too_long_changes_nothing() {
        let mut pace = Pace::default();
        pace.take(reading(SECOND, SECOND));
        let sample = pace.take(reading(2 * SECOND, 2 * SECOND));
        let slow = CardReading { width_ns: CARD_AHEAD_NS + 1, ..reading(9 * SECOND, 3 * SECOND) };
        assert_eq!(pace.take(slow), sample);
        assert_eq!(pace.take(reading(2 * SECOND + 1, 2 * SECOND + 1)), sample);
        assert_eq!(pace.jumps(), 0);
    }

    #[test]
    fn a_clock_of_the_system_is_read_as_a_card() {
        let raw = ClockId::CLOCK_MONOTONIC_RAW;
        let (a, b) = (read(raw).unwrap(), read(raw).unwrap());
        assert!(b.card_ns > a.card_ns && b.monotonic_ns > a.monotonic_ns);
    }

    proptest! {
        /// Whatever a card says, its rate stays what the program's arithmetic takes.
        #[test]
        fn no_reading_makes_a_wild_rate(readings in prop::collection::vec((any::<u64>(), any::<u64>(), 0u64..100_000), 0..20)) {
            let mut pace = Pace::default();
            for (card_ns, monotonic_ns, width_ns) in readings {
                if let Some(sample) = pace.take(CardReading { card_ns, monotonic_ns, width_ns }) {
                    prop_assert!(sample.rate.unsigned_abs() < 1 << 21);
                }
            }
        }

        /// Between two samples the straight line of the last two is off by no more than the brackets.
        #[test]
        fn the_line_goes_on(ppm in -500i64..500, start in 0u64..(1 << 60), later in 0u64..2 * SECOND) {
            let mut pace = Pace::default();
            let card = |monotonic: u64| start + monotonic.wrapping_add_signed(monotonic.cast_signed() / 1_000_000 * ppm);
            pace.take(reading(card(SECOND), SECOND));
            let sample = pace.take(reading(card(2 * SECOND), 2 * SECOND)).unwrap();
            let stamp = card(2 * SECOND + later);
            let since = stamp.wrapping_sub(sample.card_ns).cast_signed();
            let time = sample.ktime_ns.wrapping_add_signed(since + ((since * sample.rate) >> 30));
            prop_assert!(time.abs_diff(2 * SECOND + later) < 2_000, "{}", time.abs_diff(2 * SECOND + later));
        }
    }
}
