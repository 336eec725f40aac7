//! A journal replays to the segment that was written, however it is cut.

use super::*;
use crate::rows::tests::frames;
use crate::sidecar::SidecarBuilder;
use proptest::prelude::*;
use tapedeck_packet::LinkType;

fn start() -> Start {
    Start {
        name: SegmentName {
            t0: Timestamp::from_nanos(77).unwrap(),
            sensor: "s-1".into(),
            interface: "\u{e9} th".into(),
            queue: 1,
            run: 0xABCD_EF01,
            seq: 9,
        },
        section: SectionInfo { application: Some("tapedeck".into()), ..SectionInfo::default() },
        interface: InterfaceInfo {
            name: "\u{e9} th".into(),
            link_type: LinkType::ETHERNET,
            snaplen: 0,
            description: Some(String::new()),
            filter: None,
            hardware: None,
            speed_bps: Some(7),
        },
        first_arrival: 1 << 40,
    }
}

/// Metas that follow each other, as a writer would make them.
pub(crate) fn metas(stored: &[u32]) -> Vec<FrameMeta> {
    let (mut offset, mut metas) = (0, Vec::new());
    for (number, stored_len) in (0u32..).zip(stored) {
        let t_min = Timestamp::from_nanos(1_000_000_000_000 + u64::from(number) * 12_345).unwrap();
        metas.push(FrameMeta {
            offset,
            stored_len: *stored_len,
            raw_len: stored_len * 2,
            packets: if number == 0 { 0 } else { 3 },
            t_min,
            t_max: t_min.saturating_add(u64::from(*stored_len)),
            first_arrival: 500 + u64::from(number) * 3,
            sorted: number % 2 == 0,
        });
        offset += u64::from(*stored_len);
    }
    metas
}

#[test]
fn records_come_back() {
    let mut out = Vec::new();
    encode_start(&mut out, &start());
    encode_tail(&mut out, 4096, b"stored");
    encode_open_blocks(&mut out, 3, 8, b"blocks");
    let mut records = Records::new(&out);
    assert_eq!(records.next(), Some(Record::Start(start())));
    assert_eq!(records.next(), Some(Record::Tail { offset: 4096, bytes: b"stored" }));
    assert_eq!(records.next(), Some(Record::OpenBlocks { frame: 3, offset: 8, bytes: b"blocks" }));
    assert_eq!((records.next(), records.stop(), records.good_len()), (None, Some(Stop::End), out.len()));
    out.extend([0; 40]);
    let mut records = Records::new(&out);
    assert_eq!((records.by_ref().count(), records.stop()), (3, Some(Stop::Damaged)));
}

#[test]
fn refuses_what_it_does_not_know() {
    assert_eq!(Replay::read(&[]).unwrap_err(), ReplayError::NoStart(Stop::End));
    let mut out = Vec::new();
    encode_tail(&mut out, 0, b"x");
    assert_eq!(Replay::read(&out).unwrap_err(), ReplayError::NoStart(Stop::Damaged));
    let mut out = Vec::new();
    record(&mut out, START, |out| out.extend_from_slice(&[2, 0, 0, 0, 9, 9]));
    assert_eq!(Replay::read(&out).unwrap_err(), ReplayError::Version { found: 2 });
}

#[test]
fn open_blocks_tolerate_overlap_and_refuse_holes() {
    let mut out = Vec::new();
    encode_start(&mut out, &start());
    encode_open_blocks(&mut out, 0, 0, b"recorded");
    let meta = metas(&[10])[0];
    encode_frame(&mut out, &meta, &FrameRows::default());
    encode_open_blocks(&mut out, 0, 8, b"late");
    encode_open_blocks(&mut out, 1, 0, b"abcd");
    encode_open_blocks(&mut out, 1, 0, b"abcdef");
    encode_open_blocks(&mut out, 1, 2, b"cd");
    encode_open_blocks(&mut out, 1, 9, b"hole");
    encode_open_blocks(&mut out, 2, 4, b"hole");
    let replay = Replay::read(&out).unwrap();
    let open = replay.open_blocks().collect::<Vec<_>>();
    assert_eq!(open, [(1, b"abcdef".as_slice()), (2, b"".as_slice())]);
    assert_eq!(replay.frames().len(), 1);
}

proptest! {
    #[test]
    fn replay_is_what_was_written(
        rows in frames(),
        content in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..700), 12),
        block in 16..200usize,
        cut in any::<prop::sample::Index>(),
        flip in any::<prop::sample::Index>(),
    ) {
        let metas = metas(&content.iter().map(|bytes| len32(bytes.len())).collect::<Vec<_>>());
        let (mut journal, mut stored, mut expected) = (Vec::new(), Vec::new(), SidecarBuilder::new());
        encode_start(&mut journal, &start());
        let mut ends = vec![(journal.len(), 0)];
        for ((meta, rows), bytes) in metas.iter().zip(&rows).zip(&content) {
            let from = stored.len() / block * block;
            stored.extend_from_slice(bytes);
            let tail = (stored.len() / block * block).max(from);
            encode_tail(&mut journal, tail as u64, &stored[tail..]);
            encode_frame(&mut journal, meta, rows);
            expected.frame(*meta, rows);
            ends.push((journal.len(), stored.len()));
        }
        let replay = Replay::read(&journal).unwrap();
        prop_assert_eq!((replay.stop(), replay.good_len()), (Stop::End, journal.len()));
        let name = &replay.start().name;
        prop_assert_eq!(replay.builder().finish(name, &[]), expected.finish(name, &[]));

        // Cut or flip anywhere: what is left is a prefix, and file blocks plus tails give its bytes.
        let cut = cut.index(journal.len() + 1);
        let mut damaged = journal[..cut].to_vec();
        if !damaged.is_empty() && block % 2 == 0 {
            let at = flip.index(damaged.len());
            damaged[at] ^= 1;
        }
        if let Ok(replay) = Replay::read(&damaged) {
            let len = usize::try_from(replay.stored_len()).unwrap();
            prop_assert!(ends.iter().any(|(_, end)| *end == len));
            let needed = usize::try_from(replay.file_bytes_needed()).unwrap();
            prop_assert!(needed <= len / block * block);
            let mut file = stored[..needed].to_vec();
            file.resize(len, 0);
            replay.overlay(0, &mut file);
            prop_assert_eq!(&file, &stored[..len]);
            let middle = len / 2;
            let mut part = vec![0; len - middle];
            let there = needed.saturating_sub(middle);
            part[..there].copy_from_slice(&stored[middle..middle + there]);
            replay.overlay(middle as u64, &mut part);
            prop_assert_eq!(&part, &stored[middle..len]);
        }
    }

    #[test]
    fn any_bytes_end(bytes: Vec<u8>) {
        prop_assert!(Records::new(&bytes).count() <= bytes.len());
        let _ = Replay::read(&bytes);
    }
}
