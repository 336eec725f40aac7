//! Instructions that a packet costs, stage by stage, as callgrind counts them.
//!
//! This program runs itself under `valgrind --tool=callgrind`, one stage at a time, with N packets and with 2 N. What
//! the second run executes more is what N packets cost; what making the packets costs is counted alike, and taken off.
//! So start and end, and whatever a compiler inlines where, are no matter. Instructions are those of a CPU as
//! valgrind has it (AVX2, not AVX-512), and say nothing of caches.

use super::Options;
use super::steps::Steps;
use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use std::ffi::OsString;
use std::path::Path;
use std::process::{Command, Stdio};
use tapedeck_writer::level::{Effort, STEPS};

/// Packets of the shorter run.
pub const PACKETS: u64 = 20_000;
/// What a run may take, seconds.
const ABOUT_S: f64 = 8.0;

/// What a packet costs.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Row {
    /// The stage.
    pub stage: String,
    /// Instructions of the worker's thread, a packet; of `taperead`, of its main thread.
    pub worker: f64,
    /// Of all threads.
    pub all: f64,
}

/// What was counted.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// valgrind's version.
    pub valgrind: String,
    /// Packets of the shorter run.
    pub packets: u64,
    /// Open sessions in the stages of a recording.
    pub sessions: u32,
    /// A row for each stage.
    pub rows: Vec<Row>,
}

/// Instructions of a whole run: of its first thread, and of all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counts {
    worker: u64,
    all: u64,
}

/// A stage to be counted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its name, which `--alone` takes; or `export` or `filter`, of `taperead`.
    pub name: String,
    /// What is not of the stage and taken off: another one.
    base: Option<&'static str>,
}

/// The stages of these parts: memory, recording, sidecar, scan.
#[must_use]
pub fn stages([memory, recording, sidecar, scan]: [bool; 4]) -> Vec<Stage> {
    let mut all: Vec<(String, Option<&'static str>)> = Vec::new();
    if memory {
        all.extend(["copy", "raw"].map(|name| (name.to_owned(), Some("frames"))));
        let levels = STEPS.iter().filter_map(|step| match step {
            Effort::Zstd(level) => Some(format!("level {level}")),
            Effort::Raw => None,
        });
        all.extend(levels.chain(["level 3".to_owned()]).map(|name| (name, Some("frames"))));
    }
    if recording {
        let names = ["walk", "table", "append", "all", "pressed"];
        all.extend(names.map(|name| (name.to_owned(), Some("none"))));
    }
    if sidecar {
        all.push(("rows".to_owned(), Some("walks")));
        all.push(("sidecar".to_owned(), Some("rows")));
    }
    if scan {
        all.extend(["export", "filter"].map(|name| (name.to_owned(), None)));
    }
    all.into_iter().map(|(name, base)| Stage { name, base }).collect()
}

/// What so many stages may take, seconds.
#[must_use]
pub fn weight(stages: &[Stage]) -> f64 {
    2.0 * ABOUT_S * super::steps::count(stages.len() + 3)
}

/// The version that is installed.
///
/// # Errors
/// None is.
pub fn version() -> Result<String> {
    let none = "--callgrind counts with valgrind, which is not installed (Debian: apt install valgrind)";
    crate::recorder::version("valgrind").context(none)
}

/// Counts these stages. `words` are the arguments of `tapebench stages` that say what packets are like, as `options` do.
///
/// # Errors
/// valgrind is not there, or a run fails.
pub fn measure(
    stages: &[Stage],
    words: &[String],
    options: &Options,
    sessions: u32,
    steps: &mut Steps,
) -> Result<Figures> {
    let valgrind = version()?;
    let mut known: Vec<(String, [f64; 2])> = Vec::new();
    let mut cost = |name: &str, steps: &mut Steps| -> Result<[f64; 2]> {
        if let Some((_, cost)) = known.iter().find(|(other, _)| other == name) {
            return Ok(*cost);
        }
        steps.step(&format!("callgrind, {name}"), 2.0 * ABOUT_S);
        let run = |packets| match name {
            "export" | "filter" => query(name, options, packets),
            _ => alone(name, words, packets),
        };
        let cost = each(run(PACKETS)?, run(2 * PACKETS)?, PACKETS);
        known.push((name.to_owned(), cost));
        Ok(cost)
    };
    let mut rows = Vec::new();
    for Stage { name, base } in stages {
        let [base_worker, base_all] = base.map_or(Ok([0.0, 0.0]), |base| cost(base, steps))?;
        let [worker, all] = cost(name, steps)?;
        rows.push(Row { stage: name.clone(), worker: worker - base_worker, all: all - base_all });
    }
    Ok(Figures { valgrind, packets: PACKETS, sessions, rows })
}

/// Instructions a packet, of the first thread and of all: the difference of two runs over that of their packets.
fn each(short: Counts, long: Counts, packets: u64) -> [f64; 2] {
    let per = |short: u64, long: u64| {
        let more = crate::machine::ratio(long.saturating_sub(short), packets);
        more - crate::machine::ratio(short.saturating_sub(long), packets)
    };
    [per(short.worker, long.worker), per(short.all, long.all)]
}

/// Runs one stage of this program once.
fn alone(name: &str, words: &[String], packets: u64) -> Result<Counts> {
    let exe = std::env::current_exe().context("finding this program")?;
    let packets = packets.to_string();
    let mut all = ["stages", "--alone", name, "--packets", &packets].map(OsString::from).to_vec();
    all.extend(words.iter().map(OsString::from));
    count(name, &exe, &all, &[0])
}

/// Asks `taperead` once, of a store with so many packets.
fn query(name: &str, options: &Options, packets: u64) -> Result<Counts> {
    let folder = crate::interrupt::folder(None)?;
    let store = folder.path().join("store");
    let content = super::content(options, Some(packets));
    let written = super::scan::write(&store, u64::try_from(content.bytes())?, &content, options.level)?;
    ensure!(written.packets == packets, "{} packets in the store, {packets} are wanted", written.packets);
    let filter = super::scan::filter(&content);
    let words = if name == "export" { ["-w", "-"] } else { ["--count", &filter] };
    let mut all = ["packets", "--store"].map(OsString::from).to_vec();
    all.push(store.into_os_string());
    all.extend(words.map(OsString::from));
    // Without a ledger, as here, no answer is vouched for as whole (3).
    count(name, &crate::recorder::binary("taperead"), &all, &[0, 1, 3])
}

/// Runs a program once under callgrind.
fn count(name: &str, program: &Path, words: &[OsString], good: &[i32]) -> Result<Counts> {
    let folder = crate::interrupt::folder(None)?;
    let output = Command::new("valgrind")
        .args(["-q", "--tool=callgrind", "--separate-threads=yes"])
        .arg(format!("--callgrind-out-file={}", folder.path().join("out").display()))
        .arg(program)
        .args(words)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .output()
        .context("starting valgrind")?;
    if !output.status.code().is_some_and(|code| good.contains(&code)) {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("stage {name} under valgrind ended with {}: {}", output.status, said.trim());
    }
    read(folder.path()).with_context(|| format!("what callgrind wrote of stage {name}"))
}

/// Adds up its files, one of each thread: `out-01` is that of the first.
fn read(folder: &Path) -> Result<Counts> {
    let mut counts = Counts::default();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        let Some((thread, instructions)) = parse(&text) else { continue };
        counts.all += instructions;
        if thread == 1 {
            counts.worker += instructions;
        }
    }
    ensure!(counts.worker > 0, "no instructions of the first thread");
    Ok(counts)
}

/// The thread that a file is of, and its instructions. A file of the whole process has no thread.
fn parse(text: &str) -> Option<(u32, u64)> {
    let value = |key: &str| text.lines().find_map(|line| line.strip_prefix(key)).map(str::trim);
    let thread = value("thread:")?.parse().ok()?;
    let total = value("totals:").or_else(|| value("summary:"))?;
    Some((thread, total.split_whitespace().next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_packet_costs_what_more_packets_cost_more() {
        let counts = |worker, all| Counts { worker, all };
        assert_eq!(each(counts(5_000, 9_000), counts(15_000, 29_000), 100), [100.0, 200.0]);
        assert_eq!(each(counts(5_000, 9_000), counts(5_000, 8_000), 100), [0.0, -10.0]);
    }

    #[test]
    fn files_of_threads_are_added_up() {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in [
            ("out", "version: 1\npid: 7\n\nevents: Ir\ntotals: 0\n"),
            ("out-01", "version: 1\npid: 7\npart: 1\nthread: 1\n\nevents: Ir\nsummary: 70\n\ntotals: 71\n"),
            ("out-02", "version: 1\npid: 7\npart: 1\nthread: 2\n\nevents: Ir\nsummary: 8\n\ntotals: 8\n"),
        ] {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        assert_eq!(read(folder.path()).unwrap(), Counts { worker: 71, all: 79 });
        let empty = tempfile::tempdir().unwrap();
        assert!(read(empty.path()).unwrap_err().to_string().contains("first thread"));
    }

    #[test]
    fn every_stage_is_counted_against_one_that_is_known() {
        let all = stages([true; 4]);
        let names: Vec<&str> = all.iter().map(|stage| stage.name.as_str()).collect();
        let wanted =
            "copy|raw|level 1|level -8|level 3|walk|table|append|all|pressed|rows|sidecar|export|filter";
        assert_eq!(names.join("|"), wanted);
        assert!(stages([false; 4]).is_empty());
    }
}
