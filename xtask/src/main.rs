//! Developer commands. Two matter to everyone: `cargo xtask demo` shows the product, `cargo xtask test`
//! says whether a change is good. The others are parts of these.
//!
//! It must never be needed to build or run the product.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks to its user")]

mod licences;
mod repo;
mod tidy;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(name = "cargo xtask", about = "Developer commands of tapedeck", disable_help_subcommand = true)]
struct Args {
    #[command(subcommand)]
    command: Task,
}

#[derive(Subcommand)]
enum Task {
    /// House rules: which crate uses which, unsafe, sizes, leftovers, decision records
    Tidy,
    /// Licences of everything we link, against the allow list
    Licences,
}

fn main() -> ExitCode {
    match run(&Args::parse().command) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// True if all is well.
fn run(task: &Task) -> Result<bool> {
    let root = repo::root()?;
    match task {
        Task::Tidy => Ok(report("tidy", &tidy::run(&root)?)),
        Task::Licences => Ok(report("licences", &licences::run(&root)?)),
    }
}

/// Prints findings; true if there are none.
fn report(check: &str, findings: &[impl std::fmt::Display]) -> bool {
    for finding in findings {
        println!("{finding}");
    }
    match findings.len() {
        0 => println!("{check}: clean"),
        n => println!("{check}: {n} findings"),
    }
    findings.is_empty()
}
