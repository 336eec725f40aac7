//! The end of one interface's recording, in steps that never wait: intake closed, rings drained until the
//! books say that everything delivered was read, workers finished, which seals.
//!
//! The interface stays in the books afterwards. It must never end with packets in a ring.

use super::{Active, Crew, RecordError};
use crate::books;
use crate::ledger_rows::Kept;
use crate::worker::Phase;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};
use tapedeck_ebpf::ProgramError;
use tapedeck_packet::Timestamp;

/// A drain that gets nowhere for this long is over.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);
/// So is one whose packets wait for a disk that gets nowhere.
const DISK_PATIENCE: Duration = Duration::from_secs(10);
/// The books must stand still over this time before the rings count as empty: AF_PACKET hands a block
/// over after 20 ms.
pub(super) const DRAIN_LOOK: Duration = Duration::from_millis(30);

/// How far an interface is.
#[derive(Debug)]
pub(super) enum Stage {
    /// It is being recorded.
    Running,
    /// Its intake is closed, its rings are being emptied.
    Draining(Drain),
    /// Its workers seal.
    Finishing,
    /// Its workers have ended.
    Over,
}

/// A drain under way.
#[derive(Debug)]
pub(super) struct Drain {
    progress: Instant,
    /// When packets were last seen waiting for the disk, or the drain began.
    waited: Instant,
    received: u64,
    /// Looks in a row at which nothing was outstanding.
    quiet: u32,
}

/// What a look at a drain says.
enum Look {
    Busy,
    Empty,
    /// Packets that were counted as delivered and do not come.
    Stuck(u64),
    /// Packets that wait for the disk.
    Behind(u64),
}

impl Active {
    /// Begins the end, unless it has begun.
    /// `now` is the time of the packets' clock.
    pub(super) fn begin_end(&mut self, now: Timestamp) {
        if !matches!(self.stage, Stage::Running) {
            return;
        }
        self.books.closed = Some(now);
        // An interface that is gone lets nothing in any more.
        if let Err(error) = self.intake.close()
            && self.gone.is_none()
        {
            tracing::warn!(interface = self.books.interface, %error, "cannot close the intake");
        }
        self.tell(Phase::Drain);
        let now = Instant::now();
        self.stage = Stage::Draining(Drain { progress: now, waited: now, received: 0, quiet: 0 });
    }

    /// Takes the next step of the end. Returns what went wrong with it, if anything did; the end goes on.
    pub(super) fn step(&mut self) -> Option<RecordError> {
        match &mut self.stage {
            Stage::Running | Stage::Over => None,
            Stage::Draining(drain) => {
                let look = drain.look(&self.books.queues, &self.intake);
                if matches!(look, Ok(Look::Busy)) {
                    return None;
                }
                self.tell(Phase::Finish);
                self.stage = Stage::Finishing;
                match look {
                    Ok(Look::Stuck(outstanding)) => {
                        let interface = &self.books.interface;
                        tracing::warn!(
                            interface,
                            outstanding,
                            "packets counted as delivered never came out of the ring"
                        );
                        None
                    }
                    Ok(Look::Behind(waiting)) => {
                        let (interface, seconds) = (&self.books.interface, DISK_PATIENCE.as_secs());
                        tracing::warn!(
                            interface,
                            waiting,
                            seconds,
                            "the disk takes nothing; what still waits for it loses payload or is shed"
                        );
                        None
                    }
                    Ok(_) => None,
                    Err(error) => Some(error.into()),
                }
            }
            Stage::Finishing => {
                if !self.workers.iter().all(|crew| crew.thread.is_finished()) {
                    return None;
                }
                self.stage = Stage::Over;
                if self.gone.is_some() {
                    // Should it come back, others may have it.
                    (self.keeper, self.claim, self.lock) = (None, None, None);
                }
                let workers = std::mem::take(&mut self.workers);
                let ended = workers.into_iter().filter_map(|crew| join(&self.books.interface, crew));
                // All are joined, the first to fail is told of.
                ended.reduce(|first, _| first)
            }
        }
    }

    pub(super) fn tell(&self, phase: Phase) {
        for books in &self.books.queues {
            books.shared.advance(phase);
        }
    }
}

/// Rows that tell of the dead and are on no disk go into the notes, for the next start; what went wrong then.
pub(super) fn hand_on(active: &mut [Active], kept: &Kept) -> Option<RecordError> {
    let (mut rows, mut all_kept) = (0, true);
    for one in active {
        let untold = kept.untold(&one.books.inherited);
        if untold.is_empty() {
            continue;
        }
        rows += untold.len();
        let handed = one.keeper.as_mut().map(|keeper| keeper.hand_on(untold));
        if let Some(Err(error)) = &handed {
            let (interface, error) = (&one.books.interface, error as &dyn std::error::Error);
            tracing::warn!(interface, error, "rows that tell of the dead cannot be kept");
        }
        all_kept &= matches!(handed, Some(Ok(())));
    }
    (rows > 0).then_some(RecordError::Untold { rows, kept: all_kept })
}

impl Drain {
    /// Compares what each worker has taken with what was delivered to its ring, as counted by those who
    /// delivered it. Looks must be [`DRAIN_LOOK`] apart.
    fn look(
        &mut self,
        queues: &[books::QueueBooks],
        intake: &crate::ladder::Intake,
    ) -> Result<Look, ProgramError> {
        let (mut received, mut outstanding, mut waits) = (0u64, 0u64, false);
        for books in queues {
            let got = books.shared.received.load(Ordering::Relaxed);
            let expected = books::expected(books, intake)?;
            received += got;
            waits |= books.shared.waiting.load(Ordering::Relaxed);
            outstanding += expected.saturating_sub(got);
            books::tell_worker(books, intake)?;
        }
        if received != self.received {
            (self.received, self.progress, self.quiet) = (received, Instant::now(), 0);
        }
        // Twice the same, a pause apart: nothing was on its way either.
        self.quiet = if outstanding == 0 { self.quiet + 1 } else { 0 };
        if self.quiet >= 2 {
            return Ok(Look::Empty);
        }
        if waits {
            self.waited = Instant::now();
        }
        let since = self.progress.elapsed();
        // Who has just ceased to wait needs a moment, too.
        let idle = since.min(self.waited.elapsed());
        Ok(match waits {
            true if since > DISK_PATIENCE => Look::Behind(outstanding),
            false if idle > DRAIN_PATIENCE => Look::Stuck(outstanding),
            _ => Look::Busy,
        })
    }
}

/// Ends one worker and says what it could not seal.
fn join(interface: &str, crew: Crew) -> Option<RecordError> {
    let (interface, queue) = (interface.to_owned(), crew.queue);
    match crew.thread.join() {
        Ok(Ok(report)) => {
            for path in report.unsealed {
                let path = path.display();
                tracing::warn!(%path, "a segment could not be sealed; the next start recovers it");
            }
            None
        }
        Ok(Err(source)) => Some(RecordError::Writer { interface, queue, source }),
        Err(_) => Some(RecordError::Worker { interface, queue }),
    }
}
