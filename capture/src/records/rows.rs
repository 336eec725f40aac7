//! Records to rows of `sessions`: one array a column, in the order of the schema.

use arrow_array::builder::{FixedSizeBinaryBuilder, ListBuilder, StructBuilder, UInt32Builder};
use arrow_array::{
    ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray, UInt8Array,
    UInt16Array, UInt32Array,
};
use arrow_schema::{ArrowError, DataType, Field, Fields};
use std::net::IpAddr;
use std::sync::Arc;
use tapedeck_index::table::{ColumnType, SESSIONS};
use tapedeck_packet::{CommunityId, Mac, Timestamp, Tunnel};
use tapedeck_session::{Record, RecordKind, Side, Volume};

/// What is the same for all records of a run.
#[derive(Clone, Debug)]
pub struct Context {
    /// Sensor id.
    pub sensor: String,
    /// Run of the recorder.
    pub run: u32,
}

/// A record and what it does not say itself.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// The record.
    pub record: &'a Record,
    /// Its interface.
    pub interface: &'a str,
    /// When it was given: `as_of` of an open record.
    pub now: Timestamp,
}

/// Rows in the making.
struct Rows<'a>(Vec<Row<'a>>);

/// The rows of `rows`.
///
/// # Errors
/// The columns do not fit the schema: a fault of this module.
pub fn batch(context: &Context, rows: Vec<Row<'_>>) -> Result<RecordBatch, ArrowError> {
    let rows = Rows(rows);
    let mut columns = Vec::with_capacity(SESSIONS.columns.len());
    columns.extend(rows.when());
    columns.extend(rows.which());
    columns.extend(rows.who()?);
    columns.extend(rows.deltas());
    columns.extend(rows.totals());
    columns.extend(rows.course());
    columns.extend(rows.service());
    columns.extend(rows.place(context));
    columns.extend(rows.trust(context));
    RecordBatch::try_new(SESSIONS.schema(), columns)
}

/// A counter in a signed column: what would not fit stands at the limit.
fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl Rows<'_> {
    fn records(&self) -> impl Iterator<Item = &Record> {
        self.0.iter().map(|row| row.record)
    }

    fn time(&self, f: impl Fn(&Row<'_>) -> Option<Timestamp>) -> ArrayRef {
        let times = self.0.iter().map(|row| f(row).map(|time| signed(time.nanos())));
        Arc::new(TimestampNanosecondArray::from_iter(times).with_timezone("UTC"))
    }

    fn number(&self, f: impl Fn(&Record) -> u64) -> ArrayRef {
        Arc::new(Int64Array::from_iter_values(self.records().map(|record| signed(f(record)))))
    }

    fn text<T: AsRef<str>>(&self, f: impl Fn(&Record) -> Option<T>) -> ArrayRef {
        Arc::new(self.records().map(f).collect::<StringArray>())
    }

    fn byte(&self, f: impl Fn(&Record) -> Option<u8>) -> ArrayRef {
        Arc::new(self.records().map(f).collect::<UInt8Array>())
    }

    fn short(&self, f: impl Fn(&Record) -> Option<u16>) -> ArrayRef {
        Arc::new(self.records().map(f).collect::<UInt16Array>())
    }

    fn word(&self, f: impl Fn(&Record) -> Option<u32>) -> ArrayRef {
        Arc::new(self.records().map(f).collect::<UInt32Array>())
    }

    fn flag(&self, f: impl Fn(&Record) -> bool) -> ArrayRef {
        Arc::new(self.records().map(|record| Some(f(record))).collect::<BooleanArray>())
    }

    fn when(&self) -> [ArrayRef; 4] {
        [
            self.time(|row| Some(row.record.ts)),
            self.time(|row| Some(row.record.ts_last)),
            self.time(|row| Some(row.record.ts_interval)),
            self.number(|record| record.ts_last.nanos().saturating_sub(record.ts.nanos())),
        ]
    }

    fn which(&self) -> [ArrayRef; 5] {
        [
            self.text(|record| Some(record.uid.to_string())),
            self.text(|record| Some(record.kind.as_str())),
            self.word(|record| Some(record.number)),
            self.time(|row| (row.record.kind == RecordKind::Open).then_some(row.now)),
            self.text(|record| record.parent.map(|parent| parent.to_string())),
        ]
    }

    fn who(&self) -> Result<[ArrayRef; 10], ArrowError> {
        let end = |side: &Side| (side.address, side.port);
        let id = |record: &Record| {
            CommunityId::of_session(end(&record.orig), end(&record.resp), record.proto)
                .filter(|_| record.kind != RecordKind::Coarse)
                .map(|id| id.to_string())
        };
        Ok([
            self.text(id),
            self.text(|record| Some(record.orig.address.to_string())),
            self.text(|record| Some(record.resp.address.to_string())),
            self.address(|record| record.orig.address)?,
            self.address(|record| record.resp.address)?,
            self.short(|record| Some(record.orig.port)),
            self.short(|record| Some(record.resp.port)),
            self.byte(|record| Some(record.proto)),
            self.byte(|record| Some(if record.orig.address.is_ipv4() { 4 } else { 6 })),
            self.flag(|record| record.originator_known),
        ])
    }

    fn address(&self, f: impl Fn(&Record) -> IpAddr) -> Result<ArrayRef, ArrowError> {
        let mut builder = FixedSizeBinaryBuilder::with_capacity(self.0.len(), 16);
        for record in self.records() {
            let bytes = match f(record) {
                IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
                IpAddr::V6(v6) => v6.octets(),
            };
            builder.append_value(bytes)?;
        }
        Ok(Arc::new(builder.finish()))
    }

    fn deltas(&self) -> [ArrayRef; 11] {
        let orig = |f: fn(&Volume) -> u64| self.number(move |record| f(&record.orig.volume));
        let resp = |f: fn(&Volume) -> u64| self.number(move |record| f(&record.resp.volume));
        [
            orig(|volume| volume.packets),
            resp(|volume| volume.packets),
            orig(|volume| volume.ip_bytes),
            resp(|volume| volume.ip_bytes),
            orig(|volume| volume.payload_bytes),
            resp(|volume| volume.payload_bytes),
            orig(|volume| volume.wire_bytes),
            resp(|volume| volume.wire_bytes),
            orig(|volume| volume.retransmissions),
            resp(|volume| volume.retransmissions),
            self.number(|record| record.orig.volume.cut_bytes.saturating_add(record.resp.volume.cut_bytes)),
        ]
    }

    fn totals(&self) -> [ArrayRef; 7] {
        let orig = |f: fn(&Volume) -> u64| self.number(move |record| f(&record.orig.total));
        let resp = |f: fn(&Volume) -> u64| self.number(move |record| f(&record.resp.total));
        [
            orig(|total| total.packets),
            resp(|total| total.packets),
            orig(|total| total.ip_bytes),
            resp(|total| total.ip_bytes),
            orig(|total| total.payload_bytes),
            resp(|total| total.payload_bytes),
            self.number(|record| record.missed_bytes),
        ]
    }

    fn course(&self) -> [ArrayRef; 6] {
        [
            self.text(|record| Some(record.conn_state.as_str())),
            self.text(|record| Some(record.history.clone())),
            self.byte(|record| Some(record.orig.tcp_flags)),
            self.byte(|record| Some(record.resp.tcp_flags)),
            self.byte(|record| Some(record.end_reason as u8)),
            Arc::new(self.records().map(|record| record.syn_rtt_ns.map(signed)).collect::<Int64Array>()),
        ]
    }

    fn service(&self) -> [ArrayRef; 7] {
        [
            self.text(|record| record.service.name),
            self.text(|record| record.service.source.as_str()),
            self.text(|record| record.service.sni.clone()),
            self.text(|record| record.service.alpn.clone()),
            self.text(|record| record.service.ja4.clone()),
            self.text(|record| record.service.http_host.clone()),
            self.text(|record| record.service.dns_query.clone()),
        ]
    }

    fn place(&self, context: &Context) -> [ArrayRef; 14] {
        let vlan = |at: usize| move |record: &Record| record.vlans.get(at).copied().flatten();
        let vni = |record: &Record| {
            record.tunnel_id.filter(|_| matches!(record.tunnel, Tunnel::Vxlan | Tunnel::Geneve))
        };
        [
            self.short(vlan(0)),
            self.short(vlan(1)),
            self.word(|record| record.mpls),
            self.text(|record| (record.tunnel != Tunnel::None).then(|| record.tunnel.name())),
            self.word(|record| record.tunnel_id),
            self.word(vni),
            self.text(|record| record.orig.mac.map(|mac| Mac(mac).to_string())),
            self.text(|record| record.resp.mac.map(|mac| Mac(mac).to_string())),
            self.byte(|record| record.orig.ttl),
            self.byte(|record| record.resp.ttl),
            self.text(|_| Some(context.sensor.as_str())),
            Arc::new(StringArray::from_iter_values(self.0.iter().map(|row| row.interface))),
            self.word(|record| Some(record.queue)),
            self.flag(|record| record.split),
        ]
    }

    fn trust(&self, context: &Context) -> [ArrayRef; 5] {
        let run = format!("{:08x}", context.run);
        [
            self.number(|record| record.stored_packets),
            self.flag(|record| record.loss_during),
            self.text(|_| Some(run.as_str())),
            self.refs(),
            self.flag(|record| record.refs_incomplete),
        ]
    }

    fn refs(&self) -> ArrayRef {
        let DataType::List(element) = ColumnType::PacketRefs.data_type() else {
            return Arc::new(StringArray::new_null(self.0.len()));
        };
        let fields: Fields = match element.data_type() {
            DataType::Struct(fields) => fields.clone(),
            _ => Vec::<Field>::new().into(),
        };
        let mut builder = ListBuilder::new(StructBuilder::from_fields(fields, self.0.len()))
            .with_field(Arc::clone(&element));
        for record in self.records() {
            for packet in &record.refs {
                let row = builder.values();
                for (at, number) in
                    [packet.segment, packet.first_frame, packet.last_frame].into_iter().enumerate()
                {
                    if let Some(column) = row.field_builder::<UInt32Builder>(at) {
                        column.append_value(number);
                    }
                }
                row.append(true);
            }
            builder.append(true);
        }
        Arc::new(builder.finish())
    }
}
