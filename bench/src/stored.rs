//! The packets of a store, read back from its sealed segments without the reader under test.

use anyhow::{Context as _, Result, bail};
use std::collections::BTreeMap;
use std::path::Path;
use tapedeck_index::catalog::{self, Found};
use tapedeck_index::frame::{Decoder, RAW_BYTES_MAX, frame_len};
use tapedeck_index::name::{INDEX_SUFFIX, PACKETS_FOLDER};
use tapedeck_index::pcapng::{Block, Blocks, PacketRecord};

/// Bytes of a store's files: `segments`, `indexes`, and the other folders by their names.
pub(crate) fn files(store: &Path) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    for folder in std::fs::read_dir(store).into_iter().flatten().flatten() {
        let name = folder.file_name().to_string_lossy().into_owned();
        add(&folder.path(), &name, &mut sums);
    }
    sums
}

fn add(folder: &Path, of: &str, sums: &mut BTreeMap<String, u64>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let Ok(about) = entry.metadata() else { continue };
        if about.is_dir() {
            add(&entry.path(), of, sums);
            continue;
        }
        let kind = match of {
            PACKETS_FOLDER if entry.file_name().to_string_lossy().ends_with(INDEX_SUFFIX) => "indexes",
            PACKETS_FOLDER => "segments",
            other => other,
        };
        *sums.entry(kind.to_owned()).or_default() += about.len();
    }
}

/// Gives every packet to `take`, queue by queue in the order in which they were written, with its segment.
///
/// # Errors
/// A segment was not sealed, cannot be read, or is damaged; and those of `take`.
pub(crate) fn packets(
    store: &Path,
    take: &mut dyn FnMut(&Found, &PacketRecord<'_>) -> Result<()>,
) -> Result<()> {
    let mut segments = catalog::all(&[store.to_owned()])?.segments;
    segments.sort_by_key(|found| (found.name.queue, found.name.seq));
    let (mut decoder, mut raw) = (Decoder::new()?, Vec::new());
    for found in &segments {
        let path = found.packets_path();
        if found.state != catalog::State::Sealed {
            bail!("{} was not sealed", path.display());
        }
        let bytes = std::fs::read(&path).with_context(|| path.display().to_string())?;
        let mut rest = bytes.as_slice();
        while !rest.is_empty() {
            let (frame, behind) = rest
                .split_at_checked(frame_len(rest)?)
                .with_context(|| format!("{} is cut", path.display()))?;
            decoder.decompress(frame, &mut raw, RAW_BYTES_MAX)?;
            rest = behind;
            for block in Blocks::new(&raw) {
                if let (_, Block::Packet(packet)) = block? {
                    take(found, &packet)?;
                }
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_summed_by_kind() {
        let store = tempfile::tempdir().unwrap();
        let make = |path: &str, bytes: usize| {
            let path = store.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, vec![0; bytes]).unwrap();
        };
        make("packets/dt=2026-11-30/hr=10/a.pcapng.zst", 100);
        make("packets/dt=2026-11-30/hr=11/b.pcapng.zst", 20);
        make("packets/dt=2026-11-30/hr=10/a.idx", 7);
        make("sessions/dt=2026-11-30/hr=10/s.parquet", 3);
        make("store.json", 50);
        let sums = [("indexes", 7), ("segments", 120), ("sessions", 3)];
        assert_eq!(files(store.path()), sums.map(|(kind, bytes)| (kind.to_owned(), bytes)).into());
    }
}
