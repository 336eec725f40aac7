//! AF_XDP receive sockets: UMEM, rings, batches. Linux Documentation/networking/af_xdp.rst.
//!
//! One [`XskSocket`] per (interface, queue), each with a UMEM of its own, receive only. Packets come
//! in a [`Batch`] that borrows the socket; dropping it gives the chunks back to the kernel, so nothing
//! can hold a chunk across a disk write, and a second batch beside the first does not compile:
//!
//! ```compile_fail,E0499
//! use tapedeck_capture::xsk::XskSocket;
//! fn two(socket: &mut XskSocket) {
//!     let first = socket.peek(64);
//!     let second = socket.peek(64);
//!     drop((first, second));
//! }
//! ```
//!
//! The `unsafe` of AF_XDP lives in this folder. It must never hand out a slice the kernel may write
//! to, and never trust an address or a length it reads from a ring.

mod ring;
mod socket;
mod source;
mod umem;

pub use ring::Gauge;
pub use socket::{Batch, BindMode, Stats, XskConfig, XskError, XskSocket, takes_pieces};
pub use umem::{ChunkSize, Pages};
