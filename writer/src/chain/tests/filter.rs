//! Another filter or description ends the segment, and the next one says so in its header.

use super::{balanced, stores};
use crate::chain::Chain;
use crate::config::{ChainConfig, WhenFull};
use crate::testing::{T18, append, clean, config, sealed};
use std::path::Path;
use tapedeck_index::frame::{Decoder, RAW_BYTES_MAX, frame_len};
use tapedeck_index::pcapng::{Block, Blocks, InterfaceInfo};

/// What a segment says of its interface.
fn interface_of(path: &Path) -> InterfaceInfo {
    let bytes = std::fs::read(path).unwrap();
    let mut raw = Vec::new();
    let len = frame_len(&bytes).unwrap();
    Decoder::new().unwrap().decompress(&bytes[..len], &mut raw, RAW_BYTES_MAX).unwrap();
    let interface = Blocks::new(&raw).find_map(|block| match block.unwrap().1 {
        Block::Interface(interface) => Some(interface),
        _ => None,
    });
    interface.unwrap()
}

#[test]
fn each_segment_names_its_filter_and_keeps_its_size() {
    // As long as a filter may be; it is no part of what the segment's size leaves out.
    let long = Some("port 1 or ".repeat(3_200));
    for (dir, sink) in stores() {
        let segment_bytes = 1 << 20;
        let mut chain = Chain::start(ChainConfig {
            when_full: WhenFull::Wait,
            segment_bytes,
            ..config(dir.path(), sink)
        })
        .unwrap();
        let mut id = 0;
        for filter in [None, Some("udp".to_owned()), Some("udp".to_owned()), long.clone(), None] {
            chain.set_filter(filter);
            for _ in 0..2_000 {
                append(&mut chain, id, T18 + id * 1_000, 1_400);
                id += 1;
            }
        }
        // Twice without a packet in between: no segment.
        chain.set_filter(Some("tcp".to_owned()));
        chain.set_filter(Some("sctp".to_owned()));
        balanced(&chain.finish().unwrap());
        let segments = sealed(dir.path());
        let mut filters: Vec<_> = segments.iter().map(|segment| interface_of(&segment.path).filter).collect();
        assert!(segments.iter().all(|s| std::fs::metadata(&s.path).unwrap().len() <= segment_bytes));
        filters.dedup();
        assert_eq!(filters, [None, Some("udp".to_owned()), long.clone(), None]);
        let ids: Vec<u64> = segments.iter().flat_map(|s| s.packets.iter().map(|p| p.0)).collect();
        assert_eq!(ids, (0..10_000).collect::<Vec<_>>());
        // The filters changed between packets, so each began a segment.
        for first in [2_000, 6_000, 8_000] {
            assert!(segments.iter().any(|s| s.packets[0].0 == first), "no segment begins with {first}");
        }
        clean(dir.path());
    }
}

#[test]
fn another_description_ends_the_segment_even_if_it_is_the_same() {
    for (dir, sink) in stores() {
        let mut chain = Chain::start(config(dir.path(), sink)).unwrap();
        for (id, description) in ["queue 0", "queue 0", "queue 0; clock: quarantined"].iter().enumerate() {
            chain.set_description(Some((*description).to_owned()));
            append(&mut chain, id as u64, T18 + id as u64 * 1_000, 100);
        }
        balanced(&chain.finish().unwrap());
        let found: Vec<_> = sealed(dir.path())
            .iter()
            .map(|segment| (interface_of(&segment.path).description.unwrap(), segment.packets[0].0))
            .collect();
        let expected = [("queue 0", 0), ("queue 0", 1), ("queue 0; clock: quarantined", 2)];
        assert_eq!(found, expected.map(|(text, id)| (text.to_owned(), id)));
        clean(dir.path());
    }
}
