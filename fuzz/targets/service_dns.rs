//! DNS: any message, on each of its ports and another, and over TCP in two pieces.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tapedeck_fuzz::session::{check, datagrams};
use tapedeck_session::{Facts, Probe, Service};

fn stream(pieces: [&[u8]; 2]) -> Service {
    let facts = Facts { proto: 6, orig_port: 40_000, resp_port: 53 };
    let mut probe = Probe::new();
    let mut at = 0;
    for piece in pieces {
        probe.feed(facts, true, at, piece);
        at += u32::try_from(piece.len()).unwrap_or_default();
    }
    let service = probe.finish(facts);
    check(&service);
    service
}

fuzz_target!(|data: &[u8]| {
    let Some((cut_at, message)) = data.split_first() else { return };
    for port in [53, 137, 5353, 9] {
        let _ = datagrams(port, [message]);
    }
    let mut bytes = u16::try_from(message.len()).unwrap_or_default().to_be_bytes().to_vec();
    bytes.extend(message);
    let (head, tail) = bytes.split_at(usize::from(*cut_at).min(bytes.len()));
    let _ = stream([head, tail]);
});
