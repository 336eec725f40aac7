//! Tokens to a tree: recursive descent over libpcap's grammar, with our own words added.
//!
//! As in libpcap `and` and `or` are of equal rank and group from the left, `not` binds tightest, and a
//! bare address, port or name repeats the qualifiers before it. Depth is bounded: no text overflows
//! the stack, here or when the tree is walked.

use super::ast::{Atom, Dir, Expr, Family, Transport, Version};
use super::error::{FilterError, Problem};
use super::lex::{Compare, Kind, Token, tokens};
use super::session::{NumberField, SessionAtom, TextField, quantity};
use super::{names, value};
use crate::time_arg::parse_duration_ns;
use std::ops::Range;
use tapedeck_packet::CommunityId;

/// How deep brackets, negations and changes between `and` and `or` may nest.
pub(super) const MAX_DEPTH: usize = 128;

/// Reads a whole filter.
pub(super) fn parse(text: &str) -> Result<Expr, FilterError> {
    let error = |(span, problem)| FilterError::new(text, span, problem);
    let tokens = tokens(text);
    if tokens.is_empty() {
        return Ok(Expr::All);
    }
    let mut parser = Parser { tokens, at: 0, depth: 0, inside: false, end: text.len() };
    let node = parser.expr(None).map_err(error)?;
    match parser.tokens.get(parser.at) {
        None => Ok(node.expr),
        Some(token) => Err(error((token.span.clone(), Problem::new("there is no `(` for this `)`")))),
    }
}

/// A place in the text and what is wrong there.
type Fail = (Range<usize>, Problem);

/// The protocol that stands before a `host`, `port`, ...
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Qualifier {
    None,
    Ether,
    Address(Family),
    Port(Transport),
}

/// What kind of value follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    Host,
    Net,
    Port,
    PortRange,
    Proto,
}

/// The qualifiers before a value; a later bare value repeats them.
#[derive(Clone, Copy, Debug)]
struct Head {
    qualifier: Qualifier,
    dir: Dir,
    sort: Sort,
}

/// An expression, how deep it nests, and the qualifiers that a bare value behind it repeats.
struct Node {
    expr: Expr,
    depth: usize,
    head: Option<Head>,
}

impl Node {
    fn atom(atom: Atom, head: Option<Head>) -> Self {
        Self { expr: Expr::Atom(atom), depth: 0, head }
    }
}

struct Parser<'a> {
    tokens: Vec<Token<'a>>,
    at: usize,
    depth: usize,
    inside: bool,
    end: usize,
}

impl<'a> Parser<'a> {
    fn peek(&self, ahead: usize) -> Option<Kind<'a>> {
        self.tokens.get(self.at + ahead).map(|token| token.kind)
    }

    fn peek_word(&self) -> Option<&'a str> {
        match self.peek(0) {
            Some(Kind::Word(word)) => Some(word),
            _ => None,
        }
    }

    /// The next token; its absence is an error that says what was expected.
    fn next(&mut self, expected: &str) -> Result<(Kind<'a>, Range<usize>), Fail> {
        let token = self.tokens.get(self.at).cloned();
        self.at += 1;
        let token = token.ok_or_else(|| {
            (self.end..self.end, Problem::new(format!("the filter ends where {expected} should follow")))
        })?;
        Ok((token.kind, token.span))
    }

    fn next_word(&mut self, expected: &str) -> Result<(&'a str, Range<usize>), Fail> {
        match self.next(expected)? {
            (Kind::Word(word), span) => Ok((word, span)),
            (other, span) => Err((span, unexpected(other, expected))),
        }
    }

    /// Runs `read` one level deeper.
    fn deeper(
        &mut self,
        span: &Range<usize>,
        read: impl FnOnce(&mut Self) -> Result<Node, Fail>,
    ) -> Result<Node, Fail> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err((span.clone(), too_deep()));
        }
        let node = read(self)?;
        self.depth -= 1;
        Ok(node)
    }

    /// A chain of operands, up to a `)` or the end.
    fn expr(&mut self, carried: Option<Head>) -> Result<Node, Fail> {
        let mut left = self.operand(carried)?;
        loop {
            let operator = match self.peek(0) {
                Some(operator @ (Kind::And | Kind::Or)) => operator,
                None | Some(Kind::Close) => return Ok(left),
                Some(_) => return Err(self.no_operator()),
            };
            self.at += 1;
            let place = self.tokens.get(self.at).map_or(self.end..self.end, |token| token.span.clone());
            let right = self.operand(left.head)?;
            left = joined(left, operator, right);
            if left.depth > MAX_DEPTH {
                return Err((place, too_deep()));
            }
        }
    }

    /// Something stands where `and` or `or` should.
    fn no_operator(&mut self) -> Fail {
        match self.next("`and` or `or`") {
            Ok((Kind::Word(word), span)) if word.starts_with('[') => (span, byte_offset()),
            Ok((Kind::Word(_) | Kind::Open | Kind::Not, span)) => {
                let problem = Problem::new("`and` or `or` is missing before this");
                (span, problem.hint("write `host A and port 80`"))
            }
            Ok((other, span)) => (span, unexpected(other, "`and` or `or`")),
            Err(fail) => fail,
        }
    }

    /// One operand: a negation, an expression in brackets, a primitive, or a bare value.
    fn operand(&mut self, carried: Option<Head>) -> Result<Node, Fail> {
        let (kind, span) = self.next("an expression")?;
        match kind {
            Kind::Not => self.deeper(&span, |parser| Ok(negated(parser.operand(carried)?))),
            Kind::Open => self.brackets(&span, carried),
            Kind::Word(word) => self.primitive(word, span, carried),
            other => Err((span, unexpected(other, "an expression"))),
        }
    }

    /// The rest of `( expr )`; what is carried afterwards is what was carried before.
    fn brackets(&mut self, open: &Range<usize>, carried: Option<Head>) -> Result<Node, Fail> {
        let node = self.deeper(open, |parser| parser.expr(carried))?;
        match self.peek(0) {
            Some(Kind::Close) => self.at += 1,
            _ => return Err((open.clone(), Problem::new("this `(` is never closed"))),
        }
        Ok(Node { head: carried, ..node })
    }

    /// A primitive that begins with `word`, or a bare value.
    fn primitive(&mut self, word: &'a str, span: Range<usize>, carried: Option<Head>) -> Result<Node, Fail> {
        if let Some(problem) = names::unsupported(word) {
            return Err((span, problem));
        }
        let family = |family| Qualifier::Address(family);
        match word {
            "host" | "net" | "port" | "portrange" | "proto" | "src" | "dst" => {
                self.at -= 1;
                self.qualified(Qualifier::None, word, span)
            }
            "ip" => self.qualified(family(Family::Ip), word, span),
            "ip6" => self.qualified(family(Family::Ip6), word, span),
            "arp" => self.qualified(family(Family::Arp), word, span),
            "rarp" => self.qualified(family(Family::Rarp), word, span),
            "tcp" => self.qualified(Qualifier::Port(Transport::Tcp), word, span),
            "udp" => self.qualified(Qualifier::Port(Transport::Udp), word, span),
            "sctp" => self.qualified(Qualifier::Port(Transport::Sctp), word, span),
            "ether" | "link" | "fddi" | "tr" | "wlan" | "ppp" | "slip" => {
                self.qualified(Qualifier::Ether, word, span)
            }
            "vlan" | "mpls" | "pppoes" => self.tag(word),
            "less" | "greater" => self.length(word),
            "len" | "length" => self.length_comparison(),
            "community-id" => self.community_id(),
            "flow" => self.flow(),
            "inner" => self.inner(&span),
            _ if TextField::of(word).is_some() || NumberField::of(word).is_some() => self.session(word),
            _ => match (abbreviation(word), carried) {
                (Some(atom), _) => Ok(Node::atom(atom, None)),
                // A misspelt keyword, sooner than a bad address or port.
                (None, Some(head)) => self.value(head, word, span).map_err(|(span, problem)| {
                    let typo = names::nearest(word).is_some();
                    (span, if typo { unknown(word) } else { problem })
                }),
                (None, None) => Err((span, unknown(word))),
            },
        }
    }

    /// Behind a protocol: direction, sort and value; or the protocol alone.
    fn qualified(&mut self, qualifier: Qualifier, word: &'a str, span: Range<usize>) -> Result<Node, Fail> {
        let multicast = self.peek_word().filter(|next| matches!(*next, "broadcast" | "multicast"));
        if let Some(next) = multicast {
            let place = self.next(next)?.1;
            let atom = cast(qualifier, next).map_err(|problem| (place, problem))?;
            return Ok(Node::atom(atom, None));
        }
        let dir = self.direction();
        let sort = match self.peek_word() {
            Some("host") => Some(Sort::Host),
            Some("net") => Some(Sort::Net),
            Some("port") => Some(Sort::Port),
            Some("portrange") => Some(Sort::PortRange),
            Some("proto") if dir.is_none() => Some(Sort::Proto),
            Some(word @ ("gateway" | "protochain")) => {
                let place = self.next(word)?.1;
                return Err((place, names::unsupported(word).unwrap_or_else(|| unknown(word))));
            }
            _ => None,
        };
        self.at += usize::from(sort.is_some());
        let sort = match (dir, sort) {
            (_, Some(sort)) => sort,
            (Some(_), None) => Sort::Host,
            (None, None) => {
                let atom = abbreviation(word).ok_or_else(|| (span, lonely(word)))?;
                return Ok(Node::atom(atom, None));
            }
        };
        self.id(Head { qualifier, dir: dir.unwrap_or_default(), sort })
    }

    /// `src`, `dst`, and the two joined by `or` or `and`.
    fn direction(&mut self) -> Option<Dir> {
        let (one, other) = match self.peek_word()? {
            "src" => (Dir::Source, "dst"),
            "dst" => (Dir::Destination, "src"),
            _ => return None,
        };
        let joined = match (self.peek(1), self.peek(2)) {
            (Some(Kind::Or), Some(Kind::Word(word))) if word == other => Some(Dir::Either),
            (Some(Kind::And), Some(Kind::Word(word))) if word == other => Some(Dir::Both),
            _ => None,
        };
        self.at += if joined.is_some() { 3 } else { 1 };
        Some(joined.unwrap_or(one))
    }

    /// A value behind its qualifiers: `host A`, `host not A`, `host (A or B)`.
    fn id(&mut self, head: Head) -> Result<Node, Fail> {
        let (kind, span) = self.next(expected(head))?;
        match kind {
            Kind::Not => self.deeper(&span, |parser| Ok(negated(parser.id(head)?))),
            Kind::Open => self.brackets(&span, Some(head)),
            Kind::Word(word) => self.value(head, word, span),
            other => Err((span, unexpected(other, expected(head)))),
        }
    }

    fn value(&mut self, head: Head, word: &'a str, span: Range<usize>) -> Result<Node, Fail> {
        let mask = match (head.sort, self.peek_word()) {
            (Sort::Net, Some("mask")) => {
                self.at += 1;
                Some(self.next_word("a mask")?.0)
            }
            _ => None,
        };
        let is_keyword = head.sort != Sort::Proto && names::is_keyword(word);
        let atom = if is_keyword {
            Err(Problem::new(format!("`{word}` stands where {} should", expected(head))))
        } else {
            atom(head, word, mask)
        };
        match atom {
            Ok(atom) => Ok(Node::atom(atom, Some(head))),
            Err(problem) => Err((span, problem)),
        }
    }

    fn tag(&mut self, word: &str) -> Result<Node, Fail> {
        let number = self.peek_word().filter(|next| next.starts_with(|c: char| c.is_ascii_digit()));
        let Some(number) = number else {
            let atom = match word {
                "vlan" => Atom::Vlan(None),
                "mpls" => Atom::Mpls(None),
                _ => Atom::Pppoe(None),
            };
            return Ok(Node::atom(atom, None));
        };
        let (_, span) = self.next(word)?;
        let atom = match word {
            "vlan" => value::bounded(number, 4095_u16, "VLAN id").map(|id| Atom::Vlan(Some(id))),
            "mpls" => value::bounded(number, 0xf_ffff_u32, "label").map(|label| Atom::Mpls(Some(label))),
            _ => value::bounded(number, u16::MAX, "session").map(|session| Atom::Pppoe(Some(session))),
        };
        atom.map(|atom| Node::atom(atom, None)).map_err(|problem| (span, problem))
    }

    fn number(&mut self) -> Result<u32, Fail> {
        let (word, span) = self.next_word("a number")?;
        value::number(word).map_err(|problem| (span, problem))
    }

    fn length(&mut self, word: &str) -> Result<Node, Fail> {
        let bytes = self.number()?;
        let atom = if word == "less" { Atom::AtMost(bytes) } else { Atom::AtLeast(bytes) };
        Ok(Node::atom(atom, None))
    }

    /// `len >= 60` and its kin, in terms of `less` and `greater`.
    fn length_comparison(&mut self) -> Result<Node, Fail> {
        let sign = match self.next("a comparison")? {
            (Kind::Compare(sign), _) => sign,
            (other, span) => return Err((span, unexpected(other, "a comparison such as `len >= 60`"))),
        };
        let bytes = self.number()?;
        let (at_most, at_least) = (Expr::Atom(Atom::AtMost(bytes)), Expr::Atom(Atom::AtLeast(bytes)));
        let (expr, depth) = match sign {
            Compare::AtMost => (at_most, 0),
            Compare::AtLeast => (at_least, 0),
            Compare::Less => (at_least.negated(), 1),
            Compare::Greater => (at_most.negated(), 1),
            Compare::Equal => (at_least.and(at_most), 1),
            Compare::NotEqual => (at_least.and(at_most).negated(), 2),
        };
        Ok(Node { expr, depth, head: None })
    }

    fn community_id(&mut self) -> Result<Node, Fail> {
        let (word, span) = self.next_word("a Community ID")?;
        let bare = word.trim_matches(['"', '\'']);
        let id = CommunityId::parse(bare).ok_or_else(|| {
            let problem = Problem::new("this is not a Community ID of version 1");
            (span, problem.hint("it looks like 1:LQU9qZlK+B5F3KDmev6m5PMibrg="))
        })?;
        Ok(Node::atom(Atom::CommunityId(id), None))
    }

    fn flow(&mut self) -> Result<Node, Fail> {
        let mut ends = [None, None];
        for slot in &mut ends {
            let (word, span) = self.next_word("an address and port")?;
            *slot = Some(value::end(word).map_err(|problem| (span, problem))?);
        }
        let (word, span) = self.next_word("a protocol: tcp, udp or sctp")?;
        let proto = value::ip_protocol(word).and_then(|proto| match proto {
            6 | 17 | 33 | 132 | 136 => Ok(proto),
            _ => {
                Err(Problem::new(format!("`{word}` has no ports")).hint("write `host A and host B and icmp`"))
            }
        });
        match (ends, proto) {
            ([Some(a), Some(b)], Ok(proto)) => Ok(Node::atom(Atom::Flow { a, b, proto }, None)),
            (_, Err(problem)) => Err((span, problem)),
            _ => Err((span, Problem::new("a flow has two ends"))),
        }
    }

    /// `state S0`, `sni *.example.org`, `bytes > 10M`, `duration >= 5m`.
    fn session(&mut self, word: &str) -> Result<Node, Fail> {
        let leaf = |atom| Ok(Node { expr: Expr::Session(atom), depth: 0, head: None });
        if let Some(field) = TextField::of(word) {
            let (pattern, _) = self.next_word("a text, in which * stands for anything")?;
            let pattern = pattern.trim_matches(['"', '\'']).to_owned();
            return leaf(SessionAtom::Text { field, pattern });
        }
        let field = NumberField::of(word).unwrap_or(NumberField::Bytes);
        let example =
            format!("a comparison such as `{word} > {}`", if word == "duration" { "5m" } else { "10" });
        let compare = match self.next(&example)? {
            (Kind::Compare(sign), _) => sign,
            (other, span) => return Err((span, unexpected(other, &example))),
        };
        let (text, span) = self.next_word("a quantity")?;
        let value = match field {
            NumberField::Duration => parse_duration_ns(text)
                .map_err(|error| Problem::new(format!("`{text}`: {error}")).hint(error.hint())),
            NumberField::Bytes | NumberField::Packets => quantity(text),
        };
        leaf(SessionAtom::Number { field, compare, value: value.map_err(|problem| (span, problem))? })
    }

    fn inner(&mut self, span: &Range<usize>) -> Result<Node, Fail> {
        if self.inside {
            let problem = Problem::new("`inner` inside `inner`");
            return Err((span.clone(), problem.hint("write two: `inner (A) and inner (B)`")));
        }
        let open = match self.next("`(`")? {
            (Kind::Open, open) => open,
            (other, span) => {
                return Err((span, unexpected(other, "`(`").hint("write `inner (host A and port 53)`")));
            }
        };
        self.inside = true;
        let node = self.brackets(&open, None)?;
        self.inside = false;
        Ok(Node { expr: Expr::Inner(Box::new(node.expr)), depth: node.depth + 1, head: None })
    }
}

fn negated(node: Node) -> Node {
    Node { expr: node.expr.negated(), depth: node.depth + 1, head: node.head }
}

fn joined(left: Node, operator: Kind<'_>, right: Node) -> Node {
    let same = matches!((&left.expr, operator), (Expr::And(_), Kind::And) | (Expr::Or(_), Kind::Or));
    let depth = (left.depth + usize::from(!same)).max(right.depth + 1);
    let expr = if operator == Kind::And { left.expr.and(right.expr) } else { left.expr.or(right.expr) };
    Node { expr, depth, head: right.head }
}

/// A word that is a primitive by itself.
fn abbreviation(word: &str) -> Option<Atom> {
    let proto = |version, number| Some(value::proto_atom(version, number));
    match word {
        "tcp" => proto(Version::Any, 6),
        "udp" => proto(Version::Any, 17),
        "sctp" => proto(Version::Any, 132),
        "esp" => proto(Version::Any, 50),
        "pim" => proto(Version::Any, 103),
        "icmp" => proto(Version::V4, 1),
        "igmp" => proto(Version::V4, 2),
        "igrp" => proto(Version::V4, 9),
        "vrrp" | "carp" => proto(Version::V4, 112),
        "icmp6" => proto(Version::V6, 58),
        "pppoed" => Some(Atom::EtherType(0x8863)),
        "broadcast" => Some(Atom::Broadcast),
        "multicast" => Some(Atom::Multicast),
        "loopback" => None,
        _ => names::ethertype(word).map(Atom::EtherType),
    }
}

/// The question that a value asks behind its qualifiers.
fn atom(head: Head, word: &str, mask: Option<&str>) -> Result<Atom, Problem> {
    let Head { qualifier, dir, sort } = head;
    match (qualifier, sort) {
        (Qualifier::Ether, Sort::Host) => value::mac(word)
            .map(|mac| Atom::Mac { dir, mac })
            .ok_or_else(|| Problem::new(format!("`{word}` is not a MAC address"))),
        (Qualifier::Ether, Sort::Proto) => value::ether_protocol(word),
        (Qualifier::None, Sort::Host) => value::address_atom(Family::Any, dir, value::host(word)?),
        (Qualifier::None, Sort::Net) => value::address_atom(Family::Any, dir, value::network(word, mask)?),
        (Qualifier::Address(family), Sort::Host) => value::address_atom(family, dir, value::host(word)?),
        (Qualifier::Address(family), Sort::Net) => {
            value::address_atom(family, dir, value::network(word, mask)?)
        }
        (Qualifier::None, Sort::Port) => port(Transport::Any, dir, word),
        (Qualifier::Port(transport), Sort::Port) => port(transport, dir, word),
        (Qualifier::None, Sort::PortRange) => port_range(Transport::Any, dir, word),
        (Qualifier::Port(transport), Sort::PortRange) => port_range(transport, dir, word),
        (Qualifier::None, Sort::Proto) => {
            value::ip_protocol(word).map(|number| value::proto_atom(Version::Any, number))
        }
        (Qualifier::Address(Family::Ip), Sort::Proto) => {
            value::ip_protocol(word).map(|number| value::proto_atom(Version::V4, number))
        }
        (Qualifier::Address(Family::Ip6), Sort::Proto) => {
            value::ip_protocol(word).map(|number| value::proto_atom(Version::V6, number))
        }
        _ => Err(misplaced(sort)),
    }
}

fn port(transport: Transport, dir: Dir, word: &str) -> Result<Atom, Problem> {
    let (port, named) = value::port(word)?;
    let transport = value::with_transport(word, transport, named)?;
    Ok(Atom::Port { transport, dir, range: (port, port) })
}

fn port_range(transport: Transport, dir: Dir, word: &str) -> Result<Atom, Problem> {
    let (range, named) = value::port_range(word)?;
    let transport = value::with_transport(word, transport, named)?;
    Ok(Atom::Port { transport, dir, range })
}

/// `ether broadcast`, `ip multicast` and so on.
fn cast(qualifier: Qualifier, word: &str) -> Result<Atom, Problem> {
    match (qualifier, word) {
        (Qualifier::Ether, "broadcast") => Ok(Atom::Broadcast),
        (Qualifier::Ether, _) => Ok(Atom::Multicast),
        (Qualifier::Address(Family::Ip), "multicast") => Ok(Atom::IpMulticast(Version::V4)),
        (Qualifier::Address(Family::Ip6), "multicast") => Ok(Atom::IpMulticast(Version::V6)),
        (Qualifier::Address(Family::Ip), _) => Err(Problem::new("`ip broadcast` needs the network's mask")
            .hint("write the addresses: `dst host 255.255.255.255 or dst host 10.0.0.255`")),
        _ => Err(Problem::new(format!("`{word}` goes with `ether`, `ip` and `ip6` only"))),
    }
}

fn expected(head: Head) -> &'static str {
    match (head.sort, head.qualifier) {
        (Sort::Host, Qualifier::Ether) => "a MAC address",
        (Sort::Host, _) => "an address",
        (Sort::Net, _) => "a network",
        (Sort::Port, _) => "a port",
        (Sort::PortRange, _) => "a range of ports",
        (Sort::Proto, _) => "a protocol",
    }
}

fn misplaced(sort: Sort) -> Problem {
    match sort {
        Sort::Host | Sort::Net => Problem::new("a transport or link protocol cannot qualify an address")
            .hint("write `tcp and host A`"),
        Sort::Port | Sort::PortRange => {
            Problem::new("only tcp, udp and sctp can qualify a port").hint("write `ip and port 80`")
        }
        Sort::Proto => Problem::new("only ip, ip6 and ether can qualify `proto`"),
    }
}

fn lonely(word: &str) -> Problem {
    Problem::new(format!("something should follow `{word}`"))
        .hint("as in `ether host 00:11:22:33:44:55` or `ether proto 0x88cc`")
}

fn too_deep() -> Problem {
    Problem::new(format!("the filter nests deeper than {MAX_DEPTH} levels"))
}

fn byte_offset() -> Problem {
    Problem::new("byte offsets such as `tcp[13]` are not in the language")
        .hint("narrow the search here, then filter the answer with tcpdump: `taperead packets ... -w - | tcpdump -r - ...`")
}

fn unexpected(kind: Kind<'_>, expected: &str) -> Problem {
    match kind {
        Kind::Offset => byte_offset(),
        Kind::Arithmetic => Problem::new("arithmetic is not in the language").hint("lengths: `len >= 60`"),
        Kind::Compare(_) => Problem::new("only `len` can be compared").hint("as in `len >= 60`"),
        Kind::Stray(c) => Problem::new(format!("unexpected character {c:?}")),
        Kind::And | Kind::Or => Problem::new(format!("an operator stands where {expected} should")),
        Kind::Close => Problem::new(format!("`)` stands where {expected} should")),
        Kind::Open | Kind::Not | Kind::Word(_) => Problem::new(format!("{expected} should stand here")),
    }
}

/// A bare word with no qualifier before it.
fn unknown(word: &str) -> Problem {
    let problem = Problem::new(format!("unknown word `{word}`"));
    if value::mac(word).is_some() && word.contains([':', '-']) {
        problem.hint(format!("for a MAC address write `ether host {word}`"))
    } else if word.contains('/') && value::network(word, None).is_ok() {
        problem.hint(format!("for a network write `net {word}`"))
    } else if value::address(word).is_ok() {
        problem.hint(format!("for an address write `host {word}`"))
    } else if value::number(word).is_ok() || names::service(word).is_some() {
        problem.hint(format!("for a port write `port {word}`"))
    } else {
        match names::nearest(word) {
            Some(near) => problem.hint(format!("did you mean `{near}`?")),
            None => problem.hint("docs/filter.md lists the language; the manual page pcap-filter(7) the part shared with tcpdump"),
        }
    }
}
