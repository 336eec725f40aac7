//! An open segment as its journal tells it.

use super::{JOURNAL_VERSION, Record, Records, Start, Stop, stated_version};
use crate::bytes::{index, len32, len64};
use crate::sidecar::{FrameMeta, SidecarBuilder};
use std::collections::BTreeMap;

/// A journal that says nothing of its segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ReplayError {
    /// The first record is no start record: the journal was just made, or is no journal.
    #[error("the journal has no start record; reading stopped: {0:?}")]
    NoStart(Stop),
    /// Written in a version of the format that this program does not know.
    #[error("journal version {found}; this program reads version {JOURNAL_VERSION}")]
    Version {
        /// Version in the journal.
        found: u32,
    },
}

/// The state of an open segment: recorded frames with their rows, stored bytes that the file may lack,
/// raw blocks of frames not recorded yet.
#[derive(Clone, Debug)]
pub struct Replay {
    start: Start,
    builder: SidecarBuilder,
    /// Stored bytes by offset. Stored bytes never change, so overlapping tails agree.
    tails: BTreeMap<u64, Vec<u8>>,
    /// Raw blocks by frame number, each from offset 0 on without a hole.
    open: BTreeMap<u32, Vec<u8>>,
    good_len: usize,
    stop: Stop,
}

impl Replay {
    /// Replays the bytes of a journal up to the first bad record.
    ///
    /// # Errors
    /// [`ReplayError`] where not even the first record holds.
    pub fn read(journal: &[u8]) -> Result<Self, ReplayError> {
        let mut records = Records::new(journal);
        let Some(Record::Start(start)) = records.next() else {
            let stop = records.stop().unwrap_or(Stop::Damaged);
            let other = stated_version(journal).filter(|found| *found != JOURNAL_VERSION);
            return Err(other.map_or(ReplayError::NoStart(stop), |found| ReplayError::Version { found }));
        };
        let (tails, open) = (BTreeMap::new(), BTreeMap::new());
        let good_len = records.good_len();
        let mut replay =
            Self { start, builder: SidecarBuilder::new(), tails, open, good_len, stop: Stop::End };
        for record in records.by_ref() {
            if !replay.apply(record) {
                replay.stop = Stop::Damaged;
                return Ok(replay);
            }
            replay.good_len = good_len;
        }
        replay.good_len = records.good_len();
        replay.stop = records.stop().unwrap_or(Stop::End);
        Ok(replay)
    }

    /// Applies one record; false where it contradicts those before it.
    fn apply(&mut self, record: Record<'_>) -> bool {
        match record {
            Record::Start(_) => false,
            Record::Frame(meta, rows) => {
                if meta.offset != self.builder.stored_len() {
                    return false;
                }
                self.open.remove(&len32(self.builder.frames().len()));
                self.builder.frame(meta, &rows);
                true
            }
            Record::Tail { offset, bytes } => {
                let known = self.tails.entry(offset).or_default();
                if bytes.len() > known.len() {
                    *known = bytes.to_vec();
                }
                true
            }
            Record::OpenBlocks { frame, offset, bytes } => {
                if index(frame) >= self.builder.frames().len() {
                    let known = self.open.entry(frame).or_default();
                    // Bytes already known are skipped; behind a hole nothing is taken.
                    if let Some(new) = known.len().checked_sub(index(offset)).and_then(|at| bytes.get(at..)) {
                        known.extend_from_slice(new);
                    }
                }
                true
            }
        }
    }

    /// What the segment is called and how it begins.
    #[must_use]
    pub fn start(&self) -> &Start {
        &self.start
    }

    /// The recorded frames, in file order.
    #[must_use]
    pub fn frames(&self) -> &[FrameMeta] {
        self.builder.frames()
    }

    /// The recorded frames with their rows.
    #[must_use]
    pub fn builder(&self) -> &SidecarBuilder {
        &self.builder
    }

    /// As [`Replay::builder`], by value: to go on with frames that were found behind the recorded ones.
    #[must_use]
    pub fn into_builder(self) -> SidecarBuilder {
        self.builder
    }

    /// Raw pcapng blocks of frames that are not recorded: (frame number, blocks from the frame's start
    /// on), ascending. They may end in the middle of a frame, never of a block the writer gave whole.
    pub fn open_blocks(&self) -> impl Iterator<Item = (u32, &[u8])> {
        self.open.iter().map(|(frame, blocks)| (*frame, blocks.as_slice()))
    }

    /// Stored bytes of the recorded frames: what file and tails together must give.
    #[must_use]
    pub fn stored_len(&self) -> u64 {
        self.builder.stored_len()
    }

    /// Least length of the segment file with which every recorded frame can be read: what lies beyond
    /// is in tails.
    #[must_use]
    pub fn file_bytes_needed(&self) -> u64 {
        let mut needed = self.stored_len();
        // From the last tail down: one that reaches the bytes needed so far replaces them.
        for (offset, bytes) in self.tails.iter().rev() {
            if offset.saturating_add(len64(bytes.len())) >= needed {
                needed = needed.min(*offset);
            }
        }
        needed
    }

    /// Lays the tails over `bytes`, which were read from the segment file at `offset` (and zero where the
    /// file ended before).
    pub fn overlay(&self, offset: u64, bytes: &mut [u8]) {
        let end = offset.saturating_add(len64(bytes.len()));
        for (start, tail) in self.tails.range(..end) {
            let skip = usize::try_from(offset.saturating_sub(*start)).unwrap_or(usize::MAX);
            let at = usize::try_from(start.saturating_sub(offset)).unwrap_or(usize::MAX);
            let (Some(from), Some(to)) = (tail.get(skip..), bytes.get_mut(at..)) else { continue };
            to.iter_mut().zip(from).for_each(|(to, from)| *to = *from);
        }
    }

    /// Bytes of the journal that hold.
    #[must_use]
    pub fn good_len(&self) -> usize {
        self.good_len
    }

    /// Why reading stopped. [`Stop::Damaged`] also where a record contradicts those before it.
    #[must_use]
    pub fn stop(&self) -> Stop {
        self.stop
    }
}
