//! Flow counts and packet sums against nDPI and Arkime, file by file.
//!
//! Both end flows by rules of their own, so what is compared is the set of (protocol, two ends) and the
//! number of packets in all. docs/sessions.md lists every file that differs, with its reason.

use crate::common;
use crate::table::{Difference, check_list};
use std::collections::BTreeSet;
use std::net::IpAddr;
use std::path::Path;
use tapedeck_session::{Config, Record, Uid};

/// Protocol and the two ends, in order.
type Flow = (u8, (IpAddr, u16), (IpAddr, u16));

fn flow(proto: u8, a: (IpAddr, u16), b: (IpAddr, u16)) -> Flow {
    // Neither of the two has types and codes in the place of ports.
    let strip = |end: (IpAddr, u16)| if matches!(proto, 6 | 17 | 132) { end } else { (end.0, 0) };
    let (a, b) = (strip(a), strip(b));
    (proto, a.min(b), a.max(b))
}

/// Flows and packets of one view of a capture.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct View {
    flows: BTreeSet<Flow>,
    packets: u64,
}

impl View {
    fn of<'r>(records: impl Iterator<Item = &'r Record>) -> Self {
        let mut view = Self::default();
        for record in records {
            let (orig, resp) = (&record.orig, &record.resp);
            view.flows.insert(flow(record.proto, (orig.address, orig.port), (resp.address, resp.port)));
            view.packets += orig.volume.packets + resp.volume.packets;
        }
        view
    }

    /// What is on the wire; what the innermost tunnels carry.
    fn both(records: &[Record]) -> [Self; 2] {
        let parents: BTreeSet<Uid> = records.iter().filter_map(|record| record.parent).collect();
        [
            Self::of(records.iter().filter(|record| !record.inner)),
            Self::of(records.iter().filter(|record| !parents.contains(&record.uid))),
        ]
    }
}

fn number(name: &str) -> Option<u8> {
    Some(match name {
        "TCP" => 6,
        "UDP" => 17,
        "ICMP" => 1,
        "ICMPV6" => 58,
        "IGMP" => 2,
        "SCTP" => 132,
        "PIM" => 103,
        "ESP" => 50,
        "AH" => 51,
        "GRE" => 47,
        "VRRP" => 112,
        "OSPF" => 89,
        _ => return None,
    })
}

/// `1.2.3.4:80`, `[fe80::1]:80`.
fn end(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.rsplit_once(':')?;
    Some((address.trim_matches(['[', ']']).parse().ok()?, port.parse().ok()?))
}

/// The flows that `ndpiReader` prints.
fn ndpi(path: &Path) -> View {
    let mut view = View::default();
    for line in std::fs::read_to_string(path).unwrap().lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [_, proto, a, arrow, b, ..] = words[..] else { continue };
        let (Some(proto), Some(a), Some(b)) = (number(proto), end(a), end(b)) else { continue };
        if !matches!(arrow, "->" | "<->") {
            continue;
        }
        view.flows.insert(flow(proto, a, b));
        view.packets += line.match_indices(" pkts/").map(|(at, _)| count_before(line, at)).sum::<u64>();
    }
    view
}

/// The number that ends at `at`.
fn count_before(line: &str, at: usize) -> u64 {
    let digits = line[..at].rsplit(|c: char| !c.is_ascii_digit()).next().unwrap();
    digits.parse().unwrap()
}

/// The sessions that Arkime expects.
fn arkime(path: &Path) -> View {
    let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
    let mut view = View::default();
    for session in json["sessions3"].as_array().unwrap() {
        let body = &session["body"];
        let Some(proto) = body["ipProtocol"].as_u64().and_then(|p| u8::try_from(p).ok()) else { continue };
        let side = |name: &str| -> Option<(IpAddr, u16)> {
            let port = body[name]["port"].as_u64().unwrap_or(0);
            Some((body[name]["ip"].as_str()?.parse().ok()?, u16::try_from(port).ok()?))
        };
        let (Some(a), Some(b)) = (side("source"), side("destination")) else { continue };
        view.flows.insert(flow(proto, a, b));
        view.packets += body["network"]["packets"].as_u64().unwrap();
    }
    view
}

/// Compares all files of a group; returns how many there are and what differs.
fn compare(folder: &Path, ending: &str, theirs: fn(&Path) -> View) -> (usize, Vec<Difference>) {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| name.ends_with(ending))
        .collect();
    names.sort();
    let mut found = Vec::new();
    for name in &names {
        let stem = name.trim_end_matches(ending);
        let capture =
            [stem.to_owned(), format!("{stem}.pcap")].into_iter().find(|n| folder.join(n).is_file());
        let records = common::records(Config::default(), &common::packets(&folder.join(capture.unwrap())));
        let (theirs, ours) = (theirs(&folder.join(name)), View::both(&records));
        let same = |ours: &View| ours.packets == theirs.packets && ours.flows.len() == theirs.flows.len();
        if !ours.iter().any(same) {
            let say = |view: &View| format!("{} flows, {} packets", view.flows.len(), view.packets);
            let [outer, inner] = &ours;
            let tunnels = if outer == inner { String::new() } else { format!("; innermost {}", say(inner)) };
            found.push(Difference {
                capture: stem.to_owned(),
                session: ending.trim_start_matches('.').to_owned(),
                theirs: say(&theirs),
                ours: say(outer) + &tunnels,
            });
        }
    }
    (names.len(), found)
}

#[test]
fn flows_and_packets_are_ndpis_and_arkimes_but_for_the_listed() {
    let Some(folder) = common::traces() else {
        println!("SKIPPED 1");
        return;
    };
    let (ndpi_files, mut found) = compare(&folder.join("ndpi-flows"), ".ndpi.out", ndpi);
    let (arkime_files, in_arkime) = compare(&folder.join("arkime-sessions"), ".test.json", arkime);
    println!(
        "nDPI {} of {ndpi_files} files differ, Arkime {} of {arkime_files}",
        found.len(),
        in_arkime.len()
    );
    let enough = |files: usize, differ: usize| (files - differ) * 100 >= files * 95;
    assert!(ndpi_files > 200 && enough(ndpi_files, found.len()));
    assert!(arkime_files > 100 && enough(arkime_files, in_arkime.len()));
    found.extend(in_arkime);
    check_list("sessions.md", &found);
}
