//! What one core does to bytes that lie in memory: copy them, and compress them at each level. Nothing of a recording is
//! around it; the bytes are frames of pcapng, as a recorder hands them to its compressor.

use crate::traffic::{Model, Shape, Traffic};
use anyhow::{Context as _, Result};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use std::path::Path;
use std::time::Duration;
use tapedeck_index::frame::{Encoder, compress_bound, store_raw};
use tapedeck_index::pcapng::{PacketRecord, encode_packet, packet_block_len};
use tapedeck_packet::Timestamp;

/// Bytes of a frame, as the recorder cuts them.
const FRAME: usize = 512 << 10;
/// Bytes that are worked on: more than caches hold, so that they come from memory as a recorder's do.
pub const CONTENT: usize = 64 << 20;
/// Levels: those of `auto`, and what lies around them.
const LEVELS: [i32; 5] = [-5, -1, 1, 3, 6];
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

    fn bytes(&self) -> usize {
        self.frames.iter().map(Vec::len).sum()
    }
}

/// Measures all of it, so many times.
///
/// # Errors
/// The encoder or the CPU clock fails.
pub fn measure(content: &Content, rounds: u32) -> Result<Vec<Row>> {
    let mut encoder = Encoder::new().context("starting an encoder")?;
    let mut out = Vec::with_capacity(compress_bound(2 * FRAME));
    let mut all = vec![row(content, "memcpy", rounds, &mut out, |raw, out| {
        out.extend_from_slice(raw);
        Ok(())
    })?];
    all.push(row(content, "raw", rounds, &mut out, |raw, out| Ok(store_raw(raw, out).map(drop)?))?);
    for level in LEVELS {
        let name = format!("level {level}");
        all.push(row(content, &name, rounds, &mut out, |raw, out| {
            Ok(encoder.compress(level, raw, out).map(drop)?)
        })?);
    }
    Ok(all)
}

/// One way of writing a frame.
fn row(
    content: &Content,
    stage: &str,
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
    Ok(Row { stage: stage.to_owned(), content: content.name.clone(), gb_per_s, ratio })
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
        assert_eq!(names, ["memcpy", "raw", "level -5", "level -1", "level 1", "level 3", "level 6"]);
        assert!(rows.iter().all(|row| row.gb_per_s > 0.0 && row.content == "zeroes"), "{rows:?}");
        assert_eq!(rows[0].ratio, 1.0);
        // Header, block heads and checksum of a frame of raw blocks; the same bytes again and again.
        assert!(rows[1].ratio < 1.0 && rows[1].ratio > 0.999 && rows[4].ratio > 20.0, "{rows:?}");
    }
}
