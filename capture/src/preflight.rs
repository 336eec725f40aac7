//! What must hold before an interface is recorded.
//!
//! It only looks; what is changed for a recording is [`Claim`](crate::claim::Claim)'s. It must never let
//! an interface through that carries the default route, unless told to.

use crate::sys::ethtool::{Channels, Ethtool};
use crate::sys::netlink::{self, LinkState};
use nix::net::if_::if_nametoindex;
use std::fs;
use std::io;

/// ARPHRD_ETHER and ARPHRD_LOOPBACK: links with Ethernet headers.
const ETHERNET: [u16; 2] = [1, 772];

/// Why an interface is not recorded.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    /// No such interface here.
    #[error("there is no interface {0} in this network namespace")]
    Missing(String),
    /// It is down.
    #[error("interface {0} is down")]
    Down(String),
    /// Its packets do not begin with an Ethernet header.
    #[error("interface {0} is not Ethernet")]
    NotEthernet(String),
    /// It carries the default route.
    #[error("interface {0} carries the default route; recording would cut this host off")]
    DefaultRoute(String),
    /// An offload that would falsify packets cannot be switched off.
    #[error("{word} of interface {interface} is on and cannot be switched off: {loss}")]
    Offload {
        /// Interface.
        interface: String,
        /// Its name for `ethtool -K`.
        word: &'static str,
        /// What it does to a recording.
        loss: &'static str,
        /// The driver's answer.
        #[source]
        source: io::Error,
    },
    /// Receive hashing cannot be set.
    #[error("--rss: cannot {act} of interface {interface}")]
    Rss {
        /// Interface.
        interface: String,
        /// What was tried.
        act: &'static str,
        /// The driver's answer.
        #[source]
        source: io::Error,
    },
    /// The card does not stamp packets.
    #[error("--stamps card: the card of interface {interface} is of no use: {why}")]
    Stamps {
        /// Interface.
        interface: String,
        /// Why, for people.
        why: String,
    },
    /// The interface cannot be asked or set.
    #[error("cannot {act} interface {interface}")]
    Io {
        /// Interface.
        interface: String,
        /// What was tried.
        act: &'static str,
        /// The kernel's answer.
        #[source]
        source: io::Error,
    },
}

impl PreflightError {
    /// What the operator can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Missing(_) => Some("see `ip link` for the names".into()),
            Self::Down(interface) => Some(format!("ip link set dev {interface} up")),
            Self::DefaultRoute(_) => {
                Some("record a port that only listens; --force if this host may lose its network".into())
            }
            Self::Offload { interface, word, .. } => {
                Some(format!("ethtool -K {interface} {word} off; or --mode packet, which puts tags back"))
            }
            Self::Rss { .. } => Some("record without --rss, and spread flows in the driver's own way".into()),
            Self::Stamps { .. } => {
                Some("record without --stamps card: packets are stamped by the system's clock".into())
            }
            Self::Io { source, .. } if source.kind() == io::ErrorKind::PermissionDenied => {
                Some("run as root, or with CAP_NET_RAW, CAP_NET_ADMIN, CAP_BPF and CAP_PERFMON".into())
            }
            Self::NotEthernet(_) | Self::Io { .. } => None,
        }
    }
}

/// An interface that may be recorded.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) name: String,
    pub(crate) ifindex: u32,
    pub(crate) state: LinkState,
    ethtool: Ethtool,
}

impl Target {
    /// Finds the interface and refuses what cannot or must not be recorded.
    ///
    /// # Errors
    /// [`PreflightError`].
    pub(crate) fn find(name: &str, force: bool) -> Result<Self, PreflightError> {
        let target = Self::look(name)?;
        if !target.state.up {
            return Err(PreflightError::Down(name.to_owned()));
        }
        if !force && default_routes(name).any() {
            return Err(PreflightError::DefaultRoute(name.to_owned()));
        }
        Ok(target)
    }

    /// Finds the interface, whatever state it is in.
    ///
    /// # Errors
    /// [`PreflightError`]: there is none of this name, or it is of a kind that is never recorded.
    pub(crate) fn look(name: &str) -> Result<Self, PreflightError> {
        let io = |act| {
            let interface = name.to_owned();
            move |source| PreflightError::Io { interface, act, source }
        };
        let ifindex = if_nametoindex(name).map_err(|_| PreflightError::Missing(name.to_owned()))?;
        let state = netlink::link(ifindex).map_err(io("ask for"))?;
        if !ETHERNET.contains(&state.hardware) {
            return Err(PreflightError::NotEthernet(name.to_owned()));
        }
        let ethtool = Ethtool::open(name).map_err(io("open an ethtool socket for"))?;
        Ok(Self { name: name.to_owned(), ifindex, state, ethtool })
    }

    /// The interface's ethtool conversation.
    pub(crate) fn ethtool(&self) -> &Ethtool {
        &self.ethtool
    }

    /// Queues packets arrive on now.
    pub(crate) fn queues(&self) -> u32 {
        // Drivers without channels have the queues they were made with.
        self.ethtool().channels().map_or(self.state.rx_queues, Channels::rx).max(1)
    }
}

/// Default routes of the caller's namespace that leave through an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DefaultRoutes {
    /// Of IPv4.
    pub v4: bool,
    /// Of IPv6.
    pub v6: bool,
}

impl DefaultRoutes {
    /// Of either.
    #[must_use]
    pub fn any(self) -> bool {
        self.v4 || self.v6
    }
}

/// The default routes through `interface`.
#[must_use]
pub fn default_routes(interface: &str) -> DefaultRoutes {
    let read = |name: &str| fs::read_to_string(format!("/proc/thread-self/net/{name}")).unwrap_or_default();
    DefaultRoutes {
        v4: default_in_v4(&read("route"), interface),
        v6: default_in_v6(&read("ipv6_route"), interface),
    }
}

/// /proc/net/route: interface, destination, gateway, flags, use counts, metric, mask.
fn default_in_v4(table: &str, interface: &str) -> bool {
    table.lines().skip(1).any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        fields.first() == Some(&interface)
            && fields.get(1) == Some(&"00000000")
            && fields.get(7) == Some(&"00000000")
    })
}

/// /proc/net/ipv6_route: destination, its length, source, its length, gateway, metric, counts, flags,
/// interface. RTF_REJECT marks the unreachable default every host has.
fn default_in_v6(table: &str, interface: &str) -> bool {
    const RTF_REJECT: u32 = 0x200;
    table.lines().any(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let flags = fields.get(8).and_then(|hex| u32::from_str_radix(hex, 16).ok()).unwrap_or(0);
        fields.get(9) == Some(&interface)
            && fields.get(1) == Some(&"00")
            && fields.first().is_some_and(|destination| destination.bytes().all(|byte| byte == b'0'))
            && flags & RTF_REJECT == 0
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn default_routes_are_found() {
        let v4 = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n\
                  eth0\t00000000\t0100A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n\
                  eth1\t0000A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n";
        assert!(default_in_v4(v4, "eth0"));
        assert!(!default_in_v4(v4, "eth1") && !default_in_v4(v4, "eth"));
        let zero = "00000000000000000000000000000000";
        let v6 = format!(
            "{zero} 00 {zero} 00 fe800000000000000000000000000001 00000400 1 0 00000003     eth0\n\
             {zero} 00 {zero} 00 {zero} ffffffff 1 0 00200200       lo\n\
             fe800000000000000000000000000000 40 {zero} 00 {zero} 00000100 1 0 00000001     eth1\n"
        );
        assert!(default_in_v6(&v6, "eth0"));
        assert!(!default_in_v6(&v6, "lo") && !default_in_v6(&v6, "eth1"));
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = Target::find("no-such-if", false).unwrap_err();
        assert_eq!(error.to_string(), "there is no interface no-such-if in this network namespace");
        assert!(error.hint().is_some());
    }
}
