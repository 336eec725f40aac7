//! From stores to a plan: lists the segments of the asked hours, reads their sidecars and the journals of
//! open ones, and leaves out what time and index exclude. Reads no frame.
//!
//! A segment may be sealed or removed while we look: then everything is listed again.

use crate::filter::{Expr, Filter};
use crate::plan::{Choice, Plan, PlannedSegment, Prologue};
use crate::prune::{Pruned, prune};
use crate::range::{Span, TimeRange};
use crate::scan::{Piece, Task};
use crate::segment::{Handle, len64};
use crate::unsealed::{self, Edges};
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use tapedeck_index::catalog::{self, CatalogError, Found, HOUR_SLACK_NANOS, State};
use tapedeck_index::mapped;
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
    let mut plan = Plan { filter: filter.to_string(), range, ..Plan::default() };
    for left in (0..LISTINGS_MAX).rev() {
        let mut edges = Edges::read(stores);
        let listing = catalog::list(stores, range.from, range.to.unwrap_or(Timestamp::MAX))?;
        plan.segments.clear();
        plan.outside = 0;
        let mut moved = false;
        for found in &listing.segments {
            match look(found, filter.expr(), &range, left == 0, &mut edges) {
                Look::Planned(segment) => plan.segments.push(*segment),
                Look::Outside => plan.outside += 1,
                Look::Moved => moved = true,
            }
        }
        edges.apply(&mut plan);
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
fn look(found: &Found, expr: &Expr, range: &TimeRange, last: bool, edges: &mut Edges) -> Look {
    let planned = match found.state {
        State::Sealed => sealed(found, expr, range),
        State::Open => unsealed::look(found, expr, range, edges),
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
pub(crate) struct Moved;

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
pub(crate) fn indexed(
    found: &Found,
    sidecar: &Sidecar,
    expr: &Expr,
    range: &TimeRange,
    span: Span,
) -> Result<PlannedSegment, SidecarError> {
    let metas = sidecar.frames()?;
    let inside = |meta: &FrameMeta| meta.packets > 0 && range.overlaps(meta.t_min, meta.t_max);
    let pruned = if metas.iter().any(inside) { prune(sidecar, expr)? } else { Pruned::default() };
    let wanted = metas.iter().zip(&pruned.frames).filter(|(meta, wanted)| **wanted && inside(meta));
    let Pruned { rows_tested, rows_matched, looked_up, .. } = pruned;
    Ok(PlannedSegment {
        name: found.name.clone(),
        state: found.state,
        handle: Handle::Sealed(found.packets_path()),
        prologue: prologue(&metas),
        span,
        tasks: wanted.map(|(meta, _)| task(meta)).collect(),
        choice: Choice::Index { rows_tested, rows_matched, looked_up },
        frames: len64(metas.iter().filter(|m| m.packets > 0).count()),
        stored_bytes: sidecar.summary().segment_len,
        until: None,
    })
}

fn prologue(metas: &[FrameMeta]) -> Prologue {
    match metas.first() {
        Some(first) => Prologue::Frame { offset: first.offset, stored_len: first.stored_len },
        None => Prologue::Walk,
    }
}

pub(crate) fn task(meta: &FrameMeta) -> Task {
    Task {
        segment: 0,
        piece: Piece::Frame { offset: meta.offset, stored_len: meta.stored_len },
        t_min: meta.t_min,
        t_max: meta.t_max,
        packets: Some(meta.packets),
        first_arrival: meta.first_arrival,
    }
}

pub(crate) fn distrusted(
    found: &Found,
    error: &SidecarError,
    metas: Option<Vec<FrameMeta>>,
    range: &TimeRange,
) -> Option<PlannedSegment> {
    unindexed(found, &format!("its index cannot be believed: {error}"), metas, range)
}

/// Plans to read all of a segment, by its frames if the sidecar still tells them. `None` if it cannot
/// hold packets inside the range.
pub(crate) fn unindexed(
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
    let tasks: Vec<Task> =
        metas.iter().filter(|m| m.packets > 0 && range.overlaps(m.t_min, m.t_max)).map(task).collect();
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
        until: None,
    })
}

/// First and last time of everything in the stores. What the plan looked at is asked first.
fn life(stores: &[PathBuf], plan: &Plan) -> Result<Option<Span>, CatalogError> {
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
    match look(found, &Expr::All, &everything, false, &mut Edges::default()) {
        Look::Planned(segment) => Some(segment.span.to),
        Look::Outside | Look::Moved => None,
    }
}
