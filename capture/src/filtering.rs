//! The filter in force, from the supervisor to the workers and into the headers of the segments.
//!
//! Where an XDP program runs it judges, and each packet says by which generation of the filter; the worker then ends
//! its segment at the first packet of another generation. Where none runs, the worker judges. A filter is
//! announced before the program is switched to it, and settled when every CPU uses it.
//!
//! It must never let a packet into a segment whose header names another filter than the one that let it
//! through; only in skb mode, where several CPUs serve a queue, packets under way at the same microsecond may.

use crate::source::RawPacket;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use tapedeck_ebpf::Filter;
use tapedeck_writer::Chain;

/// Filters that a worker may have to hear of at once: it hears within milliseconds, operators change them by hand.
const WAITING_MAX: usize = 16;

/// A filter, and what the headers of segments say of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InForce {
    filter: Filter,
    text: Option<String>,
}

impl InForce {
    /// A filter with its text.
    #[must_use]
    pub fn new(filter: Filter) -> Self {
        let text = (!filter.is_empty()).then(|| filter.to_string());
        Self { filter, text }
    }

    /// The filter.
    #[must_use]
    pub fn filter(&self) -> &Filter {
        &self.filter
    }

    /// What is recorded, in tcpdump's words; `None` = everything.
    #[must_use]
    pub fn text(&self) -> Option<&str> {
        self.text.as_deref()
    }
}

/// How the supervisor hands a worker its next filter.
#[derive(Debug, Default)]
pub struct Handover {
    announced: AtomicU32,
    settled: AtomicU32,
    /// Announced and not heard of, at most [`WAITING_MAX`].
    waiting: Mutex<Vec<Generation>>,
}

/// A filter and the number its packets carry.
type Generation = (u32, Arc<InForce>);

impl Handover {
    /// The filter of this generation will let packets through from now on.
    pub fn announce(&self, generation: u32, filter: &Arc<InForce>) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() >= WAITING_MAX {
            waiting.remove(0);
        }
        waiting.push((generation, Arc::clone(filter)));
        drop(waiting);
        // Release: partner is the Acquire load in `Judge::hear`.
        self.announced.store(generation, Ordering::Release);
    }

    /// No other filter lets packets into the ring any more.
    pub fn settle(&self, generation: u32) {
        // Release: partner is the Acquire load in `settled`: what was put into the ring before is seen by
        // the look at the ring that follows it.
        self.settled.store(generation, Ordering::Release);
    }

    /// Generation announced last.
    #[must_use]
    pub fn announced(&self) -> u32 {
        self.announced.load(Ordering::Relaxed)
    }

    /// Generation settled last.
    #[must_use]
    pub fn settled(&self) -> u32 {
        // Acquire: partner is the Release store in `settle`.
        self.settled.load(Ordering::Acquire)
    }
}

/// The worker's side.
#[derive(Clone, Debug)]
pub struct Judge {
    /// No program has asked the filter.
    judges: bool,
    heard: u32,
    in_force: Arc<InForce>,
    /// Heard of, and not seen on a packet yet.
    next: Vec<Generation>,
}

impl Judge {
    /// Begins with a filter of this generation. `judges`: there is no program that does.
    #[must_use]
    pub fn new(judges: bool, generation: u32, in_force: Arc<InForce>) -> Self {
        Self { judges, heard: generation, in_force, next: Vec::new() }
    }

    /// Hears of the next filter while no batch is taken, where the program judges: packets say which one it was.
    pub fn hear_of(&mut self, handover: &Handover) {
        if !self.judges {
            self.learn(handover);
        }
    }

    /// Hears of the next filter; once per batch, without a lock unless there is one. The worker that judges uses
    /// it at once.
    pub fn hear(&mut self, handover: &Handover, chain: &mut Chain) {
        if self.learn(handover) && self.judges {
            self.go_over(self.heard, chain);
        }
    }

    /// Whether there is another filter.
    fn learn(&mut self, handover: &Handover) -> bool {
        // Acquire: partner is the Release store in `announce`.
        let announced = handover.announced.load(Ordering::Acquire);
        if announced == self.heard || announced == 0 {
            return false;
        }
        self.heard = announced;
        self.next.append(&mut handover.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        true
    }

    /// Whether a packet is recorded. One of the next generation ends the segment before it.
    #[inline]
    pub fn takes(&mut self, packet: &RawPacket<'_>, chain: &mut Chain) -> bool {
        if self.judges {
            return self.in_force.filter.takes(packet.bytes);
        }
        let of_packet = |(number, _): &&Generation| number.to_le_bytes().first() == Some(&packet.filter);
        if let Some((number, _)) = self.next.iter().find(of_packet) {
            self.go_over(*number, chain);
        }
        true
    }

    /// The ring was empty although the filter of generation `settled` had been in use before the look.
    pub fn idle(&mut self, settled: u32, chain: &mut Chain) {
        self.go_over(settled, chain);
    }

    /// The filter of this number is in force, unless it is already; those before it are past.
    fn go_over(&mut self, number: u32, chain: &mut Chain) {
        let Some(at) = self.next.iter().position(|(next, _)| *next == number) else { return };
        if let Some((_, next)) = self.next.drain(..=at).next_back() {
            chain.set_filter(next.text.clone());
            self.in_force = next;
        }
    }
}
