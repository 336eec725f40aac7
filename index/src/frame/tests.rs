//! Frames against libzstd as it is, and against damage.

use super::*;
use proptest::prelude::*;

/// Bytes that compress in part: runs and noise.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..600),
        (any::<u8>(), 0..200_000usize).prop_map(|(byte, len)| vec![byte; len])
    ];
    prop::collection::vec(piece, 0..5).prop_map(|pieces| pieces.concat())
}

fn both_kinds(raw: &[u8], level: i32) -> [Vec<u8>; 2] {
    let (mut compressed, mut stored) = (vec![0xEE], Vec::new());
    let len = Encoder::new().unwrap().compress(level, raw, &mut compressed).unwrap();
    assert_eq!(compressed.remove(0), 0xEE);
    assert_eq!(compressed.len(), len);
    assert_eq!(store_raw(raw, &mut stored).unwrap(), stored.len());
    assert_eq!(stored.len(), stored_len(raw.len()));
    assert!(compressed.len().max(stored.len()) <= compress_bound(raw.len()));
    [compressed, stored]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn round_trip(raw in content(), level in -8..6i32, tail: Vec<u8>) {
        for frame in both_kinds(&raw, level) {
            let mut out = vec![1, 2, 3];
            Decoder::new().unwrap().decompress(&frame, &mut out, raw.len()).unwrap();
            prop_assert_eq!(&out, &raw);
            // The oracle: libzstd's own one-shot decoder, and its idea of the length.
            let mut plain = Vec::with_capacity(raw.len());
            zstd_safe::decompress(&mut plain, &frame).unwrap();
            prop_assert_eq!(&plain, &raw);
            let longer = [frame.as_slice(), &tail].concat();
            prop_assert_eq!(frame_len(&longer), Ok(frame.len()));
            prop_assert_eq!(zstd_safe::find_frame_compressed_size(&longer), Ok(frame.len()));
        }
    }

    #[test]
    fn a_cut_frame_is_incomplete(raw in content(), at in 0.0..1.0f64) {
        for frame in both_kinds(&raw, 1) {
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a share of a length")]
            let cut = (frame.len() as f64 * at) as usize;
            prop_assert_eq!(frame_len(&frame[..cut]), Err(FrameLenError::Incomplete));
            let mut out = Vec::new();
            let error = Decoder::new().unwrap().decompress(&frame[..cut], &mut out, raw.len());
            prop_assert_eq!(error, Err(FrameError::Incomplete { len: cut }));
        }
    }

    #[test]
    fn a_flipped_bit_never_gives_other_content(raw in content(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        for mut frame in both_kinds(&raw, 1) {
            let at = at.index(frame.len());
            frame[at] ^= 1 << bit;
            let mut out = Vec::new();
            if Decoder::new().unwrap().decompress(&frame, &mut out, raw.len()).is_ok() {
                prop_assert_eq!(&out, &raw);
            } else {
                prop_assert!(out.is_empty());
            }
        }
    }

    #[test]
    fn any_bytes_end(mut bytes: Vec<u8>) {
        let _ = frame_len(&bytes);
        bytes.splice(0..0, MAGIC.to_le_bytes());
        let mut out = Vec::new();
        let _ = Decoder::new().unwrap().decompress(&bytes, &mut out, 1 << 20);
        prop_assert!(out.capacity() <= 2 << 20);
    }
}

#[test]
fn refuses_what_is_not_ours() {
    let mut decoder = Decoder::new().unwrap();
    let mut out = Vec::new();
    let mut plain = vec![0; 200];
    let len = zstd_safe::compress(plain.as_mut_slice(), b"no checksum here", 1).unwrap();
    plain.truncate(len);
    assert_eq!(decoder.decompress(&plain, &mut out, 100), Err(FrameError::Profile));
    let [frame, _] = both_kinds(&[7; 1000], 1);
    assert_eq!(decoder.decompress(&frame, &mut out, 999), Err(FrameError::TooLarge { size: 1000, max: 999 }));
    let skippable = [0x50, 0x2A, 0x4D, 0x18, 0, 0, 0, 0];
    assert_eq!(frame_len(&skippable), Err(FrameLenError::Damaged));
    assert_eq!(frame_len(&[0; 8]), Err(FrameLenError::Damaged));
    assert_eq!(frame_len(&[]), Err(FrameLenError::Incomplete));
    let two = [frame.as_slice(), &frame].concat();
    assert_eq!(decoder.decompress(&two, &mut out, 5000), Err(FrameError::Damaged { len: two.len() }));
}
