//! What the session of a packet has had before it: asked before the packet is stored, and pushed.
//!
//! Only looks: nothing is begun, ended or counted by it. Where it cannot tell, as of a session that may be over,
//! it says too little, never too much.

use super::index::NONE;
use super::update::fragment_key;
use super::{Stage, Table};
use crate::input::{Facts, Transport, flag};
use crate::inspect::Inspector;
use crate::key::Key;
use tapedeck_packet::{Fragment, Ip, Net, Timestamp, Walk};

impl<P: Inspector> Stage<'_, '_, '_, P> {
    /// Whether the session of a packet's innermost IP layer has had `bytes` on the wire or more, both directions
    /// together, before this packet, which comes at `ts` and is not pushed yet. What has no IP layer innermost has
    /// had nothing, and so has a SYN. With [`Config::split`](crate::Config::split) only the directions that reach this table count.
    #[must_use]
    pub fn has_had(&self, walk: &Walk, ts: Timestamp, bytes: u64) -> bool {
        let Some((layer, outer)) = walk.layers().split_last() else { return false };
        let Net::Ip(ip) = &layer.net else { return false };
        if ip.tcp_flags.is_some_and(opens) {
            return false;
        }
        let table = &*self.table;
        let staged = table.staged.get(..self.used).unwrap_or_default();
        let inner = outer.iter().any(|layer| matches!(layer.net, Net::Ip(_)));
        let (key, ..) = table.reader.key(layer, ip, inner);
        let (key, hash) = table.resolved(key, ip, ts, staged);
        let (waiting, begins) = waiting(staged, &key, hash);
        waiting >= bytes || (!begins && waiting.saturating_add(table.wire_bytes(&key, hash, ts)) >= bytes)
    }
}

impl<P: Inspector> Table<P> {
    /// The key of the session that a layer belongs to, and its hash: of a later fragment that of the datagram's
    /// first one, if that has been seen.
    fn resolved(&self, key: Key, ip: &Ip, ts: Timestamp, staged: &[Facts]) -> (Key, u64) {
        let hash = key.hash(self.config.hash_seed);
        if ip.fragment != Fragment::Later {
            return (key, hash);
        }
        let first = staged.iter().rev().find(|facts| {
            facts.first_fragment == Some(ip.fragment_id)
                && fragment_key(&facts.key, facts.from, self.config.hash_seed).0 == key
        });
        if let Some(first) = first {
            return (first.key, first.hash);
        }
        self.datagrams
            .peek(hash, &key, ip.fragment_id, ts.nanos())
            .map_or((key, hash), |d| (d.session, d.hash))
    }

    /// Bytes on the wire of the session with this key, as far as they are applied; 0 if there is none at `ts`, or if
    /// that is not sure.
    fn wire_bytes(&self, key: &Key, hash: u64, ts: Timestamp) -> u64 {
        let slots = &self.slots;
        let is = |slot| slots.hot(slot).is_some_and(|hot| hot.key == *key && hot.deadline > ts.nanos());
        let slot = self.index.find(hash, is);
        if slot == NONE {
            return 0;
        }
        let Some(hot) = slots.hot(slot) else { return 0 };
        let latest = u64::from(hot.wire_bytes.a) + u64::from(hot.wire_bytes.b);
        // Of most sessions that is all, and reading the cold part costs more than all the rest.
        let Some(cold) = slots.cold(slot).filter(|_| hot.more) else { return latest };
        let sides = [(cold.base.a, cold.carry.a), (cold.base.b, cold.carry.b)];
        sides.iter().fold(latest, |sum, (base, carry)| {
            sum.saturating_add(base.wire_bytes).saturating_add(carry.wire_bytes)
        })
    }
}

/// A TCP segment with these flags may begin another session: an answer too, where only one side is seen.
fn opens(flags: u8) -> bool {
    flags & flag::SYN != 0
}

/// Bytes of the packets with this key that are pushed and not applied yet, and whether one of them may begin another
/// session: then only what came since counts.
fn waiting(staged: &[Facts], key: &Key, hash: u64) -> (u64, bool) {
    let (mut bytes, mut begins) = (0, false);
    for facts in staged.iter().filter(|facts| facts.hash == hash && facts.key == *key) {
        if let Transport::Tcp(header) = &facts.transport
            && opens(header.flags)
        {
            (bytes, begins) = (0, true);
        }
        bytes += u64::from(facts.wire_bytes);
    }
    (bytes, begins)
}
