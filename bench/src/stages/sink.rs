//! The sink alone: how fast the recorder's way to the disk takes frames, held against `fio` in the same folder with
//! the same block, depth and bytes, round by round.
//!
//! Each measurement writes a new file and makes it durable, and that counts. The files of the sink have no name, that of
//! fio lies in a folder that is removed again.

use super::fio::{self, Written};
use super::steps::Steps;
use super::{cpu_time, median};
use crate::alone::Content;
use crate::machine::{free_bytes, ratio};
use crate::recorder::version;
use anyhow::{Context as _, Result, ensure};
use nix::time::ClockId;
use serde::Serialize;
use std::path::Path;
use std::time::Instant;
use tapedeck_writer::sink_file::{BLOCK_BYTES, SinkFile, WRITES_IN_FLIGHT};
use tapedeck_writer::{SinkChoice, SinkKind};

/// What a file system keeps free of us.
pub const RESERVE: u64 = 512 << 20;
/// Bytes of a second, for the time that is left.
const ABOUT_PER_S: f64 = 1e9;

/// How fast one way of writing is; medians of all rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// `io_uring` (O_DIRECT), `plain` (page cache), `null`, or `fio`.
    pub sink: String,
    /// 1e9 bytes a second from the first write until all are durable.
    pub gb_per_s: f64,
    /// The slowest and the fastest round.
    pub spread: [f64; 2],
    /// CPU time of all threads, with the kernel's work for them, ns for 1e6 bytes.
    pub cpu_ns_per_mb: f64,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Where.
    pub folder: String,
    /// Bytes of each measurement.
    pub bytes: u64,
    /// Bytes of a write.
    pub block: usize,
    /// Writes in flight.
    pub depth: u32,
    /// A row for each.
    pub rows: Vec<Row>,
    /// The rate of the recorder's sink over that of fio, of the same round; the median.
    pub ratio_to_fio: Option<f64>,
    /// fio's version and command.
    pub fio: Option<[String; 2]>,
    /// What is not there, and why.
    pub notes: Vec<String>,
}

/// A way of writing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Sink(SinkChoice),
    Fio,
}

/// What `rounds` may take, seconds.
#[must_use]
pub fn weight(bytes: u64, rounds: u32) -> f64 {
    4.0 * f64::from(rounds) * ratio(bytes, 1) / ABOUT_PER_S
}

/// Measures all ways in turn, so many times.
///
/// # Errors
/// The folder has no room or takes no file; a write, or fio, fails.
pub fn measure(
    folder: &Path,
    bytes: u64,
    content: &Content,
    rounds: u32,
    steps: &mut Steps,
) -> Result<Figures> {
    room(folder, bytes)?;
    let (kind, mut notes) = real_sink(folder)?;
    let mut ways = vec![Way::Sink(SinkChoice::Plain), Way::Sink(SinkChoice::Null)];
    let version = version("fio");
    match (&version, kind) {
        (Some(_), SinkKind::Uring) => ways.insert(0, Way::Fio),
        (None, SinkKind::Uring) => notes.push(fio::REMEDY.to_owned()),
        _ => {}
    }
    if kind == SinkKind::Uring {
        ways.insert(0, Way::Sink(SinkChoice::Uring));
    }
    // fio names its file; with its folder it is gone, also after a failure.
    let own = crate::interrupt::folder(Some(folder))?;
    let arguments = fio::arguments(own.path(), bytes, BLOCK_BYTES, WRITES_IN_FLIGHT);
    let mut rates: Vec<Vec<Written>> = vec![Vec::new(); ways.len()];
    for round in 0..rounds {
        // There and back: what one way leaves to the disk (a removed file, discards) is not always the same one's load.
        let mut turns: Vec<(&Way, &mut Vec<Written>)> = ways.iter().zip(&mut rates).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for (way, rates) in turns {
            let what = format!("{}, round {} of {rounds}", way.name(), round + 1);
            steps.step(&what, ratio(bytes, 1) / ABOUT_PER_S);
            rates.push(match way {
                Way::Fio => fio::run(&arguments)?,
                Way::Sink(choice) => write(folder, *choice, bytes, content)?,
            });
        }
    }
    let rows = ways.iter().zip(&rates).map(|(way, rates)| row(*way, rates)).collect();
    let of = |wanted: Way| ways.iter().zip(&rates).find(|(way, _)| **way == wanted).map(|(_, rates)| rates);
    let ratio_to_fio = of(Way::Sink(SinkChoice::Uring))
        .zip(of(Way::Fio))
        .map(|(ours, fios)| median(ours.iter().zip(fios).map(|(ours, fio)| rate(ours) / rate(fio))));
    let fio = version.filter(|_| ways.contains(&Way::Fio));
    let fio = fio.map(|version| [version, format!("fio {}", arguments.join(" "))]);
    let folder = folder.display().to_string();
    let (block, depth) = (BLOCK_BYTES, WRITES_IN_FLIGHT);
    Ok(Figures { folder, bytes, block, depth, rows, ratio_to_fio, fio, notes })
}

/// Sees to it that `bytes` fit into the folder.
///
/// # Errors
/// They do not, or the folder is not there.
pub fn room(folder: &Path, bytes: u64) -> Result<()> {
    let (free, wanted) = (free_bytes(folder)?, bytes.saturating_add(RESERVE));
    ensure!(
        free >= wanted,
        "{} has {} MiB free, {} MiB are wanted (512 MiB of them stay free); name another --folder or fewer --disk-bytes",
        folder.display(),
        free >> 20,
        wanted >> 20
    );
    Ok(())
}

/// The sink that a recording gets there, and why if it is not the fast one.
fn real_sink(folder: &Path) -> Result<(SinkKind, Vec<String>)> {
    let file = SinkFile::create(folder, SinkChoice::Auto, 0).with_context(|| folder.display().to_string())?;
    let (kind, reason) = file.sink();
    let note = reason.map(|why| {
        format!(
            "the recorder writes through the page cache there ({why}), which is no rate to hold against fio's"
        )
    });
    Ok((kind, note.into_iter().collect()))
}

/// Writes frames until there are `bytes`.
fn write(folder: &Path, choice: SinkChoice, bytes: u64, content: &Content) -> Result<Written> {
    let mut file = SinkFile::create(folder, choice, bytes).with_context(|| folder.display().to_string())?;
    let (cpu, began) = (cpu_time(ClockId::CLOCK_PROCESS_CPUTIME_ID)?, Instant::now());
    let mut left = usize::try_from(bytes)?;
    for frame in content.frames().iter().cycle() {
        let part = frame.get(..left.min(frame.len())).unwrap_or_default();
        file.append(part)?;
        left -= part.len();
        if left == 0 {
            break;
        }
    }
    let bytes = file.finish()?;
    let seconds = began.elapsed().as_secs_f64();
    let cpu_seconds = cpu_time(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.saturating_sub(cpu).as_secs_f64();
    Ok(Written { bytes, seconds, cpu_seconds })
}

/// 1e9 bytes a second.
fn rate(written: &Written) -> f64 {
    ratio(written.bytes, 1) / written.seconds / 1e9
}

fn row(way: Way, rates: &[Written]) -> Row {
    let all = || rates.iter().map(rate);
    let cpu = rates.iter().map(|one| one.cpu_seconds * 1e15 / ratio(one.bytes, 1));
    Row {
        sink: way.name().to_owned(),
        gb_per_s: median(all()),
        spread: [all().fold(f64::INFINITY, f64::min), all().fold(0.0, f64::max)],
        cpu_ns_per_mb: median(cpu),
    }
}

impl Way {
    const fn name(self) -> &'static str {
        match self {
            Self::Fio => "fio",
            Self::Sink(SinkChoice::Uring | SinkChoice::Auto) => SinkKind::Uring.name(),
            Self::Sink(SinkChoice::Plain) => SinkKind::Plain.name(),
            Self::Sink(SinkChoice::Null) => SinkKind::Null.name(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_of_bytes_and_seconds() {
        let written = |seconds, cpu_seconds| Written { bytes: 2_000_000_000, seconds, cpu_seconds };
        let row = row(Way::Fio, &[written(1.0, 0.5), written(4.0, 0.5), written(2.0, 0.25)]);
        let wanted =
            Row { sink: "fio".to_owned(), gb_per_s: 1.0, spread: [0.5, 2.0], cpu_ns_per_mb: 250_000.0 };
        assert_eq!(row, wanted);
    }

    #[test]
    fn a_folder_without_room_is_refused_before_anything_is_written() {
        let folder = tempfile::tempdir().unwrap();
        let error = room(folder.path(), u64::MAX / 2).unwrap_err().to_string();
        assert!(error.contains("--disk-bytes") && error.contains("MiB free"), "{error}");
        room(folder.path(), 1).unwrap();
    }
}
