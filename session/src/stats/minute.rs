//! A minute of an interface or of one of its queues, closed: what leaves the worker.

use super::facts::Flow;
use super::hosts::Hosts;
use super::top::Summary;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use tapedeck_packet::Timestamp;

/// Upper ends of the size classes, in bytes on the wire without the frame check sequence, and how the class is
/// called in the column `key`. As RFC 2819's etherStats classes (which count four bytes more), and on to jumbo.
pub const SIZES: [(u32, &str); 11] = [
    (63, "0-63"),
    (127, "64-127"),
    (255, "128-255"),
    (511, "256-511"),
    (1_023, "512-1023"),
    (1_518, "1024-1518"),
    (2_047, "1519-2047"),
    (4_095, "2048-4095"),
    (8_191, "4096-8191"),
    (16_383, "8192-16383"),
    (u32::MAX, "16384-"),
];

/// What is counted of everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets.
    pub packets: u64,
    /// Bytes on the wire.
    pub bytes: u64,
    /// Sessions whose first packet lies in the minute.
    pub new: u64,
    /// Sessions with a packet in the minute.
    pub active: u64,
}

impl Counts {
    /// Adds `other`.
    pub fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
        self.new += other.new;
        self.active += other.active;
    }

    /// Nothing was counted.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        *self == Self::default()
    }
}

/// A server's port and its protocol (TCP, UDP or SCTP).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Port {
    /// IP protocol: 6, 17 or 132.
    pub proto: u8,
    /// Port.
    pub number: u16,
}

impl Port {
    /// The server port of a session; `None` for protocols other than TCP, UDP and SCTP.
    #[must_use]
    pub fn of(flow: &Flow) -> Option<Self> {
        let number = flow.server_port?;
        matches!(flow.proto, 6 | 17 | 132).then_some(Self { proto: flow.proto, number })
    }
}

impl fmt::Display for Port {
    /// `443/tcp`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let proto = match self.proto {
            6 => "tcp",
            17 => "udp",
            _ => "sctp",
        };
        write!(f, "{}/{proto}", self.number)
    }
}

/// The sums of a minute.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Of all packets, and of all sessions.
    pub counts: Counts,
    /// TCP packets with the RST flag.
    pub tcp_resets: u64,
    /// TCP sessions that ended without a handshake (Zeek's S0, REJ, RSTOS0, RSTRH, SH, SHR), in the minute in
    /// which that was decided.
    pub failed_handshakes: u64,
    /// Packets for all stations.
    pub broadcast: u64,
    /// Packets for a group.
    pub multicast: u64,
    /// Packets that are fragments of IP packets.
    pub fragments: u64,
    /// Packets without an IP header that could be read.
    pub non_ip: u64,
    /// IP packets that belong to no session, because there was no room for one.
    pub sessionless: u64,
}

impl Totals {
    fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        self.tcp_resets += other.tcp_resets;
        self.failed_handshakes += other.failed_handshakes;
        self.broadcast += other.broadcast;
        self.multicast += other.multicast;
        self.fragments += other.fragments;
        self.non_ip += other.non_ip;
        self.sessionless += other.sessionless;
    }
}

/// A minute, closed. Only what occurred is listed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Minute {
    /// Its first nanosecond.
    pub start: Timestamp,
    /// Sums.
    pub totals: Totals,
    /// By IP protocol.
    pub protocols: BTreeMap<u8, Counts>,
    /// By service; a session is new in the minute in which its service was found.
    pub services: BTreeMap<&'static str, Counts>,
    /// By server port.
    pub ports: BTreeMap<Port, Counts>,
    /// Server ports beyond [`super::tables::PORTS`] of them.
    pub other_ports: Counts,
    /// Non-IP packets by EtherType; `None` = LLC and links without one.
    pub ethertypes: BTreeMap<Option<u16>, Counts>,
    /// EtherTypes beyond [`super::tables::ETHERTYPES`] of them.
    pub other_ethertypes: Counts,
    /// Packets and bytes by size class.
    pub sizes: [Counts; SIZES.len()],
    /// Hosts that sent IP packets.
    pub src_hosts: Hosts,
    /// Hosts that IP packets were sent to.
    pub dst_hosts: Hosts,
    /// Sources by bytes sent.
    pub sources: Summary<IpAddr>,
    /// Destinations by bytes received.
    pub destinations: Summary<IpAddr>,
    /// Pairs by bytes both ways, the smaller address first.
    pub pairs: Summary<(IpAddr, IpAddr)>,
    /// Originators by sessions opened.
    pub openers: Summary<IpAddr>,
    /// Originators by failed handshakes.
    pub failing: Summary<IpAddr>,
}

impl Minute {
    /// Adds what another queue counted in the same minute. Sums stay exact, sketches keep their bounds.
    pub fn merge(&mut self, other: &Self) {
        self.totals.add(&other.totals);
        add_all(&mut self.protocols, &other.protocols);
        add_all(&mut self.services, &other.services);
        add_all(&mut self.ports, &other.ports);
        self.other_ports.add(&other.other_ports);
        add_all(&mut self.ethertypes, &other.ethertypes);
        self.other_ethertypes.add(&other.other_ethertypes);
        self.sizes.iter_mut().zip(&other.sizes).for_each(|(mine, theirs)| mine.add(theirs));
        self.src_hosts.merge(&other.src_hosts);
        self.dst_hosts.merge(&other.dst_hosts);
        self.sources.merge(&other.sources);
        self.destinations.merge(&other.destinations);
        self.pairs.merge(&other.pairs);
        self.openers.merge(&other.openers);
        self.failing.merge(&other.failing);
    }
}

fn add_all<K: Copy + Ord>(to: &mut BTreeMap<K, Counts>, from: &BTreeMap<K, Counts>) {
    for (key, counts) in from {
        to.entry(*key).or_default().add(counts);
    }
}
