//! Reading a sidecar in place: header at once, each section checked before its first use.

use super::FrameMeta;
use super::entry::{NO_ADDRESS, RowEntry, decode_frame, decode_stack};
use super::head::Head;
use super::layout::{FORMAT_VERSION, FRAME_LEN, HEADER_LEN, Header, MAGIC, ROW_LEN, STACK_LEN, Section};
use super::lists::{Gaps, Lists};
use crate::bytes::{array_at, index, len32, len64, u32_at, u64_at};
use crate::mapped::Bytes;
use crate::rows::{Row, Subject};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::atomic::{AtomicU32, Ordering};
use tapedeck_packet::{FlowKey, Timestamp};
use xxhash_rust::xxh3::xxh3_64;

/// A sidecar that cannot be believed. The segment can still be scanned, or reindexed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SidecarError {
    /// Too short for a header.
    #[error("{len} bytes are no sidecar")]
    Short {
        /// Bytes of the file.
        len: u64,
    },
    /// Other first bytes than [`MAGIC`].
    #[error("not a sidecar: it begins with {0:02x?}")]
    Magic([u8; 8]),
    /// Written in a version of the format that this program does not know.
    #[error("format version {found}; this program reads version {FORMAT_VERSION}")]
    Version {
        /// Version in the file.
        found: u32,
    },
    /// The header's checksum does not hold.
    #[error("the header is damaged")]
    Header,
    /// The header says what cannot be.
    #[error("the header contradicts itself or the file's length of {len} bytes")]
    Layout {
        /// Bytes of the file.
        len: u64,
    },
    /// A section's checksum does not hold.
    #[error("section {section:?} at byte {offset} is damaged")]
    Damaged {
        /// The section.
        section: Section,
        /// Its offset in the file.
        offset: u64,
    },
    /// A section whose checksum holds, but which no version of this program has written.
    #[error("section {section:?} at byte {offset} makes no sense")]
    Senseless {
        /// The section.
        section: Section,
        /// Its offset in the file.
        offset: u64,
    },
    /// A row or frame number beyond the sidecar's.
    #[error("number {number} in section {section:?}, which has {count}")]
    Number {
        /// The section.
        section: Section,
        /// The number asked for.
        number: u32,
        /// Elements there are.
        count: u32,
    },
}

/// What a sidecar says of its segment as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Summary {
    /// Run of the segment's name.
    pub run: u32,
    /// Sequence number of the segment's name.
    pub seq: u32,
    /// Queue.
    pub queue: u32,
    /// Frames.
    pub frames: u32,
    /// Rows.
    pub rows: u32,
    /// Packets.
    pub packets: u64,
    /// Stored bytes: the length of the segment file.
    pub segment_len: u64,
    /// Smallest and largest packet time; `None` without packets. Unlike a frame's, both are exact.
    pub times: Option<(Timestamp, Timestamp)>,
}

/// A sidecar, in memory or mapped.
#[derive(Debug)]
pub struct Sidecar {
    bytes: Bytes,
    header: Header,
    /// A bit for each section that has been checked. Set after the check by any thread, read by all; the
    /// bytes do not change, so a lost race only checks twice and no ordering is needed.
    checked: AtomicU32,
}

impl Sidecar {
    /// A sidecar held in memory, e.g. of an open segment.
    ///
    /// # Errors
    /// [`SidecarError`] for what its header shows.
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, SidecarError> {
        Self::new(Bytes::Owned(bytes))
    }

    pub(crate) fn new(bytes: Bytes) -> Result<Self, SidecarError> {
        let file = bytes.as_slice();
        let short = SidecarError::Short { len: len64(file.len()) };
        let magic: [u8; 8] = array_at(file, 0).ok_or(short)?;
        if magic != MAGIC {
            return Err(SidecarError::Magic(magic));
        }
        let found = u32_at(file, 8).ok_or(short)?;
        if found != FORMAT_VERSION {
            return Err(SidecarError::Version { found });
        }
        let stated = u64_at(file, HEADER_LEN - 8).ok_or(short)?;
        if xxh3_64(file.get(..HEADER_LEN - 8).unwrap_or_default()) != stated {
            return Err(SidecarError::Header);
        }
        let header = Header::decode(file).ok_or(SidecarError::Layout { len: len64(file.len()) })?;
        Ok(Self { bytes, header, checked: AtomicU32::new(0) })
    }

    /// The segment as a whole.
    #[must_use]
    pub fn summary(&self) -> Summary {
        let header = &self.header;
        let time = Timestamp::from_nanos_saturating;
        Summary {
            run: header.run,
            seq: header.seq,
            queue: header.queue,
            frames: header.frames,
            rows: header.rows,
            packets: header.packets,
            segment_len: header.segment_len,
            times: (header.packets > 0).then(|| (time(header.t_min), time(header.t_max))),
        }
    }

    /// Bytes of the sidecar.
    #[must_use]
    pub fn byte_len(&self) -> u64 {
        len64(self.bytes.as_slice().len())
    }

    /// Bytes of a section.
    #[must_use]
    pub fn section_len(&self, section: Section) -> usize {
        self.header.sections.get(section.number()).map_or(0, |(range, _)| range.len())
    }

    /// Checks every section's checksum and decodes every frame, row and posting.
    ///
    /// # Errors
    /// The first [`SidecarError`].
    pub fn verify(&self) -> Result<(), SidecarError> {
        Section::ALL.iter().try_for_each(|section| self.section(*section).map(drop))?;
        self.frames()?;
        self.head()?;
        for row in 0..self.header.rows {
            self.row(row)?;
            self.frames_of(row)?.try_for_each(|frame| frame.map(drop))?;
        }
        self.list_rows(0, u64::MAX).map(drop)
    }

    /// All bytes, unchecked.
    pub(super) fn bytes(&self) -> &[u8] {
        self.bytes.as_slice()
    }

    /// Bytes of a section, checked.
    pub(super) fn section(&self, section: Section) -> Result<&[u8], SidecarError> {
        let (range, checksum) =
            self.header.sections.get(section.number()).ok_or_else(|| self.senseless(section))?;
        let bytes = self.bytes.as_slice().get(range.clone()).ok_or_else(|| self.senseless(section))?;
        let bit = 1 << section.number();
        if self.checked.load(Ordering::Relaxed) & bit == 0 {
            if xxh3_64(bytes) != *checksum {
                return Err(SidecarError::Damaged { section, offset: len64(range.start) });
            }
            self.checked.fetch_or(bit, Ordering::Relaxed);
        }
        Ok(bytes)
    }

    pub(super) fn senseless(&self, section: Section) -> SidecarError {
        let offset = self.header.sections.get(section.number()).map_or(0, |(range, _)| range.start);
        SidecarError::Senseless { section, offset: len64(offset) }
    }

    /// What frame 0 says of the segment; `None` where the sidecar does not keep it.
    ///
    /// # Errors
    /// [`SidecarError`] of the section Head.
    pub fn head(&self) -> Result<Option<Head>, SidecarError> {
        match self.section(Section::Head)? {
            [] => Ok(None),
            blocks => Head::decode(blocks).map(Some).ok_or_else(|| self.senseless(Section::Head)),
        }
    }

    /// The frames, in file order. `t_max` is rounded up; `stored_len` follows from the offsets.
    ///
    /// # Errors
    /// [`SidecarError`] of the section Frames.
    pub fn frames(&self) -> Result<Vec<FrameMeta>, SidecarError> {
        let section = self.section(Section::Frames)?;
        let starts = section.chunks_exact(FRAME_LEN).skip(1).map(|entry| u64_at(entry, 0));
        let ends = starts.chain(std::iter::once(Some(self.header.segment_len)));
        let frames = section.chunks_exact(FRAME_LEN).zip(ends);
        frames
            .map(|(entry, end)| decode_frame(entry, end?))
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| self.senseless(Section::Frames))
    }

    /// Row `number` (0 to `summary().rows`, in order of row hash) and the directions seen.
    ///
    /// # Errors
    /// [`SidecarError`] of the sections Rows, Addresses, Macs and Stacks; `Number` beyond the last row.
    pub fn row(&self, number: u32) -> Result<(Row, u8), SidecarError> {
        let entry = self.row_entry(number)?;
        let mut row = Row {
            subject: self.subject(&entry)?,
            ethertype: (entry.flags & RowEntry::HAS_ETHERTYPE != 0).then_some(entry.ethertype),
            ..Row::COARSE
        };
        let at = index(entry.stack).saturating_mul(STACK_LEN);
        let stack = self.section(Section::Stacks)?.get(at..).and_then(|rest| rest.get(..STACK_LEN));
        stack
            .and_then(|stack| decode_stack(stack, &mut row))
            .ok_or_else(|| self.senseless(Section::Stacks))?;
        Ok((row, entry.flags >> RowEntry::DIRECTIONS_AT))
    }

    /// All rows in order, with their directions.
    pub fn rows(&self) -> impl Iterator<Item = Result<(Row, u8), SidecarError>> + '_ {
        (0..self.header.rows).map(|number| self.row(number))
    }

    /// Numbers of the frames that hold row `number`, ascending.
    ///
    /// # Errors
    /// [`SidecarError`] of the sections Rows and Postings.
    pub fn frames_of(
        &self,
        number: u32,
    ) -> Result<impl Iterator<Item = Result<u32, SidecarError>> + '_, SidecarError> {
        let start = index(self.row_entry(number)?.postings);
        let postings = self.section(Section::Postings)?;
        let next = number + 1;
        let end =
            if next < self.header.rows { index(self.row_entry(next)?.postings) } else { postings.len() };
        let list = postings.get(start..end).ok_or_else(|| self.senseless(Section::Postings))?;
        let frames = Gaps::new(list, self.header.frames);
        Ok(frames.map(|frame| frame.map_err(|()| self.senseless(Section::Postings))))
    }

    pub(super) fn row_entry(&self, number: u32) -> Result<RowEntry, SidecarError> {
        let section = self.section(Section::Rows)?;
        let beyond = SidecarError::Number { section: Section::Rows, number, count: self.header.rows };
        let at = index(number).checked_mul(ROW_LEN).ok_or(beyond)?;
        section.get(at..).and_then(|rest| rest.get(..ROW_LEN)).and_then(RowEntry::decode).ok_or(beyond)
    }

    fn subject(&self, entry: &RowEntry) -> Result<Subject, SidecarError> {
        let senseless = || self.senseless(Section::Rows);
        let ip = |addr_a: IpAddr, addr_b: IpAddr| Subject::Ip {
            key: FlowKey { addr_a, addr_b, port_a: entry.port_a, port_b: entry.port_b, proto: entry.proto },
            ports_known: entry.flags & RowEntry::PORTS_KNOWN != 0,
            later_fragment: entry.flags & RowEntry::LATER != 0,
        };
        match entry.flags & RowEntry::KIND {
            RowEntry::OPAQUE => Ok(Subject::Opaque),
            RowEntry::COARSE => Ok(Subject::Coarse),
            RowEntry::IPV4 => Ok(ip(self.v4(entry.a)?.into(), self.v4(entry.b)?.into())),
            RowEntry::IPV6 => Ok(ip(self.v6(entry.a)?.into(), self.v6(entry.b)?.into())),
            RowEntry::ARP => Ok(Subject::Arp { a: self.v4(entry.a)?, b: self.v4(entry.b)? }),
            RowEntry::LINK if entry.a == NO_ADDRESS => Ok(Subject::Link { macs: None }),
            RowEntry::LINK => Ok(Subject::Link { macs: Some((self.mac(entry.a)?, self.mac(entry.b)?)) }),
            _ => Err(senseless()),
        }
    }

    /// Elements of a section.
    pub(super) fn count(&self, section: Section) -> u32 {
        len32(self.section_len(section) / section.element())
    }

    /// Element `number` of a section of `N`-byte elements.
    pub(super) fn element<const N: usize>(
        &self,
        section: Section,
        number: u32,
    ) -> Result<[u8; N], SidecarError> {
        let at = index(number).saturating_mul(N);
        let beyond = SidecarError::Number { section, number, count: self.count(section) };
        array_at(self.section(section)?, at).ok_or(beyond)
    }

    fn v4(&self, number: u32) -> Result<Ipv4Addr, SidecarError> {
        self.element(Section::Addresses4, number).map(|bytes| Ipv4Addr::from_bits(u32::from_le_bytes(bytes)))
    }

    fn v6(&self, number: u32) -> Result<Ipv6Addr, SidecarError> {
        let number = number.wrapping_sub(self.count(Section::Addresses4));
        self.element(Section::Addresses6, number).map(|bytes| Ipv6Addr::from_bits(u128::from_be_bytes(bytes)))
    }

    fn mac(&self, number: u32) -> Result<[u8; 6], SidecarError> {
        let before = self.count(Section::Addresses4).wrapping_add(self.count(Section::Addresses6));
        self.element(Section::Macs, number.wrapping_sub(before))
    }

    /// Rows of all keys in `low..=high`, ascending, each once.
    pub(super) fn list_rows(&self, low: u64, high: u64) -> Result<Vec<u32>, SidecarError> {
        let lists = Lists {
            fences: self.section(Section::Fences)?,
            lists: self.section(Section::Lists)?,
            rows: self.header.rows,
        };
        let mut rows = Vec::new();
        lists.rows_of(low, high, &mut rows).ok_or_else(|| self.senseless(Section::Lists))?;
        rows.sort_unstable();
        rows.dedup();
        Ok(rows)
    }
}
