//! What statistics cost per packet: `cargo run --release -p tapedeck-session --example stats_cost`.
//!
//! A stream of packets over so many concurrent sessions, in round robin (the worst order for caches) and in
//! trains of eight, with and without the collector; the difference is the cost.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;
use tapedeck_packet::Timestamp;
use tapedeck_session::stats::{Collector, Config, Flow, Packet, Sender, Sessions, Tally};

const PACKETS: u32 = 20_000_000;
const BATCH: u32 = 256;
/// A million packets a second.
const NANOS_PER_PACKET: u64 = 1_000;

/// A session's slot, two cache lines as in a session table, of which a packet touches the first.
#[derive(Clone, Copy)]
#[repr(align(64))]
struct Slot {
    tally: Tally,
    packets: u64,
    bytes: u64,
    rest: [u64; 8],
}

struct Slots(Vec<Slot>);

impl Sessions for Slots {
    fn session(&mut self, slot: u32) -> Option<(&mut Tally, Flow)> {
        let number = usize::try_from(slot).ok()?;
        self.0.get_mut(number).map(|place| (&mut place.tally, flow(slot)))
    }
}

fn flow(slot: u32) -> Flow {
    Flow {
        orig: IpAddr::V4(Ipv4Addr::from(0x0a00_0000 + slot % 5_000)),
        resp: IpAddr::V4(Ipv4Addr::from(0xc633_6400 + slot / 5_000)),
        proto: 6,
        server_port: Some(443),
        service: Some("ssl"),
    }
}

fn run(sessions: u32, train: u32, with: bool) -> f64 {
    let slot = Slot { tally: Tally::default(), packets: 0, bytes: 0, rest: [0; 8] };
    let mut slots = Slots(vec![slot; usize::try_from(sessions).unwrap_or_default()]);
    let mut collector = Collector::new(Config { sessions, fill_minutes: 0, seed: 7 });
    // Ten seconds before the end of a minute, so that its end is part of the cost.
    let mut nanos = 1_795_284_050_000_000_000;
    let began = Instant::now();
    for number in 0..PACKETS {
        nanos += NANOS_PER_PACKET;
        let packet =
            Packet { ts: Timestamp::from_nanos_saturating(nanos), wire_bytes: 300, ..Packet::default() };
        let slot = number / train % sessions;
        if let Some(place) = usize::try_from(slot).ok().and_then(|at| slots.0.get_mut(at)) {
            place.packets += 1;
            place.bytes += u64::from(packet.wire_bytes);
            black_box(&place.rest);
            if with {
                let sender = if number.is_multiple_of(2) { Sender::Orig } else { Sender::Resp };
                collector.session_packet(black_box(&packet), sender, slot, &mut place.tally, || flow(slot));
            }
        }
        if with && number.is_multiple_of(BATCH) {
            collector.tick(packet.ts, &mut slots);
        }
    }
    black_box(&slots.0);
    black_box(collector.take_closed().len());
    began.elapsed().as_secs_f64() * 1e9 / f64::from(PACKETS)
}

#[expect(clippy::print_stdout, reason = "an example prints its result")]
fn main() {
    println!("{:>9}  {:>6}  {:>9}  {:>9}  {:>9}", "sessions", "train", "without", "with", "cost");
    for sessions in [1_000, 100_000, 1_000_000] {
        for train in [1, 8] {
            let [without, with] = [false, true]
                .map(|with| (0..3).map(|_| run(sessions, train, with)).fold(f64::INFINITY, f64::min));
            println!(
                "{sessions:>9}  {train:>6}  {without:>6.1} ns  {with:>6.1} ns  {:>6.1} ns",
                with - without
            );
        }
    }
}
