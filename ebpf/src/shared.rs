//! The Rust mirror of `shared.h`: what lies in the maps and in front of each packet.
//!
//! Records are read field by field from bytes, so a caller needs no `unsafe`; the structs exist for
//! their sizes and offsets, which are asserted here and in the header. It must never guess: bytes of
//! another length or another magic give `None`.

use std::collections::BTreeMap;
use std::mem::{offset_of, size_of};

/// Version of every shared record; a change of any of them raises it.
pub const LAYOUT: u32 = 4;
/// Queues with a counter row and an XSKMAP slot; row [`QUEUES_MAX`] counts whatever lies beyond.
pub const QUEUES_MAX: u32 = 64;
/// Seconds a counter row remembers.
pub const SECONDS: usize = 64;
/// First word of the metadata.
pub const MAGIC: u32 = 0x3150_4454;
/// The metadata lies in the XDP metadata area, before the packet.
pub const FLAG_META: u16 = 1;
/// The metadata was put in front of the packet's bytes and counts in the descriptor's length.
pub const FLAG_HEAD: u16 = 2;
/// The time is the card's, brought to CLOCK_MONOTONIC.
pub const FLAG_CARD: u16 = 4;
/// A card's stamp is believed up to this long before the program's look at the packet, nanoseconds: stamps of one queue
/// may go back so far where card and program take turns.
pub const CARD_BEHIND_NS: u64 = 50_000_000;
/// And up to this long behind it, nanoseconds: a sample of the card's clock must not be wronger.
pub const CARD_AHEAD_NS: u64 = 20_000;
/// Bytes of the metadata.
pub const META_LEN: usize = size_of::<Meta>();

/// `struct td_meta`: what the program writes before each packet it redirects.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Meta {
    /// [`MAGIC`].
    pub magic: u32,
    /// [`FLAG_META`] or [`FLAG_HEAD`], and [`FLAG_CARD`]; in the upper byte the filter's generation.
    pub flags: u16,
    /// Queue the packet arrived on.
    pub queue: u16,
    /// Counts the redirects that were tried on this queue.
    pub sequence: u64,
    /// CLOCK_MONOTONIC, nanoseconds, when the program saw the packet, or the card did.
    pub ktime_ns: u64,
    /// UTC second the program counted the packet in.
    pub second: u32,
    /// Bytes on the wire.
    pub length: u32,
}

impl Meta {
    /// Reads the record; `None` unless there are [`META_LEN`] bytes that begin with [`MAGIC`].
    #[inline]
    #[must_use]
    pub fn read(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; META_LEN] = bytes.try_into().ok()?;
        let magic = u32::from_ne_bytes(field(bytes, 0)?);
        if magic != MAGIC {
            return None;
        }
        Some(Self {
            magic,
            flags: u16::from_ne_bytes(field(bytes, 4)?),
            queue: u16::from_ne_bytes(field(bytes, 6)?),
            sequence: u64::from_ne_bytes(field(bytes, 8)?),
            ktime_ns: u64::from_ne_bytes(field(bytes, 16)?),
            second: u32::from_ne_bytes(field(bytes, 24)?),
            length: u32::from_ne_bytes(field(bytes, 28)?),
        })
    }

    /// Where the record lies: [`FLAG_META`] or [`FLAG_HEAD`], without what else the flags say.
    #[inline]
    #[must_use]
    pub fn place(&self) -> u16 {
        self.flags & (FLAG_META | FLAG_HEAD)
    }

    /// The time is the card's.
    #[inline]
    #[must_use]
    pub fn by_card(&self) -> bool {
        self.flags & FLAG_CARD != 0
    }

    /// Generation of the filter that let the packet through, modulo 256; 0 before the first one.
    #[inline]
    #[must_use]
    pub fn filter_generation(&self) -> u8 {
        let [_, high] = self.flags.to_le_bytes();
        high
    }
}

/// Why the kernel refused a redirect; the index into [`Counts::refused`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum Refusal {
    /// ENOBUFS: the RX ring was full.
    RingFull = 0,
    /// ENOMEM: the fill ring was empty.
    FillEmpty = 1,
    /// ENOSPC: longer than a chunk, and the socket takes no fragments.
    Oversize = 2,
    /// ENXIO: the socket was not bound.
    Unbound = 3,
    /// EINVAL: the socket belongs to another queue or device.
    WrongQueue = 4,
    /// Any other errno.
    Other = 5,
}

/// Number of [`Refusal`]s.
pub const REFUSALS: usize = 6;

/// `struct td_counts`: what happened to the packets of a queue, summed over the CPUs.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Packets the program saw.
    pub packets: u64,
    /// Their bytes.
    pub bytes: u64,
    /// No socket in the queue's slot: passed on to the stack.
    pub slot_empty: u64,
    /// The metadata could not be written: passed on to the stack.
    pub failed: u64,
    /// Redirects the kernel refused, by [`Refusal`].
    pub refused: [u64; REFUSALS],
    /// Left out by the filter: passed on to the stack.
    pub filtered: u64,
}

impl Counts {
    /// Redirects refused for this reason.
    #[must_use]
    pub fn refused(&self, why: Refusal) -> u64 {
        self.refused.get(why as usize).copied().unwrap_or(0)
    }

    /// Packets that reached the socket's ring: everything without a reason not to.
    #[must_use]
    pub fn delivered(&self) -> u64 {
        let lost = self.slot_empty.saturating_add(self.failed).saturating_add(self.filtered);
        let lost = self.refused.iter().fold(lost, |sum, n| sum.saturating_add(*n));
        self.packets.saturating_sub(lost)
    }

    /// Name and offset of each number, for those who read rows of another build.
    pub(crate) const FIELDS: [(&str, usize); 5 + REFUSALS] = [
        ("packets", 0),
        ("bytes", 8),
        ("slot_empty", 16),
        ("failed", 24),
        ("ring_full", 32),
        ("fill_empty", 40),
        ("oversize", 48),
        ("unbound", 56),
        ("wrong_queue", 64),
        ("other", 72),
        ("filtered", 80),
    ];

    /// The same by name.
    #[must_use]
    pub fn tally(&self) -> BTreeMap<String, u64> {
        let [ring_full, fill_empty, oversize, unbound, wrong_queue, other] = self.refused;
        let Self { packets, bytes, slot_empty, failed, filtered, .. } = *self;
        let numbers = [
            packets,
            bytes,
            slot_empty,
            failed,
            ring_full,
            fill_empty,
            oversize,
            unbound,
            wrong_queue,
            other,
            filtered,
        ];
        Self::FIELDS.iter().zip(numbers).map(|((name, _), number)| ((*name).to_owned(), number)).collect()
    }

    /// What came since `before`.
    pub(crate) fn since(&self, before: &Self) -> Self {
        let mut refused = self.refused;
        for (mine, theirs) in refused.iter_mut().zip(before.refused) {
            *mine = mine.saturating_sub(theirs);
        }
        Self {
            packets: self.packets.saturating_sub(before.packets),
            bytes: self.bytes.saturating_sub(before.bytes),
            slot_empty: self.slot_empty.saturating_sub(before.slot_empty),
            failed: self.failed.saturating_sub(before.failed),
            refused,
            filtered: self.filtered.saturating_sub(before.filtered),
        }
    }

    /// Adds another CPU's counts.
    pub(crate) fn add(&mut self, other: &Self) {
        self.packets = self.packets.wrapping_add(other.packets);
        self.bytes = self.bytes.wrapping_add(other.bytes);
        self.slot_empty = self.slot_empty.wrapping_add(other.slot_empty);
        self.failed = self.failed.wrapping_add(other.failed);
        for (mine, theirs) in self.refused.iter_mut().zip(other.refused) {
            *mine = mine.wrapping_add(theirs);
        }
        self.filtered = self.filtered.wrapping_add(other.filtered);
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        let mut refused = [0; REFUSALS];
        for (index, slot) in refused.iter_mut().enumerate() {
            *slot = u64::from_ne_bytes(field(bytes, 32 + 8 * index)?);
        }
        Some(Self {
            packets: u64::from_ne_bytes(field(bytes, 0)?),
            bytes: u64::from_ne_bytes(field(bytes, 8)?),
            slot_empty: u64::from_ne_bytes(field(bytes, 16)?),
            failed: u64::from_ne_bytes(field(bytes, 24)?),
            refused,
            filtered: u64::from_ne_bytes(field(bytes, offset_of!(Self, filtered))?),
        })
    }
}

/// `struct td_second`: the counts of one UTC second.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Second {
    /// Seconds since the epoch; 0 = the slot was never used.
    pub second: u64,
    /// The counts.
    pub counts: Counts,
}

/// `struct td_queue` of one CPU.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueRow {
    /// UTC second of the packet that CPU handled last.
    pub second: u32,
    /// The slot it is counted in.
    pub slot: u32,
    /// Everything since the program was loaded.
    pub total: Counts,
    /// The last [`SECONDS`] seconds in which this CPU had packets. After the clock went back, one can stand in two slots.
    pub seconds: [Second; SECONDS],
}

impl QueueRow {
    /// Offset of the totals.
    pub(crate) const TOTAL: usize = offset_of!(Self, total);

    /// The totals of a row in the per-CPU map.
    pub(crate) fn read_total(bytes: &[u8]) -> Option<Counts> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        Counts::read(bytes.get(offset_of!(Self, total)..)?)
    }

    /// The slots in use of a row in the per-CPU map, by their numbers.
    pub(crate) fn read_seconds(bytes: &[u8]) -> Option<Vec<(u32, Second)>> {
        if bytes.len() != size_of::<Self>() {
            return None;
        }
        let slots = bytes.get(offset_of!(Self, seconds)..)?;
        let mut out = Vec::new();
        for (number, slot) in (0..).zip(slots.chunks_exact(size_of::<Second>())) {
            let second = u64::from_ne_bytes(field(slot, 0)?);
            if second != 0 {
                let counts = Counts::read(slot.get(offset_of!(Second, counts)..)?)?;
                out.push((number, Second { second, counts }));
            }
        }
        Some(out)
    }
}

/// Where the program counts: a second in a slot of a CPU. What is counted there only grows while it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Spot {
    /// UTC second.
    pub second: u64,
    /// CPU.
    pub cpu: u32,
    /// Slot of its row.
    pub slot: u32,
}

/// `struct td_control`: what the recorder tells the programs.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Control {
    pub(crate) utc_offset_ns: u64,
    pub(crate) xsks_id: u32,
    pub(crate) layout: u32,
    /// Slot of the card's clock in use, plus 1; 0 = the card is not asked.
    pub(crate) card: u32,
    pub(crate) unused: u32,
}

impl Control {
    pub(crate) fn bytes(self) -> Vec<u8> {
        let mut out = Vec::with_capacity(size_of::<Self>());
        out.extend_from_slice(&self.utc_offset_ns.to_ne_bytes());
        out.extend_from_slice(&self.xsks_id.to_ne_bytes());
        out.extend_from_slice(&self.layout.to_ne_bytes());
        out.extend_from_slice(&self.card.to_ne_bytes());
        out.extend_from_slice(&self.unused.to_ne_bytes());
        out
    }

    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            utc_offset_ns: u64::from_ne_bytes(field(bytes, 0)?),
            xsks_id: u32::from_ne_bytes(field(bytes, 8)?),
            layout: u32::from_ne_bytes(field(bytes, 12)?),
            // A program of an older layout has no such word; its layout says so.
            card: field(bytes, 16).map_or(0, u32::from_ne_bytes),
            unused: 0,
        })
    }
}

/// `struct td_card`: the clock of the card at one moment, and how it runs.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CardSample {
    /// The card's clock, nanoseconds.
    pub card_ns: u64,
    /// CLOCK_MONOTONIC at that moment, nanoseconds.
    pub ktime_ns: u64,
    /// 2^-30 ns that CLOCK_MONOTONIC gains on each nanosecond of the card.
    pub rate: i64,
}

impl CardSample {
    pub(crate) fn bytes(self) -> [u8; 24] {
        let mut out = [0; 24];
        let numbers = [self.card_ns, self.ktime_ns, self.rate.cast_unsigned()];
        for (to, number) in out.chunks_exact_mut(8).zip(numbers) {
            to.copy_from_slice(&number.to_ne_bytes());
        }
        out
    }
}

/// `struct td_card_counts`: who stamped the packets of an interface, since its program was loaded.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CardCounts {
    /// The card.
    pub stamped: u64,
    /// The program: the card gave no stamp, or its clock was not known.
    pub absent: u64,
    /// The program: the card's stamp could not be.
    pub refused: u64,
}

impl CardCounts {
    pub(crate) fn read(bytes: &[u8]) -> Option<Self> {
        Some(Self {
            stamped: u64::from_ne_bytes(field(bytes, 0)?),
            absent: u64::from_ne_bytes(field(bytes, 8)?),
            refused: u64::from_ne_bytes(field(bytes, 16)?),
        })
    }

    /// Adds another CPU's counts.
    pub(crate) fn add(&mut self, other: &Self) {
        self.stamped = self.stamped.wrapping_add(other.stamped);
        self.absent = self.absent.wrapping_add(other.absent);
        self.refused = self.refused.wrapping_add(other.refused);
    }

    /// What came since `before`.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            stamped: self.stamped.saturating_sub(before.stamped),
            absent: self.absent.saturating_sub(before.absent),
            refused: self.refused.saturating_sub(before.refused),
        }
    }
}

#[inline]
fn field<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

const _: () = {
    assert!(size_of::<Meta>() == 32);
    assert!(offset_of!(Meta, flags) == 4 && offset_of!(Meta, queue) == 6 && offset_of!(Meta, sequence) == 8);
    assert!(offset_of!(Meta, ktime_ns) == 16 && offset_of!(Meta, second) == 24);
    assert!(offset_of!(Meta, length) == 28);
    assert!(
        size_of::<Counts>() == 88 && offset_of!(Counts, refused) == 32 && offset_of!(Counts, filtered) == 80
    );
    assert!(size_of::<Second>() == 96 && offset_of!(Second, counts) == 8);
    assert!(size_of::<QueueRow>() == 8 + 88 + 64 * 96 && offset_of!(QueueRow, seconds) == 96);
    assert!(
        size_of::<Control>() == 24 && offset_of!(Control, xsks_id) == 8 && offset_of!(Control, card) == 16
    );
    assert!(size_of::<CardSample>() == 24 && offset_of!(CardSample, rate) == 16);
    assert!(size_of::<CardCounts>() == 24 && offset_of!(CardCounts, refused) == 16);
};
