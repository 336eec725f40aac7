//! The UMEM: the memory packets arrive in, cut into equal chunks.
//!
//! It must never give a slice outside the mapping, whatever address a ring names.

use crate::sys::mapping::Mapping;
use std::io;

/// Bytes the kernel keeps free in front of each packet (XDP_PACKET_HEADROOM).
const HEADROOM: u32 = 256;
/// What a packet may be longer than the MTU: Ethernet header, two tags, checksum; and the metadata
/// where it has to stand in front of the packet.
const LINK_OVERHEAD: u32 = 26 + 32;
const HUGE_PAGE: usize = 2 << 20;
/// A line of the cache, bytes.
#[cfg(target_arch = "x86_64")]
const LINE: usize = 64;

/// Size of a UMEM chunk; the kernel takes no larger one than a page on x86.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChunkSize {
    /// 2,048 bytes: holds packets of an MTU up to 1,734.
    Small,
    /// 4,096 bytes: holds packets of an MTU up to 3,782; beyond that packets come in pieces.
    Page,
}

impl ChunkSize {
    /// Bytes.
    #[must_use]
    pub const fn bytes(self) -> u32 {
        match self {
            Self::Small => 2048,
            Self::Page => 4096,
        }
    }

    /// The chunk for an MTU, and whether packets may need several of them (XDP_USE_SG).
    #[must_use]
    pub const fn for_mtu(mtu: u32) -> (Self, bool) {
        let need = mtu.saturating_add(LINK_OVERHEAD);
        if need <= Self::Small.bytes() - HEADROOM {
            (Self::Small, false)
        } else {
            (Self::Page, need > Self::Page.bytes() - HEADROOM)
        }
    }
}

/// What the UMEM's memory consists of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pages {
    /// 2 MiB pages.
    Huge,
    /// No pages were set aside: those that the kernel has, large ones where it can (transparent huge pages).
    Small,
}

/// The packet memory of one socket: equal chunks, given to the kernel through the fill ring.
#[derive(Debug)]
pub(super) struct Umem {
    memory: Mapping,
    chunk: u32,
    chunks: u32,
    pages: Pages,
}

impl Umem {
    /// Memory for `chunks` chunks, from huge pages where there are some.
    pub(super) fn new(chunk: ChunkSize, chunks: u32) -> io::Result<Self> {
        let too_big = || io::Error::from(io::ErrorKind::InvalidInput);
        let chunk = chunk.bytes();
        let len = usize::try_from(u64::from(chunk) * u64::from(chunks)).map_err(|_| too_big())?;
        let len = len.checked_next_multiple_of(HUGE_PAGE).ok_or_else(too_big)?;
        let (memory, pages) = match Mapping::anonymous(len, true) {
            Ok(memory) => (memory, Pages::Huge),
            Err(_) => (Mapping::anonymous(len, false)?, Pages::Small),
        };
        Ok(Self { memory, chunk, chunks, pages })
    }

    pub(super) fn pages(&self) -> Pages {
        self.pages
    }

    pub(super) fn base(&self) -> u64 {
        self.memory.base().as_ptr().addr() as u64
    }

    /// Bytes the chunks take; what XDP_UMEM_REG is told.
    pub(super) fn bytes(&self) -> u64 {
        u64::from(self.chunk) * u64::from(self.chunks)
    }

    /// Address (offset in the UMEM) of every chunk.
    pub(super) fn addresses(&self) -> impl Iterator<Item = u64> + use<> {
        let chunk = u64::from(self.chunk);
        (0..u64::from(self.chunks)).map(move |index| index * chunk)
    }

    /// The chunk that an address from a ring lies in; `None` outside the UMEM.
    pub(super) fn chunk_of(&self, addr: u64) -> Option<u64> {
        (addr < self.bytes()).then(|| addr - addr % u64::from(self.chunk))
    }

    /// The bytes `addr..addr + len`; `None` unless they lie in one chunk.
    ///
    /// # Safety
    /// The chunk must be ours: taken from the RX ring and not yet given back through the fill ring,
    /// for as long as the slice lives; so must the UMEM.
    pub(super) unsafe fn slice<'b>(&self, addr: u64, len: u32) -> Option<&'b [u8]> {
        let start = self.chunk_of(addr)?;
        let end = addr.checked_add(u64::from(len))?;
        if end > start + u64::from(self.chunk) {
            return None;
        }
        let offset = usize::try_from(addr).ok()?;
        // SAFETY: addr..end lies in one chunk of the mapping, as just checked, which lives as long as the
        // slice by the caller's promise. It is initialised (mmap zeroes it), and nobody writes to it: the
        // caller owns the chunk, and the only writer of ours, `clear_word`, asks for a word of no slice.
        Some(unsafe { std::slice::from_raw_parts(self.memory.base().as_ptr().add(offset), len as usize) })
    }

    /// Asks the CPU to fetch a packet of `len` bytes at `addr` with its metadata. Changes nothing, and an address
    /// outside is ignored.
    #[inline]
    pub(super) fn fetch(&self, addr: u64, len: u32) {
        #[cfg(target_arch = "x86_64")]
        if let Some(offset) = self.chunk_of(addr).and_then(|_| usize::try_from(addr).ok()) {
            use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
            let lines = (len as usize).min(self.chunk as usize).div_ceil(LINE);
            for line in 0..=lines {
                let at =
                    self.memory.base().as_ptr().wrapping_add((offset + line * LINE).saturating_sub(LINE));
                // SAFETY: a prefetch reads and writes nothing that a program could see, whatever the address.
                unsafe { _mm_prefetch::<_MM_HINT_T0>(at.cast()) };
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (addr, len);
    }

    /// Zeroes the four bytes at `addr`, so that nothing of an earlier packet is taken for metadata.
    ///
    /// # Safety
    /// As for [`Umem::slice`].
    pub(super) unsafe fn clear_word(&mut self, addr: u64) {
        let Some(offset) = self.chunk_of(addr).and_then(|_| usize::try_from(addr).ok()) else { return };
        if offset + 4 <= self.memory.len() {
            // SAFETY: the four bytes lie in the mapping, as just checked; the caller owns the chunk, and
            // `&mut self` says that no slice of it is alive.
            unsafe { self.memory.base().as_ptr().add(offset).cast::<[u8; 4]>().write([0; 4]) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_follows_the_mtu() {
        assert_eq!(ChunkSize::for_mtu(1500), (ChunkSize::Small, false));
        assert_eq!(ChunkSize::for_mtu(1734), (ChunkSize::Small, false));
        assert_eq!(ChunkSize::for_mtu(1735), (ChunkSize::Page, false));
        assert_eq!(ChunkSize::for_mtu(3782), (ChunkSize::Page, false));
        assert_eq!(ChunkSize::for_mtu(3783), (ChunkSize::Page, true));
        assert_eq!(ChunkSize::for_mtu(9000), (ChunkSize::Page, true));
        assert_eq!(ChunkSize::for_mtu(u32::MAX), (ChunkSize::Page, true));
    }

    #[test]
    fn addresses_outside_the_umem_are_refused() {
        let umem = Umem::new(ChunkSize::Small, 4).unwrap();
        assert_eq!(umem.chunk_of(2048 + 300), Some(2048));
        assert_eq!(umem.chunk_of(4 * 2048), None);
        assert_eq!(umem.chunk_of(u64::MAX), None);
        // SAFETY: no kernel knows this UMEM; all chunks are ours.
        unsafe {
            assert_eq!(umem.slice(2048, 2048).map(<[u8]>::len), Some(2048));
            assert!(umem.slice(2049, 2048).is_none(), "leaves its chunk");
            assert!(umem.slice(3 * 2048, 4096).is_none());
            assert!(umem.slice(u64::MAX - 4, 8).is_none());
            assert!(umem.slice(0, u32::MAX).is_none());
        }
    }
}
