//! The start of a recording: stores, interfaces, and per interface down the ladder.
//!
//! Workers run before the intake opens, so that nothing is counted as lost while they start. A mode that
//! fails takes its workers with it before the next one is tried. What a killed recorder left on the interface
//! is taken over, or off, on the way ([`Estate`]).

use super::ending::Stage;
use super::{Active, Crew, RecordError, Run, now};
use crate::books::{InterfaceBooks, QueueBooks};
use crate::card::Card;
use crate::claim::Claim;
use crate::cli::{ModeWish, StampWish};
use crate::doctor::Checkup;
use crate::filtering::Judge;
use crate::identity;
use crate::ladder::{self, Intake, Mode, Prepared, Rung, RungError, Sources};
use crate::ledger_rows::LedgerRows;
use crate::lock::{Holder, InterfaceLock};
use crate::maintain;
use crate::nic::Nic;
use crate::pins::estate::Estate;
use crate::pins::unpinned::{self, Unpinned};
use crate::pins::{Keeper, Note};
use crate::plan::RecordPlan;
use crate::preflight::{PreflightError, Target};
use crate::sessions::Tracker;
use crate::sessions::desk::{Desk, Kind};
use crate::source::Source;
use crate::voice::Failure as Fault;
use crate::worker::{self, Phase, Post, Shared};
use crate::xsk::{Gauge, Pages};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::AtomicU32;
use tapedeck_ebpf::{Mode as AttachMode, Program};
use tapedeck_index::pcapng::InterfaceInfo;
use tapedeck_packet::{LinkType, Timestamp};
use tapedeck_writer::{Chain, ChainConfig, RecoverOptions};

/// A folder and the sensor that fills it.
pub(super) struct Store {
    path: PathBuf,
    sensor: String,
}

/// Makes the folders stores, and recovers what a former recorder left open in them; and who died there unpinned.
pub(super) fn stores(
    plan: &RecordPlan,
    say: &mut dyn FnMut(&str),
) -> Result<(Vec<Store>, Vec<Unpinned>), Fault> {
    // Before recovery clears their live files away.
    let unpinned = unpinned::find(&plan.stores);
    let mut stores = Vec::with_capacity(plan.stores.len());
    for path in &plan.stores {
        let sensor = identity::open_store(path)?;
        recover(path, say);
        stores.push(Store { path: path.clone(), sensor });
    }
    Ok((stores, unpinned))
}

/// The threads for sessions and statistics.
pub(super) fn desk(plan: &RecordPlan, run: &Run, stores: &[Store]) -> Result<Desk, Fault> {
    let folders: Vec<_> = stores.iter().map(|store| (store.path.as_path(), store.sensor.as_str())).collect();
    Desk::start(&folders, run.run, Kind::Live, plan.sessions.clone(), identity::secret()?)
        .map_err(|error| Fault::of(&error))
}

/// The thread for the rows of the ledger.
pub(super) fn rows(run: &Run, stores: &[Store]) -> Result<LedgerRows, Fault> {
    let folders = stores.iter().map(|store| (store.path.clone(), store.sensor.clone())).collect();
    LedgerRows::start(folders, run.run).map_err(|error| Fault::of(&error))
}

/// Seals what is left open, and says so. What cannot be recovered stays as it is: a recorder that did
/// not start would lose more.
fn recover(store: &Path, say: &mut dyn FnMut(&str)) {
    maintain::say_recovered(&tapedeck_writer::recover(store, &RecoverOptions::default()), say);
}

/// Finds and locks all interfaces of the plan; nothing on them is touched yet.
pub(super) fn lock(plan: &RecordPlan, run: &Run) -> Result<Vec<(Target, InterfaceLock)>, RecordError> {
    // All are looked at before the first is locked.
    let find = |name: &String| Target::find(name, plan.force);
    let targets = plan.interfaces.iter().map(find).collect::<Result<Vec<_>, _>>()?;
    let lock = |target: Target| {
        let holder = Holder {
            pid: std::process::id(),
            run: format!("{:08x}", run.run),
            interface: target.name.clone(),
            stores: plan.stores.clone(),
        };
        let lock = InterfaceLock::take(target.ifindex, &holder)?;
        Ok((target, lock))
    };
    targets.into_iter().map(lock).collect()
}

/// Starts all interfaces of the plan; those that run are in `active`, also after an error.
pub(super) fn interfaces(
    plan: &RecordPlan,
    run: &Run,
    stores: &[Store],
    (locked, unpinned): (Vec<(Target, InterfaceLock)>, &[Unpinned]),
    desk: &mut Desk,
    active: &mut Vec<Active>,
    say: &mut dyn FnMut(&str),
) -> Result<(), RecordError> {
    let seq = Arc::new(AtomicU32::new(0));
    let mut place = Place { plan, run, stores, seq, desk, next: 0 };
    for (target, lock) in locked {
        let estate = Estate::find(&plan.pin_dir, &target, &plan.stores, unpinned, say);
        let claim = Claim::new(&target, plan.rss.then(|| plan.rss_queues()))?;
        // Before the sockets take the huge pages that are free.
        let checkup = Checkup::begin(&target, plan, &plan.stores);
        let Started { one, pages } = down_the_ladder(&target, &mut place, estate, claim, lock)?;
        checkup.end(&target, one.books.mode, pages);
        active.push(one);
    }
    Ok(())
}

/// Where the workers of all interfaces go.
struct Place<'a> {
    plan: &'a RecordPlan,
    run: &'a Run,
    stores: &'a [Store],
    seq: Arc<AtomicU32>,
    desk: &'a mut Desk,
    /// Workers placed so far.
    next: usize,
}

/// A step that failed: try the next one, or give up.
enum Failure {
    Step(RungError),
    Fatal(RecordError),
}

impl From<RungError> for Failure {
    fn from(error: RungError) -> Self {
        Self::Step(error)
    }
}

impl From<RecordError> for Failure {
    fn from(error: RecordError) -> Self {
        Self::Fatal(error)
    }
}

fn down_the_ladder(
    target: &Target,
    place: &mut Place<'_>,
    mut estate: Estate,
    mut claim: Claim,
    lock: InterfaceLock,
) -> Result<Started, RecordError> {
    let running = estate.running(target.ifindex);
    let modes: &[Mode] = match (&place.plan.mode, running) {
        // What a killed recorder had found out. To try the modes above would take its program off: a gap.
        (ModeWish::Auto, Some((AttachMode::Skb, _))) => {
            let interface = &target.name;
            tracing::info!(
                interface,
                "mode skb, as the killed recorder had it; to have the faster ones tried, end in order and start again"
            );
            &[Mode::Skb, Mode::Packet]
        }
        (ModeWish::Auto, _) => &Mode::ALL,
        (ModeWish::Only(mode), _) => std::slice::from_ref(mode),
    };
    let mut rung = Rung {
        ifindex: target.ifindex,
        mtu: target.state.mtu,
        queues: target.queues(),
        utc_offset_ns: place.run.clock.conversion().offset_ns(),
        asks_card: false,
        packet_bytes: place.plan.packet_bytes,
    };
    let mut card = card_of(target, place.plan.stamps, &mut claim, running.map(|(_, asks_card)| asks_card))?;
    let steps = steps(modes, card.is_some(), place.plan.stamps);
    let mut left = steps.iter();
    while let Some(step) = left.next() {
        let next = left.as_slice().first();
        let interface = &target.name;
        if let Err(error) = claim.offloads_off(step.mode) {
            let Some(next) = next else { return Err(error.into()) };
            step_down(interface, *step, *next, &error);
            continue;
        }
        rung.asks_card = step.asks_card;
        if !step.asks_card {
            claim.stamps_back();
        }
        match try_mode(target, place, &mut estate, &rung, step.mode, &mut card) {
            Ok(mut started) => {
                started.one.claim = Some(claim);
                started.one.lock = Some(lock);
                return Ok(started);
            }
            Err(Failure::Step(source)) => match next {
                Some(next) => step_down(interface, *step, *next, &source),
                None => {
                    return Err(RecordError::Mode { interface: interface.clone(), mode: step.mode, source });
                }
            },
            Err(Failure::Fatal(error)) => return Err(error),
        }
    }
    // Only where the card was asked for and no mode that may be taken asks it.
    let (interface, why) =
        (target.name.clone(), "only native XDP asks it: modes zerocopy and copy".to_owned());
    Err(PreflightError::Stamps { interface, why }.into())
}

/// A step of the ladder.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    mode: Mode,
    asks_card: bool,
}

impl std::fmt::Display for Step {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.mode, if self.asks_card { " with stamps of the card" } else { "" })
    }
}

/// The steps in order. A driver may take the plain program in a mode where it does not take the one that asks the card.
fn steps(modes: &[Mode], has_card: bool, wish: StampWish) -> Vec<Step> {
    let both = |mode: &Mode| {
        let asking =
            (has_card && ladder::can_ask_card(*mode)).then_some(Step { mode: *mode, asks_card: true });
        let plain = (wish != StampWish::Card).then_some(Step { mode: *mode, asks_card: false });
        asking.into_iter().chain(plain)
    };
    modes.iter().flat_map(both).collect()
}

/// The card's clock, if its stamps are to be used; `running`: whether a killed recorder's program asks for them. That is
/// taken over as it is: to load the other one would leave a gap.
fn card_of(
    target: &Target,
    wish: StampWish,
    claim: &mut Claim,
    running: Option<bool>,
) -> Result<Option<Card>, PreflightError> {
    let interface = &target.name;
    if wish == StampWish::System || (wish == StampWish::Auto && running == Some(false)) {
        return Ok(None);
    }
    let card = claim.stamps_on().and_then(|number| {
        Card::open(number).map_err(|error| format!("its clock /dev/ptp{number} cannot be read: {error}"))
    });
    match card {
        Ok(card) => Ok(Some(card)),
        Err(why) if wish == StampWish::Card => {
            Err(PreflightError::Stamps { interface: interface.clone(), why })
        }
        Err(why) => {
            tracing::debug!(interface, why, "stamped by the system's clock");
            claim.stamps_back();
            Ok(None)
        }
    }
}

/// Says why a faster mode is not taken, with all causes in one line.
fn step_down(interface: &str, step: Step, next: Step, error: &dyn std::error::Error) {
    let why = crate::voice::chain(error);
    tracing::warn!(interface, "no mode {step}, trying {next}: {why}");
}

/// An interface whose packets come in, and the pages that its packet memory consists of.
struct Started {
    one: Active,
    pages: Option<Pages>,
}

fn try_mode(
    target: &Target,
    place: &mut Place<'_>,
    estate: &mut Estate,
    rung: &Rung,
    mode: Mode,
    card: &mut Option<Card>,
) -> Result<Started, Failure> {
    let Prepared { sources, mut intake, gauges, pages } = rung.prepare(mode, estate)?;
    say_without_refusals(&target.name, &intake);
    let generation = first_filter(&intake, place.run)?;
    let books = InterfaceBooks {
        interface: target.name.clone(),
        ifindex: target.ifindex,
        mode,
        queues: Vec::new(),
        began: Timestamp::MAX,
        opening: Timestamp::MAX,
        closed: None,
        carried: BTreeMap::new(),
        inherited: Vec::new(),
        nic: Nic::new(target.ifindex),
    };
    let clock = card.as_ref().filter(|_| rung.asks_card).map(Card::number);
    let mut crew = Gang { target, mode, clock, generation, books, workers: Vec::new() };
    let first = place.next;
    let hired = match sources {
        Sources::Xsk(sockets) => crew.trackers(place, sockets.len()).and_then(|trackers| {
            let gauges = gauges.into_iter().map(Some);
            (0..).zip(sockets).zip(gauges).zip(trackers).try_for_each(
                |(((queue, socket), gauge), tracker)| crew.hire(place, queue, socket, gauge, tracker),
            )
        }),
        Sources::Packet(source) => crew.trackers(place, 1).and_then(|mut trackers| match trackers.pop() {
            Some(tracker) => crew.hire(place, 0, source, None, tracker),
            None => Ok(()),
        }),
    };
    let taken = estate.has_taken();
    let opened =
        hired.map_err(Failure::Fatal).and_then(|()| open(&mut intake, &mut crew.books, place, estate));
    let Gang { mut books, workers, .. } = crew;
    books.began = now(place.run);
    match opened {
        Ok(keeper) => {
            let card = card.take().filter(|_| rung.asks_card);
            let (stage, gone, claim, lock) = (Stage::Running, None, None, None);
            let one = Active { intake, keeper, taken, books, card, workers, stage, gone, claim, lock };
            Ok(Started { one, pages })
        }
        Err(failure) => {
            if taken {
                intake.leave();
            }
            place.next = first;
            for queue in &books.queues {
                queue.shared.advance(Phase::Finish);
            }
            for crew in workers {
                let _ = crew.thread.join();
            }
            Err(failure)
        }
    }
}

/// Says where the causes of losses come from, if not from the program.
fn say_without_refusals(interface: &str, intake: &Intake) {
    if let Some(why) = intake.program().and_then(|program| program.without_refusals()) {
        tracing::warn!(
            interface,
            why,
            "losses by cause come from the sockets: the kernel gives no tracepoint"
        );
    }
}

/// Gives the program its filter before a socket of ours gets a packet. Returns the filter's generation.
fn first_filter(intake: &Intake, run: &Run) -> Result<u32, RungError> {
    let filter = run.filter.filter();
    let Some(program) = intake.program() else { return Ok(0) };
    // One that was taken over has its former recorder's.
    if filter.is_empty() && program.filter_generation()? == 0 {
        return Ok(0);
    }
    let generation = program.prepare_filter(filter)?;
    program.switch_filter(generation)?;
    Ok(generation)
}

/// Who stamps the packets, for the header of a segment; `clock`: the card's.
fn stamps(mode: Mode, clock: Option<u32>) -> String {
    let system = match mode {
        Mode::ZeroCopy | Mode::Copy | Mode::Skb => "stamped by the system's clock in the XDP program",
        Mode::Packet => "stamped by the system's clock at the packet socket",
    };
    match clock {
        Some(number) => {
            format!("stamped by the card (ptp{number}), and where it says nothing that can be {system}")
        }
        None => system.to_owned(),
    }
}

/// Closes the books of dead recorders and lets packets in. Workers run.
fn open(
    intake: &mut Intake,
    books: &mut InterfaceBooks,
    place: &Place<'_>,
    estate: &mut Estate,
) -> Result<Option<Keeper>, Failure> {
    let Run { run, start, .. } = place.run;
    let note = Note::new(
        books,
        ladder::choice(intake.program().is_some_and(Program::asks_card)).to_owned(),
        *run,
        start.nanos(),
        &place.plan.stores,
    );
    let taken = estate.has_taken();
    let mut keeper = estate.settle(intake, books, note).map_err(RecordError::from)?;
    books.opening = now(place.run);
    let opened = intake.open().and_then(|()| {
        if taken { Estate::opened(intake, books, *run).map_err(RungError::from) } else { Ok(()) }
    });
    if let Some(keeper) = keeper.as_mut().filter(|_| taken) {
        keeper.opened(books, intake);
    }
    let Err(source) = opened else { return Ok(keeper) };
    if !books.inherits() && !taken {
        return Err(Failure::Step(source));
    }
    // The books of the dead are in the note now: the next start finds them there.
    if let Some(keeper) = &mut keeper {
        keeper.leave();
        intake.leave();
    }
    let (interface, mode) = (books.interface.clone(), books.mode);
    Err(Failure::Fatal(RecordError::Mode { interface, mode, source }))
}

/// The workers of one interface while they are hired.
struct Gang<'a> {
    target: &'a Target,
    mode: Mode,
    /// Number of the card's clock, if the card stamps.
    clock: Option<u32>,
    /// Of the filter the program begins with.
    generation: u32,
    books: InterfaceBooks,
    workers: Vec<Crew>,
}

impl Gang<'_> {
    /// A tracker for each of so many queues.
    fn trackers(&self, place: &mut Place<'_>, queues: usize) -> Result<Vec<Tracker>, RecordError> {
        let stores: Vec<usize> = (0..queues).map(|queue| queue % place.stores.len().max(1)).collect();
        let interface = self.target.name.clone();
        place.desk.trackers(&interface, &stores).map_err(|source| RecordError::Writer {
            interface,
            queue: 0,
            source,
        })
    }

    /// Starts chain and worker for one queue.
    fn hire<S: Source + 'static>(
        &mut self,
        place: &mut Place<'_>,
        queue: u32,
        source: S,
        gauge: Option<Gauge>,
        tracker: Tracker,
    ) -> Result<(), RecordError> {
        let interface = self.target.name.clone();
        let spread = usize::try_from(queue).unwrap_or(usize::MAX) % place.stores.len().max(1);
        // A plan has at least one store.
        let Some(store) = place.stores.get(spread) else { return Ok(()) };
        let cpus = &place.plan.cpus;
        let cpu = cpus.get(place.next % cpus.len().max(1)).copied();
        place.next += 1;
        let config = self.chain_config(place, queue, store);
        let chain = Chain::start(config).map_err(|source| RecordError::Writer {
            interface: interface.clone(),
            queue,
            source,
        })?;
        let shared = Arc::new(Shared::default());
        let (sink, why_plain) = chain.sink();
        let on = cpu.map_or_else(|| "any".to_owned(), |cpu| cpu.to_string());
        tracing::info!(interface, queue, cpu = on, store = %store.path.display(), sink = sink.name(), "worker");
        if let Some(reason) = why_plain {
            tracing::warn!(interface, queue, reason, "no io_uring with O_DIRECT here: plain writes");
        }
        let counters = chain.counters();
        let snaplen = place.plan.snaplen.and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX);
        let post = Post {
            interface,
            queue,
            description: self.description(queue),
            cpu,
            snaplen,
            overtake_ns: if self.clock.is_some() { worker::CARD_OVERTAKE_NS } else { worker::OVERTAKE_NS },
            nap_max: worker::nap_max(place.plan.packet_bytes),
            shed: place.plan.shed,
            clock: Arc::clone(&place.run.clock),
            judge: Judge::new(self.mode == Mode::Packet, self.generation, Arc::clone(&place.run.filter)),
            shared: Arc::clone(&shared),
        };
        let sessions = tracker.books();
        let thread = worker::spawn(post, source, chain, tracker)
            .map_err(|source| RecordError::System { act: "start a worker", source })?;
        self.books.queues.push(QueueBooks { queue, store: spread, shared, gauge, chain: counters, sessions });
        self.workers.push(Crew { queue, cpu, store: store.path.clone(), thread });
        Ok(())
    }

    /// `if_description` of the segments of a queue.
    fn description(&self, queue: u32) -> String {
        format!("queue {queue}, mode {}, {}", self.mode, stamps(self.mode, self.clock))
    }

    fn chain_config(&self, place: &Place<'_>, queue: u32, store: &Store) -> ChainConfig {
        let interface = InterfaceInfo {
            name: self.target.name.clone(),
            link_type: LinkType::ETHERNET,
            snaplen: place.plan.snaplen.unwrap_or(0),
            description: Some(self.description(queue)),
            filter: place.run.filter.text().map(str::to_owned),
            hardware: self.target.state.kind.clone(),
            speed_bps: None,
        };
        ChainConfig {
            section: identity::section(),
            queue,
            run: place.run.run,
            seq: Arc::clone(&place.seq),
            segment_bytes: place.plan.segment_bytes,
            segment_age: Some(place.plan.segment_age),
            level: place.plan.level,
            ..ChainConfig::record(store.path.clone(), store.sensor.clone(), interface)
        }
    }
}
