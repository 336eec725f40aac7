//! The packets of a capture, in the order of the file.
//!
//! Addresses of the outermost IP header change each time the sequence is sent again, so that the conversations are
//! new ones; what names them elsewhere (ARP, DNS, inner headers) stays. The times of the capture are not kept.

use super::{Model, Traffic};
use anyhow::{Context as _, Result, bail};
use std::collections::HashSet;
use std::fs::File;
use std::net::IpAddr;
use std::path::Path;
use tapedeck_ebpf::replay::{Addresses, LONGEST, SHORTEST, Template};
use tapedeck_index::capture_file::CaptureReader;
use tapedeck_packet::walk::Net;
use tapedeck_packet::{LinkType, Walk};

/// Bytes of packets taken from a capture; what follows is left out.
const BYTES_MAX: usize = 200 << 20;

pub(super) fn sequence(path: &Path) -> Result<Traffic> {
    let named = || path.display().to_string();
    let file = File::open(path).with_context(named)?;
    let mut reader = CaptureReader::open(file).with_context(named)?;
    let (mut templates, mut flows, mut left_out, mut bytes) = (Vec::new(), HashSet::new(), 0, 0);
    let mut walk = Walk::new();
    while reader.advance().with_context(named)? {
        let Some(packet) = reader.packet() else { continue };
        let link = reader.interfaces().get(packet.interface).map(|interface| interface.link_type);
        let data = packet.record.bytes;
        let fits = (SHORTEST..=LONGEST.min(1_522)).contains(&data.len()) && bytes + data.len() <= BYTES_MAX;
        if link != Some(LinkType::ETHERNET) || !fits {
            left_out += 1;
            continue;
        }
        bytes += data.len();
        walk.run(LinkType::ETHERNET, data);
        let layer = walk.layers().first();
        if let Some((key, _)) = layer.and_then(tapedeck_packet::walk::Layer::flow) {
            flows.insert(key);
        }
        let renew = layer.and_then(|layer| if let Net::Ip(ip) = layer.net { Some(ip) } else { None });
        let renew = renew.and_then(|ip| {
            let net = u16::try_from(ip.start).ok().filter(|net| usize::from(*net) < LONGEST)?;
            Some(Addresses { net, ipv6: matches!(ip.src, IpAddr::V6(_)), source_is_lower: ip.src < ip.dst })
        });
        templates.push(Template { bytes: data.to_vec(), renew, tcp: None });
    }
    if templates.is_empty() {
        bail!("{}: no packet of Ethernet with {SHORTEST} to 1522 bytes ({left_out} others)", named());
    }
    let count = u64::try_from(flows.len())?;
    Ok(Traffic::of(&Model::File(path.to_owned()), templates, [count, count, left_out]))
}
