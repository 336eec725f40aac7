//! The forms of an answer. An output gets packets in order and writes them; it knows no filter.
//!
//! Nothing here decides which packets come. On an error the caller throws the output away.

use std::io::{self, Write};
use tapedeck_index::pcapng::{InterfaceInfo, PacketRecord};
use tapedeck_packet::{LinkType, Timestamp};

pub mod json;
pub mod pcap;
pub mod pcapng;
pub mod target;
pub mod text;

/// Where a packet of the answer was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// The interface, as its segment describes it.
    pub interface: InterfaceInfo,
    /// Queue of the interface.
    pub queue: u32,
    /// The recording sensor.
    pub sensor: String,
}

/// An answer that cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// The operating system refused.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// A pcap file has one link type.
    #[error("the packets have several link types ({first} and {other}), a pcap file holds one")]
    LinkTypes {
        /// Link type in the file's header.
        first: LinkType,
        /// Link type of the packet that does not fit.
        other: LinkType,
    },
    /// Seconds beyond 32 bits.
    #[error("a packet of {ts} is beyond the year 2106, where pcap ends")]
    PcapTime {
        /// The packet's time.
        ts: Timestamp,
    },
}

impl OutputError {
    /// Did the reader of a pipe go away? That is no failure.
    #[must_use]
    pub fn is_closed_pipe(&self) -> bool {
        matches!(self, Self::Io(e) if e.kind() == io::ErrorKind::BrokenPipe)
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Io(e) => write_hint(e),
            Self::LinkTypes { .. } => {
                Some("pcapng holds them all: use --format pcapng or a name ending in .pcapng")
            }
            Self::PcapTime { .. } => Some("pcapng reaches further: use --format pcapng"),
        }
    }
}

/// What to do about a file, or stdout, that cannot be written.
#[must_use]
pub fn write_hint(error: &io::Error) -> Option<&'static str> {
    use io::ErrorKind as E;
    Some(match error.kind() {
        E::StorageFull | E::QuotaExceeded => "make room there, or write to a place that has some",
        E::IsADirectory => "-w names the file itself, such as case17.pcapng in that folder",
        E::NotFound | E::NotADirectory => "-w makes the file, not the folder it is in: make that first",
        E::PermissionDenied | E::ReadOnlyFilesystem => "name a file in a folder that you may write to",
        E::FileTooLarge => "a shorter range, a narrower filter or --limit makes less",
        _ => return None,
    })
}

/// Something that takes the packets of an answer.
pub trait Output {
    /// Takes the next packet.
    ///
    /// # Errors
    /// [`OutputError`]; the output is then worthless.
    fn packet(&mut self, source: &Source, packet: &PacketRecord<'_>) -> Result<(), OutputError>;

    /// Writes what is still to be written.
    ///
    /// # Errors
    /// As [`Output::packet`].
    fn finish(&mut self) -> Result<(), OutputError>;

    /// Several link types in one file: other programs may refuse it.
    fn has_several_link_types(&self) -> bool {
        false
    }
}

/// Counts, writes nothing.
#[derive(Debug, Default)]
pub struct CountOnly;

impl Output for CountOnly {
    fn packet(&mut self, _: &Source, _: &PacketRecord<'_>) -> Result<(), OutputError> {
        Ok(())
    }

    fn finish(&mut self) -> Result<(), OutputError> {
        Ok(())
    }
}

/// A place to write to that may be shared with nobody.
pub type Sink<'a> = Box<dyn Write + 'a>;

#[cfg(test)]
mod tests;
