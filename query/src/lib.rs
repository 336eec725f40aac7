//! taperead: retrieval by time and filter, with a verdict on how whole each answer is.
//!
//! The way of an answer: [`cli`] (typed) -> [`ask`] (meant) -> [`gather`] (stores, packs, sidecars, journals) with
//! [`prune`] (rows that can match) -> [`plan`] (what to read, printable) -> [`answer`] with [`scan`] (frames
//! to packets) and [`merge`] (one order, bounded memory) -> [`out`] (pcapng, pcap, text, JSON) ->
//! [`verdict`] (how whole it is).
//!
//! Shares a format with the recorder, never code above `index`. The clock is read in `main` only;
//! `now` is a parameter everywhere else.

#![forbid(unsafe_code)]

pub mod answer;
pub mod ask;
pub mod cli;
pub mod failure;
pub mod filter;
mod framewalk;
pub mod gather;
mod inspect;
mod ledger;
mod lost;
pub mod merge;
pub mod out;
mod packs;
pub mod plan;
mod pool;
pub mod prune;
pub mod range;
mod rowfacts;
pub mod run;
pub mod scan;
pub mod segment;
mod segments;
pub mod sessions;
mod sources;
mod spill;
mod sql;
pub mod stats;
mod stored;
mod tables;
pub mod time_arg;
mod unsealed;
pub mod verdict;
