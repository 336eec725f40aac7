//! Filters that mean more to us than to tcpdump choose the packets that a display filter chooses.

use crate::common;
use crate::corpus::{self, Corpus};
use std::collections::BTreeSet;
use std::process::{Command, Stdio};
use tapedeck_packet::LinkType;

/// Numbers of the packets that tshark chooses. Reassembly is off: each packet speaks for itself.
fn theirs(corpus: &Corpus, filter: &str) -> BTreeSet<u32> {
    let output = Command::new("tshark")
        .args(["-n", "-o", "ip.defragment:FALSE", "-o", "ipv6.defragment:FALSE"])
        .args(["-o", "tcp.desegment_tcp_streams:FALSE", "-T", "fields", "-e", "frame.number", "-r"])
        .arg(&corpus.file)
        .args(["-Y", filter])
        .stderr(Stdio::piped())
        .output()
        .unwrap();
    assert!(output.status.success(), "`{filter}`: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    text.lines().map(|line| line.parse::<u32>().unwrap() - 1).collect()
}

/// Compares the filters of one section of the table.
fn section(number: usize) {
    let Some(folder) = common::traces() else {
        println!("SKIPPED 1");
        return;
    };
    let text = include_str!("tshark.txt").split("@ ").nth(number).unwrap();
    let mut lines = corpus::lines(text);
    let files: Vec<_> = lines.next().unwrap().split_whitespace().map(|file| folder.join(file)).collect();
    let corpus = Corpus::build(&format!("tshark{number}"), &files, LinkType::ETHERNET, |_| true);
    let (mut filters, mut wrong) = (0, Vec::new());
    for line in lines {
        let (filter, display) = line.split_once(" => ").unwrap();
        let (ours, theirs) = (corpus.ours(filter), theirs(&corpus, display));
        filters += 1;
        if ours != theirs {
            wrong.push(corpus::report(&corpus, filter, &ours, &theirs));
        } else if ours.is_empty() {
            wrong.push(format!("`{filter}` chooses nothing"));
        }
    }
    println!("{} files, {} packets, {filters} filters", files.len(), corpus.packets.len());
    assert!(wrong.is_empty(), "{} of {filters} differ\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn tags_and_labels() {
    section(1);
}

#[test]
fn extension_headers_and_fragments() {
    section(2);
}

#[test]
fn inside_tunnels() {
    section(3);
}
