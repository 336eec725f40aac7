//! Which sink a store gets: found out once, at the start of a chain, with the reason for a step down.

use crate::buffer::Arena;
use crate::config::SinkChoice;
use crate::error::WriteError;
use crate::sink::null::NullSink;
use crate::sink::plain::PlainSink;
use crate::sink::uring::UringSink;
use crate::sink::{Sink, SinkKind};
use crate::{buffer, disk, sys};
use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;
use std::sync::Arc;

/// Makes the sinks of a chain; a test can put another one here.
pub(crate) trait SinkMaker: Send {
    /// Whether files are to be opened with O_DIRECT.
    fn direct(&self) -> bool;

    /// Offsets and lengths of writes are multiples of this many bytes, at most 64 KiB; so is the
    /// alignment of memory.
    fn block(&self) -> usize;

    /// A sink for a new empty file that will not grow far beyond `limit_bytes`; most of what is written comes from
    /// buffers of `arena`.
    fn make(&self, file: Arc<File>, limit_bytes: u64, arena: &Arc<Arena>) -> io::Result<Box<dyn Sink>>;
}

/// The real sinks.
#[derive(Clone, Debug)]
pub(crate) struct RealSinks {
    pub(crate) kind: SinkKind,
    pub(crate) block: usize,
    /// Why it is not io_uring, if that was asked for or possible.
    pub(crate) reason: Option<String>,
}

impl SinkMaker for RealSinks {
    fn direct(&self) -> bool {
        self.kind == SinkKind::Uring
    }

    fn block(&self) -> usize {
        self.block
    }

    fn make(&self, file: Arc<File>, limit_bytes: u64, arena: &Arc<Arena>) -> io::Result<Box<dyn Sink>> {
        Ok(match self.kind {
            SinkKind::Uring => Box::new(UringSink::new(file, self.block, limit_bytes, arena)?),
            SinkKind::Plain => Box::new(PlainSink::new(file, limit_bytes)),
            SinkKind::Null => Box::new(NullSink::new(file)),
        })
    }
}

/// Tries out what works in `store`.
///
/// # Errors
/// [`WriteError::Sink`] if io_uring was demanded and does not work.
pub(crate) fn choose(store: &Path, choice: SinkChoice) -> Result<RealSinks, WriteError> {
    let plain = |reason| RealSinks { kind: SinkKind::Plain, block: buffer::ALIGN_BYTES, reason };
    if choice == SinkChoice::Plain {
        return Ok(plain(Some("asked for".to_owned())));
    }
    if choice == SinkChoice::Null {
        return Ok(RealSinks { kind: SinkKind::Null, ..plain(None) });
    }
    match try_direct(store) {
        Ok(block) => Ok(RealSinks { kind: SinkKind::Uring, block, reason: None }),
        Err(reason) if choice == SinkChoice::Uring => Err(WriteError::Sink(reason)),
        Err(reason) => Ok(plain(Some(reason))),
    }
}

/// The block that O_DIRECT asks for in `store`, if that and io_uring work.
fn try_direct(store: &Path) -> Result<usize, String> {
    UringSink::probe().map_err(|error| format!("io_uring refused: {error}"))?;
    // A file without a name: nothing is left behind, whatever happens.
    let mut options = File::options();
    let file = options.read(true).write(true).custom_flags(libc::O_TMPFILE | libc::O_DIRECT).open(store);
    let file = file.map_err(|error| format!("O_DIRECT refused: {error}"))?;
    match sys::direct_alignment(&file) {
        Ok(Some((0, _) | (_, 0))) => Err("O_DIRECT refused by the filesystem".to_owned()),
        Ok(Some((memory, offset))) => {
            let block = memory.max(offset).max(buffer::ALIGN_BYTES);
            let fits = block.is_power_of_two() && block <= 64 * 1024;
            if fits { Ok(block) } else { Err(format!("O_DIRECT asks for blocks of {block} bytes")) }
        }
        // Kernels before 6.1 do not say; 4 KiB is a multiple of every usual sector.
        Ok(None) => Ok(buffer::ALIGN_BYTES),
        Err(error) => Err(format!("statx: {error}")),
    }
}

/// The store must be a folder we can make folders in.
pub(crate) fn check_store(store: &Path) -> Result<(), WriteError> {
    disk::make_folder(&store.join(tapedeck_index::name::PACKETS_FOLDER))?;
    Ok(())
}
