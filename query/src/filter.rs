//! The filter language: text to [`Filter`], and a filter's answer to one packet.
//!
//! One evaluator serves packets and index rows: it asks a [`Facts`] each atom and combines the answers
//! in three values. For a packet the answers are exact; an index row may answer [`Tri::Maybe`], never
//! `No` for a layer that matches. Nothing here allocates per packet. docs/filter.md is the language for
//! its users.

use tapedeck_packet::{Layer, Walk};

mod ast;
mod error;
mod headers;
mod lex;
mod names;
mod parse;
pub mod session;
#[cfg(test)]
mod tests;
mod value;

pub use ast::{Atom, Dir, Expr, Family, Prefix, Transport, Version};
pub use error::FilterError;
pub use headers::Headers;
pub use lex::Compare;
pub(crate) use names::distance;
pub use session::{NumberField, SessionAtom, TextField};

/// An answer that may be open. The order is that of certainty: `No < Maybe < Yes`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Tri {
    /// Certainly not.
    No,
    /// Not known here.
    Maybe,
    /// Certainly.
    Yes,
}

impl Tri {
    /// Both.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        self.min(other)
    }

    /// Either.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        self.max(other)
    }
}

impl std::ops::Not for Tri {
    type Output = Self;

    fn not(self) -> Self {
        match self {
            Self::No => Self::Yes,
            Self::Maybe => Self::Maybe,
            Self::Yes => Self::No,
        }
    }
}

impl From<bool> for Tri {
    fn from(known: bool) -> Self {
        if known { Self::Yes } else { Self::No }
    }
}

/// Something that can be asked the atoms of a filter: a layer of a packet, or what an index knows of it.
pub trait Facts {
    /// Whether the layer answers to `atom`.
    fn ask(&self, atom: &Atom) -> Tri;

    /// What only a session can answer; a packet and an index row know nothing of it.
    fn session(&self, _atom: &SessionAtom) -> Tri {
        Tri::Maybe
    }

    /// Whether one layer of the packet, this one or another, satisfies all of `expr`.
    fn inner(&self, expr: &Expr) -> Tri;
}

impl Expr {
    /// The answer of `facts` to this expression.
    pub fn eval(&self, facts: &impl Facts) -> Tri {
        match self {
            Self::All => Tri::Yes,
            Self::Atom(atom) => facts.ask(atom),
            Self::Session(atom) => facts.session(atom),
            Self::Not(inner) => !inner.eval(facts),
            Self::Inner(inner) => facts.inner(inner),
            Self::And(all) => {
                let mut answer = Tri::Yes;
                for expr in all {
                    answer = answer.and(expr.eval(facts));
                    if answer == Tri::No {
                        break;
                    }
                }
                answer
            }
            Self::Or(any) => {
                let mut answer = Tri::No;
                for expr in any {
                    answer = answer.or(expr.eval(facts));
                    if answer == Tri::Yes {
                        break;
                    }
                }
                answer
            }
        }
    }
}

/// A filter that has been read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    expr: Expr,
}

impl Filter {
    /// Reads the words of a filter, joined by blanks. An empty text matches every packet.
    ///
    /// # Errors
    /// The text is not in the language: the error shows where and what to write instead.
    pub fn parse(text: &str) -> Result<Self, FilterError> {
        Ok(Self { expr: parse::parse(text)? })
    }

    /// The filter of a tree.
    pub(crate) fn of(expr: Expr) -> Self {
        Self { expr }
    }

    /// Whether a packet matches: `walk` are its layers, `orig_len` its length on the wire in bytes.
    #[must_use]
    pub fn matches(&self, walk: &Walk, orig_len: u32) -> bool {
        let Some(outermost) = walk.layers().first() else { return false };
        let facts = LayerFacts { layer: outermost, walk, orig_len };
        self.expr.eval(&facts) == Tri::Yes
    }

    /// The empty filter, which matches every packet.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        matches!(self.expr, Expr::All)
    }

    /// The filter as a tree.
    #[must_use]
    pub fn expr(&self) -> &Expr {
        &self.expr
    }
}

impl std::fmt::Display for Filter {
    /// The filter in its own language, in full.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.expr.fmt(f)
    }
}

/// One layer of a real packet: every answer is exact.
struct LayerFacts<'a> {
    layer: &'a Layer,
    walk: &'a Walk,
    orig_len: u32,
}

impl Facts for LayerFacts<'_> {
    fn ask(&self, atom: &Atom) -> Tri {
        let macs = self.layer.macs;
        Tri::from(match atom {
            Atom::AtMost(bytes) => self.orig_len <= *bytes,
            Atom::AtLeast(bytes) => self.orig_len >= *bytes,
            Atom::Mac { dir, mac } => macs.is_some_and(|macs| dir.holds(macs.src == *mac, macs.dst == *mac)),
            Atom::Broadcast => macs.is_some_and(|macs| macs.dst == [0xff; 6]),
            Atom::Multicast => macs.is_some_and(|macs| macs.dst.first().is_some_and(|byte| byte & 1 == 1)),
            Atom::CommunityId(id) => self.layer.community_id(0) == Some(*id),
            other => Headers::of(self.layer).answer(other),
        })
    }

    fn inner(&self, expr: &Expr) -> Tri {
        let satisfies = |layer| expr.eval(&LayerFacts { layer, ..*self }) == Tri::Yes;
        Tri::from(self.walk.layers().iter().any(satisfies))
    }
}
