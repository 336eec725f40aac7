//! Collector and merger against exact counting.

use super::*;
use crate::stats::facts::Marks;
use crate::stats::hosts::{Hosts, hash};
use crate::stats::minute::{Counts, Port, Totals};
use crate::stats::{Merged, Merger};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr};

const QUEUES: u32 = 3;
const SLOTS: u32 = 100;

/// A session table: a slot for every session, whose facts follow from the slot.
struct Slots(Vec<Tally>);

impl Slots {
    fn new() -> Self {
        Self(vec![Tally::default(); SLOTS as usize])
    }
}

fn flow(slot: u32) -> Flow {
    Flow {
        orig: IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + slot % 23)),
        resp: IpAddr::V4(Ipv4Addr::from(0xc000_0200 + slot % 7)),
        proto: if slot.is_multiple_of(3) { 17 } else { 6 },
        server_port: Some(u16::try_from(slot % 11).unwrap()),
        service: [None, Some("dns"), Some("ssl")][slot as usize % 3],
    }
}

impl Sessions for Slots {
    fn session(&mut self, slot: u32) -> Option<(&mut Tally, Flow)> {
        self.0.get_mut(slot as usize).map(|tally| (tally, flow(slot)))
    }
}

/// What happens on a queue.
#[derive(Clone, Debug)]
struct Event {
    queue: u32,
    /// `None` = not IP.
    slot: Option<u32>,
    sender: Sender,
    /// Milliseconds since the last event; negative for a packet that comes late.
    after_ms: i64,
    bytes: u32,
    ends: bool,
    tick: bool,
}

fn events(late: bool) -> impl Strategy<Value = Vec<Event>> {
    let after = if late {
        prop_oneof![8 => 0_i64..2_000, 1 => -3_000_i64..0, 1 => -400_000_i64..400_000].boxed()
    } else {
        prop_oneof![8 => 0_i64..2_000, 1 => 0_i64..200_000].boxed()
    };
    let event =
        (0..QUEUES, prop::option::weighted(0.9, 0..SLOTS), any::<bool>(), after, 40_u32..9_000, 0_u32..40);
    let event = event.prop_map(|(queue, slot, orig, after_ms, bytes, chance)| Event {
        queue,
        slot,
        sender: if orig { Sender::Orig } else { Sender::Resp },
        after_ms,
        bytes,
        ends: chance == 1,
        tick: chance % 3 == 0,
    });
    prop::collection::vec(event, 1..600)
}

/// The exact counts of a minute.
#[derive(Clone, Debug, Default, PartialEq)]
struct Exact {
    totals: Totals,
    protocols: BTreeMap<u8, Counts>,
    services: BTreeMap<&'static str, Counts>,
    ports: BTreeMap<Port, Counts>,
    sent: BTreeMap<IpAddr, u64>,
    pairs: BTreeMap<(IpAddr, IpAddr), u64>,
    src: Hosts,
    dst: Hosts,
    failing: BTreeMap<IpAddr, u64>,
    active: BTreeSet<(u32, u32)>,
}

impl Exact {
    fn packet(&mut self, event: &Event, packet: &Packet) {
        let one = Counts { packets: 1, bytes: u64::from(packet.wire_bytes), ..Counts::default() };
        self.totals.counts.add(&one);
        self.totals.broadcast += u64::from(packet.marks.has(Marks::BROADCAST));
        self.totals.tcp_resets += u64::from(packet.marks.has(Marks::RESET));
        self.totals.non_ip += u64::from(packet.marks.has(Marks::NON_IP));
        let Some(slot) = event.slot else { return };
        let flow = flow(slot);
        self.add(&flow, &one);
        if self.active.insert((event.queue, slot)) {
            let active = Counts { active: 1, ..Counts::default() };
            self.totals.counts.add(&active);
            self.add(&flow, &active);
        }
        let (from, to) = match event.sender {
            Sender::Orig => (flow.orig, flow.resp),
            Sender::Resp => (flow.resp, flow.orig),
        };
        *self.sent.entry(from).or_default() += one.bytes;
        *self.pairs.entry((from.min(to), from.max(to))).or_default() += one.bytes;
        self.src.insert(hash(from));
        self.dst.insert(hash(to));
    }

    fn add(&mut self, flow: &Flow, counts: &Counts) {
        self.protocols.entry(flow.proto).or_default().add(counts);
        self.ports.entry(Port::of(flow).unwrap()).or_default().add(counts);
        if let Some(service) = flow.service {
            self.services.entry(service).or_default().add(counts);
        }
    }
}

fn packet(event: &Event, ts: Timestamp) -> Packet {
    let marks = [
        (event.bytes.is_multiple_of(5), Marks::BROADCAST),
        (event.bytes.is_multiple_of(7), Marks::RESET),
        (event.slot.is_none(), Marks::NON_IP),
    ];
    let so = marks.into_iter().filter(|(is_so, _)| *is_so);
    let marks = so.fold(Marks::default(), |marks, (_, mark)| marks.and(mark));
    Packet { ts, wire_bytes: event.bytes, marks, ethertype: event.slot.is_none().then_some(0x0806) }
}

/// Runs the events through a collector a queue, and counts them exactly.
fn run(events: &[Event]) -> (Vec<Closed>, BTreeMap<u32, Exact>) {
    let config = Config { sessions: SLOTS, fill_minutes: 1_440, seed: 99 };
    let mut queues: Vec<(Collector, Slots)> =
        (0..QUEUES).map(|_| (Collector::new(config), Slots::new())).collect();
    let mut exact: BTreeMap<u32, Exact> = BTreeMap::new();
    let mut seen = BTreeSet::new();
    let mut closed = Vec::new();
    let mut now_ms: i64 = 1_795_284_000_000;
    for event in events {
        now_ms += event.after_ms;
        let ts = Timestamp::from_nanos_saturating(u64::try_from(now_ms).unwrap() * 1_000_000);
        let packet = packet(event, ts);
        let truth = exact.entry(minute_of(ts)).or_default();
        truth.packet(event, &packet);
        let (collector, slots) = &mut queues[event.queue as usize];
        match event.slot {
            None => collector.packet(&packet, None),
            Some(slot) => {
                if seen.insert((event.queue, slot)) {
                    collector.opened(ts, &flow(slot));
                    let new = Counts { new: 1, ..Counts::default() };
                    truth.totals.counts.add(&new);
                    truth.add(&flow(slot), &new);
                }
                let tally = &mut slots.0[slot as usize];
                collector.session_packet(&packet, event.sender, slot, tally, || flow(slot));
                if event.ends {
                    collector.ended(ts, tally, &flow(slot), true);
                    if flow(slot).proto == TCP {
                        truth.totals.failed_handshakes += 1;
                        *truth.failing.entry(flow(slot).orig).or_default() += 1;
                    }
                }
            }
        }
        if event.tick {
            collector.tick(ts, slots);
        }
        closed.extend(collector.take_closed());
    }
    for (collector, slots) in &mut queues {
        collector.finish(slots);
        closed.extend(collector.take_closed());
        assert!(slots.0.iter().all(Tally::is_empty));
    }
    (closed, exact)
}

/// The minutes of all queues together, those of zeros left out.
fn merged(closed: Vec<Closed>) -> BTreeMap<u32, Minute> {
    let mut merger = Merger::new(QUEUES);
    closed.into_iter().for_each(|closed| merger.add(closed));
    let minutes = merger.take(Timestamp::MAX).into_iter().filter_map(|merged| match merged {
        Merged::Minute(minute) => Some((minute_of(minute.start), *minute)),
        Merged::Hour(_) => None,
    });
    minutes.filter(|(_, minute)| *minute != Minute { start: minute.start, ..Minute::default() }).collect()
}

fn compare(minute: Minute, truth: &Exact, in_order: bool) -> Result<(), TestCaseError> {
    let (mut minute, mut truth) = (minute, truth.clone());
    if !in_order {
        // Whether a late packet's session was active before cannot be told; see the head of the file.
        for counts in
            minute.protocols.values_mut().chain(minute.ports.values_mut()).chain(minute.services.values_mut())
        {
            counts.active = 0;
        }
        for counts in
            truth.protocols.values_mut().chain(truth.ports.values_mut()).chain(truth.services.values_mut())
        {
            counts.active = 0;
        }
        (minute.totals.counts.active, truth.totals.counts.active) = (0, 0);
    }
    prop_assert_eq!(minute.totals, truth.totals);
    prop_assert_eq!(&minute.protocols, &truth.protocols);
    prop_assert_eq!(&minute.services, &truth.services);
    prop_assert_eq!(&minute.ports, &truth.ports);
    prop_assert_eq!(&minute.src_hosts, &truth.src);
    prop_assert_eq!(&minute.dst_hosts, &truth.dst);
    let non_ip: u64 = minute.ethertypes.values().map(|counts| counts.packets).sum();
    prop_assert_eq!(non_ip, truth.totals.non_ip);
    let sized: u64 = minute.sizes.iter().map(|counts| counts.packets).sum();
    prop_assert_eq!(sized, truth.totals.counts.packets);
    for (entries, counts) in [(minute.sources, &truth.sent), (minute.failing, &truth.failing)] {
        for entry in entries.first(1_000).0 {
            let truth = counts.get(&entry.key).copied().unwrap_or_default();
            prop_assert!(entry.at_least() <= truth && truth <= entry.count);
        }
    }
    for entry in minute.pairs.first(1_000).0 {
        let truth = truth.pairs.get(&entry.key).copied().unwrap_or_default();
        prop_assert!(entry.at_least() <= truth && truth <= entry.count);
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn in_order_everything_is_exact(events in events(false)) {
        let (closed, exact) = run(&events);
        let minutes = merged(closed);
        prop_assert_eq!(minutes.keys().collect::<Vec<_>>(), exact.keys().collect::<Vec<_>>());
        for (number, minute) in minutes {
            compare(minute, &exact[&number], true)?;
        }
    }

    #[test]
    fn out_of_order_nothing_is_lost_and_nothing_stands_in_another_minute(events in events(true)) {
        let (closed, exact) = run(&events);
        let minutes = merged(closed);
        prop_assert_eq!(minutes.keys().collect::<Vec<_>>(), exact.keys().collect::<Vec<_>>());
        for (number, minute) in minutes {
            compare(minute, &exact[&number], false)?;
        }
    }
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_nanos_saturating((1_795_284_000 + second) * NANOS_PER_SEC)
}

fn one(ts: Timestamp) -> Packet {
    Packet { ts, wire_bytes: 100, ..Packet::default() }
}

#[test]
fn a_silent_source_reports_its_minutes_one_by_one() {
    let mut collector = Collector::new(Config { sessions: SLOTS, fill_minutes: 0, seed: 1 });
    let mut slots = Slots::new();
    for second in (0..=600).step_by(5) {
        collector.tick(at(second), &mut slots);
    }
    collector.finish(&mut slots);
    let starts = collector.take_closed().into_iter().map(|closed| match closed {
        Closed::Idle { from, minutes: 1 } => (from.nanos() - at(0).nanos()) / NANOS_PER_MINUTE,
        other => panic!("{other:?}"),
    });
    assert_eq!(starts.collect::<Vec<_>>(), (0..=10).collect::<Vec<_>>());
}

#[test]
fn a_gap_in_a_file_is_silence_and_a_gap_in_a_recording_is_not() {
    for (fill_minutes, want) in [(1_440, 9), (0, 0)] {
        let mut collector = Collector::new(Config { sessions: SLOTS, fill_minutes, seed: 1 });
        collector.packet(&one(at(0)), None);
        collector.packet(&one(at(600)), None);
        collector.finish(&mut Slots::new());
        let idle = |closed: &Closed| if let Closed::Idle { minutes, .. } = closed { *minutes } else { 0 };
        assert_eq!(collector.take_closed().iter().map(idle).sum::<u32>(), want);
    }
}

#[test]
fn a_clock_that_was_set_back_goes_on_counting() {
    let mut collector = Collector::new(Config { sessions: SLOTS, fill_minutes: 0, seed: 1 });
    let mut slots = Slots::new();
    let mut send = |collector: &mut Collector, second: u64| {
        collector.session_packet(&one(at(second)), Sender::Orig, 1, &mut slots.0[1], || flow(1));
        collector.session_packet(&one(at(second)), Sender::Orig, 1, &mut slots.0[1], || flow(1));
        collector.tick(at(second), &mut slots);
    };
    for second in [7_200, 7_201, 0, 1, 61, 62, 130] {
        send(&mut collector, second);
    }
    collector.finish(&mut slots);
    let minutes = merged(collector.take_closed());
    let packets: Vec<u64> = minutes.values().map(|minute| minute.totals.counts.packets).collect();
    assert_eq!(packets, [4, 4, 2, 4]);
    assert!(minutes.values().all(|minute| minute.protocols[&6].packets == minute.totals.counts.packets));
}

#[test]
fn a_tally_never_overflows() {
    let mut collector = Collector::new(Config { sessions: SLOTS, fill_minutes: 0, seed: 1 });
    let mut slots = Slots::new();
    let big = Packet { wire_bytes: u32::MAX / 3, ..one(at(0)) };
    for _ in 0..50 {
        collector.session_packet(&big, Sender::Resp, 1, &mut slots.0[1], || flow(1));
    }
    collector.finish(&mut slots);
    let minutes = merged(collector.take_closed());
    let sum: u64 = minutes.values().map(|minute| minute.protocols[&6].bytes).sum();
    assert_eq!(sum, 50 * u64::from(u32::MAX / 3));
}

#[test]
fn a_service_found_later_counts_its_session_once() {
    let mut collector = Collector::new(Config { sessions: SLOTS, fill_minutes: 0, seed: 1 });
    let mut tally = Tally::default();
    let before = Flow { service: None, ..flow(1) };
    let after = Flow { service: Some("ssl"), ..before };
    collector.opened(at(0), &before);
    collector.session_packet(&one(at(0)), Sender::Orig, 1, &mut tally, || before);
    collector.service_found(at(1), "ssl");
    collector.session_packet(&one(at(1)), Sender::Resp, 1, &mut tally, || after);
    collector.session_packet(&one(at(61)), Sender::Resp, 1, &mut tally, || after);
    collector.ended(at(61), &mut tally, &after, false);
    collector.finish(&mut Slots::new());
    let minutes: Vec<Minute> = merged(collector.take_closed()).into_values().collect();
    let ssl: Vec<Counts> = minutes.iter().map(|minute| minute.services["ssl"]).collect();
    assert_eq!(ssl.iter().map(|c| (c.new, c.active)).collect::<Vec<_>>(), [(1, 1), (0, 1)]);
}

#[test]
fn a_long_connection_that_beats_recurs() {
    let mut collector = Collector::new(Config { sessions: SLOTS, fill_minutes: 0, seed: 1 });
    let mut slots = Slots::new();
    for beat in 0..60 {
        for packet in 0..3 {
            collector
                .session_packet(&one(at(beat * 60 + packet)), Sender::Orig, 1, &mut slots.0[1], || flow(1));
        }
    }
    collector.finish(&mut slots);
    let hours = collector.take_closed().into_iter().filter_map(|closed| match closed {
        Closed::Hour(hour) => Some(hour),
        _ => None,
    });
    let starts: u64 = hours.flat_map(|hour| hour.pairs).map(|pair| pair.starts).sum();
    assert_eq!(starts, 60);
}

#[test]
fn memory_is_what_the_formula_says() {
    let config = |sessions| Config { sessions, fill_minutes: 0, seed: 1 };
    assert_eq!(config(1_000_000).bytes() - config(0).bytes(), 250_000);
    // Stated in docs/statistics.md.
    let fixed = config(0).bytes();
    assert!((3_300_000..3_600_000).contains(&fixed), "{fixed}");
}
