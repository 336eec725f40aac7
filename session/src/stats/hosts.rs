//! How many different hosts: a HyperLogLog that is read and merged by anyone who knows the layout.
//!
//! 4,096 registers: the standard error is [`STANDARD_ERROR`], 1.04 / sqrt(4096). The hash of an address is
//! XXH3-64 (seed 0) of its 16 bytes, IPv4 as `::ffff:a.b.c.d`; the upper 12 bits name the register, the rank is
//! the number of leading zeros of the other 52 plus one (1 to 53). It is the same in all runs, so sketches of
//! queues, minutes, days and sensors can be merged; who knows that can choose addresses that make a number
//! too large, never one that makes another host vanish.
//!
//! The estimate is Ertl's improved raw estimator (<https://arxiv.org/abs/1702.01284>, algorithm 6): without
//! tables, and without a bias where HyperLogLog changes over to linear counting.

use std::net::IpAddr;
use xxhash_rust::xxh3::xxh3_64;

/// Bits of the hash that name a register.
const PRECISION: u8 = 12;
/// Registers.
pub const REGISTERS: usize = 1 << PRECISION;
/// Bits of the hash that make the rank.
const RANK_BITS: u32 = 64 - PRECISION as u32;
/// Standard error of an estimate, as a share of it.
pub const STANDARD_ERROR: f64 = 1.04 / 64.0;
/// A sketch with more registers in use is written densely: three bytes each would be longer.
const SPARSE_REGISTERS: usize = 1_024;
const SPARSE: u8 = 1;
const DENSE: u8 = 2;
/// Bytes of the registers at six bits each.
const DENSE_BYTES: usize = REGISTERS / 4 * 3;

/// The 16 bytes of an address, IPv4 as `::ffff:a.b.c.d`.
#[must_use]
pub fn octets(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// The hash of an address, as above.
#[must_use]
pub fn hash(address: IpAddr) -> u64 {
    xxh3_64(&octets(address))
}

/// A set of hosts of which only the size can be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hosts {
    registers: Box<[u8; REGISTERS]>,
}

impl Default for Hosts {
    fn default() -> Self {
        Self { registers: Box::new([0; REGISTERS]) }
    }
}

impl Hosts {
    /// Adds the host with this [`hash`].
    #[inline]
    pub fn insert(&mut self, hash: u64) {
        let rank = ((hash << PRECISION) | (1 << (PRECISION - 1))).leading_zeros() + 1;
        let rank = u8::try_from(rank).unwrap_or(u8::MAX);
        let at = usize::try_from(hash >> RANK_BITS).unwrap_or_default();
        if let Some(register) = self.registers.get_mut(at) {
            *register = rank.max(*register);
        }
    }

    /// Makes it the union of both.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.registers.iter_mut().zip(other.registers.iter()) {
            *mine = (*mine).max(*theirs);
        }
    }

    /// Empties it.
    pub fn clear(&mut self) {
        self.registers.fill(0);
    }

    /// The estimated number of hosts; its standard error is [`STANDARD_ERROR`] of it.
    #[must_use]
    pub fn estimate(&self) -> f64 {
        const HIGHEST: usize = RANK_BITS as usize + 1;
        let mut of_rank = [0.0_f64; HIGHEST + 1];
        for register in self.registers.iter() {
            if let Some(count) = of_rank.get_mut(usize::from(*register)) {
                *count += 1.0;
            }
        }
        let [empty, ranks @ .., full] = &of_rank;
        let m = f64::from(1_u32 << PRECISION);
        let mut z = m * tau(1.0 - full / m);
        for count in ranks.iter().rev() {
            z = f64::midpoint(z, *count);
        }
        z += m * sigma(empty / m);
        m * m / (2.0 * std::f64::consts::LN_2 * z)
    }

    /// The sketch in bytes. Sparse: 1, 12, then for each register in use its number (u16, little-endian) and
    /// rank, in order. Dense: 2, 12, then the registers at six bits each, four in three bytes, the first in the
    /// lowest bits.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let used = self.registers.iter().filter(|r| **r != 0).count();
        if used <= SPARSE_REGISTERS {
            let mut bytes = vec![SPARSE, PRECISION];
            for (number, rank) in (0_u16..).zip(self.registers.iter()).filter(|(_, rank)| **rank != 0) {
                bytes.extend(number.to_le_bytes());
                bytes.push(*rank);
            }
            return bytes;
        }
        let mut bytes = vec![DENSE, PRECISION];
        let (fours, _) = self.registers.as_chunks::<4>();
        for four in fours {
            let word = four.iter().rev().fold(0_u32, |word, rank| (word << 6) | u32::from(*rank & 0x3f));
            let [a, b, c, _] = word.to_le_bytes();
            bytes.extend([a, b, c]);
        }
        bytes
    }

    /// Reads what [`Hosts::to_bytes`] writes; `None` for anything else.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (head, rest) = bytes.split_first_chunk::<2>()?;
        let mut hosts = Self::default();
        match *head {
            [SPARSE, PRECISION] => {
                let (threes, []) = rest.as_chunks::<3>() else { return None };
                for &[low, high, rank] in threes {
                    let number = usize::from(u16::from_le_bytes([low, high]));
                    *hosts.registers.get_mut(number).filter(|_| rank <= 53)? = rank;
                }
            }
            [DENSE, PRECISION] if rest.len() == DENSE_BYTES => {
                let (threes, _) = rest.as_chunks::<3>();
                let (fours, _) = hosts.registers.as_chunks_mut::<4>();
                for (&[a, b, c], four) in threes.iter().zip(fours) {
                    let word = u32::from_le_bytes([a, b, c, 0]);
                    *four =
                        [0, 6, 12, 18].map(|shift| u8::try_from((word >> shift) & 0x3f).unwrap_or(u8::MAX));
                    if four.iter().any(|rank| *rank > 53) {
                        return None;
                    }
                }
            }
            _ => return None,
        }
        Some(hosts)
    }
}

fn sigma(mut x: f64) -> f64 {
    if x >= 1.0 {
        return f64::INFINITY;
    }
    let (mut y, mut z) = (1.0, x);
    loop {
        x *= x;
        let before = z;
        z += x * y;
        y += y;
        if z <= before {
            return z;
        }
    }
}

fn tau(mut x: f64) -> f64 {
    if x <= 0.0 || x >= 1.0 {
        return 0.0;
    }
    let (mut y, mut z) = (1.0, 1.0 - x);
    loop {
        x = x.sqrt();
        let before = z;
        y *= 0.5;
        z -= (1.0 - x) * (1.0 - x) * y;
        if z >= before {
            return z / 3.0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::net::{Ipv4Addr, Ipv6Addr};

    fn of(numbers: impl Iterator<Item = u32>) -> Hosts {
        let mut hosts = Hosts::default();
        numbers.for_each(|n| hosts.insert(hash(IpAddr::V4(Ipv4Addr::from(n)))));
        hosts
    }

    #[test]
    fn estimates_stay_within_four_standard_errors_from_none_to_a_million() {
        assert!(of(0..0).estimate().abs() < f64::EPSILON);
        for n in [1_u32, 2, 10, 100, 1_000, 2_500, 5_000, 10_000, 20_000, 100_000, 1_000_000] {
            for from in [0x0a00_0000, 0xc0a8_0000, 0x2d00_0001] {
                let estimate = of(from..from + n).estimate();
                let off = (estimate - f64::from(n)).abs() / f64::from(n);
                assert!(off < 4.0 * STANDARD_ERROR, "{n} from {from:x}: {estimate}");
            }
        }
    }

    #[test]
    fn the_root_mean_square_error_is_the_stated_one() {
        let (mut sum, mut trials) = (0.0, 0.0);
        for round in 0..60_u32 {
            let from = round * 50_000;
            let off = of(from..from + 20_000).estimate() / 20_000.0 - 1.0;
            sum += off * off;
            trials += 1.0;
        }
        let rms = f64::sqrt(sum / trials);
        assert!((0.6 * STANDARD_ERROR..1.4 * STANDARD_ERROR).contains(&rms), "{rms}");
    }

    #[test]
    fn mapped_and_plain_addresses_are_one_host() {
        let v4 = Ipv4Addr::new(192, 0, 2, 1);
        assert_eq!(hash(IpAddr::V4(v4)), hash(IpAddr::V6(v4.to_ipv6_mapped())));
        assert_ne!(hash(IpAddr::V4(v4)), hash(IpAddr::V6(Ipv6Addr::LOCALHOST)));
    }

    #[test]
    fn foreign_bytes_are_refused() {
        let dense = of(0..50_000).to_bytes();
        assert_eq!(dense.len(), 2 + DENSE_BYTES);
        for bytes in [&[][..], &[1], &[3, 12], &[1, 11], &[1, 12, 0], &[1, 12, 0, 16, 1], &[1, 12, 0, 0, 54]]
        {
            assert_eq!(Hosts::from_bytes(bytes), None, "{bytes:?}");
        }
        assert_eq!(Hosts::from_bytes(&dense[..dense.len() - 1]), None);
        let mut high = dense;
        high[2..].fill(0xff);
        assert_eq!(Hosts::from_bytes(&high), None);
    }

    proptest! {
        #[test]
        fn merging_is_the_union(a in prop::collection::vec(0_u32..5_000, 0..400), b in prop::collection::vec(0_u32..5_000, 0..4_000)) {
            let mut merged = of(a.iter().copied());
            merged.merge(&of(b.iter().copied()));
            prop_assert_eq!(&merged, &of(a.into_iter().chain(b)));
            prop_assert_eq!(Hosts::from_bytes(&merged.to_bytes()), Some(merged));
        }
    }
}
