//! tapebench: measurement for planners.

#![forbid(unsafe_code)]

use anyhow::{Context as _, Result, bail};
use clap::{Parser, Subcommand};
use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use tapedeck_bench::capacity::{Load as Capacity, Run, ours};
use tapedeck_bench::latency::{AtRate, measure};
use tapedeck_bench::needle::{self, large};
use tapedeck_bench::plan;
use tapedeck_bench::recorder::check_balance;
use tapedeck_bench::report;
use tapedeck_bench::stages;
use tapedeck_bench::time::{self, Load};
use tapedeck_bench::tools::{Kind, Tool};
use tapedeck_bench::{interrupt, machine, search, trial};
use tapedeck_capture::units::size_bytes;

/// Measures what a box can record, with the recorder that will run on it.
#[derive(Debug, Parser)]
#[command(name = "tapebench", version, disable_help_subcommand = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// The highest rate at which nothing is lost, end to end, on a veth pair that this command makes and removes.
    ///
    /// Searches by halving (RFC 2544). In each trial `tapedeck record` runs with everything on, numbered packets are
    /// sent, and afterwards they are counted on disk; the recorder's ledger must agree to the packet, or the command
    /// fails. The first trial is as fast as the generator goes. Trials take at least 20 s and twice the bytes that the
    /// page cache takes, so a run takes many minutes and gigabytes. In the end 80 % of the rate is sent, and it is measured
    /// how long packets take from the wire until `taperead` finds them, and until they are durable.
    ///
    /// With --latency or --rates: how late packets are, at low rates. Numbered, stamped packets are sent while
    /// `tapedeck record` runs, and `taperead` is asked for them all the time; prints how far stamps stand from the
    /// sender's clock and how long a packet takes from the wire until it is retrieved.
    Line(Line),
    /// The same search with tcpdump, dumpcap, netsniff-ng and stenotype, as far as they are installed.
    ///
    /// All run in turn on the same link, the same CPUs and the same packets, so that what else happens on the machine
    /// meets them alike; then all get one common load, at which their CPU time is compared. Packets are counted on
    /// disk, whatever a tool says.
    Compare(Compare),
    /// What a packet costs in each stage of a recording, and what a disk and a query do, each alone.
    ///
    /// Packets of established TCP connections, in random order over all of them unless --train says otherwise.
    /// Header walk, session table, append (copy, index, compression, into a sink that keeps nothing), and all
    /// together with records and statistics, also under pressure, when it is asked of each packet how much its session
    /// has had. In one run, round by round; medians.
    /// Before them what one core does to the same packets that lie in memory: copy, and compress at each level. Behind
    /// them the sidecar of a segment, part by part.
    ///
    /// With --folder also the disk: the recorder's sink beside fio (if it is installed), and `taperead` on a store beside
    /// what one core inflates. With --callgrind the instructions of each stage.
    Stages(stages::command::Args),
    /// How true packets are stamped, on a veth pair that this command makes and removes.
    ///
    /// Sends packets that carry their sender's clock, first with pauses, then as a flood, and compares every stored
    /// packet's stamp with it: median, 99.9th percentile and largest difference, the share of equal stamps in a
    /// row, and steps back. Fails if the recorder's ledger does not balance.
    Time(Time),
    /// What to buy for a link: CPUs, queues, disks, memory and days, from results of `line`, and what ends first.
    ///
    /// What a result vouches for is the rate at and below which no trial lost or cut anything, and what a packet cost
    /// there; all else is arithmetic, and each step beyond what was measured is named. A result with a trial whose books
    /// do not add up is refused. `tapebench line --traffic 64 --out small.json`, the same with 1518, and
    /// `tapebench plan --result small.json --result large.json --traffic internet --link 100G --utilisation 30%`.
    Plan(plan::Args),
    /// One page of results: machine, commands, trials and plots, and a plan if there is one.
    ///
    /// The page needs nothing beside itself, loads nothing and runs nothing. With --json all results in one object.
    Report(report::Args),
    /// Look-ups over very many segments: one flow, host, port or network, without a time.
    ///
    /// Makes a store of small segments through the writer, asks `taperead` with cold and warm caches, without and with
    /// packs, and removes the store. Fails if a look-up finds another number of packets than there are. Needs about
    /// 20 KB of disk a segment; caches are dropped for the whole machine where that is allowed. With --stored: one flow
    /// in one large store, and the same with `zstd` and `tcpdump`.
    Needle(Needle),
}

#[derive(Debug, clap::Args)]
struct Needle {
    /// Segments, several numbers separated by commas.
    #[arg(long, value_delimiter = ',', default_value = "1000,10000", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    segments: Vec<u32>,
    /// Flows of a segment, of two packets each.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    flows: u32,
    /// Look-ups of each kind, with cold and with warm caches.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rounds: u32,
    /// Look-ups of each kind without packs, which may take minutes.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    rounds_without: u32,
    /// Instead: one store of so many stored bytes, of the model `internet` in segments of 1 GiB. One flow after the other
    /// is asked for with cold caches, and `zstd -dc` with `tcpdump` looks for the first of them (--rounds-without) in all
    /// segments, too. Takes as many bytes of disk.
    #[arg(long, value_name = "SIZE", value_parser = size_bytes)]
    stored: Option<u64>,
    /// Packets for a second of its time, with --stored.
    #[arg(long, value_name = "PPS", default_value_t = 100_000, value_parser = clap::value_parser!(u64).range(1..=1_000_000_000))]
    stored_pps: u64,
    /// Seed of the flows.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Folder for the store; a temporary one by default. The store is removed afterwards.
    #[arg(long)]
    folder: Option<PathBuf>,
    /// Print the result as JSON on stdout.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, clap::Args)]
struct Time {
    /// Seconds of each of the two loads.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Packets per second of the idle load.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    idle_rate: u32,
    /// Bytes of a packet, 66 to 1514.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u16).range(66..=1514))]
    bytes: u16,
    /// Print the result as JSON on stdout.
    #[arg(long)]
    json: bool,
    /// Further arguments for `tapedeck record`, after `--`.
    #[arg(last = true)]
    record: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct Line {
    #[command(flatten)]
    load: Capacity,
    /// Searches; the median counts.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// The search ends when the highest rate without loss and the lowest with differ by no more than this share.
    #[arg(long, default_value_t = 0.02)]
    resolution: f64,
    /// Do not measure afterwards how late packets are at 80 % of the rate that was found.
    #[arg(long)]
    no_latency: bool,
    /// Measure how late packets are at low rates, and search nothing.
    #[arg(long)]
    latency: bool,
    /// Packets per second for --latency, several separated by commas. The last 200 packets of each rate count.
    /// 1, 10, 100, 1000 and 10000 by default.
    #[arg(long, value_delimiter = ',', value_parser = clap::value_parser!(u32).range(1..=200_000))]
    rates: Vec<u32>,
    /// Further arguments for `tapedeck record`, after `--`.
    #[arg(last = true)]
    record: Vec<String>,
}

#[derive(Debug, clap::Args)]
struct Compare {
    #[command(flatten)]
    load: Capacity,
    /// Searches of each tool; the median counts.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: u32,
    /// A search ends when the highest rate without loss and the lowest with differ by no more than this share.
    #[arg(long, default_value_t = 0.1)]
    resolution: f64,
    /// Tools, separated by commas; all that are installed by default.
    #[arg(long, value_delimiter = ',', value_name = "NAME")]
    only: Vec<String>,
    /// Where a tool's program lies, if not in PATH: `stenotype=/opt/stenotype`. May be given several times.
    #[arg(long, value_name = "NAME=PATH")]
    tool: Vec<String>,
    /// The load that all get in the end, packets a second; 80 % of what the weakest holds by default.
    #[arg(long, value_name = "PPS")]
    common: Option<f64>,
    /// Further arguments for `tapedeck record`, after `--`.
    #[arg(last = true)]
    record: Vec<String>,
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    let outcome = interrupt::heed().context("heeding signals").and_then(|()| run(cli));
    interrupt::settle();
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let mut text = format!("error: {error}\n");
            for cause in error.chain().skip(1) {
                text.push_str(&format!("Caused by: {cause}\n"));
            }
            let _ = std::io::stderr().write_all(text.as_bytes());
            ExitCode::from(2)
        }
    }
}

fn run(cli: Cli) -> Result<()> {
    match cli.command {
        Command::Line(line) if line.latency || !line.rates.is_empty() => run_latency(&line),
        Command::Line(line) => run_line(&line),
        Command::Compare(compare) => run_compare(&compare),
        Command::Stages(stages) => stages::command::run(&stages),
        Command::Time(time) => run_time(&time),
        Command::Plan(args) => plan::run(&args),
        Command::Report(args) => report::run(&args),
        Command::Needle(needle) => run_needle(&needle),
    }
}

/// One flow in one large store.
fn run_large(args: &Needle, stored_bytes: u64) -> Result<()> {
    let options = large::Options {
        stored_bytes,
        pps: args.stored_pps,
        rounds: args.rounds,
        rounds_without: args.rounds_without,
        seed: args.seed,
    };
    let folder = trial::folder(args.folder.as_deref())?;
    let folder = interrupt::folder(Some(folder.as_path()))?;
    let mut out = std::io::stdout();
    if !args.json {
        writeln!(
            out,
            "{:>14} {:>9} {:>9} {:>13} {:>23} {:>8}  flow",
            "first pkt, ms", "all, ms", "packets", "disk bytes", "zstd and tcpdump, ms", "times"
        )?;
    }
    let figures = large::measure(folder.path(), &options, |found| {
        if !args.json {
            let without = found.without_ms.map_or_else(String::new, |ms| format!("{ms:.0}"));
            let times = found.without_ms.map_or_else(String::new, |ms| format!("{:.0}", ms / found.all_ms));
            let large::LookUp { filter, packets, first_ms, all_ms, disk_bytes, .. } = found;
            let _ = writeln!(
                std::io::stdout(),
                "{first_ms:>14.1} {all_ms:>9.1} {packets:>9} {disk_bytes:>13} {without:>23} {times:>8}  {filter}"
            );
        }
    })?;
    if args.json {
        writeln!(out, "{}", serde_json::json!({ "version": 1, "large": figures }))?;
        return Ok(());
    }
    let median = |of: &dyn Fn(&large::LookUp) -> f64| {
        search::median(&figures.look_ups.iter().map(of).collect::<Vec<_>>())
    };
    writeln!(
        out,
        "\nmedian of {}: first packet {:.1} ms, all {:.1} ms; {} packets in {} segments of {} bytes, sidecars {} bytes \
         ({:.3} %), written in {:.0} s",
        figures.look_ups.len(),
        median(&|found| found.first_ms),
        median(&|found| found.all_ms),
        figures.packets,
        figures.segments,
        figures.segment_bytes,
        figures.sidecar_bytes,
        100.0 * machine::ratio(figures.sidecar_bytes, figures.segment_bytes),
        figures.write_s
    )?;
    if let Some(why) = &figures.not_cold {
        writeln!(out, "caches could not be dropped, so nothing was cold ({why})")?;
    }
    Ok(())
}

fn run_needle(args: &Needle) -> Result<()> {
    if let Some(stored) = args.stored {
        return run_large(args, stored);
    }
    let mut out = std::io::stdout();
    if !args.json {
        writeln!(
            out,
            "{:>8}  {:5}  {:6}  {:27} {:>9} {:>9} {:>8} {:>12} {:>9}",
            "segments", "packs", "caches", "look-up", "p50, ms", "p99, ms", "reads", "disk bytes", "packets"
        )?;
    }
    let mut runs = Vec::new();
    for segments in &args.segments {
        let options = needle::Options {
            segments: *segments,
            flows: args.flows,
            rounds: args.rounds,
            rounds_without: args.rounds_without,
            seed: args.seed,
        };
        let folder = interrupt::folder(args.folder.as_deref())?;
        let run = needle::measure(folder.path(), &options, |f| {
            if !args.json && f.rounds > 0 {
                let (packs, caches) =
                    (if f.packs { "with" } else { "none" }, if f.cold { "cold" } else { "warm" });
                let _ = writeln!(
                    std::io::stdout(),
                    "{:>8}  {packs:5}  {caches:6}  {:27} {:>9.1} {:>9.1} {:>8} {:>12} {:>9}",
                    f.segments,
                    f.what,
                    f.p50_ms,
                    f.p99_ms,
                    f.read_calls,
                    f.disk_bytes,
                    f.matched
                );
            }
        })?;
        if !args.json {
            writeln!(
                out,
                "{:>8}  segments {} bytes in {:.0} s, sidecars {} bytes; {} packs {} bytes in {:.1} s\n",
                run.segments,
                run.segment_bytes,
                run.write_s,
                run.sidecar_bytes,
                run.packs,
                run.pack_bytes,
                run.build_s
            )?;
            if let Some(why) = &run.not_cold {
                writeln!(out, "caches could not be dropped, so nothing was cold ({why})\n")?;
            }
        }
        runs.push(run);
    }
    if args.json {
        writeln!(out, "{}", serde_json::json!({ "version": 1, "runs": runs }))?;
    }
    Ok(())
}

fn run_time(args: &Time) -> Result<()> {
    let folder = interrupt::folder(None)?;
    let mut out = std::io::stdout();
    if !args.json {
        writeln!(out, "{:>5} {:>9} {:>9} {:>9}  stamp - sender's clock, us", "", "pps", "sent", "stored")?;
        writeln!(
            out,
            "{:>35}  {:>7} {:>7} {:>8}  {:>9}  {:>11} {:>11}",
            "", "p50", "p99.9", "max", "equal", "steps back", "largest, ns"
        )?;
    }
    let (mut all, mut ledgers) = (Vec::new(), Vec::new());
    let mut recorder = String::new();
    for (name, load) in [("idle", Load::Idle(args.idle_rate)), ("flood", Load::Flood)] {
        let store = folder.path().join(name);
        let span = std::time::Duration::from_secs(args.seconds);
        let (stamps, ready, ledger) =
            time::measure(&store, load, span, usize::from(args.bytes), &args.record)?;
        if !args.json {
            let [p50, p999, max] = stamps.error_us;
            let (pps, sent, stored, share) =
                (stamps.rate_pps, stamps.sent, stamps.stored, 100.0 * stamps.equal_share);
            let (back, largest) = (stamps.regressions, stamps.regression_max_ns);
            writeln!(
                out,
                "{name:>5} {pps:>9} {sent:>9} {stored:>9}  {p50:>7.1} {p999:>7.1} {max:>8.1}  {share:>7.4} %  \
                 {back:>11} {largest:>11}"
            )?;
        }
        recorder = ready;
        all.push(stamps);
        ledgers.push(ledger);
    }
    if args.json {
        let value =
            serde_json::json!({ "version": 1, "recorder": recorder, "loads": all, "ledgers": ledgers });
        writeln!(out, "{value}")?;
    } else {
        writeln!(out, "\n{recorder}")?;
    }
    ledgers.iter().try_for_each(check_balance)
}

/// A share that a search can come near to.
fn resolution(share: f64) -> Result<f64> {
    if !(0.001..=0.5).contains(&share) {
        bail!("a search comes near by 0.001 to 0.5 of the rate, not {share}");
    }
    Ok(share)
}

fn run_line(line: &Line) -> Result<()> {
    let run = Run {
        kind: "line",
        load: &line.load,
        tools: vec![ours(&line.record)?],
        record: &line.record,
        rounds: line.rounds,
        resolution: resolution(line.resolution)?,
        common: None,
    };
    capacity(&run, !line.no_latency)
}

fn capacity(run: &Run<'_>, latency: bool) -> Result<()> {
    let document = run.run(&run.load.ground()?, latency)?;
    if run.load.json {
        writeln!(std::io::stdout(), "{}", serde_json::to_string(&document)?)?;
    }
    Ok(())
}

fn run_compare(compare: &Compare) -> Result<()> {
    let run = Run {
        kind: "compare",
        load: &compare.load,
        tools: tools(compare)?,
        record: &compare.record,
        rounds: compare.rounds,
        resolution: resolution(compare.resolution)?,
        common: compare.common,
    };
    capacity(&run, false)
}

/// The tools that were asked for, or all that are here; says which are not.
fn tools(compare: &Compare) -> Result<Vec<Tool>> {
    let named = |name: &str| Kind::ALL.into_iter().find(|kind| kind.name() == name);
    let unknown = |name: &str| format!("no tool {name}; there are {}", Kind::ALL.map(Kind::name).join(", "));
    let mut paths = BTreeMap::new();
    for pair in &compare.tool {
        let (name, path) =
            pair.split_once('=').with_context(|| format!("--tool {pair}: NAME=PATH is wanted"))?;
        paths.insert(named(name).with_context(|| unknown(name))?, PathBuf::from(path));
    }
    let mut wanted = Vec::new();
    for name in &compare.only {
        wanted.push(named(name).with_context(|| unknown(name))?);
    }
    let mut found = Vec::new();
    for kind in Kind::ALL {
        if !wanted.is_empty() && !wanted.contains(&kind) {
            continue;
        }
        let extra = if kind == Kind::Tapedeck { compare.record.as_slice() } else { &[] };
        match Tool::find(kind, paths.get(&kind).map(PathBuf::as_path), extra) {
            Ok(tool) => found.push(tool),
            // One that was named must be there.
            Err(error) if wanted.contains(&kind) || paths.contains_key(&kind) => return Err(error),
            Err(error) => writeln!(std::io::stderr(), "note: not compared: {error}")?,
        }
    }
    Ok(found)
}

fn run_latency(line: &Line) -> Result<()> {
    if line.load.interface.is_some() || line.load.resume.is_some() || line.load.out.is_some() {
        bail!("--interface, --out and --resume are of the search; --latency makes a link of its own");
    }
    let default = [1, 10, 100, 1_000, 10_000];
    let rates = if line.rates.is_empty() { &default[..] } else { &line.rates };
    let temporary;
    let store = match &line.load.store {
        Some(store) => store.clone(),
        None => {
            temporary = interrupt::folder(None)?;
            temporary.path().join("store")
        }
    };
    let mut out = std::io::stdout();
    if !line.load.json {
        writeln!(
            out,
            "{:>9}  {:>8}  {:>27}  {:>30}",
            "", "", "stamp - sender's clock, us", "wire to retrieved, ms"
        )?;
        writeln!(
            out,
            "{:>9}  {:>8}  {:>8} {:>8} {:>9}  {:>9} {:>9} {:>10}",
            "pps", "sent", "p50", "p99", "max", "p50", "p99", "max"
        )?;
    }
    let (ready, results, ledger) = measure(&store, rates, &line.record, |result| {
        if !line.load.json {
            let _ = row(&mut std::io::stdout(), result);
        }
    })?;
    if line.load.json {
        let value =
            serde_json::json!({ "version": 1, "recorder": ready, "rates": results, "ledger": ledger });
        writeln!(out, "{value}")?;
    } else {
        writeln!(out, "\n{ready}\nledger: {}", ledger.get("total").context("the ledger has no total")?)?;
    }
    // Figures of a recorder that lost count are worth nothing.
    check_balance(&ledger)
}

fn row(out: &mut impl std::io::Write, r: &AtRate) -> std::io::Result<()> {
    let (s, w) = (r.stamp_error, r.wire_to_retrieved);
    writeln!(
        out,
        "{:>9}  {:>8}  {:>8.1} {:>8.1} {:>9.1}  {:>9.1} {:>9.1} {:>10.1}",
        r.rate_pps,
        r.sent,
        s.p50_us,
        s.p99_us,
        s.max_us,
        w.p50_us / 1e3,
        w.p99_us / 1e3,
        w.max_us / 1e3
    )
}
