//! Look-ups over very many segments: one flow, one host, one port, one network among all that a store holds.
//!
//! The store is made through the real writer, from a model of flows that a seed decides; then `taperead` is asked as a
//! process, without a time, with cold and with warm caches, before and after packs are built. What a look-up must
//! find is known from the model: a wrong count is an error, not a figure.

use crate::machine::io_counts;
use crate::progress::Progress;
use crate::recorder::binary;
use crate::traffic::random::Random;
use anyhow::{Context as _, Result, bail};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use serde::Serialize;
use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32};
use std::time::{Duration, Instant};
use tapedeck_index::catalog::StoreFile;
use tapedeck_index::name::{INDEX_SUFFIX, SEALED_SUFFIX};
use tapedeck_index::pack::{PACK_SUFFIX, PACKS_FOLDER};
use tapedeck_index::pcapng::{InterfaceInfo, PacketRecord};
use tapedeck_packet::{LinkType, Timestamp, Walk};
use tapedeck_writer::{Appended, Chain, ChainConfig, build_packs};

pub mod large;

/// 2026-11-21T18:00:00Z.
const START_NS: u64 = 1_795_284_000_000_000_000;
/// Time of a segment: 240 an hour, as of four queues with segments of a minute.
const SEGMENT_NS: u64 = 15_000_000_000;
/// Chains that write at once.
const CHAINS: u32 = 8;
/// Clients of the model, in 10.0.0.0/8.
const CLIENTS: u64 = 200_000;
/// One flow in so many goes to the port that is asked for as the rare one, one to the network.
const RARE: u64 = 100_000;
/// What one machine took for a segment, us: to write it, and in a look-up with and without packs.
const WRITE_US: u64 = 520;
const WITH_US: u64 = 10;
const WITHOUT_US: u64 = 80;
/// Kinds of look-ups.
const KINDS: u32 = 6;
/// The rare port.
const RARE_PORT: u16 = 4_444;
/// First 24 bits of the rare network, 198.51.100.0/24.
const RARE_NET: u32 = 0x00c6_3364;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Segments of the store.
    pub segments: u32,
    /// Flows of a segment, two packets each.
    pub flows: u32,
    /// Look-ups of each kind, cold and warm.
    pub rounds: u32,
    /// Look-ups of each kind without packs.
    pub rounds_without: u32,
    /// What the flows follow from.
    pub seed: u64,
}

impl Options {
    /// So many microseconds for each segment.
    fn about(&self, us: u64) -> Duration {
        Duration::from_micros(us * u64::from(self.segments))
    }

    /// All look-ups, as one machine took for them.
    fn look_ups(&self, packs: bool) -> Duration {
        let (rounds, us) = if packs { (self.rounds, WITH_US) } else { (self.rounds_without, WITHOUT_US) };
        self.about(us) * KINDS * 2 * rounds
    }
}

/// The figures of one kind of look-up.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Segments of the store.
    pub segments: u32,
    /// With packs.
    pub packs: bool,
    /// With cold caches.
    pub cold: bool,
    /// What was looked up.
    pub what: &'static str,
    /// Look-ups.
    pub rounds: usize,
    /// Packets found, in all.
    pub matched: u64,
    /// Wall time of the whole process, ms.
    pub p50_ms: f64,
    /// The same; of fewer than a hundred look-ups the longest.
    pub p99_ms: f64,
    /// Read calls of the process, mean; sidecars are mapped, and their pages are no calls.
    pub read_calls: u64,
    /// Bytes that the process had fetched from the disk, mean.
    pub disk_bytes: u64,
}

/// A store and everything measured on it.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Run {
    /// Segments of the store.
    pub segments: u32,
    /// Bytes of segments and sidecars.
    pub segment_bytes: u64,
    /// The same.
    pub sidecar_bytes: u64,
    /// Bytes of the packs.
    pub pack_bytes: u64,
    /// Packs.
    pub packs: usize,
    /// Seconds that the writer took.
    pub write_s: f64,
    /// Seconds that building the packs took.
    pub build_s: f64,
    /// Why caches were only as cold as one can make them without rights; `None` = all were dropped.
    pub not_cold: Option<String>,
    /// The look-ups.
    pub figures: Vec<Figures>,
}

/// A flow of the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Flow {
    client: u32,
    server: u32,
    client_port: u16,
    server_port: u16,
}

/// A number that looks random and follows from its two parts.
fn mixed(seed: u64, number: u64) -> u64 {
    Random::nth(seed, number)
}

/// Flow `number` of a segment. Half of them go to a hundred servers, the others to any of a million in networks of
/// their own.
fn flow(seed: u64, segment: u32, number: u32) -> Flow {
    let draw = mixed(seed, (u64::from(segment) << 24) | u64::from(number));
    let more = mixed(draw, 1);
    let low = |value: u64, of: u64| u32::try_from(value % of.max(1)).unwrap_or_default();
    let port = |value: u64, of: u64, first: u16| first + u16::try_from(value % of.max(1)).unwrap_or_default();
    let server = match more % RARE {
        1 => (RARE_NET << 8) + 1 + low(more >> 40, 250),
        even if even % 2 == 0 => 0x1700_0000 + low(more >> 20, 100),
        _ => 0x2d00_0000 + low(more >> 20, 1 << 20) * 37,
    };
    let server_port = match mixed(draw, 2) % RARE {
        0 => RARE_PORT,
        n if n % 10 < 7 => 443,
        n if n % 10 < 9 => 53,
        n => port(n, 4_000, 5_000),
    };
    Flow {
        client: 0x0a00_0000 + low(draw >> 8, CLIENTS),
        server,
        client_port: port(draw >> 32, 28_000, 32_768),
        server_port,
    }
}

/// An Ethernet, IPv4 and UDP packet of the flow.
fn packet(flow: &Flow, there: bool) -> Vec<u8> {
    let (from, to) = ((flow.client, flow.client_port), (flow.server, flow.server_port));
    let (from, to) = if there { (from, to) } else { (to, from) };
    let mut bytes = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    bytes.extend([0x45, 0, 0, 60, 0, 0, 0, 0, 64, 17, 0, 0]);
    bytes.extend([from.0.to_be_bytes(), to.0.to_be_bytes()].concat());
    bytes.extend([from.1.to_be_bytes(), to.1.to_be_bytes(), 40u16.to_be_bytes(), [0, 0]].concat());
    bytes.resize(14 + 60, 0x5a);
    bytes
}

/// Makes a store of so many segments through the writer.
fn make(store: &Path, options: &Options) -> Result<()> {
    StoreFile::read_or_create(store, "needle").context("making the store")?;
    let seq = Arc::new(AtomicU32::new(0));
    let chains = CHAINS.min(options.segments);
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..chains)
            .map(|queue| {
                let seq = Arc::clone(&seq);
                scope.spawn(move || write_chain(store, options, queue, chains, seq))
            })
            .collect();
        threads.into_iter().try_for_each(|thread| match thread.join() {
            Ok(result) => result,
            Err(_) => bail!("a writing thread died"),
        })
    })
}

/// Every segment that is the turn of chain `queue`.
fn write_chain(store: &Path, options: &Options, queue: u32, chains: u32, seq: Arc<AtomicU32>) -> Result<()> {
    let interface = InterfaceInfo::named("eth0", LinkType::ETHERNET);
    let config = ChainConfig {
        queue,
        run: 0x6e65_6564,
        seq,
        frame_buffers: 4,
        open_segments: 1,
        ..ChainConfig::import(store.to_owned(), "needle".to_owned(), interface)
    };
    let mut chain = Chain::start(config)?;
    let mut walk = Walk::new();
    let step = usize::try_from(chains)?;
    for segment in (queue..options.segments).step_by(step) {
        // Each with a header of its own, so that the writer begins anew.
        chain.set_description(Some(format!("queue {queue}, {segment}")));
        let begin = START_NS + u64::from(segment) * SEGMENT_NS;
        let gap = SEGMENT_NS / (u64::from(options.flows) * 2 + 1);
        for number in 0..options.flows * 2 {
            let bytes = packet(&flow(options.seed, segment, number / 2), number % 2 == 0);
            let ts = Timestamp::from_nanos(begin + u64::from(number) * gap).context("a time")?;
            let orig_len = u32::try_from(bytes.len())?;
            walk.run(LinkType::ETHERNET, &bytes);
            let record = PacketRecord { ts, bytes: &bytes, orig_len, dropped: 0, flags: None };
            if chain.append(&record, &walk) != Appended::Stored {
                bail!("the writer did not take a packet: is the disk full?");
            }
        }
    }
    let report = chain.finish()?;
    let (unsealed, failed) = (report.unsealed.len(), report.counters.write_error.packets);
    if unsealed > 0 || failed > 0 {
        bail!("{unsealed} segments are not sealed, {failed} packets could not be written");
    }
    Ok(())
}

/// A kind of look-up: its name, and the filters of each round with what they must find, where that is known.
struct Kind {
    what: &'static str,
    filters: Vec<(String, Option<u64>)>,
}

/// The look-ups of a store; needles are drawn from the model.
fn kinds(options: &Options) -> Vec<Kind> {
    let rounds = options.rounds.max(1);
    let drawn = |round: u32| {
        let draw = mixed(options.seed ^ 0x006e_6565_646c_6521, round.into());
        let part = |value: u64, of: u32| u32::try_from(value % u64::from(of.max(1))).unwrap_or_default();
        flow(options.seed, part(draw, options.segments), part(draw >> 32, options.flows))
    };
    let address = Ipv4Addr::from_bits;
    let kind = |what, filter: &dyn Fn(u32) -> (String, Option<u64>)| Kind {
        what,
        filters: (0..rounds).map(filter).collect(),
    };
    vec![
        kind("5-tuple", &|round| {
            let Flow { client, server, client_port, server_port } = drawn(round);
            let (client, server) = (address(client), address(server));
            (format!("flow {client}:{client_port} {server}:{server_port} udp"), None)
        }),
        kind("host", &|round| (format!("host {}", address(drawn(round).client)), None)),
        kind("rare port", &|_| (format!("port {RARE_PORT}"), None)),
        kind("rare /24", &|_| (format!("net {}/24", address(RARE_NET << 8)), None)),
        kind("absent host", &|round| (format!("host {}", address(0xc000_0200 + round % 256)), Some(0))),
        kind("absent host of a known /24", &|round| {
            // Clients end at 10.3.13.63; their last network is there, these are not.
            (format!("host {}", address(0x0a03_0d80 + round % 128)), Some(0))
        }),
    ]
}

/// Packets of each filter, by the model: the slow and certain way.
fn expected(options: &Options, kinds: &mut [Kind]) {
    let mut counts: std::collections::HashMap<String, u64> = std::collections::HashMap::new();
    let address = Ipv4Addr::from_bits;
    for kind in kinds.iter() {
        counts.extend(kind.filters.iter().map(|(filter, _)| (filter.clone(), 0)));
    }
    for segment in 0..options.segments {
        for number in 0..options.flows {
            let Flow { client, server, client_port, server_port } = flow(options.seed, segment, number);
            let mut hit = |filter: String| {
                if let Some(count) = counts.get_mut(&filter) {
                    *count += 2;
                }
            };
            hit(format!("host {}", address(client)));
            let (from, to) = (address(client), address(server));
            hit(format!("flow {from}:{client_port} {to}:{server_port} udp"));
            if server_port == RARE_PORT {
                hit(format!("port {RARE_PORT}"));
            }
            if server >> 8 == RARE_NET {
                hit(format!("net {}/24", address(RARE_NET << 8)));
            }
        }
    }
    for (filter, count) in kinds.iter_mut().flat_map(|kind| &mut kind.filters) {
        *count = counts.get(filter).copied();
    }
}

/// What one look-up took.
struct Took {
    ms: f64,
    matched: u64,
    read_calls: u64,
    disk_bytes: u64,
}

/// Waits for `taperead`: ms since it `began`, these counts of its /proc/PID/io, and what is left of its output, none of
/// which may fill a pipe.
fn ended<const N: usize>(child: Child, began: Instant, counts: [&str; N]) -> Result<(f64, [u64; N], Output)> {
    let pid = Pid::from_raw(i32::try_from(child.id())?);
    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT).context("waiting for taperead")?;
    let ms = began.elapsed().as_secs_f64() * 1e3;
    // Of a process that has ended and is not reaped yet the kernel still tells.
    let counts = io_counts(child.id(), counts);
    Ok((ms, counts, child.wait_with_output()?))
}

/// Asks `taperead` for the number of packets that match.
fn look_up(store: &Path, filter: &str) -> Result<Took> {
    let began = Instant::now();
    let child = Command::new(binary("taperead"))
        .args(["packets", filter, "--count", "--store"])
        .arg(store)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .context("starting taperead")?;
    // The answer is one number: no pipe fills up.
    let (ms, [read_calls, disk_bytes], output) = ended(child, began, ["syscr", "read_bytes"])?;
    let matched = String::from_utf8_lossy(&output.stdout).trim().parse().ok();
    match (output.status.code(), matched) {
        (Some(0 | 1), Some(matched)) => Ok(Took { ms, matched, read_calls, disk_bytes }),
        (code, _) => bail!("taperead exits {code:?}: {}", String::from_utf8_lossy(&output.stderr)),
    }
}

/// Drops what the kernel has cached of all files. Why not, if it does not let us.
fn drop_caches() -> Option<String> {
    nix::unistd::sync();
    let dropped = fs::write("/proc/sys/vm/drop_caches", "3\n");
    dropped.err().map(|error| format!("/proc/sys/vm/drop_caches: {error}"))
}

/// Asks an empty store in `folder`: the store that is measured is cold, the program is not, for it is not what is
/// measured and larger than what it reads.
fn load_program(folder: &Path) -> Result<()> {
    let empty = folder.join("empty");
    StoreFile::read_or_create(&empty, "empty").context("making an empty store")?;
    let mut ask = Command::new(binary("taperead"));
    ask.args(["packets", "flow 192.0.2.1:1 192.0.2.2:2 udp", "--count", "--store"]).arg(&empty);
    ask.stdout(Stdio::null()).stderr(Stdio::null()).status().context("starting taperead")?;
    Ok(())
}

fn measure_kind(
    store: &Path,
    options: &Options,
    kind: &Kind,
    (packs, cold): (bool, bool),
    run: &mut Run,
) -> Result<Figures> {
    let rounds = usize::try_from(if packs { options.rounds } else { options.rounds_without })?;
    let mut took = Vec::new();
    for (filter, expected) in kind.filters.iter().take(rounds) {
        if cold {
            run.not_cold = run.not_cold.take().or(drop_caches());
            load_program(store.parent().unwrap_or(store))?;
        } else {
            look_up(store, filter)?;
        }
        let one = look_up(store, filter)?;
        if expected.is_some_and(|expected| expected != one.matched) {
            bail!("{filter}: {} packets found, {} are there", one.matched, expected.unwrap_or_default());
        }
        took.push(one);
    }
    took.sort_by(|x, y| x.ms.total_cmp(&y.ms));
    let at = |share: usize| took.get((took.len() * share / 100).min(took.len().saturating_sub(1)));
    let count = u64::try_from(took.len().max(1))?;
    Ok(Figures {
        segments: options.segments,
        packs,
        cold,
        what: kind.what,
        rounds: took.len(),
        matched: took.iter().map(|one| one.matched).sum(),
        p50_ms: at(50).map_or(0.0, |one| one.ms),
        p99_ms: at(99).map_or(0.0, |one| one.ms),
        read_calls: took.iter().map(|one| one.read_calls).sum::<u64>() / count,
        disk_bytes: took.iter().map(|one| one.disk_bytes).sum::<u64>() / count,
    })
}

/// Bytes of the files of `suffix` below `folder`, and how many.
fn size(folder: &Path, suffix: &str) -> Result<(u64, usize)> {
    let (mut bytes, mut count) = (0, 0);
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            let (more, files) = size(&entry.path(), suffix)?;
            bytes += more;
            count += files;
        } else if entry.file_name().to_string_lossy().ends_with(suffix) {
            bytes += entry.metadata()?.len();
            count += 1;
        }
    }
    Ok((bytes, count))
}

/// Makes a store in `folder`, measures, and tells each figure as it comes.
///
/// # Errors
/// The store cannot be made, `taperead` fails, or finds another number of packets than there are.
pub fn measure(folder: &Path, options: &Options, mut tell: impl FnMut(&Figures)) -> Result<Run> {
    let store = folder.join("store");
    let mut run = Run { segments: options.segments, ..Run::default() };
    let mut progress = Progress::new();
    let began = Instant::now();
    let writing = options.about(WRITE_US);
    progress.during(
        "writing the store",
        writing + options.look_ups(false) + options.look_ups(true),
        || make(&store, options),
    )?;
    run.write_s = began.elapsed().as_secs_f64();
    let (segment_bytes, segments) = size(&store, SEALED_SUFFIX)?;
    if segments != usize::try_from(options.segments)? {
        bail!("{segments} segments were written, {} were wanted", options.segments);
    }
    run.segment_bytes = segment_bytes;
    run.sidecar_bytes = size(&store, INDEX_SUFFIX)?.0;
    let mut kinds = kinds(options);
    expected(options, &mut kinds);
    for packs in [false, true] {
        if packs {
            let began = Instant::now();
            let report = build_packs(&store, None, &AtomicBool::new(false));
            if let Some(error) = report.errors.into_iter().next() {
                return Err(error).context("building packs");
            }
            run.build_s = began.elapsed().as_secs_f64();
            if let Ok((bytes, count)) = size(&store.join(PACKS_FOLDER), PACK_SUFFIX) {
                (run.pack_bytes, run.packs) = (bytes, count);
            }
        }
        for cold in [true, false] {
            for (number, kind) in (0..).zip(&kinds) {
                // Of the look-ups with these packs, cold ones and then warm ones, those that follow.
                let follow = 2 * KINDS - number - if cold { 0 } else { KINDS };
                let left = options.look_ups(packs) * follow / (2 * KINDS);
                let left = left + if packs { Duration::ZERO } else { options.look_ups(true) };
                let figures = progress.during(kind.what, left, || {
                    measure_kind(&store, options, kind, (packs, cold), &mut run)
                })?;
                progress.aside(|| tell(&figures));
                run.figures.push(figures);
            }
        }
    }
    Ok(run)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absent_hosts_are_absent_from_the_model() {
        for segment in 0..2_000 {
            for number in 0..10 {
                let Flow { client, server, .. } = flow(7, segment, number);
                assert!(u64::from(client - 0x0a00_0000) < CLIENTS);
                for host in [client, server] {
                    assert!(!(0xc000_0200..0xc000_0300).contains(&host));
                    assert!(!(0x0a03_0d80..0x0a03_0e00).contains(&host), "{host:x}");
                }
            }
        }
        assert_eq!(flow(7, 1, 2), flow(7, 1, 2));
        assert_ne!(flow(7, 1, 2), flow(8, 1, 2));
    }
}
