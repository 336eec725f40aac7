//! A sidecar answers as a naive scan over the frames' rows does, and notices every flipped bit.

use super::*;
use crate::name::SegmentName;
use crate::pcapng::{Counters, InterfaceInfo, SectionInfo, encode_statistics};
use crate::rows::tests::frames;
use crate::rows::{FrameRows, PackedRow, Row, Subject};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::net::IpAddr;
use tapedeck_packet::LinkType;

fn name() -> SegmentName {
    SegmentName {
        t0: Timestamp::ZERO,
        sensor: String::new(),
        interface: String::new(),
        queue: 2,
        run: 7,
        seq: 8,
    }
}

/// A head as a recorder writes it.
fn head() -> Vec<u8> {
    Head::encode(&SectionInfo::default(), &interface("eth0"))
}

fn interface(name: &str) -> InterfaceInfo {
    InterfaceInfo {
        name: name.into(),
        link_type: LinkType::RAW,
        snaplen: 96,
        description: Some("queue 2".into()),
        filter: None,
        hardware: None,
        speed_bps: Some(10_000_000_000),
    }
}

/// A frame's meta; frames follow each other.
fn meta(number: u64, packets: u32) -> FrameMeta {
    let t_min = Timestamp::from_nanos(5_000_000_000 + number * 1_000_001).unwrap();
    FrameMeta {
        offset: number * 100,
        stored_len: 100,
        raw_len: 300,
        packets,
        t_min,
        t_max: t_min.saturating_add(number * 777),
        first_arrival: 0,
        sorted: number.is_multiple_of(3),
    }
}

fn build(frames: &[FrameRows]) -> SidecarBuilder {
    let mut builder = SidecarBuilder::new();
    for (number, rows) in (0..).zip(frames) {
        builder.frame(meta(number, 2), rows);
    }
    builder
}

/// What the frames say, without an index: row -> (directions, frames).
fn naive(frames: &[FrameRows]) -> BTreeMap<[u64; 9], (Row, u8, Vec<u32>)> {
    let (mut ids, mut rows) = (Vec::new(), BTreeMap::new());
    for (number, frame) in (0u32..).zip(frames) {
        ids.extend(&frame.new_rows);
        for (id, bits) in &frame.present {
            let packed: PackedRow = ids[*id as usize];
            let entry = rows.entry(packed.0).or_insert((packed.row().unwrap(), 0, Vec::new()));
            entry.1 |= bits;
            entry.2.push(number);
        }
    }
    rows
}

type Test<'a> = Box<dyn Fn(&Row) -> bool + 'a>;

/// The row numbers a query gives must be exactly those whose row passes `test`.
fn same(sidecar: &Sidecar, found: &[u32], test: Test<'_>) {
    let expected = (0u32..).zip(sidecar.rows()).filter(|(_, row)| test(&row.as_ref().unwrap().0));
    assert_eq!(found, expected.map(|(number, _)| number).collect::<Vec<_>>());
}

fn queries_agree(sidecar: &Sidecar, row: &Row) {
    let always = |row: &Row| matches!(row.subject, Subject::Coarse | Subject::Opaque);
    same(sidecar, &sidecar.always_rows().unwrap(), Box::new(always));
    if let Some((a, b)) = row.addresses() {
        let has =
            |addr: IpAddr| move |row: &Row| row.addresses().is_some_and(|(a, b)| a == addr || b == addr);
        same(sidecar, &sidecar.rows_of_address(a).unwrap(), Box::new(has(a)));
        let (low, high) = (a.min(b), a.max(b));
        let within = |row: &Row| {
            row.addresses().is_some_and(|(a, b)| (low..=high).contains(&a) || (low..=high).contains(&b))
        };
        same(sidecar, &sidecar.rows_of_net(low..=high).unwrap(), Box::new(within));
    }
    if let Some((a, b)) = row.ports() {
        let range = u32::from(a.min(b))..=u32::from(a.max(b));
        let found = sidecar.rows_with(Property::Port, range.clone()).unwrap();
        let has = |row: &Row| {
            row.ports().is_some_and(|(a, b)| range.contains(&a.into()) || range.contains(&b.into()))
        };
        same(sidecar, &found, Box::new(has));
    }
    for vlan in row.tags.vlans() {
        let found = sidecar.rows_with(Property::Vlan, u32::from(*vlan)..=u32::from(*vlan)).unwrap();
        same(sidecar, &found, Box::new(|row| row.tags.vlans().contains(vlan)));
    }
    for label in row.tags.labels() {
        let found = sidecar.rows_with(Property::Label, *label..=*label).unwrap();
        same(sidecar, &found, Box::new(|row| row.tags.labels().contains(label)));
    }
    if let Some(id) = row.tunnel_id {
        let found = sidecar.rows_with(Property::TunnelId, id..=id).unwrap();
        same(sidecar, &found, Box::new(|row| row.tunnel_id == Some(id)));
    }
    if let Some(id) = row.pppoe {
        let found = sidecar.rows_with(Property::Pppoe, id.into()..=id.into()).unwrap();
        same(sidecar, &found, Box::new(|row| row.pppoe == Some(id)));
    }
    if let Subject::Link { macs: Some((a, _)) } = row.subject {
        let has = |row: &Row| matches!(row.subject, Subject::Link { macs: Some((x, y)) } if x == a || y == a);
        same(sidecar, &sidecar.rows_of_mac(a).unwrap(), Box::new(has));
    }
    if let Subject::Ip { key, ports_known, .. } = row.subject {
        let is = |row: &Row| matches!(row.subject, Subject::Ip { key: k, ports_known: p, .. } if k == key && p == ports_known);
        same(sidecar, &sidecar.rows_of_flow(&key, ports_known).unwrap(), Box::new(is));
    }
    if let Some(id) = row.community_id() {
        let found = sidecar.rows_of_community(id).unwrap();
        same(sidecar, &found, Box::new(|row| row.community_id() == Some(id)));
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]
    #[test]
    fn answers_as_a_scan_does(frames in frames()) {
        let builder = build(&frames);
        let bytes = builder.finish(&name(), &head()).unwrap();
        prop_assert_eq!(&bytes, &builder.clone().finish(&name(), &head()).unwrap());
        let sidecar = Sidecar::from_bytes(bytes).unwrap();
        sidecar.verify().unwrap();
        prop_assert_eq!(sidecar.frames().unwrap().len(), frames.len());
        for (read, made) in sidecar.frames().unwrap().iter().zip(builder.frames()) {
            prop_assert!(read.t_max >= made.t_max && read.t_max.nanos() < made.t_max.nanos() + 1000);
            prop_assert_eq!(FrameMeta { t_max: made.t_max, ..*read }, *made);
        }
        let mut expected = naive(&frames);
        let mut previous = 0;
        for (number, row) in (0..).zip(sidecar.rows()) {
            let (row, bits) = row.unwrap();
            prop_assert!(row.hash64() >= previous);
            previous = row.hash64();
            let in_frames = sidecar.frames_of(number).unwrap().collect::<Result<Vec<_>, _>>().unwrap();
            let known = expected.remove(&PackedRow::of(&row).0);
            prop_assert_eq!(known, Some((row, bits, in_frames)));
            queries_agree(&sidecar, &row);
        }
        prop_assert!(expected.is_empty());
    }

    #[test]
    fn a_flipped_bit_is_noticed(frames in frames(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let mut bytes = build(&frames).finish(&name(), &head()).unwrap();
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        prop_assert!(Sidecar::from_bytes(bytes).and_then(|sidecar| sidecar.verify()).is_err());
    }

    #[test]
    fn a_cut_file_is_noticed(frames in frames(), at in any::<prop::sample::Index>()) {
        let mut bytes = build(&frames).finish(&name(), &head()).unwrap();
        bytes.truncate(at.index(bytes.len()));
        prop_assert!(Sidecar::from_bytes(bytes).is_err());
    }

    /// Checksums that hold over nonsense: errors, never a panic.
    #[test]
    fn forged_sections_do_no_harm(frames in frames(), at in any::<prop::sample::Index>(), with: [u8; 6]) {
        let mut bytes = build(&frames).finish(&name(), &head()).unwrap();
        let at = at.index(bytes.len() - with.len()).max(layout::HEADER_LEN.min(bytes.len() - with.len()));
        bytes[at..at + with.len()].copy_from_slice(&with);
        let mut header = layout::Header::decode(&bytes).unwrap();
        for (range, sum) in &mut header.sections {
            *sum = xxhash_rust::xxh3::xxh3_64(&bytes[range.clone()]);
        }
        bytes[..layout::HEADER_LEN].copy_from_slice(&header.encode());
        let sidecar = Sidecar::from_bytes(bytes).unwrap();
        let _ = (sidecar.verify(), sidecar.always_rows());
        for number in 0..sidecar.summary().rows {
            if let Ok((row, _)) = sidecar.row(number) {
                let _ = row.addresses().map(|(a, b)| sidecar.rows_of_net(a..=b));
                let _ = row.community_id().map(|id| sidecar.rows_of_community(id));
            }
        }
    }

    #[test]
    fn any_bytes_are_refused(mut bytes: Vec<u8>) {
        prop_assert!(Sidecar::from_bytes(bytes.clone()).is_err());
        bytes.splice(0..0, MAGIC.into_iter().chain(FORMAT_VERSION.to_le_bytes()));
        prop_assert!(Sidecar::from_bytes(bytes).is_err());
    }
}

#[test]
fn an_empty_segment_has_a_sidecar() {
    let mut builder = SidecarBuilder::new();
    builder.frame(meta(0, 0), &FrameRows::default());
    let sidecar = Sidecar::from_bytes(builder.finish(&name(), &head()).unwrap()).unwrap();
    sidecar.verify().unwrap();
    let summary = sidecar.summary();
    assert_eq!((summary.frames, summary.rows, summary.times, summary.segment_len), (1, 0, None, 100));
    assert_eq!(sidecar.rows_of_address("10.0.0.1".parse().unwrap()), Ok(vec![]));
}

#[test]
fn an_unknown_version_is_named() {
    let mut bytes = build(&[]).finish(&name(), &head()).unwrap();
    bytes[8] = 9;
    assert_eq!(Sidecar::from_bytes(bytes).unwrap_err(), SidecarError::Version { found: 9 });
}

#[test]
fn builder_reports_what_does_not_fit() {
    let none = FrameRows::default();
    let mut builder = SidecarBuilder::new();
    builder.frame(meta(1, 1), &none);
    assert_eq!(builder.finish(&name(), &head()), Err(BuildError::Hole { frame: 0, expected: 0, got: 100 }));
    builder.clear();
    builder.frame(meta(0, 40_000), &none);
    assert_eq!(builder.finish(&name(), &head()), Err(BuildError::Packets { frame: 0, packets: 40_000 }));
    builder.clear();
    builder.frame(meta(0, 1), &FrameRows { new_rows: vec![], present: vec![(3, 1)] });
    assert_eq!(builder.finish(&name(), &head()), Err(BuildError::UnknownRow { frame: 0, row: 3, rows: 0 }));
}

#[test]
fn the_head_is_that_of_frame_0() {
    let builder = build(&[]);
    let mut frame = head();
    let blocks = frame.clone();
    encode_statistics(&mut frame, Timestamp::ZERO, &Counters::default());
    assert_eq!(Head::bytes_of(&frame), blocks);
    let bytes = builder.finish(&name(), Head::bytes_of(&frame)).unwrap();
    let read = Sidecar::from_bytes(bytes).unwrap().head().unwrap().unwrap();
    assert_eq!(read, Head { section: SectionInfo::default(), interface: interface("eth0") });
    // No header: nothing is kept, and nothing invented.
    for other in [&frame[28..], &frame[..40], &[][..]] {
        assert_eq!(Head::bytes_of(other), [0u8; 0]);
    }
    // Too long to be kept: still a sidecar.
    let long = Head::encode(&SectionInfo::default(), &interface(&"x".repeat(HEAD_BYTES_MAX)));
    let sidecar = Sidecar::from_bytes(builder.finish(&name(), &long).unwrap()).unwrap();
    sidecar.verify().unwrap();
    assert_eq!(sidecar.head(), Ok(None));
}

#[test]
fn a_head_that_is_none_is_not_believed() {
    let bytes = build(&[]).finish(&name(), b"neither section nor interface...").unwrap();
    let sidecar = Sidecar::from_bytes(bytes).unwrap();
    assert!(matches!(sidecar.head(), Err(SidecarError::Senseless { section: Section::Head, .. })));
    assert!(sidecar.verify().is_err());
}
