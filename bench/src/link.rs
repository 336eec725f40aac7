//! A private link: a veth pair inside a network namespace of its own, removed on drop.

use anyhow::{Context as _, Result, bail};
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// A namespace with two joined veth ends, `tx0` and `rx0`. Dropping it removes both.
#[derive(Debug)]
pub struct Link {
    namespace: String,
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
        run("ip", &["netns", "add", &namespace])?;
        let link = Self { namespace };
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
        bail!("the veth pair in {} does not come up", self.namespace)
    }

    /// The file that names the namespace, for `setns` and `nsenter --net=`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        PathBuf::from("/run/netns").join(&self.namespace)
    }

    /// Frames that `tx0` could not hand to `rx0` because its receive ring was full (the sender's
    /// loss, before anything the recorder could see).
    ///
    /// # Errors
    /// The namespace is gone.
    pub fn not_placed(&self) -> Result<u64> {
        let output = self
            .command("cat".as_ref())
            .arg("/proc/net/dev")
            .output()
            .context("reading the link's counters")?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let line =
            text.lines().find_map(|l| l.trim().strip_prefix("tx0:")).context("no tx0 in /proc/net/dev")?;
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

    fn run(&self, words: &[&str]) -> Result<()> {
        run("nsenter", &[&[format!("--net={}", self.path().display()).as_str()], words].concat())
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        // Taking the namespace away takes the pair with it. Nothing to do about a failure here.
        let _ = Command::new("ip").args(["netns", "del", &self.namespace]).status();
    }
}

fn run(program: &str, arguments: &[&str]) -> Result<()> {
    let output = Command::new(program)
        .args(arguments)
        .output()
        .with_context(|| format!("`{program}` cannot be run; is its package installed?"))?;
    if !output.status.success() {
        bail!("`{program} {}`: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
