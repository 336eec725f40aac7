//! A zstd frame of a segment: what inflates stays under the bound and inflates again to the same.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use tapedeck_index::frame::{Decoder, Encoder, frame_len};

const BOUND: usize = 1 << 20;

thread_local! {
    static CODECS: RefCell<(Decoder, Encoder)> =
        RefCell::new((Decoder::new().expect("decoder"), Encoder::new().expect("encoder")));
}

fuzz_target!(|data: &[u8]| {
    if let Ok(len) = frame_len(data) {
        assert!(len <= data.len());
    }
    CODECS.with_borrow_mut(|(decoder, encoder)| {
        let mut raw = Vec::new();
        if decoder.decompress(data, &mut raw, BOUND).is_ok() {
            assert!(raw.len() <= BOUND);
        }
        // Any bytes survive the way there and back.
        let mut stored = Vec::new();
        encoder.compress(1, data, &mut stored).expect("small input");
        assert_eq!(frame_len(&stored).ok(), Some(stored.len()));
        raw.clear();
        decoder.decompress(&stored, &mut raw, data.len()).expect("our own frame");
        assert_eq!(raw, data);
    });
});
