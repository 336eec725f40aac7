//! `taperead inspect`: what is inside one file of a store, as far as it can be read. Never writes.

use crate::failure::Failure;
use crate::framewalk;
use crate::out::Sink;
use crate::run::{Talk, print};
use crate::segment::{Handle, len64};
use crate::verdict::{EXIT_MATCHES, EXIT_NOT_WHOLE};
use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};
use tapedeck_index::frame::{Decoder, RAW_BYTES_MAX};
use tapedeck_index::journal::{Record, Records, Stop};
use tapedeck_index::name::{FileKind, INDEX_SUFFIX, JOURNAL_SUFFIX, OPEN_SUFFIX, SEALED_SUFFIX, SegmentName};
use tapedeck_index::pcapng::{Block, Blocks, InterfaceInfo, SectionInfo};
use tapedeck_index::sidecar::{Head, MAGIC, Sidecar};
use tapedeck_packet::Timestamp;
use tapedeck_packet::escape::Foreign;

/// First bytes of a zstd frame.
const ZSTD_MAGIC: [u8; 4] = 0xFD2F_B528u32.to_le_bytes();

/// What was found, and whether all of it could be read.
#[derive(Default)]
struct Report {
    text: String,
    damaged: bool,
}

impl Report {
    fn line(&mut self, what: &dyn std::fmt::Display) {
        let _ = writeln!(self.text, "  {what}");
    }

    fn damage(&mut self, offset: u64, what: &dyn std::fmt::Display) {
        self.damaged = true;
        self.line(&format_args!("damaged at byte {offset}: {what}"));
    }
}

pub(crate) fn inspect(
    files: &[PathBuf],
    mut out: Sink<'_>,
    for_terminal: bool,
    _talk: &mut Talk<'_>,
) -> Result<u8, Failure> {
    let mut damaged = false;
    for path in files {
        let report = one(path, for_terminal)?;
        let shown = path.to_string_lossy();
        print(&mut out, &format_args!("{}: {}", Foreign::new(&shown, for_terminal), report.text))?;
        damaged |= report.damaged;
    }
    Ok(if damaged { EXIT_NOT_WHOLE } else { EXIT_MATCHES })
}

fn one(path: &Path, for_terminal: bool) -> Result<Report, Failure> {
    let cannot = |e: &io::Error| {
        let failure = Failure::because(format!("cannot read '{}'", path.display()), e);
        let missing = e.kind() == io::ErrorKind::NotFound;
        match beside(path, FileKind::Index).filter(|index| missing && index.exists()) {
            Some(index) => failure
                .hint(format!("the segment is missing, its index is there: inspect '{}'", index.display())),
            None => failure,
        }
    };
    let kind = kind_of(path).map_err(|e| cannot(&e))?.ok_or_else(|| {
        Failure::new(format!("'{}' is no file of a tapedeck store", path.display())).hint(
            "inspect reads .pcapng.zst, .idx, .open and .journal files; 'capinfos' reads other captures",
        )
    })?;
    let read = match kind {
        FileKind::Sealed | FileKind::Open => segment(path, kind, for_terminal),
        FileKind::Index => sidecar(path, for_terminal),
        FileKind::Journal => journal(path, for_terminal),
    };
    read.map_err(|e| cannot(&e))
}

/// What a file is: by its first bytes where they say it, else by its name.
fn kind_of(path: &Path) -> io::Result<Option<FileKind>> {
    let mut head = Vec::new();
    File::open(path)?.take(8).read_to_end(&mut head)?;
    let name = path.file_name().map(|n| n.to_string_lossy()).unwrap_or_default();
    let named = [
        (SEALED_SUFFIX, FileKind::Sealed),
        (INDEX_SUFFIX, FileKind::Index),
        (OPEN_SUFFIX, FileKind::Open),
        (JOURNAL_SUFFIX, FileKind::Journal),
    ];
    let by_name = named.into_iter().find(|(suffix, _)| name.ends_with(suffix)).map(|(_, kind)| kind);
    Ok(match by_name {
        None if head == MAGIC => Some(FileKind::Index),
        None if head.starts_with(&ZSTD_MAGIC) => Some(FileKind::Sealed),
        other => other,
    })
}

fn named(path: &Path, report: &mut Report) {
    if let Some((name, _)) = path.file_name().and_then(|n| n.to_str()).and_then(SegmentName::parse_file) {
        let SegmentName { t0, sensor, interface, queue, run, seq } = name;
        let (sensor, interface) = (Foreign::new(&sensor, true), Foreign::new(&interface, true));
        report.line(&format_args!(
            "named      sensor {sensor}, interface {interface}, queue {queue}, run {run:08x}, number {seq}, from {t0}"
        ));
    }
}

fn segment(path: &Path, kind: FileKind, for_terminal: bool) -> io::Result<Report> {
    let file = Handle::Sealed(path.to_owned()).open()?;
    let mut report = Report::default();
    let open = kind == FileKind::Open;
    let _ = writeln!(report.text, "{}segment, {} bytes", if open { "open " } else { "" }, file.file_len()?);
    named(path, &mut report);
    let mut decoder = Decoder::new().map_err(io::Error::other)?;
    let (mut stored, mut raw) = (Vec::new(), Vec::new());
    let (mut frames, mut packets, mut raw_bytes) = (0u64, 0u64, 0u64);
    // What is damaged has been told, so it is not told as missing again.
    let mut ended = false;
    for stretch in framewalk::walk(&file)? {
        ended = true;
        if !stretch.is_frame {
            if open {
                report.line(&format_args!(
                    "from byte {}: {} bytes not written yet",
                    stretch.offset, stretch.len
                ));
            } else {
                report.damage(stretch.offset, &format_args!("{} bytes are no frame", stretch.len));
            }
            continue;
        }
        stored.resize(usize::try_from(stretch.len).map_err(io::Error::other)?, 0);
        file.read_at(&mut stored, stretch.offset)?;
        let number = frames;
        frames += 1;
        if let Err(e) = decoder.decompress(&stored, &mut raw, RAW_BYTES_MAX) {
            report.damage(stretch.offset, &format_args!("frame {number}, {} bytes: {e}", stretch.len));
            continue;
        }
        raw_bytes += len64(raw.len());
        let content = Content::of(&raw, &mut report, for_terminal);
        packets += content.packets;
        ended = number > 0 && content.packets == 0;
        report.line(&format_args!(
            "frame {number:5}  at {:10}  stored {:8}  raw {:8}  {content}",
            stretch.offset,
            stretch.len,
            raw.len()
        ));
        if let Some(problem) = content.problem {
            report.damage(stretch.offset, &format_args!("frame {number}: {problem}"));
        }
    }
    report
        .line(&format_args!("in all     {frames} frames, {packets} packets, {raw_bytes} bytes uncompressed"));
    if !open && !ended {
        report.damage(file.file_len()?, &"the segment does not end as a sealed one does: its end is missing");
    }
    Ok(report)
}

/// What a frame holds.
#[derive(Default)]
struct Content {
    packets: u64,
    times: Option<(Timestamp, Timestamp)>,
    statistics: u64,
    problem: Option<String>,
}

impl Content {
    fn of(raw: &[u8], report: &mut Report, for_terminal: bool) -> Self {
        let mut content = Self::default();
        for block in Blocks::new(raw) {
            match block {
                Ok((_, Block::Packet(packet))) => {
                    content.packets += 1;
                    let (min, max) = content.times.unwrap_or((packet.ts, packet.ts));
                    content.times = Some((min.min(packet.ts), max.max(packet.ts)));
                }
                Ok((_, Block::Statistics(..))) => content.statistics += 1,
                Ok((_, Block::Section(section))) => describe_section(&section, report, for_terminal),
                Ok((_, Block::Interface(interface))) => describe_interface(&interface, report, for_terminal),
                Ok((_, Block::Other(_))) => {}
                Err(e) => content.problem = Some(e.to_string()),
            }
        }
        content
    }
}

impl std::fmt::Display for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} packets", self.packets)?;
        if let Some((min, max)) = self.times {
            write!(f, ", {min} to {max}")?;
        }
        if self.statistics > 0 {
            write!(f, ", {} statistics", self.statistics)?;
        }
        Ok(())
    }
}

fn describe_section(section: &SectionInfo, report: &mut Report, for_terminal: bool) {
    let text = |t: &Option<String>| t.clone().unwrap_or_else(|| "-".to_owned());
    let (application, os) = (text(&section.application), text(&section.os));
    report.line(&format_args!(
        "section    written by {} on {}",
        Foreign::new(&application, for_terminal),
        Foreign::new(&os, for_terminal)
    ));
}

fn describe_interface(interface: &InterfaceInfo, report: &mut Report, for_terminal: bool) {
    let InterfaceInfo { name, link_type, snaplen, description, .. } = interface;
    let description = description.as_deref().unwrap_or("-");
    report.line(&format_args!(
        "interface  {}, {link_type}, snaplen {snaplen}, {}",
        Foreign::new(name, for_terminal),
        Foreign::new(description, for_terminal)
    ));
}

/// The file of another kind of the segment that `path` belongs to.
fn beside(path: &Path, kind: FileKind) -> Option<PathBuf> {
    let (name, _) = SegmentName::parse_file(path.file_name()?.to_str()?)?;
    Some(path.with_file_name(name.file(kind)))
}

/// What can be said of a segment by the length of its file, which its index knows.
fn segment_of(index: &Path, segment_len: u64, report: &mut Report) {
    let Some(packets) = beside(index, FileKind::Sealed) else { return };
    match fs::metadata(&packets).map(|metadata| metadata.len()) {
        Ok(len) if len < segment_len => {
            report.line(&format_args!("segment    CUT: {len} of {segment_len} bytes are there"));
        }
        Ok(len) if len > segment_len => {
            report.line(&format_args!("segment    has {len} bytes: more than this index knows of"));
        }
        Err(e) if e.kind() == io::ErrorKind::NotFound => {
            report.line(&"segment    MISSING: only this index is left");
        }
        _ => {}
    }
}

fn sidecar(path: &Path, for_terminal: bool) -> io::Result<Report> {
    let bytes = fs::read(path)?;
    let mut report = Report::default();
    let _ = writeln!(report.text, "index, {} bytes", bytes.len());
    named(path, &mut report);
    let sidecar = match Sidecar::from_bytes(bytes) {
        Ok(sidecar) => sidecar,
        Err(e) => {
            report.damage(0, &e);
            return Ok(report);
        }
    };
    let summary = sidecar.summary();
    report.line(&format_args!(
        "segment    run {:08x}, number {}, queue {}, {} bytes, {} frames, {} packets, {} rows",
        summary.run,
        summary.seq,
        summary.queue,
        summary.segment_len,
        summary.frames,
        summary.packets,
        summary.rows
    ));
    segment_of(path, summary.segment_len, &mut report);
    if let Some((min, max)) = summary.times {
        report.line(&format_args!("times      {min} to {max}"));
    }
    if let Ok(Some(Head { section, interface })) = sidecar.head() {
        describe_section(&section, &mut report, for_terminal);
        describe_interface(&interface, &mut report, for_terminal);
    }
    match sidecar.frames() {
        Ok(frames) => {
            for (number, f) in frames.iter().enumerate() {
                report.line(&format_args!(
                    "frame {number:5}  at {:10}  stored {:8}  raw {:8}  {} packets{}{}",
                    f.offset,
                    f.stored_len,
                    f.raw_len,
                    f.packets,
                    if f.packets > 0 { format!(", {} to {}", f.t_min, f.t_max) } else { String::new() },
                    if f.sorted { "" } else { ", not in order of time" }
                ));
            }
        }
        Err(e) => report.line(&format_args!("frames     {e}")),
    }
    if let Err(e) = sidecar.verify() {
        report.damaged = true;
        report.line(&format_args!("damaged: {e}"));
    }
    Ok(report)
}

fn journal(path: &Path, for_terminal: bool) -> io::Result<Report> {
    let bytes = fs::read(path)?;
    let mut report = Report::default();
    let _ = writeln!(report.text, "journal, {} bytes", bytes.len());
    named(path, &mut report);
    let mut records = Records::new(&bytes);
    loop {
        let at = records.good_len();
        let Some(record) = records.next() else { break };
        match record {
            Record::Start(start) => {
                report.line(&format_args!("at {at:10}  start, segment {}", start.name));
                describe_interface(&start.interface, &mut report, for_terminal);
            }
            Record::Frame(meta, rows) => report.line(&format_args!(
                "at {at:10}  frame at {}, stored {}, raw {}, {} packets, {} to {}, {} new rows",
                meta.offset,
                meta.stored_len,
                meta.raw_len,
                meta.packets,
                meta.t_min,
                meta.t_max,
                rows.new_rows.len()
            )),
            Record::Tail { offset, bytes } => {
                report.line(&format_args!("at {at:10}  tail of {} bytes at {offset}", bytes.len()));
            }
            Record::OpenBlocks { frame, offset, bytes } => report.line(&format_args!(
                "at {at:10}  blocks of frame {frame}, {} bytes at {offset} uncompressed",
                bytes.len()
            )),
        }
    }
    let good = len64(records.good_len());
    match records.stop() {
        Some(Stop::Cut) => report.line(&format_args!("ends in the middle of a record, at byte {good}")),
        Some(Stop::Damaged) => report.damage(good, &"the record does not hold"),
        Some(Stop::End) | None => {}
    }
    Ok(report)
}
