//! The worker's books of an open segment and of the frame being filled.

use crate::counters::Sum;
use crate::seconds::Runs;
use crate::segment::FrameInfo;
use crate::segment::Link;
use crate::sink::to_u64;
use crate::stage::FrameJob;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;
use tapedeck_index::catalog::HOUR_SLACK_NANOS;
use tapedeck_index::frame::compress_bound;
use tapedeck_index::rows::{FrameRows, RowTable};
use tapedeck_index::sidecar::FrameMeta;
use tapedeck_packet::{Timestamp, UtcHour};

/// Bytes of a statistics block with its four counters.
pub(super) const STATISTICS_BYTES: usize = 76;

/// Most bytes the frame with the last statistics takes.
pub(super) fn end_bytes() -> u64 {
    to_u64(compress_bound(STATISTICS_BYTES))
}

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
    /// Most bytes that the frames sent to the stage can take, without the header.
    pub(super) bound_sent: u64,
}

impl OpenSegment {
    /// Most stored bytes that the segment has once everything sent is compressed: what is known, and the
    /// rest as if nothing of it could be compressed.
    pub(super) fn stored_at_most(&self) -> u64 {
        // Acquire: partner is the Release in `Segment::add` (segment.rs). A frame compressed in between is
        // in both numbers, never in neither.
        let known = self.link.bound_bytes.load(Ordering::Acquire);
        let stored = self.link.stored_bytes.load(Ordering::Relaxed);
        stored.saturating_add(self.bound_sent.saturating_sub(known))
    }
}

/// The frame being filled.
pub(super) struct OpenFrame {
    pub(super) number: u32,
    pub(super) raw: Vec<u8>,
    pub(super) opened: Instant,
    pub(super) runs: Runs,
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
            runs: Runs::default(),
            copied: 0,
            copied_sum: Sum::default(),
            slow: false,
            t_min: Timestamp::MAX,
            t_max: Timestamp::ZERO,
            last: Timestamp::ZERO,
            sorted: true,
        }
    }

    /// Notes a packet of this second that has been copied in.
    pub(super) fn note(&mut self, ts: Timestamp, second: u64, bytes: u64) {
        self.runs.note(second, bytes);
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
            packets: u32::try_from(self.runs.sum().packets).unwrap_or(u32::MAX),
            t_min: self.t_min,
            t_max: self.t_max,
            first_arrival: 0,
            sorted: self.sorted,
        };
        let info = FrameInfo { number: self.number, meta, rows, runs: self.runs };
        FrameJob { seq, info, raw: self.raw, known: false }
    }
}
