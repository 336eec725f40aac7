//! The sessions where we and another program differ, and why: `differences.txt`, one a line.

use std::collections::BTreeSet;
use std::path::Path;

/// The differences of `kind` in the captures that are there, as `file proto stream ours theirs`.
fn listed(folder: &Path, kind: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for line in include_str!("differences.txt").lines().filter(|line| !line.starts_with('#')) {
        let [known, file, proto, stream, ours, theirs, reason] = line.split('|').collect::<Vec<_>>()[..]
        else {
            panic!("not a difference: {line}");
        };
        assert!(!reason.is_empty(), "no reason: {line}");
        if known == kind && folder.join(file).exists() {
            found.insert(format!("{file}|{proto}|{stream}|{ours}|{theirs}"));
        }
    }
    found
}

/// Asserts that exactly the listed differences were found, among those of the captures read.
pub(crate) fn check(folder: &Path, kind: &str, read: &BTreeSet<String>, found: &BTreeSet<String>) {
    let file = |line: &String| line.split('|').next().unwrap_or_default().to_owned();
    let listed: BTreeSet<String> =
        listed(folder, kind).into_iter().filter(|line| read.contains(&file(line))).collect();
    let new: Vec<_> = found.difference(&listed).collect();
    let gone: Vec<_> = listed.difference(found).collect();
    assert!(new.is_empty() && gone.is_empty(), "{kind}\nnot listed: {new:#?}\nnot found: {gone:#?}");
}
