//! What it costs to find what a session speaks: the first payloads of one session, from a new probe to its answer.
//!
//! `cargo bench -p tapedeck-session`; results in docs/services.md.

use criterion::{Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use tapedeck_session::{Ends, Probe};

const TCP: Ends = Ends { proto: 6, orig_port: 40_000, resp_port: 9 };
const UDP: Ends = Ends { proto: 17, orig_port: 40_000, resp_port: 9 };

/// Bytes behind their length.
fn sized(bytes: &[u8]) -> Vec<u8> {
    let len = u16::try_from(bytes.len()).unwrap_or_default();
    [&len.to_be_bytes(), bytes].concat()
}

/// A client hello as a browser sends it: 15 ciphers, 16 extensions, one of them of `key` bytes.
fn hello(key: usize) -> Vec<u8> {
    let mut extensions = Vec::new();
    let mut add = |kind: u16, data: &[u8]| {
        extensions.extend(kind.to_be_bytes());
        extensions.extend(sized(data));
    };
    add(0, &sized(&[&[0][..], &sized(b"www.example.org")].concat()));
    add(16, &sized(b"\x02h2\x08http/1.1"));
    add(43, b"\x06\x0a\x0a\x03\x04\x03\x03");
    add(13, &sized(&[4, 3, 8, 4, 4, 1, 5, 3, 8, 5, 5, 1, 8, 6, 6, 1]));
    add(51, &vec![7; key]);
    for kind in [5, 10, 11, 18, 23, 27, 35, 45, 17513, 65281, 21] {
        add(kind, &[0; 8]);
    }
    let ciphers: Vec<u8> = (0_u8..15).flat_map(|number| [0xc0, number]).collect();
    let body =
        [&[3, 3][..], &[7; 32], &[32], &[8; 32], &sized(&ciphers), &[1, 0], &sized(&extensions)].concat();
    let message = [&[1, 0][..], &sized(&body)].concat();
    [&[22, 3, 1][..], &sized(&message)].concat()
}

/// One session: `packets` of alternating sides.
fn session(facts: Ends, packets: &[(bool, u32, &[u8])]) {
    let mut probe = Probe::new();
    for (from_orig, offset, payload) in packets {
        black_box(probe.feed(facts, *from_orig, *offset, black_box(payload)));
    }
    black_box(probe.finish(facts));
}

fn services(criterion: &mut Criterion) {
    let mut run = |name: &str, facts: Ends, packets: &[(bool, u32, &[u8])]| {
        criterion.bench_function(name, |bencher| bencher.iter(|| session(facts, packets)));
    };
    let small = hello(32);
    run("tls_hello_one_segment", TCP, &[(true, 0, &small)]);
    let large = hello(1200);
    let (head, tail) = large.split_at(1400);
    run("tls_hello_two_segments", TCP, &[(true, 0, head), (true, 1400, tail)]);
    let request = b"GET /index.html HTTP/1.1\r\nHost: www.example.org\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\n\r\n";
    run("http_request", TCP, &[(true, 0, request)]);
    let noise: Vec<u8> = (0_u32..1400).map(|at| (at * 31 + 129).to_le_bytes()[0] | 0x80).collect();
    run("tcp_no_match", TCP, &[(true, 0, &noise), (false, 0, &noise)]);
    let text = b"A protocol in lines of text that nobody knows, with a line as long as this one is\r\n";
    run("tcp_text_no_match", TCP, &[(true, 0, text), (false, 0, text)]);
    let datagrams: Vec<_> = (0..12).map(|_| (true, 0, noise.get(..172).unwrap_or(&noise))).collect();
    run("udp_no_match_12", UDP, &datagrams);
    let query = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x03www\x07example\x03org\0\0\x01\0\x01";
    run("dns_query", Ends { resp_port: 53, ..UDP }, &[(true, 0, query)]);
}

criterion_group!(benches, services);
criterion_main!(benches);
