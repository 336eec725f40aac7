//! Records of an append-only file: payload length u32, kind u32, checksum u64, payload.
//!
//! The checksum is XXH3-64 of length, kind and payload. Every journal is a row of such records; what a
//! kind means is the journal's business. Reading stops at the first bad record.

use crate::bytes::{index, len32, u32_at, u64_at};
use xxhash_rust::xxh3::Xxh3;

/// Bytes of a record before its payload.
const HEAD: usize = 16;

/// Why reading a journal stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// All bytes were read.
    End,
    /// The last record is cut: normal for a journal that is being written, or whose writer died.
    Cut,
    /// A record's checksum does not hold, or it says what cannot be. Zeros read as this.
    Damaged,
}

/// A record whose checksum holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Raw<'a> {
    /// Length of the whole record, bytes.
    pub(crate) len: usize,
    /// Its kind.
    pub(crate) kind: u32,
    /// Its payload.
    pub(crate) payload: &'a [u8],
}

/// Appends a record around what `payload` appends.
pub(crate) fn record(out: &mut Vec<u8>, kind: u32, payload: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; HEAD]);
    payload(out);
    let len = len32(out.len() - start - HEAD);
    let sum = checksum(len, kind, out.get(start + HEAD..).unwrap_or_default());
    if let Some(head) = out.get_mut(start..).and_then(|rest| rest.first_chunk_mut::<HEAD>()) {
        let [l0, l1, l2, l3] = len.to_le_bytes();
        let [k0, k1, k2, k3] = kind.to_le_bytes();
        let [s0, s1, s2, s3, s4, s5, s6, s7] = sum.to_le_bytes();
        *head = [l0, l1, l2, l3, k0, k1, k2, k3, s0, s1, s2, s3, s4, s5, s6, s7];
    }
}

/// The record that `bytes` begin with.
pub(crate) fn first(bytes: &[u8]) -> Result<Raw<'_>, Stop> {
    if bytes.is_empty() {
        return Err(Stop::End);
    }
    let head = (u32_at(bytes, 0), u32_at(bytes, 4), u64_at(bytes, 8));
    let (Some(len), Some(kind), Some(sum)) = head else { return Err(Stop::Cut) };
    let end = HEAD.saturating_add(index(len));
    let payload = bytes.get(HEAD..end).ok_or(Stop::Cut)?;
    if checksum(len, kind, payload) != sum {
        return Err(Stop::Damaged);
    }
    Ok(Raw { len: end, kind, payload })
}

/// XXH3-64 of length, kind and payload.
fn checksum(len: u32, kind: u32, payload: &[u8]) -> u64 {
    let mut hasher = Xxh3::new();
    hasher.update(&len.to_le_bytes());
    hasher.update(&kind.to_le_bytes());
    hasher.update(payload);
    hasher.digest()
}
