//! A reader of bytes that answers `None` past their end.

/// What is left to read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cursor<'a>(pub(super) &'a [u8]);

impl<'a> Cursor<'a> {
    pub(super) const fn rest(self) -> &'a [u8] {
        self.0
    }

    pub(super) const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    /// As many of the next `count` bytes as there are.
    pub(super) fn take_up_to(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }

    pub(super) fn u8(&mut self) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(*first)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u16::from_be_bytes(*bytes))
    }

    pub(super) fn u24(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk::<3>()?;
        self.0 = rest;
        let [a, b, c] = *bytes;
        Some(u32::from_be_bytes([0, a, b, c]))
    }

    pub(super) fn u32(&mut self) -> Option<u32> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_be_bytes(*bytes))
    }

    /// A `usize` of two bytes.
    pub(super) fn len16(&mut self) -> Option<usize> {
        self.u16().map(usize::from)
    }

    /// The bytes behind a length of one byte.
    pub(super) fn vec8(&mut self) -> Option<&'a [u8]> {
        let len = self.u8()?;
        self.take(usize::from(len))
    }

    /// The bytes behind a length of two bytes.
    pub(super) fn vec16(&mut self) -> Option<&'a [u8]> {
        let len = self.len16()?;
        self.take(len)
    }

    /// A QUIC variable-length integer (RFC 9000, 16).
    pub(super) fn varint(&mut self) -> Option<u64> {
        let first = self.u8()?;
        let mut value = u64::from(first & 0x3f);
        for _ in 1..(1_u8 << (first >> 6)) {
            value = (value << 8) | u64::from(self.u8()?);
        }
        Some(value)
    }

    /// A QUIC variable-length integer that is a length.
    pub(super) fn varlen(&mut self) -> Option<usize> {
        usize::try_from(self.varint()?).ok()
    }

    /// Tag and contents of a BER element with a definite length; all of it must be there.
    pub(super) fn ber(&mut self) -> Option<(u8, &'a [u8])> {
        let (tag, len) = self.ber_head()?;
        Some((tag, self.take(len)?))
    }

    /// Tag and length of a BER element. Lengths of up to four bytes.
    pub(super) fn ber_head(&mut self) -> Option<(u8, usize)> {
        let tag = self.u8()?;
        let first = self.u8()?;
        if first < 0x80 {
            return Some((tag, usize::from(first)));
        }
        let count = usize::from(first & 0x7f);
        if count == 0 || count > 4 {
            return None;
        }
        let len = self.take(count)?.iter().fold(0_usize, |len, b| (len << 8) | usize::from(*b));
        Some((tag, len))
    }
}

/// A text out of a packet: what is not UTF-8 becomes U+FFFD; cut to what a record keeps.
pub(super) fn text(bytes: &[u8]) -> Box<str> {
    cut(&String::from_utf8_lossy(bytes))
}

/// `text`, cut to what a record keeps.
pub(super) fn cut(text: &str) -> Box<str> {
    let mut end = text.len().min(super::TEXT_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().into()
}

/// The big-endian `u16` at `at`.
pub(super) fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|b| u16::from_be_bytes(*b))
}

/// The big-endian `u32` at `at`.
pub(super) fn be32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|b| u32::from_be_bytes(*b))
}
