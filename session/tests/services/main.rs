//! What a probe says of real sessions (`TAPEDECK_TRACES`), against programs and data no one here wrote.
//!
//! tshark takes the sessions apart (its streams, its reassembly of fragments) and says what it reads in them;
//! the probe gets the payloads only. Where they differ, the test names the session and why: docs/services.md.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic in a test is its report")]
#![expect(clippy::print_stdout, reason = "figures for the documents, and what was skipped")]

mod differences;
mod flows;
mod names;
mod newer;
mod others;
mod traces;
