//! Tests of the walk over real captures (`TAPEDECK_TRACES`), against programs and data no one here wrote.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic in a test is its report")]

mod common;
mod community_id;
mod oracle;
mod walk_all;
