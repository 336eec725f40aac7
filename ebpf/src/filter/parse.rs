//! From the text of a rule to the rule. It must never guess: what is not understood is refused with what to
//! write instead.

use super::{Network, Proto, RangeOfPorts, Rule, Vlan, masked};
use std::net::IpAddr;

/// Why a text is no rule.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{rule}`: {why}")]
pub struct RuleError {
    /// The text.
    pub rule: String,
    /// What is wrong with it, and what to write.
    pub why: String,
}

/// What a rule can be.
const FORMS: &str = "a rule is one or more of `net N/LEN`, `host A`, `port P`, `portrange P-Q`, `tcp`, `udp`, `sctp` (also \
                     before a port), `icmp`, `icmp6`, `proto N`, `vlan`, `vlan N`, joined by `and`";

/// The words of a rule that are still to be read.
struct Words<'t>(std::iter::Peekable<std::str::SplitAsciiWhitespace<'t>>);

impl<'t> Words<'t> {
    fn value(&mut self, of: &str) -> Result<&'t str, String> {
        self.0.next().ok_or_else(|| format!("`{of}` wants a value"))
    }
}

pub(super) fn rule(text: &str) -> Result<Rule, RuleError> {
    read(text).map_err(|why| RuleError { rule: text.to_owned(), why })
}

fn read(text: &str) -> Result<Rule, String> {
    let mut words = Words(text.split_ascii_whitespace().peekable());
    let mut rule = Rule::default();
    loop {
        question(&mut rule, &mut words)?;
        match words.0.next() {
            None => break,
            Some("and" | "&&") => {}
            Some("or" | "||") => return Err("entries of a list are alternatives: make two of it".to_owned()),
            Some(word) => return Err(format!("`and` is missing before `{word}`")),
        }
    }
    if let (Some(Proto::Icmp | Proto::Icmp6), Some(_)) = (rule.proto, rule.ports) {
        return Err("ICMP has no ports".to_owned());
    }
    rule.nets.sort_unstable();
    rule.nets.dedup();
    rule.vlans.sort_unstable();
    rule.vlans.dedup();
    Ok(rule)
}

/// Reads one question into the rule.
fn question(rule: &mut Rule, words: &mut Words<'_>) -> Result<(), String> {
    let Some(word) = words.0.next() else { return Err(FORMS.to_owned()) };
    match word {
        "net" | "host" => {
            let net = network(words.value(word)?, word == "host")?;
            at_most_two(&mut rule.nets, net, "networks")
        }
        "vlan" => {
            let id = words.0.next_if(|next| *next != "and" && *next != "&&");
            at_most_two(&mut rule.vlans, id.map_or(Ok(Vlan::Tagged), vlan)?, "VLANs")
        }
        "port" => once(&mut rule.ports, port_range(words.value(word)?, false)?, "port"),
        "portrange" => once(&mut rule.ports, port_range(words.value(word)?, true)?, "port"),
        "tcp" | "udp" | "sctp" => {
            let number = match word {
                "tcp" => 6,
                "udp" => 17,
                _ => 132,
            };
            once(&mut rule.proto, Proto::Any(number), "protocol")?;
            match words.0.peek() {
                Some(&("port" | "portrange")) => question(rule, words),
                _ => Ok(()),
            }
        }
        "icmp" => once(&mut rule.proto, Proto::Icmp, "protocol"),
        "icmp6" => once(&mut rule.proto, Proto::Icmp6, "protocol"),
        "proto" => {
            let text = words.value(word)?;
            let number = text.parse().map_err(|_| format!("`{text}` is not a protocol from 0 to 255"))?;
            once(&mut rule.proto, Proto::Any(number), "protocol")
        }
        "not" | "!" => Err("a rule says what is kept or skipped: put it into the other list".to_owned()),
        "src" | "dst" => Err(format!("`{word}`: rules mean both directions; leave it out")),
        _ if network(word, false).is_ok() => Err(format!("write `net {word}`")),
        _ if network(word, true).is_ok() => Err(format!("write `host {word}`")),
        _ => Err(format!("`{word}` is not understood; {FORMS}")),
    }
}

fn once<T>(place: &mut Option<T>, value: T, what: &str) -> Result<(), String> {
    if place.replace(value).is_some() { Err(format!("one {what} a rule")) } else { Ok(()) }
}

fn at_most_two<T>(list: &mut Vec<T>, value: T, what: &str) -> Result<(), String> {
    list.push(value);
    if list.len() > 2 { Err(format!("two {what} a rule at most")) } else { Ok(()) }
}

fn vlan(text: &str) -> Result<Vlan, String> {
    let id = text.parse().ok().filter(|id| *id < 4096);
    id.map(Vlan::Id).ok_or_else(|| format!("`{text}` is not a VLAN id from 0 to 4095"))
}

fn network(text: &str, host: bool) -> Result<Network, String> {
    let (address, bits) = match text.split_once('/') {
        Some(_) if host => return Err(format!("`{text}` is a network: write `net {text}`")),
        Some((address, bits)) => (address, Some(bits)),
        None => (text, None),
    };
    let address: IpAddr = address.parse().map_err(|_| {
        format!("`{address}` is not an IPv4 or IPv6 address (names are not looked up, all four numbers are written)")
    })?;
    let whole = if address.is_ipv4() { 32 } else { 128 };
    let bits = match bits {
        Some(text) => {
            let fits = |bits: &u8| *bits <= whole;
            let bits = text.parse().ok().filter(fits);
            bits.ok_or_else(|| format!("`/{text}` is not a length from 0 to {whole}"))?
        }
        None if host => whole,
        None => return Err(format!("a network has a length, such as `net {address}/{}`", whole / 4 * 3)),
    };
    let first = masked(address, bits);
    if first != address {
        return Err(format!("bits behind the length must be 0: write `net {first}/{bits}`"));
    }
    Ok(Network { address, bits })
}

fn port_range(text: &str, range: bool) -> Result<RangeOfPorts, String> {
    let port = |text: &str| text.parse().map_err(|_| format!("`{text}` is not a port from 0 to 65535"));
    let (first, last) = match text.split_once('-') {
        Some((first, last)) if range => (port(first)?, port(last)?),
        Some(_) => return Err(format!("write `portrange {text}`")),
        None if range => return Err(format!("`portrange` wants P-Q, not `{text}`")),
        None => (port(text)?, port(text)?),
    };
    if first > last {
        Err(format!("`{text}`: the first port is the smaller one"))
    } else {
        Ok(RangeOfPorts { first, last })
    }
}
