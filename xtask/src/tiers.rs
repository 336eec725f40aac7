//! The tiers of checking: `test` for every change, `soak` for what takes long.
//!
//! The pipeline of `test`: packages, BPF file system -> tidy, licences, formatting -> clippy -> build -> tests ->
//! doc tests -> a guest with the newest kernel. It must never skip in silence: what is left out stands in the
//! summary with its reason.

use std::env;
use std::path::Path;

use anyhow::{Result, bail};

use crate::outcome::{Outcome, Runner};
use crate::packages::{self, For};
use crate::steps::{self, Steps};
use crate::{bpffs, licences, repo, tidy, vm};

/// Folder of real captures; without it the tests use their own fixtures only.
const TRACES: &str = "TAPEDECK_TRACES";
/// Where a newer tshark is, for the tests that need one.
const NEWER_TSHARK: &str = "TAPEDECK_NEWER_TSHARK";
/// Set while the long tests may run.
const SOAK: &str = "TAPEDECK_SOAK";
/// Tests with this in their path are long: `soak` runs them, `test` leaves them out.
const LONG: &str = "soak";

/// The test tier. True if all is well.
pub(crate) fn test(root: &Path) -> bool {
    let mut steps = Steps::new();
    let mut tests = Outcome::default();
    prepare(root, &mut steps, &mut tests);
    steps.run("tidy", || findings(&tidy::run(root)?));
    steps.run("licences", || findings(&licences::run(root)?));
    steps.run("format", || steps::plain(repo::cargo(root).args(["fmt", "--all", "--check"])));
    steps.run("clippy", || {
        let arguments = ["clippy", "--locked", "--workspace", "--all-targets", "--", "-D", "warnings"];
        steps::plain(repo::cargo(root).args(arguments))
    });
    if build(root, &mut steps) {
        steps.run("tests", || run_tests(root, Tier::Test, &mut tests));
        steps.run("doc tests", || {
            let mut command = repo::cargo(root);
            command.args(["test", "--locked", "--workspace", "--doc", "--no-fail-fast"]);
            steps::tests(command, Runner::Libtest, &mut tests)
        });
        guest(root, &mut steps, &mut tests);
    } else {
        steps.not_run("tests", "the build failed");
        steps.not_run("doc tests", "the build failed");
        steps.not_run("guest", "the build failed");
    }
    tests.skip("SKIPPED the long tests: `cargo xtask soak` runs them");
    steps.sum_up(&tests)
}

/// The newest kernel in a guest, where QEMU and a kernel can be had.
fn guest(root: &Path, steps: &mut Steps, tests: &mut Outcome) {
    match vm::obtain(root) {
        Ok(kernel) => {
            steps.run("guest", || vm::one_guest(root, &kernel));
        }
        Err(error) => {
            let why = format!("{error:#}").replace('\n', " ");
            tests.skip(&format!("SKIPPED the guest with the newest kernel: {why}"));
        }
    }
}

/// The long tier. True if all is well.
pub(crate) fn soak(root: &Path) -> bool {
    let mut steps = Steps::new();
    let mut tests = Outcome::default();
    prepare(root, &mut steps, &mut tests);
    if build(root, &mut steps) {
        steps.run("long tests", || run_tests(root, Tier::Soak, &mut tests));
    } else {
        steps.not_run("long tests", "the build failed");
    }
    steps.sum_up(&tests)
}

fn prepare(root: &Path, steps: &mut Steps, tests: &mut Outcome) {
    steps.run("packages", || packages::install_missing(&[For::Build, For::Test]));
    steps.run("python packages", || packages::install_python(root));
    if packages::is_root() || bpffs::is_there() {
        steps.run("BPF file system", bpffs::ready);
    } else {
        tests
            .skip("SKIPPED what pins XDP programs: there is no BPF file system, and only root can mount one");
    }
    let folder = env::var_os(TRACES);
    if folder.is_none() {
        tests.skip("SKIPPED everything that reads real captures: TAPEDECK_TRACES is not set");
    }
    steps.run("captures", || match folder {
        None => Ok(format!("{TRACES} is not set, tests use their own fixtures")),
        Some(folder) if Path::new(&folder).is_dir() => Ok(folder.to_string_lossy().into_owned()),
        Some(folder) => bail!("{TRACES} is {}, which is not a folder", folder.to_string_lossy()),
    });
}

fn build(root: &Path, steps: &mut Steps) -> bool {
    steps.run("build", || {
        steps::plain(repo::cargo(root).args(["build", "--locked", "--workspace", "--all-targets"]))
    })
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Tier {
    Test,
    Soak,
}

/// Runs the tests of a tier: with nextest where it is installed, else with `cargo test`. Both use what the
/// build step built.
fn run_tests(root: &Path, tier: Tier, all: &mut Outcome) -> Result<String> {
    let mut command = repo::cargo(root);
    if tier == Tier::Soak {
        command.env(SOAK, "1");
        match vm::newer_tshark(root) {
            Ok(tree) => {
                command.env(NEWER_TSHARK, tree);
            }
            Err(error) => {
                let why = format!("{error:#}").replace('\n', " ");
                all.skip(&format!("SKIPPED what needs tshark 4.2 or later: {why}"));
            }
        }
    }
    if packages::find("cargo-nextest").is_some() {
        command.args(["nextest", "run", "--locked", "--workspace", "--no-fail-fast"]);
        command.args(["--color", "never", "--success-output", "immediate", "--no-tests", "pass"]);
        match tier {
            Tier::Test => command.args(["-E", &format!("not test({LONG})")]),
            Tier::Soak => command.args(["-E", &format!("test({LONG})"), "--test-threads", "1"]),
        };
        return steps::tests(command, Runner::Nextest, all);
    }
    command.args(["test", "--locked", "--workspace", "--lib", "--bins", "--tests", "--no-fail-fast"]);
    match tier {
        Tier::Test => command.args(["--", "--show-output", "--skip", LONG]),
        Tier::Soak => command.args([LONG, "--", "--show-output", "--test-threads", "1"]),
    };
    steps::tests(command, Runner::Libtest, all)
}

/// Prints findings; an error if there are any.
pub(crate) fn findings(findings: &[impl std::fmt::Display]) -> Result<String> {
    for finding in findings {
        println!("{finding}");
    }
    if !findings.is_empty() {
        bail!("{} findings", findings.len());
    }
    Ok("clean".to_owned())
}
