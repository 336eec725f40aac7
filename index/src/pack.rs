//! Packs: which of very many segments can hold a key, without opening their sidecars.
//!
//! A pack stands over up to [`MEMBERS_MAX`] sealed segments and is a pure function of their sidecars: a blocked
//! Bloom filter per segment, bit-sliced, so that one block read answers for a key in all of them. A pack may
//! say "maybe" where a sidecar says "no", never the other way round: a wrong "not here" is lost evidence.
//! Must never: depend on a clock, or be needed (without packs every sidecar is asked).

mod build;
mod key;
mod layout;
mod name;
mod read;
#[cfg(test)]
mod tests;

pub use build::{MemberFacts, PackBuilder, PackBytes, PackShape};
pub use key::{HIGH_PORT, HIGH_PORTS_MAX, Key, KeyKind};
pub use layout::{BLOCK_ROWS, MAGIC, MATRIX_BYTES_MAX, MEMBERS_MAX, PACK_VERSION};
pub use name::{PACK_SUFFIX, PACKS_FOLDER, PackName, list};
pub use read::{Blocks, Member, MemberSet, Pack, PackError};
