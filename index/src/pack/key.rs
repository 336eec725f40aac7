//! What can be looked up in a pack, and where a key's bits stand.

use super::layout::{BITS_PER_KEY, BLOCK_ROWS};
use crate::bytes::index;
use std::net::{Ipv4Addr, Ipv6Addr};
use xxhash_rust::xxh3::xxh3_128;

/// First port that is left out of a pack where a segment has very many of its kind: from here on ports are
/// mostly the ephemeral side of a flow.
pub const HIGH_PORT: u16 = 32_768;
/// Distinct ports from [`HIGH_PORT`] on of a segment that a pack keeps; with more it keeps none of them, and the
/// segment counts as having each.
pub const HIGH_PORTS_MAX: usize = 4_096;

/// Kinds of keys; the numbers are those on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum KeyKind {
    /// Row hash of an IP row: the first eight bytes of its Community ID.
    Flow,
    /// IPv4 address of an IP or ARP row.
    V4,
    /// First 24 bits of one.
    V4Net24,
    /// First 16 bits of one.
    V4Net16,
    /// IPv6 address.
    V6,
    /// First 64 bits of one.
    V6Net64,
    /// First 48 bits of one.
    V6Net48,
    /// Transport port.
    Port,
    /// VLAN id.
    Vlan,
    /// MPLS label.
    Label,
    /// PPPoE session.
    Pppoe,
}

impl KeyKind {
    fn number(self) -> u8 {
        match self {
            Self::Flow => 0,
            Self::V4 => 1,
            Self::V4Net24 => 2,
            Self::V4Net16 => 3,
            Self::V6 => 4,
            Self::V6Net64 => 5,
            Self::V6Net48 => 6,
            Self::Port => 7,
            Self::Vlan => 8,
            Self::Label => 9,
            Self::Pppoe => 10,
        }
    }
}

/// A key: its kind and its value as a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// What it is.
    pub kind: KeyKind,
    /// Its value; of a network the upper bits alone, shifted down.
    pub value: u128,
}

impl Key {
    /// The key of a row hash.
    #[must_use]
    pub fn flow(hash: u64) -> Self {
        Self { kind: KeyKind::Flow, value: hash.into() }
    }

    /// The key of an IPv4 address.
    #[must_use]
    pub fn v4(address: Ipv4Addr) -> Self {
        Self { kind: KeyKind::V4, value: address.to_bits().into() }
    }

    /// The key of an IPv6 address.
    #[must_use]
    pub fn v6(address: Ipv6Addr) -> Self {
        Self { kind: KeyKind::V6, value: address.to_bits() }
    }

    /// Whether segments exist whose pack leaves this key out.
    #[must_use]
    pub fn is_high_port(&self) -> bool {
        self.kind == KeyKind::Port && self.value >= HIGH_PORT.into()
    }

    /// Where the bits of this key stand.
    pub(super) fn probe(&self) -> Probe {
        let mut bytes = [0; 17];
        if let Some((kind, value)) = bytes.split_first_mut() {
            *kind = self.kind.number();
            value.copy_from_slice(&self.value.to_le_bytes());
        }
        let hash = xxh3_128(&bytes);
        let half = |at: u32| u64::try_from((hash >> at) & u128::from(u64::MAX)).unwrap_or_default();
        let (low, high) = (half(0), half(64));
        let row = |bits: u64| u16::try_from(bits % u64::from(BLOCK_ROWS)).unwrap_or_default();
        let mut rows = [row(high); BITS_PER_KEY];
        // Nine bits each; the eighth row takes the lowest of the other half.
        rows.iter_mut().zip(0u32..7).for_each(|(slot, number)| *slot = row(low >> (9 * number)));
        Probe { high, rows }
    }
}

/// Where the bits of a key stand.
#[derive(Clone, Copy, Debug)]
pub(super) struct Probe {
    high: u64,
    /// Rows within the block.
    pub(super) rows: [u16; BITS_PER_KEY],
}

impl Probe {
    /// The block, of `blocks`: by the uppermost bits.
    pub(super) fn block(&self, blocks: u32) -> u32 {
        share(self.high, blocks)
    }

    /// The column among the `columns` of a segment: by bits 9 to 40.
    pub(super) fn column(&self, columns: u16) -> usize {
        index(share(self.high << 23, columns.into()))
    }
}

/// A number below `of`, in proportion to `hash` among all numbers of 64 bits; 0 if `of` is.
fn share(hash: u64, of: u32) -> u32 {
    u32::try_from((u128::from(hash) * u128::from(of)) >> 64).unwrap_or_default()
}
