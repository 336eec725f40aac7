//! The outermost addresses and ports of every link type, as tshark sees them.

use crate::common;
use crate::corpus::{self, Corpus};
use std::process::Command;
use tapedeck_packet::{LinkType, Net, Walk};

/// Link types of the given traces other than Ethernet.
const LINKS: &[u16] =
    &[0, 9, 10, 12, 50, 100, 101, 104, 105, 107, 108, 113, 117, 127, 192, 228, 229, 239, 276];

const FIELDS: &[&str] = &[
    "frame.number",
    "ip.src",
    "ipv6.src",
    "ip.dst",
    "ipv6.dst",
    "tcp.srcport",
    "tcp.dstport",
    "udp.srcport",
    "udp.dstport",
];

/// What tshark says of a packet: the first of each field.
struct Theirs {
    number: usize,
    ends: [String; 2],
    tcp: [String; 2],
    udp: [String; 2],
}

fn theirs(corpus: &Corpus) -> Vec<Theirs> {
    let mut tshark = Command::new("tshark");
    tshark.args(["-n", "-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE", "-T", "fields"]);
    tshark.args(["-E", "occurrence=f", "-r"]).arg(&corpus.file);
    tshark.args(FIELDS.iter().flat_map(|field| ["-e", field]));
    let output = tshark.output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let row = |line: &str| {
        let cells: Vec<String> = line.split('\t').map(str::to_owned).collect();
        let either = |at: usize| if cells[at].is_empty() { &cells[at + 1] } else { &cells[at] }.clone();
        Theirs {
            number: cells[0].parse::<usize>().unwrap() - 1,
            ends: [either(1), either(3)],
            tcp: [cells[5].clone(), cells[6].clone()],
            udp: [cells[7].clone(), cells[8].clone()],
        }
    };
    text.lines().map(row).collect()
}

/// The same addresses; and our ports are those of the first TCP or UDP header (inside a tunnel or an
/// ICMP error there may be another).
fn same(walk: &Walk, theirs: &Theirs) -> bool {
    let Net::Ip(ip) = walk.layers()[0].net else { return theirs.ends[0].is_empty() };
    let text = |pair: (u16, u16)| [pair.0.to_string(), pair.1.to_string()];
    let ports = match (ip.proto, ip.ports) {
        (6, Some(ports)) => text(ports) == theirs.tcp,
        (17, Some(ports)) => text(ports) == theirs.udp,
        _ => true,
    };
    ports && theirs.ends == [ip.src.to_string(), ip.dst.to_string()]
}

/// Cisco HDLC in a file that says BSD loopback: tshark guesses it, we do not.
fn excused(link: LinkType, bytes: &[u8]) -> bool {
    link == LinkType::NULL && bytes.starts_with(&[0x0f, 0, 8, 0])
}

#[test]
fn every_link_type_is_read_as_tshark_reads_it() {
    let Some(folder) = common::traces() else {
        println!("SKIPPED 1");
        return;
    };
    let files = corpus::all_files(&folder);
    let mut wrong = Vec::new();
    for link in LINKS {
        let corpus = Corpus::build(&format!("link{link}"), &files, LinkType(*link), |_| true);
        let mut walk = Walk::new();
        let mut agreed = 0;
        for theirs in theirs(&corpus) {
            let packet = &corpus.packets[theirs.number];
            walk.run(packet.link, &packet.bytes);
            if same(&walk, &theirs) {
                agreed += usize::from(!theirs.ends[0].is_empty());
            } else if !excused(packet.link, &packet.bytes) {
                let bytes = &packet.bytes[..packet.bytes.len().min(64)];
                wrong.push(format!("{} #{} {:?} {bytes:02x?}", packet.link, theirs.number, theirs.ends));
            }
        }
        println!("{} {} packets, {agreed} with the same ends", LinkType(*link), corpus.packets.len());
    }
    assert!(wrong.is_empty(), "{}\n{}", wrong.len(), wrong[..wrong.len().min(10)].join("\n"));
}
