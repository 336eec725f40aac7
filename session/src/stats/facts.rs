//! What statistics need to know of a packet and of a session.

use crate::input::{has_ports, proto};
use std::net::IpAddr;
use tapedeck_packet::{Fragment, Layer, Net, Timestamp, Walk};

/// TCP's RST flag.
const RST: u8 = 0x04;

/// What is true of few packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks(u8);

impl Marks {
    /// It is for all stations: by the link-layer address, where there is none by the network address.
    pub const BROADCAST: Self = Self(1);
    /// It is for a group of stations, by the same.
    pub const MULTICAST: Self = Self(2);
    /// A layer of it is a fragment of an IP packet.
    pub const FRAGMENT: Self = Self(4);
    /// Its innermost layer is TCP with the RST flag.
    pub const RESET: Self = Self(8);
    /// It has no IP header that could be read.
    pub const NON_IP: Self = Self(16);

    /// The marks of a packet with these layers.
    #[inline]
    #[must_use]
    pub fn of(layers: &[Layer]) -> Self {
        let mut marks = layers.first().map(reach).unwrap_or_default();
        let mut reset = Self::NON_IP;
        for layer in layers {
            if let Net::Ip(ip) = &layer.net {
                reset =
                    if ip.tcp_flags.is_some_and(|flags| flags & RST != 0) { Self::RESET } else { Self(0) };
                if ip.fragment != Fragment::Whole {
                    marks = marks.and(Self::FRAGMENT);
                }
            }
        }
        marks.and(reset)
    }

    /// These and those.
    #[must_use]
    pub const fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Has it this one?
    #[inline]
    #[must_use]
    pub const fn has(self, mark: Self) -> bool {
        self.0 & mark.0 != 0
    }

    /// It has none.
    #[inline]
    #[must_use]
    pub const fn is_empty(self) -> bool {
        self.0 == 0
    }
}

/// The facts of one packet; everything else is its session's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Packet {
    /// Its time.
    pub ts: Timestamp,
    /// Its bytes on the wire, link layer included, without the frame check sequence.
    pub wire_bytes: u32,
    /// What is special about it.
    pub marks: Marks,
    /// Of a packet that is not IP: its EtherType; `None` for LLC and links without one.
    pub ethertype: Option<u16>,
}

impl Packet {
    /// The facts of a packet that was walked.
    #[must_use]
    pub fn new(walk: &Walk, ts: Timestamp, wire_bytes: u32) -> Self {
        let layers = walk.layers();
        let ethertype = layers.first().and_then(|outer| outer.ethertype);
        Self { ts, wire_bytes, marks: Marks::of(layers), ethertype }
    }
}

#[inline]
fn reach(layer: &Layer) -> Marks {
    match (&layer.macs, &layer.net) {
        (Some(macs), _) if macs.dst[0] & 1 == 0 => Marks::default(),
        (Some(macs), _) if macs.dst == [0xff; 6] => Marks::BROADCAST,
        (Some(_), _) => Marks::MULTICAST,
        (None, Net::Ip(ip)) => match ip.dst {
            IpAddr::V4(v4) if v4.is_broadcast() => Marks::BROADCAST,
            dst if dst.is_multicast() => Marks::MULTICAST,
            _ => Marks::default(),
        },
        (None, _) => Marks::default(),
    }
}

/// Which side of a session sent a packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sender {
    /// The originator.
    Orig,
    /// The responder.
    Resp,
}

/// What statistics need to know of a session. For a packet with tunnels: of its innermost session, so that
/// each packet counts once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Flow {
    /// Originator.
    pub orig: IpAddr,
    /// Responder.
    pub resp: IpAddr,
    /// IP protocol.
    pub proto: u8,
    /// The responder's port; `None` where the protocol has none, or it is not known (later fragments).
    pub server_port: Option<u16>,
    /// Zeek's name of the service, as far as known.
    pub service: Option<&'static str>,
}

/// The responder's `port`, of an IP protocol that has ports.
pub(crate) fn server_port(number: u8, port: u16) -> Option<u16> {
    (has_ports(number) && !matches!(number, proto::ICMP | proto::ICMPV6)).then_some(port)
}

/// What a session sent since it was last added to a minute: 16 bytes. Lives in the session's slot, which the
/// session table has in the cache anyway; starts as the default, goes with the session.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Time of its last packet in ten-second steps since the epoch; the minute of the counts below.
    pub(super) step: u32,
    /// Packets of originator and responder.
    pub(super) packets: [u16; 2],
    /// Bytes of originator and responder.
    pub(super) bytes: [u32; 2],
}

impl Tally {
    /// Steps in a minute.
    pub(super) const STEPS_PER_MINUTE: u32 = 6;

    /// Minutes since the epoch of the last packet; 0 = none yet.
    pub(super) const fn minute(&self) -> u32 {
        self.step / Self::STEPS_PER_MINUTE
    }

    /// No packet has been counted for the session.
    #[must_use]
    pub const fn is_new(&self) -> bool {
        self.step == 0
    }

    /// The originator turned out to be the other one.
    pub(crate) fn flip(&mut self) {
        self.packets.reverse();
        self.bytes.reverse();
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.packets[0] == 0 && self.packets[1] == 0
    }

    /// What stands in it, leaving it empty.
    pub(super) fn take(&mut self) -> Delta {
        let delta = Delta { packets: self.packets.map(u64::from), bytes: self.bytes.map(u64::from) };
        (self.packets, self.bytes) = ([0; 2], [0; 2]);
        delta
    }

    /// Has it room for a packet of so many bytes?
    #[inline]
    pub(super) fn has_room(&self, bytes: u32) -> bool {
        let ([a, b], [packets_a, packets_b]) = (self.bytes, self.packets);
        (a | b | bytes) >> 31 == 0 && (packets_a | packets_b) >> 15 == 0
    }

    /// Adds a packet for which it [has room](Self::has_room).
    #[inline]
    pub(super) fn add(&mut self, packet: &Packet, sender: Sender) {
        let ([orig, resp], [orig_bytes, resp_bytes]) = (&mut self.packets, &mut self.bytes);
        let (packets, bytes) = match sender {
            Sender::Orig => (orig, orig_bytes),
            Sender::Resp => (resp, resp_bytes),
        };
        *packets += 1;
        *bytes += packet.wire_bytes;
    }
}

/// Packets and bytes of originator and responder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Delta {
    pub(super) packets: [u64; 2],
    pub(super) bytes: [u64; 2],
}

impl Delta {
    /// One packet.
    pub(super) fn one(packet: &Packet, sender: Sender) -> Self {
        let bytes = u64::from(packet.wire_bytes);
        match sender {
            Sender::Orig => Self { packets: [1, 0], bytes: [bytes, 0] },
            Sender::Resp => Self { packets: [0, 1], bytes: [0, bytes] },
        }
    }
}
