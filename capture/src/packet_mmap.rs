//! Packets through AF_PACKET with TPACKET_V3 (linux/if_packet.h, Documentation/networking/packet_mmap.rst):
//! the last step of the ladder, for interfaces that cannot have XDP.
//!
//! The kernel fills blocks of packets; a [`PacketBatch`](crate::source::PacketBatch) borrows what is left
//! of one, and the block goes back once all of it was taken. One socket serves the whole interface. VLAN
//! tags that the kernel took out are put back. `seen` is the kernel's own count, which contains its drops.
//!
//! It must never trust an offset it finds in a block.

use crate::source::{self, RawPacket, Source, SourceStats, Stamp};
use crate::sys::mapping::Mapping;
use crate::sys::packet;
use crate::sys::sockopt::{self, Plain};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tapedeck_packet::time::NANOS_PER_SEC;

/// Bytes of a block: holds the longest packet GRO can make with room to spare.
const BLOCK_BYTES: usize = 1 << 20;
/// What the kernel takes at most: the memory of a ring is counted in 32 bits.
const BLOCKS_MAX: u64 = 4095;
/// Bytes of the whole ring, if so many were wished for.
#[must_use]
pub(crate) fn ring_bytes(wished: u64) -> u64 {
    blocks(wished) as u64 * BLOCK_BYTES as u64
}

fn blocks(wished: u64) -> usize {
    usize::try_from((wished / BLOCK_BYTES as u64).clamp(2, BLOCKS_MAX)).unwrap_or(2)
}

/// A block that is not full is handed over after this time.
const RETIRE_MS: u32 = 20;
/// `frame_size` means nothing in V3 beyond these limits.
const FRAME_BYTES: u32 = 2048;

/// `struct tpacket_block_desc`: version, offset_to_priv, then `struct tpacket_hdr_v1`.
const BLOCK_STATUS: usize = 8;
const BLOCK_PACKETS: usize = 12;
const BLOCK_FIRST: usize = 16;
/// `struct tpacket3_hdr`.
const NEXT: usize = 0;
const SEC: usize = 4;
const NSEC: usize = 8;
const SNAPLEN: usize = 12;
const LEN: usize = 16;
const STATUS: usize = 20;
const MAC: usize = 24;
const VLAN_TCI: usize = 32;
const VLAN_TPID: usize = 36;

const TP_STATUS_KERNEL: u32 = 0;
const TP_STATUS_USER: u32 = 1;
const TP_STATUS_VLAN_VALID: u32 = 1 << 4;
const TP_STATUS_VLAN_TPID_VALID: u32 = 1 << 6;
const TPACKET_V3: libc::c_int = 2;
const ETHERTYPE_VLAN: u16 = 0x8100;
/// Bytes before the EtherType: two addresses.
const MACS: usize = 12;

/// `struct tpacket_req3`.
#[repr(C)]
#[derive(Clone, Copy)]
struct Request {
    block_size: u32,
    block_nr: u32,
    frame_size: u32,
    frame_nr: u32,
    retire_blk_tov: u32,
    sizeof_priv: u32,
    feature_req_word: u32,
}
// SAFETY: integers only.
unsafe impl Plain for Request {}

/// `struct tpacket_stats_v3`.
#[repr(C)]
#[derive(Clone, Copy)]
struct KernelStats {
    packets: u32,
    drops: u32,
    freezes: u32,
}
// SAFETY: integers only.
unsafe impl Plain for KernelStats {}

/// A failed step of setting up the socket.
#[derive(Debug, thiserror::Error)]
#[error("AF_PACKET socket on interface {ifindex}: cannot {act}")]
pub struct PacketError {
    /// Interface.
    pub ifindex: u32,
    /// What was tried.
    pub act: &'static str,
    /// The kernel's answer.
    #[source]
    pub source: io::Error,
}

/// An AF_PACKET socket with its ring of blocks.
#[derive(Debug)]
pub struct PacketSource {
    // Order of the fields is the order of release.
    fd: OwnedFd,
    ring: Ring,
    /// Where its next packet begins, and how many are left; `None` before its first.
    place: Option<Place>,
    /// Packets of the batch in hand with their VLAN tags put back, and empty buffers for such.
    tagged: Vec<Vec<u8>>,
    spare: Vec<Vec<u8>>,
    stats: SourceStats,
}

/// The mapped blocks.
#[derive(Debug)]
struct Ring {
    memory: Mapping,
    /// Block that is read, or waited for; always below `blocks`.
    block: usize,
    /// Blocks of the mapping.
    blocks: usize,
}

#[derive(Clone, Copy, Debug)]
struct Place {
    offset: usize,
    left: u32,
}

impl PacketSource {
    /// Opens the socket with a ring of so many bytes. Nothing arrives before [`PacketIntake::open`].
    ///
    /// # Errors
    /// The step the kernel refused: EPERM without CAP_NET_RAW.
    pub fn open(ifindex: u32, packet_bytes: u64) -> Result<Self, PacketError> {
        let blocks = blocks(packet_bytes);
        let fail = |act| move |source| PacketError { ifindex, act, source };
        let fd = packet::open().map_err(fail("open the socket"))?;
        let set = |name, value: libc::c_int| sockopt::set(fd.as_fd(), libc::SOL_PACKET, name, &value);
        set(libc::PACKET_VERSION, TPACKET_V3).map_err(fail("choose TPACKET_V3"))?;
        set(libc::PACKET_IGNORE_OUTGOING, 1).map_err(fail("leave outgoing packets out"))?;
        let words = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        let request = Request {
            block_size: words(BLOCK_BYTES),
            block_nr: words(blocks),
            frame_size: FRAME_BYTES,
            frame_nr: words(BLOCK_BYTES * blocks) / FRAME_BYTES,
            retire_blk_tov: RETIRE_MS,
            sizeof_priv: 0,
            feature_req_word: 0,
        };
        sockopt::set(fd.as_fd(), libc::SOL_PACKET, libc::PACKET_RX_RING, &request)
            .map_err(fail("make the ring"))?;
        let memory = Mapping::ring(fd.as_fd(), BLOCK_BYTES * blocks, 0).map_err(fail("map the ring"))?;
        let ring = Ring { memory, block: 0, blocks };
        Ok(Self {
            fd,
            ring,
            place: None,
            tagged: Vec::new(),
            spare: Vec::new(),
            stats: SourceStats::default(),
        })
    }
}

/// The door of a [`PacketSource`], for the thread that decides when packets come in.
#[derive(Debug)]
pub struct PacketIntake {
    fd: OwnedFd,
    ifindex: u32,
}

impl PacketIntake {
    /// The door of `source`.
    ///
    /// # Errors
    /// No descriptor was left.
    pub fn of(source: &PacketSource, ifindex: u32) -> Result<Self, PacketError> {
        let fail = |source| PacketError { ifindex, act: "copy the descriptor", source };
        Ok(Self { fd: source.fd.try_clone().map_err(fail)?, ifindex })
    }

    /// Lets packets in. They are counted from here on; the interface's own outgoing ones are not seen.
    ///
    /// # Errors
    /// ENETDOWN, ENODEV: the interface went away.
    pub fn open(&self) -> Result<(), PacketError> {
        let fail = |source| PacketError { ifindex: self.ifindex, act: "bind", source };
        packet::bind(self.fd.as_fd(), self.ifindex).map_err(fail)
    }

    /// Lets nothing more in. What has arrived stays readable.
    ///
    /// # Errors
    /// The kernel's answer.
    pub fn close(&self) -> Result<(), PacketError> {
        let fail = |source| PacketError { ifindex: self.ifindex, act: "close the intake", source };
        packet::refuse_all(self.fd.as_fd()).map_err(fail)
    }
}

impl Ring {
    /// The status word of the current block.
    fn status(&self) -> &AtomicU32 {
        self.status_ahead(0)
    }

    /// The status word of the block so many behind the current one, in the order they are filled.
    fn status_ahead(&self, ahead: usize) -> &AtomicU32 {
        let block = (self.block + ahead) % self.blocks;
        // SAFETY: `block` is below `blocks`, so the word lies in the mapping, which lives as long as
        // `self`; blocks are page-aligned and the offset is a multiple of four; the kernel writes the
        // word with a single store (prb_close_block, prb_open_block in net/packet/af_packet.c).
        unsafe { self.memory.base().add(block * BLOCK_BYTES + BLOCK_STATUS).cast::<AtomicU32>().as_ref() }
    }

    /// Blocks that wait, the current one with them. Ours lie in a row, from the current one on.
    fn waiting(&self) -> usize {
        let (mut ours, mut theirs) = (0, self.blocks);
        while ours < theirs {
            let middle = ours.midpoint(theirs);
            // Relaxed: a number to decide by, nothing is read behind it.
            if self.status_ahead(middle).load(Ordering::Relaxed) & TP_STATUS_USER == 0 {
                theirs = middle;
            } else {
                ours = middle + 1;
            }
        }
        ours
    }

    /// The bytes of the current block.
    ///
    /// # Safety
    /// The block must be ours, as long as the slice lives: its status was TP_STATUS_USER, and it has not been
    /// given back.
    unsafe fn bytes<'b>(&self) -> &'b [u8] {
        // SAFETY: `block` stays below `blocks`, so the block lies in the mapping, which is there as long as
        // the block is ours and is initialised (the kernel's pages are); the kernel does not write to a block of
        // ours, by the caller's promise. The status word is among the bytes, but only we write it now.
        unsafe {
            std::slice::from_raw_parts(self.memory.base().as_ptr().add(self.block * BLOCK_BYTES), BLOCK_BYTES)
        }
    }
}

impl PacketSource {
    /// Gives the current block back and goes to the next.
    fn give_back(&mut self) {
        // Release: partner is the kernel's look at the status in prb_dispatch_next_block
        // (net/packet/af_packet.c): our reads are done before it writes to the block.
        self.ring.status().store(TP_STATUS_KERNEL, Ordering::Release);
        self.ring.block = (self.ring.block + 1) % self.ring.blocks;
        self.place = None;
    }

    /// Where the next packet of the current block begins, if the block is ours.
    fn place(&mut self) -> Option<Place> {
        if self.place.is_none() {
            // Acquire: partner is the smp_wmb before the status is set in prb_flush_block
            // (net/packet/af_packet.c): the packets behind it are visible.
            if self.ring.status().load(Ordering::Acquire) & TP_STATUS_USER == 0 {
                return None;
            }
            // SAFETY: the status says that the block is ours.
            let bytes = unsafe { self.ring.bytes() };
            let left = word(bytes, BLOCK_PACKETS).unwrap_or(0);
            let offset =
                word(bytes, BLOCK_FIRST).and_then(|offset| usize::try_from(offset).ok()).unwrap_or(0);
            self.place = Some(Place { offset, left });
        }
        self.place
    }
}

/// What is left of one block.
#[derive(Debug)]
pub struct Block<'a> {
    source: &'a mut PacketSource,
    left: u32,
}

impl source::PacketBatch for Block<'_> {
    fn packets(&mut self) -> impl Iterator<Item = RawPacket<'_>> {
        Packets { source: self.source, left: &mut self.left }
    }
}

/// The packets of a [`Block`].
struct Packets<'b> {
    source: &'b mut PacketSource,
    left: &'b mut u32,
}

impl<'b> Iterator for Packets<'b> {
    type Item = RawPacket<'b>;

    fn next(&mut self) -> Option<RawPacket<'b>> {
        *self.left = self.left.checked_sub(1)?;
        let PacketSource { ring, place, stats, .. } = &mut *self.source;
        let at = place.as_mut()?;
        // SAFETY: a `Place` exists only for a block that is ours, and the drop of the `Block`, which `'b`
        // does not outlive, gives it back.
        let header = unsafe { ring.bytes() }.get(at.offset..).unwrap_or_default();
        let step = word(header, NEXT).and_then(|step| usize::try_from(step).ok()).unwrap_or(0);
        *at = Place { offset: at.offset.saturating_add(step), left: at.left.saturating_sub(1) };
        let Some(packet) = parse(header) else {
            stats.misfits += 1;
            return Some(RawPacket {
                stamp: Stamp::Missing,
                second: None,
                sequence: None,
                filter: 0,
                bytes: &[],
                orig_len: 0,
            });
        };
        let stamp = Stamp::Utc(packet.utc_ns);
        let Some(tag) = packet.tag else {
            return Some(RawPacket {
                stamp,
                second: None,
                sequence: None,
                filter: 0,
                bytes: packet.bytes,
                orig_len: packet.len,
            });
        };
        // SAFETY: the `Block` is dropped after `'b`.
        let bytes = unsafe { self.source.tagged(packet.bytes, tag) };
        let orig_len = packet.len.saturating_add(4);
        Some(RawPacket { stamp, second: None, sequence: None, filter: 0, bytes, orig_len })
    }
}

impl PacketSource {
    /// A packet with its tag (tpid, tci) put back.
    ///
    /// # Safety
    /// The [`Block`] in hand must not be dropped before the slice.
    unsafe fn tagged<'b>(&mut self, packet: &[u8], (tpid, tci): (u16, u16)) -> &'b [u8] {
        let (macs, rest) = packet.split_at(packet.len().min(MACS));
        let mut tagged = self.spare.pop().unwrap_or_default();
        tagged.clear();
        tagged.extend_from_slice(macs);
        tagged.extend_from_slice(&tpid.to_be_bytes());
        tagged.extend_from_slice(&tci.to_be_bytes());
        tagged.extend_from_slice(rest);
        // SAFETY: the bytes are a vector's, which is neither written nor freed nor grown before the block is
        // dropped: it stands in `tagged`, which only that drop empties. Moving it moves no byte.
        let bytes = unsafe { std::slice::from_raw_parts(tagged.as_ptr(), tagged.len()) };
        self.tagged.push(tagged);
        bytes
    }
}

impl Drop for Block<'_> {
    fn drop(&mut self) {
        if self.source.place.is_some_and(|place| place.left == 0) {
            self.source.give_back();
        }
        let PacketSource { tagged, spare, .. } = &mut *self.source;
        spare.append(tagged);
    }
}

/// A packet as its header in the block describes it.
struct Parsed<'a> {
    utc_ns: u64,
    len: u32,
    bytes: &'a [u8],
    /// (tpid, tci) of a tag the kernel took out.
    tag: Option<(u16, u16)>,
}

fn parse(header: &[u8]) -> Option<Parsed<'_>> {
    let start = usize::from(half(header, MAC)?);
    let kept = usize::try_from(word(header, SNAPLEN)?).ok()?;
    let status = word(header, STATUS)?;
    let tag = if status & TP_STATUS_VLAN_VALID == 0 {
        None
    } else {
        let tpid =
            if status & TP_STATUS_VLAN_TPID_VALID == 0 { ETHERTYPE_VLAN } else { half(header, VLAN_TPID)? };
        Some((tpid, u16::try_from(word(header, VLAN_TCI)? & 0xffff).ok()?))
    };
    Some(Parsed {
        utc_ns: u64::from(word(header, SEC)?) * NANOS_PER_SEC + u64::from(word(header, NSEC)?),
        len: word(header, LEN)?,
        bytes: header.get(start..start.checked_add(kept)?)?,
        tag,
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

fn half(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.get(at..)?.first_chunk()?))
}

impl Source for PacketSource {
    type Batch<'a> = Block<'a>;

    fn peek(&mut self, max: u32) -> Block<'_> {
        let mut place = self.place();
        // A block without packets is possible: the retire timer ran on an empty one.
        if place.is_some_and(|place| place.left == 0) {
            self.give_back();
            place = self.place();
        }
        let left = place.map_or(0, |place| place.left.min(max));
        Block { source: self, left }
    }

    fn waiting_percent(&self) -> u32 {
        // The kernel keeps one to fill; without one it drops.
        let most = self.ring.blocks.saturating_sub(1).max(1);
        u32::try_from(self.ring.waiting() * 100 / most).unwrap_or(100).min(100)
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        crate::sys::poll::readable(self.fd.as_fd(), timeout)
    }

    fn stats(&mut self) -> io::Result<SourceStats> {
        // Reading resets the kernel's counters.
        let now: KernelStats = sockopt::get(
            self.fd.as_fd(),
            libc::SOL_PACKET,
            libc::PACKET_STATISTICS,
            size_of::<KernelStats>(),
        )?;
        self.stats.seen += u64::from(now.packets);
        self.stats.ring_full += u64::from(now.drops);
        Ok(self.stats)
    }
}
