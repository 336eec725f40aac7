//! The store as a chain found it, and what is made anew when it is taken away under the chain.
//!
//! A store that was deleted is made again, with its description, so that what comes next can be
//! retrieved. One that has become another file system is not: it was unmounted, and what lies below a
//! mount point is somebody else's disk. Must never: write a description where there was none.

use crate::error::FileError;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use tapedeck_index::catalog::{StoreFile, StoreFileError};
use tapedeck_index::name::PACKETS_FOLDER;

/// A store that segments are made in.
#[derive(Clone, Debug)]
pub(crate) struct Home {
    store: PathBuf,
    /// File system it lay on at the start.
    device: u64,
    /// Its sensor, if it was described as a store at the start.
    sensor: Option<String>,
}

impl Home {
    /// The store as it is now; its folder must be there.
    pub(crate) fn of(store: &Path) -> Result<Self, FileError> {
        let device = std::fs::metadata(store).map_err(FileError::at("look at", store))?.dev();
        let sensor = StoreFile::read(store).ok().map(|file| file.sensor);
        Ok(Self { store: store.to_owned(), device, sensor })
    }

    /// Sees to it that segments can be made here and found afterwards.
    pub(crate) fn renew(&self) -> Result<(), FileError> {
        let Some(sensor) = &self.sensor else { return Ok(()) };
        match StoreFile::read(&self.store) {
            Ok(_) => return Ok(()),
            Err(StoreFileError::Absent { .. }) => {}
            Err(error) => return Err(self.refuse("use", cause(error))),
        }
        if device_of_nearest(&self.store)? != self.device {
            let why = "it is on another file system than at the start and holds no store: unmounted?";
            return Err(self.refuse("make anew", io::Error::other(why)));
        }
        StoreFile::read_or_create(&self.store, sensor)
            .map_err(|error| self.refuse("make anew", cause(error)))?;
        tracing::warn!(store = %self.store.display(), "the store was gone; it has been made anew");
        Ok(())
    }

    fn refuse(&self, act: &'static str, source: io::Error) -> FileError {
        FileError { act, path: self.store.clone(), source }
    }
}

/// What the system said, where it is that.
fn cause(error: StoreFileError) -> io::Error {
    match error {
        StoreFileError::Io { source, .. } => source,
        other => io::Error::other(other),
    }
}

/// File system of `path`, or of the first folder above it that is there.
fn device_of_nearest(path: &Path) -> Result<u64, FileError> {
    let mut last = io::Error::from(io::ErrorKind::NotFound);
    for folder in path.ancestors() {
        let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
        match std::fs::metadata(folder) {
            Ok(meta) => return Ok(meta.dev()),
            Err(error) => last = error,
        }
    }
    Err(FileError { act: "look at", path: path.to_owned(), source: last })
}

/// The folder that holds a store's packets, kept open to notice when it is no longer the store's.
#[derive(Debug)]
pub(crate) struct Root {
    path: PathBuf,
    folder: Option<File>,
}

impl Root {
    /// Of the store as it is now.
    pub(crate) fn of(store: &Path) -> Self {
        let path = store.join(PACKETS_FOLDER);
        let folder = File::open(&path).ok();
        Self { path, folder }
    }

    /// Whether it was taken away or replaced since this was asked last.
    pub(crate) fn was_replaced(&mut self) -> bool {
        if self.folder.as_ref().is_some_and(|folder| crate::disk::is_at(folder, &self.path)) {
            return false;
        }
        let was_there = self.folder.is_some();
        self.folder = File::open(&self.path).ok();
        was_there
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_that_is_gone_is_made_anew_and_a_foreign_folder_is_not_made_one() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("deep/store");
        StoreFile::read_or_create(&store, "sensor-1").unwrap();
        let home = Home::of(&store).unwrap();
        home.renew().unwrap();
        std::fs::remove_dir_all(dir.path().join("deep")).unwrap();
        home.renew().unwrap();
        assert_eq!(StoreFile::read(&store).unwrap().sensor, "sensor-1");
        std::fs::write(store.join("store.json"), b"{\"version\":99}").unwrap();
        let error = home.renew().unwrap_err();
        assert!(error.source.to_string().contains("store version 99"), "{}", error.source);
        let plain = dir.path().join("plain");
        std::fs::create_dir(&plain).unwrap();
        Home::of(&plain).unwrap().renew().unwrap();
        assert_eq!(std::fs::read_dir(&plain).unwrap().count(), 0);
    }

    #[test]
    fn nothing_is_made_below_a_mount_point_that_has_lost_its_disk() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("store");
        StoreFile::read_or_create(&store, "sensor-1").unwrap();
        let home = Home { device: u64::MAX, ..Home::of(&store).unwrap() };
        // Another disk that is a store will do.
        home.renew().unwrap();
        std::fs::remove_dir_all(&store).unwrap();
        let error = home.renew().unwrap_err();
        assert!(error.source.to_string().contains("unmounted?"), "{}", error.source);
        assert!(!store.exists());
    }

    #[test]
    fn a_replaced_root_is_noticed_once() {
        let dir = tempfile::tempdir().unwrap();
        let packets = dir.path().join(PACKETS_FOLDER);
        std::fs::create_dir(&packets).unwrap();
        let mut root = Root::of(dir.path());
        assert!(!root.was_replaced());
        std::fs::remove_dir(&packets).unwrap();
        std::fs::create_dir(&packets).unwrap();
        assert!(root.was_replaced());
        assert!(!root.was_replaced());
        std::fs::remove_dir(&packets).unwrap();
        assert!(root.was_replaced());
        assert!(!root.was_replaced());
    }
}
