//! Planner, index and scan against the plainest answer: test every packet, sort, print.
//!
//! Whatever the filter, the range, the frames, the chains, sealed or open: the same packets in the same order.

use crate::support::packets::{KINDS, LINK, chosen};
use crate::support::{Left, Packet, Spec, Store, T, Writer, files};
use proptest::prelude::*;
use std::path::PathBuf;
use tapedeck_index::name::SegmentName;
use tapedeck_index::pcapng::PacketRecord;
use tapedeck_index::rows::{FrameRows, RowTable};
use tapedeck_index::sidecar::{FrameMeta, Sidecar, SidecarBuilder};
use tapedeck_packet::{Timestamp, Walk};
use tapedeck_query::answer::{Question, answer};
use tapedeck_query::filter::Filter;
use tapedeck_query::gather::gather;
use tapedeck_query::out::{Output, OutputError, Source};
use tapedeck_query::prune::{prune, prune_open};
use tapedeck_query::range::TimeRange;

/// Time, interface, bytes.
pub(crate) type Line = (u64, String, Vec<u8>);

#[derive(Default)]
pub(crate) struct Collect(pub(crate) Vec<Line>);

impl Output for Collect {
    fn packet(&mut self, source: &Source, packet: &PacketRecord<'_>) -> Result<(), OutputError> {
        self.0.push((packet.ts.nanos(), source.interface.name.clone(), packet.bytes.to_vec()));
        Ok(())
    }

    fn finish(&mut self) -> Result<(), OutputError> {
        Ok(())
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Chain {
    interface: &'static str,
    queue: u32,
    per_frame: usize,
    left: Left,
    packets: Vec<Packet>,
}

fn packet() -> impl Strategy<Value = Packet> {
    let fields = (0..KINDS, 1u8..4, 1u8..4, 0usize..3, 0usize..3, 0usize..3);
    // Few different times, also backward and equal ones, also across the hour.
    (fields, 0u64..40, 0u32..3).prop_map(|((kind, src, dst, sport, dport, vlan), when, more)| {
        let port = |at: usize| [53, 443, 1000][at];
        let bytes = chosen(kind, src, dst, port(sport), port(dport), [1, 100, 200][vlan]);
        let mut packet = Packet::new(T + when * 100_000_000, bytes);
        packet.orig_len += more * 40;
        packet
    })
}

pub(crate) fn chain() -> impl Strategy<Value = Chain> {
    let left = prop_oneof![2 => Just(Left::Sealed), 1 => (0usize..6).prop_map(Left::live), 1 => (0usize..6, 0usize..4).prop_map(|(recorded, more)| {
        Left::Open { recorded, writer: Writer::Dead { whole: recorded + more } }
    })];
    let place = (prop::sample::select(vec!["eth0", "eth1"]), 0u32..2, 1usize..5);
    (place, left, prop::collection::vec(packet(), 1..24)).prop_map(
        |((interface, queue, per_frame), left, packets)| Chain { interface, queue, per_frame, left, packets },
    )
}

/// Terms about what the packets have, and some that match nothing.
fn term() -> impl Strategy<Value = String> {
    let host = prop::sample::select(vec![
        "10.0.0.1",
        "10.0.0.2",
        "10.0.0.3",
        "10.0.0.200",
        "10.0.0.77",
        "2001:db8::1",
        "2001:db8::2",
    ]);
    let dir = prop::sample::select(vec!["", "src ", "dst "]);
    let port = prop::sample::select(vec![53u16, 443, 1000, 4789, 9]);
    let net = prop::sample::select(vec![
        "10.0.0.0/30",
        "10.0.0.2/31",
        "10.0.0.0/8",
        "2001:db8::/32",
        "192.0.2.0/24",
    ]);
    let vlan = prop::sample::select(vec![1u16, 7, 100, 200, 300]);
    let word = prop::sample::select(vec![
        "tcp",
        "udp",
        "icmp",
        "ip",
        "ip6",
        "arp",
        "vlan",
        "less 60",
        "greater 80",
        "ip proto 4",
        "ip proto 6",
        "ether host 02:00:00:00:00:01",
        "ether src 02:00:00:00:00:02",
        "ether proto 0x88cc",
        "ether broadcast",
        "sctp",
        "portrange 400-1000",
        "mpls",
    ]);
    prop_oneof![
        3 => (dir.clone(), host.clone()).prop_map(|(d, h)| format!("{d}host {h}")),
        3 => (dir.clone(), port.clone()).prop_map(|(d, p)| format!("{d}port {p}")),
        1 => (dir, net).prop_map(|(d, n)| format!("{d}net {n}")),
        2 => vlan.prop_map(|v| format!("vlan {v}")),
        3 => word.prop_map(str::to_owned),
        1 => (1u8..4, port.clone(), 1u8..4, port, prop::sample::select(vec!["tcp", "udp"]))
            .prop_map(|(a, p, b, q, proto)| format!("flow 10.0.0.{a}:{p} 10.0.0.{b}:{q} {proto}")),
        1 => (0..KINDS, 1u8..4, 1u8..4).prop_map(|(kind, src, dst)| community(kind, src, dst)),
    ]
}

/// The Community ID of a packet's last layer that has one.
fn community(kind: u8, src: u8, dst: u8) -> String {
    let mut walk = Walk::new();
    walk.run(LINK, &chosen(kind, src, dst, 53, 443, 100));
    match walk.layers().iter().filter_map(|l| l.community_id(0)).next_back() {
        Some(id) => format!("community-id {id}"),
        None => "arp".to_owned(),
    }
}

pub(crate) fn expression() -> impl Strategy<Value = String> {
    let plain = term().prop_recursive(3, 10, 3, |inside| {
        prop_oneof![
            (inside.clone(), inside.clone()).prop_map(|(a, b)| format!("({a} and {b})")),
            (inside.clone(), inside.clone()).prop_map(|(a, b)| format!("({a} or {b})")),
            inside.prop_map(|a| format!("not ({a})")),
        ]
    });
    let with_inner = prop_oneof![2 => plain.clone(), 1 => plain.prop_map(|e| format!("inner ({e})"))];
    with_inner.prop_recursive(2, 6, 2, |inside| {
        prop_oneof![
            (inside.clone(), inside.clone()).prop_map(|(a, b)| format!("({a} and {b})")),
            (inside.clone(), inside.clone()).prop_map(|(a, b)| format!("({a} or {b})")),
            inside.prop_map(|a| format!("not ({a})")),
        ]
    })
}

pub(crate) fn range() -> impl Strategy<Value = TimeRange> {
    let time = |n: u64| Timestamp::from_nanos(T + n * 50_000_000).unwrap();
    prop_oneof![
        1 => Just(TimeRange::ALL),
        2 => (0u64..80, 1u64..80).prop_map(move |(from, len)| TimeRange { from: time(from), to: Some(time(from + len)) }),
    ]
}

/// Every packet tested, all of them sorted: by time, interface, chain, arrival.
fn plainly(chains: &[Chain], filter: &Filter, range: &TimeRange) -> Vec<Line> {
    let (mut walk, mut found) = (Walk::new(), Vec::new());
    for (seq, chain) in chains.iter().enumerate() {
        for (arrival, packet) in chain.packets.iter().enumerate() {
            walk.run(LINK, &packet.bytes);
            let record = packet.record();
            if range.contains(record.ts) && filter.matches(&walk, record.orig_len) {
                found.push(((packet.ts, chain.interface, chain.queue, seq, arrival), &packet.bytes));
            }
        }
    }
    found.sort();
    found.into_iter().map(|((ts, name, ..), bytes)| (ts, name.to_owned(), bytes.clone())).collect()
}

pub(crate) fn build(chains: &[Chain]) -> Store {
    let mut store = Store::new();
    for Chain { interface, queue, per_frame, left, packets } in chains {
        let spec = Spec {
            interface,
            queue: *queue,
            per_frame: *per_frame,
            left: *left,
            link: LINK,
            ..Spec::default()
        };
        store.segment(&spec, packets);
    }
    store
}

pub(crate) fn ask(
    stores: &[PathBuf],
    filter: &Filter,
    range: TimeRange,
    limit: Option<u64>,
    merge_bytes: usize,
) -> (Vec<Line>, bool) {
    let plan = gather(stores, filter, range).unwrap();
    let question = Question { limit, merge_bytes, ..Question::new(filter, range) };
    let mut output = Collect::default();
    let answer = answer(&plan, &question, &mut output).unwrap();
    assert_eq!(answer.verdict.matched, u64::try_from(output.0.len()).unwrap());
    let count = Question { count_only: true, ..question };
    let counted = tapedeck_query::answer::answer(&plan, &count, &mut Collect::default()).unwrap();
    assert_eq!(counted.verdict.matched, answer.verdict.matched);
    (output.0, answer.verdict.is_complete())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn the_index_never_changes_an_answer(
        chains in prop::collection::vec(chain(), 1..4),
        questions in prop::collection::vec((expression(), range()), 8),
        limit in prop::option::of(1usize..6),
        budget in prop::sample::select(vec![0usize, 900, usize::MAX]),
    ) {
        let store = build(&chains);
        for (text, range) in questions {
            let filter = Filter::parse(&text).unwrap();
            let mut want = plainly(&chains, &filter, &range);
            want.truncate(limit.unwrap_or(usize::MAX));
            let (got, complete) = ask(&[store.path().to_owned()], &filter, range, limit.map(|n| n.try_into().unwrap()), budget);
            prop_assert_eq!(&got, &want, "{}", text);
            prop_assert!(complete);
        }
    }

    /// What excludes frames of an open segment excludes those that the sidecar will exclude, and those outside.
    #[test]
    fn an_open_segment_is_pruned_as_a_sealed_one(
        frames in prop::collection::vec((any::<bool>(), prop::collection::vec(packet(), 1..6)), 1..8),
        texts in prop::collection::vec(expression(), 8),
    ) {
        let (mut walk, mut table, mut open) = (Walk::new(), RowTable::new(), SidecarBuilder::new());
        let mut rows = FrameRows::default();
        for (number, (_, packets)) in (0u64..).zip(&frames) {
            for packet in packets {
                walk.run(LINK, &packet.bytes);
                table.add(&walk);
            }
            table.cut_frame(&mut rows);
            let time = Timestamp::from_nanos(T + number).unwrap();
            let packets = u32::try_from(packets.len()).unwrap();
            let meta = FrameMeta {
                offset: number * 100, stored_len: 100, raw_len: 200, packets, t_min: time, t_max: time,
                first_arrival: 0, sorted: true,
            };
            open.frame(meta, &rows);
        }
        let name = SegmentName {
            t0: Timestamp::ZERO, sensor: "lab".into(), interface: "eth0".into(), queue: 0, run: 1, seq: 0,
        };
        let sealed = Sidecar::from_bytes(open.finish(&name, &[]).unwrap()).unwrap();
        let inside: Vec<bool> = frames.iter().map(|(inside, _)| *inside).collect();
        for text in texts {
            let filter = Filter::parse(&text).unwrap();
            let whole = prune(&sealed, filter.expr()).unwrap().frames;
            let want: Vec<bool> = whole.iter().zip(&inside).map(|(wanted, inside)| *wanted && *inside).collect();
            let got = prune_open(&open, &inside, filter.expr()).unwrap().frames;
            // Where no row decides, neither does either of them exclude what lies outside.
            let got: Vec<bool> = got.iter().zip(&inside).map(|(wanted, inside)| *wanted && *inside).collect();
            prop_assert_eq!(got, want, "{}", text);
        }
    }

    /// Without sidecars everything is read, and the answer is the same.
    #[test]
    fn a_lost_sidecar_costs_time_only(
        chains in prop::collection::vec(chain(), 1..3),
        text in expression(), range in range(), how in 0u8..3, limit in prop::option::of(1u64..6),
    ) {
        let store = build(&chains);
        for path in files(store.path(), ".idx") {
            match how {
                0 => std::fs::remove_file(path).unwrap(),
                1 => std::fs::write(path, b"").unwrap(),
                _ => {
                    let mut bytes = std::fs::read(&path).unwrap();
                    let last = bytes.len() - 1;
                    bytes[last] ^= 0x40;
                    std::fs::write(path, bytes).unwrap();
                }
            }
        }
        let filter = Filter::parse(&text).unwrap();
        let (got, complete) = ask(&[store.path().to_owned()], &filter, range, limit, usize::MAX);
        let mut want = plainly(&chains, &filter, &range);
        want.truncate(limit.map_or(usize::MAX, |n| n.try_into().unwrap()));
        prop_assert_eq!(got, want, "{}", text);
        prop_assert!(complete);
    }

    /// Whatever happens to the files of a store, as long as one of a segment's two is left: an answer that
    /// says it is whole is, and no other holds a packet that is not in it.
    #[test]
    fn a_damaged_store_never_lies(
        chains in prop::collection::vec(chain(), 1..4),
        injuries in prop::collection::vec((any::<bool>(), 0u8..4, any::<prop::sample::Index>()), 1..4),
        questions in prop::collection::vec((expression(), range()), 4),
        limit in prop::option::of(1u64..6),
    ) {
        let store = build(&chains);
        let mut victims = files(store.path(), ".pcapng.zst");
        for (segment, how, at) in injuries {
            // Each segment once, so that one of its files is left.
            let Some(victim) = (!victims.is_empty()).then(|| victims.remove(at.index(victims.len()))) else { break };
            let index = PathBuf::from(victim.to_str().unwrap().replace(".pcapng.zst", ".idx"));
            let path = if segment { victim } else { index };
            let mut bytes = std::fs::read(&path).unwrap();
            let place = at.index(bytes.len());
            match how {
                0 => std::fs::remove_file(path).unwrap(),
                1 => std::fs::write(path, &bytes[..place]).unwrap(),
                2 => std::fs::write(path, [&bytes[..], &bytes[..place]].concat()).unwrap(),
                _ => {
                    bytes[place] ^= 0x20;
                    std::fs::write(path, bytes).unwrap();
                }
            }
        }
        for (text, range) in questions {
            let filter = Filter::parse(&text).unwrap();
            let all = plainly(&chains, &filter, &range);
            let (got, complete) = ask(&[store.path().to_owned()], &filter, range, limit, usize::MAX);
            let want = &all[..all.len().min(limit.map_or(usize::MAX, |n| n.try_into().unwrap()))];
            if complete {
                prop_assert_eq!(&got, want, "{}", text);
            }
            let mut rest = all.iter();
            prop_assert!(got.iter().all(|line| rest.any(|other| other == line)), "{}: {:?}", text, got);
        }
    }
}
