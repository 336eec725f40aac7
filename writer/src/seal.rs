//! Sealing: from a whole hidden file to a visible segment with its sidecar.
//!
//! Order, each step durable before the next may matter: cut to length, sync; sidecar under a hidden name,
//! synced; sidecar renamed, then packets (a visible segment always has its sidecar); folders synced; the
//! journal deleted last. Killed at any point, the next recovery finishes: until the packets are renamed
//! the `.open` file and its journal are there, and afterwards only a spent journal may be left over.
//! Must never: replace a sealed file.

use crate::disk;
use crate::error::FileError;
use crate::segment::{Complete, Paths};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use tapedeck_index::frame::{Decoder, RAW_BYTES_MAX};
use tapedeck_index::name::{FileKind, SegmentName};
use tapedeck_index::sidecar::Head;

/// The hidden name of a sidecar that is being written.
pub(crate) fn hidden_index(folder: &Path, name: &SegmentName) -> PathBuf {
    folder.join(format!(".{}", name.file(FileKind::Index)))
}

/// Makes a synced `.open` file visible as `name`, with the sidecar `index`, and removes its journal.
/// `None` as sidecar: readers will scan the segment. Returns the path of the sealed segment.
pub(crate) fn publish(paths: &Paths, name: &SegmentName, index: Option<&[u8]>) -> Result<PathBuf, FileError> {
    let sealed = paths.folder.join(name.file(FileKind::Sealed));
    if let Some(bytes) = index {
        let (hidden, visible) =
            (hidden_index(&paths.folder, name), paths.folder.join(name.file(FileKind::Index)));
        disk::write_synced(&hidden, bytes)?;
        // Left by an attempt that ended between the two renames. Without packets it is no evidence, and
        // nobody else can be at this name: it holds our run and number, and we hold the lock.
        if visible.exists() && !sealed.exists() {
            disk::remove(&visible)?;
        }
        disk::rename_new(&hidden, &visible)?;
    }
    disk::rename_new(&paths.open, &sealed)?;
    disk::sync_folders(&paths.store, &paths.folder)?;
    disk::remove(&paths.journal)?;
    Ok(sealed)
}

/// Seals a segment whose writes have all returned.
pub(crate) fn seal(segment: &Complete) -> Result<PathBuf, FileError> {
    let Complete { name, paths, durable, len, builder, .. } = segment;
    durable.truncate(*len).map_err(FileError::at("cut", &paths.open))?;
    durable.sync().map_err(FileError::at("sync", &paths.open))?;
    // Read back rather than remembered: the sidecar speaks of what is in the file.
    let head = head(&paths.open, builder.frames().first().map_or(0, |frame| frame.stored_len));
    let head = head.unwrap_or_else(|error| {
        tracing::error!(%error, segment = %name, "frame 0 cannot be read back");
        Vec::new()
    });
    let index = builder.finish(name, &head);
    if let Err(error) = &index {
        tracing::error!(%error, segment = %name, "no sidecar can be made");
    }
    publish(paths, name, index.as_deref().ok())
}

/// Section and interface from frame 0, which has `stored_len` bytes in the file.
fn head(path: &Path, stored_len: u32) -> io::Result<Vec<u8>> {
    let mut stored = vec![0; usize::try_from(stored_len).map_err(io::Error::other)?];
    File::open(path)?.read_exact_at(&mut stored, 0)?;
    let mut raw = Vec::new();
    let mut decoder = Decoder::new().map_err(io::Error::other)?;
    decoder.decompress(&stored, &mut raw, RAW_BYTES_MAX).map_err(io::Error::other)?;
    Ok(Head::bytes_of(&raw).to_vec())
}

/// Removes the files of a segment that never held a packet.
pub(crate) fn discard(paths: &Paths) -> Result<(), FileError> {
    disk::remove(&paths.open)?;
    disk::remove(&paths.journal)
}
