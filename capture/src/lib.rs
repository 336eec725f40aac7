//! tapedeck: sources, workers, supervisor, ledger.
//!
//! `unsafe` lives only where it is allowed below, file by file; everything these export is safe.

#![deny(unsafe_code)]

mod books;
pub mod card;
mod claim;
pub mod cli;
pub mod clock;
pub mod config;
pub mod detach;
pub mod doctor;
pub mod filtering;
mod hints;
pub mod identity;
pub mod import;
pub mod ladder;
pub mod ledger;
mod ledger_rows;
pub mod lock;
pub mod maintain;
pub mod nic;
mod originals;
mod packer;
#[expect(unsafe_code, reason = "reads the blocks of a ring shared with the kernel")]
pub mod packet_mmap;
mod pins;
pub mod plan;
pub mod preflight;
pub mod records;
pub mod sessions;
pub mod shed;
pub mod source;
pub mod statistics;
pub mod status;
pub mod supervisor;
mod sys;
pub mod units;
pub mod voice;
pub mod worker;
#[expect(unsafe_code, reason = "reads and writes rings and packet memory shared with the kernel")]
pub mod xsk;
