//! What the command line means: the second step after [`crate::cli`]. Touches the file system only to
//! expand store patterns.

use crate::cli::{
    FormatArg, InspectArgs, PacketsArgs, RangeArgs, SegmentsArgs, SessionFormat, SessionsArgs, SqlArgs,
    SqlFormat,
};
use crate::failure::Failure;
use crate::filter::{Expr, Filter, FilterError};
use crate::range::TimeRange;
use crate::sessions::facts::{Unanswerable, unanswerable};
use crate::time_arg::{TimeError, parse_duration_ns, parse_time};
use std::path::{Path, PathBuf};
use tapedeck_index::catalog::{StoreFile, StoreFileError};
use tapedeck_index::name::PACKETS_FOLDER;
use tapedeck_packet::Timestamp;

/// The form of the packets in an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Format {
    /// One line a packet.
    Text,
    /// One JSON object a line.
    Json,
    /// pcapng.
    Pcapng,
    /// pcap with microseconds, else nanoseconds.
    Pcap {
        /// Microseconds.
        micros: bool,
    },
}

impl Format {
    /// Is it nothing for a terminal?
    #[must_use]
    pub fn is_binary(self) -> bool {
        matches!(self, Self::Pcapng | Self::Pcap { .. })
    }
}

/// What becomes of the matching packets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deliver {
    /// Their number on stdout.
    Count,
    /// All of them on stdout.
    Stdout(Format),
    /// All of them into a file.
    File(PathBuf, Format),
    /// The plan on stdout, no packets.
    Explain,
}

/// `taperead packets`, understood.
#[derive(Debug)]
pub struct PacketsAsk {
    /// Store folders, each once.
    pub stores: Vec<PathBuf>,
    /// Which packets.
    pub filter: Filter,
    /// The filter as typed; empty = all.
    pub filter_text: String,
    /// When.
    pub range: TimeRange,
    /// No begin was named.
    pub is_open: bool,
    /// What becomes of them.
    pub deliver: Deliver,
    /// At most so many.
    pub limit: Option<u64>,
    /// The verdict as JSON on stderr.
    pub verdict_json: bool,
}

/// `taperead segments`, understood.
#[derive(Debug)]
pub struct SegmentsAsk {
    /// Store folders, each once.
    pub stores: Vec<PathBuf>,
    /// When.
    pub range: TimeRange,
    /// JSON lines instead of a table.
    pub json: bool,
}

/// What becomes of the matching sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliverSessions {
    /// Their number on stdout.
    Count,
    /// All of them on stdout.
    Stdout(SessionFormat),
    /// Their packets.
    Packets(Deliver),
}

/// `taperead sessions`, understood.
#[derive(Debug)]
pub struct SessionsAsk {
    /// Store folders, each once.
    pub stores: Vec<PathBuf>,
    /// Which sessions.
    pub filter: Filter,
    /// When.
    pub range: TimeRange,
    /// What becomes of them.
    pub deliver: DeliverSessions,
    /// At most so many.
    pub limit: Option<u64>,
    /// The verdict as JSON on stderr.
    pub verdict_json: bool,
}

impl SessionsAsk {
    /// Works out what `args` mean.
    ///
    /// # Errors
    /// As [`PacketsAsk::new`]; also a predicate that sessions cannot answer.
    pub fn new(args: SessionsArgs, now: Timestamp) -> Result<Self, Failure> {
        let filter = Filter::parse(&args.filter.join(" "))
            .map_err(|e| filter_failure(&e, "'taperead sessions --help' lists the filter language"))?;
        if let Some(Unanswerable { what, why }) = unanswerable(filter.expr()) {
            return Err(Failure::new(format!("sessions cannot be asked `{what}`: {why}"))
                .hint("'taperead packets' answers it packet by packet"));
        }
        let deliver = match (&args.write, args.count) {
            (_, true) => DeliverSessions::Count,
            (Some(path), _) if path.as_os_str() == "-" => {
                DeliverSessions::Packets(Deliver::Stdout(Format::Pcapng))
            }
            (Some(path), _) => DeliverSessions::Packets(Deliver::File(path.clone(), capture_format(path))),
            (None, _) => DeliverSessions::Stdout(args.format.unwrap_or(SessionFormat::Table)),
        };
        Ok(Self {
            range: range(&args.range, now)?,
            stores: stores(&args.range.store)?,
            filter,
            deliver,
            limit: args.limit,
            verdict_json: args.json,
        })
    }
}

/// `taperead sql`, understood.
#[derive(Debug)]
pub struct SqlAsk {
    /// Store folders, each once.
    pub stores: Vec<PathBuf>,
    /// The statement.
    pub query: String,
    /// Form of the answer.
    pub format: SqlFormat,
}

impl SqlAsk {
    /// Works out what `args` mean.
    ///
    /// # Errors
    /// No such store.
    pub fn new(args: SqlArgs) -> Result<Self, Failure> {
        Ok(Self { stores: stores(&args.store)?, query: args.query, format: args.format })
    }
}

/// The form that a file's name asks for.
fn capture_format(path: &Path) -> Format {
    let is_pcap = path.extension().is_some_and(|e| e.eq_ignore_ascii_case("pcap"));
    if is_pcap { Format::Pcap { micros: false } } else { Format::Pcapng }
}

impl PacketsAsk {
    /// Works out what `args` mean.
    ///
    /// # Errors
    /// The first thing that means nothing: filter, time, options that exclude each other, store.
    pub fn new(args: PacketsArgs, now: Timestamp) -> Result<Self, Failure> {
        let filter_text = args.filter.join(" ");
        let filter = Filter::parse(&filter_text)
            .map_err(|e| filter_failure(&e, "'taperead packets --help' lists the filter language"))?;
        let of_sessions = |part: &Expr| match part {
            Expr::Session(atom) => Some(atom.to_string()),
            _ => None,
        };
        if let Some(what) = filter.expr().find(&of_sessions) {
            return Err(Failure::new(format!(
                "packets cannot be asked `{what}`: it is a property of a session"
            ))
            .hint("'taperead sessions ... --packets -w FILE' gives the packets of such sessions"));
        }
        let (is_open, range) = (is_open(&args.range), range(&args.range, now)?);
        let deliver = deliver(&args)?;
        let stores = stores(&args.range.store)?;
        let (limit, verdict_json) = (args.limit, args.json);
        Ok(Self { stores, filter, filter_text, range, is_open, deliver, limit, verdict_json })
    }
}

impl SegmentsAsk {
    /// Works out what `args` mean.
    ///
    /// # Errors
    /// As [`PacketsAsk::new`].
    pub fn new(args: &SegmentsArgs, now: Timestamp) -> Result<Self, Failure> {
        Ok(Self { range: range(&args.range, now)?, stores: stores(&args.range.store)?, json: args.json })
    }
}

fn is_open(args: &RangeArgs) -> bool {
    args.from.is_none() && args.last.is_none()
}

/// Range and stores of a command that asks for nothing else.
pub(crate) fn range_and_stores(
    args: &RangeArgs,
    now: Timestamp,
) -> Result<(TimeRange, Vec<PathBuf>), Failure> {
    Ok((range(args, now)?, stores(&args.store)?))
}

/// `taperead inspect` means what it says.
#[must_use]
pub fn inspect(args: InspectArgs) -> Vec<PathBuf> {
    args.files
}

fn filter_failure(error: &FilterError, help: &str) -> Failure {
    // The error shows its hint itself; ours stands where all hints stand.
    let mut text = error.to_string();
    if let Some(hint) = error.hint() {
        text.truncate(text.trim_end_matches(hint).trim_end_matches("\nhint: ").len());
    }
    let failure = Failure::new(format!("cannot read the filter: {text}"));
    failure.hint(error.hint().unwrap_or(help))
}

fn deliver(args: &PacketsArgs) -> Result<Deliver, Failure> {
    let pcap_name = |path: &Path| path.extension().is_some_and(|e| e.eq_ignore_ascii_case("pcap"));
    let format = match (args.format, &args.write) {
        (Some(FormatArg::Text), _) | (None, None) => Format::Text,
        (Some(FormatArg::Json), _) => Format::Json,
        (Some(FormatArg::Pcap), _) => Format::Pcap { micros: args.us },
        (None, Some(path)) if pcap_name(path) => Format::Pcap { micros: args.us },
        (Some(FormatArg::Pcapng), _) | (None, Some(_)) => Format::Pcapng,
    };
    if args.us && !matches!(format, Format::Pcap { .. }) {
        return Err(Failure::new("--us is for pcap only")
            .hint("add --format pcap, or leave --us out: pcapng keeps nanoseconds"));
    }
    Ok(match &args.write {
        _ if args.explain => Deliver::Explain,
        _ if args.count => Deliver::Count,
        Some(path) if path.as_os_str() != "-" => Deliver::File(path.clone(), format),
        _ => Deliver::Stdout(format),
    })
}

fn range(args: &RangeArgs, now: Timestamp) -> Result<TimeRange, Failure> {
    let time = |option: &str, text: &Option<String>| {
        text.as_deref().map(|t| parse_time(t, now)).transpose().map_err(|e| time_failure(option, &e))
    };
    if let Some(last) = &args.last {
        let nanos = parse_duration_ns(last).map_err(|e| time_failure("--last", &e))?;
        return Ok(TimeRange { from: now.saturating_sub(nanos), to: Some(now) });
    }
    let range = TimeRange {
        from: time("--from", &args.from)?.unwrap_or(Timestamp::ZERO),
        to: time("--to", &args.to)?,
    };
    match range.to {
        Some(to) if to <= range.from => {
            Err(Failure::new(format!("the range is empty: --from {} is not before --to {to}", range.from))
                .hint("--from is inclusive, --to exclusive; a time without a zone is UTC"))
        }
        _ => Ok(range),
    }
}

fn time_failure(option: &str, error: &TimeError) -> Failure {
    Failure::because(
        format!("{option} needs a {}", if option == "--last" { "duration" } else { "time" }),
        error,
    )
    .hint(error.hint())
}

/// Every store folder once, in order of path: patterns expanded, each checked to be a store.
fn stores(patterns: &[String]) -> Result<Vec<PathBuf>, Failure> {
    let mut found = Vec::new();
    for pattern in patterns {
        let literal = PathBuf::from(pattern);
        if literal.exists() || !pattern.contains(['*', '?', '[']) {
            check_store(&literal)?;
            found.push(literal);
            continue;
        }
        let matches = glob::glob(pattern)
            .map_err(|e| Failure::because(format!("'{pattern}' is not a pattern"), &e))?
            .filter_map(Result::ok)
            .filter(|path| is_store(path));
        let before = found.len();
        for path in matches {
            check_store(&path)?;
            found.push(path);
        }
        if found.len() == before {
            return Err(Failure::new(format!("no store matches '{pattern}'")).hint(
                "a store is a folder with store.json or packets/ in it, as 'tapedeck record' makes it",
            ));
        }
    }
    found.sort();
    // Two names of one folder must not give every packet twice.
    let mut seen = std::collections::HashSet::new();
    found.retain(|path| seen.insert(std::fs::canonicalize(path).unwrap_or_else(|_| path.clone())));
    Ok(found)
}

/// Only looks like a store; [`check_store`] reads what it says of itself.
fn is_store(path: &Path) -> bool {
    path.join(PACKETS_FOLDER).is_dir() || path.join("store.json").is_file()
}

fn check_store(path: &Path) -> Result<(), Failure> {
    let what = || format!("no store at '{}'", path.display());
    let hint = "--store takes the folder given to 'tapedeck record --store'";
    if let Err(e) = std::fs::metadata(path) {
        return Err(Failure::because(what(), &e).hint(hint));
    }
    match StoreFile::read(path) {
        Ok(_) => Ok(()),
        // The description may be lost; segments speak for themselves.
        Err(StoreFileError::Absent { .. }) if is_store(path) => Ok(()),
        Err(StoreFileError::Absent { .. }) => Err(Failure::because(what(), &NotAStore).hint(hint)),
        Err(e) => Err(Failure::because(format!("cannot use the store at '{}'", path.display()), &e)),
    }
}

#[derive(Debug, thiserror::Error)]
#[error("it has neither store.json nor packets/")]
struct NotAStore;

#[cfg(test)]
mod tests {
    //! From words to meaning; errors are shown by the tests of the binary.

    use super::*;
    use crate::cli::{Cli, Command};
    use clap::Parser as _;

    fn deliver_of(args: &[&str]) -> Result<Deliver, String> {
        let words = ["taperead", "packets", "--store", "x"].iter().chain(args);
        let Command::Packets(args) = Cli::try_parse_from(words).map_err(|e| e.to_string())?.command else {
            panic!("packets");
        };
        deliver(&args).map_err(|e| e.to_string())
    }

    #[test]
    fn the_form_follows_name_and_option() {
        let file = |name: &str, format| Ok(Deliver::File(PathBuf::from(name), format));
        let (ns, us) = (Format::Pcap { micros: false }, Format::Pcap { micros: true });
        assert_eq!(deliver_of(&[]), Ok(Deliver::Stdout(Format::Text)));
        assert_eq!(deliver_of(&["--format", "json"]), Ok(Deliver::Stdout(Format::Json)));
        assert_eq!(deliver_of(&["-w", "-"]), Ok(Deliver::Stdout(Format::Pcapng)));
        assert_eq!(deliver_of(&["-w", "-", "--format", "pcap"]), Ok(Deliver::Stdout(ns)));
        assert_eq!(deliver_of(&["-w", "a"]), file("a", Format::Pcapng));
        assert_eq!(deliver_of(&["-w", "a.pcap"]), file("a.pcap", ns));
        assert_eq!(deliver_of(&["-w", "a.pcap", "--us"]), file("a.pcap", us));
        assert_eq!(deliver_of(&["-w", "a.pcap", "--format", "pcapng"]), file("a.pcap", Format::Pcapng));
        assert_eq!(deliver_of(&["-w", "a.txt", "--format", "text"]), file("a.txt", Format::Text));
        assert_eq!(deliver_of(&["--count"]), Ok(Deliver::Count));
        assert_eq!(deliver_of(&["--explain", "-w", "a"]), Ok(Deliver::Explain));
        assert!(deliver_of(&["--us"]).is_err());
        assert!(deliver_of(&["--count", "-w", "a"]).is_err());
    }

    #[test]
    fn filter_words_may_stand_anywhere() {
        let words = ["taperead", "packets", "host", "10.0.0.1", "--store", "x", "and", "not", "port", "53"];
        let Command::Packets(args) = Cli::try_parse_from(words).unwrap().command else { panic!("packets") };
        assert_eq!(args.filter.join(" "), "host 10.0.0.1 and not port 53");
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
