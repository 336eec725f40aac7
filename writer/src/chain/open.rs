//! The worker's books of an open segment and of the frame being filled.

use crate::counters::Sum;
use crate::segment::FrameInfo;
use crate::segment::Link;
use crate::stage::FrameJob;
use std::sync::Arc;
use std::time::Instant;
use tapedeck_index::catalog::HOUR_SLACK_NANOS;
use tapedeck_index::rows::{FrameRows, RowTable};
use tapedeck_index::sidecar::FrameMeta;
use tapedeck_packet::{Timestamp, UtcHour};

/// Bytes of a statistics block with its four counters.
pub(super) const STATISTICS_BYTES: usize = 76;

/// Whether a packet of time `ts` may stand in a segment of `hour`.
pub(super) fn fits_hour(hour: UtcHour, ts: Timestamp) -> bool {
    ts >= hour.start().saturating_sub(HOUR_SLACK_NANOS) && !hour_over(hour, ts)
}

/// Whether at `now` no packet can come that belongs to `hour`.
pub(super) fn hour_over(hour: UtcHour, now: Timestamp) -> bool {
    now >= hour.end().saturating_add(HOUR_SLACK_NANOS)
}

/// An open segment, on the worker's side.
pub(super) struct OpenSegment {
    pub(super) seq: u32,
    pub(super) hour: UtcHour,
    pub(super) link: Arc<Link>,
    pub(super) rows: RowTable,
    pub(super) next_number: u32,
    /// Time of the last statistics block.
    pub(super) last_statistics: Timestamp,
    /// Greatest packet time.
    pub(super) last_packet: Timestamp,
    pub(super) opened: Instant,
    /// Uncompressed bytes sent to the stage.
    pub(super) raw_sent: u64,
}

impl OpenSegment {
    /// Stored bytes once everything sent is compressed: what is known, and the rest by its ratio.
    pub(super) fn stored_estimate(&self) -> u64 {
        use std::sync::atomic::Ordering::Relaxed;
        let (stored, raw) = (self.link.stored_bytes.load(Relaxed), self.link.raw_bytes.load(Relaxed));
        let waiting = u128::from(self.raw_sent.saturating_sub(raw));
        let estimate = waiting * u128::from(stored) / u128::from(raw.max(1));
        stored.saturating_add(u64::try_from(estimate).unwrap_or(u64::MAX))
    }
}

/// The frame being filled.
pub(super) struct OpenFrame {
    pub(super) number: u32,
    pub(super) raw: Vec<u8>,
    pub(super) opened: Instant,
    pub(super) sum: Sum,
    /// Bytes and packets sent to the journal already.
    pub(super) copied: usize,
    pub(super) copied_sum: Sum,
    /// It was open at the last tick.
    pub(super) slow: bool,
    t_min: Timestamp,
    t_max: Timestamp,
    last: Timestamp,
    sorted: bool,
}

impl OpenFrame {
    pub(super) fn new(number: u32, raw: Vec<u8>, opened: Instant) -> Self {
        Self {
            number,
            raw,
            opened,
            sum: Sum::default(),
            copied: 0,
            copied_sum: Sum::default(),
            slow: false,
            t_min: Timestamp::MAX,
            t_max: Timestamp::ZERO,
            last: Timestamp::ZERO,
            sorted: true,
        }
    }

    /// Notes a packet that has been copied in.
    pub(super) fn note(&mut self, ts: Timestamp, bytes: u64) {
        self.sum = self.sum.plus(Sum { packets: 1, bytes });
        self.t_min = self.t_min.min(ts);
        self.t_max = self.t_max.max(ts);
        self.sorted &= ts >= self.last;
        self.last = ts;
    }

    /// The frame as a job of the stage.
    pub(super) fn into_job(self, seq: u32, rows: FrameRows) -> FrameJob {
        let meta = FrameMeta {
            offset: 0,
            stored_len: 0,
            raw_len: 0,
            packets: u32::try_from(self.sum.packets).unwrap_or(u32::MAX),
            t_min: self.t_min,
            t_max: self.t_max,
            first_arrival: 0,
            sorted: self.sorted,
        };
        let info = FrameInfo { number: self.number, meta, rows, sum: self.sum };
        FrameJob { seq, info, raw: self.raw, known: false }
    }
}
