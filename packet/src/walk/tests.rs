//! Hand-made packets, and any bytes at all.

use super::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn any_bytes_give_layers_and_no_panic(link in 0u16..300, bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        let mut walk = Walk::new();
        walk.run(LinkType(link), &bytes);
        prop_assert!(!walk.layers().is_empty());
        prop_assert!(walk.layers().len() <= MAX_LAYERS);
    }
}
