//! The packs of a store while sidecars are made anew.
//!
//! A reader believes a pack of a segment whose files have the lengths that the pack states; a sidecar that changes and
//! keeps its length would be denied what it holds. So whoever makes sidecars anew waits for the builder that is at
//! work, keeps others out, and removes a pack *before* the sidecar comes that the pack was not made from.

use super::{Doubt, PacksError, PacksReport, is_small, list, lock, lock_file, work};
use crate::disk;
use crate::error::FileError;
use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicBool;
use tapedeck_index::catalog;
use tapedeck_index::name::SegmentName;
use tapedeck_index::pack::{PACKS_FOLDER, Pack};
use tapedeck_index::sidecar::Sidecar;
use tapedeck_packet::Timestamp;

/// A pack, and what it says of the sidecars that it was made from: their fingerprints.
struct Standing {
    path: PathBuf,
    fingerprints: HashMap<SegmentName, u64>,
}

/// The lock of a store's packs.
pub(crate) struct Held {
    store: PathBuf,
    /// `None` = a small store without packs, in which no builder makes any.
    lock: Option<File>,
    packs: Vec<Standing>,
    removed: Vec<PathBuf>,
}

impl Held {
    /// Takes the lock; waits for a builder that has it.
    ///
    /// # Errors
    /// [`PacksError`]: the store cannot be listed, or its packs' folder not be made.
    pub(crate) fn take(store: &Path) -> Result<Self, PacksError> {
        let mut this = Self { store: store.to_owned(), lock: None, packs: Vec::new(), removed: Vec::new() };
        if is_small(store, &catalog::all(&[store.to_owned()])?) {
            return Ok(this);
        }
        this.lock = Some(wait(&store.join(PACKS_FOLDER))?);
        for (path, _) in list(store)? {
            // What cannot be read excludes nothing, and is looked at when packs are built.
            let Ok(pack) = Pack::open(&path) else { continue };
            let members = pack.members().iter();
            let fingerprints = members.map(|member| (member.name.clone(), member.fingerprint)).collect();
            this.packs.push(Standing { path, fingerprints });
        }
        Ok(this)
    }

    /// Called before the sidecar of a segment becomes `sidecar`: packs that were made from another one go.
    ///
    /// # Errors
    /// [`FileError`]: a pack cannot be removed; the sidecar must stay as it is.
    pub(crate) fn before(&mut self, name: &SegmentName, sidecar: &[u8]) -> Result<(), FileError> {
        if !self.packs.iter().any(|pack| pack.fingerprints.contains_key(name)) {
            return Ok(());
        }
        let new = Sidecar::from_bytes(sidecar.to_vec()).ok().map(|sidecar| sidecar.fingerprint());
        let mut at = 0;
        while let Some(Standing { path, fingerprints }) = self.packs.get(at) {
            if fingerprints.get(name).is_none_or(|old| Some(*old) == new) {
                at += 1;
                continue;
            }
            disk::remove(path)?;
            self.removed.push(self.packs.swap_remove(at).path);
        }
        Ok(())
    }

    /// Removes the packs that do not hold for the sidecars as they are, and builds those that are due. Only packs
    /// with one of `segments` are checked, or all.
    pub(crate) fn rebuild(mut self, segments: Option<&HashSet<SegmentName>>) -> PacksReport {
        let removed = std::mem::take(&mut self.removed);
        let mut report = PacksReport { removed, ..PacksReport::default() };
        let doubt = segments.map_or(Doubt::All, Doubt::Of);
        if let Err(error) = self.try_rebuild(doubt, &mut report) {
            report.errors.push(error);
        }
        report
    }

    fn try_rebuild(&mut self, doubt: Doubt<'_>, report: &mut PacksReport) -> Result<(), PacksError> {
        if self.lock.is_none() {
            // It may have grown meanwhile, beside a recorder.
            *self = Self::take(&self.store)?;
        }
        if self.lock.is_none() {
            return Ok(());
        }
        let listing = catalog::all(std::slice::from_ref(&self.store))?;
        work(&self.store, listing, Timestamp::MAX, &AtomicBool::new(false), doubt, report)
    }
}

/// The lock, however long another one has it.
fn wait(folder: &Path) -> Result<File, FileError> {
    if let Some(file) = lock(folder)? {
        return Ok(file);
    }
    tracing::info!(folder = %folder.display(), "waiting for who builds packs there");
    let (path, file) = lock_file(folder)?;
    file.lock().map_err(FileError::at("lock", &path))?;
    Ok(file)
}
