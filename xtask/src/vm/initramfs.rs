//! The guest's file system: an archive in memory, in the format that the kernel unpacks (cpio, `newc`).
//!
//! Programs lie at the paths they have on this machine, with the libraries that `ldd` names. It must never
//! hold a file that nothing in the guest needs: the guest pays for each byte with its memory.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Component, Path};
use std::process::Command;

use anyhow::{Context, Result, bail};

use super::output_of;
use crate::packages;

const FOLDER: u32 = 0o040_755;
const PROGRAM: u32 = 0o100_755;

/// The archive so far.
#[derive(Debug, Default)]
pub(crate) struct Initramfs {
    bytes: Vec<u8>,
    /// Paths that are in it.
    names: BTreeSet<String>,
}

impl Initramfs {
    /// Adds a program of this machine at its own path, with its libraries.
    pub(crate) fn add_program(&mut self, program: &Path) -> Result<()> {
        self.add_libraries(program)?;
        self.add_copy(program, program)
    }

    /// Adds a program of ours at `at`, without its symbols, with its libraries.
    pub(crate) fn add_own(&mut self, program: &Path, at: &Path) -> Result<()> {
        self.add_libraries(program)?;
        let stripped = program.with_extension(format!("stripped-{}", std::process::id()));
        output_of(packages::tool("strip").arg("-o").arg(&stripped).arg(program))?;
        let added = self.add_copy(&stripped, at);
        fs::remove_file(&stripped).with_context(|| format!("removing {}", stripped.display()))?;
        added
    }

    /// Adds a file of this machine under another name.
    pub(crate) fn add_copy(&mut self, file: &Path, at: &Path) -> Result<()> {
        let bytes = fs::read(file).with_context(|| format!("{}", file.display()))?;
        self.add(at, &bytes)
    }

    /// Adds a file with these bytes, and the folders above it.
    pub(crate) fn add(&mut self, at: &Path, bytes: &[u8]) -> Result<()> {
        let mut above = String::new();
        let parts: Vec<&str> = at
            .components()
            .filter_map(|part| match part {
                Component::Normal(name) => name.to_str(),
                _ => None,
            })
            .collect();
        let Some((name, folders)) = parts.split_last() else { bail!("a file without a name") };
        for folder in folders {
            above.push_str(folder);
            self.entry(&above, FOLDER, &[])?;
            above.push('/');
        }
        self.entry(&format!("{above}{name}"), PROGRAM, bytes)
    }

    /// Adds an empty folder.
    pub(crate) fn add_folder(&mut self, at: &str) -> Result<()> {
        self.entry(at, FOLDER, &[])
    }

    /// The archive, ended.
    pub(crate) fn finish(mut self) -> Result<Vec<u8>> {
        self.entry("TRAILER!!!", 0, &[])?;
        Ok(self.bytes)
    }

    fn add_libraries(&mut self, program: &Path) -> Result<()> {
        let mut ldd: Command = packages::tool("ldd");
        let shown = output_of(ldd.arg(program))?;
        for library in libraries(&String::from_utf8_lossy(&shown)) {
            self.add_copy(Path::new(library), Path::new(library))?;
        }
        Ok(())
    }

    /// One entry: header of ASCII hex numbers, name, bytes, the last two padded to four bytes. A name that
    /// is there already stays as it is.
    fn entry(&mut self, name: &str, mode: u32, bytes: &[u8]) -> Result<()> {
        if !self.names.insert(name.to_owned()) {
            return Ok(());
        }
        let size = u32::try_from(bytes.len()).with_context(|| format!("{name} is too large"))?;
        let number = u32::try_from(self.names.len()).context("too many files")?;
        let name_size = u32::try_from(name.len() + 1).context("a name is too long")?;
        // inode, mode, uid, gid, links, time, size, device (2), device of a node (2), name, checksum.
        let fields = [number, mode, 0, 0, 1, 0, size, 0, 0, 0, 0, name_size, 0];
        self.bytes.extend_from_slice(b"070701");
        for field in fields {
            self.bytes.extend_from_slice(format!("{field:08x}").as_bytes());
        }
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(bytes);
        self.pad();
        Ok(())
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }
}

/// The files in what `ldd` shows: `name => FILE (address)`, and the loader as `FILE (address)`.
fn libraries(shown: &str) -> Vec<&str> {
    let file = |line| -> Option<&str> {
        let line: &str = line;
        let (_, file) = line.split_once("=>").unwrap_or(("", line));
        let file = file.split_whitespace().next()?;
        file.starts_with('/').then_some(file)
    };
    shown.lines().filter_map(file).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_loader_are_found() {
        let shown = "\tlinux-vdso.so.1 (0x00007f03b85d1000)\n\
                     \tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f03b8247000)\n\
                     \t/lib64/ld-linux-x86-64.so.2 (0x00007f03b85d3000)\n";
        let found = libraries(shown);
        assert_eq!(found, ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert!(libraries("\tstatically linked\n").is_empty());
    }

    #[test]
    fn entries_are_aligned_and_each_once() {
        let mut archive = Initramfs::default();
        archive.add(Path::new("/a/b"), b"12345").unwrap();
        archive.add(Path::new("/a/c"), b"").unwrap();
        archive.add(Path::new("/a/b"), b"other").unwrap();
        assert_eq!(archive.names.iter().map(String::as_str).collect::<Vec<_>>(), ["a", "a/b", "a/c"]);
        let bytes = archive.finish().unwrap();
        let starts: Vec<usize> = (0..bytes.len()).filter(|at| bytes[*at..].starts_with(b"070701")).collect();
        assert_eq!((starts.len(), bytes.len() % 4), (4, 0));
        assert!(starts.iter().all(|at| at % 4 == 0), "{starts:?}");
    }
}
