//! The status file: `STORE/.run/<run>.json`, written each second by the recorder, read by `status`.
//!
//! Hidden until whole: written beside and renamed. A file that has not been renewed for five seconds
//! belongs to a recorder that does not run. It must never be believed for more than that: the ledger in
//! it is a snapshot.

use crate::cli::StatusArgs;
use crate::ledger::Ledger;
use crate::voice::Failure;
use crate::{identity, lock};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tapedeck_packet::Timestamp;
use tapedeck_packet::time::NANOS_PER_SEC;

/// Age at which a status file says nothing any more.
const STALE_NS: u64 = 5 * NANOS_PER_SEC;
/// Age at which a new recorder clears it away.
const DEAD_NS: u64 = 3600 * NANOS_PER_SEC;

/// What the recorder says of itself.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// Version of this JSON: 1.
    pub version: u32,
    /// Process.
    pub pid: u32,
    /// When it was written, nanoseconds since the epoch.
    pub updated_ns: u64,
    /// The books so far.
    pub ledger: Ledger,
    /// One per worker.
    pub workers: Vec<WorkerStatus>,
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
}

/// The status files of one run.
#[derive(Debug)]
pub(crate) struct StatusFiles {
    paths: Vec<PathBuf>,
}

impl StatusFiles {
    /// Makes the folders and clears away what dead recorders left.
    pub(crate) fn new(stores: &[PathBuf], run: u32, now: Timestamp) -> io::Result<Self> {
        let mut paths = Vec::with_capacity(stores.len());
        for store in stores {
            let folder = store.join(".run");
            fs::create_dir_all(&folder)?;
            for (path, status) in read_folder(&folder) {
                if now.nanos().saturating_sub(status.updated_ns) > DEAD_NS {
                    let _ = fs::remove_file(path);
                }
            }
            paths.push(folder.join(format!("{run:08x}.json")));
        }
        Ok(Self { paths })
    }

    /// Writes the status to every store.
    pub(crate) fn write(&self, status: &Status) -> io::Result<()> {
        let text = serde_json::to_vec(status)?;
        let mut result = Ok(());
        for path in &self.paths {
            let hidden = path.with_extension("new");
            // One full store must not silence the others.
            if let Err(error) = fs::write(&hidden, &text).and_then(|()| fs::rename(&hidden, path)) {
                result = Err(error);
            }
        }
        result
    }
}

impl Drop for StatusFiles {
    /// A recorder that has ended says so by having no file.
    fn drop(&mut self) {
        for path in &self.paths {
            let _ = fs::remove_file(path);
        }
    }
}

/// The recorders that write to `store` and have said so within the last five seconds.
#[must_use]
pub fn running(store: &Path, now: Timestamp) -> Vec<Status> {
    let fresh = |status: &Status| now.nanos().saturating_sub(status.updated_ns) <= STALE_NS;
    let files = read_folder(&store.join(".run"));
    files.into_iter().map(|(_, status)| status).filter(fresh).collect()
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
    if found.is_empty() {
        return Err(Failure::new("no recorder is running").hint("`tapedeck record` starts one"));
    }
    let text = |status: &Status| if args.json { status.ledger.to_json() } else { Ok(status_text(status)) };
    let texts = found.iter().map(text).collect::<Result<Vec<_>, _>>().map_err(|error| Failure::of(&error))?;
    Ok((texts.join("\n"), 0))
}

/// The human form of a recorder's status.
fn status_text(status: &Status) -> String {
    let ledger = &status.ledger;
    let total = &ledger.total;
    let mut text = format!(
        "run {} (process {}), recording since {}\n\
         seen {}  stored {}  pending {}  dropped {}  unaccounted {}\n",
        ledger.run,
        status.pid,
        ledger.start,
        total.counts.seen,
        total.counts.stored,
        total.counts.pending,
        total.dropped.nic + total.dropped.queues.sum(),
        total.unaccounted
    );
    for queue in &ledger.queues {
        let _ = writeln!(
            text,
            "  {} queue {} ({}): seen {}  stored {}  pending {}  dropped {}  unaccounted {}",
            queue.interface,
            queue.queue,
            queue.mode,
            queue.counts.seen,
            queue.counts.stored,
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
    text.trim_end().to_owned()
}

fn worker_text(worker: &WorkerStatus) -> String {
    let cpu = worker.cpu.map_or_else(|| "any".to_owned(), |cpu| cpu.to_string());
    let level = worker.level.map_or_else(|| "raw".to_owned(), |level| level.to_string());
    format!(
        "    cpu {cpu}, {} segments in {}, sink {}, level {level}\n",
        worker.segments,
        worker.store.display(),
        worker.sink.as_deref().unwrap_or("not open yet")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_believed_for_five_seconds() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().to_path_buf();
        let at = |seconds: u64| Timestamp::from_nanos_saturating(seconds * NANOS_PER_SEC);
        let ledger = Ledger::close(7, at(1), at(100), Vec::new(), Vec::new());
        let status = Status { version: 1, pid: 1, updated_ns: at(100).nanos(), ledger, workers: Vec::new() };
        let files = StatusFiles::new(std::slice::from_ref(&store), 7, at(100)).unwrap();
        assert!(running(&store, at(100)).is_empty());
        files.write(&status).unwrap();
        assert_eq!(running(&store, at(105)), [status]);
        assert!(running(&store, at(106)).is_empty());
        drop(files);
        assert!(running(&store, at(100)).is_empty());
    }

    #[test]
    fn files_of_the_dead_are_cleared_away() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().to_path_buf();
        let at = |seconds: u64| Timestamp::from_nanos_saturating(seconds * NANOS_PER_SEC);
        let ledger = Ledger::close(7, at(1), at(1), Vec::new(), Vec::new());
        let status = Status { version: 1, pid: 1, updated_ns: at(1).nanos(), ledger, workers: Vec::new() };
        let old = StatusFiles::new(std::slice::from_ref(&store), 7, at(1)).unwrap();
        old.write(&status).unwrap();
        std::mem::forget(old);
        let path = store.join(".run/00000007.json");
        drop(StatusFiles::new(std::slice::from_ref(&store), 8, at(3_600)).unwrap());
        assert!(path.exists());
        drop(StatusFiles::new(std::slice::from_ref(&store), 8, at(3_602)).unwrap());
        assert!(!path.exists());
    }
}
