//! From the counters that a dead recorder left, its note and what was recovered, to its losses by cause.
//!
//! Pure arithmetic. Every packet that the counters saw and no store holds gets exactly one cause; what a
//! recorder lost for causes of its own stays with them as far as its last note tells.

use super::QueueNote;
use crate::ledger::Dropped;
use tapedeck_ebpf::Tally;

/// What became of the packets of a queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Settled {
    /// Packets the program saw.
    pub(crate) seen: u64,
    /// Their bytes on the wire.
    pub(crate) bytes: u64,
    /// Left out by a filter.
    pub(crate) filtered: u64,
    /// Recovered.
    pub(crate) stored: u64,
    /// Lost.
    pub(crate) dropped: Dropped,
}

impl Settled {
    /// More was found than was delivered: 0 unless there is a bug.
    pub(crate) fn excess(&self) -> u64 {
        (self.filtered + self.stored + self.dropped.sum()).saturating_sub(self.seen)
    }
}

/// Settles a queue. `now`: its counters; `found`: packets of the run that are in the stores.
pub(crate) fn settle(now: &Tally, note: &QueueNote, found: u64) -> Settled {
    let mut settled = Settled { stored: found, ..Settled::default() };
    // Everything the program counted that did not reach the socket.
    let mut kept_back = 0u64;
    for (name, number) in now {
        let count = number.saturating_sub(note.before.get(name).copied().unwrap_or(0));
        let dropped = &mut settled.dropped;
        match name.as_str() {
            "packets" => settled.seen = count,
            "bytes" => {
                settled.bytes = count;
                continue;
            }
            "filtered" => settled.filtered = count,
            "slot_empty" => {
                let lived = note.unbound.min(count);
                dropped.unbound += lived;
                dropped.down += count - lived;
            }
            "ring_full" => dropped.ring_full += count,
            "fill_empty" => dropped.fill_empty += count,
            "oversize" => dropped.oversize += count,
            "unbound" => dropped.unbound += count,
            "wrong_queue" => dropped.wrong_queue += count,
            // `failed`, `other`, and whatever a later program counts.
            _ => dropped.program += count,
        }
        if name != "packets" {
            kept_back = kept_back.saturating_add(count);
        }
    }
    let delivered = settled.seen.saturating_sub(kept_back);
    let lost = delivered.saturating_sub(found);
    let dropped = &mut settled.dropped;
    // Recovery may find what the writer had given up.
    dropped.shed = note.shed.min(lost);
    dropped.write_error = note.write_error.min(lost - dropped.shed);
    dropped.crash = lost - dropped.shed - dropped.write_error;
    settled
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tally(counts: &[(&str, u64)]) -> Tally {
        counts.iter().map(|(name, number)| ((*name).to_owned(), *number)).collect()
    }

    #[test]
    fn every_packet_has_one_cause() {
        let before = tally(&[("packets", 1000), ("bytes", 90_000), ("slot_empty", 100), ("ring_full", 50)]);
        let note = QueueNote { before, shed: 7, write_error: 3, unbound: 4, ..QueueNote::default() };
        let now = tally(&[
            ("packets", 2000),
            ("bytes", 200_000),
            ("slot_empty", 164),
            ("ring_full", 60),
            ("fill_empty", 1),
            ("unbound", 2),
            ("failed", 5),
            ("filtered", 8),
        ]);
        let settled = settle(&now, &note, 900);
        let delivered = 1000 - 64 - 10 - 1 - 2 - 5 - 8;
        let dropped = Dropped {
            ring_full: 10,
            fill_empty: 1,
            unbound: 4 + 2,
            program: 5,
            shed: 7,
            write_error: 3,
            crash: delivered - 900 - 7 - 3,
            down: 60,
            ..Dropped::default()
        };
        assert_eq!(settled, Settled { seen: 1000, bytes: 110_000, filtered: 8, stored: 900, dropped });
        assert_eq!(settled.excess(), 0);
        assert_eq!(settled.seen, 8 + 900 + settled.dropped.sum());
    }

    #[test]
    fn what_recovery_finds_is_not_lost_as_well() {
        let note = QueueNote { shed: 7, write_error: 3, ..QueueNote::default() };
        let settled = settle(&tally(&[("packets", 100)]), &note, 92);
        assert_eq!(settled.dropped, Dropped { shed: 7, write_error: 1, ..Dropped::default() });
        let settled = settle(&tally(&[("packets", 100)]), &note, 101);
        assert_eq!((settled.dropped.sum(), settled.excess()), (0, 1));
        // Counters of a program that was put in the place of the one the note is about.
        let note = QueueNote { before: tally(&[("packets", 5)]), ..QueueNote::default() };
        assert_eq!(settle(&tally(&[("packets", 3)]), &note, 0), Settled::default());
    }
}
