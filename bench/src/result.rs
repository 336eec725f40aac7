//! What a measurement leaves behind, as JSON: read again to go on with a run that was interrupted, and by whatever
//! makes plans and reports of it. Fields are only added; what changes its meaning gets another [`VERSION`].
//!
//! A rate is of packets that were placed on the link, a loss of packets that are not on disk: never what a tool says of
//! itself, which stands beside it.

use crate::traffic::{About, Payload};
use anyhow::{Context as _, Result, bail};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::Path;
use tapedeck_capture::plan::PACKET_BYTES;
use tapedeck_capture::units;

/// Version of the JSON.
pub const VERSION: u32 = 1;

/// All of a run of `tapebench line` or `compare`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document {
    /// [`VERSION`].
    pub version: u32,
    /// `line` or `compare`.
    pub kind: String,
    /// The command line.
    pub command: Vec<String>,
    /// When it began, RFC 3339.
    pub started: String,
    /// Where.
    pub machine: Machine,
    /// With what.
    pub setup: Setup,
    /// Trial by trial, in the order in which they ran.
    pub trials: Vec<Trial>,
    /// What the trials say, one per tool.
    pub outcomes: Vec<Outcome>,
    /// How late, where it was measured.
    #[serde(default)]
    pub latency: Option<Latency>,
}

/// The machine.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Machine {
    /// Kernel release.
    pub kernel: String,
    /// Model of the first CPU.
    pub cpu_model: String,
    /// CPUs online.
    pub cpus: usize,
    /// Memory, bytes.
    pub memory_bytes: u64,
    /// Bytes that the page cache takes before writers must wait for the disk.
    pub dirty_limit_bytes: u64,
    /// Processes that wanted to run in the minute before (`/proc/loadavg`): what ran beside it.
    pub load_before: f64,
}

/// What is the same in all trials.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Setup {
    /// What was sent.
    pub traffic: About,
    /// Payload of sizes and IMIX.
    pub payload: Payload,
    /// Share of random payload of `internet`.
    pub encrypted: f64,
    /// Of all that was drawn.
    pub seed: u64,
    /// `live` (live frames) or `sockets`.
    pub sender: String,
    /// CPUs that sent, each in a lane of its own.
    pub sender_cpus: Vec<usize>,
    /// CPUs that the tools were kept on.
    pub tool_cpus: Vec<usize>,
    /// The link.
    pub link: LinkAbout,
    /// Arguments of `tapedeck record` beside interface and store.
    pub record: Vec<String>,
    /// Seconds of a trial, where they were given.
    pub trial_seconds: Option<f64>,
    /// How near the search comes, a share.
    pub resolution: f64,
    /// What was measured.
    pub tools: Vec<ToolAbout>,
}

/// The link.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct LinkAbout {
    /// A veth pair that was made for it.
    pub made: bool,
    /// Interface recorded.
    pub interface: String,
    /// Interface sent on.
    pub peer: String,
    /// Driver of the recorded interface.
    pub driver: String,
    /// Receive queues.
    pub queues: u32,
    /// Longest IP packet, bytes.
    pub mtu: u32,
}

/// A tool.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ToolAbout {
    /// Its name.
    pub name: String,
    /// First line of what it says of its version.
    pub version: String,
    /// Its command line; folders are temporary.
    pub command: Vec<String>,
}

/// One trial.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// Which tool.
    pub tool: String,
    /// `search`, or `common`: the load that all tools get.
    pub purpose: String,
    /// Which search of this tool, from 0.
    pub round: u32,
    /// Pace that was asked for, packets a second; none = as fast as it goes.
    pub wanted_pps: Option<f64>,
    /// From the first packet to the last, seconds.
    pub seconds: f64,
    /// Shorter than 20 s, or less traffic than twice the dirty limit: the page cache may hide the disk.
    pub short: bool,
    /// Packets made.
    pub sent: u64,
    /// Of them those that the link did not take, by its own counters.
    pub not_placed: u64,
    /// Packets on the link.
    pub placed: u64,
    /// Their bytes, without checksums.
    pub placed_bytes: u64,
    /// Packets placed a second.
    pub pps: f64,
    /// Bits placed a second, without checksums, preambles and gaps.
    pub bits_per_second: f64,
    /// Against the pace.
    pub pacing: Option<Pacing>,
    /// Numbered packets that are on disk.
    pub on_disk: u64,
    /// Placed, and not on disk.
    pub missing: u64,
    /// Packets of our recorder that are there without all of their payload, which nobody had asked for.
    #[serde(default, skip_serializing_if = "is_none")]
    pub cut: u64,
    /// Numbers that are there more than once.
    pub twice: u64,
    /// Packets that stand behind one of a higher number of the same sender, in one queue.
    pub out_of_order: u64,
    /// Packets on disk that no sender of ours has numbered.
    pub strangers: u64,
    /// What the tool says of itself.
    pub own: Own,
    /// The recorder's final ledger.
    #[serde(default)]
    pub ledger: Option<serde_json::Value>,
    /// CPU time of the tool by thread, until its end.
    pub threads: Vec<ThreadTime>,
    /// CPU time of all its threads for a packet on disk, ns.
    pub cpu_ns_per_packet: f64,
    /// Of each CPU: the share of the time of sending in which it was idle.
    pub idle: BTreeMap<usize, f64>,
    /// Bytes that the tool had the kernel write to disk (`/proc/PID/io`).
    pub disk_bytes: u64,
    /// The same, a second.
    pub disk_bytes_per_second: f64,
    /// Bytes of the files it left.
    pub file_bytes: u64,
    /// Of our recorder by kind of file: `segments`, `indexes`, and the tables by their names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub files: BTreeMap<String, u64>,
    /// Most memory that the tool had resident, bytes (`VmHWM`): packets in rings of the kernel's own are not in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resident_max_bytes: Option<u64>,
    /// What does not add up. A trial with any is no measurement.
    #[serde(default)]
    pub problems: Vec<String>,
}

/// What there is none of is not written.
#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
const fn is_none(count: &u64) -> bool {
    *count == 0
}

impl Setup {
    /// Packet memory of a queue that our recorder was given, bytes.
    #[must_use]
    pub fn packet_memory(&self) -> u64 {
        const NAME: &str = "--packet-memory";
        let mut words = self.record.iter().map(String::as_str);
        let mut given = None;
        while let Some(word) = words.next() {
            if let Some(rest) = word.strip_prefix(NAME) {
                given = rest.strip_prefix('=').or_else(|| words.next());
            }
        }
        given.and_then(|size| units::packet_memory(size).ok()).unwrap_or(PACKET_BYTES)
    }
}

/// Whether arguments of `tapedeck record` ask for packets without all of their payload.
#[must_use]
pub fn asks_to_cut(record: &[String]) -> bool {
    record.iter().any(|word| word.starts_with("--snaplen"))
}

/// Packets stored without all of their payload, by a ledger.
#[must_use]
pub fn cut_packets(ledger: Option<&serde_json::Value>) -> u64 {
    ledger.and_then(|books| books.pointer("/total/cut_packets")?.as_u64()).unwrap_or(0)
}

impl Trial {
    /// Something of what was placed is not on disk: a packet, or payload of one.
    #[must_use]
    pub const fn lost(&self) -> bool {
        self.missing > 0 || self.cut > 0
    }
}

/// How late packets were made, microseconds; beyond the median powers of two.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Pacing {
    /// Mean.
    pub mean_us: f64,
    /// 99 % were made within.
    pub p99_us: f64,
    /// The latest.
    pub max_us: f64,
    /// For so long the generators stood still in all, beyond what they made up for: the rate placed is lower by that.
    /// None in results of before it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stalled_us: Option<f64>,
}

/// What a tool says of itself when it ends.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Own {
    /// Packets it says it has kept.
    pub kept: Option<u64>,
    /// Packets it says were lost.
    pub lost: Option<u64>,
    /// Losses by cause, where it names causes.
    #[serde(default)]
    pub causes: BTreeMap<String, u64>,
}

/// CPU time of threads of one name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ThreadTime {
    /// Name; `worker` are all that read a queue.
    pub name: String,
    /// How many there were.
    pub threads: usize,
    /// For a packet on disk, ns.
    pub ns_per_packet: f64,
    /// Of one CPU while packets were sent, a share.
    pub busy: f64,
}

/// What the trials of a tool say.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Which tool.
    pub tool: String,
    /// The highest rate without loss of each search, packets a second.
    pub zero_loss_pps: Vec<f64>,
    /// Their median.
    pub median_pps: f64,
    /// The lowest and the highest.
    pub spread_pps: [f64; 2],
    /// Bits a second at the median, without checksums, preambles and gaps.
    pub median_bits_per_second: f64,
    /// How much the generator placed when nothing held it back, packets a second.
    pub generator_pps: f64,
    /// The generator's limit was reached with nothing lost: the tool may hold more.
    pub generator_bound: bool,
    /// Share in which the tool's CPUs were idle in the fastest trial without loss.
    pub idle: Option<f64>,
    /// Share of what was placed that is on disk at the generator's limit.
    pub kept_at_limit: Option<f64>,
    /// CPU time for a packet at the common load, ns.
    #[serde(default)]
    pub common_cpu_ns: Option<f64>,
    /// A trial was short.
    pub short: bool,
}

/// How late packets are, under a load.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Latency {
    /// Load beside the probes, packets a second.
    pub load_pps: f64,
    /// Probes sent; those that were never found are in no distribution.
    pub probes: u64,
    /// Packets that the recorder lost meanwhile, by its ledger: this load was not below its limit if there are any.
    #[serde(default)]
    pub lost: u64,
    /// From the sender's clock until the answer that first holds the packet is complete.
    pub searchable: Distribution,
    /// From the sender's clock until the end of the first sync by the recorder that began when the packet was in an
    /// answer: an upper bound. None where system calls cannot be watched.
    #[serde(default)]
    pub durable: Option<Distribution>,
}

/// A histogram, microseconds.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Distribution {
    /// Values.
    pub count: u64,
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// 99.9th percentile.
    pub p999_us: f64,
    /// Largest.
    pub max_us: f64,
    /// (share, value): so much of all is at most this.
    pub points: Vec<(f64, f64)>,
}

impl Document {
    /// Writes it whole or not at all.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut text = serde_json::to_string_pretty(self).context("making JSON")?;
        text.push('\n');
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        let named = || format!("writing {}", path.display());
        let mut file =
            tempfile::NamedTempFile::new_in(folder.unwrap_or(Path::new("."))).with_context(named)?;
        std::io::Write::write_all(&mut file, text.as_bytes()).with_context(named)?;
        file.persist(path).with_context(named)?;
        Ok(())
    }

    /// Reads one.
    ///
    /// # Errors
    /// It cannot be read, is none, or is of another version.
    pub fn read(path: &Path) -> Result<Self> {
        let named = || format!("{}: no result of tapebench", path.display());
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let value: serde_json::Value = serde_json::from_str(&text).with_context(named)?;
        match value.get("version").and_then(serde_json::Value::as_u64) {
            Some(version) if version == u64::from(VERSION) => {}
            version => bail!("{}: version {version:?}, this tapebench reads {VERSION}", path.display()),
        }
        serde_json::from_value(value).with_context(named)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A result of version 1 as it was when that was the newest: what reads results must go on reading it, and what
    /// writes them must not leave out or rename anything of it.
    const VERSION_1: &str = include_str!("../tests/data/result-1.json");

    #[test]
    fn a_result_of_version_1_is_read_and_written_as_it_was() {
        let document: Document = serde_json::from_str(VERSION_1).unwrap();
        assert_eq!((document.version, document.trials.len(), document.outcomes.len()), (1, 2, 1));
        let was: serde_json::Value = serde_json::from_str(VERSION_1).unwrap();
        assert_eq!(serde_json::to_value(&document).unwrap(), was);
    }

    #[test]
    fn a_file_is_whole_and_of_a_version_that_is_known() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("result.json");
        let document: Document = serde_json::from_str(VERSION_1).unwrap();
        document.write(&path).unwrap();
        assert_eq!(Document::read(&path).unwrap(), document);
        std::fs::write(&path, VERSION_1.replacen("\"version\": 1", "\"version\": 2", 1)).unwrap();
        assert!(Document::read(&path).unwrap_err().to_string().contains("version Some(2)"));
        std::fs::write(&path, "{").unwrap();
        assert!(Document::read(&path).unwrap_err().to_string().contains("result.json"));
    }
}
