//! Open segments: how far they can be read, and how far they vouch.
//!
//! While its writer lives, a segment is read from its journal, up to the time to which its live file says
//! that the chain is whole; so what is shown of a chain has no hole, and what the store vouches for ends
//! there. When its writer is gone nothing more will come: then it is read as recovery reads it, with the
//! whole frames behind the last one that the journal knows.

use crate::filter::Expr;
use crate::framewalk::{ARRIVALS_PER_FRAME, Window};
use crate::gather::{Indexed, Moved, distrusted, unindexed};
use crate::lost::Told;
use crate::plan::{Choice, Plan, PlannedSegment, Prologue};
use crate::prune::prune_open;
use crate::range::{Span, TimeRange};
use crate::scan::{FrameReader, Piece, Task};
use crate::segment::{Handle, len64};
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tapedeck_index::catalog::{Found, HOUR_SLACK_NANOS};
use tapedeck_index::journal::{Replay, ReplayError, Stop};
use tapedeck_index::live::{self, LIVE_BYTES, LIVE_SUFFIX, RUN_FOLDER};
use tapedeck_index::pcapng::{Block, Blocks};
use tapedeck_index::sidecar::FrameMeta;
use tapedeck_packet::Timestamp;

/// Attempts to read a live file that is just being overwritten.
const LIVE_READS: usize = 100;

/// How far what is being written can be believed.
#[derive(Debug, Default)]
pub(crate) struct Edges {
    /// Live chains, by the name of their live files: the time up to which they are whole.
    chains: BTreeMap<String, Timestamp>,
    filling: Vec<Span>,
    abandoned: Vec<PathBuf>,
}

impl Edges {
    /// What the live files of the stores state; to be read before the stores are listed.
    pub(crate) fn read(stores: &[PathBuf]) -> Self {
        let mut this = Self::default();
        for store in stores {
            let Ok(entries) = fs::read_dir(store.join(RUN_FOLDER)) else { continue };
            for entry in entries.flatten() {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.ends_with(LIVE_SUFFIX)
                    && let Some(until) = stated(&entry.path())
                {
                    this.chains.insert(name, until);
                }
            }
        }
        this
    }

    /// Puts all this into `plan`.
    pub(crate) fn apply(self, plan: &mut Plan) {
        // Whole up to and with that time: the first one not vouched for is the next.
        plan.edge = self.chains.values().min().map(|until| until.saturating_add(1));
        plan.live = self.chains.keys().filter_map(|name| Some(live::parse_file(name)?.run)).collect();
        plan.filling = self.filling;
        plan.abandoned = self.abandoned;
    }
}

/// The time that a live file states, if its recorder lives.
fn stated(path: &Path) -> Option<Timestamp> {
    let file = File::open(path).ok()?;
    if !is_held(&file) {
        return None;
    }
    let mut bytes = [0; LIVE_BYTES];
    // Unreadable for good: nothing is vouched for.
    let read = || file.read_exact_at(&mut bytes, 0).ok().and_then(|()| live::decode(&bytes));
    Some(std::iter::repeat_with(read).take(LIVE_READS).flatten().next().unwrap_or_default())
}

/// Whether someone holds the lock of an open segment: its writer, or a recovery.
fn is_held(file: &File) -> bool {
    match file.try_lock_shared() {
        Ok(()) => {
            // Closing the file would free it too, but the file stays open for reading.
            let _ = file.unlock();
            false
        }
        // A filesystem without locks cannot tell: then nothing is taken for granted.
        Err(TryLockError::WouldBlock | TryLockError::Error(_)) => true,
    }
}

/// Plans an open segment; `None` if no packet of it is inside `range`.
pub(crate) fn look(
    found: &Found,
    expr: &Expr,
    range: &TimeRange,
    edges: &mut Edges,
) -> Result<Option<PlannedSegment>, Moved> {
    let path = found.packets_path();
    let moved = |e: io::Error| if e.kind() == ErrorKind::NotFound { Err(Moved) } else { Ok(e) };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) => {
            return moved(e)
                .map(|e| unindexed(found, &format!("it cannot be opened: {e}"), Told::default(), range));
        }
    };
    // Before the journal is read: if the writer is gone by then, the journal has all there will be.
    let held = is_held(&file);
    let journal = match fs::read(found.index_path()) {
        Ok(journal) => journal,
        Err(e) => {
            let why = |e| format!("its journal cannot be read: {e}");
            return moved(e).map(|e| unindexed(found, &why(e), Told::default(), range));
        }
    };
    let replay = match Replay::read(&journal) {
        Ok(replay) => replay,
        // Just made: nothing is in it yet.
        Err(ReplayError::NoStart(Stop::End | Stop::Cut)) if held => return Ok(None),
        Err(e) => return Ok(unindexed(found, &e.to_string(), Told::default(), range)),
    };
    let until = match (held, replay.stop()) {
        (true, Stop::End | Stop::Cut) => note_live(found, range, edges),
        // What the damage hides is a gap, whatever its writer states.
        (true, Stop::Damaged) => None,
        (false, _) => {
            edges.abandoned.push(path.clone());
            None
        }
    };
    let replay = Arc::new(replay);
    let handle = Handle::Open { path, file: Arc::new(file), replay: Arc::clone(&replay) };
    let recorded = replay.frames().len();
    let (mut beyond, frames) = if held { (Vec::new(), recorded) } else { unrecorded(&handle, &replay) };
    beyond.extend(pending_from(&replay, frames));
    Ok(plan(found, expr, range, &replay, beyond).map(|segment| match segment.choice {
        // Something did not hold: then all of the file is walked.
        Choice::Unindexed { .. } => segment,
        _ => PlannedSegment { handle, ..cut(segment, until) },
    }))
}

/// The time up to which a live segment may be shown. Without a live file nobody says how far it is whole:
/// its hour is a gap.
fn note_live(found: &Found, range: &TimeRange, edges: &mut Edges) -> Option<Timestamp> {
    let name = live::file_name(&found.name);
    if let Some(until) = edges.chains.get(&name) {
        return Some(*until);
    }
    let store = found.folder.ancestors().nth(3).unwrap_or(&found.folder);
    if stated(&store.join(RUN_FOLDER).join(name)).is_some() {
        // Its recorder began after we looked.
        return Some(Timestamp::ZERO);
    }
    let whole = Span {
        from: found.hour.start().saturating_sub(HOUR_SLACK_NANOS),
        to: found.hour.end().saturating_add(HOUR_SLACK_NANOS),
    };
    edges.filling.extend(whole.within(range));
    None
}

/// The plan of a segment whose frames the journal tells, with the pieces `beyond` them.
fn plan(
    found: &Found,
    expr: &Expr,
    range: &TimeRange,
    replay: &Replay,
    beyond: Vec<Task>,
) -> Option<PlannedSegment> {
    if let Some(error) = replay.builder().error() {
        return unindexed(found, &error.to_string(), Told::default(), range);
    }
    let times = times_of(replay.frames(), &beyond);
    let torn = (replay.stop() == Stop::Damaged).then(|| torn(found, replay, times.map(|(_, max)| max)));
    let times = match &torn {
        Some(task) => Some((times.map_or(task.t_min, |(min, _)| min), task.t_max)),
        None => times,
    };
    let (t_min, t_max) = times.filter(|(min, max)| range.overlaps(*min, *max))?;
    let indexed = Indexed {
        metas: replay.frames(),
        prologue: Prologue::Known(Arc::new(replay.start().interface.clone())),
        stored_bytes: replay.stored_len(),
        span: Span::of_packets(t_min, t_max),
    };
    let pruned = |inside: &[bool]| prune_open(replay.builder(), inside, expr);
    let mut segment = match indexed.plan(found, range, pruned) {
        Ok(segment) => segment,
        Err(e) => return distrusted(found, &e, Told::default(), range),
    };
    segment.frames += len64(beyond.len());
    segment.tasks.extend(beyond.into_iter().chain(torn).filter(|t| range.overlaps(t.t_min, t.t_max)));
    Some(segment)
}

/// Smallest and largest time of the packets in these frames and in what lies beyond them.
pub(crate) fn times_of(frames: &[FrameMeta], beyond: &[Task]) -> Option<(Timestamp, Timestamp)> {
    let times = frames.iter().filter(|meta| meta.packets > 0).map(|meta| (meta.t_min, meta.t_max));
    let times = times.chain(beyond.iter().map(|task| (task.t_min, task.t_max)));
    times.reduce(|(min, max), (a, b)| (min.min(a), max.max(b)))
}

/// `segment` without what lies behind `until`.
fn cut(mut segment: PlannedSegment, until: Option<Timestamp>) -> PlannedSegment {
    segment.tasks.retain(|task| until.is_none_or(|until| task.t_min <= until));
    PlannedSegment { until, ..segment }
}

/// What is missing behind the damage in a journal: anything from the last known packet to the hour's end.
fn torn(found: &Found, replay: &Replay, last: Option<Timestamp>) -> Task {
    Task {
        segment: 0,
        piece: Piece::TornJournal { at: len64(replay.good_len()) },
        t_min: last.unwrap_or(found.hour.start().saturating_sub(HOUR_SLACK_NANOS)),
        t_max: found.hour.end().saturating_add(HOUR_SLACK_NANOS),
        packets: None,
        first_arrival: u64::MAX,
        frame: None,
    }
}

/// The whole frames of a file behind those that its journal tells, up to the first that is not whole; and
/// how many frames there are then in all.
fn unrecorded(handle: &Handle, replay: &Replay) -> (Vec<Task>, usize) {
    let mut tasks = Vec::new();
    let (mut offset, mut number) = (replay.stored_len(), replay.frames().len());
    let Ok(opened) = handle.open() else { return (tasks, number) };
    let Ok(mut window) = Window::new(&opened) else { return (tasks, number) };
    let mut reader = FrameReader::default();
    while let Ok(Some(len)) = window.frame_at(offset)
        && let Ok(stored_len) = u32::try_from(len)
        && let Ok(raw) = reader.read(handle, offset, stored_len)
        && let (packets, times, whole) = contents(raw)
        && whole == raw.len()
    {
        tasks.extend(times.map(|(t_min, t_max)| Task {
            segment: 0,
            piece: Piece::Frame { offset, stored_len },
            t_min,
            t_max,
            packets: Some(packets),
            first_arrival: len64(number).saturating_mul(ARRIVALS_PER_FRAME),
            frame: u32::try_from(number).ok(),
        }));
        offset = offset.saturating_add(stored_len.into());
        number += 1;
    }
    (tasks, number)
}

/// Packets of a raw frame, their smallest and largest time, and the bytes up to the last whole block.
fn contents(raw: &[u8]) -> (u32, Option<(Timestamp, Timestamp)>, usize) {
    let mut walk = Blocks::new(raw);
    let (mut packets, mut times) = (0u32, None);
    for block in walk.by_ref() {
        if let Ok((_, Block::Packet(packet))) = block {
            packets = packets.saturating_add(1);
            let (min, max) = times.unwrap_or((packet.ts, packet.ts));
            times = Some((packet.ts.min(min), packet.ts.max(max)));
        }
    }
    (packets, times, walk.offset())
}

/// The frames of an open segment that are not written yet, from its journal.
pub(crate) fn pending(replay: &Replay) -> Vec<Task> {
    pending_from(replay, replay.frames().len())
}

/// As [`pending`], without the first `frames` frames of the segment.
fn pending_from(replay: &Replay, frames: usize) -> Vec<Task> {
    let mut tasks = Vec::new();
    for (frame, blocks) in replay.open_blocks() {
        if usize::try_from(frame).is_ok_and(|frame| frame < frames) {
            continue;
        }
        let (packets, times, whole) = contents(blocks);
        // Behind the last whole block there is nothing to believe.
        let whole = blocks.get(..whole).unwrap_or_default().to_vec();
        if let Some((t_min, t_max)) = times {
            tasks.push(Task {
                segment: 0,
                piece: Piece::Blocks(whole),
                t_min,
                t_max,
                packets: Some(packets),
                first_arrival: u64::from(frame).saturating_mul(ARRIVALS_PER_FRAME),
                frame: Some(frame),
            });
        }
    }
    tasks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lock_tells_whether_the_writer_lives() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let reader = File::open(file.path()).unwrap();
        assert!(!is_held(&reader));
        file.as_file().lock().unwrap();
        assert!(is_held(&reader));
        file.as_file().unlock().unwrap();
        assert!(!is_held(&reader) && !is_held(&reader));
        assert!(file.as_file().try_lock().is_ok(), "asking leaves no lock behind");
    }
}
