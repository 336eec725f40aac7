//! From stores to a plan: lists the segments of the asked hours, asks packs where there are many, reads the sidecars
//! of what is left and the journals of open ones, and leaves out what time and index exclude. Reads no frame.
//!
//! A segment may be sealed or removed while we look: then everything is listed again.

use crate::filter::{Expr, Filter};
use crate::lost::{self, Told, possible, whole};
use crate::packs::{self, Folder, Packs};
use crate::plan::{Choice, Excluded, Packed, Plan, PlannedSegment, Prologue};
use crate::pool::ordered;
use crate::prune::{Pruned, prune};
use crate::range::{Span, TimeRange};
use crate::scan::{Piece, Task};
use crate::segment::{Handle, len64};
use crate::unsealed::{self, Edges};
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use std::sync::Arc;
use tapedeck_index::catalog::{self, CatalogError, Found, Listing, State};
use tapedeck_index::mapped;
use tapedeck_index::sidecar::{FrameMeta, Sidecar, SidecarError};
use tapedeck_packet::Timestamp;

/// How often the store is listed again because a segment moved.
const LISTINGS_MAX: u32 = 5;
/// Segments that a reader looks at in one go, at most: fewer where there are few, so that every reader has some.
const SHARE: usize = 128;

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
    let mut packs: Option<Packs> = None;
    let mut listing = Listing::default();
    for left in (0..LISTINGS_MAX).rev() {
        let mut edges = Edges::read(stores);
        listing = catalog::list(stores, range.from, range.to.unwrap_or(Timestamp::MAX))?;
        plan.segments.clear();
        let question = Question { expr: filter.expr(), range: &range, last: left == 0 };
        let there: Vec<&Found> = listing.segments.iter().filter(|found| wanted(found)).collect();
        let (sealed, open): (Vec<&Found>, Vec<&Found>) =
            there.into_iter().partition(|found| found.state == State::Sealed);
        if packs.is_none() {
            packs = Some(Packs::ask(stores, filter.expr(), &range, sealed.len()));
        }
        let mut looks = look_sealed(&sealed, &question, packs.get_or_insert_default());
        looks.extend(open.into_iter().map(|found| question.look_open(found, &mut edges)));
        let missing = listing.missing.iter().filter(|found| wanted(found));
        looks.extend(missing.map(|found| looked(lost::missing(found, &range))));
        let moved = take(&mut plan, looks);
        edges.apply(&mut plan);
        if !moved {
            break;
        }
    }
    let Packs { asked, troubles, .. } = packs.unwrap_or_default();
    plan.packed.packs = asked;
    plan.packed.troubles = troubles;
    plan.segments.sort_by(|x, y| {
        let key = |s: &PlannedSegment| (s.name.t0, s.name.queue, s.name.run, s.name.seq);
        (key(x), &x.name.interface).cmp(&(key(y), &y.name.interface))
    });
    // What was listed and looked at already need not be again.
    let all = range == TimeRange::ALL && listing.segments.iter().chain(&listing.missing).all(wanted);
    plan.life = if all { life_of(&listing, &plan, true) } else { life(stores, &plan)? };
    Ok(plan)
}

/// Puts what was seen into the plan; whether some of it has moved.
fn take(plan: &mut Plan, looks: Vec<Look>) -> bool {
    let mut moved = false;
    plan.outside = 0;
    plan.packed = Packed::default();
    for look in looks {
        match look {
            Look::Planned(segment) => plan.segments.push(*segment),
            Look::Excluded { segment, frames, stored_bytes } => {
                plan.packed.excluded.push(segment);
                plan.packed.frames += frames;
                plan.packed.stored_bytes += stored_bytes;
            }
            Look::Outside => plan.outside += 1,
            Look::Moved | Look::Disagrees { .. } => moved = true,
        }
    }
    moved
}

/// What became of a listed segment.
enum Look {
    Planned(Box<PlannedSegment>),
    /// A pack says that no packet of it can match.
    Excluded {
        segment: Excluded,
        frames: u64,
        stored_bytes: u64,
    },
    /// No packet of it is inside the range.
    Outside,
    /// It is not there any more, under this name.
    Moved,
    /// Its sidecar is not the one that this pack was made from.
    Disagrees {
        pack: usize,
    },
}

/// What is asked of each segment; the `last` time around nothing is `Moved`.
struct Question<'a> {
    expr: &'a Expr,
    range: &'a TimeRange,
    last: bool,
}

impl Question<'_> {
    fn look_sealed(&self, found: &Found, packs: &Packs, folder: &mut Folder) -> Look {
        let told = packs.of(found, folder);
        if let Some(told) = told {
            if told.span.within(self.range).is_none() {
                return Look::Outside;
            }
            if told.excluded {
                let segment = Excluded { name: found.name.clone(), span: told.span };
                return Look::Excluded { segment, frames: told.frames, stored_bytes: told.segment_len };
            }
        }
        let mut fingerprint = None;
        let planned = sealed(found, self.expr, self.range, &mut fingerprint);
        match (told, fingerprint) {
            (Some(told), Some(seen)) if told.fingerprint != seen => Look::Disagrees { pack: told.pack },
            _ => self.end(found, planned),
        }
    }

    fn look_open(&self, found: &Found, edges: &mut Edges) -> Look {
        self.end(found, unsealed::look(found, self.expr, self.range, edges))
    }

    fn end(&self, found: &Found, planned: Result<Option<PlannedSegment>, Moved>) -> Look {
        match planned {
            // The answer will find that it is gone, and say so.
            Err(Moved) if self.last => {
                looked(Ok(unindexed(found, "it has no index", Told::default(), self.range)))
            }
            planned => looked(planned),
        }
    }
}

/// Looks at sealed segments, many at a time where there are many. A pack that disagrees with a sidecar excludes
/// nothing.
fn look_sealed(sealed: &[&Found], question: &Question<'_>, packs: &mut Packs) -> Vec<Look> {
    loop {
        let known: &Packs = packs;
        let share = (sealed.len() / (4 * packs::READERS)).clamp(1, SHARE);
        let shares: Vec<&[&Found]> = sealed.chunks(share).collect();
        let look = |folder: &mut Folder, share: &&[&Found]| -> Vec<Look> {
            share.iter().map(|found| question.look_sealed(found, known, folder)).collect()
        };
        let looks: Vec<Look> = std::thread::scope(|scope| {
            let readers = packs::READERS.min(shares.len());
            let looks = ordered(scope, readers, &shares, Folder::default, look);
            looks.take(shares.len()).flatten().collect()
        });
        let disagreeing = looks.iter().zip(sealed).filter_map(|(look, found)| match look {
            Look::Disagrees { pack } => Some((*pack, &found.name)),
            _ => None,
        });
        let disagreeing: Vec<_> = disagreeing.collect();
        if disagreeing.is_empty() {
            return looks;
        }
        disagreeing.into_iter().for_each(|(pack, name)| packs.distrust(pack, name));
    }
}

fn looked(planned: Result<Option<PlannedSegment>, Moved>) -> Look {
    match planned {
        Ok(Some(segment)) => Look::Planned(Box::new(segment)),
        Ok(None) => Look::Outside,
        Err(Moved) => Look::Moved,
    }
}

/// The segment is not where the listing saw it.
pub(crate) struct Moved;

/// Plans a sealed segment; `fingerprint` is that of its sidecar, if that can be read.
fn sealed(
    found: &Found,
    expr: &Expr,
    range: &TimeRange,
    fingerprint: &mut Option<u64>,
) -> Result<Option<PlannedSegment>, Moved> {
    let path = found.packets_path();
    let sidecar = match mapped::open(&found.index_path()) {
        Ok(sidecar) => sidecar,
        Err(mapped::OpenError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return match fs::metadata(&path) {
                Err(e) if e.kind() == ErrorKind::NotFound => Err(Moved),
                _ => Ok(unindexed(found, "it has no index", Told::default(), range)),
            };
        }
        Err(mapped::OpenError::Io { source, .. }) => {
            let why = format!("its index cannot be opened: {source}");
            return Ok(unindexed(found, &why, Told::default(), range));
        }
        Err(mapped::OpenError::Sidecar { source, .. }) => {
            return Ok(distrusted(found, &source, Told::default(), range));
        }
    };
    if !lost::belongs(&sidecar, found) {
        return Ok(unindexed(found, "its index belongs to another segment", Told::default(), range));
    }
    *fingerprint = Some(sidecar.fingerprint());
    let summary = sidecar.summary();
    let Some((t_min, t_max)) = summary.times.filter(|(min, max)| range.overlaps(*min, *max)) else {
        return Ok(None);
    };
    let len = match fs::metadata(&path) {
        Ok(metadata) => metadata.len(),
        Err(e) if e.kind() == ErrorKind::NotFound => return Err(Moved),
        // Whoever has to read it will say why that cannot be.
        Err(_) => summary.segment_len,
    };
    let span = Span::of_packets(t_min, t_max);
    let mut segment = match indexed(found, &sidecar, expr, range, span) {
        Ok(segment) => segment,
        Err(error) => match distrusted(found, &error, Told::by(&sidecar), range) {
            Some(segment) => segment,
            None => return Ok(None),
        },
    };
    if len < summary.segment_len {
        lost::cut_off(&mut segment, &Told::by(&sidecar).metas, len, summary.segment_len, range);
    } else if !segment.is_walked() {
        segment.tasks.extend(lost::unknown_end(found, len, summary.segment_len));
    }
    Ok(Some(segment))
}

/// What an index tells of a segment, besides its rows.
pub(crate) struct Indexed<'a> {
    pub(crate) metas: &'a [FrameMeta],
    pub(crate) prologue: Prologue,
    pub(crate) stored_bytes: u64,
    /// Times of the packets.
    pub(crate) span: Span,
}

impl Indexed<'_> {
    /// Plans the segment as a sealed one. `prune` gets which frames have packets inside the range.
    ///
    /// # Errors
    /// Those of `prune`.
    pub(crate) fn plan(
        self,
        found: &Found,
        range: &TimeRange,
        prune: impl FnOnce(&[bool]) -> Result<Pruned, SidecarError>,
    ) -> Result<PlannedSegment, SidecarError> {
        let Self { metas, prologue, stored_bytes, span } = self;
        let within = |meta: &FrameMeta| meta.packets > 0 && range.overlaps(meta.t_min, meta.t_max);
        let inside: Vec<bool> = metas.iter().map(within).collect();
        let pruned = if inside.contains(&true) { prune(&inside)? } else { Pruned::default() };
        let Pruned { frames, rows_tested, rows_matched, looked_up } = pruned;
        let wanted = metas.iter().enumerate().zip(inside.iter().zip(&frames));
        let wanted = wanted.filter(|(_, (inside, wanted))| **inside && **wanted);
        Ok(PlannedSegment {
            name: found.name.clone(),
            state: found.state,
            handle: Handle::Sealed(found.packets_path()),
            prologue,
            span,
            tasks: wanted.map(|(numbered, _)| task(numbered)).collect(),
            choice: Choice::Index { rows_tested, rows_matched, looked_up },
            frames: len64(metas.iter().filter(|meta| meta.packets > 0).count()),
            stored_bytes,
            until: None,
        })
    }
}

/// Plans a segment by its sidecar.
fn indexed(
    found: &Found,
    sidecar: &Sidecar,
    expr: &Expr,
    range: &TimeRange,
    span: Span,
) -> Result<PlannedSegment, SidecarError> {
    let metas = sidecar.frames()?;
    let interface = sidecar.head()?.map(|head| Arc::new(head.interface));
    let prologue = interface.map_or(Prologue::FirstFrame, Prologue::Known);
    let stored_bytes = sidecar.summary().segment_len;
    Indexed { metas: &metas, prologue, stored_bytes, span }.plan(found, range, |_| prune(sidecar, expr))
}

pub(crate) fn task((number, meta): (usize, &FrameMeta)) -> Task {
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

pub(crate) fn distrusted(
    found: &Found,
    error: &SidecarError,
    told: Told,
    range: &TimeRange,
) -> Option<PlannedSegment> {
    unindexed(found, &format!("its index cannot be believed: {error}"), told, range)
}

/// Plans to read all of a segment, by its frames if the sidecar still tells them. `None` if it cannot
/// hold packets inside the range.
pub(crate) fn unindexed(found: &Found, why: &str, told: Told, range: &TimeRange) -> Option<PlannedSegment> {
    let span = possible(found);
    span.within(range)?;
    let path = found.packets_path();
    let (prologue, metas) = (told.prologue(), told.metas);
    let tasks = match metas.as_slice() {
        [] => vec![whole(span)],
        metas => {
            let inside = |(_, m): &(usize, &FrameMeta)| m.packets > 0 && range.overlaps(m.t_min, m.t_max);
            metas.iter().enumerate().filter(inside).map(task).collect()
        }
    };
    Some(PlannedSegment {
        name: found.name.clone(),
        state: found.state,
        prologue,
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
pub(crate) fn life(stores: &[PathBuf], plan: &Plan) -> Result<Option<Span>, CatalogError> {
    let seen_before = plan.spans().any(|s| s.from <= plan.range.from);
    let seen_behind = plan.range.to.is_some_and(|to| plan.spans().any(|s| s.to >= to));
    if let (true, true, Some(to)) = (seen_before, seen_behind, plan.range.to) {
        // The store reaches beyond the range on both sides; how far makes no difference.
        return Ok(Some(Span { from: plan.range.from, to }));
    }
    Ok(life_of(&catalog::all(stores)?, plan, false))
}

/// First and last time of everything listed. If the plan has `seen` all of it, nothing is looked at again.
fn life_of(listing: &Listing, plan: &Plan, seen: bool) -> Option<Span> {
    let all = || listing.segments.iter().chain(&listing.missing);
    let last_hour = all().map(|f| f.hour).max()?;
    let spans = || plan.spans();
    let from = all().map(|f| f.name.t0).chain(spans().map(|s| s.from)).min().unwrap_or_default();
    let latest = spans().map(|s| s.to).max();
    // Packets up to two seconds into the next hour may lie in the hour before.
    let late = |f: &&Found| f.hour.hours().saturating_add(1) >= last_hour.hours();
    let late_ones = |list: &[Found]| -> Vec<Found> {
        if seen { Vec::new() } else { list.iter().filter(late).cloned().collect() }
    };
    let (there, missing) = (late_ones(&listing.segments), late_ones(&listing.missing));
    let question = Question { expr: &Expr::All, range: &TimeRange::ALL, last: false };
    let packs = Packs::default();
    let looks = there.iter().map(|found| match found.state {
        State::Sealed => question.look_sealed(found, &packs, &mut Folder::default()),
        State::Open => question.look_open(found, &mut Edges::default()),
    });
    let looks = looks.chain(missing.iter().map(|found| looked(lost::missing(found, &TimeRange::ALL))));
    let last_time = |look| match look {
        Look::Planned(segment) => Some(segment.span.to),
        Look::Excluded { segment, .. } => Some(segment.span.to),
        Look::Outside | Look::Moved | Look::Disagrees { .. } => None,
    };
    let to = looks.filter_map(last_time).chain(latest).max().unwrap_or(from);
    Some(Span { from, to: to.max(from) })
}
