//! Which files of a table a store holds, by folder listing.
//!
//! Rows only ever move forward: live journal, journal, sealed file. Names are listed in that order, so a
//! row that moves while we look is seen at least once; what is seen twice is known by run and number.

use super::Kind;
use super::name::{TableFile, TableName, parse_live};
use crate::catalog::{CatalogError, Entry, entries, hour_folders};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use tapedeck_packet::{Timestamp, UtcHour};

/// Whether a file is still being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum State {
    /// Its rows are in a journal. It may be sealed at any moment, then list again.
    Open,
    /// A whole Parquet file; never changes.
    Sealed,
}

/// A file of a table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Its name. In an open file `t0` and `t1` are the first row's.
    pub name: TableName,
    /// Open or sealed.
    pub state: State,
    /// The hour of its folder.
    pub hour: UtcHour,
    /// The file or its journal, with the store in front.
    pub path: PathBuf,
}

/// A live journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LiveFound {
    /// Sensor of its writer.
    pub sensor: String,
    /// Run of its writer.
    pub run: u32,
    /// The file, with the store in front.
    pub path: PathBuf,
}

/// What a listing found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Live journals.
    pub live: Vec<LiveFound>,
    /// Files by hour, t1, t0, run, seq; each once, sealed before open.
    pub files: Vec<Found>,
    /// Files and folders below the kind's folder that are none of ours, sorted. They are ignored.
    pub foreign: Vec<PathBuf>,
}

/// Files of `kind` in `stores` that may hold rows overlapping `[from, to)`; without `to` there is no end.
/// Only the folders of those hours are listed, and of a kind with long rows those of all later ones. Sealed files
/// whose name rules out the range are left out.
///
/// # Errors
/// [`CatalogError`] for a folder that is there and cannot be listed.
pub fn list(
    kind: &Kind,
    stores: &[PathBuf],
    from: Timestamp,
    to: Option<Timestamp>,
) -> Result<Listing, CatalogError> {
    let mut listing = Listing::default();
    if to.is_some_and(|to| from >= to) {
        return Ok(listing);
    }
    let (first, last) = match to {
        Some(to) => {
            let (first, last) = kind.hours(from, to);
            (first, Some(last))
        }
        None => (from.hour(), None),
    };
    let wanted = |hour: UtcHour| first <= hour && (kind.long || last.is_none_or(|last| hour <= last));
    let mut found: HashMap<(String, u32, u32), Found> = HashMap::new();
    let mut hours = Vec::new();
    for store in stores {
        let top = store.join(kind.name);
        list_live(&top, &mut listing)?;
        hour_folders(&top, wanted, &mut hours, &mut listing.foreign)?;
    }
    // Live journals lie between the day folders and are no strangers.
    listing
        .foreign
        .retain(|path| path.file_name().and_then(|name| name.to_str()).and_then(parse_live).is_none());
    for state in [State::Open, State::Sealed] {
        for (hour, folder) in &hours {
            for Entry { path, name: file, .. } in entries(folder)? {
                match (file.as_deref().and_then(TableName::parse_file), state) {
                    (Some((name, TableFile::Journal)), State::Open)
                    | (Some((name, TableFile::Sealed)), State::Sealed) => {
                        let key = (name.sensor.clone(), name.run, name.seq);
                        found.insert(key, Found { name, state, hour: *hour, path });
                    }
                    // Once is enough, and a hidden file may be gone by now.
                    (None, State::Sealed) => listing.foreign.push(path),
                    _ => {}
                }
            }
        }
    }
    let outside = |name: &TableName| name.t1 < from || to.is_some_and(|to| name.t0 >= to);
    listing.files = found.into_values().filter(|f| f.state == State::Open || !outside(&f.name)).collect();
    listing.files.sort_unstable_by(|x, y| order(x).cmp(&order(y)));
    listing.foreign.sort_unstable();
    Ok(listing)
}

fn order(found: &Found) -> (UtcHour, Timestamp, Timestamp, u32, u32, &Path) {
    let name = &found.name;
    (found.hour, name.t1, name.t0, name.run, name.seq, &found.path)
}

fn list_live(top: &Path, listing: &mut Listing) -> Result<(), CatalogError> {
    for Entry { path, name: file, .. } in entries(top)? {
        if let Some((sensor, run)) = file.as_deref().and_then(parse_live) {
            listing.live.push(LiveFound { sensor, run, path });
        }
    }
    Ok(())
}
