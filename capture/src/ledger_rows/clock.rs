//! Rows of the clock: its state once a minute, and each step.

use super::LedgerRows;
use crate::clock::Clock;
use crate::sys::sockopt;
use std::time::{Duration, Instant};
use tapedeck_index::table::ledger::{ClockState, LedgerRow, RowKind};
use tapedeck_packet::Timestamp;
use tapedeck_packet::time::NANOS_PER_SEC;

/// Time between two rows.
const EVERY: Duration = Duration::from_secs(60);

/// When the next row is due.
#[derive(Debug)]
pub(crate) struct ClockRows {
    /// Where the times of packets come from.
    source: &'static str,
    next: Instant,
}

impl ClockRows {
    /// The first row is due at once.
    pub(crate) fn new(source: &'static str) -> Self {
        Self { source, next: Instant::now() }
    }

    /// Books the row that is due, if one is.
    pub(crate) fn look(&mut self, clock: &Clock, now: Timestamp, rows: &mut LedgerRows) {
        if Instant::now() >= self.next {
            self.next += EVERY;
            self.book(clock, now, None, rows);
        }
    }

    /// Books a step: the offsets before and after.
    pub(crate) fn stepped(&self, clock: &Clock, now: Timestamp, step: (i64, i64), rows: &mut LedgerRows) {
        self.book(clock, now, Some(step), rows);
    }

    fn book(&self, clock: &Clock, now: Timestamp, step: Option<(i64, i64)>, rows: &mut LedgerRows) {
        // Without the kernel's answer the columns are null.
        let kernel = sockopt::clock_state().ok();
        let state = ClockState {
            source: self.source.to_owned(),
            utc_offset_ns: i64::try_from(clock.conversion().offset_ns()).unwrap_or(i64::MAX),
            tai_offset_s: kernel.map(|state| state.tai_offset_s.into()),
            status: kernel.map(|state| state.status.into()),
            synchronised: kernel.map(|state| state.synchronised),
            max_error_us: kernel.map(|state| state.error_max_us),
            steps: i64::try_from(clock.steps()).unwrap_or(i64::MAX),
            step,
        };
        let uid = format!("{}-clock-{}", rows.run, now.nanos() / NANOS_PER_SEC);
        let (kind, clock) = (RowKind::Clock, Some(state));
        rows.book(0, LedgerRow { ts: now, ts_end: now, kind, uid, clock, ..LedgerRow::default() });
    }
}
