//! Sessions: the conversations that packets belong to, and what is recorded of them; statistics: the habits of
//! a network, and what departs from them.
//!
//! This crate does no I/O and asks no clock: time is a parameter. It holds no `unsafe`, and every function
//! is total: hostile packets give an odd record, never a panic.

#![forbid(unsafe_code)]

pub mod record;
pub mod stats;
pub mod unusual;

pub use record::{
    ConnState, EndReason, PacketRef, Record, RecordKind, Service, ServiceSource, Side, Uid, Volume,
};
