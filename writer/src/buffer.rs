//! Aligned memory, allocated once: frame buffers of a worker and write buffers of a stage.
//!
//! A [`Buf`] is written by one owner and read at the same time through any number of [`View`]s, which
//! see only what has been published. That is how the journal covers a frame that is still being
//! filled, and how a write is in flight from a buffer whose rest is still being filled, without a copy.
//! The memory returns to its pool when the last of them is dropped.
//!
//! All buffers of a pool are one [`Arena`], which lives as long as any of them: who tells the kernel of its memory
//! beforehand ([`Arena::places`]) holds it meanwhile.
//!
//! Must never: hand out a byte before it is published, take published bytes back while a view lives.

#![expect(unsafe_code, reason = "one memory, one writer, many readers of the finished prefix")]

use crossbeam_channel::{Receiver, Sender, bounded};
use std::alloc::{Layout, alloc, dealloc, handle_alloc_error};
use std::cell::RefCell;
use std::fmt;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// Alignment that satisfies O_DIRECT on every block device with sectors up to 4 KiB, bytes.
pub(crate) const ALIGN_BYTES: usize = 4096;

/// One allocation. Unique: whoever holds the value may free it.
#[derive(Debug)]
struct Block {
    ptr: NonNull<u8>,
    layout: Layout,
}

// SAFETY: the pointer is the only one to memory no thread is tied to; access goes through `Lease`.
unsafe impl Send for Block {}
// SAFETY: a shared `Block` offers no access by itself; `Buf` and `View` keep writer and readers apart.
unsafe impl Sync for Block {}

impl Block {
    /// So many of one size, in large pages where the kernel has them. Zeroed and touched, so that no page fault is left
    /// for the hot path.
    fn several(count: usize, size_bytes: usize, align: usize) -> Option<Vec<Self>> {
        let layout = Layout::from_size_align(size_bytes.max(1), align).ok()?;
        let one = |_| {
            // SAFETY: `alloc` wants a layout of non-zero size; `max(1)` above.
            let raw = unsafe { alloc(layout) };
            let Some(ptr) = NonNull::new(raw) else { handle_alloc_error(layout) };
            Self { ptr, layout }
        };
        let all: Vec<Self> = (0..count).map(one).collect();
        let place = |block: &Self| block.ptr.as_ptr().addr()..block.ptr.as_ptr().addr() + layout.size();
        crate::sys::prefer_huge_pages(&all.iter().map(place).collect::<Vec<_>>());
        for block in &all {
            // SAFETY: `ptr` is valid for `layout.size()` bytes of writes: allocated above with that layout.
            unsafe { block.ptr.as_ptr().write_bytes(0, layout.size()) };
        }
        Some(all)
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        // SAFETY: `ptr` came from `alloc` with this very layout and is freed once, by its unique owner.
        unsafe { dealloc(self.ptr.as_ptr(), self.layout) };
    }
}

/// The memory of some buffers. Freed when nobody holds it any more, nor one of its buffers.
#[derive(Debug)]
pub(crate) struct Arena {
    blocks: Vec<Block>,
}

impl Arena {
    /// Where its buffers lie and how many bytes each has, in the order of their numbers. To be read and written only
    /// through buffers and views.
    pub(crate) fn places(&self) -> impl Iterator<Item = (NonNull<u8>, usize)> {
        self.blocks.iter().map(|block| (block.ptr, block.layout.size()))
    }
}

/// One block of an arena. Unique: there is one for each block, made with the arena.
#[derive(Debug)]
struct Memory {
    arena: Arc<Arena>,
    number: usize,
}

impl Memory {
    /// Those of a new arena.
    fn several(count: usize, size_bytes: usize, align: usize) -> Option<(Arc<Arena>, Vec<Self>)> {
        let arena = Arc::new(Arena { blocks: Block::several(count, size_bytes, align)? });
        let of = |number| Self { arena: Arc::clone(&arena), number };
        let all = (0..arena.blocks.len()).map(of).collect();
        Some((arena, all))
    }

    fn block(&self) -> Option<&Block> {
        self.arena.blocks.get(self.number)
    }
}

/// Memory on loan from a pool; the last holder's drop gives it back.
struct Lease {
    memory: Option<Memory>,
    /// Bytes that are final. Stored with Release by the `Buf`, loaded with Acquire by every `View`.
    published: AtomicUsize,
    home: Option<Sender<Memory>>,
}

impl Lease {
    fn ptr(&self) -> NonNull<u8> {
        self.block().map_or(NonNull::dangling(), |block| block.ptr)
    }

    fn capacity(&self) -> usize {
        self.block().map_or(0, |block| block.layout.size())
    }

    fn block(&self) -> Option<&Block> {
        self.memory.as_ref().and_then(Memory::block)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if let (Some(memory), Some(home)) = (self.memory.take(), self.home.as_ref()) {
            // A pool that is gone wants nothing back: the error drops, and so frees, the memory.
            let _ = home.try_send(memory);
        }
    }
}

/// The writing end of a buffer: the only one that can change its bytes.
pub(crate) struct Buf {
    lease: Arc<Lease>,
    len: usize,
}

impl Buf {
    /// A buffer outside any pool, for the rare packet that is larger than a frame. `None` if `size_bytes`
    /// cannot be laid out.
    #[must_use]
    pub(crate) fn single(size_bytes: usize) -> Option<Self> {
        let (_, mut memory) = Memory::several(1, size_bytes, ALIGN_BYTES)?;
        Some(Self::from_memory(memory.pop()?, None))
    }

    fn from_memory(memory: Memory, home: Option<Sender<Memory>>) -> Self {
        Self { lease: Arc::new(Lease { memory: Some(memory), published: AtomicUsize::new(0), home }), len: 0 }
    }

    /// Bytes published so far.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.len
    }

    /// Bytes the buffer holds in all.
    #[must_use]
    pub(crate) fn capacity(&self) -> usize {
        self.lease.capacity()
    }

    /// What is still free. Write here, then [`Buf::publish`].
    pub(crate) fn spare(&mut self) -> &mut [u8] {
        let free = self.lease.capacity() - self.len;
        // SAFETY: `ptr + len .. ptr + capacity` lies in one live allocation, initialised by
        // `Block::several`. No view reaches it: views end at `published`, which is `len`. `&mut self` on
        // the only `Buf` of the lease makes this the only reference to the range.
        unsafe { std::slice::from_raw_parts_mut(self.lease.ptr().as_ptr().add(self.len), free) }
    }

    /// Makes the first `count` bytes of [`Buf::spare`] final and visible to views; more than there is
    /// counts as all of it.
    pub(crate) fn publish(&mut self, count: usize) {
        self.len = self.len.saturating_add(count).min(self.lease.capacity());
        // Release: pairs with the Acquire in `View::bytes`, so the bytes are seen before the length.
        self.lease.published.store(self.len, Ordering::Release);
    }

    /// Appends as much of `bytes` as fits and publishes it; returns how much that was.
    pub(crate) fn fill(&mut self, bytes: &[u8]) -> usize {
        self.fill_with(bytes, <[u8]>::copy_from_slice)
    }

    /// As [`Buf::fill`], past the caches: for bytes that only a device will read, so that they drive nothing out.
    pub(crate) fn fill_past_caches(&mut self, bytes: &[u8]) -> usize {
        self.fill_with(bytes, copy_past_caches)
    }

    fn fill_with(&mut self, bytes: &[u8], copy: impl Fn(&mut [u8], &[u8])) -> usize {
        let spare = self.spare();
        let count = bytes.len().min(spare.len());
        for (to, from) in spare.chunks_mut(count.max(1)).zip(bytes.chunks(count.max(1))).take(1) {
            copy(to, from);
        }
        self.publish(count);
        count
    }

    /// The published bytes.
    #[must_use]
    pub(crate) fn bytes(&self) -> &[u8] {
        // SAFETY: the range lies in one live, initialised allocation; published bytes are never written
        // again while the lease lives (`spare` begins at `len`).
        unsafe { std::slice::from_raw_parts(self.lease.ptr().as_ptr(), self.len) }
    }

    /// A reader of this buffer; grows with it.
    #[must_use]
    pub(crate) fn view(&self) -> View {
        View { lease: Arc::clone(&self.lease) }
    }
}

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// Copies `from` to `to`, which is as long, without leaving whole lines of `to` in a cache: they are written at once, and
/// need not be read from memory before.
#[cfg(target_arch = "x86_64")]
fn copy_past_caches(to: &mut [u8], from: &[u8]) {
    use std::arch::x86_64::{__m128i, _mm_loadu_si128, _mm_sfence, _mm_stream_si128};
    let before = to.as_ptr().align_offset(LINE_BYTES);
    if to.len() != from.len() || to.len() < before + LINE_BYTES {
        return to.copy_from_slice(from);
    }
    let ((to_before, to), (from_before, from)) = (to.split_at_mut(before), from.split_at(before));
    to_before.copy_from_slice(from_before);
    let mut lines = to.chunks_exact_mut(LINE_BYTES);
    let mut from_lines = from.chunks_exact(LINE_BYTES);
    for (to, from) in lines.by_ref().zip(from_lines.by_ref()) {
        let (to, from) = (to.as_mut_ptr().cast::<__m128i>(), from.as_ptr().cast::<__m128i>());
        // SAFETY: both are 64 bytes, four vectors of 16, and `to` is aligned to 64: `before` bytes behind the start,
        // and whole lines on. Every x86-64 has SSE2.
        unsafe {
            for at in 0..LINE_BYTES / size_of::<__m128i>() {
                _mm_stream_si128(to.add(at), _mm_loadu_si128(from.add(at)));
            }
        }
    }
    lines.into_remainder().copy_from_slice(from_lines.remainder());
    // SAFETY: no precondition. Such stores are not ordered with others: what publishes these bytes must come behind them.
    unsafe { _mm_sfence() };
}

/// Other processors: an ordinary copy.
#[cfg(not(target_arch = "x86_64"))]
fn copy_past_caches(to: &mut [u8], from: &[u8]) {
    to.copy_from_slice(from);
}

impl fmt::Debug for Buf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Buf({} of {} bytes)", self.len, self.capacity())
    }
}

/// A reading end of a buffer: sees what has been published, keeps the memory alive.
#[derive(Clone)]
pub(crate) struct View {
    lease: Arc<Lease>,
}

impl View {
    /// The bytes published by now.
    #[must_use]
    pub(crate) fn bytes(&self) -> &[u8] {
        // Acquire: pairs with the Release in `Buf::publish`.
        let len = self.lease.published.load(Ordering::Acquire);
        // SAFETY: the range lies in one live, initialised allocation; published bytes are final until
        // the lease is dropped, and this view holds the lease.
        unsafe { std::slice::from_raw_parts(self.lease.ptr().as_ptr(), len) }
    }

    /// The number of its buffer, if that is one of `arena`.
    #[must_use]
    pub(crate) fn number_in(&self, arena: &Arc<Arena>) -> Option<usize> {
        let memory = self.lease.memory.as_ref()?;
        Arc::ptr_eq(&memory.arena, arena).then_some(memory.number)
    }
}

impl fmt::Debug for View {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "View({} bytes)", self.bytes().len())
    }
}

/// A fixed number of equal buffers, allocated at once. The one that came back last goes out first: most of it is still
/// in a cache.
#[derive(Debug)]
pub(crate) struct Pool {
    arena: Arc<Arena>,
    free: Receiver<Memory>,
    ready: RefCell<Vec<Memory>>,
    home: Sender<Memory>,
}

impl Pool {
    /// `count` buffers (at least one) of `size_bytes`, aligned to `align` (a power of two, at least
    /// [`ALIGN_BYTES`] is used). `None` if that cannot be laid out.
    #[must_use]
    pub(crate) fn new(count: usize, size_bytes: usize, align: usize) -> Option<Self> {
        let (home, free) = bounded(count.max(1));
        let (arena, all) = Memory::several(count.max(1), size_bytes, align.max(ALIGN_BYTES))?;
        for memory in all {
            home.try_send(memory).ok()?;
        }
        Some(Self { arena, free, ready: RefCell::new(Vec::with_capacity(count.max(1))), home })
    }

    /// The memory of its buffers.
    #[must_use]
    pub(crate) fn arena(&self) -> &Arc<Arena> {
        &self.arena
    }

    /// A free buffer; `None` if all are in use. Never blocks.
    #[must_use]
    pub(crate) fn try_take(&self) -> Option<Buf> {
        let mut ready = self.ready.borrow_mut();
        ready.extend(self.free.try_iter());
        let memory = ready.pop()?;
        Some(Buf::from_memory(memory, Some(self.home.clone())))
    }

    /// Buffers that lie ready.
    #[cfg(test)]
    #[must_use]
    pub(crate) fn free(&self) -> usize {
        self.free.len() + self.ready.borrow().len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_are_aligned_and_come_back() {
        let pool = Pool::new(2, 10_000, 4096).unwrap();
        let first = pool.try_take().unwrap();
        let second = pool.try_take().unwrap();
        assert!(pool.try_take().is_none());
        assert_eq!(first.lease.ptr().as_ptr() as usize % 4096, 0);
        let view = first.view();
        drop(first);
        assert!(pool.try_take().is_none(), "a view keeps the memory away from the pool");
        drop(view);
        drop(second);
        assert_eq!(pool.free(), 2);
    }

    #[test]
    fn a_view_sees_what_is_published_and_no_more() {
        let mut buf = Buf::single(8).unwrap();
        let view = buf.view();
        buf.spare()[..4].copy_from_slice(b"abcd");
        assert_eq!(view.bytes(), b"");
        buf.publish(3);
        assert_eq!(view.bytes(), b"abc");
        assert_eq!(buf.fill(b"DEFGHI"), 5);
        assert_eq!(view.bytes(), b"abcDEFGH");
        assert_eq!(buf.fill(b"x"), 0);
        assert_eq!(buf.bytes(), view.bytes());
    }

    #[test]
    fn a_copy_past_the_caches_is_a_copy() {
        let bytes: Vec<u8> = (0..1000).map(|n| u8::try_from(n % 251).unwrap()).collect();
        for (start, len) in
            (0..70).flat_map(|start| [0, 1, 63, 64, 65, 127, 200, 930].map(|len| (start, len)))
        {
            let mut buf = Buf::single(1000).unwrap();
            buf.fill(&[1; 70][..start]);
            assert_eq!(buf.fill_past_caches(&bytes[70..70 + len]), len);
            assert_eq!(buf.bytes()[start..], bytes[70..70 + len], "{start} {len}");
            assert!(buf.spare().iter().all(|byte| *byte == 0), "{start} {len}");
        }
        let mut buf = Buf::single(100).unwrap();
        assert_eq!((buf.fill_past_caches(&bytes), buf.bytes()), (100, &bytes[..100]));
    }

    #[test]
    fn a_reader_on_another_thread_never_sees_an_unfinished_byte() {
        let mut buf = Buf::single(100_000).unwrap();
        let view = buf.view();
        let reader = std::thread::spawn(move || {
            let mut seen = 0;
            while seen < 100_000 {
                let bytes = view.bytes();
                assert!(bytes[seen..].iter().all(|b| *b == 7));
                seen = bytes.len();
            }
        });
        while !buf.spare().is_empty() {
            let count = buf.spare().len().min(37);
            buf.spare()[..count].fill(7);
            buf.publish(count);
        }
        reader.join().unwrap();
    }

    #[test]
    fn a_buffer_is_of_one_arena_and_has_its_number_there() {
        let (pool, other) = (Pool::new(3, 4096, 4096).unwrap(), Pool::new(3, 4096, 4096).unwrap());
        let bufs: Vec<Buf> = (0..3).map(|_| pool.try_take().unwrap()).collect();
        for buf in &bufs {
            let number = buf.view().number_in(pool.arena()).unwrap();
            assert_eq!(pool.arena().places().nth(number), Some((buf.lease.ptr(), 4096)));
            assert_eq!(buf.view().number_in(other.arena()), None);
        }
        assert_eq!(Buf::single(4096).unwrap().view().number_in(pool.arena()), None);
    }

    #[test]
    fn memory_outlives_its_pool() {
        let pool = Pool::new(1, 64, 64).unwrap();
        let mut buf = pool.try_take().unwrap();
        drop(pool);
        assert_eq!(buf.fill(b"still here"), 10);
    }
}
