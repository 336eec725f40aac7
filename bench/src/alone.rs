//! What one core does to bytes that lie in memory: copy them, and compress them at each level. Nothing of a recording is
//! around it; the bytes are frames of pcapng, as a recorder hands them to its compressor.

use crate::traffic::{Model, Shape, Traffic};
use anyhow::{Context as _, Result, bail};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use std::path::Path;
use std::time::Duration;
use tapedeck_index::frame::{Encoder, compress_bound, store_raw};
use tapedeck_index::pcapng::{Block, Blocks, PacketRecord, encode_packet, packet_block_len};
use tapedeck_packet::Timestamp;
use tapedeck_writer::level::{Effort, STEPS};

/// Bytes of a frame, as the recorder cuts them.
const FRAME: usize = 512 << 10;
/// Bytes that are worked on: more than caches hold, so that they come from memory as a recorder's do.
pub const CONTENT: usize = 64 << 20;
/// Levels: those of `auto`, and what lies around them.
const LEVELS: [i32; 5] = [-8, -5, 1, 3, 6];
/// The level that `auto` takes while nothing presses.
pub const UNHURRIED: i32 = match STEPS {
    [Effort::Zstd(level), ..] => level,
    _ => 0,
};
/// The lowest level that `auto` goes down to before it stores raw.
pub const PRESSED: i32 = match STEPS {
    [.., Effort::Zstd(level), Effort::Raw] => level,
    _ => UNHURRIED,
};
const _: () = assert!(LEVELS[0] == PRESSED && LEVELS[2] == UNHURRIED && UNHURRIED != 0);
/// Between two packets of a capture, ns.
const STEP_NS: u64 = 1_000;

/// What one core does.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// `memcpy`, `raw` (a frame without compression, with its checksum), or `level N`.
    pub stage: String,
    /// Of which bytes: `synthetic`, or the capture.
    pub content: String,
    /// Bytes of pcapng that go in a second of CPU time, in 1e9; the median of all rounds.
    pub gb_per_s: f64,
    /// Bytes that go in for one that comes out.
    pub ratio: f64,
    /// When the recorder's `auto` writes frames so, if it does: `unhurried`, `pressed` (the lowest level it goes to), or
    /// `raw` (when that is not enough either, or nothing is gained).
    pub auto: Option<&'static str>,
}

/// What `auto` calls a way of writing.
fn auto(effort: Effort) -> Option<&'static str> {
    match effort {
        Effort::Raw => STEPS.contains(&effort).then_some("raw"),
        Effort::Zstd(UNHURRIED) => Some("unhurried"),
        Effort::Zstd(PRESSED) => Some("pressed"),
        Effort::Zstd(_) => STEPS.contains(&effort).then_some("between"),
    }
}

/// Whole packets as frames of pcapng.
#[derive(Clone, Debug)]
pub struct Content {
    name: String,
    frames: Vec<Vec<u8>>,
}

impl Content {
    /// Of these packets, again and again until there is enough; a packet may be longer than a frame.
    #[must_use]
    pub fn of<'a>(name: &str, mut packets: impl Iterator<Item = (&'a [u8], Timestamp)>) -> Self {
        let (mut frames, mut frame, mut bytes) = (Vec::new(), Vec::with_capacity(FRAME), 0);
        while bytes < CONTENT
            && let Some((data, ts)) = packets.next()
        {
            let orig_len = u32::try_from(data.len()).unwrap_or(u32::MAX);
            let record = PacketRecord { ts, bytes: data, orig_len, dropped: 0, flags: None };
            let len = packet_block_len(&record);
            if frame.len() + len > FRAME && !frame.is_empty() {
                frames.push(std::mem::replace(&mut frame, Vec::with_capacity(FRAME)));
            }
            encode_packet(&mut frame, &record);
            bytes += len;
        }
        if !frame.is_empty() {
            frames.push(frame);
        }
        Self { name: name.to_owned(), frames }
    }

    /// Of a capture, once: its own repetition is none of its own.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn of_capture(path: &Path) -> Result<Self> {
        let traffic = Traffic::new(&Model::File(path.to_owned()), &Shape::default())?;
        let times = (0..).map(|number: u64| Timestamp::from_nanos_saturating(number * STEP_NS));
        let packets = traffic.templates.iter().map(|template| template.bytes.as_slice()).zip(times);
        Ok(Self::of(&path.display().to_string(), packets))
    }

    /// Where it comes from.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its frames, uncompressed.
    #[must_use]
    pub fn frames(&self) -> &[Vec<u8>] {
        &self.frames
    }

    /// Bytes of all frames.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.frames.iter().map(Vec::len).sum()
    }

    /// Packets in all frames.
    #[must_use]
    pub fn packets(&self) -> u64 {
        let count = |frame: &Vec<u8>| Blocks::new(frame).count() as u64;
        self.frames.iter().map(count).sum()
    }

    /// Time of the first packet.
    ///
    /// # Errors
    /// There is none.
    pub fn first(&self) -> Result<Timestamp> {
        let block = self.frames.first().and_then(|frame| Blocks::new(frame).next());
        let Some(Ok((_, Block::Packet(packet)))) = block else { bail!("{} holds no packet", self.name) };
        Ok(packet.ts)
    }
}

/// Measures all of it, so many times.
///
/// # Errors
/// The encoder or the CPU clock fails.
pub fn measure(content: &Content, rounds: u32) -> Result<Vec<Row>> {
    let mut encoder = Encoder::new().context("starting an encoder")?;
    let mut out = Vec::with_capacity(compress_bound(2 * FRAME));
    let mut all = vec![row(content, "memcpy", None, rounds, &mut out, copy)?];
    let mut rows: Vec<(String, Effort)> = vec![("raw".to_owned(), Effort::Raw)];
    rows.extend(LEVELS.map(|level| (format!("level {level}"), Effort::Zstd(level))));
    for (name, effort) in rows {
        all.push(row(content, &name, auto(effort), rounds, &mut out, |raw, out| {
            write(&mut encoder, effort, raw, out)
        })?);
    }
    Ok(all)
}

/// Works on the frames once, for counting instructions: `copy`, or as a recorder writes them.
///
/// # Errors
/// The encoder fails.
pub fn run(content: &Content, effort: Option<Effort>) -> Result<()> {
    let mut encoder = Encoder::new().context("starting an encoder")?;
    let mut out = Vec::with_capacity(compress_bound(2 * FRAME));
    for frame in content.frames() {
        out.clear();
        match effort {
            None => copy(frame, &mut out)?,
            Some(effort) => write(&mut encoder, effort, frame, &mut out)?,
        }
        std::hint::black_box(&out);
    }
    Ok(())
}

#[expect(clippy::unnecessary_wraps, reason = "one of several ways of writing, others of which fail")]
fn copy(raw: &[u8], out: &mut Vec<u8>) -> Result<()> {
    out.extend_from_slice(raw);
    Ok(())
}

fn write(encoder: &mut Encoder, effort: Effort, raw: &[u8], out: &mut Vec<u8>) -> Result<()> {
    match effort {
        Effort::Raw => store_raw(raw, out).map(drop)?,
        Effort::Zstd(level) => encoder.compress(level, raw, out).map(drop)?,
    }
    Ok(())
}

/// One way of writing a frame.
fn row(
    content: &Content,
    stage: &str,
    auto: Option<&'static str>,
    rounds: u32,
    out: &mut Vec<u8>,
    mut work: impl FnMut(&[u8], &mut Vec<u8>) -> Result<()>,
) -> Result<Row> {
    let (mut rates, mut stored) = (Vec::new(), 0_usize);
    // The first round takes memory and fills tables, and does not count.
    for round in 0..=rounds {
        let (before, mut made) = (cpu_time()?, 0);
        for frame in &content.frames {
            out.clear();
            work(frame, out)?;
            made += std::hint::black_box(&*out).len();
        }
        let took = cpu_time()?.saturating_sub(before).as_nanos();
        if round > 0 {
            rates.push(rate(content.bytes(), u64::try_from(took)?));
        }
        stored = made;
    }
    let ratio = crate::machine::ratio(u64::try_from(content.bytes())?, u64::try_from(stored)?);
    let gb_per_s = crate::search::median(&rates);
    Ok(Row { stage: stage.to_owned(), content: content.name.clone(), gb_per_s, ratio, auto })
}

/// Bytes a nanosecond, which are 1e9 bytes a second.
fn rate(bytes: usize, ns: u64) -> f64 {
    crate::machine::ratio(u64::try_from(bytes).unwrap_or(u64::MAX), ns)
}

fn cpu_time() -> Result<Duration> {
    Ok(Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).context("reading the CPU clock")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_hold_whole_packets_and_every_row_is_measured() {
        let packet = [7_u8; 1_000];
        let packets = (0..2_000_u64).map(|n| (packet.as_slice(), Timestamp::from_nanos_saturating(n)));
        let content = Content::of("zeroes", packets);
        // 32 bytes of block around 1,000: 508 packets fit into 524,288 bytes.
        assert_eq!(content.bytes(), 2_000 * 1_032);
        assert_eq!(content.frames.first().map(Vec::len), Some(508 * 1_032));
        let rows = measure(&content, 1).unwrap();
        let names: Vec<&str> = rows.iter().map(|row| row.stage.as_str()).collect();
        assert_eq!(names, ["memcpy", "raw", "level -8", "level -5", "level 1", "level 3", "level 6"]);
        assert!(rows.iter().all(|row| row.gb_per_s > 0.0 && row.content == "zeroes"), "{rows:?}");
        assert_eq!(rows[0].ratio, 1.0);
        let autos: Vec<_> = rows.iter().map(|row| row.auto).collect();
        assert_eq!(autos, [None, Some("raw"), Some("pressed"), None, Some("unhurried"), None, None]);
        assert_eq!((content.packets(), content.first().unwrap()), (2_000, Timestamp::ZERO));
        // Header, block heads and checksum of a frame of raw blocks; the same bytes again and again.
        assert!(rows[1].ratio < 1.0 && rows[1].ratio > 0.999 && rows[4].ratio > 20.0, "{rows:?}");
    }
}
