//! What a sidecar's lists and dictionaries are made of: one pass over the rows, then sorting numbers.

use super::entry::{NO_ADDRESS, encode_stack};
use super::layout::STACK_LEN;
use super::lists::KeyKind;
use crate::bytes::{index, len32};
use crate::rows::{Row, Subject};
use std::collections::HashMap;
use std::net::IpAddr;

/// Dictionaries and lists over the rows in sidecar order.
#[derive(Default)]
pub(super) struct RowIndex {
    /// Section Addresses4.
    pub(super) v4: Vec<u8>,
    /// Section Addresses6.
    pub(super) v6: Vec<u8>,
    /// Section Macs.
    pub(super) macs: Vec<u8>,
    /// Section Stacks: distinct, ascending.
    pub(super) stacks: Vec<[u8; STACK_LEN]>,
    /// The place in `stacks` of each stack as [`RowKeys::add`] numbered it.
    pub(super) places: Vec<u32>,
    /// Numbers of each row's two addresses.
    pub(super) addresses: Vec<[u32; 2]>,
    /// (key, row) pairs of the lists, strictly ascending.
    pub(super) pairs: Vec<(u64, u32)>,
}

/// What the rows can be found by, as they come in sidecar order.
#[derive(Default)]
pub(super) struct RowKeys {
    v4: Vec<(u32, Side)>,
    v6: Vec<(u128, Side)>,
    macs: Vec<([u8; 6], Side)>,
    values: Vec<(u64, u32)>,
    rows: u32,
    stacks: HashMap<[u8; STACK_LEN], u32>,
    /// The stack of the row before. Nearly all rows of a link have that of their neighbour.
    last: Option<([u8; STACK_LEN], u32)>,
}

/// Row number and side: 0 = a, 1 = b.
type Side = (u32, u8);

impl RowIndex {
    /// Numbers the distinct addresses from `first` on, in order; returns the number behind the last.
    fn number<T: Ord + Copy>(
        &mut self,
        mut sides: Vec<(T, Side)>,
        first: u32,
        put: impl Fn(T, &mut Self),
    ) -> u32 {
        sides.sort_unstable();
        let mut number = first;
        for same in sides.chunk_by(|x, y| x.0 == y.0) {
            let Some((address, _)) = same.first() else { continue };
            put(*address, self);
            let mut previous = None;
            for (_, (row, side)) in same {
                if let Some([a, b]) = self.addresses.get_mut(index(*row)) {
                    *(if *side == 0 { a } else { b }) = number;
                }
                if previous.replace(*row) != Some(*row) {
                    self.pairs.push((KeyKind::Address.key(number), *row));
                }
            }
            number += 1;
        }
        number
    }
}

impl RowKeys {
    /// The index of all rows so far.
    pub(super) fn index(self) -> RowIndex {
        let Self { v4, v6, macs, mut values, rows, stacks, .. } = self;
        let mut new = RowIndex { addresses: vec![[NO_ADDRESS; 2]; index(rows)], ..RowIndex::default() };
        let mut stacks: Vec<_> = stacks.into_iter().collect();
        stacks.sort_unstable();
        new.places = vec![0; stacks.len()];
        for ((stack, number), place) in stacks.into_iter().zip(0..) {
            new.stacks.push(stack);
            if let Some(slot) = new.places.get_mut(index(number)) {
                *slot = place;
            }
        }
        let first = new.number(v4, 0, |v4, out| out.v4.extend(v4.to_le_bytes()));
        let first = new.number(v6, first, |v6, out| out.v6.extend(v6.to_be_bytes()));
        new.number(macs, first, |mac, out| out.macs.extend(mac));
        values.sort_unstable();
        values.dedup();
        new.pairs.append(&mut values);
        new
    }

    /// Adds the next row; returns the number of its stack, in order of first appearance.
    pub(super) fn add(&mut self, row: &Row) -> u32 {
        let number = self.rows;
        self.rows += 1;
        match (row.addresses(), row.subject) {
            (Some((IpAddr::V4(a), IpAddr::V4(b))), _) => {
                self.v4.extend([(a.to_bits(), (number, 0)), (b.to_bits(), (number, 1))]);
            }
            (Some((IpAddr::V6(a), IpAddr::V6(b))), _) => {
                self.v6.extend([(a.to_bits(), (number, 0)), (b.to_bits(), (number, 1))]);
            }
            (_, Subject::Link { macs: Some((a, b)) }) => {
                self.macs.extend([(a, (number, 0)), (b, (number, 1))]);
            }
            _ => {}
        }
        let mut add = |kind: KeyKind, value: u32| self.values.push((kind.key(value), number));
        row.ports().into_iter().flat_map(|(a, b)| [a, b]).for_each(|port| add(KeyKind::Port, port.into()));
        row.tags.vlans().iter().for_each(|vlan| add(KeyKind::Vlan, (*vlan).into()));
        row.tags.labels().iter().for_each(|label| add(KeyKind::Label, *label));
        row.tunnel_id.into_iter().for_each(|id| add(KeyKind::TunnelId, id));
        row.pppoe.into_iter().for_each(|session| add(KeyKind::Pppoe, session.into()));
        if matches!(row.subject, Subject::Coarse | Subject::Opaque) {
            add(KeyKind::Always, 0);
        }
        let stack = encode_stack(row);
        match self.last {
            Some((last, number)) if last == stack => number,
            _ => {
                let next = len32(self.stacks.len());
                let number = *self.stacks.entry(stack).or_insert(next);
                self.last = Some((stack, number));
                number
            }
        }
    }
}
