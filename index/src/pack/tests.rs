//! A pack never says no where a sidecar says maybe, and notices every flipped bit.

use super::*;
use crate::bytes::len64;
use crate::name::SegmentName;
use crate::rows::tests::frames;
use crate::rows::{FrameRows, Row, Subject};
use crate::sidecar::{FrameMeta, Sidecar, SidecarBuilder};
use proptest::prelude::*;
use std::net::{IpAddr, Ipv4Addr};
use tapedeck_packet::{Timestamp, UtcHour};

fn name(seq: u32) -> SegmentName {
    SegmentName {
        t0: Timestamp::from_nanos_saturating(u64::from(seq) * 1_000),
        sensor: "lab-1".into(),
        interface: format!("eth{}", seq % 3),
        queue: seq % 2,
        run: 7,
        seq,
    }
}

fn sidecar(seq: u32, frames: &[FrameRows]) -> Sidecar {
    let mut builder = SidecarBuilder::new();
    for (number, rows) in (0..).zip(frames) {
        let t_min = Timestamp::from_nanos_saturating(u64::from(seq) * 1_000 + number);
        let (offset, stored_len, raw_len, packets) = (number * 100, 100, 300, 2);
        let (first_arrival, sorted) = (0, true);
        let meta =
            FrameMeta { offset, stored_len, raw_len, packets, t_min, t_max: t_min, first_arrival, sorted };
        builder.frame(meta, rows);
    }
    Sidecar::from_bytes(builder.finish(&name(seq), &[]).unwrap()).unwrap()
}

/// A pack over sidecars with these frames, and the sidecars.
fn pack(segments: &[Vec<FrameRows>]) -> (Vec<Sidecar>, PackBytes) {
    let sidecars: Vec<Sidecar> = (0..).zip(segments).map(|(seq, frames)| sidecar(seq, frames)).collect();
    let bytes = pack_of(&sidecars);
    (sidecars, bytes)
}

fn pack_of(sidecars: &[Sidecar]) -> PackBytes {
    let facts: Vec<MemberFacts> = (0..)
        .zip(sidecars)
        .map(|(seq, sidecar)| MemberFacts::of(&name(seq), UtcHour::from_hours(0), sidecar).unwrap().unwrap())
        .collect();
    let shape = PackShape::of(&facts.iter().map(|facts| facts.keys).collect::<Vec<_>>()).unwrap();
    assert_eq!(shape.members, sidecars.len());
    let mut builder = PackBuilder::new(&shape, true);
    for (facts, sidecar) in facts.into_iter().zip(sidecars) {
        assert!(builder.add(facts, sidecar).unwrap());
    }
    builder.finish().unwrap()
}

fn whole(bytes: &PackBytes) -> Vec<u8> {
    [bytes.front.as_slice(), &bytes.blocks].concat()
}

/// The keys under which a lookup finds the row.
fn keys_of(row: &Row) -> Vec<Key> {
    let mut keys = Vec::new();
    if matches!(row.subject, Subject::Ip { .. }) {
        keys.push(Key::flow(row.hash64()));
    }
    for address in row.addresses().into_iter().flat_map(|(a, b)| [a, b]) {
        let nets = match address {
            IpAddr::V4(v4) => {
                keys.push(Key::v4(v4));
                [
                    (KeyKind::V4Net24, u128::from(v4.to_bits() >> 8)),
                    (KeyKind::V4Net16, (v4.to_bits() >> 16).into()),
                ]
            }
            IpAddr::V6(v6) => {
                keys.push(Key::v6(v6));
                [(KeyKind::V6Net64, v6.to_bits() >> 64), (KeyKind::V6Net48, v6.to_bits() >> 80)]
            }
        };
        keys.extend(nets.map(|(kind, value)| Key { kind, value }));
    }
    let mut add = |kind, value: u32| keys.push(Key { kind, value: value.into() });
    row.ports().into_iter().flat_map(|(a, b)| [a, b]).for_each(|port| add(KeyKind::Port, port.into()));
    row.tags.vlans().iter().for_each(|vlan| add(KeyKind::Vlan, (*vlan).into()));
    row.tags.labels().iter().for_each(|label| add(KeyKind::Label, *label));
    row.pppoe.iter().for_each(|session| add(KeyKind::Pppoe, (*session).into()));
    keys
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn every_key_of_every_row_is_found(segments in prop::collection::vec(frames(), 1..9)) {
        let segments: Vec<_> = segments.into_iter().filter(|frames| !frames.is_empty()).collect();
        prop_assume!(!segments.is_empty());
        let (sidecars, bytes) = pack(&segments);
        let pack = Pack::from_bytes(whole(&bytes)).unwrap();
        prop_assert_eq!(pack.content(), bytes.name.content);
        prop_assert_eq!(PackName::parse(&bytes.name.to_string()), Some(bytes.name));
        pack.check().unwrap();
        let blocks = pack.blocks().unwrap();
        for (number, (sidecar, member)) in sidecars.iter().zip(pack.members()).enumerate() {
            let summary = sidecar.summary();
            prop_assert_eq!(&member.name, &name(u32::try_from(number).unwrap()));
            prop_assert_eq!(Some((member.t_min, member.t_max)), summary.times);
            prop_assert_eq!((member.segment_len, member.sidecar_len), (summary.segment_len, sidecar.byte_len()));
            prop_assert_eq!(member.fingerprint, sidecar.fingerprint());
            let mut given = Vec::new();
            let notes = sidecar.keys(&mut |key| given.push(key)).unwrap();
            prop_assert_eq!(member.is_always(), notes.always);
            for row in sidecar.rows() {
                let (row, _) = row.unwrap();
                prop_assert!(row.subject != Subject::Coarse || member.is_always());
                for key in keys_of(&row) {
                    prop_assert!(given.contains(&key), "{key:?}");
                    prop_assert!(pack.with(&key).unwrap().contains(number), "{key:?}");
                    prop_assert!(blocks.holds(number, &key), "{key:?}");
                }
            }
        }
    }

    #[test]
    fn no_flipped_bit_is_believed(segments in prop::collection::vec(frames(), 1..4), at: prop::sample::Index, bit in 0u8..8) {
        let segments: Vec<_> = segments.into_iter().filter(|frames| !frames.is_empty()).collect();
        prop_assume!(!segments.is_empty());
        let (_, made) = pack(&segments);
        let mut bytes = whole(&made);
        let at = at.index(bytes.len());
        bytes[at] ^= 1 << bit;
        let padding = made.front.len() - made.front.iter().rev().take_while(|byte| **byte == 0).count()..made.front.len();
        let outcome = Pack::from_bytes(bytes).and_then(|pack| pack.check());
        prop_assert!(outcome.is_err() || padding.contains(&at), "byte {at}");
    }

    #[test]
    fn damage_behind_right_checksums_gives_members_or_an_error(
        segments in prop::collection::vec(frames(), 1..4),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let segments: Vec<_> = segments.into_iter().filter(|frames| !frames.is_empty()).collect();
        prop_assume!(!segments.is_empty());
        let (_, made) = pack(&segments);
        let mut bytes = whole(&made);
        let front = made.front.len();
        for (at, value) in changes {
            bytes[at.index(front)] = value;
        }
        let rest = Pack::from_bytes(whole(&made)).unwrap().front_len();
        let sum = xxhash_rust::xxh3::xxh3_64(&bytes[80..rest]);
        bytes[64..72].copy_from_slice(&sum.to_le_bytes());
        let sum = xxhash_rust::xxh3::xxh3_64(&bytes[..72]);
        bytes[72..80].copy_from_slice(&sum.to_le_bytes());
        if let Ok(pack) = Pack::from_bytes(bytes) {
            let count = pack.members().len();
            for key in [Key::flow(1), Key { kind: KeyKind::Port, value: 40_000 }] {
                if let Ok(set) = pack.with(&key) {
                    prop_assert!(!(count..count + 64).any(|beyond| set.contains(beyond)));
                }
            }
            if let Ok(blocks) = pack.blocks() {
                prop_assert!(!blocks.holds(count, &Key::flow(1)));
            }
        }
    }

    #[test]
    fn any_bytes_are_an_error(bytes: Vec<u8>) {
        prop_assert!(Pack::from_bytes(bytes).is_err());
    }

    #[test]
    fn a_shape_holds_what_it_says(keys in prop::collection::vec(prop_oneof![0u64..50, 0u64..5_000, 0u64..3_000_000], 1..1_500)) {
        let shape = PackShape::of(&keys).unwrap();
        prop_assert!(shape.members >= 1 && shape.members <= keys.len().min(MEMBERS_MAX));
        let needed: u64 = keys[..shape.members].iter().map(|keys| keys.div_ceil(shape.capacity).max(1)).sum();
        prop_assert_eq!(u64::from(shape.columns), needed);
        prop_assert!(needed <= len64(MEMBERS_MAX));
        let bits = u64::from(shape.blocks) * u64::from(BLOCK_ROWS);
        prop_assert!(bits >= 12 * shape.capacity);
        prop_assert!(bits / 8 * needed.next_multiple_of(64) <= MATRIX_BYTES_MAX);
    }
}

#[test]
fn equal_segments_fill_a_pack_and_a_flood_takes_columns() {
    let shape = PackShape::of(&[500; 3_000]).unwrap();
    assert_eq!((shape.members, shape.columns, shape.capacity, shape.blocks), (1024, 1024, 500, 12));
    let mut keys = vec![500; 1_024];
    keys[3] = 250_000;
    let shape = PackShape::of(&keys).unwrap();
    assert!(shape.members >= 512 && shape.capacity <= 1_000, "{shape:?}");
    assert_eq!(PackShape::of(&[]), None);
    // More keys than a pack takes: in no pack, and in nobody's way.
    assert_eq!(PackShape::of(&[60_000_000, 10]), None);
    assert_eq!(PackShape::of(&[10, 60_000_000]).unwrap().members, 1);
    let shape = PackShape::of(&[5_000_000]).unwrap();
    assert!(shape.members == 1 && shape.bytes() <= MATRIX_BYTES_MAX, "{shape:?}");
}

/// A sidecar with `count` flows from hosts of its own, in packets of two frames.
fn many_flows(seq: u32, count: u32) -> Sidecar {
    let mut rows = FrameRows::default();
    for number in 0..count {
        let host = |net: u32, number: u32| IpAddr::V4(Ipv4Addr::from_bits(net << 24 | seq << 14 | number));
        let (key, _) = tapedeck_packet::FlowKey::new(
            (host(10, number), 40_000),
            (host(11, number), u16::try_from(number % 30_000).unwrap()),
            6,
            false,
        );
        let subject = Subject::Ip { key, ports_known: true, later_fragment: false };
        rows.new_rows.push(crate::rows::PackedRow::of(&Row {
            subject,
            ethertype: Some(0x800),
            ..Row::COARSE
        }));
        rows.present.push((number, 3));
    }
    sidecar(seq, &[rows])
}

#[test]
fn false_positives_are_as_rare_as_the_size_promises() {
    let sidecars: Vec<Sidecar> = (0..64).map(|seq| many_flows(seq, 900)).collect();
    let pack = Pack::from_bytes(whole(&pack_of(&sidecars))).unwrap();
    let (mut hits, mut asked) = (0u32, 0u32);
    for absent in 0..2_000u32 {
        let set = pack.with(&Key::v4(Ipv4Addr::from_bits(0xc0a8_0000 + absent))).unwrap();
        hits += u32::try_from((0..64).filter(|member| set.contains(*member)).count()).unwrap();
        asked += 64;
    }
    // 12 bits a key in blocks of 512 give 0.41 %.
    assert!(f64::from(hits) / f64::from(asked) < 0.006, "{hits} of {asked}");
}

#[test]
fn a_segment_in_several_columns_is_found() {
    let sidecars: Vec<Sidecar> =
        (0..70).map(|seq| many_flows(seq, if seq == 5 { 16_000 } else { 20 })).collect();
    let pack = Pack::from_bytes(whole(&pack_of(&sidecars))).unwrap();
    assert!(pack.members()[5].columns > 1);
    assert!(pack.byte_len() < 1 << 20, "{}", pack.byte_len());
    for (number, sidecar) in sidecars.iter().enumerate() {
        sidecar.keys(&mut |key| assert!(pack.with(&key).unwrap().contains(number), "{key:?}")).unwrap();
    }
}

#[test]
fn many_ephemeral_ports_are_left_out_and_stay_possible() {
    let mut rows = FrameRows::default();
    for number in 0..6_000u32 {
        let ends = |last: u32, port| (IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + last)), port);
        let port = u16::try_from(number + 40_000).unwrap();
        let (key, _) = tapedeck_packet::FlowKey::new(ends(1, port), ends(2, 443), 6, false);
        let subject = Subject::Ip { key, ports_known: true, later_fragment: false };
        rows.new_rows.push(crate::rows::PackedRow::of(&Row { subject, ..Row::COARSE }));
        rows.present.push((number, 1));
    }
    let (sidecars, bytes) = pack(&[vec![rows], Vec::from([FrameRows::default()])]);
    assert!(sidecars[0].keys(&mut |key| assert!(!key.is_high_port())).unwrap().high_ports);
    let pack = Pack::from_bytes(whole(&bytes)).unwrap();
    let port = |port: u16| pack.with(&Key { kind: KeyKind::Port, value: port.into() }).unwrap();
    assert!(port(443).contains(0) && !port(443).contains(1));
    assert!(port(65_000).contains(0) && !port(65_000).contains(1));
    assert!(port(45_000).contains(0));
    assert!(!port(444).contains(0));
}

#[test]
fn other_versions_are_refused_by_number() {
    let mut bytes = whole(&pack(&[vec![FrameRows::default()]]).1);
    bytes[8] = 9;
    assert_eq!(
        Pack::from_bytes(bytes).unwrap_err().to_string(),
        "format version 9; this program reads version 1"
    );
}
