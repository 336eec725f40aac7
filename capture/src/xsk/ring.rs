//! The single-producer single-consumer rings shared with the kernel (net/xdp/xsk_queue.h).
//!
//! Indices run freely over u32 and wrap: they are only ever added, subtracted and masked, never
//! compared. Each side stores its own index with Release and loads the other's with Acquire; the
//! partners are named at each access. Nothing here may panic on what the kernel has written.

use crate::sys::mapping::Mapping;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// A received packet, or a piece of one (`struct xdp_desc`).
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Desc {
    pub(super) addr: u64,
    pub(super) len: u32,
    pub(super) options: u32,
}

/// Where a ring's parts lie in its mapping (`struct xdp_ring_offset`).
#[derive(Clone, Copy, Debug)]
pub(super) struct Layout {
    pub(super) producer: usize,
    pub(super) consumer: usize,
    pub(super) flags: usize,
    pub(super) entries: usize,
}

/// A mapped ring of `T`.
#[derive(Debug)]
struct Shared<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    flags: NonNull<AtomicU32>,
    entries: NonNull<T>,
    mask: u32,
    _mapping: Mapping,
}

// SAFETY: the pointers lead into the mapping that the value owns; indices and flags are atomics, and
// entries are reached only through `RxRing` and `FillRing`, which need `&mut`.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above; `&Shared` reaches only the atomics.
unsafe impl<T: Send> Sync for Shared<T> {}

impl<T: Copy> Shared<T> {
    /// A ring of `size` entries; `None` unless `size` is a power of two and everything lies, aligned,
    /// inside the mapping.
    fn new(mapping: Mapping, layout: Layout, size: u32) -> Option<Self> {
        if !size.is_power_of_two() {
            return None;
        }
        let part = |offset: usize, len: usize, align: usize| {
            let fits = offset.checked_add(len)? <= mapping.len() && offset.is_multiple_of(align);
            // SAFETY: the offset lies inside the mapping, as just checked.
            fits.then(|| unsafe { mapping.base().add(offset) })
        };
        let index =
            |offset| Some(part(offset, size_of::<u32>(), align_of::<AtomicU32>())?.cast::<AtomicU32>());
        Some(Self {
            producer: index(layout.producer)?,
            consumer: index(layout.consumer)?,
            flags: index(layout.flags)?,
            entries: part(layout.entries, size_of::<T>().checked_mul(size as usize)?, align_of::<T>())?
                .cast(),
            mask: size - 1,
            _mapping: mapping,
        })
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: `new` has checked place and alignment; the mapping lives as long as `self`; the kernel
        // touches the word only with atomic loads and stores (smp_load_acquire, smp_store_release).
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`.
        unsafe { self.consumer.as_ref() }
    }

    fn flags(&self) -> &AtomicU32 {
        // SAFETY: as for `producer`; the kernel writes the flags with WRITE_ONCE.
        unsafe { self.flags.as_ref() }
    }

    fn entry(&self, index: u32) -> NonNull<T> {
        // SAFETY: the masked index is below the size whose bytes `new` found inside the mapping.
        unsafe { self.entries.add((index & self.mask) as usize) }
    }
}

impl Shared<Desc> {
    /// Entries the kernel has put in and the worker has not given back.
    fn backlog(&self) -> u32 {
        // Acquire on our own consumer first: partner is the Release in `RxRing::release`, so the
        // producer read after it is never behind.
        let consumer = self.consumer().load(Ordering::Acquire);
        // Acquire: partner is xskq_prod_submit, as in `RxRing::available`.
        self.producer().load(Ordering::Acquire).wrapping_sub(consumer)
    }
}

/// The RX ring: the kernel produces, we consume.
#[derive(Debug)]
pub(super) struct RxRing {
    shared: Arc<Shared<Desc>>,
    /// What we last saw of the kernel's index.
    producer: u32,
    /// Our index; entries up to here are read.
    consumer: u32,
}

impl RxRing {
    /// `None` when the layout does not fit the mapping.
    pub(super) fn new(mapping: Mapping, layout: Layout, size: u32) -> Option<Self> {
        let shared = Shared::new(mapping, layout, size)?;
        // Relaxed: nobody but us writes the consumer index, and the producer is read anew before use.
        let consumer = shared.consumer().load(Ordering::Relaxed);
        Some(Self { shared: Arc::new(shared), producer: consumer, consumer })
    }

    /// Entries ready to be read, at most `max`.
    pub(super) fn available(&mut self, max: u32) -> u32 {
        let size = self.shared.mask.wrapping_add(1);
        if self.producer.wrapping_sub(self.consumer) < max {
            // Acquire: partner is the smp_store_release of the producer in xskq_prod_submit
            // (net/xdp/xsk_queue.h): the descriptors and packet bytes behind it are visible.
            self.producer = self.shared.producer().load(Ordering::Acquire);
        }
        self.producer.wrapping_sub(self.consumer).min(max).min(size)
    }

    /// Entries that wait, percent of all.
    pub(super) fn waiting_percent(&self) -> u32 {
        let size = self.shared.mask.wrapping_add(1);
        u32::try_from(u64::from(self.shared.backlog().min(size)) * 100 / u64::from(size.max(1)))
            .unwrap_or(100)
    }

    /// The entry `offset` behind the consumer; `offset` must be below what [`RxRing::available`] said.
    pub(super) fn read(&self, offset: u32) -> Desc {
        debug_assert!(offset < self.producer.wrapping_sub(self.consumer), "read beyond the producer");
        let entry = self.shared.entry(self.consumer.wrapping_add(offset));
        // SAFETY: the entry lies in the ring. Volatile, so that a kernel that writes where it must not
        // gives a wrong value, which is checked, and no undefined behaviour.
        unsafe { entry.as_ptr().read_volatile() }
    }

    /// Gives `count` entries back to the kernel.
    pub(super) fn release(&mut self, count: u32) {
        self.consumer = self.consumer.wrapping_add(count);
        // Release: partner is the smp_load_acquire of the consumer in __xskq_prod_... xskq_prod_nb_free
        // (net/xdp/xsk_queue.h): our reads are done before the kernel may write the entries again.
        self.shared.consumer().store(self.consumer, Ordering::Release);
    }

    /// A view of the fill level for other threads.
    pub(super) fn gauge(&self) -> Gauge {
        Gauge(Arc::clone(&self.shared))
    }
}

/// How many entries wait in an RX ring, readable from any thread. Packets in several pieces count once
/// per piece.
#[derive(Clone, Debug)]
pub struct Gauge(Arc<Shared<Desc>>);

impl Gauge {
    /// Entries the kernel has put in and the worker has not given back.
    #[must_use]
    pub fn backlog(&self) -> u32 {
        self.0.backlog()
    }
}

/// The fill ring: we produce chunk addresses, the kernel consumes them.
#[derive(Debug)]
pub(super) struct FillRing {
    shared: Shared<u64>,
    /// Our index; entries up to here are written, perhaps not yet published.
    producer: u32,
    /// What we last saw of the kernel's index.
    consumer: u32,
}

impl FillRing {
    /// `None` when the layout does not fit the mapping.
    pub(super) fn new(mapping: Mapping, layout: Layout, size: u32) -> Option<Self> {
        let shared = Shared::new(mapping, layout, size)?;
        // Relaxed: nobody but us writes the producer index, and the consumer is read anew before use.
        let producer = shared.producer().load(Ordering::Relaxed);
        Some(Self { shared, producer, consumer: producer.wrapping_sub(size) })
    }

    /// Writes a chunk's address; the kernel sees it after [`FillRing::publish`]. False when the ring is
    /// full, which cannot be while it has room for every chunk of its UMEM.
    pub(super) fn push(&mut self, addr: u64) -> bool {
        if self.producer.wrapping_sub(self.consumer) > self.shared.mask {
            // Acquire: partner is the smp_store_release of the consumer in __xskq_cons_release
            // (net/xdp/xsk_queue.h): the kernel has read the entries that we overwrite.
            self.consumer = self.shared.consumer().load(Ordering::Acquire);
            if self.producer.wrapping_sub(self.consumer) > self.shared.mask {
                return false;
            }
        }
        // SAFETY: the entry lies in the ring, and the kernel does not read it: it is beyond the
        // published producer, and its former value has been consumed, as just checked.
        unsafe { self.shared.entry(self.producer).as_ptr().write_volatile(addr) };
        self.producer = self.producer.wrapping_add(1);
        true
    }

    /// Makes everything pushed so far visible to the kernel.
    pub(super) fn publish(&mut self) {
        // Release: partner is the smp_load_acquire of the producer in __xskq_cons_peek
        // (net/xdp/xsk_queue.h): addresses, and our last reads of the chunks, come before it.
        self.shared.producer().store(self.producer, Ordering::Release);
    }

    /// True when the driver waits for a system call before it takes from the ring again.
    pub(super) fn needs_wakeup(&self) -> bool {
        // Relaxed: a flag without data behind it; partner is xsk_set_rx_need_wakeup (net/xdp/xsk.c).
        self.shared.flags().load(Ordering::Relaxed) & libc::XDP_RING_NEED_WAKEUP != 0
    }
}

#[cfg(test)]
#[path = "ring_tests.rs"]
mod tests;
