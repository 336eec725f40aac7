//! The traces folder, and packets out of capture files (read by `pcap-parser`, not by our own code).
//!
//! `TAPEDECK_TRACES` unset: the caller prints `SKIPPED n`. Set but missing: a failure.

use pcap_parser::{Block, Linktype, PcapBlockOwned, PcapError, create_reader};
use std::path::{Path, PathBuf};
use tapedeck_packet::LinkType;

/// One packet of a capture file.
pub(crate) struct Packet {
    pub(crate) link: LinkType,
    pub(crate) orig_len: u32,
    pub(crate) bytes: Vec<u8>,
}

/// The folder of real captures; `None` when the environment names none.
pub(crate) fn traces() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("TAPEDECK_TRACES")?);
    assert!(folder.is_dir(), "TAPEDECK_TRACES is set but {} is no folder", folder.display());
    Some(folder)
}

/// All files below `folder` that begin like a pcap or pcapng file, in order of name.
pub(crate) fn capture_files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut open = vec![folder.to_path_buf()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if is_capture(&path) {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

fn is_capture(path: &Path) -> bool {
    use std::io::Read as _;
    let mut magic = [0; 4];
    std::fs::File::open(path).unwrap().read_exact(&mut magic).is_ok()
        && matches!(
            u32::from_le_bytes(magic),
            0xa1b2_c3d4 | 0xd4c3_b2a1 | 0xa1b2_3c4d | 0x4d3c_b2a1 | 0x0a0d_0d0a
        )
}

/// Packets of one file, up to the first place the reader cannot understand.
pub(crate) fn packets(path: &Path) -> Vec<Packet> {
    let file = std::fs::File::open(path).unwrap();
    let capacity = usize::try_from(file.metadata().unwrap().len()).unwrap() + 65_536;
    let Ok(mut reader) = create_reader(capacity, file) else { return Vec::new() };
    let (mut packets, mut links) = (Vec::new(), Vec::new());
    loop {
        let exhausted = reader.reader_exhausted();
        match reader.next() {
            Ok((used, block)) => {
                packets.extend(packet(&mut links, &block));
                reader.consume(used);
            }
            Err(PcapError::Incomplete(_)) if !exhausted => {
                if reader.refill().is_err() {
                    break;
                }
            }
            Err(_) => break,
        }
    }
    packets
}

/// The packet in a block; interface descriptions are noted in `links`.
fn packet(links: &mut Vec<(Linktype, u32)>, block: &PcapBlockOwned<'_>) -> Option<Packet> {
    let make = |link: Linktype, orig_len: u32, caplen: u32, data: &[u8]| {
        // The upper bits of a pcap header's field tell of frame check sequences.
        let link = LinkType(u16::try_from(link.0 & 0xffff).unwrap());
        let bytes = data.get(..usize::try_from(caplen).unwrap()).unwrap_or(data).to_vec();
        Some(Packet { link, orig_len, bytes })
    };
    match block {
        PcapBlockOwned::LegacyHeader(header) => {
            *links = vec![(header.network, header.snaplen)];
            None
        }
        PcapBlockOwned::Legacy(p) => make(links.first()?.0, p.origlen, p.caplen, p.data),
        PcapBlockOwned::NG(Block::SectionHeader(_)) => {
            links.clear();
            None
        }
        PcapBlockOwned::NG(Block::InterfaceDescription(idb)) => {
            links.push((idb.linktype, idb.snaplen));
            None
        }
        PcapBlockOwned::NG(Block::EnhancedPacket(p)) => {
            make(links.get(usize::try_from(p.if_id).unwrap())?.0, p.origlen, p.caplen, p.data)
        }
        PcapBlockOwned::NG(Block::SimplePacket(p)) => {
            let (link, snaplen) = *links.first()?;
            let caplen = if snaplen == 0 { p.origlen } else { p.origlen.min(snaplen) };
            make(link, p.origlen, caplen, p.data)
        }
        PcapBlockOwned::NG(_) => None,
    }
}
