//! What an operator meets: options, refusals, status, locks.

use crate::disk::{status_when, tapedeck};
use crate::support::recorder::{Recorder, record_command, segments};
use crate::support::{Net, Sender, join, live, numbered, run};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// Runs `record` where it must not start; returns what it said.
pub(crate) fn refused(net: &Net, store: &Path, args: &[&str]) -> String {
    let out = record_command(net, store, args).output().unwrap();
    assert_eq!(out.status.code(), Some(2), "{args:?}: {out:?}");
    assert!(out.stdout.is_empty(), "{out:?}");
    let said = String::from_utf8(out.stderr).unwrap();
    assert!(said.contains("error: "), "{said}");
    said
}

fn status(args: &[&str]) -> (Option<i32>, String) {
    let out = Command::new(env!("CARGO_BIN_EXE_tapedeck")).arg("status").args(args).output().unwrap();
    (out.status.code(), String::from_utf8(out.stdout).unwrap())
}

#[test]
fn auto_says_why_it_steps_down_and_an_explicit_mode_does_not() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&net, dir.path(), &[]);
    assert!(recorder.said.contains("no mode zerocopy, trying copy"), "{}", recorder.said);
    assert!(recorder.said.ends_with(&format!("ready: {} queues=1 mode=copy\n", net.rx)));
    assert_eq!(recorder.stop().code, Some(0));
    let said = refused(&net, dir.path(), &["--mode", "zerocopy"]);
    assert!(said.contains("cannot be recorded in mode zerocopy"), "{said}");
    assert!(said.contains("Caused by: ") && said.contains("\n\nhint: "), "{said}");
    let said = refused(&net, dir.path(), &["--rss"]);
    assert!(said.contains("--rss: cannot read the receive hashing"), "{said}");
}

#[test]
fn interfaces_that_must_not_be_recorded_are_refused() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let said = refused(&net, dir.path(), &["--interface", "no-such-if"]);
    assert!(said.contains("no interface no-such-if") && said.contains("hint: "), "{said}");
    run("ip", &["addr", "add", "10.9.9.1/24", "dev", &net.rx]);
    run("ip", &["route", "add", "default", "via", "10.9.9.2"]);
    let said = refused(&net, dir.path(), &[]);
    assert!(said.contains("carries the default route") && said.contains("--force"), "{said}");
    assert_eq!(Recorder::start(&net, dir.path(), &["--force"]).stop().code, Some(0));
    run("ip", &["link", "set", &net.rx, "down"]);
    let said = refused(&net, dir.path(), &[]);
    assert!(said.contains("is down") && said.contains(&format!("ip link set dev {} up", net.rx)), "{said}");
}

#[test]
fn arguments_that_make_no_sense_are_refused() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let rx = net.rx.clone();
    assert!(refused(&net, dir.path(), &["--interface", &rx]).contains("is named twice"));
    assert!(refused(&net, dir.path(), &["--packets", "0"]).contains("stop at once"));
    assert!(refused(&net, dir.path(), &["--cpus", "1000"]).contains("CPU 1000"));
    assert!(refused(&net, dir.path(), &["--mode", "fast"]).contains("zerocopy, copy, skb or packet"));
    let config = dir.path().join("tapedeck.toml");
    std::fs::write(&config, "segment-siez = '1MiB'\n").unwrap();
    let said = refused(&net, dir.path(), &["--config", config.to_str().unwrap()]);
    assert!(said.contains("segment-siez"), "{said}");
}

#[test]
fn a_second_recorder_names_the_first() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&net, dir.path(), &["--mode", "skb"]);
    let other = tempfile::tempdir().unwrap();
    let said = refused(&net, other.path(), &["--mode", "packet"]);
    assert!(said.contains(&format!("is being recorded by process {}", recorder.pid())), "{said}");
    assert_eq!(recorder.stop().code, Some(0));
    assert_eq!(Recorder::start(&net, other.path(), &["--mode", "packet"]).stop().code, Some(0));
}

#[test]
fn packets_and_duration_end_a_recording() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&net, dir.path(), &["--packets", "50"]);
    let sender = net.sender();
    for number in 0..60 {
        assert!(sender.send(&numbered(0, number, 60, &[])));
    }
    let ended = recorder.wait();
    assert_eq!(ended.code, Some(0), "{}", ended.stderr);
    assert!(ended.total("stored") >= 50, "{ended:?}");
    let recorder = Recorder::start(&net, dir.path(), &["--duration", "300ms"]);
    let ended = recorder.wait();
    assert_eq!((ended.code, ended.total("seen")), (Some(0), 0), "{ended:?}");
}

#[test]
fn the_configuration_says_what_options_say() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("tapedeck.toml");
    let store = dir.path().join("store");
    let text =
        format!("interface = '{}'\nstore = '{}'\nmode = 'skb'\nlevel = 'off'\n", net.rx, store.display());
    std::fs::write(&config, text).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapedeck"));
    command.args(["record", "--duration", "200ms", "--config"]).arg(&config);
    let out = command.output().unwrap();
    assert_eq!(out.status.code(), Some(0), "{out:?}");
    let ready = format!("ready: {} queues=1 mode=skb", net.rx);
    assert!(String::from_utf8(out.stderr).unwrap().lines().any(|line| line == ready));
}

#[test]
fn status_shows_a_running_recorder_and_no_other() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().to_str().unwrap();
    assert_eq!(status(&["--store", store]), (Some(2), String::new()));
    let recorder = Recorder::start(&net, dir.path(), &["--mode", "copy"]);
    let sender = net.sender();
    for number in 0..100 {
        assert!(sender.send(&numbered(0, number, 60, &[])));
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    let ledger: serde_json::Value = loop {
        let (code, text) = status(&["--json", "--store", store]);
        let ledger: serde_json::Value = serde_json::from_str(&text).unwrap_or_default();
        if code == Some(0) && ledger["total"]["stored"] == 100 || Instant::now() > deadline {
            break ledger;
        }
        std::thread::sleep(Duration::from_millis(100));
    };
    assert_eq!(ledger["total"]["seen"], 100, "{ledger}");
    assert_eq!((&ledger["total"]["pending"], &ledger["total"]["unaccounted"]), (&0.into(), &0.into()));
    assert_eq!(ledger["queues"][0]["mode"], "copy");
    let (code, text) = status(&["--store", store]);
    assert_eq!(code, Some(0));
    assert!(text.contains("seen 100  stored 100"), "{text}");
    assert!(status(&[]).1.contains(&format!("process {}", recorder.pid())));
    let ended = recorder.stop();
    assert_eq!(ended.ledger["run"], ledger["run"]);
    assert_eq!(status(&["--store", store]).0, Some(2));
}

#[test]
fn several_interfaces_and_stores_are_one_recording() {
    live!();
    let net = Net::new(2, 1500);
    join("tx-b", "rx-b");
    let dir = tempfile::tempdir().unwrap();
    let stores = ["disk1", "disk2"].map(|name| dir.path().join(name));
    for store in &stores {
        std::fs::create_dir(store).unwrap();
    }
    let recorder =
        Recorder::start(&net, &dir.path().join("disk*"), &["--mode", "copy", "--interface", "rx-b"]);
    let ready = format!("ready: {} queues=2 mode=copy; rx-b queues=1 mode=copy", net.rx);
    assert_eq!(recorder.said.lines().last(), Some(ready.as_str()));
    let (sender, other) = (net.sender(), Sender::on("tx-b"));
    for flow in 0..32 {
        assert!(sender.send(&numbered(flow, 0, 60, &[])) && other.send(&numbered(flow, 1, 60, &[])));
    }
    let ended = recorder.stop();
    assert_eq!((ended.total("stored"), ended.total("unaccounted")), (64, 0), "{ended:?}");
    let names: Vec<_> =
        ended.ledger["queues"].as_array().unwrap().iter().map(|q| q["interface"].clone()).collect();
    assert_eq!(names, [net.rx.as_str(), &net.rx, "rx-b"]);
    let of = |store: &Path| segments(store).iter().map(|path| path.display().to_string()).collect::<String>();
    assert!(of(&stores[0]).contains("-q0-") && of(&stores[1]).contains("-q1-"), "{ended:?}");
}

#[test]
fn the_interface_is_left_as_it_was_found() {
    live!();
    let net = Net::new(1, 1500);
    net.vlan_offload(true);
    let rxvlan = || run("ethtool", &["-k", &net.rx]).contains("rx-vlan-offload: on");
    let link = || run("ip", &["-d", "link", "show", &net.rx]);
    assert!(rxvlan() && link().contains("promiscuity 0") && !link().contains("xdp"));
    let dir = tempfile::tempdir().unwrap();
    let recorder = Recorder::start(&net, dir.path(), &["--mode", "copy"]);
    assert!(!rxvlan() && link().contains("promiscuity 1") && link().contains("prog/xdp"), "{}", link());
    assert!(recorder.said.contains("rxvlan switched off while recording"), "{}", recorder.said);
    recorder.stop();
    assert!(rxvlan() && link().contains("promiscuity 0") && !link().contains("xdp"), "{}", link());
}

#[test]
fn a_killed_recorder_is_dead_at_once_in_every_network_namespace() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let store = dir.path().to_str().unwrap().to_owned();
    let recorder = Recorder::start(&net, dir.path(), &["--mode", "packet"]);
    let elsewhere = || {
        let store = store.clone();
        let look = move || {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
            tapedeck(&["status", "--store", &store])
        };
        std::thread::spawn(look).join().unwrap()
    };
    status_when(&store, |_| true);
    let (code, text, said) = elsewhere();
    assert!(code == Some(0) && text.contains(&recorder.pid().to_string()), "{text}{said}");
    recorder.kill();
    let (code, text, said) = elsewhere();
    assert!(code == Some(2) && text.is_empty() && said.contains("no recorder is running"), "{text}{said}");
}
