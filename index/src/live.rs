//! The live file of a chain: how far what is being recorded is whole.
//!
//! One small file in the store per queue that is being recorded, overwritten in place some ten times a
//! second by its recorder, who holds an exclusive `flock` on it while it lives. Whoever reads it before
//! it lists the store can vouch for every packet of that queue up to the time stated.

use crate::bytes::{u32_at, u64_at};
use crate::name::SegmentName;
use tapedeck_packet::Timestamp;
use xxhash_rust::xxh3::xxh3_64;

/// Folder of what belongs to running recorders, in a store.
pub const RUN_FOLDER: &str = ".run";
/// Suffix of a live file.
pub const LIVE_SUFFIX: &str = ".live";
/// Version of the live file's format; a reader refuses every other one.
pub const LIVE_VERSION: u32 = 1;
/// Length of a live file, bytes.
pub const LIVE_BYTES: usize = 32;

const MAGIC: [u8; 8] = *b"tapelive";

/// The bytes of a live file that states `until`: every packet of the chain up to this time, and with it,
/// can be read or is counted as lost.
#[must_use]
pub fn encode(until: Timestamp) -> [u8; LIVE_BYTES] {
    let mut bytes = [0; LIVE_BYTES];
    let time = until.nanos().to_le_bytes();
    let parts =
        [MAGIC.as_slice(), &LIVE_VERSION.to_le_bytes(), &[0; 4], &time, &xxh3_64(&time).to_le_bytes()];
    bytes.iter_mut().zip(parts.concat()).for_each(|(to, from)| *to = from);
    bytes
}

/// The time that a live file states; `None` if it is being written just now, or is none.
#[must_use]
pub fn decode(bytes: &[u8]) -> Option<Timestamp> {
    let known = bytes.starts_with(&MAGIC) && u32_at(bytes, 8) == Some(LIVE_VERSION);
    let time = u64_at(bytes, 16).filter(|time| Some(xxh3_64(&time.to_le_bytes())) == u64_at(bytes, 24));
    time.filter(|_| known && bytes.len() == LIVE_BYTES).and_then(Timestamp::from_nanos)
}

/// Name of the live file of the chain that `segment` belongs to: `<sensor>-<if>-q<N>-<run>.live`.
#[must_use]
pub fn file_name(segment: &SegmentName) -> String {
    let stem = SegmentName { t0: Timestamp::ZERO, seq: 0, ..segment.clone() }.to_string();
    let chain = stem.get(21..stem.len().saturating_sub(2)).unwrap_or_default();
    format!("{chain}{LIVE_SUFFIX}")
}

/// The chain whose live file has this name, as a segment without time and number; `None` for any other file.
#[must_use]
pub fn parse_file(file: &str) -> Option<SegmentName> {
    SegmentName::parse(&format!("{:020}-{}-0", 0, file.strip_suffix(LIVE_SUFFIX)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_comes_back_and_a_torn_one_does_not() {
        let until = Timestamp::from_nanos(1_795_284_000_123_456_789).unwrap();
        let bytes = encode(until);
        assert_eq!(decode(&bytes), Some(until));
        for at in (0..12).chain(16..LIVE_BYTES) {
            let mut torn = bytes;
            torn[at] ^= 1;
            assert_eq!(decode(&torn), None, "{at}");
        }
        assert_eq!(decode(&bytes[..31]), None);
        assert_eq!(decode(&[]), None);
    }

    #[test]
    fn all_segments_of_a_chain_have_one_live_file() {
        let name = |t0, seq| SegmentName {
            t0: Timestamp::from_nanos(t0).unwrap(),
            sensor: "lab-1".into(),
            interface: "eth0".into(),
            queue: 3,
            run: 0x0a1b_2c3d,
            seq,
        };
        assert_eq!(file_name(&name(77, 123)), "lab%2D1-eth0-q3-0a1b2c3d.live");
        assert_eq!(file_name(&name(99_999, 0)), file_name(&name(1, 4_000_000_000)));
    }
}
