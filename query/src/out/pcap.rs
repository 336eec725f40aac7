//! Classic pcap: nanoseconds, or microseconds for tools that know nothing else.

use super::{Output, OutputError, Sink, Source};
use tapedeck_index::pcapng::PacketRecord;
use tapedeck_packet::LinkType;
use tapedeck_packet::time::NANOS_PER_SEC;

/// Magic number of a file with nanoseconds.
const MAGIC_NANOS: u32 = 0xA1B2_3C4D;
/// Magic number of a file with microseconds.
const MAGIC_MICROS: u32 = 0xA1B2_C3D4;
/// What tcpdump writes; readers cut packets to it, so never the interface's own.
const SNAPLEN: u32 = 262_144;

/// Writes pcap.
pub struct Pcap<'a> {
    out: Sink<'a>,
    micros: bool,
    link_type: Option<LinkType>,
}

impl<'a> Pcap<'a> {
    /// A file that begins with its first packet, which gives the link type.
    #[must_use]
    pub fn new(out: Sink<'a>, micros: bool) -> Self {
        Self { out, micros, link_type: None }
    }

    fn header(&mut self, link_type: LinkType) -> Result<(), OutputError> {
        let magic = if self.micros { MAGIC_MICROS } else { MAGIC_NANOS };
        self.out.write_all(&magic.to_le_bytes())?;
        // Version 2.4, then time zone and accuracy, which everyone leaves 0.
        self.out.write_all(&[2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0])?;
        self.out.write_all(&SNAPLEN.to_le_bytes())?;
        self.out.write_all(&u32::from(link_type.0).to_le_bytes())?;
        self.link_type = Some(link_type);
        Ok(())
    }
}

impl Output for Pcap<'_> {
    fn packet(&mut self, source: &Source, packet: &PacketRecord<'_>) -> Result<(), OutputError> {
        let other = source.interface.link_type;
        match self.link_type {
            None => self.header(other)?,
            Some(first) if first != other => return Err(OutputError::LinkTypes { first, other }),
            Some(_) => {}
        }
        let nanos = packet.ts.nanos();
        let seconds =
            u32::try_from(nanos / NANOS_PER_SEC).map_err(|_| OutputError::PcapTime { ts: packet.ts })?;
        let fraction = nanos % NANOS_PER_SEC / if self.micros { 1_000 } else { 1 };
        let fraction = u32::try_from(fraction).map_err(std::io::Error::other)?;
        let kept = u32::try_from(packet.bytes.len()).map_err(std::io::Error::other)?;
        let mut head = [0; 16];
        for (slot, word) in head.chunks_exact_mut(4).zip([seconds, fraction, kept, packet.orig_len]) {
            slot.copy_from_slice(&word.to_le_bytes());
        }
        self.out.write_all(&head)?;
        Ok(self.out.write_all(packet.bytes)?)
    }

    fn finish(&mut self) -> Result<(), OutputError> {
        if self.link_type.is_none() {
            self.header(LinkType::ETHERNET)?;
        }
        Ok(self.out.flush()?)
    }
}
