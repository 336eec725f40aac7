//! From sessions to their packets.
//!
//! The references of the records name segments and frames; those are read and nothing else, and each packet
//! is given on only when its flow and time are those of a chosen session. Where references are incomplete
//! the frames come from the indexes instead, by time and flow, or, for very many sessions, by time alone;
//! the test of each packet is the same.

use super::row::Session;
use crate::answer::{Answer, Question};
use crate::failure::Failure;
use crate::filter::{Atom, Expr, Filter, Prefix, Version};
use crate::gather::gather_some;
use crate::out::{Output, OutputError, Source};
use crate::plan::Plan;
use crate::range::TimeRange;
use std::collections::HashMap;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use tapedeck_index::pcapng::PacketRecord;
use tapedeck_packet::{FlowKey, Fragment, Layer, Net, Timestamp, Walk};

/// Up to so many sessions are looked for by flow; beyond, reading all of the time between is cheaper.
const FLOWS_MAX: usize = 64;

/// What to read for the packets of some sessions.
#[derive(Debug)]
pub(crate) struct Ways {
    pub(crate) plan: Plan,
    filter: Filter,
    range: TimeRange,
    gate: HashMap<FlowKey, Vec<(Timestamp, Timestamp)>>,
}

/// Frames of segments, by (sensor, run, segment).
type Frames = HashMap<(String, u32, u32), Vec<(u32, u32)>>;

/// Plans the packets of `sessions`.
///
/// # Errors
/// A folder cannot be listed.
pub(crate) fn plan(stores: &[PathBuf], sessions: &[Session]) -> Result<Ways, Failure> {
    let mut gate: HashMap<FlowKey, Vec<(Timestamp, Timestamp)>> = HashMap::new();
    for session in sessions {
        let window = (session.packets.first, session.ts_last);
        gate.entry(key(session)).or_default().push(window);
        // Later fragments show no ports.
        let (src, dst) = ((session.src_ip, 0), (session.dst_ip, 0));
        gate.entry(FlowKey::new(src, dst, session.proto, false).0).or_default().push(window);
    }
    let first = sessions.iter().map(|s| s.packets.first).min().unwrap_or_default();
    let last = sessions.iter().map(|s| s.ts_last).max().unwrap_or_default();
    let range = TimeRange { from: first, to: Some(last.saturating_add(1)) };
    let frames = frames(sessions);
    let filter = match &frames {
        None if sessions.len() <= FLOWS_MAX => Filter::of(flows(sessions)),
        _ => Filter::of(Expr::All),
    };
    let wanted = |found: &tapedeck_index::catalog::Found| {
        let name = &found.name;
        frames.as_ref().is_none_or(|f| f.contains_key(&(name.sensor.clone(), name.run, name.seq)))
    };
    let mut plan = gather_some(stores, &filter, range, &wanted).map_err(|e| Failure::of(&e))?;
    if let Some(frames) = &frames {
        for segment in &mut plan.segments {
            let key = (segment.name.sensor.clone(), segment.name.run, segment.name.seq);
            let ranges = frames.get(&key).map(Vec::as_slice).unwrap_or_default();
            segment.tasks.retain(|task| {
                task.frame.is_none_or(|frame| ranges.iter().any(|(a, b)| *a <= frame && frame <= *b))
            });
        }
    }
    Ok(Ways { plan, filter, range, gate })
}

/// The frames that the sessions name; `None` where they do not name all.
fn frames(sessions: &[Session]) -> Option<Frames> {
    let mut frames = Frames::new();
    for session in sessions {
        let run = session.packets.run.filter(|_| !session.packets.incomplete)?;
        for [segment, first, last] in &session.packets.refs {
            frames.entry((session.sensor.clone(), run, *segment)).or_default().push((*first, *last));
        }
    }
    Some(frames)
}

fn key(session: &Session) -> FlowKey {
    FlowKey::of_session((session.src_ip, session.src_port), (session.dst_ip, session.dst_port), session.proto)
}

/// Any layer of a packet belongs to one of these conversations, as far as an index can tell.
fn flows(sessions: &[Session]) -> Expr {
    let mut any: Vec<Expr> = Vec::new();
    for session in sessions {
        let host = |addr: IpAddr| {
            let (family, dir) = Default::default();
            Expr::Atom(Atom::Addr { family, dir, net: Prefix::host(addr) })
        };
        let proto = Expr::Atom(Atom::Proto { version: Version::Any, number: session.proto });
        let pair = host(session.src_ip).and(host(session.dst_ip)).and(proto);
        let one = Expr::Inner(Box::new(pair));
        if !any.contains(&one) {
            any.push(one);
        }
    }
    let mut any = any.into_iter();
    any.next().map_or(Expr::All, |first| any.fold(first, Expr::or))
}

impl Ways {
    /// Carries the plan out into `output`.
    ///
    /// # Errors
    /// The answer cannot be written or merged.
    pub(crate) fn give(&self, output: &mut dyn Output, path: Option<&Path>) -> Result<Answer, Failure> {
        let question = Question::new(&self.filter, self.range);
        let mut gate = Gate { ways: self, output, walk: Walk::new(), refused: 0 };
        let mut answer = crate::run::answer_into(&self.plan, &question, &mut gate, path)?;
        answer.verdict.matched = answer.verdict.matched.saturating_sub(gate.refused);
        Ok(answer)
    }
}

/// Lets packets of the chosen sessions through.
struct Gate<'a> {
    ways: &'a Ways,
    output: &'a mut dyn Output,
    walk: Walk,
    refused: u64,
}

impl Gate<'_> {
    fn belongs(&mut self, source: &Source, packet: &PacketRecord<'_>) -> bool {
        self.walk.run(source.interface.link_type, packet.bytes);
        self.walk.layers().iter().filter_map(flow).any(|key| {
            let windows = self.ways.gate.get(&key).map(Vec::as_slice).unwrap_or_default();
            windows.iter().any(|(first, last)| *first <= packet.ts && packet.ts <= *last)
        })
    }
}

/// The key that a layer's packet is looked up by; none for what is not IP, or whose ports are cut off.
fn flow(layer: &Layer) -> Option<FlowKey> {
    let Net::Ip(ip) = layer.net else { return None };
    let later = ip.fragment == Fragment::Later;
    let (key, _) = layer.flow()?;
    Some(if later { FlowKey::new((ip.src, 0), (ip.dst, 0), ip.proto, false).0 } else { key })
}

impl Output for Gate<'_> {
    fn packet(&mut self, source: &Source, packet: &PacketRecord<'_>) -> Result<(), OutputError> {
        if self.belongs(source, packet) {
            return self.output.packet(source, packet);
        }
        self.refused += 1;
        Ok(())
    }

    fn finish(&mut self) -> Result<(), OutputError> {
        self.output.finish()
    }

    fn has_several_link_types(&self) -> bool {
        self.output.has_several_link_types()
    }
}
