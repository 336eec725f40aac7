//! Asks `taperead` one question and compares the answer, as tcpdump reads it, with what really happened.
//!
//! It must never compare the product with itself: what is expected comes from the client's sockets or from the
//! user's own file.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use super::Binaries;
use super::ledger::grouped;
use super::pcap;
use super::process::{self, Finished, Interrupt};
use super::store::Store;

/// How long the answer may stay incomplete while recording before the demo gives up.
const PATIENCE: Duration = Duration::from_secs(15);
const PAUSE: Duration = Duration::from_millis(20);
const SHOWN_LINES: usize = 8;

/// What the answer must hold.
#[derive(Debug)]
pub(crate) enum Expected {
    /// A TCP connection from its first to its last byte.
    Connection { client: SocketAddr, server: SocketAddr, sent: Vec<u8>, received: Vec<u8> },
    /// These frames, in this order, bit for bit.
    Frames(Vec<Vec<u8>>),
}

/// A filter and what it must find.
#[derive(Debug)]
pub(crate) struct Question {
    pub(crate) filter: Vec<String>,
    pub(crate) expected: Expected,
}

impl Question {
    /// Asks again and again until the answer is right. Returns the time from `ended` until the right answer.
    pub(crate) fn ask_until_whole(
        &self,
        binaries: &Binaries,
        store: &Store,
        file: &Path,
        ended: Instant,
        interrupt: &Interrupt,
    ) -> Result<Duration> {
        println!(
            "     $ taperead packets {} --store {} -w {}",
            self.filter.join(" "),
            store.packets().display(),
            file.display()
        );
        loop {
            match self.ask(binaries, store, file, interrupt) {
                Ok(()) => return Ok(ended.elapsed()),
                Err(error) if ended.elapsed() > PATIENCE => return Err(error),
                Err(_) => interrupt.sleep(PAUSE)?,
            }
        }
    }

    /// Asks once: the answer goes to `file`. An error says what is wrong with it.
    pub(crate) fn ask(
        &self,
        binaries: &Binaries,
        store: &Store,
        file: &Path,
        interrupt: &Interrupt,
    ) -> Result<()> {
        if file.exists() {
            fs::remove_file(file).context("an answer of before")?;
        }
        let mut command = process::bound(&binaries.taperead.to_string_lossy());
        command.arg("packets").args(&self.filter).arg("--store").arg(store.packets());
        command.arg("--json").arg("-w").arg(file);
        process::run(command, Vec::new(), interrupt)?.success("taperead packets")?;
        let pcap = as_pcap(file, interrupt)?;
        self.check(&pcap::frames(&pcap)?)
    }

    /// Packets in the whole store, by `taperead`.
    pub(crate) fn count_all(binaries: &Binaries, store: &Store, interrupt: &Interrupt) -> Result<u64> {
        let mut command = process::bound(&binaries.taperead.to_string_lossy());
        command.args(["packets", "--count", "--store"]).arg(store.packets());
        let counted = process::run(command, Vec::new(), interrupt)?.success("taperead packets --count")?;
        String::from_utf8_lossy(&counted).trim().parse().context("taperead packets --count: no number")
    }

    /// What a right answer proves, in words.
    pub(crate) fn claim(&self) -> String {
        match &self.expected {
            Expected::Connection { sent, received, .. } => format!(
                "all {} bytes sent and {} bytes received are there, bit for bit as the client's socket saw them",
                grouped(sent.len() as u64),
                grouped(received.len() as u64)
            ),
            Expected::Frames(frames) => {
                format!(
                    "all {} frames of it are there, in order, bit for bit as in your file",
                    grouped(frames.len() as u64)
                )
            }
        }
    }

    fn check(&self, answer: &[&[u8]]) -> Result<()> {
        match &self.expected {
            Expected::Connection { client, server, sent, received } => {
                check_stream(answer, *client, *server, sent)?;
                check_stream(answer, *server, *client, received)
            }
            Expected::Frames(expected) => {
                // The filter also looks behind labels that the comparison does not know, so more may come.
                let mut rest = answer.iter();
                for (number, frame) in expected.iter().enumerate() {
                    ensure!(
                        rest.any(|found| found == frame),
                        "frame {} of the conversation is missing",
                        number + 1
                    );
                }
                Ok(())
            }
        }
    }
}

fn check_stream(answer: &[&[u8]], from: SocketAddr, to: SocketAddr, expected: &[u8]) -> Result<()> {
    let found = pcap::tcp_bytes(answer, from, to)?;
    if found != expected {
        bail!("from {from}: {} bytes expected, {} found or other bytes", expected.len(), found.len());
    }
    Ok(())
}

/// `file` as classic pcap, made by tcpdump.
pub(crate) fn as_pcap(file: &Path, interrupt: &Interrupt) -> Result<Vec<u8>> {
    // Through stdin: Debian confines which files tcpdump may open.
    let bytes = fs::read(file).with_context(|| format!("{}", file.display()))?;
    let mut command = process::bound("tcpdump");
    command.args(["-r", "-", "-w", "-"]);
    process::run(command, bytes, interrupt)?.success("tcpdump")
}

/// The first packets of `file` as tcpdump prints them.
pub(crate) fn first_lines(file: &Path, interrupt: &Interrupt) -> Result<String> {
    let bytes = fs::read(file).with_context(|| format!("{}", file.display()))?;
    let mut command = process::bound("tcpdump");
    command.args(["-n", "-r", "-", "-c", &SHOWN_LINES.to_string()]);
    let printed = process::run(command, bytes, interrupt)?.success("tcpdump")?;
    let mut text = format!("     $ tcpdump -n -r {} | head -{SHOWN_LINES}\n", file.display());
    for line in String::from_utf8_lossy(&printed).lines() {
        text.push_str(&format!("     {}\n", line.chars().take(130).collect::<String>()));
    }
    Ok(text)
}

/// Packets of a sealed segment, by zstd and tcpdump alone.
pub(crate) fn count_without_us(segment: &Path, interrupt: &Interrupt) -> Result<u64> {
    let mut zstd = process::bound("zstd");
    zstd.arg("-dc").arg(segment);
    let plain = process::run(zstd, Vec::new(), interrupt)?.success("zstd -dc")?;
    let mut tcpdump = process::bound("tcpdump");
    tcpdump.args(["-n", "-r", "-", "--count"]);
    let Finished { status, stdout, stderr } = process::run(tcpdump, plain, interrupt)?;
    // `N packets`, on stdout or stderr depending on the version.
    let said = format!("{}{stderr}", String::from_utf8_lossy(&stdout));
    let count = said.lines().find_map(|line| line.strip_suffix(" packets").or(line.strip_suffix(" packet")));
    match count.and_then(|count| count.parse().ok()) {
        Some(count) if status.success() => Ok(count),
        _ => bail!("tcpdump --count: {status}: {said}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_must_be_there_in_order_and_bit_for_bit() {
        let expected = Expected::Frames(vec![b"one".to_vec(), b"two".to_vec()]);
        let question = Question { filter: Vec::new(), expected };
        assert!(question.check(&[b"one", b"other", b"two"]).is_ok());
        assert!(question.check(&[b"two", b"one"]).is_err());
        assert!(question.check(&[b"one", b"tw0"]).is_err());
        assert!(question.check(&[]).is_err());
    }

    #[test]
    fn an_empty_answer_is_no_connection() {
        let (client, server) = ("10.0.0.1:1000".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        let expected = Expected::Connection { client, server, sent: Vec::new(), received: Vec::new() };
        assert!(Question { filter: Vec::new(), expected }.check(&[]).is_err());
    }
}
