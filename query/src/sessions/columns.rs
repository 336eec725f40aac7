//! Batches of the table `sessions` as columns of their types, and one row of them as a [`Session`].
//!
//! Files of an older schema may lack columns: those read as null, never as a made-up value.

use super::row::{Packets, Session};
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int64Type, TimestampNanosecondType, UInt8Type, UInt16Type, UInt32Type};
use arrow_array::{
    Array, BooleanArray, FixedSizeBinaryArray, Int64Array, ListArray, RecordBatch, StringArray,
    TimestampNanosecondArray, UInt8Array, UInt16Array, UInt32Array,
};
use std::net::{IpAddr, Ipv6Addr};
use tapedeck_index::table::encode::time;
use tapedeck_packet::Timestamp;

/// A batch that is no table of sessions.
#[derive(Debug, thiserror::Error)]
#[error("no column `{0}` of the table `sessions`, or one of another type")]
pub struct NotSessions(&'static str);

/// The columns that every row is asked for, and the batch with the others.
#[derive(Debug)]
pub struct Columns<'a> {
    batch: &'a RecordBatch,
    ts: &'a TimestampNanosecondArray,
    ts_last: &'a TimestampNanosecondArray,
    ts_interval: &'a TimestampNanosecondArray,
    uid: &'a StringArray,
    record_type: &'a StringArray,
    record_number: &'a UInt32Array,
    src: &'a FixedSizeBinaryArray,
    dst: &'a FixedSizeBinaryArray,
    src_port: &'a UInt16Array,
    dst_port: &'a UInt16Array,
    proto: &'a UInt8Array,
    ip_version: Option<&'a UInt8Array>,
    vlan: Option<&'a UInt16Array>,
    inner_vlan: Option<&'a UInt16Array>,
    mpls: Option<&'a UInt32Array>,
}

impl<'a> Columns<'a> {
    /// The columns of `batch`.
    ///
    /// # Errors
    /// A column is missing without which a row says nothing.
    pub fn new(batch: &'a RecordBatch) -> Result<Self, NotSessions> {
        let find = |name: &'static str| {
            batch.column_by_name(name).filter(|array| array.null_count() == 0).ok_or(NotSessions(name))
        };
        let time = |name| find(name)?.as_primitive_opt::<TimestampNanosecondType>().ok_or(NotSessions(name));
        let text = |name| find(name)?.as_string_opt::<i32>().ok_or(NotSessions(name));
        let short = |name| find(name)?.as_primitive_opt::<UInt16Type>().ok_or(NotSessions(name));
        let address = |name| {
            find(name)?
                .as_fixed_size_binary_opt()
                .filter(|array| array.value_length() == 16)
                .ok_or(NotSessions(name))
        };
        let tag = |name| batch.column_by_name(name).and_then(|array| array.as_primitive_opt::<UInt16Type>());
        Ok(Self {
            batch,
            ts: time("ts")?,
            ts_last: time("ts_last")?,
            ts_interval: time("ts_interval")?,
            uid: text("uid")?,
            record_type: text("record_type")?,
            record_number: find("record_number")?
                .as_primitive_opt::<UInt32Type>()
                .ok_or(NotSessions("record_number"))?,
            src: address("src_ip16")?,
            dst: address("dst_ip16")?,
            src_port: short("src_port")?,
            dst_port: short("dst_port")?,
            proto: find("proto")?.as_primitive_opt::<UInt8Type>().ok_or(NotSessions("proto"))?,
            ip_version: batch
                .column_by_name("ip_version")
                .and_then(|array| array.as_primitive_opt::<UInt8Type>()),
            vlan: tag("vlan"),
            inner_vlan: tag("inner_vlan"),
            mpls: batch.column_by_name("mpls").and_then(|array| array.as_primitive_opt::<UInt32Type>()),
        })
    }

    /// Rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.batch.num_rows()
    }

    /// Whether there is no row.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// First and last packet of a record.
    #[must_use]
    pub fn interval(&self, row: usize) -> (Timestamp, Timestamp) {
        (time(self.ts_interval.value(row)), time(self.ts_last.value(row)))
    }

    /// The session's name.
    #[must_use]
    pub fn uid(&self, row: usize) -> &'a str {
        self.uid.value(row)
    }

    /// `interim`, `final`, `coarse` or `open`.
    #[must_use]
    pub fn record_type(&self, row: usize) -> &'a str {
        self.record_type.value(row)
    }

    /// Number of the record in its session.
    #[must_use]
    pub fn record_number(&self, row: usize) -> u32 {
        self.record_number.value(row)
    }

    /// Whether nothing more can be said of the session by other rows.
    #[must_use]
    pub fn is_whole(&self, row: usize) -> bool {
        self.record_number(row) == 0 && matches!(self.record_type(row), "final" | "coarse")
    }

    /// Originator and responder.
    #[must_use]
    pub fn ends(&self, row: usize) -> ((IpAddr, u16), (IpAddr, u16)) {
        // IPv6 packets may carry mapped addresses too.
        let is_v6 = self.ip_version.is_some_and(|version| version.is_valid(row) && version.value(row) == 6);
        let source = (address(self.src.value(row), is_v6), self.src_port.value(row));
        (source, (address(self.dst.value(row), is_v6), self.dst_port.value(row)))
    }

    /// IP protocol.
    #[must_use]
    pub fn proto(&self, row: usize) -> u8 {
        self.proto.value(row)
    }

    /// VLAN ids, outermost first.
    #[must_use]
    pub fn vlans(&self, row: usize) -> [Option<u16>; 2] {
        [self.vlan, self.inner_vlan]
            .map(|array| array.filter(|array| array.is_valid(row)).map(|array| array.value(row)))
    }

    /// Top MPLS label.
    #[must_use]
    pub fn mpls(&self, row: usize) -> Option<u32> {
        self.mpls.filter(|array| array.is_valid(row)).map(|array| array.value(row))
    }

    /// A text; `None` where it is null or there is no such column.
    #[must_use]
    pub fn text(&self, name: &str, row: usize) -> Option<&'a str> {
        let array = self.batch.column_by_name(name)?.as_string_opt::<i32>()?;
        array.is_valid(row).then(|| array.value(row))
    }

    /// A count; `None` where it is null or there is no such column.
    #[must_use]
    pub fn count(&self, name: &str, row: usize) -> Option<i64> {
        let array: &Int64Array = self.batch.column_by_name(name)?.as_primitive_opt::<Int64Type>()?;
        array.is_valid(row).then(|| array.value(row))
    }

    fn byte(&self, name: &str, row: usize) -> Option<u8> {
        let array: &UInt8Array = self.batch.column_by_name(name)?.as_primitive_opt::<UInt8Type>()?;
        array.is_valid(row).then(|| array.value(row))
    }

    fn word(&self, name: &str, row: usize) -> Option<u32> {
        let array: &UInt32Array = self.batch.column_by_name(name)?.as_primitive_opt::<UInt32Type>()?;
        array.is_valid(row).then(|| array.value(row))
    }

    fn flag(&self, name: &str, row: usize) -> Option<bool> {
        let array: &BooleanArray = self.batch.column_by_name(name)?.as_boolean_opt()?;
        array.is_valid(row).then(|| array.value(row))
    }

    fn refs(&self, row: usize) -> Option<Vec<[u32; 3]>> {
        let lists: &ListArray = self.batch.column_by_name("packet_refs")?.as_list_opt::<i32>()?;
        let list = lists.is_valid(row).then(|| lists.value(row))?;
        let list = list.as_struct_opt()?;
        let field = |name| list.column_by_name(name).and_then(|array| array.as_primitive_opt::<UInt32Type>());
        let (segments, first, last) = (field("segment")?, field("first_frame")?, field("last_frame")?);
        let triples = segments.values().iter().zip(first.values()).zip(last.values());
        Some(triples.map(|((segment, first), last)| [*segment, *first, *last]).collect())
    }

    /// Everything of a row.
    #[must_use]
    pub fn session(&self, row: usize) -> Session {
        let text = |name| self.text(name, row).map(str::to_owned);
        let count = |name| self.count(name, row).unwrap_or_default();
        let ((src_ip, src_port), (dst_ip, dst_port)) = self.ends(row);
        let [vlan, inner_vlan] = self.vlans(row);
        let (ts, (first, ts_last)) = (time(self.ts.value(row)), self.interval(row));
        let refs = self.refs(row);
        Session {
            ts,
            ts_last,
            duration_ns: ts_last.nanos().saturating_sub(ts.nanos()),
            uid: self.uid(row).to_owned(),
            record_type: self.record_type(row).to_owned(),
            records: 1,
            as_of: self.as_of(row),
            parent_uid: text("parent_uid"),
            community_id: text("community_id"),
            src_ip,
            src_port,
            dst_ip,
            dst_port,
            proto: self.proto(row),
            initiator_known: self.flag("initiator_known", row).unwrap_or_default(),
            orig_pkts: count("orig_pkts_total"),
            resp_pkts: count("resp_pkts_total"),
            orig_ip_bytes: count("orig_ip_bytes_total"),
            resp_ip_bytes: count("resp_ip_bytes_total"),
            orig_bytes: count("orig_bytes_total"),
            resp_bytes: count("resp_bytes_total"),
            missed_bytes: count("missed_bytes"),
            conn_state: text("conn_state").unwrap_or_default(),
            history: text("history").unwrap_or_default(),
            orig_tcp_flags: self.byte("orig_tcp_flags", row).unwrap_or_default(),
            resp_tcp_flags: self.byte("resp_tcp_flags", row).unwrap_or_default(),
            end_reason: self.byte("end_reason", row).unwrap_or_default(),
            syn_rtt_ns: self.count("syn_rtt_ns", row),
            service: text("service"),
            service_source: text("service_source"),
            sni: text("sni"),
            alpn: text("alpn"),
            ja4: text("ja4"),
            http_host: text("http_host"),
            dns_query: text("dns_query"),
            vlan,
            inner_vlan,
            mpls: self.mpls(row),
            tunnel_type: text("tunnel_type"),
            tunnel_id: self.word("tunnel_id", row),
            src_mac: text("src_mac"),
            dst_mac: text("dst_mac"),
            sensor: text("sensor").unwrap_or_default(),
            interface: text("interface").unwrap_or_default(),
            queue: self.word("queue", row).unwrap_or_default(),
            loss_during: self.flag("loss_during", row).unwrap_or_default(),
            packets: Packets {
                run: self.text("run", row).and_then(|run| u32::from_str_radix(run, 16).ok()),
                first,
                incomplete: refs.is_none() || self.flag("refs_incomplete", row).unwrap_or(true),
                refs: refs.unwrap_or_default(),
            },
            number: self.record_number(row),
        }
    }

    fn as_of(&self, row: usize) -> Option<Timestamp> {
        let array = self.batch.column_by_name("as_of")?.as_primitive_opt::<TimestampNanosecondType>()?;
        array.is_valid(row).then(|| time(array.value(row)))
    }
}

/// An address of 16 bytes; of an IPv4 packet it is mapped.
fn address(bytes: &[u8], is_v6: bool) -> IpAddr {
    let octets: [u8; 16] = bytes.try_into().unwrap_or_default();
    let v6 = Ipv6Addr::from(octets);
    if is_v6 { IpAddr::V6(v6) } else { v6.to_canonical() }
}
