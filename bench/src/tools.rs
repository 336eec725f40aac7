//! The recorders that are compared: how each is started, when it listens, how it is ended, what it says of itself and
//! what it leaves on disk.
//!
//! Each gets the ring memory it is made for and otherwise its defaults, and is told to leave the machine's settings
//! alone. Nothing is believed: what a tool says stands beside what [`crate::check`] finds.

use crate::check::Tally;
use crate::link::Link;
use crate::recorder::{Recorder, binary};
use crate::result::{Own, ToolAbout, asks_to_cut, cut_packets};
use crate::sender::pin;
use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

/// Until it listens.
const START: Duration = Duration::from_secs(20);
/// Until the last block of stenotype is on disk, and until it is killed if it does not end.
const LAST_BLOCK: Duration = Duration::from_secs(4);
/// Until it has ended.
const END: Duration = Duration::from_secs(60);

/// A recorder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Ours.
    Tapedeck,
    /// tcpdump -w.
    Tcpdump,
    /// Wireshark's.
    Dumpcap,
    /// netsniff-ng.
    NetsniffNg,
    /// The recorder of Stenographer.
    Stenotype,
}

impl Kind {
    /// All, ours first.
    pub const ALL: [Self; 5] =
        [Self::Tapedeck, Self::Tcpdump, Self::Dumpcap, Self::NetsniffNg, Self::Stenotype];

    /// Its name, as that of its program.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Tapedeck => "tapedeck",
            Self::Tcpdump => "tcpdump",
            Self::Dumpcap => "dumpcap",
            Self::NetsniffNg => "netsniff-ng",
            Self::Stenotype => "stenotype",
        }
    }
}

/// A recorder that is installed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tool {
    /// Which.
    pub kind: Kind,
    /// Its program.
    pub program: PathBuf,
    /// First line of what it says of its version.
    pub version: String,
    /// Arguments beside those of [`Tool::arguments`].
    pub extra: Vec<String>,
}

impl Tool {
    /// Packets that our recorder stored without all of their payload, by its final ledger; 0 where `--snaplen` asked
    /// for that.
    #[must_use]
    pub fn cut(&self, ledger: Option<&serde_json::Value>) -> u64 {
        if asks_to_cut(&self.extra) { 0 } else { cut_packets(ledger) }
    }

    /// Finds it: at the path that is given, beside this program (ours), or in PATH.
    ///
    /// # Errors
    /// It is not there.
    pub fn find(kind: Kind, path: Option<&Path>, extra: &[String]) -> Result<Self> {
        let program = match path {
            Some(path) => path.to_owned(),
            None if kind == Kind::Tapedeck => binary(kind.name()),
            None => in_path(kind.name()).with_context(|| format!("{} is not in PATH", kind.name()))?,
        };
        let output = Command::new(&program).arg("--version").stdin(Stdio::null()).output();
        let output = output.with_context(|| format!("{} cannot be run", program.display()))?;
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        let named = |line: &&str| line.to_lowercase().contains(kind.name());
        // One of them does not know the option.
        let line = said.lines().find(named).filter(|_| output.status.success());
        let version = line.unwrap_or("unknown").trim().to_owned();
        Ok(Self { kind, program, version, extra: extra.to_vec() })
    }

    /// Its arguments for this interface and folder.
    #[must_use]
    pub fn arguments(&self, interface: &str, folder: &Path) -> Vec<String> {
        let file = |name: &str| folder.join(name).display().to_string();
        let words: Vec<String> = match self.kind {
            Kind::Tapedeck => words(&["record", "--interface", interface, "--store", &file("store")]),
            // 64 MiB of ring; root stays root, or it could not write into the folder.
            Kind::Tcpdump => words(&[
                "-i",
                interface,
                "-n",
                "-s",
                "0",
                "-B",
                "65536",
                "-Z",
                "root",
                "-w",
                &file("tcpdump.pcap"),
            ]),
            Kind::Dumpcap => words(&["-i", interface, "-q", "-B", "64", "-w", &file("dumpcap.pcapng")]),
            // It would move interrupts to its CPU and change the limits of socket memory.
            Kind::NetsniffNg => words(&[
                "--in",
                interface,
                "--out",
                &file("netsniff-ng.pcap"),
                "--silent",
                "--ring-size",
                "64MiB",
                "--notouch-irq",
                "--no-sock-mem",
                "--no-hwtimestamp",
            ]),
            // Its ring is of 2 GiB by default; it tells of losses only when it is asked to talk.
            Kind::Stenotype => {
                let (interface, folder) =
                    (format!("--iface={interface}"), format!("--dir={}", folder.display()));
                words(&[
                    &interface,
                    &folder,
                    "--threads=1",
                    "--seccomp=none",
                    "--uid=root",
                    "--gid=root",
                    "--blockage_sec=1",
                    "-v",
                ])
            }
        };
        words.into_iter().chain(self.extra.iter().cloned()).collect()
    }

    /// What stands in the result.
    #[must_use]
    pub fn about(&self, interface: &str) -> ToolAbout {
        let arguments = self.arguments(interface, Path::new("FOLDER"));
        let command = std::iter::once(self.kind.name().to_owned()).chain(arguments).collect();
        ToolAbout { name: self.kind.name().to_owned(), version: self.version.clone(), command }
    }

    /// Starts it on these CPUs and waits until it listens.
    ///
    /// # Errors
    /// It does not; its own words are in the error.
    pub fn start(&self, link: &Link, folder: &Path, cpus: &[usize]) -> Result<Running> {
        let mut command = link.command(&self.program);
        command.args(self.arguments(link.rx(), folder));
        if self.kind == Kind::Tapedeck {
            // The CPUs of the thread that starts it are its own.
            let thread = || {
                pin(cpus)?;
                Ok(Running::Ours(Recorder::spawn(command)?))
            };
            return std::thread::scope(|scope| scope.spawn(thread).join())
                .map_err(|_| anyhow::anyhow!("a thread panicked"))?;
        }
        if self.kind == Kind::Stenotype {
            for name in ["PKT0", "IDX0"] {
                std::fs::create_dir(folder.join(name)).context("making a folder for stenotype")?;
            }
        }
        Foreign::start(self, command, link, folder, cpus).map(Running::Foreign)
    }

    /// Counts what it has left in its folder.
    ///
    /// # Errors
    /// It cannot be read.
    pub fn count(&self, folder: &Path, tally: &mut Tally) -> Result<()> {
        match self.kind {
            Kind::Tapedeck => tally.store(&folder.join("store")),
            Kind::Tcpdump => tally.capture(&folder.join("tcpdump.pcap")),
            Kind::Dumpcap => tally.capture(&folder.join("dumpcap.pcapng")),
            Kind::NetsniffNg => tally.capture(&folder.join("netsniff-ng.pcap")),
            Kind::Stenotype => {
                let entries = std::fs::read_dir(folder.join("PKT0")).context("stenotype's packets")?;
                let mut files: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
                files.sort();
                files.iter().try_for_each(|file| tally.ring_blocks(0, file))
            }
        }
    }
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn in_path(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(system).map(|folder| folder.join(name)).find(|path| path.is_file())
}

/// A recorder under way; killed on drop unless it was ended.
#[derive(Debug)]
pub enum Running {
    /// Ours.
    Ours(Recorder),
    /// Another.
    Foreign(Foreign),
}

impl Running {
    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        match self {
            Self::Ours(recorder) => recorder.pid(),
            Self::Foreign(foreign) => foreign.child.id(),
        }
    }

    /// Ends it as an operator does, and returns what it says of itself, and our ledger. `nudge` lets a packet pass:
    /// one tool looks only then whether it shall end.
    ///
    /// # Errors
    /// It does not end, or ends badly.
    pub fn stop(self, nudge: &dyn Fn()) -> Result<(Own, Option<serde_json::Value>)> {
        match self {
            Self::Ours(recorder) => {
                let ledger = recorder.stop()?;
                Ok((of_ledger(&ledger), Some(ledger)))
            }
            Self::Foreign(foreign) => Ok((foreign.stop(nudge)?, None)),
        }
    }
}

/// Another's recorder.
#[derive(Debug)]
pub struct Foreign {
    child: Child,
    kind: Kind,
    /// What it says, on either stream.
    talk: PathBuf,
    /// Ends the thread that started it: stenotype ends with the thread that is its parent.
    _parent: Sender<()>,
}

impl Foreign {
    fn start(tool: &Tool, mut command: Command, link: &Link, folder: &Path, cpus: &[usize]) -> Result<Self> {
        let talk = folder.join("talk");
        let to = File::create(&talk).context("making a temporary file")?;
        let both = to.try_clone().context("making a temporary file")?;
        command.stdin(Stdio::null()).stdout(to).stderr(both);
        let ((tell, told), (parent, wait)) = (channel(), channel::<()>());
        let cpus = cpus.to_vec();
        std::thread::spawn(move || {
            let child = pin(&cpus).and_then(|()| command.spawn().context("the program cannot be started"));
            let _ = tell.send(child);
            let _ = wait.recv();
        });
        let child = told.recv().context("a thread ended")?;
        let child = child.with_context(|| format!("starting {}", tool.program.display()))?;
        let mut running = Self { child, kind: tool.kind, talk, _parent: parent };
        let ifindex = link.inside(|| nix::net::if_::if_nametoindex(link.rx()).context("the link is gone"))?;
        let deadline = Instant::now() + START;
        while !listens(running.child.id(), ifindex) {
            if running.child.try_wait()?.is_some() || Instant::now() > deadline {
                bail!("{} does not listen:\n{}", tool.kind.name(), running.said());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        // It has its socket; its ring may follow.
        std::thread::sleep(Duration::from_millis(500));
        Ok(running)
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&std::fs::read(&self.talk).unwrap_or_default()).into_owned()
    }

    fn stop(mut self, nudge: &dyn Fn()) -> Result<Own> {
        if let Some(status) = self.child.try_wait()? {
            bail!("{} ended by itself with {status}:\n{}", self.kind.name(), self.said());
        }
        let quiet = self.kind == Kind::Stenotype;
        if quiet {
            // Its last block goes to disk a second after the first packet in it, when another one comes.
            let until = Instant::now() + LAST_BLOCK;
            while Instant::now() < until {
                nudge();
                std::thread::sleep(Duration::from_millis(20));
            }
        }
        kill(Pid::from_raw(i32::try_from(self.child.id())?), Signal::SIGINT).context("ending a tool")?;
        let deadline = Instant::now() + if quiet { LAST_BLOCK } else { END };
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline && quiet {
                // All is on disk, and it waits for packets for ever.
                self.child.kill().context("ending a tool")?;
            } else if Instant::now() > deadline {
                bail!("{} does not end after {END:?}:\n{}", self.kind.name(), self.said());
            }
            if quiet {
                nudge();
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(own(self.kind, &self.said()))
    }
}

impl Drop for Foreign {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// A packet socket of the process's namespace is bound to the interface.
fn listens(pid: u32, ifindex: u32) -> bool {
    let text = std::fs::read_to_string(format!("/proc/{pid}/net/packet")).unwrap_or_default();
    // sk RefCnt Type Proto Iface R Rmem User Inode
    let bound = |line: &str| line.split_whitespace().nth(4).is_some_and(|word| word == ifindex.to_string());
    text.lines().skip(1).any(bound)
}

/// What our ledger says.
fn of_ledger(ledger: &serde_json::Value) -> Own {
    let total = ledger.get("total");
    let number = |value: Option<&serde_json::Value>| value.and_then(serde_json::Value::as_u64);
    let dropped = total.and_then(|total| total.get("dropped")).and_then(serde_json::Value::as_object);
    let causes: std::collections::BTreeMap<_, _> = dropped
        .into_iter()
        .flatten()
        .filter_map(|(cause, count)| Some((cause.clone(), number(Some(count))?)))
        .filter(|(_, count)| *count > 0)
        .collect();
    let lost = dropped.is_some().then(|| causes.values().sum());
    Own { kept: number(total.and_then(|total| total.get("stored"))), lost, causes }
}

/// What a tool says when it ends.
fn own(kind: Kind, said: &str) -> Own {
    // The number before, or behind, some words.
    let before = |words: &str| {
        let line = said.lines().rev().find(|line| line.contains(words))?;
        line.split(words).next()?.split_whitespace().next_back()?.parse().ok()
    };
    let behind = |words: &str| {
        let rest = said.rsplit_once(words)?.1.trim_start();
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().ok()
    };
    let (kept, lost) = match kind {
        Kind::Tapedeck => (None, None),
        Kind::Tcpdump => (before(" packets captured"), before(" packets dropped by kernel")),
        // Packets received/dropped on interface 'rx0': 10/2 (pcap:2/dumpcap:0/flushed:0/ps_ifdrop:0) (83.3%)
        Kind::Dumpcap => {
            let line = said.lines().rev().find(|line| line.starts_with("Packets received/dropped"));
            let counts = line.and_then(|line| line.rsplit_once("': ")).map(|(_, counts)| counts);
            let counts = counts.and_then(|counts| counts.split(' ').next()?.split_once('/'));
            counts.map_or((None, None), |(kept, lost)| (kept.parse().ok(), lost.parse().ok()))
        }
        Kind::NetsniffNg => (before(" packets passed filter"), before(" packets failed filter")),
        Kind::Stenotype => (behind("packets="), behind("drops=")),
    };
    Own { kept, lost, causes: std::collections::BTreeMap::new() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tool(kind: Kind, extra: &[&str]) -> Tool {
        Tool { kind, program: kind.name().into(), version: "1".to_owned(), extra: words(extra) }
    }

    #[test]
    fn each_tool_has_its_command_line() {
        let line = |kind, extra| tool(kind, extra).about("rx0").command.join(" ");
        assert_eq!(
            line(Kind::Tapedeck, &["--level", "off"]),
            "tapedeck record --interface rx0 --store FOLDER/store --level off"
        );
        assert_eq!(
            line(Kind::Tcpdump, &[]),
            "tcpdump -i rx0 -n -s 0 -B 65536 -Z root -w FOLDER/tcpdump.pcap"
        );
        assert_eq!(line(Kind::Dumpcap, &[]), "dumpcap -i rx0 -q -B 64 -w FOLDER/dumpcap.pcapng");
        assert_eq!(
            line(Kind::NetsniffNg, &[]),
            "netsniff-ng --in rx0 --out FOLDER/netsniff-ng.pcap --silent --ring-size 64MiB --notouch-irq \
             --no-sock-mem --no-hwtimestamp"
        );
        assert_eq!(
            line(Kind::Stenotype, &[]),
            "stenotype --iface=rx0 --dir=FOLDER --threads=1 --seccomp=none --uid=root --gid=root \
             --blockage_sec=1 -v"
        );
    }

    #[test]
    fn what_tools_say_is_read() {
        let says = |kind, said: &str| {
            let own = own(kind, said);
            (own.kept, own.lost)
        };
        let tcpdump = "listening on rx0\n1200 packets captured\n1300 packets received by filter\n100 packets dropped by kernel\n";
        assert_eq!(says(Kind::Tcpdump, tcpdump), (Some(1_200), Some(100)));
        let dumpcap = "Capturing on 'rx0'\nPackets captured: 10\n\
                       Packets received/dropped on interface 'rx0': 10/2 (pcap:2/dumpcap:0/flushed:0/ps_ifdrop:0) (83.3%)\n";
        assert_eq!(says(Kind::Dumpcap, dumpcap), (Some(10), Some(2)));
        let netsniff = "\n       70  packets incoming (0 unread on exit)\n       60  packets passed filter\n        \
                        10  packets failed filter (out of space)\n 14.2857\\%, packet droprate\n";
        assert_eq!(says(Kind::NetsniffNg, netsniff), (Some(60), Some(10)));
        let stenotype =
            "Thread 0 stats: MB=12 files=1 MBps=3 packets=4711 blocks=12 polls=3 drops=5 ptspc=3\n";
        assert_eq!(says(Kind::Stenotype, stenotype), (Some(4_711), Some(5)));
        assert_eq!(says(Kind::Tcpdump, "Killed"), (None, None));
    }

    #[test]
    fn a_ledger_tells_its_losses_by_cause() {
        let total = serde_json::json!({ "stored": 7, "dropped": { "ring_full": 2, "shed": 0, "nic": 1 } });
        let own = of_ledger(&serde_json::json!({ "total": total }));
        assert_eq!((own.kept, own.lost), (Some(7), Some(3)));
        assert_eq!(own.causes.keys().collect::<Vec<_>>(), ["nic", "ring_full"]);
    }

    #[test]
    fn a_tool_that_is_not_there_is_named() {
        let none = Tool::find(Kind::Stenotype, Some(Path::new("/nowhere/stenotype")), &[]).unwrap_err();
        assert!(none.to_string().contains("/nowhere/stenotype"), "{none}");
    }
}
