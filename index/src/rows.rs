//! Flow rows: what the index remembers of a packet, one row per distinct flow and segment.

use tapedeck_packet::Walk;

/// The rows of one frame, as the worker hands them over with the frame's bytes.
#[derive(Clone, Debug, Default)]
pub struct FrameRows {
    /// Rows seen for the first time in this segment, encoded; ids follow on from earlier frames.
    pub new_rows: Vec<Row>,
    /// Every row with a packet in this frame: (row id, directions seen in this frame).
    pub present: Vec<(u32, u8)>,
}

/// Placeholder.
#[derive(Clone, Debug)]
pub struct Row;

/// Rows of the segment being written; allocated once, reused for the next segment.
#[derive(Debug, Default)]
pub struct RowTable;

impl RowTable {
    /// Notes the layers of a packet for the current frame.
    pub fn add(&mut self, _walk: &Walk) {}

    /// Ends the current frame: moves its rows into `out` (cleared first).
    pub fn cut_frame(&mut self, _out: &mut FrameRows) {}

    /// Forgets all rows, for the next segment. Keeps its memory.
    pub fn clear(&mut self) {}
}
