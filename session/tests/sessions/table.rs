//! Lists of differences in the documentation: a Markdown table, checked to the letter.
//!
//! `| capture | session | theirs | here | reason |`. The first four columns are the test's, the last is a
//! person's and must not be empty.

use std::collections::BTreeMap;

/// One place where another tool says something else.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Difference {
    pub(crate) capture: String,
    pub(crate) session: String,
    pub(crate) theirs: String,
    pub(crate) ours: String,
}

impl Difference {
    fn line(&self) -> String {
        format!("| {} | {} | {} | {} |", self.capture, self.session, self.theirs, self.ours)
    }
}

/// Demands that the table in `docs/<file>` lists exactly `found`, each with a reason. Returns the lines.
pub(crate) fn check_list(file: &str, found: &[Difference]) -> Vec<String> {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs").join(file);
    let text = std::fs::read_to_string(&path).unwrap_or_default();
    let mut listed: BTreeMap<String, usize> = BTreeMap::new();
    let (mut without_reason, mut lines) = (Vec::new(), Vec::new());
    let is_row =
        |line: &&str| line.starts_with("| ") && line.matches(" | ").count() == 4 && line.ends_with(" |");
    for line in text.lines().filter(is_row).skip(1) {
        let (head, reason) = line.trim_end_matches(" |").rsplit_once(" | ").unwrap();
        if reason.trim().is_empty() {
            without_reason.push(line.to_owned());
        }
        lines.push(line.to_owned());
        *listed.entry(format!("{head} |")).or_default() += 1;
    }
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for difference in found {
        *seen.entry(difference.line()).or_default() += 1;
    }
    let missing: Vec<_> = seen.iter().filter(|(line, n)| listed.get(*line) != Some(n)).collect();
    let stale: Vec<_> = listed.iter().filter(|(line, n)| seen.get(*line) != Some(n)).collect();
    let say = |what: &str, lines: &[(&String, &usize)]| -> String {
        lines.iter().map(|(line, count)| format!("\n{what} {count}: {line}")).collect()
    };
    let (missing, stale) = (say("not listed", &missing), say("listed, not found", &stale));
    assert!(missing.is_empty() && stale.is_empty(), "docs/{file}:{missing}{stale}");
    assert!(without_reason.is_empty(), "without a reason: {without_reason:?}");
    lines
}
