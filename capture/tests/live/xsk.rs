//! AF_XDP sockets and the XDP program on a veth, without the rest of the recorder.

use crate::support::{Net, Tap, live, number_of, numbered};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};
use tapedeck_capture::xsk::{BindMode, ChunkSize, XskConfig, XskSocket};
use tapedeck_ebpf::{Counts, FLAG_HEAD, Mode, Program, Refusal};

fn open(net: &Net, queue: u32, mtu: u32, rx_entries: u32) -> XskSocket {
    open_on(net.rx_index(), queue, mtu, rx_entries)
}

fn open_on(ifindex: u32, queue: u32, mtu: u32, rx_entries: u32) -> XskSocket {
    let (chunk, fragments) = ChunkSize::for_mtu(mtu);
    XskSocket::open(XskConfig { ifindex, queue, chunk, fragments, rx_entries, chunks: rx_entries * 2 })
        .unwrap()
}

/// Sockets on all queues, bound and in their slots, program attached.
fn listen(net: &Net, queues: u32, mode: Mode, mtu: u32, rx_entries: u32) -> (Program, Vec<XskSocket>) {
    let mut program = Program::load(0).unwrap();
    assert_eq!(program.without_refusals(), None);
    let mut sockets = Vec::new();
    for queue in 0..queues {
        let mut socket = open(net, queue, mtu, rx_entries);
        socket.bind(BindMode::Copy).unwrap();
        program.set_socket(queue, socket.as_fd()).unwrap();
        sockets.push(socket);
    }
    program.attach(net.rx_index(), mode).unwrap();
    (program, sockets)
}

/// The counts of a queue once it has seen `packets`.
fn settled(program: &Program, queues: u32, packets: u64) -> Vec<Counts> {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let counts: Vec<Counts> = (0..queues).map(|queue| program.totals(queue).unwrap()).collect();
        if counts.iter().map(|counts| counts.packets).sum::<u64>() >= packets || Instant::now() > deadline {
            return counts;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// What came back: per queue (flow, number, stamp, sequence) in order of arrival.
type Arrived = Vec<Vec<(u16, u64, u64, u64)>>;

fn collect(sockets: &mut [XskSocket], tags: usize, expected: usize, wanted_len: usize) -> Arrived {
    let mut arrived: Arrived = vec![Vec::new(); sockets.len()];
    let deadline = Instant::now() + Duration::from_secs(20);
    while arrived.iter().map(Vec::len).sum::<usize>() < expected && Instant::now() < deadline {
        for (socket, out) in sockets.iter_mut().zip(&mut arrived) {
            let mut batch = socket.peek(64);
            for packet in batch.packets() {
                let meta = packet.meta.expect("metadata");
                assert_eq!(meta.length as usize, packet.bytes.len());
                if let Some((flow, number)) = number_of(packet.bytes, tags) {
                    assert_eq!(packet.bytes, numbered(flow, number, wanted_len, &[7, 8][..tags]));
                    out.push((flow, number, meta.ktime_ns, meta.sequence));
                }
            }
        }
    }
    arrived
}

fn each_number_comes_back_once(mode: Mode) {
    const FLOWS: u16 = 16;
    const EACH: u16 = 250;
    let net = Net::new(4, 1500);
    let (program, mut sockets) = listen(&net, 4, mode, 1500, 4096);
    let sender = net.sender();
    for number in 0..u64::from(EACH) {
        for flow in 0..FLOWS {
            assert!(sender.send(&numbered(flow, number, 60, &[])));
        }
        std::thread::sleep(Duration::from_micros(300));
    }
    let total = usize::from(FLOWS) * usize::from(EACH);
    let arrived = collect(&mut sockets, 0, total, 60);
    let mut seen: BTreeMap<u16, Vec<u64>> = BTreeMap::new();
    for queue in &arrived {
        assert!(queue.is_sorted_by_key(|p| p.2), "stamps of a queue go back");
        assert!(queue.iter().zip(0..).all(|(p, sequence)| p.3 == sequence), "sequence has a gap");
        for (flow, number, ..) in queue {
            seen.entry(*flow).or_default().push(*number);
        }
    }
    assert_eq!(seen.len(), usize::from(FLOWS));
    for (flow, numbers) in seen {
        assert_eq!(numbers, (0..u64::from(EACH)).collect::<Vec<_>>(), "flow {flow}");
    }
    assert!(arrived.iter().filter(|queue| !queue.is_empty()).count() > 1, "all on one queue");
    for (queue, got) in (0..).zip(&arrived) {
        let totals = program.totals(queue).unwrap();
        assert_eq!((totals.packets, totals.delivered()), (got.len() as u64, got.len() as u64));
        assert_eq!(totals.bytes, 60 * totals.packets);
        let by_second = program.seconds(queue).unwrap();
        assert_eq!(by_second.values().map(|counts| counts.packets).sum::<u64>(), totals.packets);
    }
}

#[test]
fn native_mode_gives_each_packet_once() {
    live!();
    each_number_comes_back_once(Mode::Native);
}

#[test]
fn skb_mode_gives_each_packet_once() {
    live!();
    each_number_comes_back_once(Mode::Skb);
}

#[test]
fn a_full_ring_is_counted_packet_by_packet() {
    live!();
    let net = Net::new(1, 1500);
    let (program, mut sockets) = listen(&net, 1, Mode::Native, 1500, 64);
    let sender = net.sender();
    for number in 0..300 {
        assert!(sender.send(&numbered(0, number, 60, &[])));
        std::thread::sleep(Duration::from_micros(50));
    }
    let totals = settled(&program, 1, 300)[0];
    let arrived = collect(&mut sockets, 0, 64, 60);
    assert_eq!(arrived[0].len(), 64);
    assert_eq!((totals.packets, totals.refused(Refusal::RingFull)), (300, 236));
    assert_eq!(totals.delivered(), 64);
    let stats = sockets[0].stats().unwrap();
    assert_eq!((stats.rx_ring_full, stats.rx_dropped), (236, 0), "the kernel's own count differs");
}

#[test]
fn an_empty_slot_is_counted_and_passed_on() {
    live!();
    let net = Net::new(1, 1500);
    let mut program = Program::load(0).unwrap();
    program.attach(net.rx_index(), Mode::Native).unwrap();
    let sender = net.sender();
    for number in 0..50 {
        assert!(sender.send(&numbered(0, number, 60, &[])));
    }
    let totals = settled(&program, 1, 50)[0];
    assert_eq!((totals.packets, totals.slot_empty, totals.delivered()), (50, 50, 0));
}

#[test]
fn an_unbound_socket_and_a_wrong_queue_are_told_apart() {
    live!();
    let net = Net::new(2, 1500);
    let (program, sockets) = listen(&net, 2, Mode::Native, 1500, 64);
    let spare = open(&net, 0, 1500, 64);
    let sender = net.sender();
    program.set_socket(0, spare.as_fd()).unwrap();
    program.set_socket(1, sockets[0].as_fd()).unwrap();
    for flow in 0..32 {
        assert!(sender.send(&numbered(flow, 0, 60, &[])));
    }
    let totals = settled(&program, 2, 32);
    assert!(totals.iter().all(|t| t.packets > 0 && t.delivered() == 0), "{totals:?}");
    assert_eq!(totals[0].refused(Refusal::Unbound), totals[0].packets);
    assert_eq!(totals[1].refused(Refusal::WrongQueue), totals[1].packets);
}

#[test]
fn a_closed_socket_empties_its_slot() {
    live!();
    let net = Net::new(1, 1500);
    let (program, sockets) = listen(&net, 1, Mode::Native, 1500, 64);
    drop(sockets);
    assert!(net.sender().send(&numbered(0, 0, 60, &[])));
    let totals = settled(&program, 1, 1)[0];
    assert_eq!((totals.packets, totals.slot_empty), (1, 1));
}

#[test]
fn tags_and_jumbo_packets_come_back_whole() {
    live!();
    for (mode, len, tags) in
        [(Mode::Native, 9018, 1), (Mode::Skb, 9018, 1), (Mode::Native, 9014, 0), (Mode::Native, 1000, 2)]
    {
        let net = Net::new(1, 9000);
        let (program, mut sockets) = listen(&net, 1, mode, 9000, 512);
        let sender = net.sender();
        for number in 0..100 {
            assert!(sender.send(&numbered(3, number, len, &[7, 8][..tags])));
            std::thread::sleep(Duration::from_micros(100));
        }
        let arrived = collect(&mut sockets, tags, 100, len);
        assert_eq!(arrived[0].len(), 100, "{mode:?} {len} {tags}: {:?}", program.totals(0));
        assert_eq!(sockets[0].misfits(), 0);
    }
}

/// The program for kernels whose sockets take no packet in several pieces, on one that does.
#[test]
fn pieces_that_a_kernel_cannot_take_are_counted() {
    live!();
    let net = Net::new(1, 9000);
    let mut program = Program::load_for_one_piece(0).unwrap();
    let mut socket = open(&net, 0, 1500, 512);
    socket.bind(BindMode::Copy).unwrap();
    program.set_socket(0, socket.as_fd()).unwrap();
    program.attach(net.rx_index(), Mode::Native).unwrap();
    let sender = net.sender();
    for number in 0..100 {
        assert!(sender.send(&numbered(0, number, if number % 2 == 0 { 9014 } else { 1514 }, &[])));
        std::thread::sleep(Duration::from_micros(100));
    }
    let totals = settled(&program, 1, 100)[0];
    let arrived = collect(&mut [socket], 0, 50, 1514);
    assert_eq!((totals.packets, totals.refused(Refusal::Oversize), totals.delivered()), (100, 50, 50));
    assert!(arrived[0].iter().map(|packet| packet.1).eq((0..100).filter(|number| number % 2 == 1)));
}

#[test]
fn detaching_leaves_what_arrived_readable() {
    live!();
    let net = Net::new(1, 1500);
    let (mut program, mut sockets) = listen(&net, 1, Mode::Native, 1500, 256);
    let sender = net.sender();
    for number in 0..200 {
        assert!(sender.send(&numbered(0, number, 60, &[])));
        std::thread::sleep(Duration::from_micros(50));
    }
    settled(&program, 1, 200);
    program.detach().unwrap();
    assert!(sender.send(&numbered(0, 999, 60, &[])));
    let totals = program.totals(0).unwrap();
    let arrived = collect(&mut sockets, 0, 200, 60);
    assert_eq!((totals.delivered(), arrived[0].len()), (200, 200));
}

#[test]
fn zero_copy_is_refused_by_a_driver_without_it() {
    live!();
    let net = Net::new(1, 1500);
    let mut socket = open(&net, 0, 1500, 64);
    let refused = socket.bind(BindMode::ZeroCopy).unwrap_err();
    assert_eq!(refused.source.raw_os_error(), Some(libc::EOPNOTSUPP));
    socket.bind(BindMode::Copy).unwrap();
}

/// Metadata in front of the packet, on a driver (tap) that would have an area for it and on a veth with
/// jumbo packets in pieces.
#[test]
fn metadata_in_front_is_taken_off() {
    live!();
    let net = Net::new(1, 9000);
    let mut tap = Tap::new(&net);
    in_front(tap.ifindex, 1500, 60, |frame| tap.arrive(frame));
    let sender = net.sender();
    for len in [60, 3000, 9014] {
        in_front(net.rx_index(), 9000, len, |frame| assert!(sender.send(frame)));
    }
}

fn in_front(ifindex: u32, mtu: u32, len: usize, mut send: impl FnMut(&[u8])) {
    let mut program = Program::load_in_front(0).unwrap();
    let mut socket = open_on(ifindex, 0, mtu, 512);
    socket.bind(BindMode::Copy).unwrap();
    program.set_socket(0, socket.as_fd()).unwrap();
    program.attach(ifindex, Mode::Native).unwrap();
    for number in 0..100 {
        send(&numbered(1, number, len, &[]));
        std::thread::sleep(Duration::from_micros(100));
    }
    let deadline = Instant::now() + Duration::from_secs(20);
    let mut arrived = Vec::new();
    while arrived.len() < 100 && Instant::now() < deadline {
        let mut batch = socket.peek(64);
        for packet in batch.packets() {
            let meta = packet.meta.expect("metadata");
            assert_eq!((meta.flags, meta.length as usize), (FLAG_HEAD, packet.bytes.len()));
            if let Some((flow, number)) = number_of(packet.bytes, 0) {
                assert_eq!(packet.bytes, numbered(flow, number, len, &[]));
                arrived.push(number);
            }
        }
    }
    assert_eq!(arrived, (0..100).collect::<Vec<_>>(), "{len}: {:?}", program.totals(0));
}
