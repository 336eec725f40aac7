//! What the ledger of a store says of a range: which seconds were watched, and in which packets were lost.
//!
//! A store without a ledger says nothing, and its answers are as whole as its segments. Rows of files say what was lost
//! on the way into the store, not that anything was watched. It must never take a file that cannot be read for one
//! without losses.

use crate::failure::Failure;
use crate::plan::Plan;
use crate::pool::ordered;
use crate::range::{Span, TimeRange, union};
use crate::stored::{self, Stored};
use crate::tables::{self, FileTrouble, ReadError, following};
use crate::verdict::{Cause, Gap, Verdict};
use arrow_array::RecordBatch;
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int64Type, TimestampNanosecondType};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{ArrowReaderOptions, ParquetRecordBatchReaderBuilder};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::statistics::Statistics;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};
use tapedeck_index::catalog::CatalogError;
use tapedeck_index::table::encode::{self, time};
use tapedeck_index::table::live::without_replaced;
use tapedeck_index::table::{Found, LEDGER, Listing, LiveFound, State, list};
use tapedeck_packet::Timestamp;
use tapedeck_packet::time::NANOS_PER_SEC;

/// The columns of losses, and the causes they are.
const LOSSES: [(&str, Cause); 11] = [
    ("dropped_nic", Cause::Nic),
    ("dropped_ring_full", Cause::RingFull),
    ("dropped_fill_empty", Cause::FillEmpty),
    ("dropped_unbound", Cause::Unbound),
    ("dropped_wrong_queue", Cause::WrongQueue),
    ("dropped_oversize", Cause::Oversize),
    ("dropped_program", Cause::Program),
    ("dropped_shed", Cause::Shed),
    ("dropped_write_error", Cause::WriteError),
    ("dropped_crash", Cause::Crash),
    ("dropped_down", Cause::Down),
];

/// Which second a row is of, and which number it has.
const KEYS: [&str; 2] = ["uid", "number"];
/// The other columns that are read.
const OTHERS: [&str; 5] = ["ts", "ts_end", "kind", "mode", "pending"];

/// A second that is over gets its row after so long at the latest, or is told of by a live row still: the recorder gives
/// one that does not balance up after ten looks.
const UNSETTLED_NANOS: u64 = 15 * NANOS_PER_SEC;

/// What the ledger says.
#[derive(Debug, Default)]
pub(crate) struct Witness {
    /// Where packets were lost, in order of time.
    pub(crate) gaps: Vec<Gap>,
    /// What was watched, in order of time.
    pub(crate) watched: Vec<Span>,
    /// Files that could not be read.
    pub(crate) troubles: Vec<FileTrouble>,
    /// What it calls stored.
    stored: Stored,
    /// Up to when it tells of a run, as far as was looked.
    told: BTreeMap<u32, Timestamp>,
}

impl Witness {
    /// A run that has rows tells of no later second than these what it lost.
    fn tells(&mut self, run: u32, until: Timestamp) {
        let told = self.told.entry(run).or_default();
        *told = until.max(*told);
    }

    /// Up to when a store vouches that is being recorded into: where its ledger does not know yet what was lost, not even
    /// for what is there.
    pub(crate) fn edge(&self, plan: &Plan) -> Option<Timestamp> {
        let told = plan.live.iter().filter_map(|run| self.told.get(run)).min();
        Some(plan.edge?.min(told.copied().unwrap_or(Timestamp::MAX)))
    }
}

/// Losses of a stretch, in the order of [`LOSSES`].
type Losses = BTreeMap<Span, [i64; LOSSES.len()]>;

/// Asks the ledgers of `stores` about `range`.
///
/// # Errors
/// A folder cannot be listed.
pub(crate) fn witness(stores: &[PathBuf], range: TimeRange) -> Result<Witness, Failure> {
    let find = || list(&LEDGER, stores, range.from, range.to);
    let (mut witness, mut losses) = (Witness::default(), Losses::new());
    // Live rows first: a row that moves on meanwhile is met again, and known by its key.
    let newest = witness.newest(&find().map_err(|e| Failure::of(&e))?.live, range);
    let files = find().map_err(|e| Failure::of(&e))?.files;
    let (mut keyed, mut unfinished, mut ended) = (Vec::new(), Vec::new(), Vec::new());
    let mut unknown = Vec::new();
    let mut settled: BTreeMap<u32, Timestamp> = BTreeMap::new();
    let workers = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let parts: Vec<_> = std::thread::scope(|scope| {
        let look = |(): &mut (), found: &Found| look(found, range, &newest, &find);
        ordered(scope, workers, &files, || (), look).collect()
    });
    for (found, part) in files.iter().zip(parts) {
        match part {
            Ok(part) => {
                add(&mut losses, part.losses);
                witness.watched.extend(part.watched);
                witness.stored.add(part.stored);
                unknown.extend(part.unknown);
                unfinished.extend(part.unfinished);
                ended.extend(part.ended);
                keyed.extend(part.keyed);
                if part.told > Timestamp::ZERO {
                    witness.tells(found.name.run, part.told);
                }
                let last = settled.entry(found.name.run).or_default();
                *last = part.settled.max(*last);
                if let Some(error) = part.damage {
                    witness.torn(&found.path, &error, part.settled, None, range);
                }
            }
            Err(error) if found.state == State::Open && !error.is_gone() => {
                witness.torn(&found.path, &error, found.name.t0, Some(found.name.t0), range);
            }
            Err(error) => witness.doubt(found, &error, range),
        }
    }
    for Newest { path, run, rows, damage, .. } in newest {
        let left =
            LEDGER.live.map_or_else(|| Ok(rows.clone()), |key| without_replaced(key, &rows, keyed.iter()));
        let left = left.unwrap_or_else(|_| rows.slice(0, 0));
        // Of these seconds more may come: they are not called watched, but what they lost is lost.
        let mut part = Part::default();
        match take(&left, range, true, &mut part) {
            Some(()) => add(&mut losses, part.losses),
            None => {
                let what = ReadError::Column.to_string();
                witness.troubles.push(FileTrouble { path: path.clone(), what });
            }
        }
        if let Some(error) = damage {
            let first = encode::extent(&LEDGER, &left).ok().flatten().map(|(first, _)| first);
            let settled = settled.get(&run).copied().unwrap_or_else(|| written(&path));
            witness.torn(&path, &error, settled, first, range);
        }
    }
    witness.unfinished(unfinished, union(ended));
    let unknown = union(unknown).into_iter();
    witness.gaps.extend(unknown.map(|span| Gap { span, cause: Cause::Down, packets: None }));
    witness.watched = union(std::mem::take(&mut witness.watched));
    witness.gaps.extend(losses.into_iter().filter_map(|(span, lost)| gap(span, &lost)));
    witness.gaps.sort_by_key(|gap| gap.span);
    witness.gaps = joined(std::mem::take(&mut witness.gaps));
    Ok(witness)
}

/// The rows of a live journal: of the newest seconds, of which packets are under way.
struct Newest {
    path: PathBuf,
    run: u32,
    rows: RecordBatch,
    /// First time of these rows.
    from: Timestamp,
    /// Why there are no more.
    damage: Option<ReadError>,
}

/// What a file says.
#[derive(Default)]
struct Part {
    losses: Losses,
    watched: Vec<Span>,
    stored: Stored,
    /// Seconds of which packets were under way when their recorder died.
    unfinished: Vec<Span>,
    /// Outages in which nobody counted.
    unknown: Vec<Span>,
    /// What `crash` rows tell of: there nothing is under way any more.
    ended: Vec<Span>,
    /// Its rows, where they may replace live ones.
    keyed: Vec<RecordBatch>,
    /// End of the last second, or outage before the first, that it tells of.
    told: Timestamp,
    /// End of the last second with a row of its own, inside the range or not.
    settled: Timestamp,
    /// Why rows are missing at its end.
    damage: Option<ReadError>,
}

/// Reads a file. One that is gone has been sealed: it is looked for once more.
fn look(
    found: &Found,
    range: TimeRange,
    newest: &[Newest],
    find: &impl Fn() -> Result<Listing, CatalogError>,
) -> Result<Part, ReadError> {
    let keyed = newest.iter().any(|live| live.run == found.name.run)
        && (found.state == State::Open || newest.iter().any(|live| found.name.t1 >= live.from));
    let (batches, lossy, damage) = following(found, find, |found| read(found, keyed))?;
    let mut part = Part { damage, ..Part::default() };
    for batch in &batches {
        take(batch, range, lossy, &mut part).ok_or(ReadError::Column)?;
        part.stored.take(batch, range, found.name.run).ok_or(ReadError::Column)?;
    }
    if keyed {
        part.keyed = batches;
    }
    Ok(part)
}

fn add(losses: &mut Losses, more: Losses) {
    for (span, counts) in more {
        let sum = losses.entry(span).or_default();
        for (sum, count) in sum.iter_mut().zip(counts) {
            *sum = sum.wrapping_add(count);
        }
    }
}

impl Witness {
    /// The rows of live journals. One that is gone has ended in order: its rows are in files.
    fn newest(&mut self, live: &[LiveFound], range: TimeRange) -> Vec<Newest> {
        let mut newest = Vec::new();
        for LiveFound { run, path, .. } in live {
            let (rows, damage) = match tables::live(&LEDGER, path) {
                Err(error) if error.is_gone() => continue,
                Ok(rows) => {
                    let damage = rows.damage();
                    (rows.batches.into_iter().next(), damage)
                }
                Err(error) => (None, Some(error)),
            };
            let rows = rows.unwrap_or_else(|| RecordBatch::new_empty(LEDGER.schema()));
            let (path, run) = (path.clone(), *run);
            let extent = encode::extent(&LEDGER, &rows);
            if damage.is_some() {
                // A gap tells of that.
                self.tells(run, Timestamp::MAX);
            } else if let Ok(Some((_, to))) = extent {
                self.tells(run, to);
            }
            match extent {
                Ok(Some((from, to))) if damage.is_some() || (Span { from, to }).within(&range).is_some() => {
                    newest.push(Newest { path, run, rows, from, damage });
                }
                Ok(None) if damage.is_some() => {
                    newest.push(Newest { path, run, rows, from: Timestamp::MAX, damage });
                }
                Ok(_) => {}
                Err(error) => self.troubles.push(FileTrouble { path, what: error.to_string() }),
            }
        }
        newest
    }

    /// Seconds that no row of a crash has ended: what was under way in them is not known to be there.
    fn unfinished(&mut self, seconds: Vec<Span>, ended: Vec<Span>) {
        for span in union(seconds) {
            let settled = |end: &Span| end.from <= span.from && span.from < end.to;
            if !ended.iter().any(settled) {
                self.gaps.push(Gap { span, cause: Cause::Crash, packets: None });
            }
        }
    }

    /// The end of a journal that is damaged: nobody knows what it said of the seconds that were not over when the last
    /// one before it, which ended at `settled`, got its row, nor of any later one up to when it was written to last.
    /// `first`: one that surely was not.
    fn torn(
        &mut self,
        path: &Path,
        error: &ReadError,
        settled: Timestamp,
        first: Option<Timestamp>,
        range: TimeRange,
    ) {
        let what = error.told("what was lost in its last seconds is not known");
        self.troubles.push(FileTrouble { path: path.to_owned(), what });
        let from = settled.saturating_sub(UNSETTLED_NANOS);
        let from = first.map_or(from, |first| first.min(from));
        let to = written(path).max(settled).saturating_add(NANOS_PER_SEC);
        if let Some(span) = (Span { from, to }).within(&range) {
            self.gaps.push(Gap { span, cause: Cause::CorruptFile, packets: None });
        }
    }

    /// A file that could not be read: nobody knows what was lost in its time.
    fn doubt(&mut self, found: &Found, error: &ReadError, range: TimeRange) {
        let what = error.told("what was lost in its time is not known");
        self.troubles.push(FileTrouble { path: found.path.clone(), what });
        let to = found.name.t1.max(found.name.t0).saturating_add(NANOS_PER_SEC);
        if let Some(span) = (Span { from: found.name.t0, to }).within(&range) {
            self.gaps.push(Gap { span, cause: Cause::CorruptFile, packets: None });
        }
    }

    /// Adds what it calls stored and `plan`, which was made before, does not hold.
    ///
    /// # Errors
    /// A folder cannot be listed.
    pub(crate) fn compare(
        &mut self,
        stores: &[PathBuf],
        plan: &Plan,
        range: TimeRange,
    ) -> Result<(), Failure> {
        let stored = std::mem::take(&mut self.stored);
        stored.judge(self, stores, plan, range).map_err(|error| Failure::of(&error))
    }

    /// Adds what it says to the verdict of an answer, as far as that goes.
    pub(crate) fn tell(&mut self, verdict: &mut Verdict) {
        verdict.asked.append(&mut self.watched);
        let Some(range) = verdict.range else { return };
        let range = TimeRange { from: range.from, to: Some(range.to) };
        let until = verdict.until.filter(|_| verdict.limited);
        for gap in self.gaps.drain(..).filter(|gap| until.is_none_or(|until| gap.span.from <= until)) {
            verdict.gaps.extend(gap.span.within(&range).map(|span| Gap { span, ..gap }));
        }
        verdict.gaps.sort_by_key(|gap| gap.span);
    }

    /// First and last time that the ledger speaks of.
    pub(crate) fn life(&self) -> Option<Span> {
        let spans = || self.watched.iter().copied().chain(self.gaps.iter().map(|gap| gap.span));
        Some(Span { from: spans().map(|s| s.from).min()?, to: spans().map(|s| s.to).max()? })
    }
}

/// As `--explain` says it; nothing where there is no ledger.
impl fmt::Display for Witness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.watched.is_empty() && self.gaps.is_empty() {
            return Ok(());
        }
        match self.watched.as_slice() {
            [] => f.write_str("ledger    nothing was watched")?,
            [one] => write!(f, "ledger    watched {} to {}", one.from, one.to)?,
            [first, .., last] => {
                let stretches = self.watched.len();
                write!(f, "ledger    watched {} to {}, in {stretches} stretches", first.from, last.to)?;
            }
        }
        writeln!(f, ", losses in {} stretches", self.gaps.len())?;
        for Gap { span, cause, packets } in &self.gaps {
            write!(f, "  missing: {} to {}, {cause}", span.from, span.to)?;
            match packets {
                Some(packets) => writeln!(f, ", {packets} packets before filtering")?,
                None => writeln!(f, ", packets unknown")?,
            }
        }
        Ok(())
    }
}

/// When a journal was written to last, by the clock of its file system.
fn written(path: &Path) -> Timestamp {
    let modified = std::fs::metadata(path).and_then(|data| data.modified()).ok();
    let since = modified.and_then(|at| at.duration_since(std::time::UNIX_EPOCH).ok()).unwrap_or_default();
    Timestamp::from_nanos_saturating(u64::try_from(since.as_nanos()).unwrap_or(u64::MAX))
}

/// The rows of a file, of the columns that are needed, with the `keyed` ones on request; whether anything was
/// lost: if not, the columns of losses are not read; and why rows are missing at its end.
fn read(found: &Found, keyed: bool) -> Result<(Vec<RecordBatch>, bool, Option<ReadError>), ReadError> {
    if found.state == State::Open {
        let rows = tables::journal(&found.path)?;
        let damage = rows.damage();
        return Ok((rows.batches, true, damage));
    }
    // The columns are what their Parquet types say: the Arrow schema, with a text for each, takes longer than the rows.
    let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
    let builder = ParquetRecordBatchReaderBuilder::try_new_with_options(File::open(&found.path)?, options)?;
    let lossy = !is_lossless(builder.metadata());
    let losses = LOSSES.iter().map(|(name, _)| *name).filter(|_| lossy);
    let keys = KEYS.into_iter().filter(|_| keyed);
    let mask = ProjectionMask::columns(
        builder.parquet_schema(),
        losses.chain(OTHERS).chain(stored::COLUMNS).chain(keys),
    );
    let batches = builder.with_projection(mask).build()?.collect::<Result<_, _>>()?;
    Ok((batches, lossy, None))
}

/// Whether the statistics of a file say that nothing was lost in it. Most files are of that kind.
fn is_lossless(metadata: &ParquetMetaData) -> bool {
    let is_zero = |column: &ColumnChunkMetaData| match column.statistics() {
        Some(Statistics::Int64(s)) => (s.min_opt(), s.max_opt()) == (Some(&0), Some(&0)),
        _ => false,
    };
    let is_loss =
        |column: &ColumnChunkMetaData| LOSSES.iter().any(|(name, _)| column.column_path().string() == *name);
    metadata.row_groups().iter().all(|group| {
        let mut losses = group.columns().iter().filter(|column| is_loss(column)).peekable();
        losses.peek().is_some() && losses.all(is_zero)
    })
}

/// Takes the rows of a batch that reach into `range`, and their losses if they are `lossy`; `None` where a column is
/// missing. A row that only reaches into the range counts with all it has: nobody knows where in it they were.
fn take(batch: &RecordBatch, range: TimeRange, lossy: bool, part: &mut Part) -> Option<()> {
    let Part { losses, watched, unfinished, unknown, ended, settled, told, .. } = part;
    let times = |name| batch.column_by_name(name)?.as_primitive_opt::<TimestampNanosecondType>();
    let texts = |name| batch.column_by_name(name)?.as_string_opt::<i32>();
    let (from, to, kind, mode) = (times("ts")?, times("ts_end")?, texts("kind")?, texts("mode")?);
    let pending = batch.column_by_name("pending")?.as_primitive_opt::<Int64Type>()?;
    let mut counts = Vec::with_capacity(LOSSES.len());
    for (name, _) in LOSSES.iter().filter(|_| lossy) {
        counts.push(batch.column_by_name(name)?.as_primitive_opt::<Int64Type>()?.values());
    }
    for row in 0..batch.num_rows() {
        let span = Span { from: time(from.value(row)), to: time(to.value(row)) };
        if kind.value(row) == "second" && pending.value(row) == 0 {
            *settled = span.to.max(*settled);
        }
        if matches!(kind.value(row), "second" | "down") {
            *told = span.to.max(*told);
        }
        let Some(span) = span.within(&range) else { continue };
        let of_file = !arrow_array::Array::is_null(mode, row) && mode.value(row) == "file";
        let of_second = kind.value(row) == "second";
        let crash = kind.value(row) == "crash";
        if crash {
            ended.push(span);
        }
        let is_lost = counts.iter().any(|counts| counts.get(row).is_some_and(|n| *n != 0));
        if kind.value(row) == "down" && !is_lost {
            unknown.push(span);
        }
        // What a crash cost is a gap; where it cost nothing, nothing is missing up to then.
        if of_second && pending.value(row) != 0 {
            unfinished.push(span);
        } else if of_second && !of_file || crash {
            match watched.last_mut() {
                Some(last) if (last.from..=last.to).contains(&span.from) => last.to = last.to.max(span.to),
                _ => watched.push(span),
            }
        }
        // What no second of a file can be named for has no time at all.
        if (of_second || !of_file) && is_lost {
            let sum = losses.entry(span).or_default();
            for (sum, counts) in sum.iter_mut().zip(&counts) {
                *sum = sum.wrapping_add(counts.get(row).copied().unwrap_or(0));
            }
        }
    }
    Some(())
}

/// The gap of a stretch: by its largest cause, with all that was lost.
fn gap(span: Span, lost: &[i64; LOSSES.len()]) -> Option<Gap> {
    let counts = lost.iter().zip(LOSSES).map(|(packets, (_, cause))| (*packets, cause));
    let (_, cause) = counts.filter(|(packets, _)| *packets > 0).max_by_key(|(packets, _)| *packets)?;
    let packets = lost.iter().filter_map(|packets| u64::try_from(*packets).ok()).sum();
    Some(Gap { span, cause, packets: Some(packets) })
}

/// Gaps of one cause that follow each other are one.
fn joined(gaps: Vec<Gap>) -> Vec<Gap> {
    let mut out: Vec<Gap> = Vec::with_capacity(gaps.len());
    for gap in gaps {
        match out.last_mut() {
            Some(last) if last.span.to == gap.span.from && last.cause == gap.cause => {
                last.span.to = gap.span.to;
                last.packets = last.packets.zip(gap.packets).map(|(one, other)| one + other);
            }
            _ => out.push(gap),
        }
    }
    out
}

/// The part of a range that the ledger is asked about. Where no begin was named it is that of the day of the first
/// packet: no packet of earlier days is there to be answered, and the ledger may be much older than the packets.
pub(crate) fn bounded(range: TimeRange, is_open: bool, packets: Option<Span>) -> TimeRange {
    const DAY_NANOS: u64 = 24 * 3600 * NANOS_PER_SEC;
    let day = |ts: Timestamp| Timestamp::from_nanos_saturating(ts.nanos() / DAY_NANOS * DAY_NANOS);
    // A range that ends before has nothing but losses to tell.
    let inside = |from: Timestamp| range.to.is_none_or(|to| to > from);
    let from = packets
        .map(|packets| day(packets.from))
        .filter(|from| is_open && inside(*from))
        .unwrap_or(range.from);
    TimeRange { from, ..range }
}

/// The life of a store by its segments and by its ledger.
pub(crate) fn life(segments: Option<Span>, ledger: Option<Span>) -> Option<Span> {
    match (segments, ledger) {
        (Some(a), Some(b)) => Some(Span { from: a.from.min(b.from), to: a.to.max(b.to) }),
        (one, other) => one.or(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapedeck_index::table::ledger::{LedgerCounts, LedgerRow, RowKind, to_batch};

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_nanos_saturating(secs * NANOS_PER_SEC)
    }

    fn row(second: u64, mode: &str, counts: LedgerCounts) -> LedgerRow {
        let mode = Some(mode.to_owned());
        LedgerRow { ts: at(second), ts_end: at(second + 1), mode, counts, ..LedgerRow::default() }
    }

    fn lost(shed: i64, ring_full: i64) -> LedgerCounts {
        LedgerCounts { seen: 100, shed, ring_full, ..LedgerCounts::default() }
    }

    #[test]
    fn seconds_with_losses_are_gaps_by_their_largest_cause_and_the_others_are_watched() {
        let rows = [
            row(10, "copy", lost(0, 0)),
            row(10, "copy", lost(0, 0)),
            row(11, "copy", lost(3, 1)),
            row(11, "copy", lost(0, 1)),
            row(12, "copy", lost(2, 0)),
            row(13, "copy", lost(0, 5)),
            // One that is known better by now.
            row(14, "copy", lost(4, 0)),
            row(14, "copy", lost(-4, 0)),
            // The rest of a run that was killed, without losses.
            LedgerRow { kind: RowKind::Crash, ..row(15, "copy", LedgerCounts::default()) },
            row(20, "file", lost(0, 0)),
            LedgerRow { kind: RowKind::Correction, ..row(21, "file", lost(7, 0)) },
        ];
        let Part { losses, watched, unfinished, .. } = part(&rows);
        assert_eq!(watched, [Span { from: at(10), to: at(16) }]);
        assert_eq!(unfinished, []);
        let gaps = joined(losses.into_iter().filter_map(|(span, lost)| gap(span, &lost)).collect());
        let told: Vec<_> = gaps.iter().map(|g| (g.span.from, g.span.to, g.cause, g.packets)).collect();
        assert_eq!(
            told,
            [(at(11), at(13), Cause::Shed, Some(7)), (at(13), at(14), Cause::RingFull, Some(5))]
        );
    }

    /// The part of a file with these rows.
    fn part(rows: &[LedgerRow]) -> Part {
        let range = TimeRange { from: at(10), to: Some(at(30)) };
        let mut part = Part::default();
        take(&to_batch(rows).unwrap(), range, true, &mut part).unwrap();
        part
    }

    #[test]
    fn what_was_under_way_at_a_kill_is_missing_unless_a_row_of_the_crash_ends_it() {
        let pending =
            |second| row(second, "packet", LedgerCounts { seen: 9, pending: 9, ..LedgerCounts::default() });
        let crash =
            |from, to| LedgerRow { kind: RowKind::Crash, ts_end: at(to), ..row(from, "copy", lost(0, 0)) };
        let mut rows = vec![row(12, "packet", lost(0, 0)), pending(13), pending(14)];
        let gaps = |rows: &[LedgerRow]| {
            let Part { watched, unfinished, ended, .. } = part(rows);
            let mut witness = Witness::default();
            witness.unfinished(unfinished, union(ended));
            let gaps: Vec<_> =
                witness.gaps.iter().map(|g| (g.span.from, g.span.to, g.cause, g.packets)).collect();
            (watched, gaps)
        };
        let (watched, told) = gaps(&rows);
        assert_eq!(watched, [Span { from: at(12), to: at(13) }]);
        assert_eq!(told, [(at(13), at(15), Cause::Crash, None)]);
        rows.push(crash(13, 16));
        let (watched, told) = gaps(&rows);
        assert_eq!((watched, told), (vec![Span { from: at(12), to: at(16) }], Vec::new()));
    }

    #[test]
    fn without_a_begin_the_ledger_is_asked_from_the_day_of_the_first_packet_on_if_the_range_reaches_it() {
        const DAY: u64 = 24 * 3600;
        let packets = Some(Span { from: at(5 * DAY + 7), to: at(5 * DAY + 9) });
        let asked = |to, packets| bounded(TimeRange { from: Timestamp::ZERO, to }, true, packets).from;
        assert_eq!(asked(None, packets), at(5 * DAY));
        assert_eq!(asked(Some(at(5 * DAY + 1)), packets), at(5 * DAY));
        // All of that day and before was lost: that is the answer.
        assert_eq!(asked(Some(at(5 * DAY)), packets), Timestamp::ZERO);
        assert_eq!(asked(Some(at(3 * DAY)), packets), Timestamp::ZERO);
        assert_eq!(asked(None, None), Timestamp::ZERO);
        // Also where the epoch is named.
        for named in [at(2 * DAY), Timestamp::ZERO] {
            let named = TimeRange { from: named, to: None };
            assert_eq!(bounded(named, false, packets), named);
        }
    }
}
