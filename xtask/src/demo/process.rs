//! Child processes of the demo: each ends with the demo, whichever way the demo ends.
//!
//! Every wait here looks at the interrupt flag, so that ctrl-c runs the destructors. It must never leave a
//! process behind: children are stopped on drop, and the kernel stops them if the demo itself is killed.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::packages;

const POLL: Duration = Duration::from_millis(5);
/// How long a child may take to end after it was asked to.
const STOP_TIMEOUT: Duration = Duration::from_secs(30);

/// Set by ctrl-c and its kin; every wait of the demo looks at it.
#[derive(Debug, Clone)]
pub(crate) struct Interrupt(Arc<AtomicBool>);

impl Interrupt {
    /// Registers the signals. A second signal ends the process at once.
    pub(crate) fn register() -> Result<Self> {
        let flag = Arc::new(AtomicBool::new(false));
        for signal in [SIGINT, SIGTERM, SIGHUP] {
            // The order matters: the first signal finds the flag unset, sets it, and the second exits.
            signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&flag))?;
            signal_hook::flag::register(signal, Arc::clone(&flag))?;
        }
        Ok(Self(flag))
    }

    /// An error once the user wants to stop.
    pub(crate) fn check(&self) -> Result<()> {
        // Relaxed: the flag guards no other memory.
        if self.0.load(Ordering::Relaxed) {
            bail!("interrupted");
        }
        Ok(())
    }

    /// Sleeps, at most until the user wants to stop.
    pub(crate) fn sleep(&self, time: Duration) -> Result<()> {
        let end = Instant::now() + time;
        while Instant::now() < end {
            self.check()?;
            thread::sleep(POLL.min(time));
        }
        Ok(())
    }
}

/// A command that runs in network namespace `namespace` and dies with the demo.
pub(crate) fn inside(namespace: &str, program: &Path) -> Command {
    let mut command = bound("nsenter");
    // Not `ip netns exec`: that has a private mount namespace, so pinned BPF objects would vanish with it.
    command.arg(format!("--net=/run/netns/{namespace}")).arg("--").arg(program);
    command
}

/// A command that the kernel stops if the demo dies without its destructors.
pub(crate) fn bound(program: &str) -> Command {
    let mut command = packages::tool("setpriv");
    command.args(["--pdeathsig", "TERM", "--", program]);
    command
}

/// What a finished command left.
#[derive(Debug)]
pub(crate) struct Finished {
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Finished {
    /// The command's output, or its complaint as an error.
    pub(crate) fn success(self, what: &str) -> Result<Vec<u8>> {
        if !self.status.success() {
            bail!("{what}: {}: {}", self.status, self.stderr.trim());
        }
        Ok(self.stdout)
    }
}

/// Runs a command to its end, with `input` on its stdin.
pub(crate) fn run(mut command: Command, input: Vec<u8>, interrupt: &Interrupt) -> Result<Finished> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut running = Running::start(command)?;
    if let Some(mut stdin) = running.child.stdin.take() {
        // The reader may stop early (`head`): a closed pipe is no error here.
        thread::spawn(move || drop(stdin.write_all(&input)));
    }
    let stdout = drain(running.child.stdout.take());
    let stderr = drain(running.child.stderr.take());
    let status = running.wait(interrupt, None)?;
    let stderr = String::from_utf8_lossy(&join(stderr)?).into_owned();
    Ok(Finished { status, stdout: join(stdout)?, stderr })
}

fn drain(pipe: Option<impl Read + Send + 'static>) -> JoinHandle<Vec<u8>> {
    thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut pipe) = pipe {
            // What arrived before an error is what there is.
            let _ = pipe.read_to_end(&mut bytes);
        }
        bytes
    })
}

fn join(reader: JoinHandle<Vec<u8>>) -> Result<Vec<u8>> {
    reader.join().map_err(|_| anyhow::anyhow!("a reader of a child's output panicked"))
}

/// A child that is stopped on drop.
#[derive(Debug)]
pub(crate) struct Running {
    child: Child,
    name: String,
}

impl Running {
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        let name = format!("{command:?}");
        let child = command.spawn().with_context(|| format!("cannot start {name}"))?;
        Ok(Self { child, name })
    }

    /// Waits for the end, at most `limit`.
    fn wait(&mut self, interrupt: &Interrupt, limit: Option<Duration>) -> Result<ExitStatus> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().context("wait")? {
                return Ok(status);
            }
            interrupt.check()?;
            if limit.is_some_and(|limit| started.elapsed() > limit) {
                bail!("{} still runs after {:.0} s", self.name, started.elapsed().as_secs_f64());
            }
            thread::sleep(POLL);
        }
    }

    fn terminate(&self) {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            // Not reaped yet, so the id is still this child's; an error means it is gone already.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(Some(_))) {
            return;
        }
        self.terminate();
        let asked = Instant::now();
        while asked.elapsed() < STOP_TIMEOUT {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            thread::sleep(POLL);
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A server or recorder: says in a line when it is ready, and ends on SIGTERM.
#[derive(Debug)]
pub(crate) struct Service {
    running: Running,
    lines: Receiver<String>,
    output: Option<JoinHandle<Vec<u8>>>,
    said: Vec<String>,
}

impl Service {
    /// Starts a service whose talk is on stderr and whose data is on stdout.
    pub(crate) fn start(mut command: Command) -> Result<Self> {
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = Running::start(command)?;
        let (sender, lines) = channel();
        let stderr = running.child.stderr.take().context("no stderr")?;
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    break;
                }
            }
        });
        let output = Some(drain(running.child.stdout.take()));
        Ok(Self { running, lines, output, said: Vec::new() })
    }

    /// Waits for the line that starts with `start`, and returns it.
    pub(crate) fn wait_for(&mut self, start: &str, limit: Duration, interrupt: &Interrupt) -> Result<String> {
        let started = Instant::now();
        loop {
            interrupt.check()?;
            match self.lines.recv_timeout(POLL) {
                Ok(line) if line.starts_with(start) => return Ok(line),
                Ok(line) => self.said.push(line),
                Err(RecvTimeoutError::Timeout) if started.elapsed() < limit => {}
                Err(RecvTimeoutError::Timeout) => bail!(
                    "{} did not say `{start}` within {:.0} s; it said:\n{}",
                    self.running.name,
                    limit.as_secs_f64(),
                    self.said.join("\n")
                ),
                Err(RecvTimeoutError::Disconnected) => bail!(
                    "{} ended without saying `{start}`; it said:\n{}",
                    self.running.name,
                    self.said.join("\n")
                ),
            }
        }
    }

    /// What the service has said so far beside the lines that were waited for; each line once.
    pub(crate) fn take_said(&mut self) -> Vec<String> {
        self.said.extend(self.lines.try_iter());
        std::mem::take(&mut self.said)
    }

    /// Sends SIGTERM, waits for the end and returns what it left.
    pub(crate) fn stop(mut self, interrupt: &Interrupt) -> Result<Finished> {
        self.running.terminate();
        let status = self.running.wait(interrupt, Some(STOP_TIMEOUT))?;
        self.said.extend(self.lines.iter());
        let output = self.output.take().map_or_else(|| Ok(Vec::new()), join)?;
        Ok(Finished { status, stdout: output, stderr: self.said.join("\n") })
    }
}
