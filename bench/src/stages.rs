//! What a packet costs, stage by stage, in CPU time.
//!
//! The traffic is made between the measurements and not part of them. Time is that of the worker's thread, and
//! of all threads: what the worker hands on is compressed, checksummed and indexed behind it. CPU time and
//! not wall time, because others may be at work on the machine; caches they share all the same.

pub mod callgrind;
pub mod command;
pub mod fio;
pub mod scan;
pub mod sidecar;
pub mod sink;
mod steps;

use crate::alone::{CONTENT, Content};
use anyhow::{Context as _, Result};
use nix::time::{ClockId, clock_gettime};
use serde::Serialize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;
use tapedeck_capture::sessions::desk::{Desk, Kind};
use tapedeck_capture::sessions::{SessionOptions, Tracker};
use tapedeck_capture::shed::{ShedPayload, Shedder};
use tapedeck_index::pcapng::{Counters, InterfaceInfo, PacketRecord};
use tapedeck_packet::{LinkType, Timestamp, Walk};
use tapedeck_session::{Packet, Place, Table};
use tapedeck_writer::level::Effort;
use tapedeck_writer::{Appended, Chain, ChainConfig, Level, SinkChoice, WhenFull};

/// Packets of a batch, as a worker takes them.
const BATCH: usize = 256;
/// Trains of packets under way at once.
const TRAINS: usize = 32;
/// Room for the longest packet.
const PACKET_BYTES: usize = 1514;
/// Headers of Ethernet, IPv4 and TCP.
const HEADERS: usize = 54;
/// A million packets a second.
const NANOS_PER_PACKET: u64 = 1_000;
/// Time between two ticks, in packet time.
const TICK_NS: u64 = 25_000_000;
/// Ticks between the opening of sessions and the measurement: a look at a new session is due after five
/// seconds, and a tick looks at so many.
const SETTLE_TICKS: u32 = 220;
const LOOKS_PER_TICK: usize = 512;
/// The threads behind are at rest when they twice work for less than a twentieth of this: once may be a wait for the
/// disk.
const SETTLE: Duration = Duration::from_millis(700);
/// How long that is waited for.
const SETTLES_MAX: u32 = 120;
/// 2026-11-21T18:00:10Z: an hour in which a measurement fits.
const START_NS: u64 = 1_795_284_010_000_000_000;

/// What is measured.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Bytes of a packet, 60 to 1514.
    pub bytes: usize,
    /// Compression.
    pub level: Level,
    /// Packets of each measurement.
    pub packets: u64,
    /// Measurements of each stage.
    pub rounds: u32,
    /// Packets that a session sends before another has its turn, while others send theirs; 1 is the worst
    /// order for caches.
    pub train: u32,
}

/// The cost of a stage.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// Its name.
    pub stage: &'static str,
    /// CPU time of the worker's thread, ns a packet; the median.
    pub worker_ns: f64,
    /// CPU time of all threads, ns a packet; the median.
    pub all_ns: f64,
    /// Bytes of packets in a second of CPU time of all threads, in 1e9: what one core does.
    pub gb_per_s: f64,
    /// CPU time of all threads for a new session, ns: its first five packets, and what is told of it in its
    /// first seconds; the median.
    pub opening_ns: f64,
}

/// The costs at one number of open sessions.
#[derive(Clone, Debug, Serialize)]
pub struct Figures {
    /// Open sessions.
    pub sessions: u32,
    /// Per stage.
    pub rows: Vec<Row>,
    /// CPU time of all threads with sessions and statistics, over that without, of the same round; the median.
    pub added_share: f64,
}

/// A part of the way of a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Walk,
    Table,
    Append,
    All,
    /// The disk is behind: of each packet the session table is asked how much its flow has had. Nothing is cut,
    /// so that the other stages have the same to do.
    Pressed,
    /// Packets are made and nothing is done with them: for what is counted and not timed.
    None,
}

impl Stage {
    const EACH: [Self; 5] = [Self::Walk, Self::Table, Self::Append, Self::All, Self::Pressed];

    const fn name(self) -> &'static str {
        match self {
            Self::Walk => "walk",
            Self::Table => "walk, session table",
            Self::Append => "walk, append",
            Self::All => "walk, append, sessions",
            Self::Pressed => "the same under pressure",
            Self::None => "nothing",
        }
    }

    /// By the name that `--alone` takes.
    fn named(name: &str) -> Option<Self> {
        Some(match name {
            "none" => Self::None,
            "walk" => Self::Walk,
            "table" => Self::Table,
            "append" => Self::Append,
            "all" => Self::All,
            "pressed" => Self::Pressed,
            _ => return None,
        })
    }
}

/// Gives packets to one stage, once, and measures nothing: for those who count from outside.
///
/// # Errors
/// No stage has this name, or it fails.
pub fn alone(name: &str, sessions: u32, options: &Options) -> Result<()> {
    let frames = || content(options, Some(options.packets));
    let part = match name {
        "walks" => Some(sidecar::Part::Walk),
        "rows" => Some(sidecar::Part::Rows),
        "sidecar" => Some(sidecar::Part::Build),
        _ => None,
    };
    if let Some(part) = part {
        return sidecar::run(&frames(), part);
    }
    if let Some(stage) = Stage::named(name) {
        return one(stage, sessions, options).map(drop);
    }
    let level = name.strip_prefix("level ").and_then(|level| level.parse().ok());
    let effort = match (name, level) {
        ("frames", _) => {
            std::hint::black_box(frames());
            return Ok(());
        }
        ("copy", _) => None,
        ("raw", _) => Some(Effort::Raw),
        (_, Some(level)) => Some(Effort::Zstd(level)),
        _ => anyhow::bail!("no stage {name}"),
    };
    crate::alone::run(&frames(), effort)
}

/// CPU time of a packet, ns.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    worker: f64,
    all: f64,
    opening: f64,
}

/// Measures every stage with so many open sessions.
///
/// # Errors
/// No temporary folder, or the writer does not start.
pub fn measure(sessions: u32, options: &Options) -> Result<Figures> {
    let mut rounds: Vec<[Cost; 5]> = Vec::new();
    for _ in 0..options.rounds {
        let mut costs = [Cost::default(); 5];
        for (cost, stage) in costs.iter_mut().zip(Stage::EACH) {
            *cost = one(stage, sessions, options)?;
        }
        rounds.push(costs);
    }
    let row = |(at, stage): (usize, Stage)| {
        let all_ns = median(rounds.iter().filter_map(|round| Some(round.get(at)?.all)));
        let bytes = u64::try_from(options.bytes).unwrap_or(u64::MAX);
        Row {
            stage: stage.name(),
            worker_ns: median(rounds.iter().filter_map(|round| Some(round.get(at)?.worker))),
            all_ns,
            gb_per_s: crate::machine::ratio(bytes, 1) / all_ns,
            opening_ns: median(rounds.iter().filter_map(|round| Some(round.get(at)?.opening))),
        }
    };
    let added_share = median(rounds.iter().map(|[_, _, without, with, _]| with.all / without.all));
    Ok(Figures { sessions, rows: Stage::EACH.into_iter().enumerate().map(row).collect(), added_share })
}

/// Packets of these stages, for what is measured without them: so many, or as many as there is room for.
#[must_use]
pub fn content(options: &Options, packets_wanted: Option<u64>) -> Content {
    let mut traffic = Traffic::new(1_000, options);
    while traffic.opened < 1_000 {
        traffic.open();
    }
    let most = packets_wanted.and_then(|count| usize::try_from(count).ok()).unwrap_or(usize::MAX);
    let (mut packets, mut bytes) = (Vec::new(), 0);
    while bytes < CONTENT && packets.len() < most {
        traffic.talk();
        packets.extend(traffic.packets().map(|(bytes, ts)| (bytes.to_vec(), ts)));
        bytes += traffic.lengths.iter().sum::<usize>();
    }
    packets.truncate(most);
    Content::of("synthetic", packets.iter().map(|(bytes, ts)| (bytes.as_slice(), *ts)))
}

/// A level as `--level` takes it.
fn level_name(level: Level) -> String {
    match level {
        Level::Off => "off".to_owned(),
        Level::Auto => "auto".to_owned(),
        Level::Fixed(level) => level.to_string(),
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    crate::search::median(&values.collect::<Vec<_>>())
}

/// The way of the packets up to and with a stage.
struct Way {
    stage: Stage,
    table: Option<Table<tapedeck_session::Probe>>,
    chain: Option<Chain>,
    tracker: Option<Tracker>,
    shedder: Shedder,
    walk: Walk,
    ticked: u64,
}

fn one(stage: Stage, sessions: u32, options: &Options) -> Result<Cost> {
    let folder = crate::interrupt::folder(None)?;
    let limits = SessionOptions { max_sessions: sessions.max(1 << 14), ..SessionOptions::default() };
    let mut desk = Desk::start(&[(folder.path(), "bench")], 1, Kind::Live, limits.clone(), 0x5eed)?;
    let mut way = Way {
        stage,
        table: (stage == Stage::Table).then(|| Table::new(limits.config(1, 0, 0, 0x5eed))),
        chain: matches!(stage, Stage::Append | Stage::All | Stage::Pressed)
            .then(|| chain(folder.path(), options))
            .transpose()?,
        tracker: None,
        shedder: Shedder::new(ShedPayload::Beyond(u32::MAX)),
        walk: Walk::new(),
        ticked: START_NS,
    };
    way.shedder.press(usize::from(stage != Stage::Pressed), 1, || 100);
    if matches!(stage, Stage::All | Stage::Pressed) {
        way.tracker = desk.trackers("bench", &[0])?.pop();
    }
    let mut traffic = Traffic::new(sessions, options);
    // Opened first: that is another cost, with the look at each some seconds later and what is told of them.
    let (before, mut making) = (cpu_time(ClockId::CLOCK_PROCESS_CPUTIME_ID)?, Duration::ZERO);
    while traffic.opened < sessions {
        let began = cpu_time(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
        traffic.open();
        making += cpu_time(ClockId::CLOCK_THREAD_CPUTIME_ID)?.saturating_sub(began);
        way.take(&traffic);
    }
    let looks = u32::try_from(LOOKS_PER_TICK).unwrap_or(u32::MAX);
    for _ in 0..SETTLE_TICKS + sessions / looks {
        traffic.clock += TICK_NS;
        way.tick(traffic.now());
    }
    settle(sessions)?;
    let (all, own) =
        (cpu_time(ClockId::CLOCK_PROCESS_CPUTIME_ID)?, cpu_time(ClockId::CLOCK_THREAD_CPUTIME_ID)?);
    let opening = all.saturating_sub(before).saturating_sub(making).as_secs_f64() * 1e9 / f64::from(sessions);
    let mut worker = Duration::ZERO;
    let batches = options.packets.div_ceil(BATCH as u64);
    for _ in 0..batches {
        traffic.talk();
        let before = cpu_time(ClockId::CLOCK_THREAD_CPUTIME_ID)?;
        way.take(&traffic);
        worker += cpu_time(ClockId::CLOCK_THREAD_CPUTIME_ID)?.saturating_sub(before);
    }
    let cost = Cost { opening, ..way.finish(worker, own, all, batches * BATCH as u64)? };
    let _ = desk.finish(&tapedeck_capture::sessions::SessionCounts::default());
    Ok(cost)
}

/// Waits until the threads behind have done what the opening gave them to do: their work on a million new sessions
/// takes seconds, and belongs to no packet of the measurement.
fn settle(sessions: u32) -> Result<()> {
    let mut quiet = 0;
    for _ in 0..SETTLES_MAX {
        let before = cpu_time(ClockId::CLOCK_PROCESS_CPUTIME_ID)?;
        std::thread::sleep(SETTLE);
        let worked = cpu_time(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.saturating_sub(before);
        quiet = if worked < SETTLE / 20 { quiet + 1 } else { 0 };
        if quiet == 2 {
            return Ok(());
        }
    }
    let waited = (SETTLE * SETTLES_MAX).as_secs();
    anyhow::bail!("the threads behind still work on the {sessions} new sessions after {waited} s")
}

impl Way {
    /// Takes a batch.
    fn take(&mut self, traffic: &Traffic) {
        let Self { stage, table, chain, tracker, shedder, walk, .. } = self;
        match stage {
            Stage::None => drop(std::hint::black_box(traffic.packets().count())),
            Stage::Walk => {
                for (bytes, _) in traffic.packets() {
                    walk.run(LinkType::ETHERNET, bytes);
                    std::hint::black_box(&*walk);
                }
            }
            Stage::Table => {
                let Some(table) = table else { return };
                let mut sink = |_| {};
                let mut stage = table.stage(&mut sink);
                for (bytes, ts) in traffic.packets() {
                    walk.run(LinkType::ETHERNET, bytes);
                    stage.push(walk, &packet(bytes, ts, Place::default(), true));
                }
                drop(stage);
                table.expire(traffic.now(), LOOKS_PER_TICK, &mut sink);
            }
            Stage::Append => {
                let Some(chain) = chain else { return };
                for (bytes, ts) in traffic.packets() {
                    walk.run(LinkType::ETHERNET, bytes);
                    chain.append(&record(bytes, ts), walk);
                }
            }
            Stage::All | Stage::Pressed => {
                let (Some(chain), Some(tracker)) = (chain, tracker) else { return };
                tracker.batch(|sessions| {
                    for (bytes, ts) in traffic.packets() {
                        walk.run(LinkType::ETHERNET, bytes);
                        let kept = shedder.keep(walk, bytes, |first| sessions.has_had(walk, ts, first));
                        let bytes = bytes.get(..kept).unwrap_or(bytes);
                        let stored = chain.append(&record(bytes, ts), walk) == Appended::Stored;
                        let (segment, frame) = chain.position();
                        sessions.push(walk, &packet(bytes, ts, Place::new(segment, frame), stored));
                    }
                });
                tracker.pass(traffic.now());
            }
        }
        self.tick(traffic.now());
    }

    fn tick(&mut self, now: Timestamp) {
        if now.nanos() < self.ticked.saturating_add(TICK_NS) {
            return;
        }
        self.ticked = now.nanos();
        if let Some(chain) = &mut self.chain {
            chain.settle(now);
            chain.tick(now, Counters::default());
        }
        if let Some(tracker) = &mut self.tracker {
            tracker.tick(now);
        }
        if let Some(table) = &mut self.table {
            table.expire(now, LOOKS_PER_TICK, &mut |_| {});
        }
    }

    /// Seals; what the threads behind still had to do counts.
    fn finish(self, worker: Duration, own: Duration, all: Duration, packets: u64) -> Result<Cost> {
        if let Some(chain) = self.chain {
            let report = chain.finish()?;
            anyhow::ensure!(report.counters.shed.packets == 0, "packets were shed: {report:?}");
        }
        drop(self.tracker);
        let own = cpu_time(ClockId::CLOCK_THREAD_CPUTIME_ID)?.saturating_sub(own);
        let all = cpu_time(ClockId::CLOCK_PROCESS_CPUTIME_ID)?.saturating_sub(all);
        let others = all.saturating_sub(own);
        let each = |time: Duration| time.as_secs_f64() * 1e9 / packets as f64;
        Ok(Cost { worker: each(worker), all: each(worker + others), opening: 0.0 })
    }
}

fn packet(bytes: &[u8], ts: Timestamp, place: Place, stored: bool) -> Packet<'_> {
    let original_bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    Packet { ts, bytes, original_bytes, place, stored }
}

fn record(bytes: &[u8], ts: Timestamp) -> PacketRecord<'_> {
    let orig_len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
    PacketRecord { ts, bytes, orig_len, dropped: 0, flags: None }
}

fn chain(store: &Path, options: &Options) -> Result<Chain> {
    let interface = InterfaceInfo::named("bench", LinkType::ETHERNET);
    let config = ChainConfig {
        seq: Arc::default(),
        level: options.level,
        sink: SinkChoice::Null,
        // Only CPU time counts: waiting costs none.
        when_full: WhenFull::Wait,
        live: false,
        ..ChainConfig::record(store.to_owned(), "bench".to_owned(), interface)
    };
    Chain::start(config).context("starting the writer")
}

fn cpu_time(clock: ClockId) -> Result<Duration> {
    Ok(Duration::from(clock_gettime(clock).context("reading the CPU clock")?))
}

/// Packets of TCP connections.
struct Traffic {
    bytes: usize,
    /// Packets of a train.
    train: u32,
    /// Trains under way: session, and packets that are left.
    trains: Vec<(u32, u32)>,
    /// What each side of a session sends next.
    streams: Vec<[u32; 2]>,
    /// Sessions whose handshake is done.
    opened: u32,
    random: u64,
    clock: u64,
    buffers: Vec<[u8; PACKET_BYTES]>,
    lengths: Vec<usize>,
}

impl Traffic {
    fn new(sessions: u32, options: &Options) -> Self {
        let count = usize::try_from(sessions).unwrap_or_default();
        let buffers = vec![[0; PACKET_BYTES]; BATCH];
        let lengths = Vec::with_capacity(BATCH);
        let streams = vec![[1_000, 500_000]; count];
        let random = 0x1234_5678_9abc_def1;
        let (bytes, train) = (options.bytes, options.train.max(1));
        let trains = vec![(0, 0); TRAINS];
        Self { bytes, train, trains, streams, opened: 0, random, clock: START_NS, buffers, lengths }
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_nanos_saturating(self.clock)
    }

    /// The packets of the batch, each with its time.
    fn packets(&self) -> impl Iterator<Item = (&[u8], Timestamp)> {
        let first = self.clock - NANOS_PER_PACKET * (self.lengths.len() as u64).saturating_sub(1);
        let time = move |number: u64| Timestamp::from_nanos_saturating(first + number * NANOS_PER_PACKET);
        let bytes = self.buffers.iter().zip(&self.lengths).map(|(b, len)| b.get(..*len).unwrap_or(b));
        bytes.zip((0..).map(time))
    }

    /// A batch of handshakes, each with a first segment of both sides, by which services are found out.
    fn open(&mut self) {
        self.lengths.clear();
        let sessions = u32::try_from(self.streams.len()).unwrap_or(u32::MAX);
        let data = self.bytes.saturating_sub(HEADERS);
        while self.lengths.len() + 5 <= BATCH && self.opened < sessions {
            for (side, flags, payload) in
                [(0, 0x02, 0), (1, 0x12, 0), (0, 0x10, 0), (0, 0x18, data), (1, 0x18, data)]
            {
                self.segment(self.opened, side, flags, payload);
            }
            self.opened += 1;
        }
    }

    /// A batch of data.
    fn talk(&mut self) {
        self.lengths.clear();
        for number in 0..BATCH {
            let random = next(&mut self.random);
            let Some(train) = self.trains.get_mut(number % TRAINS) else { return };
            if train.1 == 0 {
                let session = (random >> 33) % self.streams.len() as u64;
                *train = (u32::try_from(session).unwrap_or_default(), self.train);
            }
            train.1 -= 1;
            let (session, side) = (train.0, usize::from(random & 1 != 0));
            self.segment(session, side, 0x10, self.bytes.saturating_sub(HEADERS));
        }
    }

    /// The next segment of one side of a session.
    fn segment(&mut self, session: u32, side: usize, flags: u8, payload: usize) {
        let at = self.lengths.len();
        let place = usize::try_from(session).unwrap_or(usize::MAX);
        let (Some(buffer), Some(stream)) = (self.buffers.get_mut(at), self.streams.get_mut(place)) else {
            return;
        };
        let [_, high, middle, low] = session.to_be_bytes();
        let client = ([10, high, middle, low], 40_000_u16);
        let server = ([192, 168, 0, 1], 443_u16);
        let ((src, sport), (dst, dport)) = if side == 0 { (client, server) } else { (server, client) };
        let [own, peer] = if side == 0 { *stream } else { [stream[1], stream[0]] };
        let total = u16::try_from(40 + payload).unwrap_or(u16::MAX);
        let mut headers = [0_u8; HEADERS];
        headers[..14].copy_from_slice(&[2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0]);
        headers[14] = 0x45;
        headers[16..18].copy_from_slice(&total.to_be_bytes());
        (headers[22], headers[23]) = (64, 6);
        headers[26..30].copy_from_slice(&src);
        headers[30..34].copy_from_slice(&dst);
        headers[34..36].copy_from_slice(&sport.to_be_bytes());
        headers[36..38].copy_from_slice(&dport.to_be_bytes());
        headers[38..42].copy_from_slice(&own.to_be_bytes());
        headers[42..46].copy_from_slice(&peer.to_be_bytes());
        (headers[46], headers[47], headers[48]) = (0x50, flags, 0xff);
        buffer[..HEADERS].copy_from_slice(&headers);
        // Other payload each time, which zstd can shrink to some three quarters.
        for word in buffer.get_mut(HEADERS..HEADERS + payload).unwrap_or_default().chunks_mut(8) {
            let random = (next(&mut self.random) & 0x3f3f_3f3f_3f3f_3f3f).to_le_bytes();
            word.copy_from_slice(random.get(..word.len()).unwrap_or_default());
        }
        let sent = u32::try_from(payload).unwrap_or(0) + u32::from(flags & 2 != 0);
        if let Some(own) = stream.get_mut(side) {
            *own = own.wrapping_add(sent);
        }
        self.lengths.push((HEADERS + payload).max(60));
        self.clock += NANOS_PER_PACKET;
    }
}

/// xorshift64*.
fn next(state: &mut u64) -> u64 {
    *state ^= *state >> 12;
    *state ^= *state << 25;
    *state ^= *state >> 27;
    state.wrapping_mul(0x2545_f491_4f6c_dd1d)
}
