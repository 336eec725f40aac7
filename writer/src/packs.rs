//! Packs built from sealed sidecars: the level above the indexes (docs/format.md).
//!
//! A small pack is made as soon as [`SMALL_MEMBERS`] segments are in none; a full one as soon as 1,024 are in no
//! full one, and the small ones that it replaces go. One builder at a time in a store, whoever it is: the lock of
//! `packs/.lock` says so. A pack is written hidden, synced, renamed without replacing; its name is that of its
//! content, so a builder that was killed is repeated without harm. Whoever makes sidecars anew holds the lock, too
//! (`held`). Sidecars are read, not mapped: a disk that
//! fails must not take the recorder with it. Memory: one pack's blocks
//! ([`MATRIX_BYTES_MAX`](tapedeck_index::pack::MATRIX_BYTES_MAX)) and one sidecar.
//!
//! Must never: ask a clock, touch packets or sidecars, or be waited for by a recording.

use crate::disk;
use crate::error::FileError;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use tapedeck_index::catalog::{self, Found, HOUR_SLACK_NANOS, Listing, State};
use tapedeck_index::name::SegmentName;
use tapedeck_index::pack::{
    self, Key, MEMBERS_MAX, MemberFacts, PACK_VERSION, PACKS_FOLDER, Pack, PackBuilder, PackBytes, PackError,
    PackName, PackShape,
};
use tapedeck_index::sidecar::Sidecar;
use tapedeck_packet::Timestamp;

mod held;
#[cfg(test)]
mod tests;

pub(crate) use held::Held;

/// Segments in no pack from which on a small one is made.
pub const SMALL_MEMBERS: usize = 128;
/// Name of the file in the packs' folder that whoever builds holds locked.
const LOCK: &str = ".lock";

/// What building did.
#[derive(Debug, Default)]
pub struct PacksReport {
    /// Packs written.
    pub written: Vec<PathBuf>,
    /// Packs removed: replaced by a larger one, damaged, or without a segment that is still there.
    pub removed: Vec<PathBuf>,
    /// Another process is building in this store; nothing was done.
    pub busy: bool,
    /// What could not be done.
    pub errors: Vec<PacksError>,
}

/// Why packs could not be built.
#[derive(Debug, thiserror::Error)]
pub enum PacksError {
    /// The store cannot be listed.
    #[error(transparent)]
    List(#[from] catalog::CatalogError),
    /// A step on a file failed.
    #[error(transparent)]
    File(#[from] FileError),
}

/// Builds the packs that are due in `store`, over sealed segments of hours that were over at `before` (`None` = of all
/// hours). No folder of a later hour is touched: a thread that yields to all others must not hold one while a
/// recorder wants to rename in it. Looks at `stop` between segments; what is whole by then stays.
#[must_use]
pub fn build_packs(store: &Path, before: Option<Timestamp>, stop: &AtomicBool) -> PacksReport {
    let mut report = PacksReport::default();
    if let Err(error) = try_build(store, before, stop, &mut report) {
        report.errors.push(error);
    }
    report
}

/// Packs that are checked in full before they are kept.
#[derive(Clone, Copy)]
enum Doubt<'a> {
    None,
    Of(&'a HashSet<SegmentName>),
    All,
}

impl Doubt<'_> {
    fn concerns(self, pack: &Pack) -> bool {
        match self {
            Self::None => false,
            Self::Of(names) => pack.members().iter().any(|member| names.contains(&member.name)),
            Self::All => true,
        }
    }
}

fn try_build(
    store: &Path,
    before: Option<Timestamp>,
    stop: &AtomicBool,
    report: &mut PacksReport,
) -> Result<(), PacksError> {
    // Listing widens by the slack: the hour that was not over stays out.
    let end = before.map_or(Timestamp::MAX, |now| now.hour().start().saturating_sub(HOUR_SLACK_NANOS));
    let listing = catalog::list(&[store.to_owned()], Timestamp::ZERO, end)?;
    if is_small(store, &listing) {
        return Ok(());
    }
    let Some(_lock) = lock(&store.join(PACKS_FOLDER))? else {
        report.busy = true;
        return Ok(());
    };
    work(store, listing, end, stop, Doubt::None, report)
}

/// Whether a store has no packs and not enough segments for one.
fn is_small(store: &Path, listing: &Listing) -> bool {
    listing.segments.len() < SMALL_MEMBERS && !store.join(PACKS_FOLDER).exists()
}

/// Builds what is due of what is listed; the caller holds the lock.
fn work(
    store: &Path,
    listing: Listing,
    end: Timestamp,
    stop: &AtomicBool,
    doubt: Doubt<'_>,
    report: &mut PacksReport,
) -> Result<(), PacksError> {
    let folder = store.join(PACKS_FOLDER);
    clean(&folder)?;
    let sealed = listing.segments.into_iter().filter(|found| found.state == State::Sealed);
    let sealed: Vec<Found> = sealed.collect();
    let mut builder = Builder { store, folder, end, sealed, packs: Vec::new(), unfit: HashSet::new() };
    builder.take_stock(doubt, report)?;
    while !stop.load(Ordering::Relaxed) && builder.next(stop, report)? {}
    builder.drop_replaced(report)
}

/// The lock of the packs' folder; `None` if another has it.
fn lock(folder: &Path) -> Result<Option<File>, FileError> {
    let (path, file) = lock_file(folder)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(std::fs::TryLockError::WouldBlock) => Ok(None),
        Err(std::fs::TryLockError::Error(error)) => Err(FileError { act: "lock", path, source: error }),
    }
}

/// The file that is locked.
fn lock_file(folder: &Path) -> Result<(PathBuf, File), FileError> {
    disk::make_folder(folder)?;
    let path = folder.join(LOCK);
    let file = File::options().create(true).truncate(false).write(true).open(&path);
    let file = file.map_err(FileError::at("create", &path))?;
    Ok((path, file))
}

/// Removes what a builder that was killed has left half written; the caller holds the lock.
fn clean(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    let hidden = crate::recover::listing(folder)?.into_iter().filter(|path| {
        crate::recover::is_hidden(path)
            && path.extension().and_then(OsStr::to_str) == Some(disk::NEW_EXTENSION)
    });
    hidden.map(|path| disk::remove(&path).map(|()| path)).collect()
}

/// Removes what a killed builder has left, if none is at work: for recovery.
pub(crate) fn clear(store: &Path) -> Result<Vec<PathBuf>, FileError> {
    let folder = store.join(PACKS_FOLDER);
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    match lock(&folder)? {
        Some(_lock) => clean(&folder),
        None => Ok(Vec::new()),
    }
}

/// The packs of a store, by path.
pub(crate) fn list(store: &Path) -> Result<Vec<(PathBuf, PackName)>, FileError> {
    pack::list(store).map_err(FileError::at("list", &store.join(PACKS_FOLDER)))
}

/// A pack that is there.
struct Standing {
    path: PathBuf,
    name: PackName,
    full: bool,
    members: Vec<SegmentName>,
}

/// One builder at work; it holds the lock.
struct Builder<'a> {
    store: &'a Path,
    folder: PathBuf,
    /// Segments from here on were not listed.
    end: Timestamp,
    /// All sealed segments before, by time.
    sealed: Vec<Found>,
    packs: Vec<Standing>,
    /// Segments whose sidecar is not there, not whole or too large: they are asked themselves, as without packs.
    unfit: HashSet<SegmentName>,
}

impl Builder<'_> {
    /// Opens the packs that are there; those that are damaged or stand for nothing any more go.
    fn take_stock(&mut self, doubt: Doubt<'_>, report: &mut PacksReport) -> Result<(), FileError> {
        let there: HashMap<&SegmentName, &Found> =
            self.sealed.iter().map(|found| (&found.name, found)).collect();
        for (path, name) in list(self.store)? {
            let pack = match Pack::open(&path) {
                Ok(pack) => Some(pack),
                // Of a newer program.
                Err(PackError::Version { found }) if found > PACK_VERSION => continue,
                Err(PackError::Io(source)) => return Err(FileError { act: "read", path, source }),
                Err(_) => None,
            };
            let stands = pack.filter(|pack| {
                pack.content() == name.content
                    && (name.last >= self.end
                        || pack.members().iter().any(|member| there.contains_key(&member.name)))
                    && (!doubt.concerns(pack) || check_pack(pack, &name, &there).is_ok())
            });
            match stands {
                Some(pack) => {
                    let members = pack.members().iter().map(|member| member.name.clone()).collect();
                    self.packs.push(Standing { path, name, full: pack.is_full(), members });
                }
                None => {
                    disk::remove(&path)?;
                    report.removed.push(path);
                }
            }
        }
        Ok(())
    }

    /// Builds the next pack that is due. False if none is.
    fn next(&mut self, stop: &AtomicBool, report: &mut PacksReport) -> Result<bool, PacksError> {
        let due = [(true, MEMBERS_MAX), (false, SMALL_MEMBERS)];
        for (full, enough) in due {
            let packed: HashSet<&SegmentName> =
                self.packs.iter().filter(|pack| pack.full || !full).flat_map(|pack| &pack.members).collect();
            let open = self.sealed.iter().filter(|found| !packed.contains(&found.name));
            let open = open.filter(|found| !self.unfit.contains(&found.name));
            let open: Vec<Found> = open.take(MEMBERS_MAX).cloned().collect();
            if open.len() < enough {
                continue;
            }
            let (facts, unfit) = facts(&open, stop);
            let progress = !unfit.is_empty();
            self.unfit.extend(unfit);
            if stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            if facts.len() < enough {
                if progress {
                    return Ok(true);
                }
                continue;
            }
            return self.build(&open, facts, full, stop, report);
        }
        Ok(false)
    }

    /// Builds one pack of these segments, or of the first of them. False if it had to be given up.
    fn build(
        &mut self,
        open: &[Found],
        facts: Vec<MemberFacts>,
        full: bool,
        stop: &AtomicBool,
        report: &mut PacksReport,
    ) -> Result<bool, PacksError> {
        let keys: Vec<u64> = facts.iter().map(|facts| facts.keys).collect();
        let Some(shape) = PackShape::of(&keys) else {
            // Alone it is too much for a pack: it must not stand in the way of those behind it.
            self.unfit.extend(facts.first().map(|first| first.name().clone()));
            return Ok(!facts.is_empty());
        };
        let found: HashMap<&SegmentName, &Found> = open.iter().map(|found| (&found.name, found)).collect();
        let mut builder = PackBuilder::new(&shape, full);
        let mut members = Vec::with_capacity(shape.members);
        for facts in facts.into_iter().take(shape.members) {
            let name = facts.name().clone();
            let sidecar = found.get(&name).and_then(|found| read(found));
            let added = sidecar.is_some_and(|sidecar| matches!(builder.add(facts, &sidecar), Ok(true)));
            // Removed or changed since it was counted: another time.
            if !added || stop.load(Ordering::Relaxed) {
                return Ok(false);
            }
            members.push(name);
        }
        let Some(bytes) = builder.finish() else { return Ok(false) };
        let path = write(self.store, &self.folder, &bytes)?;
        report.written.push(path.clone());
        self.packs.push(Standing { path, name: bytes.name, full, members });
        Ok(true)
    }

    /// Removes small packs whose segments are all in full ones, or gone.
    fn drop_replaced(&mut self, report: &mut PacksReport) -> Result<(), PacksError> {
        let in_full: HashSet<&SegmentName> =
            self.packs.iter().filter(|pack| pack.full).flat_map(|pack| &pack.members).collect();
        let there: HashSet<&SegmentName> = self.sealed.iter().map(|found| &found.name).collect();
        for pack in self.packs.iter().filter(|pack| !pack.full && pack.name.last < self.end) {
            if pack.members.iter().all(|name| in_full.contains(name) || !there.contains(name)) {
                disk::remove(&pack.path)?;
                report.removed.push(pack.path.clone());
            }
        }
        Ok(())
    }
}

/// What a pack keeps of these segments, and those whose sidecars cannot be believed.
fn facts(open: &[Found], stop: &AtomicBool) -> (Vec<MemberFacts>, Vec<SegmentName>) {
    let (mut facts, mut unfit) = (Vec::with_capacity(open.len()), Vec::new());
    for found in open {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let of = read(found).and_then(|sidecar| MemberFacts::of(&found.name, found.hour, &sidecar).ok()?);
        match of {
            // A segment that is shorter than its sidecar says is told of with every answer.
            Some(of) => facts.push(of),
            None => unfit.push(found.name.clone()),
        }
    }
    (facts, unfit)
}

/// The sidecar of a segment, in memory.
fn read(found: &Found) -> Option<Sidecar> {
    Sidecar::from_bytes(std::fs::read(found.index_path()).ok()?).ok()
}

/// Writes a pack; one that is there with the same name is the same.
fn write(store: &Path, folder: &Path, bytes: &PackBytes) -> Result<PathBuf, FileError> {
    let path = folder.join(bytes.name.to_string());
    let hidden = folder.join(format!(".{}.{}", bytes.name, disk::NEW_EXTENSION));
    let written = File::create(&hidden).and_then(|mut file| {
        file.write_all(&bytes.front)?;
        file.write_all(&bytes.blocks)?;
        file.sync_data()
    });
    if let Err(source) = written {
        // Nobody needs half of it, least of all a full disk.
        let _ = std::fs::remove_file(&hidden);
        return Err(FileError { act: "write", path: hidden, source });
    }
    match disk::rename_new(&hidden, &path) {
        Err(error) if error.source.kind() == io::ErrorKind::AlreadyExists => disk::remove(&hidden)?,
        renamed => renamed?,
    }
    disk::sync_folders(store, folder)?;
    Ok(path)
}

/// What of a pack does not hold for the sidecars as they are.
#[derive(Debug, thiserror::Error)]
pub enum PackFault {
    /// The pack itself does not hold.
    #[error(transparent)]
    Pack(#[from] PackError),
    /// Its name is another one's.
    #[error("its name is not that of its content")]
    Name,
    /// The sidecar of a member is another one than the pack was made from.
    #[error("it was made from another index of {0}")]
    Sidecar(SegmentName),
    /// It denies what the sidecar of a member has: answers would lack packets.
    #[error("it says that {0} does not hold {1:?}, the index of which has it")]
    Denied(SegmentName, Key),
}

/// Checks a pack against the sidecars of its members that are still there and whole.
///
/// # Errors
/// The first [`PackFault`].
pub(crate) fn check_pack(
    pack: &Pack,
    name: &PackName,
    there: &HashMap<&SegmentName, &Found>,
) -> Result<(), PackFault> {
    if pack.content() != name.content {
        return Err(PackFault::Name);
    }
    let blocks = pack.blocks()?;
    for (number, member) in pack.members().iter().enumerate() {
        let sidecar = there.get(&member.name).and_then(|found| read(found));
        let Some(sidecar) = sidecar.filter(|sidecar| sidecar.check().is_ok()) else { continue };
        let summary = sidecar.summary();
        let mut denied = None;
        let notes = sidecar.keys(&mut |key| {
            if denied.is_none() && !blocks.holds(number, &key) {
                denied = Some(key);
            }
        });
        let same = (member.sidecar_len, member.fingerprint) == (sidecar.byte_len(), sidecar.fingerprint())
            && (Some((member.t_min, member.t_max)), member.segment_len)
                == (summary.times, summary.segment_len)
            && notes.is_ok_and(|notes| !notes.always || member.is_always());
        if !same {
            return Err(PackFault::Sidecar(member.name.clone()));
        }
        if let Some(key) = denied {
            return Err(PackFault::Denied(member.name.clone(), key));
        }
    }
    Ok(())
}
