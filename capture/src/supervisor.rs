//! Runs a recording from start to end.
//!
//! Start: stores recovered, interfaces checked and locked, offloads off; then per interface down the
//! ladder ([`start`]): sockets bound, chains and workers running, and only then the program attached.
//! When all are in, the ready line. Run: each second the clock is sampled, the books are looked at and
//! the status file is written. Stop, by signal, time or packet count: intake closed, rings drained until
//! the books say that everything delivered was read, chains finished, ledger closed.
//!
//! It must never end with packets in a ring, and never leave an interface changed.

mod error;
mod start;

pub use error::RecordError;

use crate::books::{self, InterfaceBooks};
use crate::cli::RecordArgs;
use crate::clock::{self, Change, Clock};
use crate::config;
use crate::identity;
use crate::ladder::Intake;
use crate::ledger::Ledger;
use crate::lock::InterfaceLock;
use crate::plan::RecordPlan;
use crate::preflight::Claim;
use crate::status::{Status, StatusFiles, WorkerStatus};
use crate::voice::Failure;
use crate::worker::{Ended, Phase};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tapedeck_ebpf::ProgramError;
use tapedeck_packet::Timestamp;
use tapedeck_writer::SinkKind;

/// How often the supervisor looks at signals, time and packet count.
const NAP: Duration = Duration::from_millis(50);
/// How often it samples the clock and writes the status.
const SECOND: Duration = Duration::from_secs(1);
/// A drain that gets nowhere for this long is over.
const DRAIN_PATIENCE: Duration = Duration::from_secs(1);
/// The books must stand still over this time before the rings count as empty: AF_PACKET hands a block
/// over after 20 ms.
const DRAIN_LOOK: Duration = Duration::from_millis(30);

/// One interface being recorded. The order of the fields is the order of release: nothing more comes in,
/// then the interface is put back, then others may have it.
struct Active {
    intake: Intake,
    books: InterfaceBooks,
    workers: Vec<Crew>,
    _claim: Claim,
    _lock: InterfaceLock,
}

/// One worker.
struct Crew {
    queue: u32,
    cpu: Option<usize>,
    store: PathBuf,
    thread: JoinHandle<Ended>,
}

/// What is common to all interfaces of a recording.
struct Run {
    run: u32,
    start: Timestamp,
    clock: Arc<Clock>,
    stop: Arc<AtomicBool>,
}

/// How a recording ended.
#[derive(Debug)]
pub struct Outcome {
    /// The final books.
    pub ledger: Ledger,
    /// What went wrong on the way, if anything did.
    pub trouble: Option<RecordError>,
}

/// `tapedeck record`: what goes to stdout, and the exit code. `say` is told what stderr should show.
///
/// # Errors
/// It did not start.
pub fn command(args: RecordArgs, say: &mut dyn FnMut(&str)) -> Result<(String, u8), Failure> {
    let args = config::with_file(args).map_err(|error| Failure::of(&error))?;
    let plan = RecordPlan::new(&args).map_err(|error| {
        let failure = Failure::of(&error);
        error.hint().map_or(failure.clone(), |hint| failure.hint(hint))
    })?;
    let Outcome { ledger, trouble } = record(&plan, say)?;
    let json = ledger.to_json().map_err(|error| Failure::of(&error))?;
    let Some(trouble) = trouble else { return Ok((json, 0)) };
    // The books are printed all the same: they say what is missing.
    say(Failure::from(trouble).to_string().trim_end());
    Ok((json, 2))
}

/// Records until a signal, or until the plan says so.
///
/// # Errors
/// It did not start.
pub fn record(plan: &RecordPlan, say: &mut dyn FnMut(&str)) -> Result<Outcome, Failure> {
    let system = |act| move |source| RecordError::System { act, source };
    let run = Run {
        run: identity::run_number()?,
        start: identity::now(),
        clock: Arc::new(Clock::new(clock::read().map_err(system("read the clock"))?)),
        stop: Arc::new(AtomicBool::new(false)),
    };
    catch_signals(&run.stop).map_err(system("catch signals"))?;
    let stores = start::stores(plan, say)?;
    let files = StatusFiles::new(&plan.stores, run.run, run.start).map_err(system("write the status"))?;
    let mut active = Vec::new();
    if let Err(error) = start::interfaces(plan, &run, &stores, &mut active) {
        abandon(&mut active);
        return Err(error.into());
    }
    let ready: Vec<String> = active.iter().map(ready_text).collect();
    say(&format!("ready: {}", ready.join("; ")));
    // Not under systemd this does nothing.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
    let trouble = watch(plan, &run, &active, &files);
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
    Ok(finish(&run, active, trouble)?)
}

fn ready_text(active: &Active) -> String {
    let InterfaceBooks { interface, mode, queues, .. } = &active.books;
    format!("{interface} queues={} mode={mode}", queues.len())
}

/// First signal: stop. Second: the default, which is to die.
fn catch_signals(stop: &Arc<AtomicBool>) -> io::Result<()> {
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register_conditional_default(signal, Arc::clone(stop))?;
        signal_hook::flag::register(signal, Arc::clone(stop))?;
    }
    Ok(())
}

/// Until it is time to stop. Returns what makes it stop early.
fn watch(plan: &RecordPlan, run: &Run, active: &[Active], files: &StatusFiles) -> Option<RecordError> {
    let began = Instant::now();
    let mut next = began + SECOND;
    let mut quarantined = false;
    while !run.stop.load(Ordering::Relaxed) {
        if plan.duration.is_some_and(|duration| began.elapsed() >= duration) {
            break;
        }
        if plan.packets.is_some_and(|wanted| stored(active) >= wanted) {
            break;
        }
        if let Some(dead) = active.iter().find_map(died) {
            return Some(dead);
        }
        if Instant::now() >= next {
            next += SECOND;
            sample_clock(run, active, &mut quarantined);
            if let Err(error) = report(run, active, files) {
                return Some(error);
            }
        }
        std::thread::sleep(NAP);
    }
    None
}

fn stored(active: &[Active]) -> u64 {
    let queues = active.iter().flat_map(|one| &one.books.queues);
    queues.map(|queue| queue.chain.snapshot().stored.packets).sum()
}

/// A worker ends only when it is told to.
fn died(active: &Active) -> Option<RecordError> {
    let dead = active.workers.iter().find(|crew| crew.thread.is_finished())?;
    Some(RecordError::Worker { interface: active.books.interface.clone(), queue: dead.queue })
}

fn sample_clock(run: &Run, active: &[Active], quarantined: &mut bool) {
    let change = match clock::read() {
        Ok(reading) => run.clock.sample(reading),
        Err(error) => {
            tracing::warn!(%error, "cannot read the clock; the last offset stays");
            return;
        }
    };
    match change {
        Change::Slewed => *quarantined = false,
        Change::Stepped { from_ns, to_ns } => {
            let seconds = Duration::from_nanos(to_ns.abs_diff(from_ns)).as_secs_f64();
            let way = if to_ns > from_ns { "forward" } else { "back" };
            tracing::warn!("the system clock was stepped {way} by {seconds:.3} s; packet times follow");
        }
        Change::Quarantined { from_ns, to_ns } if !*quarantined => {
            *quarantined = true;
            let hours = Duration::from_nanos(to_ns.abs_diff(from_ns)).as_secs() / 3600;
            tracing::warn!(
                "clock: quarantined: the system clock jumped by {hours} h; packet times do not follow"
            );
        }
        Change::Quarantined { .. } => {}
    }
    let offset = run.clock.conversion().offset_ns();
    for program in active.iter().filter_map(|one| one.intake.program()) {
        if let Err(error) = program.set_utc_offset(offset) {
            tracing::warn!(%error, "the program counts in seconds of the old offset");
        }
    }
}

/// Tells workers what they cannot count themselves, and writes the status.
fn report(run: &Run, active: &[Active], files: &StatusFiles) -> Result<(), RecordError> {
    let ledger = ledger(run, active)?;
    let mut workers = Vec::new();
    for one in active {
        for (books, crew) in one.books.queues.iter().zip(&one.workers) {
            books::tell_worker(books, &one.intake)?;
            workers.push(worker_status(&one.books.interface, books, crew));
        }
    }
    let updated_ns = identity::now().nanos();
    let status = Status { version: 1, pid: std::process::id(), updated_ns, ledger, workers };
    if let Err(error) = files.write(&status) {
        // A full disk is no reason to stop looking.
        tracing::debug!(%error, "cannot write the status");
    }
    Ok(())
}

fn worker_status(interface: &str, books: &books::QueueBooks, crew: &Crew) -> WorkerStatus {
    let chain = books.chain.snapshot();
    let shared = &books.shared;
    let read = |number: &std::sync::atomic::AtomicU64| number.load(Ordering::Relaxed);
    WorkerStatus {
        interface: interface.to_owned(),
        queue: crew.queue,
        cpu: crew.cpu,
        store: crew.store.clone(),
        sink: chain.sink.map(|sink| sink_name(sink).to_owned()),
        level: chain.level,
        regressions: read(&shared.regressions),
        oddities: read(&shared.unstamped) + read(&shared.misfits),
        missing: read(&shared.missing),
        segments: chain.segments_sealed,
    }
}

fn sink_name(sink: SinkKind) -> &'static str {
    match sink {
        SinkKind::Uring => "io_uring",
        SinkKind::Plain => "plain",
    }
}

fn ledger(run: &Run, active: &[Active]) -> Result<Ledger, RecordError> {
    let mut queues = Vec::new();
    for one in active {
        queues.extend(one.books.queues(&one.intake)?);
    }
    let interfaces = active.iter().map(|one| one.books.entry()).collect();
    Ok(Ledger::close(run.run, run.start, identity::now(), interfaces, queues))
}

/// Closes the intakes, drains the rings, ends the workers, closes the books.
fn finish(run: &Run, mut active: Vec<Active>, trouble: Option<RecordError>) -> Result<Outcome, RecordError> {
    let mut trouble = trouble;
    for one in &mut active {
        if let Err(error) = one.intake.close() {
            tracing::warn!(interface = one.books.interface, %error, "cannot close the intake");
        }
        tell(one, Phase::Drain);
    }
    for one in &active {
        if let Err(error) = drain(one) {
            trouble.get_or_insert(error.into());
        }
    }
    for one in &mut active {
        tell(one, Phase::Finish);
        for crew in one.workers.drain(..) {
            if let Some(error) = join(&one.books.interface, crew) {
                trouble.get_or_insert(error);
            }
        }
    }
    let ledger = ledger(run, &active)?;
    Ok(Outcome { ledger, trouble })
}

fn tell(active: &Active, phase: Phase) {
    for books in &active.books.queues {
        books.shared.advance(phase);
    }
}

/// Waits until each worker has taken everything that was delivered to its ring, as counted by those who
/// delivered it; gives up when nothing moves any more.
fn drain(active: &Active) -> Result<(), ProgramError> {
    let mut progress = Instant::now();
    let mut last = 0;
    let mut quiet = 0;
    loop {
        let (mut received, mut outstanding) = (0u64, 0u64);
        for books in &active.books.queues {
            let got = books.shared.received.load(Ordering::Relaxed);
            let expected = books::expected(books, &active.intake)?;
            received += got;
            outstanding += expected.saturating_sub(got);
            books::tell_worker(books, &active.intake)?;
        }
        if received != last {
            last = received;
            progress = Instant::now();
            quiet = 0;
        }
        // Twice the same, a pause apart: nothing was on its way either.
        quiet = if outstanding == 0 { quiet + 1 } else { 0 };
        if quiet >= 2 {
            return Ok(());
        }
        if progress.elapsed() > DRAIN_PATIENCE {
            let interface = &active.books.interface;
            tracing::warn!(interface, outstanding, "packets counted as delivered never came out of the ring");
            return Ok(());
        }
        std::thread::sleep(DRAIN_LOOK);
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

/// Takes back a start that failed half way.
fn abandon(active: &mut Vec<Active>) {
    for one in active.iter_mut() {
        let _ = one.intake.close();
        tell(one, Phase::Finish);
        for crew in one.workers.drain(..) {
            let _ = crew.thread.join();
        }
    }
    active.clear();
}
