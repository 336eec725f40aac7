//! Thin, safe covers over the system calls that no crate of ours covers.
//!
//! Each file keeps its `unsafe` to single calls. It must never interpret what it reads beyond the
//! kernel's own record layouts.

pub(crate) mod ethtool;
pub(crate) mod mapping;
pub(crate) mod netlink;
pub(crate) mod packet;
pub(crate) mod poll;
pub(crate) mod sockopt;
