//! tapebench: what a box can hold, measured with the recorder that will run on it.
//!
//! Every figure comes from packets that this program sent itself, numbered and stamped, over a link
//! that it made itself and removes again. It never sends on an interface that was there before.

#![forbid(unsafe_code)]

pub mod latency;
pub mod link;
pub mod probe;
pub mod recorder;
pub mod stages;
pub mod time;
pub mod traffic;
