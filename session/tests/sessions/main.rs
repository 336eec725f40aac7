//! The session table against real captures, other tools' records, and hostile input.
//!
//! The captures' folder comes from `TAPEDECK_TRACES`; unset, those tests print `SKIPPED n`.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic in a test is its report")]

mod common;
mod conservation;
mod hostile;
mod packets;
mod peers;
mod scripts;
mod split;
mod table;
mod zeek;
