//! The live file of a chain, on the writer's side: made and locked before the first packet, overwritten
//! in place, removed at the end.
//!
//! Its one block is allocated at the start, so a full disk does not stop it. If someone deletes it, it is
//! made again.

use crate::config::ChainConfig;
use crate::disk;
use crate::error::FileError;
use std::fs::File;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use tapedeck_index::live::{self, LIVE_SUFFIX, RUN_FOLDER};
use tapedeck_index::name::SegmentName;
use tapedeck_packet::Timestamp;

/// Time between two looks at whether the file is still there.
const LOOK: Duration = Duration::from_secs(1);

/// A live file.
#[derive(Debug)]
pub(crate) struct LiveFile {
    path: PathBuf,
    /// Locked for as long as it is open.
    file: File,
    next_look: Instant,
    failing: bool,
}

impl LiveFile {
    /// Makes the file of a chain and clears away those of dead recorders. It states that the chain is
    /// whole up to now: no packet has come yet.
    pub(crate) fn create(config: &ChainConfig) -> Result<Self, FileError> {
        let ChainConfig { sensor, queue, run, .. } = config;
        let (sensor, interface) = (sensor.clone(), config.interface.name.clone());
        let chain = SegmentName { t0: Timestamp::ZERO, sensor, interface, queue: *queue, run: *run, seq: 0 };
        let folder = config.store.join(RUN_FOLDER);
        disk::make_folder(&folder)?;
        clear(&config.store);
        let path = folder.join(live::file_name(&chain));
        let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let now = u64::try_from(since_epoch.as_nanos()).unwrap_or_default();
        let file = make(&path, Timestamp::from_nanos_saturating(now))?;
        Ok(Self { path, file, next_look: Instant::now() + LOOK, failing: false })
    }

    /// States that every packet of the chain up to `until` can be read or is counted as lost.
    pub(crate) fn state(&mut self, until: Timestamp) {
        if let Err(error) = self.try_state(until) {
            if !self.failing {
                tracing::warn!(error = %error.source, "cannot {} {}: readers see nothing new", error.act, error.path.display());
            }
            self.failing = true;
        } else {
            self.failing = false;
        }
    }

    fn try_state(&mut self, until: Timestamp) -> Result<(), FileError> {
        let now = Instant::now();
        if now >= self.next_look || self.failing {
            self.next_look = now + LOOK;
            if !disk::is_at(&self.file, &self.path) {
                // The store itself is not made again: whoever removed it meant it.
                let _ = self.path.parent().map(std::fs::create_dir);
                self.file = make(&self.path, until)?;
            }
        }
        self.file.write_all_at(&live::encode(until), 0).map_err(FileError::at("write", &self.path))
    }
}

impl Drop for LiveFile {
    fn drop(&mut self) {
        if disk::is_at(&self.file, &self.path) {
            let _ = disk::remove(&self.path);
        }
    }
}

/// A locked file that states `until` and appears whole.
fn make(path: &Path, until: Timestamp) -> Result<File, FileError> {
    let new = path.with_extension(disk::NEW_EXTENSION);
    disk::remove(&new)?;
    let file = disk::create_locked(&new, false)?;
    let made = file.write_all_at(&live::encode(until), 0).map_err(FileError::at("write", &new));
    let made = made.and_then(|()| std::fs::rename(&new, path).map_err(FileError::at("rename to", path)));
    if made.is_err() {
        let _ = disk::remove(&new);
    }
    made.map(|()| file)
}

/// Removes the live files of recorders that are gone.
pub(crate) fn clear(store: &Path) {
    let Ok(entries) = std::fs::read_dir(store.join(RUN_FOLDER)) else { return };
    for path in entries.flatten().map(|entry| entry.path()) {
        if path.to_string_lossy().ends_with(LIVE_SUFFIX)
            && let Ok(Some(_lock)) = disk::adopt(&path)
        {
            let _ = disk::remove(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SinkChoice;
    use crate::testing::{at, config};

    #[test]
    fn it_states_survives_removal_and_goes_with_its_chain() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), SinkChoice::Plain);
        let mut file = LiveFile::create(&config).unwrap();
        let path = dir.path().join(".run/sensor%2D1-eth1-q0-abcd0123.live");
        let read = || live::decode(&std::fs::read(&path).unwrap());
        assert!(read().unwrap() > at(1));
        file.state(at(77));
        assert_eq!(read(), Some(at(77)));
        assert!(disk::adopt(&path).unwrap().is_none(), "not locked");
        std::fs::remove_dir_all(dir.path().join(".run")).unwrap();
        file.next_look = Instant::now();
        file.state(at(78));
        assert_eq!(read(), Some(at(78)));
        drop(file);
        assert!(!path.exists());
    }

    #[test]
    fn what_a_dead_recorder_left_is_cleared_away() {
        let dir = tempfile::tempdir().unwrap();
        let config = config(dir.path(), SinkChoice::Plain);
        let folder = dir.path().join(".run");
        std::fs::create_dir(&folder).unwrap();
        let dead = folder.join("lab-eth9-q0-00000001.live");
        std::fs::write(&dead, live::encode(at(1))).unwrap();
        let living = LiveFile::create(&config).unwrap();
        assert!(!dead.exists());
        let other = LiveFile::create(&ChainConfig { queue: 1, ..config }).unwrap();
        assert!(living.path.exists() && other.path.exists());
    }
}
