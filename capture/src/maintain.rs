//! `recover`, `reindex` and `verify` as commands: the writer's functions, said aloud.

use crate::identity::existing_store;
use crate::voice::Failure;
use std::path::{Path, PathBuf};
use tapedeck_writer::recover::{JournalState, Recovered};
use tapedeck_writer::table::RecoveredTable;
use tapedeck_writer::{RecoverOptions, RecoverReport};

/// Seals what a crash left open. Exit code 0 when nothing is left to do, 3 when something could not be
/// recovered.
///
/// # Errors
/// No such store.
pub fn recover(store: &Path, say: &mut dyn FnMut(&str)) -> Result<(String, u8), Failure> {
    existing_store(store)?;
    let report = tapedeck_writer::recover(store, &RecoverOptions::default());
    say_recovered(&report, say);
    let nothing = report.segments.is_empty() && report.tables.is_empty() && report.busy.is_empty();
    if nothing && report.errors.is_empty() {
        say("nothing to recover");
    }
    Ok((String::new(), if report.errors.is_empty() { 0 } else { 3 }))
}

/// Says what a recovery did; also at the start of a recording.
pub fn say_recovered(report: &RecoverReport, say: &mut dyn FnMut(&str)) {
    for segment in &report.segments {
        say(&recovered(segment));
    }
    for table in &report.tables {
        say(&recovered_table(table));
    }
    for path in &report.busy {
        say(&format!("{}: its recorder is running; left alone", path.display()));
    }
    for path in &report.removed {
        say(&format!("{}: belonged to nothing any more; removed", path.display()));
    }
    say_errors(&report.errors, say);
}

/// Each error in one line, each hint once.
fn say_errors<E: std::error::Error + 'static>(errors: &[E], say: &mut dyn FnMut(&str)) {
    let mut given = Vec::new();
    for error in errors {
        say(&format!("warning: {}", with_causes(error)));
        if let Some(hint) = crate::hints::of(error)
            && !given.contains(&hint)
        {
            given.push(hint);
        }
    }
    for hint in given {
        say(&format!("hint: {hint}"));
    }
}

fn recovered(segment: &Recovered) -> String {
    let Some(sealed) = &segment.sealed else {
        return format!("{}: held no packet; removed", segment.open.display());
    };
    let mut line = format!("recovered {}: {} packets", sealed.display(), segment.packets);
    if segment.from_journal > 0 {
        line.push_str(&format!(", {} of them from the journal", segment.from_journal));
    }
    line.push_str(match segment.journal {
        JournalState::Missing => "; there was no journal",
        state => of_journal(state),
    });
    if let Some((offset, bytes)) = segment.cut {
        line.push_str(&format!("; {bytes} bytes cut at offset {offset}"));
    }
    line
}

fn of_journal(state: JournalState) -> &'static str {
    match state {
        JournalState::Whole | JournalState::Cut | JournalState::Missing => "",
        JournalState::Damaged => "; the journal is damaged and was used as far as it holds",
    }
}

fn recovered_table(table: &RecoveredTable) -> String {
    if table.sealed.is_empty() {
        return format!("{}: held no row that is not in a file; removed", table.journal.display());
    }
    let files: Vec<String> = table.sealed.iter().map(|path| path.display().to_string()).collect();
    let mut line = format!("recovered {}: {} rows of {}", files.join(", "), table.rows, table.kind);
    line.push_str(of_journal(table.state));
    if let Some((offset, bytes)) = table.cut {
        line.push_str(&format!("; {bytes} bytes of its journal behind offset {offset} do not hold"));
    }
    line
}

/// Builds sidecars anew.
///
/// # Errors
/// No such store.
pub fn reindex(
    store: &Path,
    segments: &[PathBuf],
    say: &mut dyn FnMut(&str),
) -> Result<(String, u8), Failure> {
    existing_store(store)?;
    let report = tapedeck_writer::reindex(store, segments);
    for path in &report.written {
        say(&format!("wrote {}", path.display()));
    }
    say_errors(&report.errors, say);
    for path in &report.packs.removed {
        say(&format!("removed {}", path.display()));
    }
    for path in &report.packs.written {
        say(&format!("wrote {}", path.display()));
    }
    say_errors(&report.packs.errors, say);
    say(&format!(
        "{} written, {} right already, {} failed",
        report.written.len(),
        report.unchanged,
        report.errors.len()
    ));
    let clean = report.errors.is_empty() && report.packs.errors.is_empty();
    Ok((String::new(), if clean { 0 } else { 3 }))
}

/// Checks every frame, index and checksum.
///
/// # Errors
/// No such store, or it cannot be listed.
pub fn verify(store: &Path, say: &mut dyn FnMut(&str)) -> Result<(String, u8), Failure> {
    existing_store(store)?;
    let report = tapedeck_writer::verify(store).map_err(|error| Failure::of(&error))?;
    for damage in &report.damage {
        say(&format!("damaged: {}: {}", damage.path.display(), with_causes(&damage.what)));
    }
    for path in &report.unsealed {
        say(&format!("{}: open; being written, or waiting for `tapedeck recover`", path.display()));
    }
    for path in &report.foreign {
        say(&format!("{}: not a file of a store; ignored", path.display()));
    }
    let verdict =
        if report.damage.is_empty() { "all hold".into() } else { format!("{} damaged", report.damage.len()) };
    let counts = (report.segments, report.frames, report.packets, report.stored_bytes);
    say(&format!(
        "{} segments, {} frames, {} packets, {} stored bytes; {} packs; {} table files, {} rows: {verdict}",
        counts.0, counts.1, counts.2, counts.3, report.packs, report.tables, report.rows
    ));
    Ok((String::new(), if report.damage.is_empty() { 0 } else { 3 }))
}

/// An error and what caused it, in one line.
fn with_causes(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| (*cause).source());
    causes.fold(error.to_string(), |line, cause| format!("{line}: {cause}"))
}
