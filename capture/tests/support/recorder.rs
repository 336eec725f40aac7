//! `tapedeck record` as a child process, and what others read in its store.

use super::Net;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead as _, BufReader, Read as _};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

/// A running `tapedeck record`, killed if it is still there when dropped.
pub(crate) struct Recorder {
    child: Child,
    stderr: BufReader<ChildStderr>,
    /// Everything it said on stderr up to and including the ready line.
    pub(crate) said: String,
}

impl Recorder {
    /// Starts the recorder on the receiving end, with more arguments, and waits until it is ready.
    pub(crate) fn start(net: &Net, store: &Path, args: &[&str]) -> Self {
        Self::spawn(&mut record_command(net, store, args))
    }

    /// Starts a recorder by a command of the caller's and waits until it is ready.
    pub(crate) fn spawn(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("start the recorder");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut said = String::new();
        while !said.lines().last().unwrap_or_default().starts_with("ready: ") {
            let len = stderr.read_line(&mut said).expect("stderr of the recorder");
            assert!(len > 0, "no ready line:\n{said}");
        }
        Self { child, stderr, said }
    }

    /// Process id.
    pub(crate) fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("signal the recorder");
    }

    /// Ends it with SIGTERM.
    pub(crate) fn stop(self) -> Ended {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Reads what it says on stderr until a line holds `text`.
    pub(crate) fn wait_for_words(&mut self, text: &str) {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            let len = self.stderr.read_line(&mut line).expect("stderr of the recorder");
            self.said.push_str(&line);
            assert!(len > 0, "it never said `{text}`:\n{}", self.said);
        }
    }

    /// Kills it as `kill -9` does.
    pub(crate) fn kill(mut self) {
        self.child.kill().expect("kill the recorder");
        self.child.wait().expect("exit status");
    }

    /// Waits for its end.
    pub(crate) fn wait(mut self) -> Ended {
        let mut stdout = String::new();
        self.child.stdout.take().expect("piped").read_to_string(&mut stdout).expect("stdout");
        self.stderr.read_to_string(&mut self.said).expect("stderr");
        let code = self.child.wait().expect("exit status").code();
        let ledger = serde_json::from_str(&stdout).unwrap_or(serde_json::Value::Null);
        Ended { code, ledger, stderr: std::mem::take(&mut self.said) }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a recorder ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: Option<i32>,
    pub(crate) ledger: serde_json::Value,
    pub(crate) stderr: String,
}

impl Ended {
    /// A number of the ledger's total, by path.
    pub(crate) fn total(&self, path: &str) -> i64 {
        let value = self.ledger["total"].pointer(&format!("/{path}"));
        value.and_then(serde_json::Value::as_i64).unwrap_or_else(|| panic!("no {path}: {self:?}"))
    }
}

/// `tapedeck record` on the receiving end of `net`.
pub(crate) fn record_command(net: &Net, store: &Path, args: &[&str]) -> Command {
    record_on(&net.rx, store, args)
}

/// `tapedeck record` on an interface.
pub(crate) fn record_on(interface: &str, store: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapedeck"));
    command.args(["record", "--interface", interface, "--store"]).arg(store);
    command.arg("--pin-dir").arg(super::pin_dir()).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Folders in which recorders of this test have something pinned.
pub(crate) fn pins() -> Vec<PathBuf> {
    let entries = std::fs::read_dir(super::pin_dir()).into_iter().flatten();
    let mut found: Vec<_> = entries.map(|entry| entry.expect("folder entry").path()).collect();
    found.sort();
    found
}

/// Every sealed segment of a store.
pub(crate) fn segments(store: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![store.join("packets")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("folder entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(".pcapng.zst")
                && !path.file_name().unwrap().to_string_lossy().starts_with('.')
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// An option of the interface description of a segment, by its code.
pub(crate) fn interface_option(segment: &Path, code: usize) -> Option<Vec<u8>> {
    let raw = Command::new("zstd").arg("-dcq").arg(segment).output().expect("zstd").stdout;
    let word = |at: usize| u32::from_le_bytes(raw[at..at + 4].try_into().unwrap()) as usize;
    let half = |at: usize| usize::from(u16::from_le_bytes(raw[at..at + 2].try_into().unwrap()));
    let idb = word(4);
    assert_eq!(word(idb), 1, "an interface description block");
    let mut at = idb + 16;
    while half(at) != 0 {
        if half(at) == code {
            return Some(raw[at + 4..at + 4 + half(at + 2)].to_vec());
        }
        at += 4 + half(at + 2).next_multiple_of(4);
    }
    None
}

/// Packets of a segment in their order, as others read it: (time in ns, bytes).
pub(crate) fn packets(segment: &Path) -> Vec<(u64, Vec<u8>)> {
    captured(segment).into_iter().map(|(ts, bytes, _)| (ts, bytes)).collect()
}

/// The same with the length on the wire.
pub(crate) fn captured(segment: &Path) -> Vec<(u64, Vec<u8>, usize)> {
    let read = |block: Vec<u8>| {
        let word = |at: usize| u32::from_le_bytes(block[at..at + 4].try_into().unwrap());
        let ts = u64::from(word(12)) << 32 | u64::from(word(16));
        (ts, block[28..28 + word(20) as usize].to_vec(), word(24) as usize)
    };
    packet_blocks(segment).into_iter().map(read).collect()
}

/// Packets of a segment in their order, each with what its `epb_dropcount` says was lost before it.
pub(crate) fn drops(segment: &Path) -> Vec<(Vec<u8>, u64)> {
    let read = |block: Vec<u8>| {
        let half = |at: usize| usize::from(u16::from_le_bytes(block[at..at + 2].try_into().unwrap()));
        let kept = u32::from_le_bytes(block[20..24].try_into().unwrap()) as usize;
        let (mut at, mut lost) = (28 + kept.next_multiple_of(4), 0);
        while at + 8 <= block.len() && half(at) != 0 {
            if half(at) == 4 {
                lost = u64::from_le_bytes(block[at + 4..at + 12].try_into().unwrap());
            }
            at += 4 + half(at + 2).next_multiple_of(4);
        }
        (block[28..28 + kept].to_vec(), lost)
    };
    packet_blocks(segment).into_iter().map(read).collect()
}

/// The Enhanced Packet Blocks of a segment, whole.
fn packet_blocks(segment: &Path) -> Vec<Vec<u8>> {
    let raw = Command::new("zstd").arg("-dcq").arg(segment).output().expect("zstd");
    assert!(raw.status.success(), "{}: {}", segment.display(), String::from_utf8_lossy(&raw.stderr));
    let mut found = Vec::new();
    let mut rest = raw.stdout.as_slice();
    // pcapng blocks: type, length, body, length. Enhanced Packet Block: interface, time high and low,
    // captured length, original length, bytes.
    while rest.len() >= 12 {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        let len = word(4) as usize;
        if word(0) == 6 {
            found.push(rest[..len].to_vec());
        }
        rest = &rest[len..];
    }
    assert!(rest.is_empty(), "torn block at the end of {}", segment.display());
    found
}
