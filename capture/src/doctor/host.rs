//! The host: memory, clock, kernel, privileges.

use super::facts::{ClockFacts, Facts, KernelFacts, MemoryFacts};
use super::finding::{Finding, path_word, record_command};

/// Bytes of a huge page.
const HUGE_PAGE: u64 = 2 << 20;
/// First kernel that has all we use.
const KERNEL_MIN: (u32, u32) = (6, 6);
/// Counters that take microseconds to read.
const SLOW_SOURCES: [&str; 4] = ["hpet", "acpi_pm", "pit", "jiffies"];
/// Counters to prefer, best first.
const FAST_SOURCES: [&str; 4] = ["tsc", "arch_sys_counter", "kvm-clock", "hyperv_clocksource_tsc_page"];

/// All about the host.
pub(crate) fn check(facts: &Facts, found: &mut Vec<Finding>) {
    kernel(&facts.kernel, found);
    memory(facts, found);
    clock(&facts.clock, found);
}

fn memory(facts: &Facts, found: &mut Vec<Finding>) {
    let memory = &facts.memory;
    let may_lock = !facts.kernel.missing_capabilities.contains(&"CAP_IPC_LOCK");
    if let Some(limit) = memory.locked_limit_bytes.filter(|limit| *limit < memory.packets_bytes && !may_lock)
    {
        found.push(Finding::error(
            "memlock",
            format!("{} of memory may be locked, packets need {}", mib(limit), mib(memory.packets_bytes)),
            "AF_XDP cannot have its memory: packets would come in through AF_PACKET",
            "ulimit -l unlimited".into(),
        ));
    }
    huge_pages(memory, found);
    let need = memory.most_bytes.saturating_add(memory.sessions_bytes);
    if let Some(available) = memory.available_bytes.filter(|available| *available < need) {
        found.push(Finding::warning(
            "memory",
            format!("{} available, a recording may take {}", mib(available), mib(need)),
            "under a flood of flows the kernel would have to kill something; fewer sessions take less",
            record_command(facts, "--max-sessions 65536"),
        ));
    }
}

fn huge_pages(memory: &MemoryFacts, found: &mut Vec<Finding>) {
    let need = memory.packets_bytes.div_ceil(HUGE_PAGE);
    let (Some(total), Some(free)) = (memory.huge_pages, memory.huge_pages_free) else { return };
    if free < need {
        found.push(Finding::warning(
            "huge-pages",
            format!("{free} free pages of 2 MiB, packets need {need}"),
            "with pages of 4 KiB the CPU has to look up an address for nearly every packet",
            format!("sysctl -w vm.nr_hugepages={}", total.saturating_add(need - free)),
        ));
    }
}

fn clock(clock: &ClockFacts, found: &mut Vec<Finding>) {
    if clock.synchronised == Some(false) {
        found.push(Finding::warning(
            "clock",
            "nobody holds the clock to a source of time",
            "times drift away from those of other sensors and logs, and may jump when somebody sets it",
            "timedatectl set-ntp true".into(),
        ));
    }
    let Some(source) = clock.source.as_deref().filter(|source| SLOW_SOURCES.contains(source)) else { return };
    let what = format!("times are read from {source}");
    let why = "every packet is stamped on its own, and each stamp takes microseconds";
    let fast = FAST_SOURCES.into_iter().find(|fast| clock.sources.iter().any(|source| source == fast));
    found.push(match fast {
        Some(fast) => Finding::warning(
            "clock-source",
            what,
            why,
            format!("echo {fast} > /sys/devices/system/clocksource/clocksource0/current_clocksource"),
        ),
        None => Finding::note("clock-source", what, why),
    });
}

fn kernel(kernel: &KernelFacts, found: &mut Vec<Finding>) {
    if let Some(version) = version(&kernel.release).filter(|version| *version < KERNEL_MIN) {
        let (major, minor) = KERNEL_MIN;
        found.push(Finding::error(
            "kernel",
            format!("Linux {}.{}", version.0, version.1),
            format!(
                "tapedeck needs {major}.{minor}: jumbo frames and the books by cause of loss do not work before"
            ),
            "apt-get install linux-image-amd64 && reboot".into(),
        ));
    }
    capabilities(kernel, found);
    if kernel.jit == Some(0) {
        found.push(Finding::warning(
            "bpf-jit",
            "net.core.bpf_jit_enable is 0",
            "the XDP program is interpreted, several times slower, for every packet",
            "sysctl -w net.core.bpf_jit_enable=1".into(),
        ));
    }
    if kernel.af_xdp == Some(false) {
        let why = "it was built without CONFIG_XDP_SOCKETS: packets come in through AF_PACKET";
        found.push(Finding::note("af-xdp", "the kernel has no AF_XDP sockets", why));
    }
    let has_rights = !lacks_rights(kernel);
    if let Some(why) = kernel.program_refused.as_deref().filter(|_| has_rights) {
        let what = "the kernel does not take the XDP program";
        found.push(Finding::note("program", what, format!("{why}: packets come in through AF_PACKET")));
    } else if let Some(why) = kernel.without_refusals.as_deref().filter(|_| has_rights) {
        let what = "losses by cause come from the sockets";
        found.push(Finding::note("refusals", what, format!("the kernel gives no tracepoint: {why}")));
    }
}

/// What a recording cannot do without.
const NEEDED: [&str; 4] = ["CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF", "CAP_PERFMON"];

fn lacks_rights(kernel: &KernelFacts) -> bool {
    kernel.missing_capabilities.iter().any(|missing| NEEDED.contains(missing))
}

fn capabilities(kernel: &KernelFacts, found: &mut Vec<Finding>) {
    if !lacks_rights(kernel) {
        return;
    }
    let missing: Vec<_> =
        kernel.missing_capabilities.iter().filter(|missing| NEEDED.contains(missing)).copied().collect();
    // CAP_IPC_LOCK with them: what is not root has a small limit of locked memory.
    found.push(Finding::error(
        "capabilities",
        format!("{} missing", missing.join(", ")),
        "`record` cannot open its sockets or load its program; the command, as root, gives them to the program",
        format!(
            "setcap cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon,cap_ipc_lock=ep {}",
            path_word(&kernel.program)
        ),
    ));
}

/// Major and minor number of a release such as `6.18.44-amd64`.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
}

/// Bytes as people read them.
pub(crate) fn mib(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    if bytes >= 10 << 30 { format!("{} GiB", bytes >> 30) } else { format!("{} MiB", bytes / MIB) }
}
