//! What an index row answers to the atoms of a filter: exactly what its packets' layers would answer, or
//! `Maybe` where a row does not keep it (lengths, MAC addresses of IP and ARP layers).

use crate::filter::{Atom, Expr, Facts, Headers, Tri};
use std::net::IpAddr;
use tapedeck_index::rows::{Row, Subject};

/// A row, in one of the directions its packets went.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RowFacts<'a> {
    row: &'a Row,
    headers: Headers<'a>,
    /// Source and destination MAC address.
    macs: Macs,
}

/// What a row knows of link-layer addresses.
#[derive(Clone, Copy, Debug)]
enum Macs {
    /// The layer has some; the row does not keep them.
    Unkept,
    /// The layer has none.
    None,
    /// Source and destination.
    Known([u8; 6], [u8; 6]),
}

impl<'a> RowFacts<'a> {
    /// The facts of `row` for packets that went from a to b, or from b to a.
    #[must_use]
    pub(crate) fn new(row: &'a Row, a_to_b: bool) -> Self {
        let (ends, proto, macs) = match row.subject {
            Subject::Ip { key, .. } => {
                let ends = ordered(a_to_b, (key.addr_a, key.addr_b));
                (Some(ends), Some(key.proto), Macs::Unkept)
            }
            Subject::Arp { a, b } => {
                let ends = ordered(a_to_b, (IpAddr::from(a), IpAddr::from(b)));
                (Some(ends), None, Macs::Unkept)
            }
            Subject::Link { macs: Some(macs) } => {
                let (src, dst) = ordered(a_to_b, macs);
                (None, None, Macs::Known(src, dst))
            }
            Subject::Link { macs: None } | Subject::Opaque | Subject::Coarse => (None, None, Macs::None),
        };
        let headers = Headers {
            ethertype: row.ethertype,
            vlans: row.tags.vlans(),
            labels: row.tags.labels(),
            pppoe: row.pppoe,
            ends,
            proto,
            ports: row.ports().map(|ports| ordered(a_to_b, ports)),
        };
        Self { row, headers, macs }
    }

    fn with_macs(&self, holds: impl Fn([u8; 6], [u8; 6]) -> bool) -> Tri {
        match self.macs {
            Macs::Unkept => Tri::Maybe,
            Macs::None => Tri::No,
            Macs::Known(src, dst) => Tri::from(holds(src, dst)),
        }
    }
}

/// (source, destination) of a pair (a, b).
fn ordered<T>(a_to_b: bool, (a, b): (T, T)) -> (T, T) {
    if a_to_b { (a, b) } else { (b, a) }
}

impl Facts for RowFacts<'_> {
    fn ask(&self, atom: &Atom) -> Tri {
        if self.row.subject == Subject::Coarse {
            return Tri::Maybe;
        }
        match atom {
            Atom::AtMost(_) | Atom::AtLeast(_) => Tri::Maybe,
            Atom::Mac { dir, mac } => self.with_macs(|src, dst| dir.holds(src == *mac, dst == *mac)),
            Atom::Broadcast => self.with_macs(|_, dst| dst == [0xff; 6]),
            Atom::Multicast => self.with_macs(|_, dst| dst.first().is_some_and(|byte| byte & 1 == 1)),
            Atom::CommunityId(id) => Tri::from(self.row.community_id() == Some(*id)),
            other => Tri::from(self.headers.answer(other)),
        }
    }

    fn inner(&self, _: &Expr) -> Tri {
        // About other layers of the packet, which this row does not know.
        Tri::Maybe
    }
}
