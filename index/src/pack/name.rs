//! Names of packs: `<t_min>-<t_max>-<content>.pack`, all in the folder `packs` of a store.

use std::path::{Path, PathBuf};
use std::{fmt, fs, io};
use tapedeck_packet::Timestamp;

/// Folder of the packs in a store.
pub const PACKS_FOLDER: &str = "packs";
/// Suffix of a pack.
pub const PACK_SUFFIX: &str = ".pack";

/// The parts of a pack's file name (docs/format.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct PackName {
    /// Smallest packet time of its members.
    pub from: Timestamp,
    /// Largest packet time of its members.
    pub last: Timestamp,
    /// XXH3 of the pack's front: what it says of its members, and the checksums of its blocks.
    pub content: u64,
}

impl PackName {
    /// Reads a file name; `None` for every text that [`fmt::Display`] does not write.
    #[must_use]
    pub fn parse(file: &str) -> Option<Self> {
        let mut parts = file.strip_suffix(PACK_SUFFIX)?.split('-');
        let [from, last, content] = std::array::from_fn(|_| parts.next());
        let time = |text: Option<&str>| Timestamp::from_nanos(text?.parse().ok()?);
        let content = u64::from_str_radix(content?, 16).ok()?;
        let name = Self { from: time(from)?, last: time(last)?, content };
        // One spelling only.
        (parts.next().is_none() && name.to_string() == file).then_some(name)
    }
}

/// The packs of a store, in order of their names; none where it has no folder of them. A folder or a pipe of such a name
/// is none: reading might never end.
///
/// # Errors
/// The folder cannot be read.
pub fn list(store: &Path) -> io::Result<Vec<(PathBuf, PackName)>> {
    let entries = match fs::read_dir(store.join(PACKS_FOLDER)) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries?,
    };
    let mut found = Vec::new();
    for entry in entries {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| PackName::parse(name.to_str()?));
        if let Some(name) = name.filter(|_| path.is_file()) {
            found.push((path, name));
        }
    }
    found.sort_unstable();
    Ok(found)
}

impl fmt::Display for PackName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, last, content } = self;
        write!(f, "{:020}-{:020}-{content:016x}{PACK_SUFFIX}", from.nanos(), last.nanos())
    }
}
