//! What the operator's signals mean: the first ends the recording in order, the second at once. SIGHUP is one
//! of them, unless there is a configuration file to read again.
//!
//! While a recording starts, a second one is the system's default: there is nothing to seal yet. It must
//! never make a signal mean nothing.

use signal_hook::SigId;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag::{register, register_conditional_default};
use signal_hook::low_level::unregister;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

const SIGNALS: [i32; 3] = [SIGINT, SIGTERM, SIGHUP];

/// Those that end a recording.
fn ending(reloads: bool) -> impl Iterator<Item = i32> {
    SIGNALS.into_iter().filter(move |signal| !(reloads && *signal == SIGHUP))
}

/// The signals since the start.
#[derive(Debug)]
pub(super) struct Signals {
    first: Arc<AtomicBool>,
    second: Arc<AtomicBool>,
    noticed: bool,
    /// SIGHUP came; `None` = it ends the recording.
    reload: Option<Arc<AtomicBool>>,
    /// Handlers that kill on the second signal, for the time of the start.
    starting: Vec<SigId>,
}

impl Signals {
    /// Catches them from here on. `reloads`: there is a file that SIGHUP reads again.
    ///
    /// # Errors
    /// The system's answer.
    pub(super) fn catch(reloads: bool) -> io::Result<Self> {
        let (first, second) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
        let mut starting = Vec::new();
        for signal in ending(reloads) {
            starting.push(register_conditional_default(signal, Arc::clone(&first))?);
            register(signal, Arc::clone(&first))?;
        }
        let reload = reloads.then(Arc::<AtomicBool>::default);
        if let Some(flag) = &reload {
            register(SIGHUP, Arc::clone(flag))?;
        }
        Ok(Self { first, second, noticed: false, reload, starting })
    }

    /// The recording runs: from here on a second signal is a word to us.
    pub(super) fn started(&mut self) {
        for id in self.starting.drain(..) {
            unregister(id);
        }
    }

    /// Whether the first has come since this was asked last. A third one kills.
    pub(super) fn first(&mut self) -> bool {
        if self.noticed || !self.first.load(Ordering::Relaxed) {
            return false;
        }
        self.noticed = true;
        for signal in ending(self.reload.is_some()) {
            let kills = register_conditional_default(signal, Arc::clone(&self.second));
            if let Err(error) = kills.and_then(|_| register(signal, Arc::clone(&self.second))) {
                tracing::warn!(%error, "a second signal will not be noticed");
            }
        }
        true
    }

    /// Whether the file is to be read again, since this was asked last.
    pub(super) fn reload(&mut self) -> bool {
        self.reload.as_ref().is_some_and(|flag| flag.swap(false, Ordering::Relaxed))
    }

    /// Whether another one has come after the first was noticed.
    pub(super) fn second(&self) -> bool {
        self.second.load(Ordering::Relaxed)
    }
}
