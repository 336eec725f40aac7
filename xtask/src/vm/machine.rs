//! One guest: QEMU without acceleration, watched, its words on the serial line taken as results.
//!
//! What the guest says in lines that begin with [`WORD`] is for us; the rest goes to its log only. It must
//! never leave a QEMU behind, and never end one that it did not start.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::guest::WORD;
use super::network::{Network, RX, TX};
use crate::demo::process::{self, Interrupt};
use crate::packages;

const QEMU: &str = "qemu-system-x86_64";
/// Queue pairs of the card that is recorded. The card that sends has one: with more, packets of a sender that
/// changes CPUs overtake each other.
pub(crate) const QUEUES: usize = 4;
const CPUS: &str = "2";
const MEMORY_MIB: &str = "2048";
const POLL: Duration = Duration::from_millis(100);

/// The cards' addresses, by which the guest tells them apart.
pub(crate) const TX_MAC: &str = "52:54:00:74:64:01";
pub(crate) const RX_MAC: &str = "52:54:00:74:64:02";

/// How a check ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Failed,
    /// It could not run, and said why.
    Skipped(String),
}

/// What a guest said.
#[derive(Debug, Default)]
pub(crate) struct Report {
    /// By name of the test: verdict and seconds.
    pub(crate) results: BTreeMap<String, (Verdict, f64)>,
    /// It came to its end.
    pub(crate) ended: bool,
    /// From power-on to power-off.
    pub(crate) took: Duration,
}

/// What to boot.
#[derive(Debug)]
pub(crate) struct Machine<'a> {
    pub(crate) image: &'a Path,
    pub(crate) initramfs: &'a Path,
    pub(crate) log: &'a Path,
    /// Longest life of the guest.
    pub(crate) limit: Duration,
}

/// A QEMU of ours; killed when dropped.
struct Running {
    child: Child,
    lines: Receiver<String>,
}

impl Drop for Running {
    fn drop(&mut self) {
        if !matches!(self.child.try_wait(), Ok(Some(_))) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

impl Machine<'_> {
    /// Boots the guest and collects what it says, until it powers off.
    pub(crate) fn run(&self, interrupt: &Interrupt, mut show: impl FnMut(&str)) -> Result<Report> {
        let network = Network::new().context("a link for the guest")?;
        let mut log = File::create(self.log).with_context(|| format!("{}", self.log.display()))?;
        let started = Instant::now();
        let running = start(self.command(&network)?)?;
        let mut report = Report::default();
        loop {
            interrupt.check()?;
            match running.lines.recv_timeout(POLL) {
                Ok(line) => {
                    writeln!(log, "{:7.2} {line}", started.elapsed().as_secs_f64())
                        .context("the guest's log")?;
                    if let Some((_, words)) = line.split_once(WORD) {
                        show(words);
                        report.read(words);
                    }
                }
                Err(RecvTimeoutError::Timeout) if started.elapsed() < self.limit => {}
                Err(RecvTimeoutError::Timeout) => {
                    show(&format!("stopped: it still ran after {:.0} s", self.limit.as_secs_f64()));
                    break;
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        report.took = started.elapsed();
        Ok(report)
    }

    fn command(&self, network: &Network) -> Result<Command> {
        let qemu = packages::find(QEMU).with_context(|| format!("no {QEMU}"))?;
        let mut command = process::inside(&network.namespace, &qemu);
        command.args(["-accel", "tcg", "-cpu", "max,la57=off", "-smp", CPUS, "-m", MEMORY_MIB]);
        command.args([
            "-nodefaults",
            "-no-user-config",
            "-display",
            "none",
            "-no-reboot",
            "-serial",
            "stdio",
        ]);
        command.arg("-kernel").arg(self.image).arg("-initrd").arg(self.initramfs);
        command
            .args(["-append", "console=ttyS0 loglevel=4 panic=-1 ipv6.disable=1 rdinit=/init -- vm-guest"]);
        for (tap, mac, queues) in [(TX, TX_MAC, 1), (RX, RX_MAC, QUEUES)] {
            let backend = format!("tap,id={tap},ifname={tap},script=no,downscript=no,queues={queues}");
            // Zero-copy wants the DMA interface (iommu_platform), and XDP frames that nobody merged.
            let card = format!(
                "virtio-net-pci,netdev={tap},mac={mac},mq=on,vectors={},iommu_platform=on,disable-legacy=on,\
                 guest_tso4=off,guest_tso6=off,guest_ecn=off,guest_ufo=off,romfile=",
                2 * queues + 2
            );
            command.args(["-netdev", &backend, "-device", &card]);
        }
        Ok(command)
    }
}

fn start(mut command: Command) -> Result<Running> {
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().with_context(|| format!("cannot start {command:?}"))?;
    let (sender, lines) = channel();
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let running = Running { child, lines };
    let complaints = sender.clone();
    thread::spawn(move || forward(stdout, &sender));
    thread::spawn(move || forward(stderr, &complaints));
    Ok(running)
}

fn forward(pipe: Option<impl std::io::Read>, to: &std::sync::mpsc::Sender<String>) {
    let Some(pipe) = pipe else { return };
    for line in BufReader::new(pipe).split(b'\n').map_while(Result::ok) {
        if to.send(String::from_utf8_lossy(&line).trim_end().to_owned()).is_err() {
            return;
        }
    }
}

impl Report {
    /// `check NAME VERDICT SECONDS [REASON]`, or `end`.
    fn read(&mut self, words: &str) {
        if words == "end" {
            self.ended = true;
        }
        let mut parts = words.splitn(5, ' ');
        let (Some("check"), Some(name), Some(verdict)) = (parts.next(), parts.next(), parts.next()) else {
            return;
        };
        let seconds = parts.next().and_then(|seconds| seconds.parse().ok()).unwrap_or_default();
        let verdict = match verdict {
            "passed" => Verdict::Passed,
            "skipped" => Verdict::Skipped(parts.next().unwrap_or("no reason said").to_owned()),
            _ => Verdict::Failed,
        };
        self.results.insert(name.to_owned(), (verdict, seconds));
    }
}

/// QEMU's own version, for the table.
pub(crate) fn version() -> Result<String> {
    let shown = super::output_of(packages::tool(QEMU).arg("--version"))?;
    let shown = String::from_utf8_lossy(&shown).into_owned();
    let number = shown.split_whitespace().skip_while(|word| *word != "version").nth(1);
    let Some(number) = number else { bail!("{QEMU} has no version") };
    Ok(number.to_owned())
}

/// Where the guest of a kernel leaves what it said.
pub(crate) fn log_of(folder: &Path, version: &str) -> PathBuf {
    folder.join(format!("{version}.log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_are_read_and_nothing_else_counts() {
        let mut report = Report::default();
        for words in
            ["check a::b passed 1.50", "check c failed 2.00", "check d skipped 0.10 not root", "said x"]
        {
            report.read(words);
        }
        assert_eq!(report.results.get("a::b"), Some(&(Verdict::Passed, 1.5)));
        assert_eq!(report.results.get("c"), Some(&(Verdict::Failed, 2.0)));
        assert_eq!(report.results.get("d"), Some(&(Verdict::Skipped("not root".to_owned()), 0.1)));
        assert!(report.results.len() == 3 && !report.ended);
        report.read("end");
        assert!(report.ended);
    }
}
