//! The tables of a minute that is being counted. Allocated once, cleared and used again.

use super::facts::{Delta, Flow, Marks, Packet};
use super::hosts::{self, Hosts};
use super::minute::{Counts, Minute, Port, SIZES, Totals};
use super::top::Top;
use std::collections::BTreeMap;
use std::net::IpAddr;
use tapedeck_packet::Timestamp;

/// Server ports counted one by one in a minute and queue; further ones together.
pub const PORTS: usize = 8_192;
/// EtherTypes counted one by one.
pub const ETHERTYPES: usize = 64;
/// Services counted one by one. There are fewer names than that.
const SERVICES: usize = 256;
/// Ports of the three protocols that have a place in the index.
const PORT_NUMBERS: usize = 3 << 16;

/// A minute being counted.
#[derive(Debug)]
pub(super) struct Tables {
    /// Minute since the epoch.
    pub(super) number: u32,
    /// Something was counted.
    pub(super) used: bool,
    pub(super) totals: Totals,
    sizes: [Counts; SIZES.len()],
    protocols: Box<[Counts; 256]>,
    services: Vec<(&'static str, Counts)>,
    ports: Ports,
    ethertypes: Vec<(Option<u16>, Counts)>,
    other_ethertypes: Counts,
    src_hosts: Hosts,
    dst_hosts: Hosts,
    sources: Top<IpAddr>,
    destinations: Top<IpAddr>,
    pairs: Top<(IpAddr, IpAddr)>,
    openers: Top<IpAddr>,
    failing: Top<IpAddr>,
}

impl Tables {
    pub(super) fn new(seed: u64) -> Self {
        Self {
            number: 0,
            used: false,
            totals: Totals::default(),
            sizes: [Counts::default(); SIZES.len()],
            protocols: Box::new([Counts::default(); 256]),
            services: Vec::with_capacity(SERVICES),
            ports: Ports::new(),
            ethertypes: Vec::with_capacity(ETHERTYPES),
            other_ethertypes: Counts::default(),
            src_hosts: Hosts::default(),
            dst_hosts: Hosts::default(),
            sources: Top::new(seed),
            destinations: Top::new(seed),
            pairs: Top::new(seed),
            openers: Top::new(seed),
            failing: Top::new(seed),
        }
    }

    /// Bytes it takes: the same from the beginning to the end.
    pub(super) const fn bytes() -> usize {
        let tops = super::top::KEYS
            * (4 * size_of::<Option<super::top::Entry<IpAddr>>>()
                + size_of::<Option<super::top::Entry<(IpAddr, IpAddr)>>>());
        let ports = PORT_NUMBERS * size_of::<u16>() + PORTS * size_of::<(Port, Counts)>();
        size_of::<Self>()
            + 256 * size_of::<Counts>()
            + SERVICES * 48
            + ETHERTYPES * 40
            + 2 * hosts::REGISTERS
            + tops
            + ports
    }

    /// Counts what every packet has. The hot path.
    #[inline]
    pub(super) fn packet(&mut self, packet: &Packet) {
        self.used = true;
        // The totals are the sum of these.
        if let Some(size) = self.sizes.get_mut(size_class(packet.wire_bytes)) {
            size.packets += 1;
            size.bytes += u64::from(packet.wire_bytes);
        }
        if !packet.marks.is_empty() {
            self.special(packet);
        }
    }

    #[cold]
    fn special(&mut self, packet: &Packet) {
        let (totals, has) = (&mut self.totals, |mark| u64::from(packet.marks.has(mark)));
        totals.tcp_resets += has(Marks::RESET);
        totals.fragments += has(Marks::FRAGMENT);
        totals.broadcast += has(Marks::BROADCAST);
        totals.multicast += has(Marks::MULTICAST);
        totals.non_ip += has(Marks::NON_IP);
        if packet.marks.has(Marks::NON_IP) {
            self.non_ip(packet.ethertype, packet.wire_bytes);
        }
    }

    fn non_ip(&mut self, ethertype: Option<u16>, wire_bytes: u32) {
        let counts = match self.ethertypes.iter_mut().position(|(known, _)| *known == ethertype) {
            Some(at) => self.ethertypes.get_mut(at).map(|(_, counts)| counts),
            None if self.ethertypes.len() < ETHERTYPES => {
                self.ethertypes.push((ethertype, Counts::default()));
                self.ethertypes.last_mut().map(|(_, counts)| counts)
            }
            None => None,
        };
        let counts = counts.unwrap_or(&mut self.other_ethertypes);
        counts.packets += 1;
        counts.bytes += u64::from(wire_bytes);
    }

    /// Adds what a session sent.
    pub(super) fn volume(&mut self, flow: &Flow, delta: &Delta) {
        self.used = true;
        let ([from_orig, from_resp], [orig_bytes, resp_bytes]) = (delta.packets, delta.bytes);
        let counts =
            Counts { packets: from_orig + from_resp, bytes: orig_bytes + resp_bytes, ..Counts::default() };
        self.by_kind(flow, &counts);
        let (orig, resp) = (hosts::hash(flow.orig), hosts::hash(flow.resp));
        if from_orig > 0 {
            self.src_hosts.insert(orig);
            self.dst_hosts.insert(resp);
        }
        if from_resp > 0 {
            self.src_hosts.insert(resp);
            self.dst_hosts.insert(orig);
        }
        self.sources.add(flow.orig, orig, orig_bytes, from_orig);
        self.sources.add(flow.resp, resp, resp_bytes, from_resp);
        self.destinations.add(flow.resp, resp, orig_bytes, from_orig);
        self.destinations.add(flow.orig, orig, resp_bytes, from_resp);
        let pair = (flow.orig.min(flow.resp), flow.orig.max(flow.resp));
        self.pairs.add(pair, pair_hash(orig, resp), counts.bytes, counts.packets);
    }

    /// A session has its first packet ever.
    pub(super) fn opened(&mut self, flow: &Flow) {
        self.used = true;
        let new = Counts { new: 1, ..Counts::default() };
        self.totals.counts.add(&new);
        // Of a service that is known already, it is new here; else when it is found.
        self.by_kind(flow, &new);
        self.openers.add(flow.orig, hosts::hash(flow.orig), 1, 0);
    }

    /// A session has its first packet in this minute.
    pub(super) fn active(&mut self, flow: &Flow) {
        self.used = true;
        let active = Counts { active: 1, ..Counts::default() };
        self.totals.counts.add(&active);
        self.by_kind(flow, &active);
    }

    /// The service of a session was found in this minute, in which it has a packet.
    pub(super) fn found(&mut self, service: &'static str) {
        self.used = true;
        self.service(service, &Counts { new: 1, active: 1, ..Counts::default() });
    }

    /// A TCP session ended without a handshake.
    pub(super) fn failed(&mut self, flow: &Flow) {
        self.used = true;
        self.totals.failed_handshakes += 1;
        self.failing.add(flow.orig, hosts::hash(flow.orig), 1, 0);
    }

    fn by_kind(&mut self, flow: &Flow, counts: &Counts) {
        if let Some(protocol) = self.protocols.get_mut(usize::from(flow.proto)) {
            protocol.add(counts);
        }
        if let Some(service) = flow.service {
            self.service(service, counts);
        }
        if let Some(port) = Port::of(flow) {
            self.ports.counts(port).add(counts);
        }
    }

    fn service(&mut self, name: &'static str, counts: &Counts) {
        match self.services.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => sum.add(counts),
            None => self.services.push((name, *counts)),
        }
    }

    /// The minute so far; afterwards all is empty.
    pub(super) fn close(&mut self) -> Minute {
        let nanos = u64::from(self.number).saturating_mul(super::NANOS_PER_MINUTE);
        for size in &self.sizes {
            self.totals.counts.add(size);
        }
        let occurred = (0_u8..=255).zip(self.protocols.iter()).filter(|(_, counts)| !counts.is_zero());
        let minute = Minute {
            start: Timestamp::from_nanos_saturating(nanos),
            totals: self.totals,
            protocols: occurred.map(|(number, counts)| (number, *counts)).collect(),
            services: self.services.iter().copied().collect(),
            ports: self.ports.entries.iter().copied().collect(),
            other_ports: self.ports.other,
            ethertypes: self.ethertypes.iter().copied().collect::<BTreeMap<_, _>>(),
            other_ethertypes: self.other_ethertypes,
            sizes: self.sizes,
            src_hosts: self.src_hosts.clone(),
            dst_hosts: self.dst_hosts.clone(),
            sources: self.sources.summary(),
            destinations: self.destinations.summary(),
            pairs: self.pairs.summary(),
            openers: self.openers.summary(),
            failing: self.failing.summary(),
        };
        self.clear();
        minute
    }

    fn clear(&mut self) {
        self.used = false;
        self.totals = Totals::default();
        self.sizes = [Counts::default(); SIZES.len()];
        self.protocols.fill(Counts::default());
        self.services.clear();
        self.ports.clear();
        self.ethertypes.clear();
        self.other_ethertypes = Counts::default();
        self.src_hosts.clear();
        self.dst_hosts.clear();
        self.sources.clear();
        self.destinations.clear();
        self.pairs.clear();
        self.openers.clear();
        self.failing.clear();
    }
}

/// Of a pair, both ways the same.
pub(super) fn pair_hash(a: u64, b: u64) -> u64 {
    a.wrapping_add(b).wrapping_mul(0xff51_afd7_ed55_8ccd) ^ (a ^ b)
}

/// Position in [`SIZES`], by the bit length of the size.
fn size_class(bytes: u32) -> usize {
    let class = match u32::BITS - bytes.leading_zeros() {
        0..=6 => 0,
        length @ 7..=10 => length - 6,
        11 if bytes <= 1_518 => 5,
        length @ 11..=14 => length - 5,
        _ => 10,
    };
    usize::try_from(class).unwrap_or_default()
}

/// Counts by port: a place for every port of three protocols leads to those that occurred.
#[derive(Debug)]
struct Ports {
    /// Position in `entries` plus one; 0 = none.
    index: Vec<u16>,
    entries: Vec<(Port, Counts)>,
    other: Counts,
}

impl Ports {
    fn new() -> Self {
        Self { index: vec![0; PORT_NUMBERS], entries: Vec::with_capacity(PORTS), other: Counts::default() }
    }

    fn place(port: Port) -> usize {
        let protocol = match port.proto {
            6 => 0,
            17 => 1,
            _ => 2,
        };
        (protocol << 16) | usize::from(port.number)
    }

    fn counts(&mut self, port: Port) -> &mut Counts {
        let Some(place) = self.index.get_mut(Self::place(port)) else { return &mut self.other };
        if *place == 0 {
            if self.entries.len() == PORTS {
                return &mut self.other;
            }
            self.entries.push((port, Counts::default()));
            *place = u16::try_from(self.entries.len()).unwrap_or_default();
        }
        match usize::from(*place).checked_sub(1).and_then(|at| self.entries.get_mut(at)) {
            Some((_, counts)) => counts,
            None => &mut self.other,
        }
    }

    fn clear(&mut self) {
        for (port, _) in self.entries.drain(..) {
            if let Some(place) = self.index.get_mut(Self::place(port)) {
                *place = 0;
            }
        }
        self.other = Counts::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_in_its_class() {
        for bytes in (0..20_000).chain([u32::MAX]) {
            let want = SIZES.iter().position(|(end, _)| bytes <= *end).unwrap();
            assert_eq!(size_class(bytes), want, "{bytes}");
        }
    }

    #[test]
    fn ports_beyond_the_room_are_counted_together_and_room_comes_back() {
        let mut ports = Ports::new();
        for _ in 0..2 {
            for number in 0..=u16::MAX {
                ports.counts(Port { proto: 6, number }).packets += 1;
            }
            assert_eq!((ports.entries.len(), ports.other.packets), (PORTS, 65_536 - 8_192));
            ports.clear();
            assert!(ports.index.iter().all(|place| *place == 0));
        }
    }
}
