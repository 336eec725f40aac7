//! tapedeck: the recorder's command line.

#![forbid(unsafe_code)]

use clap::Parser as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use tapedeck_capture::cli::{Cli, Command, RecordArgs, StatusArgs};
use tapedeck_capture::plan::RecordPlan;
use tapedeck_capture::supervisor::Outcome;
use tapedeck_capture::{clock, config, lock, report, status, supervisor};
use tracing_subscriber::EnvFilter;

/// Nothing done, nothing believed.
const EXIT_ERROR: u8 = 2;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // TAPEDECK_LOG=debug shows more, =warn less.
    let filter = EnvFilter::try_from_env("TAPEDECK_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .with_env_filter(filter)
        .init();
    match cli.command {
        Command::Record(args) => record(args),
        Command::Status(args) => show_status(&args),
    }
}

fn record(args: RecordArgs) -> ExitCode {
    let args = match config::with_file(args) {
        Ok(args) => args,
        Err(error) => return fail(&error, None),
    };
    let plan = match RecordPlan::new(&args) {
        Ok(plan) => plan,
        Err(error) => return fail(&error, error.hint()),
    };
    match supervisor::record(&plan) {
        Ok(Outcome { ledger, trouble }) => {
            let printed = ledger.to_json().map_err(io::Error::from).and_then(|json| print(&json));
            match (trouble, printed) {
                (Some(error), _) => fail(&error, error.hint().as_deref()),
                (None, Err(error)) if error.kind() != io::ErrorKind::BrokenPipe => fail(&error, None),
                (None, _) => ExitCode::SUCCESS,
            }
        }
        Err(error) => fail(&error, error.hint().as_deref()),
    }
}

fn show_status(args: &StatusArgs) -> ExitCode {
    let mut stores = args.store.clone();
    if stores.is_empty() {
        stores.extend(lock::holders().into_iter().flat_map(|holder| holder.stores));
    }
    stores.sort();
    stores.dedup();
    let now = clock::utc_now();
    let mut found: Vec<_> = stores.iter().flat_map(|store| status::running(store, now)).collect();
    // A recorder with several stores writes its status to each.
    found.sort_by(|a, b| a.ledger.run.cmp(&b.ledger.run));
    found.dedup_by(|a, b| a.ledger.run == b.ledger.run);
    if found.is_empty() {
        let _ = writeln!(io::stderr(), "no recorder is running");
        return ExitCode::from(EXIT_ERROR);
    }
    for one in &found {
        let text = if args.json { one.ledger.to_json() } else { Ok(report::status_text(one)) };
        match text.map_err(io::Error::from).and_then(|text| print(text.trim_end())) {
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => return fail(&error, None),
            _ => {}
        }
    }
    ExitCode::SUCCESS
}

fn print(line: &str) -> io::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()
}

fn fail(error: &dyn std::error::Error, hint: Option<&str>) -> ExitCode {
    report::error(error, hint);
    ExitCode::from(EXIT_ERROR)
}
