//! The beginning of a byte stream out of pieces that come late, twice or in any order.

/// Bytes a session may hold: its handshake has to be found in so many.
pub(super) const LIMIT: usize = 16 * 1024;
/// Pieces that may wait for one before them.
const PARTS: usize = 64;

/// A stream's beginning, as far as it is there, and the pieces behind the first hole. Of bytes that come
/// twice the first are kept, as most receivers do.
#[derive(Clone, Debug)]
pub(super) struct Gather {
    base: u32,
    prefix: Vec<u8>,
    parts: Vec<(usize, Box<[u8]>)>,
    /// Length of the prefix that is worth another look.
    pub(super) wanted: usize,
}

impl Gather {
    /// A gather of the stream from offset `base` on; to be looked at with `wanted` bytes.
    pub(super) const fn new(base: u32, wanted: usize) -> Self {
        Self { base, prefix: Vec::new(), parts: Vec::new(), wanted }
    }

    /// The stream's beginning without a hole.
    pub(super) fn prefix(&self) -> &[u8] {
        &self.prefix
    }

    /// Bytes held.
    pub(super) fn held(&self) -> usize {
        self.prefix.len() + self.parts.iter().map(|(_, part)| part.len()).sum::<usize>()
    }

    /// Whether what is wanted can still come: it fits the bound.
    pub(super) fn hopeless(&self) -> bool {
        self.wanted > LIMIT || self.prefix.len() >= LIMIT
    }

    /// Takes a piece at `offset` of the stream, unless it has no room. Whether the prefix has grown to
    /// what is wanted.
    pub(super) fn add(&mut self, offset: u32, data: &[u8]) -> bool {
        let distance = offset.wrapping_sub(self.base);
        // Offsets count modulo 2^32: in the upper half they stand before the base.
        let (start, data) = if distance < 1 << 31 {
            (distance, data)
        } else {
            let before = usize::try_from(distance.wrapping_neg()).unwrap_or(usize::MAX);
            (0, data.get(before..).unwrap_or_default())
        };
        let Ok(start) = usize::try_from(start) else { return false };
        let data = data.get(..LIMIT.saturating_sub(start).min(data.len())).unwrap_or_default();
        if data.is_empty() {
            return false;
        }
        let before = self.prefix.len();
        if start <= before {
            self.append(start, data);
            self.join();
        } else if self.parts.len() < PARTS && self.held() + data.len() <= LIMIT {
            self.parts.push((start, data.into()));
        }
        self.prefix.len() > before && self.prefix.len() >= self.wanted
    }

    fn append(&mut self, start: usize, data: &[u8]) {
        let fresh = data.get(self.prefix.len() - start..).unwrap_or_default();
        let room = LIMIT.saturating_sub(self.held());
        self.prefix.extend_from_slice(fresh.get(..room.min(fresh.len())).unwrap_or_default());
    }

    /// Moves waiting pieces to the prefix while one fits on.
    fn join(&mut self) {
        while let Some(at) = self.parts.iter().position(|(start, _)| *start <= self.prefix.len()) {
            let (start, part) = self.parts.swap_remove(at);
            self.append(start, &part);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn holes_are_filled_and_repeats_ignored() {
        let mut gather = Gather::new(10, 6);
        assert!(!gather.add(14, b"ef"));
        assert!(!gather.add(10, b"ab"));
        assert!(!gather.add(8, b"..XX"));
        assert!(gather.add(11, b"bcde"));
        assert_eq!(gather.prefix(), b"abcdef");
    }

    #[test]
    fn offsets_wrap() {
        let mut gather = Gather::new(u32::MAX - 1, 4);
        assert!(!gather.add(0, b"cd"));
        assert!(gather.add(u32::MAX - 1, b"ab"));
        assert_eq!(gather.prefix(), b"abcd");
    }

    proptest! {
        /// However a stream is cut, shuffled and repeated, its beginning comes out; never more than the bound.
        #[test]
        fn any_order_gives_the_stream(
            stream in proptest::collection::vec(any::<u8>(), 1..4000),
            mut cuts in proptest::collection::vec((0_usize..4000, 1_usize..600), 0..30),
            step in 100_usize..600,
            base in any::<u32>(),
        ) {
            cuts.truncate(PARTS);
            let mut gather = Gather::new(base, stream.len());
            let offset = |at: usize| base.wrapping_add(u32::try_from(at).unwrap());
            for (at, len) in cuts {
                let at = at.min(stream.len() - 1);
                gather.add(offset(at), &stream[at..stream.len().min(at + len)]);
            }
            let mut at = 0;
            while at < stream.len() {
                gather.add(offset(at), &stream[at..stream.len().min(at + step)]);
                at += step;
            }
            prop_assert_eq!(gather.prefix(), &stream[..]);
        }

        #[test]
        fn never_more_than_the_bound(pieces in proptest::collection::vec((any::<u32>(), 0_usize..3000), 0..60)) {
            let mut gather = Gather::new(0, 1);
            for (at, len) in pieces {
                gather.add(at % 20_000, &vec![7; len]);
                prop_assert!(gather.held() <= LIMIT);
            }
        }
    }
}
