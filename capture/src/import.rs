//! `tapedeck import`: captures of other programs, through the same pipeline as a recording.
//!
//! One chain per interface that the files describe (name, link type, snaplen), so each segment has one
//! interface. Nothing whole is left behind: what stands before a damage is stored, the damage is named
//! with its file and offset, and the other files are done. No time from a capture reaches the clock.

use crate::cli::ImportArgs;
use crate::identity::{now, open_store, run_number, secret};
use crate::ledger::{Counts, Dropped, InterfaceEntry, Ledger, QueueEntry, SessionEntry};
use crate::ledger_rows::file::FileRows;
use crate::sessions::desk::{Desk, Kind};
use crate::sessions::{SessionCounts, SessionOptions, Tracker};
use crate::voice::Failure;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use tapedeck_index::capture_file::{CaptureError, CaptureReader};
use tapedeck_index::pcapng::{InterfaceInfo, PacketRecord};
use tapedeck_packet::{Timestamp, Walk};
use tapedeck_session::{Packet, Place};
use tapedeck_writer::{Appended, Chain, ChainConfig, Level, Sum, WriteError};

/// Frame buffers of a chain; an import waits for a free one.
const FRAME_BUFFERS: usize = 6;
/// Chains at work at once; each has two threads and about 16 MiB.
const CHAINS_MAX: usize = 32;
/// Packets between two looks at what is over.
const LOOK_PACKETS: u32 = 256;
/// Packets between two words of progress.
const PROGRESS_PACKETS: u64 = 65_536;

/// What to import, and how.
#[derive(Clone, Debug)]
pub struct Import {
    /// Store to write to; made if it is not there.
    pub store: PathBuf,
    /// Files; `-` is standard input.
    pub files: Vec<PathBuf>,
    /// Stored bytes at which a segment is cut.
    pub segment_bytes: u64,
    /// Compression.
    pub level: Level,
    /// How sessions are kept.
    pub sessions: SessionOptions,
    /// Number of this run, random.
    pub run: u32,
    /// When the run began.
    pub start: Timestamp,
}

/// What went wrong with a file; its whole packets are stored nevertheless.
#[derive(Debug, thiserror::Error)]
pub enum FileProblem {
    /// It cannot be opened.
    #[error("cannot open {path}")]
    Open {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// It is cut, damaged, or no capture.
    #[error("{path}: {source}")]
    Capture {
        /// The file.
        path: String,
        /// What is wrong, with the offset.
        #[source]
        source: CaptureError,
    },
    /// Some of its packets have times that cannot be stored.
    #[error("{path}: {refused} packets with a time out of range are not stored (the first: {})", .first.join("; "))]
    Times {
        /// The file.
        path: String,
        /// How many.
        refused: u64,
        /// The first ones, each with its offset.
        first: Vec<String>,
    },
    /// The import was stopped inside or before it.
    #[error("{path}: stopped on request at offset {offset}")]
    Stopped {
        /// The file.
        path: String,
        /// How far it was read.
        offset: u64,
    },
}

/// The outcome of an import.
#[derive(Debug)]
pub struct Imported {
    /// The books: one entry per interface.
    pub ledger: Ledger,
    /// Files that were not whole.
    pub problems: Vec<FileProblem>,
    /// Segments that could not be sealed: hidden, for recovery.
    pub unsealed: Vec<PathBuf>,
    /// Files with times finer than a nanosecond: (path, packets rounded down).
    pub rounded: Vec<(String, u64)>,
}

/// Imports the files one after the other. Between packets it looks at `stop`: what was read until then
/// is sealed and stays. `progress` is told, now and then, how many packets were read. `now` is asked
/// once, at the end.
///
/// # Errors
/// The store cannot be opened or written.
pub fn import(
    options: &Import,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(u64),
    now: impl FnOnce() -> Timestamp,
) -> Result<Imported, Failure> {
    let mut importer = Importer {
        options,
        opened: None,
        chains: BTreeMap::new(),
        books: BTreeMap::new(),
        unsealed: Vec::new(),
        seq: Arc::new(AtomicU32::new(0)),
        packets: 0,
        problems: Vec::new(),
        rounded: Vec::new(),
    };
    for path in &options.files {
        importer.file(path, stop, progress)?;
    }
    if stop.load(Ordering::Relaxed) {
        tracing::warn!(
            "stopping: what was read is being sealed; another signal ends at once, without sealing, and leaves that to `tapedeck recover`"
        );
    }
    importer.finish(now).map_err(unwritable)
}

fn unwritable(error: WriteError) -> Failure {
    let general = "free the disk or name another --store, then import again";
    Failure::of(&error).hint(crate::hints::of(&error).unwrap_or(general))
}

fn open(path: &Path) -> std::io::Result<Box<dyn Read>> {
    if path == Path::new("-") {
        return Ok(Box::new(std::io::stdin().lock()));
    }
    let file = File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(std::io::Error::from(std::io::ErrorKind::IsADirectory));
    }
    Ok(Box::new(file))
}

struct Importer<'o> {
    options: &'o Import,
    /// The store is opened when a file turns out to be a capture, so that a mistyped name leaves none
    /// behind.
    opened: Option<Opened>,
    /// Chains at work, by interface.
    chains: BTreeMap<InterfaceInfo, Working>,
    /// The books of every interface, of those too whose chain has ended.
    books: BTreeMap<InterfaceInfo, Books>,
    unsealed: Vec<PathBuf>,
    seq: Arc<AtomicU32>,
    packets: u64,
    problems: Vec<FileProblem>,
    rounded: Vec<(String, u64)>,
}

/// The store that is written to.
struct Opened {
    sensor: String,
    desk: Desk,
    rows: FileRows,
    /// Of the interfaces whose chains have ended.
    sessions: SessionCounts,
}

struct Working {
    chain: Chain,
    tracker: Tracker,
    /// Packets since the last look at what is over.
    since_look: u32,
    seen: u64,
    seen_bytes: u64,
    /// Number of the last packet that it took.
    last: u64,
}

/// What is known of an interface whose chain has ended, and of its refused packets.
#[derive(Clone, Copy, Debug, Default)]
struct Books {
    seen: u64,
    seen_bytes: u64,
    refused: u64,
    stored: Sum,
    pending: u64,
    shed: u64,
    write_error: u64,
}

impl Importer<'_> {
    fn file(&mut self, path: &Path, stop: &AtomicBool, progress: &mut dyn FnMut(u64)) -> Result<(), Failure> {
        let name = || path.display().to_string();
        let source = match open(path) {
            Ok(source) => source,
            Err(source) => {
                self.problems.push(FileProblem::Open { path: name(), source });
                return Ok(());
            }
        };
        let mut reader = match CaptureReader::open(source) {
            Ok(reader) => reader,
            Err(source) => {
                self.problems.push(FileProblem::Capture { path: name(), source });
                return Ok(());
            }
        };
        if self.opened.is_none() {
            self.opened = Some(Opened::new(self.options)?);
        }
        for working in self.chains.values_mut() {
            working.tracker.file();
        }
        match self.packets(&mut reader, stop, progress).map_err(unwritable)? {
            Ok(true) => {}
            Ok(false) => self.problems.push(FileProblem::Stopped { path: name(), offset: reader.offset() }),
            Err(source) => self.problems.push(FileProblem::Capture { path: name(), source }),
        }
        let notes = reader.notes();
        if notes.rounded > 0 {
            self.rounded.push((name(), notes.rounded));
        }
        for (interface, refused) in reader.interfaces().iter().zip(reader.refused()) {
            let books = self.books.entry(interface.clone()).or_default();
            books.refused += refused.packets;
            books.seen += refused.packets;
            books.seen_bytes += refused.bytes;
        }
        if notes.refused > 0 {
            let (refused, first) = (notes.refused, notes.refusals.clone());
            self.problems.push(FileProblem::Times { path: name(), refused, first });
        }
        Ok(())
    }

    /// All packets of a file. `Ok(false)`: stopped on request.
    fn packets(
        &mut self,
        reader: &mut CaptureReader<'_>,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(u64),
    ) -> Result<Result<bool, CaptureError>, WriteError> {
        let mut walk = Walk::new();
        loop {
            if stop.load(Ordering::Relaxed) {
                return Ok(Ok(false));
            }
            match reader.advance() {
                Ok(true) => {}
                Ok(false) => return Ok(Ok(true)),
                Err(error) => return Ok(Err(error)),
            }
            let Some(packet) = reader.packet() else { return Ok(Ok(true)) };
            let Some(interface) = reader.interfaces().get(packet.interface) else { return Ok(Ok(true)) };
            walk.run(interface.link_type, packet.record.bytes);
            self.packets += 1;
            if self.packets.is_multiple_of(PROGRESS_PACKETS) {
                progress(self.packets);
                if let Some(opened) = &mut self.opened {
                    self.chains
                        .iter()
                        .for_each(|(of, working)| opened.rows.look(of, &working.chain.counters()));
                }
            }
            let number = self.packets;
            let working = if fits(interface, packet.record.bytes.len()) {
                self.working(interface)?
            } else {
                // tcpdump refuses a packet longer than its interface says; some writers do not care.
                self.working(&InterfaceInfo { snaplen: 0, ..interface.clone() })?
            };
            working.last = number;
            working.seen += 1;
            working.seen_bytes += u64::from(packet.record.orig_len);
            working.take(&packet.record, &walk);
        }
    }

    /// The chain of an interface, started when its first packet comes. A capture may describe any number
    /// of interfaces: above [`CHAINS_MAX`] the chain unused for longest ends first.
    fn working(&mut self, interface: &InterfaceInfo) -> Result<&mut Working, WriteError> {
        if !self.chains.contains_key(interface) && self.chains.len() >= CHAINS_MAX {
            let oldest = self.chains.iter().min_by_key(|(_, working)| working.last).map(|(i, _)| i.clone());
            if let Some((interface, working)) = oldest.and_then(|oldest| self.chains.remove_entry(&oldest)) {
                self.end(interface, working)?;
            }
        }
        match self.chains.entry(interface.clone()) {
            Entry::Occupied(entry) => Ok(entry.into_mut()),
            Entry::Vacant(entry) => {
                let opened = self.opened.as_mut().ok_or(WriteError::Died("store"))?;
                let sensor = opened.sensor.clone();
                let mut trackers = opened.desk.trackers(&interface.name, &[0])?;
                let tracker = trackers.pop().ok_or(WriteError::Died("records"))?;
                let chain = Chain::start(chain_config(self.options, sensor, interface, &self.seq))?;
                let working = Working { chain, tracker, since_look: 0, seen: 0, seen_bytes: 0, last: 0 };
                Ok(entry.insert(working))
            }
        }
    }

    /// Seals the segments of a chain and enters its counts.
    fn end(&mut self, interface: InterfaceInfo, working: Working) -> Result<(), WriteError> {
        let sessions = working.tracker.finish();
        if let Some(opened) = &mut self.opened {
            opened.sessions.add(&sessions);
        }
        let counters = working.chain.counters();
        let report = working.chain.finish()?;
        if let Some(opened) = &mut self.opened {
            opened.rows.look(&interface, &counters);
        }
        self.unsealed.extend(report.unsealed);
        let books = self.books.entry(interface).or_default();
        books.seen += working.seen;
        books.seen_bytes += working.seen_bytes;
        books.stored = books.stored.plus(report.counters.stored);
        books.pending += report.counters.pending.packets;
        books.shed += report.counters.shed.packets;
        books.write_error += report.counters.write_error.packets;
        Ok(())
    }

    /// Seals everything and closes the books.
    fn finish(mut self, now: impl FnOnce() -> Timestamp) -> Result<Imported, WriteError> {
        while let Some((interface, working)) = self.chains.pop_first() {
            self.end(interface, working)?;
        }
        let (mut interfaces, mut queues) = (Vec::new(), Vec::new());
        for (interface, books) in self.books {
            interfaces
                .push(InterfaceEntry { interface: interface.name.clone(), ..InterfaceEntry::default() });
            queues.push(books.entry(interface.name));
        }
        let (mut sessions, mut rows) = (SessionEntry::default(), None);
        if let Some(opened) = self.opened {
            sessions = opened.desk.finish(&opened.sessions);
            rows = Some(opened.rows);
        }
        let (start, now) = (self.options.start, now());
        let ledger = Ledger::close(self.options.run, start, now, interfaces, queues, sessions);
        if let Some(rows) = rows {
            rows.finish(&ledger, start, now);
        }
        Ok(Imported { ledger, problems: self.problems, rounded: self.rounded, unsealed: self.unsealed })
    }
}

impl Opened {
    fn new(options: &Import) -> Result<Self, Failure> {
        let sensor = open_store(&options.store)?;
        let store = (options.store.as_path(), sensor.as_str());
        let desk = Desk::start(&[store], options.run, Kind::File, options.sessions.clone(), secret()?)
            .map_err(unwritable)?;
        let rows =
            FileRows::start((options.store.clone(), sensor.clone()), options.run).map_err(unwritable)?;
        Ok(Self { sensor, desk, rows, sessions: SessionCounts::default() })
    }
}

impl Working {
    /// Stores a packet and counts it for its session. The chain counts what became of it.
    fn take(&mut self, record: &PacketRecord<'_>, walk: &Walk) {
        let stored = self.chain.append(record, walk) == Appended::Stored;
        let (segment, frame) = self.chain.position();
        let place = Place::new(segment, frame);
        let PacketRecord { ts, bytes, orig_len, .. } = *record;
        self.tracker.arrives(ts);
        self.tracker.batch(|sessions| {
            if record.dropped > 0 || !stored {
                sessions.lost(ts, ts);
            }
            sessions.push(walk, &Packet { ts, bytes, original_bytes: orig_len, place, stored });
        });
        self.since_look += 1;
        if self.since_look >= LOOK_PACKETS {
            self.since_look = 0;
            self.tracker.tick(self.tracker.now());
        }
    }
}

/// Whether a packet is no longer than its interface's snaplen.
fn fits(interface: &InterfaceInfo, length: usize) -> bool {
    interface.snaplen == 0 || usize::try_from(interface.snaplen).is_ok_and(|snaplen| length <= snaplen)
}

impl Books {
    fn entry(self, interface: String) -> QueueEntry {
        QueueEntry {
            interface,
            queue: 0,
            mode: "file".into(),
            counts: Counts {
                seen: self.seen,
                seen_bytes: self.seen_bytes,
                stored: self.stored.packets,
                stored_bytes: self.stored.bytes,
                pending: self.pending,
                ..Counts::default()
            },
            // Of a file, `program` are the packets whose time cannot be stored.
            dropped: Dropped {
                program: self.refused,
                shed: self.shed,
                write_error: self.write_error,
                ..Dropped::default()
            },
            unaccounted: 0,
        }
    }
}

fn chain_config(
    options: &Import,
    sensor: String,
    interface: &InterfaceInfo,
    seq: &Arc<AtomicU32>,
) -> ChainConfig {
    ChainConfig {
        section: crate::identity::section(),
        run: options.run,
        seq: Arc::clone(seq),
        segment_bytes: options.segment_bytes,
        level: options.level,
        frame_buffers: FRAME_BUFFERS,
        ..ChainConfig::import(options.store.clone(), sensor, interface.clone())
    }
}

/// The command as typed: returns the ledger for stdout and the exit code.
///
/// # Errors
/// Nothing could be stored.
pub fn command(args: ImportArgs, say: &mut dyn FnMut(&str)) -> Result<(String, u8), Failure> {
    let options = Import {
        store: args.store,
        files: args.files,
        segment_bytes: args.segment_size,
        level: args.level,
        sessions: args.sessions.options(),
        run: run_number()?,
        start: now(),
    };
    let stop = stop_flag()?;
    let mut progress = |packets: u64| tracing::info!(packets, "importing");
    let imported = import(&options, &stop, &mut progress, now)?;
    crate::packer::at_end(&options.store, &stop);
    report(&imported, options.files.len(), say)
}

fn stop_flag() -> Result<Arc<AtomicBool>, Failure> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // The second signal ends at once.
        signal_hook::flag::register_conditional_shutdown(signal, 2, Arc::clone(&stop))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&stop)))
            .map_err(|e| Failure::new(format!("cannot watch for signals: {e}")))?;
    }
    Ok(stop)
}

/// Says what was not whole; decides the exit code.
fn report(imported: &Imported, files: usize, say: &mut dyn FnMut(&str)) -> Result<(String, u8), Failure> {
    for (path, packets) in &imported.rounded {
        say(&format!("warning: {path}: {packets} packets have times finer than a nanosecond; rounded down"));
    }
    for path in &imported.unsealed {
        say(&format!("warning: {}: could not be sealed; `tapedeck recover` will try again", path.display()));
    }
    let ledger = &imported.ledger;
    let failed = ledger.total.dropped.queues.write_error;
    if failed > 0 {
        say(&format!("warning: {failed} packets could not be written; free the disk and import again"));
    }
    if let ([only], 0, 1) = (imported.problems.as_slice(), ledger.total.counts.stored, files) {
        return Err(failure(only));
    }
    for problem in &imported.problems {
        say(&format!("warning: {problem}"));
        if let Some(hint) = hint(problem) {
            say(&format!("hint: {hint}"));
        }
    }
    if let Some(warning) = ledger.imbalance() {
        say(&warning);
    }
    let json = ledger.to_json().map_err(|e| Failure::of(&e))?;
    let whole = imported.problems.is_empty() && imported.unsealed.is_empty() && failed == 0;
    let code = match (whole, ledger.total.counts.stored) {
        (true, _) => 0,
        (false, 0) => {
            return Err(nothing_stored(failed, files));
        }
        (false, _) => 3,
    };
    Ok((json, code))
}

fn nothing_stored(failed: u64, files: usize) -> Failure {
    if failed > 0 {
        return Failure::new(format!("nothing stored: the store took none of {failed} packets"))
            .hint("free the disk or name another --store, then import again");
    }
    Failure::new(format!("nothing stored: none of {files} files could be read"))
}

fn failure(problem: &FileProblem) -> Failure {
    let failure = Failure::of(problem);
    match hint(problem) {
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

/// What to do about it.
fn hint(problem: &FileProblem) -> Option<&'static str> {
    match problem {
        FileProblem::Open { .. } => Some("check the name and the permissions of the file"),
        FileProblem::Capture { source: CaptureError::Foreign { .. }, .. } => {
            Some("pcap, pcapng and snoop are read, plain or packed with gzip, zstd or lz4")
        }
        FileProblem::Capture { source: CaptureError::Cut { .. }, .. } => Some(
            "all packets before that offset are stored; the capture was cut while it was written or copied",
        ),
        FileProblem::Capture { .. } => {
            Some("all packets before that offset are stored; compare the file with its source")
        }
        FileProblem::Times { .. } => Some("correct the times with `editcap -t` and import the packets again"),
        FileProblem::Stopped { .. } => None,
    }
}
