//! The recorder under test, as its own process, and questions put to `taperead`.

use crate::link::Link;
use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// A binary that lies beside this one (or, for a test, in the folder above it), or in PATH.
#[must_use]
pub fn binary(name: &str) -> PathBuf {
    let exe = std::env::current_exe().unwrap_or_default();
    let beside = exe.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    beside.into_iter().find(|path| path.is_file()).unwrap_or_else(|| PathBuf::from(name))
}

/// What a program says of its version; `None` where it is not installed, or does not say it.
#[must_use]
pub fn version(program: impl AsRef<OsStr>) -> Option<String> {
    let output = Command::new(program).arg("--version").stdin(Stdio::null()).output().ok()?;
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    (output.status.success() && !text.is_empty()).then_some(text)
}

/// A running `tapedeck record`; killed on drop unless it was stopped.
#[derive(Debug)]
pub struct Recorder {
    child: Child,
    /// The `ready:` line: interface, queues, mode.
    pub ready: String,
}

impl Recorder {
    /// Starts recording `rx0` of `link` and waits until it is ready.
    ///
    /// # Errors
    /// The recorder does not start; its own words are in the error.
    pub fn start(link: &Link, store: &Path, arguments: &[String]) -> Result<Self> {
        let mut command = link.command(&binary("tapedeck"));
        command.args(["record", "--interface", link.rx(), "--store"]).arg(store).args(arguments);
        Self::spawn(command)
    }

    /// Starts a `tapedeck record` that was put together elsewhere, on the calling thread's CPUs.
    ///
    /// # Errors
    /// As [`Recorder::start`].
    pub fn spawn(mut command: Command) -> Result<Self> {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting tapedeck")?;
        let mut lines = BufReader::new(child.stderr.take().context("no stderr")?);
        let mut talk = String::new();
        loop {
            let mut line = String::new();
            if lines.read_line(&mut line)? == 0 {
                let _ = child.wait();
                bail!("tapedeck did not get ready:\n{talk}");
            }
            if line.starts_with("ready: ") {
                // Keep the pipe drained, or a talkative recorder would block on it.
                std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
                return Ok(Self { child, ready: line.trim().to_owned() });
            }
            talk.push_str(&line);
        }
    }

    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Stops the recorder as an operator does and returns its final ledger.
    ///
    /// # Errors
    /// It ended badly, or its ledger is no JSON.
    pub fn stop(mut self) -> Result<serde_json::Value> {
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGTERM).context("stopping tapedeck")?;
        let mut ledger = String::new();
        self.child.stdout.take().context("no stdout")?.read_to_string(&mut ledger)?;
        let status = self.child.wait()?;
        if !status.success() {
            bail!("tapedeck ended with {status}");
        }
        serde_json::from_str(&ledger).context("the final ledger is no JSON")
    }
}

impl Recorder {
    /// Kills the recorder as `kill -9` does and waits until it is gone.
    ///
    /// # Errors
    /// It had ended before.
    pub fn kill(mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait()? {
            bail!("tapedeck had ended with {status}");
        }
        self.child.kill().context("killing tapedeck")?;
        self.child.wait()?;
        Ok(())
    }
}

/// Checks that a ledger balances, per queue and in total: everything seen stands in one line, and nothing
/// is unaccounted.
///
/// # Errors
/// It does not; the error names the entry.
pub fn check_balance(ledger: &serde_json::Value) -> Result<()> {
    let queues =
        ledger.get("queues").and_then(serde_json::Value::as_array).context("a ledger without queues")?;
    let total = ledger.get("total").context("a ledger without a total")?;
    for entry in queues.iter().chain([total]) {
        let number = |key: &str| {
            let value = entry.get(key).and_then(serde_json::Value::as_i64);
            value.with_context(|| format!("the ledger has no number {key}: {entry}"))
        };
        let dropped = entry.get("dropped").and_then(serde_json::Value::as_object);
        let dropped = dropped.context("a ledger entry without losses by cause")?;
        let dropped: i64 = dropped.values().filter_map(serde_json::Value::as_i64).sum();
        let known = number("filtered")? + number("stored")? + number("pending")? + dropped;
        let unaccounted = number("unaccounted")?;
        if unaccounted != 0 || number("seen")? != known {
            bail!("the ledger does not balance ({unaccounted} unaccounted): {entry}");
        }
    }
    Ok(())
}

impl Drop for Recorder {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// An answer of `taperead packets`.
#[derive(Debug)]
pub struct Answer {
    /// The packets, as a classic pcap with nanoseconds.
    pub pcap: Vec<u8>,
    /// It vouches for all packets of the asked range.
    pub whole: bool,
}

/// What `taperead packets` answers.
///
/// # Errors
/// Exit codes other than 0, 1 (no match) and 3 (not whole).
pub fn ask(store: &Path, filter: &str, from_ns: u64) -> Result<Answer> {
    let from = format!("{}.{:09}", from_ns / 1_000_000_000, from_ns % 1_000_000_000);
    let output = Command::new(binary("taperead"))
        .args(["packets", filter, "--format", "pcap", "-w", "-", "--from", &from, "--store"])
        .arg(store)
        .output()
        .context("starting taperead")?;
    match output.status.code() {
        Some(0 | 1) => Ok(Answer { pcap: output.stdout, whole: true }),
        Some(3) => Ok(Answer { pcap: output.stdout, whole: false }),
        code => bail!("taperead exits {code:?}: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

#[cfg(test)]
mod tests {
    use super::check_balance;
    use serde_json::json;

    #[test]
    fn only_a_ledger_that_adds_up_passes() {
        let entry = |seen: i64, stored: i64, unaccounted: i64| {
            json!({ "seen": seen, "filtered": 1, "stored": stored, "pending": 0,
                    "dropped": { "shed": 2, "nic": 3 }, "unaccounted": unaccounted })
        };
        let ledger = |queue, total| json!({ "queues": [queue], "total": total });
        check_balance(&ledger(entry(10, 4, 0), entry(10, 4, 0))).unwrap();
        for bad in [
            ledger(entry(10, 3, 1), entry(10, 4, 0)),
            ledger(entry(10, 4, 0), entry(10, 5, -1)),
            ledger(entry(11, 4, 0), entry(10, 4, 0)),
            json!({ "total": entry(10, 4, 0) }),
            ledger(json!({ "seen": 1 }), entry(10, 4, 0)),
        ] {
            assert!(check_balance(&bad).is_err(), "{bad}");
        }
    }
}
