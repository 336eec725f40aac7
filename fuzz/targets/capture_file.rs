//! Captures of other programs, packed or plain: every packet lies inside what was read.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tapedeck_index::capture_file::CaptureReader;

/// A small file can unpack to very much; so many packets tell enough.
const PACKETS: usize = 10_000;

fuzz_target!(|data: &[u8]| {
    let Ok(mut reader) = CaptureReader::open(data) else { return };
    for _ in 0..PACKETS {
        match reader.advance() {
            Ok(true) => {
                let packet = reader.packet().expect("advance said so");
                assert!(packet.interface < reader.interfaces().len());
            }
            Ok(false) | Err(_) => break,
        }
    }
    let _ = (reader.notes(), reader.offset());
});
