//! What a worker reads from: batches of packets with the time they carry.
//!
//! A batch borrows its source, so ring memory is given back before the next one is asked for.

use std::io;
use std::time::Duration;

/// Time of a packet as its source knows it, nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stamp {
    /// CLOCK_MONOTONIC, taken in the XDP program.
    Monotonic(u64),
    /// UTC, taken in the kernel.
    Utc(u64),
    /// None: the packet came without one. A bug if it happens, and counted.
    Missing,
}

/// A packet in ring memory.
#[derive(Clone, Copy, Debug)]
pub struct RawPacket<'a> {
    /// When it came.
    pub stamp: Stamp,
    /// UTC second that the source has counted it in; `None`: that of its stamp.
    pub second: Option<u64>,
    /// Number of the packet in its queue, counting also those the kernel could not deliver.
    pub sequence: Option<u64>,
    /// Generation of the filter that let it through, modulo 256; 0 where the worker judges.
    pub filter: u8,
    /// Its bytes, from the link header on.
    pub bytes: &'a [u8],
    /// Length on the wire, bytes.
    pub orig_len: u32,
}

/// Packets borrowed from a source.
pub trait PacketBatch {
    /// Its packets, in order. They live as long as the batch; those not asked for stay in the source.
    fn packets(&mut self) -> impl Iterator<Item = RawPacket<'_>>;
}

/// What a source itself counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SourceStats {
    /// Packets that came to the source, with those it dropped. 0 where the XDP program counts them.
    pub seen: u64,
    /// Dropped because the ring was full.
    pub ring_full: u64,
    /// Dropped for want of a chunk, or as too long.
    pub dropped: u64,
    /// Entries that made no sense; anything but 0 is a bug.
    pub misfits: u64,
}

/// A queue of packets.
pub trait Source: Send {
    /// Its batches.
    type Batch<'a>: PacketBatch
    where
        Self: 'a;

    /// What waits now, at most about `max` packets. Never blocks.
    fn peek(&mut self, max: u32) -> Self::Batch<'_>;

    /// Sleeps until a packet waits, at most `timeout`.
    ///
    /// # Errors
    /// The interface is gone.
    fn wait(&mut self, timeout: Duration) -> io::Result<()>;

    /// How much of its packet memory what waits takes, percent. Never blocks.
    fn waiting_percent(&self) -> u32;

    /// The source's own counters since it was opened.
    ///
    /// # Errors
    /// The kernel's answer.
    fn stats(&mut self) -> io::Result<SourceStats>;
}
