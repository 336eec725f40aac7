//! Thin, safe covers over the system calls that no crate of ours covers.
//!
//! Each file keeps its `unsafe` to single calls. It must never interpret what it reads beyond the
//! kernel's own record layouts.

#[expect(unsafe_code, reason = "the ethtool ioctl")]
pub(crate) mod ethtool;
pub(crate) mod link_watch;
#[expect(unsafe_code, reason = "mmap and munmap")]
pub(crate) mod mapping;
pub(crate) mod netdev;
pub(crate) mod netlink;
#[expect(unsafe_code, reason = "packet sockets: socket, bind, filter")]
pub(crate) mod packet;
pub(crate) mod poll;
#[expect(unsafe_code, reason = "setsockopt, getsockopt and adjtimex")]
pub(crate) mod sockopt;
