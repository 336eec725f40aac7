//! The recorder: packets from an interface through AF_XDP or AF_PACKET into segments.

pub mod xsk;
