//! Running the binaries and the oracles; temporary folders.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Tests that hold a rate, or kill under one, run alone: they judge the recorder, not how tests share the
/// cores. (One test a process, as nextest has it, needs `.config/nextest.toml` for the same.)
static TURN: RwLock<()> = RwLock::new(());

/// Keeps every other test of this program waiting.
pub(crate) fn alone() -> RwLockWriteGuard<'static, ()> {
    TURN.write().unwrap_or_else(PoisonError::into_inner)
}

/// Runs beside others, but not beside one that is [`alone`].
pub(crate) fn together() -> RwLockReadGuard<'static, ()> {
    TURN.read().unwrap_or_else(PoisonError::into_inner)
}

/// A binary of this workspace, built beside `tapedeck`.
pub(crate) fn bin(name: &str) -> PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_tapedeck")).with_file_name(name);
    assert!(path.exists(), "{} is not built: run `cargo build --workspace` first", path.display());
    path
}

/// Runs a program to its end.
pub(crate) fn run<I: AsRef<std::ffi::OsStr>>(program: impl AsRef<std::ffi::OsStr>, args: &[I]) -> Output {
    let program = program.as_ref();
    Command::new(program).args(args).output().unwrap_or_else(|e| panic!("{}: {e}", program.display()))
}

/// Standard error as text.
pub(crate) fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Standard output as text.
pub(crate) fn stdout(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// The traces folder; `None` (and a printed `SKIPPED`) when `TAPEDECK_TRACES` is unset.
pub(crate) fn traces(test: &str) -> Option<PathBuf> {
    let Some(folder) = std::env::var_os("TAPEDECK_TRACES") else {
        eprintln!("SKIPPED 1 {test}: TAPEDECK_TRACES is not set");
        return None;
    };
    let folder = PathBuf::from(folder);
    assert!(folder.is_dir(), "TAPEDECK_TRACES={} is not a folder", folder.display());
    Some(folder)
}

/// Every capture file below a folder, by its magic number, sorted.
pub(crate) fn captures(folder: &Path) -> Vec<PathBuf> {
    let mut found = files_with(folder, "");
    found.retain(|path| is_capture(path));
    found.sort();
    found
}

fn is_capture(path: &Path) -> bool {
    const MAGICS: [[u8; 4]; 7] = [
        [0xa1, 0xb2, 0xc3, 0xd4],
        [0xd4, 0xc3, 0xb2, 0xa1],
        [0xa1, 0xb2, 0x3c, 0x4d],
        [0x4d, 0x3c, 0xb2, 0xa1],
        [0xa1, 0xb2, 0xcd, 0x34],
        [0x34, 0xcd, 0xb2, 0xa1],
        [0x0a, 0x0d, 0x0d, 0x0a],
    ];
    let mut magic = [0; 4];
    let mut file = std::fs::File::open(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    std::io::Read::read_exact(&mut file, &mut magic).is_ok() && MAGICS.contains(&magic)
}

/// Whether this process may make namespaces and load programs; prints `SKIPPED` if not.
pub(crate) fn need_root(test: &str) -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("SKIPPED 1 {test}: not root");
    }
    root
}

/// All sealed segments of a store, sorted.
pub(crate) fn segments(store: &Path) -> Vec<PathBuf> {
    let mut found = files_with(store, ".pcapng.zst");
    found.sort();
    found
}

/// Every file below `folder` whose name ends so.
pub(crate) fn files_with(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.to_str().unwrap().ends_with(ending) {
                found.push(path);
            }
        }
    }
    found
}

/// A segment, decompressed by the `zstd` command.
pub(crate) fn unzstd(segment: &Path) -> Vec<u8> {
    let output = run("zstd", &["-dcq".as_ref(), segment.as_os_str()]);
    assert!(output.status.success(), "zstd -dc {}: {}", segment.display(), stderr(&output));
    output.stdout
}
