//! The system calls that neither std nor nix wraps safely: statx with STATX_DIOALIGN, madvise of memory that
//! others own, the scheduling of a thread.

#![expect(
    unsafe_code,
    reason = "statx(2) has no safe wrapper for STATX_DIOALIGN, madvise(2) and sched_setscheduler(2) none at all"
)]

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

/// What O_DIRECT asks of memory addresses and of file offsets and lengths, bytes (statx(2),
/// STATX_DIOALIGN). `None` where the kernel (before 6.1) or the filesystem does not say; `Some((0, 0))`
/// where the file does not take O_DIRECT at all.
pub(crate) fn direct_alignment(file: &File) -> io::Result<Option<(usize, usize)>> {
    // SAFETY: `statx` is plain integers; all zeros is a value of it.
    let mut info: libc::statx = unsafe { std::mem::zeroed() };
    // SAFETY: statx wants a live descriptor, a NUL-terminated path and a writable buffer; the borrow
    // of `file` keeps the first, the literal is the second, `info` is the third. AT_EMPTY_PATH makes
    // the empty path mean the descriptor itself.
    let rc = unsafe {
        libc::statx(file.as_raw_fd(), c"".as_ptr(), libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN, &raw mut info)
    };
    if rc != 0 {
        return Err(io::Error::last_os_error());
    }
    if info.stx_mask & libc::STATX_DIOALIGN == 0 {
        return Ok(None);
    }
    let (Ok(memory), Ok(offset)) =
        (usize::try_from(info.stx_dio_mem_align), usize::try_from(info.stx_dio_offset_align))
    else {
        return Ok(None);
    };
    Ok(Some((memory, offset)))
}

/// A huge page on x86-64 and arm64, bytes.
const HUGE: usize = 2 << 20;

/// What an allocator and its alignment leave between two neighbours at most, bytes.
const BETWEEN: usize = 64 << 10;

/// Asks the kernel to back memory, given as ranges of addresses, with huge pages when it is touched: what is
/// read at random, or once from end to end, costs a walk of the page tables for every packet otherwise. Neighbours count
/// as one range; ranges below a huge page are left alone. A kernel that has none for us changes nothing.
pub fn prefer_huge_pages(memory: &[Range<usize>]) {
    for range in neighbours(memory) {
        let (start, end) = (range.start.next_multiple_of(HUGE), range.end / HUGE * HUGE);
        if start < end {
            // SAFETY: MADV_HUGEPAGE changes no byte and no right of any mapping, whatever the addresses: it only
            // says of what size pages may be that are mapped later. The kernel checks the range.
            unsafe {
                libc::madvise(
                    std::ptr::without_provenance_mut::<libc::c_void>(start),
                    end - start,
                    libc::MADV_HUGEPAGE,
                )
            };
        }
    }
}

/// The ranges in order, those joined that nearly touch.
fn neighbours(memory: &[Range<usize>]) -> Vec<Range<usize>> {
    let mut sorted = memory.to_vec();
    sorted.sort_by_key(|range| range.start);
    let mut joined: Vec<Range<usize>> = Vec::new();
    for range in sorted {
        match joined.last_mut() {
            Some(last) if range.start <= last.end.saturating_add(BETWEEN) => {
                last.end = last.end.max(range.end)
            }
            _ => joined.push(range),
        }
    }
    joined
}

/// Lets every other thread of the machine go first, at the processor (SCHED_IDLE) and at the disk (idle class). For the
/// calling thread, for good. Where the kernel refuses, nothing changes.
pub fn yield_to_all() {
    const WHO_PROCESS: libc::c_int = 1;
    const CLASS_IDLE: libc::c_int = 3 << 13;
    // SAFETY: `sched_param` is plain integers; all zeros is a value of it.
    let param: libc::sched_param = unsafe { std::mem::zeroed() };
    // SAFETY: 0 is the calling thread; the kernel reads `param`, which lives until the call returns.
    unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const param) };
    // SAFETY: ioprio_set(2) takes three integers and no memory; 0 is the calling thread.
    unsafe { libc::syscall(libc::SYS_ioprio_set, WHO_PROCESS, 0, CLASS_IDLE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn neighbours_are_one_range() {
        let apart = 10 * BETWEEN..11 * BETWEEN;
        let joined = neighbours(&[apart.clone(), BETWEEN + 9..BETWEEN + 20, 0..10]);
        assert_eq!(joined, [0..BETWEEN + 20, apart]);
        assert_eq!(neighbours(&[]), []);
    }
}
