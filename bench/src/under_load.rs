//! How late packets are while a load runs: probes among it are asked for all the time, until each is in an answer.
//!
//! Both ends share one clock. A question is a process of its own, as an analyst's would be, and takes its share of the
//! machine.

use crate::latency::{PROBES, Seen};
use crate::probe::{PORT, Sender as Prober, now_ns};
use crate::progress::Progress;
use crate::recorder::{ask, check_balance};
use crate::result::{Distribution, Latency};
use crate::sender::Sender;
use crate::sync_calls::SyncCalls;
use crate::tools::{Running, Tool};
use crate::trial::{Ground, seconds};
use anyhow::{Context as _, Result, bail};
use hdrhistogram::Histogram;
use std::time::{Duration, Instant};

/// Probes a second: few beside any load.
const PROBE_PPS: u32 = 50;
/// A probe that is in no answer after so long counts as never.
const PATIENCE: Duration = Duration::from_secs(10);

/// Measures at this load, packets a second.
///
/// # Errors
/// Something does not start or end, or the ledger does not balance. Probes that never come back are no error: the
/// result says how many came.
pub fn measure(ground: &Ground, tool: &Tool, load_pps: f64, progress: &mut Progress) -> Result<Latency> {
    progress.begin("how late packets are under load", Duration::from_secs(15));
    let folder = crate::interrupt::folder(Some(&ground.folder))?;
    let link = ground.link()?;
    let running = tool.start(&link, folder.path(), &ground.tool_cpus)?;
    let syncs = SyncCalls::watch(running.pid()).inspect_err(|error| {
        let text = format!("note: when packets are durable is not measured: {error:#}\n");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), text.as_bytes());
    });
    // It is told when to end.
    let load = Sender::start(&ground.plan(&link, Some(load_pps), Duration::from_secs(3_600), 0));
    let (namespace, interface) = (link.path(), link.tx().to_owned());
    // The first probes come when the load has settled.
    let prober = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_secs(2));
        Prober::open(&namespace, &interface)?.send(0, PROBES, PROBE_PPS, 200, drop)
    });
    let mut seen = Seen::new(now_ns()?)?;
    let mut last_sent = None;
    while seen.found() < PROBES {
        if load.is_over() {
            load.finish()?;
            bail!("the load ended before its time");
        }
        let answer = ask(&folder.path().join("store"), &format!("udp dst port {PORT}"), seen.from_ns())?;
        seen.answer(&answer.pcap, &(0..PROBES), now_ns()?)?;
        if prober.is_finished() && last_sent.get_or_insert_with(Instant::now).elapsed() > PATIENCE {
            break;
        }
        progress.step(&format!("how late packets are: {} of {PROBES} probes", seen.found()));
        std::thread::sleep(Duration::from_millis(10));
    }
    prober.join().map_err(|_| anyhow::anyhow!("the sender panicked"))??;
    // The last ones become durable too.
    std::thread::sleep(Duration::from_secs(3));
    let lanes = load.finish()?;
    let durable = syncs.ok().map(|syncs| syncs.durable(seen.times())).transpose()?;
    let (own, ledger) = Running::stop(running, &|| {})?;
    check_balance(ledger.as_ref().context("no ledger")?)?;
    progress.end();
    let packets: u64 = lanes.iter().map(|lane| lane.packets).sum();
    Ok(Latency {
        load_pps: crate::machine::ratio(packets, 1) / seconds(&lanes),
        probes: PROBES,
        lost: own.lost.unwrap_or(0) + tool.cut(ledger.as_ref()),
        searchable: distribution(seen.retrieved()),
        durable: durable.flatten().map(|times| distribution(&times)),
    })
}

/// A histogram of nanoseconds, to be read by others.
#[must_use]
pub fn distribution(times: &Histogram<u64>) -> Distribution {
    let us = crate::latency::us;
    let at = |quantile| us(times.value_at_quantile(quantile));
    Distribution {
        count: times.len(),
        p50_us: at(0.5),
        p99_us: at(0.99),
        p999_us: at(0.999),
        max_us: us(times.max()),
        points: times.iter_quantiles(5).map(|step| (step.quantile(), us(step.value_iterated_to()))).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_distribution_has_its_quantiles() {
        let mut times = Histogram::new(3).unwrap();
        (1..=1_000_u64).for_each(|ms| times.record(ms * 1_000_000).unwrap());
        let distribution = distribution(&times);
        assert_eq!(distribution.count, 1_000);
        for (value, wanted) in
            [(distribution.p50_us, 5e5), (distribution.p99_us, 9.9e5), (distribution.max_us, 1e6)]
        {
            assert!((value / wanted - 1.0).abs() < 0.01, "{distribution:?}");
        }
        assert!(distribution.points.windows(2).all(|pair| pair[0].0 <= pair[1].0 && pair[0].1 <= pair[1].1));
        assert!(distribution.points.last().is_some_and(|(share, _)| *share >= 1.0));
    }
}
