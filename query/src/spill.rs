//! Sorted runs of packets in an unlinked temporary file, for a merge that does not fit memory.
//!
//! The file has no name, so nothing is left behind however the process ends.

use crate::merge::{Found, Key};
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::FileExt;
use tapedeck_packet::Timestamp;

/// Read back at once, bytes; a packet that is larger is read whole.
const READ_BYTES: usize = 256 * 1024;
/// ts, interface, arrival, segment, orig_len, flags, flags known, length.
const HEAD_BYTES: usize = 8 + 4 + 8 + 4 + 4 + 4 + 4 + 4;

/// The temporary file.
pub(crate) struct Spill {
    file: File,
    len: u64,
}

impl Spill {
    /// Makes the file in the folder for temporary files (`TMPDIR`, else `/tmp`).
    pub(crate) fn create() -> io::Result<Self> {
        Ok(Self { file: tempfile::tempfile()?, len: 0 })
    }

    /// Begins a run at the end of the file.
    pub(crate) fn run(&mut self) -> io::Result<RunWriter<'_>> {
        Ok(RunWriter { begin: self.len, out: BufWriter::with_capacity(READ_BYTES, &mut *self) })
    }
}

impl Write for Spill {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write_all_at(bytes, self.len)?;
        self.len = self.len.saturating_add(u64::try_from(bytes.len()).unwrap_or(u64::MAX));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes one run; the packets must come in order.
pub(crate) struct RunWriter<'a> {
    begin: u64,
    out: BufWriter<&'a mut Spill>,
}

impl RunWriter<'_> {
    pub(crate) fn put(&mut self, found: &Found, bytes: &[u8]) -> io::Result<()> {
        let len = u32::try_from(bytes.len()).map_err(io::Error::other)?;
        let key = found.key;
        self.out.write_all(&key.ts.nanos().to_le_bytes())?;
        self.out.write_all(&key.interface.to_le_bytes())?;
        self.out.write_all(&key.arrival.to_le_bytes())?;
        self.out.write_all(&key.segment.to_le_bytes())?;
        self.out.write_all(&found.orig_len.to_le_bytes())?;
        self.out.write_all(&found.flags.unwrap_or(0).to_le_bytes())?;
        self.out.write_all(&u32::from(found.flags.is_some()).to_le_bytes())?;
        self.out.write_all(&len.to_le_bytes())?;
        self.out.write_all(bytes)
    }

    /// Ends the run: where it lies in the file.
    pub(crate) fn finish(mut self) -> io::Result<(u64, u64)> {
        self.out.flush()?;
        let end = self.out.get_ref().len;
        Ok((self.begin, end))
    }
}

/// Reads one run back, a piece at a time.
pub(crate) struct Run {
    /// Next byte of the file to read, and where the run ends.
    next: u64,
    end: u64,
    buffer: Vec<u8>,
    /// Where the current packet's bytes begin in the buffer.
    current: Option<Found>,
}

impl Run {
    pub(crate) fn open(spill: &Spill, (begin, end): (u64, u64)) -> io::Result<Self> {
        let mut run = Self { next: begin, end, buffer: Vec::new(), current: None };
        run.load(spill, 0)?;
        Ok(run)
    }

    pub(crate) fn key(&self) -> Option<Key> {
        self.current.map(|f| f.key)
    }

    pub(crate) fn entry(&self) -> Option<(Found, &[u8])> {
        let found = self.current?;
        Some((found, self.buffer.get(found.start..found.start.checked_add(found.len)?)?))
    }

    /// Goes to the next packet.
    pub(crate) fn advance(&mut self, spill: &Spill) -> io::Result<()> {
        let at = self.current.take().map_or(0, |f| f.start.saturating_add(f.len));
        self.load(spill, at)
    }

    /// Decodes the packet that begins at `at` in the buffer, reading on as needed.
    fn load(&mut self, spill: &Spill, at: usize) -> io::Result<()> {
        let at = self.need(spill, at, HEAD_BYTES)?;
        let Some(head) = self.buffer.get(at..).filter(|b| !b.is_empty()) else { return Ok(()) };
        let mut found = decode(head).ok_or_else(torn)?;
        let at = self.need(spill, at, HEAD_BYTES.saturating_add(found.len))?;
        found.start = at.saturating_add(HEAD_BYTES);
        if self.buffer.len() < found.start.saturating_add(found.len) {
            return Err(torn());
        }
        self.current = Some(found);
        Ok(())
    }

    /// Sees to it that `len` bytes stand at `at`, unless the run ends before; gives their new place.
    fn need(&mut self, spill: &Spill, at: usize, len: usize) -> io::Result<usize> {
        let left = self.buffer.len().saturating_sub(at);
        if left >= len || self.next == self.end {
            return Ok(at);
        }
        self.buffer.drain(..at.min(self.buffer.len()));
        let want = u64::try_from(len.max(READ_BYTES).saturating_sub(left)).unwrap_or(u64::MAX);
        let take = want.min(self.end.saturating_sub(self.next));
        self.buffer.resize(left.saturating_add(usize::try_from(take).map_err(io::Error::other)?), 0);
        spill.file.read_exact_at(self.buffer.get_mut(left..).unwrap_or_default(), self.next)?;
        self.next = self.next.saturating_add(take);
        Ok(0)
    }
}

fn torn() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the temporary file does not hold what was written to it")
}

fn decode(head: &[u8]) -> Option<Found> {
    let (ts, rest) = head.split_first_chunk::<8>()?;
    let (interface, rest) = rest.split_first_chunk::<4>()?;
    let (arrival, rest) = rest.split_first_chunk::<8>()?;
    let (segment, rest) = rest.split_first_chunk::<4>()?;
    let (orig_len, rest) = rest.split_first_chunk::<4>()?;
    let (flags, rest) = rest.split_first_chunk::<4>()?;
    let (known, rest) = rest.split_first_chunk::<4>()?;
    let (len, _) = rest.split_first_chunk::<4>()?;
    let key = Key {
        ts: Timestamp::from_nanos(u64::from_le_bytes(*ts))?,
        interface: u32::from_le_bytes(*interface),
        arrival: u64::from_le_bytes(*arrival),
        segment: u32::from_le_bytes(*segment),
    };
    let flags = (u32::from_le_bytes(*known) != 0).then(|| u32::from_le_bytes(*flags));
    let len = usize::try_from(u32::from_le_bytes(*len)).ok()?;
    Some(Found { key, orig_len: u32::from_le_bytes(*orig_len), flags, start: 0, len })
}
