//! `taperead`: reads the command line, the clock and the streams, and leaves the rest to the library.

#![forbid(unsafe_code)]

use clap::Parser as _;
use std::io::{self, BufWriter, IsTerminal as _, Write as _};
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tapedeck_packet::Timestamp;
use tapedeck_query::cli::Cli;
use tapedeck_query::out::target::BUFFER_BYTES;
use tapedeck_query::run::{Clock, Console, no_answer, run};

fn main() -> ExitCode {
    let began = Instant::now();
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
    let now = Timestamp::from_nanos_saturating(u64::try_from(since_epoch).unwrap_or(u64::MAX));
    let elapsed_ms = || u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    let console = Console {
        out: Box::new(BufWriter::with_capacity(BUFFER_BYTES, io::stdout())),
        err: Box::new(io::stderr()),
        out_is_terminal: io::stdout().is_terminal(),
        err_is_terminal: io::stderr().is_terminal(),
        out_width: terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0.into()),
    };
    match Cli::try_parse() {
        Ok(cli) => ExitCode::from(run(cli, &Clock { now, elapsed_ms: &elapsed_ms }, console)),
        Err(error) => misuse(&error, elapsed_ms()),
    }
}

/// A command line that cannot be read, or that asked for help.
fn misuse(error: &clap::Error, elapsed_ms: u64) -> ExitCode {
    let _ = error.print();
    if error.use_stderr() && std::env::args_os().any(|word| word == "--json") {
        let text = error.to_string();
        let what = text.lines().next().unwrap_or_default().trim_start_matches("error: ");
        let _ = writeln!(io::stderr(), "{}", no_answer(what.to_owned(), elapsed_ms));
    }
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}
