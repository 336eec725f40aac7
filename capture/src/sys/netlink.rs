//! What rtnetlink says of an interface (linux/rtnetlink.h, linux/if_link.h).
//!
//! Asked in the caller's network namespace, unlike /sys, which shows that of its mount. No `unsafe`:
//! messages are taken apart as bytes.

use nix::sys::socket::{AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket};
use std::io;
use std::os::fd::AsRawFd as _;

const RTM_NEWLINK: u16 = 16;
const RTM_GETLINK: u16 = 18;
const NLM_F_REQUEST: u16 = 1;
const NLMSG_ERROR: u16 = 2;
const HEADER: usize = 16;
const IFINFOMSG: usize = 16;

const IFLA_ADDRESS: u16 = 1;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_STATS64: u16 = 23;
const IFLA_NUM_RX_QUEUES: u16 = 32;
const IFLA_CARRIER: u16 = 33;
const IFLA_LINK_NETNSID: u16 = 37;
const IFLA_XDP: u16 = 43;
const IFLA_XDP_ATTACHED: u16 = 2;

/// Position of rx_length_errors in `struct rtnl_link_stats64`.
const RX_LENGTH_ERRORS: usize = 10;
/// Position of rx_missed_errors in `struct rtnl_link_stats64`.
const RX_MISSED_ERRORS: usize = 15;

/// An interface as rtnetlink describes it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct LinkState {
    /// ARPHRD_ type: 1 is Ethernet.
    pub(crate) hardware: u16,
    /// Administratively up.
    pub(crate) up: bool,
    /// Hardware address.
    pub(crate) address: Vec<u8>,
    /// Largest payload of a packet, bytes.
    pub(crate) mtu: u32,
    /// RX queues the device was made with; it may use fewer.
    pub(crate) rx_queues: u32,
    /// Kind of a virtual device, such as `veth`.
    pub(crate) kind: Option<String>,
    /// Index of the interface it belongs to; of a veth, its other end.
    pub(crate) joined: Option<u32>,
    /// That one is in another network namespace.
    pub(crate) joined_elsewhere: bool,
    /// An XDP program sits on it.
    pub(crate) xdp_attached: bool,
    /// Packets the host missed for want of buffers, before any program or socket (rx_missed_errors).
    pub(crate) rx_missed: u64,
    /// Frames the card refused for their length (rx_length_errors).
    pub(crate) rx_length_errors: u64,
    /// Something answers at the other end of the wire.
    pub(crate) carrier: bool,
}

/// Asks for one interface.
///
/// # Errors
/// ENODEV when there is none of this index, and whatever the socket says.
pub(crate) fn link(ifindex: u32) -> io::Result<LinkState> {
    let fd =
        socket(AddressFamily::Netlink, SockType::Raw, SockFlag::SOCK_CLOEXEC, SockProtocol::NetlinkRoute)?;
    let mut request = Vec::with_capacity(HEADER + IFINFOMSG);
    request.extend_from_slice(&32u32.to_ne_bytes());
    request.extend_from_slice(&RTM_GETLINK.to_ne_bytes());
    request.extend_from_slice(&NLM_F_REQUEST.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    // struct ifinfomsg: family, pad, type, index, flags, change.
    request.extend_from_slice(&[0; 4]);
    request.extend_from_slice(&ifindex.to_ne_bytes());
    request.extend_from_slice(&[0; 8]);
    send(fd.as_raw_fd(), &request, MsgFlags::empty())?;
    let mut answer = vec![0; 64 * 1024];
    let len = recv(fd.as_raw_fd(), &mut answer, MsgFlags::empty())?;
    answer.truncate(len);
    parse(&answer)
}

fn parse(answer: &[u8]) -> io::Result<LinkState> {
    let misfit = || io::Error::new(io::ErrorKind::InvalidData, "rtnetlink answered with something else");
    let len = number::<4>(answer, 0).map(u32::from_ne_bytes).ok_or_else(misfit)?;
    let kind = number::<2>(answer, 4).map(u16::from_ne_bytes).ok_or_else(misfit)?;
    let message = answer.get(HEADER..len as usize).ok_or_else(misfit)?;
    if kind == NLMSG_ERROR {
        let errno = number::<4>(message, 0).map(i32::from_ne_bytes).ok_or_else(misfit)?;
        return Err(io::Error::from_raw_os_error(errno.wrapping_neg()));
    }
    if kind != RTM_NEWLINK {
        return Err(misfit());
    }
    let flags = number::<4>(message, 8).map(u32::from_ne_bytes).ok_or_else(misfit)?;
    let hardware = number::<2>(message, 2).map(u16::from_ne_bytes).ok_or_else(misfit)?;
    let mut state = LinkState { hardware, up: flags & 1 != 0, ..LinkState::default() };
    for (name, value) in Attributes(message.get(IFINFOMSG..).ok_or_else(misfit)?) {
        let word = || number::<4>(value, 0).map(u32::from_ne_bytes);
        match name {
            IFLA_ADDRESS => state.address = value.to_vec(),
            IFLA_MTU => state.mtu = word().ok_or_else(misfit)?,
            IFLA_NUM_RX_QUEUES => state.rx_queues = word().ok_or_else(misfit)?,
            IFLA_STATS64 => {
                let count = |place: usize| number::<8>(value, 8 * place).map_or(0, u64::from_ne_bytes);
                state.rx_missed = count(RX_MISSED_ERRORS);
                state.rx_length_errors = count(RX_LENGTH_ERRORS);
            }
            IFLA_LINK => state.joined = word(),
            IFLA_LINK_NETNSID => state.joined_elsewhere = true,
            IFLA_CARRIER => state.carrier = value.first().is_some_and(|up| *up != 0),
            IFLA_LINKINFO => {
                state.kind = Attributes(value)
                    .find(|(name, _)| *name == IFLA_INFO_KIND)
                    .map(|(_, kind)| String::from_utf8_lossy(kind).trim_end_matches('\0').to_owned());
            }
            IFLA_XDP => {
                state.xdp_attached = Attributes(value).any(|(name, value)| {
                    name == IFLA_XDP_ATTACHED && value.first().is_some_and(|mode| *mode != 0)
                });
            }
            _ => {}
        }
    }
    Ok(state)
}

/// The messages of a datagram, (type, payload); stops at the first that does not fit.
pub(super) fn messages(datagram: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        let len = usize::try_from(number::<4>(rest, 0).map(u32::from_ne_bytes)?).ok()?;
        let kind = number::<2>(rest, 4).map(u16::from_ne_bytes)?;
        let message = rest.get(HEADER..len)?;
        rest = rest.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((kind, message))
    })
}

/// Attributes (`struct rtattr`) one after the other; stops at the first that does not fit.
pub(super) struct Attributes<'a>(pub(super) &'a [u8]);

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from(number::<2>(self.0, 0).map(u16::from_ne_bytes)?);
        // The two top bits are NLA_F_NESTED and NLA_F_NET_BYTEORDER.
        let name = number::<2>(self.0, 2).map(u16::from_ne_bytes)? & 0x3fff;
        let value = self.0.get(4..len)?;
        self.0 = self.0.get(len.next_multiple_of(4)..).unwrap_or_default();
        Some((name, value))
    }
}

pub(super) fn number<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_is_described() {
        let index = nix::net::if_::if_nametoindex("lo").unwrap();
        let state = link(index).unwrap();
        assert!(state.mtu >= 1500 && state.rx_queues >= 1 && !state.xdp_attached, "{state:?}");
    }

    #[test]
    fn a_missing_interface_is_enodev() {
        assert_eq!(link(i32::MAX as u32).unwrap_err().raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn torn_answers_are_refused() {
        let good = {
            let mut bytes = vec![0; 40];
            bytes[0..4].copy_from_slice(&40u32.to_ne_bytes());
            bytes[4..6].copy_from_slice(&RTM_NEWLINK.to_ne_bytes());
            bytes[32..34].copy_from_slice(&8u16.to_ne_bytes());
            bytes[34..36].copy_from_slice(&IFLA_MTU.to_ne_bytes());
            bytes[36..40].copy_from_slice(&1500u32.to_ne_bytes());
            bytes
        };
        assert_eq!(parse(&good).unwrap().mtu, 1500);
        for cut in 0..32 {
            assert!(parse(&good[..cut]).is_err());
        }
    }
}
