//! Filter text to tokens. Knows blanks, operators and words; what a word means is the parser's business.

use super::session::TextField;
use std::ops::Range;

/// A comparison sign.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Compare {
    /// `<`
    Less,
    /// `<=`
    AtMost,
    /// `=`, `==`
    Equal,
    /// `!=`
    NotEqual,
    /// `>=`
    AtLeast,
    /// `>`
    Greater,
}

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    /// Anything between blanks and operators: keyword, address, number, name.
    Word(&'a str),
    /// `(`
    Open,
    /// `)`
    Close,
    /// `and`, `&&`
    And,
    /// `or`, `||`
    Or,
    /// `not`, `!`
    Not,
    /// A comparison sign.
    Compare(Compare),
    /// `[` right behind a word: a byte offset of tcpdump's language.
    Offset,
    /// A sign of arithmetic.
    Arithmetic,
    /// A character of no meaning here.
    Stray(char),
}

/// A token and its byte range in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind<'a>,
    pub(super) span: Range<usize>,
}

/// All tokens of `text`.
pub(super) fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens: Vec<Token<'_>> = Vec::new();
    let mut at = 0;
    while let Some(rest) = text.get(at..) {
        let Some(first) = rest.chars().next() else { break };
        if first.is_ascii_whitespace() {
            at += 1;
            continue;
        }
        // A Community ID holds signs of base64, a pattern holds stars: they mean something else elsewhere.
        let verbatim = match tokens.last() {
            Some(Token { kind: Kind::Word(word), .. }) => {
                *word == "community-id" || TextField::of(word).is_some()
            }
            _ => false,
        };
        let glued = tokens.last().is_some_and(|token| token.span.end == at);
        let (kind, bytes) = if verbatim && !matches!(first, '(' | ')') {
            word(rest, |c| !c.is_ascii_whitespace() && c != ')')
        } else {
            token(rest, first, glued)
        };
        tokens.push(Token { kind, span: at..at + bytes });
        at += bytes;
    }
    tokens
}

/// The token that `rest` begins with and its length in bytes.
fn token(rest: &str, first: char, glued: bool) -> (Kind<'_>, usize) {
    let two = rest.get(..2).unwrap_or_default();
    match (two, first) {
        ("&&", _) => (Kind::And, 2),
        ("||", _) => (Kind::Or, 2),
        ("!=", _) => (Kind::Compare(Compare::NotEqual), 2),
        ("==", _) => (Kind::Compare(Compare::Equal), 2),
        ("<=", _) => (Kind::Compare(Compare::AtMost), 2),
        (">=", _) => (Kind::Compare(Compare::AtLeast), 2),
        ("<<" | ">>", _) => (Kind::Arithmetic, 2),
        (_, '(') => (Kind::Open, 1),
        (_, ')') => (Kind::Close, 1),
        (_, '!') => (Kind::Not, 1),
        (_, '=') => (Kind::Compare(Compare::Equal), 1),
        (_, '<') => (Kind::Compare(Compare::Less), 1),
        (_, '>') => (Kind::Compare(Compare::Greater), 1),
        (_, '[') if glued => (Kind::Offset, 1),
        (_, '&' | '|' | '+' | '*' | '%' | '^') => (Kind::Arithmetic, 1),
        (_, '[') => bracketed(rest),
        (_, c) if in_word(c) => word(rest, in_word),
        (_, other) => (Kind::Stray(other), other.len_utf8()),
    }
}

fn in_word(c: char) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | ':' | '/' | '\\' | '$' | '"' | '\'')
}

fn word(rest: &str, belongs: impl Fn(char) -> bool) -> (Kind<'_>, usize) {
    let bytes = rest.find(|c| !belongs(c)).unwrap_or(rest.len());
    let text = rest.get(..bytes).unwrap_or_default();
    let kind = match text {
        "and" => Kind::And,
        "or" => Kind::Or,
        "not" => Kind::Not,
        _ => Kind::Word(text),
    };
    (kind, bytes)
}

/// `[2001:db8::1]:443`: an address in brackets and what is glued to it.
fn bracketed(rest: &str) -> (Kind<'_>, usize) {
    let inside = rest.find(']').map_or(1, |close| close + 1);
    let behind = rest.get(inside..).unwrap_or_default();
    let bytes = inside + behind.find(|c| !in_word(c)).unwrap_or(behind.len());
    (Kind::Word(rest.get(..bytes).unwrap_or_default()), bytes)
}
