//! Fingerprints of TLS clients, against a tshark that has them (4.2 and later).
//!
//! `TAPEDECK_NEWER_TSHARK` names a folder with such a tshark and its libraries, as `cargo xtask soak` unpacks it.

use crate::differences;
use crate::flows;
use crate::traces;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const FIELD: &str = "tls.handshake.ja4";

/// The tshark of `root`, run with the libraries there.
fn newer(root: &Path) -> Command {
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    let mut command = Command::new(libraries.join("ld-linux-x86-64.so.2"));
    command.arg("--library-path").arg(&libraries).arg(root.join("usr/bin/tshark")).stderr(Stdio::null());
    command
}

fn root() -> Option<PathBuf> {
    let Some(root) = std::env::var_os("TAPEDECK_NEWER_TSHARK").map(PathBuf::from) else {
        println!("SKIPPED 1 TAPEDECK_NEWER_TSHARK is not set");
        return None;
    };
    let fields = newer(&root).args(["-G", "fields"]).output().expect("it runs").stdout;
    assert!(String::from_utf8_lossy(&fields).contains(FIELD), "{} has no {FIELD}", root.display());
    Some(root)
}

/// The first fingerprint of each stream: TCP or UDP, tshark's number.
fn theirs(root: &Path, file: &Path) -> BTreeMap<(u8, u32), String> {
    let mut command = newer(root);
    command.args(["-n", "-o", "tcp.reassemble_out_of_order:TRUE", "-Y", FIELD, "-T", "fields"]);
    command.args(["-E", "separator=/t", "-E", "aggregator=/s"]);
    command.args(["-e", "tcp.stream", "-e", "udp.stream", "-e", FIELD, "-r"]).arg(file);
    let rows = command.output().expect("it runs").stdout;
    let mut found = BTreeMap::new();
    for row in String::from_utf8_lossy(&rows).lines() {
        let [tcp, udp, value] = row.split('\t').collect::<Vec<_>>()[..] else { panic!("{row}") };
        // The innermost stream, the first hello.
        let last = |text: &str| text.split(' ').next_back().and_then(|number| number.parse().ok());
        let key = last(tcp).map(|stream| (6, stream)).or_else(|| last(udp).map(|stream| (17, stream)));
        // A hello in EAP has no session.
        let Some(key) = key else { continue };
        found.entry(key).or_insert_with(|| value.split(' ').next().unwrap_or_default().to_owned());
    }
    found
}

#[test]
fn soak_fingerprints_equal_those_of_a_newer_tshark() {
    let (Some(folder), Some(root)) = (traces::folder(), root()) else { return };
    let (mut agree, mut others, mut read) = (0, BTreeSet::new(), BTreeSet::new());
    for file in traces::captures(&folder) {
        let flows = flows::read(&folder, &file);
        let rows = traces::rows(&folder, &file);
        let has_hello = ["tls", "quic", "dtls", "ssl"].iter().any(|name| rows.contains(&format!(":{name}")));
        // Where neither tshark sees one of these protocols nor we a hello, there is nothing to compare.
        if !has_hello && flows.iter().all(|flow| flow.service().ja4.is_none()) {
            continue;
        }
        let mut theirs = theirs(&root, &folder.join(&file));
        for flow in flows {
            let ours = flow.service().ja4;
            let theirs = theirs.remove(&(flow.facts.unwrap().proto, flow.stream));
            if ours.as_deref() == theirs.as_deref() {
                agree += usize::from(ours.is_some());
            } else {
                let (ours, theirs) = (ours.as_deref().unwrap_or("-"), theirs.as_deref().unwrap_or("-"));
                others.insert(format!("{}|{ours}|{theirs}", flow.at()));
            }
        }
        for ((proto, stream), value) in theirs {
            let kind = if proto == 6 { "tcp" } else { "udp" };
            others.insert(format!("{file}|{kind}|{stream}|-|{value}"));
        }
        read.insert(file);
    }
    println!("{agree} fingerprints agree, {} differ and are listed", others.len());
    assert!(agree > 0);
    differences::check(&folder, "ja4 tshark", &read, &others);
}
