//! Sessions: the conversations that packets belong to, and what is recorded of them; statistics: the habits of
//! a network, and what departs from them.
//!
//! A worker pushes walked packets into a [`Table`] and gets [`Record`]s; with split queues a [`Merger`] joins
//! the halves of sessions whose directions came to two workers. An [`Inspector`] of the caller's looks at payload.
//! docs/sessions.md says what a session is, docs/zeek.md what its columns mean.
//!
//! This crate does no I/O and asks no clock: time is a parameter. It holds no `unsafe`, and every function
//! is total: hostile packets give an odd record, never a panic.

#![forbid(unsafe_code)]

pub mod config;
mod history;
mod input;
pub mod inspect;
mod key;
pub mod merge;
mod pair;
pub mod ports;
pub mod record;
pub mod service;
pub mod stats;
pub mod table;
mod tcp;
pub mod unusual;

pub use config::{Config, Timeouts};
pub use input::{Packet, Place};
pub use inspect::{Ends, Inspector};
pub use merge::{Half, Merger};
pub use ports::ServerPorts;

pub use record::{
    ConnState, EndReason, PacketRef, Record, RecordKind, Service, ServiceSource, Side, Uid, Volume,
};
pub use service::{Probe, Progress};
pub use table::{Counters, Sink, Stage, Table};
