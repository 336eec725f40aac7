//! How to get at the bytes of a segment, sealed or still being written.
//!
//! Reads only by position, never through a map: an open segment changes under the reader.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tapedeck_index::journal::Replay;

/// Where the bytes of a segment are.
#[derive(Clone, Debug)]
pub enum Handle {
    /// A sealed file, opened when it is needed.
    Sealed(PathBuf),
    /// An open one: its file, held open since the journal was read, for it is renamed when it is sealed.
    Open {
        /// Its path when it was opened.
        path: PathBuf,
        /// The file.
        file: Arc<File>,
        /// What the journal adds.
        replay: Arc<Replay>,
    },
}

impl Handle {
    /// The path, for messages and as the handle's name.
    #[must_use]
    pub fn path(&self) -> &Path {
        match self {
            Self::Sealed(path) | Self::Open { path, .. } => path,
        }
    }

    /// Opens the segment for reading.
    ///
    /// # Errors
    /// When it is not there any more or may not be read.
    pub fn open(&self) -> io::Result<Opened> {
        match self {
            Self::Sealed(path) => Ok(Opened { file: Arc::new(File::open(path)?), replay: None }),
            Self::Open { file, replay, .. } => {
                Ok(Opened { file: Arc::clone(file), replay: Some(Arc::clone(replay)) })
            }
        }
    }
}

/// A segment opened for reading.
#[derive(Debug)]
pub struct Opened {
    file: Arc<File>,
    replay: Option<Arc<Replay>>,
}

impl Opened {
    /// Fills `buffer` with the bytes at `offset`.
    ///
    /// # Errors
    /// When they are not all there or the disk does not give them.
    pub fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        let Some(replay) = &self.replay else { return self.file.read_exact_at(buffer, offset) };
        let mut have = 0;
        while let Some(rest) = buffer.get_mut(have..).filter(|b| !b.is_empty()) {
            match self.file.read_at(rest, offset.saturating_add(len64(have))) {
                Ok(0) => break,
                Ok(n) => have = have.saturating_add(n),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        // What neither the file nor the journal has stays zero and fails the frame's checksum.
        buffer.iter_mut().skip(have).for_each(|b| *b = 0);
        replay.overlay(offset, buffer);
        Ok(())
    }

    /// Length of the file as it is now.
    ///
    /// # Errors
    /// When the operating system does not tell.
    pub fn file_len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }
}

/// A length as a file offset.
pub(crate) fn len64(len: usize) -> u64 {
    u64::try_from(len).unwrap_or(u64::MAX)
}
