//! How many rows a history without anything put in shows, and where what is put in ranks, over many seeds:
//! `cargo run --release -p tapedeck-session --example unusual_seeds [SEEDS [faint]]`.

#![expect(clippy::print_stdout, reason = "an example prints its result")]
#![expect(clippy::unwrap_used, reason = "an example stops at the first mishap")]

#[path = "../tests/history/mod.rs"]
mod history;

use history::{Insert, SHAPES, START_S, Shape, history};
use std::collections::BTreeMap;
use tapedeck_packet::{Timestamp, UtcHour};
use tapedeck_session::stats::row::rows;
use tapedeck_session::unusual::{Finding, Hours, unusual};

const DAYS: u32 = 14;

fn hours(shape: Shape, seed: u64, inserts: &[Insert]) -> Hours {
    let mut hours = Hours::default();
    history(shape, seed, DAYS, inserts, |merged| rows(merged).iter().for_each(|row| hours.add("eth1", row)));
    hours
}

fn hour(minute: u32) -> UtcHour {
    Timestamp::from_nanos_saturating((START_S + u64::from(minute) * 60) * 1_000_000_000).hour()
}

fn main() {
    let mut arguments = std::env::args().skip(1);
    let seeds: u64 = arguments.next().map_or(10, |n| n.parse().unwrap());
    let faint = arguments.next().as_deref() == Some("faint");
    for shape in SHAPES {
        let mut per_day: BTreeMap<usize, u32> = BTreeMap::new();
        let mut ranks: BTreeMap<(&str, Option<usize>), u32> = BTreeMap::new();
        for seed in 0..seeds {
            let clean = unusual(&hours(shape, seed, &[]), hour(0), hour(DAYS * 1_440));
            for day in 8..DAYS {
                let of_day = |f: &&Finding| (hour(day * 1_440)..hour((day + 1) * 1_440)).contains(&f.peak);
                *per_day.entry(clean.findings.iter().filter(of_day).count()).or_default() += 1;
            }
            for finding in &clean.findings {
                println!("  {} {seed}: {}", shape.name, line(finding));
            }
            let (ports, bytes, period_s, quiet) =
                if faint { (120, 2_500_000_000, 300, 10) } else { (1_000, 8_000_000_000, 60, 20) };
            let inserts = [
                Insert::Scan { from: 9 * 1_440 + 14 * 60 + 20, minutes: 10, ports },
                Insert::Beacon { from: 8 * 1_440 + 10 * 60, minutes: 180, period_s, jitter: 0.1 },
                Insert::Exfiltration { from: 10 * 1_440 + 11 * 60, minutes: 30, bytes },
                Insert::Outage { from: 11 * 1_440 + 15 * 60 + 10, minutes: quiet },
            ];
            let names = ["scan", "beacon", "exfiltration", "outage"];
            let answer = unusual(&hours(shape, seed, &inserts), hour(0), hour(DAYS * 1_440));
            let at = [
                9 * 1_440 + 14 * 60 + 20,
                8 * 1_440 + 11 * 60,
                10 * 1_440 + 11 * 60,
                11 * 1_440 + 15 * 60 + 10,
            ];
            let marks = ["10.1.0.7", "10.1.0.11 ", "10.1.0.13", ""];
            for ((name, minute), mark) in names.into_iter().zip(at).zip(marks) {
                let in_hour = |f: &&Finding| f.from <= hour(minute) && hour(minute) < f.to;
                let rank = answer.findings.iter().filter(in_hour).position(|f| {
                    f.subject.key.starts_with(mark)
                        && (!mark.is_empty() || f.subject.kind.unit() == "minutes")
                });
                *ranks.entry((name, rank.map(|r| r + 1))).or_default() += 1;
            }
            for finding in answer.findings.iter().filter(|_| seeds == 1) {
                println!("  inserted: {}", line(finding));
            }
        }
        println!("{}: days by rows {per_day:?}; ranks {ranks:?}", shape.name);
    }
}

fn line(f: &Finding) -> String {
    format!(
        "{} +{}h {:.2} {} {} {:.0} (usual {:.0}, to {:.0}) {}",
        f.from.start(),
        f.to.hours() - f.from.hours(),
        f.severity,
        f.subject.kind.as_str(),
        f.subject.key,
        f.observed,
        f.usual,
        f.expected,
        f.also
            .iter()
            .map(|a| format!("{} {}", a.subject.kind.as_str(), a.subject.key))
            .collect::<Vec<_>>()
            .join("; ")
    )
}
