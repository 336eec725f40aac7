//! How late: the error of a packet's stamp against its sender's clock, and the time from the wire
//! until `taperead` gives the packet back, while recording runs.
//!
//! Both ends share one clock, so the stamp error is real; it includes the way through the kernel.
//! Questions are asked in a loop, each in a process of its own, as an analyst's would be. A probe's
//! time to retrieval ends when the answer that first holds it is complete.

use crate::link::Link;
use crate::probe::{PORT, Probe, Sender, now_ns};
use crate::recorder::{Recorder, ask};
use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;
use serde::Serialize;
use std::path::Path;
use std::time::{Duration, Instant};

/// Probes looked at per rate.
pub const PROBES: u64 = 200;
/// A packet that is not retrievable after this long counts as never.
const PATIENCE: Duration = Duration::from_secs(10);

/// Quantiles of a set of times, microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Quantiles {
    /// Median.
    pub p50_us: f64,
    /// 99th percentile.
    pub p99_us: f64,
    /// Largest.
    pub max_us: f64,
}

/// The result at one packet rate.
#[derive(Clone, Debug, Serialize)]
pub struct AtRate {
    /// Packets per second sent.
    pub rate_pps: u32,
    /// Packets sent at this rate.
    pub sent: u64,
    /// Probes measured (the last [`PROBES`] sent).
    pub probes: u64,
    /// Stamp minus the sender's clock.
    pub stamp_error: Quantiles,
    /// From the sender's clock to the complete answer.
    pub wire_to_retrieved: Quantiles,
    /// Stamps that stand before the sender's clock.
    pub stamps_before_send: u64,
}

/// Measures one rate on a running recorder.
///
/// # Errors
/// A probe does not come back, or sender or reader fail.
pub fn at_rate(link: &Link, store: &Path, rate_pps: u32, first: u64) -> Result<AtRate> {
    // At high rates, run for two seconds before the probes that count.
    let sent = PROBES.max(u64::from(rate_pps) * 2);
    let begin = now_ns()?;
    let (namespace, interface) = (link.path(), link.tx().to_owned());
    let sender = std::thread::spawn(move || {
        Sender::open(&namespace, &interface)?.send(first, sent, rate_pps, 200, drop)
    });
    let wanted = first + sent - PROBES..first + sent;
    let mut seen = Seen::new(begin)?;
    let mut deadline = None;
    while seen.found < PROBES {
        let answer = ask(store, &format!("udp dst port {PORT}"), seen.from_ns)?;
        if !answer.whole {
            bail!("an answer is not whole: packets were lost at {rate_pps} packets a second");
        }
        seen.answer(&answer.pcap, &wanted, now_ns()?)?;
        if sender.is_finished() {
            let deadline = deadline.get_or_insert(Instant::now() + PATIENCE);
            if Instant::now() > *deadline {
                bail!(
                    "{} of {PROBES} probes cannot be retrieved {PATIENCE:?} after the last was sent",
                    PROBES - seen.found
                );
            }
        }
        // Fresh enough for a one-second promise, and leaves the cores to the recorder.
        std::thread::sleep(Duration::from_millis(10));
    }
    sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    Ok(AtRate {
        rate_pps,
        sent,
        probes: PROBES,
        stamp_error: quantiles(&seen.stamp_error),
        wire_to_retrieved: quantiles(&seen.retrieved),
        stamps_before_send: seen.before,
    })
}

/// What answers have shown so far.
#[derive(Debug)]
pub struct Seen {
    from_ns: u64,
    next: u64,
    found: u64,
    before: u64,
    stamp_error: Histogram<u64>,
    retrieved: Histogram<u64>,
    times: Vec<(u64, u64)>,
}

impl Seen {
    /// Nothing yet; questions begin at this time.
    ///
    /// # Errors
    /// No histogram can be made.
    pub fn new(from_ns: u64) -> Result<Self> {
        let histogram = || Histogram::new(3).context("histogram");
        Ok(Self {
            from_ns,
            next: 0,
            found: 0,
            before: 0,
            stamp_error: histogram()?,
            retrieved: histogram()?,
            times: Vec::new(),
        })
    }

    /// Probes found.
    #[must_use]
    pub const fn found(&self) -> u64 {
        self.found
    }

    /// Where the next question begins.
    #[must_use]
    pub const fn from_ns(&self) -> u64 {
        self.from_ns
    }

    /// From the sender's clock to the complete answer, ns.
    #[must_use]
    pub const fn retrieved(&self) -> &Histogram<u64> {
        &self.retrieved
    }

    /// (sent, in an answer) of each probe, ns since the epoch.
    #[must_use]
    pub fn times(&self) -> &[(u64, u64)] {
        &self.times
    }

    /// Notes the probes that this answer is the first to hold. Probes come back in order of number,
    /// because they come back in order of time.
    ///
    /// # Errors
    /// The answer is no capture.
    pub fn answer(&mut self, pcap: &[u8], wanted: &std::ops::Range<u64>, now: u64) -> Result<()> {
        for (stamp_ns, frame) in packets(pcap)? {
            let Some(probe) = Probe::decode(frame) else { continue };
            self.from_ns = self.from_ns.max(stamp_ns);
            if probe.number < self.next {
                continue;
            }
            self.next = probe.number + 1;
            if wanted.contains(&probe.number) {
                self.found += 1;
                self.times.push((probe.sent_ns, now));
                self.before += u64::from(stamp_ns < probe.sent_ns);
                self.stamp_error.record(stamp_ns.abs_diff(probe.sent_ns)).context("histogram")?;
                self.retrieved.record(now.saturating_sub(probe.sent_ns)).context("histogram")?;
            }
        }
        Ok(())
    }
}

/// The packets of a classic little-endian nanosecond pcap: (stamp, bytes).
fn packets(pcap: &[u8]) -> Result<Vec<(u64, &[u8])>> {
    let mut rest = match pcap {
        [] => return Ok(Vec::new()),
        [0x4d, 0x3c, 0xb2, 0xa1, ..] => pcap.get(24..).context("pcap header is cut")?,
        _ => bail!("taperead did not answer with a nanosecond pcap"),
    };
    let mut found = Vec::new();
    while !rest.is_empty() {
        let word = |at: usize| -> Result<u32> {
            let bytes = rest.get(at..at + 4).context("pcap record is cut")?;
            Ok(u32::from_le_bytes(bytes.try_into()?))
        };
        let stamp = u64::from(word(0)?) * 1_000_000_000 + u64::from(word(4)?);
        let end = 16 + usize::try_from(word(8)?)?;
        found.push((stamp, rest.get(16..end).context("pcap record is cut")?));
        rest = rest.get(end..).unwrap_or_default();
    }
    Ok(found)
}

/// Nanoseconds as microseconds with one digit behind the point.
#[expect(clippy::cast_precision_loss, reason = "microseconds with three digits are exact enough to read")]
pub(crate) fn us(ns: u64) -> f64 {
    (ns as f64 / 1e3 * 10.0).round() / 10.0
}

fn quantiles(histogram: &Histogram<u64>) -> Quantiles {
    Quantiles {
        p50_us: us(histogram.value_at_quantile(0.5)),
        p99_us: us(histogram.value_at_quantile(0.99)),
        max_us: us(histogram.max()),
    }
}

/// Starts a recorder on a link of its own, measures every rate, stops it.
///
/// # Errors
/// As [`at_rate`]; also when the link cannot be made, or the recorder does not start or end well.
pub fn measure(
    store: &Path,
    rates: &[u32],
    arguments: &[String],
    mut on_result: impl FnMut(&AtRate),
) -> Result<(String, Vec<AtRate>, serde_json::Value)> {
    let link = Link::make(1, 1500)?;
    let recorder = Recorder::start(&link, store, arguments)?;
    let ready = recorder.ready.clone();
    let mut results = Vec::new();
    let mut first = 0;
    for rate in rates {
        let result = at_rate(&link, store, *rate, first)?;
        first += result.sent;
        on_result(&result);
        results.push(result);
    }
    let ledger = recorder.stop()?;
    Ok((ready, results, ledger))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A nanosecond pcap with one probe per (number, sent, stamp).
    fn pcap(probes: &[(u64, u64, u64)]) -> Vec<u8> {
        let mut out = vec![0x4d, 0x3c, 0xb2, 0xa1];
        out.resize(24, 0);
        for (number, sent_ns, stamp) in probes {
            let frame = Probe { number: *number, sent_ns: *sent_ns }.encode(66);
            let length = u32::try_from(frame.len()).unwrap();
            let seconds = u32::try_from(stamp / 1_000_000_000).unwrap();
            let nanos = u32::try_from(stamp % 1_000_000_000).unwrap();
            for word in [seconds, nanos, length, length] {
                out.extend(word.to_le_bytes());
            }
            out.extend(frame);
        }
        out
    }

    #[test]
    fn each_wanted_probe_counts_once_with_its_own_times() {
        let second = 1_700_000_000_000_000_000;
        let mut seen = Seen::new(0).unwrap();
        let probes = [(4, second, second + 9), (5, second, second + 7_000), (6, second + 10, second)];
        seen.answer(&pcap(&probes), &(5..7), second + 2_000_000_000).unwrap();
        seen.answer(&pcap(&probes), &(5..7), second + 9_000_000_000).unwrap();
        assert_eq!((seen.found, seen.before, seen.from_ns), (2, 1, second + 7_000));
        assert_eq!((seen.stamp_error.len(), seen.retrieved.len()), (2, 2));
        let stamp = quantiles(&seen.stamp_error);
        assert!((stamp.max_us - 7.0).abs() < 0.1, "{stamp:?}");
        let retrieved = quantiles(&seen.retrieved);
        assert!((1.99e6..2.01e6).contains(&retrieved.p50_us), "{retrieved:?}");
        assert!(packets(b"").unwrap().is_empty());
        assert!(packets(&pcap(&probes)[..50]).is_err() && packets(b"not a pcap").is_err());
    }
}
