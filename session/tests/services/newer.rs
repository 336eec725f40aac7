//! Fingerprints of TLS clients, against a tshark that has them (4.2 and later).
//!
//! `TAPEDECK_NEWER_TSHARK` names a folder with such a tshark and its libraries, as `cargo xtask soak` unpacks it.

use crate::differences;
use crate::flows::{self, Flow};
use crate::traces;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Where tshark has fingerprints: of TLS and QUIC, of DTLS.
const FIELDS: [&str; 2] = ["tls.handshake.ja4", "dtls.handshake.ja4"];

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
    let fields = String::from_utf8_lossy(&fields);
    assert!(FIELDS.iter().all(|field| fields.contains(field)), "{} is too old", root.display());
    Some(root)
}

/// The client's address and port, and the server's port: streams have other numbers in other versions.
type Client = (String, u16, u16);

/// The fingerprints of each client's port.
fn theirs(root: &Path, file: &Path) -> BTreeMap<Client, BTreeSet<String>> {
    const ENDS: [&str; 6] =
        ["ip.src", "ipv6.src", "tcp.srcport", "udp.srcport", "tcp.dstport", "udp.dstport"];
    let mut command = newer(root);
    command.args(["-n", "-o", "tcp.reassemble_out_of_order:TRUE", "-Y", &FIELDS.join(" or ")]);
    command.args(["-T", "fields", "-E", "separator=/t", "-E", "aggregator=/s"]);
    for field in FIELDS.iter().chain(&ENDS) {
        command.args(["-e", field]);
    }
    let rows = command.arg("-r").arg(file).output().expect("it runs").stdout;
    let mut found: BTreeMap<Client, BTreeSet<String>> = BTreeMap::new();
    for row in String::from_utf8_lossy(&rows).lines() {
        let columns: Vec<&str> = row.split('\t').collect();
        // The innermost layer.
        let last = |at: usize| columns[at].split(' ').next_back().filter(|text| !text.is_empty());
        let either = |at: usize| last(at).or_else(|| last(at + 1));
        let port = |at| either(at).and_then(|text| text.parse::<u16>().ok());
        // A hello in EAP has no session.
        let (Some(from), Some(to)) = (port(4), port(6)) else { continue };
        let address = last(3).or_else(|| last(2)).unwrap_or_default().to_owned();
        let values =
            columns[..2].iter().flat_map(|column| column.split(' ')).filter(|value| !value.is_empty());
        found.entry((address, from, to)).or_default().extend(values.map(str::to_owned));
    }
    found
}

/// tshark shows a packet of the session as one of TLS.
fn is_shown(flow: &Flow) -> bool {
    flow.columns.iter().any(|column| ["TLS", "SSL", "QUIC"].iter().any(|name| column.contains(name)))
}

fn check(part: usize) {
    let (Some(folder), Some(root)) = (traces::folder(), root()) else { return };
    let (mut agree, mut by_port, mut others, mut read) = (0, 0, BTreeSet::new(), BTreeSet::new());
    for file in traces::captures(&folder).into_iter().skip(part).step_by(traces::PARTS) {
        let flows = flows::read(&folder, &file);
        let rows = traces::rows(&folder, &file);
        let has_hello = ["tls", "quic", "dtls", "ssl"].iter().any(|name| rows.contains(&format!(":{name}")));
        read.insert(file.clone());
        // Where neither tshark sees one of these protocols nor we a hello, there is nothing to compare.
        if !has_hello && flows.iter().all(|flow| flow.service().ja4.is_none()) {
            continue;
        }
        let theirs = theirs(&root, &folder.join(&file));
        let mut met = BTreeSet::new();
        for flow in flows {
            let Some(ours) = flow.service().ja4 else { continue };
            let [(client, from), (_, to)] = &flow.ends;
            let client = (client.clone(), *from, *to);
            let known = theirs.get(&client);
            if known.is_some_and(|known| known.contains(&*ours)) {
                agree += 1;
                met.insert((client, ours.to_string()));
            } else if known.is_none() && !is_shown(&flow) {
                // Taken for something else because of its port.
                by_port += 1;
            } else {
                others.insert(format!("{}|{ours}|-", flow.at()));
            }
        }
        for (client, values) in theirs {
            for value in values.into_iter().filter(|value| !met.contains(&(client.clone(), value.clone()))) {
                let (address, from, to) = &client;
                others.insert(format!("{file}|{address}:{from}|{to}|-|{value}"));
            }
        }
    }
    println!(
        "{agree} fingerprints agree, {by_port} only ours by port, {} differ and are listed",
        others.len()
    );
    differences::check(&folder, "ja4 tshark", &read, &others);
}

#[test]
fn soak_fingerprints_part_0() {
    check(0);
}

#[test]
fn soak_fingerprints_part_1() {
    check(1);
}

#[test]
fn soak_fingerprints_part_2() {
    check(2);
}

#[test]
fn soak_fingerprints_part_3() {
    check(3);
}

#[test]
fn soak_fingerprints_part_4() {
    check(4);
}

#[test]
fn soak_fingerprints_part_5() {
    check(5);
}

#[test]
fn soak_fingerprints_part_6() {
    check(6);
}

#[test]
fn soak_fingerprints_part_7() {
    check(7);
}
