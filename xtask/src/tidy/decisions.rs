//! Documents hang together: decision records are numbered without holes and on their index page, and every
//! relative link leads to a file.
//!
//! It reads links, it never fetches any.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use super::Finding;
use crate::repo::Source;

const FOLDER: &str = "docs/decisions/";
const INDEX: &str = "docs/decisions/README.md";

pub(super) fn check(sources: &[Source]) -> Vec<Finding> {
    let mut findings = check_records(sources);
    let files: BTreeSet<&str> = sources.iter().map(|source| source.path.as_str()).collect();
    for source in sources.iter().filter(|source| source.has_extension(&["md"])) {
        findings.extend(check_links(source, &files));
    }
    findings
}

fn check_records(sources: &[Source]) -> Vec<Finding> {
    let mut findings = Vec::new();
    let index = sources.iter().find(|source| source.path == INDEX).map(|source| source.text.as_str());
    let mut records: Vec<&str> = sources
        .iter()
        .filter_map(|source| source.path.strip_prefix(FOLDER))
        .filter(|name| *name != "README.md")
        .collect();
    records.sort_unstable();
    for (place, record) in records.iter().enumerate() {
        let path = format!("{FOLDER}{record}");
        let expected = format!("{:04}-", place + 1);
        if !record.starts_with(&expected) {
            let what = format!("the record's number should be {expected}");
            findings.push(Finding::new(&path, 1, what, "number the records without holes or doubles"));
        }
        if !index.is_some_and(|text| text.contains(&format!("({record})"))) {
            let remedy = format!("link it from {INDEX}");
            findings.push(Finding::new(&path, 1, "the record is not on the index page", remedy));
        }
    }
    findings
}

fn check_links(source: &Source, files: &BTreeSet<&str>) -> Vec<Finding> {
    let folder = Path::new(&source.path).parent().unwrap_or(Path::new(""));
    let mut findings = Vec::new();
    for (index, line) in source.text.lines().enumerate() {
        for target in link_targets(line) {
            let path = target.split('#').next().unwrap_or_default();
            if path.is_empty() || path.contains("://") || path.starts_with("mailto:") {
                continue;
            }
            let exists = resolve(folder, path).is_some_and(|path| is_there(&path, files));
            if !exists {
                let what = format!("link to `{path}`, which is not in the repository");
                findings.push(Finding::new(&source.path, index + 1, what, "mend or remove the link"));
            }
        }
    }
    findings
}

/// True for a file, and for a folder that holds files.
fn is_there(path: &str, files: &BTreeSet<&str>) -> bool {
    let folder = format!("{}/", path.trim_end_matches('/'));
    files.contains(path) || files.iter().any(|file| file.starts_with(&folder))
}

/// The targets of the inline links `[text](target)` in a line.
fn link_targets(line: &str) -> impl Iterator<Item = &str> {
    line.split("](").skip(1).filter_map(|rest| rest.split(')').next())
}

/// `target` seen from `folder`, without `.` and `..`; `None` if it leaves the repository.
fn resolve(folder: &Path, target: &str) -> Option<String> {
    let mut path = PathBuf::new();
    for component in folder.join(target).components() {
        match component {
            Component::ParentDir => {
                if !path.pop() {
                    return None;
                }
            }
            Component::Normal(part) => path.push(part),
            Component::CurDir => {}
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    path.to_str().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(files: &[(&str, &str)]) -> Vec<String> {
        let sources: Vec<Source> = files.iter().map(|(path, text)| Source::new(path, text)).collect();
        check(&sources).into_iter().map(|finding| finding.file).collect()
    }

    #[test]
    fn a_hole_in_the_numbers_is_found() {
        let index = "[a](0001-a.md) [c](0003-c.md)";
        let files = [(INDEX, index), ("docs/decisions/0001-a.md", ""), ("docs/decisions/0003-c.md", "")];
        assert_eq!(found(&files), ["docs/decisions/0003-c.md"]);
    }

    #[test]
    fn a_record_missing_from_the_index_is_found() {
        assert_eq!(found(&[(INDEX, ""), ("docs/decisions/0001-a.md", "")]), ["docs/decisions/0001-a.md"]);
        assert_eq!(found(&[("docs/decisions/0001-a.md", "")]), ["docs/decisions/0001-a.md"]);
    }

    #[test]
    fn a_dead_link_is_found() {
        assert_eq!(found(&[("docs/a.md", "[x](b.md)")]), ["docs/a.md"]);
        assert_eq!(found(&[("docs/a.md", "[x](../../b.md)")]), ["docs/a.md"]);
        let alive = "[x](../c.md#part) [y](#here) [z](https://example.org/) [f](../docs)";
        assert_eq!(found(&[("docs/a.md", alive), ("c.md", "")]), [""; 0]);
    }
}
