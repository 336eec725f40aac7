//! `tapedeck detach`: takes off what killed recorders left pinned, and closes their books.
//!
//! What a dead recorder stored is recovered first, so that its ledger can say of each packet that its program
//! counted whether it is stored, was lost in the crash, or passed while nobody recorded. It must never touch
//! what a living recorder holds.

use crate::books::Carried;
use crate::cli::DetachArgs;
use crate::identity;
use crate::ledger::{BeforeQueues, Counts, InterfaceEntry, Ledger, QueueEntry, SessionEntry};
use crate::ledger_rows::LedgerRows;
use crate::lock::{Holder, InterfaceLock, LockError};
use crate::pins::estate::{self, Dead};
use crate::pins::heirs::{self, Heir};
use crate::pins::{self, FolderName, Note, QueueNote, RowNote};
use crate::sys::sockopt;
use crate::voice::Failure;
use nix::net::if_::if_nametoindex;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use tapedeck_ebpf::{PinError, Tally};
use tapedeck_index::catalog::StoreFile;
use tapedeck_index::table::{self, LEDGER};
use tapedeck_packet::Timestamp;

/// `tapedeck detach`: the ledgers for stdout, and the exit code.
///
/// # Errors
/// A recorder holds the interface, or something could not be taken off: nothing of that one is lost.
pub fn command(args: &DetachArgs, say: &mut dyn FnMut(&str)) -> Result<(String, u8), Failure> {
    let dir = crate::plan::pin_dir(args.pin_dir.as_ref());
    let folders = pins::folders(&dir)
        .map_err(|error| Failure::of(&PinError { act: "list", path: dir.clone(), source: error }))?;
    let mut ledgers = Vec::new();
    let mut code = 0;
    let mut left = 0;
    for (name, folder) in folders {
        let dead = Dead::open(&folder);
        if !args.all && !is_asked(&args.interfaces, &name, dead.as_ref()) {
            continue;
        }
        left += 1;
        let interface = dead.as_ref().map_or_else(|| name.to_string(), |dead| dead.note.interface.clone());
        let _lock = match lock(&name, &interface) {
            Ok(lock) => lock,
            Err(LockError::Held { pid, .. }) if args.all => {
                say(&format!("{interface}: process {pid} records it; left alone"));
                continue;
            }
            Err(error) => return Err(refused(&error)),
        };
        match dead.map(|dead| detach(dead, say)) {
            Some(Ok(ledger)) => ledgers.extend(ledger),
            None if estate::renewed(&folder).and_then(|pins| pins.remove()).is_ok() => {
                say(&format!("{}: held no books; removed", folder.display()))
            }
            other => {
                let error = other.and_then(Result::err);
                say(left_on(&interface, error).to_string().trim_end());
                code = 2;
            }
        }
    }
    if left == 0 {
        say("nothing is pinned");
    }
    let texts = ledgers.iter().map(Ledger::to_json).collect::<Result<Vec<_>, _>>();
    Ok((texts.map_err(|error| Failure::of(&error))?.join("\n"), code))
}

/// Whether a folder belongs to one of the interfaces asked for, under its number or its name.
fn is_asked(interfaces: &[String], name: &FolderName, dead: Option<&Dead>) -> bool {
    let is = |interface: &String| {
        if_nametoindex(interface.as_str()) == Ok(name.ifindex)
            || dead.is_some_and(|dead| dead.note.interface == *interface)
    };
    // Numbers of namespaces are used again, their cookies are not.
    let ours = dead.is_none_or(|dead| dead.note.namespace == sockopt::namespace_cookie().unwrap_or(0));
    name.namespace == crate::lock::namespace() && ours && interfaces.iter().any(is)
}

fn lock(name: &FolderName, interface: &str) -> Result<InterfaceLock, LockError> {
    let holder = Holder {
        pid: std::process::id(),
        run: String::new(),
        interface: interface.to_owned(),
        stores: Vec::new(),
    };
    InterfaceLock::take_in(name.namespace, name.ifindex, &holder)
}

fn refused(error: &LockError) -> Failure {
    let failure = Failure::of(error);
    match error {
        LockError::Held { pid, .. } => {
            failure.hint(format!("a recorder takes its program off itself: `kill {pid}` ends it in order"))
        }
        LockError::Io { .. } => failure,
    }
}

/// Why something of a dead recorder stays.
#[derive(Debug, thiserror::Error)]
enum Left {
    #[error("cannot be taken off")]
    Pins(#[from] PinError),
    #[error("{rows} rows of the ledger that close the books of run {run} could not be written to {}", store.display())]
    Rows { rows: u64, run: String, store: PathBuf },
}

/// What is said of it.
fn left_on(interface: &str, left: Option<Left>) -> Failure {
    match left {
        None => Failure::new(format!("{interface}: cannot be taken off")),
        Some(left @ Left::Pins(_)) => Failure::of(&OfInterface { interface: interface.to_owned(), left }),
        Some(left @ Left::Rows { .. }) => {
            Failure::of(&OfInterface { interface: interface.to_owned(), left }).hint(format!(
                "its program is off the interface and its books are kept: make room on that disk, or make it writable, \
                 then `tapedeck detach {interface}` again, or the next `record`, closes them"
            ))
        }
    }
}

#[derive(Debug, thiserror::Error)]
#[error("{interface}: {left}")]
struct OfInterface {
    interface: String,
    left: Left,
}

/// Takes one off and closes its books. `None`: its ledger was printed before, only rows were left of it.
fn detach(mut dead: Dead, say: &mut dyn FnMut(&str)) -> Result<Option<Ledger>, Left> {
    dead.pins.detach()?;
    dead.search(&[] as &[PathBuf], say);
    let tallies = dead.tallies()?;
    let ledger = close(&dead, &tallies);
    book(&dead, &tallies, say)?;
    if dead.note.closed {
        let Note { interface, run, .. } = &dead.note;
        say(&format!("{interface}: the rows of the ledger that run {run} could not write are written"));
        dead.pins.remove()?;
        return Ok(None);
    }
    if let Some(warning) = ledger.imbalance() {
        say(&warning);
    }
    let Note { interface, run, pid, .. } = &dead.note;
    let counts = ledger.total.counts;
    let dropped = ledger.total.dropped.queues;
    say(&format!(
        "{interface}: taken off; run {run} (process {pid}) had seen {} packets: {} are stored, {} were lost in \
         the crash, {} passed while nobody recorded, {} were lost otherwise",
        counts.seen,
        counts.stored,
        dropped.crash,
        dropped.down,
        dropped.sum() - dropped.crash - dropped.down
    ));
    dead.pins.remove()?;
    Ok(Some(ledger))
}

/// Books into its first store that is there what no row tells yet. The note says so first, as that of a run that
/// counted nothing: whoever finds it, should this process be killed, books what is not there.
fn book(dead: &Dead, tallies: &[Tally], say: &mut dyn FnMut(&str)) -> Result<(), Left> {
    let Note { run, interface, mode, .. } = &dead.note;
    let heir = Heir { run, interface, mode, now: identity::now() };
    let settled = dead.settled(tallies);
    let mut rows: Vec<RowNote> = dead.waiting().collect();
    let known = |entry: &QueueNote| Carried { dropped: entry.carried, bytes: entry.carried_bytes };
    let mut carried: BTreeMap<u32, Carried> =
        dead.note.queues.iter().map(|entry| (entry.queue, known(entry))).collect();
    for (queue, settled) in &settled {
        let (more, bytes) = heirs::rows(dead, *queue, settled, &heir);
        rows.extend(more);
        carried.entry(*queue).or_default().add(&settled.dropped, bytes);
    }
    let rows = heirs::few(rows);
    if rows.is_empty() {
        return Ok(());
    }
    let store = dead.note.stores.iter().find_map(|store| {
        let file = StoreFile::read(store).ok()?;
        Some((store.clone(), file.sensor))
    });
    let Some((store, run)) = store.zip(identity::run_number().ok()) else {
        say(&format!(
            "warning: {interface}: no store of run {} is there: its last rows of the ledger are in none",
            dead.note.run
        ));
        return Ok(());
    };
    let mut note =
        Note { run: format!("{run:08x}"), counting: false, rows: rows.clone(), ..dead.note.clone() };
    (note.ledger_number, note.ledger_from, note.stores) = (0, Vec::new(), vec![store.0.clone()]);
    note.queues.clear();
    for (queue, carried) in carried {
        let entry = note.queue(queue);
        (entry.carried, entry.carried_bytes) = (carried.dropped, carried.bytes);
    }
    dead.pins.set_note(&note.text(dead.pins.folder())?)?;
    let lost = match LedgerRows::start(vec![store.clone()], run) {
        Ok(ledger) => ledger.only(&rows),
        Err(error) => {
            say(Failure::of(&error).to_string().trim_end());
            u64::try_from(rows.len()).unwrap_or(u64::MAX)
        }
    };
    if lost == 0 {
        return Ok(());
    }
    let (store, _) = store;
    // Where nothing of it is there, the next one begins where this one did, with the whole ledger. Else the note
    // stays as it is: it knows whose rows to look for.
    if has_no_file(&store, run) {
        dead.pins.set_note(&dead.note.text(dead.pins.folder())?)?;
    }
    Err(Left::Rows { rows: lost, run: dead.note.run.clone(), store })
}

/// Whether the ledger of a store has surely no file of a run.
fn has_no_file(store: &Path, run: u32) -> bool {
    let listing = table::list(&LEDGER, &[store.to_owned()], Timestamp::ZERO, None);
    listing.is_ok_and(|listing| listing.files.iter().all(|found| found.name.run != run))
}

/// The ledger of a dead run, with what it carried of others.
fn close(dead: &Dead, tallies: &[Tally]) -> Ledger {
    let note = &dead.note;
    let settled = dead.settled(tallies);
    let mut queues = Vec::new();
    for queue in 0..=tapedeck_ebpf::QUEUES_MAX {
        let settled = settled.get(&queue).copied().unwrap_or_default();
        let known = note.known(queue);
        let carried = known.carried;
        if settled.seen == 0 && carried.sum() == 0 {
            continue;
        }
        let mut dropped = settled.dropped;
        dropped.add(&carried);
        let counts = Counts {
            seen: settled.seen + carried.sum(),
            seen_bytes: settled.bytes + known.carried_bytes,
            filtered: settled.filtered,
            stored: settled.stored,
            ..Counts::default()
        };
        let (interface, mode) = (note.interface.clone(), note.mode.clone());
        queues.push(QueueEntry { interface, queue, mode, counts, dropped, unaccounted: 0 });
    }
    let interface = InterfaceEntry { interface: note.interface.clone(), dropped: BeforeQueues::default() };
    let start = Timestamp::from_nanos_saturating(note.start_ns);
    let run = note.run_number().unwrap_or(0);
    Ledger::close(run, start, identity::now(), vec![interface], queues, SessionEntry::default())
}
