//! How the recorder writes its status, also when the disk has no room left.
//!
//! Two files of a run take turns: the hidden one is overwritten in place, then both change names in one
//! step. Their blocks were taken at the start, so a file system that overwrites in place needs no more.
//! One that does not, or is full at the start, refuses; then a stand-in in the folder of the locks tells
//! `status` that the recorder lives. A reader that has opened the visible file has a second to read it.
//! Must never: leave a file behind when the run ends in order.

use super::{RUN_FOLDER, Status, read_folder};
use crate::lock;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tapedeck_packet::Timestamp;
use tapedeck_packet::time::NANOS_PER_SEC;

/// Age at which a new recorder clears a status away.
const DEAD_NS: u64 = 3600 * NANOS_PER_SEC;
/// Bytes reserved for a status, and the step in which it grows: some 80 queues.
const RESERVE: usize = 64 * 1024;

/// The status files of one run.
#[derive(Debug)]
pub(crate) struct StatusFiles {
    slots: Vec<Slot>,
    /// Beside the locks, for the time when a store takes nothing.
    stand_in: Option<PathBuf>,
    /// The operator knows that it is needed.
    said: bool,
}

/// The pair of files in one store.
#[derive(Debug)]
struct Slot {
    store: PathBuf,
    visible: PathBuf,
    /// Overwritten next.
    hidden: PathBuf,
    /// Becomes the hidden one when the first has become visible.
    second: PathBuf,
}

impl StatusFiles {
    /// Makes the folders, takes the blocks, and clears away what dead recorders left. A store that takes
    /// nothing is no error: [`StatusFiles::write`] says so.
    pub(crate) fn new(stores: &[PathBuf], run: u32, now: Timestamp) -> Self {
        let slots = stores.iter().map(|store| {
            let folder = store.join(RUN_FOLDER);
            clear(&folder, now);
            let file = |end| folder.join(format!("{run:08x}.{end}"));
            let (visible, hidden, second) = (file("json"), file("new"), file("next"));
            let slot = Slot { store: store.clone(), visible, hidden, second };
            let made = fs::create_dir_all(&folder).and_then(|()| slot.reserve());
            if let Err(error) = made {
                tracing::debug!(%error, folder = %folder.display(), "no room reserved for the status");
            }
            slot
        });
        let slots = slots.collect();
        let stand_in = lock::folder().ok().map(|folder| folder.join(format!("{run:08x}.json")));
        if let Some(folder) = stand_in.as_deref().and_then(Path::parent) {
            clear(folder, now);
        }
        Self { slots, stand_in, said: false }
    }

    /// Writes the status to every store, and to the stand-in if one of them refused.
    ///
    /// # Errors
    /// Neither a store nor its stand-in took it.
    pub(crate) fn write(&mut self, status: &Status) -> io::Result<()> {
        let text = serde_json::to_vec(status)?;
        let mut refused = None;
        for slot in &self.slots {
            // One full store must not silence the others.
            if let Err(error) = slot.write(&text) {
                refused = Some((slot.visible.clone(), error));
            }
        }
        let Some(stand_in) = &self.stand_in else {
            return refused.map_or(Ok(()), |(_, error)| Err(error));
        };
        let Some((path, error)) = refused else {
            if std::mem::take(&mut self.said) {
                let _ = fs::remove_file(stand_in);
            }
            return Ok(());
        };
        if !std::mem::replace(&mut self.said, true) {
            let (path, stand_in) = (path.display(), stand_in.display());
            tracing::warn!(%error, %path, %stand_in, "the store does not take the status; it is written elsewhere");
        }
        let hidden = stand_in.with_extension("new");
        fs::write(&hidden, &text).and_then(|()| fs::rename(&hidden, stand_in))
    }
}

impl Drop for StatusFiles {
    /// A recorder that has ended says so by having no file.
    fn drop(&mut self) {
        for slot in &self.slots {
            for path in [&slot.visible, &slot.hidden, &slot.second] {
                let _ = fs::remove_file(path);
            }
        }
        if let Some(path) = &self.stand_in {
            let _ = fs::remove_file(path);
            let _ = fs::remove_file(path.with_extension("new"));
        }
    }
}

impl Slot {
    /// Takes the blocks of both files.
    fn reserve(&self) -> io::Result<()> {
        for path in [&self.hidden, &self.second] {
            let file = File::create(path)?;
            file.write_all_at(&[b' '; RESERVE], 0)?;
            // Only now are the blocks really taken: allocation may be delayed.
            file.sync_all()?;
        }
        Ok(())
    }

    fn write(&self, text: &[u8]) -> io::Result<()> {
        match self.overwrite(text) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                // The folder went with its store. Only a store gets a new one: what lies below a mount
                // point that has lost its disk is none.
                fs::metadata(self.store.join("store.json"))?;
                fs::create_dir_all(self.store.join(RUN_FOLDER))?;
                self.reserve()?;
                self.overwrite(text)
            }
            other => other,
        }
    }

    /// Overwrites the hidden file, then makes it the visible one.
    fn overwrite(&self, text: &[u8]) -> io::Result<()> {
        let mut bytes = text.to_vec();
        // JSON may end in blanks.
        bytes.resize(text.len().next_multiple_of(RESERVE), b' ');
        let file = File::options().write(true).create(true).truncate(false).open(&self.hidden)?;
        file.write_all_at(&bytes, 0)?;
        let swap = RenameFlags::RENAME_EXCHANGE;
        match renameat2(AT_FDCWD, &self.hidden, AT_FDCWD, &self.visible, swap) {
            Ok(()) => Ok(()),
            // The first time; and EINVAL from file systems that cannot exchange names.
            Err(Errno::ENOENT | Errno::EINVAL) => {
                fs::rename(&self.hidden, &self.visible)?;
                match fs::rename(&self.second, &self.hidden) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                    _ => Ok(()),
                }
            }
            Err(errno) => Err(errno.into()),
        }
    }
}

/// Removes what recorders left that have been dead for long.
fn clear(folder: &Path, now: Timestamp) {
    for (path, status) in read_folder(folder) {
        if now.nanos().saturating_sub(status.updated_ns) > DEAD_NS {
            let _ = fs::remove_file(&path);
        }
    }
    // A hidden one is renewed as often as its visible one.
    let limit = Duration::from_nanos(now.nanos().saturating_sub(DEAD_NS));
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        let hidden = path.extension().is_some_and(|end| end == "new" || end == "next");
        let modified = entry.metadata().and_then(|meta| meta.modified());
        if hidden && modified.is_ok_and(|at| at < SystemTime::UNIX_EPOCH + limit) {
            let _ = fs::remove_file(&path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::running;
    use super::*;
    use crate::ledger::{Ledger, SessionEntry};
    use std::collections::BTreeMap;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_nanos_saturating(seconds * NANOS_PER_SEC)
    }

    fn status(run: u32, seconds: u64, stores: &[PathBuf]) -> Status {
        let ledger = Ledger::close(run, at(1), at(seconds), Vec::new(), Vec::new(), SessionEntry::default());
        let stores = stores.to_vec();
        Status {
            version: 1,
            pid: 1,
            updated_ns: at(seconds).nanos(),
            stores,
            clock: None,
            filter: None,
            ledger,
            workers: Vec::new(),
            nic: BTreeMap::new(),
            cards: BTreeMap::new(),
        }
    }

    /// A run number that no other test of this machine has.
    fn own_run(number: u32) -> u32 {
        std::process::id().wrapping_mul(16).wrapping_add(number)
    }

    #[test]
    fn a_status_is_believed_for_five_seconds() {
        let dir = tempfile::tempdir().unwrap();
        let stores = [dir.path().to_path_buf()];
        let [store] = &stores;
        let mut files = StatusFiles::new(&stores, own_run(1), at(100));
        assert!(running(store, at(100)).is_empty());
        for second in 100..104 {
            let status = status(own_run(1), second, &stores);
            files.write(&status).unwrap();
            assert_eq!(running(store, at(second + 5)), [status]);
            assert!(running(store, at(second + 6)).is_empty());
        }
        drop(files);
        assert!(running(store, at(103)).is_empty());
        assert_eq!(fs::read_dir(store.join(RUN_FOLDER)).unwrap().count(), 0);
    }

    #[test]
    fn a_store_that_takes_nothing_has_a_stand_in_until_it_does_again() {
        let dir = tempfile::tempdir().unwrap();
        let stores = [dir.path().join("store")];
        let [store] = &stores;
        fs::create_dir(store).unwrap();
        // A file where the folder should be: nothing can be written, as on a full disk.
        fs::write(store.join(RUN_FOLDER), b"").unwrap();
        let mut files = StatusFiles::new(&stores, own_run(2), at(100));
        let first = status(own_run(2), 100, &stores);
        files.write(&first).unwrap();
        assert_eq!(running(store, at(100)), [first]);
        assert!(running(dir.path(), at(100)).is_empty());
        fs::remove_file(store.join(RUN_FOLDER)).unwrap();
        fs::write(store.join("store.json"), b"").unwrap();
        let second = status(own_run(2), 101, &stores);
        files.write(&second).unwrap();
        assert_eq!(running(store, at(101)), [second]);
        assert!(!files.stand_in.as_ref().unwrap().exists());
        // Taken away with its folder, it comes again.
        fs::remove_dir_all(store.join(RUN_FOLDER)).unwrap();
        let third = status(own_run(2), 102, &stores);
        files.write(&third).unwrap();
        assert_eq!(running(store, at(102)), [third]);
    }

    #[test]
    fn files_of_the_dead_are_cleared_away() {
        let dir = tempfile::tempdir().unwrap();
        let stores = [dir.path().to_path_buf()];
        let mut old = StatusFiles::new(&stores, own_run(3), at(1));
        old.write(&status(own_run(3), 1, &stores)).unwrap();
        std::mem::forget(old);
        let path = dir.path().join(format!(".run/{:08x}.json", own_run(3)));
        drop(StatusFiles::new(&stores, own_run(4), at(3_600)));
        assert!(path.exists());
        drop(StatusFiles::new(&stores, own_run(4), at(3_602)));
        assert!(!path.exists());
        // The hidden one has the file system's time, which is that of the test.
        let hidden = path.with_extension("new");
        assert!(hidden.exists());
        let later = crate::identity::now().saturating_add(2 * DEAD_NS);
        drop(StatusFiles::new(&stores, own_run(4), later));
        assert!(!hidden.exists());
    }
}
