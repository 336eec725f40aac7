//! Attaching an XDP program to an interface in a mode of our choice.
//!
//! libbpf-rs attaches with the kernel's choice of mode only. The one `unsafe` call of this crate; it
//! must never attach without naming the mode, for the kernel then falls back in silence.

use crate::Mode;
use libbpf_rs::libbpf_sys;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// `XDP_FLAGS_SKB_MODE` and `XDP_FLAGS_DRV_MODE` (linux/if_link.h).
const XDP_FLAGS_SKB_MODE: u32 = 1 << 1;
const XDP_FLAGS_DRV_MODE: u32 = 1 << 2;

/// Attaches `program` to the interface. Closing the returned link detaches it, also when the process
/// dies.
///
/// # Errors
/// The errno of BPF_LINK_CREATE: EBUSY or EEXIST where another program sits on the interface,
/// EOPNOTSUPP where the driver has no native XDP.
pub(crate) fn attach(program: BorrowedFd<'_>, ifindex: i32, mode: Mode) -> io::Result<OwnedFd> {
    let flags = match mode {
        Mode::Native => XDP_FLAGS_DRV_MODE,
        Mode::Skb => XDP_FLAGS_SKB_MODE,
    };
    let opts = libbpf_sys::bpf_link_create_opts {
        sz: std::mem::size_of::<libbpf_sys::bpf_link_create_opts>()
            .try_into()
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
        flags,
        ..Default::default()
    };
    // SAFETY: `opts` is a whole, zero-initialised record of the size it names and lives through the
    // call; libbpf reads it and keeps no pointer.
    let fd = unsafe {
        libbpf_sys::bpf_link_create(program.as_raw_fd(), ifindex, libbpf_sys::BPF_XDP, &raw const opts)
    };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the call has just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
