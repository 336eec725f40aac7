//! Sleeping until a socket has something.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{getsockopt, sockopt::SocketError};
use std::io;
use std::os::fd::BorrowedFd;
use std::time::Duration;

/// Sleeps until `socket` is readable, at most `timeout` (rounded up to milliseconds). Returns early when
/// a signal came.
///
/// # Errors
/// What the socket reports: ENETDOWN when its interface went away. The error stays until the interface
/// is back, so the caller has to pause by itself.
pub(crate) fn readable(socket: BorrowedFd<'_>, timeout: Duration) -> io::Result<()> {
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    let mut fds = [PollFd::new(socket, PollFlags::POLLIN)];
    match poll(&mut fds, timeout) {
        Ok(_) | Err(Errno::EINTR) => {}
        Err(errno) => return Err(errno.into()),
    }
    let [fd] = fds;
    if fd.revents().is_some_and(|got| got.intersects(PollFlags::POLLERR | PollFlags::POLLNVAL)) {
        let code = getsockopt(&socket, SocketError)?;
        return Err(io::Error::from_raw_os_error(if code == 0 { libc::ENETDOWN } else { code }));
    }
    Ok(())
}
