//! Two of a kind, one for each side of a session key.

/// A side of a [`crate::key::Key`], which knows no originator: A is the smaller (address, port).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum End {
    /// The key's first.
    #[default]
    A,
    /// The key's second.
    B,
}

impl End {
    pub(crate) const fn other(self) -> Self {
        match self {
            Self::A => Self::B,
            Self::B => Self::A,
        }
    }
}

/// One value for each side.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Pair<T> {
    pub(crate) a: T,
    pub(crate) b: T,
}

impl<T> Pair<T> {
    pub(crate) const fn of(&self, end: End) -> &T {
        match end {
            End::A => &self.a,
            End::B => &self.b,
        }
    }

    pub(crate) const fn of_mut(&mut self, end: End) -> &mut T {
        match end {
            End::A => &mut self.a,
            End::B => &mut self.b,
        }
    }

    /// That of `end`, then the other's.
    #[inline]
    pub(crate) const fn both_mut(&mut self, end: End) -> (&mut T, &mut T) {
        match end {
            End::A => (&mut self.a, &mut self.b),
            End::B => (&mut self.b, &mut self.a),
        }
    }
}
