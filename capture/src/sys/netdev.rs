//! What a driver can do with XDP, by the generic netlink family `netdev` (linux/netdev.h, Linux 6.3).
//!
//! Asking changes nothing on the interface, unlike a bind. No `unsafe`: messages are taken apart as bytes.

use super::netlink::{Attributes, messages, number};
use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
/// `struct nlmsghdr`, then `struct genlmsghdr`.
const HEADERS: usize = 16 + GENERIC;
const GENERIC: usize = 4;

const GENL_ID_CTRL: u16 = 16;
const CTRL_CMD_GETFAMILY: u8 = 3;
const CTRL_ATTR_FAMILY_ID: u16 = 1;
const CTRL_ATTR_FAMILY_NAME: u16 = 2;

const NETDEV_CMD_DEV_GET: u8 = 1;
const NETDEV_A_DEV_IFINDEX: u16 = 1;
const NETDEV_A_DEV_XDP_FEATURES: u16 = 3;
const NETDEV_A_DEV_XDP_ZC_MAX_SEGS: u16 = 4;
const NETDEV_A_DEV_XDP_RX_METADATA_FEATURES: u16 = 5;

const NETDEV_XDP_ACT_BASIC: u64 = 1;
const NETDEV_XDP_ACT_REDIRECT: u64 = 1 << 1;
const NETDEV_XDP_ACT_XSK_ZEROCOPY: u64 = 1 << 3;
const NETDEV_XDP_ACT_RX_SG: u64 = 1 << 5;

const NETDEV_XDP_RX_METADATA_TIMESTAMP: u64 = 1;

/// What a driver announces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct XdpFeatures {
    bits: u64,
    zero_copy_pieces: u32,
    /// What it hands to programs that ask.
    answers: Option<u64>,
}

impl XdpFeatures {
    /// It runs XDP programs itself, and they may steer packets away.
    pub(crate) fn native(self) -> bool {
        self.bits & NETDEV_XDP_ACT_BASIC != 0 && self.bits & NETDEV_XDP_ACT_REDIRECT != 0
    }

    /// It writes packets into the memory of an AF_XDP socket.
    pub(crate) fn zero_copy(self) -> bool {
        self.native() && self.bits & NETDEV_XDP_ACT_XSK_ZEROCOPY != 0
    }

    /// It takes packets in several pieces.
    pub(crate) fn pieces(self) -> bool {
        self.bits & NETDEV_XDP_ACT_RX_SG != 0
    }

    /// It does so without a copy, too.
    pub(crate) fn zero_copy_pieces(self) -> bool {
        self.zero_copy() && self.zero_copy_pieces > 1
    }

    /// It tells programs when the card saw a packet; `None` on kernels that do not say.
    pub(crate) fn stamps(self) -> Option<bool> {
        self.answers.map(|answers| answers & NETDEV_XDP_RX_METADATA_TIMESTAMP != 0)
    }

    /// For tests: what `bits` announce.
    #[cfg(test)]
    pub(crate) fn of(bits: u64, zero_copy_pieces: u32) -> Self {
        Self { bits, zero_copy_pieces, answers: None }
    }
}

/// Asks what the driver of an interface can do.
///
/// # Errors
/// ENOENT on kernels without the family, ENODEV, and whatever the socket says.
pub(crate) fn features(ifindex: u32) -> io::Result<XdpFeatures> {
    let (datagram, kind) = (SockType::Raw, SockProtocol::NetlinkGeneric);
    let fd = socket(AddressFamily::Netlink, datagram, SockFlag::SOCK_CLOEXEC, kind)?;
    let name = attribute(CTRL_ATTR_FAMILY_NAME, b"netdev\0");
    let answer = ask(&fd, GENL_ID_CTRL, CTRL_CMD_GETFAMILY, &name)?;
    let family = Attributes(&answer).find(|(name, _)| *name == CTRL_ATTR_FAMILY_ID);
    let family = family.and_then(|(_, value)| number::<2>(value, 0)).map(u16::from_ne_bytes);
    let family = family.ok_or_else(|| io::Error::from_raw_os_error(libc::ENOENT))?;
    let index = attribute(NETDEV_A_DEV_IFINDEX, &ifindex.to_ne_bytes());
    ask(&fd, family, NETDEV_CMD_DEV_GET, &index).map(|answer| parse(&answer))
}

fn parse(answer: &[u8]) -> XdpFeatures {
    let mut features = XdpFeatures::default();
    for (name, value) in Attributes(answer) {
        match name {
            NETDEV_A_DEV_XDP_FEATURES => {
                features.bits = number::<8>(value, 0).map_or(0, u64::from_ne_bytes);
            }
            NETDEV_A_DEV_XDP_ZC_MAX_SEGS => {
                features.zero_copy_pieces = number::<4>(value, 0).map_or(0, u32::from_ne_bytes);
            }
            NETDEV_A_DEV_XDP_RX_METADATA_FEATURES => {
                features.answers = number::<8>(value, 0).map(u64::from_ne_bytes);
            }
            _ => {}
        }
    }
    features
}

/// One question, one answer: its attributes.
fn ask(fd: &OwnedFd, family: u16, command: u8, attributes: &[u8]) -> io::Result<Vec<u8>> {
    let misfit = || io::Error::new(io::ErrorKind::InvalidData, "netlink answered with something else");
    let len = u32::try_from(HEADERS + attributes.len()).map_err(|_| misfit())?;
    let mut request = Vec::with_capacity(HEADERS + attributes.len());
    request.extend_from_slice(&len.to_ne_bytes());
    request.extend_from_slice(&family.to_ne_bytes());
    request.extend_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    request.extend_from_slice(&[command, 1, 0, 0]);
    request.extend_from_slice(attributes);
    send(fd.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut answer = vec![0; 32 * 1024];
    let len = recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(len);
    let (kind, message) = messages(&answer).next().ok_or_else(misfit)?;
    if kind == NLMSG_ERROR {
        let errno = number::<4>(message, 0).map(i32::from_ne_bytes).ok_or_else(misfit)?;
        return Err(io::Error::from_raw_os_error(errno.wrapping_neg()));
    }
    message.get(GENERIC..).map(<[u8]>::to_vec).ok_or_else(misfit)
}

/// A `struct nlattr` with its padding.
fn attribute(name: u16, value: &[u8]) -> Vec<u8> {
    let len = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = Vec::with_capacity(usize::from(len).next_multiple_of(4));
    bytes.extend_from_slice(&len.to_ne_bytes());
    bytes.extend_from_slice(&name.to_ne_bytes());
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_no_xdp_of_its_own() {
        let index = nix::net::if_::if_nametoindex("lo").unwrap();
        let found = features(index).unwrap();
        assert_eq!(XdpFeatures { answers: None, ..found }, XdpFeatures::default());
        // Linux 6.8 says it.
        assert_ne!(found.stamps(), Some(true));
        assert_eq!(features(i32::MAX as u32).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn answers_are_taken_apart() {
        let mut answer = attribute(NETDEV_A_DEV_IFINDEX, &7u32.to_ne_bytes());
        answer.extend(attribute(NETDEV_A_DEV_XDP_FEATURES, &0b10_1011_u64.to_ne_bytes()));
        answer.extend(attribute(NETDEV_A_DEV_XDP_ZC_MAX_SEGS, &5u32.to_ne_bytes()));
        assert_eq!(parse(&answer).stamps(), None);
        answer.extend(attribute(NETDEV_A_DEV_XDP_RX_METADATA_FEATURES, &0b11_u64.to_ne_bytes()));
        assert_eq!(parse(&answer).stamps(), Some(true));
        let features = parse(&answer);
        assert_eq!(XdpFeatures { answers: None, ..features }, XdpFeatures::of(0b10_1011, 5));
        assert!(
            features.native() && features.zero_copy() && features.pieces() && features.zero_copy_pieces()
        );
        let plain = XdpFeatures::of(0b11, 1);
        assert!(plain.native() && !plain.zero_copy() && !plain.pieces() && !plain.zero_copy_pieces());
        assert!(!XdpFeatures::of(1, 0).native(), "a program that cannot steer");
        assert_eq!(parse(&answer[..9]), XdpFeatures::default());
    }
}
