//! One session, as its records tell it.

use serde::Serialize;
use serde::Serializer;
use std::net::IpAddr;
use tapedeck_packet::Timestamp;

/// A session: what its last record in the range says, with the packet references of all of them. Counts are
/// those since the session began. Names and order are those of the JSON and CSV output.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Session {
    /// First packet.
    #[serde(serialize_with = "time")]
    pub ts: Timestamp,
    /// Last packet so far.
    #[serde(serialize_with = "time")]
    pub ts_last: Timestamp,
    /// Between the two, ns.
    pub duration_ns: u64,
    /// Its name.
    pub uid: String,
    /// `interim`, `final`, `coarse` or `open`: of its last record.
    pub record_type: String,
    /// Records in the range.
    pub records: u32,
    /// When the counts of an open session were taken.
    #[serde(serialize_with = "time_or_null")]
    pub as_of: Option<Timestamp>,
    /// The tunnel it travels in.
    pub parent_uid: Option<String>,
    /// Community ID.
    pub community_id: Option<String>,
    /// Originator.
    pub src_ip: IpAddr,
    /// Originator's port.
    pub src_port: u16,
    /// Responder.
    pub dst_ip: IpAddr,
    /// Responder's port.
    pub dst_port: u16,
    /// IP protocol.
    pub proto: u8,
    /// The originator is known by more than having come first.
    pub initiator_known: bool,
    /// Packets of the originator.
    pub orig_pkts: i64,
    /// Packets of the responder.
    pub resp_pkts: i64,
    /// IP bytes of the originator.
    pub orig_ip_bytes: i64,
    /// IP bytes of the responder.
    pub resp_ip_bytes: i64,
    /// Payload bytes of the originator.
    pub orig_bytes: i64,
    /// Payload bytes of the responder.
    pub resp_bytes: i64,
    /// Bytes missing between sequence numbers.
    pub missed_bytes: i64,
    /// Zeek's conn_state.
    pub conn_state: String,
    /// Zeek's history.
    pub history: String,
    /// OR of the originator's TCP flags.
    pub orig_tcp_flags: u8,
    /// OR of the responder's.
    pub resp_tcp_flags: u8,
    /// Why its last record was written.
    pub end_reason: u8,
    /// Round trip of the handshake, ns.
    pub syn_rtt_ns: Option<i64>,
    /// Service.
    pub service: Option<String>,
    /// How it was found.
    pub service_source: Option<String>,
    /// TLS or QUIC server name.
    pub sni: Option<String>,
    /// First protocol offered.
    pub alpn: Option<String>,
    /// JA4.
    pub ja4: Option<String>,
    /// HTTP host.
    pub http_host: Option<String>,
    /// First DNS name asked for.
    pub dns_query: Option<String>,
    /// Outermost VLAN id.
    pub vlan: Option<u16>,
    /// Second VLAN id.
    pub inner_vlan: Option<u16>,
    /// Top MPLS label.
    pub mpls: Option<u32>,
    /// What carried its layer.
    pub tunnel_type: Option<String>,
    /// Identifier of that tunnel.
    pub tunnel_id: Option<u32>,
    /// Originator's link-layer address.
    pub src_mac: Option<String>,
    /// Responder's.
    pub dst_mac: Option<String>,
    /// Sensor.
    pub sensor: String,
    /// Interface.
    pub interface: String,
    /// Queue.
    pub queue: u32,
    /// The ledger shows loss while it lived.
    pub loss_during: bool,
    /// Where its packets are.
    #[serde(skip)]
    pub packets: Packets,
    /// Number of its last record.
    #[serde(skip)]
    pub number: u32,
}

/// Where the packets of a session's records are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packets {
    /// Run whose segments are meant.
    pub run: Option<u32>,
    /// First packet of the first record in the range.
    pub first: Timestamp,
    /// Some packets are in none of these frames.
    pub incomplete: bool,
    /// Segment, first and last frame.
    pub refs: Vec<[u32; 3]>,
}

impl Session {
    /// Takes in another record of the same session: the later one speaks for it. An open one is replaced
    /// by the record of its number.
    pub fn merge(&mut self, other: Self) {
        if other.number == self.number {
            // The same record twice: while it moves from journal to file, or from open to whole.
            if self.record_type == "open" {
                let records = self.records;
                *self = Self { records, ..other };
            }
            return;
        }
        let (mut earlier, later) =
            if other.number < self.number { (other, self.clone()) } else { (self.clone(), other) };
        earlier.packets.refs.extend_from_slice(&later.packets.refs);
        let packets = Packets {
            run: later.packets.run.filter(|_| later.packets.run == earlier.packets.run),
            first: earlier.packets.first.min(later.packets.first),
            incomplete: earlier.packets.incomplete
                || later.packets.incomplete
                || later.packets.run != earlier.packets.run,
            refs: earlier.packets.refs,
        };
        let loss_during = earlier.loss_during || later.loss_during;
        *self = Self { packets, loss_during, records: earlier.records + later.records, ..later };
    }

    /// IP bytes of both sides.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        sum(self.orig_ip_bytes, self.resp_ip_bytes)
    }
}

/// Two counts; a negative one, which no writer makes, counts as 0.
pub(crate) fn sum(a: i64, b: i64) -> u64 {
    u64::try_from(a).unwrap_or(0).saturating_add(u64::try_from(b).unwrap_or(0))
}

fn time<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(time)
}

fn time_or_null<S: Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => serializer.collect_str(time),
        None => serializer.serialize_none(),
    }
}
