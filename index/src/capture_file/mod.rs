//! Captures that other programs wrote: pcap in all its dialects, pcapng, snoop, compressed or not.
//!
//! A reader streams: it holds one packet at a time and never allocates what a length field claims
//! before the bytes are there. Whatever is damaged or cut, all whole packets before it come out
//! first; the error behind them names the offset.

mod input;
mod pcap;
mod pcapng;
mod snoop;
#[cfg(test)]
mod tests;

use crate::pcapng::{InterfaceInfo, PacketRecord};
use input::Input;
use std::io::Read;
use tapedeck_packet::Timestamp;

/// Longest packet taken from a capture, bytes; libpcap refuses blocks over 16 MiB as well.
pub const PACKET_BYTES_MAX: u32 = 16 * 1024 * 1024 - 4096;

/// Refusals kept word by word; further ones are only counted.
const NOTES_MAX: usize = 3;

/// Why a capture could not be read on.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The bytes could not be read at all.
    #[error("reading failed at offset {offset}")]
    Io {
        /// Offset in the (uncompressed) capture.
        offset: u64,
        /// What the system or the decompressor said.
        #[source]
        source: std::io::Error,
    },
    /// None of the formats we know.
    #[error("not a capture file: offset 0 holds {got}, expected the magic number of pcap, pcapng or snoop")]
    Foreign {
        /// The first bytes, in hexadecimal.
        got: String,
    },
    /// The file ends inside a header, block or packet.
    #[error("the file is cut short: {what} at offset {offset} needs {needed} bytes, {left} are left")]
    Cut {
        /// What was being read.
        what: &'static str,
        /// Where it begins, in the uncompressed capture.
        offset: u64,
        /// Bytes it needs.
        needed: u64,
        /// Bytes that are there.
        left: u64,
    },
    /// A value that cannot be true.
    #[error("damaged at offset {offset}: {what} is {got}, expected {expected}")]
    Damaged {
        /// What was being read.
        what: &'static str,
        /// Where it lies, in the uncompressed capture.
        offset: u64,
        /// The value found.
        got: u64,
        /// What it should be.
        expected: &'static str,
    },
}

/// A packet of a foreign capture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForeignPacket<'a> {
    /// Index into [`CaptureReader::interfaces`].
    pub interface: usize,
    /// Offset of its record or block in the uncompressed capture.
    pub offset: u64,
    /// Time, bytes, length.
    pub record: PacketRecord<'a>,
}

/// Packets of an interface that were refused because of their time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Refused {
    /// How many.
    pub packets: u64,
    /// Their bytes on the wire.
    pub bytes: u64,
}

/// What a reader noticed without stopping.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Notes {
    /// Packets refused because their time is before 1970 or at 2^63 ns and beyond.
    pub refused: u64,
    /// Offset and time, in words, of the first refused packets.
    pub refusals: Vec<String>,
    /// Packets whose time is finer than a nanosecond and was rounded down.
    pub rounded: u64,
}

/// Reads one capture file from any source of bytes.
pub struct CaptureReader<'r> {
    input: Input<'r>,
    format: Format,
    interfaces: Vec<InterfaceInfo>,
    notes: Notes,
    refused: Vec<Refused>,
    /// The packet stepped to; its bytes lie at the front of the input until the next step.
    current: Option<(Found, Timestamp)>,
}

enum Format {
    Pcap(pcap::Dialect),
    Pcapng(pcapng::Section),
    Snoop,
}

/// Where a packet's bytes lie in the input's buffer, and what its header said.
struct Found {
    interface: usize,
    offset: u64,
    /// Nanoseconds since the epoch, not yet checked; negative through `if_tsoffset`.
    nanos: i128,
    rounded: bool,
    orig_len: u32,
    dropped: u64,
    flags: Option<u32>,
    /// Range of the packet's bytes inside the current item.
    bytes: std::ops::Range<usize>,
    /// Bytes of the whole item: record or block.
    item: usize,
}

impl<'r> CaptureReader<'r> {
    /// Looks at the first bytes, unpacks gzip, zstd and lz4, and reads the file header.
    ///
    /// # Errors
    /// Not a capture, or cut inside its header.
    pub fn open(source: impl Read + 'r) -> Result<Self, CaptureError> {
        let mut input = Input::open(Box::new(source))?;
        input.want(4)?;
        let mut interfaces = Vec::new();
        let format = match input.bytes() {
            [0x0a, 0x0d, 0x0d, 0x0a, ..] => Format::Pcapng(pcapng::Section::default()),
            [b's', b'n', b'o', b'o', ..] => {
                interfaces.push(snoop::header(&mut input)?);
                Format::Snoop
            }
            bytes => match pcap::Dialect::of(bytes) {
                Some(dialect) => {
                    let (dialect, interface) = dialect.header(&mut input)?;
                    interfaces.push(interface);
                    Format::Pcap(dialect)
                }
                None => return Err(foreign(bytes)),
            },
        };
        let mut reader =
            Self { input, format, interfaces, notes: Notes::default(), refused: Vec::new(), current: None };
        if let Format::Pcapng(section) = &mut reader.format {
            section.begin(&mut reader.input)?;
        }
        Ok(reader)
    }

    /// Steps to the next packet; false at the end of the capture.
    ///
    /// # Errors
    /// The capture is cut or damaged here. There is nothing to read behind an error.
    pub fn advance(&mut self) -> Result<bool, CaptureError> {
        loop {
            if let Some((found, _)) = self.current.take() {
                self.input.consume(found.item);
            }
            let found = match &mut self.format {
                Format::Pcap(dialect) => dialect.next(&mut self.input)?,
                Format::Pcapng(section) => section.next(&mut self.input, &mut self.interfaces)?,
                Format::Snoop => snoop::next(&mut self.input)?,
            };
            let Some(found) = found else { return Ok(false) };
            match u64::try_from(found.nanos).ok().and_then(Timestamp::from_nanos) {
                Some(ts) => {
                    self.notes.rounded += u64::from(found.rounded);
                    self.current = Some((found, ts));
                    return Ok(true);
                }
                None => {
                    self.refuse(&found);
                    self.input.consume(found.item);
                }
            }
        }
    }

    /// The packet that [`CaptureReader::advance`] stepped to; `None` before the first and behind the last.
    #[must_use]
    pub fn packet(&self) -> Option<ForeignPacket<'_>> {
        let (found, ts) = self.current.as_ref()?;
        let bytes = self.input.bytes().get(found.bytes.clone()).unwrap_or_default();
        let Found { interface, offset, orig_len, dropped, flags, .. } = *found;
        Some(ForeignPacket {
            interface,
            offset,
            record: PacketRecord { ts: *ts, bytes, orig_len, dropped, flags },
        })
    }

    /// What was refused so far, by interface; shorter than [`CaptureReader::interfaces`] where nothing was.
    #[must_use]
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }

    /// The interfaces described so far, over all sections, in file order. Grows while reading.
    #[must_use]
    pub fn interfaces(&self) -> &[InterfaceInfo] {
        &self.interfaces
    }

    fn refuse(&mut self, found: &Found) {
        if self.refused.len() <= found.interface {
            self.refused.resize(found.interface + 1, Refused::default());
        }
        if let Some(refused) = self.refused.get_mut(found.interface) {
            refused.packets += 1;
            refused.bytes += u64::from(found.orig_len);
        }
        self.notes.refused += 1;
        if self.notes.refusals.len() < NOTES_MAX {
            let Found { offset, nanos, .. } = found;
            self.notes.refusals.push(format!("packet at offset {offset}: time {nanos} ns"));
        }
    }

    /// What was noticed so far.
    #[must_use]
    pub fn notes(&self) -> &Notes {
        &self.notes
    }

    /// Bytes of the uncompressed capture read so far.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.input.offset()
    }
}

impl std::fmt::Debug for CaptureReader<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("CaptureReader").field("interfaces", &self.interfaces).finish_non_exhaustive()
    }
}

/// An interface that the file does not name is `if<N>`, by its number in its section.
fn unnamed(number: usize) -> String {
    format!("if{number}")
}

fn foreign(bytes: &[u8]) -> CaptureError {
    let got: Vec<String> = bytes.iter().take(8).map(|b| format!("{b:02x}")).collect();
    CaptureError::Foreign { got: if got.is_empty() { "nothing".into() } else { got.join(" ") } }
}
