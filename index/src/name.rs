//! Names of segments: `<t0>-<sensor>-<if>-q<N>-<run>-<seq>` and the hour folders they lie in.

use tapedeck_packet::Timestamp;

/// The parts of a segment's file name (docs/format.md).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SegmentName {
    /// Smallest packet time; provisional (the first packet's) while the segment is open.
    pub t0: Timestamp,
    /// Sensor id, unescaped.
    pub sensor: String,
    /// Interface name, unescaped.
    pub interface: String,
    /// Queue number.
    pub queue: u32,
    /// Random number of the writing process.
    pub run: u32,
    /// Counts the segments of a run, over all its chains.
    pub seq: u32,
}
