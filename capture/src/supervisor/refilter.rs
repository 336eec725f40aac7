//! Another filter while a recording runs: SIGHUP reads the configuration file again, and with it whether jumps of
//! the clock are believed.
//!
//! Made ready on every interface first; only when all have it are they switched, one after the other, and no
//! packet is missed meanwhile. It must never leave the filter half changed for a file that cannot be read.

use super::ending::Stage;
use super::{Active, Session};
use crate::config::Again;
use crate::filtering::InForce;
use std::sync::Arc;
use tapedeck_ebpf::{Filter, ProgramError};

/// Says what is recorded.
pub(super) fn say_filter(filter: &InForce) {
    if let Some(only) = filter.text() {
        tracing::info!(
            "filter: only packets that match are recorded, the others count as `filtered`: {only}"
        );
    }
}

impl Session<'_> {
    /// Reads the configuration again when it is asked to.
    pub(super) fn heed_reload(&mut self) {
        if !self.signals.reload() || self.stopping {
            return;
        }
        let Some(reload) = &self.plan.reload else { return };
        let path = reload.path().display();
        let Again { filter, accept_clock, others } = match reload.again() {
            Ok(read) => read,
            Err(error) => {
                let why = crate::voice::chain(&error);
                tracing::error!("the filter stays as it is: {why}. Mend the file, then send SIGHUP again");
                return;
            }
        };
        if !others.is_empty() {
            let keys = others.join(", ");
            tracing::warn!(
                "{path}: changes of {keys} take effect at the next start only; the filter and accept-clock alone can change while \
                 recording"
            );
        }
        if self.run.clock.accept_jumps(accept_clock) != accept_clock {
            let not = if accept_clock { "" } else { "not " };
            tracing::info!(
                "{path} was read again: jumps of the system clock by more than a day are {not}believed now"
            );
        }
        if filter == *self.run.filter.filter() {
            tracing::info!("{path} was read again: the filter is the same");
            return;
        }
        let next = Arc::new(InForce::new(filter));
        if let Err(error) = change(&self.active, &next) {
            let why = crate::voice::chain(&error);
            tracing::error!("the filter could not be changed on every interface: {why}");
            return;
        }
        tracing::info!("{path} was read again: the filter has changed");
        if next.text().is_none() {
            tracing::info!("filter: every packet is recorded");
        }
        say_filter(&next);
        self.run.filter = next;
    }
}

/// Changes the filter of all interfaces that are being recorded.
fn change(active: &[Active], next: &Arc<InForce>) -> Result<(), ProgramError> {
    let running = || active.iter().filter(|one| matches!(one.stage, Stage::Running));
    let ready: Vec<u32> = running().map(|one| one.prepare(next.filter())).collect::<Result<_, _>>()?;
    for (one, generation) in running().zip(ready) {
        for queue in &one.books.queues {
            queue.shared.next_filter.announce(generation, next);
        }
        if let Some(program) = one.intake.program() {
            program.switch_filter(generation)?;
        }
        for queue in &one.books.queues {
            queue.shared.next_filter.settle(generation);
        }
    }
    Ok(())
}

impl Active {
    /// Makes a filter ready; returns its generation.
    fn prepare(&self, filter: &Filter) -> Result<u32, ProgramError> {
        match self.intake.program() {
            Some(program) => program.prepare_filter(filter),
            None => {
                let last = self.books.queues.first().map_or(0, |queue| queue.shared.next_filter.announced());
                Ok(last.checked_add(1).unwrap_or(1))
            }
        }
    }
}
