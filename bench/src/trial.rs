//! One trial: a link, a recorder, a load at one rate, and afterwards the count of what is on disk.
//!
//! What a trial says of loss is the difference between the packets that the link took and the numbered packets that
//! were read back from disk. The recorder's own books must agree, or the trial has a problem and is no measurement. The
//! recorder's files are removed when the trial is over.

use crate::check::Tally;
use crate::link::Link;
use crate::machine::{Usage, Watch, cpu_times, file_bytes, free_bytes, idle_shares, ratio};
use crate::probe::{Probe, packet_socket};
use crate::progress::Progress;
use crate::recorder::check_balance;
use crate::result::{Pacing, ThreadTime, Trial};
use crate::sender::{Kind as SenderKind, Plan, Sender};
use crate::tools::{Kind, Tool};
use crate::traffic::Traffic;
use anyhow::{Context as _, Result, bail};
use nix::sys::socket::{MsgFlags, sendto};
use std::collections::BTreeMap;
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tapedeck_ebpf::replay::{Lateness, Pass, Sent};

/// A trial of less is short.
pub const SECONDS: f64 = 20.0;
/// What a file system keeps free of us.
const RESERVE: u64 = 2 << 30;
/// What one lane makes at most, as long as it is not known: for the room that an unpaced trial needs.
const LANE_PPS: f64 = 1.5e6;
/// Time for packets under way, on a link of ours and on another's (RFC 2544, 23).
const SETTLE_MADE: Duration = Duration::from_secs(1);
const SETTLE_GIVEN: Duration = Duration::from_secs(2);

/// What is the same in all trials.
#[derive(Clone, Debug)]
pub struct Ground {
    /// What is sent.
    pub traffic: Arc<Traffic>,
    /// How.
    pub sender: SenderKind,
    /// On which CPUs, a lane on each.
    pub sender_cpus: Vec<usize>,
    /// Where tools run.
    pub tool_cpus: Vec<usize>,
    /// Receive queues of a link that is made.
    pub queues: u32,
    /// Interfaces of others: recorded, sent on.
    pub given: Option<(String, String)>,
    /// Where recorders write.
    pub folder: PathBuf,
    /// Seconds of a trial; none: 20 and twice the dirty limit.
    pub seconds: Option<f64>,
    /// Bytes that the page cache takes.
    pub dirty_limit: u64,
}

/// What a trial is for.
#[derive(Clone, Copy, Debug)]
pub struct Wish<'a> {
    /// Who records.
    pub tool: &'a Tool,
    /// `search` or `common`.
    pub purpose: &'static str,
    /// Which search.
    pub round: u32,
    /// Packets a second; none = as fast as it goes.
    pub pps: Option<f64>,
    /// The generator's limit, where it is known.
    pub limit: Option<f64>,
}

/// Counters of the sending end.
#[derive(Clone, Copy, Debug)]
struct Ends {
    live: Option<(u64, u64)>,
    dropped: u64,
}

/// From the first packet of all lanes to the last, seconds, and never 0.
#[must_use]
pub fn seconds(lanes: &[Sent]) -> f64 {
    lanes.iter().map(|lane| lane.took.as_secs_f64()).fold(0.0, f64::max).max(1e-9)
}

impl Ground {
    /// The link of a trial.
    ///
    /// # Errors
    /// It cannot be made, or used.
    pub fn link(&self) -> Result<Link> {
        match &self.given {
            Some((rx, tx)) => Link::given(rx, tx),
            None => Link::make(self.queues, self.traffic.mtu()),
        }
    }

    /// Seconds that a trial at this rate takes to send.
    #[must_use]
    pub fn sending(&self, pps: f64) -> f64 {
        #[expect(clippy::cast_precision_loss, reason = "bytes of memory, far below 2^52")]
        let twice = 2.0 * self.dirty_limit as f64;
        self.seconds.unwrap_or_else(|| SECONDS.max(twice / (pps * self.traffic.about.mean_bytes)))
    }

    /// Whether enough is free for a trial, as if nothing became smaller.
    fn has_room(&self, wish: &Wish<'_>) -> Result<()> {
        let lanes = u32::try_from(self.sender_cpus.len()).unwrap_or(1);
        let pps = wish.pps.or(wish.limit).unwrap_or(LANE_PPS * f64::from(lanes));
        let bytes = pps * self.sending(pps) * (self.traffic.about.mean_bytes + 40.0);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative; a cast saturates"
        )]
        let wanted = bytes as u64 + RESERVE;
        let free = free_bytes(&self.folder)?;
        if free < wanted {
            let gib = |bytes: u64| bytes.div_ceil(1 << 30);
            bail!(
                "a trial may need {} GiB in {}, {} GiB are free\n\nhint: name another folder with --store, or \
                 shorten trials with --trial-seconds",
                gib(wanted),
                self.folder.display(),
                gib(free)
            );
        }
        Ok(())
    }

    /// Runs a trial.
    ///
    /// # Errors
    /// Something does not start, end, or read; too little room. What does not add up is a problem of the trial and no
    /// error.
    pub fn run(&self, wish: &Wish<'_>, progress: &Progress) -> Result<Trial> {
        self.has_room(wish)?;
        let folder = crate::interrupt::folder(Some(&self.folder))?;
        let link = self.link()?;
        // A veth takes live frames only with a program on its other end, and the pass brings one that changes nothing.
        let needs_pass = self.sender == SenderKind::Live && wish.tool.kind != Kind::Tapedeck;
        let _pass = needs_pass.then(|| let_pass(&link)).transpose()?;
        let running = wish.tool.start(&link, folder.path(), &self.tool_cpus)?;
        let watch = Watch::start(running.pid());
        let ends = Ends::of(&link)?;
        let (start, before) = (watch.now(), cpu_times()?);
        let sent = self.send(&link, wish, progress)?;
        let (after, at_end) = (cpu_times()?, watch.now());
        progress.step("what is under way arrives");
        std::thread::sleep(if link.is_made() { SETTLE_MADE } else { SETTLE_GIVEN });
        let (own, ledger) = running.stop(&|| nudge(&link))?;
        let usage = watch.finish();
        let mut trial = self.figures(wish, &sent, ends, Ends::of(&link)?);
        trial.own = own;
        trial.ledger = ledger;
        trial.idle = idle_shares(&before, &after);
        progress.step("counting what is on disk");
        trial.file_bytes = file_bytes(folder.path());
        if wish.tool.kind == Kind::Tapedeck {
            trial.files = crate::stored::files(&folder.path().join("store"));
        }
        trial.cut = wish.tool.cut(trial.ledger.as_ref());
        let lanes: Vec<u64> = sent.iter().map(|lane| lane.packets).collect();
        let mut tally = Tally::new(&lanes)?;
        wish.tool.count(folder.path(), &mut tally)?;
        judge(&mut trial, &tally);
        threads(&mut trial, &start, &at_end, &usage);
        Ok(trial)
    }

    /// What is sent over a link, at this rate and at least for so long and so many bytes.
    #[must_use]
    pub fn plan(&self, link: &Link, pps: Option<f64>, least: Duration, least_bytes: u64) -> Plan {
        Plan {
            kind: self.sender,
            templates: Arc::new(self.traffic.templates.clone()),
            namespace: link.path(),
            interface: link.tx().to_owned(),
            cpus: self.sender_cpus.clone(),
            pps,
            least,
            least_bytes,
        }
    }

    /// Sends until the trial is long enough.
    fn send(&self, link: &Link, wish: &Wish<'_>, progress: &Progress) -> Result<Vec<Sent>> {
        let least = Duration::from_secs_f64(self.seconds.unwrap_or(SECONDS));
        let least_bytes = if self.seconds.is_some() { 0 } else { 2 * self.dirty_limit };
        let sender = Sender::start(&self.plan(link, wish.pps, least, least_bytes));
        let began = Instant::now();
        while !sender.is_over() {
            if free_bytes(&self.folder)? < RESERVE / 2 {
                bail!("{} has become too full for a trial", self.folder.display());
            }
            let passed = began.elapsed().as_secs_f64();
            let rate = ratio(sender.made(), 1) / passed.max(0.01);
            progress.step(&format!("{}: {rate:.0} packets/s, {passed:.0} s", wish.tool.kind.name()));
            std::thread::sleep(Duration::from_millis(100));
        }
        sender.finish()
    }

    fn figures(&self, wish: &Wish<'_>, lanes: &[Sent], before: Ends, after: Ends) -> Trial {
        let sent: u64 = lanes.iter().map(|lane| lane.packets).sum();
        let bytes: u64 = lanes.iter().map(|lane| lane.bytes).sum();
        let seconds = seconds(lanes);
        let mut trial = Trial {
            tool: wish.tool.kind.name().to_owned(),
            purpose: wish.purpose.to_owned(),
            round: wish.round,
            wanted_pps: wish.pps,
            seconds,
            short: seconds < SECONDS - 0.1 || bytes < 2 * self.dirty_limit,
            sent,
            pacing: wish.pps.map(|_| pacing(lanes)),
            ..Trial::default()
        };
        trial.not_placed = match (self.sender, before.live, after.live) {
            (SenderKind::Live, Some((taken, refused)), Some((taken_now, refused_now))) => {
                if taken_now - taken + refused_now - refused != sent {
                    let link = format!("{} taken, {} refused", taken_now - taken, refused_now - refused);
                    trial.problems.push(format!("{sent} packets were sent; the link counts {link}"));
                }
                refused_now - refused
            }
            (SenderKind::Live, ..) => {
                trial.problems.push("the sending interface does not count live frames".to_owned());
                0
            }
            (SenderKind::Sockets, ..) => after.dropped - before.dropped,
        };
        trial.placed = sent.saturating_sub(trial.not_placed);
        // Which were not placed nobody knows: their share of the bytes is that of the packets.
        let placed_bytes = ratio(bytes, 1) * ratio(trial.placed, sent.max(1));
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "not negative; a cast saturates"
        )]
        let placed_bytes = placed_bytes.round() as u64;
        trial.placed_bytes = placed_bytes;
        trial.pps = ratio(trial.placed, 1) / seconds;
        trial.bits_per_second = 8.0 * ratio(placed_bytes, 1) / seconds;
        trial
    }
}

impl Ends {
    fn of(link: &Link) -> Result<Self> {
        Ok(Self { live: link.live_frames()?, dropped: link.not_placed()? })
    }
}

fn pacing(lanes: &[Sent]) -> Pacing {
    let mut late = Lateness::default();
    lanes.iter().for_each(|lane| late.merge(&lane.late));
    let packets: u64 = late.buckets.iter().sum();
    Pacing {
        mean_us: ratio(late.sum_ns, packets) / 1e3,
        p99_us: ratio(late.per_mille_ns(990), 1_000),
        max_us: ratio(late.max_ns, 1_000),
        stalled_us: Some(ratio(late.stalled_ns, 1_000)),
    }
}

/// Compares what was placed, what is on disk, and what the recorder says.
fn judge(trial: &mut Trial, tally: &Tally) {
    trial.on_disk = tally.found;
    trial.missing = trial.placed.saturating_sub(tally.found);
    trial.twice = tally.twice;
    trial.out_of_order = tally.out_of_order;
    trial.strangers = tally.strangers;
    let mut problem = |text: String| trial.problems.push(text);
    if tally.never_sent > 0 {
        problem(format!("{} packets are on disk that were never sent", tally.never_sent));
    }
    if tally.found > trial.placed {
        problem(format!("{} packets are on disk, {} were placed", tally.found, trial.placed));
    }
    let Some(ledger) = &trial.ledger else { return };
    if let Err(error) = check_balance(ledger) {
        problem(error.to_string());
    }
    let on_disk = tally.found + tally.twice + tally.strangers + tally.never_sent;
    if trial.own.kept != Some(on_disk) {
        problem(format!("the ledger says {:?} are stored, {on_disk} are on disk", trial.own.kept));
    }
    let seen = ledger.pointer("/total/seen").and_then(serde_json::Value::as_u64);
    if seen != Some(trial.placed + tally.strangers) && tally.strangers == 0 {
        problem(format!("the ledger says {seen:?} were seen, {} were placed", trial.placed));
    }
}

/// CPU time and writes from the first packet to the recorder's end.
fn threads(trial: &mut Trial, start: &Usage, at_end: &Usage, usage: &Usage) {
    let until: BTreeMap<String, (usize, u64)> = usage.since(start);
    let while_sending = at_end.since(start);
    let all: u64 = until.values().map(|(_, ns)| ns).sum();
    trial.cpu_ns_per_packet = ratio(all, trial.on_disk);
    trial.threads = until
        .into_iter()
        .map(|(name, (threads, ns))| {
            let busy = while_sending.get(&name).map_or(0, |(_, ns)| *ns);
            let busy = ratio(busy, 1_000_000_000) / trial.seconds;
            ThreadTime { name, threads, ns_per_packet: ratio(ns, trial.on_disk), busy }
        })
        .collect();
    trial.resident_max_bytes = Some(usage.resident_max).filter(|bytes| *bytes > 0);
    trial.disk_bytes = usage.written.saturating_sub(start.written);
    trial.disk_bytes_per_second = ratio(trial.disk_bytes, 1) / trial.seconds;
}

/// Puts a program on the recorded end that changes nothing, and keeps the kernel from joining packets there.
fn let_pass(link: &Link) -> Result<Pass> {
    let pass = link.inside(|| {
        let ifindex = nix::net::if_::if_nametoindex(link.rx()).context("the link is gone")?;
        Ok(Pass::attach(ifindex)?)
    })?;
    if link.is_made() {
        link.run(&["ethtool", "-K", link.rx(), "gro", "off"])?;
    }
    Ok(pass)
}

/// Lets a packet pass that is none of ours.
fn nudge(link: &Link) {
    let _ = link.inside(|| {
        let (socket, target) = packet_socket(link.tx())?;
        let frame = Probe { number: 0, sent_ns: 0 }.encode(66);
        sendto(socket.as_raw_fd(), &frame, &target, MsgFlags::empty())?;
        Ok(())
    });
}

/// A folder for recorders: the one that is named, or the system's.
///
/// # Errors
/// It cannot be made.
pub fn folder(named: Option<&Path>) -> Result<PathBuf> {
    let folder = named.map_or_else(std::env::temp_dir, Path::to_owned);
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    Ok(folder)
}
