//! Licences of every crate we build with, against an allow list; without network.
//!
//! A crate under a licence that is not listed needs an exception with a reason. It must never guess: a crate
//! without a readable licence expression is a finding.

use std::fmt;
use std::path::Path;

use anyhow::{Context, Result};
use cargo_metadata::MetadataCommand;
use spdx::{Expression, ParseMode};

/// Licences that bind nobody to more than a notice.
const ALLOWED: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crate, licence, and why it may be here all the same.
const EXCEPTIONS: &[(&str, &str, &str)] = &[];

/// A crate whose licence is not allowed, or an exception nobody needs.
#[derive(Debug)]
pub(crate) struct Finding {
    crate_name: String,
    what: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { crate_name, what } = self;
        write!(
            f,
            "Cargo.lock: {crate_name}: {what}\n    remedy: use another crate, or state an exception with \
             its reason in xtask/src/licences.rs"
        )
    }
}

/// Findings over all crates that any crate of the workspace at `root` is built or tested with.
pub(crate) fn run(root: &Path) -> Result<Vec<Finding>> {
    let metadata = MetadataCommand::new()
        .current_dir(root)
        .other_options(vec!["--locked".to_owned()])
        .exec()
        .context("cargo metadata, to see which crates we build with")?;
    let crates: Vec<(String, Option<String>)> =
        metadata.packages.iter().map(|package| (package.name.to_string(), package.license.clone())).collect();
    Ok(check(&crates, ALLOWED, EXCEPTIONS))
}

fn check(
    crates: &[(String, Option<String>)],
    allowed: &[&str],
    exceptions: &[(&str, &str, &str)],
) -> Vec<Finding> {
    let mut findings = Vec::new();
    for (name, licence) in crates {
        let excepted: Vec<&str> =
            exceptions.iter().filter(|(of, ..)| of == name).map(|(_, licence, _)| *licence).collect();
        if let Some(what) = refuse(licence.as_deref(), allowed, &excepted) {
            findings.push(Finding { crate_name: name.clone(), what });
        }
    }
    for (name, licence, _) in exceptions {
        if !crates.iter().any(|(of, _)| of == name) {
            let what = format!("exception for {licence}, but nothing uses the crate any more");
            findings.push(Finding { crate_name: (*name).to_owned(), what });
        }
    }
    findings
}

/// Why this licence expression is refused; `None` if it may be taken under allowed licences alone.
fn refuse(licence: Option<&str>, allowed: &[&str], excepted: &[&str]) -> Option<String> {
    let Some(licence) = licence else { return Some("states no licence".to_owned()) };
    // Lax: crates.io still holds the old `A/B` form.
    let expression = match Expression::parse_mode(licence, ParseMode::LAX) {
        Ok(expression) => expression,
        Err(error) => return Some(format!("licence `{licence}` cannot be read: {}", error.reason)),
    };
    let taken = expression.evaluate(|requirement| {
        // "or later" and "with exception" may only widen what we are given.
        let Some(id) = requirement.license.id() else { return false };
        allowed.contains(&id.name) || excepted.contains(&id.name)
    });
    (!taken).then(|| format!("licence `{licence}` is not on the allow list"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(licence: &str) -> bool {
        refuse(Some(licence), ALLOWED, &[]).is_some()
    }

    #[test]
    fn one_allowed_branch_of_an_or_is_enough() {
        assert!(!refused("MIT OR GPL-3.0-only"));
        assert!(!refused("MIT/Apache-2.0"));
        assert!(!refused("Apache-2.0 WITH LLVM-exception OR Apache-2.0 OR MIT"));
    }

    #[test]
    fn every_branch_of_an_and_is_needed() {
        assert!(refused("MIT AND GPL-2.0-only"));
        assert!(!refused("(MIT OR Apache-2.0) AND Unicode-3.0"));
    }

    #[test]
    fn copyleft_unknown_and_unstated_are_refused() {
        assert!(refused("GPL-3.0-or-later"));
        assert!(refused("AGPL-3.0-only"));
        assert!(refused("LicenseRef-ours"));
        assert!(refused("no such words"));
        assert!(refuse(None, ALLOWED, &[]).is_some());
    }

    #[test]
    fn an_exception_holds_for_its_crate_and_licence_only() {
        let exceptions = [("weak", "MPL-2.0", "not linked into the product")];
        let crates = |name: &str| vec![(name.to_owned(), Some("MPL-2.0".to_owned()))];
        assert!(check(&crates("weak"), ALLOWED, &exceptions).is_empty());
        // The other crate is refused, and the exception is of no use.
        assert_eq!(check(&crates("other"), ALLOWED, &exceptions).len(), 2);
        assert!(refuse(Some("GPL-2.0-only"), ALLOWED, &["MPL-2.0"]).is_some());
    }
}
