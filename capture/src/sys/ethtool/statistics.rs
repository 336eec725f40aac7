//! The driver's own statistics, as `ethtool -S` shows them: names, and values in the same order.
//!
//! Their number changes with the queues of the card, between any two calls. Kernels up to 6.18 write as many as there
//! are, whatever they are asked for, and newer ones none if the number is another: so answers come into a [`Room`],
//! and count for nothing if they have another number.

use super::look::{GSSET_INFO, GSTRINGS, NAME_WORDS, halves, text};
use super::{Ethtool, Room};
use std::io;

const GSTATS: u32 = 0x1d;
/// `ETH_SS_STATS`.
const SET_STATISTICS: u32 = 1;
/// More than any driver has.
const COUNT_MAX: u32 = 1 << 18;
/// Statistics that may come in between two calls.
const SPARE: usize = 1024;

/// The statistics of a driver under their names.
#[derive(Debug)]
pub(crate) struct Statistics {
    names: Vec<String>,
    room: Room,
}

impl Statistics {
    /// What there is. EOPNOTSUPP where the driver has none.
    pub(crate) fn new(ethtool: &Ethtool) -> io::Result<Self> {
        let names = names(ethtool)?;
        let room = Room::new(8 + 8 * (names.len() + SPARE))?;
        Ok(Self { names, room })
    }

    /// Their names, in the order of [`Self::values`].
    pub(crate) fn names(&self) -> &[String] {
        &self.names
    }

    /// Their values now; `None` if they are not those that were named any more: begin anew.
    pub(crate) fn values(&mut self, ethtool: &Ethtool) -> io::Result<Option<impl Iterator<Item = u64>>> {
        let words = self.room.words();
        for (to, word) in words.iter_mut().zip([GSTATS, count(self.names.len())]) {
            *to = word;
        }
        ethtool.exchange(words)?;
        let same = words.get(1).copied() == Some(count(self.names.len()));
        let (pairs, _) = words.get(2..).unwrap_or_default().as_chunks::<2>();
        let values = pairs.iter().map(|[a, b]| {
            let ([a, b, c, d], [e, f, g, h]) = (a.to_ne_bytes(), b.to_ne_bytes());
            u64::from_ne_bytes([a, b, c, d, e, f, g, h])
        });
        Ok(same.then(|| values.take(self.names.len())))
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn names(ethtool: &Ethtool) -> io::Result<Vec<String>> {
    // cmd, reserved, a u64 mask of the sets asked for, and a count for each.
    let [low, high] = halves(1 << SET_STATISTICS);
    let mut sizes = [GSSET_INFO, 0, low, high, 0];
    ethtool.exchange(&mut sizes)?;
    let [_, _, low, high, number] = sizes;
    // A set that the driver does not have is taken out of the mask.
    if low | high == 0 || number == 0 {
        return Err(io::Error::from_raw_os_error(libc::EOPNOTSUPP));
    }
    if number > COUNT_MAX {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    let mut room = Room::new(4 * (3 + NAME_WORDS * (number as usize + SPARE)))?;
    let words = room.words();
    for (to, word) in words.iter_mut().zip([GSTRINGS, SET_STATISTICS, number]) {
        *to = word;
    }
    ethtool.exchange(words)?;
    if words.get(2) != Some(&number) {
        return Err(io::Error::from(io::ErrorKind::Interrupted));
    }
    let names = words.get(3..).unwrap_or_default().chunks_exact(NAME_WORDS).take(number as usize);
    Ok(names.map(text).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_none() {
        let refused = Statistics::new(&Ethtool::open("lo").unwrap()).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EOPNOTSUPP));
    }
}
