//! What will be read for an answer, and why: printable before anything is read (`--explain`).
//!
//! A plan is a value: made from the catalog and the sidecars, it opens no segment.

use crate::range::{Span, TimeRange};
use crate::scan::{Piece, Task};
use crate::segment::Handle;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use tapedeck_index::catalog::State;
use tapedeck_index::name::SegmentName;
use tapedeck_index::pcapng::InterfaceInfo;
use tapedeck_packet::Timestamp;
use tapedeck_packet::escape::Foreign;

/// How the interface of a segment is found out.
#[derive(Clone, Debug)]
pub enum Prologue {
    /// The sidecar says it, or the journal of an open segment.
    Known(Arc<InterfaceInfo>),
    /// From frame 0, which must be read.
    FirstFrame,
}

/// How the frames of a segment were chosen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// By its index.
    Index {
        /// Rows that were tested.
        rows_tested: u64,
        /// Rows that can match.
        rows_matched: u64,
        /// Terms whose rows were looked up; empty = all rows were tested.
        looked_up: Vec<String>,
    },
    /// None: the segment is missing, only its index is left.
    Missing,
    /// All of them: the sidecar is missing or damaged.
    Unindexed {
        /// Why.
        why: String,
    },
}

/// A segment inside the asked range.
#[derive(Clone, Debug)]
pub struct PlannedSegment {
    /// Its name.
    pub name: SegmentName,
    /// Sealed, or still being written.
    pub state: State,
    /// How to get at its bytes.
    pub handle: Handle,
    /// How its interface is found out.
    pub prologue: Prologue,
    /// Times of its packets; without an index all that it may hold.
    pub span: Span,
    /// What to read. Empty when the index excludes a match; a walk when the frames must be found first.
    pub tasks: Vec<Task>,
    /// How that was chosen.
    pub choice: Choice,
    /// Frames with packets, all of them; 0 where only a walk can tell.
    pub frames: u64,
    /// Stored bytes of the segment.
    pub stored_bytes: u64,
    /// No packet behind this time is shown: its writer lives, and has not said yet that it is whole there.
    pub until: Option<Timestamp>,
}

/// A segment that a pack has excluded.
#[derive(Clone, Debug)]
pub struct Excluded {
    /// Its name.
    pub name: SegmentName,
    /// Times of its packets.
    pub span: Span,
}

/// Why a pack is not believed.
#[derive(Clone, Debug)]
pub struct PackTrouble {
    /// The pack.
    pub path: PathBuf,
    /// What is wrong with it.
    pub why: String,
    /// Whether `tapedeck reindex` makes it anew; one of a newer program it leaves alone.
    pub mends: bool,
}

/// Segments that packs have excluded: their sidecars are not opened.
#[derive(Clone, Debug, Default)]
pub struct Packed {
    /// Packs that were asked.
    pub packs: usize,
    /// The excluded segments.
    pub excluded: Vec<Excluded>,
    /// Their frames with packets.
    pub frames: u64,
    /// Their stored bytes.
    pub stored_bytes: u64,
    /// Packs that are not believed, and why.
    pub troubles: Vec<PackTrouble>,
}

/// What will be read.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The filter, as understood; empty = all packets.
    pub filter: String,
    /// The asked range.
    pub range: TimeRange,
    /// First and last time of the store; `None` when it holds nothing.
    pub life: Option<Span>,
    /// Segments in the hours looked at that lie outside the range.
    pub outside: u64,
    /// Segments without a match by the packs.
    pub packed: Packed,
    /// The others, in order of name.
    pub segments: Vec<PlannedSegment>,
    /// The store is being recorded into, and vouches for what lies before this time.
    pub edge: Option<Timestamp>,
    /// The runs that record into it.
    pub live: Vec<u32>,
    /// Where files are being imported: more packets may come.
    pub filling: Vec<Span>,
    /// Open segments whose writers are gone.
    pub abandoned: Vec<PathBuf>,
}

impl Plan {
    /// Frames to be read, of how many.
    #[must_use]
    pub fn frames(&self) -> (u64, u64) {
        (
            self.segments.iter().map(PlannedSegment::frames_to_read).sum(),
            self.segments.iter().map(|s| s.frames).sum::<u64>() + self.packed.frames,
        )
    }

    /// Stored bytes to be read, of how many.
    #[must_use]
    pub fn bytes(&self) -> (u64, u64) {
        let to_read = self.segments.iter().map(PlannedSegment::bytes_to_read).sum();
        (to_read, self.segments.iter().map(|s| s.stored_bytes).sum::<u64>() + self.packed.stored_bytes)
    }

    /// Segments inside the range, those that packs exclude among them.
    #[must_use]
    pub fn segments_asked(&self) -> usize {
        self.segments.len() + self.packed.excluded.len()
    }

    /// Times of the packets of each of them.
    pub fn spans(&self) -> impl Iterator<Item = Span> + '_ {
        self.segments
            .iter()
            .map(|segment| segment.span)
            .chain(self.packed.excluded.iter().map(|segment| segment.span))
    }
}

impl PlannedSegment {
    /// Frames to be read.
    #[must_use]
    pub fn frames_to_read(&self) -> u64 {
        crate::segment::len64(self.tasks.iter().filter(|task| task.piece.is_frame()).count())
    }

    /// Stored bytes to be read.
    #[must_use]
    pub fn bytes_to_read(&self) -> u64 {
        if self.is_walked() {
            return self.stored_bytes;
        }
        self.tasks.iter().map(|t| t.piece.stored_bytes()).sum()
    }

    /// Must the file be walked to find its frames?
    #[must_use]
    pub fn is_walked(&self) -> bool {
        self.tasks.iter().any(|task| matches!(task.piece, Piece::Walk))
    }

    /// Is anything of it read?
    #[must_use]
    pub fn is_read(&self) -> bool {
        !self.tasks.is_empty()
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let filter = if self.filter.is_empty() { "all packets" } else { &self.filter };
        writeln!(f, "filter    {filter}")?;
        write!(f, "range     {} to ", self.range.from)?;
        match self.range.to {
            Some(to) => writeln!(f, "{to}")?,
            None => writeln!(f, "the end")?,
        }
        match self.life {
            Some(life) => writeln!(f, "store     {} to {}", life.from, life.to)?,
            None => writeln!(f, "store     empty")?,
        }
        if let Some(edge) = self.edge {
            writeln!(f, "live      whole before {edge}")?;
        }
        let missing = self.segments.iter().filter(|s| s.choice == Choice::Missing).count();
        let to_read = self.segments.iter().filter(|s| s.is_read()).count() - missing;
        let considered = crate::segment::len64(self.segments_asked()) + self.outside;
        let excluded = self.segments.len() - to_read - missing;
        write!(f, "segments  {considered} considered: {} outside the range, ", self.outside)?;
        if self.packed.packs > 0 {
            write!(f, "{} without a match by {} packs, ", self.packed.excluded.len(), self.packed.packs)?;
        }
        write!(f, "{excluded} without a match by the index, {to_read} to read")?;
        match missing {
            0 => writeln!(f)?,
            missing => writeln!(f, ", {missing} MISSING")?,
        }
        let ((frames, all_frames), (bytes, all_bytes)) = (self.frames(), self.bytes());
        writeln!(f, "frames    {frames} of {all_frames}")?;
        writeln!(f, "bytes     {bytes} of {all_bytes}")?;
        self.segments.iter().try_for_each(|segment| writeln!(f, "{segment}"))
    }
}

impl fmt::Display for PlannedSegment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // A name is escaped by its form, but the folders above it are anyone's.
        let path = self.handle.path().to_string_lossy();
        let open = if self.state == State::Open { " (open)" } else { "" };
        write!(f, "  {}{open}: ", Foreign::new(&path, true))?;
        if self.choice == Choice::Missing {
            return match self.tasks.iter().find_map(Task::packets) {
                Some(packets) => write!(f, "MISSING, only its index is left: {packets} packets are lost"),
                None => f.write_str("MISSING, only its index is left, and cannot be read"),
            };
        }
        if self.is_walked() {
            f.write_str("all frames")?;
        } else {
            write!(f, "{} of {} frames", self.frames_to_read(), self.frames)?;
        }
        let pending = self.tasks.iter().filter(|t| matches!(t.piece, Piece::Blocks(_))).count();
        if pending > 0 {
            write!(f, " ({pending} from the journal)")?;
        }
        write!(f, ", {} of {} bytes; ", self.bytes_to_read(), self.stored_bytes)?;
        if let Some(cut) = self.tasks.iter().find(|task| matches!(task.piece, Piece::CutOff { .. })) {
            match cut.packets() {
                Some(packets) => write!(f, "CUT, {packets} packets are lost; ")?,
                None => f.write_str("CUT, packets are lost; ")?,
            }
        }
        match &self.choice {
            Choice::Unindexed { why } => write!(f, "no index: {why}"),
            Choice::Missing => Ok(()),
            Choice::Index { rows_tested: 0, looked_up, .. } if looked_up.is_empty() => {
                f.write_str("chosen by time")
            }
            Choice::Index { rows_tested, rows_matched, looked_up } => {
                write!(f, "{rows_matched} of {rows_tested} rows can match")?;
                if !looked_up.is_empty() {
                    write!(f, ", looked up by {}", looked_up.join(", "))?;
                }
                Ok(())
            }
        }
    }
}
