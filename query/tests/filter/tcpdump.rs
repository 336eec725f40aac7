//! Filters in the language we share with tcpdump choose the packets that tcpdump chooses.
//!
//! Compared over packets in which nothing stands that the two read differently on purpose (docs/filter.md):
//! what `plain` leaves out is told from the raw bytes, not from our walk.

use crate::common::{self, Packet};
use crate::corpus::{self, Corpus};
use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use tapedeck_packet::LinkType;

/// No tags, labels, SNAP, extension headers, AH or cut headers.
fn plain(packet: &Packet) -> bool {
    plain_bytes(packet).unwrap_or(false)
}

fn plain_bytes(packet: &Packet) -> Option<bool> {
    let bytes = packet.bytes.as_slice();
    let ethertype = |at: usize| Some(u16::from_be_bytes(bytes.get(at..)?.first_chunk().copied()?));
    let (kind, at) = match packet.link {
        LinkType::ETHERNET => (ethertype(12)?, 14),
        LinkType::LINUX_SLL => (ethertype(14)?, 16),
        LinkType::C_HDLC => (ethertype(2)?, 4),
        LinkType::NULL => (if bytes.contains(&2) { 0x0800 } else { 0x86dd }, 4),
        _ => (if bytes.first()? >> 4 == 4 { 0x0800 } else { 0x86dd }, 0),
    };
    let net = bytes.get(at..)?;
    Some(match kind {
        0x0800 => plain_v4(net)?,
        0x86dd => {
            net.len() >= 44 && net[0] >> 4 == 6 && !matches!(net[6], 0 | 43 | 44 | 51 | 60 | 135 | 139 | 140)
        }
        0x0806 | 0x8035 => net.get(2..6)? == [8, 0, 6, 4] && net.len() >= 28,
        0x8100 | 0x88a8 | 0x9100 | 0x8847 | 0x8848 | 0x8864 | 0x88e5 | 0x8903 | 0x8909 => false,
        0..=1500 => net.len() > 8 && net[..2] != [0xaa, 0xaa] && packet.link == LinkType::ETHERNET,
        _ => true,
    })
}

fn plain_v4(net: &[u8]) -> Option<bool> {
    let header = usize::from(net.first()? & 15) * 4;
    let later = u16::from_be_bytes([*net.get(6)?, *net.get(7)?]) & 0x1fff != 0;
    let whole = header >= 20 && net.len() >= header + if later { 0 } else { 4 };
    Some(net[0] >> 4 == 4 && whole && net[9] != 51)
}

/// The packets that tcpdump chooses; `None` if it refuses the filter for this link type.
fn theirs(corpus: &Corpus, filter: &str) -> Option<BTreeSet<u32>> {
    let output = Command::new("tcpdump")
        .args(["-n", "-r"])
        .arg(&corpus.file)
        .args(["-w", "-", "--", filter])
        .stderr(Stdio::null())
        .output()
        .unwrap();
    output.status.success().then(|| corpus::numbers(&output.stdout))
}

/// Compares all filters over one corpus; returns how many tcpdump took and how many chose something.
fn compare(corpus: &Corpus, wrong: &mut Vec<String>) -> (usize, Vec<String>) {
    let (mut taken, mut empty) = (0, Vec::new());
    for line in corpus::lines(include_str!("tcpdump.txt")) {
        let (filter, spelling) = line.split_once(" => ").unwrap_or((line, line));
        let Some(theirs) = theirs(corpus, spelling) else {
            empty.push(format!("{filter} (refused)"));
            continue;
        };
        taken += 1;
        let ours = corpus.ours(filter);
        if theirs.is_empty() {
            empty.push(filter.to_owned());
        }
        if ours != theirs {
            wrong.push(corpus::report(corpus, filter, &ours, &theirs));
        }
    }
    (taken, empty)
}

#[test]
fn we_choose_what_tcpdump_chooses() {
    let Some(folder) = common::traces() else {
        println!("SKIPPED 1");
        return;
    };
    let files = corpus::all_files(&folder);
    let links = [
        ("ethernet", LinkType::ETHERNET, 100_000),
        ("sll", LinkType::LINUX_SLL, 100),
        ("raw", LinkType::RAW, 100),
        ("null", LinkType::NULL, 100),
        ("hdlc", LinkType::C_HDLC, 10),
        ("ipv4", LinkType::IPV4, 10),
    ];
    let mut wrong = Vec::new();
    for (name, link, at_least) in links {
        let corpus = Corpus::build(name, &files, link, plain);
        assert!(corpus.packets.len() >= at_least, "{name}: {}", corpus.packets.len());
        let (taken, empty) = compare(&corpus, &mut wrong);
        println!("{name}: {} packets, {taken} filters, {} chose nothing", corpus.packets.len(), empty.len());
        if link == LinkType::ETHERNET {
            assert!(empty.is_empty(), "vacuous: {empty:?}");
            assert!(taken >= 80);
        }
    }
    assert!(wrong.is_empty(), "{} differ\n{}", wrong.len(), wrong.join("\n"));
}
