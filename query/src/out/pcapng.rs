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
    block: Vec<u8>,
}

impl<'a> Pcapng<'a> {
    /// Begins a file: writes the section header.
    ///
    /// # Errors
    /// When `out` cannot be written.
    pub fn new(mut out: Sink<'a>) -> Result<Self, OutputError> {
        let mut block = Vec::new();
        let application = Some(concat!("taperead ", env!("CARGO_PKG_VERSION")).to_owned());
        encode_section(&mut block, &SectionInfo { hardware: None, os: None, application });
        out.write_all(&block)?;
        Ok(Self { out, interfaces: Vec::new(), block })
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
        encode_interface(&mut self.block, &interface);
        self.interfaces.push(interface);
        self.interfaces.len() - 1
    }
}

impl Output for Pcapng<'_> {
    fn packet(&mut self, source: &Source, packet: &PacketRecord<'_>) -> Result<(), OutputError> {
        self.block.clear();
        let id = self.interface(&source.interface);
        let id = u32::try_from(id).map_err(std::io::Error::other)?;
        encode_packet_on(&mut self.block, id, &PacketRecord { dropped: 0, ..*packet });
        Ok(self.out.write_all(&self.block)?)
    }

    fn finish(&mut self) -> Result<(), OutputError> {
        if self.interfaces.is_empty() {
            // Without an interface libpcap refuses the file; an empty answer is to open, too.
            self.block.clear();
            let none = InterfaceInfo::named("", LinkType::ETHERNET);
            encode_interface(&mut self.block, &none);
            self.out.write_all(&self.block)?;
        }
        Ok(self.out.flush()?)
    }

    fn has_several_link_types(&self) -> bool {
        self.interfaces
            .iter()
            .skip(1)
            .any(|i| Some(i.link_type) != self.interfaces.first().map(|f| f.link_type))
    }
}
