//! A sequence of packets, sent again and again as live frames, each with a number: traffic for measurements. The
//! recorder does not use it.
//!
//! The number stands in the addresses of Ethernet ([`number_of`]): any packet has them, no other byte changes, and
//! a packet that is cut to its headers still tells it. In later rounds of the sequence a conversation can have other
//! addresses, so that new ones come all the time, or go on in its TCP sequence numbers; checksums stay right.
//! [`Template::frame`] is the same in Rust, for senders of another kind.
//!
//! It must never send on an interface that the caller has not named, nor a number twice.

use crate::generator::skel;
use crate::generator::{LIVE_FRAMES, only};
use libbpf_rs::skel::{OpenSkel as _, SkelBuilder as _};
use libbpf_rs::{ErrorKind, MapCore as _, MapFlags, MapHandle, ProgramInput};
use std::mem::MaybeUninit;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// Longest template, bytes (`LONGEST` of generator.bpf.c).
pub const LONGEST: usize = 2_048;
/// Shortest: the header of Ethernet.
pub const SHORTEST: usize = 14;
/// A block of templates (`BLOCK`).
const BLOCK: usize = 1 << 16;
/// Memory for all templates, bytes.
const BYTES_MAX: usize = 1 << 28;
/// Frames the kernel offers the program in one call: a second and more, because each call takes milliseconds to set
/// up, which would be a pause. When all is made the rest is dropped, 16 million in less than a second.
const OFFERED: u32 = 1 << 24;
/// Between two looks at how far it is.
const LOOK: Duration = Duration::from_millis(5);
/// What a destination address begins with, before the lane.
const MARK: [u8; 3] = [0x02, 0x74, 0x62];

const RENEW: u16 = 1;
const IPV6: u16 = 2;
const SOURCE_IS_LOWER: u16 = 4;

/// One packet of a sequence.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Template {
    /// All of it, from Ethernet on, without the checksum behind it; 14 to [`LONGEST`] bytes for live frames.
    pub bytes: Vec<u8>,
    /// Its addresses change from round to round.
    pub renew: Option<Addresses>,
    /// Its TCP header goes on from round to round.
    pub tcp: Option<Steps>,
}

/// Addresses of IP that change from round to round: the last 16 bits of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Addresses {
    /// Where the IP header begins, bytes; below [`LONGEST`].
    pub net: u16,
    /// IPv6 and not IPv4.
    pub ipv6: bool,
    /// The source is the lower address of the two: both directions of a conversation must change alike.
    pub source_is_lower: bool,
}

/// By how much a TCP header goes on each round.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Steps {
    /// Where the TCP header begins, bytes; not 0, below [`LONGEST`].
    pub tcp: u16,
    /// Bytes its side sends in a round.
    pub seq: u32,
    /// Bytes the other side sends in a round.
    pub ack: u32,
}

/// Lane and number of a packet; `None` for a packet that no sender of ours has numbered.
#[must_use]
pub fn number_of(packet: &[u8]) -> Option<(u8, u64)> {
    let (addresses, _) = packet.split_first_chunk::<12>()?;
    let [a, b, c, lane, n5, n4, d, e, n3, n2, n1, n0] = *addresses;
    ([a, b, c, d, e] == [MARK[0], MARK[1], MARK[2], 2, 0])
        .then(|| (lane, u64::from_be_bytes([0, 0, n5, n4, n3, n2, n1, n0])))
}

impl Template {
    /// Writes the frame of this number, in this round of the sequence, over `out`.
    pub fn frame(&self, lane: u8, number: u64, round: u32, out: &mut Vec<u8>) {
        out.clear();
        out.extend_from_slice(&self.bytes);
        let [_, _, n5, n4, n3, n2, n1, n0] = number.to_be_bytes();
        if let Some(addresses) = out.first_chunk_mut::<12>() {
            *addresses = [MARK[0], MARK[1], MARK[2], lane, n5, n4, 2, 0, n3, n2, n1, n0];
        }
        if round == 0 {
            return;
        }
        if let Some(renew) = self.renew {
            let (source, destination) = if renew.ipv6 { (22, 38) } else { (14, 18) };
            let shift = u16::try_from(round % 0xffff).unwrap_or(0);
            let (up, down) = if renew.source_is_lower { (shift, !shift) } else { (!shift, shift) };
            let net = usize::from(renew.net);
            if out.len() >= net + destination + 2 {
                change(out, net + source, |word| add(word, up));
                change(out, net + destination, |word| add(word, down));
            }
        }
        if let Some(steps) = self.tcp {
            let tcp = usize::from(steps.tcp);
            if out.len() >= tcp + 20 {
                step(out, tcp + 4, tcp + 16, round.wrapping_mul(steps.seq));
                step(out, tcp + 8, tcp + 16, round.wrapping_mul(steps.ack));
            }
        }
    }

    fn place(&self, at: u32) -> [u8; 20] {
        let flags = self.renew.map_or(0, |renew| {
            RENEW
                | if renew.ipv6 { IPV6 } else { 0 }
                | if renew.source_is_lower { SOURCE_IS_LOWER } else { 0 }
        });
        let net = self.renew.map_or(0, |renew| renew.net);
        let steps = self.tcp.unwrap_or(Steps { tcp: 0, seq: 0, ack: 0 });
        let len = u16::try_from(self.bytes.len()).unwrap_or(0);
        let mut place = [0; 20];
        let halves = [len, net, steps.tcp, flags].into_iter().flat_map(u16::to_ne_bytes);
        let words = [steps.seq, steps.ack].into_iter().flat_map(u32::to_ne_bytes);
        let all = at.to_ne_bytes().into_iter().chain(halves).chain(words);
        place.iter_mut().zip(all).for_each(|(to, from)| *to = from);
        place
    }
}

/// A sum as in the Internet checksum (RFC 1071).
const fn add(a: u16, b: u16) -> u16 {
    let (sum, carry) = a.overflowing_add(b);
    if carry { sum + 1 } else { sum }
}

fn change(out: &mut [u8], at: usize, how: impl FnOnce(u16) -> u16) {
    if let Some(word) = out.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<2>) {
        *word = how(u16::from_be_bytes(*word)).to_be_bytes();
    }
}

/// Adds to a number of a TCP header and mends the checksum (RFC 1624).
fn step(out: &mut [u8], at: usize, check: usize, by: u32) {
    let Some(number) = out.get_mut(at..).and_then(<[u8]>::first_chunk_mut::<4>) else { return };
    let old = *number;
    *number = u32::from_be_bytes(old).wrapping_add(by).to_be_bytes();
    let new = *number;
    let words = |[a, b, c, d]: [u8; 4]| [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])];
    let [old_high, old_low] = words(old);
    let [new_high, new_low] = words(new);
    change(out, check, |check| !add(add(add(add(!check, !old_low), !old_high), new_low), new_high));
}

/// What to send.
#[derive(Clone, Copy, Debug)]
pub struct Replay<'a> {
    /// Interface the packets go out of.
    pub ifindex: u32,
    /// The sequence, sent again and again; not empty.
    pub templates: &'a [Template],
    /// At most so many packets; numbered from 0.
    pub count: u64,
    /// For so long, from the first packet on,
    pub least: Duration,
    /// and until so many bytes are sent.
    pub least_bytes: u64,
    /// Time between two; zero = as fast as it goes. Below a nanosecond it is not told apart from zero.
    pub gap_ns: f64,
    /// Tells generators apart that send at once.
    pub lane: u8,
}

/// How late packets were made, against the pace that was asked for. What becomes of a packet behind the generator
/// is not part of it: the kernel hands packets on in bunches of up to 64.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lateness {
    /// Packets by up to 2^i nanoseconds.
    pub buckets: [u64; 32],
    /// The sum, ns.
    pub sum_ns: u64,
    /// The largest, ns.
    pub max_ns: u64,
    /// Time for which a generator stood still and that it did not make up for, ns: it makes up for
    /// [`CATCH_UP_NS`] at once.
    pub stalled_ns: u64,
}

/// So much of its pace a generator makes up for when it stood still, ns: more would be a burst that nobody has asked
/// for, at the highest rate there is (`CATCH_UP_NS` of generator.bpf.c).
pub const CATCH_UP_NS: u64 = 2_000_000;

impl Lateness {
    /// Notes one packet.
    pub fn note(&mut self, ns: u64) {
        let power = usize::try_from(64 - ns.leading_zeros()).unwrap_or(31).min(31);
        if let Some(bucket) = self.buckets.get_mut(power) {
            *bucket += 1;
        }
        self.sum_ns = self.sum_ns.saturating_add(ns);
        self.max_ns = self.max_ns.max(ns);
    }

    /// Adds another generator's.
    pub fn merge(&mut self, other: &Self) {
        self.buckets.iter_mut().zip(other.buckets).for_each(|(to, from)| *to += from);
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
        self.max_ns = self.max_ns.max(other.max_ns);
        self.stalled_ns = self.stalled_ns.saturating_add(other.stalled_ns);
    }

    /// At most so late were this many of a thousand packets, ns: a power of two or the largest.
    #[must_use]
    pub fn per_mille_ns(&self, share: u64) -> u64 {
        let wanted = (self.buckets.iter().sum::<u64>() * share).div_ceil(1000);
        let mut so_far = 0;
        for (power, count) in self.buckets.iter().enumerate() {
            so_far += count;
            if so_far >= wanted {
                return (1_u64 << power).min(self.max_ns);
            }
        }
        self.max_ns
    }
}

/// What a generator has sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Sent {
    /// Packets, also those that the interface did not take; it counts them itself (veth: `tx_queue_N_xdp_xmit_errors`
    /// of `ethtool -S`).
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// From the first to the last.
    pub took: Duration,
    /// Against the pace.
    pub late: Lateness,
}

/// Why packets could not be sent.
#[derive(Debug, thiserror::Error)]
pub enum ReplayError {
    /// There is nothing to send.
    #[error("a sequence without packets")]
    Empty,
    /// A template does not fit.
    #[error(
        "packet {index} of the sequence has {len} bytes; {SHORTEST} to {LONGEST} can be sent as live frames"
    )]
    Template {
        /// Which.
        index: usize,
        /// Its bytes.
        len: usize,
    },
    /// All together do not.
    #[error("a sequence of more than {BYTES_MAX} bytes")]
    TooMuch,
    /// The program could not make a packet of what it was given.
    #[error("the generator could not make packet {0}")]
    Failed(u64),
    /// The kernel refused the program or its run.
    #[error("the kernel refused to {act}")]
    Kernel {
        /// What was tried.
        act: &'static str,
        /// Its answer.
        #[source]
        source: libbpf_rs::Error,
    },
}

fn kernel(act: &'static str) -> impl Fn(libbpf_rs::Error) -> ReplayError {
    move |source| ReplayError::Kernel { act, source }
}

/// Templates behind each other in blocks, and where each lies.
fn lay_out(templates: &[Template]) -> Result<(Vec<u8>, Vec<[u8; 20]>), ReplayError> {
    if templates.is_empty() {
        return Err(ReplayError::Empty);
    }
    let (mut bytes, mut places) = (Vec::new(), Vec::with_capacity(templates.len()));
    for (index, template) in templates.iter().enumerate() {
        let len = template.bytes.len();
        if !(SHORTEST..=LONGEST).contains(&len) {
            return Err(ReplayError::Template { index, len });
        }
        // The program reads as if each were the longest.
        if bytes.len() % BLOCK > BLOCK - LONGEST {
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        }
        let at = u32::try_from(bytes.len()).map_err(|_| ReplayError::TooMuch)?;
        places.push(template.place(at));
        bytes.extend_from_slice(&template.bytes);
    }
    bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
    if bytes.len() > BYTES_MAX { Err(ReplayError::TooMuch) } else { Ok((bytes, places)) }
}

/// `struct talk`: told to stop, frames made, over.
fn read(talk: &MapHandle) -> Option<[u64; 3]> {
    let bytes = talk.lookup(&[0; 4], MapFlags::ANY).ok()??;
    let (words, _) = bytes.as_chunks::<8>();
    words.iter().map(|word| u64::from_ne_bytes(*word)).collect::<Vec<_>>().try_into().ok()
}

/// The same, to be written: the program counts on where it left off.
fn told_to_stop() -> [u8; 24] {
    let mut bytes = [0; 24];
    bytes.iter_mut().zip(1_u64.to_ne_bytes()).for_each(|(to, from)| *to = from);
    bytes
}

/// The generator in the kernel, with a sequence.
struct Loaded<'obj> {
    skel: skel::GeneratorSkel<'obj>,
    /// The longest template, which the program cuts to what it needs.
    longest: Vec<u8>,
}

impl<'obj> Loaded<'obj> {
    fn new(
        replay: &Replay<'_>,
        storage: &'obj mut MaybeUninit<libbpf_rs::OpenObject>,
    ) -> Result<Self, ReplayError> {
        let (bytes, places) = lay_out(replay.templates)?;
        let mut open =
            skel::GeneratorSkelBuilder::default().open(storage).map_err(kernel("open the generator"))?;
        let number = |count: usize| u32::try_from(count).map_err(|_| ReplayError::TooMuch);
        if let Some(told) = open.maps.rodata_data.as_deref_mut() {
            told.ifindex = replay.ifindex;
            told.count = replay.count;
            told.gap = gap_units(replay.gap_ns);
            told.place_count = number(places.len())?;
            told.lane = replay.lane;
            told.least_ns = u64::try_from(replay.least.as_nanos()).unwrap_or(u64::MAX);
            told.least_bytes = replay.least_bytes;
        }
        only(&mut open, "tapedeck_replay");
        let sized = kernel("size the sequence");
        open.maps.places.set_max_entries(number(places.len())?).map_err(&sized)?;
        open.maps.blocks.set_max_entries(number(bytes.len() / BLOCK)?).map_err(&sized)?;
        let skel = open.load().map_err(kernel("load the generator"))?;
        let put = kernel("take the sequence");
        for (key, place) in (0_u32..).zip(&places) {
            skel.maps.places.update(&key.to_ne_bytes(), place, MapFlags::ANY).map_err(&put)?;
        }
        for (key, block) in (0_u32..).zip(bytes.chunks(BLOCK)) {
            skel.maps.blocks.update(&key.to_ne_bytes(), block, MapFlags::ANY).map_err(&put)?;
        }
        let longest = replay.templates.iter().map(|t| t.bytes.len()).max().unwrap_or(SHORTEST);
        Ok(Self { skel, longest: vec![0; longest] })
    }

    fn sent(&self) -> Sent {
        let Some(data) = self.skel.maps.bss_data.as_deref() else { return Sent::default() };
        let late = Lateness {
            buckets: data.late,
            sum_ns: data.late_sum,
            max_ns: data.late_max,
            stalled_ns: data.stalled_ns,
        };
        let took = Duration::from_nanos(data.last_ns.saturating_sub(data.start_ns));
        Sent { packets: data.made, bytes: data.made_bytes, took, late }
    }

    /// Offers frames until enough are made.
    fn run(&self, replay: &Replay<'_>, talk: &MapHandle, stop: &AtomicBool) -> Result<Sent, ReplayError> {
        loop {
            let sent = self.sent();
            if self.failed() {
                return Err(ReplayError::Failed(sent.packets));
            }
            let over = read(talk).is_none_or(|[stop, _, over]| stop + over > 0);
            if over || sent.packets >= replay.count || stop.load(Ordering::Relaxed) {
                return Ok(sent);
            }
            let input = ProgramInput {
                data_in: Some(&self.longest),
                flags: LIVE_FRAMES,
                repeat: OFFERED,
                ..ProgramInput::default()
            };
            match self.skel.progs.tapedeck_replay.test_run(input) {
                Ok(_) => {}
                // A signal came.
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(source) => return Err(ReplayError::Kernel { act: "run live frames", source }),
            }
        }
    }

    fn failed(&self) -> bool {
        self.skel.maps.bss_data.as_deref().is_none_or(|data| data.failed > 0)
    }
}

/// A gap as the program has it: in 1/1024 ns.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "clamped; a float's cast saturates"
)]
fn gap_units(gap_ns: f64) -> u64 {
    (gap_ns.clamp(0.0, 1e15) * 1024.0).round() as u64
}

impl Replay<'_> {
    /// Sends, on the calling thread, which should be pinned to a CPU: a veth takes the queue by its number. Ends
    /// when enough is sent, or soon after `stop` is set; `made` is told how many it has made.
    ///
    /// # Errors
    /// [`ReplayError`].
    pub fn send(&self, stop: &AtomicBool, made: &(dyn Fn(u64) + Sync)) -> Result<Sent, ReplayError> {
        let mut storage = MaybeUninit::uninit();
        let loaded = Loaded::new(self, &mut storage)?;
        let talk =
            MapHandle::try_from(&loaded.skel.maps.talks).map_err(kernel("open the generator's map"))?;
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // While the kernel is in the loop, another thread looks.
            scope.spawn(|| {
                while !done.load(Ordering::Relaxed) {
                    if let Some([_, count, _]) = read(&talk) {
                        made(count);
                    }
                    if stop.load(Ordering::Relaxed) {
                        let _ = talk.update(&[0; 4], &told_to_stop(), MapFlags::ANY);
                    }
                    std::thread::sleep(LOOK);
                }
            });
            let sent = loaded.run(self, &talk, stop);
            done.store(true, Ordering::Relaxed);
            if let Ok(sent) = &sent {
                made(sent.packets);
            }
            sent
        })
    }

    /// The frames that the program makes first, without sending them: for comparison with [`Template::frame`].
    ///
    /// # Errors
    /// [`ReplayError`].
    pub fn rehearse(&self) -> Result<Vec<Vec<u8>>, ReplayError> {
        let mut storage = MaybeUninit::uninit();
        let loaded = Loaded::new(self, &mut storage)?;
        let mut frames = Vec::new();
        while loaded.sent().packets < self.count {
            let mut out = vec![0; LONGEST];
            let input = ProgramInput {
                data_in: Some(&loaded.longest),
                data_out: Some(&mut out),
                ..ProgramInput::default()
            };
            let ran = loaded.skel.progs.tapedeck_replay.test_run(input);
            let len = ran.map_err(kernel("run the generator"))?.data.map_or(0, |data| data.len());
            if loaded.failed() {
                return Err(ReplayError::Failed(loaded.sent().packets));
            }
            out.truncate(len);
            frames.push(out);
        }
        Ok(frames)
    }
}

/// A program on an interface that lets everything pass; gone when dropped. With one on it, a veth takes live frames
/// for a recorder that brings none.
#[derive(Debug)]
pub struct Pass {
    _link: libbpf_rs::Link,
}

impl Pass {
    /// Puts it there.
    ///
    /// # Errors
    /// The interface has a program, or its driver takes none.
    pub fn attach(ifindex: u32) -> Result<Self, ReplayError> {
        let mut storage = MaybeUninit::uninit();
        let open = skel::GeneratorSkelBuilder::default().open(&mut storage);
        let mut open = open.map_err(kernel("open the generator"))?;
        only(&mut open, "tapedeck_pass");
        let skel = open.load().map_err(kernel("load a program"))?;
        let at = i32::try_from(ifindex).unwrap_or(0);
        let link = skel.progs.tapedeck_pass.attach_xdp(at).map_err(kernel("attach a program"))?;
        Ok(Self { _link: link })
    }
}

#[cfg(test)]
mod tests;
