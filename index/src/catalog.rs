//! The catalog: which segments a store holds, by folder listing.
//!
//! Listing is all there is to it: no cache, no lock, no file is opened. A segment that is sealed while
//! the catalog looks is still found, because hidden names are listed first and sealed ones second. A
//! sidecar without packets tells of lost ones, once a second listing has seen the same.

use crate::name::{FileKind, PACKETS_FOLDER, SegmentName};
use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tapedeck_packet::time::NANOS_PER_SEC;
use tapedeck_packet::{Timestamp, UtcHour};

mod store_file;
#[cfg(test)]
mod tests;

pub use store_file::{STORE_VERSION, StoreFile, StoreFileError};

/// A segment holds the packets of one UTC hour and up to this much on either side.
pub const HOUR_SLACK_NANOS: u64 = 2 * NANOS_PER_SEC;

/// Time between two listings that must agree on what is missing: whoever seals or removes a segment is
/// then done with both of its files.
const CONFIRM_PAUSE: Duration = Duration::from_millis(50);

/// Threads that list folders, at most: they wait for a disk, not for a processor.
const LISTERS: usize = 8;
/// Folders for which one thread more is worth it.
const FOLDERS_A_LISTER: usize = 8;

/// A folder that cannot be listed.
#[derive(Debug, thiserror::Error)]
pub enum CatalogError {
    /// The operating system refused.
    #[error("{path}: cannot list the folder")]
    List {
        /// The folder.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
}

/// Whether a segment is still being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// `.NAME.open`: read it with its journal. It may be sealed at any moment, then list again.
    Open,
    /// `NAME.pcapng.zst`: whole, never changes.
    Sealed,
}

/// A segment of the catalog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name. In an open segment `t0` is provisional.
    pub name: SegmentName,
    /// Open or sealed.
    pub state: State,
    /// The hour of its folder.
    pub hour: UtcHour,
    /// Its folder, with the store in front.
    pub folder: PathBuf,
}

impl Found {
    /// The packets: `NAME.pcapng.zst` or `.NAME.open`.
    #[must_use]
    pub fn packets_path(&self) -> PathBuf {
        let kind = if self.state == State::Open { FileKind::Open } else { FileKind::Sealed };
        self.folder.join(self.name.file(kind))
    }

    /// What indexes them: `NAME.idx` or `.NAME.journal`. It may be missing.
    #[must_use]
    pub fn index_path(&self) -> PathBuf {
        let kind = if self.state == State::Open { FileKind::Journal } else { FileKind::Index };
        self.folder.join(self.name.file(kind))
    }
}

/// What a listing found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Segments by t0, interface, queue, run, seq; each once, sealed before open.
    pub segments: Vec<Found>,
    /// Segments, in the same order, of which only the sidecar is left: their packets are lost.
    pub missing: Vec<Found>,
    /// Files and folders below `packets/` that are none of ours, sorted. They are ignored.
    pub foreign: Vec<PathBuf>,
}

/// Segments of the hours that `[from, to)`, widened by [`HOUR_SLACK_NANOS`], touches. Only those
/// hours' folders are listed. A store without `packets/` holds none.
///
/// # Errors
/// [`CatalogError`] for a folder that is there and cannot be listed.
pub fn list(stores: &[PathBuf], from: Timestamp, to: Timestamp) -> Result<Listing, CatalogError> {
    if from >= to {
        return Ok(Listing::default());
    }
    let first = from.saturating_sub(HOUR_SLACK_NANOS).hour();
    let last = to.saturating_sub(1).saturating_add(HOUR_SLACK_NANOS).hour();
    list_hours(stores, |hour| first <= hour && hour <= last)
}

/// All segments of the stores.
///
/// # Errors
/// As [`list`].
pub fn all(stores: &[PathBuf]) -> Result<Listing, CatalogError> {
    list_hours(stores, |_| true)
}

fn list_hours(stores: &[PathBuf], wanted: impl Fn(UtcHour) -> bool) -> Result<Listing, CatalogError> {
    let first = list_once(stores, &wanted)?;
    if first.missing.is_empty() {
        return Ok(first);
    }
    // A seal shows the sidecar first, and both are removed one after the other: only what stays missing is.
    std::thread::sleep(CONFIRM_PAUSE);
    let mut again = list_once(stores, &wanted)?;
    again.missing.retain(|found| first.missing.contains(found));
    Ok(again)
}

fn list_once(stores: &[PathBuf], wanted: &impl Fn(UtcHour) -> bool) -> Result<Listing, CatalogError> {
    let mut listing = Listing::default();
    let mut hours = Vec::new();
    for store in stores {
        hour_folders(&store.join(PACKETS_FOLDER), wanted, &mut hours, &mut listing.foreign)?;
    }
    let (mut all, mut indexes) = (Vec::new(), Vec::new());
    for state in [State::Open, State::Sealed] {
        // Only hidden names are open segments; there may be very many others.
        let files = files(&hours, state == State::Open);
        for ((hour, folder), files) in hours.iter().zip(files) {
            let Files { named, foreign } = files?;
            for (name, kind) in named {
                match (kind, state) {
                    (FileKind::Open, State::Open) | (FileKind::Sealed, State::Sealed) => {
                        all.push(Found { name, state, hour: *hour, folder: folder.clone() });
                    }
                    (FileKind::Index, State::Sealed) => indexes.push((name, hour, folder)),
                    _ => {}
                }
            }
            // Once is enough, and a hidden file may be gone by now.
            if state == State::Sealed {
                listing.foreign.extend(foreign);
            }
        }
    }
    // Without t0, which sealing may change: an open segment keeps its number, but not always its t0. A later, sealed
    // entry replaces an open one.
    let key = |name: &SegmentName| (name.run, name.seq);
    let mut last: HashMap<(u32, u32, &str), usize> = HashMap::with_capacity(all.len());
    for (at, Found { name, .. }) in all.iter().enumerate() {
        let (run, seq) = key(name);
        last.insert((run, seq, &name.sensor), at);
    }
    for (name, hour, folder) in indexes {
        let (run, seq) = key(&name);
        if !last.contains_key(&(run, seq, name.sensor.as_str())) {
            listing.missing.push(Found { name, state: State::Sealed, hour: *hour, folder: folder.clone() });
        }
    }
    let mut kept = vec![false; all.len()];
    for at in last.into_values() {
        if let Some(kept) = kept.get_mut(at) {
            *kept = true;
        }
    }
    listing.segments = all.into_iter().zip(kept).filter_map(|(found, kept)| kept.then_some(found)).collect();
    for list in [&mut listing.segments, &mut listing.missing] {
        list.sort_unstable_by(|x, y| order(&x.name).cmp(&order(&y.name)));
    }
    listing.foreign.sort_unstable();
    Ok(listing)
}

/// The files of a folder.
#[derive(Default)]
struct Files {
    /// What the names of ours say.
    named: Vec<(SegmentName, FileKind)>,
    /// The others.
    foreign: Vec<PathBuf>,
}

impl Files {
    /// Those of one folder, or only the hidden ones; none where it is gone.
    fn of(folder: &Path, hidden_only: bool) -> Result<Self, CatalogError> {
        let mut files = Self::default();
        each_entry(folder, hidden_only, &mut |entry, name| {
            // A folder, a pipe or a dead link of such a name is no segment; reading a pipe might never end.
            let parsed = name.to_str().filter(|_| is_file(folder, entry)).and_then(SegmentName::parse_file);
            match parsed {
                Some(named) => files.named.push(named),
                None => files.foreign.push(folder.join(name)),
            }
        })?;
        Ok(files)
    }
}

/// The files of each of these folders. Where there are many, several are listed at a time: cold ones wait for a disk.
fn files(hours: &[(UtcHour, PathBuf)], hidden_only: bool) -> Vec<Result<Files, CatalogError>> {
    let listed: Vec<OnceLock<Result<Files, CatalogError>>> = hours.iter().map(|_| OnceLock::new()).collect();
    let next = AtomicUsize::new(0);
    let work = || {
        // Each number is taken once, whatever the order: Relaxed.
        while let Some(at) = Some(next.fetch_add(1, Ordering::Relaxed)).filter(|at| *at < hours.len()) {
            if let (Some((_, folder)), Some(slot)) = (hours.get(at), listed.get(at)) {
                let _ = slot.set(Files::of(folder, hidden_only));
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..LISTERS.min(hours.len() / FOLDERS_A_LISTER) {
            // Where there is no thread left, fewer do it.
            let _ = std::thread::Builder::new().name("list".to_owned()).spawn_scoped(scope, work);
        }
        work();
    });
    listed.into_iter().map(|slot| slot.into_inner().unwrap_or(Ok(Files::default()))).collect()
}

fn order(name: &SegmentName) -> (Timestamp, &str, u32, u32, u32) {
    (name.t0, &name.interface, name.queue, name.run, name.seq)
}

/// The hour folders below `top` that are wanted, and what lies between them and is no hour folder.
pub(crate) fn hour_folders(
    top: &Path,
    wanted: impl Fn(UtcHour) -> bool,
    hours: &mut Vec<(UtcHour, PathBuf)>,
    foreign: &mut Vec<PathBuf>,
) -> Result<(), CatalogError> {
    for Entry { path: day_path, name: day_name, .. } in entries(top)? {
        let Some(midnight) = day_name.as_deref().and_then(parse_day) else {
            foreign.push(day_path);
            continue;
        };
        let hours_of_day = || (midnight.hours()..midnight.hours() + 24).map(UtcHour::from_hours);
        if !hours_of_day().any(&wanted) {
            continue;
        }
        for Entry { path, name, .. } in entries(&day_path)? {
            let hour =
                hours_of_day().find(|hour| name.as_deref() == Some(&format!("hr={:02}", hour.hour_of_day())));
            match hour {
                Some(hour) if wanted(hour) => hours.push((hour, path)),
                Some(_) => {}
                None => foreign.push(path),
            }
        }
    }
    Ok(())
}

/// The first hour of the day that `dt=YYYY-MM-DD` names.
fn parse_day(folder: &str) -> Option<UtcHour> {
    let text = folder.strip_prefix("dt=")?;
    let mut parts = text.split('-');
    let [year, month, day] = std::array::from_fn(|_| parts.next().and_then(|part| part.parse::<u64>().ok()));
    let (year, month, day) = (year?, month?, day?);
    if year > 9999 || month > 12 || day > 31 {
        return None;
    }
    // Days from 1970-01-01 by counting from a year that begins in March, so that the leap day comes last.
    let (y, m) = if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let days = (365 * y + y / 4 - y / 100 + y / 400 + (153 * m + 2) / 5 + day).checked_sub(719_469)?;
    let hour = UtcHour::from_hours(days.checked_mul(24)?);
    // One spelling only; also refuses days that are in no month.
    (hour.date() == text).then_some(hour)
}

/// An entry of a folder.
pub(crate) struct Entry {
    pub(crate) path: PathBuf,
    /// If it is UTF-8.
    pub(crate) name: Option<String>,
}

/// Entries of a folder. None where there is no such folder: retention
/// removes them while we look, and a file is nothing to list.
pub(crate) fn entries(folder: &Path) -> Result<Vec<Entry>, CatalogError> {
    let mut found = Vec::new();
    each_entry(folder, false, &mut |_, name| {
        found.push(Entry { path: folder.join(name), name: name.to_str().map(str::to_owned) });
    })?;
    Ok(found)
}

/// Gives each entry of a folder to `take`, or only those whose names begin with a dot.
fn each_entry(
    folder: &Path,
    hidden_only: bool,
    take: &mut dyn FnMut(&fs::DirEntry, &OsStr),
) -> Result<(), CatalogError> {
    let error = |source| CatalogError::List { path: folder.to_path_buf(), source };
    let listing = match fs::read_dir(folder) {
        Err(source) if matches!(source.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(());
        }
        listing => listing.map_err(error)?,
    };
    for entry in listing {
        let entry = entry.map_err(error)?;
        let name = entry.file_name();
        if !hidden_only || name.as_encoded_bytes().starts_with(b".") {
            take(&entry, &name);
        }
    }
    Ok(())
}

/// A regular file, or a link to one.
fn is_file(folder: &Path, entry: &fs::DirEntry) -> bool {
    let leads = |kind: fs::FileType| {
        kind.is_file() || (kind.is_symlink() && folder.join(entry.file_name()).is_file())
    };
    entry.file_type().map_or(true, leads)
}
