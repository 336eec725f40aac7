//! The ethtool ioctl (linux/ethtool.h): channels, offload switches, receive hashing.
//!
//! The older of the two ethtool interfaces: it needs no generic netlink and every driver answers it.

mod look;
mod stamping;
mod statistics;

pub(crate) use look::Feature;
pub(crate) use stamping::Stamping;
pub(crate) use statistics::Statistics;

use super::mapping::Mapping;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use serde::{Deserialize, Serialize};
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};

const GFLAGS: u32 = 0x25;
const SFLAGS: u32 = 0x26;
const GGRO: u32 = 0x2b;
const SGRO: u32 = 0x2c;
const GCHANNELS: u32 = 0x3c;
const SCHANNELS: u32 = 0x3d;
const GRSSH: u32 = 0x46;
const SRSSH: u32 = 0x47;

/// `ETH_FLAG_RXVLAN`: the NIC takes the VLAN tag out of the packet.
const FLAG_RXVLAN: u32 = 1 << 8;
/// `ETH_FLAG_LRO`: the NIC merges packets.
const FLAG_LRO: u32 = 1 << 15;

/// An offload that changes packets before they are recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Offload {
    /// VLAN tags are taken out.
    RxVlan,
    /// The NIC merges packets.
    Lro,
    /// The network stack merges packets, before generic XDP and packet sockets see them.
    Gro,
}

impl Offload {
    /// The word `ethtool -K` knows it by.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::RxVlan => "rxvlan",
            Self::Lro => "lro",
            Self::Gro => "gro",
        }
    }

    fn bit(self) -> Option<u32> {
        match self {
            Self::RxVlan => Some(FLAG_RXVLAN),
            Self::Lro => Some(FLAG_LRO),
            Self::Gro => None,
        }
    }
}

/// `struct ethtool_channels`, without its command word: max rx, tx, other, combined; rx, tx, other,
/// combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Channels([u32; 8]);

#[cfg(test)]
impl Channels {
    /// So many combined ones, for tests.
    pub(crate) fn of(combined: u32) -> Self {
        Self([0, 0, 0, 64, 0, 0, 0, combined])
    }
}

#[cfg(test)]
impl Hashing {
    /// One made of the same byte throughout, for tests.
    pub(crate) fn of_bytes(byte: u8, len: usize) -> Self {
        Self { function: [byte, 0, 0, 0], table: vec![u32::from(byte); len], key: vec![byte; len] }
    }
}

impl Channels {
    /// Whether the device counts receiving and sending queues together: `ethtool -L IF combined N`.
    pub(crate) fn are_combined(self) -> bool {
        let [.., combined] = self.0;
        combined > 0
    }

    /// Queues packets arrive on.
    pub(crate) fn rx(self) -> u32 {
        let [.., rx, _, _, combined] = self.0;
        rx.saturating_add(combined)
    }

    /// Most queues the device can have.
    pub(crate) fn rx_max(self) -> u32 {
        let [rx, _, _, combined, ..] = self.0;
        rx.max(combined)
    }

    /// The same with `queues` of them.
    pub(crate) fn with_rx(self, queues: u32) -> Self {
        let [mrx, mtx, mother, mcombined, rx, tx, other, combined] = self.0;
        if combined > 0 {
            Self([mrx, mtx, mother, mcombined, rx, tx, other, queues])
        } else {
            Self([mrx, mtx, mother, mcombined, queues, tx, other, combined])
        }
    }
}

/// Receive hashing: `struct ethtool_rxfh` as words, as the kernel gave it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Hashing {
    function: [u8; 4],
    table: Vec<u32>,
    key: Vec<u8>,
}

/// Bits of `hfunc`.
const HFUNC_TOEPLITZ: u8 = 1;

impl Hashing {
    /// A hash that is the same for both directions of a flow (the Toeplitz key 6d:5a repeated), spread
    /// evenly over `queues`.
    pub(crate) fn symmetric(&self, queues: u32) -> Self {
        Self {
            function: [HFUNC_TOEPLITZ, 0, 0, 0],
            table: (0..queues.max(1)).cycle().take(self.table.len()).collect(),
            key: [0x6d, 0x5a].into_iter().cycle().take(self.key.len()).collect(),
        }
    }

    /// Length of the key, bytes.
    pub(crate) fn key_len(&self) -> usize {
        self.key.len()
    }

    /// Queues that the table names, each once.
    pub(crate) fn queues_named(&self) -> usize {
        self.table.iter().collect::<std::collections::BTreeSet<_>>().len()
    }

    /// A device without a table or a key cannot be told how to hash.
    pub(crate) fn is_settable(&self) -> bool {
        !self.table.is_empty() && !self.key.is_empty()
    }
}

/// An open ethtool conversation about one interface.
#[derive(Debug)]
pub(crate) struct Ethtool {
    socket: OwnedFd,
    name: [libc::c_char; libc::IFNAMSIZ],
}

impl Ethtool {
    /// For the interface of this name.
    pub(crate) fn open(interface: &str) -> io::Result<Self> {
        let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        let mut name = [0; libc::IFNAMSIZ];
        if interface.len() >= name.len() {
            return Err(io::Error::from_raw_os_error(libc::ENODEV));
        }
        for (to, from) in name.iter_mut().zip(interface.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        Ok(Self { socket, name })
    }

    /// Reads the queue counts. EOPNOTSUPP where the driver does not tell.
    pub(crate) fn channels(&self) -> io::Result<Channels> {
        let mut words = [GCHANNELS, 0, 0, 0, 0, 0, 0, 0, 0];
        self.exchange(&mut words)?;
        let [_, counts @ ..] = words;
        Ok(Channels(counts))
    }

    /// Sets the queue counts.
    pub(crate) fn set_channels(&self, channels: Channels) -> io::Result<()> {
        let [a, b, c, d, e, f, g, h] = channels.0;
        self.exchange(&mut [SCHANNELS, a, b, c, d, e, f, g, h])
    }

    /// Whether an offload is on.
    pub(crate) fn offload(&self, which: Offload) -> io::Result<bool> {
        let mut words = [if which.bit().is_some() { GFLAGS } else { GGRO }, 0];
        self.exchange(&mut words)?;
        let [_, value] = words;
        Ok(value & which.bit().unwrap_or(u32::MAX) != 0)
    }

    /// Switches an offload. The kernel may accept and yet not do it: read it back.
    pub(crate) fn set_offload(&self, which: Offload, on: bool) -> io::Result<()> {
        let Some(bit) = which.bit() else { return self.exchange(&mut [SGRO, u32::from(on)]) };
        let mut words = [GFLAGS, 0];
        self.exchange(&mut words)?;
        let [_, flags] = words;
        self.exchange(&mut [SFLAGS, if on { flags | bit } else { flags & !bit }])
    }

    /// Reads the receive hashing. EOPNOTSUPP where the driver has none.
    pub(crate) fn hashing(&self) -> io::Result<Hashing> {
        let mut sizes = [GRSSH, 0, 0, 0, 0, 0];
        self.exchange(&mut sizes)?;
        let [_, _, table, key, ..] = sizes;
        let key_words = (key as usize).div_ceil(4);
        let mut words = vec![GRSSH, 0, table, key, 0, 0];
        words.resize(6 + table as usize + key_words, 0);
        self.exchange(&mut words)?;
        let function = words.get(4).copied().unwrap_or_default().to_ne_bytes();
        let mut config = words.into_iter().skip(6);
        let table = config.by_ref().take(table as usize).collect();
        let key = config.flat_map(u32::to_ne_bytes).take(key as usize).collect();
        Ok(Hashing { function, table, key })
    }

    /// Sets the receive hashing.
    pub(crate) fn set_hashing(&self, hashing: &Hashing) -> io::Result<()> {
        let misfit = || io::Error::from(io::ErrorKind::InvalidInput);
        let table = u32::try_from(hashing.table.len()).map_err(|_| misfit())?;
        let key = u32::try_from(hashing.key.len()).map_err(|_| misfit())?;
        let mut words = vec![SRSSH, 0, table, key, u32::from_ne_bytes(hashing.function), 0];
        words.extend_from_slice(&hashing.table);
        for chunk in hashing.key.chunks(4) {
            let mut word = [0; 4];
            for (to, from) in word.iter_mut().zip(chunk) {
                *to = *from;
            }
            words.push(u32::from_ne_bytes(word));
        }
        self.exchange(&mut words)
    }

    /// One command: the first word says which, the kernel overwrites the others with its answer. The
    /// commands above name the length of their records themselves.
    fn exchange(&self, words: &mut [u32]) -> io::Result<()> {
        self.exchange_by(libc::SIOCETHTOOL, words)
    }

    /// The same for a request that is no ethtool command.
    fn exchange_by(&self, kind: libc::c_ulong, words: &mut [u32]) -> io::Result<()> {
        // SAFETY: a record of integers and a pointer, for which all zeroes is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        request.ifr_name = self.name;
        request.ifr_ifru.ifru_data = words.as_mut_ptr().cast();
        // SAFETY: the kernel reads and writes as many bytes behind `ifru_data` as the command in the
        // first word has: two words for flags and GRO, nine for channels, and for hashing six and what
        // the third and fourth word say, for which the callers above have made room. So have those in
        // `look`: nine words for rings, four for pause frames and hashed fields, 23 for coalescing, 49
        // for the driver; eleven for stamps in `stamping`, and three for its own two requests; five for one set's size; three and eight a name for names, whose number is
        // fixed for features; two and four a block for features, of which the second word counts room. Statistics
        // have as many names and values as the kernel says at that moment, and `statistics` gives it a `Room`: all
        // of the memory up to a page that nobody can write, so that one too many is EFAULT.
        let ret = unsafe { libc::ioctl(self.socket.as_raw_fd(), kind, &raw mut request) };
        if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }
}

/// Memory for an answer whose length the kernel alone says: it ends at a page that nobody can write.
#[derive(Debug)]
struct Room(Mapping);

impl Room {
    /// Room for so many bytes or more.
    fn new(bytes: usize) -> io::Result<Self> {
        Mapping::guarded(bytes).map(Self)
    }

    fn words(&mut self) -> &mut [u32] {
        let len = self.0.len() / size_of::<u32>();
        // SAFETY: the mapping is zeroed memory of this many bytes and more, aligned to a page, which nothing else
        // points into; the slice borrows the room.
        unsafe { std::slice::from_raw_parts_mut(self.0.base().cast().as_ptr(), len) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_for_a_room_is_an_error() {
        // The names of all features: a header, and more than fits behind it.
        let ethtool = Ethtool::open("lo").unwrap();
        let count = u32::try_from(ethtool.features().unwrap().len()).unwrap();
        let mut room = Room::new(10).unwrap();
        let words = room.words();
        assert!(words.len() >= 3 && words.iter().all(|word| *word == 0));
        let end = words.len() - 3;
        // Some kernels write nothing unless the number is the right one. Features without a name are not listed.
        let tries = (count..count + 8).map(|count| {
            words[end..].copy_from_slice(&[look::GSTRINGS, 4, count]);
            ethtool.exchange(&mut words[end..])
        });
        let refused = tries.filter_map(Result::err).next().unwrap();
        assert_eq!(refused.raw_os_error(), Some(libc::EFAULT));
    }

    #[test]
    fn the_loopback_answers() {
        let ethtool = Ethtool::open("lo").unwrap();
        ethtool.offload(Offload::Gro).unwrap();
        ethtool.offload(Offload::RxVlan).unwrap();
        assert_eq!(ethtool.channels().unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
        assert_eq!(ethtool.hashing().unwrap_err().raw_os_error(), Some(libc::EOPNOTSUPP));
    }

    #[test]
    fn unknown_interfaces_are_enodev() {
        let long = Ethtool::open("a-name-that-is-too-long").unwrap_err();
        assert_eq!(long.raw_os_error(), Some(libc::ENODEV));
        let none = Ethtool::open("no-such-if").unwrap().channels().unwrap_err();
        assert_eq!(none.raw_os_error(), Some(libc::ENODEV));
    }

    #[test]
    fn a_symmetric_hash_fits_the_device() {
        let device = Hashing { function: [4, 0, 0, 0], table: vec![0; 5], key: vec![1; 7] };
        let set = device.symmetric(2);
        assert_eq!(set.table, [0, 1, 0, 1, 0]);
        assert_eq!(set.key, [0x6d, 0x5a, 0x6d, 0x5a, 0x6d, 0x5a, 0x6d]);
        assert!(set.is_settable());
    }

    #[test]
    fn queues_are_set_where_the_device_has_them() {
        let combined = Channels([0, 0, 0, 8, 0, 0, 1, 4]);
        assert_eq!((combined.rx(), combined.rx_max(), combined.with_rx(2).rx()), (4, 8, 2));
        let separate = Channels([4, 4, 0, 0, 3, 3, 0, 0]);
        assert_eq!((separate.rx(), separate.rx_max(), separate.with_rx(1).rx()), (3, 4, 1));
    }
}
