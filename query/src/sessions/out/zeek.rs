//! Sessions as Zeek's conn.log: tab-separated, with its header lines, for zeek-cut and its kin.
//!
//! `local_orig` and `local_resp` are unset: which networks are local is not known here. Values are escaped
//! as Zeek does, `\xNN`, always: a tab in a name must not become a column.

use crate::sessions::row::Session;
use std::fmt::Write as _;
use std::io::{self, Write};
use tapedeck_packet::Timestamp;

const FIELDS: [(&str, &str); 27] = [
    ("ts", "time"),
    ("uid", "string"),
    ("id.orig_h", "addr"),
    ("id.orig_p", "port"),
    ("id.resp_h", "addr"),
    ("id.resp_p", "port"),
    ("proto", "enum"),
    ("service", "string"),
    ("duration", "interval"),
    ("orig_bytes", "count"),
    ("resp_bytes", "count"),
    ("conn_state", "string"),
    ("local_orig", "bool"),
    ("local_resp", "bool"),
    ("missed_bytes", "count"),
    ("history", "string"),
    ("orig_pkts", "count"),
    ("orig_ip_bytes", "count"),
    ("resp_pkts", "count"),
    ("resp_ip_bytes", "count"),
    ("tunnel_parents", "set[string]"),
    ("ip_proto", "count"),
    ("orig_l2_addr", "string"),
    ("resp_l2_addr", "string"),
    ("vlan", "int"),
    ("inner_vlan", "int"),
    ("community_id", "string"),
];

/// Writes the log. `now` is its `#open` and `#close`.
///
/// # Errors
/// `out` cannot be written.
pub fn zeek(sessions: &[Session], out: &mut dyn Write, now: Timestamp) -> io::Result<()> {
    let stamp: String = now.to_string().replace(['T', ':'], "-").chars().take(19).collect();
    let joined = |values: [&str; FIELDS.len()]| values.join("\t");
    writeln!(
        out,
        "#separator \\x09\n#set_separator\t,\n#empty_field\t(empty)\n#unset_field\t-\n#path\tconn"
    )?;
    writeln!(out, "#open\t{stamp}")?;
    writeln!(out, "#fields\t{}", joined(FIELDS.map(|(name, _)| name)))?;
    writeln!(out, "#types\t{}", joined(FIELDS.map(|(_, kind)| kind)))?;
    for session in sessions {
        let values: Vec<String> = FIELDS.iter().map(|(name, _)| value(session, name)).collect();
        writeln!(out, "{}", values.join("\t"))?;
    }
    writeln!(out, "#close\t{stamp}")?;
    out.flush()
}

fn value(s: &Session, field: &str) -> String {
    match field {
        "ts" => seconds(s.ts.nanos()),
        "uid" => text(Some(&s.uid)),
        "id.orig_h" => s.src_ip.to_string(),
        "id.orig_p" => s.src_port.to_string(),
        "id.resp_h" => s.dst_ip.to_string(),
        "id.resp_p" => s.dst_port.to_string(),
        "proto" => transport(s.proto).to_owned(),
        "service" => text(s.service.as_deref()),
        "duration" => seconds(s.duration_ns),
        "orig_bytes" => s.orig_bytes.to_string(),
        "resp_bytes" => s.resp_bytes.to_string(),
        "conn_state" => text(Some(&s.conn_state)),
        "missed_bytes" => s.missed_bytes.to_string(),
        "history" => text(Some(&s.history)),
        "orig_pkts" => s.orig_pkts.to_string(),
        "orig_ip_bytes" => s.orig_ip_bytes.to_string(),
        "resp_pkts" => s.resp_pkts.to_string(),
        "resp_ip_bytes" => s.resp_ip_bytes.to_string(),
        "tunnel_parents" => text(s.parent_uid.as_deref()),
        "ip_proto" => s.proto.to_string(),
        "orig_l2_addr" => text(s.src_mac.as_deref()),
        "resp_l2_addr" => text(s.dst_mac.as_deref()),
        "vlan" => s.vlan.map_or_else(unset, |vlan| vlan.to_string()),
        "inner_vlan" => s.inner_vlan.map_or_else(unset, |vlan| vlan.to_string()),
        "community_id" => text(s.community_id.as_deref()),
        _ => unset(),
    }
}

fn unset() -> String {
    "-".to_owned()
}

/// Zeek's transport_proto.
fn transport(proto: u8) -> &'static str {
    match proto {
        6 => "tcp",
        17 => "udp",
        1 | 58 => "icmp",
        _ => "unknown_transport",
    }
}

fn seconds(nanos: u64) -> String {
    format!("{}.{:09}", nanos / 1_000_000_000, nanos % 1_000_000_000)
}

/// A text as Zeek's ASCII writer has it: controls, the separators and what reads as unset or empty escaped.
fn text(text: Option<&str>) -> String {
    let Some(text) = text else { return unset() };
    match text {
        "" => return "(empty)".to_owned(),
        "-" => return "\\x2d".to_owned(),
        "(empty)" => return "\\x28empty)".to_owned(),
        _ => {}
    }
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, '\\' | ',') || c.is_control() || !(' '..='~').contains(&c) {
            let mut utf8 = [0; 4];
            for byte in c.encode_utf8(&mut utf8).bytes() {
                let _ = write!(out, "\\x{byte:02x}");
            }
        } else {
            out.push(c);
        }
    }
    out
}
