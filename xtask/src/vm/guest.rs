//! What runs in the guest: the first process. It makes the system usable, runs the checks one after the
//! other, says how each ended, and powers off.
//!
//! Its words go over the serial line to [`machine`](super::machine). It must never run on a real machine:
//! it refuses unless it is process 1 and finds the list of checks.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};

use super::machine::{QUEUES, RX_MAC, TX_MAC};
use super::output_of;

/// Begins each line that is for the host.
pub(crate) const WORD: &str = "tapedeck-vm: ";
/// Folder of the guest with the modules, in the order of loading.
pub(crate) const MODULES: &str = "/vm/modules";
/// File of the guest with the path of the test program, and the name of a test in each further line.
pub(crate) const CHECKS: &str = "/vm/checks";
/// Programs in the guest lie where they lay on the host.
const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Longest time for one check.
const LIMIT: Duration = Duration::from_secs(120);
/// Lines of a failed check's output that are passed on, and what is shown of each, in characters.
const LINES: usize = 40;
const WIDTH: usize = 2000;
const OUTPUT: &str = "/tmp/output";

/// The life of the guest. Returns only when it cannot power off.
pub(crate) fn run() -> Result<()> {
    if std::process::id() != 1 || !Path::new(CHECKS).exists() {
        bail!("this is for guests of `cargo xtask vm`");
    }
    match prepare().and_then(|cards| checks(&cards)) {
        Ok(()) => println!("{WORD}end"),
        Err(error) => println!("{WORD}said {error:#}"),
    }
    reboot(RebootMode::RB_POWER_OFF).context("power off")?;
    Ok(())
}

/// Names of the two cards.
struct Cards {
    tx: String,
    rx: String,
}

fn prepare() -> Result<Cards> {
    for (kind, at) in [
        ("proc", "/proc"),
        ("sysfs", "/sys"),
        ("devtmpfs", "/dev"),
        ("tmpfs", "/tmp"),
        ("tmpfs", "/run"),
        ("bpf", "/sys/fs/bpf"),
    ] {
        fs::create_dir_all(at).with_context(|| at.to_owned())?;
        mount(Some(kind), at, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mounting {at}"))?;
    }
    let mut modules: Vec<PathBuf> =
        fs::read_dir(MODULES)?.map(|entry| entry.map(|e| e.path())).collect::<Result<_, _>>()?;
    modules.sort();
    for module in modules {
        let file = File::open(&module).with_context(|| format!("{}", module.display()))?;
        finit_module(file, c"", ModuleInitFlags::empty())
            .with_context(|| format!("loading {}", module.display()))?;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("osrelease")?;
    println!("{WORD}kernel {}", release.trim());
    let cards = Cards { tx: card(TX_MAC)?, rx: card(RX_MAC)? };
    for name in ["lo", &cards.tx, &cards.rx] {
        tool("ip", &["link", "set", "dev", name, "up"])?;
    }
    // All of its queues: the driver takes those that are to spare for XDP, and packets come there, too.
    tool("ethtool", &["-L", &cards.rx, "combined", &QUEUES.to_string()])?;
    Ok(cards)
}

fn tool(name: &str, arguments: &[&str]) -> Result<()> {
    output_of(Command::new(name).env("PATH", PATH).args(arguments)).map(drop)
}

/// The interface with this address.
fn card(mac: &str) -> Result<String> {
    for entry in fs::read_dir("/sys/class/net").context("interfaces")? {
        let entry = entry?;
        let address = fs::read_to_string(entry.path().join("address")).unwrap_or_default();
        if address.trim() == mac {
            return Ok(entry.file_name().to_string_lossy().into_owned());
        }
    }
    bail!("no card {mac}")
}

fn checks(cards: &Cards) -> Result<()> {
    let list = fs::read_to_string(CHECKS).context(CHECKS)?;
    let mut lines = list.lines();
    let program = Path::new(lines.next().context("no test program")?);
    for test in lines {
        let started = Instant::now();
        let verdict = check(program, test, cards)?;
        let (word, reason) = verdict.split_once(' ').unwrap_or((&verdict, ""));
        println!("{WORD}check {test} {word} {:.2} {reason}", started.elapsed().as_secs_f64());
        if word == "failed" {
            pass_on();
        }
    }
    Ok(())
}

/// Runs one test of the program: `passed`, `failed`, or `skipped` with the reason.
fn check(program: &Path, test: &str, cards: &Cards) -> Result<String> {
    let output = File::create(OUTPUT).context(OUTPUT)?;
    let mut child = Command::new(program)
        .args([test, "--exact", "--show-output", "--test-threads", "1"])
        .env_clear()
        .envs([("PATH", PATH), ("TMPDIR", "/tmp"), ("RUST_BACKTRACE", "0")])
        .envs([("TAPEDECK_GUEST_TX", &cards.tx), ("TAPEDECK_GUEST_RX", &cards.rx)])
        .stdin(Stdio::null())
        .stderr(output.try_clone().context(OUTPUT)?)
        .stdout(output)
        .spawn()
        .with_context(|| format!("starting {}", program.display()))?;
    let deadline = Instant::now() + LIMIT;
    while child.try_wait().context("waiting for a check")?.is_none() {
        if Instant::now() > deadline {
            println!("{WORD}said {test} took more than {LIMIT:?}");
            child.kill().context("ending a check")?;
            child.wait().context("waiting for a check")?;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let said = fs::read(OUTPUT).context(OUTPUT)?;
    Ok(verdict(&String::from_utf8_lossy(&said)))
}

fn verdict(said: &str) -> String {
    let skipped = said.lines().find_map(|line| line.trim().strip_prefix("SKIPPED"));
    match skipped {
        _ if !said.contains("test result: ok. 1 passed; 0 failed") => "failed".to_owned(),
        Some(reason) => format!("skipped {}", reason.trim()),
        None => "passed".to_owned(),
    }
}

/// Says the end of what the last check said.
fn pass_on() {
    let said = fs::read(OUTPUT).unwrap_or_default();
    let said = String::from_utf8_lossy(&said);
    let lines: Vec<&str> = said.lines().filter(|line| !line.trim().is_empty()).collect();
    for line in lines.iter().skip(lines.len().saturating_sub(LINES)) {
        println!("{WORD}said {}", line.chars().take(WIDTH).collect::<String>());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_check_passes_only_if_its_one_test_ran() {
        assert_eq!(verdict("test result: ok. 1 passed; 0 failed; 0 ignored"), "passed");
        assert_eq!(
            verdict("SKIPPED 1: not root\ntest result: ok. 1 passed; 0 failed; 0"),
            "skipped 1: not root"
        );
        assert_eq!(verdict("test result: ok. 0 passed; 0 failed; 0 ignored; 3 filtered out"), "failed");
        assert_eq!(verdict("test result: FAILED. 0 passed; 1 failed"), "failed");
        assert_eq!(verdict(""), "failed");
    }

    #[test]
    fn it_refuses_outside_a_guest() {
        assert!(run().is_err());
    }
}
