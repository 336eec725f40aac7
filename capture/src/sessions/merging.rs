//! The thread that joins the halves of sessions: one for each interface with several queues.
//!
//! The trackers of the queues send their records, and with them how far each has come; the merger's time is
//! that of the last of them. What it joins goes to the table, and to statistics: packets were counted where
//! they came, sessions are counted here, once.

use crate::records::RecordSink;
use crate::statistics::Reporter;
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TrySendError, bounded};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use tapedeck_packet::Timestamp;
use tapedeck_session::stats::{self, Collector};
use tapedeck_session::{Config, Merger, Record, RecordKind};

/// Lists of records that may wait.
const QUEUE_LISTS: usize = 1_024;
/// Time between two looks at what has waited long enough.
const LOOK: Duration = Duration::from_millis(250);

/// Records of one queue, all of its records up to `now`.
#[derive(Debug)]
struct Part {
    queue: usize,
    now: Timestamp,
    records: Vec<Record>,
}

/// A tracker's way to the merger.
#[derive(Debug)]
pub struct MergeSink {
    queue: usize,
    to: Sender<Part>,
    /// Counts what finds no room.
    sink: RecordSink,
}

impl MergeSink {
    /// Hands records over, and that there are no others before `now`; never waits. What finds no room is
    /// counted as lost.
    pub fn send(&self, records: Vec<Record>, now: Timestamp) {
        let part = Part { queue: self.queue, now, records };
        if let Err(TrySendError::Full(part) | TrySendError::Disconnected(part)) = self.to.try_send(part) {
            self.sink.lost(&part.records);
        }
    }

    /// As [`MergeSink::send`], but waits for room.
    pub fn send_waiting(&self, records: Vec<Record>, now: Timestamp) {
        if let Err(part) = self.to.send(Part { queue: self.queue, now, records }) {
            self.sink.lost(&part.into_inner().records);
        }
    }
}

/// The thread.
#[derive(Debug)]
pub struct MergeThread {
    thread: JoinHandle<()>,
    /// Sessions joined that have ended. Written by the thread, on its own: Relaxed.
    split: Arc<AtomicU64>,
}

impl MergeThread {
    /// Starts the merger of an interface with `queues` queues; it ends when all sinks are gone. `config` is that
    /// of the tables, with a chain number of its own.
    ///
    /// # Errors
    /// The system has no thread left.
    pub fn start(
        config: Config,
        queues: u32,
        sink: RecordSink,
        reporter: Reporter,
    ) -> io::Result<(Self, Vec<MergeSink>)> {
        let (to, from) = bounded(QUEUE_LISTS);
        let sinks: Vec<MergeSink> = (0..queues)
            .zip(0..)
            .map(|(_, queue)| MergeSink { queue, to: to.clone(), sink: sink.clone() })
            .collect();
        let seed = config.hash_seed;
        let split = Arc::new(AtomicU64::new(0));
        let work = Work {
            from,
            times: vec![Timestamp::ZERO; sinks.len()],
            merger: Merger::new(config),
            joined: Joined {
                collector: Collector::new(stats::Config { sessions: 0, fill_minutes: 0, seed }),
                records: Vec::new(),
                split: Arc::clone(&split),
            },
            sink,
            reporter,
        };
        let thread = std::thread::Builder::new().name("merger".to_owned()).spawn(move || work.run())?;
        Ok((Self { thread, split }, sinks))
    }

    /// Sessions joined so far that have ended.
    #[must_use]
    pub fn split(&self) -> u64 {
        self.split.load(Ordering::Relaxed)
    }

    /// Waits until all is joined. All sinks have to be gone.
    pub fn finish(self) -> u64 {
        if self.thread.join().is_err() {
            tracing::error!("the thread that joins sessions has panicked; records of halves are missing");
        }
        self.split.load(Ordering::Relaxed)
    }
}

/// Records on their way to the table, and the sessions they tell of in statistics.
struct Joined {
    collector: Collector,
    records: Vec<Record>,
    split: Arc<AtomicU64>,
}

impl Joined {
    fn push(&mut self, record: Record) {
        self.collector.record(&record);
        if record.split && record.kind == RecordKind::Final {
            self.split.fetch_add(1, Ordering::Relaxed);
        }
        self.records.push(record);
    }
}

struct Work {
    from: Receiver<Part>,
    /// How far each queue is.
    times: Vec<Timestamp>,
    merger: Merger,
    joined: Joined,
    sink: RecordSink,
    reporter: Reporter,
}

impl Work {
    fn run(mut self) {
        let mut next_look = Instant::now() + LOOK;
        loop {
            match self.from.recv_timeout(next_look.saturating_duration_since(Instant::now())) {
                Ok(part) => self.take(part),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if Instant::now() >= next_look {
                next_look = Instant::now() + LOOK;
                self.look();
            }
        }
        let Self { merger, joined, .. } = &mut self;
        merger.finish(&mut |record| joined.push(record));
        let now = self.now();
        self.sink.send_waiting(std::mem::take(&mut self.joined.records), now);
        self.joined.collector.finish(&mut ());
        self.reporter.report_all(self.joined.collector.take_closed());
    }

    fn now(&self) -> Timestamp {
        self.times.iter().min().copied().unwrap_or(Timestamp::ZERO)
    }

    fn take(&mut self, part: Part) {
        if let Some(time) = self.times.get_mut(part.queue) {
            *time = part.now;
        }
        let Self { merger, joined, .. } = self;
        for record in part.records {
            merger.push(record, &mut |record| joined.push(record));
        }
    }

    /// Joins what has waited long enough, and hands on what there is.
    fn look(&mut self) {
        let now = self.now();
        let Self { merger, joined, .. } = self;
        merger.expire(now, &mut |record| joined.push(record));
        if let Err(mut records) = self.sink.try_send(std::mem::take(&mut self.joined.records), now) {
            // A state that is not withdrawn would stand for ever: that waits. All else is counted.
            let kept = records.extract_if(.., |record| record.kind == RecordKind::Withdrawn);
            self.joined.records.extend(kept);
            self.sink.lost(&records);
        }
        // A queue that has not said anything yet.
        if now > Timestamp::ZERO {
            self.joined.collector.tick(now, &mut ());
            self.reporter.report(self.joined.collector.take_closed());
        }
    }
}
