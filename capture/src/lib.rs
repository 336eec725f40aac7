//! The recorder: packets from an interface through AF_XDP or AF_PACKET into segments.

pub mod clock;
pub mod packet_mmap;
pub mod source;
mod sys;
pub mod xsk;
