//! What is cut, and what never is.

use super::*;
use proptest::prelude::*;
use tapedeck_packet::LinkType;

/// An Ethernet frame of a flow with `payload` bytes behind its headers.
#[derive(Clone, Copy, Debug)]
struct Made {
    flow: u16,
    back: bool,
    tcp_flags: Option<u8>,
    six: bool,
    tags: usize,
    payload: usize,
}

const PLAIN: Made = Made { flow: 1, back: false, tcp_flags: None, six: false, tags: 0, payload: 1000 };

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
                p.extend([0, 0, 0, 1, 0, 0, 0, 2, 0x80, flags, 1, 0, 0, 0, 0, 0]);
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

/// Bytes kept of a packet.
fn keep(shedder: &mut Shedder, bytes: &[u8], second: u64) -> usize {
    let mut walk = Walk::new();
    walk.run(LinkType::ETHERNET, bytes);
    shedder.keep(&walk, bytes, u32::try_from(bytes.len()).unwrap(), at(second))
}

fn pressed(keep_bytes: u32) -> Shedder {
    let mut shedder = Shedder::new(ShedPayload::Beyond(keep_bytes), 0x5eed);
    assert!(shedder.press(0, 64));
    shedder
}

#[test]
fn pressure_begins_late_and_ends_later() {
    let mut shedder = Shedder::new(ShedPayload::default(), 1);
    let used = |shedder: &mut Shedder, used: usize| shedder.press(64 - used, 64);
    let steps =
        [(0, false), (54, false), (55, true), (40, true), (33, true), (32, false), (54, false), (64, true)];
    for (buffers, shed) in steps {
        assert_eq!(used(&mut shedder, buffers), shed, "{buffers} of 64");
    }
    let mut never = Shedder::new(ShedPayload::Never, 1);
    assert!(!never.press(0, 64));
    let packet = PLAIN.bytes();
    assert!((0..1000).all(|_| keep(&mut never, &packet, 0) == packet.len()));
}

#[test]
fn nothing_is_cut_without_pressure_but_everything_is_counted() {
    let mut shedder = Shedder::new(ShedPayload::Beyond(5_000), 1);
    let packet = PLAIN.bytes();
    for _ in 0..100 {
        assert_eq!(keep(&mut shedder, &packet, 0), packet.len());
    }
    assert!(shedder.press(0, 64));
    assert_eq!(keep(&mut shedder, &packet, 0), PLAIN.header_bytes());
    // Another flow has its first bytes yet, and so has the same one after a long silence.
    let other = Made { flow: 2, ..PLAIN }.bytes();
    assert_eq!(keep(&mut shedder, &other, 0), other.len());
    assert_eq!(keep(&mut shedder, &packet, 60), PLAIN.header_bytes());
    assert_eq!(keep(&mut shedder, &packet, 121), packet.len());
}

#[test]
fn both_directions_are_one_flow_and_a_syn_begins_another() {
    let mut shedder = pressed(3_000);
    let there = Made { tcp_flags: Some(ACK), ..PLAIN };
    let back = Made { back: true, ..there };
    for made in [there, back, there] {
        assert_eq!(keep(&mut shedder, &made.bytes(), 0), made.bytes().len());
    }
    for made in [back, there] {
        assert_eq!(keep(&mut shedder, &made.bytes(), 0), made.header_bytes());
    }
    let syn_ack = Made { tcp_flags: Some(SYN | ACK), payload: 0, ..back };
    assert_eq!(keep(&mut shedder, &syn_ack.bytes(), 0), syn_ack.header_bytes());
    assert_eq!(keep(&mut shedder, &there.bytes(), 0), there.header_bytes());
    let syn = Made { tcp_flags: Some(SYN), payload: 0, ..there };
    assert_eq!(keep(&mut shedder, &syn.bytes(), 0), syn.header_bytes());
    assert_eq!(keep(&mut shedder, &there.bytes(), 0), there.bytes().len());
}

/// The flow inside counts, and its header stays.
#[test]
fn inside_a_tunnel_the_inner_flow_counts() {
    let mut shedder = pressed(4_000);
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
        let kept = keep(&mut shedder, &packet, 0);
        assert_eq!(kept, if number < 4 { packet.len() } else { start + long.header_bytes() }, "{number}");
    }
    let (other, _) = through(&Made { flow: 8, ..PLAIN }.bytes());
    assert_eq!(keep(&mut shedder, &other, 0), other.len());
}

#[test]
fn what_is_no_ip_and_what_is_shorter_than_its_header_stays() {
    let mut shedder = pressed(1);
    let mut arp = vec![0xff; 12];
    arp.extend([8, 6, 0, 1, 8, 0, 6, 4, 0, 1]);
    arp.resize(60, 0);
    let cut = &Made { tcp_flags: Some(ACK), ..PLAIN }.bytes()[..40];
    for _ in 0..10 {
        assert_eq!((keep(&mut shedder, &arp, 0), keep(&mut shedder, cut, 0)), (60, 40));
    }
}

/// Ten times as many flows as there is room for: long ones stay, none is cut too soon.
#[test]
fn more_flows_than_places_are_kept_rather_than_cut() {
    let mut shedder = pressed(100_000);
    let long = PLAIN.bytes();
    for _ in 0..200 {
        keep(&mut shedder, &long, 0);
    }
    let mut walk = Walk::new();
    walk.run(LinkType::ETHERNET, &long);
    let Net::Ip(mut ip) = walk.layers()[0].net else { panic!("no IP") };
    for number in 0..u32::try_from(SETS * WAYS * 10).unwrap() {
        ip.dst = IpAddr::from((0x0b00_0000 + number).to_be_bytes());
        assert_eq!(shedder.count(&ip, 1_000, at(0)), 0);
    }
    assert_eq!(keep(&mut shedder, &long, 0), PLAIN.header_bytes());
}

fn made() -> impl Strategy<Value = Made> {
    let flags = prop_oneof![Just(None), Just(Some(ACK)), Just(Some(SYN)), Just(Some(SYN | ACK))];
    (0..6_u16, any::<bool>(), flags, any::<bool>(), 0..3_usize, 0..1_400_usize).prop_map(
        |(flow, back, tcp_flags, six, tags, payload)| Made { flow, back, tcp_flags, six, tags, payload },
    )
}

proptest! {
    /// Whatever comes under whatever pressure: headers are whole, what is left is the beginning, walks to
    /// the same layers, and every flow has its first bytes.
    #[test]
    fn headers_and_first_bytes_are_whole(
        packets in prop::collection::vec((made(), 0..=64_usize), 1..200),
        keep_bytes in 1..20_000_u32,
    ) {
        let mut shedder = Shedder::new(ShedPayload::Beyond(keep_bytes), 99);
        let mut before: std::collections::HashMap<_, u64> = std::collections::HashMap::new();
        let (mut kept_sum, mut cut_sum, mut all) = (0, 0, 0);
        for (made, free) in packets {
            let shed = shedder.press(free, 64);
            let bytes = made.bytes();
            let kept = keep(&mut shedder, &bytes, 0);
            let so_far = before.entry((made.flow, made.tcp_flags.is_some(), made.six)).or_default();
            if made.tcp_flags == Some(SYN) {
                *so_far = 0;
            }
            let due = shed && *so_far >= u64::from(keep_bytes);
            prop_assert_eq!(kept, if due { made.header_bytes() } else { bytes.len() });
            *so_far += bytes.len() as u64;
            let (mut whole, mut cut) = (Walk::new(), Walk::new());
            whole.run(LinkType::ETHERNET, &bytes);
            cut.run(LinkType::ETHERNET, &bytes[..kept]);
            prop_assert_eq!(whole.layers(), cut.layers());
            (kept_sum, cut_sum, all) = (kept_sum + kept, cut_sum + bytes.len() - kept, all + bytes.len());
        }
        prop_assert_eq!(kept_sum + cut_sum, all);
    }
}
