//! From stores to a plan: lists the segments of the asked hours, reads their sidecars and the journals of
//! open ones, and leaves out what time and index exclude. Reads no frame.
//!
//! A segment may be sealed or removed while we look: then everything is listed again.

use crate::filter::{Expr, Filter};
use crate::framewalk::ARRIVALS_PER_FRAME;
use crate::plan::{Choice, Plan, PlannedSegment, Prologue};
use crate::prune::{Pruned, prune};
use crate::range::{Span, TimeRange};
use crate::scan::{Piece, Task};
use crate::segment::{Handle, len64};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::path::PathBuf;
use std::sync::Arc;
use tapedeck_index::catalog::{self, CatalogError, Found, HOUR_SLACK_NANOS, State};
use tapedeck_index::journal::{Replay, ReplayError, Stop};
use tapedeck_index::mapped;
use tapedeck_index::pcapng::{Block, Blocks};
use tapedeck_index::sidecar::{FrameMeta, Sidecar, SidecarError};
use tapedeck_packet::Timestamp;

/// How often the store is listed again because a segment moved.
const LISTINGS_MAX: u32 = 5;

/// A plan for the packets of `stores` that match `filter` inside `range`.
///
/// # Errors
/// [`CatalogError`] when a folder cannot be listed. A damaged or missing sidecar is no error: the plan reads
/// all of the segment then.
pub fn gather(stores: &[PathBuf], filter: &Filter, range: TimeRange) -> Result<Plan, CatalogError> {
    gather_some(stores, filter, range, &|_| true)
}

/// As [`gather`], of the segments that are `wanted`; the others are not looked at.
///
/// # Errors
/// As [`gather`].
pub(crate) fn gather_some(
    stores: &[PathBuf],
    filter: &Filter,
    range: TimeRange,
    wanted: &dyn Fn(&Found) -> bool,
) -> Result<Plan, CatalogError> {
    let mut plan = Plan { filter: filter.to_string(), range, ..Plan::default() };
    for left in (0..LISTINGS_MAX).rev() {
        let listing = catalog::list(stores, range.from, range.to.unwrap_or(Timestamp::MAX))?;
        plan.segments.clear();
        plan.outside = 0;
        let mut moved = false;
        for found in listing.segments.iter().filter(|found| wanted(found)) {
            match look(found, filter.expr(), &range, left == 0) {
                Look::Planned(segment) => plan.segments.push(*segment),
                Look::Outside => plan.outside += 1,
                Look::Moved => moved = true,
            }
        }
        if !moved {
            break;
        }
    }
    plan.life = life(stores, &plan)?;
    Ok(plan)
}

/// What became of a listed segment.
enum Look {
    Planned(Box<PlannedSegment>),
    /// No packet of it is inside the range.
    Outside,
    /// It is not there any more, under this name.
    Moved,
}

/// Looks at one segment; the `last` time around nothing is `Moved`.
fn look(found: &Found, expr: &Expr, range: &TimeRange, last: bool) -> Look {
    let planned = match found.state {
        State::Sealed => sealed(found, expr, range),
        State::Open => open(found, expr, range),
    };
    match planned {
        Ok(Some(segment)) => Look::Planned(Box::new(segment)),
        Ok(None) => Look::Outside,
        Err(Moved) if last => match unindexed(found, "it has no index", None, range) {
            // The answer will find that it is gone, and say so.
            Some(segment) => Look::Planned(Box::new(segment)),
            None => Look::Outside,
        },
        Err(Moved) => Look::Moved,
    }
}

/// The segment is not where the listing saw it.
struct Moved;

fn sealed(found: &Found, expr: &Expr, range: &TimeRange) -> Result<Option<PlannedSegment>, Moved> {
    let path = found.packets_path();
    let sidecar = match mapped::open(&found.index_path()) {
        Ok(sidecar) => sidecar,
        Err(mapped::OpenError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return match fs::metadata(&path) {
                Err(e) if e.kind() == ErrorKind::NotFound => Err(Moved),
                _ => Ok(unindexed(found, "it has no index", None, range)),
            };
        }
        Err(mapped::OpenError::Io { source, .. }) => {
            return Ok(unindexed(found, &format!("its index cannot be opened: {source}"), None, range));
        }
        Err(mapped::OpenError::Sidecar { source, .. }) => return Ok(distrusted(found, &source, None, range)),
    };
    let summary = sidecar.summary();
    if (summary.run, summary.seq) != (found.name.run, found.name.seq) {
        return Ok(unindexed(found, "its index belongs to another segment", None, range));
    }
    let Some((t_min, t_max)) = summary.times.filter(|(min, max)| range.overlaps(*min, *max)) else {
        return Ok(None);
    };
    let span = Span::of_packets(t_min, t_max);
    match indexed(found, &sidecar, expr, range, span) {
        Ok(segment) => Ok(Some(segment)),
        Err(error) => Ok(distrusted(found, &error, sidecar.frames().ok(), range)),
    }
}

/// Plans a segment by its sidecar; the handle is that of a sealed one.
fn indexed(
    found: &Found,
    sidecar: &Sidecar,
    expr: &Expr,
    range: &TimeRange,
    span: Span,
) -> Result<PlannedSegment, SidecarError> {
    let metas = sidecar.frames()?;
    let inside = |meta: &FrameMeta| meta.packets > 0 && range.overlaps(meta.t_min, meta.t_max);
    let pruned = if metas.iter().any(inside) { prune(sidecar, expr)? } else { Pruned::default() };
    let wanted =
        metas.iter().enumerate().zip(&pruned.frames).filter(|((_, m), wanted)| **wanted && inside(m));
    let Pruned { rows_tested, rows_matched, looked_up, .. } = pruned;
    Ok(PlannedSegment {
        name: found.name.clone(),
        state: found.state,
        handle: Handle::Sealed(found.packets_path()),
        prologue: prologue(&metas),
        span,
        tasks: wanted.map(|(numbered, _)| task(numbered)).collect(),
        choice: Choice::Index { rows_tested, rows_matched, looked_up },
        frames: len64(metas.iter().filter(|m| m.packets > 0).count()),
        stored_bytes: sidecar.summary().segment_len,
    })
}

fn prologue(metas: &[FrameMeta]) -> Prologue {
    match metas.first() {
        Some(first) => Prologue::Frame { offset: first.offset, stored_len: first.stored_len },
        None => Prologue::Walk,
    }
}

fn task((number, meta): (usize, &FrameMeta)) -> Task {
    Task {
        segment: 0,
        piece: Piece::Frame { offset: meta.offset, stored_len: meta.stored_len },
        t_min: meta.t_min,
        t_max: meta.t_max,
        packets: Some(meta.packets),
        first_arrival: meta.first_arrival,
        frame: u32::try_from(number).ok(),
    }
}

fn distrusted(
    found: &Found,
    error: &SidecarError,
    metas: Option<Vec<FrameMeta>>,
    range: &TimeRange,
) -> Option<PlannedSegment> {
    unindexed(found, &format!("its index cannot be believed: {error}"), metas, range)
}

/// Plans to read all of a segment, by its frames if the sidecar still tells them. `None` if it cannot
/// hold packets inside the range.
fn unindexed(
    found: &Found,
    why: &str,
    metas: Option<Vec<FrameMeta>>,
    range: &TimeRange,
) -> Option<PlannedSegment> {
    let from = match found.state {
        State::Sealed => found.name.t0,
        // Provisional in an open segment: an earlier packet may have come later.
        State::Open => found.hour.start().saturating_sub(HOUR_SLACK_NANOS),
    };
    let span = Span { from, to: found.hour.end().saturating_add(HOUR_SLACK_NANOS) };
    span.within(range)?;
    let path = found.packets_path();
    let metas = metas.unwrap_or_default();
    let inside = |(_, m): &(usize, &FrameMeta)| m.packets > 0 && range.overlaps(m.t_min, m.t_max);
    let tasks: Vec<Task> = metas.iter().enumerate().filter(inside).map(task).collect();
    Some(PlannedSegment {
        name: found.name.clone(),
        state: found.state,
        prologue: prologue(&metas),
        span,
        frames: len64(metas.iter().filter(|m| m.packets > 0).count()),
        stored_bytes: fs::metadata(&path).map_or(0, |m| m.len()),
        handle: Handle::Sealed(path),
        tasks,
        choice: Choice::Unindexed { why: why.to_owned() },
    })
}

fn open(found: &Found, expr: &Expr, range: &TimeRange) -> Result<Option<PlannedSegment>, Moved> {
    let path = found.packets_path();
    let moved = |e: io::Error| if e.kind() == ErrorKind::NotFound { Err(Moved) } else { Ok(e) };
    let file = match File::open(&path) {
        Ok(file) => file,
        Err(e) => {
            return moved(e).map(|e| unindexed(found, &format!("it cannot be opened: {e}"), None, range));
        }
    };
    let journal = match fs::read(found.index_path()) {
        Ok(journal) => journal,
        Err(e) => {
            let why = |e| format!("its journal cannot be read: {e}");
            return moved(e).map(|e| unindexed(found, &why(e), None, range));
        }
    };
    let replay = match Replay::read(&journal) {
        Ok(replay) => replay,
        // Just made: nothing is in it yet.
        Err(ReplayError::NoStart(Stop::End | Stop::Cut)) => return Ok(None),
        Err(e) => return Ok(unindexed(found, &e.to_string(), None, range)),
    };
    let pending = pending(&replay);
    let sidecar = replay.builder().finish(&found.name).map_err(|e| e.to_string());
    let sidecar = sidecar.and_then(|bytes| Sidecar::from_bytes(bytes).map_err(|e| e.to_string()));
    let sidecar = match sidecar {
        Ok(sidecar) => sidecar,
        Err(e) => return Ok(unindexed(found, &e, None, range)),
    };
    let recorded = sidecar.summary().times;
    let times = recorded.into_iter().chain(pending.iter().map(|t| (t.t_min, t.t_max)));
    let times = times.reduce(|(min, max), (a, b)| (min.min(a), max.max(b)));
    let torn = (replay.stop() == Stop::Damaged).then(|| torn(found, &replay, times.map(|(_, max)| max)));
    let times = match &torn {
        Some(task) => Some((times.map_or(task.t_min, |(min, _)| min), task.t_max)),
        None => times,
    };
    let Some((t_min, t_max)) = times.filter(|(min, max)| range.overlaps(*min, *max)) else {
        return Ok(None);
    };
    let span = Span::of_packets(t_min, t_max);
    let mut segment = match indexed(found, &sidecar, expr, range, span) {
        Ok(segment) => segment,
        Err(e) => return Ok(distrusted(found, &e, None, range)),
    };
    segment.prologue = Prologue::Known(Arc::new(replay.start().interface.clone()));
    segment.frames += len64(pending.len());
    let beyond = pending.into_iter().chain(torn);
    segment.tasks.extend(beyond.filter(|t| range.overlaps(t.t_min, t.t_max)));
    segment.handle = Handle::Open { path, file: Arc::new(file), replay: Arc::new(replay) };
    Ok(Some(segment))
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

/// The frames of an open segment that are not written yet, from its journal.
pub(crate) fn pending(replay: &Replay) -> Vec<Task> {
    let mut tasks = Vec::new();
    for (frame, blocks) in replay.open_blocks() {
        let mut walk = Blocks::new(blocks);
        let (mut packets, mut times) = (0u32, None);
        for block in walk.by_ref() {
            if let Ok((_, Block::Packet(packet))) = block {
                packets = packets.saturating_add(1);
                let (min, max) = times.unwrap_or((packet.ts, packet.ts));
                times = Some((packet.ts.min(min), packet.ts.max(max)));
            }
        }
        // Behind the last whole block there is nothing to believe.
        let whole = blocks.get(..walk.offset()).unwrap_or_default().to_vec();
        if let Some((t_min, t_max)) = times {
            let first_arrival = u64::from(frame).saturating_mul(ARRIVALS_PER_FRAME);
            let packets = Some(packets);
            tasks.push(Task {
                segment: 0,
                piece: Piece::Blocks(whole),
                t_min,
                t_max,
                packets,
                first_arrival,
                frame: Some(frame),
            });
        }
    }
    tasks
}

/// First and last time of everything in the stores. What the plan looked at is asked first.
pub(crate) fn life(stores: &[PathBuf], plan: &Plan) -> Result<Option<Span>, CatalogError> {
    let spans = || plan.segments.iter().map(|s| s.span);
    let seen_before = spans().any(|s| s.from <= plan.range.from);
    let seen_behind = plan.range.to.is_some_and(|to| spans().any(|s| s.to >= to));
    if let (true, true, Some(to)) = (seen_before, seen_behind, plan.range.to) {
        // The store reaches beyond the range on both sides; how far makes no difference.
        return Ok(Some(Span { from: plan.range.from, to }));
    }
    let all = catalog::all(stores)?.segments;
    let Some(last_hour) = all.iter().map(|f| f.hour).max() else { return Ok(None) };
    let from = all.iter().map(|f| f.name.t0).chain(spans().map(|s| s.from)).min().unwrap_or_default();
    // Packets up to two seconds into the next hour may lie in the hour before.
    let late = all.iter().filter(|f| f.hour.hours().saturating_add(1) >= last_hour.hours());
    let to = late.filter_map(last_time).chain(spans().map(|s| s.to)).max().unwrap_or(from);
    Ok(Some(Span { from, to: to.max(from) }))
}

/// The time behind the last packet of a segment, as far as it can be told without reading it.
fn last_time(found: &Found) -> Option<Timestamp> {
    let everything = TimeRange::ALL;
    match look(found, &Expr::All, &everything, false) {
        Look::Planned(segment) => Some(segment.span.to),
        Look::Outside | Look::Moved => None,
    }
}
