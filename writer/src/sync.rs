//! The sync thread of a chain: everything that waits for the disk to mean it.
//!
//! Each interval it syncs every open segment, then its journal, so that a journal record durable
//! speaks of bytes durable. Between, it seals what the stage hands over. A seal that fails is tried
//! again; what still cannot be sealed when the chain ends stays hidden, with its journal, readable and
//! ready for recovery. Before each attempt it looks whether the files are still there: what was taken away
//! is taken back out of the books. Must never: touch a file of another chain.

use crate::counters::{ChainCounters, Sum};
use crate::disk;
use crate::error::FileError;
use crate::home::Root;
use crate::recover::{self, RecoverError};
use crate::seal;
use crate::segment::{Broken, Complete, Link, Paths, say_lost};
use crate::sink::Durable;
use crossbeam_channel::{Receiver, RecvTimeoutError};
use std::collections::VecDeque;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tapedeck_index::name::SegmentName;

/// Time between two attempts to seal what could not be sealed.
const RETRY: Duration = Duration::from_secs(10);

/// Sealed segments that are remembered: at one a minute, those of eleven days; about 4 MiB.
const REMEMBERED: usize = 16 * 1024;

/// Removed segments that are forgotten in one go.
const REMOVED_AT_ONCE: usize = 256;

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
    /// A segment's files were taken away.
    Lost(u32),
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
    Broken(Box<Broken>),
}

impl Unsealed {
    fn paths(&self) -> (&File, &Paths) {
        match self {
            Self::Complete(complete) => (&complete.lock, &complete.paths),
            Self::Broken(broken) => (&broken.lock, &broken.paths),
        }
    }

    /// Whether its files are no longer where they were made.
    fn is_gone(&self) -> bool {
        let (file, paths) = self.paths();
        !disk::is_at(file, &paths.open)
    }

    /// Its sealed name, if it has got that although the seal did not come to its end.
    fn sealed(&self) -> Option<PathBuf> {
        let (file, paths) = self.paths();
        disk::sealed_name(file, &paths.folder)
    }

    /// Its number in the run.
    fn seq(&self) -> u32 {
        match self {
            Self::Complete(complete) => complete.name.seq,
            Self::Broken(broken) => broken.name.seq,
        }
    }

    /// First and last second of its packets.
    fn span(&self) -> Option<(u64, u64)> {
        match self {
            Self::Complete(complete) => {
                let mut all = complete.stored.clone();
                all.touch(&complete.unrecorded);
                all.span()
            }
            Self::Broken(broken) => broken.stored.span(),
        }
    }

    /// Packets counted `stored`, and those that the seal makes retrievable.
    fn sums(&self) -> (Sum, Sum) {
        match self {
            Self::Complete(complete) => (complete.stored.sum(), complete.unrecorded.sum()),
            Self::Broken(broken) => (broken.stored.sum(), Sum::default()),
        }
    }
}

/// A segment that was sealed, and the packets in it.
struct Sealed {
    path: PathBuf,
    sum: Sum,
    /// First and last second of them.
    seconds: Option<(u64, u64)>,
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
    root: Root,
    /// Segments sealed here, the oldest first.
    sealed: VecDeque<Sealed>,
    /// The oldest of them was not there at the last look.
    oldest_gone: bool,
}

impl Syncer {
    pub(crate) fn new(
        jobs: Receiver<SyncJob>,
        counters: Arc<ChainCounters>,
        interval: Duration,
        root: Root,
    ) -> Self {
        let (watched, unsealed, sealed) = (Vec::new(), Vec::new(), VecDeque::new());
        Self { jobs, counters, interval, watched, unsealed, root, sealed, oldest_gone: false }
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
                if self.root.was_replaced() {
                    self.count_sealed_again();
                }
                self.forget_removed();
                next_sync = Instant::now() + self.interval;
            }
            if Instant::now() >= next_retry {
                self.retry();
                next_retry = Instant::now() + RETRY;
            }
        }
        self.retry();
        if self.root.was_replaced() {
            self.count_sealed_again();
        }
        let unsealed = self.unsealed.iter().map(|segment| match segment {
            Unsealed::Complete(complete) => complete.paths.open.clone(),
            Unsealed::Broken(broken) => broken.paths.open.clone(),
        });
        SyncReport { unsealed: unsealed.collect() }
    }

    fn accept(&mut self, job: SyncJob) {
        match job {
            SyncJob::Watch(seq, watch) => {
                self.counters.prefix.open(seq);
                self.watched.push((seq, watch));
            }
            SyncJob::Seal(seq, complete) => {
                self.forget(seq);
                self.end(Unsealed::Complete(complete));
            }
            SyncJob::Recover(seq, broken) => {
                self.forget(seq);
                self.end(Unsealed::Broken(Box::new(broken)));
            }
            SyncJob::Discard(seq, empty) => {
                self.forget(seq);
                self.counters.prefix.close(seq, 0);
                if let Err(error) = seal::discard(&empty.paths) {
                    warn(&error);
                }
            }
            SyncJob::Lost(seq) => {
                self.forget(seq);
                self.counters.prefix.close(seq, 0);
                self.count_sealed_again();
            }
        }
    }

    fn forget(&mut self, seq: u32) {
        self.watched.retain(|(watched, _)| *watched != seq);
    }

    fn end(&mut self, segment: Unsealed) {
        if segment.is_gone() {
            return self.lose(&segment);
        }
        let result = match &segment {
            Unsealed::Complete(complete) => {
                let all = complete.stored.sum().plus(complete.unrecorded.sum());
                seal::seal(complete).map(|path| (Some(path), all)).map_err(RecoverError::from)
            }
            Unsealed::Broken(broken) => {
                recover::recover_locked(&broken.paths, &broken.name).map(|recovered| {
                    let found = Sum { packets: recovered.packets, bytes: recovered.bytes };
                    (recovered.sealed, found)
                })
            }
        };
        match result {
            Ok((sealed, found)) => {
                self.no_longer_hidden(&segment);
                self.counters.prefix.close(segment.seq(), found.packets);
                match &segment {
                    Unsealed::Complete(complete) => self.counters.store(&complete.unrecorded),
                    Unsealed::Broken(broken) => self.counters.settle(&broken.stored, found),
                }
                if let Some(path) = sealed {
                    self.count_sealed(path, found, segment.span());
                }
            }
            Err(error) if segment.is_gone() => self.end_gone(&segment, &error),
            Err(error) => {
                tracing::warn!(error = &error as &dyn std::error::Error, "a segment cannot be sealed");
                self.unsealed.push(match segment {
                    Unsealed::Complete(mut complete) => {
                        // The file is whole: recovery will find these packets.
                        let unrecorded = std::mem::take(&mut complete.unrecorded);
                        self.counters.store(&unrecorded);
                        complete.stored.add(&unrecorded);
                        Unsealed::Complete(complete)
                    }
                    broken => broken,
                });
            }
        }
    }

    /// A seal that failed when the open file was no longer there: it has its sealed name, or is lost.
    fn end_gone(&mut self, segment: &Unsealed, error: &RecoverError) {
        let Some(path) = segment.sealed() else { return self.lose(segment) };
        tracing::warn!(
            error = error as &dyn std::error::Error,
            "a segment is sealed, but not all of it is durable"
        );
        self.no_longer_hidden(segment);
        if let Unsealed::Complete(complete) = segment {
            self.counters.store(&complete.unrecorded);
        }
        let (stored, unrecorded) = segment.sums();
        self.counters.prefix.close(segment.seq(), stored.plus(unrecorded).packets);
        self.count_sealed(path, stored.plus(unrecorded), segment.span());
    }

    /// A segment that had ended was taken away before it was sealed.
    fn lose(&mut self, segment: &Unsealed) {
        self.no_longer_hidden(segment);
        match segment {
            Unsealed::Complete(complete) => {
                self.counters.fail(&complete.unrecorded);
                self.counters.lose(&complete.stored);
            }
            Unsealed::Broken(broken) => self.counters.lose(&broken.stored),
        }
        let (stored, unrecorded) = segment.sums();
        self.counters.prefix.close(segment.seq(), 0);
        say_lost(&segment.paths().1.open, stored.plus(unrecorded));
        self.count_sealed_again();
    }

    /// What no reader saw before the seal is seen now, or lost.
    fn no_longer_hidden(&self, segment: &Unsealed) {
        if let Unsealed::Complete(complete) = segment {
            self.counters.hidden.fetch_sub(complete.hidden, Ordering::Relaxed);
        }
    }

    fn count_sealed(&mut self, path: PathBuf, sum: Sum, seconds: Option<(u64, u64)>) {
        tracing::debug!(segment = %path.display(), "sealed");
        self.counters.segments_sealed.fetch_add(1, Ordering::Relaxed);
        if self.sealed.len() >= REMEMBERED {
            self.sealed.pop_front();
        }
        self.sealed.push_back(Sealed { path, sum, seconds });
    }

    /// Segments are removed on purpose from the oldest on: these were stored, and stay counted. Only what
    /// is gone at two looks, so that a store that is being deleted has been noticed in between.
    fn forget_removed(&mut self) {
        for _ in 0..REMOVED_AT_ONCE {
            let gone = self.sealed.front().is_some_and(|sealed| !sealed.path.try_exists().unwrap_or(true));
            if gone && self.oldest_gone {
                self.sealed.pop_front();
            } else {
                self.oldest_gone = gone;
                return;
            }
        }
    }

    /// The store was taken away, or a part of it: sealed segments that went with it are not retrievable
    /// either.
    fn count_sealed_again(&mut self) {
        let (mut segments, mut gone) = (0, Sum::default());
        let Self { sealed, counters, .. } = self;
        sealed.retain(|Sealed { path, sum, seconds }| {
            let there = path.try_exists().unwrap_or(true);
            if !there {
                segments += 1;
                gone = gone.plus(*sum);
                counters.lose_sealed(*sum, *seconds);
                if let Some(seq) = seq_of(path) {
                    counters.prefix.lose(seq, sum.packets);
                }
            }
            there
        });
        if segments > 0 {
            let packets = gone.packets;
            tracing::warn!(
                segments,
                packets,
                "sealed segments of this run are gone from the store; their packets count as write_error"
            );
        }
    }

    fn retry(&mut self) {
        for segment in std::mem::take(&mut self.unsealed) {
            self.end(segment);
        }
    }

    fn sync_all(&mut self) {
        let there = |watch: &&mut (u32, Watch)| !watch.1.link.lost.load(Ordering::Relaxed);
        for (_, watch) in self.watched.iter_mut().filter(there) {
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

/// The number of a segment in its run, by its path.
fn seq_of(path: &Path) -> Option<u32> {
    let (name, _) = SegmentName::parse_file(path.file_name()?.to_str()?)?;
    Some(name.seq)
}

fn warn(error: &FileError) {
    tracing::warn!(error = %error.source, "cannot {} {}", error.act, error.path.display());
}
