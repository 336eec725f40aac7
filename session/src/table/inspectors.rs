//! The pool of payload inspectors.

use crate::inspect::{Ends, Inspector};
use crate::record::Service;

/// A bounded pool; a session that finds no inspector is not looked into.
#[derive(Debug)]
pub(crate) struct Inspectors<P> {
    all: Vec<P>,
    free: Vec<u32>,
    max: usize,
}

impl<P: Inspector> Inspectors<P> {
    pub(crate) fn new(max: u32) -> Self {
        Self { all: Vec::new(), free: Vec::new(), max: usize::try_from(max).unwrap_or(usize::MAX) }
    }

    /// Number of a fresh inspector.
    pub(crate) fn take(&mut self) -> Option<u32> {
        if let Some(number) = self.free.pop() {
            return Some(number);
        }
        let number = u32::try_from(self.all.len()).ok()?;
        if self.all.len() >= self.max {
            return None;
        }
        self.all.push(P::default());
        Some(number)
    }

    pub(crate) fn get(&mut self, number: u32) -> Option<&mut P> {
        self.all.get_mut(usize::try_from(number).ok()?)
    }

    /// What an inspector found; it goes back to the pool.
    pub(crate) fn finish(&mut self, number: u32, ends: Ends) -> Service {
        let Some(inspector) = self.get(number) else { return Service::default() };
        let service = std::mem::take(inspector).finish(ends);
        self.free.push(number);
        service
    }
}
