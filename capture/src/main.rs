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
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "this is the program's voice")]

use clap::Parser as _;
use std::process::ExitCode;
use tapedeck_capture::cli::{Cli, Command};
use tapedeck_capture::import;
use tapedeck_capture::voice::Failure;

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok((stdout, code)) => {
            if !stdout.is_empty() {
                println!("{stdout}");
            }
            ExitCode::from(code)
        }
        Err(failure) => {
            eprint!("{failure}");
            ExitCode::from(2)
        }
    }
}

/// What goes to stdout, and the exit code.
fn run(cli: Cli) -> Result<(String, u8), Failure> {
    let mut say = |line: &str| eprintln!("{line}");
    match cli.command {
        Command::Import(args) => import::command(args, &mut say),
        _ => Ok((String::new(), 2)),
    }
}
