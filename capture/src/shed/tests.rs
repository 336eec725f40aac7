//! What is cut, and what never is.

use super::*;
use proptest::prelude::*;
use tapedeck_packet::{LinkType, Timestamp};
use tapedeck_session::{Config, Packet, Place, Stage, Table};

const SYN: u8 = 0x02;
const ACK: u8 = 0x10;

/// An Ethernet frame of a flow with `payload` bytes behind its headers.
#[derive(Clone, Copy, Debug)]
struct Made {
    flow: u16,
    back: bool,
    tcp_flags: Option<u8>,
    six: bool,
    tags: usize,
    payload: usize,
    seq: u8,
}

const PLAIN: Made =
    Made { flow: 1, back: false, tcp_flags: None, six: false, tags: 0, payload: 1000, seq: 1 };

impl Made {
    fn header_bytes(self) -> usize {
        let ip = if self.six { 40 } else { 20 };
        14 + 4 * self.tags + ip + if self.tcp_flags.is_some() { 32 } else { 8 }
    }

    fn bytes(self) -> Vec<u8> {
        let mut p = vec![2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1];
        for _ in 0..self.tags {
            p.extend([0x81, 0, 0, 7]);
        }
        let transport = self.header_bytes() - p.len() - 2 - if self.six { 40 } else { 20 };
        let content = u16::try_from(transport + self.payload).unwrap();
        let proto = if self.tcp_flags.is_some() { TCP } else { UDP };
        let (src, dst) = if self.back { (2, 1) } else { (1, 2) };
        if self.six {
            p.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            p.extend(content.to_be_bytes());
            p.extend([proto, 64]);
            for end in [src, dst] {
                p.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, end]);
            }
        } else {
            p.extend([8, 0, 0x45, 0]);
            p.extend((content + 20).to_be_bytes());
            p.extend([0, 0, 0, 0, 64, proto, 0, 0, 10, 0, 0, src, 10, 0, 0, dst]);
        }
        let ports = [self.flow, 443];
        let (sport, dport) = if self.back { (ports[1], ports[0]) } else { (ports[0], ports[1]) };
        p.extend(sport.to_be_bytes());
        p.extend(dport.to_be_bytes());
        match self.tcp_flags {
            Some(flags) => {
                p.extend([0, 0, self.seq, 1, 0, 0, 0, 2, 0x80, flags, 1, 0, 0, 0, 0, 0]);
                p.extend([1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
            }
            None => {
                p.extend(content.to_be_bytes());
                p.extend([0, 0]);
            }
        }
        p.resize(self.header_bytes() + self.payload, 0xaa);
        p
    }
}

fn at(second: u64) -> Timestamp {
    Timestamp::from_nanos_saturating((1_800_000_000 + second) * 1_000_000_000)
}

/// A worker's part in it: a shedder, and a session table that takes what is kept.
struct Worker {
    shedder: Shedder,
    table: Table,
}

impl Worker {
    fn new(shed: ShedPayload) -> Self {
        let config = Config { max_sessions: 1 << 10, ..Config::default() };
        Self { shedder: Shedder::new(shed), table: Table::new(config) }
    }

    fn pressed(keep_bytes: u32) -> Self {
        let mut worker = Self::new(ShedPayload::Beyond(keep_bytes));
        assert_eq!(worker.shedder.press(0, 64, || 100), Turn::Take);
        assert!(worker.shedder.pressed());
        worker
    }

    /// Bytes kept of a packet that comes alone.
    fn keep(&mut self, bytes: &[u8], second: u64) -> usize {
        take(self.shedder, &mut self.table.stage(&mut |_| {}), bytes, second)
    }

    /// The same of packets that come in one batch, or one by one.
    fn keep_all(&mut self, packets: &[Vec<u8>], batched: bool) -> Vec<usize> {
        if !batched {
            return packets.iter().map(|packet| self.keep(packet, 0)).collect();
        }
        let mut sink = |_| {};
        let mut sessions = self.table.stage(&mut sink);
        packets.iter().map(|packet| take(self.shedder, &mut sessions, packet, 0)).collect()
    }
}

/// Bytes kept of the next packet of a batch.
fn take<'p>(shedder: Shedder, sessions: &mut Stage<'_, '_, 'p>, bytes: &'p [u8], second: u64) -> usize {
    let mut walk = Walk::new();
    walk.run(LinkType::ETHERNET, bytes);
    let kept = shedder.keep(&walk, bytes, |first| sessions.has_had(&walk, at(second), first));
    let original_bytes = u32::try_from(bytes.len()).unwrap();
    let bytes = &bytes[..kept];
    walk.run(LinkType::ETHERNET, bytes);
    let place = Place::new(1, 1);
    sessions.push(&walk, &Packet { ts: at(second), bytes, original_bytes, place, stored: true });
    kept
}

/// Says in turn how many of 64 buffers are in use and how full packet memory is, percent; compares what comes of it and
/// whether payload is shed.
fn turns(shed: ShedPayload, steps: &[(usize, u32, Turn, bool)]) {
    let mut shedder = Shedder::new(shed);
    for (step, &(used, memory, turn, pressed)) in steps.iter().enumerate() {
        assert_eq!(shedder.press(64 - used, 64, || memory), turn, "step {step}");
        assert_eq!(shedder.pressed(), pressed, "step {step}");
    }
}

#[test]
fn packets_wait_before_any_is_cut_and_are_cut_before_any_is_shed() {
    let steps = [
        // Frame buffers first, however full the memory is.
        (0, 100, Turn::Take, false),
        (54, 100, Turn::Take, false),
        // Then memory.
        (55, 0, Turn::Wait, false),
        (64, 74, Turn::Wait, false),
        (54, 74, Turn::Take, false),
        // Then payload, until the buffers have recovered; what is cut waits, too, where no buffer is left for it.
        (55, 75, Turn::Take, true),
        (60, 10, Turn::Take, true),
        (61, 10, Turn::Wait, true),
        (64, 89, Turn::Wait, true),
        // Then packets.
        (64, 90, Turn::Take, true),
        (33, 90, Turn::Take, true),
        (32, 90, Turn::Take, false),
        (54, 90, Turn::Take, false),
        (64, 0, Turn::Wait, false),
    ];
    turns(ShedPayload::default(), &steps);
    // Without payload to shed there are only the first and the last.
    turns(
        ShedPayload::Never,
        &[(64, 89, Turn::Wait, false), (64, 90, Turn::Take, false), (0, 0, Turn::Take, false)],
    );
}

#[test]
fn who_never_sheds_payload_keeps_all_of_it() {
    let mut never = Worker::new(ShedPayload::Never);
    assert_eq!(never.shedder.press(0, 64, || 100), Turn::Take);
    let packet = PLAIN.bytes();
    assert!((0..1000).all(|_| never.keep(&packet, 0) == packet.len()));
}

#[test]
fn nobody_asks_how_full_the_memory_is_without_need() {
    let mut shedder = Shedder::new(ShedPayload::default());
    assert_eq!(shedder.press(64, 64, || unreachable!("there is room")), Turn::Take);
}

#[test]
fn nobody_asks_how_much_a_flow_has_had_without_need() {
    let mut walk = Walk::new();
    let mut shedder = Shedder::new(ShedPayload::Beyond(1));
    for (free, payload, wanted) in [(64, 1000, 0), (0, 1000, 1), (0, 1, 1), (0, 0, 0)] {
        let packet = Made { payload, ..PLAIN }.bytes();
        walk.run(LinkType::ETHERNET, &packet);
        shedder.press(free, 64, || 100);
        let mut asked = 0;
        let kept = shedder.keep(&walk, &packet, |_| {
            asked += 1;
            false
        });
        assert_eq!((kept, asked), (packet.len(), wanted), "{free} free, {payload} bytes of payload");
    }
}

#[test]
fn nothing_is_cut_without_pressure_but_everything_is_counted() {
    let mut worker = Worker::new(ShedPayload::Beyond(5_000));
    let packet = PLAIN.bytes();
    for _ in 0..100 {
        assert_eq!(worker.keep(&packet, 0), packet.len());
    }
    worker.shedder.press(0, 64, || 100);
    assert!(worker.shedder.pressed());
    assert_eq!(worker.keep(&packet, 0), PLAIN.header_bytes());
    // Another flow has its first bytes yet, and so has the same one once its session is over.
    let other = Made { flow: 2, ..PLAIN }.bytes();
    assert_eq!(worker.keep(&other, 0), other.len());
    assert_eq!(worker.keep(&packet, 59), PLAIN.header_bytes());
    assert_eq!(worker.keep(&packet, 119), packet.len());
}

/// What a record has told counts on: a flow of hours has its first bytes once.
#[test]
fn a_flow_is_not_begun_anew_by_its_records() {
    let mut worker = Worker::pressed(5_000);
    let packet = PLAIN.bytes();
    let mut records = 0;
    for second in (0..1_200).step_by(30) {
        let kept = take(worker.shedder, &mut worker.table.stage(&mut |_| records += 1), &packet, second);
        let whole = second < 150;
        // Where a record is due the session may be over as well.
        if kept != packet.len() || whole {
            assert_eq!(kept, if whole { packet.len() } else { PLAIN.header_bytes() }, "{second}");
        }
        worker.table.expire(at(second), 10, &mut |_| records += 1);
        assert!(second < 180 || second % 300 == 0 || kept < packet.len(), "{second}");
    }
    assert!(records >= 3, "{records}");
}

#[test]
fn both_directions_are_one_flow_and_a_syn_begins_another() {
    let mut worker = Worker::pressed(3_000);
    let there = Made { tcp_flags: Some(ACK), ..PLAIN };
    let back = Made { back: true, ..there };
    for made in [there, back, there] {
        assert_eq!(worker.keep(&made.bytes(), 0), made.bytes().len());
    }
    for made in [back, there] {
        assert_eq!(worker.keep(&made.bytes(), 0), made.header_bytes());
    }
    // In a batch of its own, and in one with what follows.
    for batched in [false, true] {
        let syn = Made { tcp_flags: Some(SYN), seq: 7 + u8::from(batched), ..there };
        let packets: Vec<_> = [syn, there, back, there].iter().map(|made| made.bytes()).collect();
        let kept = worker.keep_all(&packets, batched);
        let whole = packets[0].len();
        assert_eq!(kept, [whole, whole, whole, there.header_bytes()], "{batched}");
    }
}

/// Where the other direction comes on another queue, an answer is the first that is seen of another flow.
#[test]
fn of_one_side_alone_a_syn_ack_begins_another_flow() {
    for batched in [false, true] {
        let mut worker = Worker::pressed(3_000);
        let back = Made { back: true, tcp_flags: Some(ACK), ..PLAIN };
        for _ in 0..5 {
            worker.keep(&back.bytes(), 0);
        }
        assert_eq!(worker.keep(&back.bytes(), 0), back.header_bytes());
        let answer = Made { tcp_flags: Some(SYN | ACK), seq: 9, ..back };
        let packets: Vec<_> = [answer, back].iter().map(|made| made.bytes()).collect();
        let whole = packets[0].len();
        assert_eq!(worker.keep_all(&packets, batched), [whole, whole], "{batched}");
    }
}

/// The flow inside counts, and its header stays.
#[test]
fn inside_a_tunnel_the_inner_flow_counts() {
    let mut worker = Worker::pressed(4_000);
    let through = |inner: &[u8]| {
        let head = Made { payload: 8 + inner.len(), ..PLAIN };
        let mut p = head.bytes();
        p.truncate(head.header_bytes());
        // VXLAN.
        p[36..38].copy_from_slice(&4789_u16.to_be_bytes());
        p.extend([8, 0, 0, 0, 0, 0, 5, 0]);
        let start = p.len();
        p.extend(inner);
        (p, start)
    };
    let long = Made { flow: 7, ..PLAIN };
    let (packet, start) = through(&long.bytes());
    for number in 0..20 {
        let kept = worker.keep(&packet, 0);
        assert_eq!(kept, if number < 4 { packet.len() } else { start + long.header_bytes() }, "{number}");
    }
    let (other, _) = through(&Made { flow: 8, ..PLAIN }.bytes());
    assert_eq!(worker.keep(&other, 0), other.len());
}

/// Later fragments do not show their ports: they belong to the flow of the first one.
#[test]
fn a_later_fragment_is_of_the_flow_of_its_first() {
    let fragment = |id: u8, offset: u8, more: bool| {
        let mut p = PLAIN.bytes();
        p[18..22].copy_from_slice(&[0, id, if more { 0x20 } else { 0 }, offset]);
        p
    };
    let (headers, ip_headers) = (PLAIN.header_bytes(), PLAIN.header_bytes() - 8);
    for batched in [false, true] {
        let mut worker = Worker::pressed(2_000);
        for id in 1..6 {
            let packets = [fragment(id, 0, true), fragment(id, 126, true), fragment(id, 252, false)];
            let kept = worker.keep_all(&packets, batched);
            let cut = [headers, ip_headers, ip_headers];
            let whole = packets.each_ref().map(Vec::len);
            if id == 1 {
                // In one batch the later ones are not added up yet.
                let first = if batched { whole } else { [whole[0], whole[1], ip_headers] };
                assert_eq!(kept, first, "{batched}");
            } else {
                assert_eq!(kept, cut, "{batched}, datagram {id}");
            }
        }
    }
}

#[test]
fn what_is_no_ip_and_what_is_shorter_than_its_header_stays() {
    let mut worker = Worker::pressed(1);
    let mut arp = vec![0xff; 12];
    arp.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.resize(60, 0);
    let cut = &Made { tcp_flags: Some(ACK), ..PLAIN }.bytes()[..40];
    for _ in 0..10 {
        assert_eq!((worker.keep(&arp, 0), worker.keep(cut, 0)), (60, 40));
    }
}

/// What finds no room in the table is kept rather than cut, and those that have room are cut as ever.
#[test]
fn flows_without_a_session_are_whole() {
    let config = Config { max_sessions: 4, max_evictions_per_second: 0, ..Config::default() };
    let mut worker = Worker { table: Table::new(config), ..Worker::pressed(3_000) };
    for round in 0..10 {
        for flow in 0..40 {
            let made = Made { flow, ..PLAIN };
            let whole = flow >= 4 || round < 3;
            let due = if whole { made.bytes().len() } else { made.header_bytes() };
            assert_eq!(worker.keep(&made.bytes(), 0), due, "flow {flow}, round {round}");
        }
    }
}

fn made() -> impl Strategy<Value = Made> {
    let flags = prop_oneof![Just(None), Just(Some(ACK)), Just(Some(SYN))];
    (0..6_u16, any::<bool>(), flags, any::<bool>(), 0..3_usize, 0..1_400_usize).prop_map(
        |(flow, back, tcp_flags, six, tags, payload)| Made {
            flow,
            back,
            tcp_flags,
            six,
            tags,
            payload,
            seq: 0,
        },
    )
}

proptest! {
    /// Whatever comes under whatever pressure, in batches of whatever size: headers are whole, what is left is the
    /// beginning, walks to the same layers, and every flow has its first bytes and not more.
    #[test]
    fn headers_and_first_bytes_are_whole(
        packets in prop::collection::vec((made(), 0..=64_usize, prop::bool::weighted(0.1)), 1..200),
        keep_bytes in 1..20_000_u32,
    ) {
        let mut worker = Worker::new(ShedPayload::Beyond(keep_bytes));
        let mut before: std::collections::HashMap<_, u64> = std::collections::HashMap::new();
        let packets: Vec<_> = packets.into_iter().zip(1..).map(|((mut made, free, ends), seq)| {
            // Each connection begins with a number of its own.
            made.seq = seq;
            (made, made.bytes(), free, ends)
        }).collect();
        let (mut kept_sum, mut cut_sum, mut all) = (0, 0, 0);
        for batch in packets.split_inclusive(|(.., ends)| *ends) {
            let Worker { shedder, table } = &mut worker;
            let mut sink = |_| {};
            let mut sessions = table.stage(&mut sink);
            for (made, bytes, free, _) in batch {
                shedder.press(*free, 64, || 100);
                let shed = shedder.pressed();
                let kept = take(*shedder, &mut sessions, bytes, 0);
                let so_far = before.entry((made.flow, made.tcp_flags.is_some(), made.six)).or_default();
                if made.tcp_flags == Some(SYN) {
                    *so_far = 0;
                }
                let due = shed && made.tcp_flags != Some(SYN) && *so_far >= u64::from(keep_bytes);
                prop_assert_eq!(kept, if due { made.header_bytes() } else { bytes.len() });
                *so_far += bytes.len() as u64;
                let (mut whole, mut cut) = (Walk::new(), Walk::new());
                whole.run(LinkType::ETHERNET, bytes);
                cut.run(LinkType::ETHERNET, &bytes[..kept]);
                prop_assert_eq!(whole.layers(), cut.layers());
                (kept_sum, cut_sum, all) = (kept_sum + kept, cut_sum + bytes.len() - kept, all + bytes.len());
            }
        }
        prop_assert_eq!(kept_sum + cut_sum, all);
    }
}
