//! A damaged pack with right checksums, and any bytes as one: a look-up gives members or an error.
#![no_main]

use std::net::Ipv4Addr;
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use tapedeck_index::pack::{Key, KeyKind, Pack};

static WHOLE: OnceLock<Vec<u8>> = OnceLock::new();

fn ask(file: Vec<u8>) {
    let Ok(pack) = Pack::from_bytes(file) else { return };
    let count = pack.members().len();
    for key in [
        Key::v4(Ipv4Addr::new(10, 0, 0, 1)),
        Key::flow(0x0123_4567_89ab_cdef),
        Key { kind: KeyKind::Port, value: 65_535 },
        Key { kind: KeyKind::V6Net48, value: u128::MAX },
    ] {
        if let Ok(set) = pack.with(&key) {
            assert!(!(count..count + 64).any(|beyond| set.contains(beyond)));
        }
    }
    if let Ok(blocks) = pack.blocks() {
        for number in [0, count, usize::MAX] {
            let _ = blocks.holds(number, &Key::flow(1));
        }
    }
    let _ = pack.check();
}

fuzz_target!(|data: &[u8]| {
    let mut file = WHOLE.get_or_init(tapedeck_fuzz::pack).clone();
    tapedeck_fuzz::damage(&mut file, data);
    tapedeck_fuzz::mend_pack(&mut file);
    ask(file);
    ask(data.to_vec());
});
