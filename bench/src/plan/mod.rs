//! What to buy for a link: from results of `tapebench line`, a link and its traffic to CPUs, queues, disks, memory and
//! days, with what ends first and what the figures do not know.
//!
//! Measured is what a result vouches for ([`evidence`]); all else is arithmetic on it ([`sizing`]), and each step away
//! from what was measured is said ([`doubts`]). It must never plan with a result whose books do not add up.

mod doubts;
mod evidence;
pub mod fit;
pub mod sizing;
mod text;
pub mod units;

use crate::result::{Document, Machine};
use crate::traffic::{Model, Shape, Traffic};
use anyhow::{Context as _, Result, bail};
use evidence::Evidence;
use fit::{How, Range};
use serde::{Deserialize, Serialize};
use sizing::{Cores, DiskAsk, Disks, Kind, Limit, Load, Memory, Paper};
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::{Path, PathBuf};
use tapedeck_capture::plan::PACKET_BYTES;

/// Version of the JSON.
pub const VERSION: u32 = 1;
/// Threads of which each queue has one (or more); all others are there once in a recorder.
const PER_QUEUE: [&str; 3] = ["worker", "stage", "sync"];

/// For which link, with what.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// A result of `tapebench line --out`; several of several packet sizes say what a packet and what a byte costs.
    #[arg(long = "result", value_name = "FILE", required = true)]
    pub results: Vec<PathBuf>,
    /// The link, bits a second: 10G, 100G.
    #[arg(long, value_name = "RATE", value_parser = units::bit_rate)]
    pub link: f64,
    /// Share of the link that is used on average, as interface counters count. A full link by default.
    #[arg(long, value_name = "SHARE", default_value = "100%", value_parser = units::share)]
    pub utilisation: f64,
    /// Share of the link that is used in its busiest seconds; the same by default.
    #[arg(long, value_name = "SHARE", value_parser = units::share)]
    pub peak: Option<f64>,
    /// The link's traffic: a frame size, `imix`, `internet`, or a capture of it. That of the results by default.
    #[arg(long, value_name = "MODEL")]
    pub traffic: Option<Model>,
    /// Bytes of traffic for a byte stored, instead of what the results say of the payload that was made up for them.
    #[arg(long, value_parser = units::above_zero)]
    pub ratio: Option<f64>,
    /// Sessions open at once on the link.
    #[arg(long, value_name = "N", value_parser = units::above_zero)]
    pub sessions: Option<f64>,
    /// Days that are to be kept.
    #[arg(long, default_value = "30", value_parser = units::above_zero)]
    pub days: f64,
    /// Bytes of a disk; decimal, as disks are sold.
    #[arg(long, value_name = "BYTES", default_value = "16T", value_parser = units::bytes)]
    pub disk: f64,
    /// Bytes a second that a disk takes, all day long.
    #[arg(long, value_name = "BYTES", value_parser = units::bytes)]
    pub disk_write: Option<f64>,
    /// Disks that there are; as many as are needed by default.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub disks: Option<u32>,
    /// Share of each disk that is kept free.
    #[arg(long, value_name = "SHARE", default_value = "10%", value_parser = units::spare)]
    pub reserve: f64,
    /// Share to which CPUs and disks are used in the busiest seconds. Less where trials lost packets before that.
    #[arg(long, value_name = "SHARE", default_value = "70%", value_parser = units::share)]
    pub load: f64,
    /// Print the plan as JSON on stdout; `tapebench report --plan` reads it.
    #[arg(long)]
    pub json: bool,
}

/// A plan.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// [`VERSION`].
    pub version: u32,
    /// `plan`.
    pub kind: String,
    /// The command line.
    pub command: Vec<String>,
    /// What it is made of.
    pub basis: Vec<Basis>,
    /// The link.
    pub load: Load,
    /// What its packets are like.
    pub traffic: String,
    /// How their cost is known.
    pub how: How,
    /// Share to which CPUs are used at the peak.
    pub cpu_share: f64,
    /// Share to which disks are used at the peak.
    pub disk_share: f64,
    /// By thread.
    pub kinds: Vec<Kind>,
    /// CPUs and queues.
    pub cores: Cores,
    /// Memory.
    pub memory: Memory,
    /// Disks.
    pub disks: Disks,
    /// Estimates.
    pub paper: Paper,
    /// What ends on the machine to buy, the first one first.
    pub limits: Vec<Limit>,
    /// The machine of the results.
    pub here: Here,
    /// What the figures do not know.
    pub doubts: Vec<String>,
}

/// A result that the plan is made of.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Basis {
    /// The file.
    pub name: String,
    /// When it was measured.
    pub started: String,
    /// Traffic model.
    pub model: String,
    /// Mean bytes of a packet.
    pub bytes: f64,
    /// Nothing was lost or cut at this rate or below, packets a second.
    pub rate_pps: f64,
    /// CPU time of all threads, ns a packet.
    pub ns: Range,
    /// Bytes stored for a byte of traffic.
    pub stored_share: f64,
}

/// The machine of the results, and whether it would do.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Here {
    /// The machine.
    pub machine: Machine,
    /// What ends there, the first one first; times of the planned peak.
    pub limits: Vec<Limit>,
    /// It holds the peak.
    pub holds: bool,
    /// The slowest trial that lost something: packets a second, and what by cause.
    pub loss: Option<(f64, BTreeMap<String, u64>)>,
}

/// Runs the command.
///
/// # Errors
/// A result cannot be read or planned with; arguments contradict each other.
pub fn run(args: &Args) -> Result<()> {
    let plan = Plan::make(args, evidence(&args.results)?, std::env::args().collect())?;
    let mut out = std::io::stdout();
    if args.json {
        writeln!(out, "{}", serde_json::to_string(&plan)?)?;
    } else {
        write!(out, "{}", plan.words())?;
    }
    Ok(())
}

fn evidence(paths: &[PathBuf]) -> Result<Vec<Evidence>> {
    let mut seen = BTreeSet::new();
    let mut all = Vec::new();
    for path in paths {
        if !seen.insert(path) {
            bail!("{} is named twice", path.display());
        }
        all.push(Evidence::of(&path.display().to_string(), Document::read(path)?)?);
    }
    evidence::same(&all)?;
    Ok(all)
}

impl Plan {
    /// Makes it.
    ///
    /// # Errors
    /// Which traffic is meant cannot be known; a peak below the average.
    fn make(args: &Args, basis: Vec<Evidence>, command: Vec<String>) -> Result<Self> {
        let peak = args.peak.unwrap_or(args.utilisation);
        if peak < args.utilisation {
            bail!(
                "a peak of {:.0} % is below the average of {:.0} %",
                100.0 * peak,
                100.0 * args.utilisation
            );
        }
        let wanted = Wanted::of(args, &basis)?;
        let load = Load { link: args.link, utilisation: args.utilisation, peak, bytes: wanted.bytes };
        let cpu_share =
            basis.iter().filter(|of| !of.generator_bound).map(|of| of.busy).fold(args.load, f64::min);
        let kinds = kinds(&basis, load, cpu_share);
        let cores = Cores::of(&kinds);
        let packets = basis.first().map_or(PACKET_BYTES, |of| of.document.setup.packet_memory());
        let memory = Memory::of(cores.queues.likely, cores.recorders, wanted.mtu, args.sessions, packets);
        let [stored, written] = bytes(args, &basis, load.bytes);
        let ask = DiskAsk {
            disk: args.disk,
            disk_write: args.disk_write,
            reserve: args.reserve,
            days: args.days,
            count: args.disks.map(f64::from),
            load: args.load,
        };
        let disks = Disks::of(&ask, load, stored, written);
        let paper = Paper::of(load, written.likely);
        let limits = sizing::limits(&kinds, &cores, &disks, &paper, load, args.load);
        let here = Here::of(&basis, &kinds, load, cpu_share, args.sessions, wanted.mtu)?;
        let doubts = doubts::all(args, &basis, &wanted, load, &cores, cpu_share);
        Ok(Self {
            version: VERSION,
            kind: "plan".to_owned(),
            command,
            basis: basis.iter().map(Basis::of).collect(),
            load,
            traffic: wanted.model,
            how: wanted.how,
            cpu_share,
            disk_share: args.load,
            kinds,
            cores,
            memory,
            disks,
            paper,
            limits,
            here,
            doubts,
        })
    }

    /// In words.
    #[must_use]
    pub fn words(&self) -> String {
        text::text(self)
    }

    /// Reads one.
    ///
    /// # Errors
    /// It cannot be read, is none, or is of another version.
    pub fn read(path: &Path) -> Result<Self> {
        let named = || format!("{}: no plan of tapebench", path.display());
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let value: serde_json::Value = serde_json::from_str(&text).with_context(named)?;
        let version = value.get("version").and_then(serde_json::Value::as_u64);
        if value.get("kind").and_then(serde_json::Value::as_str) != Some("plan") {
            bail!("{}\n\nhint: tapebench plan --json makes one", named());
        }
        if version != Some(u64::from(VERSION)) {
            bail!("{}: version {version:?}, this tapebench reads {VERSION}", path.display());
        }
        serde_json::from_value(value).with_context(named)
    }
}

/// The link's traffic.
struct Wanted {
    model: String,
    bytes: f64,
    mtu: f64,
    how: How,
}

impl Wanted {
    fn of(args: &Args, basis: &[Evidence]) -> Result<Self> {
        let about = match &args.traffic {
            Some(model) => Traffic::new(model, &Shape::default())?.about,
            None => {
                let models: BTreeSet<&str> =
                    basis.iter().map(|of| of.document.setup.traffic.model.as_str()).collect();
                if models.len() > 1 {
                    bail!(
                        "the results are of several kinds of traffic: {}\n\nhint: name the link's with --traffic",
                        models.into_iter().collect::<Vec<_>>().join(", ")
                    );
                }
                let first = basis.first().context("no result")?;
                first.document.setup.traffic.clone()
            }
        };
        let sizes: Vec<f64> = basis.iter().map(Evidence::bytes).collect();
        #[expect(clippy::cast_precision_loss, reason = "bytes of a packet")]
        let mtu = about.longest.saturating_sub(14).max(1_500) as f64;
        Ok(Self { how: fit::how(&sizes, about.mean_bytes), model: about.model, bytes: about.mean_bytes, mtu })
    }
}

fn kinds(basis: &[Evidence], load: Load, share: f64) -> Vec<Kind> {
    let names: BTreeSet<&String> = basis.iter().flat_map(|of| of.threads.keys()).collect();
    let kind = |name: &String| {
        let points: Vec<_> = basis
            .iter()
            .map(|of| of.point(of.threads.get(name).map_or_else(Range::default, |(range, _)| *range)))
            .collect();
        let per_queue = PER_QUEUE.contains(&name.as_str());
        Kind::new(name, per_queue, fit::cost(&points, load.bytes), load.peak_pps(), share)
    };
    let mut all: Vec<Kind> = names.into_iter().map(kind).collect();
    all.sort_by(|a, b| b.per_queue.cmp(&a.per_queue).then(b.ns.likely.total_cmp(&a.ns.likely)));
    all
}

/// Bytes stored and bytes written for a packet.
fn bytes(args: &Args, basis: &[Evidence], bytes: f64) -> [Range; 2] {
    let at = |of: fn(&Evidence) -> Range| {
        fit::cost(&basis.iter().map(|one| one.point(of(one))).collect::<Vec<_>>(), bytes)
    };
    let (stored, written) = (at(|of| of.stored), at(|of| of.written));
    let Some(ratio) = args.ratio else { return [stored, written] };
    let given = bytes / ratio;
    let more = if stored.likely > 0.0 { written.likely / stored.likely } else { 1.0 };
    let exact = |value: f64| Range { low: value, likely: value, high: value };
    [exact(given), exact(given * more)]
}

impl Basis {
    fn of(evidence: &Evidence) -> Self {
        Self {
            name: evidence.name.clone(),
            started: evidence.document.started.clone(),
            model: evidence.document.setup.traffic.model.clone(),
            bytes: evidence.bytes(),
            rate_pps: evidence.rate_pps,
            ns: evidence.all_ns(),
            stored_share: evidence.stored.likely / evidence.bytes(),
        }
    }
}

impl Here {
    fn of(
        basis: &[Evidence],
        kinds: &[Kind],
        load: Load,
        share: f64,
        open: Option<f64>,
        mtu: f64,
    ) -> Result<Self> {
        let machine = basis.first().context("no result")?.document.machine.clone();
        let (peak, cpus) = (load.peak_pps(), crate::machine::ratio(u64::try_from(machine.cpus)?, 1));
        let all = kinds.iter().fold(0.0, |sum, kind| sum + kind.ns.likely);
        let times = |pps: f64| if peak > 0.0 { pps / peak } else { f64::INFINITY };
        let limit = |what: String, times: f64, remedy: &str| Limit {
            what,
            times,
            remedy: remedy.to_owned(),
            paper: false,
        };
        let mut limits = vec![limit(
            format!("its {cpus} CPUs, all of them the recorder's"),
            times(cpus * share * 1e9 / all.max(1e-9)),
            "more CPUs",
        )];
        for kind in kinds.iter().filter(|kind| kind.ns.likely > 0.0) {
            let one = times(share * 1e9 / kind.ns.likely);
            if kind.per_queue {
                // A CPU each is the most that its queues can have.
                limits.push(limit(
                    format!("`{}`, one on each CPU", kind.name),
                    one * cpus,
                    "more CPUs and queues",
                ));
            } else {
                limits.push(limit(format!("`{}`, one in a recorder", kind.name), one, "a second recorder"));
            }
        }
        let packets = basis.first().map_or(PACKET_BYTES, |of| of.document.setup.packet_memory());
        let memory = Memory::of(cpus, 1.0, mtu, open, packets).all;
        let has = crate::machine::ratio(machine.memory_bytes, 1);
        limits.sort_by(|a, b| a.times.total_cmp(&b.times));
        let holds = limits.first().is_none_or(|first| first.times >= 1.0) && memory <= has;
        if memory > has {
            limits.insert(0, limit("its memory".to_owned(), has / memory, "more memory, or fewer queues"));
        }
        let losses = basis.iter().filter_map(|of| of.loss.clone());
        let loss = losses.min_by(|a, b| a.0.total_cmp(&b.0));
        Ok(Self { machine, limits, holds, loss })
    }
}

#[cfg(test)]
mod tests;
#[cfg(test)]
pub(crate) use tests::{good as sample, sample_plan};
