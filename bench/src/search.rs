//! The highest rate without loss (RFC 2544, 26.1: throughput), by halving. Knows nothing of packets: it is told what
//! came of a trial and says which is next.
//!
//! The first trial is not paced: its rate is the generator's limit, and if nothing is lost there is nothing to search.
//! A further search begins beside the result of the one before and goes out from there in growing steps.

/// Below this nothing is searched, packets a second.
const LEAST_PPS: f64 = 500.0;

/// The next trial.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Next {
    /// As fast as it goes.
    Unpaced,
    /// At this rate, packets a second.
    Paced(f64),
    /// None: the search is over.
    Over(Found),
}

/// What a search has found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// The highest rate without loss, packets a second; 0 = none.
    pub pps: f64,
    /// The generator made no more.
    pub generator_bound: bool,
}

/// A search under way.
#[derive(Clone, Debug)]
pub struct Search {
    resolution: f64,
    limit: Option<f64>,
    hint: Option<f64>,
    step: f64,
    low: f64,
    high: Option<f64>,
    bound: bool,
}

impl Search {
    /// A search that ends when the highest rate without loss and the lowest with differ by no more than this share.
    #[must_use]
    pub const fn new(resolution: f64) -> Self {
        Self { resolution, limit: None, hint: None, step: resolution, low: 0.0, high: None, bound: false }
    }

    /// A search after another one: its result, and the generator's limit.
    #[must_use]
    pub const fn again(resolution: f64, before: Found, limit: f64) -> Self {
        // A result that the generator bound is looked for as the first one was: without a pace.
        let hint = if before.generator_bound || before.pps <= 0.0 { None } else { Some(before.pps) };
        let known = if hint.is_some() { Some(limit) } else { None };
        Self { limit: known, hint, ..Self::new(resolution) }
    }

    /// The generator's limit, once it is known, packets a second.
    #[must_use]
    pub const fn limit(&self) -> Option<f64> {
        self.limit
    }

    /// Trials that a search by halving will still take, about.
    #[must_use]
    pub fn trials_left(&self) -> f64 {
        let high = self.high.or(self.limit).unwrap_or(1.0);
        let width = if self.limit.is_some() { (high - self.low) / high } else { 1.0 };
        1.0 + (width / self.resolution).max(1.0).log2().ceil()
    }

    /// What is next.
    #[must_use]
    pub fn next(&self) -> Next {
        let over = |pps, generator_bound| Next::Over(Found { pps, generator_bound });
        let Some(limit) = self.limit else { return Next::Unpaced };
        let Some(high) = self.high else {
            return match self.hint {
                _ if self.bound || self.low >= limit * (1.0 - self.resolution) => over(self.low, true),
                Some(hint) if self.low <= 0.0 => Next::Paced(hint.min(limit)),
                _ => Next::Paced((self.low * (1.0 + self.step)).min(limit)),
            };
        };
        if high - self.low <= self.resolution * high {
            return over(self.low, self.bound);
        }
        if high < LEAST_PPS {
            return over(self.low, false);
        }
        let down =
            if self.low <= 0.0 && self.hint.is_some() { high * (1.0 - self.step.min(0.5)) } else { 0.0 };
        Next::Paced(down.max(f64::midpoint(self.low, high)))
    }

    /// Notes a trial: the pace asked for, the rate placed, and whether anything was lost.
    pub fn note(&mut self, wanted: Option<f64>, placed: f64, lost: bool) {
        let Some(wanted) = wanted else {
            self.limit = Some(placed);
            if lost {
                self.high = Some(placed);
            } else {
                self.low = placed;
                self.bound = true;
            }
            return;
        };
        if self.low > 0.0 || lost {
            self.step *= 2.0;
        }
        if lost {
            self.high = Some(self.high.map_or(wanted, |high| high.min(wanted)));
        } else {
            self.low = self.low.max(placed);
            // The generator does not keep this pace: no rate above can be tried.
            if placed < wanted * (1.0 - self.resolution) {
                self.high = Some(placed);
                self.bound = true;
            }
        }
    }
}

/// Median; 0 of nothing.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let at = |index: usize| sorted.get(index).copied().unwrap_or(0.0);
    match sorted.len() {
        0 => 0.0,
        len if len % 2 == 1 => at(len / 2),
        len => f64::midpoint(at(len / 2 - 1), at(len / 2)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches a tool that loses above `holds`, with a generator that makes `limit`; the trials it took.
    fn run(mut search: Search, holds: f64, limit: f64) -> (Found, u32) {
        for trials in 0..60 {
            let (wanted, placed) = match search.next() {
                Next::Over(found) => return (found, trials),
                Next::Unpaced => (None, limit),
                Next::Paced(pps) => (Some(pps), pps.min(limit)),
            };
            search.note(wanted, placed, placed > holds);
        }
        panic!("no end: {search:?}");
    }

    #[test]
    fn finds_what_a_tool_holds() {
        for holds in [700.0, 12_345.0, 211_000.0, 899_000.0] {
            for resolution in [0.01, 0.05, 0.1] {
                let (found, trials) = run(Search::new(resolution), holds, 1e6);
                assert!(
                    found.pps <= holds && found.pps > holds * (1.0 - 2.0 * resolution) - 1.0,
                    "{found:?}"
                );
                assert!(!found.generator_bound && trials < 24, "{trials} trials for {holds}");
            }
        }
        assert_eq!(run(Search::new(0.01), 10.0, 1e6).0.pps, 0.0);
    }

    #[test]
    fn a_generator_that_cannot_do_more_is_named() {
        let bound = Found { pps: 1e6, generator_bound: true };
        assert_eq!(run(Search::new(0.01), 2e6, 1e6), (bound, 1));
        assert_eq!(run(Search::again(0.01, bound, 1e6), 2e6, 1e6), (bound, 1));
        // One that reaches its own limit only now and then.
        let mut search = Search::new(0.01);
        search.note(None, 1e6, true);
        search.note(Some(5e5), 4e5, false);
        assert_eq!(search.next(), Next::Over(Found { pps: 4e5, generator_bound: true }));
    }

    #[test]
    fn a_second_search_is_short_and_finds_also_what_has_moved() {
        let before = Found { pps: 200_000.0, generator_bound: false };
        for (holds, most) in [(201_000.0, 3), (199_000.0, 4), (400_000.0, 14), (50_000.0, 16)] {
            let (found, trials) = run(Search::again(0.02, before, 1e6), holds, 1e6);
            assert!(found.pps <= holds && found.pps > holds * 0.95, "{holds}: {found:?}");
            assert!(trials <= most, "{trials} trials for {holds}");
        }
        let (found, _) = run(Search::again(0.02, before, 1e6), 2e6, 1e6);
        assert!(found.generator_bound && found.pps > 0.97e6, "{found:?}");
    }

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!((median(&[]), median(&[3.0, 1.0, 2.0]), median(&[1.0, 4.0])), (0.0, 2.0, 2.5));
    }
}
