//! tapedeck: the recorder's command line.
//!
//! The way of a packet, from the network card to the disk: the XDP program counts it, stamps it and
//! steers it into the ring of its queue's AF_XDP socket. One pinned worker per queue borrows packets
//! from the ring in batches, walks their headers and copies each one, once, into the open frame of its
//! chain, together with its flow rows; the chunk goes back to the kernel with the batch. A full frame
//! goes over a bounded queue to the stage thread, which compresses it, writes it hidden and journals
//! what is not whole on disk yet. A segment that is long or old enough is sealed: index written, all
//! synced, renamed to its visible name. `import` is the same from the header walk on.

#![forbid(unsafe_code)]

use clap::Parser as _;
use std::io::{self, IsTerminal as _, Write as _};
use std::process::ExitCode;
use tapedeck_capture::cli::{Cli, Command};
use tapedeck_capture::voice::Failure;
use tapedeck_capture::{detach, doctor, import, maintain, status, supervisor};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // TAPEDECK_LOG=debug says more, =warn less.
    let filter = EnvFilter::try_from_env("TAPEDECK_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .with_env_filter(filter)
        // It would complain on stderr that stderr cannot be written to, and panic.
        .log_internal_errors(false)
        .init();
    let ledger = matches!(cli.command, Command::Record(_) | Command::Import(_) | Command::Detach(_));
    match run(cli).and_then(|(stdout, code)| print(&stdout, ledger).map(|()| code)) {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            speak(&failure.to_string());
            ExitCode::from(2)
        }
    }
}

/// What goes to stdout, and the exit code.
fn run(cli: Cli) -> Result<(String, u8), Failure> {
    let mut say = |line: &str| speak(&format!("{line}\n"));
    match cli.command {
        Command::Record(args) => supervisor::command(*args, &mut say),
        Command::Doctor(args) => doctor::command(&args, page()),
        Command::Status(args) => status::command(&args),
        Command::Detach(args) => detach::command(&args, &mut say),
        Command::Import(args) => import::command(args, &mut say),
        Command::Recover(args) => maintain::recover(&args.store, &mut say),
        Command::Reindex(args) => maintain::reindex(&args.store, &args.segments, &mut say),
        Command::Verify(args) => maintain::verify(&args.store, &mut say),
    }
}

/// What stdout is printed on.
fn page() -> doctor::Page {
    let terminal = terminal_size::terminal_size_of(io::stdout()).map(|(width, _)| width.0.into());
    let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
    doctor::Page::new(terminal, variable("COLUMNS").as_deref(), variable("NO_COLOR").is_some())
}

/// Says something on stderr. Nobody listening (a closed pipe) is no reason to end a recording.
fn speak(text: &str) {
    let _ = io::stderr().lock().write_all(text.as_bytes());
}

/// Standard output did not take what it was given.
#[derive(Debug, thiserror::Error)]
#[error("cannot write to standard output")]
struct Unwritten(#[source] io::Error);

/// A reader that has gone away has had enough: that is no error. A ledger must not be lost with it.
fn print(text: &str, ledger: bool) -> Result<(), Failure> {
    if text.is_empty() {
        return Ok(());
    }
    let mut out = io::stdout().lock();
    match writeln!(out, "{text}").and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            let cannot = Unwritten(error);
            if !ledger {
                return Err(Failure::of(&cannot).hint("give standard output a place with room"));
            }
            speak(&format!("{text}\n"));
            Err(Failure::of(&cannot).hint("the ledger is the line above this error"))
        }
        _ => Ok(()),
    }
}
