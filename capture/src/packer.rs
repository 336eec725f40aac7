//! Builds packs: beside a recording, and at the end of an import.
//!
//! Beside a recording, one thread that runs only when nobody else wants the processor, and reads and writes only when
//! nobody else wants the disk. Segments are packed when their hour is over and late ones of it are sealed, so that those of one time
//! come together. It must never be waited for by a worker, and touches no folder that a recording writes to.

use crate::clock::Clock;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tapedeck_packet::Timestamp;
use tapedeck_packet::time::NANOS_PER_SEC;
use tapedeck_writer::{PacksReport, build_packs};

/// Time between two looks at least; the looking itself takes at most a hundredth.
const PAUSE: Duration = Duration::from_mins(1);
/// How long an hour has been over before its segments are packed: late ones are sealed by then.
const AGE_NANOS: u64 = 600 * NANOS_PER_SEC;

/// How long the end of a recording waits for the builder.
const LEAVE: Duration = Duration::from_secs(1);
/// Time between two looks whether it has ended.
const LOOK: Duration = Duration::from_millis(2);

/// The builder of a recording; it ends with it.
#[derive(Debug)]
pub(crate) struct Packer {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Packer {
    /// Starts the thread. Without it everything is as it was, only slower to search: a failure is a warning.
    pub(crate) fn start(stores: &[PathBuf], clock: Arc<Clock>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (stores, stopped) = (stores.to_owned(), Arc::clone(&stop));
        let now = move || clock.conversion().utc(crate::worker::monotonic_ns());
        let thread = spawn(move || run(&stores, &now, &stopped));
        Self { stop, thread }
    }
}

impl Drop for Packer {
    /// Waits for the thread, but not for long: on a busy machine it gets no processor, and what it leaves half written
    /// the next one removes.
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        let Some(thread) = self.thread.take() else { return };
        thread.thread().unpark();
        let until = Instant::now() + LEAVE;
        while !thread.is_finished() && Instant::now() < until {
            std::thread::sleep(LOOK);
        }
    }
}

/// Builds what is due after an import, all of it, with the import's own priority: somebody waits for its end, and it
/// lists folders that a recording may write to, whose locks nobody may hold who waits for a processor.
pub(crate) fn at_end(store: &Path, stop: &AtomicBool) {
    tell(&build_packs(store, None, stop), &mut None);
}

fn spawn(work: impl FnOnce() + Send + 'static) -> Option<JoinHandle<()>> {
    let last = || {
        tapedeck_writer::yield_to_all();
        work();
    };
    let thread = std::thread::Builder::new().name("packs".to_owned()).spawn(last);
    thread.inspect_err(|error| tracing::warn!(%error, "no thread to build packs")).ok()
}

fn run(stores: &[PathBuf], now: &dyn Fn() -> Timestamp, stop: &AtomicBool) {
    let mut told = None;
    while !stop.load(Ordering::Relaxed) {
        let began = Instant::now();
        let before = now().saturating_sub(AGE_NANOS);
        for store in stores {
            tell(&build_packs(store, Some(before), stop), &mut told);
        }
        let until = Instant::now() + PAUSE.max(began.elapsed() * 100);
        while !stop.load(Ordering::Relaxed) {
            let Some(left) = until.checked_duration_since(Instant::now()) else { break };
            std::thread::park_timeout(left);
        }
    }
}

/// Says what was done, and each new trouble once.
fn tell(report: &PacksReport, told: &mut Option<String>) {
    for path in &report.written {
        tracing::debug!(pack = %path.display(), "written");
    }
    let trouble = report.errors.first().map(|error| {
        let cause = std::error::Error::source(error).map(|source| format!(": {source}"));
        format!("{error}{}", cause.unwrap_or_default())
    });
    if trouble.is_some() && trouble != *told {
        tracing::warn!("{}; searches over many segments stay slow", trouble.as_deref().unwrap_or_default());
    }
    *told = trouble;
}
