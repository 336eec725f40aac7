//! What a chain is told at its start.

use crate::level::Level;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use std::time::Duration;
use tapedeck_index::pcapng::{InterfaceInfo, SectionInfo};

/// Least stored bytes of a segment that hold a header, a full frame and the end, whatever is in them: one
/// write buffer.
pub const SEGMENT_BYTES_MIN: u64 = 1 << 20;

/// Which sink to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SinkChoice {
    /// io_uring with O_DIRECT where it works, else plain.
    #[default]
    Auto,
    /// io_uring with O_DIRECT; the chain does not start without it.
    Uring,
    /// `pwrite` through the page cache.
    Plain,
    /// Bytes go nowhere, segments are holes: for measuring what comes before the disk.
    Null,
}

/// What happens to a packet when every frame buffer is in use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenFull {
    /// It is dropped and counted `shed`: for sources that do not wait. `append` never blocks.
    Shed,
    /// `append` waits for a buffer: for files.
    Wait,
}

/// Configuration of one chain: the packets of one queue of one interface.
#[derive(Clone, Debug)]
pub struct ChainConfig {
    /// Folder of the store; made if it is not there.
    pub store: PathBuf,
    /// Sensor id, for names.
    pub sensor: String,
    /// Section header of every segment.
    pub section: SectionInfo,
    /// The one interface of every segment.
    pub interface: InterfaceInfo,
    /// Queue number.
    pub queue: u32,
    /// Random number of this process.
    pub run: u32,
    /// Counts the segments of the run; shared by all its chains.
    pub seq: Arc<AtomicU32>,
    /// Most stored bytes of a segment: it is cut before a frame that could exceed them. Only a segment of
    /// a single frame may be longer; from [`SEGMENT_BYTES_MIN`] on, only for a packet larger than a frame.
    pub segment_bytes: u64,
    /// A segment is cut at this age, also when no packet comes; `None` = never.
    pub segment_age: Option<Duration>,
    /// Compression.
    pub level: Level,
    /// Sink.
    pub sink: SinkChoice,
    /// What to do when all frame buffers are in use.
    pub when_full: WhenFull,
    /// Frame buffers of 512 KiB, at least 4. Memory of a chain: these, write buffers of 1 MiB (nine and
    /// one per open segment), and the row tables of the open segments.
    pub frame_buffers: usize,
    /// Segments open at once, at least 1: one for a live source, several for a file whose packets jump
    /// between hours. The one unused for longest is sealed when another is needed.
    pub open_segments: usize,
    /// The packets' clock and that of `tick` are the same: an idle segment gets statistics each second,
    /// and is sealed when its hour has passed.
    pub live: bool,
    /// An open frame is cut at this age.
    pub frame_age: Duration,
    /// How often segment and journal are made durable.
    pub sync_interval: Duration,
    /// CPU for the stage thread and the sync thread; `None` = where the scheduler likes.
    pub stage_cpu: Option<usize>,
}

impl ChainConfig {
    /// A configuration for a live source, with the defaults of `record`.
    #[must_use]
    pub fn record(store: PathBuf, sensor: String, interface: InterfaceInfo) -> Self {
        Self {
            store,
            sensor,
            section: SectionInfo::default(),
            interface,
            queue: 0,
            run: 0,
            seq: Arc::new(AtomicU32::new(0)),
            segment_bytes: 1 << 30,
            segment_age: Some(Duration::from_secs(60)),
            level: Level::Auto,
            sink: SinkChoice::Auto,
            when_full: WhenFull::Shed,
            frame_buffers: 64,
            open_segments: 1,
            live: true,
            frame_age: Duration::from_secs(5),
            sync_interval: Duration::from_secs(1),
            stage_cpu: None,
        }
    }

    /// A configuration for a file, with the defaults of `import`.
    #[must_use]
    pub fn import(store: PathBuf, sensor: String, interface: InterfaceInfo) -> Self {
        Self {
            segment_age: None,
            when_full: WhenFull::Wait,
            frame_buffers: 16,
            open_segments: 8,
            live: false,
            ..Self::record(store, sensor, interface)
        }
    }
}
