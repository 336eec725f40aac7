//! A writer in miniature: packets in, segment and sidecar out. And the traces to feed it.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tapedeck_index::capture_file::CaptureReader;
use tapedeck_index::frame::{Encoder, FRAME_BYTES_MAX, store_raw};
use tapedeck_index::name::SegmentName;
use tapedeck_index::pcapng::{
    Counters, InterfaceInfo, PacketRecord, SectionInfo, encode_interface, encode_packet, encode_section,
    encode_statistics, packet_block_len,
};
use tapedeck_index::rows::{FrameRows, RowTable};
use tapedeck_index::sidecar::{FrameMeta, Head, Sidecar, SidecarBuilder};
use tapedeck_packet::{LinkType, Timestamp, Walk};

/// A packet in memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) ts: Timestamp,
    pub(crate) bytes: Vec<u8>,
    pub(crate) orig_len: u32,
}

/// A sealed segment in memory.
pub(crate) struct Segment {
    pub(crate) bytes: Vec<u8>,
    pub(crate) index: Vec<u8>,
    pub(crate) frames: Vec<FrameMeta>,
}

impl Segment {
    pub(crate) fn sidecar(&self) -> Sidecar {
        Sidecar::from_bytes(self.index.clone()).unwrap()
    }

    /// Frame 0 and these frames, byte for byte: a segment again.
    pub(crate) fn export(&self, frames: impl IntoIterator<Item = u32>) -> Vec<u8> {
        let stored = |meta: &FrameMeta| {
            let start = usize::try_from(meta.offset).unwrap();
            self.bytes.get(start..start + meta.stored_len as usize).unwrap().to_vec()
        };
        let wanted = std::iter::once(0).chain(frames);
        wanted.flat_map(|number| stored(self.frames.get(number as usize).unwrap())).collect()
    }
}

/// A segment being made; `frame_bytes` below the real limit makes more frames of few packets.
struct Assembler {
    encoder: Encoder,
    segment: Segment,
    builder: SidecarBuilder,
    table: RowTable,
    raw: Vec<u8>,
    times: Vec<Timestamp>,
    arrivals: u64,
}

impl Assembler {
    fn cut(&mut self) {
        let mut rows = FrameRows::default();
        self.table.cut_frame(&mut rows);
        let offset = self.segment.bytes.len() as u64;
        // Every third frame as a recorder under pressure writes it.
        let stored = if self.builder.frames().len() % 3 == 2 {
            store_raw(&self.raw, &mut self.segment.bytes).unwrap()
        } else {
            self.encoder.compress(1, &self.raw, &mut self.segment.bytes).unwrap()
        };
        let meta = FrameMeta {
            offset,
            stored_len: u32::try_from(stored).unwrap(),
            raw_len: u32::try_from(self.raw.len()).unwrap(),
            packets: u32::try_from(self.times.len()).unwrap(),
            t_min: self.times.iter().min().copied().unwrap_or_default(),
            t_max: self.times.iter().max().copied().unwrap_or_default(),
            first_arrival: self.arrivals,
            sorted: self.times.is_sorted(),
        };
        self.arrivals += u64::from(meta.packets);
        self.builder.frame(meta, &rows);
        self.raw.clear();
        self.times.clear();
    }
}

pub(crate) fn assemble(link: LinkType, packets: &[Packet], frame_bytes: usize) -> Segment {
    let mut made = Assembler {
        encoder: Encoder::new().unwrap(),
        segment: Segment { bytes: Vec::new(), index: Vec::new(), frames: Vec::new() },
        builder: SidecarBuilder::new(),
        table: RowTable::new(),
        raw: Vec::with_capacity(FRAME_BYTES_MAX),
        times: Vec::new(),
        arrivals: 0,
    };
    let mut counters = Counters { received: 7, ..Counters::default() };
    encode_section(&mut made.raw, &section());
    encode_interface(&mut made.raw, &interface(link));
    encode_statistics(&mut made.raw, packets.first().map_or(Timestamp::ZERO, |p| p.ts), &counters);
    made.cut();
    let mut walk = Walk::new();
    for packet in packets {
        let record = PacketRecord {
            ts: packet.ts,
            bytes: &packet.bytes,
            orig_len: packet.orig_len,
            dropped: 0,
            flags: None,
        };
        if !made.raw.is_empty() && made.raw.len() + packet_block_len(&record) > frame_bytes {
            made.cut();
        }
        walk.run(link, &packet.bytes);
        made.table.add(&walk);
        made.times.push(packet.ts);
        encode_packet(&mut made.raw, &record);
        counters.delivered += 1;
    }
    // The end of a segment: statistics in a frame of their own.
    if !made.times.is_empty() {
        made.cut();
    }
    encode_statistics(&mut made.raw, packets.last().map_or(Timestamp::ZERO, |p| p.ts), &counters);
    made.cut();
    made.segment.frames = made.builder.frames().to_vec();
    made.segment.index = made.builder.finish(&name(), &Head::encode(&section(), &interface(link))).unwrap();
    made.segment
}

pub(crate) fn section() -> SectionInfo {
    let text = |text: &str| Some(text.to_owned());
    SectionInfo { hardware: text("x"), os: text("Linux 6"), application: text("tapedeck test") }
}

pub(crate) fn interface(link: LinkType) -> InterfaceInfo {
    InterfaceInfo {
        name: "eth0".into(),
        link_type: link,
        snaplen: 0,
        description: Some("queue 0".into()),
        filter: Some("ip".into()),
        hardware: None,
        speed_bps: Some(10_000_000_000),
    }
}

pub(crate) fn name() -> SegmentName {
    SegmentName {
        t0: Timestamp::ZERO,
        sensor: "s".into(),
        interface: "eth0".into(),
        queue: 0,
        run: 1,
        seq: 1,
    }
}

/// The traces folder, where the environment names one; says how many tests go without.
pub(crate) fn traces(skipped: u32) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("TAPEDECK_TRACES").map(PathBuf::from) else {
        skip(skipped);
        return None;
    };
    assert!(folder.is_dir(), "TAPEDECK_TRACES names no folder");
    Some(folder)
}

#[expect(clippy::print_stdout, reason = "a skipped test says so")]
fn skip(skipped: u32) {
    println!("SKIPPED {skipped}");
}

/// All packets of a capture up to its first damage, with the first interface's link type.
pub(crate) fn read_capture(path: &Path) -> (LinkType, Vec<Packet>) {
    let mut reader = CaptureReader::open(std::fs::File::open(path).unwrap()).unwrap();
    let mut packets = Vec::new();
    while let Ok(true) = reader.advance() {
        let record = reader.packet().unwrap().record;
        packets.push(Packet { ts: record.ts, bytes: record.bytes.to_vec(), orig_len: record.orig_len });
    }
    (reader.interfaces().first().map_or(LinkType::ETHERNET, |interface| interface.link_type), packets)
}

/// UDP and TCP between a few hosts, IPv4 and IPv6, some behind a VLAN tag, plus ARP.
pub(crate) fn generated(count: u32) -> Vec<Packet> {
    (0..count)
        .map(|n| {
            let (host, port) = (n * 7 % 23, 1000 + n * 13 % 40);
            let bytes = match n % 5 {
                0 => arp(host),
                1 => ip6(host, port),
                2 => tagged(n % 3 + 10, &ip4(host, port, 6)),
                _ => ip4(host, port, 17),
            };
            let ts = Timestamp::from_nanos(1_700_000_000_000_000_000 + u64::from(n) * 1_234_567).unwrap();
            Packet { ts, orig_len: u32::try_from(bytes.len()).unwrap() + n % 2, bytes }
        })
        .collect()
}

fn low(n: u32) -> u8 {
    u8::try_from(n & 0xFF).unwrap()
}

fn ethernet(host: u32, ethertype: [u8; 2]) -> Vec<u8> {
    [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 1, low(host)]].concat().into_iter().chain(ethertype).collect()
}

fn arp(host: u32) -> Vec<u8> {
    let mut bytes = ethernet(host, [8, 6]);
    bytes.extend([0, 1, 8, 0, 6, 4, 0, 1, 2, 0, 0, 0, 1, low(host), 10, 0, 0, low(host)]);
    bytes.extend([0, 0, 0, 0, 0, 0, 10, 0, 0, 1]);
    bytes
}

/// A TCP or UDP header with its ports; the rest of it zero but for TCP's data offset.
fn transport(port: u32, proto: u8) -> Vec<u8> {
    let mut bytes = u16::try_from(port).unwrap().to_be_bytes().to_vec();
    bytes.extend([0, 53]);
    bytes.extend(if proto == 17 {
        vec![0, 8, 0, 0]
    } else {
        vec![0, 0, 0, 1, 0, 0, 0, 0, 0x50, 2, 0, 9, 0, 0, 0, 0]
    });
    bytes
}

fn ip4(host: u32, port: u32, proto: u8) -> Vec<u8> {
    let payload = transport(port, proto);
    let mut bytes = ethernet(host, [8, 0]);
    bytes.extend([0x45, 0, 0, low(20 + u32::try_from(payload.len()).unwrap()), 0, 0, 0, 0, 64, proto, 0, 0]);
    bytes.extend([10, 0, 0, low(host), 192, 0, 2, 1]);
    bytes.extend(payload);
    bytes
}

fn ip6(host: u32, port: u32) -> Vec<u8> {
    let mut bytes = ethernet(host, [0x86, 0xDD]);
    bytes.extend([0x60, 0, 0, 0, 0, 8, 17, 64]);
    for last in [low(host), 200] {
        bytes.extend([0x20, 1, 0xD, 0xB8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
    }
    bytes.extend(transport(port, 17));
    bytes
}

fn tagged(vlan: u32, frame: &[u8]) -> Vec<u8> {
    let (macs, rest) = frame.split_at(12);
    [macs, &[0x81, 0, 0, low(vlan)], rest].concat()
}

/// Runs a program with `input` on its standard input; its output and exit code.
pub(crate) fn run(program: &str, args: &[&str], input: &[u8]) -> (String, Option<i32>) {
    let mut child = Command::new(program)
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}"));
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    // A thread of its own: the program may write before it has read everything.
    let feeder = std::thread::spawn(move || drop(stdin.write_all(&input)));
    let output = child.wait_with_output().unwrap();
    feeder.join().unwrap();
    (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
}
