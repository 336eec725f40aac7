//! One line a packet, close to what `tcpdump -n` prints: time in UTC with nanoseconds, interface, tags,
//! source > destination, protocol, wire length; tunnels behind a bar.

use super::{Output, OutputError, Sink, Source};
use std::fmt::{self, Write as _};
use tapedeck_index::pcapng::PacketRecord;
use tapedeck_packet::escape::Foreign;
use tapedeck_packet::{Fragment, Ip, Layer, Mac, Macs, Net, Tunnel, Walk};

/// Writes text.
pub struct Text<'a> {
    out: Sink<'a>,
    for_terminal: bool,
    walk: Walk,
    line: String,
}

impl<'a> Text<'a> {
    /// Text on `out`; names from captures are escaped when `for_terminal`.
    #[must_use]
    pub fn new(out: Sink<'a>, for_terminal: bool) -> Self {
        Self { out, for_terminal, walk: Walk::new(), line: String::new() }
    }

    fn describe(&mut self, source: &Source, packet: &PacketRecord<'_>) -> fmt::Result {
        self.walk.run(source.interface.link_type, packet.bytes);
        let name = match source.interface.name.as_str() {
            "" => "?",
            name => name,
        };
        let line = &mut self.line;
        write!(line, "{} {}", packet.ts, Foreign::new(name, self.for_terminal))?;
        for layer in self.walk.layers() {
            if layer.tunnel != Tunnel::None {
                write!(line, " | {}", layer.tunnel.name())?;
                if let Some(id) = layer.tunnel_id {
                    write!(line, " {id}")?;
                }
            }
            write!(line, " {}", Described(layer))?;
        }
        write!(line, ", length {}", packet.orig_len)?;
        match u32::try_from(packet.bytes.len()) {
            Ok(kept) if kept == packet.orig_len => {}
            _ => write!(line, " ({} kept)", packet.bytes.len())?,
        }
        line.push('\n');
        Ok(())
    }
}

impl Output for Text<'_> {
    fn packet(&mut self, source: &Source, packet: &PacketRecord<'_>) -> Result<(), OutputError> {
        self.line.clear();
        self.describe(source, packet).map_err(std::io::Error::other)?;
        Ok(self.out.write_all(self.line.as_bytes())?)
    }

    fn finish(&mut self) -> Result<(), OutputError> {
        Ok(self.out.flush()?)
    }
}

/// Name of a transport protocol, where it has one that tcpdump users know.
#[must_use]
pub fn proto_name(proto: u8) -> Option<&'static str> {
    Some(match proto {
        1 => "icmp",
        2 => "igmp",
        4 => "ipip",
        6 => "tcp",
        17 => "udp",
        33 => "dccp",
        41 => "ip6-in-ip",
        47 => "gre",
        50 => "esp",
        51 => "ah",
        58 => "icmp6",
        89 => "ospf",
        103 => "pim",
        112 => "vrrp",
        132 => "sctp",
        136 => "udplite",
        _ => return None,
    })
}

/// TCP flags in tcpdump's letters and order.
struct TcpFlags(u8);

impl fmt::Display for TcpFlags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LETTERS: [(u8, char); 8] = [
            (0x01, 'F'),
            (0x02, 'S'),
            (0x04, 'R'),
            (0x08, 'P'),
            (0x10, '.'),
            (0x20, 'U'),
            (0x40, 'E'),
            (0x80, 'W'),
        ];
        if self.0 == 0 {
            return f.write_str("none");
        }
        LETTERS.iter().filter(|(bit, _)| self.0 & bit != 0).try_for_each(|(_, letter)| f.write_char(*letter))
    }
}

struct Described<'a>(&'a Layer);

impl fmt::Display for Described<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let layer = self.0;
        for vlan in layer.vlans() {
            write!(f, "vlan {vlan}, ")?;
        }
        for label in layer.labels() {
            write!(f, "mpls {label}, ")?;
        }
        if let Some(session) = layer.pppoe {
            write!(f, "pppoe {session:#x}, ")?;
        }
        match &layer.net {
            Net::Ip(ip) => describe_ip(f, ip),
            Net::Arp(arp) => write!(f, "ARP {} > {}", arp.sender, arp.target),
            Net::Unknown => {
                if let Some(Macs { src, dst }) = layer.macs {
                    write!(f, "{} > {}", Mac(src), Mac(dst))?;
                    f.write_str(": ")?;
                }
                match layer.ethertype {
                    Some(ethertype) => write!(f, "ethertype {ethertype:#06x}"),
                    None => f.write_str("not IP"),
                }
            }
        }
    }
}

fn describe_ip(f: &mut fmt::Formatter<'_>, ip: &Ip) -> fmt::Result {
    f.write_str(if ip.src.is_ipv4() { "IP " } else { "IP6 " })?;
    match ip.ports {
        Some((src, dst)) => write!(f, "{}.{src} > {}.{dst}: ", ip.src, ip.dst)?,
        None => write!(f, "{} > {}: ", ip.src, ip.dst)?,
    }
    match proto_name(ip.proto) {
        Some(name) => f.write_str(name)?,
        None => write!(f, "proto {}", ip.proto)?,
    }
    if let Some(flags) = ip.tcp_flags {
        write!(f, " [{}]", TcpFlags(flags))?;
    }
    if let Some((kind, code)) = ip.icmp {
        write!(f, " type {kind} code {code}")?;
    }
    f.write_str(match ip.fragment {
        Fragment::Whole => "",
        Fragment::First => ", first fragment",
        Fragment::Later => ", later fragment",
    })
}
