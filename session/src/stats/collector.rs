//! The collector: one per worker, from packets and sessions to closed minutes.
//!
//! A packet costs a few additions: to its minute's totals and to its session's [`Tally`]. Once per session and
//! minute, when the session is touched in another minute or swept up, the tally goes into tables and sketches.
//! The sweep is spread over many calls, so that the end of a minute is no stall.
//!
//! A minute stays open for two seconds of the next one. Whatever comes later, or out of order, opens its minute
//! again and closes it as a minute of its own: all that is counted stands in some minute of its time, and rows of
//! one minute add up. Only `active` can be off by the sessions that have packets out of order across the edge of a
//! minute: a tally knows its last minute, not all before it.

use super::NANOS_PER_MINUTE;
use super::facts::{Delta, Flow, Packet, Sender, Tally, server_port};
use super::hosts;
use super::minute::Minute;
use super::recurring::{self, Recurring};
use super::tables::{Tables, pair_hash};
use crate::input::proto;
use crate::record::{Record, RecordKind};
use tapedeck_packet::Timestamp;
use tapedeck_packet::time::NANOS_PER_SEC;

/// How long a minute stays open after its end.
const GRACE_NS: u64 = 2 * NANOS_PER_SEC;
const NANOS_PER_STEP: u64 = 10 * NANOS_PER_SEC;
/// Sessions swept up in one tick; less than a millisecond.
const SWEEP: usize = 4_096;
/// TCP.
const TCP: u8 = proto::TCP;

/// The sessions a worker has at hand: its session table.
pub trait Sessions {
    /// The session in `slot`; `None` if the slot is empty.
    fn session(&mut self, slot: u32) -> Option<(&mut Tally, Flow)>;
}

/// No sessions: for a collector that is told of sessions only by their records.
impl Sessions for () {
    fn session(&mut self, _slot: u32) -> Option<(&mut Tally, Flow)> {
        None
    }
}

/// Sizes and habits of a collector.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// Slots of the session table.
    pub sessions: u32,
    /// A gap of at most so many minutes between two packets was silence: 0 where [`Collector::tick`] tells of
    /// the time that passes (a live source); an hour for a capture file.
    pub fill_minutes: u32,
    /// Chosen at random once in a run, the same for all its collectors.
    pub seed: u64,
}

impl Config {
    /// Bytes a collector takes, the same from its beginning to its end: three minutes of tables and sketches, an
    /// hour's pairs, two bits per session slot. Closed minutes that nobody has taken yet come on top.
    #[must_use]
    pub fn bytes(&self) -> usize {
        let words = usize::try_from(self.sessions.div_ceil(64)).unwrap_or(usize::MAX);
        3 * Tables::bytes() + recurring::Table::bytes() + 2 * words.saturating_mul(8)
    }
}

/// What a collector has finished.
#[derive(Clone, Debug, PartialEq)]
pub enum Closed {
    /// A minute in which something was counted, or the rest of one.
    Minute(Box<Minute>),
    /// Minutes in which the source was there and silent.
    Idle {
        /// First nanosecond of the first of them.
        from: Timestamp,
        /// How many.
        minutes: u32,
    },
    /// The pairs of an hour, or the rest of them.
    Hour(Recurring),
}

/// Counts the packets and sessions of one worker.
#[derive(Debug)]
pub struct Collector {
    config: Config,
    started: bool,
    /// First nanosecond of the current minute, and its first ten-second step.
    start_ns: u64,
    start_step: u32,
    current: Tables,
    previous: Tables,
    previous_open: bool,
    /// Any other minute.
    stray: Tables,
    stray_open: bool,
    /// Slots whose tally is of the current minute.
    touched: Vec<u64>,
    /// Slots that are to be swept up.
    old: Vec<u64>,
    /// Words of `old` before this one are empty.
    swept: usize,
    recurring: recurring::Table,
    closed: Vec<Closed>,
}

impl Collector {
    /// An empty collector.
    #[must_use]
    pub fn new(config: Config) -> Self {
        let words = usize::try_from(config.sessions.div_ceil(64)).unwrap_or_default();
        Self {
            config,
            started: false,
            start_ns: 0,
            start_step: 0,
            current: Tables::new(config.seed),
            previous: Tables::new(config.seed),
            previous_open: false,
            stray: Tables::new(config.seed),
            stray_open: false,
            touched: vec![0; words],
            old: vec![0; words],
            swept: words,
            recurring: recurring::Table::new(config.seed),
            closed: Vec::new(),
        }
    }

    /// Counts a packet that belongs to no session: not IP, or (`flow`) without room for one.
    pub fn packet(&mut self, packet: &Packet, flow: Option<(&Flow, Sender)>) {
        let tables = self.minute(minute_of(packet.ts));
        tables.packet(packet);
        if let Some((flow, sender)) = flow {
            tables.totals.sessionless += 1;
            tables.volume(flow, &Delta::one(packet, sender));
        }
    }

    /// Counts a packet of the session in `slot`, whose `tally` lives there. `flow` is asked for only once per
    /// minute or after a silence.
    #[inline]
    pub fn session_packet(
        &mut self,
        packet: &Packet,
        sender: Sender,
        slot: u32,
        tally: &mut Tally,
        flow: impl FnOnce() -> Flow,
    ) {
        let offset = packet.ts.nanos().wrapping_sub(self.start_ns);
        if offset < NANOS_PER_MINUTE && self.started {
            self.current.packet(packet);
            let step = self.start_step + u32::try_from(offset / NANOS_PER_STEP).unwrap_or_default();
            // In this minute already, neither after a silence nor before its last packet. What is in a tally is
            // sure to be swept up; an empty one has to be marked first.
            let goes_on = tally.step >= self.start_step && step.wrapping_sub(tally.step) < 2;
            if goes_on && !tally.is_empty() && tally.has_room(packet.wire_bytes) {
                tally.step = step;
                tally.add(packet, sender);
                return;
            }
        } else {
            self.minute(minute_of(packet.ts)).packet(packet);
        }
        self.seldom(packet, sender, slot, tally, &flow());
    }

    /// A session's first packet in a minute, the first after a silence, one that came late.
    #[cold]
    fn seldom(&mut self, packet: &Packet, sender: Sender, slot: u32, tally: &mut Tally, flow: &Flow) {
        let (minute, step) = (minute_of(packet.ts), step_of(packet.ts));
        let (is_new, before) = (tally.step == 0, tally.minute());
        if sender == Sender::Orig && (is_new || step >= tally.step.saturating_add(2)) {
            let hash = pair_hash(hosts::hash(flow.orig), hosts::hash(flow.resp));
            self.closed.extend(self.recurring.start(packet.ts, flow, hash).map(Closed::Hour));
        }
        let is_current = minute == self.current.number;
        if is_new || minute > before || (is_current && minute != before) {
            self.minute(minute).active(flow);
        }
        if !tally.is_empty() {
            let delta = tally.take();
            self.table(before).volume(flow, &delta);
        }
        // A tally is of one minute: what is late goes straight to its own.
        if is_current && tally.has_room(packet.wire_bytes) {
            tally.add(packet, sender);
        } else {
            self.minute(minute).volume(flow, &Delta::one(packet, sender));
        }
        if is_new || is_current || step > tally.step {
            tally.step = step;
        }
        let word = usize::try_from(slot / 64).unwrap_or(usize::MAX);
        if let Some(word) = self.touched.get_mut(word) {
            *word |= 1 << (slot % 64);
        }
    }

    /// A session begins, with the packet of this time. Comes beside [`Collector::session_packet`].
    pub fn opened(&mut self, ts: Timestamp, flow: &Flow) {
        self.minute(minute_of(ts)).opened(flow);
    }

    /// The service of a session was not known when it began, and now it is: with the packet of this time.
    /// At most once a session.
    pub fn service_found(&mut self, ts: Timestamp, service: &'static str) {
        self.minute(minute_of(ts)).found(service);
    }

    /// A session ends, or its slot is given to another: its tally is emptied. `now`: when that was decided.
    /// `failed`: a handshake did not come about ([`failed_handshake`]).
    pub fn ended(&mut self, now: Timestamp, tally: &mut Tally, flow: &Flow, failed: bool) {
        if !tally.is_empty() {
            let (minute, delta) = (tally.minute(), tally.take());
            self.table(minute).volume(flow, &delta);
        }
        if failed && flow.proto == TCP {
            self.minute(minute_of(now)).failed(flow);
        }
    }

    /// Counts a session by one of its records, where its packets were counted by two collectors: as begun by
    /// the first, as failed by the last.
    pub fn record(&mut self, record: &Record) {
        if !record.counted || !matches!(record.kind, RecordKind::Interim | RecordKind::Final) {
            return;
        }
        let flow = Flow {
            orig: record.orig.address,
            resp: record.resp.address,
            proto: record.proto,
            server_port: server_port(record.proto, record.resp.port),
            service: record.service.name,
        };
        if record.number == 0 {
            self.opened(record.ts, &flow);
        }
        if record.kind == RecordKind::Final && record.proto == TCP && failed_handshake(record.conn_state) {
            self.minute(minute_of(record.ts_last)).failed(&flow);
        }
    }

    /// Time passes: to be called after each batch of packets and, when none come, some times a second. `now` is
    /// the clock's time for a live source, the last packet's for a file.
    pub fn tick(&mut self, now: Timestamp, sessions: &mut impl Sessions) {
        let minute = minute_of(now);
        // A minute back is what late packets look like; more is a clock that was set back.
        if !self.started || minute > self.current.number || minute.saturating_add(1) < self.current.number {
            self.roll(minute);
        }
        let clean = self.sweep(sessions, SWEEP);
        if clean && now.nanos().saturating_sub(self.start_ns) >= GRACE_NS {
            self.close_others();
        }
    }

    /// Ends: everything counted so far is closed.
    pub fn finish(&mut self, sessions: &mut impl Sessions) {
        self.touch_all();
        self.sweep(sessions, usize::MAX);
        self.close_others();
        if self.started {
            let closed = close(&mut self.current);
            self.closed.push(closed);
            self.started = false;
        }
        let next = tapedeck_packet::UtcHour::from_hours(0);
        self.closed.extend(self.recurring.close(next).map(Closed::Hour));
    }

    /// What was finished since the last call.
    pub fn take_closed(&mut self) -> Vec<Closed> {
        std::mem::take(&mut self.closed)
    }

    /// The tables of a minute, which are opened if need be.
    fn minute(&mut self, number: u32) -> &mut Tables {
        if !self.started || number > self.current.number {
            self.roll(number);
        }
        self.table(number)
    }

    /// The same without making a later minute the current one: after the clock was set back, tallies are of
    /// later minutes.
    fn table(&mut self, number: u32) -> &mut Tables {
        if number == self.current.number {
            return &mut self.current;
        }
        if self.previous_open && number == self.previous.number {
            return &mut self.previous;
        }
        if self.stray_open && number != self.stray.number {
            self.closed.push(close(&mut self.stray));
        }
        (self.stray.number, self.stray_open) = (number, true);
        &mut self.stray
    }

    /// Another minute becomes the current one.
    fn roll(&mut self, number: u32) {
        if self.started {
            if self.previous_open {
                self.closed.push(close(&mut self.previous));
            }
            let before = self.current.number;
            std::mem::swap(&mut self.current, &mut self.previous);
            self.previous_open = true;
            let silent = number.saturating_sub(before).saturating_sub(1);
            if silent > 0 && silent <= self.config.fill_minutes {
                let from = Timestamp::from_nanos_saturating((u64::from(before) + 1) * NANOS_PER_MINUTE);
                self.closed.push(Closed::Idle { from, minutes: silent });
            }
            self.touch_all();
        }
        self.started = true;
        self.current.number = number;
        self.start_ns = u64::from(number) * NANOS_PER_MINUTE;
        self.start_step = number.saturating_mul(Tally::STEPS_PER_MINUTE);
    }

    /// All tallies are to be swept up.
    fn touch_all(&mut self) {
        for (old, touched) in self.old.iter_mut().zip(&mut self.touched) {
            *old |= std::mem::take(touched);
        }
        self.swept = 0;
    }

    /// Sweeps up at most `budget` sessions; are all done?
    fn sweep(&mut self, sessions: &mut impl Sessions, mut budget: usize) -> bool {
        while let Some(&word) = self.old.get(self.swept) {
            if word == 0 {
                self.swept += 1;
                continue;
            }
            if budget == 0 {
                return false;
            }
            budget -= 1;
            if let Some(place) = self.old.get_mut(self.swept) {
                *place &= word - 1;
            }
            let first = u32::try_from(self.swept).unwrap_or(u32::MAX).saturating_mul(64);
            if let Some((tally, flow)) = sessions.session(first.saturating_add(word.trailing_zeros()))
                && !tally.is_empty()
            {
                let (minute, delta) = (tally.minute(), tally.take());
                self.table(minute).volume(&flow, &delta);
            }
        }
        true
    }

    fn close_others(&mut self) {
        if std::mem::take(&mut self.previous_open) {
            self.closed.push(close(&mut self.previous));
        }
        if std::mem::take(&mut self.stray_open) {
            self.closed.push(close(&mut self.stray));
        }
    }
}

fn close(tables: &mut Tables) -> Closed {
    if tables.used {
        return Closed::Minute(Box::new(tables.close()));
    }
    let nanos = u64::from(tables.number) * NANOS_PER_MINUTE;
    Closed::Idle { from: Timestamp::from_nanos_saturating(nanos), minutes: 1 }
}

fn minute_of(ts: Timestamp) -> u32 {
    // The year 2262 is minute 153,722,867.
    u32::try_from(ts.nanos() / NANOS_PER_MINUTE).unwrap_or(u32::MAX)
}

/// Never 0, which means none: the first ten seconds of 1970 count as the next ten.
fn step_of(ts: Timestamp) -> u32 {
    u32::try_from(ts.nanos() / NANOS_PER_STEP).unwrap_or(u32::MAX).max(1)
}

/// Did a session of this state end without a handshake? Both sides have to have been seen trying: a session
/// that was met midstream has not failed.
#[must_use]
pub const fn failed_handshake(state: crate::ConnState) -> bool {
    use crate::ConnState::{Rej, Rstos0, Rstrh, S0, Sh, Shr};
    matches!(state, S0 | Rej | Rstos0 | Rstrh | Sh | Shr)
}

#[cfg(test)]
mod tests;
