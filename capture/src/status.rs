//! The status file: `STORE/.run/<run>.json`, written each second by the recorder ([`files`]), read by
//! `status`.
//!
//! A file that has not been renewed for five seconds belongs to a recorder that does not run. It must
//! never be believed for more than that: the ledger in it is a snapshot.

mod files;

pub(crate) use files::StatusFiles;

use crate::card::CardState;
use crate::cli::StatusArgs;
use crate::ledger::Ledger;
use crate::nic::{self, Loss};
use crate::pins::estate::{self, Left};
use crate::voice::Failure;
use crate::{identity, lock};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use tapedeck_packet::Timestamp;
use tapedeck_packet::time::NANOS_PER_SEC;

/// Folder of the status files in a store.
const RUN_FOLDER: &str = ".run";
/// Age at which a status file says nothing any more.
const STALE_NS: u64 = 5 * NANOS_PER_SEC;

/// What the recorder says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of this JSON: 1.
    pub version: u32,
    /// Process.
    pub pid: u32,
    /// When it was written, nanoseconds since the epoch.
    pub updated_ns: u64,
    /// All stores the recorder writes to.
    #[serde(default)]
    pub stores: Vec<PathBuf>,
    /// `quarantined`: the system clock jumped by more than a day, and packet times do not follow.
    #[serde(default)]
    pub clock: Option<String>,
    /// What is recorded, in tcpdump's words; none = everything.
    #[serde(default)]
    pub filter: Option<String>,
    /// The books so far.
    pub ledger: Ledger,
    /// One per worker.
    pub workers: Vec<WorkerStatus>,
    /// Of interfaces whose cards lost something: by which counters.
    #[serde(default)]
    pub nic: BTreeMap<String, Vec<Loss>>,
    /// Of interfaces whose cards stamp packets: how.
    #[serde(default)]
    pub cards: BTreeMap<String, CardState>,
}

/// What runs for one queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerStatus {
    /// Interface name.
    pub interface: String,
    /// Queue.
    pub queue: u32,
    /// CPU the worker is pinned to.
    pub cpu: Option<usize>,
    /// Folder it writes to.
    pub store: PathBuf,
    /// Sink in use: `io_uring` or `plain`.
    pub sink: Option<String>,
    /// zstd level of the latest frame; none = stored raw.
    pub level: Option<i32>,
    /// Packets whose time lay before that of the packet before them.
    pub regressions: u64,
    /// Packets without a time of their own, ring entries that made no sense: 0 unless there is a bug.
    pub oddities: u64,
    /// Sequence numbers that never came: a cross-check of the causes of loss.
    pub missing: u64,
    /// Segments sealed so far.
    pub segments: u64,
    /// Payload is being shed: compressor and disk are behind.
    #[serde(default)]
    pub shedding: bool,
    /// Packets that lost payload that way.
    #[serde(default)]
    pub shed_packets: u64,
    /// Bytes they lost.
    #[serde(default)]
    pub shed_bytes: u64,
}

/// The recorders that write to `store` and have said so within the last five seconds.
#[must_use]
pub fn running(store: &Path, now: Timestamp) -> Vec<Status> {
    let fresh = |status: &Status| now.nanos().saturating_sub(status.updated_ns) <= STALE_NS;
    let inside = read_folder(&store.join(RUN_FOLDER));
    // Where it is written when the store takes nothing.
    let outside = lock::folders().into_iter().flat_map(|folder| read_folder(&folder));
    let outside = outside.filter(|(_, status)| status.stores.iter().any(|other| same(other, store)));
    let mut found: Vec<_> =
        inside.into_iter().chain(outside).map(|(_, status)| status).filter(fresh).collect();
    found.sort_by(|a, b| (&a.ledger.run, b.updated_ns).cmp(&(&b.ledger.run, a.updated_ns)));
    found.dedup_by(|a, b| a.ledger.run == b.ledger.run);
    found
}

/// Whether two paths name one folder.
fn same(one: &Path, other: &Path) -> bool {
    let real = |path: &Path| path.canonicalize().or_else(|_| std::path::absolute(path));
    matches!((real(one), real(other)), (Ok(one), Ok(other)) if one == other)
}

fn read_folder(folder: &Path) -> Vec<(PathBuf, Status)> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    let mut found: Vec<_> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.extension().is_some_and(|end| end == "json"))
        .filter_map(|path| Some((path.clone(), serde_json::from_slice(&fs::read(path).ok()?).ok()?)))
        .collect();
    found.sort_by(|(a, _), (b, _)| a.cmp(b));
    found
}

/// `tapedeck status`: what goes to stdout, and the exit code.
///
/// # Errors
/// No recorder runs, or its books are not understood.
pub fn command(args: &StatusArgs) -> Result<(String, u8), Failure> {
    let mut stores = args.store.clone();
    if stores.is_empty() {
        stores.extend(lock::holders().into_iter().flat_map(|holder| holder.stores));
    }
    let now = identity::now();
    let mut found: Vec<_> = stores.iter().flat_map(|store| running(store, now)).collect();
    // A recorder with several stores writes its status to each.
    found.sort_by(|a, b| a.ledger.run.cmp(&b.ledger.run));
    found.dedup_by(|a, b| a.ledger.run == b.ledger.run);
    let left = left(args);
    // Killed a moment ago, in whatever namespace.
    let dead = lock::dead();
    found.retain(|status| {
        let run = &status.ledger.run;
        !left.iter().any(|left| left.run == *run) && !dead.iter().any(|dead| dead.run == *run)
    });
    if found.is_empty() {
        return Err(nobody(&args.store, &left));
    }
    let text = |status: &Status| if args.json { status.ledger.to_json() } else { Ok(status_text(status)) };
    let texts = found.iter().map(text).collect::<Result<Vec<_>, _>>().map_err(|error| Failure::of(&error))?;
    let left = left.iter().filter(|_| !args.json).map(left_text);
    Ok((texts.into_iter().chain(left).collect::<Vec<_>>().join("\n"), 0))
}

/// What dead recorders of these stores left pinned.
fn left(args: &StatusArgs) -> Vec<Left> {
    let asked = |left: &Left| {
        args.store.is_empty() || left.stores.iter().any(|one| args.store.iter().any(|other| same(one, other)))
    };
    estate::left(&crate::plan::pin_dir(args.pin_dir.as_ref())).into_iter().filter(asked).collect()
}

fn left_text(left: &Left) -> String {
    let Left { interface, run, pid, last, attached, passed, .. } = left;
    let now = if *attached { "its program counts on" } else { "its program is off the interface" };
    format!(
        "{interface}: run {run} (process {pid}) died after {last}; {now}: {passed} packets have passed unrecorded"
    )
}

/// Why there is nothing to show: a recorder may be starting, or stuck.
fn nobody(stores: &[PathBuf], left: &[Left]) -> Failure {
    let asked = |holder: &lock::Holder| {
        stores.is_empty() || holder.stores.iter().any(|one| stores.iter().any(|other| same(one, other)))
    };
    match lock::holders().into_iter().find(asked) {
        Some(holder) => Failure::new(format!(
            "no recorder has reported within 5 s; process {} holds interface {}",
            holder.pid, holder.interface
        ))
        .hint("it is starting, stopped, or waits for a disk that does not answer: see its log"),
        None if left.is_empty() => {
            Failure::new("no recorder is running").hint("`tapedeck record` starts one")
        }
        None => {
            let texts: Vec<_> = left.iter().map(left_text).collect();
            Failure::new(format!("no recorder is running\n{}", texts.join("\n")))
                .hint("`tapedeck record` takes over what counts, `tapedeck detach` takes it off")
        }
    }
}

/// The human form of a recorder's status.
fn status_text(status: &Status) -> String {
    let ledger = &status.ledger;
    let total = &ledger.total;
    let mut text = format!(
        "run {} (process {}), recording since {}\n\
         seen {}  stored {}  filtered {}  pending {}  dropped {}  unaccounted {}\n",
        ledger.run,
        status.pid,
        ledger.start,
        total.counts.seen,
        total.counts.stored,
        total.counts.filtered,
        total.counts.pending,
        total.dropped.nic + total.dropped.queues.sum(),
        total.unaccounted
    );
    if let Some(clock) = &status.clock {
        let _ = writeln!(text, "clock: {clock}");
    }
    if let Some(filter) = &status.filter {
        let _ = writeln!(text, "filter {filter}");
    }
    let sessions = &ledger.sessions;
    let _ = writeln!(
        text,
        "sessions {} open, {} begun, {} joined of two queues  records {}  packets in coarse records {}  \
         records lost {}",
        sessions.open,
        sessions.sessions,
        sessions.split,
        sessions.records,
        sessions.coarse_packets,
        sessions.records_lost
    );
    for queue in &ledger.queues {
        let _ = writeln!(
            text,
            "  {} queue {} ({}): seen {}  stored {}  filtered {}  pending {}  dropped {}  unaccounted {}",
            queue.interface,
            queue.queue,
            queue.mode,
            queue.counts.seen,
            queue.counts.stored,
            queue.counts.filtered,
            queue.counts.pending,
            queue.dropped.sum(),
            queue.unaccounted
        );
        let is_ours =
            |worker: &&WorkerStatus| worker.interface == queue.interface && worker.queue == queue.queue;
        if let Some(worker) = status.workers.iter().find(is_ours) {
            text.push_str(&worker_text(worker));
        }
    }
    for (interface, losses) in &status.nic {
        let _ = writeln!(text, "  {interface}: lost by the card: {}", nic::text(losses));
    }
    for (interface, card) in &status.cards {
        let _ = writeln!(text, "  {interface}: {}", card.text());
    }
    text.trim_end().to_owned()
}

fn worker_text(worker: &WorkerStatus) -> String {
    let cpu = worker.cpu.map_or_else(|| "any".to_owned(), |cpu| cpu.to_string());
    let level = worker.level.map_or_else(|| "raw".to_owned(), |level| level.to_string());
    let mut text = format!(
        "    cpu {cpu}, {} segments in {}, sink {}, level {level}\n",
        worker.segments,
        worker.store.display(),
        worker.sink.as_deref().unwrap_or("not open yet")
    );
    if worker.shedding || worker.shed_packets > 0 {
        let now = if worker.shedding { "payload is being shed" } else { "payload was shed" };
        let _ = writeln!(text, "    {now}: {} packets, {} bytes", worker.shed_packets, worker.shed_bytes);
    }
    text
}
