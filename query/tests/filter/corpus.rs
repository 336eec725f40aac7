//! Packets of many traces in one capture file, each with its number as its time, so that another
//! program's output says which packets it chose.

use crate::common::{self, Packet};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use tapedeck_packet::{LinkType, Walk};
use tapedeck_query::filter::Filter;

/// Longest packet that tcpdump takes from a file.
const MAX_BYTES: usize = 262_144;

pub(crate) struct Corpus {
    pub(crate) packets: Vec<Packet>,
    pub(crate) file: PathBuf,
}

impl Corpus {
    /// The packets of link type `link` that `keep` wants, from all `files`, written to one file.
    pub(crate) fn build(
        name: &str,
        files: &[PathBuf],
        link: LinkType,
        keep: impl Fn(&Packet) -> bool,
    ) -> Self {
        let packets: Vec<Packet> = files
            .iter()
            .flat_map(|file| common::packets(file))
            .filter(|packet| packet.link == link && packet.bytes.len() < MAX_BYTES && keep(packet))
            .collect();
        let file = std::env::temp_dir().join(format!("tapedeck-{}-{name}.pcap", std::process::id()));
        std::fs::write(&file, pcap(link, &packets)).unwrap();
        Self { packets, file }
    }

    /// Numbers of the packets that our filter chooses.
    pub(crate) fn ours(&self, filter: &str) -> BTreeSet<u32> {
        let filter = Filter::parse(filter).unwrap_or_else(|error| panic!("{error}"));
        let mut walk = Walk::new();
        let chosen = self.packets.iter().zip(0_u32..).filter(|(packet, _)| {
            walk.run(packet.link, &packet.bytes);
            filter.matches(&walk, packet.orig_len)
        });
        chosen.map(|(_, number)| number).collect()
    }
}

impl Drop for Corpus {
    fn drop(&mut self) {
        // Best effort: the file lies in the temporary folder.
        let _ = std::fs::remove_file(&self.file);
    }
}

fn pcap(link: LinkType, packets: &[Packet]) -> Vec<u8> {
    let mut out = Vec::new();
    let snaplen = u32::try_from(MAX_BYTES).unwrap();
    for word in [0xa1b2_c3d4, 0x0004_0002, 0, 0, snaplen, u32::from(link.0)] {
        out.extend(word.to_le_bytes());
    }
    for (packet, number) in packets.iter().zip(0_u32..) {
        let caplen = u32::try_from(packet.bytes.len()).unwrap();
        for word in [number, 0, caplen, packet.orig_len.max(caplen)] {
            out.extend(word.to_le_bytes());
        }
        out.extend(&packet.bytes);
    }
    out
}

/// Numbers of the packets in a little-endian pcap that a program wrote from a corpus.
pub(crate) fn numbers(pcap: &[u8]) -> BTreeSet<u32> {
    let mut rest = &pcap[24..];
    let mut numbers = BTreeSet::new();
    let word = |bytes: &[u8]| u32::from_le_bytes(bytes[..4].try_into().unwrap());
    while rest.len() >= 16 {
        numbers.insert(word(rest));
        rest = &rest[16 + usize::try_from(word(&rest[8..])).unwrap()..];
    }
    numbers
}

/// The lines of a table: no comments, no empty ones.
pub(crate) fn lines(table: &str) -> impl Iterator<Item = &str> {
    table.lines().filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// Says what differs, with the first packets on each side.
pub(crate) fn report(corpus: &Corpus, filter: &str, ours: &BTreeSet<u32>, theirs: &BTreeSet<u32>) -> String {
    let show = |numbers: Vec<&u32>| -> String {
        let some = numbers.iter().take(2).map(|number| {
            let packet = &corpus.packets[usize::try_from(**number).unwrap()];
            format!("\n    #{number} {:02x?}", &packet.bytes[..packet.bytes.len().min(80)])
        });
        format!("{}{}", numbers.len(), some.collect::<String>())
    };
    format!(
        "`{filter}`\n  only ours: {}\n  only theirs: {}",
        show(ours.difference(theirs).collect()),
        show(theirs.difference(ours).collect())
    )
}

/// A temporary corpus must be small enough to write: fails on an empty one too.
pub(crate) fn all_files(folder: &Path) -> Vec<PathBuf> {
    let files = common::capture_files(folder);
    assert!(files.len() > 25, "only {} traces", files.len());
    files
}
