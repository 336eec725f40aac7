//! What `record` is to do, with nothing left open: defaults filled in, globs expanded, CPUs chosen.

use crate::cli::{ModeWish, RecordArgs, StampWish};
use crate::config::Reload;
use crate::sessions::SessionOptions;
use crate::shed::{FLOW_KEEP_BYTES, ShedPayload};
use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tapedeck_ebpf::Filter;
use tapedeck_ebpf::filter::FilterError;
use tapedeck_writer::Level;

/// Memory in which packets of a queue wait, bytes: 33 ms of a million packets a second.
pub const PACKET_BYTES: u64 = 64 << 20;
/// What a queue takes beside its packet memory, bytes (docs/operations.md, "Memory").
pub const QUEUE_BYTES: u64 = 143 << 20;
/// What a session takes in a table, bytes (there).
pub const SESSION_BYTES: u64 = 1 << 10;
/// Stored bytes of a segment.
pub(crate) const SEGMENT_BYTES: u64 = 1 << 30;
/// Age of a segment.
const SEGMENT_AGE: Duration = Duration::from_secs(60);

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub enum PlanError {
    /// No interface was named.
    #[error("no interface to record")]
    NoInterface,
    /// An interface was named twice.
    #[error("interface {0} is named twice")]
    TwiceInterface(String),
    /// No store was named.
    #[error("no store to write to")]
    NoStore,
    /// A store without a name.
    #[error("--store: an empty name")]
    Unnamed,
    /// A glob that matches nothing, or is none.
    #[error("--store {pattern}: {why}")]
    Glob {
        /// As typed.
        pattern: String,
        /// What is wrong.
        why: String,
    },
    /// A CPU this process may not run on.
    #[error("--cpus: CPU {0} is not one this process may use")]
    Cpu(usize),
    /// Two options that contradict each other.
    #[error("--strict stores packets whole or not at all, and {0} asks for less")]
    Strict(&'static str),
    /// 0 packets is no goal.
    #[error("--packets 0 would stop at once")]
    NoPackets,
    /// The rules are more than a filter can hold.
    #[error("--keep, --skip: {0}")]
    Filter(FilterError),
}

impl PlanError {
    /// What the operator can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::NoInterface => Some("--interface IF, or `interface = \"IF\"` in the configuration"),
            Self::NoStore => Some("--store DIR, or `store = \"DIR\"` in the configuration"),
            Self::Glob { .. } => {
                Some("a glob spreads queues over folders that exist; a plain folder is made")
            }
            Self::Cpu(_) => Some("see `taskset -p $$` for those it may"),
            Self::Filter(error) => Some(error.hint()),
            Self::Strict(_) => Some("leave one of the two out"),
            Self::TwiceInterface(_) | Self::NoPackets | Self::Unnamed => None,
        }
    }
}

/// A recording.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RecordPlan {
    /// Interfaces, at least one.
    pub interfaces: Vec<String>,
    /// Stores, at least one; queue i writes to store i mod n.
    pub stores: Vec<PathBuf>,
    /// How packets come in.
    pub mode: ModeWish,
    /// Stored bytes of a segment.
    pub segment_bytes: u64,
    /// Age of a segment.
    pub segment_age: Duration,
    /// Compression.
    pub level: Level,
    /// Bytes kept of a packet; `None` = all.
    pub snaplen: Option<u32>,
    /// What is kept of packets when compressor and disk are behind.
    pub shed: ShedPayload,
    /// Ends so long after the ready line.
    pub duration: Option<Duration>,
    /// Ends when so many packets are stored.
    pub packets: Option<u64>,
    /// CPUs for the workers, worker i on CPU i mod n; empty = not pinned.
    pub cpus: Vec<usize>,
    /// They were named, not chosen here.
    pub cpus_named: bool,
    /// Set queue count and symmetric hashing.
    pub rss: bool,
    /// Also interfaces that carry the default route.
    pub force: bool,
    /// Jumps of the clock are believed.
    pub accept_clock: bool,
    /// Memory in which packets of a queue wait, bytes.
    pub packet_bytes: u64,
    /// Whose clock stamps packets.
    pub stamps: StampWish,
    /// Where the program is pinned.
    pub pin_dir: PathBuf,
    /// How sessions are kept.
    pub sessions: SessionOptions,
    /// Which packets are recorded.
    pub filter: Filter,
    /// The file to read again on SIGHUP, which ends the recording otherwise.
    pub reload: Option<Reload>,
}

impl RecordPlan {
    /// Decides what was left open.
    ///
    /// # Errors
    /// [`PlanError`].
    pub fn new(args: &RecordArgs) -> Result<Self, PlanError> {
        if args.interface.is_empty() {
            return Err(PlanError::NoInterface);
        }
        for (index, name) in args.interface.iter().enumerate() {
            if args.interface.iter().take(index).any(|earlier| earlier == name) {
                return Err(PlanError::TwiceInterface(name.clone()));
            }
        }
        if args.packets == Some(0) {
            return Err(PlanError::NoPackets);
        }
        let shed = shed(args)?;
        Ok(Self {
            interfaces: args.interface.clone(),
            stores: expand(&args.store)?,
            mode: args.mode.unwrap_or_default(),
            packet_bytes: args.packet_memory.unwrap_or(PACKET_BYTES),
            segment_bytes: args.segment_size.unwrap_or(SEGMENT_BYTES),
            segment_age: args.segment_age.unwrap_or(SEGMENT_AGE),
            level: args.level.unwrap_or_default(),
            snaplen: args.snaplen,
            shed,
            duration: args.duration,
            packets: args.packets,
            cpus: choose_cpus(args.cpus.as_ref().map(|list| list.0.as_slice()))?,
            cpus_named: args.cpus.is_some(),
            rss: args.rss,
            force: args.force,
            accept_clock: args.accept_clock,
            stamps: args.stamps.unwrap_or_default(),
            pin_dir: pin_dir(args.pin_dir.as_ref()),
            sessions: args.sessions.options(),
            filter: Filter::new(args.keep.clone(), args.skip.clone()).map_err(PlanError::Filter)?,
            reload: None,
        })
    }
}

impl RecordPlan {
    /// Queues that `--rss` asks for: one per CPU a worker may have.
    #[must_use]
    pub fn rss_queues(&self) -> u32 {
        u32::try_from(self.cpus.len()).unwrap_or(u32::MAX).max(1)
    }
}

/// What is shed, if anything.
fn shed(args: &RecordArgs) -> Result<ShedPayload, PlanError> {
    match (args.strict, args.snaplen, args.shed_payload) {
        (true, Some(_), _) => Err(PlanError::Strict("--snaplen")),
        (true, None, Some(true)) => Err(PlanError::Strict("--shed-payload auto")),
        (true, None, _) | (false, _, Some(false)) => Ok(ShedPayload::Never),
        (false, _, _) => Ok(ShedPayload::Beyond(args.flow_keep.unwrap_or(FLOW_KEEP_BYTES))),
    }
}

/// Where programs are pinned.
pub(crate) fn pin_dir(asked: Option<&PathBuf>) -> PathBuf {
    let dir = asked.map_or(Path::new(crate::pins::DEFAULT), PathBuf::as_path);
    std::path::absolute(dir).unwrap_or_else(|_| dir.to_owned())
}

/// Folders as they are, globs as what they match. Each folder once.
pub(crate) fn expand(stores: &[PathBuf]) -> Result<Vec<PathBuf>, PlanError> {
    let mut found: Vec<PathBuf> = Vec::new();
    for store in stores {
        if store.as_os_str().is_empty() {
            return Err(PlanError::Unnamed);
        }
        // Absolute: others read them in the lock file and in the status, from other folders.
        let store = &std::path::absolute(store).unwrap_or_else(|_| store.clone());
        let matches = if is_glob(store) { matches_of(store)? } else { vec![store.clone()] };
        for path in matches {
            if !found.contains(&path) {
                found.push(path);
            }
        }
    }
    if found.is_empty() { Err(PlanError::NoStore) } else { Ok(found) }
}

fn is_glob(path: &Path) -> bool {
    !path.exists() && path.to_str().is_some_and(|text| text.contains(['*', '?', '[']))
}

fn matches_of(pattern: &Path) -> Result<Vec<PathBuf>, PlanError> {
    let text = pattern.to_string_lossy().into_owned();
    let error = |why: String| PlanError::Glob { pattern: text.clone(), why };
    let folders: Vec<PathBuf> = glob::glob(&text)
        .map_err(|err| error(err.to_string()))?
        .filter_map(Result::ok)
        .filter(|path| path.is_dir())
        .collect();
    if folders.is_empty() { Err(error("no folder matches".to_owned())) } else { Ok(folders) }
}

/// CPUs this process may use, cut to those asked for. A single one is not worth pinning to.
pub(crate) fn choose_cpus(asked: Option<&[usize]>) -> Result<Vec<usize>, PlanError> {
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap_or_else(|_| CpuSet::new());
    let may = |cpu: usize| allowed.is_set(cpu).unwrap_or(false);
    match asked {
        Some(list) => match list.iter().find(|cpu| !may(**cpu)) {
            Some(cpu) => Err(PlanError::Cpu(*cpu)),
            None => Ok(list.to_vec()),
        },
        None => {
            let all: Vec<usize> = (0..CpuSet::count()).filter(|cpu| may(*cpu)).collect();
            Ok(if all.len() > 1 { all } else { Vec::new() })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::CpuList;

    fn args(interfaces: &[&str], store: &str) -> RecordArgs {
        RecordArgs {
            interface: interfaces.iter().map(|name| (*name).to_owned()).collect(),
            store: vec![store.into()],
            ..RecordArgs::default()
        }
    }

    #[test]
    fn defaults_are_filled_in() {
        let plan = RecordPlan::new(&args(&["eth1"], "/nowhere")).unwrap();
        assert_eq!((plan.segment_bytes, plan.segment_age), (1 << 30, Duration::from_secs(60)));
        assert_eq!((plan.mode, plan.level), (ModeWish::Auto, Level::Auto));
        assert_eq!(plan.stores, [PathBuf::from("/nowhere")]);
    }

    #[test]
    fn strict_contradicts_what_shortens_packets() {
        let plan = |strict, snaplen, shed_payload| {
            let args = RecordArgs { strict, snaplen, shed_payload, ..args(&["eth1"], "/nowhere") };
            RecordPlan::new(&args).map(|plan| plan.shed).map_err(|error| error.to_string())
        };
        assert_eq!(plan(false, None, None), Ok(ShedPayload::Beyond(64 << 10)));
        assert_eq!(plan(false, Some(96), Some(false)), Ok(ShedPayload::Never));
        assert_eq!(plan(true, None, None), Ok(ShedPayload::Never));
        assert_eq!(plan(true, None, Some(false)), Ok(ShedPayload::Never));
        assert!(plan(true, Some(96), None).unwrap_err().contains("--snaplen"));
        assert!(plan(true, None, Some(true)).unwrap_err().contains("--shed-payload auto"));
    }

    #[test]
    fn globs_name_folders() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["disk2", "disk1", "other"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        std::fs::write(dir.path().join("disk3"), b"a file").unwrap();
        let pattern = dir.path().join("disk*");
        let plan = RecordPlan::new(&args(&["eth1"], pattern.to_str().unwrap())).unwrap();
        assert_eq!(plan.stores, [dir.path().join("disk1"), dir.path().join("disk2")]);
        let none = RecordPlan::new(&args(&["eth1"], dir.path().join("x*").to_str().unwrap()));
        assert!(matches!(none, Err(PlanError::Glob { .. })));
    }

    #[test]
    fn nonsense_is_refused() {
        assert!(matches!(RecordPlan::new(&args(&[], "/a")), Err(PlanError::NoInterface)));
        assert!(matches!(RecordPlan::new(&args(&["a", "b", "a"], "/a")), Err(PlanError::TwiceInterface(_))));
        let no_store = RecordArgs { store: Vec::new(), ..args(&["a"], "/a") };
        assert!(matches!(RecordPlan::new(&no_store), Err(PlanError::NoStore)));
        let unnamed = RecordArgs { store: vec![PathBuf::new()], ..args(&["a"], "/a") };
        assert!(matches!(RecordPlan::new(&unnamed), Err(PlanError::Unnamed)));
        let cpu = RecordArgs { cpus: Some(CpuList(vec![1023])), ..args(&["a"], "/a") };
        assert!(matches!(RecordPlan::new(&cpu), Err(PlanError::Cpu(1023))));
    }
}
