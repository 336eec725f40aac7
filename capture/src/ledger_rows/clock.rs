//! Rows of the clock: its state once a minute, each step, and each change of the TAI offset.

use super::LedgerRows;
use crate::card::CardState;
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
    /// TAI minus UTC as it stood in the last row.
    tai: Option<i64>,
    /// Rows so far: two may fall into one second.
    count: u32,
}

impl ClockRows {
    /// The first row is due at once.
    pub(crate) fn new(source: &'static str) -> Self {
        Self { source, next: Instant::now(), tai: None, count: 0 }
    }

    /// Books the row that is due, if one is. Returns whether the minute is over.
    pub(crate) fn look(&mut self, clock: &Clock, now: Timestamp, rows: &mut LedgerRows) -> bool {
        let due = Instant::now() >= self.next;
        if due {
            self.next += EVERY;
        }
        let tai = || sockopt::clock_state().ok().map(|state| i64::from(state.tai_offset_s));
        if due || tai().is_some_and(|tai| self.tai != Some(tai)) {
            self.book(clock, now, None, rows);
        }
        due
    }

    /// Books how the clock of a card runs that stamps the packets of `interface`.
    pub(crate) fn card(&mut self, interface: &str, now: Timestamp, card: &CardState, rows: &mut LedgerRows) {
        let state = ClockState {
            source: "hardware".to_owned(),
            utc_offset_ns: card.utc_offset_ns,
            steps: i64::try_from(card.jumps).unwrap_or(i64::MAX),
            ..ClockState::default()
        };
        let row = LedgerRow {
            interface: Some(interface.to_owned()),
            detail: Some(card.text()),
            ..self.row(now, state, &rows.run)
        };
        rows.book(0, row);
    }

    /// Books a step: the offsets before and after.
    pub(crate) fn stepped(&mut self, clock: &Clock, now: Timestamp, step: (i64, i64), rows: &mut LedgerRows) {
        self.book(clock, now, Some(step), rows);
    }

    fn book(&mut self, clock: &Clock, now: Timestamp, step: Option<(i64, i64)>, rows: &mut LedgerRows) {
        // Without the kernel's answer the columns are null.
        let kernel = sockopt::clock_state().ok();
        self.tai = kernel.map(|state| state.tai_offset_s.into());
        let state = ClockState {
            source: self.source.to_owned(),
            utc_offset_ns: i64::try_from(clock.conversion().offset_ns()).ok(),
            tai_offset_s: self.tai,
            status: kernel.map(|state| state.status.into()),
            synchronised: kernel.map(|state| state.synchronised),
            max_error_us: kernel.map(|state| state.error_max_us),
            steps: i64::try_from(clock.steps()).unwrap_or(i64::MAX),
            step,
        };
        let row = self.row(now, state, &rows.run);
        rows.book(0, row);
    }

    fn row(&mut self, now: Timestamp, state: ClockState, run: &str) -> LedgerRow {
        let uid = format!("{run}-clock-{}-{}", now.nanos() / NANOS_PER_SEC, self.count);
        self.count = self.count.wrapping_add(1);
        let (kind, clock) = (RowKind::Clock, Some(state));
        LedgerRow { ts: now, ts_end: now, kind, uid, clock, ..LedgerRow::default() }
    }
}
