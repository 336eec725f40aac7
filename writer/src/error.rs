//! What can go wrong at the start and at the end of a chain. What goes wrong between is counted.

use std::io;
use std::path::{Path, PathBuf};

/// A step on a file that failed.
#[derive(Debug, thiserror::Error)]
#[error("{act} {}", path.display())]
pub struct FileError {
    /// What was tried, e.g. `create`.
    pub act: &'static str,
    /// On which file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl FileError {
    /// For `map_err`: wraps what the system said about `act` on `path`.
    pub(crate) fn at(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self { act, path: path.to_owned(), source }
    }
}

/// Why a chain did not start or did not end well.
#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    /// The store cannot be used.
    #[error("the store cannot be written")]
    Store(#[from] FileError),
    /// The chosen sink does not work here; `Auto` would have taken the plain one.
    #[error("sink io_uring: {0}")]
    Sink(String),
    /// Memory for the buffers cannot be had in this size.
    #[error("{0} frame buffers cannot be allocated")]
    Memory(usize),
    /// The compressor could not be set up.
    #[error("compressor")]
    Codec(#[from] tapedeck_index::frame::FrameError),
    /// A thread could not be started.
    #[error("thread {name}")]
    Thread {
        /// Name of the thread.
        name: &'static str,
        /// What the system said.
        source: io::Error,
    },
    /// A thread ended before its time; its packets are counted `pending` for ever.
    #[error("thread {0} died")]
    Died(&'static str),
}
