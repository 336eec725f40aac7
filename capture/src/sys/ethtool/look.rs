//! What the ethtool ioctl tells without changing anything: rings, pause frames, interrupt moderation,
//! driver, features by name, how packets are hashed.

use super::{Ethtool, HFUNC_TOEPLITZ, Hashing};
use std::io;

const GDRVINFO: u32 = 0x03;
const GCOALESCE: u32 = 0x0e;
const GRINGPARAM: u32 = 0x10;
const GPAUSEPARAM: u32 = 0x12;
pub(super) const GSTRINGS: u32 = 0x1b;
const GRXFH: u32 = 0x29;
pub(super) const GSSET_INFO: u32 = 0x37;
const GFEATURES: u32 = 0x3a;

/// `ETH_SS_FEATURES`: the names of all features this kernel knows.
const SET_FEATURES: u32 = 4;
/// `ETH_GSTRING_LEN`, in words.
pub(super) const NAME_WORDS: usize = 8;
/// `UDP_V4_FLOW` of `ETHTOOL_GRXFH`.
const UDP_V4: u32 = 2;
/// `RXH_L4_B_0_1 | RXH_L4_B_2_3`: ports are hashed.
const HASHED_PORTS: u32 = 3 << 6;
/// `ETH_RSS_HASH_XOR`: the same for both directions by itself.
const HFUNC_XOR: u8 = 2;
/// `RXH_XFRM_SYM_XOR | RXH_XFRM_SYM_OR_XOR`: addresses and ports are made alike before the hash.
const TRANSFORM_SYMMETRIC: u8 = 3;

/// Entries of the receive ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ring {
    /// Now.
    pub(crate) entries: u32,
    /// Most the card has.
    pub(crate) max: u32,
}

/// Interrupt moderation of receiving.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Coalescing {
    /// Longest wait before an interrupt, microseconds.
    pub(crate) wait_us: u32,
    /// The driver moves the wait by itself.
    pub(crate) adaptive: bool,
}

/// The driver and where its card sits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Driver {
    /// Its name.
    pub(crate) name: String,
    /// Address on the bus, such as `0000:3b:00.0`; empty for a virtual device.
    pub(crate) bus: String,
}

/// A feature as `ethtool -k` lists it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Feature {
    /// Name, as `ethtool -K` takes it.
    pub(crate) name: String,
    /// On now.
    pub(crate) on: bool,
    /// It can be switched.
    pub(crate) switchable: bool,
}

impl Ethtool {
    /// Reads the receive ring. EOPNOTSUPP where there is none.
    pub(crate) fn ring(&self) -> io::Result<Ring> {
        let mut words = [0; 9];
        self.ask(GRINGPARAM, &mut words)?;
        let [_, max, _, _, _, entries, ..] = words;
        Ok(Ring { entries, max })
    }

    /// Whether the card asks the sender to pause when its ring is full.
    pub(crate) fn sends_pause(&self) -> io::Result<bool> {
        let mut words = [0; 4];
        self.ask(GPAUSEPARAM, &mut words)?;
        let [_, _, _, tx_pause] = words;
        Ok(tx_pause != 0)
    }

    /// Reads the interrupt moderation.
    pub(crate) fn coalescing(&self) -> io::Result<Coalescing> {
        let mut words = [0; 23];
        self.ask(GCOALESCE, &mut words)?;
        let [_, wait_us, _, _, _, _, _, _, _, _, adaptive, ..] = words;
        Ok(Coalescing { wait_us, adaptive: adaptive != 0 })
    }

    /// Reads the driver's name and place.
    pub(crate) fn driver(&self) -> io::Result<Driver> {
        // driver, version, firmware and bus in 32 bytes each, then what is of no interest here.
        let mut words = [0; 49];
        self.ask(GDRVINFO, &mut words)?;
        let mut texts = words.get(1..).unwrap_or_default().chunks(NAME_WORDS).map(text);
        let name = texts.next().unwrap_or_default();
        let bus = texts.nth(2).unwrap_or_default();
        // Virtual devices leave it empty or say `N/A`.
        Ok(Driver { name, bus: if bus.contains(':') { bus } else { String::new() } })
    }

    /// Whether the ports of UDP over IPv4 are hashed, which only a first fragment has.
    pub(crate) fn udp_ports_hashed(&self) -> io::Result<bool> {
        // cmd, flow type, and a u64.
        let mut words = [GRXFH, UDP_V4, 0, 0];
        self.exchange(&mut words)?;
        let [_, _, low, high] = words;
        Ok((low | high) & HASHED_PORTS == HASHED_PORTS)
    }

    /// Reads all features by name.
    pub(crate) fn features(&self) -> io::Result<Vec<Feature>> {
        // cmd, reserved, a u64 mask of the sets asked for, and a count for each.
        let [low, high] = halves(1 << SET_FEATURES);
        let mut sizes = [GSSET_INFO, 0, low, high, 0];
        self.exchange(&mut sizes)?;
        let [.., number] = sizes;
        let count = number as usize;
        let mut names = vec![0; 3 + count * NAME_WORDS];
        names.splice(..3, [GSTRINGS, SET_FEATURES, number]);
        self.exchange(&mut names)?;
        let blocks = count.div_ceil(32);
        let mut states = vec![0; 2 + 4 * blocks];
        states.splice(..2, [GFEATURES, u32::try_from(blocks).unwrap_or(0)]);
        self.exchange(&mut states)?;
        let names = names.get(3..).unwrap_or_default().chunks(NAME_WORDS).map(text);
        Ok(read_features(names, states.get(2..).unwrap_or_default()))
    }

    fn ask(&self, command: u32, words: &mut [u32]) -> io::Result<()> {
        if let Some(first) = words.first_mut() {
            *first = command;
        }
        self.exchange(words)
    }
}

pub(super) fn halves(value: u64) -> [u32; 2] {
    let [a, b, c, d, e, f, g, h] = value.to_ne_bytes();
    [u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, g, h])]
}

/// A text padded with zeroes.
pub(super) fn text(words: &[u32]) -> String {
    let bytes = words.iter().flat_map(|word| word.to_ne_bytes()).take_while(|byte| *byte != 0);
    String::from_utf8_lossy(&bytes.collect::<Vec<u8>>()).into_owned()
}

/// `struct ethtool_get_features_block`, one per 32 features: available, requested, active, never changed.
fn read_features(names: impl Iterator<Item = String>, blocks: &[u32]) -> Vec<Feature> {
    let bit = |index: usize, word: usize| {
        blocks.get(index / 32 * 4 + word).is_some_and(|bits| bits & (1 << (index % 32)) != 0)
    };
    names
        .enumerate()
        .filter(|(_, name)| !name.is_empty())
        .map(|(index, name)| Feature { name, on: bit(index, 2), switchable: bit(index, 0) && !bit(index, 3) })
        .collect()
}

impl Hashing {
    /// Whether both directions of a flow get the same hash, as far as this record tells.
    pub(crate) fn is_symmetric(&self) -> bool {
        let [function, transform, ..] = self.function;
        // Toeplitz with a key that repeats after 16 bits: addresses and ports may change places.
        let repeats = |three: &[u8]| three.first() == three.last();
        let by_key = !self.key.is_empty() && self.key.windows(3).all(repeats);
        transform & TRANSFORM_SYMMETRIC != 0
            || function == HFUNC_XOR
            || (function == HFUNC_TOEPLITZ && by_key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_has_features_and_no_card() {
        let ethtool = Ethtool::open("lo").unwrap();
        let features = ethtool.features().unwrap();
        let gro = features.iter().find(|feature| feature.name == "rx-gro").unwrap();
        assert!(gro.switchable);
        assert!(features.iter().any(|feature| feature.name == "rx-gro-hw" && !feature.on));
        assert_eq!(ethtool.ring().unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
        assert!(ethtool.coalescing().is_err() && ethtool.sends_pause().is_err());
        assert!(ethtool.driver().is_err_and(|error| error.raw_os_error() == Some(libc::EOPNOTSUPP)));
    }

    #[test]
    fn blocks_of_features_are_read_by_their_names() {
        let names = || (0..40).map(|index| if index == 7 { String::new() } else { format!("f{index}") });
        // Feature 1 is on and fixed, 2 on, 3 off; 33 on.
        let blocks = [0b1110, 0, 0b0110, 0b0010, 0b10, 0, 0b10, 0];
        let features = read_features(names(), &blocks);
        assert_eq!(features.len(), 39);
        let of = |name: &str| {
            let found = features.iter().find(|feature| feature.name == name).unwrap();
            (found.on, found.switchable)
        };
        assert_eq!((of("f1"), of("f2"), of("f3")), ((true, false), (true, true), (false, true)));
        assert_eq!((of("f33"), of("f34")), ((true, true), (false, false)));
    }

    #[test]
    fn symmetric_hashes_are_known() {
        let hashing = |function: [u8; 4], key: &[u8]| Hashing { function, table: vec![0], key: key.to_vec() };
        let random = [0x6d, 0x5a, 0x56, 0xda, 0x25];
        assert!(!hashing([HFUNC_TOEPLITZ, 0, 0, 0], &random).is_symmetric());
        assert!(hashing([HFUNC_TOEPLITZ, 0, 0, 0], &[0x6d, 0x5a, 0x6d, 0x5a, 0x6d]).is_symmetric());
        assert!(hashing([HFUNC_TOEPLITZ, 1, 0, 0], &random).is_symmetric(), "symmetric-xor");
        assert!(hashing([HFUNC_XOR, 0, 0, 0], &[]).is_symmetric());
        assert!(!hashing([4, 0, 0, 0], &[]).is_symmetric(), "crc32");
    }

    #[test]
    fn texts_end_at_their_first_zero() {
        assert_eq!(text(&[u32::from_ne_bytes(*b"veth"), 0]), "veth");
        assert_eq!(text(&[u32::from_ne_bytes(*b"ab\0c")]), "ab");
    }
}
