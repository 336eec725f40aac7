//! How true the stamps are: each packet's stamp against its sender's clock, on an idle link and in a flood.
//!
//! The sender writes its clock into each packet just before the system call; both ends share that clock, so the
//! difference is the way through the kernel and the error of the stamp together. Every packet that was stored
//! counts, read from the sealed segments in order of arrival. It must never measure with a clock read per burst:
//! equal stamps in a row are counted, and so is each that goes back.

use crate::latency::us;
use crate::link::Link;
use crate::probe::{Probe, Sender};
use crate::recorder::Recorder;
use crate::stored;
use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::path::Path;
use std::time::Duration;

/// How the packets are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Load {
    /// So many a second, with pauses.
    Idle(u32),
    /// One after the other without a pause.
    Flood,
}

/// The stamps of one load.
#[derive(Clone, Debug, Serialize)]
pub struct Stamps {
    /// How packets were sent.
    pub load: Load,
    /// Packets sent.
    pub sent: u64,
    /// Packets a second, as sent.
    pub rate_pps: u64,
    /// Packets stored: all of them count.
    pub stored: u64,
    /// Stamp minus the sender's clock, microseconds: median, 99.9th percentile, largest.
    pub error_us: [f64; 3],
    /// Stamps that stand before the sender's clock.
    pub before_send: u64,
    /// Stamps equal to the one before them in the same queue.
    pub equal: u64,
    /// Their share of all.
    pub equal_share: f64,
    /// Stamps before the one before them in the same queue.
    pub regressions: u64,
    /// The largest such step back, nanoseconds.
    pub regression_max_ns: u64,
}

/// Measures one load on a link, with a recorder and a store of their own; returns the stamps, the recorder's ready
/// line and its ledger.
///
/// # Errors
/// The link cannot be made, sender or recorder fail, or a segment cannot be read.
pub fn measure(
    store: &Path,
    load: Load,
    span: Duration,
    bytes: usize,
    arguments: &[String],
) -> Result<(Stamps, String, serde_json::Value)> {
    let link = Link::make(1, 1500)?;
    let recorder = Recorder::start(&link, store, arguments)?;
    let (ready, namespace) = (recorder.ready.clone(), link.path());
    let sender = std::thread::spawn(move || {
        let sender = Sender::open(&namespace, "tx0")?;
        let began = std::time::Instant::now();
        let sent = match load {
            Load::Idle(rate) => {
                let count = u64::from(rate).saturating_mul(span.as_secs()).max(1);
                sender.send(0, count, rate, bytes, drop).map(|()| count)
            }
            Load::Flood => sender.flood(span, bytes),
        }?;
        Ok::<_, anyhow::Error>((sent, began.elapsed()))
    });
    let (sent, took) = sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    let ledger = recorder.stop()?;
    let mut tally = Tally::new()?;
    tally.store(store)?;
    let rate = u128::from(sent) * 1_000_000_000 / took.as_nanos().max(1);
    let stamps = tally.stamps(load, sent, u64::try_from(rate).unwrap_or(u64::MAX));
    Ok((stamps, ready, ledger))
}

/// What is counted over the packets of a queue.
struct Tally {
    error: Histogram<u64>,
    stored: u64,
    before: u64,
    equal: u64,
    regressions: u64,
    regression_max_ns: u64,
    last_ns: Option<u64>,
}

impl Tally {
    fn new() -> Result<Self> {
        let error = Histogram::new(3).context("histogram")?;
        Ok(Self {
            error,
            stored: 0,
            before: 0,
            equal: 0,
            regressions: 0,
            regression_max_ns: 0,
            last_ns: None,
        })
    }

    /// All packets that are stored, in order of arrival.
    fn store(&mut self, store: &Path) -> Result<()> {
        stored::packets(store, &mut |_, packet| {
            let Some(probe) = Probe::decode(packet.bytes) else { return Ok(()) };
            self.note(packet.ts.nanos(), probe.sent_ns)
        })
    }

    fn note(&mut self, stamp_ns: u64, sent_ns: u64) -> Result<()> {
        self.stored += 1;
        self.before += u64::from(stamp_ns < sent_ns);
        self.error.record(stamp_ns.abs_diff(sent_ns)).context("histogram")?;
        let last = self.last_ns.replace(stamp_ns).unwrap_or(0);
        self.equal += u64::from(stamp_ns == last);
        if stamp_ns < last {
            self.regressions += 1;
            self.regression_max_ns = self.regression_max_ns.max(last - stamp_ns);
        }
        Ok(())
    }

    fn stamps(&self, load: Load, sent: u64, rate_pps: u64) -> Stamps {
        let at = |quantile| us(self.error.value_at_quantile(quantile));
        #[expect(clippy::cast_precision_loss, reason = "a share that is read, of counts far below 2^52")]
        let equal_share = self.equal as f64 / self.stored.max(1) as f64;
        Stamps {
            load,
            sent,
            rate_pps,
            stored: self.stored,
            error_us: [at(0.5), at(0.999), us(self.error.max())],
            before_send: self.before,
            equal: self.equal,
            equal_share,
            regressions: self.regressions,
            regression_max_ns: self.regression_max_ns,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_equal_stamps_and_steps_back_are_counted() {
        let mut tally = Tally::new().unwrap();
        for (stamp, sent) in [(5_000, 4_000), (5_000, 4_500), (6_000, 5_000), (5_400, 5_401), (7_000, 6_000)]
        {
            tally.note(stamp, sent).unwrap();
        }
        let stamps = tally.stamps(Load::Flood, 6, 100);
        assert_eq!((stamps.stored, stamps.equal, stamps.before_send), (5, 1, 1));
        assert_eq!((stamps.regressions, stamps.regression_max_ns), (1, 600));
        assert!((stamps.equal_share - 0.2).abs() < 1e-9, "{stamps:?}");
        assert!((stamps.error_us[0] - 1.0).abs() < 0.11, "{stamps:?}");
    }
}
