//! `taperead segments`: what is on disk, and what should be, as a table or JSON lines. Reads sidecars and
//! journals, no packets.

use crate::ask::SegmentsAsk;
use crate::failure::Failure;
use crate::out::Sink;
use crate::range::TimeRange;
use crate::run::{Talk, print};
use crate::segment::len64;
use crate::unsealed::{pending, times_of};
use crate::verdict::{EXIT_MATCHES, EXIT_NONE};
use serde::Serialize;
use std::fmt::{self, Display, Write as _};
use std::fs;
use std::io::ErrorKind;
use std::path::PathBuf;
use tapedeck_index::catalog::{self, Found, State};
use tapedeck_index::journal::Replay;
use tapedeck_index::mapped::{self, OpenError};
use tapedeck_index::sidecar::FrameMeta;
use tapedeck_packet::Timestamp;
use tapedeck_packet::escape::Foreign;

/// A segment as the list shows it; what its index does not tell is left out.
#[derive(Debug, Serialize)]
struct Listed {
    path: PathBuf,
    state: &'static str,
    sensor: String,
    interface: String,
    queue: u32,
    run: String,
    seq: u32,
    stored_bytes: u64,
    #[serde(flatten)]
    known: Option<Known>,
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// The problem, where it is that packets are lost.
    #[serde(skip)]
    loss: Option<String>,
}

/// What the index tells.
#[derive(Debug, Serialize)]
struct Known {
    /// First packet time; left out without packets.
    #[serde(skip_serializing_if = "Option::is_none")]
    from: Option<String>,
    /// Last packet time.
    #[serde(skip_serializing_if = "Option::is_none")]
    to: Option<String>,
    packets: u64,
    /// Frames recorded; an open segment has packets beyond them.
    frames: u32,
    raw_bytes: u64,
    rows: u32,
    /// Of its index; while it is open that of its journal, which has the newest packets in it as well.
    index_bytes: u64,
    #[serde(skip)]
    times: Option<(Timestamp, Timestamp)>,
    /// Of the frames; an open file is allocated ahead of them.
    #[serde(skip)]
    stored_bytes: u64,
}

pub(crate) fn segments(
    ask: &SegmentsAsk,
    mut out: Sink<'_>,
    out_is_terminal: bool,
    talk: &mut Talk<'_>,
) -> Result<u8, Failure> {
    let listing = catalog::list(&ask.stores, ask.range.from, ask.range.to.unwrap_or(Timestamp::MAX))
        .map_err(|e| Failure::of(&e))?;
    for path in &listing.foreign {
        talk.warn(path, &"not a file of a store, ignored");
    }
    let there = listing.segments.iter().map(|found| (found, listed(found, &ask.range)));
    let missing = listing.missing.iter().map(|found| (found, missing(found, &ask.range)));
    let mut all: Vec<(&Found, Option<Listed>)> = there.chain(missing).collect();
    all.sort_by_key(|(found, _)| (found.name.t0, &found.name.interface, found.name.queue, found.name.seq));
    let all: Vec<Listed> = all.into_iter().filter_map(|(_, listed)| listed).collect();
    for Listed { path, loss, .. } in &all {
        if let Some(loss) = loss {
            talk.warn(path, loss);
        }
    }
    let text = if ask.json { json(&all)? } else { table(&all, out_is_terminal) };
    print(&mut out, &text)?;
    Ok(if all.is_empty() { EXIT_NONE } else { EXIT_MATCHES })
}

/// One line of the list; `None` for a segment without packets inside `range`, and for one that is gone.
fn listed(found: &Found, range: &TimeRange) -> Option<Listed> {
    let path = found.packets_path();
    let (mut stored_bytes, refused) = match fs::metadata(&path) {
        Ok(metadata) => (metadata.len(), None),
        Err(e) if e.kind() == ErrorKind::NotFound => return None,
        Err(e) => (0, Some(e.to_string())),
    };
    let (known, mut problem) = match known(found) {
        Ok(known) => (Some(known), refused.clone()),
        Err(problem) => (None, Some(problem)),
    };
    let expected = known.as_ref().map_or(stored_bytes.max(1), |known| known.stored_bytes);
    let mut loss = None;
    if found.state == State::Sealed && refused.is_none() && stored_bytes != expected {
        match (stored_bytes, &known) {
            (0, None) => loss = Some("cut: the segment is empty".to_owned()),
            (there, _) if there < expected => {
                loss = Some(format!("cut: {there} of {expected} bytes are there"));
            }
            (there, _) => problem = Some(format!("it has {there} bytes, its index knows of {expected}")),
        }
        problem = loss.clone().or(problem);
    }
    if let Some(known) = &known {
        if known.times.is_some_and(|(min, max)| !range.overlaps(min, max)) {
            return None;
        }
        if found.state == State::Open {
            stored_bytes = known.stored_bytes;
        }
    }
    let state = if found.state == State::Open { "open" } else { "sealed" };
    Some(Listed { stored_bytes, known, problem, loss, ..named(found, path, state) })
}

/// One line for a segment of which only the index is left.
fn missing(found: &Found, range: &TimeRange) -> Option<Listed> {
    let known = match known(found) {
        Ok(known) => Some(known),
        Err(_) if !found.index_path().exists() => return None,
        Err(_) => None,
    };
    if known.as_ref().and_then(|k| k.times).is_some_and(|(min, max)| !range.overlaps(min, max)) {
        return None;
    }
    let loss = Some("the segment is missing; only its index is left".to_owned());
    Some(Listed { known, problem: loss.clone(), loss, ..named(found, found.packets_path(), "missing") })
}

/// What the name tells.
fn named(found: &Found, path: PathBuf, state: &'static str) -> Listed {
    let name = &found.name;
    Listed {
        path,
        state,
        sensor: name.sensor.clone(),
        interface: name.interface.clone(),
        queue: name.queue,
        run: format!("{:08x}", name.run),
        seq: name.seq,
        known: None,
        stored_bytes: 0,
        problem: None,
        loss: None,
    }
}

fn known(found: &Found) -> Result<Known, String> {
    match found.state {
        State::Sealed => {
            let sidecar = match mapped::open(&found.index_path()) {
                Ok(sidecar) => sidecar,
                Err(OpenError::Io { source, .. }) => return Err(format!("index: {source}")),
                Err(OpenError::Sidecar { source, .. }) => return Err(format!("index: {source}")),
            };
            let frames = sidecar.frames().map_err(|e| format!("index: {e}"))?;
            let summary = sidecar.summary();
            let mut known = Known::of(&frames, summary.rows, sidecar.byte_len(), summary.times);
            known.stored_bytes = summary.segment_len;
            Ok(known)
        }
        State::Open => {
            let journal = fs::read(found.index_path()).map_err(|e| format!("journal: {e}"))?;
            let replay = Replay::read(&journal).map_err(|e| e.to_string())?;
            if let Some(error) = replay.builder().error() {
                return Err(error.to_string());
            }
            let (frames, rows) = (replay.frames(), replay.builder().row_count());
            let pending = pending(&replay);
            let times = times_of(frames, &pending);
            let mut known = Known::of(frames, rows, len64(journal.len()), times);
            known.packets += pending.iter().filter_map(|task| task.packets.map(u64::from)).sum::<u64>();
            known.stored_bytes = replay.stored_len();
            Ok(known)
        }
    }
}

impl Known {
    fn of(frames: &[FrameMeta], rows: u32, index_bytes: u64, times: Option<(Timestamp, Timestamp)>) -> Self {
        Self {
            from: times.map(|(min, _)| min.to_string()),
            to: times.map(|(_, max)| max.to_string()),
            packets: frames.iter().map(|frame| u64::from(frame.packets)).sum(),
            frames: u32::try_from(frames.len()).unwrap_or(u32::MAX),
            raw_bytes: frames.iter().map(|frame| u64::from(frame.raw_len)).sum(),
            rows,
            index_bytes,
            times,
            stored_bytes: 0,
        }
    }
}

fn json(all: &[Listed]) -> Result<String, Failure> {
    let lines: Result<Vec<String>, _> = all.iter().map(serde_json::to_string).collect();
    let mut lines = lines.map_err(|e| Failure::because("cannot write a segment as JSON", &e))?;
    lines.push(String::new());
    Ok(lines.join("\n"))
}

fn table(all: &[Listed], for_terminal: bool) -> String {
    let mut text = String::new();
    if all.is_empty() {
        return text;
    }
    let head = ["state", "from", "to", "packets", "raw", "stored", "ratio", "rows", "index"];
    let _ = writeln!(text, "{}  segment", Columns(&head.map(str::to_owned)));
    for Listed { path, state, stored_bytes, known, problem, .. } in all {
        let mut cells = [const { String::new() }; 9];
        let stored = stored_bytes.to_string();
        if let Some(k) = known {
            let time = |t: &Option<String>| t.clone().unwrap_or_else(|| "-".to_owned());
            let ratio = Ratio(k.raw_bytes, *stored_bytes).to_string();
            let [packets, raw, rows] = [k.packets, k.raw_bytes, u64::from(k.rows)].map(|n| n.to_string());
            let (from, to, index) = (time(&k.from), time(&k.to), k.index_bytes.to_string());
            cells = [(*state).to_owned(), from, to, packets, raw, stored, ratio, rows, index];
        } else {
            let [first, _, _, _, _, stored_cell, ..] = &mut cells;
            (*first, *stored_cell) = ((*state).to_owned(), stored);
        }
        let path = path.to_string_lossy();
        let _ = write!(text, "{}  {}", Columns(&cells), Foreign::new(&path, for_terminal));
        let _ = match problem {
            Some(problem) => writeln!(text, "  ({problem})"),
            None => writeln!(text),
        };
    }
    text
}

/// The columns before the path: words to the left, numbers to the right.
struct Columns<'a>(&'a [String; 9]);

impl Display for Columns<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [state, from, to, packets, raw, stored, ratio, rows, index] = self.0;
        write!(
            f,
            "{state:7}  {from:30}  {to:30}  {packets:>10}  {raw:>12}  {stored:>12}  {ratio:>6}  {rows:>8}  {index:>10}"
        )
    }
}

/// Raw over stored bytes, two digits.
struct Ratio(u64, u64);

impl Display for Ratio {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.saturating_mul(100).checked_div(self.1) {
            Some(hundredths) => write!(f, "{}.{:02}", hundredths / 100, hundredths % 100),
            None => f.write_str("-"),
        }
    }
}
