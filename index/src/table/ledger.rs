//! The columns of `ledger`, and its rows from and to Arrow batches.
//!
//! A row never says more than was counted: `unaccounted` is the one number that is a remainder.

use super::ColumnType::{Bool, I64, Text, Time, U32};
use super::{Column, Kind, LiveKey, TableError};
use arrow_array::cast::AsArray as _;
use arrow_array::types::{Int64Type, TimestampNanosecondType, UInt32Type};
use arrow_array::{
    Array, ArrayRef, BooleanArray, Int64Array, RecordBatch, StringArray, TimestampNanosecondArray,
    UInt32Array,
};
use arrow_schema::ArrowError;
use std::sync::Arc;
use tapedeck_packet::Timestamp;
use tapedeck_packet::time::NANOS_PER_SEC;

/// A row of `ledger/`: what became of the packets of one second, interface and queue.
pub static LEDGER: Kind = Kind {
    name: "ledger",
    doc: "What became of the packets of one second, interface and queue. In every row `seen = filtered + stored + \
          pending + ` all `dropped_...` ` + unaccounted`. Rows add up: over a run their sums are what became of its \
          packets, over all runs every packet stands once. A queue has a row for every second of its recording, also \
          where nothing came: a second without a row was not watched.",
    columns: COLUMNS,
    start: "ts",
    end: "ts_end",
    sort: &["ts", "interface", "queue"],
    bloom: &[],
    span_nanos: NANOS_PER_SEC,
    long: true,
    live: Some(LiveKey { key: "uid", number: "number" }),
};

/// The columns that count, in their order in [`LedgerCounts::list`].
pub const COUNTS: [&str; 20] = [
    "seen",
    "seen_bytes",
    "filtered",
    "stored",
    "stored_bytes",
    "pending",
    "cut_packets",
    "cut_bytes",
    "dropped_nic",
    "dropped_ring_full",
    "dropped_fill_empty",
    "dropped_unbound",
    "dropped_wrong_queue",
    "dropped_oversize",
    "dropped_program",
    "dropped_shed",
    "dropped_write_error",
    "dropped_crash",
    "dropped_down",
    "unaccounted",
];

/// The columns of the clock that count, in their order in [`ClockState::list`].
const CLOCK: [&str; 7] = [
    "utc_offset_ns",
    "tai_offset_s",
    "clock_status",
    "clock_max_error_us",
    "clock_steps",
    "clock_step_from_ns",
    "clock_step_to_ns",
];

const fn col(name: &'static str, kind: super::ColumnType, doc: &'static str) -> Column {
    Column::new(name, kind, doc)
}

const COLUMNS: &[Column] = &[
    col(
        "ts",
        Time,
        "Begin: of the second, of the recording where it began within it, or of a longer stretch.",
    ),
    col("ts_end", Time, "End, exclusive: a second later, or where the recording ended or the stretch does."),
    col(
        "kind",
        Text,
        "`second`: a queue in a second. `correction`: what became known after the row of its second was written, or \
         cannot be told by second; of the seconds from `ts` to `ts_end`. `nic`: lost by the card before any queue, as \
         noticed in this second. `down`: no recorder listened from `ts` to `ts_end`; of the run that ended it, or of \
         the dead one where `tapedeck detach` did. `crash`: what the dead run `run` had seen and has in no other row, \
         booked by its successor; what stood as `pending` is taken back in it. `clock`: the state of the clock, once \
         a minute, at each step and at each change of the TAI offset; it counts nothing.",
    ),
    col("sensor", Text, "The recording sensor."),
    col("run", Text, "The run that it tells of, 8 hexadecimal digits, as in the names of segments."),
    col("interface", Text, "Interface. Null for `clock`, unless it is a card's.").or_null(),
    col("queue", U32, "Queue. Null where the row is of no queue.").or_null(),
    col("mode", Text, "`zerocopy`, `copy`, `skb`, `packet` or `file`.").or_null(),
    col("uid", Text, "What the row is of: run, interface, queue and second."),
    col(
        "number",
        U32,
        "Number of the row within the run that wrote it. Rows of one `uid` with different numbers add up.",
    ),
    col(
        "seen",
        I64,
        "Packets that came. In mode `packet` those received in this second and the drops noticed in it: there the \
         kernel does not say in which second it dropped.",
    ),
    col(
        "seen_bytes",
        I64,
        "Their bytes on the wire; in mode `packet` without those of drops. Of `crash` and `down`: the program does not \
         tell the bytes of the one from those of the other. All are in the `crash` row, but where all packets not \
         in other rows were `down`.",
    ),
    col("filtered", I64, "Left out by a filter, on request."),
    col("stored", I64, "Retrievable. Negative in a correction: was retrievable and is not any more."),
    col("stored_bytes", I64, "Captured bytes of the packets stored; 0 in a `crash` row: not known there."),
    col(
        "pending",
        I64,
        "Under way. Not 0 only in the rows of the latest seconds, which are replaced by final ones, or after a kill \
         settled by a `crash` row with the negative number.",
    ),
    col(
        "cut_packets",
        I64,
        "Packets that were shortened on purpose or by `--snaplen`; they count as stored, too.",
    ),
    col("cut_bytes", I64, "Bytes taken off them."),
    col("dropped_nic", I64, "Lost by the card before any program. Rows of kind `nic` only."),
    col("dropped_ring_full", I64, "The socket's ring was full: the worker did not keep up, or waited for the disk."),
    col("dropped_fill_empty", I64, "The kernel had no chunk to put the packet in."),
    col("dropped_unbound", I64, "No socket listened on the queue while a recorder lived."),
    col("dropped_wrong_queue", I64, "Redirected to a socket of another queue or interface."),
    col("dropped_oversize", I64, "Longer than the socket takes."),
    col("dropped_program", I64, "The program could not handle it; of a file: its time cannot be stored."),
    col("dropped_shed", I64, "No free buffer: the compressor or the disk did not keep up."),
    col("dropped_write_error", I64, "Writing it failed, or what was written was taken away."),
    col("dropped_crash", I64, "Delivered to a recorder that died before the packet was recoverable."),
    col("dropped_down", I64, "Passed while no recorder was there."),
    col("unaccounted", I64, "The remainder: 0, or there is a defect. Negative: counted twice."),
    col("detail", Text, "What else there is to say: the counters that a `nic` row was read from; how the clock of a card runs, and whose \
         stamps packets have.").or_null(),
    col("clock_source", Text, "Where the times of packets come from: `system`, or `hardware` for a card that stamps packets.").or_null(),
    col("utc_offset_ns", I64, "UTC minus CLOCK_MONOTONIC, as used for packet times; of `hardware` UTC minus the card's clock, null while \
         nobody knows how that runs.").or_null(),
    col("tai_offset_s", I64, "TAI minus UTC, as the kernel knows it; 0 if nobody told it.").or_null(),
    col("clock_status", I64, "The kernel's status word (`adjtimex`, STA_... in linux/timex.h).").or_null(),
    col("clock_synchronised", Bool, "Somebody holds the clock to a source of time.").or_null(),
    col("clock_max_error_us", I64, "Largest error of the clock, as the kernel estimates it.").or_null(),
    col("clock_steps", I64, "Steps of more than a second since the run began.").or_null(),
    col("clock_step_from_ns", I64, "At a step: the offset before.").or_null(),
    col(
        "clock_step_to_ns",
        I64,
        "At a step: the offset after; at a step over a day the old one stays in use.",
    )
    .or_null(),
];

/// What a row is about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RowKind {
    /// A queue in a second.
    #[default]
    Second,
    /// What became known later, or of no single second.
    Correction,
    /// Losses of the card.
    Nic,
    /// No recorder listened.
    Down,
    /// A recorder died.
    Crash,
    /// The state of the clock.
    Clock,
}

impl RowKind {
    const ALL: [Self; 6] = [Self::Second, Self::Correction, Self::Nic, Self::Down, Self::Crash, Self::Clock];

    /// As the column says it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Second => "second",
            Self::Correction => "correction",
            Self::Nic => "nic",
            Self::Down => "down",
            Self::Crash => "crash",
            Self::Clock => "clock",
        }
    }

    /// The kind of this name; `None` for one of a later version.
    #[must_use]
    pub fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }
}

/// A record of numbers, and the same as a list.
macro_rules! numbers {
    ($(#[$about:meta])* $name:ident: $($number:ident),+) => {
        $(#[$about])*
        pub struct $name {
            $(pub $number: i64),+
        }

        impl $name {
            /// The numbers in the order of [`COUNTS`].
            #[must_use]
            pub fn list(&self) -> [i64; COUNTS.len()] {
                [$(self.$number),+]
            }

            /// The same from such a list.
            #[must_use]
            pub fn from_list([$($number),+]: [i64; COUNTS.len()]) -> Self {
                Self { $($number),+ }
            }
        }
    };
}

numbers! {
    /// The numbers of a row. Packets, but for those that say bytes.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
    #[expect(missing_docs, reason = "each is the column of its name")]
    LedgerCounts: seen, seen_bytes, filtered, stored, stored_bytes, pending, cut_packets, cut_bytes, nic, ring_full,
    fill_empty, unbound, wrong_queue, oversize, program, shed, write_error, crash, down, unaccounted
}

impl LedgerCounts {
    /// Packets lost, by cause: the cause's name in the ledger, and how many.
    #[must_use]
    pub fn dropped(&self) -> [(&'static str, i64); 11] {
        [
            ("nic", self.nic),
            ("ring_full", self.ring_full),
            ("fill_empty", self.fill_empty),
            ("unbound", self.unbound),
            ("wrong_queue", self.wrong_queue),
            ("oversize", self.oversize),
            ("program", self.program),
            ("shed", self.shed),
            ("write_error", self.write_error),
            ("crash", self.crash),
            ("down", self.down),
        ]
    }

    /// Computes `unaccounted` from everything else.
    #[must_use]
    pub fn settled(self) -> Self {
        let dropped = self.dropped().iter().fold(0, |sum: i64, (_, packets)| sum.wrapping_add(*packets));
        let accounted = [self.filtered, self.stored, self.pending, dropped];
        Self { unaccounted: accounted.iter().fold(self.seen, |left, part| left.wrapping_sub(*part)), ..self }
    }

    /// Each number combined with that of `other`.
    #[must_use]
    pub fn with(&self, other: &Self, combine: impl Fn(i64, i64) -> i64) -> Self {
        let mut list = self.list();
        for (mine, theirs) in list.iter_mut().zip(other.list()) {
            *mine = combine(*mine, theirs);
        }
        Self::from_list(list)
    }

    /// Sums.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        self.with(other, i64::wrapping_add)
    }

    /// Differences.
    #[must_use]
    pub fn minus(&self, other: &Self) -> Self {
        self.with(other, i64::wrapping_sub)
    }
}

/// The state of the clock at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClockState {
    /// `system` or `hardware`.
    pub source: String,
    /// UTC minus CLOCK_MONOTONIC, as used; of `hardware` UTC minus the card's clock, if it is known how that runs.
    pub utc_offset_ns: Option<i64>,
    /// TAI minus UTC, seconds; `None`: the kernel was not asked or did not answer. The next three likewise.
    pub tai_offset_s: Option<i64>,
    /// The kernel's status word.
    pub status: Option<i64>,
    /// Somebody holds the clock to a source of time.
    pub synchronised: Option<bool>,
    /// The kernel's estimate of the largest error, microseconds.
    pub max_error_us: Option<i64>,
    /// Steps since the run began.
    pub steps: i64,
    /// Offsets before and after, where the row is of a step.
    pub step: Option<(i64, i64)>,
}

impl ClockState {
    fn list(&self) -> [Option<i64>; CLOCK.len()] {
        [
            self.utc_offset_ns,
            self.tai_offset_s,
            self.status,
            self.max_error_us,
            Some(self.steps),
            self.step.map(|step| step.0),
            self.step.map(|step| step.1),
        ]
    }
}

/// A row of `ledger`, as it lies on disk.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LedgerRow {
    /// `ts`.
    pub ts: Timestamp,
    /// `ts_end`.
    pub ts_end: Timestamp,
    /// `kind`.
    pub kind: RowKind,
    /// `sensor`.
    pub sensor: String,
    /// `run`.
    pub run: String,
    /// `interface`.
    pub interface: Option<String>,
    /// `queue`.
    pub queue: Option<u32>,
    /// `mode`.
    pub mode: Option<String>,
    /// `uid`.
    pub uid: String,
    /// `number`.
    pub number: u32,
    /// The columns of [`COUNTS`].
    pub counts: LedgerCounts,
    /// `detail`.
    pub detail: Option<String>,
    /// The columns of the clock.
    pub clock: Option<ClockState>,
}

/// Rows as a batch of [`LEDGER`].
///
/// # Errors
/// None is known: the columns are all of one length and of the schema's types.
pub fn to_batch(rows: &[LedgerRow]) -> Result<RecordBatch, ArrowError> {
    fn text<'a>(rows: &'a [LedgerRow], of: impl Fn(&'a LedgerRow) -> &'a str) -> ArrayRef {
        Arc::new(StringArray::from_iter_values(rows.iter().map(of)))
    }
    fn option<'a>(rows: &'a [LedgerRow], of: impl Fn(&'a LedgerRow) -> Option<&'a str>) -> ArrayRef {
        Arc::new(rows.iter().map(of).collect::<StringArray>())
    }
    let time = |of: fn(&LedgerRow) -> Timestamp| -> ArrayRef {
        let nanos = rows.iter().map(|row| i64::try_from(of(row).nanos()).unwrap_or(i64::MAX));
        Arc::new(TimestampNanosecondArray::from_iter_values(nanos).with_timezone("UTC"))
    };
    let mut columns: Vec<ArrayRef> = vec![
        time(|row| row.ts),
        time(|row| row.ts_end),
        text(rows, |row| row.kind.name()),
        text(rows, |row| &row.sensor),
        text(rows, |row| &row.run),
        option(rows, |row| row.interface.as_deref()),
        Arc::new(rows.iter().map(|row| row.queue).collect::<UInt32Array>()),
        option(rows, |row| row.mode.as_deref()),
        text(rows, |row| &row.uid),
        Arc::new(rows.iter().map(|row| row.number).collect::<UInt32Array>()),
    ];
    let counts: Vec<_> = rows.iter().map(|row| row.counts.list()).collect();
    for at in 0..COUNTS.len() {
        let counts = counts.iter().map(|list| list.get(at).copied());
        columns.push(Arc::new(counts.collect::<Int64Array>()));
    }
    columns.push(option(rows, |row| row.detail.as_deref()));
    columns.push(option(rows, |row| Some(row.clock.as_ref()?.source.as_str())));
    let clock = |at: usize| -> ArrayRef {
        let of = |row: &LedgerRow| row.clock.as_ref()?.list().get(at).copied().flatten();
        Arc::new(rows.iter().map(of).collect::<Int64Array>())
    };
    columns.extend((0..3).map(clock));
    let synchronised = rows.iter().map(|row| row.clock.as_ref()?.synchronised);
    columns.push(Arc::new(synchronised.collect::<BooleanArray>()));
    columns.extend((3..CLOCK.len()).map(clock));
    RecordBatch::try_new(LEDGER.schema(), columns)
}

/// The rows of a batch. A column that is missing, as when it was not asked for, is null or 0; rows of a kind of a
/// later version are left out.
///
/// # Errors
/// A column that there has to be (`ts`, `ts_end`, `kind`) is missing or of another type.
pub fn from_batch(batch: &RecordBatch) -> Result<Vec<LedgerRow>, TableError> {
    let time = |column| {
        let array =
            batch.column_by_name(column).and_then(|c| c.as_primitive_opt::<TimestampNanosecondType>());
        array.ok_or(TableError::NoTime { table: LEDGER.name, column })
    };
    let (ts, ts_end) = (time("ts")?, time("ts_end")?);
    let text = |column: &str| batch.column_by_name(column).and_then(|c| c.as_string_opt::<i32>());
    let kind = text("kind")
        .ok_or_else(|| TableError::Arrow(ArrowError::SchemaError("no text column `kind`".to_owned())))?;
    let [sensor, run, interface, mode, uid, detail, source] =
        ["sensor", "run", "interface", "mode", "uid", "detail", "clock_source"].map(text);
    let number = |column: &str| batch.column_by_name(column).and_then(|c| c.as_primitive_opt::<UInt32Type>());
    let (queue, numbers) = (number("queue"), number("number"));
    let count = |name: &str| batch.column_by_name(name).and_then(|c| c.as_primitive_opt::<Int64Type>());
    let (counts, clock) = (COUNTS.map(count), CLOCK.map(count));
    let synchronised = batch.column_by_name("clock_synchronised").and_then(|c| c.as_boolean_opt());
    let word = |array: Option<&StringArray>, at: usize| {
        array.filter(|array| array.is_valid(at)).map(|array| array.value(at).to_owned())
    };
    let int = |array: Option<&Int64Array>, at: usize| {
        array.filter(|array| array.is_valid(at)).map(|array| array.value(at))
    };
    let small = |array: Option<&UInt32Array>, at: usize| {
        array.filter(|array| array.is_valid(at)).map(|array| array.value(at))
    };
    let state = |at: usize| {
        let [offset, tai, status, error, steps, from, to] = clock.map(|array| int(array, at));
        Some(ClockState {
            source: word(source, at)?,
            utc_offset_ns: offset,
            tai_offset_s: tai,
            status,
            synchronised: synchronised.filter(|array| array.is_valid(at)).map(|array| array.value(at)),
            max_error_us: error,
            steps: steps.unwrap_or(0),
            step: from.zip(to),
        })
    };
    let row = |at: usize| {
        Some(LedgerRow {
            ts: super::encode::time(ts.value(at)),
            ts_end: super::encode::time(ts_end.value(at)),
            kind: RowKind::of(kind.value(at))?,
            sensor: word(sensor, at).unwrap_or_default(),
            run: word(run, at).unwrap_or_default(),
            interface: word(interface, at),
            queue: small(queue, at),
            mode: word(mode, at),
            uid: word(uid, at).unwrap_or_default(),
            number: small(numbers, at).unwrap_or(0),
            counts: LedgerCounts::from_list(counts.map(|array| int(array, at).unwrap_or(0))),
            detail: word(detail, at),
            clock: state(at),
        })
    };
    Ok((0..batch.num_rows()).filter_map(row).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_survive_a_batch_and_a_file() {
        let at = |secs: u64| Timestamp::from_nanos_saturating(secs * 1_000_000_000);
        let second = LedgerRow {
            ts: at(1_795_284_060),
            ts_end: at(1_795_284_061),
            sensor: "s".to_owned(),
            run: "0000009f".to_owned(),
            interface: Some("eth1".to_owned()),
            queue: Some(3),
            mode: Some("copy".to_owned()),
            uid: "0000009f-eth1-3-1795284060".to_owned(),
            number: 7,
            counts: LedgerCounts::from_list(std::array::from_fn(|n| i64::try_from(n).unwrap() - 3)),
            ..LedgerRow::default()
        };
        let clock = LedgerRow {
            kind: RowKind::Clock,
            interface: None,
            queue: None,
            mode: None,
            counts: LedgerCounts::default(),
            detail: Some("a step".to_owned()),
            clock: Some(ClockState {
                source: "system".to_owned(),
                utc_offset_ns: Some(1),
                tai_offset_s: Some(37),
                status: None,
                synchronised: Some(false),
                max_error_us: Some(5),
                steps: 1,
                step: Some((-1, 2)),
            }),
            ..second.clone()
        };
        let rows = [second, clock];
        let batch = to_batch(&rows).unwrap();
        assert_eq!(from_batch(&batch).unwrap(), rows);
        let mut file = Vec::new();
        super::super::encode::write(&LEDGER, &[batch], &mut file).unwrap();
        assert!(file.starts_with(b"PAR1"));
    }

    #[test]
    fn the_columns_are_where_the_names_say() {
        let names: Vec<&str> = COLUMNS.iter().map(|column| column.name).collect();
        let from = names.iter().position(|name| *name == "seen").unwrap();
        assert_eq!(names[from..from + COUNTS.len()], COUNTS);
        let settled =
            LedgerCounts { seen: 10, stored: 4, nic: 1, shed: 2, pending: 2, ..Default::default() }.settled();
        assert_eq!(settled.unaccounted, 1);
        for kind in RowKind::ALL {
            assert_eq!(RowKind::of(kind.name()), Some(kind));
        }
        let lost: i64 =
            LedgerCounts { down: 3, crash: 4, ..Default::default() }.dropped().iter().map(|d| d.1).sum();
        assert_eq!(lost, 7);
    }
}
