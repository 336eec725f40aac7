//! Why a recording did not start or could not go on, and what to do about it.

use crate::ladder::{Mode, RungError};
use crate::lock::LockError;
use crate::preflight::PreflightError;
use crate::sys::link_watch::Gone;
use crate::voice::Failure;
use std::io;
use tapedeck_ebpf::ProgramError;
use tapedeck_writer::WriteError;

/// Why a recording did not start or could not go on.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The interface.
    #[error(transparent)]
    Preflight(#[from] PreflightError),
    /// Somebody records it already.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// No mode of the ladder works, or the one asked for does not.
    #[error("interface {interface} cannot be recorded in mode {mode}")]
    Mode {
        /// Interface.
        interface: String,
        /// The last mode tried.
        mode: Mode,
        /// Why not.
        #[source]
        source: RungError,
    },
    /// The writer of a queue.
    #[error("the writer of interface {interface} queue {queue} failed")]
    Writer {
        /// Interface.
        interface: String,
        /// Queue.
        queue: u32,
        /// Why.
        #[source]
        source: WriteError,
    },
    /// A worker panicked: its packets are unaccounted.
    #[error("the worker of interface {interface} queue {queue} died")]
    Worker {
        /// Interface.
        interface: String,
        /// Queue.
        queue: u32,
    },
    /// Every interface has left.
    #[error("no interface is left to record: {}", departures(.0))]
    Gone(Vec<(String, Gone)>),
    /// The rows that tell of recorders before this one are not all on disk.
    #[error(
        "{rows} rows of the ledger that tell of recorders before this one could not be written{}",
        if *.kept { "; they are kept" } else { " nor kept" }
    )]
    Untold {
        /// How many.
        rows: usize,
        /// All of them wait in a note for the next start.
        kept: bool,
    },
    /// A second signal ended the drain.
    #[error(
        "ended by a second signal before everything was sealed; up to {pending} packets in memory are lost"
    )]
    Cut {
        /// Packets that were in memory only.
        pending: u64,
    },
    /// The counters cannot be read.
    #[error("cannot read the counters")]
    Counters(#[from] ProgramError),
    /// Something the operating system refused.
    #[error("cannot {act}")]
    System {
        /// What was tried.
        act: &'static str,
        /// The answer.
        #[source]
        source: io::Error,
    },
}

impl RecordError {
    /// What the operator can do about it, where we know.
    fn hint(&self) -> Option<String> {
        match self {
            Self::Preflight(error) => error.hint(),
            Self::Mode { source, .. } => source.hint().map(str::to_owned),
            Self::Lock(LockError::Held { pid, .. }) => {
                Some(format!("`tapedeck status` shows it; `kill {pid}` ends it cleanly"))
            }
            Self::Gone(_) => {
                Some("start again when it is back; a recording follows no interface that leaves".into())
            }
            Self::Cut { .. } => Some(
                "what is stored waits in hidden files: `tapedeck recover`, or the next start, seals it"
                    .into(),
            ),
            Self::Untold { kept: true, .. } => Some(
                "make room on the disk of the store, or make it writable; then the next `record` of the interface, or \
                 `tapedeck detach IF`, writes them"
                    .into(),
            ),
            Self::Writer { source, .. } => crate::hints::of(source).map(str::to_owned),
            _ => None,
        }
    }
}

/// Who has left, and how.
fn departures(list: &[(String, Gone)]) -> String {
    let texts: Vec<_> = list.iter().map(|(interface, gone)| format!("{interface} {}", gone.text())).collect();
    texts.join(", ")
}

impl From<RecordError> for Failure {
    fn from(error: RecordError) -> Self {
        let failure = Self::of(&error);
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
