//! The demo: what the product does, on this machine, in a minute, with nothing but what it makes itself.
//!
//! The pipeline: build -> three namespaces and a mirror -> `tapedeck record` on the mirror port -> real traffic
//! -> one conversation back while recording runs -> SIGTERM, ledger -> the same conversation from the sealed
//! store -> the store read without us. Every step checks itself against something that is not ours: the bytes
//! the client's sockets saw, the kernel's own counters, tcpdump, zstd. It must never say `ok` of what it did
//! not compare.

mod answer;
mod lab;
mod ledger;
mod pcap;
pub(crate) mod process;
mod store;
pub(crate) mod talk;
mod traffic;

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use cargo_metadata::MetadataCommand;

use self::answer::Question;
use self::lab::{Lab, TAP};
use self::ledger::{Ledger, grouped};
use self::process::{Finished, Interrupt, Service};
use self::store::Store;
use self::traffic::Plan;
use crate::packages::{self, For};
use crate::{bpffs, repo, steps};

/// How long the recorder may take until it is ready.
const READY_TIMEOUT: Duration = Duration::from_secs(30);
/// How long a packet may take until it can be retrieved, by promise.
const FRESH: Duration = Duration::from_secs(1);

/// What the user asked for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Options {
    /// Play this capture onto the mirror port instead of making conversations
    #[arg(long, value_name = "FILE")]
    pcap: Option<PathBuf>,
    /// Leave the store behind and say where it is
    #[arg(long)]
    keep: bool,
}

/// Whether each claim held.
#[derive(Debug, Default)]
pub(crate) struct Checks {
    held: u32,
    failed: u32,
}

impl Checks {
    /// Prints a claim with its verdict.
    pub(crate) fn note(&mut self, held: bool, claim: &str) {
        println!("     {}  {claim}", if held { "ok    " } else { "FAILED" });
        if held {
            self.held += 1;
        } else {
            self.failed += 1;
        }
    }

    /// A claim that holds if `result` does; its words or its error follow.
    pub(crate) fn note_result(&mut self, claim: &str, result: Result<String>) {
        match result {
            Ok(words) => self.note(true, &format!("{claim}: {words}")),
            Err(error) => self.note(false, &format!("{claim}: {error:#}")),
        }
    }
}

/// Where the two commands are.
#[derive(Debug)]
pub(crate) struct Binaries {
    tapedeck: PathBuf,
    pub(crate) taperead: PathBuf,
}

/// Runs the demo. True if every check held.
pub(crate) fn run(root: &Path, options: &Options) -> Result<bool> {
    let started = Instant::now();
    if !packages::is_root() {
        bail!(
            "the demo makes network namespaces: run it as root (`sudo -E env PATH=\"$PATH\" cargo xtask demo`)"
        );
    }
    let interrupt = Interrupt::register()?;
    println!("tapedeck demo: record a link, get one conversation back, check the books\n");
    println!("0. Build");
    let mut needed = vec![For::Build, For::Demo];
    needed.extend(options.pcap.is_some().then_some(For::Replay));
    println!("     Debian packages: {}", packages::install_missing(&needed)?);
    println!("     BPF file system: {}", bpffs::ready()?);
    let (binaries, target) = build(root)?;
    println!("     built in {:.0} s", started.elapsed().as_secs_f64());

    let plan = Plan::new(options.pcap.as_deref(), &interrupt)?;
    let store = Store::new(&target.join("demo"), options.keep)?;
    let lab = Lab::new(plan.mtu(), &interrupt)?;
    println!("\n1. A small network, apart from yours\n{}", plan.drawing());

    let mut checks = Checks::default();
    show(&plan, &lab, &store, &binaries, &interrupt, &mut checks)?;
    drop(lab);
    println!("\n{}", store.farewell(&binaries.taperead));
    println!(
        "{} checks held, {} failed; {:.0} s in all",
        checks.held,
        checks.failed,
        started.elapsed().as_secs_f64()
    );
    Ok(checks.failed == 0)
}

fn build(root: &Path) -> Result<(Binaries, PathBuf)> {
    let packages = ["build", "--locked", "--package", "tapedeck-capture", "--package", "tapedeck-query"];
    steps::plain(repo::cargo(root).args(packages).arg("--bins")).context("cargo build")?;
    let metadata = MetadataCommand::new().current_dir(root).no_deps().exec().context("cargo metadata")?;
    let target = metadata.target_directory.into_std_path_buf();
    let built = target.join("debug");
    Ok((Binaries { tapedeck: built.join("tapedeck"), taperead: built.join("taperead") }, target))
}

fn show(
    plan: &Plan,
    lab: &Lab,
    store: &Store,
    binaries: &Binaries,
    interrupt: &Interrupt,
    checks: &mut Checks,
) -> Result<()> {
    println!("\n2. Record the mirror port");
    let recorder = record(lab, store, binaries, interrupt)?;
    let mirrored_before = lab.mirrored_frames()?;

    println!("\n3. {}", plan.title());
    let question = plan.run(lab, store, interrupt)?;
    let ended = Instant::now();

    println!("\n4. Get one conversation back while recording goes on");
    let live = store.file("while-recording.pcapng");
    let asked = question.ask_until_whole(binaries, store, &live, ended, interrupt);
    let fresh = asked.as_ref().ok().copied();
    checks.note_result("the answer, live", asked.map(|_| question.claim()));
    if let Some(age) = fresh {
        let within = if age <= FRESH { "within" } else { "later than" };
        println!(
            "     whole {:.2} s after the last packet ({within} the promised second)",
            age.as_secs_f64()
        );
    }

    println!("\n5. tcpdump reads it");
    print!("{}", answer::first_lines(&live, interrupt)?);

    println!("\n6. Stop recording (SIGTERM): drain, seal, close the books");
    lab.stop_mirror_if(plan.mirrors())?;
    let mirrored = lab.mirrored_frames()? - mirrored_before;
    let ledger = stop(recorder, interrupt)?;
    print!("\n{}\n", ledger.table());
    check_books(&ledger, mirrored, checks);

    println!("\n7. The same question to the sealed store");
    let sealed = store.file("after-recording.pcapng");
    let asked = question.ask(binaries, store, &sealed, interrupt);
    checks.note_result("the answer, sealed", asked.map(|()| question.claim()));
    check_store(&ledger, store, binaries, interrupt, checks)?;

    println!("\n8. In short");
    print!("{}", store.summary(ledger.total.stored, ledger.total.stored_bytes)?);
    Ok(())
}

/// Starts the recorder and waits until it is ready.
fn record(lab: &Lab, store: &Store, binaries: &Binaries, interrupt: &Interrupt) -> Result<Service> {
    println!("     $ tapedeck record --interface {TAP} --store {}", store.packets().display());
    let mut command = process::inside(&lab.sensor, &binaries.tapedeck);
    command.args(["record", "--interface", TAP, "--store"]).arg(store.packets());
    let started = Instant::now();
    let mut recorder = Service::start(command)?;
    let ready = recorder.wait_for("ready:", READY_TIMEOUT, interrupt)?;
    show_lines(&recorder.take_said());
    println!("     {ready}   (after {:.1} s)", started.elapsed().as_secs_f64());
    Ok(recorder)
}

fn stop(recorder: Service, interrupt: &Interrupt) -> Result<Ledger> {
    let Finished { status, stdout, stderr } = recorder.stop(interrupt)?;
    if !status.success() {
        bail!("tapedeck record: {status}: {stderr}");
    }
    show_lines(&stderr.lines().map(str::to_owned).collect::<Vec<_>>());
    Ledger::parse(&stdout)
}

/// The recorder's own words.
fn show_lines(lines: &[String]) {
    for line in lines {
        println!("     | {line}");
    }
}

fn check_books(ledger: &Ledger, mirrored: u64, checks: &mut Checks) {
    let total = &ledger.total;
    checks.note(total.balances(), "every packet stands in exactly one column, none unaccounted for");
    let claim = format!(
        "the kernel put {} frames on the mirror, the ledger saw {}",
        grouped(mirrored),
        grouped(total.seen)
    );
    checks.note(mirrored == total.seen, &claim);
    let claim = format!("{} of {} packets stored", grouped(total.stored), grouped(total.seen));
    checks.note(total.stored == total.seen && total.seen > 0, &claim);
}

/// Counts the packets of the sealed store with the reader, and again without any command of ours.
fn check_store(
    ledger: &Ledger,
    store: &Store,
    binaries: &Binaries,
    interrupt: &Interrupt,
    checks: &mut Checks,
) -> Result<()> {
    let stored = ledger.total.stored;
    let counted = Question::count_all(binaries, store, interrupt)?;
    checks.note(counted == stored, &format!("taperead packets --count finds {}", grouped(counted)));

    let mut plain = 0;
    for segment in store.segments()? {
        plain += answer::count_without_us(&segment, interrupt)?;
    }
    let claim = format!("zstd -dc SEGMENT | tcpdump -r - finds {}", grouped(plain));
    checks.note(plain == stored, &claim);

    let mut verify = process::bound(&binaries.tapedeck.to_string_lossy());
    verify.args(["verify", "--store"]).arg(store.packets());
    let verified = process::run(verify, Vec::new(), interrupt)?;
    checks.note(verified.status.success(), "tapedeck verify: every frame, index and checksum holds");
    if !verified.status.success() {
        println!("{}", verified.stderr.trim());
    }
    Ok(())
}

/// A command that runs this program's own hidden half `name` in `namespace`.
fn own_half(namespace: &str, name: &str) -> Result<Command> {
    let mut command = process::inside(namespace, &env::current_exe().context("own path")?);
    command.arg(name);
    Ok(command)
}
