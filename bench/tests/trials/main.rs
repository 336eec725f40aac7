//! `tapebench line` and `compare` as their user runs them, with trials of half a second: rates mean nothing here, the
//! books mean everything.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may be direct: a panic is its report"
)]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tapedeck_bench::link::Link;
use tapedeck_bench::result::{Document, Trial};

/// Why such a test cannot run here, if it cannot.
fn missing() -> Option<&'static str> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root");
    }
    let bpf = Path::new("/sys/kernel/btf/vmlinux").exists();
    (!bpf).then_some("no /sys/kernel/btf/vmlinux")
}

macro_rules! live {
    () => {
        if let Some(why) = missing() {
            println!("SKIPPED 1: {why}");
            return;
        }
    };
}

/// Runs tapebench; stdout, stderr, exit code.
fn tapebench(words: &[&str]) -> (String, String, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_tapebench")).args(words).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

/// Runs a search of tiny trials; its result.
fn search(words: &[&str]) -> Document {
    let tiny = ["--trial-seconds", "0.5", "--resolution", "0.5", "--json"];
    let quick = if words[0] == "line" && !words.contains(&"--out") { &["--no-latency"][..] } else { &[] };
    let at = words.iter().position(|word| *word == "--").unwrap_or(words.len());
    let all = [&words[..at], &tiny, quick, &words[at..]].concat();
    let (stdout, stderr, code) = tapebench(&all);
    assert_eq!(code, Some(0), "{all:?}: {stderr}");
    let document: Document = serde_json::from_str(&stdout).unwrap();
    document.trials.iter().for_each(adds_up);
    assert!(!document.trials.is_empty());
    document
}

/// What holds of every trial, whatever was lost.
fn adds_up(trial: &Trial) {
    assert_eq!(trial.sent, trial.placed + trial.not_placed, "{trial:?}");
    assert_eq!(trial.placed, trial.on_disk + trial.missing, "{trial:?}");
    assert_eq!((trial.twice, trial.strangers), (0, 0), "{trial:?}");
    assert!(trial.placed > 100 && trial.short && trial.problems.is_empty(), "{trial:?}");
    assert_eq!(trial.pacing.is_some(), trial.wanted_pps.is_some(), "{trial:?}");
    if let Some(ledger) = &trial.ledger {
        let total = |key: &str| ledger["total"][key].as_u64().unwrap();
        let dropped: u64 =
            ledger["total"]["dropped"].as_object().unwrap().values().filter_map(|n| n.as_u64()).sum();
        assert_eq!((total("seen"), total("stored")), (trial.placed, trial.on_disk), "{trial:?}");
        assert_eq!(dropped, trial.missing, "{trial:?}");
        assert_eq!(trial.own.lost, Some(trial.missing), "{trial:?}");
        let worker = trial.threads.iter().find(|thread| thread.name == "worker");
        assert!(worker.is_some_and(|worker| worker.ns_per_packet > 0.0), "{trial:?}");
    }
}

#[test]
fn a_search_ends_with_books_that_add_up_and_goes_on_from_its_file() {
    live!();
    let folder = tempfile::tempdir().unwrap();
    let out = folder.path().join("line.json");
    let out = out.to_str().unwrap();
    let line = ["line", "--traffic", "imix", "--payload", "text", "--rounds", "2"];
    let document = search(&[&line[..], &["--out", out]].concat());
    let outcome = &document.outcomes[0];
    assert_eq!((outcome.tool.as_str(), outcome.zero_loss_pps.len(), outcome.short), ("tapedeck", 2, true));
    assert!(outcome.generator_pps > 0.0 && outcome.spread_pps[0] <= outcome.median_pps, "{outcome:?}");
    assert_eq!(document.setup.traffic.model, "imix");
    assert_eq!(Document::read(Path::new(out)).unwrap(), document);

    let late = document.latency.as_ref().unwrap();
    assert!((1..=late.probes).contains(&late.searchable.count), "{late:?}");
    let durable = late.durable.as_ref().unwrap();
    assert!(durable.p50_us >= late.searchable.p50_us && durable.count == late.searchable.count, "{late:?}");

    // All is there: no trial is made again.
    let again = search(&[&line[..], &["--resume", out]].concat());
    assert_eq!((&again.trials, &again.outcomes), (&document.trials, &document.outcomes));
    // The last one is not there.
    let mut shorter = document.clone();
    shorter.trials.pop();
    shorter.write(Path::new(out)).unwrap();
    let went_on = search(&[&line[..], &["--resume", out]].concat());
    assert_eq!(went_on.trials[..shorter.trials.len()], shorter.trials);
    assert!(went_on.trials.len() > shorter.trials.len());
    // Another run.
    let (_, stderr, code) = tapebench(&["line", "--traffic", "64", "--resume", out]);
    assert!(code == Some(2) && stderr.contains("another run"), "{stderr}");
}

#[test]
fn what_is_missing_under_overload_is_what_the_ledger_says() {
    live!();
    let document = search(&["line", "--traffic", "1518", "--rounds", "1", "--", "--level", "19"]);
    let unpaced = &document.trials[0];
    assert!(unpaced.wanted_pps.is_none() && unpaced.missing > 0, "{unpaced:?}");
    assert!(!unpaced.own.causes.is_empty(), "{unpaced:?}");
    assert!(document.outcomes[0].kept_at_limit.unwrap() < 1.0);
}

#[test]
fn two_lanes_send_the_packets_of_a_capture() {
    live!();
    let Some(traces) = std::env::var_os("TAPEDECK_TRACES") else {
        println!("SKIPPED 1: no traces");
        return;
    };
    let capture = Path::new(&traces).join("large/mix_apps_A.pcap");
    let lanes = ["--sender-cpus", "0,1", "--cpus", "0,1", "--rounds", "1"];
    let document = search(&[&["line", "--traffic", capture.to_str().unwrap()][..], &lanes].concat());
    assert_eq!(document.setup.link.queues, 2);
    let queues = document.trials[0].ledger.as_ref().unwrap()["queues"].as_array().unwrap().clone();
    assert!(queues.len() == 2 && queues.iter().all(|queue| queue["seen"].as_u64() > Some(0)), "{queues:?}");
}

#[test]
fn jumbo_frames_go_by_packet_sockets() {
    live!();
    let document = search(&["line", "--traffic", "9018", "--flows", "50", "--rounds", "1", "--queues", "4"]);
    assert_eq!((document.setup.sender.as_str(), document.setup.link.mtu), ("sockets", 9_000));
    let (_, stderr, code) = tapebench(&["line", "--traffic", "9018", "--sender", "live"]);
    assert!(code == Some(2) && stderr.contains("sockets"), "{stderr}");
}

/// Interfaces that were there before: in a namespace, so that they are nobody's.
#[test]
fn interfaces_of_others_are_used_if_named_and_never_with_a_default_route() {
    live!();
    let link = Link::make(1, 1_500).unwrap();
    let words = ["line", "--interface", "rx0", "--peer", "tx0", "--traffic", "128", "--rounds", "1"];
    let tiny = ["--trial-seconds", "0.5", "--resolution", "0.5", "--no-latency", "--json"];
    let run = || {
        let program = Path::new(env!("CARGO_BIN_EXE_tapebench"));
        link.command(program).args(words).args(tiny).output().unwrap()
    };
    let output = run();
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{stderr}");
    let document: Document = serde_json::from_slice(&output.stdout).unwrap();
    document.trials.iter().for_each(adds_up);
    assert_eq!((document.setup.link.made, document.setup.sender.as_str()), (false, "sockets"));
    // It is left as it was.
    assert!(link.not_placed().is_ok());

    link.run(&["ip", "route", "add", "default", "dev", "rx0"]).unwrap();
    let refused = run();
    let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(refused.status.code() == Some(2) && stderr.contains("default route"), "{stderr}");
}

#[test]
fn tools_are_compared_by_what_is_on_disk() {
    live!();
    let document =
        search(&["compare", "--only", "tapedeck,tcpdump,dumpcap", "--traffic", "594", "--common", "20000"]);
    let tools: Vec<&str> = document.outcomes.iter().map(|outcome| outcome.tool.as_str()).collect();
    assert_eq!(tools, ["tapedeck", "tcpdump", "dumpcap"]);
    for outcome in &document.outcomes {
        let common =
            document.trials.iter().find(|t| t.tool == outcome.tool && t.purpose == "common").unwrap();
        assert!(common.on_disk > 0 && outcome.common_cpu_ns > Some(0.0), "{common:?}");
        // A foreign tool may have been told of more than it wrote, never of less.
        assert!(common.own.kept >= Some(common.on_disk), "{common:?}");
        assert_eq!(common.wanted_pps, Some(20_000.0));
    }
    // In turn: each tool's first trial before any tool's second.
    let first: Vec<&str> = document.trials.iter().take(3).map(|trial| trial.tool.as_str()).collect();
    assert_eq!(first, tools);
}

#[test]
fn what_makes_no_sense_is_refused() {
    for (words, why) in [
        (&["line", "--traffic", "12"][..], "64 to 9018"),
        (&["line", "--interface", "lo"], "--peer"),
        (&["line", "--resolution", "2"], "0.001"),
        (&["line", "--latency", "--out", "x"], "search"),
        (&["line", "--sender-cpus", "4096"], "CPU 4096"),
        (&["compare", "--only", "wireshark"], "netsniff-ng"),
        (&["compare", "--tool", "stenotype=/nowhere"], "/nowhere"),
        (&["compare", "--only", "tapedeck", "--trial-seconds", "0"], "0.1"),
    ] {
        let (_, stderr, code) = tapebench(words);
        assert!(code == Some(2) && stderr.contains(why), "{words:?}: {code:?} {stderr}");
    }
}

/// Ended by a signal while it sends: programs, namespaces and folders are gone, and the shell sees what ended it.
#[test]
fn who_ends_a_search_finds_nothing_of_it() {
    live!();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_tapebench"));
        command.args(["line", "--traffic", "64", "--trial-seconds", "30", "--rounds", "1"]);
        command.env("TMPDIR", folder.path()).stdout(Stdio::null()).stderr(Stdio::null());
        let mut bench = command.spawn().unwrap();
        let prefix = format!("tb{}-", bench.id());
        let namespaces = || {
            let entries = std::fs::read_dir("/run/netns").into_iter().flatten().flatten();
            entries.filter(|entry| entry.file_name().to_str().unwrap().starts_with(&prefix)).count()
        };
        let began = Instant::now();
        while namespaces() == 0 || std::fs::read_dir(folder.path()).unwrap().count() == 0 {
            assert!(bench.try_wait().unwrap().is_none() && began.elapsed().as_secs() < 30, "it never began");
            std::thread::sleep(Duration::from_millis(20));
        }
        std::thread::sleep(Duration::from_secs(2));
        let children = std::fs::read_to_string(format!("/proc/{0}/task/{0}/children", bench.id())).unwrap();
        let recorder = children.split_whitespace().next().expect("a recorder").to_owned();
        kill(Pid::from_raw(bench.id().try_into().unwrap()), signal).unwrap();
        let ended = bench.wait().unwrap();
        assert_eq!(ended.signal(), Some(signal as i32), "{ended:?}");
        assert_eq!(namespaces(), 0, "a namespace is left");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "a folder is left");
        // Its parent is gone: whoever takes care of orphans may not have looked yet.
        let state = std::fs::read_to_string(format!("/proc/{recorder}/stat")).unwrap_or_default();
        assert!(state.is_empty() || state.contains(") Z "), "the recorder is left: {state}");
    }
}
