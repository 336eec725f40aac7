//! The sidecar alone, built as a recording builds it: rows noted packet by packet, handed over with each frame, sorted
//! and written out when a segment ends. Headers have been walked before; nothing is compressed, copied or written.

use super::steps::Steps;
use super::{BATCH, cpu_time, median};
use crate::alone::{Content, UNHURRIED};
use crate::machine::ratio;
use anyhow::{Context as _, Result, ensure};
use nix::time::ClockId;
use serde::Serialize;
use std::time::Duration;
use tapedeck_index::frame::Encoder;
use tapedeck_index::name::SegmentName;
use tapedeck_index::pcapng::{Block, Blocks, InterfaceInfo, PacketRecord, SectionInfo};
use tapedeck_index::rows::{FrameRows, RowTable};
use tapedeck_index::sidecar::{FrameMeta, Head, Section, Sidecar, SidecarBuilder};
use tapedeck_packet::{LinkType, Timestamp, Walk};

/// What a sidecar costs, and how large it is; times are medians of all rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Of which packets: `synthetic`, or the capture.
    pub content: String,
    /// Packets of the segment.
    pub packets: u64,
    /// Distinct rows: flows, and what else a layer can be.
    pub rows: u64,
    /// Pairs of row and frame.
    pub postings: u64,
    /// Frames.
    pub frames: u64,
    /// CPU time of noting the rows of a packet, in the worker, ns a packet.
    pub rows_ns: f64,
    /// CPU time of taking over the rows of frames, in the stage thread, ns a packet.
    pub frames_ns: f64,
    /// CPU time of sorting and encoding at the seal, ns a packet.
    pub finish_ns: f64,
    /// 1e9 bytes of pcapng in a second of CPU time, all three together.
    pub gb_per_s: f64,
    /// Bytes of the sidecar.
    pub bytes: u64,
    /// Of them for each row, without its postings: entry, addresses, tags, lists.
    pub bytes_per_row: f64,
    /// For each posting.
    pub bytes_per_posting: f64,
    /// For each frame.
    pub bytes_per_frame: f64,
    /// Whatever the segment holds: header and head.
    pub fixed_bytes: u64,
    /// Bytes of the frames at the level of an unhurried recording.
    pub stored_bytes: u64,
    /// Stored bytes of a row.
    pub stored_per_row: f64,
    /// Bytes of the sidecar for one of the frames.
    pub share_of_stored: f64,
}

/// CPU time of the three parts.
#[derive(Clone, Copy, Debug, Default)]
struct Times {
    rows: Duration,
    frames: Duration,
    finish: Duration,
}

/// What is built with, reused as a recording reuses it.
#[derive(Debug)]
struct Builder {
    table: RowTable,
    builder: SidecarBuilder,
    rows: FrameRows,
    walks: Vec<Walk>,
    postings: usize,
}

/// What `rounds` may take, seconds.
#[must_use]
pub fn weight(rounds: u32) -> f64 {
    1.0 + 0.3 * f64::from(rounds + 1)
}

/// Builds the sidecar of one segment with all this content, so many times.
///
/// # Errors
/// The content cannot be read, or the sidecar is not one.
pub fn measure(content: &Content, rounds: u32, steps: &mut Steps) -> Result<Figures> {
    steps.step(&format!("sidecar of {}", content.name()), weight(rounds));
    let mut encoder = Encoder::new().context("starting an encoder")?;
    let (mut stored, mut out) = (Vec::new(), Vec::new());
    for frame in content.frames() {
        out.clear();
        stored.push(u32::try_from(encoder.compress(UNHURRIED, frame, &mut out)?)?);
    }
    let (mut builder, mut all, mut sidecar) = (Builder::new(), Vec::new(), Vec::new());
    // The first round takes memory, and does not count.
    for round in 0..=rounds {
        let (times, bytes) = builder.build(content, &stored)?;
        if round > 0 {
            all.push(times);
        }
        sidecar = bytes;
    }
    figures(content, &builder, &all, sidecar)
}

/// Runs the parts once, for counting instructions: the walk always, then rows, then the rest.
///
/// # Errors
/// As [`measure`].
pub fn run(content: &Content, part: Part) -> Result<()> {
    let mut builder = Builder::new();
    let stored: Vec<u32> =
        content.frames().iter().map(|f| u32::try_from(f.len())).collect::<Result<_, _>>()?;
    match part {
        Part::Walk => {
            for frame in content.frames() {
                builder.note(frame, false)?;
            }
        }
        Part::Rows => {
            for frame in content.frames() {
                builder.note(frame, true)?;
                builder.table.cut_frame(&mut builder.rows);
            }
        }
        Part::Build => {
            std::hint::black_box(builder.build(content, &stored)?);
        }
    }
    Ok(())
}

/// How far [`run`] goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Packets are read from their frames and walked.
    Walk,
    /// Their rows are noted.
    Rows,
    /// The sidecar is built.
    Build,
}

/// What a frame's entry needs of its packets.
#[derive(Clone, Copy, Debug, Default)]
struct Seen {
    packets: u32,
    times: Option<(Timestamp, Timestamp)>,
    unsorted: bool,
    last: Timestamp,
    spent: Duration,
}

impl Builder {
    fn new() -> Self {
        let table = RowTable::new();
        // As the writer does with its own.
        tapedeck_writer::prefer_huge_pages(&table.memory());
        let (builder, rows, walks) = (SidecarBuilder::new(), FrameRows::default(), vec![Walk::new(); BATCH]);
        Self { table, builder, rows, walks, postings: 0 }
    }

    fn build(&mut self, content: &Content, stored: &[u32]) -> Result<(Times, Vec<u8>)> {
        self.table.clear();
        self.builder.clear();
        self.postings = 0;
        let mut times = Times::default();
        let head = Head::encode(&SectionInfo::default(), &InterfaceInfo::named("bench", LinkType::ETHERNET));
        // Frame 0 of a segment: the head and nothing else.
        let mut offset = head.len() as u64;
        let meta = FrameMeta {
            offset: 0,
            stored_len: u32::try_from(head.len())?,
            raw_len: u32::try_from(head.len())?,
            packets: 0,
            t_min: Timestamp::ZERO,
            t_max: Timestamp::ZERO,
            first_arrival: 0,
            sorted: true,
        };
        self.builder.frame(meta, &FrameRows::default());
        for (raw, stored_len) in content.frames().iter().zip(stored) {
            let seen = self.note(raw, true)?;
            times.rows += seen.spent;
            let before = cpu_time(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
            self.table.cut_frame(&mut self.rows);
            let cut = cpu_time(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
            times.rows += cut.saturating_sub(before);
            let (t_min, t_max) = seen.times.unwrap_or_default();
            let raw_len = u32::try_from(raw.len())?;
            let (stored_len, packets, sorted) = (*stored_len, seen.packets, !seen.unsorted);
            self.builder.frame(
                FrameMeta { offset, stored_len, raw_len, packets, t_min, t_max, sorted, ..meta },
                &self.rows,
            );
            times.frames += cpu_time(ClockId::CLOCK_THREAD_CPUTIME_ID)?.saturating_sub(cut);
            offset += u64::from(stored_len);
            self.postings += self.rows.present.len();
        }
        let name = SegmentName {
            t0: content.first()?,
            sensor: "bench".to_owned(),
            interface: "bench".to_owned(),
            queue: 0,
            run: 0,
            seq: 0,
        };
        let before = cpu_time(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
        let bytes = self.builder.finish(&name, &head)?;
        times.finish = cpu_time(ClockId::CLOCK_THREAD_CPUTIME_ID)?.saturating_sub(before);
        Ok((times, bytes))
    }

    /// Walks the packets of a frame in batches and, if asked, notes their rows; the time of the latter.
    fn note(&mut self, raw: &[u8], rows: bool) -> Result<Seen> {
        let (mut seen, mut filled) = (Seen::default(), 0);
        for block in Blocks::new(raw) {
            let (_, Block::Packet(packet)) = block? else { continue };
            seen.take(&packet);
            if let Some(walk) = self.walks.get_mut(filled) {
                walk.run(LinkType::ETHERNET, packet.bytes);
            }
            filled += 1;
            if filled == self.walks.len() {
                seen.spent += self.flush(filled, rows)?;
                filled = 0;
            }
        }
        seen.spent += self.flush(filled, rows)?;
        Ok(seen)
    }

    fn flush(&mut self, filled: usize, rows: bool) -> Result<Duration> {
        let walks = self.walks.get(..filled).unwrap_or_default();
        std::hint::black_box(walks);
        if !rows {
            return Ok(Duration::ZERO);
        }
        let before = cpu_time(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
        for walk in walks {
            self.table.add(walk);
        }
        Ok(cpu_time(ClockId::CLOCK_THREAD_CPUTIME_ID)?.saturating_sub(before))
    }
}

impl Seen {
    fn take(&mut self, packet: &PacketRecord<'_>) {
        self.packets += 1;
        self.unsorted |= packet.ts < self.last;
        self.last = packet.ts;
        let (min, max) = self.times.unwrap_or((packet.ts, packet.ts));
        self.times = Some((min.min(packet.ts), max.max(packet.ts)));
    }
}

fn figures(content: &Content, builder: &Builder, all: &[Times], sidecar: Vec<u8>) -> Result<Figures> {
    let stored_bytes = builder.builder.stored_len();
    let sidecar = Sidecar::from_bytes(sidecar)?;
    sidecar.verify()?;
    let summary = sidecar.summary();
    let (packets, bytes) = (summary.packets, sidecar.byte_len());
    ensure!(packets == content.packets(), "{packets} packets in the sidecar of {}", content.packets());
    let each = |part: fn(&Times) -> Duration| {
        median(all.iter().map(|times| part(times).as_secs_f64() * 1e9 / ratio(packets, 1)))
    };
    let (rows_ns, frames_ns, finish_ns) = (each(|t| t.rows), each(|t| t.frames), each(|t| t.finish));
    let len = |section| u64::try_from(sidecar.section_len(section)).unwrap_or(u64::MAX);
    let (rows, frames) = (u64::from(summary.rows), u64::from(summary.frames));
    let postings = u64::try_from(builder.postings)?;
    let by_frame = len(Section::Frames);
    let by_posting = len(Section::Postings);
    let by_row: u64 = Section::ALL
        .into_iter()
        .filter(|section| !matches!(section, Section::Frames | Section::Postings | Section::Head))
        .map(len)
        .sum();
    let raw = u64::try_from(content.bytes())?;
    Ok(Figures {
        content: content.name().to_owned(),
        packets,
        rows,
        postings,
        frames,
        rows_ns,
        frames_ns,
        finish_ns,
        gb_per_s: ratio(raw, packets) / (rows_ns + frames_ns + finish_ns),
        bytes,
        bytes_per_row: ratio(by_row, rows),
        bytes_per_posting: ratio(by_posting, postings),
        bytes_per_frame: ratio(by_frame, frames),
        fixed_bytes: bytes - by_row - by_posting - by_frame,
        stored_bytes,
        stored_per_row: ratio(stored_bytes, rows),
        share_of_stored: ratio(bytes, stored_bytes),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sidecar_is_a_real_one_and_its_bytes_add_up() {
        let options = super::super::Options {
            bytes: 200,
            level: tapedeck_writer::Level::Off,
            packets: 20_000,
            rounds: 1,
            train: 1,
        };
        let content = super::super::content(&options, Some(20_000));
        let mut steps = Steps::new(1.0);
        let of = measure(&content, 1, &mut steps).unwrap();
        // 1,000 sessions and no other layer; 20,000 blocks of 232 bytes, 2,259 to a frame, behind frame 0.
        assert_eq!((of.packets, of.rows, of.frames), (20_000, 1_000, 10));
        assert!(of.postings > of.rows && of.postings <= of.rows * (of.frames - 1), "{of:?}");
        assert_eq!(of.bytes_per_frame, 32.0);
        let parts = of.bytes_per_row * 1_000.0 + of.bytes_per_posting * ratio(of.postings, 1) + 320.0;
        assert!((parts + ratio(of.fixed_bytes, 1) - ratio(of.bytes, 1)).abs() < 1e-6, "{of:?}");
        assert!(of.rows_ns > 0.0 && of.frames_ns > 0.0 && of.finish_ns > 0.0 && of.gb_per_s > 0.0, "{of:?}");
        for part in [Part::Walk, Part::Rows, Part::Build] {
            run(&content, part).unwrap();
        }
    }
}
