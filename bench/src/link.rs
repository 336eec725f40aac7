//! The link under test: a veth pair inside a network namespace of its own, removed on drop; or two interfaces that
//! were there before and that the caller has named. It must never touch an interface with a default route.

use crate::interrupt;
use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;
use tapedeck_capture::preflight::default_routes;

/// A namespace with two joined veth ends, `tx0` and `rx0`, which dropping it removes; or two interfaces of others.
#[derive(Debug)]
pub struct Link {
    /// None: the namespace of this process.
    namespace: Option<String>,
    tx: String,
    rx: String,
}

impl Link {
    /// Makes namespace and pair; `queues` is the number of queues of each end, 1..=64, `mtu` their
    /// longest IP packet in bytes.
    ///
    /// # Errors
    /// Not root, no `ip` or `ethtool` command, or a kernel without veth.
    pub fn make(queues: u32, mtu: u32) -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let namespace = format!("tb{}-{}", std::process::id(), MADE.fetch_add(1, Ordering::Relaxed));
        interrupt::make_namespace(&namespace)?;
        let link = Self { namespace: Some(namespace), tx: "tx0".to_owned(), rx: "rx0".to_owned() };
        let q = queues.to_string();
        let mtu = mtu.to_string();
        link.run(&[
            "ip",
            "link",
            "add",
            "tx0",
            "numrxqueues",
            &q,
            "numtxqueues",
            &q,
            "type",
            "veth",
            "peer",
            "name",
            "rx0",
            "numrxqueues",
            &q,
            "numtxqueues",
            &q,
        ])?;
        for end in ["tx0", "rx0"] {
            // No address, no neighbour discovery: only our own packets travel here.
            link.run(&["ip", "link", "set", end, "addrgenmode", "none"])?;
            link.run(&["ethtool", "-K", end, "tx", "off", "rxvlan", "off", "txvlan", "off"])?;
            link.run(&["ip", "link", "set", end, "mtu", &mtu, "up"])?;
        }
        link.wait_until_up()?;
        Ok(link)
    }

    /// Interfaces of this machine, which are left as they are.
    ///
    /// # Errors
    /// One of them is not there or carries a default route, or they are the same.
    pub fn given(rx: &str, tx: &str) -> Result<Self> {
        if rx == tx {
            bail!("{rx} cannot be recorded and sent on at once: name two interfaces that are connected");
        }
        for name in [rx, tx] {
            nix::net::if_::if_nametoindex(name).with_context(|| format!("no interface {name}"))?;
            if default_routes(name).any() {
                bail!("{name} carries a default route: a measurement would cut this machine off");
            }
        }
        Ok(Self { namespace: None, tx: tx.to_owned(), rx: rx.to_owned() })
    }

    /// The interface to record.
    #[must_use]
    pub fn rx(&self) -> &str {
        &self.rx
    }

    /// The interface to send on.
    #[must_use]
    pub fn tx(&self) -> &str {
        &self.tx
    }

    /// It was made for this measurement.
    #[must_use]
    pub const fn is_made(&self) -> bool {
        self.namespace.is_some()
    }

    /// What `ethtool -i` says of the driver of the recorded interface.
    #[must_use]
    pub fn driver(&self) -> String {
        let text = self.output(&["ethtool", "-i", &self.rx]).unwrap_or_default();
        let driver = text.lines().find_map(|line| line.strip_prefix("driver: "));
        driver.unwrap_or("unknown").to_owned()
    }

    /// What the sending end says of live frames: (taken, not taken); `None` where its driver does not count them.
    ///
    /// # Errors
    /// The interface is gone.
    pub fn live_frames(&self) -> Result<Option<(u64, u64)>> {
        let text = self.output(&["ethtool", "-S", &self.tx])?;
        let all: Vec<(&str, u64)> = text
            .lines()
            .filter_map(|line| line.trim().split_once(": "))
            .filter_map(|(name, value)| Some((name, value.parse().ok()?)))
            .collect();
        let sum = |end: &str| all.iter().filter(|(name, _)| name.ends_with(end)).map(|(_, n)| n).sum();
        let counts = all.iter().any(|(name, _)| name.ends_with("_xdp_xmit"));
        Ok(counts.then(|| (sum("_xdp_xmit"), sum("xdp_xmit_errors"))))
    }

    /// Waits for the kernel to give both ends their queues. Until then what is sent is dropped, and
    /// nobody counts it: the carrier's coming is told to them by a worker that may be late.
    fn wait_until_up(&self) -> Result<()> {
        for _ in 0..500 {
            let output = self.command("ip".as_ref()).args(["-o", "link", "show", "type", "veth"]).output();
            let text = output.context("`ip link show`")?.stdout;
            let text = String::from_utf8_lossy(&text);
            if text.lines().filter(|l| l.contains("state UP") && !l.contains("qdisc noop ")).count() == 2 {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        bail!("the veth pair in {} does not come up", self.path().display())
    }

    /// The file that names the namespace, for `setns` and `nsenter --net=`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        match &self.namespace {
            Some(namespace) => PathBuf::from("/run/netns").join(namespace),
            None => PathBuf::from("/proc/self/ns/net"),
        }
    }

    /// Frames that the sending end could not hand over, because the other's receive ring was full (the sender's
    /// loss, before anything the recorder could see).
    ///
    /// # Errors
    /// The interface is gone.
    pub fn not_placed(&self) -> Result<u64> {
        let text = self.output(&["cat", "/proc/net/dev"])?;
        let line = text.lines().find_map(|l| l.trim().strip_prefix(&self.tx)?.strip_prefix(':'));
        let line = line.with_context(|| format!("no {} in /proc/net/dev", self.tx))?;
        // Receive: bytes packets errs drop fifo frame compressed multicast; transmit: bytes packets errs drop.
        let dropped = line.split_whitespace().nth(11).context("no drop counter in /proc/net/dev")?;
        dropped.parse().context("the drop counter is no number")
    }

    /// A command that will run inside the namespace. `nsenter` and neither `ip netns exec` nor `ip -n`:
    /// these also unshare the mounts, which fails in a chroot and would hide a BPF file system.
    #[must_use]
    pub fn command(&self, program: &std::path::Path) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net={}", self.path().display())).arg(program);
        command
    }

    /// Runs a command inside that must succeed.
    ///
    /// # Errors
    /// It does not; its own words are in the error.
    pub fn run(&self, words: &[&str]) -> Result<()> {
        run("nsenter", &[&[format!("--net={}", self.path().display()).as_str()], words].concat())
    }

    /// What a command says inside; nothing where it fails.
    fn output(&self, words: &[&str]) -> Result<String> {
        let [program, arguments @ ..] = words else { return Ok(String::new()) };
        let output = self.command(program.as_ref()).args(arguments).output();
        let output = output.with_context(|| format!("`{program}` cannot be run"))?;
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Runs `act` on a thread inside the namespace.
    ///
    /// # Errors
    /// The namespace cannot be entered, or `act` fails.
    pub fn inside<T: Send>(&self, act: impl FnOnce() -> Result<T> + Send) -> Result<T> {
        let path = self.path();
        let thread = || {
            enter(&path)?;
            act()
        };
        std::thread::scope(|scope| scope.spawn(thread).join())
            .map_err(|_| anyhow::anyhow!("a thread panicked"))?
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Taking the namespace away takes the pair with it.
        if let Some(namespace) = &self.namespace {
            interrupt::drop_namespace(namespace);
        }
    }
}

/// Moves the calling thread into a namespace.
pub(crate) fn enter(namespace: &std::path::Path) -> Result<()> {
    let file = std::fs::File::open(namespace).with_context(|| namespace.display().to_string())?;
    nix::sched::setns(file, nix::sched::CloneFlags::CLONE_NEWNET).context("entering the namespace")
}

pub(crate) fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("`{program}` cannot be run; is its package installed?"))?;
    if !output.status.success() {
        bail!("`{program} {}`: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_a_link_is_refused() {
        assert!(Link::given("lo", "lo").is_err());
        assert!(Link::given("lo", "nothing-here").unwrap_err().to_string().contains("nothing-here"));
    }
}
