//! Where the repository is and which files belong to it.
//!
//! Only reads. Paths are relative to the root and use `/`, so that findings read the same everywhere.
//! It must never look outside the repository.

use std::collections::BTreeSet;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// One text file of the repository.
#[derive(Debug, Clone)]
pub(crate) struct Source {
    /// Path relative to the root, with `/`.
    pub(crate) path: String,
    /// The whole text.
    pub(crate) text: String,
}

impl Source {
    /// A source from its parts; tests make theirs with it.
    #[cfg(test)]
    pub(crate) fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }

    /// True if the name ends in `.` and one of `extensions`.
    pub(crate) fn has_extension(&self, extensions: &[&str]) -> bool {
        Path::new(&self.path).extension().and_then(|e| e.to_str()).is_some_and(|e| extensions.contains(&e))
    }
}

/// The root of the repository: the folder above this crate's, as cargo knows it at run time.
pub(crate) fn root() -> Result<PathBuf> {
    let manifest = env::var_os("CARGO_MANIFEST_DIR")
        .context("CARGO_MANIFEST_DIR is not set: start this with `cargo xtask`")?;
    let manifest = PathBuf::from(manifest);
    manifest.parent().map(Path::to_owned).context("the xtask crate lies at the root of the file system")
}

/// All text files that are tracked, or would be by `git add .`; binary files are left out.
pub(crate) fn sources(root: &Path) -> Result<Vec<Source>> {
    // The owner of a checkout may be someone else than the one who runs the tests (CI as root).
    let listed = Command::new("git")
        .args(["-c", "safe.directory=*", "ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(root)
        .output()
        .context("git does not start: install it with `apt-get install git`")?;
    if !listed.status.success() {
        bail!("git ls-files in {}: {}", root.display(), String::from_utf8_lossy(&listed.stderr).trim());
    }
    // In the middle of a merge git names a file once for each side.
    let names: BTreeSet<&[u8]> = listed.stdout.split(|byte| *byte == 0).filter(|n| !n.is_empty()).collect();
    let mut sources = Vec::new();
    for name in names {
        let path = String::from_utf8(name.to_vec()).context("a tracked file's name is not UTF-8")?;
        // A file that is deleted but still in the index has no text to check.
        let Ok(bytes) = std::fs::read(root.join(&path)) else { continue };
        if let Ok(text) = String::from_utf8(bytes) {
            sources.push(Source { path, text });
        }
    }
    Ok(sources)
}

/// A `cargo` command at the root, without the variables that `cargo run` set for this process: build
/// scripts that watch them would run again for nothing.
pub(crate) fn cargo(root: &Path) -> Command {
    let mut command = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.current_dir(root);
    for (name, _) in env::vars_os() {
        let drop = name.to_str().is_some_and(|name| {
            name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_") || name == "OUT_DIR"
        });
        if drop {
            command.env_remove(name);
        }
    }
    command
}
