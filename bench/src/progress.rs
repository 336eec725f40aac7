//! How far a long run is, and how long it will still take, on stderr when that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use std::time::{Duration, Instant};

/// A bar over all trials that are to be expected.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    done: u64,
    trial: Option<Instant>,
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Progress {
    /// A bar without a length; nothing is drawn where stderr is no terminal.
    #[must_use]
    pub fn new() -> Self {
        let bar = ProgressBar::new(0);
        if let Ok(style) = ProgressStyle::with_template("{bar:24} {elapsed_precise}, about {eta} left: {msg}")
        {
            bar.set_style(style);
        }
        Self { bar, done: 0, trial: None }
    }

    /// A trial begins; so much will still follow, itself included.
    pub fn begin(&mut self, what: &str, left: Duration) {
        self.trial = Some(Instant::now());
        self.bar.set_length(self.done + millis(left));
        self.bar.set_message(what.to_owned());
        self.bar.enable_steady_tick(Duration::from_secs(1));
    }

    /// It goes on.
    pub fn step(&self, what: &str) {
        let since = self.trial.map_or(Duration::ZERO, |began| began.elapsed());
        self.bar.set_position(self.done + millis(since));
        self.bar.set_message(what.to_owned());
    }

    /// It is over.
    pub fn end(&mut self) {
        self.done += millis(self.trial.take().map_or(Duration::ZERO, |began| began.elapsed()));
        self.bar.set_position(self.done);
    }

    /// Writes beside the bar.
    pub fn aside(&self, act: impl FnOnce()) {
        self.bar.suspend(act);
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
