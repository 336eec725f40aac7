//! What lies about while something is measured, removed also when somebody ends it: namespaces, folders, programs.
//!
//! A search takes minutes and gigabytes, so people end it. SIGINT, SIGTERM and SIGHUP then end the programs that this one
//! has started, remove its namespaces and folders, and end it as if it had not heeded them.
//!
//! It must never touch what this process has not made.

use crate::link;
use anyhow::{Context as _, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// A program that was asked to end is killed after this time.
const PATIENCE: Duration = Duration::from_secs(5);
const NAP: Duration = Duration::from_millis(20);

/// What was made and may still be there.
#[derive(Debug, Default)]
struct Made {
    namespaces: BTreeSet<String>,
    folders: BTreeSet<PathBuf>,
    /// Nothing is made any more.
    over: bool,
}

static MADE: Mutex<Made> =
    Mutex::new(Made { namespaces: BTreeSet::new(), folders: BTreeSet::new(), over: false });

fn made() -> MutexGuard<'static, Made> {
    MADE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// As [`made`], for who makes something.
fn open() -> io::Result<MutexGuard<'static, Made>> {
    let made = made();
    if made.over { Err(io::ErrorKind::Interrupted.into()) } else { Ok(made) }
}

/// Heeds signals from here on.
///
/// # Errors
/// They cannot be heard, or there is no thread left.
pub fn heed() -> io::Result<()> {
    let mut signals = Signals::new([SIGHUP, SIGINT, SIGTERM])?;
    let heed = move || {
        let Some(signal) = signals.forever().next() else { return };
        clean_up();
        let _ = emulate_default_handler(signal);
        // What cannot end as the signal would have it ends all the same.
        std::process::exit(128 + signal);
    };
    std::thread::Builder::new().name("signals".to_owned()).spawn(heed).map(drop)
}

/// To be called before the process ends by itself: does not return if a signal is about to end it.
pub fn settle() {
    if made().over {
        loop {
            std::thread::park();
        }
    }
}

/// A folder in `parent`, or where temporary ones go; gone with its value, and with the process.
///
/// # Errors
/// It cannot be made, or the process is being ended.
pub fn folder(parent: Option<&Path>) -> Result<TempDir> {
    let mut made = open()?;
    let parent = parent.map_or_else(std::env::temp_dir, Path::to_path_buf);
    let folder = tempfile::Builder::new().prefix(".tapebench-").tempdir_in(&parent);
    let folder = folder.with_context(|| format!("making a folder in {}", parent.display()))?;
    made.folders.retain(|folder| folder.exists());
    // The process may be somewhere else by then.
    made.folders.insert(std::path::absolute(folder.path())?);
    Ok(folder)
}

/// Makes a network namespace; [`drop_namespace`] removes it.
pub(crate) fn make_namespace(name: &str) -> Result<()> {
    let mut made = open()?;
    link::run("ip", &["netns", "add", name])?;
    made.namespaces.insert(name.to_owned());
    Ok(())
}

/// Removes a namespace, and with it the interfaces in it.
pub(crate) fn drop_namespace(name: &str) {
    // Forgotten only when it is gone: a signal that comes meanwhile ends the program that removes it.
    if remove_namespace(name, Stdio::inherit()) {
        made().namespaces.remove(name);
    }
}

/// Whether it is removed; if not, `ip` says why to `words`.
fn remove_namespace(name: &str, words: Stdio) -> bool {
    Command::new("ip")
        .args(["netns", "del", name])
        .stderr(words)
        .status()
        .is_ok_and(|status| status.success())
}

fn clean_up() {
    let Made { namespaces, folders, .. } =
        std::mem::replace(&mut *made(), Made { over: true, ..Made::default() });
    end_children();
    for name in namespaces {
        // Whoever made it may be removing it as well.
        remove_namespace(&name, Stdio::null());
    }
    for folder in folders {
        let _ = std::fs::remove_dir_all(folder);
    }
}

/// Ends the programs that this process has started: asks, then kills.
fn end_children() {
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    let began = Instant::now();
    let mut asked = BTreeSet::new();
    loop {
        let children = children();
        if children.is_empty() || began.elapsed() > PATIENCE * 2 {
            return;
        }
        let signal = if began.elapsed() > PATIENCE { Signal::SIGKILL } else { Signal::SIGTERM };
        for child in children.into_iter().filter(|child| asked.insert((*child, signal))) {
            let _ = kill(Pid::from_raw(child), signal);
        }
        std::thread::sleep(NAP);
    }
}

/// Children of this process that run.
fn children() -> Vec<i32> {
    let own = std::process::id().to_string();
    let runs = |pid: &i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        // Behind the name, which may hold anything: state, parent (proc_pid_stat(5)).
        let mut fields = stat.rsplit(')').next().unwrap_or_default().split_ascii_whitespace();
        let state = fields.next();
        fields.next() == Some(own.as_str()) && state != Some("Z")
    };
    let entries = std::fs::read_dir("/proc").into_iter().flatten();
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    pids.filter(runs).collect()
}
