//! A file that is not seen until it is whole.
//!
//! Where the file system offers it, the file has no name while it is written: however the process ends,
//! nothing is left. Elsewhere it has a hidden name, which a signal that ends the process removes.

use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::unistd::linkat;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level::emulate_default_handler;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, BufWriter};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use tempfile::TempPath;

/// Bytes gathered before a write.
pub const BUFFER_BYTES: usize = 256 * 1024;
/// The mode of any new file: what the umask leaves of it.
const MODE: u32 = 0o666;
/// Where the kernel shows our open files, by which one without a name is linked.
const OPEN_FILES: &str = "/proc/self/fd";

/// A file being written, which appears under its name only when it is published.
#[derive(Debug)]
pub struct HiddenFile {
    bytes: Bytes,
    path: PathBuf,
}

/// Where the bytes go until they are whole.
#[derive(Debug)]
enum Bytes {
    /// A pipe or a device, written directly.
    Direct,
    /// A file without a name.
    Unnamed(File),
    /// A file under a hidden name beside its own; gone again unless it is published.
    Hidden(TempPath),
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
        let buffered = |file| BufWriter::with_capacity(BUFFER_BYTES, file);
        if kind.is_some_and(|k| !k.is_file()) {
            let file = OpenOptions::new().write(true).open(&path)?;
            return Ok((Self { bytes: Bytes::Direct, path }, buffered(file)));
        }
        if path.file_name().is_none() {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
        let (bytes, file) = match unnamed(&path)? {
            Some(file) => (Bytes::Unnamed(file.try_clone()?), file),
            None => {
                let (file, hidden) = hidden(&path)?;
                (Bytes::Hidden(hidden), file)
            }
        };
        Ok((Self { bytes, path }, buffered(file)))
    }

    /// Gives the file its name, in the place of one that is there. The writer must have been flushed.
    ///
    /// # Errors
    /// When it cannot be linked or renamed.
    pub fn publish(self) -> io::Result<()> {
        let hidden = match self.bytes {
            Bytes::Direct => return Ok(()),
            Bytes::Hidden(hidden) => hidden,
            Bytes::Unnamed(file) => match link(&file, &self.path) {
                // Only a rename replaces a file in one step, and a rename needs a name.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    let prefix = prefix(&self.path);
                    let mut names = tempfile::Builder::new();
                    names.prefix(&prefix).suffix(".part");
                    names.make_in(folder(&self.path), |name| link(&file, name))?.into_temp_path()
                }
                linked => return linked,
            },
        };
        hidden.persist(&self.path).map_err(|e| e.error)
    }
}

fn folder(path: &Path) -> &Path {
    path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// What hidden names beside `path` begin with.
fn prefix(path: &Path) -> OsString {
    let mut prefix = OsString::from(".");
    prefix.push(path.file_name().unwrap_or_default());
    prefix
}

/// A file without a name in the folder of `path`; `None` where the file system has no such files.
fn unnamed(path: &Path) -> io::Result<Option<File>> {
    if !Path::new(OPEN_FILES).exists() {
        return Ok(None);
    }
    let mut options = OpenOptions::new();
    options.write(true).mode(MODE).custom_flags(OFlag::O_TMPFILE.bits());
    match options.open(folder(path)) {
        // EISDIR is what a kernel that does not know the flag says.
        Err(e) if matches!(e.kind(), io::ErrorKind::Unsupported | io::ErrorKind::IsADirectory) => Ok(None),
        Err(e) if e.kind() == io::ErrorKind::InvalidInput => Ok(None),
        file => file.map(Some),
    }
}

fn link(file: &File, to: &Path) -> io::Result<()> {
    let from = format!("{OPEN_FILES}/{}", file.as_raw_fd());
    Ok(linkat(AT_FDCWD, from.as_str(), AT_FDCWD, to, AtFlags::AT_SYMLINK_FOLLOW)?)
}

/// A file under a hidden name beside `path`, which also goes when a signal ends the process.
fn hidden(path: &Path) -> io::Result<(File, TempPath)> {
    let name = Arc::new(Mutex::new(PathBuf::new()));
    // Before the file is there, so that no signal comes between.
    let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP])?;
    let to_remove = Arc::clone(&name);
    std::thread::spawn(move || {
        if let Some(signal) = signals.forever().next() {
            let _ = fs::remove_file(&*to_remove.lock().unwrap_or_else(PoisonError::into_inner));
            let _ = emulate_default_handler(signal);
        }
    });
    let mut name = name.lock().unwrap_or_else(PoisonError::into_inner);
    let made = tempfile::Builder::new()
        .prefix(&prefix(path))
        .suffix(".part")
        .permissions(Permissions::from_mode(MODE))
        .tempfile_in(folder(path));
    // Without the hidden name that it adds.
    let (file, hidden) = made.map_err(|e| io::Error::from(e.kind()))?.into_parts();
    name.clone_from(&hidden.to_path_buf());
    Ok((file, hidden))
}

#[cfg(test)]
mod tests {
    //! What is left of a file when its writer is done, gives up, or is killed.

    use super::*;
    use nix::sys::signal::{Signal, kill};
    use nix::unistd::Pid;
    use std::io::{BufRead as _, BufReader, Write as _};
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::{Child, ChildStdin, Command, Stdio};

    const FOLDER: &str = "TAPEDECK_TEST_FOLDER";

    fn left(folder: &Path) -> Vec<OsString> {
        fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name()).collect()
    }

    /// Both kinds: without a name, and with a hidden one.
    fn both(path: &Path) -> [(HiddenFile, BufWriter<File>); 2] {
        let (file, temp) = hidden(path).unwrap();
        let named = HiddenFile { bytes: Bytes::Hidden(temp), path: path.to_owned() };
        let unnamed = HiddenFile::create(path).unwrap();
        assert!(matches!(unnamed.0.bytes, Bytes::Unnamed(_)));
        [unnamed, (named, BufWriter::new(file))]
    }

    #[test]
    fn a_published_file_replaces_what_was_there() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("case.pcapng");
        for before in [None, Some("old")] {
            for (hidden, mut writer) in both(&path) {
                let _ = fs::remove_file(&path);
                if let Some(text) = before {
                    fs::write(&path, text).unwrap();
                }
                writer.write_all(b"new").unwrap();
                writer.flush().unwrap();
                hidden.publish().unwrap();
                assert_eq!(fs::read(&path).unwrap(), b"new");
            }
        }
        assert_eq!(left(dir.path()), ["case.pcapng"]);
    }

    #[test]
    fn one_that_is_given_up_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(both(&dir.path().join("case.pcapng")));
        assert_eq!(left(dir.path()), [""; 0]);
    }

    /// Run by the next test as a process of its own: begins both kinds of file, says so, and waits.
    #[test]
    fn writing_process() {
        let Ok(folder) = std::env::var(FOLDER) else { return };
        let folder = PathBuf::from(folder);
        let mut files = if folder.ends_with("unnamed") {
            vec![HiddenFile::create(&folder.join("case.pcapng")).unwrap().1]
        } else {
            let (file, path) = hidden(&folder.join("case.pcapng")).unwrap();
            std::mem::forget(path);
            vec![BufWriter::new(file)]
        };
        files[0].write_all(&[7; 1 << 20]).unwrap();
        std::fs::write(folder.with_extension("ready"), b"").unwrap();
        std::io::stdin().lines().for_each(drop);
    }

    /// The process, and what keeps it waiting.
    fn writing(folder: &Path) -> (Child, ChildStdin) {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "out::target::tests::writing_process", "--nocapture"]);
        let mut child =
            command.env(FOLDER, folder).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        // Ends when the process does; until then the file is there sooner or later.
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut String::new()).unwrap();
        while !folder.with_extension("ready").exists() {
            assert!(child.try_wait().unwrap().is_none());
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let stdin = child.stdin.take().unwrap();
        (child, stdin)
    }

    #[test]
    fn a_killed_writer_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        for (kind, signal) in
            [("unnamed", Signal::SIGKILL), ("term", Signal::SIGTERM), ("int", Signal::SIGINT)]
        {
            let folder = dir.path().join(kind);
            fs::create_dir(&folder).unwrap();
            let (mut child, _stdin) = writing(&folder);
            assert_eq!(left(&folder).len(), usize::from(kind != "unnamed"));
            kill(Pid::from_raw(child.id().cast_signed()), signal).unwrap();
            assert_eq!(child.wait().unwrap().signal(), Some(signal as i32));
            assert_eq!(left(&folder), [""; 0], "{kind}");
        }
    }
}
