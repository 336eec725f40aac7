//! Community IDs against the specification's vectors and against the sessions Arkime expects.

use crate::common;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use tapedeck_packet::{CommunityId, Direction, FlowKey, Layer, Walk};

/// (protocol, source, destination, ports where hashed, id).
type Vector = (u64, String, String, Option<(u64, u64)>, String);

fn json(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

fn expected(path: &Path) -> BTreeSet<Vector> {
    let vectors = json(path);
    let text = |v: &Value| v.as_str().unwrap().to_owned();
    let row = |v: &Value| {
        let ports = v["sport"].as_u64().zip(v["dport"].as_u64());
        (v["proto"].as_u64().unwrap(), text(&v["saddr"]), text(&v["daddr"]), ports, text(&v["communityid"]))
    };
    vectors.as_array().unwrap().iter().map(row).collect()
}

fn vector(layer: &Layer, seed: u16, text: fn(CommunityId) -> String) -> Option<Vector> {
    let (key, direction) = layer.flow()?;
    let id = text(layer.community_id(seed)?);
    let (a, b) = ((key.addr_a, key.port_a), (key.addr_b, key.port_b));
    let (src, dst) = if direction == Direction::AtoB { (a, b) } else { (b, a) };
    let ports = CommunityId::hashes_ports(key.proto).then_some((u64::from(src.1), u64::from(dst.1)));
    Some((u64::from(key.proto), src.0.to_string(), dst.0.to_string(), ports, id))
}

fn hex(id: CommunityId) -> String {
    id.0.iter().fold("1:".to_owned(), |text, byte| text + &format!("{byte:02x}"))
}

#[test]
fn every_vector_of_the_specification_is_reproduced() {
    let Some(folder) = common::traces().map(|traces| traces.join("community-id")) else {
        println!("SKIPPED 3");
        return;
    };
    let base64: fn(CommunityId) -> String = |id| id.to_string();
    let tables = [("deflt", 0, base64), ("seed1", 1, base64), ("nob64", 0, hex)];
    let mut walk = Walk::new();
    for (name, seed, text) in tables {
        let mut found = BTreeSet::new();
        for packet in common::packets(&folder.join("combined.pcap")) {
            walk.run(packet.link, &packet.bytes);
            found.extend(vector(&walk.layers()[0], seed, text));
        }
        assert_eq!(found, expected(&folder.join(format!("baseline_{name}.json"))), "{name}");
    }
}

/// The ids of one Arkime test: all it expects, with the session as text for the report.
fn arkime(path: &Path) -> BTreeMap<String, String> {
    let sessions = json(path);
    let sessions = sessions["sessions3"].as_array().cloned().unwrap_or_default();
    let row = |session: &Value| {
        let body = &session["body"];
        let id = body["network"]["community_id"].as_str()?.to_owned();
        let end = |side: &str| format!("{}:{}", body[side]["ip"], body[side]["port"]);
        Some((id, format!("{} {} {}", body["ipProtocol"], end("source"), end("destination"))))
    };
    sessions.iter().filter_map(row).collect()
}

/// All ids of a packet's layers; and those that differ if a one-way ICMP message is ordered like a
/// conversation, which the specification (and Zeek) does not do and Arkime does.
fn ids(walk: &Walk) -> (BTreeSet<String>, BTreeSet<String>) {
    let ids = walk.layers().iter().filter_map(|layer| layer.community_id(0)).map(|id| id.to_string());
    let ordered = walk.layers().iter().filter_map(|layer| {
        let (key, _) = layer.flow()?;
        let other = FlowKey::new((key.addr_a, key.port_a), (key.addr_b, key.port_b), key.proto, false).0;
        (other != key).then(|| other.community_id(true, 0).to_string())
    });
    (ids.collect(), ordered.collect())
}

#[test]
fn arkime_finds_the_same_ids() {
    let Some(folder) = common::traces().map(|traces| traces.join("arkime-sessions")) else {
        println!("SKIPPED 1");
        return;
    };
    let (mut equal, mut ordered, mut unexplained) = (0, 0, Vec::new());
    let mut walk = Walk::new();
    for file in common::capture_files(&folder) {
        let (mut ours, mut as_arkime_orders) = (BTreeSet::new(), BTreeSet::new());
        for packet in common::packets(&file) {
            walk.run(packet.link, &packet.bytes);
            let (same, other) = ids(&walk);
            ours.extend(same);
            as_arkime_orders.extend(other);
        }
        for (id, session) in arkime(&file.with_extension("test.json")) {
            match (ours.contains(&id), as_arkime_orders.contains(&id)) {
                (true, _) => equal += 1,
                (false, true) => ordered += 1,
                (false, false) => unexplained.push(format!("{} {id} {session}", file.display())),
            }
        }
    }
    println!("{equal} ids equal, {ordered} one-way ICMP messages that Arkime orders");
    assert!(unexplained.is_empty(), "{unexplained:#?}");
    assert!(equal >= 295 && ordered == 2, "{equal} {ordered}");
}
