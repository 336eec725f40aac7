//! Recovery: what a writer left open becomes a sealed segment.
//!
//! A frame's number is its place in the file. That is what keeps packets from being lost or doubled:
//! frames are taken from the file (with the journal's tails over it) as long as they are whole, and the
//! journal's open blocks give the frames whose numbers the file does not reach. Where a number is
//! missing between them, a frame of statistics holds its place. So a recovery that is killed and run
//! again finds each packet in a frame or in the journal, and never in both.
//!
//! Order: tails written into the file, cut behind the last whole frame, frames from open blocks
//! appended, sync, then the seal as the writer does it; the journal goes last. Must never: touch a file
//! whose writer lives.

use crate::disk;
use crate::error::FileError;
use crate::scan::{FrameFault, Scan, SegmentBytes};
use crate::seal;
use crate::segment::Paths;
use crate::sink::to_u64;
use crate::table::recover::recover_tables;
use crate::table::{RecoveredTable, TableWriteError};
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tapedeck_index::catalog::{self, Found, State};
use tapedeck_index::frame::{self, Encoder};
use tapedeck_index::journal::{Replay, ReplayError, Stop};
use tapedeck_index::name::{FileKind, SegmentName};
use tapedeck_index::pcapng::{self, Blocks, Counters};
use tapedeck_index::sidecar::Head;
use tapedeck_index::table::TableError;
use tapedeck_packet::Timestamp;

#[cfg(test)]
mod tests;

/// Time between two attempts to take a lock.
const LOCK_POLL: Duration = Duration::from_millis(10);
/// Level of the frames that recovery makes.
const LEVEL: i32 = 3;

/// What recovery did in a store.
#[derive(Debug, Default)]
pub struct RecoverReport {
    /// Segments that were open, one each.
    pub segments: Vec<Recovered>,
    /// Journals of tables that were left behind, one each.
    pub tables: Vec<RecoveredTable>,
    /// Open segments and journals whose writers live: left alone.
    pub busy: Vec<PathBuf>,
    /// Hidden files that belonged to nothing any more: removed.
    pub removed: Vec<PathBuf>,
    /// What could not be done; the files concerned are as they were.
    pub errors: Vec<RecoverError>,
}

/// What recovery cannot do.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    /// A folder cannot be listed.
    #[error(transparent)]
    List(#[from] catalog::CatalogError),
    /// A step on a file failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// There are bytes, but neither the file nor a journal says what link they are from.
    #[error("{}: {bytes} bytes without a segment header and without a journal", path.display())]
    NoHeader {
        /// The open file.
        path: PathBuf,
        /// Its bytes up to the last that is not zero.
        bytes: u64,
    },
    /// The journal is of a version that this program does not know.
    #[error("{}: {source}", path.display())]
    Journal {
        /// The journal.
        path: PathBuf,
        /// Which.
        source: ReplayError,
    },
    /// The journal of a table says nothing, or is of a version that this program does not know.
    #[error("{}: {source}", path.display())]
    Table {
        /// The journal.
        path: PathBuf,
        /// Which.
        source: tapedeck_index::table::journal::ReplayError,
    },
    /// The rows beside a live journal cannot be read: nobody knows which of its own they replace.
    #[error("{}: {source}", path.display())]
    Read {
        /// The live journal.
        path: PathBuf,
        /// Why.
        source: tapedeck_index::table::read::ReadError,
    },
    /// Rows cannot become a Parquet file.
    #[error(transparent)]
    Rows(#[from] TableError),
}

impl From<TableWriteError> for RecoverError {
    fn from(error: TableWriteError) -> Self {
        match error {
            TableWriteError::File(error) => Self::File(error),
            TableWriteError::Table(error) => Self::Rows(error),
        }
    }
}

/// How a journal was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JournalState {
    /// Every byte holds.
    Whole,
    /// It ends within a record, as when its writer is killed.
    Cut,
    /// A record does not hold; nothing behind it was used.
    Damaged,
    /// There is none, or nothing in it: frames alone were used.
    Missing,
}

/// A segment that was open.
#[derive(Clone, Debug)]
pub struct Recovered {
    /// The file it was in.
    pub open: PathBuf,
    /// Where it is now; `None` if it held no packet and was removed.
    pub sealed: Option<PathBuf>,
    /// Packets in all.
    pub packets: u64,
    /// Captured bytes of these packets.
    pub bytes: u64,
    /// Packets among them that only the journal had.
    pub from_journal: u64,
    /// Offset of the first byte that was cut, and how many bytes up to the last that is not zero.
    pub cut: Option<(u64, u64)>,
    /// What was at that offset.
    pub fault: Option<FrameFault>,
    /// How the journal was found.
    pub journal: JournalState,
}

/// How to recover.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecoverOptions {
    /// How long to wait for the locks of open segments, in all. A killed process holds its locks until
    /// the kernel has taken its io_uring apart, a moment after the process is gone.
    pub patience: Duration,
}

impl Default for RecoverOptions {
    fn default() -> Self {
        Self { patience: Duration::from_secs(1) }
    }
}

/// Recovers every open segment of the store at `store` whose writer is gone, and removes hidden files
/// that belong to nothing. Run again, it does nothing.
#[must_use]
pub fn recover(store: &Path, options: &RecoverOptions) -> RecoverReport {
    let mut report = RecoverReport::default();
    let patience_ends = Instant::now() + options.patience;
    let mut waiting = Vec::new();
    match catalog::all(&[store.to_owned()]) {
        Ok(listing) => {
            waiting.extend(listing.segments.into_iter().filter(|found| found.state == State::Open));
        }
        Err(error) => report.errors.push(error.into()),
    }
    loop {
        waiting.retain(|found| !recover_open(store, found, &mut report));
        let mut attempt = RecoverReport::default();
        let busy_tables = recover_tables(store, &mut attempt);
        report.tables.append(&mut attempt.tables);
        report.removed.append(&mut attempt.removed);
        if (waiting.is_empty() && busy_tables.is_empty()) || Instant::now() >= patience_ends {
            report.busy.extend(busy_tables);
            report.errors.append(&mut attempt.errors);
            break;
        }
        std::thread::sleep(LOCK_POLL);
    }
    report.busy.extend(waiting.iter().map(Found::packets_path));
    crate::live::clear(store);
    if let Err(error) = clean(store, &mut report) {
        report.errors.push(error.into());
    }
    match crate::packs::clear(store) {
        Ok(mut removed) => report.removed.append(&mut removed),
        Err(error) => report.errors.push(error.into()),
    }
    report
}

/// One open segment. `false` if its lock is held.
fn recover_open(store: &Path, found: &Found, report: &mut RecoverReport) -> bool {
    let paths = Paths {
        store: store.to_owned(),
        folder: found.folder.clone(),
        open: found.packets_path(),
        journal: found.index_path(),
    };
    match disk::adopt(&paths.open) {
        Ok(Some(_lock)) => match recover_locked(&paths, &found.name) {
            Ok(recovered) => report.segments.push(recovered),
            Err(error) => report.errors.push(error),
        },
        // Else it has been sealed meanwhile.
        Ok(None) => return !paths.open.exists(),
        Err(error) => report.errors.push(error.into()),
    }
    true
}

/// Makes a sealed segment of an open one. The caller holds its lock.
pub(crate) fn recover_locked(paths: &Paths, name: &SegmentName) -> Result<Recovered, RecoverError> {
    let (replay, journal) = read_journal(&paths.journal)?;
    let mut bytes = SegmentBytes::open(&paths.open, replay.as_ref())?;
    let mut scan = Scan::new().map_err(|error| codec(&paths.open, error))?;
    let fault = scan.run(&mut bytes)?;
    let whole = scan.facts().stored_len;
    let lost = last_byte(&mut bytes, whole)?.saturating_sub(whole);
    let in_frames = scan.facts().packets;
    let mut new = match &replay {
        Some(replay) => missing_frames(&mut scan, replay, &paths.open)?,
        None if whole == 0 && lost > 0 => {
            return Err(RecoverError::NoHeader { path: paths.open.clone(), bytes: lost });
        }
        None => Vec::new(),
    };
    end(&mut scan, name.t0, &paths.open, &mut new)?;
    let facts = *scan.facts();
    let mut recovered = Recovered {
        open: paths.open.clone(),
        sealed: None,
        packets: facts.packets,
        bytes: facts.bytes,
        from_journal: facts.packets - in_frames,
        cut: (lost > 0).then_some((whole, lost)),
        fault: fault.filter(|_| lost > 0),
        journal,
    };
    let Some((t0, _)) = facts.times else {
        seal::discard(paths)?;
        return Ok(recovered);
    };
    mend(&paths.open, bytes.patches(), whole, &new)?;
    let name = SegmentName { t0, ..name.clone() };
    let index = scan.sidecar(&name);
    if let Err(error) = &index {
        tracing::error!(%error, segment = %name, "no sidecar can be made");
    }
    recovered.sealed = Some(seal::publish(paths, &name, index.as_deref().ok())?);
    Ok(recovered)
}

/// The journal, if there is one that says anything.
fn read_journal(path: &Path) -> Result<(Option<Replay>, JournalState), RecoverError> {
    let bytes = match std::fs::read(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((None, JournalState::Missing)),
        bytes => bytes.map_err(FileError::at("read", path))?,
    };
    match Replay::read(&bytes) {
        Ok(replay) => {
            let state = match replay.stop() {
                Stop::End => JournalState::Whole,
                Stop::Cut => JournalState::Cut,
                Stop::Damaged => JournalState::Damaged,
            };
            Ok((Some(replay), state))
        }
        Err(source @ ReplayError::Version { .. }) => {
            Err(RecoverError::Journal { path: path.to_owned(), source })
        }
        Err(ReplayError::NoStart(Stop::Damaged)) => Ok((None, JournalState::Damaged)),
        Err(ReplayError::NoStart(_)) => Ok((None, JournalState::Missing)),
    }
}

/// Frames, compressed, for the open blocks whose numbers the file does not reach; the scan takes them.
fn missing_frames(scan: &mut Scan, replay: &Replay, path: &Path) -> Result<Vec<u8>, RecoverError> {
    let mut encoder = Encoder::new().map_err(|error| codec(path, error))?;
    let mut out = Vec::new();
    let open: BTreeMap<u32, &[u8]> = replay.open_blocks().map(|(n, b)| (n, whole_blocks(b))).collect();
    let Some(last) = open.iter().rev().find(|(_, blocks)| !blocks.is_empty()).map(|(n, _)| *n) else {
        return Ok(out);
    };
    while scan.facts().frames <= last {
        let number = scan.facts().frames;
        let mut held = Vec::new();
        let blocks = match open.get(&number).filter(|blocks| !blocks.is_empty()) {
            Some(blocks) => *blocks,
            None => {
                if number == 0 {
                    held = Head::encode(&replay.start().section, &replay.start().interface);
                }
                last_statistics(&mut held, scan, replay.start().name.t0);
                &held
            }
        };
        let start = out.len();
        let made = encoder.compress(LEVEL, blocks, &mut out).or_else(|_| frame::store_raw(blocks, &mut out));
        made.map_err(|error| codec(path, error))?;
        if let Err(fault) = scan.blocks(blocks, out.len() - start) {
            // Our own journal, checksummed, holds what no segment may hold: leave it to a human.
            return Err(codec(path, fault).into());
        }
    }
    Ok(out)
}

/// Appends to `new` the frame that ends every sealed segment, if it is not there: the last statistics known.
fn end(scan: &mut Scan, t0: Timestamp, path: &Path, new: &mut Vec<u8>) -> Result<(), RecoverError> {
    if scan.facts().packets == 0 || scan.facts().ended {
        return Ok(());
    }
    let mut blocks = Vec::new();
    last_statistics(&mut blocks, scan, t0);
    let stored = frame::store_raw(&blocks, new).map_err(|error| codec(path, error))?;
    scan.blocks(&blocks, stored).map_err(|fault| codec(path, fault).into())
}

/// The statistics known so far, again: what stands where a frame's number is known to be lost.
fn last_statistics(out: &mut Vec<u8>, scan: &Scan, t0: Timestamp) {
    let (ts, counters) = scan.facts().statistics.unwrap_or((t0, Counters::default()));
    pcapng::encode_statistics(out, ts, &counters);
}

/// `blocks` up to the last whole block.
fn whole_blocks(blocks: &[u8]) -> &[u8] {
    let mut walk = Blocks::new(blocks);
    walk.by_ref().for_each(drop);
    blocks.get(..walk.offset()).unwrap_or_default()
}

/// Offset behind the last byte that is not zero, `from` or beyond.
fn last_byte(bytes: &mut SegmentBytes<'_>, from: u64) -> Result<u64, FileError> {
    const STEP: u64 = 1 << 20;
    let mut end = bytes.len();
    while end > from {
        let start = end.saturating_sub(STEP).max(from);
        let part = bytes.range(start, end)?;
        if let Some(at) = part.iter().rposition(|byte| *byte != 0) {
            return Ok(start + to_u64(at) + 1);
        }
        end = start;
    }
    Ok(from)
}

/// Makes the file whole: `patches` that only the journal had, nothing behind `whole` but `new`. Done
/// twice it gives the same.
fn mend(path: &Path, patches: &[(u64, Vec<u8>)], whole: u64, new: &[u8]) -> Result<(), FileError> {
    let file = File::options().write(true).open(path).map_err(FileError::at("open", path))?;
    for (offset, bytes) in patches {
        file.write_all_at(bytes, *offset).map_err(FileError::at("write", path))?;
    }
    file.set_len(whole).map_err(FileError::at("cut", path))?;
    file.write_all_at(new, whole).map_err(FileError::at("write", path))?;
    file.sync_data().map_err(FileError::at("sync", path))
}

fn codec(path: &Path, error: impl std::error::Error + Send + Sync + 'static) -> FileError {
    FileError { act: "recover", path: path.to_owned(), source: io::Error::other(error) }
}

/// Removes hidden files that belong to no open segment, and sidecars that a segment has left behind.
fn clean(store: &Path, report: &mut RecoverReport) -> Result<(), FileError> {
    for folder in hour_folders(store)? {
        for path in listing(&folder)? {
            let removable = match path.extension().and_then(OsStr::to_str) {
                Some("journal") => is_spent_journal(&path),
                Some(disk::NEW_EXTENSION) => abandoned_new(&path)?,
                Some("idx") => is_orphan_index(&path)?,
                _ => false,
            };
            if removable {
                disk::remove(&path)?;
                report.removed.push(path);
            }
        }
    }
    Ok(())
}

/// A journal whose segment is sealed or was never opened. A writer makes `.new` before the journal and
/// renames it to `.open`: if the first is gone and then the second is not there, neither ever comes.
fn is_spent_journal(journal: &Path) -> bool {
    let absent = |extension: &str| !journal.with_extension(extension).exists();
    is_hidden(journal) && absent(disk::NEW_EXTENSION) && absent("open")
}

/// A segment whose writer died while making it; its journal holds no packet.
fn abandoned_new(new: &Path) -> Result<bool, FileError> {
    if !is_hidden(new) || disk::adopt(new)?.is_none() {
        return Ok(false);
    }
    disk::remove(&new.with_extension("journal"))?;
    Ok(true)
}

/// A hidden sidecar of a segment that is not open, or one that a segment sealed under another t0 has left.
/// A sidecar whose segment is nowhere is kept: it is the only witness of lost packets.
fn is_orphan_index(index: &Path) -> Result<bool, FileError> {
    let Some((name, FileKind::Index)) = index_name(index) else { return Ok(false) };
    let folder = index.parent().unwrap_or(index);
    // The open file first: while it is there, it may become sealed at any moment.
    let (mut open, mut elsewhere) = (false, false);
    for path in listing(folder)? {
        let parsed = path.file_name().and_then(OsStr::to_str).and_then(SegmentName::parse_file);
        let Some((other, kind)) = parsed else { continue };
        if (&other.sensor, other.run, other.seq) == (&name.sensor, name.run, name.seq) {
            open |= kind == FileKind::Open;
            elsewhere |= kind == FileKind::Sealed && other.t0 != name.t0;
        }
    }
    let sealed = folder.join(name.file(FileKind::Sealed)).exists();
    Ok(!open && (is_hidden(index) || (elsewhere && !sealed)))
}

fn index_name(path: &Path) -> Option<(SegmentName, FileKind)> {
    let file = path.file_name()?.to_str()?;
    SegmentName::parse_file(file.strip_prefix('.').unwrap_or(file))
}

pub(crate) fn is_hidden(path: &Path) -> bool {
    path.file_name().and_then(OsStr::to_str).is_some_and(|name| name.starts_with('.'))
}

fn hour_folders(store: &Path) -> Result<Vec<PathBuf>, FileError> {
    let mut hours = Vec::new();
    for day in listing(&store.join(tapedeck_index::name::PACKETS_FOLDER))? {
        for hour in listing(&day)? {
            if hour.is_dir() {
                hours.push(hour);
            }
        }
    }
    Ok(hours)
}

/// The paths in a folder, sorted; none if it is not there or no folder.
pub(crate) fn listing(folder: &Path) -> Result<Vec<PathBuf>, FileError> {
    let entries = match std::fs::read_dir(folder) {
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries.map_err(FileError::at("list", folder))?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<Result<Vec<_>, _>>().map_err(FileError::at("list", folder))?;
    paths.sort();
    Ok(paths)
}
