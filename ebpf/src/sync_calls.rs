//! When the threads of a process sync files, for measurements: what was written before such a call is durable after it.
//! The recorder does not use it. It must never watch another process than the one that was named.

use crate::generator::{only, skel};
use libbpf_rs::RingBufferBuilder;
use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use std::cell::RefCell;
use std::mem::MaybeUninit;

/// Numbers of fsync and fdatasync (asm/unistd_64.h, asm-generic/unistd.h).
const CALLS: [u64; 2] = if cfg!(target_arch = "x86_64") { [74, 75] } else { [82, 83] };

/// One call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SyncCall {
    /// When it began, ns of CLOCK_MONOTONIC.
    pub begin_ns: u64,
    /// When it ended.
    pub end_ns: u64,
    /// Id of the thread.
    pub thread: u32,
    /// Its name.
    pub name: String,
}

/// Why calls cannot be watched.
#[derive(Debug, thiserror::Error)]
pub enum SyncCallsError {
    /// The kernel refused the program.
    #[error("the kernel refused to {act}")]
    Kernel {
        /// What was tried.
        act: &'static str,
        /// Its answer.
        #[source]
        source: libbpf_rs::Error,
    },
    /// There were more than are kept.
    #[error("{0} sync calls were not noted: there were too many")]
    Lost(u64),
}

/// Watches a process until `wait` returns, and returns its calls in the order in which they ended. `ready` is called
/// once it watches.
///
/// # Errors
/// [`SyncCallsError`].
pub fn watch(pid: u32, ready: impl FnOnce(), wait: impl FnOnce()) -> Result<Vec<SyncCall>, SyncCallsError> {
    let kernel = |act| move |source| SyncCallsError::Kernel { act, source };
    let mut storage = MaybeUninit::uninit();
    let builder = skel::GeneratorSkelBuilder::default();
    let mut open = builder.open(&mut storage).map_err(kernel("open the watch"))?;
    let [sync, data_sync] = CALLS;
    if let Some(told) = open.maps.rodata_data.as_deref_mut() {
        (told.watched, told.sync_call, told.data_sync_call) = (pid, sync, data_sync);
    }
    only(&mut open, "tapedeck_call_");
    let skel = open.load().map_err(kernel("load the watch"))?;
    let attach = kernel("watch system calls");
    let _ends = skel.progs.tapedeck_call_ends.attach().map_err(attach)?;
    let _begins = skel.progs.tapedeck_call_begins.attach().map_err(kernel("watch system calls"))?;
    ready();
    wait();
    let calls = RefCell::new(Vec::new());
    let mut ring = RingBufferBuilder::new();
    let note = |bytes: &[u8]| {
        calls.borrow_mut().extend(SyncCall::read(bytes));
        0
    };
    ring.add(&skel.maps.calls, note).map_err(kernel("read the calls"))?;
    ring.build().and_then(|ring| ring.consume()).map_err(kernel("read the calls"))?;
    match skel.maps.bss_data.as_deref().map_or(0, |data| data.calls_lost) {
        0 => Ok(calls.take()),
        lost => Err(SyncCallsError::Lost(lost)),
    }
}

impl SyncCall {
    /// `struct sync_call`.
    fn read(bytes: &[u8]) -> Option<Self> {
        let word = |at: usize| Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
        let name = bytes.get(20..36)?.split(|byte| *byte == 0).next()?;
        Some(Self {
            begin_ns: word(0)?,
            end_ns: word(8)?,
            thread: u32::from_ne_bytes(*bytes.get(16..)?.first_chunk()?),
            name: String::from_utf8_lossy(name).into_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;

    /// Needs root.
    #[test]
    fn a_sync_is_seen_with_its_thread_and_its_time() {
        if std::fs::read_dir("/proc/1/fd").is_err() {
            let _ = writeln!(std::io::stdout(), "SKIPPED 1: not root");
            return;
        }
        let sync = |data: bool| {
            let file =
                std::fs::File::create(std::env::temp_dir().join(format!("sync-{}", std::process::id())));
            let file = file.unwrap();
            if data { file.sync_data().unwrap() } else { file.sync_all().unwrap() }
        };
        let thread = || {
            let named = std::thread::Builder::new().name("syncs".to_owned());
            named.spawn(move || (sync(true), sync(false))).unwrap().join().unwrap();
        };
        let calls = watch(std::process::id(), || sync(true), thread).unwrap();
        let _ = std::fs::remove_file(std::env::temp_dir().join(format!("sync-{}", std::process::id())));
        let of_thread: Vec<_> = calls.iter().filter(|call| call.name == "syncs").collect();
        assert_eq!((calls.len(), of_thread.len()), (3, 2), "{calls:?}");
        assert!(
            of_thread[0].thread == of_thread[1].thread && of_thread[0].thread != calls[0].thread,
            "{calls:?}"
        );
        assert!(calls.iter().all(|call| call.begin_ns < call.end_ns), "{calls:?}");
        assert!(calls.windows(2).all(|pair| pair[0].end_ns <= pair[1].begin_ns), "{calls:?}");
    }
}
