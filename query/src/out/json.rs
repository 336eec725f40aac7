//! One JSON object a line and packet.
//!
//! Keys, in order; a key is left out where the packet says nothing about it:
//! `ts` (RFC 3339, nine digits), `interface`, `queue`, `sensor`, `link_type` (LINKTYPE_ number), `length` (bytes on the
//! wire), `captured` (bytes kept), then the outermost layer: `eth_src`, `eth_dst`, `vlan` and `mpls` (lists,
//! outermost first), `pppoe`, `ethertype`, `src`, `dst`, `proto` (number), `src_port`, `dst_port`,
//! `tcp_flags` (number), `icmp_type`, `icmp_code`, `fragment` (`first` or `later`), `community_id`; `inner` (a list with the same
//! keys and `tunnel`, `tunnel_id`: what tunnels carry, outermost first); `data` (the kept bytes, base64).

use super::{Output, OutputError, Sink, Source};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Serialize;
use std::net::IpAddr;
use tapedeck_index::pcapng::PacketRecord;
use tapedeck_packet::{Fragment, Layer, Mac, Net, Tunnel, Walk};

/// Writes JSON lines.
pub struct Json<'a> {
    out: Sink<'a>,
    walk: Walk,
    line: Vec<u8>,
}

impl<'a> Json<'a> {
    /// JSON lines on `out`. JSON escapes controls by itself, so a terminal is no special case.
    #[must_use]
    pub fn new(out: Sink<'a>) -> Self {
        Self { out, walk: Walk::new(), line: Vec::new() }
    }
}

impl Output for Json<'_> {
    fn packet(&mut self, source: &Source, packet: &PacketRecord<'_>) -> Result<(), OutputError> {
        self.walk.run(source.interface.link_type, packet.bytes);
        let mut layers = self.walk.layers().iter().map(LayerJson::from);
        let object = PacketJson {
            ts: packet.ts.to_string(),
            interface: &source.interface.name,
            queue: source.queue,
            sensor: &source.sensor,
            link_type: source.interface.link_type.0,
            length: packet.orig_len,
            captured: packet.bytes.len(),
            outer: layers.next().unwrap_or_default(),
            inner: layers.collect(),
            data: STANDARD.encode(packet.bytes),
        };
        self.line.clear();
        serde_json::to_writer(&mut self.line, &object).map_err(std::io::Error::other)?;
        self.line.push(b'\n');
        Ok(self.out.write_all(&self.line)?)
    }

    fn finish(&mut self) -> Result<(), OutputError> {
        Ok(self.out.flush()?)
    }
}

#[derive(Serialize)]
struct PacketJson<'a> {
    ts: String,
    interface: &'a str,
    queue: u32,
    sensor: &'a str,
    link_type: u16,
    length: u32,
    captured: usize,
    #[serde(flatten)]
    outer: LayerJson,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    inner: Vec<LayerJson>,
    data: String,
}

#[derive(Default, Serialize)]
struct LayerJson {
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tunnel_id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eth_src: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    eth_dst: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    vlan: Vec<u16>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    mpls: Vec<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pppoe: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ethertype: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    src: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst: Option<IpAddr>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proto: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    src_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    dst_port: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tcp_flags: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_type: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    icmp_code: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fragment: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    community_id: Option<String>,
}

impl From<&Layer> for LayerJson {
    fn from(layer: &Layer) -> Self {
        let mut json = Self {
            tunnel: (layer.tunnel != Tunnel::None).then(|| layer.tunnel.name()),
            tunnel_id: layer.tunnel_id,
            eth_src: layer.macs.map(|m| Mac(m.src).to_string()),
            eth_dst: layer.macs.map(|m| Mac(m.dst).to_string()),
            vlan: layer.vlans().to_vec(),
            mpls: layer.labels().to_vec(),
            pppoe: layer.pppoe,
            ethertype: layer.ethertype,
            community_id: layer.community_id(0).map(|id| id.to_string()),
            ..Self::default()
        };
        match &layer.net {
            Net::Ip(ip) => {
                (json.src, json.dst, json.proto) = (Some(ip.src), Some(ip.dst), Some(ip.proto));
                (json.src_port, json.dst_port) = ip.ports.unzip();
                json.tcp_flags = ip.tcp_flags;
                (json.icmp_type, json.icmp_code) = ip.icmp.unzip();
                json.fragment = match ip.fragment {
                    Fragment::Whole => None,
                    Fragment::First => Some("first"),
                    Fragment::Later => Some("later"),
                };
            }
            Net::Arp(arp) => {
                (json.src, json.dst) = (Some(arp.sender.into()), Some(arp.target.into()));
            }
            Net::Unknown => {}
        }
        json
    }
}
