//! Numbers that look random and are the same each time. Never for secrets.

/// SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, 2014).
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

/// Between two states.
const GAMMA: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    pub(super) const fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// What follows from a seed in place `number`, from 0 on, without those before it.
    pub(crate) const fn nth(seed: u64, number: u64) -> u64 {
        Self(seed.wrapping_add(number.wrapping_mul(GAMMA))).next()
    }

    pub(super) const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GAMMA);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// 0 to 1, without 1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits are what a float holds")]
    pub(super) const fn share(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// 0 to `below`, without it.
    #[expect(clippy::cast_possible_truncation, reason = "the product's upper half is below `below`")]
    pub(super) const fn below(&mut self, below: usize) -> usize {
        ((self.next() as u128 * below as u128) >> 64) as usize
    }
}
