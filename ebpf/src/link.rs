//! Links and pins as descriptors: attaching an XDP program to an interface in a mode of our choice,
//! taking it off, and giving descriptors names in the BPF file system.
//!
//! libbpf-rs attaches with the kernel's choice of mode only, and pins only what it has loaded itself. The
//! `unsafe` calls of this crate; it must never attach without naming the mode, for the kernel then falls
//! back in silence.

use crate::Mode;
use libbpf_rs::libbpf_sys;
use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

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

/// Takes the program of a pinned link off its interface, at once, and removes the pin. An interface that
/// is gone has no program any more.
///
/// # Errors
/// The errno of BPF_LINK_DETACH or of the removal.
pub(crate) fn detach(link: OwnedFd, pin: &Path) -> io::Result<()> {
    // SAFETY: a system call on a descriptor that is open through the call.
    let ret = unsafe { libbpf_sys::bpf_link_detach(link.as_raw_fd()) };
    if ret < 0 {
        let error = io::Error::from_raw_os_error(-ret);
        // The interface took the program with it (bpf_xdp_link_release in net/core/dev.c).
        if !matches!(error.kind(), io::ErrorKind::NotFound) && error.raw_os_error() != Some(ENODEV) {
            return Err(error);
        }
    }
    match std::fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

const ENODEV: i32 = 19;

/// Gives a descriptor of a program, map or link a name in a BPF file system.
///
/// # Errors
/// The errno of BPF_OBJ_PIN: EPERM outside a BPF file system, EEXIST where the name is taken.
pub(crate) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: the path is a terminated string that lives through the call, which only reads it.
    let ret = unsafe { libbpf_sys::bpf_obj_pin(fd.as_raw_fd(), path.as_ptr()) };
    if ret < 0 { Err(io::Error::from_raw_os_error(-ret)) } else { Ok(()) }
}

/// The program or link of this name.
///
/// # Errors
/// The errno of BPF_OBJ_GET: ENOENT where there is none.
pub(crate) fn open(path: &Path) -> io::Result<OwnedFd> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: as in `pin`.
    let fd = unsafe { libbpf_sys::bpf_obj_get(path.as_ptr()) };
    if fd < 0 {
        return Err(io::Error::from_raw_os_error(-fd));
    }
    // SAFETY: the call has just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}
