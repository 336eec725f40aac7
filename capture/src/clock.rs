//! From the program's clock to UTC.
//!
//! Packets are stamped with CLOCK_MONOTONIC, which nothing ever steps. Its distance to UTC is sampled
//! each second by one thread ([`Clock::sample`]) and read by every worker once per batch
//! ([`Clock::conversion`]). Between two samples the offset moves in a straight line, so the times of a
//! queue never go back when the system clock is slewed. A step of more than a second takes effect at
//! once and is reported; one of more than a day is not believed, neither here nor in stamps that the kernel took
//! from the system clock itself ([`Conversion::believed`]), unless the operator says so ([`Clock::accept_jumps`]).
//!
//! It must never be asked for the time of a packet.

use nix::time::{ClockId, clock_gettime};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, AtomicU64, Ordering, fence};
use tapedeck_packet::Timestamp;
use tapedeck_packet::time::NANOS_PER_SEC;

/// Readings per sample; the one with the narrowest bracket counts.
const READINGS: usize = 8;
/// From here on a change of the offset is a step, not a slew.
const STEP_NS: u64 = NANOS_PER_SEC;
/// From here on a step is not believed.
const QUARANTINE_NS: u64 = 24 * 3600 * NANOS_PER_SEC;
/// A new offset is reached this long after its sample.
const GLIDE_NS: i64 = 1_000_000_000;

/// UTC minus CLOCK_MONOTONIC at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// CLOCK_MONOTONIC, nanoseconds.
    pub monotonic_ns: u64,
    /// UTC minus that.
    pub offset_ns: i64,
}

/// How to convert, as of the last sample.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Conversion {
    /// CLOCK_MONOTONIC of the last sample.
    since_ns: i64,
    /// Offset that holds up to then.
    from_ns: i64,
    /// Offset that is reached [`GLIDE_NS`] later.
    to_ns: i64,
    /// Jumps are believed.
    accepts: bool,
}

impl Conversion {
    /// The offset at a moment of CLOCK_MONOTONIC.
    #[must_use]
    fn offset_at(&self, monotonic_ns: i64) -> i64 {
        let way = self.to_ns.wrapping_sub(self.from_ns);
        if way == 0 {
            return self.to_ns;
        }
        let gone = monotonic_ns.wrapping_sub(self.since_ns).clamp(0, GLIDE_NS);
        // |way| is at most a second (larger ones step), so the product stays below 2^63.
        self.from_ns.wrapping_add(way.wrapping_mul(gone) / GLIDE_NS)
    }

    /// The offset that is being approached, for whoever counts in whole seconds only.
    #[must_use]
    pub fn offset_ns(&self) -> u64 {
        u64::try_from(self.to_ns).unwrap_or(0)
    }

    /// A time of the system clock as these conversions have it: the same, unless it lies more than a day from `about`,
    /// a time of now. Then `read` gives the clocks as they stand, and the time is moved by what is not believed of the
    /// system's; `None` where that leaves it a day away still, as after a jump between stamp and reading. Where jumps
    /// are accepted every stamp is believed.
    pub fn believed(
        &self,
        system_ns: u64,
        about: Timestamp,
        read: impl FnOnce() -> Option<Reading>,
    ) -> Option<Timestamp> {
        let near = |ns: u64| ns.abs_diff(about.nanos()) <= QUARANTINE_NS;
        if self.accepts || near(system_ns) {
            return Some(Timestamp::from_nanos_saturating(system_ns));
        }
        let reading = read()?;
        let now = i64::try_from(reading.monotonic_ns).unwrap_or(i64::MAX);
        let ahead = reading.offset_ns.wrapping_sub(self.offset_at(now));
        let moved = i64::try_from(system_ns).ok()?.checked_sub(ahead)?;
        u64::try_from(moved).ok().filter(|ns| near(*ns)).map(Timestamp::from_nanos_saturating)
    }

    /// UTC of a moment of CLOCK_MONOTONIC, cut to what a [`Timestamp`] holds.
    #[must_use]
    pub fn utc(&self, monotonic_ns: u64) -> Timestamp {
        let monotonic = i64::try_from(monotonic_ns).unwrap_or(i64::MAX);
        let utc = monotonic.saturating_add(self.offset_at(monotonic));
        Timestamp::from_nanos_saturating(u64::try_from(utc).unwrap_or(0))
    }
}

/// What a sample brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The offset moved by less than a second, or not at all.
    Slewed,
    /// The system clock was stepped; times jump by `to_ns - from_ns`.
    Stepped {
        /// Offset before.
        from_ns: i64,
        /// Offset from now on.
        to_ns: i64,
    },
    /// The system clock jumped by more than a day. The old offset stays.
    Quarantined {
        /// Offset in use.
        from_ns: i64,
        /// Offset not believed.
        to_ns: i64,
    },
    /// The system clock came back after such a jump.
    Believed {
        /// Offset that was not believed.
        from_ns: i64,
        /// Offset from now on.
        to_ns: i64,
    },
}

/// The offset shared by all workers. One thread samples, any number read.
#[derive(Debug)]
pub struct Clock {
    // A seqlock: `version` is odd while the three numbers are being written.
    version: AtomicU32,
    since_ns: AtomicI64,
    from_ns: AtomicI64,
    to_ns: AtomicI64,
    steps: AtomicU64,
    /// By how much the system clock is ahead of what is believed; 0 = it is believed.
    ahead_ns: AtomicI64,
    turns: AtomicU64,
    /// Jumps are to be believed from the next sample on. Stands alone: Relaxed.
    wanted: AtomicBool,
    /// Jumps are believed. Stands alone: Relaxed.
    accepts: AtomicBool,
}

impl Clock {
    /// A clock set by a first reading.
    #[must_use]
    pub fn new(first: Reading) -> Self {
        Self {
            version: AtomicU32::new(0),
            since_ns: AtomicI64::new(i64::try_from(first.monotonic_ns).unwrap_or(i64::MAX)),
            from_ns: AtomicI64::new(first.offset_ns),
            to_ns: AtomicI64::new(first.offset_ns),
            steps: AtomicU64::new(0),
            ahead_ns: AtomicI64::new(0),
            turns: AtomicU64::new(0),
            wanted: AtomicBool::new(false),
            accepts: AtomicBool::new(false),
        }
    }

    /// The same clock, which believes jumps from its first reading on, or does not.
    #[must_use]
    pub fn accepting(mut self, accepts: bool) -> Self {
        (*self.wanted.get_mut(), *self.accepts.get_mut()) = (accepts, accepts);
        self
    }

    /// From the next sample on jumps of more than a day are believed as smaller steps are, one that is doubted now
    /// included; or not. Not at once: the segment that says it is doubted has to end first. Returns what was wanted
    /// before.
    pub fn accept_jumps(&self, accepts: bool) -> bool {
        self.wanted.swap(accepts, Ordering::Relaxed)
    }

    /// How to convert now.
    #[must_use]
    pub fn conversion(&self) -> Conversion {
        loop {
            // Acquire: partner is the Release store at the end of `set`.
            let before = self.version.load(Ordering::Acquire);
            let read = Conversion {
                since_ns: self.since_ns.load(Ordering::Relaxed),
                from_ns: self.from_ns.load(Ordering::Relaxed),
                to_ns: self.to_ns.load(Ordering::Relaxed),
                accepts: self.accepts.load(Ordering::Relaxed),
            };
            // Partner is the Release fence in `set`: had one of the numbers been new, so is the version.
            fence(Ordering::Acquire);
            if before.is_multiple_of(2) && self.version.load(Ordering::Relaxed) == before {
                return read;
            }
            std::hint::spin_loop();
        }
    }

    /// Takes a reading in. To be called by one thread only, about once a second.
    pub fn sample(&self, reading: Reading) -> Change {
        let wanted = self.wanted.load(Ordering::Relaxed);
        let change = self.take(reading, wanted);
        // Behind the new offset and the turn: whoever believes a stamp knows of them.
        self.accepts.store(wanted, Ordering::Relaxed);
        change
    }

    fn take(&self, reading: Reading, accepts: bool) -> Change {
        let now = i64::try_from(reading.monotonic_ns).unwrap_or(i64::MAX);
        let in_use = self.conversion().offset_at(now);
        let change = reading.offset_ns.abs_diff(in_use);
        let ahead = self.ahead_ns.load(Ordering::Relaxed);
        if change > QUARANTINE_NS && !accepts {
            self.believe(reading.offset_ns.wrapping_sub(in_use));
            return Change::Quarantined { from_ns: in_use, to_ns: reading.offset_ns };
        }
        if change > STEP_NS {
            self.steps.fetch_add(1, Ordering::Relaxed);
            self.set(now, reading.offset_ns, reading.offset_ns);
            self.believe(0);
            // Release: partner is the Acquire load in `turns`.
            self.turns.fetch_add(1, Ordering::Release);
            return Change::Stepped { from_ns: in_use, to_ns: reading.offset_ns };
        }
        self.set(now, in_use, reading.offset_ns);
        if ahead == 0 {
            return Change::Slewed;
        }
        self.believe(0);
        Change::Believed { from_ns: in_use.wrapping_add(ahead), to_ns: reading.offset_ns }
    }

    /// Notes by how much the system clock is ahead of what is believed.
    fn believe(&self, ahead_ns: i64) {
        let before = self.ahead_ns.swap(ahead_ns, Ordering::Relaxed);
        if (before == 0) != (ahead_ns == 0) {
            // Release: partner is the Acquire load in `turns`.
            self.turns.fetch_add(1, Ordering::Release);
        }
    }

    /// The system clock is not believed.
    #[must_use]
    pub fn quarantined(&self) -> bool {
        self.ahead_ns.load(Ordering::Relaxed) != 0
    }

    /// Number of events so far that end a segment: steps, and the system clock believed no more or again. What was
    /// noted before is seen by whoever reads the number.
    #[must_use]
    pub fn turns(&self) -> u64 {
        // Acquire: partner is the Release in `sample` and `believe`.
        self.turns.load(Ordering::Acquire)
    }

    /// Steps of the system clock so far.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.steps.load(Ordering::Relaxed)
    }

    /// The offset goes from one to the other from now on.
    fn set(&self, since_ns: i64, from_ns: i64, to_ns: i64) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version.wrapping_add(1), Ordering::Relaxed);
        // Partner is the Acquire fence in `conversion`.
        fence(Ordering::Release);
        self.since_ns.store(since_ns, Ordering::Relaxed);
        self.from_ns.store(from_ns, Ordering::Relaxed);
        self.to_ns.store(to_ns, Ordering::Relaxed);
        // Release: partner is the first load in `conversion`.
        self.version.store(version.wrapping_add(2), Ordering::Release);
    }
}

/// Reads both clocks several times and keeps the reading with the narrowest bracket.
///
/// # Errors
/// The kernel's answer.
pub fn read() -> io::Result<Reading> {
    let nanos = |clock| -> io::Result<i64> {
        let time = clock_gettime(clock)?;
        Ok(time.tv_sec().wrapping_mul(1_000_000_000).wrapping_add(time.tv_nsec()))
    };
    let mut best: Option<(i64, Reading)> = None;
    for _ in 0..READINGS {
        let before = nanos(ClockId::CLOCK_MONOTONIC)?;
        let utc = nanos(ClockId::CLOCK_REALTIME)?;
        let after = nanos(ClockId::CLOCK_MONOTONIC)?;
        let width = after.wrapping_sub(before);
        let middle = before.wrapping_add(width / 2);
        let reading =
            Reading { monotonic_ns: u64::try_from(middle).unwrap_or(0), offset_ns: utc.wrapping_sub(middle) };
        if best.is_none_or(|(narrowest, _)| width < narrowest) {
            best = Some((width, reading));
        }
    }
    best.map(|(_, reading)| reading).ok_or_else(|| io::Error::from(io::ErrorKind::Other))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const OFFSET: i64 = 1_790_000_000_000_000_000;

    fn at(monotonic_ns: u64, offset_ns: i64) -> Reading {
        Reading { monotonic_ns, offset_ns }
    }

    #[test]
    fn the_first_offset_holds() {
        let clock = Clock::new(at(1_000, OFFSET));
        assert_eq!(clock.conversion().utc(5_000).nanos(), OFFSET as u64 + 5_000);
        assert_eq!(clock.conversion().utc(0).nanos(), OFFSET as u64);
    }

    #[test]
    fn a_step_takes_effect_at_once() {
        let clock = Clock::new(at(0, OFFSET));
        let to_ns = OFFSET - 3_000_000_000;
        assert_eq!(clock.sample(at(1_000, to_ns)), Change::Stepped { from_ns: OFFSET, to_ns });
        assert_eq!(clock.conversion().utc(2_000).nanos(), to_ns.cast_unsigned() + 2_000);
        assert_eq!(clock.steps(), 1);
    }

    #[test]
    fn a_jump_of_days_is_not_believed() {
        let clock = Clock::new(at(0, OFFSET));
        assert!(matches!(clock.sample(at(1_000, 0)), Change::Quarantined { from_ns: OFFSET, to_ns: 0 }));
        assert_eq!(clock.conversion().utc(2_000).nanos(), OFFSET as u64 + 2_000);
        assert!(clock.quarantined() && clock.turns() == 1);
        // Told as often as it is looked at, but once to segments.
        assert!(matches!(clock.sample(at(2_000, 0)), Change::Quarantined { .. }) && clock.turns() == 1);
        assert_eq!(clock.sample(at(3_000, OFFSET + 5)), Change::Believed { from_ns: 0, to_ns: OFFSET + 5 });
        assert!(!clock.quarantined() && clock.turns() == 2 && clock.steps() == 0);
        assert_eq!(clock.sample(at(4_000, OFFSET + 5)), Change::Slewed);
    }

    #[test]
    fn a_step_ends_a_quarantine() {
        let clock = Clock::new(at(0, OFFSET));
        let hour = 3_600_000_000_000;
        assert!(matches!(clock.sample(at(1_000, 0)), Change::Quarantined { .. }));
        let step = Change::Stepped { from_ns: OFFSET, to_ns: OFFSET + hour };
        assert_eq!(clock.sample(at(2_000, OFFSET + hour)), step);
        assert!(!clock.quarantined() && clock.steps() == 1 && clock.turns() > 1);
    }

    /// A host that begins in 1970 and is set by the network: accepted from the beginning, or later by the operator.
    #[test]
    fn a_jump_that_is_accepted_is_a_step() {
        let clock = Clock::new(at(1_000, 0));
        assert!(matches!(clock.sample(at(2_000, OFFSET)), Change::Quarantined { from_ns: 0, to_ns: OFFSET }));
        assert!(!clock.accept_jumps(true) && clock.quarantined());
        // Stamps of that time are doubted until the segment that says so has ended.
        let never = || -> Option<Reading> { None };
        let stamp = |clock: &Clock| {
            clock.conversion().believed(OFFSET as u64, Timestamp::from_nanos_saturating(0), never)
        };
        assert_eq!(stamp(&clock), None);
        assert_eq!(clock.sample(at(3_000, OFFSET)), Change::Stepped { from_ns: 0, to_ns: OFFSET });
        assert!(!clock.quarantined() && clock.steps() == 1 && clock.turns() == 3);
        assert_eq!(stamp(&clock).map(Timestamp::nanos), Some(OFFSET as u64));
        assert_eq!(clock.conversion().utc(5_000).nanos(), OFFSET as u64 + 5_000);
        // And back: into the past as well.
        assert_eq!(clock.sample(at(4_000, 0)), Change::Stepped { from_ns: OFFSET, to_ns: 0 });
        assert!(clock.accept_jumps(false));
        assert!(matches!(clock.sample(at(5_000, OFFSET)), Change::Quarantined { .. }) && clock.quarantined());
    }

    /// The kernel's stamps jump before anybody has sampled the clock, and stamps of before may come after.
    #[test]
    fn stamps_of_a_clock_whose_jumps_are_accepted_stay() {
        let conversion = Clock::new(at(0, OFFSET)).accepting(true).conversion();
        let about = conversion.utc(5_000);
        for stamp in [0, 7, about.nanos(), u64::MAX / 4] {
            let never = || -> Option<Reading> { panic!("there is nothing to compare with") };
            assert_eq!(conversion.believed(stamp, about, never).unwrap().nanos(), stamp);
        }
    }

    #[test]
    fn stamps_of_a_clock_that_jumped_are_moved_back() {
        const YEARS: i64 = 30 * 365 * 24 * 3600 * 1_000_000_000;
        let conversion = Clock::new(at(0, OFFSET)).conversion();
        let about = conversion.utc(5_000);
        let never = || -> Option<Reading> { panic!("the clocks are read for a stamp that is near") };
        let (near, far) = (about.nanos() + 700, about.nanos().wrapping_add_signed(YEARS));
        assert_eq!(conversion.believed(near, about, never).unwrap().nanos(), near);
        let believed = |stamp, ahead| conversion.believed(stamp, about, || Some(at(6_000, OFFSET + ahead)));
        assert_eq!(believed(far + 700, YEARS).unwrap().nanos(), near);
        let past = about.nanos().wrapping_add_signed(-YEARS);
        assert_eq!(believed(past + 700, -YEARS).unwrap().nanos(), near);
        // It jumped back, or elsewhere, before it was read.
        assert_eq!((believed(far, 0), believed(far, -YEARS), believed(0, 0)), (None, None, None));
        assert_eq!(conversion.believed(u64::MAX, about, || Some(at(6_000, 0))), None);
        assert_eq!(conversion.believed(far, about, || None), None);
    }

    #[test]
    fn the_machine_clock_is_read() {
        let (a, b) = (read().unwrap(), read().unwrap());
        assert!(b.monotonic_ns > a.monotonic_ns);
        assert!(a.offset_ns.abs_diff(b.offset_ns) < STEP_NS);
    }

    proptest! {
        #[test]
        fn slewing_never_turns_time_back(moves in prop::collection::vec(-900_000_000i64..900_000_000, 1..20)) {
            let clock = Clock::new(at(0, OFFSET));
            let (mut offset, mut last) = (OFFSET, Timestamp::ZERO);
            for (second, step) in (1u64..).zip(moves) {
                offset += step;
                let now = second * 1_000_000_000;
                prop_assert_eq!(clock.sample(at(now, offset)), Change::Slewed);
                for part in 0..10 {
                    let utc = clock.conversion().utc(now + part * 100_000_000);
                    prop_assert!(utc >= last);
                    last = utc;
                }
                let reached = clock.conversion().utc(now + 1_000_000_000).nanos();
                prop_assert_eq!(reached.cast_signed(), (now + 1_000_000_000).cast_signed() + offset);
            }
        }
    }
}
