//! A sink on its own: bytes on their way to a disk as those of a segment go, without packets, journal and seal
//! around them. For measuring what a disk and the way to it can do.
//!
//! The file has no name: nothing is left behind, whatever happens. Must never be what a recording runs on: nobody
//! could find its bytes.

use crate::buffer::Pool;
use crate::config::SinkChoice;
use crate::disk;
use crate::error::{FileError, WriteError};
use crate::output::{Output, WRITE_BYTES};
use crate::sink::uring::DEPTH;
use crate::sink::{Sink, SinkKind};
use crate::sinks::{self, SinkMaker as _};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Bytes of a write of the sinks, but for what a tick or the end of a segment cuts off.
pub const BLOCK_BYTES: usize = WRITE_BYTES;
/// Writes of [`SinkKind::Uring`] in flight at most.
pub const WRITES_IN_FLIGHT: u32 = DEPTH;

/// Distinguishes the files of a process for the moment in which they have a name.
static NUMBER: AtomicU32 = AtomicU32::new(0);

/// A nameless file behind a sink. Used by the thread that made it.
pub struct SinkFile {
    sink: Box<dyn Sink>,
    output: Output,
    pool: Pool,
    block: usize,
    path: PathBuf,
    reason: Option<String>,
}

impl std::fmt::Debug for SinkFile {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SinkFile").field("kind", &self.sink.kind()).field("end", &self.output.end()).finish()
    }
}

impl SinkFile {
    /// An empty file in `folder` with the sink that a recording with this `choice` gets there; preallocates up to
    /// `limit_bytes`, as for a segment of at most that size.
    ///
    /// # Errors
    /// The folder takes no file, or the sink that was asked for does not work there.
    pub fn create(folder: &Path, choice: SinkChoice, limit_bytes: u64) -> Result<Self, WriteError> {
        let sinks = sinks::choose(folder, choice)?;
        // Relaxed: only the uniqueness of each number matters.
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!(".sink-{}-{number}", std::process::id()));
        let file = disk::create_locked(&path, sinks.direct())?;
        disk::remove(&path)?;
        // As a chain with one segment: as many as can be in flight, one being filled, one to take.
        let count = usize::try_from(DEPTH).unwrap_or(8) + 2;
        let pool = Pool::new(count, WRITE_BYTES, sinks.block()).ok_or(WriteError::Memory(count))?;
        let sink =
            sinks.make(Arc::new(file), limit_bytes, pool.arena()).map_err(FileError::at("write", &path))?;
        let (block, reason) = (sinks.block(), sinks.reason);
        Ok(Self { sink, output: Output::default(), pool, block, path, reason })
    }

    /// The sink that runs, and why it is the plain one where it is.
    #[must_use]
    pub fn sink(&self) -> (SinkKind, Option<&str>) {
        (self.sink.kind(), self.reason.as_deref())
    }

    /// Appends `bytes`, as a stage appends a compressed frame: copied into a write buffer, which goes to the sink when
    /// it is full. Waits while as many writes are in flight as may be.
    ///
    /// # Errors
    /// A write has failed.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), FileError> {
        self.output.append(&self.pool, &mut *self.sink, bytes);
        self.output.release(&mut *self.sink);
        self.check()
    }

    /// Waits for every write, cuts the file to its length and makes it durable. Returns its length.
    ///
    /// # Errors
    /// A write, the cut or the sync has failed.
    pub fn finish(mut self) -> Result<u64, FileError> {
        self.output.flush_padded(&mut *self.sink, self.block);
        while self.sink.in_flight() > 0 {
            self.sink.wait(Duration::from_secs(1));
        }
        self.check()?;
        let (durable, len) = (self.sink.durable(), self.output.end());
        durable.truncate(len).map_err(FileError::at("cut", &self.path))?;
        durable.sync().map_err(FileError::at("sync", &self.path))?;
        Ok(len)
    }

    fn check(&self) -> Result<(), FileError> {
        let Some(failure) = self.sink.failure() else { return Ok(()) };
        let source = io::Error::new(failure.source.kind(), failure.to_string());
        Err(FileError { act: "write", path: self.path.clone(), source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_go_through_every_sink_and_no_name_is_left() {
        let folder = tempfile::tempdir().unwrap();
        for choice in [SinkChoice::Auto, SinkChoice::Plain, SinkChoice::Null] {
            let mut file = SinkFile::create(folder.path(), choice, 8 << 20).unwrap();
            let kind = file.sink().0;
            assert_eq!(kind == SinkKind::Null, choice == SinkChoice::Null);
            let bytes = vec![7_u8; 700_001];
            for _ in 0..5 {
                file.append(&bytes).unwrap();
            }
            assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "{kind:?}");
            assert_eq!(file.finish().unwrap(), 3_500_005);
        }
    }

    #[test]
    fn a_folder_that_is_none_is_named() {
        let error = SinkFile::create(Path::new("/nowhere/at-all"), SinkChoice::Plain, 1).unwrap_err();
        let WriteError::Store(error) = error else { panic!("{error}") };
        assert!(error.to_string().starts_with("create /nowhere/at-all/.sink-"), "{error}");
    }
}
