//! One recorder per interface: a lock file per network namespace and interface index.
//!
//! The lock is flock(2), so it goes with its process however that ends. The file says who holds it and
//! where that recorder writes, for messages and for `status`. It must never follow a link somebody else
//! put there.

use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Where lock files lie; a folder in the temporary directory where this cannot be made.
const FOLDER: &str = "/run/tapedeck";

/// Who holds an interface.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Process.
    pub pid: u32,
    /// Run, 8 hexadecimal digits.
    pub run: String,
    /// Interface name.
    pub interface: String,
    /// Stores it writes to.
    pub stores: Vec<PathBuf>,
}

/// A failure to take the lock.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Another recorder has it.
    #[error("{interface} is being recorded by process {pid}")]
    Held {
        /// Interface.
        interface: String,
        /// Its recorder.
        pid: u32,
    },
    /// The lock file cannot be used.
    #[error("cannot {act} lock file {}", path.display())]
    Io {
        /// What was tried.
        act: &'static str,
        /// The file.
        path: PathBuf,
        /// The answer.
        #[source]
        source: io::Error,
    },
}

/// The lock on one interface, until dropped.
#[derive(Debug)]
pub struct InterfaceLock {
    path: PathBuf,
    _file: Flock<File>,
}

impl InterfaceLock {
    /// Takes the lock for interface `ifindex` of the caller's network namespace.
    ///
    /// # Errors
    /// [`LockError::Held`] names the process that has it.
    pub fn take(ifindex: u32, holder: &Holder) -> Result<Self, LockError> {
        Self::take_in(namespace(), ifindex, holder)
    }

    /// The same for an interface of another network namespace, by its number.
    pub(crate) fn take_in(namespace: u64, ifindex: u32, holder: &Holder) -> Result<Self, LockError> {
        let folder = folder()?;
        let path = folder.join(format!("{namespace}-{ifindex}.lock"));
        let io = |act| {
            let path = path.clone();
            move |source| LockError::Io { act, path, source }
        };
        let mut file = loop {
            let file = OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(false)
                .mode(0o644)
                .custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC)
                .open(&path)
                .map_err(io("open"))?;
            match lock_patiently(file) {
                // A former holder may have removed the file between the open and the lock.
                Ok(file) if is_at(&file, &path) => break file,
                Ok(_) => {}
                Err((mut file, nix::errno::Errno::EWOULDBLOCK)) => {
                    let pid = read_holder(&mut file).map_or(0, |holder| holder.pid);
                    return Err(LockError::Held { interface: holder.interface.clone(), pid });
                }
                Err((_, errno)) => return Err(io("lock")(errno.into())),
            }
        };
        file.set_len(0).map_err(io("empty"))?;
        file.rewind().map_err(io("write"))?;
        let text = serde_json::to_vec(holder).map_err(|err| io("write")(err.into()))?;
        file.write_all(&text).map_err(io("write"))?;
        Ok(Self { path, _file: file })
    }
}

impl Drop for InterfaceLock {
    /// Removes the file while the lock is still held.
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

/// Who holds interface `ifindex` of the caller's network namespace, if anybody does.
pub(crate) fn holder_of(ifindex: u32) -> Option<Holder> {
    holder_in(namespace(), ifindex)
}

/// The same for any network namespace, by its number.
pub(crate) fn holder_in(namespace: u64, ifindex: u32) -> Option<Holder> {
    let name = format!("{namespace}-{ifindex}.lock");
    folders().iter().find_map(|folder| alive(&folder.join(&name)))
}

/// Number of the caller's network namespace.
pub(crate) fn namespace() -> u64 {
    fs::metadata("/proc/thread-self/ns/net").map_or(0, |meta| meta.ino())
}

/// Whether the open file is the one that `path` names now.
fn is_at(file: &File, path: &Path) -> bool {
    let numbers = |meta: fs::Metadata| (meta.dev(), meta.ino());
    let (open, named) = (file.metadata().map(numbers), fs::symlink_metadata(path).map(numbers));
    matches!((open, named), (Ok(open), Ok(named)) if open == named)
}

/// Tries a few times: `holders` takes each lock for a moment.
fn lock_patiently(mut file: File) -> Result<Flock<File>, (File, nix::errno::Errno)> {
    for _ in 0..4 {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Err((back, nix::errno::Errno::EWOULDBLOCK)) => file = back,
            other => return other,
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    Flock::lock(file, FlockArg::LockExclusiveNonblock)
}

/// All recorders of this machine that are alive: whoever holds a lock.
#[must_use]
pub fn holders() -> Vec<Holder> {
    files().filter_map(|path| alive(&path)).collect()
}

/// Recorders that died: their lock files are there, and nobody holds them. In whatever network namespace.
#[must_use]
pub fn dead() -> Vec<Holder> {
    files().filter_map(|path| look(&path).filter(|(_, held)| !held)).map(|(holder, _)| holder).collect()
}

fn files() -> impl Iterator<Item = PathBuf> {
    // Of a folder that somebody else could have made first nothing is believed.
    let trusted = |folder: &PathBuf| {
        let owners = [0, nix::unistd::geteuid().as_raw()];
        fs::symlink_metadata(folder).is_ok_and(|meta| meta.is_dir() && owners.contains(&meta.uid()))
    };
    let folders = folders().into_iter().filter(trusted);
    let entries = folders.filter_map(|folder| fs::read_dir(folder).ok()).flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.extension().is_some_and(|end| end == "lock"))
}

/// The holder of a lock file that is locked.
fn alive(path: &Path) -> Option<Holder> {
    look(path).filter(|(_, held)| *held).map(|(holder, _)| holder)
}

/// Who a lock file names, and whether it is locked.
fn look(path: &Path) -> Option<(Holder, bool)> {
    // A pipe of this name must not make anybody wait.
    let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK;
    let mut file = OpenOptions::new().read(true).custom_flags(flags).open(path).ok()?;
    if !file.metadata().ok()?.is_file() {
        return None;
    }
    let holder = read_holder(&mut file)?;
    match Flock::lock(file, FlockArg::LockSharedNonblock) {
        Ok(_) => Some((holder, false)),
        Err((_, nix::errno::Errno::EWOULDBLOCK)) => Some((holder, true)),
        Err(_) => None,
    }
}

fn read_holder(file: &mut File) -> Option<Holder> {
    let mut text = String::new();
    file.take(64 * 1024).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Where lock files may lie.
pub(crate) fn folders() -> [PathBuf; 2] {
    [PathBuf::from(FOLDER), fallback()]
}

fn fallback() -> PathBuf {
    std::env::temp_dir().join(format!("tapedeck-{}", nix::unistd::geteuid()))
}

/// The folder for lock files, made if need be, and ours.
pub(crate) fn folder() -> Result<PathBuf, LockError> {
    let mut last = None;
    for path in folders() {
        match own_folder(&path) {
            Ok(()) => return Ok(path),
            Err(source) => last = Some(LockError::Io { act: "make the folder of", path, source }),
        }
    }
    let none = || io::Error::from(io::ErrorKind::NotFound);
    Err(last.unwrap_or_else(|| LockError::Io { act: "place", path: FOLDER.into(), source: none() }))
}

fn own_folder(path: &Path) -> io::Result<()> {
    match fs::DirBuilder::new().mode(0o755).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    // In a folder anyone may write to, somebody else could have been first.
    let meta = fs::symlink_metadata(path)?;
    if meta.is_dir() && meta.uid() == nix::unistd::geteuid().as_raw() {
        nix::unistd::access(path, nix::unistd::AccessFlags::W_OK)?;
        return Ok(());
    }
    Err(io::Error::from(io::ErrorKind::PermissionDenied))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_taker_learns_who_was_first() {
        // No interface has this index, so no recorder on this machine can want the lock.
        let ifindex = u32::MAX - std::process::id();
        let holder = Holder {
            pid: std::process::id(),
            run: "0000002a".into(),
            interface: "eth7".into(),
            stores: vec!["/store".into()],
        };
        let lock = InterfaceLock::take(ifindex, &holder).unwrap();
        assert!(holders().contains(&holder));
        assert_eq!(holder_of(ifindex).as_ref(), Some(&holder));
        let refused = InterfaceLock::take(ifindex, &holder).unwrap_err();
        assert_eq!(refused.to_string(), format!("eth7 is being recorded by process {}", holder.pid));
        assert!(!dead().contains(&holder));
        let path = lock.path.clone();
        drop(lock);
        assert!(!holders().contains(&holder) && holder_of(ifindex).is_none() && !dead().contains(&holder));
        // As after a kill: the file is there, the lock is not.
        fs::write(&path, serde_json::to_vec(&holder).unwrap()).unwrap();
        assert!(dead().contains(&holder) && !holders().contains(&holder));
        drop(InterfaceLock::take(ifindex, &holder).unwrap());
    }
}
