//! An independent reader of captures, on the `pcap-parser` crate: what the round trip is judged by.

use pcap_parser::{Block, PcapBlockOwned, PcapError, create_reader};
use std::path::Path;

/// One packet as the reference reads it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct RefPacket {
    /// Nanoseconds since the epoch, rounded down.
    pub(crate) ts_ns: u128,
    /// `if_name`, or `if<N>` where the file gives none.
    pub(crate) interface: String,
    pub(crate) link_type: i32,
    pub(crate) orig_len: u32,
    pub(crate) bytes: Vec<u8>,
}

#[derive(Clone)]
struct Interface {
    name: String,
    link_type: i32,
    snaplen: u32,
    tsresol: u8,
    tsoffset: i64,
}

impl Interface {
    /// Units since the epoch to nanoseconds, by the interface's own resolution.
    fn nanos(&self, units: u64) -> u128 {
        let units = u128::from(units);
        let ns = if self.tsresol & 0x80 == 0 {
            let power = u32::from(self.tsresol);
            if power <= 9 { units * 10u128.pow(9 - power) } else { units / 10u128.pow(power - 9) }
        } else {
            (units * 1_000_000_000) >> (self.tsresol & 0x7f)
        };
        let offset = i128::from(self.tsoffset) * 1_000_000_000;
        u128::try_from(i128::try_from(ns).unwrap() + offset).unwrap_or(0)
    }
}

/// All whole packets of a capture file, in file order.
pub(crate) fn read(path: &Path) -> Vec<RefPacket> {
    let data = std::fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    read_bytes(&data)
}

/// All whole packets of a capture held in memory, in file order.
pub(crate) fn read_bytes(data: &[u8]) -> Vec<RefPacket> {
    let mut state = State::default();
    // The whole file fits the buffer, so an incomplete block means that the file is cut.
    let Ok(mut reader) = create_reader(data.len().max(64), data) else { return state.packets };
    loop {
        let consumed = match reader.next() {
            Ok((consumed, block)) => {
                state.block(&block);
                Some(consumed)
            }
            Err(PcapError::Incomplete(_)) => None,
            Err(_) => break,
        };
        match consumed {
            Some(consumed) => reader.consume(consumed),
            None if reader.reader_exhausted() || reader.refill().is_err() => break,
            None => {}
        }
    }
    state.packets
}

#[derive(Default)]
struct State {
    packets: Vec<RefPacket>,
    interfaces: Vec<Interface>,
    big_endian: bool,
    legacy: Option<(i32, u128)>,
}

impl State {
    fn block(&mut self, block: &PcapBlockOwned<'_>) {
        match block {
            PcapBlockOwned::LegacyHeader(h) => {
                let unit = if h.is_nanosecond_precision() { 1 } else { 1_000 };
                // The upper bits are flags (FCS length), not the type.
                self.legacy = Some((h.network.0 & 0xffff, unit));
            }
            PcapBlockOwned::Legacy(b) => {
                let (link_type, unit) = self.legacy.unwrap();
                self.packets.push(RefPacket {
                    ts_ns: u128::from(b.ts_sec) * 1_000_000_000 + u128::from(b.ts_usec) * unit,
                    interface: "if0".into(),
                    link_type,
                    orig_len: b.origlen,
                    bytes: b.data.get(..b.caplen as usize).unwrap().to_vec(),
                });
            }
            PcapBlockOwned::NG(block) => self.ng(block),
        }
    }

    fn ng(&mut self, block: &Block<'_>) {
        match block {
            Block::SectionHeader(section) => {
                self.interfaces.clear();
                self.big_endian = section.big_endian();
            }
            Block::InterfaceDescription(idb) => {
                let name = match idb.if_name() {
                    Some(Ok(name)) if !name.trim_end_matches('\0').is_empty() => {
                        name.trim_end_matches('\0').to_owned()
                    }
                    _ => format!("if{}", self.interfaces.len()),
                };
                self.interfaces.push(Interface {
                    name,
                    link_type: idb.linktype.0,
                    snaplen: idb.snaplen,
                    tsresol: idb.if_tsresol,
                    tsoffset: idb.if_tsoffset,
                });
            }
            Block::EnhancedPacket(epb) => {
                let interface = self.interfaces.get(epb.if_id as usize).unwrap().clone();
                let units = (u64::from(epb.ts_high) << 32) | u64::from(epb.ts_low);
                let bytes = epb.data.get(..epb.caplen as usize).unwrap().to_vec();
                self.push(&interface, interface.nanos(units), epb.origlen, bytes);
            }
            Block::SimplePacket(spb) => {
                let interface = self.interfaces.first().unwrap().clone();
                let limit = if interface.snaplen == 0 { u32::MAX } else { interface.snaplen };
                let kept = spb.origlen.min(limit) as usize;
                let bytes = spb.data.get(..kept).unwrap().to_vec();
                self.push(&interface, 0, spb.origlen, bytes);
            }
            // The crate gives the type of an unknown block in the file's byte order.
            Block::Unknown(unknown) if matches!(unknown.block_type, 2 | 0x0200_0000) => {
                self.obsolete(unknown.data);
            }
            _ => {}
        }
    }

    /// The obsolete Packet Block (draft-ietf-opsawg-pcapng, appendix A), which the crate leaves alone.
    fn obsolete(&mut self, data: &[u8]) {
        let big_endian = self.big_endian;
        let u32_at = |at: usize| {
            let word = data.get(at..at + 4).unwrap().try_into().unwrap();
            if big_endian { u32::from_be_bytes(word) } else { u32::from_le_bytes(word) }
        };
        let number = if big_endian { u32_at(0) >> 16 } else { u32_at(0) & 0xffff };
        let interface = self.interfaces.get(number as usize).unwrap().clone();
        let units = (u64::from(u32_at(4)) << 32) | u64::from(u32_at(8));
        let bytes = data.get(20..20 + u32_at(12) as usize).unwrap().to_vec();
        self.push(&interface, interface.nanos(units), u32_at(16), bytes);
    }

    fn push(&mut self, interface: &Interface, ts_ns: u128, orig_len: u32, bytes: Vec<u8>) {
        self.packets.push(RefPacket {
            ts_ns,
            interface: interface.name.clone(),
            link_type: interface.link_type,
            orig_len,
            bytes,
        });
    }
}

/// The order an answer stands in: time, interface in order of name, arrival.
pub(crate) fn answer_order(mut packets: Vec<RefPacket>) -> Vec<RefPacket> {
    packets.sort_by(|a, b| (a.ts_ns, &a.interface).cmp(&(b.ts_ns, &b.interface)));
    packets
}
