//! The arithmetic of a plan: from costs of a packet and a link to cores, queues, disks, memory and days. Pure: it reads
//! no file, asks no clock and knows no machine.

use super::fit::Range;
use crate::machine::ratio;
use serde::{Deserialize, Serialize};
use tapedeck_capture::ladder::{Mode, packet_memory_bytes};
use tapedeck_capture::plan::{QUEUE_BYTES, SESSION_BYTES};
use tapedeck_capture::xsk::ChunkSize;

/// Checksum behind a frame, which interface counters count and captures do not hold, bytes.
pub const FCS: f64 = 4.0;
/// Preamble and gap between frames, bytes (IEEE 802.3).
pub const GAP: f64 = 20.0;
/// Seconds of a day.
pub const DAY: f64 = 86_400.0;

const MIB: f64 = 1024.0 * 1024.0;
/// Rows that wait while the disk refuses, all of them, bytes (docs/operations.md, "Memory").
pub const ROWS_BYTES: f64 = 800.0 * MIB;
/// Default of `tapedeck record --max-sessions`, of each queue.
pub const SESSIONS_DEFAULT: f64 = 262_144.0;

/// A lane of PCIe 4.0, bytes a second: 16 GT/s, 128 of 130 bits.
pub const LANE: f64 = 16e9 * 128.0 / 130.0 / 8.0;
/// Of it what headers of transactions of 256 bytes leave.
pub const LANE_SHARE: f64 = 0.85;
/// A channel of DDR5-4800, bytes a second.
pub const CHANNEL: f64 = 38.4e9;
/// Of it what a mix of reads and writes gets.
pub const CHANNEL_SHARE: f64 = 0.5;
/// What a card moves for a packet beside it, bytes: descriptors.
const DESCRIPTORS: f64 = 32.0;
/// Lines of memory that a packet's session needs and no cache has (docs/performance.md), each read and written back.
const SESSION_LINES: f64 = 5.0 * 64.0 * 2.0;
/// What a block of pcapng adds to a packet, bytes.
const BLOCK: f64 = 32.0;

/// Packets of a link.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Load {
    /// The link, bits a second.
    pub link: f64,
    /// Share of it on average.
    pub utilisation: f64,
    /// Share of it in the busiest seconds.
    pub peak: f64,
    /// Mean bytes of a packet, without the checksum.
    pub bytes: f64,
}

impl Load {
    /// Packets a second at a share of the link: the bits are those that interface counters count, frames with their
    /// checksums; the link takes no more than what fits with preambles and gaps.
    #[must_use]
    pub fn pps(self, share: f64) -> f64 {
        (self.link * share / (8.0 * (self.bytes + FCS))).min(self.full())
    }

    /// Packets a second of the full link.
    #[must_use]
    pub fn full(self) -> f64 {
        self.link / (8.0 * (self.bytes + FCS + GAP))
    }

    /// On average.
    #[must_use]
    pub fn mean_pps(self) -> f64 {
        self.pps(self.utilisation)
    }

    /// In the busiest seconds.
    #[must_use]
    pub fn peak_pps(self) -> f64 {
        self.pps(self.peak)
    }
}

/// Threads of a kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kind {
    /// Name; `worker` are all that read a queue.
    pub name: String,
    /// One in each queue; otherwise one in each recorder, whatever it records.
    pub per_queue: bool,
    /// CPU time, ns a packet.
    pub ns: Range,
    /// CPUs at the peak, each used to the planned share.
    pub cores: Range,
}

impl Kind {
    /// CPUs for a rate, each used to `load`.
    #[must_use]
    pub fn new(name: &str, per_queue: bool, ns: Range, pps: f64, load: f64) -> Self {
        Self { name: name.to_owned(), per_queue, ns, cores: ns.times(pps / 1e9 / load) }
    }
}

/// Whole things for a need; a need that is whole but for rounding stays.
#[must_use]
pub fn whole(need: f64) -> f64 {
    (need - 1e-9).ceil().max(0.0)
}

/// CPUs, queues and recorders for the peak.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Cores {
    /// CPU time in CPUs, all threads.
    pub need: Range,
    /// To buy.
    pub buy: f64,
    /// Queues: of each thread of a queue none is used beyond the share.
    pub queues: Range,
    /// Recorders that the traffic must be split over, because a thread there is only one of would not keep up.
    pub recorders: f64,
}

impl Cores {
    /// For these threads.
    #[must_use]
    pub fn of(kinds: &[Kind]) -> Self {
        let need = kinds.iter().fold(Range::default(), |sum, kind| sum.plus(kind.cores));
        let most = |per_queue: bool, of: fn(&Range) -> f64| {
            let of_kind = kinds.iter().filter(|kind| kind.per_queue == per_queue);
            whole(of_kind.map(|kind| of(&kind.cores)).fold(0.0, f64::max)).max(1.0)
        };
        let recorders = most(false, |cores| cores.likely);
        let queues = |of: fn(&Range) -> f64| most(true, of).max(recorders);
        let queues = Range { low: queues(|c| c.low), likely: queues(|c| c.likely), high: queues(|c| c.high) };
        // A pinned worker has a CPU of its own.
        Self { need, buy: whole(need.likely).max(queues.likely), queues, recorders }
    }
}

/// Memory of the recorders, bytes, by the formula of docs/operations.md.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Memory {
    /// Chunk of a packet.
    pub chunk: f64,
    /// Packet memory of all queues; from huge pages of 2 MiB where there are some.
    pub packets: f64,
    /// Buffers, rows and logs of all queues.
    pub queues: f64,
    /// `--max-sessions` of each queue.
    pub max_sessions: f64,
    /// Session tables, and mergers where there are several queues.
    pub sessions: f64,
    /// Rows that wait when a disk refuses, at worst.
    pub rows: f64,
    /// All.
    pub all: f64,
}

impl Memory {
    /// For so many queues of so much packet memory each, packets up to an MTU, and open sessions if their number is
    /// known.
    #[must_use]
    pub fn of(queues: f64, recorders: f64, mtu: f64, open: Option<f64>, packet_bytes: u64) -> Self {
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a cast saturates")]
        let mtu = mtu.ceil() as u32;
        let bytes = |bytes| ratio(bytes, 1);
        let chunk = f64::from(ChunkSize::for_mtu(mtu).0.bytes());
        let packets = queues * bytes(packet_memory_bytes(Mode::Copy, mtu, packet_bytes));
        let others = queues * bytes(QUEUE_BYTES);
        // Sessions spread over queues by hash; a quarter more for those that hash unluckily.
        let wanted = open.map_or(0.0, |open| f64::exp2((1.25 * open / queues).max(1.0).log2().ceil()));
        let max_sessions = wanted.max(SESSIONS_DEFAULT);
        let tables = if queues > recorders { queues + recorders } else { queues };
        let sessions = tables * max_sessions * bytes(SESSION_BYTES);
        let rows = recorders * ROWS_BYTES;
        let all = packets + others + sessions + rows;
        Self { chunk, packets, queues: others, max_sessions, sessions, rows, all }
    }
}

/// Disks.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Disks {
    /// Bytes of one.
    pub disk: f64,
    /// Bytes a second that one takes, if that is known.
    pub disk_write: Option<f64>,
    /// Share of each that is kept free.
    pub reserve: f64,
    /// Bytes stored for a packet.
    pub stored: Range,
    /// Bytes stored a day, at the average load.
    pub per_day: Range,
    /// Days that are wanted.
    pub days: f64,
    /// Disks that hold them.
    pub by_capacity: Range,
    /// Bytes written a second at the peak.
    pub write: Range,
    /// Disks that take them.
    pub by_write: Option<Range>,
    /// Disks of the plan.
    pub count: f64,
    /// Days that they hold.
    pub holds_days: Range,
}

/// What disks are asked for.
#[derive(Clone, Copy, Debug)]
pub struct DiskAsk {
    /// Bytes of one.
    pub disk: f64,
    /// Bytes a second that one takes.
    pub disk_write: Option<f64>,
    /// Share of each that is kept free.
    pub reserve: f64,
    /// Days that are wanted.
    pub days: f64,
    /// Disks that there are.
    pub count: Option<f64>,
    /// Share of its rate that a disk is used to.
    pub load: f64,
}

impl Disks {
    /// For bytes a packet, stored and written.
    #[must_use]
    pub fn of(ask: &DiskAsk, load: Load, stored: Range, written: Range) -> Self {
        let per_day = stored.times(load.mean_pps() * DAY);
        let room = ask.disk * (1.0 - ask.reserve);
        let each = |range: Range, one: f64| Range {
            low: whole(range.low / one).max(1.0),
            likely: whole(range.likely / one).max(1.0),
            high: whole(range.high / one).max(1.0),
        };
        let by_capacity = each(per_day.times(ask.days), room);
        let write = written.times(load.peak_pps());
        let by_write = ask.disk_write.map(|rate| each(write, rate * ask.load));
        let count = ask.count.unwrap_or_else(|| by_write.map_or(0.0, |by| by.likely).max(by_capacity.likely));
        let holds = |bytes: f64| if bytes > 0.0 { count * room / bytes } else { f64::INFINITY };
        // The most bytes fill them first.
        let holds_days =
            Range { low: holds(per_day.high), likely: holds(per_day.likely), high: holds(per_day.low) };
        Self {
            disk: ask.disk,
            disk_write: ask.disk_write,
            reserve: ask.reserve,
            stored,
            per_day,
            days: ask.days,
            by_capacity,
            write,
            by_write,
            count,
            holds_days,
        }
    }
}

/// What no trial has measured: estimates, at the peak.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Paper {
    /// Bytes a second between memory and everything else.
    pub memory: f64,
    /// Channels of DDR5-4800 for it.
    pub channels: f64,
    /// Bytes a second from the card.
    pub card: f64,
    /// Lanes of PCIe 4.0 for it.
    pub card_lanes: f64,
    /// Lanes of PCIe 4.0 for what is written.
    pub disk_lanes: f64,
}

impl Paper {
    /// Of a packet: written by the card, read by the worker, its block written, read to be compressed; what is written
    /// to disk is written by the compressor and read by the disk; and the lines of its session.
    #[must_use]
    pub fn of(load: Load, written: f64) -> Self {
        let pps = load.peak_pps();
        let memory = pps
            * (2.0 * load.bytes + 2.0 * (load.bytes + BLOCK) + 2.0 * written + SESSION_LINES + DESCRIPTORS);
        let card = pps * (load.bytes + DESCRIPTORS);
        let lanes = |bytes: f64| whole(bytes / (LANE * LANE_SHARE));
        Self {
            memory,
            channels: whole(memory / (CHANNEL * CHANNEL_SHARE)),
            card,
            card_lanes: lanes(card),
            disk_lanes: lanes(pps * written),
        }
    }
}

/// A thing that ends.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Limit {
    /// What.
    pub what: String,
    /// It holds so many times the planned load.
    pub times: f64,
    /// What to do about it.
    pub remedy: String,
    /// An estimate that no trial has measured.
    pub paper: bool,
}

/// What ends, the first one first.
#[must_use]
pub fn limits(
    kinds: &[Kind],
    cores: &Cores,
    disks: &Disks,
    paper: &Paper,
    load: Load,
    load_share: f64,
) -> Vec<Limit> {
    let mut all = Vec::new();
    let mut add = |what: String, times: f64, remedy: &str, paper: bool| {
        if times.is_finite() {
            all.push(Limit { what, times, remedy: remedy.to_owned(), paper });
        }
    };
    let over = |supply: f64, need: f64| if need > 0.0 { supply / need } else { f64::INFINITY };
    add("CPUs".to_owned(), over(cores.buy, cores.need.likely), "more CPUs", false);
    for kind in kinds {
        if kind.per_queue {
            let what = format!("`{}` of a queue", kind.name);
            add(what, over(cores.queues.likely, kind.cores.likely), "more queues", false);
        } else {
            let what = format!("`{}`, one in each recorder", kind.name);
            let remedy = "split the link over more recorders; more CPUs do not help";
            add(what, over(cores.recorders, kind.cores.likely), remedy, false);
        }
    }
    if let Some(rate) = disks.disk_write {
        // As with CPUs: beyond the share to which each may be used there is no plan, though there may be room.
        let takes = disks.count * rate * load_share;
        add(
            "write rate of the disks".to_owned(),
            over(takes, disks.write.likely),
            "more disks, or faster ones",
            false,
        );
    }
    let space = over(disks.holds_days.likely, disks.days);
    add(format!("disk space for {} days", disks.days), space, "more disks, or fewer days", false);
    add("a PCIe 4.0 x16 slot".to_owned(), over(16.0 * LANE * LANE_SHARE, paper.card), "several cards", true);
    add(
        "the link itself".to_owned(),
        over(load.full(), load.peak_pps()),
        "nothing: it carries no more",
        false,
    );
    all.sort_by(|a, b| a.times.total_cmp(&b.times));
    all
}
