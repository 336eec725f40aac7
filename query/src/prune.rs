//! From a filter and the rows of a segment to the frames that can hold a match. Pure; reads no frame.
//!
//! A sidecar has its rows in an order that finds them. The rows of an open segment are in the order in which they
//! came, and only those of the frames inside the range are tested: sorting all of them for each question would
//! cost the recorder beside us more than the answer is worth.
//!
//! Parts of the expression without `inner` are tested jointly on each row: `host A and port 443` needs one
//! flow that has both. A row stands for one layer, so what mixes layers (`inner (..)` beside other
//! terms) is combined on frames: `and` = in both sets, `or` = in either, `not` around an `inner` = any
//! frame. Rows are never excluded unless no packet of theirs can match: a wrong "not here" is lost evidence.

use crate::filter::{Atom, Expr, Prefix, Tri};
use crate::rowfacts::RowFacts;
use std::net::IpAddr;
use tapedeck_index::rows::{A_TO_B, B_TO_A, Row, Subject};
use tapedeck_index::sidecar::{Property, Sidecar, SidecarBuilder, SidecarError};
use tapedeck_packet::FlowKey;

/// The frames of a segment that can hold a match, and how they were found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    /// By frame number.
    pub frames: Vec<bool>,
    /// Rows that were tested.
    pub rows_tested: u64,
    /// Rows that can match.
    pub rows_matched: u64,
    /// The terms whose rows were looked up; empty when all rows were tested, of an open segment those inside the range.
    pub looked_up: Vec<String>,
}

/// Which layers of a packet an expression is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Scope {
    /// The outermost.
    Outer,
    /// Any one of them.
    Any,
}

/// The frames of `sidecar` that can hold a match of `expr`.
///
/// # Errors
/// [`SidecarError`]: the sidecar cannot be believed, every frame must be read.
pub fn prune(sidecar: &Sidecar, expr: &Expr) -> Result<Pruned, SidecarError> {
    let count = usize::try_from(sidecar.summary().frames).unwrap_or(usize::MAX);
    Pruner::of(Rows::Sorted(sidecar), count, expr)
}

/// The frames of an open segment that can hold a match of `expr`, among those that are `inside`, by their number.
///
/// # Errors
/// None so far: no sidecar is read that could be damaged.
pub fn prune_open(open: &SidecarBuilder, inside: &[bool], expr: &Expr) -> Result<Pruned, SidecarError> {
    Pruner::of(Rows::AsTheyCame { open, inside }, inside.len(), expr)
}

/// The rows of a segment.
#[derive(Clone, Copy)]
enum Rows<'a> {
    Sorted(&'a Sidecar),
    AsTheyCame { open: &'a SidecarBuilder, inside: &'a [bool] },
}

struct Pruner<'a> {
    rows: Rows<'a>,
    /// Frames of the segment.
    count: usize,
    rows_tested: u64,
    rows_matched: u64,
    looked_up: Vec<String>,
}

impl<'a> Pruner<'a> {
    fn of(rows: Rows<'a>, count: usize, expr: &Expr) -> Result<Pruned, SidecarError> {
        let mut pruner = Self { rows, count, rows_tested: 0, rows_matched: 0, looked_up: Vec::new() };
        let frames = pruner.frames(expr, Scope::Outer)?;
        let Self { rows_tested, rows_matched, looked_up, .. } = pruner;
        Ok(Pruned { frames, rows_tested, rows_matched, looked_up })
    }

    fn frames(&mut self, expr: &Expr, scope: Scope) -> Result<Vec<bool>, SidecarError> {
        match expr {
            Expr::All => Ok(vec![true; self.count]),
            _ if !has_inner(expr) => self.by_rows(expr, scope),
            Expr::Inner(inside) => self.frames(inside, Scope::Any),
            Expr::And(all) => self.intersection(all, scope),
            Expr::Or(any) => {
                let mut frames = vec![false; self.count];
                for part in any {
                    let more = self.frames(part, scope)?;
                    frames.iter_mut().zip(more).for_each(|(f, m)| *f |= m);
                }
                Ok(frames)
            }
            Expr::Not(_) | Expr::Atom(_) | Expr::Session(_) => Ok(vec![true; self.count]),
        }
    }

    /// The parts without `inner` are about one layer, so they are tested together.
    fn intersection(&mut self, all: &[Expr], scope: Scope) -> Result<Vec<bool>, SidecarError> {
        let (mixed, plain): (Vec<&Expr>, Vec<&Expr>) = all.iter().partition(|e| has_inner(e));
        let mut frames = match plain.as_slice() {
            [] => vec![true; self.count],
            [one] => self.by_rows(one, scope)?,
            many => self.by_rows(&Expr::And(many.iter().map(|e| (*e).clone()).collect()), scope)?,
        };
        for part in mixed {
            let more = self.frames(part, scope)?;
            frames.iter_mut().zip(more).for_each(|(f, m)| *f &= m);
        }
        Ok(frames)
    }

    /// Frames of the rows that can match an expression without `inner`.
    fn by_rows(&mut self, expr: &Expr, scope: Scope) -> Result<Vec<bool>, SidecarError> {
        match self.rows {
            Rows::Sorted(sidecar) => self.by_sorted(sidecar, expr, scope),
            Rows::AsTheyCame { open, inside } => Ok(self.by_frames(open, inside, expr, scope)),
        }
    }

    fn by_sorted(&mut self, sidecar: &Sidecar, expr: &Expr, scope: Scope) -> Result<Vec<bool>, SidecarError> {
        let mut frames = vec![false; self.count];
        let mut test = |number: u32| -> Result<(), SidecarError> {
            let (row, directions) = sidecar.row(number)?;
            if !self.matches(&row, directions, expr, scope) {
                return Ok(());
            }
            for frame in sidecar.frames_of(number)? {
                let frame = usize::try_from(frame?).unwrap_or(usize::MAX);
                if let Some(slot) = frames.get_mut(frame) {
                    *slot = true;
                }
            }
            Ok(())
        };
        match lookup(sidecar, expr)? {
            Some(found) => {
                let mut rows = found.rows;
                rows.extend(sidecar.always_rows()?);
                rows.sort_unstable();
                rows.dedup();
                rows.into_iter().try_for_each(&mut test)?;
                self.looked_up.push(found.term);
            }
            None => (0..sidecar.summary().rows).try_for_each(&mut test)?,
        }
        Ok(frames)
    }

    /// Each row is tested once, however many frames name it.
    fn by_frames(&mut self, open: &SidecarBuilder, inside: &[bool], expr: &Expr, scope: Scope) -> Vec<bool> {
        let mut known = vec![None; usize::try_from(open.row_count()).unwrap_or(usize::MAX)];
        let mut matches = |id: &u32| {
            // A row that cannot be had excludes nothing.
            let mut test =
                || open.row_seen(*id).is_none_or(|(row, seen)| self.matches(&row, seen, expr, scope));
            match usize::try_from(*id).ok().and_then(|id| known.get_mut(id)) {
                Some(slot) => *slot.get_or_insert_with(test),
                None => test(),
            }
        };
        // Also behind the first hit: what is said of the rows is of all of them.
        let mut hit = |frame| open.rows_of(frame).iter().fold(false, |hit, id| matches(id) | hit);
        inside.iter().enumerate().map(|(frame, inside)| *inside && hit(frame)).collect()
    }

    fn matches(&mut self, row: &Row, directions: u8, expr: &Expr, scope: Scope) -> bool {
        self.rows_tested += 1;
        let matches = can_match(row, directions, expr, scope);
        self.rows_matched += u64::from(matches);
        matches
    }
}

/// Can a layer of this row match `expr`, which holds no `inner`?
fn can_match(row: &Row, directions: u8, expr: &Expr, scope: Scope) -> bool {
    if row.subject == Subject::Coarse {
        return true;
    }
    if row.inner && scope == Scope::Outer {
        return false;
    }
    [A_TO_B, B_TO_A]
        .into_iter()
        .filter(|bit| directions & bit != 0)
        .any(|bit| expr.eval(&RowFacts::new(row, bit == A_TO_B)) != Tri::No)
}

fn has_inner(expr: &Expr) -> bool {
    match expr {
        Expr::Inner(_) => true,
        Expr::Not(inside) => has_inner(inside),
        Expr::And(parts) | Expr::Or(parts) => parts.iter().any(has_inner),
        Expr::All | Expr::Atom(_) | Expr::Session(_) => false,
    }
}

/// Rows found by a key of the sidecar.
struct Found {
    rows: Vec<u32>,
    term: String,
}

/// All rows (but the always-rows) that can match `expr`, if a key of the sidecar finds them.
fn lookup(sidecar: &Sidecar, expr: &Expr) -> Result<Option<Found>, SidecarError> {
    match expr {
        Expr::Atom(atom) => match lookup_atom(sidecar, atom) {
            Some(rows) => Ok(Some(Found { rows: rows?, term: atom.to_string() })),
            None => Ok(None),
        },
        // Any one of the terms excludes all other rows; the most selective kind of term does it best.
        Expr::And(all) => match all.iter().filter_map(|e| Some((rank(e)?, e))).min_by_key(|(r, _)| *r) {
            Some((_, best)) => lookup(sidecar, best),
            None => Ok(None),
        },
        Expr::Or(any) if rank(expr).is_some() => {
            let (mut rows, mut terms) = (Vec::new(), Vec::new());
            for part in any {
                let Some(found) = lookup(sidecar, part)? else { return Ok(None) };
                rows.extend(found.rows);
                terms.push(found.term);
            }
            Ok(Some(Found { rows, term: terms.join(" or ") }))
        }
        Expr::Or(_) | Expr::Not(_) | Expr::All | Expr::Inner(_) | Expr::Session(_) => Ok(None),
    }
}

/// How well a lookup of `expr` excludes rows, 0 best; `None` if there is none.
pub(crate) fn rank(expr: &Expr) -> Option<u8> {
    match expr {
        Expr::Atom(atom) => match atom {
            Atom::CommunityId(_) | Atom::Flow { .. } => Some(0),
            Atom::Addr { net, .. } if net.is_host() => Some(1),
            Atom::Pppoe(Some(_)) | Atom::Mpls(Some(_)) => Some(2),
            Atom::Port { range: (first, last), .. } if first == last => Some(3),
            Atom::Vlan(Some(_)) => Some(4),
            Atom::Addr { .. } => Some(5),
            Atom::Port { .. } => Some(6),
            _ => None,
        },
        Expr::And(all) => all.iter().filter_map(rank).min(),
        // Only as good as its worst part.
        Expr::Or(any) => any.iter().map(rank).try_fold(0, |worst, r| Some(worst.max(r?))),
        Expr::All | Expr::Not(_) | Expr::Inner(_) | Expr::Session(_) => None,
    }
}

fn lookup_atom(sidecar: &Sidecar, atom: &Atom) -> Option<Result<Vec<u32>, SidecarError>> {
    let with = |property, value: u32| sidecar.rows_with(property, value..=value);
    Some(match *atom {
        Atom::CommunityId(id) => sidecar.rows_of_community(id),
        Atom::Flow { a, b, proto } => sidecar.rows_of_flow(&FlowKey::new(a, b, proto, false).0, true),
        Atom::Addr { net, .. } => sidecar.rows_of_net(net.addr()..=last_of(net)),
        Atom::Port { range: (first, last), .. } => {
            sidecar.rows_with(Property::Port, u32::from(first)..=u32::from(last))
        }
        Atom::Vlan(Some(id)) => with(Property::Vlan, u32::from(id)),
        Atom::Mpls(Some(label)) => with(Property::Label, label),
        Atom::Pppoe(Some(session)) => with(Property::Pppoe, u32::from(session)),
        _ => return None,
    })
}

/// Last address of a network.
fn last_of(net: Prefix) -> IpAddr {
    match net.addr() {
        IpAddr::V4(first) => {
            let host_bits = u32::MAX.checked_shr(u32::from(net.bits())).unwrap_or(0);
            IpAddr::V4((u32::from(first) | host_bits).into())
        }
        IpAddr::V6(first) => {
            let host_bits = u128::MAX.checked_shr(u32::from(net.bits())).unwrap_or(0);
            IpAddr::V6((u128::from(first) | host_bits).into())
        }
    }
}
