//! What the machine is, and what it does meanwhile: CPU time of threads, idle time of CPUs, bytes written. All from
//! /proc; it must never change anything there.

use crate::result::Machine;
use anyhow::{Context as _, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Between two looks at a process. What a thread does after the last one before its end is not seen.
const LOOK: Duration = Duration::from_millis(25);

/// What the machine is.
#[must_use]
pub fn about() -> Machine {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpuinfo = read("/proc/cpuinfo");
    let field = |name: &str| {
        cpuinfo.lines().find_map(|line| line.split_once(':').filter(|(key, _)| key.trim() == name))
    };
    let model = field("model name").map(|(_, value)| value.trim().to_owned());
    Machine {
        kernel: read("/proc/sys/kernel/osrelease").trim().to_owned(),
        cpu_model: model.unwrap_or_else(|| "unknown".to_owned()),
        cpus: cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
        memory_bytes: memory(&read("/proc/meminfo"), "MemTotal:"),
        dirty_limit_bytes: dirty_limit(
            &read("/proc/sys/vm/dirty_bytes"),
            &read("/proc/sys/vm/dirty_ratio"),
            &read("/proc/meminfo"),
        ),
        load_before: read("/proc/loadavg").split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0.0),
    }
}

/// Bytes of a line of /proc/meminfo.
fn memory(meminfo: &str, name: &str) -> u64 {
    let line = meminfo.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap_or(0) * 1024
}

/// Bytes that the page cache takes before writers must wait (Documentation/admin-guide/sysctl/vm.rst): given in bytes,
/// or as a share of what is available.
fn dirty_limit(bytes: &str, ratio: &str, meminfo: &str) -> u64 {
    match bytes.trim().parse() {
        Ok(0) | Err(_) => memory(meminfo, "MemAvailable:") / 100 * ratio.trim().parse().unwrap_or(20),
        Ok(bytes) => bytes,
    }
}

/// (idle, all) of each CPU so far, in ticks. Waiting for the disk is idle.
///
/// # Errors
/// /proc/stat cannot be read.
pub fn cpu_times() -> Result<BTreeMap<usize, (u64, u64)>> {
    Ok(parse_stat(&std::fs::read_to_string("/proc/stat").context("/proc/stat")?))
}

fn parse_stat(text: &str) -> BTreeMap<usize, (u64, u64)> {
    let cpu = |line: &str| {
        let mut words = line.strip_prefix("cpu")?.split_whitespace();
        let number = words.next()?.parse().ok()?;
        // user nice system idle iowait irq softirq steal; guests are part of user and nice.
        let times: Vec<u64> = words.take(8).filter_map(|word| word.parse().ok()).collect();
        let idle = times.get(3)? + times.get(4)?;
        Some((number, (idle, times.iter().sum())))
    };
    text.lines().filter(|line| !line.starts_with("cpu ")).filter_map(cpu).collect()
}

/// The idle share of each CPU between two looks.
#[must_use]
pub fn idle_shares(
    before: &BTreeMap<usize, (u64, u64)>,
    after: &BTreeMap<usize, (u64, u64)>,
) -> BTreeMap<usize, f64> {
    let share = |(cpu, (idle, all)): (&usize, &(u64, u64))| {
        let (idle_before, all_before) = before.get(cpu)?;
        Some((*cpu, ratio(idle.saturating_sub(*idle_before), all.saturating_sub(*all_before))))
    };
    after.iter().filter_map(share).collect()
}

/// a / b as a float; 0 where b is 0.
#[must_use]
#[expect(clippy::cast_precision_loss, reason = "a share that is read, of counts below 2^52")]
pub fn ratio(a: u64, b: u64) -> f64 {
    if b == 0 { 0.0 } else { a as f64 / b as f64 }
}

/// Counts of /proc/PID/io, by name; 0 where the process is gone.
#[must_use]
pub fn io_counts<const N: usize>(pid: u32, names: [&str; N]) -> [u64; N] {
    let text = std::fs::read_to_string(format!("/proc/{pid}/io")).unwrap_or_default();
    names.map(|name| {
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        line.and_then(|count| count.parse().ok()).unwrap_or(0)
    })
}

/// CPU time and writes of a process so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Of each thread that there ever was: its name and ns.
    pub threads: BTreeMap<u32, (String, u64)>,
    /// Bytes it had the kernel write to disk, or into the page cache for it.
    pub written: u64,
    /// Most bytes that were resident.
    pub resident_max: u64,
}

impl Usage {
    /// Looks again; threads that have ended keep what was seen last.
    fn look(&mut self, pid: u32) {
        let folder = format!("/proc/{pid}/task");
        for task in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let Some(id) = task.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
            let read = |name: &str| std::fs::read_to_string(task.path().join(name));
            if let (Ok(name), Ok(times)) = (read("comm"), read("schedstat"))
                && let Some(ns) = times.split(' ').next().and_then(|ns| ns.parse().ok())
            {
                self.threads.insert(id, (name.trim().to_owned(), ns));
            }
        }
        let [written] = io_counts(pid, ["write_bytes"]);
        self.written = written.max(self.written);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        self.resident_max = self.resident_max.max(memory(&status, "VmHWM:"));
    }

    /// By name: how many threads, and their ns since `before`. All that read a queue are `worker`.
    #[must_use]
    pub fn since(&self, before: &Self) -> BTreeMap<String, (usize, u64)> {
        let mut all: BTreeMap<String, (usize, u64)> = BTreeMap::new();
        for (id, (name, ns)) in &self.threads {
            let was = before.threads.get(id).map_or(0, |(_, ns)| *ns);
            let entry = all.entry(kind(name)).or_default();
            entry.0 += 1;
            entry.1 += ns.saturating_sub(was);
        }
        all
    }
}

/// The recorder calls its workers `q<queue>-<interface>`.
fn kind(name: &str) -> String {
    let queue = name.strip_prefix('q').and_then(|rest| rest.split_once('-'));
    if queue.is_some_and(|(number, _)| number.parse::<u32>().is_ok()) {
        "worker".to_owned()
    } else {
        name.strip_prefix("tapedeck-").unwrap_or(name).to_owned()
    }
}

/// Follows a process until it is told to stop.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Usage>>,
    pid: u32,
}

impl Watch {
    /// Begins.
    #[must_use]
    pub fn start(pid: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&stop);
        let thread = std::thread::spawn(move || {
            let mut usage = Usage::default();
            loop {
                let over = told.load(Ordering::Relaxed);
                usage.look(pid);
                if over {
                    return usage;
                }
                std::thread::sleep(LOOK);
            }
        });
        Self { stop, thread: Some(thread), pid }
    }

    /// So far.
    #[must_use]
    pub fn now(&self) -> Usage {
        let mut usage = Usage::default();
        usage.look(self.pid);
        usage
    }

    /// All that was seen.
    #[must_use]
    pub fn finish(mut self) -> Usage {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().and_then(|thread| thread.join().ok()).unwrap_or_default()
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Bytes free for us in the file system of a folder.
///
/// # Errors
/// It is not there.
pub fn free_bytes(folder: &Path) -> Result<u64> {
    let stat = nix::sys::statvfs::statvfs(folder).with_context(|| folder.display().to_string())?;
    Ok(stat.blocks_available() * stat.fragment_size())
}

/// Bytes of all files below a folder.
#[must_use]
pub fn file_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(about) if about.is_dir() => file_bytes(&entry.path()),
            Ok(about) => about.len(),
            Err(_) => 0,
        })
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn idle_time_is_read_per_cpu() {
        let before = parse_stat(
            "cpu  1 2 3 4 5 6 7 8 0 0\ncpu0 10 0 10 70 10 0 0 0 0 0\ncpu1 0 0 0 0 0 0 0 0\nintr 1\n",
        );
        let after = parse_stat("cpu0 10 0 60 110 20 0 0 0 0 0\ncpu1 100 0 0 0 0 0 0 0\n");
        assert_eq!(before[&0], (80, 100));
        assert_eq!(idle_shares(&before, &after), BTreeMap::from([(0, 0.5), (1, 0.0)]));
    }

    #[test]
    fn threads_are_counted_by_what_they_do() {
        let thread = |name: &str, ns| (name.to_owned(), ns);
        let before = Usage { threads: BTreeMap::from([(1, thread("q0-rx0", 100))]), ..Usage::default() };
        let threads =
            [(1, "q0-rx0", 150), (2, "q11-enp3s0f1np1", 7), (3, "tapedeck-stage", 9), (4, "queue", 1)];
        let threads = threads.map(|(id, name, ns)| (id, thread(name, ns))).into();
        let after = Usage { threads, ..Usage::default() };
        let wanted = [("queue", (1, 1)), ("stage", (1, 9)), ("worker", (2, 57))];
        assert_eq!(after.since(&before), wanted.map(|(name, of)| (name.to_owned(), of)).into());
    }

    #[test]
    fn a_process_is_followed() {
        let watch = Watch::start(std::process::id());
        let mut sum = 0_u64;
        while watch.now().threads.values().map(|(_, ns)| ns).sum::<u64>() == 0 {
            sum = (0..1_000_000).fold(sum, |a, b: u64| a.wrapping_mul(31).wrapping_add(b));
        }
        let usage = watch.finish();
        assert!(usage.threads.len() >= 2, "{usage:?} {sum}");
    }

    #[test]
    fn the_dirty_limit_is_bytes_or_a_share() {
        assert_eq!(dirty_limit("4096\n", "20\n", ""), 4_096);
        assert_eq!(
            dirty_limit("0\n", "20\n", "MemTotal: 9 kB\nMemAvailable:    1000 kB\n"),
            1_024_000 / 100 * 20
        );
    }
}
