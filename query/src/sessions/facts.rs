//! What a record of a session answers to the atoms of a filter.
//!
//! `src` is the originator, `dst` the responder. A record is about one layer: sessions inside a tunnel have
//! records of their own, so `inner (EXPR)` asks whether that layer lies in a tunnel and matches. What later
//! records may still change (state, service, counts) is `Maybe` where they may exist.

use super::columns::Columns;
use super::row::sum;
use crate::filter::{Atom, Expr, Facts, Headers, NumberField, SessionAtom, TextField, Tri};
use tapedeck_packet::{CommunityId, Mac};

/// A predicate that no session can answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unanswerable {
    /// The predicate, in the filter language.
    pub what: String,
    /// Why, and what to do.
    pub why: &'static str,
}

/// The first part of a filter that sessions cannot answer.
#[must_use]
pub fn unanswerable(expr: &Expr) -> Option<Unanswerable> {
    expr.find(&|part| match part {
        Expr::Atom(atom) => why_not(atom).map(|why| Unanswerable { what: atom.to_string(), why }),
        _ => None,
    })
}

fn why_not(atom: &Atom) -> Option<&'static str> {
    match atom {
        Atom::AtMost(_) | Atom::AtLeast(_) => {
            Some("the length of a packet is no property of a session; `bytes` and `packets` are")
        }
        Atom::Broadcast | Atom::Multicast => {
            Some("link-layer casts are no property of a session; `ip multicast` is")
        }
        Atom::Pppoe(_) => Some("PPPoE sessions are not kept with sessions"),
        Atom::EtherType(0x0800 | 0x86dd) => None,
        Atom::EtherType(_) => Some("sessions are of IP only"),
        Atom::Addr { family: crate::filter::Family::Arp | crate::filter::Family::Rarp, .. } => {
            Some("sessions are of IP only")
        }
        _ => None,
    }
}

/// The facts of one row.
#[derive(Debug)]
pub struct SessionFacts<'a> {
    columns: &'a Columns<'a>,
    row: usize,
    /// No other record can say anything else.
    last_word: bool,
}

impl<'a> SessionFacts<'a> {
    /// The facts of a row, as the last word on its session or not.
    #[must_use]
    pub fn new(columns: &'a Columns<'a>, row: usize, last_word: bool) -> Self {
        Self { columns, row, last_word }
    }

    fn known(&self, answer: bool) -> Tri {
        if self.last_word { Tri::from(answer) } else { Tri::Maybe }
    }

    fn headers(&self, atom: &Atom) -> bool {
        let (src, dst) = self.columns.ends(self.row);
        let proto = self.columns.proto(self.row);
        let [outer, inner] = self.columns.vlans(self.row);
        let vlans: Vec<u16> = outer.into_iter().chain(inner).collect();
        let labels: Vec<u32> = self.columns.mpls(self.row).into_iter().collect();
        let has_ports =
            CommunityId::hashes_ports(proto) && !matches!(proto, 1 | 58) || matches!(proto, 33 | 136);
        Headers {
            ethertype: Some(if src.0.is_ipv4() { 0x0800 } else { 0x86dd }),
            vlans: &vlans,
            labels: &labels,
            pppoe: None,
            ends: Some((src.0, dst.0)),
            proto: Some(proto),
            ports: has_ports.then_some((src.1, dst.1)),
        }
        .answer(atom)
    }

    fn mac(&self, name: &str, mac: [u8; 6]) -> bool {
        self.columns.text(name, self.row) == Some(Mac(mac).to_string().as_str())
    }

    fn number(&self, field: NumberField) -> u64 {
        let count = |name| self.columns.count(name, self.row).unwrap_or_default();
        match field {
            NumberField::Bytes => sum(count("orig_ip_bytes_total"), count("resp_ip_bytes_total")),
            NumberField::Packets => sum(count("orig_pkts_total"), count("resp_pkts_total")),
            NumberField::Duration => u64::try_from(count("duration_ns")).unwrap_or_default(),
        }
    }
}

fn column(field: TextField) -> &'static str {
    match field {
        TextField::State => "conn_state",
        TextField::History => "history",
        TextField::Service => "service",
        TextField::Sni => "sni",
        TextField::Alpn => "alpn",
        TextField::Ja4 => "ja4",
        TextField::HttpHost => "http_host",
        TextField::Dns => "dns_query",
        TextField::Uid => "uid",
    }
}

impl Facts for SessionFacts<'_> {
    fn ask(&self, atom: &Atom) -> Tri {
        match atom {
            Atom::Mac { dir, mac } => {
                Tri::from(dir.holds(self.mac("src_mac", *mac), self.mac("dst_mac", *mac)))
            }
            Atom::CommunityId(id) => {
                Tri::from(self.columns.text("community_id", self.row) == Some(id.to_string().as_str()))
            }
            other => Tri::from(self.headers(other)),
        }
    }

    fn session(&self, atom: &SessionAtom) -> Tri {
        match atom {
            SessionAtom::Text { field, pattern } => {
                let text = self.columns.text(column(*field), self.row);
                let answer = SessionAtom::text_matches(*field, pattern, text);
                if *field == TextField::Uid { Tri::from(answer) } else { self.known(answer) }
            }
            SessionAtom::Number { field, compare, value } => {
                self.known(compare.holds(self.number(*field), *value))
            }
        }
    }

    fn inner(&self, expr: &Expr) -> Tri {
        Tri::from(self.columns.text("tunnel_type", self.row).is_some()).and(expr.eval(self))
    }
}
