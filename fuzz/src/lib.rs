//! What the targets share: whole files of ours to damage, and the damage.
//!
//! A checksum stops a fuzzer at the door. So the targets of checksummed formats start from a whole file,
//! change bytes as the fuzzer says, and mend the checksums: what is tested is the decoder behind them. It must
//! never take fields from the decoder it tests.

#![forbid(unsafe_code)]

pub mod session;

use tapedeck_index::table::journal::{BatchEncoder, encode_rows, encode_start};
use tapedeck_index::table::stats::{StatsRow, to_batch};
use tapedeck_index::table::{STATS, TableName};
use tapedeck_index::journal;
use tapedeck_index::name::SegmentName;
use tapedeck_index::pcapng::{InterfaceInfo, SectionInfo};
use tapedeck_index::rows::{FrameRows, RowTable};
use tapedeck_index::pack::{MemberFacts, PackBuilder, PackShape};
use tapedeck_index::sidecar::{FrameMeta, Head, Sidecar, SidecarBuilder};
use tapedeck_packet::{LinkType, Timestamp, UtcHour, Walk};
use xxhash_rust::xxh3::{Xxh3, xxh3_64};

/// Bytes of a sidecar's header, its checksum included.
const SIDECAR_HEADER: usize = 328;
/// Where the directory of a sidecar begins, and the bytes of an entry: offset, length, checksum.
const DIRECTORY: usize = 80;
const DIRECTORY_ENTRY: usize = 24;
const SECTIONS: usize = 10;
/// Bytes of a journal record's head: length, kind, checksum.
const RECORD_HEAD: usize = 16;
/// Bytes of one change: offset, what to do, value.
const CHANGE: usize = 4;

/// Changes `file` as `changes` says: sets, adds, cuts.
pub fn damage(file: &mut Vec<u8>, changes: &[u8]) {
    for change in changes.chunks_exact(CHANGE) {
        let &[low, high, act, value] = change else { continue };
        let at = usize::from(u16::from_le_bytes([low, high]));
        match act {
            0..=127 => {
                if let Some(byte) = file.get_mut(at) {
                    *byte = value;
                }
            }
            128..=254 => {
                if let Some(byte) = file.get_mut(at) {
                    *byte = byte.wrapping_add(value);
                }
            }
            255 => file.truncate(at),
        }
    }
}

/// Makes the checksums of a damaged sidecar right.
pub fn mend_sidecar(file: &mut [u8]) {
    for section in 0..SECTIONS {
        let at = DIRECTORY + section * DIRECTORY_ENTRY;
        let (Some(start), Some(len)) = (long(file, at), long(file, at + 8)) else { return };
        let sum = start.checked_add(len).and_then(|end| file.get(start..end)).map(xxh3_64);
        if let (Some(sum), Some(place)) = (sum, file.get_mut(at + 16..at + 24)) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
    }
    let body = SIDECAR_HEADER - 8;
    let sum = file.get(..body).map(xxh3_64);
    if let (Some(sum), Some(place)) = (sum, file.get_mut(body..SIDECAR_HEADER)) {
        place.copy_from_slice(&sum.to_le_bytes());
    }
}

/// Bytes of a pack's header, its checksum included; bytes of a member's entry; where its blocks' offsets are rounded to.
const PACK_HEADER: usize = 80;
const PACK_MEMBER: usize = 80;
const PACK_ALIGNMENT: usize = 4096;

/// Makes the checksums of a damaged pack right, as far as its counts allow.
pub fn mend_pack(file: &mut [u8]) {
    let word = |file: &[u8], at: usize| {
        let bytes = file.get(at..)?.first_chunk::<4>()?;
        usize::try_from(u32::from_le_bytes(*bytes)).ok()
    };
    let counts = [16, 20, 24, 28].map(|at| word(file, at));
    let [Some(members), Some(columns), Some(blocks), Some(texts)] = counts else { return };
    let (members, columns) = (members.min(1 << 16), columns.min(1 << 16));
    let (blocks, texts) = (blocks.min(1 << 16), texts.min(1 << 16));
    let sums = PACK_HEADER + members * PACK_MEMBER + texts;
    let end = sums + blocks * 8;
    let (first, len) = (end.next_multiple_of(PACK_ALIGNMENT), 512 * columns.div_ceil(64) * 8);
    for block in 0..blocks {
        let start = first + block * len;
        let sum = file.get(start..start + len).map(xxh3_64);
        if let (Some(sum), Some(place)) = (sum, file.get_mut(sums + block * 8..sums + block * 8 + 8)) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
    }
    for (from, to, place) in [(PACK_HEADER, end, 64), (0, 72, 72)] {
        let sum = file.get(from..to).map(xxh3_64);
        if let (Some(sum), Some(place)) = (sum, file.get_mut(place..place + 8)) {
            place.copy_from_slice(&sum.to_le_bytes());
        }
    }
}

/// A whole pack over two segments.
#[must_use]
pub fn pack() -> Vec<u8> {
    let sidecar = Sidecar::from_bytes(sidecar()).expect("a sidecar of ours");
    let facts = MemberFacts::of(&name(), UtcHour::from_hours(0), &sidecar).expect("a whole sidecar");
    let facts = facts.expect("a segment with packets");
    let shape = PackShape::of(&[facts.keys, facts.keys]).expect("two segments");
    let mut builder = PackBuilder::new(&shape, true);
    for _ in 0..2 {
        builder.add(facts.clone(), &sidecar).expect("a whole sidecar");
    }
    let bytes = builder.finish().expect("two segments have a pack");
    [bytes.front, bytes.blocks].concat()
}

/// Makes the checksums of a damaged journal right, record by record as the lengths say.
pub fn mend_journal(file: &mut [u8]) {
    let mut rest = file;
    while let Some((head, behind)) = rest.split_first_chunk_mut::<RECORD_HEAD>() {
        let (len, kind) = ([head[0], head[1], head[2], head[3]], [head[4], head[5], head[6], head[7]]);
        let Ok(end) = usize::try_from(u32::from_le_bytes(len)) else { return };
        let Some((payload, next)) = behind.split_at_mut_checked(end) else { return };
        let mut hasher = Xxh3::new();
        hasher.update(&len);
        hasher.update(&kind);
        hasher.update(payload);
        head[8..].copy_from_slice(&hasher.digest().to_le_bytes());
        rest = next;
    }
}

fn long(file: &[u8], at: usize) -> Option<usize> {
    let bytes: [u8; 8] = file.get(at..at + 8)?.try_into().ok()?;
    usize::try_from(u64::from_le_bytes(bytes)).ok()
}

/// The name that the files below carry.
fn name() -> SegmentName {
    SegmentName {
        t0: Timestamp::from_nanos_saturating(1_700_000_000_000_000_000),
        sensor: "fuzz".to_owned(),
        interface: "eth0".to_owned(),
        queue: 0,
        run: 1,
        seq: 2,
    }
}

/// A packet of each kind that has rows of its own.
fn packets() -> Vec<Vec<u8>> {
    let ether = |kind: u16| {
        let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2];
        bytes.extend(kind.to_be_bytes());
        bytes
    };
    let ports = [0x30, 0x39, 0, 53, 0, 8, 0, 0];
    let mut v4 = vec![0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2];
    v4.extend(ports);
    let mut v6 = vec![0x60, 0, 0, 0, 0, 8, 17, 64];
    v6.extend([0xfd; 16]);
    v6.extend([0xfe; 16]);
    v6.extend(ports);
    let mut arp = vec![0, 1, 8, 0, 6, 4, 0, 1];
    arp.extend([1; 6]);
    arp.extend([10, 0, 0, 1]);
    arp.extend([0; 6]);
    arp.extend([10, 0, 0, 2]);
    let tagged = [&[0x00, 0x64, 0x08, 0x00][..], &v4].concat();
    let labelled = [&[0x00, 0x01, 0x01, 0x40][..], &v4].concat();
    let mut gre = vec![0x45, 0, 0, 52, 0, 0, 0, 0, 64, 47, 0, 0, 10, 0, 0, 3, 10, 0, 0, 4, 0, 0, 8, 0];
    gre.extend(&v4);
    let parts: [(u16, &[u8]); 7] = [
        (0x0800, &v4),
        (0x86dd, &v6),
        (0x0806, &arp),
        (0x8100, &tagged),
        (0x8847, &labelled),
        (0x0800, &gre),
        (0x88cc, &[2, 7, 4]),
    ];
    parts.iter().map(|(kind, payload)| [&ether(*kind)[..], payload].concat()).collect()
}

/// Three frames and their rows.
fn frames() -> Vec<(FrameMeta, FrameRows)> {
    let mut table = RowTable::new();
    let mut walk = Walk::new();
    let packets = packets();
    let mut frames = Vec::new();
    let mut offset = 0;
    for number in 0..3_u32 {
        for packet in packets.iter().skip(usize::try_from(number).unwrap_or_default()) {
            walk.run(LinkType::ETHERNET, packet);
            table.add(&walk);
        }
        let mut rows = FrameRows::default();
        table.cut_frame(&mut rows);
        let meta = FrameMeta {
            offset,
            stored_len: 100,
            raw_len: 200,
            packets: 7 - number,
            t_min: name().t0,
            t_max: name().t0,
            first_arrival: u64::from(number) * 7,
            sorted: true,
        };
        offset += 100;
        frames.push((meta, rows));
    }
    frames
}

fn interface() -> InterfaceInfo {
    InterfaceInfo {
        name: "eth0".to_owned(),
        link_type: LinkType::ETHERNET,
        snaplen: 0,
        description: None,
        filter: None,
        hardware: None,
        speed_bps: None,
    }
}

/// A whole sidecar.
///
/// # Panics
/// If the builder refuses what it must take.
#[must_use]
pub fn sidecar() -> Vec<u8> {
    let mut builder = SidecarBuilder::new();
    for (meta, rows) in frames() {
        builder.frame(meta, &rows);
    }
    builder
        .finish(&name(), &Head::encode(&SectionInfo::default(), &interface()))
        .expect("a small segment has a sidecar")
}

/// A whole journal with a record of each kind.
#[must_use]
pub fn journal() -> Vec<u8> {
    let mut file = Vec::new();
    let (section, interface) = (SectionInfo::default(), interface());
    let start = journal::Start { name: name(), section, interface, first_arrival: 0 };
    journal::encode_start(&mut file, &start);
    for (number, (meta, rows)) in (0..).zip(frames()) {
        journal::encode_open_blocks(&mut file, number, 0, &[0; 32]);
        journal::encode_frame(&mut file, &meta, &rows);
    }
    journal::encode_tail(&mut file, 256, &[7; 44]);
    journal::encode_open_blocks(&mut file, 3, 0, &[0; 32]);
    file
}

/// A journal of statistics with a few rows in two batches.
pub fn table_journal() -> Vec<u8> {
    let row = |key: &str, packets| StatsRow {
        ts: Timestamp::from_nanos_saturating(1_700_000_000_000_000_000),
        interface: "eth0".to_owned(),
        sensor: "fuzz".to_owned(),
        dimension: "protocol".to_owned(),
        key: Some(key.to_owned()),
        counts: [Some(packets); 13],
        hosts: [Some(1.5), None],
        sketches: [Some(vec![1, 12]), None],
        activity: None,
    };
    let batch = |rows: &[StatsRow]| to_batch(rows).unwrap_or_else(|error| panic!("{error}"));
    let batches = [batch(&[row("6", 3), row("17", 4)]), batch(&[row("1", 5)])];
    let ts = Timestamp::from_nanos_saturating(1_700_000_000_000_000_000);
    let name = TableName { t0: ts, t1: ts, sensor: "fuzz".to_owned(), run: 1, seq: 2 };
    let (mut encoder, head) = BatchEncoder::new(&STATS.schema()).unwrap_or_else(|error| panic!("{error}"));
    let mut file = Vec::new();
    encode_start(&mut file, STATS.name, &name, &head);
    for batch in &batches {
        encode_rows(&mut file, &encoder.encode(batch).unwrap_or_else(|error| panic!("{error}")));
    }
    file
}
