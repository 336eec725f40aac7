//! Developer commands. Two matter to everyone: `cargo xtask demo` shows the product, `cargo xtask test`
//! says whether a change is good. The others are parts of these.
//!
//! It must never be needed to build or run the product.
#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a command line tool talks to its user")]

mod bpffs;
mod demo;
mod docs;
mod fuzz;
mod licences;
mod outcome;
mod packages;
mod repo;
mod steps;
mod tidy;
mod tiers;
mod vm;

use std::path::PathBuf;
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
    /// Record a link of our own making, get one conversation back, check the books
    Demo(demo::Options),
    /// Everything a change must pass: packages, house rules, format, clippy, build, tests
    Test,
    /// The long tests: those with `soak` in their path, one after the other
    Soak,
    /// The recorder on other kernels: guests in QEMU
    Vm(vm::Options),
    /// House rules: which crate uses which, unsafe, sizes, leftovers, decision records
    Tidy,
    /// Pages that are made from the code: docs/schema.md
    Docs,
    /// Licences of everything we link, against the allow list
    Licences,
    /// Every fuzz target for a while; needs nightly and cargo-fuzz
    Fuzz(fuzz::Options),
    /// The demo's server, inside its namespace
    #[command(hide = true)]
    DemoServe,
    /// The demo's client, inside its namespace; writes what it saw to FOLDER
    #[command(hide = true)]
    DemoTalk {
        /// Folder for the transcripts
        folder: PathBuf,
    },
    /// The first process of a guest
    #[command(hide = true)]
    VmGuest,
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
    if matches!(task, Task::VmGuest) {
        // There is no repository in a guest.
        return vm::guest::run().map(|()| true);
    }
    let root = repo::root()?;
    match task {
        Task::Demo(options) => demo::run(&root, options),
        Task::Fuzz(options) => fuzz::run(&root, options),
        Task::DemoServe => demo::talk::serve().map(|()| true),
        Task::DemoTalk { folder } => {
            println!("{}", serde_json::to_string(&demo::talk::talk(folder)?)?);
            Ok(true)
        }
        Task::Test => Ok(tiers::test(&root)),
        Task::Vm(options) => vm::run(&root, options),
        Task::VmGuest => Ok(false),
        Task::Soak => Ok(tiers::soak(&root)),
        Task::Tidy => clean(&tidy::run(&root)?),
        Task::Docs => docs::run(&root).map(|()| true),
        Task::Licences => clean(&licences::run(&root)?),
    }
}

/// Prints findings, or that there are none.
fn clean(findings: &[impl std::fmt::Display]) -> Result<bool> {
    println!("{}", tiers::findings(findings)?);
    Ok(true)
}
