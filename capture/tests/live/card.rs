//! Stamps of a card: the program that asks for them, on a veth, whose driver answers but has no clock. Where a clock
//! is wanted the stamps stand in the packets, and the system's raw clock plays the card's.

use crate::operator::refused;
use crate::support::recorder::{Recorder, interface_option, segments};
use crate::support::{Net, Sender, live, numbered, pin_dir};
use nix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};
use tapedeck_capture::card::{Pace, read};
use tapedeck_capture::xsk::{BindMode, ChunkSize, XskConfig, XskSocket};
use tapedeck_ebpf::{CardCounts, CardSample, Meta, Mode, Pins, Program};

/// Nobody drives this clock, so that it runs a little beside CLOCK_MONOTONIC, as a card's does.
const CARD: ClockId = ClockId::CLOCK_MONOTONIC_RAW;
const MS: u64 = 1_000_000;

fn nanos(clock: ClockId) -> u64 {
    let time = clock_gettime(clock).unwrap();
    u64::try_from(time.tv_sec()).unwrap() * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap()
}

/// Two readings, far enough from each other.
fn sample() -> CardSample {
    let mut pace = Pace::default();
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(sample) = pace.take(read(CARD).unwrap()) {
            return sample;
        }
        assert!(Instant::now() < deadline, "no two readings agree");
        std::thread::sleep(Duration::from_millis(150));
    }
}

struct Bench {
    program: Program,
    socket: XskSocket,
    sender: Sender,
    sent: u64,
    _net: Net,
}

impl Bench {
    fn new(load: fn(u64, u32) -> Result<Program, tapedeck_ebpf::ProgramError>, offset: u64) -> Self {
        let net = Net::new(1, 1500);
        let ifindex = net.rx_index();
        let mut program = load(offset, ifindex).unwrap();
        assert!(program.asks_card() && program.without_refusals().is_none());
        let (chunk, fragments) = ChunkSize::for_mtu(1500);
        let config = XskConfig { ifindex, queue: 0, chunk, fragments, rx_entries: 1024, chunks: 2048 };
        let mut socket = XskSocket::open(config).unwrap();
        socket.bind(BindMode::Copy).unwrap();
        program.set_socket(0, socket.as_fd()).unwrap();
        program.attach(ifindex, Mode::Native).unwrap();
        Self { program, socket, sender: net.sender(), sent: 0, _net: net }
    }

    /// Sends a packet that says `card_ns`, and returns its metadata.
    fn send(&mut self, card_ns: u64) -> Meta {
        let mut frame = [0; 60];
        frame[..14].copy_from_slice(&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
        frame[14..22].copy_from_slice(&card_ns.to_ne_bytes());
        frame[22..30].copy_from_slice(&self.sent.to_ne_bytes());
        assert!(self.sender.send(&frame));
        self.sent += 1;
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            assert!(Instant::now() < deadline, "packet {} did not arrive", self.sent);
            let mut batch = self.socket.peek(64);
            let ours = |bytes: &[u8]| bytes == frame;
            if let Some(packet) = batch.packets().find(|packet| ours(packet.bytes)) {
                return packet.meta.unwrap();
            }
        }
    }

    fn counts(&self) -> CardCounts {
        self.program.card_counts().unwrap().unwrap()
    }
}

#[test]
fn a_card_without_a_clock_leaves_the_stamps_to_the_program() {
    live!();
    let mut bench = Bench::new(Program::load_asking_card, 0);
    for sample in [None, Some(sample())] {
        bench.program.set_card(sample, 0).unwrap();
        for _ in 0..20 {
            let before = nanos(ClockId::CLOCK_MONOTONIC);
            let meta = bench.send(0);
            assert!(
                !meta.by_card()
                    && meta.ktime_ns >= before
                    && meta.ktime_ns <= nanos(ClockId::CLOCK_MONOTONIC)
            );
        }
    }
    assert_eq!(bench.counts(), CardCounts { absent: 40, ..CardCounts::default() });
    assert_eq!(bench.program.totals(0).unwrap().delivered(), 40);
}

#[test]
fn stamps_of_a_card_are_brought_to_the_clock_and_what_cannot_be_is_not_believed() {
    live!();
    let mut bench = Bench::new(Program::load_card_in_packet, 0);
    bench.program.set_card(Some(sample()), 0).unwrap();
    let mut worst = 0;
    for _ in 0..200 {
        let before = nanos(ClockId::CLOCK_MONOTONIC);
        let card = nanos(CARD);
        let after = nanos(ClockId::CLOCK_MONOTONIC);
        let meta = bench.send(card);
        assert!(meta.by_card());
        worst = worst.max(before.saturating_sub(meta.ktime_ns)).max(meta.ktime_ns.saturating_sub(after));
    }
    // What the readings' brackets leave open, far below the way of the packet.
    assert!(worst < 20_000, "{worst} ns beside the card's clock");
    assert_eq!(bench.counts(), CardCounts { stamped: 200, ..CardCounts::default() });

    // A packet that waited for a busy CPU keeps its time.
    let before = nanos(ClockId::CLOCK_MONOTONIC);
    let meta = bench.send(nanos(CARD) - 20 * MS);
    assert!(meta.by_card() && meta.ktime_ns < before - 19 * MS && meta.ktime_ns > before - 21 * MS);
    // None, from the future, too old, of another day, and what overflows.
    let wrong = |card: u64| [0, card + 10 * MS, card - 60 * MS, card + 86_400_000 * MS, 1, u64::MAX, 1 << 63];
    for kind in 0..7 {
        let before = nanos(ClockId::CLOCK_MONOTONIC);
        let meta = bench.send(wrong(nanos(CARD))[kind]);
        assert!(!meta.by_card() && meta.ktime_ns >= before, "{kind}");
    }
    assert_eq!(bench.counts(), CardCounts { stamped: 201, absent: 1, refused: 6 });

    // Nobody has looked at the card's clock for long, or nobody knows how it runs.
    let now = sample();
    let before = |ns: u64| ns.wrapping_sub(6_000 * MS);
    let old = CardSample { card_ns: before(now.card_ns), ktime_ns: before(now.ktime_ns), ..now };
    for sample in [Some(old), None] {
        bench.program.set_card(sample, 0).unwrap();
        assert!(!bench.send(nanos(CARD)).by_card());
    }
    // The clock was stepped since: what it says now is not believed, until it is read again.
    let stepped = CardSample { card_ns: now.card_ns + 37_000 * MS, ..now };
    bench.program.set_card(Some(stepped), 0).unwrap();
    assert!(!bench.send(nanos(CARD)).by_card());
    bench.program.set_card(Some(sample()), 0).unwrap();
    assert!(bench.send(nanos(CARD)).by_card());
    assert_eq!(bench.counts(), CardCounts { stamped: 202, absent: 3, refused: 7 });
}

/// Card and program stamp by turns across the end of a second: the seconds must not take each other's slots away.
#[test]
fn stamps_that_go_back_over_the_end_of_a_second_are_counted_once() {
    live!();
    const EACH: u64 = 200;
    let mut bench = Bench::new(Program::load_card_in_packet, 0);
    let sample = sample();
    // The second ends about 30 ms from now, as the program has it.
    let now = nanos(ClockId::CLOCK_MONOTONIC);
    let offset = 1_000_000_000_000 * MS - (now + 30 * MS) % (1000 * MS);
    bench.program.set_card(Some(sample), offset).unwrap();
    let mut told = std::collections::BTreeMap::<u64, u64>::new();
    for _ in 0..EACH {
        for card in [nanos(CARD) - 25 * MS, 0] {
            *told.entry(bench.send(card).second.into()).or_default() += 1;
        }
        std::thread::sleep(Duration::from_micros(300));
    }
    let (total, spots) = bench.program.total_and_seconds(0).unwrap();
    assert_eq!((total.packets, bench.counts().stamped), (2 * EACH, EACH));
    let mut counted = std::collections::BTreeMap::<u64, u64>::new();
    for (spot, counts) in &spots {
        *counted.entry(spot.second).or_default() += counts.packets;
    }
    assert_eq!(counted, told);
    assert!(told.len() >= 2, "no second ended meanwhile: {told:?}");
    // One slot of each CPU for each second.
    let cpus: std::collections::BTreeSet<u32> = spots.keys().map(|spot| spot.cpu).collect();
    assert!(spots.len() <= cpus.len() * told.len(), "{spots:?}");
}

#[test]
fn a_program_that_asks_the_card_is_taken_over() {
    live!();
    let mut bench = Bench::new(Program::load_card_in_packet, 0);
    let folder = pin_dir().join("card");
    std::fs::create_dir_all(pin_dir()).unwrap();
    let pins = Pins::create(&folder).unwrap();
    pins.pin(&mut bench.program).unwrap();
    bench.program.set_card(Some(sample()), 0).unwrap();
    assert!(bench.send(nanos(CARD)).by_card());
    bench.program.leave();
    let ifindex = bench._net.rx_index();
    let mut heir = Pins::open(&folder).unwrap().take(ifindex).unwrap();
    assert!(heir.asks_card());
    heir.begin().unwrap();
    std::mem::swap(&mut bench.program, &mut heir);
    drop(heir);
    assert_eq!(bench.counts(), CardCounts::default());
    bench.program.set_card(Some(sample()), 0).unwrap();
    assert!(bench.send(nanos(CARD)).by_card());
    assert_eq!(bench.counts(), CardCounts { stamped: 1, ..CardCounts::default() });
    bench.program.detach().unwrap();
    pins.remove().unwrap();
}

#[test]
fn the_recorder_says_whose_stamps_it_takes() {
    live!();
    let net = Net::new(1, 1500);
    let dir = tempfile::tempdir().unwrap();
    let said = refused(&net, dir.path(), &["--stamps", "card"]);
    assert!(
        said.contains("the card has no clock") && said.contains("hint: record without --stamps card"),
        "{said}"
    );
    let said = refused(&net, dir.path(), &["--stamps", "sundial"]);
    assert!(said.contains("auto, card or system"), "{said}");
    for stamps in ["auto", "system"] {
        let recorder = Recorder::start(&net, dir.path(), &["--stamps", stamps]);
        assert!(net.sender().send(&numbered(1, 1, 60, &[])));
        assert_eq!(recorder.stop().code, Some(0));
    }
    let segments = segments(dir.path());
    assert_eq!(segments.len(), 2);
    for segment in segments {
        let description = String::from_utf8(interface_option(&segment, 3).unwrap()).unwrap();
        assert!(description.contains("stamped by the system's clock in the XDP program"), "{description}");
    }
}
