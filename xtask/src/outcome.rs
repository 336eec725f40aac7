//! Reads what test runners print: libtest (`cargo test`) and nextest.
//!
//! Tests print a line `SKIPPED n what` for what they left out; both runners are told to show the output of
//! passed tests so that these lines arrive here, and this module says which lines a person should see. It
//! must never count a test that no runner reported.

use std::collections::BTreeMap;

const SKIPPED: &str = "SKIPPED";

/// Whose output is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Runner {
    /// `cargo test`.
    #[default]
    Libtest,
    /// `cargo nextest`, which shows the words of libtest inside its own.
    Nextest,
}

/// Counts of tests and lines of skipped parts.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    runner: Runner,
    pub(crate) passed: u64,
    pub(crate) failed: u64,
    ignored: u64,
    skips: BTreeMap<String, u64>,
    /// Inside the output of a passed test.
    hiding: bool,
}

impl Outcome {
    /// Nothing counted yet, of a run by `runner`.
    pub(crate) fn of(runner: Runner) -> Self {
        Self { runner, ..Self::default() }
    }

    /// Takes in one line of output. True if a person should see it.
    pub(crate) fn read(&mut self, line: &str) -> bool {
        let text = line.trim();
        if text.starts_with(SKIPPED) {
            self.skip(text);
            return false;
        }
        match self.runner {
            Runner::Libtest => {
                self.count_libtest(text);
                if text == "successes:" {
                    self.hiding = true;
                } else if ["failures:", "test result: "].iter().any(|end| text.starts_with(end)) {
                    self.hiding = false;
                }
                !self.hiding
            }
            Runner::Nextest => {
                self.count_nextest(text);
                match status(text) {
                    Some(status) => {
                        self.hiding = status.starts_with("PASS") || status.starts_with("SLOW");
                        true
                    }
                    None => !self.hiding,
                }
            }
        }
    }

    /// Notes a part that was left out.
    pub(crate) fn skip(&mut self, what: &str) {
        *self.skips.entry(what.to_owned()).or_default() += 1;
    }

    /// Adds the counts of another run.
    pub(crate) fn add(&mut self, other: Self) {
        self.passed += other.passed;
        self.failed += other.failed;
        self.ignored += other.ignored;
        for (what, times) in other.skips {
            *self.skips.entry(what).or_default() += times;
        }
    }

    /// What was skipped, one line each.
    pub(crate) fn skips(&self) -> Vec<String> {
        let mut lines: Vec<String> = self
            .skips
            .iter()
            .map(|(what, times)| if *times == 1 { what.clone() } else { format!("{what} ({times} times)") })
            .collect();
        if self.ignored > 0 {
            lines.push(format!("{SKIPPED} {} tests marked #[ignore]", self.ignored));
        }
        lines
    }

    /// `test result: ok. 3 passed; 0 failed; 1 ignored; ...`
    fn count_libtest(&mut self, text: &str) {
        let Some(counts) = text.strip_prefix("test result: ") else { return };
        self.passed += number_before(counts, " passed");
        self.failed += number_before(counts, " failed");
        self.ignored += number_before(counts, " ignored");
    }

    /// `Summary [ 1.2s] 30 tests run: 28 passed (1 slow), 1 failed, 1 timed out, 4 skipped`
    fn count_nextest(&mut self, text: &str) {
        let Some((head, counts)) = text.split_once("run: ") else { return };
        if !head.starts_with("Summary [") {
            return;
        }
        let run = number_before(head, " test");
        let passed = number_before(counts, " passed");
        self.passed += passed;
        // Timed out, crashed, leaked: whatever ran and did not pass has failed.
        self.failed += run.saturating_sub(passed);
    }
}

/// The status of a nextest line such as `FAIL [   0.1s] ( 1/28) crate test`, or of its summary.
fn status(text: &str) -> Option<&str> {
    let (status, _) = text.split_once(" [")?;
    let known = status.chars().all(|c| c.is_ascii_uppercase() || matches!(c, ' ' | '-'));
    (known || status == "Summary").then_some(status)
}

/// The number that stands directly before the first `word`; 0 without one.
fn number_before(text: &str, word: &str) -> u64 {
    let Some((before, _)) = text.split_once(word) else { return 0 };
    let digits = before.rsplit(|c: char| !c.is_ascii_digit()).next().unwrap_or_default();
    digits.parse().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(runner: Runner, text: &str) -> (Outcome, Vec<&str>) {
        let mut outcome = Outcome::of(runner);
        let shown = text.lines().filter(|line| outcome.read(line)).collect();
        (outcome, shown)
    }

    #[test]
    fn libtest_is_counted_and_the_output_of_passed_tests_hidden() {
        let (outcome, shown) = read(
            Runner::Libtest,
            "running 2 tests\ntest a ... ok\n\nsuccesses:\n\n---- a stdout ----\nSKIPPED 3 traces\nnoise\n\n\
             successes:\n    a\n\ntest result: ok. 2 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out\n\
             test result: FAILED. 4 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out\n",
        );
        assert_eq!((outcome.passed, outcome.failed), (6, 1));
        assert_eq!(outcome.skips(), ["SKIPPED 3 traces", "SKIPPED 1 tests marked #[ignore]"]);
        assert!(shown.contains(&"test a ... ok"));
        assert!(!shown.contains(&"noise"));
    }

    #[test]
    fn a_failure_is_shown_with_its_output() {
        let libtest = "successes:\n    a\nfailures:\n\n---- b stdout ----\npanicked\n";
        assert!(read(Runner::Libtest, libtest).1.contains(&"panicked"));
        let nextest = "  PASS [ 0.1s] a\nnoise\n  FAIL [ 0.1s] b\npanicked\n  SIGABRT [ 1s] c\naborted\n";
        let shown = read(Runner::Nextest, nextest).1;
        assert_eq!(
            shown,
            ["  PASS [ 0.1s] a", "  FAIL [ 0.1s] b", "panicked", "  SIGABRT [ 1s] c", "aborted"]
        );
    }

    #[test]
    fn nextest_is_counted_once_and_whatever_did_not_pass_has_failed() {
        let (outcome, shown) = read(
            Runner::Nextest,
            "    PASS [   0.1s] a\n    SKIPPED 2 captures\n    test result: ok. 1 passed; 0 failed; 0 ignored\n    \
             SKIPPED 2 captures\n     \
             Summary [   1.250s] 30 tests run: 27 passed (1 slow), 2 failed, 1 timed out, 4 skipped\n",
        );
        assert_eq!((outcome.passed, outcome.failed), (27, 3));
        assert_eq!(outcome.skips(), ["SKIPPED 2 captures (2 times)"]);
        assert_eq!(shown.len(), 2);
        let (outcome, _) = read(Runner::Nextest, "Summary [   1.0s] 28 tests run: 28 passed, 0 skipped\n");
        assert_eq!((outcome.passed, outcome.failed), (28, 0));
    }
}
