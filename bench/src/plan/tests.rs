//! Plans of known results, computed by hand; what is refused; the words of a plan.

use super::*;
use crate::result::{LinkAbout, Outcome, Own, Setup, ThreadTime, ToolAbout, Trial};
use crate::traffic::{About, Payload};
use serde_json::json;

/// A trial at a rate: worker 200 ns + 0.4 ns a byte, stage 100 ns + 0.6 ns a byte, records 50 ns.
fn trial(pps: f64, bytes: f64, missing: u64) -> Trial {
    let thread = |name: &str, ns: f64| ThreadTime {
        name: name.to_owned(),
        threads: 1,
        ns_per_packet: ns,
        busy: pps * ns / 1e9,
    };
    let placed = 10_000_000;
    let on_disk = placed - missing;
    Trial {
        tool: "tapedeck".to_owned(),
        purpose: "search".to_owned(),
        wanted_pps: Some(pps),
        seconds: 20.0,
        sent: placed,
        placed,
        pps,
        on_disk,
        missing,
        own: Own {
            kept: Some(on_disk),
            lost: Some(missing),
            causes: if missing > 0 {
                BTreeMap::from([("ring_full".to_owned(), missing)])
            } else {
                BTreeMap::new()
            },
        },
        ledger: Some(json!({ "queues": [{ "mode": "copy" }], "total": { "cut_packets": 0 } })),
        threads: vec![
            thread("worker", 200.0 + 0.4 * bytes),
            thread("stage", 100.0 + 0.6 * bytes),
            thread("records", 50.0),
        ],
        // 40 bytes beside each packet, and half of the traffic; a tenth more is written.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole numbers of a test"
        )]
        file_bytes: (on_disk as f64 * (40.0 + 0.5 * bytes)) as u64,
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole numbers of a test"
        )]
        disk_bytes: (on_disk as f64 * 1.1 * (40.0 + 0.5 * bytes)) as u64,
        ..Trial::default()
    }
}

fn document(model: &str, bytes: f64, trials: Vec<Trial>) -> Document {
    let best = trials.iter().filter(|trial| trial.missing == 0).map(|trial| trial.pps).fold(0.0, f64::max);
    let about = About {
        model: model.to_owned(),
        packets: 1_000,
        mean_bytes: bytes,
        longest: 1_514,
        flows: 500,
        renewed: 100,
        left_out: 0,
    };
    Document {
        version: 1,
        kind: "line".to_owned(),
        command: vec!["tapebench".to_owned(), "line".to_owned()],
        started: "2026-11-30T10:00:00Z".to_owned(),
        machine: Machine {
            kernel: "6.18".to_owned(),
            cpu_model: "Test CPU".to_owned(),
            cpus: 4,
            memory_bytes: 16 << 30,
            dirty_limit_bytes: 1 << 30,
            load_before: 0.1,
        },
        setup: Setup {
            traffic: about,
            payload: Payload::Random,
            encrypted: 0.9,
            seed: 1,
            sender: "live".to_owned(),
            sender_cpus: vec![0],
            tool_cpus: vec![1],
            link: LinkAbout {
                made: true,
                interface: "rx0".to_owned(),
                peer: "tx0".to_owned(),
                driver: "veth".to_owned(),
                queues: 1,
                mtu: 1_500,
            },
            record: Vec::new(),
            trial_seconds: None,
            resolution: 0.02,
            tools: vec![ToolAbout {
                name: "tapedeck".to_owned(),
                version: "tapedeck 0.1.0".to_owned(),
                command: vec!["tapedeck".to_owned()],
            }],
        },
        trials,
        outcomes: vec![Outcome {
            tool: "tapedeck".to_owned(),
            zero_loss_pps: vec![best, best, best],
            median_pps: best,
            spread_pps: [best, best],
            median_bits_per_second: 8.0 * bytes * best,
            generator_pps: 1.5e6,
            generator_bound: false,
            idle: Some(0.2),
            kept_at_limit: Some(0.5),
            common_cpu_ns: None,
            short: false,
        }],
        latency: None,
    }
}

/// 1,000 bytes a packet: 600 + 700 + 50 = 1,350 ns of CPU, 540 bytes stored, 594 written.
pub(crate) fn good() -> Document {
    document("1000", 1_000.0, vec![trial(9e5, 1_000.0, 500), trial(6e5, 1_000.0, 0), trial(5e5, 1_000.0, 0)])
}

fn args(words: &[&str]) -> Args {
    #[derive(clap::Parser)]
    struct Cli {
        #[command(flatten)]
        args: Args,
    }
    let given = ["plan", "--result", "a.json"];
    <Cli as clap::Parser>::try_parse_from(given.iter().chain(words)).unwrap().args
}

fn plan(words: &[&str], documents: Vec<Document>) -> Result<Plan> {
    let all: Result<Vec<Evidence>> = documents
        .into_iter()
        .enumerate()
        .map(|(at, document)| Evidence::of(&format!("{at}.json"), document))
        .collect();
    let all = all?;
    evidence::same(&all)?;
    Plan::make(&args(words), all, vec!["tapebench".to_owned(), "plan".to_owned()])
}

/// To a millionth.
fn near(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-6 * a.abs().max(b.abs())
}

pub(crate) fn sample_plan() -> Plan {
    plan(&TEN, vec![good()]).unwrap()
}

const TEN: [&str; 8] = ["--link", "10G", "--utilisation", "50%", "--disk-write", "250M", "--load", "70%"];

#[test]
fn a_plan_is_what_one_reckons_by_hand() {
    let plan = plan(&TEN, vec![good()]).unwrap();
    // 5e9 bit/s of frames of 1,004 bytes.
    let pps = 5e9 / (8.0 * 1_004.0);
    assert!(near(plan.load.peak_pps(), pps) && near(plan.load.mean_pps(), pps));
    assert!(near(plan.load.full(), 1e10 / (8.0 * 1_024.0)));
    // Loss began at 81 % of the CPU, so 70 % it is.
    assert!(near(plan.cpu_share, 0.7), "{}", plan.cpu_share);
    // 622,510 x 1,350 ns = 0.8404 CPUs, 1.2006 at 70 %.
    assert!(near(plan.cores.need.likely, pps * 1_350e-9 / 0.7));
    assert_eq!((plan.cores.buy, plan.cores.queues.likely, plan.cores.recorders), (2.0, 1.0, 1.0));
    // 540 bytes x 622,510 x 86,400 s = 29.04 TB a day, 871.3 TB in 30 days, 14.4 TB on each disk: 60.5.
    assert!(near(plan.disks.per_day.likely, pps * 540.0 * 86_400.0));
    assert_eq!(plan.disks.by_capacity.likely, 61.0);
    // 369.8 MB/s, 175 on each: 2.1.
    assert!(near(plan.disks.write.likely, pps * 594.0));
    assert_eq!(plan.disks.by_write.unwrap().likely, 3.0);
    assert_eq!(plan.disks.count, 61.0);
    assert!(near(plan.disks.holds_days.likely, 61.0 * 14.4e12 / (pps * 540.0 * 86_400.0)));
    // One queue: 80 MiB of packets, 143 MiB beside, 256 MiB of sessions, 800 MiB of rows.
    assert!(near(plan.memory.all, 1_279.0 * 1024.0 * 1024.0));
    // 2 x 1,000 + 2 x 1,032 + 2 x 594 + 640 + 32 = 5,924 bytes a packet: 3.69 GB/s.
    assert!(near(plan.paper.memory, pps * 5_924.0));
    assert_eq!((plan.paper.channels, plan.paper.card_lanes, plan.paper.disk_lanes), (1.0, 1.0, 1.0));
    // Space ends first, then CPUs; the link is full at 1.96 times that.
    let first: Vec<(&str, bool)> =
        plan.limits.iter().take(2).map(|limit| (limit.what.as_str(), limit.times >= 1.0)).collect();
    assert_eq!(first, [("disk space for 30 days", true), ("`stage` of a queue", true)]);
    let link = plan.limits.iter().find(|limit| limit.what == "the link itself").unwrap();
    assert!(near(link.times, 2.0 * 1_004.0 / 1_024.0));
    // Here: 4 CPUs at 70 % hold 2.07 Mpps, one recorder's `records` 14 Mpps.
    assert!(plan.here.holds);
    assert!(near(plan.here.limits[0].times, 4.0 * 0.7e9 / 1_350.0 / pps));
}

#[test]
fn two_sizes_give_the_cost_of_a_third() {
    let small = document("64", 100.0, vec![trial(8e5, 100.0, 0)]);
    let words = [&TEN[..], &["--traffic", "604"]].concat();
    let plan = plan(&words, vec![small, good()]).unwrap();
    assert_eq!(plan.how, How::Between);
    let ns = |name: &str| plan.kinds.iter().find(|kind| kind.name == name).unwrap().ns;
    // 600 bytes without checksum.
    assert!(
        near(ns("worker").likely, 440.0)
            && near(ns("stage").likely, 460.0)
            && near(ns("records").likely, 50.0)
    );
    assert!(near(plan.disks.stored.likely, 340.0) && near(plan.disks.stored.low, 340.0));
    assert!(
        plan.doubts.iter().any(|doubt| doubt.contains("lie on a line through 100, 1000 bytes")),
        "{:?}",
        plan.doubts
    );
}

#[test]
fn one_size_says_so_and_gives_a_range() {
    let words = [&TEN[..], &["--traffic", "504"]].concat();
    let plan = plan(&words, vec![good()]).unwrap();
    assert_eq!(plan.how, How::OneSize);
    // Half the bytes: between half of 1,350 ns and all of it.
    let scale = plan.load.peak_pps() / 1e9 / plan.cpu_share;
    assert!(near(plan.cores.need.low, 675.0 * scale) && near(plan.cores.need.high, 1_350.0 * scale));
    assert_eq!(plan.cores.need.likely, plan.cores.need.high);
    assert!(plan.doubts.iter().any(|doubt| doubt.contains("one size does not say")), "{:?}", plan.doubts);
}

#[test]
fn a_thread_there_is_only_one_of_ends_first_on_a_fast_link() {
    // 100 Gbit/s of these: 12.2 Mpps, of which one thread of 50 ns does 14 Mpps at 70 %; of 150 ns 4.7.
    let mut slow = good();
    for trial in &mut slow.trials {
        trial.threads[2].ns_per_packet = 150.0;
    }
    let plan = plan(&["--link", "100G", "--disk-write", "1G", "--disks", "10"], vec![slow]).unwrap();
    assert_eq!(plan.cores.recorders, 3.0);
    // 12.2 Mpps x 700 ns / 70 % = 12.2 queues.
    assert_eq!(plan.cores.queues.likely, 13.0);
    let first = plan.limits.first().unwrap();
    assert!(first.what.starts_with("disk space") && first.times < 1.0, "{first:?}");
    assert!(!plan.here.holds);
    assert!(plan.here.limits.iter().any(|limit| limit.what.contains("`records`") && limit.times < 1.0));
    let times = plan.load.peak_pps() / 6e5;
    let told = format!("is {times:.1} times the highest rate measured");
    assert!(plan.doubts.iter().any(|doubt| doubt.contains(&told)), "{:?}", plan.doubts);
    assert!(plan.doubts.iter().any(|doubt| doubt.contains("planned are 13")), "{:?}", plan.doubts);
}

#[test]
fn cpus_are_used_no_further_than_without_loss() {
    // Nothing was lost at 300,000 packets/s, 40.5 % of the CPU, and something at 350,000.
    let early = document("1000", 1_000.0, vec![trial(3.5e5, 1_000.0, 5), trial(3e5, 1_000.0, 0)]);
    let made = plan(&TEN, vec![early]).unwrap();
    assert!(near(made.cpu_share, 0.405), "{}", made.cpu_share);
    assert!(
        made.doubts
            .iter()
            .any(|doubt| doubt.contains("busier than 41 %") || doubt.contains("busier than 40 %"))
    );
    // The same where only the generator was at its end says nothing of the recorder.
    let mut bound = document("1000", 1_000.0, vec![trial(3e5, 1_000.0, 0)]);
    bound.outcomes[0].generator_bound = true;
    bound.outcomes[0].generator_pps = 3e5;
    let made = plan(&TEN, vec![bound]).unwrap();
    assert!(near(made.cpu_share, 0.7));
    assert!(made.doubts.iter().any(|doubt| doubt.contains("generator made no more")), "{:?}", made.doubts);
}

#[test]
fn what_others_took_of_the_cpus_is_said() {
    let mut crowded = good();
    for trial in &mut crowded.trials {
        trial.threads.iter_mut().for_each(|thread| thread.busy = 0.1);
        trial.idle = BTreeMap::from([(0, 0.0), (1, 0.2)]);
    }
    let made = plan(&TEN, vec![crowded]).unwrap();
    // CPU 1 was idle for 20 %, three threads had 30 %.
    assert!(
        made.doubts.iter().any(|doubt| doubt.contains("50 % of the recorder's CPUs")),
        "{:?}",
        made.doubts
    );
    assert!(near(made.cpu_share, 0.3));
    assert!(!sample_plan().doubts.iter().any(|doubt| doubt.contains("went to others")));
}

#[test]
fn nothing_is_planned_with_what_is_no_evidence() {
    let refused = |document: Document| plan(&TEN, vec![document]).unwrap_err().to_string();
    let mut broken = good();
    broken.trials[2].problems.push("7 packets are on disk that were never sent".to_owned());
    assert!(refused(broken).contains("0.json: the books of trial 2 do not add up: 7 packets"));
    let mut lossy = good();
    lossy.trials.iter_mut().for_each(|trial| trial.missing = 1);
    assert!(refused(lossy).contains("lost or cut at every rate, from 500000"));
    // Payload that was cut off under pressure is no packet stored whole, though none is missing.
    let mut cut = good();
    for trial in &mut cut.trials {
        trial.ledger = Some(json!({ "total": { "cut_packets": 3 } }));
    }
    assert!(refused(cut.clone()).contains("lost or cut"));
    // Unless it was asked for.
    cut.setup.record = vec!["--snaplen".to_owned(), "128".to_owned()];
    plan(&TEN, vec![cut]).unwrap();
    let mut unfinished = good();
    unfinished.outcomes.clear();
    assert!(refused(unfinished).contains("--resume 0.json"));
}

#[test]
fn a_rate_is_vouched_for_only_below_every_loss() {
    // One search ended at 600,000; in another something was lost at 450,000.
    let mut mixed = good();
    mixed.trials.push(trial(4.5e5, 1_000.0, 1));
    mixed.trials.push(trial(4e5, 1_000.0, 0));
    let plan = plan(&TEN, vec![mixed]).unwrap();
    assert_eq!(plan.basis[0].rate_pps, 4e5);
    let told =
        "400 kpps are vouched for, not the 600 kpps of the search: a trial at 450 kpps lost or cut some";
    assert!(
        plan.doubts.iter().any(|doubt| doubt.replace(" k", "k").contains(&told.replace(" k", "k"))),
        "{:?}",
        plan.doubts
    );
}

#[test]
fn results_of_different_kinds_are_not_mixed() {
    let refused = |change: fn(&mut Document)| {
        let mut other = document("64", 60.0, vec![trial(8e5, 60.0, 0)]);
        change(&mut other);
        let words = [&TEN[..], &["--traffic", "604"]].concat();
        plan(&words, vec![good(), other]).unwrap_err().to_string()
    };
    assert!(refused(|other| other.machine.cpus = 64).contains("different machines"));
    assert!(
        refused(|other| other.setup.record.push("--snaplen=96".into())).contains("arguments of tapedeck")
    );
    assert!(refused(|other| other.setup.tools[0].version = "tapedeck 9".into()).contains("versions"));
    let several = plan(&TEN, vec![good(), document("64", 60.0, vec![trial(8e5, 60.0, 0)])]);
    assert!(several.unwrap_err().to_string().contains("several kinds of traffic: 1000, 64"));
    assert!(plan(&["--link", "1G", "--utilisation", "50%", "--peak", "20%"], vec![good()]).is_err());
}

#[test]
fn a_ratio_of_ones_own_and_many_sessions_are_taken() {
    let words = [&TEN[..], &["--ratio", "2", "--sessions", "1000000"]].concat();
    let plan = plan(&words, vec![good()]).unwrap();
    // 500 bytes; the tenth that journals add stays.
    assert!(
        near(plan.disks.stored.likely, 500.0) && near(plan.disks.write.likely, plan.load.peak_pps() * 550.0)
    );
    // 1.25 million in one queue: 2^21.
    assert_eq!(plan.memory.max_sessions, 2_097_152.0);
}

#[test]
fn the_memory_formula_is_that_of_the_docs() {
    let docs = include_str!("../../../docs/operations.md");
    assert!(docs.contains("memory <= queues x (--packet-memory + 8,192 x chunk + 143 MiB)"));
    assert!(docs.contains("64 MiB, --packet-memory") && docs.contains("MTU of about 1,730; else x 4 KiB"));
    assert!(docs.contains("--max-sessions x 1 KiB") && docs.contains("default of 262,144"));
    assert!(docs.contains("some 800 MiB"));
    // Four queues of jumbo packets: 4 x 96 MiB, 4 x 143 MiB, five tables of 256 MiB, 800 MiB.
    let memory = Memory::of(4.0, 1.0, 9_000.0, None, 64 << 20);
    assert_eq!(memory.all / 1024.0 / 1024.0, 384.0 + 572.0 + 1_280.0 + 800.0);
}

#[test]
fn packet_memory_is_what_the_recorder_was_given() {
    let mut large = good();
    let before = plan(&TEN, vec![large.clone()]).unwrap().memory;
    for words in [&["--packet-memory=1GiB"][..], &["--level", "off", "--packet-memory", "1GiB"]] {
        large.setup.record = words.iter().map(|word| (*word).to_owned()).collect();
        let memory = plan(&TEN, vec![large.clone()]).unwrap().memory;
        assert!(
            memory.packets > 8.0 * before.packets && near(memory.sessions, before.sessions),
            "{memory:?}"
        );
    }
}

#[test]
fn a_plan_is_read_as_it_was_written() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("plan.json");
    let made = plan(&TEN, vec![good()]).unwrap();
    std::fs::write(&path, serde_json::to_string(&made).unwrap()).unwrap();
    // In its words: reading a number may change its last bit.
    let read = Plan::read(&path).unwrap();
    assert_eq!((read.words(), &read.command, read.how), (made.words(), &made.command, made.how));
    assert!(
        near(read.paper.memory, made.paper.memory)
            && near(read.here.limits[0].times, made.here.limits[0].times)
    );
    std::fs::write(&path, serde_json::to_string(&good()).unwrap()).unwrap();
    assert!(Plan::read(&path).unwrap_err().to_string().contains("no plan"));
}

#[test]
fn the_words_of_a_plan() {
    let mut hostile = good();
    hostile.machine.cpu_model = "CPU\u{1b}[2J".to_owned();
    insta::assert_snapshot!(plan(&TEN, vec![hostile]).unwrap().words());
}
