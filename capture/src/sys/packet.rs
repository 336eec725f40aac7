//! AF_PACKET sockets: opening, binding, promiscuous mode, closing the intake.

use super::sockopt::{self, Plain};
use std::io;
use std::mem::size_of;
use std::os::fd::{AsFd as _, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

// SAFETY: integers only.
unsafe impl Plain for libc::packet_mreq {}

/// A raw packet socket that receives nothing until it is bound.
pub(crate) fn open() -> io::Result<OwnedFd> {
    // SAFETY: plain arguments; the result is checked.
    let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just returned this descriptor, and nothing else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Binds to all protocols of one interface: from here on packets arrive.
pub(crate) fn bind(fd: BorrowedFd<'_>, ifindex: u32) -> io::Result<()> {
    let misfit = || io::Error::from(io::ErrorKind::InvalidInput);
    let address = libc::sockaddr_ll {
        sll_family: u16::try_from(libc::AF_PACKET).map_err(|_| misfit())?,
        sll_protocol: u16::try_from(libc::ETH_P_ALL).map_err(|_| misfit())?.to_be(),
        sll_ifindex: i32::try_from(ifindex).map_err(|_| misfit())?,
        sll_hatype: 0,
        sll_pkttype: 0,
        sll_halen: 0,
        sll_addr: [0; 8],
    };
    let len = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).map_err(|_| misfit())?;
    // SAFETY: pointer and length name the whole of `address`, which the kernel only reads.
    let ret = unsafe { libc::bind(fd.as_raw_fd(), (&raw const address).cast(), len) };
    if ret == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Lets nothing more in; what has arrived stays readable.
pub(crate) fn refuse_all(fd: BorrowedFd<'_>) -> io::Result<()> {
    // BPF_RET | BPF_K with 0 bytes: keep nothing of any packet.
    let mut program = [libc::sock_filter { code: 0x06, jt: 0, jf: 0, k: 0 }];
    let filter = libc::sock_fprog { len: 1, filter: program.as_mut_ptr() };
    // SAFETY: the kernel copies the one instruction during the call, which `program` outlives.
    unsafe { sockopt::set_with_address(fd, libc::SOL_SOCKET, libc::SO_ATTACH_FILTER, &filter) }
}

/// Keeps an interface in promiscuous mode until dropped, or until the process is gone.
#[derive(Debug)]
pub(crate) struct Promiscuous {
    _socket: OwnedFd,
}

impl Promiscuous {
    /// Switches it on.
    pub(crate) fn on(ifindex: u32) -> io::Result<Self> {
        let socket = open()?;
        let request = libc::packet_mreq {
            mr_ifindex: i32::try_from(ifindex).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
            mr_type: u16::try_from(libc::PACKET_MR_PROMISC)
                .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
            mr_alen: 0,
            mr_address: [0; 8],
        };
        sockopt::set(socket.as_fd(), libc::SOL_PACKET, libc::PACKET_ADD_MEMBERSHIP, &request)?;
        Ok(Self { _socket: socket })
    }
}
