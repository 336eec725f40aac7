//! What finds no room in the table: counted by protocol, so that no packet is missing from the sums.

use super::refs::{Refs, near};
use crate::input::{Facts, Place, proto};
use crate::record::Volume;

/// The packets of one protocol that found no room, since the last coarse record.
#[derive(Clone, Debug, Default)]
pub(crate) struct Heap {
    pub(crate) proto: u8,
    pub(crate) inner: bool,
    pub(crate) first: u64,
    pub(crate) last: u64,
    pub(crate) volume: Volume,
    /// Packets that are not in the store.
    pub(crate) unstored: u64,
    pub(crate) refs: Refs,
    place: Option<Place>,
}

/// One heap for TCP, UDP, ICMP and the rest, outside and inside of tunnels.
#[derive(Debug, Default)]
pub(crate) struct Coarse {
    heaps: [Heap; 8],
}

/// Number of the heap, and its protocol.
fn class(facts: &Facts) -> (usize, u8) {
    let (class, number) = match facts.key.proto() {
        proto::TCP => (0, proto::TCP),
        proto::UDP => (1, proto::UDP),
        proto::ICMP | proto::ICMPV6 => (2, proto::ICMP),
        _ => (3, 0),
    };
    (class + if facts.inner { 4 } else { 0 }, number)
}

impl Coarse {
    /// The record of what is there must be written before this packet is added.
    pub(crate) fn is_due(&self, facts: &Facts, interim: u64) -> bool {
        let heap = self.heaps.get(class(facts).0).filter(|heap| heap.volume.packets > 0);
        heap.is_some_and(|heap| facts.ts >= heap.first.saturating_add(interim))
    }

    pub(crate) fn add(&mut self, facts: &Facts, ref_gap: u32) {
        let (class, number) = class(facts);
        let inner = facts.inner;
        let Some(heap) = self.heaps.get_mut(class) else { return };
        if heap.volume.packets == 0 {
            *heap = Heap { proto: number, inner, first: facts.ts, ..Heap::default() };
        }
        heap.first = heap.first.min(facts.ts);
        heap.last = heap.last.max(facts.ts);
        heap.volume.packets += 1;
        heap.volume.ip_bytes += u64::from(facts.ip_bytes);
        heap.volume.payload_bytes += u64::from(facts.payload_bytes);
        heap.volume.wire_bytes += u64::from(facts.wire_bytes);
        heap.volume.cut_bytes += u64::from(facts.cut_bytes);
        if !facts.stored {
            heap.unstored += 1;
            return;
        }
        match heap.place {
            Some(last) if near(last, facts.place, ref_gap) => heap.refs.extend(facts.place),
            _ => heap.refs.open(facts.place),
        }
        heap.place = Some(facts.place);
    }

    /// Takes the heaps that began at `before` (ns) or earlier.
    pub(crate) fn take(&mut self, before: u64) -> impl Iterator<Item = Heap> + '_ {
        self.heaps
            .iter_mut()
            .filter(move |heap| heap.volume.packets > 0 && heap.first <= before)
            .map(std::mem::take)
    }
}
