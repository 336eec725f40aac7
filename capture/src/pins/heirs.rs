//! The rows of the ledger that tell of a dead run: one of kind `crash` per queue, with what it had seen and has in
//! no row, and one of kind `down`, of the time until its successor listened.
//!
//! Pure arithmetic. Over the rows of the dead run, the `crash` row included, the sums are its settled books without
//! what passed after its death. Bytes that belong to both rows stay together in the first.

use super::RowNote;
use super::books::Settled;
use super::estate::Dead;
use super::note::{counts, named};
use crate::books::InterfaceBooks;
use crate::ledger::Dropped;
use std::collections::BTreeMap;
use tapedeck_index::table::ledger::{LedgerCounts, RowKind};
use tapedeck_packet::Timestamp;
use tapedeck_packet::time::NANOS_PER_SEC;

/// Rows that wait to be on disk, of the dead of one interface.
pub(super) const WAITING_MAX: usize = 144;

/// Who books it.
pub(crate) struct Heir<'a> {
    /// Run that listens now; of a dead run that is taken off, itself.
    pub(crate) run: &'a str,
    /// As it calls the interface; the dead may have known it by another name.
    pub(crate) interface: &'a str,
    pub(crate) mode: &'a str,
    pub(crate) now: Timestamp,
}

/// What tells a row from every other: the run that it tells of, and where that is not the dead one, the dead one too.
pub(super) fn uid(run: &str, interface: &str, queue: u32, kind: RowKind, dead: Option<&str>) -> String {
    let kind = kind.name();
    match dead {
        Some(dead) => format!("{run}-{interface}-{queue}-{kind}-{dead}"),
        None => format!("{run}-{interface}-{queue}-{kind}"),
    }
}

/// The rows of a queue, and the bytes of what was lost in the `down` row, where they are known.
pub(crate) fn rows(dead: &Dead, queue: u32, settled: &Settled, heir: &Heir<'_>) -> (Vec<RowNote>, u64) {
    let note = &dead.note;
    let booked = dead.rows.queues.get(&queue).copied().unwrap_or_default();
    let (crash, down) = split(settled, &booked.counts);
    let now = heir.now.nanos();
    let last = if booked.end_ns > 0 { booked.end_ns } else { note.start_ns };
    let row = |kind: RowKind, (run, interface, mode): (&str, &str, &str), span_ns, counts| RowNote {
        kind: kind.name().to_owned(),
        run: run.to_owned(),
        interface: interface.to_owned(),
        queue,
        mode: mode.to_owned(),
        span_ns,
        uid: uid(run, &note.interface, queue, kind, Some(&note.run)),
        counts: named(counts),
        number: None,
    };
    let mut rows = Vec::new();
    // Also where nothing came: it says up to when the queue was watched.
    if crash != LedgerCounts::default() || booked.end_ns > 0 {
        // It died within a second or so of its last note.
        let died = note.seen_ns.saturating_add(NANOS_PER_SEC).min(now);
        let span = (last, died.max(last.saturating_add(1)));
        rows.push(row(RowKind::Crash, (&note.run, &note.interface, &note.mode), span, &crash));
    }
    if down.seen > 0 {
        let from = note.seen_ns.max(last).min(now.saturating_sub(1));
        rows.push(row(RowKind::Down, (heir.run, heir.interface, heir.mode), (from, now), &down));
    }
    (rows, u64::try_from(down.seen_bytes).unwrap_or(0))
}

/// What the `crash` row and the `down` row say, from the books of the run and the sums over its rows.
fn split(settled: &Settled, booked: &LedgerCounts) -> (LedgerCounts, LedgerCounts) {
    let n = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    let down = n(settled.dropped.down);
    let lived = Dropped { down: 0, ..settled.dropped };
    let mut crash = LedgerCounts {
        seen: n(settled.seen) - down,
        seen_bytes: n(settled.bytes),
        filtered: n(settled.filtered),
        stored: n(settled.stored),
        ..lived.numbers()
    }
    .minus(booked);
    // Nobody has counted these in what has no row.
    (crash.stored_bytes, crash.cut_packets, crash.cut_bytes) = (0, 0, 0);
    let mut row = LedgerCounts { seen: down, down, ..LedgerCounts::default() };
    if crash.seen == 0 {
        (row.seen_bytes, crash.seen_bytes) = (crash.seen_bytes, 0);
    }
    (crash.settled(), row)
}

/// At most so many rows wait to be on disk: a note has room for them. Where recorders die so fast that there would be
/// more, those of one kind and queue become one, told of the run that died last.
pub(crate) fn few(rows: Vec<RowNote>) -> Vec<RowNote> {
    if rows.len() <= WAITING_MAX {
        return rows;
    }
    let mut few: BTreeMap<(String, String, u32), RowNote> = BTreeMap::new();
    for row in rows {
        let place = (row.kind.clone(), row.interface.clone(), row.queue);
        let row = match few.remove(&place) {
            Some(old) => RowNote {
                span_ns: (old.span_ns.0.min(row.span_ns.0), old.span_ns.1.max(row.span_ns.1)),
                counts: named(&counts(&old.counts).plus(&counts(&row.counts))),
                ..row
            },
            None => row,
        };
        few.insert(place, row);
    }
    few.into_values().collect()
}

/// What still passed while the slots were filled.
pub(crate) fn more_down(books: &mut InterfaceBooks, queue: u32, down: u64, run: u32, now: Timestamp) {
    let (kind, run) = (RowKind::Down.name(), format!("{run:08x}"));
    // One without a number is of a time in which nobody counted.
    let mine = |row: &&mut RowNote| {
        (row.kind.as_str(), row.queue, &row.run) == (kind, queue, &run) && !row.counts.is_empty()
    };
    if let Some(row) = books.inherited.iter_mut().find(mine) {
        row.span_ns.1 = now.nanos();
        for name in ["seen", "dropped_down"] {
            *row.counts.entry(name.to_owned()).or_default() += i64::try_from(down).unwrap_or(i64::MAX);
        }
        return;
    }
    let down = i64::try_from(down).unwrap_or(i64::MAX);
    let counts = LedgerCounts { seen: down, down, ..LedgerCounts::default() };
    books.inherited.push(RowNote {
        kind: kind.to_owned(),
        queue,
        mode: books.mode.name().to_owned(),
        span_ns: (now.nanos().saturating_sub(NANOS_PER_SEC), now.nanos()),
        uid: uid(&run, &books.interface, queue, RowKind::Down, None),
        interface: books.interface.clone(),
        run,
        counts: named(&counts),
        number: None,
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_and_crash_row_are_the_books_of_the_dead_and_down_is_apart() {
        let dropped = Dropped { ring_full: 5, crash: 20, down: 30, ..Dropped::default() };
        let settled = Settled { seen: 155, bytes: 15_500, filtered: 10, stored: 90, dropped };
        // Ten are pending in a live row: they turned out to be stored.
        let booked = LedgerCounts {
            seen: 100,
            seen_bytes: 10_000,
            filtered: 10,
            stored: 75,
            stored_bytes: 7_000,
            pending: 10,
            ring_full: 5,
            ..LedgerCounts::default()
        };
        let (crash, down) = split(&settled, &booked);
        let told = [crash.seen, crash.stored, crash.pending, crash.crash, crash.ring_full, crash.unaccounted];
        assert_eq!(told, [25, 15, -10, 20, 0, 0]);
        assert_eq!((down.seen, down.down, down.settled().unaccounted), (30, 30, 0));
        assert_eq!((crash.seen_bytes, down.seen_bytes), (5_500, 0), "nobody knows them apart");
        let sum = booked.plus(&crash);
        assert_eq!((sum.pending, sum.seen, sum.stored, sum.settled().unaccounted), (0, 125, 90, 0));
        // Where only `down` has no row, its bytes are known.
        let (crash, down) = split(&settled, &LedgerCounts { seen: 125, ..booked });
        assert_eq!((crash.seen_bytes, down.seen_bytes), (0, 5_500));
    }

    #[test]
    fn rows_that_wait_too_many_become_one_of_each_kind_and_queue_with_the_same_sums() {
        let row = |at: u64, kind: RowKind, queue: u32, seen: i64| RowNote {
            kind: kind.name().to_owned(),
            run: format!("{at:08x}"),
            queue,
            span_ns: (at, at + 10),
            counts: named(&LedgerCounts { seen, down: seen, ..LedgerCounts::default() }),
            ..RowNote::default()
        };
        let kinds = [RowKind::Crash, RowKind::Down];
        let deaths = |count: u64| {
            let all = (0..count).flat_map(|at| kinds.map(|kind| row(at, kind, 1, 3)));
            all.collect::<Vec<_>>()
        };
        let most = deaths(WAITING_MAX as u64 / 2);
        assert_eq!(few(most.clone()), most);
        let many = deaths(WAITING_MAX as u64);
        let last = WAITING_MAX as u64 - 1;
        let expected = kinds.map(|kind| RowNote {
            span_ns: (0, last + 10),
            ..row(last, kind, 1, 3 * (last + 1).cast_signed())
        });
        assert_eq!(few(many), expected);
    }
}
