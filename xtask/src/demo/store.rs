//! The demo's folder: the store, the answers, the transcripts. Removed at the end unless the user keeps it.
//!
//! It lies in cargo's target folder, which is on a disk, not in a temporary file system. It must never touch
//! a store of the user's.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use super::ledger::grouped;

/// The folder; gone when dropped unless kept.
#[derive(Debug)]
pub(crate) struct Store {
    folder: PathBuf,
    keep: bool,
}

impl Drop for Store {
    fn drop(&mut self) {
        if !self.keep
            && let Err(error) = fs::remove_dir_all(&self.folder)
        {
            eprintln!("warning: cannot remove {}: {error}", self.folder.display());
        }
    }
}

impl Store {
    /// A new folder under `parent`.
    pub(crate) fn new(parent: &Path, keep: bool) -> Result<Self> {
        let folder = parent.join(std::process::id().to_string());
        fs::create_dir_all(folder.join("store")).with_context(|| format!("{}", folder.display()))?;
        Ok(Self { folder, keep })
    }

    /// The folder to give as `--store`.
    pub(crate) fn packets(&self) -> PathBuf {
        self.folder.join("store")
    }

    /// A file beside the store.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// The folder beside the store where the client writes its transcripts.
    pub(crate) fn transcripts(&self) -> &Path {
        &self.folder
    }

    /// The sealed segments.
    pub(crate) fn segments(&self) -> Result<Vec<PathBuf>> {
        let mut found = Vec::new();
        files(&self.packets(), &mut found)?;
        found.retain(|path| name(path).ends_with(".pcapng.zst") && !name(path).starts_with('.'));
        Ok(found)
    }

    /// What was stored and what it takes on disk.
    pub(crate) fn summary(&self, packets: u64, bytes: u64) -> Result<String> {
        let mut found = Vec::new();
        files(&self.packets(), &mut found)?;
        let size = |end: &str| -> u64 {
            let sizes =
                found.iter().filter(|path| name(path).ends_with(end)).filter_map(|p| fs::metadata(p).ok());
            sizes.map(|metadata| metadata.len()).sum()
        };
        let (segments, indexes) = (size(".pcapng.zst"), size(".idx"));
        Ok(format!(
            "     {} packets, {} bytes of traffic\n     {} bytes in segments: {}\n     {} bytes of index: {}\n",
            grouped(packets),
            grouped(bytes),
            grouped(segments),
            ratio(bytes, segments),
            grouped(indexes),
            percent(indexes, segments),
        ))
    }

    /// What became of the store and what to try next.
    pub(crate) fn farewell(&self, taperead: &Path) -> String {
        let store = self.packets();
        let store = store.display();
        let taperead = taperead.display();
        if !self.keep {
            return "The store was removed. To look around in it, or to see your own traffic:\n\
                    \x20    cargo xtask demo --keep\n     cargo xtask demo --pcap YOUR.pcap"
                .to_owned();
        }
        format!(
            "The store is yours: {store}\n     {taperead} packets --store {store} --limit 20\n     \
             {taperead} packets port 53 --store {store} -w dns.pcapng\n     \
             {taperead} packets host 192.0.2.99 --store {store}; echo $?    (1 = proven: no such packet)\n     \
             rm -r {}",
            self.folder.display()
        )
    }
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).unwrap_or_default()
}

fn files(folder: &Path, into: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| format!("{}", folder.display()))? {
        let entry = entry.with_context(|| format!("{}", folder.display()))?;
        if entry.file_type().context("file type")?.is_dir() {
            files(&entry.path(), into)?;
        } else {
            into.push(entry.path());
        }
    }
    Ok(())
}

/// `whole / part`, to two places, in whole numbers.
fn ratio(whole: u64, part: u64) -> String {
    match (whole * 100).checked_div(part) {
        Some(hundredths) => format!("{}.{:02} to 1", hundredths / 100, hundredths % 100),
        None => "nothing stored".to_owned(),
    }
}

fn percent(part: u64, whole: u64) -> String {
    match (part * 10_000).checked_div(whole) {
        Some(hundredths) => format!("{}.{:02} % of them", hundredths / 100, hundredths % 100),
        None => "nothing stored".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_whole_numbers_to_two_places() {
        assert_eq!(ratio(162, 100), "1.62 to 1");
        assert_eq!(percent(1, 400), "0.25 % of them");
        assert_eq!(ratio(1, 0), "nothing stored");
    }
}
