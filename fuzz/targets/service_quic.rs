//! QUIC behind its protection: any frames, in sealed packets, each a datagram.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tapedeck_fuzz::session::{datagrams, initial};

fuzz_target!(|data: &[u8]| {
    let Some((size, frames)) = data.split_first() else { return };
    let size = usize::from(*size).max(8) * 4;
    let packets: Vec<_> =
        (0..40).zip(frames.chunks(size)).map(|(number, part)| initial(number, part)).collect();
    let service = datagrams(443, packets.iter().map(Vec::as_slice));
    assert_eq!(service.name, Some("quic"));
});
