//! The head: section and interface of a segment, kept in its sidecar so that frame 0 need not be read.

use crate::bytes::u32_at;
use crate::pcapng::{
    Block, Blocks, INTERFACE, InterfaceInfo, SECTION, SectionInfo, encode_interface, encode_section,
};

/// Longest head that a sidecar keeps, bytes; texts from a capture file may be longer, and are then read
/// from frame 0.
pub const HEAD_BYTES_MAX: usize = 8192;

/// What frame 0 says of a segment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Who wrote it.
    pub section: SectionInfo,
    /// Where its packets were taken.
    pub interface: InterfaceInfo,
}

impl Head {
    /// The head in `blocks`: a Section Header Block, then an Interface Description Block. `None` for
    /// anything else.
    #[must_use]
    pub fn decode(blocks: &[u8]) -> Option<Self> {
        let mut blocks = Blocks::new(blocks).map(|block| block.map(|(_, block)| block));
        match (blocks.next()?, blocks.next()?) {
            (Ok(Block::Section(section)), Ok(Block::Interface(interface))) => {
                Some(Self { section, interface })
            }
            _ => None,
        }
    }

    /// The two blocks, as a writer puts them into frame 0.
    #[must_use]
    pub fn encode(section: &SectionInfo, interface: &InterfaceInfo) -> Vec<u8> {
        let mut out = Vec::new();
        encode_section(&mut out, section);
        encode_interface(&mut out, interface);
        out
    }

    /// The bytes of the two blocks at the front of an uncompressed frame 0; empty where they are not there.
    #[must_use]
    pub fn bytes_of(frame: &[u8]) -> &[u8] {
        let len = |at: usize, kind: u32| {
            let rest = frame.get(at..)?;
            (u32_at(rest, 0)? == kind).then_some(crate::bytes::index(u32_at(rest, 4)?))
        };
        let whole = len(0, SECTION).and_then(|section| section.checked_add(len(section, INTERFACE)?));
        let bytes = whole.and_then(|whole| frame.get(..whole)).unwrap_or_default();
        if Self::decode(bytes).is_some() { bytes } else { &[] }
    }
}
