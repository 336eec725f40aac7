//! What a sidecar costs: the budgets of docs/format.md, per trace.

use crate::assemble::{Segment, assemble, generated, read_capture, traces};
use tapedeck_index::sidecar::Section;
use tapedeck_packet::LinkType;

/// Bytes of a sidecar by what they grow with.
struct Cost {
    fixed: usize,
    per_frame: f64,
    per_row: f64,
    per_posting: f64,
    share: f64,
}

#[expect(clippy::cast_precision_loss, reason = "figures for people")]
fn cost(segment: &Segment) -> Cost {
    let sidecar = segment.sidecar();
    let summary = sidecar.summary();
    let len = |section| sidecar.section_len(section);
    let postings = (0..summary.rows).map(|row| sidecar.frames_of(row).unwrap().count()).sum::<usize>().max(1);
    let sections = Section::ALL.iter().map(|section| len(*section)).sum::<usize>();
    let rows = sections - len(Section::Frames) - len(Section::Postings) - len(Section::Head);
    Cost {
        fixed: segment.index.len() - sections + len(Section::Head),
        per_frame: len(Section::Frames) as f64 / segment.frames.len() as f64,
        per_row: rows as f64 / f64::from(summary.rows.max(1)),
        per_posting: len(Section::Postings) as f64 / postings as f64,
        share: 100.0 * segment.index.len() as f64 / segment.bytes.len() as f64,
    }
}

#[expect(clippy::print_stdout, reason = "the figures are what the test is for")]
fn check(what: &str, segment: &Segment) {
    let Cost { fixed, per_frame, per_row, per_posting, share } = cost(segment);
    println!(
        "{what}: {} rows, {per_row:.1} B/row, {per_posting:.2} B/posting, {per_frame:.0} B/frame, {share:.2} % of stored",
        segment.sidecar().summary().rows
    );
    assert!(fixed <= 16 * 1024, "{what}: {fixed} bytes fixed");
    assert!(per_frame <= 32.0, "{what}: {per_frame} bytes per frame");
    assert!(per_posting <= 3.0, "{what}: {per_posting} bytes per posting");
    assert!(per_row <= 56.0, "{what}: {per_row} bytes per row");
}

#[test]
fn generated_segment_keeps_the_budget() {
    check("generated", &assemble(LinkType::ETHERNET, &generated(5000), 4096));
}

#[test]
fn real_captures_keep_the_budget() {
    let Some(folder) = traces(1) else { return };
    for entry in std::fs::read_dir(folder.join("large")).unwrap() {
        let path = entry.unwrap().path();
        let (link, packets) = read_capture(&path);
        check(&path.file_name().unwrap().to_string_lossy(), &assemble(link, &packets, 512 * 1024));
    }
}
