//! What a plan knows to be lost before anything is read: segments of which only the index is left, and
//! segments shorter or longer than their index says. And what can still be believed of a damaged index.

use crate::gather::Moved;
use crate::plan::{Choice, PlannedSegment, Prologue};
use crate::range::{Span, TimeRange};
use crate::scan::{Piece, Task};
use crate::segment::Handle;
use std::io::ErrorKind;
use std::sync::Arc;
use tapedeck_index::catalog::{Found, HOUR_SLACK_NANOS, State};
use tapedeck_index::mapped;
use tapedeck_index::pcapng::InterfaceInfo;
use tapedeck_index::sidecar::{FrameMeta, Head, Sidecar};
use tapedeck_packet::LinkType;

/// A segment of which only the index is left; `None` if none of its packets can be inside the range.
pub(crate) fn missing(found: &Found, range: &TimeRange) -> Result<Option<PlannedSegment>, Moved> {
    let sidecar = match mapped::open(&found.index_path()) {
        Err(mapped::OpenError::Io { source, .. }) if source.kind() == ErrorKind::NotFound => {
            return Err(Moved);
        }
        other => other.ok().filter(|sidecar| belongs(sidecar, found)),
    };
    let summary = sidecar.as_ref().map(Sidecar::summary);
    let span = match summary.map(|summary| summary.times) {
        Some(Some((t_min, t_max))) => Span::of_packets(t_min, t_max),
        // It held no packet, so none is missing.
        Some(None) => return Ok(None),
        None => possible(found),
    };
    if span.within(range).is_none() {
        return Ok(None);
    }
    let piece = Piece::Missing { packets: summary.map(|summary| summary.packets) };
    let told = sidecar.and_then(|sidecar| Told::by(&sidecar).interface);
    // No packet is read, so only the name counts: for the order.
    let interface = told.unwrap_or_else(|| Arc::new(only_named(&found.name.interface)));
    Ok(Some(PlannedSegment {
        name: found.name.clone(),
        state: State::Sealed,
        handle: Handle::Sealed(found.packets_path()),
        prologue: Prologue::Known(interface),
        span,
        tasks: vec![Task { piece, ..whole(span) }],
        choice: Choice::Missing,
        frames: 0,
        stored_bytes: 0,
        until: None,
    }))
}

/// An interface of which nothing but the name is known.
fn only_named(name: &str) -> InterfaceInfo {
    InterfaceInfo::named(name, LinkType::NULL)
}

/// Is this the sidecar of that segment?
pub(crate) fn belongs(sidecar: &Sidecar, found: &Found) -> bool {
    let summary = sidecar.summary();
    (summary.run, summary.seq) == (found.name.run, found.name.seq)
}

/// Puts one piece in the place of all frames that end behind the file's `len` bytes: whatever the filter,
/// the answer is not whole without them. Where no packet was in them the loss is told with a count of 0.
pub(crate) fn cut_off(
    segment: &mut PlannedSegment,
    metas: &[FrameMeta],
    len: u64,
    expected: u64,
    range: &TimeRange,
) {
    if segment.is_walked() {
        let piece = Piece::CutOff { len, expected, packets: None };
        segment.tasks.push(Task { piece, ..whole(segment.span) });
        return;
    }
    let behind = |offset: u64, stored_len: u32| offset.saturating_add(u64::from(stored_len)) > len;
    segment.tasks.retain(|task| match task.piece {
        Piece::Frame { offset, stored_len } => !behind(offset, stored_len),
        _ => true,
    });
    let lost: Vec<&FrameMeta> =
        metas.iter().filter(|m| m.packets > 0 && behind(m.offset, m.stored_len)).collect();
    let last = segment.span.to.saturating_sub(1);
    let at_end = lost.is_empty().then_some((last, last));
    let lost: Vec<&FrameMeta> = lost.into_iter().filter(|m| range.overlaps(m.t_min, m.t_max)).collect();
    let times = lost.iter().map(|m| (m.t_min, m.t_max)).reduce(|x, y| (x.0.min(y.0), x.1.max(y.1)));
    let Some((t_min, t_max)) = times.or(at_end).filter(|(min, max)| range.overlaps(*min, *max)) else {
        return;
    };
    let packets = Some(lost.iter().map(|m| u64::from(m.packets)).sum());
    let first_arrival = lost.first().map_or(0, |m| m.first_arrival);
    let piece = Piece::CutOff { len, expected, packets };
    segment.tasks.push(Task { segment: 0, piece, t_min, t_max, packets: None, first_arrival, frame: None });
}

/// Bytes of the file behind the last frame that the index knows: no seal has written them.
pub(crate) fn unknown_end(found: &Found, len: u64, known: u64) -> Option<Task> {
    let more = len.checked_sub(known).filter(|more| *more > 0)?;
    let piece = Piece::Damage { offset: known, len: more };
    Some(Task { piece, first_arrival: u64::MAX, ..whole(possible(found)) })
}

/// What a sidecar tells that is not believed as a whole.
#[derive(Default)]
pub(crate) struct Told {
    /// Its frames.
    pub(crate) metas: Vec<FrameMeta>,
    /// Where the packets were taken.
    pub(crate) interface: Option<Arc<InterfaceInfo>>,
}

impl Told {
    /// What of `sidecar` can be believed.
    pub(crate) fn by(sidecar: &Sidecar) -> Self {
        let head = sidecar.head().ok().flatten();
        Self {
            metas: sidecar.frames().unwrap_or_default(),
            interface: head.map(|Head { interface, .. }| Arc::new(interface)),
        }
    }

    /// How the interface is found out.
    pub(crate) fn prologue(&self) -> Prologue {
        self.interface.clone().map_or(Prologue::FirstFrame, Prologue::Known)
    }
}

/// All that a segment may hold, as far as name and folder tell.
pub(crate) fn possible(found: &Found) -> Span {
    let from = match found.state {
        State::Sealed => found.name.t0,
        // Provisional in an open segment: an earlier packet may have come later.
        State::Open => found.hour.start().saturating_sub(HOUR_SLACK_NANOS),
    };
    Span { from, to: found.hour.end().saturating_add(HOUR_SLACK_NANOS) }
}

/// A task over all of a span; its piece is to be replaced.
pub(crate) fn whole(span: Span) -> Task {
    Task {
        segment: 0,
        piece: Piece::Walk,
        t_min: span.from,
        t_max: span.to.saturating_sub(1).max(span.from),
        packets: None,
        first_arrival: 0,
        frame: None,
    }
}
