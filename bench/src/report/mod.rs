//! Results and a plan for those who were not there: one page, or one JSON object. It computes nothing that is not in
//! the results and must never leave out a trial or a problem of one.

mod page;
mod plot;

use crate::plan::Plan;
use crate::result::Document;
use anyhow::{Context as _, Result, bail};
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// Version of the JSON.
pub const VERSION: u32 = 1;

/// Of which results.
#[derive(Clone, Debug, clap::Args)]
pub struct Args {
    /// Results of `tapebench line` or `compare`.
    #[arg(value_name = "RESULT", required = true)]
    pub results: Vec<PathBuf>,
    /// Write a page here.
    #[arg(long, value_name = "FILE", required_unless_present = "json")]
    pub html: Option<PathBuf>,
    /// A plan to show with them, of `tapebench plan --json`.
    #[arg(long, value_name = "FILE")]
    pub plan: Option<PathBuf>,
    /// Print all results, and the plan, as one JSON object on stdout.
    #[arg(long)]
    pub json: bool,
}

/// A result and its file.
#[derive(Clone, Debug)]
pub struct Named {
    /// The file.
    pub name: String,
    /// What it holds.
    pub document: Document,
}

/// Runs the command.
///
/// # Errors
/// A file cannot be read, or the page not be written.
pub fn run(args: &Args) -> Result<()> {
    let read = |path: &PathBuf| {
        Document::read(path).map(|document| Named { name: path.display().to_string(), document })
    };
    let results: Vec<Named> = args.results.iter().map(read).collect::<Result<_>>()?;
    let plan = args.plan.as_deref().map(Plan::read).transpose()?;
    if let Some(path) = &args.html {
        if args.results.contains(path) || args.plan.as_ref() == Some(path) {
            bail!("--html {} is one of the files to be read", path.display());
        }
        write(path, &page::page(&results, plan.as_ref()))?;
    }
    if args.json {
        let all: Vec<_> = results
            .iter()
            .map(|one| serde_json::json!({ "name": one.name, "result": one.document }))
            .collect();
        let value = serde_json::json!({ "version": VERSION, "kind": "report", "results": all, "plan": plan });
        writeln!(std::io::stdout(), "{value}")?;
    }
    Ok(())
}

/// Writes a file whole or not at all.
fn write(path: &Path, text: &str) -> Result<()> {
    let named = || format!("writing {}", path.display());
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    // A page is for others; the mask of the user still holds.
    let mut file = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o666))
        .tempfile_in(folder.unwrap_or(Path::new(".")))
        .with_context(named)?;
    file.write_all(text.as_bytes()).with_context(named)?;
    file.persist(path).with_context(named)?;
    Ok(())
}

#[cfg(test)]
mod tests;
