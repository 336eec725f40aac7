//! What dead recorders left pinned of an interface, and what becomes of it when the next one starts.
//!
//! [`Estate::find`] looks, and counts what their stores hold. [`Estate::take`] hands over the program that
//! still sits on the interface, if it fits; else it is taken off. [`Estate::settle`] closes the books of the
//! dead: each of their packets that no store holds is carried into the ledger of the new run. Only then is
//! anything of them removed. It must never book a packet twice, nor touch what a living recorder holds.

use super::books::{Settled, settle};
use super::heirs::{self, Heir};
use super::rows::{self, Rows};
use super::unpinned::{self, Unpinned};
use super::{FolderName, Keeper, Note, RowNote, found, ready};
use crate::books::InterfaceBooks;
use crate::identity::{self, existing_store};
use crate::ladder::{CARD_CHOICE, Intake};
use crate::ledger::Dropped;
use crate::lock;
use crate::maintain;
use crate::preflight::Target;
use crate::sys::sockopt;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tapedeck_ebpf::{Mode as AttachMode, PinError, Pins, Program, ProgramError, QUEUES_MAX, Tally};
use tapedeck_packet::Timestamp;
use tapedeck_writer::RecoverOptions;

/// Time for a CPU that looked at a slot before it was filled to count what it found.
const SETTLE: Duration = Duration::from_millis(2);

/// A recorder that is gone.
#[derive(Debug)]
pub(crate) struct Dead {
    pub(crate) pins: Pins,
    pub(crate) note: Note,
    /// Packets in its stores, by queue.
    pub(crate) found: BTreeMap<u32, u64>,
    /// What the rows of its ledger say.
    pub(crate) rows: Rows,
}

impl Dead {
    /// What a folder holds; `None` if it is no recorder's.
    pub(crate) fn open(folder: &Path) -> Option<Self> {
        let pins = Pins::open(folder).ok()?;
        let note = Note::read(&pins.note().ok()?)?;
        Some(Self { pins, note, found: BTreeMap::new(), rows: Rows::default() })
    }

    /// Recovers its stores, but for those in `done`, and counts its packets in them.
    pub(crate) fn search(&mut self, done: &[PathBuf], say: &mut dyn FnMut(&str)) {
        for store in self.note.stores.iter().filter(|store| !done.contains(store)) {
            if existing_store(store).is_ok() {
                maintain::say_recovered(&tapedeck_writer::recover(store, &RecoverOptions::default()), say);
            }
        }
        if !self.note.closed {
            self.found = found::packets(&self.note, say);
        }
        self.rows = rows::read(&self.note, say);
    }

    /// Rows that it should have booked of others and had not.
    pub(crate) fn waiting(&self) -> impl Iterator<Item = RowNote> + '_ {
        let waiting = self.note.rows.iter().filter(|row| !self.rows.told.contains(&row.uid)).cloned();
        // One of an earlier version does not name it.
        waiting.map(|row| match row.interface.as_str() {
            "" => RowNote { interface: self.note.interface.clone(), ..row },
            _ => row,
        })
    }

    /// Its counters as they are pinned, by queue.
    ///
    /// # Errors
    /// They cannot be read.
    pub(crate) fn tallies(&self) -> Result<Vec<Tally>, PinError> {
        if self.note.counting { self.pins.tallies(&self.note.fields()) } else { Ok(Vec::new()) }
    }

    /// What became of its packets, by queue, without what it carried itself.
    pub(crate) fn settled(&self, tallies: &[Tally]) -> BTreeMap<u32, Settled> {
        let mut all = BTreeMap::new();
        for (queue, tally) in (0..).zip(tallies) {
            let found = self.found.get(&queue).copied().unwrap_or(0);
            all.insert(queue, settle(tally, &self.note.known(queue), found));
        }
        all
    }
}

/// What dead recorders left of an interface.
#[derive(Debug, Default)]
pub(crate) struct Estate {
    /// Folder of the interface; `None` if nothing can be pinned.
    folder: Option<PathBuf>,
    dead: Vec<Dead>,
    /// Which of the dead has handed over its program.
    taken: Option<usize>,
    /// Of the dead for whom nothing counted: of all interfaces.
    unpinned: Vec<Unpinned>,
}

impl Estate {
    /// Looks what is left of `target`, which the caller has locked. `recovered`: stores whose recovery has run.
    pub(crate) fn find(
        dir: &Path,
        target: &Target,
        recovered: &[PathBuf],
        unpinned: &[Unpinned],
        say: &mut dyn FnMut(&str),
    ) -> Self {
        let unpinned = unpinned.to_vec();
        if let Err(why) = ready(dir) {
            let interface = &target.name;
            tracing::warn!(interface, "nothing is pinned: {why}; after a kill, nobody counts what passes");
            return Self { unpinned, ..Self::default() };
        }
        let folder = Some(dir.join(FolderName::of(target).to_string()));
        let dead = of_target(dir, target).into_iter().map(|mut dead| {
            dead.search(recovered, say);
            dead
        });
        Self { folder, dead: dead.collect(), taken: None, unpinned }
    }

    /// The program that a dead recorder left on the interface, if it fits `choice`; `mode` is that of the
    /// attach. One that does not fit is taken off.
    pub(crate) fn take(&mut self, ifindex: u32, mode: AttachMode, choice: &str) -> Option<Program> {
        self.taken = None;
        for (at, dead) in self.dead.iter().enumerate() {
            if dead.pins.ifindex() != Some(ifindex) {
                continue;
            }
            let (note, run) = (&dead.note, &dead.note.run);
            let why = if !note.counting {
                "its recorder had not begun to count".to_owned()
            } else if note.build != tapedeck_ebpf::BUILD || note.choice != choice {
                "it is another program".to_owned()
            } else if attach_mode(&note.mode) != Some(mode) {
                format!("it runs in mode {}", note.mode)
            } else {
                match dead.pins.take(ifindex) {
                    Ok(program) => {
                        self.taken = Some(at);
                        return Some(program);
                    }
                    Err(misfit) => misfit.to_string(),
                }
            };
            tracing::warn!(run, "the pinned program of a dead recorder is taken off: {why}");
            if let Err(error) = dead.pins.detach() {
                tracing::warn!(error = &error as &dyn std::error::Error, "it cannot be taken off");
            }
        }
        None
    }

    /// How the program runs that a dead recorder left on the interface, and whether it asks the card; `None` if there is
    /// none that this build could take over.
    pub(crate) fn running(&self, ifindex: u32) -> Option<(AttachMode, bool)> {
        let ours = |dead: &&Dead| {
            dead.pins.ifindex() == Some(ifindex)
                && dead.note.counting
                && dead.note.build == tapedeck_ebpf::BUILD
        };
        let dead = self.dead.iter().find(ours)?;
        Some((attach_mode(&dead.note.mode)?, dead.note.choice == CARD_CHOICE))
    }

    /// Takes every program of the dead off the interface: a mode without one begins.
    pub(crate) fn take_off(&mut self) {
        self.taken = None;
        for dead in &self.dead {
            if let Err(error) = dead.pins.detach() {
                tracing::warn!(error = &error as &dyn std::error::Error, "a stale program stays attached");
            }
        }
    }

    /// Whether the books of somebody are to be closed.
    pub(crate) fn has_dead(&self) -> bool {
        !self.dead.is_empty()
    }

    /// Whether the program in use was somebody else's.
    pub(crate) fn has_taken(&self) -> bool {
        self.taken.is_some()
    }

    /// Closes the books of the dead into those of the new run, and pins its program. Workers must run and
    /// all sockets be bound, and no slot be filled: then nothing is delivered any more.
    ///
    /// # Errors
    /// The counters cannot be read. That nothing can be pinned is none.
    pub(crate) fn settle(
        &mut self,
        intake: &mut Intake,
        books: &mut InterfaceBooks,
        mut note: Note,
    ) -> Result<Option<Keeper>, ProgramError> {
        if let (Some(program), true) = (intake.program_mut(), self.taken.is_some()) {
            program.begin()?;
        }
        for (at, dead) in self.dead.iter().enumerate() {
            let tallies = match intake.program() {
                Some(program) if self.taken == Some(at) => {
                    (0..=QUEUES_MAX).map(|queue| program.before(queue).tally()).collect()
                }
                _ => dead.tallies().map_err(ProgramError::Pin)?,
            };
            let heir =
                Heir { run: &note.run, interface: &note.interface, mode: &note.mode, now: identity::now() };
            carry(dead, &dead.settled(&tallies), &heir, books);
        }
        let counted = self.dead.iter().filter(|dead| dead.note.counting).map(|dead| dead.note.run.clone());
        let counted: Vec<String> = counted.collect();
        let now = identity::now().nanos();
        let unknown = unpinned::rows(&self.unpinned, &books.interface, &counted, &note, now);
        books.inherited.extend(unknown);
        books.inherited = heirs::few(std::mem::take(&mut books.inherited));
        note.inherit(books, 0);
        match self.keep(intake, note) {
            Ok(keeper) => Ok(keeper),
            Err(error) => {
                let interface = &books.interface;
                let error = &error as &dyn std::error::Error;
                tracing::warn!(
                    interface,
                    error,
                    "nothing is pinned; after a kill, nobody counts what passes"
                );
                Ok(None)
            }
        }
    }

    /// The books of the dead are in the note of the new run, in one step; then what is left of them goes.
    fn keep(&mut self, intake: &mut Intake, mut note: Note) -> Result<Option<Keeper>, PinError> {
        let Some(folder) = self.folder.clone() else { return Ok(None) };
        let taken = self.taken.map(|at| self.dead.remove(at));
        let ours = self.dead.iter().position(|dead| dead.pins.folder() == folder);
        let own = ours.map(|at| self.dead.remove(at));
        let is_taken = taken.is_some();
        let pins = match taken.or(own) {
            Some(dead) => dead.pins,
            // Else it holds nothing that anybody could read.
            None => renewed(&folder)?,
        };
        if let (Some(program), true) = (intake.program(), is_taken) {
            for queue in 0..=QUEUES_MAX {
                note.queue(queue).before = program.before(queue).tally();
            }
            note.counting = true;
        }
        let carries = !note.rows.is_empty() || note.queues.iter().any(|entry| entry.carried.sum() > 0);
        let mut keeper = Keeper::new(pins, note)?;
        for dead in self.dead.drain(..) {
            if let Err(error) = dead.pins.remove() {
                tracing::warn!(error = &error as &dyn std::error::Error, "what a dead recorder left stays");
            }
        }
        if intake.program().is_none() {
            // Without a program the folder is worth keeping only for what it carries.
            keeper.pins.clear()?;
            return Ok(carries.then_some(keeper));
        }
        if let Err(error) = keeper.begin(intake, is_taken) {
            if let Some(program) = intake.program_mut() {
                program.forget_pins();
            }
            return Err(error);
        }
        Ok(Some(keeper))
    }

    /// The slots are filled: what passed until then, and since the books of the dead were closed, passed
    /// while nobody recorded.
    ///
    /// # Errors
    /// The counters cannot be read.
    pub(crate) fn opened(
        intake: &mut Intake,
        books: &mut InterfaceBooks,
        run: u32,
    ) -> Result<(), ProgramError> {
        let Some(program) = intake.program_mut() else { return Ok(()) };
        std::thread::sleep(SETTLE);
        for queue in books.queues.iter().map(|queue| queue.queue).collect::<Vec<_>>() {
            let down = program.settle_empty(queue)?;
            if down > 0 {
                let more = Dropped { down, ..Dropped::default() };
                books.carried.entry(queue).or_default().add(&more, 0);
                heirs::more_down(books, queue, down, run, identity::now());
            }
        }
        Ok(())
    }
}

/// A folder without a note that can be read: its content goes.
pub(crate) fn renewed(folder: &Path) -> Result<Pins, PinError> {
    if let Ok(pins) = Pins::open(folder) {
        pins.clear()?;
        return Ok(pins);
    }
    if folder.is_dir() {
        let error = |source| PinError { act: "empty", path: folder.to_owned(), source };
        for entry in std::fs::read_dir(folder).map_err(error)?.flatten() {
            std::fs::remove_file(entry.path()).map_err(error)?;
        }
    }
    Pins::create(folder)
}

/// What a dead recorder left counts on.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub(crate) struct Left {
    /// Interface name.
    pub(crate) interface: String,
    /// Its run.
    pub(crate) run: String,
    /// Its process.
    pub(crate) pid: u32,
    /// Its stores.
    pub(crate) stores: Vec<PathBuf>,
    /// When it was alive last, RFC 3339.
    pub(crate) last: String,
    /// The program still sits on the interface.
    pub(crate) attached: bool,
    /// Packets that have passed since, as far as the program counted them.
    pub(crate) passed: u64,
}

impl Left {
    fn of(dead: &Dead) -> Self {
        let settled = dead.settled(&dead.tallies().unwrap_or_default());
        let Note { interface, run, pid, stores, seen_ns, .. } = dead.note.clone();
        Self {
            interface,
            run,
            pid,
            stores,
            last: Timestamp::from_nanos_saturating(seen_ns).to_string(),
            attached: dead.pins.ifindex().is_some(),
            passed: settled.values().map(|settled| settled.dropped.down).sum(),
        }
    }
}

/// What is left of all dead recorders, in every network namespace.
pub(crate) fn left(dir: &Path) -> Vec<Left> {
    let folders = super::folders(dir).unwrap_or_default().into_iter();
    let dead = folders.filter(|(name, _)| lock::holder_in(name.namespace, name.ifindex).is_none());
    dead.filter_map(|(_, folder)| Some(Left::of(&Dead::open(&folder)?))).collect()
}

/// What is left of dead recorders of an interface that nobody records.
pub(crate) fn left_on(dir: &Path, target: &Target) -> Vec<Left> {
    of_target(dir, target).iter().map(Left::of).collect()
}

/// The recorders of the dead that recorded `target`, under its number or, if theirs is gone, under its name.
fn of_target(dir: &Path, target: &Target) -> Vec<Dead> {
    let cookie = sockopt::namespace_cookie().unwrap_or(0);
    let namespace = lock::namespace();
    let folders = super::folders(dir).unwrap_or_default().into_iter();
    folders
        .filter(|(name, _)| name.namespace == namespace)
        .filter_map(|(name, folder)| {
            let dead = Dead::open(&folder);
            if dead.is_none() && name.ifindex == target.ifindex && folder.exists() {
                let folder = folder.display();
                tracing::warn!(
                    "{folder}: no note that this version can read: the books of who made it are lost"
                );
            }
            Some((name, dead?))
        })
        .filter(|(_, dead)| dead.note.namespace == cookie)
        .filter(|(name, dead)| {
            let came_back = || {
                dead.note.interface == target.name
                    && dead.pins.ifindex().is_none()
                    && lock::holder_of(name.ifindex).is_none()
            };
            name.ifindex == target.ifindex || came_back()
        })
        .map(|(_, dead)| dead)
        .collect()
}

/// Adds the losses of a dead run, and those it carried, to the books of the new one, and says so.
fn carry(dead: &Dead, settled: &BTreeMap<u32, Settled>, heir: &Heir<'_>, books: &mut InterfaceBooks) {
    let mut sum = Dropped::default();
    let mut inherited: Vec<RowNote> = dead.waiting().collect();
    for (queue, settled) in settled {
        if settled.excess() > 0 {
            let (run, excess) = (&dead.note.run, settled.excess());
            tracing::error!(
                run,
                queue,
                excess,
                "more packets were found than were delivered: a defect of tapedeck"
            );
        }
        sum.add(&settled.dropped);
        let (rows, bytes) = heirs::rows(dead, *queue, settled, heir);
        inherited.extend(rows);
        add(books, *queue, &settled.dropped, bytes);
    }
    inherited.extend(std::mem::take(&mut books.inherited));
    books.inherited = heirs::few(inherited);
    for entry in &dead.note.queues {
        add(books, entry.queue, &entry.carried, entry.carried_bytes);
    }
    let Note { run, pid, seen_ns, counting, .. } = &dead.note;
    let last = Timestamp::from_nanos_saturating(*seen_ns).to_string();
    if dead.note.closed {
        let (interface, rows) = (&dead.note.interface, dead.waiting().count());
        tracing::warn!(
            interface,
            rows,
            "run {run} could not write rows of the ledger that tell of recorders before it: they are written now"
        );
        return;
    }
    if !counting {
        let interface = &dead.note.interface;
        tracing::warn!(
            interface,
            "run {run} (process {pid}) ended without a ledger after {last}; no program counted for it, so nobody \
             knows what it lost; what it had found left of others is in the ledger of this run"
        );
        return;
    }
    let (crash, down, other) = (sum.crash, sum.down, sum.sum() - sum.crash - sum.down);
    tracing::warn!(
        interface = dead.note.interface,
        crash,
        down,
        other,
        "run {run} (process {pid}) ended without a ledger after {last}; what it lost, and what passed since, \
         is in the ledger of this run"
    );
}

fn add(books: &mut InterfaceBooks, queue: u32, dropped: &Dropped, bytes: u64) {
    if dropped.sum() > 0 {
        books.carried.entry(queue).or_default().add(dropped, bytes);
    }
}

/// Where the program of a mode sits.
fn attach_mode(mode: &str) -> Option<AttachMode> {
    match mode {
        "zerocopy" | "copy" => Some(AttachMode::Native),
        "skb" => Some(AttachMode::Skb),
        _ => None,
    }
}
