//! `store.json`: which format a store has and which sensor fills it.

use serde::{Deserialize, Serialize};
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::path::{Path, PathBuf};

/// Name of the file in a store.
const FILE: &str = "store.json";
/// Format version of a store; every other one is refused.
pub const STORE_VERSION: u32 = 1;

/// The contents of `store.json`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreFile {
    /// Format version of the store.
    pub version: u32,
    /// Sensor id, unescaped.
    pub sensor: String,
}

/// A store that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreFileError {
    /// No `store.json`: not a store.
    #[error("{path}: not a store (no such file)")]
    Absent {
        /// The file that is missing.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{path}: cannot read or write the store's description")]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Not what a `store.json` looks like.
    #[error("{path}: not a store description")]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// A format that this program does not know.
    #[error("{path}: store version {found}; this program knows version {STORE_VERSION}")]
    Version {
        /// The file.
        path: PathBuf,
        /// Version in the file.
        found: u64,
    },
}

impl StoreFile {
    /// Reads and checks the description of a store.
    ///
    /// # Errors
    /// [`StoreFileError`]; `Absent` where the folder is not a store.
    pub fn read(store: &Path) -> Result<Self, StoreFileError> {
        /// The version alone: another version may have any other keys.
        #[derive(Deserialize)]
        struct Version {
            version: u64,
        }
        let path = store.join(FILE);
        let bytes = match fs::read(&path) {
            Err(source) if source.kind() == ErrorKind::NotFound => {
                return Err(StoreFileError::Absent { path });
            }
            bytes => bytes.map_err(|source| StoreFileError::Io { path: path.clone(), source })?,
        };
        let json = |source| StoreFileError::Json { path: path.clone(), source };
        let found = serde_json::from_slice::<Version>(&bytes).map_err(json)?.version;
        if found != u64::from(STORE_VERSION) {
            return Err(StoreFileError::Version { path, found });
        }
        serde_json::from_slice(&bytes).map_err(json)
    }

    /// Reads the description of a store, or makes the folder a store of `sensor` if it is none yet. An
    /// existing store keeps its sensor. Written under a hidden name, synced, then linked: two
    /// programs that start at once agree on one description.
    ///
    /// # Errors
    /// [`StoreFileError`].
    pub fn read_or_create(store: &Path, sensor: &str) -> Result<Self, StoreFileError> {
        match Self::read(store) {
            Err(StoreFileError::Absent { .. }) => {}
            other => return other,
        }
        let path = store.join(FILE);
        Self { version: STORE_VERSION, sensor: sensor.to_owned() }
            .create(store, &path)
            .map_err(|source| StoreFileError::Io { path, source })?;
        Self::read(store)
    }

    fn create(&self, store: &Path, path: &Path) -> io::Result<()> {
        fs::create_dir_all(store)?;
        let hidden = store.join(format!(".{FILE}.{}", std::process::id()));
        let linked = self.write(&hidden).and_then(|()| match fs::hard_link(&hidden, path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        });
        // Also what a full disk has left of it.
        let removed = fs::remove_file(&hidden);
        linked.and(removed)?;
        File::open(store)?.sync_all()
    }

    fn write(&self, path: &Path) -> io::Result<()> {
        let mut file = File::create(path)?;
        file.write_all(&serde_json::to_vec(self)?)?;
        file.write_all(b"\n")?;
        file.sync_all()
    }
}
