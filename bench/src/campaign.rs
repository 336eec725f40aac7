//! Searches of one or more recorders, trial by trial in turn, so that what else happens on the machine meets them all
//! alike; then one load that all of them get. Each trial is written down when it is over, and a run that goes on with
//! such a file takes the trials from there as long as they are those it would make itself.

use crate::machine::ratio;
use crate::progress::Progress;
use crate::result::{Document, Outcome, Trial};
use crate::search::{Found, Next, Search, median};
use crate::tools::Tool;
use crate::trial::{Ground, Wish};
use anyhow::{Result, bail};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::Duration;

/// Beside sending: start, end, and the count of what is on disk, as a share of the time of sending and at least.
const BESIDE: f64 = 0.7;
const BESIDE_LEAST: f64 = 4.0;

/// What to do.
#[derive(Debug)]
pub struct Campaign<'a> {
    /// What is the same in all trials.
    pub ground: &'a Ground,
    /// Who.
    pub tools: &'a [Tool],
    /// Searches of each.
    pub rounds: u32,
    /// How near a search comes.
    pub resolution: f64,
    /// A load that all get in the end: packets a second; none: 80 % of what the weakest holds, if there are several.
    pub common: Option<f64>,
    /// Where the result goes after each trial.
    pub out: Option<PathBuf>,
}

/// One recorder's searches.
#[derive(Debug)]
struct Course {
    search: Search,
    round: u32,
    found: Vec<Found>,
    generator_pps: f64,
}

impl Campaign<'_> {
    /// Runs all trials; `document` has the head of the result, and trials of an earlier run to go on with.
    ///
    /// # Errors
    /// A trial fails, or its books do not add up.
    pub fn run(&self, document: &mut Document, tell: &mut dyn FnMut(&Trial)) -> Result<()> {
        let mut earlier: VecDeque<Trial> = std::mem::take(&mut document.trials).into();
        let mut progress = Progress::new();
        let mut courses: Vec<Course> = self.tools.iter().map(|_| Course::new(self.resolution)).collect();
        loop {
            let left = self.time_left(&courses);
            let mut any = false;
            for (tool, course) in self.tools.iter().zip(&mut courses) {
                let Some(pps) = course.next(self) else { continue };
                any = true;
                let wish =
                    Wish { tool, purpose: "search", round: course.round, pps, limit: course.search.limit() };
                let trial = self.trial(&wish, &mut earlier, &mut progress, left, document, tell)?;
                course.note(&trial);
            }
            document.outcomes = self.outcomes(&courses, &document.trials);
            self.write(document)?;
            if !any {
                break;
            }
        }
        if let Some(pps) = self.common_load(&courses) {
            for tool in self.tools {
                let wish = Wish { tool, purpose: "common", round: 0, pps: Some(pps), limit: None };
                self.trial(&wish, &mut earlier, &mut progress, Duration::ZERO, document, tell)?;
            }
        }
        document.outcomes = self.outcomes(&courses, &document.trials);
        self.write(document)
    }

    /// A trial: one of an earlier run, or a new one.
    fn trial(
        &self,
        wish: &Wish<'_>,
        earlier: &mut VecDeque<Trial>,
        progress: &mut Progress,
        left: Duration,
        document: &mut Document,
        tell: &mut dyn FnMut(&Trial),
    ) -> Result<Trial> {
        let trial = match earlier.pop_front() {
            Some(trial) if is_the_same(&trial, wish) => trial,
            _ => {
                // What follows was the way of another run.
                earlier.clear();
                progress.begin(wish.tool.kind.name(), left);
                let trial = self.ground.run(wish, progress)?;
                progress.end();
                trial
            }
        };
        document.trials.push(trial.clone());
        self.write(document)?;
        progress.aside(|| tell(&trial));
        if !trial.problems.is_empty() {
            bail!("the books of this trial do not add up: {}", trial.problems.join("; "));
        }
        Ok(trial)
    }

    fn write(&self, document: &Document) -> Result<()> {
        self.out.as_ref().map_or(Ok(()), |out| document.write(out))
    }

    /// What all searches will take, about.
    fn time_left(&self, courses: &[Course]) -> Duration {
        let trials = |course: &Course| {
            let rounds = f64::from(self.rounds.saturating_sub(course.round));
            // A first search halves; further ones know where to look.
            let first = if course.round == 0 { course.search.trials_left() } else { 2.0 };
            let pps = course.search.limit().unwrap_or(1e6) / 2.0;
            let sending = self.ground.sending(pps);
            (first + 2.0 * (rounds - 1.0).max(0.0)) * (sending + (sending * BESIDE).max(BESIDE_LEAST))
        };
        Duration::from_secs_f64(courses.iter().map(trials).sum::<f64>().clamp(0.0, 1e7))
    }

    /// The load for all.
    fn common_load(&self, courses: &[Course]) -> Option<f64> {
        let several = self.tools.len() > 1;
        let weakest = courses.iter().flat_map(|course| &course.found).map(|found| found.pps).reduce(f64::min);
        let some = weakest.filter(|pps| several && *pps > 0.0).map(|pps| 0.8 * pps);
        self.common.or(some)
    }

    fn outcomes(&self, courses: &[Course], trials: &[Trial]) -> Vec<Outcome> {
        let outcome = |(tool, course): (&Tool, &Course)| {
            let of_tool = || trials.iter().filter(|trial| trial.tool == tool.kind.name());
            let rates: Vec<f64> = course.found.iter().map(|found| found.pps).collect();
            let fastest = of_tool()
                .filter(|trial| trial.purpose == "search" && !trial.lost())
                .max_by(|a, b| a.pps.total_cmp(&b.pps));
            let idle = fastest.and_then(|trial| {
                let cpus = self.ground.tool_cpus.iter().filter_map(|cpu| trial.idle.get(cpu));
                cpus.copied().reduce(f64::max)
            });
            let unpaced = of_tool().filter(|trial| trial.wanted_pps.is_none());
            let kept = unpaced.map(|trial| ratio(trial.on_disk, trial.placed)).reduce(f64::min);
            let edge = |fold: fn(f64, f64) -> f64| rates.iter().copied().reduce(fold).unwrap_or(0.0);
            Outcome {
                tool: tool.kind.name().to_owned(),
                median_pps: median(&rates),
                spread_pps: [edge(f64::min), edge(f64::max)],
                median_bits_per_second: 8.0 * self.ground.traffic.about.mean_bytes * median(&rates),
                generator_pps: course.generator_pps,
                generator_bound: course.found.iter().all(|found| found.generator_bound)
                    && !course.found.is_empty(),
                idle,
                kept_at_limit: kept,
                common_cpu_ns: of_tool()
                    .find(|trial| trial.purpose == "common")
                    .map(|trial| trial.cpu_ns_per_packet),
                short: of_tool().any(|trial| trial.short),
                zero_loss_pps: rates,
            }
        };
        self.tools.iter().zip(courses).map(outcome).collect()
    }
}

/// Whether a trial of an earlier run is the one that is wanted now.
fn is_the_same(trial: &Trial, wish: &Wish<'_>) -> bool {
    let near = |a: f64, b: f64| (a - b).abs() <= 1e-6 * a.abs().max(b.abs());
    let same_pace = match (trial.wanted_pps, wish.pps) {
        (Some(a), Some(b)) => near(a, b),
        (None, None) => true,
        _ => false,
    };
    same_pace
        && trial.problems.is_empty()
        && (trial.tool.as_str(), trial.purpose.as_str(), trial.round)
            == (wish.tool.kind.name(), wish.purpose, wish.round)
}

impl Course {
    fn new(resolution: f64) -> Self {
        Self { search: Search::new(resolution), round: 0, found: Vec::new(), generator_pps: 0.0 }
    }

    /// The pace of the next trial; none when all searches are over.
    #[expect(clippy::option_option, reason = "no trial, one without a pace, one with")]
    fn next(&mut self, campaign: &Campaign<'_>) -> Option<Option<f64>> {
        while self.round < campaign.rounds {
            match self.search.next() {
                Next::Unpaced => return Some(None),
                Next::Paced(pps) => return Some(Some(pps)),
                Next::Over(found) => {
                    self.found.push(found);
                    self.round += 1;
                    self.search = Search::again(campaign.resolution, found, self.generator_pps);
                }
            }
        }
        None
    }

    fn note(&mut self, trial: &Trial) {
        if trial.wanted_pps.is_none() {
            self.generator_pps = self.generator_pps.max(trial.pps);
        }
        self.search.note(trial.wanted_pps, trial.pps, trial.lost());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tools::Kind;

    #[test]
    fn a_run_goes_on_only_with_its_own_trials() {
        let tool =
            Tool { kind: Kind::Tapedeck, program: "tapedeck".into(), version: String::new(), extra: vec![] };
        let wish = Wish { tool: &tool, purpose: "search", round: 1, pps: Some(5e5), limit: None };
        let trial = Trial {
            tool: "tapedeck".to_owned(),
            purpose: "search".to_owned(),
            round: 1,
            wanted_pps: Some(5e5 + 1e-3),
            ..Trial::default()
        };
        assert!(is_the_same(&trial, &wish));
        let others = [
            Trial { wanted_pps: None, ..trial.clone() },
            Trial { wanted_pps: Some(5.1e5), ..trial.clone() },
            Trial { round: 0, ..trial.clone() },
            Trial { tool: "tcpdump".to_owned(), ..trial.clone() },
            Trial { problems: vec!["x".to_owned()], ..trial },
        ];
        assert!(others.iter().all(|other| !is_the_same(other, &wish)));
    }
}
