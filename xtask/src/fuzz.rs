//! Runs every fuzz target of `fuzz/` for a while.
//!
//! Needs a nightly toolchain and cargo-fuzz; says what is missing. It must never be part of the test tier: it
//! has no end of its own.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::packages;
use crate::steps::{self, Steps};

/// One input may take this long, in seconds.
const TIMEOUT_S: u32 = 10;
/// A target may use this much memory, in MiB.
const MEMORY_MB: u32 = 2048;

/// What the user asked for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Seconds for each target
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    /// Only these targets
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

/// Runs the targets one after the other. True if none found anything.
pub(crate) fn run(root: &Path, options: &Options) -> Result<bool> {
    let known = targets(&root.join("fuzz/targets"))?;
    if let Some(unknown) = options.targets.iter().find(|target| !known.contains(target)) {
        bail!("no fuzz target `{unknown}`; there are: {}", known.join(", "));
    }
    if packages::find("cargo-fuzz").is_none() {
        bail!("cargo-fuzz is missing: run `cargo install cargo-fuzz --locked`");
    }
    let nightly = nightly(root).arg("--version").output().context("rustup does not start")?;
    if !nightly.status.success() {
        bail!("the nightly toolchain is missing: run `rustup toolchain install nightly`");
    }
    let wanted = if options.targets.is_empty() { known } else { options.targets.clone() };
    let mut steps = Steps::new();
    for target in wanted {
        steps.run(&target, || {
            let mut command = nightly_fuzz(root);
            command.args(["run", &target, "--"]);
            command.arg(format!("-max_total_time={}", options.seconds));
            command.arg(format!("-timeout={TIMEOUT_S}")).arg(format!("-rss_limit_mb={MEMORY_MB}"));
            steps::plain(&mut command)
        });
    }
    Ok(steps.table())
}

/// The names of the targets, sorted.
fn targets(folder: &Path) -> Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
        let path = entry.with_context(|| format!("{}", folder.display()))?.path();
        if let (Some(name), true) = (path.file_stem(), path.extension().is_some_and(|e| e == "rs")) {
            names.push(name.to_string_lossy().into_owned());
        }
    }
    names.sort_unstable();
    Ok(names)
}

/// Nightly's cargo. Through rustup: the `cargo` that started us is one toolchain's own.
fn nightly(root: &Path) -> Command {
    let mut command = Command::new("rustup");
    command.args(["run", "nightly", "cargo"]).env_remove("CARGO").current_dir(root);
    command
}

fn nightly_fuzz(root: &Path) -> Command {
    let mut command = nightly(root);
    command.arg("fuzz");
    command
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::repo;

    #[test]
    fn every_target_is_in_the_manifest() {
        let root = repo::root().unwrap();
        let manifest = fs::read_to_string(root.join("fuzz/Cargo.toml")).unwrap();
        let targets = targets(&root.join("fuzz/targets")).unwrap();
        assert!(!targets.is_empty());
        for target in targets {
            assert!(manifest.contains(&format!("path = \"targets/{target}.rs\"")), "{target}");
        }
    }
}
