//! The filter language against tcpdump and tshark, over every packet of the given traces.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic in a test is its report")]
#![expect(clippy::print_stdout, reason = "tests say what they skipped and counted")]

#[path = "../../../packet/tests/captures/common.rs"]
mod common;
mod corpus;
mod links;
mod tcpdump;
mod tshark;
