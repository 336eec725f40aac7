//! Calls with records that nix does not know: socket options, and the state of the clock.

use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd};

/// A record of plain numbers, of which any pattern of bytes is a value.
///
/// # Safety
/// The type consists of integers only, and none of them is an address the kernel would follow.
pub(crate) unsafe trait Plain: Copy {}

// SAFETY: an integer.
unsafe impl Plain for u32 {}
// SAFETY: an integer.
unsafe impl Plain for u64 {}
// SAFETY: an integer.
unsafe impl Plain for libc::c_int {}
// SAFETY: one u32.
unsafe impl Plain for libc::xdp_options {}
// SAFETY: six u64.
unsafe impl Plain for libc::xdp_statistics {}
// SAFETY: sixteen u64.
unsafe impl Plain for libc::xdp_mmap_offsets {}

/// A zeroed record.
pub(crate) fn zeroed<T: Plain>() -> T {
    // SAFETY: `Plain` promises that all zeroes is a value.
    unsafe { std::mem::zeroed() }
}

fn len_of<T>() -> io::Result<libc::socklen_t> {
    libc::socklen_t::try_from(size_of::<T>()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

/// Sets an option.
pub(crate) fn set<T: Plain>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    // SAFETY: `Plain` promises that the record holds no address.
    unsafe { set_with_address(fd, level, name, value) }
}

/// Sets an option whose record holds an address.
///
/// # Safety
/// The memory there must stay valid for whatever the kernel does with it, as long as it does it.
pub(crate) unsafe fn set_with_address<T: Copy>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let len = len_of::<T>()?;
    // SAFETY: pointer and length name the whole of `value`, which the kernel only reads.
    let ret = unsafe { libc::setsockopt(fd.as_raw_fd(), level, name, std::ptr::from_ref(value).cast(), len) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Reads an option. A kernel may know a shorter record: it must write at least `least` bytes, the rest
/// stays zero.
pub(crate) fn get<T: Plain>(
    fd: BorrowedFd<'_>,
    level: libc::c_int,
    name: libc::c_int,
    least: usize,
) -> io::Result<T> {
    let mut value: T = zeroed();
    let mut len = len_of::<T>()?;
    // SAFETY: pointer and length name the whole of `value`, and `Plain` promises that whatever the
    // kernel writes there is a value.
    let ret = unsafe { libc::getsockopt(fd.as_raw_fd(), level, name, (&raw mut value).cast(), &raw mut len) };
    if ret != 0 {
        return Err(io::Error::last_os_error());
    }
    if (len as usize) < least { Err(io::Error::from_raw_os_error(libc::EPROTO)) } else { Ok(value) }
}

/// Cookie of the caller's network namespace: unlike its inode, never given to another one until the next
/// boot (Linux 5.14).
///
/// # Errors
/// The kernel's answer.
pub(crate) fn namespace_cookie() -> io::Result<u64> {
    let socket = std::os::unix::net::UnixDatagram::unbound()?;
    get(socket.as_fd(), libc::SOL_SOCKET, libc::SO_NETNS_COOKIE, size_of::<u64>())
}

/// What keeps the system clock right, and how well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClockState {
    /// A daemon holds the clock to a source of time.
    pub(crate) synchronised: bool,
    /// The kernel's status word, STA_... in linux/timex.h.
    pub(crate) status: i32,
    /// TAI minus UTC, seconds; 0 = nobody has told the kernel.
    pub(crate) tai_offset_s: i32,
    /// Largest error the daemon vouches for, microseconds.
    pub(crate) error_max_us: i64,
}

/// Reads the state of the system clock.
pub(crate) fn clock_state() -> io::Result<ClockState> {
    // SAFETY: a record of integers, for which all zeroes is a value.
    let mut state: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel reads and writes the whole of `state`; no mode is set, so it changes no clock.
    let ret = unsafe { libc::adjtimex(&raw mut state) };
    if ret < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(ClockState {
        synchronised: state.status & libc::STA_UNSYNC == 0,
        status: state.status,
        tai_offset_s: state.tai,
        error_max_us: state.maxerror,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_clock_has_a_state() {
        let state = clock_state().unwrap();
        assert!(state.error_max_us >= 0 && (0..100).contains(&state.tai_offset_s), "{state:?}");
    }
}
