//! The blocks of an inflated frame: offsets rise and stay inside, reading ends after the first error.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tapedeck_index::pcapng::{Block, Blocks};

fuzz_target!(|data: &[u8]| {
    let mut blocks = Blocks::new(data);
    let mut next = 0;
    while let Some(block) = blocks.next() {
        match block {
            Ok((offset, block)) => {
                assert!(offset >= next && blocks.offset() > offset && blocks.offset() <= data.len());
                next = blocks.offset();
                if let Block::Packet(packet) = block {
                    assert!(packet.bytes.len() <= data.len());
                }
            }
            Err(_) => {
                assert!(blocks.next().is_none());
                return;
            }
        }
    }
});
