//! Ascending lists of numbers as gaps, and the keyed lists (address, port, tag -> rows).
//!
//! Any bytes decode to a strictly ascending list or to an error: nothing can loop or go back.

use super::layout::FENCE_LEN;
use crate::bytes::{len64, put_varint, take, take_varint, u64_at};

/// Keys between two fences.
const FENCE_EVERY: usize = 64;

/// What a key of the lists means; the upper half of the key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyKind {
    /// Number of an address: IPv4, then IPv6, then MAC addresses, each in order.
    Address,
    /// Transport port.
    Port,
    /// VLAN id.
    Vlan,
    /// MPLS label.
    Label,
    /// Tunnel id.
    TunnelId,
    /// PPPoE session.
    Pppoe,
    /// Rows that no key can exclude (coarse, opaque); value 0.
    Always,
}

impl KeyKind {
    /// The key of a value.
    pub(super) fn key(self, value: u32) -> u64 {
        let kind: u64 = match self {
            Self::Address => 0,
            Self::Port => 1,
            Self::Vlan => 2,
            Self::Label => 3,
            Self::TunnelId => 4,
            Self::Pppoe => 5,
            Self::Always => 6,
        };
        (kind << 32) | u64::from(value)
    }

    /// What a key means; `None` for one of no kind.
    pub(super) fn of_key(key: u64) -> Option<Self> {
        Some(match key >> 32 {
            0 => Self::Address,
            1 => Self::Port,
            2 => Self::Vlan,
            3 => Self::Label,
            4 => Self::TunnelId,
            5 => Self::Pppoe,
            6 => Self::Always,
            _ => return None,
        })
    }
}

/// Appends a strictly ascending list: the first number, then each gap minus one.
pub(super) fn put_gaps(out: &mut Vec<u8>, numbers: impl IntoIterator<Item = u32>) {
    let mut next = 0;
    for number in numbers {
        put_varint(out, u64::from(number) - next);
        next = u64::from(number) + 1;
    }
}

/// The numbers of a gap list, all below `limit`; `Err(())` once where the bytes are no such list.
#[derive(Clone, Debug)]
pub(super) struct Gaps<'a> {
    rest: &'a [u8],
    next: u64,
    limit: u32,
}

impl<'a> Gaps<'a> {
    pub(super) fn new(rest: &'a [u8], limit: u32) -> Self {
        Self { rest, next: 0, limit }
    }
}

impl Iterator for Gaps<'_> {
    type Item = Result<u32, ()>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.rest.is_empty() {
            return None;
        }
        let number = take_varint(&mut self.rest)
            .and_then(|gap| self.next.checked_add(gap))
            .and_then(|number| u32::try_from(number).ok())
            .filter(|number| *number < self.limit);
        let Some(number) = number else {
            self.rest = &[];
            return Some(Err(()));
        };
        self.next = u64::from(number) + 1;
        Some(Ok(number))
    }
}

/// Writes the sections Fences and Lists from (key, row) pairs in strictly ascending order.
pub(super) fn encode(pairs: &[(u64, u32)]) -> (Vec<u8>, Vec<u8>) {
    let (mut fences, mut lists, mut rows) = (Vec::new(), Vec::new(), Vec::new());
    let mut previous = 0;
    for (number, run) in pairs.chunk_by(|x, y| x.0 == y.0).enumerate() {
        let key = run.first().map_or(0, |(key, _)| *key);
        if number % FENCE_EVERY == 0 {
            fences.extend_from_slice(&key.to_le_bytes());
            fences.extend_from_slice(&len64(lists.len()).to_le_bytes());
            previous = key;
        }
        rows.clear();
        put_gaps(&mut rows, run.iter().map(|(_, row)| *row));
        put_varint(&mut lists, key - previous);
        put_varint(&mut lists, len64(rows.len()));
        lists.extend_from_slice(&rows);
        previous = key;
    }
    (fences, lists)
}

/// The lists of a sidecar.
#[derive(Clone, Copy, Debug)]
pub(super) struct Lists<'a> {
    pub(super) fences: &'a [u8],
    pub(super) lists: &'a [u8],
    /// Rows of the segment.
    pub(super) rows: u32,
}

impl<'a> Lists<'a> {
    /// Appends the rows of all keys in `low..=high` to `out`, key by key; `None` where the section is
    /// no list of keys.
    pub(super) fn rows_of(&self, low: u64, high: u64, out: &mut Vec<u32>) -> Option<()> {
        let mut cursor = self.seek(low)?;
        while let Some((key, rows)) = cursor.next_key()? {
            if key > high {
                break;
            }
            if key >= low {
                for row in Gaps::new(rows, self.rows) {
                    out.push(row.ok()?);
                }
            }
        }
        Some(())
    }

    /// Every key from `low` on, ascending; `None` where the section is no list of keys.
    pub(super) fn each_key(&self, low: u64, mut see: impl FnMut(u64)) -> Option<()> {
        let mut cursor = self.seek(low)?;
        while let Some((key, _)) = cursor.next_key()? {
            if key >= low {
                see(key);
            }
        }
        Some(())
    }

    /// A cursor at the last fence whose key is not above `key`.
    fn seek(&self, key: u64) -> Option<Cursor<'a>> {
        let count = self.fences.len() / FENCE_LEN;
        let fence = |number: usize| {
            let at = number * FENCE_LEN;
            Some((u64_at(self.fences, at)?, u64_at(self.fences, at + 8)?))
        };
        // Binary search for the number of fences whose key is at most `key`.
        let (mut low, mut high) = (0, count);
        while low < high {
            let middle = low.midpoint(high);
            if fence(middle)?.0 <= key { low = middle + 1 } else { high = middle }
        }
        let number = low.saturating_sub(1);
        let start = if count == 0 { 0 } else { fence(number)?.1 };
        let rest = self.lists.get(usize::try_from(start).ok()?..)?;
        Some(Cursor { fences: self.fences, number, in_block: 0, key: 0, rest })
    }
}

/// Walks the lists key by key.
struct Cursor<'a> {
    fences: &'a [u8],
    /// Number of the current fence.
    number: usize,
    /// Keys already read behind that fence.
    in_block: usize,
    key: u64,
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    /// The next key and the bytes of its rows; `Some(None)` at the end, `None` on damage.
    fn next_key(&mut self) -> Option<Option<(u64, &'a [u8])>> {
        if self.rest.is_empty() {
            return Some(None);
        }
        if self.in_block == FENCE_EVERY {
            self.number += 1;
            self.in_block = 0;
        }
        if self.in_block == 0 {
            self.key = u64_at(self.fences, self.number * FENCE_LEN)?;
        }
        self.key = self.key.checked_add(take_varint(&mut self.rest)?)?;
        let len = usize::try_from(take_varint(&mut self.rest)?).ok()?;
        self.in_block += 1;
        Some(Some((self.key, take(&mut self.rest, len)?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn lookups_match_the_pairs(
            pairs in prop::collection::btree_set((0..400u64, 0..500u32), 0..900),
            low in 0..400u64, len in 0..40u64,
        ) {
            let pairs = pairs.into_iter().collect::<Vec<_>>();
            let (fences, lists) = encode(&pairs);
            let lists = Lists { fences: &fences, lists: &lists, rows: 500 };
            let mut found = Vec::new();
            lists.rows_of(low, low + len, &mut found).unwrap();
            let expected = pairs.iter().filter(|(key, _)| (low..=low + len).contains(key));
            prop_assert_eq!(found, expected.map(|(_, row)| *row).collect::<Vec<_>>());
        }

        #[test]
        fn gaps_round_trip(numbers: BTreeSet<u32>) {
            let mut bytes = Vec::new();
            put_gaps(&mut bytes, numbers.iter().copied());
            let back = Gaps::new(&bytes, u32::MAX).collect::<Result<BTreeSet<_>, ()>>();
            prop_assert_eq!(back, if numbers.contains(&u32::MAX) { Err(()) } else { Ok(numbers) });
        }

        #[test]
        fn any_bytes_end(fences: Vec<u8>, lists: Vec<u8>, low: u64, high: u64) {
            let _ = Lists { fences: &fences, lists: &lists, rows: 9 }.rows_of(low, high, &mut Vec::new());
            prop_assert!(Gaps::new(&lists, 9).count() <= lists.len());
        }
    }
}
