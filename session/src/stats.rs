//! Statistics: the network's habits, counted per minute and interface.
//!
//! The way of a number: a worker gives each packet's [`Packet`] facts to its [`Collector`], and the packets
//! of a session to the session's [`Tally`], sixteen bytes that live in the session's own slot. What a minute
//! adds up to goes into tables (exact) and sketches (bounded error, [`hosts`], [`top`], [`recurring`]) when the
//! session is next touched in another minute, when it ends, or when [`Collector::tick`] sweeps it up. A closed
//! [`Minute`] leaves the worker, [`Merger`] joins the minutes of an interface's queues, [`row`] makes rows of them.
//!
//! Nothing here does I/O, asks a clock, or allocates per packet. Memory is bounded: [`Config::bytes`].
//!
//! Exact: packets, bytes, sessions, resets, failed handshakes, sizes, shares, EtherTypes, protocols, services,
//! and server ports up to [`tables::PORTS`] of them in a minute (the rest stands under `other`). Sketched:
//! numbers of hosts, top lists, recurring pairs; each says how far it can be off.

pub mod collector;
pub mod facts;
pub mod hosts;
pub mod merge;
pub mod minute;
pub mod recurring;
pub mod row;
pub mod tables;
pub mod top;

pub use collector::{Closed, Collector, Config, Sessions, failed_handshake};
pub(crate) use facts::server_port;
pub use facts::{Flow, Marks, Packet, Sender, Tally};
pub use hosts::Hosts;
pub use merge::{Merged, Merger};
pub use minute::{Counts, Minute, Port, SIZES, Totals};
pub use recurring::{Recurring, RecurringPair};
pub use row::{Dimension, Row};
pub use top::{Summary, Top};

/// Nanoseconds in a minute.
pub const NANOS_PER_MINUTE: u64 = 60 * tapedeck_packet::time::NANOS_PER_SEC;
