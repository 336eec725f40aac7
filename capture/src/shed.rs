//! Sheds payload: what is kept of a packet while the disk and the compressor are behind.
//!
//! The order under overload: first the stage compresses less (`level` of the writer); then, when most frame
//! buffers are in use all the same, packets of flows that are beyond their first bytes keep only their
//! headers ([`Shedder`]); only when that does not suffice either are whole packets shed (by the chain).
//!
//! Each worker counts the bytes of its flows in a table of fixed size, one cache line a packet, both
//! directions together. It knows a flow by 64 bits of a keyed hash: flows are never mistaken for each other,
//! and one that is pushed out begins anew. So it errs on one side only: it may keep too much.
//!
//! It must never cut a flow that is within its first bytes, nor a byte of a header.

use std::net::IpAddr;
use std::time::Duration;
use tapedeck_packet::hash::{FACTORS, fold};
use tapedeck_packet::{Fragment, Ip, Net, Timestamp, Walk};

/// Bytes of a flow that are always kept whole, unless the operator says otherwise.
pub const FLOW_KEEP_BYTES: u32 = 64 * 1024;
/// Frame buffers in use, percent, from which payload is shed: above those at which the level has fallen to
/// its last step.
const PRESSED_PERCENT: usize = 85;
/// Frame buffers in use, percent, from which on down payload is kept again.
const CALM_PERCENT: usize = 50;
/// A flow that was silent for so long begins anew, as its session does at the latest.
const SILENT: Duration = Duration::from_secs(60);
/// Kept behind the IP header where the transport's own header is not known.
const OTHER_BYTES: usize = 64;
/// Sets of the table, a power of two.
const SETS: usize = 1 << SET_BITS;
const SET_BITS: u32 = 14;
const WAYS: usize = 4;

const TCP: u8 = 6;
const UDP: u8 = 17;
const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// What to do when the disk and the compressor are behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShedPayload {
    /// Keep only the headers of what flows send beyond these first bytes.
    Beyond(u32),
    /// Packets are stored whole or not at all.
    Never,
}

impl Default for ShedPayload {
    fn default() -> Self {
        Self::Beyond(FLOW_KEEP_BYTES)
    }
}

/// A flow. `tag` 0 = none.
#[derive(Clone, Copy, Debug, Default)]
struct Flow {
    tag: u64,
    /// Bytes on the wire so far; stops at the end of its range.
    bytes: u32,
    /// Second of its last packet.
    second: u32,
}

/// One cache line.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(64))]
struct Set([Flow; WAYS]);

const _: () = assert!(size_of::<Set>() == 64);

/// Decides how much of each packet of a queue is kept.
#[derive(Debug)]
pub struct Shedder {
    /// Empty if payload is never shed.
    sets: Box<[Set]>,
    seed: u64,
    keep_bytes: u32,
    pressed: bool,
}

impl Shedder {
    /// A shedder without flows. `seed` is to be random: senders must not know which flows share a set.
    #[must_use]
    pub fn new(shed: ShedPayload, seed: u64) -> Self {
        let (sets, keep_bytes) = match shed {
            ShedPayload::Beyond(bytes) => (vec![Set::default(); SETS], bytes),
            ShedPayload::Never => (Vec::new(), u32::MAX),
        };
        Self { sets: sets.into_boxed_slice(), seed, keep_bytes, pressed: false }
    }

    /// So many of `buffers` frame buffers are free: to be told before each batch. Says whether payload is
    /// shed now.
    pub fn press(&mut self, free: usize, buffers: usize) -> bool {
        let used_percent = buffers.saturating_sub(free).saturating_mul(100) / buffers.max(1);
        let from = if self.pressed { CALM_PERCENT + 1 } else { PRESSED_PERCENT };
        self.pressed = !self.sets.is_empty() && used_percent >= from;
        self.pressed
    }

    /// How many bytes of a packet are to be kept, at most all of `bytes`, and counts it to its flow. `walk`
    /// is the walk of `bytes`, `original_bytes` its length on the wire.
    #[inline]
    pub fn keep(&mut self, walk: &Walk, bytes: &[u8], original_bytes: u32, ts: Timestamp) -> usize {
        // The innermost layer: a tunnel is not one flow. What is no IP is not shed.
        let Some(Net::Ip(ip)) = walk.layers().last().map(|layer| &layer.net) else { return bytes.len() };
        if self.sets.is_empty() || self.count(ip, original_bytes, ts) < self.keep_bytes || !self.pressed {
            return bytes.len();
        }
        header_bytes(ip, bytes).min(bytes.len())
    }

    /// Counts a packet; returns the bytes of its flow before it.
    #[inline]
    fn count(&mut self, ip: &Ip, bytes: u32, ts: Timestamp) -> u32 {
        let hash = flow_hash(ip, self.seed);
        let tag = hash | 1;
        let place = usize::try_from(hash >> (u64::BITS - SET_BITS)).unwrap_or(0);
        let Some(Set(flows)) = self.sets.get_mut(place) else { return 0 };
        // Seconds of this century and the next fit; what is compared is a difference.
        let second = u32::try_from(ts.nanos() / 1_000_000_000).unwrap_or(u32::MAX);
        let silent = |flow: &Flow| u64::from(flow.second.abs_diff(second)) > SILENT.as_secs();
        let begins = ip.tcp_flags.is_some_and(|flags| flags & (SYN | ACK) == SYN);
        if let Some(flow) = flows.iter_mut().find(|flow| flow.tag == tag) {
            let before = if begins || silent(flow) { 0 } else { flow.bytes };
            *flow = Flow { tag, bytes: before.saturating_add(bytes), second };
            return before;
        }
        // The longest flows stay.
        let rank = |flow: &&mut Flow| if flow.tag == 0 || silent(flow) { 0 } else { flow.bytes };
        if let Some(least) = flows.iter_mut().min_by_key(rank) {
            *least = Flow { tag, bytes, second };
        }
        0
    }
}

/// Bytes up to the end of the transport header.
fn header_bytes(ip: &Ip, bytes: &[u8]) -> usize {
    let at = usize::try_from(ip.transport).unwrap_or(usize::MAX);
    let behind_ip = match ip.proto {
        _ if ip.fragment == Fragment::Later => 0,
        TCP => bytes.get(at.saturating_add(12)).map_or(OTHER_BYTES, |byte| usize::from(byte >> 4).max(5) * 4),
        UDP => 8,
        _ => OTHER_BYTES,
    };
    at.saturating_add(behind_ip)
}

/// The same for both directions.
#[inline]
fn flow_hash(ip: &Ip, seed: u64) -> u64 {
    let (sport, dport) = ip.ports.unwrap_or((0, 0));
    let end = |address: IpAddr, port: u16| match address {
        IpAddr::V4(v4) => {
            fold((u64::from(v4.to_bits()) << 16 | u64::from(port)) ^ seed, FACTORS[1] ^ seed.rotate_left(32))
        }
        IpAddr::V6(v6) => {
            let [a, b, c, d, e, f, g, h] = v6.segments().map(u64::from);
            let (high, low) = (a << 48 | b << 32 | c << 16 | d, e << 48 | f << 32 | g << 16 | h);
            fold(fold(high ^ seed, low ^ FACTORS[0]) ^ u64::from(port), FACTORS[1] ^ seed.rotate_left(32))
        }
    };
    let both = end(ip.src, sport).wrapping_add(end(ip.dst, dport));
    let kind = u64::from(ip.src.is_ipv6()) << 8 | u64::from(ip.proto);
    fold(both ^ kind, FACTORS[2] ^ seed)
}

#[cfg(test)]
mod tests;
