//! Files of tables, as questions read them. Sessions, statistics, the ledger and SQL read through here, and with
//! them everybody else through [`tapedeck_index::table::read`].
//!
//! Rows only ever move forward: live journal, journal, sealed file. A file that is gone has moved on, or was removed.

use std::path::PathBuf;
use tapedeck_index::catalog::CatalogError;
pub(crate) use tapedeck_index::table::read::{ReadError, Rows, journal, live};
use tapedeck_index::table::{Found, Listing, State};

/// Something that went wrong with a file.
#[derive(Debug)]
pub struct FileTrouble {
    /// The file.
    pub path: PathBuf,
    /// What, and what to do about it.
    pub what: String,
}

/// Reads a file. One that was sealed meanwhile is looked for once more.
pub(crate) fn following<T>(
    found: &Found,
    find: &impl Fn() -> Result<Listing, CatalogError>,
    mut read: impl FnMut(&Found) -> Result<T, ReadError>,
) -> Result<T, ReadError> {
    match read(found) {
        Err(gone) if gone.is_gone() && found.state == State::Open => {
            let files = find().map(|listing| listing.files).unwrap_or_default();
            let again = files.into_iter().find(|other| other.name.key() == found.name.key());
            again.map_or(Err(gone), |found| read(&found))
        }
        result => result,
    }
}
