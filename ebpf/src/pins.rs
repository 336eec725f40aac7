//! What a recorder keeps in the BPF file system, so that it outlives the process: the program, its link to
//! the interface, the link of the error program, all maps, and a note that the recorder writes about itself.
//!
//! After `kill -9` the program counts on. The next recorder finds the folder, reads counters and note, and
//! takes the running program over ([`Pins::take`]) or takes it off ([`Pins::detach`]). Pins are files: they
//! go when they are removed, or with the file system they are in.
//!
//! It must never hand over a program of another layout, or one that counts for another interface.

use crate::filter::FilterMaps;
use crate::{CardCounts, CardMaps, Counts, Program, ProgramError, link, shared};
use libbpf_rs::query::{LinkInfo, LinkTypeInfo};
use libbpf_rs::{Link, MapCore as _, MapFlags, MapHandle, MapType, libbpf_sys};
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::AtomicU32;
use std::{fs, io};

/// Names of the pins beside the maps, which have their own names.
const PROGRAM: &str = "program";
const LINK: &str = "link";
const ERRORS: &str = "errors";
const NOTE: &str = "note";

/// Bytes of the note's map; the first four are the length of the rest, which is the text compressed with zstd.
const NOTE_BYTES: u32 = 64 * 1024;
const NOTE_HEAD: usize = 4;
/// Bytes of the text of a note at most.
const NOTE_TEXT_MAX: usize = 1 << 20;
/// Level of zstd: a note is written each second.
const NOTE_LEVEL: i32 = 1;

/// Counts by their names: what can be read of a program of any layout, and kept in a note.
pub type Tally = BTreeMap<String, u64>;

/// Where in a row of the map `queues` a total stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Field {
    /// Name of the count.
    pub name: String,
    /// Offset of the 64-bit number in the row of a CPU, bytes.
    pub at: usize,
}

/// A step with pins that failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {act} {}", path.display())]
pub struct PinError {
    /// What was tried.
    pub act: &'static str,
    /// The pin or its folder.
    pub path: PathBuf,
    /// The answer.
    #[source]
    pub source: io::Error,
}

impl PinError {
    fn at(act: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { act, path, source }
    }
}

/// Why a pinned program is not taken over.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Misfit(String);

fn misfit(why: impl std::fmt::Display) -> Misfit {
    Misfit(why.to_string())
}

/// The pins of one interface.
#[derive(Debug)]
pub struct Pins {
    folder: PathBuf,
    note: MapHandle,
}

/// The value of the note's map that says `text`.
///
/// # Errors
/// It takes more than the map's 64 KiB, or the text is longer than 1 MiB.
pub fn note_value(text: &str) -> io::Result<Vec<u8>> {
    let packed = zstd::bulk::compress(text.as_bytes(), NOTE_LEVEL)?;
    let fits = text.len() <= NOTE_TEXT_MAX && packed.len() + NOTE_HEAD <= NOTE_BYTES as usize;
    let len = u32::try_from(packed.len()).ok().filter(|_| fits);
    let len = len.ok_or_else(|| io::Error::from(io::ErrorKind::FileTooLarge))?;
    Ok([len.to_ne_bytes().as_slice(), packed.as_slice()].concat())
}

impl Pins {
    /// Makes the folder, which must be in a BPF file system, with an empty note in it.
    ///
    /// # Errors
    /// [`PinError`]: no BPF file system, one mounted read-only, or no right to use it.
    pub fn create(folder: &Path) -> Result<Self, PinError> {
        fs::create_dir_all(folder).map_err(PinError::at("make the folder", folder))?;
        let path = folder.join(NOTE);
        let make = || {
            let opts = libbpf_sys::bpf_map_create_opts {
                sz: std::mem::size_of::<libbpf_sys::bpf_map_create_opts>()
                    .try_into()
                    .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
                ..Default::default()
            };
            let kind = MapType::Array;
            let map = MapHandle::create(kind, Some("td_note"), 4, NOTE_BYTES, 1, &opts)
                .map_err(io::Error::other)?;
            link::pin(map.as_fd(), &path)?;
            Ok(map)
        };
        let note = make().map_err(PinError::at("pin", &path))?;
        Ok(Self { folder: folder.to_owned(), note })
    }

    /// The pins in a folder.
    ///
    /// # Errors
    /// [`PinError`]: it holds no note, so it was not made by [`Pins::create`], or only half.
    pub fn open(folder: &Path) -> Result<Self, PinError> {
        let path = folder.join(NOTE);
        let note = map_at(&path).and_then(|map| {
            let wanted = (map.map_type(), map.value_size()) == (MapType::Array, NOTE_BYTES);
            if wanted { Ok(map) } else { Err(io::Error::from(io::ErrorKind::InvalidData)) }
        });
        Ok(Self { folder: folder.to_owned(), note: note.map_err(PinError::at("open", &path))? })
    }

    /// Their folder.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What the recorder wrote last; empty before it wrote anything.
    ///
    /// # Errors
    /// [`PinError`]: the map gives nothing, or no text.
    pub fn note(&self) -> Result<String, PinError> {
        let read = || {
            let value = self.note.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).map_err(io::Error::other)?;
            let value = value.unwrap_or_default();
            let packed = value
                .split_first_chunk::<NOTE_HEAD>()
                .and_then(|(len, rest)| rest.get(..usize::try_from(u32::from_ne_bytes(*len)).ok()?));
            let text = match packed.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))? {
                [] => Vec::new(),
                packed => zstd::bulk::decompress(packed, NOTE_TEXT_MAX)?,
            };
            String::from_utf8(text).map_err(io::Error::other)
        };
        read().map_err(PinError::at("read", &self.folder.join(NOTE)))
    }

    /// Replaces the note, in one step: a reader finds the old one or the new one.
    ///
    /// # Errors
    /// [`PinError`]: it is longer than [`note_value`] takes.
    pub fn set_note(&self, text: &str) -> Result<(), PinError> {
        let write = || {
            let mut value = note_value(text)?;
            value.resize(NOTE_BYTES as usize, 0);
            self.note.update(&0u32.to_ne_bytes(), &value, MapFlags::ANY).map_err(io::Error::other)
        };
        write().map_err(PinError::at("write", &self.folder.join(NOTE)))
    }

    /// Pins a program in place of whatever is pinned here. Its link to an interface is pinned when it is
    /// attached ([`Program::attach`]).
    ///
    /// # Errors
    /// [`PinError`].
    pub fn pin(&self, program: &mut Program) -> Result<(), PinError> {
        self.clear()?;
        let pin = |name: &str, fd| {
            let path = self.folder.join(name);
            link::pin(fd, &path).map_err(PinError::at("pin", &path))
        };
        for map in &program.all_maps {
            if let Some(name) = map.name().to_str() {
                pin(name, map.as_fd())?;
            }
        }
        pin(PROGRAM, program.program.as_fd())?;
        if let Ok(errors) = &program.refusals {
            pin(ERRORS, errors.as_fd())?;
        }
        if let Some(attached) = &program.attached {
            pin(LINK, attached.as_fd())?;
        }
        program.link_pin = Some(self.folder.join(LINK));
        Ok(())
    }

    /// The interface that the pinned link sits on; `None` if there is no such link, or the interface it was
    /// made for is gone.
    #[must_use]
    pub fn ifindex(&self) -> Option<u32> {
        attached_to(&link::open(&self.folder.join(LINK)).ok()?).map(|(ifindex, _)| ifindex)
    }

    /// The totals of each row of the pinned counters, by the names that `fields` gives them. Empty if no
    /// counters are pinned.
    ///
    /// # Errors
    /// [`PinError`]: they cannot be read, or have no such fields.
    pub fn tallies(&self, fields: &[Field]) -> Result<Vec<Tally>, PinError> {
        let path = self.folder.join("queues");
        let map = match map_at(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            map => map.map_err(PinError::at("open", &path))?,
        };
        let read = |queue| tally(&map, queue, fields).map_err(PinError::at("read", &path));
        (0..map.max_entries()).map(read).collect()
    }

    /// The pinned program, with its counters and its link, as if this process had attached it.
    ///
    /// # Errors
    /// [`Misfit`]: it is of another layout, not on interface `ifindex`, or its parts do not belong together.
    pub fn take(&self, ifindex: u32) -> Result<Program, Misfit> {
        let path = |name: &str| self.folder.join(name);
        let map = |name: &str| map_at(&path(name)).map_err(|error| misfit(format!("map {name}: {error}")));
        let (xsks, queues, control) = (map("xsks")?, map("queues")?, map("control")?);
        let filter = FilterMaps::named(map)?;
        // Only a program that asks the card has them.
        let card = CardMaps::named(map).ok();
        let told = control.lookup(&0u32.to_ne_bytes(), MapFlags::ANY).map_err(misfit)?.unwrap_or_default();
        let told = shared::Control::read(&told).filter(|told| told.layout == shared::LAYOUT);
        let told = told.ok_or_else(|| misfit("it counts in another layout"))?;
        if queues.value_size() as usize != size_of::<shared::QueueRow>() {
            return Err(misfit("it counts in another layout"));
        }
        let xsks_id = xsks.info().map_err(misfit)?.info.id;
        if told.xsks_id != xsks_id {
            return Err(misfit("its error program looks at another map"));
        }
        let link = link::open(&path(LINK)).map_err(|error| misfit(format!("no link: {error}")))?;
        let program = link::open(&path(PROGRAM)).map_err(|error| misfit(format!("no program: {error}")))?;
        let id = libbpf_rs::Program::id_from_fd(program.as_fd()).map_err(misfit)?;
        match attached_to(&link) {
            None => return Err(misfit("its interface is gone")),
            Some((other, _)) if other != ifindex => {
                return Err(misfit(format!("it sits on interface {other}")));
            }
            Some((_, other)) if other != id => return Err(misfit("another program was put in its place")),
            Some(_) => {}
        }
        let refusals = Link::open(path(ERRORS)).map_err(|error| format!("none was pinned: {error}"));
        let (attached, link_pin) = (Some(link), Some(path(LINK)));
        Ok(Program {
            program,
            xsks,
            queues,
            control,
            filter,
            card,
            card_in_use: AtomicU32::new(told.card),
            all_maps: Vec::new(),
            xsks_id,
            refusals,
            attached,
            link_pin,
            base: Vec::new(),
            card_base: CardCounts::default(),
        })
    }

    /// Takes the pinned program off its interface; counters and note stay.
    ///
    /// # Errors
    /// [`PinError`].
    pub fn detach(&self) -> Result<(), PinError> {
        let path = self.folder.join(LINK);
        match link::open(&path) {
            Ok(link) => link::detach(link, &path).map_err(PinError::at("detach", &path)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(PinError::at("open", &path)(error)),
        }
    }

    /// Takes the program off and removes everything but the note.
    ///
    /// # Errors
    /// [`PinError`].
    pub fn clear(&self) -> Result<(), PinError> {
        self.detach()?;
        for entry in fs::read_dir(&self.folder).map_err(PinError::at("list", &self.folder))?.flatten() {
            if entry.file_name() != NOTE {
                let path = entry.path();
                fs::remove_file(&path).map_err(PinError::at("remove", &path))?;
            }
        }
        Ok(())
    }

    /// Takes the program off and removes everything, the note last.
    ///
    /// # Errors
    /// [`PinError`].
    pub fn remove(&self) -> Result<(), PinError> {
        self.clear()?;
        let note = self.folder.join(NOTE);
        fs::remove_file(&note).map_err(PinError::at("remove", &note))?;
        fs::remove_dir(&self.folder).map_err(PinError::at("remove", &self.folder))
    }
}

fn map_at(path: &Path) -> io::Result<MapHandle> {
    // libbpf-rs hides the errno of a missing file.
    fs::symlink_metadata(path)?;
    MapHandle::from_pinned_path(path).map_err(io::Error::other)
}

/// Interface and program of an XDP link that still sits on its interface.
fn attached_to(link: &OwnedFd) -> Option<(u32, u32)> {
    let info = LinkInfo::from_fd(link.as_fd()).ok()?;
    match info.info {
        // The kernel says 0 once the interface is gone (bpf_xdp_link_fill_link_info in net/core/dev.c).
        LinkTypeInfo::Xdp(xdp) if xdp.ifindex != 0 => Some((xdp.ifindex, info.prog_id)),
        _ => None,
    }
}

fn tally(map: &MapHandle, queue: u32, fields: &[Field]) -> io::Result<Tally> {
    let rows = map.lookup_percpu(&queue.to_ne_bytes(), MapFlags::ANY).map_err(io::Error::other)?;
    let mut tally = Tally::new();
    for row in rows.unwrap_or_default() {
        for field in fields {
            let number = row.get(field.at..).and_then(|rest| rest.first_chunk().copied());
            let number =
                u64::from_ne_bytes(number.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidData))?);
            let sum = tally.entry(field.name.clone()).or_default();
            *sum = sum.wrapping_add(number);
        }
    }
    Ok(tally)
}

impl Program {
    /// Where the totals stand in the rows of this build, for the note.
    #[must_use]
    pub fn fields() -> Vec<Field> {
        let field =
            |(name, at): (&str, usize)| Field { name: name.to_owned(), at: shared::QueueRow::TOTAL + at };
        Counts::FIELDS.into_iter().map(field).collect()
    }

    /// Begins a run on counters that go on from a former one: [`Program::totals`] and [`Program::seconds`]
    /// count from here. Call it while the slots are empty: then nothing is being delivered.
    ///
    /// # Errors
    /// [`ProgramError::Map`], [`ProgramError::Layout`].
    pub fn begin(&mut self) -> Result<(), ProgramError> {
        self.base = Vec::new();
        let base = (0..=shared::QUEUES_MAX).map(|queue| self.still(queue, |counts| *counts));
        self.base = base.collect::<Result<_, _>>()?;
        self.card_base = CardCounts::default();
        self.card_base = self.card_counts()?.unwrap_or_default();
        Ok(())
    }

    /// What was counted before the run: the counts that it does not show.
    #[must_use]
    pub fn before(&self, queue: u32) -> Counts {
        let base = usize::try_from(queue).ok().and_then(|queue| self.base.get(queue));
        base.map(|base| base.total).unwrap_or_default()
    }

    /// Packets of `queue` that found its slot empty since [`Program::begin`]; they count as before the run
    /// from now on. Call it once the slot is filled.
    ///
    /// # Errors
    /// [`ProgramError::Map`], [`ProgramError::Layout`].
    pub fn settle_empty(&mut self, queue: u32) -> Result<u64, ProgramError> {
        let mut now = self.still(queue, |counts| counts.slot_empty)?;
        let Some(base) = usize::try_from(queue).ok().and_then(|queue| self.base.get_mut(queue)) else {
            return Ok(0);
        };
        let passed = now.total.slot_empty.saturating_sub(base.total.slot_empty);
        base.total.slot_empty += passed;
        base.total.packets += passed;
        for (spot, counts) in &mut now.seconds {
            let base = base.seconds.entry(*spot).or_default();
            let passed = counts.slot_empty.saturating_sub(base.slot_empty);
            base.slot_empty += passed;
            base.packets += passed;
        }
        Ok(passed)
    }

    /// The pins are gone, or will be: a link that is attached from here on lives as long as this value.
    pub fn forget_pins(&mut self) {
        self.link_pin = None;
    }

    /// Leaves the program on its interface when this value is dropped. It must be pinned.
    pub fn leave(&mut self) {
        self.link_pin = None;
        if let Some(link) = self.attached.take() {
            drop(link);
        }
    }

    /// A row that did not change while it was read, as far as `key` sees; the last one read, if there is none.
    fn still<K: PartialEq>(&self, queue: u32, key: fn(&Counts) -> K) -> Result<Base, ProgramError> {
        const LOOKS: usize = 64;
        let mut row = self.raw(queue)?;
        for _ in 0..LOOKS {
            let again = self.raw(queue)?;
            let still = key(&again.total) == key(&row.total);
            row = again;
            if still {
                break;
            }
        }
        Ok(row)
    }
}

/// A row at one moment.
#[derive(Clone, Debug, Default)]
pub(crate) struct Base {
    pub(crate) total: Counts,
    pub(crate) seconds: BTreeMap<shared::Spot, Counts>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_count_has_a_name_and_a_place() {
        let fields = Program::fields();
        // packets, bytes and the reasons: as many numbers as the record has.
        assert_eq!(fields.len() * 8, size_of::<Counts>());
        let mut row = vec![0u8; size_of::<shared::QueueRow>()];
        for (number, field) in (1u64..).zip(&fields) {
            row[field.at..field.at + 8].copy_from_slice(&number.to_ne_bytes());
        }
        let counts = shared::QueueRow::read_total(&row).unwrap();
        let tally = counts.tally();
        assert!((1u64..).zip(&fields).all(|(number, field)| tally[&field.name] == number), "{tally:?}");
    }
}
