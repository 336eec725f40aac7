//! How sessions end, and what is written of them.

use super::coarse::Heap;
use super::slots::{Cold, Hot, Inspecting, Session};
use super::update::{silent_at, tcp_expiry};
use super::{Sink, Table, by_role};
use crate::input::{Place, proto};
use crate::inspect::Inspector;
use crate::merge::Half;
use crate::pair::{End, Pair};
use crate::record::{ConnState, EndReason, Record, RecordKind, Service, Side, Uid, Volume};
use crate::stats::failed_handshake;
use crate::tcp::Tcp;
use std::net::{IpAddr, Ipv4Addr};
use tapedeck_packet::{Timestamp, Tunnel};

impl<P: Inspector> Table<P> {
    /// When a session is removed if nothing more comes, ns.
    pub(super) fn expiry(&self, slot: u32) -> u64 {
        let times = &self.config.timeouts;
        let (Some(hot), Some(tcp), Some(cold)) =
            (self.slots.hot(slot), self.slots.tcp(slot), self.slots.cold(slot))
        else {
            return u64::MAX;
        };
        if hot.is_tcp() {
            tcp_expiry(hot, tcp, cold, self.config.split, times)
        } else {
            silent_at(hot, cold, times)
        }
    }

    /// Why a session that has run out ends.
    pub(super) fn reason(&self, slot: u32) -> EndReason {
        let (Some(hot), Some(tcp)) = (self.slots.hot(slot), self.slots.tcp(slot)) else {
            return EndReason::IdleTimeout;
        };
        if hot.is_tcp() && tcp.has_ended() { EndReason::EndOfFlow } else { EndReason::IdleTimeout }
    }

    /// Looks whether a session has ended by `time` or has a record due. Says whether it goes on.
    pub(super) fn look(&mut self, slot: u32, time: u64, sink: Sink<'_>) -> bool {
        let expiry = self.expiry(slot);
        if time >= expiry {
            self.end(slot, self.reason(slot), sink);
            return false;
        }
        let interim = self.config.timeouts.interim;
        let Some(hot) = self.slots.hot(slot) else { return false };
        let mut next = hot.interval.saturating_add(interim);
        if hot.packets() == 0 {
            next = u64::MAX;
        } else if time >= next || time >= hot.deadline {
            self.emit(slot, RecordKind::Interim, EndReason::ActiveTimeout, sink);
            next = u64::MAX;
        }
        let deadline = expiry.min(next);
        if let Some(session) = self.slots.get(slot) {
            session.hot.deadline = deadline;
        }
        self.wheel.remove(slot);
        self.wheel.put(slot, deadline, self.now);
        true
    }

    /// Ends a session.
    pub(super) fn end(&mut self, slot: u32, reason: EndReason, sink: Sink<'_>) {
        let state = self.emit(slot, RecordKind::Final, reason, sink);
        let Some(Session { hot, tcp, cold }) = self.slots.get(slot) else { return };
        if let Some(statistics) = self.statistics.as_mut().filter(|_| !hot.tally.is_new()) {
            let flow = hot.flow(cold.service_name());
            let failed = state.is_some_and(failed_handshake) && !self.config.split;
            let now = Timestamp::from_nanos_saturating(self.now);
            statistics.ended(now, &mut hot.tally, &flow, failed);
        }
        let hash = hot.key.hash(self.config.hash_seed);
        if hot.is_tcp() {
            self.holes.give_back(&mut tcp.ends.a.stream);
            self.holes.give_back(&mut tcp.ends.b.stream);
        }
        self.index.remove(hash, slot);
        self.wheel.remove(slot);
        self.slots.give_back(slot);
    }

    /// Writes a record of what came since the last one, and begins to count anew.
    fn emit(&mut self, slot: u32, kind: RecordKind, reason: EndReason, sink: Sink<'_>) -> Option<ConnState> {
        let session = self.slots.get(slot)?;
        if kind == RecordKind::Final {
            let (ends, inspector) = (session.hot.ends(), session.cold.inspector);
            let service = match session.hot.inspecting {
                Inspecting::Yes => Some(self.inspectors.finish(inspector, ends)),
                // Payload that nobody could look at.
                Inspecting::Done if session.cold.service.is_none() => Some(P::default().finish(ends)),
                _ => None,
            };
            if let Some(service) = service {
                session.hot.inspecting = Inspecting::Done;
                if let Some(name) = service.name
                    && !self.config.split
                    && !session.hot.tally.is_new()
                    && let Some(statistics) = &mut self.statistics
                {
                    statistics.service_found(time(session.hot.last), name);
                }
                session.cold.service = Some(Box::new(service));
            }
        }
        let mut record = self.record(slot, kind, reason)?;
        let state = record.conn_state;
        record.half = self.half(slot);
        if let Some(Session { hot, tcp, cold }) = self.slots.get(slot) {
            let totals = by_end(hot.orig, record.orig.total, record.resp.total);
            cold.base = totals;
            cold.records += 1;
            cold.cut_bytes = Pair::default();
            (cold.unstored, cold.carry) = (0, Pair::default());
            cold.trail.retransmissions = Pair::default();
            cold.trail.roles_fixed = true;
            cold.refs = super::refs::Refs::default();
            // The next packet opens a reference of its own.
            hot.place = Place::NOWHERE;
            (hot.packets, hot.wire_bytes) = (Pair::default(), Pair::default());
            (hot.ip_bytes, hot.more) = (Pair::default(), true);
            if !hot.is_tcp() {
                *tcp.other_payload(End::A) = 0;
                *tcp.other_payload(End::B) = 0;
            }
        }
        sink(record);
        Some(state)
    }

    /// What the merger needs of a one-sided session.
    fn half(&mut self, slot: u32) -> Option<Box<Half>> {
        let Session { hot, cold, .. } = self.slots.get(slot)?;
        let (key, from) = (hot.key, if hot.met.a { End::A } else { End::B });
        let inexact = cold.log.inexact;
        let silent = hot.packets() == 0;
        let runs = self.logs.drain(&mut cold.log);
        let one_sided = self.config.split && hot.met.a != hot.met.b;
        // What the log had no room for goes alone, and with it an end without packets; any other such end must not.
        let logged = if silent { !cold.went_alone } else { !runs.is_empty() };
        cold.went_alone = one_sided && !logged;
        (self.keyed || (one_sided && logged)).then(|| Box::new(Half { key, from, runs, inexact }))
    }

    /// The same of a session that goes on: without its packets.
    pub(super) fn open_half(&self, slot: u32) -> Option<Box<Half>> {
        let hot = self.slots.hot(slot).filter(|hot| self.config.split && hot.met.a != hot.met.b)?;
        let from = if hot.met.a { End::A } else { End::B };
        Some(Box::new(Half { key: hot.key, from, runs: Vec::new(), inexact: false }))
    }

    /// What a record of an open session would say.
    pub(super) fn snapshot(&self, slot: u32) -> Option<Record> {
        self.record(slot, RecordKind::Open, EndReason::ActiveTimeout)
    }

    fn record(&self, slot: u32, kind: RecordKind, end_reason: EndReason) -> Option<Record> {
        let (hot, tcp, cold) = (self.slots.hot(slot)?, self.slots.tcp(slot)?, self.slots.cold(slot)?);
        let orig = hot.orig;
        let history = cold.trail.history.as_str();
        let volumes = Pair { a: volume(hot, tcp, cold, End::A), b: volume(hot, tcp, cold, End::B) };
        let (orig_side, resp_side) =
            (side(hot, cold, &volumes, orig), side(hot, cold, &volumes, orig.other()));
        let mut refs = cold.refs;
        refs.extend(hot.place);
        // Packets out of order may come from before the record, or from before the session.
        let interval = if hot.packets() == 0 { hot.last } else { hot.interval.min(hot.last) };
        let interval = interval.max(hot.last.saturating_sub(self.config.timeouts.interim));
        // A session that nothing has closed may have had more.
        let until = if end_reason == EndReason::EndOfFlow { hot.last } else { self.now.max(hot.last) };
        Some(Record {
            kind,
            number: cold.records,
            uid: self.uid(cold.number),
            parent: cold.parent,
            inner: hot.key.inner(),
            ts: time(cold.first.min(interval)),
            ts_interval: time(interval),
            ts_last: time(hot.last),
            proto: hot.key.proto(),
            orig: orig_side,
            resp: resp_side,
            originator_known: cold.originator_known,
            conn_state: conn_state(hot, tcp, history),
            history: history.into(),
            missed_bytes: cold.trail.missed_bytes,
            end_reason,
            service: cold.service.as_deref().cloned().unwrap_or_default(),
            syn_rtt_ns: cold.trail.syn_rtt_ns,
            vlans: cold.origin.vlans,
            mpls: cold.origin.mpls,
            tunnel: cold.origin.tunnel,
            tunnel_id: cold.origin.tunnel_id,
            queue: self.config.queue,
            split: false,
            stored_packets: hot.packets().saturating_sub(cold.unstored),
            loss_during: self.losses.any(interval, until),
            counted: !hot.tally.is_new(),
            refs: refs.to_vec(),
            half: None,
            refs_incomplete: refs.incomplete,
        })
    }

    /// Writes what found no room and began at `before` or earlier.
    pub(super) fn emit_coarse(&mut self, before: u64, sink: Sink<'_>) {
        let heaps: Vec<Heap> = self.coarse.take(before).collect();
        for heap in heaps {
            let number = self.number();
            let mut record = coarse(&heap, self.uid(number), self.config.queue, self.config.timeouts.interim);
            record.loss_during = self.losses.any(heap.first, heap.last);
            sink(record);
        }
    }
}

fn by_end<T>(orig: End, of_orig: T, of_resp: T) -> Pair<T> {
    match orig {
        End::A => Pair { a: of_orig, b: of_resp },
        End::B => Pair { a: of_resp, b: of_orig },
    }
}

/// Since the last record, and since the beginning.
fn volume(hot: &Hot, tcp: &Tcp, cold: &Cold, end: End) -> (Volume, Volume) {
    let base = *cold.base.of(end);
    let payload_bytes = if hot.is_tcp() {
        tcp.size(end).saturating_sub(base.payload_bytes)
    } else {
        tcp.ends.of(end).stream.delivered
    };
    let delta = Volume {
        packets: u64::from(*hot.packets.of(end)),
        ip_bytes: u64::from(*hot.ip_bytes.of(end)) + cold.carry.of(end).ip_bytes,
        payload_bytes,
        wire_bytes: u64::from(*hot.wire_bytes.of(end)) + cold.carry.of(end).wire_bytes,
        retransmissions: *cold.trail.retransmissions.of(end),
        cut_bytes: *cold.cut_bytes.of(end),
    };
    (delta, base.plus(&delta))
}

fn side(hot: &Hot, cold: &Cold, volumes: &Pair<(Volume, Volume)>, end: End) -> Side {
    let (volume, total) = *volumes.of(end);
    let (address, _) = by_role(&hot.key.addresses(), end);
    let (port, _) = by_role(&hot.key.ports(), end);
    Side {
        address,
        port,
        volume,
        total,
        tcp_flags: *hot.tcp_flags.of(end),
        ttl: *cold.ttl.of(end),
        mac: *cold.mac.of(end),
    }
}

fn conn_state(hot: &Hot, tcp: &Tcp, history: &str) -> ConnState {
    match hot.key.proto() {
        proto::TCP if hot.is_tcp() => tcp.conn_state(hot.orig, history),
        proto::UDP => match by_role(&hot.met, hot.orig) {
            (true, true) => ConnState::Sf,
            (true, false) => ConnState::S0,
            (false, true) => ConnState::Shr,
            (false, false) => ConnState::Oth,
        },
        _ => ConnState::Oth,
    }
}

fn coarse(heap: &Heap, uid: Uid, queue: u32, interim: u64) -> Record {
    let first = heap.first.max(heap.last.saturating_sub(interim));
    let nowhere = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
    let side = Side {
        address: nowhere,
        port: 0,
        volume: heap.volume,
        total: heap.volume,
        tcp_flags: 0,
        ttl: None,
        mac: None,
    };
    Record {
        kind: RecordKind::Coarse,
        number: 0,
        uid,
        parent: None,
        inner: heap.inner,
        ts: time(first),
        ts_interval: time(first),
        ts_last: time(heap.last),
        proto: heap.proto,
        orig: side,
        resp: Side { volume: Volume::default(), total: Volume::default(), ..side },
        originator_known: false,
        conn_state: ConnState::Oth,
        history: Box::default(),
        missed_bytes: 0,
        end_reason: EndReason::LackOfResources,
        service: Service::default(),
        syn_rtt_ns: None,
        vlans: [None, None],
        mpls: None,
        tunnel: if heap.inner { Tunnel::Other } else { Tunnel::None },
        tunnel_id: None,
        queue,
        split: false,
        stored_packets: heap.volume.packets.saturating_sub(heap.unstored),
        loss_during: false,
        counted: false,
        refs: heap.refs.to_vec(),
        half: None,
        refs_incomplete: heap.refs.incomplete,
    }
}

fn time(nanos: u64) -> Timestamp {
    Timestamp::from_nanos_saturating(nanos)
}
