//! The commands `line` and `compare`: from arguments to trials to words.

use crate::campaign::Campaign;
use crate::link::Link;
use crate::machine;
use crate::plan::sizing::Memory;
use crate::progress::Progress;
use crate::result::{Document, Latency, LinkAbout, Outcome, Setup, Trial, VERSION};
use crate::sender::Kind as SenderKind;
use crate::tools::{Kind, Tool};
use crate::traffic::{Model, Payload, Shape, Traffic};
use crate::trial::{Ground, folder};
use crate::under_load;
use anyhow::{Context as _, Result, bail};
use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use tapedeck_packet::Timestamp;

/// Share of the rate found at which questions are asked while it is recorded.
const QUESTIONS_LOAD: f64 = 0.8;

/// What is sent, over which link, for how long: the same for `line` and `compare`.
#[derive(Clone, Debug, clap::Args)]
pub struct Load {
    /// What is sent: a frame size from 64 to 9018 (checksum included), `imix`, `internet`, or a capture file.
    #[arg(long, value_name = "MODEL", default_value = "1518")]
    pub traffic: Model,
    /// Flows of sizes and IMIX.
    #[arg(long, default_value_t = 1_000, value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    pub flows: u32,
    /// Payload of sizes and IMIX.
    #[arg(long, value_enum, default_value_t = Payload::Random)]
    pub payload: Payload,
    /// Share of the payload of `internet` that no compression makes smaller, 0 to 1.
    #[arg(long, default_value_t = 0.9)]
    pub encrypted: f64,
    /// Of everything that is drawn.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// How packets are sent; live frames on a link of its own, packet sockets with --interface or frames that live
    /// frames cannot be.
    #[arg(long, value_enum)]
    pub sender: Option<SenderKind>,
    /// CPUs to send from, a lane on each, separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "0")]
    pub sender_cpus: Vec<usize>,
    /// CPUs for the recorder, separated by commas; all others by default.
    #[arg(long, value_delimiter = ',')]
    pub cpus: Vec<usize>,
    /// Receive queues of the link; one per sending lane by default.
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=64))]
    pub queues: Option<u32>,
    /// Record this interface instead of one end of a veth pair; it needs --peer. Everything on it is recorded and
    /// thrown away. Refused on an interface with a default route.
    #[arg(long, value_name = "IF", requires = "peer")]
    pub interface: Option<String>,
    /// Send on this interface, which must be connected to the other one.
    #[arg(long, value_name = "IF2", requires = "interface")]
    pub peer: Option<String>,
    /// Seconds of each trial, instead of 20 and as long as it takes to send twice the bytes that the page cache takes.
    /// A trial of less is called short: the page cache may hide the disk.
    #[arg(long, value_name = "S")]
    pub trial_seconds: Option<f64>,
    /// Folder in which the stores are made; each is removed after its trial. The system's temporary one by default.
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Write the result here as JSON, after each trial.
    #[arg(long, value_name = "FILE")]
    pub out: Option<PathBuf>,
    /// Go on with a run whose result is in this file. The same arguments are wanted; --out is this file by default.
    #[arg(long, value_name = "FILE")]
    pub resume: Option<PathBuf>,
    /// Print the result as JSON on stdout.
    #[arg(long)]
    pub json: bool,
}

/// A search of one or more tools.
#[derive(Debug)]
pub struct Run<'a> {
    /// `line` or `compare`.
    pub kind: &'static str,
    /// The arguments.
    pub load: &'a Load,
    /// Who.
    pub tools: Vec<Tool>,
    /// Arguments of `tapedeck record`.
    pub record: &'a [String],
    /// Searches of each tool.
    pub rounds: u32,
    /// How near they come.
    pub resolution: f64,
    /// The load for all, packets a second.
    pub common: Option<f64>,
}

impl Load {
    /// What is the same in all trials.
    ///
    /// # Errors
    /// The traffic cannot be made, CPUs are not there, or what was asked for contradicts itself.
    pub fn ground(&self) -> Result<Ground> {
        let shape =
            Shape { flows: self.flows, payload: self.payload, encrypted: self.encrypted, seed: self.seed };
        let traffic = Traffic::new(&self.traffic, &shape)?;
        let fits = traffic.about.longest <= tapedeck_ebpf::replay::LONGEST;
        let sender = match self.sender {
            Some(SenderKind::Live) if !fits => {
                bail!(
                    "frames of {} bytes cannot be live frames\n\nhint: --sender sockets",
                    traffic.about.longest
                )
            }
            Some(sender) => sender,
            None if self.interface.is_some() || !fits => SenderKind::Sockets,
            None => SenderKind::Live,
        };
        let online = machine::cpu_times()?;
        if let Some(cpu) = self.sender_cpus.iter().chain(&self.cpus).find(|cpu| !online.contains_key(cpu)) {
            bail!("no CPU {cpu}");
        }
        let tool_cpus: Vec<usize> = if self.cpus.is_empty() {
            online.keys().copied().filter(|cpu| !self.sender_cpus.contains(cpu)).collect()
        } else {
            self.cpus.clone()
        };
        if tool_cpus.is_empty() || self.sender_cpus.is_empty() {
            bail!("no CPU is left\n\nhint: --sender-cpus 0 --cpus 0 lets sender and recorder share one");
        }
        if self.trial_seconds.is_some_and(|seconds| !(0.1..=86_400.0).contains(&seconds)) {
            bail!("trials of 0.1 to 86400 seconds are possible");
        }
        let lanes = u32::try_from(self.sender_cpus.len())?;
        Ok(Ground {
            traffic: Arc::new(traffic),
            sender,
            sender_cpus: self.sender_cpus.clone(),
            tool_cpus,
            queues: self.queues.unwrap_or(lanes),
            given: self.interface.clone().zip(self.peer.clone()),
            folder: folder(self.store.as_deref())?,
            seconds: self.trial_seconds,
            dirty_limit: machine::about().dirty_limit_bytes,
        })
    }
}

impl Run<'_> {
    /// Runs it, and prints as it goes.
    ///
    /// # Errors
    /// As [`Campaign::run`]; a file to go on with is of another run.
    pub fn run(&self, ground: &Ground, latency: bool) -> Result<Document> {
        let mut document = self.document(ground)?;
        let out = self.load.out.clone().or_else(|| self.load.resume.clone());
        let campaign = Campaign {
            ground,
            tools: &self.tools,
            rounds: self.rounds,
            resolution: self.resolution,
            common: self.common,
            out,
        };
        let json = self.load.json;
        if !json {
            head(&document)?;
        }
        campaign.run(&mut document, &mut |trial| {
            if !json {
                let _ = row(trial, &ground.tool_cpus);
            }
        })?;
        if !json {
            tail(&document)?;
        }
        let found = document.outcomes.first().map(|outcome| outcome.median_pps * QUESTIONS_LOAD);
        if let (true, Some(tool), Some(pps)) = (latency, self.tools.first(), found.filter(|pps| *pps > 0.0)) {
            let late = under_load::measure(ground, tool, pps, &mut Progress::new())?;
            if !json {
                lateness(&late)?;
            }
            document.latency = Some(late);
            if let Some(out) = &campaign.out {
                document.write(out)?;
            }
        }
        Ok(document)
    }

    /// The head of the result, and the trials of the run it goes on with.
    fn document(&self, ground: &Ground) -> Result<Document> {
        let link = ground.link()?;
        let setup = self.setup(ground, &link);
        let now = crate::probe::now_ns()?;
        let mut document = Document {
            version: VERSION,
            kind: self.kind.to_owned(),
            command: std::env::args().collect(),
            started: Timestamp::from_nanos(now).map(|now| now.to_string()).unwrap_or_default(),
            machine: machine::about(),
            setup,
            trials: Vec::new(),
            outcomes: Vec::new(),
            latency: None,
        };
        if let Some(path) = &self.load.resume {
            let before = Document::read(path)?;
            let same_machine = (&before.machine.kernel, &before.machine.cpu_model)
                == (&document.machine.kernel, &document.machine.cpu_model);
            if before.setup != document.setup || before.kind != document.kind || !same_machine {
                bail!(
                    "{} is of another run, with other arguments or on another machine; it was: {}",
                    path.display(),
                    before.command.join(" ")
                );
            }
            document.started = before.started;
            document.trials = before.trials;
        }
        Ok(document)
    }

    fn setup(&self, ground: &Ground, link: &Link) -> Setup {
        let kind = if ground.sender == SenderKind::Live { "live" } else { "sockets" };
        Setup {
            traffic: ground.traffic.about.clone(),
            payload: self.load.payload,
            encrypted: self.load.encrypted,
            seed: self.load.seed,
            sender: kind.to_owned(),
            sender_cpus: ground.sender_cpus.clone(),
            tool_cpus: ground.tool_cpus.clone(),
            link: LinkAbout {
                made: link.is_made(),
                interface: link.rx().to_owned(),
                peer: link.tx().to_owned(),
                driver: link.driver(),
                queues: ground.queues,
                mtu: ground.traffic.mtu(),
            },
            record: self.record.to_vec(),
            trial_seconds: ground.seconds,
            resolution: self.resolution,
            tools: self.tools.iter().map(|tool| tool.about(link.rx())).collect(),
        }
    }
}

/// What our recorder leaves on disk, and what it takes of memory, against the formula of docs/operations.md.
fn files_and_memory(document: &Document) -> Result<()> {
    let ours = || document.trials.iter().filter(|trial| trial.tool == Kind::Tapedeck.name());
    let mut out = std::io::stdout();
    let largest = ours().max_by_key(|trial| trial.files.get("segments").copied().unwrap_or(0));
    if let Some(trial) = largest
        && let Some(segments) = trial.files.get("segments").copied().filter(|bytes| *bytes > 0)
    {
        write!(out, "\nfiles of its largest trial: segments {:.0} MB", machine::ratio(segments, 1_000_000))?;
        for (kind, bytes) in trial.files.iter().filter(|(kind, _)| *kind != "segments") {
            write!(out, ", {kind} {:.3} % of that", 100.0 * machine::ratio(*bytes, segments))?;
        }
        let sessions = trial.ledger.as_ref().and_then(|books| books.pointer("/sessions/sessions")?.as_u64());
        if let Some(sessions) = sessions {
            let each = machine::ratio(segments, sessions) / 1e3;
            write!(out, "; {sessions} sessions, {each:.1} KB stored each")?;
        }
        writeln!(out)?;
    }
    if let Some(most) = ours().filter_map(|trial| trial.resident_max_bytes).max() {
        let setup = &document.setup;
        let (queues, mtu) = (f64::from(setup.link.queues), f64::from(setup.link.mtu));
        let bound = Memory::of(queues, 1.0, mtu, None, setup.packet_memory()).all;
        writeln!(
            out,
            "memory: {:.0} MiB resident at most, {:.0} MiB by the formula",
            machine::ratio(most, 1 << 20),
            bound / f64::from(1 << 20)
        )?;
    }
    Ok(())
}

/// Our recorder with these arguments.
///
/// # Errors
/// It is not there.
pub fn ours(record: &[String]) -> Result<Tool> {
    Tool::find(Kind::Tapedeck, None, record).context("tapedeck is looked for beside tapebench, then in PATH")
}

fn head(document: &Document) -> Result<()> {
    let (about, machine, setup) = (&document.setup.traffic, &document.machine, &document.setup);
    let mut out = std::io::stdout();
    writeln!(
        out,
        "{} on {} CPUs ({}), {} ({}, {} queues, MTU {})",
        machine.kernel,
        machine.cpus,
        machine.cpu_model,
        setup.link.interface,
        setup.link.driver,
        setup.link.queues,
        setup.link.mtu
    )?;
    writeln!(
        out,
        "traffic {}: {} packets in turn, {:.0} bytes each, {} flows ({} new each time), sender {} on CPU {:?}, \
         recorder on CPU {:?}",
        about.model,
        about.packets,
        about.mean_bytes,
        about.flows,
        about.renewed,
        setup.sender,
        setup.sender_cpus,
        setup.tool_cpus
    )?;
    if about.left_out > 0 {
        writeln!(
            out,
            "{} packets of the capture are left out: not of Ethernet, or too long",
            about.left_out
        )?;
    }
    writeln!(
        out,
        "\n{:<11} {:>9} {:>9} {:>7} {:>11} {:>11} {:>9} {:>10} {:>9} {:>6} {:>8} {:>8}",
        "",
        "asked",
        "placed/s",
        "Gbit/s",
        "placed",
        "on disk",
        "missing",
        "tool says",
        "cpu ns/p",
        "idle",
        "disk MB/s",
        "late us"
    )?;
    Ok(())
}

/// One line of a trial: "tool says" is the loss it owns up to, "late" how late 99 % of packets were made.
fn row(trial: &Trial, cpus: &[usize]) -> Result<()> {
    let asked = trial.wanted_pps.map_or_else(|| "unpaced".to_owned(), |pps| format!("{pps:.0}"));
    let said = trial.own.lost.map_or_else(|| "-".to_owned(), |lost| lost.to_string());
    let late = trial.pacing.map_or_else(|| "-".to_owned(), |pacing| format!("{:.0}", pacing.p99_us));
    let idle = cpus.iter().filter_map(|cpu| trial.idle.get(cpu)).copied().fold(0.0, f64::max);
    let marks = [(trial.short, " short"), (trial.purpose == "common", " common load")];
    let marks: String = marks.iter().filter(|(is, _)| *is).map(|(_, mark)| *mark).collect();
    writeln!(
        std::io::stdout(),
        "{:<11} {asked:>9} {:>9.0} {:>7.2} {:>11} {:>11} {:>9} {said:>10} {:>9.0} {:>5.0}% {:>9.0} {late:>8}{marks}",
        trial.tool,
        trial.pps,
        trial.bits_per_second / 1e9,
        trial.placed,
        trial.on_disk,
        trial.missing,
        trial.cpu_ns_per_packet,
        100.0 * idle,
        trial.disk_bytes_per_second / 1e6,
    )?;
    let more = [
        (trial.cut, "stored without all of their payload"),
        (trial.twice, "twice on disk"),
        (trial.out_of_order, "out of order"),
    ];
    for (count, what) in more {
        if count > 0 {
            writeln!(std::io::stdout(), "{:<11} {count} packets {what}", "")?;
        }
    }
    Ok(())
}

fn tail(document: &Document) -> Result<()> {
    let mut out = std::io::stdout();
    writeln!(out)?;
    for outcome in &document.outcomes {
        let Outcome { tool, median_pps, spread_pps: [low, high], zero_loss_pps, .. } = outcome;
        let rate = outcome.median_bits_per_second / 1e9;
        let count = zero_loss_pps.len();
        write!(out, "{tool}: nothing lost up to {median_pps:.0} packets/s, {rate:.2} Gbit/s")?;
        write!(out, " (median of {count}; {low:.0} to {high:.0})")?;
        if outcome.generator_bound {
            write!(out, "; the generator makes no more: the recorder may hold more")?;
        }
        if let Some(idle) = outcome.idle {
            write!(out, "; its CPU was idle for {:.0} %", 100.0 * idle)?;
        }
        if let Some(kept) = outcome.kept_at_limit {
            let limit = outcome.generator_pps;
            write!(out, "; of {limit:.0} packets/s it kept {:.1} %", 100.0 * kept)?;
        }
        if let Some(ns) = outcome.common_cpu_ns {
            write!(out, "; {ns:.0} ns of CPU a packet at the common load")?;
        }
        writeln!(out)?;
    }
    threads(document)?;
    files_and_memory(document)?;
    if document.outcomes.iter().any(|outcome| outcome.short) {
        let limit = document.machine.dirty_limit_bytes >> 20;
        writeln!(
            out,
            "\nTrials were short: less than 20 s, or less than twice the {limit} MiB that the page cache takes. The \
             cache may hide the disk, and a ring may hide seconds of overload."
        )?;
    }
    Ok(())
}

fn lateness(late: &Latency) -> Result<()> {
    let mut out = std::io::stdout();
    let (pps, probes, found) = (late.load_pps, late.probes, late.searchable.count);
    writeln!(
        out,
        "\nfrom the wire, under {pps:.0} packets/s, {found} of {probes} probes, ms (p50, p99, p99.9, max):"
    )?;
    if late.lost > 0 {
        writeln!(
            out,
            "  {} packets were lost or cut meanwhile: this load is not below the limit",
            late.lost
        )?;
    }
    for (what, times) in
        [("in an answer", Some(&late.searchable)), ("durable, at most", late.durable.as_ref())]
    {
        let Some(times) = times else { continue };
        let [p50, p99, p999, max] =
            [times.p50_us, times.p99_us, times.p999_us, times.max_us].map(|us| us / 1e3);
        writeln!(out, "  {what:<16} {p50:>8.1} {p99:>8.1} {p999:>8.1} {max:>8.1}")?;
    }
    Ok(())
}

/// Where our recorder's time goes, in its fastest trial without loss.
fn threads(document: &Document) -> Result<()> {
    let ours = document.trials.iter().filter(|trial| trial.tool == Kind::Tapedeck.name() && !trial.lost());
    let Some(trial) = ours.max_by(|a, b| a.pps.total_cmp(&b.pps)) else { return Ok(()) };
    writeln!(std::io::stdout(), "\ntapedeck at {:.0} packets/s, by thread (ns a packet, busy):", trial.pps)?;
    for thread in &trial.threads {
        writeln!(
            std::io::stdout(),
            "  {:<16} {:>8.1} {:>5.0} %",
            thread.name,
            thread.ns_per_packet,
            100.0 * thread.busy
        )?;
    }
    Ok(())
}
