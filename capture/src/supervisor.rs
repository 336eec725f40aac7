//! Runs a recording from start to end.
//!
//! Start: interfaces checked and locked, stores recovered, offloads off; then per interface down the
//! ladder ([`start`]): sockets bound, chains and workers running, and only then the program attached; what
//! the [doctor](crate::doctor) still finds is said.
//! When all are in, the ready line. Run: each second the clock is sampled, the books are looked at and
//! the status file is written ([`report`]). Stop, by signal, time, packet count or because no interface is
//! left: each interface ends in steps ([`ending`]), while status and signals are looked after as before;
//! then the ledger is closed. An interface that leaves ends by itself, and the others go on.
//!
//! What is pinned ([`crate::pins`]) goes when the ledger is closed; a recording that is cut leaves it.
//!
//! It must never end with packets in a ring, and never leave an interface changed.

mod ending;
mod error;
mod pressure;
mod refilter;
mod report;
mod signals;
mod start;

pub use error::RecordError;

use crate::books::InterfaceBooks;
use crate::card::Card;
use crate::claim::Claim;
use crate::cli::RecordArgs;
use crate::clock::{self, Clock};
use crate::config::{self, Reload};
use crate::filtering::InForce;
use crate::identity;
use crate::ladder::Intake;
use crate::ledger::Ledger;
use crate::ledger_rows::ClockRows;
use crate::lock::InterfaceLock;
use crate::packer::Packer;
use crate::pins::Keeper;
use crate::plan::RecordPlan;
use crate::sessions::SessionCounts;
use crate::sessions::desk::Desk;
use crate::status::StatusFiles;
use crate::sys::link_watch::{Gone, LinkWatch};
use crate::sys::netlink;
use crate::voice::Failure;
use crate::worker::{Ended, Phase};
use ending::Stage;
use pressure::Pressure;
use report::Books;
use signals::Signals;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tapedeck_packet::Timestamp;

/// How often the supervisor looks at signals, time and packet count.
const NAP: Duration = Duration::from_millis(50);
/// What systemd is asked for, again each second, while rings are drained; microseconds.
const DRAIN_TIMEOUT_USEC: u32 = 30_000_000;
/// How often it samples the clock and writes the status.
const SECOND: Duration = Duration::from_secs(1);

/// One interface being recorded. The order of the fields is the order of release: nothing more comes in,
/// then the interface is put back, then others may have it.
struct Active {
    intake: Intake,
    /// What is pinned; None if nothing could be, and once an interface that left is over.
    keeper: Option<Keeper>,
    /// The program was a dead recorder's.
    taken: bool,
    books: InterfaceBooks,
    /// Its clock, if the card stamps.
    card: Option<Card>,
    workers: Vec<Crew>,
    stage: Stage,
    gone: Option<Gone>,
    /// None once an interface that left is over.
    claim: Option<Claim>,
    lock: Option<InterfaceLock>,
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
    /// The filter in force.
    filter: Arc<InForce>,
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
/// It did not start, or was ended before its books could be closed.
pub fn command(args: RecordArgs, say: &mut dyn FnMut(&str)) -> Result<(String, u8), Failure> {
    let typed = args.clone();
    let args = config::with_file(args).map_err(|error| Failure::of(&error))?;
    let mut plan = RecordPlan::new(&args).map_err(|error| {
        let failure = Failure::of(&error);
        error.hint().map_or(failure.clone(), |hint| failure.hint(hint))
    })?;
    plan.reload = Reload::of(&typed, &args);
    let Outcome { ledger, trouble } = record(&plan, say)?;
    if let Some(warning) = ledger.imbalance() {
        say(&warning);
    }
    let json = ledger.to_json().map_err(|error| Failure::of(&error))?;
    let Some(trouble) = trouble else { return Ok((json, 0)) };
    // The books are printed all the same: they say what is missing.
    say(Failure::from(trouble).to_string().trim_end());
    Ok((json, 2))
}

/// Records until a signal, or until the plan says so.
///
/// # Errors
/// It did not start, or a second signal ended it before its books could be closed.
pub fn record(plan: &RecordPlan, say: &mut dyn FnMut(&str)) -> Result<Outcome, Failure> {
    let system = |act| move |source| RecordError::System { act, source };
    let run = Run {
        run: identity::run_number()?,
        start: identity::now(),
        clock: Arc::new(
            Clock::new(clock::read().map_err(system("read the clock"))?).accepting(plan.accept_clock),
        ),
        filter: Arc::new(InForce::new(plan.filter.clone())),
    };
    refilter::say_filter(&run.filter);
    let mut signals = Signals::catch(plan.reload.is_some()).map_err(system("catch signals"))?;
    // Before the interfaces are looked up: one that leaves in between is noticed.
    let watch = LinkWatch::new().map_err(system("listen for interfaces that leave"))?;
    // Before the stores: a recorder that may not start leaves none behind.
    let locked = start::lock(plan, &run)?;
    let (stores, unpinned) = start::stores(plan, say)?;
    let files = StatusFiles::new(&plan.stores, run.run, run.start);
    let mut active = Vec::new();
    let mut desk = start::desk(plan, &run, &stores)?;
    let mut rows = start::rows(&run, &stores)?;
    if let Err(error) =
        start::interfaces(plan, &run, &stores, (locked, &unpinned), &mut desk, &mut active, say)
    {
        abandon(&mut active);
        return Err(error.into());
    }
    report::tell_programs(&run, &mut active);
    rows.book_inherited(active.iter_mut().map(|one| &mut one.books));
    say_ready(&active, say);
    signals.started();
    // Ends before the books are printed, whatever they say.
    let _packer = Packer::start(&plan.stores, Arc::clone(&run.clock));
    let mut session = Session {
        plan,
        run,
        active,
        desk,
        files,
        rows: Books { rows, clock: ClockRows::new("system") },
        watch,
        signals,
        began: Instant::now(),
        next_second: Instant::now() + SECOND,
        unheard: BTreeSet::new(),
        pressure: Pressure::default(),
        stopping: false,
        trouble: None,
    };
    if let Err(cut) = session.attend(say) {
        // As after a kill: the next recorder closes these books.
        session.active.iter_mut().for_each(Active::leave);
        return Err(cut.into());
    }
    session.pressure.end(&session.active);
    let sessions = session.desk.finish(&sessions(&session.active));
    let closed = report::ledger(&session.run, &session.active, sessions)
        .and_then(|ledger| Ok((session.rows.finish(&session.run, &session.active, &ledger)?, ledger)));
    match closed {
        Ok((kept, ledger)) => {
            let untold = ending::hand_on(&mut session.active, &kept);
            Ok(Outcome { ledger, trouble: first_of(session.trouble, untold, say) })
        }
        Err(unread) => {
            session.active.iter_mut().for_each(Active::leave);
            Err(unread.into())
        }
    }
}

/// The first of two troubles; the other is said.
fn first_of(
    first: Option<RecordError>,
    second: Option<RecordError>,
    say: &mut dyn FnMut(&str),
) -> Option<RecordError> {
    if let (Some(_), Some(_)) = (&first, &second) {
        say(second.map(Failure::from).map(|failure| failure.to_string()).unwrap_or_default().trim_end());
        return first;
    }
    first.or(second)
}

/// All interfaces are in.
fn say_ready(active: &[Active], say: &mut dyn FnMut(&str)) {
    let ready: Vec<String> = active.iter().map(ready_text).collect();
    say(&format!("ready: {}", ready.join("; ")));
    // Not under systemd this does nothing.
    let _ = sd_notify::notify(&[sd_notify::NotifyState::Ready]);
}

fn ready_text(active: &Active) -> String {
    let InterfaceBooks { interface, mode, queues, .. } = &active.books;
    format!("{interface} queues={} mode={mode}", queues.len())
}

/// A recording under way.
struct Session<'p> {
    plan: &'p RecordPlan,
    run: Run,
    active: Vec<Active>,
    desk: Desk,
    files: StatusFiles,
    rows: Books,
    watch: LinkWatch,
    signals: Signals,
    began: Instant,
    next_second: Instant,
    /// Interfaces of which the operator knows that packets come where nobody listens.
    unheard: BTreeSet<String>,
    /// Queues of which the operator knows that payload is being shed.
    pressure: Pressure,
    stopping: bool,
    trouble: Option<RecordError>,
}

impl Session<'_> {
    /// Until everything is sealed.
    ///
    /// # Errors
    /// [`RecordError::Cut`]: a second signal came.
    fn attend(&mut self, say: &mut dyn FnMut(&str)) -> Result<(), RecordError> {
        loop {
            self.heed_signals(say)?;
            self.heed_reload();
            self.heed_departures();
            if !self.stopping {
                self.heed_plan();
            }
            self.each_second();
            for one in &mut self.active {
                if let Some(error) = one.step() {
                    self.trouble.get_or_insert(error);
                }
            }
            if self.active.iter().all(|one| matches!(one.stage, Stage::Over)) {
                return Ok(());
            }
            let ending = self.active.iter().any(|one| matches!(one.stage, Stage::Draining(_)));
            std::thread::sleep(if ending { ending::DRAIN_LOOK } else { NAP });
        }
    }

    fn heed_signals(&mut self, say: &mut dyn FnMut(&str)) -> Result<(), RecordError> {
        if self.signals.first() {
            say("stopping: what has arrived is being drained and sealed; another signal ends at once, \
                 without sealing, and leaves that to `tapedeck recover` or the next start");
            self.stop();
        }
        if self.signals.second() {
            let in_chains = |one: &Active| {
                let queues = one.books.queues.iter();
                queues.map(|queue| queue.chain.snapshot().pending.packets).sum::<u64>()
            };
            let pending = self.active.iter().map(|one| match one.books.queues(&one.intake) {
                Ok(queues) => queues.iter().map(|queue| queue.counts.pending).sum(),
                Err(_) => in_chains(one),
            });
            let pending = pending.sum();
            return Err(RecordError::Cut { pending });
        }
        Ok(())
    }

    /// Interfaces that were deleted or moved away end; one that is down is waited for.
    fn heed_departures(&mut self) {
        let heard = self.watch.hear();
        for one in self.active.iter_mut().filter(|one| one.gone.is_none()) {
            let told = heard.gone.iter().find(|(ifindex, _)| *ifindex == one.books.ifindex);
            let gone = told.map(|(_, gone)| *gone).or_else(|| {
                let answer = heard.missed.then(|| netlink::link(one.books.ifindex))?;
                let error = answer.err()?;
                (error.raw_os_error() == Some(libc::ENODEV)).then_some(Gone::Unseen)
            });
            let Some(gone) = gone else { continue };
            let interface = &one.books.interface;
            tracing::warn!(interface, "the interface {}; its recording ends", gone.text());
            one.gone = Some(gone);
            if let Some(claim) = &mut one.claim {
                claim.set_gone(gone);
            }
            one.begin_end(now(&self.run));
        }
        let mut all = self.active.iter().map(|one| one.gone.map(|gone| (one, gone)));
        if !self.stopping && all.all(|one| one.is_some()) {
            let list = self.active.iter().filter_map(|one| Some((one.books.interface.clone(), one.gone?)));
            self.trouble.get_or_insert(RecordError::Gone(list.collect()));
            self.stop();
        }
    }

    /// Whether it is time to stop by what was asked for, or because of a defect.
    fn heed_plan(&mut self) {
        let plan = self.plan;
        let dead = self.active.iter().find_map(died);
        if let Some(dead) = dead {
            self.trouble.get_or_insert(dead);
        } else if plan.duration.is_none_or(|duration| self.began.elapsed() < duration)
            && plan.packets.is_none_or(|wanted| stored(&self.active) < wanted)
        {
            return;
        }
        self.stop();
    }

    fn stop(&mut self) {
        self.stopping = true;
        let _ = sd_notify::notify(&[sd_notify::NotifyState::Stopping]);
        let now = now(&self.run);
        for one in &mut self.active {
            one.begin_end(now);
        }
    }

    fn each_second(&mut self) {
        if Instant::now() < self.next_second {
            return;
        }
        self.next_second += SECOND;
        // The packets' clock, as in the rows: the system's may be years away.
        let now = now(&self.run);
        let sure = self.rows.rows.sure();
        for one in &mut self.active {
            if let Some(keeper) = &mut one.keeper {
                keeper.beat(&one.books, &one.intake, now, sure);
            }
        }
        self.pressure.look(&self.active);
        if self.stopping && self.active.iter().any(|one| matches!(one.stage, Stage::Draining(_))) {
            // A drain that gets somewhere may take longer than systemd would wait; one that does not ends by itself.
            let _ = sd_notify::notify(&[sd_notify::NotifyState::ExtendTimeoutUsec(DRAIN_TIMEOUT_USEC)]);
        }
        report::sample_clock(&self.run, &mut self.active, &mut self.rows);
        if let Err(error) = self.report() {
            self.trouble.get_or_insert(error);
            self.stop();
        }
    }
}

/// The time that packets would have which came now.
fn now(run: &Run) -> Timestamp {
    run.clock.conversion().utc(crate::worker::monotonic_ns())
}

fn sessions(active: &[Active]) -> SessionCounts {
    let mut sum = SessionCounts::default();
    for one in active {
        sum.add(&one.books.sessions());
    }
    sum
}

fn stored(active: &[Active]) -> u64 {
    let queues = active.iter().flat_map(|one| &one.books.queues);
    queues.map(|queue| queue.chain.snapshot().stored.packets).sum()
}

/// A worker ends only when it is told to.
fn died(active: &Active) -> Option<RecordError> {
    if !matches!(active.stage, Stage::Running) {
        return None;
    }
    let dead = active.workers.iter().find(|crew| crew.thread.is_finished())?;
    Some(RecordError::Worker { interface: active.books.interface.clone(), queue: dead.queue })
}

impl Active {
    /// Leaves everything that is pinned as it is.
    fn leave(&mut self) {
        if let Some(keeper) = &mut self.keeper {
            keeper.leave();
            self.intake.leave();
        }
    }
}

/// Takes back a start that failed half way. A program that was found on the interface stays there, with the
/// books of the dead: no ledger will be written now.
fn abandon(active: &mut Vec<Active>) {
    for one in active.iter_mut() {
        if one.taken || one.books.inherits() {
            one.leave();
        }
        let _ = one.intake.close();
        one.tell(Phase::Finish);
        for crew in one.workers.drain(..) {
            let _ = crew.thread.join();
        }
    }
    active.clear();
}
