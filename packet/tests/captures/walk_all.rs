//! Every packet of every given trace is walked: no panic, never an empty walk, and enough of them understood.

use crate::common;
use tapedeck_packet::{Net, Walk};

#[test]
fn every_packet_of_every_trace_is_walked() {
    let Some(folder) = common::traces() else {
        println!("SKIPPED 1");
        return;
    };
    let (mut files, mut cut, mut seen, mut with_network, mut nested) = (0_u32, 0_u32, 0_u32, 0_u32, 0_u32);
    let mut walk = Walk::new();
    for file in common::capture_files(&folder) {
        files += 1;
        for packet in common::packets(&file) {
            walk.run(packet.link, &packet.bytes);
            assert!(!walk.layers().is_empty(), "{}", file.display());
            seen += 1;
            cut += u32::from(u64::from(packet.orig_len) > packet.bytes.len() as u64);
            with_network += u32::from(walk.layers()[0].net != Net::Unknown);
            nested += u32::from(walk.layers().len() > 1);
            for layer in walk.layers() {
                let Net::Ip(ip) = layer.net else { continue };
                let end = u32::try_from(packet.bytes.len()).unwrap();
                assert!(ip.start < ip.transport && ip.transport <= end, "{} {ip:?}", file.display());
            }
            // A packet cut anywhere is a packet too.
            walk.run(packet.link, &packet.bytes[..packet.bytes.len() / 2]);
        }
    }
    println!(
        "{files} files, {seen} packets ({cut} cut), {with_network} with a network header, {nested} with tunnels"
    );
    assert!(seen > 250_000 && with_network > seen / 10 * 9 && nested > 1_000);
}
