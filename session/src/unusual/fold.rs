//! What has one cause becomes one finding: in an hour, and over hours that follow each other.

use super::hours::{Hours, KeyId};
use super::judge::Candidate;
use super::kind::{Family, Kind};
use crate::stats::row::Regularity;
use std::collections::BTreeSet;
use std::net::IpAddr;
use tapedeck_packet::UtcHour;

/// An aggregate is explained by a host that has this share of its excess.
const EXPLAINS: f64 = 0.5;

/// A number that departs.
#[derive(Clone, Debug, PartialEq)]
pub struct Subject {
    /// Which.
    pub kind: Kind,
    /// Of what, as in the column `key`; empty for the whole interface.
    pub key: String,
}

/// A number that departs beside the one that stands out most.
#[derive(Clone, Debug, PartialEq)]
pub struct Also {
    /// Which.
    pub subject: Subject,
    /// What it was in the peak hour.
    pub observed: f64,
    /// The most, or the least, that was to be expected.
    pub expected: f64,
}

/// Something unusual.
#[derive(Clone, Debug, PartialEq)]
pub struct Finding {
    /// Where.
    pub interface: String,
    /// First hour.
    pub from: UtcHour,
    /// First hour behind it.
    pub to: UtcHour,
    /// The hour the numbers are of: the most unusual.
    pub peak: UtcHour,
    /// What stands out most.
    pub subject: Subject,
    /// What it was in the peak hour, at least.
    pub observed: f64,
    /// What was usual at this hour.
    pub usual: f64,
    /// The most, or for what is missing the least, that was to be expected.
    pub expected: f64,
    /// How far it stands out, as a multiple of what it takes to be listed.
    pub severity: f64,
    /// How regular a pair is.
    pub regularity: Option<Regularity>,
    /// What else departs, probably for the same reason.
    pub also: Vec<Also>,
}

impl Finding {
    /// The filter that shows its sessions; empty = all. `None` where there are none to show, since it is not IP.
    #[must_use]
    pub fn filter(&self) -> Option<String> {
        let Subject { kind, key } = &self.subject;
        let failed = "state S0 or state REJ or state RSTOS0 or state RSTRH or state SH or state SHR";
        let mut words = key.split(' ');
        let mut word = || words.next().unwrap_or_default();
        Some(match kind {
            Kind::EtherType => return None,
            Kind::FailedHandshakes => format!("tcp and ({failed})"),
            Kind::Failing => format!("host {key} and tcp and ({failed})"),
            Kind::Resets => {
                "tcp and (state RSTO or state RSTR or state REJ or state RSTOS0 or state RSTRH)".to_owned()
            }
            Kind::ProtocolBytes | Kind::ProtocolSessions => protocol(key),
            Kind::ServiceBytes | Kind::ServiceSessions | Kind::ServiceMissing => format!("service {key}"),
            Kind::PortBytes | Kind::PortSessions if key == "other" => String::new(),
            Kind::PortBytes | Kind::PortSessions => port(key),
            Kind::SourceBytes | Kind::DestinationBytes | Kind::Opener => format!("host {key}"),
            Kind::PairBytes => format!("host {} and host {}", word(), word()),
            Kind::Recurring => format!("host {} and host {} and {}", word(), word(), port(word())),
            _ => String::new(),
        })
    }
}

fn port(key: &str) -> String {
    match key.split_once('/') {
        Some((number, proto)) => format!("{proto} and port {number}"),
        None => protocol(key.trim_start_matches("proto-")),
    }
}

fn protocol(number: &str) -> String {
    match number {
        "1" => "icmp".to_owned(),
        "6" => "tcp".to_owned(),
        "17" => "udp".to_owned(),
        "58" => "icmp6".to_owned(),
        "132" => "sctp".to_owned(),
        number => format!("proto {number}"),
    }
}

/// Candidates that belong together; the first leads.
struct Group {
    candidates: Vec<Candidate>,
    hosts: BTreeSet<IpAddr>,
}

/// The findings of an hour.
pub(super) fn fold(
    hours: &Hours,
    interface: &str,
    hour: UtcHour,
    mut candidates: Vec<Candidate>,
) -> Vec<Finding> {
    candidates.sort_by(|a, b| {
        b.severity.total_cmp(&a.severity).then_with(|| (a.kind, a.key).cmp(&(b.kind, b.key)))
    });
    let (of_hosts, others): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|c| c.kind.is_of_hosts());
    let mut groups: Vec<Group> = Vec::new();
    for candidate in of_hosts {
        group_by_host(&mut groups, candidate, addresses(hours, candidate.key));
    }
    let mut rest: Vec<Group> = Vec::new();
    for candidate in others {
        match groups.iter_mut().find(|group| group.candidates.iter().any(|host| explains(host, &candidate))) {
            Some(group) => group.candidates.push(candidate),
            None => group_by_family(&mut rest, candidate),
        }
    }
    groups.extend(rest);
    groups.into_iter().filter_map(|group| finding(hours, interface, hour, group.candidates)).collect()
}

/// A host that is in two candidates has caused both; so two groups may turn out to be one.
fn group_by_host(groups: &mut Vec<Group>, candidate: Candidate, hosts: BTreeSet<IpAddr>) {
    let mut own = Group { candidates: vec![candidate], hosts };
    let mut apart = Vec::new();
    for group in groups.drain(..) {
        if group.hosts.is_disjoint(&own.hosts) {
            apart.push(group);
        } else {
            own.hosts.extend(group.hosts);
            own.candidates.extend(group.candidates);
        }
    }
    apart.push(own);
    *groups = apart;
}

fn group_by_family(groups: &mut Vec<Group>, candidate: Candidate) {
    // More traffic is more of both.
    let family = |kind: Kind| if kind.family() == Family::Volume { Family::Attempts } else { kind.family() };
    let same = |group: &&mut Group| {
        group.candidates.first().is_some_and(|first| family(first.kind) == family(candidate.kind))
    };
    match groups.iter_mut().find(same) {
        Some(group) => group.candidates.push(candidate),
        None => groups.push(Group { candidates: vec![candidate], hosts: BTreeSet::new() }),
    }
}

/// Is what the host does more of most of what the aggregate has more of?
fn explains(host: &Candidate, aggregate: &Candidate) -> bool {
    if host.kind.family() != aggregate.kind.family() {
        return false;
    }
    let excess = |c: &Candidate| c.observed.high - c.expected;
    host.kind.unit() != aggregate.kind.unit() || excess(host) >= EXPLAINS * excess(aggregate)
}

fn addresses(hours: &Hours, key: KeyId) -> BTreeSet<IpAddr> {
    hours.text(key).split(' ').filter_map(|word| word.parse().ok()).collect()
}

/// Which candidate of a group, most severe first, says most. A host says more than a sum, and a pair of hosts more
/// than either, if it is most of what either does more of.
fn lead(group: &[Candidate]) -> usize {
    let host = group.iter().position(|c| c.kind.is_of_hosts()).unwrap_or_default();
    let pair = group.iter().position(|c| c.kind == Kind::PairBytes);
    let is_most = |pair: &usize| {
        group
            .get(*pair)
            .zip(group.get(host))
            .is_some_and(|(pair, host)| pair.kind.unit() == host.kind.unit() && explains(pair, host))
    };
    pair.filter(is_most).unwrap_or(host)
}

fn finding(hours: &Hours, interface: &str, hour: UtcHour, mut group: Vec<Candidate>) -> Option<Finding> {
    group.sort_by(|a, b| b.severity.total_cmp(&a.severity));
    let lead = lead(&group);
    if lead >= group.len() {
        return None;
    }
    let first = group.remove(lead);
    let subject = |c: &Candidate| Subject { kind: c.kind, key: hours.text(c.key).to_owned() };
    let also = |c: &Candidate| Also { subject: subject(c), observed: c.observed.low, expected: c.expected };
    let own = hours.interfaces().find(|(name, _)| *name == interface).and_then(|(_, own)| own.get(&hour));
    let pair = own.and_then(|hour| hour.pair(first.key)).filter(|_| first.kind == Kind::Recurring);
    Some(Finding {
        interface: interface.to_owned(),
        from: hour,
        to: UtcHour::from_hours(hour.hours() + 1),
        peak: hour,
        subject: subject(&first),
        observed: first.observed.low,
        usual: first.usual,
        expected: first.expected,
        severity: group.iter().map(|c| c.severity).fold(first.severity, f64::max),
        regularity: pair.and_then(|pair| Regularity::of(&pair.activity)),
        also: group.iter().map(also).collect(),
    })
}

/// Findings of one interface, in order of hour: what goes on becomes one.
pub(super) fn join(findings: Vec<Finding>) -> Vec<Finding> {
    let mut joined: Vec<Finding> = Vec::new();
    for finding in findings {
        let goes_on = |before: &&mut Finding| {
            before.to >= finding.from && before.from < finding.from && is_same(before, &finding)
        };
        match joined.iter_mut().rev().find(goes_on) {
            Some(before) => {
                let (from, to) = (before.from, finding.to);
                if finding.severity > before.severity {
                    *before = finding;
                }
                (before.from, before.to) = (from, to);
            }
            None => joined.push(finding),
        }
    }
    joined
}

/// The same hosts, or the same kind of thing without hosts.
fn is_same(a: &Finding, b: &Finding) -> bool {
    let hosts = |f: &Finding| -> BTreeSet<IpAddr> {
        f.subject.key.split(' ').filter_map(|word| word.parse().ok()).collect()
    };
    let (of_a, of_b) = (hosts(a), hosts(b));
    let recurs = |f: &Finding| f.subject.kind == Kind::Recurring;
    if of_a.is_empty() || of_b.is_empty() {
        return of_a.is_empty() && of_b.is_empty() && a.subject.kind.family() == b.subject.kind.family();
    }
    recurs(a) == recurs(b) && !of_a.is_disjoint(&of_b)
}
