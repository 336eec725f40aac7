//! One flow in one large store: how long until its first packet comes out, and how long `zstd` and `tcpdump` take for
//! the same, who have no index.
//!
//! The store is made through the real writer from the model `internet`, whose flows are new ones each time the sequence
//! is repeated; the flows asked for are drawn from it. Both ways must find the same number of packets.

use super::{START_NS, drop_caches, ended, load_program, mixed, size};
use crate::progress::Progress;
use crate::recorder::{binary, version};
use crate::traffic::{Model, Shape, Traffic};
use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use std::io::Read;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::{Duration, Instant};
use tapedeck_ebpf::replay::Template;
use tapedeck_index::capture_file::CaptureReader;
use tapedeck_index::catalog::{self, StoreFile};
use tapedeck_index::name::{INDEX_SUFFIX, SEALED_SUFFIX};
use tapedeck_index::pcapng::{Counters, InterfaceInfo, PacketRecord};
use tapedeck_packet::{LinkType, Timestamp, Walk};
use tapedeck_writer::{Appended, Chain, ChainConfig, Level, WhenFull, build_packs};

/// Queues of the recording.
const QUEUES: u32 = 2;
/// Packets between two looks at how much is stored.
const LOOK: u64 = 1 << 16;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Stored bytes of the store, about.
    pub stored_bytes: u64,
    /// Packets a second of its time.
    pub pps: u64,
    /// Flows that are asked for.
    pub rounds: u32,
    /// Of them those that `zstd` and `tcpdump` look for, too.
    pub rounds_without: u32,
    /// Of the flows.
    pub seed: u64,
}

/// One look-up.
#[derive(Clone, Debug, Serialize)]
pub struct LookUp {
    /// The flow.
    pub filter: String,
    /// Packets that came.
    pub packets: u64,
    /// From the start of the process to its first packet, ms.
    pub first_ms: f64,
    /// To its end, ms.
    pub all_ms: f64,
    /// Bytes that it had fetched from the disk.
    pub disk_bytes: u64,
    /// The same with `zstd -dc` of all segments and `tcpdump`, ms; none where that was not asked.
    pub without_ms: Option<f64>,
}

/// A store, and what was found in it.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Packets of the store.
    pub packets: u64,
    /// Its segments.
    pub segments: usize,
    /// Their bytes.
    pub segment_bytes: u64,
    /// Bytes of their sidecars.
    pub sidecar_bytes: u64,
    /// Seconds that the writer took.
    pub write_s: f64,
    /// Why caches were only as cold as one can make them without rights; none = all were dropped before each look-up.
    pub not_cold: Option<String>,
    /// Cold look-ups.
    pub look_ups: Vec<LookUp>,
}

/// Makes the store in `folder`, asks, and tells each look-up as it comes.
///
/// # Errors
/// There is no room; the store cannot be made; a tool fails, or finds another number of packets.
pub fn measure(folder: &Path, options: &Options, mut tell: impl FnMut(&LookUp)) -> Result<Figures> {
    let wanted = options.stored_bytes.saturating_add(options.stored_bytes / 16);
    let free = crate::machine::free_bytes(folder)?;
    ensure!(
        free > wanted,
        "a store of {} GiB is wanted in {}, {} GiB are free\n\nhint: another --folder, or a smaller --stored",
        options.stored_bytes.div_ceil(1 << 30),
        folder.display(),
        free >> 30
    );
    let store = folder.join("store");
    let traffic = Traffic::new(&Model::Internet, &Shape { seed: options.seed, ..Shape::default() })?;
    let mut progress = Progress::new();
    // What one machine took: a gigabyte a second to write, and to look through without an index half of that.
    let bytes = |bytes: u64| Duration::from_nanos(bytes);
    let scans = |rounds: u32| bytes(2 * options.stored_bytes * u64::from(rounds.min(options.rounds)));
    let all = bytes(options.stored_bytes) + scans(options.rounds_without);
    let began = Instant::now();
    let packets = progress.during("writing the store", all, || make(&store, &traffic.templates, options))?;
    let write_s = began.elapsed().as_secs_f64();
    // As a recorder does in the background.
    let report = build_packs(&store, None, &AtomicBool::new(false));
    if let Some(error) = report.errors.into_iter().next() {
        return Err(error).context("building packs");
    }
    let (segment_bytes, segments) = size(&store, SEALED_SUFFIX)?;
    let sidecar_bytes = size(&store, INDEX_SUFFIX)?.0;
    let files: Vec<PathBuf> = catalog::all(std::slice::from_ref(&store))?
        .segments
        .iter()
        .map(catalog::Found::packets_path)
        .collect();
    let mut figures = Figures {
        packets,
        segments,
        segment_bytes,
        sidecar_bytes,
        write_s,
        not_cold: None,
        look_ups: Vec::new(),
    };
    let tools = ["zstd", "tcpdump"].iter().all(|tool| version(tool).is_some());
    for round in 0..options.rounds {
        let flow = drawn(&traffic.templates, packets, options.seed, round)?;
        figures.not_cold = figures.not_cold.take().or(drop_caches());
        load_program(folder)?;
        let mut look_up = flow.look_up(&store)?;
        let left = scans(options.rounds_without.saturating_sub(round));
        if tools && round < options.rounds_without {
            figures.not_cold = figures.not_cold.take().or(drop_caches());
            let (ms, found) = progress.during("zstd and tcpdump", left, || flow.scan(&files))?;
            ensure!(
                found == look_up.packets,
                "{}: taperead finds {} packets, tcpdump {found}",
                look_up.filter,
                look_up.packets
            );
            look_up.without_ms = Some(ms);
        }
        progress.aside(|| tell(&look_up));
        figures.look_ups.push(look_up);
    }
    Ok(figures)
}

/// Writes the store: the sequence again and again, both directions of a flow in one queue. How many packets.
fn make(store: &Path, templates: &[Template], options: &Options) -> Result<u64> {
    StoreFile::read_or_create(store, "needle").context("making the store")?;
    let seq = Arc::default();
    let start = |queue| {
        let interface = InterfaceInfo::named("eth0", LinkType::ETHERNET);
        let config = ChainConfig {
            seq: Arc::clone(&seq),
            queue,
            run: 0x6e65_6564,
            level: Level::Fixed(crate::alone::UNHURRIED),
            when_full: WhenFull::Wait,
            live: false,
            ..ChainConfig::record(store.to_owned(), "needle".to_owned(), interface)
        };
        Chain::start(config).context("starting the writer")
    };
    let mut chains = (0..QUEUES).map(start).collect::<Result<Vec<_>>>()?;
    let (mut walk, mut frame, mut number) = (Walk::new(), Vec::new(), 0_u64);
    'all: for round in 0_u32.. {
        for template in templates {
            template.frame(0, number, round, &mut frame);
            let ts = time(number, options.pps);
            walk.run(LinkType::ETHERNET, &frame);
            let queue = walk.layers().first().and_then(|layer| layer.flow()).map_or(0, |(key, _)| {
                let id = key.community_id(true, 0).prefix64();
                usize::try_from(id % u64::from(QUEUES)).unwrap_or(0)
            });
            let orig_len = u32::try_from(frame.len())?;
            let record = PacketRecord { ts, bytes: &frame, orig_len, dropped: 0, flags: None };
            let chain = chains.get_mut(queue).context("a queue")?;
            let appended = chain.append(&record, &walk);
            ensure!(appended == Appended::Stored, "the writer did not take packet {number}: {appended:?}");
            number += 1;
            if number.is_multiple_of(LOOK) {
                chains.iter_mut().for_each(|chain| chain.tick(ts, Counters::default()));
                if crate::machine::file_bytes(store) >= options.stored_bytes {
                    break 'all;
                }
            }
        }
    }
    for chain in chains {
        let report = chain.finish()?;
        ensure!(report.unsealed.is_empty(), "{:?} could not be sealed: is the disk full?", report.unsealed);
    }
    Ok(number)
}

fn time(number: u64, pps: u64) -> Timestamp {
    let ns = u128::from(number) * 1_000_000_000 / u128::from(pps.max(1));
    Timestamp::from_nanos_saturating(START_NS.saturating_add(u64::try_from(ns).unwrap_or(u64::MAX)))
}

/// A flow to look for.
#[derive(Debug)]
struct Flow {
    a: (IpAddr, u16),
    b: (IpAddr, u16),
    proto: &'static str,
}

/// The flow of a packet that is drawn from those which are new in each repetition.
fn drawn(templates: &[Template], packets: u64, seed: u64, round: u32) -> Result<Flow> {
    let mut walk = Walk::new();
    let mut frame = Vec::new();
    for attempt in 0..1_000_u64 {
        let number = mixed(seed ^ 0x6c61_7267_6521, u64::from(round) << 16 | attempt) % packets.max(1);
        let length = u64::try_from(templates.len())?;
        let template = templates.get(usize::try_from(number % length)?).context("a template")?;
        if template.renew.is_none() {
            continue;
        }
        template.frame(0, number, u32::try_from(number / length)?, &mut frame);
        walk.run(LinkType::ETHERNET, &frame);
        let Some(tapedeck_packet::Net::Ip(ip)) = walk.layers().first().map(|layer| layer.net) else {
            continue;
        };
        let Some((from, to)) = ip.ports else { continue };
        let proto = if ip.proto == 6 { "tcp" } else { "udp" };
        return Ok(Flow { a: (ip.src, from), b: (ip.dst, to), proto });
    }
    bail!("the sequence has no flow that is a new one each time")
}

impl Flow {
    /// Asks `taperead` for its packets.
    fn look_up(&self, store: &Path) -> Result<LookUp> {
        let (a, b) = (self.a, self.b);
        let filter = format!("flow {}:{} {}:{} {}", a.0, a.1, b.0, b.1, self.proto);
        let began = Instant::now();
        let mut child = Command::new(binary("taperead"))
            .args(["packets", &filter, "-w", "-", "--format", "pcapng", "--store"])
            .arg(store)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .context("starting taperead")?;
        let out = child.stdout.take().context("no stdout")?;
        let (packets, first) = packets(out, began)?;
        let (all_ms, [disk_bytes], output) = ended(child, began, ["read_bytes"])?;
        // Without a ledger, as here, no answer is vouched for as whole (3): the count is checked instead.
        match output.status.code() {
            Some(0 | 3) => {}
            code => bail!("taperead exits {code:?}: {}", String::from_utf8_lossy(&output.stderr)),
        }
        let first_ms = first.with_context(|| format!("{filter}: no packet was found"))?;
        Ok(LookUp { filter, packets, first_ms, all_ms, disk_bytes, without_ms: None })
    }

    /// Looks for them without an index: ms, and how many.
    fn scan(&self, files: &[PathBuf]) -> Result<(f64, u64)> {
        let (a, b) = (self.a, self.b);
        let end = |(addr, port): (IpAddr, u16)| format!("host {addr} and port {port}");
        let filter = format!("{} and {} and {}", self.proto, end(a), end(b));
        let began = Instant::now();
        let mut found = 0;
        // One after the other: tcpdump ends at a second section whose interface differs.
        for file in files {
            let mut zstd = Command::new("zstd")
                .args(["-q", "-d", "-c"])
                .arg(file)
                .stdout(Stdio::piped())
                .spawn()
                .context("starting zstd")?;
            let from = Stdio::from(zstd.stdout.take().context("no stdout")?);
            let tcpdump = Command::new("tcpdump")
                .args(["-n", "-r", "-", "-w", "-", &filter])
                .stdin(from)
                .stderr(Stdio::null())
                .output()
                .context("starting tcpdump")?;
            ensure!(
                zstd.wait()?.success() && tcpdump.status.success(),
                "{}: zstd or tcpdump failed",
                file.display()
            );
            found += packets(tcpdump.stdout.as_slice(), began)?.0;
        }
        Ok((began.elapsed().as_secs_f64() * 1e3, found))
    }
}

/// Packets of a capture, and when the first was there, ms since it `began`.
fn packets(from: impl Read, began: Instant) -> Result<(u64, Option<f64>)> {
    let mut reader = CaptureReader::open(from).context("reading the answer")?;
    let (mut count, mut first) = (0, None);
    while reader.advance().context("reading the answer")? {
        count += 1;
        first.get_or_insert_with(|| began.elapsed().as_secs_f64() * 1e3);
    }
    Ok((count, first))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flow_of_a_small_store_is_found_by_both() {
        if ["zstd", "tcpdump"].iter().any(|tool| version(tool).is_none()) {
            println!("SKIPPED 1");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let options = Options { stored_bytes: 8 << 20, pps: 1_000, rounds: 3, rounds_without: 3, seed: 7 };
        let mut told = 0;
        let figures = measure(folder.path(), &options, |_| told += 1).unwrap();
        assert_eq!((told, figures.look_ups.len()), (3, 3));
        assert!(figures.packets >= LOOK && figures.segment_bytes >= options.stored_bytes / 2, "{figures:?}");
        for look_up in &figures.look_ups {
            assert!(look_up.packets > 0 && look_up.first_ms <= look_up.all_ms, "{look_up:?}");
            assert!(look_up.without_ms.is_some());
        }
    }
}
