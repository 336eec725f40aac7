//! An AF_XDP socket as a worker's source.

use super::{Batch, XskSocket};
use crate::source::{PacketBatch, RawPacket, Source, SourceStats, Stamp};
use std::io;
use std::time::Duration;

impl PacketBatch for Batch<'_> {
    fn packets(&mut self) -> impl Iterator<Item = RawPacket<'_>> {
        Batch::packets(self).map(|packet| {
            let len = u32::try_from(packet.bytes.len()).unwrap_or(u32::MAX);
            RawPacket {
                stamp: packet.meta.map_or(Stamp::Missing, |meta| Stamp::Monotonic(meta.ktime_ns)),
                second: packet.meta.map(|meta| meta.second.into()),
                sequence: packet.meta.map(|meta| meta.sequence),
                filter: packet.meta.map_or(0, |meta| meta.filter_generation()),
                bytes: packet.bytes,
                orig_len: packet.meta.map_or(len, |meta| meta.length),
            }
        })
    }
}

impl Source for XskSocket {
    type Batch<'a> = Batch<'a>;

    fn peek(&mut self, max: u32) -> Batch<'_> {
        Self::peek(self, max)
    }

    fn wait(&mut self, timeout: Duration) -> io::Result<()> {
        Self::wait(self, timeout)
    }

    fn waiting_percent(&self) -> u32 {
        Self::waiting_percent(self)
    }

    fn stats(&mut self) -> io::Result<SourceStats> {
        let stats = Self::stats(self)?;
        Ok(SourceStats {
            seen: 0,
            ring_full: stats.rx_ring_full,
            dropped: stats.rx_dropped,
            misfits: self.misfits(),
        })
    }
}
