//! Services and JA4 against what other monitors expect of the same captures: Zeek's conn.log, nDPI's flows,
//! Arkime's sessions. Their files stand beside the captures.

use crate::differences;
use crate::flows::{self, Flow};
use crate::traces;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::path::Path;
use tapedeck_session::{Service, ServiceSource};

/// A session as another monitor has it.
#[derive(Debug)]
struct Theirs {
    proto: u8,
    ends: [(IpAddr, u16); 2],
    /// Their names of what it speaks, outermost first; empty: none.
    services: Vec<String>,
    ja4: Vec<String>,
}

fn find<'a>(flows: &'a [Flow], theirs: &Theirs) -> Option<&'a Flow> {
    let end = |end: &(String, u16)| end.0.parse::<IpAddr>().ok().map(|address| (address, end.1));
    // A side that sent nothing has no address of its own in the rows.
    let fits = |side: &(String, u16), theirs: (IpAddr, u16)| {
        end(side).map_or(side.1 == theirs.1, |ours| ours == theirs)
    };
    let [a, b] = theirs.ends;
    let same = |flow: &&Flow| {
        let [orig, resp] = &flow.ends;
        let either = (fits(orig, a) && fits(resp, b)) || (fits(orig, b) && fits(resp, a));
        flow.facts.unwrap().proto == theirs.proto && either
    };
    flows.iter().find(same)
}

fn proto(text: &str) -> Option<u8> {
    match text {
        "tcp" | "TCP" => Some(6),
        "udp" | "UDP" => Some(17),
        _ => None,
    }
}

/// Rows of a conn.log whose columns its header names.
fn zeek(text: &str) -> Vec<Theirs> {
    let mut names: Vec<&str> = Vec::new();
    let mut rows = Vec::new();
    for line in text.lines() {
        if let Some(fields) = line.strip_prefix("#fields\t") {
            names = fields.split('\t').collect();
        } else if !line.starts_with('#') && !names.is_empty() {
            let values: BTreeMap<&str, &str> = names.iter().copied().zip(line.split('\t')).collect();
            rows.extend(zeek_row(&values));
        }
    }
    rows
}

fn zeek_row(values: &BTreeMap<&str, &str>) -> Option<Theirs> {
    let end = |side: &str| {
        let address = values.get(format!("id.{side}_h").as_str())?.parse().ok()?;
        Some((address, values.get(format!("id.{side}_p").as_str())?.parse().ok()?))
    };
    let service = values.get("service").copied().unwrap_or("-");
    // A name after a minus is a protocol that Zeek tried and gave up.
    let services = service.split(',').filter(|name| !name.starts_with('-')).map(str::to_owned).collect();
    let proto = proto(values.get("proto")?)?;
    Some(Theirs { proto, ends: [end("orig")?, end("resp")?], services, ja4: Vec::new() })
}

/// Flows of an nDPI output that it found by their payload.
fn ndpi(text: &str) -> Vec<Theirs> {
    text.lines().filter_map(ndpi_row).collect()
}

fn ndpi_row(line: &str) -> Option<Theirs> {
    let line = line.strip_prefix('\t')?.split_once('\t')?.1;
    let mut words = line.split(' ');
    let proto = proto(words.next()?)?;
    let [left, arrow, right] = [words.next()?, words.next()?, words.next()?];
    if !matches!(arrow, "<->" | "->") {
        return None;
    }
    let field = |name: &str| {
        let rest = line.split_once(&format!("[{name}: "))?.1;
        Some(rest.split(']').next().unwrap_or_default().to_owned())
    };
    let found = field("Confidence").is_some_and(|confidence| confidence == "DPI");
    let name = field("proto")?;
    let name = name.split_once('/')?.1;
    let services = if found { name.split('.').map(str::to_owned).collect() } else { Vec::new() };
    let ja4 = field("JA4").into_iter().collect();
    Some(Theirs { proto, ends: [ndpi_end(left)?, ndpi_end(right)?], services, ja4 })
}

/// `1.2.3.4:5` or `[2001:db8::1]:5`.
fn ndpi_end(text: &str) -> Option<(IpAddr, u16)> {
    let (address, port) = text.rsplit_once(':')?;
    Some((address.trim_matches(['[', ']']).parse().ok()?, port.parse().ok()?))
}

fn arkime(text: &str) -> Vec<Theirs> {
    let json: serde_json::Value = serde_json::from_str(text).unwrap();
    let sessions = json["sessions3"].as_array().cloned().unwrap_or_default();
    sessions.iter().filter_map(|session| arkime_row(&session["body"])).collect()
}

fn arkime_row(body: &serde_json::Value) -> Option<Theirs> {
    let end = |side: &str| {
        let port = u16::try_from(body[side]["port"].as_u64()?).ok()?;
        Some((body[side]["ip"].as_str()?.parse().ok()?, port))
    };
    let list = |value: &serde_json::Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|v| v.as_str().map(str::to_owned)).collect()
    };
    let services = list(&body["protocol"]);
    let proto = services.iter().find_map(|name| proto(name))?;
    Some(Theirs {
        proto,
        ends: [end("source")?, end("destination")?],
        services,
        ja4: list(&body["tls"]["ja4"]),
    })
}

/// Our name of what nDPI or Arkime calls so; none for what we do not look for.
fn our_name(theirs: &str) -> Option<&'static str> {
    Some(match theirs.to_ascii_lowercase().as_str() {
        "tls" | "imaps" | "pops" => "ssl",
        "http" | "http_proxy" | "http_connect" | "websocket" | "soap" => "http",
        "http2" => "http2",
        "dns" | "mdns" | "llmnr" | "doh_dot" | "nbns" => "dns",
        "dtls" => "dtls",
        "quic" => "quic",
        "ssh" => "ssh",
        "ftp" | "ftp_control" | "ftps" => "ftp",
        "smtp" | "smtps" => "smtp",
        "pop3" => "pop3",
        "imap" => "imap",
        "irc" => "irc",
        "smb" | "smbv1" | "smbv23" => "smb",
        "rdp" => "rdp",
        "dhcp" => "dhcp",
        "dhcpv6" => "dhcpv6",
        "ntp" => "ntp",
        "snmp" => "snmp",
        "sip" => "sip",
        "mqtt" => "mqtt",
        "modbus" => "modbus",
        "dnp3" => "dnp3",
        "socks" => "socks",
        "kerberos" | "krb5" => "krb",
        "ldap" => "ldap",
        "mysql" => "mysql",
        "postgresql" => "postgresql",
        "redis" | "resp" => "redis",
        "bittorrent" => "bittorrent",
        "stun" => "stun",
        "wireguard" => "wireguard",
        "openvpn" => "openvpn",
        "syslog" => "syslog",
        "radius" => "radius",
        "tftp" => "tftp",
        "ssdp" => "ssdp",
        "vnc" => "rfb",
        "jabber" | "xmpp" => "xmpp",
        _ => return None,
    })
}

/// `ldap_tcp` is their `ldap`.
fn family(ours: &str) -> &str {
    ours.strip_suffix("_tcp").or_else(|| ours.strip_suffix("_udp")).unwrap_or(ours)
}

#[derive(Default)]
struct Tally {
    counts: BTreeMap<&'static str, usize>,
    differ: BTreeSet<String>,
    /// Fingerprints that agree, as they are or by a rule.
    ja4: BTreeMap<&'static str, usize>,
    ja4_differ: BTreeSet<String>,
}

impl Tally {
    fn add(&mut self, flow: &Flow, names: &BTreeSet<String>, ja4: &BTreeSet<String>) {
        let service = flow.service();
        let by_payload = service.source == ServiceSource::Payload;
        let named = service.name.is_some_and(|ours| names.contains(ours) || names.contains(family(ours)));
        let what = match (service.name.filter(|_| by_payload), named) {
            (Some(_), true) => "agree by payload",
            (None, true) => "agree by port",
            (None, _) if names.is_empty() => "neither knows by payload",
            (ours, _) => {
                let list =
                    if names.is_empty() { "-".to_owned() } else { Vec::from_iter(names.clone()).join(",") };
                self.differ.insert(format!("{}|{}|{list}", flow.at(), ours.unwrap_or("-")));
                match ours {
                    Some(_) if names.is_empty() => "only ours",
                    Some(_) => "differ",
                    None => "only theirs",
                }
            }
        };
        *self.counts.entry(what).or_default() += 1;
        for theirs in ja4 {
            self.add_ja4(flow, &service, theirs);
        }
    }

    fn add_ja4(&mut self, flow: &Flow, service: &Service, theirs: &str) {
        let ours = service.ja4.as_deref().unwrap_or("-");
        let rule = if ours == theirs {
            "the same"
        } else if as_ndpi(ours, service.alpn.as_deref().unwrap_or_default(), theirs) {
            "the same but for what nDPI does otherwise than the specification"
        } else {
            self.ja4_differ.insert(format!("{}|{ours}|{theirs}", flow.at()));
            return;
        };
        *self.ja4.entry(rule).or_default() += 1;
    }
}

/// Whether `theirs` is `ours` as nDPI writes it: `d` also without a server name, the second letter of the ALPN
/// value in place of the last, the hash of nothing in place of zeros.
fn as_ndpi(ours: &str, alpn: &str, theirs: &str) -> bool {
    let (Some((ours_a, ours_rest)), Some((theirs_a, theirs_rest))) =
        (ours.split_once('_'), theirs.split_once('_'))
    else {
        return false;
    };
    if ours_a.len() != 10 || theirs_a.len() != 10 {
        return false;
    }
    let name = theirs_a[3..4] == ours_a[3..4] || &theirs_a[3..4] == "d";
    let letters = theirs_a[8..] == ours_a[8..] || (alpn.len() > 1 && theirs_a[8..] == alpn[..2]);
    let rest = ours_rest.replace("000000000000", "e3b0c44298fc") == theirs_rest || ours_rest == theirs_rest;
    ours_a[..3] == theirs_a[..3] && ours_a[4..8] == theirs_a[4..8] && name && letters && rest
}

/// Compares with the sessions in all files of `below` that end in `suffix`.
fn compare(below: &str, suffix: &str, read: fn(&str) -> Vec<Theirs>, names: fn(&Theirs) -> BTreeSet<String>) {
    let Some(folder) = traces::folder() else { return };
    let (mut tally, mut files, mut unmatched) = (Tally::default(), BTreeSet::new(), 0);
    for name in traces::captures(&folder.join(below)) {
        let name = format!("{below}/{name}");
        let Some(text) = expected(&folder, &name, suffix) else { continue };
        let flows = flows::read(&folder, &name);
        // They may cut a session in two that we and tshark have as one.
        let mut matched: BTreeMap<String, (&Flow, BTreeSet<String>, BTreeSet<String>)> = BTreeMap::new();
        for theirs in read(&text) {
            let Some(flow) = find(&flows, &theirs) else {
                unmatched += 1;
                continue;
            };
            let (_, all, ja4) = matched.entry(flow.at()).or_insert((flow, BTreeSet::new(), BTreeSet::new()));
            all.extend(names(&theirs));
            ja4.extend(theirs.ja4);
        }
        for (flow, names, ja4) in matched.values() {
            tally.add(flow, names, ja4);
        }
        files.insert(name);
    }
    println!("{below}: {:?}, {unmatched} not found; JA4 {:?}", tally.counts, tally.ja4);
    differences::check(&folder, below, &files, &tally.differ);
    differences::check(&folder, "ja4", &files, &tally.ja4_differ);
}

fn expected(folder: &Path, capture: &str, suffix: &str) -> Option<String> {
    let beside = folder.join(format!("{capture}{suffix}"));
    let instead = folder.join(capture).with_extension(suffix.trim_start_matches('.'));
    let text = std::fs::read(&beside).or_else(|_| std::fs::read(&instead)).ok()?;
    Some(String::from_utf8_lossy(&text).into_owned())
}

#[test]
fn zeek_conn_logs() {
    let names = |theirs: &Theirs| theirs.services.iter().filter(|name| *name != "-").cloned().collect();
    compare("zeek-traces", ".zeek-conn.log", zeek, names);
}

fn mapped(theirs: &Theirs) -> BTreeSet<String> {
    theirs.services.iter().filter_map(|name| our_name(name)).map(str::to_owned).collect()
}

#[test]
fn ndpi_flows() {
    compare("ndpi-flows", ".ndpi.out", ndpi, mapped);
}

#[test]
fn arkime_sessions() {
    compare("arkime-sessions", ".test.json", arkime, mapped);
}
