//! Tells when an interface leaves the network namespace (linux/rtnetlink.h, group RTNLGRP_LINK).
//!
//! Listening rather than asking: an interface that went away and came back under its number is noticed.
//! Must never: take an interface that is merely down for gone.

use super::netlink::{Attributes, messages, number};
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

const RTMGRP_LINK: u32 = 1;
const RTM_DELLINK: u16 = 17;
const IFINFOMSG: usize = 16;
/// Set when the interface goes to another namespace (since Linux 4.15).
const IFLA_NEW_NETNSID: u16 = 45;

/// How an interface left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Gone {
    /// It was deleted, with whatever was set on it.
    Deleted,
    /// It was moved to another network namespace.
    Moved,
    /// It is not there any more; what was said of it was missed.
    Unseen,
}

impl Gone {
    /// For messages.
    #[must_use]
    pub fn text(self) -> &'static str {
        match self {
            Self::Deleted => "was deleted",
            Self::Moved => "was moved to another network namespace",
            Self::Unseen => "has left this network namespace",
        }
    }
}

/// An open ear.
#[derive(Debug)]
pub(crate) struct LinkWatch {
    socket: OwnedFd,
}

/// What was heard.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heard {
    /// Interface number and how it left.
    pub(crate) gone: Vec<(u32, Gone)>,
    /// Something was missed: ask for each interface.
    pub(crate) missed: bool,
}

impl LinkWatch {
    /// Listens from now on, in the caller's network namespace.
    ///
    /// # Errors
    /// The kernel's answer.
    pub(crate) fn new() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkRoute)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, RTMGRP_LINK))?;
        Ok(Self { socket })
    }

    /// What has happened since the last call. Never blocks.
    pub(crate) fn hear(&self) -> Heard {
        let mut heard = Heard::default();
        let mut buffer = vec![0; 64 * 1024];
        loop {
            match recv(self.socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
                Ok(0) | Err(Errno::EAGAIN) => return heard,
                Ok(len) => heard.gone.extend(departures(buffer.get(..len).unwrap_or_default())),
                Err(Errno::EINTR) => {}
                // ENOBUFS: more happened than the socket could hold.
                Err(errno) => {
                    heard.missed = true;
                    if errno != Errno::ENOBUFS {
                        return heard;
                    }
                }
            }
        }
    }
}

/// The interfaces that leave, according to one datagram.
fn departures(datagram: &[u8]) -> Vec<(u32, Gone)> {
    let mut gone = Vec::new();
    for (kind, message) in messages(datagram) {
        // A bridge reports its ports with another family when they leave the bridge only.
        if kind != RTM_DELLINK || message.first() != Some(&0) {
            continue;
        }
        let Some(ifindex) = number::<4>(message, 4).map(u32::from_ne_bytes) else { continue };
        let attributes = message.get(IFINFOMSG..).unwrap_or_default();
        let moved = Attributes(attributes).any(|(name, _)| name == IFLA_NEW_NETNSID);
        gone.push((ifindex, if moved { Gone::Moved } else { Gone::Deleted }));
    }
    gone
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: u16, family: u8, ifindex: u32, attributes: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 16];
        bytes[4..6].copy_from_slice(&kind.to_ne_bytes());
        bytes.extend([family, 0, 0, 0]);
        bytes.extend(ifindex.to_ne_bytes());
        bytes.extend([0; 8]);
        bytes.extend(attributes);
        let len = u32::try_from(bytes.len()).unwrap();
        bytes[..4].copy_from_slice(&len.to_ne_bytes());
        bytes
    }

    #[test]
    fn only_departures_from_the_namespace_count() {
        let mut moved = vec![8, 0];
        moved.extend(IFLA_NEW_NETNSID.to_ne_bytes());
        moved.extend([3, 0, 0, 0]);
        let datagram = [
            message(16, 0, 5, &[]),
            message(RTM_DELLINK, 7, 6, &[]),
            message(RTM_DELLINK, 0, 7, &[]),
            message(RTM_DELLINK, 0, 8, &moved),
        ]
        .concat();
        assert_eq!(departures(&datagram), [(7, Gone::Deleted), (8, Gone::Moved)]);
        for cut in 0..datagram.len() {
            departures(&datagram[..cut]);
        }
    }

    #[test]
    fn nothing_is_heard_when_nothing_leaves() {
        let watch = LinkWatch::new().unwrap();
        assert!(!watch.hear().missed);
    }
}
