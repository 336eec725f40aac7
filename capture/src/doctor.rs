//! `tapedeck doctor`: what would cost packets or fidelity, before it does, each with the command that mends
//! it; and the same checks as warnings at the start of a recording.
//!
//! In two halves that meet in [`facts::Facts`]: [`gather`] asks the kernel, and the checks judge plain
//! values. Looking changes nothing: no queue is bound, no program attached, no setting touched. It must
//! never keep a recording from starting.
//!
//! Errors and warnings are findings and make exit code 1; each has a command. Notes do not: nothing has to
//! be done about them.

mod card;
mod cores;
mod disk;
mod facts;
mod finding;
mod gather;
mod host;
mod link;
mod rungs;
mod stores;
mod text;
mod texts;

pub use text::Page;

use crate::cli::DoctorArgs;
use crate::ladder::Mode;
use crate::plan::{self, PlanError, RecordPlan};
use crate::preflight::Target;
use crate::voice::Failure;
use crate::xsk::Pages;
use facts::Facts;
use finding::{Finding, Severity};
use gather::Wish;
use serde::Serialize;
use std::path::PathBuf;

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report<'a> {
    /// Version of this JSON.
    version: u32,
    /// Interface name.
    interface: &'a str,
    /// What was found, the worst first.
    findings: &'a [Finding],
    /// What was looked at.
    facts: &'a Facts,
}

/// `tapedeck doctor`: what goes to stdout, and the exit code.
///
/// # Errors
/// There is no such interface, it is of a kind that is never recorded, or an option makes no sense.
pub fn command(args: &DoctorArgs, page: Page) -> Result<(String, u8), Failure> {
    let stores = if args.store.is_empty() { Vec::new() } else { plan::expand(&args.store).map_err(fault)? };
    let asked = args.cpus.as_ref().map(|list| list.0.as_slice());
    let cpus = plan::choose_cpus(asked).map_err(fault)?;
    let target = Target::look(&args.interface).map_err(|error| {
        let failure = Failure::of(&error);
        error.hint().map_or(failure.clone(), |hint| failure.hint(hint))
    })?;
    let segment_bytes = plan::SEGMENT_BYTES;
    let pin_dir = Some(plan::pin_dir(args.pin_dir.as_ref()));
    let wish = Wish { cpus: &cpus, chosen: asked.is_some(), segment_bytes, pin_dir, ..Wish::default() };
    let mut facts = gather::before(&target, &wish);
    facts.stores = stores.iter().map(|store| disk::look(store, true)).collect();
    let findings = examine(&facts);
    let code = u8::from(findings.iter().any(is_finding));
    let text = if args.json { json(&facts, &findings)? } else { text::report(&facts, &findings, page) };
    Ok((text, code))
}

fn fault(error: PlanError) -> Failure {
    let failure = Failure::of(&error);
    error.hint().map_or(failure.clone(), |hint| failure.hint(hint))
}

fn json(facts: &Facts, findings: &[Finding]) -> Result<String, Failure> {
    let report = Report { version: 1, interface: &facts.interface, findings, facts };
    serde_json::to_string(&report).map_err(|error| Failure::of(&error))
}

/// Whether something has to be done.
fn is_finding(found: &Finding) -> bool {
    found.severity != Severity::Note
}

/// All checks; the worst first.
fn examine(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    link::check(facts, &mut found);
    link::offloads(&facts.interface, &facts.offloads, &facts.ladder, &mut found);
    link::tags_beside(&facts.link, &facts.ladder, &mut found);
    found.extend(rungs::check(&facts.interface, &facts.ladder, facts.card.queue_word));
    card::check(facts, &mut found);
    cores::check(facts, &mut found);
    host::check(facts, &mut found);
    stores::check(facts, &mut found);
    found.sort_by_key(|finding| finding.severity);
    found
}

/// The checks of a recording that starts.
#[derive(Debug)]
pub(crate) struct Checkup(Facts);

impl Checkup {
    /// Looks at an interface that has been taken, before its sockets take memory.
    pub(crate) fn begin(target: &Target, plan: &RecordPlan, stores: &[PathBuf]) -> Self {
        let (sessions, segment_bytes) = (plan.sessions.clone(), plan.segment_bytes);
        let cpus = &plan.cpus;
        let wish = Wish { cpus, chosen: plan.cpus_named, segment_bytes, sessions, pin_dir: None };
        let mut facts = gather::at_start(target, &wish);
        facts.stores = stores.iter().map(|store| disk::look(store, false)).collect();
        Self(facts)
    }

    /// Says what a recording in `mode` suffers from, a line each.
    pub(crate) fn end(mut self, target: &Target, mode: Mode, pages: Option<Pages>) {
        gather::taken(&mut self.0, target, mode);
        match pages {
            // Free ones that could not be had all the same.
            Some(Pages::Small) => self.0.memory.huge_pages_free = Some(0),
            _ => self.0.memory.huge_pages_free = None,
        }
        for Finding { id, what, why, mend, .. } in examine(&self.0).into_iter().filter(is_finding) {
            let (interface, mend) = (&self.0.interface, mend.unwrap_or_default());
            tracing::warn!(interface, id, "{what}: {why}; to mend it: {mend}");
        }
    }
}

#[cfg(test)]
mod tests;
