//! The recorder on real interfaces: veth pairs in namespaces of their own. Needs root and kernel BTF.
//!
//! What cannot run says `SKIPPED` with the reason.

#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "a panic in a test is its report")]

mod card;
mod clock;
mod departure;
mod disk;
mod doctor;
mod filter;
mod flood;
mod guest;
mod identity;
mod kills;
mod ledger;
mod nic;
mod operator;
mod overload;
mod packs;
mod record;
#[path = "../support/mod.rs"]
mod support;
mod takeover;
mod xsk;
