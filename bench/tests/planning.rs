//! `tapebench plan` and `report` as their user runs them: from results of `line` to what to buy, and to a page.

#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test may be direct: a panic is its report"
)]

use std::path::Path;
use std::process::Command;

/// A result as `line` wrote it: a veth pair, trials of two seconds, one of them without loss.
const RESULT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/result-1.json");

/// Runs tapebench; stdout, stderr, exit code.
fn tapebench(words: &[&str]) -> (String, String, Option<i32>) {
    let output = Command::new(env!("CARGO_BIN_EXE_tapebench")).args(words).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr), output.status.code())
}

/// Plan and page of results; the plan.
fn plan_and_page(folder: &Path, results: &[&str], more: &[&str]) -> serde_json::Value {
    let named: Vec<&str> = results.iter().flat_map(|result| ["--result", *result]).collect();
    let words = [&["plan", "--link", "1G", "--utilisation", "30%", "--disk-write", "250M"][..], &named, more]
        .concat();
    let (text, stderr, code) = tapebench(&words);
    assert_eq!(code, Some(0), "{stderr}");
    assert!(text.contains("What ends first") && text.contains("page cache may hide the disk"), "{text}");
    let (json, stderr, code) = tapebench(&[&words[..], &["--json"]].concat());
    assert_eq!(code, Some(0), "{stderr}");
    let plan = folder.join("plan.json");
    std::fs::write(&plan, &json).unwrap();
    let page = folder.join("page.html");
    let (plan, page) = (plan.to_str().unwrap(), page.to_str().unwrap());
    let (merged, stderr, code) =
        tapebench(&[&["report", "--html", page, "--plan", plan, "--json"][..], results].concat());
    assert_eq!(code, Some(0), "{stderr}");
    let merged: serde_json::Value = serde_json::from_str(&merged).unwrap();
    assert_eq!(merged["results"].as_array().unwrap().len(), results.len());
    let written = std::fs::read_to_string(page).unwrap();
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
    let tree = roxmltree::Document::parse_with_options(&written, options).unwrap();
    let rows =
        tree.descendants().filter(|node| node.has_tag_name(("http://www.w3.org/1999/xhtml", "tr"))).count();
    let trials: usize = merged["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["result"]["trials"].as_array().unwrap().len())
        .sum();
    assert!(rows > trials, "{rows} rows, {trials} trials");
    let plan: serde_json::Value = serde_json::from_str(&json).unwrap();
    for part in ["command", "how", "doubts", "traffic"] {
        assert_eq!(merged["plan"][part], plan[part]);
    }
    plan
}

#[test]
fn one_result_gives_a_plan_and_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let plan = plan_and_page(folder.path(), &[RESULT], &["--days", "7"]);
    // 206,203 packets/s is the one trial without loss; the plan is of the same packets.
    assert_eq!(plan["basis"][0]["rate_pps"].as_f64().unwrap().round(), 206_203.0);
    assert_eq!((plan["how"].as_str(), plan["disks"]["days"].as_f64()), (Some("measured"), Some(7.0)));
    let peak = 0.3e9 / (8.0 * (887.190_338_134_765_6 + 4.0));
    let day = plan["disks"]["per_day"]["likely"].as_f64().unwrap();
    let stored = 335_484_367.0 / 412_406.0;
    assert!((day / (peak * stored * 86_400.0) - 1.0).abs() < 1e-6, "{day}");
}

#[test]
fn what_cannot_be_planned_with_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let changed = folder.path().join("changed.json");
    let changed = changed.to_str().unwrap();
    let mut result: serde_json::Value =
        serde_json::from_str(&std::fs::read_to_string(RESULT).unwrap()).unwrap();
    result["trials"][1]["problems"] = serde_json::json!(["the ledger does not balance"]);
    std::fs::write(changed, result.to_string()).unwrap();
    for (words, why) in [
        (&["plan", "--link", "10G", "--result", changed][..], "do not add up: the ledger does not balance"),
        (&["plan", "--link", "10G"], "--result"),
        (&["plan", "--link", "ten", "--result", RESULT], "10G or 100G"),
        (&["plan", "--link", "10G", "--result", RESULT, "--result", RESULT], "named twice"),
        (&["plan", "--link", "10G", "--result", "/nowhere.json"], "/nowhere.json"),
        (&["report", RESULT], "--html"),
        (&["report", RESULT, "--html", RESULT], "one of the files to be read"),
        (&["report", RESULT, "--json", "--plan", RESULT], "no plan"),
    ] {
        let (_, stderr, code) = tapebench(words);
        assert!(code == Some(2) && stderr.contains(why), "{words:?}: {code:?} {stderr}");
    }
}

mod live {
    use super::{plan_and_page, tapebench};
    use std::path::Path;

    #[test]
    fn from_tiny_trials_to_a_plan_and_a_page() {
        if !nix::unistd::geteuid().is_root() || !Path::new("/sys/kernel/btf/vmlinux").exists() {
            println!("SKIPPED 1: not root, or no /sys/kernel/btf/vmlinux");
            return;
        }
        let folder = tempfile::tempdir().unwrap();
        let files = ["64", "1518"].map(|size| folder.path().join(format!("{size}.json")));
        let files = [files[0].to_str().unwrap(), files[1].to_str().unwrap()];
        for (size, file) in ["64", "1518"].into_iter().zip(files) {
            let tiny = ["--trial-seconds", "0.5", "--resolution", "0.5", "--rounds", "1", "--no-latency"];
            // Half of what the generator makes in half a second waits there, if it must: whatever else runs, there is a
            // rate at which nothing is lost or cut.
            let record = ["--", "--level", "off", "--packet-memory", "1GiB"];
            let (_, stderr, code) =
                tapebench(&[&["line", "--traffic", size, "--out", file][..], &tiny, &record].concat());
            assert_eq!(code, Some(0), "{stderr}");
        }
        let plan = plan_and_page(folder.path(), &files, &["--traffic", "imix"]);
        assert_eq!((plan["how"].as_str(), plan["basis"].as_array().unwrap().len()), (Some("between"), 2));
        let worker = plan["kinds"].as_array().unwrap().iter().find(|kind| kind["name"] == "worker").unwrap();
        assert!(worker["ns"]["likely"].as_f64() > Some(0.0), "{plan}");
    }
}
