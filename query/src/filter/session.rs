//! What only a session can be asked: its state, its service, how much and how long.

use super::error::Problem;
use super::lex::Compare;
use std::fmt;

/// A text of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TextField {
    /// `state`: conn_state.
    State,
    /// `history`.
    History,
    /// `service`.
    Service,
    /// `sni`: TLS or QUIC server name.
    Sni,
    /// `alpn`.
    Alpn,
    /// `ja4`.
    Ja4,
    /// `http-host`.
    HttpHost,
    /// `dns`: the first name asked for.
    Dns,
    /// `uid`.
    Uid,
}

/// A number of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum NumberField {
    /// `bytes`: IP bytes of both sides.
    Bytes,
    /// `packets`: of both sides.
    Packets,
    /// `duration`, ns.
    Duration,
}

const TEXTS: [(&str, TextField); 9] = [
    ("state", TextField::State),
    ("history", TextField::History),
    ("service", TextField::Service),
    ("sni", TextField::Sni),
    ("alpn", TextField::Alpn),
    ("ja4", TextField::Ja4),
    ("http-host", TextField::HttpHost),
    ("dns", TextField::Dns),
    ("uid", TextField::Uid),
];

const NUMBERS: [(&str, NumberField); 3] =
    [("bytes", NumberField::Bytes), ("packets", NumberField::Packets), ("duration", NumberField::Duration)];

impl TextField {
    pub(super) fn of(word: &str) -> Option<Self> {
        TEXTS.iter().find(|(name, _)| *name == word).map(|(_, field)| *field)
    }

    fn word(self) -> &'static str {
        TEXTS.iter().find(|(_, field)| *field == self).map_or("", |(word, _)| word)
    }

    /// Letters of these mean something in their case.
    fn keeps_case(self) -> bool {
        matches!(self, Self::History | Self::Uid)
    }
}

impl NumberField {
    pub(super) fn of(word: &str) -> Option<Self> {
        NUMBERS.iter().find(|(name, _)| *name == word).map(|(_, field)| *field)
    }

    fn word(self) -> &'static str {
        NUMBERS.iter().find(|(_, field)| *field == self).map_or("", |(word, _)| word)
    }
}

/// One question to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionAtom {
    /// A text matches a pattern, in which `*` stands for any text.
    Text {
        /// Which text.
        field: TextField,
        /// The pattern.
        pattern: String,
    },
    /// A number compares so to another.
    Number {
        /// Which number.
        field: NumberField,
        /// How.
        compare: Compare,
        /// To what: bytes, packets, ns.
        value: u64,
    },
}

impl SessionAtom {
    /// The answer where the session's text is `text`; no text matches nothing.
    #[must_use]
    pub fn text_matches(field: TextField, pattern: &str, text: Option<&str>) -> bool {
        text.is_some_and(|text| {
            if field.keeps_case() {
                glob(pattern.as_bytes(), text.as_bytes(), |a, b| a == b)
            } else {
                glob(pattern.as_bytes(), text.as_bytes(), |a, b| a.eq_ignore_ascii_case(&b))
            }
        })
    }
}

impl Compare {
    /// Whether `a` compares so to `b`.
    #[must_use]
    pub fn holds(self, a: u64, b: u64) -> bool {
        match self {
            Self::Less => a < b,
            Self::AtMost => a <= b,
            Self::Equal => a == b,
            Self::NotEqual => a != b,
            Self::AtLeast => a >= b,
            Self::Greater => a > b,
        }
    }

    fn sign(self) -> &'static str {
        match self {
            Self::Less => "<",
            Self::AtMost => "<=",
            Self::Equal => "=",
            Self::NotEqual => "!=",
            Self::AtLeast => ">=",
            Self::Greater => ">",
        }
    }
}

/// Whether `text` matches `pattern`, in which `*` stands for any bytes. Linear in memory and at most
/// quadratic in time: a hostile text cannot make it slow.
fn glob(pattern: &[u8], text: &[u8], same: impl Fn(u8, u8) -> bool) -> bool {
    let (mut p, mut t) = (0, 0);
    // Where to go on when the bytes behind the last star did not fit.
    let mut retry: Option<(usize, usize)> = None;
    while let Some(byte) = text.get(t) {
        match pattern.get(p) {
            Some(b'*') => {
                retry = Some((p + 1, t));
                p += 1;
            }
            Some(wanted) if same(*wanted, *byte) => {
                p += 1;
                t += 1;
            }
            _ => {
                let Some((after_star, from)) = retry else { return false };
                (p, t) = (after_star, from + 1);
                retry = Some((after_star, t));
            }
        }
    }
    pattern.get(p..).unwrap_or_default().iter().all(|byte| *byte == b'*')
}

/// `10`, `10k`, `10M`, `10G`, `10Ki`, `10MiB`: decimal multiples, or binary ones with an `i`.
pub(super) fn quantity(word: &str) -> Result<u64, Problem> {
    let digits = word.find(|c: char| !c.is_ascii_digit()).unwrap_or(word.len());
    let (number, unit) = word.split_at(digits);
    let unit = unit.to_ascii_lowercase();
    let unit = unit.strip_suffix('b').unwrap_or(&unit);
    let factor: Option<u64> = match unit {
        "" => Some(1),
        "k" => Some(1_000),
        "m" => Some(1_000_000),
        "g" => Some(1_000_000_000),
        "t" => Some(1_000_000_000_000),
        "ki" => Some(1 << 10),
        "mi" => Some(1 << 20),
        "gi" => Some(1 << 30),
        "ti" => Some(1 << 40),
        _ => None,
    };
    number.parse::<u64>().ok().zip(factor).and_then(|(n, factor)| n.checked_mul(factor)).ok_or_else(|| {
        Problem::new(format!("`{word}` is not a quantity"))
            .hint("as in `bytes > 500`, `bytes > 10M`, `bytes > 4GiB`")
    })
}

impl fmt::Display for SessionAtom {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text { field, pattern } => write!(f, "{} {pattern}", field.word()),
            Self::Number { field: NumberField::Duration, compare, value } => {
                write!(f, "duration {} {value}ns", compare.sign())
            }
            Self::Number { field, compare, value } => {
                write!(f, "{} {} {value}", field.word(), compare.sign())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_pattern_matches_names() {
        let sni = |pattern: &str, text: &str| SessionAtom::text_matches(TextField::Sni, pattern, Some(text));
        assert!(sni("*.example.org", "www.EXAMPLE.org"));
        assert!(!sni("*.example.org", "example.org"));
        assert!(!sni("*.example.org", "www.example.org.evil.net"));
        assert!(sni("*", ""));
        assert!(sni("a*b*c", "aXbbYc"));
        assert!(!sni("", "a"));
        assert!(!SessionAtom::text_matches(TextField::Sni, "*", None));
        assert!(!SessionAtom::text_matches(TextField::History, "shadadff", Some("ShADadFf")));
    }

    #[test]
    fn quantities_have_units() {
        assert_eq!(quantity("10M").unwrap(), 10_000_000);
        assert_eq!(quantity("4GiB").unwrap(), 4 << 30);
        assert_eq!(quantity("7").unwrap(), 7);
        for wrong in ["", "M", "10X", "1.5M", "99999999999T"] {
            assert!(quantity(wrong).is_err(), "{wrong}");
        }
    }

    proptest! {
        #[test]
        fn a_glob_is_what_the_plain_recursion_says(pattern in "[ab*]{0,8}", text in "[ab]{0,10}") {
            fn plain(p: &[u8], t: &[u8]) -> bool {
                match p.split_first() {
                    None => t.is_empty(),
                    Some((b'*', p)) => (0..=t.len()).any(|n| plain(p, &t[n..])),
                    Some((c, p)) => t.first() == Some(c) && plain(p, &t[1..]),
                }
            }
            let got = glob(pattern.as_bytes(), text.as_bytes(), |a, b| a == b);
            prop_assert_eq!(got, plain(pattern.as_bytes(), text.as_bytes()));
        }
    }
}
