//! What a plan does not know, a line each: how far it goes beyond what was measured, and what a trial cannot show.

use super::evidence::Evidence;
use super::fit::How;
use super::sizing::{Cores, Load};
use super::units::si;
use super::{Args, Wanted};

/// A plan may go this far beyond a measured rate without a word, times.
const FAR: f64 = 1.2;
/// Costs of trials may differ by so much without a word.
const SCATTER: f64 = 0.1;
/// Others may have this share of the recorder's CPUs without a word.
const OTHERS: f64 = 0.1;
/// So many processes that wanted to run beside the measurement are no matter.
const LOAD: f64 = 0.5;

/// All of them.
pub(super) fn all(
    args: &Args,
    basis: &[Evidence],
    wanted: &Wanted,
    load: Load,
    cores: &Cores,
    cpu_share: f64,
) -> Vec<String> {
    let mut all = Vec::new();
    beyond(&mut all, basis, wanted, load, cores);
    all.extend(of_results(basis));
    if cpu_share < args.load {
        all.push(format!(
            "no trial without loss kept its CPUs, or its busiest thread, busier than {:.0} %: planned is with that, not \
             with {:.0} %",
            100.0 * cpu_share,
            100.0 * args.load
        ));
    }
    assumed(&mut all, args, load);
    all
}

/// Rates, sizes and queues that nobody measured.
fn beyond(all: &mut Vec<String>, basis: &[Evidence], wanted: &Wanted, load: Load, cores: &Cores) {
    let most = basis.iter().map(|of| of.rate_pps).fold(0.0, f64::max);
    let times = load.peak_pps() / most;
    if times > FAR {
        all.push(format!(
            "the peak, {}pps, is {times:.1} times the highest rate measured without loss ({}pps): beyond \
             that costs are taken to stay as they are",
            si(load.peak_pps()),
            si(most)
        ));
    }
    let measured = basis.iter().map(|of| of.document.setup.link.queues).max().unwrap_or(1);
    if cores.queues.likely > f64::from(measured) {
        all.push(format!(
            "measured with {measured} queue(s), planned are {}: each is taken to hold what one held, though they share \
             caches, memory and disks",
            cores.queues.likely
        ));
    }
    let merged = basis.iter().any(|of| of.threads.contains_key("merger"));
    if cores.queues.likely > 1.0 && !merged {
        all.push(
            "with several queues a thread more joins sessions that came on two of them (`merger`): its cost was not \
             measured, as the results have one queue"
                .to_owned(),
        );
    }
    let sizes: Vec<String> = basis.iter().map(|of| format!("{:.0}", of.bytes())).collect();
    let sizes = sizes.join(", ");
    match wanted.how {
        How::Measured => {}
        How::OneSize => all.push(format!(
            "measured at {sizes} bytes a packet, planned for {:.0}: one size does not say which part of the cost is \
             of packets and which of bytes; planned is with the dearer, the range holds both",
            wanted.bytes
        )),
        How::Between => all.push(format!(
            "costs at {:.0} bytes a packet lie on a line through {sizes} bytes; the range holds what did not lie on it",
            wanted.bytes
        )),
        How::Beyond => all.push(format!(
            "{:.0} bytes a packet are outside of what was measured ({sizes} bytes): the line through it is drawn out",
            wanted.bytes
        )),
    }
}

/// What is said of results; what is said of several stands there once, with their names.
fn of_results(basis: &[Evidence]) -> Vec<String> {
    let mut told: Vec<(String, Vec<&str>)> = Vec::new();
    for evidence in basis {
        let mut lines = Vec::new();
        trials(&mut lines, evidence);
        scene(&mut lines, evidence);
        for line in lines {
            match told.iter_mut().find(|(text, _)| *text == line) {
                Some((_, names)) => names.push(&evidence.name),
                None => told.push((line, vec![&evidence.name])),
            }
        }
    }
    told.into_iter().map(|(text, names)| format!("{}: {text}", names.join(", "))).collect()
}

/// What the trials of a result leave open.
fn trials(all: &mut Vec<String>, of: &Evidence) {
    let outcome = &of.outcome;
    if of.generator_bound {
        let idle = outcome.idle.map_or_else(String::new, |idle| {
            format!("; the recorder's CPU was idle for {:.0} %", 100.0 * idle)
        });
        all.push(format!(
            "the generator made no more than {}pps, the recorder may hold more{idle}",
            si(of.rate_pps)
        ));
    }
    if outcome.short {
        all.push(
            "trials were short, so that the page cache may hide the disk and rings may hide seconds of overload"
                .to_owned(),
        );
    }
    let [low, high] = outcome.spread_pps;
    if outcome.zero_loss_pps.len() < 3 {
        all.push(format!(
            "{} search(es); three or more would show how far results scatter",
            outcome.zero_loss_pps.len()
        ));
    } else if high > low * (1.0 + SCATTER) {
        all.push(format!("searches ended between {}pps and {}pps", si(low), si(high)));
    }
    if of.rate_pps < outcome.median_pps * 0.999 {
        let what = of.loss.as_ref().map_or_else(String::new, |(pps, causes)| {
            format!(": a trial at {}pps lost or cut some ({})", si(*pps), causes_of(causes))
        });
        all.push(format!(
            "{}pps are vouched for, not the {}pps of the search{what}",
            si(of.rate_pps),
            si(outcome.median_pps)
        ));
    }
    let ns = of.all_ns();
    if of.trials == 1 {
        all.push("CPU time a packet is that of one trial; how far it scatters is not known".to_owned());
    } else if ns.high > ns.low * (1.0 + SCATTER) {
        all.push(format!(
            "CPU time a packet lay between {:.0} and {:.0} ns in {} trials; the ranges hold that",
            ns.low, ns.high, of.trials
        ));
    }
}

/// Causes and their numbers.
pub(super) fn causes_of(causes: &std::collections::BTreeMap<String, u64>) -> String {
    causes.iter().map(|(cause, count)| format!("{cause} {count}")).collect::<Vec<_>>().join(", ")
}

/// Where a result was measured.
fn scene(all: &mut Vec<String>, of: &Evidence) {
    let (setup, machine) = (&of.document.setup, &of.document.machine);
    if setup.link.driver == "veth" {
        all.push(format!(
            "measured on a veth pair ({}), not on a card: what receiving costs the kernel ran on the \
             sender's CPU and is in no figure; add what the card's driver takes, and measure with --interface before you buy",
            of.modes.iter().cloned().collect::<Vec<_>>().join(", ")
        ));
    }
    if machine.load_before > LOAD {
        all.push(format!(
            "{:.1} other processes wanted to run when it began, on {} CPUs: costs are rather too high",
            machine.load_before, machine.cpus
        ));
    }
    if of.others > OTHERS {
        all.push(format!(
            "{:.0} % of the recorder's CPUs went to others (processes, and the kernel's receive path): packets \
             were lost earlier than they would have been without, and the plan is rather too large",
            100.0 * of.others
        ));
    }
    let flows = &setup.traffic;
    all.push(format!(
        "{} flows, {} of them new each time {} packets are sent again; more sessions at once miss caches and \
         cost more a packet (`tapebench stages` shows how much)",
        flows.flows, flows.renewed, flows.packets
    ));
}

/// What was assumed because nobody said otherwise.
fn assumed(all: &mut Vec<String>, args: &Args, load: Load) {
    if args.peak.is_none() && load.utilisation < 1.0 {
        all.push(
            "no --peak: CPUs and disks are planned for the average, and seconds that are busier lose packets unless the \
             spare share holds them"
                .to_owned(),
        );
    }
    if args.ratio.is_none() {
        all.push(
            "stored bytes are those of the payload that was made up for the results; --ratio takes that of your own \
             traffic (a capture's bytes over those of the store that `tapedeck import` makes of it)"
                .to_owned(),
        );
    }
    if args.disk_write.is_none() {
        all.push("no --disk-write: disks are counted by their space only".to_owned());
    }
    if args.sessions.is_none() {
        all.push("no --sessions: session tables are taken at their default size".to_owned());
    }
    all.push(
        "flows are taken to spread evenly over queues; one flow stays in one queue, whatever else is idle"
            .to_owned(),
    );
    all.push(
        "disks are counted without spares and parity, and with nobody reading; memory bandwidth and PCIe are estimates \
         on paper"
            .to_owned(),
    );
}
