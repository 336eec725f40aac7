//! The pool of payload probes.

use crate::probe::Probe;
use crate::record::Service;

/// A bounded pool; a session that finds no probe is not looked into.
#[derive(Debug)]
pub(crate) struct Probes<P> {
    probes: Vec<P>,
    free: Vec<u32>,
    max: usize,
}

impl<P: Probe> Probes<P> {
    pub(crate) fn new(max: u32) -> Self {
        let max = usize::try_from(max).unwrap_or(usize::MAX);
        Self { probes: Vec::new(), free: Vec::new(), max }
    }

    /// Number of a fresh probe.
    pub(crate) fn take(&mut self) -> Option<u32> {
        if let Some(number) = self.free.pop() {
            return Some(number);
        }
        let number = u32::try_from(self.probes.len()).ok()?;
        if self.probes.len() >= self.max {
            return None;
        }
        self.probes.push(P::default());
        Some(number)
    }

    pub(crate) fn get(&mut self, number: u32) -> Option<&mut P> {
        self.probes.get_mut(usize::try_from(number).ok()?)
    }

    /// What a probe found; it goes back to the pool.
    pub(crate) fn finish(&mut self, number: u32) -> Service {
        let Some(probe) = self.get(number) else { return Service::default() };
        let service = std::mem::take(probe).finish();
        self.free.push(number);
        service
    }
}
