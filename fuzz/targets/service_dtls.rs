//! DTLS: handshake records with any fragments, each a datagram.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tapedeck_fuzz::session::datagrams;

fuzz_target!(|data: &[u8]| {
    let mut packets = Vec::new();
    for part in data.chunks(96).take(40) {
        let mut packet = vec![22, 0xfe, 0xfd, 0, 0, 0, 0, 0, 0, 0, 0];
        packet.extend(u16::try_from(part.len()).unwrap_or_default().to_be_bytes());
        packet.extend(part);
        packets.push(packet);
    }
    let _ = datagrams(9, packets.iter().map(Vec::as_slice));
});
