//! Runs the steps of a tier one after the other, times each, and sums up.
//!
//! A failed step never hides the later ones: those that do not need it still run. Nothing counts as passed
//! that did not run.

use std::io::{BufRead, BufReader, pipe};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::outcome::{Outcome, Runner};

/// What became of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
enum End {
    Passed(String),
    Failed(String),
    NotRun(String),
}

/// The steps of one tier so far.
#[derive(Debug)]
pub(crate) struct Steps {
    started: Instant,
    ends: Vec<(String, End, Duration)>,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self { started: Instant::now(), ends: Vec::new() }
    }

    /// Runs one step; its words stand behind the result. True if it passed.
    pub(crate) fn run(&mut self, name: &str, step: impl FnOnce() -> Result<String>) -> bool {
        println!("==> {name}");
        let started = Instant::now();
        let end = match step() {
            Ok(words) => End::Passed(words),
            Err(error) => End::Failed(format!("{error:#}")),
        };
        let passed = matches!(end, End::Passed(_));
        self.end(name, end, started.elapsed());
        passed
    }

    /// Notes that a step did not run, and why. Counts as a failure of the tier.
    pub(crate) fn not_run(&mut self, name: &str, why: &str) {
        println!("==> {name}");
        self.end(name, End::NotRun(why.to_owned()), Duration::ZERO);
    }

    fn end(&mut self, name: &str, end: End, took: Duration) {
        println!("    {} in {:.1} s", words(&end), took.as_secs_f64());
        self.ends.push((name.to_owned(), end, took));
    }

    /// Prints the table of steps, what was skipped and the totals. True if every step and test passed.
    pub(crate) fn sum_up(&self, tests: &Outcome) -> bool {
        let passed = self.table();
        println!("skipped:");
        let skips = tests.skips();
        for skip in &skips {
            println!("  {skip}");
        }
        if skips.is_empty() {
            println!("  nothing");
        }
        println!("{} passed, {} failed", tests.passed, tests.failed);
        passed && tests.failed == 0
    }

    /// Prints the table of steps and their time. True if every step passed.
    pub(crate) fn table(&self) -> bool {
        println!("\nsteps:");
        for (name, end, took) in &self.ends {
            println!("  {:>7.1} s  {name}: {}", took.as_secs_f64(), words(end));
        }
        println!("wall time: {:.1} s", self.started.elapsed().as_secs_f64());
        let failed_steps: Vec<&str> = self
            .ends
            .iter()
            .filter(|(_, end, _)| !matches!(end, End::Passed(_)))
            .map(|(n, ..)| n.as_str())
            .collect();
        if !failed_steps.is_empty() {
            println!("failed steps: {}", failed_steps.join(", "));
        }
        failed_steps.is_empty()
    }
}

fn words(end: &End) -> String {
    match end {
        End::Passed(words) if words.is_empty() => "passed".to_owned(),
        End::Passed(words) => format!("passed ({words})"),
        End::Failed(why) => format!("FAILED: {why}"),
        End::NotRun(why) => format!("NOT RUN: {why}"),
    }
}

/// Runs a command on this terminal; an error if it fails.
pub(crate) fn plain(command: &mut Command) -> Result<String> {
    let status = command.status().with_context(|| format!("{:?} does not start", command.get_program()))?;
    if !status.success() {
        bail!("{status}");
    }
    Ok(String::new())
}

/// Runs a test command by `runner`, adds its counts to `all` and shows what a person needs of its output.
pub(crate) fn tests(command: Command, runner: Runner, all: &mut Outcome) -> Result<String> {
    count_tests(command, runner, all, |line| println!("{line}"))
}

fn count_tests(
    mut command: Command,
    runner: Runner,
    all: &mut Outcome,
    show: impl Fn(&str),
) -> Result<String> {
    let (reader, writer) = pipe().context("pipe")?;
    command.stdout(writer.try_clone().context("pipe")?).stderr(writer);
    let mut child = command.spawn().with_context(|| format!("{:?} does not start", command.get_program()))?;
    // The command holds our ends of the pipe: without this the reader never sees its end.
    drop(command);
    let mut here = Outcome::of(runner);
    for line in BufReader::new(reader).split(b'\n') {
        let line = line.context("output of the tests")?;
        let line = String::from_utf8_lossy(&line);
        if here.read(&line) {
            show(&line);
        }
    }
    let status = child.wait().context("waiting for the tests")?;
    let counts = format!("{} passed, {} failed", here.passed, here.failed);
    all.add(here);
    if !status.success() {
        bail!("{counts}, {status}");
    }
    Ok(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Command {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        command
    }

    #[test]
    fn a_failed_or_missing_step_fails_the_tier() {
        let mut steps = Steps::new();
        assert!(steps.run("good", || plain(&mut shell("true"))));
        assert!(steps.sum_up(&Outcome::default()));
        assert!(!steps.run("bad", || plain(&mut shell("false"))));
        assert!(!steps.sum_up(&Outcome::default()));

        let mut steps = Steps::new();
        steps.not_run("later", "the build failed");
        assert!(!steps.sum_up(&Outcome::default()));
    }

    #[test]
    fn counts_come_from_both_outputs_and_failure_from_the_exit_code() {
        let line = "test result: ok. 2 passed; 0 failed; 0 ignored; 0 measured; 0 filtered out";
        let mut all = Outcome::default();
        // Shown, these lines would be counted by the run that this test is part of.
        let mut run = |script: String| count_tests(shell(&script), Runner::Libtest, &mut all, |_| {});
        assert!(run(format!("echo '{line}' >&2; echo '{line}'")).is_ok());
        assert!(run(format!("echo '{line}'; exit 3")).is_err());
        assert_eq!((all.passed, all.failed), (6, 0));
    }
}
