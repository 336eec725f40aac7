//! Packets made by hand.

use crate::common::Captured;
use std::time::Duration;
use tapedeck_packet::{LinkType, Timestamp};

/// 2023-11-14T22:13:20Z: where the scripts begin.
pub(crate) const START: u64 = 1_700_000_000_000_000_000;

/// An IPv4 packet of protocol `proto` with this payload.
pub(crate) fn ip4(src: [u8; 4], dst: [u8; 4], proto: u8, field: u16, id: u16, payload: &[u8]) -> Vec<u8> {
    let total = u16::try_from(20 + payload.len()).unwrap();
    let mut bytes = vec![0x45, 0];
    bytes.extend(total.to_be_bytes());
    bytes.extend(id.to_be_bytes());
    bytes.extend(field.to_be_bytes());
    bytes.extend([64, proto, 0, 0]);
    bytes.extend(src);
    bytes.extend(dst);
    bytes.extend(payload);
    bytes
}

/// The same behind Ethernet.
pub(crate) fn ethernet(ip: &[u8]) -> Vec<u8> {
    let mut bytes = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0];
    bytes.extend(ip);
    bytes
}

/// A TCP header and `len` bytes of data.
pub(crate) fn tcp(ports: (u16, u16), flags: u8, seq: u32, ack: u32, window: u16, len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(ports.0.to_be_bytes());
    bytes.extend(ports.1.to_be_bytes());
    bytes.extend(seq.to_be_bytes());
    bytes.extend(ack.to_be_bytes());
    bytes.extend([0x50, flags]);
    bytes.extend(window.to_be_bytes());
    bytes.extend([0; 4]);
    bytes.resize(20 + len, 0);
    bytes
}

/// A UDP header and `len` bytes of data.
pub(crate) fn udp(ports: (u16, u16), len: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    bytes.extend(ports.0.to_be_bytes());
    bytes.extend(ports.1.to_be_bytes());
    bytes.extend(u16::try_from(8 + len).unwrap().to_be_bytes());
    bytes.resize(8 + len, 0);
    bytes
}

/// A whole packet at `seconds` after the start.
pub(crate) fn at(seconds: f64, bytes: Vec<u8>) -> Captured {
    let nanos = u64::try_from(Duration::from_secs_f64(seconds).as_nanos()).unwrap();
    Captured {
        link: LinkType::ETHERNET,
        ts: Timestamp::from_nanos(START).unwrap().saturating_add(nanos),
        original_bytes: u32::try_from(bytes.len()).unwrap(),
        bytes,
    }
}

const CLIENT: [u8; 4] = [10, 0, 0, 1];
const SERVER: [u8; 4] = [10, 0, 0, 2];

/// Packets between 10.0.0.1:40000 and 10.0.0.2:9999, one a line: seconds, `>` or `<`, what.
/// `S 100`, `SA 500 101`, `A 101 501 7` are flags, sequence number, acknowledgement, bytes of data (`W`: a
/// zero window); `udp 20` is a datagram.
pub(crate) fn script(text: &str) -> Vec<Captured> {
    text.lines().map(str::trim).filter(|line| !line.is_empty()).map(line).collect()
}

fn line(line: &str) -> Captured {
    let words: Vec<&str> = line.split_whitespace().collect();
    let forward = words[1] == ">";
    let (src, dst, ports) =
        if forward { (CLIENT, SERVER, (40_000, 9_999)) } else { (SERVER, CLIENT, (9_999, 40_000)) };
    let number = |at: usize| words.get(at).map_or(0, |word| word.parse::<u32>().unwrap());
    let len = |at: usize| usize::try_from(number(at)).unwrap();
    let ip = if words[2] == "udp" {
        ip4(src, dst, 17, 0, 0, &udp(ports, len(3)))
    } else {
        let bit = |c| match c {
            'F' => 1,
            'S' => 2,
            'R' => 4,
            'A' => 16,
            _ => 0,
        };
        let flags = words[2].chars().map(bit).sum();
        let window = if words[2].contains('W') { 0 } else { 1_000 };
        ip4(src, dst, 6, 0, 0, &tcp(ports, flags, number(3), number(4), window, len(5)))
    };
    at(words[0].parse().unwrap(), ethernet(&ip))
}
