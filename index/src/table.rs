//! Tables of records: Parquet files in hour folders, and the journal beside each one that is still open.
//!
//! What is the same for every kind of table lies here: columns and their documentation ([`Column`]),
//! file names ([`TableName`]), which files a store holds ([`list`]), rows to Parquet ([`encode`]), the
//! journals ([`journal`], [`live`]), files back to rows ([`read`]). What a kind holds is a [`Kind`]: a name, columns, and which of them
//! say where a row belongs. A kind of its own is one constant, and an entry in [`KINDS`].
//!
//! A file holds rows of one 300-second slot by their last time, so it lies in one hour folder. A row
//! that begins in `[a, b)` is found in the hours of `[a, b + span)`: `span` bounds how long a row is.

use arrow_schema::{DataType, Field, Schema, SchemaRef, TimeUnit};
use std::collections::HashMap;
use std::sync::Arc;
use tapedeck_packet::time::NANOS_PER_SEC;
use tapedeck_packet::{Timestamp, UtcHour};

mod catalog;
pub mod encode;
pub mod journal;
pub mod ledger;
pub mod live;
mod name;
mod page;
pub mod read;
mod sessions;
pub mod stats;
#[cfg(test)]
mod tests;

pub use catalog::{Found, Listing, LiveFound, State, list};
pub use ledger::LEDGER;
pub use name::{LIVE_SUFFIX, PARQUET_SUFFIX, TableFile, TableName, live_file, parse_live};
pub use page::schema_page;
pub use sessions::{RECORD_SPAN_NANOS, SESSIONS};
pub use stats::STATS;

/// Seconds of last times that one file spans at most.
pub const SLOT_SECS: u64 = 300;
/// Version of the tables' columns, in the metadata of every file.
pub const TABLE_VERSION: u32 = 1;
/// Key of [`TABLE_VERSION`] in a schema's metadata.
pub const VERSION_KEY: &str = "tapedeck.version";
/// Key of the kind's name in a schema's metadata.
pub const KIND_KEY: &str = "tapedeck.table";
/// Key of a column's documentation in its metadata.
pub const DOC_KEY: &str = "doc";

/// Every kind of table that a store may hold.
pub static KINDS: &[&Kind] = &[&SESSIONS, &STATS, &LEDGER];

/// What a value is. Counters are signed, so that differences of them are safe in every SQL engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColumnType {
    /// Nanoseconds since the epoch, UTC.
    Time,
    /// A count or a duration.
    I64,
    /// A number of 32 bits.
    U32,
    /// A port or a VLAN id.
    U16,
    /// A protocol number, flags.
    U8,
    /// Yes or no.
    Bool,
    /// UTF-8 text.
    Text,
    /// A floating-point number.
    F64,
    /// Bytes of a layout of their own.
    Bytes,
    /// An IP address as 16 bytes, IPv4 mapped (`::ffff:a.b.c.d`), big-endian: sorts and compares as the
    /// address does.
    Address,
    /// A list of packet references: (segment, first_frame, last_frame).
    PacketRefs,
}

impl ColumnType {
    /// The Arrow type.
    #[must_use]
    pub fn data_type(self) -> DataType {
        match self {
            Self::Time => DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into())),
            Self::I64 => DataType::Int64,
            Self::U32 => DataType::UInt32,
            Self::U16 => DataType::UInt16,
            Self::U8 => DataType::UInt8,
            Self::Bool => DataType::Boolean,
            Self::Text => DataType::Utf8,
            Self::F64 => DataType::Float64,
            Self::Bytes => DataType::Binary,
            Self::Address => DataType::FixedSizeBinary(16),
            Self::PacketRefs => DataType::List(Arc::new(Field::new(
                "element",
                DataType::Struct(
                    ["segment", "first_frame", "last_frame"]
                        .map(|name| Field::new(name, DataType::UInt32, false))
                        .to_vec()
                        .into(),
                ),
                false,
            ))),
        }
    }

    /// As the schema page writes it: the Parquet type.
    #[must_use]
    pub fn words(self) -> &'static str {
        match self {
            Self::Time => "TIMESTAMP(ns, UTC)",
            Self::I64 => "INT64",
            Self::U32 => "UINT32",
            Self::U16 => "UINT16",
            Self::U8 => "UINT8",
            Self::Bool => "BOOLEAN",
            Self::Text => "STRING",
            Self::F64 => "DOUBLE",
            Self::Bytes => "BYTE_ARRAY",
            Self::Address => "FIXED_LEN_BYTE_ARRAY(16)",
            Self::PacketRefs => "LIST<STRUCT<segment, first_frame, last_frame UINT32>>",
        }
    }
}

/// What a column is called elsewhere; empty where it has no counterpart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Elsewhere {
    /// Field of Zeek's log.
    pub zeek: &'static str,
    /// Elastic Common Schema.
    pub ecs: &'static str,
    /// OCSF class 4001, Network Activity.
    pub ocsf: &'static str,
    /// IPFIX information element.
    pub ipfix: &'static str,
}

/// A column of a table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Column {
    /// Its name.
    pub name: &'static str,
    /// What its values are.
    pub kind: ColumnType,
    /// A row may have none.
    pub nullable: bool,
    /// What it says, with units.
    pub doc: &'static str,
    /// What others call it.
    pub elsewhere: Elsewhere,
}

impl Column {
    /// A column that every row has.
    #[must_use]
    pub const fn new(name: &'static str, kind: ColumnType, doc: &'static str) -> Self {
        let elsewhere = Elsewhere { zeek: "", ecs: "", ocsf: "", ipfix: "" };
        Self { name, kind, nullable: false, doc, elsewhere }
    }

    /// The same, but a row may have none.
    #[must_use]
    pub const fn or_null(self) -> Self {
        Self { nullable: true, ..self }
    }

    /// The same, with its names elsewhere: Zeek, ECS, OCSF, IPFIX.
    #[must_use]
    pub const fn maps(
        self,
        zeek: &'static str,
        ecs: &'static str,
        ocsf: &'static str,
        ipfix: &'static str,
    ) -> Self {
        Self { elsewhere: Elsewhere { zeek, ecs, ocsf, ipfix }, ..self }
    }

    fn field(&self) -> Field {
        let metadata = HashMap::from([(DOC_KEY.to_owned(), self.doc.to_owned())]);
        Field::new(self.name, self.kind.data_type(), self.nullable).with_metadata(metadata)
    }
}

/// A kind of table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// Its folder in a store, and its name in SQL.
    pub name: &'static str,
    /// What a row is, in a sentence.
    pub doc: &'static str,
    /// Its columns, in order.
    pub columns: &'static [Column],
    /// Column of a row's first time: `t0` of a file is the smallest.
    pub start: &'static str,
    /// Column of a row's last time: it names the slot and the hour, and `t1` of a file is the largest.
    pub end: &'static str,
    /// Columns that rows are sorted by in a file.
    pub sort: &'static [&'static str],
    /// Columns with a Bloom filter.
    pub bloom: &'static [&'static str],
    /// No row starts more than this before its end, ns; of a kind with `long` rows, few do.
    pub span_nanos: u64,
    /// Single rows may be of any length, as an outage is: what lies behind an asked range is looked through by
    /// the names of files, whose `t0` says how far back they reach.
    pub long: bool,
    /// Rows of what is not over yet are kept in a live journal ([`live`]); `None`: there are none.
    pub live: Option<LiveKey>,
}

/// How rows of what is not over yet are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LiveKey {
    /// Text column: what the row is about.
    pub key: &'static str,
    /// [`ColumnType::U32`] column: number of the row among those of its key. A row replaces every
    /// earlier one whose number is not larger.
    pub number: &'static str,
}

impl Kind {
    /// The Arrow schema, with each column's documentation in its metadata.
    #[must_use]
    pub fn schema(&self) -> SchemaRef {
        let fields: Vec<Field> = self.columns.iter().map(Column::field).collect();
        let metadata = HashMap::from([
            (KIND_KEY.to_owned(), self.name.to_owned()),
            (VERSION_KEY.to_owned(), TABLE_VERSION.to_string()),
        ]);
        Arc::new(Schema::new_with_metadata(fields, metadata))
    }

    /// The hours whose folders hold the rows that overlap `[from, to)`.
    #[must_use]
    pub fn hours(&self, from: Timestamp, to: Timestamp) -> (UtcHour, UtcHour) {
        (from.hour(), to.saturating_sub(1).saturating_add(self.span_nanos).hour())
    }
}

/// The 300 seconds that a last time lies in, counted from the epoch.
#[must_use]
pub const fn slot(end: Timestamp) -> u64 {
    end.nanos() / (SLOT_SECS * NANOS_PER_SEC)
}

/// The hour that a slot lies in.
#[must_use]
pub const fn slot_hour(slot: u64) -> UtcHour {
    UtcHour::from_hours(slot.saturating_mul(SLOT_SECS) / 3600)
}

/// What is wrong with rows or with the bytes they are to become.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// A column that says where a row belongs is missing or of another type.
    #[error("table {table}: no column `{column}` of times")]
    NoTime {
        /// The kind.
        table: &'static str,
        /// The column.
        column: &'static str,
    },
    /// Rows cannot be sorted, joined or encoded.
    #[error("rows cannot be encoded")]
    Arrow(#[from] arrow_schema::ArrowError),
    /// Parquet cannot be written or read.
    #[error("Parquet")]
    Parquet(#[from] parquet::errors::ParquetError),
}
