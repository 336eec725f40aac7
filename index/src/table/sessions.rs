//! The columns of `sessions`: names are Zeek's where Zeek has one, addresses and ports are `src_`/`dst_`
//! (originator and responder), as every tool knows them.

use super::ColumnType::{Address, Bool, I64, PacketRefs, Text, Time, U8, U16, U32};
use super::{Column, Kind, LiveKey};
use tapedeck_packet::time::NANOS_PER_SEC;

/// Longest stretch of time in one record of a session, ns.
pub const RECORD_SPAN_NANOS: u64 = 300 * NANOS_PER_SEC;

const fn col(name: &'static str, kind: super::ColumnType, doc: &'static str) -> Column {
    Column::new(name, kind, doc)
}

/// A row of `sessions/`: one record of one session.
pub static SESSIONS: Kind = Kind {
    name: "sessions",
    doc: "One record of one conversation. A session has one record at its end and, while it lasts, one \
          every five minutes: counts are those since its last record (deltas), `*_total` columns those \
          since its beginning. One row per session: take each `uid`'s row of the largest `record_number`.",
    columns: COLUMNS,
    start: "ts_interval",
    end: "ts_last",
    sort: &["ts", "ts_last"],
    bloom: &["uid", "community_id", "src_ip", "dst_ip", "src_ip16", "dst_ip16"],
    span_nanos: RECORD_SPAN_NANOS,
    long: false,
    live: Some(LiveKey { key: "uid", number: "record_number" }),
};

const COLUMNS: &[Column] = &[
    // When.
    col("ts", Time, "First packet of the session.").maps(
        "ts",
        "event.start",
        "start_time",
        "156 flowStartNanoseconds",
    ),
    col("ts_last", Time, "Last packet of the session so far. It names the hour folder.").maps(
        "ts + duration",
        "event.end",
        "end_time",
        "157 flowEndNanoseconds",
    ),
    col("ts_interval", Time, "First packet of this record: at most five minutes before `ts_last`."),
    col("duration_ns", I64, "`ts_last` - `ts`, ns.").maps(
        "duration (s)",
        "event.duration",
        "duration (ms)",
        "161 flowDurationMilliseconds",
    ),
    // Which.
    col("uid", Text, "The session. Unique over runs; 18 characters, in order of run, chain, number.").maps(
        "uid",
        "event.id",
        "connection_info.uid",
        "148 flowId",
    ),
    col(
        "record_type",
        Text,
        "`interim`: the session goes on. `final`: it has ended. `coarse`: no session but all packets of a \
         stretch of time that found no room in the table. `open`: it goes on and this record may still \
         grow; in a file only when the recorder was killed: figures as of `as_of`.",
    ),
    col("record_number", U32, "Number of this record in the session, from 0."),
    col("as_of", Time, "When the counts of an `open` record were taken.").or_null(),
    col("parent_uid", Text, "The session in whose payload this one travels: the tunnel.").or_null().maps(
        "tunnel_parents",
        "",
        "",
        "",
    ),
    // Who.
    col(
        "community_id",
        Text,
        "Community ID v1, seed 0. Null where the ports are unknown (later fragments alone).",
    )
    .or_null()
    .maps("community_id", "network.community_id", "connection_info.community_uid", ""),
    col("src_ip", Text, "Originator's address, RFC 5952.").maps(
        "id.orig_h",
        "source.ip",
        "src_endpoint.ip",
        "8/27 sourceIPv4/IPv6Address",
    ),
    col("dst_ip", Text, "Responder's address, RFC 5952.").maps(
        "id.resp_h",
        "destination.ip",
        "dst_endpoint.ip",
        "12/28 destinationIPv4/IPv6Address",
    ),
    col("src_ip16", Address, "Originator's address as 16 bytes, IPv4 mapped: for ranges and networks."),
    col("dst_ip16", Address, "Responder's address as 16 bytes, IPv4 mapped."),
    col("src_port", U16, "Originator's port; for ICMP the type; 0 where there is none.").maps(
        "id.orig_p",
        "source.port",
        "src_endpoint.port",
        "7 sourceTransportPort",
    ),
    col("dst_port", U16, "Responder's port; for ICMP the code; 0 where there is none.").maps(
        "id.resp_p",
        "destination.port",
        "dst_endpoint.port",
        "11 destinationTransportPort",
    ),
    col("proto", U8, "IP protocol number: 6 TCP, 17 UDP, 1 ICMP, 58 ICMPv6, 132 SCTP.").maps(
        "ip_proto",
        "network.iana_number",
        "connection_info.protocol_num",
        "4 protocolIdentifier",
    ),
    col("ip_version", U8, "Version of IP: 4 or 6.").maps(
        "",
        "network.type",
        "connection_info.protocol_ver_id",
        "60 ipVersion",
    ),
    col(
        "initiator_known",
        Bool,
        "`src` is the originator by a SYN, a request or the like, not only for having come first.",
    ),
    // How much, since the last record.
    col("orig_pkts", I64, "Packets of the originator since the last record.").maps(
        "orig_pkts",
        "source.packets",
        "traffic.packets_out",
        "2 packetDeltaCount",
    ),
    col("resp_pkts", I64, "Packets of the responder since the last record.").maps(
        "resp_pkts",
        "destination.packets",
        "traffic.packets_in",
        "2 reverse (29305)",
    ),
    col("orig_ip_bytes", I64, "Bytes of the originator's packets since the last record, from the IP header on, as it says.").maps(
        "orig_ip_bytes",
        "source.bytes",
        "traffic.bytes_out",
        "1 octetDeltaCount",
    ),
    col("resp_ip_bytes", I64, "Bytes of the responder's packets since the last record, from the IP header on, as it says.").maps(
        "resp_ip_bytes",
        "destination.bytes",
        "traffic.bytes_in",
        "1 reverse (29305)",
    ),
    col("orig_bytes", I64, "Payload bytes of the originator since the last record: of TCP by sequence numbers, else what was seen.").maps(
        "orig_bytes",
        "",
        "",
        "",
    ),
    col("resp_bytes", I64, "Payload bytes of the responder since the last record: of TCP by sequence numbers, else what was seen.").maps("resp_bytes", "", "", ""),
    col("orig_wire_bytes", I64, "Bytes on the wire of the originator's packets since the last record, link layer included."),
    col("resp_wire_bytes", I64, "Bytes on the wire of the responder's packets since the last record, link layer included."),
    col("orig_retrans", I64, "TCP segments of the originator since the last record that carried nothing new."),
    col("resp_retrans", I64, "TCP segments of the responder since the last record that carried nothing new."),
    col("cut_bytes", I64, "Bytes of both sides since the last record that were not kept, under pressure or by the snap length."),
    // How much, since the beginning.
    col("orig_pkts_total", I64, "Packets of the originator since the session began.").maps(
        "orig_pkts",
        "",
        "cumulative_traffic.packets_out",
        "86 packetTotalCount",
    ),
    col("resp_pkts_total", I64, "Packets of the responder since the session began.").maps(
        "resp_pkts",
        "",
        "cumulative_traffic.packets_in",
        "86 reverse (29305)",
    ),
    col("orig_ip_bytes_total", I64, "IP bytes of the originator since the session began.").maps(
        "orig_ip_bytes",
        "",
        "cumulative_traffic.bytes_out",
        "85 octetTotalCount",
    ),
    col("resp_ip_bytes_total", I64, "IP bytes of the responder since the session began.").maps(
        "resp_ip_bytes",
        "",
        "cumulative_traffic.bytes_in",
        "85 reverse (29305)",
    ),
    col("orig_bytes_total", I64, "Payload bytes of the originator since the session began.").maps(
        "orig_bytes",
        "",
        "",
        "",
    ),
    col("resp_bytes_total", I64, "Payload bytes of the responder since the session began.").maps(
        "resp_bytes",
        "",
        "",
        "",
    ),
    col("missed_bytes", I64, "Bytes missing between sequence numbers, since the session began.").maps(
        "missed_bytes",
        "",
        "",
        "",
    ),
    // How it went.
    col(
        "conn_state",
        Text,
        "Zeek's conn_state of the session so far: S0 S1 SF REJ S2 S3 RSTO RSTR RSTOS0 RSTRH SH SHR OTH.",
    )
    .maps("conn_state", "", "activity_id", ""),
    col(
        "history",
        Text,
        "Zeek's history of the session so far: a letter an event, upper case for the originator.",
    )
    .maps("history", "", "connection_info.flag_history", ""),
    col("orig_tcp_flags", U8, "OR of the originator's TCP flags, CWR (0x80) to FIN (0x01).").maps(
        "",
        "",
        "connection_info.tcp_flags",
        "6 tcpControlBits",
    ),
    col("resp_tcp_flags", U8, "OR of the responder's TCP flags, CWR (0x80) to FIN (0x01).").maps("", "", "", "6 reverse (29305)"),
    col(
        "end_reason",
        U8,
        "Why this record was written: 1 idle, 2 active, 3 end seen, 4 recorder ended, 5 table full.",
    )
    .maps("", "", "status_detail", "136 flowEndReason"),
    col(
        "syn_rtt_ns",
        I64,
        "Round trip of the TCP handshake at this sensor, SYN to the ACK of the SYN-ACK, ns.",
    )
    .or_null(),
    // What it carried.
    col("service", Text, "Zeek's name of the service: `ssl`, `http`, `dns`, `ssh`, ...").or_null().maps(
        "service",
        "network.protocol",
        "app_name",
        "96 applicationName",
    ),
    col("service_source", Text, "How it was found: `payload` or `port`.").or_null(),
    col("sni", Text, "TLS or QUIC server name. Text of the client: hostile.").or_null().maps(
        "server_name (ssl.log)",
        "tls.client.server_name",
        "tls.sni",
        "",
    ),
    col("alpn", Text, "First application protocol the client offers.").or_null().maps(
        "next_protocol (ssl.log)",
        "tls.next_protocol",
        "tls.alpn",
        "",
    ),
    col("ja4", Text, "JA4 of the TLS client hello.").or_null().maps(
        "",
        "tls.client.ja4",
        "tls.ja4_fingerprint_list",
        "",
    ),
    col("http_host", Text, "HTTP host. Text of the client: hostile.").or_null().maps(
        "host (http.log)",
        "url.domain",
        "http_request.url.hostname",
        "460 httpRequestHost",
    ),
    col("dns_query", Text, "First DNS name asked for. Text of the client: hostile.").or_null().maps(
        "query (dns.log)",
        "dns.question.name",
        "query.hostname",
        "",
    ),
    // Where it was seen.
    col("vlan", U16, "Outermost VLAN id.").or_null().maps(
        "vlan",
        "network.vlan.id",
        "connection_info.vlan_uid",
        "58 vlanId",
    ),
    col("inner_vlan", U16, "Second VLAN id.").or_null().maps(
        "inner_vlan",
        "network.inner.vlan.id",
        "",
        "245 dot1qCustomerVlanId",
    ),
    col("mpls", U32, "Top MPLS label.").or_null().maps("", "", "", "70 mplsTopLabelStackSection"),
    col("tunnel_type", Text, "What carried the session's layer: vxlan, gre, geneve, gtp, ... Null: nothing.")
        .or_null(),
    col("tunnel_id", U32, "Identifier of that tunnel: VNI, GRE key, TEID.").or_null(),
    col("vni", U32, "`tunnel_id` of VXLAN and Geneve.").or_null().maps("", "", "", "351 layer2SegmentId"),
    col("src_mac", Text, "Link-layer address of the originator's first packet.").or_null().maps(
        "orig_l2_addr",
        "source.mac",
        "src_endpoint.mac",
        "56 sourceMacAddress",
    ),
    col("dst_mac", Text, "Link-layer address of the responder.").or_null().maps(
        "resp_l2_addr",
        "destination.mac",
        "dst_endpoint.mac",
        "80 destinationMacAddress",
    ),
    col("orig_ttl", U8, "TTL or hop limit of the originator's first packet.").or_null().maps(
        "",
        "",
        "",
        "192 ipTTL",
    ),
    col("resp_ttl", U8, "TTL or hop limit of the responder's first packet.").or_null().maps("", "", "", "192 reverse (29305)"),
    col("sensor", Text, "Sensor id.").maps("", "observer.name", "device.name", "138 observationPointId"),
    col("interface", Text, "Interface name; from a capture file: as it stands there.").maps(
        "",
        "observer.ingress.interface.name",
        "device.interface_name",
        "10 ingressInterface",
    ),
    col("queue", U32, "Queue of the interface."),
    col("split", Bool, "The two directions came on different queues and were joined."),
    // How far it can be trusted, and where its packets are.
    col(
        "stored_pkts",
        I64,
        "Packets of this record that are in the store; `orig_pkts` + `resp_pkts` were seen.",
    ),
    col("loss_during", Bool, "The ledger shows loss on the session's queue while it lived."),
    col("run", Text, "Run of the recorder, 8 hex digits, as in the names of its segments."),
    col(
        "packet_refs",
        PacketRefs,
        "Where the packets of this record are: segment `seq` of the run, first and last frame.",
    ),
    col(
        "refs_incomplete",
        Bool,
        "Some references were left out: only a scan of the time between finds all packets.",
    ),
];
