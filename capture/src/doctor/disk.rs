//! Facts of a store: its file system, its room, and what writes it takes.
//!
//! What works is tried in a hidden folder of its own, which is gone afterwards; a store that is not there
//! yet is not made.

use super::facts::StoreFacts;
use super::gather::read;
use super::texts;
use nix::sys::statvfs::statvfs;
use std::fs;
use std::path::{Path, PathBuf};
use tapedeck_index::pcapng::InterfaceInfo;
use tapedeck_packet::LinkType;
use tapedeck_writer::{Chain, ChainConfig};

/// All about a store. `try_writes`: also what works there.
pub(crate) fn look(store: &Path, try_writes: bool) -> StoreFacts {
    let folder = existing(store);
    let real = folder.canonicalize().unwrap_or_else(|_| folder.clone());
    let mount = texts::mount_of(&read("/proc/thread-self/mountinfo"), &real).unwrap_or_default();
    let room = statvfs(&real).ok();
    let mut facts = StoreFacts {
        store: store.to_owned(),
        size_bytes: room.map(|room| room.blocks().saturating_mul(room.fragment_size())),
        free_bytes: room.map(|room| room.blocks_available().saturating_mul(room.fragment_size())),
        mount: mount.point,
        filesystem: mount.filesystem,
        read_only: mount.read_only,
        is_file: !folder.is_dir(),
        folder,
        ..StoreFacts::default()
    };
    if try_writes && !facts.read_only {
        match sink(&facts.folder) {
            Ok((kind, reason)) => (facts.sink, facts.sink_reason) = (Some(kind), reason),
            Err(why) => facts.refused = Some(why),
        }
    }
    facts
}

/// The store, or the nearest folder above it that is there.
fn existing(store: &Path) -> PathBuf {
    store.ancestors().find(|path| path.exists()).unwrap_or_else(|| Path::new("/")).to_owned()
}

/// A folder that goes with its value.
struct Trial(PathBuf);

impl Drop for Trial {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// The sink that the writer chooses in `folder`, and why it is the plain one where it is.
fn sink(folder: &Path) -> Result<(&'static str, Option<String>), String> {
    if !folder.is_dir() {
        return Err("there is a file of that name".to_owned());
    }
    let trial = Trial(folder.join(format!(".tapedeck-doctor-{}", std::process::id())));
    fs::create_dir(&trial.0).map_err(|error| error.to_string())?;
    let interface = InterfaceInfo::named("", LinkType::ETHERNET);
    let defaults = ChainConfig::import(trial.0.clone(), "doctor".to_owned(), interface);
    let chain = Chain::start(ChainConfig { frame_buffers: 4, open_segments: 1, ..defaults });
    let chain = chain.map_err(|error| error.to_string())?;
    let (kind, reason) = chain.sink();
    let name = kind.name();
    let reason = reason.map(str::to_owned);
    // Its threads are gone when the folder goes.
    let _ = chain.finish();
    Ok((name, reason))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_store_is_looked_at_and_left_as_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let store = dir.path().join("not/yet");
        let facts = look(&store, true);
        assert_eq!((facts.folder.as_path(), facts.store.as_path()), (dir.path(), store.as_path()));
        assert!(facts.sink.is_some() && facts.refused.is_none(), "{facts:?}");
        assert!(facts.free_bytes.is_some_and(|free| free > 0), "{facts:?}");
        // In a chroot the folder may lie in no mount that can be seen.
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let has_root = mounts.lines().any(|line| line.split(' ').nth(4) == Some("/"));
        assert!(!has_root || !facts.filesystem.is_empty(), "{facts:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_is_no_store() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, b"text").unwrap();
        assert_eq!(look(&file, true).refused.as_deref(), Some("there is a file of that name"));
        assert_eq!(look(&file, false).refused, None);
    }
}
