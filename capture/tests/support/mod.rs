//! A private network namespace with a veth pair, and a sender of numbered packets.
//!
//! The namespace belongs to the calling thread (and to what it spawns), has no name and no mount: it is
//! gone with its last user, also after a kill. Nothing here touches an interface of the host.

pub(crate) mod hold;
pub(crate) mod recorder;

use std::cell::Cell;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::process::Command;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Why live tests cannot run here, if they cannot.
pub(crate) fn missing() -> Option<String> {
    if !nix::unistd::geteuid().is_root() {
        return Some("not root".to_owned());
    }
    if !std::path::Path::new("/sys/kernel/btf/vmlinux").exists() {
        return Some("no /sys/kernel/btf/vmlinux".to_owned());
    }
    None
}

/// Ends the test with a printed reason where live tests cannot run.
macro_rules! live {
    () => {
        if let Some(why) = crate::support::missing() {
            println!("SKIPPED 1: {why}");
            return;
        }
        let _alone = crate::support::alone();
    };
}
pub(crate) use live;

static ALONE: Mutex<()> = Mutex::new(());

thread_local! {
    static IS_ALONE: Cell<bool> = const { Cell::new(false) };
}

/// Whoever holds it is the only such test of this process: what it judges is the recorder, and not how two tests share
/// the cores, and tests of one process pin in one folder.
pub(crate) struct Alone {
    _held: MutexGuard<'static, ()>,
}

/// Waits for the tests before; `None` if this thread's test has waited already.
pub(crate) fn alone() -> Option<Alone> {
    let first = !IS_ALONE.replace(true);
    // A test that failed has left nothing locked.
    first.then(|| Alone { _held: ALONE.lock().unwrap_or_else(PoisonError::into_inner) })
}

impl Drop for Alone {
    fn drop(&mut self) {
        IS_ALONE.set(false);
    }
}

/// The calling thread's own namespace with a veth pair, both ends up, until dropped.
pub(crate) struct Net {
    before: File,
    /// End the recorder listens on.
    pub(crate) rx: String,
    /// End the sender uses.
    pub(crate) tx: String,
}

impl Net {
    /// A pair with `queues` queues and this MTU on both ends; no VLAN offload, no IPv6 chatter.
    pub(crate) fn new(queues: u32, mtu: u32) -> Self {
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
        net.wait_until_up();
        net
    }

    /// Waits for the kernel to give both ends their queues: until then what is sent is dropped in silence.
    fn wait_until_up(&self) {
        for _ in 0..500 {
            let output =
                Command::new("ip").args(["-o", "link", "show", "type", "veth"]).output().expect("ip");
            let text = String::from_utf8_lossy(&output.stdout);
            if text.lines().filter(|l| l.contains("state UP") && !l.contains("qdisc noop ")).count() == 2 {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(10));
        }
        panic!("the veth pair {} does not come up", self.rx);
    }

    /// Switches the VLAN offloads of both ends.
    pub(crate) fn vlan_offload(&self, on: bool) {
        let state = if on { "on" } else { "off" };
        for end in [&self.tx, &self.rx] {
            run("ethtool", &["-K", end, "txvlan", state, "rxvlan", state]);
        }
    }

    /// Index of the receiving end.
    pub(crate) fn rx_index(&self) -> u32 {
        nix::net::if_::if_nametoindex(self.rx.as_str()).expect("index of the receiving end")
    }

    /// A sender on the other end.
    pub(crate) fn sender(&self) -> Sender {
        Sender::on(&self.tx)
    }
}

/// Joins two new interfaces of the test's namespace, and switches them on.
pub(crate) fn join(tx: &str, rx: &str) {
    run("ip", &["link", "add", tx, "type", "veth", "peer", "name", rx]);
    for end in [tx, rx] {
        run("ip", &["link", "set", end, "up"]);
    }
}

/// Where the recorders of this test pin their programs; gone with the test's [`Net`].
pub(crate) fn pin_dir() -> std::path::PathBuf {
    format!("/sys/fs/bpf/tapedeck-test-{}", std::process::id()).into()
}

/// Removes what this test has pinned, at its end; for tests without a [`Net`].
pub(crate) struct Unpin;

impl Drop for Unpin {
    fn drop(&mut self) {
        unpin_all();
    }
}

/// Removes what is pinned there.
fn unpin_all() {
    for folder in std::fs::read_dir(pin_dir()).into_iter().flatten().flatten() {
        for pin in std::fs::read_dir(folder.path()).into_iter().flatten().flatten() {
            let _ = std::fs::remove_file(pin.path());
        }
        let _ = std::fs::remove_dir(folder.path());
    }
    let _ = std::fs::remove_dir(pin_dir());
}

impl Drop for Net {
    fn drop(&mut self) {
        unpin_all();
        // Back home; the namespace and its interfaces go with the last descriptor into them.
        if nix::sched::setns(&self.before, nix::sched::CloneFlags::CLONE_NEWNET).is_err() {
            std::process::abort();
        }
    }
}

/// A TAP interface: what is written to it arrives on it. Its driver has no metadata area.
pub(crate) struct Tap {
    device: File,
    /// Index of the interface.
    pub(crate) ifindex: u32,
}

impl Tap {
    /// A new one in the calling thread's namespace, up; gone when dropped.
    pub(crate) fn new(_net: &Net) -> Self {
        let device = File::options().read(true).write(true).open("/dev/net/tun").expect("/dev/net/tun");
        let name = "tap0";
        // SAFETY: a record of integers and a pointer, for which all zeroes is a value.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = libc::c_char::from_ne_bytes([from]);
        }
        request.ifr_ifru.ifru_flags = i16::try_from(libc::IFF_TAP | libc::IFF_NO_PI).unwrap();
        // SAFETY: the kernel reads the name and the flags and writes the name back, all in `request`.
        let ret = unsafe { libc::ioctl(device.as_raw_fd(), libc::TUNSETIFF, &raw mut request) };
        assert_eq!(ret, 0, "TUNSETIFF: {}", std::io::Error::last_os_error());
        run("ip", &["link", "set", name, "up"]);
        Self { device, ifindex: nix::net::if_::if_nametoindex(name).expect("index of the tap") }
    }

    /// Lets a frame arrive.
    pub(crate) fn arrive(&mut self, frame: &[u8]) {
        assert_eq!(self.device.write(frame).expect("write to the tap"), frame.len());
    }
}

/// Runs a command that must succeed; returns its stdout.
pub(crate) fn run(program: &str, args: &[&str]) -> String {
    let out = Command::new(program).args(args).output().expect(program);
    assert!(
        out.status.success(),
        "{program} {args:?}: {}{}",
        String::from_utf8_lossy(&out.stdout),
        String::from_utf8_lossy(&out.stderr)
    );
    String::from_utf8(out.stdout).expect("text")
}

/// Tells the kernel how far TAI is from UTC, in seconds.
pub(crate) fn set_tai_offset(seconds: i64) {
    // SAFETY: a record of integers, for which all zeroes is a value.
    let mut request: libc::timex = unsafe { std::mem::zeroed() };
    request.modes = libc::ADJ_TAI;
    request.constant = seconds;
    // SAFETY: the kernel reads and writes the record, which lives through the call.
    let ret = unsafe { libc::adjtimex(&raw mut request) };
    assert!(ret >= 0, "adjtimex: {}", std::io::Error::last_os_error());
    assert_eq!(i64::from(request.tai), seconds, "the kernel's TAI offset");
}

/// A raw packet socket bound to one interface.
pub(crate) struct Sender {
    fd: OwnedFd,
    address: libc::sockaddr_ll,
}

impl Sender {
    /// A sender on the interface of this name.
    pub(crate) fn on(interface: &str) -> Self {
        let ifindex = nix::net::if_::if_nametoindex(interface).expect("index of the sending end");
        // SAFETY: plain arguments; protocol 0 receives nothing.
        let fd = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        assert!(fd >= 0, "packet socket: {}", std::io::Error::last_os_error());
        // SAFETY: just returned by the kernel, owned by nobody else.
        let fd = unsafe { OwnedFd::from_raw_fd(fd) };
        // SAFETY: a record of integers.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).unwrap();
        address.sll_ifindex = i32::try_from(ifindex).unwrap();
        address.sll_halen = 6;
        Self { fd, address }
    }

    /// Sends one frame; false when the kernel had no room for it.
    pub(crate) fn send(&self, frame: &[u8]) -> bool {
        // SAFETY: buffer and address are named with their whole lengths and only read.
        let sent = unsafe {
            libc::sendto(
                self.fd.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const self.address).cast(),
                u32::try_from(size_of::<libc::sockaddr_ll>()).unwrap(),
            )
        };
        usize::try_from(sent) == Ok(frame.len())
    }
}

/// A UDP packet over IPv4 of `len` bytes whose payload begins with (`flow`, `number`), 16 bytes. Flows
/// differ in their source port, so a multi-queue veth spreads them. `tags` are VLAN ids, outermost first.
pub(crate) fn numbered(flow: u16, number: u64, len: usize, tags: &[u16]) -> Vec<u8> {
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
    let sum = !u16::try_from((sum & 0xffff) + (sum >> 16)).unwrap();
    ip[10..12].copy_from_slice(&sum.to_be_bytes());
    ip[20..22].copy_from_slice(&(10_000 + flow).to_be_bytes());
    ip[22..24].copy_from_slice(&9u16.to_be_bytes());
    ip[24..26].copy_from_slice(&(ip_len - 20).to_be_bytes());
    ip[28..36].copy_from_slice(&u64::from(flow).to_be_bytes());
    ip[36..44].copy_from_slice(&number.to_be_bytes());
    p
}

/// (flow, number) of a packet made by [`numbered`] with `tags` tags; `None` for anything else.
pub(crate) fn number_of(packet: &[u8], tags: usize) -> Option<(u16, u64)> {
    let link = 14 + 4 * tags;
    let ip = packet.get(link..)?;
    if packet.get(link - 2..link)? != [0x08, 0x00] || ip.first()? != &0x45 || ip.get(22..24)? != [0, 9] {
        return None;
    }
    let flow = u64::from_be_bytes(ip.get(28..36)?.try_into().ok()?);
    Some((u16::try_from(flow).ok()?, u64::from_be_bytes(ip.get(36..44)?.try_into().ok()?)))
}
