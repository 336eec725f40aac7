//! Sessions out of tshark's rows, fed to a probe.

use crate::traces;
use std::collections::BTreeMap;
use std::path::Path;
use tapedeck_session::{Ends, Probe, Progress, Service};

/// One side's packet: from the originator, offset in its stream, payload.
type Piece = (bool, u32, Vec<u8>);

/// A session, and what tshark reads in it.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    pub(crate) file: String,
    pub(crate) stream: u32,
    pub(crate) facts: Option<Ends>,
    /// Originator and responder.
    pub(crate) ends: [(String, u16); 2],
    pieces: Vec<Piece>,
    first_seq: [Option<u32>; 2],
    pub(crate) sni: Vec<String>,
    pub(crate) dns: Vec<String>,
    pub(crate) host: Vec<String>,
    /// A segment holds less than its length says.
    pub(crate) cut: bool,
    /// Names of the protocols tshark shows for its packets.
    pub(crate) columns: Vec<String>,
}

impl Flow {
    /// What the probe says.
    pub(crate) fn service(&self) -> Service {
        self.feed(self.pieces.iter())
    }

    /// What the probe says if packets overtake each other in pairs and come twice.
    pub(crate) fn service_disordered(&self) -> Service {
        self.feed(self.pieces.chunks(2).flat_map(|pair| pair.iter().rev().chain(pair.last())))
    }

    fn feed<'a>(&self, pieces: impl Iterator<Item = &'a Piece>) -> Service {
        let facts = self.facts.unwrap();
        let mut probe = Probe::new();
        for (from_orig, offset, payload) in pieces {
            if probe.feed(facts, *from_orig, *offset, payload) == Progress::Done {
                break;
            }
        }
        probe.finish(facts)
    }

    /// Capture, protocol and tshark's number.
    pub(crate) fn at(&self) -> String {
        let kind = if self.facts.unwrap().proto == 6 { "tcp" } else { "udp" };
        format!("{}|{kind}|{}", self.file, self.stream)
    }
}

/// A row of tshark as one packet of one session: the innermost TCP or UDP.
struct Row<'a> {
    columns: Vec<&'a str>,
}

impl<'a> Row<'a> {
    fn all(&self, field: &str) -> impl Iterator<Item = &'a str> {
        let at = traces::FIELDS.iter().position(|known| *known == field).unwrap();
        let text = self.columns.get(at).copied().unwrap_or_default();
        text.split('\u{1f}').filter(|value| !value.is_empty())
    }

    fn last(&self, field: &str) -> Option<&'a str> {
        self.all(field).last()
    }

    fn number(&self, field: &str) -> Option<u32> {
        let text = self.last(field)?;
        text.strip_prefix("0x").map_or_else(|| text.parse().ok(), |hex| u32::from_str_radix(hex, 16).ok())
    }
}

fn unhex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits.chunks(2).map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

/// The sessions of a capture.
pub(crate) fn read(folder: &Path, file: &str) -> Vec<Flow> {
    let mut flows: BTreeMap<(u8, u32), Flow> = BTreeMap::new();
    for line in traces::rows(folder, file).lines() {
        let row = Row { columns: line.split('\t').collect() };
        let protocols = row.last("frame.protocols").unwrap_or_default();
        // What an ICMP error quotes is no packet of the session.
        let inner = protocols.split(':').rfind(|name| matches!(*name, "tcp" | "udp" | "icmp" | "icmpv6"));
        let (proto, kind) = match inner {
            Some("tcp") if !protocols.contains(":icmp") => (6, "tcp"),
            Some("udp") if !protocols.contains(":icmp") => (17, "udp"),
            _ => continue,
        };
        let Some(stream) = row.number(&format!("{kind}.stream")) else { continue };
        let flow = flows.entry((proto, stream)).or_default();
        (flow.file, flow.stream) = (file.to_owned(), stream);
        add(flow, &row, proto, kind);
    }
    flows.into_values().filter(|flow| flow.facts.is_some()).collect()
}

fn add(flow: &mut Flow, row: &Row<'_>, proto: u8, kind: &str) {
    let port = |which: &str| row.number(&format!("{kind}.{which}")).and_then(|port| u16::try_from(port).ok());
    let (Some(source), Some(target)) = (port("srcport"), port("dstport")) else { return };
    let address = row.last("ipv6.src").or_else(|| row.last("ip.src")).unwrap_or_default().to_owned();
    let flags = row.number("tcp.flags").unwrap_or_default();
    let (syn, ack) = (flags & 2 != 0, flags & 16 != 0);
    if flow.facts.is_none() {
        let answer = proto == 6 && syn && ack;
        let (orig_port, resp_port) = if answer { (target, source) } else { (source, target) };
        flow.facts = Some(Ends { proto, orig_port, resp_port });
        flow.ends = [(String::new(), orig_port), (String::new(), resp_port)];
        flow.ends[usize::from(answer)].0.clone_from(&address);
    }
    let facts = flow.facts.unwrap();
    let from_orig = if facts.orig_port == facts.resp_port {
        flow.ends[0].0.is_empty() || flow.ends[0].0 == address
    } else {
        source == facts.orig_port
    };
    flow.ends[usize::from(!from_orig)].0 = address;
    let seq = row.number("tcp.seq_raw");
    let first = &mut flow.first_seq[usize::from(!from_orig)];
    if syn {
        *first = seq.map(|seq| seq.wrapping_add(1));
    }
    if let Some(payload) = row.last(&format!("{kind}.payload")) {
        let payload = unhex(payload);
        let seq = seq.unwrap_or_default().wrapping_add(u32::from(syn));
        let offset = seq.wrapping_sub(*first.get_or_insert(seq));
        let len = row.number("tcp.len").and_then(|len| usize::try_from(len).ok()).unwrap_or_default();
        flow.cut |= payload.len() < len;
        if proto == 17 || len > 0 {
            flow.pieces.push((from_orig, offset, payload));
        }
    }
    let all = |field| row.all(field).map(str::to_owned);
    flow.sni.extend(all("tls.handshake.extensions_server_name"));
    flow.sni.extend(all("dtls.handshake.extensions_server_name"));
    flow.dns.extend(all("dns.qry.name"));
    flow.host.extend(all("http.host"));
    flow.columns.extend(all("_ws.col.Protocol"));
}
