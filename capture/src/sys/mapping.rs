//! A memory mapping that is unmapped when dropped.
//!
//! It gives its address and length away and nothing else: whoever makes a reference into it states why
//! that is sound.

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};
use std::ptr::{self, NonNull};

/// Memory of our own or shared with the kernel.
#[derive(Debug)]
pub(crate) struct Mapping {
    base: NonNull<u8>,
    len: usize,
    /// Bytes behind them that nobody can read or write.
    guard: usize,
}

// SAFETY: a mapping is plain memory without thread affinity; whoever reads and writes through it
// states at the access why that is no race.
unsafe impl Send for Mapping {}
// SAFETY: as above; `&Mapping` gives only its address and length away.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Anonymous, zeroed, populated memory. When `reserved`, from the huge pages that were set aside
    /// (`vm.nr_hugepages`), and then `len` must be a multiple of 2 MiB; else of the pages that the kernel has, large
    /// ones where it can.
    pub(crate) fn anonymous(len: usize, reserved: bool) -> io::Result<Self> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
        if reserved {
            return Self::map(
                len,
                flags | libc::MAP_HUGETLB | libc::MAP_HUGE_2MB | libc::MAP_POPULATE,
                -1,
                0,
            );
        }
        let memory = Self::map(len, flags, -1, 0)?;
        let start = memory.base.as_ptr().addr();
        tapedeck_writer::prefer_huge_pages(std::slice::from_ref(&(start..start + memory.len)));
        // SAFETY: a mapping of our own that nothing points into yet; populating it changes no byte.
        if unsafe { libc::madvise(memory.base.as_ptr().cast(), memory.len, libc::MADV_POPULATE_WRITE) } != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(memory)
    }

    /// Anonymous, zeroed memory of `len` bytes or more, with a page behind it that nobody can read or write: who is
    /// given all of it and writes beyond is stopped there.
    pub(crate) fn guarded(len: usize) -> io::Result<Self> {
        let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten();
        let page = page.and_then(|page| usize::try_from(page).ok()).unwrap_or(4096);
        let usable = len.max(1).next_multiple_of(page);
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_POPULATE;
        let mut whole = Self::map(usable + page, flags, -1, 0)?;
        // SAFETY: `usable` lies within the mapping, which has a page more.
        let guard = unsafe { whole.base.add(usable) };
        // SAFETY: the last page of a mapping of our own that nothing points into yet.
        if unsafe { libc::mprotect(guard.as_ptr().cast(), page, libc::PROT_NONE) } != 0 {
            return Err(io::Error::last_os_error());
        }
        (whole.len, whole.guard) = (usable, page);
        Ok(whole)
    }

    /// The ring of a socket, at the offset that names it.
    pub(crate) fn ring(socket: BorrowedFd<'_>, len: usize, offset: libc::off_t) -> io::Result<Self> {
        Self::map(len, libc::MAP_SHARED | libc::MAP_POPULATE, socket.as_raw_fd(), offset)
    }

    fn map(len: usize, flags: libc::c_int, fd: RawFd, offset: libc::off_t) -> io::Result<Self> {
        // SAFETY: a new mapping at an address of the kernel's choice touches no memory of ours; the
        // kernel checks `fd`, `len` and `offset`.
        let base = unsafe {
            libc::mmap(ptr::null_mut(), len, libc::PROT_READ | libc::PROT_WRITE, flags, fd, offset)
        };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Self { base, len, guard: 0 })
    }

    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: `base`, `len` and `guard` are those of a mapping that `map` made and nothing else unmaps;
        // every pointer into it lives in a value that owns (a share of) this one.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.len + self.guard) };
    }
}
