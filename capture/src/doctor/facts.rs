//! What the doctor looks at, as plain values: gathered by [`super::gather`], judged by the checks.
//!
//! A fact that nobody tells is `None` or empty, and no check may find anything in it.

use super::rungs::Ladder;
use crate::nic::Loss;
use crate::pins::estate::Left;
use serde::Serialize;
use std::path::PathBuf;

/// Everything known of an interface and its host.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct Facts {
    /// Interface name.
    pub(crate) interface: String,
    /// The link.
    pub(crate) link: LinkFacts,
    /// Process that records the interface now.
    pub(crate) recorder: Option<u32>,
    /// What killed recorders left pinned of it.
    pub(crate) left: Vec<Left>,
    /// Features that are on and change or hide packets, as `ethtool -K` names them.
    pub(crate) offloads: Vec<OffloadFacts>,
    /// The card.
    pub(crate) card: CardFacts,
    /// How packets would come in.
    pub(crate) ladder: Ladder,
    /// CPUs and interrupts.
    pub(crate) cores: CoreFacts,
    /// Memory.
    pub(crate) memory: MemoryFacts,
    /// The clock.
    pub(crate) clock: ClockFacts,
    /// Kernel and privileges.
    pub(crate) kernel: KernelFacts,
    /// Stored bytes of a segment; each queue has one open.
    pub(crate) segment_bytes: u64,
    /// Where the packets would go.
    pub(crate) stores: Vec<StoreFacts>,
}

/// The link.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct LinkFacts {
    /// Administratively up.
    pub(crate) up: bool,
    /// Something answers at the other end.
    pub(crate) carrier: bool,
    /// Largest payload of a packet, bytes.
    pub(crate) mtu: u32,
    /// Driver.
    pub(crate) driver: String,
    /// Address on the bus; empty for a virtual device.
    pub(crate) bus: String,
    /// A default route of IPv4 leaves through it.
    pub(crate) default_route_v4: bool,
    /// A default route of IPv6 leaves through it.
    pub(crate) default_route_v6: bool,
    /// An XDP program of somebody else sits on it.
    pub(crate) xdp_attached: bool,
    /// Of a veth: its other end.
    pub(crate) other_end: Option<OtherEnd>,
    /// Frames the card has refused for their length.
    pub(crate) length_errors: u64,
    /// Packets the card has lost before any program, by counter.
    pub(crate) missed: Vec<Loss>,
}

/// The other end of a veth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct OtherEnd {
    /// Its name; none if it is in another network namespace.
    pub(crate) name: Option<String>,
    /// Features that are on and hand VLAN tags over beside the packet, as `ethtool -K` names them.
    pub(crate) tags_beside: Vec<&'static str>,
}

/// A feature that is on.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct OffloadFacts {
    /// Name, as `ethtool -K` takes it.
    pub(crate) name: String,
    /// It can be switched off.
    pub(crate) switchable: bool,
}

/// Queues, ring and hash of the card.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct CardFacts {
    /// Queues packets arrive on.
    pub(crate) queues: u32,
    /// Most it can have, where the driver tells.
    pub(crate) queues_max: Option<u32>,
    /// Word of `ethtool -L` for them, where the driver can be told.
    pub(crate) queue_word: Option<&'static str>,
    /// Entries of the receive ring.
    pub(crate) ring: Option<u32>,
    /// Most it can have.
    pub(crate) ring_max: Option<u32>,
    /// It asks the sender to pause.
    pub(crate) sends_pause: Option<bool>,
    /// Longest wait before an interrupt, microseconds.
    pub(crate) interrupt_wait_us: Option<u32>,
    /// The driver moves that wait by itself.
    pub(crate) interrupt_wait_adaptive: Option<bool>,
    /// Receive hashing, where the driver tells.
    pub(crate) hash: Option<HashFacts>,
    /// Clock of the card, as in /dev, if it stamps every packet for native XDP.
    pub(crate) stamps: Option<String>,
    /// Why it does not.
    pub(crate) no_stamps: Option<String>,
}

/// Receive hashing.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct HashFacts {
    /// Both directions of a flow get the same hash.
    pub(crate) symmetric: bool,
    /// Bytes of the key.
    pub(crate) key_bytes: usize,
    /// Queues that the table names.
    pub(crate) queues_named: usize,
    /// Ports of UDP are hashed, which fragments have not.
    pub(crate) udp_ports: Option<bool>,
}

/// CPUs and interrupts.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct CoreFacts {
    /// CPUs workers may be pinned to; empty = one CPU, not pinned.
    pub(crate) workers: Vec<usize>,
    /// They were named by `--cpus`.
    pub(crate) chosen: bool,
    /// All CPUs this process may use.
    pub(crate) allowed: Vec<usize>,
    /// NUMA node of the card.
    pub(crate) node: Option<u32>,
    /// CPUs of that node.
    pub(crate) node_cpus: Vec<usize>,
    /// Interrupts of the card's queues.
    pub(crate) interrupts: Vec<InterruptFacts>,
    /// Frequency governors of the worker CPUs, each once.
    pub(crate) governors: Vec<String>,
}

/// An interrupt.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct InterruptFacts {
    /// Number.
    pub(crate) irq: u32,
    /// Name in /proc/interrupts.
    pub(crate) name: String,
    /// CPUs it may fire on.
    pub(crate) cpus: Vec<usize>,
}

/// Memory.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct MemoryFacts {
    /// Memory packets arrive in, all queues, bytes.
    pub(crate) packets_bytes: u64,
    /// Most a recording of the interface takes without its sessions, bytes.
    pub(crate) most_bytes: u64,
    /// Most the sessions take, bytes.
    pub(crate) sessions_bytes: u64,
    /// Memory the kernel can give, bytes.
    pub(crate) available_bytes: Option<u64>,
    /// 2 MiB pages there are.
    pub(crate) huge_pages: Option<u64>,
    /// Of these, free ones.
    pub(crate) huge_pages_free: Option<u64>,
    /// Limit of locked memory, bytes; `None` = there is none.
    pub(crate) locked_limit_bytes: Option<u64>,
}

/// The clock.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct ClockFacts {
    /// A daemon holds it to a source of time.
    pub(crate) synchronised: Option<bool>,
    /// TAI minus UTC, seconds; 0 = the kernel was not told.
    pub(crate) tai_offset_s: Option<i32>,
    /// Largest error the daemon vouches for, microseconds.
    pub(crate) error_max_us: Option<i64>,
    /// Counter that times are read from.
    pub(crate) source: Option<String>,
    /// Counters there are.
    pub(crate) sources: Vec<String>,
}

/// Kernel and privileges.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct KernelFacts {
    /// `uname -r`.
    pub(crate) release: String,
    /// net.core.bpf_jit_enable.
    pub(crate) jit: Option<u32>,
    /// It knows AF_XDP sockets.
    pub(crate) af_xdp: Option<bool>,
    /// Why it does not take the XDP program.
    pub(crate) program_refused: Option<String>,
    /// Why it does not tell refusals by cause (BTF, tracepoint).
    pub(crate) without_refusals: Option<String>,
    /// Privileges this process lacks.
    pub(crate) missing_capabilities: Vec<&'static str>,
    /// This program, for `setcap`.
    #[serde(skip)]
    pub(crate) program: PathBuf,
}

/// A store.
#[derive(Clone, Debug, Default, Serialize)]
pub(crate) struct StoreFacts {
    /// Folder, as it would be given to `record`.
    pub(crate) store: PathBuf,
    /// Nearest folder that is there.
    pub(crate) folder: PathBuf,
    /// That is a file and no folder.
    pub(crate) is_file: bool,
    /// Where its file system is mounted.
    pub(crate) mount: PathBuf,
    /// Its type, such as `ext4`.
    pub(crate) filesystem: String,
    /// Mounted read-only.
    pub(crate) read_only: bool,
    /// Size of the file system, bytes.
    pub(crate) size_bytes: Option<u64>,
    /// Bytes this process may use.
    pub(crate) free_bytes: Option<u64>,
    /// Why files cannot be made in it.
    pub(crate) refused: Option<String>,
    /// `io_uring`, or `plain`.
    pub(crate) sink: Option<&'static str>,
    /// Why it is the plain one.
    pub(crate) sink_reason: Option<String>,
}
