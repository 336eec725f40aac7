//! The sessions themselves: two arrays side by side, by slot number.
//!
//! `Hot` is what every packet touches, `Tcp` what every TCP packet touches besides; both stand together, for
//! one page of memory to look up. `Cold` is the rest. The arrays grow up to their reserved capacity and never move; slots are used again, last freed first.

use super::log::Log;
use super::refs::{Refs, near};
use super::{vec_bytes, vec_memory};
use crate::history::Trail;
use crate::input::{Origin, Place};
use crate::inspect::Ends;
use crate::key::Key;
use crate::pair::{End, Pair};
use crate::record::{Service, Uid, Volume};
use crate::stats::{Flow, Sessions, Tally, server_port};
use crate::tcp::Tcp;
use std::ops::Range;

/// What every packet touches, in two cache lines.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(64))]
pub(crate) struct Hot {
    pub(crate) key: Key,
    /// Time of the last packet, ns.
    pub(crate) last: u64,
    /// When the session must be looked at: it may have ended, or a record may be due. ns.
    pub(crate) deadline: u64,
    /// Time of the first packet since the last record, ns.
    pub(crate) interval: u64,
    /// Since the last record.
    pub(crate) packets: Pair<u32>,
    /// Since the last record, less what `Cold::carry` has.
    pub(crate) wire_bytes: Pair<u32>,
    pub(crate) ip_bytes: Pair<u32>,
    /// For statistics.
    pub(crate) tally: Tally,
    /// Where the open packet reference ends.
    pub(crate) place: Place,
    pub(crate) tcp_flags: Pair<u8>,
    /// `history::seen`.
    pub(crate) seen: Pair<u8>,
    /// The side has sent something.
    pub(crate) met: Pair<bool>,
    pub(crate) orig: End,
    pub(crate) inspecting: Inspecting,
    /// Ends as DNS does.
    pub(crate) is_dns: bool,
    /// `Cold` has more of `wire_bytes`.
    pub(crate) more: bool,
    /// Frames that the open packet reference bridges ([`wider`](super::refs::wider)).
    pub(crate) gap: u32,
}

const _: () = assert!(size_of::<Hot>() == 128, "two cache lines");

/// What becomes of a session's payload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Inspecting {
    /// No payload yet.
    #[default]
    NotYet,
    /// An inspector looks at it.
    Yes,
    /// Not looked at any more.
    Done,
}

impl Hot {
    pub(crate) fn is_tcp(&self) -> bool {
        self.key.is_tcp()
    }

    /// What is known without payload.
    pub(crate) fn ends(&self) -> Ends {
        let ports = self.key.ports();
        Ends {
            proto: self.key.proto(),
            orig_port: *ports.of(self.orig),
            resp_port: *ports.of(self.orig.other()),
        }
    }

    /// The session, for statistics; `service` as far as it is known.
    pub(crate) fn flow(&self, service: Option<&'static str>) -> Flow {
        flow(&self.key, self.orig, service)
    }

    /// Packets since the last record.
    pub(crate) fn packets(&self) -> u64 {
        u64::from(self.packets.a) + u64::from(self.packets.b)
    }
}

/// A session as statistics see it.
pub(crate) fn flow(key: &Key, orig: End, service: Option<&'static str>) -> Flow {
    let (addresses, ports, number) = (key.addresses(), key.ports(), key.proto());
    let (orig_end, resp_end) = (orig, orig.other());
    Flow {
        orig: *addresses.of(orig_end),
        resp: *addresses.of(resp_end),
        proto: number,
        server_port: server_port(number, *ports.of(resp_end)).filter(|_| !key.no_ports()),
        service,
    }
}

/// What a packet seldom touches.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cold {
    /// Number in the uid.
    pub(crate) number: u64,
    pub(crate) parent: Option<Uid>,
    /// First packet, ns.
    pub(crate) first: u64,
    pub(crate) origin: Origin,
    pub(crate) originator_known: bool,
    pub(crate) ttl: Pair<Option<u8>>,
    pub(crate) mac: Pair<Option<[u8; 6]>>,
    /// Records written.
    pub(crate) records: u32,
    /// Up to the last record.
    pub(crate) base: Pair<Volume>,
    /// Since the last record.
    pub(crate) cut_bytes: Pair<u64>,
    /// Packets since the last record that are not in the store.
    pub(crate) unstored: u64,
    /// What found no room in `Hot::wire_bytes` and `Hot::ip_bytes`.
    pub(crate) carry: Pair<Carry>,
    pub(crate) refs: Refs,
    pub(crate) trail: Trail,
    /// Packets since the last record, while only one side has been seen and that matters.
    pub(crate) log: Log,
    /// Its last record went without its packets, as the log had no room: the merger does not know it.
    pub(crate) went_alone: bool,
    /// Number of its inspector while `Hot::inspecting` says yes.
    pub(crate) inspector: u32,
    pub(crate) service: Option<Box<Service>>,
}

/// Whole turns of the counters in [`Hot`].
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Carry {
    pub(crate) wire_bytes: u64,
    pub(crate) ip_bytes: u64,
}

/// Four cache lines.
#[derive(Clone, Copy, Debug, Default)]
#[repr(C, align(256))]
struct Warm {
    hot: Hot,
    tcp: Tcp,
}

/// The arrays.
#[derive(Debug)]
pub(crate) struct Slots {
    warm: Vec<Warm>,
    cold: Vec<Cold>,
    free: Vec<u32>,
    max: usize,
}

/// One session.
pub(crate) struct Session<'a> {
    pub(crate) hot: &'a mut Hot,
    pub(crate) tcp: &'a mut Tcp,
    pub(crate) cold: &'a mut Cold,
}

impl Slots {
    pub(crate) fn new(max: u32) -> Self {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        Self {
            warm: Vec::with_capacity(max),
            cold: Vec::with_capacity(max),
            free: Vec::with_capacity(max),
            max,
        }
    }

    /// Bytes for `max` slots.
    pub(crate) const fn bytes(max: u64) -> u64 {
        let each = size_of::<Warm>() + size_of::<Cold>() + size_of::<u32>();
        max * each as u64
    }

    /// Bytes reserved now.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        vec_bytes(&self.warm) + vec_bytes(&self.cold) + vec_bytes(&self.free)
    }

    /// Addresses of the arrays.
    pub(crate) fn memory(&self) -> [Range<usize>; 2] {
        [vec_memory(&self.warm), vec_memory(&self.cold)]
    }

    /// Sessions held.
    pub(crate) fn len(&self) -> usize {
        self.warm.len() - self.free.len()
    }

    /// A free slot, if there is one.
    pub(crate) fn take(&mut self) -> Option<u32> {
        if let Some(slot) = self.free.pop() {
            return Some(slot);
        }
        let slot = u32::try_from(self.warm.len()).ok()?;
        if self.warm.len() >= self.max {
            return None;
        }
        self.warm.push(Warm::default());
        self.cold.push(Cold::default());
        Some(slot)
    }

    /// Frees `slot`.
    pub(crate) fn give_back(&mut self, slot: u32) {
        if let Some(hot) = self.hot_mut(slot) {
            *hot = Hot::default();
            self.free.push(slot);
        }
    }

    pub(crate) fn hot(&self, slot: u32) -> Option<&Hot> {
        self.warm.get(usize::try_from(slot).ok()?).map(|warm| &warm.hot)
    }

    fn hot_mut(&mut self, slot: u32) -> Option<&mut Hot> {
        self.warm.get_mut(usize::try_from(slot).ok()?).map(|warm| &mut warm.hot)
    }

    pub(crate) fn cold(&self, slot: u32) -> Option<&Cold> {
        self.cold.get(usize::try_from(slot).ok()?)
    }

    pub(crate) fn tcp(&self, slot: u32) -> Option<&Tcp> {
        self.warm.get(usize::try_from(slot).ok()?).map(|warm| &warm.tcp)
    }

    pub(crate) fn get(&mut self, slot: u32) -> Option<Session<'_>> {
        let at = usize::try_from(slot).ok()?;
        let Warm { hot, tcp } = self.warm.get_mut(at)?;
        Some(Session { hot, tcp, cold: self.cold.get_mut(at)? })
    }

    /// One past the highest slot that has been in use.
    pub(crate) fn end(&self) -> u32 {
        u32::try_from(self.warm.len()).unwrap_or(u32::MAX)
    }

    /// Slots in use.
    pub(crate) fn used(&self) -> impl Iterator<Item = u32> + '_ {
        let used = self.warm.iter().enumerate().filter(|(_, warm)| warm.hot.deadline != 0);
        used.filter_map(|(slot, _)| u32::try_from(slot).ok())
    }

    /// Reads what the next packet of `slot` will need, so that it is in the cache then. The value says nothing.
    #[inline]
    pub(crate) fn touch(&self, slot: u32) -> u64 {
        let Ok(at) = usize::try_from(slot) else { return 0 };
        let Some(Warm { hot, tcp }) = self.warm.get(at) else { return 0 };
        hot.deadline ^ u64::from(hot.wire_bytes.b) ^ tcp.touch()
    }

    /// The same for the cold part, if a packet at `place` will write there.
    #[inline]
    pub(crate) fn touch_cold(&self, slot: u32, place: Place) -> u64 {
        let Ok(at) = usize::try_from(slot) else { return 0 };
        let Some(Warm { hot, .. }) = self.warm.get(at) else { return 0 };
        if near(hot.place, place, hot.gap) {
            return 0;
        }
        self.cold.get(at).map_or(0, |cold| cold.refs.touch())
    }
}

impl Sessions for Slots {
    fn session(&mut self, slot: u32) -> Option<(&mut Tally, Flow)> {
        let Session { hot, cold, .. } = self.get(slot)?;
        let flow = hot.flow(cold.service_name());
        (hot.deadline != 0).then_some((&mut hot.tally, flow))
    }
}

impl Cold {
    /// Name of the service, as far as known.
    pub(crate) fn service_name(&self) -> Option<&'static str> {
        self.service.as_deref().and_then(|service| service.name)
    }
}
