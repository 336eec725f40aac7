//! The configuration file of `record`: TOML, keys named as the options, unknown keys refused.

use crate::cli::{self, NamedTimeout, RecordArgs, SessionArgs};
use crate::units;
use serde::Deserialize;
use std::fmt::Display;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

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
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct RecordFile {
    interface: Option<OneOrMany>,
    store: Option<OneOrMany>,
    mode: Option<Scalar>,
    segment_size: Option<Scalar>,
    segment_age: Option<Scalar>,
    level: Option<Scalar>,
    snaplen: Option<Scalar>,
    duration: Option<Scalar>,
    packets: Option<u64>,
    cpus: Option<Scalar>,
    rss: Option<bool>,
    force: Option<bool>,
    max_sessions: Option<Scalar>,
    timeout: Option<OneOrMany>,
    separate_vlans: Option<bool>,
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
    Ok(RecordArgs {
        interface: list(typed.interface, file.interface),
        store,
        config: typed.config,
        mode: typed.mode.or(value(path, "mode", file.mode, cli::mode)?),
        segment_size: typed.segment_size.or(value(
            path,
            "segment-size",
            file.segment_size,
            units::segment_bytes,
        )?),
        segment_age: typed.segment_age.or(value(path, "segment-age", file.segment_age, units::duration)?),
        level: typed.level.or(value(path, "level", file.level, units::level)?),
        snaplen: typed.snaplen.or(value(path, "snaplen", file.snaplen, cli::snaplen)?),
        duration: typed.duration.or(value(path, "duration", file.duration, units::duration)?),
        packets: typed.packets.or(file.packets),
        cpus: typed.cpus.or(value(path, "cpus", file.cpus, cli::cpus)?),
        rss: typed.rss || file.rss.unwrap_or(false),
        force: typed.force || file.force.unwrap_or(false),
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
                    separate-vlans = true\n";
        let args = merged(RecordArgs::default(), text).unwrap();
        assert_eq!(args.interface, ["eth1", "eth2"]);
        assert_eq!(args.store, [PathBuf::from("/data")]);
        assert_eq!(args.mode, Some(ModeWish::Only(Mode::Skb)));
        assert_eq!((args.segment_size, args.segment_age), (Some(2 << 20), Some(Duration::from_secs(30))));
        assert_eq!((args.level, args.packets), (Some(Level::Fixed(-3)), Some(9)));
        assert_eq!((args.duration, args.cpus), (Some(Duration::from_secs(3600)), Some(CpuList(vec![2, 3]))));
        assert!(args.rss && args.force && args.sessions.separate_vlans);
        let options = args.sessions.options();
        assert_eq!((options.max_sessions, options.timeouts.fragment), (5_000, 2_000_000_000));
        assert_eq!((options.timeouts.dns_session, args.snaplen), (3_000_000_000, Some(128)));
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
