//! Sidecars read in place through a memory map. The only file of this crate with `unsafe`.

use crate::sidecar::{Sidecar, SidecarError};
use memmap2::Mmap;
use std::fs::File;
use std::path::{Path, PathBuf};

/// The bytes of a sidecar, wherever they are.
#[derive(Debug)]
pub(crate) enum Bytes {
    /// In memory of ours.
    Owned(Vec<u8>),
    /// A mapped file.
    Mapped(Mmap),
}

impl Bytes {
    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Owned(bytes) => bytes,
            Self::Mapped(map) => map,
        }
    }
}

/// A sidecar file that cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The operating system refused.
    #[error("{path}: cannot open the sidecar")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Not a sidecar we can believe.
    #[error("{path}: {source}")]
    Sidecar {
        /// The file.
        path: PathBuf,
        /// Why.
        source: SidecarError,
    },
}

/// Opens the sidecar of a sealed segment. Never call it for an open segment: its sidecar is made from
/// the journal, in memory.
///
/// # Errors
/// [`OpenError`].
pub fn open(path: &Path) -> Result<Sidecar, OpenError> {
    let io = |source| OpenError::Io { path: path.to_path_buf(), source };
    let file = File::open(path).map_err(io)?;
    let bytes = if file.metadata().map_err(io)?.len() == 0 {
        // An empty file cannot be mapped; it is no sidecar either.
        Bytes::Owned(Vec::new())
    } else {
        Bytes::Mapped(map(&file).map_err(io)?)
    };
    Sidecar::new(bytes).map_err(|source| OpenError::Sidecar { path: path.to_path_buf(), source })
}

#[expect(unsafe_code, reason = "a memory map is unsafe by nature; see SAFETY")]
fn map(file: &File) -> std::io::Result<Mmap> {
    // SAFETY: `Mmap::map` asks that the file is not changed or truncated while it is mapped. A sidecar is
    // written and synced under a hidden name, then renamed, and never opened for writing again: reindex
    // writes a new file and renames it over, retention unlinks, and both leave the mapped inode whole.
    // What remains is another program that truncates the file, or a disk that fails a read: the process
    // then dies of SIGBUS. Changed bytes are not undefined behaviour here beyond a wrong value: every
    // access is bounds-checked, and each section is checked against its checksum before its first use.
    unsafe { Mmap::map(file) }
}
