//! What results of `line` vouch for: a rate at and below which no trial lost or cut anything, and what a packet cost
//! there. A result with a problem is no evidence; it must never be planned with.

use super::fit::{Point, Range};
use crate::result::{Document, Machine, Outcome, Trial, asks_to_cut, cut_packets};
use crate::tools::Kind;
use anyhow::{Context as _, Result, bail};
use std::collections::{BTreeMap, BTreeSet};

/// Costs are those of trials at no less than this share of the rate that is vouched for: a recorder with time to
/// spare compresses more, and takes packets in smaller batches.
const NEAR: f64 = 0.8;

/// A result file, read.
#[derive(Clone, Debug)]
pub(super) struct Evidence {
    /// The file.
    pub(super) name: String,
    /// What it holds.
    pub(super) document: Document,
    /// No trial at this rate or below lost or cut anything, packets a second.
    pub(super) rate_pps: f64,
    /// The slowest trial that did: its rate, and the losses it owns up to by cause; `cut` for payload cut off.
    pub(super) loss: Option<(f64, BTreeMap<String, u64>)>,
    /// The search's own outcome.
    pub(super) outcome: Outcome,
    /// The generator made no more than what nothing was lost of.
    pub(super) generator_bound: bool,
    /// CPU time by thread name, ns a packet, and how many threads there were.
    pub(super) threads: BTreeMap<String, (Range, usize)>,
    /// Bytes of files a packet.
    pub(super) stored: Range,
    /// Bytes written a packet: files, and journals that are gone.
    pub(super) written: Range,
    /// Trials that these come from.
    pub(super) trials: usize,
    /// Share of its CPUs, or of one by its busiest thread, that was used at the rate that is vouched for.
    pub(super) busy: f64,
    /// Share of its CPUs that neither was idle nor went to its threads then: other processes, and the kernel.
    pub(super) others: f64,
    /// Modes of the queues.
    pub(super) modes: BTreeSet<String>,
}

impl Evidence {
    /// Reads what a result says.
    ///
    /// # Errors
    /// A trial has a problem; the run is not over, or not of our recorder; nothing was without loss.
    pub(super) fn of(name: &str, document: Document) -> Result<Self> {
        let ours = |tool: &str| tool == Kind::Tapedeck.name();
        for (number, trial) in document.trials.iter().enumerate().filter(|(_, trial)| ours(&trial.tool)) {
            if !trial.problems.is_empty() {
                bail!(
                    "{name}: the books of trial {number} do not add up: {}\n\nhint: measure again; nothing is planned \
                     with such a result",
                    trial.problems.join("; ")
                );
            }
        }
        let unfinished = || {
            format!(
                "{name}: no search of tapedeck that is over\n\nhint: tapebench line --resume {name} goes on"
            )
        };
        let outcome = document.outcomes.iter().find(|outcome| ours(&outcome.tool)).cloned();
        let outcome = outcome.filter(|outcome| !outcome.zero_loss_pps.is_empty()).with_context(unfinished)?;
        let asked_to_cut = asks_to_cut(&document.setup.record);
        let trials: Vec<&Trial> = document.trials.iter().filter(|trial| ours(&trial.tool)).collect();
        let loses = |trial: &&&Trial| !losses(trial, asked_to_cut).is_empty();
        let slowest = trials.iter().filter(loses).min_by(|a, b| a.pps.total_cmp(&b.pps));
        let below = slowest.map_or(f64::INFINITY, |trial| trial.pps);
        let clean: Vec<&Trial> =
            trials.iter().copied().filter(|trial| trial.pps < below && trial.on_disk > 0).collect();
        let Some(best) = clean.iter().max_by(|a, b| a.pps.total_cmp(&b.pps)) else {
            bail!(
                "{name}: packets were lost or cut at every rate, from {below:.0} packets/s on\n\nhint: see what was lost \
                 by cause in its ledgers; a longer search may find a rate without loss"
            );
        };
        let near: Vec<&Trial> = clean.iter().copied().filter(|trial| trial.pps >= NEAR * best.pps).collect();
        let each =
            |of: &dyn Fn(&Trial) -> f64| Range::of(&near.iter().map(|trial| of(trial)).collect::<Vec<_>>());
        let per_packet = |bytes: u64, trial: &Trial| crate::machine::ratio(bytes, trial.on_disk);
        Ok(Self {
            name: name.to_owned(),
            rate_pps: best.pps,
            loss: slowest.map(|trial| (trial.pps, losses(trial, asked_to_cut))),
            generator_bound: outcome.generator_bound
                && best.pps >= outcome.generator_pps * (1.0 - document.setup.resolution),
            threads: threads(&near),
            stored: each(&|trial| per_packet(trial.file_bytes, trial)),
            written: each(&|trial| per_packet(trial.disk_bytes.max(trial.file_bytes), trial)),
            trials: near.len(),
            busy: busy(best, document.setup.tool_cpus.len()),
            others: others(best, &document.setup.tool_cpus),
            modes: modes(best),
            outcome,
            document,
        })
    }

    /// Mean bytes of a packet.
    #[must_use]
    pub(super) const fn bytes(&self) -> f64 {
        self.document.setup.traffic.mean_bytes
    }

    /// CPU time of all threads, ns a packet.
    #[must_use]
    pub(super) fn all_ns(&self) -> Range {
        self.threads.values().fold(Range::default(), |sum, (range, _)| sum.plus(*range))
    }

    /// A cost at this result's size.
    #[must_use]
    pub(super) const fn point(&self, cost: Range) -> Point {
        Point { bytes: self.bytes(), cost }
    }
}

/// What a trial did not store as it was, by cause.
fn losses(trial: &Trial, asked_to_cut: bool) -> BTreeMap<String, u64> {
    let mut all: BTreeMap<String, u64> =
        trial.own.causes.iter().filter(|(_, count)| **count > 0).map(|(k, v)| (k.clone(), *v)).collect();
    if trial.missing > 0 {
        all.insert("missing".to_owned(), trial.missing);
    }
    if let Some(lost) = trial.own.lost.filter(|lost| *lost > 0 && all.is_empty()) {
        all.insert("lost".to_owned(), lost);
    }
    let cut = cut_packets(trial.ledger.as_ref());
    if cut > 0 && !asked_to_cut {
        all.insert("cut".to_owned(), cut);
    }
    all
}

fn threads(trials: &[&Trial]) -> BTreeMap<String, (Range, usize)> {
    let names: BTreeSet<&str> =
        trials.iter().flat_map(|trial| &trial.threads).map(|thread| thread.name.as_str()).collect();
    let of = |name: &str| {
        let all = || trials.iter().flat_map(|trial| &trial.threads).filter(|thread| thread.name == name);
        // A thread that a trial did not see did nothing there.
        let mut costs: Vec<f64> = all().map(|thread| thread.ns_per_packet).collect();
        costs.resize(trials.len().max(costs.len()), 0.0);
        (name.to_owned(), (Range::of(&costs), all().map(|thread| thread.threads).max().unwrap_or(1)))
    };
    names.into_iter().map(of).collect()
}

#[expect(clippy::cast_precision_loss, reason = "numbers of threads and CPUs")]
fn busy(trial: &Trial, cpus: usize) -> f64 {
    let all: f64 = trial.threads.iter().map(|thread| thread.busy).sum();
    let each = trial.threads.iter().map(|thread| thread.busy / thread.threads.max(1) as f64);
    each.fold(all / cpus.max(1) as f64, f64::max)
}

#[expect(clippy::cast_precision_loss, reason = "numbers of CPUs")]
fn others(trial: &Trial, cpus: &[usize]) -> f64 {
    let count = cpus.len().max(1) as f64;
    let idle: Vec<f64> = cpus.iter().filter_map(|cpu| trial.idle.get(cpu)).copied().collect();
    let own: f64 = trial.threads.iter().map(|thread| thread.busy).sum();
    if idle.is_empty() { 0.0 } else { (1.0 - (idle.iter().sum::<f64>() + own) / count).max(0.0) }
}

fn modes(trial: &Trial) -> BTreeSet<String> {
    let queues = trial.ledger.as_ref().and_then(|ledger| ledger.get("queues")?.as_array());
    let mode = |queue: &serde_json::Value| Some(queue.get("mode")?.as_str()?.to_owned());
    queues.into_iter().flatten().filter_map(mode).collect()
}

/// Results that may be planned with together.
///
/// # Errors
/// None; of different machines, recorders, or arguments of the recorder.
pub(super) fn same(all: &[Evidence]) -> Result<()> {
    let Some((first, rest)) = all.split_first() else { bail!("no result") };
    let machine = |machine: &Machine| (machine.kernel.clone(), machine.cpu_model.clone(), machine.cpus);
    let recorder = |document: &Document| {
        let tools = document.setup.tools.iter();
        tools.filter(|tool| tool.name == Kind::Tapedeck.name()).map(|t| t.version.clone()).collect::<Vec<_>>()
    };
    for other in rest {
        let (a, b) = (&first.document, &other.document);
        let what = if machine(&a.machine) != machine(&b.machine) {
            "machines"
        } else if recorder(a) != recorder(b) {
            "versions of tapedeck"
        } else if a.setup.record != b.setup.record {
            "arguments of tapedeck record"
        } else {
            continue;
        };
        bail!(
            "{} and {} are of different {what}\n\nhint: one plan is made of one machine's results; make one for each",
            first.name,
            other.name
        );
    }
    Ok(())
}
