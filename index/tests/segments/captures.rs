//! Captures of other programs: as many packets as capinfos counts, in every file it reads; rows as they
//! should be in each.

use crate::assemble::{generated, read_capture, run, traces};
use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};
use tapedeck_index::capture_file::{CaptureError, CaptureReader};
use tapedeck_index::rows::{FrameRows, Row, RowTable};
use tapedeck_packet::{LinkType, Walk};

fn files_below(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files_below(&path, files) } else { files.push(path) }
    }
}

/// Packets capinfos counts in each file it reads to the end.
fn capinfos(files: &[PathBuf]) -> BTreeMap<String, u64> {
    let mut counts = BTreeMap::new();
    for some in files.chunks(200) {
        let mut args = vec!["-T", "-M", "-r", "-c"];
        args.extend(some.iter().filter_map(|path| path.to_str()));
        for line in run("capinfos", &args, &[]).0.lines() {
            let mut columns = line.split('\t');
            if let (Some(path), Some(count)) = (columns.next(), columns.next().and_then(|n| n.parse().ok())) {
                counts.insert(path.to_owned(), count);
            }
        }
    }
    counts
}

#[test]
fn as_many_packets_as_capinfos_counts() {
    let Some(folder) = traces(1) else { return };
    let mut files = Vec::new();
    files_below(&folder, &mut files);
    let expected = capinfos(&files);
    assert!(expected.len() > 1000, "capinfos read {} files", expected.len());
    let mut differ = Vec::new();
    for (path, count) in &expected {
        // Wireshark opens JSON and some text as a "capture" of one packet; those are no captures to us.
        if path.ends_with(".json") || path.ends_with(".txt") {
            continue;
        }
        let (found, error) = count_packets(Path::new(path));
        if found != *count {
            differ.push(format!("{path}: capinfos {count}, we {found}, {error:?}"));
        }
    }
    assert!(differ.is_empty(), "{} of {} differ:\n{}", differ.len(), expected.len(), differ.join("\n"));
}

/// Packets up to the first damage, those with an impossible time included, and the damage.
fn count_packets(path: &Path) -> (u64, Option<CaptureError>) {
    let mut reader = match CaptureReader::open(std::fs::File::open(path).unwrap()) {
        Ok(reader) => reader,
        Err(error) => return (0, Some(error)),
    };
    let mut found = 0;
    loop {
        match reader.advance() {
            Ok(true) => found += 1,
            Ok(false) => return (found + reader.notes().refused, None),
            Err(error) => return (found + reader.notes().refused, Some(error)),
        }
    }
}

/// The recorder packs rows straight from layers; the query makes them by `Row::of`. Both must agree.
#[test]
fn packed_rows_are_the_rows_of_the_layers() {
    let mut packets = vec![(LinkType::ETHERNET, generated(500))];
    if let Some(folder) = traces(0) {
        let mut files = Vec::new();
        files_below(&folder, &mut files);
        files.retain(|path| CaptureReader::open(std::fs::File::open(path).unwrap()).is_ok());
        packets.extend(files.iter().map(|path| read_capture(path)));
    }
    let (mut table, mut walk, mut cut) = (RowTable::new(), Walk::new(), FrameRows::default());
    for (link, packets) in packets {
        let (mut seen, mut expected) = (HashSet::new(), Vec::new());
        for packet in packets {
            walk.run(link, &packet.bytes);
            table.add(&walk);
            for (depth, layer) in walk.layers().iter().enumerate() {
                let (row, _) = Row::of(layer, depth > 0);
                if seen.insert(row) {
                    expected.push(row);
                }
            }
        }
        table.cut_frame(&mut cut);
        let rows = cut.new_rows.iter().map(|row| row.row().unwrap()).collect::<Vec<_>>();
        assert_eq!(rows, expected);
        assert_eq!(cut.present.len(), rows.len());
        table.clear();
    }
}
