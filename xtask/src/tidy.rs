//! House rules that no compiler checks: each rule is a module here, with a test that shows it can fail.
//!
//! A rule is a pure function from sources to findings. It must never mend anything: a finding names the
//! place and the remedy, a person decides.

mod arrows;
mod decisions;
mod rust;
mod size;
mod text;
mod unsafe_files;

use std::fmt;
use std::path::Path;

use anyhow::Result;

use crate::repo::{self, Source};

/// One broken rule at one place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    file: String,
    line: usize,
    what: String,
    remedy: String,
}

impl Finding {
    fn new(file: &str, line: usize, what: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, what: what.into(), remedy: remedy.into() }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}\n    remedy: {}", self.file, self.line, self.what, self.remedy)
    }
}

/// All findings over the repository at `root`, in order of file and line.
pub(crate) fn run(root: &Path) -> Result<Vec<Finding>> {
    let sources = repo::sources(root)?;
    let mut findings = check_sources(&sources);
    findings.extend(arrows::check(root, &sources)?);
    findings.sort_by(|a, b| (&a.file, a.line, &a.what).cmp(&(&b.file, b.line, &b.what)));
    Ok(findings)
}

fn check_sources(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    for source in sources {
        findings.extend(text::check(source));
        findings.extend(size::check(source));
        findings.extend(rust::check(source));
    }
    findings.extend(unsafe_files::check(sources, unsafe_files::LISTED));
    findings.extend(decisions::check(sources));
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_names_place_and_remedy() {
        let finding = Finding::new("a.rs", 7, "broken", "mend it");
        assert_eq!(finding.to_string(), "a.rs:7: broken\n    remedy: mend it");
    }

    #[test]
    fn a_clean_source_has_no_findings() {
        let clean = Source::new("packet/src/walk.rs", "//! Walks.\n\nfn walk() {}\n");
        let mut findings = check_sources(std::slice::from_ref(&clean));
        // The files listed for `unsafe` are not among these sources.
        findings.retain(|finding| finding.file == clean.path);
        assert_eq!(findings, []);
    }
}
