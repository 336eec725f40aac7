//! What can be typed. Parsing touches nothing: no file, no clock, no network.

use crate::ladder::Mode;
use crate::sessions::SessionOptions;
use crate::units;
use clap::{Parser, Subcommand};
use std::path::PathBuf;
use std::time::Duration;
use tapedeck_ebpf::filter::Rule;
use tapedeck_session::Timeouts;
use tapedeck_writer::Level;

/// Full-content packet recorder.
///
/// Records every packet of a network interface into compressed, indexed segments that any tool opens
/// (`zstd -dc SEGMENT | tcpdump -r -`), and accounts for each one. `taperead` retrieves them.
#[derive(Debug, Parser)]
#[command(name = "tapedeck", version, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Record the packets of one or more interfaces into a store.
    ///
    /// Prints `ready: ...` on stderr once every queue is open. SIGINT, SIGTERM, --duration and --packets
    /// end it: what has arrived is stored, and the ledger stands as JSON on stdout. A second signal ends it
    /// without sealing. Exit code 0: ended as asked, also with drops; 2: could not start or go on, or ended by
    /// a second signal. SIGHUP reads the filter of the --config file again, without a gap; without that option it
    /// ends the recording too.
    Record(Box<RecordArgs>),
    /// Find what would cost packets or fidelity, each with the command that mends it.
    ///
    /// Looks at an interface and its host, and changes nothing. Exit code 0: clean, or nothing but notes;
    /// 1: something to mend (errors: a recording would not start or keep nothing; warnings: packets or
    /// fidelity are at risk); 2: cannot look.
    Doctor(DoctorArgs),
    /// Show what running recorders do: packets, losses by cause, workers. Exit code 0: one runs; 2: none.
    Status(StatusArgs),
    /// Take off what killed recorders left on interfaces, and close their books.
    ///
    /// A recorder that is killed leaves its XDP program on the interface, where it counts what passes until
    /// the next `record` takes it over. This takes it off instead: what the dead recorder stored is sealed, and
    /// its ledger stands on stdout, a line of JSON per run. Exit code 0: nothing is left; 2: a recorder
    /// holds the interface, or something could not be taken off.
    Detach(DetachArgs),
    /// Store the packets of capture files: pcap, pcapng, snoop; plain, .gz, .zst or .lz4.
    ///
    /// Same pipeline as a recording. Ends with the ledger as JSON on stdout. Exit code 0: all files
    /// whole; 3: some file cut or damaged, its whole packets and the other files are stored; 2: nothing
    /// stored.
    Import(ImportArgs),
    /// Seal what a crash left open. Also runs by itself when a recording starts.
    Recover(StoreArgs),
    /// Build the index of segments anew from their packets.
    ///
    /// The index is a pure function of the packets: a healthy one comes out byte for byte the same.
    Reindex(ReindexArgs),
    /// Check every frame, checksum and index of a store. Exit code 0 only if all hold, 3 if something is
    /// damaged, 2 if it cannot be looked at.
    Verify(StoreArgs),
}

/// A store that is there already.
#[derive(Debug, clap::Args)]
pub struct StoreArgs {
    /// Folder of the store.
    #[arg(long, value_name = "DIR")]
    pub store: PathBuf,
}

/// Arguments of `import`.
#[derive(Debug, clap::Args)]
pub struct ImportArgs {
    /// Folder of the store; made if it is not there.
    #[arg(long, value_name = "DIR")]
    pub store: PathBuf,
    /// Most stored bytes of a segment, e.g. 256MiB; at least 1MiB.
    #[arg(long, value_name = "SIZE", default_value = "1GiB", value_parser = units::segment_bytes)]
    pub segment_size: u64,
    /// Compression: `auto`, `off`, or a zstd level from -7 to 19.
    #[arg(long, value_name = "LEVEL", default_value = "auto", value_parser = units::level, allow_hyphen_values = true)]
    pub level: Level,
    /// How sessions are kept.
    #[command(flatten)]
    pub sessions: SessionArgs,
    /// Capture files; `-` is standard input.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}

/// How sessions are kept.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct SessionArgs {
    /// Most sessions open at once in a queue, 1000 to 67108864; takes about 1 KiB each [default: 262144]
    #[arg(long, value_name = "N", value_parser = max_sessions)]
    pub max_sessions: Option<u32>,
    /// How long sessions may be silent, such as udp-inactivity=30s; may be repeated. Names and defaults are
    /// Zeek's: see docs/sessions.md
    #[arg(long, value_name = "NAME=DURATION", value_parser = timeout)]
    pub timeout: Vec<NamedTimeout>,
    /// Keep packets that differ only in their VLAN tags in separate sessions
    #[arg(long)]
    pub separate_vlans: bool,
}

impl SessionArgs {
    /// With nothing left open.
    #[must_use]
    pub fn options(&self) -> SessionOptions {
        let mut options = SessionOptions::default();
        options.max_sessions = self.max_sessions.unwrap_or(options.max_sessions);
        options.separate_vlans |= self.separate_vlans;
        for NamedTimeout { name, ns } in &self.timeout {
            if let Some(place) = timeout_of(&mut options.timeouts, name) {
                *place = *ns;
            }
        }
        options
    }
}

/// A timeout as typed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedTimeout {
    /// Its name.
    name: String,
    /// Its value, ns.
    ns: u64,
}

/// Names of the timeouts, as [`timeout`] takes them.
pub const TIMEOUTS: [&str; 11] = [
    "tcp-inactivity",
    "udp-inactivity",
    "dns-session",
    "icmp-inactivity",
    "other-inactivity",
    "tcp-attempt-delay",
    "tcp-close-delay",
    "tcp-syn-timeout",
    "tcp-session-timer",
    "tcp-connection-linger",
    "fragment",
];

fn timeout_of<'t>(times: &'t mut Timeouts, name: &str) -> Option<&'t mut u64> {
    Some(match name {
        "tcp-inactivity" => &mut times.tcp_inactivity,
        "udp-inactivity" => &mut times.udp_inactivity,
        "dns-session" => &mut times.dns_session,
        "icmp-inactivity" => &mut times.icmp_inactivity,
        "other-inactivity" => &mut times.other_inactivity,
        "tcp-attempt-delay" => &mut times.tcp_attempt_delay,
        "tcp-close-delay" => &mut times.tcp_close_delay,
        "tcp-syn-timeout" => &mut times.tcp_syn_timeout,
        "tcp-session-timer" => &mut times.tcp_session_timer,
        "tcp-connection-linger" => &mut times.tcp_connection_linger,
        "fragment" => &mut times.fragment,
        _ => return None,
    })
}

/// Reads a number of bytes to keep.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn snaplen(text: &str) -> Result<u32, String> {
    let fits = |number: &u32| (64..=262_144).contains(number);
    text.parse().ok().filter(fits).ok_or_else(|| format!("`{text}` is not a number from 64 to 262144"))
}

/// Reads whether payload is shed.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn shed_payload(text: &str) -> Result<bool, String> {
    match text {
        "auto" => Ok(true),
        "off" => Ok(false),
        _ => Err(format!("`{text}` is neither auto nor off")),
    }
}

/// Reads the bytes of a flow that are kept.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn flow_keep(text: &str) -> Result<u32, String> {
    let bytes = units::size_bytes(text).map_err(|error| error.to_string())?;
    u32::try_from(bytes)
        .ok()
        .filter(|bytes| *bytes <= 1 << 30)
        .ok_or_else(|| format!("`{text}` is over 1GiB"))
}

/// Reads a number of sessions.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn max_sessions(text: &str) -> Result<u32, String> {
    let fits = |number: &u32| (1_000..=67_108_864).contains(number);
    text.parse().ok().filter(fits).ok_or_else(|| format!("`{text}` is not a number from 1000 to 67108864"))
}

/// Longest timeout: a year.
const TIMEOUT_MAX: Duration = Duration::from_secs(365 * 86_400);

/// Reads a timeout.
///
/// # Errors
/// A sentence that says what is wrong.
pub fn timeout(text: &str) -> Result<NamedTimeout, String> {
    let (name, value) = text.split_once('=').ok_or("write NAME=DURATION, such as udp-inactivity=30s")?;
    if timeout_of(&mut Timeouts::default(), name).is_none() {
        return Err(format!("`{name}` is none of {}", TIMEOUTS.join(", ")));
    }
    let value = units::duration(value).map_err(|error| error.to_string())?;
    if value > TIMEOUT_MAX {
        return Err("a year at most".to_owned());
    }
    let ns = u64::try_from(value.as_nanos()).unwrap_or(u64::MAX);
    Ok(NamedTimeout { name: name.to_owned(), ns })
}

/// Arguments of `reindex`.
#[derive(Debug, clap::Args)]
pub struct ReindexArgs {
    /// Folder of the store.
    #[arg(long, value_name = "DIR")]
    pub store: PathBuf,
    /// Segments (`.pcapng.zst`) to do; all of the store by default.
    #[arg(value_name = "SEGMENT")]
    pub segments: Vec<PathBuf>,
}

/// Options of `record`. All of them may stand in the configuration file under the same names; what is
/// typed wins.
#[derive(Clone, Debug, Default, PartialEq, Eq, clap::Args)]
pub struct RecordArgs {
    /// Interface to record; may be repeated
    #[arg(long, value_name = "IF")]
    pub interface: Vec<String>,
    /// Folder to write to; may be repeated or a glob, then queues are spread over the folders
    #[arg(long, value_name = "DIR")]
    pub store: Vec<PathBuf>,
    /// Configuration file (TOML), keys named as these options
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// How packets come in: auto, zerocopy, copy, skb or packet. auto tries them in this order; any
    /// other means that one or an error [default: auto]
    #[arg(long, value_name = "MODE", value_parser = mode)]
    pub mode: Option<ModeWish>,
    /// Memory in which packets of each queue wait for their worker, 2MiB to 4GiB: what it holds is how long a
    /// worker may be kept from its CPU, and a disk from writing. AF_XDP takes the next lower power of two, and 16MiB
    /// for the card beside it (twice that where packets are longer than some 1,730 bytes) [default: 64MiB]
    #[arg(long, value_name = "SIZE", value_parser = units::packet_memory)]
    pub packet_memory: Option<u64>,
    /// Most stored bytes of a segment, at least 1MiB [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = units::segment_bytes)]
    pub segment_size: Option<u64>,
    /// Age at which a segment is closed [default: 60s]
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    pub segment_age: Option<Duration>,
    /// Compression: auto, off, or a zstd level from -7 to 19 [default: auto]
    #[arg(long, value_name = "LEVEL", value_parser = units::level, allow_hyphen_values = true)]
    pub level: Option<Level>,
    /// Keep only the first N bytes of each packet, 64 to 262144; its length on the wire is kept, and what was cut
    /// is counted [default: all]
    #[arg(long, value_name = "N", value_parser = snaplen)]
    pub snaplen: Option<u32>,
    /// Record only packets that a rule means, such as 'net 10.0.0.0/8' or 'vlan 12 and tcp port 443'; may be repeated.
    /// In the configuration: a list `keep` under `[filter]`
    #[arg(long, value_name = "RULE")]
    pub keep: Vec<Rule>,
    /// Leave packets out that a rule means, also those that --keep keeps; may be repeated. What is left out is counted
    /// as `filtered`. In the configuration: a list `skip` under `[filter]`, read again on SIGHUP
    #[arg(long, value_name = "RULE")]
    pub skip: Vec<Rule>,
    /// What to do when compressor and disk are behind although less is compressed, and packet memory is filling:
    /// auto keeps only the headers of what a flow sends beyond --flow-keep, and counts what is cut; off stores packets
    /// whole or not at all [default: auto]
    #[arg(long, value_name = "auto|off", value_parser = shed_payload)]
    pub shed_payload: Option<bool>,
    /// First bytes of every flow that are kept whole, both directions together; up to 1GiB [default: 64KiB]
    #[arg(long, value_name = "SIZE", value_parser = flow_keep)]
    pub flow_keep: Option<u32>,
    /// Store packets whole or not at all: no payload is shed, and --snaplen is refused
    #[arg(long)]
    pub strict: bool,
    /// Stop after this time, counted from the ready line
    #[arg(long, value_name = "DURATION", value_parser = units::duration)]
    pub duration: Option<Duration>,
    /// Stop when at least this many packets are stored
    #[arg(long, value_name = "N")]
    pub packets: Option<u64>,
    /// CPUs for the workers, such as 2-5,8; one worker per queue [default: all this process may use]
    #[arg(long, value_name = "LIST", value_parser = cpus)]
    pub cpus: Option<CpuList>,
    /// Set one queue per worker CPU and a hash that sends both directions of a flow to the same queue;
    /// both are put back at the end
    #[arg(long)]
    pub rss: bool,
    /// Record even an interface that carries the default route
    #[arg(long)]
    pub force: bool,
    /// Believe the system clock also when it jumps by more than a day, as on a host that starts without a clock and is
    /// set by the network. Without it packet times go on as before the jump. In the configuration it is read again
    /// on SIGHUP; given here, the file cannot take it back
    #[arg(long)]
    pub accept_clock: bool,
    /// Whose clock stamps packets: card, system, or auto: the card's where it stamps every packet, else the system's.
    /// Only native XDP asks the card [default: auto]
    #[arg(long, value_name = "WHOSE", value_parser = stamps)]
    pub stamps: Option<StampWish>,
    /// Folder in a BPF file system where the XDP program is kept while recording, so that it counts on
    /// after a kill [default: /sys/fs/bpf/tapedeck]
    #[arg(long, value_name = "DIR")]
    pub pin_dir: Option<PathBuf>,
    /// How sessions are kept.
    #[command(flatten)]
    pub sessions: SessionArgs,
}

/// Arguments of `doctor`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DoctorArgs {
    /// Interface to look at
    #[arg(long, value_name = "IF")]
    pub interface: String,
    /// Folder that would be written to; may be repeated or a glob
    #[arg(long, value_name = "DIR")]
    pub store: Vec<PathBuf>,
    /// CPUs for the workers, such as 2-5,8 [default: all this process may use]
    #[arg(long, value_name = "LIST", value_parser = cpus)]
    pub cpus: Option<CpuList>,
    /// Print findings and facts as one JSON object
    #[arg(long)]
    pub json: bool,
    /// Folder where recorders keep their XDP programs [default: /sys/fs/bpf/tapedeck]
    #[arg(long, value_name = "DIR")]
    pub pin_dir: Option<PathBuf>,
}

/// Arguments of `detach`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct DetachArgs {
    /// Interfaces of this network namespace
    #[arg(value_name = "IF", required_unless_present = "all", conflicts_with = "all")]
    pub interfaces: Vec<String>,
    /// All that is left of dead recorders, in every network namespace
    #[arg(long)]
    pub all: bool,
    /// Folder where recorders keep their XDP programs [default: /sys/fs/bpf/tapedeck]
    #[arg(long, value_name = "DIR")]
    pub pin_dir: Option<PathBuf>,
}

/// Options of `status`.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct StatusArgs {
    /// Store the recorder writes to; may be repeated [default: those of all recorders on this machine]
    #[arg(long, value_name = "DIR")]
    pub store: Vec<PathBuf>,
    /// Print the ledger as JSON, one line per recorder
    #[arg(long)]
    pub json: bool,
    /// Folder where recorders keep their XDP programs [default: /sys/fs/bpf/tapedeck]
    #[arg(long, value_name = "DIR")]
    pub pin_dir: Option<PathBuf>,
}

/// What `--mode` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ModeWish {
    /// The fastest that works.
    #[default]
    Auto,
    /// This one or none.
    Only(Mode),
}

/// What `--stamps` asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum StampWish {
    /// The card's, where it stamps every packet.
    #[default]
    Auto,
    /// The card's or none.
    Card,
    /// The system's.
    System,
}

/// Reads whose stamps are wished for.
///
/// # Errors
/// A sentence with the names there are.
pub fn stamps(text: &str) -> Result<StampWish, String> {
    match text {
        "auto" => Ok(StampWish::Auto),
        "card" => Ok(StampWish::Card),
        "system" => Ok(StampWish::System),
        _ => Err("auto, card or system".to_owned()),
    }
}

/// CPUs, as one value for clap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuList(pub Vec<usize>);

/// Reads a mode.
///
/// # Errors
/// A sentence with the names there are.
pub fn mode(text: &str) -> Result<ModeWish, String> {
    if text == "auto" {
        return Ok(ModeWish::Auto);
    }
    Mode::named(text).map(ModeWish::Only).ok_or_else(|| "auto, zerocopy, copy, skb or packet".to_owned())
}

/// Reads a CPU list.
///
/// # Errors
/// [`units::UnitError`].
pub fn cpus(text: &str) -> Result<CpuList, units::UnitError> {
    units::cpus(text).map(CpuList)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_definition_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_timeout_has_its_name() {
        for (number, name) in (1_u64..).zip(TIMEOUTS) {
            let args = SessionArgs {
                timeout: vec![timeout(&format!("{name}={number}s")).unwrap()],
                ..SessionArgs::default()
            };
            let mut times = args.options().timeouts;
            assert_eq!(timeout_of(&mut times, name).copied(), Some(number * 1_000_000_000), "{name}");
            *timeout_of(&mut times, name).unwrap() = 0;
            let mut others = Timeouts::default();
            *timeout_of(&mut others, name).unwrap() = 0;
            assert_eq!(times, others, "{name} changes one only");
        }
        for (wrong, said) in [
            ("interim=1s", "`interim` is none of tcp-inactivity,"),
            ("tcp-inactivity", "write NAME=DURATION"),
            ("fragment=0", "`0` is not a duration"),
            ("fragment=366d", "a year at most"),
        ] {
            assert!(timeout(wrong).unwrap_err().contains(said), "{wrong}: {:?}", timeout(wrong));
        }
    }

    #[test]
    fn negative_levels_are_values() {
        let cli = Cli::try_parse_from(["tapedeck", "record", "--level", "-5", "--mode", "skb"]).unwrap();
        let Command::Record(args) = cli.command else { panic!("not record") };
        assert_eq!((args.level, args.mode), (Some(Level::Fixed(-5)), Some(ModeWish::Only(Mode::Skb))));
    }
}
