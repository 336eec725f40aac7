//! A session's history: Zeek's letters, and what decides whether a letter is written again.
//!
//! Letters of the originator are upper case. `d`, `a`, `i`, `q` are written once for each side; `s`, `h`, `f`,
//! `r` again when their sequence number changes; `t`, `g`, `w` at the 1st, 10th, 100th, ... time
//! (`Session::ScaledHistoryEntry` in Zeek's `src/session/Session.cc`).

use crate::pair::{End, Pair};
use crate::tcp::Timers;

/// Letters kept. Zeek keeps all; what repeats beyond this tells nothing new.
pub(crate) const MAX_LETTERS: usize = 48;

/// What each side has shown, one bit each: `Endpoint::HistoryMasks` in Zeek.
pub(crate) mod seen {
    pub(crate) const SYN: u8 = 0x01;
    pub(crate) const FIN: u8 = 0x02;
    pub(crate) const RST: u8 = 0x04;
    pub(crate) const FIN_RST: u8 = 0x08;
    pub(crate) const DATA: u8 = 0x10;
    pub(crate) const ACK: u8 = 0x20;
    pub(crate) const MULTI_FLAG: u8 = 0x40;
}

/// A counter whose letter is written at powers of ten.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Scaled(u32);

impl Scaled {
    /// Counts one; says whether this one is written.
    pub(crate) fn count(&mut self) -> bool {
        self.0 = self.0.saturating_add(1);
        let mut power = 1_u32;
        while power < self.0 {
            let Some(next) = power.checked_mul(10) else { return false };
            power = next;
        }
        power == self.0 && self.0 != u32::MAX
    }
}

/// What decides on a side's next letters. Sequence numbers are relative to the side's first.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Repeats {
    pub(crate) last_syn: u64,
    pub(crate) last_fin: u64,
    pub(crate) last_rst: u64,
    /// One past the last FIN.
    pub(crate) fin_seq: u64,
    pub(crate) retransmissions: Scaled,
    pub(crate) gaps: Scaled,
    pub(crate) zero_windows: Scaled,
}

/// The letters.
#[derive(Clone, Copy, Debug)]
pub(crate) struct History {
    letters: [u8; MAX_LETTERS],
    length: u8,
}

impl Default for History {
    fn default() -> Self {
        Self { letters: [0; MAX_LETTERS], length: 0 }
    }
}

impl History {
    /// Writes a letter; `code` is upper case.
    pub(crate) fn add(&mut self, code: u8, from: End, orig: End) {
        self.push(if from == orig { code } else { code.to_ascii_lowercase() });
    }

    /// Writes that the roles were exchanged.
    pub(crate) fn flip(&mut self) {
        self.push(b'^');
    }

    /// Writes what would stand here if the roles had been exchanged from the beginning.
    pub(crate) fn flip_all(&mut self) {
        let old = *self;
        *self = Self::default();
        self.flip();
        for letter in old.as_str().bytes() {
            let upper = letter.is_ascii_uppercase();
            self.push(if upper { letter.to_ascii_lowercase() } else { letter.to_ascii_uppercase() });
        }
    }

    fn push(&mut self, letter: u8) {
        if let Some(place) = self.letters.get_mut(usize::from(self.length)) {
            *place = letter;
            self.length += 1;
        }
    }

    /// The letters, first first.
    pub(crate) fn as_str(&self) -> &str {
        let letters = self.letters.get(..usize::from(self.length)).unwrap_or_default();
        std::str::from_utf8(letters).unwrap_or_default()
    }
}

/// History and what belongs to it; cold, for it is written only when a letter may be.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trail {
    pub(crate) history: History,
    pub(crate) repeats: Pair<Repeats>,
    pub(crate) timers: Timers,
    /// Retransmitted segments since the last record.
    pub(crate) retransmissions: Pair<u64>,
    /// Bytes in content gaps, since the session began.
    pub(crate) missed_bytes: u64,
    /// A record has been written: who is the originator stays as it says, so that its records add up.
    pub(crate) roles_fixed: bool,
    /// Time of the originator's last SYN, ns; 0 before.
    pub(crate) syn_ts: u64,
    /// From that SYN to the acknowledgement of its SYN-ACK, ns.
    pub(crate) syn_rtt_ns: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scaled_counters_write_at_powers_of_ten() {
        let mut counter = Scaled::default();
        let written: Vec<u32> = (1..=1_000).filter(|_| counter.count()).collect();
        assert_eq!(written, [1, 10, 100, 1_000]);
    }

    #[test]
    fn letters_have_the_case_of_their_side_and_an_end() {
        let mut history = History::default();
        history.add(b'S', End::B, End::B);
        history.add(b'H', End::A, End::B);
        history.flip();
        assert_eq!(history.as_str(), "Sh^");
        for _ in 0..MAX_LETTERS {
            history.add(b'R', End::A, End::A);
        }
        assert_eq!(history.as_str().len(), MAX_LETTERS);
    }
}
