//! A file that is hidden until it is whole.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use tempfile::TempPath;

/// Bytes gathered before a write.
pub const BUFFER_BYTES: usize = 256 * 1024;

/// A file being written under a hidden name beside its own; gone again unless it is published.
#[derive(Debug)]
pub struct HiddenFile {
    /// Where the bytes go until they are whole; `None` for pipes and devices, written directly.
    hidden: Option<TempPath>,
    path: PathBuf,
}

impl HiddenFile {
    /// Begins to write `path`, which is replaced only by [`HiddenFile::publish`]. What is there and is no
    /// regular file (a pipe, `/dev/null`) is written directly.
    ///
    /// # Errors
    /// When no file can be made there.
    pub fn create(path: &Path) -> io::Result<(Self, BufWriter<File>)> {
        // Behind a symbolic link the file is replaced, not the link.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let kind = fs::metadata(&path).map(|m| m.file_type()).ok();
        if kind.is_some_and(|k| k.is_dir()) {
            return Err(io::Error::from(io::ErrorKind::IsADirectory));
        }
        if kind.is_some_and(|k| !k.is_file()) {
            let file = OpenOptions::new().write(true).open(&path)?;
            return Ok((Self { hidden: None, path }, BufWriter::with_capacity(BUFFER_BYTES, file)));
        }
        let name = path.file_name().ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut prefix = OsString::from(".");
        prefix.push(name);
        let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        // The mode of any new file: what the umask leaves.
        let (file, hidden) = tempfile::Builder::new()
            .prefix(&prefix)
            .suffix(".part")
            .permissions(Permissions::from_mode(0o666))
            .tempfile_in(folder)
            // Without the hidden name that it adds.
            .map_err(|e| io::Error::from(e.kind()))?
            .into_parts();
        Ok((Self { hidden: Some(hidden), path }, BufWriter::with_capacity(BUFFER_BYTES, file)))
    }

    /// Gives the file its name. The writer must have been flushed.
    ///
    /// # Errors
    /// When it cannot be renamed.
    pub fn publish(self) -> io::Result<()> {
        match self.hidden {
            Some(hidden) => hidden.persist(&self.path).map_err(|e| e.error),
            None => Ok(()),
        }
    }
}
