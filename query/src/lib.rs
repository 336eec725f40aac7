//! taperead: retrieval by time and filter, with a verdict on how whole each answer is.
//!
//! Shares a format with the recorder, never code above `index`. The clock is read in `main` only;
//! `now` is a parameter everywhere else.

#![forbid(unsafe_code)]

pub mod cli;
pub mod escape;
pub mod failure;
pub mod merge;
pub mod out;
pub mod range;
mod spill;
pub mod time_arg;
pub mod verdict;
