//! One thing that costs packets or fidelity, and the words of a shell that mend it.

use super::facts::Facts;
use serde::Serialize;
use std::borrow::Cow;
use std::path::Path;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Severity {
    /// A recording does not start, or keeps nothing.
    Error,
    /// Packets or fidelity are at risk.
    Warning,
    /// Good to know; nothing has to be done.
    Note,
}

impl Severity {
    /// Its word.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
            Self::Note => "note",
        }
    }
}

/// What was found.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Finding {
    /// Name of the check: stable, for scripts.
    pub(crate) id: &'static str,
    /// How bad it is.
    pub(crate) severity: Severity,
    /// What was measured.
    pub(crate) what: String,
    /// What it costs.
    pub(crate) why: String,
    /// Command that mends it. Errors and warnings have one.
    pub(crate) mend: Option<String>,
}

impl Finding {
    /// An error.
    pub(crate) fn error(
        id: &'static str,
        what: impl Into<String>,
        why: impl Into<String>,
        mend: String,
    ) -> Self {
        Self { id, severity: Severity::Error, what: what.into(), why: why.into(), mend: Some(mend) }
    }

    /// A warning.
    pub(crate) fn warning(
        id: &'static str,
        what: impl Into<String>,
        why: impl Into<String>,
        mend: String,
    ) -> Self {
        Self { severity: Severity::Warning, ..Self::error(id, what, why, mend) }
    }

    /// A note.
    pub(crate) fn note(id: &'static str, what: impl Into<String>, why: impl Into<String>) -> Self {
        Self { id, severity: Severity::Note, what: what.into(), why: why.into(), mend: None }
    }

    /// The same with a command.
    pub(crate) fn mend(self, mend: String) -> Self {
        Self { mend: Some(mend), ..self }
    }
}

/// A text as one word of a shell. Interface and folder names may hold anything a shell would act on.
pub(crate) fn word(text: &str) -> Cow<'_, str> {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "._-/@:+,=".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("'{}'", text.replace('\'', r"'\''")))
    }
}

/// A path as one word of a shell.
pub(crate) fn path_word(path: &Path) -> String {
    word(&path.to_string_lossy()).into_owned()
}

/// The recording that was asked about, with one more option.
pub(crate) fn record_command(facts: &Facts, option: &str) -> String {
    let mut stores: String =
        facts.stores.iter().map(|store| format!(" --store {}", path_word(&store.store))).collect();
    if stores.is_empty() {
        stores.push_str(" --store STORE");
    }
    format!("tapedeck record --interface {}{stores} {option}", word(&facts.interface))
}

/// CPUs as Linux lists them: `0-3,8`.
pub(crate) fn cpu_list(cpus: &[usize]) -> String {
    let mut sorted = cpus.to_vec();
    sorted.sort_unstable();
    sorted.dedup();
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for cpu in sorted {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == cpu => *last = cpu,
            _ => runs.push((cpu, cpu)),
        }
    }
    let text = |(first, last): &(usize, usize)| {
        if first == last { first.to_string() } else { format!("{first}-{last}") }
    };
    runs.iter().map(text).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_safe_to_paste() {
        assert_eq!(word("eth1.100"), "eth1.100");
        assert_eq!(word("a;reboot"), "'a;reboot'");
        assert_eq!(word("it's"), r"'it'\''s'");
        assert_eq!(word(""), "''");
        assert_eq!(path_word(Path::new("/a b")), "'/a b'");
    }

    #[test]
    fn cpus_are_listed_as_linux_does() {
        assert_eq!(cpu_list(&[3, 1, 2, 8, 2]), "1-3,8");
        assert_eq!(cpu_list(&[]), "");
        assert_eq!(cpu_list(&[5]), "5");
    }
}
