//! What a worker does while the disk and the compressor are behind: it waits, it sheds payload.
//!
//! The order under overload: first the stage compresses less (`level` of the writer); then, when most frame
//! buffers are in use all the same, packets wait where they came in, as long as packet memory has room; then
//! packets of flows that are beyond their first bytes keep only their headers ([`Shedder`]); only when that does
//! not suffice either are whole packets shed (by the chain).
//!
//! How much a flow has had the session table knows, which counts it anyway: it is asked while there is pressure, and
//! only then. Where it cannot tell, it says too little: so this errs on one side only, and may keep too much.
//!
//! It must never cut a flow that is within its first bytes, nor a byte of a header.

use tapedeck_packet::{Fragment, Ip, Net, Walk};

/// Bytes of a flow that are always kept whole, unless the operator says otherwise.
pub const FLOW_KEEP_BYTES: u32 = 64 * 1024;
/// Frame buffers in use, percent, from which packets wait: above those at which the level has fallen to its last step.
const BEHIND_PERCENT: usize = 85;
/// Frame buffers in use, percent, from which on down payload that is shed is kept again.
const CALM_PERCENT: usize = 50;
/// Frame buffers in use, percent, from which also packets without payload wait: a batch of whole ones finds its place
/// in what is left.
const FULL_PERCENT: usize = 94;
/// Packet memory in use, percent, from which payload is shed. The rest is for what comes while that takes effect.
const PRESSED_MEMORY_PERCENT: u32 = 75;
/// Packet memory in use, percent, from which nothing waits any more.
const FULL_MEMORY_PERCENT: u32 = 90;
/// Kept behind the IP header where the transport's own header is not known.
const OTHER_BYTES: usize = 64;

const TCP: u8 = 6;
const UDP: u8 = 17;

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

/// What to do with the packets that have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Take the next batch.
    Take,
    /// Leave them where they are for a moment.
    Wait,
}

/// Decides whether packets of a queue are taken yet, and how much of each is kept.
#[derive(Clone, Copy, Debug)]
pub struct Shedder {
    shed: ShedPayload,
    pressed: bool,
}

impl Shedder {
    /// Without pressure.
    #[must_use]
    pub fn new(shed: ShedPayload) -> Self {
        Self { shed, pressed: false }
    }

    /// So many of `buffers` frame buffers are free, and so much of packet memory is in use, percent: to be told before
    /// each batch. The latter is asked for only where it matters.
    pub fn press(&mut self, free: usize, buffers: usize, waiting_percent: impl FnOnce() -> u32) -> Turn {
        let used_percent = buffers.saturating_sub(free).saturating_mul(100) / buffers.max(1);
        if used_percent <= CALM_PERCENT {
            self.pressed = false;
        }
        if used_percent < BEHIND_PERCENT {
            return Turn::Take;
        }
        let waiting_percent = waiting_percent();
        self.pressed |= self.shed != ShedPayload::Never && waiting_percent >= PRESSED_MEMORY_PERCENT;
        let spare = self.pressed && used_percent < FULL_PERCENT;
        if spare || waiting_percent >= FULL_MEMORY_PERCENT { Turn::Take } else { Turn::Wait }
    }

    /// Payload is kept again: nothing comes any more, and what waits can wait.
    pub fn relax(&mut self) {
        self.pressed = false;
    }

    /// Whether payload is shed now.
    #[must_use]
    pub fn pressed(&self) -> bool {
        self.pressed
    }

    /// How many bytes of a packet are to be kept, at most all of `bytes`; `walk` is the walk of them. `has_had` says
    /// whether the flow of the innermost layer has had so many bytes before; it is asked under pressure only, and where
    /// there is something to cut.
    #[inline]
    pub fn keep(&self, walk: &Walk, bytes: &[u8], has_had: impl FnOnce(u64) -> bool) -> usize {
        let ShedPayload::Beyond(first_bytes) = self.shed else { return bytes.len() };
        if !self.pressed {
            return bytes.len();
        }
        // The innermost layer: a tunnel is not one flow. What is no IP is not shed.
        let Some(Net::Ip(ip)) = walk.layers().last().map(|layer| &layer.net) else { return bytes.len() };
        let headers = header_bytes(ip, bytes);
        // Of what is all headers nothing can be cut.
        if headers < bytes.len() && has_had(u64::from(first_bytes)) { headers } else { bytes.len() }
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

#[cfg(test)]
mod tests;
