//! The packets of a store, read back from its sealed segments without the reader under test.

use anyhow::{Context as _, Result, bail};
use std::path::Path;
use tapedeck_index::catalog::{self, Found};
use tapedeck_index::frame::{Decoder, RAW_BYTES_MAX, frame_len};
use tapedeck_index::pcapng::{Block, Blocks, PacketRecord};

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
