//! What is put into a history is found; a history without it stays quiet; too short a history says so.

#![expect(clippy::unwrap_used, reason = "a failing unwrap in a test is the report")]

mod history;

use history::{Insert, SHAPES, START_S, Shape, history};
use tapedeck_packet::{Timestamp, UtcHour};
use tapedeck_session::stats::row::rows;
use tapedeck_session::unusual::judge::Reason;
use tapedeck_session::unusual::{Family, Finding, Hours, Kind, Unusual, unusual};

const DAYS: u32 = 14;
const DAY: u32 = 1_440;

fn hour(minute: u32) -> UtcHour {
    Timestamp::from_nanos_saturating((START_S + u64::from(minute) * 60) * 1_000_000_000).hour()
}

fn judge(shape: Shape, seed: u64, days: u32, inserts: &[Insert]) -> Unusual {
    let mut hours = Hours::default();
    history(shape, seed, days, inserts, |merged| rows(merged).iter().for_each(|row| hours.add("eth1", row)));
    unusual(&hours, hour(0), hour(days * DAY))
}

fn shape(name: &str) -> Shape {
    SHAPES.into_iter().find(|shape| shape.name == name).unwrap()
}

/// The findings of the hour of `minute`, most unusual first.
fn in_hour(answer: &Unusual, minute: u32) -> Vec<&Finding> {
    answer.findings.iter().filter(|f| f.from <= hour(minute) && hour(minute) < f.to).collect()
}

fn is_among_the_first_five(answer: &Unusual, minute: u32, is_it: impl Fn(&Finding) -> bool) {
    let findings = in_hour(answer, minute);
    assert!(findings.iter().take(5).any(|f| is_it(f)), "minute {minute}: {findings:#?}");
}

fn is_of(finding: &Finding, address: std::net::Ipv4Addr) -> bool {
    finding.subject.key.split(' ').any(|word| word == address.to_string())
}

fn four_are_found(name: &str, seed: u64) {
    let inserts = [
        Insert::Beacon { from: 8 * DAY + 10 * 60, minutes: 180, period_s: 60, jitter: 0.1 },
        Insert::Scan { from: 9 * DAY + 14 * 60 + 20, minutes: 10, ports: 1_000 },
        Insert::Exfiltration { from: 10 * DAY + 11 * 60, minutes: 30, bytes: 8_000_000_000 },
        Insert::Outage { from: 11 * DAY + 15 * 60 + 10, minutes: 20 },
    ];
    let answer = judge(shape(name), seed, DAYS, &inserts);
    for beat in 0..3 {
        is_among_the_first_five(&answer, 8 * DAY + (10 + beat) * 60, |f| {
            f.subject.kind == Kind::Recurring
                && is_of(f, Insert::BEACON)
                && f.regularity.is_some_and(|r| r.period_s == 60)
        });
    }
    is_among_the_first_five(&answer, 9 * DAY + 14 * 60, |f| {
        is_of(f, Insert::SCANNER) && f.subject.kind.family() == Family::Attempts
    });
    is_among_the_first_five(&answer, 10 * DAY + 11 * 60, |f| is_of(f, Insert::LEAK));
    is_among_the_first_five(&answer, 11 * DAY + 15 * 60, |f| f.subject.kind == Kind::QuietMinutes);
}

/// Rows a day, of the days that can be judged.
fn stays_quiet(name: &str, seed: u64) {
    let answer = judge(shape(name), seed, DAYS, &[]);
    assert_eq!(answer.judged_hours, u64::from(DAYS - 7) * 24);
    for day in 7..DAYS {
        let of_day = |f: &&Finding| (hour(day * DAY)..hour((day + 1) * DAY)).contains(&f.from);
        let findings: Vec<_> = answer.findings.iter().filter(of_day).collect();
        assert!(findings.len() <= 2, "{name}, seed {seed}, day {day}: {findings:#?}");
    }
}

#[test]
fn an_office() {
    four_are_found("office", 101);
    stays_quiet("office", 102);
}

#[test]
fn a_weekend_of_hardly_anything() {
    four_are_found("weekend dip", 103);
    stays_quiet("weekend dip", 104);
}

#[test]
fn a_growing_site() {
    four_are_found("growth", 105);
    stays_quiet("growth", 106);
}

#[test]
fn a_site_of_bursts() {
    four_are_found("bursty", 107);
    stays_quiet("bursty", 108);
}

#[test]
fn a_site_whose_hosts_come_and_go() {
    four_are_found("churn", 111);
    stays_quiet("churn", 112);
}

#[test]
fn a_handful_of_hosts() {
    four_are_found("small", 109);
    stays_quiet("small", 110);
}

#[test]
fn a_beacon_that_goes_on_is_still_there_the_next_day() {
    let beacon = Insert::Beacon { from: 8 * DAY + 10 * 60, minutes: 2 * DAY, period_s: 60, jitter: 0.1 };
    let answer = judge(shape("flat"), 11, 10, &[beacon]);
    for minute in [8 * DAY + 11 * 60, 9 * DAY + 3 * 60, 9 * DAY + 20 * 60] {
        is_among_the_first_five(&answer, minute, |f| {
            f.subject.kind == Kind::Recurring && is_of(f, Insert::BEACON)
        });
    }
}

#[test]
fn less_than_a_week_is_too_little_to_judge() {
    let inserts = [Insert::Scan { from: 5 * DAY + 600, minutes: 10, ports: 1_000 }];
    let answer = judge(shape("flat"), 1, 7, &inserts);
    assert_eq!((answer.findings.len(), answer.judged_hours), (0, 0));
    assert_eq!(answer.unjudged.len(), 7 * 24);
    assert!(answer.unjudged.iter().all(|(_, _, reason)| matches!(reason, Reason::ShortHistory { .. })));
}

#[test]
fn every_finding_has_a_query_unless_there_are_no_sessions_to_show() {
    let inserts = [Insert::Exfiltration { from: 8 * DAY + 600, minutes: 10, bytes: 9_000_000_000 }];
    let answer = judge(shape("flat"), 3, 9, &inserts);
    let first = answer.findings.first().unwrap();
    let filter = first.filter().unwrap();
    assert!(filter.contains("host 10.1.0.13"), "{filter}");
    assert!(first.observed >= 8e9 && first.also.iter().any(|also| also.subject.kind == Kind::Bytes));
}
