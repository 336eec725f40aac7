//! The sync thread of a chain: everything that waits for the disk to mean it.
//!
//! Each interval it syncs every open segment, then its journal, so that a journal record durable
//! speaks of bytes durable. Between, it seals what the stage hands over. A seal that fails is tried
//! again; what still cannot be sealed when the chain ends stays hidden, with its journal, readable and
//! ready for recovery. Must never: touch a file of another chain.

use crate::counters::ChainCounters;
use crate::disk;
use crate::error::FileError;
use crate::recover::{self, RecoverError};
use crate::seal;
use crate::segment::{Broken, Complete, Link};
use crate::sink::Durable;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// Time between two attempts to seal what could not be sealed.
const RETRY: Duration = Duration::from_secs(10);

/// What the stage sends; the number is the segment's, within the run.
pub(crate) enum SyncJob {
    /// A segment is open.
    Watch(u32, Watch),
    /// A segment is written.
    Seal(u32, Box<Complete>),
    /// A segment met a failed write.
    Recover(u32, Broken),
    /// A segment held nothing.
    Discard(u32, Broken),
}

/// An open segment to be kept durable.
pub(crate) struct Watch {
    pub(crate) store: PathBuf,
    pub(crate) folder: PathBuf,
    pub(crate) durable: Arc<dyn Durable>,
    pub(crate) journal: Arc<File>,
    pub(crate) link: Arc<Link>,
    /// Its name has not been made durable yet.
    pub(crate) fresh: bool,
}

/// A segment that is not sealed yet although it has ended.
enum Unsealed {
    Complete(Box<Complete>),
    Broken(Broken),
}

/// What is left when the thread ends.
#[derive(Debug, Default)]
pub(crate) struct SyncReport {
    /// Open files that could not be sealed.
    pub(crate) unsealed: Vec<PathBuf>,
}

/// The sync thread's state.
pub(crate) struct Syncer {
    jobs: Receiver<SyncJob>,
    counters: Arc<ChainCounters>,
    interval: Duration,
    watched: Vec<(u32, Watch)>,
    unsealed: Vec<Unsealed>,
}

impl Syncer {
    pub(crate) fn new(jobs: Receiver<SyncJob>, counters: Arc<ChainCounters>, interval: Duration) -> Self {
        Self { jobs, counters, interval, watched: Vec::new(), unsealed: Vec::new() }
    }

    /// Runs until the stage hangs up.
    pub(crate) fn run(mut self) -> SyncReport {
        let (mut next_sync, mut next_retry) = (Instant::now() + self.interval, Instant::now() + RETRY);
        loop {
            match self.jobs.recv_timeout(next_sync.saturating_duration_since(Instant::now())) {
                Ok(job) => self.accept(job),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if Instant::now() >= next_sync {
                self.sync_all();
                next_sync = Instant::now() + self.interval;
            }
            if Instant::now() >= next_retry {
                self.retry();
                next_retry = Instant::now() + RETRY;
            }
        }
        self.retry();
        let unsealed = self.unsealed.iter().map(|segment| match segment {
            Unsealed::Complete(complete) => complete.paths.open.clone(),
            Unsealed::Broken(broken) => broken.paths.open.clone(),
        });
        SyncReport { unsealed: unsealed.collect() }
    }

    fn accept(&mut self, job: SyncJob) {
        match job {
            SyncJob::Watch(seq, watch) => self.watched.push((seq, watch)),
            SyncJob::Seal(seq, complete) => {
                self.forget(seq);
                self.end(Unsealed::Complete(complete));
            }
            SyncJob::Recover(seq, broken) => {
                self.forget(seq);
                self.end(Unsealed::Broken(broken));
            }
            SyncJob::Discard(seq, empty) => {
                self.forget(seq);
                if let Err(error) = seal::discard(&empty.paths) {
                    warn(&error);
                }
            }
        }
    }

    fn forget(&mut self, seq: u32) {
        self.watched.retain(|(watched, _)| *watched != seq);
    }

    fn end(&mut self, segment: Unsealed) {
        let result = match &segment {
            Unsealed::Complete(complete) => seal::seal(complete).map(Some).map_err(RecoverError::from),
            Unsealed::Broken(broken) => {
                recover::recover_locked(&broken.paths, &broken.name).map(|recovered| recovered.sealed)
            }
        };
        match result {
            Ok(sealed) => {
                if let Unsealed::Complete(complete) = &segment {
                    self.counters.store(complete.unrecorded);
                    self.counters.hidden.fetch_sub(complete.hidden, Ordering::Relaxed);
                }
                if let Some(path) = sealed {
                    tracing::debug!(segment = %path.display(), "sealed");
                    self.counters.segments_sealed.fetch_add(1, Ordering::Relaxed);
                }
            }
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a segment cannot be sealed");
                self.unsealed.push(match segment {
                    Unsealed::Complete(mut complete) => {
                        // The file is whole: recovery will find these packets.
                        self.counters.store(std::mem::take(&mut complete.unrecorded));
                        Unsealed::Complete(complete)
                    }
                    broken => broken,
                });
            }
        }
    }

    fn retry(&mut self) {
        for segment in std::mem::take(&mut self.unsealed) {
            self.end(segment);
        }
    }

    fn sync_all(&mut self) {
        for (_, watch) in &mut self.watched {
            let synced = watch.durable.sync().and_then(|()| watch.journal.sync_data());
            let named = if watch.fresh { disk::sync_folders(&watch.store, &watch.folder) } else { Ok(()) };
            watch.fresh = watch.fresh && named.is_err();
            if let Err(error) = &named {
                warn(error);
            }
            if let Err(error) = &synced {
                // After it nobody knows which pages are lost: no more packets into this segment.
                tracing::warn!(%error, "sync failed; the segment will be cut");
                watch.link.failed.store(true, Ordering::Relaxed);
            }
            if synced.is_err() || named.is_err() {
                self.counters.sync_errors.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn warn(error: &FileError) {
    tracing::warn!(error = %error.source, "cannot {} {}", error.act, error.path.display());
}
