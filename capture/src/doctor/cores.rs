//! CPUs: workers away from interrupts, on the node of the card, at full clock.

use super::facts::Facts;
use super::finding::{Finding, cpu_list, record_command};

/// All about the CPUs.
pub(crate) fn check(facts: &Facts, found: &mut Vec<Finding>) {
    let cores = &facts.cores;
    interrupts(facts, found);
    node(facts, found);
    if cores.governors.iter().any(|governor| governor != "performance") {
        let what = format!("frequency governor {}", cores.governors.join(", "));
        let why = "a CPU that has slowed down needs some time to get fast again, and a burst does not wait";
        found.push(Finding::note("governor", what, why).mend("cpupower frequency-set -g performance".into()));
    }
}

fn interrupts(facts: &Facts, found: &mut Vec<Finding>) {
    let cores = &facts.cores;
    let is_shared = |cpus: &[usize]| cpus.iter().any(|cpu| cores.workers.contains(cpu));
    let shared: Vec<_> = cores.interrupts.iter().filter(|interrupt| is_shared(&interrupt.cpus)).collect();
    if shared.is_empty() {
        return;
    }
    let mut cpus: Vec<usize> = shared.iter().flat_map(|interrupt| interrupt.cpus.iter().copied()).collect();
    cpus.retain(|cpu| cores.workers.contains(cpu));
    let numbers: Vec<_> = shared.iter().map(|interrupt| interrupt.irq.to_string()).collect();
    let what = format!("interrupts {} fire on worker CPUs {}", numbers.join(","), cpu_list(&cpus));
    let why = "under load the kernel's half of receiving takes the CPU from the worker that empties the ring";
    let local = |cpu: &usize| cores.node_cpus.is_empty() || cores.node_cpus.contains(cpu);
    let free: Vec<usize> =
        cores.allowed.iter().copied().filter(|cpu| !cores.workers.contains(cpu) && local(cpu)).collect();
    found.push(if !free.is_empty() {
        let (numbers, free) = (numbers.join(" "), cpu_list(&free));
        let mend = format!("for irq in {numbers}; do echo {free} > /proc/irq/$irq/smp_affinity_list; done");
        Finding::warning("irq-cpus", what, why, mend)
    } else {
        apart(facts, &cpus, what, why)
    });
}

/// Every CPU is a worker's: some have to be left to the interrupts.
fn apart(facts: &Facts, taken: &[usize], what: String, why: &str) -> Finding {
    let cores = &facts.cores;
    let left: Vec<usize> = cores.workers.iter().copied().filter(|cpu| !taken.contains(cpu)).collect();
    if left.is_empty() || cores.chosen {
        return Finding::note("irq-cpus", what, why);
    }
    let command = record(facts, &left);
    Finding::note("irq-cpus", what, why).mend(command)
}

fn node(facts: &Facts, found: &mut Vec<Finding>) {
    let cores = &facts.cores;
    let Some(node) = cores.node else { return };
    let far: Vec<usize> =
        cores.workers.iter().copied().filter(|cpu| !cores.node_cpus.contains(cpu)).collect();
    let near: Vec<usize> =
        cores.allowed.iter().copied().filter(|cpu| cores.node_cpus.contains(cpu)).collect();
    if far.is_empty() || near.is_empty() {
        return;
    }
    found.push(Finding::warning(
        "numa",
        format!("the card sits on NUMA node {node}, worker CPUs {} do not", cpu_list(&far)),
        "every packet crosses between the nodes, which shows as `ring_full` first",
        record(facts, &near),
    ));
}

/// The recording with these CPUs.
fn record(facts: &Facts, cpus: &[usize]) -> String {
    record_command(facts, &format!("--cpus {}", cpu_list(cpus)))
}
