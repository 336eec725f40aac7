//! Sends a sequence, paced or as fast as it goes, in one or more lanes: each a thread on a CPU of its own that numbers
//! its packets from 0.
//!
//! Live frames make the most packets, and reach a veth's queue by the number of the CPU; packet sockets reach any
//! interface, all queues, and frames of any size. Lanes after the first have other addresses, so that no conversation
//! is in two. It must never send on another interface than it was told, nor go on after its value is dropped.

use crate::link::enter;
use crate::probe::packet_socket;
use anyhow::{Context as _, Result};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::socket::{LinkAddr, MsgFlags, MultiHeaders, sendmmsg};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::io::IoSlice;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tapedeck_ebpf::replay::{Addresses, CATCH_UP_NS, Lateness, Replay, Sent, Template};

/// Packets given to the kernel at once, at most.
const BUNCH: usize = 64;
/// Rounds of address changes between two lanes: a prime, so that lanes meet late.
const LANES_APART: u32 = 7_919;

/// How packets get onto the link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Made in the kernel (BPF live frames), for interfaces that take redirected frames.
    Live,
    /// Packet sockets, for any interface.
    Sockets,
}

/// What to send and how.
#[derive(Clone, Debug)]
pub struct Plan {
    /// How.
    pub kind: Kind,
    /// The sequence.
    pub templates: Arc<Vec<Template>>,
    /// Namespace of the interface.
    pub namespace: PathBuf,
    /// The interface.
    pub interface: String,
    /// A lane on each.
    pub cpus: Vec<usize>,
    /// Packets a second of all lanes together; none = as fast as it goes.
    pub pps: Option<f64>,
    /// For so long,
    pub least: Duration,
    /// and until so many bytes are sent by all lanes together.
    pub least_bytes: u64,
}

/// Lanes under way. Dropping it ends them.
#[derive(Debug)]
pub struct Sender {
    stop: Arc<AtomicBool>,
    made: Vec<Arc<AtomicU64>>,
    lanes: Vec<JoinHandle<Result<Sent>>>,
}

impl Sender {
    /// Starts all lanes.
    #[must_use]
    pub fn start(plan: &Plan) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (mut made, mut lanes) = (Vec::new(), Vec::new());
        for (lane, cpu) in (0_u8..).zip(plan.cpus.iter().copied()) {
            let (stop, count) = (Arc::clone(&stop), Arc::new(AtomicU64::new(0)));
            made.push(Arc::clone(&count));
            let plan = plan.clone();
            lanes.push(std::thread::spawn(move || {
                enter(&plan.namespace)?;
                pin(&[cpu])?;
                plan.send(lane, &stop, &count)
            }));
        }
        Self { stop, made, lanes }
    }

    /// Packets made so far.
    #[must_use]
    pub fn made(&self) -> u64 {
        self.made.iter().map(|made| made.load(Ordering::Relaxed)).sum()
    }

    /// All lanes have ended, by themselves or with an error.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.lanes.iter().all(JoinHandle::is_finished)
    }

    /// Ends the lanes; what each has sent.
    ///
    /// # Errors
    /// That of a lane.
    pub fn finish(mut self) -> Result<Vec<Sent>> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = std::mem::take(&mut self.lanes).into_iter().map(JoinHandle::join);
        ended.map(|lane| lane.map_err(|_| anyhow::anyhow!("a sender panicked"))?).collect()
    }
}

impl Drop for Sender {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for lane in std::mem::take(&mut self.lanes) {
            let _ = lane.join();
        }
    }
}

/// Keeps the calling thread, and what it starts, on these CPUs.
///
/// # Errors
/// One is not there, or not ours.
pub fn pin(cpus: &[usize]) -> Result<()> {
    let mut set = CpuSet::new();
    for cpu in cpus {
        set.set(*cpu).with_context(|| format!("no CPU {cpu}"))?;
    }
    sched_setaffinity(Pid::from_raw(0), &set).with_context(|| format!("CPUs {cpus:?} cannot be used"))
}

impl Plan {
    /// Time between two packets of a lane, ns; 0 = as fast as it goes.
    fn gap_ns(&self) -> f64 {
        let lanes = u32::try_from(self.cpus.len()).unwrap_or(1);
        self.pps.map_or(0.0, |pps| 1e9 * f64::from(lanes) / pps)
    }

    fn lane_bytes(&self) -> u64 {
        self.least_bytes.div_ceil(u64::try_from(self.cpus.len()).unwrap_or(1).max(1))
    }

    fn send(&self, lane: u8, stop: &AtomicBool, made: &AtomicU64) -> Result<Sent> {
        let moved;
        let templates = if lane == 0 {
            self.templates.as_slice()
        } else {
            moved = for_lane(&self.templates, lane);
            moved.as_slice()
        };
        let progress = |count| made.store(count, Ordering::Relaxed);
        match self.kind {
            Kind::Live => {
                let ifindex = nix::net::if_::if_nametoindex(self.interface.as_str())
                    .with_context(|| format!("no interface {}", self.interface))?;
                let replay = Replay {
                    ifindex,
                    templates,
                    count: u64::MAX,
                    least: self.least,
                    least_bytes: self.lane_bytes(),
                    gap_ns: self.gap_ns(),
                    lane,
                };
                Ok(replay.send(stop, &progress)?)
            }
            Kind::Sockets => self.by_socket(templates, lane, stop, &progress),
        }
    }

    fn by_socket(
        &self,
        templates: &[Template],
        lane: u8,
        stop: &AtomicBool,
        made: &(dyn Fn(u64) + Sync),
    ) -> Result<Sent> {
        let (socket, target) = packet_socket(&self.interface)?;
        let addresses = [Some(target); BUNCH];
        let mut frames = vec![Vec::new(); BUNCH];
        let (mut sent, mut late) = (Sent::default(), Lateness::default());
        let (gap_ns, began) = (self.gap_ns(), Instant::now());
        let mut next = Turns { templates, at: 0, round: 0 };
        while !stop.load(Ordering::Relaxed)
            && (began.elapsed() < self.least || sent.bytes < self.lane_bytes())
        {
            let ready = due(began.elapsed(), gap_ns, sent.packets, &mut late);
            if ready == 0 {
                pause(gap_ns);
                continue;
            }
            let ready = usize::try_from(ready).unwrap_or(BUNCH);
            for (number, frame) in (sent.packets..).zip(frames.iter_mut().take(ready)) {
                next.frame(lane, number, frame)?;
            }
            let mut from = 0;
            while from < ready {
                let bunch = frames.get(from..ready).unwrap_or_default();
                let placed = place(socket.as_raw_fd(), bunch, &addresses)?;
                let taken: usize = bunch.iter().take(placed).map(Vec::len).sum();
                sent.bytes += u64::try_from(taken)?;
                sent.packets += u64::try_from(placed)?;
                from += placed;
            }
            made(sent.packets);
        }
        Ok(Sent { took: began.elapsed(), late, ..sent })
    }
}

/// Gives a bunch to the kernel; how many it took. It has no room now and then: then it is asked again.
fn place(socket: i32, bunch: &[Vec<u8>], addresses: &[Option<LinkAddr>]) -> Result<usize> {
    let slices: Vec<[IoSlice<'_>; 1]> = bunch.iter().map(|frame| [IoSlice::new(frame)]).collect();
    let mut headers = MultiHeaders::<LinkAddr>::preallocate(slices.len(), None);
    loop {
        match sendmmsg(socket, &mut headers, &slices, addresses, [], MsgFlags::empty()) {
            Ok(results) => return Ok(results.count()),
            Err(nix::Error::ENOBUFS | nix::Error::EAGAIN | nix::Error::EINTR) => {}
            Err(error) => return Err(error).context("sending packets"),
        }
        headers = MultiHeaders::preallocate(slices.len(), None);
    }
}

/// The next templates of a sequence.
struct Turns<'a> {
    templates: &'a [Template],
    at: usize,
    round: u32,
}

impl Turns<'_> {
    fn frame(&mut self, lane: u8, number: u64, out: &mut Vec<u8>) -> Result<()> {
        self.templates.get(self.at).context("nothing to send")?.frame(lane, number, self.round, out);
        self.at += 1;
        if self.at >= self.templates.len() {
            (self.at, self.round) = (0, self.round.wrapping_add(1));
        }
        Ok(())
    }
}

/// How many packets are due, a bunch at most; notes how late each is, and what is not made up for.
#[expect(clippy::cast_precision_loss, reason = "nanoseconds of a run, far below 2^52")]
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "not negative; a cast saturates")]
fn due(elapsed: Duration, gap_ns: f64, sent: u64, late: &mut Lateness) -> u64 {
    let most = BUNCH as u64;
    if gap_ns <= 0.0 {
        return most;
    }
    let elapsed_ns = elapsed.as_nanos() as f64;
    let behind = elapsed_ns - late.stalled_ns as f64 - sent as f64 * gap_ns;
    if behind > CATCH_UP_NS as f64 {
        late.stalled_ns += behind as u64 - CATCH_UP_NS;
        late.max_ns = late.max_ns.max(behind as u64);
    }
    let now_ns = elapsed_ns - late.stalled_ns as f64;
    let until = (now_ns / gap_ns) as u64 + 1;
    let ready = until.saturating_sub(sent).min(most);
    for number in sent..sent + ready {
        late.note((now_ns - number as f64 * gap_ns).max(0.0) as u64);
    }
    ready
}

/// Waits a part of the gap: asleep where it is long, else awake.
fn pause(gap_ns: f64) {
    if gap_ns > 300_000.0 {
        std::thread::sleep(Duration::from_micros(100));
    } else {
        std::hint::spin_loop();
    }
}

/// The sequence with other addresses, both directions of a conversation alike.
fn for_lane(templates: &[Template], lane: u8) -> Vec<Template> {
    let mut out = Vec::new();
    let moved = |template: &Template| {
        let ipv4 = (template.bytes.get(12..15) == Some(&[8, 0, 0x45])).then(|| Addresses {
            net: 14,
            ipv6: false,
            source_is_lower: template.bytes.get(26..30) < template.bytes.get(30..34),
        });
        let mover = Template { renew: template.renew.or(ipv4), tcp: None, bytes: template.bytes.clone() };
        mover.frame(lane, 0, u32::from(lane) * LANES_APART, &mut out);
        Template { bytes: out.clone(), ..template.clone() }
    };
    templates.iter().map(moved).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_are_due_as_the_pace_says() {
        let mut late = Lateness::default();
        let at = |us| Duration::from_micros(us);
        assert_eq!(due(at(0), 1_000.0, 0, &mut late), 1);
        assert_eq!(due(at(0), 1_000.0, 1, &mut late), 0);
        assert_eq!(due(at(10), 1_000.0, 1, &mut late), 10);
        assert_eq!(due(at(1_000), 1_000.0, 11, &mut late), 64, "a bunch at most");
        assert_eq!(late.stalled_ns, 0, "made up for");
        // It stood still for 10 ms and makes up for 2 of them.
        assert_eq!(due(at(11_011), 100_000.0, 11, &mut late), 21);
        assert_eq!(late.stalled_ns, 9_911_000 - CATCH_UP_NS);
        assert_eq!(due(at(11_011), 100_000.0, 32, &mut late), 0);
        assert_eq!(due(at(0), 0.0, 0, &mut late), 64);
        assert_eq!(late.max_ns, 9_911_000);
        assert_eq!(late.buckets.iter().sum::<u64>(), 96);
    }

    #[test]
    fn lanes_have_conversations_of_their_own() {
        let template = |source: u8, destination: u8| {
            let mut bytes = vec![0; 60];
            bytes[12..15].copy_from_slice(&[8, 0, 0x45]);
            bytes[26..34].copy_from_slice(&[10, 0, 0, source, 10, 0, 0, destination]);
            Template { bytes, ..Template::default() }
        };
        let there_and_back = [template(1, 2), template(2, 1)];
        let moved = for_lane(&there_and_back, 1);
        assert_eq!(moved[0].bytes[26..30], moved[1].bytes[30..34]);
        assert_eq!(moved[0].bytes[30..34], moved[1].bytes[26..30]);
        assert_ne!(moved[0].bytes[26..34], there_and_back[0].bytes[26..34]);
    }
}
