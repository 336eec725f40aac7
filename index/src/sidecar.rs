//! The sidecar `.idx`: flow x frame, a pure function of the segment's packets.

use crate::rows::FrameRows;
use tapedeck_packet::Timestamp;

/// What the sidecar knows of a frame besides its rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameMeta {
    /// Byte offset of the frame in the segment file.
    pub offset: u64,
    /// Stored (compressed) bytes.
    pub stored_len: u32,
    /// Uncompressed bytes.
    pub raw_len: u32,
    /// Packets in the frame; 0 is allowed (frame 0 of an import, a frame of statistics only).
    pub packets: u32,
    /// Smallest packet time.
    pub t_min: Timestamp,
    /// Largest packet time.
    pub t_max: Timestamp,
    /// Arrival number, in its chain, of the frame's first packet; the others follow on.
    pub first_arrival: u64,
    /// Packets stand in order of time.
    pub sorted: bool,
}

/// Builds a sidecar frame by frame.
#[derive(Debug, Default)]
pub struct SidecarBuilder;

impl SidecarBuilder {
    /// Adds the next frame.
    pub fn frame(&mut self, _meta: FrameMeta, _rows: &FrameRows) {}
}
