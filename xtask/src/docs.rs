//! `cargo xtask docs`: pages that are made from the code. A test of each crate checks that they are current.

use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

/// Example of a crate that prints a page, and the page.
const PAGES: &[(&str, &str, &str)] = &[("tapedeck-index", "schema_page", "docs/schema.md")];

/// Writes every page.
pub(crate) fn run(root: &Path) -> Result<()> {
    for (package, example, page) in PAGES {
        let output = Command::new("cargo")
            .current_dir(root)
            .args(["run", "--quiet", "--package", package, "--example", example])
            .stderr(Stdio::inherit())
            .output()
            .context("cargo run")?;
        if !output.status.success() || output.stdout.is_empty() {
            bail!("{example}: {}", output.status);
        }
        std::fs::write(root.join(page), output.stdout).with_context(|| (*page).to_owned())?;
        println!("wrote {page}");
    }
    Ok(())
}
