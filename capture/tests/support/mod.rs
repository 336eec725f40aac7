//! A private network namespace with a veth pair, and a sender of numbered packets.
//!
//! The namespace belongs to the calling thread (and to what it spawns), has no name and no mount: it is
//! gone with its last user, also after a kill. Nothing here touches an interface of the host.

#![allow(dead_code, unreachable_pub, reason = "each test binary uses its own part")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{BufRead as _, BufReader, Read as _};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Stdio};

/// Why live tests cannot run here, if they cannot.
pub fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    if !std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("no /sys/kernel/btf/vmlinux".to_owned());
    }
    None
}

/// Ends the test with a printed reason where live tests cannot run.
#[macro_export]
macro_rules! live {
    () => {
        if let Some(why) = support::missing() {
            use std::io::Write as _;
            let _ = writeln!(std::io::stdout(), "SKIPPED 1: {why}");
            return;
        }
    };
}

/// The calling thread's own namespace with a veth pair, both ends up, until dropped.
pub struct Net {
    before: File,
    /// End the recorder listens on.
    pub rx: String,
    /// End the sender uses.
    pub tx: String,
}

impl Net {
    /// A pair with `queues` queues and this MTU on both ends; no VLAN offload, no IPv6 chatter.
    pub fn new(queues: u32, mtu: u32) -> Self {
        let before = File::open("/proc/thread-self/ns/net").expect("own namespace");
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("a new network namespace");
        let pid = std::process::id();
        let net = Self { before, rx: format!("rx{pid}"), tx: format!("tx{pid}") };
        std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").ok();
        let queues = queues.to_string();
        let counts = ["numrxqueues", &queues, "numtxqueues", &queues];
        let mut add = vec!["link", "add", &net.tx];
        add.extend(counts);
        add.extend(["type", "veth", "peer", "name", &net.rx]);
        add.extend(counts);
        run("ip", &add);
        for end in [&net.tx, &net.rx] {
            run("ip", &["link", "set", end, "mtu", &mtu.to_string(), "up"]);
        }
        net.vlan_offload(false);
        net
    }

    /// Switches the VLAN offloads of both ends.
    pub fn vlan_offload(&self, on: bool) {
        let state = if on { "on" } else { "off" };
        for end in [&self.tx, &self.rx] {
            run("ethtool", &["-K", end, "txvlan", state, "rxvlan", state]);
        }
    }

    /// Index of the receiving end.
    pub fn rx_index(&self) -> u32 {
        nix::net::if_::if_nametoindex(self.rx.as_str()).expect("index of the receiving end")
    }

    /// A sender on the other end.
    pub fn sender(&self) -> Sender {
        Sender::on(&self.tx)
    }
}

impl Drop for Net {
    fn drop(&mut self) {
        // Back home; the namespace and its interfaces go with the last descriptor into them.
        if nix::sched::setns(&self.before, nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
            std::process::abort();
        }
    }
}

/// Runs a command that must succeed; returns its stdout.
pub fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().expect(program);
    assert!(
        out.status.success(),
        "{program} {args:?}: {}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).expect("text")
}

/// A raw packet socket bound to one interface.
pub struct Sender {
    fd: OwnedFd,
    address: libc::sockaddr_ll,
}

impl Sender {
    /// A sender on the interface of this name.
    pub fn on(interface: &str) -> Self {
        let ifindex = nix::net::if_::if_nametoindex(interface).expect("index of the sending end");
        // SAFETY: plain arguments; protocol 0 receives nothing.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        assert!(fd >= 0, "packet socket: {}", std::io::Error::last_os_error());
        // SAFETY: just returned by the kernel, owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: a record of integers.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_ifindex = ifindex as i32;
        address.sll_halen = 6;
        Self { fd, address }
    }

    /// Sends one frame; false when the kernel had no room for it.
    pub fn send(&self, frame: &[u8]) -> bool {
        // SAFETY: buffer and address are named with their whole lengths and only read.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const self.address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        sent == frame.len() as isize
    }
}

/// A UDP packet over IPv4 of `len` bytes whose payload begins with (`flow`, `number`), 16 bytes. Flows
/// differ in their source port, so a multi-queue veth spreads them. `tags` are VLAN ids, outermost first.
pub fn numbered(flow: u16, number: u64, len: usize, tags: &[u16]) -> Vec<u8> {
    let link = 14 + 4 * tags.len();
    assert!(len >= link + 28 + 16, "too short for a numbered packet");
    let mut p = vec![0u8; len];
    p[..6].copy_from_slice(&[2, 0, 0, 0, 0, 2]);
    p[6..12].copy_from_slice(&[2, 0, 0, 0, 0, 1]);
    for (index, tag) in tags.iter().enumerate() {
        p[12 + 4 * index..14 + 4 * index].copy_from_slice(&0x8100u16.to_be_bytes());
        p[14 + 4 * index..16 + 4 * index].copy_from_slice(&tag.to_be_bytes());
    }
    p[link - 2..link].copy_from_slice(&0x0800u16.to_be_bytes());
    let ip = &mut p[link..];
    let ip_len = u16::try_from(ip.len()).unwrap();
    ip[0] = 0x45;
    ip[2..4].copy_from_slice(&ip_len.to_be_bytes());
    ip[8] = 64;
    ip[9] = 17;
    ip[12..16].copy_from_slice(&[10, 1, 0, 1]);
    ip[16..20].copy_from_slice(&[10, 1, 0, 2]);
    let sum = ip[..20].chunks(2).map(|w| u32::from(u16::from_be_bytes([w[0], w[1]]))).sum::<u32>();
    let sum = !((sum & 0xffff) + (sum >> 16)) as u16;
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip[20..22].copy_from_slice(&(10_000 + flow).to_be_bytes());
    ip[22..24].copy_from_slice(&9u16.to_be_bytes());
    ip[24..26].copy_from_slice(&(ip_len - 20).to_be_bytes());
    ip[28..36].copy_from_slice(&u64::from(flow).to_be_bytes());
    ip[36..44].copy_from_slice(&number.to_be_bytes());
    p
}

/// (flow, number) of a packet made by [`numbered`] with `tags` tags; `None` for anything else.
pub fn number_of(packet: &[u8], tags: usize) -> Option<(u16, u64)> {
    let link = 14 + 4 * tags;
    let ip = packet.get(link..)?;
    if packet.get(link - 2..link)? != [0x08, 0x00] || ip.first()? != &0x45 || ip.get(22..24)? != [0, 9] {
        return None;
    }
    let flow = u64::from_be_bytes(ip.get(28..36)?.try_into().ok()?);
    Some((u16::try_from(flow).ok()?, u64::from_be_bytes(ip.get(36..44)?.try_into().ok()?)))
}

/// A running `tapedeck record`, killed if it is still there when dropped.
pub struct Recorder {
    child: Child,
    stderr: BufReader<ChildStderr>,
    /// Everything it said on stderr up to and including the ready line.
    pub said: String,
}

impl Recorder {
    /// Starts the recorder on the receiving end, with more arguments, and waits until it is ready.
    pub fn start(net: &Net, store: &Path, args: &[&str]) -> Self {
        let mut child = record_command(net, store, args).spawn().expect("start the recorder");
        let mut stderr = BufReader::new(child.stderr.take().expect("piped"));
        let mut said = String::new();
        while !said.lines().last().unwrap_or_default().starts_with("ready: ") {
            let len = stderr.read_line(&mut said).expect("stderr of the recorder");
            assert!(len > 0, "no ready line:\n{said}");
        }
        Self { child, stderr, said }
    }

    /// Process id.
    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.id()).unwrap()
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).expect("signal the recorder");
    }

    /// Ends it with SIGTERM.
    pub fn stop(self) -> Ended {
        self.signal(Signal::SIGTERM);
        self.wait()
    }

    /// Waits for its end.
    pub fn wait(mut self) -> Ended {
        let mut stdout = String::new();
        self.child.stdout.take().expect("piped").read_to_string(&mut stdout).expect("stdout");
        self.stderr.read_to_string(&mut self.said).expect("stderr");
        let code = self.child.wait().expect("exit status").code();
        let ledger = serde_json::from_str(&stdout).unwrap_or(serde_json::Value::Null);
        Ended { code, ledger, stdout, stderr: std::mem::take(&mut self.said) }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How a recorder ended.
#[derive(Debug)]
pub struct Ended {
    pub code: Option<i32>,
    pub ledger: serde_json::Value,
    pub stdout: String,
    pub stderr: String,
}

impl Ended {
    /// A number of the ledger's total, by path.
    pub fn total(&self, path: &str) -> i64 {
        let value = self.ledger["total"].pointer(&format!("/{path}"));
        value.and_then(serde_json::Value::as_i64).unwrap_or_else(|| panic!("no {path}: {self:?}"))
    }
}

/// `tapedeck record` on the receiving end of `net`.
pub fn record_command(net: &Net, store: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tapedeck"));
    command.args(["record", "--interface", &net.rx, "--store"]).arg(store).args(args);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// Every sealed segment of a store.
pub fn segments(store: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![store.join("packets")];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten() {
            let path = entry.expect("folder entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_string_lossy().ends_with(".pcapng.zst")
                && !path.file_name().unwrap().to_string_lossy().starts_with('.')
            {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

/// Packets of a segment in their order, as others read it: (time in ns, bytes).
pub fn packets(segment: &Path) -> Vec<(u64, Vec<u8>)> {
    let raw = Command::new("zstd").arg("-dcq").arg(segment).output().expect("zstd");
    assert!(raw.status.success(), "{}: {}", segment.display(), String::from_utf8_lossy(&raw.stderr));
    let mut found = Vec::new();
    let mut rest = raw.stdout.as_slice();
    // pcapng blocks: type, length, body, length. Enhanced Packet Block: interface, time high and low,
    // captured length, original length, bytes.
    while rest.len() >= 12 {
        let word = |at: usize| u32::from_le_bytes(rest[at..at + 4].try_into().unwrap());
        let len = word(4) as usize;
        if word(0) == 6 {
            let ts = u64::from(word(12)) << 32 | u64::from(word(16));
            found.push((ts, rest[28..28 + word(20) as usize].to_vec()));
        }
        rest = &rest[len..];
    }
    assert!(rest.is_empty(), "torn block at the end of {}", segment.display());
    found
}
