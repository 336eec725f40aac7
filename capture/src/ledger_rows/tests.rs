//! Accounts fed by hand: each second balances, rows add up, and what is not known is not said.

use super::account::{Account, Draft, Facts, Origin};
use proptest::prelude::*;
use std::collections::BTreeMap;
use tapedeck_ebpf::{Counts as ProgramCounts, Spot};
use tapedeck_index::table::ledger::{LedgerCounts, RowKind};
use tapedeck_packet::Timestamp;
use tapedeck_writer::{Delta, Second, SecondBooks, Shift};

fn at(millis: u64) -> Timestamp {
    Timestamp::from_nanos_saturating(millis * 1_000_000)
}

fn delta(packets: i64) -> Delta {
    Delta { packets, bytes: packets * 60 }
}

/// Counts of the program by second: (second, packets, of these ring full). Each is in a slot of its own.
fn program(seconds: &[(u64, u64, u64)]) -> Option<(ProgramCounts, BTreeMap<Spot, ProgramCounts>)> {
    let counts = |packets, full| ProgramCounts {
        packets,
        bytes: packets * 60,
        refused: [full, 0, 0, 0, 0, 0],
        ..ProgramCounts::default()
    };
    let total = counts(seconds.iter().map(|s| s.1).sum(), seconds.iter().map(|s| s.2).sum());
    let spot = |second| Spot { second, cpu: 0, slot: u32::try_from(second % 64).unwrap() };
    let spots = seconds.iter().map(|(second, packets, full)| (spot(*second), counts(*packets, *full)));
    Some((total, spots.collect()))
}

/// What a chain booked: (second, appended, stored).
fn chain(seconds: &[(u64, i64, i64)]) -> SecondBooks {
    let second = |appended: i64, stored: i64| Second {
        appended: delta(appended),
        entered: delta(appended),
        stored: delta(stored),
        left: delta(stored),
        wire_bytes: appended * 60,
        ..Second::default()
    };
    let seconds = seconds.iter().map(|(at, appended, stored)| (*at, second(*appended, *stored)));
    SecondBooks { seconds: seconds.collect(), shifts: Vec::new() }
}

fn facts(now_ms: u64, seconds: &[(u64, u64, u64)], booked: &[(u64, i64, i64)]) -> Facts {
    Facts {
        now: at(now_ms),
        settled: at(now_ms - 100),
        program: program(seconds),
        chain: chain(booked),
        socket: (0, 0),
    }
}

/// Begin in ms, seen, stored, dropped, unaccounted.
fn brief(draft: &Draft) -> (u64, i64, i64, i64, i64) {
    let counts = &draft.counts;
    let dropped = counts.dropped().iter().map(|(_, packets)| packets).sum();
    (draft.ts.nanos() / 1_000_000, counts.seen, counts.stored, dropped, counts.unaccounted)
}

fn all(drafts: &[Draft]) -> Vec<(u64, i64, i64, i64, i64)> {
    drafts.iter().map(brief).collect()
}

#[test]
fn each_second_gets_one_row_once_it_is_settled_also_an_idle_one() {
    let mut account = Account::new(Origin::Program, true, at(100_500));
    let seen = [(100, 10, 2), (102, 5, 0), (103, 1, 0)];
    let drafts = account.look(facts(103_200, &seen, &[(100, 8, 8), (102, 5, 5), (103, 1, 1)]), None);
    assert_eq!(all(&drafts.rows), [(100_500, 10, 8, 2, 0), (101_000, 0, 0, 0, 0), (102_000, 5, 5, 0, 0)]);
    assert!(drafts.live.is_empty());
    // What was read once is not read twice; the second under way waits.
    let drafts = account.look(facts(103_900, &seen, &[]), None);
    assert!(drafts.rows.is_empty() && drafts.live.is_empty());
    // Closed at 104.25: the last row ends there.
    let last = Facts { settled: Timestamp::MAX, ..facts(104_300, &seen, &[]) };
    let drafts = account.look(last, Some(at(104_250)));
    assert_eq!(all(&drafts.rows), [(103_000, 1, 1, 0, 0), (104_000, 0, 0, 0, 0)]);
    assert_eq!(drafts.rows[1].ts_end, at(104_250));
    assert!(account.look(facts(106_000, &seen, &[]), Some(at(104_250))).rows.is_empty());
}

#[test]
fn what_is_under_way_is_pending_in_a_live_row_until_it_is_not() {
    let mut account = Account::new(Origin::Program, true, at(100_000));
    let seen = [(100, 10, 1)];
    // Nine were delivered, seven taken out of the ring, four of these stored.
    let drafts = account.look(facts(102_000, &seen, &[(100, 7, 4)]), None);
    assert!(drafts.rows.is_empty());
    let live = &drafts.live[0].counts;
    assert_eq!((live.seen, live.stored, live.ring_full, live.pending, live.unaccounted), (10, 4, 1, 5, 0));
    // Nothing new: not said again.
    assert!(account.look(facts(103_000, &seen, &[]), None).live.is_empty());
    let drafts = account.look(facts(104_000, &seen, &[(100, 2, 5)]), None);
    assert_eq!(all(&drafts.rows)[0], (100_000, 10, 9, 1, 0));
    assert_eq!(drafts.rows.len(), 4 - 1);
}

#[test]
fn a_packet_that_never_comes_is_unaccounted_and_not_pending_for_ever() {
    let mut account = Account::new(Origin::Program, true, at(100_000));
    let mut looks = 0;
    let row = loop {
        let drafts = account.look(facts(102_000 + looks * 1000, &[(100, 3, 0)], &chain_once(looks)), None);
        looks += 1;
        assert!(looks < 100);
        if let Some(row) = drafts.rows.first() {
            break row.clone();
        }
        assert_eq!(looks > 1, drafts.live.is_empty(), "look {looks}");
    };
    assert_eq!(brief(&row), (100_000, 3, 2, 0, 1));
}

/// Two packets at the first look.
fn chain_once(look: u64) -> Vec<(u64, i64, i64)> {
    if look == 0 { vec![(100, 2, 2)] } else { Vec::new() }
}

#[test]
fn a_second_in_two_slots_counts_in_both_and_one_that_is_used_again_takes_nothing_back() {
    let mut account = Account::new(Origin::Program, true, at(100_000));
    let counts = |packets| ProgramCounts { packets, ..ProgramCounts::default() };
    let look = |now_ms, total, slots: &[(u32, u64)], booked: i64| {
        let spot = |slot| Spot { second: 100, cpu: 0, slot };
        let spots = slots.iter().map(|(slot, packets)| (spot(*slot), counts(*packets))).collect();
        Facts { program: Some((counts(total), spots)), ..facts(now_ms, &[], &[(100, booked, booked)]) }
    };
    account.look(look(100_900, 3, &[(7, 3)], 3), None);
    // The clock was set back: the second is counted in another slot as well, and then its first one is taken.
    account.look(look(100_800, 5, &[(7, 3), (9, 2)], 2), None);
    account.look(look(100_950, 9, &[(9, 6)], 4), None);
    let drafts = account.look(look(103_000, 10, &[(9, 7)], 1), None);
    assert_eq!(all(&drafts.rows)[0], (100_000, 10, 10, 0, 0));
}

#[test]
fn what_comes_late_or_is_taken_back_is_a_further_row() {
    let mut account = Account::new(Origin::Program, true, at(100_000));
    account.look(facts(103_000, &[(100, 2, 0)], &[(100, 2, 2)]), None);
    // The clock went back by two seconds: the second goes on.
    let drafts = account.look(facts(101_500, &[(100, 5, 0)], &[(100, 3, 3)]), None);
    assert_eq!(all(&drafts.rows), [(100_000, 3, 3, 0, 0)]);
    assert_eq!(drafts.rows[0].kind, RowKind::Second);
    let mut lost = facts(104_000, &[(100, 5, 0)], &[]);
    let back = Second { stored: delta(-5), failed: delta(5), ..Second::default() };
    lost.chain.seconds.insert(100, back);
    lost.chain.shifts.push(Shift { seconds: (90, 99), stored: delta(-1) });
    let drafts = account.look(lost, None);
    let corrections: Vec<_> = drafts.rows.iter().filter(|row| row.kind == RowKind::Correction).collect();
    let brief: Vec<_> = corrections.iter().map(|row| brief(row)).collect();
    assert_eq!(brief, [(90_000, 0, -1, 1, 0), (100_000, 0, -5, 5, 0)]);
    assert_eq!(corrections[0].ts_end, at(100_000));
}

#[test]
fn seconds_that_were_never_there_or_never_seen_get_no_row() {
    let mut account = Account::new(Origin::Program, true, at(100_000));
    account.look(facts(101_900, &[], &[]), None);
    // A step of an hour.
    account.stepped(at(101_900), at(3_701_900));
    let drafts = account.look(facts(3_703_200, &[(3701, 1, 0)], &[(3701, 1, 1)]), None);
    let rows: Vec<u64> = drafts.rows.iter().map(|row| row.ts.nanos() / 1_000_000_000).collect();
    assert_eq!(rows, [101, 3701, 3702]);
    // So it is if the step comes before the first look.
    let mut fresh = Account::new(Origin::Program, true, at(100_000));
    fresh.stepped(at(100_900), at(946_000_000_900));
    let drafts = fresh.look(facts(946_000_001_200, &[], &[]), None);
    let rows: Vec<u64> = drafts.rows.iter().map(|row| row.ts.nanos() / 1_000_000_000).collect();
    assert_eq!(rows, [100, 946_000_000]);
    // The recorder was stopped for ten minutes: 59 of 100 packets were counted in slots that are used again.
    let (total, _) = program(&[(0, 100 + 1, 59)]).unwrap();
    let (_, slots) = program(&[(4302, 41, 0)]).unwrap();
    let mut late = facts(4_303_000, &[], &[(4302, 41, 41)]);
    late.program = Some((total, slots));
    let drafts = account.look(late, None);
    assert_eq!(drafts.rows[0].kind, RowKind::Correction);
    assert_eq!(brief(&drafts.rows[0]), (3_703_000, 59, 0, 59, 0));
    let seconds = drafts.rows.iter().filter(|row| row.kind == RowKind::Second);
    let first: Vec<u64> = seconds.map(|row| row.ts.nanos() / 1_000_000_000).take(2).collect();
    let seen_again = drafts.rows[0].ts_end.nanos() / 1_000_000_000;
    assert_eq!(first, [seen_again, seen_again + 1]);
}

#[test]
fn a_packet_socket_books_drops_where_they_were_noticed() {
    let mut account = Account::new(Origin::Socket, true, at(100_000));
    let socket = |now_ms, full, booked: &[(u64, i64, i64)]| Facts {
        program: None,
        socket: (full, 0),
        ..facts(now_ms, &[], booked)
    };
    account.look(socket(100_900, 0, &[]), None);
    account.look(socket(101_900, 7, &[(100, 4, 4), (101, 2, 2)]), None);
    let drafts = account.look(socket(103_100, 7, &[]), None);
    assert_eq!(all(&drafts.rows), [(101_000, 9, 2, 7, 0), (102_000, 0, 0, 0, 0)]);
}

#[test]
fn losses_without_a_second_are_given_to_those_that_lack_packets() {
    let mut account = Account::new(Origin::Program, true, at(100_000));
    let mut look = facts(102_000, &[(100, 10, 0)], &[(100, 6, 6)]);
    look.socket = (3, 1);
    let drafts = account.look(look, None);
    assert_eq!(all(&drafts.rows)[0], (100_000, 10, 6, 4, 0));
    let LedgerCounts { ring_full, fill_empty, .. } = drafts.rows[0].counts;
    assert_eq!((ring_full, fill_empty), (3, 1));
}

proptest! {
    /// Packets come, are lost, wait and are stored in any order of looks: rows balance, and add up.
    #[test]
    fn rows_add_up(steps in prop::collection::vec((0u64..2500, 0u64..50, 0u64..20, 0i64..60), 1..60)) {
        let mut account = Account::new(Origin::Program, true, at(100_000));
        let (mut now, mut counts) = (100_000, BTreeMap::<u64, (u64, u64)>::new());
        let mut sum = LedgerCounts::default();
        let mut pending: BTreeMap<u64, i64> = BTreeMap::new();
        let mut add = |drafts: Vec<Draft>| -> Result<(), TestCaseError> {
            for draft in drafts {
                prop_assert_eq!((draft.counts.unaccounted, draft.counts.pending), (0, 0), "{:?}", draft);
                sum = sum.plus(&draft.counts);
            }
            Ok(())
        };
        for (pass, packets, lost, store) in steps {
            now += pass;
            let (second, lost) = (now / 1000, lost.min(packets));
            let slot = counts.entry(second).or_default();
            *slot = (slot.0 + packets, slot.1 + lost);
            let delivered = i64::try_from(packets - lost).unwrap();
            *pending.entry(second).or_default() += delivered;
            let mut books = chain(&[(second, delivered, 0)]);
            // The oldest are stored first.
            let mut store = store;
            for (second, left) in &mut pending {
                let some = store.min(*left);
                (store, *left) = (store - some, *left - some);
                *books.seconds.entry(*second).or_default() += chain(&[(0, 0, some)]).seconds[&0];
            }
            let slots: Vec<_> = counts.iter().map(|(second, (packets, lost))| (*second, *packets, *lost)).collect();
            let mut look = facts(now + 200, &slots, &[]);
            look.chain = books;
            look.settled = at(now);
            add(account.look(look, None).rows)?;
        }
        let rest: Vec<_> = pending.iter().map(|(second, left)| (*second, 0, *left)).collect();
        let slots: Vec<_> = counts.iter().map(|(second, (packets, lost))| (*second, *packets, *lost)).collect();
        let mut look = facts(now + 300, &slots, &rest);
        look.settled = Timestamp::MAX;
        add(account.look(look, Some(at(now + 300))).rows)?;
        add(account.close())?;
        let seen: u64 = counts.values().map(|slot| slot.0).sum();
        let lost: u64 = counts.values().map(|slot| slot.1).sum();
        prop_assert_eq!((sum.seen, sum.ring_full), (seen.cast_signed(), lost.cast_signed()));
        prop_assert_eq!(sum.stored, (seen - lost).cast_signed());
    }
}
