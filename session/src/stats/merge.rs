//! Joins what the queues of an interface counted in one minute.
//!
//! A minute is ready when as many reports of it came as the interface has queues, or when it has waited long
//! enough. What comes later is handed on by itself: rows of one minute add up.

use super::NANOS_PER_MINUTE;
use super::collector::Closed;
use super::minute::Minute;
use super::recurring::Recurring;
use std::collections::BTreeMap;
use tapedeck_packet::{Timestamp, UtcHour};

/// A minute or an hour of an interface.
#[derive(Clone, Debug, PartialEq)]
pub enum Merged {
    /// A minute; of zeros if the interface was silent.
    Minute(Box<Minute>),
    /// An hour's pairs.
    Hour(Recurring),
}

/// Waiting for the other queues.
#[derive(Debug)]
struct Waiting<T> {
    what: T,
    reports: u32,
}

/// Joins the reports of one interface's queues.
#[derive(Debug)]
pub struct Merger {
    queues: u32,
    minutes: BTreeMap<Timestamp, Waiting<Box<Minute>>>,
    hours: BTreeMap<UtcHour, Waiting<Recurring>>,
}

impl Merger {
    /// For an interface with so many queues.
    #[must_use]
    pub fn new(queues: u32) -> Self {
        Self { queues, minutes: BTreeMap::new(), hours: BTreeMap::new() }
    }

    /// Takes a report of one of the queues.
    pub fn add(&mut self, closed: Closed) {
        match closed {
            Closed::Minute(minute) => self.minute(minute),
            Closed::Idle { from, minutes } => {
                for number in 0..u64::from(minutes) {
                    let start = from.saturating_add(number * NANOS_PER_MINUTE);
                    self.minute(Box::new(Minute { start, ..Minute::default() }));
                }
            }
            Closed::Hour(hour) => match self.hours.get_mut(&hour.hour) {
                Some(waiting) => {
                    waiting.what.merge(&hour);
                    waiting.reports += 1;
                }
                None => {
                    self.hours.insert(hour.hour, Waiting { what: hour, reports: 1 });
                }
            },
        }
    }

    fn minute(&mut self, minute: Box<Minute>) {
        match self.minutes.get_mut(&minute.start) {
            Some(waiting) => {
                waiting.what.merge(&minute);
                waiting.reports += 1;
            }
            None => {
                self.minutes.insert(minute.start, Waiting { what: minute, reports: 1 });
            }
        }
    }

    /// What is ready: reported by all queues, or ended before `patience`. [`Timestamp::MAX`] takes all.
    pub fn take(&mut self, patience: Timestamp) -> Vec<Merged> {
        let queues = self.queues;
        let ready = |start: &Timestamp, waiting: &mut Waiting<Box<Minute>>| {
            waiting.reports >= queues || start.saturating_add(NANOS_PER_MINUTE) <= patience
        };
        let mut taken: Vec<Merged> =
            self.minutes.extract_if(.., ready).map(|(_, waiting)| Merged::Minute(waiting.what)).collect();
        // A queue without a pair reports no hour: an hour waits for its time only.
        let ended = |hour: &UtcHour, _: &mut Waiting<Recurring>| hour.end() <= patience;
        taken.extend(self.hours.extract_if(.., ended).map(|(_, waiting)| Merged::Hour(waiting.what)));
        taken
    }
}
