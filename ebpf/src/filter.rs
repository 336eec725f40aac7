//! Which packets are recorded: rules that keep and rules that skip.
//!
//! A [`Filter`] is decided in two places that must agree: by [`Filter::takes`] here, for sources without an
//! XDP program, and by the program (`filter.h`) from the [`tables`] that are made of the rules. Both look at the
//! first [`WINDOW`] bytes of a packet and at its outermost layer only.
//!
//! It must never leave a packet out that it could not read: what is unknown counts as a yes to a rule that
//! keeps, and as a no to a rule that skips.

mod heads;
mod load;
mod parse;
mod tables;

pub use heads::WINDOW;
pub(crate) use load::FilterMaps;
pub use parse::RuleError;

use heads::{Answer, Heads};
use std::collections::BTreeSet;
use std::fmt;
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;

/// Rules of a filter at most. The worker of an interface without XDP asks them one after the other.
pub const RULES_MAX: usize = 1024;
/// Bytes of a filter's text at most: it stands in the header of every segment.
pub const TEXT_MAX: usize = 32_000;

/// A network: the addresses that begin as `address` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Network {
    pub(crate) address: IpAddr,
    pub(crate) bits: u8,
}

impl Network {
    fn has(&self, address: IpAddr) -> bool {
        masked(address, self.bits) == self.address
    }
}

/// The address with all but its first bits 0.
pub(crate) fn masked(address: IpAddr, bits: u8) -> IpAddr {
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(32 - u32::from(bits.min(32))).unwrap_or(0);
            IpAddr::V4((address.to_bits() & mask).into())
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(128 - u32::from(bits.min(128))).unwrap_or(0);
            IpAddr::V6((address.to_bits() & mask).into())
        }
    }
}

/// IP protocols a rule can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Proto {
    /// In IPv4 and IPv6.
    Any(u8),
    /// ICMP, in IPv4.
    Icmp,
    /// ICMPv6, in IPv6.
    Icmp6,
}

impl Proto {
    /// Whether a packet of this protocol and version is meant.
    pub(crate) fn is(self, six: bool, proto: u8) -> bool {
        match self {
            Self::Any(number) => proto == number,
            Self::Icmp => !six && proto == 1,
            Self::Icmp6 => six && proto == 58,
        }
    }
}

/// VLAN ids a rule can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Vlan {
    /// Any tag.
    Tagged,
    /// A tag with this id.
    Id(u16),
}

/// A conjunction of questions about the outermost layer of a packet: in which networks its addresses lie, which
/// VLAN tags it has, its protocol, its ports. Written and meant as in tcpdump; see docs/operations.md.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// At most two: each holds source or destination.
    pub(crate) nets: Vec<Network>,
    /// At most two: each is among the tags.
    pub(crate) vlans: Vec<Vlan>,
    pub(crate) proto: Option<Proto>,
    /// Source or destination port.
    pub(crate) ports: Option<RangeOfPorts>,
}

/// Ports from the first to the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RangeOfPorts {
    pub(crate) first: u16,
    pub(crate) last: u16,
}

impl RangeOfPorts {
    pub(crate) fn range(self) -> RangeInclusive<u16> {
        self.first..=self.last
    }
}

impl FromStr for Rule {
    type Err = RuleError;

    fn from_str(text: &str) -> Result<Self, RuleError> {
        parse::rule(text)
    }
}

impl Rule {
    /// Whether the packet is meant.
    fn answer(&self, heads: &Heads) -> Answer {
        let nets = self.nets.iter().map(|net| heads.address(|address| net.has(address)));
        let vlans = self.vlans.iter().map(|vlan| match vlan {
            Vlan::Tagged => heads.vlan(|_| true),
            Vlan::Id(id) => heads.vlan(|tag| tag == *id),
        });
        let proto = self.proto.map(|asked| heads.proto(|six, proto| asked.is(six, proto)));
        let ports = self.ports.map(|ports| heads.port(|port| ports.range().contains(&port)));
        nets.chain(vlans).chain(proto).chain(ports).fold(Answer::Yes, Answer::and)
    }
}

/// What is recorded: with rules that keep, what any of them means, else everything; but never what a rule that
/// skips means.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    keep: Vec<Rule>,
    skip: Vec<Rule>,
}

/// Why rules make no filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FilterError {
    /// Too many of them.
    #[error("{0} rules; a filter has {RULES_MAX} at most")]
    Rules(usize),
    /// More clauses than the program has bits.
    #[error("the rules combine networks, ports, protocols and VLANs in {0} ways; 64 are possible")]
    Clauses(usize),
    /// Longer than a segment's header takes.
    #[error("the rules are {0} bytes long; {TEXT_MAX} fit into a segment's header")]
    Text(usize),
}

impl FilterError {
    /// What the operator can do about it.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Rules(_) | Self::Text(_) => "take larger networks or `portrange`",
            Self::Clauses(_) => {
                "rules that ask for a network only (or for a port only, a VLAN only) count as one; so do rules that \
                 differ in one of these only"
            }
        }
    }
}

impl Filter {
    /// A filter of rules; those that say the same count once.
    ///
    /// # Errors
    /// [`FilterError`]: more than the program can hold.
    pub fn new(keep: Vec<Rule>, skip: Vec<Rule>) -> Result<Self, FilterError> {
        let unique = |rules: Vec<Rule>| {
            let mut seen = BTreeSet::new();
            rules.into_iter().filter(|rule| seen.insert(rule.clone())).collect::<Vec<_>>()
        };
        let filter = Self { keep: unique(keep), skip: unique(skip) };
        let rules = filter.keep.len() + filter.skip.len();
        if rules > RULES_MAX {
            return Err(FilterError::Rules(rules));
        }
        let clauses = tables::clauses(&filter.keep).len() + tables::clauses(&filter.skip).len();
        if clauses > 64 {
            return Err(FilterError::Clauses(clauses));
        }
        let bytes = filter.to_string().len();
        if bytes > TEXT_MAX { Err(FilterError::Text(bytes)) } else { Ok(filter) }
    }

    /// Whether every packet is taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keep.is_empty() && self.skip.is_empty()
    }

    /// Whether a packet is taken; `packet` begins with its Ethernet header and should hold [`WINDOW`] bytes, or
    /// all that were on the wire.
    #[must_use]
    pub fn takes(&self, packet: &[u8]) -> bool {
        if self.is_empty() {
            return true;
        }
        let heads = Heads::of(packet);
        let kept = self.keep.is_empty() || self.keep.iter().any(|rule| rule.answer(&heads) != Answer::No);
        kept && !self.skip.iter().any(|rule| rule.answer(&heads) == Answer::Yes)
    }

    pub(crate) fn rules(&self) -> (&[Rule], &[Rule]) {
        (&self.keep, &self.skip)
    }
}

/// The filter in tcpdump's words: what is recorded. Nothing if that is everything.
impl fmt::Display for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let any = |f: &mut fmt::Formatter<'_>, rules: &[Rule]| {
            let mut or = "(";
            for rule in rules {
                let compound = rule.questions() > 1;
                let (open, close) = if compound { ("(", ")") } else { ("", "") };
                write!(f, "{or}{open}{rule}{close}")?;
                or = " or ";
            }
            f.write_str(")")
        };
        if !self.keep.is_empty() {
            any(f, &self.keep)?;
        }
        if !self.skip.is_empty() {
            f.write_str(if self.keep.is_empty() { "not " } else { " and not " })?;
            any(f, &self.skip)?;
        }
        Ok(())
    }
}

impl Rule {
    fn questions(&self) -> usize {
        let transport = usize::from(self.proto.is_some() || self.ports.is_some());
        self.nets.len() + self.vlans.len() + transport
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts = Vec::new();
        parts.extend(self.vlans.iter().map(|vlan| match vlan {
            Vlan::Tagged => "vlan".to_owned(),
            Vlan::Id(id) => format!("vlan {id}"),
        }));
        for Network { address, bits } in &self.nets {
            let whole = if address.is_ipv4() { 32 } else { 128 };
            parts.push(if *bits == whole {
                format!("host {address}")
            } else {
                format!("net {address}/{bits}")
            });
        }
        let ports = self.ports.map(|RangeOfPorts { first, last }| {
            if first == last { format!("port {first}") } else { format!("portrange {first}-{last}") }
        });
        let (name, numbered) = self.proto.map_or((None, false), |proto| match proto {
            Proto::Any(6) => (Some("tcp".to_owned()), false),
            Proto::Any(17) => (Some("udp".to_owned()), false),
            Proto::Any(132) => (Some("sctp".to_owned()), false),
            Proto::Any(number) => (Some(format!("proto {number}")), true),
            Proto::Icmp => (Some("icmp".to_owned()), false),
            Proto::Icmp6 => (Some("icmp6".to_owned()), false),
        });
        match (name, ports) {
            (Some(name), Some(ports)) if numbered => parts.push(format!("{name} and {ports}")),
            (Some(name), Some(ports)) => parts.push(format!("{name} {ports}")),
            (Some(one), None) | (None, Some(one)) => parts.push(one),
            (None, None) => {}
        }
        f.write_str(&parts.join(" and "))
    }
}

#[cfg(test)]
mod tests;
