//! tapebench: what a box can hold, measured with the recorder that will run on it.
//!
//! Every figure comes from packets that this program sent itself, numbered and stamped, over a link
//! that it made itself and removes again, or over two interfaces that the caller has named.

#![forbid(unsafe_code)]

pub mod alone;
pub mod campaign;
pub mod capacity;
pub mod check;
pub mod interrupt;
pub mod latency;
pub mod link;
pub mod machine;
pub mod needle;
pub mod plan;
pub mod probe;
pub mod progress;
pub mod recorder;
pub mod report;
pub mod result;
pub mod search;
pub mod sender;
pub mod stages;
mod stored;
pub mod sync_calls;
pub mod time;
pub mod tools;
pub mod traffic;
pub mod trial;
pub mod under_load;
