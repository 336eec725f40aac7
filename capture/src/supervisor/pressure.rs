//! Says when the payload of long flows begins to be shed, and with its totals when that is over.
//!
//! Once each: a queue that flickers between the two is said to shed until it was calm for some seconds. It
//! must never be silent about what was cut, also of a burst that was over before anybody looked.

use super::Active;
use crate::books::QueueBooks;
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;

/// Looks without shedding, one a second, after which it is over.
const CALM_LOOKS: u32 = 5;

/// What the operator knows.
#[derive(Debug, Default)]
pub(super) struct Pressure {
    queues: BTreeMap<(String, u32), Known>,
}

/// Of one queue.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    /// Totals when it was last said to be over.
    said: Totals,
    /// Totals of the last look.
    latest: Totals,
    /// Calm looks left; `None` = it does not shed.
    left: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Totals {
    packets: u64,
    bytes: u64,
}

/// What is to be said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Begins,
    Over(Totals),
}

impl Pressure {
    /// Looks at every queue, each second.
    pub(super) fn look(&mut self, active: &[Active]) {
        self.all(active, false);
    }

    /// The recording has ended: what has not been said is.
    pub(super) fn end(&mut self, active: &[Active]) {
        self.all(active, true);
    }

    fn all(&mut self, active: &[Active], ends: bool) {
        for books in active.iter().map(|one| &one.books) {
            for queue in &books.queues {
                let known = self.queues.entry((books.interface.clone(), queue.queue)).or_default();
                let (shedding, totals) = read(queue);
                if let Some(word) = known.look(shedding && !ends, totals) {
                    word.say(&books.interface, queue.queue);
                }
                if ends && let Some(word) = known.close() {
                    word.say(&books.interface, queue.queue);
                }
            }
        }
    }
}

fn read(queue: &QueueBooks) -> (bool, Totals) {
    let shared = &queue.shared;
    let packets = shared.shed_packets.load(Ordering::Relaxed);
    let bytes = shared.shed_bytes.load(Ordering::Relaxed);
    (shared.shedding.load(Ordering::Relaxed), Totals { packets, bytes })
}

impl Known {
    fn look(&mut self, shedding: bool, totals: Totals) -> Option<Word> {
        let busy = shedding || totals != self.latest;
        self.latest = totals;
        match self.left {
            None if busy => {
                self.left = Some(CALM_LOOKS);
                Some(Word::Begins)
            }
            None => None,
            Some(_) if busy => {
                self.left = Some(CALM_LOOKS);
                None
            }
            Some(left) if left > 1 => {
                self.left = Some(left - 1);
                None
            }
            Some(_) => self.close(),
        }
    }

    fn close(&mut self) -> Option<Word> {
        self.left.take()?;
        let before = std::mem::replace(&mut self.said, self.latest);
        let packets = self.latest.packets.saturating_sub(before.packets);
        Some(Word::Over(Totals { packets, bytes: self.latest.bytes.saturating_sub(before.bytes) }))
    }
}

impl Word {
    fn say(self, interface: &str, queue: u32) {
        match self {
            Self::Begins => tracing::warn!(
                interface,
                queue,
                "compressor or disk is behind: of what flows send beyond --flow-keep only the headers are \
                 stored until it has caught up"
            ),
            Self::Over(Totals { packets, bytes }) => tracing::warn!(
                interface,
                queue,
                packets,
                bytes,
                "payload of long flows is stored again; that many packets lost that many bytes"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stretch_of_pressure_is_said_twice() {
        let totals = |packets| Totals { packets, bytes: 100 * packets };
        let mut known = Known::default();
        assert_eq!(known.look(false, totals(0)), None);
        assert_eq!(known.look(true, totals(0)), Some(Word::Begins));
        // It flickers: a burst between two looks shows in the totals.
        for (shedding, packets) in
            [(true, 10), (false, 10), (false, 12), (false, 12), (true, 12), (false, 12)]
        {
            assert_eq!(known.look(shedding, totals(packets)), None);
        }
        for _ in 1..CALM_LOOKS - 1 {
            assert_eq!(known.look(false, totals(12)), None);
        }
        assert_eq!(known.look(false, totals(12)), Some(Word::Over(totals(12))));
        assert_eq!(known.look(false, totals(12)), None);
        // Over before anybody looked, and the recording with it.
        assert_eq!(known.look(false, totals(15)), Some(Word::Begins));
        assert_eq!(known.close(), Some(Word::Over(totals(3))));
        assert_eq!(known.close(), None);
    }
}
