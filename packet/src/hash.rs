//! Folded multiplication, of which the hashes of flows, rows and sessions are made, as in foldhash and wyhash.
//!
//! Fast, and as good as its seed is secret. It must never name anything that is stored: nobody promises that it stays
//! the same.

/// Odd numbers without pattern, for where a second operand is wanted.
pub const FACTORS: [u64; 3] = [0x9e37_79b9_7f4a_7c15, 0xd6e8_feb8_6659_fd93, 0xa076_1d64_78bd_642f];

/// Both halves of the 128-bit product, folded into one.
#[inline]
#[must_use]
pub fn fold(a: u64, b: u64) -> u64 {
    let (low, high) = a.carrying_mul(b, 0);
    low ^ high
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_halves_of_the_product_are_folded() {
        assert_eq!(fold(0, 7), 0);
        assert_eq!(fold(3, 5), 15);
        // 2^64 + 2^33 * 3: high 1, low 3 * 2^33.
        assert_eq!(fold(1 << 33, (1 << 31) + 3), 1 ^ (3 << 33));
    }
}
