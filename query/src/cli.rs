//! The command line as typed. What it means is worked out in [`crate::ask`].
//!
//! Help, man page and completions come from here; nothing is listed that does not work.

use crate::stats::StatsFormat;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

const TOP_HELP: &str = "\
Answers say how complete they are. Exit status: 0 = matches, whole answer; 1 = no match, whole answer
(proof of absence); 3 = the answer is not whole, what matched was written; 2 = error, nothing to believe.";

const PACKETS_HELP: &str = "\
FILTER is the tcpdump language; words are joined by blanks, quote ( ) and ! for the shell:
  host A   src A   dst A   net A/N   port P   portrange P-Q   tcp udp icmp icmp6 sctp   ip ip6 arp
  ip proto N   vlan [N]   mpls [N]   ether host MAC   less N   greater N   and or not ( )
  community-id '1:...'   flow A:p B:q tcp   inner (EXPR)
VLAN, QinQ, MPLS and PPPoE are looked through: `host A` finds A behind a tag. `inner` looks into tunnels.

TIME is UTC unless it names a zone:
  2026-11-21T18:00:00Z   '2026-11-21 18:00'   '2026-11-21 18:00:05.25'   2026-11-21
  1795284000.5 (Unix time)   '2h ago'   '90s ago'   now
--from is inclusive, --to exclusive, both exact to the nanosecond.

Examples:
  # everything of one host in the last two hours, for Wireshark
  taperead packets host 10.1.2.3 --store /data/tape --last 2h -w case17.pcapng

  # one conversation, straight into tcpdump
  taperead packets flow 10.1.2.3:51544 203.0.113.9:443 tcp --store /data/tape -w - | tcpdump -n -r -

  # was there any DNS to that server last night? exit status 1 = proven no
  taperead packets host 192.0.2.53 and port 53 --store /data/tape \\
      --from '2026-11-20 22:00' --to '2026-11-21 06:00' --count

  # the packets behind an alert that gives a Community ID
  taperead packets community-id '1:LQU9qZlK+B5F3KDmev6m5PMibrg=' --store /data/tape --from '1h ago'

  # several stores, one answer in order of time
  taperead packets vlan 100 and arp --store '/data/tape*' --last 10m

  # what would be read, without reading it
  taperead packets net 10.0.0.0/8 and port 22 --store /data/tape --last 7d --explain

Exit status: 0 = matches, whole answer; 1 = no match, whole answer; 3 = answer not whole; 2 = error.";

const SESSIONS_HELP: &str = "\
FILTER is that of `taperead packets`; src is who opened the session, dst who answered. Also:
  state S0    service ssl    sni NAME    sni '*.example.org'    http-host NAME    dns NAME    alpn h2
  ja4 FINGERPRINT    history ShADadFf    uid ID    bytes > 10M    packets <= 3    duration > 5m
In a text * stands for anything. Not asked of sessions: less, greater, len, arp, ether proto, pppoes.
A session is found when it has a record that overlaps the range; its counts are since it began.
A + behind the state says that the session goes on.

Examples:
  # who talked to this host in the last hour
  taperead sessions host 10.1.2.3 --store /data/tape --last 1h

  # refused and unanswered connections to a network, as Zeek's conn.log
  taperead sessions tcp and dst net 10.9.0.0/16 and '(' state S0 or state REJ ')' \\
      --store /data/tape --last 1d --format zeek | zeek-cut id.orig_h id.resp_h id.resp_p

  # large TLS transfers to one name, and their packets for Wireshark
  taperead sessions service ssl and sni '*.example.org' and bytes '>' 10M \\
      --store /data/tape --from 2026-11-21 --packets -w case17.pcapng

Exit status: 0 = matches, whole answer; 1 = no match, whole answer; 3 = answer not whole; 2 = error.";

const SQL_HELP: &str = "\
Tables: sessions, one row a record of a session; stats, one row a minute, interface, dimension and key;
docs/schema.md has the columns. A session that lasts has several records: counts are those since the
last one, *_total those since it began.
Times are UTC and exact to the nanosecond. A condition on ts_last or ts_interval opens only the files of
those hours; one on a uid, Community ID or address skips row groups by Bloom filter.

Examples:
  # top talkers of the last hour by bytes sent
  taperead sql --store /data/tape \"SELECT src_ip, sum(orig_ip_bytes) AS sent FROM sessions
      WHERE ts_last >= now() - INTERVAL '1 hour' GROUP BY src_ip ORDER BY sent DESC LIMIT 20\"

  # the columns
  taperead sql --store /data/tape \"SELECT column_name, data_type FROM information_schema.columns\"

  # an answer for other tools
  taperead sql --store /data/tape 'SELECT * FROM sessions' --format parquet > sessions.parquet

Exit status: 0 = rows, whole answer; 1 = no row, whole answer; 3 = answer not whole; 2 = error.";

const SEGMENTS_HELP: &str = "\
One line a segment, in order of time. `open` segments are being written; their packets are found too.
Of a `missing` one only the index is left: its packets are lost, as those of one that is `cut` in part.

Examples:
  taperead segments --store /data/tape --last 1h
  taperead segments --store /data/tape --from 2026-11-21 --json | jq -r 'select(.packets > 0) | .path'";

const STATS_HELP: &str = "\
Traffic by minute, as the recorder counted it. Top lists of hosts are sketches: two bounds are shown where the
number is not exact. --unusual compares each hour with the same hour of earlier days and weeks, and shows what
departs from all of them, most unusual first, each with the command that shows its sessions.

Examples:
  taperead stats --store /data/tape --last 24h
  taperead stats --store /data/tape --last 7d --interface eth1 --protocol udp
  taperead stats --store /data/tape --last 24h --unusual
  taperead stats --store /data/tape --from 2026-11-20 --to 2026-11-21 --html day.html
  taperead stats --store /data/tape --last 1h --format csv

Exit status: 0 = something to show; 1 = nothing; 3 = not whole: files that cannot be read, hours that cannot be
judged; 2 = error.";

const INSPECT_HELP: &str = "\
Reads a .pcapng.zst, .idx, .open or .journal and says what is in it, as far as it can be read: the
place of the first damage is given as a byte offset. Never writes.

Example:
  taperead inspect /data/tape/packets/dt=2026-11-21/hr=18/*.idx

Exit status: 0 = whole; 3 = damaged, what could be read is shown; 2 = cannot be read or is foreign.";

/// Gets packets back out of a tapedeck store.
#[derive(Debug, Parser)]
#[command(name = "taperead", version, about, after_help = TOP_HELP, max_term_width = 110)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Find packets by filter and time; print, count or export them
    #[command(after_help = PACKETS_HELP)]
    Packets(Box<PacketsArgs>),
    /// Find sessions by filter and time; print, count, or export their packets
    #[command(after_help = SESSIONS_HELP)]
    Sessions(Box<SessionsArgs>),
    /// Ask the tables of a store in SQL; reading only
    #[command(after_help = SQL_HELP)]
    Sql(SqlArgs),
    /// List the segments on disk
    #[command(after_help = SEGMENTS_HELP)]
    Segments(SegmentsArgs),
    /// Show traffic over time, top tables, and what departs from the habits
    #[command(after_help = STATS_HELP)]
    Stats(Box<StatsArgs>),
    /// Look inside one file of a store, also a broken one
    #[command(after_help = INSPECT_HELP)]
    Inspect(InspectArgs),
}

/// Where to look and when.
#[derive(Debug, Args)]
pub struct RangeArgs {
    /// Store folder; repeat it or give a quoted pattern with * for several
    #[arg(long, value_name = "DIR", required = true)]
    pub store: Vec<String>,
    /// From this time on (inclusive)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub from: Option<String>,
    /// Before this time (exclusive)
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    pub to: Option<String>,
    /// The time span before now: 90s, 15m, 2h, 7d
    #[arg(long, value_name = "DURATION", conflicts_with_all = ["from", "to"])]
    pub last: Option<String>,
}

/// How an answer is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum FormatArg {
    /// pcapng, nanoseconds, interface names kept
    Pcapng,
    /// pcap, nanoseconds (see --us); one link type only
    Pcap,
    /// One line a packet
    Text,
    /// One JSON object a line
    Json,
}

/// `taperead packets`.
#[derive(Debug, Args)]
pub struct PacketsArgs {
    /// Which packets, in the tcpdump language (below); none = all
    #[arg(value_name = "FILTER")]
    pub filter: Vec<String>,
    /// Store and time.
    #[command(flatten)]
    pub range: RangeArgs,
    /// Write the packets to FILE, '-' = stdout; pcapng, or pcap when the name ends in .pcap
    #[arg(short = 'w', long = "write", value_name = "FILE")]
    pub write: Option<PathBuf>,
    /// Form of the answer [default: text, with -w pcapng]
    #[arg(long, value_enum)]
    pub format: Option<FormatArg>,
    /// pcap with microseconds, for tools that do not know nanoseconds
    #[arg(long)]
    pub us: bool,
    /// Stop after the first N packets in order of time
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Print only the number of packets
    #[arg(long, conflicts_with_all = ["write", "format", "us"])]
    pub count: bool,
    /// Print what would be read and why, and read nothing
    #[arg(long)]
    pub explain: bool,
    /// Say how complete the answer is as one JSON object, the last line of stderr; also after an error
    #[arg(long)]
    pub json: bool,
}

/// How sessions are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SessionFormat {
    /// For people, as wide as the terminal
    Table,
    /// One JSON object a line
    Json,
    /// CSV with a line of names
    Csv,
    /// Zeek's conn.log
    Zeek,
}

/// `taperead sessions`.
#[derive(Debug, Args)]
pub struct SessionsArgs {
    /// Which sessions (below); none = all
    #[arg(value_name = "FILTER")]
    pub filter: Vec<String>,
    /// Store and time.
    #[command(flatten)]
    pub range: RangeArgs,
    /// Form of the answer [default: table]
    #[arg(long, value_enum)]
    pub format: Option<SessionFormat>,
    /// Stop after the first N sessions in order of their first packet
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..))]
    pub limit: Option<u64>,
    /// Print only the number of sessions
    #[arg(long, conflicts_with_all = ["write", "format", "packets"])]
    pub count: bool,
    /// The packets of these sessions instead of the sessions; with -w
    #[arg(long, requires = "write", conflicts_with = "format")]
    pub packets: bool,
    /// Write the packets to FILE, '-' = stdout; pcapng, or pcap when the name ends in .pcap
    #[arg(short = 'w', long = "write", value_name = "FILE", requires = "packets")]
    pub write: Option<PathBuf>,
    /// Say how complete the answer is as one JSON object, the last line of stderr
    #[arg(long)]
    pub json: bool,
}

/// How the rows of a query are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum SqlFormat {
    /// For people
    Table,
    /// One JSON object a line
    Json,
    /// CSV with a line of names
    Csv,
    /// A Parquet file
    Parquet,
}

/// `taperead sql`.
#[derive(Debug, Args)]
pub struct SqlArgs {
    /// A SELECT (or EXPLAIN) statement
    #[arg(value_name = "QUERY")]
    pub query: String,
    /// Store folder; repeat it or give a quoted pattern with * for several
    #[arg(long, value_name = "DIR", required = true)]
    pub store: Vec<String>,
    /// Form of the answer
    #[arg(long, value_enum, default_value = "table")]
    pub format: SqlFormat,
}

/// `taperead segments`.
#[derive(Debug, Args)]
pub struct SegmentsArgs {
    /// Store and time.
    #[command(flatten)]
    pub range: RangeArgs,
    /// One JSON object a line instead of a table
    #[arg(long)]
    pub json: bool,
}

/// `taperead stats`.
#[derive(Debug, Args)]
pub struct StatsArgs {
    /// Store and time.
    #[command(flatten)]
    pub range: RangeArgs,
    /// Only this interface; repeat it for several
    #[arg(long, value_name = "IF")]
    pub interface: Vec<String>,
    /// Only this IP protocol: tcp, udp, icmp, icmp6, sctp or a number
    #[arg(long, value_name = "P")]
    pub protocol: Option<String>,
    /// Show what departs from the same hour of earlier days and weeks
    #[arg(long)]
    pub unusual: bool,
    /// Form of the answer
    #[arg(long, value_enum, default_value_t)]
    pub format: StatsFormat,
    /// Lines of each top table
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub top: usize,
    /// Write one self-contained page with plots, tables and what departs
    #[arg(long, value_name = "FILE", conflicts_with_all = ["unusual", "format"])]
    pub html: Option<PathBuf>,
    /// Draw with ASCII only [default: where the locale is not UTF-8]
    #[arg(long)]
    pub ascii: bool,
    /// Say how complete the answer is as one JSON object, the last line of stderr
    #[arg(long)]
    pub json: bool,
}

/// `taperead inspect`.
#[derive(Debug, Args)]
pub struct InspectArgs {
    /// A .pcapng.zst, .idx, .open or .journal file
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,
}
