//! What the tests share: packets, stores, a reader that believes nothing it did not check, tools.

use crate::chain::{Appended, Chain};
use crate::config::{ChainConfig, SinkChoice};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use tapedeck_index::frame::{Decoder, RAW_BYTES_MAX, frame_len};
use tapedeck_index::name::{FileKind, SegmentName};
use tapedeck_index::pcapng::{Block, Blocks, InterfaceInfo, PacketRecord};
use tapedeck_packet::{LinkType, Timestamp, Walk};

/// 2026-11-21T18:00:00Z.
pub(crate) const T18: u64 = 1_795_284_000 * 1_000_000_000;

pub(crate) fn at(nanos: u64) -> Timestamp {
    Timestamp::from_nanos(nanos).unwrap()
}

/// An Ethernet/IPv4/UDP packet of `len` bytes (at least 50) that carries `id`; flows repeat every 97.
pub(crate) fn udp(id: u64, len: usize) -> Vec<u8> {
    let len = len.max(50);
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    let ip_len = u16::try_from((len - 14).min(65_535)).unwrap().to_be_bytes();
    let [host, port, ..] = (id % 97).to_le_bytes();
    bytes.extend([0x45, 0, ip_len[0], ip_len[1], 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, host, 10, 0, 1, 1]);
    let udp_len = u16::try_from((len - 34).min(65_535)).unwrap().to_be_bytes();
    bytes.extend([0x30, port, 0, 53, udp_len[0], udp_len[1], 0, 0]);
    bytes.extend(id.to_be_bytes());
    // Noise that zstd can shrink by about half.
    let mut state = id.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.push(u8::try_from(state & 15).unwrap());
    }
    bytes
}

/// The id that [`udp`] put in.
pub(crate) fn id_of(bytes: &[u8]) -> u64 {
    u64::from_be_bytes(bytes[42..50].try_into().unwrap())
}

pub(crate) fn record(ts: u64, bytes: &[u8]) -> PacketRecord<'_> {
    let orig_len = u32::try_from(bytes.len()).unwrap();
    PacketRecord { ts: at(ts), bytes, orig_len, dropped: 0, flags: None }
}

pub(crate) fn append(chain: &mut Chain, id: u64, ts: u64, len: usize) -> Appended {
    let bytes = udp(id, len);
    let mut walk = Walk::new();
    walk.run(LinkType::ETHERNET, &bytes);
    chain.append(&record(ts, &bytes), &walk)
}

/// A configuration as `record` has it, small.
pub(crate) fn config(store: &Path, sink: SinkChoice) -> ChainConfig {
    let interface = InterfaceInfo {
        name: "eth1".to_owned(),
        link_type: LinkType::ETHERNET,
        snaplen: 0,
        description: Some("queue 0".to_owned()),
        filter: None,
        hardware: None,
        speed_bps: None,
    };
    ChainConfig {
        sink,
        run: 0xabcd_0123,
        segment_age: None,
        frame_buffers: 8,
        sync_interval: Duration::from_millis(200),
        ..ChainConfig::record(store.to_owned(), "sensor-1".to_owned(), interface)
    }
}

/// Every file below `store`, sorted.
pub(crate) fn files(store: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![store.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            } else {
                found.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

/// A sealed segment as its bytes tell it.
#[derive(Debug)]
pub(crate) struct Sealed {
    pub(crate) path: PathBuf,
    pub(crate) name: SegmentName,
    pub(crate) hour_folder: String,
    /// (id, time, dropped before) of each packet.
    pub(crate) packets: Vec<(u64, u64, u64)>,
    pub(crate) frames: usize,
    /// (time, delivered) of each statistics block.
    pub(crate) statistics: Vec<(u64, u64)>,
    /// The last block of all is a statistics block.
    pub(crate) statistics_last: bool,
}

/// The sealed segments of a store in order of their sequence number; each must have its sidecar, and
/// nothing hidden may be left.
pub(crate) fn sealed(store: &Path) -> Vec<Sealed> {
    let mut out = Vec::new();
    let all = files(store);
    for path in &all {
        let file = path.file_name().unwrap().to_str().unwrap();
        let (name, kind) = SegmentName::parse_file(file).unwrap_or_else(|| panic!("foreign file {file}"));
        match kind {
            FileKind::Sealed => out.push(read_sealed(path, name)),
            FileKind::Index => assert!(all.contains(&path.with_file_name(name.file(FileKind::Sealed)))),
            _ => panic!("left over: {file}"),
        }
    }
    assert_eq!(all.len(), 2 * out.len(), "one sidecar each");
    out.sort_by_key(|s| s.name.seq);
    out
}

fn read_sealed(path: &Path, name: SegmentName) -> Sealed {
    let hour_folder = path.parent().unwrap().strip_prefix(path.ancestors().nth(4).unwrap()).unwrap();
    let mut segment = Sealed {
        path: path.to_owned(),
        name,
        hour_folder: hour_folder.to_str().unwrap().to_owned(),
        packets: Vec::new(),
        frames: 0,
        statistics: Vec::new(),
        statistics_last: false,
    };
    let bytes = std::fs::read(path).unwrap();
    let (mut decoder, mut raw) = (Decoder::new().unwrap(), Vec::new());
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let (frame, after) = rest.split_at(frame_len(rest).unwrap());
        decoder.decompress(frame, &mut raw, RAW_BYTES_MAX).unwrap();
        for block in Blocks::new(&raw) {
            let block = block.unwrap().1;
            segment.statistics_last = matches!(block, Block::Statistics(..));
            match block {
                Block::Packet(p) => segment.packets.push((id_of(p.bytes), p.ts.nanos(), p.dropped)),
                Block::Statistics(ts, counters) => segment.statistics.push((ts.nanos(), counters.delivered)),
                _ => assert_eq!(segment.frames, 0, "headers only in frame 0"),
            }
        }
        segment.frames += 1;
        rest = after;
    }
    segment
}

/// The ids of all packets in sealed segments, sorted; doubles stay double.
pub(crate) fn ids(store: &Path) -> Vec<u64> {
    let mut ids: Vec<u64> = sealed(store).iter().flat_map(|s| s.packets.iter().map(|p| p.0)).collect();
    ids.sort_unstable();
    ids
}

/// Everything in the store is sealed and holds.
pub(crate) fn clean(store: &Path) {
    let report = crate::verify::verify(store).unwrap();
    assert!(report.damage.is_empty(), "{:?}", report.damage);
    assert!(report.unsealed.is_empty() && report.foreign.is_empty(), "{report:?}");
}

/// Waits until `done` says so; the limit only keeps a broken program from hanging the tests.
pub(crate) fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    for _ in 0..3000 {
        if done() {
            return;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("waited in vain for {what}");
}

/// Runs a tool with `stdin` from a file; its standard output. Panics if it fails.
pub(crate) fn tool(program: &str, args: &[&str], stdin: Option<Stdio>) -> String {
    let mut command = Command::new(program);
    command.args(args).stdin(stdin.unwrap_or_else(Stdio::null)).stderr(Stdio::piped());
    let output = command.output().unwrap_or_else(|error| panic!("{program}: {error}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}
