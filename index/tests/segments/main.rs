//! Segments assembled from the encoders, against programs no one here wrote: zstd, tcpdump, capinfos.
//!
//! Real captures come from `TAPEDECK_TRACES`: unset = only generated ones, set but missing = a failure.

#![expect(clippy::unwrap_used, reason = "a panic in a test is its report")]

mod assemble;
mod budget;
mod captures;
mod document;
mod reader;
mod tools;
