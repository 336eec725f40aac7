//! The pcapng blocks of a segment: encode and decode (draft-ietf-opsawg-pcapng).
//!
//! Only the profile of docs/format.md: little-endian, one interface, nanoseconds. Captures of other
//! programs are read by `capture_file`. Must never allocate per packet.

use tapedeck_packet::{LinkType, Timestamp};

mod decode;
mod encode;
#[cfg(test)]
mod tests;

pub use decode::{Block, BlockError, BlockProblem, Blocks};
pub use encode::{
    encode_interface, encode_packet, encode_packet_on, encode_section, encode_statistics,
    encode_statistics_on, packet_block_len,
};

/// Longest packet an Enhanced Packet Block of ours holds, bytes: libpcap refuses blocks over 16 MiB,
/// and 64 bytes cover the block's own fields, padding and options.
pub const PACKET_BYTES_MAX: usize = 16 * 1024 * 1024 - 64;

/// Block type of a Section Header Block.
pub(crate) const SECTION: u32 = 0x0A0D_0D0A;
/// Block type of an Interface Description Block.
pub(crate) const INTERFACE: u32 = 1;
/// Block type of an Interface Statistics Block.
pub(crate) const STATISTICS: u32 = 5;
/// Block type of an Enhanced Packet Block.
pub(crate) const PACKET: u32 = 6;
/// Byte-order magic of a section, as its writer sees it.
pub(crate) const BYTE_ORDER: u32 = 0x1A2B_3C4D;

/// Option codes, by block. Options stand in ascending order of their code.
pub(crate) mod option {
    pub(crate) const END: u16 = 0;
    pub(crate) const SHB_HARDWARE: u16 = 2;
    pub(crate) const SHB_OS: u16 = 3;
    pub(crate) const SHB_USERAPPL: u16 = 4;
    pub(crate) const IF_NAME: u16 = 2;
    pub(crate) const IF_DESCRIPTION: u16 = 3;
    pub(crate) const IF_SPEED: u16 = 8;
    pub(crate) const IF_TSRESOL: u16 = 9;
    pub(crate) const IF_FILTER: u16 = 11;
    pub(crate) const IF_HARDWARE: u16 = 15;
    pub(crate) const EPB_FLAGS: u16 = 2;
    pub(crate) const EPB_DROPCOUNT: u16 = 4;
    pub(crate) const ISB_IFRECV: u16 = 4;
    pub(crate) const ISB_IFDROP: u16 = 5;
    pub(crate) const ISB_OSDROP: u16 = 7;
    pub(crate) const ISB_USRDELIV: u16 = 8;
}

/// `if_tsresol` of every segment: nanoseconds.
pub(crate) const TSRESOL_NANOS: u8 = 9;

/// What the Section Header Block says about who wrote it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SectionInfo {
    /// `shb_hardware`.
    pub hardware: Option<String>,
    /// `shb_os`.
    pub os: Option<String>,
    /// `shb_userappl`, e.g. `tapedeck 0.1.0`.
    pub application: Option<String>,
}

/// What the one Interface Description Block of a segment says.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InterfaceInfo {
    /// `if_name`; the true name, never escaped. Empty = no option.
    pub name: String,
    /// Link type.
    pub link_type: LinkType,
    /// Longest packet kept, bytes; 0 = no limit.
    pub snaplen: u32,
    /// `if_description`: queue and mode.
    pub description: Option<String>,
    /// `if_filter`, as text.
    pub filter: Option<String>,
    /// `if_hardware`.
    pub hardware: Option<String>,
    /// `if_speed`, bits per second.
    pub speed_bps: Option<u64>,
}

impl InterfaceInfo {
    /// An interface of which nothing more is known.
    #[must_use]
    pub fn named(name: impl Into<String>, link_type: LinkType) -> Self {
        Self {
            name: name.into(),
            link_type,
            snaplen: 0,
            description: None,
            filter: None,
            hardware: None,
            speed_bps: None,
        }
    }
}

/// Counters of an Interface Statistics Block, cumulative since the run began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// `isb_ifrecv`: packets the interface delivered to us.
    pub received: u64,
    /// `isb_ifdrop`: lost by the interface before us.
    pub interface_dropped: u64,
    /// `isb_osdrop`: lost between the program and the recorder.
    pub os_dropped: u64,
    /// `isb_usrdeliv`: packets written.
    pub delivered: u64,
}

/// A packet as it stands in an Enhanced Packet Block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PacketRecord<'a> {
    /// Time of arrival.
    pub ts: Timestamp,
    /// The bytes kept; at most [`PACKET_BYTES_MAX`], the encoder cuts longer ones.
    pub bytes: &'a [u8],
    /// Length on the wire, bytes.
    pub orig_len: u32,
    /// `epb_dropcount`: packets known to be lost between the one before and this one; 0 = no option.
    pub dropped: u64,
    /// `epb_flags`, where known.
    pub flags: Option<u32>,
}
