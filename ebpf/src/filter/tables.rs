//! The tables of a filter, as `filter.h` reads them.
//!
//! Rules become clauses, at most 64, each a bit. Rules that differ in one kind of question only, and have one such
//! question each, share a clause: a thousand networks are one. Each table says for a value (an address, a
//! tag, a protocol, a port) which clauses it answers with yes.

use super::{Filter, Network, Proto, RangeOfPorts, Rule, Vlan, masked};
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

/// VLAN ids, ports, and protocols of both IP versions.
pub(crate) const VLANS: usize = 4096;
pub(crate) const PORTS: usize = 65_536;
pub(crate) const PROTOS: usize = 512;

/// One or two questions of a kind; an empty set is not asked.
type Pair<T> = [BTreeSet<T>; 2];

/// A conjunction of questions, each with alternatives.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Clause {
    nets: Pair<Network>,
    vlans: Pair<Vlan>,
    protos: BTreeSet<Proto>,
    ports: BTreeSet<RangeOfPorts>,
}

impl Clause {
    fn of(rule: &Rule) -> Self {
        Self {
            nets: pair(&rule.nets),
            vlans: pair(&rule.vlans),
            protos: rule.proto.into_iter().collect(),
            ports: rule.ports.into_iter().collect(),
        }
    }
}

fn pair<T: Copy + Ord>(list: &[T]) -> Pair<T> {
    let set = |at: usize| list.get(at).copied().into_iter().collect();
    [set(0), set(1)]
}

/// The clauses that mean what any of the rules means.
pub(super) fn clauses(rules: &[Rule]) -> Vec<Clause> {
    let mut clauses: Vec<Clause> = rules.iter().map(Clause::of).collect();
    // Where a second network or tag is asked for, the first ones are merged: the second is equal.
    merge(&mut clauses, |clause| &mut clause.nets[0]);
    merge(&mut clauses, |clause| &mut clause.vlans[0]);
    merge(&mut clauses, |clause| &mut clause.protos);
    merge(&mut clauses, |clause| &mut clause.ports);
    clauses
}

/// Joins clauses that differ in one question only; a clause that does not ask it stays alone.
fn merge<T: Ord>(clauses: &mut Vec<Clause>, question: impl Fn(&mut Clause) -> &mut BTreeSet<T>) {
    let mut joined: BTreeMap<Clause, BTreeSet<T>> = BTreeMap::new();
    let mut alone = Vec::new();
    for mut clause in clauses.drain(..) {
        let asked = std::mem::take(question(&mut clause));
        if asked.is_empty() {
            alone.push(clause);
        } else {
            joined.entry(clause).or_default().extend(asked);
        }
    }
    clauses.extend(alone);
    clauses.extend(joined.into_iter().map(|(mut clause, asked)| {
        *question(&mut clause) = asked;
        clause
    }));
}

/// `struct td_pair`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Bits {
    pub(crate) a: u64,
    pub(crate) b: u64,
}

impl Bits {
    pub(crate) fn bytes(self) -> [u8; 16] {
        let mut out = [0; 16];
        let (a, b) = out.split_at_mut(8);
        a.copy_from_slice(&self.a.to_ne_bytes());
        b.copy_from_slice(&self.b.to_ne_bytes());
        out
    }

    fn set<T>(&mut self, bit: u64, sets: &Pair<T>, holds: impl Fn(&BTreeSet<T>) -> bool) {
        let [a, b] = sets;
        self.a |= if holds(a) { bit } else { 0 };
        self.b |= if holds(b) { bit } else { 0 };
    }
}

/// The tables of one filter.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tables {
    pub(crate) keep: u64,
    pub(crate) skip: u64,
    pub(crate) any_net: Bits,
    pub(crate) any_vlan: Bits,
    pub(crate) any_proto: u64,
    pub(crate) any_port: u64,
    /// Each network with the clauses of those that hold it.
    pub(crate) nets: Vec<(Network, Bits)>,
    pub(crate) vlans: Vec<Bits>,
    pub(crate) protos: Vec<u64>,
    pub(crate) ports: Vec<u64>,
}

impl Tables {
    pub(crate) fn of(filter: &Filter) -> Self {
        let (keep, skip) = filter.rules();
        let (keep, skip) = (clauses(keep), clauses(skip));
        let kept = keep.len();
        let clauses: Vec<(u64, Clause)> =
            (0..64).map(|bit| 1_u64 << bit).zip(keep.into_iter().chain(skip)).collect();
        let mut tables = Self {
            vlans: vec![Bits::default(); VLANS],
            protos: vec![0; PROTOS],
            ports: vec![0; PORTS],
            ..Self::default()
        };
        for (at, (bit, clause)) in clauses.iter().enumerate() {
            *(if at < kept { &mut tables.keep } else { &mut tables.skip }) |= bit;
            tables.note(*bit, clause);
        }
        tables.nets = networks(&clauses);
        tables
    }

    /// Everything but the networks.
    fn note(&mut self, bit: u64, clause: &Clause) {
        self.any_net.set(bit, &clause.nets, BTreeSet::is_empty);
        self.any_vlan.set(bit, &clause.vlans, BTreeSet::is_empty);
        for (id, slot) in (0_u16..).zip(&mut self.vlans) {
            slot.set(bit, &clause.vlans, |asked| {
                asked.contains(&Vlan::Tagged) || asked.contains(&Vlan::Id(id))
            });
        }
        if clause.protos.is_empty() {
            self.any_proto |= bit;
        }
        for (six, version) in [false, true].into_iter().zip(self.protos.chunks_mut(PROTOS / 2)) {
            for (number, slot) in (0_u8..=u8::MAX).zip(version) {
                if clause.protos.iter().any(|asked| asked.is(six, number)) {
                    *slot |= bit;
                }
            }
        }
        if clause.ports.is_empty() {
            self.any_port |= bit;
        }
        for ports in &clause.ports {
            let (first, count) = (usize::from(ports.first), ports.range().len());
            for slot in self.ports.iter_mut().skip(first).take(count) {
                *slot |= bit;
            }
        }
    }
}

/// Each network that is named, with the clauses that name it or one around it: the kernel finds the
/// longest prefix only.
fn networks(clauses: &[(u64, Clause)]) -> Vec<(Network, Bits)> {
    let mut named: BTreeMap<Network, Bits> = BTreeMap::new();
    for (bit, clause) in clauses {
        let [a, b] = &clause.nets;
        for net in a {
            named.entry(*net).or_default().a |= bit;
        }
        for net in b {
            named.entry(*net).or_default().b |= bit;
        }
    }
    let around = |net: &Network| {
        let mut all = Bits::default();
        for bits in 0..=net.bits {
            let outer = Network { address: masked(net.address, bits), bits };
            if let Some(found) = named.get(&outer) {
                all = Bits { a: all.a | found.a, b: all.b | found.b };
            }
        }
        all
    };
    named.keys().map(|net| (*net, around(net))).collect()
}

/// The key of a network: `struct td_net4`, `struct td_net6`.
pub(crate) fn key(net: &Network, slot: u32) -> Vec<u8> {
    let mut key = (u32::from(net.bits) + 32).to_ne_bytes().to_vec();
    key.extend_from_slice(&slot.to_ne_bytes());
    match net.address {
        IpAddr::V4(address) => key.extend_from_slice(&address.octets()),
        IpAddr::V6(address) => key.extend_from_slice(&address.octets()),
    }
    key
}
