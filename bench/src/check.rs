//! Which of the numbered packets are on disk: each once, none twice, in order. Whatever a recorder says of itself plays
//! no part in it.

use crate::stored;
use anyhow::{Context as _, Result};
use std::fs::File;
use std::io::Read as _;
use std::path::Path;
use tapedeck_ebpf::replay::number_of;
use tapedeck_index::capture_file::CaptureReader;

/// A block of stenotype's files (stenotype/README.md: blocks of the kernel's TPACKET_V3 ring as they are).
const BLOCK: usize = 1 << 20;

/// The packets of each lane that were found.
#[derive(Debug)]
pub struct Tally {
    lanes: Vec<Lane>,
    /// Packets found whose number was sent.
    pub found: u64,
    /// Found again.
    pub twice: u64,
    /// Behind one of a higher number.
    pub out_of_order: u64,
    /// Without a number of ours.
    pub strangers: u64,
    /// With a number that was never sent.
    pub never_sent: u64,
}

#[derive(Debug)]
struct Lane {
    sent: u64,
    seen: Vec<u64>,
    /// The highest number so far, per file or queue.
    highest: Vec<Option<u64>>,
}

impl Tally {
    /// Of lanes that have sent so many packets each.
    ///
    /// # Errors
    /// More than fit into memory.
    pub fn new(sent: &[u64]) -> Result<Self> {
        let lane = |sent: &u64| {
            let words = usize::try_from(sent.div_ceil(64)).context("too many packets")?;
            Ok(Lane { sent: *sent, seen: vec![0; words], highest: Vec::new() })
        };
        let lanes = sent.iter().map(lane).collect::<Result<_>>()?;
        Ok(Self { lanes, found: 0, twice: 0, out_of_order: 0, strangers: 0, never_sent: 0 })
    }

    /// Notes a packet from disk; `place` is the queue or file in which packets stand in order.
    pub fn note(&mut self, place: usize, packet: &[u8]) {
        let Some((lane, number)) = number_of(packet) else {
            self.strangers += 1;
            return;
        };
        let lane = self.lanes.get_mut(usize::from(lane)).filter(|lane| number < lane.sent);
        let word = usize::try_from(number / 64).unwrap_or(usize::MAX);
        let Some((lane, bit)) = lane.map(|lane| (lane, 1_u64 << (number % 64))) else {
            self.never_sent += 1;
            return;
        };
        let Some(seen) = lane.seen.get_mut(word) else { return };
        if *seen & bit != 0 {
            self.twice += 1;
            return;
        }
        *seen |= bit;
        self.found += 1;
        if lane.highest.len() <= place {
            lane.highest.resize(place + 1, None);
        }
        if let Some(highest) = lane.highest.get_mut(place) {
            self.out_of_order += u64::from(highest.is_some_and(|highest| number < highest));
            *highest = (*highest).max(Some(number));
        }
    }

    /// All sealed segments of a store, in the order in which they were written.
    ///
    /// # Errors
    /// As [`stored::packets`].
    pub fn store(&mut self, store: &Path) -> Result<()> {
        stored::packets(store, &mut |found, packet| {
            self.note(usize::try_from(found.name.queue)?, packet.bytes);
            Ok(())
        })
    }

    /// A capture file. One that ends within a packet holds those before.
    ///
    /// # Errors
    /// It is none, or damaged.
    pub fn capture(&mut self, path: &Path) -> Result<()> {
        let named = || path.display().to_string();
        let mut reader = CaptureReader::open(File::open(path).with_context(named)?).with_context(named)?;
        loop {
            match reader.advance() {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                Err(error) if cut_at_end(&reader, path) => {
                    tell(path, &error);
                    return Ok(());
                }
                Err(error) => return Err(error).with_context(named),
            }
            if let Some(packet) = reader.packet() {
                self.note(0, packet.record.bytes);
            }
        }
    }

    /// A file of stenotype: blocks of a TPACKET_V3 ring.
    ///
    /// # Errors
    /// It cannot be read, or is none.
    pub fn ring_blocks(&mut self, place: usize, path: &Path) -> Result<()> {
        let named = || path.display().to_string();
        let mut file = File::open(path).with_context(named)?;
        let mut block = Vec::with_capacity(BLOCK);
        loop {
            block.clear();
            file.by_ref().take(BLOCK as u64).read_to_end(&mut block).with_context(named)?;
            if block.is_empty() {
                return Ok(());
            }
            self.ring_block(place, &block).with_context(named)?;
        }
    }

    /// One block (linux/if_packet.h: tpacket_block_desc, tpacket3_hdr), which a preallocated file may have none of.
    fn ring_block(&mut self, place: usize, block: &[u8]) -> Result<()> {
        let word = |at: usize| -> Result<u32> {
            let bytes = block.get(at..).and_then(<[u8]>::first_chunk::<4>).context("a block is cut")?;
            Ok(u32::from_le_bytes(*bytes))
        };
        let (packets, mut at) = (word(12)?, usize::try_from(word(16)?)?);
        for _ in 0..packets {
            let (next, len) = (usize::try_from(word(at)?)?, usize::try_from(word(at + 12)?)?);
            let [low, high, ..] = word(at + 24)?.to_le_bytes();
            let from = at + usize::from(u16::from_le_bytes([low, high]));
            self.note(place, block.get(from..from + len).context("a packet is cut")?);
            at += next;
        }
        Ok(())
    }
}

fn cut_at_end(reader: &CaptureReader<'_>, path: &Path) -> bool {
    // A packet is at most a few pages long: what is damaged further ahead is no end.
    let len = path.metadata().map_or(0, |about| about.len());
    len.saturating_sub(reader.offset()) < 1 << 18
}

fn tell(path: &Path, error: &dyn std::error::Error) {
    let _ = std::io::Write::write_all(
        &mut std::io::stderr(),
        format!("note: {}: {error}; the packets before count\n", path.display()).as_bytes(),
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use tapedeck_ebpf::replay::Template;

    fn numbered(lane: u8, number: u64) -> Vec<u8> {
        let (template, mut out) = (Template { bytes: vec![0; 60], ..Template::default() }, Vec::new());
        template.frame(lane, number, 0, &mut out);
        out
    }

    #[test]
    fn each_number_counts_once_and_order_is_that_of_its_place() {
        let mut tally = Tally::new(&[100, 10]).unwrap();
        for (place, lane, number) in [
            (0, 0, 0),
            (0, 0, 2),
            (0, 0, 1),
            (1, 0, 50),
            (0, 0, 3),
            (0, 0, 3),
            (0, 1, 9),
            (0, 1, 10),
            (0, 2, 0),
        ] {
            tally.note(place, &numbered(lane, number));
        }
        tally.note(0, &[0; 60]);
        assert_eq!((tally.found, tally.twice, tally.out_of_order), (6, 1, 1), "{tally:?}");
        assert_eq!((tally.never_sent, tally.strangers), (2, 1));
    }

    #[test]
    fn blocks_of_a_ring_are_walked() {
        let mut block = vec![0; 4_096];
        let mut put = |at: usize, bytes: &[u8]| block[at..at + bytes.len()].copy_from_slice(bytes);
        put(12, &2_u32.to_le_bytes());
        put(16, &48_u32.to_le_bytes());
        for (number, at) in [(0, 48), (1, 208)] {
            put(at, &160_u32.to_le_bytes());
            put(at + 12, &60_u32.to_le_bytes());
            put(at + 24, &82_u16.to_le_bytes());
            put(at + 82, &numbered(0, number));
        }
        let mut tally = Tally::new(&[2]).unwrap();
        tally.ring_block(0, &block).unwrap();
        tally.ring_block(0, &[0; 4_096]).unwrap();
        assert_eq!((tally.found, tally.out_of_order, tally.strangers), (2, 0, 0));
        assert!(tally.ring_block(0, &block[..220]).is_err());
    }
}
