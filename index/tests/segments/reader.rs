//! The format is what docs/format.md says: a reader of a hundred lines, written from it in another
//! language, finds every packet of a flow that tcpdump finds.

use crate::assemble::{Packet, assemble, generated, name, read_capture, run, traces};
use std::path::{Path, PathBuf};
use tapedeck_index::name::FileKind;
use tapedeck_index::rows::Subject;
use tapedeck_packet::{FlowKey, LinkType};

const NAMES: [(u8, &str); 2] = [(6, "tcp"), (17, "udp")];

/// Segment and sidecar as files; the path of the segment.
fn sealed(folder: &Path, packets: &[Packet], frame_bytes: usize) -> (PathBuf, Vec<FlowKey>) {
    let segment = assemble(LinkType::ETHERNET, packets, frame_bytes);
    let path = folder.join(name().file(FileKind::Sealed));
    std::fs::write(&path, &segment.bytes).unwrap();
    std::fs::write(folder.join(name().file(FileKind::Index)), &segment.index).unwrap();
    let sidecar = segment.sidecar();
    let keys = sidecar.rows().filter_map(|row| {
        let row = row.unwrap().0;
        let plain =
            !row.inner && row.tags.vlans().is_empty() && row.tags.labels().is_empty() && row.pppoe.is_none();
        match row.subject {
            Subject::Ip { key, ports_known: true, .. } if plain => Some(key),
            _ => None,
        }
    });
    (path, keys.collect())
}

/// tcpdump's view of the packets that pass `filter`, as hexadecimal.
fn seen(pcapng: &[u8], filter: &str) -> String {
    let (text, code) = run("tcpdump", &["-r", "-", "-nn", "-tt", "--nano", "-xx", filter], pcapng);
    assert_eq!(code, Some(0), "tcpdump {filter}");
    text
}

fn check(packets: &[Packet], frame_bytes: usize, flows: usize) {
    let dir = tempfile::tempdir().unwrap();
    let (path, keys) = sealed(dir.path(), packets, frame_bytes);
    let path = path.to_str().unwrap();
    let plain = dir.path().join("plain.pcapng");
    assert_eq!(run("zstd", &["-dq", path, "-o", plain.to_str().unwrap()], &[]).1, Some(0));
    let plain = std::fs::read(plain).unwrap();
    let reader = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reader.py");
    let script = format!("python3 {} \"$@\" > {}/flow", reader.display(), dir.path().display());
    let step = (keys.len() / flows).max(1);
    let mut asked = 0;
    for key in keys.iter().step_by(step) {
        let Some((_, proto)) = NAMES.iter().find(|(number, _)| *number == key.proto) else { continue };
        let FlowKey { addr_a, addr_b, port_a, port_b, .. } = *key;
        let ends = [addr_b.to_string(), port_b.to_string(), addr_a.to_string(), port_a.to_string()];
        let [b, pb, a, pa] = ends.each_ref().map(String::as_str);
        assert_eq!(run("sh", &["-c", &script, "sh", path, b, pb, a, pa, proto], &[]).1, Some(0));
        let found = std::fs::read(dir.path().join("flow")).unwrap();
        let to_and_fro = format!(
            "{proto} and ((src host {a} and src port {pa} and dst host {b} and dst port {pb}) or \
             (src host {b} and src port {pb} and dst host {a} and dst port {pa}))"
        );
        let expected = seen(&plain, &to_and_fro);
        assert_eq!(seen(&found, ""), expected, "{key:?}");
        assert!(!expected.is_empty());
        asked += 1;
    }
    assert!(asked > 0);
}

#[test]
fn a_reader_in_another_language_finds_a_flow() {
    check(&generated(600), 1500, 4);
}

#[test]
fn a_reader_in_another_language_finds_a_real_flow() {
    let Some(folder) = traces(1) else { return };
    let (_, packets) = read_capture(&folder.join("large/mix_apps_A.pcap"));
    check(&packets, 512 * 1024, 4);
}
