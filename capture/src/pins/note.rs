//! The note a recorder keeps beside its pinned counters: who it is, where it writes, from which counts its
//! run began, and what only it knows of its losses.
//!
//! JSON, read also by other versions of tapedeck: what they do not know they ignore. It must never be older
//! than a second while its recorder lives.

use crate::books::InterfaceBooks;
use crate::ledger::Dropped;
use crate::preflight::Target;
use crate::sys::sockopt;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use tapedeck_ebpf::{BUILD, Field, PinError, Program, Tally};
use tapedeck_index::table::ledger::{COUNTS, LedgerCounts, LedgerRow, RowKind};
use tapedeck_packet::Timestamp;

/// Version of the note: raised when an older reader would misunderstand it.
pub(crate) const VERSION: u32 = 2;

/// The name of an interface's folder: `<netns inode>-<ifindex>-<MAC>`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct FolderName {
    /// Number of its network namespace.
    pub(crate) namespace: u64,
    /// Its number there.
    pub(crate) ifindex: u32,
    /// Its hardware address, hexadecimal digits without separators.
    pub(crate) address: String,
}

impl FolderName {
    /// Of an interface of the caller's namespace.
    pub(crate) fn of(target: &Target) -> Self {
        let address = target.state.address.iter().map(|byte| format!("{byte:02x}")).collect();
        Self { namespace: crate::lock::namespace(), ifindex: target.ifindex, address }
    }

    /// Reads a name.
    pub(crate) fn parse(name: &str) -> Option<Self> {
        let mut parts = name.splitn(3, '-');
        let (namespace, ifindex) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
        let address = parts.next()?;
        let is_hex = address.chars().all(|c| c.is_ascii_hexdigit());
        is_hex.then(|| Self { namespace, ifindex, address: address.to_owned() })
    }
}

impl fmt::Display for FolderName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.namespace, self.ifindex, self.address)
    }
}

/// What a recorder says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    /// [`VERSION`].
    pub(crate) version: u32,
    /// The programs it pinned.
    pub(crate) build: String,
    /// What was chosen when they were loaded.
    pub(crate) choice: String,
    /// Names and offsets of the totals in the rows of the map `queues`.
    pub(crate) fields: Vec<(String, usize)>,
    /// The counters count for this run, from the counts of its queues on; false while it starts, and in packet
    /// mode.
    pub(crate) counting: bool,
    /// Its ledger is printed: nothing is left of it but rows.
    #[serde(default)]
    pub(crate) closed: bool,
    /// Cookie of the network namespace: numbers of namespaces are used again, cookies are not.
    pub(crate) namespace: u64,
    /// Interface name.
    pub(crate) interface: String,
    /// Mode of the ladder.
    pub(crate) mode: String,
    /// The run, 8 hexadecimal digits.
    pub(crate) run: String,
    /// Process.
    pub(crate) pid: u32,
    /// When it began, nanoseconds since the epoch.
    pub(crate) start_ns: u64,
    /// When it wrote this.
    pub(crate) seen_ns: u64,
    /// Its stores.
    pub(crate) stores: Vec<PathBuf>,
    /// Rows of its ledger with a smaller number are on disk, with the sums that each queue says,
    #[serde(default)]
    pub(crate) ledger_number: u32,
    /// the others, by store, in files from this number on, if they are there.
    #[serde(default)]
    pub(crate) ledger_from: Vec<u32>,
    /// Rows that tell of the dead before it and may not be on disk yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) rows: Vec<RowNote>,
    /// Its queues, and others that something is known of.
    pub(crate) queues: Vec<QueueNote>,
}

/// A row of the ledger that tells of the dead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RowNote {
    /// `crash` or `down`.
    pub(crate) kind: String,
    /// The run that it tells of.
    pub(crate) run: String,
    /// As that run called the interface.
    #[serde(default)]
    pub(crate) interface: String,
    /// Queue.
    pub(crate) queue: u32,
    /// Mode of that run.
    pub(crate) mode: String,
    /// Begin and end, nanoseconds since the epoch.
    pub(crate) span_ns: (u64, u64),
    /// What tells it from every other row.
    pub(crate) uid: String,
    /// Its numbers, but for zeros.
    pub(crate) counts: BTreeMap<String, i64>,
    /// Its number, once it is booked.
    #[serde(skip)]
    pub(crate) number: Option<u32>,
}

impl RowNote {
    /// The row; `None` for a kind of a later version.
    pub(crate) fn row(&self) -> Option<LedgerRow> {
        Some(LedgerRow {
            ts: Timestamp::from_nanos_saturating(self.span_ns.0),
            ts_end: Timestamp::from_nanos_saturating(self.span_ns.1),
            kind: RowKind::of(&self.kind)?,
            run: self.run.clone(),
            interface: Some(self.interface.clone()),
            queue: Some(self.queue),
            mode: Some(self.mode.clone()),
            uid: self.uid.clone(),
            counts: counts(&self.counts),
            ..LedgerRow::default()
        })
    }
}

/// Counts by their names, without zeros.
pub(super) fn named(counts: &LedgerCounts) -> BTreeMap<String, i64> {
    let all = COUNTS.into_iter().zip(counts.list());
    all.filter(|(_, count)| *count != 0).map(|(name, count)| (name.to_owned(), count)).collect()
}

/// The same back.
pub(super) fn counts(named: &BTreeMap<String, i64>) -> LedgerCounts {
    LedgerCounts::from_list(COUNTS.map(|name| named.get(name).copied().unwrap_or(0)))
}

/// What a recorder says of a queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct QueueNote {
    /// Queue.
    pub(crate) queue: u32,
    /// The counts at which the run began.
    #[serde(default, skip_serializing_if = "is_nothing")]
    pub(crate) before: Tally,
    /// Losses of recorders before it, which no ledger has told yet.
    #[serde(default, skip_serializing_if = "is_none")]
    pub(crate) carried: Dropped,
    /// Bytes of those of which they are known.
    #[serde(default)]
    pub(crate) carried_bytes: u64,
    /// Sums of its rows with a number below the note's.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) booked: BTreeMap<String, i64>,
    /// End of the last second that has such a row, nanoseconds since the epoch; 0: none has.
    #[serde(default)]
    pub(crate) booked_end_ns: u64,
    /// Number of the store that they are in.
    #[serde(default)]
    pub(crate) home: usize,
    /// Segments with a lower number are sealed,
    pub(crate) below: u32,
    /// and got so many packets.
    pub(crate) sealed: u64,
    /// Lost for want of a buffer.
    pub(crate) shed: u64,
    /// Lost in writing.
    pub(crate) write_error: u64,
    /// Found the slot empty while the recorder lived.
    pub(crate) unbound: u64,
}

fn is_none(dropped: &Dropped) -> bool {
    dropped.sum() == 0
}

fn is_nothing(tally: &Tally) -> bool {
    tally.values().all(|number| *number == 0)
}

impl QueueNote {
    fn is_empty(&self) -> bool {
        let Self { queue, before, carried, .. } = self;
        is_nothing(before)
            && is_none(carried)
            && *self == Self { queue: *queue, before: before.clone(), ..Self::default() }
    }
}

impl Note {
    /// For a run that begins; nothing counts yet.
    pub(crate) fn new(
        books: &InterfaceBooks,
        choice: String,
        run: u32,
        start_ns: u64,
        stores: &[PathBuf],
    ) -> Self {
        Self {
            version: VERSION,
            build: BUILD.to_owned(),
            choice,
            fields: Program::fields().into_iter().map(|field| (field.name, field.at)).collect(),
            counting: false,
            closed: false,
            namespace: sockopt::namespace_cookie().unwrap_or(0),
            interface: books.interface.clone(),
            mode: books.mode.name().to_owned(),
            run: format!("{run:08x}"),
            pid: std::process::id(),
            start_ns,
            seen_ns: start_ns,
            stores: stores.to_vec(),
            ledger_number: 0,
            ledger_from: Vec::new(),
            rows: Vec::new(),
            queues: Vec::new(),
        }
    }

    /// What is carried of the dead, and the rows of it that are not on disk: those from `number` on.
    pub(crate) fn inherit(&mut self, books: &InterfaceBooks, number: u32) {
        for (queue, carried) in &books.carried {
            let note = self.queue(*queue);
            (note.carried, note.carried_bytes) = (carried.dropped, carried.bytes);
        }
        let waiting = |row: &&RowNote| row.number.is_none_or(|booked| booked >= number);
        self.rows = books.inherited.iter().filter(waiting).cloned().collect();
    }

    /// The entry of a queue, made if need be.
    pub(crate) fn queue(&mut self, queue: u32) -> &mut QueueNote {
        let at = self.queues.binary_search_by_key(&queue, |entry| entry.queue).unwrap_or_else(|at| {
            self.queues.insert(at, QueueNote { queue, ..QueueNote::default() });
            at
        });
        #[expect(clippy::indexing_slicing, reason = "the index was just found, or made")]
        &mut self.queues[at]
    }

    /// What is known of a queue.
    pub(crate) fn known(&self, queue: u32) -> QueueNote {
        let at = self.queues.binary_search_by_key(&queue, |entry| entry.queue);
        at.ok().and_then(|at| self.queues.get(at)).cloned().unwrap_or_default()
    }

    /// Names and offsets of the totals.
    pub(crate) fn fields(&self) -> Vec<Field> {
        self.fields.iter().map(|(name, at)| Field { name: name.clone(), at: *at }).collect()
    }

    /// The number of the run.
    pub(crate) fn run_number(&self) -> Option<u32> {
        u32::from_str_radix(&self.run, 16).ok()
    }

    /// Reads a note; `None` if it is none of ours.
    pub(crate) fn read(text: &str) -> Option<Self> {
        let note: Self = serde_json::from_str(text).ok()?;
        (note.version == VERSION && note.queues.is_sorted_by_key(|entry| entry.queue)).then_some(note)
    }

    /// Its text.
    pub(crate) fn text(&self, folder: &Path) -> Result<String, PinError> {
        let mut short = self.clone();
        short.queues.retain(|entry| !entry.is_empty());
        let error = |source| PinError { act: "write the note in", path: folder.to_owned(), source };
        serde_json::to_string(&short).map_err(|source| error(io::Error::other(source)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pins::heirs::WAITING_MAX;

    #[test]
    fn names_of_folders_tell_namespace_interface_and_address() {
        let name = FolderName { namespace: 4_026_531_840, ifindex: 7, address: "020000000001".into() };
        assert_eq!(name.to_string(), "4026531840-7-020000000001");
        assert_eq!(FolderName::parse(&name.to_string()), Some(name));
        for other in ["", "1-2", "x-2-00", "1-2-../..", "1-2-0g"] {
            assert_eq!(FolderName::parse(other), None, "{other}");
        }
    }

    /// Every number as long as it can be, and no two alike; as many rows as may wait.
    fn full() -> Note {
        let mut state = 1_u64;
        let mut number = || {
            // Knuth's MMIX generator; the upper bits are set so that the digits are most.
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state | 1 << 63
        };
        let mut note = Note {
            version: VERSION,
            fields: Program::fields().into_iter().map(|field| (field.name, field.at)).collect(),
            stores: (0..4).map(|n| PathBuf::from(format!("/{n}").repeat(2000))).collect(),
            ledger_from: vec![u32::MAX; 4],
            ..Note::default()
        };
        for queue in (0..=64).rev() {
            let before = note.fields.iter().map(|(name, _)| (name.clone(), number())).collect();
            let booked = COUNTS.map(|name| (name.to_owned(), (number() >> 1).cast_signed())).into();
            let mut part = || number() >> 5;
            *note.queue(queue) = QueueNote {
                queue,
                before,
                booked,
                carried: Dropped {
                    ring_full: part(),
                    fill_empty: part(),
                    unbound: part(),
                    wrong_queue: part(),
                    oversize: part(),
                    program: part(),
                    shed: part(),
                    write_error: part(),
                    crash: part(),
                    down: part(),
                },
                carried_bytes: number(),
                booked_end_ns: number(),
                home: 3,
                below: u32::MAX,
                sealed: number(),
                shed: number(),
                write_error: number(),
                unbound: number(),
            };
        }
        for at in 0..u32::try_from(WAITING_MAX).unwrap() {
            let (kind, counts) = match at % 2 {
                0 => (RowKind::Crash, COUNTS.as_slice()),
                _ => (RowKind::Down, ["seen", "seen_bytes", "dropped_down"].as_slice()),
            };
            let run = format!("{:08x}", number() >> 32);
            note.rows.push(RowNote {
                uid: format!("{run}-an-interface-{}-{}-{:08x}", at / 3, kind.name(), number() >> 32),
                kind: kind.name().to_owned(),
                interface: format!("if{run}"),
                run,
                queue: at / 3,
                mode: "zerocopy".to_owned(),
                span_ns: (number(), number()),
                counts: counts
                    .iter()
                    .map(|name| ((*name).to_owned(), (number() >> 1).cast_signed()))
                    .collect(),
                number: None,
            });
        }
        note
    }

    #[test]
    fn a_note_with_every_queue_full_fits_its_map_and_an_empty_entry_is_left_out() {
        let mut note = full();
        let text = note.text(Path::new("x")).unwrap();
        let value = tapedeck_ebpf::note_value(&text).unwrap();
        println!("the fullest note: {} bytes of text, {} in its map", text.len(), value.len());
        assert!(value.len() <= 64 * 1024, "{}", value.len());
        assert_eq!(Note::read(&text), Some(note.clone()));
        *note.queue(3) = QueueNote { queue: 3, ..QueueNote::default() };
        let read = Note::read(&note.text(Path::new("x")).unwrap()).unwrap();
        assert_eq!(read.queues.len(), 64, "an entry that says nothing is left out");
    }
}
