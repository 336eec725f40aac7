//! Names of segments: `<t0>-<sensor>-<if>-q<N>-<run>-<seq>` and the hour folders they lie in.
//!
//! Sensor and interface names may come from a hostile capture file: outside `[A-Za-z0-9._]` every byte
//! is written `%XX`, and what stays too long is cut and closed with a hash of the whole.

use std::fmt;
use std::path::PathBuf;
use tapedeck_packet::{Timestamp, UtcHour};
use xxhash_rust::xxh3::xxh3_64;

#[cfg(test)]
mod tests;

/// Suffix of a sealed segment.
pub const SEALED_SUFFIX: &str = ".pcapng.zst";
/// Suffix of a sidecar.
pub const INDEX_SUFFIX: &str = ".idx";
/// Suffix of an open segment, whose name also begins with a dot.
pub const OPEN_SUFFIX: &str = ".open";
/// Suffix of the journal beside an open segment, whose name also begins with a dot.
pub const JOURNAL_SUFFIX: &str = ".journal";
/// Folder of the segments in a store.
pub const PACKETS_FOLDER: &str = "packets";

/// Longest escaped sensor or interface name, bytes.
pub const ESCAPED_MAX: usize = 90;
/// Longest stem of a name: 20 + 1 + 90 + 1 + 90 + 2 + 10 + 1 + 8 + 1 + 10.
const STEM_MAX: usize = 54 + 2 * ESCAPED_MAX;
/// What ends a cut name: two dots and 16 hex digits of the true name's XXH3-64.
const CUT_TAIL: usize = 18;

// Longest file name of common file systems (NAME_MAX), with room for a suffix of a temporary copy.
const _: () = assert!(1 + STEM_MAX + SEALED_SUFFIX.len() + 8 <= 255);

/// The parts of a segment's file name (docs/format.md).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SegmentName {
    /// Smallest packet time; provisional (the first packet's) while the segment is open.
    pub t0: Timestamp,
    /// Sensor id, unescaped. In a parsed name that was too long: its cut form.
    pub sensor: String,
    /// Interface name, unescaped. In a parsed name that was too long: its cut form.
    pub interface: String,
    /// Queue number.
    pub queue: u32,
    /// Random number of the writing process.
    pub run: u32,
    /// Counts the segments of a run, over all its chains.
    pub seq: u32,
}

/// Which file of a segment a file name means.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileKind {
    /// `NAME.pcapng.zst`.
    Sealed,
    /// `NAME.idx`.
    Index,
    /// `.NAME.open`.
    Open,
    /// `.NAME.journal`.
    Journal,
}

impl SegmentName {
    /// Reads a name without dot and suffix. `None` for every text that [`fmt::Display`] does not write.
    #[must_use]
    pub fn parse(stem: &str) -> Option<Self> {
        let mut parts = stem.split('-');
        let [t0, sensor, interface, queue, run, seq] = std::array::from_fn(|_| parts.next());
        let name = Self {
            t0: Timestamp::from_nanos(t0?.parse().ok()?)?,
            sensor: unescape(sensor?)?,
            interface: unescape(interface?)?,
            queue: queue?.strip_prefix('q')?.parse().ok()?,
            run: u32::from_str_radix(run?, 16).ok()?,
            seq: seq?.parse().ok()?,
        };
        // One spelling only: no second name may mean the same segment. Most names need no escape, and very many
        // are read: those are not spelt out again.
        let plain = |text: Option<&str>| text.is_some_and(is_plain);
        let spelt = if plain(sensor) && plain(interface) {
            let digits = |text: Option<&str>, len: Option<usize>| {
                text.is_some_and(|text| {
                    let ascii = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
                    ascii && len.map_or(text == "0" || !text.starts_with('0'), |len| text.len() == len)
                })
            };
            let hex =
                |text: &str| text.len() == 8 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
            digits(t0, Some(20))
                && digits(queue.and_then(|queue| queue.strip_prefix('q')), None)
                && run.is_some_and(hex)
                && digits(seq, None)
        } else {
            name.to_string() == stem
        };
        (parts.next().is_none() && spelt).then_some(name)
    }

    /// Reads a file name of any of the four kinds; `None` for a foreign file.
    #[must_use]
    pub fn parse_file(file: &str) -> Option<(Self, FileKind)> {
        let (stem, kind) = if let Some(hidden) = file.strip_prefix('.') {
            match (hidden.strip_suffix(OPEN_SUFFIX), hidden.strip_suffix(JOURNAL_SUFFIX)) {
                (Some(stem), _) => (stem, FileKind::Open),
                (_, Some(stem)) => (stem, FileKind::Journal),
                _ => return None,
            }
        } else if let Some(stem) = file.strip_suffix(SEALED_SUFFIX) {
            (stem, FileKind::Sealed)
        } else {
            (file.strip_suffix(INDEX_SUFFIX)?, FileKind::Index)
        };
        Some((Self::parse(stem)?, kind))
    }

    /// Whether the segment is of the interface of this name, which may be too long for a file name.
    #[must_use]
    pub fn is_of(&self, interface: &str) -> bool {
        self.interface == interface || escape(&self.interface) == escape(interface)
    }

    /// The file name of `kind`, without folder.
    #[must_use]
    pub fn file(&self, kind: FileKind) -> String {
        match kind {
            FileKind::Sealed => format!("{self}{SEALED_SUFFIX}"),
            FileKind::Index => format!("{self}{INDEX_SUFFIX}"),
            FileKind::Open => format!(".{self}{OPEN_SUFFIX}"),
            FileKind::Journal => format!(".{self}{JOURNAL_SUFFIX}"),
        }
    }
}

impl fmt::Display for SegmentName {
    /// The name without dot and suffix; at most 234 bytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { t0, queue, run, seq, .. } = self;
        let (sensor, interface) = (escape(&self.sensor), escape(&self.interface));
        write!(f, "{:020}-{sensor}-{interface}-q{queue}-{run:08x}-{seq}", t0.nanos())
    }
}

/// The folder of an hour under the store: `packets/dt=YYYY-MM-DD/hr=HH`.
#[must_use]
pub fn hour_folder(hour: UtcHour) -> PathBuf {
    hour_folder_of(PACKETS_FOLDER, hour)
}

/// The folder of an hour below `top`: `TOP/dt=YYYY-MM-DD/hr=HH`.
#[must_use]
pub fn hour_folder_of(top: &str, hour: UtcHour) -> PathBuf {
    let mut path = PathBuf::from(top);
    path.push(format!("dt={}", hour.date()));
    path.push(format!("hr={:02}", hour.hour_of_day()));
    path
}

/// `name` as it stands in a file name: at most [`ESCAPED_MAX`] bytes of `[A-Za-z0-9._%]`.
pub(crate) fn escape(name: &str) -> String {
    let mut out = String::with_capacity(ESCAPED_MAX);
    // Where to cut if the rest does not fit: behind the last whole character that leaves room for the tail.
    let mut cut = 0;
    let mut utf8 = [0; 4];
    for character in name.chars() {
        if character.is_ascii_alphanumeric() || character == '.' || character == '_' {
            out.push(character);
        } else {
            for byte in character.encode_utf8(&mut utf8).bytes() {
                out.push('%');
                out.extend([byte >> 4, byte & 15].into_iter().map(hex_digit));
            }
        }
        if out.len() <= ESCAPED_MAX - CUT_TAIL {
            cut = out.len();
        }
        if out.len() > ESCAPED_MAX {
            out.truncate(cut);
            out.push_str(&format!("..{:016x}", xxh3_64(name.as_bytes())));
            return out;
        }
    }
    out
}

fn hex_digit(nibble: u8) -> char {
    char::from_digit(u32::from(nibble), 16).unwrap_or('0').to_ascii_uppercase()
}

/// Whether a name stands in a file name as it is.
fn is_plain(name: &str) -> bool {
    name.len() <= ESCAPED_MAX
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.' || byte == b'_')
}

/// The name that `text` escapes; `None` where an escape is broken or the result is not UTF-8.
pub(crate) fn unescape(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(position) = rest.find('%') {
        let (plain, escaped) = rest.split_at(position);
        bytes.extend_from_slice(plain.as_bytes());
        bytes.push(u8::from_str_radix(escaped.get(1..3)?, 16).ok()?);
        rest = escaped.get(3..)?;
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).ok()
}
