//! File names in a store folder: what is read as ours is written again as the same name.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tapedeck_index::name::SegmentName;

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = SegmentName::parse(text);
    if let Some((name, kind)) = SegmentName::parse_file(text) {
        assert_eq!(name.file(kind), text);
    }
});
