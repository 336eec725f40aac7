//! When packets are durable, as seen from outside: the recorder's sync threads are watched.
//!
//! What was written before a round of syncs began is durable when it has ended. A packet that is in an answer was
//! written; so the first round that began after the answer bounds its time from above, by at most a round.

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_gettime};
use std::collections::BTreeMap;
use std::sync::mpsc::{Sender, channel};
use std::thread::JoinHandle;
use tapedeck_ebpf::sync_calls::{SyncCall, SyncCallsError, watch};

/// The threads that make segments durable.
const THREAD: &str = "tapedeck-sync";
/// A pause of this length is one between two rounds, ns.
const PAUSE_NS: u64 = 200_000_000;

/// Watches a recorder.
#[derive(Debug)]
pub struct SyncCalls {
    over: Sender<()>,
    thread: JoinHandle<Result<Vec<SyncCall>, SyncCallsError>>,
    /// The wall clock before CLOCK_MONOTONIC, ns.
    offset_ns: u64,
}

impl SyncCalls {
    /// Begins.
    ///
    /// # Errors
    /// The kernel refuses it.
    pub fn watch(pid: u32) -> Result<Self> {
        let ((over, wait), (tell, ready)) = (channel(), channel());
        let thread = std::thread::spawn(move || {
            watch(
                pid,
                || {
                    let _ = tell.send(());
                },
                || {
                    let _ = wait.recv();
                },
            )
        });
        if ready.recv().is_err() {
            let why = thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))?.err();
            return Err(why.map_or_else(|| anyhow::anyhow!("the watch ended"), Into::into));
        }
        let monotonic = clock_gettime(ClockId::CLOCK_MONOTONIC).context("reading CLOCK_MONOTONIC")?;
        let monotonic = u64::try_from(monotonic.num_nanoseconds()).context("a clock before its start")?;
        let offset_ns = crate::probe::now_ns()?.saturating_sub(monotonic);
        Ok(Self { over, thread, offset_ns })
    }

    /// Ends. Of packets (sent, in an answer), ns since the epoch: how long until they were durable; none if a packet
    /// was not before the end.
    ///
    /// # Errors
    /// Calls were lost.
    pub fn durable(self, packets: &[(u64, u64)]) -> Result<Option<Histogram<u64>>> {
        drop(self.over);
        let calls = self.thread.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        let rounds = rounds(&calls);
        let mut times = Histogram::new(3).context("histogram")?;
        for (sent, answered) in packets {
            let Some(end) = end_after(&rounds, answered.saturating_sub(self.offset_ns)) else {
                return Ok(None);
            };
            times.record((end + self.offset_ns).saturating_sub(*sent)).context("histogram")?;
        }
        Ok(Some(times))
    }
}

/// (begin, end) of the rounds of each sync thread.
fn rounds(calls: &[SyncCall]) -> Vec<Vec<(u64, u64)>> {
    let mut threads: BTreeMap<u32, Vec<(u64, u64)>> = BTreeMap::new();
    for call in calls.iter().filter(|call| call.name == THREAD) {
        let rounds = threads.entry(call.thread).or_default();
        match rounds.last_mut() {
            Some(last) if call.begin_ns.saturating_sub(last.1) < PAUSE_NS => last.1 = call.end_ns,
            _ => rounds.push((call.begin_ns, call.end_ns)),
        }
    }
    threads.into_values().collect()
}

/// When every thread has ended the first round that it began after this.
fn end_after(threads: &[Vec<(u64, u64)>], ns: u64) -> Option<u64> {
    let ends =
        threads.iter().map(|rounds| rounds.iter().find(|(begin, _)| *begin >= ns).map(|(_, end)| *end));
    ends.reduce(|a, b| a.zip(b).map(|(a, b)| a.max(b))).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_is_durable_after_a_whole_round_of_every_thread() {
        let call = |thread, name: &str, begin_ms: u64, end_ms: u64| SyncCall {
            begin_ns: begin_ms * 1_000_000,
            end_ns: end_ms * 1_000_000,
            thread,
            name: name.to_owned(),
        };
        let calls = [
            call(1, THREAD, 0, 10),
            call(1, THREAD, 11, 20),
            call(2, THREAD, 5, 50),
            call(3, "table", 30, 31),
            call(1, THREAD, 1_000, 1_700),
            call(1, THREAD, 1_701, 1_710),
            call(2, THREAD, 1_005, 1_010),
        ];
        let rounds = rounds(&calls);
        assert_eq!(rounds.iter().map(Vec::len).collect::<Vec<_>>(), [2, 2]);
        let end = |ms: u64| end_after(&rounds, ms * 1_000_000).map(|ns| ns / 1_000_000);
        // In the middle of a round it is too late for that one.
        assert_eq!((end(0), end(2), end(15)), (Some(50), Some(1_710), Some(1_710)));
        assert_eq!((end(1_002), end_after(&[], 0)), (None, None));
    }
}
