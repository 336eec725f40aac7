//! tapedeck: sources, workers, supervisor, ledger.
//!
//! `unsafe` lives only where it is allowed below, file by file; everything these export is safe.

#![deny(unsafe_code)]

pub mod cli;
pub mod clock;
pub mod identity;
pub mod import;
pub mod ledger;
#[expect(unsafe_code, reason = "reads the blocks of a ring shared with the kernel")]
pub mod packet_mmap;
pub mod source;
mod sys;
pub mod voice;
#[expect(unsafe_code, reason = "reads and writes rings and packet memory shared with the kernel")]
pub mod xsk;
