//! Captures made here, for machines without the traces: small, and each with a trait that hurts.

use std::path::{Path, PathBuf};

/// Writes all made captures into `folder`.
pub(crate) fn all(folder: &Path) -> Vec<PathBuf> {
    let files: [(&str, Vec<u8>); 5] = [
        ("micro.pcap", pcap(0xa1b2_c3d4, 1, &times_backwards())),
        ("nano.pcap", pcap(0xa1b2_3c4d, 1, &times_backwards())),
        ("empty.pcap", pcap(0xa1b2_c3d4, 1, &[])),
        ("raw-ip.pcap", pcap(0xa1b2_c3d4, 101, &times_backwards())),
        ("cut.pcap", {
            let mut bytes = pcap(0xa1b2_c3d4, 1, &times_backwards());
            bytes.truncate(bytes.len() - 7);
            bytes
        }),
    ];
    files
        .into_iter()
        .map(|(name, bytes)| {
            let path = folder.join(name);
            std::fs::write(&path, bytes).unwrap();
            path
        })
        .collect()
}

/// (seconds, fraction, packet) with equal times, a step back, an hour's edge and a long packet.
fn times_backwards() -> Vec<(u32, u32, Vec<u8>)> {
    let hour = 1_700_000_000 / 3600 * 3600;
    let times = [
        (hour + 5, 7),
        (hour + 5, 7),
        (hour + 4, 999_999),
        (hour + 3599, 1),
        (hour + 3601, 2),
        (hour - 1, 3),
    ];
    let mut packets: Vec<_> = times
        .iter()
        .enumerate()
        .map(|(i, (s, f))| (*s, *f, udp(u16::try_from(i).unwrap(), 20 + i)))
        .collect();
    packets.push((hour + 6, 0, udp(99, 60_000)));
    packets
}

/// A capture file in the classic format, native (little-endian) byte order.
pub(crate) fn pcap(magic: u32, link_type: u32, packets: &[(u32, u32, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    for word in [magic, 0x0004_0002, 0, 0, 262_144, link_type] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    for (seconds, fraction, bytes) in packets {
        let len = u32::try_from(bytes.len()).unwrap();
        for word in [*seconds, *fraction, len, len] {
            out.extend_from_slice(&word.to_le_bytes());
        }
        out.extend_from_slice(bytes);
    }
    out
}

/// An Ethernet frame with an IPv4 UDP datagram from port `port`, `payload` bytes long.
pub(crate) fn udp(port: u16, payload: usize) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    let total = u16::try_from((28 + payload).min(65_535)).unwrap().to_be_bytes();
    frame.extend_from_slice(&[
        0x45, 0, total[0], total[1], 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2,
    ]);
    frame.extend_from_slice(&port.to_be_bytes());
    let length = u16::try_from((8 + payload).min(65_535)).unwrap().to_be_bytes();
    frame.extend_from_slice(&[0, 53, length[0], length[1], 0, 0]);
    frame.extend((0..payload).map(|i| u8::try_from(i % 251).unwrap()));
    frame
}
