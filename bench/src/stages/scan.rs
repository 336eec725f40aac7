//! The query alone: `taperead` as its user runs it, on a store that the writer made, held against what one core inflates
//! of the same frames.
//!
//! The store has two queues, whose packets alternate in time, so that an answer must be merged. All is in the page
//! cache: the disk is the sink's matter. Before anything is timed, the answer is read: every packet, in order of time.

use super::steps::Steps;
use super::{START_NS, cpu_time, median};
use crate::alone::Content;
use crate::machine::ratio;
use crate::recorder::{binary, version};
use anyhow::{Context as _, Result, bail, ensure};
use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike as _;
use nix::time::ClockId;
use serde::Serialize;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash as _, Hasher as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tapedeck_index::capture_file::CaptureReader;
use tapedeck_index::catalog;
use tapedeck_index::frame::{Decoder, RAW_BYTES_MAX, frame_len};
use tapedeck_index::pcapng::{Block, Blocks, Counters, InterfaceInfo, PacketRecord};
use tapedeck_packet::{LinkType, Timestamp, Walk};
use tapedeck_writer::{Appended, Chain, ChainConfig, Level, WhenFull};

/// Between two packets, ns.
const STEP_NS: u64 = 1_000;
/// Packets between two ticks of the writer.
const TICK: u64 = 25_000;
/// Stored bytes of a segment: a large result has several.
const SEGMENT: u64 = 256 << 20;
/// Bytes of a second, for the time that is left.
const ABOUT_PER_S: f64 = 0.5e9;

/// A store that was made, and what is in it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Store {
    /// Of which packets: `synthetic`, or the capture.
    pub content: String,
    /// How it was compressed.
    pub level: String,
    /// Packets.
    pub packets: u64,
    /// Bytes of pcapng that its frames hold.
    pub raw_bytes: u64,
    /// Bytes of its segments.
    pub stored_bytes: u64,
    /// Segments.
    pub segments: usize,
}

/// One way of reading it; medians of all rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// What read.
    pub stage: String,
    /// 1e9 bytes of pcapng from frames in a second, as the user waits.
    pub gb_per_s: f64,
    /// In a second of CPU time of all threads: what one core does.
    pub gb_per_cpu_s: f64,
    /// CPU time, ns a packet.
    pub cpu_ns: f64,
    /// [`Row::gb_per_s`] over that of one core that only inflates, of the same round; the median.
    pub of_inflate: f64,
    /// [`Row::gb_per_cpu_s`] over that.
    pub cpu_of_inflate: f64,
}

/// What was measured.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Of what.
    pub store: Store,
    /// A row for each way; the first is that of a core that only inflates.
    pub rows: Vec<Row>,
    /// The filter.
    pub filter: String,
    /// Packets that it found.
    pub matches: u64,
    /// The whole export was read, before anything was timed: so many packets, each later than the one before it.
    pub in_order: u64,
    /// What is not there, and why.
    pub notes: Vec<String>,
}

/// What reading took.
#[derive(Clone, Copy, Debug)]
struct Took {
    wall: f64,
    cpu: f64,
}

/// What `rounds` may take, seconds.
#[must_use]
pub fn weight(bytes: u64, rounds: u32) -> f64 {
    (3.0 + 4.0 * f64::from(rounds)) * ratio(bytes, 1) / ABOUT_PER_S
}

/// Why it cannot be measured here, if it cannot.
#[must_use]
pub fn missing() -> Option<String> {
    let there = version(binary("taperead")).is_some();
    (!there).then(|| "taperead lies neither beside tapebench nor in PATH, so no query is measured".to_owned())
}

/// Makes a store in `folder` and reads it in all ways, so many times.
///
/// # Errors
/// There is no room; the store cannot be written or read; an answer is not what was written.
pub fn measure(
    folder: &Path,
    bytes: u64,
    content: &Content,
    level: Level,
    rounds: u32,
    steps: &mut Steps,
) -> Result<Figures> {
    super::sink::room(folder, bytes.saturating_add(bytes / 32))?;
    let own = crate::interrupt::folder(Some(folder))?;
    let path = own.path().join("store");
    let each = ratio(bytes, 1) / ABOUT_PER_S;
    steps.step("writing a store", each);
    let store = write(&path, bytes, content, level)?;
    steps.step("reading it once for its order", each);
    let in_order = check_order(&path, store.packets)?;
    let filter = filter(content);
    steps.step("asking for a filter and its opposite", each);
    let (matches, others) = (count(&path, &filter)?.0, count(&path, &format!("not ({filter})"))?.0);
    ensure!(
        matches + others == store.packets,
        "taperead finds {matches} packets for `{filter}` and {others} for its opposite, of {}",
        store.packets
    );
    let (ways, notes) = ways(&path, &filter)?;
    let mut all: Vec<Vec<Took>> = vec![Vec::new(); ways.len()];
    for round in 0..rounds {
        for (way, took) in ways.iter().zip(&mut all) {
            steps.step(&format!("{}, round {} of {rounds}", way.name(), round + 1), each);
            took.push(way.read(&store)?);
        }
    }
    let inflate: Vec<Took> = all.first().cloned().unwrap_or_default();
    let rows = ways.iter().zip(&all).map(|(way, took)| row(way.name(), &store, took, &inflate)).collect();
    Ok(Figures { store, rows, filter, matches, in_order, notes })
}

fn row(name: String, store: &Store, all: &[Took], inflate: &[Took]) -> Row {
    let (bytes, packets) = (ratio(store.raw_bytes, 1), ratio(store.packets, 1));
    let pairs = || all.iter().zip(inflate);
    Row {
        stage: name,
        gb_per_s: median(all.iter().map(|took| bytes / took.wall / 1e9)),
        gb_per_cpu_s: median(all.iter().map(|took| bytes / took.cpu / 1e9)),
        cpu_ns: median(all.iter().map(|took| took.cpu * 1e9 / packets)),
        of_inflate: median(pairs().map(|(took, inflate)| inflate.cpu / took.wall)),
        cpu_of_inflate: median(pairs().map(|(took, inflate)| inflate.cpu / took.cpu)),
    }
}

/// A filter that no index answers, for it asks for packets of mean length and above: all frames are inflated for it.
pub(super) fn filter(content: &Content) -> String {
    // A block has 32 bytes around its packet, and up to three to fill a word.
    let mean = u64::try_from(content.bytes()).unwrap_or(u64::MAX) / content.packets().max(1);
    format!("tcp and greater {}", mean.saturating_sub(35))
}

/// Packets of the content, over and over until there are `bytes`, into the two queues of a store: a conversation stays
/// in its queue.
pub(super) fn write(path: &Path, bytes: u64, content: &Content, level: Level) -> Result<Store> {
    // What is not compressed cannot be inflated; the recorder's unhurried level then.
    let level = if level == Level::Off { Level::Fixed(crate::alone::UNHURRIED) } else { level };
    let seq = Arc::default();
    let start = |queue| {
        let interface = InterfaceInfo::named("bench", LinkType::ETHERNET);
        let config = ChainConfig {
            seq: Arc::clone(&seq),
            queue,
            level,
            segment_bytes: SEGMENT,
            when_full: WhenFull::Wait,
            live: false,
            ..ChainConfig::record(path.to_owned(), "bench".to_owned(), interface)
        };
        Chain::start(config).context("starting the writer")
    };
    let (mut chains, mut walk) = ([start(0)?, start(1)?], Walk::new());
    let (mut packets, mut offered) = (0_u64, 0_u64);
    for raw in content.frames().iter().cycle() {
        if offered >= bytes || raw.is_empty() {
            break;
        }
        offered += u64::try_from(raw.len())?;
        for block in Blocks::new(raw) {
            let (_, Block::Packet(packet)) = block? else { continue };
            let ts = Timestamp::from_nanos_saturating(START_NS + packets * STEP_NS);
            walk.run(LinkType::ETHERNET, packet.bytes);
            let mut hasher = DefaultHasher::new();
            walk.layers().first().and_then(|layer| layer.flow()).map(|(key, _)| key).hash(&mut hasher);
            let [even, odd] = &mut chains;
            let chain = if hasher.finish() & 1 == 0 { even } else { odd };
            let appended = chain.append(&PacketRecord { ts, ..packet }, &walk);
            ensure!(appended == Appended::Stored, "the writer did not take packet {packets}: {appended:?}");
            packets += 1;
            if packets.is_multiple_of(TICK) {
                chains.iter_mut().for_each(|chain| chain.tick(ts, Counters::default()));
            }
        }
    }
    for chain in chains {
        let report = chain.finish()?;
        ensure!(report.unsealed.is_empty(), "{:?} could not be sealed", report.unsealed);
    }
    let files = segments(path)?;
    let (raw_bytes, _) = inflate(&files)?;
    let mut stored_bytes = 0;
    for file in &files {
        stored_bytes += std::fs::metadata(file).with_context(|| file.display().to_string())?.len();
    }
    let (content, level) = (content.name().to_owned(), super::level_name(level));
    Ok(Store { content, level, packets, raw_bytes, stored_bytes, segments: files.len() })
}

fn segments(store: &Path) -> Result<Vec<PathBuf>> {
    Ok(catalog::all(&[store.to_owned()])?.segments.iter().map(catalog::Found::packets_path).collect())
}

/// Inflates every frame of these files with one decoder; the bytes, and the CPU time of inflating alone.
fn inflate(files: &[PathBuf]) -> Result<(u64, Duration)> {
    let (mut decoder, mut raw) = (Decoder::new()?, Vec::new());
    let (mut total, mut spent) = (0, Duration::ZERO);
    for file in files {
        let bytes = std::fs::read(file).with_context(|| file.display().to_string())?;
        let mut rest = bytes.as_slice();
        let before = cpu_time(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
        while !rest.is_empty() {
            let (frame, behind) = rest
                .split_at_checked(frame_len(rest)?)
                .with_context(|| format!("{} is cut", file.display()))?;
            decoder.decompress(frame, &mut raw, RAW_BYTES_MAX)?;
            total += u64::try_from(std::hint::black_box(&raw).len())?;
            rest = behind;
        }
        spent += cpu_time(ClockId::CLOCK_THREAD_CPUTIME_ID)?.saturating_sub(before);
    }
    Ok((total, spent))
}

/// A way of reading all of the store.
enum Way {
    Inflate(Vec<PathBuf>),
    Zstd(Vec<PathBuf>),
    Export(PathBuf),
    Scan(PathBuf, String),
}

/// Those that there are here; the first is the one to compare with.
fn ways(store: &Path, filter: &str) -> Result<(Vec<Way>, Vec<String>)> {
    let files = segments(store)?;
    let mut ways = vec![Way::Inflate(files.clone())];
    let mut notes = Vec::new();
    if version("zstd").is_some() {
        ways.push(Way::Zstd(files));
    } else {
        notes.push("zstd is not installed: no row of `zstd -dc` (Debian: apt install zstd)".to_owned());
    }
    ways.push(Way::Export(store.to_owned()));
    ways.push(Way::Scan(store.to_owned(), filter.to_owned()));
    Ok((ways, notes))
}

impl Way {
    fn name(&self) -> String {
        match self {
            Self::Inflate(_) => "inflate, one core".to_owned(),
            Self::Zstd(_) => "zstd -dc".to_owned(),
            Self::Export(_) => "taperead, export all".to_owned(),
            Self::Scan(..) => "taperead, filter".to_owned(),
        }
    }

    fn read(&self, store: &Store) -> Result<Took> {
        match self {
            Self::Inflate(files) => {
                let cpu = inflate(files)?.1.as_secs_f64();
                // One thread that never waits.
                Ok(Took { wall: cpu, cpu })
            }
            Self::Zstd(files) => {
                let mut command = Command::new("zstd");
                command.args(["-q", "-d", "-c"]).args(files).stdout(Stdio::null());
                let (took, code, _) = child(command)?;
                ensure!(code == Some(0), "zstd ended with {code:?}");
                Ok(took)
            }
            Self::Export(path) => {
                let mut command = packets(path);
                command.args(["-w", "-", "--format", "pcapng"]).stdout(Stdio::null());
                let (took, code, said) = child(command)?;
                answered(code, &said)?;
                Ok(took)
            }
            Self::Scan(path, filter) => {
                let (found, took) = count(path, filter)?;
                ensure!(found <= store.packets, "{found} packets of {}", store.packets);
                Ok(took)
            }
        }
    }
}

/// `taperead packets` on a store.
fn packets(store: &Path) -> Command {
    let mut command = Command::new(binary("taperead"));
    command.arg("packets").arg("--store").arg(store);
    command
}

/// An answer was given. Without a ledger, as here, none is vouched for as whole (3): that is checked by count.
fn answered(code: Option<i32>, said: &str) -> Result<()> {
    match code {
        Some(0 | 1 | 3) => Ok(()),
        _ => bail!("taperead ended with {code:?}: {said}"),
    }
}

/// How many packets a filter finds.
fn count(store: &Path, filter: &str) -> Result<(u64, Took)> {
    let mut command = packets(store);
    command.args(["--count", filter]).stdout(Stdio::piped());
    let (took, code, said) = child(command)?;
    answered(code, &said)?;
    let found = said.lines().next().unwrap_or_default().trim().parse();
    Ok((found.with_context(|| format!("taperead --count says {said}"))?, took))
}

/// Runs a child to its end: its time, exit code, and stdout (or, without one, stderr).
fn child(mut command: Command) -> Result<(Took, Option<i32>, String)> {
    let named = format!("{:?}", command.get_program());
    let (cpu, began) = (children()?, Instant::now());
    let child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn();
    let output = child.and_then(std::process::Child::wait_with_output).with_context(|| named)?;
    let took = Took { wall: began.elapsed().as_secs_f64(), cpu: children()? - cpu };
    let said = if output.stdout.is_empty() { &output.stderr } else { &output.stdout };
    Ok((took, output.status.code(), String::from_utf8_lossy(said).into_owned()))
}

/// CPU seconds of all children that have ended so far.
fn children() -> Result<f64> {
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).context("getrusage")?;
    let micros = (usage.user_time() + usage.system_time()).num_microseconds();
    Ok(ratio(u64::try_from(micros)?, 1_000_000))
}

/// Reads the export of everything: each packet is later than the one before, and there are `packets`.
fn check_order(store: &Path, packets_written: u64) -> Result<u64> {
    let mut command = packets(store);
    command.args(["-w", "-", "--format", "pcapng"]).stdin(Stdio::null()).stderr(Stdio::null());
    let mut child = command.stdout(Stdio::piped()).spawn().context("starting taperead")?;
    let result = child.stdout.take().context("no stdout").and_then(ordered);
    // A reader that has stopped would leave it waiting.
    if result.is_err() {
        let _ = child.kill();
    }
    let code = child.wait()?.code();
    let read = result?;
    answered(code, "")?;
    ensure!(read == packets_written, "the export holds {read} packets of {packets_written}");
    Ok(read)
}

fn ordered(source: impl std::io::Read) -> Result<u64> {
    let mut reader = CaptureReader::open(source).context("reading the export")?;
    let (mut read, mut last) = (0, None::<Timestamp>);
    while reader.advance().context("reading the export")? {
        let Some(packet) = reader.packet() else { bail!("the export holds a packet without a time") };
        let ts = packet.record.ts;
        if let Some(last) = last.filter(|last| *last >= ts) {
            bail!(
                "packet {read} of the export, of {} ns, comes behind one of {} ns",
                ts.nanos(),
                last.nanos()
            );
        }
        last = Some(ts);
        read += 1;
    }
    Ok(read)
}

#[cfg(test)]
mod tests;
