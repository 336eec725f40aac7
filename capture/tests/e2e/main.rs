//! End to end, as a user runs it: the built `tapedeck` and `taperead` binaries, real captures, and
//! readers that no one here wrote.
//!
//! The traces come from the folder in `TAPEDECK_TRACES`. Unset: the tests that need it print
//! `SKIPPED` and run on captures they make themselves. Set but missing: a failure.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a test may be direct: a panic is its report"
)]

mod bad_input;
mod ledger;
mod live;
mod made;
mod packs;
mod reference;
mod restart;
mod roundtrip;
mod sessions;
mod standard;
mod tables;
mod tools;
mod whole;
