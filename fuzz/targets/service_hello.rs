//! The TLS client hello: any body, in records of any length; cut, it says no more than whole.
#![no_main]

use libfuzzer_sys::fuzz_target;
use tapedeck_fuzz::session::check;
use tapedeck_session::{Facts, Probe, Service};

const FACTS: Facts = Facts { proto: 6, orig_port: 40_000, resp_port: 9 };

fn read(stream: &[u8]) -> Service {
    let mut probe = Probe::new();
    probe.feed(FACTS, true, 0, stream);
    let service = probe.finish(FACTS);
    check(&service);
    service
}

fuzz_target!(|data: &[u8]| {
    let Some(([record, cut_at], body)) = data.split_first_chunk::<2>() else { return };
    let mut message = vec![1];
    message.extend(&u32::try_from(body.len() + 34).unwrap_or_default().to_be_bytes()[1..]);
    message.extend([3, 3]);
    message.extend([7; 32]);
    message.extend(body);
    let mut stream = Vec::new();
    // The first record holds what tells a hello from chance.
    for part in message.chunks(usize::from(*record).max(6)) {
        stream.extend([22, 3, 1]);
        stream.extend(u16::try_from(part.len()).unwrap_or_default().to_be_bytes());
        stream.extend(part);
    }
    let whole = read(&stream);
    let part = read(&stream[..stream.len() * usize::from(*cut_at) / 256]);
    assert!(part.sni.is_none() || part.sni == whole.sni);
    assert!(part.alpn.is_none() || part.alpn == whole.alpn);
});
