//! Folders and names on disk: making them, making them durable, never replacing what is sealed.
//!
//! An open segment appears under its `.open` name only when its lock is held and its journal exists:
//! it is made as `.NAME.new`, locked, and renamed. Whoever finds an `.open` it can lock therefore knows
//! that its writer is gone.

use crate::error::FileError;
use std::fs::{File, TryLockError};
use std::io;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use tapedeck_index::name::{FileKind, SegmentName};

/// Extension of an open segment that is not locked yet, whose name also begins with a dot.
pub(crate) const NEW_EXTENSION: &str = "new";

/// Creates `folder` and what is missing above it.
pub(crate) fn make_folder(folder: &Path) -> Result<(), FileError> {
    std::fs::create_dir_all(folder).map_err(FileError::at("create", folder))
}

/// Makes the entries of `folder` durable, and those of every folder above it up to `store`: any of
/// them may be new, made by us or by another writer that has not come to this point yet.
pub(crate) fn sync_folders(store: &Path, folder: &Path) -> Result<(), FileError> {
    for path in folder.ancestors() {
        sync_folder(path)?;
        if path == store {
            break;
        }
    }
    Ok(())
}

/// Makes the entries of `folder` durable.
fn sync_folder(folder: &Path) -> Result<(), FileError> {
    File::open(folder).and_then(|f| f.sync_all()).map_err(FileError::at("sync", folder))
}

/// Renames within a store; an existing `to` is an error (EEXIST), never replaced.
pub(crate) fn rename_new(from: &Path, to: &Path) -> Result<(), FileError> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => Ok(()),
        // Filesystems without the flag (some network ones): a hard link refuses an existing name too.
        Err(nix::errno::Errno::EINVAL) => std::fs::hard_link(from, to)
            .and_then(|()| std::fs::remove_file(from))
            .map_err(FileError::at("rename to", to)),
        Err(errno) => Err(FileError { act: "rename to", path: to.to_owned(), source: errno.into() }),
    }
}

/// Removes a file; one that is gone already is fine.
pub(crate) fn remove(path: &Path) -> Result<(), FileError> {
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FileError { act: "remove", path: path.to_owned(), source: error })
        }
        _ => Ok(()),
    }
}

/// Writes a whole new file and makes its bytes durable; what a former attempt left is overwritten.
pub(crate) fn write_synced(path: &Path, bytes: &[u8]) -> Result<(), FileError> {
    std::fs::write(path, bytes).map_err(FileError::at("write", path))?;
    File::options().write(true).open(path).and_then(|f| f.sync_data()).map_err(FileError::at("sync", path))
}

/// The name below which `file` is a sealed segment in `folder`, if it is one.
pub(crate) fn sealed_name(file: &File, folder: &Path) -> Option<PathBuf> {
    let entries = std::fs::read_dir(folder).ok()?;
    let is_sealed = |path: &PathBuf| {
        let name = path.file_name().and_then(std::ffi::OsStr::to_str).and_then(SegmentName::parse_file);
        name.is_some_and(|(_, kind)| kind == FileKind::Sealed)
    };
    let mut sealed = entries.flatten().map(|entry| entry.path()).filter(is_sealed);
    sealed.find(|path| path.try_exists().unwrap_or(false) && is_at(file, path))
}

/// A new empty file, locked for as long as it is open. `direct` opens it with O_DIRECT.
pub(crate) fn create_locked(path: &Path, direct: bool) -> Result<File, FileError> {
    let mut options = File::options();
    options.create_new(true).read(true).write(true);
    if direct {
        options.custom_flags(libc::O_DIRECT);
    }
    let file = options.open(path).map_err(FileError::at("create", path))?;
    file.try_lock().map_err(|error| FileError {
        act: "lock",
        path: path.to_owned(),
        source: match error {
            TryLockError::Error(error) => error,
            TryLockError::WouldBlock => io::Error::from(io::ErrorKind::WouldBlock),
        },
    })?;
    Ok(file)
}

/// Opens and locks a file whose writer may be gone. `None` if someone holds the lock, or if the name
/// vanished or means another file by now.
pub(crate) fn adopt(path: &Path) -> Result<Option<File>, FileError> {
    let file = match File::options().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other.map_err(FileError::at("open", path))?,
    };
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(None),
        Err(TryLockError::Error(error)) => {
            return Err(FileError { act: "lock", path: path.to_owned(), source: error });
        }
    }
    // Between open and lock the writer may have sealed and renamed it.
    Ok(is_at(&file, path).then_some(file))
}

/// Whether `path` names `file` and nothing else. A path that cannot be looked at counts as unchanged.
pub(crate) fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), std::fs::symlink_metadata(path)) {
        (Ok(held), Ok(named)) => (held.dev(), held.ino()) == (named.dev(), named.ino()),
        (_, Err(error)) => !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory),
        (Err(_), Ok(_)) => true,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_are_made_and_synced_up_to_the_store() {
        let dir = tempfile::tempdir().unwrap();
        let hour = dir.path().join("packets/dt=2026-11-21/hr=18");
        assert!(sync_folders(dir.path(), &hour).is_err());
        make_folder(&hour).unwrap();
        make_folder(&hour).unwrap();
        sync_folders(dir.path(), &hour).unwrap();
    }

    #[test]
    fn a_rename_never_replaces() {
        let dir = tempfile::tempdir().unwrap();
        let (a, b) = (dir.path().join("a"), dir.path().join("b"));
        write_synced(&a, b"a").unwrap();
        write_synced(&b, b"b").unwrap();
        let error = rename_new(&a, &b).unwrap_err();
        assert_eq!(error.source.kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(std::fs::read(&b).unwrap(), b"b");
        remove(&b).unwrap();
        remove(&b).unwrap();
        rename_new(&a, &b).unwrap();
        assert_eq!(std::fs::read(&b).unwrap(), b"a");
    }

    #[test]
    fn a_sealed_segment_is_found_by_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let name = SegmentName {
            t0: tapedeck_packet::Timestamp::ZERO,
            sensor: "s".to_owned(),
            interface: "eth1".to_owned(),
            queue: 0,
            run: 1,
            seq: 2,
        };
        let path = dir.path().join(name.file(FileKind::Open));
        let file = create_locked(&path, false).unwrap();
        assert!(is_at(&file, &path));
        assert_eq!(sealed_name(&file, dir.path()), None);
        let sealed = dir.path().join(name.file(FileKind::Sealed));
        rename_new(&path, &sealed).unwrap();
        assert!(!is_at(&file, &path));
        assert_eq!(sealed_name(&file, dir.path()), Some(sealed.clone()));
        std::fs::remove_file(&sealed).unwrap();
        std::fs::write(&sealed, b"").unwrap();
        assert_eq!(sealed_name(&file, dir.path()), None);
    }

    #[test]
    fn only_an_abandoned_file_is_adopted() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x");
        let writer = create_locked(&path, false).unwrap();
        assert!(adopt(&path).unwrap().is_none());
        drop(writer);
        let adopted = adopt(&path).unwrap();
        assert!(adopted.is_some());
        assert!(adopt(&path).unwrap().is_none());
        assert!(adopt(&dir.path().join("absent")).unwrap().is_none());
    }
}
