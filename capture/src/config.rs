//! The configuration file of `record`: TOML, keys named as the options, unknown keys refused.

use crate::cli::{self, NamedTimeout, RecordArgs, SessionArgs};
use crate::units;
use serde::Deserialize;
use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use tapedeck_ebpf::Filter;
use tapedeck_ebpf::filter::{FilterError, Rule, RuleError};
use toml::Spanned;

/// A file that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It cannot be read.
    #[error("cannot read the configuration {}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// The answer.
        #[source]
        source: io::Error,
    },
    /// It is not TOML, or has a key that no option has.
    #[error("the configuration {} is not understood", path.display())]
    Parse {
        /// The file.
        path: PathBuf,
        /// Where and why.
        #[source]
        source: toml::de::Error,
    },
    /// A key has a value its option would not take.
    #[error("the configuration {}: {key}: {why}", path.display())]
    Value {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// What is wrong.
        why: String,
    },
    /// A rule of the filter cannot be read.
    #[error("the configuration {}, line {line}: {key} of [filter] is not understood", path.display())]
    Rule {
        /// The file.
        path: PathBuf,
        /// Line of the rule, from 1.
        line: usize,
        /// `keep` or `skip`.
        key: &'static str,
        /// What is wrong, and what to write.
        #[source]
        source: RuleError,
    },
    /// The rules are more than a filter can hold.
    #[error("the configuration {}: the rules of [filter] make no filter", path.display())]
    Filter {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: FilterError,
    },
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RecordFile {
    interface: Option<OneOrMany>,
    store: Option<OneOrMany>,
    mode: Option<Scalar>,
    packet_memory: Option<Scalar>,
    segment_size: Option<Scalar>,
    segment_age: Option<Scalar>,
    level: Option<Scalar>,
    snaplen: Option<Scalar>,
    shed_payload: Option<Scalar>,
    flow_keep: Option<Scalar>,
    strict: Option<bool>,
    duration: Option<Scalar>,
    packets: Option<u64>,
    cpus: Option<Scalar>,
    rss: Option<bool>,
    force: Option<bool>,
    accept_clock: Option<bool>,
    stamps: Option<Scalar>,
    pin_dir: Option<PathBuf>,
    max_sessions: Option<Scalar>,
    timeout: Option<OneOrMany>,
    separate_vlans: Option<bool>,
    filter: Option<FilterSection>,
}

/// `[filter]`: rules, each with its place in the file.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct FilterSection {
    keep: Option<Vec<Spanned<String>>>,
    skip: Option<Vec<Spanned<String>>>,
}

#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

/// Where an option takes a text or a number, so does the file.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum Scalar {
    Text(String),
    Number(i64),
}

impl OneOrMany {
    fn into_list(self) -> Vec<String> {
        match self {
            Self::One(one) => vec![one],
            Self::Many(many) => many,
        }
    }
}

impl Scalar {
    fn into_text(self) -> String {
        match self {
            Self::Text(text) => text,
            Self::Number(number) => number.to_string(),
        }
    }
}

/// Reads a value as its option would.
fn value<T, E: Display>(
    path: &Path,
    key: &'static str,
    from: Option<Scalar>,
    parse: fn(&str) -> Result<T, E>,
) -> Result<Option<T>, ConfigError> {
    from.map(|scalar| parse(&scalar.into_text())).transpose().map_err(|why| ConfigError::Value {
        path: path.to_owned(),
        key,
        why: why.to_string(),
    })
}

/// The timeouts of the file, then those typed: the last of a name holds.
fn timeouts(
    path: &Path,
    file: Option<OneOrMany>,
    typed: Vec<NamedTimeout>,
) -> Result<Vec<NamedTimeout>, ConfigError> {
    let texts = file.map(OneOrMany::into_list).unwrap_or_default();
    let read = |text: &String| {
        cli::timeout(text).map_err(|why| ConfigError::Value { path: path.to_owned(), key: "timeout", why })
    };
    let mut all = texts.iter().map(read).collect::<Result<Vec<_>, _>>()?;
    all.extend(typed);
    Ok(all)
}

/// Fills what was not typed from the file that `--config` names, if it names one.
///
/// # Errors
/// [`ConfigError`].
pub fn with_file(typed: RecordArgs) -> Result<RecordArgs, ConfigError> {
    let Some(path) = typed.config.clone() else { return Ok(typed) };
    let text =
        fs::read_to_string(&path).map_err(|source| ConfigError::Read { path: path.clone(), source })?;
    merge(typed, &path, &text)
}

/// The file of a recording, to be read again while it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reload {
    path: PathBuf,
    typed: RecordArgs,
    /// What the recording began with.
    merged: RecordArgs,
}

impl Reload {
    /// For a recording that was begun with `merged`; `None` without `--config`.
    #[must_use]
    pub fn of(typed: &RecordArgs, merged: &RecordArgs) -> Option<Self> {
        let path = typed.config.clone()?;
        Some(Self { path, typed: typed.clone(), merged: merged.clone() })
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Reads the file again.
    ///
    /// # Errors
    /// [`ConfigError`].
    pub fn again(&self) -> Result<Again, ConfigError> {
        let now = with_file(self.typed.clone())?;
        let filter = Filter::new(now.keep.clone(), now.skip.clone())
            .map_err(|source| ConfigError::Filter { path: self.path.clone(), source })?;
        Ok(Again { filter, accept_clock: now.accept_clock, others: changed(&self.merged, &now) })
    }
}

/// What a file says that was read again.
#[derive(Debug, PartialEq, Eq)]
pub struct Again {
    /// The filter it asks for.
    pub filter: Filter,
    /// Jumps of the clock are to be believed.
    pub accept_clock: bool,
    /// Keys whose change needs another start.
    pub others: Vec<&'static str>,
}

/// Keys whose values differ, other than those that are heeded at once.
fn changed(old: &RecordArgs, new: &RecordArgs) -> Vec<&'static str> {
    // Every key is named here, so that a new one cannot be forgotten.
    let RecordArgs {
        interface,
        store,
        config: _,
        mode,
        packet_memory,
        segment_size,
        segment_age,
        level,
        snaplen,
        keep: _,
        skip: _,
        shed_payload,
        flow_keep,
        strict,
        duration,
        packets,
        cpus,
        rss,
        force,
        accept_clock: _,
        stamps,
        pin_dir,
        sessions: SessionArgs { max_sessions, timeout, separate_vlans },
    } = old;
    let keys = [
        ("interface", *interface != new.interface),
        ("store", *store != new.store),
        ("mode", *mode != new.mode),
        ("packet-memory", *packet_memory != new.packet_memory),
        ("segment-size", *segment_size != new.segment_size),
        ("segment-age", *segment_age != new.segment_age),
        ("level", *level != new.level),
        ("snaplen", *snaplen != new.snaplen),
        ("shed-payload", *shed_payload != new.shed_payload),
        ("flow-keep", *flow_keep != new.flow_keep),
        ("strict", *strict != new.strict),
        ("duration", *duration != new.duration),
        ("packets", *packets != new.packets),
        ("cpus", *cpus != new.cpus),
        ("rss", *rss != new.rss),
        ("force", *force != new.force),
        ("stamps", *stamps != new.stamps),
        ("pin-dir", *pin_dir != new.pin_dir),
        ("max-sessions", *max_sessions != new.sessions.max_sessions),
        ("timeout", *timeout != new.sessions.timeout),
        ("separate-vlans", *separate_vlans != new.sessions.separate_vlans),
    ];
    keys.into_iter().filter(|(_, differs)| *differs).map(|(key, _)| key).collect()
}

/// The rules of a list in the file, unless some were typed.
fn rules(
    path: &Path,
    text: &str,
    key: &'static str,
    typed: Vec<Rule>,
    file: Option<Vec<Spanned<String>>>,
) -> Result<Vec<Rule>, ConfigError> {
    let Some(list) = file.filter(|_| typed.is_empty()) else { return Ok(typed) };
    let read = |rule: &Spanned<String>| {
        let line = || text.get(..rule.span().start).unwrap_or_default().matches('\n').count() + 1;
        rule.get_ref().parse().map_err(|source| ConfigError::Rule {
            path: path.to_owned(),
            line: line(),
            key,
            source,
        })
    };
    list.iter().map(read).collect()
}

fn merge(typed: RecordArgs, path: &Path, text: &str) -> Result<RecordArgs, ConfigError> {
    let file: RecordFile =
        toml::from_str(text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })?;
    let list = |typed: Vec<String>, file: Option<OneOrMany>| match file {
        Some(file) if typed.is_empty() => file.into_list(),
        _ => typed,
    };
    let store = match file.store {
        Some(store) if typed.store.is_empty() => store.into_list().into_iter().map(PathBuf::from).collect(),
        _ => typed.store,
    };
    let FilterSection { keep, skip } = file.filter.unwrap_or_default();
    Ok(RecordArgs {
        keep: rules(path, text, "keep", typed.keep, keep)?,
        skip: rules(path, text, "skip", typed.skip, skip)?,
        interface: list(typed.interface, file.interface),
        store,
        config: typed.config,
        mode: typed.mode.or(value(path, "mode", file.mode, cli::mode)?),
        packet_memory: typed.packet_memory.or(value(
            path,
            "packet-memory",
            file.packet_memory,
            units::packet_memory,
        )?),
        segment_size: typed.segment_size.or(value(
            path,
            "segment-size",
            file.segment_size,
            units::segment_bytes,
        )?),
        segment_age: typed.segment_age.or(value(path, "segment-age", file.segment_age, units::duration)?),
        level: typed.level.or(value(path, "level", file.level, units::level)?),
        snaplen: typed.snaplen.or(value(path, "snaplen", file.snaplen, cli::snaplen)?),
        shed_payload: typed.shed_payload.or(value(
            path,
            "shed-payload",
            file.shed_payload,
            cli::shed_payload,
        )?),
        flow_keep: typed.flow_keep.or(value(path, "flow-keep", file.flow_keep, cli::flow_keep)?),
        strict: typed.strict || file.strict.unwrap_or(false),
        duration: typed.duration.or(value(path, "duration", file.duration, units::duration)?),
        packets: typed.packets.or(file.packets),
        cpus: typed.cpus.or(value(path, "cpus", file.cpus, cli::cpus)?),
        rss: typed.rss || file.rss.unwrap_or(false),
        force: typed.force || file.force.unwrap_or(false),
        accept_clock: typed.accept_clock || file.accept_clock.unwrap_or(false),
        stamps: typed.stamps.or(value(path, "stamps", file.stamps, cli::stamps)?),
        pin_dir: typed.pin_dir.or(file.pin_dir),
        sessions: SessionArgs {
            max_sessions: typed.sessions.max_sessions.or(value(
                path,
                "max-sessions",
                file.max_sessions,
                cli::max_sessions,
            )?),
            timeout: timeouts(path, file.timeout, typed.sessions.timeout)?,
            separate_vlans: typed.sessions.separate_vlans || file.separate_vlans.unwrap_or(false),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::{CpuList, ModeWish};
    use crate::ladder::Mode;
    use std::time::Duration;
    use tapedeck_writer::Level;

    fn merged(typed: RecordArgs, text: &str) -> Result<RecordArgs, ConfigError> {
        merge(typed, Path::new("x.toml"), text)
    }

    #[test]
    fn every_key_means_what_its_option_means() {
        let text = "interface = ['eth1', 'eth2']\nstore = '/data'\nmode = 'skb'\nsegment-size = '2MiB'\n\
                    segment-age = 30\nlevel = -3\nduration = '1h'\npackets = 9\ncpus = '2-3'\nrss = true\n\
                    force = true\nmax-sessions = 5000\nsnaplen = 128\ntimeout = ['fragment=2s', 'dns-session=3s']\n\
                    separate-vlans = true\npin-dir = '/sys/fs/bpf/x'\nshed-payload = 'off'\nflow-keep = '128KiB'\n\
                     strict = true\npacket-memory = '128MiB'\n";
        let args = merged(RecordArgs::default(), text).unwrap();
        assert_eq!(args.interface, ["eth1", "eth2"]);
        assert_eq!(args.store, [PathBuf::from("/data")]);
        assert_eq!(args.mode, Some(ModeWish::Only(Mode::Skb)));
        assert_eq!((args.segment_size, args.segment_age), (Some(2 << 20), Some(Duration::from_secs(30))));
        assert_eq!(args.packet_memory, Some(128 << 20));
        assert_eq!((args.level, args.packets), (Some(Level::Fixed(-3)), Some(9)));
        assert_eq!((args.duration, args.cpus), (Some(Duration::from_secs(3600)), Some(CpuList(vec![2, 3]))));
        assert_eq!((args.shed_payload, args.flow_keep, args.strict), (Some(false), Some(128 << 10), true));
        assert!(args.rss && args.force && args.sessions.separate_vlans);
        assert_eq!(args.pin_dir, Some(PathBuf::from("/sys/fs/bpf/x")));
        let options = args.sessions.options();
        assert_eq!((options.max_sessions, options.timeouts.fragment), (5_000, 2_000_000_000));
        assert_eq!((options.timeouts.dns_session, args.snaplen), (3_000_000_000, Some(128)));
    }

    #[test]
    fn rules_stand_in_a_section_and_errors_name_their_line() {
        let rules = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<Rule>>();
        let text =
            "level = 3\n[filter]\nkeep = ['net 10.0.0.0/8']\nskip = [\n  'tcp port 443',\n  'vlan 12']\n";
        let args = merged(RecordArgs::default(), text).unwrap();
        assert_eq!(args.keep, rules(&["net 10.0.0.0/8"]));
        assert_eq!(args.skip, rules(&["tcp port 443", "vlan 12"]));
        let typed = RecordArgs { skip: rules(&["udp"]), ..RecordArgs::default() };
        let args = merged(typed, text).unwrap();
        assert_eq!((args.keep, args.skip), (rules(&["net 10.0.0.0/8"]), rules(&["udp"])));
        let error = merged(RecordArgs::default(), &text.replace("vlan 12", "vlan x")).unwrap_err();
        assert_eq!(error.to_string(), "the configuration x.toml, line 6: skip of [filter] is not understood");
        assert!(matches!(
            merged(RecordArgs::default(), "[filter]\nkep = []\n"),
            Err(ConfigError::Parse { .. })
        ));
    }

    #[test]
    fn a_file_read_again_gives_its_filter_and_names_what_cannot_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("x.toml");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write("interface = 'eth1'\nlevel = 3\n");
        let typed = RecordArgs { config: Some(path.clone()), ..RecordArgs::default() };
        let reload = Reload::of(&typed, &with_file(typed.clone()).unwrap()).unwrap();
        let same = Again { filter: Filter::default(), accept_clock: false, others: Vec::new() };
        assert_eq!(reload.again().unwrap(), same);
        write("accept-clock = true\ninterface = 'eth1'\n");
        let Again { accept_clock, others, .. } = reload.again().unwrap();
        assert!(accept_clock && others == ["level"], "{others:?}");
        write("interface = 'eth1'\nlevel = 5\nrss = true\n[filter]\nskip = ['udp']\n");
        let Again { filter, others, .. } = reload.again().unwrap();
        assert_eq!((filter.to_string().as_str(), others), ("not (udp)", vec!["level", "rss"]));
        write(
            "interface = 'eth1'\nlevel = 3\nflow-keep = '1MiB'\nstrict = true\npin-dir = '/sys/fs/bpf/x'\n",
        );
        assert_eq!(reload.again().unwrap().others, ["flow-keep", "strict", "pin-dir"]);
        write("[filter]\nskip = ['upd']\n");
        assert!(matches!(reload.again(), Err(ConfigError::Rule { line: 2, .. })));
        assert_eq!(Reload::of(&RecordArgs::default(), &RecordArgs::default()), None);
    }

    #[test]
    fn what_is_typed_wins() {
        let typed = RecordArgs {
            interface: vec!["eth9".into()],
            mode: Some(ModeWish::Auto),
            segment_size: Some(1),
            ..RecordArgs::default()
        };
        let args =
            merged(typed, "interface = 'eth1'\nmode = 'copy'\nsegment-size = '5MiB'\npackets = 2\n").unwrap();
        assert_eq!((args.interface, args.mode), (vec!["eth9".to_owned()], Some(ModeWish::Auto)));
        assert_eq!((args.segment_size, args.packets), (Some(1), Some(2)));
    }

    #[test]
    fn unknown_keys_and_bad_values_are_refused() {
        assert!(matches!(merged(RecordArgs::default(), "segmnt-size = 1\n"), Err(ConfigError::Parse { .. })));
        assert!(matches!(merged(RecordArgs::default(), "config = 'y'\n"), Err(ConfigError::Parse { .. })));
        let error = merged(RecordArgs::default(), "segment-size = 4096\n").unwrap_err();
        assert!(error.to_string().contains("segment-size: `4096` is not"), "{error}");
        let error = merged(RecordArgs::default(), "level = 'fast'\n").unwrap_err();
        assert!(error.to_string().contains("level: `fast` is not"), "{error}");
    }
}
