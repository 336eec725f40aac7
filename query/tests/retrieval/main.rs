//! Retrieval as a whole: stores built from synthetic packets, asked through the library and through the
//! real binary.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a failing unwrap or index in a test is the report"
)]

mod agreement;
mod answers;
mod disk;
mod engines;
mod exports;
mod ledger;
mod loss;
mod packs;
mod sessions;
mod sql;
mod support;
mod traces;
mod trouble;
mod unsealed;
