//! The pcapng blocks of a segment: encode and decode (draft-ietf-opsawg-pcapng).
//!
//! Only the profile of docs/format.md: little-endian, one interface, nanoseconds. Captures of other
//! programs are read by `capture_file`.

use tapedeck_packet::{LinkType, Timestamp};

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
    /// `if_name`; the true name, never escaped.
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
    /// The bytes kept.
    pub bytes: &'a [u8],
    /// Length on the wire, bytes.
    pub orig_len: u32,
    /// `epb_dropcount`: packets known to be lost between the one before and this one; 0 = no option.
    pub dropped: u64,
    /// `epb_flags`, where known.
    pub flags: Option<u32>,
}
