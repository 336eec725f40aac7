//! The recorder on other kernels: guests in QEMU, without acceleration, so that any machine can do it.
//!
//! The pipeline: Debian's kernels into a private folder -> an initramfs with the programs and tests built
//! here -> a guest with two cards joined by a link of our own -> tests of `capture/tests/live` in it -> a
//! table of what holds where. Everything is kept below `target/vm`. It must never count a check that did
//! not run as one that holds.

mod apt;
mod checks;
pub(crate) mod guest;
mod initramfs;
mod kernel;
mod machine;
mod network;
mod table;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use cargo_metadata::{Message, TargetKind};

use self::apt::Archive;
use self::checks::{CHECKS, Check};
use self::initramfs::Initramfs;
use self::kernel::{Kernel, Version};
use self::machine::{Machine, Report, Verdict};
use crate::demo::process::Interrupt;
use crate::packages::{self, For};
use crate::repo;

/// Series of the matrix; the newest kernel there is comes on top.
const SERIES: &[(u32, u32)] = &[(6, 1), (6, 12), (6, 18)];
/// Longest life of a guest with every check, and of the one in the test tier.
const LIMIT: Duration = Duration::from_secs(20 * 60);
const QUICK_LIMIT: Duration = Duration::from_secs(5 * 60);
/// Programs of the system that tests use in the guest.
const TOOLS: &[&str] = &["ip", "ss", "ethtool", "zstd"];

/// What the user asked for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Kernel: a series such as 6.12, or `newest`
    #[arg(default_value = "newest")]
    kernel: String,
    /// Every kernel of the matrix: 6.1, 6.12, 6.18 and the newest
    #[arg(long, conflicts_with = "kernel")]
    all: bool,
    /// Only the checks whose test has this in its path
    #[arg(long, value_name = "TEXT")]
    only: Option<String>,
}

/// Runs the guests that were asked for. True if everything holds that should.
pub(crate) fn run(root: &Path, options: &Options) -> Result<bool> {
    let interrupt = Interrupt::register()?;
    println!("Debian packages: {}", prepare()?);
    let programs = Programs::build(root)?;
    let archive = Archive::open(&folder(root)?)?;
    let known = archive.kernels()?;
    let versions = if options.all { matrix(&known)? } else { vec![choose(&known, &options.kernel)?] };
    let chosen = |check: &&Check| options.only.as_ref().is_none_or(|text| check.test.contains(text.as_str()));
    let mut reports = Vec::new();
    for version in versions {
        println!("\nLinux {}", version.name());
        let kernel = archive.fetch(&version)?;
        let checks: Vec<&Check> = CHECKS.iter().filter(chosen).filter(|c| c.is_for(&version)).collect();
        let report = boot(root, &kernel, &programs, &checks, LIMIT, &interrupt)?;
        reports.push((version, report));
    }
    let checks: Vec<&Check> = CHECKS.iter().filter(chosen).collect();
    print!("\n{}", table::markdown(&checks, &reports, &machine::version()?));
    Ok(reports.iter().all(|(version, report)| failures(&checks, version, report).is_empty()))
}

/// The newest kernel, ready to boot; an error means that none can be had here.
pub(crate) fn obtain(root: &Path) -> Result<Kernel> {
    prepare()?;
    let archive = Archive::open(&folder(root)?)?;
    archive.fetch(&choose(&archive.kernels()?, "newest")?)
}

/// A tshark newer than that of the oldest system we run on, with its libraries; an error means that it cannot be
/// had here.
pub(crate) fn newer_tshark(root: &Path) -> Result<PathBuf> {
    let folder = folder(root)?;
    let tree = folder.join("tshark-trixie");
    Archive::open(&folder)?.unpack("tshark", "trixie", &tree)?;
    Ok(tree)
}

/// The guest of the test tier. Returns what it did, in words.
pub(crate) fn one_guest(root: &Path, kernel: &Kernel) -> Result<String> {
    let interrupt = Interrupt::register()?;
    let programs = Programs::build(root)?;
    let version = &kernel.version;
    let checks: Vec<&Check> = CHECKS.iter().filter(|c| c.quick && c.is_for(version)).collect();
    let report = boot(root, kernel, &programs, &checks, QUICK_LIMIT, &interrupt)?;
    let failures = failures(&checks, version, &report);
    if !failures.is_empty() {
        bail!("Linux {}: {}", version.short(), failures.join("; "));
    }
    Ok(format!("Linux {}: {} checks hold", version.short(), checks.len()))
}

/// What a guest needs of this machine.
fn prepare() -> Result<String> {
    if !packages::is_root() {
        bail!("the link of a guest needs root");
    }
    if std::env::consts::ARCH != "x86_64" {
        bail!("the kernels fetched are for x86-64");
    }
    if !Path::new("/dev/net/tun").exists() {
        bail!("no /dev/net/tun for the cards of a guest");
    }
    packages::install_missing(&[For::Build, For::Guest])
}

fn folder(root: &Path) -> Result<PathBuf> {
    let folder = root.join("target/vm");
    fs::create_dir_all(&folder).with_context(|| format!("{}", folder.display()))?;
    Ok(folder)
}

/// The newest kernel of the series that `wish` names, or of all.
fn choose(known: &[Version], wish: &str) -> Result<Version> {
    let fits = |version: &&Version| {
        let (major, minor) = version.series();
        wish == "newest" || wish == version.name() || wish == format!("{major}.{minor}")
    };
    let found = known.iter().filter(fits).max().cloned();
    found.with_context(|| format!("no kernel {wish} in Debian's suites"))
}

fn matrix(known: &[Version]) -> Result<Vec<Version>> {
    let mut versions = Vec::new();
    for (major, minor) in SERIES {
        versions.push(choose(known, &format!("{major}.{minor}"))?);
    }
    versions.push(choose(known, "newest")?);
    versions.dedup();
    Ok(versions)
}

/// What was built here and runs in the guest.
#[derive(Debug)]
struct Programs {
    init: PathBuf,
    tapedeck: PathBuf,
    taperead: PathBuf,
    tests: PathBuf,
}

impl Programs {
    /// Builds everything as the test tier does, so that nothing is built twice, and notes where it lies.
    fn build(root: &Path) -> Result<Self> {
        let mut cargo = repo::cargo(root);
        cargo.args(["build", "--locked", "--workspace", "--all-targets"]);
        cargo.args(["--message-format", "json-render-diagnostics"]);
        let output = cargo.stderr(Stdio::inherit()).output().context("cargo does not start")?;
        if !output.status.success() {
            bail!("cargo build: {}", output.status);
        }
        let mut built = Vec::new();
        for message in Message::parse_stream(output.stdout.as_slice()) {
            let Message::CompilerArtifact(artifact) = message.context("what cargo says")? else { continue };
            let Some(executable) = artifact.executable else { continue };
            let test = artifact.profile.test || artifact.target.kind.contains(&TargetKind::Test);
            built.push((artifact.target.name, test, executable.into_std_path_buf()));
        }
        let find = |name: &str, test: bool| -> Result<PathBuf> {
            let mut found = built.iter().filter(|(found, is_test, _)| found == name && *is_test == test);
            let (.., path) = found.next().with_context(|| format!("cargo built no {name}"))?;
            match found.next() {
                None => Ok(path.clone()),
                Some((.., other)) => {
                    bail!("cargo built two of {name}: {} and {}", path.display(), other.display())
                }
            }
        };
        Ok(Self {
            init: find("tapedeck-xtask", false)?,
            tapedeck: find("tapedeck", false)?,
            taperead: find("taperead", false)?,
            tests: find("live", true)?,
        })
    }

    /// The guest's file system for `kernel`, which runs `checks`.
    fn initramfs(&self, kernel: &Kernel, checks: &[&Check]) -> Result<Vec<u8>> {
        let mut files = Initramfs::default();
        for name in ["proc", "sys", "dev", "tmp", "run"] {
            files.add_folder(name)?;
        }
        files.add_own(&self.init, Path::new("/init"))?;
        // The tests know where the programs were built.
        for program in [&self.tapedeck, &self.taperead, &self.tests] {
            files.add_own(program, program)?;
        }
        for tool in TOOLS {
            files.add_program(&packages::find(tool).with_context(|| format!("no {tool}"))?)?;
        }
        for module in kernel.modules()? {
            let name = module.file_name().context("a module without a name")?;
            files.add_copy(&module, &Path::new(guest::MODULES).join(name))?;
        }
        let tests = self.tests.to_str().context("the path of the repository is not UTF-8")?;
        let lines: Vec<&str> = std::iter::once(tests).chain(checks.iter().map(|check| check.test)).collect();
        files.add(Path::new(guest::CHECKS), lines.join("\n").as_bytes())?;
        files.finish()
    }
}

fn boot(
    root: &Path,
    kernel: &Kernel,
    programs: &Programs,
    checks: &[&Check],
    limit: Duration,
    interrupt: &Interrupt,
) -> Result<Report> {
    let folder = folder(root)?;
    let initramfs = folder.join(format!("initramfs-{}", std::process::id()));
    fs::write(&initramfs, programs.initramfs(kernel, checks)?)
        .with_context(|| format!("{}", initramfs.display()))?;
    let log = machine::log_of(&folder, kernel.version.name());
    let machine = Machine { image: &kernel.image(), initramfs: &initramfs, log: &log, limit };
    let report = machine.run(interrupt, |words| println!("    {words}"));
    fs::remove_file(&initramfs).with_context(|| format!("removing {}", initramfs.display()))?;
    let report = report?;
    if !report.ended {
        println!("    the guest did not come to its end: see {}", log.display());
    }
    println!("    {} checks in {:.0} s", report.results.len(), report.took.as_secs_f64());
    Ok(report)
}

/// What should hold on this kernel and does not.
fn failures(checks: &[&Check], version: &Version, report: &Report) -> Vec<String> {
    let wrong = |check: &&&Check| {
        let verdict = report.results.get(check.test).map(|(verdict, _)| verdict);
        check.is_for(version) && verdict != Some(&Verdict::Passed)
    };
    checks.iter().filter(wrong).map(|check| format!("not so: {} ({})", check.claim, check.test)).collect()
}

/// Output of a command that must succeed.
fn output_of(command: &mut Command) -> Result<Vec<u8>> {
    let output = command.output().with_context(|| format!("{:?} does not start", command.get_program()))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let program = Path::new(command.get_program()).display();
        bail!("{program}: {}: {}", output.status, said.trim());
    }
    Ok(output.stdout)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn known() -> Vec<Version> {
        [
            "6.1.0-50-cloud-amd64",
            "6.12.95+deb12-cloud-amd64",
            "6.12.117+deb13-cloud-amd64",
            "7.3.4-cloud-amd64",
        ]
        .iter()
        .map(|name| Version::named(name).unwrap())
        .collect()
    }

    #[test]
    fn a_kernel_is_chosen_by_series_or_age() {
        let chosen = |wish| choose(&known(), wish).map(|version| version.short().to_owned());
        assert_eq!(chosen("6.12").unwrap(), "6.12.117+deb13");
        assert_eq!(chosen("newest").unwrap(), "7.3.4");
        assert_eq!(chosen("6.12.95+deb12-cloud-amd64").unwrap(), "6.12.95+deb12");
        assert!(chosen("5.10").is_err() && chosen("6").is_err());
        assert!(matrix(&known()).is_err(), "no 6.18");
    }

    #[test]
    fn what_did_not_run_or_was_skipped_does_not_hold() {
        let version = Version::named("7.3.4-cloud-amd64").unwrap();
        let check = CHECKS.first().unwrap();
        let mut report = Report::default();
        assert_eq!(failures(&[check], &version, &report).len(), 1);
        for (verdict, failed) in
            [(Verdict::Passed, 0), (Verdict::Failed, 1), (Verdict::Skipped(String::new()), 1)]
        {
            report.results.insert(check.test.to_owned(), (verdict, 1.0));
            assert_eq!(failures(&[check], &version, &report).len(), failed);
        }
    }
}
