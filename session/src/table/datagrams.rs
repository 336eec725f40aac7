//! Fragmented datagrams: which session their later fragments belong to.
//!
//! A small set-associative table by (key without ports, identification); when a set is full its oldest
//! entry goes. What is not found here makes a session without ports.

use super::vec_bytes;
use crate::key::Key;
use crate::pair::End;

const WAYS: usize = 4;

/// A datagram whose first fragment has been seen.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Datagram {
    /// Addresses and protocol.
    pub(crate) key: Key,
    pub(crate) id: u32,
    /// Its last fragment, ns; 0: the entry is free.
    pub(crate) ts: u64,
    /// Key of its session.
    pub(crate) session: Key,
    pub(crate) hash: u64,
    pub(crate) from: End,
    /// TCP: sequence number of the datagram's first byte, as if headers were data.
    pub(crate) seq: u32,
}

impl Datagram {
    fn is(&self, key: &Key, id: u32) -> bool {
        self.ts != 0 && self.id == id && self.key == *key
    }
}

/// The table.
#[derive(Debug)]
pub(crate) struct Datagrams {
    sets: Vec<[Datagram; WAYS]>,
    wait: u64,
}

impl Datagrams {
    /// Room for about `max` datagrams, each waited for `wait` ns.
    pub(crate) fn new(max: u32, wait: u64) -> Self {
        let sets = Self::sets(max);
        Self { sets: vec![[Datagram::default(); WAYS]; usize::try_from(sets).unwrap_or(1)], wait }
    }

    fn sets(max: u32) -> u64 {
        u64::from(max).div_ceil(WAYS as u64).max(1)
    }

    /// Bytes for `max` datagrams.
    pub(crate) fn bytes(max: u32) -> u64 {
        Self::sets(max) * size_of::<[Datagram; WAYS]>() as u64
    }

    /// Bytes reserved now.
    pub(crate) fn reserved_bytes(&self) -> u64 {
        vec_bytes(&self.sets)
    }

    fn place(&self, hash: u64, id: u32) -> Option<usize> {
        let sets = u64::try_from(self.sets.len()).ok()?;
        usize::try_from((hash ^ u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15)) % sets).ok()
    }

    fn set(&mut self, hash: u64, id: u32) -> Option<&mut [Datagram; WAYS]> {
        let place = self.place(hash, id)?;
        self.sets.get_mut(place)
    }

    /// Notes a datagram; `hash` is that of `datagram.key`.
    pub(crate) fn add(&mut self, hash: u64, datagram: Datagram) {
        let Some(set) = self.set(hash, datagram.id) else { return };
        let same = |d: &&mut Datagram| d.id == datagram.id && d.key == datagram.key;
        let place = match set.iter().position(|d| d.id == datagram.id && d.key == datagram.key) {
            Some(_) => set.iter_mut().find(same),
            None => set.iter_mut().min_by_key(|d| d.ts),
        };
        if let Some(place) = place {
            *place = datagram;
        }
    }

    /// The datagram of a later fragment that comes at `ts`.
    pub(crate) fn find(&mut self, hash: u64, key: &Key, id: u32, ts: u64) -> Option<Datagram> {
        let wait = self.wait;
        let found = self.set(hash, id)?.iter_mut().find(|datagram| datagram.is(key, id))?;
        if ts.abs_diff(found.ts) > wait {
            found.ts = 0;
            return None;
        }
        found.ts = found.ts.max(ts);
        Some(*found)
    }

    /// The same, without noting that the fragment came.
    pub(crate) fn peek(&self, hash: u64, key: &Key, id: u32, ts: u64) -> Option<&Datagram> {
        let set = self.sets.get(self.place(hash, id)?)?;
        let found = set.iter().find(|datagram| datagram.is(key, id))?;
        (ts.abs_diff(found.ts) <= self.wait).then_some(found)
    }
}
