//! The bytes of one packet: what time it carries, which layers it has, which flow it belongs to, and how text of it is
//! shown.
//!
//! This crate does no I/O, asks no clock, allocates nothing per packet and holds no `unsafe`. Every
//! function is total: hostile bytes give a shorter [`Walk`], never a panic.

#![forbid(unsafe_code)]

pub mod escape;
pub mod flow;
pub mod hash;
pub mod link;
pub mod time;
pub mod walk;

pub use flow::{CommunityId, Direction, FlowKey};
pub use link::LinkType;
pub use time::{Timestamp, UtcHour};
pub use walk::{Arp, Fragment, Ip, Layer, Mac, Macs, Net, Tunnel, Walk, icmp_ports};
