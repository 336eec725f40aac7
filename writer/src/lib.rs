//! Writes segments: frame buffers, compression, sinks, journal, seal, recovery.
//!
//! The way of a packet: a worker calls [`Chain::append`](chain::Chain::append), the one copy, into the
//! open frame buffer; a full frame goes to the chain's stage thread, which compresses it, hands the
//! bytes to a sink (io_uring with O_DIRECT, or plain writes) and journals what is not whole on disk yet;
//! a sync thread makes it durable each second and seals. A file that readers can see is whole.
//!
//! A full disk and a failed write are states: counted, reported, never a panic and never an exit.

#![deny(unsafe_code)]

pub mod buffer;
pub mod level;
pub mod sink;
mod sys;
