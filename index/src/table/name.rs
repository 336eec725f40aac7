//! Names of table files: `<t0>-<t1>-<sensor>-<run>-<seq>.parquet`, the journal beside an open one, and
//! the live journal of a writer.

use crate::name::{JOURNAL_SUFFIX, escape, unescape};
use std::fmt;
use tapedeck_packet::Timestamp;

/// Suffix of a whole file.
pub const PARQUET_SUFFIX: &str = ".parquet";
/// Suffix of a writer's live journal, whose name also begins with a dot.
pub const LIVE_SUFFIX: &str = ".live";

/// The parts of a table file's name (docs/format.md).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableName {
    /// Smallest first time of its rows; of an open file, the first row's.
    pub t0: Timestamp,
    /// Largest last time of its rows; of an open file, the first row's.
    pub t1: Timestamp,
    /// Sensor id, unescaped. In a parsed name that was too long: its cut form.
    pub sensor: String,
    /// Random number of the writing process.
    pub run: u32,
    /// Counts the files of a run, per kind.
    pub seq: u32,
}

/// Which file a file name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TableFile {
    /// `NAME.parquet`: whole, never changes.
    Sealed,
    /// `.NAME.parquet`: being written at the seal; the journal still speaks for it.
    Hidden,
    /// `.NAME.journal`: the rows of a file that is not sealed.
    Journal,
}

impl TableName {
    /// Reads a file name of any of the three; `None` for a foreign file.
    #[must_use]
    pub fn parse_file(file: &str) -> Option<(Self, TableFile)> {
        let (stem, kind) = match file.strip_prefix('.') {
            Some(hidden) => match hidden.strip_suffix(JOURNAL_SUFFIX) {
                Some(stem) => (stem, TableFile::Journal),
                None => (hidden.strip_suffix(PARQUET_SUFFIX)?, TableFile::Hidden),
            },
            None => (file.strip_suffix(PARQUET_SUFFIX)?, TableFile::Sealed),
        };
        Some((Self::parse(stem)?, kind))
    }

    fn parse(stem: &str) -> Option<Self> {
        let mut parts = stem.split('-');
        let [t0, t1, sensor, run, seq] = std::array::from_fn(|_| parts.next());
        let name = Self {
            t0: Timestamp::from_nanos(t0?.parse().ok()?)?,
            t1: Timestamp::from_nanos(t1?.parse().ok()?)?,
            sensor: unescape(sensor?)?,
            run: u32::from_str_radix(run?, 16).ok()?,
            seq: seq?.parse().ok()?,
        };
        // One spelling only: no second name may mean the same file.
        (parts.next().is_none() && name.to_string() == stem).then_some(name)
    }

    /// The file name of `kind`, without folder.
    #[must_use]
    pub fn file(&self, kind: TableFile) -> String {
        match kind {
            TableFile::Sealed => format!("{self}{PARQUET_SUFFIX}"),
            TableFile::Hidden => format!(".{self}{PARQUET_SUFFIX}"),
            TableFile::Journal => format!(".{self}{JOURNAL_SUFFIX}"),
        }
    }

    /// What stays the same while the times in the name move.
    #[must_use]
    pub fn key(&self) -> (&str, u32, u32) {
        (&self.sensor, self.run, self.seq)
    }
}

impl fmt::Display for TableName {
    /// The name without dot and suffix; at most 152 bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { t0, t1, sensor, run, seq } = self;
        write!(f, "{:020}-{:020}-{}-{run:08x}-{seq}", t0.nanos(), t1.nanos(), escape(sensor))
    }
}

/// The name of a writer's live journal, `.<sensor>-<run>.live`, which lies in the kind's folder itself.
#[must_use]
pub fn live_file(sensor: &str, run: u32) -> String {
    format!(".{}-{run:08x}{LIVE_SUFFIX}", escape(sensor))
}

/// Reads the name of a live journal: sensor and run; `None` for a foreign file.
#[must_use]
pub fn parse_live(file: &str) -> Option<(String, u32)> {
    let stem = file.strip_prefix('.')?.strip_suffix(LIVE_SUFFIX)?;
    let (sensor, run) = stem.split_once('-')?;
    let (sensor, run) = (unescape(sensor)?, u32::from_str_radix(run, 16).ok()?);
    (live_file(&sensor, run) == file).then_some((sensor, run))
}
