//! How far a long run is, and how long it will still take, on stderr when that is a terminal.

use indicatif::{ProgressBar, ProgressStyle};
use std::sync::atomic::{AtomicBool, Ordering};
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

    /// Something begins that takes its time without telling how far it is: the bar goes on meanwhile.
    pub fn during<T>(&mut self, what: &str, left: Duration, work: impl FnOnce() -> T) -> T {
        self.begin(what, left);
        let over = AtomicBool::new(false);
        let result = std::thread::scope(|scope| {
            scope.spawn(|| {
                // A flag alone: Relaxed.
                while !over.load(Ordering::Relaxed) {
                    self.step(what);
                    std::thread::sleep(Duration::from_millis(100));
                }
            });
            // Also where the work panics.
            let _end = Over(&over);
            work()
        });
        self.end();
        result
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

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}
