//! The books of a chain: every packet given to it stands in exactly one line.
//!
//! `appended = stored + pending + shed + write_error` whenever the threads are at rest. `pending` is
//! counted by the stages (what entered minus what left), never as the remainder of the others.

use crate::level::Effort;
use crate::prefix::{Prefix, SealedPrefix};
use crate::seconds::SecondBooks;
use crate::sink::SinkKind;
use std::sync::Mutex;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicU64, Ordering};

/// Level shown when frames are stored raw.
const RAW_LEVEL: i32 = i32::MIN;

/// A count of packets and their captured bytes.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    packets: AtomicU64,
    bytes: AtomicU64,
}

impl Tally {
    /// Adds; for counters that only one thread writes, so load and store suffice.
    pub(crate) fn add_single(&self, packets: u64, bytes: u64) {
        // Relaxed: each is read on its own, by reports.
        self.packets.store(self.packets.load(Ordering::Relaxed).wrapping_add(packets), Ordering::Relaxed);
        self.bytes.store(self.bytes.load(Ordering::Relaxed).wrapping_add(bytes), Ordering::Relaxed);
    }

    /// Adds; for counters that stage and sync thread both write.
    pub(crate) fn add(&self, sum: Sum) {
        self.packets.fetch_add(sum.packets, Ordering::Relaxed);
        self.bytes.fetch_add(sum.bytes, Ordering::Relaxed);
    }

    /// Takes back what was added.
    fn take(&self, sum: Sum) {
        self.packets.fetch_sub(sum.packets, Ordering::Relaxed);
        self.bytes.fetch_sub(sum.bytes, Ordering::Relaxed);
    }

    pub(crate) fn sum(&self) -> Sum {
        Sum { packets: self.packets.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }
}

/// Packets and their captured bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    /// Packets.
    pub packets: u64,
    /// Captured bytes of these packets.
    pub bytes: u64,
}

impl Sum {
    /// Both differences, not below 0.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        Self {
            packets: self.packets.saturating_sub(other.packets),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    /// Both sums.
    #[must_use]
    pub fn plus(self, other: Self) -> Self {
        Self {
            packets: self.packets.saturating_add(other.packets),
            bytes: self.bytes.saturating_add(other.bytes),
        }
    }
}

/// Live counters of a chain; shared with whoever reports.
#[derive(Debug, Default)]
pub struct ChainCounters {
    /// Given to `append`. Worker only.
    pub(crate) appended: Tally,
    /// Refused for want of a buffer. Worker only.
    pub(crate) shed: Tally,
    /// Refused because no segment could be opened just now. Worker only.
    pub(crate) refused: Tally,
    /// Copied into a frame. Worker only.
    pub(crate) entered: Tally,
    /// Became retrievable: journalled or sealed. Stage and sync thread.
    pub(crate) stored: Tally,
    /// Entered a frame but could not be made retrievable. Stage and sync thread.
    pub(crate) failed: Tally,
    /// Left the pipeline, one way or the other. Stage and sync thread.
    pub(crate) left: Tally,
    /// In a whole file, but in no journal: no reader sees them before the seal.
    pub(crate) hidden: AtomicU64,
    pub(crate) segments_sealed: AtomicU64,
    pub(crate) segments_failed: AtomicU64,
    pub(crate) raw_bytes: AtomicU64,
    pub(crate) file_bytes: AtomicU64,
    pub(crate) sync_errors: AtomicU64,
    /// The same by second, since it was taken last. Held for a few additions, never for a packet.
    pub(crate) seconds: Mutex<SecondBooks>,
    /// Sync thread.
    pub(crate) prefix: Prefix,
    level: AtomicI32,
    sink: AtomicU8,
}

/// The counters at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CounterSnapshot {
    /// Given to the chain.
    pub appended: Sum,
    /// Retrievable now.
    pub stored: Sum,
    /// On the way: taken in, not yet retrievable.
    pub pending: Sum,
    /// Dropped because every frame buffer was in use.
    pub shed: Sum,
    /// Lost because they could not be written.
    pub write_error: Sum,
    /// Segments sealed.
    pub segments_sealed: u64,
    /// Segments that met a failed write, whatever became of them.
    pub segments_failed: u64,
    /// Uncompressed bytes of all frames compressed so far.
    pub raw_bytes: u64,
    /// Stored bytes of these frames.
    pub file_bytes: u64,
    /// fdatasync calls that failed.
    pub sync_errors: u64,
    /// Level of the latest frame; `None` = stored raw, or no frame yet.
    pub level: Option<i32>,
    /// The sink that runs; `None` before the first segment.
    pub sink: Option<SinkKind>,
}

impl ChainCounters {
    pub(crate) fn set_level(&self, effort: Effort) {
        let level = match effort {
            Effort::Zstd(level) => level,
            Effort::Raw => RAW_LEVEL,
        };
        self.level.store(level, Ordering::Relaxed);
    }

    pub(crate) fn set_sink(&self, kind: SinkKind) {
        let code = match kind {
            SinkKind::Uring => 1,
            SinkKind::Plain => 2,
            SinkKind::Null => 3,
        };
        self.sink.store(code, Ordering::Relaxed);
    }

    /// Moves packets from `stored` to `failed`, in the totals only.
    pub(crate) fn move_to_failed(&self, sum: Sum) {
        self.stored.take(sum);
        self.failed.add(sum);
    }

    /// The way back.
    pub(crate) fn move_to_stored(&self, sum: Sum) {
        self.stored.add(sum);
        self.failed.take(sum);
    }

    /// How far the segments are sealed, in order.
    #[must_use]
    pub fn sealed_prefix(&self) -> SealedPrefix {
        self.prefix.get()
    }

    /// All counters; taken one after the other, so exact only when the chain is at rest.
    #[must_use]
    pub fn snapshot(&self) -> CounterSnapshot {
        let level = self.level.load(Ordering::Relaxed);
        let raw_bytes = self.raw_bytes.load(Ordering::Relaxed);
        // `left` before `entered`: what is in flight shows as pending, never as a negative.
        let left = self.left.sum();
        CounterSnapshot {
            appended: self.appended.sum(),
            stored: self.stored.sum(),
            pending: self.entered.sum().minus(left),
            shed: self.shed.sum(),
            write_error: self.failed.sum().plus(self.refused.sum()),
            segments_sealed: self.segments_sealed.load(Ordering::Relaxed),
            segments_failed: self.segments_failed.load(Ordering::Relaxed),
            raw_bytes,
            file_bytes: self.file_bytes.load(Ordering::Relaxed),
            sync_errors: self.sync_errors.load(Ordering::Relaxed),
            level: (level != RAW_LEVEL && raw_bytes > 0).then_some(level),
            sink: match self.sink.load(Ordering::Relaxed) {
                1 => Some(SinkKind::Uring),
                2 => Some(SinkKind::Plain),
                3 => Some(SinkKind::Null),
                _ => None,
            },
        }
    }
}
