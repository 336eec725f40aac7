//! Candidate rows by property: which rows a filter term cannot exclude.
//!
//! Every answer is a list of row numbers in ascending order. Rows in [`Sidecar::always_rows`] belong to
//! every candidate set and are not in the others.

use super::layout::Section;
use super::lists::KeyKind;
use super::read::{Sidecar, SidecarError};
use crate::rows::Subject;
use std::net::IpAddr;
use std::ops::{Range, RangeInclusive};
use tapedeck_packet::{CommunityId, FlowKey};

/// A numeric property with lists of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// Transport port, either side, of layers that show their ports (not ICMP).
    Port,
    /// VLAN id, at any depth.
    Vlan,
    /// MPLS label, at any depth.
    Label,
    /// VNI, GRE key, TEID, ERSPAN session.
    TunnelId,
    /// PPPoE session.
    Pppoe,
}

impl Property {
    fn kind(self) -> KeyKind {
        match self {
            Self::Port => KeyKind::Port,
            Self::Vlan => KeyKind::Vlan,
            Self::Label => KeyKind::Label,
            Self::TunnelId => KeyKind::TunnelId,
            Self::Pppoe => KeyKind::Pppoe,
        }
    }
}

impl Sidecar {
    /// Rows that no property can exclude: coarse and opaque ones.
    ///
    /// # Errors
    /// [`SidecarError`] of the sections Fences and Lists.
    pub fn always_rows(&self) -> Result<Vec<u32>, SidecarError> {
        self.list_rows(KeyKind::Always.key(0), KeyKind::Always.key(0))
    }

    /// Rows with `property` in `range`.
    ///
    /// # Errors
    /// [`SidecarError`] of the sections Fences and Lists.
    pub fn rows_with(
        &self,
        property: Property,
        range: RangeInclusive<u32>,
    ) -> Result<Vec<u32>, SidecarError> {
        let kind = property.kind();
        self.list_rows(kind.key(*range.start()), kind.key(*range.end()))
    }

    /// IP and ARP rows with this address on either side.
    ///
    /// # Errors
    /// [`SidecarError`] of the sections Addresses, Fences and Lists.
    pub fn rows_of_address(&self, addr: IpAddr) -> Result<Vec<u32>, SidecarError> {
        self.rows_of_net(addr..=addr)
    }

    /// IP and ARP rows with an address in `range` on either side; both ends of one family, else none.
    ///
    /// # Errors
    /// [`SidecarError`] of the sections Addresses, Fences and Lists.
    pub fn rows_of_net(&self, range: RangeInclusive<IpAddr>) -> Result<Vec<u32>, SidecarError> {
        match (range.start(), range.end()) {
            (IpAddr::V4(low), IpAddr::V4(high)) => {
                let element = |number| self.element(Section::Addresses4, number).map(u32::from_le_bytes);
                self.numbers(Section::Addresses4, 0, low.to_bits()..=high.to_bits(), element)
            }
            (IpAddr::V6(low), IpAddr::V6(high)) => {
                let before = self.count(Section::Addresses4);
                let element = |number| self.element(Section::Addresses6, number).map(u128::from_be_bytes);
                self.numbers(Section::Addresses6, before, low.to_bits()..=high.to_bits(), element)
            }
            _ => Ok(Vec::new()),
        }
    }

    /// Rows of [`Subject::Link`] with this MAC address on either side. IP and ARP rows do not know theirs.
    ///
    /// # Errors
    /// [`SidecarError`] of the sections Macs, Fences and Lists.
    pub fn rows_of_mac(&self, mac: [u8; 6]) -> Result<Vec<u32>, SidecarError> {
        let before = self.count(Section::Addresses4).saturating_add(self.count(Section::Addresses6));
        self.numbers(Section::Macs, before, mac..=mac, |number| self.element(Section::Macs, number))
    }

    /// IP rows whose Community ID v1 with seed 0 is `id`. Where the protocol's ports were not shown a
    /// layer has no Community ID.
    ///
    /// # Errors
    /// [`SidecarError`] of the sections a row is read from.
    pub fn rows_of_community(&self, id: CommunityId) -> Result<Vec<u32>, SidecarError> {
        let mut rows = Vec::new();
        for number in self.rows_of_hash(id.prefix64())? {
            if self.row(number)?.0.community_id() == Some(id) {
                rows.push(number);
            }
        }
        Ok(rows)
    }

    /// IP rows with this flow key. `ports_known` = the layer shows its ports; false finds the rows of later
    /// fragments and cut headers, whose ports are 0 in the key.
    ///
    /// # Errors
    /// [`SidecarError`] of the sections a row is read from.
    pub fn rows_of_flow(&self, flow: &FlowKey, ports_known: bool) -> Result<Vec<u32>, SidecarError> {
        let with_ports = ports_known && CommunityId::hashes_ports(flow.proto);
        let hash = flow.community_id(with_ports, 0).prefix64();
        let mut rows = Vec::new();
        for number in self.rows_of_hash(hash)? {
            if let Subject::Ip { key, ports_known: known, .. } = self.row(number)?.0.subject
                && key == *flow
                && known == ports_known
            {
                rows.push(number);
            }
        }
        Ok(rows)
    }

    /// Rows with this row hash; rows are sorted by it.
    fn rows_of_hash(&self, hash: u64) -> Result<Range<u32>, SidecarError> {
        let count = self.summary().rows;
        let key = |number| self.row_entry(number).map(|entry| entry.hash);
        let start = partition(count, |number| Ok(key(number)? < hash))?;
        let end = partition(count, |number| Ok(key(number)? <= hash))?;
        Ok(start..end.max(start))
    }

    /// Rows of the addresses of a section that lie in `range`; `before` addresses have smaller numbers.
    fn numbers<T: Ord>(
        &self,
        section: Section,
        before: u32,
        range: RangeInclusive<T>,
        element: impl Fn(u32) -> Result<T, SidecarError>,
    ) -> Result<Vec<u32>, SidecarError> {
        let count = self.count(section);
        let start = partition(count, |number| Ok(element(number)? < *range.start()))?;
        let end = partition(count, |number| Ok(element(number)? <= *range.end()))?;
        if start >= end {
            return Ok(Vec::new());
        }
        let key = |number: u32| KeyKind::Address.key(before.saturating_add(number));
        self.list_rows(key(start), key(end - 1))
    }
}

/// First number of `0..count` for which `before` is false, by binary search.
fn partition(count: u32, before: impl Fn(u32) -> Result<bool, SidecarError>) -> Result<u32, SidecarError> {
    let (mut low, mut high) = (0, count);
    while low < high {
        let middle = low.midpoint(high);
        if before(middle)? { low = middle + 1 } else { high = middle }
    }
    Ok(low)
}
