//! Which crate may use which. Arrows point down only; what is not drawn is forbidden.
//!
//! The table repeats docs/architecture.md. Dev-dependencies may look up. This module must never follow
//! crates of others: the licence check does that.

use std::path::Path;

use anyhow::{Context, Result};
use cargo_metadata::{DependencyKind, MetadataCommand};

use super::Finding;
use crate::repo::Source;

const PREFIX: &str = "tapedeck-";

/// Crate, and the crates it may use.
const DRAWN: &[(&str, &[&str])] = &[
    ("bench", &["capture", "writer", "query", "index", "session", "packet", "ebpf"]),
    ("capture", &["writer", "session", "index", "packet", "ebpf"]),
    ("query", &["index", "packet", "session"]),
    ("writer", &["index", "packet"]),
    ("index", &["packet"]),
    ("session", &["packet"]),
    ("packet", &[]),
    ("ebpf", &[]),
    ("xtask", &[]),
];

/// One crate of ours uses another, not for its tests only.
#[derive(Debug)]
struct Arrow {
    from: String,
    to: String,
}

/// Findings for every arrow of the workspace at `root` that is not drawn.
pub(super) fn check(root: &Path, sources: &[Source]) -> Result<Vec<Finding>> {
    let metadata = MetadataCommand::new()
        .current_dir(root)
        .no_deps()
        .exec()
        .context("cargo metadata, to see which crate uses which")?;
    let mut findings = Vec::new();
    for package in &metadata.packages {
        let from = package.name.trim_start_matches(PREFIX).to_owned();
        findings.extend(check_crate(&from));
        let used = package.dependencies.iter().filter(|d| d.kind != DependencyKind::Development);
        for to in used.filter_map(|d| d.name.strip_prefix(PREFIX)) {
            let arrow = Arrow { from: from.clone(), to: to.to_owned() };
            findings.extend(check_arrow(&arrow, sources));
        }
    }
    Ok(findings)
}

fn check_crate(name: &str) -> Option<Finding> {
    if DRAWN.iter().any(|(from, _)| *from == name) {
        return None;
    }
    let what = format!("crate `{name}` is not in the drawing of crates");
    let remedy = "draw it in docs/architecture.md and in xtask/src/tidy/arrows.rs, or make it a module";
    Some(Finding::new(&format!("{name}/Cargo.toml"), 1, what, remedy))
}

fn check_arrow(arrow: &Arrow, sources: &[Source]) -> Option<Finding> {
    let Arrow { from, to } = arrow;
    let allowed = DRAWN.iter().find(|(name, _)| name == from).map_or(&[][..], |(_, to)| to);
    if allowed.contains(&to.as_str()) {
        return None;
    }
    let manifest = format!("{from}/Cargo.toml");
    let named = format!("{PREFIX}{to}");
    let line = sources
        .iter()
        .find(|source| source.path == manifest)
        .and_then(|source| source.text.lines().position(|line| line.starts_with(&named)))
        .map_or(1, |index| index + 1);
    let may = if allowed.is_empty() { "none of ours".to_owned() } else { allowed.join(", ") };
    let what = format!("`{from}` uses `{to}`: this arrow is not drawn (`{from}` may use {may})");
    let remedy = "move the shared part down, or make it a dev-dependency if only tests need it";
    Some(Finding::new(&manifest, line, what, remedy))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrow(from: &str, to: &str) -> Option<Finding> {
        let manifest = format!("{from}/Cargo.toml");
        let text = format!("[dependencies]\ntapedeck-{to}.workspace = true\n");
        check_arrow(&Arrow { from: from.into(), to: to.into() }, &[Source::new(&manifest, &text)])
    }

    #[test]
    fn a_drawn_arrow_passes() {
        assert_eq!(arrow("query", "index"), None);
        assert_eq!(arrow("bench", "capture"), None);
    }

    #[test]
    fn an_arrow_up_and_a_side_step_are_found_at_their_line() {
        let finding = arrow("index", "writer").unwrap();
        assert_eq!((finding.file.as_str(), finding.line), ("index/Cargo.toml", 2));
        assert!(arrow("query", "writer").is_some());
        assert!(arrow("query", "capture").is_some());
        assert!(arrow("packet", "index").is_some());
        assert!(arrow("xtask", "index").is_some());
    }

    #[test]
    fn a_crate_nobody_drew_is_found() {
        assert!(check_crate("helpers").is_some());
        assert_eq!(check_crate("packet"), None);
    }

    #[test]
    fn the_drawing_has_no_arrow_up() {
        // Every crate may use only crates that stand below it in the table.
        for (index, (_, uses)) in DRAWN.iter().enumerate() {
            for used in *uses {
                let below = DRAWN.iter().position(|(name, _)| name == used).unwrap();
                assert!(below > index, "{used}");
            }
        }
    }
}
