//! Names in the payload, against tshark: server names (TLS, DTLS, QUIC), HTTP hosts, DNS names.

use crate::differences;
use crate::flows::{self, Flow};
use crate::traces;
use std::collections::{BTreeMap, BTreeSet};
use tapedeck_session::Service;

/// The comparison of one kind of name.
struct Tally {
    kind: &'static str,
    agree: usize,
    /// Differences that a rule explains, by rule.
    explained: BTreeMap<&'static str, usize>,
    others: BTreeSet<String>,
}

impl Tally {
    fn new(kind: &'static str) -> Self {
        Self { kind, agree: 0, explained: BTreeMap::new(), others: BTreeSet::new() }
    }

    fn add(
        &mut self,
        flow: &Flow,
        ours: Option<&str>,
        theirs: Option<&str>,
        rule: impl Fn(Option<&str>, Option<&str>) -> Option<&'static str>,
    ) {
        if ours == theirs {
            self.agree += usize::from(ours.is_some());
        } else if let Some(reason) = rule(ours, theirs) {
            *self.explained.entry(reason).or_default() += 1;
        } else {
            self.others.insert(format!("{}|{}|{}", flow.at(), ours.unwrap_or("-"), theirs.unwrap_or("-")));
        }
    }
}

const BY_PORT: &str = "only ours: tshark takes the session for something else because of its port";
const CUT_HELLO: &str = "only ours: the hello is not whole, the name stands in what is there of it";
const CUT_LINE: &str = "only tshark's: the line of the host is cut, and so would be the name";
const CUT_MESSAGE: &str = "only ours: tshark does not read messages that are cut or odd behind the question";
const UNREADABLE: &str = "tshark's words for a name that cannot be read";

/// tshark shows a packet of the session as one of `protocols`.
fn shown_as(flow: &Flow, protocols: &[&str]) -> bool {
    flow.columns.iter().any(|column| protocols.iter().any(|protocol| column.contains(protocol)))
}

fn sni(tally: &mut Tally, flow: &Flow, service: &Service) {
    let theirs = flow.sni.first().map(String::as_str);
    tally.add(flow, service.sni.as_deref(), theirs, |ours, theirs| match (ours, theirs) {
        (Some(_), None) if !shown_as(flow, &["TLS", "SSL", "QUIC"]) => Some(BY_PORT),
        (Some(_), None) if service.ja4.is_none() => Some(CUT_HELLO),
        _ => None,
    });
}

fn host(tally: &mut Tally, flow: &Flow, service: &Service) {
    // SSDP has hosts too, of which there is nothing to know: they are groups.
    if flow.facts.unwrap().proto != 6 {
        return;
    }
    let theirs = flow.host.first().map(String::as_str);
    tally.add(flow, service.http_host.as_deref(), theirs, |ours, theirs| match (ours, theirs) {
        (Some(_), None) if !shown_as(flow, &["HTTP"]) => Some(BY_PORT),
        (None, Some(_)) if flow.cut => Some(CUT_LINE),
        _ => None,
    });
}

fn dns(tally: &mut Tally, flow: &Flow, service: &Service) {
    let facts = flow.facts.unwrap();
    // tshark has NetBIOS names in another field, with their type.
    if facts.proto == 17 && (facts.orig_port == 137 || facts.resp_port == 137) {
        return;
    }
    let theirs = flow.dns.first().map(|name| if name == "<Root>" { "." } else { name });
    tally.add(flow, service.dns_query.as_deref(), theirs, |ours, theirs| match (ours, theirs) {
        (Some(_), None) if !shown_as(flow, &["DNS", "LLMNR"]) => Some(BY_PORT),
        (Some(_), None) => Some(CUT_MESSAGE),
        (None, Some(theirs)) if theirs.starts_with('<') => Some(UNREADABLE),
        _ => None,
    });
}

fn check(part: usize) {
    let Some(folder) = traces::folder() else { return };
    let mut tallies = [Tally::new("server name"), Tally::new("host"), Tally::new("dns name")];
    let mut read = BTreeSet::new();
    for file in traces::captures(&folder).into_iter().skip(part).step_by(traces::PARTS) {
        for flow in flows::read(&folder, &file) {
            let service = flow.service();
            if service.name == Some("ssl") && service.ja4.is_some() {
                // The name may change where the two sides speak different protocols: the first one counts.
                let Service { sni, alpn, ja4, .. } = flow.service_disordered();
                assert_eq!((&sni, &alpn, &ja4), (&service.sni, &service.alpn, &service.ja4), "{}", flow.at());
            }
            let [names, hosts, questions] = &mut tallies;
            sni(names, &flow, &service);
            host(hosts, &flow, &service);
            dns(questions, &flow, &service);
        }
        read.insert(file);
    }
    for Tally { kind, agree, explained, others } in &tallies {
        println!("{kind}: {agree} agree, {} differ and are listed, by rule {explained:?}", others.len());
        differences::check(&folder, kind, &read, others);
    }
}

#[test]
fn names_part_0() {
    check(0);
}

#[test]
fn names_part_1() {
    check(1);
}

#[test]
fn names_part_2() {
    check(2);
}

#[test]
fn names_part_3() {
    check(3);
}

#[test]
fn names_part_4() {
    check(4);
}

#[test]
fn names_part_5() {
    check(5);
}

#[test]
fn names_part_6() {
    check(6);
}

#[test]
fn names_part_7() {
    check(7);
}
