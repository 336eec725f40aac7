//! Words that stand for values: addresses, networks, ports, numbers, protocol names.

use super::ast::{Atom, Dir, Family, Prefix, Transport, Version};
use super::error::Problem;
use super::names;
use std::net::{IpAddr, Ipv4Addr};

type Value<T> = Result<T, Problem>;

/// A number: decimal or 0x.
pub(super) fn number(word: &str) -> Value<u32> {
    let problem = || Problem::new(format!("`{word}` is not a number"));
    if let Some(hex) = word.strip_prefix("0x").or_else(|| word.strip_prefix("0X")) {
        return u32::from_str_radix(hex, 16).map_err(|_| problem());
    }
    if word.len() > 1 && word.starts_with('0') {
        return Err(problem().hint("a leading 0 means octal to tcpdump: write the number without it"));
    }
    if !word.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(problem());
    }
    word.parse().map_err(|_| Problem::new(format!("`{word}` is too large")))
}

/// A number not above `max`; `what` names it in the message.
pub(super) fn bounded<T>(word: &str, max: T, what: &str) -> Value<T>
where
    T: TryFrom<u32> + PartialOrd + std::fmt::Display,
{
    let value = T::try_from(number(word)?).ok().filter(|value| *value <= max);
    value.ok_or_else(|| Problem::new(format!("{what} `{word}` is above {max}")))
}

/// One IP address.
pub(super) fn address(word: &str) -> Value<IpAddr> {
    word.parse().map_err(|_| not_an_address(word))
}

fn not_an_address(word: &str) -> Problem {
    let problem = Problem::new(format!("`{word}` is not an IP address"));
    if mac(word).is_some() {
        problem.hint("for a MAC address write `ether host`")
    } else if word.contains('/') {
        problem.hint("for a network write `net ADDRESS/LENGTH`")
    } else if word.contains(':') || word.bytes().all(|byte| byte.is_ascii_digit() || byte == b'.') {
        problem
    } else {
        problem.hint("names are not resolved: write the address")
    }
}

/// A host, or (as in tcpdump) the network of an IPv4 address with fewer than four parts.
pub(super) fn host(word: &str) -> Value<Prefix> {
    match short_v4(word) {
        Some((addr, bits)) if word.contains('.') => prefix(word, addr.into(), bits),
        _ => address(word).map(Prefix::host),
    }
}

/// A network: `A/LEN`, an address, or an IPv4 address with fewer than four parts; `mask` as an address.
pub(super) fn network(word: &str, mask: Option<&str>) -> Value<Prefix> {
    let (addr, length) = match word.split_once('/') {
        Some((addr, length)) => (addr, Some(length)),
        None => (word, None),
    };
    let (addr, own_bits) = match short_v4(addr) {
        Some((v4, bits)) => (IpAddr::V4(v4), bits),
        None => (address(addr)?, if addr.contains(':') { 128 } else { 32 }),
    };
    let bits = match (length, mask) {
        (Some(_), Some(_)) => return Err(Problem::new("a network has a length or a mask, not both")),
        (Some(length), None) => bounded(length, if addr.is_ipv4() { 32_u8 } else { 128 }, "prefix length")?,
        (None, Some(_)) if addr.is_ipv6() => {
            return Err(Problem::new("`mask` is for IPv4").hint("write the length: `net 2001:db8::/32`"));
        }
        (None, Some(mask)) => mask_bits(mask)?,
        (None, None) => own_bits,
    };
    prefix(word, addr, bits)
}

fn prefix(word: &str, addr: IpAddr, bits: u8) -> Value<Prefix> {
    Prefix::new(addr, bits).ok_or_else(|| {
        Problem::new(format!("`{word}` has bits set behind the first {bits}"))
            .hint(format!("for one address write `host {addr}`; for its network clear those bits"))
    })
}

/// `10`, `10.1`, `10.1.2`: address and length in bits.
fn short_v4(word: &str) -> Option<(Ipv4Addr, u8)> {
    let mut octets = [0_u8; 4];
    let mut count = 0_u8;
    for part in word.split('.') {
        let decimal = part.bytes().all(|byte| byte.is_ascii_digit());
        *octets.get_mut(usize::from(count))? = if decimal { part.parse().ok()? } else { return None };
        count += 1;
    }
    Some((Ipv4Addr::from(octets), count * 8))
}

fn mask_bits(word: &str) -> Value<u8> {
    let mask = u32::from(word.parse::<Ipv4Addr>().map_err(|_| not_an_address(word))?);
    let bits = mask.leading_ones();
    if mask.checked_shl(bits).unwrap_or(0) != 0 {
        return Err(Problem::new(format!("mask `{word}` has gaps")).hint("only masks like 255.255.240.0"));
    }
    Ok(u8::try_from(bits).unwrap_or(32))
}

/// A MAC address in any of the usual spellings.
pub(super) fn mac(word: &str) -> Option<[u8; 6]> {
    let separator = word.chars().find(|c| matches!(c, ':' | '-' | '.'));
    let parts: Vec<&str> = match separator {
        Some(separator) => word.split(separator).collect(),
        None => vec![word],
    };
    let (digits, exact) = match parts.len() {
        6 => (2, false),
        3 if separator == Some('.') => (4, true),
        1 => (12, true),
        _ => return None,
    };
    let mut all = String::new();
    for part in parts {
        let fits = !part.is_empty() && part.len() <= digits && (!exact || part.len() == digits);
        if !fits || !part.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        all.push_str(&format!("{part:0>digits$}"));
    }
    let value = u64::from_str_radix(&all, 16).ok()?;
    value.to_be_bytes().get(2..)?.try_into().ok()
}

/// A port by number or name, with the transport that a name stands for.
pub(super) fn port(word: &str) -> Value<(u16, Transport)> {
    if word.starts_with(|c: char| c.is_ascii_digit()) {
        return Ok((bounded(word, u16::MAX, "port")?, Transport::Any));
    }
    names::service(word).ok_or_else(|| {
        Problem::new(format!("`{word}` is not a port or a service we know")).hint("write the port's number")
    })
}

/// `N-M`, or one port; a name may itself hold a dash.
pub(super) fn port_range(word: &str) -> Value<((u16, u16), Transport)> {
    let dashes = word.match_indices('-').map(|(at, _)| at);
    for at in dashes {
        let (first, last) = (word.get(..at).unwrap_or_default(), word.get(at + 1..).unwrap_or_default());
        if let (Ok((a, from)), Ok((b, to))) = (port(first), port(last)) {
            let transport = if from == to { from } else { Transport::Any };
            return Ok(((a.min(b), a.max(b)), transport));
        }
    }
    let (only, transport) = port(word).map_err(|problem| problem.hint("a range is `portrange 1000-2000`"))?;
    Ok(((only, only), transport))
}

/// `port`s of a transport: a name may stand for one transport only.
pub(super) fn with_transport(word: &str, asked: Transport, named: Transport) -> Value<Transport> {
    match (asked, named) {
        (any, Transport::Any) => Ok(any),
        (Transport::Any, named) => Ok(named),
        (asked, named) if asked == named => Ok(asked),
        (asked, named) => Err(Problem::new(format!("service `{word}` is {named}only, not {asked}"))
            .hint("write the port's number")),
    }
}

/// An IP protocol by number or name, with or without tcpdump's backslash.
pub(super) fn ip_protocol(word: &str) -> Value<u8> {
    let name = word.strip_prefix('\\').unwrap_or(word);
    if name.starts_with(|c: char| c.is_ascii_digit()) {
        return bounded(name, u8::MAX, "protocol");
    }
    names::ip_protocol(name).ok_or_else(|| {
        Problem::new(format!("`{word}` is not an IP protocol we know")).hint("write the protocol's number")
    })
}

/// What `ether proto` asks for. A tag's own EtherType asks for the tag: tags are looked through.
pub(super) fn ether_protocol(word: &str) -> Value<Atom> {
    const LONGEST_FRAME: u16 = 1500;
    let name = word.strip_prefix('\\').unwrap_or(word);
    if !name.starts_with(|c: char| c.is_ascii_digit()) {
        return names::ethertype(name).map(Atom::EtherType).ok_or_else(|| {
            names::unsupported(name)
                .unwrap_or_else(|| Problem::new(format!("`{word}` is not an EtherType we know")))
                .hint("write the EtherType's number, as in `ether proto 0x88cc`")
        });
    }
    match bounded(name, u16::MAX, "EtherType")? {
        small if small <= LONGEST_FRAME => Err(Problem::new(format!("`{word}` is no EtherType"))
            .hint("numbers up to 1500 are lengths; LLC protocols are not in the language")),
        0x8100 | 0x88a8 | 0x9100 => Ok(Atom::Vlan(None)),
        0x8847 | 0x8848 => Ok(Atom::Mpls(None)),
        0x8864 => Ok(Atom::Pppoe(None)),
        other => Ok(Atom::EtherType(other)),
    }
}

/// `A:p` or `[A]:p`.
pub(super) fn end(word: &str) -> Value<(IpAddr, u16)> {
    let problem = || {
        Problem::new(format!("`{word}` is not an address and port"))
            .hint("write `flow 10.0.0.1:123 [2001:db8::1]:443 tcp`")
    };
    let (addr, port) = word.rsplit_once(':').ok_or_else(problem)?;
    let port = bounded(port, u16::MAX, "port").map_err(|_| problem())?;
    let addr = match addr.strip_prefix('[') {
        Some(rest) => IpAddr::V6(rest.strip_suffix(']').unwrap_or_default().parse().map_err(|_| problem())?),
        None => IpAddr::V4(addr.parse().map_err(|_| problem())?),
    };
    Ok((addr, port))
}

/// Checks that the family and the address can go together.
pub(super) fn address_atom(family: Family, dir: Dir, net: Prefix) -> Value<Atom> {
    let v4 = net.addr().is_ipv4();
    match family {
        Family::Ip6 if v4 => Err(Problem::new("an IPv4 address cannot be in `ip6`")),
        Family::Ip | Family::Arp | Family::Rarp if !v4 => {
            Err(Problem::new(format!("an IPv6 address cannot be in `{}`", family.to_string().trim())))
        }
        _ => Ok(Atom::Addr { family, dir, net }),
    }
}

/// `ip proto N` as a question.
pub(super) fn proto_atom(version: Version, number: u8) -> Atom {
    Atom::Proto { version, number }
}
