//! The real captures of the traces folder, recorded by the real writer, asked about what is in them: the
//! answer is that of testing every packet.
//!
//! `TAPEDECK_TRACES` names the folder; unset, one line says how many checks were skipped.

use crate::agreement::{Line, ask};
use std::collections::BTreeMap;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use tapedeck_index::capture_file::CaptureReader;
use tapedeck_index::pcapng::InterfaceInfo;
use tapedeck_packet::{Layer, LinkType, Net, Timestamp, Walk};
use tapedeck_query::filter::Filter;
use tapedeck_query::range::TimeRange;
use tapedeck_writer::{Chain, ChainConfig, SinkChoice};
use tempfile::TempDir;

/// Larger files are left to the tests of the whole import.
const FILE_BYTES_MAX: u64 = 2 * 1024 * 1024;
/// Packets of a file that questions are made from.
const SAMPLES: usize = 2;

/// A packet as it was recorded.
struct Seen {
    link: LinkType,
    interface: String,
    ts: Timestamp,
    bytes: Vec<u8>,
    orig_len: u32,
}

/// Records a capture file into a store of its own, as an import does; what of it could be read.
fn record(path: &Path) -> (TempDir, Vec<Seen>) {
    let dir = tempfile::tempdir().unwrap();
    let seq = Arc::new(AtomicU32::new(0));
    let (mut chains, mut seen, mut walk) = (BTreeMap::new(), Vec::new(), Walk::new());
    if let Ok(mut reader) = CaptureReader::open(File::open(path).unwrap()) {
        while let Ok(true) = reader.advance() {
            let packet = reader.packet().unwrap();
            let interface = &reader.interfaces()[packet.interface];
            let chain = chains.entry(packet.interface).or_insert_with(|| {
                Chain::start(config(dir.path(), packet.interface, interface, &seq)).unwrap()
            });
            walk.run(interface.link_type, packet.record.bytes);
            let _ = chain.append(&packet.record, &walk);
            seen.push(Seen {
                link: interface.link_type,
                interface: format!("if{:03}", packet.interface),
                ts: packet.record.ts,
                bytes: packet.record.bytes.to_vec(),
                orig_len: packet.record.orig_len,
            });
        }
    }
    for chain in chains.into_values() {
        chain.finish().unwrap();
    }
    (dir, seen)
}

fn config(store: &Path, number: usize, interface: &InterfaceInfo, seq: &Arc<AtomicU32>) -> ChainConfig {
    let interface = InterfaceInfo { name: format!("if{number:03}"), ..interface.clone() };
    ChainConfig {
        seq: Arc::clone(seq),
        // Several segments a file; queue and number in the name tell chains apart.
        segment_bytes: 48 * 1024,
        sink: SinkChoice::Plain,
        frame_buffers: 4,
        ..ChainConfig::import(store.to_owned(), "lab".to_owned(), interface)
    }
}

/// Questions about a layer of a packet that is there.
fn questions(layer: &Layer, inner: bool) -> Vec<String> {
    let mut asked = Vec::new();
    if let Net::Ip(ip) = layer.net {
        asked.push(format!("host {}", ip.src));
        asked.push(format!("not src host {}", ip.dst));
        if let Some((sport, dport)) = ip.ports {
            asked.push(format!("host {} and port {dport}", ip.src));
            asked.push(format!(
                "portrange {} or ip6",
                if sport < dport { format!("{sport}-{dport}") } else { format!("{dport}-{sport}") }
            ));
        }
    }
    if let Net::Arp(arp) = layer.net {
        asked.push(format!("arp and net {}/31", std::net::Ipv4Addr::from(u32::from(arp.sender) & !1)));
    }
    asked.extend(layer.community_id(0).map(|id| format!("community-id {id}")));
    asked.extend(layer.vlans().first().map(|vlan| format!("vlan {vlan} and not arp")));
    asked.extend(layer.labels().first().map(|label| format!("mpls {label}")));
    if inner {
        let both = asked.iter().map(|q| format!("udp and inner ({q})")).collect::<Vec<_>>();
        asked = asked.iter().map(|q| format!("inner ({q})")).chain(both).collect();
    }
    asked
}

fn plainly(seen: &[Seen], filter: &Filter, range: &TimeRange) -> Vec<Line> {
    let mut walk = Walk::new();
    let matches = seen.iter().filter(|s| {
        walk.run(s.link, &s.bytes);
        range.contains(s.ts) && filter.matches(&walk, s.orig_len)
    });
    let mut found: Vec<Line> =
        matches.map(|s| (s.ts.nanos(), s.interface.clone(), s.bytes.clone())).collect();
    // Stable: equal ones stay in order of arrival.
    found.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
    found
}

/// Asks about the packets of one file; how many questions.
fn check(path: &Path) -> usize {
    let (store, seen) = record(path);
    let stores: Vec<PathBuf> = vec![store.path().to_owned()];
    let mut texts = ["", "tcp or arp", "inner (udp port 53)", "less 100 and not udp", "ether multicast"]
        .map(str::to_owned)
        .to_vec();
    let mut walk = Walk::new();
    for sample in seen.iter().step_by(seen.len() / SAMPLES + 1) {
        walk.run(sample.link, &sample.bytes);
        for (depth, layer) in walk.layers().iter().enumerate() {
            texts.extend(questions(layer, depth > 0));
        }
    }
    texts.sort();
    texts.dedup();
    let middle = seen.get(seen.len() / 2).map(|s| s.ts).unwrap_or_default();
    for (number, text) in texts.iter().enumerate() {
        let range = match number % 3 {
            0 => TimeRange { from: middle, to: None },
            1 => TimeRange { from: Timestamp::ZERO, to: Some(middle.saturating_add(1)) },
            _ => TimeRange::ALL,
        };
        let filter = Filter::parse(text).unwrap();
        let (got, complete) = ask(&stores, &filter, range, None, usize::MAX);
        assert!(complete, "{}", path.display());
        assert!(got == plainly(&seen, &filter, &range), "{}: {text}", path.display());
    }
    texts.len()
}

#[test]
fn answers_about_real_captures_are_those_of_testing_every_packet() {
    let Some(folder) = std::env::var_os("TAPEDECK_TRACES").map(PathBuf::from) else {
        println!("SKIPPED 1");
        return;
    };
    assert!(folder.is_dir(), "TAPEDECK_TRACES is set but {} is no folder", folder.display());
    let (mut files, mut asked) = (0, 0);
    for suffix in [".pcap", ".pcapng", ".cap", ".trace"] {
        for path in crate::support::files(&folder, suffix) {
            if path.metadata().unwrap().len() <= FILE_BYTES_MAX {
                asked += check(&path);
                files += 1;
            }
        }
    }
    println!("{asked} questions about {files} captures");
    assert!(files > 0, "no captures in {}", folder.display());
}
