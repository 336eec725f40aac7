//! Reading a pack: the front at once, then one block a key, each checked against its checksum.

use super::key::{Key, Probe};
use super::layout::{
    ALWAYS, FRONT_BYTES_MAX, HEADER_LEN, HIGH_PORTS, Header, MAGIC, MEMBER_LEN, PACK_VERSION, decode_member,
    decode_texts, header_holds,
};
use crate::bytes::{array_at, index, len64, u32_at, u64_at};
use crate::name::SegmentName;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use tapedeck_packet::{Timestamp, UtcHour};
use xxhash_rust::xxh3::xxh3_64;

/// A pack that cannot be believed. Its segments are asked themselves then.
#[derive(Debug, thiserror::Error)]
pub enum PackError {
    /// It cannot be read.
    #[error("it cannot be read: {0}")]
    Io(io::Error),
    /// Too short for a header.
    #[error("{len} bytes are no pack")]
    Short {
        /// Bytes of the file.
        len: u64,
    },
    /// Other first bytes than [`MAGIC`].
    #[error("not a pack: it begins with {0:02x?}")]
    Magic([u8; 8]),
    /// Written in a version of the format that this program does not know.
    #[error("format version {found}; this program reads version {PACK_VERSION}")]
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
    /// What it says of its members does not hold.
    #[error("members, texts or checksums behind byte {HEADER_LEN} are damaged")]
    Front,
    /// The checksum holds, and yet no version of this program has written it.
    #[error("its members make no sense")]
    Senseless,
    /// A block's checksum does not hold.
    #[error("block {block} at byte {offset} is damaged")]
    Block {
        /// Number of the block.
        block: u32,
        /// Its offset in the file.
        offset: u64,
    },
}

// The cause stands in the message, so it is no source as well.
impl From<io::Error> for PackError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// A segment of a pack.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Its name.
    pub name: SegmentName,
    /// Hour of its folder.
    pub hour: UtcHour,
    /// Smallest packet time.
    pub t_min: Timestamp,
    /// Largest packet time.
    pub t_max: Timestamp,
    /// Bytes of the segment.
    pub segment_len: u64,
    /// Bytes of its sidecar.
    pub sidecar_len: u64,
    /// [`Sidecar::fingerprint`](crate::sidecar::Sidecar::fingerprint) of it.
    pub fingerprint: u64,
    /// Frames with packets.
    pub frames: u32,
    pub(super) first_column: u16,
    pub(super) columns: u16,
    pub(super) flags: u16,
}

impl Member {
    /// Whether no key can exclude it.
    #[must_use]
    pub fn is_always(&self) -> bool {
        self.flags & ALWAYS != 0
    }
}

/// A set of members of one pack, by number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemberSet {
    words: Vec<u64>,
    members: usize,
}

impl MemberSet {
    /// All of `members`.
    #[must_use]
    pub fn all(members: usize) -> Self {
        let mut set = Self::none(members);
        (0..members).for_each(|member| set.insert(member));
        set
    }

    /// None of `members`.
    #[must_use]
    pub fn none(members: usize) -> Self {
        Self { words: vec![0; members.div_ceil(64)], members }
    }

    fn insert(&mut self, member: usize) {
        if let Some(word) = self.words.get_mut(member / 64) {
            *word |= 1 << (member % 64);
        }
    }

    /// Whether a member is in it.
    #[must_use]
    pub fn contains(&self, member: usize) -> bool {
        self.words.get(member / 64).is_some_and(|word| word & (1 << (member % 64)) != 0)
    }

    /// Whether it holds no member.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.words.iter().all(|word| *word == 0)
    }

    /// Whether it holds all members.
    #[must_use]
    pub fn is_all(&self) -> bool {
        (0..self.members).all(|member| self.contains(member))
    }

    /// Keeps what is in `other`, too.
    pub fn intersect(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word &= other);
    }

    /// Adds what is in `other`.
    pub fn unite(&mut self, other: &Self) {
        self.words.iter_mut().zip(&other.words).for_each(|(word, other)| *word |= other);
    }
}

/// Where the blocks are read from.
#[derive(Debug)]
enum Source {
    Memory(Vec<u8>),
    File(File),
}

impl Source {
    fn read_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        match self {
            Self::File(file) => file.read_exact_at(buffer, offset),
            Self::Memory(bytes) => {
                let at = usize::try_from(offset).ok();
                let found = at.and_then(|at| bytes.get(at..)?.get(..buffer.len()));
                buffer.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }
}

/// An open pack.
#[derive(Debug)]
pub struct Pack {
    header: Header,
    members: Vec<Member>,
    checksums: Vec<u64>,
    content: u64,
    source: Source,
}

impl Pack {
    /// Opens a pack and reads its front.
    ///
    /// # Errors
    /// [`PackError`].
    pub fn open(path: &Path) -> Result<Self, PackError> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        Self::new(Source::File(file), len)
    }

    /// A pack held in memory.
    ///
    /// # Errors
    /// [`PackError`].
    pub fn from_bytes(bytes: Vec<u8>) -> Result<Self, PackError> {
        let len = len64(bytes.len());
        Self::new(Source::Memory(bytes), len)
    }

    fn new(source: Source, len: u64) -> Result<Self, PackError> {
        if len < len64(HEADER_LEN) {
            return Err(PackError::Short { len });
        }
        let mut front = vec![0; HEADER_LEN];
        source.read_at(&mut front, 0)?;
        let magic = array_at(&front, 0).unwrap_or_default();
        if magic != MAGIC {
            return Err(PackError::Magic(magic));
        }
        let found = u32_at(&front, 8).unwrap_or_default();
        if found != PACK_VERSION {
            return Err(PackError::Version { found });
        }
        if !header_holds(&front) {
            return Err(PackError::Header);
        }
        let layout = PackError::Layout { len };
        let Some((header, checksum)) = Header::decode(&front, len) else { return Err(layout) };
        let front_len = usize::try_from(header.front_len().min(FRONT_BYTES_MAX)).unwrap_or(usize::MAX);
        front.resize(front_len, 0);
        let Some(rest) = front.get_mut(HEADER_LEN..) else { return Err(layout) };
        source.read_at(rest, len64(HEADER_LEN))?;
        if xxh3_64(rest) != checksum {
            return Err(PackError::Front);
        }
        let (members, checksums) = parts(&header, rest).ok_or(PackError::Senseless)?;
        Ok(Self { header, members, checksums, content: xxh3_64(&front), source })
    }

    /// Its segments.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Whether it has its final size: the others are built again into a larger one.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.header.full
    }

    /// Keys of all members.
    #[must_use]
    pub fn keys(&self) -> u64 {
        self.header.keys
    }

    /// Bytes of the file.
    #[must_use]
    pub fn byte_len(&self) -> u64 {
        self.header.file_len()
    }

    /// Bytes before the padding.
    #[cfg(test)]
    pub(super) fn front_len(&self) -> usize {
        usize::try_from(self.header.front_len()).unwrap_or(usize::MAX)
    }

    /// XXH3 of the front, which is in the name of the file.
    #[must_use]
    pub fn content(&self) -> u64 {
        self.content
    }

    /// The members that may hold `key`. One block is read.
    ///
    /// # Errors
    /// [`PackError`]: the pack must not be used.
    pub fn with(&self, key: &Key) -> Result<MemberSet, PackError> {
        let probe = key.probe();
        let block = self.block(probe.block(self.header.blocks))?;
        let columns = self.columns(&block, &probe);
        let high = key.is_high_port();
        let mut set = MemberSet::none(self.members.len());
        for (number, member) in self.members.iter().enumerate() {
            let column = usize::from(member.first_column) + probe.column(member.columns);
            let bit = columns.get(column / 8).is_some_and(|byte| byte & (1 << (column % 8)) != 0);
            if bit || member.is_always() || (high && member.flags & HIGH_PORTS != 0) {
                set.insert(number);
            }
        }
        Ok(set)
    }

    /// The rows of a key, and-ed.
    fn columns(&self, block: &[u8], probe: &Probe) -> Vec<u8> {
        let row_bytes = self.header.row_bytes();
        let mut columns = vec![0xff; row_bytes];
        for row in probe.rows {
            let row = block.chunks_exact(row_bytes).nth(row.into()).unwrap_or_default();
            columns.iter_mut().zip(row).for_each(|(byte, other)| *byte &= other);
        }
        columns
    }

    /// A block, checked.
    fn block(&self, number: u32) -> Result<Vec<u8>, PackError> {
        let len = self.header.block_bytes();
        let offset = self.header.blocks_at() + u64::from(number) * len64(len);
        let mut block = vec![0; len];
        self.source.read_at(&mut block, offset)?;
        if self.checksums.get(index(number)) != Some(&xxh3_64(&block)) {
            return Err(PackError::Block { block: number, offset });
        }
        Ok(block)
    }

    /// Checks every block.
    ///
    /// # Errors
    /// The first [`PackError`].
    pub fn check(&self) -> Result<(), PackError> {
        (0..self.header.blocks).try_for_each(|number| self.block(number).map(drop))
    }

    /// All blocks, checked: for who asks for very many keys.
    ///
    /// # Errors
    /// The first [`PackError`].
    pub fn blocks(&self) -> Result<Blocks<'_>, PackError> {
        let mut bytes = Vec::new();
        (0..self.header.blocks).try_for_each(|number| {
            bytes.append(&mut self.block(number)?);
            Ok::<(), PackError>(())
        })?;
        Ok(Blocks { pack: self, bytes })
    }
}

/// A pack with all its blocks in memory.
#[derive(Debug)]
pub struct Blocks<'a> {
    pack: &'a Pack,
    bytes: Vec<u8>,
}

impl Blocks<'_> {
    /// Whether the member with this number may hold `key`, as [`Pack::with`] says.
    #[must_use]
    pub fn holds(&self, number: usize, key: &Key) -> bool {
        let Some(member) = self.pack.members.get(number) else { return false };
        if member.is_always() || (key.is_high_port() && member.flags & HIGH_PORTS != 0) {
            return true;
        }
        let (header, probe) = (&self.pack.header, key.probe());
        let block = index(probe.block(header.blocks)) * header.block_bytes();
        let column = usize::from(member.first_column) + probe.column(member.columns);
        probe.rows.iter().all(|row| {
            let at = block + usize::from(*row) * header.row_bytes() + column / 8;
            self.bytes.get(at).is_some_and(|byte| byte & (1 << (column % 8)) != 0)
        })
    }
}

/// Members and checksums of the front behind the header.
fn parts(header: &Header, rest: &[u8]) -> Option<(Vec<Member>, Vec<u64>)> {
    let (members, rest) = rest.split_at_checked(index(header.members) * MEMBER_LEN)?;
    let (texts, checksums) = rest.split_at_checked(index(header.texts_len))?;
    let texts = decode_texts(texts)?;
    let members = members.chunks_exact(MEMBER_LEN).map(|entry| decode_member(entry, &texts, header.columns));
    let checksums = checksums.chunks_exact(8).map(|word| u64_at(word, 0));
    Some((members.collect::<Option<_>>()?, checksums.collect::<Option<_>>()?))
}
