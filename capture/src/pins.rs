//! What outlives a recorder that is killed: the XDP program, its counters, and a note, in a folder of the BPF
//! file system per interface ([`tapedeck_ebpf::Pins`]).
//!
//! A recorder is the [`Keeper`] of its folder: it writes the note at the start and each second, and removes
//! the folder when its books are closed. The folders of the dead are an [`Estate`](estate::Estate): the next
//! recorder takes the program over and books what nobody else can. It must never leave a program behind
//! after an end in order, and never keep a recording from starting because nothing can be pinned.

mod books;
pub(crate) mod estate;
mod found;
pub(crate) mod heirs;
mod note;
mod rows;
pub(crate) mod unpinned;

pub(crate) use note::{FolderName, Note, QueueNote, RowNote};

use crate::books::InterfaceBooks;
use crate::ladder::Intake;
use crate::ledger_rows::Sure;
use nix::mount::{MsFlags, mount};
use nix::sys::statfs::statfs;
use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use tapedeck_ebpf::{PinError, Pins, QUEUES_MAX};
use tapedeck_packet::Timestamp;

/// Where pins are by default.
pub(crate) const DEFAULT: &str = "/sys/fs/bpf/tapedeck";
/// Where a BPF file system belongs.
const BPFFS: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` (linux/magic.h).
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// Inode of the kernel's first mount namespace (linux/nsfs.h, 6.18).
const MNT_NS_INIT_INO: u64 = 0xefff_fff8;

/// Makes `dir`, which must be in a BPF file system; mounts one at its usual place if none is there.
///
/// # Errors
/// Why nothing can be pinned there, in words.
pub(crate) fn ready(dir: &Path) -> Result<(), String> {
    if !is_bpf(dir) {
        if !dir.starts_with(BPFFS) || !Path::new(BPFFS).is_dir() {
            return Err(format!(
                "{} is not in a BPF file system; `mount -t bpf bpf DIR` makes one",
                dir.display()
            ));
        }
        if !in_first_mounts() {
            return Err(format!(
                "{BPFFS} is no BPF file system in this mount namespace, and one mounted here would not \
                 outlive it; enter a network namespace with `nsenter --net=FILE`, not `ip netns exec`"
            ));
        }
        mount(Some("bpf"), BPFFS, Some("bpf"), MsFlags::empty(), Some("mode=0700"))
            .map_err(|errno| format!("cannot mount a BPF file system at {BPFFS}: {}", errno.desc()))?;
    }
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|error| format!("cannot make {}: {error}", dir.display()))
}

/// Whether `dir`, or the first folder above it that is there, is in a BPF file system.
fn is_bpf(dir: &Path) -> bool {
    let there = dir.ancestors().find(|folder| folder.exists());
    let magic = there.and_then(|folder| statfs(folder).ok()).map(|stat| stat.filesystem_type().0);
    magic.and_then(|magic| u64::try_from(magic).ok()) == Some(BPF_FS_MAGIC)
}

/// Whether this process has the mounts of the first one. Who may not look at that one knows the number that the
/// kernel's first mount namespace has since 6.18; before, the answer is no.
fn in_first_mounts() -> bool {
    let number = |process: &str| fs::metadata(format!("/proc/{process}/ns/mnt")).map(|meta| meta.ino());
    number("self").is_ok_and(|ours| ours == number("1").unwrap_or(MNT_NS_INIT_INO))
}

/// Whose folder it is while a recorder lives.
#[derive(Debug)]
pub(crate) struct Keeper {
    pins: Pins,
    note: Note,
    leave: bool,
}

impl Keeper {
    /// Takes the folder, whatever is in it, and writes the first note. The note counts from the moment at
    /// which [`Keeper::begin`] is called.
    ///
    /// # Errors
    /// Nothing can be pinned here.
    fn new(pins: Pins, note: Note) -> Result<Self, PinError> {
        pins.set_note(&note.text(pins.folder())?)?;
        Ok(Self { pins, note, leave: false })
    }

    /// Pins the program of `intake`, if it is not pinned, and lets its counters count for the run.
    ///
    /// # Errors
    /// [`PinError`].
    fn begin(&mut self, intake: &mut Intake, taken: bool) -> Result<(), PinError> {
        let Some(program) = intake.program_mut().filter(|_| !taken) else { return Ok(()) };
        self.pins.pin(program)?;
        for queue in 0..=QUEUES_MAX {
            self.note.queue(queue).before = program.before(queue).tally();
        }
        self.note.counting = true;
        self.write()
    }

    fn write(&self) -> Result<(), PinError> {
        self.pins.set_note(&self.note.text(self.pins.folder())?)
    }

    /// What a successor must know, each second: how much is sealed, and what is lost for causes that the
    /// program does not count.
    pub(crate) fn beat(&mut self, books: &InterfaceBooks, intake: &Intake, now: Timestamp, sure: &Sure) {
        self.note.seen_ns = now.nanos();
        self.note.inherit(books, sure.number);
        (self.note.ledger_number, self.note.ledger_from) = (sure.number, sure.from.clone());
        let ours = sure.booked.iter().filter(|((interface, _), _)| *interface == books.interface);
        for ((_, queue), booked) in ours {
            let note = self.note.queue(*queue);
            (note.home, note.booked) = (booked.store, note::named(&booked.counts));
            note.booked_end_ns = booked.end.nanos();
        }
        if let Some(program) = intake.program() {
            for queue in 0..=QUEUES_MAX {
                if let Ok(counts) = program.totals(queue) {
                    self.note.queue(queue).unbound = counts.slot_empty;
                }
            }
        }
        for queue in &books.queues {
            let chain = queue.chain.snapshot();
            let sealed = queue.chain.sealed_prefix();
            let note = self.note.queue(queue.queue);
            (note.below, note.sealed) = (sealed.below, sealed.packets);
            (note.shed, note.write_error) = (chain.shed.packets, chain.write_error.packets);
        }
        self.renew();
    }

    /// The slots of a program that was taken over are filled: what passed until then counts as before the run.
    /// Nothing of it is booked before.
    pub(crate) fn opened(&mut self, books: &InterfaceBooks, intake: &Intake) {
        self.note.inherit(books, 0);
        if let Some(program) = intake.program() {
            for queue in 0..=QUEUES_MAX {
                self.note.queue(queue).before = program.before(queue).tally();
            }
        }
        self.renew();
    }

    fn renew(&self) {
        if let Err(error) = self.write() {
            tracing::debug!(error = &error as &dyn std::error::Error, "the note is not renewed");
        }
    }

    /// The books are closed, but `rows` that tell of the dead may be on no disk: the note stays, with these alone,
    /// for whoever comes next.
    ///
    /// # Errors
    /// The note cannot be written, or the program not be taken off.
    pub(crate) fn hand_on(&mut self, rows: Vec<RowNote>) -> Result<(), PinError> {
        self.note.rows = rows;
        (self.note.counting, self.note.closed) = (false, true);
        self.note.queues.clear();
        self.write()?;
        self.leave = true;
        self.pins.clear()
    }

    /// The pins stay when this is dropped, as after a kill.
    pub(crate) fn leave(&mut self) {
        self.leave = true;
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if self.leave || std::thread::panicking() {
            return;
        }
        if let Err(error) = self.pins.remove() {
            let hint = "`tapedeck detach --all` removes what is left";
            tracing::warn!(error = &error as &dyn std::error::Error, hint, "pins stay behind");
        }
    }
}

/// All folders of pins, with the names of their interfaces; none where there is no such folder.
pub(crate) fn folders(dir: &Path) -> io::Result<Vec<(FolderName, PathBuf)>> {
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let named = |entry: fs::DirEntry| Some((FolderName::parse(entry.file_name().to_str()?)?, entry.path()));
    let mut found: Vec<_> = entries.flatten().filter_map(named).collect();
    found.sort();
    Ok(found)
}
