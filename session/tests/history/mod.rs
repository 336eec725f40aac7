//! Synthetic histories: weeks of traffic of a made-up site, packet by packet through collector and merger.
//!
//! All follows from shape and seed. What is put into a history is traffic like any other: sessions that are
//! opened, sent and ended.

use std::net::{IpAddr, Ipv4Addr};
use tapedeck_packet::Timestamp;
use tapedeck_session::stats::{
    Closed, Collector, Config, Flow, Marks, Merged, Merger, Packet, Sender, Sessions, Tally,
};

/// Monday, 2 November 2026, 00:00 UTC.
pub(crate) const START_S: u64 = 1_793_577_600;
const MINUTES_PER_DAY: u32 = 1_440;

/// A small random generator (splitmix64): the same numbers for the same seed, everywhere.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed)
    }

    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 up to 1, not included.
    pub(crate) fn unit(&mut self) -> f64 {
        f64::from(u32::try_from(self.next() >> 32).unwrap()) / f64::from(u32::MAX) * (1.0 - 1e-10)
    }

    /// From 0 up to `n`, not included.
    pub(crate) fn below(&mut self, n: u32) -> u32 {
        u32::try_from(self.next() % u64::from(n)).unwrap()
    }

    fn normal(&mut self) -> f64 {
        (-2.0 * (self.unit() + 1e-12).ln()).sqrt() * (std::f64::consts::TAU * self.unit()).cos()
    }

    fn lognormal(&mut self, sigma: f64) -> f64 {
        (sigma * self.normal() - sigma * sigma / 2.0).exp()
    }

    fn poisson(&mut self, mean: f64) -> u32 {
        if mean > 30.0 {
            let n = (mean + mean.sqrt() * self.normal()).max(0.0);
            return integer(n);
        }
        let (limit, mut product, mut n) = ((-mean).exp(), self.unit(), 0);
        while product > limit {
            product *= self.unit();
            n += 1;
        }
        n
    }

    /// Popular numbers far more often than others.
    fn popular(&mut self, n: u32) -> u32 {
        let most = f64::from(n);
        integer(most.powf(self.unit()) - 1.0).min(n - 1)
    }
}

/// Cuts off.
#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "the simulation's numbers are small"
)]
fn integer(value: f64) -> u32 {
    value as u32
}

/// What a site's traffic is like.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    pub(crate) name: &'static str,
    pub(crate) hosts: u32,
    /// Sessions in a busy minute.
    pub(crate) sessions: f64,
    /// Share of the busiest hour's traffic at night, and at the weekend of a workday's.
    pub(crate) night: f64,
    pub(crate) weekend: f64,
    /// Growth per day.
    pub(crate) growth: f64,
    /// Spread of hours and of minutes around the profile (sigma of a lognormal).
    pub(crate) hourly: f64,
    pub(crate) minutely: f64,
    /// Large transfers a day; their size has a Pareto tail from 100 MB.
    pub(crate) transfers: f64,
    /// Share of handshakes that fail.
    pub(crate) failing: f64,
    /// Hosts that on a day turn to a new server for regular talk.
    pub(crate) churn: f64,
}

const OFFICE: Shape = Shape {
    name: "office",
    hosts: 120,
    sessions: 40.0,
    night: 0.1,
    weekend: 0.25,
    growth: 0.0,
    hourly: 0.15,
    minutely: 0.25,
    transfers: 1.0,
    failing: 0.03,
    churn: 0.0,
};

/// The shapes that tests and the seed study go through.
pub(crate) const SHAPES: [Shape; 7] = [
    OFFICE,
    Shape { name: "flat", night: 0.9, weekend: 0.95, hourly: 0.05, minutely: 0.1, transfers: 0.0, ..OFFICE },
    Shape { name: "weekend dip", weekend: 0.03, ..OFFICE },
    Shape { name: "growth", growth: 0.04, ..OFFICE },
    Shape { name: "bursty", hourly: 0.5, minutely: 0.9, transfers: 25.0, failing: 0.08, ..OFFICE },
    Shape {
        name: "small",
        hosts: 8,
        sessions: 3.0,
        night: 0.15,
        weekend: 1.2,
        hourly: 0.4,
        transfers: 3.0,
        ..OFFICE
    },
    Shape { name: "churn", churn: 6.0, ..OFFICE },
];

/// Something unusual that is put in; times in minutes since the start.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Insert {
    /// A host tries ports of another.
    Scan { from: u32, minutes: u32, ports: u32 },
    /// A host talks to an outside server again and again.
    Beacon { from: u32, minutes: u32, period_s: u32, jitter: f64 },
    /// A host sends a lot to an outside server.
    Exfiltration { from: u32, minutes: u32, bytes: u64 },
    /// No packet comes.
    Outage { from: u32, minutes: u32 },
}

impl Insert {
    /// The hosts of scan, beacon and exfiltration.
    pub(crate) const SCANNER: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 7);
    pub(crate) const BEACON: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 11);
    pub(crate) const LEAK: Ipv4Addr = Ipv4Addr::new(10, 1, 0, 13);

    fn covers(self, minute: u32) -> bool {
        let (Self::Scan { from, minutes, .. }
        | Self::Beacon { from, minutes, .. }
        | Self::Exfiltration { from, minutes, .. }
        | Self::Outage { from, minutes }) = self;
        (from..from + minutes).contains(&minute)
    }
}

/// One session at a time: it lives for less than a minute.
struct OneSession(Tally, Flow);

impl Sessions for OneSession {
    fn session(&mut self, slot: u32) -> Option<(&mut Tally, Flow)> {
        (slot == 0).then_some((&mut self.0, self.1))
    }
}

fn outside(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0xc612_0000 + number))
}

fn inside(number: u32) -> IpAddr {
    IpAddr::V4(Ipv4Addr::from(0x0a01_0000 + number))
}

/// A session to be sent.
struct Talk {
    flow: Flow,
    at_s: f64,
    up: u64,
    down: u64,
    fails: bool,
}

struct Site {
    shape: Shape,
    random: Random,
    collector: Collector,
    minute: u32,
}

impl Site {
    fn talk(&mut self, talk: &Talk) {
        let Talk { flow, at_s, up, down, fails } = talk;
        let start_s = START_S + u64::from(self.minute) * 60;
        let millis = u64::from(integer(at_s.clamp(0.0, 59.5) * 1000.0));
        let at =
            |n: u64| Timestamp::from_nanos_saturating((start_s * 1000 + millis) * 1_000_000 + n * 1_000_000);
        let mut tally = Tally::default();
        self.collector.opened(at(0), flow);
        let sent = [(Sender::Orig, *up), (Sender::Resp, *down)];
        for (n, (sender, bytes)) in (0..).zip(sent.into_iter().filter(|(_, bytes)| *bytes > 0)) {
            let packets = (bytes / 1_000).clamp(1, 4);
            for _ in 0..packets {
                let wire_bytes = u32::try_from((bytes / packets).max(60)).unwrap_or(u32::MAX);
                let packet = Packet {
                    ts: at(n),
                    wire_bytes,
                    marks: if *fails && n == 1 { Marks::RESET } else { Marks::default() },
                    ..Packet::default()
                };
                self.collector.session_packet(&packet, sender, 0, &mut tally, || *flow);
            }
        }
        self.collector.ended(at(2), &mut tally, flow, *fails);
    }

    /// How busy the minute is, 1 in the busiest hour of a workday.
    fn profile(&self) -> f64 {
        let Shape { night, weekend, growth, .. } = self.shape;
        let day = self.minute / MINUTES_PER_DAY;
        let hour = f64::from(self.minute % MINUTES_PER_DAY) / 60.0;
        let bump = (-((hour - 13.0) / 4.0).powi(2)).exp();
        let weekday = if day % 7 >= 5 { weekend } else { 1.0 };
        (night + (1.0 - night) * bump) * weekday * (1.0 + growth).powf(f64::from(day))
    }

    fn session(&mut self) -> Talk {
        let hosts = self.shape.hosts;
        let random = &mut self.random;
        let orig = inside(100 + random.popular(hosts));
        let (proto, port, service, resp) = match random.below(100) {
            0..=34 => (17, 53, "dns", inside(2)),
            35..=79 => (6, 443, "ssl", outside(random.popular(2_000))),
            80..=86 => (6, 80, "http", outside(random.popular(500))),
            87..=94 => (6, 445, "smb", inside(3 + random.below(3))),
            _ => (6, 22, "ssh", inside(10 + random.below(20))),
        };
        let fails = proto == 6 && random.unit() < self.shape.failing;
        let size = if proto == 17 { 120.0 } else { 20_000.0 * random.lognormal(1.8) };
        let flow = Flow { orig, resp, proto, server_port: Some(port), service: Some(service) };
        let (up, down) = if fails {
            (60, 54)
        } else {
            (u64::from(integer(size / 8.0)) + 70, u64::from(integer(size)) + 90)
        };
        Talk { flow, at_s: random.unit() * 59.0, up, down, fails }
    }

    /// Time, push services and what else asks by the clock.
    fn by_the_clock(&mut self) {
        let day = self.minute / MINUTES_PER_DAY;
        for host in 0..self.shape.hosts {
            if self.minute % 4 == host % 4 {
                let flow = Flow {
                    orig: inside(100 + host),
                    resp: inside(1),
                    proto: 17,
                    server_port: Some(123),
                    service: Some("ntp"),
                };
                self.talk(&Talk { flow, at_s: f64::from(host % 50), up: 90, down: 90, fails: false });
            }
            let mut of_day = Random::new(u64::from(day) << 32 | u64::from(host) << 8);
            if of_day.unit() < self.shape.churn / f64::from(self.shape.hosts) && self.minute.is_multiple_of(2)
            {
                let resp = outside(50_000 + day * 256 + host);
                let flow =
                    Flow { orig: inside(100 + host), resp, proto: 6, server_port: Some(5223), service: None };
                self.talk(&Talk { flow, at_s: f64::from(host % 50), up: 120, down: 90, fails: false });
            }
        }
    }

    fn transfers(&mut self) {
        let mean = self.shape.transfers * self.profile() / f64::from(MINUTES_PER_DAY) * 2.0;
        for _ in 0..self.random.poisson(mean) {
            let size = 1e8 * (1.0 - self.random.unit()).powf(-0.9).min(60.0);
            let orig = inside(100 + self.random.below(self.shape.hosts));
            let resp = outside(self.random.popular(2_000));
            let flow = Flow { orig, resp, proto: 6, server_port: Some(443), service: Some("ssl") };
            let (large, small) = (u64::from(integer(size / 8.0)) * 8, 100_000);
            let (up, down) = if self.random.below(3) == 0 { (large, small) } else { (small, large) };
            self.talk(&Talk { flow, at_s: 20.0, up, down, fails: false });
        }
    }

    fn insert(&mut self, insert: Insert) {
        match insert {
            Insert::Scan { minutes, ports, .. } => {
                for n in 0..ports / minutes {
                    let number = (self.minute * 977 + n * 13) % 60_000 + 1;
                    let flow = Flow {
                        orig: IpAddr::V4(Insert::SCANNER),
                        resp: inside(3),
                        proto: 6,
                        server_port: Some(u16::try_from(number).unwrap()),
                        service: None,
                    };
                    let at_s = 59.0 * f64::from(n) / f64::from(ports / minutes);
                    self.talk(&Talk { flow, at_s, up: 60, down: 54, fails: true });
                }
            }
            Insert::Beacon { from, period_s, jitter, .. } => {
                let since_s = (self.minute - from) * 60;
                for beat in since_s.div_ceil(period_s)..(since_s + 60).div_ceil(period_s) {
                    let off = (self.random.unit() - 0.5) * 2.0 * jitter * f64::from(period_s);
                    let at_s = f64::from(beat * period_s - since_s) + off;
                    let flow = Flow {
                        orig: IpAddr::V4(Insert::BEACON),
                        resp: outside(60_001),
                        proto: 6,
                        server_port: Some(443),
                        service: Some("ssl"),
                    };
                    self.talk(&Talk { flow, at_s, up: 400, down: 300, fails: false });
                }
            }
            Insert::Exfiltration { minutes, bytes, .. } => {
                let flow = Flow {
                    orig: IpAddr::V4(Insert::LEAK),
                    resp: outside(60_002),
                    proto: 6,
                    server_port: Some(443),
                    service: Some("ssl"),
                };
                let up = bytes / u64::from(minutes);
                self.talk(&Talk { flow, at_s: 5.0, up, down: up / 40, fails: false });
            }
            Insert::Outage { .. } => {}
        }
    }
}

/// Weeks of a site; what is merged goes to `sink`.
pub(crate) fn history(shape: Shape, seed: u64, days: u32, inserts: &[Insert], mut sink: impl FnMut(&Merged)) {
    let mut merger = Merger::new(1);
    closed_history(shape, seed, days, inserts, |closed| {
        if let Closed::Minute(minute) = &closed {
            merger.take(minute.start).iter().for_each(&mut sink);
        }
        merger.add(closed);
    });
    merger.take(Timestamp::MAX).iter().for_each(&mut sink);
}

/// Weeks of a site, minute by minute; what its collector closes goes to `sink`.
pub(crate) fn closed_history(
    shape: Shape,
    seed: u64,
    days: u32,
    inserts: &[Insert],
    mut sink: impl FnMut(Closed),
) {
    let config = Config { sessions: 1, fill_minutes: 0, seed };
    let mut site = Site { shape, random: Random::new(seed), collector: Collector::new(config), minute: 0 };
    let mut hourly = 1.0;
    let nobody = Flow { orig: inside(0), resp: inside(0), proto: 0, server_port: None, service: None };
    let mut none = OneSession(Tally::default(), nobody);
    for minute in 0..days * MINUTES_PER_DAY {
        site.minute = minute;
        if minute % 60 == 0 {
            hourly = site.random.lognormal(shape.hourly);
        }
        let now = |second: u64| {
            Timestamp::from_nanos_saturating((START_S + u64::from(minute) * 60 + second) * 1_000_000_000)
        };
        site.collector.tick(now(0), &mut none);
        let busy = site.profile() * hourly * site.random.lognormal(shape.minutely);
        let sessions = site.random.poisson(shape.sessions * busy);
        let out =
            inserts.iter().any(|insert| matches!(insert, Insert::Outage { .. }) && insert.covers(minute));
        if !out {
            for _ in 0..sessions {
                let talk = site.session();
                site.talk(&talk);
            }
            site.by_the_clock();
            site.transfers();
            inserts.iter().filter(|insert| insert.covers(minute)).for_each(|insert| site.insert(*insert));
        }
        site.collector.tick(now(59), &mut none);
        site.collector.take_closed().into_iter().for_each(&mut sink);
    }
    site.collector.finish(&mut none);
    site.collector.take_closed().into_iter().for_each(&mut sink);
}
