//! Work on a list in parallel, results in the order of the list.
//!
//! Item i goes to worker i mod n over its own short channel, so results need no reordering, memory is
//! bounded by the channels, and a consumer that goes away stops the workers.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::Scope;

/// Results a worker may be ahead of the consumer.
const AHEAD: usize = 2;

/// The results, in order; ends after the last or when a worker died.
pub(crate) struct Ordered<R> {
    lanes: Vec<Receiver<R>>,
    next: usize,
}

impl<R> Iterator for Ordered<R> {
    type Item = R;

    fn next(&mut self) -> Option<R> {
        let lane = self.lanes.get(self.next)?;
        let result = lane.recv().ok();
        self.next = (self.next + 1) % self.lanes.len();
        result
    }
}

/// Starts `workers` threads in `scope` that each make a state with `start` and turn items into results
/// with `work`.
pub(crate) fn ordered<'scope, 'env, T, S, R>(
    scope: &'scope Scope<'scope, 'env>,
    workers: usize,
    items: &'env [T],
    start: impl Fn() -> S + Send + Clone + 'scope,
    work: impl Fn(&mut S, &'env T) -> R + Send + Clone + 'scope,
) -> Ordered<R>
where
    T: Sync,
    R: Send + 'scope,
{
    let workers = workers.clamp(1, items.len().max(1));
    let lane = |number: usize| {
        let (sender, receiver): (SyncSender<R>, Receiver<R>) = sync_channel(AHEAD);
        let (start, work) = (start.clone(), work.clone());
        scope.spawn(move || {
            let mut state = start();
            for item in items.iter().skip(number).step_by(workers) {
                if sender.send(work(&mut state, item)).is_err() {
                    return;
                }
            }
        });
        receiver
    };
    Ordered { lanes: (0..workers).map(lane).collect(), next: 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    #[test]
    fn results_come_in_order_and_all() {
        let items: Vec<u64> = (0..1_000).collect();
        for workers in [0, 1, 2, 3, 7, 2_000] {
            let got: Vec<u64> =
                std::thread::scope(|s| ordered(s, workers, &items, || 2, |two, n| *two * n).collect());
            assert!(got.iter().zip(&items).all(|(got, n)| *got == 2 * n), "{workers}");
            assert_eq!(got.len(), items.len());
        }
        let none: Vec<u64> = std::thread::scope(|s| ordered(s, 2, &[], || (), |(), n: &u64| *n).collect());
        assert!(none.is_empty());
    }

    #[test]
    fn a_consumer_that_leaves_stops_the_work() {
        let (items, done) = (vec![(); 1_000], AtomicUsize::new(0));
        std::thread::scope(|s| {
            let mut results = ordered(s, 2, &items, || (), |(), ()| done.fetch_add(1, Ordering::Relaxed));
            results.next();
        });
        assert!(done.load(Ordering::Relaxed) <= 2 * (AHEAD + 3), "{done:?}");
    }
}
