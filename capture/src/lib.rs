//! tapedeck: sources, workers, supervisor, ledger.
//!
//! `unsafe` lives only in [`xsk`], `packet_mmap` and `affinity`; everything they export is safe.

#![deny(unsafe_code)]

pub mod ledger;
pub mod xsk;
