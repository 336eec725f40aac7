//! How far a run over many stages is: each step says what it may weigh, and the steps that are done say how long such
//! a weight takes here.

use crate::progress::Progress;
use std::time::{Duration, Instant};

/// A run of steps, with a bar on stderr.
#[derive(Debug)]
pub struct Steps {
    progress: Progress,
    /// Seconds that all steps may take on a machine like that of the figures in docs/performance.md.
    total: f64,
    done: f64,
    began: Instant,
    current: f64,
}

impl Steps {
    /// Steps that weigh so much together, in seconds as far as one can say.
    #[must_use]
    pub fn new(total: f64) -> Self {
        Self { progress: Progress::new(), total, done: 0.0, began: Instant::now(), current: 0.0 }
    }

    /// The next step begins; the one before is over.
    pub fn step(&mut self, what: &str, weight: f64) {
        if self.current > 0.0 {
            self.progress.end();
        }
        self.done += self.current;
        self.current = weight;
        let left = left(self.total, self.done, self.began.elapsed().as_secs_f64());
        self.progress.begin(what, Duration::from_secs_f64(left));
        self.progress.step(what);
    }

    /// Writes beside the bar.
    pub fn aside<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
        let mut out = None;
        self.progress.aside(|| out = Some(act()));
        out
    }
}

/// A number of steps as a weight.
#[must_use]
pub(super) fn count(steps: usize) -> f64 {
    crate::machine::ratio(u64::try_from(steps).unwrap_or(u64::MAX), 1)
}

/// Seconds left of `total`, of which `done` took `elapsed`.
fn left(total: f64, done: f64, elapsed: f64) -> f64 {
    let pace = if done > 0.0 { elapsed / done } else { 1.0 };
    ((total - done).max(0.0) * pace).min(1e6)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_left_follows_the_pace_so_far() {
        for (total, done, elapsed, wanted) in
            [(10.0, 0.0, 0.0, 10.0), (10.0, 2.0, 6.0, 24.0), (10.0, 12.0, 6.0, 0.0)]
        {
            assert_eq!(super::left(total, done, elapsed), wanted);
        }
    }
}
