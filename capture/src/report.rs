//! What the commands print: results on stdout, errors in the house's voice on stderr.

use crate::status::{Status, WorkerStatus};
use std::error::Error;
use std::fmt::Write as _;
use std::io::{self, Write};

/// Prints an error as `error: what`, `Caused by: why` for each cause, and after a blank line the hint.
pub fn error(error: &dyn Error, hint: Option<&str>) {
    // Nobody is left to tell when stderr is gone.
    let _ = io::stderr().write_all(error_text(error, hint).as_bytes());
}

fn error_text(error: &dyn Error, hint: Option<&str>) -> String {
    let mut text = format!("error: {error}\n");
    let mut cause = error.source();
    while let Some(error) = cause {
        let _ = writeln!(text, "Caused by: {error}");
        cause = error.source();
    }
    if let Some(hint) = hint {
        let _ = write!(text, "\nhint: {hint}\n");
    }
    text
}

/// The human form of a recorder's status.
#[must_use]
pub fn status_text(status: &Status) -> String {
    let ledger = &status.ledger;
    let total = &ledger.total;
    let mut text = format!(
        "run {} (process {}), recording since {}\n\
         seen {}  stored {}  pending {}  dropped {}  unaccounted {}\n",
        ledger.run,
        status.pid,
        ledger.start,
        total.counts.seen,
        total.counts.stored,
        total.counts.pending,
        total.dropped.nic + total.dropped.queues.sum(),
        total.unaccounted
    );
    for queue in &ledger.queues {
        let _ = writeln!(
            text,
            "  {} queue {} ({}): seen {}  stored {}  pending {}  dropped {}  unaccounted {}",
            queue.interface,
            queue.queue,
            queue.mode,
            queue.counts.seen,
            queue.counts.stored,
            queue.counts.pending,
            queue.dropped.sum(),
            queue.unaccounted
        );
        let is_ours =
            |worker: &&WorkerStatus| worker.interface == queue.interface && worker.queue == queue.queue;
        if let Some(worker) = status.workers.iter().find(is_ours) {
            text.push_str(&worker_text(worker));
        }
    }
    text
}

fn worker_text(worker: &WorkerStatus) -> String {
    let cpu = worker.cpu.map_or_else(|| "any".to_owned(), |cpu| cpu.to_string());
    let level = worker.level.map_or_else(|| "raw".to_owned(), |level| level.to_string());
    format!(
        "    cpu {cpu}, {} segments in {}, sink {}, level {level}\n",
        worker.segments,
        worker.store.display(),
        worker.sink.as_deref().unwrap_or("not open yet")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot open the store")]
    struct Outer(#[source] std::num::ParseIntError);

    #[test]
    fn errors_have_one_voice() {
        let error = Outer("x".parse::<u8>().unwrap_err());
        assert_eq!(
            error_text(&error, Some("make it")),
            "error: cannot open the store\nCaused by: invalid digit found in string\n\nhint: make it\n"
        );
        assert_eq!(error_text(&error, None).lines().count(), 2);
    }
}
