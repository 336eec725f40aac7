//! pcapng with nanoseconds: one interface per (name, link type, snaplen), as the packets bring them.
//!
//! Loss counters (statistics blocks, `epb_dropcount`) belong to the recording, not to an excerpt of it:
//! they are left out.

use super::{Output, OutputError, Sink, Source};
use tapedeck_index::pcapng::{
    InterfaceInfo, PacketRecord, SectionInfo, encode_interface, encode_packet_on, encode_section,
};
use tapedeck_packet::LinkType;

/// Writes pcapng.
pub struct Pcapng<'a> {
    out: Sink<'a>,
    interfaces: Vec<InterfaceInfo>,
    /// Blocks that are not written yet.
    blocks: Vec<u8>,
}

/// Bytes that are written at once, about.
const AT_ONCE: usize = 64 << 10;

impl<'a> Pcapng<'a> {
    /// Begins a file: writes the section header.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn new(mut out: Sink<'a>) -> Result<Self, OutputError> {
        let mut blocks = Vec::new();
        let application = Some(concat!("taperead ", env!("CARGO_PKG_VERSION")).to_owned());
        encode_section(&mut blocks, &SectionInfo { hardware: None, os: None, application });
        out.write_all(&blocks)?;
        blocks.clear();
        Ok(Self { out, interfaces: Vec::new(), blocks })
    }

    fn write(&mut self) -> Result<(), OutputError> {
        self.out.write_all(&self.blocks)?;
        self.blocks.clear();
        Ok(())
    }

    /// Number of the packet's interface in this file; describes it first if it is new.
    fn interface(&mut self, from: &InterfaceInfo) -> usize {
        let same = |i: &InterfaceInfo| {
            i.name == from.name && i.link_type == from.link_type && i.snaplen == from.snaplen
        };
        if let Some(at) = self.interfaces.iter().position(same) {
            return at;
        }
        // The description names one queue; here several come together.
        let interface = InterfaceInfo { description: None, ..from.clone() };
        encode_interface(&mut self.blocks, &interface);
        self.interfaces.push(interface);
        self.interfaces.len() - 1
    }
}

impl Output for Pcapng<'_> {
    fn packet(&mut self, source: &Source, packet: &PacketRecord<'_>) -> Result<(), OutputError> {
        let id = self.interface(&source.interface);
        let id = u32::try_from(id).map_err(std::io::Error::other)?;
        encode_packet_on(&mut self.blocks, id, &PacketRecord { dropped: 0, ..*packet });
        if self.blocks.len() >= AT_ONCE { self.write() } else { Ok(()) }
    }

    fn finish(&mut self) -> Result<(), OutputError> {
        if self.interfaces.is_empty() {
            // Without an interface libpcap refuses the file; an empty answer is to open, too.
            let none = InterfaceInfo::named("", LinkType::ETHERNET);
            encode_interface(&mut self.blocks, &none);
        }
        self.write()?;
        Ok(self.out.flush()?)
    }

    fn has_several_link_types(&self) -> bool {
        self.interfaces
            .iter()
            .skip(1)
            .any(|i| Some(i.link_type) != self.interfaces.first().map(|f| f.link_type))
    }
}
