//! Any bytes under any link type: the walk is total, and whatever it finds can be asked for.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tapedeck_packet::{LinkType, Walk};

fuzz_target!(|data: &[u8]| {
    let Some((link, packet)) = data.split_first_chunk::<2>() else { return };
    let link = LinkType(u16::from_le_bytes(*link));
    let mut walk = Walk::new();
    walk.run(link, packet);
    let first = walk.layers().to_vec();
    for layer in &first {
        let _ = (layer.flow(), layer.community_id(0), layer.vlans(), layer.labels());
    }
    // A walk that is used again must not remember the packet before.
    walk.run(link, &[]);
    walk.run(link, packet);
    assert_eq!(walk.layers(), first);
});
