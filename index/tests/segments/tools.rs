//! What zstd, tcpdump and capinfos say of a segment, and whether the sidecar leads to every packet that
//! tcpdump's own filter finds.

use crate::assemble::{Packet, Segment, assemble, generated, read_capture, run, traces};
use std::collections::BTreeSet;
use std::net::IpAddr;
use tapedeck_index::rows::{Row, Subject};
use tapedeck_index::sidecar::Property;
use tapedeck_packet::LinkType;

/// The segment inflated by zstd, which also tests every checksum.
fn inflated(segment: &[u8]) -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let (packed, plain) = (dir.path().join("s.pcapng.zst"), dir.path().join("s.pcapng"));
    std::fs::write(&packed, segment).unwrap();
    let paths = [packed.to_str().unwrap(), plain.to_str().unwrap()];
    assert_eq!(run("zstd", &["-q", "-t", paths[0]], &[]).1, Some(0), "zstd -t");
    assert_eq!(run("zstd", &["-q", "-d", paths[0], "-o", paths[1]], &[]).1, Some(0), "zstd -d");
    std::fs::read(&plain).unwrap()
}

/// tcpdump's lines for `filter`, one per packet.
fn tcpdump(pcapng: &[u8], filter: &str) -> Vec<String> {
    let args = ["-r", "-", "-nn", "-tt", "-q", "--nano", "-e", filter];
    let (text, code) = run("tcpdump", &args, pcapng);
    assert_eq!(code, Some(0), "tcpdump {filter}");
    text.lines().filter(|line| line.starts_with(|c: char| c.is_ascii_digit())).map(str::to_owned).collect()
}

/// Frames that hold one of these rows, or a row that no property excludes.
fn frames_of(segment: &Segment, rows: &[u32]) -> BTreeSet<u32> {
    let sidecar = segment.sidecar();
    let always = sidecar.always_rows().unwrap();
    let rows = rows.iter().chain(&always);
    rows.flat_map(|row| sidecar.frames_of(*row).unwrap().map(Result::unwrap).collect::<Vec<_>>()).collect()
}

/// A tcpdump filter that every packet of the row passes, and the rows the sidecar offers for it.
fn question(segment: &Segment, row: &Row) -> Option<(String, Vec<u32>)> {
    let sidecar = segment.sidecar();
    if row.inner || !row.tags.labels().is_empty() || row.pppoe.is_some() || row.tags.vlans().len() > 1 {
        return None;
    }
    let tag = row.tags.vlans().first().map_or(String::new(), |id| format!("vlan {id} and "));
    match row.subject {
        Subject::Ip { key, ports_known, .. } => {
            let host = |addr: IpAddr| format!("host {addr}");
            let ports = row.ports().map_or(String::new(), |(a, b)| format!(" and port {a} and port {b}"));
            let family = if key.addr_a.is_ipv4() { "ip" } else { "ip6" };
            let filter = format!(
                "{tag}{family} proto {} and {} and {}{ports}",
                key.proto,
                host(key.addr_a),
                host(key.addr_b)
            );
            // By flow where the ports are known, else by address: the filter then asks no more.
            let rows = if ports_known && row.ports().is_some() {
                sidecar.rows_of_flow(&key, true).unwrap()
            } else {
                sidecar.rows_of_address(key.addr_a).unwrap()
            };
            // tcpdump's `ip6 proto` does not follow extension headers; such rows are asked less.
            Some((filter, rows))
        }
        Subject::Arp { a, b } => {
            Some((format!("{tag}arp host {a} and host {b}"), sidecar.rows_of_address(b.into()).unwrap()))
        }
        Subject::Link { .. } | Subject::Opaque | Subject::Coarse => {
            let vlan = *row.tags.vlans().first()?;
            Some((
                format!("vlan {vlan}"),
                sidecar.rows_with(Property::Vlan, vlan.into()..=vlan.into()).unwrap(),
            ))
        }
    }
}

/// Every packet tcpdump finds in the whole segment, it finds in the frames the sidecar names.
fn check(link: LinkType, packets: &[Packet], frame_bytes: usize, rows_asked: usize) {
    let segment = assemble(link, packets, frame_bytes);
    let plain = inflated(&segment.bytes);
    let whole = tcpdump(&plain, "");
    assert_eq!(whole.len(), packets.len());
    let sidecar = segment.sidecar();
    sidecar.verify().unwrap();
    let rows = sidecar.rows().map(|row| row.unwrap().0).collect::<Vec<_>>();
    let step = (rows.len() / rows_asked).max(1);
    let mut read = 0;
    for row in rows.iter().step_by(step) {
        let Some((filter, candidates)) = question(&segment, row) else { continue };
        let frames = frames_of(&segment, &candidates);
        read += frames.len();
        let part = inflated(&segment.export(frames));
        assert_eq!(tcpdump(&part, &filter), tcpdump(&plain, &filter), "{filter} ({row:?})");
    }
    assert!(read > 0);
}

#[test]
fn generated_segment_opens_everywhere() {
    let packets = generated(600);
    check(LinkType::ETHERNET, &packets, 1500, 60);
    let segment = assemble(LinkType::ETHERNET, &packets, 1500);
    assert!(segment.frames.len() > 20);
    let dir = tempfile::tempdir().unwrap();
    let plain = dir.path().join("s.pcapng");
    std::fs::write(&plain, inflated(&segment.bytes)).unwrap();
    let (text, code) = run("capinfos", &["-T", "-M", "-r", "-c", "-E", "-t", plain.to_str().unwrap()], &[]);
    assert_eq!(code, Some(0), "capinfos");
    assert!(text.contains("pcapng\tether\t600"), "{text}");
}

#[test]
fn real_captures_are_found_again() {
    let Some(folder) = traces(1) else { return };
    for file in
        ["large/mix_apps_A.pcap", "large/lan_2010_snap96.pcap", "ics/4SICS-GeekLounge-151020_part.pcap"]
    {
        let path = folder.join(file);
        if path.exists() {
            let (link, packets) = read_capture(&path);
            check(link, &packets, 512 * 1024, 12);
        }
    }
}
