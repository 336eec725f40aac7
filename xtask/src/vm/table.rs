//! The table of a run: checks down, kernels across, as Markdown for docs/kernels.md.
//!
//! It must never show a check that was not run like one that holds.

use std::fmt::Write as _;

use super::checks::Check;
use super::kernel::Version;
use super::machine::{Report, Verdict};

/// The table, with the reasons for what was not asked of a kernel.
pub(crate) fn markdown(checks: &[&Check], reports: &[(Version, Report)], qemu: &str) -> String {
    let mut text = format!("QEMU {qemu}, TCG, 2 CPUs; seconds in brackets.\n\n| check |");
    for (version, _) in reports {
        let _ = write!(text, " {} |", version.short());
    }
    text.push_str("\n|---|");
    text.push_str(&"---|".repeat(reports.len()));
    for check in checks {
        let _ = write!(text, "\n| {} |", check.claim);
        for (version, report) in reports {
            let _ = write!(text, " {} |", cell(check, version, report));
        }
    }
    text.push_str("\n| boot, checks and power-off |");
    for (_, report) in reports {
        let _ = write!(text, " {:.0} s |", report.took.as_secs_f64());
    }
    text.push('\n');
    text
}

fn cell(check: &Check, version: &Version, report: &Report) -> String {
    match report.results.get(check.test) {
        _ if !check.is_for(version) => format!("- ({})", check.reason),
        None => "**did not run**".to_owned(),
        Some((Verdict::Passed, seconds)) => format!("holds ({seconds:.1})"),
        Some((Verdict::Failed, seconds)) => format!("**fails** ({seconds:.1})"),
        Some((Verdict::Skipped(reason), _)) => format!("**skipped**: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::checks::CHECKS;
    use super::*;

    #[test]
    fn each_outcome_looks_different() {
        let version = Version::named("7.3.4-cloud-amd64").unwrap();
        let checks: Vec<&Check> = CHECKS.iter().collect();
        let mut report = Report::default();
        let mut verdicts = vec![
            (Verdict::Passed, 1.0),
            (Verdict::Failed, 2.0),
            (Verdict::Skipped("not root".to_owned()), 0.1),
        ];
        for check in checks.iter().filter(|check| check.is_for(&version)) {
            let Some(verdict) = verdicts.pop() else { break };
            report.results.insert(check.test.to_owned(), verdict);
        }
        let text = markdown(&checks, &[(version, report)], "7.2");
        let parts = ["holds (1.0)", "**fails** (2.0)", "**skipped**: not root", "**did not run**"];
        assert!(parts.iter().all(|part| text.contains(part)), "{text}");
        assert!(text.contains("- (has multi-buffer AF_XDP)"), "{text}");
        assert_eq!(text.lines().count(), checks.len() + 5);
    }
}
