//! Writes segments: frame buffers, compression, sinks, journal, seal, recovery.
//!
//! The way of a packet: a worker calls [`Chain::append`](chain::Chain::append), the one copy, into the
//! open frame buffer; a full frame goes to the chain's stage thread, which compresses it, hands the
//! bytes to a sink (io_uring with O_DIRECT, or plain writes) and journals what is not whole on disk yet;
//! a sync thread makes it durable each second and seals. A file that readers can see is whole.
//!
//! Rows of tables (sessions, statistics) go the short way of [`table`]: a journal, then a Parquet file.
//!
//! A full disk and a failed write are states: counted, reported, never a panic and never an exit.

#![deny(unsafe_code)]

mod append;
mod buffer;
pub mod chain;
pub mod config;
pub mod counters;
mod disk;
pub mod error;
mod home;
mod journal;
pub mod level;
mod live;
mod output;
pub mod packs;
mod prefix;
pub mod recover;
pub mod reindex;
mod scan;
mod seal;
pub mod seconds;
mod segment;
mod settle;
mod sink;
pub mod sink_file;
mod sinks;
mod stage;
mod sync;
mod sys;
pub mod table;
pub mod verify;

pub use chain::{Appended, Chain, ChainReport};
pub use config::{ChainConfig, SEGMENT_BYTES_MIN, SinkChoice, WhenFull};
pub use counters::{ChainCounters, CounterSnapshot, Sum};
pub use error::{FileError, WriteError};
pub use level::Level;
pub use packs::{PacksReport, build_packs};
pub use prefix::SealedPrefix;
pub use recover::{RecoverOptions, RecoverReport, recover};
pub use reindex::{ReindexReport, reindex};
pub use scan::FrameFault;
pub use seconds::{Delta, Second, SecondBooks, Shift};
pub use sink::SinkKind;
pub use sys::{prefer_huge_pages, yield_to_all};
pub use table::{TableConfig, TableCounts, TableWriter};
pub use verify::{VerifyReport, verify};
#[cfg(test)]
mod testing;
