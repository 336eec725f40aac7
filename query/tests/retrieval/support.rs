//! Stores built from synthetic packets with the index crate's encoders: what a recorder would have left,
//! without a recorder. Every odd state (open, unsorted, many frames) can be asked for.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tapedeck_index::catalog::StoreFile;
use tapedeck_index::frame::{Encoder, store_raw};
use tapedeck_index::journal::{Start, encode_frame, encode_open_blocks, encode_start, encode_tail};
use tapedeck_index::live;
use tapedeck_index::mapped;
use tapedeck_index::name::{FileKind, SegmentName, hour_folder};
use tapedeck_index::pcapng::{
    Counters, InterfaceInfo, PacketRecord, SectionInfo, encode_interface, encode_packet, encode_section,
    encode_statistics,
};
use tapedeck_index::rows::{FrameRows, RowTable};
use tapedeck_index::sidecar::{FrameMeta, Head, SidecarBuilder};
use tapedeck_packet::{LinkType, Timestamp, Walk};
use tempfile::TempDir;

pub(crate) mod packets;
pub(crate) mod records;

/// 2026-11-21T18:00:00Z.
pub(crate) const T: u64 = 1_795_284_000_000_000_000;

/// A packet to be stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) ts: u64,
    pub(crate) bytes: Vec<u8>,
    pub(crate) orig_len: u32,
}

impl Packet {
    pub(crate) fn new(ts: u64, bytes: Vec<u8>) -> Self {
        let orig_len = u32::try_from(bytes.len()).unwrap();
        Self { ts, bytes, orig_len }
    }

    pub(crate) fn record(&self) -> PacketRecord<'_> {
        let ts = Timestamp::from_nanos(self.ts).unwrap();
        PacketRecord { ts, bytes: &self.bytes, orig_len: self.orig_len, dropped: 0, flags: None }
    }
}

/// How a segment is left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Sealed,
    /// Being written: so many frames are recorded, the rest are blocks in the journal.
    Open {
        recorded: usize,
        writer: Writer,
    },
}

/// Who writes an open segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Writer {
    /// A recorder, whose live file states this time.
    Recorder(u64),
    /// An import.
    Import,
    /// It has died; so many frames are whole in the file, and blocks of them in the journal too.
    Dead { whole: usize },
}

impl Left {
    /// Being recorded, and whole.
    pub(crate) fn live(recorded: usize) -> Self {
        Self::Open { recorded, writer: Writer::Recorder(T + 4 * 3_600_000_000_000) }
    }
}

/// What a segment is like.
#[derive(Clone, Debug)]
pub(crate) struct Spec<'a> {
    pub(crate) interface: &'a str,
    pub(crate) queue: u32,
    pub(crate) run: u32,
    pub(crate) link: LinkType,
    /// Packets a frame.
    pub(crate) per_frame: usize,
    pub(crate) left: Left,
}

impl Default for Spec<'_> {
    fn default() -> Self {
        Self {
            interface: "eth1",
            queue: 0,
            run: 0xabcd,
            link: LinkType::ETHERNET,
            per_frame: 4,
            left: Left::Sealed,
        }
    }
}

/// A store in a temporary folder.
pub(crate) struct Store {
    dir: TempDir,
    seq: u32,
    /// The locks of the open segments whose writers live.
    pub(crate) locks: Vec<File>,
}

/// A frame before it is placed.
struct Frame {
    raw: Vec<u8>,
    stored: Vec<u8>,
    meta: FrameMeta,
    rows: FrameRows,
}

impl Store {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        StoreFile::read_or_create(dir.path(), "lab").unwrap();
        Self { dir, seq: 0, locks: Vec::new() }
    }

    pub(crate) fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Writes a segment; the path of its packets.
    pub(crate) fn segment(&mut self, spec: &Spec<'_>, packets: &[Packet]) -> PathBuf {
        let t0 = packets.iter().map(|p| p.ts).min().unwrap();
        let t0 = Timestamp::from_nanos(t0).unwrap();
        let (interface, queue) = (spec.interface.to_owned(), spec.queue);
        let name = SegmentName { t0, sensor: "lab".into(), interface, queue, run: spec.run, seq: self.seq };
        self.seq += 1;
        let folder = self.path().join(hour_folder(t0.hour()));
        fs::create_dir_all(&folder).unwrap();
        let frames = frames(spec, packets);
        match spec.left {
            Left::Sealed => sealed(&folder, &name, spec, &frames),
            Left::Open { recorded, writer } => {
                let path = open(&folder, &name, spec, &frames, (recorded + 1, writer));
                if !matches!(writer, Writer::Dead { .. }) {
                    self.lock(&path);
                }
                if let Writer::Recorder(until) = writer {
                    self.live(&name, until);
                }
                path
            }
        }
    }

    /// The live file of the chain of `name`, with its lock.
    pub(crate) fn live(&mut self, name: &SegmentName, until: u64) {
        let folder = self.path().join(live::RUN_FOLDER);
        fs::create_dir_all(&folder).unwrap();
        let path = folder.join(live::file_name(name));
        // All segments of a chain have one.
        if !path.exists() {
            fs::write(&path, live::encode(Timestamp::from_nanos(until).unwrap())).unwrap();
            self.lock(&path);
        }
    }

    fn lock(&mut self, path: &Path) {
        let file = File::open(path).unwrap();
        file.lock().unwrap();
        self.locks.push(file);
    }

    /// Runs `taperead` with `args` and this store; nothing of the environment reaches it.
    pub(crate) fn taperead(&self, args: &[&str]) -> Answer {
        taperead(&[args, &["--store", self.path().to_str().unwrap()]].concat())
    }
}

/// What a run of `taperead` gave.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Answer {
    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.stdout).unwrap()
    }

    /// The verdict of a run with `--json`.
    pub(crate) fn verdict(&self) -> serde_json::Value {
        serde_json::from_str(self.stderr.lines().last().unwrap()).unwrap()
    }

    /// stdout, stderr and exit status with `hide` replaced by STORE, for snapshots.
    pub(crate) fn shown(&self, hide: &Path) -> String {
        let (out, hide) = (String::from_utf8_lossy(&self.stdout), hide.to_str().unwrap());
        format!("{out}--- stderr, exit {}\n{}", self.code, self.stderr).replace(hide, "STORE")
    }
}

/// Runs the real binary.
pub(crate) fn taperead(args: &[&str]) -> Answer {
    let mut command = Command::new(env!("CARGO_BIN_EXE_taperead"));
    let Output { status, stdout, stderr } = command.args(args).output().unwrap();
    Answer { code: status.code().unwrap(), stdout, stderr: String::from_utf8(stderr).unwrap() }
}

pub(crate) fn interface(spec: &Spec<'_>) -> InterfaceInfo {
    InterfaceInfo {
        name: spec.interface.to_owned(),
        link_type: spec.link,
        snaplen: 0,
        description: Some(format!("queue {}", spec.queue)),
        filter: None,
        hardware: None,
        speed_bps: None,
    }
}

fn section() -> SectionInfo {
    SectionInfo { hardware: None, os: Some("Linux".into()), application: Some("tapedeck test".into()) }
}

/// Frame 0 and the frames of the packets, offsets as in the file.
fn frames(spec: &Spec<'_>, packets: &[Packet]) -> Vec<Frame> {
    let (mut encoder, mut walk, mut table) = (Encoder::new().unwrap(), Walk::new(), RowTable::new());
    let mut head = Vec::new();
    encode_section(&mut head, &section());
    encode_interface(&mut head, &interface(spec));
    encode_statistics(&mut head, Timestamp::ZERO, &Counters::default());
    let mut frames = Vec::new();
    let (mut offset, mut arrival) = (0, 0);
    for chunk in std::iter::once([].as_slice()).chain(packets.chunks(spec.per_frame)) {
        let mut raw = if chunk.is_empty() { head.clone() } else { Vec::new() };
        for packet in chunk {
            encode_packet(&mut raw, &packet.record());
            walk.run(spec.link, &packet.bytes);
            table.add(&walk);
        }
        let mut rows = FrameRows::default();
        table.cut_frame(&mut rows);
        let mut stored = Vec::new();
        encoder.compress(1, &raw, &mut stored).unwrap();
        let time = |ts: Option<u64>| Timestamp::from_nanos(ts.unwrap_or(0)).unwrap();
        let meta = FrameMeta {
            offset,
            stored_len: u32::try_from(stored.len()).unwrap(),
            raw_len: u32::try_from(raw.len()).unwrap(),
            packets: u32::try_from(chunk.len()).unwrap(),
            t_min: time(chunk.iter().map(|p| p.ts).min()),
            t_max: time(chunk.iter().map(|p| p.ts).max()),
            first_arrival: arrival,
            sorted: chunk.is_sorted_by_key(|p| p.ts),
        };
        offset += u64::from(meta.stored_len);
        arrival += u64::from(meta.packets);
        frames.push(Frame { raw, stored, meta, rows });
    }
    frames
}

fn sealed(folder: &Path, name: &SegmentName, spec: &Spec<'_>, frames: &[Frame]) -> PathBuf {
    let mut builder = SidecarBuilder::new();
    let mut file = Vec::new();
    for frame in frames {
        builder.frame(frame.meta, &frame.rows);
        file.extend_from_slice(&frame.stored);
    }
    let (mut end, offset) = (Vec::new(), u64::try_from(file.len()).unwrap());
    encode_statistics(&mut end, name.t0, &Counters::default());
    let stored_len = u32::try_from(store_raw(&end, &mut file).unwrap()).unwrap();
    let raw_len = u32::try_from(end.len()).unwrap();
    let last = frames.last().unwrap().meta;
    builder.frame(FrameMeta { offset, stored_len, raw_len, packets: 0, ..last }, &FrameRows::default());
    let head = Head::encode(&section(), &interface(spec));
    fs::write(folder.join(name.file(FileKind::Index)), builder.finish(name, &head).unwrap()).unwrap();
    let path = folder.join(name.file(FileKind::Sealed));
    fs::write(&path, file).unwrap();
    path
}

/// Whole 4 KiB blocks in the file, the rest and everything unrecorded in the journal.
fn open(
    folder: &Path,
    name: &SegmentName,
    spec: &Spec<'_>,
    frames: &[Frame],
    (recorded, writer): (usize, Writer),
) -> PathBuf {
    let (mut journal, mut file) = (Vec::new(), Vec::new());
    let start =
        Start { name: name.clone(), section: section(), interface: interface(spec), first_arrival: 0 };
    encode_start(&mut journal, &start);
    for (number, frame) in (0u32..).zip(frames) {
        if usize::try_from(number).unwrap() < recorded {
            let whole = file.len() / 4096 * 4096;
            file.extend_from_slice(&frame.stored);
            encode_tail(&mut journal, u64::try_from(whole).unwrap(), &file[whole..]);
            encode_frame(&mut journal, &frame.meta, &frame.rows);
        } else {
            encode_open_blocks(&mut journal, number, 0, &frame.raw);
        }
    }
    match writer {
        Writer::Dead { whole } if whole + 1 > recorded => {
            let unrecorded = frames.iter().take(whole + 1).skip(recorded);
            unrecorded.for_each(|frame| file.extend_from_slice(&frame.stored));
            // The disk gets whole blocks only.
            file.resize(file.len().next_multiple_of(4096), 0);
        }
        _ => {}
    }
    file.truncate(file.len() / 4096 * 4096);
    // Space is allocated ahead.
    file.resize(file.len() + 64 * 1024, 0);
    fs::write(folder.join(name.file(FileKind::Journal)), journal).unwrap();
    let path = folder.join(name.file(FileKind::Open));
    fs::write(&path, file).unwrap();
    path
}

/// Flips a bit in the checksum of a frame of a sealed segment.
pub(crate) fn damage(path: &Path, frame: usize) {
    let sidecar = PathBuf::from(path.to_str().unwrap().replace(".pcapng.zst", ".idx"));
    let meta = mapped::open(&sidecar).unwrap().frames().unwrap()[frame];
    let mut bytes = fs::read(path).unwrap();
    let end = usize::try_from(meta.offset + u64::from(meta.stored_len)).unwrap();
    bytes[end - 1] ^= 0x10;
    fs::write(path, bytes).unwrap();
}

/// All files below `folder` whose names end in `suffix`, sorted.
pub(crate) fn files(folder: &Path, suffix: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files(&path, suffix));
        } else if path.to_str().unwrap().ends_with(suffix) {
            found.push(path);
        }
    }
    found.sort();
    found
}
