//! Sessions written: a table for people, JSON lines, CSV, Zeek's conn.log.

use super::row::Session;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use std::fmt;
use std::io::{self, Write};
use std::net::IpAddr;
use tapedeck_packet::escape::Foreign;

mod table;
mod zeek;

pub use table::table;
pub use zeek::zeek;

/// One JSON object a line. JSON escapes controls by itself.
///
/// # Errors
/// `out` cannot be written.
pub fn json(sessions: &[Session], out: &mut dyn Write) -> io::Result<()> {
    for session in sessions {
        serde_json::to_writer(&mut *out, session).map_err(io::Error::other)?;
        out.write_all(b"\n")?;
    }
    out.flush()
}

/// CSV (RFC 4180) with a line of names; null is an empty field. Texts are escaped when `for_terminal`.
///
/// # Errors
/// `out` cannot be written.
pub fn csv(sessions: &[Session], out: &mut dyn Write, for_terminal: bool) -> io::Result<()> {
    let mut names_written = false;
    for session in sessions {
        let text = serde_json::to_string(session).map_err(io::Error::other)?;
        let Fields(fields) = serde_json::from_str(&text).map_err(io::Error::other)?;
        if !names_written {
            names_written = true;
            let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
            writeln!(out, "{}", names.join(","))?;
        }
        let values: Vec<String> = fields.iter().map(|(_, value)| csv_field(value, for_terminal)).collect();
        writeln!(out, "{}", values.join(","))?;
    }
    out.flush()
}

/// The fields of an object in their order.
struct Fields(Vec<(String, serde_json::Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct InOrder;
        impl<'de> Visitor<'de> for InOrder {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(InOrder)
    }
}

fn csv_field(value: &serde_json::Value, for_terminal: bool) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => {
            let text = Foreign::new(text, for_terminal).to_string();
            if text.contains([',', '"', '\n', '\r']) {
                format!("\"{}\"", text.replace('"', "\"\""))
            } else {
                text
            }
        }
        other => other.to_string(),
    }
}

/// An address and port as a person writes them; without ports, the address.
fn end(address: IpAddr, port: u16, has_ports: bool) -> String {
    match address {
        _ if !has_ports => address.to_string(),
        IpAddr::V4(v4) => format!("{v4}:{port}"),
        IpAddr::V6(v6) => format!("[{v6}]:{port}"),
    }
}

#[cfg(test)]
mod tests;
