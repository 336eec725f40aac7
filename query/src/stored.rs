//! What the ledger calls stored, against the segments that are there: one that somebody took away leaves seconds that
//! were watched and cannot be answered.
//!
//! What is older than every segment was not retained: that is where a store begins, and no gap. It must never call a
//! segment gone that was made, or sealed, while we looked.

use crate::filter::{Expr, Filter};
use crate::gather::gather_some;
use crate::ledger::Witness;
use crate::plan::{Plan, Prologue};
use crate::range::{Span, TimeRange, subtract, union};
use crate::verdict::{Cause, Gap};
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int64Type, TimestampNanosecondType, UInt32Type};
use arrow_array::{Array as _, RecordBatch};
use std::path::PathBuf;
use tapedeck_index::catalog::CatalogError;
use tapedeck_index::table::encode::time;
use tapedeck_packet::Timestamp;
use tapedeck_packet::time::NANOS_PER_SEC;

/// The columns that are read for it, besides times and kind.
pub(crate) const COLUMNS: [&str; 3] = ["interface", "queue", "stored"];

/// A row may stand so far from its packets: it is of a whole second, and while the clock is slewed its packets' stamps
/// may lie in the next one.
const SLACK_NANOS: u64 = 2 * NANOS_PER_SEC;

/// The seconds in which a queue of a run stored packets.
#[derive(Debug)]
struct Chain {
    run: u32,
    interface: String,
    queue: u32,
    /// In order of the rows; those that follow each other are one.
    stored: Vec<Span>,
    /// Of these the ledger says itself that packets are not there any more.
    taken: Vec<Span>,
}

/// The rows that a segment's packets may stand in: whole seconds.
fn in_seconds(span: Span) -> Span {
    let second = |ns: u64| Timestamp::from_nanos_saturating(ns * NANOS_PER_SEC);
    let from = span.from.saturating_sub(SLACK_NANOS).nanos() / NANOS_PER_SEC;
    let to = span.to.saturating_add(SLACK_NANOS).nanos().div_ceil(NANOS_PER_SEC);
    Span { from: second(from), to: second(to) }
}

/// Those of all queues and runs.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    chains: Vec<Chain>,
}

impl Stored {
    /// Takes the rows of a file of `run` that reach into `range`; `None` where a column is missing.
    pub(crate) fn take(&mut self, batch: &RecordBatch, range: TimeRange, run: u32) -> Option<()> {
        let times = |name| batch.column_by_name(name)?.as_primitive_opt::<TimestampNanosecondType>();
        let (from, to) = (times("ts")?, times("ts_end")?);
        let texts = |name| batch.column_by_name(name)?.as_string_opt::<i32>();
        let (kind, interface) = (texts("kind")?, texts("interface")?);
        let queue = batch.column_by_name("queue")?.as_primitive_opt::<UInt32Type>()?;
        let stored = batch.column_by_name("stored")?.as_primitive_opt::<Int64Type>()?;
        for row in 0..batch.num_rows() {
            let count = stored.value(row);
            let span = Span { from: time(from.value(row)), to: time(to.value(row)) };
            let of_queue = interface.is_valid(row) && queue.is_valid(row);
            if count == 0 || !of_queue || span.within(&range).is_none() {
                continue;
            }
            let chain = self.chain(run, interface.value(row), queue.value(row));
            if count < 0 {
                chain.taken.push(span);
            } else if kind.value(row) == "second" {
                match chain.stored.last_mut() {
                    Some(last) if (last.from..=last.to).contains(&span.from) => {
                        last.to = last.to.max(span.to)
                    }
                    _ => chain.stored.push(span),
                }
            }
        }
        Some(())
    }

    #[expect(clippy::indexing_slicing, reason = "the index was just found, or made")]
    fn chain(&mut self, run: u32, interface: &str, queue: u32) -> &mut Chain {
        // Few, and nearly always the one found last.
        let of = |chain: &Chain| (chain.run, chain.queue) == (run, queue) && chain.interface == interface;
        let at = self.chains.iter().rposition(of).unwrap_or_else(|| {
            let (interface, stored, taken) = (interface.to_owned(), Vec::new(), Vec::new());
            self.chains.push(Chain { run, interface, queue, stored, taken });
            self.chains.len() - 1
        });
        &mut self.chains[at]
    }

    /// Adds what another file says.
    pub(crate) fn add(&mut self, more: Self) {
        for chain in more.chains {
            let mine = self.chain(chain.run, &chain.interface, chain.queue);
            mine.stored.extend(chain.stored);
            mine.taken.extend(chain.taken);
        }
    }

    /// Leaves only what no segment of `plan` can hold.
    fn without(&mut self, plan: &Plan) {
        for chain in &mut self.chains {
            let mut there = std::mem::take(&mut chain.taken);
            for segment in &plan.segments {
                let named = match &segment.prologue {
                    Prologue::Known(interface) => interface.name == chain.interface,
                    // Only its first frame could tell.
                    Prologue::FirstFrame => true,
                };
                if named && (segment.name.run, segment.name.queue) == (chain.run, chain.queue) {
                    there.push(in_seconds(segment.span));
                }
            }
            for segment in &plan.packed.excluded {
                let of_chain = (segment.name.run, segment.name.queue) == (chain.run, chain.queue);
                if of_chain && segment.name.is_of(&chain.interface) {
                    there.push(in_seconds(segment.span));
                }
            }
            chain.stored = subtract(&union(std::mem::take(&mut chain.stored)), &there);
        }
        self.chains.retain(|chain| !chain.stored.is_empty());
    }

    /// From the begin of the first stretch to the end of the last.
    fn extent(&self) -> Option<TimeRange> {
        let spans = || self.chains.iter().flat_map(|chain| &chain.stored);
        let (from, to) = (spans().map(|span| span.from).min()?, spans().map(|span| span.to).max()?);
        Some(TimeRange { from: from.saturating_sub(SLACK_NANOS), to: Some(to.saturating_add(SLACK_NANOS)) })
    }

    /// Adds to `witness` what of `range` is gone, once `plan` holds what is there.
    ///
    /// # Errors
    /// A folder cannot be listed.
    pub(crate) fn judge(
        mut self,
        witness: &mut Witness,
        stores: &[PathBuf],
        plan: &Plan,
        range: TimeRange,
    ) -> Result<(), CatalogError> {
        self.without(plan);
        let Some(extent) = self.extent() else { return Ok(()) };
        // The plan is older than the rows, and has nothing of a second beyond the range.
        let runs: Vec<u32> = self.chains.iter().map(|chain| chain.run).collect();
        let all = Filter::of(Expr::All);
        self.without(&gather_some(stores, &all, extent, &|found| runs.contains(&found.name.run))?);
        let begin = plan.life.map_or(Timestamp::ZERO, |life| life.from);
        let gone = union(self.chains.into_iter().flat_map(|chain| chain.stored).collect());
        let gone: Vec<Span> = gone.into_iter().filter_map(|span| span.within(&range)).collect();
        let retained = TimeRange { from: begin, to: None };
        if gone.iter().any(|span| span.from < begin) {
            witness.watched = witness.watched.iter().filter_map(|span| span.within(&retained)).collect();
        }
        let gone = gone.into_iter().filter_map(|span| span.within(&retained));
        witness.gaps.extend(gone.map(|span| Gap { span, cause: Cause::Vanished, packets: None }));
        witness.gaps.sort_by_key(|gap| gap.span);
        Ok(())
    }
}
