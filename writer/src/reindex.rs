//! Reindexing: sidecars made again from the packets alone.
//!
//! The new sidecar is written hidden, synced and renamed over the old one, so a reader sees the one or
//! the other, whole. Must never: touch the packets.

use crate::disk;
use crate::error::FileError;
use crate::packs::{Held, PacksReport};
use crate::scan::{FrameFault, Scan, SegmentBytes};
use crate::seal::hidden_index;
use std::io;
use std::path::{Path, PathBuf};
use tapedeck_index::catalog::{self, State};
use tapedeck_index::mapped;
use tapedeck_index::name::{FileKind, SegmentName};

/// What reindexing did.
#[derive(Debug, Default)]
pub struct ReindexReport {
    /// Sidecars written.
    pub written: Vec<PathBuf>,
    /// Segments whose sidecar was right already.
    pub unchanged: u64,
    /// What became of the packs: those that do not hold for the sidecars are made again.
    pub packs: PacksReport,
    /// Segments that got none.
    pub errors: Vec<ReindexError>,
}

/// Why a segment got no new sidecar.
#[derive(Debug, thiserror::Error)]
pub enum ReindexError {
    /// The store cannot be listed.
    #[error(transparent)]
    List(#[from] catalog::CatalogError),
    /// A step on a file failed.
    #[error(transparent)]
    File(#[from] FileError),
    /// The path names no sealed segment.
    #[error("{}: not the name of a sealed segment", .0.display())]
    NotASegment(PathBuf),
    /// The segment has lost its end; its index is whole and says so.
    #[error("{}: {len} bytes are there, its index knows of {expected}; the index is left as it is", path.display())]
    Shortened {
        /// The segment.
        path: PathBuf,
        /// Bytes there are.
        len: u64,
        /// Bytes there were.
        expected: u64,
    },
    /// The segment does not end as a seal ends it.
    #[error("{}: its end is missing; an index of the rest would hide that", .0.display())]
    NoEnd(PathBuf),
    /// The segment is damaged; an index of a part would hide the rest.
    #[error("{}: at byte {offset}: {fault}", path.display())]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Offset of the frame.
        offset: u64,
        /// What is wrong with it.
        fault: FrameFault,
    },
}

/// Makes the sidecars of `segments` again, or of every sealed segment of the store if there are none; then the
/// packs over them. Waits for whoever builds packs in the store.
#[must_use]
pub fn reindex(store: &Path, segments: &[PathBuf]) -> ReindexReport {
    let mut report = ReindexReport::default();
    let all = match segments {
        [] => match catalog::all(&[store.to_owned()]) {
            Ok(listing) => {
                let sealed = listing.segments.iter().filter(|found| found.state == State::Sealed);
                sealed.map(catalog::Found::packets_path).collect()
            }
            Err(error) => {
                report.errors.push(error.into());
                Vec::new()
            }
        },
        some => some.to_vec(),
    };
    let mut scan = match Scan::new() {
        Ok(scan) => scan,
        Err(error) => {
            let source = io::Error::other(error);
            report.errors.push(FileError { act: "reindex", path: store.to_owned(), source }.into());
            return report;
        }
    };
    let mut packs = match Held::take(store) {
        Ok(packs) => packs,
        Err(error) => {
            // Packs could contradict sidecars then.
            report.packs.errors.push(error);
            return report;
        }
    };
    for path in all {
        match reindex_one(&mut scan, &path, &mut packs) {
            Ok(Some(index)) => report.written.push(index),
            Ok(None) => report.unchanged += 1,
            Err(error) => report.errors.push(error),
        }
    }
    let written = report
        .written
        .iter()
        .filter_map(|index| SegmentName::parse_file(index.file_name()?.to_str()?).map(|(name, _)| name));
    let written = written.collect();
    match segments {
        [] => report.packs = packs.rebuild(None),
        _ if report.written.is_empty() => {}
        _ => report.packs = packs.rebuild(Some(&written)),
    }
    report
}

fn reindex_one(scan: &mut Scan, path: &Path, packs: &mut Held) -> Result<Option<PathBuf>, ReindexError> {
    let file = path.file_name().and_then(std::ffi::OsStr::to_str);
    let Some((name, FileKind::Sealed)) = file.and_then(SegmentName::parse_file) else {
        return Err(ReindexError::NotASegment(path.to_owned()));
    };
    scan.clear();
    let mut bytes = SegmentBytes::open(path, None)?;
    if let Some(fault) = scan.run(&mut bytes)? {
        return Err(ReindexError::Damaged { path: path.to_owned(), offset: scan.facts().stored_len, fault });
    }
    let index = path.with_file_name(name.file(FileKind::Index));
    let facts = *scan.facts();
    let made = scan.sidecar(&name).map_err(io::Error::other).map_err(FileError::at("index", path))?;
    if std::fs::read(&index).is_ok_and(|old| old == made) {
        return Ok(None);
    }
    // An index that holds and knows of more than is there is the only witness of what is missing.
    let witness = mapped::open(&index).ok().filter(|old| old.verify().is_ok());
    if let Some(lost) = witness.map(|old| old.summary()).filter(|old| old.segment_len > facts.stored_len) {
        return Err(ReindexError::Shortened {
            path: path.to_owned(),
            len: facts.stored_len,
            expected: lost.segment_len,
        });
    }
    if !facts.ended {
        return Err(ReindexError::NoEnd(path.to_owned()));
    }
    let folder = path.parent().unwrap_or(path);
    let hidden = hidden_index(folder, &name);
    disk::write_synced(&hidden, &made)?;
    packs.before(&name, &made)?;
    std::fs::rename(&hidden, &index).map_err(FileError::at("rename to", &index))?;
    disk::sync_folders(folder, folder)?;
    Ok(Some(index))
}
