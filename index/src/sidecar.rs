//! The sidecar `.idx`: flow x frame, a pure function of the segment's packets.
//!
//! [`SidecarBuilder`] makes the bytes from frames and their rows; [`Sidecar`] answers from them in
//! place. A wrong "not here" would be lost evidence: every section is checked against its checksum
//! before its first use. Must never depend on a clock, a thread or the memory layout of the writer.

use tapedeck_packet::Timestamp;

mod build;
mod entry;
mod head;
mod keys;
mod layout;
mod lists;
mod query;
mod read;
mod row_index;
#[cfg(test)]
mod tests;

pub use build::{BuildError, SidecarBuilder};
pub use head::{HEAD_BYTES_MAX, Head};
pub use keys::KeyNotes;
pub use layout::{FORMAT_VERSION, MAGIC, Section};
pub use query::Property;
pub use read::{Sidecar, SidecarError, Summary};

/// What the sidecar knows of a frame besides its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameMeta {
    /// Byte offset of the frame in the segment file. Frames follow each other without a hole.
    pub offset: u64,
    /// Stored (compressed) bytes.
    pub stored_len: u32,
    /// Uncompressed bytes.
    pub raw_len: u32,
    /// Packets in the frame, at most 32,767; 0 is allowed (frame 0, a frame of statistics only).
    pub packets: u32,
    /// Smallest packet time; the epoch in a frame without packets.
    pub t_min: Timestamp,
    /// Largest packet time. Read from a sidecar it is an upper bound, less than 1 us above.
    pub t_max: Timestamp,
    /// Arrival number of the frame's first packet; the others follow on. In a sidecar arrivals count from
    /// 0 in each segment, for only those follow from its bytes: [`SidecarBuilder::frame`] counts
    /// itself and does not look at this field.
    pub first_arrival: u64,
    /// Packets stand in order of time.
    pub sorted: bool,
}
