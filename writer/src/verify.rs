//! Verification: every byte of every sealed segment is looked at.
//!
//! Each frame's checksum and blocks, the name against the packets, the hour of the folder, and the
//! sidecar against one made afresh, byte for byte; every sidecar must have its packets; of a table each file's
//! checksum and rows; each pack against the sidecars it stands for. Must never: change anything.

use crate::error::FileError;
use crate::packs::{self, PackFault};
use crate::scan::{FrameFault, Scan, SegmentBytes};
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use tapedeck_index::catalog::{self, Found, HOUR_SLACK_NANOS, Listing, State};
use tapedeck_index::mapped;
use tapedeck_index::name::SegmentName;
use tapedeck_index::pack::{Pack, PackError};
use tapedeck_index::sidecar::Sidecar;
use tapedeck_index::table::encode::FileFault;
use tapedeck_index::table::{self, KINDS, Kind};
use tapedeck_packet::Timestamp;

/// What verification found.
#[derive(Debug, Default)]
pub struct VerifyReport {
    /// Sealed segments looked at.
    pub segments: u64,
    /// Frames that hold.
    pub frames: u64,
    /// Packets in them.
    pub packets: u64,
    /// Stored bytes of these frames.
    pub stored_bytes: u64,
    /// Files of tables looked at.
    pub tables: u64,
    /// Rows in them.
    pub rows: u64,
    /// Packs looked at.
    pub packs: u64,
    /// What does not hold.
    pub damage: Vec<Damage>,
    /// Open segments: being written, or waiting for recovery. They are not looked at.
    pub unsealed: Vec<PathBuf>,
    /// Files and folders below `packets/` that are none of ours.
    pub foreign: Vec<PathBuf>,
}

/// Something that does not hold.
#[derive(Debug, thiserror::Error)]
#[error("{}: {what}", path.display())]
pub struct Damage {
    /// The file.
    pub path: PathBuf,
    /// What is wrong, and where.
    pub what: Fault,
}

/// What is wrong with a file of the store.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// A frame does not hold; what follows it was not looked at.
    #[error("at byte {offset}: {fault}")]
    Frame {
        /// Offset of the frame.
        offset: u64,
        /// What is wrong with it.
        fault: FrameFault,
    },
    /// There is no packet in it.
    #[error("the segment holds no packet")]
    Empty,
    /// The smallest packet time is not the one of the name.
    #[error("the name says {named}, the first packet is of {actual}")]
    Name {
        /// Time in the name.
        named: Timestamp,
        /// Smallest packet time.
        actual: Timestamp,
    },
    /// A packet lies outside the folder's hour by more than two seconds.
    #[error("a packet of {packet} in the folder of {hour}")]
    Hour {
        /// The packet's time.
        packet: Timestamp,
        /// Beginning of the folder's hour.
        hour: Timestamp,
    },
    /// The sidecar is there, its packets are not.
    #[error("its segment is missing: {}", lost(packets.as_ref(), times.as_ref()))]
    Missing {
        /// How many; `None` where the sidecar cannot be read.
        packets: Option<u64>,
        /// Smallest and largest packet time.
        times: Option<(Timestamp, Timestamp)>,
    },
    /// The segment has lost its end; its sidecar tells.
    #[error("{len} bytes are there, its index knows of {expected} bytes and {packets} packets")]
    Shortened {
        /// Bytes there are.
        len: u64,
        /// Bytes there were.
        expected: u64,
        /// Packets there were.
        packets: u64,
    },
    /// The segment does not end as a seal does.
    #[error("the segment does not end with a frame of statistics: its end is missing")]
    NoEnd,
    /// There is no sidecar.
    #[error("the sidecar is missing")]
    NoIndex,
    /// The sidecar is not the one that the packets give.
    #[error("the sidecar differs from the packets at byte {offset}")]
    Index {
        /// First byte that differs.
        offset: usize,
    },
    /// It cannot be read.
    #[error("cannot be read: {0}")]
    Read(io::Error),
    /// No sidecar can be made from it.
    #[error(transparent)]
    Build(#[from] tapedeck_index::sidecar::BuildError),
    /// A file of a table does not hold.
    #[error(transparent)]
    Table(#[from] FileFault),
    /// A pack does not hold, or not for the sidecars as they are.
    #[error(transparent)]
    Pack(#[from] PackFault),
}

/// What a missing segment held, in words.
fn lost(packets: Option<&u64>, times: Option<&(Timestamp, Timestamp)>) -> String {
    match (packets, times) {
        (Some(packets), Some((first, last))) => format!("{packets} packets from {first} to {last} are lost"),
        (Some(packets), None) => format!("{packets} packets are lost"),
        (None, _) => "it is not known how many packets are lost".to_owned(),
    }
}

/// Looks at every sealed segment, and every file of a table, of a store.
///
/// # Errors
/// [`FileError`] if the store cannot be listed or there is no memory; damage is no error, but in the
/// report.
pub fn verify(store: &Path) -> Result<VerifyReport, FileError> {
    let list = || -> Result<Listing, FileError> {
        let listing = catalog::all(&[store.to_owned()]);
        listing.map_err(io::Error::other).map_err(FileError::at("list", store))
    };
    let listing = list()?;
    let mut report = VerifyReport { foreign: listing.foreign, ..VerifyReport::default() };
    let mut scan = Scan::new().map_err(io::Error::other).map_err(FileError::at("verify", store))?;
    for found in &listing.segments {
        match found.state {
            State::Open => report.unsealed.push(found.packets_path()),
            State::Sealed => verify_one(&mut scan, found, &mut report),
        }
    }
    // Listed only now: it also tells of segments that have gone while the others were read.
    for found in list()?.missing {
        let witness = mapped::open(&found.index_path()).ok().map(|sidecar| sidecar.summary());
        let witness = witness.filter(|told| (told.run, told.seq) == (found.name.run, found.name.seq));
        let (packets, times) = (witness.map(|told| told.packets), witness.and_then(|told| told.times));
        let what = Fault::Missing { packets, times };
        report.damage.push(Damage { path: found.index_path(), what });
    }
    verify_packs(store, &listing.segments, &mut report)?;
    for kind in KINDS {
        verify_table(kind, store, &mut report)?;
    }
    Ok(report)
}

/// Each pack against the sidecars that are there. A sidecar that is damaged is told of with its segment.
fn verify_packs(store: &Path, segments: &[Found], report: &mut VerifyReport) -> Result<(), FileError> {
    let there = segments.iter().filter(|found| found.state == State::Sealed);
    let there: HashMap<&SegmentName, &Found> = there.map(|found| (&found.name, found)).collect();
    for (path, name) in packs::list(store)? {
        let held = match Pack::open(&path) {
            // A builder has replaced it.
            Err(PackError::Io(error)) if error.kind() == io::ErrorKind::NotFound => continue,
            opened => opened.map_err(Into::into).and_then(|pack| packs::check_pack(&pack, &name, &there)),
        };
        report.packs += 1;
        if let Err(fault) = held {
            report.damage.push(Damage { path, what: fault.into() });
        }
    }
    Ok(())
}

fn verify_table(kind: &Kind, store: &Path, report: &mut VerifyReport) -> Result<(), FileError> {
    let listing = table::list(kind, &[store.to_owned()], Timestamp::ZERO, None);
    let listing = listing.map_err(io::Error::other).map_err(FileError::at("list", store))?;
    report.foreign.extend(listing.foreign);
    report.unsealed.extend(listing.live.into_iter().map(|found| found.path));
    for found in listing.files {
        let result = match found.state {
            table::State::Open => {
                report.unsealed.push(found.path);
                continue;
            }
            table::State::Sealed => match std::fs::read(&found.path) {
                Ok(bytes) => table::encode::check(kind, &found.name, bytes.into()).map_err(Fault::Table),
                // Retention was quicker.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => Err(Fault::Read(error)),
            },
        };
        report.tables += 1;
        match result {
            Ok(rows) => report.rows += rows,
            Err(what) => report.damage.push(Damage { path: found.path, what }),
        }
    }
    Ok(())
}

fn verify_one(scan: &mut Scan, found: &Found, report: &mut VerifyReport) {
    let path = found.packets_path();
    let mut damaged = |path: &Path, what| report.damage.push(Damage { path: path.to_owned(), what });
    scan.clear();
    let fault = SegmentBytes::open(&path, None).and_then(|mut bytes| scan.run(&mut bytes));
    let facts = *scan.facts();
    let whole = match fault {
        Ok(None) => true,
        Ok(Some(fault)) => {
            damaged(&path, Fault::Frame { offset: facts.stored_len, fault });
            false
        }
        // Removed since it was listed; its sidecar, if it is still there, is told of in the end.
        Err(error) if error.source.kind() == io::ErrorKind::NotFound => return,
        Err(error) => {
            damaged(&path, Fault::Read(error.source));
            false
        }
    };
    if whole {
        for what in name_faults(&found.name, found, facts.times) {
            damaged(&path, what);
        }
        if !facts.ended && facts.packets > 0 {
            damaged(&path, Fault::NoEnd);
        }
        let index = found.index_path();
        match check_index(scan, &found.name, &index) {
            Err(what @ Fault::Shortened { .. }) => damaged(&path, what),
            Err(what) => damaged(&index, what),
            Ok(()) => {}
        }
    }
    report.segments += 1;
    report.frames += u64::from(facts.frames);
    report.packets += facts.packets;
    report.stored_bytes += facts.stored_len;
}

/// What name and folder say that the packets do not.
fn name_faults(name: &SegmentName, found: &Found, times: Option<(Timestamp, Timestamp)>) -> Vec<Fault> {
    let Some((first, last)) = times else { return vec![Fault::Empty] };
    let mut faults = Vec::new();
    if first != name.t0 {
        faults.push(Fault::Name { named: name.t0, actual: first });
    }
    let hour = found.hour.start();
    if first < hour.saturating_sub(HOUR_SLACK_NANOS) {
        faults.push(Fault::Hour { packet: first, hour });
    }
    if last >= found.hour.end().saturating_add(HOUR_SLACK_NANOS) {
        faults.push(Fault::Hour { packet: last, hour });
    }
    faults
}

fn check_index(scan: &Scan, name: &SegmentName, path: &Path) -> Result<(), Fault> {
    let made = scan.sidecar(name)?;
    match std::fs::read(path) {
        Ok(old) if old == made => Ok(()),
        Ok(old) => {
            let len = scan.facts().stored_len;
            let witness = Sidecar::from_bytes(old.clone()).ok().filter(|told| told.verify().is_ok());
            let told = witness.map(|told| told.summary()).filter(|told| told.segment_len > len);
            if let Some(told) = told.filter(|told| (told.run, told.seq) == (name.run, name.seq)) {
                return Err(Fault::Shortened { len, expected: told.segment_len, packets: told.packets });
            }
            let differ = old.iter().zip(&made).position(|(old, made)| old != made);
            Err(Fault::Index { offset: differ.unwrap_or(old.len().min(made.len())) })
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Fault::NoIndex),
        Err(error) => Err(Fault::Read(error)),
    }
}
