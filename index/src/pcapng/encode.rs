//! Blocks to bytes. Every encoder appends to a `Vec` that the caller reuses.

use super::{
    BYTE_ORDER, Counters, INTERFACE, InterfaceInfo, PACKET, PACKET_BYTES_MAX, PacketRecord, SECTION,
    STATISTICS, SectionInfo, TSRESOL_NANOS, option,
};
use crate::bytes::len32;
use tapedeck_packet::Timestamp;

/// Bytes of an Enhanced Packet Block before the packet's own.
const PACKET_HEAD: usize = 28;
/// Length of the option area of a block that has options, without the options: `opt_endofopt`.
const OPTIONS_END: usize = 4;
/// An `epb_flags` option, whole.
const FLAGS_OPTION: usize = 8;
/// An `epb_dropcount` option, whole.
const DROPCOUNT_OPTION: usize = 12;

const _: () = assert!(
    PACKET_HEAD + PACKET_BYTES_MAX + 3 + FLAGS_OPTION + DROPCOUNT_OPTION + OPTIONS_END + 4
        <= 16 * 1024 * 1024
);

/// Appends a Section Header Block: little-endian, version 1.0, section length not given (-1).
/// Texts over 65,535 bytes are cut, as in every option.
pub fn encode_section(out: &mut Vec<u8>, section: &SectionInfo) {
    block(out, SECTION, |out| {
        out.extend_from_slice(&BYTE_ORDER.to_le_bytes());
        out.extend_from_slice(&[1, 0, 0, 0]);
        out.extend_from_slice(&u64::MAX.to_le_bytes());
        let start = out.len();
        text(out, option::SHB_HARDWARE, section.hardware.as_deref());
        text(out, option::SHB_OS, section.os.as_deref());
        text(out, option::SHB_USERAPPL, section.application.as_deref());
        end_options(out, start);
    });
}

/// Appends an Interface Description Block with `if_tsresol` 9. Its id is the number of Interface
/// Description Blocks before it in the section.
pub fn encode_interface(out: &mut Vec<u8>, interface: &InterfaceInfo) {
    block(out, INTERFACE, |out| {
        out.extend_from_slice(&interface.link_type.0.to_le_bytes());
        out.extend_from_slice(&[0, 0]);
        out.extend_from_slice(&interface.snaplen.to_le_bytes());
        let start = out.len();
        text(out, option::IF_NAME, Some(interface.name.as_str()).filter(|name| !name.is_empty()));
        text(out, option::IF_DESCRIPTION, interface.description.as_deref());
        if let Some(speed) = interface.speed_bps {
            put_option(out, option::IF_SPEED, &[&speed.to_le_bytes()]);
        }
        put_option(out, option::IF_TSRESOL, &[&[TSRESOL_NANOS]]);
        if let Some(filter) = &interface.filter {
            // The first byte says what follows: 0 = the text of a libpcap filter.
            put_option(out, option::IF_FILTER, &[&[0], cut_text(filter, usize::from(u16::MAX) - 1)]);
        }
        text(out, option::IF_HARDWARE, interface.hardware.as_deref());
        end_options(out, start);
    });
}

/// Appends an Interface Statistics Block of interface 0 with all four counters.
pub fn encode_statistics(out: &mut Vec<u8>, ts: Timestamp, counters: &Counters) {
    encode_statistics_on(out, 0, ts, counters);
}

/// As [`encode_statistics`], for any interface of an exported file.
pub fn encode_statistics_on(out: &mut Vec<u8>, interface: u32, ts: Timestamp, counters: &Counters) {
    block(out, STATISTICS, |out| {
        out.extend_from_slice(&interface.to_le_bytes());
        let (high, low) = halves(ts.nanos());
        out.extend_from_slice(&high.to_le_bytes());
        out.extend_from_slice(&low.to_le_bytes());
        let start = out.len();
        for (code, value) in [
            (option::ISB_IFRECV, counters.received),
            (option::ISB_IFDROP, counters.interface_dropped),
            (option::ISB_OSDROP, counters.os_dropped),
            (option::ISB_USRDELIV, counters.delivered),
        ] {
            put_option(out, code, &[&value.to_le_bytes()]);
        }
        end_options(out, start);
    });
}

/// Bytes that [`encode_packet`] appends for `packet`: a multiple of 4, at most 16 MiB.
#[must_use]
pub fn packet_block_len(packet: &PacketRecord<'_>) -> usize {
    let kept = packet.bytes.len().min(PACKET_BYTES_MAX);
    PACKET_HEAD + kept.next_multiple_of(4) + options_len(packet) + 4
}

/// Appends an Enhanced Packet Block of interface 0. One copy of the packet's bytes; no allocation
/// when `out` has [`packet_block_len`] bytes of spare capacity.
pub fn encode_packet(out: &mut Vec<u8>, packet: &PacketRecord<'_>) {
    encode_packet_on(out, 0, packet);
}

/// As [`encode_packet`], for any interface of an exported file.
#[inline]
pub fn encode_packet_on(out: &mut Vec<u8>, interface: u32, packet: &PacketRecord<'_>) {
    let bytes = packet.bytes.get(..PACKET_BYTES_MAX).unwrap_or(packet.bytes);
    let total = packet_block_len(packet);
    out.reserve(total);
    let (high, low) = halves(packet.ts.nanos());
    let words = [PACKET, len32(total), interface, high, low, len32(bytes.len()), packet.orig_len];
    let mut head = [0u8; PACKET_HEAD];
    for (slot, word) in head.chunks_exact_mut(4).zip(words) {
        slot.copy_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&head);
    out.extend_from_slice(bytes);
    let pad = bytes.len().next_multiple_of(4) - bytes.len();
    if packet.flags.is_none() && packet.dropped == 0 {
        // Padding and the closing length in one store: at most 3 + 4 bytes.
        let tail = (u64::from(len32(total)) << (8 * pad)).to_le_bytes();
        out.extend_from_slice(tail.get(..pad + 4).unwrap_or_default());
        return;
    }
    out.resize(out.len() + pad, 0);
    if let Some(flags) = packet.flags {
        put_option(out, option::EPB_FLAGS, &[&flags.to_le_bytes()]);
    }
    if packet.dropped != 0 {
        put_option(out, option::EPB_DROPCOUNT, &[&packet.dropped.to_le_bytes()]);
    }
    out.extend_from_slice(&[0; OPTIONS_END]);
    out.extend_from_slice(&len32(total).to_le_bytes());
}

/// Bytes of the option area of a packet's block.
fn options_len(packet: &PacketRecord<'_>) -> usize {
    let flags = if packet.flags.is_some() { FLAGS_OPTION } else { 0 };
    let dropped = if packet.dropped != 0 { DROPCOUNT_OPTION } else { 0 };
    if flags + dropped == 0 { 0 } else { flags + dropped + OPTIONS_END }
}

/// Upper and lower half of a timestamp, the order in which pcapng stores it.
fn halves(nanos: u64) -> (u32, u32) {
    let [a, b, c, d, e, f, g, h] = nanos.to_be_bytes();
    (u32::from_be_bytes([a, b, c, d]), u32::from_be_bytes([e, f, g, h]))
}

/// A block around what `body` appends; `body` keeps to multiples of four bytes.
fn block(out: &mut Vec<u8>, kind: u32, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&kind.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    body(out);
    let total = len32(out.len() - start + 4).to_le_bytes();
    if let Some(slot) = out.get_mut(start + 4..start + 8) {
        slot.copy_from_slice(&total);
    }
    out.extend_from_slice(&total);
}

/// `opt_endofopt`, if any option was written since `start`.
fn end_options(out: &mut Vec<u8>, start: usize) {
    if out.len() > start {
        put_option(out, option::END, &[]);
    }
}

fn text(out: &mut Vec<u8>, code: u16, value: Option<&str>) {
    if let Some(value) = value {
        put_option(out, code, &[cut_text(value, usize::from(u16::MAX))]);
    }
}

/// `text`, cut to `max` bytes at a character boundary.
fn cut_text(text: &str, max: usize) -> &[u8] {
    text.get(..text.floor_char_boundary(max)).unwrap_or_default().as_bytes()
}

/// One option whose value is the concatenation of `parts`: at most 65,535 bytes, padded to four.
fn put_option(out: &mut Vec<u8>, code: u16, parts: &[&[u8]]) {
    let len = parts.iter().map(|part| part.len()).sum::<usize>();
    out.extend_from_slice(&code.to_le_bytes());
    out.extend_from_slice(&u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes());
    for part in parts {
        out.extend_from_slice(part);
    }
    out.resize(out.len() + len.next_multiple_of(4) - len, 0);
}
