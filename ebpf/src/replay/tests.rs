//! The generator against its twin in Rust, and what it refuses.

use super::*;
use std::io::Write as _;

/// An IPv4 (or IPv6) packet with a TCP header and a payload, checksums right.
fn packet(ipv6: bool, len: usize, salt: u8) -> Template {
    let (net, head) = if ipv6 { (14, 40) } else { (14, 20) };
    let mut bytes: Vec<u8> = (0..len).map(|at| u8::try_from(at * 7 % 251).unwrap() ^ salt).collect();
    let tcp = net + head;
    if ipv6 {
        bytes[12..14].copy_from_slice(&[0x86, 0xdd]);
        bytes[net] = 0x60;
    } else {
        bytes[12..14].copy_from_slice(&[8, 0]);
        bytes[net] = 0x45;
        bytes[net + 10..net + 12].fill(0);
        let check = !sum(&bytes[net..tcp]);
        bytes[net + 10..net + 12].copy_from_slice(&check.to_be_bytes());
    }
    bytes[tcp + 16..tcp + 18].fill(0);
    let check = !sum_tcp(&bytes, ipv6);
    bytes[tcp + 16..tcp + 18].copy_from_slice(&check.to_be_bytes());
    Template {
        bytes,
        renew: Some(Addresses { net: 14, ipv6, source_is_lower: salt.is_multiple_of(2) }),
        tcp: Some(Steps {
            tcp: u16::try_from(tcp).unwrap(),
            seq: 70_000 + u32::from(salt),
            ack: 0xffff_0000,
        }),
    }
}

fn sum(bytes: &[u8]) -> u16 {
    bytes.chunks(2).fold(0, |all, word| add(all, u16::from_be_bytes([word[0], *word.get(1).unwrap_or(&0)])))
}

/// Addresses and everything from TCP on; protocol and length do not change and are left out.
fn sum_tcp(bytes: &[u8], ipv6: bool) -> u16 {
    let (addresses, tcp) = if ipv6 { (22..54, 54) } else { (26..34, 34) };
    add(sum(&bytes[addresses]), sum(&bytes[tcp..]))
}

#[test]
fn checksums_stay_right_and_both_directions_change_alike() {
    for ipv6 in [false, true] {
        let there = packet(ipv6, 100, 4);
        let (source, destination) = if ipv6 { (22..38, 38..54) } else { (26..30, 30..34) };
        let mut back = there.clone();
        back.bytes[source.clone()].copy_from_slice(&there.bytes[destination.clone()]);
        back.bytes[destination.clone()].copy_from_slice(&there.bytes[source.clone()]);
        back.renew = Some(Addresses { source_is_lower: false, ..there.renew.unwrap() });
        let (mut one, mut other) = (Vec::new(), Vec::new());
        let mut before = Vec::new();
        for round in [0, 1, 2, 65_534, 65_535, 65_536, u32::MAX] {
            there.frame(1, u64::from(round) << 14, round, &mut one);
            back.frame(1, 0, round, &mut other);
            assert_eq!(number_of(&one), Some((1, u64::from(round) << 14)));
            assert_eq!(one[source.clone()], other[destination.clone()], "{round}");
            assert_eq!(one[destination.clone()], other[source.clone()], "{round}");
            assert!(ipv6 || sum(&one[14..34]) == 0xffff, "{round}");
            assert_eq!(sum_tcp(&one, ipv6), 0xffff, "{ipv6} {round}");
            assert!(before != one[source.clone()], "{round}");
            before = one[source.clone()].to_vec();
        }
    }
}

/// Everything, as fast as it goes, in lane 3.
fn replay(templates: &[Template]) -> Replay<'_> {
    let (count, least) = (u64::MAX, Duration::MAX);
    Replay { ifindex: 1, templates, count, least, least_bytes: u64::MAX, gap_ns: 0.0, lane: 3 }
}

#[test]
fn a_number_is_read_only_where_one_was_written() {
    assert_eq!(number_of(&[0; 60]), None);
    let mut out = Vec::new();
    packet(false, 60, 0).frame(7, 0x1234_5678_9abc, 0, &mut out);
    assert_eq!(number_of(&out), Some((7, 0x1234_5678_9abc)));
    assert_eq!(number_of(&out[..11]), None);
}

#[test]
fn what_cannot_be_laid_out_is_refused() {
    let sized = |len| Template { bytes: vec![0; len], ..Template::default() };
    assert!(matches!(lay_out(&[]), Err(ReplayError::Empty)));
    for len in [13, 2_049] {
        assert!(matches!(lay_out(&[sized(60), sized(len)]), Err(ReplayError::Template { index: 1, .. })));
    }
    let (bytes, places) = lay_out(&vec![sized(1_514); 1_000]).unwrap();
    assert_eq!(bytes.len() % BLOCK, 0);
    for place in places {
        let at = usize::try_from(u32::from_ne_bytes(*place.first_chunk().unwrap())).unwrap();
        assert!(at % BLOCK <= BLOCK - LONGEST, "{at}");
    }
}

#[test]
fn lateness_is_counted_by_powers_of_two() {
    let mut late = Lateness::default();
    for ns in [0, 1, 2, 3, 4, 1_000, u64::MAX] {
        late.note(ns);
    }
    assert_eq!(late.buckets[..4], [1, 1, 2, 1]);
    assert_eq!((late.buckets[10], late.buckets[31], late.max_ns), (1, 1, u64::MAX));
    assert_eq!((late.per_mille_ns(500), late.per_mille_ns(1)), (4, 1));
    let mut twice = late;
    twice.merge(&late);
    assert_eq!(twice.buckets.iter().sum::<u64>(), 14);
}

/// The program and its twin in Rust make the same frames. Needs root; nothing is sent.
#[test]
fn the_program_makes_what_rust_makes() {
    if std::fs::read_dir("/proc/1/fd").is_err() {
        let _ = writeln!(std::io::stdout(), "SKIPPED 1: not root");
        return;
    }
    let plain = Template { bytes: vec![7; 14], ..Template::default() };
    let templates =
        [packet(false, 60, 2), packet(true, 1_514, 3), plain, packet(false, 2_048, 5), packet(true, 74, 8)];
    let replay = Replay { count: 23, ..replay(&templates) };
    let frames = replay.rehearse().unwrap();
    assert_eq!(frames.len(), 23);
    let mut wanted = Vec::new();
    for (number, frame) in (0_u64..).zip(&frames) {
        let (round, at) = (number / 5, usize::try_from(number % 5).unwrap());
        templates[at].frame(3, number, u32::try_from(round).unwrap(), &mut wanted);
        assert!(*frame == wanted, "frame {number}: {frame:02x?}\nis not {wanted:02x?}");
    }
}
