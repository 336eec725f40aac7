//! What a byte on disk means: pcapng blocks, zstd frames, sidecar, journal, names, catalog,
//! tables.
//!
//! No threads, no clock. The only `unsafe` is the memory map in [`mapped`].

#![deny(unsafe_code)]

mod bytes;
pub mod capture_file;
pub mod catalog;
pub mod frame;
mod framing;
pub mod journal;
pub mod live;
pub mod mapped;
pub mod name;
pub mod pack;
pub mod pcapng;
pub mod rows;
pub mod sidecar;
pub mod table;
