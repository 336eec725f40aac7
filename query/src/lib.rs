//! taperead: retrieval by time and filter.

#![forbid(unsafe_code)]

pub mod filter;
