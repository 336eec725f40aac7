//! Flows as a campus network's link to the Internet has them: most are of a few packets, most packets are of a few
//! flows.
//!
//! Lengths of flows and sizes of packets: P. Jurkiewicz, G. Rzym, P. Borylo, "Flow length and size distributions in
//! campus Internet traffic", Computer Communications 167 (2021), arXiv:1809.03486; the table of data/agh_2015 in their
//! repository flow-models (four billion flows of thirty days, 5-tuples, no sampling; 0.87 kB a packet, 78.6 packets and
//! 68 kB a flow). The share of TCP is theirs. What share of the bytes is encrypted they do not tell: that is an
//! assumption, and an option.
//!
//! Flows of up to 10,000 packets begin and end within the sequence, and are new ones in each round. What belongs to
//! longer ones goes to flows that go on for ever. All is IPv4.

use super::frame::{End, SHORTEST, TCP_HEADERS, Tcp, UDP_HEADERS, flag, frame};
use super::random::Random;
use super::{Model, Payload, Shape, Traffic};
use tapedeck_ebpf::replay::{Addresses, Steps, Template};

/// Packets of the sequence: 28 MB of them, which no frame of a segment holds twice.
pub(super) const PACKETS: usize = 32_768;
/// Flows that go on for ever.
pub(super) const ENDLESS: usize = 64;
/// Packets of an endless flow in a row.
const TRAIN: usize = 8;
/// Largest frame without its checksum.
const FULL: usize = 1_514;
/// Flows, packets, bytes of IP of the measurement.
const FLOWS_ALL: f64 = 4_032_376_751.0;
const PACKETS_ALL: f64 = 316_857_594_090.0;
const BYTES_ALL: f64 = 275_858_498_994_998.0;
/// Share of the packets that are of TCP, without "other".
const TCP_OF_PACKETS: f64 = 83.51 / (83.51 + 16.01);
/// Share of the flows.
const TCP_OF_FLOWS: f64 = 53.85 / (53.85 + 43.09);

/// Flows of up to so many packets make up so much of flows, packets and bytes, percent.
pub(super) const UP_TO: [(f64, f64, f64, f64); 8] = [
    (1.0, 47.8326, 0.6087, 0.1047),
    (2.0, 65.3421, 1.0544, 0.1728),
    (4.0, 74.8933, 1.4696, 0.2537),
    (8.0, 84.1319, 2.1958, 0.4412),
    (10.0, 86.5086, 2.4832, 0.5343),
    (100.0, 97.3478, 6.3895, 2.4322),
    (1_000.0, 99.4544, 14.3271, 8.0737),
    (10_000.0, 99.8922, 30.3569, 22.8925),
];

/// Flows of like length.
#[derive(Clone, Copy, Debug)]
struct Class {
    /// Packets of a flow: more than `above`, at most `up_to`.
    above: f64,
    up_to: f64,
    /// Mean packets of a flow.
    mean: f64,
    /// Share of all packets.
    packets: f64,
    /// Mean bytes of a frame.
    bytes: f64,
}

fn classes() -> Vec<Class> {
    let mut before = (0.0, 0.0, 0.0, 0.0);
    let mut all = Vec::new();
    for row in UP_TO.into_iter().chain([(f64::INFINITY, 100.0, 100.0, 100.0)]) {
        let share = |now: f64, before: f64| (now - before) / 100.0;
        let flows = share(row.1, before.1) * FLOWS_ALL;
        let packets = share(row.2, before.2);
        let bytes = share(row.3, before.3) * BYTES_ALL / (packets * PACKETS_ALL);
        let mean = packets * PACKETS_ALL / flows;
        all.push(Class { above: before.0, up_to: row.0, mean, packets, bytes: bytes + 14.0 });
        before = row;
    }
    all
}

/// A packet and when its turn is.
struct Due {
    turn: f64,
    template: Template,
}

/// The sequence in the making.
struct Maker {
    random: Random,
    due: Vec<Due>,
    flows: usize,
    encrypted_share: f64,
    /// Bytes of payload so far, and of them those that are random.
    bytes: f64,
    encrypted: f64,
    /// Packets of longer flows so far, and of them those of TCP.
    packets: f64,
    of_tcp: f64,
}

pub(super) fn sequence(shape: &Shape) -> Traffic {
    let mut maker = Maker {
        random: Random::new(shape.seed),
        due: Vec::with_capacity(PACKETS),
        flows: 0,
        encrypted_share: shape.encrypted,
        bytes: 0.0,
        encrypted: 0.0,
        packets: 0.0,
        of_tcp: 0.0,
    };
    let mut owed = 0.0;
    for class in classes().into_iter().filter(|class| class.up_to.is_finite()) {
        owed += class.packets * count(PACKETS);
        while owed >= class.mean / 2.0 && owed >= class.above + 1.0 {
            let len = maker.length(class).min(owed.max(class.above + 1.0));
            owed -= len;
            maker.flow(class, whole(len));
        }
    }
    let renewed = maker.flows;
    if let Some(endless) = classes().pop() {
        maker.endless(endless);
    }
    maker.due.sort_by(|a, b| a.turn.total_cmp(&b.turn));
    let templates = maker.due.into_iter().map(|due| due.template).collect();
    let number = |count| u64::try_from(count).unwrap_or(u64::MAX);
    Traffic::of(&Model::Internet, templates, [number(maker.flows), number(renewed), 0])
}

#[expect(clippy::cast_precision_loss, reason = "counts of packets, far below 2^52")]
const fn count(count: usize) -> f64 {
    count as f64
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "lengths of flows, 1 to 10,000")]
const fn whole(len: f64) -> usize {
    len as usize
}

impl Maker {
    /// A length of the class, its mean that of the class: the logarithm has a density that falls or grows evenly.
    fn length(&mut self, class: Class) -> f64 {
        let (low, high) = (class.above + 1.0, class.up_to);
        if high - low < 1.0 {
            return low;
        }
        // x = low * (high / low)^(u^k) has more short ones the larger k is; k such that the mean is right.
        let mean = |k: f64| {
            let steps = 200_u32;
            let at = |i: u32| (f64::from(i) + 0.5) / f64::from(steps);
            (0..steps).map(|i| low * (high / low).powf(at(i).powf(k))).sum::<f64>() / f64::from(steps)
        };
        let (mut few, mut many) = (0.05, 20.0);
        for _ in 0..40 {
            let middle = f64::midpoint(few, many);
            if mean(middle) > class.mean { few = middle } else { many = middle }
        }
        let share = self.random.share().powf(f64::midpoint(few, many));
        (low * (high / low).powf(share)).round().clamp(low, high)
    }

    /// Random or text, so that the share of random bytes comes out.
    fn payload(&mut self, bytes: f64) -> Payload {
        self.bytes += bytes;
        if self.encrypted + bytes / 2.0 <= self.encrypted_share * self.bytes {
            self.encrypted += bytes;
            Payload::Random
        } else {
            Payload::Text
        }
    }

    /// Short flows are of TCP as often as flows are, longer ones so that the share of packets comes out.
    fn is_tcp(&mut self, len: usize) -> bool {
        if len <= 10 {
            return self.random.share() < TCP_OF_FLOWS;
        }
        self.packets += count(len);
        let tcp = self.of_tcp + count(len) / 2.0 <= TCP_OF_PACKETS * self.packets;
        self.of_tcp += if tcp { count(len) } else { 0.0 };
        tcp
    }

    fn ends(&mut self, port: u16) -> [End; 2] {
        self.flows += 1;
        let host = self.random.next().to_le_bytes();
        let client = End {
            address: [10, host[0], host[1], host[2]],
            port: u16::try_from(32_768 + self.random.below(28_000)).unwrap_or(32_768),
        };
        // No address of a server equals one of a client.
        let server = End { address: [100 + host[3] % 100, host[4], host[5], host[6]], port };
        [client, server]
    }

    /// A flow that begins and ends here.
    fn flow(&mut self, class: Class, len: usize) {
        let tcp = self.is_tcp(len);
        let payload = self.payload(class.bytes * count(len));
        let ends = self.ends(if !tcp && len <= 2 { 53 } else { 443 });
        // Trains of its own among the packets of others.
        let pace = (count(PACKETS) / count(len)).min(40.0);
        let start = self.random.share() * (count(PACKETS) - pace * count(len)).max(1.0);
        let mut talk = Talk::default();
        for index in 0..len {
            let (upward, bytes) = if tcp {
                self.random_tcp(class, index, len)
            } else {
                (index % 2 == 0, self.datagram(class, len))
            };
            let header = tcp.then(|| talk.tcp(upward, bytes, index, len));
            let template = self.template(ends, upward, header, bytes, payload);
            let renew = Some(Addresses { net: 14, ipv6: false, source_is_lower: upward });
            let turn = start + pace * (count(index) + self.random.share() / 2.0);
            self.due.push(Due { turn, template: Template { renew, ..template } });
        }
    }

    /// The flows that go on for ever have all packets that are left.
    fn endless(&mut self, class: Class) {
        let packets = PACKETS.saturating_sub(self.due.len());
        let each = packets / ENDLESS;
        for flow in 0..ENDLESS {
            let len = each + usize::from(flow < packets % ENDLESS);
            let tcp = self.is_tcp(len);
            let payload = self.payload(class.bytes * count(len));
            let ends = self.ends(443);
            let mut talk = Talk::opened();
            let mut turns: Vec<f64> =
                (0..len.div_ceil(TRAIN)).map(|_| self.random.share() * count(PACKETS)).collect();
            turns.sort_by(f64::total_cmp);
            let began = self.due.len();
            for index in 0..len {
                let (upward, bytes) = self.bulk(class);
                let header = tcp.then(|| talk.tcp(upward, bytes, index + 3, usize::MAX));
                let template = self.template(ends, upward, header, bytes, payload);
                let turn = turns.get(index / TRAIN).copied().unwrap_or(0.0);
                self.due.push(Due { turn: turn + count(index % TRAIN) * 1e-3, template });
            }
            if tcp {
                for due in self.due.iter_mut().skip(began) {
                    let upward = due.template.bytes.get(26) == Some(&10);
                    let [seq, ack] = if upward { [talk.up, talk.down] } else { [talk.down, talk.up] };
                    let step = |number: u32| number.wrapping_sub(Talk::OPENED);
                    due.template.tcp = Some(Steps { tcp: 34, seq: step(seq), ack: step(ack) });
                }
            }
        }
    }

    fn template(
        &mut self,
        [client, server]: [End; 2],
        upward: bool,
        tcp: Option<Tcp>,
        bytes: usize,
        payload: Payload,
    ) -> Template {
        let ends = if upward { [client, server] } else { [server, client] };
        Template { bytes: frame(ends, tcp, bytes, payload, &mut self.random), ..Template::default() }
    }

    /// Whether the client sends it, and its bytes: the handshake first, then bulk.
    fn random_tcp(&mut self, class: Class, index: usize, len: usize) -> (bool, usize) {
        match index {
            0 | 2 => (true, SHORTEST),
            1 => (false, SHORTEST),
            3 => (true, 150 + self.random.below(450)),
            _ if len > 5 && index + 2 >= len => (index + 2 == len, SHORTEST),
            _ => self.bulk(class),
        }
    }

    /// Full packets from the server and acknowledgements from the client, the mean that of the class.
    fn bulk(&mut self, class: Class) -> (bool, usize) {
        let full = (class.bytes - count(SHORTEST)) / count(FULL - SHORTEST);
        if self.random.share() < full { (false, FULL) } else { (true, SHORTEST) }
    }

    fn datagram(&mut self, class: Class, len: usize) -> usize {
        if len > 10 {
            return self.bulk(class).1;
        }
        let most = whole(2.0 * class.bytes) - SHORTEST;
        (SHORTEST + self.random.below(most.saturating_sub(SHORTEST).max(1))).max(UDP_HEADERS)
    }
}

/// Sequence numbers of both sides.
#[derive(Clone, Copy, Debug, Default)]
struct Talk {
    up: u32,
    down: u32,
}

impl Talk {
    const OPENED: u32 = 1;

    const fn opened() -> Self {
        Self { up: Self::OPENED, down: Self::OPENED }
    }

    /// The header of packet `index` of `len`.
    fn tcp(&mut self, upward: bool, bytes: usize, index: usize, len: usize) -> Tcp {
        let payload = if bytes <= SHORTEST { 0 } else { u32::try_from(bytes - TCP_HEADERS).unwrap_or(0) };
        let last = len > 5 && index + 2 >= len;
        let flags = match index {
            0 => flag::SYN,
            1 => flag::SYN | flag::ACK,
            _ if last => flag::FIN | flag::ACK,
            _ if payload > 0 => flag::PSH | flag::ACK,
            _ => flag::ACK,
        };
        let (seq, ack) = if upward { (self.up, self.down) } else { (self.down, self.up) };
        let sent = payload + u32::from(flags & (flag::SYN | flag::FIN) != 0);
        if upward {
            self.up = self.up.wrapping_add(sent)
        } else {
            self.down = self.down.wrapping_add(sent)
        }
        Tcp { seq, ack: if index == 0 { 0 } else { ack }, flags }
    }
}
