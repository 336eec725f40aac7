//! Captures, and a table fed with them.

use std::path::{Path, PathBuf};
use tapedeck_index::capture_file::CaptureReader;
use tapedeck_packet::{LinkType, Timestamp, Walk};
use tapedeck_session::{Config, Packet, Place, Record, Table};

/// One packet of a capture file.
#[derive(Clone, Debug)]
pub(crate) struct Captured {
    pub(crate) link: LinkType,
    pub(crate) ts: Timestamp,
    pub(crate) original_bytes: u32,
    pub(crate) bytes: Vec<u8>,
}

/// The folder of real captures; `None` when the environment names none.
pub(crate) fn traces() -> Option<PathBuf> {
    let folder = PathBuf::from(std::env::var_os("TAPEDECK_TRACES")?);
    assert!(folder.is_dir(), "TAPEDECK_TRACES is set but {} is no folder", folder.display());
    Some(folder)
}

/// All files below `folder` that are captures, in order of name.
pub(crate) fn captures(folder: &Path) -> Vec<PathBuf> {
    let (mut found, mut open) = (Vec::new(), vec![folder.to_path_buf()]);
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(&next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else if CaptureReader::open(std::fs::File::open(&path).unwrap()).is_ok() {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Packets of one file, up to the first place the reader cannot understand.
pub(crate) fn packets(path: &Path) -> Vec<Captured> {
    let mut reader = CaptureReader::open(std::fs::File::open(path).unwrap()).unwrap();
    let mut packets = Vec::new();
    while let Ok(true) = reader.advance() {
        let packet = reader.packet().unwrap();
        packets.push(Captured {
            link: reader.interfaces()[packet.interface].link_type,
            ts: packet.record.ts,
            original_bytes: packet.record.orig_len,
            bytes: packet.record.bytes.to_vec(),
        });
    }
    packets
}

/// Where the test stores packet `number` of a capture: 20 a frame, 7 frames a segment.
pub(crate) fn place(number: usize) -> Place {
    let frame = u32::try_from(number / 20).unwrap();
    Place::new(frame / 7, frame % 7)
}

/// Feeds all packets in batches of 64, expiring as a worker does; returns the records in order.
pub(crate) fn run(table: &mut Table, packets: &[Captured]) -> Vec<Record> {
    let mut records = Vec::new();
    let mut walk = Walk::new();
    let numbered: Vec<(usize, &Captured)> = packets.iter().enumerate().collect();
    for batch in numbered.chunks(64) {
        let mut sink = |record| records.push(record);
        let mut stage = table.stage(&mut sink);
        for (number, packet) in batch {
            walk.run(packet.link, &packet.bytes);
            let place = place(*number);
            let original_bytes = packet.original_bytes;
            stage.push(
                &walk,
                &Packet { ts: packet.ts, bytes: &packet.bytes, original_bytes, place, stored: true },
            );
        }
        drop(stage);
        let now = batch.iter().map(|(_, packet)| packet.ts).max().unwrap();
        while table.expire(now, 1_000, &mut sink) {}
    }
    table.finish(&mut |record| records.push(record));
    records
}

/// Feeds all packets as one batch.
pub(crate) fn push(table: &mut Table, packets: &[Captured], sink: &mut dyn FnMut(Record)) {
    let mut walk = Walk::new();
    let mut stage = table.stage(sink);
    for (number, packet) in packets.iter().enumerate() {
        walk.run(packet.link, &packet.bytes);
        let original_bytes = packet.original_bytes;
        stage.push(
            &walk,
            &Packet {
                ts: packet.ts,
                bytes: &packet.bytes,
                original_bytes,
                place: place(number),
                stored: true,
            },
        );
    }
}

/// All records of a capture, by a table of this configuration.
pub(crate) fn records(config: Config, packets: &[Captured]) -> Vec<Record> {
    run(&mut Table::new(config), packets)
}
