//! The fast sink: io_uring and O_DIRECT, several writes in flight, no page cache.
//!
//! The memory of the write buffers is registered with the ring, so that the kernel looks its pages up once a file and
//! not once a write; what comes from elsewhere, or from a process that may lock no memory, is written the ordinary way.
//!
//! A piece stays in `flying` until its completion has been read: the kernel reads its memory until
//! then. Dropping the sink therefore waits for every write in flight *before* the ring is closed, and
//! if the ring cannot be waited for, leaks the buffers rather than give them back to the pool.
//!
//! Must never: be used from two threads (the ring is set up for one), drop a piece in flight.

#![expect(unsafe_code, reason = "pushing a submission promises the kernel memory that stays put")]

use super::{Durable, Piece, Preallocate, Prefix, Sink, SinkKind, WriteFailure};
use crate::buffer::Arena;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode};
use std::collections::VecDeque;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd as _;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

/// Writes in flight at most.
pub(crate) const DEPTH: u32 = 8;

/// A piece the kernel may still read, and how much of it has been written.
#[derive(Debug)]
struct Flying {
    id: u64,
    piece: Piece,
    done: usize,
    /// In the kernel's hands; false while it waits to be pushed again.
    submitted: bool,
}

/// Writes with io_uring into a file opened with O_DIRECT.
pub(crate) struct UringSink {
    // Field order is drop order: the ring goes first, then the memory its writes pointed to. `Drop`
    // has waited for those writes by then.
    ring: IoUring,
    /// What is registered with the ring, if it could be.
    registered: Option<Arc<Arena>>,
    flying: VecDeque<Flying>,
    file: Arc<File>,
    align: usize,
    next_id: u64,
    prefix: Prefix,
    preallocate: Preallocate,
    failure: Option<WriteFailure>,
}

/// A ring with the cheapest completion handling this kernel has.
///
/// # Errors
/// The last of the two attempts: io_uring is refused (ENOSYS, EPERM) or out of memory.
fn new_ring() -> io::Result<IoUring> {
    // Linux 6.1: completions are handled when we ask, on the one thread that submits.
    let modern =
        IoUring::builder().setup_single_issuer().setup_defer_taskrun().setup_taskrun_flag().build(DEPTH);
    modern.or_else(|_| IoUring::new(DEPTH))
}

/// Registers the memory of `arena` with the ring; returns what is to be held as long as the ring is open.
fn register(ring: &IoUring, arena: &Arc<Arena>) -> Option<Arc<Arena>> {
    let place =
        |(start, len): (NonNull<u8>, usize)| libc::iovec { iov_base: start.as_ptr().cast(), iov_len: len };
    let places: Vec<libc::iovec> = arena.places().map(place).collect();
    // SAFETY: `register_buffers` wants the memory valid until the ring is closed: the sink holds the arena, which owns
    // it, and drops it behind the ring.
    match unsafe { ring.submitter().register_buffers(&places) } {
        Ok(()) => Some(Arc::clone(arena)),
        Err(error) => {
            // ENOMEM: beyond RLIMIT_MEMLOCK.
            tracing::debug!(%error, "write buffers are not registered");
            None
        }
    }
}

impl UringSink {
    /// Whether this host lets us make a ring.
    ///
    /// # Errors
    /// What io_uring_setup said.
    pub(crate) fn probe() -> io::Result<()> {
        new_ring().map(drop)
    }

    /// A sink for the empty `file`, opened with O_DIRECT whose offsets and lengths must be multiples of
    /// `align` bytes; preallocates up to `limit_bytes`. Writes are cheapest from buffers of `arena`.
    ///
    /// # Errors
    /// What io_uring_setup said.
    pub(crate) fn new(
        file: Arc<File>,
        align: usize,
        limit_bytes: u64,
        arena: &Arc<Arena>,
    ) -> io::Result<Self> {
        let ring = new_ring()?;
        let registered = register(&ring, arena);
        Ok(Self {
            ring,
            registered,
            flying: VecDeque::new(),
            file,
            align: align.max(1),
            next_id: 0,
            prefix: Prefix::default(),
            preallocate: Preallocate::new(limit_bytes),
            failure: None,
        })
    }

    /// Whether the ring knows the memory of its buffers.
    #[cfg(test)]
    pub(crate) fn registers(&self) -> bool {
        self.registered.is_some()
    }

    /// Pushes what waits to be pushed and tells the kernel.
    fn push(&mut self) {
        let fd = Fd(self.file.as_raw_fd());
        let mut queue = self.ring.submission();
        for flying in self.flying.iter_mut().filter(|f| !f.submitted) {
            let rest = flying.piece.bytes().get(flying.done..).unwrap_or_default();
            let offset = flying.piece.offset.saturating_add(super::to_u64(flying.done));
            let len = u32::try_from(rest.len()).unwrap_or(u32::MAX);
            let number = self.registered.as_ref().and_then(|arena| flying.piece.view.number_in(arena));
            let entry = match number.and_then(|number| u16::try_from(number).ok()) {
                Some(number) => {
                    opcode::WriteFixed::new(fd, rest.as_ptr(), len, number).offset(offset).build()
                }
                None => opcode::Write::new(fd, rest.as_ptr(), len).offset(offset).build(),
            };
            // SAFETY: `push` wants the entry's parameters valid until the operation completes: the
            // descriptor is held by `self.file`, the memory by `flying.piece.view`; both stay until the
            // completion has been read (`settle`, `Drop`). Published bytes are never changed. A number is that of
            // the registered block which the bytes lie in.
            if unsafe { queue.push(&entry.user_data(flying.id)) }.is_err() {
                break; // The queue is full: the next round pushes the rest.
            }
            flying.submitted = true;
        }
        drop(queue);
        // EINTR, EAGAIN and EBUSY leave the entries queued; the next call submits them.
        if let Err(error) = self.ring.submit() {
            tracing::debug!(%error, "io_uring submit put off");
        }
    }

    /// Reads completions; returns whether any came.
    fn settle(&mut self) -> bool {
        let mut any = false;
        let completions: Vec<(u64, i32)> =
            self.ring.completion().map(|c| (c.user_data(), c.result())).collect();
        for (id, result) in completions {
            any = true;
            if let Some(at) = self.flying.iter().position(|f| f.id == id) {
                self.complete(at, result);
            }
        }
        any
    }

    /// One completion: done, to be continued, or failed.
    fn complete(&mut self, at: usize, result: i32) {
        let Some(flying) = self.flying.get_mut(at) else { return };
        flying.submitted = false;
        let left = flying.piece.len.saturating_sub(flying.done);
        let outcome = match usize::try_from(result) {
            Ok(written) if written >= left => Ok(true),
            // A short write goes on from the last whole block: O_DIRECT takes no other offset.
            Ok(written) if written >= self.align => {
                flying.done += written / self.align * self.align;
                Ok(false)
            }
            Ok(_) => Err(io::Error::from(io::ErrorKind::WriteZero)),
            Err(_) => match io::Error::from_raw_os_error(result.saturating_neg()) {
                error if matches!(error.raw_os_error(), Some(libc::EINTR | libc::EAGAIN)) => Ok(false),
                error => Err(error),
            },
        };
        match outcome {
            Ok(false) => return,
            Ok(true) => self.prefix.complete(flying.piece.end()),
            Err(source) => {
                let failure = WriteFailure { offset: flying.piece.offset, len: flying.piece.len, source };
                // Of several failures the one nearest the beginning of the file bounds what is whole.
                if self.failure.as_ref().is_none_or(|known| failure.offset < known.offset) {
                    self.failure = Some(failure);
                }
            }
        }
        self.flying.remove(at);
    }

    /// Waits for one completion at most `timeout`; `false` if the ring itself failed.
    fn wait_ring(&mut self, timeout: Duration) -> bool {
        let span = Timespec::from(timeout);
        let args = SubmitArgs::new().timespec(&span);
        match self.ring.submitter().submit_with_args(1, &args) {
            Ok(_) => true,
            Err(error) => {
                matches!(error.raw_os_error(), Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY))
            }
        }
    }
}

impl Sink for UringSink {
    fn kind(&self) -> SinkKind {
        SinkKind::Uring
    }

    fn has_room(&self) -> bool {
        self.flying.len() < usize::try_from(DEPTH).unwrap_or(usize::MAX)
    }

    fn submit(&mut self, piece: Piece) {
        while !self.has_room() {
            self.wait(Duration::from_secs(1));
        }
        if self.failure.is_some() {
            return;
        }
        self.preallocate.reach(&self.file, piece.end());
        self.prefix.begin(piece.end());
        self.flying.push_back(Flying { id: self.next_id, piece, done: 0, submitted: false });
        self.next_id = self.next_id.wrapping_add(1);
        self.push();
    }

    fn reap(&mut self) {
        // With deferred completions only an enter moves them into the ring; `submit` enters if the
        // kernel has set its flag.
        self.push();
        self.settle();
    }

    fn wait(&mut self, timeout: Duration) {
        if self.flying.is_empty() || self.settle() {
            return;
        }
        self.push();
        if !self.wait_ring(timeout) {
            tracing::debug!("io_uring wait failed");
        }
        self.settle();
    }

    fn in_flight(&self) -> usize {
        self.flying.len()
    }

    fn completed(&self) -> u64 {
        self.prefix.end()
    }

    fn failure(&self) -> Option<&WriteFailure> {
        self.failure.as_ref()
    }

    fn durable(&self) -> Arc<dyn Durable> {
        Arc::clone(&self.file) as Arc<dyn Durable>
    }
}

impl Drop for UringSink {
    fn drop(&mut self) {
        while self.flying.iter().any(|f| f.submitted) {
            if !self.settle() && !self.wait_ring(Duration::from_secs(1)) {
                // Cannot learn when the kernel is done with the memory: never reuse it.
                std::mem::forget(std::mem::take(&mut self.flying));
            }
        }
    }
}
