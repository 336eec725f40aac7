//! A packet's way through the table: find or begin its session, count it, follow it.

use super::datagrams::Datagram;
use super::index::NONE;
use super::log::Run;
use super::news::FRESH;
use super::refs::{near, wider};
use super::slots::{Cold, Hot, Inspecting, Session};
use super::{Sink, Table};
use crate::config::{Config, Timeouts};
use crate::history::seen;
use crate::input::{Facts, Place, TcpHeader, Transport, flag, is_broadcast, proto};
use crate::inspect::{Inspector, WINDOW};
use crate::key::{Key, Parts};
use crate::pair::{End, Pair};
use crate::ports::is_dns;
use crate::record::{EndReason, Uid};
use crate::stats::Sender;
use crate::tcp::stream::Holes;
use crate::tcp::{Conversation, Segment, Tcp, Timers};

/// A record is due before a counter of packets can overflow.
const MAX_PACKETS: u32 = 1 << 31;

impl<P: Inspector> Table<P> {
    /// Takes one layer of the packet with these bytes. `outer` is the session of the layer around it; returns this layer's.
    pub(super) fn packet(
        &mut self,
        facts: &mut Facts,
        bytes: &[u8],
        outer: Option<Uid>,
        sink: Sink<'_>,
    ) -> Option<Uid> {
        let datagram = match facts.transport {
            Transport::Fragment { id, .. } => self.datagrams.find(facts.hash, &facts.key, id, facts.ts),
            _ => None,
        };
        if let Some(datagram) = &datagram {
            (facts.key, facts.hash, facts.from) = (datagram.session, datagram.hash, datagram.from);
            if facts.key.proto() == proto::UDP {
                // The first fragment's header told of the whole datagram.
                facts.payload_bytes = 0;
            }
        }
        let facts = &*facts;
        let Some(slot) = self.session(facts, outer, sink) else {
            if self.coarse.is_due(facts, self.config.timeouts.interim) {
                self.emit_coarse(u64::MAX, sink);
            }
            self.coarse.add(facts, self.config.ref_gap);
            self.counters.coarse_packets += u64::from(!facts.inner);
            self.count_homeless(facts);
            return None;
        };
        // Looked up once for all that follows.
        let Self { slots, config, holes, .. } = self;
        let mut session = slots.get(slot)?;
        session.count(facts, config.ref_gap);
        let offset = session.follow(facts, datagram.as_ref(), holes, config);
        let deadline = session.deadline(config);
        if deadline < std::mem::replace(&mut session.hot.deadline, deadline) {
            // Closed: sooner than the wheel thinks.
            self.wheel.remove(slot);
            self.wheel.put(slot, deadline, self.now);
        }
        let inspected = session.hot.inspecting == Inspecting::Done;
        if config.split {
            self.log(slot, facts);
        }
        if !inspected && let Some(offset) = offset.filter(|offset| *offset < WINDOW) {
            self.show(slot, facts, facts.payload(bytes), offset);
        }
        if facts.innermost {
            self.count_minute(slot, facts);
        }
        if facts.first_fragment.is_some() {
            self.note_datagram(facts);
        }
        let number = if facts.has_inner { self.slots.cold(slot)?.number } else { return None };
        Some(self.uid(number))
    }

    /// The slot of a packet's session, old or new; `None` when there is no room.
    fn session(&mut self, facts: &Facts, outer: Option<Uid>, sink: Sink<'_>) -> Option<u32> {
        let slots = &self.slots;
        let is = |slot| slots.hot(slot).is_some_and(|hot| hot.key == facts.key && hot.deadline != 0);
        let likely = facts.likely_slot;
        let slot = if is(likely) { likely } else { self.index.find(facts.hash, is) };
        if slot != NONE {
            let session = self.slots.get(slot)?;
            let (due, orig) = (facts.ts >= session.hot.deadline, session.hot.orig);
            let reuse = match &facts.transport {
                Transport::Tcp(header) if header.flags & flag::SYN != 0 => session.tcp.is_reuse(orig, header),
                _ => false,
            };
            let alive = !due || self.look(slot, facts.ts, sink);
            if alive && !reuse {
                return Some(slot);
            }
            if alive {
                self.end(slot, EndReason::EndOfFlow, sink);
            }
        }
        self.begin(facts, outer, sink)
    }

    fn begin(&mut self, facts: &Facts, outer: Option<Uid>, sink: Sink<'_>) -> Option<u32> {
        let slot = match self.slots.take() {
            Some(slot) => slot,
            None => {
                self.evict(sink)?;
                self.slots.take()?
            }
        };
        let number = self.reserved.take().unwrap_or_else(|| self.number());
        self.counters.sessions += 1;
        let (flip, known) = self.roles(facts);
        let times = self.config.timeouts;
        // The first update sets the deadline; the wheel looks soon and puts it right.
        let first_look = facts.ts.saturating_add(times.tcp_attempt_delay);
        let session = self.slots.get(slot)?;
        *session.hot = Hot {
            key: facts.key,
            last: facts.ts,
            deadline: first_look,
            interval: facts.ts,
            place: if facts.stored { facts.place } else { Place::NOWHERE },
            gap: wider(self.config.ref_gap, 1),
            orig: if flip { facts.from.other() } else { facts.from },
            ..Hot::default()
        };
        *session.cold = Cold {
            number,
            parent: outer,
            first: facts.ts,
            origin: facts.origin(),
            originator_known: known,
            ..Cold::default()
        };
        let server = *facts.key.ports().of(session.hot.orig.other());
        session.hot.is_dns = facts.key.proto() == proto::UDP && is_dns(server);
        if facts.stored {
            session.cold.refs.open(facts.place);
        }
        if flip {
            session.cold.trail.history.flip();
        }
        *session.tcp = Tcp::new(facts.ts);
        session.cold.trail.timers = Timers::new(facts.ts, &times);
        if !session.hot.is_tcp() {
            *session.tcp.other_payload(End::A) = 0;
            *session.tcp.other_payload(End::B) = 0;
        }
        self.index.insert(facts.hash, slot);
        self.wheel.put(slot, first_look, self.now);
        if self.fresh.len() < FRESH {
            self.fresh.push_back(slot);
        }
        Some(slot)
    }

    /// Whether the first packet comes from the responder, and whether that is known or only supposed: Zeek's
    /// `WantConnection`.
    fn roles(&self, facts: &Facts) -> (bool, bool) {
        let (ports, to) = (facts.key.ports(), facts.from.other());
        let (sport, dport) = (*ports.of(facts.from), *ports.of(to));
        let servers = &self.config.server_ports;
        let (flip, known) = match facts.key.proto() {
            proto::TCP => {
                let flags = match &facts.transport {
                    Transport::Tcp(header) => header.flags,
                    _ => 0,
                };
                let (syn, ack) = (flags & flag::SYN != 0, flags & flag::ACK != 0);
                match (servers.tcp(sport), servers.tcp(dport)) {
                    _ if syn && !ack => (false, true),
                    (true, false) => (true, true),
                    (true, true) => (!syn && sport < dport, false),
                    (false, dport) => (false, dport),
                }
            }
            proto::UDP => {
                let (source, destination) = (servers.udp(sport), servers.udp(dport));
                (source && !destination, source != destination)
            }
            _ => (false, facts.request),
        };
        let flip = flip && !is_broadcast(*facts.key.addresses().of(to));
        (flip, known)
    }

    /// Makes room: the session whose deadline comes next goes. `None` when that has happened too often in
    /// this second.
    fn evict(&mut self, sink: Sink<'_>) -> Option<()> {
        const TRIES: usize = 8;
        let second = self.now / 1_000_000_000;
        if self.evictions.0 != second {
            self.evictions = (second, 0);
        }
        let mut victim = self.wheel.next()?;
        for _ in 0..TRIES {
            // Lists are lazy: one that had packets since belongs further back.
            if !self.look(victim, self.now, sink) {
                return Some(());
            }
            let next = self.wheel.next()?;
            if next == victim {
                break;
            }
            victim = next;
        }
        if self.evictions.1 >= self.config.max_evictions_per_second {
            return None;
        }
        self.evictions.1 += 1;
        self.counters.evicted += 1;
        self.end(victim, EndReason::LackOfResources, sink);
        Some(())
    }

    /// Notes a packet for the merger, while only one side is here.
    fn log(&mut self, slot: u32, facts: &Facts) {
        let Some(Session { hot, cold, .. }) = self.slots.get(slot) else { return };
        if hot.met.a && hot.met.b {
            if !cold.log.is_empty() {
                drop(self.logs.drain(&mut cold.log));
            }
            return;
        }
        let sent = *cold.trail.retransmissions.of(facts.from);
        let again = std::mem::replace(&mut cold.log.retransmissions, sent) != sent;
        // An attempt that is not answered ends there, and another session begins.
        let border = cold.first.saturating_add(self.config.timeouts.tcp_attempt_delay);
        if cold.log.last < border && border <= facts.ts {
            cold.log.seen = 0;
        }
        cold.log.last = facts.ts;
        let mixed = cold.log.seen == seen::DATA | seen::ACK;
        cold.log.seen |= match &facts.transport {
            Transport::Tcp(header) if header.flags & (flag::SYN | flag::FIN | flag::RST) != 0 => 0,
            _ if facts.payload_bytes > 0 => seen::DATA,
            _ => seen::ACK,
        };
        let run = Run::new(facts, again, mixed);
        if !self.logs.add(&mut cold.log, &run, border) {
            self.counters.unlogged += 1;
        }
    }

    /// Shows the payload to the session's inspector.
    #[inline(never)]
    fn show(&mut self, slot: u32, facts: &Facts, payload: &[u8], offset: u64) {
        let Some(Session { hot, cold, .. }) = self.slots.get(slot).filter(|_| !payload.is_empty()) else {
            return;
        };
        if hot.inspecting == Inspecting::NotYet {
            let Some(inspector) = self.inspectors.take() else {
                hot.inspecting = Inspecting::Done;
                self.counters.uninspected += 1;
                return;
            };
            (hot.inspecting, cold.inspector) = (Inspecting::Yes, inspector);
        }
        let Some(inspector) = self.inspectors.get(cold.inspector) else { return };
        let ends = hot.ends();
        if !inspector.feed(ends, facts.from == hot.orig, offset, payload) {
            hot.inspecting = Inspecting::Done;
            let service = self.inspectors.finish(cold.inspector, ends);
            // The first packet of a session is counted behind this, with its service.
            if let Some(name) = service.name
                && !self.config.split
                && !hot.tally.is_new()
                && let Some(statistics) = &mut self.statistics
            {
                statistics.service_found(facts.time(), name);
            }
            cold.service = Some(Box::new(service));
        }
    }

    /// Counts a packet and its session's part in the minute.
    fn count_minute(&mut self, slot: u32, facts: &Facts) {
        let Some(statistics) = &mut self.statistics else { return };
        let Some(Session { hot, cold, .. }) = self.slots.get(slot) else { return };
        let sender = if facts.from == hot.orig { Sender::Orig } else { Sender::Resp };
        if hot.tally.is_new() && !self.config.split {
            statistics.opened(facts.time(), &hot.flow(cold.service_name()));
        }
        let Hot { key, orig, tally, .. } = hot;
        let flow = || super::slots::flow(key, *orig, cold.service_name());
        statistics.session_packet(&facts.counted(), sender, slot, tally, flow);
    }

    /// Counts a packet that found no room for its session.
    fn count_homeless(&mut self, facts: &Facts) {
        if let Some(statistics) = self.statistics.as_mut().filter(|_| facts.innermost) {
            let flow = super::slots::flow(&facts.key, facts.from, None);
            statistics.packet(&facts.counted(), Some((&flow, Sender::Orig)));
        }
    }

    /// Notes the datagram that a first fragment begins.
    fn note_datagram(&mut self, facts: &Facts) {
        let Some(id) = facts.first_fragment else { return };
        let (key, hash) = fragment_key(&facts.key, facts.from, self.config.hash_seed);
        let seq = match &facts.transport {
            Transport::Tcp(TcpHeader { seq, .. }) => seq.wrapping_sub(facts.header_bytes),
            _ => 0,
        };
        let datagram = Datagram {
            key,
            id,
            ts: facts.ts.max(1),
            session: facts.key,
            hash: facts.hash,
            from: facts.from,
            seq,
        };
        self.datagrams.add(hash, datagram);
    }
}

impl Session<'_> {
    /// Counts a packet.
    #[inline]
    fn count(&mut self, facts: &Facts, ref_gap: u32) {
        let Self { hot, tcp, cold } = self;
        if hot.packets() == 0 || facts.ts < hot.interval {
            hot.interval = facts.ts;
        }
        hot.last = hot.last.max(facts.ts);
        *hot.packets.of_mut(facts.from) += facts.packets;
        add(hot.wire_bytes.of_mut(facts.from), facts.wire_bytes, || {
            hot.more = true;
            &mut cold.carry.of_mut(facts.from).wire_bytes
        });
        add(hot.ip_bytes.of_mut(facts.from), facts.ip_bytes, || &mut cold.carry.of_mut(facts.from).ip_bytes);
        if !hot.is_tcp() {
            *tcp.other_payload(facts.from) += u64::from(facts.payload_bytes);
        }
        if facts.cut_bytes > 0 {
            *cold.cut_bytes.of_mut(facts.from) += u64::from(facts.cut_bytes);
        }
        if facts.stored {
            if !near(hot.place, facts.place, hot.gap) {
                cold.refs.extend(hot.place);
                cold.refs.open(facts.place);
                hot.gap = wider(ref_gap, cold.refs.count());
            }
            hot.place = facts.place;
        } else {
            cold.unstored += 1;
        }
        if !*hot.met.of(facts.from) {
            self.meet(facts);
        }
    }

    /// The first packet of a side.
    #[cold]
    fn meet(&mut self, facts: &Facts) {
        let Self { hot, cold, .. } = self;
        let (from, to) = (facts.from, facts.from.other());
        *hot.met.of_mut(from) = true;
        *cold.ttl.of_mut(from) = Some(facts.ttl);
        if let Some(macs) = facts.origin.macs {
            *cold.mac.of_mut(from) = Some(macs.src);
            // The peer's, until it says it itself.
            cold.mac.of_mut(to).get_or_insert(macs.dst);
        }
    }

    /// Follows the protocol; returns where the payload stands in the stream of its direction.
    #[inline]
    fn follow(
        &mut self,
        facts: &Facts,
        datagram: Option<&Datagram>,
        holes: &mut Holes,
        config: &Config,
    ) -> Option<u64> {
        let from = facts.from;
        if !self.hot.is_tcp() {
            return Some(self.follow_other(facts));
        }
        if let Transport::Tcp(header) = facts.transport {
            *self.hot.tcp_flags.of_mut(from) |= header.flags | facts.more_flags;
            if let Some(offset) = self.tcp.ordinary(&segment(facts, header), *self.hot.seen.of(from)) {
                return Some(offset);
            }
        }
        self.follow_closely(facts, datagram, holes, config)
    }

    /// Everything of TCP but the ordinary.
    #[inline(never)]
    fn follow_closely(
        &mut self,
        facts: &Facts,
        datagram: Option<&Datagram>,
        holes: &mut Holes,
        config: &Config,
    ) -> Option<u64> {
        let Self { hot, tcp, cold } = self;
        let (from, orig) = (facts.from, hot.orig);
        let mut conversation = Conversation {
            orig: &mut hot.orig,
            seen: &mut hot.seen,
            tcp,
            trail: &mut cold.trail,
            holes,
            times: &config.timeouts,
        };
        let offset = match (&facts.transport, datagram) {
            (Transport::Tcp(header), _) => conversation.segment(&segment(facts, *header)),
            (Transport::Tail { seq, ack, len }, _) => {
                conversation.more_data(from, facts.ts, *seq, *len);
                conversation.ack_only(from, facts.ts, *ack);
                None
            }
            (Transport::Fragment { offset, .. }, Some(datagram)) => {
                let seq = datagram.seq.wrapping_add(u32::from(*offset));
                conversation.more_data(from, facts.ts, seq, facts.payload_bytes);
                None
            }
            _ => None,
        };
        if hot.orig != orig {
            hot.tally.flip();
        }
        offset
    }

    /// The same where the protocol has no connections.
    fn follow_other(&mut self, facts: &Facts) -> u64 {
        let Self { hot, tcp, cold } = self;
        let from = facts.from;
        if hot.key.proto() == proto::UDP && *hot.seen.of(from) & seen::DATA == 0 {
            *hot.seen.of_mut(from) |= seen::DATA;
            cold.trail.history.add(b'D', from, hot.orig);
        }
        let sent = tcp.other_payload(from).saturating_sub(u64::from(facts.payload_bytes));
        let before = if hot.inspecting == Inspecting::Done { 0 } else { cold.base.of(from).payload_bytes };
        before + sent
    }

    /// When the session must be looked at.
    #[inline]
    fn deadline(&self, config: &Config) -> u64 {
        let Self { hot, tcp, cold } = self;
        let times = &config.timeouts;
        let expiry = if hot.is_tcp() {
            tcp_expiry(hot, tcp, cold, config.split, times)
        } else {
            silent_at(hot, cold, times)
        };
        let full = hot.packets.a >= MAX_PACKETS || hot.packets.b >= MAX_PACKETS;
        let interim = if full { hot.last } else { hot.interval.saturating_add(times.interim) };
        expiry.min(interim)
    }
}

/// A packet as TCP sees it.
#[inline]
fn segment(facts: &Facts, header: TcpHeader) -> Segment {
    Segment { ts: facts.ts, from: facts.from, header, len: facts.payload_bytes }
}

/// Adds to a small counter; when it is full, it is emptied into its `carry`.
fn add<'c>(counter: &mut u32, bytes: u32, carry: impl FnOnce() -> &'c mut u64) {
    match counter.checked_add(bytes) {
        Some(sum) => *counter = sum,
        None => {
            *carry() += u64::from(*counter);
            *counter = bytes;
        }
    }
}

/// When a TCP connection is removed if nothing more comes, ns. Of a side that is alone here nobody can say
/// when the connection ends: `split` lets it wait.
pub(super) fn tcp_expiry(hot: &Hot, tcp: &Tcp, cold: &Cold, split: bool, times: &Timeouts) -> u64 {
    if !split || (hot.met.a && hot.met.b) {
        return tcp.deadline(hot.orig, &cold.trail, times);
    }
    let flags = hot.tcp_flags.a | hot.tcp_flags.b;
    let talks = (hot.seen.a | hot.seen.b) & (seen::DATA | seen::ACK) != 0;
    let wait = if flags & (flag::FIN | flag::RST) != 0 {
        times.tcp_close_delay
    } else if talks {
        times.tcp_inactivity
    } else {
        times.tcp_attempt_delay
    };
    hot.last.saturating_add(wait)
}

/// When a session that is not TCP is removed if nothing more comes, ns.
pub(super) fn silent_at(hot: &Hot, cold: &Cold, times: &Timeouts) -> u64 {
    let expiry = hot.last.saturating_add(times.inactivity(hot.key.proto()));
    if hot.is_dns { expiry.min(times.dns_expiry(cold.first, hot.last)) } else { expiry }
}

/// The key that the later fragments of a packet with this one have.
pub(super) fn fragment_key(key: &Key, from: End, seed: u64) -> (Key, u64) {
    let addresses: Pair<std::net::IpAddr> = key.addresses();
    let parts = Parts {
        src: *addresses.of(from),
        dst: *addresses.of(from.other()),
        sport: 0,
        dport: 0,
        proto: key.proto(),
        one_way: false,
        inner: key.inner(),
        no_ports: crate::input::has_ports(key.proto()),
        vlan: key.vlan(),
    };
    let (key, _) = Key::new(&parts);
    (key, key.hash(seed))
}
