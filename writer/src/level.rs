//! Which compression the next frame gets: by what was asked, by backlog, by what compression gains.
//!
//! `auto` never waits for the compressor: under pressure the level falls, down to storing raw (a legal
//! zstd frame of raw blocks), and climbs back only after a calm stretch. Traffic that does not shrink
//! (TLS, media) is stored raw and probed again now and then. Pure arithmetic, no clock.

/// What the configuration asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Level {
    /// Follow backlog and gain.
    #[default]
    Auto,
    /// Always store raw.
    Off,
    /// Always this zstd level, -7..=19.
    Fixed(i32),
}

/// What a frame gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    /// Compress at this zstd level.
    Zstd(i32),
    /// Store raw.
    Raw,
}

/// Steps of `auto`, from calm to pressed.
pub const STEPS: [Effort; 3] = [Effort::Zstd(1), Effort::Zstd(-8), Effort::Raw];
/// Backlog, in percent of the frame buffers, from which step 1 or 2 is taken at once.
const PRESSED_PERCENT: [usize; 2] = [40, 75];
/// Backlog, in percent, that counts as calm.
const CALM_PERCENT: usize = 15;
/// Calm frames in a row before one step back.
const CALM_FRAMES: u32 = 32;
/// A frame whose raw size is below this many percent of its stored size gained nothing.
const GAIN_PERCENT: usize = 103;
/// Gainless frames in a row before storing raw.
const GAINLESS_FRAMES: u32 = 4;
/// Frames stored raw for want of gain before one is tried again.
const PROBE_FRAMES: u32 = 64;

/// Chooses the effort, frame by frame.
#[derive(Debug)]
pub struct LevelPolicy {
    level: Level,
    /// Whether backlog matters: a source that can wait is not hurried.
    hurry: bool,
    step: usize,
    calm: u32,
    gainless: u32,
    raw_left: u32,
}

impl LevelPolicy {
    /// `hurry`: the source does not wait, so backlog lowers the level.
    #[must_use]
    pub fn new(level: Level, hurry: bool) -> Self {
        Self { level, hurry, step: 0, calm: 0, gainless: 0, raw_left: 0 }
    }

    /// The effort for the next frame, with `waiting` frames behind it and `buffers` frame buffers in all.
    pub fn next(&mut self, waiting: usize, buffers: usize) -> Effort {
        match self.level {
            Level::Off => return Effort::Raw,
            Level::Fixed(level) => return Effort::Zstd(level.clamp(-7, 19)),
            Level::Auto => {}
        }
        if self.hurry {
            self.follow(waiting.saturating_mul(100) / buffers.max(1));
        }
        if self.raw_left > 0 {
            self.raw_left -= 1;
            return Effort::Raw;
        }
        STEPS.get(self.step).copied().unwrap_or(Effort::Raw)
    }

    fn follow(&mut self, backlog_percent: usize) {
        let wanted = PRESSED_PERCENT.iter().filter(|percent| backlog_percent >= **percent).count();
        if wanted > self.step {
            (self.step, self.calm) = (wanted, 0);
        } else if backlog_percent > CALM_PERCENT {
            self.calm = 0;
        } else {
            self.calm += 1;
            if self.calm >= CALM_FRAMES {
                (self.step, self.calm) = (self.step.saturating_sub(1), 0);
            }
        }
    }

    /// What came of a frame that [`LevelPolicy::next`] wanted compressed.
    pub fn observe(&mut self, effort: Effort, raw_bytes: usize, stored_bytes: usize) {
        if effort == Effort::Raw || self.level != Level::Auto {
            return;
        }
        if raw_bytes.saturating_mul(100) >= stored_bytes.saturating_mul(GAIN_PERCENT) {
            self.gainless = 0;
            return;
        }
        self.gainless = self.gainless.saturating_add(1);
        if self.gainless >= GAINLESS_FRAMES {
            self.raw_left = PROBE_FRAMES;
            // One more gainless frame, the probe, is enough to store raw again.
            self.gainless = GAINLESS_FRAMES - 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs frames of (waiting of 100 buffers, gain percent) and writes down what each got.
    fn run(level: Level, hurry: bool, frames: &[(usize, usize, usize)]) -> String {
        let mut policy = LevelPolicy::new(level, hurry);
        let mut out = Vec::new();
        for (count, waiting, gain) in frames {
            for _ in 0..*count {
                let effort = policy.next(*waiting, 100);
                policy.observe(effort, 1000 * gain / 100, 1000);
                let name = match effort {
                    Effort::Zstd(level) => level.to_string(),
                    Effort::Raw => "raw".to_owned(),
                };
                match out.last_mut() {
                    Some((last, n)) if *last == name => *n += 1,
                    _ => out.push((name, 1)),
                }
            }
        }
        out.iter().map(|(name, n)| format!("{name}x{n}")).collect::<Vec<_>>().join(" ")
    }

    /// (level, hurry, frames as [`run`] takes them, what they got).
    type Case<'a> = (Level, bool, &'a [(usize, usize, usize)], &'a str);

    #[test]
    fn effort_follows_backlog_with_hysteresis_and_gain_with_probes() {
        let table: &[Case<'_>] = &[
            (Level::Off, true, &[(3, 0, 200)], "rawx3"),
            (Level::Fixed(19), true, &[(3, 99, 100)], "19x3"),
            (Level::Fixed(99), true, &[(1, 0, 100)], "19x1"),
            (Level::Auto, true, &[(50, 10, 160)], "1x50"),
            (Level::Auto, true, &[(2, 0, 160), (3, 50, 160), (2, 80, 160)], "1x2 -8x3 rawx2"),
            // Back step by step, 32 calm frames each; a backlog between calm and pressed holds the step.
            (Level::Auto, true, &[(1, 80, 160), (100, 20, 160)], "rawx101"),
            (Level::Auto, true, &[(1, 80, 160), (80, 0, 160)], "rawx32 -8x32 1x17"),
            // A source that can wait is not hurried.
            (Level::Auto, false, &[(50, 100, 160)], "1x50"),
            // Nothing gained: raw after four, one probe every 64.
            (Level::Auto, true, &[(200, 0, 101)], "1x4 rawx64 1x1 rawx64 1x1 rawx64 1x1 rawx1"),
            (Level::Auto, true, &[(68, 0, 101), (10, 0, 160)], "1x4 rawx64 1x10"),
        ];
        for (level, hurry, frames, expected) in table {
            assert_eq!(run(*level, *hurry, frames), *expected, "{level:?} {hurry} {frames:?}");
        }
    }
}
