//! `taperead`: reads the command line, the clock and the streams, and leaves the rest to the library.

#![forbid(unsafe_code)]

use clap::Parser as _;
use std::io::{self, BufWriter, IsTerminal as _};
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tapedeck_packet::Timestamp;
use tapedeck_query::cli::Cli;
use tapedeck_query::out::target::BUFFER_BYTES;
use tapedeck_query::run::{Clock, Console, run};

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
    ExitCode::from(run(Cli::parse(), &Clock { now, elapsed_ms: &elapsed_ms }, console))
}
