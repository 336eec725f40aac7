//! Numbered, stamped packets: what the sender puts on the wire and what an answer gives back.
//!
//! A probe is an Ethernet frame with an IPv4 UDP datagram to port 9 whose payload is magic, number
//! and the sender's clock (CLOCK_REALTIME, ns) just before the system call.

use anyhow::{Context as _, Result};
use nix::sys::socket::{AddressFamily, LinkAddr, MsgFlags, SockFlag, SockProtocol, SockType, sendto, socket};
use nix::sys::time::TimeValLike as _;
use nix::time::{ClockId, clock_gettime};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

const MAGIC: [u8; 8] = *b"tapeprob";
const HEADERS: usize = 14 + 20 + 8;

/// The UDP port probes are sent to (discard, RFC 863).
pub const PORT: u16 = 9;

/// A probe as read back from a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Number, counted from 0 by the sender.
    pub number: u64,
    /// The sender's clock, ns since the epoch.
    pub sent_ns: u64,
}

impl Probe {
    /// The frame of this probe, padded to `length` bytes (at least 66).
    #[must_use]
    pub fn encode(self, length: usize) -> Vec<u8> {
        let length = length.max(HEADERS + 24);
        let ip_length = u16::try_from(length - 14).unwrap_or(u16::MAX);
        let mut frame = Vec::with_capacity(length);
        frame.extend_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0]);
        frame.extend_from_slice(&[0x45, 0]);
        frame.extend_from_slice(&ip_length.to_be_bytes());
        frame.extend_from_slice(&[0, 0, 0, 0, 64, 17, 0, 0, 192, 0, 2, 1, 192, 0, 2, 2]);
        frame.extend_from_slice(&40_000_u16.to_be_bytes());
        frame.extend_from_slice(&PORT.to_be_bytes());
        frame.extend_from_slice(&ip_length.saturating_sub(20).to_be_bytes());
        frame.extend_from_slice(&[0, 0]);
        frame.extend_from_slice(&MAGIC);
        frame.extend_from_slice(&self.number.to_be_bytes());
        frame.extend_from_slice(&self.sent_ns.to_be_bytes());
        frame.resize(length, 0);
        frame
    }

    /// Reads a probe from a frame; `None` when it is something else.
    #[must_use]
    pub fn decode(frame: &[u8]) -> Option<Self> {
        let payload = frame.get(HEADERS..)?.strip_prefix(&MAGIC)?;
        let word = |at: usize| Some(u64::from_be_bytes(payload.get(at..at + 8)?.try_into().ok()?));
        Some(Self { number: word(0)?, sent_ns: word(8)? })
    }
}

/// The wall clock, ns since the epoch.
///
/// # Errors
/// The clock cannot be read or stands before 1970.
pub fn now_ns() -> Result<u64> {
    let now = clock_gettime(ClockId::CLOCK_REALTIME).context("reading CLOCK_REALTIME")?;
    u64::try_from(now.num_nanoseconds()).context("the clock stands before 1970")
}

/// A packet socket that sends on one interface of a namespace.
#[derive(Debug)]
pub struct Sender {
    socket: OwnedFd,
    target: LinkAddr,
}

impl Sender {
    /// Opens the sender. Moves the *calling thread* into the namespace: call it on a thread of its own.
    ///
    /// # Errors
    /// Not root, or the namespace or interface is not there.
    pub fn open(namespace: &Path, interface: &str) -> Result<Self> {
        crate::link::enter(namespace)?;
        let (socket, target) = packet_socket(interface)?;
        Ok(Self { socket, target })
    }

    /// Sends `count` probes, `rate` per second, numbered from `first`; tells `sent` of each one.
    ///
    /// # Errors
    /// The send fails for another reason than a full queue, which is tried again.
    pub fn send(
        &self,
        first: u64,
        count: u64,
        rate: u32,
        length: usize,
        mut sent: impl FnMut(Probe),
    ) -> Result<()> {
        let start = Instant::now();
        let gap = Duration::from_secs(1) / rate.max(1);
        for i in 0..count {
            let due = start + gap.saturating_mul(u32::try_from(i).context("too many probes")?);
            if let Some(wait) = due.checked_duration_since(Instant::now()) {
                std::thread::sleep(wait);
            }
            sent(self.send_one(first + i, length)?);
        }
        Ok(())
    }

    /// Sends probes numbered from 0 one after the other for this long; returns how many.
    ///
    /// # Errors
    /// As [`Sender::send`].
    pub fn flood(&self, span: Duration, length: usize) -> Result<u64> {
        let start = Instant::now();
        let mut sent = 0;
        while start.elapsed() < span {
            self.send_one(sent, length)?;
            sent += 1;
        }
        Ok(sent)
    }

    fn send_one(&self, number: u64, length: usize) -> Result<Probe> {
        loop {
            let probe = Probe { number, sent_ns: now_ns()? };
            match sendto(self.socket.as_raw_fd(), &probe.encode(length), &self.target, MsgFlags::empty()) {
                Ok(_) => return Ok(probe),
                Err(nix::Error::ENOBUFS | nix::Error::EAGAIN | nix::Error::EINTR) => {}
                Err(e) => return Err(e).context("sending a probe"),
            }
        }
    }
}

/// A packet socket that receives nothing, and the address of an interface of the calling thread's namespace.
pub(crate) fn packet_socket(interface: &str) -> Result<(OwnedFd, LinkAddr)> {
    let socket = socket(AddressFamily::Packet, SockType::Raw, SockFlag::SOCK_CLOEXEC, None::<SockProtocol>)
        .context("opening a packet socket")?;
    let target = nix::ifaddrs::getifaddrs()
        .context("listing interfaces")?
        .filter(|i| i.interface_name == interface)
        .find_map(|i| i.address?.as_link_addr().copied())
        .with_context(|| format!("no interface {interface}"))?;
    Ok((socket, target))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_probe_reads_back() {
        let probe = Probe { number: 7, sent_ns: 1_700_000_000_123_456_789 };
        assert_eq!(Probe::decode(&probe.encode(66)), Some(probe));
        assert_eq!(Probe::decode(&probe.encode(1500)), Some(probe));
        assert_eq!(Probe::decode(&[0; 66]), None);
        assert_eq!(Probe::decode(&probe.encode(66)[..60]), None);
    }
}
