//! What a packet costs in the session table: ns per packet at several numbers of open sessions.
//!
//! Packets of 300 bytes of established TCP connections, in random order over all of them: the worst case for
//! the caches. Only the table is timed (`Stage::push` to its drop), not the header walk and not the making
//! of packets. `cargo run --release -p tapedeck-session --example cost [SESSIONS...]`

#![expect(clippy::print_stdout, clippy::unwrap_used, reason = "an example talks, and ends at an error")]

use nix::time::{ClockId, clock_gettime};
use std::time::Duration;
use tapedeck_packet::{LinkType, Timestamp, Walk};
use tapedeck_session::{Config, Packet, Place, Table};

const BATCH: usize = 256;
/// At least; and some for each session.
const PACKETS: usize = 4_000_000;
const PACKETS_EACH: usize = 12;
const BYTES: usize = 300;

/// What a session is about to send, each side.
#[derive(Clone, Copy, Default)]
struct Streams([u32; 2]);

/// Random numbers, enough for an order of packets (xorshift64*).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        usize::try_from(self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33).unwrap() % end
    }
}

/// CPU time of this thread: others may be at work on the machine.
fn cpu_time() -> Duration {
    Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap())
}

/// A segment of session `number`, from its side `side`.
fn segment(buffer: &mut [u8; BYTES], number: u32, side: usize, streams: &mut Streams, flags: u8) {
    let client = [10, number.to_be_bytes()[1], number.to_be_bytes()[2], number.to_be_bytes()[3]];
    let (a, b) = ((client, 40_000_u16), ([192, 168, 0, 1], 443_u16));
    let ((src, sport), (dst, dport)) = if side == 0 { (a, b) } else { (b, a) };
    let mut ip = [0_u8; 40];
    ip[0] = 0x45;
    let payload = if flags == 0x10 { BYTES - 54 } else { 0 };
    ip[2..4].copy_from_slice(&u16::try_from(40 + payload).unwrap().to_be_bytes());
    (ip[8], ip[9]) = (64, 6);
    ip[12..16].copy_from_slice(&src);
    ip[16..20].copy_from_slice(&dst);
    ip[20..22].copy_from_slice(&sport.to_be_bytes());
    ip[22..24].copy_from_slice(&dport.to_be_bytes());
    let [own, peer] = if side == 0 { [0, 1] } else { [1, 0] };
    ip[24..28].copy_from_slice(&streams.0.get(own).unwrap().to_be_bytes());
    ip[28..32].copy_from_slice(&streams.0.get(peer).unwrap().to_be_bytes());
    (ip[32], ip[33], ip[34]) = (0x50, flags, 0xff);
    buffer[12..14].copy_from_slice(&[8, 0]);
    buffer[14..54].copy_from_slice(&ip);
    let taken = u32::try_from(payload).unwrap() + u32::from(flags & 2 != 0);
    *streams.0.get_mut(own).unwrap() += taken;
}

/// Pushes segments of `steps` (session, side, flags) and returns the time the table took.
fn push(
    table: &mut Table,
    streams: &mut [Streams],
    steps: impl Iterator<Item = (u32, usize, u8)>,
    clock: &mut u64,
) -> Duration {
    let mut buffers = [[0_u8; BYTES]; BATCH];
    let (mut walks, mut taken) = (vec![Walk::new(); BATCH], Duration::ZERO);
    let mut steps = steps.peekable();
    while steps.peek().is_some() {
        let mut used = 0;
        for ((number, side, flags), buffer) in steps.by_ref().take(BATCH).zip(&mut buffers) {
            segment(buffer, number, side, streams.get_mut(usize::try_from(number).unwrap()).unwrap(), flags);
            used += 1;
        }
        for (walk, bytes) in walks.iter_mut().zip(&buffers) {
            walk.run(LinkType::ETHERNET, bytes);
        }
        let begin = cpu_time();
        let mut sink = |_| {};
        let mut stage = table.stage(&mut sink);
        for (walk, bytes) in walks.iter().zip(&buffers).take(used) {
            *clock += 700;
            let place = Place { segment: 0, frame: u32::try_from(*clock / 1_200_000 % 1_000_000).unwrap() };
            let ts = Timestamp::from_nanos(*clock).unwrap();
            stage.push(walk, &Packet { ts, bytes, original_bytes: 300, place, stored: true });
        }
        drop(stage);
        table.expire(Timestamp::from_nanos(*clock).unwrap(), 64, &mut sink);
        taken += cpu_time() - begin;
    }
    taken
}

fn main() {
    let wanted: Vec<u32> = std::env::args().skip(1).map(|arg| arg.parse().unwrap()).collect();
    let wanted = if wanted.is_empty() { vec![1_000, 100_000, 1_000_000] } else { wanted };
    for sessions in wanted {
        let config = Config { max_sessions: sessions.max(1 << 14), ..Config::default() };
        let bytes = config.memory_bytes();
        let mut table: Table = Table::new(config);
        let mut streams = vec![Streams([1_000, 500_000]); usize::try_from(sessions).unwrap()];
        let mut clock = 1_700_000_000_000_000_000;
        let handshake =
            (0..sessions).flat_map(|number| [(number, 0, 2), (number, 1, 0x12), (number, 0, 0x10)]);
        let opening = push(&mut table, &mut streams, handshake, &mut clock);
        assert_eq!(table.len(), usize::try_from(sessions).unwrap());
        let mut random = Random(0x1234_5678_9abc_def1);
        let count = usize::try_from(sessions).unwrap();
        let packets = PACKETS.max(count * PACKETS_EACH);
        let steps = (0..packets).map(|_| {
            let number = u32::try_from(random.below(count)).unwrap();
            (number, random.below(2), 0x10)
        });
        let running = push(&mut table, &mut streams, steps, &mut clock);
        println!(
            "{sessions:>8} sessions: {:5.1} ns a packet; {:6.1} ns to begin one (three packets); {} MiB at most",
            running.as_secs_f64() * 1e9 / packets as f64,
            opening.as_secs_f64() * 1e9 / f64::from(sessions),
            bytes >> 20,
        );
    }
}
