//! Every dialect, every damage: what comes out of a capture, and what the error says.

use super::*;
use proptest::prelude::*;
use std::io::Write as _;

type Packet = (u64, u32, Vec<u8>);

fn pcap(magic: [u8; 4], packets: &[(u32, u32, &[u8])]) -> Vec<u8> {
    let big = magic[0] == 0xa1;
    let word = |n: u32| if big { n.to_be_bytes() } else { n.to_le_bytes() };
    let mut out = magic.to_vec();
    out.extend(if big { [0, 2, 0, 4] } else { [2, 0, 4, 0] });
    out.extend([0, 0, 65_535, 1].map(word).concat());
    for (seconds, fraction, bytes) in packets {
        let len = u32::try_from(bytes.len()).unwrap();
        out.extend([*seconds, *fraction, len, len + 5].map(word).concat());
        out.extend_from_slice(bytes);
    }
    out
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 12).unwrap().to_le_bytes();
    [&kind.to_le_bytes(), &length[..], body, &length[..]].concat()
}

fn section() -> Vec<u8> {
    block(0x0a0d_0d0a, &[0x4d, 0x3c, 0x2b, 0x1a, 1, 0, 0, 0, 255, 255, 255, 255, 255, 255, 255, 255])
}

/// An interface with `if_tsresol` and `if_tsoffset`.
fn interface(resolution: u8, offset: i64) -> Vec<u8> {
    let mut body = vec![1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, resolution, 0, 0, 0, 14, 0, 8, 0];
    body.extend(offset.to_le_bytes());
    body.extend([0; 4]);
    block(1, &body)
}

fn enhanced(interface: u32, units: u64, bytes: &[u8]) -> Vec<u8> {
    let len = u32::try_from(bytes.len()).unwrap();
    let high = u32::try_from(units >> 32).unwrap();
    let low = u32::try_from(units & 0xffff_ffff).unwrap();
    let mut body: Vec<u8> = [interface, high, low, len, len].iter().flat_map(|n| n.to_le_bytes()).collect();
    body.extend(bytes);
    body.resize(body.len().next_multiple_of(4), 0);
    block(6, &body)
}

fn read(bytes: &[u8]) -> (Vec<Packet>, Option<CaptureError>) {
    let mut packets = Vec::new();
    let mut reader = match CaptureReader::open(bytes) {
        Ok(reader) => reader,
        Err(error) => return (packets, Some(error)),
    };
    loop {
        match reader.advance() {
            Ok(true) => {
                let p = reader.packet().unwrap().record;
                packets.push((p.ts.nanos(), p.orig_len, p.bytes.to_vec()));
            }
            Ok(false) => return (packets, None),
            Err(error) => return (packets, Some(error)),
        }
    }
}

#[test]
fn every_pcap_magic_is_read() {
    for (magic, unit) in [
        ([0xa1, 0xb2, 0xc3, 0xd4], 1_000),
        ([0xd4, 0xc3, 0xb2, 0xa1], 1_000),
        ([0xa1, 0xb2, 0x3c, 0x4d], 1),
        ([0x4d, 0x3c, 0xb2, 0xa1], 1),
    ] {
        let (packets, error) = read(&pcap(magic, &[(1, 2, b"abc"), (3, 4_000_000_000, b"")]));
        assert!(error.is_none());
        let carried = 3_000_000_000 + 4_000_000_000 * unit;
        assert_eq!(packets, [(1_000_000_000 + 2 * unit, 8, b"abc".to_vec()), (carried, 5, vec![])]);
    }
}

#[test]
fn packed_captures_are_unpacked() {
    let plain = pcap([0xd4, 0xc3, 0xb2, 0xa1], &[(1, 2, b"abc"), (3, 4, &[7; 3000])]);
    let mut gz = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gz.write_all(&plain).unwrap();
    let (head, tail) = plain.split_at(50);
    let lz4 = |part: &[u8]| {
        let mut encoder = lz4_flex::frame::FrameEncoder::new(Vec::new());
        encoder.write_all(part).unwrap();
        encoder.finish().unwrap()
    };
    let zst = |part: &[u8]| zstd::encode_all(part, 1).unwrap();
    for packed in [gz.finish().unwrap(), [lz4(head), lz4(tail)].concat(), [zst(head), zst(tail)].concat()] {
        let (packets, error) = read(&packed);
        assert!(error.is_none(), "{error:?}");
        assert_eq!(packets, read(&plain).0);
        let (packets, error) = read(&packed[..packed.len() - 9]);
        assert!(error.is_some(), "a cut packed capture ends without an error");
        assert!(packets.len() <= 2);
    }
}

#[test]
fn resolutions_offsets_and_sections() {
    let cases = [
        (6, 0, 1_500_000, 1_500_000_000),
        (9, 0, 7, 7),
        (0, 0, 3, 3_000_000_000),
        (12, 0, 1_999, 1),
        (0x80 | 1, 0, 3, 1_500_000_000),
        (0x80 | 31, 0, 1 << 30, 500_000_000),
        (127, 0, u64::MAX, 0),
        (6, 100, 1, 100_000_001_000),
    ];
    let mut capture = Vec::new();
    for (resolution, offset, units, _) in cases {
        capture.extend([section(), interface(resolution, offset), enhanced(0, units, b"xyz")].concat());
    }
    let (packets, error) = read(&capture);
    assert!(error.is_none(), "{error:?}");
    let times: Vec<_> = packets.iter().map(|p| p.0).collect();
    assert_eq!(times, cases.map(|c| c.3));
}

#[test]
fn times_out_of_range_are_refused_and_counted() {
    let before = [section(), interface(6, -10), enhanced(0, 1, b"a"), enhanced(0, 11_000_000, b"b")].concat();
    let mut reader = CaptureReader::open(&before[..]).unwrap();
    assert!(reader.advance().unwrap());
    assert_eq!(reader.packet().unwrap().record.bytes, b"b");
    assert_eq!(reader.notes().refused, 1);
    assert!(reader.notes().refusals[0].contains("offset 72"), "{:?}", reader.notes());
    let late =
        [section(), interface(9, 0), enhanced(0, 1 << 63, b"a"), enhanced(0, (1 << 63) - 1, b"b")].concat();
    assert_eq!(read(&late).0, [((1 << 63) - 1, 1, b"b".to_vec())]);
}

#[test]
fn interfaces_keep_their_numbers_over_sections() {
    let part = [section(), interface(6, 0), interface(6, 0), enhanced(1, 1, b"a")].concat();
    let capture = part.repeat(2);
    let mut reader = CaptureReader::open(&capture[..]).unwrap();
    let numbers: Vec<_> =
        std::iter::from_fn(|| reader.advance().unwrap().then(|| reader.packet().unwrap().interface))
            .collect();
    assert_eq!(numbers, [1, 3]);
    let names: Vec<_> = reader.interfaces().iter().map(|i| i.name.as_str()).collect();
    assert_eq!(names, ["if0", "if1", "if0", "if1"]);
}

#[test]
fn damage_names_its_offset() {
    let good = pcap([0xd4, 0xc3, 0xb2, 0xa1], &[(1, 2, b"abc")]);
    let text = |bytes: &[u8]| read(bytes).1.map(|e| e.to_string()).unwrap_or_default();
    assert!(text(b"").contains("offset 0 holds nothing"), "{}", text(b""));
    assert!(text(b"GIF89a..").contains("offset 0 holds 47 49 46 38"));
    assert!(text(&good[..23]).contains("file header at offset 0 needs 24 bytes, 23 are left"));
    assert!(text(&good[..30]).contains("header at offset 24 needs 16 bytes, 6 are left"));
    assert!(text(&good[..42]).contains("a packet at offset 24 needs 19 bytes, 18 are left"));
    let mut long = good.clone();
    long[32..36].copy_from_slice(&u32::MAX.to_le_bytes());
    assert!(text(&long).contains("damaged at offset 32: a packet's length is 4294967295"));
    let ng = [section(), enhanced(0, 1, b"abcd")].concat();
    assert!(text(&ng).contains("damaged at offset 36: a packet's interface is 0"));
}

#[test]
fn snoop_is_read() {
    let mut capture = b"snoop\0\0\0\0\0\0\x02\0\0\0\x04".to_vec();
    for n in [60_u32, 3, 28, 0, 5, 6] {
        capture.extend(n.to_be_bytes());
    }
    capture.extend(b"abc\0");
    let (packets, error) = read(&capture);
    assert!(error.is_none(), "{error:?}");
    assert_eq!(packets, [(5_000_006_000, 60, b"abc".to_vec())]);
}

proptest! {
    #[test]
    fn any_bytes_are_survived(mut bytes in proptest::collection::vec(any::<u8>(), 0..400), start in 0_usize..8) {
        let starts: [&[u8]; 8] = [
            &[0xa1, 0xb2, 0xc3, 0xd4, 0, 2, 0, 4], &[0x4d, 0x3c, 0xb2, 0xa1, 2, 0, 4, 0], b"snoop\0\0\0",
            &[0x0a, 0x0d, 0x0d, 0x0a, 28, 0, 0, 0, 0x4d, 0x3c, 0x2b, 0x1a, 1, 0], &[0x1f, 0x8b],
            &[0x28, 0xb5, 0x2f, 0xfd], &[0x04, 0x22, 0x4d, 0x18], &[],
        ];
        bytes.splice(0..0, starts[start].iter().copied());
        read(&bytes);
    }

    #[test]
    fn a_cut_capture_gives_its_whole_packets(cut in 0_usize..300, ng in any::<bool>()) {
        let packets: Vec<(u32, u32, &[u8])> = vec![(1, 2, b"abc"), (3, 4, b"defgh"), (5, 6, b"")];
        let capture = if ng {
            let blocks = packets.iter().map(|(_, f, b)| enhanced(0, u64::from(*f), b)).collect::<Vec<_>>();
            [section(), interface(6, 0), blocks.concat()].concat()
        } else {
            pcap([0xd4, 0xc3, 0xb2, 0xa1], &packets)
        };
        let whole = read(&capture);
        prop_assert!(whole.1.is_none());
        let cut = cut.min(capture.len());
        let (got, error) = read(&capture[..cut]);
        prop_assert_eq!(&got[..], &whole.0[..got.len()]);
        // Only at the edge of a record or block is a cut not to be seen.
        prop_assert!(error.is_some() || cut == capture.len() || capture.len() - cut >= 16);
    }
}
