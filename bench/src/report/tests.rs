//! Pages of known and of hostile results.

use super::*;
use crate::plan::sample;
use crate::result::{Distribution, Latency};

const HOSTILE: &str = "</td><script>alert('1')</script>&\"\u{202e}\u{1b}[2J";

fn results() -> Vec<Named> {
    let mut document = sample();
    document.latency = Some(Latency {
        load_pps: 1e5,
        probes: 200,
        searchable: Distribution {
            count: 200,
            p50_us: 2e5,
            p99_us: 3e5,
            p999_us: 3.2e5,
            max_us: 3.2e5,
            points: vec![(0.005, 96_000.0), (0.5, 2e5), (0.99, 3e5), (1.0, 3.2e5)],
        },
        lost: 0,
        durable: None,
    });
    vec![
        Named { name: "a.json".to_owned(), document: document.clone() },
        Named { name: "b.json".to_owned(), document },
    ]
}

/// Well-formed as XML, so that no text can have opened or closed anything; returns the tree's elements by name.
fn elements(page: &str) -> std::collections::BTreeMap<String, usize> {
    let options = roxmltree::ParsingOptions { allow_dtd: true, ..roxmltree::ParsingOptions::default() };
    let tree = roxmltree::Document::parse_with_options(page, options).unwrap();
    let mut count = std::collections::BTreeMap::new();
    for node in tree.descendants().filter(roxmltree::Node::is_element) {
        *count.entry(node.tag_name().name().to_owned()).or_insert(0) += 1;
        for attribute in node.attributes() {
            assert!(
                !attribute.name().starts_with("on") && !["src", "href"].contains(&attribute.name()),
                "{attribute:?}"
            );
        }
    }
    count
}

#[test]
fn a_page_has_its_plots_and_every_trial_and_loads_nothing() {
    let results = results();
    let page = page::page(&results, None);
    let count = elements(&page);
    let trials: usize = results.iter().map(|named| named.document.trials.len()).sum();
    // Loss, CPU, disk, latency.
    assert_eq!(count["figure"], 4);
    // A mark of each trial, and of each point of a latency.
    assert_eq!(count["circle"], trials + 2 * 4);
    assert!(!count.contains_key("script") && !count.contains_key("link") && !count.contains_key("img"));
    assert!(!page.contains("url(") && !page.contains("@import"));
    assert!(page.contains("prefers-color-scheme:dark") && page.contains("@media print"));
    for trial in &results[0].document.trials {
        assert!(page.contains(&format!("<td>{:.0}</td>", trial.pps)), "{}", trial.pps);
    }
}

#[test]
fn hostile_text_stays_text() {
    let mut results = results();
    for named in &mut results {
        let document = &mut named.document;
        named.name = HOSTILE.to_owned();
        document.command = vec![HOSTILE.to_owned()];
        document.started = HOSTILE.to_owned();
        document.machine.kernel = HOSTILE.to_owned();
        document.machine.cpu_model = HOSTILE.to_owned();
        document.setup.traffic.model = HOSTILE.to_owned();
        document.setup.sender = HOSTILE.to_owned();
        document.setup.link.interface = HOSTILE.to_owned();
        document.setup.link.peer = HOSTILE.to_owned();
        document.setup.link.driver = HOSTILE.to_owned();
        for tool in &mut document.setup.tools {
            tool.version = HOSTILE.to_owned();
            tool.command = vec![HOSTILE.to_owned()];
        }
        for trial in &mut document.trials {
            trial.purpose = HOSTILE.to_owned();
            trial.own.causes = std::collections::BTreeMap::from([(HOSTILE.to_owned(), 3)]);
            trial.threads.iter_mut().for_each(|thread| thread.name.push_str(HOSTILE));
            trial.problems = vec![HOSTILE.to_owned()];
            trial.ledger = Some(serde_json::json!({ "queues": [{ "mode": HOSTILE }] }));
        }
    }
    let plain = elements(&page::page(&self::results(), None));
    let page = page::page(&results, None);
    let count = elements(&page);
    assert!(!page.contains("<script") && !page.contains('\u{202e}') && !page.contains('\u{1b}'));
    // Not one cell, row or heading more or less than without. (Trials with problems give no costs.)
    for element in ["td", "tr", "th", "h2", "h3", "table", "circle"] {
        assert_eq!(count[element], plain[element], "{element}");
    }
}

#[test]
fn a_plan_stands_on_the_page() {
    let plan = crate::plan::sample_plan();
    let page = page::page(&results(), Some(&plan));
    elements(&page);
    assert!(page.contains("<h2>Plan</h2>") && page.contains("What ends first"));
    assert!(page.contains(&tapedeck_packet::escape::html(plan.doubts.first().unwrap())));
}

#[test]
fn a_result_without_any_whole_trial_is_still_a_page() {
    let mut results = results();
    for named in &mut results {
        named.document.trials.iter_mut().for_each(|trial| trial.missing = 1);
        named.document.latency = None;
    }
    let page = page::page(&results, None);
    assert_eq!(elements(&page)["figure"], 1);
    assert!(page.contains("no costs are drawn"));
    results.iter_mut().for_each(|named| {
        named.document.trials.clear();
        named.document.outcomes.clear();
    });
    elements(&page::page(&results, None));
}
